// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/peer_server.h"

#include "base/log.h"
#include "daemon/owner_desk.h"
#include "daemon/recovery.h"
#include "wire/control.h"

namespace ferry::daemon {
namespace {

constexpr int kHandshakeTimeoutMs = 10'000;
// How long a last word to a peer may take to be read.
constexpr int kDrainMs = 2'000;

void say_no(wire::Channel& channel, const Error& error) {
  if (wire::send_control(channel, to_json(error))) channel.drain(kDrainMs);
}

}  // namespace

PeerServer::PeerServer(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Jobs& jobs,
                       std::function<void(const api::JobStatus&)> changed)
    : config_(config), loop_(loop), store_(store), jobs_(jobs), changed_(std::move(changed)) {}

PeerServer::~PeerServer() { stop(); }

Status PeerServer::start() {
  auto tls = load_tls(config_);
  if (!tls) return std::move(tls).error();
  tls_ = *tls;
  auto listener = wire::Listener::bind(config_.listen, config_.port);
  if (!listener) return std::move(listener).error();
  listener_.emplace(std::move(*listener));
  acceptor_ = std::thread([this] { accept_loop(); });
  spdlog::info("peer link on {} port {}", config_.listen, listener_->port());
  return ok_status();
}

void PeerServer::stop() {
  if (listener_) listener_->stop();
  if (acceptor_.joinable()) acceptor_.join();
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& connection : connections_)
      if (connection.channel) connection.channel->abort();
  }
  for (auto& connection : connections_)
    if (connection.thread.joinable()) connection.thread.join();
  connections_.clear();
}

void PeerServer::accept_loop() {
  for (;;) {
    auto socket = listener_->accept(-1);
    if (!socket) {
      if (socket.error().code != Errc::aborted) spdlog::error("peer link: {}", socket.error().message());
      return;
    }
    reap();
    std::lock_guard lock(mutex_);
    if (connections_.size() >= kMaxConnections) {
      spdlog::warn("peer link: too many connections, one is turned away");
      continue;
    }
    auto& connection = connections_.emplace_back();
    connection.thread = std::thread([this, &connection, fd = std::move(*socket)]() mutable {
      serve(std::move(fd), connection);
      std::lock_guard done_lock(mutex_);
      connection.channel.reset();
      connection.done = true;
    });
  }
}

void PeerServer::reap() {
  std::lock_guard lock(mutex_);
  for (auto at = connections_.begin(); at != connections_.end();) {
    if (!at->done) {
      ++at;
      continue;
    }
    at->thread.join();
    at = connections_.erase(at);
  }
}

void PeerServer::serve(Fd socket, Connection& connection) {
  auto accepted = wire::Channel::accept(std::move(socket), tls_, kHandshakeTimeoutMs);
  if (!accepted) return spdlog::warn("peer link: {}", accepted.error().message());
  wire::Channel& channel = **accepted;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    connection.channel = std::move(*accepted);
  }
  auto message = wire::receive_control_within(channel, kHandshakeTimeoutMs);
  if (!message) return spdlog::warn("peer link: {}", message.error().message());
  auto hello = hello_from(*message);
  if (!hello) return say_no(channel, hello.error());
  if (hello->protocol != kProtocolVersion) {
    return say_no(channel, make_error(Errc::peer_refused,
                                      config_.host_name + " speaks protocol " + std::to_string(kProtocolVersion) +
                                          ", not " + std::to_string(hello->protocol),
                                      0, "install the same version of Ferry on both hosts"));
  }
  std::shared_ptr<IncomingJob> job;
  if (hello->purpose == Purpose::data || hello->purpose == Purpose::libvirt) {
    job = jobs_.incoming(hello->session);
    if (!job) return say_no(channel, make_error(Errc::not_found, "no such session here"));
  }
  if (auto sent = wire::send_control(channel, to_json(Welcome{kProtocolVersion, kVersion, config_.host_name})); !sent)
    return spdlog::warn("peer link: {}", sent.error().message());
  switch (hello->purpose) {
    case Purpose::control:
      return serve_control(*hello, channel);
    case Purpose::data:
      (void)job->serve_data(channel);
      return;
    case Purpose::libvirt:
      if (auto served = job->serve_libvirt(channel); !served)
        spdlog::warn("{}: libvirt connection: {}", job->id(), served.error().message());
      return;
    case Purpose::owner:
      return serve_owner(*hello, channel);
    case Purpose::probe:
      channel.drain(kDrainMs);
      return;
  }
}

// The first message of a session is its prepare request; a dry run ends with the answer.
void PeerServer::serve_control(const Hello& hello, wire::Channel& channel) {
  auto message = wire::receive_control(channel);
  if (!message) return;
  auto request = prepare_request_from(*message);
  if (!request) return say_no(channel, request.error());
  take_back_dead_claims(config_, store_, jobs_, *request);
  if (auto may = may_take_in(store_, *request); !may) return say_no(channel, may.error());
  wake_old_copies(store_, *request);
  // Before anything is on record: a volume that is in use, or of the wrong size, is somebody else's.
  auto plan = plan_destination(*request);
  if (!plan) return say_no(channel, plan.error());
  if (request->dry_run) {
    if (wire::send_control(channel, to_json(PrepareReply{*plan, config_.memory_address}))) channel.drain(kDrainMs);
    return;
  }
  auto job = std::make_shared<IncomingJob>(config_, loop_, store_, hello, *request, channel, changed_);
  if (auto added = jobs_.add(job); !added) return say_no(channel, added.error());
  spdlog::info("{}: taking in {} from {}", job->id(), request->vm, hello.host);
  job->start();
  job->serve_control(channel);
}

// The source lost its control connection, or was started anew: a session that lives goes on over this one,
// about one that is over the records speak.
void PeerServer::serve_owner(const Hello& hello, wire::Channel& channel) {
  if (auto job = jobs_.incoming(hello.session); job && !job->ended()) return job->serve_control(channel);
  for (;;) {
    auto message = wire::receive_control(channel);
    if (!message) return;
    if (!wire::send_control(channel, answer_from_records(store_, hello.session, *message))) return;
  }
}

}  // namespace ferry::daemon
