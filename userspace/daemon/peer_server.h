// SPDX-License-Identifier: GPL-2.0-or-later
// PeerServer: takes connections of other hosts' daemons: TLS handshake, hello, then whatever the connection
// is for. One thread per connection, at most kMaxConnections; opens no network address without keys.
// Thread-safety: start and stop from the main thread.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/jobs.h"
#include "daemon/version.h"
#include "wire/channel.h"
#include "wire/listener.h"

namespace ferry::daemon {

class PeerServer {
 public:
  // A session has one control, up to 16 data and a few libvirt connections; many sessions fit.
  static constexpr std::size_t kMaxConnections = 256;

  PeerServer(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Jobs& jobs,
             std::function<void(const api::JobStatus&)> changed);
  ~PeerServer();

  // Errc::permission when the keys are missing: the daemon then runs without a network address.
  Status start();
  void stop();

 private:
  struct Connection {
    std::unique_ptr<wire::Channel> channel;
    std::thread thread;
    bool done = false;
  };

  void accept_loop();
  void serve(Fd socket, Connection& connection);
  void serve_control(const Hello& hello, wire::Channel& channel);
  void serve_owner(const Hello& hello, wire::Channel& channel);
  void reap();

  const Config& config_;
  ControlLoop& loop_;
  store::OwnershipStore& store_;
  Jobs& jobs_;
  std::function<void(const api::JobStatus&)> changed_;
  std::shared_ptr<wire::TlsContext> tls_;
  std::optional<wire::Listener> listener_;
  std::thread acceptor_;
  std::mutex mutex_;  // guards connections_ and stopping_
  std::list<Connection> connections_;
  bool stopping_ = false;
};

}  // namespace ferry::daemon
