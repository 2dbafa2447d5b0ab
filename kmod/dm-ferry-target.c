// SPDX-License-Identifier: GPL-2.0
/*
 * The device-mapper target "ferry": <device> <offset> <tracker uuid>.
 *
 * A remap like dm-linear's, and around it the tracker's data path. A write to a
 * single block is counted in, carries its block in bi_private of dm's clone, and
 * is marked and counted out when it completes, before the guest learns of it.
 * Everything that is not such a write in an open tracker goes through slow_map().
 */
#define DM_MSG_PREFIX "ferry"

#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/percpu.h>
#include <linux/slab.h>

#include "compat/compat.h"
#include "tracker.h"

/* The stash lives in a pointer. */
static_assert(sizeof(unsigned long) == sizeof(u64), "dm-ferry needs 64 bits");

#ifdef FERRY_MARK_AT_SUBMIT
#define MARK_AT_COMPLETION	0	/* loses writes: the race test's negative control */
#else
#define MARK_AT_COMPLETION	1
#endif

/* -------------------------------------------------------------- data path */

static inline int remap(const struct ferry_target *ft, struct bio *bio)
{
	/* First, because bio_set_dev() ends with a call: nothing is to be kept across it. */
	bio->bi_iter.bi_sector += ft->offset;
	bio_set_dev(bio, ft->bdev);
	return DM_MAPIO_REMAPPED;
}

static void mark(struct ferry_tracker *trk, unsigned long *bits, u64 stash)
{
	u64 newly = ferry_map_mark(&trk->geo, bits, ferry_stash_first(stash),
				   ferry_stash_nr(stash));

	this_cpu_add(trk->cpu->newly, newly);
}

static noinline void mark_at_submit(struct ferry_tracker *trk, u64 stash)
{
	rcu_read_lock_sched();
	mark(trk, rcu_dereference_sched(trk->bits), stash);
	rcu_read_unlock_sched();
}

/* A write that was counted in: from here on .end_io will count it out. */
static inline int pass_write(const struct ferry_target *ft, struct bio *bio, u64 stash)
{
	if (!MARK_AT_COMPLETION)
		mark_at_submit(ft->trk, stash);
	bio->bi_private = (void *)(unsigned long)stash;
	return remap(ft, bio);
}

/*
 * Counts a write in, unless something unusual is on. ferry_tracker_freeze() waits
 * for this section after it has set trk->live to NULL: then a write was either
 * counted or sees the NULL.
 */
static inline bool count_in(struct ferry_tracker *trk)
{
	struct ferry_cpu __percpu *live;

	rcu_read_lock_sched();
	live = READ_ONCE(trk->live);
	if (live)
		this_cpu_inc(live->inflight);
	rcu_read_unlock_sched();
	return live;
}

static enum ferry_kind kind_of(const struct bio *bio)
{
	if (!op_is_write(bio_op(bio)))
		return FERRY_READ;
	return bio_sectors(bio) ? FERRY_WRITE : FERRY_FLUSH;
}

/* All blocks the bio touches, wholly or in part; discards and zeroes as well. */
static u64 stash_of(const struct ferry_tracker *trk, const struct bio *bio)
{
	u64 first = bio->bi_iter.bi_sector >> trk->sector_shift;
	u64 last = (bio_end_sector((struct bio *)bio) - 1) >> trk->sector_shift;

	return ferry_stash(first, last - first + 1);
}

enum admission {
	ADMITTED,		/* a write is counted in */
	HELD,			/* the bio is not ours any more: do not touch it */
	REFUSED,
	WOULD_BLOCK,
	SEND_BACK,		/* dm keeps it until the noflush suspend is over */
};

/*
 * Asks the state machine, under the lock that changes of state take. The test for
 * a noflush suspend under the same lock closes the race with presuspend: dm says
 * "suspending" first and presuspend looks through the held bios after that, so a
 * bio either sees it here or is seen there.
 */
static enum admission admit(const struct ferry_target *ft, struct bio *bio,
			    enum ferry_kind kind)
{
	struct ferry_tracker *trk = ft->trk;
	enum admission ret = ADMITTED;
	unsigned long irq;

