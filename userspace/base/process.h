// SPDX-License-Identifier: GPL-2.0-or-later
// Runs one program without a shell and collects what it says. The child never outlives the call: it
// is killed at the deadline. Thread-safety: calls are independent of each other.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry {

struct ProcessOutput {
  int exit_status = 0;  // 0…255, or 128 + signal
  std::string out;
  std::string err;
  bool truncated = false;  // more came than was kept
};

struct ProcessOptions {
  int timeout_ms = 60'000;
  size_t max_output_bytes = size_t{4} << 20;  // of each stream; the rest is read and dropped
};

// argv[0] is looked up in PATH. The environment is the caller's with LC_ALL=C, so that messages can
// be recognised. A non-zero exit status is no error here; not being able to start, or a timeout,
// is one.
Result<ProcessOutput> run_process(const std::vector<std::string>& argv,
                                  const ProcessOptions& options = {});

}  // namespace ferry
