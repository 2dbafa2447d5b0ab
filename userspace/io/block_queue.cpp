// SPDX-License-Identifier: GPL-2.0-or-later
#include "io/block_queue.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <vector>

#include "base/fd.h"

namespace ferry {
namespace {

// What a slot is doing; kept so that a short transfer can go on where it stopped.
struct Transfer {
  int fd = -1;
  bool write = false;
  uint64_t offset_bytes = 0;
  size_t length_bytes = 0;
  size_t done_bytes = 0;
};

class PlainQueue final : public BlockQueue {
 public:
  explicit PlainQueue(AlignedSlab slab) : BlockQueue(std::move(slab)) {}

  Status start_read(unsigned slot, int fd, uint64_t offset_bytes, size_t length_bytes) override {
    return run(slot, {fd, false, offset_bytes, length_bytes, 0});
  }
  Status start_write(unsigned slot, int fd, uint64_t offset_bytes, size_t length_bytes) override {
    return run(slot, {fd, true, offset_bytes, length_bytes, 0});
  }
  Result<std::optional<IoCompletion>> poll() override {
    if (completed_.empty()) return std::optional<IoCompletion>{};
    const IoCompletion first = completed_.front();
    completed_.pop_front();
    --in_flight_;
    return std::optional(first);
  }
  Result<IoCompletion> wait() override {
    auto first = poll();
    if (first.ok() && first->has_value()) return **first;
    return make_error(Errc::failed, "waited for block I/O while none was in flight");
  }
  int event_fd() const override { return -1; }
  IoEngine engine() const override { return IoEngine::plain; }

 private:
  Status run(unsigned slot, Transfer transfer) {
    completed_.push_back({slot, move_all(slot, transfer)});
    ++in_flight_;
    return ok_status();
  }
  int move_all(unsigned slot, Transfer& t) {
    while (t.done_bytes < t.length_bytes) {
      std::byte* at = buffer(slot) + t.done_bytes;
      const size_t left = t.length_bytes - t.done_bytes;
      const auto offset = static_cast<off_t>(t.offset_bytes + t.done_bytes);
      const ssize_t n = t.write ? pwrite(t.fd, at, left, offset) : pread(t.fd, at, left, offset);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      if (n == 0) return t.write ? EIO : ENODATA;
      t.done_bytes += static_cast<size_t>(n);
    }
    return 0;
  }

  std::deque<IoCompletion> completed_;
};

// The ring itself, so that a half-made queue cleans up after itself.
class Ring {
 public:
  static Result<std::unique_ptr<Ring>> create(unsigned entries) {
    std::unique_ptr<Ring> ring(new Ring);
    io_uring_params params{};
    const int rc = io_uring_queue_init_params(entries, &ring->ring_, &params);
    if (rc < 0)
      return sys_error("cannot set up io_uring", -rc,
                       "kernel.io_uring_disabled or a seccomp policy may forbid it");
    ring->live_ = true;
    return ring;
  }
  ~Ring() {
    if (live_) io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  io_uring* get() { return &ring_; }

 private:
  Ring() = default;
  io_uring ring_{};
  bool live_ = false;
};

class UringQueue final : public BlockQueue {
 public:
  static Result<std::unique_ptr<BlockQueue>> create(AlignedSlab slab) {
    auto ring = Ring::create(slab.buffers());
    if (!ring.ok()) return std::move(ring).error();
    Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event.valid()) return sys_error("cannot make an eventfd for io_uring", errno);
    const int rc = io_uring_register_eventfd((*ring)->get(), event.get());
    if (rc < 0) return sys_error("cannot register an eventfd with io_uring", -rc);
    return std::unique_ptr<BlockQueue>(
        new UringQueue(std::move(slab), std::move(*ring), std::move(event)));
  }

  ~UringQueue() override {
    // The kernel still moves bytes in or out of our buffers: they must not go before it is done.
    while (in_flight_ > 0 && wait().ok()) {
    }
  }

  Status start_read(unsigned slot, int fd, uint64_t offset_bytes, size_t length_bytes) override {
    transfers_[slot] = {fd, false, offset_bytes, length_bytes, 0};
    FERRY_TRY(submit(slot));
    ++in_flight_;
    return ok_status();
  }
  Status start_write(unsigned slot, int fd, uint64_t offset_bytes, size_t length_bytes) override {
    transfers_[slot] = {fd, true, offset_bytes, length_bytes, 0};
    FERRY_TRY(submit(slot));
    ++in_flight_;
    return ok_status();
  }

  Result<std::optional<IoCompletion>> poll() override {
    uint64_t signals = 0;
    // Clear first, look afterwards: a completion in between leaves the signal set.
    if (read(event_.get(), &signals, sizeof signals) < 0 && errno != EAGAIN)
      return sys_error("cannot read the eventfd of io_uring", errno);
    for (;;) {
      io_uring_cqe* cqe = nullptr;
      if (io_uring_peek_cqe(ring_->get(), &cqe) != 0) return std::optional<IoCompletion>{};
      auto done = take(cqe);
      if (!done.ok()) return std::move(done).error();
      if (done->has_value()) return *done;
    }
  }

