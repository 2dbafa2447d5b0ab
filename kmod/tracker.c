// SPDX-License-Identifier: GPL-2.0
/*
 * Registry, lifetime and control operations of trackers.
 *
 * Locks, outermost first:
 *
 *   dm's suspend_lock     held by dm around .presuspend … .resume
 *   mm->mmap_lock         held around mmap of a retired map
 *   registry_mutex        the list of trackers; the last reference is put under it
 *   tracker->ctl          every change of state, flags, maps; may sleep
 *   tracker->hold_lock    irqsave; the list of held bios, and tracker->state
 *
 * - dm's suspend_lock and mmap_lock are outside ours: nothing here may suspend a
 *   device or copy to or from user space with registry_mutex or ctl held.
 * - tracker->state changes under ctl and hold_lock together; either one allows to
 *   read it.
 * - .map and .end_io take no lock on the fast path and hold_lock on the slow one.
 *   They never put a reference. .end_io may run in hard interrupts.
 * - ctl is not held while a freeze waits for writes in flight, so a suspend, a
 *   thaw or the watchdog never queue behind a slow disk.
 * - While writes are held, memory reclaim may wait for them, and they wait for ctl.
 *   So nothing under ctl allocates with I/O: events take GFP_NOIO, and mmap's page
 *   tables are in a noio scope. Lockdep knows the rule: teach_lockdep().
 *
 * RCU (sched flavour, i.e. sections with preemption off) protects two pointers of
 * the fast path, and each grace period below names what it waits for:
 *
 *   tracker->bits   readers: .end_io (mark_and_leave). Waits: ferry_tracker_swap().
 *   tracker->live   readers: .map (count_in).          Waits: ferry_tracker_freeze().
 */
#define pr_fmt(fmt) "dm-ferry: " fmt

#include <linux/device-mapper.h>
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "compat/compat.h"
#include "tracker.h"

static DEFINE_MUTEX(registry_mutex);
static LIST_HEAD(registry);			/* registry_mutex */

/* Lets held bios go and ends forgotten freezes; both must work under reclaim. */
static struct workqueue_struct *ferry_wq;

/* ----------------------------------------------------------- small helpers */

static void changed(struct ferry_tracker *trk)
{
	atomic_inc(&trk->changes);
	wake_up_interruptible(&trk->wait);
}

/* The sum of one per-CPU counter, read CPU by CPU. @place: offset in struct ferry_cpu. */
static u64 sum_at(const struct ferry_tracker *trk, size_t place)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu) {
		const char *counters = (const char *)per_cpu_ptr(trk->cpu, cpu);

		sum += READ_ONCE(*(const u64 *)(counters + place));
	}
	return sum;
}

#define ferry_sum(trk, counter) sum_at(trk, offsetof(struct ferry_cpu, counter))

/**
 * ferry_tracker_set_flags() - change stored FERRY_TF_* flags; caller holds ctl
 * @trk: the tracker
 * @set: flags to set
 * @clear: flags to clear
 */
void ferry_tracker_set_flags(struct ferry_tracker *trk, u32 set, u32 clear)
{
	u32 flags = (trk->flags & ~clear) | set;

	lockdep_assert_held(&trk->ctl);
	if (flags == trk->flags)
		return;
	trk->flags = flags;
	changed(trk);
}

static void set_state(struct ferry_tracker *trk, u32 state)
{
	unsigned long irq;

	lockdep_assert_held(&trk->ctl);
	spin_lock_irqsave(&trk->hold_lock, irq);
	/* drain() looks without a lock. */
	WRITE_ONCE(trk->state, state);
	/* Read in count_in(); ferry_tracker_freeze() waits for those readers. */
	WRITE_ONCE(trk->live, state == FERRY_STATE_TRACKING ? trk->cpu : NULL);
	WRITE_ONCE(trk->reads_wait,
		   ferry_gate_verdict(state, FERRY_READ) == FERRY_HOLD);
	spin_unlock_irqrestore(&trk->hold_lock, irq);
	changed(trk);
	queue_work(ferry_wq, &trk->release);
}

