// SPDX-License-Identifier: GPL-2.0-or-later
// TrackerUuid: the 16 bytes that name a tracker in the kernel, and their usual text form.
// Thread-safety: plain values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry::filter {

using TrackerUuid = std::array<uint8_t, 16>;

// 8-4-4-4-12 lower-case hexadecimal digits.
std::string to_text(const TrackerUuid& uuid);
// Accepts upper and lower case; nothing when the text has any other form.
std::optional<TrackerUuid> parse_uuid(std::string_view text);
// A fresh random uuid (version 4).
Result<TrackerUuid> random_uuid();

}  // namespace ferry::filter
