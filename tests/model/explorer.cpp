// SPDX-License-Identifier: GPL-2.0-or-later
#include "explorer.h"

#include <algorithm>
#include <functional>
#include <iomanip>
#include <string>
#include <string_view>

namespace ferry::model {
namespace {

// All states so far, numbered as they came; a hash table of numbers finds them again.
class Visited {
 public:
  Visited() : table_(1u << 16, kEmpty) {}

  // False when the state is known.
  bool add(const State& state, uint32_t parent) {
    if (states_.size() * 2 >= table_.size()) grow();
    uint32_t& slot = find(state);
    if (slot != kEmpty) return false;
    slot = static_cast<uint32_t>(states_.size());
    states_.push_back(state);
    parents_.push_back(parent);
    return true;
  }
  uint32_t size() const { return static_cast<uint32_t>(states_.size()); }
  const State& at(uint32_t number) const { return states_[number]; }
  uint32_t parent(uint32_t number) const { return parents_[number]; }

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;

  uint32_t& find(const State& state) {
    const std::string_view bytes(reinterpret_cast<const char*>(&state), sizeof state);
    size_t at = std::hash<std::string_view>{}(bytes);
    for (;; ++at) {
      uint32_t& slot = table_[at & (table_.size() - 1)];
      if (slot == kEmpty || states_[slot] == state) return slot;
    }
  }
  void grow() {
    table_.assign(table_.size() * 2, kEmpty);
    for (uint32_t number = 0; number < states_.size(); ++number) find(states_[number]) = number;
  }

  std::vector<uint32_t> table_;
  std::vector<State> states_;
  std::vector<uint32_t> parents_;
};

// The steps from the beginning to a visited state. Only parents are kept: which step led from one
// state to the next is found by trying them.
std::vector<TraceStep> path_to(Machine& machine, const Visited& visited, uint32_t number) {
  std::vector<TraceStep> trace;
  for (; number != 0; number = visited.parent(number)) {
    for (const Next& next : machine.successors(visited.at(visited.parent(number)))) {
      if (next.state == visited.at(number)) {
        trace.push_back({next.who, next.what, next.state});
        break;
      }
    }
  }
  std::reverse(trace.begin(), trace.end());
  return trace;
}

std::string who(const Bounds& bounds, uint8_t id) {
  switch (id) {
    case kOwner:
      return "owner";
    case kAdmin:
      return "admin";
    case kDm:
      return "dm";
    case kThread:
      return "thread";
    case kWorker:
      return "worker";
    default:
      return std::string("write ") + static_cast<char>('A' + id) + " to " +
             std::to_string(bounds.block_of[id]);
  }
}

// "01" = both blocks are marked; "-" = a map that is an empty spare; "?" = without its summary bit.
std::string bits(const State& state, unsigned map) {
  if (map != state.live && !state.retired && !state.map[map].leaf) return "-";
  std::string text;
  for (unsigned block = 0; block < kBlocks; ++block)
    text += state.map[map].leaf >> block & 1 ? static_cast<char>('0' + block) : '.';
  if (state.map[map].leaf && !state.map[map].summary) text += '?';
  return text;
}

std::string versions(const uint8_t (&of)[kBlocks]) {
  std::string text;
  for (uint8_t version : of) text += std::to_string(version) + ' ';
  return text;
}

const char* state_name(unsigned state) {
  return state == FERRY_STATE_TRACKING ? "tracking"
         : state == FERRY_STATE_FROZEN ? "frozen"
         : state == FERRY_STATE_FENCED ? "fenced"
                                       : "gated";
}

}  // namespace

Result explore(Machine& machine, Broken only, uint64_t max_states) {
  Result result;
  Visited visited;
  visited.add(machine.initial(), 0);
  uint32_t number = 0;
  for (; number < visited.size() && visited.size() <= max_states; ++number) {
    const State state = visited.at(number);  // the store may move
    const auto& successors = machine.successors(state);
    Broken broken = Broken::kNothing;
    TraceStep last{};
    if (successors.empty() && !machine.finished(state)) {
      broken = Broken::kStuck;
      last = {kAdmin, "nobody can go on", state};
    }
    for (const Next& next : successors) {
      ++result.steps;
      if (next.broken != Broken::kNothing && (only == Broken::kNothing || next.broken == only)) {
        broken = next.broken;
        last = {next.who, next.what, next.state};
        break;
      }
      visited.add(next.state, number);
    }
    if (broken != Broken::kNothing && (only == Broken::kNothing || broken == only)) {
      result.broken = broken;
      result.states = visited.size();
      result.trace = path_to(machine, visited, number);
      result.trace.push_back(last);
      return result;
    }
  }
  result.states = visited.size();
  result.complete = number == visited.size();
  return result;
}

const char* name_of(Broken broken) {
  switch (broken) {
    case Broken::kNothing:
      return "nothing";
    case Broken::kLost:
      return "a write is lost";
    case Broken::kBusyWhileFrozen:
      return "a write is in flight while frozen";
    case Broken::kLandsWhenClosed:
      return "a write lands on a closed disk";
    case Broken::kBitsLost:
      return "a mark is lost with its owner";
    case Broken::kRetiredMapChanged:
      return "a map is marked that is not live";
    case Broken::kWrongCount:
      return "the count of dirty blocks is wrong";
    case Broken::kStuck:
      return "nobody can go on";
  }
  return "?";
}

void print(std::ostream& out, const Bounds& bounds, const std::vector<TraceStep>& trace) {
  out << "    " << std::left << std::setw(13) << "who" << std::setw(67) << "what" << std::setw(6)
      << "disk" << std::setw(6) << "copy" << std::setw(6) << "live" << std::setw(9) << "retired"
      << "state\n";
  int number = 0;
  for (const TraceStep& step : trace) {
    const State& state = step.after;
    out << std::right << std::setw(3) << ++number << ' ' << std::left << std::setw(13)
        << who(bounds, step.who) << std::setw(67) << step.what << std::setw(6)
        << versions(state.disk) << std::setw(6) << versions(state.copy) << std::setw(6)
        << bits(state, state.live) << std::setw(9) << bits(state, !state.live)
        << state_name(state.state) << '\n';
  }
}

}  // namespace ferry::model
