/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A history: what everybody did with a lock, as they saw it; and the judge,
 * who tells whether a lock that keeps its promises can have answered so.
 *
 * A history lies in memory that is shared with all who write it, and is only
 * ever added to: who is killed leaves everything behind, up to the call that
 * it was in, whose beginning is known.
 */
#ifndef TLOCK_SELFTESTS_CHAOS_H
#define TLOCK_SELFTESTS_CHAOS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <linux/tlock.h>

#define MAX_PROCESSES	1024
#define MAX_ACTORS	2048
#define NOBODY		(~0U)

/* How late a timeout may be: what a stalled machine may do to it */
#define OVERLONG	(10 * SEC)

enum kind {
	OPEN,		/* a new file */
	CLOSE,
	FORK,		/* the process @peer inherits the file */
	SEND,		/* to the process @peer */
	RECEIVE,
	ACQUIRE,
	REACQUIRE,
	FLOCK,		/* LOCK_EX, with LOCK_NB if it only tries */
	RELEASE,
	UNLOCK,		/* flock()'s */
	STATUS,
	LOOK,		/* at a file of the own process, in its fdinfo */
};

/* A holder as somebody saw it */
struct sight {
	__u64 token;
	__u64 since_ns;
	__s32 pid;
	__u32 uid;
	__u32 comm;	/* process with that name; NOBODY: some other name */
	__u32 job;	/* record whose job it is; NOBODY: none has such a job */
};

/* The empty job, which flock() gives */
#define EMPTY_JOB	(NOBODY - 1)

/* The counters that the judge keeps count of */
enum count {
	ACQUIRED,
	CONTENDED,
	TIMED_OUT,
	INTERRUPTED,
	ABANDONED,
	YIELDED,
	COUNTS
};

struct counters {
	__u64 count[COUNTS];
	__u64 wait_ns_total, wait_ns_max, hold_ns_total, hold_ns_max;
};

/* The kinds of signals that are sent */
enum { RESTARTS, FAILS, SIGNALS };

/*
 * A call. Times are around it; no begin: no record; no end: killed in it.
 * @timeout_ns and @ticket are what was passed, @left_ns and @left_ticket what
 * was there afterwards. flock() returns no token: a STATUS after it does, in the
 * same record. A LOOK has the token of a file that holds the lock, or the ticket
 * of one that waits.
 */
struct record {
	_Atomic __s64 begin;
	_Atomic __s64 end;
	__u8 kind;
	bool keeps_job;			/* a reacquire's empty one */
	__u16 actor;
	__u32 file;
	__u32 peer;
	__s32 ret;			/* 0 or the negative errno */
	__s64 timeout_ns, left_ns;
	__u64 ticket, left_ticket;
	__u64 token;
	__u32 result;
	__u32 waiters;
	__u32 before[SIGNALS], after[SIGNALS];	/* signals handled */
	__u32 stops_before, stops_after;
	struct sight holder;
	__u64 count[COUNTS];
};

struct process {
	__s32 pid;		/* in the first namespace */
	__u32 uid;		/* there too */
	bool own_pids;		/* its own pid namespace, where it is 1 */
	bool own_uids;		/* a user namespace: 0 is 0, 1 its uid */
	/* Odd: it is stopped, or may not be quite itself again */
	atomic_uint stops;
	_Atomic __s64 doomed;	/* does not end before that; 0: unknown */
	_Atomic __s64 reaped;	/* has ended by then; 0: by the history's end */
};

/* A thread */
struct actor {
	__u32 process;
	atomic_uint signals[SIGNALS];
};

struct history {
	__u64 first;			/* newest token when it began */
	struct counters before, after;
	__s64 begin, end;		/* nobody was there before and after */
	bool stuck;			/* some did not end by themselves */
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
	TOLD_ABANDONED,
	ERRNO,
	TICKETS,
	CANCELED,
	WAITERS,
	COUNTERS,
	STARVED,
	RULES
};

struct verdict {
	enum rule rule;		/* the first that was broken */
	char why[256];
};

extern const char *const rule_names[RULES];
extern const char *const count_names[COUNTS];

struct verdict judge(struct history *history);

/* Tests of the judge: how many there are; the name of one, and if it passes */
extern const unsigned int doctored_tests;
bool test_judge(unsigned int i, char *name, size_t size);

#endif /* TLOCK_SELFTESTS_CHAOS_H */
