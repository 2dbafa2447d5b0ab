// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/ferry: one open file speaks for at most one tracker, as its owner or as
 * an onlooker. The uapi header describes every call.
 *
 * file->tracker is set once and then constant until release; file->lock only
 * serialises the setting.
 */
#define pr_fmt(fmt) "dm-ferry: " fmt

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "compat/compat.h"
#include "tracker.h"

/* Sizes of the first version: what every caller must at least pass. */
#define VERSION_SIZE_1	24
#define CREATE_SIZE_1	168
#define OPEN_SIZE_1	24
#define INFO_SIZE_1	224
#define SWAP_SIZE_1	48
#define FREEZE_SIZE_1	16
#define RANGE_SIZE_1	24

static_assert(sizeof(struct ferry_version) == VERSION_SIZE_1);
static_assert(sizeof(struct ferry_create) == CREATE_SIZE_1);
static_assert(sizeof(struct ferry_open) == OPEN_SIZE_1);
static_assert(sizeof(struct ferry_info) == INFO_SIZE_1);
static_assert(sizeof(struct ferry_swap) == SWAP_SIZE_1);
static_assert(sizeof(struct ferry_freeze) == FREEZE_SIZE_1);
static_assert(sizeof(struct ferry_range) == RANGE_SIZE_1);

struct ferry_file {
	struct mutex lock;		/* setting tracker */
	struct ferry_tracker *tracker;	/* release/acquire, see file_attach() */
	bool owner;			/* written before tracker */
	atomic_t seen;			/* tracker->changes at the last INFO */
};

/* ------------------------------------------------------------- arguments */

/* Every argument begins with its size, in bytes, as the caller knows it. */
static int get_arg(void *arg, size_t ksize, size_t min_size, void __user *user)
{
	u32 usize;

	if (get_user(usize, (u32 __user *)user))
		return -EFAULT;
	if (usize < min_size)
		return -EINVAL;
	if (usize > PAGE_SIZE)
		return -E2BIG;
	return copy_struct_from_user(arg, ksize, user, usize);
}

/* Gives back as much as the caller has room for; size stays the caller's. */
static int put_arg(const void *arg, size_t ksize, void __user *user)
{
	u32 usize = *(const u32 *)arg;

	return copy_to_user(user, arg, min_t(size_t, usize, ksize)) ? -EFAULT : 0;
}

/* ---------------------------------------------------- file and its tracker */

static struct ferry_tracker *file_tracker(struct ferry_file *file)
{
	/* Pairs with the release in file_attach(). */
	return smp_load_acquire(&file->tracker);
}

/*
 * Gives the file its tracker and takes over the reference, also on error.
 */
static int file_attach(struct ferry_file *file, struct ferry_tracker *trk, bool owner)
{
	int err = 0;

	mutex_lock(&file->lock);
	if (file->tracker)
		err = -EBUSY;
	else if (owner)
		err = ferry_tracker_own(trk);
	if (!err) {
		file->owner = owner;
		atomic_set(&file->seen, atomic_read(&trk->changes));
		/* Pairs with file_tracker(): who sees it sees whether we own it. */
		smp_store_release(&file->tracker, trk);
	}
	mutex_unlock(&file->lock);
	if (err)
		ferry_tracker_put(trk);
	return err;
}

static int ferry_open(struct inode *inode, struct file *filp)
{
	struct ferry_file *file;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	mutex_init(&file->lock);
	filp->private_data = file;
	return nonseekable_open(inode, filp);
}

static int ferry_release(struct inode *inode, struct file *filp)
{
	struct ferry_file *file = filp->private_data;

	if (file->tracker) {
		if (file->owner)
			ferry_tracker_disown(file->tracker);
		ferry_tracker_put(file->tracker);
	}
	kfree(file);
	return 0;
}

static __poll_t ferry_poll(struct file *filp, poll_table *wait)
{
	struct ferry_file *file = filp->private_data;
	struct ferry_tracker *trk = file_tracker(file);

	if (!trk)
		return EPOLLERR;
	poll_wait(filp, &trk->wait, wait);
	return atomic_read(&trk->changes) != atomic_read(&file->seen) ? EPOLLPRI : 0;
}

/* Finds what an mmap offset speaks of. NULL = nothing that is retired now. */
static void *retired_area(struct ferry_tracker *trk, u64 off, u64 len)
{
	unsigned int old = ferry_pair_other(&trk->pair);
	char *base = (char *)trk->pair.bits[old];
	u64 room = trk->geo.leaf_bytes;
	u64 start = FERRY_MAP_OFF(old);

	lockdep_assert_held(&trk->ctl);
	if (!trk->pair.retired)
		return NULL;
	if (off >= FERRY_SUM_OFF(old)) {
		base += room;
		room = trk->geo.sum_bytes;
		start = FERRY_SUM_OFF(old);
	}
	if (off < start || off - start > room || len > room - (off - start))
		return NULL;
	return base + (off - start);
}

