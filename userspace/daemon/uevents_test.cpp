// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/uevents.h"

#include <gtest/gtest.h>

namespace ferry::daemon {
namespace {

using namespace std::string_view_literals;

TEST(UeventsTest, TablesAndTheModuleConcernUs) {
  EXPECT_TRUE(Uevents::concerns_volumes("change@/devices/virtual/block/dm-3\0ACTION=change\0"sv));
  EXPECT_TRUE(Uevents::concerns_volumes("add@/module/dm_ferry\0ACTION=add\0"sv));
}

TEST(UeventsTest, OtherDevicesDoNot) {
  for (auto text : {"change@/devices/pci0000:00/virtio1/block/vda\0DEVNAME=/block/dm-3\0"sv, "add@/module/dm_mod\0"sv,
                    "libudev\0"sv, ""sv, "add@/devices/virtual/bdi/254:3\0"sv})
    EXPECT_FALSE(Uevents::concerns_volumes(text)) << text;
}

TEST(UeventsTest, AnOpenSocketIsSilentAboutNothing) {
  auto events = Uevents::open();
  if (!events) GTEST_SKIP() << events.error().message();
  (void)events->take();
  EXPECT_GE(events->fd(), 0);
}

}  // namespace
}  // namespace ferry::daemon
