// SPDX-License-Identifier: GPL-2.0-or-later
// A write from its submission to its acknowledgement: the data path of dm-ferry-target.c.
#include "machine.h"

namespace ferry::model {
namespace {

void leave_section(Write& write, At to) {
  write.at = to;
  write.awaited = 0;
}

void acknowledge(State& next, unsigned i, unsigned block) {
  Write& write = next.write[i];
  if (!write.failed && next.acked[block] < write.version) next.acked[block] = write.version;
  write = {.at = At::kDone, .map = 0, .awaited = 0, .failed = 0, .version = 0};
}

}  // namespace

void Machine::write_steps(unsigned i) {
  switch (from_->write[i].at) {
    case At::kIdle:
    case At::kSentBack:
      return submit_step(i);
    case At::kCounting: {
      State next = *from_;
      ++next.inflight[i % kCpus];
      leave_section(next.write[i], At::kInFlight);
      pass_write(next, i);
      return emit(next, i, "count_in(): counts in, leaves; pass_write() sends it down");
    }
    case At::kSlow:
      return admit_step(i, "slow_map(), admit(): counts in, passes");
    case At::kHeld:
      return;  // release_work_step()
    case At::kRetried:
      return admit_step(i, "ferry_target_retry(), admit(): counts in, the held write goes on");
    case At::kInFlight:
      return land_steps(i);
    case At::kLanded:
    case At::kCountedOut:
    case At::kLoaded:
      return end_io_step(i);
    case At::kTest:
      return test_step(i);
    case At::kMark:
    case At::kSummary:
      return mark_step(i);
    case At::kOut:
      return out_steps(i);
    case At::kDone:
      return;
  }
}

// ferry_map() and the first half of count_in().
void Machine::submit_step(unsigned i) {
  // dm keeps what comes now, and what it got back.
  if (from_->suspend == Suspend::kSuspended) return;
  if (from_->write[i].at == At::kSentBack && from_->suspend != Suspend::kNo) return;
  State next = *from_;
  next.write[i].at = from_->fast ? At::kCounting : At::kSlow;
  emit(next, i, from_->fast ? "count_in(): enters, sees live" : "count_in(): sees that live is NULL");
}

// admit(), under hold_lock.
void Machine::admit_step(unsigned i, const char* passes) {
  State next = *from_;
  Write& write = next.write[i];
  switch (ferry_gate_verdict(from_->state, FERRY_WRITE)) {
    case FERRY_PASS:
      if (write.at == At::kRetried) seen_ |= kSawHeldGoOn;
      ++next.inflight[i % kCpus];
      write.at = At::kInFlight;
      pass_write(next, i);
      return emit(next, i, passes);
    case FERRY_HOLD:
      if (from_->suspend == Suspend::kFlagged || from_->suspend == Suspend::kBegun) {
        seen_ |= kSawSentBack;
        write.at = At::kSentBack;
        return emit(next, i, "admit(): goes back to dm, which is suspending");
      }
      seen_ |= kSawHeld;
      write.at = At::kHeld;
      return emit(next, i, "admit(): is held");
    case FERRY_REFUSE:
      seen_ |= kSawRefused;
      write.at = At::kDone;
      return emit(next, i, "admit(): is refused");
  }
}

// pass_write(): bi_private holds the block from here on; wrong variants do more.
void Machine::pass_write(State& next, unsigned i) {
  if (variant_ == Variant::kMapOfSubmission) next.write[i].map = next.live;
  if (variant_ != Variant::kMarkAtSubmit) return;
  load_maps(next);
  next.dirty += static_cast<int8_t>(
      ferry_map_mark(&geo_, pair_.bits[pair_.live], bounds_.block_of[i], 1));
  store_maps(next);
}

// The disk below: not ours. An error tears the block, so its content is new as well.
void Machine::land_steps(unsigned i) {
  State next = *from_;
  const unsigned block = bounds_.block_of[i];
  next.write[i].version = ++next.disk[block];
  next.write[i].at = At::kLanded;
  const bool open = from_->state == FERRY_STATE_TRACKING || from_->state == FERRY_STATE_FROZEN;
  const Broken broken = open ? Broken::kNothing : Broken::kLandsWhenClosed;
  emit(next, i, "lands on the disk", broken);
  if (!bounds_.may_fail || i != 0) return;
  next.write[i].failed = 1;
  emit(next, i, "fails on the disk, its block is torn", broken);
}

// ferry_end_io() up to the load of tracker->bits.
void Machine::end_io_step(unsigned i) {
  State next = *from_;
  Write& write = next.write[i];
  const bool early = variant_ == Variant::kCountOutFirst ? write.at == At::kLanded
                                                         : write.at == At::kLoaded;
  if (early) {
    --next.inflight[i % kCpus];
    write.at = write.at == At::kLoaded ? At::kTest : At::kCountedOut;
    return emit(next, i, "ferry_end_io(): counts out before it marks");
  }
  if (variant_ != Variant::kMapOfSubmission) write.map = from_->live;
  write.at = variant_ == Variant::kCountOutInSection ? At::kLoaded : At::kTest;
  emit(next, i, "ferry_end_io(): enters, loads bits");
}

// ferry_end_io(): most writes find their block marked.
void Machine::test_step(unsigned i) {
  State next = *from_;
  Write& write = next.write[i];
  const bool marks =
      variant_ != Variant::kMarkAtSubmit &&
      !(variant_ == Variant::kMarkOnlySuccess && write.failed);
  if (!marks) {
    write.at = At::kOut;
    return emit(next, i, "ferry_end_io(): does not mark");
  }
  load_maps(*from_);
  if (ferry_map_test(pair_.bits[write.map], bounds_.block_of[i])) {
    seen_ |= kSawMarkedAlready;
    write.at = At::kOut;
    return emit(next, i, "ferry_end_io(): the block is marked already");
  }
  write.at = At::kMark;
  emit(next, i, "ferry_end_io(): the block is not marked");
}

// Only the live map may be marked, or a retired one whose swap waits for us.
Broken Machine::marked_wrong_map(unsigned i) const {
  return from_->write[i].map == from_->live || from_->owner == Owner::kSwapGrace
             ? Broken::kNothing
             : Broken::kRetiredMapChanged;
}

// mark_and_leave(). The real ferry_map_mark_one() sets the bit and then the summary, and another CPU may look
// in between: so each of its two effects is a step, made by a call of which the other is left out.
void Machine::mark_step(unsigned i) {
  State next = *from_;
  Write& write = next.write[i];
  const u64 block = ferry_stash_first(ferry_stash_one(bounds_.block_of[i]));
  load_maps(*from_);
  if (write.at == At::kSummary) pair_.bits[write.map][0] &= ~(1UL << block);
  const bool newly = ferry_map_mark_one(&geo_, pair_.bits[write.map], block);
  store_maps(next);
  if (write.at == At::kSummary) {
    next.map[write.map].leaf = from_->map[write.map].leaf;
    write.at = At::kOut;
    return emit(next, i, "ferry_map_mark_one(): sets the summary", marked_wrong_map(i));
  }
  next.map[write.map].summary = from_->map[write.map].summary;
  next.dirty += static_cast<int8_t>(newly);
  write.at = newly ? At::kSummary : At::kOut;
  emit(next, i, newly ? "ferry_map_mark_one(): sets the bit" : "ferry_map_mark_one(): another was first",
       newly ? marked_wrong_map(i) : Broken::kNothing);
}

// The end of ferry_end_io(), on any CPU; then dm completes the guest's bio.
void Machine::out_steps(unsigned i) {
  const bool counted = variant_ != Variant::kCountOutFirst &&
                       variant_ != Variant::kCountOutInSection;
  State next = *from_;
  acknowledge(next, i, bounds_.block_of[i]);
  if (!counted) return emit(next, i, "ferry_end_io(): leaves, the guest is told");
  for (unsigned cpu = 0; cpu < kCpus; ++cpu) {
    State on_cpu = next;
    --on_cpu.inflight[cpu];
    emit(on_cpu, i, cpu ? "ferry_end_io(): counts out on CPU 1, leaves, the guest is told"
                        : "ferry_end_io(): counts out on CPU 0, leaves, the guest is told");
  }
}

}  // namespace ferry::model