/*
 * Maps the retired map or its summary, read only. The pages stay mapped after
 * RELEASE; what they show then means nothing. EACCES: writable; EINVAL: not the
 * area that is retired now.
 */
static int map_retired(struct ferry_tracker *trk, struct vm_area_struct *vma)
{
	u64 len = vma->vm_end - vma->vm_start;
	unsigned int noio;
	u64 done = 0;
	char *area;
	int err = 0;

	if (vma->vm_flags & VM_WRITE)
		return -EACCES;
	/* A child of the owner must not keep the tracker owned. */
	vm_flags_set(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	vm_flags_clear(vma, VM_MAYWRITE);

	mutex_lock(&trk->ctl);
	/* Page tables are allocated under ctl, and writes may be held: tracker.c. */
	noio = memalloc_noio_save();
	area = retired_area(trk, (u64)vma->vm_pgoff << PAGE_SHIFT, len);
	if (!area)
		err = -EINVAL;
	for (; !err && done < len; done += PAGE_SIZE) {
		err = vm_insert_page(vma, vma->vm_start + done,
				     vmalloc_to_page(area + done));
		cond_resched();
	}
	memalloc_noio_restore(noio);
	mutex_unlock(&trk->ctl);
	return err;
}

static int ferry_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct ferry_file *file = filp->private_data;
	struct ferry_tracker *trk = file_tracker(file);

	if (!trk)
		return -ENODEV;
	if (!file->owner)
		return -EPERM;
	return map_retired(trk, vma);
}

/* ----------------------------------------------------------------- ioctls */

static int do_version(void __user *user)
{
	struct ferry_version arg;
	int err = get_arg(&arg, sizeof(arg), VERSION_SIZE_1, user);

	if (err)
		return err;
	if (arg.pad)
		return -EINVAL;
	arg.abi_major = FERRY_ABI_MAJOR;
	arg.abi_minor = FERRY_ABI_MINOR;
	arg.features = 0;
	return put_arg(&arg, sizeof(arg), user);
}

static int check_create(struct ferry_create *arg)
{
	if (!arg->block_shift)
		arg->block_shift = FERRY_BLOCK_SHIFT_MIN;
	if (arg->flags || !arg->sectors ||
	    arg->block_shift < FERRY_BLOCK_SHIFT_MIN ||
	    arg->block_shift > FERRY_BLOCK_SHIFT_MAX)
		return -EINVAL;
	if (arg->mode != FERRY_MODE_TRACK && arg->mode != FERRY_MODE_GATE)
		return -EINVAL;
	if (strnlen(arg->name, sizeof(arg->name)) == sizeof(arg->name))
		return -EINVAL;
	return 0;
}

static int do_create(struct ferry_file *file, void __user *user)
{
	struct ferry_tracker *trk;
	struct ferry_create arg;
	int err;

	err = get_arg(&arg, sizeof(arg), CREATE_SIZE_1, user);
	if (!err)
		err = check_create(&arg);
	if (err)
		return err;
	/* Spares the two maps when the answer is known; file_attach() decides. */
	if (file_tracker(file))
		return -EBUSY;
	trk = ferry_tracker_create(&arg);
	if (IS_ERR(trk))
		return PTR_ERR(trk);
	return file_attach(file, trk, true);
}

static int do_open(struct ferry_file *file, void __user *user)
{
	struct ferry_tracker *trk;
	struct ferry_open arg;
	uuid_t uuid;
	int err;

	err = get_arg(&arg, sizeof(arg), OPEN_SIZE_1, user);
	if (err)
		return err;
	if (arg.flags & ~FERRY_OPEN_OWNER)
		return -EINVAL;
	import_uuid(&uuid, arg.uuid);
	trk = ferry_tracker_find(&uuid);
	if (!trk)
		return -ENOENT;
	return file_attach(file, trk, arg.flags & FERRY_OPEN_OWNER);
}

static int do_info(struct ferry_file *file, struct ferry_tracker *trk, void __user *user)
{
	struct ferry_info arg;
	int err = get_arg(&arg, sizeof(arg), INFO_SIZE_1, user);

	if (err)
		return err;
	/* Before the look: a change in between makes poll() speak once too often. */
	atomic_set(&file->seen, atomic_read(&trk->changes));
	ferry_tracker_info(trk, &arg);
	return put_arg(&arg, sizeof(arg), user);
}

