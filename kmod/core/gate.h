/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who may pass, what may follow what, and which of two maps is live: the rules
 * of a tracker without its locks. Pure functions and tables; the caller brings
 * the locking (tracker.c says which).
 */
#ifndef FERRY_CORE_GATE_H
#define FERRY_CORE_GATE_H

#include "map.h"
#include <linux/ferry.h>

/* ---------------------------------------------------------------- states */

enum ferry_action {
	FERRY_ACT_FREEZE,
	FERRY_ACT_THAW,
	FERRY_ACT_FENCE,
	FERRY_ACT_UNFENCE,
	FERRY_ACT_GATE,
	FERRY_ACT_OPEN,
	FERRY_NR_ACTIONS,
};

int ferry_gate_next(u32 state, enum ferry_action action);

/* ------------------------------------------------------------- admission */

enum ferry_kind {
	FERRY_READ,
	FERRY_FLUSH,		/* an empty flush: changes no data */
	FERRY_WRITE,		/* everything that may change data */
	FERRY_NR_KINDS,
};

enum ferry_verdict {
	FERRY_PASS,
	FERRY_HOLD,
	FERRY_REFUSE,
};

enum ferry_verdict ferry_gate_verdict(u32 state, enum ferry_kind kind);

/* --------------------------------------------------------- in-flight stash */

/*
 * A write carries its blocks from submission to completion in one word of the
 * bio. 0 means "not ours". A single block, nearly every write, is its number plus
 * one, so that it costs one addition at either end; a range has the sign bit.
 */
#define FERRY_STASH_RANGE	BIT_ULL(63)
#define FERRY_STASH_SHIFT	40
#define FERRY_MAX_BLOCKS	BIT_ULL(FERRY_STASH_SHIFT)
#define FERRY_STASH_MAX_NR	(FERRY_STASH_RANGE / FERRY_MAX_BLOCKS - 1)

static inline u64 ferry_stash_one(u64 block)
{
	return block + 1;
}

/* Is this the stash of a single block? Not defined for 0. */
static inline bool ferry_stash_is_one(u64 stash)
{
	return !(stash & FERRY_STASH_RANGE);
}

/* @nr: 1 to FERRY_STASH_MAX_NR; a bio of 4 GiB has 2^20 blocks of 4 KiB. */
static inline u64 ferry_stash(u64 first, u64 nr)
{
	if (nr == 1)
		return ferry_stash_one(first);
	return FERRY_STASH_RANGE | nr << FERRY_STASH_SHIFT | first;
}

static inline u64 ferry_stash_first(u64 stash)
{
	return ferry_stash_is_one(stash) ? stash - 1 : stash & (FERRY_MAX_BLOCKS - 1);
}

static inline u64 ferry_stash_nr(u64 stash)
{
	return ferry_stash_is_one(stash) ? 1 : (stash & ~FERRY_STASH_RANGE) >> FERRY_STASH_SHIFT;
}

/* -------------------------------------------------------------- two maps */

/**
 * struct ferry_pair - the live map and its spare
 * @bits: both maps
 * @live: index of the map that is marked now
 * @retired: the other one belongs to the reader; false = it is an empty spare
 * @swaps: maps retired so far
 * @taken: dirty blocks of all retired maps, so that newly - taken = live ones
 */
struct ferry_pair {
	unsigned long *bits[2];
	unsigned int live;
	bool retired;
	u64 swaps;
	u64 taken;
};

static inline unsigned int ferry_pair_other(const struct ferry_pair *pair)
{
	return !pair->live;
}

int ferry_pair_retire(struct ferry_pair *pair);
void ferry_pair_account(struct ferry_pair *pair, u64 dirty);
int ferry_pair_release(struct ferry_pair *pair, const struct ferry_geometry *geo);
void ferry_pair_take_back(struct ferry_pair *pair, const struct ferry_geometry *geo);

#endif /* FERRY_CORE_GATE_H */
