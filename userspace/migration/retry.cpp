// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/retry.h"

#include "base/backoff.h"

namespace ferry::migration {
namespace {

// What time heals. A peer that is `busy` still takes back what the last attempt left there.
bool passes(const std::optional<Error>& error) {
  return error && (error->code == Errc::peer_unreachable || error->code == Errc::busy);
}

}  // namespace

std::optional<Duration> Retry::next(const AttemptEnd& end, TimePoint now) {
  if (end.copied) {
    copied_ = true;
    last_success_ = now;
    failures_ = 0;
  }
  const bool nothing_lost = end.state == SourceState::failed && end.owner == SourceOwner::source;
  // Who mistypes a host's name wants to hear so at once.
  if (!nothing_lost || !copied_ || !passes(end.error)) return std::nullopt;
  const Duration pause = doubled_pause(policy_.first_pause, policy_.last_pause, failures_++);
  if (now + pause - last_success_ > policy_.give_up_after) return std::nullopt;
  return pause;
}

Next Retry::after(const AttemptEnd& end, const Asked& asked, TimePoint now) {
  using Step = Next::Step;
  const bool stopped = end.state == SourceState::aborted && end.owner == SourceOwner::source;
  const auto pause = next(end, now);
  const bool goes_on = (stopped || pause) && !asked.abort;
  if (goes_on && asked.stop) return {Step::later};
  if (goes_on && asked.pause) return {Step::stand_still};
  if (goes_on && pause) return {Step::again, *pause};
  return {};
}

}  // namespace ferry::migration
