// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/receiver_stream.h"

#include <algorithm>
#include <numeric>

#include "wire/control.h"

namespace ferry::mover {
namespace {

// A quarter of the window: the sender never runs dry, and few acks go out.
constexpr uint64_t kAckEveryFrames = wire::kWindowFrames / 4;

}  // namespace

Status ReceiverStream::run(IoEngine engine) {
  auto queue = BlockQueue::create(wire::kWindowFrames, wire::kMaxExtentBytes, engine);
  if (!queue.ok()) return std::move(queue).error();
  queue_ = std::move(*queue);
  writes_.resize(queue_->slots());
  idle_.resize(queue_->slots());
  std::iota(idle_.begin(), idle_.end(), 0u);
  for (;;) {
    FERRY_TRY(reap());
    const uint64_t owed = landed_.landed_frames - acked_frames_;
    if (owed >= kAckEveryFrames) FERRY_TRY(send_ack());
    // With something to acknowledge, only look: when nothing is there, the ack goes out at once.
    auto ready = channel_.wait_readable(owed > 0 ? 0 : -1, queue_->event_fd());
    if (!ready.ok()) return std::move(ready).error();
    if (*ready == wire::Ready::timeout) FERRY_TRY(send_ack());
    if (*ready != wire::Ready::channel) continue;
    auto more = take_frame();
    if (!more.ok()) return std::move(more).error();
    if (!*more) return finish_writes();
  }
}

Result<bool> ReceiverStream::take_frame() {
  auto header = wire::receive_header(channel_);
  if (!header.ok()) return std::move(header).error();
  if (!header->has_value()) {
    if (!in_round_) return false;
    return make_error(Errc::protocol, "the sender ended a stream in the middle of a round");
  }
  switch ((*header)->type) {
    case wire::FrameType::extent: FERRY_TRY(take_extent(**header)); return true;
    case wire::FrameType::zero: FERRY_TRY(take_zero(**header)); return true;
    case wire::FrameType::end_round: FERRY_TRY(end_round(**header)); return true;
    default:
      return make_error(Errc::protocol, "unexpected frame of type " +
                        std::string(wire::frame_type_name((*header)->type)) +
                        " on a data stream");
  }
}

Result<Target*> ReceiverStream::target_of(const wire::FrameHeader& header,
                                          uint64_t length_bytes) const {
  const auto found = std::find_if(targets_.begin(), targets_.end(), [&](const auto& target) {
    return target->disk.disk == header.disk;
  });
  if (found == targets_.end())
    return make_error(Errc::protocol, "a frame names disk " + std::to_string(header.disk) +
                      ", which is not part of this migration");
  FERRY_TRY(wire::check_range(header.offset, length_bytes, (*found)->disk.size_bytes));
  return found->get();
}

Status ReceiverStream::take_extent(const wire::FrameHeader& header) {
  auto target = target_of(header, header.length_bytes);
  if (!target.ok()) return std::move(target).error();
  auto slot = idle_slot();
  if (!slot.ok()) return std::move(slot).error();
  in_round_ = true;
  std::byte* data = queue_->buffer(*slot);
  FERRY_TRY(wire::receive_payload(channel_, header, {data, queue_->buffer_size_bytes()}));
  const DiskTarget& disk = (*target)->disk;
  // Hashed while the content is in the cache. Should the write fail, the whole migration does.
  if (disk.hashes != nullptr) disk.hashes->set_data(header.offset, data, header.length_bytes);
  writes_[*slot] = {*target, header.offset, header.length_bytes};
  return queue_->start_write(*slot, disk.fd, header.offset, header.length_bytes);
}

Status ReceiverStream::take_zero(const wire::FrameHeader& header) {
  std::array<std::byte, wire::kZeroBodyBytes> body{};
  FERRY_TRY(wire::receive_payload(channel_, header, body));
  auto length = wire::parse_zero(header, body);
  if (!length.ok()) return std::move(length).error();
  auto target = target_of(header, *length);
  if (!target.ok()) return std::move(target).error();
  in_round_ = true;
  FERRY_TRY((*target)->zeroes.write(header.offset, *length));
  if (BlockHashes* hashes = (*target)->disk.hashes) hashes->set_zero(header.offset, *length);
  landed(*length);
  return ok_status();
}

Status ReceiverStream::end_round(const wire::FrameHeader& header) {
  FERRY_TRY(wire::receive_payload(channel_, header, {}));
  FERRY_TRY(finish_writes());
  FERRY_TRY(send_ack());
  in_round_ = false;
  return wire::send_frame(channel_, wire::FrameType::end_round, 0, header.offset, {});
}

Result<unsigned> ReceiverStream::idle_slot() {
  while (idle_.empty()) {
    auto done = queue_->wait();
    if (!done.ok()) return std::move(done).error();
    FERRY_TRY(complete(*done));
  }
  const unsigned slot = idle_.back();
  idle_.pop_back();
  return slot;
}

Status ReceiverStream::reap() {
  for (;;) {
    auto done = queue_->poll();
    if (!done.ok()) return std::move(done).error();
    if (!done->has_value()) return ok_status();
    FERRY_TRY(complete(**done));
  }
}

Status ReceiverStream::finish_writes() {
  while (queue_->in_flight() > 0) {
    auto done = queue_->wait();
    if (!done.ok()) return std::move(done).error();
    FERRY_TRY(complete(*done));
  }
  return ok_status();
}

Status ReceiverStream::complete(const IoCompletion& done) {
  const Write& write = writes_[done.slot];
  if (done.error != 0)
    return make_error(Errc::io, "cannot write " + std::to_string(write.length_bytes) +
                      " bytes at offset " + std::to_string(write.offset_bytes) + " of disk " +
                      std::to_string(write.target->disk.disk), done.error);
  idle_.push_back(done.slot);
  landed(write.length_bytes);
  return ok_status();
}

void ReceiverStream::landed(uint64_t size_bytes) {
  landed_.landed_bytes += size_bytes;
  ++landed_.landed_frames;
  received_bytes_ += size_bytes;
}

Status ReceiverStream::send_ack() {
  std::array<std::byte, wire::kAckBytes> body{};
  wire::encode_ack(landed_, body);
  FERRY_TRY(wire::send_frame(channel_, wire::FrameType::ack, 0, 0, body));
  acked_frames_ = landed_.landed_frames;
  return ok_status();
}

}  // namespace ferry::mover
