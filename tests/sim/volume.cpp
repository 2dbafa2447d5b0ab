// SPDX-License-Identifier: GPL-2.0-or-later
#include "volume.h"

#include <algorithm>

namespace ferry::sim {

void Disk::write(unsigned block, Block contents) {
  cached_[block] = contents;
  unflushed_.push_back({written_++, block, contents});
}

void Disk::end_flush(std::uint64_t began) {
  for (const auto& write : unflushed_)
    if (write.number < began) durable_[write.block] = write.contents;
  std::erase_if(unflushed_, [began](const Unflushed& write) { return write.number < began; });
}

void Disk::lose_power(Random& random) {
  for (const auto& write : unflushed_) {
    // In order, each one or its halves may have reached the medium: any later one covers an earlier one.
    switch (random.below(4)) {
      case 0:
        durable_[write.block] = write.contents;
        break;
      case 1:
        durable_[write.block].low = write.contents.low;
        break;
      case 2:
        durable_[write.block].high = write.contents.high;
        break;
      default:
        break;
    }
  }
  unflushed_.clear();
  cached_ = durable_;
}

std::uint64_t digest_of(const std::array<Volume, kDisks>& volumes) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  const auto add = [&hash](std::uint32_t word) { hash = (hash ^ word) * 0x100000001b3; };
  for (const auto& volume : volumes)
    for (unsigned block = 0; block < kBlocks; ++block) {
      add(volume.disk.read(block).low);
      add(volume.disk.read(block).high);
    }
  return hash | 1;
}

const char* filter_name(Filter filter) {
  constexpr const char* kNames[] = {"plain", "tracking", "frozen", "fenced", "receiving", "gated"};
  return kNames[static_cast<unsigned>(filter)];
}

}  // namespace ferry::sim
