// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/http_stream.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>

namespace ferry::api {

bool HttpStream::wait(short events, Clock::time_point deadline) const {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left < 0) return false;
    pollfd fds[2] = {{fd_, events, 0}, {stop_fd_, POLLIN, 0}};
    const int ready = ::poll(fds, 2, static_cast<int>(std::min<int64_t>(left + 1, 60'000)));
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    if (fds[1].revents != 0) return false;
    if (fds[0].revents & (events | POLLHUP | POLLERR)) return (fds[0].revents & POLLERR) == 0;
  }
}

bool HttpStream::wait_for_request(std::chrono::milliseconds timeout) {
  if (broken_) return false;
  if (buffer_begin_ == buffer_end_) {
    char first = 0;
    if (!wait(POLLIN, Clock::now() + timeout)) return false;
    if (::recv(fd_, &first, 1, MSG_PEEK | MSG_DONTWAIT) != 1) return false;
  }
  request_deadline_ = Clock::now() + limits_.request_timeout;
  request_bytes_ = 0;
  return true;
}

bool HttpStream::is_readable() const {
  if (buffer_begin_ != buffer_end_) return true;
  pollfd fd{fd_, POLLIN, 0};
  return ::poll(&fd, 1, 0) == 1;
}

bool HttpStream::is_writable() const {
  pollfd fds[2] = {{fd_, POLLOUT | POLLRDHUP, 0}, {stop_fd_, POLLIN, 0}};
  if (::poll(fds, 2, 0) < 0) return false;
  return fds[1].revents == 0 && (fds[0].revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0;
}

ssize_t HttpStream::fill() {
  if (!wait(POLLIN, request_deadline_)) return -1;
  const ssize_t got = ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  buffer_begin_ = 0;
  buffer_end_ = got > 0 ? static_cast<size_t>(got) : 0;
  return got;
}

ssize_t HttpStream::read(char* data, size_t size) {
  if (request_bytes_ >= limits_.request_bytes_max) broken_ = true;
  if (broken_) return -1;
  if (buffer_begin_ == buffer_end_) {
    const ssize_t got = fill();
    if (got <= 0) {
      broken_ = true;
      return got;
    }
  }
  const size_t part = std::min({size, buffer_end_ - buffer_begin_,
                                limits_.request_bytes_max - request_bytes_});
  std::copy_n(buffer_.data() + buffer_begin_, part, data);
  buffer_begin_ += part;
  request_bytes_ += part;
  return static_cast<ssize_t>(part);
}

ssize_t HttpStream::write(const char* data, size_t size) {
  const auto deadline = Clock::now() + limits_.write_timeout;
  size_t done = 0;
  while (done < size) {
    const ssize_t put = ::send(fd_, data + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put > 0) {
      done += static_cast<size_t>(put);
      continue;
    }
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno != EAGAIN) return -1;
    if (!wait(POLLOUT, deadline)) return -1;
  }
  return static_cast<ssize_t>(done);
}

void HttpStream::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip = "unix";
  port = 0;
}

void HttpStream::get_local_ip_and_port(std::string& ip, int& port) const {
  ip = "unix";
  port = 0;
}

}  // namespace ferry::api
