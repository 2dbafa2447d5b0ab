// SPDX-License-Identifier: GPL-2.0-or-later
// The protocol of tracker.c and dm-ferry-target.c as step machines: one step = one action that others
// see at once. Bitmaps, the pair of maps, the state machine and the admission of writes are not
// modelled: they are the module's own core/map.c and core/gate.c.
//
// What the model has: each write is a process; the owner copies all, then swaps and copies, freezes,
// swaps for the last time, copies and fences, or it opens a gate; a thaw (message or watchdog), a noflush
// suspend of the table, a freeze by another thread, and the death of the owner may come between any two
// steps. Sections (rcu_read_lock_sched) are part of a write's place; a grace period ends when each
// section that had begun before it is over.
//
// What it leaves out, and why that hides no order of events:
// - The beginning of a section is one step with the load behind it, its end one with the action before
//   it. That shortens sections, so grace periods may end earlier than in the kernel, never later.
// - A write reaches the disk in one step. A copy that overlaps it counts as made before it.
// - ferry_map() tries count_in() twice before admit(). A try that found NULL changed nothing.
// - Actions under tracker->hold_lock are one step; so are those under tracker->ctl, except where a
//   grace period lies between them, and except disown.
// Not covered at all: memory ordering weaker than the order of steps, reads, requests of several blocks,
// the order of two threads' calls other than FREEZE.
#ifndef FERRY_TESTS_MODEL_MACHINE_H
#define FERRY_TESTS_MODEL_MACHINE_H

extern "C" {
#include "gate.h"
}

#include <vector>

#include "state.h"

namespace ferry::model {

struct Bounds {
  unsigned writes = 2;
  uint8_t block_of[kMaxWrites] = {0, 0, 1};
  bool may_fail = false;  // the disk may report an error for the first write, having torn its block
  uint8_t rounds = 2;     // swaps before the last one, per life of the owner
  uint8_t freezes = 1;
  uint32_t begins = FERRY_STATE_TRACKING;  // or FERRY_STATE_GATED: then nobody copies
  bool gate_opens = false;
  uint8_t thaws = 0;
  uint8_t others = 0;  // freezes by another thread
  uint8_t suspends = 0;
  uint8_t deaths = 0;
};

// Who does a step: a write by its number, or one of these.
inline constexpr uint8_t kOwner = 100;
inline constexpr uint8_t kAdmin = 101;
inline constexpr uint8_t kDm = 102;
inline constexpr uint8_t kThread = 103;
inline constexpr uint8_t kWorker = 104;

struct Next {
  State state;
  uint8_t who;
  const char* what;
  Broken broken;
};

// What a model that is explored to its end must have come by, or it says nothing.
enum Seen : unsigned {
  kSawFenced = 1u << 0,
  kSawTimeout = 1u << 1,
  kSawCancelled = 1u << 2,
  kSawFenceRefused = 1u << 3,
  kSawHeld = 1u << 4,
  kSawHeldGoOn = 1u << 5,
  kSawRefused = 1u << 6,
  kSawTakenBack = 1u << 7,
  kSawGraceWait = 1u << 8,
  kSawMarkedAlready = 1u << 9,
  kSawOvertaken = 1u << 10,
  kSawSentBack = 1u << 11,
};

class Machine {
 public:
  Machine(Variant variant, const Bounds& bounds);

  State initial() const;
  // Every step that is possible in `from`.
  const std::vector<Next>& successors(const State& from);
  // May the model end here?
  bool finished(const State& state) const;
  unsigned seen() const { return seen_; }
  const Bounds& bounds() const { return bounds_; }

 private:
  // writes.cpp
  void write_steps(unsigned i);
  void submit_step(unsigned i);
  void admit_step(unsigned i, const char* passes);
  void land_steps(unsigned i);
  void end_io_step(unsigned i);
  void test_step(unsigned i);
  void mark_step(unsigned i);
  void out_steps(unsigned i);
  void pass_write(State& next, unsigned i);
  Broken marked_wrong_map(unsigned i) const;

  // machine.cpp
  void owner_steps();
  void round_steps();
  void swap_step();
  void swap_grace_step();
  void scan_step();
  void copy_step(Owner then);
  void release_step();
  void clear_steps();
  void gate_step();
  void freeze_step();
  void drain_steps();
  void freeze_end_step();
  void fence_step();
  void death_steps();
  void thaw_step();
  void other_steps();
  bool freeze_is_mine() const;
  void suspend_steps();
  void release_work_step();

  void set_state(State& next, unsigned state) const;
  void lose_freeze(State& next) const;
  void begin_grace(State& next) const;
  bool grace_is_over();
  bool ctl_is_free() const;
  void emit(const State& next, uint8_t who, const char* what, Broken broken = Broken::kNothing);
  Broken judge(const State& next) const;

  // The module's core works on memory of its own: a state's maps go in before a call and out after it.
  void load_maps(const State& state);
  void store_maps(State& state) const;

  Variant variant_;
  Bounds bounds_;
  ferry_geometry geo_{};
  ferry_pair pair_{};
  std::vector<unsigned long> words_[2];

  const State* from_ = nullptr;
  std::vector<Next> out_;
  unsigned seen_ = 0;
};

}  // namespace ferry::model

#endif
