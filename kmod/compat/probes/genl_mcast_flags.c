// SPDX-License-Identifier: GPL-2.0
/* v6.8 cd4d7263d58a, backported to newer stable series: the right to join a group, as a flag. */
#include <net/genetlink.h>

struct genl_multicast_group probe;
struct genl_multicast_group probe = { .flags = GENL_MCAST_CAP_SYS_ADMIN };
