// SPDX-License-Identifier: GPL-2.0-or-later
#include "units.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace ferry::ctl {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

constexpr double kKib = 1024.0;
constexpr double kMib = 1024.0 * kKib;
constexpr double kGib = 1024.0 * kMib;
constexpr double kTib = 1024.0 * kGib;
constexpr std::array kSizeUnits{
    Unit{"", 1},        Unit{"B", 1},        Unit{"K", kKib},    Unit{"k", kKib},
    Unit{"M", kMib},    Unit{"G", kGib},     Unit{"T", kTib},    Unit{"KiB", kKib},
    Unit{"MiB", kMib},  Unit{"GiB", kGib},   Unit{"TiB", kTib},  Unit{"kB", 1e3},
    Unit{"KB", 1e3},    Unit{"MB", 1e6},     Unit{"GB", 1e9},    Unit{"TB", 1e12},
    Unit{"kbit", 125},  Unit{"Mbit", 125e3}, Unit{"Gbit", 125e6}, Unit{"Tbit", 125e9}};

constexpr std::array kTimeUnits{Unit{"ms", 1},       Unit{"s", 1e3},   Unit{"m", 60e3},
                                Unit{"min", 60e3},   Unit{"h", 3600e3}};

// Splits "1.5GiB" into 1.5 and "GiB".
Result<std::pair<double, std::string_view>> split(std::string_view text, const char* example) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value,
                                            std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(value) || value < 0 || text.front() == '-')
    return make_error(Errc::usage, fmt::format("\"{}\" is not a number with a unit", text), 0,
                      fmt::format("write for example {}", example));
  std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  return std::pair{value, unit};
}

template <typename Table>
Result<uint64_t> scaled(std::string_view text, double value, std::string_view unit,
                        const Table& table, const char* example) {
  for (const auto& known : table) {
    if (known.name != unit) continue;
    const double result = std::round(value * known.factor);
    if (result >= 9.2e18)
      return make_error(Errc::usage, fmt::format("\"{}\" is too large", text));
    return static_cast<uint64_t>(result);
  }
  return make_error(Errc::usage, fmt::format("\"{}\" has an unknown unit \"{}\"", text, unit), 0,
                    fmt::format("write for example {}", example));
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  constexpr const char* kExample = "100M, 100MiB, 100MB or 1Gbit";
  auto parts = split(text, kExample);
  if (!parts.ok()) return std::move(parts).error();
  auto [value, unit] = *parts;
  if (unit.ends_with("/s")) unit.remove_suffix(2);
  return scaled(text, value, unit, kSizeUnits, kExample);
}

Result<uint64_t> parse_duration_ms(std::string_view text, uint64_t unit_ms) {
  constexpr const char* kExample = "300ms, 1.5s, 10m or 2h";
  auto parts = split(text, kExample);
  if (!parts.ok()) return std::move(parts).error();
  if (parts->second.empty()) {
    const std::array bare{Unit{"", static_cast<double>(unit_ms)}};
    return scaled(text, parts->first, "", bare, kExample);
  }
  return scaled(text, parts->first, parts->second, kTimeUnits, kExample);
}

std::string format_size(uint64_t bytes) {
  constexpr std::array kNames{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  // Three digits are what one compares at a glance.
  const int decimals = unit == 0 || value >= 99.95 ? 0 : 1;
  return fmt::format("{:.{}f} {}", value, decimals, kNames[unit]);
}

std::string format_rate(uint64_t bytes_per_s) { return format_size(bytes_per_s) + "/s"; }

std::string format_duration(uint64_t ms) {
  if (ms < 1000) return fmt::format("{} ms", ms);
  if (ms < 59'950) return fmt::format("{:.1f} s", static_cast<double>(ms) / 1000);
  const uint64_t s = (ms + 500) / 1000;
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string printable(std::string_view text) {
  std::string out(text);
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return out;
}

}  // namespace ferry::ctl
