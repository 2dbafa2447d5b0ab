// SPDX-License-Identifier: GPL-2.0-or-later
// Fence on the source, gate on the destination, and the changes of state that are refused.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "suite.h"

namespace ferry::kmod {
namespace {

constexpr uint32_t kLongMs = 120'000;

class StatesTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    volume_ = std::make_unique<TestVolume>("kmod-states", 16 * kMiB);
    direct_ = open_device(volume_->path(), O_RDWR | O_DIRECT);
    ASSERT_EQ(write_at(direct_.get(), 0, kMiB, 'o'), 0);
  }
  void TearDown() override {
    direct_.reset();
    if (attachment_) {
      EXPECT_FERRY_OK(attachment_->detach());
    }
    attachment_.reset();
    volume_.reset();
    KmodTest::TearDown();
  }
  void attach(ferry_mode mode, bool replace_fenced = false) {
    attachment_ = std::make_unique<filter::Attachment>(
        must_attach({.path = volume_->path(), .mode = mode,
                     .door_writable = mode == FERRY_MODE_GATE, .replace_fenced = replace_fenced}));
  }
  void leave_fenced() {
    attach(FERRY_MODE_TRACK);
    ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
    ASSERT_FERRY_OK(tracker().fence());
    ASSERT_FERRY_OK(attachment_->leave());
    attachment_.reset();
  }
  filter::Tracker& tracker() { return attachment_->tracker(); }
  filter::TrackerInfo info() { return *tracker().info(); }
  int write_now(uint64_t block, unsigned char fill) {
    return write_at(direct_.get(), block * kBlock, kBlock, fill);
  }

  std::unique_ptr<TestVolume> volume_;
  std::unique_ptr<filter::Attachment> attachment_;
  Fd direct_;
};

TEST_F(StatesTest, TheFenceRefusesWritesAndLetsReadsPass) {
  attach(FERRY_MODE_TRACK);
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  auto held = write_later(direct_.get(), 0, kBlock, 'x');
  ASSERT_TRUE(eventually_held(tracker(), 1));
  ASSERT_FERRY_OK(tracker().fence());
  EXPECT_EQ(held.get(), EIO);
  EXPECT_EQ(write_now(1, 'x'), EIO);
  uint64_t range[2] = {0, kMiB};
  EXPECT_EQ(ioctl(direct_.get(), BLKDISCARD, range), -1);
  EXPECT_EQ(ioctl(direct_.get(), BLKZEROOUT, range), -1);
  EXPECT_EQ(fsync(direct_.get()), 0);
  EXPECT_EQ(first_byte(direct_.get(), 0), 'o');
  EXPECT_EQ(first_byte(direct_.get(), 1), 'o');
  EXPECT_GE(info().fenced_writes, 2u);
  EXPECT_FERRY_ERRNO(tracker().thaw(), EBUSY);
  EXPECT_EQ(attachment_->detach().error().code, Errc::busy);
  ASSERT_FERRY_OK(tracker().unfence());
  EXPECT_EQ(write_now(1, 'y'), 0);
}

TEST_F(StatesTest, TheFenceSurvivesItsOwner) {
  leave_fenced();
  EXPECT_EQ(write_now(0, 'x'), EIO);
  EXPECT_EQ(first_byte(direct_.get(), 0), 'o');
  auto attached = filter::list_attached();
  ASSERT_FERRY_OK(attached);
  ASSERT_EQ(attached->size(), 1u);
  EXPECT_EQ((*attached)[0].name, volume_->dm_name());
  EXPECT_FALSE((*attached)[0].door_present);
  ASSERT_TRUE((*attached)[0].tracker);
  EXPECT_EQ((*attached)[0].tracker->state, FERRY_STATE_FENCED);
  EXPECT_FALSE((*attached)[0].tracker->owned());
  EXPECT_EQ(filter::detach_volume(volume_->path(), false).error().code, Errc::busy);
  EXPECT_EQ(write_now(0, 'x'), EIO);
  EXPECT_FERRY_OK(filter::detach_volume(volume_->path(), true));
  EXPECT_EQ(write_now(0, 'x'), 0);
}

TEST_F(StatesTest, TheDoorOfADeadDaemonIsRemovedAndTheFilterStays) {
  const auto door_present = [] {
    const auto attached = filter::list_attached();
    return attached && attached->size() == 1 && attached->front().door_present;
  };
  attach(FERRY_MODE_TRACK);
  ASSERT_FERRY_OK(filter::remove_stale_devices());
  EXPECT_TRUE(door_present()) << "it is in use";
  ASSERT_FERRY_OK(attachment_->leave());
  attachment_.reset();
  const auto lines = filter::parse_table("0 8 error");
  ASSERT_TRUE(lines);
  const auto name = volume_->dm_name();
  ASSERT_FERRY_OK(filter::dm::create({filter::door_name(name), filter::door_uuid("", name), *lines}));
  EXPECT_TRUE(door_present());
  ASSERT_FERRY_OK(filter::remove_stale_devices());
  EXPECT_FALSE(door_present());
  EXPECT_EQ(write_now(0, 'x'), 0);
  EXPECT_FERRY_OK(filter::detach_volume(volume_->path(), false));
}

TEST_F(StatesTest, TheDestructorLeavesAFencedVolumeFenced) {
  attach(FERRY_MODE_TRACK);
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  ASSERT_FERRY_OK(tracker().fence());
  attachment_.reset();
  EXPECT_EQ(write_now(0, 'x'), EIO);
  EXPECT_FERRY_OK(filter::detach_volume(volume_->path(), true));
}

