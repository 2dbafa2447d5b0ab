// SPDX-License-Identifier: GPL-2.0-or-later
// SocketPipe: a BytePipe over a plain stream socket, which it owns. For tests and for reaching a
// libvirt daemon of this machine; between hosts the daemon's TLS channel takes its place.
// Thread-safety: as BytePipe.
#pragma once

#include <sys/socket.h>

#include "base/fd.h"
#include "hypervisor/byte_pipe.h"
#include "hypervisor/unix_socket.h"

namespace ferry::hypervisor {

class SocketPipe : public BytePipe {
 public:
  explicit SocketPipe(Fd socket) : socket_(std::move(socket)) {}

  Result<size_t> read_some(void* data, size_t size_bytes) override {
    return socket_read(socket_.get(), data, size_bytes);
  }
  Status write_all(const void* data, size_t size_bytes) override {
    return socket_write(socket_.get(), data, size_bytes);
  }
  void abort() override { ::shutdown(socket_.get(), SHUT_RDWR); }

 private:
  const Fd socket_;
};

}  // namespace ferry::hypervisor
