// SPDX-License-Identifier: GPL-2.0-or-later
// The simulator in small, for every build; tests/run-all runs the large one. docs/simulator.md.
#include <gtest/gtest.h>

#include <sstream>

#include "campaign.h"

namespace ferry::sim {
namespace {

constexpr std::uint64_t kSeeds = 3'000;

TEST(Simulator, EveryPromiseHolds) {
  const Tally tally = run_seeds(1, kSeeds);
  EXPECT_EQ(tally.seeds, kSeeds);
  for (const auto& violation : tally.violations)
    ADD_FAILURE() << "ferry-sim --seed " << violation.seed << " --trace: " << violation.what;
  // What nobody came by was not tested.
  for (const Seen seen :
       {Seen::moved, Seen::rolled_back, Seen::resolved_opened, Seen::resolved_revoked, Seen::returned,
        Seen::return_refused, Seen::conceded, Seen::recovered, Seen::taken_back_at_start, Seen::revoked_at_start,
        Seen::answered_from_record, Seen::moved_back, Seen::both_guests_run, Seen::held_write, Seen::refused_write,
        Seen::torn_block, Seen::duplicate_dropped, Seen::stray, Seen::came_back})
    EXPECT_GT(tally.seen[static_cast<std::size_t>(seen)], 0u) << seen_name(seen);
}

std::string trace_of(std::uint64_t seed) {
  std::ostringstream out;
  World({seed, Mutation::none, &out}).run();
  return out.str();
}

TEST(Simulator, ASeedReplaysExactly) {
  for (const std::uint64_t seed : {1u, 17u, 4711u}) {
    const std::string first = trace_of(seed);
    EXPECT_GT(first.size(), 1000u);
    EXPECT_EQ(first, trace_of(seed));
  }
  EXPECT_NE(trace_of(1), trace_of(2));
}

TEST(Simulator, WatchingChangesNothing) {
  std::ostringstream out;
  const Outcome seen = World({5, Mutation::none, &out}).run();
  const Outcome unseen = World({5, Mutation::none, nullptr}).run();
  EXPECT_EQ(seen.steps, unseen.steps);
}

class EveryMutation : public testing::TestWithParam<unsigned> {};

TEST_P(EveryMutation, IsCaught) {
  const auto mutation = static_cast<Mutation>(GetParam());
  const auto caught = catch_mutation(mutation, kMutationSeeds);
  ASSERT_TRUE(caught) << mutation_name(mutation);
  std::cout << "  " << mutation_name(mutation) << ": seed " << caught->seed << ", " << caught->what << '\n';
}

INSTANTIATE_TEST_SUITE_P(Simulator, EveryMutation, testing::Range(1u, static_cast<unsigned>(Mutation::count)),
                         [](const auto& info) {
                           std::string name(mutation_name(static_cast<Mutation>(info.param)));
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

}  // namespace
}  // namespace ferry::sim
