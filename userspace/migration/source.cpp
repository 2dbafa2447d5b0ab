// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/source.h"

#include <fmt/format.h>

#include <array>

namespace ferry::migration {
namespace {

using T = SourceEventType;
using S = SourceState;

constexpr std::array<std::string_view, 20> kStates{
    "idle",           "connecting",  "preparing",  "attaching", "precopy",      "switching", "paused",
    "freezing",       "final_round", "awaiting_ready", "fencing", "granting",   "completing",
    "verifying",      "finishing",   "rolling_back", "done",    "failed",       "aborted",   "in_doubt"};
static_assert(kStates.size() == static_cast<std::size_t>(S::in_doubt) + 1);

constexpr std::array<std::string_view, 23> kEvents{
    "start",        "connected",       "peer_prepared",    "attached", "round_done",
    "pace_timer",   "guest_paused",    "finish_seen",      "finish_cancelled", "frozen",
    "peer_ready",   "fenced",          "peer_opened",      "hypervisor_done",  "digests_taken",
    "peer_digests", "peer_finished",   "thawed",           "detached", "peer_aborted",
    "failed",       "link_lost",       "abort_requested"};
static_assert(kEvents.size() == static_cast<std::size_t>(T::abort_requested) + 1);

bool answered_by_peer(T step) {
  return step == T::connected || step == T::peer_prepared || step == T::peer_ready ||
         step == T::peer_opened;
}

Error error_of(const SourceEvent& event, std::string_view what) {
  if (event.error) return *event.error;
  return make_error(Errc::failed, std::string(what));
}

}  // namespace

std::string_view state_name(SourceState state) { return kStates[static_cast<std::size_t>(state)]; }
std::string_view event_name(SourceEventType type) { return kEvents[static_cast<std::size_t>(type)]; }

SourceEvent failure_of(SourceEventType step, Error error) {
  SourceEvent event{T::failed};
  event.error = std::move(error);
  event.instead_of = step;
  return event;
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
    case S::attaching:
      return on_setup(event);
    case S::precopy:
    case S::switching:
    case S::paused:
      return on_rounds(event);
    case S::freezing:
    case S::final_round:
    case S::awaiting_ready:
    case S::fencing:
    case S::granting:
      return on_final(event);
    case S::completing:
    case S::verifying:
    case S::finishing:
      return on_owned_by_peer(event);
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
  if (took(event, T::connected)) {
    link_up_ = true;
    peer_touched_ = true;
    enter(S::preparing);
    expect(T::peer_prepared);
    return ports_.link.prepare();
  }
  if (took(event, T::peer_prepared)) {
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
    return fail(error_of(event, "a step of the preparation failed"));
  }
  if (event.type == T::link_lost) {
    link_up_ = false;
    if (pending_ && answered_by_peer(*pending_)) pending_.reset();
    return fail(error_of(event, "the link to the peer broke"));
  }
  if (event.type == T::abort_requested)
    return fail(make_error(Errc::aborted, "the migration was aborted on request"));
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
      times_.paused = ports_.clock.now();
      enter(S::paused);
      ports_.link.close_gate();
      return next_step_while_paused();
    case T::finish_seen:
      finish_seen_ = true;
      times_.finish_seen = ports_.clock.now();
      if (state_ == S::switching) {  // the pause itself was not reported, but Finish implies it
        times_.paused = times_.finish_seen;
        enter(S::paused);
        ports_.link.close_gate();
      }
      return next_step_while_paused();
    case T::finish_cancelled:
      return ports_.log("the hypervisor calls its migration off");
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
      return fail(make_error(Errc::aborted, "the migration was aborted on request"));
    default:
      return;
  }
}

