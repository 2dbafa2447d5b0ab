// SPDX-License-Identifier: GPL-2.0-or-later
// Counts the instructions of one read and one write, for disks with and without the filter. Runs in
// the machine of bench/cost, whose time stamp counter counts instructions; prints one JSON object
// per row. What is set up here is set up by the daemon's own code (room filter).
//
//   ferry-cost-probe NULL_BLK LVM_VOLUME ERA_METADATA
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>
#include <x86intrin.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "filter/attachment.h"
#include "filter/dm.h"

namespace ferry::cost {
namespace {

constexpr size_t kBlock = 4096;
constexpr size_t kLarge = 65536;
constexpr size_t kOps = 1000;
constexpr size_t kRounds = 3;  // the middle one is reported
constexpr size_t kWarmUp = 64;
// Of each round, the dearest operations are left out: the timer's tick hit them.
constexpr size_t kKept = kOps * 98 / 100;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "cost-probe: %s\n", what.c_str());
  std::exit(1);
}

template <typename T>
T must(Result<T> result) {
  if (!result.ok()) die(result.error().message());
  return std::move(result).value();
}

// A decrement and a jump: two instructions a turn. Any other answer means that this machine does not
// count what we believe it counts.
void check_counter() {
  uint64_t turns = 1'000'000;
  uint64_t began = __rdtsc();
  asm volatile("1: dec %0\n jnz 1b" : "+r"(turns) : : "cc");
  uint64_t counted = __rdtsc() - began;
  // The tick may come in between.
  if (counted < 2'000'000 || counted > 2'100'000)
    die("the counter went " + std::to_string(counted) + " for 2000000 instructions");
}

// The same pages for every row: others cost some instructions more or less to pin. A huge page, so
// that a large write is one segment.
void* buffer() {
  static void* const shared = [] {
    constexpr size_t kHuge = 2 << 20;
    void* memory = std::aligned_alloc(kHuge, kHuge);
    if (memory == nullptr) die("no memory");
    ::madvise(memory, kHuge, MADV_HUGEPAGE);
    std::memset(memory, 'f', kHuge);
    return memory;
  }();
  return shared;
}

class Device {
 public:
  explicit Device(const std::string& path)
      : fd_(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)) {
    if (!fd_.valid()) die("cannot open " + path);
    if (::ioctl(fd_.get(), BLKGETSIZE64, &size_bytes_) != 0) die("no size of " + path);
  }

  // Instructions of each operation at the places of the fixed seed.
  std::vector<uint64_t> run(bool write, size_t length) {
    std::vector<uint64_t> counts(kOps), places = choose(length);
    for (size_t i = 0; i < kWarmUp; ++i) one(write, length, 0);
    for (size_t i = 0; i < kOps; ++i) {
      uint64_t began = __rdtsc();
      one(write, length, places[i]);
      counts[i] = __rdtsc() - began;
    }
    return counts;
  }

 private:
  // No place twice, so that each write of a first round is a first touch.
  std::vector<uint64_t> choose(size_t length) const {
    std::vector<uint64_t> places(size_bytes_ / length - 1);
    std::iota(places.begin(), places.end(), 1);
    std::mt19937_64 random(7391);
    for (size_t i = 0; i < kOps; ++i) std::swap(places[i], places[i + random() % (places.size() - i)]);
    places.resize(kOps);
    for (auto& place : places) place *= length;
    return places;
  }

  void one(bool write, size_t length, uint64_t offset) {
    auto at = static_cast<off_t>(offset);
    ssize_t done = write ? ::pwrite(fd_.get(), buffer(), length, at)
                         : ::pread(fd_.get(), buffer(), length, at);
    if (done != static_cast<ssize_t>(length)) die("an operation failed");
  }

  Fd fd_;
  uint64_t size_bytes_ = 0;
};

double typical(std::vector<uint64_t> counts) {
  std::sort(counts.begin(), counts.end());
  return std::accumulate(counts.begin(), counts.begin() + kKept, 0.0) / kKept;
}

struct Middle {
  double value = 0;
  double spread = 0;  // largest minus smallest round
};

