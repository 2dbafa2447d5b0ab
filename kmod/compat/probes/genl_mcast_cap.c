// SPDX-License-Identifier: GPL-2.0
/* v6.7 e03781879a0d, backported to stable: the same right, as a field of its own. */
#include <net/genetlink.h>

struct genl_multicast_group probe;
struct genl_multicast_group probe = { .cap_sys_admin = 1 };
