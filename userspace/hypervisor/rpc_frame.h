// SPDX-License-Identifier: GPL-2.0-or-later
// libvirt's RPC framing, as far as the Finish gate has to understand it: the length word, the six
// header words, and the arguments of the Finish calls up to "has the migration failed already".
// The numbers are part of libvirt's frozen wire protocol (remote_protocol.x, virnetprotocol.x).
// Thread-safety: plain values; one FrameSplitter per direction, owned by its reader.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry::hypervisor {

constexpr uint32_t kRemoteProgram = 0x20008086;
constexpr uint32_t kRemoteVersion = 1;
constexpr uint32_t kKeepaliveProgram = 0x6b656570;
constexpr uint32_t kKeepaliveVersion = 1;
constexpr int32_t kKeepalivePing = 1;
constexpr int32_t kKeepalivePong = 2;

constexpr int32_t kProcFinish1 = 63;
constexpr int32_t kProcFinish2 = 109;
constexpr int32_t kProcFinish3 = 217;
constexpr int32_t kProcFinish3Params = 306;

constexpr size_t kLengthBytes = 4;
constexpr size_t kHeaderBytes = 24;
// The length word counts itself; libvirt's limit on what follows it is 32 MiB.
constexpr size_t kFrameMinBytes = kLengthBytes + kHeaderBytes;
constexpr size_t kFrameMaxBytes = kLengthBytes + (size_t{32} << 20);

enum class RpcType : int32_t {
  call = 0,
  reply = 1,
  message = 2,
  stream = 3,
  call_with_fds = 4,
  reply_with_fds = 5,
  stream_hole = 6,
};

struct RpcHeader {
  uint32_t program = kRemoteProgram;
  uint32_t version = kRemoteVersion;
  int32_t procedure = 0;
  RpcType type = RpcType::call;
  uint32_t serial = 0;
  int32_t status = 0;  // replies: 0 ok, 1 error
};

using FrameBytes = std::vector<std::byte>;

// Cuts a byte stream into whole frames, however it was split on the way.
class FrameSplitter {
 public:
  void append(std::span<const std::byte> bytes);
  // The next whole frame, nothing when more bytes are needed, an error for an impossible length.
  // After an error the stream is lost.
  Result<std::optional<FrameBytes>> next();

 private:
  FrameBytes buffer_;
  size_t used_ = 0;
};

// Precondition: a whole frame as FrameSplitter returns it.
RpcHeader parse_header(std::span<const std::byte> frame);
FrameBytes make_frame(const RpcHeader& header, std::span<const std::byte> payload = {});

// A call that lets the destination's guest run, in any version of the migration protocol.
bool is_finish_call(const RpcHeader& header);
bool is_keepalive(const RpcHeader& header, int32_t procedure);
// Whether the client tells in this Finish call that the migration has failed on its side already,
// so that the destination drops its copy. Error: the arguments do not parse.
Result<bool> finish_is_cancelled(std::span<const std::byte> frame);

// The reply "the guest runs on the destination" to a FINISH3_PARAMS or FINISH3 call.
struct FinishedDomain {
  std::string name;
  std::array<std::byte, 16> uuid{};
  int32_t id = -1;
};
// `uuid` as libvirt writes it, with or without dashes.
Result<FinishedDomain> finished_domain(const std::string& name, const std::string& uuid, int id);
FrameBytes make_finish_reply(const RpcHeader& call, const FinishedDomain& domain);

}  // namespace ferry::hypervisor
