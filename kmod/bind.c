// SPDX-License-Identifier: GPL-2.0
/*
 * How tables borrow a tracker: what suspend, resume and destruction of their lines
 * mean for it. A tracker is bound while resumed lines cover its whole device; only
 * then do its maps see every write. Called by dm with its suspend_lock held, which
 * is outside tracker->ctl (locks: tracker.c).
 */
#include <linux/device-mapper.h>

#include "tracker.h"

/**
 * ferry_tracker_presuspend() - a table is about to be suspended
 * @ft: one of its lines
 *
 * dm will wait for every bio. A freeze ends here. What a gate holds is offered to
 * dm for requeueing if this is a noflush suspend (ferry_target_retry()); in a
 * flushing suspend dm waits until the gate opens.
 */
void ferry_tracker_presuspend(struct ferry_target *ft)
{
	struct ferry_tracker *trk = ft->trk;

	mutex_lock(&trk->ctl);
	if (!ft->suspending) {
		ft->suspending = true;
		trk->suspending++;
	}
	ferry_tracker_lose_freeze(trk, FERRY_EV_FREEZE_LOST);
	ferry_tracker_kick(trk);
	mutex_unlock(&trk->ctl);
}

static void suspend_over(struct ferry_target *ft)
{
	lockdep_assert_held(&ft->trk->ctl);
	if (ft->suspending) {
		ft->suspending = false;
		ft->trk->suspending--;
	}
}

static void unbind(struct ferry_target *ft)
{
	struct ferry_tracker *trk = ft->trk;

	lockdep_assert_held(&trk->ctl);
	if (!ft->bound)
		return;
	ft->bound = false;
	trk->bound_sectors -= ft->ti->len;
	if (trk->bound_sectors != trk->sectors)
		ferry_tracker_set_flags(trk, 0, FERRY_TF_BOUND);
}

/**
 * ferry_tracker_presuspend_undo() - the suspend failed, the table stays live
 * @ft: one of its lines
 */
void ferry_tracker_presuspend_undo(struct ferry_target *ft)
{
	mutex_lock(&ft->trk->ctl);
	suspend_over(ft);
	mutex_unlock(&ft->trk->ctl);
}

/**
 * ferry_tracker_postsuspend() - the table carries no I/O any more
 * @ft: one of its lines
 */
void ferry_tracker_postsuspend(struct ferry_target *ft)
{
	mutex_lock(&ft->trk->ctl);
	suspend_over(ft);
	unbind(ft);
	mutex_unlock(&ft->trk->ctl);
}

/**
 * ferry_tracker_resume() - the table is about to carry I/O
 * @ft: one of its lines
 */
void ferry_tracker_resume(struct ferry_target *ft)
{
	struct ferry_tracker *trk = ft->trk;

	mutex_lock(&trk->ctl);
	ft->was_resumed = true;
	ferry_tracker_set_flags(trk, 0, FERRY_TF_DISARMED);
	if (trk->gap) {
		trk->gap = false;
		ferry_tracker_invalidate(trk);
	}
	if (!ft->bound) {
		ft->bound = true;
		trk->bound_sectors += ft->ti->len;
	}
	if (trk->bound_sectors == trk->sectors) {
		ferry_tracker_set_flags(trk, FERRY_TF_BOUND, 0);
		ferry_netlink_event(trk, FERRY_EV_BOUND);
	} else {
		ferry_tracker_set_flags(trk, 0, FERRY_TF_BOUND);
	}
	mutex_unlock(&trk->ctl);
}

/**
 * ferry_tracker_dtr() - a line of a table is destroyed
 * @ft: the line
 *
 * dm destroys a replaced table after it resumed the new one. So a tracker that is
 * not bound again by now has lost its table: on purpose after a disarm, behind
 * our back otherwise.
 */
void ferry_tracker_dtr(struct ferry_target *ft)
{
	struct ferry_tracker *trk = ft->trk;

	mutex_lock(&trk->ctl);
	suspend_over(ft);
	unbind(ft);
	if (!ft->was_resumed || trk->flags & FERRY_TF_BOUND)
		goto out;
	if (trk->flags & FERRY_TF_DISARMED) {
		trk->gap = true;
	} else if (!(trk->flags & FERRY_TF_DETACHED)) {
		ferry_tracker_set_flags(trk, FERRY_TF_DETACHED, 0);
		ferry_netlink_event(trk, FERRY_EV_DETACHED);
		ferry_tracker_invalidate(trk);
	}
out:
	mutex_unlock(&trk->ctl);
}
