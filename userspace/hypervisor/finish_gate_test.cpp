// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/finish_gate.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <condition_variable>
#include <cstdlib>
#include <deque>

#include "hypervisor/libvirt_tunnel.h"
#include "hypervisor/rpc_test_frames.h"
#include "hypervisor/socket_pipe.h"

namespace ferry::hypervisor {
namespace {

std::pair<Fd, Fd> socket_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) std::abort();
  // A test that waits for bytes which never come shall fail, not hang.
  timeval limit{.tv_sec = 20, .tv_usec = 0};
  for (int fd : fds) ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  return {Fd(fds[0]), Fd(fds[1])};
}

// One end of libvirt's conversation: whole frames in and out.
class Talker {
 public:
  explicit Talker(Fd socket) : socket_(std::move(socket)) {
    timeval limit{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  void say(const FrameBytes& bytes) {
    ASSERT_TRUE(socket_write(socket_.get(), bytes.data(), bytes.size()).ok());
  }
  // The next frame; empty at the end of the connection.
  FrameBytes hear() {
    while (true) {
      auto frame = splitter_.next();
      if (!frame.ok()) return {};
      if (frame->has_value()) return **frame;
      std::byte buffer[512];
      auto got = socket_read(socket_.get(), buffer, sizeof(buffer));
      if (!got.ok()) {
        ADD_FAILURE() << got.error().message();
        return {};
      }
      if (*got == 0) return {};
      splitter_.append(std::span(buffer).first(*got));
    }
  }
  void hang_up() { socket_.reset(); }

 private:
  Fd socket_;
  FrameSplitter splitter_;
};

// Collects the gate's callbacks as words, in order.
class Journal {
 public:
  void note(std::string word) {
    std::lock_guard lock(mutex_);
    words_.push_back(std::move(word));
    changed_.notify_all();
  }
  std::string take() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(20), [&] { return !words_.empty(); }))
      return "nothing happened";
    std::string word = words_.front();
    words_.pop_front();
    return word;
  }
  bool empty() {
    std::lock_guard lock(mutex_);
    return words_.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> words_;
};

class FinishGateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/ferry-gate-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    auto [near, far] = socket_pair();
    near_ = std::move(near);
    server_.emplace(std::move(far));
    FinishCallbacks callbacks;
    callbacks.on_finish_seen = [this] {
      if (when_seen_) when_seen_();
      journal_.note("seen");
    };
    callbacks.on_finish_cancelled = [this] { journal_.note("cancelled"); };
    callbacks.on_finish_reply = [this](bool runs) { journal_.note(runs ? "runs" : "runs not"); };
    callbacks.on_link_lost_while_held = [this](const Error&) { journal_.note("held, link lost"); };
    callbacks.on_reply_lost = [this](const Error&) { journal_.note("reply lost"); };
    callbacks.on_client_gone = [this](FinishState state) {
      journal_.note(std::string("client gone ") + finish_state_name(state));
    };
    auto gate = FinishGate::start(
        dir_, "s1",
        [this]() -> Result<std::unique_ptr<BytePipe>> {
          if (!near_.valid()) return make_error(Errc::peer_unreachable, "no second pipe here");
          return std::unique_ptr<BytePipe>(std::make_unique<SocketPipe>(std::move(near_)));
        },
        callbacks);
    ASSERT_TRUE(gate.ok()) << gate.error().message();
    gate_ = std::move(*gate);
    auto client = connect_unix(gate_->socket_path());
    ASSERT_TRUE(client.ok());
    client_.emplace(std::move(*client));
  }
  void TearDown() override {
    gate_.reset();
    EXPECT_NE(::access((dir_ + "/s1.sock").c_str(), F_OK), 0) << "socket left behind";
    ::rmdir(dir_.c_str());
  }
  void hold_finish() {
    client_->say(test::finish3_params_call(5, false));
    ASSERT_EQ(journal_.take(), "seen");
    ASSERT_EQ(gate_->state(), FinishState::held);
  }
  void forward_finish() {
    hold_finish();
    ASSERT_TRUE(gate_->release_finish().ok());
    ASSERT_EQ(server_->hear(), test::finish3_params_call(5, false));
  }

  std::string dir_;
  Journal journal_;
  std::function<void()> when_seen_;
  Fd near_;
  std::optional<Talker> server_;
  std::optional<Talker> client_;
  std::unique_ptr<FinishGate> gate_;
};

