// SPDX-License-Identifier: GPL-2.0-or-later
#include "block_device.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/swap.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "shared.h"

#ifndef SWAP_FLAG_DISCARD_ONCE
#define SWAP_FLAG_DISCARD_ONCE 0x20000
#endif

namespace ferry::guest {
namespace {

std::string disk_with_serial(const std::string& serial) {
  DIR* dir = opendir("/sys/block");
  if (!dir) return {};
  std::string found;
  while (const dirent* entry = readdir(dir)) {
    std::string name = entry->d_name;
    if (read_line("/sys/block/" + name + "/serial") == serial) found = name;
  }
  closedir(dir);
  return found;
}

// Fields of the swap header (version 1) that the kernel looks at; the first 1024 bytes are free.
struct SwapHeader {
  char boot[1024];
  uint32_t version;
  uint32_t last_page;
  uint32_t bad_pages;
  unsigned char uuid[16];
  char label[16];
  char unused[4096 - 1024 - 12 - 32 - 10];
  char magic[10];
};
static_assert(sizeof(SwapHeader) == 4096);

}  // namespace

void AlignedFree::operator()(void* memory) const { std::free(memory); }

void* allocate_aligned(size_t size_bytes) {
  void* memory = std::aligned_alloc(block_size_bytes, size_bytes);
  if (!memory) die("no memory for %zu bytes", size_bytes);
  std::memset(memory, 0, size_bytes);
  return memory;
}

std::string read_line(const std::string& path) {
  char text[256];
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  ssize_t count = ::read(fd, text, sizeof(text));
  close(fd);
  if (count <= 0) return {};
  return std::string(text, strcspn(std::string(text, count).c_str(), "\n"));
}

bool write_setting(const std::string& path, const std::string& value) {
  int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool ok = ::write(fd, value.data(), value.size()) == static_cast<ssize_t>(value.size());
  close(fd);
  return ok;
}

std::string find_disk(const std::string& serial) {
  uint64_t deadline_ns = monotonic_ns() + 10'000'000'000;
  for (;;) {
    std::string name = disk_with_serial(serial);
    if (!name.empty()) return name;
    if (monotonic_ns() > deadline_ns) die("no disk with serial \"%s\" appeared", serial.c_str());
    sleep_until_ns(monotonic_ns() + 20'000'000);
  }
}

BlockDevice::BlockDevice(const std::string& serial) {
  std::string name = find_disk(serial);
  std::string path = "/dev/" + name;
  fd_ = open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  if (fd_ < 0) die("cannot open %s: %s", path.c_str(), std::strerror(errno));
  if (ioctl(fd_, BLKGETSIZE64, &size_bytes_) != 0)
    die("cannot ask the size of %s: %s", path.c_str(), std::strerror(errno));
  std::string limit = read_line("/sys/block/" + name + "/queue/discard_max_bytes");
  can_discard_ = !limit.empty() && limit != "0";
}

BlockDevice::~BlockDevice() { close(fd_); }

int BlockDevice::read(void* data, size_t size_bytes, uint64_t offset_bytes) const {
  ssize_t count = pread(fd_, data, size_bytes, static_cast<off_t>(offset_bytes));
  if (count < 0) return errno;
  return count == static_cast<ssize_t>(size_bytes) ? 0 : EIO;
}

int BlockDevice::write(const void* data, size_t size_bytes, uint64_t offset_bytes) const {
  ssize_t count = pwrite(fd_, data, size_bytes, static_cast<off_t>(offset_bytes));
  if (count < 0) return errno;
  return count == static_cast<ssize_t>(size_bytes) ? 0 : EIO;
}

int BlockDevice::sync() const { return fdatasync(fd_) == 0 ? 0 : errno; }

int BlockDevice::zero(uint64_t offset_bytes, uint64_t size_bytes) const {
  uint64_t range[2] = {offset_bytes, size_bytes};
  return ioctl(fd_, BLKZEROOUT, range) == 0 ? 0 : errno;
}

int BlockDevice::discard(uint64_t offset_bytes, uint64_t size_bytes) const {
  uint64_t range[2] = {offset_bytes, size_bytes};
  return ioctl(fd_, BLKDISCARD, range) == 0 ? 0 : errno;
}

void start_swap(const std::string& serial, bool rotational, uint64_t discard) {
  std::string name = find_disk(serial);
  write_setting("/sys/block/" + name + "/queue/rotational", rotational ? "1" : "0");
  {
    BlockDevice device(serial);
    auto header = make_aligned<SwapHeader>(1);
    header->version = 1;
    header->last_page = static_cast<uint32_t>(device.size_bytes() / block_size_bytes - 1);
    if (getrandom(header->uuid, sizeof(header->uuid), 0) != sizeof(header->uuid))
      die("no random bytes for the swap area's uuid");
    std::memcpy(header->magic, "SWAPSPACE2", sizeof(header->magic));
    if (int error = device.write(header.get(), sizeof(SwapHeader), 0))
      die("cannot write the swap header: %s", std::strerror(error));
    if (int error = device.sync()) die("cannot sync the swap disk: %s", std::strerror(error));
  }
  int flags = 0;
  if (discard >= 1) flags |= SWAP_FLAG_DISCARD;
  if (discard == 1) flags |= SWAP_FLAG_DISCARD_ONCE;
  std::string path = "/dev/" + name;
  if (swapon(path.c_str(), flags) != 0)
    die("swapon %s: %s", path.c_str(), std::strerror(errno));
}

}  // namespace ferry::guest
