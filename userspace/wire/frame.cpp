// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/frame.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "io/hash.h"

namespace ferry::wire {
namespace {

template <typename T>
void put(std::byte* at, T value) {
  for (size_t i = 0; i < sizeof value; ++i)
    at[i] = static_cast<std::byte>(value >> (8 * i));
}

template <typename T>
T get(const std::byte* at) {
  T value = 0;
  for (size_t i = 0; i < sizeof value; ++i)
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(at[i]) << (8 * i)));
  return value;
}

struct TypeRule {
  FrameType type;
  std::string_view name;
  uint32_t min_bytes, max_bytes;
  bool has_place;   // disk and offset name a place on a disk
  bool has_number;  // offset is a plain number
};

constexpr std::array kRules{
    TypeRule{FrameType::control, "control", 2, kMaxControlBytes, false, false},
    TypeRule{FrameType::extent, "extent", kSectorBytes, kMaxExtentBytes, true, false},
    TypeRule{FrameType::zero, "zero", kZeroBodyBytes, kZeroBodyBytes, true, false},
    TypeRule{FrameType::ack, "ack", kAckBytes, kAckBytes, false, false},
    TypeRule{FrameType::end_round, "end_round", 0, 0, false, true},
    TypeRule{FrameType::error, "error", 0, kMaxErrorBytes, false, false},
    TypeRule{FrameType::hello, "hello", 0, 0, false, true},
    TypeRule{FrameType::check, "check", kCheckHashBytes, kMaxCheckBlocks * kCheckHashBytes, true,
             false},
    TypeRule{FrameType::differs, "differs", kDiffersBytes, kDiffersBytes, true, false},
};

const TypeRule* rule_of(FrameType type) {
  for (const auto& rule : kRules)
    if (rule.type == type) return &rule;
  return nullptr;
}

Error broken(std::string what) {
  return make_error(Errc::protocol, "the peer broke the protocol: " + std::move(what), 0,
                    "both hosts have to run the same version of ferryd");
}

Status check_place(const TypeRule& rule, const FrameHeader& header) {
  const std::string name(rule.name);
  if (!rule.has_place && header.disk != 0) return broken(name + " frame names a disk");
  if (!rule.has_place && !rule.has_number && header.offset != 0)
    return broken(name + " frame names an offset");
  if (!rule.has_place) return ok_status();
  if (header.disk >= kMaxDisks) return broken(name + " frame for disk " +
                                              std::to_string(header.disk));
  if (header.offset % kBlockBytes != 0 || header.offset >= kMaxDiskBytes)
    return broken(name + " frame at offset " + std::to_string(header.offset));
  return ok_status();
}

// The JSON reader keeps a stack of its own, but writers and users of the value recurse.
bool too_deep(std::string_view text) {
  uint32_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') ++i;
    else if (c == '"') in_string = !in_string;
    else if (!in_string && (c == '{' || c == '[') && ++depth > kMaxControlDepth) return true;
    else if (!in_string && (c == '}' || c == ']') && depth > 0) --depth;
  }
  return false;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string_view frame_type_name(FrameType type) {
  const TypeRule* rule = rule_of(type);
  return rule != nullptr ? rule->name : "unknown";
}

FrameHeader make_header(FrameType type, uint32_t disk, uint64_t offset,
                        std::span<const std::byte> payload) {
  return {type, 0, static_cast<uint32_t>(payload.size()), disk, offset,
          xxh3_64(payload.data(), payload.size())};
}

void encode_header(const FrameHeader& header, std::span<std::byte, kHeaderBytes> out) {
  put(&out[0], kFrameMagic);
  put(&out[4], static_cast<uint16_t>(header.type));
  put(&out[6], header.flags);
  put(&out[8], header.length_bytes);
  put(&out[12], header.disk);
  put(&out[16], header.offset);
  put(&out[24], header.checksum);
}

Result<FrameHeader> parse_header(std::span<const std::byte, kHeaderBytes> bytes) {
  if (get<uint32_t>(&bytes[0]) != kFrameMagic) return broken("a frame without the magic number");
  FrameHeader header;
  header.type = static_cast<FrameType>(get<uint16_t>(&bytes[4]));
  header.flags = get<uint16_t>(&bytes[6]);
  header.length_bytes = get<uint32_t>(&bytes[8]);
  header.disk = get<uint32_t>(&bytes[12]);
  header.offset = get<uint64_t>(&bytes[16]);
  header.checksum = get<uint64_t>(&bytes[24]);

  const TypeRule* rule = rule_of(header.type);
  if (rule == nullptr)
    return broken("frame of unknown type " +
                  std::to_string(static_cast<unsigned>(header.type)));
  if (header.flags != 0) return broken("unknown flags in a frame");
  if (header.length_bytes < rule->min_bytes || header.length_bytes > rule->max_bytes)
    return broken(std::string(rule->name) + " frame of " + std::to_string(header.length_bytes) +
                  " bytes");
  if (header.type == FrameType::extent && header.length_bytes % kSectorBytes != 0)
    return broken("extent frame of " + std::to_string(header.length_bytes) + " bytes");
  if (header.type == FrameType::check && header.length_bytes % kCheckHashBytes != 0)
    return broken("check frame of " + std::to_string(header.length_bytes) + " bytes");
  FERRY_TRY(check_place(*rule, header));
  return header;
}

