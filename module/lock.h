/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The lock and its contenders. Knows nothing of files or user space memory.
 */
#ifndef TLOCK_LOCK_H
#define TLOCK_LOCK_H

#include <linux/mutex.h>
#include <linux/pid.h>
#include <linux/tlock.h>
#include <linux/uidgid.h>
#include <linux/wait.h>

struct tlock_wait;

/**
 * struct tlock - a lock
 * @mutex: guards all of the lock, and all of its contenders
 * @queue: places of the contenders that wait, longest first
 * @waiters: how many they are; while there are any, somebody holds the lock
 * @holder: who holds it; NULL: nobody
 * @token: newest grant's; the first is 1, so this also counts the grants
 * @abandoned: the last holder went without a release and no grant has told yet
 * @contended: see struct tlock_status for this and those below
 * @timed_out: ditto
 * @interrupted: ditto
 * @abandonments: ditto, there called abandoned
 * @yielded: ditto
 * @wait_ns_total: ditto
 * @wait_ns_max: ditto
 * @hold_ns_total: ditto
 * @hold_ns_max: ditto
 */
struct tlock {
	struct mutex mutex;	/* guards all that follows */
	wait_queue_head_t queue;
	u32 waiters;
	struct tlock_contender *holder;
	u64 token;
	bool abandoned;

	u64 contended;
	u64 timed_out;
	u64 interrupted;
	u64 abandonments;
	u64 yielded;
	u64 wait_ns_total;
	u64 wait_ns_max;
	u64 hold_ns_total;
	u64 hold_ns_max;
};

/**
 * struct tlock_contender - somebody who may take the lock
 * @lock: the lock
 * @wait: the wait that goes on; NULL: none
 * @place: its place in the lock's queue
 * @token: newest grant's
 * @since_ns: when that was granted
 * @pid: process that acquired last; NULL: none yet
 * @uid: its effective user then
 * @comm: its command name then
 * @job: what it said that it would do
 *
 * Idle if it neither waits nor is its lock's holder.
 */
struct tlock_contender {
	struct tlock *lock;
	struct tlock_wait *wait;
	wait_queue_entry_t place;
	u64 token;
	u64 since_ns;
	struct pid *pid;
	kuid_t uid;
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE];
};

void tlock_init(struct tlock *lock);
void tlock_look(struct tlock *lock, struct tlock_status *status);

void tlock_enter(struct tlock_contender *c, struct tlock *lock);
void tlock_leave(struct tlock_contender *c);
int tlock_acquire(struct tlock_contender *c, struct tlock_acquire *arg);
u64 tlock_keep(struct tlock_contender *c);
int tlock_reacquire(struct tlock_contender *c, struct tlock_acquire *arg);
int tlock_release(struct tlock_contender *c);
void tlock_decline(struct tlock_contender *c, const struct tlock_acquire *arg);

#endif /* TLOCK_LOCK_H */
