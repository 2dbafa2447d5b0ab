// SPDX-License-Identifier: GPL-2.0
#include "map.h"

static u64 round_to_page(u64 bytes)
{
	return (bytes + FERRY_MAP_PAGE - 1) / FERRY_MAP_PAGE * FERRY_MAP_PAGE;
}

/**
 * ferry_geometry_init() - shape of a map for a number of blocks
 * @geo: filled in
 * @nr_blocks: at least 1
 */
void ferry_geometry_init(struct ferry_geometry *geo, u64 nr_blocks)
{
	geo->nr_blocks = nr_blocks;
	geo->leaf_bytes = round_to_page((nr_blocks + 7) / 8);
	geo->nr_pages = geo->leaf_bytes / FERRY_MAP_PAGE;
	geo->sum_bytes = round_to_page((geo->nr_pages + 7) / 8);
}

/*
 * Test before set: a locked operation on a shared line costs ten times a load,
 * and most writes hit blocks that are marked already. Safe because nobody clears
 * a live map. Returns the bits that were really new.
 */
static unsigned long set_in_word(unsigned long *word, unsigned long mask)
{
	if ((READ_ONCE(*word) & mask) == mask)
		return 0;
	return mask & ~ferry_fetch_or(word, mask);
}

static bool page_in_summary(const struct ferry_geometry *geo,
			    const unsigned long *bits, u64 page)
{
	return ferry_map_test(bits + ferry_map_sum_word(geo), page);
}

static void summarise(const struct ferry_geometry *geo, unsigned long *bits,
		      u64 page)
{
	unsigned long *sum = bits + ferry_map_sum_word(geo);

	set_in_word(&sum[page / FERRY_WORD_BITS],
		    1UL << (page % FERRY_WORD_BITS));
}

/**
 * ferry_map_mark() - set a range of bits
 * @geo: shape of the map
 * @bits: the map
 * @first: first block
 * @nr: number of blocks, at least 1; the range must lie inside the map
 *
 * Any context, in parallel with other markers. The summary bit follows the leaf
 * bit, so a reader must have waited for all markers (a grace period) before it
 * may trust the summary.
 *
 * Return: how many bits this call changed from 0 to 1. Parallel callers never
 * count the same bit twice.
 */
u64 ferry_map_mark(const struct ferry_geometry *geo, unsigned long *bits,
		   u64 first, u64 nr)
{
	u64 end = first + nr;
	u64 newly = 0;

	while (first < end) {
		u64 page = first / FERRY_PAGE_BITS;
		u64 page_end = (page + 1) * FERRY_PAGE_BITS;
		u64 stop = min(end, page_end);
		u64 before = newly;

		while (first < stop) {
			unsigned int bit = first % FERRY_WORD_BITS;
			u64 len = stop - first;
			unsigned long mask = ~0UL;

			if (len > FERRY_WORD_BITS - bit)
				len = FERRY_WORD_BITS - bit;
			if (len < FERRY_WORD_BITS)
				mask = ((1UL << len) - 1) << bit;
			newly += ferry_weight(set_in_word(&bits[first / FERRY_WORD_BITS],
							  mask));
			first += len;
		}
		if (newly != before)
			summarise(geo, bits, page);
	}
	return newly;
}

/**
 * ferry_map_mark_one() - set one bit
 * @geo: shape of the map
 * @bits: the map
 * @block: which one
 *
 * ferry_map_mark() for a single block, at a third of its instructions.
 *
 * Return: did this call change the bit from 0 to 1?
 */
bool ferry_map_mark_one(const struct ferry_geometry *geo, unsigned long *bits,
			u64 block)
{
	if (ferry_test_and_set(&bits[block / FERRY_WORD_BITS],
			       block % FERRY_WORD_BITS))
		return false;
	summarise(geo, bits, block / FERRY_PAGE_BITS);
	return true;
}

/**
 * ferry_map_count() - number of set bits
 * @geo: shape of the map
 * @bits: a map that nobody marks
 *
 * May sleep. Visits only pages the summary names.
 *
 * Return: the number of dirty blocks.
 */
u64 ferry_map_count(const struct ferry_geometry *geo, const unsigned long *bits)
{
	u64 count = 0;
	u64 page;

	for (page = 0; page < geo->nr_pages; page++) {
		const unsigned long *word = bits + page * FERRY_PAGE_WORDS;
		unsigned int i;

		if (!page_in_summary(geo, bits, page))
			continue;
		for (i = 0; i < FERRY_PAGE_WORDS; i++)
			count += ferry_weight(word[i]);
		ferry_relax();
	}
	return count;
}

/**
 * ferry_map_next() - find the next set bit
 * @geo: shape of the map
 * @bits: a map that nobody marks
 * @from: first block to look at
 *
 * Return: the lowest dirty block at or after @from, or geo->nr_blocks.
 */
u64 ferry_map_next(const struct ferry_geometry *geo, const unsigned long *bits,
		   u64 from)
{
	while (from < geo->nr_blocks) {
		u64 page = from / FERRY_PAGE_BITS;
		unsigned int bit = from % FERRY_WORD_BITS;
		unsigned long word;

		if (!page_in_summary(geo, bits, page)) {
			from = (page + 1) * FERRY_PAGE_BITS;
			continue;
		}
		word = bits[from / FERRY_WORD_BITS] >> bit;
		if (word)
			return from + ferry_lowest(word);
		from += FERRY_WORD_BITS - bit;
	}
	return geo->nr_blocks;
}

/**
 * ferry_map_clear() - make a map empty again
 * @geo: shape of the map
 * @bits: a map that nobody marks
 *
 * May sleep. Touches only pages the summary names.
 */
void ferry_map_clear(const struct ferry_geometry *geo, unsigned long *bits)
{
	u64 page;

	for (page = 0; page < geo->nr_pages; page++) {
		if (!page_in_summary(geo, bits, page))
			continue;
		memset(bits + page * FERRY_PAGE_WORDS, 0, FERRY_MAP_PAGE);
		ferry_relax();
	}
	memset(bits + ferry_map_sum_word(geo), 0, geo->sum_bytes);
}

/**
 * ferry_map_merge() - add the bits of one map to another
 * @geo: shape of both maps
 * @to: the map that grows; may be live
 * @from: a map that nobody marks
 *
 * May sleep.
 *
 * Return: how many bits of @to changed from 0 to 1.
 */
u64 ferry_map_merge(const struct ferry_geometry *geo, unsigned long *to,
		    const unsigned long *from)
{
	u64 newly = 0;
	u64 page;

	for (page = 0; page < geo->nr_pages; page++) {
		u64 word = page * FERRY_PAGE_WORDS;
		u64 stop = word + FERRY_PAGE_WORDS;
		u64 before = newly;

		if (!page_in_summary(geo, from, page))
			continue;
		for (; word < stop; word++)
			newly += ferry_weight(set_in_word(&to[word], from[word]));
		if (newly != before)
			summarise(geo, to, page);
		ferry_relax();
	}
	return newly;
}
