// SPDX-License-Identifier: GPL-2.0-or-later
#include "destination_disks.h"

#include "incoming.h"
#include "world.h"

namespace ferry::sim {

using T = migration::DestinationEventType;

void DestinationDisks::ask(Call call, const char* name) {
  if (!world_.point(job_.host, name)) return;
  calls_.push_back(call);
  if (!busy_) next();
}

void DestinationDisks::next() {
  if (calls_.empty()) return;
  busy_ = true;
  const Call call = calls_.front();
  calls_.pop_front();
  Host& host = world_.hosts[job_.host];
  const Time takes =
      world_.random.between(20 * kMicrosecond, call == Call::flush ? 5 * kMillisecond : 500 * kMicrosecond);
  if (call == Call::flush) {  // covers what had arrived when it began
    std::array<std::uint64_t, kDisks> began;
    for (unsigned disk = 0; disk < kDisks; ++disk) began[disk] = host.volumes[disk].disk.begin_flush();
    const bool fails = world_.fails(job_.host, "flush");
    return world_.schedule.after(takes, &host.daemon_life, [this, began, fails] {
      if (fails) return failed("the flush failed");
      for (unsigned disk = 0; disk < kDisks; ++disk)
        if (!world_.mutated(Mutation::no_flush_before_ready))
          world_.hosts[job_.host].volumes[disk].disk.end_flush(began[disk]);
      done(T::flushed);
    });
  }
  world_.schedule.after(takes, &host.daemon_life, [this, call] { run(call); });
}

void DestinationDisks::done(T type) {
  busy_ = false;
  job_.post({type});
  next();
}

void DestinationDisks::failed(const char* why, Errc code) {
  busy_ = false;
  job_.post({T::failed, true, code, why});
  next();
}

void DestinationDisks::run(Call call) {
  Host& host = world_.hosts[job_.host];
  switch (call) {
    case Call::prepare:
      if (!prepare_all()) {
        clean(false);
        return failed("the volumes could not be prepared");
      }
      return done(T::prepared);
    case Call::close_gate:
      for (unsigned disk = 0; disk < kDisks; ++disk)
        if (host.volumes[disk].filter == Filter::receiving) world_.set_filter(job_.host, disk, Filter::gated);
      busy_ = false;
      return next();
    case Call::open_gate:
      if (world_.fails(job_.host, "open gate")) return failed("a gate did not open");
      open_all();
      return done(T::opened);
    case Call::verify:
      if (world_.fails(job_.host, "verify")) return failed("a read failed");
      digests_equal_ = true;
      for (unsigned disk = 0; disk < kDisks; ++disk)
        for (unsigned block = 0; block < kBlocks; ++block)
          if (host.volumes[disk].disk.read(block) != received_[disk][block] && !(host.volumes[disk].live >> block & 1))
            digests_equal_ = false;
      return done(T::verified);
    case Call::yield:
      if (world_.fails(job_.host, "yield")) return failed("the fence did not close");
      if (host.guest && host.guest->state == GuestState::incoming) world_.destroy_guest(job_.host);
      if (!untouched()) return failed("the guest runs here or has written", Errc::busy);
      for (unsigned disk = 0; disk < kDisks; ++disk) world_.set_filter(job_.host, disk, Filter::fenced);
      return done(T::yielded);
    case Call::finish:
    case Call::discard:
      if (world_.fails(job_.host, "clean up")) {  // named to the operator; the next start tries again
        receiving_ = false;
        world_.restart_wanted[job_.host] = true;
        return failed("the volumes could not be cleaned up");
      }
      clean(call == Call::finish);
      return done(T::cleaned);
    case Call::flush:
      return;
  }
}

bool DestinationDisks::prepare_all() {
  Host& host = world_.hosts[job_.host];
  if (world_.fails(job_.host, "prepare") || host.guest) return false;
  created_ = !host.volumes_exist;
  if (created_) {
    host.volumes = {};
    host.volumes_exist = true;
  }
  for (unsigned disk = 0; disk < kDisks; ++disk) {
    Volume& volume = host.volumes[disk];
    if (volume.filter != Filter::none && volume.filter != Filter::fenced) return false;
    replaced_fence_[disk] = volume.filter == Filter::fenced;
    volume.live = volume.retired = 0;
    world_.set_filter(job_.host, disk, world_.mutated(Mutation::gate_left_open) ? Filter::tracking : Filter::receiving);
  }
  attached_ = true;
  receiving_ = true;
  return true;
}

void DestinationDisks::open_all() {
  world_.checker.handed_over(job_.host, job_.session);
  for (unsigned disk = 0; disk < kDisks; ++disk) world_.set_filter(job_.host, disk, Filter::tracking);
}

// Nobody has written since the gate opened, and nobody runs who could. A gate that never opened is as good.
bool DestinationDisks::untouched() const {
  const Host& host = world_.hosts[job_.host];
  if (world_.mutated(Mutation::return_unchecked)) return true;
  if (host.guest && host.guest->state == GuestState::running) return false;
  for (const auto& volume : host.volumes) {
    if (volume.filter == Filter::none || volume.filter == Filter::fenced) return false;
    if (volume.live != 0 || volume.in_flight != 0) return false;
  }
  return true;
}

void DestinationDisks::clean(bool keep) {
  Host& host = world_.hosts[job_.host];
  receiving_ = false;
  if (!attached_) return;
  attached_ = false;
  for (unsigned disk = 0; disk < kDisks; ++disk)
    world_.set_filter(job_.host, disk, !keep && replaced_fence_[disk] ? Filter::fenced : Filter::none);
  if (!keep && created_) {
    world_.trace(job_.host, "the volumes that were created are removed");
    host.volumes_exist = false;
    host.volumes = {};
  }
}

void DestinationDisks::take(const Message& message) {
  world_.hosts[job_.host].volumes[message.disk].disk.write(message.block, message.contents);
  received_[message.disk][message.block] = message.contents;
}

}  // namespace ferry::sim
