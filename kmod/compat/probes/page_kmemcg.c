// SPDX-License-Identifier: GPL-2.0
/* Memory that is charged to a cgroup has a page type of its own. */
#include <linux/mm.h>
#include <linux/page-flags.h>

int probe(struct page *page);
int probe(struct page *page)
{
	return PageKmemcg(page);
}
