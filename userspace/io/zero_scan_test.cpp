// SPDX-License-Identifier: GPL-2.0-or-later
#include "io/zero_scan.h"

#include <gtest/gtest.h>

#include <vector>

namespace ferry {
namespace {

TEST(ZeroScanTest, EveryLengthAndEveryPlaceOfAByte) {
  // One guard byte on each side that must not be looked at.
  for (size_t size = 0; size <= 200; ++size) {
    std::vector<unsigned char> buffer(size + 2, 0);
    buffer.front() = buffer.back() = 0xff;
    ASSERT_TRUE(is_zero(&buffer[1], size)) << size;
    for (size_t at = 1; at <= size; ++at) {
      for (const int value : {1, 0x80}) {
        buffer[at] = static_cast<unsigned char>(value);
        ASSERT_FALSE(is_zero(&buffer[1], size)) << size << " at " << at;
      }
      buffer[at] = 0;
    }
  }
}

TEST(ZeroScanTest, LargeBuffers) {
  std::vector<unsigned char> buffer(256 * 1024, 0);
  EXPECT_TRUE(is_zero(buffer.data(), buffer.size()));
  for (const size_t at : {size_t{0}, size_t{15}, size_t{16}, size_t{17}, size_t{4095}, size_t{70001},
                          buffer.size() - 2, buffer.size() - 1}) {
    buffer[at] = 1;
    EXPECT_FALSE(is_zero(buffer.data(), buffer.size())) << at;
    buffer[at] = 0;
  }
}

// The same byte everywhere equals itself shifted, and is still not zero.
TEST(ZeroScanTest, ConstantContentIsNotZero) {
  const std::vector<unsigned char> buffer(4096, 0x5a);
  EXPECT_FALSE(is_zero(buffer.data(), buffer.size()));
}

}  // namespace
}  // namespace ferry
