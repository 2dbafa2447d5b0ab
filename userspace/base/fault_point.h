// SPDX-License-Identifier: GPL-2.0-or-later
// Named places at which a test may crash, hang or delay a process, or lose or repeat a message. The program only calls
// functions that nobody defines: in production they do nothing. A test preloads a library that defines them (tests/fault).
// Thread-safety: any thread.
#pragma once

#include <string>

extern "C" void ferry_fault_point(const char* name) __attribute__((weak));
// What becomes of a message to the peer: how often it is sent (0 to 2).
extern "C" int ferry_fault_message(const char* type) __attribute__((weak));

namespace ferry {

inline void fault_point(const std::string& name) {
  if (ferry_fault_point) ferry_fault_point(name.c_str());
}

inline int times_to_send(const std::string& type) { return ferry_fault_message ? ferry_fault_message(type.c_str()) : 1; }

}  // namespace ferry
