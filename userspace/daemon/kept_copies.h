// SPDX-License-Identifier: GPL-2.0-or-later
// KeptCopies: what a migration that was called off left on its destination: incomplete copies, closed, kept so that
// the next attempt need not begin from nothing. A volume that was made for one goes when its time is over; one that
// was there before stays closed until it is released, for half of it is overwritten.
// Thread-safety: any thread.
#pragma once

#include <string>

#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/messages.h"
#include "store/ownership_store.h"

namespace ferry::daemon {

// Whether the record is of such a copy, in a volume that may be removed.
bool is_kept_copy(const store::DiskRecord& disk);
// Takes the filter out and removes the volume. Errors: busy, when it is in use.
Status remove_copy(const store::DiskRecord& disk);
// The same for one that is still on record as kept; that it was revoked remains on record. Errors: busy, also when it
// is on record as something else by now.
Status remove_kept_copy(store::OwnershipStore& store, const store::DiskRecord& disk);

// Asks the other host to remove what it keeps of the disks of a job, which are on record here.
Status ask_to_discard(const Config& config, const store::OwnershipStore& store, const std::string& destination,
                      const std::string& job);
// The other host's side of that question.
Json answer_discard(store::OwnershipStore& store, const Json& message);

// Looks once a minute for copies whose time is over.
class KeptCopies {
 public:
  KeptCopies(ControlLoop& loop, store::OwnershipStore& store);
  ~KeptCopies();

 private:
  void look();

  ControlLoop& loop_;
  store::OwnershipStore& store_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // the loop's timers hold it weakly
  Worker worker_;
};

}  // namespace ferry::daemon
