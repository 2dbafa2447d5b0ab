// SPDX-License-Identifier: GPL-2.0-or-later
// MoveJob: one migration as its admin sees it: as many attempts as it takes. An attempt is a whole session of the
// peer protocol of its own (OutgoingJob); when one breaks off before the disks changed hands, the destination keeps
// what was copied and the next attempt copies what differs. No two sessions of a VM exist at once, so nothing of an
// older one can reach the disks of a newer.
// What the job is about goes on record with each session: a ferryd that is started anew goes on with it.
// Ownership: kept by the Jobs registry; may be destroyed only when ended().
// Thread-safety: all methods from any thread, but none of them from the loop's.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "daemon/outgoing_job.h"
#include "daemon/source_job.h"
#include "migration/retry.h"

namespace ferry::daemon {

// What a restart needs to go on with a job.
struct Errand {
  std::string job;
  api::StartRequest request;
  std::uint64_t attempt = 0;  // the last one
  bool paused = false;
};
std::string errand_text(const Errand& errand);
Result<Errand> parse_errand(const std::string& text);

class MoveJob : public SourceJob, public std::enable_shared_from_this<MoveJob> {
 public:
  struct World {
    const Config& config;
    ControlLoop& loop;
    store::OwnershipStore& store;
    std::function<Result<std::shared_ptr<hypervisor::Libvirt>>()> libvirt;
    std::function<void(const api::JobStatus&)> changed;
  };

  MoveJob(World world, Errand errand);
  ~MoveJob() override;

  // The first attempt, its plan judged already.
  void start(MigrationPlan plan);
  // The next attempt of an errand from the records; waits for resume() if it was paused.
  void go_on();

  const std::string& id() const override { return errand_.job; }
  bool works_on(const std::string& session) const override;
  api::JobStatus status() const override;
  bool ended() const override;
  void abort(bool discard) override;
  Status pause() override;
  Status resume() override;
  Status force() override;
  void shut_down() override;
  void wait_ended() override;

 private:
  enum class Phase { planning, running, waiting, paused, ended };

  // All of these on the loop.
  void plan_again();
  void begin(MigrationPlan plan);
  void attempt_changed(const api::JobStatus& status);
  void attempt_ended(const migration::AttemptEnd& end);
  void decide(const migration::AttemptEnd& end);
  void wait(migration::Duration pause);
  void stand_still();
  void finish(bool goes_on_later);
  void publish();
  void arm_timeout();
  void discard_there();

  std::string session() const;
  void put_errand(const std::string& text);
  std::shared_ptr<OutgoingJob> attempt() const;

  World world_;
  migration::Retry retry_;
  migration::Asked asked_;             // the loop's, as the next one
  bool discard_asked_ = false;
  unsigned waits_ = 0;                 // tells the timer of this wait from those of earlier ones; the loop's
  mutable std::mutex mutex_;           // guards what follows
  std::condition_variable changed_;
  Phase phase_ = Phase::planning;
  Errand errand_;                      // its job never changes
  std::shared_ptr<OutgoingJob> attempt_;
  std::optional<api::JobState> attempt_outcome_;  // of the last attempt, until another begins or is waited for
  api::JobStatus status_;
  Worker worker_;                      // asks libvirt, writes records, ends old attempts: it may block
};

}  // namespace ferry::daemon
