// SPDX-License-Identifier: GPL-2.0-or-later
// Swap, release and what may be mapped.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "suite.h"

namespace ferry::kmod {
namespace {

class MapsTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    volume_ = std::make_unique<TestVolume>("kmod-maps", 16 * kMiB);
    attachment_ = std::make_unique<filter::Attachment>(must_attach({.path = volume_->path()}));
    direct_ = open_device(volume_->path(), O_RDWR | O_DIRECT);
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
  filter::Tracker& tracker() { return attachment_->tracker(); }
  void write_block(uint64_t block) {
    ASSERT_EQ(write_at(direct_.get(), block * kBlock, kBlock, 1), 0);
  }
  // Where the last retired map lies; SWAP by hand.
  ferry_swap raw_swap() {
    ferry_swap swap{};
    swap.size = sizeof swap;
    EXPECT_EQ(ioctl(tracker().fd(), FERRY_IOC_SWAP, &swap), 0) << std::strerror(errno);
    return swap;
  }
  // 0 or the errno of mapping it.
  int try_map(int fd, uint64_t length, int protection, uint64_t offset) {
    void* area = mmap(nullptr, length, protection, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (area == MAP_FAILED) return errno;
    munmap(area, length);
    return 0;
  }

  std::unique_ptr<TestVolume> volume_;
  std::unique_ptr<filter::Attachment> attachment_;
  Fd direct_;
};

TEST_F(MapsTest, EachWriteIsInExactlyOneRound) {
  write_block(1);
  EXPECT_EQ(take_round(tracker()), blocks(1, 1));
  write_block(2);
  EXPECT_EQ(take_round(tracker()), blocks(2, 1));
  EXPECT_TRUE(take_round(tracker()).empty());
}

TEST_F(MapsTest, SwapNeedsTheReleaseOfTheLastMap) {
  auto map = tracker().swap();
  ASSERT_FERRY_OK(map);
  EXPECT_FERRY_ERRNO(tracker().swap(), EBUSY);
  ASSERT_FERRY_OK(tracker().release());
  EXPECT_FERRY_ERRNO(tracker().release(), EINVAL);
  auto again = tracker().swap();
  EXPECT_FERRY_OK(again);
}

TEST_F(MapsTest, ARetiredMapDoesNotChange) {
  write_block(3);
  auto map = tracker().swap();
  ASSERT_FERRY_OK(map);
  write_block(4);
  EXPECT_TRUE(map->test(3));
  EXPECT_FALSE(map->test(4));
  EXPECT_EQ(map->dirty(), 1u);
  ASSERT_FERRY_OK(tracker().release());
  EXPECT_EQ(take_round(tracker()), blocks(4, 1));
}

TEST_F(MapsTest, OnlyTheRetiredMapCanBeMapped) {
  ferry_swap first = raw_swap();
  EXPECT_EQ(try_map(tracker().fd(), first.map_len, PROT_READ, first.map_off), 0);
  EXPECT_EQ(try_map(tracker().fd(), first.sum_len, PROT_READ, first.sum_off), 0);
  ASSERT_FERRY_OK(tracker().release());
  EXPECT_EQ(try_map(tracker().fd(), first.map_len, PROT_READ, first.map_off), EINVAL);
  ferry_swap second = raw_swap();
  ASSERT_NE(first.map_off, second.map_off);
  // The map of the first round is the live one now.
  EXPECT_EQ(try_map(tracker().fd(), first.map_len, PROT_READ, first.map_off), EINVAL);
  EXPECT_EQ(try_map(tracker().fd(), second.map_len, PROT_READ, second.map_off), 0);
  EXPECT_EQ(try_map(tracker().fd(), second.map_len + 4096, PROT_READ, second.map_off), EINVAL);
  EXPECT_EQ(try_map(tracker().fd(), 4096, PROT_READ, 0), EINVAL);
}

TEST_F(MapsTest, MapsAreReadOnly) {
  ferry_swap swap = raw_swap();
  EXPECT_EQ(try_map(tracker().fd(), swap.map_len, PROT_READ | PROT_WRITE, swap.map_off), EACCES);
  void* area = mmap(nullptr, swap.map_len, PROT_READ, MAP_SHARED, tracker().fd(),
                    static_cast<off_t>(swap.map_off));
  ASSERT_NE(area, MAP_FAILED);
  EXPECT_EQ(mprotect(area, swap.map_len, PROT_READ | PROT_WRITE), -1);
  EXPECT_EQ(errno, EACCES);
  munmap(area, swap.map_len);
}

TEST_F(MapsTest, OnlookersMayOnlyLook) {
  auto other = filter::Tracker::open(tracker().uuid(), false);
  ASSERT_FERRY_OK(other);
  EXPECT_FERRY_OK(other->info());
  EXPECT_FERRY_ERRNO(other->swap(), EPERM);
  EXPECT_FERRY_ERRNO(other->freeze(1000, 1000), EPERM);
  EXPECT_FERRY_ERRNO(other->disarm(), EPERM);
  EXPECT_FERRY_ERRNO(other->mark(0, 1), EPERM);
  ferry_swap swap = raw_swap();
  EXPECT_EQ(try_map(other->fd(), swap.map_len, PROT_READ, swap.map_off), EPERM);
}

TEST_F(MapsTest, AnUnreadRoundReturnsToTheNextOwner) {
  write_block(7);
  raw_swap();
  write_block(8);
  filter::TrackerUuid uuid = tracker().uuid();
  ASSERT_FERRY_OK(attachment_->leave());
  {
    auto next = filter::Tracker::open(uuid, true);
    ASSERT_FERRY_OK(next);
    auto info = next->info();
    ASSERT_FERRY_OK(info);
    EXPECT_EQ(info->dirty, 2u);
    EXPECT_EQ(take_round(*next), blocks(7, 2));
  }
  direct_.reset();
  attachment_.reset();
  EXPECT_FERRY_OK(filter::detach_volume(volume_->path(), false));
}

}  // namespace
}  // namespace ferry::kmod
