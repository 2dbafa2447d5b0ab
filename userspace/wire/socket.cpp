// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

namespace ferry::wire {
namespace {

constexpr const char* kDialHint = "is ferryd running there, and may this host reach its port?";

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

// Returns 0 or the errno of the attempt.
int connect_until(int fd, const addrinfo& address, const Deadline& deadline) {
  if (::connect(fd, address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS && errno != EINTR) return errno;
  pollfd waiter{fd, POLLOUT, 0};
  int rc = 0;
  do {
    rc = poll(&waiter, 1, deadline.remaining_ms());
  } while (rc < 0 && errno == EINTR);
  if (rc == 0) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  if (rc < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

void set_tcp(int fd, int option, int value) {
  // Not every socket is TCP (tests use local pairs), and none of these decides about correctness.
  (void)setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value);
}

}  // namespace

int Deadline::remaining_ms() const {
  if (!at_) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(
      *at_ - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
}

std::string join_host_port(const std::string& host, uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<Fd> dial(const std::string& host, uint16_t port, const Deadline& deadline) {
  const std::string where = join_host_port(host, port);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int rc = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (rc != 0)
    return make_error(rc == EAI_NONAME ? Errc::not_found : Errc::peer_unreachable,
                      "cannot resolve the host name " + host + ": " + gai_strerror(rc), 0,
                      "check the name, DNS or /etc/hosts");
  const AddressList addresses(found, freeaddrinfo);
  int last_error = ETIMEDOUT;
  for (const addrinfo* at = addresses.get(); at != nullptr && !deadline.passed(); at = at->ai_next) {
    Fd fd(socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) {
      last_error = errno;
      continue;
    }
    last_error = connect_until(fd.get(), *at, deadline);
    if (last_error == 0) return fd;
  }
  return make_error(Errc::peer_unreachable, "cannot connect to " + where, last_error, kDialHint);
}

Status prepare_socket(int fd, int dead_after_ms) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
    return sys_error("cannot make a socket non-blocking", errno);
  const int on = 1;
  (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  set_tcp(fd, TCP_NODELAY, 1);
  // Idle connection: first probe after a third of the time, then four more in the rest. Data
  // under way: TCP_USER_TIMEOUT, which the probes obey as well.
  const int dead_after_s = std::max(3, dead_after_ms / 1000);
  set_tcp(fd, TCP_KEEPIDLE, std::max(1, dead_after_s / 3));
  set_tcp(fd, TCP_KEEPINTVL, std::max(1, dead_after_s / 6));
  set_tcp(fd, TCP_KEEPCNT, 4);
  set_tcp(fd, TCP_USER_TIMEOUT, dead_after_ms);
  return ok_status();
}

std::string peer_address_of(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "a lost peer";
  if (address.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    inet_ntop(AF_INET, &v4->sin_addr, text.data(), text.size());
    return join_host_port(text.data(), ntohs(v4->sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
    if (mapped) inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], text.data(), text.size());
    else inet_ntop(AF_INET6, &v6->sin6_addr, text.data(), text.size());
    return join_host_port(text.data(), ntohs(v6->sin6_port));
  }
  return "a local socket";
}

}  // namespace ferry::wire
