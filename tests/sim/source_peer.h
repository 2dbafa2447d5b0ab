// SPDX-License-Identifier: GPL-2.0-or-later
// The PeerLink port: the control connection of a session, and the questions about ownership that are asked
// over new connections until there is an answer.
// Thread-safety: none.
#pragma once

#include "link.h"
#include "migration/source.h"

namespace ferry::sim {

class Outgoing;

class SourcePeer : public migration::PeerLink {
 public:
  SourcePeer(World& world, Outgoing& job) : world_(world), job_(job) {}

  void connect() override;
  void prepare() override;
  void close_gate() override;
  void ask_ready() override;
  void grant() override;
  void revoke() override;
  void ask_return() override;
  void ask_digests() override;
  void finish() override;
  void abort() override;

  bool digests_equal() const { return digests_equal_; }
  Base has() const { return has_; }
  void receive(std::uint32_t connection, const Message& message);
  void connection_lost(std::uint32_t connection);
  void close();

 private:
  void say(Say say, const char* name);
  void ask_again(Time after);
  void ask();
  void answered();
  void on_error(std::uint32_t connection, const Message& message);

  World& world_;
  Outgoing& job_;
  std::uint32_t control_ = kNoConnection;
  std::uint32_t asking_over_ = kNoConnection;
  Say question_ = Say::revoke;
  bool asking_ = false;
  std::uint32_t asks_ = 0;       // a life: only the newest loop goes on
  migration::SourceEventType due_ = migration::SourceEventType::peer_prepared;  // what an "error" answers
  bool digests_equal_ = false;
  Base has_ = Base::none;
};

}  // namespace ferry::sim
