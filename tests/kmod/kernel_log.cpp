// SPDX-License-Identifier: GPL-2.0-or-later
#include "kernel_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

namespace ferry::kmod {
namespace {

// The names of the filter's modules in a call trace; also that of its planted bugs.
constexpr char kOurFrame[] = "[dm_ferry";

bool has(const std::string& text, const char* word) { return text.find(word) != std::string::npos; }

bool is_fault(const std::string& line) {
  for (const char* word : {"BUG:", "WARNING:", "Oops", "general protection", "Call Trace", "KASAN",
                           "UBSAN", "ODEBUG", "blocked for more than", "suspicious RCU",
                           "possible circular locking", "refcount_t:", "list_add corruption",
                           "list_del corruption", "soft lockup", "detected stalls"})
    if (has(line, word)) return true;
  return false;
}

// Follows the reports of KCSAN, which are longer than one line.
class RaceReports {
 public:
  explicit RaceReports(std::vector<std::string>& found) : found_(found) {}
  ~RaceReports() { end(); }
  // True when the line is the title of a report: it is judged by what follows.
  bool takes(const std::string& line) {
    if (has(line, "BUG: KCSAN")) {
      end();
      title_ = line;
    }
    if (!title_.empty()) ours_ |= has(line, kOurFrame);
    if (line.starts_with("====") && !title_.empty()) end();
    return has(line, "BUG: KCSAN");
  }

 private:
  void end() {
    if (ours_) found_.push_back(title_);
    title_.clear();
    ours_ = false;
  }

  std::vector<std::string>& found_;
  std::string title_;
  bool ours_ = false;
};

}  // namespace

bool put(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  return file.good();
}

KernelLog::KernelLog() : fd_(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {}

void KernelLog::mark() {
  ASSERT_TRUE(fd_.valid()) << "cannot read /dev/kmsg: run as root";
  lseek(fd_.get(), 0, SEEK_END);
}

std::vector<std::string> KernelLog::faults(bool allow_ferry_errors) {
  std::vector<std::string> found;
  RaceReports races(found);
  std::array<char, 8192> record;
  for (;;) {
    ssize_t got = read(fd_.get(), record.data(), record.size());
    if (got < 0 && errno == EPIPE) {
      found.push_back("(older records were overwritten before they were read)");
      continue;
    }
    if (got <= 0) break;
    std::string text(record.data(), static_cast<size_t>(got));
    int priority = std::atoi(text.c_str());
    if (priority >> 3 != 0) continue;  // a program's words, not the kernel's
    std::string line = text.substr(std::min(text.find(';') + 1, text.size()));
    if (races.takes(line)) continue;
    bool ferry_error = (priority & 7) <= 3 && has(line, "ferry:");
    if (is_fault(line) || (ferry_error && !allow_ferry_errors)) found.push_back(line);
  }
  return found;
}

std::string debugfs(const std::string& path) {
  constexpr char kRoot[] = "/sys/kernel/debug/";
  std::error_code missing;
  if (std::filesystem::is_empty(kRoot, missing)) (void)mount("none", kRoot, "debugfs", 0, nullptr);
  return kRoot + path;
}

void forget_leaks() { (void)put(debugfs("kmemleak"), "clear"); }

std::string leaks_of_ferry() {
  std::string file = debugfs("kmemleak");
  if (!std::filesystem::exists(file)) return "";
  // kmemleak keeps silent about what is younger than five seconds (MSECS_MIN_AGE), and about what
  // has changed since the scan before: so twice, which takes a minute on an emulated host.
  std::this_thread::sleep_for(std::chrono::seconds(6));
  for (int i = 0; i < 2; ++i) put(file, "scan");
  std::string found, record;
  std::ifstream records(file);
  auto end = [&] {
    if (has(record, kOurFrame)) found += record;
    record.clear();
  };
  for (std::string line; std::getline(records, line); record += line + '\n')
    if (line.starts_with("unreferenced object")) end();
  end();
  return found;
}

bool bugs_are_planted() { return std::filesystem::exists("/sys/module/dm_ferry_planted"); }

bool lockdep_is_on() {
  std::ifstream stats("/proc/lockdep_stats");
  for (std::string word; stats >> word;)
    if (int on = 0; word == "debug_locks:" && stats >> on) return on == 1;
  return true;  // no lockdep here
}

}  // namespace ferry::kmod
