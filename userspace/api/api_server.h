// SPDX-License-Identifier: GPL-2.0-or-later
// ApiServer: the admin API (docs/api.md) as HTTP/1.1 on a unix socket. Every connection has a
// thread of its own, because a watcher of events stays for hours; their number is bounded.
// Ownership: borrows backend and feed, which must outlive it; the destructor stops it.
// Thread-safety: start() and stop() from one thread; the backend is called from many.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "api/api_backend.h"
#include "api/event_feed.h"
#include "base/result.h"

namespace ferry::api {

struct ApiServerOptions {
  std::string socket_path = kSocketPathDefault;
  std::string admin_group = "ferry";  // its members may use the API, if the group exists
  size_t connections_max = 64;        // threads; further clients get 503
  std::chrono::milliseconds keep_alive_timeout{5'000};
  std::chrono::milliseconds request_timeout{10'000};
  std::chrono::milliseconds write_timeout{30'000};
  std::chrono::milliseconds heartbeat{15'000};  // a line on an event stream with nothing to tell
};

// HTTP status that goes with an error document.
int http_status(Errc code);

class ApiServer {
 public:
  static Result<std::unique_ptr<ApiServer>> start(const ApiServerOptions& options,
                                                  ApiBackend& backend, EventFeed& feed);
  ~ApiServer();
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  // Ends all connections, event streams included, and waits for their threads.
  void stop();

 private:
  class Impl;
  explicit ApiServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ferry::api
