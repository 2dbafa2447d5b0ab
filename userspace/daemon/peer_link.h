// SPDX-License-Identifier: GPL-2.0-or-later
// SourceSession: the source's control connection to the peer's daemon. Implements the brain's PeerLink; a
// reader thread turns the peer's messages into events. A question about ownership is asked over new
// connections until it is answered. Also opens the session's other connections.
// Thread-safety: the port's methods from the control loop; open_* from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "daemon/config.h"
#include "daemon/control_loop.h"
#include "daemon/messages.h"
#include "migration/source.h"
#include "wire/channel.h"

namespace ferry::daemon {

// Connects and exchanges hello and welcome. The error tells a peer that does not answer from one that
// refuses us.
Result<std::unique_ptr<wire::Channel>> open_connection(const Config& config, const api::HostPort& peer,
                                                       Purpose purpose, const std::string& session,
                                                       Welcome* welcome = nullptr);

class SourceSession : public migration::PeerLink {
 public:
  using Post = std::function<void(migration::SourceEvent)>;

  SourceSession(const Config& config, api::HostPort peer, std::string session, PrepareRequest request, Post post);
  ~SourceSession() override;

  void connect() override;
  void prepare() override;
  void close_gate() override;
  void ask_ready() override;
  void grant() override;
  void revoke() override;
  void ask_return() override;
  void ask_digests() override;
  void finish() override;
  void abort() override;

  // abort() asks besides that nothing of what was copied is kept. Any thread.
  void discard_on_abort() { discard_ = true; }

  // Data streams for the Sender, as many as asked for in the request.
  Result<std::vector<std::unique_ptr<wire::Channel>>> open_streams();
  Result<std::unique_ptr<wire::Channel>> open_libvirt();

  // Ends the control connection, without waiting for it; what comes or breaks after it is no event any more. The
  // destructor waits.
  void close();
  // Where the peer is, without its port; valid once connected was posted.
  std::string peer_address() const;

  // Valid once peer_prepared, respectively peer_digests, was posted.
  PrepareReply reply() const;
  std::vector<DiskDigest> digests() const;

 private:
  using T = migration::SourceEventType;

  void read_loop(wire::Channel& channel);
  bool take(const Json& message);
  void lost(const Error& error);
  void send(const Json& message);
  void request(T due, const Json& message);
  void ask(std::string_view question);
  void ask_now();
  void ask_later(std::chrono::milliseconds pause);
  Status connect_again();
  void hang_up();
  void answered();

  const Config& config_;
  api::HostPort peer_;
  std::string session_;
  PrepareRequest request_;
  Post post_;
  std::unique_ptr<wire::Channel> channel_;  // changed by the worker only, while no reader runs
  std::string peer_address_;
  mutable std::mutex mutex_;  // guards what follows, up to due_
  std::condition_variable closing_changed_;
  PrepareReply reply_;
  std::vector<DiskDigest> digests_;
  bool closing_ = false;      // we ended it ourselves: its end is no link loss
  bool hanging_up_ = false;   // this connection's end is no link loss
  std::optional<Json> question_;  // asked again until it is answered
  unsigned tries_ = 0;            // of the question
  // Which of our questions an "error" message answers.
  std::atomic<bool> discard_{false};
  std::atomic<T> due_{T::peer_prepared};
  std::thread reader_;
  Worker worker_;             // connect and sends: they may block
};

}  // namespace ferry::daemon
