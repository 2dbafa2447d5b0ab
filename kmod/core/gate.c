// SPDX-License-Identifier: GPL-2.0
#include "gate.h"

#define S(x) FERRY_STATE_##x

/* Every legal change of state; 0 = refused. The uapi header draws the same. */
static const u8 next_state[][FERRY_NR_ACTIONS] = {
	[S(TRACKING)] = {
		[FERRY_ACT_FREEZE] = S(FROZEN),
	},
	[S(FROZEN)] = {
		[FERRY_ACT_THAW] = S(TRACKING),
		[FERRY_ACT_FENCE] = S(FENCED),
	},
	[S(FENCED)] = {
		[FERRY_ACT_UNFENCE] = S(TRACKING),
	},
	[S(RECEIVING)] = {
		[FERRY_ACT_GATE] = S(GATED),
		[FERRY_ACT_OPEN] = S(TRACKING),
		[FERRY_ACT_FENCE] = S(FENCED),
	},
	[S(GATED)] = {
		[FERRY_ACT_OPEN] = S(TRACKING),
		[FERRY_ACT_FENCE] = S(FENCED),
	},
};

/*
 * What happens to I/O in each state. An empty flush passes everywhere: it
 * promises durability for completed writes, and a held write is not completed.
 */
static const u8 verdicts[][FERRY_NR_KINDS] = {
	[S(TRACKING)]	= { FERRY_PASS, FERRY_PASS, FERRY_PASS },
	[S(FROZEN)]	= { FERRY_PASS, FERRY_PASS, FERRY_HOLD },
	[S(FENCED)]	= { FERRY_PASS, FERRY_PASS, FERRY_REFUSE },
	[S(RECEIVING)]	= { FERRY_PASS, FERRY_PASS, FERRY_HOLD },
	[S(GATED)]	= { FERRY_HOLD, FERRY_PASS, FERRY_HOLD },
};

#undef S

/**
 * ferry_gate_next() - the state an action leads to
 * @state: the state now
 * @action: what is asked
 *
 * Return: the next state, or -EBUSY when the action is not legal now.
 */
int ferry_gate_next(u32 state, enum ferry_action action)
{
	if (state >= ARRAY_SIZE(next_state) || action >= FERRY_NR_ACTIONS ||
	    !next_state[state][action])
		return -EBUSY;
	return next_state[state][action];
}

/**
 * ferry_gate_verdict() - may this I/O pass in this state?
 * @state: a valid state
 * @kind: what the I/O does
 *
 * Return: pass, hold or refuse.
 */
enum ferry_verdict ferry_gate_verdict(u32 state, enum ferry_kind kind)
{
	return (enum ferry_verdict)verdicts[state][kind];
}

/**
 * ferry_pair_retire() - exchange the roles of the two maps
 * @pair: the pair
 *
 * The caller publishes the new live map and waits for all markers of the old
 * one; only then may the old one be read.
 *
 * Return: 0, or -EBUSY while an older map was not released.
 */
int ferry_pair_retire(struct ferry_pair *pair)
{
	if (pair->retired)
		return -EBUSY;
	pair->live = ferry_pair_other(pair);
	pair->retired = true;
	pair->swaps++;
	return 0;
}

/**
 * ferry_pair_account() - remember how much a retired map held
 * @pair: the pair
 * @dirty: set bits of the retired map
 */
void ferry_pair_account(struct ferry_pair *pair, u64 dirty)
{
	pair->taken += dirty;
}

/**
 * ferry_pair_release() - turn the retired map into an empty spare
 * @pair: the pair
 * @geo: shape of its maps
 *
 * May sleep.
 *
 * Return: 0, or -EINVAL when no map is retired.
 */
int ferry_pair_release(struct ferry_pair *pair, const struct ferry_geometry *geo)
{
	if (!pair->retired)
		return -EINVAL;
	ferry_map_clear(geo, pair->bits[ferry_pair_other(pair)]);
	pair->retired = false;
	return 0;
}

/**
 * ferry_pair_take_back() - give the bits of a retired map to the live one
 * @pair: the pair
 * @geo: shape of its maps
 *
 * For a reader that went away without saying what it copied: no bit is lost.
 * May sleep. Does nothing when no map is retired.
 */
void ferry_pair_take_back(struct ferry_pair *pair, const struct ferry_geometry *geo)
{
	if (!pair->retired)
		return;
	/* These bits were counted as newly when they were first set. */
	pair->taken -= ferry_map_merge(geo, pair->bits[pair->live],
				       pair->bits[ferry_pair_other(pair)]);
	ferry_pair_release(pair, geo);
}
