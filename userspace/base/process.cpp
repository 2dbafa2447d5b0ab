// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "base/fd.h"

extern char** environ;

namespace ferry {
namespace {

using Clock = std::chrono::steady_clock;

struct Pipe {
  Fd read, write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return sys_error("cannot make a pipe", errno);
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

// Kills and reaps the child unless it was reaped already.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      reap();
    }
  }
  int reap() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  pid_t pid_;
};

std::vector<std::string> c_locale_environment() {
  std::vector<std::string> result;
  for (char** entry = environ; entry && *entry; ++entry)
    if (std::strncmp(*entry, "LC_", 3) != 0 && std::strncmp(*entry, "LANG", 4) != 0)
      result.emplace_back(*entry);
  result.emplace_back("LC_ALL=C");
  return result;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

class SpawnActions {
 public:
  SpawnActions() { posix_spawn_file_actions_init(&actions_); }
  SpawnActions(const SpawnActions&) = delete;
  SpawnActions& operator=(const SpawnActions&) = delete;
  ~SpawnActions() { posix_spawn_file_actions_destroy(&actions_); }
  posix_spawn_file_actions_t* get() { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

Result<pid_t> spawn(const std::vector<std::string>& argv, const Pipe& out, const Pipe& err) {
  std::vector<std::string> arguments = argv;
  std::vector<std::string> environment = c_locale_environment();
  SpawnActions actions;
  int code = posix_spawn_file_actions_addopen(actions.get(), 0, "/dev/null", O_RDONLY, 0);
  if (code == 0) code = posix_spawn_file_actions_adddup2(actions.get(), out.write.get(), 1);
  if (code == 0) code = posix_spawn_file_actions_adddup2(actions.get(), err.write.get(), 2);
  pid_t pid = -1;
  if (code == 0)
    code = posix_spawnp(&pid, argv[0].c_str(), actions.get(), nullptr,
                        pointers_to(arguments).data(), pointers_to(environment).data());
  if (code != 0)
    return sys_error("cannot run " + argv[0], code,
                     code == ENOENT ? "install the package that provides it" : "");
  return pid;
}

// One read; false at the end of the stream.
bool take_some(Fd& fd, std::string& text, ProcessOutput& output, size_t limit) {
  std::array<char, 16384> buffer;
  ssize_t got = read(fd.get(), buffer.data(), buffer.size());
  if (got < 0) return errno == EINTR || errno == EAGAIN;
  if (got == 0) return false;
  size_t room = limit > text.size() ? limit - text.size() : 0;
  size_t kept = std::min(room, static_cast<size_t>(got));
  text.append(buffer.data(), kept);
  if (kept < static_cast<size_t>(got)) output.truncated = true;
  return true;
}

}  // namespace

Result<ProcessOutput> run_process(const std::vector<std::string>& argv,
                                  const ProcessOptions& options) {
  if (argv.empty()) return make_error(Errc::usage, "cannot run a program without a name");
  auto out = make_pipe();
  if (!out.ok()) return std::move(out).error();
  auto err = make_pipe();
  if (!err.ok()) return std::move(err).error();
  auto pid = spawn(argv, *out, *err);
  if (!pid.ok()) return std::move(pid).error();
  Child child(*pid);
  out->write.reset();
  err->write.reset();

  ProcessOutput output;
  auto deadline = Clock::now() + std::chrono::milliseconds(options.timeout_ms);
  while (out->read.valid() || err->read.valid()) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    std::array<pollfd, 2> waits{{{out->read.get(), POLLIN, 0}, {err->read.get(), POLLIN, 0}}};
    int ready = left.count() <= 0 ? 0 : poll(waits.data(), 2, static_cast<int>(left.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0)
      return make_error(Errc::timeout, argv[0] + " did not end within " +
                        std::to_string(options.timeout_ms / 1000) + " s");
    if (waits[0].revents && !take_some(out->read, output.out, output, options.max_output_bytes))
      out->read.reset();
    if (waits[1].revents && !take_some(err->read, output.err, output, options.max_output_bytes))
      err->read.reset();
  }
  output.exit_status = child.reap();
  return output;
}

}  // namespace ferry
