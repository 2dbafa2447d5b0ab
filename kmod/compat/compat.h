/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The newest kernel's names on older kernels. HAVE_* comes from compile probes
 * (folder probes, run by Kbuild): distributions backport, so version numbers
 * say nothing.
 */
#ifndef FERRY_COMPAT_H
#define FERRY_COMPAT_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/mm.h>

#ifndef HAVE_VM_FLAGS_CLEAR
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/*
 * What the dirty maps are allocated with. Where charged pages have a type of
 * their own they cannot be mapped into a process: there nobody is charged.
 */
#ifdef HAVE_PAGE_KMEMCG
#define COMPAT_GFP_MAPPABLE GFP_KERNEL
#else
#define COMPAT_GFP_MAPPABLE GFP_KERNEL_ACCOUNT
#endif

/* Flushes go to the lower devices without a visit to .map, as for dm-linear. */
static inline void compat_flush_bypasses_map(struct dm_target *ti)
{
#ifdef HAVE_FLUSH_BYPASSES_MAP
	ti->flush_bypasses_map = true;
#endif
}

#ifndef HAVE_BIO_CLEAR_POLLED
static inline void bio_clear_polled(struct bio *bio)
{
	bio->bi_opf &= ~REQ_HIPRI;
}
#endif

/* dm core begins its accounting of a held bio when it is submitted at last. */
static inline void compat_accounts_remapped_io(struct dm_target *ti)
{
#ifdef HAVE_DM_SUBMIT_BIO_REMAP
	ti->accounts_remapped_io = true;
#endif
}

#ifndef HAVE_DM_SUBMIT_BIO_REMAP
/* Always with the device that the clone already names. */
static inline void dm_submit_bio_remap(struct bio *clone, struct bio *unused)
{
	submit_bio_noacct(clone);
}
#endif

#ifndef DM_TARGET_PASSES_CRYPTO
#define DM_TARGET_PASSES_CRYPTO 0
#endif

#ifdef HAVE_GENL_MCAST_FLAGS
#define COMPAT_MCAST_SYS_ADMIN	.flags = GENL_MCAST_CAP_SYS_ADMIN,
#elif defined(HAVE_GENL_MCAST_CAP)
#define COMPAT_MCAST_SYS_ADMIN	.cap_sys_admin = 1,
#else
#define COMPAT_MCAST_SYS_ADMIN
#endif

#ifdef HAVE_GENL_RESV_START_OP
#define COMPAT_RESV_START_OP(op)	.resv_start_op = (op),
#else
#define COMPAT_RESV_START_OP(op)
#endif

#endif /* FERRY_COMPAT_H */
