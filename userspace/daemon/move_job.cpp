// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/move_job.h"

#include <fmt/format.h>

#include "base/log.h"
#include "daemon/kept_copies.h"

namespace ferry::daemon {

using migration::Duration;
using migration::TimePoint;

namespace {

migration::RetryPolicy policy_for(const api::StartRequest& request) {
  migration::RetryPolicy policy;
  policy.give_up_after = std::chrono::seconds(request.retry_for_s.value_or(api::kRetryForSDefault));
  return policy;
}

TimePoint now() { return std::chrono::steady_clock::now(); }

}  // namespace

std::string errand_text(const Errand& errand) {
  return Json{{"job", errand.job}, {"request", api::encode(errand.request)}, {"attempt", errand.attempt},
              {"paused", errand.paused}}.dump();
}

Result<Errand> parse_errand(const std::string& text) {
  const auto bad = [&] { return make_error(Errc::failed, "a job on record cannot be read: " + text); };
  const auto json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("request")) return bad();
  auto request = api::decode_start(json["request"]);
  if (!request) return bad();
  Errand errand;
  errand.request = std::move(*request);
  const auto job = json.find("job"), attempt = json.find("attempt"), paused = json.find("paused");
  if (job == json.end() || !job->is_string() || attempt == json.end() || !attempt->is_number_unsigned() ||
      paused == json.end() || !paused->is_boolean())
    return bad();
  errand.job = job->get<std::string>();
  errand.attempt = attempt->get<std::uint64_t>();
  errand.paused = paused->get<bool>();
  return errand;
}

MoveJob::MoveJob(World world, Errand errand)
    : world_(std::move(world)), retry_(policy_for(errand.request), now(), errand.attempt > 0), errand_(std::move(errand)) {
  status_.id = errand_.job;
  status_.vm = errand_.request.vm;
  status_.destination = errand_.request.destination;
  status_.started_at = api::now();
  status_.attempt = errand_.attempt + 1;
}

MoveJob::~MoveJob() = default;

// ---- attempts ------------------------------------------------------------------------------------

void MoveJob::start(MigrationPlan plan) {
  world_.loop.post([self = shared_from_this(), plan = std::move(plan)]() mutable {
    self->arm_timeout();
    self->begin(std::move(plan));
  });
}

void MoveJob::go_on() {
  world_.loop.post([self = shared_from_this()] {
    self->arm_timeout();
    if (self->errand_.paused) return self->stand_still();
    self->plan_again();
  });
}

void MoveJob::arm_timeout() {
  if (!errand_.request.timeout_s) return;
  // The job may be over and forgotten by then.
  world_.loop.post_after(std::chrono::seconds(*errand_.request.timeout_s), [weak = weak_from_this()] {
    if (auto self = weak.lock(); self && !self->ended()) self->abort(false);
  });
}

// The VM may have other disks than before, or be gone.
void MoveJob::plan_again() {
  {
    std::lock_guard lock(mutex_);
    phase_ = Phase::planning;
  }
  worker_.post([weak = weak_from_this(), world = world_, request = errand_.request] {
    auto libvirt = world.libvirt();
    auto plan = libvirt ? make_plan(world.config, world.store, **libvirt, request)
                        : Result<MigrationPlan>(std::move(libvirt).error());
    world.loop.post([weak, plan = std::make_shared<Result<MigrationPlan>>(std::move(plan))] {
      auto self = weak.lock();
      if (!self || self->phase_ != Phase::planning) return;
      if (*plan) return self->begin(std::move(**plan));
      {
        std::lock_guard lock(self->mutex_);
        self->status_.state = api::JobState::failed;
        self->status_.error = (*plan).error();
      }
      self->finish(false);
    });
  });
}

void MoveJob::begin(MigrationPlan plan) {
  if (asked_.abort || asked_.stop || asked_.pause) return attempt_ended({migration::SourceState::aborted});
  {
    std::lock_guard lock(mutex_);
    ++errand_.attempt;
    // Without another try there is nothing that a restart could go on with.
    if (errand_.request.retry_for_s != 0) plan.errand = errand_text(errand_);
    phase_ = Phase::running;
    attempt_outcome_.reset();
  }
  auto next = std::make_shared<OutgoingJob>(world_.config, world_.loop, world_.store, session(), std::move(plan),
                                            [weak = weak_from_this()](const api::JobStatus& status) {
                                              if (auto self = weak.lock()) self->attempt_changed(status);
                                            });
  {
    std::lock_guard lock(mutex_);
    attempt_ = next;
  }
  spdlog::info("{}: attempt {} to move {} to {}", next->id(), errand_.attempt, errand_.request.vm, errand_.request.destination);
  next->start();
}

