// SPDX-License-Identifier: GPL-2.0-or-later
#include "link.h"

#include <algorithm>

#include "daemon.h"
#include "world.h"

namespace ferry::sim {
namespace {

constexpr Time kNever = INT64_MAX;
// docs/protocol.md: a cut link is noticed within 15 seconds on both sides.
constexpr Time kNoticed = 15 * kSecond;
constexpr const char* kSay[] = {"prepare", "prepared", "close_gate", "ready?", "ready", "grant", "opened", "revoke",
                                "revoked", "return", "returned", "digests?", "digests", "finish", "finished", "abort",
                                "aborted", "error", "unknown", "extent", "check", "differs", "end_round"};

}  // namespace

const char* say_name(Say say) { return kSay[static_cast<unsigned>(say)]; }

bool Links::reachable() const {
  return up_ && world_.hosts[0].daemon_up && world_.hosts[1].daemon_up;
}

Time Links::latency() {
  Time time = world_.random.between(50 * kMicrosecond, 800 * kMicrosecond);
  if (world_.schedule.now() < slow_until_) time += world_.random.between(0, extra_);
  return time;
}

std::uint32_t Links::open(Purpose purpose, unsigned dialer, std::uint32_t session) {
  Connection connection;
  connection.purpose = purpose;
  connection.dialer = dialer;
  connection.session = session;
  connection.cut_at[0] = connection.cut_at[1] = kNever;
  list_.push_back(connection);
  return static_cast<std::uint32_t>(list_.size() - 1);
}

void Links::send(std::uint32_t id, unsigned from, Message message) {
  Connection& connection = list_[id];
  if (!connection.open[from]) return;
  const unsigned to = other(from);
  message.number = connection.sent[from]++;
  message.session = connection.session;
  const Time now = world_.schedule.now();
  const Time at = std::max(now + latency(), connection.last_arrival[to]);
  connection.last_arrival[to] = at;
  if (message.say != Say::extent && message.say != Say::check)
    world_.trace(from, "s{} says {}{}", connection.session, say_name(message.say),
                 at > connection.cut_at[to] ? " (lost)" : "");
  if (at > connection.cut_at[to]) return;
  world_.schedule.after(at - now, &world_.hosts[to].daemon_life,
                        [this, id, to, message] { deliver(id, to, message); });
  // A copy of a block that comes when its round, or its whole connection, is long over.
  if (message.say == Say::extent && world_.faults.duplicates() && world_.random.chance(30)) {
    const Time late = at - now + world_.random.between(kMillisecond, 400 * kMillisecond);
    world_.schedule.after(late, &world_.hosts[to].daemon_life,
                          [this, id, to, message] {
                            if (auto* daemon = world_.hosts[to].daemon.get()) daemon->duplicate(id, message);
                          });
  }
}

void Links::deliver(std::uint32_t id, unsigned to, const Message& message) {
  Connection& connection = list_[id];
  if (!connection.open[to] || world_.schedule.now() > connection.cut_at[to]) return;
  Host& host = world_.hosts[to];
  if (world_.schedule.now() < host.hung_until) {
    world_.schedule.after(host.hung_until - world_.schedule.now(), &host.daemon_life,
                          [this, id, to, message] { deliver(id, to, message); });
    return;
  }
  host.daemon->receive(id, message);
}

void Links::lost(std::uint32_t id, unsigned side) {
  Connection& connection = list_[id];
  if (!connection.open[side]) return;
  connection.open[side] = false;
  world_.hosts[side].daemon->connection_lost(id);
}

void Links::close(std::uint32_t id, unsigned from) {
  if (id == kNoConnection || !list_[id].open[from]) return;
  Connection& connection = list_[id];
  connection.open[from] = false;
  const unsigned to = other(from);
  const Time now = world_.schedule.now();
  const Time at = std::max(now + latency(), connection.last_arrival[to]);
  if (at > connection.cut_at[to]) return;  // that side will notice the cut
  world_.schedule.after(at - now, &world_.hosts[to].daemon_life, [this, id, to] { lost(id, to); });
}

void Links::break_one(std::uint32_t id, bool quickly) {
  Connection& connection = list_[id];
  const Time now = world_.schedule.now();
  for (unsigned side = 0; side < 2; ++side) {
    if (!connection.open[side]) continue;
    // What had come this far already is still read, sooner or later.
    const Time arrived = world_.random.chance(50) ? 0 : world_.random.between(0, 2 * kMillisecond);
    connection.cut_at[side] = std::min(connection.cut_at[side], now + arrived);
    const Time noticed = quickly ? world_.random.between(kMillisecond, 5 * kMillisecond)
                         : world_.random.chance(40) ? world_.random.between(arrived, 50 * kMillisecond)
                                                    : world_.random.between(arrived, kNoticed);
    world_.schedule.after(std::max(noticed, arrived), &world_.hosts[side].daemon_life,
                          [this, id, side] { lost(id, side); });
  }
}

void Links::cut(Time heals_after) {
  world_.trace(0, "=== the link is cut for {} ms", heals_after / kMillisecond);
  up_ = false;
  ++cuts_;
  world_.schedule.after(heals_after, &cuts_, [this] {
    up_ = true;
    world_.trace(0, "=== the link heals");
  });
  for (std::uint32_t id = 0; id < list_.size(); ++id)
    if (list_[id].open[0] || list_[id].open[1]) break_one(id, false);
  world_.libvirt.tunnel_broke();
}

void Links::break_all(unsigned dead_host, bool silent) {
  for (std::uint32_t id = 0; id < list_.size(); ++id) {
    list_[id].open[dead_host] = false;
    if (list_[id].open[other(dead_host)]) break_one(id, !silent);
  }
  world_.libvirt.tunnel_broke();
}

}  // namespace ferry::sim
