// SPDX-License-Identifier: GPL-2.0-or-later
// Sender: reads extents of disks and pushes them to the peer's Receiver over several streams, or
// asks it which of their blocks it does not hold yet.
// Owns its streams; disks, extent source and rate limit stay the caller's.
// Order: copy() returns only when the peer has written and acknowledged everything, so a block sent
// again in a later round can never be overtaken by its older content.
// Thread-safety: one copy() or compare() at a time; abort() from any thread. When one fails or is
// stopped, that ends the Sender: the streams are broken off and every later call fails.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/token_bucket.h"
#include "io/block_queue.h"
#include "mover/extent_source.h"
#include "wire/channel.h"

namespace ferry::mover {

struct DiskSource {
  uint32_t disk = 0;        // index, the same on both sides
  int fd = -1;              // best O_DIRECT
  uint64_t size_bytes = 0;  // a multiple of 512
};

struct CopyStats {
  uint64_t covered_bytes = 0;  // of the disks: written at the peer, data and zeroes; or compared
  uint64_t data_bytes = 0;     // sent as data
  uint64_t zero_bytes = 0;     // sent as "this is zero"
  uint64_t wire_bytes = 0;     // frames, before encryption
  uint64_t frames = 0;
  std::vector<uint64_t> disk_bytes;       // data bytes by disk index
  std::vector<uint64_t> disk_zero_bytes;  // zero bytes by disk index
  std::chrono::nanoseconds elapsed{0};
};

struct Comparison {
  // Runs of blocks that the peer does not hold as they are here, by disk, rising, none touching the
  // next. Past kMaxExactRuns of them, equal blocks between two that differ may be covered as well.
  std::vector<Extent> differing;
  CopyStats stats;  // nothing was sent as data or zeroes; covered_bytes are those compared
};
// Bounds the memory for a disk whose every other block differs: 24 bytes a run.
inline constexpr size_t kMaxExactRuns = 1u << 20;

struct SenderOptions {
  TokenBucket* limit = nullptr;  // its rate may change while a copy runs
  unsigned reads_in_flight = 8;  // per stream, of up to 256 KiB each
  std::chrono::milliseconds progress_every{200};
  IoEngine engine = IoEngine::automatic;
};

class Sender {
 public:
  explicit Sender(std::vector<std::unique_ptr<wire::Channel>> streams, SenderOptions options = {});
  ~Sender();

  // `progress` (may be empty) is called on the calling thread, also once at the end.
  Result<CopyStats> copy(const std::vector<DiskSource>& disks, ExtentSource& extents,
                         const std::function<void(const CopyStats&)>& progress,
                         std::stop_token stop);
  // Sends hashes of the extents' blocks in place of their content: under 1 % of their size. Writes
  // nothing at the peer, but the blocks that are equal count as received there. `differing` is what
  // a copy() then has to carry, as long as nobody writes on either side; what is written here while
  // this runs has to be copied as well. Errc::unsupported where a host's OpenSSL lacks the hash.
  // Everything else is as for copy().
  Result<Comparison> compare(const std::vector<DiskSource>& disks, ExtentSource& extents,
                             const std::function<void(const CopyStats&)>& progress,
                             std::stop_token stop);
  // Orderly end of all streams: the peer's serve() calls return without an error.
  void finish();
  void abort();
  // "io_uring" or "pread/pwrite"; "not started" before the first copy().
  std::string_view engine() const;

 private:
  class Crew;
  std::unique_ptr<Crew> crew_;
};

}  // namespace ferry::mover
