// SPDX-License-Identifier: GPL-2.0-or-later
// Turns libvirt's last error of this thread into ours, with a hint where one is known.
// Thread-safety: libvirt keeps its errors per thread, so call it on the thread that failed.
#pragma once

#include <string>

#include "base/result.h"

namespace ferry::hypervisor {

// `what` says what was tried and on what; libvirt's own words follow it.
Error libvirt_error(const std::string& what);

}  // namespace ferry::hypervisor
