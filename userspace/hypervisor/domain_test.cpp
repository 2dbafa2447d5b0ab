// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/domain.h"

#include <gtest/gtest.h>

namespace ferry::hypervisor {
namespace {

const std::string kXml = R"(<domain type='kvm' id='3'>
  <name>web01</name>
  <uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <memory unit='KiB'>131072</memory>
  <devices>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/>
      <source dev='/dev/vg/web01' index='2'/>
      <backingStore/>
      <target dev='vda' bus='virtio'/>
      <serial>root</serial>
    </disk>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='directsync'/>
      <source dev='/dev/vg/web01-swap'/>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <interface type='network'><source network='default'/></interface>
  </devices>
</domain>)";

std::string with(const std::string& from, const std::string& to) {
  std::string xml = kXml;
  const size_t at = xml.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return xml.replace(at, from.size(), to);
}

DomainInfo running(const std::string& xml) {
  auto domain = parse_domain_xml(xml);
  EXPECT_TRUE(domain.ok());
  domain->state = DomainInfo::State::running;
  return *domain;
}

TEST(DomainXml, ReadsWhatIsThere) {
  auto domain = parse_domain_xml(kXml);
  ASSERT_TRUE(domain.ok());
  EXPECT_EQ(domain->name, "web01");
  EXPECT_EQ(domain->uuid, "4dea22b3-1d52-d8f3-2516-782e98ab3fa0");
  EXPECT_EQ(domain->memory_kib, 131072u);
  ASSERT_EQ(domain->disks.size(), 2u) << "the empty drive does not count";
  EXPECT_EQ(domain->disks[0].target, "vda");
  EXPECT_EQ(domain->disks[0].path, "/dev/vg/web01");
  EXPECT_EQ(domain->disks[0].serial, "root");
  EXPECT_EQ(domain->disks[0].cache, "none");
  EXPECT_EQ(domain->disks[0].type, "block");
  EXPECT_EQ(domain->disks[0].format, "raw");
  EXPECT_FALSE(domain->disks[0].has_backing);
  EXPECT_EQ(domain->disks[1].cache, "directsync");
  EXPECT_TRUE(domain->host_bound.empty());
}

TEST(DomainXml, RefusesWhatIsNoDomain) {
  for (const char* xml : {"", "<domain>", "<network/>", "no xml at all"}) {
    auto domain = parse_domain_xml(xml);
    ASSERT_FALSE(domain.ok()) << xml;
    EXPECT_EQ(domain.error().code, Errc::protocol);
  }
}

TEST(DomainXml, ReplacesOnlyTheNamedPaths) {
  auto xml = replace_disk_paths(kXml, {{"/dev/vg/web01", "/dev/pool/a&b"}});
  ASSERT_TRUE(xml.ok());
  EXPECT_TRUE(xml->starts_with("<domain")) << *xml;
  auto domain = parse_domain_xml(*xml);
  ASSERT_TRUE(domain.ok());
  EXPECT_EQ(domain->disks[0].path, "/dev/pool/a&b");
  EXPECT_EQ(domain->disks[1].path, "/dev/vg/web01-swap");
}

TEST(DomainXml, UnknownPathIsAnError) {
  auto xml = replace_disk_paths(kXml, {{"/dev/vg/other", "/dev/pool/x"}});
  ASSERT_FALSE(xml.ok());
  EXPECT_EQ(xml.error().code, Errc::not_found);
}

TEST(Migratable, AcceptsRawUncachedBlockDevices) {
  const DomainInfo domain = running(kXml);
  Status status = check_migratable(domain);
  EXPECT_TRUE(status.ok()) << status.error().message();
  for (const auto& check : migration_checks(domain)) EXPECT_TRUE(check.ok) << check.name;
}

TEST(Migratable, SaysWhatToChange) {
  struct Case {
    std::string from, to, word;
  };
  const Case cases[] = {
      {"cache='none' ", "", "cache='none'"},
      {"cache='none'", "cache='writeback'", "cache='none'"},
      {"type='raw' cache='none'", "type='vmdk' cache='none'", "raw or qcow2"},
      {"<backingStore/>", "<backingStore type='block'><source dev='/x'/></backingStore>", "commit"},
      {"<serial>root</serial>", "<mirror type='block'/>", "block job"},
      {"type='block' device='disk'", "type='file' device='disk'", "block"},
      {"<readonly/>", "<source file='/iso'/>", "eject"},
      {"</devices>", "<hostdev type='pci'/></devices>", "detach"},
      {"</devices>", "<interface type='hostdev'/></devices>", "detach"},
      {"</devices>", "<filesystem><target dir='x'/></filesystem></devices>", "detach"},
  };
  for (const auto& bad : cases) {
    Status status = check_migratable(running(with(bad.from, bad.to)));
    ASSERT_FALSE(status.ok()) << bad.to;
    EXPECT_EQ(status.error().code, Errc::unsupported);
    EXPECT_NE(status.error().message().find(bad.word), std::string::npos)
        << status.error().message();
  }
}

TEST(Migratable, AcceptsWholeQcow2Images) {
  DomainInfo domain = running(with("type='raw' cache='none'", "type='qcow2' cache='none'"));
  Status status = check_migratable(domain);
  EXPECT_TRUE(status.ok()) << status.error().message();
  domain.disks[0].image_fault = "its data lies elsewhere";
  status = check_migratable(domain);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message().find("/dev/vg/web01: its data lies elsewhere"), std::string::npos)
      << status.error().message();
}

TEST(Migratable, LeavesSharedAndReadOnlyDisksAlone) {
  for (const char* mark : {"<shareable/>", "<readonly/>"}) {
    const DomainInfo domain = running(with("<serial>root</serial>", mark));
    EXPECT_FALSE(moves_with_vm(domain.disks[0])) << mark;
    EXPECT_TRUE(moves_with_vm(domain.disks[1]));
    EXPECT_TRUE(check_migratable(domain).ok());
  }
}

TEST(Migratable, WantsARunningVmWithoutSnapshots) {
  DomainInfo domain = running(kXml);
  domain.snapshots = 1;
  EXPECT_FALSE(check_migratable(domain).ok());
  domain.snapshots = 0;
  domain.state = DomainInfo::State::shut_off;
  Status status = check_migratable(domain);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message().find("virsh start"), std::string::npos);
}

}  // namespace
}  // namespace ferry::hypervisor
