// SPDX-License-Identifier: GPL-2.0-or-later
// What a Receiver does with a sender that breaks the rules, and what a Sender does with such a
// receiver: the other side is played by hand, frame by frame.
#include "mover/receiver.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>
#include <future>
#include <thread>

#include "mover/sender.h"
#include "wire/control.h"
#include "wire/test_keys.h"

namespace ferry::mover {
namespace {

using ::testing::HasSubstr;
using wire::FrameHeader;
using wire::FrameType;

constexpr uint64_t kDiskBytes = 1 << 20;

wire::testing::Pair connected() {
  static wire::testing::TestPki pki;
  static const auto context = pki.context("host", "DNS:host");
  return wire::testing::handshake(context, context, "host");
}

struct Pipe {
  Pipe() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    out = Fd(ends[0]);
    in = Fd(ends[1]);
  }
  Fd out, in;
};

class ReceiverTest : public ::testing::Test {
 protected:
  ReceiverTest() {
    EXPECT_EQ(ftruncate(disk_.get(), kDiskBytes), 0);
    serving_ = std::async(std::launch::async, [this] {
      Status served = receiver_.serve(**pair_.server, stop_.get_token());
      pair_.server->reset();
      return served;
    });
  }
  ~ReceiverTest() override { stop_.request_stop(); }

  wire::Channel& peer() { return **pair_.client; }

