// SPDX-License-Identifier: GPL-2.0-or-later
#include "copier.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace ferry::kmod {
namespace {

constexpr uint64_t kRunBytes = kMiB;

}  // namespace

Copier::Copier(filter::Tracker& tracker, int door, uint64_t size_bytes)
    : tracker_(tracker), door_(door), copy_(size_bytes) {
  all();
}

void Copier::round() {
  {
    auto map = tracker_.swap();
    ASSERT_FERRY_OK(map);
    uint64_t at = 0;
    while (auto run = map->next_run(at, kRunBytes >> map->block_shift())) {
      copy_run(*run, map->block_shift());
      at = run->first + run->count;
    }
  }
  ASSERT_FERRY_OK(tracker_.release());
  ++rounds_;
}

void Copier::copy_run(filter::BlockRun run, uint32_t block_shift) {
  uint64_t gap_end = left_out_.first + left_out_.count;
  if (run.first < gap_end && left_out_.first < run.first + run.count) {
    filter::BlockRun gap = std::exchange(left_out_, {});
    if (run.first < gap.first) copy_run({run.first, gap.first - run.first}, block_shift);
    if (gap_end < run.first + run.count)
      copy_run({gap_end, run.first + run.count - gap_end}, block_shift);
    left_out_ = gap;
    return;
  }
  uint64_t offset = run.first << block_shift;
  copy_bytes(offset, std::min(run.count << block_shift, copy_.size() - offset));
  copied_ += run.count;
}

void Copier::copy_bytes(uint64_t offset, uint64_t length) {
  for (uint64_t part = 0; length > 0; offset += part, length -= part) {
    part = std::min(length, kRunBytes);
    ASSERT_EQ(pread(door_, copy_.bytes() + offset, part, static_cast<off_t>(offset)),
              static_cast<ssize_t>(part));
  }
}

uint64_t Copier::count_lost() {
  Buffer disk(kRunBytes);
  uint64_t lost = 0;
  for (uint64_t offset = 0; offset < copy_.size(); offset += kRunBytes) {
    uint64_t length = std::min<uint64_t>(kRunBytes, copy_.size() - offset);
    ssize_t got = pread(door_, disk.data(), length, static_cast<off_t>(offset));
    EXPECT_EQ(got, static_cast<ssize_t>(length));
    for (uint64_t at = 0; at < length; at += kBlock)
      if (std::memcmp(disk.bytes() + at, copy_.bytes() + offset + at,
                      std::min(kBlock, length - at)) != 0)
        ++lost;
  }
  return lost;
}

}  // namespace ferry::kmod
