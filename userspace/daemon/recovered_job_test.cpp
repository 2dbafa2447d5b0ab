// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/recovered_job.h"

#include <gtest/gtest.h>

#include "daemon/test_store.h"

namespace ferry::daemon {
namespace {

using store::Holding;

const std::string kUuid = "8a1a5f0e-7c1e-4a7e-9b1d-0123456789a0";

// A grant that nobody can be asked about, and that the operator takes back.
class RecoveredJobTest : public StoreTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(StoreTest::SetUp());
    config_.host_name = "a";
    config_.run_dir = config_.state_dir = config_.pki_dir = dir_.string();
    config_.libvirt_uri = "test:///default";
    disk_.uuid = kUuid;
    disk_.session = session_.id;
    disk_.target = "vda";
    disk_.path = "/nowhere/web1";
    disk_.volume_id = "LVM-1";
    disk_.role = "data";
    disk_.holding = Holding::granting;
    disk_.generation = 5;
    ASSERT_TRUE(store_->put(session_, {disk_}).ok());
  }

  Config config_;
  store::SessionRecord session_{"s1", "nosuch", "127.0.0.1:1", "b", true, "", "what to go on with"};
  store::DiskRecord disk_;
};

// Or a later start, for an upgrade, say, would move the VM without being asked.
TEST_F(RecoveredJobTest, LeavesNothingToGoOnWith) {
  ControlLoop loop;
  auto job = std::make_shared<RecoveredJob>(config_, loop, *store_, session_, std::vector{disk_}, [](const api::JobStatus&) {});
  job->start();
  ASSERT_TRUE(loop.call([] { return true; }));
  ASSERT_TRUE(job->force().ok());
  job->wait_ended();
  EXPECT_EQ(job->status().owner, api::Owner::source);
  EXPECT_EQ((*store_->by_uuid(kUuid))->holding, Holding::owned);
  EXPECT_EQ((*store_->session("s1"))->errand, "");
}

}  // namespace
}  // namespace ferry::daemon
