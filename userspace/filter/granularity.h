// SPDX-License-Identifier: GPL-2.0-or-later
// How large the blocks of a dirty map are: small ones send less, large ones need less memory.
// Pure functions, thread-safe.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace ferry::filter {

// Memory for both maps of one volume when nobody says otherwise: 4 TiB in blocks of 4 KiB.
inline constexpr uint64_t kMapMemoryDefaultBytes = uint64_t{256} << 20;

// What the filter allocates for both maps of a volume, summaries included.
uint64_t map_memory_bytes(uint64_t size_bytes, uint32_t block_shift);

// log2 of the smallest block, from 4 KiB to 1 MiB, whose two maps fit into the limit. unsupported
// when even the largest do not.
Result<uint32_t> choose_block_shift(uint64_t size_bytes, uint64_t map_memory_limit_bytes);

}  // namespace ferry::filter
