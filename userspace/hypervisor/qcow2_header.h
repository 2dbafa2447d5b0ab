// SPDX-License-Identifier: GPL-2.0-or-later
// What the header of a qcow2 image says that decides whether the image may move with its block
// device: libvirt's domain XML (before 10.10) does not tell that the data lies elsewhere.
// Ownership: plain values. Thread-safety: free functions without shared state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace ferry::hypervisor {

// Magic to incompatible features: all of a header that is looked at.
constexpr size_t kQcow2HeaderBytes = 80;

struct Qcow2Header {
  uint32_t version = 0;
  bool data_elsewhere = false;  // the guest's data lies in a file of its own
  bool marked_corrupt = false;  // QEMU found it damaged and will not write to it again
};

// `bytes`: the beginning of the image. Error: it is no qcow2 image, or of an unknown version.
Result<Qcow2Header> parse_qcow2_header(std::span<const std::byte> bytes);
// Reads it from the file or block device at `path`, which may be in use.
Result<Qcow2Header> read_qcow2_header(const std::string& path);

}  // namespace ferry::hypervisor
