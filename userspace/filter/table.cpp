// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/table.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace ferry::filter {
namespace {

// Cuts the next word off `rest`; empty at the end.
std::string_view take_word(std::string_view& rest) {
  size_t first = rest.find_first_not_of(' ');
  if (first == std::string_view::npos) {
    rest = {};
    return {};
  }
  rest.remove_prefix(first);
  size_t length = std::min(rest.find(' '), rest.size());
  std::string_view word = rest.substr(0, length);
  rest.remove_prefix(length);
  return word;
}

std::optional<uint64_t> parse_number(std::string_view word) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (word.empty() || error != std::errc() || end != word.data() + word.size())
    return std::nullopt;
  return value;
}

std::optional<DmLine> parse_line(std::string_view text) {
  auto start = parse_number(take_word(text));
  auto length = parse_number(take_word(text));
  std::string_view type = take_word(text);
  if (!start || !length || *length == 0 || type.empty()) return std::nullopt;
  if (!text.empty()) text.remove_prefix(1);
  return DmLine{*start, *length, std::string(type), std::string(text)};
}

constexpr const char* kDoor = "-ferry";
constexpr const char* kLower = "-ferryreal";

std::string base_uuid(const std::string& volume_uuid, const std::string& volume_name) {
  return volume_uuid.empty() ? "FERRY-" + volume_name : volume_uuid;
}

}  // namespace

std::string to_text(const DmTable& table) {
  std::string text;
  for (const auto& line : table) {
    if (!text.empty()) text += '\n';
    text += std::to_string(line.start) + ' ' + std::to_string(line.length) + ' ' + line.type;
    if (!line.params.empty()) text += ' ' + line.params;
  }
  return text;
}

std::optional<DmTable> parse_table(std::string_view text) {
  DmTable table;
  while (!text.empty()) {
    size_t length = std::min(text.find('\n'), text.size());
    auto line = parse_line(text.substr(0, length));
    if (!line) return std::nullopt;
    table.push_back(std::move(*line));
    text.remove_prefix(std::min(length + 1, text.size()));
  }
  return table;
}

uint64_t sectors_of(const DmTable& table) {
  return table.empty() ? 0 : table.back().start + table.back().length;
}

bool all_lines_are(const DmTable& table, std::string_view type) {
  return !table.empty() &&
         std::ranges::all_of(table, [&](const DmLine& line) { return line.type == type; });
}

std::optional<FerryLine> parse_ferry_line(const DmLine& line) {
  if (line.type != "ferry") return std::nullopt;
  std::string_view rest = line.params;
  std::string_view device = take_word(rest);
  auto offset = parse_number(take_word(rest));
  auto uuid = parse_uuid(take_word(rest));
  if (device.empty() || !offset || !uuid || !take_word(rest).empty()) return std::nullopt;
  return FerryLine{std::string(device), *offset, *uuid};
}

std::optional<TrackerUuid> tracker_of(const DmTable& table) {
  std::optional<TrackerUuid> uuid;
  for (const auto& line : table) {
    auto ferry = parse_ferry_line(line);
    if (!ferry || (uuid && *uuid != ferry->uuid)) return std::nullopt;
    uuid = ferry->uuid;
  }
  return uuid;
}

DmTable linear_to_ferry(const DmTable& table, const TrackerUuid& uuid) {
  DmTable result = table;
  for (auto& line : result) {
    line.type = "ferry";
    line.params += ' ' + to_text(uuid);
  }
  return result;
}

Result<DmTable> ferry_to_linear(const DmTable& table) {
  DmTable result;
  for (const auto& line : table) {
    auto ferry = parse_ferry_line(line);
    if (!ferry)
      return make_error(Errc::unsupported, "not a ferry line: \"" + to_text(DmTable{line}) + '"', 0,
                        "use the migrate-ctl that fits the loaded module");
    result.push_back({line.start, line.length, "linear",
                      ferry->device + ' ' + std::to_string(ferry->offset)});
  }
  return result;
}

DmTable stacked_ferry(const std::string& device, uint64_t sectors, const TrackerUuid& uuid) {
  return {{0, sectors, "ferry", device + " 0 " + to_text(uuid)}};
}

bool may_be_stacked(std::string_view type) {
  static constexpr std::array<std::string_view, 8> kStateless{
      "linear", "striped", "thin", "crypt", "delay", "flakey", "zero", "snapshot-origin"};
  return std::ranges::find(kStateless, type) != kStateless.end();
}

std::string door_name(const std::string& volume) { return volume + kDoor; }
std::string lower_name(const std::string& volume) { return volume + kLower; }

std::string door_uuid(const std::string& volume_uuid, const std::string& volume_name) {
  return base_uuid(volume_uuid, volume_name) + kDoor;
}

std::string lower_uuid(const std::string& volume_uuid, const std::string& volume_name) {
  return base_uuid(volume_uuid, volume_name) + kLower;
}

bool is_own_device(const std::string& name, const std::string& uuid) {
  return (name.ends_with(kDoor) && uuid.ends_with(kDoor)) || (name.ends_with(kLower) && uuid.ends_with(kLower));
}

}  // namespace ferry::filter
