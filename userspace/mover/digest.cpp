// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/digest.h"

#include <algorithm>

#include "io/block_queue.h"
#include "io/hash.h"
#include "io/zero_scan.h"

namespace ferry::mover {
namespace {

constexpr size_t kChunkBytes = 256 * 1024;
constexpr unsigned kReadsInFlight = 8;

using OnBlock = std::function<void(uint64_t block, uint64_t hash)>;

uint64_t hash_of(const std::byte* data, size_t size_bytes) {
  return is_zero(data, size_bytes) ? zero_block_hash(size_bytes) : block_hash(data, size_bytes);
}

// Reads the disk with several requests in flight and hands out block hashes in disk order.
class Scan {
 public:
  Scan(int fd, uint64_t size_bytes, uint32_t block_shift, BlockQueue& queue)
      : fd_(fd), size_bytes_(size_bytes), block_shift_(block_shift), queue_(queue) {}

  Status run(const OnBlock& on_block, const ScanProgress& progress, const std::stop_token& stop) {
    const uint64_t chunks = (size_bytes_ + kChunkBytes - 1) / kChunkBytes;
    for (uint64_t chunk = 0, started = 0; chunk < chunks; ++chunk) {
      if (stop.stop_requested())
        return make_error(Errc::aborted, "reading a disk for its digest was called off");
      for (; started < chunks && started < chunk + queue_.slots(); ++started)
        FERRY_TRY(start(started));
      FERRY_TRY(wait_for(static_cast<unsigned>(chunk % queue_.slots())));
      hash_chunk(chunk, on_block);
      if (progress) progress(std::min(size_bytes_, (chunk + 1) * kChunkBytes));
    }
    return ok_status();
  }

 private:
  size_t length_of(uint64_t chunk) const {
    return std::min<uint64_t>(kChunkBytes, size_bytes_ - chunk * kChunkBytes);
  }
  Status start(uint64_t chunk) {
    const auto slot = static_cast<unsigned>(chunk % queue_.slots());
    ready_[slot] = false;
    return queue_.start_read(slot, fd_, chunk * kChunkBytes, length_of(chunk));
  }
  Status wait_for(unsigned slot) {
    while (!ready_[slot]) {
      auto done = queue_.wait();
      if (!done.ok()) return std::move(done).error();
      if (done->error != 0)
        return make_error(Errc::io, "cannot read a disk for its digest", done->error);
      ready_[done->slot] = true;
    }
    return ok_status();
  }
  void hash_chunk(uint64_t chunk, const OnBlock& on_block) {
    const size_t block_bytes = size_t{1} << block_shift_;
    const std::byte* data = queue_.buffer(static_cast<unsigned>(chunk % queue_.slots()));
    const size_t length = length_of(chunk);
    uint64_t block = chunk * kChunkBytes >> block_shift_;
    for (size_t at = 0; at < length; at += block_bytes)
      on_block(block++, hash_of(data + at, std::min(block_bytes, length - at)));
  }

  int fd_;
  uint64_t size_bytes_;
  uint32_t block_shift_;
  BlockQueue& queue_;
  bool ready_[kReadsInFlight] = {};
};

Status scan(int fd, uint64_t size_bytes, uint32_t block_shift, const OnBlock& on_block,
            const ScanProgress& progress, const std::stop_token& stop) {
  if (block_shift < 9 || (size_t{1} << block_shift) > kChunkBytes)
    return make_error(Errc::usage, "blocks of 2^" + std::to_string(block_shift) +
                      " bytes cannot be hashed");
  auto queue = BlockQueue::create(kReadsInFlight, kChunkBytes);
  if (!queue.ok()) return std::move(queue).error();
  return Scan(fd, size_bytes, block_shift, **queue).run(on_block, progress, stop);
}

}  // namespace

Result<Digest> digest_of(int fd, uint64_t size_bytes, uint32_t block_shift,
                         const ScanProgress& progress, std::stop_token stop) {
  Hasher128 hasher;
  FERRY_TRY(scan(fd, size_bytes, block_shift,
                 [&](uint64_t, uint64_t hash) { hasher.update(&hash, sizeof hash); }, progress,
                 stop));
  return Digest(hasher.hex());
}

Status fill_hashes(int fd, uint64_t size_bytes, BlockHashes& hashes, const ScanProgress& progress,
                   std::stop_token stop) {
  const uint64_t block_bytes = uint64_t{1} << hashes.block_shift();
  const uint64_t blocks = size_bytes / block_bytes + (size_bytes % block_bytes != 0);
  if (hashes.nr_blocks() != blocks)
    return make_error(Errc::usage, "a table of " + std::to_string(hashes.nr_blocks()) +
                      " block hashes does not fit a disk of " + std::to_string(blocks) +
                      " blocks");
  return scan(fd, size_bytes, hashes.block_shift(),
              [&](uint64_t block, uint64_t hash) { hashes.set(block, hash); }, progress, stop);
}

Result<std::vector<uint64_t>> find_mismatches(int fd, uint64_t size_bytes,
                                              const BlockHashes& hashes,
                                              const ScanProgress& progress, std::stop_token stop) {
  std::vector<uint64_t> different;
  FERRY_TRY(scan(fd, size_bytes, hashes.block_shift(),
                 [&](uint64_t block, uint64_t hash) {
                   if (hashes.get(block) != hash) different.push_back(block);
                 },
                 progress, stop));
  return different;
}

}  // namespace ferry::mover
