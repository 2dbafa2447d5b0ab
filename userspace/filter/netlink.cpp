// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/netlink.h"

#include <netlink/attr.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include <cstring>

namespace ferry::filter {
namespace {

struct SocketFree {
  void operator()(nl_sock* socket) const { nl_socket_free(socket); }
};
struct MessageFree {
  void operator()(nl_msg* message) const { nlmsg_free(message); }
};
using Socket = std::unique_ptr<nl_sock, SocketFree>;

constexpr int kReceiveBufferBytes = 1 << 20;

Error nl_error(std::string what, int code) {
  what += std::string(" (") + nl_geterror(code) + ')';
  switch (-code) {
    case NLE_OBJ_NOTFOUND:
      return make_error(Errc::not_found, std::move(what), 0,
                        "load the kernel module: modprobe dm-ferry");
    case NLE_PERM:
    case NLE_NOACCESS:
      return make_error(Errc::permission, std::move(what), 0, "run as root");
    default:
      return make_error(Errc::io, std::move(what));
  }
}

Result<Socket> connect_genl() {
  Socket socket(nl_socket_alloc());
  if (!socket) return make_error(Errc::failed, "cannot make a netlink socket: out of memory");
  if (int code = genl_connect(socket.get()); code < 0)
    return nl_error("cannot open generic netlink", code);
  return socket;
}

// The length libnl's policy does not know is checked here, before any read.
template <typename T>
bool read_number(const nlattr* attribute, T& value) {
  if (!attribute) return true;
  if (nla_len(attribute) != static_cast<int>(sizeof(T))) return false;
  nla_memcpy(&value, attribute, sizeof(T));
  return true;
}

const nlattr* attributes_of(nl_msg* message, int& length) {
  auto* header = static_cast<genlmsghdr*>(nlmsg_data(nlmsg_hdr(message)));
  length = genlmsg_attrlen(header, 0);
  return genlmsg_attrdata(header, 0);
}

Result<DecodedAttributes> decode_message(nl_msg* message) {
  if (!genlmsg_valid_hdr(nlmsg_hdr(message), 0))
    return make_error(Errc::protocol, "a netlink message of the filter is too short");
  int length = 0;
  const nlattr* first = attributes_of(message, length);
  return decode_attributes(
      {reinterpret_cast<const std::byte*>(first), static_cast<size_t>(length)});
}

int take_tracker(nl_msg* message, void* argument) {
  auto* trackers = static_cast<std::vector<TrackerInfo>*>(argument);
  if (auto decoded = decode_message(message); decoded.ok())
    trackers->push_back(std::move(decoded->tracker));
  return NL_OK;
}

int take_event(nl_msg* message, void* argument) {
  auto* events = static_cast<std::deque<Event>*>(argument);
  auto decoded = decode_message(message);
  if (decoded.ok() && decoded->event)
    events->push_back({*decoded->event, std::move(decoded->tracker)});
  return NL_OK;
}

}  // namespace

const char* event_name(ferry_event type) {
  switch (type) {
    case FERRY_EV_STATE: return "state";
    case FERRY_EV_INVALID: return "invalid";
    case FERRY_EV_DETACHED: return "detached";
    case FERRY_EV_WATCHDOG_THAW: return "watchdog_thaw";
    case FERRY_EV_FREEZE_LOST: return "freeze_lost";
    case FERRY_EV_BOUND: return "bound";
  }
  return "unknown";
}

Result<DecodedAttributes> decode_attributes(std::span<const std::byte> attributes) {
  nlattr* table[FERRY_A_MAX + 1] = {};
  auto* first = reinterpret_cast<nlattr*>(const_cast<std::byte*>(attributes.data()));
  Error broken = make_error(Errc::protocol, "a netlink message of the filter is malformed", 0,
                            "load the dm-ferry module that belongs to this daemon");
  if (nla_parse(table, FERRY_A_MAX, first, static_cast<int>(attributes.size()), nullptr) < 0 ||
      !table[FERRY_A_UUID] || nla_len(table[FERRY_A_UUID]) != FERRY_UUID_LEN)
    return broken;
  DecodedAttributes decoded;
  TrackerInfo& info = decoded.tracker;
  nla_memcpy(info.uuid.data(), table[FERRY_A_UUID], FERRY_UUID_LEN);
  if (const nlattr* name = table[FERRY_A_NAME]) {
    auto* text = static_cast<const char*>(nla_data(name));
    info.name.assign(text, strnlen(text, static_cast<size_t>(nla_len(name))));
  }
  uint32_t state = FERRY_STATE_TRACKING;
  uint32_t event = 0;
  bool ok = read_number(table[FERRY_A_STATE], state) &&
            read_number(table[FERRY_A_FLAGS], info.flags) &&
            read_number(table[FERRY_A_BLOCK_SHIFT], info.block_shift) &&
            read_number(table[FERRY_A_SECTORS], info.sectors) &&
            read_number(table[FERRY_A_SWAPS], info.swaps) &&
            read_number(table[FERRY_A_DIRTY], info.dirty) &&
            read_number(table[FERRY_A_NEWLY], info.newly) &&
            read_number(table[FERRY_A_HELD], info.held) &&
            read_number(table[FERRY_A_INFLIGHT], info.inflight) &&
            read_number(table[FERRY_A_FENCED_WRITES], info.fenced_writes) &&
            read_number(table[FERRY_A_EVENT], event);
  if (!ok || info.block_shift > FERRY_BLOCK_SHIFT_MAX) return broken;
  info.state = static_cast<ferry_state>(state);
  if (info.block_shift >= FERRY_BLOCK_SHIFT_MIN) {
    uint64_t per_block = uint64_t{1} << (info.block_shift - 9);
    info.nr_blocks = info.sectors / per_block + (info.sectors % per_block != 0);
  }
  if (table[FERRY_A_EVENT]) decoded.event = static_cast<ferry_event>(event);
  return decoded;
}

Result<std::vector<TrackerInfo>> list_trackers() {
  auto socket = connect_genl();
  if (!socket.ok()) return std::move(socket).error();
  int family = genl_ctrl_resolve(socket->get(), FERRY_GENL_NAME);
  if (family < 0) return nl_error("cannot find the filter's netlink family", family);
  std::unique_ptr<nl_msg, MessageFree> request(nlmsg_alloc());
  if (!request || !genlmsg_put(request.get(), NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, NLM_F_DUMP,
                               FERRY_CMD_GET, FERRY_GENL_VERSION))
    return make_error(Errc::failed, "cannot build a netlink request: out of memory");
  std::vector<TrackerInfo> trackers;
  nl_socket_modify_cb(socket->get(), NL_CB_VALID, NL_CB_CUSTOM, take_tracker, &trackers);
  if (int code = nl_send_auto(socket->get(), request.get()); code < 0)
    return nl_error("cannot ask the filter for its trackers", code);
  if (int code = nl_recvmsgs_default(socket->get()); code < 0)
    return nl_error("cannot list the filter's trackers", code);
  return trackers;
}

void EventMonitor::SocketDeleter::operator()(nl_sock* socket) const { nl_socket_free(socket); }

EventMonitor::EventMonitor(EventMonitor&&) noexcept = default;
EventMonitor& EventMonitor::operator=(EventMonitor&&) noexcept = default;
EventMonitor::~EventMonitor() = default;

Result<EventMonitor> EventMonitor::open() {
  auto socket = connect_genl();
  if (!socket.ok()) return std::move(socket).error();
  int group = genl_ctrl_resolve_grp(socket->get(), FERRY_GENL_NAME, FERRY_GENL_EVENTS);
  if (group < 0) return nl_error("cannot find the filter's event group", group);
  EventMonitor monitor;
  monitor.pending_ = std::make_unique<std::deque<Event>>();
  nl_socket_disable_seq_check(socket->get());
  nl_socket_modify_cb(socket->get(), NL_CB_VALID, NL_CB_CUSTOM, take_event, monitor.pending_.get());
  nl_socket_set_buffer_size(socket->get(), kReceiveBufferBytes, 0);
  if (int code = nl_socket_add_membership(socket->get(), group); code < 0)
    return nl_error("cannot subscribe to the filter's events", code);
  if (int code = nl_socket_set_nonblocking(socket->get()); code < 0)
    return nl_error("cannot prepare the event socket", code);
  monitor.socket_.reset(socket->release());
  return monitor;
}

int EventMonitor::fd() const { return nl_socket_get_fd(socket_.get()); }

Result<std::optional<Event>> EventMonitor::next() {
  if (pending_->empty()) {
    int code = nl_recvmsgs_default(socket_.get());
    if (code < 0 && code != -NLE_AGAIN)
      return make_error(Errc::io, std::string("events of the filter were lost (") +
                        nl_geterror(code) + ')');
  }
  if (pending_->empty()) return std::optional<Event>();
  Event event = std::move(pending_->front());
  pending_->pop_front();
  return std::optional<Event>(std::move(event));
}

}  // namespace ferry::filter
