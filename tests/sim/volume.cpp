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

const char* filter_name(Filter filter) {
  constexpr const char* kNames[] = {"plain", "tracking", "frozen", "fenced", "receiving", "gated"};
  return kNames[static_cast<unsigned>(filter)];
}

}  // namespace ferry::sim