static int do_swap(struct ferry_tracker *trk, void __user *user)
{
	struct ferry_swap arg;
	int err = get_arg(&arg, sizeof(arg), SWAP_SIZE_1, user);

	if (err)
		return err;
	if (arg.flags & ~FERRY_SWAP_NORMAL_GP)
		return -EINVAL;
	err = ferry_tracker_swap(trk, &arg);
	if (err)
		return err;
	return put_arg(&arg, sizeof(arg), user);
}

static int do_freeze(struct ferry_tracker *trk, void __user *user)
{
	struct ferry_freeze arg;
	int err = get_arg(&arg, sizeof(arg), FREEZE_SIZE_1, user);

	if (err)
		return err;
	if (arg.flags || !arg.timeout_ms || arg.timeout_ms > FERRY_FREEZE_MAX_MS ||
	    !arg.watchdog_ms || arg.watchdog_ms > FERRY_FREEZE_MAX_MS)
		return -EINVAL;
	return ferry_tracker_freeze(trk, arg.timeout_ms, arg.watchdog_ms);
}

static int do_mark(struct ferry_tracker *trk, void __user *user)
{
	struct ferry_range arg;
	int err = get_arg(&arg, sizeof(arg), RANGE_SIZE_1, user);

	if (err)
		return err;
	if (arg.flags)
		return -EINVAL;
	return ferry_tracker_mark(trk, arg.first, arg.nr);
}

static long owner_ioctl(struct ferry_tracker *trk, unsigned int cmd, void __user *user)
{
	switch (cmd) {
	case _IOC_NR(FERRY_IOC_SWAP):
		return do_swap(trk, user);
	case _IOC_NR(FERRY_IOC_RELEASE):
		return ferry_tracker_release(trk);
	case _IOC_NR(FERRY_IOC_FREEZE):
		return do_freeze(trk, user);
	case _IOC_NR(FERRY_IOC_THAW):
		return ferry_tracker_act(trk, FERRY_ACT_THAW);
	case _IOC_NR(FERRY_IOC_FENCE):
		return ferry_tracker_act(trk, FERRY_ACT_FENCE);
	case _IOC_NR(FERRY_IOC_UNFENCE):
		return ferry_tracker_act(trk, FERRY_ACT_UNFENCE);
	case _IOC_NR(FERRY_IOC_GATE):
		return ferry_tracker_act(trk, FERRY_ACT_GATE);
	case _IOC_NR(FERRY_IOC_OPEN_GATE):
		return ferry_tracker_act(trk, FERRY_ACT_OPEN);
	case _IOC_NR(FERRY_IOC_DISARM):
		ferry_tracker_disarm(trk);
		return 0;
	case _IOC_NR(FERRY_IOC_MARK):
		return do_mark(trk, user);
	}
	return -ENOTTY;
}

/*
 * Commands are told apart by their number alone: the size encoded in an ioctl
 * grows with its struct, and the struct's own size field is what counts.
 */
static long ferry_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct ferry_file *file = filp->private_data;
	void __user *user = (void __user *)arg;
	struct ferry_tracker *trk;

	if (_IOC_TYPE(cmd) != FERRY_IOC_MAGIC)
		return -ENOTTY;
	cmd = _IOC_NR(cmd);
	switch (cmd) {
	case _IOC_NR(FERRY_IOC_VERSION):
		return do_version(user);
	case _IOC_NR(FERRY_IOC_CREATE):
		return do_create(file, user);
	case _IOC_NR(FERRY_IOC_OPEN):
		return do_open(file, user);
	}
	trk = file_tracker(file);
	if (!trk)
		return -ENODEV;
	if (cmd == _IOC_NR(FERRY_IOC_INFO))
		return do_info(file, trk, user);
	if (!file->owner)
		return -EPERM;
	return owner_ioctl(trk, cmd, user);
}

/* ----------------------------------------------------------------- module */

static const struct file_operations ferry_fops = {
	.owner = THIS_MODULE,
	.open = ferry_open,
	.release = ferry_release,
	.unlocked_ioctl = ferry_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = ferry_mmap,
	.poll = ferry_poll,
};

static struct miscdevice ferry_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ferry",
	.fops = &ferry_fops,
	.mode = 0600,
};

/**
 * ferry_chardev_init() - at module load: /dev/ferry appears
 *
 * Return: 0 or the error of the misc layer.
 */
int ferry_chardev_init(void)
{
	return misc_register(&ferry_misc);
}

/**
 * ferry_chardev_exit() - at module unload
 */
void ferry_chardev_exit(void)
{
	misc_deregister(&ferry_misc);
}
