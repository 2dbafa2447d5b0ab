// SPDX-License-Identifier: GPL-2.0
/* v6.7 e03781879a0d, backported to stable: rights to join a multicast group. */
#include <net/genetlink.h>

struct genl_multicast_group probe;
struct genl_multicast_group probe = { .flags = GENL_MCAST_CAP_SYS_ADMIN };