// `before` makes the device ready for a round. Without it, writes get a round before the first that
// brings the device to its steady state.
Middle measure(Device& device, bool write, size_t length, const std::function<void()>& before) {
  std::vector<double> rounds;
  if (write && !before) device.run(write, length);
  for (size_t i = 0; i < kRounds; ++i) {
    if (before) before();
    // Costs nothing: an idle machine's clock jumps. Lets the kernel finish what it has put off.
    ::usleep(500'000);
    rounds.push_back(typical(device.run(write, length)));
  }
  std::sort(rounds.begin(), rounds.end());
  return {rounds[rounds.size() / 2], rounds.back() - rounds.front()};
}

struct Row {
  std::string name;
  std::string path;
  size_t length = kBlock;
  std::function<void()> before = nullptr;
};

void print_row(const Row& row) {
  Device device(row.path);
  Middle write = measure(device, true, row.length, row.before);
  Middle read = measure(device, false, row.length, nullptr);
  std::printf("{\"name\": \"%s\", \"write_insns\": %.1f, \"read_insns\": %.1f, "
              "\"write_spread\": %.1f, \"read_spread\": %.1f}\n",
              row.name.c_str(), write.value, read.value, write.spread, read.spread);
  std::fflush(stdout);
}

std::string device_of(const std::string& path) {
  struct stat found;
  if (::stat(path.c_str(), &found) != 0) die("no " + path);
  return filter::dm::device_text(found.st_rdev);
}

uint64_t sectors_of(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  uint64_t size_bytes = 0;
  if (!fd.valid() || ::ioctl(fd.get(), BLKGETSIZE64, &size_bytes) != 0) die("no size of " + path);
  return size_bytes / 512;
}

std::string make_device(const std::string& name, const filter::DmLine& line) {
  must(filter::dm::create({name, "", {line}}));
  return "/dev/mapper/" + name;
}

// An empty map again: the next write to any block is its first.
void forget(filter::Tracker& tracker) {
  must(tracker.swap());
  must(tracker.release());
}

void freeze_and_thaw(filter::Tracker& tracker) {
  must(tracker.freeze(5000, 5000));
  must(tracker.thaw());
}

filter::Attachment insert(const std::string& path) {
  auto attachment = must(filter::Attachment::attach({.path = path}));
  if (!attachment.in_place()) die("the filter is not in place in " + path);
  return attachment;
}

void plain_rows(const std::string& disk) {
  std::string path = make_device("plain", {0, sectors_of(disk), "linear", device_of(disk) + " 0"});
  print_row({"null_blk", disk});
  print_row({"dm-linear", path});
  print_row({"linear-64k", path, kLarge});
  auto attachment = insert(path);
  auto& tracker = attachment.tracker();
  print_row({"ferry-first-touch", path, kBlock, [&] { forget(tracker); }});
  print_row({"ferry-tracking", path});
  freeze_and_thaw(tracker);
  print_row({"ferry-frozen-thawed", path});
  print_row({"ferry-64k-first-touch", path, kLarge, [&] { forget(tracker); }});
  print_row({"ferry-64k", path, kLarge});
  must(attachment.detach());
  print_row({"ferry-removed", path});
  must(filter::dm::remove("plain"));
}

void lvm_rows(const std::string& volume) {
  print_row({"lvm-linear", volume});
  auto attachment = insert(volume);
  print_row({"lvm-ferry-tracking", volume});
  must(attachment.detach());
  print_row({"lvm-removed", volume});
}

void era_rows(const std::string& disk, const std::string& metadata) {
  std::string path = make_device("era", {0, sectors_of(disk), "era", device_of(metadata) + ' ' +
                                         device_of(disk) + " 8"});
  print_row({"dm-era", path});
  must(filter::dm::remove("era"));
}

}  // namespace
}  // namespace ferry::cost

int main(int argc, char** argv) {
  using namespace ferry::cost;
  if (argc != 4) die("three arguments: NULL_BLK LVM_VOLUME ERA_METADATA");
  check_counter();
  plain_rows(argv[1]);
  lvm_rows(argv[2]);
  era_rows(argv[1], argv[3]);
  std::puts("{\"end\": true}");
  return 0;
}
