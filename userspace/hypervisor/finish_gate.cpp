// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/finish_gate.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "hypervisor/unix_socket.h"

namespace ferry::hypervisor {
namespace {

constexpr size_t kReadBytes = 64 * 1024;

template <typename Callback, typename... Args>
void call_if_set(const Callback& callback, Args&&... args) {
  if (callback) callback(std::forward<Args>(args)...);
}

// States in which the daemon alone decides what becomes of the client.
bool daemon_decides(FinishState state) {
  return state == FinishState::held || state == FinishState::forwarded ||
         state == FinishState::lost || state == FinishState::denied;
}

}  // namespace

const char* finish_state_name(FinishState state) {
  switch (state) {
    case FinishState::waiting: return "waiting";
    case FinishState::held: return "held";
    case FinishState::forwarded: return "forwarded";
    case FinishState::lost: return "lost";
    case FinishState::succeeded: return "succeeded";
    case FinishState::denied: return "denied";
    case FinishState::failed: return "failed";
    case FinishState::refused: return "refused";
    case FinishState::cancelled: return "cancelled";
  }
  return "unknown";
}

struct FinishGate::Connection {
  explicit Connection(Fd socket) : client(std::move(socket)) {}

  // Wakes whoever reads or writes the client's socket; the descriptor stays valid.
  void hang_up() { ::shutdown(client.get(), SHUT_RDWR); }
  void abort_pipe() {
    if (pipe) pipe->abort();
  }
  Status send_to_client(const FrameBytes& frame) {
    std::lock_guard lock(client_write);
    return socket_write(client.get(), frame.data(), frame.size());
  }

  const Fd client;
  std::mutex client_write;  // replies of the peer and our own must not mix within a frame
  std::mutex pipe_write;    // the released Finish and what flows meanwhile likewise
  std::unique_ptr<BytePipe> pipe;  // set once under the gate's mutex
  bool pipe_dead = false;          // under the gate's mutex
  std::atomic<bool> done{false};
  std::thread thread;
};

Result<std::unique_ptr<FinishGate>> FinishGate::start(const std::string& dir,
                                                      const std::string& session,
                                                      BytePipeFactory open_pipe,
                                                      FinishCallbacks callbacks) {
  std::string path = dir + "/" + session + ".sock";
  auto listener = listen_unix(path);
  if (!listener.ok()) return listener.error();
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) {
    Error error = sys_error("cannot create an eventfd", errno);
    ::unlink(path.c_str());
    return error;
  }
  std::unique_ptr<FinishGate> gate(new FinishGate(std::move(path), std::move(*listener),
                                                  std::move(wake), std::move(open_pipe),
                                                  std::move(callbacks)));
  gate->acceptor_ = std::thread([raw = gate.get()] { raw->accept_loop(); });
  return gate;
}

FinishGate::FinishGate(std::string path, Fd listener, Fd wake, BytePipeFactory open_pipe,
                       FinishCallbacks callbacks)
    : socket_path_(std::move(path)),
      listener_(std::move(listener)),
      wake_(std::move(wake)),
      open_pipe_(std::move(open_pipe)),
      callbacks_(std::move(callbacks)) {}

FinishGate::~FinishGate() {
  stop();
  acceptor_.join();
  // Only the acceptor adds to the list, so it stands still now.
  for (auto& connection : connections_) connection->thread.join();
}

std::string FinishGate::uri() const { return "qemu+unix:///system?socket=" + socket_path_; }

FinishState FinishGate::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

void FinishGate::stop() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    for (auto& connection : connections_) {
      connection->hang_up();
      connection->abort_pipe();
    }
  }
  ::unlink(socket_path_.c_str());
  const uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof(one)) < 0)
    spdlog::error("finish gate {}: cannot wake the acceptor", socket_path_);
}

void FinishGate::accept_loop() {
  while (true) {
    std::array<pollfd, 2> fds{pollfd{listener_.get(), POLLIN, 0}, pollfd{wake_.get(), POLLIN, 0}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) {
      spdlog::error("finish gate {}: poll failed, errno {}", socket_path_, errno);
      return;
    }
    if (fds[1].revents != 0) return;
    if (fds[0].revents == 0) continue;
    Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (client.valid()) add_connection(std::move(client));
  }
}

void FinishGate::add_connection(Fd client) {
  auto connection = std::make_shared<Connection>(std::move(client));
  std::vector<ConnectionPtr> ended;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    auto first = std::stable_partition(connections_.begin(), connections_.end(),
                                       [](const auto& old) { return !old->done; });
    ended.assign(first, connections_.end());
    connections_.erase(first, connections_.end());
    connections_.push_back(connection);
    connection->thread = std::thread([this, connection] {
      run_connection(connection);
      connection->done = true;
    });
  }
  for (auto& old : ended) old->thread.join();
}

