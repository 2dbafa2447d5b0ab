// SPDX-License-Identifier: GPL-2.0-or-later
#include "exploration.h"

#include <fmt/format.h>

#include <algorithm>

#include "ownership_names.h"
#include "visited.h"

namespace ferry::sim {
namespace {

struct Edge {
  std::uint32_t from, to;
};

// Only parents are kept: which step led from one state to the next is found by trying them.
std::vector<ExploredStep> path_to(OwnershipModel& model, const Visited<OwnershipState>& visited, std::uint32_t number) {
  std::vector<ExploredStep> trace;
  for (; number != 0; number = visited.parent(number)) {
    for (const auto& step : model.successors(visited.at(visited.parent(number)))) {
      if (!(step.state == visited.at(number))) continue;
      trace.push_back({step.who, step.what, step.state});
      break;
    }
  }
  std::reverse(trace.begin(), trace.end());
  return trace;
}

// The first state from which no way without faults leads to a rest, or the number of states.
std::uint32_t first_stuck(std::uint32_t states, const std::vector<Edge>& edges, std::vector<char> good) {
  std::vector<std::uint32_t> begin(states + 1, 0), from(edges.size()), todo;
  for (const auto& edge : edges) ++begin[edge.to + 1];
  for (std::uint32_t n = 0; n < states; ++n) begin[n + 1] += begin[n];
  std::vector<std::uint32_t> fill(begin.begin(), begin.end() - 1);
  for (const auto& edge : edges) from[fill[edge.to]++] = edge.from;
  for (std::uint32_t n = 0; n < states; ++n)
    if (good[n]) todo.push_back(n);
  while (!todo.empty()) {
    const std::uint32_t number = todo.back();
    todo.pop_back();
    for (std::uint32_t at = begin[number]; at < begin[number + 1]; ++at) {
      if (good[from[at]]) continue;
      good[from[at]] = 1;
      todo.push_back(from[at]);
    }
  }
  return static_cast<std::uint32_t>(std::find(good.begin(), good.end(), 0) - good.begin());
}

template <typename State>
std::string_view name_of(std::uint8_t present, std::uint8_t state) {
  return present ? migration::state_name(static_cast<State>(state)) : "-";
}

std::string_view record_name(std::uint8_t record) {
  return record ? store::holding_name(static_cast<store::Holding>(record - 1)) : "-";
}

}  // namespace

Exploration explore(OwnershipModel& model, std::uint64_t max_states) {
  Exploration result;
  Visited<OwnershipState> visited;
  std::vector<Edge> edges;
  std::vector<char> good;
  visited.add(model.initial(), 0);
  std::uint32_t number = 0;
  const auto end = [&](std::string why, std::uint32_t at) {
    result.states = visited.size();
    result.broken = std::move(why);
    result.trace = path_to(model, visited, at);
  };
  for (; number < visited.size() && visited.size() <= max_states; ++number) {
    const OwnershipState state = visited.at(number);  // the store may move
    const bool rest = model.rests(state);
    good.push_back(rest);
    for (const auto& step : model.successors(state)) {
      ++result.steps;
      if (step.broken) {
        const ExploredStep last{step.who, step.what, step.state};
        end(step.broken, number);
        result.trace.push_back(last);
        return result;
      }
      const auto [to, fresh] = visited.add(step.state, number);
      if (step.fault) continue;
      edges.push_back({number, to});
    }
    if (!rest) continue;
    ++result.rests;
    if (const char* wrong = model.wrong_at_rest(state)) {
      end(wrong, number);
      return result;
    }
  }
  result.states = visited.size();
  result.complete = number == visited.size();
  if (!result.complete) return result;
  if (const auto stuck = first_stuck(visited.size(), edges, good); stuck < visited.size())
    end("stuck: without further faults it never comes to rest", stuck);
  return result;
}

void print(std::ostream& out, const std::vector<ExploredStep>& trace) {
  using migration::DestinationState;
  using migration::SourceState;
  int number = 0;
  for (const auto& step : trace) {
    const auto& s = step.after;
    out << fmt::format("{:3} {:1} {:46} | {:14} {:9} {:9} | {:11} {:9} {:9} {}\n", ++number, step.who, step.what,
                       name_of<SourceState>(s.source.present, s.source.state), record_name(s.record[0]),
                       filter_name(static_cast<Filter>(s.filter[0])),
                       name_of<DestinationState>(s.destination.present, s.destination.state), record_name(s.record[1]),
                       s.volume_there ? filter_name(static_cast<Filter>(s.filter[1])) : "removed",
                       s.newest == 0 ? "" : s.newest == 1 ? "a has written" : "b has written");
  }
}

}  // namespace ferry::sim
