/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the pure core needs from its surroundings, for the kernel and for the
 * unit tests. Nothing here sleeps except ferry_relax().
 */
#ifndef FERRY_CORE_SHIM_H
#define FERRY_CORE_SHIM_H

#ifdef __KERNEL__

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/types.h>

#define FERRY_WORD_BITS	BITS_PER_LONG

/* One page of the map; mmap and the summary speak of the same pages. */
#define FERRY_MAP_PAGE	4096UL
static_assert(PAGE_SIZE == FERRY_MAP_PAGE, "dm-ferry needs 4 KiB pages");

static inline unsigned long ferry_fetch_or(unsigned long *word, unsigned long mask)
{
	return atomic_long_fetch_or(mask, (atomic_long_t *)word);
}

/* Sets a bit and says whether it was set; one instruction where fetch_or is a loop. */
static inline bool ferry_test_and_set(unsigned long *word, unsigned int bit)
{
	return test_and_set_bit(bit, word);
}

static inline unsigned int ferry_weight(unsigned long word)
{
	return hweight_long(word);
}

/* Number of the lowest set bit; undefined for 0. */
static inline unsigned int ferry_lowest(unsigned long word)
{
	return __ffs(word);
}

static inline void ferry_relax(void)
{
	cond_resched();
}

#else /* user space */

#include <errno.h>
#include <stdbool.h>
#include <string.h>

typedef __UINT64_TYPE__ u64;
typedef __UINT32_TYPE__ u32;
typedef __UINT8_TYPE__ u8;

#define FERRY_WORD_BITS	((unsigned int)(8 * sizeof(unsigned long)))
#define FERRY_MAP_PAGE	4096UL

#define BIT_ULL(n)	(1ULL << (n))
#define READ_ONCE(x)	__atomic_load_n(&(x), __ATOMIC_RELAXED)
#ifndef __cplusplus
#define min(a, b)	({					\
	__typeof__(a) a_ = (a);					\
	__typeof__(b) b_ = (b);					\
								\
	a_ < b_ ? a_ : b_; })
#endif
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static inline unsigned long ferry_fetch_or(unsigned long *word, unsigned long mask)
{
	return __atomic_fetch_or(word, mask, __ATOMIC_SEQ_CST);
}

static inline bool ferry_test_and_set(unsigned long *word, unsigned int bit)
{
	return ferry_fetch_or(word, 1UL << bit) >> bit & 1;
}

static inline unsigned int ferry_weight(unsigned long word)
{
	return (unsigned int)__builtin_popcountl(word);
}

static inline unsigned int ferry_lowest(unsigned long word)
{
	return (unsigned int)__builtin_ctzl(word);
}

static inline void ferry_relax(void)
{
}

#endif /* __KERNEL__ */

#endif /* FERRY_CORE_SHIM_H */
