// SPDX-License-Identifier: GPL-2.0-or-later
// What the migration brain needs from the world. Every method only *starts* something and returns at
// once; the outcome comes back as an Event of the machine that asked. The daemon implements the ports
// with threads, kernel calls and sockets, the tests and the simulator with fakes.
// Thread-safety: called by the one thread that owns the machine.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "store/disk_record.h"

namespace ferry::migration {

using store::Holding;

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic; never goes back.
  virtual TimePoint now() const = 0;
};

// Which blocks a round copies.
enum class RoundKind {
  full,   // every block of every disk, all of them marked clean before
  dirty,  // what was written since the last round began
};

// The source's disks, all of one VM together.
class SourceDevice {
 public:
  virtual ~SourceDevice() = default;
  virtual void attach() = 0;                 // → attached | failed
  virtual void copy_round(RoundKind) = 0;    // → round_done | failed; stop_copy() ends it early
  virtual void stop_copy() = 0;              // the running round fails with Errc::aborted
  virtual void freeze() = 0;                 // → frozen | failed (thawed again)
  virtual void thaw() = 0;                   // → thawed
  virtual void fence() = 0;                  // → fenced | failed
  virtual void digest() = 0;                 // → digests_taken | failed
  virtual void detach() = 0;                 // → detached: plain tables are back
  virtual void leave_fenced() = 0;           // → detached: the fence stays, handles are closed
};

// What this host durably claims of the session's disks, all of them in one step. The answer comes when it
// is on stable storage; after `failed` the old claim may stand or the new one.
class Ledger {
 public:
  virtual ~Ledger() = default;
  virtual void record(Holding) = 0;  // → recorded | failed
};

// The peer's daemon.
class PeerLink {
 public:
  virtual ~PeerLink() = default;
  virtual void connect() = 0;        // → connected | failed
  virtual void prepare() = 0;        // → peer_prepared | peer_failed
  virtual void close_gate() = 0;     // no answer: the destination holds reads, too, from now on
  virtual void ask_ready() = 0;      // → peer_ready: everything is on its disks, flushed
  virtual void grant() = 0;          // → peer_opened
  // Both ask until there is an answer, over new connections if need be, and outlive a lost link.
  // Asks the peer never to open what was granted → peer_revoked | peer_opened (too late: it has) |
  // peer_returned (it has, and gave it back) | peer_unknown (it answers, but remembers nothing; asked again).
  // Of a peer that has opened it changes nothing: the way back to one whose link broke.
  virtual void revoke() = 0;
  // Asks for the disks back after the peer opened them → peer_returned | return_refused | peer_unknown.
  virtual void ask_return() = 0;
  virtual void ask_digests() = 0;    // → peer_digests
  virtual void finish() = 0;         // → peer_finished
  virtual void abort() = 0;          // → peer_aborted: nothing of ours is left there
};

// From finish_seen on the source's guest stands still until release_finish ended well (it lives on the
// destination), or refuse_finish or end_guest was called.
class Hypervisor {
 public:
  virtual ~Hypervisor() = default;
  virtual void start() = 0;            // → guest_paused, finish_seen, hypervisor_done in this order
  virtual void abort() = 0;            // hypervisor_done follows, with an error
  virtual void release_finish() = 0;   // the destination may run the guest → hypervisor_done | guest_not_started
  virtual void refuse_finish() = 0;    // the source's guest goes on; hypervisor_done follows
  // The source's guest is destroyed, if there is one, also when the migration has ended before;
  // hypervisor_done follows in any case.
  virtual void end_guest() = 0;
};

}  // namespace ferry::migration
