// SPDX-License-Identifier: GPL-2.0-or-later
// For tests: a child process with a pipe to report on, and a small file system to fill.
// TestChild kills what still runs when it goes. Thread-safety: one thread; not movable.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>

#include "base/fd.h"

namespace ferry::store {

class TestChild {
 public:
  static constexpr int kSkip = 77;

  // `body` gets the pipe's writing end; what it returns is the exit status.
  explicit TestChild(const std::function<int(int report)>& body) {
    int ends[2] = {-1, -1};
    if (::pipe(ends) != 0) return;
    report_ = Fd(ends[0]);
    Fd writing(ends[1]);
    pid_ = ::fork();
    if (pid_ != 0) return;
    report_.reset();
    ::_exit(body(writing.get()));
  }
  TestChild(const TestChild&) = delete;
  TestChild& operator=(const TestChild&) = delete;
  ~TestChild() { kill(); }

  // The next report; false when the child is gone and has none left.
  template <typename T>
  bool read(T& value) {
    return ::read(report_.get(), &value, sizeof value) == sizeof value;
  }
  void kill() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    wait();
  }
  // Exit status, -1 when a signal ended it.
  int wait() {
    int status = 0;
    if (pid_ <= 0 || ::waitpid(pid_, &status, 0) != pid_) return -1;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  Fd report_;
  pid_t pid_ = -1;
};

// Gives the calling process mounts of its own and puts a tmpfs of so many bytes on `directory`; only a process with
// one thread may call it. False when it is not allowed to.
inline bool mount_small_tmpfs(const std::string& directory, unsigned size_bytes) {
  if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  const std::string options = "size=" + std::to_string(size_bytes) + ",mode=0777";
  return ::mount("ferry-test", directory.c_str(), "tmpfs", 0, options.c_str()) == 0;
}

}  // namespace ferry::store
