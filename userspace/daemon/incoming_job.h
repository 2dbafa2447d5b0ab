// SPDX-License-Identifier: GPL-2.0-or-later
// IncomingJob: the destination's end of one session: the machine, its volumes and the control connection.
// Ownership: kept by the Jobs registry; lives until its machine has ended and its threads are gone.
// Thread-safety: run() in the control connection's thread, serve_* in their own; handle() on the loop.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "api/api_types.h"
#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/destination_device.h"
#include "daemon/messages.h"
#include "wire/channel.h"

namespace ferry::daemon {

class IncomingJob : public migration::SourceLink {
 public:
  IncomingJob(const Config& config, ControlLoop& loop, Hello hello, PrepareRequest request, wire::Channel& channel,
              std::function<void(const api::JobStatus&)> changed);
  ~IncomingJob() override;

  // Serves the control connection until the session has ended on both sides. Blocks.
  void run();
  // One data stream, respectively one libvirt connection, until it ends. Blocks.
  Status serve_data(wire::Channel& channel);
  Status serve_libvirt(wire::Channel& channel);

  const std::string& id() const { return hello_.session; }
  api::JobStatus status() const;  // any thread

 private:
  void answer(std::string_view what) override;
  void refuse(const Error& error) override;
  void send(Json message);
  void post(migration::DestinationEvent event);
  void refresh();

  const Config& config_;
  ControlLoop& loop_;
  Hello hello_;
  PrepareRequest request_;
  wire::Channel& channel_;
  std::function<void(const api::JobStatus&)> changed_;
  DestinationDisks disks_;
  migration::Destination machine_;
  std::stop_source stop_tunnels_;
  std::atomic<bool> prepared_{false};
  mutable std::mutex mutex_;  // guards status_ and ended_
  std::condition_variable ended_changed_;
  bool ended_ = false;
  api::JobStatus status_;
  Worker sender_;             // messages to the source: sending may block
};

}  // namespace ferry::daemon
