// SPDX-License-Identifier: GPL-2.0-or-later
// The rules about ownership records that both sides share (docs/ownership.md): which generation a claim
// carries, and what a host answers about a session that no machine of this daemon remembers.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/disk_record.h"

namespace ferry::migration {

// What a destination answers to a source that asks about a grant of `generation` made in `session`.
enum class GrantFate {
  unknown,   // no record: this host never promised, or has lost its memory
  open,      // not decided here yet; nobody can grant it any more, so it is to be revoked on record first
  opened,    // this host owns the disk, or owned it and passed it on
  revoked,   // it will never be opened here
  returned,  // it was opened, found untouched and given back
};
std::string_view fate_name(GrantFate fate);

GrantFate fate_of(const std::optional<store::DiskRecord>& record, const std::string& session, std::uint64_t generation);
// Of all disks of a session: they change together, so different fates are `unknown`.
GrantFate fate_of(const std::vector<store::DiskRecord>& records, const std::string& session, std::uint64_t generation);

// Generations of one session, `base` being the source's before it began: the grant carries base + 1; a
// source that takes its disks back after it was on record as granting owns them as base + 2.
std::uint64_t granted_generation(std::uint64_t base);
std::uint64_t reclaimed_generation(std::uint64_t base);

}  // namespace ferry::migration
