// SPDX-License-Identifier: GPL-2.0-or-later
// Faults below and around the filter: a disk that fails, suspends while writes are held. What an
// allocation failure does is in allocation_test.cpp, the owner's death in freeze_test.cpp.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "copier.h"
#include "suite.h"
#include "writer.h"

namespace ferry::kmod {
namespace {

constexpr uint32_t kLongMs = 120'000;
constexpr uint64_t kSectors = 32768;
constexpr uint64_t kBlocks = kSectors * 512 / kBlock;

// Does a process of this name wait inside this function of the kernel?
bool some_thread_is_in(const std::string& process, const std::string& function) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::string name;
    std::ifstream comm(entry.path() / "comm");
    if (!std::getline(comm, name) || name != process) continue;
    std::ifstream stack(entry.path() / "stack");
    for (std::string line; std::getline(stack, line);)
      if (line.find(function) != std::string::npos) return true;
  }
  return false;
}

// The filter in place in a volume over a device whose faults are switched on and off.
class FaultsTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    base_ = std::make_unique<TestVolume>("kmod-faults", kSectors * 512);
    lower_ = std::make_unique<DmDevice>("kmod-faults-lower", working());
    disk_ = std::make_unique<DmDevice>("kmod-faults-disk",
                                       "0 32768 linear " + lower_->device() + " 0");
    { Fd fd = open_device(disk_->path(), O_RDWR | O_DIRECT);
      ASSERT_EQ(write_at(fd.get(), 0, kSectors * 512, 'o'), 0); }
    attach(FERRY_MODE_TRACK);
  }
  void TearDown() override {
    direct_.reset();
    if (attachment_) {
      EXPECT_FERRY_OK(attachment_->detach());
    }
    attachment_.reset();
    disk_.reset();
    lower_.reset();
    base_.reset();
    KmodTest::TearDown();
  }
  void attach(ferry_mode mode) {
    direct_.reset();
    if (attachment_) {
      ASSERT_FERRY_OK(attachment_->detach());
    }
    attachment_ = std::make_unique<filter::Attachment>(
        must_attach({.path = disk_->path(), .mode = mode}));
    ASSERT_TRUE(attachment_->in_place());
    direct_ = open_device(disk_->path(), O_RDWR | O_DIRECT);
  }
  std::string working() const { return "0 32768 linear " + base_->device() + " 0"; }
  std::string writes_fail() const {
    return "0 32768 flakey " + base_->device() + " 0 0 3600 1 error_writes";
  }
  std::string all_fails() const { return "0 32768 error"; }
  std::string slow_failure(int delay_ms) const {
    return "0 32768 delay " + flaky_->device() + " 0 0 " + flaky_->device() + " 0 " +
           std::to_string(delay_ms);
  }
  void lower(const std::string& table) { change_table(lower_->name(), table); }
  filter::Tracker& tracker() { return attachment_->tracker(); }
  filter::TrackerInfo info() { return *tracker().info(); }
  int write_block(uint64_t block, unsigned char fill) {
    return write_at(direct_.get(), block * kBlock, kBlock, fill);
  }
  std::future<int> write_block_later(uint64_t block, unsigned char fill) {
    return write_later(direct_.get(), block * kBlock, kBlock, fill);
  }
  // Errors come and go under load: what the copy holds at the end is what the disk holds.
  void copy_while_errors_come_and_go(uint64_t times, const std::function<void()>& fail,
                                     const std::function<void()>& heal) {
    Copier copier(tracker(), attachment_->door_fd(), kSectors * 512);
    BusyWriter writer({.path = disk_->path(), .nr_blocks = kBlocks, .depth = 32});
    for (uint64_t i = 0; i < times && !HasFatalFailure(); ++i) {
      uint64_t errors = writer.errors();
      fail();
      ASSERT_TRUE(eventually([&] { return writer.errors() > errors + 64; }));
      heal();
      copier.round();
    }
    ASSERT_NO_FATAL_FAILURE(copy_the_rest(copier, writer));
    EXPECT_FALSE(info().invalid());
  }
  // The last round, with the guest standing still: the copy holds all then.
  void copy_the_rest(Copier& copier, BusyWriter& writer) {
    ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
    copier.round();
    EXPECT_EQ(copier.count_lost(), 0u);
    ASSERT_FERRY_OK(tracker().thaw());
    writer.stop();
  }

  std::unique_ptr<TestVolume> base_;
  std::unique_ptr<DmDevice> flaky_, lower_, disk_;
  std::unique_ptr<filter::Attachment> attachment_;
  Fd direct_;
};

