// SPDX-License-Identifier: GPL-2.0-or-later
// SessionLedger: what one session claims of its disks, made durable in the host's OwnershipStore. Implements
// the brain's Ledger on a worker thread; the answer goes to `done`.
// Thread-safety: record and learn from any thread; done runs on the worker.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "daemon/control_loop.h"
#include "daemon/messages.h"
#include "migration/ports.h"
#include "store/ownership_store.h"

namespace ferry::daemon {

class SessionLedger : public migration::Ledger {
 public:
  using Done = std::function<void(Status)>;

  // `disks`: one record for each disk that moves; generation, session and reason are filled in here, and
  // holding, which tells what is on record about it now. `base`: the generation that the source owns them as.
  SessionLedger(store::OwnershipStore& store, store::SessionRecord session, std::vector<store::DiskRecord> disks,
                std::uint64_t base, Done done);

  void record(migration::Holding holding) override;
  // Looks up the identities of volumes that were not there when the session began, and adds them to what is
  // on record: a restart removes what the session created, and nothing else. Without answer.
  void learn();
  // When the session is over: closes for good what is another host's, and takes the marks of an earlier
  // closing from what is ours. Without answer.
  void settle_bars();
  // Both hosts' digests were equal: goes on record with the end, as do the digests, by target.
  void set_verified(std::map<std::string, std::string> digests);
  // The filters, by target, that see every write from the moment on when the disks are ours: on the destination those
  // of the session; on the source those that were there before it, until it takes them over and empties their maps.
  void set_trackers(std::map<std::string, std::string> trackers);
  // Destination: asked when the session is called off, of which disks (by target) the copy is kept, and for how long it
  // would be.
  void set_keeping(std::function<std::set<std::string>()> kept, std::uint64_t keep_s);

 private:
  void stamp(store::DiskRecord& disk, migration::Holding holding, bool keeps) const;
  std::uint64_t generation_of(migration::Holding holding);
  std::string reason_for(migration::Holding holding) const;

  store::OwnershipStore& store_;
  const store::SessionRecord session_;
  std::vector<store::DiskRecord> disks_;  // the worker's
  const std::uint64_t base_;
  bool granted_ = false;                  // on record once as granting
  std::function<std::set<std::string>()> kept_;
  std::uint64_t keep_s_ = 0;
  mutable std::mutex mutex_;              // guards digests_ and trackers_
  std::map<std::string, std::string> digests_;
  std::map<std::string, std::string> trackers_;
  std::set<std::string> old_copies_;      // disks whose volume here held an older generation
  Done done_;
  Worker worker_;
};

// Fills in what is on record of these disks, and the uuids of those that are new. Their newest generation on this
// host, 0 when none is on record. Errors: busy when one of them is not this host's to give, with the reason.
Result<std::uint64_t> base_generation(store::OwnershipStore& store, std::vector<store::DiskRecord>& disks);
// Whether this host may take these disks in as `generation`. Errors: busy, when it knows a newer generation
// or owns one of them, or when a volume holds another VM's given-away disk.
Status may_take_in(store::OwnershipStore& store, const PrepareRequest& request);
// Volumes that hold an old copy of these disks and that a reboot left inactive: active again, and closed.
void wake_old_copies(store::OwnershipStore& store, const PrepareRequest& request);

}  // namespace ferry::daemon
