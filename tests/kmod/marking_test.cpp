// SPDX-License-Identifier: GPL-2.0-or-later
// Which blocks each kind of request marks.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "suite.h"

namespace ferry::kmod {
namespace {

using testing::IsEmpty;

class MarkingTest : public KmodTest {
 protected:
  static void SetUpTestSuite() {
    volume_ = std::make_unique<TestVolume>("kmod-marking", 64 * kMiB);
    attachment_ = std::make_unique<filter::Attachment>(must_attach({.path = volume_->path()}));
  }
  static void TearDownTestSuite() {
    EXPECT_FERRY_OK(attachment_->detach());
    attachment_.reset();
    volume_.reset();
  }
  void SetUp() override {
    KmodTest::SetUp();
    direct_ = open_device(volume_->path(), O_RDWR | O_DIRECT);
    take_round(tracker());
  }
  filter::Tracker& tracker() { return attachment_->tracker(); }
  std::set<uint64_t> round() { return take_round(tracker()); }
  int direct() const { return direct_.get(); }
  // Runs a range ioctl; skips the test where the device below cannot do it.
  void range_ioctl(unsigned long request, uint64_t offset, uint64_t length) {
    uint64_t range[2] = {offset, length};
    if (ioctl(direct(), request, range) == 0) return;
    if (errno == EOPNOTSUPP) GTEST_SKIP() << "the disk below cannot do it";
    FAIL() << std::strerror(errno);
  }