/* Maps may be trusted: they saw every write, and see every one from now on. */
static int check_trusted(struct ferry_tracker *trk)
{
	lockdep_assert_held(&trk->ctl);
	if (trk->flags & FERRY_TF_INVALID || !(trk->flags & FERRY_TF_BOUND))
		return -ESTALE;
	return 0;
}

/**
 * ferry_tracker_invalidate() - a write may have been missed; caller holds ctl
 * @trk: the tracker
 */
void ferry_tracker_invalidate(struct ferry_tracker *trk)
{
	if (trk->flags & FERRY_TF_INVALID)
		return;
	ferry_tracker_set_flags(trk, FERRY_TF_INVALID, 0);
	ferry_netlink_event(trk, FERRY_EV_INVALID);
	pr_warn("%s: the dirty map is no longer complete\n", trk->name);
}

/* ---------------------------------------------------- held bios, watchdog */

static void release_work(struct work_struct *work)
{
	struct ferry_tracker *trk = container_of(work, struct ferry_tracker, release);
	struct bio_list todo = BIO_EMPTY_LIST;
	struct blk_plug plug;
	struct bio *bio;

	/* A bio that must go on waiting is put back; this list does not grow. */
	spin_lock_irq(&trk->hold_lock);
	bio_list_merge(&todo, &trk->held);
	bio_list_init(&trk->held);
	/* Looked at without the lock by __ferry_tracker_info(). */
	WRITE_ONCE(trk->nr_held, 0);
	spin_unlock_irq(&trk->hold_lock);

	blk_start_plug(&plug);
	while ((bio = bio_list_pop(&todo)))
		ferry_target_retry(bio);
	blk_finish_plug(&plug);
}

/**
 * ferry_tracker_lose_freeze() - end a freeze that nobody thawed; caller holds ctl
 * @trk: the tracker
 * @event: what to tell the listeners
 */
void ferry_tracker_lose_freeze(struct ferry_tracker *trk, enum ferry_event event)
{
	lockdep_assert_held(&trk->ctl);
	if (trk->state != FERRY_STATE_FROZEN)
		return;
	ferry_tracker_set_flags(trk, FERRY_TF_FREEZE_LOST, 0);
	set_state(trk, FERRY_STATE_TRACKING);
	ferry_netlink_event(trk, event);
}

static void watchdog_work(struct work_struct *work)
{
	struct ferry_tracker *trk = container_of(to_delayed_work(work),
						 struct ferry_tracker, watchdog);

	mutex_lock(&trk->ctl);
	/* A late run of an older freeze's timer must not hit the newer one. */
	if (trk->state == FERRY_STATE_FROZEN && trk->drained &&
	    time_after_eq(jiffies, trk->watchdog_at)) {
		pr_warn("%s: nobody ended the freeze in time, thawing\n", trk->name);
		ferry_tracker_lose_freeze(trk, FERRY_EV_WATCHDOG_THAW);
	}
	mutex_unlock(&trk->ctl);
}

/* ------------------------------------------------------ registry, lifetime */

static void tracker_free(struct ferry_tracker *trk)
{
	vfree(trk->pair.bits[0]);
	vfree(trk->pair.bits[1]);
	free_percpu(trk->cpu);
	kfree(trk);
}

static int tracker_alloc_maps(struct ferry_tracker *trk)
{
	/* A migration is not worth the OOM killer. */
	const gfp_t gfp = COMPAT_GFP_MAPPABLE | __GFP_ZERO | __GFP_NOWARN |
			  __GFP_RETRY_MAYFAIL;
	unsigned long bytes = trk->geo.leaf_bytes + trk->geo.sum_bytes;
	int i;

	trk->cpu = alloc_percpu_gfp(struct ferry_cpu, GFP_KERNEL_ACCOUNT);
	if (!trk->cpu)
		return -ENOMEM;
	for (i = 0; i < 2; i++) {
		trk->pair.bits[i] = __vmalloc(bytes, gfp);
		if (!trk->pair.bits[i])
			return -ENOMEM;
	}
	return 0;
}

