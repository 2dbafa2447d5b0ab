// SPDX-License-Identifier: GPL-2.0-or-later
// Owners: what an operator sees of this host's ownership records, and the two things that only an operator may do
// to them: take disks by force, and release volumes whose contents another host owns. The disks of a session change
// together, never one alone. A record is changed before its volumes are opened: BarWatch and the next boot hold to
// the records.
// Ownership: the store must outlive it. Thread-safety: any thread; force and release take turns.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "api/owner_types.h"
#include "filter/attachment.h"
#include "store/ownership_store.h"
#include "volume/volume.h"

namespace ferry::daemon {

class Owners {
 public:
  // The world around the records.
  struct Ports {
    std::function<Result<std::vector<filter::AttachedVolume>>()> attached;
    std::function<Result<volume::VolumeInfo>(const std::string& path)> identify;
    std::function<bool(const store::DiskRecord&)> closed;    // nobody can write to it by its path now
    std::function<Status(const store::DiskRecord&)> unbar;
    std::function<Status(const store::DiskRecord&)> remove;  // the volume of an incomplete copy
    // A job of this daemon still works on that session.
    std::function<bool(const std::string& session)> job_runs;
    // Tells that session's job that its peer is dead. Errors: not_found (no such job), busy (not in doubt).
    std::function<Status(const std::string& session)> force_job;
  };
  Owners(std::string host_name, store::OwnershipStore& store, Ports ports);

  // All disks, those of a VM, or those of the session that a path belongs to. not_found for a target that no
  // record names; without a target an empty list is no error.
  Result<api::OwnerList> list(const api::OwnerTarget& target);
  // Of the VM that the target's session has moved. Errors: not_found, usage for a VM of several sessions.
  Result<api::Definition> definition(const api::OwnerTarget& target);
  // Errors: usage without the operator's word, with the risk as message; busy when the records forbid it.
  Result<api::Forced> force(const api::ForceBody& body);
  // Errors: owner_unknown for disks in doubt, verify_mismatch when the copies were never found equal, busy.
  Result<api::Released> release(const api::ReleaseBody& body);

 private:
  struct Group {
    store::SessionRecord session;
    std::vector<store::DiskRecord> disks;
  };
  Result<std::vector<Group>> groups(const api::OwnerTarget& target) const;
  Result<Group> one_group(const api::OwnerTarget& target) const;
  api::Presence presence(const store::DiskRecord& disk) const;
  bool is_shut(const store::DiskRecord& disk) const;

  Result<api::Forced> force_granting(const Group& group, const api::ForceBody& body);
  Result<api::Forced> take_given(Group group, const api::ForceBody& body);
  Result<api::Forced> reopen(const Group& group, const api::ForceBody& body);
  Result<api::Forced> open_all(const Group& group);
  Status may_release(const Group& group, const api::ReleaseBody& body) const;
  Result<api::Released> let_go(const Group& group);
  Result<api::Released> release_unrecorded(const api::ReleaseBody& body);

  const std::string host_name_;
  store::OwnershipStore& store_;
  const Ports ports_;
  std::mutex mutex_;  // one change at a time
};

}  // namespace ferry::daemon
