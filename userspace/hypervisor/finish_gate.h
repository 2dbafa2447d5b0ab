// SPDX-License-Identifier: GPL-2.0-or-later
// FinishGate: stands between our libvirt client and the destination's libvirt and holds the one
// message that lets the guest run there (Finish), so that the disks can change hands first. From
// the moment Finish is seen the gate never drops the client by itself: the daemon decides. Every
// connection of the client gets a pipe of its own; the gate owns it, its socket and its threads.
// Thread-safety: all methods from any thread. Callbacks run on the gate's threads without locks,
// may call the gate's methods, and must not destroy it; the destructor waits for them.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "hypervisor/byte_pipe.h"
#include "hypervisor/rpc_frame.h"

namespace ferry::hypervisor {

enum class FinishState {
  waiting,    // not seen yet
  held,       // seen: the source's hypervisor is done with its disks; nothing was forwarded
  forwarded,  // released, the reply has not come yet: the guest may or may not run over there
  lost,       // the pipe broke while forwarded: as above, and no reply will come
  succeeded,  // the destination replied: its guest runs (or the daemon answered so)
  denied,     // the destination replied with an error; the client does not know it yet
  failed,     // the daemon failed the client after a loss or a denial
  refused,    // turned away before forwarding: the destination's guest cannot run
  cancelled,  // libvirt itself had given up before; passed through, the destination drops its copy
};
const char* finish_state_name(FinishState state);

struct FinishCallbacks {
  // Finish has arrived and is held. Once.
  std::function<void()> on_finish_seen;
  // The migration had failed on libvirt's side; this Finish only tidies up and was passed on.
  std::function<void()> on_finish_cancelled;
  // The destination's libvirt has answered: guest_runs tells how. If it does not, the client waits
  // for fail_client(): it would let the source's guest go on at once.
  std::function<void(bool guest_runs)> on_finish_reply;
  // The pipe broke while Finish was held. The client waits for refuse_finish().
  std::function<void(const Error&)> on_link_lost_while_held;
  // The pipe broke after Finish was forwarded. The client waits for answer_finish()/fail_client().
  std::function<void(const Error&)> on_reply_lost;
  // The client itself hung up while Finish was held or forwarded.
  std::function<void(FinishState)> on_client_gone;
};

class FinishGate {
 public:
  // Listens on <dir>/<session>.sock (mode 0600).
  static Result<std::unique_ptr<FinishGate>> start(const std::string& dir,
                                                   const std::string& session,
                                                   BytePipeFactory open_pipe,
                                                   FinishCallbacks callbacks);
  ~FinishGate();
  FinishGate(const FinishGate&) = delete;
  FinishGate& operator=(const FinishGate&) = delete;

  const std::string& socket_path() const { return socket_path_; }
  // The libvirt URI that leads through this gate to the destination's system instance.
  std::string uri() const;
  FinishState state() const;

  // Forwards the held Finish. From here on the destination's guest may run, whatever is returned;
  // an error means that the pipe broke (state lost).
  Status release_finish();
  // Closes the client's connection before anything was forwarded; libvirt then resumes the source
  // and the destination's libvirt drops its copy. Also allowed before Finish has come: it is
  // refused when it does. Fails once Finish was forwarded.
  Status refuse_finish();
  // Only after `lost` or `denied`: the guest does not run on the destination and never will; the
  // client sees its connection break and resumes the source.
  Status fail_client();
  // Only after `lost`: the guest is known to run on the destination; libvirt ends the source's.
  Status answer_finish(const FinishedDomain& domain);
  // For a link that hangs instead of breaking: breaks the pipe that carries (or waits with) Finish.
  void drop_link();

  // Ends everything now: closes all connections and the socket. Idempotent.
  void stop();

 private:
  struct Connection;
  using ConnectionPtr = std::shared_ptr<Connection>;

  FinishGate(std::string path, Fd listener, Fd wake, BytePipeFactory open_pipe,
             FinishCallbacks callbacks);
  void accept_loop();
  void add_connection(Fd client);
  void run_connection(const ConnectionPtr& connection);
  void pump_to_peer(const ConnectionPtr& connection);
  void pump_to_client(const ConnectionPtr& connection);
  // Both return an error when the client has to be closed.
  Status handle_client_frame(const ConnectionPtr& connection, const FrameBytes& frame);
  Status handle_finish_call(const ConnectionPtr& connection, const FrameBytes& frame);
  void handle_peer_frame(const ConnectionPtr& connection, const FrameBytes& frame);
  bool answers_ping(const ConnectionPtr& connection) const;
  Status send_to_peer(const ConnectionPtr& connection, const FrameBytes& frame);
  void pipe_broke(const ConnectionPtr& connection, const Error& error);
  void client_broke(const ConnectionPtr& connection);
  // Moves state_ from `from` to `to` and returns the connection that carries Finish.
  Result<ConnectionPtr> leave_state(FinishState from, FinishState to, const char* what);

  const std::string socket_path_;
  Fd listener_;
  Fd wake_;
  const BytePipeFactory open_pipe_;
  const FinishCallbacks callbacks_;

  mutable std::mutex mutex_;  // guards what follows; never held during I/O or callbacks
  FinishState state_ = FinishState::waiting;
  ConnectionPtr finish_connection_;
  FrameBytes finish_frame_;
  std::vector<ConnectionPtr> connections_;
  bool stopping_ = false;

  std::thread acceptor_;
};

}  // namespace ferry::hypervisor
