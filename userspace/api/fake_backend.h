// SPDX-License-Identifier: GPL-2.0-or-later
// FakeBackend: the admin API's daemon for tests, here and in migrate-ctl. Every answer can be
// set, every call is kept in calls(). Jobs change only when the test says so (publish()).
// Thread-safety: everything from any thread; answers are set before the server starts.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "api/api_backend.h"
#include "api/event_feed.h"
#include "api/owner_types.h"

namespace ferry::api {

class FakeBackend : public ApiBackend {
 public:
  EventFeed feed;
  std::optional<Error> failure;       // every call answers this if set
  std::string next_id = "7f3a";
  VersionInfo version_info{"0.1.0", 1, 1, "hosta", "0.1.0"};
  Plan planned;
  DoctorReport report;
  std::vector<VolumeStatus> volume_list;
  std::vector<OwnedDisk> owned_disks;
  std::optional<Error> risk;          // what a force without the operator's word is told
  Forced forced{"web1", "7f3a", {"/dev/vg0/web1", "/dev/vg0/web1-swap"}, 3, std::nullopt};
  Released released{"web1", {"/dev/vg0/web1", "/dev/vg0/web1-swap"}};

  // The job's new state, as the daemon would tell it.
  void publish(const JobStatus& job) {
    {
      std::lock_guard lock(mutex_);
      auto& slot = slot_of(job.id);
      slot = job;
    }
    feed.publish(job);
  }

  std::vector<std::string> calls() const {
    std::lock_guard lock(mutex_);
    return calls_;
  }

  // Waits until `call` has come in; false after ten seconds.
  bool wait_for(const std::string& call) {
    std::unique_lock lock(mutex_);
    return called_.wait_for(lock, std::chrono::seconds(10), [&] {
      return std::find(calls_.begin(), calls_.end(), call) != calls_.end();
    });
  }

  Result<VersionInfo> version() override { return answer("version", version_info); }
  Result<Plan> plan(const StartRequest& request) override {
    return answer("plan " + write_json(encode(request)), planned);
  }
  Result<std::string> start_job(const StartRequest& request) override {
    auto id = answer("start " + write_json(encode(request)), next_id);
    if (!id.ok()) return id;
    JobStatus job;
    job.id = next_id;
    job.vm = request.vm;
    job.destination = request.destination;
    job.started_at = now();
    publish(job);
    return id;
  }
  Result<std::vector<JobStatus>> jobs() override {
    record("jobs");
    std::lock_guard lock(mutex_);
    if (failure) return *failure;
    return jobs_;
  }
  Result<JobStatus> job(const std::string& id) override {
    record("job " + id);
    std::lock_guard lock(mutex_);
    if (failure) return *failure;
    for (const auto& job : jobs_)
      if (job.id == id) return job;
    return make_error(Errc::not_found, "there is no job " + id);
  }
  Status pause_job(const std::string& id) override { return answer("pause " + id, Unit{}); }
  Status resume_job(const std::string& id) override { return answer("resume " + id, Unit{}); }
  Status abort_job(const std::string& id, bool discard) override {
    auto found = job(id);
    if (!found.ok()) return std::move(found).error();
    if (is_final(found->state)) return make_error(Errc::busy, "job " + id + " has ended");
    record("abort " + id + (discard ? " discard" : ""));
    return ok_status();
  }
  Result<std::vector<VolumeStatus>> volumes() override { return answer("volumes", volume_list); }
  Result<VolumeStatus> attach_volume(const std::string& path) override {
    VolumeStatus volume;
    volume.path = path;
    volume.mode = "track";
    volume.state = "tracking";
    return answer("attach " + path, volume);
  }
  Status detach_volume(const std::string& path) override { return answer("detach " + path, Unit{}); }
  Result<OwnerList> owners(const OwnerTarget& target) override {
    auto all = answer("owners " + target.name(), OwnerList{version_info.host, owned_disks});
    if (!all.ok() || target.empty()) return all;
    std::erase_if(all->disks, [&](const OwnedDisk& disk) { return disk.vm != target.vm && disk.path != target.path; });
    if (all->disks.empty()) return make_error(Errc::not_found, "no record names " + target.name());
    return all;
  }
  Result<Definition> definition(const OwnerTarget& target) override {
    return answer("definition " + target.name(), Definition{"web1", "7f3a", "<domain>\n  <name>web1</name>\n</domain>\n"});
  }
  Result<Forced> force_owner(const ForceBody& body) override {
    auto done = answer("force " + write_json(encode(body)), forced);
    if (done.ok() && risk && !body.peer_is_dead) return *risk;
    return done;
  }
  Result<Released> release_owner(const ReleaseBody& body) override {
    return answer("release " + write_json(encode(body)), released);
  }
  Result<DoctorReport> doctor(const std::optional<std::string>& peer) override {
    return answer("doctor " + peer.value_or("-"), report);
  }