// R8: a failed write may have torn its block.
TEST_F(FaultsTest, AFailedWriteIsReportedAndMarked) {
  ASSERT_EQ(write_block(1, 'a'), 0);
  lower(writes_fail());
  EXPECT_EQ(write_block(5, 'b'), EIO);
  EXPECT_EQ(write_at(direct_.get(), 20 * kBlock + 512, 3 * kBlock, 'b'), EIO);
  EXPECT_EQ(first_byte(direct_.get(), 5), 'o');
  EXPECT_EQ(info().inflight, 0u);
  std::set<uint64_t> expected = blocks(20, 4);
  expected.insert({1, 5});
  EXPECT_EQ(take_round(tracker()), expected);
  lower(working());
  ASSERT_EQ(write_block(6, 'c'), 0);
  EXPECT_EQ(take_round(tracker()), blocks(6, 1));
  EXPECT_TRUE(attachment_->intact());
}

// R8
TEST_F(FaultsTest, FailedDiscardsAndZeroesAreMarked) {
  lower(writes_fail());
  uint64_t range[2] = {8 * kBlock, 4 * kBlock};
  EXPECT_EQ(ioctl(direct_.get(), BLKZEROOUT, range), -1);
  std::set<uint64_t> expected = blocks(8, 4);
  uint64_t discard[2] = {40 * kBlock, 2 * kBlock};
  errno = 0;
  if (ioctl(direct_.get(), BLKDISCARD, discard) == 0)
    ADD_FAILURE() << "the discard should have failed";
  else if (errno != EOPNOTSUPP)
    expected.merge(blocks(40, 2));
  EXPECT_EQ(take_round(tracker()), expected);
}

TEST_F(FaultsTest, ReadsFailThroughAndMarkNothing) {
  lower(all_fails());
  EXPECT_EQ(first_byte(direct_.get(), 3), -1);
  EXPECT_TRUE(take_round(tracker()).empty());
  EXPECT_EQ(write_block(3, 'x'), EIO);
  EXPECT_EQ(take_round(tracker()), blocks(3, 1));
  lower(working());
  EXPECT_EQ(first_byte(direct_.get(), 3), 'o');
}

// R8: of a write over two lines, one of which fails, both parts are marked.
TEST_F(FaultsTest, AWriteThatFailsInPartIsMarkedWhole) {
  lower("0 400 linear " + base_->device() + " 0\n400 32368 error");
  EXPECT_EQ(write_at(direct_.get(), 48 * kBlock, 4 * kBlock, 'p'), EIO);
  EXPECT_EQ(take_round(tracker()), blocks(48, 4));
  lower(working());
  EXPECT_EQ(first_byte(direct_.get(), 50), 'o');
}

// R8: a write that fails while a freeze waits for it counts itself out.
TEST_F(FaultsTest, AFreezeWaitsForWritesThatFail) {
  flaky_ = std::make_unique<DmDevice>("kmod-faults-flaky", writes_fail());
  lower(slow_failure(stretched(1500)));
  auto write = write_block_later(7, 'x');
  ASSERT_TRUE(eventually([&] { return info().inflight == 1; }));
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  EXPECT_EQ(info().inflight, 0u);
  EXPECT_EQ(take_round(tracker()), blocks(7, 1));
  ASSERT_FERRY_OK(tracker().thaw());
  EXPECT_EQ(write.get(), EIO);
  lower(working());
  flaky_.reset();
}

