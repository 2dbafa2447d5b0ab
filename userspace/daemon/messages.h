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

namespace ferry::daemon {

using Json = nlohmann::json;

constexpr int kProtocolVersion = 1;
constexpr std::size_t kMaxDisks = 64;       // of one VM; bounds what a peer can make us allocate
constexpr std::size_t kMaxTextLength = 4096;  // names, paths

// What a connection is for. Its first message says it.
enum class Purpose { control, data, libvirt, probe };

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
};

struct PrepareRequest {
  std::string vm;
  bool create = false;   // make missing volumes
  bool dry_run = false;  // only say what would happen
  unsigned streams = 1;
  std::vector<DiskRequest> disks;
};

struct DiskReply {
  std::uint32_t index = 0;
  std::string path;
  std::string action;    // use, create
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

// Every decoder expects the given type; an "error" message becomes the Error it carries.
Result<Hello> hello_from(const Json&);
Result<Welcome> welcome_from(const Json&);
Result<PrepareRequest> prepare_request_from(const Json&);
Result<PrepareReply> prepare_reply_from(const Json&);
Result<std::vector<DiskDigest>> digests_from(const Json&);
Error error_from(const Json&);
// The "type" of a message, empty when there is none.
std::string type_of(const Json&);
std::string_view purpose_name(Purpose purpose);

}  // namespace ferry::daemon
