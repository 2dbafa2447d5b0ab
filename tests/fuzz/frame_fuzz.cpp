// SPDX-License-Identifier: GPL-2.0-or-later
// libFuzzer target: a peer's bytes through the same parsers and checks as on a live stream. Finds
// crashes by itself; what has to hold for every accepted frame is checked by hand below.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>

#include "wire/frame.h"

namespace {

using namespace ferry::wire;

constexpr uint64_t kDiskBytes = 100 * kBlockBytes + kSectorBytes;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

void check_place(const FrameHeader& header, uint64_t length_bytes) {
  if (!check_range(header.offset, length_bytes, kDiskBytes).ok()) return;
  require(length_bytes > 0, "an accepted range is not empty");
  require(header.offset < kDiskBytes && length_bytes <= kDiskBytes &&
          header.offset + length_bytes <= kDiskBytes, "an accepted range lies in the disk");
  require(header.offset % kBlockBytes == 0, "an accepted range starts with a block");
}

void check_header(const FrameHeader& header, std::span<const std::byte, kHeaderBytes> bytes) {
  require(header.length_bytes <= kMaxControlBytes, "no payload is longer than the longest");
  require(header.disk < kMaxDisks, "a disk's index is bounded");
  if (header.type == FrameType::extent) {
    require(header.length_bytes <= kMaxExtentBytes, "an extent fits a receiver's buffer");
    require(header.length_bytes % kSectorBytes == 0, "an extent is whole sectors");
  }
  std::array<std::byte, kHeaderBytes> again{};
  encode_header(header, again);
  require(std::equal(again.begin(), again.end(), bytes.begin()), "a header has one encoding");
}

void check_body(const FrameHeader& header, std::span<const std::byte> payload) {
  switch (header.type) {
    case FrameType::extent: return check_place(header, payload.size());
    case FrameType::zero:
      if (auto length = parse_zero(header, payload); length.ok()) {
        require(*length > 0 && *length <= kMaxZeroBytes, "a zero frame is bounded");
        require(header.offset + *length <= kMaxDiskBytes, "a zero frame does not wrap");
        check_place(header, *length);
      }
      return;
    case FrameType::ack:
      if (auto ack = parse_ack(payload); ack.ok()) {
        std::array<std::byte, kAckBytes> again{};
        encode_ack(*ack, again);
        require(std::equal(again.begin(), again.end(), payload.begin()), "an ack round-trips");
      }
      return;
    case FrameType::error: {
      const std::string text = parse_error(payload).message();
      require(std::none_of(text.begin(), text.end(), [](char c) { return c >= 0 && c < 0x20; }),
              "a peer's words hold no control characters");
      return;
    }
    case FrameType::control:
      if (auto json = parse_control(payload); json.ok()) {
        require(json->is_object(), "a control message is an object");
        (void)json->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
      }
      return;
    case FrameType::check:
      if (auto length = parse_check(header, kDiskBytes); length.ok()) {
        require(*length <= kMaxExtentBytes, "a check fits a receiver's buffer");
        require((*length + kBlockBytes - 1) / kBlockBytes * kCheckHashBytes == payload.size(),
                "there is a hash for each block and a block for each hash");
        require(check_range(header.offset, *length, kDiskBytes).ok(), "a check is whole blocks");
        check_place(header, *length);
      }
      return;
    case FrameType::differs:
      for (const uint64_t blocks : {1, 2, 63, 64})
        if (auto mask = parse_differs(payload, blocks); mask.ok())
          require(*mask != 0 && (*mask & (~uint64_t{0} >> (64 - blocks))) == *mask,
                  "an answer names blocks that were asked about");
      return;
    case FrameType::end_round:
    case FrameType::hello: return;
  }
  require(false, "an accepted type is a known one");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto rest = std::as_bytes(std::span(data, size));
  while (rest.size() >= kHeaderBytes) {
    const auto bytes = rest.first<kHeaderBytes>();
    auto header = parse_header(bytes);
    if (!header.ok()) return 0;
    check_header(*header, bytes);
    rest = rest.subspan(kHeaderBytes);
    if (rest.size() < header->length_bytes) return 0;
    const auto payload = rest.first(header->length_bytes);
    rest = rest.subspan(payload.size());
    // No fuzzer guesses a checksum: the answer is taken, and the body judged as if it had fitted.
    (void)check_payload(*header, payload);
    check_body(*header, payload);
  }
  return 0;
}
