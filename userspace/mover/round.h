// SPDX-License-Identifier: GPL-2.0-or-later
// Round: what the streams of a Sender share during one copy() or compare(): the extents still to be
// sent, the first error, the counters, what was found to differ. Internal to mover/. Owned by that
// call; borrows disks and extents.
// Thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "mover/sender.h"

namespace ferry::mover {

// A request of one stream: at most wire::kMaxExtentBytes.
struct Piece {
  const DiskSource* disk = nullptr;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
};

enum class RoundKind { copy, compare };

class Round {
 public:
  // `on_failure` runs once, at the first failure, from the failing thread.
  Round(RoundKind kind, uint64_t number, const std::vector<DiskSource>& disks,
        ExtentSource& extents, TokenBucket* limit, std::function<void()> on_failure);

  RoundKind kind() const { return kind_; }
  uint64_t number() const { return number_; }
  // The next piece to send; false at the end of the round or after a failure.
  bool next(Piece& out);

  // The first failure counts, but what the peer itself reports explains the broken connection that
  // we may have seen before its words arrived.
  void fail(Error error, bool said_by_peer = false);
  bool failed() const { return failed_.load(); }
  std::optional<Error> error() const;

  // Waits until the rate limit lets `size_bytes` pass; returns early after a failure.
  void pace(uint64_t size_bytes);

  void count_data(uint32_t disk, uint64_t data_bytes, uint64_t wire_bytes);
  void count_zero(uint32_t disk, uint64_t zero_bytes, uint64_t wire_bytes);
  void count_check(uint64_t wire_bytes);
  // Bit i of `mask`: block i of `piece` differs. Bits past its end must not be set.
  void add_differing(const Piece& piece, uint64_t mask);
  // Runs of blocks by disk, rising, none touching the next. To be called once, at the end.
  std::vector<Extent> take_differing();
  void count_landed(uint64_t size_bytes) { landed_bytes_ += size_bytes; }
  CopyStats stats() const;

 private:
  Status take_extent(const Extent& extent);

  const RoundKind kind_;
  const uint64_t number_;
  const std::vector<DiskSource>& disks_;
  TokenBucket* const limit_;
  const std::function<void()> on_failure_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();

  std::mutex source_mutex_;
  ExtentSource& extents_;
  Piece rest_;  // of the extent taken last
  bool exhausted_ = false;

  mutable std::mutex error_mutex_;
  std::condition_variable failed_changed_;
  std::optional<Error> error_;
  bool said_by_peer_ = false;
  std::atomic<bool> failed_{false};

  std::mutex differing_mutex_;
  std::vector<Extent> differing_;  // as the answers come

  std::atomic<uint64_t> landed_bytes_{0};
  mutable std::mutex stats_mutex_;
  CopyStats stats_;
};

}  // namespace ferry::mover
