// SPDX-License-Identifier: GPL-2.0-or-later
// RecoveredJob: a migration that an earlier ferryd of this host had granted and that is on record without an
// answer. The same machine as OutgoingJob's goes on where that one stopped: it asks the peer until it knows
// who owns the disks, and then lets the guest go on here or ends what is left of it.
// Ownership: kept by the Jobs registry. Thread-safety: as SourceJob.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/peer_link.h"
#include "daemon/session_ledger.h"
#include "daemon/source_job.h"
#include "migration/source.h"

namespace ferry::daemon {

// The volumes as the crash left them, fenced; there is nothing left to copy.
class RecoveredDisks : public migration::SourceDevice {
 public:
  using Post = std::function<void(migration::SourceEvent)>;
  RecoveredDisks(std::vector<store::DiskRecord> disks, Post post) : disks_(std::move(disks)), post_(std::move(post)) {}
  void attach() override {}
  void copy_round(migration::RoundKind) override {}
  void stop_copy() override {}
  void freeze() override {}
  void fence() override {}
  void thaw() override;
  void digest() override;
  void detach() override { post_({migration::SourceEventType::detached}); }
  void leave_fenced() override;

 private:
  const std::vector<store::DiskRecord> disks_;
  Post post_;
  Worker worker_;
};

// The guest as libvirt kept it when its client was gone: paused after its memory had been sent, or lost.
class RecoveredGuest : public migration::Hypervisor {
 public:
  using Post = std::function<void(migration::SourceEvent)>;
  RecoveredGuest(const Config& config, std::string vm, Post post)
      : config_(config), vm_(std::move(vm)), post_(std::move(post)) {}
  void start() override {}
  void abort() override {}
  void release_finish() override;
  void refuse_finish() override;
  void end_guest() override;

 private:
  const Config& config_;
  const std::string vm_;
  Post post_;
  Worker worker_;
};

class RecoveredJob : public SourceJob, public std::enable_shared_from_this<RecoveredJob> {
 public:
  // `disks` are on record as granting, all of one session.
  RecoveredJob(const Config& config, ControlLoop& loop, store::OwnershipStore& store, store::SessionRecord session,
               std::vector<store::DiskRecord> disks, std::function<void(const api::JobStatus&)> changed);

  void start();
  const std::string& id() const override { return session_record_.id; }
  api::JobStatus status() const override;
  bool ended() const override { return ended_; }
  void abort(bool discard) override;
  Status pause() override;
  Status resume() override;
  Status force() override;
  void shut_down() override;
  void wait_ended() override;

 private:
  void post(migration::SourceEvent event);
  void refresh();

  ControlLoop& loop_;
  const store::SessionRecord session_record_;
  std::function<void(const api::JobStatus&)> changed_;
  struct SteadyClock : migration::Clock {
    migration::TimePoint now() const override { return std::chrono::steady_clock::now(); }
  } clock_;
  RecoveredDisks disks_;
  RecoveredGuest guest_;
  SourceSession session_;
  SessionLedger ledger_;
  migration::Source machine_;
  std::atomic<bool> ended_{false};
  mutable std::mutex mutex_;  // guards status_
  std::condition_variable ended_changed_;
  api::JobStatus status_;
};

}  // namespace ferry::daemon
