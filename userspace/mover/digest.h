// SPDX-License-Identifier: GPL-2.0-or-later
// Reads whole disks to compare them: the digest of a disk, the table of its block hashes, and the
// blocks that differ from a table. digest_of(disk) equals BlockHashes::digest() of a receiver that
// got the same content.
// Thread-safety: functions without state; progress is called on the caller's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <vector>

#include "base/result.h"
#include "mover/block_hashes.h"

namespace ferry::mover {

using ScanProgress = std::function<void(uint64_t done_bytes)>;  // may be empty

Result<Digest> digest_of(int fd, uint64_t size_bytes, uint32_t block_shift,
                         const ScanProgress& progress, std::stop_token stop);

// Fills the table with the hash of every block, so that hashes.digest() equals digest_of(). The
// table stays the caller's and has to have as many blocks as the disk (Errc::usage otherwise);
// after an error part of it is filled.
Status fill_hashes(int fd, uint64_t size_bytes, BlockHashes& hashes, const ScanProgress& progress,
                   std::stop_token stop);

// Blocks whose content differs from the table, in rising order; a block the table knows nothing
// about differs too.
Result<std::vector<uint64_t>> find_mismatches(int fd, uint64_t size_bytes,
                                              const BlockHashes& hashes,
                                              const ScanProgress& progress, std::stop_token stop);

}  // namespace ferry::mover
