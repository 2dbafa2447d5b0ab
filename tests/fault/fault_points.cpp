// SPDX-License-Identifier: GPL-2.0-or-later
// Preloaded into ferryd by the fault scenarios: makes the process crash or hang at one named point, once.
// /run/ferry-fault says which: "crash NAME" or "hang NAME" in one line; it is taken away when it has struck, so that the
// next start goes on undisturbed. Names are those of the changes of state in docs/ownership.md, after the side's:
// "source: committing -> granting".
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

extern "C" void ferry_fault_point(const char* name) {
  constexpr const char* kPlan = "/run/ferry-fault";
  std::ifstream file(kPlan);
  std::string plan;
  if (!std::getline(file, plan)) return;
  const auto space = plan.find(' ');
  if (space == std::string::npos || plan.substr(space + 1) != name) return;
  if (::unlink(kPlan) != 0) return;
  std::fprintf(stderr, "fault point: %s\n", plan.c_str());
  if (plan.compare(0, space, "crash") == 0) ::kill(::getpid(), SIGKILL);
  if (plan.compare(0, space, "hang") == 0) ::kill(::getpid(), SIGSTOP);
}
