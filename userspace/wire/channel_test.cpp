// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

#include "wire/control.h"
#include "wire/listener.h"
#include "wire/test_keys.h"

namespace ferry::wire {
namespace {

using ::testing::HasSubstr;
using testing::handshake;
using testing::socket_pair;
using testing::TestPki;

class ChannelTest : public ::testing::Test {
 protected:
  TestPki pki_;
  std::shared_ptr<TlsContext> a_ = pki_.context("hosta", "DNS:hosta,IP:127.0.0.1");
  std::shared_ptr<TlsContext> b_ = pki_.context("hostb", "DNS:hostb,IP:127.0.0.1");

  testing::Pair connected() {
    auto pair = handshake(a_, b_, "hostb");
    EXPECT_TRUE(pair.client.ok()) << (pair.client.ok() ? "" : pair.client.error().message());
    EXPECT_TRUE(pair.server.ok()) << (pair.server.ok() ? "" : pair.server.error().message());
    return pair;
  }
};

TEST_F(ChannelTest, CarriesBytesBothWaysAndKnowsItsPeer) {
  auto pair = connected();
  EXPECT_EQ((*pair.client)->peer_name(), "hostb");
  EXPECT_EQ((*pair.server)->peer_name(), "hosta");
  ASSERT_TRUE((*pair.client)->write_all("to b", 4).ok());
  ASSERT_TRUE((*pair.server)->write_all("to a", 4).ok());
  char got[5] = {};
  ASSERT_TRUE((*pair.server)->read_exact(got, 4).ok());
  EXPECT_STREQ(got, "to b");
  ASSERT_TRUE((*pair.client)->read_exact(got, 4).ok());
  EXPECT_STREQ(got, "to a");
}

TEST_F(ChannelTest, PiecesArriveInOrderWhateverTheirSizes) {
  auto pair = connected();
  std::vector<std::vector<unsigned char>> pieces;
  std::vector<unsigned char> sent;
  unsigned char next = 0;
  for (const size_t size : {32u, 262144u, 0u, 1u, 16384u, 16383u, 5u, 16352u, 32u, 40000u}) {
    auto& piece = pieces.emplace_back(size);
    for (auto& byte : piece) byte = static_cast<unsigned char>(next++ * 7);
    sent.insert(sent.end(), piece.begin(), piece.end());
  }
  std::vector<iovec> vectors;
  for (auto& piece : pieces) vectors.push_back({piece.data(), piece.size()});
  std::jthread writer([&] { EXPECT_TRUE((*pair.client)->write_all(vectors).ok()); });
  std::vector<unsigned char> got(sent.size());
  ASSERT_TRUE((*pair.server)->read_exact(got.data(), got.size()).ok());
  EXPECT_TRUE(got == sent);
}

// One reader and one writer on each side, both directions full: neither may wait for the other.
TEST_F(ChannelTest, FullDuplexUnderLoad) {
  auto pair = connected();
  constexpr size_t kBytes = 32 << 20;
  std::vector<std::jthread> threads;
  std::atomic<int> good = 0;
  for (Channel* channel : {pair.client->get(), pair.server->get()}) {
    threads.emplace_back([channel, &good] {
      std::vector<uint32_t> data(kBytes / 4);
      std::iota(data.begin(), data.end(), 0u);
      good += channel->write_all(data.data(), kBytes).ok();
    });
    threads.emplace_back([channel, &good] {
      std::vector<uint32_t> data(kBytes / 4), expected(kBytes / 4);
      std::iota(expected.begin(), expected.end(), 0u);
      good += channel->read_exact(data.data(), kBytes).ok() && data == expected;
    });
  }
  threads.clear();
  EXPECT_EQ(good, 4);
}

TEST_F(ChannelTest, OrderlyEndReadsAsZeroAndTheOtherDirectionLives) {
  auto pair = connected();
  ASSERT_TRUE((*pair.client)->write_all("bye", 3).ok());
  ASSERT_TRUE((*pair.client)->finish().ok());
  char got[8];
  ASSERT_TRUE((*pair.server)->read_exact(got, 3).ok());
  auto end = (*pair.server)->read_some(got, sizeof got);
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(*end, 0u);
  ASSERT_TRUE((*pair.server)->write_all("later", 5).ok());
  EXPECT_TRUE((*pair.client)->read_exact(got, 5).ok());
}

TEST_F(ChannelTest, ADroppedConnectionIsNoOrderlyEnd) {
  auto pair = connected();
  (*pair.client)->abort();
  pair.client->reset();
  char got;
  auto read = (*pair.server)->read_some(&got, 1);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, Errc::peer_unreachable);
}

TEST_F(ChannelTest, AbortWakesABlockedReaderAndABlockedWriter) {
  auto pair = connected();
  std::atomic<int> aborted = 0;
  std::jthread reader([&] {
    char got;
    auto read = (*pair.client)->read_some(&got, 1);
    aborted += !read.ok() && read.error().code == Errc::aborted;
  });
  std::jthread writer([&] {
    // Nobody reads at the other end, so this has to block sooner or later.
    const std::vector<char> data(64 << 20);
    auto wrote = (*pair.client)->write_all(data.data(), data.size());
    aborted += !wrote.ok() && wrote.error().code == Errc::aborted;
  });
  ASSERT_TRUE((*pair.server)->wait_readable(10000).ok());  // the writer is under way
  (*pair.client)->abort();
  reader.join();
  writer.join();
  EXPECT_EQ(aborted, 2);
  EXPECT_FALSE((*pair.client)->write_all("x", 1).ok());
}

TEST_F(ChannelTest, WaitReadableTellsWhoIsReady) {
  auto pair = connected();
  auto [near, far] = socket_pair();
  EXPECT_EQ(*(*pair.server)->wait_readable(0, near.get()), Ready::timeout);
  ASSERT_EQ(::write(far.get(), "x", 1), 1);
  EXPECT_EQ(*(*pair.server)->wait_readable(1000, near.get()), Ready::other);
  ASSERT_TRUE((*pair.client)->write_all("abcd", 4).ok());
  EXPECT_EQ(*(*pair.server)->wait_readable(1000), Ready::channel);
  char got;
  ASSERT_TRUE((*pair.server)->read_exact(&got, 1).ok());
  // Three bytes are decrypted already: the socket is silent, the channel is not.
  EXPECT_EQ(*(*pair.server)->wait_readable(0), Ready::channel);
}

TEST_F(ChannelTest, ControlMessagesAndErrorsTravel) {
  auto pair = connected();
  const nlohmann::json message{{"type", "prepare"}, {"disks", {1, 2, 3}}};
  ASSERT_TRUE(send_control(**pair.client, message).ok());
  auto got = receive_control(**pair.server);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(*got, message);
  ASSERT_TRUE(send_error(**pair.client, make_error(Errc::no_space, "vg0 is full")).ok());
  got = receive_control(**pair.server);
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, Errc::no_space);
  EXPECT_THAT(got.error().message(), HasSubstr("vg0 is full"));
  EXPECT_FALSE(send_control(**pair.client, nlohmann::json{{"x", std::string(2 << 20, 'x')}}).ok());
  ASSERT_TRUE((*pair.client)->finish().ok());
  got = receive_control(**pair.server);
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, Errc::peer_unreachable);
}

