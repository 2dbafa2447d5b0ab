// SPDX-License-Identifier: GPL-2.0-or-later
// One disk of the guest on one host: a device with a volatile cache, and in front of it what dm-ferry keeps:
// state, dirty maps, held writes. A block is two halves, each holding the number of the write that made it,
// so that a torn block can be told.
// Thread-safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "random.h"

namespace ferry::sim {

inline constexpr unsigned kDisks = 2;
inline constexpr unsigned kBlocks = 8;  // per disk; few, so that writes and copies meet often
inline constexpr std::uint32_t kAllBlocks = (1u << kBlocks) - 1;

struct Block {
  std::uint32_t low = 0, high = 0;
  bool operator==(const Block&) const = default;
};
using Contents = std::array<std::array<Block, kBlocks>, kDisks>;

class Disk {
 public:
  Block read(unsigned block) const { return cached_[block]; }
  Block durable(unsigned block) const { return durable_[block]; }
  void write(unsigned block, Block contents);
  // A flush covers what was written before it began: begin_flush() when it is asked for, end_flush() with
  // its result when it is done.
  std::uint64_t begin_flush() const { return written_; }
  void end_flush(std::uint64_t began);
  bool flushed() const { return unflushed_.empty(); }
  // Of the writes that no flush covered any may survive, in any order, or half of one.
  void lose_power(Random& random);

 private:
  struct Unflushed {
    std::uint64_t number;
    unsigned block;
    Block contents;
  };
  std::array<Block, kBlocks> cached_{}, durable_{};
  std::vector<Unflushed> unflushed_;
  std::uint64_t written_ = 0;
};

enum class Filter : std::uint8_t { none, tracking, frozen, fenced, receiving, gated };
const char* filter_name(Filter filter);

struct GuestWrite {
  std::uint32_t version = 0;
  std::uint32_t copy = 0;  // of the guest, who wants to learn of its end
  std::uint8_t disk = 0, block = 0;
};

struct Volume {
  Disk disk;
  Filter filter = Filter::none;
  std::uint32_t tracker = 0;            // which filter it is; a map is worth what its filter has seen
  std::uint32_t live = 0, retired = 0;  // dirty maps, a bit per block
  bool stuck = false;                   // held by a session that has ended and could not let go of the filter
  unsigned in_flight = 0;               // writes that the filter let through and the device has not ended
  std::vector<GuestWrite> held;
  std::uint32_t freezes = 0;            // a life: the watchdog of an older freeze does nothing

  // As the kernel does when nobody reads the retired map any more, and nobody has released it.
  void put_retired_back() {
    live |= retired;
    retired = 0;
  }
  bool passes() const { return filter == Filter::none || filter == Filter::tracking; }
};

// Never 0. Two disks with other contents have another one, as far as anybody can tell.
std::uint64_t digest_of(const std::array<Volume, kDisks>& volumes);

}  // namespace ferry::sim
