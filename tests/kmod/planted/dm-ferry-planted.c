// SPDX-License-Identifier: GPL-2.0
/*
 * Bugs on purpose, one for each detector of the debug kernels. To commit one, write
 * its name to /sys/module/dm_ferry_planted/parameters/bug. planted_test.cpp does,
 * and demands that the kernel's log names it: a detector that sleeps proves nothing
 * about the filter.
 *
 * The module's name begins like the filter's, so that what looks for the filter's
 * code in a report finds this code, too.
 */
#define pr_fmt(fmt) "dm-ferry-planted: " fmt

#include <linux/compiler.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/string.h>

#define OBJECT_BYTES	96

/* KASAN */
static void use_after_free(void)
{
	u32 *object = kmalloc(OBJECT_BYTES, GFP_KERNEL);

	if (!object)
		return;
	kfree(object);
	/* The compiler sees it otherwise, and refuses. */
	OPTIMIZER_HIDE_VAR(object);
	WRITE_ONCE(object[2], 1);
}

static DEFINE_MUTEX(ctl_lock);

/*
 * Lockdep: what the filter forbids itself (teach_lockdep() in kmod/tracker.c), done.
 * A lock that reclaim may wait for is held while memory is allocated.
 */
static void reclaim_under_lock(void)
{
	fs_reclaim_acquire(GFP_KERNEL);
	might_lock(&ctl_lock);
	fs_reclaim_release(GFP_KERNEL);

	mutex_lock(&ctl_lock);
	kfree(kmalloc(OBJECT_BYTES, GFP_KERNEL));
	mutex_unlock(&ctl_lock);
}

static int __rcu *protected;

/* PROVE_RCU */
static void rcu_outside(void)
{
	if (rcu_dereference(protected))
		pr_info("never said\n");
}

/* DEBUG_ATOMIC_SLEEP */
static void sleep_in_atomic(void)
{
	preempt_disable();
	might_sleep();
	preempt_enable();
}

/* kmemleak; several, for a pointer may linger on a stack */
static void leak(void)
{
	int i;

	for (i = 0; i < 32; i++) {
		void *object = kmalloc(OBJECT_BYTES, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(object);
	}
}

/* UBSAN */
static void shift_too_far(void)
{
	int by = 40;

	OPTIMIZER_HIDE_VAR(by);
	WRITE_ONCE(by, 1 << by);
}

/* failslab, fail-nth: the Oops needs an allocation that fails */
static void unchecked_allocation(void)
{
	u32 *object = kmalloc(OBJECT_BYTES, GFP_KERNEL);

	WRITE_ONCE(object[2], 1);
	kfree(object);
}

#define RACE_SECONDS	10
static unsigned long raced;

static noinline void race_on(unsigned long end)
{
	while (time_before(jiffies, end)) {
		raced++;
		barrier();
		cond_resched();
	}
}

static int racer(void *end)
{
	race_on((unsigned long)end);
	return 0;
}

/* KCSAN */
static void data_race_planted(void)
{
	unsigned long end = jiffies + RACE_SECONDS * HZ;
	struct task_struct *other = kthread_create(racer, (void *)end, "ferry-racer");

	if (IS_ERR(other))
		return;
	get_task_struct(other);
	wake_up_process(other);
	race_on(end);
	/* Waits for its end, which is near. */
	kthread_stop(other);
	put_task_struct(other);
}

static const struct {
	const char *name;
	void (*commit)(void);
} bugs[] = {
	{ "sleep-in-atomic", sleep_in_atomic },
	{ "rcu-outside", rcu_outside },
	{ "shift-too-far", shift_too_far },
	{ "leak", leak },
	{ "data-race", data_race_planted },
	{ "reclaim-under-lock", reclaim_under_lock },
	{ "use-after-free", use_after_free },
	{ "unchecked-allocation", unchecked_allocation },
};

static int commit(const char *name, const struct kernel_param *param)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bugs); i++) {
		if (sysfs_streq(name, bugs[i].name)) {
			bugs[i].commit();
			return 0;
		}
	}
	return -EINVAL;
}

static const struct kernel_param_ops bug_ops = { .set = commit };
module_param_cb(bug, &bug_ops, NULL, 0200);
MODULE_PARM_DESC(bug, "commits the bug of this name at once");

MODULE_DESCRIPTION("Bugs on purpose, to see that the debug kernels report them");
MODULE_AUTHOR("The Ferry authors");
MODULE_LICENSE("GPL");
