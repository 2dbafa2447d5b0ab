// SPDX-License-Identifier: GPL-2.0-or-later
// The one thread of this process that runs libvirt's event loop: it delivers domain events and
// keeps the keepalive of every connection going. Starts at first use, ends at exit.
// Thread-safety: may be called from any thread.
#pragma once

#include "base/result.h"

namespace ferry::hypervisor {

// Has to succeed before the first connection is opened: libvirt looks for the loop there.
Status ensure_libvirt_events();

}  // namespace ferry::hypervisor