  // A frame as it is, with a checksum that fits unless it is spoiled.
  void send(FrameHeader header, std::span<const std::byte> payload, uint64_t spoil = 0) {
    header.length_bytes = static_cast<uint32_t>(payload.size());
    header.checksum = wire::make_header(header.type, 0, 0, payload).checksum ^ spoil;
    std::array<std::byte, wire::kHeaderBytes> bytes{};
    wire::encode_header(header, bytes);
    ASSERT_TRUE(peer().write_all(bytes.data(), bytes.size()).ok());
    ASSERT_TRUE(peer().write_all(payload.data(), payload.size()).ok());
  }
  void send_extent(uint32_t disk, uint64_t offset, size_t length, uint64_t spoil = 0) {
    const std::vector<std::byte> payload(length, std::byte{0x77});
    send({FrameType::extent, 0, 0, disk, offset, 0}, payload, spoil);
  }
  // Hashes that no block has.
  void send_check(uint32_t disk, uint64_t offset, uint32_t blocks) {
    send({FrameType::check, 0, 0, disk, offset, 0},
         std::vector<std::byte>(blocks * wire::kCheckHashBytes, std::byte{0x77}));
  }
  // The receiver gives up, says why, and has written nothing.
  void expect_refusal(const std::string& why) {
    auto said = wire::receive_control(peer());
    ASSERT_FALSE(said.ok());
    EXPECT_EQ(said.error().code, Errc::protocol) << said.error().message();
    EXPECT_THAT(said.error().message(), HasSubstr(why));
    pair_.client->reset();
    const Status served = serving_.get();
    ASSERT_FALSE(served.ok());
    EXPECT_EQ(served.error().code, Errc::protocol);
    std::vector<char> content(kDiskBytes);
    ASSERT_EQ(pread(disk_.get(), content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
    EXPECT_EQ(std::count(content.begin(), content.end(), 0x77), 0);
    EXPECT_EQ(receiver_.received_bytes(), 0u);
  }

  // A read of this one waits until something is written into the pipe.
  static constexpr uint32_t kSlowDisk = 3;
  Fd disk_{memfd_create("disk", MFD_CLOEXEC)};
  Pipe pipe_;
  Receiver receiver_{{{2, disk_.get(), kDiskBytes, nullptr},
                      {kSlowDisk, pipe_.out.get(), 4096, nullptr}}};
  wire::testing::Pair pair_ = connected();
  std::stop_source stop_;
  std::future<Status> serving_;
};

TEST_F(ReceiverTest, CorruptPayload) {
  send_extent(2, 0, 4096, /*spoil=*/1);
  expect_refusal("checksum");
}
TEST_F(ReceiverTest, UnknownDisk) {
  send_extent(1, 0, 4096);
  expect_refusal("names disk 1");
}
TEST_F(ReceiverTest, OffsetOutsideTheDisk) {
  send_extent(2, kDiskBytes, 4096);
  expect_refusal("lie outside");
}
TEST_F(ReceiverTest, ExtentOverTheEnd) {
  send_extent(2, kDiskBytes - 4096, 8192);
  expect_refusal("lie outside");
}
TEST_F(ReceiverTest, PartOfABlock) {
  send_extent(2, 0, 512);
  expect_refusal("not whole blocks");
}
TEST_F(ReceiverTest, MisalignedOffset) {
  send_extent(2, 512, 4096);
  expect_refusal("at offset 512");
}
TEST_F(ReceiverTest, ExtentLongerThanTheLimit) {
  send_extent(2, 0, wire::kMaxExtentBytes + 4096);
  expect_refusal("extent frame of");
}
TEST_F(ReceiverTest, ZeroesOutsideTheDisk) {
  std::array<std::byte, wire::kZeroBodyBytes> body{};
  wire::encode_zero(8192, body);
  send({FrameType::zero, 0, 0, 2, kDiskBytes - 4096, 0}, body);
  expect_refusal("lie outside");
}
TEST_F(ReceiverTest, MoreZeroesThanTheLimit) {
  std::array<std::byte, wire::kZeroBodyBytes> body{};
  wire::encode_zero(wire::kMaxZeroBytes + 4096, body);
  send({FrameType::zero, 0, 0, 2, 0, 0}, body);
  expect_refusal("zero frame for");
}
TEST_F(ReceiverTest, CheckOfAnUnknownDisk) {
  send_check(1, 0, 1);
  expect_refusal("names disk 1");
}
TEST_F(ReceiverTest, CheckWithPartOfAHash) {
  send({FrameType::check, 0, 0, 2, 0, 0}, std::vector<std::byte>(24));
  expect_refusal("check frame of 24");
}
TEST_F(ReceiverTest, CheckOfMoreThanTheLimit) {
  send_check(2, 0, wire::kMaxCheckBlocks + 1);
  expect_refusal("check frame of");
}
TEST_F(ReceiverTest, CheckOverTheEnd) {
  send_check(2, kDiskBytes - 4096, 2);
  expect_refusal("lie outside");
}
TEST_F(ReceiverTest, CheckOutsideTheDisk) {
  send_check(2, kDiskBytes, 1);
  expect_refusal("lie outside");
}
TEST_F(ReceiverTest, CheckWithACorruptPayload) {
  send({FrameType::check, 0, 0, 2, 0, 0}, std::vector<std::byte>(16), /*spoil=*/1);
  expect_refusal("checksum");
}
TEST_F(ReceiverTest, AnswersAreForTheSenderToTake) {
  send({FrameType::differs, 0, 0, 2, 0, 0}, std::vector<std::byte>(8));
  expect_refusal("unexpected frame of type differs");
}
TEST_F(ReceiverTest, DataInARoundThatCompares) {
  send_check(2, 0, 1);
  for (const FrameType type : {FrameType::differs, FrameType::ack}) {
    auto header = wire::receive_header(peer());
    ASSERT_TRUE(header.ok() && header->has_value());
    ASSERT_EQ((*header)->type, type);
    std::vector<std::byte> payload((*header)->length_bytes);
    ASSERT_TRUE(wire::receive_payload(peer(), **header, payload).ok());
  }
  send_extent(2, 0, 4096);
  expect_refusal("both compares and carries data");
}
TEST_F(ReceiverTest, ControlFrameOnADataStream) {
  ASSERT_TRUE(wire::send_control(peer(), {{"type", "x"}}).ok());
  expect_refusal("unexpected frame of type control");
}
TEST_F(ReceiverTest, Garbage) {
  const std::vector<char> garbage(64, 'x');
  ASSERT_TRUE(peer().write_all(garbage.data(), garbage.size()).ok());
  expect_refusal("magic");
}

TEST_F(ReceiverTest, OrderlyEndInTheMiddleOfARound) {
  send_extent(2, 0, 4096);
  ASSERT_TRUE(peer().finish().ok());
  pair_.client->reset();
  EXPECT_EQ(serving_.get().error().code, Errc::protocol);
}

TEST_F(ReceiverTest, StreamCutInTheMiddleOfAFrame) {
  std::array<std::byte, wire::kHeaderBytes> bytes{};
  wire::encode_header({FrameType::extent, 0, 4096, 2, 0, 0}, bytes);
  ASSERT_TRUE(peer().write_all(bytes.data(), bytes.size()).ok());
  ASSERT_TRUE(peer().write_all(bytes.data(), bytes.size()).ok());
  pair_.client->reset();  // no orderly end
  const Status served = serving_.get();
  ASSERT_FALSE(served.ok());
  EXPECT_EQ(served.error().code, Errc::peer_unreachable);
  EXPECT_EQ(receiver_.received_bytes(), 0u);
}

TEST_F(ReceiverTest, StopEndsAServeThatWaits) {
  stop_.request_stop();
  EXPECT_EQ(serving_.get().error().code, Errc::aborted);
  receiver_.wait_idle();
}

TEST_F(ReceiverTest, AcknowledgesALoneFrameWithoutBeingAsked) {
  send_extent(2, 4096, 4096);
  auto header = wire::receive_header(peer());
  ASSERT_TRUE(header.ok() && header->has_value());
  ASSERT_EQ((*header)->type, FrameType::ack);
  std::array<std::byte, wire::kAckBytes> body{};
  ASSERT_TRUE(wire::receive_payload(peer(), **header, body).ok());
  EXPECT_EQ(*wire::parse_ack(body), (wire::AckBody{4096, 1}));
  char content[4096];
  ASSERT_EQ(pread(disk_.get(), content, sizeof content, 4096), 4096);
  EXPECT_EQ(content[4095], 0x77);
}

// In the order of the checks, however the reads complete; an answer before the ack that counts it.
TEST_F(ReceiverTest, AnswersAndAcknowledgesChecks) {
  constexpr uint64_t kChecks = 32;
  for (uint64_t i = 0; i < kChecks; ++i) send_check(2, i * 16384, 4);
  send({FrameType::end_round, 0, 0, 0, 1, 0}, {});
  uint64_t answered = 0, acked = 0;
  for (bool more = true; more;) {
    auto header = wire::receive_header(peer());
    ASSERT_TRUE(header.ok() && header->has_value());
    std::vector<std::byte> payload((*header)->length_bytes);
    ASSERT_TRUE(wire::receive_payload(peer(), **header, payload).ok());
    if ((*header)->type == FrameType::differs) {
      EXPECT_EQ((*header)->disk, 2u);
      EXPECT_EQ((*header)->offset, answered++ * 16384);
      EXPECT_EQ(*wire::parse_differs(payload, 4), 0xfu);
    } else if ((*header)->type == FrameType::ack) {
      acked = wire::parse_ack(payload)->landed_frames;
      EXPECT_EQ(wire::parse_ack(payload)->landed_bytes, acked * 16384);
      EXPECT_LE(acked, answered);
    } else {
      EXPECT_EQ((*header)->type, FrameType::end_round);
      more = false;
    }
  }
  EXPECT_EQ(answered, kChecks);
  EXPECT_EQ(acked, kChecks);
  EXPECT_EQ(receiver_.received_bytes(), 0u);
}

TEST_F(ReceiverTest, LaterChecksWaitForAnEarlierOne) {
  if (!probe_io_uring().ok()) GTEST_SKIP() << "reads are not asynchronous without io_uring";
  send_check(kSlowDisk, 0, 1);
  send_check(2, 0, 1);
  auto ready = peer().wait_readable(200, -1);
  ASSERT_TRUE(ready.ok());
  EXPECT_EQ(*ready, wire::Ready::timeout);
  const std::vector<char> content(4096);
  ASSERT_EQ(write(pipe_.in.get(), content.data(), content.size()), 4096);
  for (const uint32_t disk : {kSlowDisk, 2u}) {
    auto header = wire::receive_header(peer());
    ASSERT_TRUE(header.ok() && header->has_value());
    EXPECT_EQ((*header)->type, FrameType::differs);
    EXPECT_EQ((*header)->disk, disk);
    std::vector<std::byte> payload((*header)->length_bytes);
    ASSERT_TRUE(wire::receive_payload(peer(), **header, payload).ok());
  }
}

// --- a receiver that breaks the rules ---

// Runs a copy or a comparison of one block against `peer`, which plays the receiver.
Error round_against(bool compare, const std::function<void(wire::Channel&)>& peer) {
  auto pair = connected();
  const Fd disk(memfd_create("disk", MFD_CLOEXEC));
  EXPECT_EQ(ftruncate(disk.get(), 4096), 0);
  std::vector<std::unique_ptr<wire::Channel>> streams;
  streams.push_back(std::move(*pair.client));
  Sender sender(std::move(streams));
  std::jthread playing([&] {
    peer(**pair.server);
    (*pair.server)->drain(10000);
  });
  ExtentList extents({{0, 0, 4096}});
  const std::vector<DiskSource> disks{{0, disk.get(), 4096}};
  if (compare) {
    auto comparison = sender.compare(disks, extents, {}, {});
    sender.abort();  // ends the playing, also after a comparison that went well
    return comparison.ok() ? Error{} : comparison.error();
  }
  auto stats = sender.copy(disks, extents, {}, {});
  EXPECT_FALSE(stats.ok());
  return stats.ok() ? Error{} : stats.error();
}

Error copy_against(const std::function<void(wire::Channel&)>& peer) {
  return round_against(/*compare=*/false, peer);
}

void send_ack(wire::Channel& channel, wire::AckBody ack) {
  std::array<std::byte, wire::kAckBytes> body{};
  wire::encode_ack(ack, body);
  (void)wire::send_frame(channel, FrameType::ack, 0, 0, body);
}

TEST(HostileReceiverTest, AcksWhatWasNeverSent) {
  const Error error = copy_against([](wire::Channel& c) { send_ack(c, {1 << 20, 1000}); });
  EXPECT_EQ(error.code, Errc::protocol);
  EXPECT_THAT(error.what, HasSubstr("never sent"));
}
TEST(HostileReceiverTest, EndsARoundWithoutAcks) {
  const Error error = copy_against([](wire::Channel& c) {
    (void)wire::receive_header(c);  // the zero frame is on its way
    (void)wire::send_frame(c, FrameType::end_round, 0, 1, {});
  });
  EXPECT_EQ(error.code, Errc::protocol);
  EXPECT_THAT(error.what, HasSubstr("not complete"));
}
TEST(HostileReceiverTest, EchoesAnotherRound) {
  const Error error = copy_against([](wire::Channel& c) {
    (void)wire::receive_header(c);
    send_ack(c, {4096, 1});
    (void)wire::send_frame(c, FrameType::end_round, 0, 7, {});
  });
  EXPECT_EQ(error.code, Errc::protocol);
}
TEST(HostileReceiverTest, SendsDataBack) {
  const std::vector<std::byte> data(4096);
  const Error error = copy_against(
      [&](wire::Channel& c) { (void)wire::send_frame(c, FrameType::extent, 0, 0, data); });
  EXPECT_EQ(error.code, Errc::protocol);
}
void send_differs(wire::Channel& channel, uint32_t disk, uint64_t offset, uint64_t mask) {
  std::array<std::byte, wire::kDiffersBytes> body{};
  wire::encode_differs(mask, body);
  (void)wire::send_frame(channel, FrameType::differs, disk, offset, body);
}

// Answers a comparison of one block, after its check frame has come; empty when that is accepted.
std::string refusal_of(const std::function<void(wire::Channel&)>& answer) {
  const Error error = round_against(/*compare=*/true, [&](wire::Channel& c) {
    auto check = wire::receive_header(c);
    std::array<std::byte, wire::kCheckHashBytes> hash{};
    EXPECT_TRUE(check.ok() && wire::receive_payload(c, **check, hash).ok());
    answer(c);
    send_ack(c, {4096, 1});
    (void)wire::send_frame(c, FrameType::end_round, 0, 1, {});
    (void)wire::receive_header(c);
    (void)c.finish();
  });
  EXPECT_TRUE(error.what.empty() || error.code == Errc::protocol) << error.message();
  return error.what;
}

TEST(HostileReceiverTest, AnswersToACheckAreJudged) {
  EXPECT_EQ(refusal_of([](wire::Channel& c) { send_differs(c, 0, 0, 1); }), "");
  EXPECT_THAT(refusal_of([](wire::Channel& c) { send_differs(c, 0, 0, 2); }),
              HasSubstr("than the 1 blocks"));
  EXPECT_THAT(refusal_of([](wire::Channel& c) { send_differs(c, 0, 0, 0); }),
              HasSubstr("without a block"));
  EXPECT_THAT(refusal_of([](wire::Channel& c) { send_differs(c, 0, 4096, 1); }),
              HasSubstr("not asked: disk 0, offset 4096"));
  EXPECT_THAT(refusal_of([](wire::Channel& c) { send_differs(c, 1, 0, 1); }),
              HasSubstr("not asked: disk 1"));
}
TEST(HostileReceiverTest, AnswersACheckTwice) {
  EXPECT_THAT(refusal_of([](wire::Channel& c) {
                send_differs(c, 0, 0, 1);
                send_differs(c, 0, 0, 1);
              }),
              HasSubstr("not asked"));
}
TEST(HostileReceiverTest, AnswersAnAcknowledgedCheck) {
  EXPECT_THAT(refusal_of([](wire::Channel& c) {
                send_ack(c, {4096, 1});
                send_differs(c, 0, 0, 1);
              }),
              HasSubstr("not asked"));
}
TEST(HostileReceiverTest, AnswersACheckInACopy) {
  const Error error = copy_against([](wire::Channel& c) { send_differs(c, 0, 0, 1); });
  EXPECT_EQ(error.code, Errc::protocol);
  EXPECT_THAT(error.what, HasSubstr("not asked"));
}
TEST(HostileReceiverTest, LeavesInTheMiddle) {
  const Error error = copy_against([](wire::Channel& c) { (void)c.finish(); });
  EXPECT_EQ(error.code, Errc::peer_unreachable);
}
TEST(HostileReceiverTest, GivesUpWithAReason) {
  const Error error = copy_against([](wire::Channel& c) {
    (void)wire::send_error(c, make_error(Errc::no_space, "the thin pool is full"));
  });
  EXPECT_EQ(error.code, Errc::no_space);
  EXPECT_THAT(error.what, HasSubstr("thin pool is full"));
}

}  // namespace
}  // namespace ferry::mover
