// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/incoming_job.h"

#include "base/log.h"
#include "daemon/channel_pipe.h"
#include "hypervisor/libvirt_tunnel.h"
#include "wire/control.h"

namespace ferry::daemon {

using T = migration::DestinationEventType;
using S = migration::DestinationState;

namespace {

api::JobState api_state(const migration::Destination& machine) {
  switch (machine.state()) {
    case S::idle:
    case S::preparing:
      return api::JobState::preparing;
    case S::receiving:
      return api::JobState::precopy;
    case S::flushing:
    case S::ready:
    case S::opening:
      return api::JobState::switching;
    case S::open:
    case S::verifying:
      return api::JobState::verifying;
    case S::cleaning:
      return machine.opened() ? api::JobState::verifying : api::JobState::switching;
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
  return std::nullopt;
}

}  // namespace

IncomingJob::IncomingJob(const Config& config, ControlLoop& loop, Hello hello, PrepareRequest request,
                         wire::Channel& channel, std::function<void(const api::JobStatus&)> changed)
    : config_(config), loop_(loop), hello_(std::move(hello)), request_(std::move(request)), channel_(channel),
      changed_(std::move(changed)),
      disks_(request_, config.map_memory_bytes(), config.state_dir,
             [this](migration::DestinationEvent e) { post(std::move(e)); }),
      machine_({disks_, *this, [id = hello_.session](const std::string& line) { spdlog::info("{}: {}", id, line); }}) {
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
    if (event.type == T::prepared) prepared_ = true;
    machine_.handle(event);
    refresh();
  });
}

void IncomingJob::run() {
  post({T::prepare});
  for (;;) {
    auto message = wire::receive_control(channel_);
    if (!message) {
      migration::DestinationEvent lost{T::link_lost, make_error(Errc::peer_unreachable, "lost the link to " + hello_.host +
                                                                    " (" + message.error().what + ")")};
      post(std::move(lost));
      break;
    }
    const auto type = type_of(*message);
    const auto asked = asked_by(type);
    if (!asked) {
      spdlog::warn("{}: unknown message from {}", id(), hello_.host);
      refuse(make_error(Errc::protocol, "unknown message"));
      continue;
    }
    loop_.post([this, event = *asked] {
      // A source that gives up wants an answer, also when there is nothing left to take back.
      if (event == T::abort_asked && machine_.ended()) return answer("aborted");
      machine_.handle({event});
      refresh();
    });
  }
  {
    std::unique_lock lock(mutex_);
    ended_changed_.wait(lock, [this] { return ended_; });
  }
  // The caller closes the connection next: what is still to be said goes out before.
  std::promise<void> sent;
  sender_.post([&sent] { sent.set_value(); });
  sent.get_future().wait();
}

void IncomingJob::answer(std::string_view what) {
  if (what == "prepared") return send(to_json(PrepareReply{disks_.reply(), config_.memory_address}));
  if (what == "digests") return send(to_json(disks_.digests()));
  send(plain_message(what));
}

void IncomingJob::refuse(const Error& error) { send(to_json(error)); }

void IncomingJob::send(Json message) {
  sender_.post([this, message = std::move(message)] {
    if (auto sent = wire::send_control(channel_, message); !sent)
      spdlog::debug("{}: {}", id(), sent.error().message());
  });
}

Status IncomingJob::serve_data(wire::Channel& channel) {
  auto served = disks_.serve(channel);
  if (!served) spdlog::debug("{}: data stream: {}", id(), served.error().message());
  return served;
}

Status IncomingJob::serve_libvirt(wire::Channel& channel) {
  if (!prepared_) return make_error(Errc::protocol, "a libvirt connection came before the volumes were prepared");
  ChannelPipe pipe(channel);
  return hypervisor::LibvirtTunnel::serve(pipe, config_.libvirt_socket, stop_tunnels_.get_token());
}

void IncomingJob::refresh() {
  {
    std::lock_guard lock(mutex_);
    status_.state = api_state(machine_);
    status_.phase_detail = std::string(migration::state_name(machine_.state()));
    status_.owner = machine_.opened() ? api::Owner::destination : api::Owner::source;
    status_.error = machine_.error();
    const auto digests = disks_.digests();
    for (const auto& digest : digests)
      if (digest.index < status_.disks.size()) status_.disks[digest.index].digest_destination = digest.digest;
    if (machine_.ended() && !ended_) {
      status_.ended_at = api::now();
      status_.total_ms = static_cast<std::uint64_t>((*status_.ended_at - *status_.started_at).count());
      // Once the disks are ours the source may still have to ask libvirt here whether the guest runs.
      if (!machine_.opened()) stop_tunnels_.request_stop();
      ended_ = true;
      ended_changed_.notify_all();
    }
  }
  changed_(status());
}

api::JobStatus IncomingJob::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace ferry::daemon
