// SPDX-License-Identifier: GPL-2.0-or-later
#include "units.h"

#include <gtest/gtest.h>

namespace ferry::ctl {
namespace {

TEST(Units, Sizes) {
  EXPECT_EQ(*parse_size("4096"), 4096u);
  EXPECT_EQ(*parse_size("64K"), 65536u);
  EXPECT_EQ(*parse_size("64KiB"), 65536u);
  EXPECT_EQ(*parse_size("64kB"), 64'000u);
  EXPECT_EQ(*parse_size("100M/s"), 100u << 20);
  EXPECT_EQ(*parse_size("100 MB/s"), 100'000'000u);
  EXPECT_EQ(*parse_size("1.5GiB"), 1'610'612'736u);
  EXPECT_EQ(*parse_size("1Gbit"), 125'000'000u);
  for (const char* bad : {"", "x", "-1", "1Q", "M", "1e3", "nan", "inf", "99999999999999999999T",
                          "1 0", "0x10", "-0"})
    EXPECT_FALSE(parse_size(bad).ok()) << bad;
}

TEST(Units, Durations) {
  EXPECT_EQ(*parse_duration_ms("300", 1), 300u);
  EXPECT_EQ(*parse_duration_ms("10", 1000), 10'000u);
  EXPECT_EQ(*parse_duration_ms("300ms", 1000), 300u);
  EXPECT_EQ(*parse_duration_ms("1.5s", 1), 1500u);
  EXPECT_EQ(*parse_duration_ms("10m", 1), 600'000u);
  EXPECT_EQ(*parse_duration_ms("2h", 1), 7'200'000u);
  for (const char* bad : {"", "s", "1d", "-5", "1 s s"})
    EXPECT_FALSE(parse_duration_ms(bad, 1).ok()) << bad;
}

TEST(Units, Formats) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(1023), "1023 B");
  EXPECT_EQ(format_size(1024), "1.0 KiB");
  EXPECT_EQ(format_size(112 << 20), "112 MiB");
  EXPECT_EQ(format_size((1u << 30) - 1), "1.0 GiB");
  EXPECT_EQ(format_duration(84), "84 ms");
  EXPECT_EQ(format_duration(18'200), "18.2 s");
  EXPECT_EQ(format_duration(59'999), "1:00");
  EXPECT_EQ(format_duration(3'723'000), "1:02:03");
}

TEST(Units, PrintableKeepsTheTerminalSafe) {
  EXPECT_EQ(printable("a\033[2Jb\n"), "a?[2Jb?");
}

}  // namespace
}  // namespace ferry::ctl
