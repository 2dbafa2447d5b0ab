// SPDX-License-Identifier: GPL-2.0-or-later
// Copier: what a destination would hold. It swaps, copies what the retired maps name, and compares.
// For use inside tests: failures are reported through GoogleTest. One thread.
#pragma once

#include <cstdint>

#include "filter/tracker.h"
#include "suite.h"

namespace ferry::kmod {

class Copier {
 public:
  // Copies the whole device at once. `door` is O_DIRECT; both outlive the copier.
  Copier(filter::Tracker& tracker, int door, uint64_t size_bytes);
  // The full copy again, as after a new attach.
  void all() { copy_bytes(0, copy_.size()); }
  // Swap, copy, release.
  void round();
  // From now on blocks in [first, first + count) are left out, as a broken copier would do.
  void leave_out(uint64_t first, uint64_t count) { left_out_ = {first, count}; }

  // Blocks of 4 KiB whose copy differs from the disk.
  uint64_t count_lost();
  uint64_t rounds() const { return rounds_; }
  // Tracking units copied by rounds.
  uint64_t copied() const { return copied_; }
  const std::byte* block(uint64_t number) const { return copy_.bytes() + number * kBlock; }

 private:
  void copy_run(filter::BlockRun run, uint32_t block_shift);
  void copy_bytes(uint64_t offset, uint64_t length);

  filter::Tracker& tracker_;
  int door_;
  Buffer copy_;
  filter::BlockRun left_out_;
  uint64_t rounds_ = 0;
  uint64_t copied_ = 0;
};

}  // namespace ferry::kmod
