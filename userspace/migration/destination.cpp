// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/destination.h"

#include <fmt/format.h>

#include <array>

namespace ferry::migration {
namespace {

using T = DestinationEventType;
using S = DestinationState;

constexpr std::array<std::string_view, 11> kStates{"idle",  "preparing", "receiving", "flushing",
                                                   "ready", "opening",   "open",      "verifying",
                                                   "cleaning", "finished", "failed"};
static_assert(kStates.size() == static_cast<std::size_t>(S::failed) + 1);

constexpr std::array<std::string_view, 14> kEvents{
    "prepare",   "close_gate", "ready_asked", "granted", "digests_asked", "finish_asked", "abort_asked",
    "link_lost", "prepared",   "flushed",     "opened",  "verified",      "cleaned",      "failed"};
static_assert(kEvents.size() == static_cast<std::size_t>(T::failed) + 1);

// What the peer may ask, and in which state. Answers of our own device are checked by busy_.
struct Asked {
  S state;
  T event;
};
constexpr std::array kMayAsk{
    Asked{S::idle, T::prepare},       Asked{S::receiving, T::close_gate},
    Asked{S::receiving, T::ready_asked}, Asked{S::ready, T::granted},
    Asked{S::open, T::digests_asked}, Asked{S::open, T::finish_asked},
};

}  // namespace

std::string_view state_name(DestinationState state) {
  return kStates[static_cast<std::size_t>(state)];
}
std::string_view event_name(DestinationEventType type) {
  return kEvents[static_cast<std::size_t>(type)];
}

void Destination::enter(S next) {
  ports_.log(fmt::format("{} -> {}", state_name(state_), state_name(next)));
  state_ = next;
}

bool Destination::legal(const DestinationEvent& event) const {
  for (const auto& row : kMayAsk)
    if (row.state == state_ && row.event == event.type) return true;
  return false;
}

void Destination::handle(const DestinationEvent& event) {
  if (ended()) return;
  switch (event.type) {
    case T::link_lost:
      link_up_ = false;
      if (state_ == S::cleaning) return;
      if (!error_ && !opened_)
        error_ = event.error ? *event.error : make_error(Errc::peer_unreachable, "the link to the source broke");
      return clean(opened_);
    case T::abort_asked:
      // The source never aborts after its grant; should it ask, the disks are ours and stay.
      last_word_ = "aborted";
      if (!error_ && !opened_) error_ = make_error(Errc::aborted, "the source called the migration off");
      return clean(opened_);
    case T::prepare:
    case T::close_gate:
    case T::ready_asked:
    case T::granted:
    case T::digests_asked:
    case T::finish_asked:
      if (!legal(event)) {
        return give_up(make_error(Errc::protocol, fmt::format("the source said {} while we were {}",
                                                              event_name(event.type), state_name(state_))),
                       true);
      }
      break;
    default:
      if (!busy_) return;  // an answer nobody waits for
      busy_ = false;
      break;
  }
  if (clean_when_idle_ && !busy_ && state_ != S::cleaning) {
    clean_when_idle_ = false;
    if (event.type == T::opened) opened_ = true;
    return clean(opened_);
  }
  switch (event.type) {
    case T::prepare:
      enter(S::preparing);
      busy_ = true;
      return ports_.device.prepare();
    case T::prepared:
      enter(S::receiving);
      return ports_.link.answer("prepared");
    case T::close_gate:
      return ports_.device.close_gate();
    case T::ready_asked:
      enter(S::flushing);
      busy_ = true;
      return ports_.device.flush();
    case T::flushed:
      enter(S::ready);
      return ports_.link.answer("ready");
    case T::granted:
      enter(S::opening);
      busy_ = true;
      return ports_.device.open_gate();
    case T::opened:
      opened_ = true;
      enter(S::open);
      return ports_.link.answer("opened");
    case T::digests_asked:
      enter(S::verifying);
      busy_ = true;
      return ports_.device.verify();
    case T::verified:
      enter(S::open);
      return ports_.link.answer("digests");
    case T::finish_asked:
      last_word_ = "finished";
      return clean(true);
    case T::cleaned:
      if (link_up_ && !last_word_.empty()) ports_.link.answer(last_word_);
      return enter(error_ ? S::failed : S::finished);
    case T::failed: {
      Error error = event.error ? *event.error : make_error(Errc::failed, "a step failed");
      if (state_ == S::cleaning) {
        if (!error_) error_ = make_error(Errc::cleanup_incomplete, error.what, error.sys, error.hint);
        if (link_up_) ports_.link.refuse(*error_);
        return enter(S::failed);
      }
      return give_up(std::move(error), true);
    }
    default:
      return;
  }
}

void Destination::give_up(Error error, bool tell) {
  ports_.log("giving up: " + error.message());
  if (tell && link_up_) ports_.link.refuse(error);
  const bool never_started = state_ == S::preparing || state_ == S::idle;
  if (state_ == S::verifying) return enter(S::open);  // the guest runs here: stay until told to finish
  if (!error_) error_ = std::move(error);
  if (never_started && !busy_) return enter(S::failed);  // prepare takes back what it did itself
  clean(opened_);
}

// Ends the session: with the volumes kept (the guest lives on them) or everything of ours discarded.
void Destination::clean(bool keep) {
  if (state_ == S::idle) return enter(error_ ? S::failed : S::finished);
  if (state_ == S::cleaning) return;
  if (busy_) {  // the device's answer first
    clean_when_idle_ = true;
    return;
  }
  enter(S::cleaning);
  busy_ = true;
  if (keep)
    ports_.device.finish();
  else
    ports_.device.discard();
}

}  // namespace ferry::migration
