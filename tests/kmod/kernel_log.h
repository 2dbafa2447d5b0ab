// SPDX-License-Identifier: GPL-2.0-or-later
// What the kernel tells of itself: its log while a test runs, and the findings of the debug kernels
// that stand elsewhere. One thread.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"

namespace ferry::kmod {

// Lines of the kernel's log since mark().
class KernelLog {
 public:
  KernelLog();
  void mark();
  // Lines that tell of a fault in the kernel or an error of the filter. A data race (KCSAN) counts
  // when the filter's code appears in its report: Debian's 6.1 has hundreds of its own.
  std::vector<std::string> faults(bool allow_ferry_errors);

 private:
  Fd fd_;
};

// Memory that the filter allocated and nobody points to any more: kmemleak's records that name it,
// since forget_leaks(). Empty on kernels without kmemleak. Takes seconds.
std::string leaks_of_ferry();
void forget_leaks();

// False when this kernel has lockdep and it has turned itself off: nothing is checked then.
bool lockdep_is_on();

// The module of planted bugs is loaded: this boot is for planted_test.cpp and nothing else.
bool bugs_are_planted();

// Writes into a file of the kernel's settings; false when it does not take it.
bool put(const std::string& path, const std::string& text);

// debugfs, mounted where it is missing.
std::string debugfs(const std::string& path);

}  // namespace ferry::kmod
