// SPDX-License-Identifier: GPL-2.0
/* v6.1 9c5d03d36251: strict header checks from this operation on. */
#include <net/genetlink.h>

struct genl_family probe;
struct genl_family probe = { .resv_start_op = 1 };
