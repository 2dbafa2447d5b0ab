// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/backend.h"

#include <fmt/format.h>

#include <random>

#include "base/log.h"
#include "daemon/bars.h"
#include "daemon/doctor.h"
#include "daemon/kept_copies.h"
#include "daemon/messages.h"
#include "daemon/outgoing_job.h"
#include "daemon/peer_link.h"
#include "daemon/version.h"
#include "filter/volume_table.h"
#include "volume/identity.h"
#include "volume/volume.h"
#include "wire/control.h"

namespace ferry::daemon {
namespace {

std::string new_id() {
  std::random_device random;
  return fmt::format("{:08x}{:04x}", random(), random() & 0xffff);
}

std::vector<std::string> split_flags(std::uint32_t flags) {
  std::vector<std::string> out;
  std::string text = filter::flag_names(flags);
  if (text == "-") return out;
  for (std::size_t from = 0; from <= text.size();) {
    const auto comma = std::min(text.find(',', from), text.size());
    out.push_back(text.substr(from, comma - from));
    from = comma + 1;
  }
  return out;
}

api::VolumeStatus to_status(const filter::AttachedVolume& v) {
  api::VolumeStatus s;
  s.path = v.path;
  s.name = v.name;
  s.tracker = filter::to_text(v.uuid);
  s.method = v.in_place ? api::Method::in_place : api::Method::stacked;
  if (!v.tracker) {
    s.state = "unknown";
    return s;
  }
  s.state = filter::state_name(v.tracker->state);
  const bool gate = v.tracker->state == FERRY_STATE_RECEIVING || v.tracker->state == FERRY_STATE_GATED;
  s.mode = gate ? "gate" : "track";
  s.flags = split_flags(v.tracker->flags);
  s.size_bytes = v.tracker->sectors * 512;
  s.block_size_bytes = std::uint64_t{1} << v.tracker->block_shift;
  s.dirty_blocks = v.tracker->dirty;
  return s;
}

// Asks the peer what it would do with the disks.
Result<PrepareReply> ask_dry_run(const Config& config, const MigrationPlan& plan) {
  auto peer = api::parse_host_port(plan.request.destination);
  if (!peer) return std::move(peer).error();
  auto channel = open_connection(config, *peer, Purpose::control, "plan-" + new_id());
  if (!channel) return std::move(channel).error();
  PrepareRequest request = plan.prepare;
  request.dry_run = true;
  FERRY_TRY(wire::send_control(**channel, to_json(request)));
  auto answer = wire::receive_control(**channel);
  if (!answer) return std::move(answer).error();
  return prepare_reply_from(*answer);
}

api::Check check_of(const std::string& name, const Error& error) {
  return {name, false, error.what, error.hint, error.code};
}

Owners::Ports owner_ports(Jobs& jobs) {
  Owners::Ports ports;
  ports.attached = filter::list_attached;
  ports.identify = volume::identify;
  ports.closed = [](const store::DiskRecord& disk) { return is_closed(disk, volume::mapped_devices()); };
  ports.unbar = [](const store::DiskRecord& disk) { return unbar_volume(disk); };
  ports.remove = remove_copy;
  ports.job_runs = [&jobs](const std::string& session) {
    if (const auto job = jobs.of_session(session)) return !job->ended();
    const auto job = jobs.incoming(session);
    return job && !job->ended();
  };
  ports.force_job = [&jobs](const std::string& session) -> Status {
    if (const auto job = jobs.of_session(session); job && !job->ended()) return job->force();
    return make_error(Errc::not_found, "no job of this ferryd works on the session " + session, 0,
                      "start ferryd anew, which takes it up again, then repeat this");
  };
  return ports;
}

}  // namespace

Backend::Backend(const Config& config, ControlLoop& loop, store::OwnershipStore& store, Jobs& jobs,
                 api::EventFeed& feed)
    : config_(config), loop_(loop), store_(store), jobs_(jobs), feed_(feed),
      owners_(config.host_name, store, owner_ports(jobs)) {}

Backend::~Backend() = default;

Result<std::shared_ptr<hypervisor::Libvirt>> Backend::libvirt() {
  std::lock_guard lock(mutex_);
  if (libvirt_ && libvirt_->alive()) return libvirt_;
  auto connection = hypervisor::Libvirt::connect(config_.libvirt_uri);
  if (!connection) return std::move(connection).error();
  libvirt_ = std::move(*connection);
  return libvirt_;
}

Result<api::VersionInfo> Backend::version() {
  api::VersionInfo info;
  info.version = kVersion;
  info.protocol = kProtocolVersion;
  info.host = config_.host_name;
  if (auto module = filter::module_version()) info.module = fmt::format("{}.{}", module->abi_major, module->abi_minor);
  return info;
}

Result<api::Plan> Backend::plan(const api::StartRequest& request) {
  auto connection = libvirt();
  if (!connection) return std::move(connection).error();
  auto made = make_plan(config_, store_, **connection, request);
  if (!made) return std::move(made).error();
  api::Plan plan;
  plan.vm = request.vm;
  plan.destination = request.destination;
  plan.memory_bytes = made->domain.memory_kib * 1024;
  for (std::size_t n = 0; n < made->disks.size(); ++n) {
    const auto& disk = made->disks[n];
    api::PlanDisk d;
    d.target = disk.target;
    d.path = d.destination_path = disk.path;
    d.role = api::role_from_name(made->prepare.disks[n].role).value_or(api::DiskRole::data);
    d.size_bytes = disk.size_bytes;
    if (disk.role == volume::Role::scratch) {
      plan.checks.push_back({disk.target, true, "scratch: not copied", {}, {}});
    } else {
      plan.disk_bytes += disk.size_bytes;
      auto volume = filter::find_volume(disk.path);
      if (volume) d.method = filter::all_lines_are(volume->live, "linear") ? api::Method::in_place : api::Method::stacked;
      plan.checks.push_back(volume ? api::Check{disk.target, true, "the filter can be put into " + disk.path, {}, {}}
                                   : check_of(disk.target, volume.error()));
      if (disk.role == volume::Role::swap)
        plan.checks.push_back({disk.target + " swap", true,
                               "no filter since swapon: every block counts as allocated, zero blocks travel as holes",
                               {}, {}});
    }
    plan.disks.push_back(std::move(d));
  }
  auto reply = ask_dry_run(config_, *made);
  if (!reply) {
    plan.checks.push_back(check_of("destination", reply.error()));
    return plan;
  }
  for (const auto& disk : reply->disks) {
    if (disk.index >= plan.disks.size()) continue;
    plan.disks[disk.index].destination_path = disk.path;
    plan.disks[disk.index].destination_action =
        disk.action == "create" ? api::DestinationAction::create : api::DestinationAction::use;
  }
  plan.checks.push_back({"destination", true, request.destination + " can take the VM in", {}, {}});
  return plan;
}

Result<std::string> Backend::start_job(const api::StartRequest& request) {
  auto connection = libvirt();
  if (!connection) return std::move(connection).error();
  auto made = make_plan(config_, store_, **connection, request);
  if (!made) return std::move(made).error();
  auto job = std::make_shared<MoveJob>(world(), Errand{new_id(), request});
  FERRY_TRY(jobs_.add(job));
  spdlog::info("{}: moving {} to {}", job->id(), request.vm, request.destination);
  job->start(std::move(*made));
  return job->id();
}

MoveJob::World Backend::world() {
  return {config_, loop_, store_, [this] { return libvirt(); }, [this](const api::JobStatus& s) { feed_.publish(s); }};
}

void Backend::go_on(Errand errand) {
  auto job = std::make_shared<MoveJob>(world(), std::move(errand));
  if (auto added = jobs_.add(job); !added) return spdlog::error("{}: {}", job->id(), added.error().message());
  spdlog::info("{}: going on with the migration of {}", job->id(), job->status().vm);
  job->go_on();
}

Result<std::vector<api::JobStatus>> Backend::jobs() { return jobs_.all(); }

Result<api::JobStatus> Backend::job(const std::string& id) { return jobs_.find(id); }

// A job that runs, and that can be told something here.
Result<std::shared_ptr<SourceJob>> Backend::own_job(const std::string& id, const char* verb) {
  auto status = jobs_.find(id);
  if (!status) return std::move(status).error();
  if (api::is_final(status->state)) return make_error(Errc::busy, "the job " + status->id + " has ended already");
  auto job = jobs_.outgoing(status->id);
  if (!job)
    return make_error(Errc::usage, "the job " + status->id + " comes from another host", 0, std::string(verb) + " it there");
  if (status->owner != api::Owner::source)
    return make_error(Errc::busy, "the job " + status->id + " is past its switchover", 0,
                      "to have the VM back, migrate it back");
  return job;
}

Status Backend::abort_job(const std::string& id, bool discard) {
  auto job = own_job(id, "abort");
  if (!job) return std::move(job).error();
  (*job)->abort(discard);
  return ok_status();
}

Status Backend::pause_job(const std::string& id) {
  auto job = own_job(id, "pause");
  return job ? (*job)->pause() : Status(std::move(job).error());
}

Status Backend::resume_job(const std::string& id) {
  auto job = own_job(id, "resume");
  return job ? (*job)->resume() : Status(std::move(job).error());
}

Result<std::vector<api::VolumeStatus>> Backend::volumes() {
  auto attached = filter::list_attached();
  if (!attached) return std::move(attached).error();
  std::vector<api::VolumeStatus> list;
  for (const auto& volume : *attached) list.push_back(to_status(volume));
  return list;
}

Result<api::VolumeStatus> Backend::attach_volume(const std::string& path) {
  auto info = volume::inspect(path);
  if (!info) return std::move(info).error();
  filter::AttachRequest request;
  request.path = path;
  request.map_memory_bytes = config_.map_memory_bytes();
  auto attached = filter::Attachment::attach(request);
  if (!attached) return std::move(attached).error();
  const std::string name = attached->name();
  {
    std::lock_guard lock(mutex_);
    by_hand_.insert_or_assign(name, std::move(*attached));
  }
  auto all = filter::list_attached();
  if (!all) return std::move(all).error();
  for (const auto& volume : *all)
    if (volume.name == name) return to_status(volume);
  return make_error(Errc::failed, "the filter left " + path + " again at once", 0, "somebody reloaded its table");
}

Status Backend::detach_volume(const std::string& path) {
  auto info = volume::inspect(path);
  if (!info) return std::move(info).error();
  {
    std::lock_guard lock(mutex_);
    if (const auto own = by_hand_.find(info->dm_name); own != by_hand_.end()) {
      FERRY_TRY(own->second.detach());
      by_hand_.erase(own);
      return ok_status();
    }
  }
  return filter::detach_volume(path, false);
}

Result<api::OwnerList> Backend::owners(const api::OwnerTarget& target) { return owners_.list(target); }

Result<api::Definition> Backend::definition(const api::OwnerTarget& target) { return owners_.definition(target); }

Result<api::Forced> Backend::force_owner(const api::ForceBody& body) { return owners_.force(body); }

Result<api::Released> Backend::release_owner(const api::ReleaseBody& body) { return owners_.release(body); }

Result<api::DoctorReport> Backend::doctor(const std::optional<std::string>& peer) {
  api::DoctorReport report;
  report.checks = examine(config_, libvirt(), peer);
  return report;
}

}  // namespace ferry::daemon
