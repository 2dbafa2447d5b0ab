// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/api_types.h"

#include <algorithm>
#include <cstring>

#include "api/api_names.h"
#include "api/json_parts.h"

namespace ferry::api {
namespace {

Result<Check> read_check(const Json& json, std::string where) {
  ObjectReader in(json, std::move(where), Unknown::lenient);
  Check check;
  std::optional<std::string> code;
  in.text("name", check.name);
  in.flag("ok", check.ok);
  in.text("detail", check.detail);
  in.text("hint", check.hint);
  in.text("code", code);
  if (code) check.code = errc_from_name(*code);
  return finish(in, std::move(check));
}

Result<PlanDisk> read_plan_disk(const Json& json, std::string where) {
  ObjectReader in(json, std::move(where), Unknown::lenient);
  PlanDisk disk;
  in.text("target", disk.target);
  in.text("path", disk.path);
  in.choice("role", disk.role, kRoleNames);
  in.number("size_bytes", disk.size_bytes);
  in.choice("method", disk.method, kMethodNames);
  in.text("destination_path", disk.destination_path);
  in.choice("destination_action", disk.destination_action, kActionNames);
  return finish(in, std::move(disk));
}

Result<DiskStatus> read_disk(const Json& json, std::string where) {
  ObjectReader in(json, std::move(where), Unknown::lenient);
  DiskStatus disk;
  in.text("name", disk.name);
  in.choice("role", disk.role, kRoleNames);
  in.text("path", disk.path);
  in.text("destination_path", disk.destination_path);
  in.number("size_bytes", disk.size_bytes);
  in.number("bytes_total", disk.bytes_total);
  in.number("bytes_sent", disk.bytes_sent);
  in.number("zero_bytes", disk.zero_bytes);
  in.number("dirty_bytes", disk.dirty_bytes);
  in.text("digest_source", disk.digest_source);
  in.text("digest_destination", disk.digest_destination);
  in.flag("digest_equal", disk.digest_equal);
  return finish(in, std::move(disk));
}

Result<RoundStatus> read_round(const Json& json, std::string where) {
  ObjectReader in(json, std::move(where), Unknown::lenient);
  RoundStatus round;
  in.number("n", round.n);
  in.number("bytes", round.bytes);
  in.number("ms", round.ms);
  in.number("dirty_bytes", round.dirty_bytes);
  return finish(in, round);
}

void read_memory(ObjectReader& in, MemoryStatus& memory) {
  const Json* json = in.object("memory");
  if (json == nullptr) return;
  ObjectReader part(*json, in.path_of("memory"), Unknown::lenient);
  part.number("processed_bytes", memory.processed_bytes);
  part.number("remaining_bytes", memory.remaining_bytes);
  part.number("total_bytes", memory.total_bytes);
  in.join(part.finish());
}

void read_switchover(ObjectReader& in, Switchover& s) {
  const Json* json = in.object("switchover");
  if (json == nullptr) return;
  ObjectReader part(*json, in.path_of("switchover"), Unknown::lenient);
  part.number("paused_ms", s.paused_ms);
  part.number("memory_ms", s.memory_ms);
  part.number("freeze_ms", s.freeze_ms);
  part.number("copy_ms", s.copy_ms);
  part.number("copy_bytes", s.copy_bytes);
  part.number("handover_ms", s.handover_ms);
  in.join(part.finish());
}

Result<JobStatus> read_job(const Json& json, std::string where) {
  ObjectReader in(json, std::move(where), Unknown::lenient);
  JobStatus job;
  in.text("id", job.id, Need::required);
  in.text("vm", job.vm);
  in.text("destination", job.destination);
  in.text("peer", job.peer);
  in.choice("direction", job.direction, kDirectionNames);
  in.choice("state", job.state, kJobStateNames);
  in.text("phase_detail", job.phase_detail);
  in.number("round", job.round);
  read_list(in, "disks", job.disks, read_disk);
  in.number("rate_bytes_per_s", job.rate_bytes_per_s);
  in.number("dirty_rate_bytes_per_s", job.dirty_rate_bytes_per_s);
  in.number("residual_bytes", job.residual_bytes);
  read_memory(in, job.memory);
  in.real("progress", job.progress);
  in.number("eta_ms", job.eta_ms);
  in.number("downtime_estimate_ms", job.downtime_estimate_ms);
  in.number("max_downtime_ms", job.max_downtime_ms);
  read_time(in, "started_at", job.started_at);
  read_time(in, "ended_at", job.ended_at);
  in.number("total_ms", job.total_ms);
  read_list(in, "rounds", job.rounds, read_round);
  read_switchover(in, job.switchover);
  if (const Json* error = in.object("error")) {
    auto decoded = decode_error(*error);
    if (decoded.ok())
      job.error = std::move(decoded->error);
    else
      in.join(std::move(decoded).error());
  }
  in.choice("owner", job.owner, kOwnerNames);
  in.number("attempt", job.attempt);
  read_time(in, "next_try_at", job.next_try_at);
  return finish(in, std::move(job));
}

Result<VolumeStatus> read_volume(const Json& json, std::string where) {
  ObjectReader in(json, std::move(where), Unknown::lenient);
  VolumeStatus volume;
  in.text("path", volume.path);
  in.text("name", volume.name);
  in.text("tracker", volume.tracker);
  in.text("mode", volume.mode);
  in.text("state", volume.state);
  in.texts("flags", volume.flags);
  in.choice("method", volume.method, kMethodNames);
  in.number("size_bytes", volume.size_bytes);
  in.number("block_size_bytes", volume.block_size_bytes);
  in.number("dirty_blocks", volume.dirty_blocks);
  in.text("job", volume.job);
  return finish(in, std::move(volume));
}

// For a code that only a later version knows: a kind with the same exit code.
Errc kind_of_exit(uint64_t status) {
  for (const Errc kind : {Errc::usage, Errc::not_found, Errc::busy, Errc::not_converged,
                          Errc::verify_mismatch, Errc::cleanup_incomplete, Errc::owner_unknown})
    if (static_cast<uint64_t>(exit_code(kind)) == status) return kind;
  return Errc::failed;
}

bool is_target_name(std::string_view name) {
  return !name.empty() && name.size() <= 32 &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

void read_roles(ObjectReader& in, std::map<std::string, DiskRole>& roles) {
  const Json* json = in.object("roles");
  if (json == nullptr) return;
  if (json->size() > 256) return in.fail("roles", "names more than 256 disks");
  ObjectReader part(*json, in.path_of("roles"), in.policy());
  for (const auto& [target, value] : json->items()) {
    if (!is_target_name(target))
      return in.fail("roles", "names a disk \"" + target + "\"; a name looks like vda");
    DiskRole role = DiskRole::data;
    if (value.is_null()) part.fail(target, "must be one of data, swap, scratch, not null");
    part.choice(target, role, kRoleNames);
    roles[target] = role;
  }
  in.join(part.finish());
}

}  // namespace

// ---- requests ----------------------------------------------------------------------------------

Result<StartRequest> decode_start(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  StartRequest request;
  in.text("vm", request.vm, Need::required, 255);
  in.text("destination", request.destination, Need::required, 300);
  in.flag("create", request.create);
  read_roles(in, request.roles);
  in.number("max_downtime_ms", request.max_downtime_ms, 1, kMaxDowntimeMsMax);
  in.number("bandwidth_bytes_per_s", request.bandwidth_bytes_per_s, kBandwidthMin, kBandwidthMax);
  in.number("streams", request.streams, 1, kStreamsMax);
  in.number("timeout_s", request.timeout_s, 1, kTimeoutSMax);
  in.number("keep_s", request.keep_s, 0, kTimeoutSMax);
  in.number("retry_for_s", request.retry_for_s, 0, kTimeoutSMax);
  if (in.ok())
    if (auto peer = parse_host_port(request.destination); !peer.ok())
      in.join(std::move(peer).error());
  return finish(in, std::move(request));
}

Result<AbortBody> decode_abort(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  AbortBody body;
  in.flag("discard", body.discard);
  return finish(in, body);
}

Result<AttachBody> decode_attach(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  AttachBody body;
  in.text("path", body.path, Need::required);
  check_path(in, body.path);
  return finish(in, std::move(body));
}

Result<DetachBody> decode_detach(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  DetachBody body;
  in.text("path", body.path, Need::required);
  check_path(in, body.path);
  return finish(in, std::move(body));
}

Result<DoctorBody> decode_doctor(const Json& json) {
  ObjectReader in(json, "", Unknown::strict);
  DoctorBody body;
  in.text("peer", body.peer);
  if (in.ok() && body.peer)
    if (auto peer = parse_host_port(*body.peer); !peer.ok()) in.join(std::move(peer).error());
  return finish(in, std::move(body));
}

Json encode(const StartRequest& request) {
  Json out{{"vm", request.vm}, {"destination", request.destination}, {"create", request.create}};
  Json roles = Json::object();
  for (const auto& [target, role] : request.roles) roles[target] = name_of(role);
  out["roles"] = std::move(roles);
  const auto put = [&](const char* name, const std::optional<uint64_t>& value) {
    if (value) out[name] = *value;
  };
  put("max_downtime_ms", request.max_downtime_ms);
  put("bandwidth_bytes_per_s", request.bandwidth_bytes_per_s);
  put("streams", request.streams);
  put("timeout_s", request.timeout_s);
  put("keep_s", request.keep_s);
  put("retry_for_s", request.retry_for_s);
  return out;
}

Json encode(const AbortBody& body) { return Json{{"discard", body.discard}}; }

Json encode(const AttachBody& body) { return Json{{"path", body.path}}; }

Json encode(const DetachBody& body) { return Json{{"path", body.path}}; }

Json encode(const DoctorBody& body) {
  Json out = Json::object();
  if (body.peer) out["peer"] = *body.peer;
  return out;
}

// ---- answers -----------------------------------------------------------------------------------

Json encode(const VersionInfo& info) {
  return Json{{"version", info.version},
              {"api", info.api},
              {"protocol", info.protocol},
              {"host", info.host},
              {"module", maybe(info.module)}};
}

Json encode(const Check& check) {
  return Json{{"name", check.name},
              {"ok", check.ok},
              {"detail", check.detail},
              {"hint", check.hint},
              {"code", check.code ? Json(errc_name(*check.code)) : Json(nullptr)}};
}

Json encode(const PlanDisk& disk) {
  return Json{{"target", disk.target},
              {"path", disk.path},
              {"role", name_of(disk.role)},
              {"size_bytes", disk.size_bytes},
              {"method", name_of(disk.method)},
              {"destination_path", disk.destination_path},
              {"destination_action", name_of(disk.destination_action)}};
}

Json encode(const DiskStatus& disk) {
  return Json{{"name", disk.name},
              {"role", name_of(disk.role)},
              {"path", disk.path},
              {"destination_path", disk.destination_path},
              {"size_bytes", disk.size_bytes},
              {"bytes_total", disk.bytes_total},
              {"bytes_sent", disk.bytes_sent},
              {"zero_bytes", disk.zero_bytes},
              {"dirty_bytes", disk.dirty_bytes},
              {"digest_source", maybe(disk.digest_source)},
              {"digest_destination", maybe(disk.digest_destination)},
              {"digest_equal", maybe(disk.digest_equal)}};
}

Json encode(const RoundStatus& round) {
  return Json{{"n", round.n},
              {"bytes", round.bytes},
              {"ms", round.ms},
              {"dirty_bytes", maybe(round.dirty_bytes)}};
}

Json encode(const Switchover& s) {
  return Json{{"paused_ms", maybe(s.paused_ms)},     {"memory_ms", maybe(s.memory_ms)},
              {"freeze_ms", maybe(s.freeze_ms)},     {"copy_ms", maybe(s.copy_ms)},
              {"copy_bytes", maybe(s.copy_bytes)},   {"handover_ms", maybe(s.handover_ms)}};
}

Json encode(const Plan& plan) {
  return Json{{"vm", plan.vm},
              {"destination", plan.destination},
              {"disks", encode_list(plan.disks)},
              {"memory_bytes", plan.memory_bytes},
              {"disk_bytes", plan.disk_bytes},
              {"checks", encode_list(plan.checks)},
              {"ok", plan.ok()}};
}

Json encode(const JobStatus& job) {
  return Json{{"id", job.id},
              {"vm", job.vm},
              {"destination", job.destination},
              {"peer", job.peer},
              {"direction", name_of(job.direction)},
              {"state", name_of(job.state)},
              {"phase_detail", job.phase_detail},
              {"owner", name_of(job.owner)},
              {"attempt", job.attempt},
              {"next_try_at", maybe_time(job.next_try_at)},
              {"round", job.round},
              {"progress", job.progress},
              {"eta_ms", maybe(job.eta_ms)},
              {"rate_bytes_per_s", job.rate_bytes_per_s},
              {"dirty_rate_bytes_per_s", job.dirty_rate_bytes_per_s},
              {"residual_bytes", job.residual_bytes},
              {"downtime_estimate_ms", maybe(job.downtime_estimate_ms)},
              {"max_downtime_ms", maybe(job.max_downtime_ms)},
              {"started_at", maybe_time(job.started_at)},
              {"ended_at", maybe_time(job.ended_at)},
              {"total_ms", maybe(job.total_ms)},
              {"memory",
               {{"processed_bytes", job.memory.processed_bytes},
                {"remaining_bytes", job.memory.remaining_bytes},
                {"total_bytes", job.memory.total_bytes}}},
              {"disks", encode_list(job.disks)},
              {"rounds", encode_list(job.rounds)},
              {"switchover", encode(job.switchover)},
              {"error", job.error ? encode(*job.error) : Json(nullptr)}};
}

Json encode(const VolumeStatus& volume) {
  return Json{{"path", volume.path},
              {"name", volume.name},
              {"tracker", volume.tracker},
              {"mode", volume.mode},
              {"state", volume.state},
              {"flags", volume.flags},
              {"method", name_of(volume.method)},
              {"size_bytes", volume.size_bytes},
              {"block_size_bytes", volume.block_size_bytes},
              {"dirty_blocks", volume.dirty_blocks},
              {"job", maybe(volume.job)}};
}

Json encode(const DoctorReport& report) {
  return Json{{"checks", encode_list(report.checks)}, {"ok", report.ok()}};
}

Json encode(const Error& error) {
  std::string message = error.what;
  if (error.sys != 0) message += std::string(": ") + std::strerror(error.sys);
  return Json{{"code", errc_name(error.code)},
              {"message", message},
              {"hint", error.hint},
              {"exit_code", exit_code(error.code)}};
}

Json encode_jobs(const std::vector<JobStatus>& jobs) { return Json{{"jobs", encode_list(jobs)}}; }

Json encode_volumes(const std::vector<VolumeStatus>& volumes) {
  return Json{{"volumes", encode_list(volumes)}};
}

Result<VersionInfo> decode_version(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  VersionInfo info;
  in.text("version", info.version, Need::required);
  in.number("api", info.api);
  in.number("protocol", info.protocol);
  in.text("host", info.host);
  in.text("module", info.module);
  return finish(in, std::move(info));
}

Result<Plan> decode_plan(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  Plan plan;
  in.text("vm", plan.vm);
  in.text("destination", plan.destination);
  read_list(in, "disks", plan.disks, read_plan_disk);
  in.number("memory_bytes", plan.memory_bytes);
  in.number("disk_bytes", plan.disk_bytes);
  read_list(in, "checks", plan.checks, read_check);
  return finish(in, std::move(plan));
}

Result<JobStatus> decode_job(const Json& json) { return read_job(json, ""); }

Result<std::vector<JobStatus>> decode_jobs(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  std::vector<JobStatus> jobs;
  read_list(in, "jobs", jobs, read_job);
  return finish(in, std::move(jobs));
}

Result<VolumeStatus> decode_volume(const Json& json) { return read_volume(json, ""); }

Result<std::vector<VolumeStatus>> decode_volumes(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  std::vector<VolumeStatus> volumes;
  read_list(in, "volumes", volumes, read_volume);
  return finish(in, std::move(volumes));
}

Result<DoctorReport> decode_report(const Json& json) {
  ObjectReader in(json, "", Unknown::lenient);
  DoctorReport report;
  read_list(in, "checks", report.checks, read_check);
  return finish(in, std::move(report));
}

Result<RemoteError> decode_error(const Json& json) {
  ObjectReader in(json, "error", Unknown::lenient);
  RemoteError remote;
  std::string code;
  std::optional<uint64_t> status;
  in.text("code", code);
  in.text("message", remote.error.what);
  in.text("hint", remote.error.hint);
  in.number("exit_code", status, 1, 255);
  remote.error.code = errc_from_name(code).value_or(kind_of_exit(status.value_or(1)));
  remote.exit_code = static_cast<int>(status.value_or(exit_code(remote.error.code)));
  return finish(in, std::move(remote));
}

}  // namespace ferry::api
