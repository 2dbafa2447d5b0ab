// SPDX-License-Identifier: GPL-2.0-or-later
// HttpStream: lets httplib talk over an accepted unix socket while one stop descriptor can wake
// it at any time, one request cannot grow or last without bound, and a vanished reader is noticed.
// Ownership: borrows both descriptors. Thread-safety: one connection thread.
#pragma once

#include <httplib.h>

#include <array>
#include <chrono>

namespace ferry::api {

struct StreamLimits {
  std::chrono::milliseconds request_timeout{10'000};  // a whole request must arrive in this time
  std::chrono::milliseconds write_timeout{30'000};    // a reader may stall for this long
  size_t request_bytes_max = 128 * 1024;              // head and body together
};

class HttpStream : public httplib::Stream {
 public:
  HttpStream(int fd, int stop_fd, const StreamLimits& limits)
      : fd_(fd), stop_fd_(stop_fd), limits_(limits) {}

  // Waits for the first byte of the next request; false on timeout, hang-up or stop.
  bool wait_for_request(std::chrono::milliseconds timeout);

  // After a request that was cut off nothing on this connection can be trusted.
  bool broken() const { return broken_; }

  bool is_readable() const override;
  bool is_writable() const override;  // false also when the other side has hung up
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return fd_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool wait(short events, Clock::time_point deadline) const;
  ssize_t fill();

  const int fd_;
  const int stop_fd_;
  const StreamLimits& limits_;
  Clock::time_point request_deadline_{};
  size_t request_bytes_ = 0;
  bool broken_ = false;
  // httplib reads heads byte by byte; one recv() fills this instead.
  std::array<char, 4096> buffer_{};
  size_t buffer_begin_ = 0;
  size_t buffer_end_ = 0;
};

}  // namespace ferry::api
