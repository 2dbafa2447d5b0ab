// SPDX-License-Identifier: GPL-2.0-or-later
// The oracle: a guest that does everything a guest can do to a disk, a daemon that does everything
// in a random order, and a copy made from nothing but the maps. At each freeze the copy equals the
// disk, block for block. On the module built with FERRY_MARK_AT_SUBMIT=1 it must report lost blocks:
// what is written to the slow half lands after its round was copied, however slow the host is at copying.
// $FERRY_SEED repeats a run, $FERRY_LONG makes it long.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <random>

#include "copier.h"
#include "random_writer.h"
#include "suite.h"

namespace ferry::kmod {
namespace {

constexpr uint32_t kLongMs = 120'000;
constexpr uint64_t kBytes = 16 * kMiB;
constexpr uint64_t kHalf = kBytes / 2 / 512;
// A round competes with the writer for the host.
constexpr uint64_t kDelayOfReads = 8, kLeastDelayMs = 200;

// The first half of the volume is fast; what is written to the second takes its time.
class OracleTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    base_ = std::make_unique<TestVolume>("kmod-oracle", kBytes);
    slow_ = std::make_unique<DmDevice>(
        "kmod-oracle-slow", "0 " + std::to_string(2 * kHalf) + " delay " + base_->device() +
                                " 0 0 " + base_->device() + " 0 " + std::to_string(delay_ms()));
    std::string half = std::to_string(kHalf);
    disk_ = std::make_unique<DmDevice>("kmod-oracle-disk",
                                       "0 " + half + " linear " + base_->device() + " 0\n" + half +
                                           ' ' + half + " linear " + slow_->device() + ' ' + half);
  }
  void TearDown() override {
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
  // Some times what it takes this host, now, to read the whole disk as a round may have to.
  uint64_t delay_ms() {
    using Clock = std::chrono::steady_clock;
    Fd fd = open_device(base_->path(), O_RDWR | O_DIRECT);
    EXPECT_EQ(write_at(fd.get(), 0, kBytes, 0), 0);
    Buffer part(kMiB);
    auto began = Clock::now();
    for (uint64_t at = 0; at < kBytes; at += kMiB)
      EXPECT_EQ(pread(fd.get(), part.data(), kMiB, static_cast<off_t>(at)), ssize_t{kMiB});
    auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began);
    return kDelayOfReads * static_cast<uint64_t>(took.count()) + kLeastDelayMs;
  }
  filter::Tracker& tracker() { return attachment_->tracker(); }
  filter::TrackerInfo info() { return *tracker().info(); }
  void insert() {
    attachment_ = std::make_unique<filter::Attachment>(must_attach({.path = disk_->path()}));
    copier_ = std::make_unique<Copier>(tracker(), attachment_->door_fd(), kBytes);
  }
  void take_out() {
    copier_.reset();
    ASSERT_FERRY_OK(attachment_->detach());
    attachment_.reset();
  }
  void freeze() { ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs)); }
  // The last round, and the comparison.
  void compare(const std::string& when) {
    freeze();
    copier_->round();
    uint64_t lost = copier_->count_lost();
    EXPECT_EQ(lost, 0u) << when;
    lost_ += lost;
    ASSERT_FERRY_OK(tracker().thaw());
  }
  void suspend(bool frozen) {
    if (frozen) freeze();
    ASSERT_FERRY_OK(filter::dm::suspend(disk_->name()));
    ASSERT_FERRY_OK(filter::dm::resume(disk_->name()));
    EXPECT_EQ(info().state, FERRY_STATE_TRACKING);
    EXPECT_EQ(info().freeze_lost(), frozen);
  }
  void step(std::mt19937_64& random, const std::string& name) {
    switch (random() % 12) {
      case 0: return compare(name);
      case 1:
        freeze();
        if (random() % 2) copier_->round();
        ASSERT_FERRY_OK(tracker().thaw());
        return;
      case 2:
        take_out();
        return insert();
      case 3: return suspend(random() % 2);
      case 4: {
        // The same table again: a hand-over from one of our tables to another.
        filter::DmTable ours = *filter::dm::table(disk_->name());
        ASSERT_FERRY_OK(filter::dm::load(disk_->name(), ours, false));
        ASSERT_FERRY_OK(filter::dm::resume(disk_->name()));
        return;
      }
      default: return copier_->round();
    }
  }

  std::unique_ptr<TestVolume> base_;
  std::unique_ptr<DmDevice> slow_, disk_;
  std::unique_ptr<filter::Attachment> attachment_;
  std::unique_ptr<Copier> copier_;
  uint64_t lost_ = 0;
};

TEST_F(OracleTest, TheCopyEqualsTheDisk) {
  std::mt19937_64 random(seed("oracle"));
  insert();
  RandomWriter writer({.path = disk_->path(), .size_bytes = kBytes, .depth = 64, .seed = random()});
  uint64_t steps = turns(50, 500);
  for (uint64_t i = 0; i < steps && !HasFailure(); ++i) {
    step(random, "step " + std::to_string(i));
    EXPECT_FALSE(info().invalid()) << "step " << i;
  }
  compare("the end");
  writer.stop();
  std::cout << "oracle: " << steps << " steps, " << writer.counts() << "; lost " << lost_
            << " blocks\n";
  EXPECT_EQ(writer.errors(), 0u);
  EXPECT_GT(writer.completed(), 0u);
}

// The oracle sees a single block that was not copied.
TEST_F(OracleTest, OneForgottenBlockIsFound) {
  insert();
  Fd fd = open_device(disk_->path(), O_RDWR | O_DIRECT);
  ASSERT_EQ(write_at(fd.get(), 700 * kBlock, 3 * kBlock, 'x'), 0);
  copier_->leave_out(701, 1);
  freeze();
  copier_->round();
  EXPECT_EQ(copier_->count_lost(), 1u);
  ASSERT_FERRY_OK(tracker().thaw());
}

}  // namespace
}  // namespace ferry::kmod
