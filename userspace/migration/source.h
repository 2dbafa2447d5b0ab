// SPDX-License-Identifier: GPL-2.0-or-later
// The source side of one migration: a pure event machine. It performs no system call, owns no thread
// and knows time only through its Clock; what it wants done it asks of the ports.
// Ownership of the guest's disks follows one rule here: the fence is asked for strictly before the
// grant, and after the grant this side never thaws, unfences or runs the guest again by itself.
// Thread-safety: none; one thread owns it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "migration/convergence.h"
#include "migration/ports.h"

namespace ferry::migration {

enum class SourceState {
  idle,
  connecting,
  preparing,    // the peer makes its volumes ready
  attaching,    // the filter goes into our volumes
  precopy,
  switching,    // the hypervisor moves memory; rounds go on
  paused,       // the guest stands still; last rounds without freeze
  freezing,     // the source hypervisor is done: nobody may write any more
  final_round,
  awaiting_ready,
  fencing,
  granting,     // from here on the destination owns the disks
  completing,   // the destination's hypervisor runs the guest
  verifying,
  finishing,
  rolling_back,
  done,
  failed,
  aborted,
  in_doubt,     // granted, and the answer is missing: stays fenced, says so
};
std::string_view state_name(SourceState state);

enum class SourceEventType {
  start,
  connected,
  peer_prepared,
  attached,
  round_done,       // carries .round
  pace_timer,       // the pause between two rounds while memory is moved is over
  guest_paused,
  finish_seen,
  finish_cancelled,  // the hypervisor called its own migration off
  frozen,
  peer_ready,
  fenced,
  peer_opened,
  hypervisor_done,   // carries .error when it failed
  digests_taken,     // carries .digests_equal once both sides are known
  peer_digests,
  peer_finished,
  thawed,
  detached,
  peer_aborted,
  failed,            // something we asked for failed: .error
  link_lost,         // .error
  abort_requested,
};
std::string_view event_name(SourceEventType type);

struct SourceEvent {
  SourceEventType type;
  std::optional<Error> error{};
  RoundReport round{};
  // Of `failed`: the event that would have come had it gone well.
  SourceEventType instead_of = SourceEventType::failed;
};
SourceEvent failure_of(SourceEventType step, Error error);

struct SourcePolicy {
  ConvergencePolicy convergence;
  Duration pace{std::chrono::milliseconds(250)};  // least time between two rounds while memory moves
};

struct SourceTimes {
  std::optional<TimePoint> started, precopy, switching, paused, finish_seen, frozen, granted, opened,
      ended;
};

class Source {
 public:
  // `schedule(d)` must deliver pace_timer after d. `digests_equal` is asked once both digests are
  // known. The ports must outlive the machine.
  struct Ports {
    Clock& clock;
    SourceDevice& device;
    PeerLink& link;
    Hypervisor& hypervisor;
    std::function<void(Duration)> schedule;
    std::function<bool()> digests_equal;
    std::function<void(const std::string&)> log;
  };
  Source(Ports ports, SourcePolicy policy);

  void handle(const SourceEvent& event);

  SourceState state() const { return state_; }
  bool ended() const;
  // Why the job failed or was aborted; empty while it runs and after success.
  const std::optional<Error>& error() const { return error_; }
  unsigned rounds() const { return rounds_; }
  const Convergence& convergence() const { return convergence_; }
  const SourceTimes& times() const { return times_; }
  // True from the moment the grant may have reached the peer.
  bool granted() const { return times_.granted.has_value(); }

 private:
  void enter(SourceState next);
  void expect(SourceEventType step);          // the main chain waits for this one
  bool took(const SourceEvent& event, SourceEventType step);
  void on_setup(const SourceEvent& event);
  void on_rounds(const SourceEvent& event);   // precopy, switching, paused
  void on_round_done(const SourceEvent& event);
  void on_final(const SourceEvent& event);    // freezing … granting
  void on_owned_by_peer(const SourceEvent& event);
  void on_rolling_back(const SourceEvent& event);
  void start_round(RoundKind kind);
  void next_step_while_paused();
  void fail(Error error);                     // roll back, the guest stays here
  void note_cleanup(const Error& error);      // a step of the cleaning-up failed
  void roll_back_next();
  void link_lost_after_grant(const Error& error);
  void try_compare();
  void try_end();
  void end(SourceState state);

  Ports ports_;
  SourcePolicy policy_;
  Convergence convergence_;
  SourceState state_ = SourceState::idle;
  std::optional<Error> error_;
  SourceTimes times_;
  unsigned rounds_ = 0;
  std::optional<SourceEventType> pending_;  // step of the main chain under way
  bool link_up_ = false;
  bool peer_touched_ = false;         // prepare was asked: the peer may hold something of ours
  bool attached_ = false;
  bool hypervisor_running_ = false;
  bool finish_seen_ = false;
  bool round_running_ = false;
  bool round_began_paused_ = false;
  bool soft_round_done_ = false;      // a round began after the guest was paused, and ended
  bool frozen_ = false;               // or fenced: writes do not pass
  bool refused_ = false;              // the hypervisor was told to call it off
  // Roll-back steps under way.
  bool awaiting_thaw_ = false, awaiting_detach_ = false, awaiting_peer_abort_ = false;
  // Verification and end.
  bool own_digest_ = false, peer_digest_ = false, peer_finished_ = false, left_ = false;
};

}  // namespace ferry::migration
