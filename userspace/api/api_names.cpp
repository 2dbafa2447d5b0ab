// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/api_names.h"

#include <cstdio>
#include <ctime>

#include "api/api_types.h"

namespace ferry::api {
namespace {

// Letters, digits, dot, dash: host names and IPv4. Colons and '%' only inside brackets.
bool is_host(std::string_view host, bool bracketed) {
  if (host.empty() || host.size() > 253 || host.front() == '-') return false;
  for (const char c : host) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
    if (!plain && !(bracketed && (c == ':' || c == '%'))) return false;
  }
  return true;
}

std::optional<uint16_t> parse_port(std::string_view text) {
  if (text.empty() || text.size() > 5) return std::nullopt;
  unsigned port = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    port = port * 10 + static_cast<unsigned>(c - '0');
  }
  if (port == 0 || port > 65535) return std::nullopt;
  return static_cast<uint16_t>(port);
}

}  // namespace

std::string_view name_of(DiskRole value) { return look_up(value, kRoleNames); }
std::string_view name_of(Direction value) { return look_up(value, kDirectionNames); }
std::string_view name_of(JobState value) { return look_up(value, kJobStateNames); }
std::string_view name_of(Owner value) { return look_up(value, kOwnerNames); }
std::string_view name_of(Method value) { return look_up(value, kMethodNames); }
std::string_view name_of(DestinationAction value) { return look_up(value, kActionNames); }

std::optional<DiskRole> role_from_name(std::string_view name) {
  for (const auto& [value, known] : kRoleNames)
    if (known == name) return value;
  return std::nullopt;
}

bool is_final(JobState state) {
  return state == JobState::done || state == JobState::failed || state == JobState::aborted;
}

bool all_ok(const std::vector<Check>& checks) {
  for (const auto& check : checks)
    if (!check.ok) return false;
  return true;
}

Time now() {
  return std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
}

std::string format_time(Time time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const std::time_t stamp = seconds.time_since_epoch().count();
  std::tm utc{};
  gmtime_r(&stamp, &utc);
  char day[32];
  char text[48];
  std::strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text, sizeof text, "%s.%03dZ", day, static_cast<int>((time - seconds).count()));
  return text;
}

std::optional<Time> parse_time(std::string_view text) {
  const std::string copy(text);
  std::tm utc{};
  int ms = 0;
  int end = 0;
  if (copy.size() != 24 ||
      std::sscanf(copy.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &utc.tm_year, &utc.tm_mon,
                  &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &ms, &end) != 7 ||
      end != 24)
    return std::nullopt;
  utc.tm_year -= 1900;
  utc.tm_mon -= 1;
  const Time time{std::chrono::seconds(timegm(&utc)) + std::chrono::milliseconds(ms)};
  // timegm() turns the 31st of June into the 1st of July; such a text is not a time.
  if (format_time(time) != copy) return std::nullopt;
  return time;
}

Result<HostPort> parse_host_port(const std::string& text) {
  const auto bad = [&] {
    return make_error(Errc::usage, "\"" + text + "\" is not a host name with an optional port", 0,
                      "write hostb, hostb:7391 or [2001:db8::1]:7391");
  };
  HostPort peer;
  std::string_view rest = text;
  const bool bracketed = !rest.empty() && rest.front() == '[';
  size_t end = rest.size();
  if (bracketed) {
    end = rest.find(']');
    if (end == std::string_view::npos) return bad();
    peer.host = rest.substr(1, end - 1);
    rest.remove_prefix(end + 1);
  } else {
    end = std::min(rest.find(':'), rest.size());
    peer.host = rest.substr(0, end);
    rest.remove_prefix(end);
  }
  if (!is_host(peer.host, bracketed)) return bad();
  if (rest.empty()) return peer;
  const auto port = rest.front() == ':' ? parse_port(rest.substr(1)) : std::nullopt;
  if (!port) return bad();
  peer.port = *port;
  return peer;
}

std::string to_string(const HostPort& peer) {
  const bool v6 = peer.host.find(':') != std::string::npos;
  return (v6 ? "[" + peer.host + "]" : peer.host) + ":" + std::to_string(peer.port);
}

}  // namespace ferry::api
