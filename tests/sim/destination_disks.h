// SPDX-License-Identifier: GPL-2.0-or-later
// The DestinationDevice port: what daemon/destination_device does with volumes, gate and received blocks,
// one call after the other as its worker thread does.
// Thread-safety: none.
#pragma once

#include <deque>

#include "link.h"
#include "migration/destination.h"

namespace ferry::sim {

class Incoming;

class DestinationDisks : public migration::DestinationDevice {
 public:
  DestinationDisks(World& world, Incoming& job) : world_(world), job_(job) {}

  void prepare() override { ask(Call::prepare, "prepare volumes"); }
  void close_gate() override { ask(Call::close_gate, "close gate"); }
  void flush() override { ask(Call::flush, "flush"); }
  void open_gate() override { ask(Call::open_gate, "open gate"); }
  void verify() override { ask(Call::verify, "verify"); }
  void yield() override { ask(Call::yield, "yield"); }
  void finish() override { ask(Call::finish, "take the filter out"); }
  void discard() override { ask(Call::discard, "discard"); }

  // A block that arrived over an open stream, in its turn.
  void take(const Message& message);
  bool receiving() const { return receiving_; }
  bool digests_equal() const { return digests_equal_; }

 private:
  enum class Call : std::uint8_t { prepare, close_gate, flush, open_gate, verify, yield, finish, discard };

  void ask(Call call, const char* name);
  void next();
  void run(Call call);
  void done(migration::DestinationEventType type);
  void failed(const char* why, Errc code = Errc::io);
  bool prepare_all();
  void open_all();
  bool untouched() const;
  void clean(bool keep);

  World& world_;
  Incoming& job_;
  std::deque<Call> calls_;
  bool busy_ = false;
  bool receiving_ = false;       // streams are served
  bool created_ = false, attached_ = false;
  std::array<bool, kDisks> replaced_fence_{};
  Contents received_{};
  bool digests_equal_ = false;
};

}  // namespace ferry::sim
