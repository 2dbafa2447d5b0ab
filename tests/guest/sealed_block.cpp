// SPDX-License-Identifier: GPL-2.0-or-later
#include "sealed_block.h"

#include <cstdio>
#include <cstring>

namespace ferry::guest {
namespace {

constexpr uint64_t multiplier = 0x9e3779b97f4a7c15;

uint64_t mix(uint64_t value) {
  value ^= value >> 30;
  value *= 0xbf58476d1ce4e5b9;
  value ^= value >> 27;
  value *= 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

uint64_t first_word(const Identity& id) {
  uint64_t start = mix(mix(mix(id.seed ^ id.magic) + id.number) + id.sequence);
  return start ? start : multiplier;
}

// Cheap on purpose: the guest runs in an emulated machine inside an emulated machine.
uint64_t next_word(uint64_t word) {
  word ^= word << 13;
  word ^= word >> 7;
  return word ^ (word << 17);
}

uint64_t checksum_of(const SealedBlock& block) {
  uint64_t words[sizeof(block) / sizeof(uint64_t)];
  std::memcpy(words, &block, sizeof(block));
  uint64_t sum = multiplier;
  for (size_t i = 0; i + 1 < std::size(words); i++)
    sum = (sum ^ words[i]) * 0x100000001b3 + i;
  return sum;
}

bool payload_fits(const SealedBlock& block) {
  uint64_t word = first_word({block.magic, block.seed, block.number, block.sequence});
  for (uint64_t found : block.payload) {
    if (found != word) return false;
    word = next_word(word);
  }
  return block.checksum == checksum_of(block);
}

}  // namespace

const char* finding_name(Finding finding) {
  switch (finding) {
    case Finding::good: return "good";
    case Finding::zero: return "zero";
    case Finding::foreign: return "foreign";
    case Finding::misplaced: return "misplaced";
    case Finding::stale: return "stale";
    case Finding::future: return "future";
    case Finding::damaged: return "damaged";
  }
  return "unknown";
}

void seal(SealedBlock& block, const Identity& identity, uint64_t time_ns) {
  block.magic = identity.magic;
  block.seed = identity.seed;
  block.number = identity.number;
  block.sequence = identity.sequence;
  block.time_ns = time_ns;
  uint64_t word = first_word(identity);
  for (uint64_t& place : block.payload) {
    place = word;
    word = next_word(word);
  }
  block.checksum = checksum_of(block);
}

Finding examine(const SealedBlock& block, const Identity& expected) {
  if (block.magic != expected.magic || block.seed != expected.seed)
    return is_zero(&block, sizeof(block)) ? Finding::zero : Finding::foreign;
  if (!payload_fits(block)) return Finding::damaged;
  if (block.number != expected.number) return Finding::misplaced;
  if (block.sequence < expected.sequence) return Finding::stale;
  if (block.sequence > expected.sequence) return Finding::future;
  return Finding::good;
}

std::string explain(const SealedBlock& block, const Identity& expected, Finding finding) {
  char line[256];
  std::snprintf(line, sizeof(line),
                "number %llu: %s; expected sequence %llu of seed %llx; found magic %llx seed %llx "
                "number %llu sequence %llu",
                static_cast<unsigned long long>(expected.number), finding_name(finding),
                static_cast<unsigned long long>(expected.sequence),
                static_cast<unsigned long long>(expected.seed),
                static_cast<unsigned long long>(block.magic),
                static_cast<unsigned long long>(block.seed),
                static_cast<unsigned long long>(block.number),
                static_cast<unsigned long long>(block.sequence));
  return line;
}

bool is_zero(const void* data, size_t size_bytes) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  return size_bytes == 0 || (bytes[0] == 0 && std::memcmp(bytes, bytes + 1, size_bytes - 1) == 0);
}

uint32_t short_sum(const void* data, size_t size_bytes) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint64_t sum = multiplier;
  for (size_t i = 0; i + sizeof(uint64_t) <= size_bytes; i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, bytes + i, sizeof(word));
    sum = mix(sum ^ word);
  }
  auto folded = static_cast<uint32_t>(sum ^ (sum >> 32));
  return folded ? folded : 1;
}

uint32_t crc32(const void* data, size_t size_bytes) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint32_t crc = 0xffffffff;
  for (size_t i = 0; i < size_bytes; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xedb88320 & (0 - (crc & 1)));
  }
  return ~crc;
}

}  // namespace ferry::guest
