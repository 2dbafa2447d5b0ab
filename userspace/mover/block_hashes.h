// SPDX-License-Identifier: GPL-2.0-or-later
// BlockHashes: one 64-bit hash per block of a disk, filled while the disk is received, so that the
// digest of what arrived needs no second look at the disk. Lives in an unlinked, mapped file: it
// can be larger than spare memory and leaves nothing behind. Owns the mapping.
// Thread-safety: different blocks from several threads; the same block one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace ferry::mover {

inline constexpr uint32_t kHashBlockShift = 12;

// 128 bits over all block hashes of a disk, equal on both sides when the disks are.
class Digest {
 public:
  Digest() = default;
  explicit Digest(std::string hex) : hex_(std::move(hex)) {}
  const std::string& hex() const { return hex_; }  // 32 lower-case digits
  bool operator==(const Digest&) const = default;

 private:
  std::string hex_;
};

// Hash of one block (the last block of a disk may be short); never 0, which means "not received".
uint64_t block_hash(const void* data, size_t size_bytes);
// The same for a block of zeroes, without touching memory for whole blocks.
uint64_t zero_block_hash(size_t size_bytes);

class BlockHashes {
 public:
  // The file is made in `dir`, which needs room for 8 bytes per block.
  static Result<BlockHashes> create(uint64_t nr_blocks, uint32_t block_shift,
                                    const std::string& dir);
  BlockHashes(BlockHashes&& other) noexcept;
  BlockHashes& operator=(BlockHashes&& other) noexcept;
  ~BlockHashes();

  void set(uint64_t block, uint64_t hash);
  uint64_t get(uint64_t block) const;  // 0: nothing was received for this block
  // Hashes of content that begins at a block boundary; a short last block counts as one.
  void set_data(uint64_t offset_bytes, const void* data, uint64_t length_bytes);
  void set_zero(uint64_t offset_bytes, uint64_t length_bytes);

  uint64_t nr_blocks() const { return nr_blocks_; }
  uint32_t block_shift() const { return block_shift_; }
  uint64_t missing() const;  // blocks nothing was received for
  Digest digest() const;

 private:
  BlockHashes(uint64_t* table, uint64_t nr_blocks, uint32_t block_shift)
      : table_(table), nr_blocks_(nr_blocks), block_shift_(block_shift) {}

  uint64_t* table_ = nullptr;
  uint64_t nr_blocks_ = 0;
  uint32_t block_shift_ = kHashBlockShift;
};

}  // namespace ferry::mover
