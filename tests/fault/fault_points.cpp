// SPDX-License-Identifier: GPL-2.0-or-later
// Preloaded into ferryd by the fault scenarios: makes the process crash or hang at one named point, or lose or repeat
// one message, once. /run/ferry-fault says which, in one line; it is taken away when it has struck, so that the next
// start goes on undisturbed.
//   crash NAME, hang NAME         NAME: a change of state of docs/ownership.md after the side's, as in
//                                 "source: committing -> granting"
//   drop message: TYPE, duplicate message: TYPE      TYPE: a control message of docs/protocol.md
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>

namespace {

// What is to happen at this place, if anything is.
std::optional<std::string> strike(const std::string& place) {
  constexpr const char* kPlan = "/run/ferry-fault";
  std::ifstream file(kPlan);
  std::string plan;
  if (!std::getline(file, plan)) return std::nullopt;
  const auto space = plan.find(' ');
  if (space == std::string::npos || plan.substr(space + 1) != place) return std::nullopt;
  if (::unlink(kPlan) != 0) return std::nullopt;
  std::fprintf(stderr, "fault point: %s\n", plan.c_str());
  return plan.substr(0, space);
}

}  // namespace

extern "C" void ferry_fault_point(const char* name) {
  const auto fault = strike(name);
  if (fault == "crash") ::kill(::getpid(), SIGKILL);
  if (fault == "hang") ::kill(::getpid(), SIGSTOP);
}

extern "C" int ferry_fault_message(const char* type) {
  const auto fault = strike(std::string("message: ") + type);
  return fault == "drop" ? 0 : fault == "duplicate" ? 2 : 1;
}
