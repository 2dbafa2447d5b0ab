// SPDX-License-Identifier: GPL-2.0-or-later
// What this host durably knows of the disks that moved, move, or came: who owns their contents. Plain
// values; OwnershipStore makes them durable, migration/ decides what they become (docs/ownership.md).
// Thread-safety: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ferry::store {

enum class Holding {
  moving,     // source: ours; a session copies it away, nothing was granted
  granting,   // source: fenced, the grant may have left: in doubt until the peer says opened or revoked
  given,      // the peer owns it; the contents here are an old generation, fenced
  receiving,  // destination: being filled, incomplete
  prepared,   // destination: complete and flushed; opens on a grant and on nothing else
  owned,      // ours: the guest may run on it
  revoked,    // destination: promised never to open this generation; what is left of it is nobody's
};
std::string_view holding_name(Holding holding);
std::optional<Holding> holding_from_name(std::string_view name);
// True when nobody on this host may write to the volume by its usual path.
bool is_barred(Holding holding);

// Now, in the unit of every time on record: Unix time in seconds.
std::int64_t unix_now();

// One disk of a VM, as far as this host is concerned. A host has at most one record for a disk and
// at most one for a path.
struct DiskRecord {
  std::string uuid;              // of the disk's contents, the same on every host: 36 characters
  std::uint64_t generation = 0;  // counts the changes of owner; a higher one always wins
  Holding holding = Holding::owned;
  std::string session;           // the migration that made it so
  std::string target;            // vda
  std::string path;              // of the volume here
  std::string volume_id;         // volume::VolumeInfo::id: another volume under the same path is not this one
  std::string role;              // data, swap
  std::uint64_t size_bytes = 0;
  bool created = false;          // the volume was made for the session and may go with it
  bool verified = false;         // after the session's hand-over both hosts' digests were equal
  std::string digest;            // of the contents when they changed hands; empty: not known
  std::string tracker;           // of the filter that has seen every write since the disk is ours; empty: none has
  std::int64_t expires_at = 0;   // Unix time in seconds: a called-off copy is kept until then; 0: not such a copy
  std::string reason;            // for people: why it is held so
  std::int64_t changed_at = 0;   // Unix time in seconds; set by the store
};

// One migration, as far as its disks refer to it.
struct SessionRecord {
  std::string id;
  std::string vm;
  std::string peer;        // host:port where the other side's daemon listens
  std::string peer_host;   // how the other side calls itself
  bool outgoing = false;   // we are its source
  std::string domain_xml;  // the VM's definition, to start it from when its guest was lost on the way
  std::string errand{};    // source: what to go on with when ferryd starts; empty: nothing (daemon/move_job.h)
};

}  // namespace ferry::store
