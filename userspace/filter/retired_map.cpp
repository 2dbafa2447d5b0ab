// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/retired_map.h"

#include <linux/ferry.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

namespace ferry::filter {

bool MapView::test(uint64_t block) const {
  return block < nr_blocks_ && (leaf_[block / 64] >> (block % 64) & 1) != 0;
}

uint64_t MapView::find_set(uint64_t from) const {
  while (from < nr_blocks_) {
    uint64_t page = from / kBlocksPerPage;
    // Whole words of pages without any bit are skipped by the summary, 64 pages at a time.
    uint64_t pages = summary_[page / 64] >> (page % 64);
    if (pages == 0) {
      from = (page / 64 + 1) * 64 * kBlocksPerPage;
      continue;
    }
    if (int skip = std::countr_zero(pages); skip > 0) {
      from = (page + static_cast<uint64_t>(skip)) * kBlocksPerPage;
      continue;
    }
    uint64_t page_end = std::min((page + 1) * kBlocksPerPage, nr_blocks_);
    while (from < page_end) {
      uint64_t word = leaf_[from / 64] >> (from % 64);
      if (word != 0)
        return std::min(from + static_cast<uint64_t>(std::countr_zero(word)), nr_blocks_);
      from = (from / 64 + 1) * 64;
    }
    from = page_end;
  }
  return nr_blocks_;
}

uint64_t MapView::find_clear(uint64_t from, uint64_t limit) const {
  while (from < limit) {
    uint64_t word = ~leaf_[from / 64] >> (from % 64);
    if (word != 0) return std::min(from + static_cast<uint64_t>(std::countr_zero(word)), limit);
    from = (from / 64 + 1) * 64;
  }
  return limit;
}

std::optional<BlockRun> MapView::next_run(uint64_t from, uint64_t max_blocks) const {
  uint64_t first = find_set(from);
  if (first >= nr_blocks_) return std::nullopt;
  uint64_t limit = nr_blocks_ - first > max_blocks ? first + max_blocks : nr_blocks_;
  return BlockRun{first, find_clear(first + 1, limit) - first};
}

Result<RetiredMap> RetiredMap::map(int fd, const ferry_swap& swap, uint64_t nr_blocks,
                                   uint32_t block_shift) {
  // The kernel's answer is checked before memory is read by it.
  uint64_t pages = (nr_blocks + MapView::kBlocksPerPage - 1) / MapView::kBlocksPerPage;
  if (swap.map_len < (nr_blocks + 63) / 64 * 8 || swap.sum_len < (pages + 63) / 64 * 8)
    return make_error(Errc::unsupported, "the filter's retired map is shorter than the device", 0,
                      "load the dm-ferry module that belongs to this daemon");
  RetiredMap map;
  map.leaf_size_bytes_ = swap.map_len;
  map.summary_size_bytes_ = swap.sum_len;
  void* leaf = mmap(nullptr, swap.map_len, PROT_READ, MAP_SHARED, fd,
                    static_cast<off_t>(swap.map_off));
  if (leaf == MAP_FAILED) return sys_error("cannot map the filter's retired map", errno);
  map.leaf_ = leaf;
  void* summary = mmap(nullptr, swap.sum_len, PROT_READ, MAP_SHARED, fd,
                       static_cast<off_t>(swap.sum_off));
  if (summary == MAP_FAILED) return sys_error("cannot map the filter's summary", errno);
  map.summary_ = summary;
  map.view_ = MapView({static_cast<const uint64_t*>(leaf), swap.map_len / 8},
                      {static_cast<const uint64_t*>(summary), swap.sum_len / 8}, nr_blocks);
  map.dirty_ = swap.dirty;
  map.block_shift_ = block_shift;
  return map;
}

RetiredMap::RetiredMap(RetiredMap&& other) noexcept { *this = std::move(other); }

RetiredMap& RetiredMap::operator=(RetiredMap&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  view_ = std::exchange(other.view_, {});
  leaf_ = std::exchange(other.leaf_, nullptr);
  summary_ = std::exchange(other.summary_, nullptr);
  leaf_size_bytes_ = other.leaf_size_bytes_;
  summary_size_bytes_ = other.summary_size_bytes_;
  dirty_ = other.dirty_;
  block_shift_ = other.block_shift_;
  return *this;
}

RetiredMap::~RetiredMap() { unmap(); }

void RetiredMap::unmap() {
  if (leaf_) munmap(leaf_, leaf_size_bytes_);
  if (summary_) munmap(summary_, summary_size_bytes_);
  leaf_ = nullptr;
  summary_ = nullptr;
}

}  // namespace ferry::filter
