// SPDX-License-Identifier: GPL-2.0-or-later
// SourceJob: what the daemon knows of a migration that leaves this host, whether it was started here or
// found on record as granted and unanswered.
// Thread-safety: all methods from any thread.
#pragma once

#include <string>

#include "api/api_types.h"
#include "base/result.h"

namespace ferry::daemon {

class SourceJob {
 public:
  virtual ~SourceJob() = default;
  virtual const std::string& id() const = 0;
  virtual api::JobStatus status() const = 0;
  virtual bool ended() const = 0;
  // With `discard` the destination keeps nothing of what was copied.
  virtual void abort(bool discard) = 0;
  // Whether it works on this session: a job may take several.
  virtual bool works_on(const std::string& session) const { return session == id(); }
  // Errors: busy, when the job cannot stop, or go on, now.
  virtual Status pause() = 0;
  virtual Status resume() = 0;
  // The operator vouches that the peer is dead. Errors: busy when the job's owner is not in doubt.
  virtual Status force() = 0;
  // The daemon stops: takes the migration back, or leaves it in doubt where that cannot be.
  virtual void shut_down() = 0;
  virtual void wait_ended() = 0;
};

}  // namespace ferry::daemon
