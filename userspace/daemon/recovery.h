// SPDX-License-Identifier: GPL-2.0-or-later
// What a starting ferryd makes of the records that an earlier one left (docs/ownership.md, "After a restart").
// Thread-safety: recover() is called once, before the daemon serves anybody; the rest from any thread.
#pragma once

#include <functional>

#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/jobs.h"
#include "daemon/move_job.h"
#include "store/ownership_store.h"

namespace ferry::daemon {

// Takes back what was under way, closes what is another host's, and starts a job for every session that was
// granted and not answered. Trouble with one volume is logged and does not stop the others.
// What is returned goes on afterwards: migrations that an earlier ferryd had not brought to an end.
Result<std::vector<Errand>> recover(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Jobs& jobs,
                                    const std::function<void(const api::JobStatus&)>& changed);

// The same for sessions that were to fill one of these disks, are over, and could not put that on record (a full disk):
// nobody else will, and their claims would turn every other session away.
void take_back_dead_claims(const Config& config, store::OwnershipStore& store, const Jobs& jobs,
                           const PrepareRequest& request);

}  // namespace ferry::daemon
