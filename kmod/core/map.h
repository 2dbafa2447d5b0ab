/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dirty maps: one bit per block, and a summary with one bit per page of that.
 *
 * Leaf and summary live in one allocation, the summary behind the leaf, so that
 * one pointer is the whole map and can be exchanged atomically. Marking is
 * lock-free and may run anywhere, in parallel with itself. Everything else wants
 * a map that nobody marks, except ferry_map_test(), which takes what it sees.
 */
#ifndef FERRY_CORE_MAP_H
#define FERRY_CORE_MAP_H

#include "shim.h"

#define FERRY_PAGE_BITS		(FERRY_MAP_PAGE * 8)
#define FERRY_PAGE_WORDS	(FERRY_PAGE_BITS / FERRY_WORD_BITS)

/**
 * struct ferry_geometry - the shape all maps of one tracker share
 * @nr_blocks: valid bits in the leaf
 * @nr_pages: pages of the leaf = valid bits in the summary
 * @leaf_bytes: length of the leaf, whole pages
 * @sum_bytes: length of the summary, whole pages
 */
struct ferry_geometry {
	u64 nr_blocks;
	u64 nr_pages;
	u64 leaf_bytes;
	u64 sum_bytes;
};

void ferry_geometry_init(struct ferry_geometry *geo, u64 nr_blocks);

u64 ferry_map_mark(const struct ferry_geometry *geo, unsigned long *bits,
		   u64 first, u64 nr);
bool ferry_map_mark_one(const struct ferry_geometry *geo, unsigned long *bits,
			u64 block);
u64 ferry_map_count(const struct ferry_geometry *geo, const unsigned long *bits);
u64 ferry_map_next(const struct ferry_geometry *geo, const unsigned long *bits,
		   u64 from);
void ferry_map_clear(const struct ferry_geometry *geo, unsigned long *bits);
u64 ferry_map_merge(const struct ferry_geometry *geo, unsigned long *to,
		    const unsigned long *from);

/* Start of the summary of a map; also valid for maps of const words. */
static inline u64 ferry_map_sum_word(const struct ferry_geometry *geo)
{
	return geo->leaf_bytes / sizeof(unsigned long);
}

static inline bool ferry_map_test(const unsigned long *bits, u64 block)
{
	return READ_ONCE(bits[block / FERRY_WORD_BITS]) >>
	       (block % FERRY_WORD_BITS) & 1;
}

#endif /* FERRY_CORE_MAP_H */