 private:
  void record(std::string call) {
    {
      std::lock_guard lock(mutex_);
      calls_.push_back(std::move(call));
    }
    called_.notify_all();
  }
  template <typename T>
  Result<T> answer(std::string call, T value) {
    record(std::move(call));
    if (failure) return *failure;
    return value;
  }
  JobStatus& slot_of(const std::string& id) {
    for (auto& job : jobs_)
      if (job.id == id) return job;
    return jobs_.emplace_back();
  }

  mutable std::mutex mutex_;
  std::condition_variable called_;
  std::vector<std::string> calls_;
  std::vector<JobStatus> jobs_;
};

// A job in the middle of its second round.
inline JobStatus sample_job(const std::string& id = "7f3a") {
  constexpr uint64_t kMib = 1 << 20;
  JobStatus job;
  job.id = id;
  job.vm = "web1";
  job.destination = "hostb:7391";
  job.peer = "hostb";
  job.state = JobState::precopy;
  job.phase_detail = "copying round 2";
  job.round = 2;
  DiskStatus root;
  root.name = "vda";
  root.path = "/dev/vg0/web1";
  root.destination_path = "/dev/vg0/web1";
  root.size_bytes = 2048 * kMib;
  root.bytes_total = 2148 * kMib;
  root.bytes_sent = 2100 * kMib;
  root.zero_bytes = 1024 * kMib;
  root.dirty_bytes = 12 * kMib;
  DiskStatus swap = root;
  swap.name = "vdb";
  swap.role = DiskRole::swap;
  swap.path = swap.destination_path = "/dev/vg0/web1-swap";
  swap.dirty_bytes = 4 * kMib;
  job.disks = {root, swap};
  job.rate_bytes_per_s = 112 * kMib;
  job.dirty_rate_bytes_per_s = 3 * kMib;
  job.residual_bytes = 16 * kMib;
  job.memory = {0, 512 * kMib, 512 * kMib};
  job.progress = 0.612;
  job.eta_ms = 12'000;
  job.downtime_estimate_ms = 80;
  job.max_downtime_ms = 300;
  job.started_at = parse_time("2025-01-31T12:34:56.789Z");
  job.rounds = {{1, 2048 * kMib, 18'200, 100 * kMib}};
  return job;
}

inline JobStatus finished_job(const std::string& id = "7f3a") {
  JobStatus job = sample_job(id);
  job.state = JobState::done;
  job.owner = Owner::destination;
  job.progress = 1;
  job.eta_ms.reset();
  job.residual_bytes = 0;
  job.rounds.push_back({2, 100 << 20, 900, 16 << 20});
  job.ended_at = parse_time("2025-01-31T12:35:20.889Z");
  job.total_ms = 24'100;
  job.switchover.paused_ms = 84;
  job.switchover.freeze_ms = 21;
  for (auto& disk : job.disks) {
    disk.dirty_bytes = 0;
    disk.digest_source = disk.digest_destination = "0123456789abcdef0123456789abcdef";
    disk.digest_equal = true;
  }
  return job;
}

// The disks of a VM that moved to hostb and whose volumes here are kept, fenced.
inline std::vector<OwnedDisk> sample_owners() {
  OwnedDisk root;
  root.vm = "web1";
  root.target = "vda";
  root.path = "/dev/vg0/web1";
  root.size_bytes = 2048ULL << 20;
  root.uuid = "3f2f6a0e-6c2b-4a51-9a0b-5f8f4d1c0001";
  root.generation = 2;
  root.holding = "given";
  root.owner = DiskOwner::peer;
  root.owner_host = root.peer_host = "hostb";
  root.session = "7f3a";
  root.peer = "hostb:7391";
  root.since = parse_time("2025-01-31T12:34:56.000Z");
  root.reason = "moved to hostb";
  root.verified = true;
  root.filter = "fenced";
  root.must_be_barred = true;
  root.barred = true;
  OwnedDisk swap = root;
  swap.target = "vdb";
  swap.role = DiskRole::swap;
  swap.path = "/dev/vg0/web1-swap";
  swap.uuid.back() = '2';
  return {root, swap};
}

inline JobStatus failed_job(Errc code, Owner owner = Owner::source,
                            const std::string& id = "7f3a") {
  JobStatus job = sample_job(id);
  job.state = code == Errc::aborted ? JobState::aborted : JobState::failed;
  job.owner = owner;
  job.ended_at = parse_time("2025-01-31T12:35:20.889Z");
  job.total_ms = 24'100;
  job.error = make_error(code, "cannot go on: the reason", 0, "do this about it");
  return job;
}

}  // namespace ferry::api
