// SPDX-License-Identifier: GPL-2.0-or-later
// Visits every state that the ownership model can reach, breadth first: the first broken promise is one of the
// shortest. Then asks of each state whether the world can still come to a good rest without further faults.
// Thread-safety: none.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "ownership_model.h"

namespace ferry::sim {

struct ExploredStep {
  const char* who;
  const char* what;
  OwnershipState after;
};

struct Exploration {
  std::uint64_t states = 0, steps = 0, rests = 0;
  bool complete = false;              // every reachable state was visited
  std::string broken;                 // empty: every promise holds
  std::vector<ExploredStep> trace;    // how it came to that
};

Exploration explore(OwnershipModel& model, std::uint64_t max_states);
void print(std::ostream& out, const std::vector<ExploredStep>& trace);

}  // namespace ferry::sim
