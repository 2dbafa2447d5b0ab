// SPDX-License-Identifier: GPL-2.0-or-later
// ReceiverStream: one stream of a Receiver. A single thread reads frames, keeps up to
// kWindowFrames writes in flight and acknowledges in batches; it waits for the channel and for
// completions at once. Internal to mover/. Owns its buffers; borrows channel and targets.
// Thread-safety: one thread.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "io/block_queue.h"
#include "io/disk_file.h"
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
  struct Write {
    const Target* target;
    uint64_t offset_bytes;
    uint64_t length_bytes;
  };

  Result<bool> take_frame();
  Status take_extent(const wire::FrameHeader& header);
  Status take_zero(const wire::FrameHeader& header);
  Status end_round(const wire::FrameHeader& header);
  Result<Target*> target_of(const wire::FrameHeader& header, uint64_t length_bytes) const;
  Result<unsigned> idle_slot();
  Status reap();
  Status complete(const IoCompletion& done);
  Status finish_writes();
  void landed(uint64_t size_bytes);
  Status send_ack();

  wire::Channel& channel_;
  const Targets& targets_;
  std::atomic<uint64_t>& received_bytes_;
  std::unique_ptr<BlockQueue> queue_;
  std::vector<Write> writes_;    // by slot
  std::vector<unsigned> idle_;  // slots without a write
  wire::AckBody landed_;
  uint64_t acked_frames_ = 0;
  bool in_round_ = false;
};

}  // namespace ferry::mover
