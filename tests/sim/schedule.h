// SPDX-License-Identifier: GPL-2.0-or-later
// The simulated clock and what is due when. A task may depend on a life (of a daemon, a host, a guest): when
// its counter has moved on, the task is dropped, as work dies with the process that was to do it.
// Tasks due at the same time run in the order in which they were planned.
// Thread-safety: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <queue>
#include <type_traits>
#include <vector>

namespace ferry::sim {

using Time = std::int64_t;  // nanoseconds since the world began
inline constexpr Time kMicrosecond = 1'000, kMillisecond = 1'000'000, kSecond = 1'000'000'000;

// A closure without memory of its own: some hundred million of them are made in a long run.
class Task {
 public:
  Task() = default;
  template <typename F>
  Task(F f) : run_([](std::byte* data) { (*std::launder(reinterpret_cast<F*>(data)))(); }) {
    static_assert(sizeof(F) <= sizeof data_ && std::is_trivially_copyable_v<F>);
    new (data_) F(f);
  }
  void operator()() { run_(data_); }

 private:
  alignas(8) std::byte data_[88];
  void (*run_)(std::byte*) = nullptr;
};

using Life = std::uint32_t;

class Schedule {
 public:
  Time now() const { return now_; }
  std::uint64_t steps() const { return steps_; }

  // `life` must outlive the schedule; nullptr: whatever happens.
  void after(Time delay, const Life* life, Task task) {
    std::uint32_t slot;
    if (free_.empty()) {
      slot = static_cast<std::uint32_t>(slots_.size());
      slots_.push_back({task, life, life ? *life : 0});
    } else {
      slot = free_.back();
      free_.pop_back();
      slots_[slot] = {task, life, life ? *life : 0};
    }
    due_.push({now_ + (delay < 0 ? 0 : delay), order_++, slot});
  }

  // Runs the next task that is due up to `until`; false when there is none.
  bool step(Time until) {
    while (!due_.empty() && due_.top().at <= until) {
      const Due due = due_.top();
      due_.pop();
      Slot slot = slots_[due.slot];
      free_.push_back(due.slot);
      if (slot.life && *slot.life != slot.value) continue;
      now_ = due.at;
      ++steps_;
      slot.task();
      return true;
    }
    if (now_ < until) now_ = until;
    return false;
  }

 private:
  struct Due {
    Time at;
    std::uint64_t order;
    std::uint32_t slot;
    bool operator<(const Due& other) const {  // the queue's top is the largest
      return at != other.at ? at > other.at : order > other.order;
    }
  };
  struct Slot {
    Task task;
    const Life* life;
    Life value;
  };

  std::priority_queue<Due> due_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  Time now_ = 0;
  std::uint64_t order_ = 0, steps_ = 0;
};

}  // namespace ferry::sim
