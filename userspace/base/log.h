// SPDX-License-Identifier: GPL-2.0-or-later
// Logging goes to stderr through spdlog; under systemd that is the journal, so lines carry a
// syslog priority prefix there instead of a time. Thread-safe.
#pragma once

#include <spdlog/spdlog.h>

namespace ferry {

// Call once at start. `verbose` lets debug lines through.
void log_setup(bool verbose);

}  // namespace ferry
