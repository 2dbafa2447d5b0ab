// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/process.h"

#include <gtest/gtest.h>

#include <chrono>

namespace ferry {
namespace {

TEST(ProcessTest, CollectsBothStreamsAndTheStatus) {
  auto output = run_process({"sh", "-c", "echo out; echo err >&2; exit 3"});
  ASSERT_TRUE(output.ok()) << output.error().message();
  EXPECT_EQ(output->out, "out\n");
  EXPECT_EQ(output->err, "err\n");
  EXPECT_EQ(output->exit_status, 3);
}

TEST(ProcessTest, ArgumentsAreNotTouchedByAShell) {
  auto output = run_process({"printf", "%s|", "a b", "$HOME", "`id`"});
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->out, "a b|$HOME|`id`|");
}

TEST(ProcessTest, MessagesComeInTheCLocale) {
  auto output = run_process({"sh", "-c", "echo $LC_ALL"});
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->out, "C\n");
}

TEST(ProcessTest, MissingProgramIsNotFound) {
  auto output = run_process({"ferry-no-such-program"});
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.error().code, Errc::not_found);
}

TEST(ProcessTest, OutputIsBounded) {
  auto output = run_process({"head", "-c", "1000000", "/dev/zero"}, {.max_output_bytes = 1000});
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->out.size(), 1000u);
  EXPECT_TRUE(output->truncated);
  EXPECT_EQ(output->exit_status, 0);
}

TEST(ProcessTest, TheDeadlineKills) {
  auto begin = std::chrono::steady_clock::now();
  auto output = run_process({"sleep", "60"}, {.timeout_ms = 100});
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.error().code, Errc::timeout);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

TEST(ProcessTest, SignalsShowInTheStatus) {
  auto output = run_process({"sh", "-c", "kill -9 $$"});
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->exit_status, 137);
}

}  // namespace
}  // namespace ferry
