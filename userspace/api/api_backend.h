// SPDX-License-Identifier: GPL-2.0-or-later
// ApiBackend: what the admin API can ask of the daemon. The server calls it from several
// connection threads at once, so an implementation must be thread-safe. Calls may block (a plan
// asks the peer), but must come back within a minute: stop() of the server waits for them.
// Ownership: borrowed by the server, must outlive it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/api_types.h"
#include "api/owner_types.h"
#include "base/result.h"

namespace ferry::api {

class ApiBackend {
 public:
  virtual ~ApiBackend() = default;

  virtual Result<VersionInfo> version() = 0;
  // Says what start_job() would do and whether it would get through its checks. An error is for
  // a question that cannot be answered (no such VM), a failed check is part of the plan.
  virtual Result<Plan> plan(const StartRequest& request) = 0;
  // Returns the new job's id as soon as the job exists; everything slow happens inside the job.
  virtual Result<std::string> start_job(const StartRequest& request) = 0;
  // Running and remembered jobs, oldest first.
  virtual Result<std::vector<JobStatus>> jobs() = 0;
  virtual Result<JobStatus> job(const std::string& id) = 0;
  // Asks the job to stop; returns at once. Errc::busy when it has ended or is past the switch.
  // With `discard` the destination keeps nothing of what was copied.
  virtual Status abort_job(const std::string& id, bool discard) = 0;
  // Stops the copying, and goes on with what was copied. Errc::busy when the job is past its pre-copy, respectively
  // neither paused nor waiting for its next attempt.
  virtual Status pause_job(const std::string& id) = 0;
  virtual Status resume_job(const std::string& id) = 0;
  virtual Result<std::vector<VolumeStatus>> volumes() = 0;
  virtual Result<VolumeStatus> attach_volume(const std::string& path) = 0;
  // Errc::busy for a fenced volume: its contents may be another host's, see release_owner().
  virtual Status detach_volume(const std::string& path) = 0;
  // What this host has on record about who owns which disk: of all, of a VM, or of the session that
  // a path belongs to. Errc::not_found for a name that no record knows.
  virtual Result<OwnerList> owners(const OwnerTarget& target) = 0;
  // To start a VM from whose guest was lost on the way. The target is not empty. Errc::not_found when none is on record.
  virtual Result<Definition> definition(const OwnerTarget& target) = 0;
  // The operator's override. Errc::usage, with what it risks as message, unless the operator vouches.
  virtual Result<Forced> force_owner(const ForceBody& body) = 0;
  // Opens volumes whose contents belong to another host, and forgets their records.
  virtual Result<Released> release_owner(const ReleaseBody& body) = 0;
  virtual Result<DoctorReport> doctor(const std::optional<std::string>& peer) = 0;
};

}  // namespace ferry::api
