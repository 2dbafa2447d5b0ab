// SPDX-License-Identifier: GPL-2.0-or-later
// The owner's calls (tracker.c), the daemon around them, and what may come between: thaw, suspend, death.
#include "machine.h"

#include <bit>

namespace ferry::model {
namespace {

// Inside rcu_read_lock_sched()?
bool in_section(At at) {
  switch (at) {
    case At::kCounting:
    case At::kLoaded:
    case At::kTest:
    case At::kMark:
    case At::kSummary:
    case At::kOut:
      return true;
    default:
      return false;
  }
}

// Does the disk below have it now?
bool is_below(At at) { return at == At::kInFlight; }

// Has dm a bio of it that a suspend waits for?
bool in_dm(At at) { return at != At::kIdle && at != At::kSentBack && at != At::kDone; }

bool any_held(const State& state) {
  for (const Write& write : state.write)
    if (write.at == At::kHeld) return true;
  return false;
}

bool in_user_space(Owner owner) {
  return owner == Owner::kCopyAll || owner == Owner::kRound || owner == Owner::kScan ||
         owner == Owner::kCopy || owner == Owner::kRelease || owner == Owner::kFence;
}

// A step of the owner to another place, with nothing left over from the last one.
void go(State& next, Owner to) {
  next.owner = to;
  next.at = 0;
  next.sum = 0;
}

}  // namespace

Machine::Machine(Variant variant, const Bounds& bounds) : variant_(variant), bounds_(bounds) {
  ferry_geometry_init(&geo_, kBlocks);
  for (int i = 0; i < 2; ++i) {
    words_[i].resize((geo_.leaf_bytes + geo_.sum_bytes) / sizeof(unsigned long));
    pair_.bits[i] = words_[i].data();
  }
}

State Machine::initial() const {
  State state{};
  state.state = static_cast<uint8_t>(bounds_.begins);
  state.fast = bounds_.begins == FERRY_STATE_TRACKING;
  state.bound = 1;
  if (!state.fast) state.owner = bounds_.gate_opens ? Owner::kGate : Owner::kGaveUp;
  state.rounds = bounds_.rounds;
  state.freezes = bounds_.freezes;
  state.thaws = bounds_.thaws;
  state.others = bounds_.others;
  state.suspends = bounds_.suspends;
  state.deaths = bounds_.deaths;
  for (unsigned i = bounds_.writes; i < kMaxWrites; ++i) state.write[i].at = At::kDone;
  return state;
}

bool Machine::finished(const State& state) const {
  for (const Write& write : state.write) {
    const bool waits = write.at == At::kHeld && state.state == FERRY_STATE_GATED;
    if (write.at != At::kDone && !waits) return false;
  }
  if (state.suspend != Suspend::kNo) return false;
  return state.owner == Owner::kFenced || state.owner == Owner::kGaveUp;
}

const std::vector<Next>& Machine::successors(const State& from) {
  from_ = &from;
  out_.clear();
  for (unsigned i = 0; i < bounds_.writes; ++i) write_steps(i);
  owner_steps();
  death_steps();
  thaw_step();
  other_steps();
  suspend_steps();
  release_work_step();
  return out_;
}

void Machine::emit(const State& next, uint8_t who, const char* what, Broken broken) {
  out_.push_back({next, who, what, broken == Broken::kNothing ? judge(next) : broken});
}

// What must be true of every state.
Broken Machine::judge(const State& next) const {
  if (next.state == FERRY_STATE_FROZEN && next.drained)
    for (const Write& write : next.write)
      if (is_below(write.at)) return Broken::kBusyWhileFrozen;
  // Between the two halves of a swap, and of disown, nobody can ask: ctl is held.
  if (next.owner != Owner::kSwapGrace && next.owner != Owner::kDisown &&
      next.dirty != std::popcount(next.map[next.live].leaf))
    return Broken::kWrongCount;
  return Broken::kNothing;
}

void Machine::load_maps(const State& state) {
  for (int i = 0; i < 2; ++i) {
    pair_.bits[i][0] = state.map[i].leaf;
    pair_.bits[i][ferry_map_sum_word(&geo_)] = state.map[i].summary;
  }
  pair_.live = state.live;
  pair_.retired = state.retired != 0;
  pair_.taken = 0;
}

void Machine::store_maps(State& state) const {
  for (int i = 0; i < 2; ++i) {
    state.map[i].leaf = static_cast<uint8_t>(pair_.bits[i][0]);
    state.map[i].summary = static_cast<uint8_t>(pair_.bits[i][ferry_map_sum_word(&geo_)]);
  }
  state.live = static_cast<uint8_t>(pair_.live);
  state.retired = pair_.retired;
  state.dirty = static_cast<int8_t>(state.dirty - static_cast<int8_t>(pair_.taken));
}

// ------------------------------------------------------------------------ tracker.c, small helpers

// set_state(), under ctl and hold_lock; then it queues the release of held writes. (When none is held the
// work would do nothing: it is left out.)
void Machine::set_state(State& next, unsigned state) const {
  next.state = static_cast<uint8_t>(state);
  next.fast = state == FERRY_STATE_TRACKING;
  next.release = variant_ != Variant::kThawWithoutRelease && any_held(next);
}

// ferry_tracker_lose_freeze(), under ctl.
void Machine::lose_freeze(State& next) const {
  if (next.state == FERRY_STATE_FROZEN) set_state(next, FERRY_STATE_TRACKING);
}

bool Machine::ctl_is_free() const {
  return from_->owner != Owner::kSwapGrace && from_->owner != Owner::kDisown;
}

// synchronize_rcu_expedited(): waits for the sections that have begun by now.
void Machine::begin_grace(State& next) const {
  for (Write& write : next.write) write.awaited = in_section(write.at);
}

bool Machine::grace_is_over() {
  for (const Write& write : from_->write) {
    if (write.awaited) {
      seen_ |= kSawGraceWait;
      return false;
    }
  }
  return true;
}

// ---------------------------------------------------------------------------------------- the owner

void Machine::owner_steps() {
  switch (from_->owner) {
    case Owner::kCopyAll:
      return copy_step(Owner::kCopyAll);
    case Owner::kRound:
      return round_steps();
    case Owner::kSwapGrace:
      return swap_grace_step();
    case Owner::kScan:
      return scan_step();
    case Owner::kCopy:
      return copy_step(Owner::kScan);
    case Owner::kRelease:
      return release_step();
    case Owner::kClear:
      return clear_steps();
    case Owner::kFreezeGrace: {
      if (variant_ != Variant::kFreezeWithoutGrace && !grace_is_over()) return;
      State next = *from_;
      for (Write& write : next.write) write.awaited = 0;
      const bool drains = variant_ != Variant::kFreezeWithoutDrain;
      go(next, drains ? Owner::kDrain : Owner::kFrozenOk);
      return emit(next, kOwner, "ferry_tracker_freeze(): the grace period ends");
    }
    case Owner::kDrain:
    case Owner::kDrainMore:
      return drain_steps();
    case Owner::kFrozenOk:
    case Owner::kFrozenNot:
      return freeze_end_step();
    case Owner::kFence:
      return fence_step();
    case Owner::kGate:
      return gate_step();
    case Owner::kDisown:  // death_steps()
    case Owner::kFenced:
    case Owner::kGaveUp:
      return;
  }
}

// The daemon goes on with another round, with the round after the freeze, or with the freeze.
void Machine::round_steps() {
  if (!from_->bound) return;  // ESTALE: the daemon tries again later
  if (from_->last || from_->rounds) swap_step();
  if (from_->last) return;
  if (from_->freezes) return freeze_step();
  State next = *from_;
  next.rounds = 0;
  go(next, Owner::kGaveUp);
  emit(next, kOwner, "gives up");
}

// ferry_tracker_swap() to the beginning of its grace period.
void Machine::swap_step() {
  State next = *from_;
  if (!next.last) --next.rounds;
  if (variant_ == Variant::kClearInLiveMap) {
    load_maps(*from_);
    for (unsigned block = 0; block < kBlocks; ++block)
      if (ferry_map_test(pair_.bits[pair_.live], block)) next.listed |= 1u << block;
    go(next, Owner::kClear);
    return emit(next, kOwner, "reads the live map");
  }
  load_maps(*from_);
  if (ferry_pair_retire(&pair_) != 0) return emit(next, kOwner, "swap refused", Broken::kStuck);
  store_maps(next);
  begin_grace(next);
  go(next, Owner::kSwapGrace);
  emit(next, kOwner, "ferry_tracker_swap(): retires, publishes the new map");
}

void Machine::swap_grace_step() {
  if (variant_ != Variant::kSwapWithoutGrace && !grace_is_over()) return;
  State next = *from_;
  for (Write& write : next.write) write.awaited = 0;
  load_maps(*from_);
  ferry_pair_account(&pair_, ferry_map_count(&geo_, pair_.bits[ferry_pair_other(&pair_)]));
  store_maps(next);
  go(next, Owner::kScan);
  if (variant_ == Variant::kReleaseBeforeCopy) {
    next.listed = from_->map[ferry_pair_other(&pair_)].leaf;
    go(next, Owner::kRelease);
  }
  emit(next, kOwner, "ferry_tracker_swap(): the grace period ends, counts");
}

// The daemon looks for the next block of the round, by the summary as well.
void Machine::scan_step() {
  State next = *from_;
  u64 block;
  if (variant_ == Variant::kClearInLiveMap || variant_ == Variant::kReleaseBeforeCopy) {
    block = static_cast<u64>(std::countr_zero(from_->listed));
    if (!from_->listed) block = kBlocks;
  } else {
    load_maps(*from_);
    block = ferry_map_next(&geo_, pair_.bits[ferry_pair_other(&pair_)], from_->at);
  }
  next.owner = Owner::kCopy;
  next.at = static_cast<uint8_t>(block);
  if (block < kBlocks) return emit(next, kOwner, "finds a block in the retired map");
  if (from_->retired) {
    go(next, Owner::kRelease);
  } else {
    go(next, from_->last ? Owner::kFence : Owner::kRound);
  }
  emit(next, kOwner, "finds no further block in the retired map");
}

// The daemon reads a block from the disk, past every cache, and sends it.
void Machine::copy_step(Owner then) {
  State next = *from_;
  const unsigned block = from_->at;
  next.copy[block] = from_->disk[block];
  next.listed &= static_cast<uint8_t>(~(1u << block));
  next.owner = then;
  ++next.at;
  if (then == Owner::kCopyAll && next.at == kBlocks) go(next, Owner::kRound);
  emit(next, kOwner, block ? "copies block 1" : "copies block 0");
}

// ferry_tracker_release()
void Machine::release_step() {
  if (!ctl_is_free()) return;
  State next = *from_;
  load_maps(*from_);
  if (ferry_pair_release(&pair_, &geo_) != 0)
    return emit(next, kOwner, "release refused", Broken::kStuck);
  store_maps(next);
  go(next, from_->last ? Owner::kFence : Owner::kRound);
  if (variant_ == Variant::kReleaseBeforeCopy) go(next, Owner::kScan);
  emit(next, kOwner, "ferry_tracker_release(): clears the retired map");
}

// What a filter with a single map would do: clear what was read.
void Machine::clear_steps() {
  State next = *from_;
  load_maps(*from_);
  ferry_map_clear(&geo_, pair_.bits[pair_.live]);
  store_maps(next);
  next.dirty = static_cast<int8_t>(std::popcount(next.map[next.live].leaf));
  go(next, Owner::kScan);
  emit(next, kOwner, "clears the live map");
}

// ferry_tracker_act(OPEN)
void Machine::gate_step() {
  if (!ctl_is_free()) return;
  State next = *from_;
  set_state(next, static_cast<unsigned>(ferry_gate_next(from_->state, FERRY_ACT_OPEN)));
  go(next, Owner::kGaveUp);
  emit(next, kOwner, "ferry_tracker_act(OPEN)");
}

// ------------------------------------------------------------------------------------------- freeze

// still_frozen(), and what drain() asks on its way.
bool Machine::freeze_is_mine() const {
  return from_->state == FERRY_STATE_FROZEN &&
         (from_->number == from_->mine || variant_ == Variant::kFreezeWithoutNumber);
}

// freeze_begin()
void Machine::freeze_step() {
  if (!ctl_is_free() || from_->suspend == Suspend::kBegun) return;  // EBUSY: trk->suspending
  const int to = ferry_gate_next(from_->state, FERRY_ACT_FREEZE);
  if (to < 0) return;  // EBUSY: another thread's freeze
  State next = *from_;
  --next.freezes;
  next.mine = ++next.number;
  next.drained = 0;
  set_state(next, static_cast<unsigned>(to));
  begin_grace(next);
  go(next, Owner::kFreezeGrace);
  emit(next, kOwner, "ferry_tracker_freeze(): FROZEN, live = NULL");
}

// drain(): sums up CPU by CPU, while writes complete anywhere.
void Machine::drain_steps() {
  State next = *from_;
  if (from_->owner == Owner::kDrain) {
    next.sum = from_->inflight[0];
    next.owner = Owner::kDrainMore;
    return emit(next, kOwner, "drain(): reads the counter of CPU 0");
  }
  const int sum = from_->sum + from_->inflight[1];
  go(next, sum ? Owner::kDrain : Owner::kFrozenOk);
  emit(next, kOwner, sum ? "drain(): reads that of CPU 1, goes on waiting"
                         : "drain(): reads that of CPU 1, nothing is in flight");
  if (!sum) return;
  go(next, Owner::kFrozenNot);
  const bool lost = !freeze_is_mine();
  seen_ |= lost ? kSawCancelled : kSawTimeout;
  emit(next, kOwner, lost ? "drain(): the freeze is gone" : "drain(): timeout");
}

// The end of ferry_tracker_freeze(), under ctl.
void Machine::freeze_end_step() {
  if (!ctl_is_free()) return;
  State next = *from_;
  if (!freeze_is_mine()) {
    seen_ |= from_->state == FERRY_STATE_FROZEN ? kSawOvertaken : kSawCancelled;
    go(next, Owner::kRound);
    return emit(next, kOwner, "ferry_tracker_freeze(): ECANCELED");
  }
  if (from_->owner == Owner::kFrozenNot) {
    set_state(next, FERRY_STATE_TRACKING);
    go(next, Owner::kRound);
    return emit(next, kOwner, "ferry_tracker_freeze(): ETIMEDOUT, thawed");
  }
  next.drained = 1;
  next.last = 1;
  go(next, Owner::kRound);
  emit(next, kOwner, "ferry_tracker_freeze(): drained");
}

// ferry_tracker_act(FENCE), and the moment of truth: from here on the copy is the disk.
void Machine::fence_step() {
  if (!ctl_is_free()) return;
  State next = *from_;
  next.last = 0;
  int to = ferry_gate_next(from_->state, FERRY_ACT_FENCE);
  if (from_->state == FERRY_STATE_FROZEN && !from_->drained) to = -EBUSY;
  if (variant_ == Variant::kFenceInAnyState) to = FERRY_STATE_FENCED;
  if (to < 0) {
    seen_ |= kSawFenceRefused;
    go(next, Owner::kRound);
    return emit(next, kOwner, "ferry_tracker_act(FENCE): EBUSY, the freeze was lost");
  }
  set_state(next, static_cast<unsigned>(to));
  go(next, Owner::kFenced);
  seen_ |= kSawFenced;
  Broken broken = Broken::kNothing;
  for (unsigned block = 0; block < kBlocks; ++block)
    if (next.copy[block] != next.disk[block] || next.copy[block] < next.acked[block])
      broken = Broken::kLost;
  emit(next, kOwner, "ferry_tracker_act(FENCE): FENCED, the copy takes over", broken);
}

// ------------------------------------------------------------------------------ what may come between

// The owner dies in user space (a swap cannot be killed, a drain ends as by timeout): its file is
// closed, ferry_tracker_disown() runs under ctl. The next owner goes on with the copy as it is.
void Machine::death_steps() {
  State next = *from_;
  if (from_->owner == Owner::kDisown) {
    load_maps(*from_);
    const uint8_t before = from_->map[0].leaf | from_->map[1].leaf;
    if (variant_ == Variant::kDisownForgets) {
      if (pair_.retired) ferry_pair_release(&pair_, &geo_);
    } else {
      if (pair_.retired) seen_ |= kSawTakenBack;
      ferry_pair_take_back(&pair_, &geo_);
    }
    store_maps(next);
    const Map& live = next.map[next.live];
    const Map& spare = next.map[!next.live];
    const bool kept = live.leaf == before && !spare.leaf && !spare.summary;
    go(next, Owner::kRound);
    return emit(next, kOwner, "ferry_tracker_disown(): takes the map back; a new owner comes",
                kept ? Broken::kNothing : Broken::kBitsLost);
  }
  if (!from_->deaths || !in_user_space(from_->owner)) return;
  --next.deaths;
  next.last = 0;
  next.listed = 0;
  next.rounds = bounds_.rounds;
  lose_freeze(next);
  // Who did not finish the first round left no copy to go on with.
  if (from_->owner == Owner::kCopyAll) {
    go(next, Owner::kCopyAll);
  } else {
    go(next, Owner::kDisown);
  }
  emit(next, kOwner, "dies; ferry_tracker_disown(): ends a freeze");
}

// ferry_tracker_act(THAW) by message, or watchdog_work(), which does the same later.
void Machine::thaw_step() {
  if (!from_->thaws || !ctl_is_free() || from_->state != FERRY_STATE_FROZEN) return;
  State next = *from_;
  --next.thaws;
  set_state(next, static_cast<unsigned>(ferry_gate_next(from_->state, FERRY_ACT_THAW)));
  emit(next, kAdmin, "ferry_tracker_act(THAW)");
}

// FREEZE by another thread of the owner: freeze_begin(), then a wait that ends by timeout at any time.
void Machine::other_steps() {
  if (!ctl_is_free()) return;
  State next = *from_;
  if (from_->other) {
    if (from_->state == FERRY_STATE_FROZEN && from_->number == from_->other)
      set_state(next, FERRY_STATE_TRACKING);
    next.other = 0;
    return emit(next, kThread, "ferry_tracker_freeze(): ETIMEDOUT or ECANCELED");
  }
  const int to = ferry_gate_next(from_->state, FERRY_ACT_FREEZE);
  if (!from_->others || to < 0 || !from_->bound || from_->suspend == Suspend::kBegun) return;
  --next.others;
  next.other = ++next.number;
  next.drained = 0;
  set_state(next, static_cast<unsigned>(to));
  emit(next, kThread, "ferry_tracker_freeze(): FROZEN, live = NULL");
}

// A noflush suspend and resume of the table: bind.c.
void Machine::suspend_steps() {
  State next = *from_;
  if (!ctl_is_free()) return;
  switch (from_->suspend) {
    case Suspend::kNo:
      if (!from_->suspends) return;
      --next.suspends;
      next.suspend = Suspend::kFlagged;
      return emit(next, kDm, "says that it is suspending");
    case Suspend::kFlagged:
      next.suspend = Suspend::kBegun;
      lose_freeze(next);
      next.release = variant_ != Variant::kSuspendIgnoresHeld && any_held(next);
      return emit(next, kDm, "ferry_tracker_presuspend(): ends a freeze");
    case Suspend::kBegun:
      for (const Write& write : from_->write)
        if (in_dm(write.at)) return;  // dm waits for every bio
      next.suspend = Suspend::kSuspended;
      next.bound = 0;
      return emit(next, kDm, "ferry_tracker_postsuspend()");
    case Suspend::kSuspended:
      next.suspend = Suspend::kNo;
      next.bound = 1;
      return emit(next, kDm, "ferry_tracker_resume()");
  }
}

// release_work() to the moment when it has taken the list; it does not run twice at a time.
void Machine::release_work_step() {
  if (!from_->release) return;
  for (const Write& write : from_->write)
    if (write.at == At::kRetried) return;
  State next = *from_;
  next.release = 0;
  for (Write& write : next.write)
    if (write.at == At::kHeld) write.at = At::kRetried;
  emit(next, kWorker, "release_work(): takes the list of held writes");
}

}  // namespace ferry::model