TEST_F(StatesTest, FenceNeedsAFreeze) {
  attach(FERRY_MODE_TRACK);
  EXPECT_FERRY_ERRNO(tracker().fence(), EBUSY);
  EXPECT_FERRY_ERRNO(tracker().unfence(), EBUSY);
  EXPECT_FERRY_ERRNO(tracker().thaw(), EBUSY);
  EXPECT_FERRY_ERRNO(tracker().close_gate(), EBUSY);
  EXPECT_FERRY_ERRNO(tracker().open_gate(), EBUSY);
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  EXPECT_FERRY_ERRNO(tracker().freeze(kLongMs, kLongMs), EBUSY);
  ASSERT_FERRY_OK(tracker().thaw());
}

TEST_F(StatesTest, TheGateKeepsWritesThenReadsAway) {
  attach(FERRY_MODE_GATE);
  EXPECT_EQ(info().state, FERRY_STATE_RECEIVING);
  auto write = write_later(direct_.get(), 5 * kBlock, kBlock, 'g');
  ASSERT_TRUE(eventually_held(tracker(), 1));
  // The daemon's door is open all the time, and the guest's side sees what goes through it.
  ASSERT_EQ(write_at(attachment_->door_fd(), 0, kBlock, 'd'), 0);
  EXPECT_EQ(first_byte(direct_.get(), 0), 'd');
  EXPECT_EQ(first_byte(attachment_->door_fd(), 5), 'o');
  ASSERT_FERRY_OK(tracker().close_gate());
  auto read = std::async(std::launch::async, [&] { return first_byte(direct_.get(), 5); });
  ASSERT_TRUE(eventually_held(tracker(), 2));
  EXPECT_FALSE(is_done(write));
  EXPECT_FALSE(is_done(read));
  EXPECT_FERRY_ERRNO(tracker().freeze(1000, 1000), EBUSY);
  ASSERT_FERRY_OK(tracker().open_gate());
  EXPECT_EQ(write.get(), 0);
  EXPECT_NE(read.get(), -1);
  EXPECT_EQ(first_byte(direct_.get(), 5), 'g');
  EXPECT_EQ(info().state, FERRY_STATE_TRACKING);
}

TEST_F(StatesTest, TheGateOpensFromReceivingAsWell) {
  attach(FERRY_MODE_GATE);
  auto write = write_later(direct_.get(), 0, kBlock, 'g');
  ASSERT_TRUE(eventually_held(tracker(), 1));
  ASSERT_FERRY_OK(tracker().open_gate());
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(take_round(tracker()), blocks(0, 1));
}

TEST_F(StatesTest, AHeldWriteSurvivesTheEndOfTheFilter) {
  attach(FERRY_MODE_GATE);
  auto write = write_later(direct_.get(), 0, kBlock, 'g');
  ASSERT_TRUE(eventually_held(tracker(), 1));
  ASSERT_FERRY_OK(attachment_->detach());
  attachment_.reset();
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(first_byte(direct_.get(), 0), 'g');
}

TEST_F(StatesTest, TheGateSurvivesItsOwner) {
  attach(FERRY_MODE_GATE);
  ASSERT_FERRY_OK(tracker().close_gate());
  attachment_.reset();  // the destructor leaves a gated volume gated
  auto onlookers = filter::list_attached();
  ASSERT_FERRY_OK(onlookers);
  ASSERT_EQ(onlookers->size(), 1u);
  ASSERT_TRUE((*onlookers)[0].tracker);
  EXPECT_EQ((*onlookers)[0].tracker->state, FERRY_STATE_GATED);
  EXPECT_EQ(filter::detach_volume(volume_->path(), false).error().code, Errc::busy);
  EXPECT_FERRY_OK(filter::detach_volume(volume_->path(), true));
}

TEST_F(StatesTest, AFencedVolumeBecomesADestinationWithoutAnInstantOfPlainAccess) {
  std::string plain = table_text(volume_->dm_name());
  leave_fenced();
  // Somebody keeps trying to write: each attempt fails (fence) until one is held (gate).
  std::atomic<bool> got_through{false};
  auto intruder = std::async(std::launch::async, [&] {
    for (;;) {
      int error = write_now(2, 'i');
      if (error != EIO) return error;
      if (first_byte(direct_.get(), 2) != 'o') got_through = true;
    }
  });
  EXPECT_EQ(filter::Attachment::attach({.path = volume_->path(), .mode = FERRY_MODE_GATE})
                .error().code, Errc::busy);
  EXPECT_EQ(filter::Attachment::attach({.path = volume_->path(), .replace_fenced = true})
                .error().code, Errc::busy);
  attach(FERRY_MODE_GATE, true);
  EXPECT_TRUE(attachment_->in_place());
  ASSERT_TRUE(eventually_held(tracker(), 1));
  EXPECT_EQ(first_byte(attachment_->door_fd(), 2), 'o');
  EXPECT_FALSE(got_through);
  auto trackers = filter::list_trackers();
  ASSERT_FERRY_OK(trackers);
  EXPECT_EQ(trackers->size(), 1u);  // the old one is gone
  ASSERT_FERRY_OK(tracker().open_gate());
  EXPECT_EQ(intruder.get(), 0);
  ASSERT_FERRY_OK(attachment_->detach());
  attachment_.reset();
  EXPECT_EQ(table_text(volume_->dm_name()), plain);
}

}  // namespace
}  // namespace ferry::kmod
