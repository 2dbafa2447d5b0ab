// SPDX-License-Identifier: GPL-2.0-or-later
// Child: migrate-ctl as a process of its own, for the tests: what it printed, how it ended, and
// signals to it. Ownership: the destructor kills and reaps it. Thread-safety: one test thread.
#pragma once

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/fd.h"

namespace ferry::ctl {

// Collects what a descriptor delivers and lets others wait for a text in it.
class Collector {
 public:
  explicit Collector(Fd fd) : fd_(std::move(fd)), thread_([this] { run(); }) {}

  bool wait_for(const std::string& part, std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    const auto seen = [&] { return text_.find(part) != std::string::npos; };
    changed_.wait_for(lock, timeout, [&] { return ended_ || seen(); });
    return seen();
  }
  std::string text_at_end() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(30), [&] { return ended_; });
    return text_;
  }

 private:
  void run() {
    char part[4096];
    // A pty answers EIO instead of an end.
    for (ssize_t n; (n = ::read(fd_.get(), part, sizeof part)) > 0;) {
      std::lock_guard lock(mutex_);
      text_.append(part, static_cast<size_t>(n));
      changed_.notify_all();
    }
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  Fd fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
  bool ended_ = false;
  std::jthread thread_;
};

// terminal: stdin is one, too, as for somebody at a keyboard. Else there is nobody: stdin is empty.
enum class Stderr { pipe, terminal };

class Child {
 public:
  Child(std::vector<std::string> args, Stderr kind = Stderr::pipe, uid_t uid = 0) {
    args.insert(args.begin(), MIGRATE_CTL);
    auto [out_read, out_write] = make_pipe();
    auto [err_read, err_write] = kind == Stderr::pipe ? make_pipe() : make_terminal();
    std::vector<char*> argv;
    for (auto& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    Fd in(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (kind == Stderr::terminal) in = Fd(::fcntl(err_write.get(), F_DUPFD_CLOEXEC, 0));
    if (kind == Stderr::terminal) keyboard_ = Fd(::fcntl(err_read.get(), F_DUPFD_CLOEXEC, 0));
    // By descriptor: another user may not be able to walk to the build directory.
    const Fd program(::open(MIGRATE_CTL, O_RDONLY | O_CLOEXEC));
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in.get(), STDIN_FILENO);
      ::dup2(out_write.get(), STDOUT_FILENO);
      ::dup2(err_write.get(), STDERR_FILENO);
      ::unsetenv("NO_COLOR");
      ::setenv("TERM", "xterm", 1);
      if (uid != 0 && (::setgid(uid) != 0 || ::setuid(uid) != 0)) ::_exit(99);
      ::fexecve(program.get(), argv.data(), environ);
      ::_exit(98);
    }
    in.reset();
    out_write.reset();
    err_write.reset();
    out_ = std::make_unique<Collector>(std::move(out_read));
    err_ = std::make_unique<Collector>(std::move(err_read));
  }
  Child(Child&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        keyboard_(std::move(other.keyboard_)),
        out_(std::move(other.out_)),
        err_(std::move(other.err_)) {}
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  void signal(int number) const { ::kill(pid_, number); }
  // A line from the keyboard; only on a terminal.
  void type(const std::string& line) const {
    const std::string bytes = line + "\n";
    if (::write(keyboard_.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
  }
  // Exit status, or -signal. A child that does not end within a minute is killed.
  int wait() {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    int status = 0;
    out_->text_at_end();  // both ends close with the process
    err_->text_at_end();
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > give_up) ::kill(pid_, SIGKILL);
      std::this_thread::yield();
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  bool wait_for_err(const std::string& part,
                    std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    return err_->wait_for(part, timeout);
  }
  std::string out() { return out_->text_at_end(); }
  std::string err() { return err_->text_at_end(); }

 private:
  static std::pair<Fd, Fd> make_pipe() {
    int fds[2] = {-1, -1};
    if (::pipe2(fds, O_CLOEXEC) != 0) std::abort();
    return {Fd(fds[0]), Fd(fds[1])};
  }
  static std::pair<Fd, Fd> make_terminal() {
    int master = -1;
    int slave = -1;
    const winsize size{25, 100, 0, 0};
    if (::openpty(&master, &slave, nullptr, nullptr, &size) != 0) std::abort();
    ::fcntl(master, F_SETFD, FD_CLOEXEC);
    ::fcntl(slave, F_SETFD, FD_CLOEXEC);
    return {Fd(master), Fd(slave)};
  }

  pid_t pid_ = -1;
  Fd keyboard_;
  std::unique_ptr<Collector> out_;
  std::unique_ptr<Collector> err_;
};

}  // namespace ferry::ctl
