// SPDX-License-Identifier: GPL-2.0-or-later
// RetiredMap: the blocks written in one round, as the kernel retired them. MapView is the same over
// memory of any origin (pure, for tests); RetiredMap owns the kernel's mapping and unmaps it.
// The mapped bits never change, so reading from several threads is fine. Move-only.
// Destroy it before Tracker::release(): afterwards the pages belong to the next round.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"

struct ferry_swap;

namespace ferry::filter {

struct BlockRun {
  uint64_t first = 0;
  uint64_t count = 0;

  bool operator==(const BlockRun&) const = default;
};

class MapView {
 public:
  // One summary bit stands for this many blocks: a page of the map.
  static constexpr uint64_t kBlocksPerPage = uint64_t{4096} * 8;

  MapView() = default;
  // `leaf` holds at least nr_blocks bits, `summary` one bit per started page of leaf.
  MapView(std::span<const uint64_t> leaf, std::span<const uint64_t> summary, uint64_t nr_blocks)
      : leaf_(leaf), summary_(summary), nr_blocks_(nr_blocks) {}

  uint64_t nr_blocks() const { return nr_blocks_; }
  bool test(uint64_t block) const;
  // Next run of set bits at or after `from`, at most `max_blocks` (> 0) long.
  std::optional<BlockRun> next_run(uint64_t from, uint64_t max_blocks) const;

 private:
  // First set (or clear) bit at or after `from` and below `limit`; `limit` when there is none.
  uint64_t find_set(uint64_t from) const;
  uint64_t find_clear(uint64_t from, uint64_t limit) const;

  std::span<const uint64_t> leaf_;
  std::span<const uint64_t> summary_;
  uint64_t nr_blocks_ = 0;
};

class RetiredMap {
 public:
  // Maps what a SWAP answered. `fd` is only needed during the call.
  static Result<RetiredMap> map(int fd, const ferry_swap& swap, uint64_t nr_blocks,
                                uint32_t block_shift);
  RetiredMap(RetiredMap&& other) noexcept;
  RetiredMap& operator=(RetiredMap&& other) noexcept;
  RetiredMap(const RetiredMap&) = delete;
  RetiredMap& operator=(const RetiredMap&) = delete;
  ~RetiredMap();

  uint64_t dirty() const { return dirty_; }
  uint32_t block_shift() const { return block_shift_; }
  uint64_t nr_blocks() const { return view_.nr_blocks(); }
  bool test(uint64_t block) const { return view_.test(block); }
  std::optional<BlockRun> next_run(uint64_t from, uint64_t max_blocks) const {
    return view_.next_run(from, max_blocks);
  }

 private:
  RetiredMap() = default;
  void unmap();

  MapView view_;
  void* leaf_ = nullptr;
  void* summary_ = nullptr;
  size_t leaf_size_bytes_ = 0;
  size_t summary_size_bytes_ = 0;
  uint64_t dirty_ = 0;
  uint32_t block_shift_ = 0;
};

}  // namespace ferry::filter
