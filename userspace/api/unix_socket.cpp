// SPDX-License-Identifier: GPL-2.0-or-later
#include "api/unix_socket.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ferry::api {
namespace {

constexpr int kBacklog = 32;

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return make_error(Errc::usage, "the socket path \"" + path + "\" is empty or longer than " +
                                       std::to_string(sizeof address.sun_path - 1) + " bytes");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// Removes a socket nobody listens on. Only called with the lock held.
Status remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat found{};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return ok_status();
    return sys_error("cannot look at " + path, errno);
  }
  if (!S_ISSOCK(found.st_mode))
    return make_error(Errc::busy, path + " exists and is not a socket", 0,
                      "move it away; it is not touched");
  const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!probe.valid()) return sys_error("cannot create a unix socket", errno);
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    return make_error(Errc::busy, "another daemon already listens on " + path, 0,
                      "systemctl status ferryd shows it");
  if (errno != ECONNREFUSED) return sys_error("cannot test the socket " + path, errno);
  if (::unlink(path.c_str()) != 0) return sys_error("cannot remove the old socket " + path, errno);
  return ok_status();
}

}  // namespace

Result<PeerCredentials> peer_credentials(int fd) {
  ucred cred{};
  socklen_t length = sizeof cred;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0)
    return sys_error("cannot tell who connected to the admin socket", errno);
  PeerCredentials peer{cred.uid, cred.gid, cred.pid, {}};
  length = 0;
  // First call says how much room the list needs (ERANGE), the second fills it.
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, nullptr, &length) != 0 && errno == ERANGE) {
    peer.groups.resize(length / sizeof(gid_t));
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &length) != 0)
      peer.groups.clear();
  }
  return peer;
}

bool peer_may_administer(const PeerCredentials& peer, std::optional<gid_t> admin_group) {
  if (peer.uid == 0 || peer.uid == ::geteuid()) return true;
  if (!admin_group) return false;
  return peer.gid == *admin_group ||
         std::find(peer.groups.begin(), peer.groups.end(), *admin_group) != peer.groups.end();
}

std::optional<gid_t> group_by_name(const std::string& name) {
  std::vector<char> buffer(64 * 1024);
  group entry{};
  group* found = nullptr;
  if (::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr)
    return std::nullopt;
  return found->gr_gid;
}

Result<UnixListener> UnixListener::bind(const std::string& path, std::optional<gid_t> group) {
  auto address = address_of(path);
  if (!address.ok()) return std::move(address).error();
  const std::string lock_path = path + ".lock";
  Fd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid())
    return sys_error("cannot create " + lock_path, errno, "the directory must exist");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return make_error(Errc::busy, "another daemon holds " + lock_path, 0,
                      "systemctl status ferryd shows it");
  FERRY_TRY(remove_stale(path, *address));

  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return sys_error("cannot create a unix socket", errno);
  // The mode of the descriptor becomes the mode of the file, so it never is wider than this.
  if (::fchmod(socket.get(), 0600) != 0) return sys_error("cannot set the mode of a socket", errno);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
    return sys_error("cannot make the admin socket " + path, errno);
  UnixListener listener(path, std::move(lock), std::move(socket));
  if (group && ::lchown(path.c_str(), static_cast<uid_t>(-1), *group) != 0)
    return sys_error("cannot give " + path + " to its group", errno);
  if (::chmod(path.c_str(), 0660) != 0) return sys_error("cannot set the mode of " + path, errno);
  if (::listen(listener.fd(), kBacklog) != 0) return sys_error("cannot listen on " + path, errno);
  return listener;
}

UnixListener::~UnixListener() {
  if (socket_.valid()) ::unlink(path_.c_str());
}

}  // namespace ferry::api
