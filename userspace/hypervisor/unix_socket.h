// SPDX-License-Identifier: GPL-2.0-or-later
// The few unix-socket calls this room needs, with errors as values. Each returned Fd is owned by
// the caller. Thread-safety: free functions, no shared state; interrupt a blocked read or write by
// shutdown(2) from another thread.
#pragma once

#include <cstddef>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace ferry::hypervisor {

// A listening socket that only this user (and root) may connect to. `path` must not exist.
Result<Fd> listen_unix(const std::string& path);
Result<Fd> connect_unix(const std::string& path);
// At least one byte, or 0 when the other side has closed.
Result<size_t> socket_read(int fd, void* data, size_t size_bytes);
Status socket_write(int fd, const void* data, size_t size_bytes);

}  // namespace ferry::hypervisor
