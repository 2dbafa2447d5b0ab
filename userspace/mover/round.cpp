// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/round.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "wire/frame.h"

namespace ferry::mover {
namespace {

// So that a changed rate or a failure is felt soon.
constexpr std::chrono::nanoseconds kLongestNap = std::chrono::milliseconds(20);

void add_at(std::vector<uint64_t>& list, uint32_t index, uint64_t value) {
  if (list.size() <= index) list.resize(index + 1);
  list[index] += value;
}

}  // namespace

Round::Round(RoundKind kind, uint64_t number, const std::vector<DiskSource>& disks,
             ExtentSource& extents, TokenBucket* limit, std::function<void()> on_failure)
    : kind_(kind),
      number_(number),
      disks_(disks),
      limit_(limit),
      on_failure_(std::move(on_failure)),
      extents_(extents) {
  for (const DiskSource& disk : disks) {
    add_at(stats_.disk_bytes, disk.disk, 0);
    add_at(stats_.disk_zero_bytes, disk.disk, 0);
  }
}

Status Round::take_extent(const Extent& extent) {
  const auto disk = std::find_if(disks_.begin(), disks_.end(),
                                 [&](const DiskSource& d) { return d.disk == extent.disk; });
  if (disk == disks_.end())
    return make_error(Errc::failed, "an extent names disk " + std::to_string(extent.disk) +
                      ", which is not being copied");
  if (extent.offset_bytes >= disk->size_bytes || extent.length_bytes == 0)
    return make_error(Errc::failed, "an extent at offset " + std::to_string(extent.offset_bytes) +
                      " lies past the end of disk " + std::to_string(extent.disk));
  // Tracking blocks may be larger than what is left of the disk.
  const uint64_t length = std::min(extent.length_bytes, disk->size_bytes - extent.offset_bytes);
  FERRY_TRY(wire::check_range(extent.offset_bytes, length, disk->size_bytes));
  rest_ = {&*disk, extent.offset_bytes, length};
  return ok_status();
}

bool Round::next(Piece& out) {
  std::unique_lock lock(source_mutex_);
  if (rest_.length_bytes == 0) {
    Extent extent;
    if (exhausted_ || failed()) return false;
    if (!extents_.next(extent)) {
      exhausted_ = true;
      return false;
    }
    if (Status taken = take_extent(extent); !taken.ok()) {
      exhausted_ = true;
      lock.unlock();
      fail(std::move(taken).error());
      return false;
    }
  }
  // Cut at multiples of the request size, so that requests line up with the disk's own stripes.
  constexpr uint64_t kRequest = wire::kMaxExtentBytes;
  const uint64_t length = std::min(rest_.length_bytes, kRequest - rest_.offset_bytes % kRequest);
  out = {rest_.disk, rest_.offset_bytes, length};
  rest_.offset_bytes += length;
  rest_.length_bytes -= length;
  return true;
}

void Round::fail(Error error, bool said_by_peer) {
  bool first = false;
  {
    const std::lock_guard lock(error_mutex_);
    first = !error_.has_value();
    const bool explains = said_by_peer && !said_by_peer_ && !first &&
                          error_->code != Errc::aborted;
    if (first || explains) {
      error_ = std::move(error);
      said_by_peer_ = said_by_peer;
    }
    failed_ = true;
  }
  if (!first) return;
  failed_changed_.notify_all();
  on_failure_();
}

std::optional<Error> Round::error() const {
  const std::lock_guard lock(error_mutex_);
  return error_;
}

void Round::pace(uint64_t size_bytes) {
  while (limit_ != nullptr && !failed()) {
    const std::chrono::nanoseconds nap = limit_->take(size_bytes);
    if (nap == nap.zero()) return;
    std::unique_lock lock(error_mutex_);
    failed_changed_.wait_for(lock, std::min(nap, kLongestNap), [this] { return failed(); });
  }
}

void Round::count_data(uint32_t disk, uint64_t data_bytes, uint64_t wire_bytes) {
  const std::lock_guard lock(stats_mutex_);
  stats_.data_bytes += data_bytes;
  stats_.wire_bytes += wire_bytes;
  ++stats_.frames;
  add_at(stats_.disk_bytes, disk, data_bytes);
}

void Round::count_zero(uint32_t disk, uint64_t zero_bytes, uint64_t wire_bytes) {
  const std::lock_guard lock(stats_mutex_);
  stats_.zero_bytes += zero_bytes;
  stats_.wire_bytes += wire_bytes;
  ++stats_.frames;
  add_at(stats_.disk_zero_bytes, disk, zero_bytes);
}

void Round::count_check(uint64_t wire_bytes) {
  const std::lock_guard lock(stats_mutex_);
  stats_.wire_bytes += wire_bytes;
  ++stats_.frames;
}

void Round::add_differing(const Piece& piece, uint64_t mask) {
  const std::lock_guard lock(differing_mutex_);
  // One run per piece, from its first to its last such block, is all there is room for now.
  const bool coarse = differing_.size() >= kMaxExactRuns;
  while (mask != 0) {
    const auto first = static_cast<unsigned>(std::countr_zero(mask));
    const auto count = static_cast<unsigned>(coarse ? std::bit_width(mask) - first
                                                    : std::countr_one(mask >> first));
    const uint64_t from = first * wire::kBlockBytes;
    const uint64_t to = std::min((first + count) * wire::kBlockBytes, piece.length_bytes);
    differing_.push_back({piece.disk->disk, piece.offset_bytes + from, to - from});
    mask = first + count < 64 ? mask >> (first + count) << (first + count) : 0;
  }
}

std::vector<Extent> Round::take_differing() {
  const std::lock_guard lock(differing_mutex_);
  std::sort(differing_.begin(), differing_.end(), [](const Extent& a, const Extent& b) {
    return std::tie(a.disk, a.offset_bytes) < std::tie(b.disk, b.offset_bytes);
  });
  size_t kept = 0;
  for (const Extent& run : differing_) {
    Extent* const last = kept > 0 ? &differing_[kept - 1] : nullptr;
    if (last != nullptr && last->disk == run.disk &&
        last->offset_bytes + last->length_bytes == run.offset_bytes)
      last->length_bytes += run.length_bytes;
    else
      differing_[kept++] = run;
  }
  differing_.resize(kept);
  return std::move(differing_);
}

CopyStats Round::stats() const {
  const std::lock_guard lock(stats_mutex_);
  CopyStats copy = stats_;
  copy.covered_bytes = landed_bytes_;
  copy.elapsed = std::chrono::steady_clock::now() - began_;
  return copy;
}

}  // namespace ferry::mover