// On the loop: an attempt tells of itself only from there.
void MoveJob::attempt_changed(const api::JobStatus& status) {
  {
    std::lock_guard lock(mutex_);
    if (phase_ != Phase::running) return;
    const auto started = status_.started_at;
    const auto before = status_.state;
    status_ = status;
    status_.id = errand_.job;
    status_.started_at = started;
    status_.attempt = errand_.attempt;
    // Whether that is the job's end, too, is not decided yet: who looks meanwhile must not take it for that.
    if (api::is_final(status.state)) {
      attempt_outcome_ = status.state;
      status_.state = before;
      status_.ended_at.reset();
      status_.total_ms.reset();
    }
  }
  if (!api::is_final(status.state)) return publish();
  attempt_ended(attempt_->attempt_end());
}

void MoveJob::attempt_ended(const migration::AttemptEnd& end) {
  auto old = attempt();
  {
    std::lock_guard lock(mutex_);
    attempt_.reset();
  }
  // The attempt is not destroyed here: it is its own call that ends it.
  worker_.post([weak = weak_from_this(), world = world_, vm = errand_.request.vm, old = std::move(old), end] {
    // libvirt gives up with the guest paused when it cannot know where it runs (its connection to the destination
    // timed out). It runs nowhere: its disks are here, on record.
    if (old && end.owner == migration::SourceOwner::source) let_guest_go_on(world.config, vm);
    world.loop.post([weak, end] {
      if (auto self = weak.lock(); self && !self->ended()) self->decide(end);
    });
  });
}

void MoveJob::decide(const migration::AttemptEnd& end) {
  using Step = migration::Next::Step;
  const auto next = retry_.after(end, asked_, now());
  switch (next.step) {
    case Step::again: return wait(next.pause);
    case Step::stand_still: return stand_still();
    case Step::later: return finish(true);
    case Step::over: break;
  }
  // An attempt that had no session over there yet could not say it.
  if (discard_asked_ && end.owner == migration::SourceOwner::source) discard_there();
  finish(false);
}

void MoveJob::wait(Duration pause) {
  {
    std::lock_guard lock(mutex_);
    phase_ = Phase::waiting;
    attempt_outcome_.reset();
    status_.state = api::JobState::waiting;
    status_.next_try_at = api::now() + std::chrono::duration_cast<std::chrono::milliseconds>(pause);
    status_.phase_detail = fmt::format("{}; tried again in {} s", status_.error ? status_.error->what : "interrupted",
                                       std::chrono::duration_cast<std::chrono::seconds>(pause).count());
  }
  spdlog::warn("{}: {}", errand_.job, status().phase_detail);
  put_errand(errand_text(errand_));  // the number of the attempt: no two sessions are called alike
  publish();
  world_.loop.post_after(pause, [weak = weak_from_this(), wait = ++waits_] {
    auto self = weak.lock();
    if (self && self->phase_ == Phase::waiting && self->waits_ == wait) self->plan_again();
  });
}

void MoveJob::stand_still() {
  asked_.pause = false;
  {
    std::lock_guard lock(mutex_);
    phase_ = Phase::paused;
    attempt_outcome_.reset();
    errand_.paused = true;
    status_.state = api::JobState::paused;
    status_.phase_detail = "paused; the destination keeps what was copied";
    status_.error.reset();
    status_.next_try_at.reset();
  }
  put_errand(errand_text(errand_));
  publish();
}

void MoveJob::finish(bool goes_on_later) {
  if (!goes_on_later) put_errand("");
  {
    std::lock_guard lock(mutex_);
    if (!api::is_final(status_.state)) status_.state = attempt_outcome_.value_or(api::JobState::aborted);
    if (!status_.error && status_.state == api::JobState::aborted)
      status_.error = make_error(Errc::aborted, "the migration was aborted on request");
    if (!status_.ended_at) status_.ended_at = api::now();
    status_.next_try_at.reset();
    status_.total_ms = static_cast<std::uint64_t>((*status_.ended_at - *status_.started_at).count());
    phase_ = Phase::ended;
  }
  publish();
  changed_.notify_all();
}

