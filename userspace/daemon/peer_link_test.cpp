// SPDX-License-Identifier: GPL-2.0-or-later
// The source's control connection against a peer that the test plays, over TLS on this host.
#include "daemon/peer_link.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <vector>

#include "daemon/version.h"
#include "wire/control.h"
#include "wire/listener.h"
#include "wire/test_keys.h"

namespace ferry::daemon {
namespace {

using T = migration::SourceEventType;
constexpr int kSoonMs = 10'000;

class SourceSessionTest : public testing::Test {
 protected:
  void SetUp() override {
    auto listener = wire::Listener::bind("127.0.0.1", 0);
    ASSERT_TRUE(listener.ok());
    listener_.emplace(std::move(*listener));
    const auto files = pki_.issue("client", "IP:127.0.0.1");
    config_.host_name = "a";
    config_.pki_dir = std::filesystem::path(files.ca).parent_path();
    std::filesystem::rename(files.cert, config_.pki_dir + "/server-cert.pem");
    std::filesystem::rename(files.key, config_.pki_dir + "/server-key.pem");
    PrepareRequest request;
    request.generation = 2;
    request.disks.emplace_back().uuid = "6f9d0f0e-3a8f-4d2c-9d53-0d3f4f0c3c11";
    session_.emplace(config_, api::HostPort{"127.0.0.1", listener_->port()}, "5e551011", request,
                     [this](migration::SourceEvent event) { note(event); });
  }

  // The next connection, after hello and welcome.
  std::unique_ptr<wire::Channel> next_connection() {
    auto socket = listener_->accept(kSoonMs);
    if (!socket) return nullptr;
    auto channel = wire::Channel::accept(std::move(*socket), tls_, kSoonMs);
    if (!channel || !wire::receive_control_within(**channel, kSoonMs)) return nullptr;
    if (!wire::send_control(**channel, to_json(Welcome{kProtocolVersion, kVersion, "b"}))) return nullptr;
    return std::move(*channel);
  }
  static std::string heard(wire::Channel& channel) {
    auto message = wire::receive_control_within(channel, kSoonMs);
    return message ? type_of(*message) : message.error().message();
  }
  void note(const migration::SourceEvent& event) {
    std::lock_guard lock(mutex_);
    events_.push_back(event.type);
    changed_.notify_all();
  }
  std::vector<T> wait_for_events(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(kSoonMs), [&] { return events_.size() >= count; });
    return events_;
  }

  wire::testing::TestPki pki_;
  std::shared_ptr<wire::TlsContext> tls_ = pki_.context("peer", "IP:127.0.0.1");
  std::optional<wire::Listener> listener_;
  Config config_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> events_;
  std::optional<SourceSession> session_;
};

// A destination that was comparing for an earlier connection says so over the one that asks, and then that one breaks.
TEST_F(SourceSessionTest, AsksUntilItsQuestionIsAnswered) {
  session_->revoke();
  auto first = next_connection();
  ASSERT_TRUE(first);
  EXPECT_EQ(heard(*first), "revoke");
  ASSERT_TRUE(wire::send_control(*first, to_json(std::vector<DiskDigest>{{0, "abc", 0}})).ok());
  EXPECT_EQ(wait_for_events(1), std::vector<T>{T::peer_digests});
  first.reset();
  auto second = next_connection();
  ASSERT_TRUE(second) << "the question was taken for answered";
  EXPECT_EQ(heard(*second), "revoke");
  ASSERT_TRUE(wire::send_control(*second, plain_message("opened")).ok());
  EXPECT_EQ(wait_for_events(2), (std::vector<T>{T::peer_digests, T::peer_opened}));
}

// Over a connection that has answered the session goes on; when that one breaks, it is a lost link.
TEST_F(SourceSessionTest, GoesOnOverTheConnectionThatAnswered) {
  session_->revoke();
  auto channel = next_connection();
  ASSERT_TRUE(channel);
  EXPECT_EQ(heard(*channel), "revoke");
  ASSERT_TRUE(wire::send_control(*channel, plain_message("opened")).ok());
  EXPECT_EQ(wait_for_events(1), std::vector<T>{T::peer_opened});
  session_->ask_digests();
  EXPECT_EQ(heard(*channel), "digests?");
  channel.reset();
  EXPECT_EQ(wait_for_events(2), (std::vector<T>{T::peer_opened, T::link_lost}));
}

}  // namespace
}  // namespace ferry::daemon
