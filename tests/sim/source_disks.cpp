// SPDX-License-Identifier: GPL-2.0-or-later
#include "source_disks.h"

#include <bit>

#include "outgoing.h"
#include "world.h"

namespace ferry::sim {

using T = migration::SourceEventType;

namespace {

constexpr unsigned kStreams = 2;
constexpr Time kDrainTick = 200 * kMicrosecond;
constexpr unsigned kDrainTicks = 200;           // then the freeze fails
constexpr Time kWatchdog = 60 * kSecond;        // as the daemon asks of the kernel

}  // namespace

void SourceDisks::ask(Call call, const char* name) {
  if (!world_.point(job_.host, name)) return;
  calls_.push_back(call);
  if (!busy_) next();
}

void SourceDisks::next() {
  if (calls_.empty()) return;
  busy_ = true;
  const Call call = calls_.front();
  calls_.pop_front();
  world_.schedule.after(world_.random.between(20 * kMicrosecond, 500 * kMicrosecond),
                        &world_.hosts[job_.host].daemon_life, [this, call] { run(call); });
}

void SourceDisks::done(T type) {
  busy_ = false;
  job_.post(0, Signal{type});
  next();
}

void SourceDisks::failed(T step, Errc code, const char* why) {
  busy_ = false;
  job_.post(0, Signal{T::failed}.error(code, why).step(step));
  next();
}

void SourceDisks::run(Call call) {
  Host& host = world_.hosts[job_.host];
  switch (call) {
    case Call::attach:
      if (world_.fails(job_.host, "attach") || !attach_all()) return failed(T::attached, Errc::io, "attach failed");
      return done(T::attached);
    case Call::full:
    case Call::dirty:
      return begin_round(call);
    case Call::freeze:
      if (world_.mutated(Mutation::freeze_skipped)) return done(T::frozen);
      for (unsigned disk = 0; disk < kDisks; ++disk) {
        if (host.volumes[disk].filter != Filter::tracking) return failed(T::frozen, Errc::io, "no filter to freeze");
        world_.set_filter(job_.host, disk, Filter::frozen);
        const Life* life = &host.volumes[disk].freezes;
        world_.schedule.after(kWatchdog, life, [this, h = job_.host, disk, &world = world_] {
          if (world.hosts[h].volumes[disk].filter == Filter::frozen) world.set_filter(h, disk, Filter::tracking);
        });
      }
      return freeze_all(0);
    case Call::thaw:
      if (world_.fails(job_.host, "thaw")) {
        // One call of the kernel failed; the daemon looks at the state and finds that writes flow.
        world_.trace(job_.host, "thaw: the call failed, the state is right");
      }
      thaw_all();
      return done(T::thawed);
    case Call::fence:
      return fence_all();
    case Call::digest:
      if (world_.fails(job_.host, "digest")) return failed(T::digests_taken, Errc::io, "digest failed");
      digest_ = digest_of(host.volumes);
      return done(T::digests_taken);
    case Call::detach:
      if (world_.fails(job_.host, "detach")) {
        world_.restart_wanted[job_.host] = true;
        return failed(T::detached, Errc::io, "detach said no");
      }
      take_out();
      return done(T::detached);
    case Call::leave:
      for (auto& stream : streams_) world_.links.close(stream.connection, job_.host);
      if (world_.mutated(Mutation::fence_lost_on_leave)) take_out();
      if (world_.fails(job_.host, "leave")) return failed(T::detached, Errc::io, "leave failed");
      return done(T::detached);
  }
}

bool SourceDisks::attach_all() {
  Host& host = world_.hosts[job_.host];
  if (!world_.links.reachable()) return false;
  bool follows = true;
  for (const auto& volume : host.volumes) {
    if (volume.stuck || (volume.filter != Filter::none && volume.filter != Filter::tracking)) return false;
    const bool same = volume.filter == Filter::tracking && volume.tracker == job_.follower;
    follows = follows && (same || world_.mutated(Mutation::any_map_trusted));
  }
  base_ = job_.peer.has();
  if (base_ == Base::exact && !follows) base_ = Base::some;
  if (base_ == Base::some) world_.saw(Seen::compared);
  if (base_ == Base::exact) world_.saw(Seen::followed);
  ++world_.trackers;
  for (unsigned disk = 0; disk < kDisks; ++disk) {
    Volume& volume = host.volumes[disk];
    if (base_ != Base::exact) {
      volume.live = volume.retired = 0;
      volume.tracker = world_.trackers;
    }
    world_.set_filter(job_.host, disk, Filter::tracking);
  }
  streams_.clear();
  for (unsigned n = 0; n < kStreams; ++n)
    streams_.push_back({world_.links.open(Purpose::data, job_.host, job_.session), {}, 0, false});
  return true;
}

void SourceDisks::take_out() {
  Host& host = world_.hosts[job_.host];
  for (unsigned disk = 0; disk < kDisks; ++disk)
    if (host.volumes[disk].filter != Filter::none) world_.set_filter(job_.host, disk, Filter::none);
  for (auto& stream : streams_) world_.links.close(stream.connection, job_.host);
}

void SourceDisks::begin_round(Call call) {
  Host& host = world_.hosts[job_.host];
  if (stopped_) return failed(T::round_done, Errc::aborted, "stopped");
  if (world_.fails(job_.host, "copy")) return failed(T::round_done, Errc::io, "a read failed");
  in_round_ = true;
  covered_ = 0;
  round_began_ = world_.schedule.now();
  differing_.clear();
  const bool from_map = call == Call::dirty || base_ == Base::exact;
  std::vector<Place> places;
  for (unsigned disk = 0; disk < kDisks; ++disk) {
    Volume& volume = host.volumes[disk];
    std::uint32_t blocks = kAllBlocks;
    if (from_map) {
      blocks = volume.live;
      if (!world_.mutated(Mutation::map_without_swap)) {
        volume.retired = volume.live;
        volume.live = 0;
      }
    }
    for (unsigned block = 0; block < kBlocks; ++block)
      if (blocks >> block & 1) places.push_back({static_cast<std::uint8_t>(disk), static_cast<std::uint8_t>(block)});
  }
  begin_stage(!from_map && base_ == Base::some ? Stage::compare : Stage::copy, places);
}

void SourceDisks::begin_stage(Stage stage, const std::vector<Place>& places) {
  stage_ = stage;
  ++round_;
  for (auto& stream : streams_) stream.todo.clear(), stream.at = 0, stream.answered = false;
  for (const Place place : places) streams_[covered_++ % kStreams].todo.push_back(place);
  for (std::size_t n = 0; n < streams_.size(); ++n) step(n, round_);
}

void SourceDisks::step(std::size_t n, std::uint32_t round) {
  if (!in_round_ || round != round_) return;
  Stream& stream = streams_[n];
  if (stopped_) return break_round(Errc::aborted, "stopped");
  if (!world_.links.is_open(stream.connection, job_.host)) return break_round(Errc::peer_unreachable, "stream lost");
  Message message;
  message.round = round;
  if (stream.at == stream.todo.size()) {
    message.say = Say::round_end;
    return world_.links.send(stream.connection, job_.host, message);
  }
  const Place place = stream.todo[stream.at++];
  message.say = stage_ == Stage::compare ? Say::check : Say::extent;
  message.disk = place.disk;
  message.block = place.block;
  message.contents = world_.hosts[job_.host].volumes[place.disk].disk.read(place.block);
  world_.links.send(stream.connection, job_.host, message);
  world_.schedule.after(world_.random.between(20 * kMicrosecond, 300 * kMicrosecond),
                        &world_.hosts[job_.host].daemon_life, [this, n, round] { step(n, round); });
}

void SourceDisks::receive(std::uint32_t connection, const Message& message) {
  if (message.round != round_ || !in_round_) return;
  if (message.say == Say::differs) return differing_.push_back({message.disk, message.block});
  if (message.say != Say::round_end) return;
  bool all = true;
  for (auto& stream : streams_) {
    if (stream.connection == connection) stream.answered = true;
    all = all && (stream.answered || (world_.mutated(Mutation::round_ends_early) && stream.at == stream.todo.size()));
  }
  if (all) stage_over();
}

void SourceDisks::stage_over() {
  if (stage_ == Stage::copy) return end_round();
  world_.trace(job_.host, "{} blocks differ", differing_.size());
  begin_stage(Stage::copy, differing_);
}

void SourceDisks::connection_lost(std::uint32_t connection) {
  if (!in_round_) return;
  for (const auto& stream : streams_)
    if (stream.connection == connection) return break_round(Errc::peer_unreachable, "stream lost");
}

void SourceDisks::stop_copy() {
  stopped_ = true;
  if (in_round_) break_round(Errc::aborted, "stopped");
}

void SourceDisks::break_round(Errc code, const char* why) {
  in_round_ = false;
  failed(T::round_done, code, why);
}

void SourceDisks::end_round() {
  in_round_ = false;
  Signal signal{T::round_done};
  for (auto& volume : world_.hosts[job_.host].volumes) {
    volume.retired = 0;
    if (world_.mutated(Mutation::map_without_swap)) volume.live = 0;
    signal.residual_bytes += static_cast<std::uint64_t>(std::popcount(volume.live)) << 12;
  }
  signal.sent_bytes = static_cast<std::uint64_t>(covered_) << 12;
  signal.took = world_.schedule.now() - round_began_;
  world_.trace(job_.host, "round of {} blocks is over, {} dirty again", covered_, signal.residual_bytes >> 12);
  busy_ = false;
  job_.post(0, signal);
  next();
}

// A freeze is done when no write is in flight any more.
void SourceDisks::freeze_all(unsigned tries) {
  Host& host = world_.hosts[job_.host];
  unsigned in_flight = 0;
  for (const auto& volume : host.volumes) in_flight += volume.in_flight;
  if (tries == 0 && world_.fails(job_.host, "freeze")) tries = kDrainTicks, ++in_flight;
  if (in_flight == 0) return done(T::frozen);
  if (tries >= kDrainTicks) {
    thaw_all();
    return failed(T::frozen, Errc::timeout, "writes in flight did not end");
  }
  world_.schedule.after(kDrainTick, &host.daemon_life, [this, tries] { freeze_all(tries + 1); });
}

void SourceDisks::thaw_all() {
  Host& host = world_.hosts[job_.host];
  for (unsigned disk = 0; disk < kDisks; ++disk)
    if (host.volumes[disk].filter == Filter::frozen || host.volumes[disk].filter == Filter::fenced)
      world_.set_filter(job_.host, disk, Filter::tracking);
}

void SourceDisks::fence_all() {
  Host& host = world_.hosts[job_.host];
  if (world_.mutated(Mutation::fence_after_grant)) {
    world_.schedule.after(world_.random.between(5 * kMillisecond, 30 * kMillisecond), &host.daemon_life, [this] {
      for (unsigned disk = 0; disk < kDisks; ++disk) world_.set_filter(job_.host, disk, Filter::fenced);
    });
    thaw_all();
    return done(T::fenced);
  }
  const bool fails = world_.fails(job_.host, "fence");
  for (unsigned disk = 0; disk < kDisks; ++disk) {
    const bool may = host.volumes[disk].filter == Filter::frozen || world_.mutated(Mutation::freeze_skipped);
    if (!may || (fails && disk == 1)) {  // the freeze was lost, or the kernel said no
      thaw_all();
      return failed(T::fenced, Errc::io, "the fence did not close");
    }
    world_.set_filter(job_.host, disk, Filter::fenced);
  }
  done(T::fenced);
}

void SourceDisks::close() {
  for (auto& stream : streams_) world_.links.close(stream.connection, job_.host);
}

}  // namespace ferry::sim
