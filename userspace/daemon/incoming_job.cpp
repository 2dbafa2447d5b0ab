// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/incoming_job.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "daemon/channel_pipe.h"
#include "daemon/owner_desk.h"
#include "hypervisor/libvirt_tunnel.h"
#include "volume/volume.h"
#include "wire/control.h"

namespace ferry::daemon {

using T = migration::DestinationEventType;
using S = migration::DestinationState;

namespace {

api::JobState api_state(const migration::Destination& machine) {
  switch (machine.state()) {
    case S::idle:
    case S::claiming:
    case S::preparing:
      return api::JobState::preparing;
    case S::receiving:
      return api::JobState::precopy;
    case S::flushing:
    case S::promising:
    case S::ready:
    case S::accepting:
    case S::opening:
    case S::yielding:
    case S::returning:
    case S::revoking:
      return api::JobState::switching;
    case S::open:
    case S::verifying:
      return api::JobState::verifying;
    case S::cleaning:
      return machine.owns() ? api::JobState::verifying : api::JobState::switching;
    case S::finished:
      return api::JobState::done;
    case S::failed:
      return machine.error() && machine.error()->code == Errc::aborted ? api::JobState::aborted
                                                                       : api::JobState::failed;
  }
  return api::JobState::failed;
}

std::optional<T> asked_by(std::string_view type) {
  if (type == "close_gate") return T::close_gate;
  if (type == "ready?") return T::ready_asked;
  if (type == "grant") return T::granted;
  if (type == "digests?") return T::digests_asked;
  if (type == "finish") return T::finish_asked;
  if (type == "abort") return T::abort_asked;
  if (type == "revoke") return T::revoke_asked;
  if (type == "return") return T::return_asked;
  return std::nullopt;
}

store::SessionRecord session_record(const Hello& hello, const PrepareRequest& request, const std::string& address) {
  const bool ipv6 = address.find(':') != std::string::npos;
  const auto peer = (ipv6 ? "[" + address + "]" : address) + ":" + std::to_string(request.peer_port);
  return {hello.session, request.vm, peer, hello.host, false, request.definition, {}};
}

// The volume that is there now holds what the record speaks of: an older or incomplete copy.
bool is_copy(const store::DiskRecord& known, const store::DiskRecord& now) {
  return known.holding == store::Holding::given && known.path == now.path && !now.volume_id.empty() &&
         known.volume_id == now.volume_id && known.size_bytes == now.size_bytes;
}

IncomingJob::KnownDisks look_up(const PrepareRequest& request, const store::OwnershipStore& store) {
  IncomingJob::KnownDisks disks;
  for (const auto& disk : request.disks) {
    if (disk.role == "scratch") continue;
    store::DiskRecord record;
    record.uuid = disk.uuid;
    record.target = disk.target;
    record.path = disk.path;
    record.role = disk.role;
    record.size_bytes = disk.size_bytes;
    auto volume = volume::identify(disk.path);
    record.created = !volume;
    if (volume) record.volume_id = volume->id;
    if (auto known = store.by_uuid(disk.uuid); known && *known) {
      record.holding = (*known)->holding;
      // What an earlier attempt made goes with this one, too.
      if (is_copy(**known, record)) {
        record.created = (*known)->created;
        disks.old_copies.push_back(std::move(**known));
      }
    }
    disks.records.push_back(std::move(record));
  }
  return disks;
}

migration::DestinationEvent recorded_or(Status done) {
  if (done) return {T::recorded};
  return {T::failed, std::move(done).error()};
}

}  // namespace

IncomingJob::IncomingJob(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Hello hello,
                         PrepareRequest request, const wire::Channel& channel,
                         std::function<void(const api::JobStatus&)> changed)
    : IncomingJob(config, loop, store, std::move(hello), request, channel, std::move(changed), look_up(request, store)) {}

IncomingJob::IncomingJob(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Hello hello,
                         PrepareRequest request, const wire::Channel& channel,
                         std::function<void(const api::JobStatus&)> changed, KnownDisks known)
    : config_(config), loop_(loop), store_(store), hello_(std::move(hello)), request_(std::move(request)), changed_(std::move(changed)),
      disks_(hello_.session, request_, std::move(known.old_copies), config, [this](migration::DestinationEvent e) { post(std::move(e)); },
             [this] {
               stop_tunnels_.request_stop();
               return tunnelled_.load();
             }),
      ledger_(store, session_record(hello_, request_, channel.peer_host()), std::move(known.records), request_.generation - 1,
              [this](Status done) { post(recorded_or(std::move(done))); }),
      machine_({disks_, *this, ledger_,
                [this](migration::Duration d) {
                  loop_.post_after(d, [self = weak_from_this()] {
                    if (auto job = self.lock()) job->post({T::patience_over});
                  });
                },
                [id = hello_.session](const std::string& line) {
                  spdlog::info("{}: {}", id, line);
                  fault_point("destination: " + line);
                }}) {
  ledger_.set_keeping([this] { return disks_.kept(); }, request_.keep_s);
  status_.id = hello_.session;
  status_.vm = request_.vm;
  status_.destination = config.host_name;
  status_.peer = channel.peer_name();
  status_.direction = api::Direction::in;
  status_.started_at = api::now();
  for (const auto& disk : request_.disks) {
    api::DiskStatus d;
    d.name = disk.target;
    d.path = d.destination_path = disk.path;
    d.role = api::role_from_name(disk.role).value_or(api::DiskRole::data);
    d.size_bytes = disk.size_bytes;
    status_.disks.push_back(std::move(d));
  }
}

IncomingJob::~IncomingJob() { stop_tunnels_.request_stop(); }

void IncomingJob::post(migration::DestinationEvent event) {
  loop_.post([this, event = std::move(event)] {
    if (event.type == T::prepared) {
      prepared_ = true;
      ledger_.set_trackers(disks_.trackers());
      ledger_.learn();
    }
    machine_.handle(event);
    refresh();
  });
}

void IncomingJob::start() { post({T::prepare}); }

void IncomingJob::serve_control(wire::Channel& channel) {
  {
    std::lock_guard lock(channel_mutex_);
    channel_ = &channel;
  }
  post({T::link_back});
  for (;;) {
    auto message = wire::receive_control(channel);
    if (!message) {
      std::lock_guard lock(channel_mutex_);
      if (channel_ != &channel) return;  // the source speaks over another one by now
      channel_ = nullptr;
      return post({T::link_lost, make_error(Errc::peer_unreachable, "lost the link to " + hello_.host + " (" +
                                                                        message.error().what + ")")});
    }
    loop_.post([this, message = std::move(*message)] {
      take(message);
      refresh();
    });
  }
}

// On the loop.
void IncomingJob::take(const Json& message) {
  const auto asked = asked_by(type_of(message));
  if (!asked) {
    spdlog::warn("{}: unknown message from {}", id(), hello_.host);
    return refuse(make_error(Errc::protocol, "unknown message"));
  }
  if (*asked == T::revoke_asked || *asked == T::return_asked) question_ = message;
  if (*asked == T::abort_asked && discards(message)) disks_.keep_nothing();
  if (!machine_.ended()) return machine_.handle({*asked});
  // A source that gives up wants an answer, also when there is nothing left to take back.
  if (*asked == T::abort_asked) return answer("aborted");
  if (!question_) send(answer_from_records(store_, id(), message));
}

// A machine that has ended leaves no question open: what is on record answers it.
void IncomingJob::answer_pending() {
  if (!machine_.ended() || !question_) return;
  send(answer_from_records(store_, id(), *std::exchange(question_, std::nullopt)));
}

void IncomingJob::answer(std::string_view what) {
  if (what == "prepared") return send(to_json(PrepareReply{disks_.reply(), config_.memory_address}));
  if (what == "digests") return send(to_json(disks_.digests()));
  if (what == "revoked" || what == "opened" || what == "returned") question_.reset();
  send(plain_message(what));
}

void IncomingJob::refuse(const Error& error) {
  question_.reset();
  send(to_json(error));
}

void IncomingJob::send(Json message) {
  sender_.post([this, message = std::move(message)] {
    std::lock_guard lock(channel_mutex_);
    if (!channel_) return;
    if (auto sent = wire::send_control(*channel_, message); !sent)
      spdlog::debug("{}: {}", id(), sent.error().message());
  });
}

bool IncomingJob::ended() const {
  std::lock_guard lock(mutex_);
  return ended_;
}

Status IncomingJob::serve_data(wire::Channel& channel) {
  auto served = disks_.serve(channel);
  if (!served) spdlog::debug("{}: data stream: {}", id(), served.error().message());
  return served;
}

Status IncomingJob::serve_libvirt(wire::Channel& channel) {
  if (!prepared_) return make_error(Errc::protocol, "a libvirt connection came before the volumes were prepared");
  tunnelled_ = true;  // before it can do anything
  ChannelPipe pipe(channel);
  return hypervisor::LibvirtTunnel::serve(pipe, config_.libvirt_socket, stop_tunnels_.get_token());
}

void IncomingJob::wait_settled() {
  std::unique_lock lock(mutex_);
  settled_changed_.wait(lock, [this] { return settled_; });
}

void IncomingJob::refresh() {
  answer_pending();
  {
    std::lock_guard lock(mutex_);
    settled_ = machine_.ended() || machine_.state() == S::open;
    settled_changed_.notify_all();
    status_.state = api_state(machine_);
    status_.phase_detail = std::string(migration::state_name(machine_.state()));
    status_.owner = machine_.owns() ? api::Owner::destination : api::Owner::source;
    status_.error = machine_.error();
    const auto digests = disks_.digests();
    for (const auto& digest : digests)
      if (digest.index < status_.disks.size()) status_.disks[digest.index].digest_destination = digest.digest;
    if (machine_.ended() && !ended_) {
      status_.ended_at = api::now();
      status_.total_ms = static_cast<std::uint64_t>((*status_.ended_at - *status_.started_at).count());
      // Once the disks are ours the source may still have to ask libvirt here whether the guest runs.
      if (!machine_.owns()) stop_tunnels_.request_stop();
      ledger_.settle_bars();
      ended_ = true;
    }
  }
  changed_(status());
}

api::JobStatus IncomingJob::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace ferry::daemon
