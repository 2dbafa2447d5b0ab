// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace ferry::hypervisor {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return make_error(Errc::usage, "socket path too long: " + path, 0,
                      "use a directory with a shorter path");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

Result<Fd> listen_unix(const std::string& path) {
  auto address = address_of(path);
  if (!address.ok()) return address.error();
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return sys_error("cannot create a unix socket", errno);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) < 0)
    return sys_error("cannot bind " + path, errno);
  // Nobody can connect before listen(), so the mode is never open for a moment.
  if (::chmod(path.c_str(), S_IRUSR | S_IWUSR) < 0 || ::listen(fd.get(), 8) < 0) {
    Error error = sys_error("cannot listen on " + path, errno);
    ::unlink(path.c_str());
    return error;
  }
  return fd;
}

Result<Fd> connect_unix(const std::string& path) {
  auto address = address_of(path);
  if (!address.ok()) return address.error();
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return sys_error("cannot create a unix socket", errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) < 0)
    return sys_error("cannot connect to " + path, errno);
  return fd;
}

Result<size_t> socket_read(int fd, void* data, size_t size_bytes) {
  while (true) {
    ssize_t got = ::recv(fd, data, size_bytes, 0);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) return sys_error("cannot read from the libvirt socket", errno);
  }
}

Status socket_write(int fd, const void* data, size_t size_bytes) {
  auto* at = static_cast<const char*>(data);
  while (size_bytes > 0) {
    ssize_t put = ::send(fd, at, size_bytes, MSG_NOSIGNAL);
    if (put < 0) {
      if (errno == EINTR) continue;
      return sys_error("cannot write to the libvirt socket", errno);
    }
    at += put;
    size_bytes -= static_cast<size_t>(put);
  }
  return ok_status();
}

}  // namespace ferry::hypervisor
