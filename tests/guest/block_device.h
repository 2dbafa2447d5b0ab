// SPDX-License-Identifier: GPL-2.0-or-later
// A block device of the guest found by its virtio serial, opened with O_DIRECT.
// Owns the descriptor. Thread-safety: none, one process uses one instance.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace ferry::guest {

struct AlignedFree {
  void operator()(void* memory) const;
};
template <typename T>
using Aligned = std::unique_ptr<T, AlignedFree>;

// Zeroed memory fit for O_DIRECT.
void* allocate_aligned(size_t size_bytes);
template <typename T>
Aligned<T> make_aligned(size_t count) {
  return Aligned<T>(static_cast<T*>(allocate_aligned(count * sizeof(T))));
}

// Kernel name ("vda") of the disk with this serial; waits up to ten seconds for it to appear.
std::string find_disk(const std::string& serial);

class BlockDevice {
 public:
  explicit BlockDevice(const std::string& serial);
  ~BlockDevice();
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;

  uint64_t size_bytes() const { return size_bytes_; }
  bool can_discard() const { return can_discard_; }
  // All return 0 or an errno.
  int read(void* data, size_t size_bytes, uint64_t offset_bytes) const;
  int write(const void* data, size_t size_bytes, uint64_t offset_bytes) const;
  int sync() const;
  int zero(uint64_t offset_bytes, uint64_t size_bytes) const;
  int discard(uint64_t offset_bytes, uint64_t size_bytes) const;

 private:
  int fd_ = -1;
  uint64_t size_bytes_ = 0;
  bool can_discard_ = false;
};

// Writes one number or word into a file of /sys or /proc; false when the kernel refuses.
bool write_setting(const std::string& path, const std::string& value);
// First line of a small file, empty when it cannot be read.
std::string read_line(const std::string& path);

// Makes the disk with this serial a fresh swap area and uses it.
void start_swap(const std::string& serial, bool rotational, uint64_t discard);

}  // namespace ferry::guest