	spin_lock_irqsave(&trk->hold_lock, irq);
	switch (ferry_gate_verdict(trk->state, kind)) {
	case FERRY_PASS:
		if (kind == FERRY_WRITE)
			this_cpu_inc(trk->cpu->inflight);
		break;
	case FERRY_REFUSE:
		this_cpu_inc(trk->cpu->refused);
		ret = REFUSED;
		break;
	case FERRY_HOLD:
		if (bio->bi_opf & REQ_NOWAIT) {
			ret = WOULD_BLOCK;
		} else if (dm_noflush_suspending(ft->ti)) {
			ret = SEND_BACK;
		} else {
			/* Nobody polls a device for a bio that is not there. */
			bio_clear_polled(bio);
			bio->bi_private = (void *)ft;
			bio_list_add(&trk->held, bio);
			WRITE_ONCE(trk->nr_held, trk->nr_held + 1);
			ret = HELD;
		}
		break;
	}
	spin_unlock_irqrestore(&trk->hold_lock, irq);
	return ret;
}

static noinline int slow_map(const struct ferry_target *ft, struct bio *bio)
{
	struct ferry_tracker *trk = ft->trk;
	enum ferry_kind kind = kind_of(bio);

	if (kind == FERRY_WRITE ? count_in(trk) : !!READ_ONCE(trk->live))
		goto pass;
	switch (admit(ft, bio, kind)) {
	case ADMITTED:
		break;
	case HELD:
		return DM_MAPIO_SUBMITTED;
	case REFUSED:
		return DM_MAPIO_KILL;
	case WOULD_BLOCK:
		bio_wouldblock_error(bio);
		return DM_MAPIO_SUBMITTED;
	case SEND_BACK:
		return DM_MAPIO_REQUEUE;
	}
pass:
	if (kind == FERRY_WRITE)
		return pass_write(ft, bio, stash_of(trk, bio));
	return remap(ft, bio);
}

/**
 * ferry_target_retry() - try a held bio again
 * @bio: taken from the list of held bios
 *
 * From the release worker: process context, no locks, no bio of ours on the
 * stack. Submits, fails, sends back or holds again.
 */
void ferry_target_retry(struct bio *bio)
{
	const struct ferry_target *ft = bio->bi_private;
	enum ferry_kind kind = kind_of(bio);

	bio->bi_private = NULL;
	switch (admit(ft, bio, kind)) {
	case ADMITTED:
		if (kind == FERRY_WRITE)
			pass_write(ft, bio, stash_of(ft->trk, bio));
		else
			remap(ft, bio);
		dm_submit_bio_remap(bio, NULL);
		break;
	case HELD:
		break;
	case SEND_BACK:
		bio->bi_status = BLK_STS_DM_REQUEUE;
		bio_endio(bio);
		break;
	case REFUSED:
	case WOULD_BLOCK:
		bio_io_error(bio);
		break;
	}
}

static int ferry_map(struct dm_target *ti, struct bio *bio)
{
	const struct ferry_target *ft = ti->private;
	struct ferry_tracker *trk = ft->trk;
	u64 first, last;

	if (!op_is_write(bio_op(bio))) {
		/* One byte, looked at again under the lock: a plain load will do. */
		if (unlikely(data_race(trk->reads_wait)))
			return slow_map(ft, bio);
		return remap(ft, bio);
	}
	/* Both tests of the operation in place: a register of its own is one more to load. */
	barrier();
	if (bio_op(bio) != REQ_OP_WRITE)
		return slow_map(ft, bio);
	first = bio->bi_iter.bi_sector;
	/* An empty flush wraps around to 2^23 sectors, which are never in one block. */
	last = first + ((bio->bi_iter.bi_size - 1) >> SECTOR_SHIFT);
	first >>= trk->sector_shift;
	if (last >> trk->sector_shift != first || !count_in(trk))
		return slow_map(ft, bio);
	return pass_write(ft, bio, ferry_stash_one(first));
}

/* Completion of a write to more than one block. */
static noinline int end_range(struct ferry_tracker *trk, u64 stash)
{
	rcu_read_lock_sched();
	if (MARK_AT_COMPLETION)
		mark(trk, rcu_dereference_sched(trk->bits), stash);
	this_cpu_dec(trk->cpu->inflight);
	rcu_read_unlock_sched();
	return DM_ENDIO_DONE;
}

