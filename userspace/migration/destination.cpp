// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/destination.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace ferry::migration {
namespace {

using T = DestinationEventType;
using S = DestinationState;

constexpr std::array<std::string_view, 17> kStates{
    "idle",  "claiming", "preparing", "receiving", "flushing",  "promising", "ready",    "accepting", "opening",
    "open",  "verifying", "yielding", "returning", "revoking",  "cleaning",  "finished", "failed"};
static_assert(kStates.size() == static_cast<std::size_t>(S::failed) + 1);

constexpr std::array<std::string_view, 20> kEvents{
    "prepare",      "close_gate",  "ready_asked", "granted",   "revoke_asked",  "return_asked", "digests_asked",
    "finish_asked", "abort_asked", "link_lost",   "link_back", "patience_over", "prepared",     "flushed",
    "recorded",     "opened",      "verified",    "yielded",   "cleaned",       "failed"};
static_assert(kEvents.size() == static_cast<std::size_t>(T::failed) + 1);

// The dialogue proper: what the source may say, and when. Questions about ownership may come at any time.
struct Asked {
  S state;
  T event;
};
constexpr std::array kMayAsk{
    Asked{S::idle, T::prepare},          Asked{S::receiving, T::close_gate},
    Asked{S::receiving, T::ready_asked}, Asked{S::ready, T::granted},
    Asked{S::open, T::digests_asked},    Asked{S::open, T::finish_asked},
    Asked{S::verifying, T::digests_asked},
};

bool legal(S state, T event) {
  for (const auto& row : kMayAsk)
    if (row.state == state && row.event == event) return true;
  return false;
}

}  // namespace

std::string_view state_name(DestinationState state) { return kStates[static_cast<std::size_t>(state)]; }
std::string_view event_name(DestinationEventType type) { return kEvents[static_cast<std::size_t>(type)]; }

void Destination::enter(S next) {
  ports_.log(fmt::format("{} -> {}", state_name(state_), state_name(next)));
  state_ = next;
}

void Destination::begin(S next) {
  enter(next);
  busy_ = true;
}

void Destination::handle(const DestinationEvent& event) {
  if (ended()) return;
  switch (event.type) {
    case T::link_lost:
    case T::link_back:
    case T::patience_over:
      return on_link(event);
    case T::prepare:
    case T::close_gate:
    case T::ready_asked:
    case T::granted:
    case T::digests_asked:
    case T::finish_asked:
    case T::abort_asked:
      return on_request(event.type);
    case T::revoke_asked:
      return on_revoke();
    case T::return_asked:
      return on_return();
    default:
      if (!busy_) return;  // an answer nobody waits for
      busy_ = false;
      return on_answer(event);
  }
}

// Before the record of ownership is asked for, a lost link means that nobody can grant any more: this side
// decides alone that it never opens. After it the disks are ours, link or not.
void Destination::on_link(const DestinationEvent& event) {
  switch (event.type) {
    case T::link_back:
      link_up_ = true;
      return;
    case T::patience_over:
      if (patience_timers_ == 0 || --patience_timers_ > 0 || link_up_ || state_ != S::open) return;
      ports_.log("the source did not come back; the session ends, the disks are ours");
      return clean(true);
    default:
      link_up_ = false;
      break;
  }
  if (owns_ || state_ == S::accepting || returned_) {
    if (state_ == S::open) stay_open();
    return;
  }
  if (state_ == S::revoking || state_ == S::cleaning) return;
  call_off(event.error ? *event.error : make_error(Errc::peer_unreachable, "the link to the source broke"));
}

void Destination::on_request(T asked) {
  if (asked == T::abort_asked && !owns_ && state_ != S::accepting) {
    last_word_ = "aborted";
    return call_off(make_error(Errc::aborted, "the source called the migration off"));
  }
  if (!legal(state_, asked)) {
    auto error = make_error(Errc::protocol, fmt::format("the source said {} while we were {}", event_name(asked),
                                                        state_name(state_)));
    if (link_up_) ports_.link.refuse(error);
    if (owns_ || state_ == S::accepting || state_ == S::revoking || state_ == S::cleaning) return;
    return call_off(std::move(error));
  }
  switch (asked) {
    case T::prepare:
      begin(S::claiming);
      return ports_.ledger.record(Holding::receiving);
    case T::close_gate:
      return ports_.device.close_gate();
    case T::ready_asked:
      begin(S::flushing);
      return ports_.device.flush();
    case T::granted:
      begin(S::accepting);
      may_own_ = true;
      return ports_.ledger.record(Holding::owned);
    case T::digests_asked:
      if (state_ == S::verifying) return;  // again, over a new link: the answer is on its way
      begin(S::verifying);
      return ports_.device.verify();
    default:  // finish_asked
      last_word_ = "finished";
      return clean(true);
  }
}

// The source has granted and does not know what became of it. It learns what is on record, and what is not
// decided yet is decided now, against the grant.
void Destination::on_revoke() {
  if (returned_) return ports_.link.answer("returned");
  if (revoked_) return ports_.link.answer("revoked");
  switch (state_) {
    case S::open:
    case S::verifying:
      return ports_.link.answer("opened");
    case S::accepting:
    case S::opening:
    case S::yielding:
      put_off_ = T::revoke_asked;
      return;
    case S::returning:
      return return_on_record();
    case S::revoking:
      revoke_asked_ = true;
      return;
    case S::cleaning:  // ended well, or called off without a record: what is on record will tell
      return;
    default:
      revoke_asked_ = true;
      return call_off(make_error(Errc::aborted, "the source took its grant back"));
  }
}

