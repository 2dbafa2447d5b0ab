// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/outgoing_job.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/fault_point.h"
#include "base/log.h"
#include "daemon/bars.h"
#include "migration/ownership.h"

namespace ferry::daemon {

using T = migration::SourceEventType;
using S = migration::SourceState;

namespace {

constexpr std::uint64_t kDefaultDowntimeMs = 300;
constexpr auto kTick = std::chrono::milliseconds(250);
// How the parts of a migration share the progress bar.
constexpr double kCopyShare = 0.7, kMemoryShare = 0.2;

api::DiskRole api_role(volume::Role role) {
  switch (role) {
    case volume::Role::swap:
      return api::DiskRole::swap;
    case volume::Role::scratch:
      return api::DiskRole::scratch;
    default:
      return api::DiskRole::data;
  }
}

volume::Role volume_role(api::DiskRole role) {
  switch (role) {
    case api::DiskRole::swap:
      return volume::Role::swap;
    case api::DiskRole::scratch:
      return volume::Role::scratch;
    default:
      return volume::Role::data;
  }
}

api::JobState api_state(S state, bool finish_seen) {
  switch (state) {
    case S::idle:
    case S::connecting:
    case S::preparing:
    case S::claiming:
    case S::attaching:
      return api::JobState::preparing;
    case S::precopy:
      return api::JobState::precopy;
    case S::verifying:
    case S::finishing:
      return api::JobState::verifying;
    case S::done:
      return api::JobState::done;
    case S::failed:
    case S::in_doubt:
      return api::JobState::failed;
    case S::aborted:
      return api::JobState::aborted;
    case S::rolling_back:
      return finish_seen ? api::JobState::switching : api::JobState::precopy;
    default:
      return api::JobState::switching;
  }
}

api::Owner api_owner(migration::SourceOwner owner) {
  switch (owner) {
    case migration::SourceOwner::source:
      return api::Owner::source;
    case migration::SourceOwner::destination:
      return api::Owner::destination;
    case migration::SourceOwner::unknown:
      return api::Owner::unknown;
  }
  return api::Owner::unknown;
}

std::optional<std::uint64_t> ms_between(const std::optional<migration::TimePoint>& from,
                                        const std::optional<migration::TimePoint>& to) {
  if (!from || !to) return std::nullopt;
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(*to - *from).count());
}

migration::SourcePolicy policy_for(const MigrationPlan& plan) {
  migration::SourcePolicy policy;
  policy.convergence.max_downtime =
      std::chrono::milliseconds(plan.request.max_downtime_ms.value_or(kDefaultDowntimeMs));
  policy.standstill += migration::kStallAllowance * policy.convergence.max_downtime;
  policy.convergence.memory_bytes = plan.domain.memory_kib * 1024;
  return policy;
}

GuestMigration guest_migration(const MigrationPlan& plan, const std::string& id) {
  GuestMigration migration;
  migration.vm = plan.request.vm;
  migration.session = id;
  migration.max_downtime_ms = plan.request.max_downtime_ms.value_or(kDefaultDowntimeMs);
  migration.bandwidth_bytes_per_s = plan.request.bandwidth_bytes_per_s.value_or(0);
  for (const auto& disk : plan.domain.disks) migration.disks[disk.target] = disk.path;
  return migration;
}

api::HostPort peer_of(const api::StartRequest& request) {
  auto peer = api::parse_host_port(request.destination);
  return peer ? *peer : api::HostPort{request.destination};  // make_plan has judged it already
}

Result<SourceDisk> plan_disk(const hypervisor::DomainDisk& disk, std::uint32_t index, const api::StartRequest& request) {
  SourceDisk out;
  out.index = index;
  out.target = disk.target;
  out.path = disk.path;
  auto volume = volume::inspect(disk.path);
  if (!volume) return std::move(volume).error();
  out.size_bytes = volume->size_bytes;
  out.logical_block_size = volume->logical_block_size;
  out.volume_id = volume->id;
  const auto role = request.roles.find(disk.target);
  // Both hosts see a shareable or read-only disk by themselves: nothing to copy.
  const auto found = hypervisor::moves_with_vm(disk) ? volume->detected_role : volume::Role::scratch;
  out.role = role != request.roles.end() ? volume_role(role->second) : found;
  return out;
}

// Finds out what is on record about the disks, and as which generation they will be granted.
Status claim(MigrationPlan& plan, store::OwnershipStore& store) {
  for (const auto& disk : plan.disks) {
    if (disk.role == volume::Role::scratch) continue;
    store::DiskRecord record;
    record.target = disk.target;
    record.path = disk.path;
    record.volume_id = disk.volume_id;
    record.role = volume::role_name(disk.role);
    record.size_bytes = disk.size_bytes;
    plan.records.push_back(std::move(record));
  }
  auto base = base_generation(store, plan.records);
  if (!base) return std::move(base).error();
  plan.prepare.generation = migration::granted_generation(*base);
  auto record = plan.records.begin();
  for (std::size_t n = 0; n < plan.disks.size(); ++n) {
    if (plan.disks[n].role == volume::Role::scratch) continue;
    auto& disk = plan.prepare.disks[n];
    disk.uuid = record->uuid;
    // Only if it has missed nothing since the disk came in.
    if (const auto follower = follower_of(*record); follower && follower->intact()) {
      plan.disks[n].tracker = follower->uuid;
      disk.changes_since = record->generation;
    }
    ++record;
  }
  return ok_status();
}

store::SessionRecord session_record(const MigrationPlan& plan, const std::string& id) {
  const auto peer = peer_of(plan.request);
  return {id, plan.request.vm, plan.request.destination, peer.host, true, plan.prepare.definition, plan.errand};
}

}  // namespace

