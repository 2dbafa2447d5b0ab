// SPDX-License-Identifier: GPL-2.0-or-later
// is_zero: does a buffer hold nothing but zero bytes? Meant to run right after a read completes,
// while the buffer is still in cache. Thread-safe, no alignment needed.
#pragma once

#include <cstddef>

namespace ferry {

// An empty buffer counts as zero.
bool is_zero(const void* data, size_t size_bytes);

}  // namespace ferry
