// SPDX-License-Identifier: GPL-2.0-or-later
// ferry-kmod-suite: tests of the loaded dm-ferry module. Runs as root on a host that may be broken.
#include <gtest/gtest.h>
#include <unistd.h>

#include <iostream>

#include "base/log.h"
#include "base/process.h"
#include "filter/tracker.h"
#include "suite.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (testing::GTEST_FLAG(list_tests)) return RUN_ALL_TESTS();
  ferry::log_setup(false);
  spdlog::set_level(spdlog::level::warn);
  if (geteuid() != 0) {
    std::cerr << "the kernel suite needs root, on a host that may be broken\n";
    return 1;
  }
  auto version = ferry::filter::module_version();
  if (!version.ok() || !version->fits()) {
    std::cerr << (version.ok() ? "the loaded dm-ferry module has another ABI"
                               : version.error().message())
              << '\n';
    return 1;
  }
  for (const char* module : {"dm-delay", "dm-flakey", "dm-zero", "loop"})
    (void)ferry::run_process({"modprobe", module});
  // GoogleTest deletes them, and ends them last first.
  if (!ferry::kmod::bugs_are_planted())
    testing::AddGlobalTestEnvironment(new ferry::kmod::DebugKernel);
  testing::AddGlobalTestEnvironment(new ferry::kmod::BaseVolume);
  return RUN_ALL_TESTS();
}
