// SPDX-License-Identifier: GPL-2.0-or-later
// One race after the other, each made to happen: slow devices hold a write in flight for as long as
// the test wants. The names R6 … R14 are those of the comments below; where the others are:
//   R8   a write that fails: faults_test.cpp
//   R11  under load and at random: oracle_test.cpp
//   R14  the owner dies: FreezeTest.TheDeathOfTheOwnerThaws (frozen), StatesTest.TheGateSurvivesIts-
//        Owner and TheFenceSurvivesItsOwner. Its throttled and pulling states do not exist.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "copier.h"
#include "suite.h"
#include "writer.h"

namespace ferry::kmod {
namespace {

constexpr uint32_t kLongMs = 120'000;
constexpr uint64_t kBytes = 16 * kMiB;
constexpr int kDelayMs = 2000;  // stretched

class RacesByHandTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    base_ = std::make_unique<TestVolume>("kmod-races", kBytes);
    slow_ = std::make_unique<DmDevice>("kmod-races-slow",
                                       "0 32768 delay " + base_->device() + " 0 0 " +
                                           base_->device() + " 0 " + std::to_string(stretched(kDelayMs)));
    Fd fd = open_device(base_->path(), O_RDWR | O_DIRECT);
    ASSERT_EQ(write_at(fd.get(), 0, kBytes, 'o'), 0);
  }
  void TearDown() override {
    direct_.reset();
    copier_.reset();
    if (attachment_) {
      EXPECT_FERRY_OK(attachment_->detach());
    }
    attachment_.reset();
    disk_.reset();
    slow_.reset();
    base_.reset();
    KmodTest::TearDown();
  }
  void make_disk(const std::string& table) {
    disk_ = std::make_unique<DmDevice>("kmod-races-disk", table);
    direct_ = open_device(disk_->path(), O_RDWR | O_DIRECT);
  }
  void attach() {
    attachment_ = std::make_unique<filter::Attachment>(must_attach({.path = disk_->path()}));
    copier_ = std::make_unique<Copier>(tracker(), attachment_->door_fd(), kBytes);
  }
  void attach_slow() {
    make_disk("0 32768 linear " + slow_->device() + " 0");
    attach();
  }
  filter::Tracker& tracker() { return attachment_->tracker(); }
  filter::TrackerInfo info() { return *tracker().info(); }
  std::future<int> write_block_later(uint64_t block, unsigned char fill) {
    return write_later(direct_.get(), block * kBlock, kBlock, fill);
  }
  void finish() {
    ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
    copier_->round();
    EXPECT_EQ(copier_->count_lost(), 0u);
    ASSERT_FERRY_OK(tracker().thaw());
  }

  std::unique_ptr<TestVolume> base_;
  std::unique_ptr<DmDevice> slow_, disk_;
  std::unique_ptr<filter::Attachment> attachment_;
  std::unique_ptr<Copier> copier_;
  Fd direct_;
};

// R6: a write is in flight, then zeroes to the same block; rounds are taken before, between and
// while both are under way. Whichever lands last is in a map that comes after it.
TEST_F(RacesByHandTest, ZeroesAndAWriteInFlightOnOneBlock) {
  attach_slow();
  auto write = write_block_later(3, 'w');
  ASSERT_TRUE(eventually([&] { return info().inflight == 1; }));
  copier_->round();
  auto zeroes = std::async(std::launch::async, [&] {
    uint64_t range[2] = {2 * kBlock, 3 * kBlock};
    return ioctl(direct_.get(), BLKZEROOUT, range) == 0 ? 0 : errno;
  });
  ASSERT_TRUE(eventually([&] { return info().inflight == 2 || is_done(write); }));
  copier_->round();
  EXPECT_EQ(copier_->copied(), 0u) << "nothing had landed yet";
  finish();
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(zeroes.get(), 0);
  finish();
  EXPECT_EQ(std::to_integer<int>(*copier_->block(2)), 0);
}

