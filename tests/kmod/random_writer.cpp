// SPDX-License-Identifier: GPL-2.0-or-later
#include "random_writer.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <vector>

#include "ring.h"
#include "suite.h"

namespace ferry::kmod {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kLargest = 64 * kBlock;

struct Slot {
  Buffer buffer{kLargest};
  size_t length = 0;
  bool fua = false;
};

struct Place {
  uint64_t offset;
  uint64_t length;
};

// On block boundaries or off them, small ones as likely as large ones.
Place any_place(std::mt19937_64& random, uint64_t size_bytes) {
  uint64_t unit = random() % 2 ? kBlock : kSector;
  uint64_t most = uint64_t{1} << (random() % 7);
  uint64_t length = std::min((1 + random() % most) * unit, kLargest);
  return {random() % ((size_bytes - length) / unit + 1) * unit, length};
}

}  // namespace

RandomWriter::RandomWriter(const Plan& plan)
    : plan_(plan), fd_(open_device(plan.path, O_RDWR | O_DIRECT)) {
  writer_ = std::thread([this] { write(); });
  other_ = std::thread([this] { others(); });
}

RandomWriter::~RandomWriter() { stop(); }

void RandomWriter::stop() {
  stop_ = true;
  if (writer_.joinable()) writer_.join();
  if (other_.joinable()) other_.join();
}

void RandomWriter::write() {
  Ring ring(plan_.depth);
  std::vector<Slot> slots(plan_.depth);
  std::mt19937_64 random(plan_.seed);
  unsigned in_flight = 0;
  auto submit = [&](Slot& slot) {
    if (stop_) return;
    auto [offset, length] = any_place(random, plan_.size_bytes);
    slot.length = length;
    slot.fua = random() % 8 == 0;
    auto* words = static_cast<uint64_t*>(slot.buffer.data());
    for (uint64_t i = 0; i < length / 8; i += kSector / 8) words[i] = random();
    io_uring_sqe* entry = io_uring_get_sqe(ring.get());
    io_uring_prep_write(entry, fd_.get(), slot.buffer.data(), static_cast<unsigned>(length), offset);
    if (slot.fua) entry->rw_flags = RWF_DSYNC;
    io_uring_sqe_set_data(entry, &slot);
    ++in_flight;
  };
  for (auto& slot : slots) submit(slot);
  while (in_flight > 0) {
    io_uring_submit_and_wait(ring.get(), 1);
    io_uring_cqe* done = nullptr;
    while (io_uring_peek_cqe(ring.get(), &done) == 0) {
      auto* slot = static_cast<Slot*>(io_uring_cqe_get_data(done));
      if (done->res != static_cast<int>(slot->length)) ++errors_;
      io_uring_cqe_seen(ring.get(), done);
      ++(slot->fua ? fua_ : writes_);
      --in_flight;
      submit(*slot);
    }
  }
}

void RandomWriter::others() {
  std::mt19937_64 random(plan_.seed + 1);
  while (!stop_) {
    auto [offset, length] = any_place(random, plan_.size_bytes);
    uint64_t range[2] = {offset, length};
    unsigned kind = random() % 3;
    int result = kind == 0   ? ioctl(fd_.get(), BLKDISCARD, range)
                 : kind == 1 ? ioctl(fd_.get(), BLKZEROOUT, range)
                             : fdatasync(fd_.get());
    // Not every disk can discard.
    if (result != 0 && errno != EOPNOTSUPP) ++errors_;
    ++(kind == 0 ? discards_ : kind == 1 ? zeroes_ : flushes_);
  }
}

std::string RandomWriter::counts() const {
  return std::to_string(writes_) + " writes, " + std::to_string(fua_) + " with FUA, " +
         std::to_string(discards_) + " discards, " + std::to_string(zeroes_) + " zeroes, " +
         std::to_string(flushes_) + " flushes";
}

}  // namespace ferry::kmod
