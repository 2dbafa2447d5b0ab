// SPDX-License-Identifier: GPL-2.0-or-later
// The source side of one migration: a pure event machine. It performs no system call, owns no thread
// and knows time only through its Clock; what it wants done it asks of the ports.
// Ownership of the guest's disks follows the rules of docs/ownership.md: the fence and its durable record
// come strictly before the grant, and after the grant this side lets nobody write again until the peer
// has durably revoked or returned the disks (or the operator vouches that it is dead).
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
  claiming,     // the session is noted, so that a restart knows of it
  attaching,    // the filter goes into our volumes
  precopy,
  switching,    // the hypervisor moves memory; rounds go on
  paused,       // the guest stands still; last rounds without freeze
  freezing,     // the source hypervisor is done: nobody may write any more
  final_round,
  awaiting_ready,
  fencing,
  committing,   // the fence is made durable
  granting,     // from here on the destination may own the disks
  resolving,    // granted, and the answer is missing: the peer is asked until it answers
  completing,   // the destination owns the disks; its hypervisor runs the guest
  returning,    // the guest did not start there: the disks are asked back
  reclaiming,   // they are ours again: that is made durable before anybody may write
  conceding,    // the destination keeps the disks, its guest is not ours to judge: ours is ended
  verifying,
  finishing,
  rolling_back,
  done,
  failed,
  aborted,
  in_doubt,     // the daemon stops while resolving: fenced and on record, the next start goes on
};
std::string_view state_name(SourceState state);

enum class SourceEventType {
  start,
  recover,          // instead of start: an earlier daemon's session that is on record as granting
  connected,
  peer_prepared,
  recorded,
  attached,
  round_done,       // carries .round
  pace_timer,       // the pause between two rounds while memory is moved is over
  standstill_over,  // the guest has stood still for as long as the policy allows
  guest_paused,
  finish_seen,
  finish_cancelled,  // the hypervisor called its own migration off
  frozen,
  peer_ready,
  fenced,
  peer_opened,
  peer_revoked,
  peer_returned,
  return_refused,    // .error says why
  peer_unknown,      // the peer has no record of the session
  guest_not_started, // .error; the guest does not run on the destination, and stands still here
  hypervisor_done,   // carries .error when it failed
  digests_taken,     // carries .digests_equal once both sides are known
  peer_digests,
  peer_finished,
  thawed,
  detached,
  peer_aborted,
  patience_over,     // the peer has had its time to take its part back, or to be found again
  failed,            // something we asked for failed: .error
  link_lost,         // .error
  abort_requested,
  forced,            // the operator vouches that the peer is dead and its copy will never run
  shut_down,         // the daemon stops
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
// What a Ledger answers with.
SourceEvent recorded_or(Status done);

struct SourcePolicy {
  ConvergencePolicy convergence;
  Duration pace{std::chrono::milliseconds(250)};  // least time between two rounds while memory moves
  // How long the guest may stand still before the grant; after it only the peer's word ends that.
  Duration standstill{std::chrono::seconds(60)};
  Duration patience{std::chrono::seconds(10)};  // for the peer's answer to an abort
  // How long a peer that went out of sight before the copy was verified is looked for (it waits as long itself), and how
  // long it may take for the end.
  Duration comeback{std::chrono::minutes(2)};
};

struct SourceTimes {
  std::optional<TimePoint> started, precopy, switching, paused, finish_seen, frozen, granted, opened,
      ended;
};

// Who owns the disks, as far as this side knows.
enum class SourceOwner { source, destination, unknown };

class Source {
 public:
  // `schedule(d, e)` must deliver e after d. `digests_equal` is asked once both digests are known. The ports
  // must outlive the machine.
  struct Ports {
    Clock& clock;
    SourceDevice& device;
    PeerLink& link;
    Hypervisor& hypervisor;
    Ledger& ledger;
    std::function<void(Duration, SourceEventType)> schedule;
    std::function<bool()> digests_equal;
    std::function<void(const std::string&)> log;
  };
  Source(Ports ports, SourcePolicy policy);

