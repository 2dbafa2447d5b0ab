// SPDX-License-Identifier: GPL-2.0-or-later
// BusyWriter: keeps many direct 4 KiB writes in flight through io_uring, like a guest's disk queue,
// and can tell afterwards what every block must contain. Start, let it run, stop, verify.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"

namespace ferry::kmod {

class BusyWriter {
 public:
  struct Plan {
    std::string path;
    uint64_t nr_blocks = 0;
    unsigned depth = 32;
    bool each_block_once = false;  // then it ends by itself; else random blocks until stop()
    int pause_ms = 0;  // between completions: leaves the processor to others on emulated hosts
  };

  explicit BusyWriter(const Plan& plan);
  BusyWriter(const BusyWriter&) = delete;
  BusyWriter& operator=(const BusyWriter&) = delete;
  ~BusyWriter();

  // Waits for the writes in flight and ends.
  void stop();
  bool is_running() const { return running_; }
  uint64_t completed() const { return completed_; }
  uint64_t errors() const { return errors_; }
  // What happened between begin_period() and end_period(), as the writer itself saw it.
  struct Period {
    std::set<uint64_t> written;  // submitted and completed inside
    std::vector<std::chrono::nanoseconds> latencies;  // of all that completed inside
  };
  void begin_period();
  Period end_period();
  // After stop(): blocks of `fd` that do not hold what was written last.
  uint64_t count_wrong_blocks(int fd) const;

  // What a block holds after its n-th write (n = 0: never written, zeroes).
  static void fill(uint64_t block, uint64_t generation, void* data);

 private:
  void work();
  void note(uint64_t block, uint32_t period, std::chrono::nanoseconds latency);

  Plan plan_;
  Fd fd_;
  std::vector<uint64_t> generations_;  // of each block: writes acknowledged or in flight
  std::atomic<uint64_t> completed_{0};
  std::atomic<uint64_t> errors_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> running_{true};
  std::atomic<uint32_t> period_{0};
  std::mutex lock_;
  std::set<uint64_t> written_;                        // lock_
  std::vector<std::chrono::nanoseconds> latencies_;   // lock_; of the present period
  std::thread thread_;
};

}  // namespace ferry::kmod
