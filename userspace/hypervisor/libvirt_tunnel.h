// SPDX-License-Identifier: GPL-2.0-or-later
// LibvirtTunnel: the destination's end of a Finish gate: connects one pipe from the source's
// daemon to the local libvirt daemon and carries bytes both ways until either side ends.
// Ownership: borrows the pipe. Thread-safety: a free-standing call; one per pipe, any thread.
#pragma once

#include <stop_token>
#include <string>

#include "base/result.h"
#include "hypervisor/byte_pipe.h"

namespace ferry::hypervisor {

inline constexpr const char* kLibvirtSocket = "/run/libvirt/libvirt-sock";

class LibvirtTunnel {
 public:
  // Blocks until the pipe or libvirt closes (ok), breaks (error) or `stop` is asked (aborted).
  // The pipe is aborted when it returns.
  static Status serve(BytePipe& pipe, const std::string& libvirt_socket_path, std::stop_token stop);
};

}  // namespace ferry::hypervisor