// R6 with a discard, where the disk below can do it.
TEST_F(RacesByHandTest, ADiscardAndAWriteInFlightOnOneBlock) {
  attach_slow();
  auto write = write_block_later(3, 'w');
  ASSERT_TRUE(eventually([&] { return info().inflight == 1; }));
  auto discard = std::async(std::launch::async, [&] {
    uint64_t range[2] = {3 * kBlock, kBlock};
    return ioctl(direct_.get(), BLKDISCARD, range) == 0 ? 0 : errno;
  });
  copier_->round();
  int error = discard.get();
  EXPECT_EQ(write.get(), 0);
  finish();
  if (error == EOPNOTSUPP) GTEST_SKIP() << "the disk below cannot discard";
  EXPECT_EQ(error, 0);
}

// R7: the two halves of a block lie on two devices and the second lands seconds later. A copier that
// reads in between gets a torn block; the second half's completion makes it read again.
TEST_F(RacesByHandTest, ATornReadIsReadAgain) {
  // Block 100 begins at sector 800; the border lies in its middle.
  make_disk("0 804 linear " + base_->device() + " 0\n804 31964 linear " + slow_->device() +
            " 804");
  attach();
  auto last_byte = [&](uint64_t block) {
    return std::to_integer<int>(copier_->block(block)[kBlock - 1]);
  };
  auto write = write_block_later(100, 'n');
  ASSERT_TRUE(eventually([&] { return first_byte(attachment_->door_fd(), 100) == 'n' &&
                                      info().dirty == 1; }));
  copier_->round();
  ASSERT_EQ(std::to_integer<int>(*copier_->block(100)), 'n');
  ASSERT_EQ(last_byte(100), 'o') << "the read was not torn: this machine is too slow for the delay";
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(info().dirty, 1u) << "the same block again, in the next map";
  copier_->round();
  EXPECT_EQ(last_byte(100), 'n');
  finish();
}

// R9: the cache of the daemon's side knows nothing of the guest's writes. The door is read directly.
TEST_F(RacesByHandTest, TheDoorDoesNotReadTheCache) {
  make_disk("0 32768 linear " + base_->device() + " 0");
  attach();
  EXPECT_TRUE(fcntl(attachment_->door_fd(), F_GETFL) & O_DIRECT);
  Fd cached = open_device("/dev/mapper/" + disk_->name() + "-ferry", O_RDONLY);
  EXPECT_EQ(first_byte(cached.get(), 9), 'o');
  ASSERT_EQ(write_at(direct_.get(), 9 * kBlock, kBlock, 'n'), 0);
  EXPECT_EQ(first_byte(cached.get(), 9), 'o') << "here is no stale cache to be wary of";
  EXPECT_EQ(first_byte(attachment_->door_fd(), 9), 'n');
  cached.reset();
  finish();
}

// R10: the guest changes a page while it is being written, as a guest that swaps does. What landed
// is not what was submitted; the copy is made from the disk.
TEST_F(RacesByHandTest, APageThatChangesDuringItsWrite) {
  attach_slow();
  Buffer page(kBlock, 'a');
  auto write = std::async(std::launch::async, [&] {
    return pwrite(direct_.get(), page.data(), kBlock, 12 * kBlock) == static_cast<ssize_t>(kBlock)
               ? 0 : errno;
  });
  ASSERT_TRUE(eventually([&] { return info().inflight == 1; }));
  std::memset(page.data(), 'b', kBlock);
  EXPECT_EQ(write.get(), 0);
  copier_->round();
  EXPECT_EQ(std::to_integer<int>(*copier_->block(12)), 'b');
  finish();
}

