// SPDX-License-Identifier: GPL-2.0-or-later
// World, what dies and what comes back: daemons and whole hosts.
#include "daemon.h"
#include "world.h"

namespace ferry::sim {

void World::start_daemon(unsigned id) {
  Host& host = hosts[id];
  if (!host.powered || host.daemon_up) return;
  ++host.daemon_life;
  host.daemon_up = true;
  host.dying = false;
  host.hung_until = 0;
  host.daemon = std::make_unique<Daemon>(*this, id);
  trace(id, "ferryd starts");
  host.daemon->start();
}

// What the kernel does when the owner of a tracker is gone: a freeze ends, a map that was being read goes
// back. Fence and gate stay.
void World::stop_daemon(unsigned id, bool silent) {
  Host& host = hosts[id];
  if (!host.daemon_up) return;
  ++host.daemon_life;
  host.daemon_up = false;
  host.store_busy_until = 0;
  host.daemon.reset();
  for (unsigned disk = 0; disk < kDisks; ++disk) {
    Volume& volume = host.volumes[disk];
    volume.put_retired_back();
    volume.stuck = false;
    if (volume.filter == Filter::frozen && host.powered) set_filter(id, disk, Filter::tracking);
  }
  links.break_all(id, silent);
}

void World::kill_daemon(unsigned id, Time back_after) {
  if (!hosts[id].daemon_up) return;
  trace(id, "ferryd is gone, and comes back after {} ms", back_after / kMillisecond);
  libvirt.daemon_died(id);
  stop_daemon(id, false);
  schedule.after(back_after, &hosts[id].power, [this, id] { start_daemon(id); });
}

void World::power_off(unsigned id, Time back_after) {
  Host& host = hosts[id];
  if (!host.powered) return;
  trace(id, "no power{}", host.destroyed ? ", for ever" : "");
  host.powered = false;
  ++host.power;
  unguarded = unguarded || host.records.lost();
  libvirt.host_died(id);
  if (host.guest) destroy_guest(id);
  stop_daemon(id, true);
  for (auto& volume : host.volumes) {
    volume.disk.lose_power(random);
    volume.filter = Filter::none;
    volume.live = volume.retired = volume.tracker = 0;
    volume.in_flight = 0;
    volume.held.clear();
    ++volume.freezes;
  }
  checker.lost_power(id);
  if (!host.destroyed) schedule.after(back_after, &host.power, [this, id] { boot(id); });
}

void World::boot(unsigned id) {
  Host& host = hosts[id];
  if (host.powered || host.destroyed) return;
  host.powered = true;
  ++host.power;
  trace(id, "boots");
  if (!mutated(Mutation::no_bar_at_boot)) bar(id);
  // Guests with autostart do not wait for ferryd.
  if (host.defined && host.volumes_exist && random.chance(40)) {
    if (mutated(Mutation::no_bar_at_boot) && !host.guest) {
      host.guest.emplace();
      host.guest->copy = ++copies;
      checker.starts(id);
      run_guest(id);
    } else {
      start_guest(id);
    }
  }
  schedule.after(random.between(kMillisecond, 200 * kMillisecond), &host.power, [this, id] { start_daemon(id); });
}

// No guest may write to volumes whose owner is another host, or may be.
void World::bar(unsigned id) {
  Host& host = hosts[id];
  const auto& record = host.records.get();
  if (!record || !store::is_barred(record->holding) || !host.volumes_exist) return;
  for (unsigned disk = 0; disk < kDisks; ++disk)
    if (host.volumes[disk].passes()) set_filter(id, disk, Filter::fenced);
}

}  // namespace ferry::sim
