// SPDX-License-Identifier: GPL-2.0-or-later
// The interface itself: sizes, flags, rights, discovery, and tables that must be refused.
#include <fcntl.h>
#include <linux/ferry.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/process.h"
#include "suite.h"

namespace ferry::kmod {
namespace {

class AbiTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    fd_ = open_device(FERRY_DEVICE, O_RDWR);
    uuid_ = any_uuid();
  }
  // 0 or the errno.
  template <typename T>
  int call(unsigned long request, T& argument) {
    return ioctl(fd_.get(), request, &argument) == 0 ? 0 : errno;
  }
  int call(unsigned long request) { return ioctl(fd_.get(), request) == 0 ? 0 : errno; }
  ferry_create good_create() {
    ferry_create arg{};
    arg.size = sizeof arg;
    std::copy(uuid_.begin(), uuid_.end(), arg.uuid);
    std::strcpy(arg.name, "kmod-abi");
    arg.sectors = 32768;
    arg.mode = FERRY_MODE_TRACK;
    return arg;
  }
  Fd fd_;
  filter::TrackerUuid uuid_{};
};

TEST_F(AbiTest, Version) {
  ferry_version arg{};
  arg.size = sizeof arg;
  ASSERT_EQ(call(FERRY_IOC_VERSION, arg), 0);
  EXPECT_EQ(arg.abi_major, static_cast<uint32_t>(FERRY_ABI_MAJOR));
  arg.size = sizeof arg - 1;
  EXPECT_EQ(call(FERRY_IOC_VERSION, arg), EINVAL);
  arg.size = sizeof arg;
  arg.pad = 1;
  EXPECT_EQ(call(FERRY_IOC_VERSION, arg), EINVAL);
}

TEST_F(AbiTest, LongerStructsFromTheFuture) {
  struct {
    ferry_version known{};
    uint64_t unknown = 0;
  } arg;
  arg.known.size = sizeof arg;
  EXPECT_EQ(call(FERRY_IOC_VERSION, arg), 0);
  arg.unknown = 1;
  arg.known.size = sizeof arg;
  EXPECT_EQ(call(FERRY_IOC_VERSION, arg), E2BIG);
}

TEST_F(AbiTest, CreateChecksItsArguments) {
  auto expect_invalid = [&](auto change) {
    ferry_create arg = good_create();
    change(arg);
    EXPECT_EQ(call(FERRY_IOC_CREATE, arg), EINVAL);
  };
  expect_invalid([](ferry_create& arg) { arg.size = 8; });
  expect_invalid([](ferry_create& arg) { arg.flags = 1; });
  expect_invalid([](ferry_create& arg) { arg.sectors = 0; });
  expect_invalid([](ferry_create& arg) { arg.block_shift = 11; });
  expect_invalid([](ferry_create& arg) { arg.block_shift = 21; });
  expect_invalid([](ferry_create& arg) { arg.mode = 0; });
  expect_invalid([](ferry_create& arg) { arg.mode = 3; });
  expect_invalid([](ferry_create& arg) { std::memset(arg.name, 'x', sizeof arg.name); });
  expect_invalid([](ferry_create& arg) { arg.sectors = UINT64_MAX; });
  EXPECT_TRUE(filter::list_trackers()->empty());
}

TEST_F(AbiTest, OneTrackerPerUuidAndPerFd) {
  ferry_create arg = good_create();
  ASSERT_EQ(call(FERRY_IOC_CREATE, arg), 0);
  EXPECT_EQ(call(FERRY_IOC_CREATE, arg), EBUSY);
  EXPECT_FERRY_ERRNO(filter::Tracker::create(uuid_, "twin", 8, 0, FERRY_MODE_TRACK), EEXIST);
  EXPECT_FERRY_ERRNO(filter::Tracker::open(uuid_, true), EBUSY);
  EXPECT_FERRY_OK(filter::Tracker::open(uuid_, false));
  fd_.reset();  // no table borrows it, so it goes with its owner
  EXPECT_FERRY_ERRNO(filter::Tracker::open(uuid_, false), ENOENT);
}

TEST_F(AbiTest, CallsWithoutATracker) {
  ferry_info info{};
  info.size = sizeof info;
  EXPECT_EQ(call(FERRY_IOC_INFO, info), ENODEV);
  EXPECT_EQ(call(FERRY_IOC_RELEASE), ENODEV);
  EXPECT_EQ(call(FERRY_IOC_THAW), ENODEV);
  EXPECT_EQ(call(_IO(0x42, 0)), ENOTTY);
  ferry_open open{};
  open.size = sizeof open;
  EXPECT_EQ(call(FERRY_IOC_OPEN, open), ENOENT);
  open.flags = 2;
  EXPECT_EQ(call(FERRY_IOC_OPEN, open), EINVAL);
}

