// SPDX-License-Identifier: GPL-2.0-or-later
// The checks behind `migrate-ctl doctor`: each says what was seen, and what to do when it is not right.
// Thread-safety: a function without state.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/api_types.h"
#include "daemon/config.h"
#include "hypervisor/libvirt.h"

namespace ferry::daemon {

std::vector<api::Check> examine(const Config& config, const Result<std::shared_ptr<hypervisor::Libvirt>>& libvirt,
                                const std::optional<std::string>& peer);

}  // namespace ferry::daemon
