/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * tlock: a timed, fair lock named after the job that holds it.
 *
 * A lock is a character device. A contender is one open file description of
 * it. A contender is idle, waiting or holding, and it holds at most once.
 * Ownership follows the description across fork() and descriptor passing, and
 * ends with its last close. Threads that compete open the device once each.
 *
 * A contender that asks for the lock has a request, with a deadline and a
 * ticket, which is its place in the queue. The request belongs to the open
 * file, not to the thread that sleeps for it. While that thread is unable to
 * wait (it runs a signal handler, or is stopped, frozen or traced) the request
 * is away: it keeps its ticket and its deadline, but hand-overs pass it over.
 *
 * Contenders get the lock in the order of their tickets. A release hands it
 * over to the longest waiter; it is never free in between.
 *
 * A lock cannot be deleted while a file is open for writing. A file that is
 * open for reading outlives it: every call that looks at the lock or asks for
 * it then fails with ENODEV, also if a lock of that name is created again.
 *
 * A lock can be created as gated: several hosts share it, and a daemon on each
 * host opens and shuts its gate. While the gate is shut, nobody on this host
 * can have the lock, and contenders see who holds it on another host. See
 * TLOCK_IOC_GATE.
 */
#ifndef _UAPI_LINUX_TLOCK_H
#define _UAPI_LINUX_TLOCK_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define TLOCK_JOB_SIZE	64	/* a job and its NUL */
#define TLOCK_COMM_SIZE	16	/* a command name and its NUL */
#define TLOCK_NAME_SIZE	128	/* a device's name and its NUL */
#define TLOCK_HOST_SIZE	64	/* a host's name and its NUL */

/*
 * In tlock_holder.flags and tlock_event.flags. UNFETCHED: no call has returned
 * the grant yet, see TLOCK_ASYNC. LEASED: the grant has a lease. REVOKING:
 * TLOCK_IOC_REVOKE was called for it. REMOTE in tlock_holder.flags: the lock's gate
 * is shut, and the rest is what the gate's daemon knows of the holder on another
 * host. REMOTE in tlock_event.flags: the gate ended the grant.
 */
#define TLOCK_UNFETCHED	0x1U
#define TLOCK_LEASED	0x2U
#define TLOCK_REVOKING	0x4U
#define TLOCK_REMOTE	0x8U

/**
 * struct tlock_holder - who holds a lock
 * @token: token of the grant; 0 if the lock is free, and then all else is 0 too. 0
 *	with TLOCK_REMOTE in @flags: the gate is shut, and the holder is unknown.
 * @since_ns: when it was granted, on the caller's CLOCK_MONOTONIC; negative if
 *	the caller is in a time namespace whose clock had not started yet
 * @pid: process (thread group) that asked for the lock, as the caller's pid
 *	namespace sees it; 0 if that namespace does not contain it, or if it has
 *	ended while another process still has its file open; 0 with TLOCK_REMOTE
 * @uid: effective user of that process, as the caller's user namespace sees
 *	it; the overflow uid if that namespace does not map it; meaningless with
 *	TLOCK_REMOTE
 * @flags: any of TLOCK_UNFETCHED, TLOCK_LEASED and TLOCK_REVOKING, or TLOCK_REMOTE
 * @reserved: 0
 * @expires_ns: with TLOCK_LEASED or TLOCK_REVOKING, when the lease or the grace
 *	ends, whichever is earlier, on the caller's CLOCK_MONOTONIC; after that,
 *	the grant is revoked as soon as somebody else wants the lock.
 *	9223372036854775807 means never. 0 without these flags.
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
	__u32 reserved;
	__s64 expires_ns;
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE];
};

/*
 * In tlock_acquire.result: an earlier holder lost the lock without releasing it.
 * ABANDONED: its last descriptor was closed. REVOKED: its lease ended, or
 * TLOCK_IOC_REVOKE or the lock's gate took the lock from it.
 */
#define TLOCK_ABANDONED	0x1U
#define TLOCK_REVOKED	0x2U

