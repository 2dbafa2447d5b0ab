// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/disk_record.h"

#include <array>
#include <chrono>
#include <utility>

namespace ferry::store {
namespace {

// The names are what the database holds: they may be added to, never changed.
constexpr std::array<std::pair<Holding, std::string_view>, 7> kNames{{
    {Holding::moving, "moving"},
    {Holding::granting, "granting"},
    {Holding::given, "given"},
    {Holding::receiving, "receiving"},
    {Holding::prepared, "prepared"},
    {Holding::owned, "owned"},
    {Holding::revoked, "revoked"},
}};

}  // namespace

std::string_view holding_name(Holding holding) {
  for (const auto& [value, name] : kNames)
    if (value == holding) return name;
  return "unknown";
}

std::optional<Holding> holding_from_name(std::string_view name) {
  for (const auto& [value, known] : kNames)
    if (known == name) return value;
  return std::nullopt;
}

std::int64_t unix_now() {
  using namespace std::chrono;
  return duration_cast<seconds>(system_clock::now().time_since_epoch()).count();
}

bool is_barred(Holding holding) {
  switch (holding) {
    case Holding::moving:
    case Holding::owned:
    // Nobody's contents: a volume that was made for them is gone, another is as it was before. One that held
    // an older copy of the disk is on record as given.
    case Holding::revoked: return false;
    case Holding::granting:
    case Holding::given:
    case Holding::receiving:
    case Holding::prepared: return true;
  }
  return true;  // what nobody knows, nobody may write to
}

}  // namespace ferry::store
