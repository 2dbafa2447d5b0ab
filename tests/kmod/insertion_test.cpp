// SPDX-License-Identifier: GPL-2.0-or-later
// Into a busy LVM volume and out again, many times at queue depth 128: no error, no write that was
// made while the filter was in is missing from its maps; and what others do to the volume with lvm
// meanwhile is noticed. Fewer turns with a short queue: attach_test.cpp.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "event_test.h"
#include "suite.h"
#include "writer.h"

namespace ferry::kmod {
namespace {

using std::chrono::nanoseconds;

class InsertionTest : public EventTest {
 protected:
  // The tracker says that it lost its table, at once and by an event.
  void expect_noticed(filter::Attachment& attachment) {
    const auto& uuid = attachment.tracker().uuid();
    EXPECT_TRUE(wait_for_event(*monitor_, uuid, FERRY_EV_DETACHED));
    EXPECT_TRUE(wait_for_event(*monitor_, uuid, FERRY_EV_INVALID));
    auto info = attachment.tracker().info();
    ASSERT_FERRY_OK(info);
    EXPECT_TRUE(info->detached() && info->invalid());
    EXPECT_FALSE(attachment.intact());
    EXPECT_FERRY_ERRNO(attachment.tracker().swap(), ESTALE);
    EXPECT_FERRY_ERRNO(attachment.tracker().freeze(1000, 1000), ESTALE);
  }
};

void append(std::vector<nanoseconds>& to, const std::vector<nanoseconds>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

std::string p50_and_max(std::vector<nanoseconds> latencies) {
  if (latencies.empty()) return "none";
  std::ranges::sort(latencies);
  auto ms = [](nanoseconds time) { return std::to_string(time.count() / 1'000'000) + " ms"; };
  return "p50 " + ms(latencies[latencies.size() / 2]) + ", max " + ms(latencies.back()) + " (" +
         std::to_string(latencies.size()) + " writes)";
}

TEST_F(InsertionTest, ABusyLogicalVolumeLosesNoMark) {
  constexpr uint64_t kBytes = 32 * kMiB;
  LogicalVolume volume("kmod-insert", kBytes);
  Fd fd = open_device(volume.path(), O_RDWR | O_DIRECT);
  for (uint64_t at = 0; at < kBytes; at += kMiB)
    ASSERT_EQ(write_at(fd.get(), at, kMiB, 0), 0);
  std::string plain = table_text(volume.dm_name());
  std::vector<nanoseconds> inserting, between;
  BusyWriter writer({.path = volume.path(), .nr_blocks = kBytes / kBlock, .depth = 128});
  uint64_t cycles = turns(5, 100), seen = 0;
  for (uint64_t i = 0; i < cycles && !HasFailure(); ++i) {
    writer.begin_period();
    auto attachment = must_attach({.path = volume.path()});
    append(inserting, writer.end_period().latencies);
    ASSERT_TRUE(attachment.in_place());
    writer.begin_period();
    uint64_t before = writer.completed();
    ASSERT_TRUE(eventually([&] { return writer.completed() > before + 256; }));
    auto period = writer.end_period();
    std::set<uint64_t> marked = take_round(attachment.tracker());
    EXPECT_TRUE(std::ranges::includes(marked, period.written)) << "cycle " << i;
    seen += period.written.size();
    append(between, period.latencies);
    writer.begin_period();
    ASSERT_FERRY_OK(attachment.detach());
    append(inserting, writer.end_period().latencies);
    ASSERT_EQ(table_text(volume.dm_name()), plain) << "cycle " << i;
  }
  writer.stop();
  EXPECT_EQ(writer.errors(), 0u);
  EXPECT_EQ(writer.count_wrong_blocks(fd.get()), 0u);
  EXPECT_GT(seen, 0u);
  std::cout << "insertion: " << cycles << " cycles, " << seen << " writes looked for; inserting: "
            << p50_and_max(inserting) << "; between: " << p50_and_max(between) << '\n';
}

TEST_F(InsertionTest, AnExtensionByLvmIsNoticed) {
  LogicalVolume volume("kmod-extend", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path()});
  ASSERT_EQ(run({"lvextend", "-L", "+4M", volume.path()}), 0);
  std::string longer = table_text(volume.dm_name());
  expect_noticed(attachment);
  Fd fd = open_device(volume.path(), O_RDWR | O_DIRECT);
  EXPECT_EQ(write_at(fd.get(), 18 * kMiB, kBlock, 1), 0);
  fd.reset();
  ASSERT_FERRY_OK(attachment.detach());
  EXPECT_EQ(table_text(volume.dm_name()), longer) << "what lvm made is not ours to change";
  EXPECT_EQ(filter::dm::info(volume.dm_name() + "-ferry").error().code, Errc::not_found);
}

TEST_F(InsertionTest, AReductionByLvmIsNoticed) {
  LogicalVolume volume("kmod-reduce", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path()});
  ASSERT_EQ(run({"lvreduce", "--force", "--yes", "-L", "8M", volume.path()}), 0);
  expect_noticed(attachment);
  ASSERT_FERRY_OK(attachment.detach());
  EXPECT_EQ(filter::dm::info(volume.dm_name() + "-ferry").error().code, Errc::not_found);
}

// Lvm reloads a volume's table when it renames it, so that is the end of the filter; the daemon's
// side finds the volume by its new name and takes its door away.
TEST_F(InsertionTest, ARenameByLvmIsNoticed) {
  LogicalVolume volume("kmod-name", 16 * kMiB);
  std::string plain = table_text(volume.dm_name()), door = volume.dm_name() + "-ferry";
  auto attachment = must_attach({.path = volume.path()});
  ASSERT_EQ(volume.rename("kmod-renamed"), 0);
  expect_noticed(attachment);
  EXPECT_EQ(table_text(volume.dm_name()), plain);
  ASSERT_FERRY_OK(attachment.detach());
  EXPECT_EQ(filter::dm::info(door).error().code, Errc::not_found);
}

// Deactivation would take the volume away under the daemon: lvm refuses, because the guard has it
// open.
TEST_F(InsertionTest, LvmDoesNotDeactivateATrackedVolume) {
  LogicalVolume volume("kmod-deactivate", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path()});
  EXPECT_NE(run({"lvchange", "--activate", "n", volume.path()}), 0);
  EXPECT_TRUE(attachment.intact());
  ASSERT_FERRY_OK(attachment.detach());
}

}  // namespace
}  // namespace ferry::kmod