/*
 * In tlock_acquire.flags: don't sleep. A call that would wait fails with
 * EINPROGRESS and the request's ticket, and the request waits by itself.
 */
#define TLOCK_ASYNC	0x1U

/*
 * In tlock_acquire.flags of TLOCK_IOC_REACQUIRE: renew the lease, and keep the
 * lock even if somebody waits.
 */
#define TLOCK_RENEW	0x2U

/**
 * struct tlock_acquire - argument of TLOCK_IOC_ACQUIRE and TLOCK_IOC_REACQUIRE
 * @timeout_ns: in: how long to wait at most. 0 tries once, a negative value
 *	waits for ever. The deadline is fixed when the request is made. Out, if
 *	positive: how much of it was left when the call ended (0 with
 *	ETIMEDOUT), or when it was interrupted.
 * @flags: in: 0, TLOCK_ASYNC or TLOCK_RENEW
 * @result: out, on success: any of TLOCK_ABANDONED and TLOCK_REVOKED. The
 *	instrument may then be in the middle of a command; after TLOCK_REVOKED,
 *	the earlier holder may even still be talking to it. Only the next
 *	successful call returns these flags.
 * @token: out, on success: token of this grant. Each grant of a lock has a
 *	larger one than the grant before it, so that a device or a log can
 *	recognize a late message from an earlier holder. Tokens keep growing
 *	when the lock is deleted and created again; and when the module is
 *	loaded again, provided that the clock does.
 * @ticket: in: 0 makes a request. Any other number resumes the request with
 *	that ticket, in its place and with its deadline; @timeout_ns, @job and
 *	@lease_ns are then ignored. Out: the ticket of the request if the call
 *	fails with EINTR or EINPROGRESS, and before it is restarted; 0 with
 *	success, ETIMEDOUT, ECANCELED and ESTALE; untouched with every other
 *	error. So a caller that does not hold the lock and finds a ticket here
 *	has a request, to resume or to withdraw with TLOCK_IOC_RELEASE.
 * @lease_ns: in: how long the grant lasts unless it is renewed, counted from
 *	the grant. Each TLOCK_IOC_REACQUIRE that succeeds renews it, and so does
 *	the call that fetches an asynchronous grant. 0 means no lease; in
 *	TLOCK_IOC_REACQUIRE, it keeps the present lease. See TLOCK_IOC_REVOKE
 *	for what happens when the lease ends.
 * @reserved: in: 0
 * @job: in: what the caller is going to do: up to 63 bytes and a NUL, without
 *	control characters (bytes below 0x20, 0x7f, and U+0080 to U+009F in
 *	UTF-8). Bytes after the NUL are ignored. In TLOCK_IOC_REACQUIRE an
 *	empty job keeps the previous one.
 * @holder: out, if the call fails with ETIMEDOUT, and untouched otherwise: who
 *	held the lock at the instant the request ended
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

/*
 * In tlock_status.flags. GATED: the lock was created as gated. SHUT: its gate is
 * shut. SERVED: a daemon is attached to the gate.
 */
#define TLOCK_GATED	0x1U
#define TLOCK_SHUT	0x2U
#define TLOCK_SERVED	0x4U

