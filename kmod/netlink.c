// SPDX-License-Identifier: GPL-2.0
/*
 * Generic netlink family "ferry": who is there, how far is it, what happened.
 * Reading only; control goes through /dev/ferry, whose lifetime ends a freeze.
 */
#define pr_fmt(fmt) "dm-ferry: " fmt

#include <linux/capability.h>
#include <net/genetlink.h>

#include "compat/compat.h"
#include "tracker.h"

static struct genl_family ferry_family;

static int fill(struct sk_buff *skb, const struct ferry_info *info)
{
	if (nla_put(skb, FERRY_A_UUID, FERRY_UUID_LEN, info->uuid) ||
	    nla_put_string(skb, FERRY_A_NAME, info->name) ||
	    nla_put_u32(skb, FERRY_A_STATE, info->state) ||
	    nla_put_u32(skb, FERRY_A_FLAGS, info->flags) ||
	    nla_put_u32(skb, FERRY_A_BLOCK_SHIFT, info->block_shift) ||
	    nla_put_u64_64bit(skb, FERRY_A_SECTORS, info->sectors, FERRY_A_PAD) ||
	    nla_put_u64_64bit(skb, FERRY_A_SWAPS, info->swaps, FERRY_A_PAD) ||
	    nla_put_u64_64bit(skb, FERRY_A_DIRTY, info->dirty, FERRY_A_PAD) ||
	    nla_put_u64_64bit(skb, FERRY_A_NEWLY, info->newly, FERRY_A_PAD) ||
	    nla_put_u64_64bit(skb, FERRY_A_HELD, info->held, FERRY_A_PAD) ||
	    nla_put_u64_64bit(skb, FERRY_A_INFLIGHT, info->inflight, FERRY_A_PAD) ||
	    nla_put_u64_64bit(skb, FERRY_A_FENCED_WRITES, info->fenced_writes, FERRY_A_PAD))
		return -EMSGSIZE;
	return 0;
}

/* --------------------------------------------------------------------- GET */

static int get_one(struct sk_buff *skb, struct genl_info *request)
{
	struct nlattr *attr = request->attrs[FERRY_A_UUID];
	struct ferry_tracker *trk;
	struct ferry_info info;
	struct sk_buff *reply;
	uuid_t uuid;
	void *head;

	if (!netlink_capable(skb, CAP_SYS_ADMIN))
		return -EPERM;
	if (!attr) {
		GENL_SET_ERR_MSG(request, "uuid missing");
		return -EINVAL;
	}
	import_uuid(&uuid, nla_data(attr));
	trk = ferry_tracker_find(&uuid);
	if (!trk)
		return -ENOENT;
	ferry_tracker_info(trk, &info);
	ferry_tracker_put(trk);

	reply = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!reply)
		return -ENOMEM;
	head = genlmsg_put_reply(reply, request, &ferry_family, 0, FERRY_CMD_GET);
	if (!head || fill(reply, &info)) {
		nlmsg_free(reply);
		return -EMSGSIZE;
	}
	genlmsg_end(reply, head);
	return genlmsg_reply(reply, request);
}

struct dump {
	struct sk_buff *skb;
	struct netlink_callback *cb;
	long index;
};

static int dump_one(struct ferry_tracker *trk, void *data)
{
	struct dump *dump = data;
	struct ferry_info info;
	void *head;

	/* cb->args[0]: how many trackers went out with earlier messages. */
	if (dump->index++ < dump->cb->args[0])
		return 0;
	ferry_tracker_info(trk, &info);
	head = genlmsg_put(dump->skb, NETLINK_CB(dump->cb->skb).portid,
			   dump->cb->nlh->nlmsg_seq, &ferry_family, NLM_F_MULTI,
			   FERRY_CMD_GET);
	if (!head)
		return -EMSGSIZE;
	if (fill(dump->skb, &info)) {
		genlmsg_cancel(dump->skb, head);
		return -EMSGSIZE;
	}
	genlmsg_end(dump->skb, head);
	dump->cb->args[0]++;
	return 0;
}

static int get_all(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dump dump = { .skb = skb, .cb = cb };

	if (!netlink_capable(cb->skb, CAP_SYS_ADMIN))
		return -EPERM;
	/* A full message ends the walk; netlink calls again for the rest. */
	ferry_tracker_walk(dump_one, &dump);
	return skb->len;
}

/* ------------------------------------------------------------------ events */

/**
 * ferry_netlink_event() - tell all listeners; caller holds ctl
 * @trk: the tracker
 * @event: what happened
 *
 * Best effort, as multicast is: a listener that missed one asks with GET. GFP_NOIO
 * because writes may be held at this moment.
 */
void ferry_netlink_event(struct ferry_tracker *trk, enum ferry_event event)
{
	struct ferry_info info;
	struct sk_buff *skb;
	void *head;

	lockdep_assert_held(&trk->ctl);
	if (!genl_has_listeners(&ferry_family, &init_net, 0))
		return;
	__ferry_tracker_info(trk, &info);
	skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_NOIO);
	if (!skb)
		return;
	head = genlmsg_put(skb, 0, 0, &ferry_family, 0, FERRY_CMD_EVENT);
	if (!head || nla_put_u32(skb, FERRY_A_EVENT, event) || fill(skb, &info)) {
		nlmsg_free(skb);
		return;
	}
	genlmsg_end(skb, head);
	genlmsg_multicast(&ferry_family, skb, 0, 0, GFP_NOIO);
}

/* ------------------------------------------------------------------ module */

static const struct nla_policy ferry_policy[FERRY_A_MAX + 1] = {
	[FERRY_A_UUID] = NLA_POLICY_EXACT_LEN(FERRY_UUID_LEN),
};

static const struct genl_small_ops ferry_ops[] = {
	{
		.cmd = FERRY_CMD_GET,
		.flags = GENL_ADMIN_PERM,
		.doit = get_one,
		.dumpit = get_all,
	},
};

static const struct genl_multicast_group ferry_groups[] = {
	{ .name = FERRY_GENL_EVENTS, COMPAT_MCAST_SYS_ADMIN },
};

static struct genl_family ferry_family __ro_after_init = {
	.name = FERRY_GENL_NAME,
	.version = FERRY_GENL_VERSION,
	.maxattr = FERRY_A_MAX,
	.policy = ferry_policy,
	.module = THIS_MODULE,
	.small_ops = ferry_ops,
	.n_small_ops = ARRAY_SIZE(ferry_ops),
	.mcgrps = ferry_groups,
	.n_mcgrps = ARRAY_SIZE(ferry_groups),
	COMPAT_RESV_START_OP(FERRY_CMD_GET)
};

/**
 * ferry_netlink_init() - at module load
 *
 * Return: 0 or the error of generic netlink.
 */
int ferry_netlink_init(void)
{
	return genl_register_family(&ferry_family);
}

/**
 * ferry_netlink_exit() - at module unload
 */
void ferry_netlink_exit(void)
{
	genl_unregister_family(&ferry_family);
}
