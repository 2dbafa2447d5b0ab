// SPDX-License-Identifier: GPL-2.0-or-later
// Freeze: what waits, what passes, and every way in which it ends.
#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "suite.h"

namespace ferry::kmod {
namespace {

constexpr uint32_t kLongMs = 120'000;

class FreezeTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    volume_ = std::make_unique<TestVolume>("kmod-freeze", 16 * kMiB);
    attach(volume_->path());
  }
  // Puts the filter on top of a device whose writes take their time instead.
  void use_slow_device(int delay_ms) {
    end();
    slow_ = std::make_unique<DmDevice>(
        "kmod-freeze-slow", "0 32768 delay " + volume_->device() + " 0 0 " + volume_->device() +
                                " 0 " + std::to_string(delay_ms));
    disk_ = std::make_unique<DmDevice>("kmod-freeze-disk",
                                       "0 32768 linear " + slow_->device() + " 0");
    attach(disk_->path());
  }
  void TearDown() override {
    end();
    disk_.reset();
    slow_.reset();
    volume_.reset();
    KmodTest::TearDown();
  }
  void attach(const std::string& path) {
    attachment_ = std::make_unique<filter::Attachment>(must_attach({.path = path}));
    direct_ = open_device(path, O_RDWR | O_DIRECT);
    auto monitor = filter::EventMonitor::open();
    ASSERT_FERRY_OK(monitor);
    monitor_ = std::make_unique<filter::EventMonitor>(std::move(*monitor));
  }
  void end() {
    direct_.reset();
    if (attachment_) {
      EXPECT_FERRY_OK(attachment_->detach());
    }
    attachment_.reset();
  }
  filter::Tracker& tracker() { return attachment_->tracker(); }
  filter::TrackerInfo info() { return *tracker().info(); }
  std::future<int> write_block(uint64_t block) {
    return write_later(direct_.get(), block * kBlock, kBlock, 7);
  }
  // A write that the freeze holds.
  std::future<int> held_write(uint64_t block) {
    auto write = write_block(block);
    EXPECT_TRUE(eventually_held(tracker(), 1));
    EXPECT_FALSE(is_done(write));
    return write;
  }

  std::unique_ptr<TestVolume> volume_;
  std::unique_ptr<DmDevice> slow_, disk_;
  std::unique_ptr<filter::Attachment> attachment_;
  std::unique_ptr<filter::EventMonitor> monitor_;
  Fd direct_;
};

TEST_F(FreezeTest, WritesWaitAndGoOnAfterTheThaw) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  EXPECT_EQ(info().state, FERRY_STATE_FROZEN);
  auto write = held_write(3);
  // A held write is in no map: the last round is complete without it.
  EXPECT_TRUE(take_round(tracker()).empty());
  ASSERT_FERRY_OK(tracker().thaw());
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(take_round(tracker()), blocks(3, 1));
  EXPECT_EQ(info().held, 0u);
}

TEST_F(FreezeTest, ReadsAndFlushesPass) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  Buffer buffer(kMiB);
  EXPECT_EQ(read_at(direct_.get(), 0, buffer), 0);
  EXPECT_EQ(fsync(direct_.get()), 0);
  ASSERT_FERRY_OK(tracker().thaw());
}

TEST_F(FreezeTest, NowaitWritesAreTurnedBack) {
  // A block with cached pages, as udev's probe leaves them at both ends of a device, turns NOWAIT
  // writes back as well: hence one in the middle, and a waiting write first, which drops them.
  constexpr uint64_t kOffset = 777 * kBlock;
  auto write_nowait = [&] { return write_at(direct_.get(), kOffset, kBlock, 1, RWF_NOWAIT); };
  auto goes_through = [&] {
    return write_at(direct_.get(), kOffset, kBlock, 1) == 0 &&
           eventually([&] { return write_nowait() == 0; });
  };
  ASSERT_TRUE(goes_through());
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(write_nowait(), EAGAIN);
  EXPECT_EQ(info().held, 0u);
  ASSERT_FERRY_OK(tracker().thaw());
  EXPECT_TRUE(goes_through());
}

TEST_F(FreezeTest, WaitsForWritesInFlight) {
  use_slow_device(stretched(1500));
  auto write = write_block(5);
  ASSERT_TRUE(eventually([&] { return info().inflight == 1; }));
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  EXPECT_EQ(info().inflight, 0u);
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(take_round(tracker()), blocks(5, 1));
  ASSERT_FERRY_OK(tracker().thaw());
}