void FinishGate::run_connection(const ConnectionPtr& connection) {
  auto pipe = open_pipe_();
  if (!pipe.ok()) {
    spdlog::warn("finish gate {}: {}", socket_path_, pipe.error().message());
    connection->hang_up();
    return;
  }
  {
    std::lock_guard lock(mutex_);
    connection->pipe = std::move(*pipe);
    if (stopping_) connection->pipe->abort();
  }
  std::thread back([this, connection] { pump_to_client(connection); });
  pump_to_peer(connection);
  back.join();
}

void FinishGate::pump_to_peer(const ConnectionPtr& connection) {
  FrameSplitter splitter;
  std::vector<std::byte> buffer(kReadBytes);
  while (true) {
    auto got = socket_read(connection->client.get(), buffer.data(), buffer.size());
    if (!got.ok() || *got == 0) break;
    splitter.append(std::span(buffer).first(*got));
    Status status = ok_status();
    while (status.ok()) {
      auto frame = splitter.next();
      if (!frame.ok()) {
        status = frame.error();
      } else if (frame->has_value()) {
        status = handle_client_frame(connection, **frame);
      } else {
        break;
      }
    }
    if (!status.ok()) {
      spdlog::warn("finish gate {}: closing the client: {}", socket_path_,
                   status.error().message());
      break;
    }
  }
  client_broke(connection);
}

bool FinishGate::answers_ping(const ConnectionPtr& connection) const {
  std::lock_guard lock(mutex_);
  return connection->pipe_dead || (connection == finish_connection_ && daemon_decides(state_));
}

Status FinishGate::handle_client_frame(const ConnectionPtr& connection, const FrameBytes& frame) {
  const RpcHeader header = parse_header(frame);
  if (header.type == RpcType::call_with_fds)
    return make_error(Errc::protocol, "libvirt wants to pass descriptors to the other host");
  if (is_finish_call(header)) return handle_finish_call(connection, frame);
  // The client's own keepalive must not end a hold or a search for the truth, so from Finish on
  // it gets its answer here; the peer's second answer does no harm.
  if (is_keepalive(header, kKeepalivePing) && answers_ping(connection)) {
    RpcHeader pong = header;
    pong.procedure = kKeepalivePong;
    FERRY_TRY(connection->send_to_client(make_frame(pong)));
  }
  {
    std::lock_guard lock(mutex_);
    if (connection->pipe_dead) {
      if (header.program == kKeepaliveProgram || daemon_decides(state_)) return ok_status();
      return make_error(Errc::peer_unreachable, "the link that carried this connection is gone");
    }
  }
  if (auto sent = send_to_peer(connection, frame); !sent.ok())
    pipe_broke(connection, sent.error());
  return ok_status();
}

Status FinishGate::handle_finish_call(const ConnectionPtr& connection, const FrameBytes& frame) {
  auto cancelled = finish_is_cancelled(frame);
  if (!cancelled.ok()) return cancelled.error();
  {
    std::lock_guard lock(mutex_);
    const bool fresh = state_ == FinishState::waiting;
    if (*cancelled && (fresh || state_ == FinishState::refused)) {
      state_ = FinishState::cancelled;
    } else if (*cancelled || !fresh) {
      return make_error(Errc::protocol, std::string("Finish turned away in state ") +
                                            finish_state_name(state_));
    } else {
      state_ = FinishState::held;
      finish_connection_ = connection;
      finish_frame_ = frame;
    }
  }
  if (*cancelled) {
    if (auto sent = send_to_peer(connection, frame); !sent.ok())
      pipe_broke(connection, sent.error());
    call_if_set(callbacks_.on_finish_cancelled);
  } else {
    call_if_set(callbacks_.on_finish_seen);
  }
  return ok_status();
}

Status FinishGate::send_to_peer(const ConnectionPtr& connection, const FrameBytes& frame) {
  std::lock_guard lock(connection->pipe_write);
  return connection->pipe->write_all(frame.data(), frame.size());
}

void FinishGate::pump_to_client(const ConnectionPtr& connection) {
  FrameSplitter splitter;
  std::vector<std::byte> buffer(kReadBytes);
  while (true) {
    auto got = connection->pipe->read_some(buffer.data(), buffer.size());
    if (!got.ok()) return pipe_broke(connection, got.error());
    if (*got == 0)
      return pipe_broke(connection, make_error(Errc::peer_unreachable,
                                               "the destination's libvirt closed the connection"));
    splitter.append(std::span(buffer).first(*got));
    while (true) {
      auto frame = splitter.next();
      if (!frame.ok()) return pipe_broke(connection, frame.error());
      if (!frame->has_value()) break;
      handle_peer_frame(connection, **frame);
    }
  }
}