static int registry_add(struct ferry_tracker *trk)
{
	struct ferry_tracker *other;
	int err = 0;

	mutex_lock(&registry_mutex);
	list_for_each_entry(other, &registry, node) {
		if (uuid_equal(&other->uuid, &trk->uuid)) {
			err = -EEXIST;
			break;
		}
	}
	if (!err)
		list_add_tail(&trk->node, &registry);
	mutex_unlock(&registry_mutex);
	return err;
}

/*
 * Reclaim may wait for a write that a freeze holds, and what ends the freeze takes
 * ctl. No lock stands for that wait, so lockdep is told: as if ctl were taken inside
 * reclaim. From here on it reports an allocation under ctl that may enter reclaim
 * with __GFP_FS, at once and without any shortage of memory.
 */
static void teach_lockdep(struct ferry_tracker *trk)
{
	fs_reclaim_acquire(GFP_KERNEL);
	might_lock(&trk->ctl);
	fs_reclaim_release(GFP_KERNEL);
}

/**
 * ferry_tracker_create() - make a tracker and enter it into the registry
 * @arg: checked arguments of FERRY_IOC_CREATE, block_shift not 0
 *
 * Return: a new reference, or ERR_PTR: -EINVAL for a device with too many blocks,
 * -ENOMEM, -EEXIST.
 */
struct ferry_tracker *ferry_tracker_create(const struct ferry_create *arg)
{
	unsigned int sector_shift = arg->block_shift - SECTOR_SHIFT;
	u64 nr_blocks = ((arg->sectors - 1) >> sector_shift) + 1;
	struct ferry_tracker *trk;
	int err;

	if (nr_blocks > FERRY_MAX_BLOCKS)
		return ERR_PTR(-EINVAL);
	trk = kzalloc(sizeof(*trk), GFP_KERNEL_ACCOUNT);
	if (!trk)
		return ERR_PTR(-ENOMEM);
	kref_init(&trk->ref);
	import_uuid(&trk->uuid, arg->uuid);
	strscpy(trk->name, arg->name, sizeof(trk->name));
	trk->sectors = arg->sectors;
	trk->block_shift = arg->block_shift;
	trk->sector_shift = sector_shift;
	ferry_geometry_init(&trk->geo, nr_blocks);
	mutex_init(&trk->ctl);
	spin_lock_init(&trk->hold_lock);
	bio_list_init(&trk->held);
	init_waitqueue_head(&trk->wait);
	INIT_WORK(&trk->release, release_work);
	INIT_DELAYED_WORK(&trk->watchdog, watchdog_work);
	teach_lockdep(trk);

	err = tracker_alloc_maps(trk);
	if (err)
		goto out_free;
	trk->state = FERRY_STATE_RECEIVING;
	if (arg->mode == FERRY_MODE_TRACK) {
		trk->state = FERRY_STATE_TRACKING;
		trk->live = trk->cpu;
	}
	RCU_INIT_POINTER(trk->bits, trk->pair.bits[0]);

	err = registry_add(trk);
	if (err)
		goto out_free;
	return trk;

out_free:
	tracker_free(trk);
	return ERR_PTR(err);
}

/**
 * ferry_tracker_find() - look a tracker up
 * @uuid: its uuid
 *
 * Return: a new reference, or NULL.
 */
struct ferry_tracker *ferry_tracker_find(const uuid_t *uuid)
{
	struct ferry_tracker *trk;

	mutex_lock(&registry_mutex);
	list_for_each_entry(trk, &registry, node) {
		if (uuid_equal(&trk->uuid, uuid)) {
			kref_get(&trk->ref);
			mutex_unlock(&registry_mutex);
			return trk;
		}
	}
	mutex_unlock(&registry_mutex);
	return NULL;
}

/* Called by kref_put_mutex() with registry_mutex held; lets go of it. */
static void tracker_unlist(struct kref *ref)
{
	struct ferry_tracker *trk = container_of(ref, struct ferry_tracker, ref);

	list_del(&trk->node);
	mutex_unlock(&registry_mutex);
	cancel_delayed_work_sync(&trk->watchdog);
	cancel_work_sync(&trk->release);
	tracker_free(trk);
}