/**
 * struct tlock_status - a lock at one instant
 * @holder: who holds it
 * @waiters: contenders that wait for it. One whose request is away is not
 *	counted: the number falls while waiters are stopped or frozen.
 * @flags: any of TLOCK_GATED, TLOCK_SHUT and TLOCK_SERVED
 * @acquired: grants
 * @contended: acquires that found the lock held, whether they then waited or
 *	not (@timeout_ns 0); one that is resumed counts once
 * @timed_out: requests that ended with ETIMEDOUT
 * @interrupted: requests that went away at least once, whether they were
 *	resumed or not
 * @abandoned: holders that closed the file without a release
 * @revoked: grants that were revoked
 * @yielded: reacquires that let a waiter in
 * @wait_ns_total: time spent waiting, summed over all requests that waited and
 *	have ended, with the lock or without it: from the request to its end, or
 *	to the last time that it went away if it was never resumed
 * @wait_ns_max: the longest of these waits
 * @hold_ns_total: time the lock was held, summed over all grants that have
 *	ended
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
	__u64 revoked;
	__u64 yielded;
	__u64 wait_ns_total;
	__u64 wait_ns_max;
	__u64 hold_ns_total;
	__u64 hold_ns_max;
	__u64 reserved[5];
	char name[TLOCK_NAME_SIZE];
};

/**
 * struct tlock_waiter - a contender that waits; argument of TLOCK_IOC_WAITER
 * @ticket: in: look for the first waiter whose ticket is larger than this; 0
 *	for the longest waiter. Out: its ticket.
 * @since_ns: when it asked for the lock, on the caller's CLOCK_MONOTONIC; may be
 *	negative, see struct tlock_holder
 * @timeout_ns: its timeout, counted from @since_ns; negative if it waits for
 *	ever
 * @pid: process that asked, as in struct tlock_holder
 * @uid: effective user of that process, as in struct tlock_holder
 * @flags: TLOCK_ASYNC if the request is asynchronous, or 0
 * @reserved: 0
 * @comm: command name of that process
 * @job: what it waits for
 */
struct tlock_waiter {
	__u64 ticket;
	__s64 since_ns;
	__s64 timeout_ns;
	__s32 pid;
	__u32 uid;
	__u32 flags;
	__u32 reserved[5];
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE];
};

/**
 * enum tlock_event_kind - what happened to the lock
 * @TLOCK_EVENT_WAITING: a request began to wait, or goes on waiting after it
 *	was away
 * @TLOCK_EVENT_ACQUIRED: a contender was granted the lock
 * @TLOCK_EVENT_RELEASED: a grant was ended by its contender
 * @TLOCK_EVENT_YIELDED: a grant was ended by a reacquire, as somebody waited
 * @TLOCK_EVENT_TIMED_OUT: a request ended with ETIMEDOUT. With a @token, it had
 *	been granted the lock, but the grant ended because no call had fetched
 *	it in time.
 * @TLOCK_EVENT_INTERRUPTED: a request went away
 * @TLOCK_EVENT_WITHDRAWN: a request was withdrawn or replaced
 * @TLOCK_EVENT_ABANDONED: a grant ended because its file was closed. If flock(2)
 *	had acquired the lock, or no call had fetched the grant, that is
 *	RELEASED.
 * @TLOCK_EVENT_DELETED: the lock was deleted; the last event
 * @TLOCK_EVENT_REVOKED: a grant was revoked: by the lock's gate if @flags has
 *	TLOCK_REMOTE; otherwise by TLOCK_IOC_REVOKE if it has TLOCK_REVOKING; and
 *	otherwise because its lease had ended
 *
 * A grant ends with an event RELEASED, YIELDED, TIMED_OUT, ABANDONED or REVOKED
 * that has its token. If somebody waits, the next event with a token is the
 * next grant.
 */
enum tlock_event_kind {
	TLOCK_EVENT_WAITING = 1,
	TLOCK_EVENT_ACQUIRED,
	TLOCK_EVENT_RELEASED,
	TLOCK_EVENT_YIELDED,
	TLOCK_EVENT_TIMED_OUT,
	TLOCK_EVENT_INTERRUPTED,
	TLOCK_EVENT_WITHDRAWN,
	TLOCK_EVENT_ABANDONED,
	TLOCK_EVENT_DELETED,
	TLOCK_EVENT_REVOKED,
};

/**
 * struct tlock_event - what read(2) returns after TLOCK_IOC_MONITOR
 * @size: of this record, in bytes
 * @kind: one of enum tlock_event_kind; skip the kinds that you don't know
 * @seq: number of the event: each is larger by 1 than the one before it, unless
 *	events were lost
 * @time_ns: when it happened, on the caller's CLOCK_MONOTONIC
 * @token: of the grant; 0 if the event is about none
 * @ticket: of the request; 0 if it never waited
 * @pid: process that asked for the lock, as the reader's pid namespace sees it;
 *	0 if that namespace does not contain it, or is nested in more than three
 *	others. Unlike in struct tlock_holder, the process may have ended.
 * @uid: effective user of that process, as the reader's user namespace sees it
 * @flags: of the grant, as in struct tlock_holder; 0 without a grant
 * @lost: how many events just before this one were lost, because they were not
 *	read in time; 4294967295 stands for that many or more
 * @reserved: 0
 * @comm: command name of that process
 * @job: its job
 */
