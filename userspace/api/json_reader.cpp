// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/json_reader.h"

#include <algorithm>
#include <set>

namespace ferry::api {
namespace {

// Our deepest document (a list of jobs with disks) has five levels.
constexpr int kDepthMax = 12;
constexpr size_t kListMax = 4096;

}  // namespace

Result<Json> parse_json(std::string_view text, Errc code) {
  std::vector<std::set<std::string>> keys;
  std::string why;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kDepthMax && why.empty()) why = "it is nested too deeply";
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.empty()) {
      auto key = parsed.get<std::string>();
      if (!keys.back().insert(key).second && why.empty())
        why = "the field \"" + key + "\" appears twice";
    }
    return why.empty();
  };
  try {
    Json value = Json::parse(text.begin(), text.end(), watch);
    if (!why.empty()) return make_error(code, "cannot read the JSON text: " + why);
    return value;
  } catch (const Json::exception& e) {
    return make_error(code, std::string("cannot read the JSON text: ") + e.what());
  }
}

std::string write_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

ObjectReader::ObjectReader(const Json& object, std::string where, Unknown unknown)
    : object_(object), where_(std::move(where)), unknown_(unknown) {
  if (!object_.is_object())
    status_ = make_error(code(), (where_.empty() ? "the text" : "field " + where_) +
                                     " must be a JSON object, not " + object_.type_name());
}

std::string ObjectReader::path_of(std::string_view name) const {
  return where_.empty() ? std::string(name) : where_ + "." + std::string(name);
}

void ObjectReader::fail(std::string_view name, const std::string& why) {
  if (status_.ok()) status_ = make_error(code(), "field " + path_of(name) + " " + why);
}

void ObjectReader::join(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

const Json* ObjectReader::find(std::string_view name) {
  if (!status_.ok()) return nullptr;
  seen_.emplace_back(name);
  const auto it = object_.find(std::string(name));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool ObjectReader::has(std::string_view name) { return find(name) != nullptr; }

void ObjectReader::text(std::string_view name, std::string& out, Need need, size_t bytes_max) {
  const Json* value = find(name);
  if (value == nullptr) {
    if (need == Need::required) fail(name, "is missing");
    return;
  }
  if (!value->is_string()) return fail(name, std::string("must be a string, not ") +
                                                 value->type_name());
  auto text = value->get<std::string>();
  if (text.size() > bytes_max)
    return fail(name, "is longer than " + std::to_string(bytes_max) + " bytes");
  // A control character in a name is a slip or an attack on a terminal or a log.
  if (unknown_ == Unknown::strict &&
      std::any_of(text.begin(), text.end(),
                  [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
    return fail(name, "holds a control character");
  if (need == Need::required && text.empty()) return fail(name, "is empty");
  out = std::move(text);
}

void ObjectReader::text(std::string_view name, std::optional<std::string>& out) {
  if (!has(name)) return;
  std::string value;
  text(name, value);
  if (status_.ok()) out = std::move(value);
}

void ObjectReader::texts(std::string_view name, std::vector<std::string>& out) {
  const Json* list = array(name);
  if (list == nullptr) return;
  for (const auto& item : *list) {
    if (!item.is_string()) return fail(name, "must be a list of strings");
    out.push_back(item.get<std::string>());
  }
}

void ObjectReader::flag(std::string_view name, bool& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_boolean())
    return fail(name, std::string("must be true or false, not ") + value->type_name());
  out = value->get<bool>();
}

void ObjectReader::flag(std::string_view name, std::optional<bool>& out) {
  if (!has(name)) return;
  bool value = false;
  flag(name, value);
  if (status_.ok()) out = value;
}

void ObjectReader::number(std::string_view name, uint64_t& out) {
  std::optional<uint64_t> value;
  number(name, value);
  if (value) out = *value;
}

void ObjectReader::number(std::string_view name, std::optional<uint64_t>& out, uint64_t min,
                          uint64_t max) {
  const Json* value = find(name);
  if (value == nullptr) return;
  // is_number_integer() is also true for unsigned numbers; 4.0 and 1e3 are floats and refused.
  const bool whole = value->is_number_unsigned() ||
                     (value->is_number_integer() && value->get<int64_t>() >= 0);
  const uint64_t number = whole ? value->get<uint64_t>() : 0;
  if (!whole || number < min || number > max)
    return fail(name, "must be a whole number from " + std::to_string(min) + " to " +
                          std::to_string(max));
  out = number;
}

void ObjectReader::real(std::string_view name, double& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_number()) return fail(name, "must be a number");
  out = value->get<double>();
}

const Json* ObjectReader::object(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return nullptr;
  if (value->is_object()) return value;
  fail(name, std::string("must be an object, not ") + value->type_name());
  return nullptr;
}

const Json* ObjectReader::array(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    fail(name, std::string("must be a list, not ") + value->type_name());
    return nullptr;
  }
  if (value->size() > kListMax) {
    fail(name, "has more than " + std::to_string(kListMax) + " entries");
    return nullptr;
  }
  return value;
}

Status ObjectReader::finish() {
  if (status_.ok() && unknown_ == Unknown::strict) {
    for (const auto& [name, value] : object_.items()) {
      if (std::find(seen_.begin(), seen_.end(), name) != seen_.end()) continue;
      std::string known;
      for (const auto& field : seen_) known += (known.empty() ? "" : ", ") + field;
      status_ = make_error(Errc::usage, "unknown field \"" + path_of(name) + "\"", 0,
                           "known fields: " + known);
      break;
    }
  }
  return std::move(status_);
}

}  // namespace ferry::api
