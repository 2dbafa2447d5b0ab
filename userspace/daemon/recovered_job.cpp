// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/recovered_job.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "daemon/bars.h"
#include "hypervisor/libvirt.h"

namespace ferry::daemon {

using migration::failure_of;
using T = migration::SourceEventType;

namespace {

api::HostPort address_of(const store::SessionRecord& session) {
  auto peer = api::parse_host_port(session.peer);
  return peer ? *peer : api::HostPort{session.peer_host};
}

// What a question about the session needs of the request that began it.
PrepareRequest request_of(const store::SessionRecord& session, const std::vector<store::DiskRecord>& disks) {
  PrepareRequest request;
  request.vm = session.vm;
  request.generation = disks.empty() ? 0 : disks.front().generation;
  for (const auto& disk : disks) {
    DiskRequest entry;
    entry.uuid = disk.uuid;
    entry.path = disk.path;
    request.disks.push_back(std::move(entry));
  }
  return request;
}

// The job ends with this session, however that ends: a later start must not move the VM unasked.
store::SessionRecord without_errand(store::SessionRecord session) {
  session.errand.clear();
  return session;
}

}  // namespace

void RecoveredDisks::thaw() {
  worker_.post([this] {
    std::optional<Error> first;
    for (const auto& disk : disks_)
      if (auto done = unbar_volume(disk); !done && !first) first = std::move(done).error();
    if (first) return post_(failure_of(T::thawed, *first));
    post_({T::thawed});
  });
}

void RecoveredDisks::digest() {
  post_(failure_of(T::digests_taken, make_error(Errc::failed, "ferryd was started anew before the copy was verified")));
}

void RecoveredDisks::leave_fenced() {
  worker_.post([this] {
    std::optional<Error> first;
    for (const auto& disk : disks_)
      if (auto done = bar_volume(disk); !done && !first) first = std::move(done).error();
    if (first) return post_(failure_of(T::detached, *first));
    post_({T::detached});
  });
}

// Its migration cannot be finished any more: its client is gone. Whether the guest runs over there is for the
// destination to say, when it is asked for the disks.
void RecoveredGuest::release_finish() {
  migration::SourceEvent event{T::guest_not_started};
  event.error = make_error(Errc::failed, "ferryd was started anew while the guest changed hosts");
  post_(std::move(event));
}

void RecoveredGuest::refuse_finish() {
  worker_.post([this] {
    migration::SourceEvent done{T::hypervisor_done};
    done.error = make_error(Errc::failed, "the guest goes on here");
    auto libvirt = hypervisor::Libvirt::connect(config_.libvirt_uri);
    auto state = libvirt ? (*libvirt)->state(vm_) : Result<hypervisor::DomainInfo>(libvirt.error());
    if (state && state->state == hypervisor::DomainInfo::State::paused) {
      if (auto resumed = (*libvirt)->resume(vm_); !resumed) spdlog::error("{}", resumed.error().message());
    } else if (!state) {
      spdlog::warn("{}: {}", vm_, state.error().message());
    }
    post_(std::move(done));
  });
}

void RecoveredGuest::end_guest() {
  worker_.post([this] {
    migration::SourceEvent done{T::hypervisor_done};
    done.error = make_error(Errc::failed, "the guest's rest was ended here");
    auto libvirt = hypervisor::Libvirt::connect(config_.libvirt_uri);
    auto state = libvirt ? (*libvirt)->state(vm_) : Result<hypervisor::DomainInfo>(libvirt.error());
    const bool active = state && state->state != hypervisor::DomainInfo::State::shut_off;
    if (active)
      if (auto ended = (*libvirt)->destroy(vm_); !ended) spdlog::error("{}", ended.error().message());
    post_(std::move(done));
  });
}

RecoveredJob::RecoveredJob(const Config& config, ControlLoop& loop, store::OwnershipStore& store,
                           store::SessionRecord session, std::vector<store::DiskRecord> disks,
                           std::function<void(const api::JobStatus&)> changed)
    : loop_(loop), session_record_(without_errand(std::move(session))), changed_(std::move(changed)),
      disks_(disks, [this](migration::SourceEvent e) { post(std::move(e)); }),
      guest_(config, session_record_.vm, [this](migration::SourceEvent e) { post(std::move(e)); }),
      session_(config, address_of(session_record_), session_record_.id, request_of(session_record_, disks),
               [this](migration::SourceEvent e) { post(std::move(e)); }),
      ledger_(store, session_record_, disks, disks.empty() ? 0 : disks.front().generation - 1,
              [this](Status done) { post(migration::recorded_or(std::move(done))); }),
      machine_({clock_, disks_, session_, guest_, ledger_,
                [this](migration::Duration pause, T due) {
                  loop_.post_after(pause, [weak = weak_from_this(), due] {
                    if (auto self = weak.lock()) self->post({due});
                  });
                },
                [] { return false; },
                [this](const std::string& line) {
                  spdlog::info("{}: {}", id(), line);
                  fault_point("source: " + line);
                }},
               {}) {
  status_.id = session_record_.id;
  status_.vm = session_record_.vm;
  status_.destination = session_record_.peer;
  status_.direction = api::Direction::out;
  status_.started_at = api::now();
  status_.state = api::JobState::switching;
  status_.owner = api::Owner::unknown;
  for (const auto& disk : disks) {
    api::DiskStatus d;
    d.name = disk.target;
    d.role = api::role_from_name(disk.role).value_or(api::DiskRole::data);
    d.path = d.destination_path = disk.path;
    d.size_bytes = disk.size_bytes;
    status_.disks.push_back(std::move(d));
  }
}

void RecoveredJob::post(migration::SourceEvent event) {
  // Late answers may come when the job is gone.
  loop_.post([weak = weak_from_this(), event = std::move(event)] {
    auto self = weak.lock();
    if (!self) return;
    self->machine_.handle(event);
    self->refresh();
  });
}

void RecoveredJob::start() { post({T::recover}); }
void RecoveredJob::abort(bool) { post({T::abort_requested}); }

// Nothing is copied any more, so there is nothing that could stand still.
Status RecoveredJob::pause() {
  return make_error(Errc::busy, "the disks of " + session_record_.vm + " are being handed over", 0, "see migrate-ctl own");
}
Status RecoveredJob::resume() { return pause(); }

void RecoveredJob::shut_down() { post({T::shut_down}); }

Status RecoveredJob::force() {
  return loop_.call([this]() -> Status {
    if (!machine_.in_doubt())
      return make_error(Errc::busy, "who owns the disks of " + session_record_.vm + " is not in doubt", 0,
                        "see migrate-ctl own");
    machine_.handle({T::forced});
    refresh();
    return ok_status();
  });
}

void RecoveredJob::wait_ended() {
  std::unique_lock lock(mutex_);
  ended_changed_.wait(lock, [this] { return ended_.load(); });
}

void RecoveredJob::refresh() {
  {
    std::lock_guard lock(mutex_);
    using Owner = migration::SourceOwner;
    status_.owner = machine_.owner() == Owner::unknown       ? api::Owner::unknown
                    : machine_.owner() == Owner::destination ? api::Owner::destination
                                                             : api::Owner::source;
    status_.phase_detail = std::string(migration::state_name(machine_.state()));
    status_.error = machine_.error();
    if (machine_.ended() && !ended_) {
      status_.state = api::JobState::failed;
      status_.ended_at = api::now();
      status_.total_ms = static_cast<std::uint64_t>((*status_.ended_at - *status_.started_at).count());
      if (status_.error) spdlog::warn("{}: {}: {}", id(), status_.vm, status_.error->message());
      session_.close();
      if (machine_.owner() == Owner::destination) ledger_.settle_bars();
      ended_ = true;
      ended_changed_.notify_all();
    }
  }
  changed_(status());
}

api::JobStatus RecoveredJob::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace ferry::daemon
