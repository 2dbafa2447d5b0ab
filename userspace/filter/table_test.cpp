// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/table.h"

#include <gtest/gtest.h>

namespace ferry::filter {
namespace {

constexpr char kUuid[] = "6f0c1d2e-3b4a-4958-8677-a6b5c4d3e2f1";
constexpr char kLinear[] = "0 8192 linear 253:0 2048\n8192 4096 linear 253:16 0";
constexpr char kFerry[] =
    "0 8192 ferry 253:0 2048 6f0c1d2e-3b4a-4958-8677-a6b5c4d3e2f1\n"
    "8192 4096 ferry 253:16 0 6f0c1d2e-3b4a-4958-8677-a6b5c4d3e2f1";

TEST(UuidTest, TextAndBack) {
  auto uuid = parse_uuid(kUuid);
  ASSERT_TRUE(uuid);
  EXPECT_EQ((*uuid)[0], 0x6f);
  EXPECT_EQ((*uuid)[15], 0xf1);
  EXPECT_EQ(to_text(*uuid), kUuid);
  EXPECT_EQ(parse_uuid("6F0C1D2E-3B4A-4958-8677-A6B5C4D3E2F1"), uuid);
}

TEST(UuidTest, OtherFormsAreRefused) {
  EXPECT_FALSE(parse_uuid(""));
  EXPECT_FALSE(parse_uuid("6f0c1d2e3b4a49588677a6b5c4d3e2f1"));
  EXPECT_FALSE(parse_uuid("6f0c1d2e-3b4a-4958-8677-a6b5c4d3e2f"));
  EXPECT_FALSE(parse_uuid("6f0c1d2e-3b4a-4958-8677-a6b5c4d3e2f1 "));
  EXPECT_FALSE(parse_uuid("6f0c1d2e-3b4a-4958-8677-a6b5c4d3e2fg"));
}

TEST(UuidTest, RandomOnesDifferAndAreVersionFour) {
  auto a = random_uuid(), b = random_uuid();
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(*a, *b);
  EXPECT_EQ(to_text(*a)[14], '4');
}

TEST(TableTest, TextAndBackIsByteIdentical) {
  for (const char* text : {kLinear, kFerry, "0 100 zero", "0 8 thin 253:4 7",
                           "0 64 crypt aes-xts-plain64 :64:logon:ferry 0 8:1 32768 1 discards"}) {
    auto table = parse_table(text);
    ASSERT_TRUE(table) << text;
    EXPECT_EQ(to_text(*table), text);
  }
}

TEST(TableTest, BrokenLinesAreRefused) {
  for (const char* text : {"0", "0 8", "x 8 linear", "0 0 linear 8:0 0", "0 8x linear", "0 8 "})
    EXPECT_FALSE(parse_table(text)) << text;
}

TEST(TableTest, LinearToFerryAndBack) {
  auto linear = parse_table(kLinear);
  auto uuid = parse_uuid(kUuid);
  ASSERT_TRUE(linear && uuid);
  DmTable ferry = linear_to_ferry(*linear, *uuid);
  EXPECT_EQ(to_text(ferry), kFerry);
  EXPECT_EQ(sectors_of(ferry), 12288u);
  EXPECT_EQ(tracker_of(ferry), uuid);
  auto back = ferry_to_linear(ferry);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(to_text(*back), kLinear);
}

TEST(TableTest, LinesOfTwoTrackersNameNone) {
  std::string text = kFerry;
  text.back() = '2';
  auto table = parse_table(text);
  ASSERT_TRUE(table);
  EXPECT_FALSE(tracker_of(*table));
  EXPECT_FALSE(tracker_of(*parse_table(kLinear)));
  EXPECT_FALSE(tracker_of(*parse_table(std::string(kFerry) + "\n12288 8 linear 253:0 0")));
}

TEST(TableTest, UnknownFerryParametersAreAnError) {
  auto table = parse_table("0 8 ferry 253:0 0 " + std::string(kUuid) + " extra");
  ASSERT_TRUE(table);
  auto back = ferry_to_linear(*table);
  ASSERT_FALSE(back.ok());
  EXPECT_EQ(back.error().code, Errc::unsupported);
}

TEST(TableTest, OnlyTypesWithoutMetadataOfTheirOwnAreStacked) {
  EXPECT_TRUE(may_be_stacked("thin"));
  EXPECT_TRUE(may_be_stacked("striped"));
  EXPECT_FALSE(may_be_stacked("raid"));
  EXPECT_FALSE(may_be_stacked("snapshot"));
  EXPECT_FALSE(may_be_stacked("multipath"));
}

TEST(TableTest, NamesOfTheDoor) {
  EXPECT_EQ(door_name("vg-web1"), "vg-web1-ferry");
  EXPECT_EQ(door_uuid("LVM-abc", "vg-web1"), "LVM-abc-ferry");
  EXPECT_EQ(door_uuid("", "plain"), "FERRY-plain-ferry");
}

}  // namespace
}  // namespace ferry::filter
