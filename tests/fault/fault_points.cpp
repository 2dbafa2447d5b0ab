// SPDX-License-Identifier: GPL-2.0-or-later
// Preloaded into ferryd by the fault scenarios: makes the process crash or hang at one named point, or lose or repeat
// one message, once. /run/ferry-fault says which, in a line for each; the line is taken away when it has struck, so that
// the next start goes on undisturbed.
//   crash NAME, hang NAME         NAME: a change of state of docs/ownership.md after the side's, as in
//                                 "source: committing -> granting"
//   drop message: TYPE, duplicate message: TYPE      TYPE: a control message of docs/protocol.md
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace {

constexpr const char* kPlan = "/run/ferry-fault";

// False when the plan cannot be written: then nothing may strike, or it would again and again.
bool write_plan(const std::vector<std::string>& lines) {
  if (lines.empty()) return ::unlink(kPlan) == 0;
  const std::string fresh = std::string(kPlan) + ".new";
  std::ofstream file(fresh);
  for (const auto& line : lines) file << line << '\n';
  file.close();
  return file && ::rename(fresh.c_str(), kPlan) == 0;
}

// What is to happen at this place, if anything is.
std::optional<std::string> strike(const std::string& place) {
  std::ifstream file(kPlan);
  std::optional<std::string> fault;
  std::vector<std::string> left;
  for (std::string line; std::getline(file, line);) {
    const auto space = line.find(' ');
    if (!fault && space != std::string::npos && line.substr(space + 1) == place)
      fault = line.substr(0, space);
    else
      left.push_back(line);
  }
  if (!fault || !write_plan(left)) return std::nullopt;
  std::fprintf(stderr, "fault point: %s %s\n", fault->c_str(), place.c_str());
  return fault;
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
