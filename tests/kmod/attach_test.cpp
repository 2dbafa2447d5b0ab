// SPDX-License-Identifier: GPL-2.0-or-later
// The filter goes into live, busy volumes and out again; undo; others who change tables.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/process.h"
#include "event_test.h"
#include "suite.h"
#include "volume/volume.h"
#include "writer.h"

namespace ferry::kmod {
namespace {

class AttachTest : public EventTest {};

// Everything a busy volume must survive: attach and detach again and again under queue depth 32.
void insert_and_remove_under_load(const std::string& path, const std::string& dm_name,
                                  uint64_t size_bytes, bool in_place) {
  Fd fd = open_device(path, O_RDWR | O_DIRECT);
  for (uint64_t at = 0; at < size_bytes; at += kMiB)
    ASSERT_EQ(write_at(fd.get(), at, kMiB, 0), 0);
  std::string plain = table_text(dm_name);
  BusyWriter writer({.path = path, .nr_blocks = size_bytes / kBlock, .depth = 32});
  for (uint64_t i = 0; i < turns(5, 20); ++i) {
    auto attachment = must_attach({.path = path});
    uint64_t before = writer.completed();
    ASSERT_EQ(attachment.in_place(), in_place);
    ASSERT_TRUE(attachment.intact());
    // The filter sees the load, and the load goes on.
    ASSERT_TRUE(eventually([&] { return writer.completed() > before + 64; }));
    EXPECT_FALSE(take_round(attachment.tracker()).empty());
    ASSERT_FERRY_OK(attachment.detach());
    ASSERT_EQ(table_text(dm_name), plain) << "turn " << i;
    before = writer.completed();
    ASSERT_TRUE(eventually([&] { return writer.completed() > before + 32; }));
  }
  writer.stop();
  EXPECT_EQ(writer.errors(), 0u);
  EXPECT_EQ(writer.count_wrong_blocks(fd.get()), 0u);
  EXPECT_EQ(filter::dm::info(dm_name + "-ferry").error().code, Errc::not_found);
  EXPECT_EQ(filter::dm::info(dm_name + "-ferryreal").error().code, Errc::not_found);
}

TEST_F(AttachTest, BusyLogicalVolumeOfTwoSegments) {
  auto first = std::make_unique<LogicalVolume>("kmod-busy", 16 * kMiB);
  {
    LogicalVolume between("kmod-between", 4 * kMiB);
    ASSERT_EQ(run({"lvextend", "-L", "+16M", first->path()}), 0);
  }
  auto table = filter::dm::table(first->dm_name());
  ASSERT_FERRY_OK(table);
  ASSERT_EQ(table->size(), 2u) << filter::to_text(*table);
  insert_and_remove_under_load(first->path(), first->dm_name(), 32 * kMiB, true);
}

TEST_F(AttachTest, BusyStripedVolumeIsStacked) {
  TestVolume below("kmod-stripes", 32 * kMiB);
  DmDevice striped("kmod-striped", "0 65536 striped 2 128 " + below.device() + " 0 " +
                                       below.device() + " 32768");
  insert_and_remove_under_load(striped.path(), striped.name(), 32 * kMiB, false);
}

TEST_F(AttachTest, TheDoorIsAHiddenLayerOfTheLogicalVolume) {
  LogicalVolume volume("kmod-door", 16 * kMiB);
  auto own = filter::dm::info(volume.dm_name());
  ASSERT_FERRY_OK(own);
  auto attachment = must_attach({.path = volume.path()});
  auto door = filter::dm::info(volume.dm_name() + "-ferry");
  ASSERT_FERRY_OK(door);
  EXPECT_EQ(door->uuid, own->uuid + "-ferry");
  EXPECT_EQ(door->open_count, 1);
  EXPECT_EQ(attachment.size_bytes(), 16 * kMiB);
  // The guard: with the filter in, the volume cannot be removed under the door.
  EXPECT_NE(run_process({"lvremove", "--yes", volume.path()})->exit_status, 0);
  EXPECT_TRUE(attachment.intact());
  auto seen = volume::inspect(volume.path());
  ASSERT_FERRY_OK(seen);
  EXPECT_EQ(seen->kind, volume::VolumeInfo::Kind::lvm);
  EXPECT_EQ(seen->lv, "kmod-door");
  EXPECT_EQ(seen->size_bytes, 16 * kMiB);
  EXPECT_TRUE(seen->in_use);
  ASSERT_FERRY_OK(attachment.detach());
  EXPECT_FALSE(volume::inspect(volume.path())->in_use);
}

// Where udev is not running nobody else makes the nodes, and there is nobody to wait for.
TEST_F(AttachTest, WithoutUdevTheNodesAreThereAllTheSame) {
  TestVolume volume("kmod-no-udev", 16 * kMiB);
  WithoutUdev alone;
  DmDevice other("kmod-no-udev-2", "0 2048 linear " + volume.device() + " 0");
  EXPECT_EQ(access(other.path().c_str(), F_OK), 0);
  auto attachment = must_attach({.path = volume.path()});
  EXPECT_EQ(access((volume.path() + "-ferry").c_str(), F_OK), 0);
  EXPECT_TRUE(attachment.intact());
  ASSERT_FERRY_OK(attachment.detach());
  EXPECT_NE(access((volume.path() + "-ferry").c_str(), F_OK), 0);
}

TEST_F(AttachTest, AMemoryLimitMakesBlocksLarger) {
  TestVolume volume("kmod-attach-granularity", 256 * kMiB / 2);
  // Two maps of one page and their summaries; half of it would not even do for the largest blocks.
  constexpr uint64_t kFourPages = 4 * 4096;
  auto attachment = must_attach({.path = volume.path(), .map_memory_bytes = kFourPages});
  auto info = attachment.tracker().info();
  ASSERT_FERRY_OK(info);
  EXPECT_EQ(info->block_shift, 12u);
  ASSERT_FERRY_OK(attachment.detach());
  auto refused = filter::Attachment::attach({.path = volume.path(), .map_memory_bytes = kFourPages / 2});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::unsupported);
  EXPECT_THAT(table_text(volume.dm_name()), testing::HasSubstr("linear"));