// R8: the disk breaks while a write is held.
TEST_F(FaultsTest, AHeldWriteThatFailsAfterTheThawIsMarked) {
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  auto write = write_block_later(9, 'x');
  ASSERT_TRUE(eventually_held(tracker(), 1));
  lower(writes_fail());
  ASSERT_FERRY_OK(tracker().thaw());
  EXPECT_EQ(write.get(), EIO);
  EXPECT_EQ(take_round(tracker()), blocks(9, 1));
  EXPECT_EQ(info().held, 0u);
  EXPECT_FALSE(info().invalid());
}

TEST_F(FaultsTest, NoWriteIsLostWhileTheDiskFailsNowAndThen) {
  copy_while_errors_come_and_go(turns(10, 200), [&] { lower(writes_fail()); }, [&] { lower(working()); });
}

// The kernel's own injection fails requests between the filter and the disk. Needs the lab's "kasan".
class FailMakeRequest {
 public:
  explicit FailMakeRequest(const std::string& device) : of_disk_(device) {
    works_ = put(root() + "interval", "1") && put(root() + "verbose", "0") && put(of_disk_, "1");
  }
  FailMakeRequest(const FailMakeRequest&) = delete;
  FailMakeRequest& operator=(const FailMakeRequest&) = delete;
  ~FailMakeRequest() {
    set(0, -1);
    (void)put(of_disk_, "0");
  }
  bool works() const { return works_; }
  // So many percent of the requests fail, until so many have; -1: no end.
  void set(int percent, int times) {
    (void)put(root() + "times", std::to_string(times));
    (void)put(root() + "probability", std::to_string(percent));
  }
  static std::string root() { return debugfs("fail_make_request/"); }

 private:
  std::string of_disk_;
  bool works_ = false;
};

// R8: a few that are counted, then any under load.
TEST_F(FaultsTest, RequestsFailBelowTheFilter) {
  if (!std::filesystem::exists(FailMakeRequest::root()))
    GTEST_SKIP() << "this kernel has no fail_make_request";
  FailMakeRequest failures("/sys/dev/block/" + lower_->device() + "/make-it-fail");
  ASSERT_TRUE(failures.works());
  failures.set(100, 2);
  EXPECT_EQ(write_block(3, 'x'), EIO);
  EXPECT_EQ(write_at(direct_.get(), 40 * kBlock, 5 * kBlock, 'x'), EIO);
  EXPECT_EQ(write_block(4, 'x'), 0) << "the third";
  std::set<uint64_t> expected = blocks(40, 5);
  expected.insert({3, 4});
  EXPECT_EQ(take_round(tracker()), expected);
  EXPECT_EQ(info().inflight, 0u);

  copy_while_errors_come_and_go(turns(10, 60), [&] { failures.set(20, -1); }, [&] { failures.set(0, -1); });
}

// A noflush suspend takes held writes back to dm, which gives them to the table that comes next:
// held again while the gate is closed, and not lost.
TEST_F(FaultsTest, ANoflushSuspendTakesBackWhatTheGateHolds) {
  attach(FERRY_MODE_GATE);
  auto write = write_block_later(3, 'g');
  auto large = write_later(direct_.get(), 64 * kBlock, 16 * kBlock, 'g');
  ASSERT_TRUE(eventually_held(tracker(), 2));
  ASSERT_FERRY_OK(tracker().close_gate());
  auto read = std::async(std::launch::async, [&] { return first_byte(direct_.get(), 200); });
  ASSERT_TRUE(eventually_held(tracker(), 3));
  for (int i = 0; i < 3; ++i) {
    ASSERT_FERRY_OK(filter::dm::suspend(disk_->name()));
    EXPECT_EQ(info().held, 0u);
    EXPECT_FALSE(is_done(write) || is_done(large) || is_done(read));
    // udev looks into the device then, and waits for the gate as well: do not wait for udev.
    ASSERT_EQ(run({"dmsetup", "resume", "--noudevsync", disk_->name()}), 0);
    ASSERT_TRUE(eventually_held(tracker(), 3));
  }
  EXPECT_EQ(first_byte(attachment_->door_fd(), 3), 'o');
  ASSERT_FERRY_OK(tracker().open_gate());
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(large.get(), 0);
  EXPECT_EQ(read.get(), 'o');
  EXPECT_EQ(first_byte(direct_.get(), 3), 'g');
  EXPECT_EQ(first_byte(direct_.get(), 79), 'g');
  std::set<uint64_t> expected = blocks(64, 16);
  expected.insert(3);
  EXPECT_EQ(take_round(tracker()), expected);
}

