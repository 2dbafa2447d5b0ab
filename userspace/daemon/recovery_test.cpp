// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/recovery.h"

#include <gtest/gtest.h>

#include "daemon/session_ledger.h"
#include "daemon/test_store.h"

namespace ferry::daemon {
namespace {

using store::DiskRecord;
using store::Holding;

const std::string kUuid = "8a1a5f0e-7c1e-4a7e-9b1d-0123456789a0";

class DeadClaimTest : public StoreTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(StoreTest::SetUp());
    request_.vm = "web1";
    request_.generation = 1;
    request_.disks.push_back({0, "vda", "/nowhere/web1", "data", 4096, 512, kUuid});
  }
  Holding after(Holding holding, bool created) {
    DiskRecord disk;
    disk.uuid = kUuid;
    disk.session = "s1";
    disk.target = "vda";
    disk.path = "/nowhere/web1";
    disk.role = "data";
    disk.holding = holding;
    disk.generation = 1;
    disk.created = created;
    EXPECT_TRUE(store_->put({"s1", "web1", "a:7391", "a", false, {}}, {disk}).ok());
    take_back_dead_claims({}, *store_, jobs_, request_);
    return (*store_->by_uuid(kUuid))->holding;
  }

  Jobs jobs_;
  PrepareRequest request_;
};

TEST_F(DeadClaimTest, IsCalledOffSoThatTheDiskCanComeInAgain) {
  EXPECT_EQ(after(Holding::receiving, true), Holding::revoked);
  EXPECT_TRUE(may_take_in(*store_, request_).ok());
}

// Half of it is overwritten.
TEST_F(DeadClaimTest, LeavesAVolumeThatWasThereBeforeClosed) {
  EXPECT_EQ(after(Holding::receiving, false), Holding::given);
  EXPECT_TRUE(may_take_in(*store_, request_).ok());
}

// The source may have granted it: only a restart, which finds the gates of the dead session free, decides that.
TEST_F(DeadClaimTest, NoOtherClaimIsTouched) {
  for (const auto holding : {Holding::prepared, Holding::owned, Holding::granting, Holding::moving, Holding::given})
    EXPECT_EQ(after(holding, true), holding) << store::holding_name(holding);
}

}  // namespace
}  // namespace ferry::daemon
