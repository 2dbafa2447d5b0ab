// SPDX-License-Identifier: GPL-2.0-or-later
// A guest that a migration was bringing in: its QEMU waits for memory and has the volumes open.
// Thread-safety: plain functions; block while libvirt works.
#pragma once

#include <string>

#include "base/result.h"
#include "daemon/config.h"

namespace ferry::daemon {

// Ends what a migration left of VM `vm` here, if it left anything. `definition`: the VM's, by which it is told from
// another one of that name; may be empty. busy when the VM runs, is another one, or is paused for another reason than
// that it starts or migrates; libvirt's own errors when it cannot be asked.
Status end_incoming_guest(const Config& config, const std::string& vm, const std::string& definition);

}  // namespace ferry::daemon
