// SPDX-License-Identifier: GPL-2.0-or-later
// Wrong worlds: each is an implementation of a port, or of the daemon around the machines, that breaks one
// rule. A simulator that does not find every one of them proves nothing.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ferry::sim {

enum class Mutation : std::uint8_t {
  none,
  fence_after_grant,        // fence() answers at once; the fence comes a while after the grant
  no_flush_before_ready,    // the destination's flush does nothing
  unfence_without_revoke,   // a lost link after the grant is taken for "revoked"
  late_duplicate_applied,   // the receiver takes blocks of older connections and rounds
  open_before_record,       // the destination's "owned" is answered before it is durable
  grant_before_record,      // the source's "granting" is answered before it is durable
  resume_before_reclaim,    // asking back lets the source's guest go on at once
  revoked_without_record,   // "revoked" is answered before it is durable, and a late grant still opens
  freeze_skipped,           // freeze() does nothing
  no_bar_at_boot,           // a host that boots does not fence what is not its own
  restart_forgets_grant,    // a restarted source takes "granting" for "moving"
  return_unchecked,         // the destination gives back without looking for writes
  map_without_swap,         // a round copies the map and clears it afterwards
  round_ends_early,         // a round is over before the other side has everything
  fence_lost_on_leave,      // the source's filter goes out although the peer owns the disks
  gate_left_open,           // the destination's volumes have no gate
  old_copy_unread,          // an old copy is taken for what it was without a look at it
  any_map_trusted,          // a filter that has missed writes passes for the one on record
  retired_marks_lost,       // what the verification took out of the map is not put back
  patient_source,           // the source gives a guest that stands still no limit
  verified_anew,            // asked again for its digests, the destination compares with the maps used up
  count
};

inline constexpr std::array<std::string_view, static_cast<std::size_t>(Mutation::count)> kMutationNames{
    "none",
    "fence after grant",
    "no flush before ready",
    "unfence without revoke",
    "apply of a late duplicate block",
    "open before the owner record is durable",
    "grant before the fence's record is durable",
    "source resumes the guest before the reclaim",
    "revoked without record, opened later",
    "freeze skipped before the final map",
    "no bar at boot",
    "restart takes granting for moving",
    "return without looking for writes",
    "map cleared without a swap",
    "round over before all is written",
    "fence taken off when the source leaves",
    "no gate on the destination",
    "old copy not read before its blocks are left out",
    "map of a filter that has missed writes",
    "marks taken out at the verification are lost",
    "no limit to the guest's standing still",
    "verified anew without the maps",
};
constexpr std::string_view mutation_name(Mutation mutation) {
  return kMutationNames[static_cast<std::size_t>(mutation)];
}

}  // namespace ferry::sim
