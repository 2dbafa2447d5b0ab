// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/control_loop.h"

namespace ferry::daemon {

ControlLoop::ControlLoop() : thread_([this] { run(); }) {}

ControlLoop::~ControlLoop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void ControlLoop::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_all();
}

void ControlLoop::post_after(Clock::duration delay, std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    delayed_.emplace(Clock::now() + delay, std::move(task));
  }
  wake_.notify_all();
}

void ControlLoop::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (!delayed_.empty() && delayed_.begin()->first <= Clock::now()) {
      tasks_.push_back(std::move(delayed_.begin()->second));
      delayed_.erase(delayed_.begin());
    }
    if (!tasks_.empty()) {
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      task = nullptr;  // what it captured dies without the lock
      lock.lock();
      continue;
    }
    if (stopping_) return;
    if (delayed_.empty())
      wake_.wait(lock);
    else
      wake_.wait_until(lock, delayed_.begin()->first);
  }
}

Worker::Worker() : thread_([this] { run(); }) {}

Worker::~Worker() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Worker::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_all();
}

void Worker::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

}  // namespace ferry::daemon