/**
 * ferry_tracker_put() - give a reference back
 * @trk: the tracker; the last reference frees it
 *
 * May sleep. No bio is held at the last one: each keeps its target, and that a
 * reference.
 */
void ferry_tracker_put(struct ferry_tracker *trk)
{
	kref_put_mutex(&trk->ref, tracker_unlist, &registry_mutex);
}

/**
 * ferry_tracker_walk() - visit every tracker, oldest first
 * @visit: called with the registry locked; not 0 ends the walk
 * @data: for @visit
 *
 * Return: what the last visit returned.
 */
int ferry_tracker_walk(int (*visit)(struct ferry_tracker *trk, void *data), void *data)
{
	struct ferry_tracker *trk;
	int ret = 0;

	mutex_lock(&registry_mutex);
	list_for_each_entry(trk, &registry, node) {
		ret = visit(trk, data);
		if (ret)
			break;
	}
	mutex_unlock(&registry_mutex);
	return ret;
}

/**
 * ferry_tracker_kick() - offer held bios to the present state again
 * @trk: the tracker
 */
void ferry_tracker_kick(struct ferry_tracker *trk)
{
	queue_work(ferry_wq, &trk->release);
}

/* ------------------------------------------------------------------ owner */

/**
 * ferry_tracker_own() - become the owner
 * @trk: the tracker
 *
 * Return: 0, or -EBUSY when it has one.
 */
int ferry_tracker_own(struct ferry_tracker *trk)
{
	int err = 0;

	mutex_lock(&trk->ctl);
	if (trk->flags & FERRY_TF_OWNED)
		err = -EBUSY;
	else
		ferry_tracker_set_flags(trk, FERRY_TF_OWNED, 0);
	mutex_unlock(&trk->ctl);
	return err;
}

/**
 * ferry_tracker_disown() - the owner goes away
 * @trk: the tracker
 *
 * Ends a freeze. A map that was retired and not released goes back into the live
 * one: nobody knows what of it was copied. Fence and gate stay.
 */
void ferry_tracker_disown(struct ferry_tracker *trk)
{
	mutex_lock(&trk->ctl);
	ferry_tracker_set_flags(trk, 0, FERRY_TF_OWNED);
	ferry_tracker_lose_freeze(trk, FERRY_EV_FREEZE_LOST);
	ferry_pair_take_back(&trk->pair, &trk->geo);
	mutex_unlock(&trk->ctl);
}

/* ---------------------------------------------------------------- control */

/**
 * ferry_tracker_swap() - retire the live map
 * @trk: the tracker
 * @arg: flags in, the rest out
 *
 * Writes go on. A write that completes before the exchange is in the retired map;
 * one that completes after it is in the new one.
 *
 * Return: 0; -ESTALE: invalid or not bound; -EBUSY: an older map is not released.
 */
int ferry_tracker_swap(struct ferry_tracker *trk, struct ferry_swap *arg)
{
	unsigned int old;
	int err;

	mutex_lock(&trk->ctl);
	err = check_trusted(trk);
	if (!err)
		err = ferry_pair_retire(&trk->pair);
	if (err)
		goto out;

	/* Pairs with rcu_dereference_sched() in ferry_end_io(). */
	rcu_assign_pointer(trk->bits, trk->pair.bits[trk->pair.live]);
	/* Waits for every completion that still marks in the retired map. */
	if (arg->flags & FERRY_SWAP_NORMAL_GP)
		synchronize_rcu();
	else
		synchronize_rcu_expedited();

	old = ferry_pair_other(&trk->pair);
	arg->dirty = ferry_map_count(&trk->geo, trk->pair.bits[old]);
	ferry_pair_account(&trk->pair, arg->dirty);
	arg->map_off = FERRY_MAP_OFF(old);
	arg->map_len = trk->geo.leaf_bytes;
	arg->sum_off = FERRY_SUM_OFF(old);
	arg->sum_len = trk->geo.sum_bytes;
out:
	mutex_unlock(&trk->ctl);
	return err;
}

