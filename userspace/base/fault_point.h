// SPDX-License-Identifier: GPL-2.0-or-later
// A named place at which a test may crash, hang or delay a process. The program only calls a function that nobody
// defines: in production it does nothing. A test preloads a library that defines it (tests/fault).
// Thread-safety: any thread.
#pragma once

#include <string>

extern "C" void ferry_fault_point(const char* name) __attribute__((weak));

namespace ferry {

inline void fault_point(const std::string& name) {
  if (ferry_fault_point) ferry_fault_point(name.c_str());
}

}  // namespace ferry
