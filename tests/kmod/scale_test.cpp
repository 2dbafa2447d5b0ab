// SPDX-License-Identifier: GPL-2.0-or-later
// Large and many: a device of 16 TiB, 1,000 trackers. Prints what they cost; the times are those of
// the machine it runs on.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <iostream>

#include "suite.h"

namespace ferry::kmod {
namespace {

constexpr uint64_t kTiB = uint64_t{1} << 40;

class ScaleTest : public KmodTest {};

uint64_t ms_of(const std::function<void()>& work) {
  auto begin = std::chrono::steady_clock::now();
  work();
  auto took = std::chrono::steady_clock::now() - begin;
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
}

// A line of /proc/meminfo, in KiB.
int64_t meminfo(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  for (int64_t value = 0; file >> key >> value && std::getline(file, unit);)
    if (key == name + ':') return value;
  return -1;
}

TEST_F(ScaleTest, SixteenTebibytes) {
  constexpr uint64_t kSectors = 16 * kTiB / 512;
  constexpr uint32_t kShift = 16;  // two maps of 32 MiB
  constexpr uint64_t kUnits = 16 * kTiB >> kShift;
  constexpr int64_t kMapsKiB = 2 * kUnits / 8 / 1024;
  DmDevice zero("kmod-huge-zero", "0 " + std::to_string(kSectors) + " zero");
  DmDevice disk("kmod-huge", "0 " + std::to_string(kSectors) + " linear " + zero.device() + " 0");
  int64_t before = meminfo("VmallocUsed");
  std::unique_ptr<filter::Attachment> attachment;
  uint64_t attach_ms = ms_of([&] {
    attachment = std::make_unique<filter::Attachment>(
        must_attach({.path = disk.path(), .block_shift = kShift}));
  });
  int64_t taken = meminfo("VmallocUsed") - before;
  EXPECT_GE(taken, kMapsKiB);
  EXPECT_LT(taken, kMapsKiB + 1024) << "two maps and next to nothing else";
  auto& tracker = attachment->tracker();
  EXPECT_EQ(tracker.info()->nr_blocks, kUnits);
  Fd fd = open_device(disk.path(), O_RDWR | O_DIRECT);
  std::set<uint64_t> written;
  for (uint64_t unit : {uint64_t{0}, kUnits / 3, kUnits - 1}) {
    ASSERT_EQ(write_at(fd.get(), (unit << kShift) + kBlock, kBlock, 1), 0);
    written.insert(unit);
  }
  uint64_t sparse_ms = ms_of([&] { EXPECT_EQ(take_round(tracker), written); });
  ASSERT_FERRY_OK(tracker.mark(0, kUnits));
  uint64_t swap_ms = ms_of([&] {
    auto map = tracker.swap();
    ASSERT_FERRY_OK(map);
    EXPECT_EQ(map->dirty(), kUnits);
  });
  uint64_t release_ms = ms_of([&] { ASSERT_FERRY_OK(tracker.release()); });
  EXPECT_TRUE(take_round(tracker).empty());
  fd.reset();
  ASSERT_FERRY_OK(attachment->detach());
  EXPECT_LT(meminfo("VmallocUsed") - before, 1024) << "memory came back";
  std::cout << "scale: 16 TiB in blocks of 64 KiB: " << taken / 1024 << " MiB, attach " << attach_ms
            << " ms, a round of 3 blocks " << sparse_ms << " ms, a swap of all blocks " << swap_ms
            << " ms, its release " << release_ms << " ms\n";
}

// The maps of the finest tracking may be more than this host has: refused, not killed for.
TEST_F(ScaleTest, MapsThatDoNotFitAreRefused) {
  auto tracker = filter::Tracker::create(any_uuid(), "kmod-too-large", 4096 * kTiB / 512, 0,
                                         FERRY_MODE_TRACK);
  EXPECT_FERRY_ERRNO(tracker, ENOMEM);
  EXPECT_TRUE(filter::list_trackers()->empty());
}

TEST_F(ScaleTest, AThousandTrackers) {
  constexpr uint64_t kMany = 1000;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  rlimit more{kMany + 200, std::max<rlim_t>(limit.rlim_max, kMany + 200)};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &more), 0);
  std::vector<filter::Tracker> trackers;
  std::set<filter::TrackerUuid> made;
  uint64_t create_ms = ms_of([&] {
    for (uint64_t i = 0; i < kMany; ++i) {
      auto tracker = filter::Tracker::create(any_uuid(), "kmod-many-" + std::to_string(i), 8, 0,
                                             FERRY_MODE_TRACK);
      ASSERT_FERRY_OK(tracker);
      made.insert(tracker->uuid());
      trackers.push_back(std::move(*tracker));
    }
  });
  std::set<filter::TrackerUuid> listed;
  uint64_t list_ms = ms_of([&] {
    auto all = filter::list_trackers();
    ASSERT_FERRY_OK(all);
    EXPECT_EQ(all->size(), kMany);
    for (const auto& one : *all) listed.insert(one.uuid);
  });
  EXPECT_EQ(listed, made);
  uint64_t remove_ms = ms_of([&] { trackers.clear(); });
  EXPECT_TRUE(filter::list_trackers()->empty());
  setrlimit(RLIMIT_NOFILE, &limit);
  std::cout << "scale: " << kMany << " trackers: made in " << create_ms << " ms, listed in "
            << list_ms << " ms, removed in " << remove_ms << " ms\n";
}

}  // namespace
}  // namespace ferry::kmod