  TestVolume larger("kmod-attach-larger", 136 * kMiB);
  auto coarse = must_attach({.path = larger.path(), .map_memory_bytes = kFourPages});
  info = coarse.tracker().info();
  ASSERT_FERRY_OK(info);
  EXPECT_EQ(info->block_shift, 13u);
  Fd fd = open_device(larger.path(), O_RDWR | O_DIRECT);
  ASSERT_EQ(write_at(fd.get(), 136 * kMiB - kBlock, kBlock, 1), 0);
  EXPECT_EQ(take_round(coarse.tracker()), blocks(136 * kMiB / 8192 - 1, 1));
  ASSERT_FERRY_OK(coarse.detach());
}

TEST_F(AttachTest, SwapIsRecognised) {
  LogicalVolume volume("kmod-swap", 16 * kMiB);
  EXPECT_EQ(volume::inspect(volume.path())->detected_role, volume::Role::data);
  ASSERT_EQ(run({"mkswap", volume.path()}), 0);
  EXPECT_EQ(volume::inspect(volume.path())->detected_role, volume::Role::swap);
  EXPECT_EQ(volume::create_lv(volume_group(), "kmod-swap", 16 * kMiB).error().code, Errc::busy);
  EXPECT_EQ(volume::create_lv(volume_group(), "kmod-huge", uint64_t{1} << 50).error().code,
            Errc::no_space);
  EXPECT_EQ(volume::create_lv("nogroup", "x", 16 * kMiB).error().code, Errc::not_found);
}

TEST_F(AttachTest, ARefreshByLvmIsNoticed) {
  LogicalVolume volume("kmod-refresh", 16 * kMiB);
  std::string plain = table_text(volume.dm_name());
  auto attachment = must_attach({.path = volume.path()});
  ASSERT_EQ(run({"lvchange", "--refresh", volume.path()}), 0);
  EXPECT_TRUE(wait_for_event(*monitor_, attachment.tracker().uuid(), FERRY_EV_DETACHED));
  EXPECT_TRUE(wait_for_event(*monitor_, attachment.tracker().uuid(), FERRY_EV_INVALID));
  EXPECT_FALSE(attachment.intact());
  EXPECT_FERRY_ERRNO(attachment.tracker().swap(), ESTALE);
  ASSERT_FERRY_OK(attachment.detach());
  EXPECT_EQ(table_text(volume.dm_name()), plain);
  EXPECT_EQ(filter::dm::info(volume.dm_name() + "-ferry").error().code, Errc::not_found);
}

TEST_F(AttachTest, ATableReplacedBehindOurBackIsNoticed) {
  TestVolume volume("kmod-replaced", 16 * kMiB);
  auto plain = filter::dm::table(volume.dm_name());
  ASSERT_FERRY_OK(plain);
  auto attachment = must_attach({.path = volume.path()});
  ASSERT_FERRY_OK(filter::dm::load(volume.dm_name(), *plain, false));
  ASSERT_FERRY_OK(filter::dm::resume(volume.dm_name()));
  EXPECT_TRUE(wait_for_event(*monitor_, attachment.tracker().uuid(), FERRY_EV_DETACHED));
  auto info = attachment.tracker().info();
  ASSERT_FERRY_OK(info);
  EXPECT_TRUE(info->invalid() && info->detached());
  EXPECT_FALSE(info->bound());
  EXPECT_FALSE(attachment.intact());
  EXPECT_FERRY_ERRNO(attachment.tracker().freeze(1000, 1000), ESTALE);
  Fd fd = open_device(volume.path(), O_RDWR | O_DIRECT);
  EXPECT_EQ(write_at(fd.get(), 0, kBlock, 1), 0);  // guest I/O never fails because of it
  ASSERT_FERRY_OK(attachment.detach());
}

TEST_F(AttachTest, ASuspendAndResumeKeepsTrust) {
  TestVolume volume("kmod-suspend", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path()});
  Fd fd = open_device(volume.path(), O_RDWR | O_DIRECT);
  ASSERT_EQ(write_at(fd.get(), 0, kBlock, 1), 0);
  ASSERT_FERRY_OK(filter::dm::suspend(volume.dm_name()));
  ASSERT_FERRY_OK(filter::dm::resume(volume.dm_name()));
  EXPECT_TRUE(attachment.intact());
  EXPECT_EQ(take_round(attachment.tracker()), blocks(0, 1));
  fd.reset();
  ASSERT_FERRY_OK(attachment.detach());
}

