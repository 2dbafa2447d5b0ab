// SPDX-License-Identifier: GPL-2.0-or-later
#include "world.h"

#include <algorithm>

#include "daemon.h"

namespace ferry::sim {
namespace {

// A run with faults ends by then, wherever it stands; what is stuck has to get free in the calm that follows.
constexpr Time kStorm = 60 * kSecond;
// Longer than the longest wait that the machines have (ten minutes for a source that is gone).
constexpr Time kCalm = 13 * 60 * kSecond;

constexpr const char* kSeen[] = {"moved", "rolled back", "resolved: opened", "resolved: revoked", "returned",
                                 "return refused", "conceded", "source recovered", "taken back at start",
                                 "revoked at start", "answered from the record", "forced by the operator",
                                 "peer knows nothing", "ended in doubt", "moved back", "late grant", "both guests ran",
                                 "write held", "write refused", "torn block", "duplicate dropped",
                                 "restart needed", "stray event", "copy kept", "copies compared", "sent by the map",
                                 "kept copy removed", "came back to verify"};
static_assert(std::size(kSeen) == static_cast<std::size_t>(Seen::count));

}  // namespace

const char* seen_name(Seen seen) { return kSeen[static_cast<unsigned>(seen)]; }

World::World(const Options& given)
    : options(given), random(given.seed), links(*this), libvirt(*this), faults(*this), checker(*this) {}
World::~World() = default;

void World::violate(std::string what) {
  if (!outcome.violation.empty() || unguarded) return;
  outcome.violated_at = schedule.now();
  if (options.trace) print(0, "!!! " + what);
  outcome.violation = std::move(what);
}

void World::print(unsigned id, const std::string& line) {
  *options.trace << fmt::format("{:>12.3f} ms  {} {}{}\n", static_cast<double>(schedule.now()) / kMillisecond,
                                "ab"[id], id ? "                    | " : "| ", line);
}

bool World::point(unsigned id, const char* name) {
  if (hosts[id].dying || !hosts[id].powered) return false;
  faults.at_point(name);
  return !hosts[id].dying && hosts[id].powered;
}

bool World::fails(unsigned id, const char* name) {
  if (!faults.take_failure()) return false;
  trace(id, "=== {} fails", name);
  return true;
}

void World::begin() {
  faults.plan(random);
  migrations_left = 1 + random.below(3);
  image_metadata = random.chance(50);
  hosts[1].volumes_exist = random.chance(50);
  hosts[0].volumes_exist = hosts[0].defined = true;
  for (auto& host : hosts)
    for (auto& volume : host.volumes)
      for (unsigned block = 0; block < kBlocks; ++block) {
        ++versions;
        volume.disk.write(block, {versions, versions});
        volume.disk.end_flush(volume.disk.begin_flush());
      }
  if (!hosts[1].volumes_exist) hosts[1].volumes = {};
  for (unsigned id = 0; id < 2; ++id) start_daemon(id);
  start_guest(0);
  schedule.after(random.between(kMillisecond, 10 * kMillisecond), nullptr, [this] { start_migrations(); });
}

// The operator, or the cluster's manager: moves the guest, and starts it where it seems to belong.
void World::start_migrations() {
  if (ending) return;
  for (unsigned id = 0; id < 2; ++id) {
    Host& host = hosts[id];
    if (host.guest == std::nullopt && !libvirt.active() && random.chance(30)) start_guest(id);
    if (host.daemon_up && !host.dying && random.chance(3)) host.daemon->remove_kept();
    if (migrations_left == 0 || !host.daemon_up || host.dying || !host.daemon->migrate()) continue;
    --migrations_left;
    if (id == 1) saw(Seen::moved_back);
  }
  schedule.after(random.between(5 * kMillisecond, 100 * kMillisecond), nullptr, [this] { start_migrations(); });
}

bool World::run_until(Time until) {
  while (outcome.violation.empty() && schedule.step(until)) checker.step();
  return outcome.violation.empty();
}

bool World::at_rest() const {
  if (libvirt.active()) return false;
  for (const auto& host : hosts) {
    if (host.destroyed) continue;
    if (!host.daemon_up || host.dying || host.daemon->busy()) return false;
    if (host.guest && host.guest->state == GuestState::incoming) return false;
  }
  return true;
}

std::string World::unrest() const {
  std::string out;
  for (unsigned id = 0; id < 2; ++id) {
    const Host& host = hosts[id];
    if (!host.daemon_up) continue;
    if (auto* job = host.daemon->latest_outgoing(); job && !job->machine.ended())
      out += fmt::format(" source on {}: {}{};", "ab"[id], migration::state_name(job->machine.state()),
                         job->machine.error() ? " (" + job->machine.error()->what + ")" : "");
    if (auto* job = host.daemon->latest_incoming(); job && !job->machine.ended())
      out += fmt::format(" destination on {}: {};", "ab"[id], migration::state_name(job->machine.state()));
  }
  return out.empty() ? " something outside the machines" : out;
}

void World::heal() {
  ending = true;
  trace(0, "=== faults are over, everything comes back");
  faults.stop();
  libvirt.calm();
  links.heal();
  for (unsigned id = 0; id < 2; ++id) {
    if (!hosts[id].powered) boot(id);
    if (restart_wanted[id]) kill_daemon(id, kMillisecond);
  }
}

bool World::rests_within(Time limit) {
  const Time until = schedule.now() + limit;
  Time slice = kSecond;
  while (schedule.now() < until) {
    if (!run_until(std::min(until, schedule.now() + slice))) return false;
    if (at_rest()) return true;
    slice = std::min<Time>(slice * 2, 60 * kSecond);
  }
  return false;
}

// Does what the hints say: takes the disks back from a peer that is gone for good, or starts ferryd anew.
void World::operator_looks() {
  trace(0, "=== the operator looks:{}", unrest());
  for (unsigned id = 0; id < 2; ++id) {
    Host& host = hosts[id];
    if (!host.daemon_up) continue;
    auto* job = host.daemon->latest_outgoing();
    if (!job || job->machine.ended()) continue;
    if (!job->machine.error() || job->machine.error()->code != Errc::owner_unknown)
      violate("stuck without a named reason:" + unrest());
    if (hosts[other(id)].destroyed) {
      saw(Seen::forced);
      checker.forced(id);
      job->post(0, Signal{migration::SourceEventType::forced});
    } else {
      saw(Seen::restart_needed);
      host.daemon->shut_down();
      schedule.after(kSecond, &host.daemon_life, [this, id] { kill_daemon(id, kSecond); });
    }
  }
}

Outcome World::run() {
  begin();
  for (Time now = 0; now < kStorm && run_until(now + 50 * kMillisecond); now += 50 * kMillisecond)
    if (migrations_left == 0 && at_rest() && (faults.over() || random.chance(5))) break;
  if (outcome.violation.empty()) heal();
  if (outcome.violation.empty() && !rests_within(kCalm) && outcome.violation.empty()) {
    operator_looks();
    if (!rests_within(kCalm) && outcome.violation.empty() && !records_lost) violate("stuck:" + unrest());
  }
  // Lost records are the operator's doing; what follows from them has a name and is not judged further.
  if (outcome.violation.empty() && !records_lost) check_end();
  if (outcome.violation.empty() && !records_lost) check_usable();
  outcome.steps = schedule.steps();
  return outcome;
}

void World::check_end() {
  unsigned owners = 0;
  for (const auto& host : hosts)  // died with the only copy in doubt: nobody is left to say that it is lost
    if (host.destroyed && host.records.get() && host.records.get()->holding == store::Holding::granting) return;
  for (unsigned id = 0; id < 2; ++id)  // of a host that is gone for good the operator has said that it owns nothing
    owners += claims(id) && !(hosts[id].destroyed && checker.excused());
  if (owners == 2) return violate("at the end both hosts take themselves for the owner");
  if (owners == 0) return violate("at the end no host takes itself for the owner");
  for (unsigned id = 0; id < 2; ++id) {
    if (hosts[id].destroyed) continue;
    if (claims(id))
      check_owner(id);
    else
      check_other(id);
  }
}

void World::check_owner(unsigned id) {
  Host& host = hosts[id];
  if (!host.volumes_exist) return violate("at the end the owner's volumes are gone");
  const auto& record = host.records.get();
  for (const auto& volume : host.volumes)
    if (volume.filter != Filter::none && !(record && follows(*record, volume)))
      return violate(
          fmt::format("left behind: a volume of the owner, host {}, is {}", "ab"[id], filter_name(volume.filter)));
  libvirt.resume_if_paused(id);
  if (!host.guest) start_guest(id);
  if (!host.guest) return violate("at the end the guest cannot be started on the owner");
  checker.runs(id);
}

void World::check_other(unsigned id) {
  Host& host = hosts[id];
  if (host.guest)
    return violate(
        fmt::format("left behind: a copy of the guest on host {}, which does not own the disks", "ab"[id]));
  const auto& record = host.records.get();
  if (host.volumes_exist && record && record->created && !record->outgoing && !record->kept)
    return violate("left behind: volumes that were created for a migration that failed");
  if (!host.volumes_exist) return;
  for (const auto& volume : host.volumes) {
    if (volume.filter != Filter::none && volume.filter != Filter::fenced)
      return violate(fmt::format("left behind: a volume of host {} is {}", "ab"[id], filter_name(volume.filter)));
    if (record && (record->outgoing || record->kept) && volume.filter != Filter::fenced)
      return violate(fmt::format("the old volumes on host {} are not fenced", "ab"[id]));
  }
}

// Whatever has happened: the next migration, in calm weather, succeeds.
void World::check_usable() {
  if (hosts[0].destroyed || hosts[1].destroyed) return;
  const unsigned from = claims(0) ? 0 : 1;
  trace(from, "=== once more, without faults");
  if (!hosts[from].daemon->migrate()) return violate("at the end no migration can begin");
  if (!rests_within(kCalm)) {
    if (outcome.violation.empty()) violate("stuck without any fault:" + unrest());
    return;
  }
  const auto& machine = hosts[from].daemon->latest_outgoing()->machine;
  if (machine.state() != migration::SourceState::done)
    return violate("a migration after all faults are over fails: " + (machine.error() ? machine.error()->what : ""));
  check_end();
}

}  // namespace ferry::sim