TEST_F(ChannelTest, WhoSaysNothingIsNotWaitedForWithoutEnd) {
  auto pair = connected();
  auto silence = receive_control_within(**pair.server, 10);
  ASSERT_FALSE(silence.ok());
  EXPECT_EQ(silence.error().code, Errc::peer_unreachable);
  ASSERT_TRUE(send_control(**pair.client, {{"type", "hello"}}).ok());
  auto hello = receive_control_within(**pair.server, 10'000);
  ASSERT_TRUE(hello.ok()) << hello.error().message();
  EXPECT_EQ(type_of(*hello), "hello");
}

TEST_F(ChannelTest, ServerOfAnotherCaIsNotTrusted) {
  TestPki other;
  auto pair = handshake(a_, other.context("hostb", "DNS:hostb"), "hostb");
  ASSERT_FALSE(pair.client.ok());
  EXPECT_EQ(pair.client.error().code, Errc::permission);
  EXPECT_THAT(pair.client.error().message(), HasSubstr("not signed by our CA"));
  ASSERT_FALSE(pair.server.ok());
  EXPECT_EQ(pair.server.error().code, Errc::peer_refused);
}

// The client trusts the server, the server does not trust the client: with TLS 1.3 the client's
// handshake succeeds, and only the missing hello tells.
TEST_F(ChannelTest, ClientOfAnotherCaIsToldItWasRefused) {
  TestPki other;
  TlsFiles mixed = other.issue("hosta", "DNS:hosta");
  mixed.ca = pki_.ca_file();
  auto pair = handshake(TestPki::load(mixed), b_, "hostb");
  ASSERT_FALSE(pair.server.ok());
  EXPECT_EQ(pair.server.error().code, Errc::permission);
  ASSERT_FALSE(pair.client.ok());
  EXPECT_EQ(pair.client.error().code, Errc::peer_refused);
  EXPECT_THAT(pair.client.error().message(), HasSubstr("refused this host's certificate"));
}

TEST_F(ChannelTest, WrongHostNameIsRefusedUnlessTheAdminSaysSo) {
  auto pair = handshake(a_, b_, "hostc");
  ASSERT_FALSE(pair.client.ok());
  EXPECT_EQ(pair.client.error().code, Errc::permission);
  EXPECT_THAT(pair.client.error().message(), HasSubstr("names another host"));
  EXPECT_TRUE(handshake(a_, b_, "hostc", {.verify_name = false}).client.ok());
}

TEST_F(ChannelTest, AddressesAreVerifiedToo) {
  EXPECT_TRUE(handshake(a_, b_, "127.0.0.1").client.ok());
  auto wrong = handshake(a_, b_, "127.0.0.2");
  ASSERT_FALSE(wrong.client.ok());
  EXPECT_THAT(wrong.client.error().message(), HasSubstr("names another host"));
}

TEST_F(ChannelTest, ExpiredCertificateIsNamedAsSuch) {
  auto pair = handshake(a_, TestPki::load(pki_.issue("hostb", "DNS:hostb", -60)), "hostb");
  ASSERT_FALSE(pair.client.ok());
  EXPECT_THAT(pair.client.error().message(), HasSubstr("expired"));
}

TEST_F(ChannelTest, KeyOfAnotherCertificateIsNoticedAtLoad) {
  TlsFiles files = pki_.issue("hosta", "DNS:hosta");
  files.key = pki_.issue("hostb", "DNS:hostb").key;
  auto context = TlsContext::load(files);
  ASSERT_FALSE(context.ok());
  EXPECT_EQ(context.error().code, Errc::permission);
  files.key = "/nonexistent/server-key.pem";
  context = TlsContext::load(files);
  ASSERT_FALSE(context.ok());
  EXPECT_THAT(context.error().message(), HasSubstr("/nonexistent/server-key.pem"));
}

TEST_F(ChannelTest, ConnectOverTcpWithListener) {
  auto listener = Listener::bind("127.0.0.1", 0);
  ASSERT_TRUE(listener.ok());
  auto server = std::async(std::launch::async, [&] {
    auto socket = listener->accept(10000);
    return socket.ok() ? Channel::accept(std::move(*socket), b_, 10000)
                       : Result<std::unique_ptr<Channel>>(socket.error());
  });
  auto client = Channel::connect("127.0.0.1", listener->port(), a_, 10000);
  ASSERT_TRUE(client.ok()) << client.error().message();
  auto accepted = server.get();
  ASSERT_TRUE(accepted.ok()) << accepted.error().message();
  EXPECT_THAT((*accepted)->peer_address(), HasSubstr("127.0.0.1:"));
  ASSERT_TRUE((*client)->write_all("hi", 2).ok());
  char got[2];
  EXPECT_TRUE((*accepted)->read_exact(got, 2).ok());
}

TEST_F(ChannelTest, NobodyListensIsUnreachable) {
  uint16_t port = 0;
  {
    auto listener = Listener::bind("127.0.0.1", 0);
    ASSERT_TRUE(listener.ok());
    port = listener->port();
  }
  auto client = Channel::connect("127.0.0.1", port, a_, 5000);
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.error().code, Errc::peer_unreachable);
  EXPECT_EQ(client.error().sys, ECONNREFUSED);
  EXPECT_EQ(Channel::connect("no-such-host.invalid", 1, a_, 5000).error().code, Errc::not_found);
}

TEST_F(ChannelTest, ASilentServerTimesOut) {
  auto [near, far] = socket_pair();
  auto client = Channel::connect_over(std::move(near), "hostb", a_, 50);
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.error().code, Errc::timeout);
}

TEST_F(ChannelTest, AServerThatSpeaksNoTlsIsNoPeer) {
  auto [near, far] = socket_pair();
  ASSERT_EQ(::write(far.get(), "SSH-2.0-OpenSSH_9.2\r\n", 21), 21);
  auto client = Channel::connect_over(std::move(near), "hostb", a_, 5000);
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.error().code, Errc::protocol);
}

TEST(ListenerTest, StopsAndTimesOut) {
  auto listener = Listener::bind("", 0);
  ASSERT_TRUE(listener.ok());
  EXPECT_EQ(listener->accept(1).error().code, Errc::timeout);
  auto waiting = std::async(std::launch::async, [&] { return listener->accept(-1); });
  listener->stop();
  EXPECT_EQ(waiting.get().error().code, Errc::aborted);
  EXPECT_FALSE(Listener::bind("127.0.0.1", listener->port()).ok());
}

}  // namespace
}  // namespace ferry::wire
