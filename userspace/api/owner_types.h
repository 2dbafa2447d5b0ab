// SPDX-License-Identifier: GPL-2.0-or-later
// The admin API's documents about who owns which disk (docs/api.md: /v1/owners) as C++ values.
// Requests are read strictly, answers leniently, as in api_types.h.
// Ownership, thread-safety: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "api/api_types.h"

namespace ferry::api {

// As far as the host that is asked can know.
enum class DiskOwner { this_host, peer, unknown };
// Whether the recorded volume lies under its path now; replaced: another volume does.
enum class Presence { present, absent, replaced };
std::string_view name_of(DiskOwner);
std::string_view name_of(Presence);

struct OwnedDisk {
  std::string vm;
  std::string target;                     // vda
  std::string path;                       // of the volume on this host
  DiskRole role = DiskRole::data;
  uint64_t size_bytes = 0;
  std::string uuid;                       // of the contents, the same on every host
  uint64_t generation = 0;                // counts the changes of owner
  std::string holding;                    // what this host has on record: moving, granting, given, …
  DiskOwner owner = DiskOwner::unknown;
  std::optional<std::string> owner_host;  // nothing while it is unknown
  std::string owner_note;                 // why it is unknown, or what that means; for people
  std::string session;                    // the migration that made it so
  Direction direction = Direction::out;   // of that migration, seen from this host
  std::string peer;                       // host:port
  std::string peer_host;
  std::optional<Time> since;
  std::string reason;
  bool verified = false;                  // both hosts' digests were equal after the hand-over
  Presence volume = Presence::present;
  std::optional<std::string> filter;      // its state; nothing: no filter in the volume, or not known
  bool must_be_barred = false;            // what the record demands
  std::optional<bool> barred;             // what the filter does now; nothing: cannot be told
};

struct OwnerList {
  std::string host;
  std::vector<OwnedDisk> disks;
};

// Names a VM, or the volume of one of its disks.
struct OwnerTarget {
  std::string vm;
  std::string path;
  bool empty() const { return vm.empty() && path.empty(); }
  const std::string& name() const { return vm.empty() ? path : vm; }
};

// libvirt's XML of a VM as it was when its migration began.
struct Definition {
  std::string vm;
  std::string session;                    // that migration
  std::string xml;
};

struct ForceBody {
  OwnerTarget target;
  bool peer_is_dead = false;              // the operator vouches for it
};
struct Forced {
  std::string vm;
  std::string session;
  std::vector<std::string> paths;
  std::optional<uint64_t> generation;     // of this host's new claim; nothing while a job makes it
  std::optional<std::string> job;         // the job that goes on from here
};

struct ReleaseBody {
  OwnerTarget target;
  bool unverified = false;                // also when the digests were never found equal
};
struct Released {
  std::string vm;                         // empty when no record named the volume
  std::vector<std::string> paths;
};

// Neither field, or one of them.
Result<OwnerTarget> decode_owner_query(const Json& json);
// One of them.
Result<OwnerTarget> decode_definition_query(const Json& json);
Result<ForceBody> decode_force(const Json& json);
Result<ReleaseBody> decode_release(const Json& json);
Json encode(const ForceBody& body);
Json encode(const ReleaseBody& body);

Json encode(const OwnedDisk& disk);
Json encode(const OwnerList& list);
Json encode(const Definition& definition);
Json encode(const Forced& forced);
Json encode(const Released& released);
Result<OwnerList> decode_owners(const Json& json);
Result<Definition> decode_definition(const Json& json);
Result<Forced> decode_forced(const Json& json);
Result<Released> decode_released(const Json& json);

}  // namespace ferry::api