struct tlock_event {
	__u32 size;
	__u32 kind;
	__u64 seq;
	__s64 time_ns;
	__u64 token;
	__u64 ticket;
	__s32 pid;
	__u32 uid;
	__u32 flags;
	__u32 lost;
	__u64 reserved[3];
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE];
};

/**
 * struct tlock_revoke - argument of TLOCK_IOC_REVOKE
 * @token: in: token of the grant to revoke, from struct tlock_holder
 * @grace_ns: in: how long the holder may still keep the lock; 0 takes it at
 *	once, even if nobody waits
 * @flags: in: 0
 * @reserved: in: 0
 */
struct tlock_revoke {
	__u64 token;
	__u64 grace_ns;
	__u32 flags;
	__u32 reserved[3];
};

/*
 * In tlock_gate.op. LOOK: only describe the gate. ATTACH: make this file the gate's
 * daemon. SET: open or shut the gate, or change how long it is open.
 */
#define TLOCK_GATE_LOOK		0U
#define TLOCK_GATE_ATTACH	1U
#define TLOCK_GATE_SET		2U

/*
 * In tlock_gate.flags: another host wants the lock. Then only those who wait
 * can be granted it, as long as there are tokens; a TLOCK_IOC_REACQUIRE gives
 * the lock up even if nobody waits on this host; the holder's poll(2) reports
 * POLLIN; and a grant that has an expiry ends then.
 */
#define TLOCK_GATE_RECALL	0x1U

/*
 * In tlock_gate.state. OPEN: contenders can be granted the lock. HELD: a
 * contender of this host holds it. WANTED: a contender waits for it, or has
 * tried to acquire it while the gate was shut, since the daemon's last
 * TLOCK_IOC_GATE. SPENT: no token is left, or none may be used. OVER: the
 * newest opening has ended, for ever.
 */
#define TLOCK_GATE_OPEN		0x1U
#define TLOCK_GATE_HELD		0x2U
#define TLOCK_GATE_WANTED	0x4U
#define TLOCK_GATE_SPENT	0x8U
#define TLOCK_GATE_OVER		0x10U

/**
 * struct tlock_gate - the gate of a lock; argument of TLOCK_IOC_GATE
 * @op: in: TLOCK_GATE_LOOK, TLOCK_GATE_ATTACH or TLOCK_GATE_SET
 * @flags: in, for SET: 0 or TLOCK_GATE_RECALL. Out: the present value.
 * @state: in: ignored. Out: any of TLOCK_GATE_OPEN, _HELD, _WANTED, _SPENT, _OVER.
 * @waiters: in: ignored. Out: contenders that wait for the lock.
 * @opening: in, for SET: number of the opening that the call is about. Each
 *	opening has a number that is larger by 1 than that of the one before.
 *	Out: number of the newest opening; 0 if there was none.
 * @until_ns: in, for SET: when the opening ends, on the caller's CLOCK_BOOTTIME. A
 *	time that has passed shuts the gate. Out: the present value; 0 if the newest
 *	opening is over.
 * @grace_ns: in, for SET that shuts the gate: how long the present grant may still
 *	last; it never outlasts the previous @until_ns. Out: 0.
 * @first_token: in, for SET: the smallest token that a grant may have. Out: 0.
 * @last_token: in, for SET: the largest one. Out: the present value; 0 if the
 *	gate was shut, or its daemon is gone.
 * @token: in: ignored. Out: token of the newest grant on this host, or one less
 *	than the largest @first_token, whichever is larger.
 * @result: in, for SET that begins an opening: any of TLOCK_ABANDONED and
 *	TLOCK_REVOKED, for the first grant to return. Out: the result flags that no
 *	grant has returned yet: the daemon passes them on with the lock.
 * @reserved0: in: 0. Out: 0.
 * @holder: in, for SET: who holds the lock on another host, to show while the
 *	gate is shut: @token, @since_ns, @comm and @job. If @token is 0, nobody
 *	is known to hold it. The other fields must be 0. Out: the holder, as in
 *	struct tlock_status.
 * @host: in, for SET: name of that host, up to 63 bytes and a NUL, without control
 *	characters. Out: that name while the gate is shut, and otherwise empty.
 * @reserved: in: 0. Out: 0.
 */
