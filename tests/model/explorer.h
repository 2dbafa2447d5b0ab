// SPDX-License-Identifier: GPL-2.0-or-later
// Visits every state that a machine can reach, in any order of its processes' steps, each state once.
// Breadth first: the first counterexample is one of the shortest. Deterministic.
#ifndef FERRY_TESTS_MODEL_EXPLORER_H
#define FERRY_TESTS_MODEL_EXPLORER_H

#include <cstdint>
#include <ostream>
#include <vector>

#include "machine.h"

namespace ferry::model {

struct TraceStep {
  uint8_t who;
  const char* what;
  State after;
};

struct Result {
  uint64_t states = 0;
  uint64_t steps = 0;
  bool complete = false;  // every reachable state was visited
  Broken broken = Broken::kNothing;
  std::vector<TraceStep> trace;  // how it came to that; empty when nothing is broken
};

// Ends at the first step that breaks `only` (kNothing: that breaks anything), or beyond max_states.
Result explore(Machine& machine, Broken only, uint64_t max_states);

const char* name_of(Broken broken);
void print(std::ostream& out, const Bounds& bounds, const std::vector<TraceStep>& trace);

}  // namespace ferry::model

#endif