void Source::on_round_done(const SourceEvent& event) {
  if (state_ == S::paused) return next_step_while_paused();
  if (state_ == S::switching) return ports_.schedule(policy_.pace);
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

void Source::on_final(const SourceEvent& event) {
  if (took(event, T::frozen)) {
    frozen_ = true;
    times_.frozen = ports_.clock.now();
    enter(S::final_round);
    return start_round(RoundKind::dirty);
  }
  if (event.type == T::round_done && state_ == S::final_round) {
    round_running_ = false;
    enter(S::awaiting_ready);
    expect(T::peer_ready);
    return ports_.link.ask_ready();
  }
  if (took(event, T::peer_ready)) {
    enter(S::fencing);
    expect(T::fenced);
    return ports_.device.fence();
  }
  if (took(event, T::fenced)) {
    frozen_ = true;
    // Nothing was granted yet: the fence comes off again when there is nobody left to grant to.
    if (!link_up_)
      return fail(make_error(Errc::peer_unreachable, "the link to the peer broke before the hand-over"));
    if (!hypervisor_running_)
      return fail(make_error(Errc::failed, "the hypervisor gave up before the hand-over"));
    times_.granted = ports_.clock.now();
    enter(S::granting);
    expect(T::peer_opened);
    return ports_.link.grant();
  }
  if (took(event, T::peer_opened)) {
    times_.opened = ports_.clock.now();
    enter(S::completing);
    if (!hypervisor_running_)
      return handle({T::hypervisor_done, make_error(Errc::failed, "it gave up during the hand-over")});
    return ports_.hypervisor.release_finish();
  }
  switch (event.type) {
    case T::failed:
      if (event.instead_of == T::round_done) round_running_ = false;
      if (pending_ == event.instead_of) pending_.reset();
      if (state_ == S::granting)
        return link_lost_after_grant(error_of(event, "the peer did not confirm the hand-over"));
      return fail(error_of(event, "the last step of the copy failed"));
    case T::link_lost:
      link_up_ = false;
      if (state_ == S::granting)
        return link_lost_after_grant(error_of(event, "the link to the peer broke"));
      if (pending_ && answered_by_peer(*pending_)) pending_.reset();
      if (state_ == S::fencing) return;  // decided when the fence has answered
      return fail(error_of(event, "the link to the peer broke"));
    case T::hypervisor_done:
      hypervisor_running_ = false;
      if (state_ == S::granting || state_ == S::fencing) return;  // decided by the answer under way
      return fail(error_of(event, "the hypervisor ended its migration too early"));
    case T::abort_requested:
      if (state_ == S::fencing || state_ == S::granting)
        return ports_.log("too late to abort: the disks are being handed over");
      return fail(make_error(Errc::aborted, "the migration was aborted on request"));
    default:
      return;
  }
}

// The peer may own the disks or may not: this side stays fenced, whatever it costs.
void Source::link_lost_after_grant(const Error& error) {
  error_ = make_error(Errc::owner_unknown,
                      "the disks were granted to the destination and its answer is missing: " + error.message(),
                      0, "look at the destination: if the guest runs there, all is well; the source stays fenced");
  if (hypervisor_running_ && !refused_) {
    refused_ = true;
    ports_.hypervisor.refuse_finish();
  }
  end(S::in_doubt);
}

void Source::on_owned_by_peer(const SourceEvent& event) {
  switch (event.type) {
    case T::hypervisor_done:
      hypervisor_running_ = false;
      if (state_ != S::completing) return;
      if (event.error) {
        error_ = make_error(Errc::owner_unknown,
                            "the destination owns the disks, but its hypervisor did not report the guest running: " +
                                event.error->message(),
                            0, "look at the guest on the destination; the source stays fenced");
        return end(S::in_doubt);
      }
      enter(S::verifying);
      ports_.device.digest();
      return ports_.link.ask_digests();
    case T::digests_taken:
      own_digest_ = true;
      return try_compare();
    case T::peer_digests:
      peer_digest_ = true;
      return try_compare();
    case T::peer_finished:
      peer_finished_ = true;
      return try_end();
    case T::detached:
      left_ = true;
      return try_end();
    case T::link_lost:
      link_up_ = false;
      if (state_ == S::completing) return;  // the hypervisor's own answer decides
      note_cleanup(error_of(event, "the link to the peer broke after the switchover"));
      peer_finished_ = true;
      if (state_ == S::verifying) {
        enter(S::finishing);
        return ports_.device.leave_fenced();
      }
      return try_end();
    case T::failed:
      note_cleanup(error_of(event, "a step after the switchover failed"));
      if (event.instead_of == T::digests_taken || event.instead_of == T::peer_digests) {
        own_digest_ = peer_digest_ = true;
        return try_compare();
      }
      if (event.instead_of == T::peer_finished) peer_finished_ = true;
      if (event.instead_of == T::detached) left_ = true;
      return try_end();
    default:
      return;
  }
}

void Source::try_compare() {
  if (state_ != S::verifying || !own_digest_ || !peer_digest_) return;
  if (!error_ && !ports_.digests_equal())
    error_ = make_error(Errc::verify_mismatch, "the disks' digests differ between the two hosts", 0,
                        "the guest runs on the destination; keep the fenced source volumes and report this");
  enter(S::finishing);
  ports_.device.leave_fenced();
  if (link_up_) return ports_.link.finish();
  peer_finished_ = true;
}

void Source::try_end() {
  if (state_ == S::finishing && peer_finished_ && left_) end(error_ ? S::failed : S::done);
}

void Source::note_cleanup(const Error& error) {
  ports_.log("cleaning up: " + error.message());
  if (!error_)
    error_ = make_error(Errc::cleanup_incomplete, "the guest runs on the destination, but " + error.message(),
                        error.sys, error.hint);
}

void Source::fail(Error error) {
  ports_.log("rolling back: " + error.message());
  if (!error_) error_ = std::move(error);
  enter(S::rolling_back);
  if (round_running_) ports_.device.stop_copy();
  roll_back_next();
}

// One step after the other, the guest's I/O first. Each waits for what is still under way.
void Source::roll_back_next() {
  if (pending_) return;
  if (frozen_) {
    if (!awaiting_thaw_) {
      awaiting_thaw_ = true;
      ports_.device.thaw();
    }
    return;
  }
  if (hypervisor_running_) {
    if (!refused_) {
      refused_ = true;
      if (finish_seen_)
        ports_.hypervisor.refuse_finish();
      else
        ports_.hypervisor.abort();
    }
    return;
  }
  if (round_running_) return;
  if (attached_) {
    if (!awaiting_detach_) {
      awaiting_detach_ = true;
      ports_.device.detach();
    }
    return;
  }
  if (link_up_ && peer_touched_) {
    if (!awaiting_peer_abort_) {
      awaiting_peer_abort_ = true;
      ports_.link.abort();
    }
    return;
  }
  end(error_->code == Errc::aborted ? S::aborted : S::failed);
}

void Source::on_rolling_back(const SourceEvent& event) {
  const T step = event.type == T::failed ? event.instead_of : event.type;
  const bool went_well = event.type != T::failed;
  if (pending_ == step) {
    pending_.reset();
    // A step that was under way when things went wrong has to be taken back, too.
    if (went_well && step == T::attached) attached_ = true;
    if (went_well && (step == T::frozen || step == T::fenced)) frozen_ = true;
    if (went_well && step == T::connected) link_up_ = peer_touched_ = true;
    return roll_back_next();
  }
  switch (step) {
    case T::round_done:
      round_running_ = false;
      break;
    case T::finish_seen:
      finish_seen_ = true;
      if (hypervisor_running_) {  // called off meanwhile, yet it got this far
        refused_ = true;
        ports_.hypervisor.refuse_finish();
      }
      break;
    case T::hypervisor_done:
      hypervisor_running_ = false;
      break;
    case T::thawed:
      frozen_ = false;
      break;
    case T::detached:
      attached_ = false;
      if (!went_well && event.error) {
        error_->hint = "the filter is still in a volume of the source (" + event.error->message() +
                       "): remove it with migrate-ctl detach";
      }
      break;
    case T::peer_aborted:
      link_up_ = false;
      break;
    case T::link_lost:
      link_up_ = false;
      if (pending_ && answered_by_peer(*pending_)) pending_.reset();
      break;
    default:
      return;
  }
  roll_back_next();
}

void Source::end(SourceState state) {
  times_.ended = ports_.clock.now();
  enter(state);
}

}  // namespace ferry::migration
