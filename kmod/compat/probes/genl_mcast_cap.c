// SPDX-License-Identifier: GPL-2.0
/* The same rights as genl_mcast_flags, as the stable series before v6.7 have it for this one capability. */
#include <net/genetlink.h>

struct genl_multicast_group probe;
struct genl_multicast_group probe = { .cap_sys_admin = 1 };
