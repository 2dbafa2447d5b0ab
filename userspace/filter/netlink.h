// SPDX-License-Identifier: GPL-2.0-or-later
// The filter's generic netlink family: which trackers exist, and what happens to them.
// EventMonitor owns one socket; one thread at a time. Move-only.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "filter/tracker.h"

struct nl_sock;

namespace ferry::filter {

struct Event {
  ferry_event type = FERRY_EV_STATE;
  TrackerInfo tracker;  // as it was at that moment
};

// "state", "invalid", "detached", "watchdog_thaw", "freeze_lost", "bound"; "unknown" else.
const char* event_name(ferry_event type);

// Pure: the attributes of one message, without the genetlink header.
struct DecodedAttributes {
  TrackerInfo tracker;
  std::optional<ferry_event> event;
};
Result<DecodedAttributes> decode_attributes(std::span<const std::byte> attributes);

// Every tracker the kernel holds.
Result<std::vector<TrackerInfo>> list_trackers();

class EventMonitor {
 public:
  // Events from now on; earlier ones are to be seen in the state.
  static Result<EventMonitor> open();
  EventMonitor(EventMonitor&&) noexcept;
  EventMonitor& operator=(EventMonitor&&) noexcept;
  ~EventMonitor();

  // For poll(); readable when next() may have something.
  int fd() const;
  // The oldest event not yet taken; nothing when there is none now. Never blocks. An error of kind
  // `io` says that events were lost: look at all trackers again.
  Result<std::optional<Event>> next();

 private:
  struct SocketDeleter {
    void operator()(nl_sock* socket) const;
  };
  EventMonitor() = default;

  std::unique_ptr<nl_sock, SocketDeleter> socket_;
  std::unique_ptr<std::deque<Event>> pending_;  // on the heap: libnl keeps its address
};

}  // namespace ferry::filter
