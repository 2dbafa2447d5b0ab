// SPDX-License-Identifier: GPL-2.0-or-later
// Small helpers for block devices and image files: open without the page cache, ask for the size,
// write zeroes the cheapest way the target knows. Descriptors stay the caller's.
// Thread-safety: functions yes; a ZeroWriter may be used by several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace ferry {

enum class OpenMode { read_only, read_write };

// Opens with O_DIRECT; falls back to the page cache where the filesystem cannot do O_DIRECT
// (`direct`, when given, tells which it became).
Result<Fd> open_disk(const std::string& path, OpenMode mode, bool* direct = nullptr);

// Size in bytes of a block device or a regular file.
Result<uint64_t> disk_size(int fd);

class ZeroWriter {
 public:
  explicit ZeroWriter(int fd);
  ZeroWriter(const ZeroWriter&) = delete;
  ZeroWriter& operator=(const ZeroWriter&) = delete;

  // Afterwards the range reads as zeroes; thin targets give the space back where they can.
  // Offset and length have to be multiples of the logical block size on block devices.
  Status write(uint64_t offset_bytes, uint64_t length_bytes);
  // The way in use: "punch", "zero-range", "zeroout" or "write".
  const char* method() const;

 private:
  enum class Method { punch, zero_range, zeroout, write };
  int try_method(Method method, uint64_t offset_bytes, uint64_t length_bytes);
  Status write_by_hand(uint64_t offset_bytes, uint64_t length_bytes);

  int fd_;
  std::atomic<Method> method_{Method::punch};
};

}  // namespace ferry