Result<MigrationPlan> make_plan(const Config& config, store::OwnershipStore& store, hypervisor::Libvirt& libvirt,
                                const api::StartRequest& request) {
  MigrationPlan plan;
  plan.request = request;
  if (auto peer = api::parse_host_port(request.destination); !peer) return std::move(peer).error();
  auto domain = libvirt.inspect(request.vm);
  if (!domain) return std::move(domain).error();
  plan.domain = std::move(*domain);
  FERRY_TRY(hypervisor::check_migratable(plan.domain));
  plan.prepare.vm = request.vm;
  plan.prepare.create = request.create;
  plan.prepare.keep_s = request.keep_s.value_or(api::kKeepSDefault);
  plan.prepare.streams = static_cast<unsigned>(
      std::min<std::uint64_t>(request.streams.value_or(config.streams), api::kStreamsMax));
  for (const auto& disk : plan.domain.disks) {
    auto planned = plan_disk(disk, static_cast<std::uint32_t>(plan.disks.size()), request);
    if (!planned) return std::move(planned).error();
    plan.prepare.disks.push_back({planned->index, planned->target, planned->path,
                                  volume::role_name(planned->role), planned->size_bytes,
                                  planned->logical_block_size, {}});
    plan.disks.push_back(std::move(*planned));
  }
  if (plan.disks.empty()) return make_error(Errc::unsupported, "the VM " + request.vm + " has no disk to move");
  for (const auto& [target, role] : request.roles) {
    const bool known = std::any_of(plan.disks.begin(), plan.disks.end(),
                                   [&target = target](const SourceDisk& d) { return d.target == target; });
    if (!known) return make_error(Errc::usage, "the VM " + request.vm + " has no disk " + target);
  }
  FERRY_TRY(claim(plan, store));
  plan.prepare.peer_port = config.port;
  // To start the VM from, should its guest be lost on the way. A transient VM has none.
  if (auto definition = libvirt.persistent_xml(request.vm, {})) plan.prepare.definition = std::move(*definition);
  return plan;
}

