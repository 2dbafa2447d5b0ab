// SPDX-License-Identifier: GPL-2.0
#define pr_fmt(fmt) "dm-ferry: " fmt

#include <linux/module.h>
#include <net/genetlink.h>

#include "tracker.h"

static int __init ferry_init(void)
{
	int err;

	err = ferry_tracker_init();
	if (err)
		return err;
	err = ferry_netlink_init();
	if (err)
		goto out_tracker;
	err = ferry_target_init();
	if (err)
		goto out_netlink;
	/* Last: from here on user space can make trackers. */
	err = ferry_chardev_init();
	if (err)
		goto out_target;
#ifdef FERRY_MARK_AT_SUBMIT
	pr_warn("this build LOSES WRITES on purpose; it is for the race test only\n");
#endif
	return 0;

out_target:
	ferry_target_exit();
out_netlink:
	ferry_netlink_exit();
out_tracker:
	ferry_tracker_exit();
	return err;
}

static void __exit ferry_exit(void)
{
	ferry_chardev_exit();
	ferry_target_exit();
	ferry_netlink_exit();
	ferry_tracker_exit();
}

module_init(ferry_init);
module_exit(ferry_exit);

#ifdef FERRY_MARK_AT_SUBMIT
MODULE_INFO(variant, "mark-at-submit");
#endif
MODULE_DESCRIPTION("Device-mapper filter that tracks, freezes and gates writes for migration");
MODULE_AUTHOR("The Ferry authors");
MODULE_ALIAS("devname:ferry");
MODULE_ALIAS_GENL_FAMILY(FERRY_GENL_NAME);
MODULE_LICENSE("GPL");
