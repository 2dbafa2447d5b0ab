// SPDX-License-Identifier: GPL-2.0-or-later
// Retry: whether a migration that was interrupted is tried again, and when, or stands still for the admin. An attempt
// that ended before the disks changed hands has cost nothing but time: what was copied is kept on the destination, and
// the next attempt copies what differs. Pure; knows time only as it is told.
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

// What was asked of the job while the attempt ran.
struct Asked {
  bool abort = false, pause = false, stop = false;  // stop: ferryd ends
};

struct Next {
  enum class Step {
    again,        // after `pause`
    stand_still,  // until it is resumed
    later,        // the next ferryd goes on with it
    over,
  } step = Step::over;
  Duration pause{};
};

class Retry {
 public:
  // `copied_before`: a daemon before this one has copied already.
  Retry(RetryPolicy policy, TimePoint now, bool copied_before)
      : policy_(policy), last_success_(now), copied_(copied_before) {}

  // The pause before the next attempt; nothing when the attempt's end is the migration's.
  std::optional<Duration> next(const AttemptEnd& end, TimePoint now);
  // The same, with regard to what was asked. A request that comes too late to stop an attempt, because that is being
  // rolled back already, ends no migration which would have been tried again.
  Next after(const AttemptEnd& end, const Asked& asked, TimePoint now);

 private:
  RetryPolicy policy_;
  TimePoint last_success_;
  bool copied_;
  unsigned failures_ = 0;  // in a row, without a copy in between
};

}  // namespace ferry::migration
