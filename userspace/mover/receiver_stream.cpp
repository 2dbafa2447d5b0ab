// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/receiver_stream.h"

#include <algorithm>
#include <cstring>
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
  requests_.resize(queue_->slots());
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
    if (!*more) return finish_requests();
  }
}

Result<bool> ReceiverStream::take_frame() {
  auto header = wire::receive_header(channel_);
  if (!header.ok()) return std::move(header).error();
  if (!header->has_value()) {
    if (round_holds_ == RoundHolds::nothing) return false;
    return make_error(Errc::protocol, "the sender ended a stream in the middle of a round");
  }
  switch ((*header)->type) {
    case wire::FrameType::extent: FERRY_TRY(take_extent(**header)); return true;
    case wire::FrameType::zero: FERRY_TRY(take_zero(**header)); return true;
    case wire::FrameType::check: FERRY_TRY(take_check(**header)); return true;
    case wire::FrameType::end_round: FERRY_TRY(end_round(**header)); return true;
    default:
      return make_error(Errc::protocol, "unexpected frame of type " +
                        std::string(wire::frame_type_name((*header)->type)) +
                        " on a data stream");
  }
}

// A check and an extent of the same block would race: reads and writes of a round have no order.
Status ReceiverStream::enter(RoundHolds what) {
  if (round_holds_ != RoundHolds::nothing && round_holds_ != what)
    return make_error(Errc::protocol, "a round both compares and carries data");
  round_holds_ = what;
  return ok_status();
}

Result<Target*> ReceiverStream::disk_of(const wire::FrameHeader& header) const {
  const auto found = std::find_if(targets_.begin(), targets_.end(), [&](const auto& target) {
    return target->disk.disk == header.disk;
  });
  if (found == targets_.end())
    return make_error(Errc::protocol, "a frame names disk " + std::to_string(header.disk) +
                      ", which is not part of this migration");
  return found->get();
}

Result<Target*> ReceiverStream::target_of(const wire::FrameHeader& header,
                                          uint64_t length_bytes) const {
  auto target = disk_of(header);
  if (target.ok())
    FERRY_TRY(wire::check_range(header.offset, length_bytes, (*target)->disk.size_bytes));
  return target;
}

Status ReceiverStream::take_extent(const wire::FrameHeader& header) {
  auto target = target_of(header, header.length_bytes);
  if (!target.ok()) return std::move(target).error();
  FERRY_TRY(enter(RoundHolds::data));
  auto slot = idle_slot();
  if (!slot.ok()) return std::move(slot).error();
  std::byte* data = queue_->buffer(*slot);
  FERRY_TRY(wire::receive_payload(channel_, header, {data, queue_->buffer_size_bytes()}));
  const DiskTarget& disk = (*target)->disk;
  // Hashed while the content is in the cache. Should the write fail, the whole migration does.
  if (disk.hashes != nullptr) disk.hashes->set_data(header.offset, data, header.length_bytes);
  requests_[*slot] = {*target, header.offset, header.length_bytes};
  return queue_->start_write(*slot, disk.fd, header.offset, header.length_bytes);
}

Status ReceiverStream::take_zero(const wire::FrameHeader& header) {
  std::array<std::byte, wire::kZeroBodyBytes> body{};
  FERRY_TRY(wire::receive_payload(channel_, header, body));
  auto length = wire::parse_zero(header, body);
  if (!length.ok()) return std::move(length).error();
  auto target = target_of(header, *length);
  if (!target.ok()) return std::move(target).error();
  FERRY_TRY(enter(RoundHolds::data));
  FERRY_TRY((*target)->zeroes.write(header.offset, *length));
  if (BlockHashes* hashes = (*target)->disk.hashes) hashes->set_zero(header.offset, *length);
  received_bytes_ += *length;
  landed(*length);
  return ok_status();
}

