// SPDX-License-Identifier: GPL-2.0-or-later
// The admin API's documents as C++ values, and their way to and from JSON. docs/api.md describes
// every field. Requests are read strictly (an unknown field is an error), answers leniently, so
// that a client understands a daemon that is one version newer.
// Ownership, thread-safety: plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/json_reader.h"
#include "base/result.h"

namespace ferry::api {

inline constexpr uint64_t kApiVersion = 1;
inline constexpr uint16_t kPeerPortDefault = 7391;
inline constexpr const char* kSocketPathDefault = "/run/ferry/ctl.sock";

// Bounds of a start request. Beyond them lies a slip of the keyboard, not a wish.
inline constexpr uint64_t kMaxDowntimeMsMax = 600'000;      // ten minutes
inline constexpr uint64_t kBandwidthMin = 64 * 1024;        // slower never ends
inline constexpr uint64_t kBandwidthMax = 1ULL << 44;       // 16 TiB/s
inline constexpr uint64_t kStreamsMax = 16;                 // each is a thread on both hosts
inline constexpr uint64_t kKeepSDefault = 24 * 3600;
inline constexpr uint64_t kRetryForSDefault = 600;
inline constexpr uint64_t kTimeoutSMax = 30ULL * 24 * 3600;  // thirty days

using Time = std::chrono::sys_time<std::chrono::milliseconds>;
Time now();
// "2025-01-31T12:34:56.789Z": always UTC, always milliseconds.
std::string format_time(Time time);
std::optional<Time> parse_time(std::string_view text);

enum class DiskRole { data, swap, scratch };
enum class Direction { out, in };
enum class JobState { preparing, precopy, switching, verifying, waiting, paused, done, failed, aborted };
enum class Owner { source, destination, unknown };
enum class Method { none, in_place, stacked };
enum class DestinationAction { use, create };

std::string_view name_of(DiskRole);
std::string_view name_of(Direction);
std::string_view name_of(JobState);
std::string_view name_of(Owner);
std::string_view name_of(Method);
std::string_view name_of(DestinationAction);
std::optional<DiskRole> role_from_name(std::string_view name);
// done, failed and aborted: nothing changes any more.
bool is_final(JobState state);

struct HostPort {
  std::string host;
  uint16_t port = kPeerPortDefault;
};
// "hostb", "hostb:7391", "192.0.2.1:7391", "[2001:db8::1]:7391".
Result<HostPort> parse_host_port(const std::string& text);
std::string to_string(const HostPort& peer);

struct StartRequest {
  std::string vm;
  std::string destination;                 // host[:port]
  bool create = false;                     // create missing volumes over there
  std::map<std::string, DiskRole> roles;   // by target name; others are recognised
  // Nothing: what ferry.conf says.
  std::optional<uint64_t> max_downtime_ms;
  std::optional<uint64_t> bandwidth_bytes_per_s;
  std::optional<uint64_t> streams;
  std::optional<uint64_t> timeout_s;
  std::optional<uint64_t> keep_s;          // if it is called off, how long what was copied is kept; 0: not at all
  std::optional<uint64_t> retry_for_s;     // how long it is tried again after the link broke; 0: not at all
};

struct Check {
  std::string name;
  bool ok = false;
  std::string detail;          // what was seen
  std::string hint;            // what to do if it is not ok
  std::optional<Errc> code;    // the kind of error a migration would end with
};
bool all_ok(const std::vector<Check>& checks);

struct PlanDisk {
  std::string target;
  std::string path;
  DiskRole role = DiskRole::data;
  uint64_t size_bytes = 0;
  Method method = Method::none;
  std::string destination_path;
  DestinationAction destination_action = DestinationAction::use;
};

struct Plan {
  std::string vm;
  std::string destination;
  std::vector<PlanDisk> disks;
  uint64_t memory_bytes = 0;
  uint64_t disk_bytes = 0;                // upper bound of what the first round sends
  std::vector<Check> checks;
  bool ok() const { return all_ok(checks); }
};

struct DiskStatus {
  std::string name;                       // the VM's name for it: vda
  DiskRole role = DiskRole::data;
  std::string path;                       // on this host
  std::string destination_path;
  uint64_t size_bytes = 0;
  uint64_t bytes_total = 0;               // to be carried so far, all rounds; grows with each round
  uint64_t bytes_sent = 0;                // landed on the destination
  uint64_t zero_bytes = 0;                // of those: all zero, so only a note travelled
  uint64_t dirty_bytes = 0;               // residual of this disk
  std::optional<std::string> digest_source;
  std::optional<std::string> digest_destination;
  std::optional<bool> digest_equal;
};

struct MemoryStatus {
  uint64_t processed_bytes = 0;
  uint64_t remaining_bytes = 0;
  uint64_t total_bytes = 0;
};

struct RoundStatus {
  uint64_t n = 0;
  uint64_t bytes = 0;
  uint64_t ms = 0;
  std::optional<uint64_t> dirty_bytes;    // what was dirty again when it ended
};

// All as this daemon's clock saw it; nothing until it happened.
struct Switchover {
  std::optional<uint64_t> paused_ms;      // guest pause on the source → guest runs over there
  std::optional<uint64_t> memory_ms;      // guest pause → the hypervisor's memory is over
  std::optional<uint64_t> freeze_ms;      // how long writes were held back
  std::optional<uint64_t> copy_ms;        // last round, guest paused
  std::optional<uint64_t> copy_bytes;
  std::optional<uint64_t> handover_ms;    // fence, gate, resume
};

struct JobStatus {
  std::string id;
  std::string vm;
  std::string destination;                // host[:port] as it was asked for
  std::string peer;                       // name in the peer's certificate; empty until connected
  Direction direction = Direction::out;
  JobState state = JobState::preparing;
  std::string phase_detail;               // one line for people
  uint64_t round = 0;
  std::vector<DiskStatus> disks;
  uint64_t rate_bytes_per_s = 0;
  uint64_t dirty_rate_bytes_per_s = 0;
  uint64_t residual_bytes = 0;
  MemoryStatus memory;
  double progress = 0;                    // 0..1
  std::optional<uint64_t> eta_ms;
  std::optional<uint64_t> downtime_estimate_ms;
  std::optional<uint64_t> max_downtime_ms;
  std::optional<Time> started_at;
  std::optional<Time> ended_at;
  std::optional<uint64_t> total_ms;
  std::vector<RoundStatus> rounds;
  Switchover switchover;
  std::optional<Error> error;
  Owner owner = Owner::source;
  uint64_t attempt = 1;                   // grows when the job goes on after an interruption
  std::optional<Time> next_try_at;        // while waiting
};

struct VolumeStatus {
  std::string path;
  std::string name;                       // device-mapper name
  std::string tracker;                    // uuid
  std::string mode;                       // track | gate
  std::string state;                      // tracking, frozen, fenced, gated, invalid, …
  std::vector<std::string> flags;
  Method method = Method::none;
  uint64_t size_bytes = 0;
  uint64_t block_size_bytes = 0;
  uint64_t dirty_blocks = 0;
  std::optional<std::string> job;         // the job that holds it
};

struct VersionInfo {
  std::string version;
  uint64_t api = kApiVersion;
  uint64_t protocol = 1;
  std::string host;
  std::optional<std::string> module;      // version of dm-ferry; nothing: not loaded
};

struct DoctorReport {
  std::vector<Check> checks;
  bool ok() const { return all_ok(checks); }
};

struct AttachBody {
  std::string path;
};
struct AbortBody {
  bool discard = false;                   // keep nothing of what was copied
};
struct DetachBody {
  std::string path;
};
struct DoctorBody {
  std::optional<std::string> peer;
};

// Requests, read strictly.
Result<StartRequest> decode_start(const Json& json);
Result<AbortBody> decode_abort(const Json& json);
Result<AttachBody> decode_attach(const Json& json);
Result<DetachBody> decode_detach(const Json& json);
Result<DoctorBody> decode_doctor(const Json& json);
Json encode(const StartRequest& request);
Json encode(const AbortBody& body);
Json encode(const AttachBody& body);
Json encode(const DetachBody& body);
Json encode(const DoctorBody& body);

// Answers, read leniently.
Json encode(const VersionInfo& info);
Json encode(const PlanDisk& disk);
Json encode(const DiskStatus& disk);
Json encode(const RoundStatus& round);
Json encode(const Switchover& switchover);
Json encode(const Plan& plan);
Json encode(const Check& check);
Json encode(const JobStatus& job);
Json encode(const VolumeStatus& volume);
Json encode(const DoctorReport& report);
Json encode(const Error& error);
Json encode_jobs(const std::vector<JobStatus>& jobs);
Json encode_volumes(const std::vector<VolumeStatus>& volumes);
Result<VersionInfo> decode_version(const Json& json);
Result<Plan> decode_plan(const Json& json);
Result<JobStatus> decode_job(const Json& json);
Result<std::vector<JobStatus>> decode_jobs(const Json& json);
Result<VolumeStatus> decode_volume(const Json& json);
Result<std::vector<VolumeStatus>> decode_volumes(const Json& json);
Result<DoctorReport> decode_report(const Json& json);
// The object below "error". exit_code is right even for a code that this build does not know.
struct RemoteError {
  Error error;
  int exit_code = 1;
};
Result<RemoteError> decode_error(const Json& json);

}  // namespace ferry::api
