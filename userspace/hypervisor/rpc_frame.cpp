// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/rpc_frame.h"

#include <string_view>

namespace ferry::hypervisor {
namespace {

uint32_t load_u32(const std::byte* at) {
  return std::to_integer<uint32_t>(at[0]) << 24 | std::to_integer<uint32_t>(at[1]) << 16 |
         std::to_integer<uint32_t>(at[2]) << 8 | std::to_integer<uint32_t>(at[3]);
}

void put_u32(FrameBytes& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8)
    out.push_back(static_cast<std::byte>(value >> shift & 0xff));
}

constexpr size_t padded(size_t length) { return (length + 3) & ~size_t{3}; }

void put_opaque(FrameBytes& out, const void* data, size_t length) {
  put_u32(out, static_cast<uint32_t>(length));
  auto* bytes = static_cast<const std::byte*>(data);
  out.insert(out.end(), bytes, bytes + length);
  out.resize(out.size() + padded(length) - length);
}

// Walks over XDR values without keeping them. Once it has run out of bytes it stays failed.
class XdrCursor {
 public:
  explicit XdrCursor(std::span<const std::byte> bytes) : rest_(bytes) {}

  uint32_t u32() {
    if (!take(4)) return 0;
    return load_u32(taken_);
  }
  void skip_u64() { take(8); }
  void skip_opaque() {
    size_t length = u32();
    take(padded(length));
  }
  void skip_optional_string() {
    if (u32() != 0) skip_opaque();
  }
  void skip_typed_parameter() {
    skip_opaque();  // the field's name
    switch (u32()) {
      case 1:  // int
      case 2:  // unsigned int
      case 6:  // boolean
        take(4);
        break;
      case 3:  // long long
      case 4:  // unsigned long long
      case 5:  // double
        take(8);
        break;
      case 7:  // string
        skip_opaque();
        break;
      default:
        good_ = false;
    }
  }
  bool good() const { return good_; }
  bool ended_well() const { return good_ && rest_.empty(); }

 private:
  bool take(size_t length) {
    if (!good_ || length > rest_.size()) return good_ = false;
    taken_ = rest_.data();
    rest_ = rest_.subspan(length);
    return true;
  }

  std::span<const std::byte> rest_;
  const std::byte* taken_ = nullptr;
  bool good_ = true;
};

}  // namespace

void FrameSplitter::append(std::span<const std::byte> bytes) {
  if (used_ == buffer_.size()) {
    buffer_.clear();
    used_ = 0;
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

Result<std::optional<FrameBytes>> FrameSplitter::next() {
  const size_t available = buffer_.size() - used_;
  if (available < kLengthBytes) return std::optional<FrameBytes>{};
  const size_t length = load_u32(buffer_.data() + used_);
  if (length < kFrameMinBytes || length > kFrameMaxBytes)
    return make_error(Errc::protocol,
                      "libvirt frame with the impossible length " + std::to_string(length));
  if (available < length) return std::optional<FrameBytes>{};
  auto begin = buffer_.begin() + static_cast<std::ptrdiff_t>(used_);
  FrameBytes frame(begin, begin + static_cast<std::ptrdiff_t>(length));
  used_ += length;
  // The consumed front goes away in large steps only, so that many small frames stay cheap.
  if (used_ >= buffer_.size() / 2) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(used_));
    used_ = 0;
  }
  return std::optional<FrameBytes>{std::move(frame)};
}

RpcHeader parse_header(std::span<const std::byte> frame) {
  auto word = [&](size_t index) { return load_u32(frame.data() + kLengthBytes + 4 * index); };
  return RpcHeader{.program = word(0),
                   .version = word(1),
                   .procedure = static_cast<int32_t>(word(2)),
                   .type = static_cast<RpcType>(word(3)),
                   .serial = word(4),
                   .status = static_cast<int32_t>(word(5))};
}