/* The rare end of a completion: the first write to this block in this map. */
static noinline int mark_and_leave(struct ferry_tracker *trk, unsigned long *bits, u64 block)
	__releases(RCU_SCHED)
{
	if (ferry_map_mark_one(&trk->geo, bits, block))
		this_cpu_inc(trk->cpu->newly);
	this_cpu_dec(trk->cpu->inflight);
	rcu_read_unlock_sched();
	return DM_ENDIO_DONE;
}

/*
 * Any status marks: a failed write may have torn the block. The section covers
 * the mark and the count, and both ferry_tracker_swap() and the last swap after
 * a freeze wait for it.
 */
static int ferry_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	u64 stash = (unsigned long)bio->bi_private;
	const struct ferry_target *ft;
	struct ferry_tracker *trk;
	unsigned long *bits;

	if (!stash)
		return DM_ENDIO_DONE;
	ft = ti->private;
	trk = ft->trk;
	if (unlikely(!ferry_stash_is_one(stash)))
		return end_range(trk, stash);
	rcu_read_lock_sched();
	/* Pairs with rcu_assign_pointer() in ferry_tracker_swap(). */
	bits = rcu_dereference_sched(trk->bits);
	if (MARK_AT_COMPLETION && !ferry_map_test(bits, ferry_stash_first(stash)))
		return mark_and_leave(trk, bits, ferry_stash_first(stash));
	this_cpu_dec(trk->cpu->inflight);
	rcu_read_unlock_sched();
	return DM_ENDIO_DONE;
}

/* ----------------------------------------------------------- construction */

static int parse_tracker(struct dm_target *ti, struct ferry_target *ft, const char *arg)
{
	uuid_t uuid;

	if (uuid_parse(arg, &uuid)) {
		ti->error = "Not a uuid";
		return -EINVAL;
	}
	ft->trk = ferry_tracker_find(&uuid);
	if (!ft->trk) {
		ti->error = "No such tracker";
		return -ENOENT;
	}
	if (ti->begin > ft->trk->sectors || ti->len > ft->trk->sectors - ti->begin) {
		ti->error = "Table is larger than the tracker's device";
		ferry_tracker_put(ft->trk);
		return -EINVAL;
	}
	return 0;
}

static int open_device(struct dm_target *ti, struct ferry_target *ft, const char *path)
{
	int err = dm_get_device(ti, path, dm_table_get_mode(ti->table), &ft->dev);

	if (err) {
		ti->error = "Device lookup failed";
		return err;
	}
	/* A zone append learns its sector from the disk. Nobody puts guests there. */
	if (bdev_is_zoned(ft->dev->bdev)) {
		ti->error = "Zoned devices are not supported";
		dm_put_device(ti, ft->dev);
		return -EOPNOTSUPP;
	}
	ft->bdev = ft->dev->bdev;
	return 0;
}

static void set_up(struct dm_target *ti, struct ferry_target *ft)
{
	ti->private = ft;
	ft->ti = ti;
	ft->offset = ft->start - ti->begin;
	ti->num_flush_bios = 1;
	/* These change data, so they must come by. */
	ti->num_discard_bios = 1;
	ti->num_secure_erase_bios = 1;
	ti->num_write_zeroes_bios = 1;
	/* Held bios are submitted by dm_submit_bio_remap(). */
	compat_accounts_remapped_io(ti);
	/* Right in every state: an empty flush always passes (core/gate.c). */
	compat_flush_bypasses_map(ti);
}

/* <device> <offset> <tracker uuid> */
static int ferry_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	unsigned long long start;
	struct ferry_target *ft;
	char dummy;
	int err;

	if (argc != 3) {
		ti->error = "Need three arguments: device, offset, tracker uuid";
		return -EINVAL;
	}
	if (sscanf(argv[1], "%llu%c", &start, &dummy) != 1) {
		ti->error = "Offset is not a number";
		return -EINVAL;
	}
	ft = kzalloc(sizeof(*ft), GFP_KERNEL);
	if (!ft) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	ft->start = start;
	err = parse_tracker(ti, ft, argv[2]);
	if (err)
		goto out_free;
	err = open_device(ti, ft, argv[0]);
	if (err)
		goto out_tracker;
	set_up(ti, ft);
	return 0;

out_tracker:
	ferry_tracker_put(ft->trk);
out_free:
	kfree(ft);
	return err;
}

static void ferry_dtr(struct dm_target *ti)
{
	struct ferry_target *ft = ti->private;

	ferry_tracker_dtr(ft);
	dm_put_device(ti, ft->dev);
	ferry_tracker_put(ft->trk);
	kfree(ft);
}