  static std::unique_ptr<TestVolume> volume_;
  static std::unique_ptr<filter::Attachment> attachment_;
  Fd direct_;
};

std::unique_ptr<TestVolume> MarkingTest::volume_;
std::unique_ptr<filter::Attachment> MarkingTest::attachment_;

TEST_F(MarkingTest, OneSectorMarksItsBlock) {
  ASSERT_EQ(write_at(direct(), 0, 512, 1), 0);
  ASSERT_EQ(write_at(direct(), 3 * kBlock + 7 * 512, 512, 1), 0);
  EXPECT_EQ(round(), (std::set<uint64_t>{0, 3}));
}

TEST_F(MarkingTest, OneBlock) {
  ASSERT_EQ(write_at(direct(), 5 * kBlock, kBlock, 1), 0);
  EXPECT_EQ(round(), blocks(5, 1));
}

TEST_F(MarkingTest, BlockAcrossABoundaryMarksBoth) {
  ASSERT_EQ(write_at(direct(), 7 * kBlock + 512, kBlock, 1), 0);
  EXPECT_EQ(round(), blocks(7, 2));
}

TEST_F(MarkingTest, OneMebibyte) {
  ASSERT_EQ(write_at(direct(), kMiB, kMiB, 1), 0);
  EXPECT_EQ(round(), blocks(256, 256));
}

TEST_F(MarkingTest, OneMebibyteOffBoundary) {
  ASSERT_EQ(write_at(direct(), kMiB + 3 * 512, kMiB, 1), 0);
  EXPECT_EQ(round(), blocks(256, 257));
}

TEST_F(MarkingTest, LastSectorOfTheDevice) {
  ASSERT_EQ(write_at(direct(), 64 * kMiB - 512, 512, 1), 0);
  EXPECT_EQ(round(), blocks(64 * kMiB / kBlock - 1, 1));
}

TEST_F(MarkingTest, WriteWithFua) {
  Fd fd = open_device(volume_->path(), O_RDWR | O_DIRECT | O_DSYNC);
  ASSERT_EQ(write_at(fd.get(), 9 * kBlock, kBlock, 1), 0);
  ASSERT_EQ(write_at(fd.get(), 20 * kBlock, 8 * kBlock, 1), 0);
  std::set<uint64_t> expected = blocks(20, 8);
  expected.insert(9);
  EXPECT_EQ(round(), expected);
}

TEST_F(MarkingTest, BufferedWriteMarksWhenItReachesTheDisk) {
  Fd fd = open_device(volume_->path(), O_RDWR);
  ASSERT_EQ(write_at(fd.get(), 11 * kBlock + 100, 200, 1), 0);
  ASSERT_EQ(fsync(fd.get()), 0);
  EXPECT_EQ(round(), blocks(11, 1));
}

TEST_F(MarkingTest, Discard) {
  range_ioctl(BLKDISCARD, 4 * kMiB, 2 * kMiB);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(round(), blocks(1024, 512));
}

TEST_F(MarkingTest, DiscardOfThePartOfABlock) {
  range_ioctl(BLKDISCARD, 6 * kMiB + 512, kBlock);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(round(), blocks(1536, 2));
}

TEST_F(MarkingTest, ZeroOut) {
  range_ioctl(BLKZEROOUT, 8 * kMiB, kMiB);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(round(), blocks(2048, 256));
}

TEST_F(MarkingTest, WriteZeroesThatMayUnmap) {
  if (fallocate(direct(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 12 * kMiB, kMiB) != 0) {
    if (errno == EOPNOTSUPP) GTEST_SKIP() << "the disk below cannot do it";
    FAIL() << std::strerror(errno);
  }
  EXPECT_EQ(round(), blocks(3072, 256));
}

TEST_F(MarkingTest, SecureErase) {
  range_ioctl(BLKSECDISCARD, 16 * kMiB, kMiB);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(round(), blocks(4096, 256));
}

TEST_F(MarkingTest, ReadsMarkNothing) {
  Buffer buffer(kMiB);
  ASSERT_EQ(read_at(direct(), 0, buffer), 0);
  Fd fd = open_device(volume_->path(), O_RDONLY);
  ASSERT_EQ(read_at(fd.get(), 2 * kMiB, buffer), 0);
  EXPECT_THAT(round(), IsEmpty());
}

TEST_F(MarkingTest, EmptyFlushMarksNothing) {
  ASSERT_EQ(fsync(direct()), 0);
  EXPECT_THAT(round(), IsEmpty());
}

TEST_F(MarkingTest, WritesThroughTheDoorMarkNothing) {
  Fd fd = open_device("/dev/mapper/" + volume_->dm_name() + "-ferry", O_RDONLY);
  int read_only = 0;
  ASSERT_EQ(ioctl(fd.get(), BLKROGET, &read_only), 0);
  EXPECT_EQ(read_only, 1);
  EXPECT_THAT(round(), IsEmpty());
}

TEST_F(MarkingTest, ByHand) {
  ASSERT_FERRY_OK(tracker().mark(100, 4000));
  EXPECT_EQ(round(), blocks(100, 4000));
  EXPECT_FERRY_ERRNO(tracker().mark(64 * kMiB / kBlock, 1), EINVAL);
  EXPECT_FERRY_ERRNO(tracker().mark(0, 64 * kMiB / kBlock + 1), EINVAL);
  EXPECT_FERRY_ERRNO(tracker().mark(UINT64_MAX, 2), EINVAL);
  EXPECT_FERRY_ERRNO(tracker().mark(1, 0), EINVAL);
}

TEST_F(MarkingTest, CountersFollow) {
  auto before = tracker().info();
  ASSERT_FERRY_OK(before);
  ASSERT_EQ(write_at(direct(), 30 * kBlock, 2 * kBlock, 1), 0);
  ASSERT_EQ(write_at(direct(), 30 * kBlock, 2 * kBlock, 2), 0);
  auto after = tracker().info();
  ASSERT_FERRY_OK(after);
  EXPECT_EQ(after->dirty, 2u);
  EXPECT_EQ(after->newly - before->newly, 2u);
  EXPECT_EQ(after->inflight, 0u);
  EXPECT_EQ(after->nr_blocks, 64 * kMiB / kBlock);
}

class OddSizeTest : public KmodTest {};

TEST_F(OddSizeTest, TheLastPartialBlockIsTracked) {
  TestVolume below("kmod-odd", 8 * kMiB);
  DmDevice device("kmod-odd-dm", "0 2051 linear " + below.device() + " 0");
  {
    auto attachment = must_attach({.path = device.path()});
    EXPECT_TRUE(attachment.in_place());
    Fd fd = open_device(device.path(), O_RDWR | O_DIRECT);
    ASSERT_EQ(write_at(fd.get(), 2050 * 512, 512, 1), 0);
    EXPECT_EQ(take_round(attachment.tracker()), blocks(256, 1));
    fd.reset();
    ASSERT_FERRY_OK(attachment.detach());
  }
}

TEST_F(OddSizeTest, LargerBlocks) {
  TestVolume volume("kmod-shift", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path(), .block_shift = 16});
  Fd fd = open_device(volume.path(), O_RDWR | O_DIRECT);
  ASSERT_EQ(write_at(fd.get(), 65536 - 512, 1024, 1), 0);
  ASSERT_EQ(write_at(fd.get(), 5 * 65536 + kBlock, kBlock, 1), 0);
  EXPECT_EQ(take_round(attachment.tracker()), (std::set<uint64_t>{0, 1, 5}));
  fd.reset();
  ASSERT_FERRY_OK(attachment.detach());
}

}  // namespace
}  // namespace ferry::kmod
