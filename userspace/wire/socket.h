// SPDX-License-Identifier: GPL-2.0-or-later
// Plain TCP helpers below the TLS layer: dialling with a time limit, options, names of addresses.
// Internal to wire/. Thread-safe: functions without state.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace ferry::wire {

// A moment by which something has to be done; default-constructed: never.
class Deadline {
 public:
  Deadline() = default;
  explicit Deadline(int timeout_ms) {
    if (timeout_ms >= 0)
      at_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  }
  // For poll(): rounded up, -1 when there is no limit.
  int remaining_ms() const;
  bool passed() const { return at_ && std::chrono::steady_clock::now() >= *at_; }

 private:
  std::optional<std::chrono::steady_clock::time_point> at_;
};

// Tries every address of the host until one answers.
Result<Fd> dial(const std::string& host, uint16_t port, const Deadline& deadline);
// Non-blocking, no Nagle, and a dead peer is noticed after `dead_after_ms`. Sockets that are not
// TCP keep what they have.
Status prepare_socket(int fd, int dead_after_ms);
// "192.0.2.7:7391", "[2001:db8::1]:7391"; "a local socket" for anything else.
std::string peer_address_of(int fd);
// "host:port", with brackets where the host is an IPv6 address.
std::string join_host_port(const std::string& host, uint16_t port);

}  // namespace ferry::wire
