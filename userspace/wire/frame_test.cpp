// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "io/hash.h"

namespace ferry::wire {
namespace {

using ::testing::HasSubstr;
using Bytes = std::array<std::byte, kHeaderBytes>;

Bytes encoded(const FrameHeader& header) {
  Bytes bytes{};
  encode_header(header, bytes);
  return bytes;
}

bool accepted(const FrameHeader& header) { return parse_header(encoded(header)).ok(); }

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

FrameHeader extent(uint32_t length, uint32_t disk = 0, uint64_t offset = 0) {
  return {FrameType::extent, 0, length, disk, offset, 0};
}

TEST(FrameTest, LayoutIsLittleEndianAndFixed) {
  const FrameHeader header{FrameType::extent, 0, 0x01000, 0x7, 0x1122334455667000,
                           0xa1a2a3a4a5a6a7a8};
  const Bytes bytes = encoded(header);
  const unsigned char expected[kHeaderBytes] = {
      'F',  'R',  'Y',  '1',  2,    0,    0,    0,    0x00, 0x10, 0,    0,    7,    0,    0,    0,
      0x00, 0x70, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xa8, 0xa7, 0xa6, 0xa5, 0xa4, 0xa3, 0xa2, 0xa1};
  EXPECT_EQ(std::memcmp(bytes.data(), expected, sizeof expected), 0);
}

TEST(FrameTest, EveryTypeRoundTrips) {
  const std::vector<FrameHeader> headers{
      {FrameType::control, 0, 2, 0, 0, 9},
      {FrameType::control, 0, kMaxControlBytes, 0, 0, 9},
      extent(512), extent(4096, 3, 1 << 20), extent(kMaxExtentBytes, kMaxDisks - 1,
                                                    kMaxDiskBytes - kBlockBytes),
      {FrameType::zero, 0, 8, 1, 8192, 5},
      {FrameType::ack, 0, 16, 0, 0, 5},
      {FrameType::end_round, 0, 0, 0, 77, 5},
      {FrameType::error, 0, 0, 0, 0, 5},
      {FrameType::error, 0, kMaxErrorBytes, 0, 0, 5},
      {FrameType::hello, 0, 0, 0, kProtocolVersion, 5},
      {FrameType::check, 0, 16, 0, 0, 5},
      {FrameType::check, 0, 1024, kMaxDisks - 1, kMaxDiskBytes - kBlockBytes, 5},
      {FrameType::differs, 0, 8, 3, 1 << 20, 5}};
  for (const FrameHeader& header : headers) {
    auto parsed = parse_header(encoded(header));
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    EXPECT_EQ(*parsed, header);
  }
}

TEST(FrameTest, MagicTypeAndFlagsAreJudged) {
  Bytes bytes = encoded(extent(4096));
  bytes[3] = std::byte{'2'};
  EXPECT_FALSE(parse_header(bytes).ok());
  for (const unsigned type : {0u, 10u, 255u, 65535u})
    EXPECT_FALSE(accepted({static_cast<FrameType>(type), 0, 0, 0, 0, 0})) << type;
  for (int bit = 0; bit < 16; ++bit) {
    FrameHeader header = extent(4096);
    header.flags = static_cast<uint16_t>(1u << bit);
    EXPECT_FALSE(accepted(header)) << bit;
  }
}

TEST(FrameTest, EveryLengthLimitHolds) {
  EXPECT_FALSE(accepted({FrameType::control, 0, 1, 0, 0, 0}));
  EXPECT_FALSE(accepted({FrameType::control, 0, kMaxControlBytes + 1, 0, 0, 0}));
  EXPECT_FALSE(accepted(extent(0)));
  EXPECT_FALSE(accepted(extent(511)));
  EXPECT_FALSE(accepted(extent(513)));
  EXPECT_FALSE(accepted(extent(kMaxExtentBytes + 512)));
  EXPECT_FALSE(accepted(extent(0xfffffe00)));
  for (const uint32_t length : {0u, 7u, 9u})
    EXPECT_FALSE(accepted({FrameType::zero, 0, length, 0, 0, 0})) << length;
  for (const uint32_t length : {0u, 15u, 17u})
    EXPECT_FALSE(accepted({FrameType::ack, 0, length, 0, 0, 0})) << length;
  EXPECT_FALSE(accepted({FrameType::end_round, 0, 1, 0, 0, 0}));
  EXPECT_FALSE(accepted({FrameType::error, 0, kMaxErrorBytes + 1, 0, 0, 0}));
  EXPECT_FALSE(accepted({FrameType::hello, 0, 1, 0, 1, 0}));
  for (const uint32_t length : {0u, 8u, 15u, 24u, 1040u, 0xfffffff0u})
    EXPECT_FALSE(accepted({FrameType::check, 0, length, 0, 0, 0})) << length;
  for (const uint32_t length : {0u, 7u, 16u})
    EXPECT_FALSE(accepted({FrameType::differs, 0, length, 0, 0, 0})) << length;
}

TEST(FrameTest, PlacesAreJudged) {
  EXPECT_FALSE(accepted(extent(4096, kMaxDisks)));
  EXPECT_FALSE(accepted(extent(4096, 0, 512)));
  EXPECT_FALSE(accepted(extent(4096, 0, kMaxDiskBytes)));
  EXPECT_FALSE(accepted({FrameType::zero, 0, 8, kMaxDisks, 0, 0}));
  EXPECT_FALSE(accepted({FrameType::zero, 0, 8, 0, 4095, 0}));
  for (const FrameType type : {FrameType::check, FrameType::differs}) {
    const uint32_t length = type == FrameType::check ? kCheckHashBytes : kDiffersBytes;
    EXPECT_FALSE(accepted({type, 0, length, kMaxDisks, 0, 0}));
    EXPECT_FALSE(accepted({type, 0, length, 0, 512, 0}));
    EXPECT_FALSE(accepted({type, 0, length, 0, kMaxDiskBytes, 0}));
  }
  // Frames that name no place must not carry one.
  EXPECT_FALSE(accepted({FrameType::control, 0, 2, 1, 0, 0}));
  EXPECT_FALSE(accepted({FrameType::control, 0, 2, 0, 4096, 0}));
  EXPECT_FALSE(accepted({FrameType::ack, 0, 16, 0, 1, 0}));
  EXPECT_FALSE(accepted({FrameType::end_round, 0, 0, 1, 1, 0}));
}

TEST(FrameTest, ChecksumCoversThePayload) {
  std::string payload = "some payload";
  const FrameHeader header = make_header(FrameType::control, 0, 0, bytes_of(payload));
  EXPECT_TRUE(check_payload(header, bytes_of(payload)).ok());
  EXPECT_FALSE(check_payload(header, bytes_of(payload).first(payload.size() - 1)).ok());
  for (char& c : payload) {
    c ^= 1;
    EXPECT_FALSE(check_payload(header, bytes_of(payload)).ok());
    c ^= 1;
  }
  EXPECT_EQ(make_header(FrameType::hello, 0, 1, {}).checksum, 0x2d06800538d394c2u);  // of nothing
}

TEST(FrameTest, ZeroBodyLimits) {
  const FrameHeader header{FrameType::zero, 0, 8, 0, 0, 0};
  std::array<std::byte, kZeroBodyBytes> body{};
  const auto parsed = [&](uint64_t length) {
    encode_zero(length, body);
    return parse_zero(header, body);
  };
  EXPECT_EQ(*parsed(512), 512u);
  EXPECT_EQ(*parsed(kMaxZeroBytes), kMaxZeroBytes);
  for (const uint64_t bad : {uint64_t{0}, uint64_t{100}, kMaxZeroBytes + 512, ~uint64_t{0}})
    EXPECT_FALSE(parsed(bad).ok()) << bad;
  const FrameHeader late{FrameType::zero, 0, 8, 0, kMaxDiskBytes - 4096, 0};
  encode_zero(8192, body);
  EXPECT_FALSE(parse_zero(late, body).ok());
  EXPECT_FALSE(parse_zero(header, std::span(body).first(7)).ok());
}

TEST(FrameTest, ACheckFrameIsCutByTheDisk) {
  constexpr uint64_t kDisk = 10 * 4096 + 512;
  const auto covered = [](uint64_t offset, uint32_t blocks, uint64_t size = 10 * 4096 + 512) {
    auto length = parse_check({FrameType::check, 0, blocks * 16, 0, offset, 0}, size);
    return length.ok() ? *length : 0;
  };
  EXPECT_EQ(covered(0, 10), 40960u);
  EXPECT_EQ(covered(0, 11), kDisk);
  EXPECT_EQ(covered(9 * 4096, 1), 4096u);
  EXPECT_EQ(covered(9 * 4096, 2), 4608u);
  EXPECT_EQ(covered(10 * 4096, 1), 512u);
  EXPECT_EQ(covered(0, 64, 1 << 20), kMaxExtentBytes);
  EXPECT_EQ(covered(0, 12), 0u);             // one block after the end
  EXPECT_EQ(covered(10 * 4096, 2), 0u);
  EXPECT_EQ(covered(11 * 4096, 1), 0u);
  EXPECT_EQ(covered(0, 11, 40960), 0u);      // the disk ends with a whole block
  EXPECT_EQ(covered(40960, 1, 40960), 0u);
  EXPECT_EQ(covered(0, 1, 0), 0u);
  EXPECT_EQ(covered(kMaxDiskBytes - 4096, 64), 0u);
}

TEST(FrameTest, DiffersNamesCheckedBlocksOnly) {
  std::array<std::byte, kDiffersBytes> body{};
  const auto parsed = [&](uint64_t mask, uint64_t blocks) {
    encode_differs(mask, body);
    auto result = parse_differs(body, blocks);
    return result.ok() ? *result : 0;
  };
  EXPECT_EQ(parsed(0x0102, 16), 0x0102u);
  EXPECT_EQ(body[0], std::byte{2});
  EXPECT_EQ(parsed(1, 1), 1u);
  EXPECT_EQ(parsed(~uint64_t{0}, 64), ~uint64_t{0});
  EXPECT_EQ(parsed(2, 1), 0u);
  EXPECT_EQ(parsed(uint64_t{1} << 63, 63), 0u);
  encode_differs(0, body);
  EXPECT_FALSE(parse_differs(body, 64).ok());
  encode_differs(1, body);
  EXPECT_FALSE(parse_differs(std::span(body).first(7), 64).ok());
}

TEST(FrameTest, AckRoundTrips) {
  std::array<std::byte, kAckBytes> body{};
  encode_ack({0x0102030405060708, 42}, body);
  EXPECT_EQ(body[0], std::byte{8});
  EXPECT_EQ(*parse_ack(body), (AckBody{0x0102030405060708, 42}));
  EXPECT_FALSE(parse_ack(std::span(body).first(15)).ok());
}

TEST(FrameTest, ErrorsRoundTripAndAreCleaned) {
  const Error parsed = parse_error(bytes_of(encode_error(make_error(Errc::no_space, "vg is full"))));
  EXPECT_EQ(parsed.code, Errc::no_space);
  EXPECT_THAT(parsed.message(), HasSubstr("vg is full"));
  EXPECT_EQ(parse_error({}).code, Errc::failed);
  EXPECT_EQ(parse_error(bytes_of("no such code\nx")).code, Errc::failed);
  EXPECT_EQ(parse_error(bytes_of("io\n\x1b[31mred\n")).what.find('\x1b'), std::string::npos);
  const std::string long_text = encode_error(make_error(Errc::io, std::string(10000, 'x')));
  EXPECT_EQ(long_text.size(), kMaxErrorBytes);
}

TEST(FrameTest, ControlTakesOnlyShallowJsonObjects) {
  EXPECT_TRUE(parse_control(bytes_of(R"({"a":[1,{"b":"}]\"["}]})")).ok());
  for (const char* bad : {"", "{", "[]", "17", "{\"a\":}", "{}x", "\xff\xfe"})
    EXPECT_FALSE(parse_control(bytes_of(bad)).ok()) << bad;
  const auto nested = [](size_t depth) {
    return "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_TRUE(parse_control(bytes_of(nested(kMaxControlDepth - 1))).ok());
  EXPECT_FALSE(parse_control(bytes_of(nested(kMaxControlDepth))).ok());
  EXPECT_FALSE(parse_control(bytes_of(nested(200000))).ok());
}

TEST(FrameTest, RangesHaveToLieInTheDisk) {
  constexpr uint64_t kDisk = 10 * 4096 + 512;
  EXPECT_TRUE(check_range(0, 4096, kDisk).ok());
  EXPECT_TRUE(check_range(9 * 4096, 4096 + 512, kDisk).ok());
  EXPECT_TRUE(check_range(10 * 4096, 512, kDisk).ok());
  EXPECT_TRUE(check_range(0, kDisk, kDisk).ok());
  EXPECT_FALSE(check_range(0, 0, kDisk).ok());
  EXPECT_FALSE(check_range(0, 512, kDisk).ok());             // part of a block inside the disk
  EXPECT_FALSE(check_range(512, 4096, kDisk).ok());
  EXPECT_FALSE(check_range(10 * 4096, 4096, kDisk).ok());    // over the end
  EXPECT_FALSE(check_range(11 * 4096, 512, kDisk).ok());     // after the end
  EXPECT_FALSE(check_range(4096, ~uint64_t{0} - 4095, kDisk).ok());  // wraps around
  EXPECT_FALSE(check_range(~uint64_t{0} - 4095, 4096, kDisk).ok());
}

}  // namespace
}  // namespace ferry::wire
