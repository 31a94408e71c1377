/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The lock and its contenders. Knows nothing of files or user space memory.
 *
 * Locking: the lock's spinlock guards all of struct tlock and all of its
 * contenders. It is held for a bounded, short time: O(log waiters), never
 * across a wake-up, put_pid() or an access to user memory. It is a raw
 * spinlock because whoever holds it must get on: a looker that could be
 * preempted or throttled while it holds the lock would stall every contender.
 *
 * What is read without it: tlock_reacquire_fast() reads @holder and @waiters,
 * and of the holder @pid, @token and @job. These are written with WRITE_ONCE()
 * or smp_store_release() for that. A sleeper reads @holder and @token to see
 * whether its grant still stands.
 *
 * Lifetime: a contender lives as long as its open file. A file cannot be closed
 * while one of its calls runs, so whatever is in the queue, or holds the lock,
 * exists. The open file also keeps the lock: see struct tlock_device.
 */
#ifndef TLOCK_LOCK_H
#define TLOCK_LOCK_H

#include <linux/pid.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/tlock.h>
#include <linux/uidgid.h>

struct tlock_wait;

/**
 * struct tlock - a lock
 * @spinlock: guards the lock and its contenders
 * @queue: waiting contenders, by ticket
 * @holder: the contender that holds the lock; NULL: the lock is free
 * @waiters: contenders in @queue; while there are any, there is a @holder
 * @pending_result: result flags that no call has returned yet
 * @token: the newest grant's
 * @ticket: the newest request's
 * @acquired: grants; see struct tlock_status for this and those below
 * @contended: acquires that found the lock held
 * @timed_out: requests that ended with ETIMEDOUT
 * @interrupted: requests that went away
 * @abandoned: holders that closed the file without a release
 * @yielded: reacquires that let a waiter in
 * @wait_ns_total: all waits
 * @wait_ns_max: the longest one
 * @hold_ns_total: all grants that have ended
 * @hold_ns_max: the longest one
 */
struct tlock {
	raw_spinlock_t spinlock;
	struct rb_root_cached queue;
	struct tlock_contender *holder;
	u32 waiters;
	u32 pending_result;
	u64 token;
	u64 ticket;

	u64 acquired;
	u64 contended;
	u64 timed_out;
	u64 interrupted;
	u64 abandoned;
	u64 yielded;
	u64 wait_ns_total;
	u64 wait_ns_max;
	u64 hold_ns_total;
	u64 hold_ns_max;
};

/**
 * struct tlock_contender - one that may take the lock
 * @lock: the lock
 * @node: in the lock's queue, while a thread sleeps for the request
 * @wait: the sleeping thread's; NULL: no thread sleeps
 * @ticket: the request's; 0: there is none
 * @timeout_ns: the request's, as in struct tlock_acquire
 * @asked_ns: when the request was made
 * @away_ns: when the request last went away; 0: it never did
 * @token: the newest grant's
 * @since_ns: when that was granted
 * @pid: the process that asked last; NULL: none yet
 * @uid: its effective user then
 * @flock: flock(2) asked: closing the file is then the usual end of a grant
 * @comm: its command name then
 * @job: what it said that it would do
 *
 * A contender is the lock's holder, or has a request, or is idle. A request
 * with a sleeping thread waits; one without is away.
 */
struct tlock_contender {
	struct tlock *lock;
	struct rb_node node;
	struct tlock_wait *wait;
	u64 ticket;
	s64 timeout_ns;
	u64 asked_ns;
	u64 away_ns;
	u64 token;
	u64 since_ns;
	struct pid *pid;
	kuid_t uid;
	bool flock;
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE] __aligned(sizeof(long));
};

/* A bit of tlock_acquire.flags in here, where user space has none: flock(2) asks */
#define TLOCK_FLOCK	0x80000000U

/**
 * enum tlock_state - what a contender does
 * @TLOCK_IDLE: it neither holds the lock nor has a request
 * @TLOCK_WAITING: it has a request, and a thread sleeps for it
 * @TLOCK_AWAY: it has a request, and no thread sleeps for it
 * @TLOCK_HOLDING: it holds the lock
 */
enum tlock_state {
	TLOCK_IDLE,
	TLOCK_WAITING,
	TLOCK_AWAY,
	TLOCK_HOLDING,
};

void tlock_init(struct tlock *lock, u64 token);
void tlock_get_status(struct tlock *lock, struct tlock_status *status);

void tlock_contender_init(struct tlock_contender *c, struct tlock *lock);
void tlock_contender_exit(struct tlock_contender *c);
enum tlock_state tlock_contender_state(struct tlock_contender *c, u64 *number);

int tlock_acquire(struct tlock_contender *c, struct tlock_acquire *arg);
u64 tlock_reacquire_fast(struct tlock_contender *c);
int tlock_reacquire(struct tlock_contender *c, struct tlock_acquire *arg);
int tlock_release(struct tlock_contender *c);
void tlock_undo(struct tlock_contender *c, const struct tlock_acquire *arg);

#endif /* TLOCK_LOCK_H */
