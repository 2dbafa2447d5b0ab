// SPDX-License-Identifier: GPL-2.0-or-later
// Helpers of the kernel suite: devices that clean up after themselves, direct I/O, background
// writes, and the look into the kernel's log after each test. For use inside tests only: failures
// are reported through GoogleTest. Not thread-safe unless said so.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "filter/attachment.h"
#include "filter/dm.h"
#include "filter/netlink.h"
#include "kernel_log.h"

namespace ferry::kmod {

inline constexpr uint64_t kBlock = 4096;
inline constexpr uint64_t kMiB = uint64_t{1} << 20;

// How many times slower than Debian's own this kernel is: $FERRY_SLOWNESS, or 1. Debug kernels are.
// All timing of the suite follows it: delays and patience are multiplied by it (stretched(),
// patience_ms()), repetitions divided (turns()). No test is left out.
int slowness();
// A delay in which something else must get done, on a kernel of this slowness.
int stretched(int ms);
// How long a thing that must happen may take on an emulated host. Only failures wait that long.
int patience_ms();
// The volume group the suite may use ("vg", or $FERRY_TEST_VG).
std::string volume_group();

#define ASSERT_FERRY_OK(expr)                                             \
  do {                                                                    \
    const auto& ferry_result_ = (expr);                                   \
    ASSERT_TRUE(ferry_result_.ok()) << ferry_result_.error().message();   \
  } while (0)
#define EXPECT_FERRY_OK(expr)                                             \
  do {                                                                    \
    const auto& ferry_result_ = (expr);                                   \
    EXPECT_TRUE(ferry_result_.ok()) << ferry_result_.error().message();   \
  } while (0)
// The call fails with this errno.
#define EXPECT_FERRY_ERRNO(expr, number)                                  \
  do {                                                                    \
    const auto& ferry_result_ = (expr);                                   \
    ASSERT_FALSE(ferry_result_.ok()) << #expr " should have failed";      \
    EXPECT_EQ(ferry_result_.error().sys, number) << ferry_result_.error().message(); \
  } while (0)

// Base of all tests: nothing bad may stand in the kernel's log afterwards.
class KmodTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  void check_log();
  // For tests that provoke errors of the filter on purpose.
  void allow_ferry_errors() { allow_ferry_errors_ = true; }

 private:
  KernelLog log_;
  bool allow_ferry_errors_ = false;
};

// A logical volume of its own; removed at the end.
class LogicalVolume {
 public:
  LogicalVolume(const std::string& name, uint64_t size_bytes);
  LogicalVolume(const LogicalVolume&) = delete;
  LogicalVolume& operator=(const LogicalVolume&) = delete;
  ~LogicalVolume();
  const std::string& path() const { return path_; }
  std::string dm_name() const;
  std::string device() const;  // "major:minor"
  // By lvrename; its exit status.
  int rename(const std::string& name);

 private:
  std::string name_, path_;
};

// A volume made of one linear line over the suite's base volume. Most tests write to one of these:
// the lvm commands take seconds each on an emulated host.
class TestVolume {
 public:
  TestVolume(const std::string& name, uint64_t size_bytes);
  TestVolume(const TestVolume&) = delete;
  TestVolume& operator=(const TestVolume&) = delete;
  ~TestVolume();
  std::string path() const { return "/dev/mapper/" + name_; }
  const std::string& dm_name() const { return name_; }
  std::string device() const;  // "major:minor"

 private:
  std::string name_;
};

// At the end: no memory of the filter was lost, and lockdep was awake all the time.
class DebugKernel : public testing::Environment {
 public:
  void SetUp() override;
  void TearDown() override;
};

// Makes the base volume before the first test and removes it after the last. $FERRY_TEST_DEVICE
// names a device of at least 256 MiB to be used instead, whose contents are lost.
class BaseVolume : public testing::Environment {
 public:
  void SetUp() override;
  void TearDown() override;
};

// A device-mapper device with a table of the test's own; removed at the end.
class DmDevice {
 public:
  DmDevice(const std::string& name, const std::string& table);
  DmDevice(const DmDevice&) = delete;
  DmDevice& operator=(const DmDevice&) = delete;
  ~DmDevice();
  std::string path() const { return "/dev/mapper/" + name_; }
  const std::string& name() const { return name_; }
  std::string device() const;

 private:
  std::string name_;
};

// udev stands still for as long as this lives: it neither hears of devices nor opens them, and
// nobody waits for it. Its rules take seconds for each change of a device on an emulated debug
// kernel. Not to be made while another thread uses device-mapper.
class WithoutUdev {
 public:
  WithoutUdev();
  WithoutUdev(const WithoutUdev&) = delete;
  WithoutUdev& operator=(const WithoutUdev&) = delete;
  ~WithoutUdev();
};

// Zeroed memory for O_DIRECT.
class Buffer {
 public:
  explicit Buffer(size_t size_bytes, unsigned char fill = 0);
  void* data() { return data_.get(); }
  std::byte* bytes() { return static_cast<std::byte*>(data_.get()); }
  const std::byte* bytes() const { return static_cast<const std::byte*>(data_.get()); }
  size_t size() const { return size_; }
  bool operator==(const Buffer& other) const;

 private:
  std::unique_ptr<void, void (*)(void*)> data_;
  size_t size_;
};

Fd open_device(const std::string& path, int flags);
// 0 or the errno. Whole transfers only: a short one is EIO.
int write_at(int fd, uint64_t offset, size_t length, unsigned char fill, int rwf_flags = 0);
int read_at(int fd, uint64_t offset, Buffer& buffer);
// First byte of a block, read directly; -1 on an error.
int first_byte(int fd, uint64_t block);

// A write in a thread of its own; get() gives 0 or the errno.
std::future<int> write_later(int fd, uint64_t offset, size_t length, unsigned char fill);
bool is_done(std::future<int>& work);
// Waits until the predicate holds; false after patience_ms().
bool eventually(const std::function<bool()>& predicate);
bool eventually_held(const filter::Tracker& tracker, uint64_t bios);

// Retires the live map, returns its blocks, releases it.
std::set<uint64_t> take_round(filter::Tracker& tracker);
std::set<uint64_t> blocks(uint64_t first, uint64_t count);

// Waits for an event of this tracker and type; false after patience_ms().
bool wait_for_event(filter::EventMonitor& monitor, const filter::TrackerUuid& uuid,
                    ferry_event type);

filter::Attachment must_attach(const filter::AttachRequest& request);
std::string table_text(const std::string& dm_name);
// Runs a command; the exit status, or -1. Its output goes to the test's log on a failure.
int run(const std::vector<std::string>& argv);
// Makes `table` the live table of a device; the device goes on.
void change_table(const std::string& dm_name, const std::string& table);
// How often a test repeats itself: `usual`, or `many` when $FERRY_LONG is set; fewer if slow.
uint64_t turns(uint64_t usual, uint64_t many);
// $FERRY_SEED, or a fixed number; printed, so that a run can be repeated.
uint64_t seed(const char* what);
filter::TrackerUuid any_uuid();

}  // namespace ferry::kmod
