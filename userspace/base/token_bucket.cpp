// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/token_bucket.h"

#include <algorithm>
#include <cmath>

namespace ferry {
namespace {

// A tenth of a second's worth may go out at once, so that a waiter that oversleeps a little still
// reaches its rate; never less than one extent.
constexpr double kBurstSeconds = 0.1;
constexpr double kMinBurstBytes = 256.0 * 1024;

double burst_bytes(uint64_t rate) {
  return std::max(kMinBurstBytes, static_cast<double>(rate) * kBurstSeconds);
}

}  // namespace

TokenBucket::TokenBucket(uint64_t rate_bytes_per_s, Clock clock)
    : clock_(std::move(clock)),
      refilled_at_(clock_()),
      rate_(rate_bytes_per_s),
      tokens_(burst_bytes(rate_bytes_per_s)) {}

void TokenBucket::refill() {
  const TimePoint now = clock_();
  const double elapsed_s = std::chrono::duration<double>(now - refilled_at_).count();
  refilled_at_ = now;
  tokens_ = std::min(burst_bytes(rate_), tokens_ + elapsed_s * static_cast<double>(rate_));
}

void TokenBucket::set_rate(uint64_t rate_bytes_per_s) {
  const std::lock_guard lock(mutex_);
  refill();  // what was earned so far was earned at the old rate
  rate_ = rate_bytes_per_s;
  tokens_ = std::min(tokens_, burst_bytes(rate_));
}

uint64_t TokenBucket::rate() const {
  const std::lock_guard lock(mutex_);
  return rate_;
}

std::chrono::nanoseconds TokenBucket::take(uint64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  refill();
  if (rate_ == 0) return std::chrono::nanoseconds::zero();
  if (tokens_ > 0) {
    tokens_ -= static_cast<double>(size_bytes);
    return std::chrono::nanoseconds::zero();
  }
  const double wait_s = (1.0 - tokens_) / static_cast<double>(rate_);
  return std::chrono::nanoseconds(static_cast<int64_t>(std::ceil(wait_s * 1e9)) + 1);
}

}  // namespace ferry
