// SPDX-License-Identifier: GPL-2.0-or-later
// Runs against the test driver that is built into libvirt: no daemon, one domain named "test".
#include "hypervisor/libvirt.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>


namespace ferry::hypervisor {
namespace {

std::unique_ptr<Libvirt> test_libvirt() {
  auto libvirt = Libvirt::connect("test:///default");
  EXPECT_TRUE(libvirt.ok()) << libvirt.error().message();
  return libvirt.ok() ? std::move(*libvirt) : nullptr;
}

TEST(LibvirtTest, InspectsARunningDomain) {
  auto libvirt = test_libvirt();
  auto domain = libvirt->inspect("test");
  ASSERT_TRUE(domain.ok()) << domain.error().message();
  EXPECT_EQ(domain->name, "test");
  EXPECT_EQ(domain->state, DomainInfo::State::running);
  EXPECT_GT(domain->memory_kib, 0u);
  EXPECT_TRUE(domain->persistent);
  EXPECT_EQ(domain->snapshots, 0);
  EXPECT_TRUE(libvirt->alive());
  auto by_uuid = libvirt->state(domain->uuid);
  ASSERT_TRUE(by_uuid.ok()) << by_uuid.error().message();
  EXPECT_EQ(by_uuid->name, "test");
  EXPECT_EQ(by_uuid->id, 1);
}

TEST(LibvirtTest, UnknownVmIsNotFound) {
  auto libvirt = test_libvirt();
  for (const Status& status :
       {libvirt->check_migratable("nobody"), libvirt->abort_migration("nobody"),
        libvirt->destroy("nobody"), libvirt->resume("nobody"),
        libvirt->migrate({.vm = "nobody", .destination_uri = "test:///default",
                          .memory_uri = {}, .listen_address = {}, .destination_xml = {},
                          .persistent_xml = {}})}) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Errc::not_found);
    EXPECT_EQ(status.error().what, "unknown VM nobody");
  }
  EXPECT_TRUE(libvirt->destroy_incoming("nobody").ok()) << "nothing left is what was wanted";
}

TEST(LibvirtTest, UnknownDaemonIsAnErrorWithTheUri) {
  auto libvirt = Libvirt::connect("qemu+unix:///system?socket=/nonexistent/libvirt");
  ASSERT_FALSE(libvirt.ok());
  EXPECT_NE(libvirt.error().message().find("/nonexistent/libvirt"), std::string::npos);
  EXPECT_FALSE(libvirt.error().hint.empty());
}

TEST(LibvirtTest, RunningDomainIsNoLeftover) {
  auto libvirt = test_libvirt();
  Status status = libvirt->destroy_incoming("test");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Errc::busy);
  EXPECT_EQ(libvirt->state("test")->state, DomainInfo::State::running);
}

TEST(LibvirtTest, DeliversLifecycleEvents) {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<LifecycleEvent> events;
  auto libvirt = test_libvirt();
  ASSERT_TRUE(libvirt
                  ->on_lifecycle([&](const std::string& vm, LifecycleEvent event) {
                    std::lock_guard lock(mutex);
                    if (vm == "test") events.push_back(event);
                    changed.notify_all();
                  })
                  .ok());
  ASSERT_TRUE(libvirt->destroy("test").ok());
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return !events.empty(); }));
  EXPECT_EQ(events.front(), LifecycleEvent::stopped);
}

TEST(LibvirtTest, NoMigrationMeansNoProgress) {
  auto libvirt = test_libvirt();
  auto progress = libvirt->memory_progress("test");
  if (progress.ok()) {
    EXPECT_FALSE(progress->active);
  } else {
    EXPECT_EQ(progress.error().code, Errc::unsupported);
  }
}

}  // namespace
}  // namespace ferry::hypervisor
