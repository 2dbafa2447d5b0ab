// SPDX-License-Identifier: GPL-2.0-or-later
// One moment of the model: a tracker, the writes around it, its owner, the disk and the copy. Bytes
// only and no padding, so that a state can be hashed and compared as it lies in memory.
#ifndef FERRY_TESTS_MODEL_STATE_H
#define FERRY_TESTS_MODEL_STATE_H

#include <compare>
#include <cstdint>
#include <type_traits>

namespace ferry::model {

inline constexpr unsigned kBlocks = 2;
inline constexpr unsigned kMaxWrites = 3;
inline constexpr unsigned kCpus = 2;

// Where a write is. From kCounting to kOut it stands in the function that the name in brackets says.
enum class At : uint8_t {
  kIdle,        // not submitted
  kCounting,    // [count_in] in its section, saw that live is set
  kSlow,        // [slow_map] saw that live is NULL
  kHeld,        // on the tracker's list
  kRetried,     // [release_work] taken from the list
  kSentBack,    // dm keeps it until the resume
  kInFlight,    // below the filter
  kLanded,      // on the disk, ferry_end_io() is about to run
  kCountedOut,  // [ferry_end_io] wrong variants: counted out already
  kLoaded,      // [ferry_end_io] in its section, has loaded bits, is to count out early
  kTest,        // [ferry_end_io] in its section, has loaded bits
  kMark,        // [mark_and_leave] saw no mark
  kSummary,     // [ferry_map_mark] has set the leaf bit, the summary is to follow
  kOut,         // [mark_and_leave, ferry_end_io] is about to count out and to leave
  kDone,        // acknowledged, failed or refused
};

struct Write {
  At at;
  uint8_t map;      // the map that ferry_end_io() loaded
  uint8_t awaited;  // the grace period that is going on waits for this write's section
  uint8_t failed;   // the disk reported an error
  uint8_t version;  // what the block became by it
  bool operator==(const Write&) const = default;
};

// Where the owner (the daemon) is. In kSwapGrace and kDisown it holds tracker->ctl.
enum class Owner : uint8_t {
  kCopyAll,      // user space: the first round, every block
  kRound,        // user space: the next round, or the freeze
  kSwapGrace,    // [ferry_tracker_swap] published the new map
  kScan,         // user space: looks for the next block in the retired map
  kCopy,         // user space: copies the block `at`
  kRelease,      // user space: the round is copied
  kClear,        // wrong variant: has read the live map and is about to clear it
  kFreezeGrace,  // [ferry_tracker_freeze] live is NULL
  kDrain,        // [drain] about to read the first CPU's counter
  kDrainMore,    // [drain] about to read the second one's
  kFrozenOk,     // [ferry_tracker_freeze] the sum was 0
  kFrozenNot,    // [ferry_tracker_freeze] timeout, or the freeze is gone
  kFence,        // user space: the last round is copied
  kDisown,       // [ferry_tracker_disown] ended the freeze
  kGate,         // destination: opens the gate at some time
  kFenced,       // the migration has succeeded
  kGaveUp,
};

// dm says "noflush suspending" before it calls presuspend.
enum class Suspend : uint8_t { kNo, kFlagged, kBegun, kSuspended };

struct Map {
  uint8_t leaf;     // bit n: block n
  uint8_t summary;  // bit n: page n of the leaf; there is one page
  bool operator==(const Map&) const = default;
};

struct State {
  // The tracker, named as in tracker.h.
  uint8_t state;    // FERRY_STATE_*
  uint8_t fast;     // tracker->live is not NULL
  uint8_t live;     // pair.live, and what tracker->bits points at
  uint8_t retired;  // pair.retired
  Map map[2];
  int8_t inflight[kCpus];
  int8_t dirty;  // newly - pair.taken, as in ferry_info
  uint8_t drained;
  uint8_t number;  // tracker->freezes
  uint8_t bound;
  uint8_t release;  // the work that offers held writes to the state again is queued
  Suspend suspend;

  Write write[kMaxWrites];

  Owner owner;
  uint8_t at;       // cursor of the round
  uint8_t listed;   // wrong variants: the blocks of the round, when they are not read from the map
  uint8_t last;     // this is the round after the freeze
  uint8_t mine;     // the number of the owner's freeze
  int8_t sum;       // what drain() has added up
  uint8_t rounds;   // how many more of each there may be
  uint8_t freezes;
  uint8_t thaws;
  uint8_t others;
  uint8_t suspends;
  uint8_t deaths;

  uint8_t other;  // the number of a freeze by another thread of the owner, while it waits; or 0

  uint8_t disk[kBlocks];   // version of each block
  uint8_t copy[kBlocks];   // version that the destination holds
  uint8_t acked[kBlocks];  // newest version the guest was told of

  bool operator==(const State&) const = default;
};
static_assert(std::has_unique_object_representations_v<State>);

// What must never happen.
enum class Broken : uint8_t {
  kNothing,
  kLost,              // fenced, and the copy is not what the disk holds
  kBusyWhileFrozen,   // a freeze was reported, and a write is below the filter
  kLandsWhenClosed,   // a write reaches a fenced or gated disk
  kBitsLost,          // the owner went, and a bit of a map with it
  kRetiredMapChanged, // a map changes while its reader reads it, or while it should be empty
  kWrongCount,        // ferry_info.dirty is not the number of bits of the live map
  kStuck,             // nobody can go on
};

// The order of steps that is explored: the module's, or one that is known to be wrong.
enum class Variant : uint8_t {
  kRight,
  kCountOutInSection,   // counts out before the mark, but after bits was loaded: harmless
  kMarkAtSubmit,        // marks when the write is submitted, and not again
  kMapOfSubmission,     // marks at completion, in the map that was live at submission
  kMarkOnlySuccess,     // does not mark writes that failed
  kCountOutFirst,       // drops the count before it looks for the live map
  kSwapWithoutGrace,
  kClearInLiveMap,      // no second map: reads the live one, then clears it
  kFreezeWithoutGrace,
  kFreezeWithoutDrain,
  kFreezeWithoutNumber, // takes another freeze for its own
  kFenceInAnyState,     // takes no notice of a freeze that was lost
  kReleaseBeforeCopy,   // the owner says "read" when it has read the map but not copied the blocks
  kDisownForgets,       // a retired map is cleared when its owner dies
  kThawWithoutRelease,  // does not look at held writes when the state changes
  kSuspendIgnoresHeld,  // presuspend does not look at them
};

}  // namespace ferry::model

#endif
