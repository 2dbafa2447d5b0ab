// SPDX-License-Identifier: GPL-2.0-or-later
// Decides after each round whether another one pays, whether it is time to switch over, or whether the
// guest writes faster than the link carries. Works on measured bytes and times only.
// Thread-safety: none; owned by one Source.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "migration/ports.h"

namespace ferry::migration {

struct RoundReport {
  std::uint64_t sent_bytes = 0;      // payload that the round covered, zeroes included
  Duration took{0};
  std::uint64_t residual_bytes = 0;  // dirty now, at the end of the round
};

// A job that makes no progress still switches over when the wait stays within this many downtimes.
inline constexpr int kStallAllowance = 5;

struct ConvergencePolicy {
  Duration max_downtime{std::chrono::milliseconds(300)};
  std::uint64_t memory_bytes = 0;    // what the hypervisor has to move besides
  unsigned stall_rounds = 6;         // rounds without progress before a verdict
};

enum class Verdict { another_round, switch_over, give_up };

class Convergence {
 public:
  explicit Convergence(ConvergencePolicy policy) : policy_(policy) {}

  Verdict observe(const RoundReport& report);
  // Why the last verdict was reached, for the log and the client.
  const std::string& reason() const { return reason_; }
  // Bytes per second of payload, smoothed; 0 before the first round.
  double rate() const { return rate_; }
  // Time that the present residual would take, at the measured rate.
  std::optional<Duration> residual_time() const;

 private:
  ConvergencePolicy policy_;
  double rate_ = 0;
  std::uint64_t residual_ = 0;
  std::uint64_t best_ = 0;
  bool first_ = true;
  unsigned stalled_ = 0;
  std::string reason_;
};

}  // namespace ferry::migration
