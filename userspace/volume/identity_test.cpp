// SPDX-License-Identifier: GPL-2.0-or-later
#include "volume/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/process.h"
#include "volume/volume.h"

namespace ferry::volume {
namespace {

// A picture of sysfs.
class IdentityTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "ferry-sysfs-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& line) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << line << '\n';
  }
  std::string identity(const std::string& device) const { return identity_of((root_ / device).string()); }

  std::filesystem::path root_;
};

TEST_F(IdentityTest, AMappedVolumeIsItsUuid) {
  put("dm-0/dm/uuid", "LVM-aPVAhM0abcdefghijklmnopqrstuvwxyABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
  EXPECT_EQ(identity("dm-0"), "LVM-aPVAhM0abcdefghijklmnopqrstuvwxyABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
}

TEST_F(IdentityTest, AMappedVolumeWithoutUuidHasNoIdentity) {
  put("dm-0/dm/uuid", "");
  put("dm-0/serial", "of nobody");
  EXPECT_EQ(identity("dm-0"), "");
}

TEST_F(IdentityTest, MappedDevicesAreFoundByTheirIdentity) {
  put("dm-0/dm/uuid", "LVM-one");
  put("dm-11/dm/uuid", "LVM-two");
  put("dm-2/dm/uuid", "");
  put("vda/dm/uuid", "of nobody");
  const std::map<std::string, std::string> wanted{{"LVM-one", "/dev/dm-0"}, {"LVM-two", "/dev/dm-11"}};
  EXPECT_EQ(mapped_devices(root_), wanted);
  EXPECT_TRUE(mapped_devices(root_ / "none").empty());
}

TEST_F(IdentityTest, ADiskIsItsWorldWideNameOrItsSerialNumber) {
  put("sda/device/wwid", "naa.5000c500a1b2c3d4  ");
  put("sda/device/serial", "ignored");
  EXPECT_EQ(identity("sda"), "wwid-naa.5000c500a1b2c3d4");
  put("nvme0n1/wwid", "eui.0025388b910a2b3c");
  EXPECT_EQ(identity("nvme0n1"), "wwid-eui.0025388b910a2b3c");
  put("vda/serial", "  pv 1 ");
  EXPECT_EQ(identity("vda"), "serial-pv 1");
}

TEST_F(IdentityTest, APartitionWithoutUuidIsItsDisksPart) {
  put("no-such-disk/serial", "S1");
  put("no-such-disk/part3/partition", "3");
  EXPECT_EQ(identity("no-such-disk/part3"), "serial-S1-part3");
  std::filesystem::create_directory_symlink(root_ / "no-such-disk/part3", root_ / "254:3");
  EXPECT_EQ(identity("254:3"), "serial-S1-part3") << "through a link, as /sys/dev/block has";
}

TEST_F(IdentityTest, NothingIsKnownOfTheRest) {
  put("loop0/size", "8");
  put("loop0/loop0p1/partition", "1");
  EXPECT_EQ(identity("loop0"), "");
  EXPECT_EQ(identity("loop0/loop0p1"), "");
  EXPECT_EQ(identity("no-such-device"), "");
}

// A real partition table, where loop devices may be made; its sysfs is a picture, for not every kernel reads tables.
TEST_F(IdentityTest, APartitionIsTheUuidInItsTable) {
  const std::string image = root_ / "image";
  std::ofstream(image).close();
  std::filesystem::resize_file(image, 8 << 20);
  const std::string script = "printf 'label: gpt\\nsize=1M, uuid=8C5A4A0E-1D2B-4C3D-9E8F-0123456789AB\\n' | "
                             "sfdisk -q " + image + " && losetup --show -f " + image;
  auto made = run_process({"sh", "-c", script});
  if (!made || made->exit_status != 0) GTEST_SKIP() << "no loop device can be made here";
  const std::string loop = made->out.substr(0, made->out.find('\n'));
  const std::string name = loop.substr(5);
  put(name + "/p1/partition", "1");
  put(name + "/p2/partition", "2");
  const auto partition = identity(name + "/p1"), missing = identity(name + "/p2");
  const auto whole = identify(loop);
  ASSERT_TRUE(run_process({"losetup", "-d", loop}).ok());
  EXPECT_EQ(partition, "partuuid-8c5a4a0e-1d2b-4c3d-9e8f-0123456789ab");
  EXPECT_EQ(missing, "");
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->id, "");
  EXPECT_EQ(whole->kind, VolumeInfo::Kind::block);
}

}  // namespace
}  // namespace ferry::volume
