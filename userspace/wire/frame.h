// SPDX-License-Identifier: GPL-2.0-or-later
// Frames of the peer link: the 32-byte header, its limits, and the bodies of each type. Pure
// functions over bytes, no sockets: everything a peer may send is judged here and fuzzed here.
// The layout is described in docs/protocol.md. Thread-safe: no state.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "base/result.h"

namespace ferry::wire {

// Peers of different protocol numbers refuse each other right after the TLS handshake.
inline constexpr uint32_t kProtocolVersion = 2;

inline constexpr uint32_t kFrameMagic = 0x31595246;  // "FRY1" as bytes
inline constexpr size_t kHeaderBytes = 32;
inline constexpr uint32_t kMaxControlBytes = 1u << 20;
inline constexpr uint32_t kMaxControlDepth = 32;
// 256 KiB stays in the L2 cache between read, zero test, checksum and encryption.
inline constexpr uint32_t kMaxExtentBytes = 256u << 10;
// Bounds how long a receiver is busy with one zero frame.
inline constexpr uint64_t kMaxZeroBytes = 16u << 20;
inline constexpr uint32_t kMaxErrorBytes = 4096;
inline constexpr uint32_t kMaxDisks = 256;
// Offsets are multiples of a block; lengths too, except where an extent ends with the disk.
inline constexpr uint64_t kBlockBytes = 4096;
inline constexpr uint64_t kSectorBytes = 512;
inline constexpr uint64_t kMaxDiskBytes = 1ull << 60;
// A check frame compares the blocks of at most one extent. 128 bits: see mover/check_hash.h.
inline constexpr size_t kCheckHashBytes = 16;
inline constexpr uint32_t kMaxCheckBlocks = kMaxExtentBytes / kBlockBytes;
static_assert(kMaxCheckBlocks <= 64, "the mask of a differs frame has 64 bits");
// Extent, zero and check frames a sender may have unacknowledged on one stream. A receiver keeps as
// many buffers, so it can always read on and a slow disk never closes the TCP window.
inline constexpr unsigned kWindowFrames = 64;

enum class FrameType : uint16_t {
  control = 1,    // JSON
  extent = 2,     // payload = the data for `disk` at `offset`
  zero = 3,       // payload = le u64: so many bytes of `disk` at `offset` are zero
  ack = 4,        // payload = AckBody
  end_round = 5,  // offset = round number; echoed when everything before it is written
  error = 6,      // payload = "errc_name\ntext": the peer gives up and says why
  hello = 7,      // offset = protocol version; the first frame in both directions
  check = 8,      // payload = a hash for each block of `disk` from `offset` on
  differs = 9,    // payload = le u64: mask of the blocks of a check frame that are not the same
};
std::string_view frame_type_name(FrameType type);

struct FrameHeader {
  FrameType type = FrameType::control;
  uint16_t flags = 0;  // none defined: has to be zero
  uint32_t length_bytes = 0;
  uint32_t disk = 0;
  uint64_t offset = 0;
  uint64_t checksum = 0;  // XXH3-64 of the payload, also of an empty one

  bool operator==(const FrameHeader&) const = default;
};

// Header that fits `payload`, checksum included.
FrameHeader make_header(FrameType type, uint32_t disk, uint64_t offset,
                        std::span<const std::byte> payload);
void encode_header(const FrameHeader& header, std::span<std::byte, kHeaderBytes> out);
// Judges magic, type, flags and every limit, before any memory is taken for the payload.
Result<FrameHeader> parse_header(std::span<const std::byte, kHeaderBytes> bytes);
Status check_payload(const FrameHeader& header, std::span<const std::byte> payload);

struct AckBody {
  // Both count since the stream was opened and cover extent, zero and check frames.
  uint64_t landed_bytes = 0;
  uint64_t landed_frames = 0;
  bool operator==(const AckBody&) const = default;
};
inline constexpr size_t kAckBytes = 16;
inline constexpr size_t kZeroBodyBytes = 8;
inline constexpr size_t kDiffersBytes = 8;

void encode_zero(uint64_t length_bytes, std::span<std::byte, kZeroBodyBytes> out);
Result<uint64_t> parse_zero(const FrameHeader& header, std::span<const std::byte> payload);
// The bytes that a check frame covers on a disk of `disk_size_bytes`: a block per hash, the last
// one cut at the disk's end. Fails when a block lies outside; otherwise at most kMaxExtentBytes.
Result<uint64_t> parse_check(const FrameHeader& header, uint64_t disk_size_bytes);
// Bit i stands for block i of the check frame. Parsed, at least one of the first `blocks` bits is
// set and no other.
void encode_differs(uint64_t mask, std::span<std::byte, kDiffersBytes> out);
Result<uint64_t> parse_differs(std::span<const std::byte> payload, uint64_t blocks);
void encode_ack(const AckBody& ack, std::span<std::byte, kAckBytes> out);
Result<AckBody> parse_ack(std::span<const std::byte> payload);
std::string encode_error(const Error& error);
// Never fails: a text nobody can read is an error of the peer all the same.
Error parse_error(std::span<const std::byte> payload);
Result<nlohmann::json> parse_control(std::span<const std::byte> payload);

// Does [offset, offset + length) lie in a disk of `disk_size_bytes`, in whole blocks?
Status check_range(uint64_t offset_bytes, uint64_t length_bytes, uint64_t disk_size_bytes);

}  // namespace ferry::wire
