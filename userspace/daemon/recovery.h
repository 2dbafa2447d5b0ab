// SPDX-License-Identifier: GPL-2.0-or-later
// What a starting ferryd makes of the records that an earlier one left (docs/ownership.md, "After a restart").
// Thread-safety: called once, before the daemon serves anybody.
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

}  // namespace ferry::daemon
