// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/control.h"

#include <vector>

#include "base/fault_point.h"

namespace ferry::wire {

Status send_frame(Channel& channel, FrameType type, uint32_t disk, uint64_t offset,
                  std::span<const std::byte> payload) {
  std::array<std::byte, kHeaderBytes> header{};
  encode_header(make_header(type, disk, offset, payload), header);
  const std::array<iovec, 2> pieces{{{header.data(), header.size()},
                                     {const_cast<std::byte*>(payload.data()), payload.size()}}};
  return channel.write_all(pieces);
}

std::string type_of(const nlohmann::json& message) {
  if (!message.is_object()) return {};
  const auto at = message.find("type");
  return at != message.end() && at->is_string() ? at->get<std::string>() : std::string();
}

Status send_control(Channel& channel, const nlohmann::json& message) {
  // Names of files may hold bytes that are no UTF-8; they are replaced, not a reason to fail.
  const std::string text =
      message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (!message.is_object() || text.size() > kMaxControlBytes)
    return make_error(Errc::failed, "a control message of " + std::to_string(text.size()) +
                      " bytes cannot be sent");
  const int times = times_to_send(type_of(message));
  // What is lost on TLS over TCP takes the connection with it: nothing later arrives either.
  if (times == 0) channel.abort();
  for (int n = 0; n < times; ++n)
    FERRY_TRY(send_frame(channel, FrameType::control, 0, 0, std::as_bytes(std::span(text))));
  return ok_status();
}

Status send_error(Channel& channel, const Error& error) {
  const std::string text = encode_error(error);
  return send_frame(channel, FrameType::error, 0, 0, std::as_bytes(std::span(text)));
}

Result<std::optional<FrameHeader>> receive_header(Channel& channel) {
  std::array<std::byte, kHeaderBytes> bytes{};
  auto first = channel.read_some(bytes.data(), bytes.size());
  if (!first.ok()) return std::move(first).error();
  if (*first == 0) return std::optional<FrameHeader>{};
  FERRY_TRY(channel.read_exact(bytes.data() + *first, bytes.size() - *first));
  auto header = parse_header(bytes);
  if (!header.ok()) return std::move(header).error();
  return std::optional(*header);
}

Status receive_payload(Channel& channel, const FrameHeader& header, std::span<std::byte> buffer) {
  if (buffer.size() < header.length_bytes)
    return make_error(Errc::protocol, "a frame of " + std::to_string(header.length_bytes) +
                      " bytes where at most " + std::to_string(buffer.size()) + " fit");
  const auto payload = buffer.first(header.length_bytes);
  FERRY_TRY(channel.read_exact(payload.data(), payload.size()));
  return check_payload(header, payload);
}

Result<nlohmann::json> receive_control(Channel& channel) {
  auto header = receive_header(channel);
  if (!header.ok()) return std::move(header).error();
  if (!header->has_value())
    return make_error(Errc::peer_unreachable, channel.peer_address() + " ended the connection");
  const FrameHeader& h = **header;
  if (h.type != FrameType::control && h.type != FrameType::error)
    return make_error(Errc::protocol, "got a frame of type " +
                      std::string(frame_type_name(h.type)) + " instead of a control message");
  std::vector<std::byte> payload(h.length_bytes);
  FERRY_TRY(receive_payload(channel, h, payload));
  if (h.type == FrameType::error) return parse_error(payload);
  return parse_control(payload);
}

Result<nlohmann::json> receive_control_within(Channel& channel, int timeout_ms) {
  auto ready = channel.wait_readable(timeout_ms);
  if (!ready.ok()) return std::move(ready).error();
  if (*ready == Ready::timeout)
    return make_error(Errc::peer_unreachable, "ferryd on " + channel.peer_address() + " says nothing", 0,
                      "see whether it hangs there");
  return receive_control(channel);
}

}  // namespace ferry::wire