struct tlock_gate {
	__u32 op;
	__u32 flags;
	__u32 state;
	__u32 waiters;
	__u64 opening;
	__s64 until_ns;
	__u64 grace_ns;
	__u64 first_token;
	__u64 last_token;
	__u64 token;
	__u32 result;
	__u32 reserved0;
	struct tlock_holder holder;
	char host[TLOCK_HOST_SIZE];
	__u64 reserved[4];
};

/*
 * Any other command fails with ENOTTY, and an argument that cannot be read or
 * written with EFAULT. If several errors apply, EBADF or ENODEV comes first,
 * then EFAULT, EINVAL, ESTALE, and ECANCELED for a ticket.
 */
#define TLOCK_IOC_MAGIC	0xBC

/**
 * TLOCK_IOC_ACQUIRE - acquire the lock, waiting for it if necessary
 *
 * Errors, after which the caller does not hold the lock by this call:
 *
 * EBADF: the file is not open for writing; ENODEV instead if the lock was
 * deleted. EINVAL: @flags, @reserved or @job is invalid. ESTALE: this file's
 * grant was revoked, see TLOCK_IOC_REVOKE; reported once, and nothing else was
 * done. EDEADLK: this file already holds the lock, and keeps it. EBUSY: another
 * thread waits on this file. ETIMEDOUT: the deadline has passed; @holder says
 * who has the lock. ECANCELED: this file has no request with this @ticket, or
 * TLOCK_IOC_RELEASE withdrew the request or ended its grant before this call
 * could return.
 *
 * EINTR: a signal handler without SA_RESTART ran. The request is away; @ticket
 * is its ticket. A call with that ticket resumes it in its place; a call with
 * ticket 0 replaces the request; TLOCK_IOC_RELEASE or closing the file
 * withdraws it. A handler with SA_RESTART, or an interruption in which no
 * handler runs (stop and continue, a freezer, a debugger, io_uring), does not
 * end the wait, which continues in place, with the same deadline.
 *
 * EFAULT while the ticket or the time left is written withdraws the request.
 *
 * With TLOCK_ASYNC the call never sleeps. EINPROGRESS: the request waits by
 * itself; it is never away. poll(2) reports POLLOUT once it is decided. Then a
 * call with its ticket and TLOCK_ASYNC fetches the outcome, once: 0, or
 * ETIMEDOUT with the holder at the instant it was decided. Before, such a call
 * fails with EINPROGRESS again. A call with its ticket and without TLOCK_ASYNC,
 * or the other way round, fails with EINVAL. Until the outcome is fetched, all
 * calls without its ticket fail with EBUSY, but for TLOCK_IOC_RELEASE, which
 * withdraws the request or gives the lock back.
 *
 * A grant that no call has fetched lasts until another contender wants the lock
 * after the request's deadline, or after the end of the process that made it,
 * which may take a second to be noticed. Then the lock passes on, and the
 * request fails with ETIMEDOUT; this is not a revocation. Closing the file
 * before that is not an abandonment.
 *
 * poll(2) reports, on a file that is open for writing: POLLOUT unless the file
 * has a request that is not decided yet; POLLIN and POLLPRI while it holds the
 * lock and another contender waits; POLLERR and POLLPRI once its grant was
 * revoked, until a call has returned ESTALE.
 */
#define TLOCK_IOC_ACQUIRE	_IOWR(TLOCK_IOC_MAGIC, 0x00, struct tlock_acquire)