TEST_F(FreezeTest, TimeoutThaws) {
  use_slow_device(stretched(4000));
  auto write = write_block(5);
  ASSERT_TRUE(eventually([&] { return info().inflight == 1; }));
  EXPECT_FERRY_ERRNO(tracker().freeze(100, kLongMs), ETIMEDOUT);
  EXPECT_EQ(info().state, FERRY_STATE_TRACKING);
  auto second = write_block(6);
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(second.get(), 0);
  EXPECT_EQ(take_round(tracker()), blocks(5, 2));
}

TEST_F(FreezeTest, TheWatchdogThaws) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, static_cast<uint32_t>(stretched(2000))));
  auto write = write_block(3);
  EXPECT_TRUE(wait_for_event(*monitor_, tracker().uuid(), FERRY_EV_WATCHDOG_THAW));
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(info().state, FERRY_STATE_TRACKING);
  EXPECT_TRUE(info().freeze_lost());
  EXPECT_FERRY_ERRNO(tracker().fence(), EBUSY);
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  EXPECT_FALSE(info().freeze_lost());
  ASSERT_FERRY_OK(tracker().thaw());
}

TEST_F(FreezeTest, PollTellsOfTheWatchdog) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, 500));
  (void)info();
  pollfd wait{tracker().fd(), POLLPRI, 0};
  EXPECT_EQ(poll(&wait, 1, patience_ms()), 1);
  EXPECT_EQ(info().state, FERRY_STATE_TRACKING);
  EXPECT_EQ(poll(&wait, 1, 0), 0);
}

TEST_F(FreezeTest, TheEndOfTheOwnerThaws) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  auto write = held_write(3);
  filter::TrackerUuid uuid = tracker().uuid();
  ASSERT_FERRY_OK(attachment_->leave());
  EXPECT_TRUE(wait_for_event(*monitor_, uuid, FERRY_EV_FREEZE_LOST));
  EXPECT_EQ(write.get(), 0);
  attachment_.reset();
  EXPECT_FERRY_OK(filter::detach_volume(volume_->path(), false));
}

TEST_F(FreezeTest, TheDeathOfTheOwnerThaws) {
  filter::TrackerUuid uuid = tracker().uuid();
  ASSERT_FERRY_OK(attachment_->leave());
  attachment_.reset();
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  pid_t child = fork();
  if (child == 0) {
    auto owned = filter::Tracker::open(uuid, true);
    char answer = owned.ok() && owned->freeze(kLongMs, kLongMs).ok() ? 'y' : 'n';
    (void)!write(ready[1], &answer, 1);
    for (;;) pause();
  }
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  auto onlooker = filter::Tracker::open(uuid, false);
  ASSERT_FERRY_OK(onlooker);
  auto write = write_block(3);
  EXPECT_TRUE(eventually_held(*onlooker, 1));
  EXPECT_FALSE(is_done(write));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(write.get(), 0);
  close(ready[0]);
  close(ready[1]);
  EXPECT_FERRY_OK(filter::detach_volume(volume_->path(), false));
}

TEST_F(FreezeTest, ASuspendEndsIt) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  auto write = held_write(3);
  ASSERT_FERRY_OK(filter::dm::suspend(volume_->dm_name()));
  EXPECT_TRUE(wait_for_event(*monitor_, tracker().uuid(), FERRY_EV_FREEZE_LOST));
  EXPECT_TRUE(info().freeze_lost());
  EXPECT_FERRY_ERRNO(tracker().freeze(1000, 1000), ESTALE);  // not bound
  ASSERT_FERRY_OK(filter::dm::resume(volume_->dm_name()));
  EXPECT_EQ(write.get(), 0);
  EXPECT_TRUE(info().bound());
  EXPECT_FALSE(info().invalid());
  EXPECT_EQ(take_round(tracker()), blocks(3, 1));
}

TEST_F(FreezeTest, TheMessageThaws) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  auto write = held_write(3);
  EXPECT_EQ(run({"dmsetup", "message", volume_->dm_name(), "0", "thaw"}), 0);
  EXPECT_EQ(write.get(), 0);
}

TEST_F(FreezeTest, ManyHeldWritesOfAllKindsGoOn) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  std::vector<std::future<int>> writes;
  for (uint64_t i = 0; i < 16; ++i)
    writes.push_back(write_later(direct_.get(), i * 65536 + 512, 32768, 9));
  EXPECT_TRUE(eventually_held(tracker(), 16));
  ASSERT_FERRY_OK(tracker().thaw());
  for (auto& write : writes) EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(take_round(tracker()).size(), 16u * 9);
}

}  // namespace
}  // namespace ferry::kmod
