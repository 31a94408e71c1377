/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * tlock: a timed, fair lock named after the job that holds it.
 *
 * A lock is a character device. A contender is one open file description of
 * it: idle, waiting or holding, and it holds at most once. Ownership follows
 * the description across fork() and descriptor passing, and ends with its
 * last close. Threads that compete open the device once each.
 *
 * What a contender asks for is a request. It has a ticket, its place in the
 * queue, and a deadline, and belongs to the open file, not to the thread that
 * sleeps for it. While that thread is not there to wait (it runs a signal
 * handler, or is stopped, frozen or traced) the request is away: it keeps its
 * ticket and its deadline, but the lock passes it over.
 *
 * Contenders get the lock in the order of their tickets. A release hands it to
 * the longest waiter; it is never free in between.
 */
#ifndef _UAPI_LINUX_TLOCK_H
#define _UAPI_LINUX_TLOCK_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define TLOCK_JOB_SIZE	64	/* a job and its NUL */
#define TLOCK_COMM_SIZE	16	/* a command name and its NUL */
#define TLOCK_NAME_SIZE	128	/* a device's name and its NUL */

/**
 * struct tlock_holder - who holds a lock
 * @token: the grant's token; 0: the lock is free, and all else is 0 too
 * @since_ns: when it was granted, on the caller's CLOCK_MONOTONIC; negative
 *	if that clock, in a time namespace, had not started yet
 * @pid: process (thread group) that asked for the lock, as the caller's pid
 *	namespace sees it; 0 where it doesn't, or once the process has ended
 *	while another still has its file open
 * @uid: effective user of that process, as the caller's user namespace sees
 *	it; the overflow uid where it doesn't
 * @flags: 0; no flag is defined yet
 * @reserved: 0
 * @comm: command name of that process at that time; may contain any byte but
 *	NUL
 * @job: the holder's own words for what it is doing, without control
 *	characters; empty if it gave none, as flock(2) does
 *
 * Both strings end with a NUL and are padded with NULs.
 */
struct tlock_holder {
	__u64 token;
	__s64 since_ns;
	__s32 pid;
	__u32 uid;
	__u32 flags;
	__u32 reserved[3];
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE];
};

/* In tlock_acquire.result: the previous holder lost the lock without releasing it */
#define TLOCK_ABANDONED	0x1U

/**
 * struct tlock_acquire - argument of TLOCK_IOC_ACQUIRE and TLOCK_IOC_REACQUIRE
 * @timeout_ns: in: how long to wait at most: 0 tries, a negative value waits
 *	for ever. The deadline is fixed when the request is made. Out, if
 *	positive: how much of it was left when the call ended (0 with
 *	ETIMEDOUT), or when it was interrupted.
 * @flags: in: 0; no flag is defined yet
 * @result: out, on success: 0, or TLOCK_ABANDONED if the lock was taken from
 *	a holder whose last descriptor was closed without a release: the
 *	instrument may be in the middle of a command. The next successful
 *	call reports it, and no later one.
 * @token: out, on success: this grant's token. Each grant of a lock has a
 *	larger one than the grant before it, so that a device or a log can
 *	recognize a late message of an earlier holder. Tokens go on growing, as
 *	far as the clock does, when the module is loaded again.
 * @ticket: in: 0 makes a request. Another number goes on with the request of
 *	that ticket, in its place, to its deadline; @timeout_ns, @job and
 *	@lease_ns are then ignored. Out: the request's ticket if the call fails
 *	with EINTR, and before it is restarted; 0 with success, ETIMEDOUT and
 *	ECANCELED; untouched with every other error. So a caller that does not
 *	hold the lock and finds a ticket has a request to go on with, or to
 *	withdraw by TLOCK_IOC_RELEASE.
 * @lease_ns: in: 0; nothing else is defined yet
 * @reserved: in: 0
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
	__u64 ticket;
	__u64 lease_ns;
	__u64 reserved[4];
	char job[TLOCK_JOB_SIZE];
	struct tlock_holder holder;
};

/**
 * struct tlock_status - a lock at one instant
 * @holder: who holds it
 * @waiters: contenders that wait for it. One whose request is away is not
 *	counted: the number falls while waiters are stopped or frozen.
 * @flags: 0; no flag is defined yet
 * @acquired: grants
 * @contended: acquires that found the lock held, whether they then waited or
 *	not (@timeout_ns 0); one that goes on with its request counts once
 * @timed_out: requests that ended with ETIMEDOUT
 * @interrupted: requests that went away at least once, whether they came back
 *	or not
 * @abandoned: holders that closed the file without a release
 * @yielded: reacquires that let a waiter in
 * @wait_ns_total: time spent waiting, over all requests that waited and have
 *	ended, with the lock or without: from the request to its end, or to the
 *	last time that it went away if it never came back
 * @wait_ns_max: the longest of these waits
 * @hold_ns_total: time the lock was held, over all grants that have ended
 * @hold_ns_max: the longest of these grants
 * @reserved: 0
 * @name: the device's name, padded with NULs
 *
 * The counters start at 0 when the lock is created.
 */
