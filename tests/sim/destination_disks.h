// SPDX-License-Identifier: GPL-2.0-or-later
// The DestinationDevice port: what daemon/destination_device does with volumes, gate and received blocks,
// one call after the other as its worker thread does.
// Thread-safety: none.
#pragma once

#include <deque>
#include <optional>

#include "link.h"
#include "migration/destination.h"
#include "records.h"

namespace ferry::sim {

class Incoming;

class DestinationDisks : public migration::DestinationDevice {
 public:
  // `old`: what is on record of volumes here that hold an older or incomplete copy of the disks.
  DestinationDisks(World& world, Incoming& job, const Message& request, const std::optional<Record>& old)
      : world_(world), job_(job), old_(old), changes_since_(request.changes_since), keep_(request.keep),
        removable_(old && old->created) {}

  void prepare() override { ask(Call::prepare, "prepare volumes"); }
  void cut_short() override {}  // here it takes no longer than anything else
  void close_gate() override { ask(Call::close_gate, "close gate"); }
  void flush() override { ask(Call::flush, "flush"); }
  void open_gate() override { ask(Call::open_gate, "open gate"); }
  void verify() override { ask(Call::verify, "verify"); }
  void yield() override { ask(Call::yield, "yield"); }
  void finish() override { ask(Call::finish, "take the filter out"); }
  void discard() override { ask(Call::discard, "discard"); }

  // Whether what was copied is kept if the migration is called off. The first answer stands.
  bool keeps();
  Base has() const { return has_; }

  // A block that arrived over an open stream, in its turn.
  void take(const Message& message);
  // Whether the block that a check is about is another one here.
  bool differs(const Message& message);
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
  Base judge_base();
  void open_all();
  void verify_all();
  bool untouched() const;
  void clean(bool keep);
  void put_back();
  void remove();

  World& world_;
  Incoming& job_;
  std::deque<Call> calls_;
  bool busy_ = false;
  bool receiving_ = false;       // streams are served
  const std::optional<Record> old_;
  const std::uint64_t changes_since_;
  const bool keep_;
  bool removable_;
  std::optional<bool> keeps_;    // decided
  Base has_ = Base::none;
  bool attached_ = false;
  bool received_any_ = false;
  bool written_ = false;         // by the guest, as a map told that has been taken out of the filter since
  std::array<bool, kDisks> replaced_fence_{};
  Contents received_{};
  bool verified_ = false;        // asked again, it says the same
  bool digests_equal_ = false;
};

}  // namespace ferry::sim
