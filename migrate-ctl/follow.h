// SPDX-License-Identifier: GPL-2.0-or-later
// Following a job to its end while signals are served: Ctrl-C once aborts the job, twice leaves
// it alone; SIGUSR1 shows one line. One thread reads the event stream, the caller's thread draws
// and takes the signals, so neither can make the other wait.
// Ownership: borrows the Progress. Thread-safety: run() once, from the main thread.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "api/api_types.h"
#include "progress.h"

namespace ferry::ctl {

// Blocks the signals that Follower serves. Call it before the job is started, so that no moment
// is left in which Ctrl-C would kill us without the job being told.
void hold_signals();

struct FollowOptions {
  std::string socket_path;
  std::string job_id;
  bool abort_on_interrupt = false;  // else Ctrl-C only ends the watching
  // A daemon that is restarted answers again within this time.
  std::chrono::milliseconds patience{30'000};
};

struct Followed {
  std::optional<api::JobStatus> job;   // the last state seen
  int signal = 0;                      // the one that made us leave, 0 if the job ended
  std::optional<Error> lost;           // ferryd went away and did not come back
};

class Follower {
 public:
  Follower(FollowOptions options, Progress& progress);
  ~Follower();
  Followed run();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Follows and reports; the exit code.
int follow_and_report(const Console& console, const FollowOptions& options, Progress& progress);

}  // namespace ferry::ctl
