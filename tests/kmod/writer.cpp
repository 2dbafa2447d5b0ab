// SPDX-License-Identifier: GPL-2.0-or-later
#include "writer.h"

#include <fcntl.h>

#include <cstring>
#include <random>

#include "ring.h"
#include "suite.h"

namespace ferry::kmod {
namespace {

constexpr uint64_t kNone = UINT64_MAX;

struct Slot {
  Buffer buffer{kBlock};
  uint64_t block = kNone;
  uint32_t period = 0;
  std::chrono::steady_clock::time_point submitted;
};

}  // namespace

void BusyWriter::fill(uint64_t block, uint64_t generation, void* data) {
  auto* words = static_cast<uint64_t*>(data);
  if (generation == 0) {
    std::memset(data, 0, kBlock);
    return;
  }
  for (uint64_t i = 0; i < kBlock / 8; ++i)
    words[i] = (block << 32 | generation) * 0x9e3779b97f4a7c15 + i;
}

BusyWriter::BusyWriter(const Plan& plan)
    : plan_(plan), fd_(open_device(plan.path, O_RDWR | O_DIRECT)), generations_(plan.nr_blocks) {
  thread_ = std::thread([this] { work(); });
}

BusyWriter::~BusyWriter() { stop(); }

void BusyWriter::stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void BusyWriter::work() {
  Ring ring(plan_.depth);
  std::vector<Slot> slots(plan_.depth);
  std::vector<bool> busy(plan_.nr_blocks);
  std::mt19937_64 random(1);
  uint64_t next = 0;
  unsigned in_flight = 0;
  // One write per block at a time: then its last generation is what the block must hold.
  auto choose = [&]() -> uint64_t {
    if (plan_.each_block_once) return next < plan_.nr_blocks ? next++ : kNone;
    if (stop_) return kNone;
    for (;;)
      if (uint64_t block = random() % plan_.nr_blocks; !busy[block]) return block;
  };
  auto submit = [&](Slot& slot) {
    slot.block = choose();
    if (slot.block == kNone) return;
    busy[slot.block] = true;
    fill(slot.block, ++generations_[slot.block], slot.buffer.data());
    slot.period = period_;
    slot.submitted = std::chrono::steady_clock::now();
    io_uring_sqe* entry = io_uring_get_sqe(ring.get());
    io_uring_prep_write(entry, fd_.get(), slot.buffer.data(), kBlock, slot.block * kBlock);
    io_uring_sqe_set_data(entry, &slot);
    ++in_flight;
  };
  for (auto& slot : slots) submit(slot);
  while (in_flight > 0) {
    io_uring_submit_and_wait(ring.get(), 1);
    if (plan_.pause_ms) std::this_thread::sleep_for(std::chrono::milliseconds(plan_.pause_ms));
    io_uring_cqe* done = nullptr;
    while (io_uring_peek_cqe(ring.get(), &done) == 0) {
      auto* slot = static_cast<Slot*>(io_uring_cqe_get_data(done));
      if (done->res != static_cast<int>(kBlock)) ++errors_;
      io_uring_cqe_seen(ring.get(), done);
      note(slot->block, slot->period, std::chrono::steady_clock::now() - slot->submitted);
      busy[slot->block] = false;
      --in_flight;
      ++completed_;
      submit(*slot);
    }
  }
  running_ = false;
}

void BusyWriter::begin_period() {
  std::lock_guard lock(lock_);
  ++period_;
  written_.clear();
  latencies_.clear();
}

BusyWriter::Period BusyWriter::end_period() {
  std::lock_guard lock(lock_);
  ++period_;
  return {std::move(written_), std::move(latencies_)};
}

void BusyWriter::note(uint64_t block, uint32_t period, std::chrono::nanoseconds latency) {
  std::lock_guard lock(lock_);
  if (period_ % 2 == 0) return;  // nobody asked
  latencies_.push_back(latency);
  if (period == period_) written_.insert(block);
}

uint64_t BusyWriter::count_wrong_blocks(int fd) const {
  constexpr uint64_t kAtOnce = 256;
  Buffer got(kAtOnce * kBlock), expected(kBlock);
  uint64_t wrong = 0;
  for (uint64_t first = 0; first < plan_.nr_blocks; first += kAtOnce) {
    uint64_t count = std::min(kAtOnce, plan_.nr_blocks - first);
    Buffer& part = got;
    if (pread(fd, part.data(), count * kBlock, static_cast<off_t>(first * kBlock)) !=
        static_cast<ssize_t>(count * kBlock))
      return plan_.nr_blocks;
    for (uint64_t i = 0; i < count; ++i) {
      fill(first + i, generations_[first + i], expected.data());
      if (std::memcmp(part.bytes() + i * kBlock, expected.data(), kBlock) != 0) ++wrong;
    }
  }
  return wrong;
}

}  // namespace ferry::kmod
