// SPDX-License-Identifier: GPL-2.0-or-later
// The daemon's own version and the keys it shows to its peers.
#pragma once

#include <memory>

#include "base/result.h"
#include "daemon/config.h"
#include "wire/tls_context.h"

namespace ferry::daemon {

inline constexpr const char* kVersion = FERRY_VERSION;

// Reads the three files of pki_dir. Errc::permission with a hint when one is missing or unfit.
Result<std::shared_ptr<wire::TlsContext>> load_tls(const Config& config);

}  // namespace ferry::daemon
