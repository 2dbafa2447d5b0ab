// SPDX-License-Identifier: GPL-2.0-or-later
// Retry: whether a migration that was interrupted is tried again, and when. An attempt that ended before the disks
// changed hands has cost nothing but time: what was copied is kept on the destination, and the next attempt copies
// what differs. Pure; knows time only as it is told.
// Thread-safety: none; one thread owns it.
#pragma once

#include <chrono>
#include <optional>

#include "base/result.h"
#include "migration/source.h"

namespace ferry::migration {

struct RetryPolicy {
  Duration give_up_after{std::chrono::minutes(10)};  // without a copy that runs; zero: never tried again
  Duration first_pause{std::chrono::seconds(1)};     // doubled with each attempt that came to nothing
  Duration last_pause{std::chrono::seconds(30)};
};

// How an attempt ended.
struct AttemptEnd {
  SourceState state = SourceState::failed;
  SourceOwner owner = SourceOwner::source;
  std::optional<Error> error{};
  bool copied = false;  // it came as far as its first round
};

class Retry {
 public:
  // `copied_before`: a daemon before this one has copied already.
  Retry(RetryPolicy policy, TimePoint now, bool copied_before)
      : policy_(policy), last_success_(now), copied_(copied_before) {}

  // The pause before the next attempt; nothing when the attempt's end is the migration's.
  std::optional<Duration> next(const AttemptEnd& end, TimePoint now);

 private:
  RetryPolicy policy_;
  TimePoint last_success_;
  bool copied_;
  unsigned failures_ = 0;  // in a row, without a copy in between
};

}  // namespace ferry::migration