FrameBytes make_frame(const RpcHeader& header, std::span<const std::byte> payload) {
  FrameBytes frame;
  frame.reserve(kFrameMinBytes + payload.size());
  put_u32(frame, static_cast<uint32_t>(kFrameMinBytes + payload.size()));
  put_u32(frame, header.program);
  put_u32(frame, header.version);
  put_u32(frame, static_cast<uint32_t>(header.procedure));
  put_u32(frame, static_cast<uint32_t>(header.type));
  put_u32(frame, header.serial);
  put_u32(frame, static_cast<uint32_t>(header.status));
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

bool is_finish_call(const RpcHeader& header) {
  if (header.program != kRemoteProgram) return false;
  if (header.type != RpcType::call && header.type != RpcType::call_with_fds) return false;
  return header.procedure == kProcFinish1 || header.procedure == kProcFinish2 ||
         header.procedure == kProcFinish3 || header.procedure == kProcFinish3Params;
}

bool is_keepalive(const RpcHeader& header, int32_t procedure) {
  return header.program == kKeepaliveProgram && header.procedure == procedure;
}

Result<bool> finish_is_cancelled(std::span<const std::byte> frame) {
  const RpcHeader header = parse_header(frame);
  XdrCursor cursor(frame.subspan(kFrameMinBytes));
  bool cancelled = false;
  switch (header.procedure) {
    case kProcFinish1:  // name, cookie, uri, flags: this version cannot tell
      cursor.skip_opaque();
      cursor.skip_opaque();
      cursor.skip_opaque();
      cursor.skip_u64();
      break;
    case kProcFinish2:  // the same and a return code
      cursor.skip_opaque();
      cursor.skip_opaque();
      cursor.skip_opaque();
      cursor.skip_u64();
      cancelled = cursor.u32() != 0;
      break;
    case kProcFinish3:  // name, cookie, dconnuri, uri, flags, cancelled
      cursor.skip_opaque();
      cursor.skip_opaque();
      cursor.skip_optional_string();
      cursor.skip_optional_string();
      cursor.skip_u64();
      cancelled = cursor.u32() != 0;
      break;
    case kProcFinish3Params: {  // parameters, cookie, flags, cancelled
      const uint32_t count = cursor.u32();
      for (uint32_t i = 0; i < count && cursor.good(); ++i) cursor.skip_typed_parameter();
      cursor.skip_opaque();
      cursor.u32();
      cancelled = cursor.u32() != 0;
      break;
    }
    default:
      return make_error(Errc::protocol, "not a Finish call: libvirt procedure " +
                                            std::to_string(header.procedure));
  }
  if (!cursor.ended_well())
    return make_error(Errc::protocol, "cannot parse the arguments of libvirt's Finish call " +
                                          std::to_string(header.procedure));
  return cancelled;
}

Result<FinishedDomain> finished_domain(const std::string& name, const std::string& uuid, int id) {
  FinishedDomain domain{.name = name, .uuid = {}, .id = id};
  size_t digits = 0;
  for (char c : uuid) {
    if (c == '-') continue;
    const std::string_view known = "0123456789abcdef";
    const size_t value = known.find(static_cast<char>(c | 0x20));
    if (value == known.npos || digits == 2 * domain.uuid.size())
      return make_error(Errc::usage, "not a UUID: " + uuid);
    auto& byte = domain.uuid[digits++ / 2];
    byte = byte << 4 | static_cast<std::byte>(value);
  }
  if (digits != 2 * domain.uuid.size()) return make_error(Errc::usage, "not a UUID: " + uuid);
  return domain;
}

FrameBytes make_finish_reply(const RpcHeader& call, const FinishedDomain& domain) {
  RpcHeader header = call;
  header.type = RpcType::reply;
  header.status = 0;
  FrameBytes payload;
  put_opaque(payload, domain.name.data(), domain.name.size());
  payload.insert(payload.end(), domain.uuid.begin(), domain.uuid.end());
  put_u32(payload, static_cast<uint32_t>(domain.id));
  put_opaque(payload, nullptr, 0);  // no cookie: there are no statistics to hand back
  return make_frame(header, payload);
}

}  // namespace ferry::hypervisor
