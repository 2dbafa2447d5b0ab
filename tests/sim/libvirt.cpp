// SPDX-License-Identifier: GPL-2.0-or-later
#include "libvirt.h"

#include "daemon.h"
#include "world.h"

namespace ferry::sim {

using T = migration::SourceEventType;

namespace {

// Until libvirtd on the destination sees that its client is gone.
constexpr Time kNoticed = 15 * kSecond;
// A link that comes back within this time still settles who runs the guest.
constexpr Time kResolveTime = 60 * kSecond;

}  // namespace

void Libvirt::tell(Time delay, T type, const char* error) {
  Signal signal{type};
  if (error) signal.error(Errc::failed, error);
  if (auto* daemon = world_.hosts[from_].daemon.get())
    if (auto* job = daemon->outgoing(session_)) job->post(delay, signal);
}

void Libvirt::over() {
  stage_ = Stage::none;
  ++life_;
}

void Libvirt::start(unsigned from, std::uint32_t session) {
  over();
  from_ = from;
  session_ = session;
  stage_ = Stage::launching;
  world_.schedule.after(world_.random.between(kMillisecond, 5 * kMillisecond), &life_, [this] { launch(); });
}

void Libvirt::launch() {
  Host& there = world_.hosts[other(from_)];
  if (!world_.links.reachable() || there.guest || !there.volumes_exist || world_.fails(from_, "start of the migration"))
    return gives_up(0, false);
  there.guest.emplace();
  there.guest->copy = ++world_.copies;
  there.guest->state = GuestState::incoming;
  ++there.guest_life;
  world_.trace(other(from_), "libvirt: a guest waits for memory");
  stage_ = Stage::copying;
  world_.schedule.after(world_.random.between(2 * kMillisecond, 40 * kMillisecond), &life_, [this] { pause(); });
}

void Libvirt::pause() {
  Host& here = world_.hosts[from_];
  if (!here.guest || here.guest->state != GuestState::running) return gives_up(0, true);
  stage_ = Stage::pausing;
  here.guest->pausing = true;
  if (here.guest->under_way == 0) guest_stands_still(from_);
}

void Libvirt::guest_stands_still(unsigned host) {
  Guest& guest = *world_.hosts[host].guest;
  if (!guest.pausing) return;
  guest.pausing = false;
  guest.state = GuestState::paused;
  world_.trace(host, "libvirt: the guest stands still");
  if (stage_ == Stage::pausing && host == from_) paused();
}

void Libvirt::paused() {
  stage_ = Stage::paused;
  if (!world_.random.chance(5))  // an event may be missed: Finish says the same
    tell(world_.random.between(0, 2 * kMillisecond), T::guest_paused, nullptr);
  metadata_writes_ = world_.image_metadata ? world_.random.below(3) : 0;
  world_.schedule.after(world_.random.between(kMillisecond, 8 * kMillisecond), &life_, [this] { metadata_write(); });
}

void Libvirt::guest_ended(unsigned host) {
  if (stage_ == Stage::pausing && host == from_) gives_up(0, true);
}

// An image format writes when it is inactivated: after the guest's pause, before Finish.
void Libvirt::metadata_write() {
  Host& here = world_.hosts[from_];
  if (!here.guest) return gives_up(0, true);
  Guest& guest = *here.guest;
  if (metadata_writes_ > 0 && guest.under_way == 0) {
    --metadata_writes_;
    GuestWrite write{++world_.versions, guest.copy, static_cast<std::uint8_t>(world_.random.below(kDisks)),
                     static_cast<std::uint8_t>(world_.random.below(kBlocks))};
    guest.waiting[write.disk] |= 1u << write.block;
    ++guest.under_way;
    world_.trace(from_, "hypervisor: late write {} to {}:{}", write.version, write.disk, write.block);
    world_.submit(from_, write);
  } else if (guest.under_way == 0) {
    return hold();
  }
  world_.schedule.after(world_.random.between(kMillisecond, 3 * kMillisecond), &life_, [this] { metadata_write(); });
}

void Libvirt::hold() {
  Host& there = world_.hosts[other(from_)];
  if (!world_.links.reachable() || !there.guest || there.guest->state != GuestState::incoming) return gives_up(0, true);
  there.guest->view = world_.hosts[from_].guest->view;
  stage_ = Stage::held;
  world_.trace(from_, "libvirt: Finish is held");
  // An impatient operator resumes the guest by hand there; its writes have to wait at the gate.
  if (world_.mutated(Mutation::gate_left_open)) world_.run_guest(other(from_));
  tell(0, T::finish_seen, nullptr);
}

void Libvirt::release(unsigned from, std::uint32_t session) {
  if (stage_ == Stage::none) {  // of an earlier daemon: only the destination can tell
    from_ = from;
    session_ = session;
    stage_ = Stage::forwarding;
    ++life_;
    return ask_until_known();
  }
  stage_ = Stage::forwarding;
  forward();
}

void Libvirt::forward() {
  if (!world_.links.reachable()) return ask_until_known();
  world_.schedule.after(world_.links.latency(), &life_, [this] {
    if (!world_.links.reachable()) return ask_until_known();
    arrives(session_);
    if (!world_.hosts[other(from_)].guest) return not_started();
    if (std::exchange(lose_reply_, false)) {
      world_.trace(from_, "=== the reply of Finish is lost");
      return ask_until_known();
    }
    world_.schedule.after(world_.links.latency(), &life_, [this] { completed(); });
  });
}

void Libvirt::arrives(std::uint32_t session) {
  const unsigned to = other(from_);
  Host& there = world_.hosts[to];
  if (!there.guest || there.guest->state != GuestState::incoming || session != session_) return;
  if (std::exchange(fail_start_, false) || world_.fails(to, "start of the guest")) {
    world_.trace(to, "=== libvirt: the guest does not start");
    return world_.destroy_guest(to);
  }
  there.defined = true;
  stage_ = stage_ == Stage::none ? Stage::none : Stage::forwarded;
  world_.run_guest(to);
}

// Finish was forwarded, or may have been: asks the destination whether the guest runs there.
void Libvirt::ask_until_known() { ask(world_.schedule.now() + kResolveTime); }

void Libvirt::ask(Time deadline) {
  if (world_.links.reachable()) {
    const unsigned to = other(from_);
    Host& there = world_.hosts[to];
    if (there.guest && there.guest->state == GuestState::running) return completed();
    if (there.guest) world_.destroy_guest(to);
    return not_started();
  }
  if (world_.schedule.now() > deadline) return not_started();  // as far as anybody can see
  world_.schedule.after(world_.random.between(200 * kMillisecond, kSecond), &life_,
                        [this, deadline] { ask(deadline); });
}

void Libvirt::completed() {
  Host& here = world_.hosts[from_];
  if (here.guest) world_.destroy_guest(from_);
  here.defined = false;
  over();
  world_.trace(from_, "libvirt: the guest runs on the other host");
  tell(0, T::hypervisor_done, nullptr);
}

void Libvirt::not_started() {
  stage_ = Stage::held;
  tell(0, T::guest_not_started, "the guest did not start on the destination");
}

void Libvirt::drop_incoming(Time after) {
  const unsigned to = other(from_);
  Host& there = world_.hosts[to];
  if (!there.guest || there.guest->state != GuestState::incoming) return;
  world_.schedule.after(after, &there.guest_life, [this, to] {
    if (world_.hosts[to].guest->state == GuestState::incoming) world_.destroy_guest(to);
  });
}

// The migration fails as libvirt's own: the source's guest goes on.
void Libvirt::gives_up(Time after, bool destination_too) {
  if (destination_too)
    drop_incoming(world_.links.reachable() ? world_.links.latency() : world_.random.between(0, kNoticed));
  ++life_;
  world_.schedule.after(after, &life_, [this] {
    world_.trace(from_, "libvirt: the migration failed, the source's guest goes on");
    over();
    resume_if_paused(from_);
    tell(world_.random.between(0, 2 * kMillisecond), T::hypervisor_done, "libvirt's migration failed");
  });
}

void Libvirt::resume_if_paused(unsigned host) {
  auto& guest = world_.hosts[host].guest;
  if (!guest || guest->state == GuestState::incoming) return;
  if (guest->pausing || guest->state == GuestState::paused) world_.run_guest(host);
}

void Libvirt::abort(unsigned from, std::uint32_t session) {
  if (stage_ == Stage::none || session != session_) return;  // over: it has said so or will
  refuse(from, session);
}

void Libvirt::refuse(unsigned from, std::uint32_t session) {
  if (stage_ == Stage::none || session != session_) {
    from_ = from;
    session_ = session;
  }
  drop_incoming(world_.links.reachable() ? world_.links.latency() : world_.random.between(0, kNoticed));
  over();
  world_.schedule.after(world_.random.between(0, kMillisecond), &life_, [this] {
    resume_if_paused(from_);
    tell(0, T::hypervisor_done, "the migration was called off");
  });
}

void Libvirt::end_guest(unsigned from, std::uint32_t session) {
  from_ = from;
  session_ = session;
  over();
  if (world_.hosts[from].guest) world_.destroy_guest(from);
  world_.hosts[from].defined = false;
  tell(kMillisecond, T::hypervisor_done, "the guest was ended");
}

void Libvirt::tunnel_broke() {
  switch (stage_) {
    case Stage::launching:
    case Stage::copying:
    case Stage::pausing:
    case Stage::paused:
      return gives_up(world_.random.between(0, world_.random.chance(50) ? 20 * kMillisecond : kNoticed), true);
    case Stage::held:
      if (world_.random.chance(50)) drop_incoming(world_.random.between(0, kNoticed));
      return;
    case Stage::forwarded:  // its reply may have been under way
      ++life_;
      return ask_until_known();
    default:
      return;
  }
}

void Libvirt::daemon_died(unsigned host) {
  if (stage_ == Stage::none || host != from_) return;  // the destination's: its connections break
  const Stage stage = stage_;
  const auto session = session_;
  over();
  if (stage == Stage::forwarding && world_.random.chance(50) && world_.links.up()) {
    const unsigned to = other(from_);
    world_.schedule.after(world_.links.latency(), &world_.hosts[to].power, [this, session] { arrives(session); });
  } else if (stage != Stage::forwarded) {
    drop_incoming(world_.random.between(0, kNoticed));
  }
  // Before Finish libvirtd takes the migration back; after it, it may leave the guest standing still.
  if (stage < Stage::held || world_.random.chance(50))
    world_.schedule.after(world_.random.between(0, 200 * kMillisecond), &world_.hosts[host].guest_life,
                          [this, host] {
                            if (!active()) resume_if_paused(host);  // the next migration's pause is its own
                          });
}

void Libvirt::host_died(unsigned host) {
  if (stage_ == Stage::none) return;
  if (host != from_) return;
  const Stage stage = stage_;
  over();
  if (stage != Stage::forwarded) drop_incoming(world_.random.between(0, kNoticed));
}

void Libvirt::resumes_itself() {
  if (stage_ < Stage::paused) return;
  const Stage stage = stage_;
  const auto session = session_;
  world_.trace(from_, "=== libvirt resumes the source's guest by itself");
  over();
  if (stage == Stage::forwarding && world_.random.chance(50) && world_.links.up()) {
    const unsigned to = other(from_);
    world_.schedule.after(world_.links.latency(), &world_.hosts[to].power, [this, session] { arrives(session); });
  } else if (stage != Stage::forwarded) {
    drop_incoming(world_.random.between(0, kSecond));
  }
  resume_if_paused(from_);
  tell(world_.random.between(0, 300 * kMillisecond), T::hypervisor_done, "libvirt called its migration off");
}

}  // namespace ferry::sim
