// SPDX-License-Identifier: GPL-2.0-or-later
// Who owns which disk, for people. Thread-safety: one thread.
#pragma once

#include "api/owner_types.h"
#include "console.h"

namespace ferry::ctl {

// A paragraph for each migration: its disks, why they are held so, and what is not as it has to be.
void print_owners(const Console& console, const api::OwnerList& list);

}  // namespace ferry::ctl
