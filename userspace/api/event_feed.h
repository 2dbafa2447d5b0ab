// SPDX-License-Identifier: GPL-2.0-or-later
// EventFeed: carries job changes from the daemon to whoever watches. publish() never waits for a
// watcher: each has a bounded queue in which a newer state replaces older ones of the same job
// when it is full. The last state of a job is therefore never lost, states in between may be.
// Ownership: the feed outlives its subscriptions. Thread-safety: everything from any thread, but
// one subscription is read by one thread.
#pragma once

#include <condition_variable>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "api/api_types.h"

namespace ferry::api {

// One state of one job, ready to be sent. Shared by all watchers.
struct JobEvent {
  std::string job;
  bool final = false;
  std::string line;   // JSON, ends with a newline
};
using JobEventPtr = std::shared_ptr<const JobEvent>;
JobEventPtr make_job_event(const JobStatus& job);

class EventFeed {
 public:
  static constexpr size_t kQueueMax = 64;      // per watcher; a bar redraws ten times a second
  static constexpr size_t kRememberedMax = 256;  // jobs whose newest state a new watcher gets

  class Subscription {
   public:
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;
    // The newest states at the moment of subscribing; changes after it come from next().
    const std::vector<JobEventPtr>& snapshot() const { return snapshot_; }
    // Waits for a change. Null on timeout, stop or close().
    JobEventPtr next(std::stop_token stop, std::chrono::milliseconds timeout);
    size_t queued() const;

   private:
    friend class EventFeed;
    Subscription(EventFeed& feed, std::optional<std::string> job) : feed_(feed), job_(job) {}
    void push(const JobEventPtr& event);   // under the feed's lock

    EventFeed& feed_;
    const std::optional<std::string> job_;
    std::vector<JobEventPtr> snapshot_;
    std::deque<JobEventPtr> queue_;
  };

  EventFeed() = default;
  EventFeed(const EventFeed&) = delete;
  EventFeed& operator=(const EventFeed&) = delete;

  void publish(const JobStatus& job);
  // All jobs, or one.
  std::unique_ptr<Subscription> subscribe(std::optional<std::string> job = std::nullopt);

 private:
  void remember(const JobEventPtr& event);

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::set<Subscription*> subscriptions_;
  std::deque<JobEventPtr> latest_;   // one per job, the longest unchanged first
};

}  // namespace ferry::api
