// SPDX-License-Identifier: GPL-2.0-or-later
// BlockQueue: a fixed number of slots, each an aligned buffer with at most one read or write in
// flight. io_uring with registered buffers where the kernel permits it, else plain pread/pwrite.
// Owns its buffers and its ring; waits for everything in flight before it goes.
// Thread-safety: one thread at a time. File descriptors stay the caller's and must outlive the I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "io/aligned_slab.h"

namespace ferry {

enum class IoEngine { automatic, uring, plain };

// "io_uring", "pread/pwrite".
std::string_view io_engine_name(IoEngine engine);
// Whether this process may use io_uring; the error says why not (doctor prints it).
Status probe_io_uring();

struct IoCompletion {
  unsigned slot = 0;
  int error = 0;  // errno, 0 when every byte was moved
};

class BlockQueue {
 public:
  static Result<std::unique_ptr<BlockQueue>> create(unsigned slots, size_t buffer_size_bytes,
                                                    IoEngine engine = IoEngine::automatic);
  virtual ~BlockQueue() = default;

  // The buffer of a slot; not to be touched while the slot is in flight.
  std::byte* buffer(unsigned slot) const { return slab_.buffer(slot); }
  unsigned slots() const { return slab_.buffers(); }
  size_t buffer_size_bytes() const { return slab_.buffer_size_bytes(); }
  unsigned in_flight() const { return in_flight_; }

  // Starts moving `length_bytes` between the slot's buffer and the file. Short transfers are
  // continued inside; a read that meets the end of the file completes with ENODATA.
  virtual Status start_read(unsigned slot, int fd, uint64_t offset_bytes, size_t length_bytes) = 0;
  virtual Status start_write(unsigned slot, int fd, uint64_t offset_bytes, size_t length_bytes) = 0;
  // A completion that is already there; nothing when there is none.
  virtual Result<std::optional<IoCompletion>> poll() = 0;
  // Blocks until something completes. Precondition: in_flight() > 0.
  virtual Result<IoCompletion> wait() = 0;
  // Becomes readable when a completion arrives; -1 when completions are there at once (plain
  // engine). Call poll() until it is empty after each wake-up: it also clears the signal.
  virtual int event_fd() const = 0;
  virtual IoEngine engine() const = 0;

 protected:
  explicit BlockQueue(AlignedSlab slab) : slab_(std::move(slab)) {}

  AlignedSlab slab_;
  unsigned in_flight_ = 0;
};

}  // namespace ferry
