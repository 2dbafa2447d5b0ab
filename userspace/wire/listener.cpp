// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <memory>

#include "wire/socket.h"

namespace ferry::wire {
namespace {

constexpr int kBacklog = 64;

uint16_t port_of(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

// Returns the listening socket or leaves the reason in errno.
Fd listen_on(const addrinfo& address) {
  Fd fd(socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fd;
  const int on = 1, off = 0;
  (void)setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.ai_family == AF_INET6)  // "::" serves IPv4 as well
    (void)setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    const int error = errno;
    fd.reset();
    errno = error;
  }
  return fd;
}

}  // namespace

Result<Listener> Listener::bind(const std::string& address, uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  const std::string where = join_host_port(address.empty() ? "*" : address, port);
  // Without an address the IPv6 wildcard comes first, because it takes IPv4 too; hosts without
  // IPv6 fall through to the IPv4 one.
  int last_error = EADDRNOTAVAIL;
  for (const char* host : {"::", "0.0.0.0"}) {
    addrinfo* found = nullptr;
    const int rc = getaddrinfo(address.empty() ? host : address.c_str(),
                               std::to_string(port).c_str(), &hints, &found);
    if (rc != 0 && !address.empty())
      return make_error(Errc::usage, "cannot listen on " + where + ": " + gai_strerror(rc));
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
    for (const addrinfo* at = rc == 0 ? found : nullptr; at != nullptr; at = at->ai_next) {
      Fd fd = listen_on(*at);
      if (!fd.valid()) {
        last_error = errno;
        continue;
      }
      Fd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      if (!wake.valid()) return sys_error("cannot make an eventfd for a listener", errno);
      const uint16_t bound = port_of(fd.get());
      return Listener(std::move(fd), std::move(wake), bound);
    }
    if (!address.empty()) break;
  }
  return sys_error("cannot listen on " + where, last_error,
                   "is another ferryd running, and is this an address of this host?");
}

Result<Fd> Listener::accept(int timeout_ms) {
  const Deadline deadline(timeout_ms);
  for (;;) {
    std::array<pollfd, 2> waiters{{{socket_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
    const int rc = poll(waiters.data(), waiters.size(), deadline.remaining_ms());
    if (rc < 0 && errno == EINTR) continue;
    if (rc < 0) return sys_error("cannot wait for peers", errno);
    if (waiters[1].revents != 0) return make_error(Errc::aborted, "the listener was stopped");
    if (rc == 0) return make_error(Errc::timeout, "no peer connected in time");
    Fd fd(accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.valid()) return fd;
    // A peer that has gone again, or a wake-up somebody else used: keep waiting.
    const bool gone = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED ||
                      errno == EPROTO || errno == ENETDOWN || errno == EHOSTUNREACH ||
                      errno == ENETUNREACH;
    if (!gone) return sys_error("cannot accept a peer", errno);
  }
}

void Listener::stop() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

}  // namespace ferry::wire
