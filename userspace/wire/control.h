// SPDX-License-Identifier: GPL-2.0-or-later
// Whole frames over a channel, for everything that is not bulk data. Bulk goes through mover/.
// Thread-safety: as the channel's: sending belongs to the writer, receiving to the reader.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/result.h"
#include "wire/channel.h"
#include "wire/frame.h"

namespace ferry::wire {

// The "type" of a control message, empty when there is none.
std::string type_of(const nlohmann::json& message);

// A JSON object of at most kMaxControlBytes.
Status send_control(Channel& channel, const nlohmann::json& message);
// An error frame of the peer comes back as that error; an orderly end as Errc::peer_unreachable.
Result<nlohmann::json> receive_control(Channel& channel);
// The same; peer_unreachable when the peer has said nothing at all after `timeout_ms`.
Result<nlohmann::json> receive_control_within(Channel& channel, int timeout_ms);
// Tells the peer why this side gives up.
Status send_error(Channel& channel, const Error& error);

Status send_frame(Channel& channel, FrameType type, uint32_t disk, uint64_t offset,
                  std::span<const std::byte> payload);
// The next header, already judged; nothing at an orderly end between frames.
Result<std::optional<FrameHeader>> receive_header(Channel& channel);
// Reads the payload that belongs to `header` into `buffer` and checks its checksum.
Status receive_payload(Channel& channel, const FrameHeader& header, std::span<std::byte> buffer);

}  // namespace ferry::wire
