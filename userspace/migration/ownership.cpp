// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/ownership.h"

#include <algorithm>

namespace ferry::migration {

using store::Holding;

std::string_view fate_name(GrantFate fate) {
  switch (fate) {
    case GrantFate::unknown: return "unknown";
    case GrantFate::open: return "open";
    case GrantFate::opened: return "opened";
    case GrantFate::revoked: return "revoked";
    case GrantFate::returned: return "returned";
  }
  return "unknown";
}

GrantFate fate_of(const std::optional<store::DiskRecord>& record, const std::string& session,
                  std::uint64_t generation) {
  // A promise is on record before the source grants; a smaller generation means that it got lost.
  if (!record || record->generation < generation) return GrantFate::unknown;
  if (record->generation > generation) {
    const bool came_back = record->session == session && record->holding == Holding::given;
    return came_back ? GrantFate::returned : GrantFate::opened;
  }
  if (record->session != session) return GrantFate::unknown;
  switch (record->holding) {
    case Holding::receiving:
    case Holding::prepared: return GrantFate::open;
    case Holding::owned: return GrantFate::opened;
    case Holding::revoked:
    // Revoked, too: on a volume that held an older generation and so remains closed. Had it been opened
    // and given back, its generation would be higher.
    case Holding::given: return GrantFate::revoked;
    default: return GrantFate::unknown;
  }
}

GrantFate fate_of(const std::vector<store::DiskRecord>& records, const std::string& session,
                  std::uint64_t generation) {
  if (records.empty()) return GrantFate::unknown;
  const auto first = fate_of(records.front(), session, generation);
  const bool same = std::all_of(records.begin(), records.end(), [&](const store::DiskRecord& record) {
    return fate_of(record, session, generation) == first;
  });
  return same ? first : GrantFate::unknown;
}

std::uint64_t granted_generation(std::uint64_t base) { return base + 1; }
std::uint64_t reclaimed_generation(std::uint64_t base) { return base + 2; }

}  // namespace ferry::migration
