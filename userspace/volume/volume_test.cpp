// SPDX-License-Identifier: GPL-2.0-or-later
#include "volume/volume.h"

#include <gtest/gtest.h>

namespace ferry::volume {
namespace {

TEST(LvmNameTest, DoubledHyphensBelongToTheName) {
  std::string vg, lv;
  ASSERT_TRUE(split_lvm_name("vg-web1", vg, lv));
  EXPECT_EQ(vg, "vg");
  EXPECT_EQ(lv, "web1");
  ASSERT_TRUE(split_lvm_name("vg--a-web--1--b", vg, lv));
  EXPECT_EQ(vg, "vg-a");
  EXPECT_EQ(lv, "web-1-b");
}

TEST(LvmNameTest, OtherNamesAreNone) {
  std::string vg, lv;
  for (const char* name : {"", "plain", "vg-", "-lv", "vg-lv-real"})
    EXPECT_FALSE(split_lvm_name(name, vg, lv)) << name;
}

TEST(LvmErrorTest, KindsAreRecognised) {
  Error error = lvm_error("cannot create vg/a", 5,
                          "  WARNING: something\n  Volume group \"vg\" has insufficient free space "
                          "(10 extents): 20 required.\n");
  EXPECT_EQ(error.code, Errc::no_space);
  EXPECT_NE(error.message().find("(10 extents): 20 required."), std::string::npos);
  EXPECT_EQ(error.message().find("WARNING"), std::string::npos);
  EXPECT_EQ(lvm_error("x", 5, "  Logical Volume \"a\" already exists in volume group\n").code,
            Errc::busy);
  EXPECT_EQ(lvm_error("x", 5, "  Volume group \"nix\" not found\n").code, Errc::not_found);
  EXPECT_EQ(lvm_error("x", 5, "  Logical volume vg/a contains a filesystem in use.\n").code,
            Errc::busy);
  EXPECT_EQ(lvm_error("x", 5, "").code, Errc::failed);
}

TEST(LvsTest, NamesFromTheReport) {
  auto names = parse_lvs(R"({"report":[{"lv":[{"vg_name":"vg","lv_name":"web1"}]}]})");
  ASSERT_TRUE(names.ok());
  EXPECT_EQ(names->first, "vg");
  EXPECT_EQ(names->second, "web1");
}

TEST(LvsTest, OtherTextIsAnError) {
  for (const char* text : {"", "[]", "{}", R"({"report":[]})", R"({"report":[{"lv":[]}]})",
                           R"({"report":[{"lv":[{"vg_name":3}]}]})", R"({"report":[3]})"})
    EXPECT_FALSE(parse_lvs(text).ok()) << text;
}

TEST(LvStateTest, FromTheReport) {
  const std::string begin = R"({"report":[{"lv":[{"vg_name":"vg","lv_name":"web-1","vg_uuid":"aPVAhM-0abc-1","lv_uuid":"B2-cdEF",)";
  const std::string end = "}]}]}";
  auto state = parse_lv_state(begin + R"("lv_active":"active","lv_tags":"x,ferry_fenced","lv_skip_activation":"skip activation")" + end);
  ASSERT_TRUE(state.ok()) << state.error().message();
  EXPECT_EQ(state->vg, "vg");
  EXPECT_EQ(state->lv, "web-1");
  EXPECT_EQ(state->id, "LVM-aPVAhM0abc1B2cdEF");
  EXPECT_TRUE(state->active);
  EXPECT_TRUE(state->hidden);
  state = parse_lv_state(begin + R"("lv_active":"","lv_tags":"not_ferry_fenced","lv_skip_activation":"skip activation")" + end);
  ASSERT_TRUE(state.ok());
  EXPECT_FALSE(state->active);
  EXPECT_FALSE(state->hidden) << "skipped for somebody else's reason";
  state = parse_lv_state(begin + R"("lv_active":"","lv_tags":"ferry_fenced","lv_skip_activation":"")" + end);
  EXPECT_FALSE(state->hidden) << "tagged, but activated like any other";
  EXPECT_EQ(state->made_for, "");
  state = parse_lv_state(begin + R"("lv_active":"","lv_tags":"ferry_fenced,ferry_for_068e80503a59,x","lv_skip_activation":"skip activation")" + end);
  EXPECT_EQ(state->made_for, "068e80503a59");
  EXPECT_TRUE(state->hidden);
  state = parse_lv_state(begin + R"("lv_active":"","lv_tags":"not_ferry_for_068e80503a59","lv_skip_activation":"")" + end);
  EXPECT_EQ(state->made_for, "");
  EXPECT_FALSE(parse_lv_state(begin + R"("lv_active":"","lv_tags":"")" + end).ok());
}

TEST(LvStateTest, Paths) {
  std::string vg, lv;
  ASSERT_TRUE(split_lv_path("/dev/vg-a/web1", vg, lv));
  EXPECT_EQ(vg + ' ' + lv, "vg-a web1");
  ASSERT_TRUE(split_lv_path("/dev/mapper/vg--a-web1", vg, lv));
  EXPECT_EQ(vg + ' ' + lv, "vg-a web1");
  for (const char* path : {"/dev/sda", "/dev/vg/../sda", "/dev/vg/a/b", "/dev/vg/", "/dev/vg/-x", "vg/web1",
                           "/dev/disk/by-id", "/dev/mapper/plain", "/dev/block/8:1"})
    EXPECT_FALSE(split_lv_path(path, vg, lv)) << path;
  EXPECT_EQ(find_lv("/dev/sda").error().code, Errc::usage);
}

TEST(CreateTest, NamesThatAreNoNamesNeverReachLvm) {
  EXPECT_EQ(create_lv("vg", "--force", 4096).error().code, Errc::usage);
  EXPECT_EQ(create_lv("../vg", "a", 4096).error().code, Errc::usage);
  EXPECT_EQ(create_lv("vg", "a", 0).error().code, Errc::usage);
}

TEST(InspectTest, WhatIsNoBlockDevice) {
  EXPECT_EQ(inspect("/dev/null").error().code, Errc::unsupported);
  EXPECT_EQ(inspect("/dev/no-such-volume").error().code, Errc::not_found);
}

TEST(RoleTest, Names) {
  EXPECT_EQ(*role_from_name("swap"), Role::swap);
  EXPECT_EQ(role_from_name("Swap").error().code, Errc::usage);
}

}  // namespace
}  // namespace ferry::volume