// While the device is suspended the gate opens: what dm kept goes on at the resume.
TEST_F(FaultsTest, TheGateOpensDuringASuspend) {
  attach(FERRY_MODE_GATE);
  auto write = write_block_later(3, 'g');
  ASSERT_TRUE(eventually_held(tracker(), 1));
  ASSERT_FERRY_OK(filter::dm::suspend(disk_->name()));
  ASSERT_FERRY_OK(tracker().open_gate());
  EXPECT_FALSE(is_done(write));
  ASSERT_FERRY_OK(filter::dm::resume(disk_->name()));
  EXPECT_EQ(write.get(), 0);
  EXPECT_EQ(take_round(tracker()), blocks(3, 1));
  EXPECT_TRUE(info().bound());
}

// A flushing suspend waits for the gate, and goes on when it opens.
TEST_F(FaultsTest, AFlushingSuspendWaitsForTheGate) {
  attach(FERRY_MODE_GATE);
  auto write = write_block_later(3, 'g');
  ASSERT_TRUE(eventually_held(tracker(), 1));
  auto suspend = std::async(std::launch::async, [&] {
    return run({"dmsetup", "suspend", "--nolockfs", disk_->name()});
  });
  ASSERT_TRUE(eventually([] { return some_thread_is_in("dmsetup", "__dm_suspend"); }));
  EXPECT_EQ(info().held, 1u);
  EXPECT_FALSE(is_done(suspend));
  ASSERT_FERRY_OK(tracker().open_gate());
  EXPECT_EQ(suspend.get(), 0);
  EXPECT_EQ(write.get(), 0);
  ASSERT_FERRY_OK(filter::dm::resume(disk_->name()));
  EXPECT_EQ(first_byte(direct_.get(), 3), 'g');
}

// A freeze with many waiting writes, ended by a suspend from outside, again and again under load.
TEST_F(FaultsTest, NoWriteIsLostWhenSuspendsEndFreezesUnderLoad) {
  // What the writer never comes to must be zeroes at the end.
  ASSERT_EQ(write_at(direct_.get(), 0, kSectors * 512, 0), 0);
  Copier copier(tracker(), attachment_->door_fd(), kSectors * 512);
  BusyWriter writer({.path = disk_->path(), .nr_blocks = kBlocks, .depth = 32});
  for (uint64_t i = 0; i < turns(10, 200) && !HasFatalFailure(); ++i) {
    ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
    ASSERT_TRUE(eventually_held(tracker(), 32));
    ASSERT_FERRY_OK(filter::dm::suspend(disk_->name()));
    EXPECT_EQ(info().held, 0u);
    EXPECT_TRUE(info().freeze_lost());
    uint64_t before = writer.completed();
    ASSERT_FERRY_OK(filter::dm::resume(disk_->name()));
    ASSERT_TRUE(eventually([&] { return writer.completed() > before + 64; }));
    copier.round();
  }
  ASSERT_NO_FATAL_FAILURE(copy_the_rest(copier, writer));
  EXPECT_EQ(writer.errors(), 0u);
  EXPECT_EQ(writer.count_wrong_blocks(attachment_->door_fd()), 0u);
}

}  // namespace
}  // namespace ferry::kmod
