// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/digest.h"

#include <gtest/gtest.h>

#include "mover/test_link.h"

namespace ferry::mover {
namespace {

using testing::TestDisk;
using testing::hashes_for, testing::kMiB, testing::random_bytes;

TEST(DigestTest, ATableFilledFromTheDiskNamesItsContent) {
  constexpr uint64_t kSize = 3 * kMiB + 4096 + 512;
  TestDisk disk(kSize);
  disk.write(kMiB, random_bytes(2 * kMiB + 4096 + 512, 1));
  auto hashes = hashes_for(kSize);
  uint64_t done = 0;
  ASSERT_TRUE(fill_hashes(disk.fd(), kSize, hashes, [&](uint64_t now) { done = now; }, {}).ok());
  EXPECT_EQ(done, kSize);
  EXPECT_EQ(hashes.missing(), 0u);
  EXPECT_EQ(hashes.digest(), *digest_of(disk.fd(), kSize, kHashBlockShift, {}, {}));
  EXPECT_TRUE(find_mismatches(disk.fd(), kSize, hashes, {}, {})->empty());

  auto too_small = hashes_for(kSize - 512);
  EXPECT_EQ(fill_hashes(disk.fd(), kSize, too_small, {}, {}).error().code, Errc::usage);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(fill_hashes(disk.fd(), kSize, hashes, {}, stop.get_token()).error().code,
            Errc::aborted);
}

}  // namespace
}  // namespace ferry::mover
