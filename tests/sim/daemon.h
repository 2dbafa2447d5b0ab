// SPDX-License-Identifier: GPL-2.0-or-later
// One ferryd: its sessions, what it does with the records at its start, and what it answers about sessions
// that none of its machines remembers.
// Thread-safety: none.
#pragma once

#include <memory>
#include <vector>

#include "incoming.h"
#include "outgoing.h"

namespace ferry::sim {

class Daemon {
 public:
  Daemon(World& world, unsigned host) : world_(world), host_(host) {}

  void start();              // looks after what an earlier daemon left
  void remove_kept();        // a copy that is kept, when its time is over
  bool migrate();            // begins a session to the other host; false when that makes no sense now
  void shut_down();
  bool busy() const;         // a machine has not ended, or something left behind is being taken back

  void receive(std::uint32_t connection, const Message& message);
  void duplicate(std::uint32_t connection, const Message& message);
  void connection_lost(std::uint32_t connection);
  void answer_from_record(std::uint32_t connection, std::uint32_t session, std::uint64_t base, Say question);

  Outgoing* outgoing(std::uint32_t session);
  Incoming* incoming(std::uint32_t session);
  Outgoing* latest_outgoing() { return out_.empty() ? nullptr : out_.back().get(); }
  Incoming* latest_incoming() { return in_.empty() ? nullptr : in_.back().get(); }

 private:
  void follow_or_open();
  bool may_take_in(std::uint64_t base) const;
  void recover(const Record& record);
  void take_back_as_source(Record record);
  void take_back_as_destination(Record record);
  void discard(const Record& record);
  void put_later(Record record, void (Daemon::*then)(Record));
  void owned_again(Record record);
  void revoked_for_good(Record record);
  void say(std::uint32_t connection, Say say, Errc code = Errc::failed);

  World& world_;
  const unsigned host_;
  std::vector<std::unique_ptr<Outgoing>> out_;
  std::vector<std::unique_ptr<Incoming>> in_;
  unsigned pending_ = 0;
};

}  // namespace ferry::sim