/**
 * TLOCK_IOC_RELEASE - end this file's grant or request
 *
 * If the file holds the lock, the longest waiter gets it. If the file has a
 * request, it is withdrawn, and a thread that sleeps for it gets ECANCELED.
 * After success the file neither holds the lock nor has a request.
 *
 * EPERM: this file neither holds the lock nor has a request. ESTALE: its grant
 * was revoked, see TLOCK_IOC_REVOKE; reported once.
 */
#define TLOCK_IOC_RELEASE	_IO(TLOCK_IOC_MAGIC, 0x01)

/**
 * TLOCK_IOC_REACQUIRE - let the waiters in, and acquire the lock again
 *
 * In one step: the longest waiter gets the lock, and the caller waits behind
 * everyone who waits now and ahead of everyone who comes later. If nobody
 * waits, the call returns at once and the caller keeps the lock and its token.
 *
 * With TLOCK_RENEW, the call only renews the lease, and may change the job and
 * @lease_ns: the caller keeps the lock and its token, whoever waits.
 * @timeout_ns is ignored.
 *
 * EPERM: this file does not hold the lock. EBUSY: another thread waits on this
 * file. EBADF, ENODEV, EINVAL and ESTALE as for TLOCK_IOC_ACQUIRE; after EINVAL
 * a holder keeps the lock. TLOCK_RENEW with a @ticket or TLOCK_ASYNC is EINVAL.
 *
 * ETIMEDOUT, EINTR and ECANCELED as for TLOCK_IOC_ACQUIRE: the caller does not
 * hold the lock. After EINTR either call resumes the request with its ticket;
 * without a ticket TLOCK_IOC_REACQUIRE returns EPERM, and the request stays.
 * ECANCELED for a ticket while the file holds the lock: it keeps the lock.
 *
 * EFAULT: if the argument cannot be read or written when the call begins, but
 * for @holder, nothing changes. If that happens during the wait, or if @holder
 * cannot be written when the deadline has passed, the caller does not hold the
 * lock.
 */
#define TLOCK_IOC_REACQUIRE	_IOWR(TLOCK_IOC_MAGIC, 0x02, struct tlock_acquire)

/**
 * TLOCK_IOC_STATUS - describe the lock; needs no write permission
 *
 * ENODEV: the lock was deleted.
 */
#define TLOCK_IOC_STATUS	_IOR(TLOCK_IOC_MAGIC, 0x03, struct tlock_status)

/**
 * TLOCK_IOC_WAITER - describe the next waiter
 *
 * Needs no write permission, and never waits. Begin with @ticket 0, and repeat
 * the call with what it returned. A waiter that joins or leaves the queue between
 * two calls may be seen or not.
 *
 * ENOENT: no waiter has a larger @ticket. EINVAL: @reserved is not 0. ENODEV: the
 * lock was deleted.
 */
#define TLOCK_IOC_WAITER	_IOWR(TLOCK_IOC_MAGIC, 0x04, struct tlock_waiter)

/**
 * TLOCK_IOC_REVOKE - take the lock from a holder that hangs
 *
 * A grant may have an expiry: the end of its lease or of the grace given here,
 * whichever is earlier. After its expiry, a grant lasts until another contender
 * wants the lock, that is, waits or tries, by ioctl(2) or flock(2). Then the
 * grant is revoked, and the lock passes on. With @grace_ns 0, that happens at
 * once. A second call can shorten the grace, but not prolong it; nor can
 * renewing the lease. When the system resumes from a suspend, all leases begin
 * anew.
 *
 * The next holder finds TLOCK_REVOKED in @result. The file that lost the lock
 * reports POLLERR, and its next TLOCK_IOC_ACQUIRE, TLOCK_IOC_REACQUIRE,
 * TLOCK_IOC_RELEASE or flock(2) fails with ESTALE, once.
 *
 * Until then, what the old holder sends to the instrument may arrive after
 * commands of the next holder: only an instrument that refuses old tokens is
 * safe.
 *
 * The file may be any of the lock that is open for writing. The caller must
 * have the effective user of the holder, or CAP_KILL in the initial user
 * namespace.
 *
 * EBADF: the file is not open for writing; ENODEV instead if the lock was deleted.
 * EINVAL: @flags or @reserved is not 0. ESTALE: @token is not that of the present
 * grant; nothing was done. EPERM: the caller may not revoke this grant. EREMOTE: it
 * is the grant of another host.
 */
