// SPDX-License-Identifier: GPL-2.0-or-later
#include "suite.h"

#include <fcntl.h>
#include <libdevmapper.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "base/process.h"
#include "volume/volume.h"

namespace ferry::kmod {
namespace {

using Clock = std::chrono::steady_clock;

// Set-up that fails makes the test meaningless: GoogleTest reports the exception as its failure.
[[noreturn]] void give_up(const std::string& why) { throw std::runtime_error(why); }

template <typename R>
auto must(R result) {
  if (!result.ok()) give_up(result.error().message());
  return std::move(result).value();
}

std::string device_number(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) give_up("cannot find " + path);
  return filter::dm::device_text(status.st_rdev);
}

}  // namespace

std::string volume_group() {
  const char* name = std::getenv("FERRY_TEST_VG");
  return name ? name : "vg";
}

void KmodTest::SetUp() { log_.mark(); }

void KmodTest::TearDown() { check_log(); }

void KmodTest::check_log() {
  EXPECT_THAT(log_.faults(allow_ferry_errors_), testing::IsEmpty()) << "in the kernel's log";
}

void DebugKernel::SetUp() { forget_leaks(); }

void DebugKernel::TearDown() {
  EXPECT_EQ(leaks_of_ferry(), "");
  EXPECT_TRUE(lockdep_is_on()) << "the kernel's log says what turned it off";
}

LogicalVolume::LogicalVolume(const std::string& name, uint64_t size_bytes) : name_(name) {
  // A run that was killed may have left its volume behind.
  std::string left = "/dev/" + volume_group() + '/' + name;
  if (::access(left.c_str(), F_OK) == 0) {
    (void)filter::detach_volume(left, true);
    (void)volume::remove_lv(left);
  }
  path_ = must(volume::create_lv(volume_group(), name, size_bytes)).path;
}

LogicalVolume::~LogicalVolume() { EXPECT_FERRY_OK(volume::remove_lv(path_)); }

std::string LogicalVolume::dm_name() const {
  std::string name = volume_group() + '-';
  for (char c : name_) name += c == '-' ? "--" : std::string(1, c);  // LVM's way
  return name;
}
std::string LogicalVolume::device() const { return device_number(path_); }

int LogicalVolume::rename(const std::string& name) {
  int status = run({"lvrename", volume_group(), name_, name});
  if (status == 0) {
    name_ = name;
    path_ = "/dev/" + volume_group() + '/' + name;
  }
  return status;
}

namespace {

constexpr uint64_t kBaseBytes = 256 * kMiB;
std::unique_ptr<LogicalVolume> base_volume;
std::string base_device;  // "major:minor"

}  // namespace

void BaseVolume::SetUp() {
  if (const char* device = std::getenv("FERRY_TEST_DEVICE")) {
    base_device = device_number(device);
    return;
  }
  base_volume = std::make_unique<LogicalVolume>("kmod-base", kBaseBytes);
  base_device = base_volume->device();
}
void BaseVolume::TearDown() { base_volume.reset(); }

TestVolume::TestVolume(const std::string& name, uint64_t size_bytes) : name_(name) {
  // Tests run one after the other, so they share the first sectors.
  if (size_bytes > kBaseBytes) give_up("the base volume is too small for " + name);
  (void)filter::detach_volume(path(), true);  // a run that was killed may have left it
  (void)filter::dm::remove(name);
  filter::DmTable table{{0, size_bytes / 512, "linear", base_device + " 0"}};
  if (Status made = filter::dm::create({name, "", table}); !made.ok())
    give_up(made.error().message());
}

TestVolume::~TestVolume() { EXPECT_FERRY_OK(filter::dm::remove(name_)); }

std::string TestVolume::device() const { return device_number(path()); }

DmDevice::DmDevice(const std::string& name, const std::string& table) : name_(name) {
  auto lines = filter::parse_table(table);
  if (!lines) give_up("no table: " + table);
  (void)filter::dm::remove(name);
  if (Status made = filter::dm::create({name, "", *lines}); !made.ok())
    give_up(made.error().message());
}

DmDevice::~DmDevice() { EXPECT_FERRY_OK(filter::dm::remove(name_)); }

std::string DmDevice::device() const { return device_number(path()); }

namespace {

// The sockets as well: else the next event starts it again, or waits for it in there.
int control_udev(const char* verb) {
  return run({"systemctl", verb, "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
              "systemd-udevd.service"});
}

}  // namespace

WithoutUdev::WithoutUdev() {
  // It is in the middle of something, perhaps with a device open.
  if (run({"udevadm", "settle"}) != 0 || control_udev("stop") != 0) give_up("cannot stop udev");
  dm_udev_set_sync_support(0);
}

WithoutUdev::~WithoutUdev() {
  dm_udev_set_sync_support(1);
  EXPECT_EQ(control_udev("start"), 0) << "udev does not start again";
}

