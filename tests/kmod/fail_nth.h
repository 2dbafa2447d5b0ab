// SPDX-License-Identifier: GPL-2.0-or-later
// FailNth: lets exactly one memory allocation of the calling thread fail in the kernel, the n-th
// from now on (Documentation/fault-injection, fail-nth). Belongs to the thread that made it.
#pragma once

#include <functional>
#include <string>

#include "base/fd.h"

namespace ferry::kmod {

class FailNth {
 public:
  // Arms the n-th allocation (n >= 1).
  explicit FailNth(unsigned n);
  FailNth(const FailNth&) = delete;
  FailNth& operator=(const FailNth&) = delete;
  ~FailNth();
  // Disarms. True when an allocation has failed.
  bool fired();

  // Prepares the kernel: all kinds of allocations may fail, and do so silently. Empty, or why this
  // kernel cannot do it.
  static std::string prepare();

 private:
  Fd fd_;
};

// Runs `operation` again and again, each time with the next allocation failing, until none is left
// to fail; the last run must succeed. `afterwards` sees each result with all allocations working
// again, checks what is left and puts everything back for the next run. Prints how many there were.
void fail_each_allocation(const std::string& what, const std::function<bool()>& operation,
                          const std::function<void(bool ok)>& afterwards);

}  // namespace ferry::kmod
