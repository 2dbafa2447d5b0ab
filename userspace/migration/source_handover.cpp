// SPDX-License-Identifier: GPL-2.0-or-later
// Source, second part: the disks change hands, or come back. docs/ownership.md draws it.
#include "migration/source.h"
#include "migration/source_steps.h"

namespace ferry::migration {

using T = SourceEventType;
using S = SourceState;

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
  switch (event.type) {
    case T::failed:
      if (event.instead_of == T::round_done) round_running_ = false;
      if (pending_ == event.instead_of) pending_.reset();
      return fail(error_of(event, "the last step of the copy failed"));
    case T::guest_not_started:
      return fail(error_of(event, "the hypervisor cannot run the guest on the destination"));
    case T::peer_aborted:
      return called_off_there();
    case T::link_lost:
      link_up_ = false;
      return fail(error_of(event, "the link to the peer broke"));
    case T::standstill_over:
      return stood_too_long();
    case T::hypervisor_done:
      hypervisor_running_ = false;
      return fail(error_of(event, "the hypervisor ended its migration too early"));
    case T::abort_requested:
    case T::shut_down:
      return fail(make_error(Errc::aborted, "the migration was aborted on request"));
    default:
      return;
  }
}

// The fence, then its record, then the grant. Until the grant is sent nothing but this side's own word
// stands in the way of going back, so whatever went wrong meanwhile is looked at between the steps.
void Source::on_commit(const SourceEvent& event) {
  const auto trouble = [this]() -> std::optional<Error> {
    if (!link_up_) return make_error(Errc::peer_unreachable, "the link to the peer broke before the hand-over");
    if (!hypervisor_running_) return make_error(Errc::failed, "the hypervisor gave up before the hand-over");
    return std::nullopt;
  };
  if (took(event, T::fenced)) {
    if (auto why = trouble()) return fail(std::move(*why));
    enter(S::committing);
    expect(T::recorded);
    return ports_.ledger.record(Holding::granting);
  }
  if (took(event, T::recorded)) {
    if (auto why = trouble()) return reclaim(std::move(*why));
    times_.granted = ports_.clock.now();
    owner_ = SourceOwner::unknown;
    enter(S::granting);
    return ports_.link.grant();
  }
  switch (event.type) {
    case T::failed:
      if (pending_ != event.instead_of) return;
      pending_.reset();
      if (event.instead_of == T::fenced) return fail(error_of(event, "the disks could not be fenced"));
      return reclaim(error_of(event, "the hand-over could not be put on record"));
    case T::link_lost:
      link_up_ = false;
      return;
    case T::hypervisor_done:
      hypervisor_running_ = false;
      return;
    case T::abort_requested:
      return ports_.log("too late to abort: the disks are being handed over");
    default:
      return;
  }
}

// Granted: only the peer's word decides now, or the operator's.
void Source::on_granted(const SourceEvent& event) {
  switch (event.type) {
    case T::peer_opened:
      return opened_there();
    case T::peer_revoked:
    case T::peer_returned:
      link_up_ = false;  // the peer ends its side of the session by itself
      return reclaim(make_error(Errc::peer_unreachable, "the link to the peer broke before it took the disks over"));
    case T::failed:
      if (state_ != S::granting || event.instead_of != T::peer_opened) return;
      return resolve(error_of(event, "the peer did not confirm the hand-over"));
    case T::link_lost:
      link_up_ = false;
      if (state_ == S::granting) resolve(error_of(event, "the link to the peer broke"));
      return;
    case T::peer_unknown:
      error_ = make_error(Errc::owner_unknown,
                          "the disks were granted to the destination, and it remembers nothing of them", 0,
                          "if its records are lost for good and the guest surely does not run there: migrate-ctl own --force");
      return ports_.log(error_->what);
    case T::hypervisor_done:
      hypervisor_running_ = false;
      return;
    case T::forced:
      return reclaim(make_error(Errc::failed, "the operator took the disks back while their owner was unknown"));
    case T::abort_requested:
      return ports_.log("too late to abort: the disks were handed over");
    case T::shut_down:
      return end(S::in_doubt);
    default:
      return;
  }
}

void Source::recover() {
  times_.started = times_.granted = ports_.clock.now();
  claimed_ = attached_ = frozen_ = finish_seen_ = hypervisor_running_ = true;
  resolve(make_error(Errc::owner_unknown, "ferryd was started anew after the disks had been granted"));
}

void Source::resolve(Error why) {
  error_ = make_error(Errc::owner_unknown,
                      "the disks were granted to the destination and its answer is missing: " + why.message(), 0,
                      "the source stays fenced and asks until the destination answers; if that host is dead for good: "
                      "migrate-ctl own --force");
  enter(S::resolving);
  ports_.link.revoke();
}

