// SPDX-License-Identifier: GPL-2.0-or-later
// Runs against the test driver that is built into libvirt: no daemon, one domain named "test".
#include "hypervisor/libvirt.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <fstream>

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

// An image whose data lies in another file would leave its data behind: libvirt's XML does not show that.
TEST(LibvirtTest, LooksIntoImages) {
  const std::string image = ::testing::TempDir() + "/ferry-image";
  const std::string node = ::testing::TempDir() + "/ferry-node.xml";
  std::ofstream(node) << "<node><domain type='test'><name>web1</name><memory>65536</memory><os><type>hvm</type></os>"
                         "<devices><disk type='block' device='disk'><driver name='qemu' type='qcow2' cache='none'/>"
                         "<source dev='" << image << "'/><target dev='vda' bus='virtio'/></disk></devices>"
                         "</domain></node>";
  auto libvirt = Libvirt::connect("test://" + node);
  ASSERT_TRUE(libvirt.ok()) << libvirt.error().message();
  const struct {
    char version, features;
    const char* word;
  } cases[] = {{3, 0, ""}, {3, 4, "another file"}, {3, 2, "corrupt"}, {9, 0, "version 9"}};
  for (const auto& one : cases) {
    std::string header("QFI\xfb\0\0\0", 7);
    header += one.version;
    header.resize(79);
    header += one.features;
    std::ofstream(image, std::ios::binary) << header;
    Status status = (*libvirt)->check_migratable("web1");
    ASSERT_EQ(status.ok(), *one.word == '\0') << one.word << (status.ok() ? "" : status.error().message());
    if (!status.ok()) {
      EXPECT_NE(status.error().message().find(one.word), std::string::npos) << status.error().message();
    }
  }
  ::unlink(image.c_str());
  EXPECT_FALSE((*libvirt)->check_migratable("web1").ok()) << "there is nothing";
  ::unlink(node.c_str());
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
