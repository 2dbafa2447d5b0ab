// SPDX-License-Identifier: GPL-2.0-or-later
#include "io/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cstdio>

namespace ferry {

uint64_t xxh3_64(const void* data, size_t size_bytes) { return XXH3_64bits(data, size_bytes); }

// The alignment XXH3 asks for is part of its type; operator new honours it since C++17.
struct Hasher128::State {
  XXH3_state_t xxh;
};

Hasher128::Hasher128() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Hasher128::~Hasher128() = default;
Hasher128::Hasher128(Hasher128&&) noexcept = default;
Hasher128& Hasher128::operator=(Hasher128&&) noexcept = default;

void Hasher128::update(const void* data, size_t size_bytes) {
  XXH3_128bits_update(&state_->xxh, data, size_bytes);
}

std::string Hasher128::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->xxh);
  std::array<char, 33> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx",
                static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return std::string(text.data());
}

}  // namespace ferry
