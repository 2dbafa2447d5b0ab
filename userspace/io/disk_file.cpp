// SPDX-License-Identifier: GPL-2.0-or-later
#include "io/disk_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "io/aligned_slab.h"

namespace ferry {
namespace {

constexpr size_t kZeroBufferBytes = 256 * 1024;

// One shared buffer of zeroes, never written to after it was mapped.
const std::byte* zero_buffer() {
  static const Result<AlignedSlab> slab = AlignedSlab::create(1, kZeroBufferBytes);
  return slab.ok() ? slab->buffer(0) : nullptr;
}

// "This target does not know the operation", as opposed to "the operation failed".
bool means_unsupported(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == ENOTTY || error == EINVAL ||
         error == ENODEV;
}

}  // namespace

Result<Fd> open_disk(const std::string& path, OpenMode mode, bool* direct) {
  const int flags = (mode == OpenMode::read_write ? O_RDWR : O_RDONLY) | O_CLOEXEC;
  Fd fd(::open(path.c_str(), flags | O_DIRECT));
  const bool got_direct = fd.valid();
  if (!fd.valid() && errno == EINVAL) fd = Fd(::open(path.c_str(), flags));
  if (!fd.valid()) return sys_error("cannot open " + path, errno);
  if (direct != nullptr) *direct = got_direct;
  return fd;
}

Result<uint64_t> disk_size(int fd) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return sys_error("cannot stat a disk", errno);
  if (S_ISREG(st.st_mode)) return static_cast<uint64_t>(st.st_size);
  if (!S_ISBLK(st.st_mode))
    return make_error(Errc::usage, "not a disk: neither a block device nor a regular file");
  uint64_t size_bytes = 0;
  if (ioctl(fd, BLKGETSIZE64, &size_bytes) != 0)
    return sys_error("cannot get the size of a block device", errno);
  return size_bytes;
}

ZeroWriter::ZeroWriter(int fd) : fd_(fd) {}

const char* ZeroWriter::method() const {
  switch (method_.load(std::memory_order_relaxed)) {
    case Method::punch: return "punch";
    case Method::zero_range: return "zero-range";
    case Method::zeroout: return "zeroout";
    case Method::write: return "write";
  }
  return "?";
}

int ZeroWriter::try_method(Method method, uint64_t offset_bytes, uint64_t length_bytes) {
  const auto offset = static_cast<off_t>(offset_bytes);
  const auto length = static_cast<off_t>(length_bytes);
  int rc = 0;
  do {
    if (method == Method::punch) {
      // On a block device this means "zero, and unmap if you can"; a kernel that would have to
      // write the zeroes itself answers EOPNOTSUPP.
      rc = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    } else if (method == Method::zero_range) {
      rc = fallocate(fd_, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
    } else {
      uint64_t range[2] = {offset_bytes, length_bytes};
      rc = ioctl(fd_, BLKZEROOUT, range);
    }
  } while (rc != 0 && errno == EINTR);
  return rc == 0 ? 0 : errno;
}

Status ZeroWriter::write(uint64_t offset_bytes, uint64_t length_bytes) {
  if (length_bytes == 0) return ok_status();
  for (Method method = method_.load(std::memory_order_relaxed); method != Method::write;) {
    const int error = try_method(method, offset_bytes, length_bytes);
    if (error == 0) return ok_status();
    if (!means_unsupported(error))
      return sys_error("cannot zero " + std::to_string(length_bytes) + " bytes at offset " +
                           std::to_string(offset_bytes), error);
    // Several threads may find out at once; they all walk the same ladder.
    method = static_cast<Method>(static_cast<int>(method) + 1);
    method_.store(method, std::memory_order_relaxed);
  }
  return write_by_hand(offset_bytes, length_bytes);
}

Status ZeroWriter::write_by_hand(uint64_t offset_bytes, uint64_t length_bytes) {
  const std::byte* zeroes = zero_buffer();
  if (zeroes == nullptr) return make_error(Errc::failed, "no memory for a buffer of zeroes");
  while (length_bytes > 0) {
    const size_t piece = std::min<uint64_t>(length_bytes, kZeroBufferBytes);
    const ssize_t n = pwrite(fd_, zeroes, piece, static_cast<off_t>(offset_bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return sys_error("cannot write zeroes at offset " + std::to_string(offset_bytes),
                       n < 0 ? errno : EIO);
    offset_bytes += static_cast<uint64_t>(n);
    length_bytes -= static_cast<uint64_t>(n);
  }
  return ok_status();
}

}  // namespace ferry
