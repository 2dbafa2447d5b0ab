// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/check_hash.h"

#include <algorithm>
#include <cstring>

#include "io/zero_scan.h"

namespace ferry::mover {
namespace {

Error cannot_hash() {
  return make_error(Errc::unsupported, "OpenSSL cannot compute BLAKE2b-512, by which disks are "
                    "compared", 0, "a policy of the system may forbid it (openssl list "
                    "-digest-algorithms)");
}

}  // namespace

Result<CheckHasher> CheckHasher::create() {
  CheckHasher hasher(Algorithm(EVP_MD_fetch(nullptr, "BLAKE2b512", nullptr), EVP_MD_free),
                     Context(EVP_MD_CTX_new(), EVP_MD_CTX_free));
  if (hasher.algorithm_ == nullptr || hasher.context_ == nullptr) return cannot_hash();
  const std::vector<std::byte> zeroes(wire::kBlockBytes);
  FERRY_TRY(hasher.hash_block(zeroes.data(), zeroes.size(), hasher.of_zeroes_.data()));
  return hasher;
}

Status CheckHasher::make_once(std::optional<CheckHasher>& hasher) {
  if (hasher) return ok_status();
  auto made = create();
  if (!made.ok()) return std::move(made).error();
  hasher = std::move(*made);
  return ok_status();
}

Status CheckHasher::hash_block(const std::byte* data, size_t size_bytes, std::byte* out) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> full{};
  unsigned length = 0;
  if (EVP_DigestInit_ex2(context_.get(), algorithm_.get(), nullptr) != 1 ||
      EVP_DigestUpdate(context_.get(), data, size_bytes) != 1 ||
      EVP_DigestFinal_ex(context_.get(), full.data(), &length) != 1 ||
      length < wire::kCheckHashBytes)
    return cannot_hash();
  std::memcpy(out, full.data(), wire::kCheckHashBytes);
  return ok_status();
}

Result<std::vector<std::byte>> CheckHasher::hash_blocks(const std::byte* data, size_t size_bytes) {
  const size_t blocks = (size_bytes + wire::kBlockBytes - 1) / wire::kBlockBytes;
  std::vector<std::byte> hashes(blocks * wire::kCheckHashBytes);
  for (size_t block = 0; block < blocks; ++block) {
    const size_t at = block * wire::kBlockBytes;
    const size_t length = std::min<size_t>(wire::kBlockBytes, size_bytes - at);
    std::byte* const out = &hashes[block * wire::kCheckHashBytes];
    if (length == wire::kBlockBytes && is_zero(data + at, length))
      std::copy(of_zeroes_.begin(), of_zeroes_.end(), out);
    else
      FERRY_TRY(hash_block(data + at, length, out));
  }
  return hashes;
}

}  // namespace ferry::mover
