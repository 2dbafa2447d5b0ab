// SPDX-License-Identifier: GPL-2.0
/* Must always compile: proves that the probes see the kernel's headers. */
#include <linux/device-mapper.h>
#include <net/genetlink.h>

void probe(struct dm_target *ti);
void probe(struct dm_target *ti)
{
	ti->num_flush_bios = 1;
}
