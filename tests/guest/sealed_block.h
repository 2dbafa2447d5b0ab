// SPDX-License-Identifier: GPL-2.0-or-later
// A 4 KiB block that proves its own content: who wrote it (seed), where it belongs (number), which
// version it is (sequence), and a payload and checksum that follow from these. Used for the disk's
// records and for the pages of the memory worker.
// Thread-safety: free functions over caller-owned memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ferry::guest {

inline constexpr size_t block_size_bytes = 4096;
inline constexpr uint64_t record_magic = 0x3144524359525246;  // "FRRYCRD1"
inline constexpr uint64_t page_magic = 0x3147505952524546;    // "FERRYPG1"

struct SealedBlock {
  uint64_t magic;
  uint64_t seed;
  uint64_t number;
  uint64_t sequence;
  uint64_t time_ns;
  std::array<uint64_t, 506> payload;
  uint64_t checksum;
};
static_assert(sizeof(SealedBlock) == block_size_bytes);

// What a block should be.
struct Identity {
  uint64_t magic;
  uint64_t seed;
  uint64_t number;
  uint64_t sequence;
};

enum class Finding {
  good,
  zero,        // all bytes are zero
  foreign,     // not one of our blocks at all, or of another run
  misplaced,   // a good block that belongs to another number
  stale,       // an older version: a write was lost
  future,      // a newer version than was ever written here
  damaged,     // payload or checksum do not fit the header
};

const char* finding_name(Finding finding);

void seal(SealedBlock& block, const Identity& identity, uint64_t time_ns);
Finding examine(const SealedBlock& block, const Identity& expected);
// One line for the console: what was expected and what was found.
std::string explain(const SealedBlock& block, const Identity& expected, Finding finding);

bool is_zero(const void* data, size_t size_bytes);
// Never 0, so that 0 can stand for "unknown".
uint32_t short_sum(const void* data, size_t size_bytes);
// CRC-32 as zlib computes it: the outer side reads these blocks with Python.
uint32_t crc32(const void* data, size_t size_bytes);

}  // namespace ferry::guest
