// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/qcow2_header.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/fd.h"

namespace ferry::hypervisor {
namespace {

// All fields are big-endian; the layout is QEMU's docs/interop/qcow2.txt.
constexpr uint32_t kMagic = 0x514649fb;
constexpr size_t kVersionAt = 4;
constexpr size_t kFeaturesAt = 72;  // 8 bytes, from version 3 on
constexpr uint32_t kOldestVersion = 2;
constexpr uint32_t kNewestVersion = 3;
constexpr uint64_t kCorrupt = uint64_t{1} << 1;
constexpr uint64_t kExternalData = uint64_t{1} << 2;

uint64_t big_endian(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (std::byte byte : bytes) value = value << 8 | std::to_integer<uint64_t>(byte);
  return value;
}

}  // namespace

Result<Qcow2Header> parse_qcow2_header(std::span<const std::byte> bytes) {
  if (bytes.size() < kQcow2HeaderBytes || big_endian(bytes.first(4)) != kMagic)
    return make_error(Errc::unsupported, "there is no qcow2 image");
  Qcow2Header header;
  header.version = static_cast<uint32_t>(big_endian(bytes.subspan(kVersionAt, 4)));
  if (header.version < kOldestVersion || header.version > kNewestVersion)
    return make_error(Errc::unsupported,
                      "the qcow2 image has the unknown version " + std::to_string(header.version));
  if (header.version == kOldestVersion) return header;  // it had no feature bits
  const uint64_t features = big_endian(bytes.subspan(kFeaturesAt, 8));
  header.data_elsewhere = (features & kExternalData) != 0;
  header.marked_corrupt = (features & kCorrupt) != 0;
  return header;
}

Result<Qcow2Header> read_qcow2_header(const std::string& path) {
  Fd image(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!image.valid()) return sys_error("cannot open " + path, errno);
  std::array<std::byte, kQcow2HeaderBytes> bytes{};
  const ssize_t got = ::pread(image.get(), bytes.data(), bytes.size(), 0);
  if (got < 0) return sys_error("cannot read " + path, errno);
  return parse_qcow2_header(std::span(bytes).first(static_cast<size_t>(got)));
}

}  // namespace ferry::hypervisor
