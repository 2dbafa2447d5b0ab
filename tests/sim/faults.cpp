// SPDX-License-Identifier: GPL-2.0-or-later
#include "faults.h"

#include <algorithm>

#include "daemon.h"
#include "world.h"

namespace ferry::sim {
namespace {

// A migration without faults has about so many points; later ones hit its repetition.
constexpr std::int64_t kPoints = 130;
// Faults that follow each other closely are what nobody has thought of.
constexpr std::int64_t kClose = 12;

constexpr const char* kNames[] = {"crash of the daemon",
                                  "loss of power",
                                  "cut link",
                                  "slow link",
                                  "hanging daemon",
                                  "failing step",
                                  "libvirt resumes by itself",
                                  "guest does not start",
                                  "lost reply",
                                  "guest crash",
                                  "operator starts the guest",
                                  "abort",
                                  "stop of the daemon",
                                  "lost records",
                                  "host destroyed",
                                  "stray event"};

// How often each kind is drawn.
constexpr std::uint8_t kWeights[] = {20, 14, 18, 5, 5, 16, 6, 4, 4, 3, 3, 3, 4, 1, 2, 4};
static_assert(std::size(kWeights) == static_cast<std::size_t>(FaultKind::count));

FaultKind draw(Random& random) {
  unsigned sum = 0;
  for (const auto weight : kWeights) sum += weight;
  std::uint32_t at = random.below(sum);
  for (std::size_t n = 0; n < std::size(kWeights); ++n) {
    if (at < kWeights[n]) return static_cast<FaultKind>(n);
    at -= kWeights[n];
  }
  return FaultKind::crash;
}

Time length_of(FaultKind kind, Random& random) {
  switch (kind) {
    case FaultKind::hang:
      return random.chance(10) ? random.between(60 * kSecond, 90 * kSecond) : random.between(kMillisecond, 2 * kSecond);
    case FaultKind::cut_link:
      return random.chance(50) ? random.between(kMillisecond, 500 * kMillisecond)
                               : random.between(kSecond, 40 * kSecond);
    case FaultKind::slow_link:
      return random.between(10 * kMillisecond, kSecond);
    case FaultKind::power_off:
      return random.between(200 * kMillisecond, 30 * kSecond);
    default:
      return random.chance(60) ? random.between(kMillisecond, 300 * kMillisecond)
                               : random.between(kSecond, 20 * kSecond);
  }
}

}  // namespace

const char* fault_name(FaultKind kind) { return kNames[static_cast<unsigned>(kind)]; }

void Faults::plan(Random& random) {
  const std::uint32_t how_many = random.chance(10) ? 0 : 1 + random.below(random.chance(70) ? 3 : 6);
  bool destroys = false;
  for (std::uint32_t n = 0; n < how_many; ++n) {
    Fault fault;
    fault.kind = draw(random);
    if (fault.kind == FaultKind::destroy && std::exchange(destroys, true)) fault.kind = FaultKind::crash;
    const bool close = n > 0 && random.chance(50);
    fault.at = close ? plan_.back().at + static_cast<std::uint32_t>(random.between(0, kClose))
                     : static_cast<std::uint32_t>(random.between(1, kPoints * (random.chance(80) ? 1 : 3)));
    fault.host = static_cast<std::uint8_t>(random.below(2));
    fault.length = length_of(fault.kind, random);
    plan_.push_back(fault);
  }
  std::stable_sort(plan_.begin(), plan_.end(), [](const Fault& a, const Fault& b) { return a.at < b.at; });
  duplicates_ = random.chance(30);
}

void Faults::at_point(const char* name) {
  ++points_;
  while (next_ < plan_.size() && plan_[next_].at <= points_) apply(plan_[next_++], name);
}

bool Faults::take_failure() {
  if (failures_ == 0) return false;
  --failures_;
  return true;
}

void Faults::apply(const Fault& fault, const char* point) {
  Host& host = world_.hosts[fault.host];
  world_.trace(fault.host, "=== fault: {}, before \"{}\"{}", fault_name(fault.kind), point,
               host.powered ? "" : " (no power: nothing)");
  if (!host.powered) return;
  switch (fault.kind) {
    case FaultKind::crash:
      if (!host.daemon_up || host.dying) return;
      host.dying = true;
      return world_.schedule.after(0, &host.daemon_life,
                                   [w = &world_, h = fault.host, t = fault.length] { w->kill_daemon(h, t); });
    case FaultKind::power_off:
    case FaultKind::destroy:
      host.dying = true;
      return world_.schedule.after(0, &host.power, [w = &world_, fault] {
        w->hosts[fault.host].destroyed = fault.kind == FaultKind::destroy;
        w->power_off(fault.host, fault.length);
      });
    case FaultKind::cut_link:
      return world_.schedule.after(0, nullptr, [w = &world_, t = fault.length] { w->links.cut(t); });
    case FaultKind::slow_link:
      return world_.links.slow(fault.length / 4, world_.schedule.now() + fault.length);
    case FaultKind::hang:
      host.hung_until = world_.schedule.now() + fault.length;
      return;
    case FaultKind::fail_step:
      ++failures_;
      return;
    case FaultKind::lose_records:  // only an operator who deletes them can do this
      if (!host.daemon_up || host.dying) return;
      host.dying = true;
      return world_.schedule.after(0, &host.power, [w = &world_, h = fault.host, t = fault.length] {
        w->hosts[h].records.lose();
        w->records_lost = true;
        w->kill_daemon(h, t);
      });
    default:
      return apply_to_guest(fault);
  }
}

void Faults::apply_to_guest(const Fault& fault) {
  Host& host = world_.hosts[fault.host];
  const auto later = [this](Task task) { world_.schedule.after(0, nullptr, task); };
  switch (fault.kind) {
    case FaultKind::resume_itself:
      return later([w = &world_] { w->libvirt.resumes_itself(); });
    case FaultKind::no_start:
      return world_.libvirt.fail_start();
    case FaultKind::lose_reply:
      return world_.libvirt.lose_reply();
    case FaultKind::guest_crash:
      return later([w = &world_, h = fault.host] {
        if (w->hosts[h].guest && w->hosts[h].guest->state == GuestState::running) w->destroy_guest(h);
      });
    case FaultKind::operator_start:
      return later([w = &world_, h = fault.host] { w->start_guest(h); });
    case FaultKind::abort:
      if (host.daemon_up)
        if (auto* job = host.daemon->latest_outgoing())
          job->post(0, Signal{migration::SourceEventType::abort_requested});
      return;
    case FaultKind::shut_down:  // what has not ended by then is killed, as systemd does
      if (!host.daemon_up) return;
      host.daemon->shut_down();
      return world_.schedule.after(500 * kMillisecond, &host.daemon_life,
                                   [w = &world_, h = fault.host, t = fault.length] { w->kill_daemon(h, t); });
    case FaultKind::stray:
      return later([this, h = fault.host] { stray(h); });
    default:
      return;
  }
}

// An event that has no business there: a question out of turn, an answer that comes twice.
void Faults::stray(unsigned id) {
  Host& host = world_.hosts[id];
  if (!host.daemon_up || host.dying) return;
  using S = migration::SourceEventType;
  using D = migration::DestinationEventType;
  constexpr S kToSource[] = {S::connected,    S::attached,         S::round_done, S::pace_timer,
                             S::guest_paused, S::finish_cancelled, S::thawed,     S::detached,
                             S::peer_aborted, S::digests_taken,    S::start};
  // Not abort and return: the source's word on what it wants is no stray, whenever it comes.
  constexpr D kToDestination[] = {D::prepare, D::close_gate, D::ready_asked, D::digests_asked, D::finish_asked,
                                  D::patience_over, D::link_back};
  world_.saw(Seen::stray);
  if (auto* job = host.daemon->latest_outgoing()) {
    const S type = kToSource[world_.random.below(std::size(kToSource))];
    const auto state = job->machine.state();
    // Where an answer is awaited it is no stray but a lie.
    using State = migration::SourceState;
    if (state == State::granting || state == State::resolving || state == State::completing ||
        state == State::conceding || state == State::fencing || state == State::committing)
      job->post(0, Signal{type});
  }
  if (auto* job = host.daemon->latest_incoming()) {
    const D type = kToDestination[world_.random.below(std::size(kToDestination))];
    world_.trace(id, "s{} destination gets a stray {}", job->session, migration::event_name(type));
    job->post({type});
  }
}

}  // namespace ferry::sim