TEST_F(FinishGateTest, SocketIsForThisUserOnly) {
  struct stat info{};
  ASSERT_EQ(::stat(gate_->socket_path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(gate_->uri(), "qemu+unix:///system?socket=" + dir_ + "/s1.sock");
}

TEST_F(FinishGateTest, OtherTrafficPassesBothWays) {
  const FrameBytes call = test::frame_of(303, 1, FrameBytes(100, std::byte{7}));
  client_->say(call);
  EXPECT_EQ(server_->hear(), call);
  const FrameBytes reply = test::frame_of(303, 1, FrameBytes(70000, std::byte{9}), 1);
  server_->say(reply);
  EXPECT_EQ(client_->hear(), reply);
  EXPECT_TRUE(journal_.empty());
}

TEST_F(FinishGateTest, FramesSplitAnywhereArriveWhole) {
  const FrameBytes call = test::frame_of(303, 1, FrameBytes(8, std::byte{7}));
  for (size_t cut = 1; cut < call.size(); ++cut) {
    client_->say(FrameBytes(call.begin(), call.begin() + cut));
    client_->say(FrameBytes(call.begin() + cut, call.end()));
    ASSERT_EQ(server_->hear(), call);
  }
}

TEST_F(FinishGateTest, HoldsFinishWhileKeepaliveAndOthersPass) {
  hold_finish();
  client_->say(test::ping());
  EXPECT_EQ(client_->hear(), test::pong());   // our own answer
  EXPECT_EQ(server_->hear(), test::ping());   // and the peer sees it, before any Finish
  server_->say(test::pong());
  EXPECT_EQ(client_->hear(), test::pong());
  server_->say(test::ping());
  EXPECT_EQ(client_->hear(), test::ping());
  client_->say(test::pong());
  EXPECT_EQ(server_->hear(), test::pong());
  const FrameBytes other = test::frame_of(212, 6, {});
  client_->say(other);
  EXPECT_EQ(server_->hear(), other);
  ASSERT_TRUE(gate_->release_finish().ok());
  EXPECT_EQ(server_->hear(), test::finish3_params_call(5, false));
  EXPECT_EQ(gate_->state(), FinishState::forwarded);
  // The reply to another call is not the reply to Finish.
  server_->say(test::frame_of(212, 6, {}, 1));
  client_->hear();
  EXPECT_EQ(gate_->state(), FinishState::forwarded);
  const FrameBytes reply = test::frame_of(306, 5, FrameBytes(28), 1, 0);
  server_->say(reply);
  EXPECT_EQ(client_->hear(), reply);
  EXPECT_EQ(journal_.take(), "runs");
  EXPECT_EQ(gate_->state(), FinishState::succeeded);
  EXPECT_FALSE(gate_->release_finish().ok());
  EXPECT_FALSE(gate_->refuse_finish().ok());
}

TEST_F(FinishGateTest, MayBeReleasedFromTheCallback) {
  when_seen_ = [this] { EXPECT_TRUE(gate_->release_finish().ok()); };
  client_->say(test::finish3_params_call(5, false));
  EXPECT_EQ(server_->hear(), test::finish3_params_call(5, false));
  EXPECT_EQ(journal_.take(), "seen");
  EXPECT_EQ(gate_->state(), FinishState::forwarded);
}

TEST_F(FinishGateTest, ErrorReplyMeansTheGuestDoesNotRun) {
  forward_finish();
  server_->say(test::frame_of(306, 5, {}, 1, 1));
  EXPECT_EQ(journal_.take(), "runs not");
  EXPECT_EQ(gate_->state(), FinishState::denied);
  // The client learns it when the disks are back, not before: its own keepalive is answered meanwhile.
  client_->say(test::ping());
  EXPECT_EQ(client_->hear(), test::pong());
  ASSERT_TRUE(gate_->fail_client().ok());
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_EQ(gate_->state(), FinishState::failed);
}

TEST_F(FinishGateTest, RefuseClosesBeforeForwarding) {
  hold_finish();
  ASSERT_TRUE(gate_->refuse_finish().ok());
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_TRUE(server_->hear().empty());  // the end, and no Finish before it
  EXPECT_EQ(gate_->state(), FinishState::refused);
  EXPECT_FALSE(gate_->release_finish().ok());
}

TEST_F(FinishGateTest, RefusedInAdvanceNeverPasses) {
  ASSERT_TRUE(gate_->refuse_finish().ok());
  client_->say(test::finish3_params_call(5, false));
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_TRUE(server_->hear().empty());
  EXPECT_TRUE(journal_.empty());
}

TEST_F(FinishGateTest, CancelledFinishPassesAtOnce) {
  client_->say(test::finish3_params_call(5, true));
  EXPECT_EQ(server_->hear(), test::finish3_params_call(5, true));
  EXPECT_EQ(journal_.take(), "cancelled");
  EXPECT_EQ(gate_->state(), FinishState::cancelled);
  EXPECT_FALSE(gate_->release_finish().ok());
}

TEST_F(FinishGateTest, UnreadableFinishIsNotForwarded) {
  client_->say(test::frame_of(306, 5, FrameBytes(4)));
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_TRUE(server_->hear().empty());
}

TEST_F(FinishGateTest, ImpossibleLengthEndsTheConnection) {
  FrameBytes word;
  test::put(word, (32u << 20) + 5u);
  client_->say(word);
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_TRUE(server_->hear().empty());
}

TEST_F(FinishGateTest, CallWithDescriptorsEndsTheConnection) {
  client_->say(test::frame_of(303, 1, {}, 4));
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_TRUE(server_->hear().empty());
}

TEST_F(FinishGateTest, LinkLostBeforeFinishClosesTheClient) {
  client_->say(test::ping());
  EXPECT_EQ(server_->hear(), test::ping());
  server_->hang_up();
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_TRUE(journal_.empty());
}

TEST_F(FinishGateTest, LinkLostWhileHeldKeepsTheClientUntilRefused) {
  hold_finish();
  server_->hang_up();
  EXPECT_EQ(journal_.take(), "held, link lost");
  EXPECT_EQ(gate_->state(), FinishState::held);
  client_->say(test::ping());
  EXPECT_EQ(client_->hear(), test::pong());
  EXPECT_FALSE(gate_->release_finish().ok());
  EXPECT_EQ(gate_->state(), FinishState::held);
  ASSERT_TRUE(gate_->refuse_finish().ok());
  EXPECT_TRUE(client_->hear().empty());
}

TEST_F(FinishGateTest, LostReplyKeepsTheClientUntilFailed) {
  forward_finish();
  server_->hang_up();
  EXPECT_EQ(journal_.take(), "reply lost");
  EXPECT_EQ(gate_->state(), FinishState::lost);
  for (int i = 0; i < 10; ++i) {
    client_->say(test::ping());
    ASSERT_EQ(client_->hear(), test::pong());
  }
  EXPECT_FALSE(gate_->refuse_finish().ok());
  ASSERT_TRUE(gate_->fail_client().ok());
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_EQ(gate_->state(), FinishState::failed);
}

TEST_F(FinishGateTest, LostReplyCanBeAnswered) {
  forward_finish();
  server_->hang_up();
  EXPECT_EQ(journal_.take(), "reply lost");
  ASSERT_TRUE(gate_->answer_finish({.name = "web01", .uuid = {}, .id = 4}).ok());
  const FrameBytes reply = client_->hear();
  ASSERT_FALSE(reply.empty());
  EXPECT_EQ(parse_header(reply).serial, 5u);
  EXPECT_EQ(parse_header(reply).type, RpcType::reply);
  client_->say(test::frame_of(2, 8, {}));  // close: nobody is left to answer it
  EXPECT_TRUE(client_->hear().empty());
}

TEST_F(FinishGateTest, HangingLinkCanBeDropped) {
  forward_finish();
  gate_->drop_link();
  EXPECT_EQ(journal_.take(), "reply lost");
  EXPECT_EQ(gate_->state(), FinishState::lost);
}

TEST_F(FinishGateTest, ClientThatLeavesWhileHeldIsRefused) {
  hold_finish();
  client_->hang_up();
  EXPECT_EQ(journal_.take(), "client gone held");
  EXPECT_TRUE(server_->hear().empty());
  EXPECT_FALSE(gate_->release_finish().ok());
}

TEST_F(FinishGateTest, ReplyCountsEvenWhenTheClientHasLeft) {
  forward_finish();
  client_->hang_up();
  EXPECT_EQ(journal_.take(), "client gone forwarded");
  server_->say(test::frame_of(306, 5, FrameBytes(28), 1, 0));
  EXPECT_EQ(journal_.take(), "runs");
}

TEST_F(FinishGateTest, ClientWithoutAPipeIsClosed) {
  client_->say(test::ping());
  EXPECT_EQ(server_->hear(), test::ping());  // the first one has its pipe now
  auto second = connect_unix(gate_->socket_path());
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(Talker(std::move(*second)).hear().empty());
}

TEST_F(FinishGateTest, StopsWhileHeldWithoutForwarding) {
  hold_finish();
  gate_->stop();
  EXPECT_TRUE(client_->hear().empty());
  EXPECT_TRUE(server_->hear().empty());
  EXPECT_TRUE(journal_.empty());
}

class TunnelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/ferry-tunnel-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    path_ = dir_ + "/libvirt";
  }
  void TearDown() override {
    ::unlink(path_.c_str());
    ::rmdir(dir_.c_str());
  }
  std::string dir_;
  std::string path_;
};