  void handle(const SourceEvent& event);

  SourceState state() const { return state_; }
  bool ended() const;
  // Why the job failed or was aborted; empty while it runs and after success. While the owner is unknown:
  // why.
  const std::optional<Error>& error() const { return error_; }
  unsigned rounds() const { return rounds_; }
  const Convergence& convergence() const { return convergence_; }
  const SourceTimes& times() const { return times_; }
  SourceOwner owner() const { return owner_; }
  // True while it waits for a word of the peer, or the operator's, that may never come.
  bool in_doubt() const {
    return state_ == SourceState::resolving || state_ == SourceState::returning || state_ == SourceState::reclaiming;
  }

 private:
  friend struct MachineProbe;  // tests/sim looks at every state
  void enter(SourceState next);
  void expect(SourceEventType step);          // the main chain waits for this one
  bool took(const SourceEvent& event, SourceEventType step);
  void start_round(RoundKind kind);
  void end(SourceState state);
  // source.cpp: from start to the moment the guest stands still
  void on_setup(const SourceEvent& event);
  void on_rounds(const SourceEvent& event);   // precopy, switching, paused
  void on_round_done(const SourceEvent& event);
  void guest_stands_still();
  void stood_too_long();
  void next_step_while_paused();
  void called_off_there();
  // source_handover.cpp: the disks change hands
  void on_final(const SourceEvent& event);    // freezing … awaiting_ready
  void on_commit(const SourceEvent& event);   // fencing, committing
  void on_granted(const SourceEvent& event);  // granting, resolving
  void on_completing(const SourceEvent& event);
  void on_returning(const SourceEvent& event);
  void on_reclaiming(const SourceEvent& event);
  void on_conceding(const SourceEvent& event);
  void recover();
  void resolve(Error why);
  void opened_there();
  void take_back(const Error& why);
  void reclaim(Error why);
  void concede(Error why);
  // source_end.cpp: verification, or everything taken back
  void verify();
  void come_back();
  void on_verified(const SourceEvent& event);  // verifying, finishing
  void try_compare();
  void leave();
  void end_without_peer(const char* why);
  void try_end();
  void note_cleanup(const Error& error);      // a step of the cleaning-up failed
  void fail(Error error);                     // roll back, the guest stays here
  void roll_back_next();
  void on_rolling_back(const SourceEvent& event);

  Ports ports_;
  SourcePolicy policy_;
  Convergence convergence_;
  SourceState state_ = SourceState::idle;
  SourceOwner owner_ = SourceOwner::source;
  std::optional<Error> error_;
  std::optional<Error> cause_;  // why the disks are asked back
  SourceTimes times_;
  unsigned rounds_ = 0;
  std::optional<SourceEventType> pending_;  // step of the main chain under way
  bool link_up_ = false;
  bool peer_touched_ = false;         // prepare was asked: the peer may hold something of ours
  bool claimed_ = false;              // on record as moving: the end has to be on record, too
  bool attached_ = false;
  bool hypervisor_running_ = false;
  bool finish_seen_ = false;
  bool round_running_ = false;
  bool round_began_paused_ = false;
  bool soft_round_done_ = false;      // a round began after the guest was paused, and ended
  bool frozen_ = false;               // or fenced: writes do not pass
  bool refused_ = false;              // the hypervisor was told to call it off
  // Roll-back steps under way.
  bool awaiting_thaw_ = false, awaiting_detach_ = false, awaiting_record_ = false, awaiting_peer_abort_ = false;
  // Verification and end.
  bool own_digest_ = false, peer_digest_ = false, peer_finished_ = false, left_ = false, conceded_ = false;
  unsigned comeback_timers_ = 0;      // the peer is looked for, or waited for, until the last of them is over
};

}  // namespace ferry::migration
