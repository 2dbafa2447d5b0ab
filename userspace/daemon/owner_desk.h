// SPDX-License-Identifier: GPL-2.0-or-later
// What this host answers about sessions that no job of this daemon remembers: from its records alone.
// Thread-safety: any thread.
#pragma once

#include <string>

#include "daemon/messages.h"
#include "store/ownership_store.h"

namespace ferry::daemon {

// The answer to one control message of an `owner` connection. A grant that was never taken is revoked on
// record before the answer says so.
Json answer_from_records(store::OwnershipStore& store, const std::string& session, const Json& message);

}  // namespace ferry::daemon