void FinishGate::handle_peer_frame(const ConnectionPtr& connection, const FrameBytes& frame) {
  const RpcHeader header = parse_header(frame);
  bool answered = false;
  {
    std::lock_guard lock(mutex_);
    if (connection == finish_connection_ && state_ == FinishState::forwarded) {
      const RpcHeader call = parse_header(finish_frame_);
      answered = header.program == call.program && header.procedure == call.procedure &&
                 header.serial == call.serial &&
                 (header.type == RpcType::reply || header.type == RpcType::reply_with_fds);
      if (answered) state_ = header.status == 0 ? FinishState::succeeded : FinishState::denied;
    }
  }
  if (answered && header.status != 0) return call_if_set(callbacks_.on_finish_reply, false);
  // A client that has gone shows itself to its own reader; the peer's word still counts below.
  if (auto sent = connection->send_to_client(frame); !sent.ok())
    spdlog::debug("finish gate {}: {}", socket_path_, sent.error().message());
  if (answered) call_if_set(callbacks_.on_finish_reply, true);
}

void FinishGate::pipe_broke(const ConnectionPtr& connection, const Error& error) {
  FinishState before;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(connection->pipe_dead, true)) return;
    before = connection == finish_connection_ ? state_ : FinishState::waiting;
    if (before == FinishState::forwarded) state_ = FinishState::lost;
    if (stopping_ || !daemon_decides(before)) {
      connection->hang_up();
      connection->abort_pipe();
      return;
    }
  }
  connection->abort_pipe();
  spdlog::warn("finish gate {}: link lost with Finish {}: {}", socket_path_,
               finish_state_name(before), error.message());
  if (before == FinishState::held) call_if_set(callbacks_.on_link_lost_while_held, error);
  if (before == FinishState::forwarded) call_if_set(callbacks_.on_reply_lost, error);
}

void FinishGate::client_broke(const ConnectionPtr& connection) {
  connection->hang_up();
  FinishState before = FinishState::waiting;
  {
    std::lock_guard lock(mutex_);
    if (connection == finish_connection_) before = state_;
    if (before == FinishState::held) state_ = FinishState::refused;
    // A forwarded Finish runs to its end over there; its reply is still worth having.
    if (stopping_ || before != FinishState::forwarded) {
      connection->pipe_dead = true;
      connection->abort_pipe();
    }
    if (stopping_) return;
  }
  if (daemon_decides(before)) call_if_set(callbacks_.on_client_gone, before);
}

Result<FinishGate::ConnectionPtr> FinishGate::leave_state(FinishState from, FinishState to,
                                                          const char* what) {
  std::lock_guard lock(mutex_);
  if (state_ != from)
    return make_error(Errc::failed, std::string("cannot ") + what + ": Finish is " +
                                        finish_state_name(state_));
  state_ = to;
  return finish_connection_;
}

Status FinishGate::release_finish() {
  ConnectionPtr connection;
  FrameBytes frame;
  {
    std::lock_guard lock(mutex_);
    if (state_ != FinishState::held)
      return make_error(Errc::failed, std::string("cannot release Finish: it is ") +
                                          finish_state_name(state_));
    if (finish_connection_->pipe_dead)
      return make_error(Errc::peer_unreachable, "cannot release Finish: its link is gone");
    state_ = FinishState::forwarded;
    connection = finish_connection_;
    frame = finish_frame_;
  }
  Status sent = send_to_peer(connection, frame);
  // Part of the frame may have left, so this counts as forwarded.
  if (!sent.ok()) pipe_broke(connection, sent.error());
  return sent;
}

Status FinishGate::refuse_finish() {
  ConnectionPtr connection;
  {
    std::lock_guard lock(mutex_);
    if (state_ == FinishState::refused) return ok_status();
    if (state_ != FinishState::held && state_ != FinishState::waiting)
      return make_error(Errc::failed, std::string("cannot refuse Finish: it is ") +
                                          finish_state_name(state_));
    state_ = FinishState::refused;
    connection = finish_connection_;
    if (connection) connection->pipe_dead = true;
  }
  if (connection) {
    connection->abort_pipe();
    connection->hang_up();
  }
  return ok_status();
}

Status FinishGate::fail_client() {
  const bool denied = state() == FinishState::denied;
  auto connection = leave_state(denied ? FinishState::denied : FinishState::lost, FinishState::failed, "fail the client");
  if (!connection.ok()) return connection.error();
  (*connection)->hang_up();
  return ok_status();
}

Status FinishGate::answer_finish(const FinishedDomain& domain) {
  const RpcHeader call = [&] {
    std::lock_guard lock(mutex_);
    return finish_frame_.empty() ? RpcHeader{} : parse_header(finish_frame_);
  }();
  if (call.procedure == kProcFinish1 || call.procedure == kProcFinish2)
    return make_error(Errc::unsupported, "libvirt used a migration protocol older than 3");
  auto connection = leave_state(FinishState::lost, FinishState::succeeded, "answer Finish");
  if (!connection.ok()) return connection.error();
  return (*connection)->send_to_client(make_finish_reply(call, domain));
}

void FinishGate::drop_link() {
  ConnectionPtr connection;
  {
    std::lock_guard lock(mutex_);
    connection = finish_connection_;
  }
  if (connection) connection->abort_pipe();
}

}  // namespace ferry::hypervisor