TEST_F(TunnelTest, CarriesBytesBothWaysUntilThePipeEnds) {
  auto listener = listen_unix(path_);
  ASSERT_TRUE(listener.ok());
  auto [near, far] = socket_pair();
  SocketPipe pipe(std::move(near));
  std::optional<Status> status;
  std::jthread tunnel(
      [&](std::stop_token stop) { status = LibvirtTunnel::serve(pipe, path_, stop); });
  Talker client(std::move(far));
  client.say(test::ping());
  pollfd wait{listener->get(), POLLIN, 0};
  ASSERT_EQ(::poll(&wait, 1, 20000), 1);
  Talker libvirt(Fd(::accept(listener->get(), nullptr, nullptr)));
  EXPECT_EQ(libvirt.hear(), test::ping());
  libvirt.say(test::pong());
  EXPECT_EQ(client.hear(), test::pong());
  client.hang_up();
  EXPECT_TRUE(libvirt.hear().empty());
  tunnel.join();
  EXPECT_TRUE(status->ok()) << status->error().message();
}

TEST_F(TunnelTest, StopsOnRequest) {
  auto listener = listen_unix(path_);
  ASSERT_TRUE(listener.ok());
  auto [near, far] = socket_pair();
  SocketPipe pipe(std::move(near));
  std::optional<Status> status;
  std::jthread tunnel(
      [&](std::stop_token stop) { status = LibvirtTunnel::serve(pipe, path_, stop); });
  tunnel.request_stop();
  tunnel.join();
  ASSERT_FALSE(status->ok());
  EXPECT_EQ(status->error().code, Errc::aborted);
}

TEST_F(TunnelTest, NoLibvirtIsSaidSo) {
  auto [near, far] = socket_pair();
  SocketPipe pipe(std::move(near));
  Status status = LibvirtTunnel::serve(pipe, path_, {});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Errc::not_found);
  EXPECT_NE(status.error().message().find(path_), std::string::npos);
  EXPECT_TRUE(Talker(std::move(far)).hear().empty());
}

}  // namespace
}  // namespace ferry::hypervisor
