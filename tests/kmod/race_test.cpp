// SPDX-License-Identifier: GPL-2.0-or-later
// No write is ever lost. Each write takes 1.5 s to land below the filter while the copier swaps and
// copies all the time: a filter that marks too early lets the copier read a block before the write
// has landed, and forgets it. The module built with FERRY_MARK_AT_SUBMIT=1 is that filter; there
// this test must fail with "lost N blocks", N > 0. A test that cannot fail would prove nothing.
// The other races, each made to happen at a known moment: races_by_hand_test.cpp.
#include <fcntl.h>
#include <unistd.h>

#include <iostream>

#include "copier.h"
#include "suite.h"
#include "writer.h"

namespace ferry::kmod {
namespace {

constexpr uint64_t kBlocks = 2048;
constexpr uint64_t kSectors = kBlocks * kBlock / 512;
constexpr int kWriteDelayMs = 1500;
constexpr unsigned kDepth = 512;

class RaceTest : public KmodTest {};

TEST_F(RaceTest, NoWriteIsLostWhileRoundsAreCopied) {
  TestVolume below("kmod-race", 32 * kMiB);
  { Fd fd = open_device(below.path(), O_RDWR | O_DIRECT);
    ASSERT_EQ(write_at(fd.get(), 0, 32 * kMiB, 0), 0); }
  DmDevice slow("kmod-race-slow", "0 65536 delay " + below.device() + " 0 0 " + below.device() +
                                      " 0 " + std::to_string(kWriteDelayMs));
  // Two lines, the second one first on the disk.
  uint64_t half = kSectors / 2;
  DmDevice volume("kmod-race-disk",
                  "0 " + std::to_string(half) + " linear " + slow.device() + " 32768\n" +
                      std::to_string(half) + ' ' + std::to_string(half) + " linear " +
                      slow.device() + " 0");
  {
    auto attachment = must_attach({.path = volume.path()});
    ASSERT_TRUE(attachment.in_place());
    Copier copier(attachment.tracker(), attachment.door_fd(), kBlocks * kBlock);
    BusyWriter writer({.path = volume.path(), .nr_blocks = kBlocks, .depth = kDepth,
                       .each_block_once = true});
    while (writer.is_running() && !HasFatalFailure()) copier.round();
    writer.stop();
    ASSERT_FERRY_OK(attachment.tracker().freeze(30'000, 60'000));
    copier.round();
    uint64_t lost = copier.count_lost();
    std::cout << "lost " << lost << " blocks of " << kBlocks << " in " << copier.rounds()
              << " rounds, " << copier.copied() << " blocks copied\n";
    EXPECT_EQ(lost, 0u);
    EXPECT_EQ(writer.errors(), 0u);
    EXPECT_EQ(writer.count_wrong_blocks(attachment.door_fd()), 0u);
    EXPECT_GT(copier.rounds(), 3u);
    ASSERT_FERRY_OK(attachment.tracker().thaw());
    ASSERT_FERRY_OK(attachment.detach());
  }
}

// The same without a delay and with every block written again and again: the common case, at speed.
TEST_F(RaceTest, NoWriteIsLostUnderLoad) {
  TestVolume volume("kmod-load", 16 * kMiB);
  { Fd fd = open_device(volume.path(), O_RDWR | O_DIRECT);
    ASSERT_EQ(write_at(fd.get(), 0, 16 * kMiB, 0), 0); }
  auto attachment = must_attach({.path = volume.path()});
  Copier copier(attachment.tracker(), attachment.door_fd(), kBlocks * kBlock);
  BusyWriter writer({.path = volume.path(), .nr_blocks = kBlocks, .depth = 32});
  for (uint64_t i = 0; i < turns(30, 300) && !HasFatalFailure(); ++i) copier.round();
  ASSERT_FERRY_OK(attachment.tracker().freeze(30'000, 120'000));
  copier.round();
  EXPECT_EQ(copier.count_lost(), 0u);
  ASSERT_FERRY_OK(attachment.tracker().thaw());
  writer.stop();
  EXPECT_EQ(writer.errors(), 0u);
  EXPECT_EQ(writer.count_wrong_blocks(attachment.door_fd()), 0u);
  ASSERT_FERRY_OK(attachment.detach());
}

}  // namespace
}  // namespace ferry::kmod
