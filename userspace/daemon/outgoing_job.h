// SPDX-License-Identifier: GPL-2.0-or-later
// OutgoingJob: the source's end of one session, an attempt to migrate: the machine, its disks, the peer and the
// hypervisor. What becomes of it is told to `changed`, on the loop.
// Ownership: a MoveJob's; may be destroyed only when ended().
// Thread-safety: status(), ended(), abort() from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "api/api_types.h"
#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/peer_link.h"
#include "daemon/session_ledger.h"
#include "daemon/source_device.h"
#include "daemon/source_hypervisor.h"
#include "migration/retry.h"

namespace ferry::daemon {

// What a start request means on this host: the VM and its disks, found and judged.
struct MigrationPlan {
  api::StartRequest request;
  hypervisor::DomainInfo domain;
  std::vector<SourceDisk> disks;
  PrepareRequest prepare;
  std::vector<store::DiskRecord> records;  // of the disks that move
  std::string errand;                      // goes on record with the session: what a restart goes on with
};
// Errors: not_found (VM, volume), unsupported (a disk that cannot be moved), usage (roles of unknown disks),
// busy (a disk that is on record as another host's).
Result<MigrationPlan> make_plan(const Config& config, store::OwnershipStore& store, hypervisor::Libvirt& libvirt,
                                const api::StartRequest& request);

class OutgoingJob : public std::enable_shared_from_this<OutgoingJob> {
 public:
  OutgoingJob(const Config& config, ControlLoop& loop, store::OwnershipStore& store, std::string id, MigrationPlan plan,
              std::function<void(const api::JobStatus&)> changed);
  ~OutgoingJob();

  void start();
  void abort(bool discard);
  // Errors: busy when the owner is not in doubt.
  Status force();
  void shut_down();
  bool ended() const { return ended_; }
  const std::string& id() const { return id_; }
  api::JobStatus status() const;
  // On the loop, once ended().
  migration::AttemptEnd attempt_end() const;

 private:
  void post(migration::SourceEvent event);
  void tick();
  void refresh();
  void fill_copy(api::JobStatus& s);
  void fill_times(api::JobStatus& s) const;
  bool digests_equal();

  const Config& config_;
  ControlLoop& loop_;
  const std::string id_;
  const MigrationPlan plan_;
  std::function<void(const api::JobStatus&)> changed_;
  SourceSession session_;
  SourceDisks disks_;
  SourceHypervisor hypervisor_;
  SessionLedger ledger_;
  struct SteadyClock : migration::Clock {
    migration::TimePoint now() const override { return std::chrono::steady_clock::now(); }
  } clock_;
  migration::Source machine_;
  std::atomic<bool> ended_{false};
  mutable std::mutex mutex_;  // guards status_
  api::JobStatus status_;
};

}  // namespace ferry::daemon
