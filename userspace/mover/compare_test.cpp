// SPDX-License-Identifier: GPL-2.0-or-later
// Comparing two hosts' disks and copying what differs, over TLS on local sockets, with real files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mover/check_hash.h"
#include "mover/digest.h"
#include "mover/round.h"
#include "mover/test_link.h"

namespace ferry::mover {

// So that a failed expectation says which runs were found.
inline void PrintTo(const Extent& extent, std::ostream* out) {
  *out << "disk " << extent.disk << " at " << extent.offset_bytes << " + " << extent.length_bytes;
}

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Bytes, testing::Link, testing::TestDisk;
using testing::hashes_for, testing::kMiB, testing::random_bytes;

class CompareTest : public ::testing::TestWithParam<IoEngine> {};
INSTANTIATE_TEST_SUITE_P(Engines, CompareTest,
                         ::testing::Values(IoEngine::automatic, IoEngine::plain),
                         [](const auto& info) {
                           return info.param == IoEngine::plain ? "plain" : "automatic";
                         });

TEST_P(CompareTest, FindsExactlyTheBlocksThatDifferAndCopiesThem) {
  constexpr uint64_t kSize0 = 9 * kMiB + 512, kSize3 = 2 * kMiB;
  TestDisk from0(kSize0), to0(kSize0), from3(kSize3), to3(kSize3);
  for (TestDisk* disk : {&from0, &to0}) disk->write(0, random_bytes(kSize0, 1));
  for (TestDisk* disk : {&from0, &to0}) disk->write(4 * kMiB, Bytes(kMiB));  // zeroes on both sides
  for (TestDisk* disk : {&from3, &to3}) disk->write(0, random_bytes(kSize3, 2));
  from0.write(4096, random_bytes(4096, 3));
  from0.write(kMiB - 4096, random_bytes(8192, 4));   // over the border of two check frames
  from0.write(2 * kMiB + 100, {from0.read()[2 * kMiB + 100] == 1 ? Bytes{2} : Bytes{1}});
  from0.write(4 * kMiB + 8192, random_bytes(4096, 5));  // data here, zeroes there
  from0.write(6 * kMiB, Bytes(4096));                   // and the other way round
  from0.write(9 * kMiB, random_bytes(512, 6));          // the short last block
  to3.write(kMiB, random_bytes(512 * 1024, 7));         // whole check frames
  const std::vector<Extent> expected{
      {0, 4096, 4096}, {0, kMiB - 4096, 8192}, {0, 2 * kMiB, 4096}, {0, 4 * kMiB + 8192, 4096},
      {0, 6 * kMiB, 4096}, {0, 9 * kMiB, 512}, {3, kMiB, 512 * 1024}};

  auto hashes0 = hashes_for(kSize0), hashes3 = hashes_for(kSize3);
  Link link(4, {{0, to0.fd(), kSize0, &hashes0}, {3, to3.fd(), kSize3, &hashes3}}, {}, GetParam());
  const std::vector<DiskSource> disks{{0, from0.fd(), kSize0}, {3, from3.fd(), kSize3}};
  const Bytes before = to0.read();
  ExtentList all({{3, 0, kSize3}, {0, 0, 10 * kMiB}});
  auto found = link.sender->compare(disks, all, {}, {});
  ASSERT_TRUE(found.ok()) << found.error().message();
  EXPECT_EQ(found->differing, expected);
  EXPECT_EQ(found->stats.covered_bytes, kSize0 + kSize3);
  EXPECT_EQ(found->stats.data_bytes + found->stats.zero_bytes, 0u);
  EXPECT_THAT(found->stats.disk_bytes, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(found->stats.disk_zero_bytes, ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(link.receiver.received_bytes(), 0u);
  EXPECT_TRUE(to0.read() == before);
  EXPECT_EQ(hashes0.missing(), 7u);
  EXPECT_EQ(hashes3.missing(), 128u);

  ExtentList differing(found->differing);
  auto copied = link.sender->copy(disks, differing, {}, {});
  ASSERT_TRUE(copied.ok()) << copied.error().message();
  EXPECT_EQ(copied->covered_bytes, 6 * 4096 + 512 + 512 * 1024u);
  EXPECT_EQ(link.receiver.received_bytes(), copied->covered_bytes);
  EXPECT_TRUE(to0.read() == from0.read());
  EXPECT_TRUE(to3.read() == from3.read());
  link.finish();
  EXPECT_EQ(hashes0.missing() + hashes3.missing(), 0u);
  EXPECT_EQ(*digest_of(from0.fd(), kSize0, kHashBlockShift, {}, {}), hashes0.digest());
  EXPECT_EQ(*digest_of(from3.fd(), kSize3, kHashBlockShift, {}, {}), hashes3.digest());
}

TEST_P(CompareTest, EqualDisksCostLessThanAHundredth) {
  constexpr uint64_t kSize = 16 * kMiB + 4096 + 512;
  TestDisk from(kSize), to(kSize);
  for (TestDisk* disk : {&from, &to}) disk->write(kMiB, random_bytes(8 * kMiB, 1));
  auto hashes = hashes_for(kSize);
  Link link(3, {{0, to.fd(), kSize, &hashes}}, {}, GetParam());
  ExtentList all({{0, 0, kSize}});
  uint64_t covered = 0;
  auto found = link.sender->compare({{0, from.fd(), kSize}}, all,
                                    [&](const CopyStats& now) { covered = now.covered_bytes; }, {});
  ASSERT_TRUE(found.ok()) << found.error().message();
  EXPECT_THAT(found->differing, IsEmpty());
  EXPECT_EQ(covered, kSize);
  EXPECT_LT(found->stats.wire_bytes, kSize / 100);
  // A header per 256 KiB and a hash per block, no more and no less.
  EXPECT_EQ(found->stats.frames, 65u);
  EXPECT_EQ(found->stats.wire_bytes, 65 * 32 + (64 * 64 + 2) * 16u);
  EXPECT_EQ(hashes.missing(), 0u);
  EXPECT_EQ(*digest_of(from.fd(), kSize, kHashBlockShift, {}, {}), hashes.digest());
  link.finish();
}

// Rounds of both kinds take turns on one stream; more frames than a window holds, all answered.
TEST_P(CompareTest, EverythingDiffersAgainAndAgain) {
  constexpr uint64_t kSize = 24 * kMiB;
  TestDisk from(kSize), to(kSize);
  auto hashes = hashes_for(kSize);
  Link link(1, {{0, to.fd(), kSize, &hashes}}, {}, GetParam());
  const std::vector<DiskSource> disks{{0, from.fd(), kSize}};
  for (uint64_t round = 0; round < 3; ++round) {
    from.write(0, random_bytes(kSize, 10 + round));
    ExtentList all({{0, 0, kSize}});
    auto found = link.sender->compare(disks, all, {}, {});
    ASSERT_TRUE(found.ok()) << found.error().message();
    ASSERT_THAT(found->differing, ElementsAre(Extent{0, 0, kSize}));
    ExtentList differing(found->differing);
    ASSERT_TRUE(link.sender->copy(disks, differing, {}, {}).ok());
    ASSERT_TRUE(to.read() == from.read());
    ASSERT_EQ(*digest_of(from.fd(), kSize, kHashBlockShift, {}, {}), hashes.digest());
  }
  link.finish();
}

TEST_P(CompareTest, StopEndsIt) {
  constexpr uint64_t kSize = 64 * kMiB;
  TestDisk from(kSize), to(kSize);
  TokenBucket limit(1);
  SenderOptions options;
  options.limit = &limit;
  options.progress_every = std::chrono::milliseconds(1);
  Link link(2, {{0, to.fd(), kSize, nullptr}}, options, GetParam());
  // Scattered blocks: enough frames to use up the limit's first burst.
  std::vector<Extent> scattered;
  for (uint64_t round = 0; round < 2; ++round)
    for (uint64_t at = round * 4096; at < kSize; at += 8192) scattered.push_back({0, at, 4096});
  ExtentList all(std::move(scattered));
  std::stop_source stop;
  auto found = link.sender->compare({{0, from.fd(), kSize}}, all,
                                    [&](const CopyStats&) { stop.request_stop(); },
                                    stop.get_token());
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().code, Errc::aborted);
  EXPECT_THAT(found.error().message(), HasSubstr("comparison"));
  for (auto& call : link.served) EXPECT_FALSE(call.get().ok());
  link.receiver.wait_idle();
  ExtentList again({{0, 0, 4096}});
  EXPECT_FALSE(link.sender->copy({{0, from.fd(), kSize}}, again, {}, {}).ok());
}

TEST_P(CompareTest, AReadErrorAtTheReceiverIsToldToTheSender) {
  TestDisk from(2 * kMiB), to(kMiB);
  Link link(1, {{0, to.fd(), 2 * kMiB, nullptr}}, {}, GetParam());  // larger than the file is
  ExtentList all({{0, kMiB, kMiB}});
  auto found = link.sender->compare({{0, from.fd(), 2 * kMiB}}, all, {}, {});
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().code, Errc::io);
  EXPECT_THAT(found.error().message(), HasSubstr("the peer reports: cannot read"));
}

TEST(RoundTest, RunsAreExactUntilTheyAreTooMany) {
  const std::vector<DiskSource> disks{{0, -1, uint64_t{1} << 40}};
  ExtentList none({});
  Round round(RoundKind::compare, 1, disks, none, nullptr, [] {});
  constexpr uint64_t kPiece = 256 * 1024, kMask = 0x5555555555555555;
  constexpr uint64_t kExactPieces = kMaxExactRuns / 32;
  for (uint64_t i = 0; i < kExactPieces + 2; ++i)
    round.add_differing({disks.data(), i * kPiece, kPiece}, kMask);
  const auto runs = round.take_differing();
  ASSERT_EQ(runs.size(), kMaxExactRuns + 2);
  EXPECT_EQ(runs[kMaxExactRuns - 1], (Extent{0, kExactPieces * kPiece - 8192, 4096}));
  EXPECT_EQ(runs[kMaxExactRuns], (Extent{0, kExactPieces * kPiece, kPiece - 4096}));
}

// The protocol names the hash, so that others can compute it: BLAKE2b-512 of "abc" is the example
// of RFC 7693.
TEST(CheckHashTest, IsBlake2b) {
  auto hasher = CheckHasher::create();
  ASSERT_TRUE(hasher.ok()) << hasher.error().message();
  auto hash = hasher->hash_blocks(reinterpret_cast<const std::byte*>("abc"), 3);
  ASSERT_TRUE(hash.ok());
  const unsigned char expected[] = {0xba, 0x80, 0xa5, 0x3f, 0x98, 0x1c, 0x4d, 0x0d,
                                    0x6a, 0x27, 0x97, 0xb6, 0x9f, 0x12, 0xf6, 0xe9};
  ASSERT_EQ(hash->size(), sizeof expected);
  EXPECT_EQ(std::memcmp(hash->data(), expected, sizeof expected), 0);
}

TEST(CheckHashTest, OneHashPerBlockAndAShortLastOne) {
  auto hasher = CheckHasher::create();
  ASSERT_TRUE(hasher.ok());
  const std::vector<std::byte> zeroes(2 * 4096 + 512);
  auto hashes = hasher->hash_blocks(zeroes.data(), zeroes.size());
  ASSERT_TRUE(hashes.ok());
  ASSERT_EQ(hashes->size(), 48u);
  EXPECT_EQ(std::memcmp(&(*hashes)[0], &(*hashes)[16], 16), 0);
  EXPECT_NE(std::memcmp(&(*hashes)[0], &(*hashes)[32], 16), 0);
}

}  // namespace
}  // namespace ferry::mover