Status check_payload(const FrameHeader& header, std::span<const std::byte> payload) {
  if (payload.size() != header.length_bytes) return broken("a payload of the wrong length");
  if (xxh3_64(payload.data(), payload.size()) != header.checksum)
    return broken("checksum of a " + std::string(frame_type_name(header.type)) +
                  " frame does not fit its payload");
  return ok_status();
}

void encode_zero(uint64_t length_bytes, std::span<std::byte, kZeroBodyBytes> out) {
  put(out.data(), length_bytes);
}

Result<uint64_t> parse_zero(const FrameHeader& header, std::span<const std::byte> payload) {
  if (payload.size() != kZeroBodyBytes) return broken("a zero frame of the wrong length");
  const auto length_bytes = get<uint64_t>(payload.data());
  if (length_bytes == 0 || length_bytes > kMaxZeroBytes || length_bytes % kSectorBytes != 0)
    return broken("zero frame for " + std::to_string(length_bytes) + " bytes");
  if (header.offset > kMaxDiskBytes - length_bytes) return broken("zero frame past any disk");
  return length_bytes;
}

Result<uint64_t> parse_check(const FrameHeader& header, uint64_t disk_size_bytes) {
  const uint64_t whole_bytes = header.length_bytes / kCheckHashBytes * kBlockBytes;
  const uint64_t left_bytes = disk_size_bytes - std::min(header.offset, disk_size_bytes);
  const uint64_t length_bytes = std::min(whole_bytes, left_bytes);
  // Only the last block may be cut, and something has to be left of it.
  const bool outside = length_bytes + kBlockBytes <= whole_bytes;
  FERRY_TRY(check_range(header.offset, outside ? whole_bytes : length_bytes, disk_size_bytes));
  return length_bytes;
}

void encode_differs(uint64_t mask, std::span<std::byte, kDiffersBytes> out) {
  put(out.data(), mask);
}

Result<uint64_t> parse_differs(std::span<const std::byte> payload, uint64_t blocks) {
  if (payload.size() != kDiffersBytes) return broken("a differs frame of the wrong length");
  const auto mask = get<uint64_t>(payload.data());
  if (mask == 0) return broken("a differs frame without a block");
  if (blocks < 64 && mask >> blocks != 0)
    return broken("a differs frame for more than the " + std::to_string(blocks) +
                  " blocks that were checked");
  return mask;
}

void encode_ack(const AckBody& ack, std::span<std::byte, kAckBytes> out) {
  put(&out[0], ack.landed_bytes);
  put(&out[8], ack.landed_frames);
}

Result<AckBody> parse_ack(std::span<const std::byte> payload) {
  if (payload.size() != kAckBytes) return broken("an ack frame of the wrong length");
  return AckBody{get<uint64_t>(&payload[0]), get<uint64_t>(&payload[8])};
}

std::string encode_error(const Error& error) {
  std::string text(errc_name(error.code));
  text += '\n';
  text += error.message();
  if (text.size() > kMaxErrorBytes) text.resize(kMaxErrorBytes);
  return text;
}

Error parse_error(std::span<const std::byte> payload) {
  const std::string_view text = as_text(payload);
  const size_t split = std::min(text.find('\n'), text.size());
  const Errc code = errc_from_name(text.substr(0, split)).value_or(Errc::failed);
  std::string said(split < text.size() ? text.substr(split + 1) : text);
  // It will be shown on terminals and written to logs: printable ASCII and UTF-8 only.
  std::replace_if(said.begin(), said.end(),
                  [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; }, ' ');
  return make_error(code, "the peer reports: " + said);
}

Result<nlohmann::json> parse_control(std::span<const std::byte> payload) {
  const std::string_view text = as_text(payload);
  if (text.size() > kMaxControlBytes) return broken("a control frame that is too long");
  if (too_deep(text)) return broken("a control frame that nests too deep");
  auto value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return broken("a control frame that is not JSON");
  if (!value.is_object()) return broken("a control frame that is not a JSON object");
  return value;
}

Status check_range(uint64_t offset_bytes, uint64_t length_bytes, uint64_t disk_size_bytes) {
  const auto range = [&] {
    return std::to_string(length_bytes) + " bytes at offset " + std::to_string(offset_bytes) +
           " of a disk of " + std::to_string(disk_size_bytes) + " bytes";
  };
  if (length_bytes == 0 || offset_bytes > disk_size_bytes ||
      length_bytes > disk_size_bytes - offset_bytes)
    return broken(range() + " lie outside it");
  const bool at_end = offset_bytes + length_bytes == disk_size_bytes;
  if (offset_bytes % kBlockBytes != 0 || (length_bytes % kBlockBytes != 0 && !at_end))
    return broken(range() + " are not whole blocks");
  return ok_status();
}

}  // namespace ferry::wire
