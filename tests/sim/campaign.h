// SPDX-License-Identifier: GPL-2.0-or-later
// Many worlds: seeds in parallel, what they came by, and the search for each mutation.
// Thread-safety: every function starts and ends its own threads.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mutation.h"
#include "world.h"

namespace ferry::sim {

struct Violation {
  std::uint64_t seed;
  std::string what;
};

struct Tally {
  std::uint64_t seeds = 0, steps = 0;
  std::vector<Violation> violations;                                    // by seed
  std::array<std::uint64_t, static_cast<std::size_t>(Seen::count)> seen{};  // worlds that came by it
};

Tally run_seeds(std::uint64_t first, std::uint64_t count, Mutation mutation = Mutation::none);

// A broken promise that costs data, not only comfort.
bool is_unsafe(const std::string& violation);

struct Caught {
  std::uint64_t seed;
  std::string what;
};
// The first seed, of at most `limit`, whose world becomes unsafe under this mutation.
std::optional<Caught> catch_mutation(Mutation mutation, std::uint64_t limit);
// Seeds within which each mutation must be found.
inline constexpr std::uint64_t kMutationSeeds = 50'000;

// The exploration of the ownership part, with the bounds that fit into a minute and a few gigabytes.
struct Explored {
  std::string name;
  std::uint64_t states = 0, steps = 0;
  std::string broken;   // empty: every promise holds, and every state was visited
};
std::vector<Explored> explore_ownership(bool longer);

// The command line of ferry-sim; returns the exit status.
int campaign(int argc, char** argv);

}  // namespace ferry::sim
