// SPDX-License-Identifier: GPL-2.0-or-later
// All states that an exploration has seen, numbered as they came; a hash table of numbers finds them again.
// State: plain bytes without padding. Thread-safety: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace ferry::sim {

template <typename State>
class Visited {
  static_assert(std::has_unique_object_representations_v<State>);

 public:
  Visited() : table_(1u << 16, kEmpty) {}

  // The state's number, and whether it is new.
  std::pair<std::uint32_t, bool> add(const State& state, std::uint32_t parent) {
    if (states_.size() * 2 >= table_.size()) grow();
    std::uint32_t& slot = find(state);
    if (slot != kEmpty) return {slot, false};
    slot = static_cast<std::uint32_t>(states_.size());
    states_.push_back(state);
    parents_.push_back(parent);
    return {slot, true};
  }
  std::uint32_t size() const { return static_cast<std::uint32_t>(states_.size()); }
  const State& at(std::uint32_t number) const { return states_[number]; }
  std::uint32_t parent(std::uint32_t number) const { return parents_[number]; }

 private:
  static constexpr std::uint32_t kEmpty = UINT32_MAX;

  std::uint32_t& find(const State& state) {
    const std::string_view bytes(reinterpret_cast<const char*>(&state), sizeof state);
    for (std::size_t at = std::hash<std::string_view>{}(bytes);; ++at) {
      std::uint32_t& slot = table_[at & (table_.size() - 1)];
      if (slot == kEmpty || states_[slot] == state) return slot;
    }
  }
  void grow() {
    table_.assign(table_.size() * 2, kEmpty);
    for (std::uint32_t number = 0; number < states_.size(); ++number) find(states_[number]) = number;
  }

  std::vector<std::uint32_t> table_;
  std::vector<State> states_;
  std::vector<std::uint32_t> parents_;
};

}  // namespace ferry::sim