OutgoingJob::OutgoingJob(const Config& config, ControlLoop& loop, store::OwnershipStore& store, std::string id,
                         MigrationPlan plan, std::function<void(const api::JobStatus&)> changed)
    : config_(config), loop_(loop), id_(std::move(id)), plan_(std::move(plan)), changed_(std::move(changed)),
      session_(config, peer_of(plan_.request), id_, plan_.prepare, [this](migration::SourceEvent e) { post(std::move(e)); }),
      disks_(plan_.disks, config.map_memory_bytes(), plan_.request.bandwidth_bytes_per_s.value_or(0),
             [this] { return session_.open_streams(); }, [this] { return session_.reply().disks; },
             [this](migration::SourceEvent e) { post(std::move(e)); }),
      hypervisor_(config, session_, guest_migration(plan_, id_),
                  [this](migration::SourceEvent e) { post(std::move(e)); }),
      ledger_(store, session_record(plan_, id_), plan_.records, plan_.prepare.generation - 1,
              [this](Status done) { post(migration::recorded_or(std::move(done))); }),
      machine_({clock_, disks_, session_, hypervisor_, ledger_,
                [this](migration::Duration pause, T due) {
                  loop_.post_after(pause, [weak = weak_from_this(), due] {
                    if (auto self = weak.lock()) self->post({due});
                  });
                },
                [this] { return digests_equal(); },
                [this](const std::string& line) {
                  spdlog::info("{}: {}", id_, line);
                  fault_point("source: " + line);
                }},
               policy_for(plan_)) {
  status_.id = id_;
  status_.vm = plan_.request.vm;
  status_.destination = plan_.request.destination;
  status_.direction = api::Direction::out;
  status_.max_downtime_ms = plan_.request.max_downtime_ms.value_or(kDefaultDowntimeMs);
  status_.started_at = api::now();
  status_.memory.total_bytes = plan_.domain.memory_kib * 1024;
  for (const auto& disk : plan_.disks) {
    api::DiskStatus d;
    d.name = disk.target;
    d.role = api_role(disk.role);
    d.path = d.destination_path = disk.path;
    d.size_bytes = disk.size_bytes;
    status_.disks.push_back(std::move(d));
  }
  std::map<std::string, std::string> followers;
  for (const auto& disk : plan_.disks)
    if (disk.tracker) followers[disk.target] = filter::to_text(*disk.tracker);
  ledger_.set_trackers(std::move(followers));
}

OutgoingJob::~OutgoingJob() = default;

void OutgoingJob::post(migration::SourceEvent event) {
  // Late answers and timers may come when the job is gone, or over: its end is told once.
  loop_.post([weak = weak_from_this(), event = std::move(event)] {
    auto self = weak.lock();
    if (!self || self->ended_) return;
    spdlog::debug("{}: event {}", self->id_, migration::event_name(event.type));
    // From now on the maps tell what this session has still to send, and not what has changed since the disks came.
    if (event.type == T::attached) self->ledger_.set_trackers({});
    self->machine_.handle(event);
    self->refresh();
  });
}

void OutgoingJob::start() {
  post({T::start});
  loop_.post([self = shared_from_this()] { self->tick(); });
}

void OutgoingJob::abort(bool discard) {
  if (discard) session_.discard_on_abort();
  post({T::abort_requested});
}

void OutgoingJob::shut_down() { post({T::shut_down}); }

Status OutgoingJob::force() {
  return loop_.call([this]() -> Status {
    if (!machine_.in_doubt())
      return make_error(Errc::busy, "who owns the disks of " + plan_.request.vm + " is not in doubt", 0, "see migrate-ctl own");
    machine_.handle({T::forced});
    refresh();
    return ok_status();
  });
}

migration::AttemptEnd OutgoingJob::attempt_end() const {
  return {machine_.state(), machine_.owner(), machine_.error(), machine_.times().precopy.has_value()};
}

void OutgoingJob::tick() {
  if (ended_) return;
  refresh();
  loop_.post_after(kTick, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->tick();
  });
}

bool OutgoingJob::digests_equal() {
  const auto copy = disks_.progress();
  const auto peer = session_.digests();
  std::map<std::string, std::string> digests;
  for (const auto& disk : plan_.disks) {
    if (disk.role == volume::Role::scratch) continue;
    const auto other = std::find_if(peer.begin(), peer.end(), [&](const DiskDigest& d) { return d.index == disk.index; });
    if (other == peer.end() || other->mismatches != 0) return false;
    if (copy.digests[disk.index].empty() || copy.digests[disk.index] != other->digest) return false;
    digests[disk.target] = other->digest;
  }
  ledger_.set_verified(std::move(digests));
  return true;
}

