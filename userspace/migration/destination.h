// SPDX-License-Identifier: GPL-2.0-or-later
// The destination side of one migration: a pure event machine like Source. Its duties above all: what it
// answers about ownership is on record before (docs/ownership.md), the gate opens only after a grant, and
// once the disks were ours nothing of them is ever discarded.
// Thread-safety: none; one thread owns it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "migration/ports.h"

namespace ferry::migration {

class DestinationDevice {
 public:
  virtual ~DestinationDevice() = default;
  virtual void prepare() = 0;     // → prepared | failed (everything taken back)
  virtual void cut_short() = 0;   // prepare(), which may read whole volumes: its answer comes soon; no other
  virtual void close_gate() = 0;  // reads wait, too; no answer
  virtual void flush() = 0;       // → flushed | failed: all that was received is on stable storage
  virtual void open_gate() = 0;   // → opened | failed
  virtual void verify() = 0;      // → verified | failed
  // → yielded: fenced, and nobody has written since the gate was opened | failed: the guest runs here, has
  // written, or nobody can tell; then as before.
  virtual void yield() = 0;
  virtual void finish() = 0;      // → cleaned: plain tables are back, the volumes stay
  virtual void discard() = 0;     // → cleaned: plain tables (or old fences) are back, what we created is removed
};

class SourceLink {
 public:
  virtual ~SourceLink() = default;
  // prepared, ready, opened, revoked, returned, digests, finished, aborted
  virtual void answer(std::string_view what) = 0;
  virtual void refuse(const Error& error) = 0;
};

enum class DestinationState {
  idle,
  claiming,    // the session is noted, so that a restart knows what to take back
  preparing,
  receiving,
  flushing,
  promising,   // "complete, opens on a grant only" is made durable
  ready,
  accepting,   // the disks become ours: that is made durable before the gate opens
  opening,
  open,
  verifying,
  yielding,    // asked to give back: is the guest gone, was nothing written?
  returning,   // the source's ownership is made durable
  revoking,    // "never opens" is made durable
  cleaning,
  finished,
  failed,
};
std::string_view state_name(DestinationState state);

enum class DestinationEventType {
  prepare, close_gate, ready_asked, granted, revoke_asked, return_asked, digests_asked, finish_asked, abort_asked,
  link_lost,
  link_back,      // the source speaks to us again, over another connection
  patience_over,  // nobody came back within the time asked of `schedule`
  prepared, flushed, recorded, opened, verified, yielded, cleaned, failed,
};
std::string_view event_name(DestinationEventType type);

struct DestinationEvent {
  DestinationEventType type;
  std::optional<Error> error{};
};

struct DestinationPolicy {
  // How long a session whose disks are ours waits for a source that is gone, before it ends by itself.
  Duration patience{std::chrono::minutes(2)};
};

class Destination {
 public:
  // `schedule(d)` must deliver patience_over after d. The ports must outlive the machine.
  struct Ports {
    DestinationDevice& device;
    SourceLink& link;
    Ledger& ledger;
    std::function<void(Duration)> schedule;
    std::function<void(const std::string&)> log;
  };
  explicit Destination(Ports ports, DestinationPolicy policy = {}) : ports_(std::move(ports)), policy_(policy) {}

  void handle(const DestinationEvent& event);
  DestinationState state() const { return state_; }
  bool ended() const {
    return state_ == DestinationState::finished || state_ == DestinationState::failed;
  }
  // On record as ours, and not given back.
  bool owns() const { return owns_; }
  const std::optional<Error>& error() const { return error_; }

 private:
  friend struct MachineProbe;  // tests/sim looks at every state
  using Type = DestinationEventType;
  void enter(DestinationState next);
  void begin(DestinationState next);  // enter, and wait for the answer of what is started next
  void on_link(const DestinationEvent& event);
  void on_request(Type asked);
  void on_revoke();
  void on_return();
  void on_answer(const DestinationEvent& event);
  void on_recorded();
  void on_failed(Error error);
  void return_on_record();
  void stay_open();
  void call_off(Error error);
  void clean(bool keep);

  Ports ports_;
  DestinationPolicy policy_;
  DestinationState state_ = DestinationState::idle;
  std::optional<Error> error_;
  bool owns_ = false;
  bool may_own_ = false;         // a record of ownership was tried: it may stand though it failed
  bool returned_ = false;        // was ours, and is on record as the source's again
  bool revoked_ = false;         // on record: never opens
  bool link_up_ = true;
  bool busy_ = false;            // something was started whose answer has not come
  bool call_off_when_idle_ = false;
  bool revoke_asked_ = false;
  std::optional<Type> put_off_;          // revoke_asked or return_asked, until the disks are open
  unsigned patience_timers_ = 0;
  std::string_view last_word_;   // what to answer when everything is cleaned
};

}  // namespace ferry::migration
