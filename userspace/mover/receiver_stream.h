// SPDX-License-Identifier: GPL-2.0-or-later
// ReceiverStream: one stream of a Receiver. A single thread reads frames, keeps up to kWindowFrames
// writes, or reads for check frames, in flight and acknowledges in batches; it waits for the channel
// and for completions at once. Internal to mover/. Owns its buffers; borrows channel and targets.
// Thread-safety: one thread.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "io/block_queue.h"
#include "io/disk_file.h"
#include "mover/check_hash.h"
#include "mover/receiver.h"
#include "wire/frame.h"

namespace ferry::mover {

// A target with what all streams share about it.
struct Target {
  explicit Target(const DiskTarget& to) : disk(to), zeroes(to.fd) {}
  DiskTarget disk;
  ZeroWriter zeroes;
};

class ReceiverStream {
 public:
  using Targets = std::vector<std::unique_ptr<Target>>;
  ReceiverStream(wire::Channel& channel, const Targets& targets,
                 std::atomic<uint64_t>& received_bytes)
      : channel_(channel), targets_(targets), received_bytes_(received_bytes) {}

  Status run(IoEngine engine);

 private:
  // What fills a slot: a write of an extent, or a read for a check frame.
  struct Request {
    const Target* target = nullptr;
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    std::vector<std::byte> expected = {};  // the hashes of a check frame; empty for a write
    bool done = false;                     // a check: read, but not compared yet
  };
  enum class RoundHolds { nothing, data, checks };

  Result<bool> take_frame();
  Status take_extent(const wire::FrameHeader& header);
  Status take_zero(const wire::FrameHeader& header);
  Status take_check(const wire::FrameHeader& header);
  Status enter(RoundHolds what);
  Status end_round(const wire::FrameHeader& header);
  Result<Target*> disk_of(const wire::FrameHeader& header) const;
  Result<Target*> target_of(const wire::FrameHeader& header, uint64_t length_bytes) const;
  Result<unsigned> idle_slot();
  Status reap();
  Status complete(const IoCompletion& done);
  Status finish_checks();
  Status compare(unsigned slot);
  Status finish_requests();
  void landed(uint64_t size_bytes);
  Status send_ack();

  wire::Channel& channel_;
  const Targets& targets_;
  std::atomic<uint64_t>& received_bytes_;
  std::unique_ptr<BlockQueue> queue_;
  std::vector<Request> requests_;  // by slot
  std::vector<unsigned> idle_;     // slots without a request
  // Slots of check frames in the order of their arrival: an ack counts frames, and the sender has
  // to know which ones, to judge what may still be answered.
  std::deque<unsigned> checks_;
  std::optional<CheckHasher> hasher_;  // made when first needed
  wire::AckBody landed_;
  uint64_t acked_frames_ = 0;
  RoundHolds round_holds_ = RoundHolds::nothing;
};

}  // namespace ferry::mover
