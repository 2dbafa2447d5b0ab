// SPDX-License-Identifier: GPL-2.0-or-later
// IncomingJob: the destination's end of one session: the machine, its volumes, and the control connection,
// which may break and be followed by another.
// Ownership: kept by the Jobs registry; lives until its machine has ended and its threads are gone.
// Thread-safety: serve_* in their connections' threads; the machine runs on the loop.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <string>

#include "api/api_types.h"
#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/destination_device.h"
#include "daemon/messages.h"
#include "daemon/session_ledger.h"
#include "wire/channel.h"

namespace ferry::daemon {

class IncomingJob : public migration::SourceLink, public std::enable_shared_from_this<IncomingJob> {
 public:
  // What this host knows of a session's disks before it begins.
  struct KnownDisks {
    std::vector<store::DiskRecord> records;     // one for each disk that moves: what the session begins with
    std::vector<store::DiskRecord> old_copies;  // what is on record of volumes with an older or incomplete copy
  };
  // `channel`: the first control connection, for what it tells about the source.
  IncomingJob(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Hello hello, PrepareRequest request,
              const wire::Channel& channel, std::function<void(const api::JobStatus&)> changed);
  ~IncomingJob() override;

  // Begins the session; its first control connection is served next.
  void start();
  // Serves a control connection until it ends; a later one takes the earlier one's place. Blocks.
  void serve_control(wire::Channel& channel);
  // One data stream, respectively one libvirt connection, until it ends. Blocks.
  Status serve_data(wire::Channel& channel);
  Status serve_libvirt(wire::Channel& channel);

  const std::string& id() const { return hello_.session; }
  bool ended() const;  // any thread
  // Until everything is taken back, or the disks are this host's for good. Any thread but the loop's.
  void wait_settled();
  api::JobStatus status() const;  // any thread

 private:
  IncomingJob(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Hello hello, PrepareRequest request,
              const wire::Channel& channel, std::function<void(const api::JobStatus&)> changed, KnownDisks known);
  void answer(std::string_view what) override;
  void refuse(const Error& error) override;
  void send(Json message);
  void post(migration::DestinationEvent event);
  void take(const Json& message);
  void answer_pending();
  void refresh();

  const Config& config_;
  ControlLoop& loop_;
  store::OwnershipStore& store_;
  Hello hello_;
  PrepareRequest request_;
  std::function<void(const api::JobStatus&)> changed_;
  DestinationDisks disks_;
  SessionLedger ledger_;
  migration::Destination machine_;
  std::optional<Json> question_;       // about ownership, not answered yet; the loop's
  std::stop_source stop_tunnels_;
  std::atomic<bool> prepared_{false};
  std::atomic<bool> tunnelled_{false};  // the source's libvirt spoke to ours: a guest may be waiting for memory
  mutable std::mutex mutex_;  // guards status_, ended_ and settled_
  std::condition_variable settled_changed_;
  bool ended_ = false;
  bool settled_ = false;
  api::JobStatus status_;
  std::mutex channel_mutex_;           // guards channel_ and its use for sending
  wire::Channel* channel_ = nullptr;   // where the source listens now
  Worker sender_;             // messages to the source: sending may block
};

}  // namespace ferry::daemon