// R11: from one ferry table to another of the same tracker, under load: no gap.
TEST_F(RacesByHandTest, ATableReloadedUnderLoad) {
  make_disk("0 32768 linear " + base_->device() + " 0");
  Fd zero = open_device(base_->path(), O_RDWR | O_DIRECT);
  ASSERT_EQ(write_at(zero.get(), 0, kBytes, 0), 0);
  attach();
  BusyWriter writer({.path = disk_->path(), .nr_blocks = kBytes / kBlock, .depth = 32});
  for (uint64_t i = 0; i < turns(10, 60) && !HasFatalFailure(); ++i) {
    // Every other time in two lines instead of one.
    std::string uuid = filter::to_text(tracker().uuid());
    std::string line = " ferry " + base_->device() + ' ';
    change_table(disk_->name(), i % 2 ? "0 32768" + line + "0 " + uuid
                                      : "0 8000" + line + "0 " + uuid + "\n8000 24768" + line +
                                            "8000 " + uuid);
    EXPECT_TRUE(info().bound());
    EXPECT_FALSE(info().invalid());
    copier_->round();
  }
  finish();
  writer.stop();
  EXPECT_EQ(writer.errors(), 0u);
  EXPECT_EQ(writer.count_wrong_blocks(attachment_->door_fd()), 0u);
}

// R12: the volume grows while it is tracked: the tracker is not trusted any more.
TEST_F(RacesByHandTest, GrowingATrackedVolumeIsNoticed) {
  make_disk("0 16384 linear " + base_->device() + " 0");
  attachment_ = std::make_unique<filter::Attachment>(must_attach({.path = disk_->path()}));
  std::string uuid = filter::to_text(tracker().uuid());
  allow_ferry_errors();  // the kernel says why it refuses the table
  auto longer = filter::parse_table("0 32768 ferry " + base_->device() + " 0 " + uuid);
  EXPECT_FALSE(filter::dm::load(disk_->name(), *longer, false).ok());
  EXPECT_TRUE(info().bound());
  change_table(disk_->name(), "0 32768 linear " + base_->device() + " 0");
  EXPECT_TRUE(info().detached() && info().invalid());
  EXPECT_FERRY_ERRNO(tracker().swap(), ESTALE);
  EXPECT_EQ(write_at(direct_.get(), 20000 * 512, kBlock, 1), 0);
}

// R12: and when it shrinks, even under a table of our own.
TEST_F(RacesByHandTest, ShrinkingATrackedVolumeIsNoticed) {
  make_disk("0 32768 linear " + base_->device() + " 0");
  attach();
  change_table(disk_->name(), "0 16384 ferry " + base_->device() + " 0 " +
                                  filter::to_text(tracker().uuid()));
  EXPECT_FALSE(info().bound());
  EXPECT_TRUE(info().detached() && info().invalid());
  EXPECT_FERRY_ERRNO(tracker().swap(), ESTALE);
  EXPECT_FERRY_ERRNO(tracker().freeze(1000, 1000), ESTALE);
  EXPECT_EQ(write_at(direct_.get(), 0, kBlock, 1), 0);
  change_table(disk_->name(), "0 16384 linear " + base_->device() + " 0");
}

// The hole of arming: a write submitted before the filter goes in, landing after the first copy of
// its block, would be in no map. The table's exchange waits for it.
TEST_F(RacesByHandTest, AWriteInFlightAtTheInsertionHasLandedBeforeTheFirstCopy) {
  make_disk("0 32768 linear " + slow_->device() + " 0");
  auto write = write_block_later(33, 'n');
  // Reads in flight, then writes: the kernel's count for the device.
  ASSERT_TRUE(eventually([&] {
    std::ifstream file("/sys/dev/block/" + disk_->device() + "/inflight");
    uint64_t reads = 0, writes = 0;
    file >> reads >> writes;
    return writes == 1;
  }));
  attach();
  EXPECT_EQ(std::to_integer<int>(*copier_->block(33)), 'n');
  EXPECT_EQ(write.get(), 0);
  finish();
}

}  // namespace
}  // namespace ferry::kmod
