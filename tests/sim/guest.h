// SPDX-License-Identifier: GPL-2.0-or-later
// A copy of the guest: what it remembers of its disks. Live migration gives its memory to another copy; a
// start from the disks makes a new memory out of what is there.
// Thread-safety: plain value.
#pragma once

#include "volume.h"

namespace ferry::sim {

enum class GuestState : std::uint8_t { incoming, running, paused };

struct Guest {
  std::uint32_t copy = 0;
  GuestState state = GuestState::paused;
  bool pausing = false;             // takes no new step; paused when its writes have ended
  Contents view{};                  // what it last wrote or read, as far as it was acknowledged
  std::array<std::uint32_t, kDisks> waiting{};  // blocks with a write under way
  unsigned under_way = 0;
  bool flushing = false;
  Contents flush_view{};            // acknowledged when the flush began

  bool busy(unsigned disk, unsigned block) const { return waiting[disk] >> block & 1; }
};

}  // namespace ferry::sim