struct tlock_status {
	struct tlock_holder holder;
	__u32 waiters;
	__u32 flags;
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
	__u64 reserved[6];
	char name[TLOCK_NAME_SIZE];
};

/*
 * A command that is none of these fails with ENOTTY, an argument that cannot be
 * read or written with EFAULT. Where several errors apply, EBADF comes first,
 * then EFAULT, EINVAL, and ECANCELED for a ticket.
 */
#define TLOCK_IOC_MAGIC	0xBC

/**
 * TLOCK_IOC_ACQUIRE - take the lock, waiting for it if need be
 *
 * Errors, after which the caller does not hold the lock by this call:
 *
 * EBADF: the file is not open for writing. EINVAL: @flags, @lease_ns, @reserved
 * or @job. EDEADLK: this file holds the lock already, and goes on holding it.
 * EBUSY: another thread waits on this file. ETIMEDOUT: the deadline has
 * passed; @holder says who has the lock. ECANCELED: @ticket is not the ticket
 * of a request of this file, or TLOCK_IOC_RELEASE withdrew the request or ended
 * its grant before this call could return.
 *
 * EINTR: a signal handler without SA_RESTART ran. The request is away; @ticket
 * is its ticket. Calling again with it goes on in place; a call with ticket 0
 * replaces the request; TLOCK_IOC_RELEASE or closing the file withdraws it. A
 * handler with SA_RESTART, or an interruption in which no handler runs (stop and
 * continue, a freezer, a debugger, io_uring), ends no wait: it goes on in place,
 * to the same deadline.
 *
 * EFAULT while the ticket or the time left is written withdraws the request.
 */
#define TLOCK_IOC_ACQUIRE	_IOWR(TLOCK_IOC_MAGIC, 0x00, struct tlock_acquire)

/**
 * TLOCK_IOC_RELEASE - end this file's grant or request
 *
 * Ends what the file has: a held lock passes to the longest waiter; a request
 * is withdrawn, and a thread that sleeps for it gets ECANCELED. After success
 * the file neither holds nor waits.
 *
 * EPERM: this file neither holds the lock nor has a request.
 */
#define TLOCK_IOC_RELEASE	_IO(TLOCK_IOC_MAGIC, 0x01)

/**
 * TLOCK_IOC_REACQUIRE - let the waiters in, and take the lock again
 *
 * In one step: the longest waiter gets the lock, and the caller waits behind
 * everyone who waits now and ahead of everyone who comes later. If nobody
 * waits, it returns at once and the caller goes on holding, with the token it
 * had.
 *
 * EPERM: this file does not hold the lock. EBUSY: another thread waits on this
 * file. EBADF and EINVAL as for TLOCK_IOC_ACQUIRE; a holder goes on holding.
 * ETIMEDOUT, EINTR and ECANCELED as for TLOCK_IOC_ACQUIRE: the caller does not
 * hold the lock, and with EINTR goes on by either call with its ticket (without
 * a ticket TLOCK_IOC_REACQUIRE returns EPERM, and the request stays).
 * ECANCELED for a ticket while the file holds: it goes on holding. EFAULT: an
 * argument that cannot be read or written from the start, but for @holder,
 * changes nothing; if it becomes so during the wait, or @holder cannot be
 * written when the deadline has passed, the caller does not hold the lock.
 */
#define TLOCK_IOC_REACQUIRE	_IOWR(TLOCK_IOC_MAGIC, 0x02, struct tlock_acquire)

/** TLOCK_IOC_STATUS - look at the lock; needs no permission to write */
#define TLOCK_IOC_STATUS	_IOR(TLOCK_IOC_MAGIC, 0x03, struct tlock_status)

#endif /* _UAPI_LINUX_TLOCK_H */