/* ---------------------------------------------------------------- control */

static void ferry_presuspend(struct dm_target *ti)
{
	ferry_tracker_presuspend(ti->private);
}

static void ferry_presuspend_undo(struct dm_target *ti)
{
	ferry_tracker_presuspend_undo(ti->private);
}

static void ferry_postsuspend(struct dm_target *ti)
{
	ferry_tracker_postsuspend(ti->private);
}

static void ferry_resume(struct dm_target *ti)
{
	ferry_tracker_resume(ti->private);
}

static const char *state_name(u32 state)
{
	static const char * const names[] = {
		[FERRY_STATE_TRACKING] = "tracking",
		[FERRY_STATE_FROZEN] = "frozen",
		[FERRY_STATE_FENCED] = "fenced",
		[FERRY_STATE_RECEIVING] = "receiving",
		[FERRY_STATE_GATED] = "gated",
	};

	return names[state];
}

static unsigned int emit_flags(u32 flags, char *result, unsigned int maxlen, unsigned int sz)
{
	static const char * const names[] = {
		"bound", "invalid", "detached", "freeze-lost", "disarmed", "owned",
	};
	const char *sep = "";
	unsigned int i;

	if (!flags)
		DMEMIT("-");
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (flags & BIT(i)) {
			DMEMIT("%s%s", sep, names[i]);
			sep = ",";
		}
	}
	return sz;
}

/*
 * Info:  <state> <swaps> <block bytes> <dirty>/<blocks> <held> <inflight> <flags>
 * Table: <device> <offset> <tracker uuid>
 */
static void ferry_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
			 char *result, unsigned int maxlen)
{
	struct ferry_target *ft = ti->private;
	struct ferry_info info;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		ferry_tracker_info(ft->trk, &info);
		DMEMIT("%s %llu %u %llu/%llu %llu %llu ", state_name(info.state),
		       info.swaps, 1U << info.block_shift, info.dirty, info.nr_blocks,
		       info.held, info.inflight);
		sz = emit_flags(info.flags, result, maxlen, sz);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %llu %pUb", ft->dev->name, (unsigned long long)ft->start,
		       &ft->trk->uuid);
		break;
	default:
		*result = '\0';		/* nothing to measure for IMA */
		break;
	}
}

/* "thaw": ends a freeze by hand. */
static int ferry_message(struct dm_target *ti, unsigned int argc, char **argv,
			 char *result, unsigned int maxlen)
{
	struct ferry_target *ft = ti->private;

	if (argc == 1 && !strcasecmp(argv[0], "thaw"))
		return ferry_tracker_act(ft->trk, FERRY_ACT_THAW);
	DMERR("unknown message, the only one is: thaw");
	return -EINVAL;
}

static int ferry_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct ferry_target *ft = ti->private;

	return fn(ti, ft->dev, ft->start, ti->len, data);
}

/*
 * What is not here is not here on purpose. No .prepare_ioctl: SG_IO would write
 * behind our back; dm answers ENOTTY. No DAX: stores would. No .io_hints and no
 * max_io_len: the limits are those of the device below. No .report_zones.
 */
static struct target_type ferry_target_type = {
	.name = "ferry",
	.version = { FERRY_ABI_MAJOR, FERRY_ABI_MINOR, 0 },
	.features = DM_TARGET_NOWAIT | DM_TARGET_PASSES_INTEGRITY | DM_TARGET_PASSES_CRYPTO,
	.module = THIS_MODULE,
	.ctr = ferry_ctr,
	.dtr = ferry_dtr,
	.map = ferry_map,
	.end_io = ferry_end_io,
	.presuspend = ferry_presuspend,
	.presuspend_undo = ferry_presuspend_undo,
	.postsuspend = ferry_postsuspend,
	.resume = ferry_resume,
	.status = ferry_status,
	.message = ferry_message,
	.iterate_devices = ferry_iterate_devices,
};

/**
 * ferry_target_init() - at module load
 *
 * Return: 0 or the error of device-mapper.
 */
int ferry_target_init(void)
{
	return dm_register_target(&ferry_target_type);
}

/**
 * ferry_target_exit() - at module unload
 */
void ferry_target_exit(void)
{
	dm_unregister_target(&ferry_target_type);
}
