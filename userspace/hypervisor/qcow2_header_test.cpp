// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/qcow2_header.h"

#include <gtest/gtest.h>

#include <fstream>
#include <vector>

namespace ferry::hypervisor {
namespace {

std::vector<std::byte> header(uint8_t version, uint8_t features) {
  std::vector<std::byte> bytes(kQcow2HeaderBytes);
  const uint8_t magic[] = {'Q', 'F', 'I', 0xfb};
  for (size_t n = 0; n < sizeof magic; ++n) bytes[n] = std::byte{magic[n]};
  bytes[7] = std::byte{version};
  bytes[79] = std::byte{features};
  return bytes;
}

TEST(Qcow2Header, OrdinaryImages) {
  for (uint8_t version : {2, 3}) {
    auto read = parse_qcow2_header(header(version, 0));
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_EQ(read->version, version);
    EXPECT_FALSE(read->data_elsewhere);
    EXPECT_FALSE(read->marked_corrupt);
  }
}

TEST(Qcow2Header, FeatureBits) {
  EXPECT_TRUE(parse_qcow2_header(header(3, 4))->data_elsewhere);
  EXPECT_FALSE(parse_qcow2_header(header(3, 4))->marked_corrupt);
  EXPECT_TRUE(parse_qcow2_header(header(3, 2))->marked_corrupt);
  // The dirty bit only says that reference counts are written late; compression changes nothing.
  EXPECT_FALSE(parse_qcow2_header(header(3, 1 | 8))->data_elsewhere);
  EXPECT_FALSE(parse_qcow2_header(header(2, 4))->data_elsewhere) << "version 2 has other bytes there";
}

TEST(Qcow2Header, NoImage) {
  EXPECT_FALSE(parse_qcow2_header({}).ok());
  auto bytes = header(3, 0);
  EXPECT_FALSE(parse_qcow2_header(std::span(bytes).first(kQcow2HeaderBytes - 1)).ok());
  bytes[0] = std::byte{0};
  EXPECT_FALSE(parse_qcow2_header(bytes).ok());
  EXPECT_FALSE(parse_qcow2_header(header(4, 0)).ok());
}

TEST(Qcow2Header, FromAFile) {
  const std::string path = ::testing::TempDir() + "/ferry-qcow2-header";
  const auto bytes = header(3, 4);
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()),
                                              static_cast<std::streamsize>(bytes.size()));
  auto read = read_qcow2_header(path);
  ASSERT_TRUE(read.ok()) << read.error().message();
  EXPECT_TRUE(read->data_elsewhere);
  ::unlink(path.c_str());
  auto missing = read_qcow2_header(path);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, Errc::not_found);
}

}  // namespace
}  // namespace ferry::hypervisor
