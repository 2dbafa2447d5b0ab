// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/libvirt_tunnel.h"

#include <sys/socket.h>

#include <atomic>
#include <thread>
#include <vector>

#include "hypervisor/unix_socket.h"

namespace ferry::hypervisor {
namespace {

constexpr size_t kBufferBytes = 64 * 1024;

Status pipe_to_socket(BytePipe& pipe, int socket) {
  std::vector<std::byte> buffer(kBufferBytes);
  while (true) {
    auto got = pipe.read_some(buffer.data(), buffer.size());
    if (!got.ok()) return got.error();
    if (*got == 0) return ok_status();
    FERRY_TRY(socket_write(socket, buffer.data(), *got));
  }
}

Status socket_to_pipe(int socket, BytePipe& pipe) {
  std::vector<std::byte> buffer(kBufferBytes);
  while (true) {
    auto got = socket_read(socket, buffer.data(), buffer.size());
    if (!got.ok()) return got.error();
    if (*got == 0) return ok_status();
    FERRY_TRY(pipe.write_all(buffer.data(), *got));
  }
}

}  // namespace

Status LibvirtTunnel::serve(BytePipe& pipe, const std::string& libvirt_socket_path,
                            std::stop_token stop) {
  auto socket = connect_unix(libvirt_socket_path);
  if (!socket.ok()) {
    pipe.abort();
    Error error = socket.error();
    error.hint = "is libvirt's daemon running here? try: systemctl start libvirtd.socket";
    return error;
  }
  const int fd = socket->get();
  auto end_both = [&] {
    ::shutdown(fd, SHUT_RDWR);
    pipe.abort();
  };
  Status up = ok_status();
  Status down = ok_status();
  {
    std::stop_callback on_stop(stop, end_both);
    // Whichever direction ends first says why; ending the other one by force is no news.
    std::atomic<bool> ended{false};
    auto run = [&](auto&& pump) -> Status {
      Status status = pump();
      const bool first = !ended.exchange(true);
      end_both();
      return first ? std::move(status) : ok_status();
    };
    std::thread back([&] { down = run([&] { return socket_to_pipe(fd, pipe); }); });
    up = run([&] { return pipe_to_socket(pipe, fd); });
    back.join();
  }
  if (stop.stop_requested()) return make_error(Errc::aborted, "libvirt tunnel was stopped");
  return up.ok() ? std::move(down) : std::move(up);
}

}  // namespace ferry::hypervisor
