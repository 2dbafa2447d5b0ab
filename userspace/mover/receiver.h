// SPDX-License-Identifier: GPL-2.0-or-later
// Receiver: writes what a Sender pushes, and compares what it only asks about. Everything in a
// frame is judged before it is used: lengths, the disk's index, the range on the disk, the
// checksum. Keeps a hash of every block it writes or finds equal.
// Targets' descriptors and hash tables stay the caller's and must outlive all serve() calls.
// Thread-safety: serve() once per stream, each in a thread of its own; everything else from any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stop_token>
#include <vector>

#include "base/result.h"
#include "io/block_queue.h"
#include "mover/block_hashes.h"
#include "wire/channel.h"

namespace ferry::mover {

struct DiskTarget {
  uint32_t disk = 0;        // index, the same on both sides
  int fd = -1;              // best O_DIRECT; for reading too, when the sender compares
  uint64_t size_bytes = 0;
  BlockHashes* hashes = nullptr;  // may be missing
};

struct ReceiverOptions {
  IoEngine engine = IoEngine::automatic;
};

struct Target;

class Receiver {
 public:
  explicit Receiver(std::vector<DiskTarget> targets, ReceiverOptions options = {});
  ~Receiver();

  // Serves one stream until the sender ends it orderly (ok) or something fails. What fails here is
  // told to the sender before the call returns. No write of this stream is under way afterwards.
  Status serve(wire::Channel& channel, std::stop_token stop);
  // Makes everything written so far durable.
  Status flush();
  // Waits until no serve() runs any more.
  void wait_idle();

  // Data and zeroes, written; not what was only compared.
  uint64_t received_bytes() const { return received_bytes_; }

 private:
  friend class ReceiverStream;
  std::vector<std::unique_ptr<Target>> targets_;
  const ReceiverOptions options_;
  std::atomic<uint64_t> received_bytes_{0};
  std::mutex mutex_;
  std::condition_variable idle_;
  unsigned serving_ = 0;
};

}  // namespace ferry::mover
