// SPDX-License-Identifier: GPL-2.0-or-later
#include "destination_disks.h"

#include <utility>

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
      verify_all();
      return done(T::verified);
    case Call::yield:
      if (world_.fails(job_.host, "yield")) return failed("the fence did not close");
      if (host.guest && host.guest->state == GuestState::incoming) world_.destroy_guest(job_.host);
      if (!untouched()) return failed("the guest runs here or has written", Errc::busy);
      for (unsigned disk = 0; disk < kDisks; ++disk) world_.set_filter(job_.host, disk, Filter::fenced);
      if (!keeps_) keeps_ = false;  // a whole copy, but an old one
      return done(T::yielded);
    case Call::finish:
    case Call::discard:
      if (world_.fails(job_.host, "clean up")) {  // named to the operator; the next start tries again
        receiving_ = false;
        for (auto& volume : host.volumes) volume.stuck = attached_;
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
  const bool made = !host.volumes_exist;
  if (made) {
    removable_ = true;
    host.volumes = {};
    host.volumes_exist = true;
  }
  ++world_.trackers;
  for (unsigned disk = 0; disk < kDisks; ++disk) {
    Volume& volume = host.volumes[disk];
    if (volume.filter != Filter::none && volume.filter != Filter::fenced) return false;
    replaced_fence_[disk] = volume.filter == Filter::fenced;
    volume.live = volume.retired = 0;
    volume.tracker = world_.trackers;
    world_.set_filter(job_.host, disk, world_.mutated(Mutation::gate_left_open) ? Filter::tracking : Filter::receiving);
  }
  attached_ = true;
  receiving_ = true;
  has_ = made ? Base::none : judge_base();
  world_.trace(job_.host, "of the disks there is here: {}", has_ == Base::none ? "none" : has_ == Base::some ? "some" : "exact");
  return true;
}

// What the volumes hold is believed only after a look at all of it.
Base DestinationDisks::judge_base() {
  if (!old_) return Base::none;
  if (changes_since_ == 0 || old_->generation != changes_since_) return Base::some;
  const Host& host = world_.hosts[job_.host];
  const bool right = old_->digest != 0 && digest_of(host.volumes) == old_->digest;
  if (!right && !world_.mutated(Mutation::old_copy_unread)) return Base::some;
  for (unsigned disk = 0; disk < kDisks; ++disk)
    for (unsigned block = 0; block < kBlocks; ++block) received_[disk][block] = host.volumes[disk].disk.read(block);
  return Base::exact;
}

bool DestinationDisks::keeps() {
  if (!keeps_) keeps_ = keep_ && (received_any_ || old_);
  return *keeps_;
}

void DestinationDisks::open_all() {
  world_.checker.handed_over(job_.host, job_.session);
  for (unsigned disk = 0; disk < kDisks; ++disk) world_.set_filter(job_.host, disk, Filter::tracking);
}

// The guest is running meanwhile: what it has written since is another thing than what came in, and the map says so.
void DestinationDisks::verify_all() {
  if (std::exchange(verified_, true) && !world_.mutated(Mutation::verified_anew)) return;
  Host& host = world_.hosts[job_.host];
  digests_equal_ = true;
  bool differ = false;
  for (unsigned disk = 0; disk < kDisks; ++disk)
    for (unsigned block = 0; block < kBlocks; ++block) {
      if (host.volumes[disk].disk.read(block) == received_[disk][block]) continue;
      differ = true;
      if (!(host.volumes[disk].live >> block & 1)) digests_equal_ = false;
    }
  if (!differ) return;
  for (auto& volume : host.volumes) {
    written_ = written_ || volume.live != 0;
    volume.retired |= volume.live;
    volume.live = 0;
  }
}

// Nobody has written since the gate opened, and nobody runs who could. A gate that never opened is as good.
bool DestinationDisks::untouched() const {
  const Host& host = world_.hosts[job_.host];
  if (world_.mutated(Mutation::return_unchecked)) return true;
  if (host.guest && host.guest->state == GuestState::running) return false;
  if (written_) return false;
  for (const auto& volume : host.volumes) {
    if (volume.filter == Filter::none || volume.filter == Filter::fenced) return false;
    if (volume.live != 0 || volume.in_flight != 0) return false;
  }
  return true;
}

void DestinationDisks::clean(bool keep) {
  Host& host = world_.hosts[job_.host];
  receiving_ = false;
  const bool attached = std::exchange(attached_, false);
  if (!keep) {
    if (attached) put_back();
    return remove();
  }
  // The filter stays, for the way back. One whose gate refused to open does not.
  for (unsigned disk = 0; disk < kDisks; ++disk) {
    Volume& volume = host.volumes[disk];
    if (volume.filter != Filter::tracking) world_.set_filter(job_.host, disk, Filter::none);
    if (world_.mutated(Mutation::retired_marks_lost)) volume.retired = 0;
    volume.put_retired_back();
  }
}

// As they were before, or closed when the copy is kept.
void DestinationDisks::put_back() {
  Host& host = world_.hosts[job_.host];
  for (unsigned disk = 0; disk < kDisks; ++disk) {
    const bool was_closed = host.volumes[disk].filter == Filter::fenced || replaced_fence_[disk];
    const bool stays = keeps() || (was_closed && !removable_);
    world_.set_filter(job_.host, disk, stays ? Filter::fenced : Filter::none);
  }
}

void DestinationDisks::remove() {
  Host& host = world_.hosts[job_.host];
  if (keeps()) world_.saw(Seen::kept);
  if (!removable_ || keeps() || !host.volumes_exist) return;
  world_.remove_volumes(job_.host);
}

void DestinationDisks::take(const Message& message) {
  world_.hosts[job_.host].volumes[message.disk].disk.write(message.block, message.contents);
  received_[message.disk][message.block] = message.contents;
  received_any_ = true;
}

bool DestinationDisks::differs(const Message& message) {
  const Block here = world_.hosts[job_.host].volumes[message.disk].disk.read(message.block);
  received_[message.disk][message.block] = here;
  return here != message.contents;
}

}  // namespace ferry::sim
