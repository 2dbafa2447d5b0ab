// SPDX-License-Identifier: GPL-2.0-or-later
// What must hold at every step: at most one host whose guest can have a write acknowledged, no acknowledged write is
// lost, and no guest stands still for long while its own host may still let it go on. Keeps the truth: what was
// acknowledged to the guest, wherever it ran.
// Thread-safety: none.
#pragma once

#include <cstdint>

#include "guest.h"
#include "schedule.h"

namespace ferry::sim {

struct World;

class Checker {
 public:
  explicit Checker(World& world) : world_(world) {}

  void acknowledged(unsigned host, const GuestWrite& write);
  // `view`: what had been acknowledged when the guest asked for the flush that is done now.
  void flushed(unsigned host, const Contents& view);
  void lost_power(unsigned host);
  // The disks became `to`'s: whatever was acknowledged must be there, and must survive a loss of power.
  void handed_over(unsigned to, std::uint32_t session);
  // The operator took a dead peer's word for lost; writes that only the peer had are lost with it.
  void forced(unsigned host);
  bool excused() const { return excused_; }
  // A guest is started from the disks of `host`: what it finds there becomes its memory.
  void starts(unsigned host);
  // The copy on `host` runs: its memory, its disks and the truth must agree.
  void runs(unsigned host);
  // After every step.
  void step();

 private:
  bool found(unsigned host, unsigned disk, unsigned block) const;
  bool waits_before_grant(unsigned host) const;

  World& world_;
  Contents truth_{};
  std::array<Contents, 2> durable_{};  // what a host's disks must hold even after a loss of power
  std::array<bool, 2> lost_power_{};   // and what they hold since then was not looked at yet
  std::array<Time, 2> waiting_since_{};  // a guest paused by a migration that has granted nothing; 0: none
  std::uint32_t handed_over_ = 0;
  bool excused_ = false;
};

}  // namespace ferry::sim
