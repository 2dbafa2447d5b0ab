// SPDX-License-Identifier: GPL-2.0-or-later
#include "progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/fake_backend.h"
#include "report.h"

namespace ferry::ctl {
namespace {

using testing::HasSubstr;

TEST(BarLine, ShowsEverythingWhenThereIsRoom) {
  const auto line = bar_line(api::sample_job(), 200);
  for (const char* part : {"web1 -> hostb:7391", "pre-copy round 2", "61.2 %", "112 MiB/s",
                           "ETA 12.0 s", "left 608 MiB", "dirty 16.0 MiB", "downtime ~80 ms"})
    EXPECT_THAT(line, HasSubstr(part));
  // 40 columns of bar, 61.2 % of them full.
  EXPECT_THAT(line, HasSubstr("[" + std::string(24, '#') + std::string(16, '-') + "]"));
}

TEST(BarLine, NeverWiderThanTheTerminal) {
  for (size_t width = 0; width < 150; ++width)
    EXPECT_LT(bar_line(api::sample_job(), width).size(), std::max<size_t>(width, 1)) << width;
  EXPECT_THAT(bar_line(api::sample_job(), 80), HasSubstr("61.2 %"));
}

TEST(BarLine, StrangeFigures) {
  auto job = api::sample_job();
  job.progress = 7;                      // a daemon's slip must not become ours
  job.disks[0].bytes_sent = job.disks[0].bytes_total + 1;
  job.vm = "evil\033[2J";
  EXPECT_THAT(bar_line(job, 120), HasSubstr("evil?[2J"));
  EXPECT_LT(left_bytes(job), 1ULL << 40);
}

TEST(ProgressJson, SumsTheDisks) {
  const auto json = progress_json(api::sample_job());
  EXPECT_EQ(json["bytes_sent"], 2ull * (2100ull << 20));
  EXPECT_EQ(json["eta_ms"], 12'000);
}

TEST(ExitCode, FollowsTheJob) {
  EXPECT_EQ(exit_code_of(api::finished_job()), 0);
  for (const Errc code : {Errc::failed, Errc::busy, Errc::not_converged, Errc::verify_mismatch,
                          Errc::cleanup_incomplete, Errc::owner_unknown})
    EXPECT_EQ(exit_code_of(api::failed_job(code)), exit_code(code));
  auto job = api::finished_job();
  job.error = make_error(Errc::cleanup_incomplete, "left behind: /dev/vg0/x");
  EXPECT_EQ(exit_code_of(job), 7);
  job = api::failed_job(Errc::failed, api::Owner::unknown);
  job.error.reset();
  EXPECT_EQ(exit_code_of(job), 8);
}

}  // namespace
}  // namespace ferry::ctl
