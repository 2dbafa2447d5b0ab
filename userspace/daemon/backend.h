// SPDX-License-Identifier: GPL-2.0-or-later
// Backend: what the admin API can ask, answered by this daemon's jobs, volumes and checks.
// Thread-safety: all methods from any thread, as ApiBackend wants it.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "api/api_backend.h"
#include "api/event_feed.h"
#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/jobs.h"
#include "daemon/move_job.h"
#include "daemon/owners.h"
#include "filter/attachment.h"
#include "hypervisor/libvirt.h"
#include "store/ownership_store.h"

namespace ferry::daemon {

class Backend : public api::ApiBackend {
 public:
  Backend(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Jobs& jobs, api::EventFeed& feed);
  ~Backend() override;

  Result<api::VersionInfo> version() override;
  Result<api::Plan> plan(const api::StartRequest& request) override;
  Result<std::string> start_job(const api::StartRequest& request) override;
  Result<std::vector<api::JobStatus>> jobs() override;
  Result<api::JobStatus> job(const std::string& id) override;
  Status abort_job(const std::string& id, bool discard) override;
  Status pause_job(const std::string& id) override;
  Status resume_job(const std::string& id) override;
  // Goes on with what an earlier daemon left.
  void go_on(Errand errand);
  Result<std::vector<api::VolumeStatus>> volumes() override;
  Result<api::VolumeStatus> attach_volume(const std::string& path) override;
  Status detach_volume(const std::string& path) override;
  Result<api::OwnerList> owners(const api::OwnerTarget& target) override;
  Result<api::Definition> definition(const api::OwnerTarget& target) override;
  Result<api::Forced> force_owner(const api::ForceBody& body) override;
  Result<api::Released> release_owner(const api::ReleaseBody& body) override;
  Result<api::DoctorReport> doctor(const std::optional<std::string>& peer) override;

 private:
  Result<std::shared_ptr<SourceJob>> own_job(const std::string& id, const char* verb);
  MoveJob::World world();
  // The hypervisor's connection, made when first needed and again when it broke.
  Result<std::shared_ptr<hypervisor::Libvirt>> libvirt();

  const Config& config_;
  ControlLoop& loop_;
  store::OwnershipStore& store_;
  Jobs& jobs_;
  api::EventFeed& feed_;
  Owners owners_;
  std::mutex mutex_;  // guards what follows
  std::shared_ptr<hypervisor::Libvirt> libvirt_;
  std::map<std::string, filter::Attachment> by_hand_;  // canonical path → attached with the verb
};

}  // namespace ferry::daemon
