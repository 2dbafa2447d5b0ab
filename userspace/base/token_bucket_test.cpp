// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/token_bucket.h"

#include <gtest/gtest.h>

namespace ferry {
namespace {

using namespace std::chrono_literals;
constexpr uint64_t kMiB = 1 << 20;

class TokenBucketTest : public ::testing::Test {
 protected:
  TokenBucket::TimePoint now_{};
  TokenBucket bucket_{10 * kMiB, [this] { return now_; }};  // a burst is 1 MiB

  // Takes until told to wait; how much got through.
  uint64_t take_all(uint64_t each) {
    uint64_t taken = 0;
    while (bucket_.take(each) == 0ns) taken += each;
    return taken;
  }
};

TEST_F(TokenBucketTest, NoLimitNeverWaits) {
  bucket_.set_rate(0);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(bucket_.take(kMiB), 0ns);
}

TEST_F(TokenBucketTest, BurstThenWait) {
  EXPECT_EQ(take_all(kMiB / 4), kMiB);
  const auto wait = bucket_.take(kMiB / 4);
  EXPECT_GT(wait, 0ns);
  now_ += wait;
  EXPECT_EQ(bucket_.take(kMiB / 4), 0ns) << "the wait it told was too short";
}

TEST_F(TokenBucketTest, LongTermRateHoldsForAnySize) {
  for (const uint64_t size : {uint64_t{512}, uint64_t{300000}, 3 * kMiB}) {
    take_all(size);
    const auto began = now_;
    uint64_t taken = 0;
    for (int i = 0; i < 200; ++i) {
      const auto wait = bucket_.take(size);
      if (wait == 0ns) taken += size;
      else now_ += wait;
    }
    const double seconds = std::chrono::duration<double>(now_ - began).count();
    const double rate = static_cast<double>(taken) / seconds;
    EXPECT_NEAR(rate / (10.0 * kMiB), 1.0, 0.03) << size;
  }
}

TEST_F(TokenBucketTest, SavingsEndAtOneBurst) {
  take_all(kMiB);
  now_ += 1h;
  EXPECT_EQ(take_all(kMiB / 4), kMiB);
}

TEST_F(TokenBucketTest, RateChangesApplyAtOnce) {
  take_all(kMiB / 4);
  bucket_.set_rate(kMiB);
  const auto slow = bucket_.take(kMiB / 4);
  bucket_.set_rate(100 * kMiB);
  const auto fast = bucket_.take(kMiB / 4);
  EXPECT_LE(fast, slow);
  EXPECT_EQ(bucket_.rate(), 100 * kMiB);
  bucket_.set_rate(0);
  EXPECT_EQ(bucket_.take(kMiB), 0ns);
}

TEST_F(TokenBucketTest, TimeBeforeAChangeCountsAtTheOldRate) {
  take_all(kMiB);
  now_ += 50ms;  // half a MiB earned at 10 MiB/s
  bucket_.set_rate(5 * kMiB);
  EXPECT_EQ(bucket_.take(1), 0ns);
  EXPECT_EQ(take_all(kMiB / 8), kMiB / 2);
}

}  // namespace
}  // namespace ferry