void OutgoingJob::fill_copy(api::JobStatus& s) {
  const auto copy = disks_.progress();
  s.round = copy.round;
  s.rate_bytes_per_s = static_cast<std::uint64_t>(copy.rate_bytes_per_s);
  s.residual_bytes = 0;
  const auto peer = session_.digests();
  for (std::size_t n = 0; n < s.disks.size(); ++n) {
    auto& disk = s.disks[n];
    disk.bytes_sent = copy.disk_sent_bytes[n];
    disk.zero_bytes = copy.disk_zero_bytes[n];
    disk.bytes_total = std::max(disk.bytes_sent + copy.disk_dirty_bytes[n], disk.role == api::DiskRole::scratch ? 0 : disk.size_bytes);
    disk.dirty_bytes = copy.disk_dirty_bytes[n];
    s.residual_bytes += copy.disk_dirty_bytes[n];
    if (!copy.digests[n].empty()) disk.digest_source = copy.digests[n];
    for (const auto& digest : peer)
      if (digest.index == n) disk.digest_destination = digest.digest;
    if (disk.digest_source && disk.digest_destination)
      disk.digest_equal = *disk.digest_source == *disk.digest_destination;
  }
  s.rounds.clear();
  for (const auto& round : copy.rounds) s.rounds.push_back({round.n, round.wire_bytes, round.took_ms, round.residual_bytes});
  const auto memory = hypervisor_.memory();
  if (memory.total_bytes > 0) s.memory = {memory.processed_bytes, memory.remaining_bytes, memory.total_bytes};
  const double part = copy.round_total_bytes
                          ? static_cast<double>(copy.round_done_bytes) / static_cast<double>(copy.round_total_bytes)
                          : (copy.round == 0 ? 0.0 : 1.0);
  const double memory_part = memory.total_bytes ? 1.0 - static_cast<double>(memory.remaining_bytes) /
                                                            static_cast<double>(memory.total_bytes)
                                                : 0.0;
  if (s.state == api::JobState::precopy) {
    s.progress = copy.round <= 1 ? kCopyShare * part : kCopyShare;
    if (copy.round <= 1 && copy.rate_bytes_per_s > 0)
      s.eta_ms = static_cast<std::uint64_t>(static_cast<double>(copy.round_total_bytes - copy.round_done_bytes) * 1e3 /
                                            copy.rate_bytes_per_s);
    else
      s.eta_ms.reset();
  } else if (s.state == api::JobState::switching) {
    s.progress = kCopyShare + kMemoryShare * std::clamp(memory_part, 0.0, 1.0);
    s.eta_ms.reset();
  } else if (s.state == api::JobState::verifying) {
    s.progress = kCopyShare + kMemoryShare;
  } else if (s.state == api::JobState::done) {
    s.progress = 1;
    s.eta_ms = 0;
  }
  if (const auto rest = machine_.convergence().residual_time())
    s.downtime_estimate_ms = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(*rest).count());
}

void OutgoingJob::fill_times(api::JobStatus& s) const {
  const auto& t = machine_.times();
  s.switchover.paused_ms = ms_between(t.paused, t.opened);
  s.switchover.memory_ms = ms_between(t.paused, t.finish_seen);
  s.switchover.copy_ms = ms_between(t.finish_seen, t.granted);
  s.switchover.handover_ms = ms_between(t.granted, t.opened);
  s.switchover.freeze_ms = ms_between(t.frozen, t.granted);
}

void OutgoingJob::refresh() {
  {
    std::lock_guard lock(mutex_);
    auto& s = status_;
    s.state = api_state(machine_.state(), machine_.times().finish_seen.has_value());
    s.phase_detail = std::string(migration::state_name(machine_.state()));
    if (s.state == api::JobState::precopy && !machine_.convergence().reason().empty())
      s.phase_detail += ": " + machine_.convergence().reason();
    s.owner = api_owner(machine_.owner());
    s.error = machine_.error();
    fill_copy(s);
    fill_times(s);
    if (machine_.ended() && !ended_) {
      s.ended_at = api::now();
      s.total_ms = static_cast<std::uint64_t>((*s.ended_at - *s.started_at).count());
      if (s.error) spdlog::error("{}: {} -> {}: {}", id_, s.vm, s.destination, s.error->message());
      session_.close();
      if (machine_.owner() == migration::SourceOwner::destination) ledger_.settle_bars();
      ended_ = true;
    }
  }
  changed_(status());
}

api::JobStatus OutgoingJob::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace ferry::daemon
