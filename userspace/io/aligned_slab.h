// SPDX-License-Identifier: GPL-2.0-or-later
// AlignedSlab: one mapping cut into equal buffers, each aligned to 4 KiB as O_DIRECT wants it.
// Owns the memory; buffers are plain pointers into it. Untouched buffers cost no memory.
// Thread-safety: const after creation; who writes which buffer is the user's business.
#pragma once

#include <cstddef>

#include "base/result.h"

namespace ferry {

inline constexpr size_t kIoAlignment = 4096;

class AlignedSlab {
 public:
  // `buffer_size_bytes` is rounded up to a multiple of kIoAlignment.
  static Result<AlignedSlab> create(unsigned buffers, size_t buffer_size_bytes);
  AlignedSlab(AlignedSlab&& other) noexcept;
  AlignedSlab& operator=(AlignedSlab&& other) noexcept;
  ~AlignedSlab();

  std::byte* buffer(unsigned index) const { return base_ + index * buffer_size_bytes_; }
  unsigned buffers() const { return buffers_; }
  size_t buffer_size_bytes() const { return buffer_size_bytes_; }

 private:
  AlignedSlab(std::byte* base, unsigned buffers, size_t buffer_size_bytes)
      : base_(base), buffers_(buffers), buffer_size_bytes_(buffer_size_bytes) {}

  std::byte* base_ = nullptr;
  unsigned buffers_ = 0;
  size_t buffer_size_bytes_ = 0;
};

}  // namespace ferry
