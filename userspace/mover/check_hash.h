// SPDX-License-Identifier: GPL-2.0-or-later
// The hash by which two hosts find out which blocks of a disk differ: BLAKE2b-512, its first 128
// bits. A guest chooses the content of its disks on both sides. With a fast hash that is not
// cryptographic it could craft a block that passes for another one and is not copied; with this
// one a pair takes 2^64 attempts, and harms only the guest that made it.
// Thread-safety: a CheckHasher belongs to one thread.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "wire/frame.h"

namespace ferry::mover {

class CheckHasher {
 public:
  // Looks the algorithm up, which is too slow to be done per block. Errc::unsupported where the
  // system's OpenSSL does not offer it.
  static Result<CheckHasher> create();

  // Fills `hasher` if it is empty: for streams that may never need one.
  static Status make_once(std::optional<CheckHasher>& hasher);

  // The hashes of all blocks of a range that begins at a block boundary, one after the other, as a
  // check frame carries them. The last block may be short.
  Result<std::vector<std::byte>> hash_blocks(const std::byte* data, size_t size_bytes);

 private:
  using Algorithm = std::unique_ptr<EVP_MD, decltype(&EVP_MD_free)>;
  using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;
  CheckHasher(Algorithm algorithm, Context context)
      : algorithm_(std::move(algorithm)), context_(std::move(context)) {}

  Status hash_block(const std::byte* data, size_t size_bytes, std::byte* out);

  Algorithm algorithm_;
  Context context_;
  std::array<std::byte, wire::kCheckHashBytes> of_zeroes_{};  // a whole block of them
};

}  // namespace ferry::mover
