// SPDX-License-Identifier: GPL-2.0-or-later
// RandomWriter: a guest's whole repertoire at once: writes of one sector to 64 blocks, on and off
// block boundaries, with and without FUA, many in flight; and beside them discards, zeroes and
// flushes. What the disk holds in the end is not foreseen: compare the disk with a copy.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "base/fd.h"

namespace ferry::kmod {

class RandomWriter {
 public:
  struct Plan {
    std::string path;
    uint64_t size_bytes = 0;
    unsigned depth = 64;
    uint64_t seed = 1;
  };

  explicit RandomWriter(const Plan& plan);
  RandomWriter(const RandomWriter&) = delete;
  RandomWriter& operator=(const RandomWriter&) = delete;
  ~RandomWriter();

  // Waits for what is in flight and ends.
  void stop();
  uint64_t completed() const { return writes_ + fua_; }
  uint64_t errors() const { return errors_; }
  // For people: how many of each kind.
  std::string counts() const;

 private:
  void write();
  void others();

  Plan plan_;
  Fd fd_;
  std::atomic<uint64_t> writes_{0}, fua_{0}, discards_{0}, zeroes_{0}, flushes_{0}, errors_{0};
  std::atomic<bool> stop_{false};
  std::thread writer_, other_;
};

}  // namespace ferry::kmod