/**
 * ferry_tracker_release() - the retired map was read, clear it for reuse
 * @trk: the tracker
 *
 * Return: 0, or -EINVAL when no map is retired.
 */
int ferry_tracker_release(struct ferry_tracker *trk)
{
	int err;

	mutex_lock(&trk->ctl);
	err = ferry_pair_release(&trk->pair, &trk->geo);
	mutex_unlock(&trk->ctl);
	return err;
}

/* Takes ctl for a short look: does this freeze still exist? */
static bool still_frozen(struct ferry_tracker *trk, u64 id)
{
	lockdep_assert_held(&trk->ctl);
	return trk->state == FERRY_STATE_FROZEN && trk->freezes == id;
}

/*
 * Waits without ctl until no write is in flight. After the grace period nobody
 * counts in any more, so each CPU's counter only falls, a sum that is read CPU by
 * CPU is never too small, and 0 means 0. That the marks of those writes are
 * visible is not this function's business: the swap's grace period sees to it.
 */
static int drain(struct ferry_tracker *trk, u64 id, unsigned long deadline)
{
	unsigned int pause_us = 20;

	while (ferry_sum(trk, inflight)) {
		if (READ_ONCE(trk->freezes) != id ||
		    READ_ONCE(trk->state) != FERRY_STATE_FROZEN)
			return -ECANCELED;
		if (time_after(jiffies, deadline))
			return -ETIMEDOUT;
		if (fatal_signal_pending(current))
			return -EINTR;
		usleep_range(pause_us, 2 * pause_us);
		pause_us = min(2 * pause_us, 1000U);
	}
	return 0;
}

static int freeze_begin(struct ferry_tracker *trk, u64 *id)
{
	int ret;

	mutex_lock(&trk->ctl);
	ret = check_trusted(trk);
	/* A table that is being suspended would wait for what we hold. */
	if (!ret && trk->suspending)
		ret = -EBUSY;
	if (!ret)
		ret = ferry_gate_next(trk->state, FERRY_ACT_FREEZE);
	if (ret > 0) {
		*id = trk->freezes + 1;
		/* drain() of an older freeze looks without a lock. */
		WRITE_ONCE(trk->freezes, *id);
		trk->drained = false;
		ferry_tracker_set_flags(trk, 0, FERRY_TF_FREEZE_LOST);
		set_state(trk, ret);
		ret = 0;
	}
	mutex_unlock(&trk->ctl);
	return ret;
}

/**
 * ferry_tracker_freeze() - hold new writes and wait for those in flight
 * @trk: the tracker
 * @timeout_ms: how long to wait
 * @watchdog_ms: thaw by itself that long after success
 *
 * Return: 0 = frozen, nothing in flight. -ESTALE: invalid or not bound. -EBUSY:
 * wrong state, or a suspend is on its way. -ETIMEDOUT, -EINTR (killed): thawed
 * again. -ECANCELED: somebody else ended the freeze meanwhile.
 */
int ferry_tracker_freeze(struct ferry_tracker *trk, u32 timeout_ms, u32 watchdog_ms)
{
	unsigned long deadline = jiffies + msecs_to_jiffies(timeout_ms);
	u64 id;
	int err;

	err = freeze_begin(trk, &id);
	if (err)
		return err;
	/* Waits for every count_in() that saw trk->live before set_state(). */
	synchronize_rcu_expedited();
	err = drain(trk, id, deadline);

	mutex_lock(&trk->ctl);
	if (!still_frozen(trk, id)) {
		err = -ECANCELED;
	} else if (err) {
		set_state(trk, FERRY_STATE_TRACKING);
	} else {
		unsigned long watchdog = msecs_to_jiffies(watchdog_ms);

		trk->drained = true;
		trk->watchdog_at = jiffies + watchdog;
		mod_delayed_work(ferry_wq, &trk->watchdog, watchdog);
		ferry_netlink_event(trk, FERRY_EV_STATE);
	}
	mutex_unlock(&trk->ctl);
	return err;
}