  Result<IoCompletion> wait() override {
    for (;;) {
      io_uring_cqe* cqe = nullptr;
      const int rc = io_uring_wait_cqe(ring_->get(), &cqe);
      if (rc == -EINTR) continue;
      if (rc < 0) return sys_error("cannot wait for io_uring", -rc);
      auto done = take(cqe);
      if (!done.ok()) return std::move(done).error();
      if (done->has_value()) return **done;
    }
  }
  int event_fd() const override { return event_.get(); }
  IoEngine engine() const override { return IoEngine::uring; }

 private:
  UringQueue(AlignedSlab slab, std::unique_ptr<Ring> ring, Fd event)
      : BlockQueue(std::move(slab)),
        ring_(std::move(ring)),
        event_(std::move(event)),
        transfers_(slots()) {
    std::vector<iovec> buffers(slots());
    for (unsigned i = 0; i < slots(); ++i) buffers[i] = {buffer(i), buffer_size_bytes()};
    // Registering saves pinning per transfer; it may fail for a low RLIMIT_MEMLOCK, and then
    // everything works the same, a little slower.
    registered_ = io_uring_register_buffers(ring_->get(), buffers.data(), slots()) == 0;
  }

  Status submit(unsigned slot) {
    io_uring_sqe* sqe = io_uring_get_sqe(ring_->get());
    if (sqe == nullptr) return make_error(Errc::failed, "the io_uring submission queue is full");
    const Transfer& t = transfers_[slot];
    std::byte* at = buffer(slot) + t.done_bytes;
    const auto left = static_cast<unsigned>(t.length_bytes - t.done_bytes);
    const uint64_t offset = t.offset_bytes + t.done_bytes;
    const int index = static_cast<int>(slot);
    if (registered_ && t.write) io_uring_prep_write_fixed(sqe, t.fd, at, left, offset, index);
    else if (registered_) io_uring_prep_read_fixed(sqe, t.fd, at, left, offset, index);
    else if (t.write) io_uring_prep_write(sqe, t.fd, at, left, offset);
    else io_uring_prep_read(sqe, t.fd, at, left, offset);
    io_uring_sqe_set_data64(sqe, slot);
    int rc = 0;
    do {
      rc = io_uring_submit(ring_->get());
    } while (rc == -EINTR || rc == -EAGAIN);
    if (rc < 0) return sys_error("cannot submit to io_uring", -rc);
    return ok_status();
  }

  // Consumes one completion; nothing when the transfer had to be continued.
  Result<std::optional<IoCompletion>> take(io_uring_cqe* cqe) {
    const auto slot = static_cast<unsigned>(io_uring_cqe_get_data64(cqe));
    const int result = cqe->res;
    io_uring_cqe_seen(ring_->get(), cqe);
    Transfer& t = transfers_[slot];
    int error = 0;
    if (result > 0) t.done_bytes += static_cast<size_t>(result);
    else if (result == 0) error = t.write ? EIO : ENODATA;
    else if (result != -EINTR && result != -EAGAIN) error = -result;
    if (error == 0 && t.done_bytes < t.length_bytes) {
      if (Status again = submit(slot); !again.ok()) {
        --in_flight_;
        return std::move(again).error();
      }
      return std::optional<IoCompletion>{};
    }
    --in_flight_;
    return std::optional(IoCompletion{slot, error});
  }

  std::unique_ptr<Ring> ring_;
  Fd event_;
  std::vector<Transfer> transfers_;
  bool registered_ = false;
};

}  // namespace

std::string_view io_engine_name(IoEngine engine) {
  switch (engine) {
    case IoEngine::automatic: return "automatic";
    case IoEngine::uring: return "io_uring";
    case IoEngine::plain: return "pread/pwrite";
  }
  return "?";
}

Status probe_io_uring() {
  auto ring = Ring::create(1);
  if (!ring.ok()) return std::move(ring).error();
  return ok_status();
}

Result<std::unique_ptr<BlockQueue>> BlockQueue::create(unsigned slots, size_t buffer_size_bytes,
                                                       IoEngine engine) {
  auto slab = AlignedSlab::create(slots, buffer_size_bytes);
  if (!slab.ok()) return std::move(slab).error();
  if (engine == IoEngine::automatic)
    engine = probe_io_uring().ok() ? IoEngine::uring : IoEngine::plain;
  if (engine == IoEngine::plain)
    return std::unique_ptr<BlockQueue>(std::make_unique<PlainQueue>(std::move(*slab)));
  return UringQueue::create(std::move(*slab));
}

}  // namespace ferry
