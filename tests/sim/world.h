// SPDX-License-Identifier: GPL-2.0-or-later
// Two hosts, what is on them and what joins them: the world that the machines of migration/ run in. One seed
// makes one world; the same seed makes the same run, step by step.
// Thread-safety: none; worlds share nothing.
#pragma once

#include <fmt/format.h>

#include <array>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "checker.h"
#include "faults.h"
#include "guest.h"
#include "libvirt.h"
#include "link.h"
#include "mutation.h"
#include "random.h"
#include "records.h"
#include "schedule.h"
#include "volume.h"

namespace ferry::sim {

class Daemon;

// How long the source lets a guest stand still before the grant: less than in ferryd, since a storm is short.
inline constexpr Time kStandstill = 20 * kSecond;

struct Host {
  bool powered = true;
  bool destroyed = false;      // will never come back
  bool volumes_exist = false;
  bool defined = false;        // libvirt knows the VM here, also after a reboot
  bool daemon_up = false;
  bool dying = false;          // the daemon is killed before the next thing that it does
  Time hung_until = 0;         // the daemon does nothing until then
  Life power = 0, daemon_life = 0;
  std::array<Volume, kDisks> volumes;
  Records records;
  Time store_busy_until = 0;   // one transaction after the other
  std::optional<Guest> guest;
  Life guest_life = 0;
  std::unique_ptr<Daemon> daemon;
};

struct Options {
  std::uint64_t seed = 1;
  Mutation mutation = Mutation::none;
  std::ostream* trace = nullptr;
};

// What a run came by. A simulation that never gets there says nothing.
enum class Seen : std::uint8_t {
  moved,
  rolled_back,
  resolved_opened,
  resolved_revoked,
  returned,
  return_refused,
  conceded,
  recovered,
  taken_back_at_start,
  revoked_at_start,
  answered_from_record,
  forced,
  peer_unknown,
  in_doubt,
  moved_back,
  late_grant,
  both_guests_run,
  held_write,
  refused_write,
  torn_block,
  duplicate_dropped,
  restart_needed,
  stray,
  kept,
  compared,
  followed,
  kept_removed,
  came_back,  // to verify, after the link had broken
  count
};
const char* seen_name(Seen seen);

struct Outcome {
  std::string violation;   // empty: none
  Time violated_at = 0;
  std::uint64_t steps = 0;
  std::uint32_t seen = 0;  // bits of Seen
};

struct World {
  explicit World(const Options& options);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  Outcome run();

  // --- who exists
  Host& host(unsigned id) { return hosts[id]; }
  bool mutated(Mutation m) const { return options.mutation == m; }
  void saw(Seen what) { outcome.seen |= 1u << static_cast<unsigned>(what); }
  void violate(std::string what);
  template <typename... Args>
  void trace(unsigned id, fmt::format_string<Args...> format, Args&&... args) {
    if (options.trace) print(id, fmt::format(format, std::forward<Args>(args)...));
  }
  void print(unsigned id, const std::string& line);

  // --- points: every call of a port and every event of a machine is one; faults are put at points.
  // False: the daemon of this host is dead before it comes to that.
  bool point(unsigned id, const char* name);
  // True when this step is to fail.
  bool fails(unsigned id, const char* name);

  // --- disks (world_io.cpp)
  void submit(unsigned id, GuestWrite write);
  void admit(unsigned id, GuestWrite write);
  void write_ends(unsigned id, GuestWrite write);
  void set_filter(unsigned id, unsigned disk, Filter filter);
  void remove_volumes(unsigned id);
  bool writable(unsigned id) const;   // on all disks
  bool claims(unsigned id) const;     // this host takes itself for the owner
  bool can_acknowledge(unsigned id) const;

  // --- lives (world_power.cpp)
  void start_daemon(unsigned id);
  void kill_daemon(unsigned id, Time back_after);
  void power_off(unsigned id, Time back_after);
  void boot(unsigned id);
  void bar(unsigned id);
  void start_guest(unsigned id);      // the operator or the cluster's manager: from the disks
  void destroy_guest(unsigned id);
  void guest_step(unsigned id);
  void run_guest(unsigned id);        // lets the copy there go on

  // --- the run (world.cpp)
  bool run_until(Time until);         // false after a violation
  void start_migrations();
  bool at_rest() const;
  std::string unrest() const;

  const Options options;
  Random random;
  Schedule schedule;
  Outcome outcome;
  std::array<Host, 2> hosts;
  Links links;
  Libvirt libvirt;
  Faults faults;
  Checker checker;
  std::uint32_t versions = 0;     // of writes
  std::uint32_t copies = 0;       // of the guest
  std::uint32_t sessions = 0;
  std::uint32_t trackers = 0;     // filters that were ever put in
  std::uint32_t migrations_left = 1;
  bool image_metadata = false;    // the hypervisor writes to the disks after the guest's pause
  bool ending = false;            // faults are over
  bool restart_wanted[2] = {false, false};  // something could not be cleaned up: its error says so
  bool records_lost = false;      // an operator deleted what a host had on record
  bool unguarded = false;         // and the host lost power after that: nobody is left who knows what must stay closed

 private:
  void begin();
  void heal();
  bool rests_within(Time limit);
  void operator_looks();
  void stop_daemon(unsigned id, bool silent);
  void check_end();
  void check_owner(unsigned id);
  void check_other(unsigned id);
  void check_usable();
};

inline unsigned other(unsigned id) { return 1 - id; }

}  // namespace ferry::sim
