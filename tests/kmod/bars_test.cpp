// SPDX-License-Identifier: GPL-2.0-or-later
// What ferryd does about a volume that its records call another host's, while a session has the volume's filter.
#include "daemon/bars.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "suite.h"
#include "volume/volume.h"

namespace ferry::kmod {
namespace {

class BarsTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    volume_ = std::make_unique<TestVolume>("kmod-bars", 16 * kMiB);
    auto known = volume::identify(volume_->path());
    ASSERT_FERRY_OK(known);
    disk_.path = volume_->path();
    disk_.volume_id = known->id;
    disk_.holding = store::Holding::prepared;
    disk_.uuid = "8a1a5f0e-7c1e-4a7e-9b1d-0123456789a0";
  }
  void TearDown() override {
    volume_.reset();
    KmodTest::TearDown();
  }
  bool is_read_only() {
    Fd fd = open_device(volume_->path(), O_RDONLY);
    int flag = -1;
    EXPECT_EQ(::ioctl(fd.get(), BLKROGET, &flag), 0);
    return flag != 0;
  }

  std::unique_ptr<TestVolume> volume_;
  store::DiskRecord disk_;
};

// The look began before the grant came: the gate is open by the time it gets to the volume.
TEST_F(BarsTest, AVolumeThatASessionHasOpenedStaysWritable) {
  auto session = must_attach({.path = volume_->path(), .mode = FERRY_MODE_GATE, .door_writable = true});
  EXPECT_EQ(*daemon::bar_volume(disk_), daemon::Bar::held);
  ASSERT_FERRY_OK(session.tracker().open_gate());
  for (const bool still_barred : {true, false}) {
    auto bar = daemon::bar_volume(disk_, [still_barred] { return still_barred; });
    if (still_barred)
      EXPECT_EQ(bar.error().code, Errc::busy);
    else
      EXPECT_EQ(*bar, daemon::Bar::absent);
    EXPECT_FALSE(is_read_only());
  }
  ASSERT_FERRY_OK(session.detach());
}

// Its ferryd has died: nobody opens and closes it but the records.
TEST_F(BarsTest, AVolumeWhoseSessionIsGoneIsFenced) {
  auto session = must_attach({.path = volume_->path(), .mode = FERRY_MODE_TRACK});
  ASSERT_FERRY_OK(session.leave());
  EXPECT_EQ(*daemon::bar_volume(disk_, [] { return true; }), daemon::Bar::fenced);
  EXPECT_EQ(*daemon::bar_volume(disk_), daemon::Bar::held);
  EXPECT_FALSE(is_read_only());
  // The record says "ours" again, and then it does not any more: it was moved on while LVM was asked.
  disk_.holding = store::Holding::owned;
  EXPECT_FERRY_OK(daemon::unbar_volume(disk_, [] { return false; }));
  EXPECT_EQ(*daemon::bar_volume(disk_), daemon::Bar::held) << "another owner's fence was taken away";
  EXPECT_FERRY_OK(daemon::unbar_volume(disk_, [] { return true; }));
  Fd fd = open_device(volume_->path(), O_RDWR | O_DIRECT);
  EXPECT_EQ(write_at(fd.get(), 0, kBlock, 'x'), 0);
}

}  // namespace
}  // namespace ferry::kmod
