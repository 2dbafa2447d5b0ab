// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/peer_link.h"

#include "base/log.h"
#include "daemon/version.h"
#include "wire/control.h"

namespace ferry::daemon {

using migration::failure_of;
using T = migration::SourceEventType;

namespace {

constexpr int kConnectTimeoutMs = 10'000;

}  // namespace

Result<std::unique_ptr<wire::Channel>> open_connection(const Config& config, const api::HostPort& peer,
                                                       Purpose purpose, const std::string& session,
                                                       Welcome* welcome) {
  auto tls = load_tls(config);
  if (!tls) return std::move(tls).error();
  auto channel = wire::Channel::connect(peer.host, peer.port, *tls, kConnectTimeoutMs);
  if (!channel) return std::move(channel).error();
  Hello hello;
  hello.version = kVersion;
  hello.host = config.host_name;
  hello.purpose = purpose;
  hello.session = session;
  FERRY_TRY(wire::send_control(**channel, to_json(hello)));
  auto answer = wire::receive_control(**channel);
  if (!answer) return std::move(answer).error();
  auto decoded = welcome_from(*answer);
  if (!decoded) return std::move(decoded).error();
  if (decoded->protocol != kProtocolVersion)
    return make_error(Errc::peer_refused,
                      "ferryd on " + peer.host + " speaks protocol " + std::to_string(decoded->protocol) +
                          ", this one " + std::to_string(kProtocolVersion),
                      0, "install the same version of Ferry on both hosts");
  if (welcome) *welcome = *decoded;
  return std::move(*channel);
}

SourceSession::SourceSession(const Config& config, api::HostPort peer, std::string session, PrepareRequest request,
                             Post post)
    : config_(config), peer_(std::move(peer)), session_(std::move(session)), request_(std::move(request)),
      post_(std::move(post)) {}

SourceSession::~SourceSession() {
  close();
  if (reader_.joinable()) reader_.join();
}

void SourceSession::close() {
  // Behind what is still to be said, and behind a connect under way.
  std::promise<void> done;
  worker_.post([this, &done] {
    {
      std::lock_guard lock(mutex_);
      closing_ = true;
    }
    if (channel_) channel_->abort();
    done.set_value();
  });
  done.get_future().wait();
}

std::string SourceSession::peer_address() const {
  const auto& address = channel_->peer_address();
  const auto colon = address.rfind(':');
  auto host = address.substr(0, colon);
  if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return host;
}

void SourceSession::connect() {
  worker_.post([this] {
    auto channel = open_connection(config_, peer_, Purpose::control, session_);
    if (!channel) return post_(failure_of(T::connected, std::move(channel).error()));
    channel_ = std::move(*channel);
    reader_ = std::thread([this] { read_loop(); });
    post_({T::connected});
  });
}

// A message that cannot be sent needs no report of its own: the reader sees the same broken link.
void SourceSession::send(const Json& message) {
  worker_.post([this, message] {
    if (auto sent = wire::send_control(*channel_, message); !sent)
      spdlog::debug("session {}: {}", session_, sent.error().message());
  });
}

void SourceSession::prepare() { send(to_json(request_)); }
void SourceSession::close_gate() { send(plain_message("close_gate")); }
void SourceSession::ask_ready() { send(plain_message("ready?")); }
void SourceSession::grant() { send(plain_message("grant")); }
void SourceSession::ask_digests() { send(plain_message("digests?")); }

void SourceSession::finish() { send(plain_message("finish")); }

void SourceSession::abort() {
  due_ = T::peer_aborted;
  send(plain_message("abort"));
}

void SourceSession::read_loop() {
  for (;;) {
    auto message = wire::receive_control(*channel_);
    if (!message) {
      std::lock_guard lock(mutex_);
      if (closing_) return;
      migration::SourceEvent lost{T::link_lost};
      lost.error = make_error(Errc::peer_unreachable, "lost the link to " + peer_.host + " (" + message.error().what + ")",
                              message.error().sys, "look at the network and at ferryd on " + peer_.host);
      return post_(std::move(lost));
    }
    const auto type = type_of(*message);
    if (type == "prepared") {
      auto reply = prepare_reply_from(*message);
      if (!reply) {
        post_(failure_of(T::peer_prepared, std::move(reply).error()));
        continue;
      }
      {
        std::lock_guard lock(mutex_);
        reply_ = std::move(*reply);
      }
      due_ = T::peer_ready;
      post_({T::peer_prepared});
    } else if (type == "ready") {
      due_ = T::peer_opened;
      post_({T::peer_ready});
    } else if (type == "opened") {
      due_ = T::peer_digests;
      post_({T::peer_opened});
    } else if (type == "digests") {
      auto digests = digests_from(*message);
      if (!digests) {
        post_(failure_of(T::peer_digests, std::move(digests).error()));
        continue;
      }
      {
        std::lock_guard lock(mutex_);
        digests_ = std::move(*digests);
      }
      due_ = T::peer_finished;
      post_({T::peer_digests});
    } else if (type == "finished" || type == "aborted") {
      std::lock_guard lock(mutex_);
      closing_ = true;
      post_({type == "finished" ? T::peer_finished : T::peer_aborted});
    } else if (type == "error") {
      Error error = error_from(*message);
      error.what = peer_.host + ": " + error.what;
      post_(failure_of(due_, std::move(error)));
    } else {
      post_(failure_of(due_, make_error(Errc::protocol, "the peer sent an unknown message")));
    }
  }
}

Result<std::vector<std::unique_ptr<wire::Channel>>> SourceSession::open_streams() {
  std::vector<std::unique_ptr<wire::Channel>> streams;
  for (unsigned n = 0; n < request_.streams; ++n) {
    auto channel = open_connection(config_, peer_, Purpose::data, session_);
    if (!channel) return std::move(channel).error();
    streams.push_back(std::move(*channel));
  }
  return streams;
}

Result<std::unique_ptr<wire::Channel>> SourceSession::open_libvirt() {
  return open_connection(config_, peer_, Purpose::libvirt, session_);
}

PrepareReply SourceSession::reply() const {
  std::lock_guard lock(mutex_);
  return reply_;
}

std::vector<DiskDigest> SourceSession::digests() const {
  std::lock_guard lock(mutex_);
  return digests_;
}

}  // namespace ferry::daemon