void Destination::on_return() {
  if (returned_) return ports_.link.answer("returned");
  switch (state_) {
    case S::open:
      begin(S::yielding);
      return ports_.device.yield();
    case S::accepting:
    case S::opening:
    case S::verifying:
      put_off_ = T::return_asked;
      return;
    case S::yielding:
      return;  // the answer is on its way
    case S::returning:
      return return_on_record();
    default:
      return ports_.link.refuse(make_error(Errc::protocol, "the disks are not this host's to return"));
  }
}

void Destination::on_answer(const DestinationEvent& event) {
  if (std::exchange(call_off_when_idle_, false)) return call_off(*error_);
  switch (event.type) {
    case T::prepared:
      enter(S::receiving);
      return ports_.link.answer("prepared");
    case T::flushed:
      begin(S::promising);
      return ports_.ledger.record(Holding::prepared);
    case T::recorded:
      return on_recorded();
    case T::opened:
      if (put_off_ == T::revoke_asked) put_off_.reset();  // answered by this, too
      ports_.link.answer("opened");
      return stay_open();
    case T::verified:
      ports_.link.answer("digests");
      return stay_open();
    case T::yielded:
      enter(S::returning);
      return return_on_record();
    case T::cleaned:
      if (link_up_ && !last_word_.empty()) ports_.link.answer(last_word_);
      return enter(error_ ? S::failed : S::finished);
    case T::failed:
      return on_failed(event.error ? *event.error : make_error(Errc::failed, "a step failed"));
    default:
      return;
  }
}

void Destination::on_recorded() {
  switch (state_) {
    case S::claiming:
      begin(S::preparing);
      return ports_.device.prepare();
    case S::promising:
      enter(S::ready);
      return ports_.link.answer("ready");
    case S::accepting:
      owns_ = true;
      begin(S::opening);
      return ports_.device.open_gate();
    case S::returning:
      owns_ = false;
      returned_ = true;
      error_ = make_error(Errc::failed, "the guest did not start here: the disks were given back to the source");
      ports_.link.answer("returned");
      return clean(false);
    case S::revoking:
      revoked_ = true;
      if (revoke_asked_) ports_.link.answer("revoked");
      return clean(false);
    default:
      return;
  }
}

void Destination::on_failed(Error error) {
  ports_.log("failed: " + error.message());
  switch (state_) {
    case S::accepting:  // not told to anybody and not opened: as before the grant, until the source asks
      enter(S::ready);
      ports_.link.refuse(error);
      if (!link_up_) return call_off(std::move(error));
      if (std::exchange(put_off_, std::nullopt)) on_revoke();
      return;
    case S::opening:
      // Ours, but unusable: back to where the guest's memory still is.
      ports_.link.refuse(error);
      begin(S::yielding);
      return ports_.device.yield();
    case S::verifying:
    case S::yielding:
      ports_.link.refuse(error);
      return stay_open();
    case S::returning:  // the new record may stand all the same: stay fenced, and try again when asked again
      return ports_.link.refuse(error);
    case S::revoking:  // nobody is told "revoked"; a later question finds the old record
      if (revoke_asked_) ports_.link.refuse(error);
      if (!may_own_) {
        if (error_)
          error_->hint = "that it was called off cannot be put on record (" + error.what +
                         "): make room for ferryd's state directory, then: systemctl restart ferryd";
        return clean(false);
      }
      // The record may say that the disks are ours: they are neither opened nor thrown away.
      error_ = make_error(Errc::cleanup_incomplete, "it cannot be put on record that the disks were not taken: " + error.what,
                          error.sys, "make room for ferryd's state directory, then: systemctl restart ferryd");
      return enter(S::failed);
    case S::cleaning:
      if (!error_) error_ = make_error(Errc::cleanup_incomplete, error.what, error.sys, error.hint);
      if (link_up_) ports_.link.refuse(*error_);
      return enter(S::failed);
    case S::claiming:  // nothing was touched yet
      ports_.link.refuse(error);
      error_ = std::move(error);
      return enter(S::failed);
    default:
      ports_.link.refuse(error);
      return call_off(std::move(error));
  }
}

void Destination::return_on_record() {
  if (busy_) return;  // the answer is on its way
  busy_ = true;
  ports_.ledger.record(Holding::given);
}

// The disks are ours and usable. What was asked meanwhile gets its answer.
void Destination::stay_open() {
  if (state_ != S::open) enter(S::open);
  if (!link_up_) {
    ++patience_timers_;
    ports_.schedule(policy_.patience);
  }
  const auto asked = std::exchange(put_off_, std::nullopt);
  if (asked == T::revoke_asked) return on_revoke();
  if (asked == T::return_asked) return on_return();
}

// Ends a session whose disks never became ours: first the promise on record, then everything taken back.
void Destination::call_off(Error error) {
  if (state_ == S::revoking || state_ == S::cleaning) return;  // that is what is being done
  if (!error_) {
    ports_.log("calling off: " + error.message());
    error_ = std::move(error);
  }
  if (busy_) {
    if (!std::exchange(call_off_when_idle_, true) && state_ == S::preparing) ports_.device.cut_short();
    return;
  }
  if (state_ == S::idle) return enter(S::failed);
  begin(S::revoking);
  ports_.ledger.record(Holding::revoked);
}

// With the volumes kept (the guest lives on them) or everything of ours discarded.
void Destination::clean(bool keep) {
  begin(S::cleaning);
  if (keep)
    ports_.device.finish();
  else
    ports_.device.discard();
}

}  // namespace ferry::migration
