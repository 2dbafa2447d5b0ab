// SPDX-License-Identifier: GPL-2.0-or-later
// Reading JSON that somebody else wrote: parse_json() bounds depth and refuses duplicate keys,
// ObjectReader takes typed fields out of one object and names the field that is wrong.
// Ownership: a reader borrows the object. Thread-safety: none needed, one reader per call.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry::api {

// Keeps the order in which fields were written, so that people read id and state first.
using Json = nlohmann::ordered_json;

// Parses one JSON text. `code` is the kind of error for anything that is not valid JSON.
Result<Json> parse_json(std::string_view text, Errc code);
// Writes it on one line. Bytes that are not UTF-8 (file names may hold any) become U+FFFD.
std::string write_json(const Json& value);

enum class Need { optional, required };
// strict: requests; a field we do not know is an error. lenient: answers of a newer daemon.
enum class Unknown { strict, lenient };

inline constexpr size_t kTextBytesMax = 4096;  // paths are the longest texts we take (PATH_MAX)

// The first error sticks; later calls do nothing. finish() returns it.
class ObjectReader {
 public:
  ObjectReader(const Json& object, std::string where, Unknown unknown);

  void text(std::string_view name, std::string& out, Need need = Need::optional,
            size_t bytes_max = kTextBytesMax);
  void text(std::string_view name, std::optional<std::string>& out);
  void texts(std::string_view name, std::vector<std::string>& out);
  void flag(std::string_view name, bool& out);
  void flag(std::string_view name, std::optional<bool>& out);
  void number(std::string_view name, uint64_t& out);
  void number(std::string_view name, std::optional<uint64_t>& out, uint64_t min = 0,
              uint64_t max = std::numeric_limits<int64_t>::max());
  void real(std::string_view name, double& out);
  // The field's value if it is there, not null and of this shape, else nullptr.
  const Json* object(std::string_view name);
  const Json* array(std::string_view name);

  // `names` is a table of {value, name}.
  template <typename Enum, typename Table>
  void choice(std::string_view name, Enum& out, const Table& names) {
    std::string word;
    if (!has(name)) return;
    text(name, word);
    if (!status_.ok()) return;
    for (const auto& [value, known] : names) {
      if (known == word) {
        out = value;
        return;
      }
    }
    std::string all;
    for (const auto& row : names) all += (all.empty() ? "" : ", ") + std::string(row.second);
    fail(name, "must be one of " + all + ", not \"" + word + "\"");
  }

  void fail(std::string_view name, const std::string& why);
  // Takes over a status of a nested reader.
  void join(Status status);
  bool ok() const { return status_.ok(); }
  std::string path_of(std::string_view name) const;
  Unknown policy() const { return unknown_; }
  // Unknown fields are found here; call it last.
  Status finish();

 private:
  const Json* find(std::string_view name);
  bool has(std::string_view name);
  Errc code() const { return unknown_ == Unknown::strict ? Errc::usage : Errc::protocol; }

  const Json& object_;
  std::string where_;
  Unknown unknown_;
  Status status_ = ok_status();
  std::vector<std::string> seen_;
};

}  // namespace ferry::api
