// SPDX-License-Identifier: GPL-2.0-or-later
// Sender and Receiver against each other, over TLS on local sockets, with real files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mover/digest.h"
#include "mover/test_link.h"

namespace ferry::mover {
namespace {

using ::testing::HasSubstr;
using testing::Bytes, testing::Link, testing::TestDisk;
using testing::hashes_for, testing::kMiB, testing::random_bytes;

class CopyTest : public ::testing::TestWithParam<IoEngine> {};
INSTANTIATE_TEST_SUITE_P(Engines, CopyTest, ::testing::Values(IoEngine::automatic, IoEngine::plain),
                         [](const auto& info) {
                           return info.param == IoEngine::plain ? "plain" : "automatic";
                         });

TEST_P(CopyTest, WholeDiskOverFourStreams) {
  // The last block is short: 512 bytes.
  TestDisk from(9 * kMiB + 512), to(9 * kMiB + 512);
  from.write(0, random_bytes(3 * kMiB, 1));
  from.write(7 * kMiB, random_bytes(2 * kMiB + 512, 2));
  to.write(0, random_bytes(9 * kMiB + 512, 3));  // an old disk: zeroes have to be written too
  auto hashes = hashes_for(to.size());
  Link link(4, {{5, to.fd(), to.size(), &hashes}}, {}, GetParam());
  ExtentList all{{{5, 0, from.size()}}};
  auto stats = link.sender->copy({{5, from.fd(), from.size()}}, all, {}, {});
  ASSERT_TRUE(stats.ok()) << stats.error().message();
  EXPECT_EQ(stats->covered_bytes, from.size());
  EXPECT_EQ(stats->data_bytes, 5 * kMiB + 512);
  EXPECT_EQ(stats->zero_bytes, 4 * kMiB);
  EXPECT_EQ(stats->disk_bytes.at(5), 5 * kMiB + 512);
  EXPECT_EQ(link.receiver.received_bytes(), from.size());
  ASSERT_TRUE(link.receiver.flush().ok());
  EXPECT_TRUE(to.read() == from.read());
  link.finish();

  EXPECT_EQ(hashes.missing(), 0u);
  auto source_digest = digest_of(from.fd(), from.size(), kHashBlockShift, {}, {});
  auto target_digest = digest_of(to.fd(), to.size(), kHashBlockShift, {}, {});
  ASSERT_TRUE(source_digest.ok() && target_digest.ok());
  EXPECT_EQ(*source_digest, hashes.digest());
  EXPECT_EQ(*target_digest, hashes.digest());
  auto same = find_mismatches(to.fd(), to.size(), hashes, {}, {});
  ASSERT_TRUE(same.ok());
  EXPECT_TRUE(same->empty());
}

TEST_P(CopyTest, SparseContentStaysSparse) {
  TestDisk from(32 * kMiB), to(32 * kMiB);
  from.write(16 * kMiB + 64 * 1024, random_bytes(4096, 4));
  auto hashes = hashes_for(to.size());
  Link link(2, {{0, to.fd(), to.size(), &hashes}}, {}, GetParam());
  ExtentList all{{{0, 0, from.size()}}};
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, all, {}, {});
  ASSERT_TRUE(stats.ok()) << stats.error().message();
  EXPECT_LE(stats->data_bytes, 32u * 1024);
  EXPECT_LE(to.allocated(), 256u * 1024);
  EXPECT_TRUE(to.read() == from.read());
  link.finish();
}

// What is written in a later round wins, for every block, however the streams race.
TEST_P(CopyTest, RewritesOverManyRounds) {
  constexpr uint64_t kDisk = 4 * kMiB;
  TestDisk from(kDisk), to(kDisk);
  auto hashes = hashes_for(kDisk);
  Link link(3, {{0, to.fd(), kDisk, &hashes}}, {}, GetParam());
  const std::vector<DiskSource> disks{{0, from.fd(), kDisk}};
  for (uint64_t round = 0; round < 12; ++round) {
    // Data and zeroes take turns over the same blocks.
    from.write(0, round % 3 == 2 ? Bytes(kDisk) : random_bytes(kDisk, 100 + round));
    ExtentList all{{{0, 0, kDisk}}};
    auto stats = link.sender->copy(disks, all, {}, {});
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    ASSERT_TRUE(to.read() == from.read()) << "round " << round;
    ASSERT_EQ(*digest_of(from.fd(), kDisk, kHashBlockShift, {}, {}), hashes.digest());
  }
  ExtentList nothing{{}};
  auto empty = link.sender->copy(disks, nothing, {}, {});
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->covered_bytes, 0u);
  link.finish();
}

TEST_P(CopyTest, SeveralDisksAndScatteredBlocks) {
  TestDisk from0(kMiB), to0(kMiB), from1(2 * kMiB), to1(2 * kMiB);
  from0.write(0, random_bytes(kMiB, 6));
  from1.write(0, random_bytes(2 * kMiB, 7));
  auto hashes = hashes_for(to1.size());
  Link link(2, {{0, to0.fd(), to0.size(), nullptr}, {1, to1.fd(), to1.size(), &hashes}}, {},
            GetParam());
  // The last extent overruns the end, as a large tracking block does.
  ExtentList some{{{1, 4096, 4096}, {0, 8192, 16384}, {1, 2 * kMiB - 4096, kMiB}}};
  auto stats = link.sender->copy({{0, from0.fd(), from0.size()}, {1, from1.fd(), from1.size()}},
                                 some, {}, {});
  ASSERT_TRUE(stats.ok()) << stats.error().message();
  EXPECT_EQ(stats->disk_bytes, (std::vector<uint64_t>{16384, 8192}));
  Bytes expected0(kMiB), expected1(2 * kMiB);
  const Bytes all0 = from0.read(), all1 = from1.read();
  std::copy_n(&all0[8192], 16384, &expected0[8192]);
  std::copy_n(&all1[4096], 4096, &expected1[4096]);
  std::copy_n(&all1[2 * kMiB - 4096], 4096, &expected1[2 * kMiB - 4096]);
  EXPECT_TRUE(to0.read() == expected0);
  EXPECT_TRUE(to1.read() == expected1);
  EXPECT_EQ(hashes.missing(), hashes.nr_blocks() - 2);
  link.finish();
}

