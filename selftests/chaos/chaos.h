/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A history records what every process did with some locks, as that process saw
 * it. The judge decides whether locks that keep their promises can have given
 * those answers. As locks know nothing of each other, it judges each by itself:
 * by the records with its minor number.
 *
 * A history is in memory shared by all processes that write it, and nothing in
 * it is ever removed. So a process that is killed leaves all of its records
 * behind, including the beginning of the call that it was in.
 */
#ifndef TLOCK_SELFTESTS_CHAOS_H
#define TLOCK_SELFTESTS_CHAOS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <linux/tlock.h>

#define MAX_PROCESSES	1024
#define MAX_ACTORS	2048
#define MAX_LOCKS	256
#define NOBODY		(~0U)

/* How late a timeout may be, to allow for a stalled machine */
#define OVERLONG	(10 * SEC)

enum kind {
	OPEN,		/* a new file */
	CLOSE,
	FORK,		/* the process @peer inherits the file */
	SEND,		/* to the process @peer */
	RECEIVE,
	ACQUIRE,
	REACQUIRE,
	FLOCK,		/* LOCK_EX, with LOCK_NB if the timeout is 0 */
	RELEASE,
	UNLOCK,		/* LOCK_UN of flock() */
	REVOKE,		/* the grant with @token, after @timeout_ns */
	STATUS,
	LOOK,		/* at the fdinfo of a file of its own process */
	POLL,		/* by poll or epoll */
	CREATE,		/* a lock */
	DELETE,
};

/* A holder, as somebody saw it */
struct sight {
	__u64 token;
	__u64 since_ns;
	__s32 pid;
	__u32 uid;
	__u32 comm;	/* process with that name; NOBODY: none has it */
	__u32 job;	/* record with that job; NOBODY: none has it */
	bool unfetched;	/* no call had returned the grant yet */
	bool leased, revoking;
	__s64 expires_ns;
};

/* The empty job, as of a lock that was acquired by flock() */
#define EMPTY_JOB	(NOBODY - 1)

/* The counters that the judge recounts */
enum count {
	ACQUIRED,
	CONTENDED,
	TIMED_OUT,
	INTERRUPTED,
	ABANDONED,
	REVOKED,
	YIELDED,
	COUNTS
};

struct counters {
	__u64 count[COUNTS];
	__u64 wait_ns_total, wait_ns_max, hold_ns_total, hold_ns_max;
};

/* The kinds of signals that are sent: whether calls restart after them */
enum { RESTARTS, FAILS, SIGNALS };

/*
 * A call. @begin and @end are the times just before and just after it. Without
 * @begin there is no record; without @end, the caller was killed in the call.
 * @timeout_ns and @ticket are what was passed, @left_ns and @left_ticket what
 * was there afterwards. flock() returns no token, so its record has the token
 * that is seen afterwards, or ESTALE if the grant was revoked by then. A LOOK has the token of a file that holds the lock,
 * or the ticket of one that waits. Which lock a name led to is known only when
 * it has been opened or created. A POLL that returned 0 has the events that were
 * there, of those that were wanted and POLLERR, at one instant in the call.
 */
struct record {
	_Atomic __s64 begin;
	_Atomic __s64 end;
	__u8 kind;
	bool keeps_job;			/* the job passed is empty */
	bool reader;			/* OPEN: for reading only */
	bool async;			/* with TLOCK_ASYNC */
	bool renews;			/* with TLOCK_RENEW */
	__u8 name;			/* OPEN, CREATE, DELETE: which */
	__u16 actor;
	__u32 minor;			/* of the lock; NOBODY: unknown */
	__u32 file;
	__u32 peer;
	__s32 ret;			/* 0 or the negative errno */
	__s64 timeout_ns, left_ns;
	__u64 ticket, left_ticket;
	__u64 token;
	__u64 lease_ns;
	__u32 result;
	__u32 waiters;
	__u32 before[SIGNALS], after[SIGNALS];	/* signals handled */
	__u32 stops_before, stops_after;
	__s16 wanted, events;		/* as in struct pollfd */
	struct sight holder;
	__u64 count[COUNTS];
};

/* What a monitor of the lock read: see struct tlock_event */
struct event {
	__u32 kind;
	__u32 lost;
	__u64 seq;
	__s64 time_ns;
	__u64 token;
	__u64 ticket;
	struct sight of;	/* whose it is; its token and time are not used */
};

struct process {
	__s32 pid;		/* in the first namespace */
	__u32 uid;		/* in the first namespace */
	bool own_pids;		/* has a pid namespace, in which it is 1 */
	bool own_uids;		/* has a user namespace: 0 is 0, 1 is @uid */
	/* Odd: it is stopped, or threads may still be affected by a stop */
	atomic_uint stops;
	_Atomic __s64 doomed;	/* has not ended before; 0: unknown */
	_Atomic __s64 reaped;	/* has ended by then; 0: by @end of history */
};

/* A thread */
struct actor {
	__u32 process;
	atomic_uint signals[SIGNALS];
};

/*
 * A lock. A name that was deleted and created again is another lock, with
 * another minor number.
 */
struct lock {
	__u32 minor;
	__u64 first;			/* newest token at the beginning */
	struct counters before, after;
	bool temporary;			/* created and deleted meanwhile: only
					 * its records show @first and @after */
	/* Those between @before and @after; NULL if nobody monitored the lock */
	struct event *event;
	__u32 events;
};

struct history {
	__u32 locks;
	struct lock lock[MAX_LOCKS];
	__s64 begin, end;		/* no process runs outside of them */
	bool stuck;			/* some calls never ended */
	__u32 capacity;
	atomic_uint processes, actors, files, records;
	struct process process[MAX_PROCESSES];
	struct actor actor[MAX_ACTORS];
	struct record record[];
};

enum rule {
	ACCEPTED,
	EXCLUSION,
	TOKENS,
	FIFO,
	HAND_OVER,
	YIELD,
	EARLY,
	LATE,
	LEFT,
	HOLDER,
	REPORTED,
	ERRNO,
	TICKETS,
	CANCELED,
	WAITERS,
	COUNTERS,
	STARVED,
	NAMES,
	POLLED,
	EXPIRY,
	REVOCATION,
	STALE,
	EVENTS,
	RULES
};

struct verdict {
	enum rule rule;		/* the first that was broken, or ACCEPTED */
	__u32 lock;		/* by which lock, if by one of them */
	char why[256];
};

extern const char *const rule_names[RULES];
extern const char *const count_names[COUNTS];

/* Judges the first lock of a history, with all of its records */
struct verdict judge(struct history *history);
/* Judges a history of several locks */
struct verdict judge_locks(const struct history *history);
/* The part that one lock has in a history, to be freed by the caller */
struct history *history_of(const struct history *history, __u32 lock);

/* Tests of the judge: their number; runs one and returns if it passed */
extern const unsigned int doctored_tests;
bool test_judge(unsigned int i, char *name, size_t size);

#endif /* TLOCK_SELFTESTS_CHAOS_H */
