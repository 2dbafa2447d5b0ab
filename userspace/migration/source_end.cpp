// SPDX-License-Identifier: GPL-2.0-or-later
// Source, third part: verification after a hand-over, or everything taken back.
#include "migration/source.h"
#include "migration/source_steps.h"

namespace ferry::migration {

using T = SourceEventType;
using S = SourceState;

void Source::verify() {
  enter(S::verifying);
  ports_.device.digest();
  if (!link_up_) return come_back();
  ports_.link.ask_digests();
}

// The destination has said that the disks are its own, and says it again: to ask who owns them changes nothing, and is
// the question that finds its way over new connections.
void Source::come_back() {
  ports_.log("the link to the peer broke before the copy was verified: looking for the peer");
  ++comeback_timers_;
  ports_.schedule(policy_.comeback, T::patience_over);
  ports_.link.revoke();
}

void Source::on_verified(const SourceEvent& event) {
  const T step = event.type == T::failed ? event.instead_of : event.type;
  if (event.type == T::failed && step != T::recorded)
    note_cleanup(error_of(event, "a step after the switchover failed"));
  switch (step) {
    case T::digests_taken:
    case T::peer_digests:
      (step == T::digests_taken ? own_digest_ : peer_digest_) = true;
      // Without one of them there is nothing to compare with.
      if (event.type == T::failed && state_ == S::verifying) return leave();
      return try_compare();
    case T::recorded:
      // Without this record the next start asks the peer once more: no harm.
      if (event.type == T::failed) ports_.log(error_of(event, "cannot record the end").message());
      conceded_ = true;
      return try_end();
    case T::peer_finished:
      peer_finished_ = true;
      return try_end();
    case T::detached:
      left_ = true;
      return try_end();
    case T::link_lost: {
      const bool was_up = std::exchange(link_up_, false);
      if (state_ == S::verifying) return was_up ? come_back() : void();  // or it is being looked for
      if (peer_finished_) return;
      peer_finished_ = true;
      note_cleanup(error_of(event, "the link to the peer broke after the switchover"));
      return try_end();
    }
    case T::peer_opened:
      if (event.type == T::failed || state_ != S::verifying || link_up_) return;
      link_up_ = true;
      if (peer_digest_) return try_compare();
      return ports_.link.ask_digests();
    case T::patience_over:
      if (comeback_timers_ == 0 || --comeback_timers_ > 0) return;
      if (state_ == S::finishing) return end_without_peer("the destination did not confirm the end");
      if (link_up_) return;
      if (peer_digest_) return try_compare();  // nothing is missing but the end
      note_cleanup(make_error(Errc::peer_unreachable, "the link to the peer broke before the copy was verified"));
      return leave();
    case T::shut_down:
      if (state_ == S::finishing) return end_without_peer("ferryd was stopped before the destination confirmed the end");
      note_cleanup(make_error(Errc::aborted, "ferryd was stopped before the copy was verified"));
      return leave();
    default:
      return;
  }
}

void Source::try_compare() {
  if (state_ != S::verifying || !own_digest_ || !peer_digest_) return;
  if (!error_ && !ports_.digests_equal())
    error_ = make_error(Errc::verify_mismatch, "the disks' digests differ between the two hosts", 0,
                        "the guest runs on the destination; keep the fenced source volumes and report this");
  if (link_up_ || comeback_timers_ == 0) leave();
}

void Source::leave() {
  if (state_ == S::verifying && !own_digest_) ports_.device.stop_copy();  // nothing to compare it with
  enter(S::finishing);
  ports_.ledger.record(Holding::given);
  ports_.device.leave_fenced();
  if (link_up_) {
    // A destination that hangs keeps its link.
    ++comeback_timers_;
    ports_.schedule(policy_.comeback, T::patience_over);
    return ports_.link.finish();
  }
  note_cleanup(make_error(Errc::peer_unreachable, "the link to the peer broke before it confirmed the end"));
  peer_finished_ = true;
}

void Source::end_without_peer(const char* why) {
  if (peer_finished_) return;
  peer_finished_ = true;
  note_cleanup(make_error(Errc::timeout, why, 0, "look at ferryd's log there"));
  try_end();
}

void Source::try_end() {
  if (state_ == S::finishing && peer_finished_ && left_ && conceded_) end(error_ ? S::failed : S::done);
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
  // A peer that hangs would otherwise hold up the guest as well. What it answers late is no answer any more.
  if (pending_ == T::peer_prepared || pending_ == T::peer_ready) pending_.reset();
  enter(S::rolling_back);
  if (round_running_) ports_.device.stop_copy();
  roll_back_next();
}

// One step after the other, the guest's I/O first. Each waits for what is still under way.
void Source::roll_back_next() {
  if (pending_) return;
  if (frozen_) {
    if (!std::exchange(awaiting_thaw_, true)) ports_.device.thaw();
    return;
  }
  if (hypervisor_running_) {
    if (std::exchange(refused_, true)) return;
    if (finish_seen_) return ports_.hypervisor.refuse_finish();
    return ports_.hypervisor.abort();
  }
  if (round_running_) return;
  if (attached_) {
    if (!std::exchange(awaiting_detach_, true)) ports_.device.detach();
    return;
  }
  if (claimed_) {
    if (!std::exchange(awaiting_record_, true)) ports_.ledger.record(Holding::owned);
    return;
  }
  if (link_up_ && peer_touched_) {
    if (std::exchange(awaiting_peer_abort_, true)) return;
    ports_.schedule(policy_.patience, T::patience_over);
    return ports_.link.abort();
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
    if (went_well && step == T::frozen) frozen_ = true;
    if (step == T::recorded) claimed_ = true;
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
      if (!went_well && event.error)
        error_->hint = "writes to a volume of the source are still refused (" + event.error->message() +
                       "): see migrate-ctl own; migrate-ctl own --force opens it again";
      break;
    case T::detached:
      attached_ = false;
      if (!went_well && event.error) {
        error_->hint = "the filter is still in a volume of the source (" + event.error->message() +
                       "): remove it with migrate-ctl detach";
      }
      break;
    case T::recorded:
      claimed_ = false;  // left as "moving", which a restart takes for what it is: this host's
      break;
    case T::patience_over:
      ports_.log("the destination has not said that it took its part back; it will, by itself");
      link_up_ = false;
      break;
    case T::peer_aborted:
    case T::link_lost:
      link_up_ = false;
      break;
    default:
      return;
  }
  roll_back_next();
}

}  // namespace ferry::migration
