// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/granularity.h"

#include <gtest/gtest.h>

namespace ferry::filter {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kTiB = uint64_t{1} << 40;

TEST(GranularityTest, MemoryOfBothMapsWithSummaries) {
  EXPECT_EQ(map_memory_bytes(1, 12), 2 * 2 * 4096u);
  EXPECT_EQ(map_memory_bytes(128 * kMiB, 12), 2 * 2 * 4096u);
  EXPECT_EQ(map_memory_bytes(128 * kMiB + 1, 12), 2 * 3 * 4096u);
  EXPECT_EQ(map_memory_bytes(kTiB, 12), 64 * kMiB + 2 * 4096);
  EXPECT_EQ(map_memory_bytes(16 * kTiB, 16), 64 * kMiB + 2 * 4096);
}

TEST(GranularityTest, SmallestBlocksThatFit) {
  EXPECT_EQ(choose_block_shift(kMiB, kMapMemoryDefaultBytes).value(), 12u);
  EXPECT_EQ(choose_block_shift(3 * kTiB, kMapMemoryDefaultBytes).value(), 12u);
  EXPECT_EQ(choose_block_shift(16 * kTiB, kMapMemoryDefaultBytes).value(), 15u);
  EXPECT_EQ(choose_block_shift(kTiB, 64 * kMiB + 2 * 4096).value(), 12u);
  EXPECT_EQ(choose_block_shift(kTiB, 64 * kMiB + 2 * 4096 - 1).value(), 13u);
}

TEST(GranularityTest, NeverMoreThanAllowed) {
  auto none = choose_block_shift(16 * kTiB, kMiB);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, Errc::unsupported);
  EXPECT_NE(none.error().message().find("5 MiB"), std::string::npos) << none.error().message();
}

}  // namespace
}  // namespace ferry::filter
