// SPDX-License-Identifier: GPL-2.0-or-later
// SourceHypervisor: drives the hypervisor's own live migration for one job: libvirt's call on a thread of
// its own, the Finish gate between it and the destination's libvirt. Implements the brain's Hypervisor.
// Thread-safety: the port's methods from the control loop; memory() from any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/peer_link.h"
#include "hypervisor/finish_gate.h"
#include "hypervisor/libvirt.h"
#include "migration/source.h"

namespace ferry::daemon {

struct GuestMigration {
  std::string vm;
  std::string session;
  std::uint64_t max_downtime_ms = 300;
  std::uint64_t bandwidth_bytes_per_s = 0;
  std::map<std::string, std::string> disks;  // the paths, by target, of those that were planned for: no other may move
};

// A guest that stands still because its migration failed, or because the client of its migration went away, goes on.
// To be called when its disks are this host's, and open. Blocks.
void let_guest_go_on(const Config& config, const std::string& vm);

class SourceHypervisor : public migration::Hypervisor {
 public:
  using Post = std::function<void(migration::SourceEvent)>;

  SourceHypervisor(const Config& config, SourceSession& session, GuestMigration migration, Post post);
  ~SourceHypervisor() override;

  void start() override;
  void abort() override;
  void release_finish() override;
  void refuse_finish() override;
  void end_guest() override;

  // The hypervisor's own count; all zero while it does not run.
  hypervisor::MemoryProgress memory();

 private:
  Status run();
  Status need_same_disks(hypervisor::Libvirt& libvirt) const;
  void not_started(Error why);
  void resolve_lost_reply();
  std::shared_ptr<hypervisor::Libvirt> libvirt();
  std::shared_ptr<hypervisor::FinishGate> gate();

  const Config& config_;
  SourceSession& session_;
  GuestMigration migration_;
  Post post_;
  mutable std::mutex mutex_;
  std::shared_ptr<hypervisor::Libvirt> libvirt_;  // while a migration runs
  std::shared_ptr<hypervisor::FinishGate> gate_;
  bool called_off_ = false;
  bool running_ = false;
  bool asking_ = false;
  hypervisor::MemoryProgress last_memory_{};
  Worker migration_worker_;  // libvirt's migrate call sits here
  Worker control_worker_;    // abort and Finish while it does
  Worker poll_worker_;       // its progress meanwhile
};

}  // namespace ferry::daemon
