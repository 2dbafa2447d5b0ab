// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/uevents.h"

#include <linux/netlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace ferry::daemon {
namespace {

constexpr unsigned kKernelGroup = 1;  // 2 is what udev sends on
constexpr size_t kAnnouncementMax = 8192;  // the kernel's own limit is 2 KiB and the path

}  // namespace

Result<Uevents> Uevents::open() {
  Fd fd(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = kKernelGroup;
  if (!fd.valid() || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return sys_error("cannot listen to the kernel's device announcements", errno, "run as root");
  return Uevents(std::move(fd));
}

bool Uevents::concerns_volumes(std::string_view announcement) {
  const auto path = announcement.substr(0, announcement.find('\0'));
  return path.find("/block/dm-") != std::string_view::npos || path.ends_with("@/module/dm_ferry");
}

bool Uevents::take() {
  std::array<char, kAnnouncementMax> buffer;
  bool concerned = false;
  while (true) {
    const auto size = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (size > 0) {
      concerned |= concerns_volumes({buffer.data(), static_cast<size_t>(size)});
    } else if (size < 0 && errno == ENOBUFS) {
      concerned = true;
    } else if (size == 0 || errno != EINTR) {
      return concerned;
    }
  }
}

}  // namespace ferry::daemon
