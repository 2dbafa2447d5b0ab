// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/convergence.h"

#include <fmt/format.h>

#include <algorithm>

namespace ferry::migration {
namespace {

// A round counts as progress when it leaves less than this part of the best residual so far.
constexpr double kProgress = 0.96;
// Weight of the newest round in the smoothed rate.
constexpr double kNewest = 0.4;

double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

std::optional<Duration> Convergence::residual_time() const {
  if (rate_ <= 0) return std::nullopt;
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(static_cast<double>(residual_) / rate_));
}

Verdict Convergence::observe(const RoundReport& report) {
  const double took = seconds(report.took);
  if (report.sent_bytes > 0 && took > 0) {
    const double measured = static_cast<double>(report.sent_bytes) / took;
    // Small late rounds measure latency, not the link: they may not pull the rate down.
    rate_ = rate_ <= 0 ? measured : std::max(rate_ * (1 - kNewest) + measured * kNewest, rate_ * 0.5);
  }
  residual_ = report.residual_bytes;
  if (first_ || static_cast<double>(residual_) < kProgress * static_cast<double>(best_)) {
    best_ = residual_;
    stalled_ = 0;
  } else {
    ++stalled_;
  }
  first_ = false;

  // A first round that found everything there already has measured nothing.
  if (rate_ <= 0 && residual_ > 0) {
    reason_ = fmt::format("{} KiB are left, and no rate is known yet", residual_ / 1024);
    return Verdict::another_round;
  }
  const double wait = residual_time() ? seconds(*residual_time()) : 0;
  const double budget = seconds(policy_.max_downtime);
  const double memory_time = rate_ > 0 ? static_cast<double>(policy_.memory_bytes) / rate_ : 0;
  // The disks' rounds go on while memory is moved, so half of that time is a safe place to start it.
  const double threshold = std::max(budget, memory_time / 2);
  if (wait <= threshold) {
    reason_ = fmt::format("{} KiB are left, {:.0f} ms at the measured rate, within {:.0f} ms",
                          residual_ / 1024, wait * 1e3, threshold * 1e3);
    return Verdict::switch_over;
  }
  if (stalled_ < policy_.stall_rounds) {
    reason_ = fmt::format("{} KiB are left, {:.0f} ms at the measured rate", residual_ / 1024,
                          wait * 1e3);
    return Verdict::another_round;
  }
  if (wait <= kStallAllowance * budget) {
    reason_ = fmt::format("no progress in {} rounds, but the rest takes only {:.0f} ms", stalled_,
                          wait * 1e3);
    return Verdict::switch_over;
  }
  reason_ = fmt::format(
      "no progress in {} rounds: {} KiB stay dirty, {:.0f} ms at the measured rate, allowed are {:.0f}",
      stalled_, residual_ / 1024, wait * 1e3, budget * 1e3);
  return Verdict::give_up;
}

}  // namespace ferry::migration
