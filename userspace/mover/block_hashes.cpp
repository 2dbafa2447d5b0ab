// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/block_hashes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "io/hash.h"

namespace ferry::mover {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the digest is defined over little-endian hashes");

Fd unlinked_file(const std::string& dir) {
  Fd fd(open(dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid() || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
  std::string name = dir + "/ferry-hashes-XXXXXX";
  fd = Fd(mkostemp(name.data(), O_CLOEXEC));
  if (fd.valid()) unlink(name.c_str());
  return fd;
}

uint64_t hash_zeroes(size_t size_bytes) {
  const std::vector<std::byte> zeroes(size_bytes);
  return block_hash(zeroes.data(), zeroes.size());
}

}  // namespace

uint64_t block_hash(const void* data, size_t size_bytes) {
  const uint64_t hash = xxh3_64(data, size_bytes);
  return hash != 0 ? hash : 1;
}

uint64_t zero_block_hash(size_t size_bytes) {
  static const uint64_t whole = hash_zeroes(size_t{1} << kHashBlockShift);
  return size_bytes == size_t{1} << kHashBlockShift ? whole : hash_zeroes(size_bytes);
}

Result<BlockHashes> BlockHashes::create(uint64_t nr_blocks, uint32_t block_shift,
                                        const std::string& dir) {
  if (nr_blocks == 0 || nr_blocks > (1ull << 48) || block_shift < 9 || block_shift > 30)
    return make_error(Errc::usage, "a table of " + std::to_string(nr_blocks) +
                      " block hashes cannot be made");
  const uint64_t size_bytes = nr_blocks * sizeof(uint64_t);
  const Fd fd = unlinked_file(dir);
  if (!fd.valid()) return sys_error("cannot make the table of block hashes in " + dir, errno);
  // Space is taken now: a store into a mapping of a full filesystem would kill the process.
  if (const int rc = posix_fallocate(fd.get(), 0, static_cast<off_t>(size_bytes)); rc != 0)
    return make_error(rc == ENOSPC ? Errc::no_space : Errc::io,
                      "cannot keep " + std::to_string(size_bytes) + " bytes of block hashes in " +
                      dir, rc, "8 bytes per 4 KiB of disk are needed there");
  void* table = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (table == MAP_FAILED) return sys_error("cannot map the table of block hashes", errno);
  return BlockHashes(static_cast<uint64_t*>(table), nr_blocks, block_shift);
}

BlockHashes::BlockHashes(BlockHashes&& other) noexcept
    : table_(std::exchange(other.table_, nullptr)),
      nr_blocks_(std::exchange(other.nr_blocks_, 0)),
      block_shift_(other.block_shift_) {}

BlockHashes& BlockHashes::operator=(BlockHashes&& other) noexcept {
  std::swap(table_, other.table_);
  std::swap(nr_blocks_, other.nr_blocks_);
  std::swap(block_shift_, other.block_shift_);
  return *this;
}

BlockHashes::~BlockHashes() {
  if (table_ != nullptr) munmap(table_, nr_blocks_ * sizeof(uint64_t));
}

void BlockHashes::set(uint64_t block, uint64_t hash) {
  if (block < nr_blocks_) table_[block] = hash;
}

uint64_t BlockHashes::get(uint64_t block) const { return block < nr_blocks_ ? table_[block] : 0; }

void BlockHashes::set_data(uint64_t offset_bytes, const void* data, uint64_t length_bytes) {
  const auto* at = static_cast<const std::byte*>(data);
  uint64_t block = offset_bytes >> block_shift_;
  while (length_bytes > 0) {
    const uint64_t piece = std::min(length_bytes, uint64_t{1} << block_shift_);
    set(block++, block_hash(at, piece));
    at += piece;
    length_bytes -= piece;
  }
}

void BlockHashes::set_zero(uint64_t offset_bytes, uint64_t length_bytes) {
  uint64_t block = offset_bytes >> block_shift_;
  while (length_bytes > 0) {
    const uint64_t piece = std::min(length_bytes, uint64_t{1} << block_shift_);
    set(block++, zero_block_hash(piece));
    length_bytes -= piece;
  }
}

uint64_t BlockHashes::missing() const {
  return static_cast<uint64_t>(std::count(table_, table_ + nr_blocks_, uint64_t{0}));
}

Digest BlockHashes::digest() const {
  Hasher128 hasher;
  hasher.update(table_, nr_blocks_ * sizeof(uint64_t));
  return Digest(hasher.hex());
}

}  // namespace ferry::mover
