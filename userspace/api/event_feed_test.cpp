// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/event_feed.h"

#include <gtest/gtest.h>

#include <thread>

#include "api/fake_backend.h"

namespace ferry::api {
namespace {

using namespace std::chrono_literals;

uint64_t round_of(const JobEventPtr& event) {
  return parse_json(event->line, Errc::protocol)->at("job").at("round").get<uint64_t>();
}

JobStatus in_round(uint64_t round, const std::string& id = "a") {
  JobStatus job = sample_job(id);
  job.round = round;
  return job;
}

TEST(EventFeed, SnapshotThenChanges) {
  EventFeed feed;
  feed.publish(in_round(1, "a"));
  feed.publish(in_round(1, "b"));
  feed.publish(in_round(2, "a"));
  const auto watch = feed.subscribe();
  ASSERT_EQ(watch->snapshot().size(), 2u);
  EXPECT_EQ(watch->snapshot()[1]->job, "a");
  EXPECT_EQ(round_of(watch->snapshot()[1]), 2u);
  EXPECT_EQ(watch->next({}, 0ms), nullptr);
  feed.publish(in_round(3, "a"));
  EXPECT_EQ(round_of(watch->next({}, 0ms)), 3u);
}

TEST(EventFeed, OneJobOnly) {
  EventFeed feed;
  const auto watch = feed.subscribe("a");
  feed.publish(in_round(1, "b"));
  EXPECT_EQ(watch->next({}, 0ms), nullptr);
  feed.publish(in_round(1, "a"));
  EXPECT_NE(watch->next({}, 0ms), nullptr);
}

TEST(EventFeed, SlowWatcherKeepsTheLatestAndTheFinalStates) {
  EventFeed feed;
  const auto watch = feed.subscribe();
  auto ended = failed_job(Errc::io, Owner::source, "gone");
  feed.publish(ended);
  for (uint64_t round = 1; round <= 10'000; ++round) feed.publish(in_round(round));
  EXPECT_EQ(watch->queued(), EventFeed::kQueueMax);
  JobEventPtr last;
  bool saw_end = false;
  while (auto event = watch->next({}, 0ms)) {
    saw_end |= event->job == "gone" && event->final;
    if (last && event->job == last->job) {
      EXPECT_GT(round_of(event), round_of(last));
    }
    last = event;
  }
  EXPECT_TRUE(saw_end);
  EXPECT_EQ(round_of(last), 10'000u);
}

TEST(EventFeed, ManyJobsDropRunningOnesFirst) {
  EventFeed feed;
  const auto watch = feed.subscribe();
  feed.publish(failed_job(Errc::io, Owner::source, "gone"));
  for (int n = 0; n < 200; ++n) feed.publish(in_round(1, "job" + std::to_string(n)));
  EXPECT_EQ(watch->queued(), EventFeed::kQueueMax);
  EXPECT_EQ(watch->next({}, 0ms)->job, "gone");
}

TEST(EventFeed, NextWakesOnPublishAndOnStop) {
  EventFeed feed;
  const auto watch = feed.subscribe();
  std::jthread other([&] { feed.publish(in_round(5)); });
  EXPECT_EQ(round_of(watch->next({}, 10s)), 5u);
  std::stop_source stop;
  std::jthread stopper([&] { stop.request_stop(); });
  EXPECT_EQ(watch->next(stop.get_token(), 1h), nullptr);
}

TEST(EventFeed, RemembersABoundedNumberOfJobs) {
  EventFeed feed;
  for (int n = 0; n < 1000; ++n) feed.publish(in_round(1, "job" + std::to_string(n)));
  const auto watch = feed.subscribe();
  ASSERT_EQ(watch->snapshot().size(), EventFeed::kRememberedMax);
  EXPECT_EQ(watch->snapshot().back()->job, "job999");
}

}  // namespace
}  // namespace ferry::api
