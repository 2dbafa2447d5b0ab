// SPDX-License-Identifier: GPL-2.0-or-later
#include "checker.h"

#include "daemon.h"
#include "world.h"

namespace ferry::sim {
namespace {

// With the time that it takes to take everything back.
constexpr Time kLongestStandstill = kStandstill + 5 * kSecond;

template <typename F>
void each_block(F f) {
  for (unsigned disk = 0; disk < kDisks; ++disk)
    for (unsigned block = 0; block < kBlocks; ++block) f(disk, block);
}

}  // namespace

void Checker::acknowledged(unsigned host, const GuestWrite& write) {
  Block& truth = truth_[write.disk][write.block];
  if (world_.hosts[other(host)].guest && world_.can_acknowledge(other(host)))
    world_.violate("two writers: a write is acknowledged while the other host's guest may write, too");
  truth = {write.version, write.version};
}

void Checker::flushed(unsigned host, const Contents& view) {
  durable_[host] = view;
}

void Checker::lost_power(unsigned host) { lost_power_[host] = true; }

void Checker::handed_over(unsigned to, std::uint32_t session) {
  if (handed_over_ == session) return;
  handed_over_ = session;
  const Host& host = world_.hosts[to];
  each_block([&](unsigned disk, unsigned block) {
    const Disk& there = host.volumes[disk].disk;
    if (there.read(block) != truth_[disk][block])
      world_.violate(fmt::format("lost write: block {} of disk {} holds {}/{} when the disks are handed over, "
                                 "acknowledged was {}", block, disk, there.read(block).low, there.read(block).high,
                                 truth_[disk][block].low));
    else if (there.durable(block) != truth_[disk][block])
      world_.violate(fmt::format("lost write: block {} of disk {} would not survive a loss of power when the disks "
                                 "are handed over", block, disk));
  });
  durable_[to] = truth_;
  lost_power_[to] = false;
}

void Checker::forced(unsigned host) {
  excused_ = true;
  each_block([&](unsigned disk, unsigned block) {
    if (!lost_power_[host]) truth_[disk][block] = world_.hosts[host].volumes[disk].disk.read(block);
  });
}

// Is what lies in this block one of the things that may lie there when a guest starts?
bool Checker::found(unsigned host, unsigned disk, unsigned block) const {
  const Block there = world_.hosts[host].volumes[disk].disk.read(block);
  const Block least = lost_power_[host] ? durable_[host][disk][block] : truth_[disk][block];
  if (there.low < least.low || there.high < least.high) return false;
  return lost_power_[host] || there == least || there.low == there.high;
}

void Checker::starts(unsigned host) {
  Guest& guest = *world_.hosts[host].guest;
  each_block([&](unsigned disk, unsigned block) {
    const Block there = world_.hosts[host].volumes[disk].disk.read(block);
    if (!found(host, disk, block))
      world_.violate(fmt::format("lost write: a guest that starts on host {} finds {}/{} in block {} of disk {}, at "
                                 "least {}/{} was promised{}", "ab"[host], there.low, there.high, block, disk,
                                 lost_power_[host] ? durable_[host][disk][block].low : truth_[disk][block].low,
                                 lost_power_[host] ? durable_[host][disk][block].high : truth_[disk][block].high,
                                 lost_power_[host] ? " to survive the loss of power" : ""));
    if (there.low != there.high) world_.saw(Seen::torn_block);
    guest.view[disk][block] = truth_[disk][block] = there;
    if (lost_power_[host]) durable_[host][disk][block] = there;
  });
  lost_power_[host] = false;
}

void Checker::runs(unsigned host) {
  if (!world_.hosts[host].guest || !world_.writable(host)) return;
  const Guest& guest = *world_.hosts[host].guest;
  if (guest.state != GuestState::running) return;
  each_block([&](unsigned disk, unsigned block) {
    if (guest.busy(disk, block)) return;
    const Block there = world_.hosts[host].volumes[disk].disk.read(block);
    const Block known = guest.view[disk][block];
    if (there != known)
      world_.violate(
          fmt::format("lost write: the guest on host {} reads {}/{} in block {} of disk {}, it knows of {}/{}",
                      "ab"[host], there.low, there.high, block, disk, known.low, known.high));
    else if (known != truth_[disk][block] && !excused_)
      world_.violate(fmt::format("lost write: the guest on host {} does not know of write {} to block {} of disk {}, "
                                 "which was acknowledged elsewhere", "ab"[host], truth_[disk][block].low, block, disk));
  });
}

// A daemon that hangs or is down cannot do anything about it, nor one that cannot write its record: it says so.
bool Checker::waits_before_grant(unsigned id) const {
  const Host& host = world_.hosts[id];
  if (!host.guest || host.guest->state != GuestState::paused || !host.daemon_up || host.dying) return false;
  if (world_.schedule.now() <= host.hung_until) return false;
  const auto* job = host.daemon->latest_outgoing();
  return job && !job->machine.ended() && job->machine.times().paused && !job->machine.times().granted &&
         !job->machine.in_doubt();
}

void Checker::step() {
  for (unsigned host = 0; host < 2; ++host) {
    if (!waits_before_grant(host)) {
      waiting_since_[host] = 0;
      continue;
    }
    if (waiting_since_[host] == 0) waiting_since_[host] = world_.schedule.now();
    if (world_.schedule.now() - waiting_since_[host] > kLongestStandstill)
      world_.violate(fmt::format("stuck: the guest on host {} stands still before anything was granted", "ab"[host]));
  }
  if (world_.can_acknowledge(0) && world_.can_acknowledge(1))
    world_.violate("two writers: on both hosts a guest can have a write acknowledged");
}

}  // namespace ferry::sim
