// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/event_feed.h"

#include <algorithm>

namespace ferry::api {

JobEventPtr make_job_event(const JobStatus& job) {
  const Json line{{"event", "job"}, {"time", format_time(now())}, {"job", encode(job)}};
  return std::make_shared<JobEvent>(
      JobEvent{job.id, is_final(job.state), write_json(line) + "\n"});
}

EventFeed::Subscription::~Subscription() {
  std::lock_guard lock(feed_.mutex_);
  feed_.subscriptions_.erase(this);
}

size_t EventFeed::Subscription::queued() const {
  std::lock_guard lock(feed_.mutex_);
  return queue_.size();
}

void EventFeed::Subscription::push(const JobEventPtr& event) {
  if (job_ && *job_ != event->job) return;
  if (queue_.size() >= kQueueMax) {
    // Older states of this job are worth least; else one of a job that will still be heard of.
    const auto same = std::find_if(queue_.begin(), queue_.end(),
                                   [&](const auto& old) { return old->job == event->job; });
    const auto running = std::find_if(queue_.begin(), queue_.end(),
                                      [](const auto& old) { return !old->final; });
    if (same != queue_.end())
      queue_.erase(same);
    else
      queue_.erase(running != queue_.end() ? running : queue_.begin());
  }
  queue_.push_back(event);
}

JobEventPtr EventFeed::Subscription::next(std::stop_token stop,
                                          std::chrono::milliseconds timeout) {
  std::unique_lock lock(feed_.mutex_);
  feed_.changed_.wait_for(lock, stop, timeout, [&] { return !queue_.empty(); });
  if (queue_.empty()) return nullptr;
  auto event = std::move(queue_.front());
  queue_.pop_front();
  return event;
}

void EventFeed::publish(const JobStatus& job) {
  const auto event = make_job_event(job);
  {
    std::lock_guard lock(mutex_);
    remember(event);
    for (auto* subscription : subscriptions_) subscription->push(event);
  }
  changed_.notify_all();
}

void EventFeed::remember(const JobEventPtr& event) {
  std::erase_if(latest_, [&](const auto& old) { return old->job == event->job; });
  if (latest_.size() >= kRememberedMax) latest_.pop_front();
  latest_.push_back(event);
}

std::unique_ptr<EventFeed::Subscription> EventFeed::subscribe(std::optional<std::string> job) {
  std::unique_ptr<Subscription> subscription(new Subscription(*this, std::move(job)));
  std::lock_guard lock(mutex_);
  for (const auto& event : latest_)
    if (!subscription->job_ || *subscription->job_ == event->job)
      subscription->snapshot_.push_back(event);
  subscriptions_.insert(subscription.get());
  return subscription;
}

}  // namespace ferry::api
