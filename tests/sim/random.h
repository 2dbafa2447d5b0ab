// SPDX-License-Identifier: GPL-2.0-or-later
// The only source of chance in the simulator: everything of a run comes from one seed.
// Thread-safety: none; each world has its own.
#pragma once

#include <cstdint>

namespace ferry::sim {

class Random {
 public:
  // Neighbouring seeds begin far from each other.
  explicit Random(std::uint64_t seed) : state_(seed) { state_ = next() ^ (next() << 1); }

  std::uint64_t next() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // 0 … n - 1; n > 0.
  std::uint32_t below(std::uint32_t n) {
    return static_cast<std::uint32_t>((next() >> 32) * n >> 32);
  }
  std::int64_t between(std::int64_t low, std::int64_t high) {  // both included
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(unsigned percent) { return below(100) < percent; }

 private:
  std::uint64_t state_;
};

}  // namespace ferry::sim