void MoveJob::publish() { world_.changed(status()); }

// ---- what others ask -------------------------------------------------------------------------------

std::string MoveJob::session() const {
  std::lock_guard lock(mutex_);
  return errand_.attempt <= 1 ? errand_.job : fmt::format("{}-{}", errand_.job, errand_.attempt);
}

void MoveJob::put_errand(const std::string& text) {
  worker_.post([this, text] {
    if (auto put = world_.store.set_errand(errand_.job, text); !put) spdlog::error("{}: {}", id(), put.error().message());
  });
}

std::shared_ptr<OutgoingJob> MoveJob::attempt() const {
  std::lock_guard lock(mutex_);
  return attempt_;
}

bool MoveJob::works_on(const std::string& session) const {
  if (session == errand_.job) return true;
  const auto running = attempt();
  return running && running->id() == session;
}

api::JobStatus MoveJob::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

bool MoveJob::ended() const {
  std::lock_guard lock(mutex_);
  return phase_ == Phase::ended;
}

void MoveJob::wait_ended() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return phase_ == Phase::ended; });
}

void MoveJob::abort(bool discard) {
  world_.loop.post([self = shared_from_this(), discard] {
    if (self->ended()) return;
    self->asked_.abort = true;
    self->discard_asked_ |= discard;
    if (const auto running = self->attempt()) return running->abort(discard);
    if (self->phase_ != Phase::planning) self->decide({migration::SourceState::aborted});
  });
}

// Between two attempts nobody listens over there but ferryd itself.
void MoveJob::discard_there() {
  worker_.post([this] {
    auto done = ask_to_discard(world_.config, world_.store, errand_.request.destination, id());
    if (!done)
      spdlog::warn("{}: what was copied stays on {} until it expires: {}", id(), errand_.request.destination,
                   done.error().message());
  });
}

Status MoveJob::pause() {
  return world_.loop.call([this]() -> Status {
    const auto now = status();
    if (phase_ == Phase::paused || asked_.pause) return ok_status();
    if (phase_ == Phase::waiting || phase_ == Phase::planning) {
      if (phase_ == Phase::waiting) stand_still();
      asked_.pause = phase_ == Phase::planning;
      return ok_status();
    }
    if (phase_ == Phase::ended || (now.state != api::JobState::preparing && now.state != api::JobState::precopy))
      return make_error(Errc::busy, "the job " + id() + " is past the point where it could stand still", 0,
                        "it can only be paused while its disks are copied");
    asked_.pause = true;
    if (const auto running = attempt()) running->abort(false);
    return ok_status();
  });
}

Status MoveJob::resume() {
  return world_.loop.call([this]() -> Status {
    if (phase_ != Phase::paused && phase_ != Phase::waiting)
      return make_error(Errc::busy, "the job " + id() + " neither waits nor is it paused");
    retry_ = migration::Retry(policy_for(errand_.request), now(), true);
    {
      std::lock_guard lock(mutex_);
      errand_.paused = false;
      status_.state = api::JobState::preparing;
      status_.phase_detail = "going on";
      status_.error.reset();
      status_.next_try_at.reset();
    }
    publish();
    plan_again();
    return ok_status();
  });
}

Status MoveJob::force() {
  if (const auto running = attempt()) {
    FERRY_TRY(running->force());
    // A peer that is dead is not tried again. The attempt's end comes later: its record has to be written before.
    world_.loop.post([self = shared_from_this()] { self->asked_.abort = true; });
    return ok_status();
  }
  return make_error(Errc::busy, "who owns the disks of " + errand_.request.vm + " is not in doubt", 0, "see migrate-ctl own");
}

void MoveJob::shut_down() {
  world_.loop.post([self = shared_from_this()] {
    if (self->ended()) return;
    self->asked_.stop = true;
    if (const auto running = self->attempt()) return running->shut_down();
    if (self->phase_ != Phase::planning) self->finish(true);
  });
}

}  // namespace ferry::daemon
