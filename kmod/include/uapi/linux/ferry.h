/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * dm-ferry: the block filter of Ferry, as user space sees it.
 *
 * What it does
 * ------------
 * A *tracker* watches one block device of a virtual machine. On the source of
 * a migration it knows which blocks were written (the dirty map), can make new
 * writes wait for an instant (freeze) and can refuse them for good (fence). On
 * the destination it keeps the guest away from a disk that is not complete yet
 * (gate). A tracker is made through this character device; a device-mapper
 * table borrows it:
 *
 *     <start> <length> ferry <device> <offset> <tracker uuid>
 *
 * All "ferry" lines of one table name the same tracker. Blocks are counted from
 * sector 0 of the mapped device, so the map does not care where the pieces of
 * a volume lie.
 *
 * How a copier works with it
 * --------------------------
 *   fd = open("/dev/ferry", O_RDWR);      needs CAP_SYS_ADMIN
 *   ioctl(fd, FERRY_IOC_CREATE, …);       this fd is now the tracker's owner
 *   … load and resume the table; FERRY_TF_BOUND says it covers the device …
 *   loop:
 *     ioctl(fd, FERRY_IOC_SWAP, …);       the live map retires, a clean one is live
 *     mmap(…, PROT_READ, MAP_SHARED, fd, swap.map_off);   bit n = block n
 *     copy the blocks whose bit is set, reading the lower device with O_DIRECT
 *     ioctl(fd, FERRY_IOC_RELEASE);       the retired map is cleared for reuse
 *   ioctl(fd, FERRY_IOC_FREEZE, …);       no write is in flight any more
 *   ioctl(fd, FERRY_IOC_SWAP, …);         the last round
 *   ioctl(fd, FERRY_IOC_FENCE);           this side never writes again
 *   or ioctl(fd, FERRY_IOC_THAW);         it was called off
 *   ioctl(fd, FERRY_IOC_DISARM);          about to take the table out, on purpose
 *
 * The promise: a block that differs from what a copier read after the swap that
 * retired map K is set in a map that retires later. It holds without draining
 * because a write is marked when it completes, before the guest learns of it,
 * and a swap waits for every completion that may still see the old map.
 *
 * State and flags
 * ---------------
 *   CREATE(track) → TRACKING            CREATE(gate) → RECEIVING
 *   TRACKING  --FREEZE→ FROZEN --THAW→ TRACKING
 *   FROZEN    --FENCE→  FENCED --UNFENCE→ TRACKING
 *   RECEIVING --GATE→   GATED  --OPEN→ TRACKING     RECEIVING --OPEN→ TRACKING
 *   RECEIVING, GATED --FENCE→ FENCED    (the disk's owner stays elsewhere)
 *
 * TRACKING   everything passes; writes are marked.
 * FROZEN     reads and empty flushes pass; writes wait. Ends by THAW, FENCE, the
 *            watchdog, the close of the owner's fd, or a suspend of the table.
 * FENCED     reads pass; writes fail with an I/O error. Survives the owner's fd.
 * RECEIVING  reads pass; writes wait. Survives the owner's fd.
 * GATED      reads and writes wait. Survives the owner's fd.
 *
 * An illegal change of state returns EBUSY and changes nothing. So does FENCE
 * while a FREEZE still waits for writes in flight.
 * FERRY_TF_INVALID is sticky: a write may have been missed, the maps must not be
 * trusted, start over. Guest I/O is never failed because of it.
 *
 * When the owner's fd closes, a retired map that was not released goes back into
 * the live one, so the next owner finds every bit. A mapping keeps its file open:
 * munmap before close, or the tracker stays owned (a fork does not inherit it).
 *
 * DISARM holds until a "ferry" table of the tracker resumes again. A tracker that
 * gets a table back after it was disarmed and taken out is INVALID: nobody saw
 * the writes in between.
 *
 * Rules of the interface
 * ----------------------
 * Every struct starts with its own size; a longer one is accepted when the part
 * this kernel does not know is zero (else E2BIG), a shorter one when it reaches
 * the first version's size (else EINVAL). Unknown flags give EINVAL. Padding must
 * be zero. All integers are in native byte order. Calls that need a tracker give
 * ENODEV on an fd that has none; poll() on such an fd says POLLERR.
 */
#ifndef _UAPI_LINUX_FERRY_H
#define _UAPI_LINUX_FERRY_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define FERRY_DEVICE		"/dev/ferry"
#define FERRY_ABI_MAJOR		1	/* other majors do not understand each other */
#define FERRY_ABI_MINOR		0	/* grows with additions */

#define FERRY_NAME_LEN		128	/* with the closing NUL */
#define FERRY_UUID_LEN		16

/* Smallest and largest tracking unit: 4 KiB and 1 MiB. */
#define FERRY_BLOCK_SHIFT_MIN	12
#define FERRY_BLOCK_SHIFT_MAX	20

enum ferry_mode {
	FERRY_MODE_TRACK = 1,
	FERRY_MODE_GATE = 2,
};

enum ferry_state {
	FERRY_STATE_TRACKING = 1,
	FERRY_STATE_FROZEN = 2,
	FERRY_STATE_FENCED = 3,
	FERRY_STATE_RECEIVING = 4,
	FERRY_STATE_GATED = 5,
};

/* ferry_info.flags */
#define FERRY_TF_BOUND		0x1		/* live tables cover the whole device */
#define FERRY_TF_INVALID	0x2		/* sticky: a write may have been missed */
#define FERRY_TF_DETACHED	0x4		/* sticky: the table was replaced behind our back */
#define FERRY_TF_FREEZE_LOST	0x8		/* a freeze ended by itself; until FREEZE */
#define FERRY_TF_DISARMED	0x10		/* the owner announced that the table goes away */
#define FERRY_TF_OWNED		0x20		/* some fd owns the tracker */

struct ferry_version {
	__u32 size;
	__u32 abi_major;		/* out */
	__u32 abi_minor;		/* out */
	__u32 pad;
	__u64 features;			/* out: none defined yet */
};

/* EEXIST: the uuid is taken. ENOMEM: no memory for two maps. EBUSY: this fd has a tracker. */
struct ferry_create {
	__u32 size;
	__u32 flags;			/* none defined */
	__u8  uuid[FERRY_UUID_LEN];
	char  name[FERRY_NAME_LEN];	/* for people: the volume's dm name */
	__u64 sectors;			/* 512-byte sectors of the mapped device, > 0 */
	__u32 block_shift;		/* log2 of the tracking unit in bytes; 0 = 12 */
	__u32 mode;			/* enum ferry_mode */
};

/* ENOENT: no such tracker. EBUSY: somebody else owns it, or this fd already has one. */
#define FERRY_OPEN_OWNER	0x1		/* without it: INFO and poll only (EPERM) */
struct ferry_open {
	__u32 size;
	__u32 flags;
	__u8  uuid[FERRY_UUID_LEN];
};

struct ferry_info {
	__u32 size;
	__u32 state;			/* enum ferry_state */
	__u32 flags;			/* FERRY_TF_* */
	__u32 block_shift;
	__u8  uuid[FERRY_UUID_LEN];
	char  name[FERRY_NAME_LEN];
	__u64 sectors;
	__u64 nr_blocks;
	__u64 swaps;			/* maps retired so far */
	__u64 dirty;			/* blocks marked in the live map */
	__u64 newly;			/* blocks newly marked since the tracker was made */
	__u64 held;			/* bios waiting now */
	__u64 inflight;			/* writes between submission and completion, a snapshot */
	__u64 fenced_writes;		/* writes refused by the fence */
};

/*
 * EBUSY: the last retired map was not released. ESTALE: INVALID, or not bound (also for the
 * moment a suspend lasts). RELEASE gives EINVAL when no map is retired.
 */
struct ferry_swap {
	__u32 size;
	__u32 flags;			/* FERRY_SWAP_* */
	__u64 dirty;			/* out: bits set in the retired map */
	__u64 map_off;			/* out: offset for mmap of the retired map, read only */
	__u64 map_len;			/* out: its length in bytes, a multiple of the page size */
	__u64 sum_off;			/* out: summary: bit n = a bit of page n is set */
	__u64 sum_len;			/* out */
};

/* Wait a normal grace period instead of an expedited one: slower, kinder to real-time CPUs. */
#define FERRY_SWAP_NORMAL_GP	0x1

/*
 * ETIMEDOUT: writes were still in flight after timeout_ms; everything was thawed. ESTALE:
 * INVALID or not bound. EBUSY: wrong state, or the table is being suspended. ECANCELED: a THAW
 * or a suspend ended the freeze before it was complete. The watchdog thaws watchdog_ms after
 * success unless FENCE or THAW came first; 0 is not allowed (EINVAL).
 */
struct ferry_freeze {
	__u32 size;
	__u32 flags;			/* none defined */
	__u32 timeout_ms;		/* 1 … FERRY_FREEZE_MAX_MS */
	__u32 watchdog_ms;		/* 1 … FERRY_FREEZE_MAX_MS */
};

#define FERRY_FREEZE_MAX_MS	600000

/* Marks blocks by hand in the live map. EINVAL: outside the device. */
struct ferry_range {
	__u32 size;
	__u32 flags;			/* none defined */
	__u64 first;
	__u64 nr;
};

#define FERRY_IOC_MAGIC		0xfe
#define FERRY_IOC_VERSION	_IOWR(FERRY_IOC_MAGIC, 0, struct ferry_version)
#define FERRY_IOC_CREATE	_IOWR(FERRY_IOC_MAGIC, 1, struct ferry_create)
#define FERRY_IOC_OPEN		_IOWR(FERRY_IOC_MAGIC, 2, struct ferry_open)
#define FERRY_IOC_INFO		_IOWR(FERRY_IOC_MAGIC, 3, struct ferry_info)
#define FERRY_IOC_SWAP		_IOWR(FERRY_IOC_MAGIC, 4, struct ferry_swap)
#define FERRY_IOC_RELEASE	_IO(FERRY_IOC_MAGIC, 5)
#define FERRY_IOC_FREEZE	_IOWR(FERRY_IOC_MAGIC, 6, struct ferry_freeze)
#define FERRY_IOC_THAW		_IO(FERRY_IOC_MAGIC, 7)
#define FERRY_IOC_FENCE		_IO(FERRY_IOC_MAGIC, 8)
#define FERRY_IOC_UNFENCE	_IO(FERRY_IOC_MAGIC, 9)
#define FERRY_IOC_GATE		_IO(FERRY_IOC_MAGIC, 10)
#define FERRY_IOC_OPEN_GATE	_IO(FERRY_IOC_MAGIC, 11)
#define FERRY_IOC_DISARM	_IO(FERRY_IOC_MAGIC, 12)
#define FERRY_IOC_MARK		_IOWR(FERRY_IOC_MAGIC, 13, struct ferry_range)

/* poll(): POLLPRI when state or flags changed since this fd's last INFO. */

/* ------------------------------------------------------------- generic netlink */

/*
 * Family "ferry". GET with FERRY_A_UUID answers one tracker, GET as a dump all of them; both
 * need CAP_SYS_ADMIN. The multicast group "events" carries FERRY_CMD_EVENT with FERRY_A_EVENT
 * and the tracker's attributes at that moment.
 */
#define FERRY_GENL_NAME		"ferry"
#define FERRY_GENL_VERSION	1
#define FERRY_GENL_EVENTS	"events"

enum ferry_cmd {
	FERRY_CMD_UNSPEC,
	FERRY_CMD_GET,
	FERRY_CMD_EVENT,
	__FERRY_CMD_MAX,
};

#define FERRY_CMD_MAX (__FERRY_CMD_MAX - 1)

enum ferry_attr {
	FERRY_A_UNSPEC,
	FERRY_A_UUID,			/* binary, FERRY_UUID_LEN */
	FERRY_A_NAME,			/* string */
	FERRY_A_STATE,			/* u32, enum ferry_state */
	FERRY_A_FLAGS,			/* u32, FERRY_TF_* */
	FERRY_A_BLOCK_SHIFT,		/* u32 */
	FERRY_A_SECTORS,		/* u64 */
	FERRY_A_SWAPS,			/* u64 */
	FERRY_A_DIRTY,			/* u64 */
	FERRY_A_NEWLY,			/* u64 */
	FERRY_A_HELD,			/* u64 */
	FERRY_A_INFLIGHT,		/* u64 */
	FERRY_A_FENCED_WRITES,		/* u64 */
	FERRY_A_EVENT,			/* u32, enum ferry_event */
	FERRY_A_PAD,
	__FERRY_A_MAX,
};

#define FERRY_A_MAX (__FERRY_A_MAX - 1)

enum ferry_event {
	FERRY_EV_STATE = 1,		/* state changed by an ioctl */
	FERRY_EV_INVALID = 2,
	FERRY_EV_DETACHED = 3,
	FERRY_EV_WATCHDOG_THAW = 4,	/* the watchdog ended a freeze */
	FERRY_EV_FREEZE_LOST = 5,	/* owner's close or a suspend ended a freeze */
	FERRY_EV_BOUND = 6,		/* live tables cover the device now */
};

#endif /* _UAPI_LINUX_FERRY_H */