/**
 * ferry_tracker_act() - any change of state but freeze
 * @trk: the tracker
 * @action: what to do
 *
 * Return: 0, or -EBUSY when that is not legal now.
 */
int ferry_tracker_act(struct ferry_tracker *trk, enum ferry_action action)
{
	int ret;

	mutex_lock(&trk->ctl);
	ret = ferry_gate_next(trk->state, action);
	/*
	 * A freeze that still waits for writes in flight is not a basis to fence.
	 * Behind a gate no write was ever let through.
	 */
	if (action == FERRY_ACT_FENCE && trk->state == FERRY_STATE_FROZEN && !trk->drained)
		ret = -EBUSY;
	if (ret > 0) {
		cancel_delayed_work(&trk->watchdog);
		set_state(trk, ret);
		ferry_netlink_event(trk, FERRY_EV_STATE);
		ret = 0;
	}
	mutex_unlock(&trk->ctl);
	return ret;
}

/**
 * ferry_tracker_disarm() - the table is about to go, on purpose
 * @trk: the tracker
 */
void ferry_tracker_disarm(struct ferry_tracker *trk)
{
	mutex_lock(&trk->ctl);
	ferry_tracker_set_flags(trk, FERRY_TF_DISARMED, 0);
	mutex_unlock(&trk->ctl);
}

/**
 * ferry_tracker_mark() - mark blocks by hand
 * @trk: the tracker
 * @first: first block
 * @nr: number of blocks
 *
 * Return: 0, or -EINVAL for a range outside of the device.
 */
int ferry_tracker_mark(struct ferry_tracker *trk, u64 first, u64 nr)
{
	/* A page of the map at a time, to stay preemptible on huge ranges. */
	const u64 step = FERRY_PAGE_BITS;

	if (!nr || first >= trk->geo.nr_blocks || nr > trk->geo.nr_blocks - first)
		return -EINVAL;
	mutex_lock(&trk->ctl);
	while (nr) {
		u64 part = min(nr, step);
		u64 newly = ferry_map_mark(&trk->geo, trk->pair.bits[trk->pair.live],
					   first, part);

		this_cpu_add(trk->cpu->newly, newly);
		first += part;
		nr -= part;
		cond_resched();
	}
	mutex_unlock(&trk->ctl);
	return 0;
}

/**
 * __ferry_tracker_info() - describe a tracker; caller holds ctl
 * @trk: the tracker
 * @info: filled in, except its size
 */
void __ferry_tracker_info(struct ferry_tracker *trk, struct ferry_info *info)
{
	lockdep_assert_held(&trk->ctl);
	info->state = trk->state;
	info->flags = trk->flags;
	info->block_shift = trk->block_shift;
	export_uuid(info->uuid, &trk->uuid);
	strscpy_pad(info->name, trk->name, sizeof(info->name));
	info->sectors = trk->sectors;
	info->nr_blocks = trk->geo.nr_blocks;
	info->swaps = trk->pair.swaps;
	info->newly = ferry_sum(trk, newly);
	info->dirty = info->newly - trk->pair.taken;
	info->held = READ_ONCE(trk->nr_held);
	info->inflight = ferry_sum(trk, inflight);
	info->fenced_writes = ferry_sum(trk, refused);
}

/**
 * ferry_tracker_info() - describe a tracker
 * @trk: the tracker
 * @info: filled in, except its size
 */
void ferry_tracker_info(struct ferry_tracker *trk, struct ferry_info *info)
{
	mutex_lock(&trk->ctl);
	__ferry_tracker_info(trk, info);
	mutex_unlock(&trk->ctl);
}

/* ----------------------------------------------------------------- module */

/**
 * ferry_tracker_init() - at module load
 *
 * Return: 0 or -ENOMEM.
 */
int ferry_tracker_init(void)
{
	ferry_wq = alloc_workqueue("dm-ferry", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	return ferry_wq ? 0 : -ENOMEM;
}

/**
 * ferry_tracker_exit() - at module unload; no tracker is left
 */
void ferry_tracker_exit(void)
{
	WARN_ON(!list_empty(&registry));
	destroy_workqueue(ferry_wq);
}
