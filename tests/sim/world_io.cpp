// SPDX-License-Identifier: GPL-2.0-or-later
// World, the way of a guest's write: through the filter to the disk and back.
#include "daemon.h"
#include "world.h"

namespace ferry::sim {

void World::submit(unsigned id, GuestWrite write) {
  Volume& volume = hosts[id].volumes[write.disk];
  switch (volume.filter) {
    case Filter::none:
    case Filter::tracking:
      return admit(id, write);
    case Filter::frozen:
    case Filter::receiving:
    case Filter::gated:
      saw(Seen::held_write);
      volume.held.push_back(write);
      return;
    case Filter::fenced:
      break;
  }
  saw(Seen::refused_write);
  auto& guest = hosts[id].guest;  // an I/O error: nothing is acknowledged
  if (!guest || guest->copy != write.copy) return;
  guest->waiting[write.disk] &= ~(1u << write.block);
  --guest->under_way;
  if (guest->pausing && guest->under_way == 0) libvirt.guest_stands_still(id);
}

void World::admit(unsigned id, GuestWrite write) {
  ++hosts[id].volumes[write.disk].in_flight;
  const Time takes = random.chance(5) ? random.between(kMillisecond, 6 * kMillisecond)
                                      : random.between(20 * kMicrosecond, 200 * kMicrosecond);
  schedule.after(takes, &hosts[id].power, [this, id, write] { write_ends(id, write); });
}

// On the disk, marked, then told to the guest: in this order, as the filter does.
void World::write_ends(unsigned id, GuestWrite write) {
  Host& host = hosts[id];
  Volume& volume = host.volumes[write.disk];
  if (volume.in_flight == 0) return;  // the volume was removed meanwhile
  --volume.in_flight;
  volume.disk.write(write.block, {write.version, write.version});
  if (volume.filter != Filter::none) volume.live |= 1u << write.block;
  auto& guest = host.guest;
  if (!guest || guest->copy != write.copy) return;  // landed, but nobody learns of it
  guest->view[write.disk][write.block] = {write.version, write.version};
  guest->waiting[write.disk] &= ~(1u << write.block);
  --guest->under_way;
  trace(id, "guest: write {} to {}:{} acknowledged", write.version, write.disk, write.block);
  checker.acknowledged(id, write);
  if (guest->pausing && guest->under_way == 0) libvirt.guest_stands_still(id);
}

void World::set_filter(unsigned id, unsigned disk, Filter filter) {
  Volume& volume = hosts[id].volumes[disk];
  if (volume.filter == filter) return;
  trace(id, "disk {}: {} -> {}", disk, filter_name(volume.filter), filter_name(filter));
  volume.filter = filter;
  if (filter != Filter::frozen) ++volume.freezes;
  if (filter == Filter::none) volume.live = volume.retired = volume.tracker = 0;
  if (!volume.passes() && filter != Filter::fenced) return;
  auto held = std::move(volume.held);
  volume.held.clear();
  for (const auto& write : held) submit(id, write);
}

void World::remove_volumes(unsigned id) {
  trace(id, "the volumes that were created are removed");
  hosts[id].volumes_exist = false;
  hosts[id].volumes = {};
}

bool World::writable(unsigned id) const {
  const Host& host = hosts[id];
  if (!host.powered || !host.volumes_exist) return false;
  for (const auto& volume : host.volumes)
    if (!volume.passes()) return false;
  return true;
}

bool World::claims(unsigned id) const {
  const auto& record = hosts[id].records.get();
  if (!record) return hosts[id].defined;
  return record->holding == store::Holding::owned || record->holding == store::Holding::moving;
}

bool World::can_acknowledge(unsigned id) const {
  const Host& host = hosts[id];
  if (!host.powered || !host.volumes_exist) return false;
  const bool runs = host.guest && host.guest->state == GuestState::running;
  if (!runs) return !host.guest && claims(id) && writable(id);
  for (const auto& volume : host.volumes)
    if (volume.passes()) return true;
  return false;
}

// --- the guest

void World::run_guest(unsigned id) {
  Host& host = hosts[id];
  host.guest->state = GuestState::running;
  host.guest->pausing = host.guest->flushing = false;
  ++host.guest_life;
  trace(id, "guest: copy {} runs", host.guest->copy);
  if (hosts[other(id)].guest && hosts[other(id)].guest->state == GuestState::running) saw(Seen::both_guests_run);
  checker.runs(id);
  schedule.after(random.between(20 * kMicrosecond, kMillisecond), &host.guest_life, [this, id] { guest_step(id); });
}

void World::guest_step(unsigned id) {
  Host& host = hosts[id];
  Guest& guest = *host.guest;
  if (guest.pausing || guest.state != GuestState::running) return;
  checker.runs(id);
  const Time pause = ending ? random.between(2 * kSecond, 20 * kSecond)
                     : libvirt.active() || (host.daemon_up && host.daemon->busy())
                         ? random.between(200 * kMicrosecond, 3 * kMillisecond)
                         : random.between(5 * kMillisecond, 100 * kMillisecond);
  if (random.chance(20) && writable(id) && !guest.flushing) {
    guest.flushing = true;
    guest.flush_view = guest.view;
    std::array<std::uint64_t, kDisks> began;
    for (unsigned disk = 0; disk < kDisks; ++disk) began[disk] = host.volumes[disk].disk.begin_flush();
    schedule.after(random.between(100 * kMicrosecond, 2 * kMillisecond), &host.guest_life, [this, id, began] {
      for (unsigned disk = 0; disk < kDisks; ++disk) hosts[id].volumes[disk].disk.end_flush(began[disk]);
      hosts[id].guest->flushing = false;
      checker.flushed(id, hosts[id].guest->flush_view);
    });
  } else if (random.chance(85)) {
    GuestWrite write{++versions, guest.copy, static_cast<std::uint8_t>(random.below(kDisks)),
                     static_cast<std::uint8_t>(random.below(kBlocks))};
    if (!guest.busy(write.disk, write.block)) {
      guest.waiting[write.disk] |= 1u << write.block;
      ++guest.under_way;
      submit(id, write);
    }
  }
  if (host.guest) schedule.after(pause, &host.guest_life, [this, id] { guest_step(id); });
}

void World::start_guest(unsigned id) {
  Host& host = hosts[id];
  if (!host.powered || host.guest || !claims(id) || !writable(id)) return;
  // A write of the copy before may still be under way; the device has ended it before a new one opens it.
  for (const auto& volume : host.volumes)
    if (volume.in_flight != 0) return;
  host.guest.emplace();
  host.guest->copy = ++copies;
  host.defined = true;
  trace(id, "guest: started from its disks");
  checker.starts(id);
  run_guest(id);
}

void World::destroy_guest(unsigned id) {
  Host& host = hosts[id];
  trace(id, "guest: copy {} ends", host.guest->copy);
  host.guest.reset();
  ++host.guest_life;
  libvirt.guest_ended(id);
}

}  // namespace ferry::sim
