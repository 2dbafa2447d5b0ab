// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/peer_link.h"

#include "base/backoff.h"
#include "base/log.h"
#include "daemon/version.h"
#include "wire/control.h"

namespace ferry::daemon {

using migration::failure_of;

namespace {

constexpr int kConnectTimeoutMs = 10'000;
// A question about ownership is asked again after these pauses: doubled from the first to the last.
constexpr std::chrono::milliseconds kFirstPause{250};
constexpr std::chrono::milliseconds kLastPause{30'000};

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
  auto answer = wire::receive_control_within(**channel, kConnectTimeoutMs);
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

SourceSession::~SourceSession() { close(); }

void SourceSession::close() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    question_.reset();
    closing_changed_.notify_all();
  }
  // Behind what is still to be said, and behind a connect under way: a peer that hangs must not hold up the caller.
  worker_.post([this] { hang_up(); });
}

// On the worker. The channel object stays until the next one: others may be looking at it.
void SourceSession::hang_up() {
  const auto hanging_up = [this](bool now) {
    std::lock_guard lock(mutex_);
    hanging_up_ = now;
  };
  hanging_up(true);
  if (channel_) channel_->abort();
  if (reader_.joinable()) reader_.join();
  hanging_up(false);
}

std::string SourceSession::peer_address() const {
  std::lock_guard lock(mutex_);
  return peer_address_;
}

void SourceSession::connect() {
  worker_.post([this] {
    auto channel = open_connection(config_, peer_, Purpose::control, session_);
    if (!channel) return post_(failure_of(T::connected, std::move(channel).error()));
    channel_ = std::move(*channel);
    {
      std::lock_guard lock(mutex_);
      peer_address_ = channel_->peer_host();
    }
    post_({T::connected});  // before anything that the reader has to say
    reader_ = std::thread([this] { read_loop(*channel_); });
  });
}

// A message that cannot be sent needs no report of its own: the reader sees the same broken link.
void SourceSession::send(const Json& message) {
  worker_.post([this, message] {
    if (!channel_) return;
    if (auto sent = wire::send_control(*channel_, message); !sent)
      spdlog::debug("session {}: {}", session_, sent.error().message());
  });
}

// `due`: the event that the answer will be, so that an "error" instead of it is not taken for another's.
void SourceSession::request(T due, const Json& message) {
  due_ = due;
  send(message);
}

void SourceSession::prepare() { request(T::peer_prepared, to_json(request_)); }
void SourceSession::close_gate() { send(plain_message("close_gate")); }
void SourceSession::ask_ready() { request(T::peer_ready, plain_message("ready?")); }
void SourceSession::grant() { request(T::peer_opened, plain_message("grant")); }
void SourceSession::ask_digests() { request(T::peer_digests, plain_message("digests?")); }
void SourceSession::finish() { request(T::peer_finished, plain_message("finish")); }
void SourceSession::abort() { request(T::peer_aborted, abort_message(discard_)); }

void SourceSession::revoke() {
  due_ = T::peer_opened;
  ask("revoke");
}

void SourceSession::ask_return() {
  due_ = T::return_refused;
  ask("return");
}

void SourceSession::ask(std::string_view question) {
  {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    OwnerQuestion asked{std::string(question), request_.generation, {}};
    for (const auto& disk : request_.disks)
      if (!disk.uuid.empty()) asked.uuids.push_back(disk.uuid);
    question_ = to_json(asked);
    tries_ = 0;
  }
  worker_.post([this] { ask_now(); });
}

// On the worker: over a connection of its own, since the old one may hang for long before it breaks.
void SourceSession::ask_now() {
  Json question;
  {
    std::lock_guard lock(mutex_);
    if (!question_ || closing_) return;
    question = *question_;
  }
  auto connected = connect_again();
  if (connected) connected = wire::send_control(*channel_, question);
  if (connected) {
    reader_ = std::thread([this] { read_loop(*channel_); });
    return;
  }
  spdlog::warn("{}: cannot ask {} who owns the disks: {}", session_, peer_.host, connected.error().message());
  ask_later(kFirstPause);
}

Status SourceSession::connect_again() {
  hang_up();
  auto channel = open_connection(config_, peer_, Purpose::owner, session_);
  if (!channel) return std::move(channel).error();
  channel_ = std::move(*channel);
  return ok_status();
}

// On the worker or the reader. `pause` grows with every try.
void SourceSession::ask_later(std::chrono::milliseconds pause) {
  {
    std::lock_guard lock(mutex_);
    pause = doubled_pause(pause, kLastPause, tries_++);
  }
  worker_.post([this, pause] {
    {
      std::unique_lock lock(mutex_);
      closing_changed_.wait_for(lock, pause, [this] { return closing_ || !question_; });
    }
    ask_now();
  });
}

void SourceSession::answered() {
  std::lock_guard lock(mutex_);
  question_.reset();
}

void SourceSession::lost(const Error& error) {
  {
    std::lock_guard lock(mutex_);
    if (closing_ || hanging_up_) return;
    if (!question_) {
      migration::SourceEvent event{T::link_lost};
      event.error = make_error(Errc::peer_unreachable, "lost the link to " + peer_.host + " (" + error.what + ")",
                               error.sys, "look at the network and at ferryd on " + peer_.host);
      return post_(std::move(event));
    }
  }
  ask_later(kFirstPause);
}

void SourceSession::read_loop(wire::Channel& channel) {
  for (;;) {
    auto message = wire::receive_control(channel);
    if (!message) return lost(message.error());
    if (!take(*message)) return;
  }
}

// False when the connection has served its purpose.
bool SourceSession::take(const Json& message) {
  const auto type = type_of(message);
  const auto post = [this](T event) {
    post_({event});
    return true;
  };
  // Of what a destination says only this ends the question who owns the disks: its digests, say, may have been on
  // their way when the question was asked.
  const auto settle = [this, post](T event) {
    answered();
    return post(event);
  };
  if (type == "prepared") {
    auto reply = prepare_reply_from(message);
    if (!reply) {
      post_(failure_of(T::peer_prepared, std::move(reply).error()));
      return true;
    }
    {
      std::lock_guard lock(mutex_);
      reply_ = std::move(*reply);
    }
    return post(T::peer_prepared);
  }
  if (type == "ready") return post(T::peer_ready);
  // Said twice, or late: what was asked since is still open.
  if ((type == "opened" || type == "revoked") && due_ == T::return_refused) return true;
  if (type == "opened") return settle(T::peer_opened);
  if (type == "revoked") return settle(T::peer_revoked);
  if (type == "returned") return settle(T::peer_returned);
  if (type == "unknown") {
    post_({T::peer_unknown});
    ask_later(kLastPause);
    return false;
  }
  if (type == "digests") {
    auto digests = digests_from(message);
    if (!digests) {
      post_(failure_of(T::peer_digests, std::move(digests).error()));
      return true;
    }
    {
      std::lock_guard lock(mutex_);
      digests_ = std::move(*digests);
    }
    return post(T::peer_digests);
  }
  if (type == "finished" || type == "aborted") {
    {
      std::lock_guard lock(mutex_);
      closing_ = true;
    }
    return post(type == "finished" ? T::peer_finished : T::peer_aborted);
  }
  Error error = type == "error" ? error_from(message) : make_error(Errc::protocol, "it sent an unknown message");
  error.what = peer_.host + ": " + error.what;
  const T due = due_;
  // "busy" is the destination's no. Anything else only means that it could not tell now.
  if (due == T::return_refused && error.code == Errc::busy) {
    answered();
    migration::SourceEvent refused{T::return_refused};
    refused.error = std::move(error);
    post_(std::move(refused));
    return true;
  }
  bool asking = false;
  {
    std::lock_guard lock(mutex_);
    asking = question_.has_value();
  }
  if (asking) {
    spdlog::warn("{}: {}", session_, error.message());
    ask_later(kFirstPause);
    return false;
  }
  post_(failure_of(due, std::move(error)));
  return true;
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
