// SPDX-License-Identifier: GPL-2.0-or-later
// The watchers watched: each detector of a debug kernel reports a bug that the module in planted/
// commits for it, and the look into the kernel's log that ends every test of this suite fails on
// it. Last in a boot (tests/scenarios/planted_bugs.py), and in this order: most detectors turn
// themselves off after their first finding, some turn others off.
#include <fcntl.h>
#include <gtest/gtest-spi.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fail_nth.h"
#include "suite.h"

namespace ferry::kmod {
namespace {

constexpr char kBug[] = "/sys/module/dm_ferry_planted/parameters/bug";

class PlantedTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    if (!bugs_are_planted()) GTEST_SKIP() << "no planted bugs here (planted_bugs.py)";
  }
  // Has looked into the log already, and found what it wanted to.
  void TearDown() override {}
  void plant(const std::string& bug) {
    Fd fd = open_device(kBug, O_WRONLY);
    ASSERT_EQ(write(fd.get(), bug.data(), bug.size()), static_cast<ssize_t>(bug.size()))
        << std::strerror(errno);
  }
  // Any other test would have failed now, and said this.
  void expect_reported(const std::string& words) { EXPECT_NONFATAL_FAILURE(check_log(), words); }
};

bool kernel_has(const std::string& file) { return access(debugfs(file).c_str(), F_OK) == 0; }

// The kernel with KASAN has all these at once, and kmemleak is the one that can be asked for.
bool is_memory_kernel() { return kernel_has("kmemleak"); }

#define NEEDS(condition) \
  if (!(condition)) GTEST_SKIP() << "not on this kernel"

TEST_F(PlantedTest, DebugAtomicSleep) {
  NEEDS(is_memory_kernel());
  plant("sleep-in-atomic");
  expect_reported("BUG: sleeping function called from invalid context");
}

TEST_F(PlantedTest, ProveRcu) {
  NEEDS(is_memory_kernel());
  plant("rcu-outside");
  expect_reported("WARNING: suspicious RCU usage");
}

TEST_F(PlantedTest, Ubsan) {
  NEEDS(is_memory_kernel());
  plant("shift-too-far");
  expect_reported("UBSAN: shift-out-of-bounds");
}

TEST_F(PlantedTest, Kmemleak) {
  NEEDS(is_memory_kernel());
  forget_leaks();
  plant("leak");
  EXPECT_THAT(leaks_of_ferry(), testing::HasSubstr("[dm_ferry_planted]"));
}

TEST_F(PlantedTest, Kcsan) {
  NEEDS(kernel_has("kcsan"));
  plant("data-race");
  expect_reported("BUG: KCSAN: data-race in race_on [dm_ferry_planted]");
}

// The bug is the one that R13 is about: see teach_lockdep() in kmod/tracker.c.
TEST_F(PlantedTest, Lockdep) {
  NEEDS(is_memory_kernel());
  ASSERT_TRUE(lockdep_is_on());
  plant("reclaim-under-lock");
  expect_reported("WARNING: possible circular locking dependency detected");
  EXPECT_FALSE(lockdep_is_on()) << "it is off after its first finding";
}

TEST_F(PlantedTest, Kasan) {
  NEEDS(is_memory_kernel());
  plant("use-after-free");
  expect_reported("use-after-free in use_after_free");
}

// The last one: the process that commits it dies inside the kernel, with a lock in its hands.
TEST_F(PlantedTest, FailNth) {
  NEEDS(FailNth::prepare().empty());
  // Each allocation on the way fails, until it is the one that nobody checks.
  constexpr unsigned kMost = 50;
  bool died = false;
  for (unsigned n = 1; n <= kMost && !died; ++n) {
    pid_t child = fork();
    if (child == 0) {
      int fd = open(kBug, O_WRONLY);
      FailNth one(n);
      (void)!write(fd, "unchecked-allocation", std::strlen("unchecked-allocation"));
      _exit(one.fired() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    died = WIFSIGNALED(status);
    ASSERT_TRUE(died || WEXITSTATUS(status) == 0) << "no allocation was left to fail";
  }
  EXPECT_TRUE(died);
  expect_reported("KASAN: null-ptr-deref");
}

}  // namespace
}  // namespace ferry::kmod