TEST_P(CopyTest, ALimitIsKeptAndCanBeLiftedWhileCopying) {
  TestDisk from(8 * kMiB), to(8 * kMiB);
  from.write(0, random_bytes(8 * kMiB, 8));
  TokenBucket limit(1);  // as good as stopped, once the burst is used up
  SenderOptions options;
  options.limit = &limit;
  options.progress_every = std::chrono::milliseconds(1);
  Link link(2, {{0, to.fd(), to.size(), nullptr}}, options, GetParam());
  ExtentList all{{{0, 0, from.size()}}};
  uint64_t calls = 0, covered = 0;
  auto stats = link.sender->copy(
      {{0, from.fd(), from.size()}}, all,
      [&](const CopyStats& now) {
        EXPECT_GE(now.covered_bytes, covered);
        covered = now.covered_bytes;
        if (++calls == 5) {
          EXPECT_LT(now.covered_bytes, kMiB);
          limit.set_rate(0);
        }
      },
      {});
  ASSERT_TRUE(stats.ok()) << stats.error().message();
  EXPECT_GT(calls, 5u);
  EXPECT_EQ(covered, from.size());
  EXPECT_TRUE(to.read() == from.read());
}

TEST_P(CopyTest, StopEndsACopyThatCannotGoOn) {
  TestDisk from(8 * kMiB), to(8 * kMiB);
  from.write(0, random_bytes(8 * kMiB, 9));
  TokenBucket limit(1);
  SenderOptions options;
  options.limit = &limit;
  options.progress_every = std::chrono::milliseconds(1);
  Link link(3, {{0, to.fd(), to.size(), nullptr}}, options, GetParam());
  ExtentList all{{{0, 0, from.size()}}};
  std::stop_source stop;
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, all,
                                 [&](const CopyStats&) { stop.request_stop(); }, stop.get_token());
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::aborted);
  for (auto& call : link.served) EXPECT_FALSE(call.get().ok());
  link.receiver.wait_idle();
  ExtentList again{{{0, 0, 4096}}};
  EXPECT_FALSE(link.sender->copy({{0, from.fd(), from.size()}}, again, {}, {}).ok());
}

TEST_P(CopyTest, ADroppedStreamEndsTheCopyOnAllStreams) {
  TestDisk from(8 * kMiB), to(8 * kMiB);
  from.write(0, random_bytes(8 * kMiB, 10));
  TokenBucket limit(1);
  SenderOptions options;
  options.limit = &limit;
  options.progress_every = std::chrono::milliseconds(1);
  Link link(3, {{0, to.fd(), to.size(), nullptr}}, options, GetParam());
  ExtentList all{{{0, 0, from.size()}}};
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, all,
                                 [&](const CopyStats&) { link.far[1]->abort(); }, {});
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::peer_unreachable) << stats.error().message();
  for (auto& call : link.served) EXPECT_FALSE(call.get().ok());
}

TEST_P(CopyTest, AWriteErrorAtTheReceiverIsToldToTheSender) {
  TestDisk from(8 * kMiB), to(8 * kMiB);
  from.write(0, random_bytes(8 * kMiB, 11));
  const Fd read_only(open(("/proc/self/fd/" + std::to_string(to.fd())).c_str(), O_RDONLY));
  Link link(2, {{0, read_only.get(), to.size(), nullptr}}, {}, GetParam());
  ExtentList all{{{0, 0, from.size()}}};
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, all, {}, {});
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::io) << stats.error().message();
  EXPECT_THAT(stats.error().message(), HasSubstr("the peer reports: cannot write"));
}

TEST_P(CopyTest, AReadErrorAtTheSenderEndsTheCopy) {
  TestDisk from(4 * kMiB), to(8 * kMiB);
  Link link(2, {{0, to.fd(), to.size(), nullptr}}, {}, GetParam());
  ExtentList all{{{0, 0, 8 * kMiB}}};
  auto stats = link.sender->copy({{0, from.fd(), 8 * kMiB}}, all, {}, {});
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::io);
  EXPECT_THAT(stats.error().message(), HasSubstr("cannot read"));
}

TEST_P(CopyTest, ExtentsThatMakeNoSenseEndTheCopy) {
  TestDisk from(kMiB), to(kMiB);
  for (const Extent& bad : {Extent{1, 0, 4096}, Extent{0, kMiB, 4096}, Extent{0, 512, 4096},
                            Extent{0, 0, 100}, Extent{0, 0, 0}}) {
    Link link(1, {{0, to.fd(), to.size(), nullptr}}, {}, GetParam());
    ExtentList extents{{bad}};
    EXPECT_FALSE(link.sender->copy({{0, from.fd(), from.size()}}, extents, {}, {}).ok());
  }
}

TEST_P(CopyTest, ASmallerTargetIsRefused) {
  TestDisk from(2 * kMiB), to(kMiB);
  from.write(0, random_bytes(2 * kMiB, 12));
  Link link(1, {{0, to.fd(), to.size(), nullptr}}, {}, GetParam());
  ExtentList extents{{{0, kMiB, 4096}}};
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, extents, {}, {});
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::protocol);
  EXPECT_THAT(stats.error().message(), HasSubstr("lie outside"));
}

}  // namespace
}  // namespace ferry::mover
