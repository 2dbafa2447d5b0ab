// SPDX-License-Identifier: GPL-2.0-or-later
// What the API's documents share on their way to and from JSON. Private to api/.
// Thread-safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/api_types.h"

namespace ferry::api {

template <typename T>
Json maybe(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

inline Json maybe_time(const std::optional<Time>& value) {
  return value ? Json(format_time(*value)) : Json(nullptr);
}

template <typename List>
Json encode_list(const List& list) {
  Json out = Json::array();
  for (const auto& item : list) out.push_back(encode(item));
  return out;
}

// Reads every element of the list `name` with `decode_one(element, where)`.
template <typename T, typename Decode>
void read_list(ObjectReader& in, std::string_view name, std::vector<T>& out, Decode decode_one) {
  const Json* list = in.array(name);
  if (list == nullptr) return;
  for (size_t i = 0; i < list->size(); ++i) {
    auto item = decode_one((*list)[i], in.path_of(name) + "[" + std::to_string(i) + "]");
    if (!item.ok()) return in.join(std::move(item).error());
    out.push_back(std::move(*item));
  }
}

inline void read_time(ObjectReader& in, std::string_view name, std::optional<Time>& out) {
  std::optional<std::string> text;
  in.text(name, text);
  if (!text) return;
  out = parse_time(*text);
  if (!out) in.fail(name, "is not a time like 2025-01-31T12:34:56.789Z");
}

// Takes a reader to its end: the value, or the first thing that was wrong.
template <typename T>
Result<T> finish(ObjectReader& in, T value) {
  FERRY_TRY(in.finish());
  return value;
}

inline void check_path(ObjectReader& in, const std::string& path) {
  if (in.ok() && (path.empty() || path.front() != '/'))
    in.fail("path", "must be an absolute path such as /dev/vg0/web1");
}

}  // namespace ferry::api