Status ReceiverStream::take_check(const wire::FrameHeader& header) {
  auto target = disk_of(header);
  if (!target.ok()) return std::move(target).error();
  const DiskTarget& disk = (*target)->disk;
  auto length = wire::parse_check(header, disk.size_bytes);
  if (!length.ok()) return std::move(length).error();
  FERRY_TRY(enter(RoundHolds::checks));
  auto slot = idle_slot();
  if (!slot.ok()) return std::move(slot).error();
  std::vector<std::byte> expected(header.length_bytes);
  FERRY_TRY(wire::receive_payload(channel_, header, expected));
  requests_[*slot] = {*target, header.offset, *length, std::move(expected)};
  checks_.push_back(*slot);
  return queue_->start_read(*slot, disk.fd, header.offset, *length);
}

Status ReceiverStream::end_round(const wire::FrameHeader& header) {
  FERRY_TRY(wire::receive_payload(channel_, header, {}));
  FERRY_TRY(finish_requests());
  FERRY_TRY(send_ack());
  round_holds_ = RoundHolds::nothing;
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

Status ReceiverStream::finish_requests() {
  while (queue_->in_flight() > 0) {
    auto done = queue_->wait();
    if (!done.ok()) return std::move(done).error();
    FERRY_TRY(complete(*done));
  }
  return ok_status();
}

Status ReceiverStream::complete(const IoCompletion& done) {
  Request& request = requests_[done.slot];
  const bool check = !request.expected.empty();
  if (done.error != 0)
    return make_error(Errc::io, std::string(check ? "cannot read " : "cannot write ") +
                      std::to_string(request.length_bytes) + " bytes at offset " +
                      std::to_string(request.offset_bytes) + " of disk " +
                      std::to_string(request.target->disk.disk), done.error);
  if (check) {
    request.done = true;
    return finish_checks();
  }
  idle_.push_back(done.slot);
  received_bytes_ += request.length_bytes;
  landed(request.length_bytes);
  return ok_status();
}

// While checks_ is not empty after this, its first one is still being read: idle_slot() never waits
// for nothing.
Status ReceiverStream::finish_checks() {
  while (!checks_.empty() && requests_[checks_.front()].done) {
    const unsigned slot = checks_.front();
    FERRY_TRY(compare(slot));
    checks_.pop_front();
    idle_.push_back(slot);
    // Checked counts as landed: the sender's window and progress go by it as in any other round.
    landed(requests_[slot].length_bytes);
  }
  return ok_status();
}

Status ReceiverStream::compare(unsigned slot) {
  FERRY_TRY(CheckHasher::make_once(hasher_));
  const Request& request = requests_[slot];
  const std::byte* const data = queue_->buffer(slot);
  auto found = hasher_->hash_blocks(data, request.length_bytes);
  if (!found.ok()) return std::move(found).error();
  const DiskTarget& disk = request.target->disk;
  uint64_t mask = 0;
  for (uint64_t at = 0, block = 0; at < request.length_bytes; at += wire::kBlockBytes, ++block) {
    const size_t hash_at = block * wire::kCheckHashBytes;
    if (std::memcmp(&request.expected[hash_at], &(*found)[hash_at], wire::kCheckHashBytes) != 0)
      mask |= uint64_t{1} << block;
    else if (disk.hashes != nullptr)
      disk.hashes->set_data(request.offset_bytes + at, data + at,
                            std::min(wire::kBlockBytes, request.length_bytes - at));
  }
  if (mask == 0) return ok_status();
  std::array<std::byte, wire::kDiffersBytes> body{};
  wire::encode_differs(mask, body);
  return wire::send_frame(channel_, wire::FrameType::differs, disk.disk, request.offset_bytes,
                          body);
}

void ReceiverStream::landed(uint64_t size_bytes) {
  landed_.landed_bytes += size_bytes;
  ++landed_.landed_frames;
}

Status ReceiverStream::send_ack() {
  std::array<std::byte, wire::kAckBytes> body{};
  wire::encode_ack(landed_, body);
  FERRY_TRY(wire::send_frame(channel_, wire::FrameType::ack, 0, 0, body));
  acked_frames_ = landed_.landed_frames;
  return ok_status();
}

}  // namespace ferry::mover