void Source::opened_there() {
  times_.opened = ports_.clock.now();
  owner_ = SourceOwner::destination;
  if (state_ == S::resolving) {  // the answer came, over a connection that works
    link_up_ = true;
    error_.reset();
  }
  if (!hypervisor_running_)
    return take_back(make_error(Errc::failed, "the hypervisor gave up during the hand-over"));
  enter(S::completing);
  ports_.hypervisor.release_finish();
}

void Source::on_completing(const SourceEvent& event) {
  switch (event.type) {
    case T::hypervisor_done:
      hypervisor_running_ = false;
      if (event.error) return take_back(*event.error);
      return verify();
    case T::guest_not_started:
      return take_back(error_of(event, "the guest did not start on the destination"));
    case T::link_lost:
      link_up_ = false;
      return;
    case T::abort_requested:
      return ports_.log("too late to abort: the disks were handed over");
    case T::shut_down:
      error_ = make_error(Errc::owner_unknown, "ferryd was stopped before the guest was seen to run on the destination");
      return end(S::in_doubt);
    default:
      return;
  }
}

// The destination owns the disks, but no guest of it was seen to run: its memory still lives here, so here
// it can go on without a loss, if the destination finds its disks untouched.
void Source::take_back(const Error& why) {
  cause_ = why;
  error_ = make_error(Errc::owner_unknown,
                      "the destination owns the disks, and its guest is not known to run: " + why.message(), 0,
                      "it is asked for the disks until it answers; if that host is dead for good: migrate-ctl own --force");
  enter(S::returning);
  ports_.link.ask_return();
}

void Source::on_returning(const SourceEvent& event) {
  switch (event.type) {
    case T::peer_returned:
      link_up_ = false;
      return reclaim(*cause_);
    case T::return_refused:
      return concede(error_of(event, "the destination keeps the disks"));
    case T::forced:
      return reclaim(*cause_);
    case T::peer_unknown:
      error_ = make_error(Errc::owner_unknown, "the destination remembers nothing of the disks it opened", 0,
                          "if its records are lost for good and the guest surely does not run there: migrate-ctl own --force");
      return ports_.log(error_->what);
    case T::hypervisor_done:
      hypervisor_running_ = false;
      return;
    case T::link_lost:
      link_up_ = false;
      return;
    case T::shut_down:
      return end(S::in_doubt);
    default:
      return;
  }
}

void Source::reclaim(Error why) {
  if (!error_ || error_->code == Errc::owner_unknown) error_ = std::move(why);
  enter(S::reclaiming);
  expect(T::recorded);
  ports_.ledger.record(Holding::owned);
}

void Source::on_reclaiming(const SourceEvent& event) {
  switch (event.type) {
    case T::recorded:
      if (!took(event, T::recorded)) return;
      owner_ = SourceOwner::source;
      claimed_ = false;
      return fail(*error_);
    // Without its record the next start would fence the disks again and ask the peer: under a guest that
    // runs. So it stays fenced, and the record is tried again when there is reason to hope.
    case T::failed:
      if (event.instead_of != T::recorded || pending_ != T::recorded) return;
      pending_.reset();
      error_ = make_error(Errc::owner_unknown, "the disks are this host's again, but that cannot be put on record: " +
                                                   error_of(event, "no reason given").message(),
                          0, "make room for ferryd's state directory, then: systemctl restart ferryd");
      return ports_.log(error_->message());
    case T::hypervisor_done:
      hypervisor_running_ = false;
      return;
    case T::link_lost:
      link_up_ = false;
      return;
    case T::forced:  // the operator has made room, and need not restart
      if (pending_) return;
      expect(T::recorded);
      return ports_.ledger.record(Holding::owned);
    case T::shut_down:
      if (!pending_) end(S::in_doubt);
      return;
    default:
      return;
  }
}

// The destination keeps the disks and says why. Were the guest to go on here, there would be two; its
// hypervisor may have let it go on long ago.
void Source::concede(Error why) {
  error_ = std::move(why);
  owner_ = SourceOwner::destination;
  enter(S::conceding);
  ports_.hypervisor.end_guest();
}

void Source::on_conceding(const SourceEvent& event) {
  switch (event.type) {
    case T::hypervisor_done:
      hypervisor_running_ = false;
      return leave();
    case T::link_lost:
      link_up_ = false;
      return;
    case T::shut_down:
      return end(S::in_doubt);
    default:
      return;
  }
}

}  // namespace ferry::migration