Buffer::Buffer(size_t size_bytes, unsigned char fill)
    : data_(std::aligned_alloc(kBlock, (size_bytes + kBlock - 1) / kBlock * kBlock), std::free),
      size_(size_bytes) {
  if (!data_) give_up("out of memory");
  std::memset(data_.get(), fill, size_bytes);
}

bool Buffer::operator==(const Buffer& other) const {
  return size_ == other.size_ && std::memcmp(data_.get(), other.data_.get(), size_) == 0;
}

Fd open_device(const std::string& path, int flags) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC));
  if (!fd.valid()) give_up("cannot open " + path + ": " + std::strerror(errno));
  return fd;
}

int write_at(int fd, uint64_t offset, size_t length, unsigned char fill, int rwf_flags) {
  Buffer buffer(length, fill);
  iovec vector{buffer.data(), length};
  ssize_t done = pwritev2(fd, &vector, 1, static_cast<off_t>(offset), rwf_flags);
  if (done < 0) return errno;
  return done == static_cast<ssize_t>(length) ? 0 : EIO;
}

int read_at(int fd, uint64_t offset, Buffer& buffer) {
  ssize_t done = pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(offset));
  if (done < 0) return errno;
  return done == static_cast<ssize_t>(buffer.size()) ? 0 : EIO;
}

int first_byte(int fd, uint64_t block) {
  Buffer buffer(kBlock);
  return read_at(fd, block * kBlock, buffer) == 0 ? static_cast<int>(*buffer.bytes()) : -1;
}

std::future<int> write_later(int fd, uint64_t offset, size_t length, unsigned char fill) {
  return std::async(std::launch::async, [=] { return write_at(fd, offset, length, fill); });
}

bool is_done(std::future<int>& work) {
  return work.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

bool eventually(const std::function<bool()>& predicate) {
  auto deadline = Clock::now() + std::chrono::milliseconds(patience_ms());
  while (!predicate()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

bool eventually_held(const filter::Tracker& tracker, uint64_t bios) {
  return eventually([&] {
    auto info = tracker.info();
    return info.ok() && info->held >= bios;
  });
}

std::set<uint64_t> take_round(filter::Tracker& tracker) {
  std::set<uint64_t> found;
  {
    auto map = must(tracker.swap());
    uint64_t at = 0;
    while (auto run = map.next_run(at, 4096)) {
      for (uint64_t i = 0; i < run->count; ++i) found.insert(run->first + i);
      at = run->first + run->count;
    }
    EXPECT_EQ(map.dirty(), found.size());
  }
  EXPECT_FERRY_OK(tracker.release());
  return found;
}

std::set<uint64_t> blocks(uint64_t first, uint64_t count) {
  std::set<uint64_t> result;
  for (uint64_t i = 0; i < count; ++i) result.insert(first + i);
  return result;
}

bool wait_for_event(filter::EventMonitor& monitor, const filter::TrackerUuid& uuid,
                    ferry_event type) {
  auto deadline = Clock::now() + std::chrono::milliseconds(patience_ms());
  while (Clock::now() < deadline) {
    auto event = must(monitor.next());
    if (event && event->type == type && event->tracker.uuid == uuid) return true;
    if (event) continue;
    pollfd wait{monitor.fd(), POLLIN, 0};
    poll(&wait, 1, 1000);
  }
  return false;
}

filter::Attachment must_attach(const filter::AttachRequest& request) {
  return must(filter::Attachment::attach(request));
}

std::string table_text(const std::string& dm_name) {
  return filter::to_text(must(filter::dm::table(dm_name)));
}

int run(const std::vector<std::string>& argv) {
  auto output = run_process(argv);
  if (!output.ok()) {
    std::cout << output.error().message() << '\n';
    return -1;
  }
  if (output->exit_status != 0) std::cout << argv[0] << ": " << output->out << output->err;
  return output->exit_status;
}

void change_table(const std::string& dm_name, const std::string& table) {
  auto lines = filter::parse_table(table);
  ASSERT_TRUE(lines) << table;
  ASSERT_FERRY_OK(filter::dm::load(dm_name, *lines, false));
  ASSERT_FERRY_OK(filter::dm::resume(dm_name));
}

int slowness() {
  const char* text = std::getenv("FERRY_SLOWNESS");
  return text ? std::max(1, std::atoi(text)) : 1;
}
int stretched(int ms) { return ms * slowness(); }
int patience_ms() { return stretched(60'000); }

uint64_t turns(uint64_t usual, uint64_t many) {
  uint64_t wanted = std::getenv("FERRY_LONG") ? many : usual;
  return std::max<uint64_t>(1, wanted / static_cast<uint64_t>(slowness()));
}

uint64_t seed(const char* what) {
  const char* text = std::getenv("FERRY_SEED");
  uint64_t value = text ? std::strtoull(text, nullptr, 0) : 1;
  std::cout << what << ": FERRY_SEED=" << value << std::endl;
  return value;
}

filter::TrackerUuid any_uuid() { return must(filter::random_uuid()); }

}  // namespace ferry::kmod