TEST_F(AbiTest, OwnersCallsCheckTheirArguments) {
  ferry_create create = good_create();
  ASSERT_EQ(call(FERRY_IOC_CREATE, create), 0);
  EXPECT_EQ(call(_IO(FERRY_IOC_MAGIC, 99)), ENOTTY);
  ferry_swap swap{};
  swap.size = sizeof swap;
  EXPECT_EQ(call(FERRY_IOC_SWAP, swap), ESTALE);  // not bound
  swap.flags = 2;
  EXPECT_EQ(call(FERRY_IOC_SWAP, swap), EINVAL);
  ferry_freeze freeze{sizeof freeze, 0, 1000, 1000};
  EXPECT_EQ(call(FERRY_IOC_FREEZE, freeze), ESTALE);
  for (ferry_freeze wrong : {ferry_freeze{sizeof freeze, 1, 1000, 1000},
                             ferry_freeze{sizeof freeze, 0, 0, 1000},
                             ferry_freeze{sizeof freeze, 0, 1000, 0},
                             ferry_freeze{sizeof freeze, 0, FERRY_FREEZE_MAX_MS + 1, 1000},
                             ferry_freeze{4, 0, 1000, 1000}})
    EXPECT_EQ(call(FERRY_IOC_FREEZE, wrong), EINVAL);
  ferry_range range{sizeof range, 1, 0, 1};
  EXPECT_EQ(call(FERRY_IOC_MARK, range), EINVAL);
}

TEST_F(AbiTest, OtherUsersMayNotComeNear) {
  struct stat before {};
  ASSERT_EQ(::stat(FERRY_DEVICE, &before), 0);
  EXPECT_EQ(before.st_mode & 07777, 0600u);
  // Even where an admin has opened the file's mode, the capability is asked for.
  ASSERT_EQ(chmod(FERRY_DEVICE, 0666), 0);
  pid_t child = fork();
  if (child == 0) {
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(1);
    int fd = open(FERRY_DEVICE, O_RDWR);
    if (fd >= 0 || errno != EPERM) _exit(2);
    auto listed = filter::list_trackers();
    _exit(listed.ok() ? 3 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  chmod(FERRY_DEVICE, before.st_mode & 07777);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(AbiTest, DiscoveryAgreesWithInfo) {
  auto tracker = filter::Tracker::create(uuid_, "kmod-found", 4097, 14, FERRY_MODE_GATE);
  ASSERT_FERRY_OK(tracker);
  auto listed = filter::list_trackers();
  ASSERT_FERRY_OK(listed);
  auto found = std::ranges::find(*listed, uuid_, &filter::TrackerInfo::uuid);
  ASSERT_NE(found, listed->end());
  auto info = tracker->info();
  ASSERT_FERRY_OK(info);
  EXPECT_EQ(found->name, "kmod-found");
  EXPECT_EQ(found->state, FERRY_STATE_RECEIVING);
  EXPECT_EQ(found->flags, info->flags);
  EXPECT_TRUE(found->owned());
  EXPECT_EQ(found->block_shift, 14u);
  EXPECT_EQ(found->sectors, 4097u);
  EXPECT_EQ(found->nr_blocks, info->nr_blocks);
}

TEST_F(AbiTest, ManyTrackersAreListedWhole) {
  std::vector<filter::Tracker> trackers;
  for (int i = 0; i < 100; ++i) {
    auto tracker = filter::Tracker::create(any_uuid(), "kmod-many-" + std::to_string(i), 8, 0,
                                           FERRY_MODE_TRACK);
    ASSERT_FERRY_OK(tracker);
    trackers.push_back(std::move(*tracker));
  }
  EXPECT_EQ(filter::list_trackers()->size(), 100u);
}

TEST_F(AbiTest, EventsCarryTheState) {
  auto monitor = filter::EventMonitor::open();
  ASSERT_FERRY_OK(monitor);
  auto tracker = filter::Tracker::create(uuid_, "kmod-event", 8, 0, FERRY_MODE_GATE);
  ASSERT_FERRY_OK(tracker);
  ASSERT_FERRY_OK(tracker->close_gate());
  EXPECT_TRUE(wait_for_event(*monitor, uuid_, FERRY_EV_STATE));
}

TEST_F(AbiTest, TablesThatMakeNoSenseAreRefused) {
  allow_ferry_errors();
  TestVolume below("kmod-abi-below", 16 * kMiB);
  auto tracker = filter::Tracker::create(uuid_, "kmod-abi", 32768, 0, FERRY_MODE_TRACK);
  ASSERT_FERRY_OK(tracker);
  std::string uuid = filter::to_text(uuid_);
  std::string other = filter::to_text(any_uuid());
  for (const std::string& table :
       {"0 32768 ferry " + below.device() + " 0",                        // no tracker
        "0 32768 ferry " + below.device() + " 0 " + uuid + " more",      // too much
        "0 32768 ferry " + below.device() + " 0 " + other,               // unknown tracker
        "0 32768 ferry " + below.device() + " 0 not-a-uuid",             //
        "0 32768 ferry " + below.device() + " x " + uuid,                // no offset
        "0 32768 ferry 199:199 0 " + uuid,                               // no device
        "0 32769 ferry " + below.device() + " 0 " + uuid}) {             // too long
    auto lines = filter::parse_table(table);
    ASSERT_TRUE(lines) << table;
    EXPECT_FALSE(filter::dm::create({"kmod-abi-bad", "", *lines}).ok()) << table;
    EXPECT_EQ(filter::dm::info("kmod-abi-bad").error().code, Errc::not_found) << table;
  }
}

TEST_F(AbiTest, TheModuleStaysWhileItIsUsed) {
  TestVolume volume("kmod-abi-use", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path()});
  EXPECT_NE(run_process({"rmmod", "dm_ferry"})->exit_status, 0);
  EXPECT_TRUE(attachment.intact());
  ASSERT_FERRY_OK(attachment.detach());
}

}  // namespace
}  // namespace ferry::kmod
