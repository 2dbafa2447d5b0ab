// SPDX-License-Identifier: GPL-2.0-or-later
// How the ownership model writes enums into its bytes. Private to it.
#pragma once

#include <cstdint>

#include "guest.h"
#include "link.h"
#include "store/disk_record.h"

namespace ferry::sim {

template <typename E>
constexpr std::uint8_t raw(E value) {
  return static_cast<std::uint8_t>(value);
}
// Where 0 means nothing.
template <typename E>
constexpr std::uint8_t coded(E value) {
  return static_cast<std::uint8_t>(1 + static_cast<int>(value));
}

inline constexpr std::uint8_t kIncoming = coded(GuestState::incoming), kRunning = coded(GuestState::running),
                              kPaused = coded(GuestState::paused);
// An error that is the destination's no, in a queue of messages.
inline constexpr std::uint8_t kBusy = 100;

inline const char* message_name(std::uint8_t message) {
  return message == kBusy ? "error: busy" : say_name(static_cast<Say>(message - 1));
}

// calls[0]
inline constexpr std::uint8_t kThaw = 1, kFence = 2, kDigest = 4, kDetach = 8, kLeave = 16;
// calls[1]
inline constexpr std::uint8_t kFlush = 1, kOpen = 2, kVerify = 4, kYield = 8, kFinish = 16, kDiscard = 32;
// told
inline constexpr std::uint8_t kDoneWell = 1, kDoneBadly = 2, kNotStarted = 4, kRevokedForged = 8;

}  // namespace ferry::sim
