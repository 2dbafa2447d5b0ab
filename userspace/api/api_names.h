// SPDX-License-Identifier: GPL-2.0-or-later
// The words that the API uses for the values of its enums: one table each, used for both ways.
// Thread-safety: constants.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "api/api_types.h"

namespace ferry::api {

template <typename Enum, size_t N>
using Names = std::array<std::pair<Enum, std::string_view>, N>;

template <typename Enum, typename Table>
std::string_view look_up(Enum value, const Table& table) {
  for (const auto& [known, name] : table)
    if (known == value) return name;
  return "unknown";
}

inline constexpr Names<DiskRole, 3> kRoleNames{
    {{DiskRole::data, "data"}, {DiskRole::swap, "swap"}, {DiskRole::scratch, "scratch"}}};
inline constexpr Names<Direction, 2> kDirectionNames{
    {{Direction::out, "out"}, {Direction::in, "in"}}};
inline constexpr Names<JobState, 9> kJobStateNames{{{JobState::preparing, "preparing"},
                                                    {JobState::precopy, "precopy"},
                                                    {JobState::switching, "switching"},
                                                    {JobState::verifying, "verifying"},
                                                    {JobState::waiting, "waiting"},
                                                    {JobState::paused, "paused"},
                                                    {JobState::done, "done"},
                                                    {JobState::failed, "failed"},
                                                    {JobState::aborted, "aborted"}}};
inline constexpr Names<Owner, 3> kOwnerNames{{{Owner::source, "source"},
                                              {Owner::destination, "destination"},
                                              {Owner::unknown, "unknown"}}};
inline constexpr Names<Method, 3> kMethodNames{
    {{Method::none, "none"}, {Method::in_place, "in-place"}, {Method::stacked, "stacked"}}};
inline constexpr Names<DestinationAction, 2> kActionNames{
    {{DestinationAction::use, "use"}, {DestinationAction::create, "create"}}};

}  // namespace ferry::api
