// SPDX-License-Identifier: GPL-2.0-or-later
// Sizes, rates and times as people write and read them.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry::ctl {

// "4096", "64K" = "64KiB" (1024), "64kB" = "64KB" (1000), "1.5GiB", "1Gbit" (bits, 1000).
// A trailing "/s" is allowed.
Result<uint64_t> parse_size(std::string_view text);
// "300" counts in `unit_ms`; "300ms", "1.5s", "10m" (or "10min"), "2h". Result in milliseconds.
Result<uint64_t> parse_duration_ms(std::string_view text, uint64_t unit_ms);

std::string format_size(uint64_t bytes);          // "1.2 GiB"
std::string format_rate(uint64_t bytes_per_s);    // "112 MiB/s"
std::string format_duration(uint64_t ms);         // "84 ms", "18.2 s", "3:25", "1:02:03"
// Text of others on its way to a terminal: control characters become '?'.
std::string printable(std::string_view text);

}  // namespace ferry::ctl
