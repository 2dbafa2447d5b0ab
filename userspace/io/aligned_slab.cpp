// SPDX-License-Identifier: GPL-2.0-or-later
#include "io/aligned_slab.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

namespace ferry {

Result<AlignedSlab> AlignedSlab::create(unsigned buffers, size_t buffer_size_bytes) {
  const size_t rounded = (buffer_size_bytes + kIoAlignment - 1) / kIoAlignment * kIoAlignment;
  if (buffers == 0 || rounded == 0)
    return make_error(Errc::usage, "cannot make a slab of no buffers");
  void* base = mmap(nullptr, rounded * buffers, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return sys_error("cannot map buffers for block I/O", errno);
  return AlignedSlab(static_cast<std::byte*>(base), buffers, rounded);
}

AlignedSlab::AlignedSlab(AlignedSlab&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      buffers_(std::exchange(other.buffers_, 0)),
      buffer_size_bytes_(other.buffer_size_bytes_) {}

AlignedSlab& AlignedSlab::operator=(AlignedSlab&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(buffers_, other.buffers_);
  std::swap(buffer_size_bytes_, other.buffer_size_bytes_);
  return *this;
}

AlignedSlab::~AlignedSlab() {
  if (base_ != nullptr) munmap(base_, buffer_size_bytes_ * buffers_);
}

}  // namespace ferry
