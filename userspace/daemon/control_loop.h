// SPDX-License-Identifier: GPL-2.0-or-later
// ControlLoop: the one thread that owns all machines and job states. Everybody else posts functions to it;
// they run one after the other, in order; delayed ones when their time has come.
// Thread-safety: post, post_after and call from any thread (call not from the loop itself).
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <thread>

namespace ferry::daemon {

class ControlLoop {
 public:
  using Clock = std::chrono::steady_clock;

  ControlLoop();
  // Runs what was posted before, drops what is delayed.
  ~ControlLoop();
  ControlLoop(const ControlLoop&) = delete;

  void post(std::function<void()> task);
  void post_after(Clock::duration delay, std::function<void()> task);
  // Runs `question` on the loop and waits for its answer.
  template <typename F>
  auto call(F question) -> decltype(question()) {
    std::promise<decltype(question())> answer;
    auto future = answer.get_future();
    post([&] { answer.set_value(question()); });
    return future.get();
  }

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  std::multimap<Clock::time_point, std::function<void()>> delayed_;
  bool stopping_ = false;
  std::thread thread_;
};

// Worker: one thread for calls that block; tasks run in order. Destruction finishes all of them.
class Worker {
 public:
  Worker();
  ~Worker();
  Worker(const Worker&) = delete;
  void post(std::function<void()> task);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace ferry::daemon
