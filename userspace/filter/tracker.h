// SPDX-License-Identifier: GPL-2.0-or-later
// Tracker: one tracker of the kernel filter through its /dev/ferry descriptor. Owning: closing it
// thaws a freeze, and ends a tracker that no table borrows. Fenced and gated states outlive it.
// Thread-safety: the kernel serialises the calls; moving needs the caller's own order.
#pragma once

#include <linux/ferry.h>

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "filter/retired_map.h"
#include "filter/uuid.h"

namespace ferry::filter {

struct TrackerInfo {
  TrackerUuid uuid{};
  std::string name;
  ferry_state state = FERRY_STATE_TRACKING;
  uint32_t flags = 0;  // FERRY_TF_*
  uint32_t block_shift = 0;
  uint64_t sectors = 0;
  uint64_t nr_blocks = 0;
  uint64_t swaps = 0;
  uint64_t dirty = 0;
  uint64_t newly = 0;
  uint64_t held = 0;
  uint64_t inflight = 0;
  uint64_t fenced_writes = 0;

  bool bound() const { return flags & FERRY_TF_BOUND; }
  bool invalid() const { return flags & FERRY_TF_INVALID; }
  bool detached() const { return flags & FERRY_TF_DETACHED; }
  bool freeze_lost() const { return flags & FERRY_TF_FREEZE_LOST; }
  // In a table, and sure of its maps.
  bool intact() const { return bound() && !invalid() && !detached(); }
  bool owned() const { return flags & FERRY_TF_OWNED; }
  uint64_t dirty_bytes() const { return dirty << block_shift; }
};

// "tracking", "frozen", "fenced", "receiving", "gated"; "unknown" for anything else.
const char* state_name(ferry_state state);
// Comma separated names of FERRY_TF_*, "-" when none is set.
std::string flag_names(uint32_t flags);

struct ModuleVersion {
  uint32_t abi_major = 0;
  uint32_t abi_minor = 0;
  uint64_t features = 0;

  // Minor versions only add; nothing of a later minor is needed so far.
  bool fits() const { return abi_major == FERRY_ABI_MAJOR; }
};

// Asks the loaded module. not_found when it is not loaded. A module with another major answers too.
Result<ModuleVersion> module_version();

class Tracker {
 public:
  // block_shift 0 = 4 KiB. The new tracker belongs to no table yet.
  static Result<Tracker> create(const TrackerUuid& uuid, const std::string& name, uint64_t sectors,
                                uint32_t block_shift, ferry_mode mode);
  // Without `owner` only info() and poll are allowed.
  static Result<Tracker> open(const TrackerUuid& uuid, bool owner);

  Result<TrackerInfo> info() const;
  // Retires the live map. busy when the last one was not released, failed (ESTALE) when the maps
  // cannot be trusted.
  Result<RetiredMap> swap();
  Status release();
  Status freeze(uint32_t timeout_ms, uint32_t watchdog_ms);
  Status thaw();
  Status fence();
  Status unfence();
  Status close_gate();
  Status open_gate();
  Status disarm();
  Status mark(uint64_t first_block, uint64_t nr_blocks);

  const TrackerUuid& uuid() const { return uuid_; }
  const std::string& name() const { return name_; }
  int fd() const { return fd_.get(); }

 private:
  Tracker(Fd fd, const TrackerUuid& uuid) : fd_(std::move(fd)), uuid_(uuid) {}
  Status learn();
  Status simple(unsigned long request, const char* verb);

  Fd fd_;
  TrackerUuid uuid_;
  std::string name_;
  uint64_t nr_blocks_ = 0;
  uint32_t block_shift_ = 0;
};

}  // namespace ferry::filter
