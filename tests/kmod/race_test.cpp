// SPDX-License-Identifier: GPL-2.0-or-later
// No write is ever lost. Each write takes 1.5 s to land below the filter while the copier swaps and
// copies all the time: a filter that marks too early lets the copier read a block before the write
// has landed, and forgets it. The module built with FERRY_MARK_AT_SUBMIT=1 is that filter; there
// this test must fail with "lost N blocks", N > 0. A test that cannot fail would prove nothing.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <iostream>
#include <numeric>
#include <thread>

#include "suite.h"
#include "writer.h"

namespace ferry::kmod {
namespace {

constexpr uint64_t kBlocks = 2048;
constexpr uint64_t kSectors = kBlocks * kBlock / 512;
constexpr int kWriteDelayMs = 1500;
constexpr unsigned kDepth = 512;

// What a destination would hold: swaps, and copies what the retired map names.
class Copier {
 public:
  Copier(filter::Tracker& tracker, int door)
      : tracker_(tracker), door_(door), copy_(kBlocks * kBlock) {
    all();
  }
  void all() { copy_run({0, kBlocks}); }
  void round() {
    {
      auto map = tracker_.swap();
      ASSERT_FERRY_OK(map);
      uint64_t at = 0;
      while (auto run = map->next_run(at, 256)) {
        copy_run(*run);
        at = run->first + run->count;
      }
    }
    ASSERT_FERRY_OK(tracker_.release());
    ++rounds_;
  }
  // Blocks whose copy differs from the disk.
  uint64_t count_lost() {
    Buffer disk(kBlocks * kBlock);
    EXPECT_EQ(read_at(door_, 0, disk), 0);
    uint64_t lost = 0;
    for (uint64_t i = 0; i < kBlocks; ++i)
      if (std::memcmp(disk.bytes() + i * kBlock, copy_.bytes() + i * kBlock, kBlock) != 0) ++lost;
    return lost;
  }
  uint64_t rounds() const { return rounds_; }
  uint64_t copied() const { return copied_; }

 private:
  void copy_run(filter::BlockRun run) {
    size_t length = run.count * kBlock;
    ASSERT_EQ(pread(door_, copy_.bytes() + run.first * kBlock, length,
                    static_cast<off_t>(run.first * kBlock)),
              static_cast<ssize_t>(length));
    copied_ += run.count;
  }

  filter::Tracker& tracker_;
  int door_;
  Buffer copy_;
  uint64_t rounds_ = 0;
  uint64_t copied_ = 0;
};

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
    Copier copier(attachment.tracker(), attachment.door_fd());
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
  Copier copier(attachment.tracker(), attachment.door_fd());
  BusyWriter writer({.path = volume.path(), .nr_blocks = kBlocks, .depth = 32});
  for (int i = 0; i < 100 && !HasFatalFailure(); ++i) copier.round();
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
