/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A tracker: the maps, the state and the waiting bios of one block device. It
 * lives in a registry by uuid; file descriptors own or watch it, device-mapper
 * targets borrow it. Locking rules: tracker.c.
 */
#ifndef FERRY_TRACKER_H
#define FERRY_TRACKER_H

#include <linux/bio.h>
#include <linux/cache.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/uuid.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "core/gate.h"
#include "core/map.h"

struct dm_target;
struct dm_dev;

/**
 * struct ferry_cpu - counters of one CPU
 * @inflight: writes counted in here minus writes counted out here; only the sum
 *	over all CPUs has a meaning
 * @newly: blocks newly marked here
 * @refused: writes refused by the fence here
 */
struct ferry_cpu {
	u64 inflight;
	u64 newly;
	u64 refused;
};

struct ferry_tracker {
	/*
	 * What the fast path reads: one cache line, written only by control
	 * operations under @ctl.
	 *
	 * @bits: the live map. @live: equals @cpu while writes pass freely, NULL
	 * while anything else is on. @sector_shift: log2 of sectors per block.
	 * @reads_wait: GATED.
	 */
	unsigned long __rcu *bits ____cacheline_aligned;
	struct ferry_cpu __percpu *live;
	struct ferry_cpu __percpu *cpu;
	u8 sector_shift;
	bool reads_wait;

	/* Constant after creation. */
	struct ferry_geometry geo ____cacheline_aligned;
	uuid_t uuid;
	char name[FERRY_NAME_LEN];
	u64 sectors;
	u32 block_shift;
	struct kref ref;
	struct list_head node;		/* registry_mutex */

	/* ctl: every change of state; and everything down to the next blank line. */
	struct mutex ctl;
	struct ferry_pair pair;
	u32 flags;			/* FERRY_TF_* that are stored */
	u64 bound_sectors;		/* covered by resumed targets */
	unsigned int suspending;	/* targets between presuspend and postsuspend */
	bool gap;			/* disarmed and taken out: writes may be missed */
	bool drained;			/* FROZEN, and no write was in flight */
	u64 freezes;			/* tells one freeze from the next */
	unsigned long watchdog_at;	/* jiffies; valid while FROZEN and drained */
	struct delayed_work watchdog;

	/* Changed under ctl and hold_lock, so either is enough to read. */
	u32 state;

	spinlock_t hold_lock;		/* irqsave; the held bios */
	struct bio_list held;		/* hold_lock */
	u64 nr_held;			/* hold_lock */
	struct work_struct release;	/* lets held bios go as far as the state allows */

	wait_queue_head_t wait;		/* poll */
	atomic_t changes;		/* counts changes of state or flags */
};

/**
 * struct ferry_target - one "ferry" line of a table
 * @trk: the borrowed tracker
 * @bdev: lower device
 * @offset: add it to a sector of the mapped device to get the lower one
 * @ti: back pointer
 * @dev: reference to the lower device
 * @start: first sector on the lower device, as in the table
 * @bound: between resume and postsuspend
 * @was_resumed: has ever carried I/O
 * @suspending: between presuspend and postsuspend
 */
struct ferry_target {
	struct ferry_tracker *trk;
	struct block_device *bdev;
	sector_t offset;

	struct dm_target *ti;
	struct dm_dev *dev;
	sector_t start;
	/* trk->ctl */
	bool bound;
	bool was_resumed;
	bool suspending;
};

/* Offsets for mmap: far apart, none is 0, each area has its own. */
#define FERRY_MAP_OFF(i)	((u64)((i) + 1) << 44)
#define FERRY_SUM_OFF(i)	(FERRY_MAP_OFF(i) + (1ULL << 43))

/* Registry and lifetime */
struct ferry_tracker *ferry_tracker_create(const struct ferry_create *arg);
struct ferry_tracker *ferry_tracker_find(const uuid_t *uuid);
void ferry_tracker_put(struct ferry_tracker *trk);
int ferry_tracker_walk(int (*visit)(struct ferry_tracker *trk, void *data), void *data);

/* Owner */
int ferry_tracker_own(struct ferry_tracker *trk);
void ferry_tracker_disown(struct ferry_tracker *trk);

/* Control */
int ferry_tracker_swap(struct ferry_tracker *trk, struct ferry_swap *arg);
int ferry_tracker_release(struct ferry_tracker *trk);
int ferry_tracker_freeze(struct ferry_tracker *trk, u32 timeout_ms, u32 watchdog_ms);
int ferry_tracker_act(struct ferry_tracker *trk, enum ferry_action action);
void ferry_tracker_disarm(struct ferry_tracker *trk);
int ferry_tracker_mark(struct ferry_tracker *trk, u64 first, u64 nr);
void ferry_tracker_info(struct ferry_tracker *trk, struct ferry_info *info);
void __ferry_tracker_info(struct ferry_tracker *trk, struct ferry_info *info);

/* For bind.c, with ctl held */
void ferry_tracker_set_flags(struct ferry_tracker *trk, u32 set, u32 clear);
void ferry_tracker_lose_freeze(struct ferry_tracker *trk, enum ferry_event event);
void ferry_tracker_invalidate(struct ferry_tracker *trk);
void ferry_tracker_kick(struct ferry_tracker *trk);

/* Target (bind.c) */
void ferry_tracker_presuspend(struct ferry_target *ft);
void ferry_tracker_presuspend_undo(struct ferry_target *ft);
void ferry_tracker_postsuspend(struct ferry_target *ft);
void ferry_tracker_resume(struct ferry_target *ft);
void ferry_tracker_dtr(struct ferry_target *ft);

/* dm-ferry-target.c: tries a held bio again; may hold it again */
void ferry_target_retry(struct bio *bio);
int ferry_target_init(void);
void ferry_target_exit(void);

int ferry_tracker_init(void);
void ferry_tracker_exit(void);

/* chardev.c */
int ferry_chardev_init(void);
void ferry_chardev_exit(void);

/* netlink.c */
void ferry_netlink_event(struct ferry_tracker *trk, enum ferry_event event);
int ferry_netlink_init(void);
void ferry_netlink_exit(void);

#endif /* FERRY_TRACKER_H */
