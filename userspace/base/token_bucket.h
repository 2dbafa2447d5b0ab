// SPDX-License-Identifier: GPL-2.0-or-later
// TokenBucket: a rate limit in bytes per second that can be changed while it is in use.
// It never sleeps: take() says how long to wait, the caller waits in its own interruptible way.
// Thread-safe. Rate 0 means no limit.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>

namespace ferry {

class TokenBucket {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Clock = std::function<TimePoint()>;

  explicit TokenBucket(uint64_t rate_bytes_per_s = 0,
                       Clock clock = [] { return std::chrono::steady_clock::now(); });

  void set_rate(uint64_t rate_bytes_per_s);
  uint64_t rate() const;

  // Takes `size_bytes` and returns zero, or takes nothing and returns how long to wait before
  // asking again. A request larger than the bucket passes once the bucket is not empty and leaves
  // a debt that later requests pay, so the long-term rate holds for requests of any size.
  // Waiters should ask again at least every few ten milliseconds to feel a changed rate.
  std::chrono::nanoseconds take(uint64_t size_bytes);

 private:
  void refill();

  mutable std::mutex mutex_;
  Clock clock_;
  TimePoint refilled_at_;
  uint64_t rate_;
  double tokens_;
};

}  // namespace ferry
