// SPDX-License-Identifier: GPL-2.0-or-later
// BytePipe: the two-way byte stream to the peer that libvirt's control traffic travels over. The
// daemon adapts its TLS channel to it; tests use socket pairs. Owned by whoever created it.
// Thread-safety: one reader and one writer at a time; abort() from any thread wakes both.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "base/result.h"

namespace ferry::hypervisor {

class BytePipe {
 public:
  virtual ~BytePipe() = default;
  // At least one byte, or 0 at the orderly end.
  virtual Result<size_t> read_some(void* data, size_t size_bytes) = 0;
  virtual Status write_all(const void* data, size_t size_bytes) = 0;
  // Final: every call under way and every later one fails. May be called more than once.
  virtual void abort() = 0;
};

using BytePipeFactory = std::function<Result<std::unique_ptr<BytePipe>>()>;

}  // namespace ferry::hypervisor
