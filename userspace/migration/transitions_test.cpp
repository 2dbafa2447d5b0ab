// SPDX-License-Identifier: GPL-2.0-or-later
// docs/ownership.md lists the changes of state of both machines. Here they are driven through every single
// fault at every place, and through pairs of faults; what they did must be that list, no more and no less.
#include <fstream>

#include "migration/destination_test_rig.h"
#include "migration/source_test_rig.h"

namespace ferry::migration {
namespace {

using Transitions = std::set<std::string>;

// The arrows of the diagram that says "%% states of the SIDE", those of its begin and its ends apart.
Transitions documented(const std::string& side) {
  constexpr std::string_view kArrow = " --> ";
  std::ifstream page(FERRY_OWNERSHIP_PAGE);
  Transitions lines;
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    line.erase(0, line.find_first_not_of(' '));
    if (line == "%% states of the " + side) inside = true;
    if (line == "```") inside = false;
    const auto arrow = line.find(kArrow);
    if (!inside || arrow == std::string::npos || line.find("[*]") != std::string::npos) continue;
    lines.insert(line.replace(arrow, kArrow.size(), " -> "));
  }
  return lines;
}

void keep(const std::vector<std::string>& trace, Transitions& seen) {
  for (const auto& line : trace)
    if (line.find(" -> ") != std::string::npos) seen.insert(line);
}

void compare(const Transitions& seen, const Transitions& listed) {
  ASSERT_FALSE(listed.empty()) << "no list in " << FERRY_OWNERSHIP_PAGE;
  for (const auto& line : seen) EXPECT_TRUE(listed.contains(line)) << "the code does it, the page does not list it: " << line;
  for (const auto& line : listed) EXPECT_TRUE(seen.contains(line)) << "the page lists it, the code never did it: " << line;
}

TEST(Transitions, OfTheSourceAreThoseOfThePage) {
  using namespace source_rig;
  Transitions seen;
  for (int type = -1; type <= static_cast<int>(T::shut_down); ++type) {
    for (int at = 0; at < 40; ++at) {
      for (int fail_at = -1; fail_at < 30; fail_at += type < 0 || fail_at < 0 ? 2 : 1) {
        for (unsigned world = 0; world < 8; ++world) {
          const auto extra = static_cast<T>(type);
          // What the peer or the ledger says comes from the world; injected it would be a lie.
          const bool from_outside = extra == T::link_lost || extra == T::abort_requested || extra == T::forced ||
                                    extra == T::shut_down || extra == T::hypervisor_done || extra == T::standstill_over;
          if (type >= 0 && !from_outside) continue;
          Rig run;
          run.world.fail_at = fail_at;
          run.world.grant_arrived = world & 1;
          run.world.guest_runs_there = world & 2;
          run.hypervisor.starts_there = world & 4;
          if (type < 0) run.go();
          else run.go(at, SourceEvent{extra, make_error(Errc::failed, "injected")});
          keep(run.trace, seen);
        }
      }
      if (type < 0) break;
    }
  }
  Rig recovered;
  recovered.source.handle({T::recover});
  recovered.source.handle({T::peer_revoked});
  recovered.source.handle(failure_of(T::recorded, make_error(Errc::no_space, "full")));
  recovered.source.handle({T::shut_down});
  keep(recovered.trace, seen);
  compare(seen, documented("source"));
}

TEST(Transitions, OfTheDestinationAreThoseOfThePage) {
  using namespace destination_rig;
  Transitions seen;
  for (int type = 0; type <= static_cast<int>(T::patience_over); ++type) {
    for (int at = -1; at < 6; ++at) {
      for (bool late : {false, true}) {
        for (int fail_at = -1; fail_at < 20; ++fail_at) {
          Rig run;
          run.fail_at = fail_at;
          run.go(at, static_cast<T>(type), late);
          run.machine.handle({T::link_lost});
          run.drain();
          run.machine.handle({T::patience_over});
          run.drain();
          keep(run.trace, seen);
        }
      }
    }
  }
  Rig full_disk;  // neither that the disks are ours nor that they never will be can be put on record
  for (T asked : {T::prepare, T::ready_asked}) {
    full_disk.machine.handle({asked});
    full_disk.drain();
  }
  for (T asked : {T::granted, T::revoke_asked}) {
    full_disk.fail_at = static_cast<int>(full_disk.log.size()) + 1;
    full_disk.machine.handle({asked});
    full_disk.drain();
  }
  keep(full_disk.trace, seen);
  compare(seen, documented("destination"));
}

}  // namespace
}  // namespace ferry::migration
