/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * tlock: a timed, fair lock named after the job that holds it.
 *
 * A lock is a character device. A contender is one open file description of
 * it: idle, waiting or holding, and it holds at most once. Ownership follows
 * the description across fork() and descriptor passing, and ends with its
 * last close. Threads that compete open the device once each.
 *
 * Contenders get the lock in the order in which they began to wait. A release
 * hands it to the one that has waited longest; it is never free in between.
 */
#ifndef _UAPI_LINUX_TLOCK_H
#define _UAPI_LINUX_TLOCK_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define TLOCK_JOB_SIZE	64	/* a job and its NUL */
#define TLOCK_COMM_SIZE	16	/* a command name and its NUL */
#define TLOCK_NAME_SIZE	32	/* a device's name and its NUL */

/**
 * struct tlock_holder - who holds a lock
 * @token: the grant's token; 0: the lock is free, and all else is 0 too
 * @since_ns: when it was granted, on the caller's CLOCK_MONOTONIC
 * @pid: process (thread group) that asked for the lock, as the caller's pid
 *	namespace sees it; 0 where it doesn't, or once the process has ended
 *	while another still holds its file
 * @uid: effective user of that process, as the caller's user namespace sees
 *	it; the overflow uid where it doesn't
 * @comm: command name of that process at that time; any byte but NUL may
 *	stand in it
 * @job: what the holder said that it is doing; no control character in it
 *
 * Both strings end with a NUL and are filled up with NULs.
 */
struct tlock_holder {
	__u64 token;
	__u64 since_ns;
	__s32 pid;
	__u32 uid;
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE];
};

/* In tlock_acquire.result: the one before lost the lock without releasing it */
#define TLOCK_ABANDONED	0x1U

/**
 * struct tlock_acquire - argument of TLOCK_IOC_ACQUIRE and TLOCK_IOC_REACQUIRE
 * @timeout_ns: in: how long to wait at most: 0 tries, a negative one waits for
 *	ever. Out, if positive: what was left of it, also when the call fails
 *	with ETIMEDOUT (0), or with EINTR, or restarts after a signal.
 * @flags: in: 0; no flag is defined yet
 * @result: out, on success: 0, or TLOCK_ABANDONED if the lock was taken from
 *	a holder whose last descriptor was closed without a release: the
 *	instrument may be in the middle of a command. One grant is told so for
 *	each such holder.
 * @token: out, on success: this grant's token. Each grant of a lock has a
 *	larger one than the grant before it, so that a device or a log can tell
 *	a late message of an earlier holder.
 * @job: in: what the caller is going to do: up to 63 bytes and a NUL, without
 *	control characters (bytes below 0x20, 0x7f, and U+0080 to U+009F in
 *	UTF-8). What follows the NUL is ignored. In TLOCK_IOC_REACQUIRE an
 *	empty one keeps the job as it is.
 * @holder: out, if the call fails with ETIMEDOUT, and untouched otherwise: who
 *	held the lock at the instant the caller gave up
 */
struct tlock_acquire {
	__s64 timeout_ns;
	__u32 flags;
	__u32 result;
	__u64 token;
	char job[TLOCK_JOB_SIZE];
	struct tlock_holder holder;
};

/**
 * struct tlock_status - a lock at one instant
 * @holder: who holds it
 * @waiters: contenders that wait for it
 * @reserved: 0
 * @acquired: grants
 * @contended: acquires that found the lock held, whether they then waited or
 *	not (@timeout_ns 0)
 * @timed_out: acquires and reacquires that failed with ETIMEDOUT
 * @interrupted: acquires and reacquires that a signal ended
 * @abandoned: holders that went without a release
 * @yielded: reacquires that let a waiter in
 * @wait_ns_total: time spent waiting, over all waits that have ended, with
 *	the lock or without
 * @wait_ns_max: the longest of them
 * @hold_ns_total: time the lock was held, over all grants that have ended
 * @hold_ns_max: the longest of them
 *
 * The counters run from the creation of the lock.
 */
struct tlock_status {
	struct tlock_holder holder;
	__u32 waiters;
	__u32 reserved;
	__u64 acquired;
	__u64 contended;
	__u64 timed_out;
	__u64 interrupted;
	__u64 abandoned;
	__u64 yielded;
	__u64 wait_ns_total;
	__u64 wait_ns_max;
	__u64 hold_ns_total;
	__u64 hold_ns_max;
};

/*
 * All fail with ENOTTY for a command that is none of these, and with EFAULT
 * for an argument that cannot be read or written.
 */
#define TLOCK_IOC_MAGIC	0xBC

/**
 * TLOCK_IOC_ACQUIRE - take the lock, waiting for it if need be
 *
 * Errors, after which the caller does not hold the lock by this call:
 * EBADF: the file is not open for writing. EINVAL: @flags or @job. EDEADLK:
 * this file holds the lock already, and goes on holding it. EBUSY: this file
 * is waiting already, in another thread. ETIMEDOUT: the time is over; @holder
 * says who has the lock. EINTR: a signal; unless its handler was installed
 * with SA_RESTART, in which case the call goes on with the time it had left,
 * behind those who wait already.
 */
#define TLOCK_IOC_ACQUIRE	_IOWR(TLOCK_IOC_MAGIC, 0x00, struct tlock_acquire)

/**
 * TLOCK_IOC_RELEASE - give the lock to the one that has waited longest
 *
 * EPERM: this file does not hold the lock.
 */
#define TLOCK_IOC_RELEASE	_IO(TLOCK_IOC_MAGIC, 0x01)

/**
 * TLOCK_IOC_REACQUIRE - let those in who wait, and take the lock again
 *
 * In one step: the one that has waited longest gets the lock, and the caller
 * waits behind all who wait now and ahead of all who come later. If nobody
 * waits, it returns at once and the caller goes on holding, with the token it
 * had.
 *
 * EPERM: this file does not hold the lock. EINVAL: @flags or @job; the caller
 * goes on holding. ETIMEDOUT and EINTR as for TLOCK_IOC_ACQUIRE, except that
 * it never restarts; the caller does not hold the lock. EFAULT: an argument
 * that cannot be read or written from the start, but for @holder, changes
 * nothing; if it becomes so during the wait, or @holder cannot be written when
 * the time is over, the caller does not hold the lock.
 */
#define TLOCK_IOC_REACQUIRE	_IOWR(TLOCK_IOC_MAGIC, 0x02, struct tlock_acquire)

/** TLOCK_IOC_STATUS - look at the lock; needs no permission to write */
#define TLOCK_IOC_STATUS	_IOR(TLOCK_IOC_MAGIC, 0x03, struct tlock_status)

#endif /* _UAPI_LINUX_TLOCK_H */
