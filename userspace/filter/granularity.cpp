// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/granularity.h"

#include <linux/ferry.h>

namespace ferry::filter {
namespace {

constexpr uint64_t kPage = 4096;

uint64_t whole_pages(uint64_t bits) { return (bits + 8 * kPage - 1) / (8 * kPage); }

}  // namespace

uint64_t map_memory_bytes(uint64_t size_bytes, uint32_t block_shift) {
  const uint64_t blocks = (size_bytes + (uint64_t{1} << block_shift) - 1) >> block_shift;
  const uint64_t leaf_pages = whole_pages(blocks);
  return 2 * (leaf_pages + whole_pages(leaf_pages)) * kPage;
}

Result<uint32_t> choose_block_shift(uint64_t size_bytes, uint64_t map_memory_limit_bytes) {
  for (uint32_t shift = FERRY_BLOCK_SHIFT_MIN; shift <= FERRY_BLOCK_SHIFT_MAX; ++shift)
    if (map_memory_bytes(size_bytes, shift) <= map_memory_limit_bytes) return shift;
  const uint64_t least = map_memory_bytes(size_bytes, FERRY_BLOCK_SHIFT_MAX);
  return make_error(Errc::unsupported,
                    "its dirty maps need " + std::to_string((least + (1 << 20) - 1) >> 20) +
                        " MiB even in blocks of 1 MiB",
                    0, "raise map-memory in ferry.conf");
}

}  // namespace ferry::filter
