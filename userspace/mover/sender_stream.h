// SPDX-License-Identifier: GPL-2.0-or-later
// SenderStream: one stream of a Sender: a worker that reads pieces and sends them or their hashes,
// and a reader of the peer's answers. Internal to mover/. Owns its channel and its buffers.
// Thread-safety: send_round() on one thread, read_acks() on another; wake() and abort() from any.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "mover/check_hash.h"
#include "mover/round.h"

namespace ferry::mover {

class SenderStream {
 public:
  explicit SenderStream(std::unique_ptr<wire::Channel> channel) : channel_(std::move(channel)) {}

  // Makes the read buffers, once.
  Status prepare(unsigned reads_in_flight, IoEngine engine);
  // Both return when the round is complete or has failed; failures go to the round.
  void send_round(Round& round);
  void read_acks(Round& round);

  void abort();
  // Orderly end in two steps, so that all streams of a Sender end at the same time.
  void end();
  void await_end();
  IoEngine engine() const { return queue_ ? queue_->engine() : IoEngine::automatic; }
  bool prepared() const { return queue_ != nullptr; }

 private:
  Status send_pieces(Round& round);
  Status fill(Round& round, bool& more);
  Status send_piece(Round& round, const Piece& piece, const std::byte* data);
  Status send_run(Round& round, const Piece& run, const std::byte* data, bool zero);
  Status send_check(Round& round, const Piece& piece, const std::byte* data);
  bool may_send(Round& round, uint64_t wire_bytes, const Piece* check = nullptr);
  void take_credit(Round& round, const Piece* check);
  Result<bool> read_answer(Round& round);
  Status take_ack(Round& round, std::span<const std::byte> payload);
  Status take_differs(Round& round, const wire::FrameHeader& header,
                      std::span<const std::byte> payload);

  std::unique_ptr<wire::Channel> channel_;
  std::unique_ptr<BlockQueue> queue_;
  std::vector<Piece> pieces_;    // by slot
  std::vector<unsigned> idle_;  // slots without a request
  std::optional<CheckHasher> hasher_;  // made when first needed

  std::mutex credit_mutex_;
  std::condition_variable credit_changed_;
  uint64_t sent_frames_ = 0;
  uint64_t acked_frames_ = 0;
  uint64_t acked_bytes_ = 0;
  struct Check {
    Piece piece;
    bool answered = false;
  };
  std::deque<Check> checks_;  // sent and not acknowledged, in that order: at most a window of them
  bool ended_ = false;
};

}  // namespace ferry::mover
