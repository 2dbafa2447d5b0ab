// SPDX-License-Identifier: GPL-2.0-or-later
// XXH3 helpers: a 64-bit checksum for frames and blocks, a streaming 128-bit hash for digests.
// Not cryptographic: TLS guards against malice, these guard against faults.
// Thread-safety: functions yes; a Hasher128 belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace ferry {

uint64_t xxh3_64(const void* data, size_t size_bytes);

class Hasher128 {
 public:
  Hasher128();
  ~Hasher128();
  Hasher128(Hasher128&&) noexcept;
  Hasher128& operator=(Hasher128&&) noexcept;

  void update(const void* data, size_t size_bytes);
  // 32 lower-case hex digits, most significant first. More updates may follow.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ferry
