// SPDX-License-Identifier: GPL-2.0-or-later
// The unix socket of the admin API: made safely where it has to be, and who is on its other end.
// Ownership: UnixListener owns descriptor, lock file and socket file. Thread-safety: none needed.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace ferry::api {

struct PeerCredentials {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
  std::vector<gid_t> groups;  // supplementary
};
Result<PeerCredentials> peer_credentials(int fd);
// root, the daemon's own user, or a member of the admin group if there is one.
bool peer_may_administer(const PeerCredentials& peer, std::optional<gid_t> admin_group);
std::optional<gid_t> group_by_name(const std::string& name);

class UnixListener {
 public:
  // Listens on `path` with mode 0660, root and `group`. A socket left by a dead daemon is
  // replaced; Errc::busy when a daemon is alive there, or when the path is not a socket.
  static Result<UnixListener> bind(const std::string& path, std::optional<gid_t> group);
  UnixListener(UnixListener&&) = default;
  ~UnixListener();

  int fd() const { return socket_.get(); }

 private:
  UnixListener(std::string path, Fd lock, Fd socket)
      : path_(std::move(path)), lock_(std::move(lock)), socket_(std::move(socket)) {}

  std::string path_;
  Fd lock_;     // held as long as we live; makes removing a stale socket race-free
  Fd socket_;
};

}  // namespace ferry::api
