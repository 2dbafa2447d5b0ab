// SPDX-License-Identifier: GPL-2.0-or-later
// Ring: an io_uring that ends with its owner. One thread.
#pragma once

#include <liburing.h>

#include <stdexcept>

namespace ferry::kmod {

class Ring {
 public:
  explicit Ring(unsigned depth) {
    if (io_uring_queue_init(depth, &ring_, 0) != 0) throw std::runtime_error("no io_uring");
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() { io_uring_queue_exit(&ring_); }
  io_uring* get() { return &ring_; }

 private:
  io_uring ring_{};
};

}  // namespace ferry::kmod
