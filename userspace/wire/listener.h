// SPDX-License-Identifier: GPL-2.0-or-later
// Listener: a listening TCP socket for peers. Hands out plain sockets; Channel::accept does the
// rest, best in a thread of its own so that a slow peer keeps nobody waiting.
// Owns its socket. Thread-safety: one thread accepts, stop() from any thread ends it for good.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace ferry::wire {

class Listener {
 public:
  // An empty address means every address of the host; port 0 lets the kernel choose.
  static Result<Listener> bind(const std::string& address, uint16_t port);

  // Errc::timeout when nobody came (-1 waits for ever), Errc::aborted after stop().
  Result<Fd> accept(int timeout_ms);
  void stop();
  uint16_t port() const { return port_; }

 private:
  Listener(Fd socket, Fd wake, uint16_t port)
      : socket_(std::move(socket)), wake_(std::move(wake)), port_(port) {}

  Fd socket_;
  Fd wake_;
  uint16_t port_;
};

}  // namespace ferry::wire