#define TLOCK_IOC_REVOKE	_IOW(TLOCK_IOC_MAGIC, 0x05, struct tlock_revoke)

/**
 * TLOCK_IOC_MONITOR - have this file report what happens to the lock
 *
 * For a file that is open for reading only. From now on, read(2) returns one or
 * more struct tlock_event, in the order in which they happened. Contenders never
 * wait for a reader: a reader that is too slow loses the oldest events, and learns
 * how many. A reader that waits may be woken some milliseconds after an event.
 * Of threads that read the same file, only one gets each event.
 *
 * read(2) waits for an event, unless O_NONBLOCK is set; then it fails with
 * EAGAIN. It fails with EINVAL if the buffer is too small for an event, and
 * returns 0 once the lock has been deleted and all events were read. poll(2)
 * reports POLLIN if there is an event, and POLLHUP once the lock has been deleted.
 *
 * EBADF: the file is open for writing. EBUSY: the file reports already, or is
 * attached to the lock's gate. ENODEV: the lock was deleted. ENOMEM: not enough
 * memory.
 */
#define TLOCK_IOC_MONITOR	_IO(TLOCK_IOC_MAGIC, 0x06)

/**
 * TLOCK_IOC_GATE - look at the gate of a lock, or be its daemon
 *
 * Only a lock that was created as gated has a gate. It is shut from the
 * beginning, and whenever no daemon is attached. While it is shut, nobody is
 * granted the lock on this host; contenders wait, time out and learn the holder
 * as usual. A grant that was made before lasts until the opening ends.
 *
 * TLOCK_GATE_LOOK needs no permission.
 *
 * TLOCK_GATE_ATTACH makes this file the gate's daemon, until it is closed. The
 * file must be open for reading only, and the caller needs CAP_SYS_ADMIN in the
 * initial user namespace. From now on, poll(2) on the file reports POLLIN if
 * there is news, until the file's next TLOCK_IOC_GATE: while the gate was shut,
 * somebody began to wait or tried to acquire the lock, or the last waiter left;
 * a grant ended while the gate was shut or recalled; or the opening ended by
 * itself. It reports POLLHUP once the lock was deleted.
 *
 * TLOCK_GATE_SET is for the daemon, and states what holds from now on. With the
 * number of the newest opening it changes that opening, or, if @until_ns has
 * passed, ends it: at once, or if there is a grant, together with that. With
 * the next number, once the newest opening is over, it begins an opening; if
 * @until_ns has passed, that is over, too, so that no delayed call can begin it
 * any more.
 *
 * At @until_ns an opening is over, and the present grant, if there is one, is
 * revoked, whether somebody waits or not. So a daemon that is frozen or dead
 * cannot leave the lock with this host for longer than it had been sure of.
 * Once an opening is over, no contender of this host holds the lock, and the
 * daemon may let another host have it.
 *
 * EBADF: ATTACH on a file that is open for writing. ENODEV: the lock was
 * deleted. EINVAL: a field is invalid. EOPNOTSUPP: the lock has no gate. EPERM:
 * ATTACH without the capability, or SET on a file that is not attached. EBUSY:
 * ATTACH while any file is attached, or on a file that reports events; or SET
 * with the next number while the newest opening is not over. ESTALE: SET with
 * another number, or that would change an opening that is over. After EBUSY and
 * ESTALE of SET, nothing was done, but the structure is filled in.
 */
#define TLOCK_IOC_GATE	_IOWR(TLOCK_IOC_MAGIC, 0x07, struct tlock_gate)

#endif /* _UAPI_LINUX_TLOCK_H */