TEST_F(AttachTest, AFailedStepLeavesNothingBehind) {
  TestVolume volume("kmod-undo", 16 * kMiB);
  std::string plain = table_text(volume.dm_name());
  {
    // Somebody else's device has the door's name and is open.
    TestVolume obstacle("kmod-undo-ferry", kMiB);
    Fd open = open_device(obstacle.path(), O_RDONLY);
    auto refused = filter::Attachment::attach({.path = volume.path()});
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, Errc::busy);
  }
  EXPECT_EQ(table_text(volume.dm_name()), plain);
  // A table that somebody has loaded and not yet resumed is not ours to overwrite.
  ASSERT_FERRY_OK(filter::dm::load(volume.dm_name(), *filter::dm::table(volume.dm_name()), false));
  auto refused = filter::Attachment::attach({.path = volume.path()});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::busy);
  ASSERT_FERRY_OK(filter::dm::clear(volume.dm_name()));
  EXPECT_EQ(filter::list_trackers()->size(), 0u);
  EXPECT_EQ(filter::dm::info("kmod-undo-ferry").error().code, Errc::not_found);
  auto attachment = must_attach({.path = volume.path()});
  ASSERT_FERRY_OK(attachment.detach());
}

TEST_F(AttachTest, OnlyOneFilterAtATime) {
  TestVolume volume("kmod-twice", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path()});
  auto second = filter::Attachment::attach({.path = volume.path()});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Errc::busy);
  EXPECT_EQ(filter::detach_volume(volume.path(), true).error().code, Errc::busy);
  EXPECT_TRUE(attachment.intact());
  ASSERT_FERRY_OK(attachment.detach());
  EXPECT_EQ(filter::detach_volume(volume.path(), true).error().code, Errc::not_found);
}

TEST_F(AttachTest, ADeadDaemonsFilterIsReplaced) {
  TestVolume volume("kmod-orphan", 16 * kMiB);
  std::string plain = table_text(volume.dm_name());
  {
    auto lost = must_attach({.path = volume.path()});
    ASSERT_FERRY_OK(lost.leave());
  }
  ASSERT_EQ(filter::list_attached()->size(), 1u);
  auto attachment = must_attach({.path = volume.path()});
  EXPECT_TRUE(attachment.intact());
  EXPECT_EQ(filter::list_trackers()->size(), 1u);
  ASSERT_FERRY_OK(attachment.detach());
  EXPECT_EQ(table_text(volume.dm_name()), plain);
  EXPECT_TRUE(filter::list_attached()->empty());
}

TEST_F(AttachTest, AStackedFilterIsFoundAndTakenOutLater) {
  TestVolume below("kmod-late-below", 16 * kMiB);
  DmDevice striped("kmod-late", "0 32768 striped 1 128 " + below.device() + " 0");
  std::string plain = table_text(striped.name());
  {
    auto left = must_attach({.path = striped.path()});
    EXPECT_FALSE(left.in_place());
    ASSERT_FERRY_OK(left.leave());
  }
  auto attached = filter::list_attached();
  ASSERT_FERRY_OK(attached);
  ASSERT_EQ(attached->size(), 1u);
  EXPECT_FALSE((*attached)[0].in_place);
  EXPECT_FERRY_OK(filter::detach_volume(striped.path(), false));
  EXPECT_EQ(table_text(striped.name()), plain);
}

TEST_F(AttachTest, WhatCannotCarryTheFilterIsRefusedInWords) {
  auto refused = filter::Attachment::attach({.path = "/dev/null"});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::unsupported);
  EXPECT_EQ(filter::Attachment::attach({.path = "/dev/nix"}).error().code, Errc::not_found);
  auto loop = filter::Attachment::attach({.path = "/dev/loop0"});
  ASSERT_FALSE(loop.ok());
  EXPECT_EQ(loop.error().code, Errc::unsupported);
  EXPECT_NE(loop.error().hint.find("LVM"), std::string::npos);
}

}  // namespace
}  // namespace ferry::kmod
