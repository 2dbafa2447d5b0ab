// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/source.h"

#include <fmt/format.h>

#include <array>

#include "migration/source_steps.h"

namespace ferry::migration {
namespace {

using T = SourceEventType;
using S = SourceState;

constexpr std::array<std::string_view, 26> kStates{
    "idle",        "connecting",     "preparing", "claiming",   "attaching", "precopy",   "switching",
    "paused",      "freezing",       "final_round", "awaiting_ready", "fencing", "committing", "granting",
    "resolving",   "completing",     "returning", "reclaiming", "conceding", "verifying", "finishing",
    "rolling_back", "done",          "failed",    "aborted",    "in_doubt"};
static_assert(kStates.size() == static_cast<std::size_t>(S::in_doubt) + 1);

constexpr std::array<std::string_view, 34> kEvents{
    "start", "recover", "connected", "peer_prepared", "recorded", "attached", "round_done", "pace_timer",
    "standstill_over", "guest_paused", "finish_seen", "finish_cancelled", "frozen", "peer_ready", "fenced",
    "peer_opened", "peer_revoked", "peer_returned", "return_refused", "peer_unknown", "guest_not_started",
    "hypervisor_done", "digests_taken", "peer_digests", "peer_finished", "thawed", "detached", "peer_aborted",
    "patience_over", "failed", "link_lost", "abort_requested", "forced", "shut_down"};
static_assert(kEvents.size() == static_cast<std::size_t>(T::shut_down) + 1);

}  // namespace

std::string_view state_name(SourceState state) { return kStates[static_cast<std::size_t>(state)]; }
std::string_view event_name(SourceEventType type) { return kEvents[static_cast<std::size_t>(type)]; }

SourceEvent failure_of(SourceEventType step, Error error) {
  SourceEvent event{T::failed};
  event.error = std::move(error);
  event.instead_of = step;
  return event;
}

SourceEvent recorded_or(Status done) {
  if (done) return {T::recorded};
  return failure_of(T::recorded, std::move(done).error());
}

Source::Source(Ports ports, SourcePolicy policy)
    : ports_(std::move(ports)), policy_(policy), convergence_(policy.convergence) {}

bool Source::ended() const {
  return state_ == S::done || state_ == S::failed || state_ == S::aborted || state_ == S::in_doubt;
}

void Source::enter(SourceState next) {
  ports_.log(fmt::format("{} -> {}", state_name(state_), state_name(next)));
  state_ = next;
}

void Source::expect(T step) { pending_ = step; }

// True when `event` is the step the main chain waits for; the step is then over.
bool Source::took(const SourceEvent& event, T step) {
  if (event.type != step || pending_ != step) return false;
  pending_.reset();
  return true;
}

void Source::handle(const SourceEvent& event) {
  if (ended()) return;  // a late answer changes nothing any more
  switch (state_) {
    case S::idle:
    case S::connecting:
    case S::preparing:
    case S::claiming:
    case S::attaching:
      return on_setup(event);
    case S::precopy:
    case S::switching:
    case S::paused:
      return on_rounds(event);
    case S::freezing:
    case S::final_round:
    case S::awaiting_ready:
      return on_final(event);
    case S::fencing:
    case S::committing:
      return on_commit(event);
    case S::granting:
    case S::resolving:
      return on_granted(event);
    case S::completing:
      return on_completing(event);
    case S::returning:
      return on_returning(event);
    case S::reclaiming:
      return on_reclaiming(event);
    case S::conceding:
      return on_conceding(event);
    case S::verifying:
    case S::finishing:
      return on_verified(event);
    case S::rolling_back:
      return on_rolling_back(event);
    default:
      return;
  }
}

void Source::on_setup(const SourceEvent& event) {
  if (event.type == T::start && state_ == S::idle) {
    times_.started = ports_.clock.now();
    enter(S::connecting);
    expect(T::connected);
    return ports_.link.connect();
  }
  if (event.type == T::recover && state_ == S::idle) return recover();
  if (took(event, T::connected)) {
    link_up_ = true;
    peer_touched_ = true;
    enter(S::preparing);
    expect(T::peer_prepared);
    return ports_.link.prepare();
  }
  if (took(event, T::peer_prepared)) {
    enter(S::claiming);
    expect(T::recorded);
    return ports_.ledger.record(Holding::moving);
  }
  if (took(event, T::recorded)) {
    claimed_ = true;
    enter(S::attaching);
    expect(T::attached);
    return ports_.device.attach();
  }
  if (took(event, T::attached)) {
    attached_ = true;
    times_.precopy = ports_.clock.now();
    enter(S::precopy);
    return start_round(RoundKind::full);
  }
  if (event.type == T::failed) {
    if (pending_ == event.instead_of) pending_.reset();
    if (event.instead_of == T::recorded) claimed_ = true;  // it may have reached the disk all the same
    return fail(error_of(event, "a step of the preparation failed"));
  }
  if (event.type == T::link_lost) {
    link_up_ = false;
    return fail(error_of(event, "the link to the peer broke"));
  }
  if (event.type == T::peer_aborted) return called_off_there();
  if (event.type == T::abort_requested || event.type == T::shut_down)
    return fail(make_error(Errc::aborted, "the migration was aborted on request"));
}

// Nobody asked it to: its side of the session is over.
void Source::called_off_there() {
  link_up_ = false;
  fail(make_error(Errc::protocol, "the destination called the migration off", 0, "look at ferryd's log there"));
}

void Source::start_round(RoundKind kind) {
  ++rounds_;
  round_running_ = true;
  round_began_paused_ = state_ == S::paused;
  ports_.device.copy_round(kind);
}

void Source::on_rounds(const SourceEvent& event) {
  switch (event.type) {
    case T::round_done:
      round_running_ = false;
      if (round_began_paused_) soft_round_done_ = true;
      return on_round_done(event);
    case T::pace_timer:
      if (state_ == S::switching && !round_running_) start_round(RoundKind::dirty);
      return;
    case T::guest_paused:
      if (state_ != S::switching) return;  // paused by somebody else: the rounds do not care
      guest_stands_still();
      return next_step_while_paused();
    case T::finish_seen:
      finish_seen_ = true;
      times_.finish_seen = ports_.clock.now();
      if (state_ == S::switching) guest_stands_still();  // its pause was not reported, but Finish implies it
      return next_step_while_paused();
    case T::standstill_over:
      return stood_too_long();
    case T::finish_cancelled:
      return ports_.log("the hypervisor calls its migration off");
    case T::guest_not_started:
      return fail(error_of(event, "the hypervisor cannot run the guest on the destination"));
    case T::peer_aborted:
      return called_off_there();
    case T::hypervisor_done:
      hypervisor_running_ = false;
      return fail(event.error ? *event.error
                              : make_error(Errc::failed,
                                           "the hypervisor ended its migration without asking for the disks"));
    case T::failed:
      if (event.instead_of == T::round_done) round_running_ = false;
      return fail(error_of(event, "a copy round failed"));
    case T::link_lost:
      link_up_ = false;
      return fail(error_of(event, "the link to the peer broke"));
    case T::abort_requested:
    case T::shut_down:
      return fail(make_error(Errc::aborted, "the migration was aborted on request"));
    default:
      return;
  }
}

void Source::on_round_done(const SourceEvent& event) {
  if (state_ == S::paused) return next_step_while_paused();
  if (state_ == S::switching) return ports_.schedule(policy_.pace, T::pace_timer);
  const Verdict verdict = convergence_.observe(event.round);
  ports_.log(fmt::format("round {}: {}", rounds_, convergence_.reason()));
  switch (verdict) {
    case Verdict::another_round:
      return start_round(RoundKind::dirty);
    case Verdict::give_up:
      return fail(make_error(Errc::not_converged, convergence_.reason(), 0,
                             "let the guest write less, give the link more, or allow a longer downtime"));
    case Verdict::switch_over:
      times_.switching = ports_.clock.now();
      enter(S::switching);
      hypervisor_running_ = true;
      ports_.hypervisor.start();
      return start_round(RoundKind::dirty);
  }
}

void Source::guest_stands_still() {
  times_.paused = ports_.clock.now();
  enter(S::paused);
  ports_.schedule(policy_.standstill, T::standstill_over);
  ports_.link.close_gate();
}

// Nothing is granted: a destination that is slow, or stands still itself, must not keep the guest from its work.
void Source::stood_too_long() {
  fail(make_error(Errc::timeout, fmt::format("the guest stood still for {} s and the disks were not handed over ({})",
                                             policy_.standstill / std::chrono::seconds(1), state_name(state_)),
                  0, "look at the load of both hosts' disks and of the link, and at ferryd's log on the destination"));
}

// The guest stands still, but its hypervisor may still write (an image format's metadata): copy what is
// left without a freeze, and freeze only when Finish proves that the source's hypervisor is done.
void Source::next_step_while_paused() {
  if (round_running_) return;
  if (!soft_round_done_) return start_round(RoundKind::dirty);
  if (!finish_seen_) return;
  enter(S::freezing);
  expect(T::frozen);
  ports_.device.freeze();
}

void Source::end(SourceState state) {
  times_.ended = ports_.clock.now();
  enter(state);
}

}  // namespace ferry::migration
