// SPDX-License-Identifier: GPL-2.0-or-later
#include "io/zero_scan.h"

#include <cstring>

namespace ferry {

bool is_zero(const void* data, size_t size_bytes) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  // Blocks with content mostly differ from zero in one of these places: leave early.
  constexpr size_t kHead = 16;
  if (size_bytes > kHead && (bytes[size_bytes / 2] != 0 || bytes[size_bytes - 1] != 0)) return false;
  const size_t head = size_bytes < kHead ? size_bytes : kHead;
  for (size_t i = 0; i < head; ++i)
    if (bytes[i] != 0) return false;
  // The head is zero, so the whole is zero exactly when it equals itself shifted by the head. The
  // C library's memcmp picks the widest vector unit of this CPU.
  return size_bytes <= kHead || std::memcmp(bytes, bytes + kHead, size_bytes - kHead) == 0;
}

}  // namespace ferry
