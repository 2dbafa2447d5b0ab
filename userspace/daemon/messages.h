// SPDX-License-Identifier: GPL-2.0-or-later
// The control messages of the peer protocol (docs/protocol.md, section Session): JSON objects with a
// "type". These structs are their only reader and writer; decoding checks every field.
// Thread-safety: plain values.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "wire/control.h"

namespace ferry::daemon {

using Json = nlohmann::json;

constexpr int kProtocolVersion = 3;
constexpr std::size_t kMaxDisks = 64;       // of one VM; bounds what a peer can make us allocate
constexpr std::size_t kMaxTextLength = 4096;  // names, paths
constexpr std::size_t kMaxDefinitionLength = 512 * 1024;  // of a VM, as libvirt's XML

// What a connection is for. Its first message says it. `owner` goes on with a session whose control
// connection was lost, or asks about one that is over.
enum class Purpose { control, data, libvirt, probe, owner };

struct Hello {
  int protocol = kProtocolVersion;
  std::string version;
  std::string host;      // the sender's name
  Purpose purpose = Purpose::probe;
  std::string session;   // job id, not for probe
};

struct Welcome {
  int protocol = kProtocolVersion;
  std::string version;
  std::string host;
};

struct DiskRequest {
  std::uint32_t index = 0;
  std::string target;    // vda
  std::string path;      // on the source; the destination uses the same unless it says otherwise
  std::string role;      // data, swap, scratch
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_size = 512;
  std::string uuid;      // of the disk's contents; empty for scratch
  // The source knows every block that was written since it took the disk over as this generation; 0: it does not.
  std::uint64_t changes_since = 0;
};

struct PrepareRequest {
  std::string vm;
  std::string definition;        // the VM's, for the case that its guest is lost on the way
  std::uint64_t generation = 0;  // what the destination will own the disks as
  unsigned peer_port = 0;        // where the source's own daemon listens
  bool create = false;   // make missing volumes
  bool dry_run = false;  // only say what would happen
  unsigned streams = 1;
  std::uint64_t keep_s = 0;  // if the migration is called off, how long what was copied is kept
  std::vector<DiskRequest> disks;
};

// What the destination's volume holds of the disk before the first round.
enum class Base {
  none,  // nothing that is known: everything is copied
  some,  // an older or incomplete copy: what differs is copied
  exact,  // the generation of changes_since, proven by its digest: what was written since is copied
};
std::string_view base_name(Base base);

struct DiskReply {
  std::uint32_t index = 0;
  std::string path;
  std::string action;    // use, create
  Base base = Base::none;
};

struct PrepareReply {
  std::vector<DiskReply> disks;
  std::string memory_address;
};

struct DiskDigest {
  std::uint32_t index = 0;
  std::string digest;            // hex
  std::uint64_t mismatches = 0;  // blocks on the destination's disk that differ from what was received
};

Json to_json(const Hello&);
Json to_json(const Welcome&);
Json to_json(const PrepareRequest&);
Json to_json(const PrepareReply&);
Json to_json(const std::vector<DiskDigest>&);
Json to_json(const Error&);            // {"type":"error", …}
Json plain_message(std::string_view type);

// "revoke" and "return": what was granted as `generation` is never to be opened, is to be given back.
struct OwnerQuestion {
  std::string type;
  std::uint64_t generation = 0;
  std::vector<std::string> uuids;  // of the disks
};
Json to_json(const OwnerQuestion&);

// "abort": nothing of the migration is wanted any more; with `discard` neither what was copied.
Json abort_message(bool discard);
bool discards(const Json& abort);

// Every decoder expects the given type; an "error" message becomes the Error it carries.
Result<Hello> hello_from(const Json&);
Result<Welcome> welcome_from(const Json&);
Result<PrepareRequest> prepare_request_from(const Json&);
Result<PrepareReply> prepare_reply_from(const Json&);
Result<std::vector<DiskDigest>> digests_from(const Json&);
Error error_from(const Json&);
Result<OwnerQuestion> owner_question_from(const Json&, std::string_view type);
using wire::type_of;
std::string_view purpose_name(Purpose purpose);

}  // namespace ferry::daemon
