// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/sender_stream.h"

#include <algorithm>
#include <numeric>

#include "io/zero_scan.h"
#include "wire/control.h"

namespace ferry::mover {
namespace {

// Zeroes inside a piece are worth a frame of their own from here on; below, the extra request at
// the receiver costs more than the bytes.
constexpr uint64_t kZeroRunBytes = 32 * 1024;
constexpr int kLastWordsMs = 2000;

}  // namespace

Status SenderStream::prepare(unsigned reads_in_flight, IoEngine engine) {
  auto queue = BlockQueue::create(std::max(1u, reads_in_flight), wire::kMaxExtentBytes, engine);
  if (!queue.ok()) return std::move(queue).error();
  queue_ = std::move(*queue);
  pieces_.resize(queue_->slots());
  idle_.resize(queue_->slots());
  std::iota(idle_.begin(), idle_.end(), 0u);
  return ok_status();
}

void SenderStream::send_round(Round& round) {
  if (Status sent = send_pieces(round); !sent.ok()) round.fail(std::move(sent).error());
  // The round's end says "that was all" and asks for its echo.
  if (round.failed()) return;
  if (Status sent = wire::send_frame(*channel_, wire::FrameType::end_round, 0, round.number(), {});
      !sent.ok())
    round.fail(std::move(sent).error());
}

Status SenderStream::send_pieces(Round& round) {
  for (bool more = true; !round.failed();) {
    FERRY_TRY(fill(round, more));
    if (queue_->in_flight() == 0) return ok_status();
    auto done = queue_->wait();
    if (!done.ok()) return std::move(done).error();
    const Piece& piece = pieces_[done->slot];
    if (done->error != 0)
      return make_error(Errc::io, "cannot read " + std::to_string(piece.length_bytes) +
                        " bytes at offset " + std::to_string(piece.offset_bytes) + " of disk " +
                        std::to_string(piece.disk->disk), done->error);
    FERRY_TRY(send_piece(round, piece, queue_->buffer(done->slot)));
    idle_.push_back(done->slot);
  }
  return ok_status();
}

Status SenderStream::fill(Round& round, bool& more) {
  while (more && !idle_.empty()) {
    const unsigned slot = idle_.back();
    more = round.next(pieces_[slot]);
    if (!more) break;
    idle_.pop_back();
    const Piece& piece = pieces_[slot];
    FERRY_TRY(queue_->start_read(slot, piece.disk->fd, piece.offset_bytes, piece.length_bytes));
  }
  return ok_status();
}

Status SenderStream::send_piece(Round& round, const Piece& piece, const std::byte* data) {
  if (round.kind() == RoundKind::compare) return send_check(round, piece, data);
  const auto zero_at = [&](uint64_t at) {
    return is_zero(data + at, std::min(kZeroRunBytes, piece.length_bytes - at));
  };
  for (uint64_t from = 0; from < piece.length_bytes;) {
    const bool zero = zero_at(from);
    uint64_t to = from + kZeroRunBytes;
    while (to < piece.length_bytes && zero_at(to) == zero) to += kZeroRunBytes;
    to = std::min(to, piece.length_bytes);
    FERRY_TRY(send_run(round, {piece.disk, piece.offset_bytes + from, to - from}, data + from,
                       zero));
    from = to;
  }
  return ok_status();
}

Status SenderStream::send_run(Round& round, const Piece& run, const std::byte* data, bool zero) {
  const uint32_t disk = run.disk->disk;
  const uint64_t wire_bytes =
      wire::kHeaderBytes + (zero ? wire::kZeroBodyBytes : run.length_bytes);
  if (!may_send(round, wire_bytes)) return ok_status();
  if (zero) {
    std::array<std::byte, wire::kZeroBodyBytes> body{};
    wire::encode_zero(run.length_bytes, body);
    FERRY_TRY(wire::send_frame(*channel_, wire::FrameType::zero, disk, run.offset_bytes, body));
    round.count_zero(disk, run.length_bytes, wire_bytes);
  } else {
    FERRY_TRY(wire::send_frame(*channel_, wire::FrameType::extent, disk, run.offset_bytes,
                               {data, run.length_bytes}));
    round.count_data(disk, run.length_bytes, wire_bytes);
  }
  return ok_status();
}

Status SenderStream::send_check(Round& round, const Piece& piece, const std::byte* data) {
  FERRY_TRY(CheckHasher::make_once(hasher_));
  auto hashes = hasher_->hash_blocks(data, piece.length_bytes);
  if (!hashes.ok()) return std::move(hashes).error();
  const uint64_t wire_bytes = wire::kHeaderBytes + hashes->size();
  if (!may_send(round, wire_bytes, &piece)) return ok_status();
  FERRY_TRY(wire::send_frame(*channel_, wire::FrameType::check, piece.disk->disk,
                             piece.offset_bytes, *hashes));
  round.count_check(wire_bytes);
  return ok_status();
}

// Waits until the peer and the rate limit have room for a frame; false after a failure.
bool SenderStream::may_send(Round& round, uint64_t wire_bytes, const Piece* check) {
  take_credit(round, check);
  round.pace(wire_bytes);
  return !round.failed();
}

// One frame more may be under way; counted before it is sent, so that its ack is never a surprise.
void SenderStream::take_credit(Round& round, const Piece* check) {
  std::unique_lock lock(credit_mutex_);
  credit_changed_.wait(lock, [&] {
    return sent_frames_ - acked_frames_ < wire::kWindowFrames || round.failed();
  });
  ++sent_frames_;
  if (check != nullptr) checks_.push_back({*check});
}

void SenderStream::read_acks(Round& round) {
  for (;;) {
    auto more = read_answer(round);
    if (!more.ok()) return round.fail(std::move(more).error());
    if (!*more) return;
  }
}

Result<bool> SenderStream::read_answer(Round& round) {
  auto header = wire::receive_header(*channel_);
  if (!header.ok()) return std::move(header).error();
  if (!header->has_value())
    return make_error(Errc::peer_unreachable, channel_->peer_address() +
                      " ended a data stream in the middle of a round");
  const wire::FrameHeader& h = **header;
  std::vector<std::byte> payload(h.length_bytes);
  FERRY_TRY(wire::receive_payload(*channel_, h, payload));
  switch (h.type) {
    case wire::FrameType::ack:
      FERRY_TRY(take_ack(round, payload));
      return true;
    case wire::FrameType::differs:
      FERRY_TRY(take_differs(round, h, payload));
      return true;
    case wire::FrameType::error:
      round.fail(wire::parse_error(payload), /*said_by_peer=*/true);
      return false;
    case wire::FrameType::end_round: {
      const std::lock_guard lock(credit_mutex_);
      if (h.offset != round.number() || acked_frames_ != sent_frames_)
        return make_error(Errc::protocol, "the peer ended a round that is not complete");
      return false;
    }
    default:
      return make_error(Errc::protocol, "unexpected frame of type " +
                        std::string(wire::frame_type_name(h.type)) + " on a data stream");
  }
}

Status SenderStream::take_ack(Round& round, std::span<const std::byte> payload) {
  auto ack = wire::parse_ack(payload);
  if (!ack.ok()) return std::move(ack).error();
  {
    const std::lock_guard lock(credit_mutex_);
    if (ack->landed_frames > sent_frames_ || ack->landed_frames < acked_frames_ ||
        ack->landed_bytes < acked_bytes_)
      return make_error(Errc::protocol, "the peer acknowledged what was never sent");
    round.count_landed(ack->landed_bytes - acked_bytes_);
    // A round is all checks, acknowledged in their order, or it has none.
    for (uint64_t i = acked_frames_; i < ack->landed_frames && !checks_.empty(); ++i)
      checks_.pop_front();
    acked_frames_ = ack->landed_frames;
    acked_bytes_ = ack->landed_bytes;
  }
  credit_changed_.notify_all();
  return ok_status();
}

Status SenderStream::take_differs(Round& round, const wire::FrameHeader& header,
                                  std::span<const std::byte> payload) {
  const std::lock_guard lock(credit_mutex_);
  const auto check = std::find_if(checks_.begin(), checks_.end(), [&](const Check& sent) {
    return sent.piece.disk->disk == header.disk && sent.piece.offset_bytes == header.offset &&
           !sent.answered;
  });
  if (check == checks_.end())
    return make_error(Errc::protocol, "the peer answered what it was not asked: disk " +
                      std::to_string(header.disk) + ", offset " + std::to_string(header.offset));
  const uint64_t blocks = (check->piece.length_bytes + wire::kBlockBytes - 1) / wire::kBlockBytes;
  auto mask = wire::parse_differs(payload, blocks);
  if (!mask.ok()) return std::move(mask).error();
  check->answered = true;
  round.add_differing(check->piece, *mask);
  return ok_status();
}

void SenderStream::abort() {
  channel_->abort();
  // The lock orders this with a worker that has just looked at the round and is about to wait.
  const std::lock_guard lock(credit_mutex_);
  credit_changed_.notify_all();
}

void SenderStream::end() { ended_ = channel_->finish(kLastWordsMs).ok(); }

void SenderStream::await_end() {
  if (ended_) channel_->drain(kLastWordsMs);
}

}  // namespace ferry::mover
