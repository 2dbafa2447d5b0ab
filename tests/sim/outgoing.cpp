// SPDX-License-Identifier: GPL-2.0-or-later
#include "outgoing.h"

#include "daemon.h"
#include "world.h"

namespace ferry::sim {

using T = migration::SourceEventType;
using S = migration::SourceState;

namespace {

migration::SourcePolicy policy_of(World& world) {
  migration::SourcePolicy policy;
  policy.convergence.max_downtime = std::chrono::microseconds(world.random.between(300, 3000));
  policy.convergence.memory_bytes = 0;
  policy.standstill = std::chrono::nanoseconds(world.mutated(Mutation::patient_source) ? 100 * kStandstill : kStandstill);
  policy.patience = std::chrono::seconds(5);
  policy.pace = std::chrono::milliseconds(world.random.between(1, 10));
  return policy;
}

}  // namespace

migration::SourceEvent Signal::event() const {
  migration::SourceEvent out{type};
  if (has_error) out.error = make_error(code, what);
  out.instead_of = instead_of;
  out.round = {sent_bytes, std::chrono::nanoseconds(took), residual_bytes};
  return out;
}

Outgoing::Outgoing(World& world, unsigned host_id, std::uint32_t session_id, std::uint64_t base_generation,
                   bool recovering)
    : host(host_id),
      session(session_id),
      base(base_generation),
      recovers(recovering),
      world_(world),
      disks(world, *this),
      peer(world, *this),
      ledger(world, host_id, {session_id, base_generation, true, recovering, false, {}}, *this),
      machine({*this, disks, peer, *this, ledger,
               [this](migration::Duration pause, T due) { post(pause.count(), Signal{due}); },
               [this] {
                 if (peer.digests_equal()) ledger.set_verified(disks.digest_taken());
                 return peer.digests_equal();
               },
               [this](const std::string& line) { world_.trace(host, "s{} source: {}", session, line); }},
              policy_of(world)) {}

void Outgoing::plan(std::uint32_t follower_, bool keep_) {
  follower = follower_;
  keep = keep_;
  ledger.set_tracker(follower);
}

void Outgoing::post(Time delay, const Signal& signal) {
  world_.schedule.after(delay, &world_.hosts[host].daemon_life, [this, signal] { handle(signal); });
}

void Outgoing::handle(const Signal& signal) {
  Host& here = world_.hosts[host];
  if (world_.schedule.now() < here.hung_until) return post(here.hung_until - world_.schedule.now(), signal);
  if (machine.ended() || !world_.point(host, migration::event_name(signal.type).data())) return;
  if (signal.type == T::attached) ledger.set_tracker(0);
  const S before = machine.state();
  machine.handle(signal.event());
  const S after = machine.state();
  if (before == S::resolving && signal.type == T::peer_opened) world_.saw(Seen::resolved_opened);
  if (before == S::resolving && signal.type == T::peer_revoked) world_.saw(Seen::resolved_revoked);
  if (before == S::verifying && signal.type == T::peer_opened) world_.saw(Seen::came_back);
  if (signal.type == T::peer_returned) world_.saw(Seen::returned);
  if (signal.type == T::return_refused) world_.saw(Seen::return_refused);
  if (signal.type == T::peer_unknown) world_.saw(Seen::peer_unknown);
  if (after == S::conceding && before != after) world_.saw(Seen::conceded);
  if (!machine.ended() || closed_) return;
  closed_ = true;
  world_.trace(host, "s{} source ended: {}{}", session, migration::state_name(after),
               machine.error() ? " (" + machine.error()->what + ")" : "");
  if (machine.error() && machine.error()->code == Errc::verify_mismatch)
    world_.violate("false alarm: the digests of a good copy differ");
  if (after == S::done) world_.saw(Seen::moved);
  if (after == S::failed || after == S::aborted) world_.saw(Seen::rolled_back);
  if (after == S::in_doubt) world_.saw(Seen::in_doubt);
  disks.close();
  peer.close();
}

void Outgoing::recorded(bool went_well) {
  if (went_well) return post(0, Signal{T::recorded});
  post(0, Signal{T::failed}.error(Errc::io, "the record was not written").step(T::recorded));
}

void Outgoing::start() {
  if (world_.point(host, "hypervisor.start")) world_.libvirt.start(host, session);
}
void Outgoing::abort() {
  if (!world_.point(host, "hypervisor.abort")) return;
  if (world_.libvirt.active()) return world_.libvirt.abort(host, session);
  if (recovers) world_.libvirt.refuse(host, session);
}
void Outgoing::release_finish() {
  // libvirt may have given up meanwhile; it says so by itself.
  if (!world_.point(host, "hypervisor.release_finish")) return;
  if (recovers)  // its client is gone; whether the guest runs there is said when the disks are asked back
    return post(kMillisecond, Signal{T::guest_not_started}.error(Errc::failed, "ferryd was started anew"));
  if (world_.libvirt.active()) world_.libvirt.release(host, session);
}
void Outgoing::refuse_finish() {
  if (!world_.point(host, "hypervisor.refuse_finish")) return;
  if (world_.libvirt.active() || recovers) world_.libvirt.refuse(host, session);
}
void Outgoing::end_guest() {
  if (world_.point(host, "hypervisor.end_guest")) world_.libvirt.end_guest(host, session);
}

migration::TimePoint Outgoing::now() const {
  return migration::TimePoint(std::chrono::nanoseconds(world_.schedule.now()));
}

}  // namespace ferry::sim
