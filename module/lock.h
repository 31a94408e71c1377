/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The lock and its contenders. Nothing here knows of files or user memory.
 *
 * Locking: the lock's spinlock guards all of struct tlock and all of its
 * contenders. It is held for a bounded, short time: O(log waiters), never
 * across a wake-up, put_pid() or an access to user memory. It is a raw spinlock
 * because its owner must not be preempted or throttled, not even on PREEMPT_RT:
 * a process that only reads the status could then stall every contender.
 *
 * Two timers take it, too, so interrupts are off while it is held.
 *
 * Read without the spinlock: tlock_reacquire_fast() and tlock_poll_events()
 * read @holder and @attention of the lock, @until_ns and @news of its gate, and
 * @pid, @token, @queued and @revoked of the contender; tlock_renew_fast() reads
 * @lease_ns, and changes @renewed_ns. A thread that slept reads @holder and
 * @token to see whether its grant still stands. All of these are written with
 * WRITE_ONCE() or smp_store_release(). The contender's @job is read by
 * tlock_ioctl_reacquire_fast(): see tlock_set_identity().
 *
 * Lifetime: a contender lives as long as its open file. A file is not released
 * while one of its calls runs, so every contender that is in the queue or holds
 * the lock exists. An open file also keeps its lock: see struct tlock_device.
 * Pollers are woken after the spinlock is released, when their contender may be
 * gone. Its memory is then still, or again, that of a contender, until the end
 * of the RCU read-side section: see tlock_contender_ctor().
 */
#ifndef TLOCK_LOCK_H
#define TLOCK_LOCK_H

#include <linux/hrtimer.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/tlock.h>
#include <linux/uidgid.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

/* How long waits last: up to 1 ms, 10 ms, ... 100 s, and longer */
#define TLOCK_WAITS	7

struct tlock_gate_state;
struct tlock_record;
struct tlock_wait;

/**
 * struct tlock_lost - a grant that its holder lost, to report it
 * @token: its token
 * @pid: the holder's process, as the initial pid namespace sees it
 * @job: the holder's job
 */
struct tlock_lost {
	u64 token;
	pid_t pid;
	char job[TLOCK_JOB_SIZE];
};

/**
 * struct tlock - a lock
 * @spinlock: guards the lock and its contenders
 * @queue: waiting contenders, by ticket
 * @holder: the contender that holds the lock; NULL if the lock is free
 * @waiters: number of contenders in @queue; 0 if @holder is NULL
 * @unfetched: whether no call has fetched the grant of @holder
 * @revoking: whether that grant is being revoked, at @revoke_ns
 * @expiring: both of these: not 0 if one of them is not
 * @recalled: whether another host wants the lock; see gate.c
 * @gated: whether the lock has a gate
 * @attention: all of these, likewise
 * @pending_result: result flags that no call has returned yet
 * @expiry: ends a grant that has expired while somebody waits
 * @gate: the lock's gate; NULL if it has none
 * @records: the newest events; NULL while nobody monitors the lock. See
 *	monitor.c for this and the fields below.
 * @num_monitors: number of files that monitor it
 * @deleted: whether the last event was recorded
 * @seq: number of the newest event
 * @wake_readers: wakes the readers
 * @readers: those who read or poll files that are open for reading only
 * @token: token of the newest grant
 * @ticket: ticket of the newest request that waited
 * @revoke_ns: when the grace of a revocation ends
 * @report: sends the uevent of a revocation
 * @lost: the newest grant that was revoked
 * @acquired: grants; see struct tlock_status for this and the fields below
 * @contended: acquires that found the lock held
 * @timed_out: requests that ended with ETIMEDOUT
 * @interrupted: requests that went away
 * @abandoned: holders that closed the file without a release
 * @revoked: grants that were revoked
 * @yielded: reacquires that let a waiter in
 * @waits: number of waits that have ended, by how long they were
 * @wait_ns_total: sum of all waits that have ended
 * @wait_ns_max: the longest of them
 * @hold_ns_total: sum of all grants that have ended
 * @hold_ns_max: the longest of them
 */
struct tlock {
	raw_spinlock_t spinlock;
	struct rb_root_cached queue;
	struct tlock_contender *holder;
	union {
		struct {
			u32 waiters;
			union {
				struct {
					u8 unfetched;
					u8 revoking;
				};
				u16 expiring;
			};
			u8 recalled;
			u8 gated;
		};
		u64 attention;
	};
	u32 pending_result;
	u64 token;
	u64 ticket;
	u64 revoke_ns;
	struct hrtimer expiry;
	struct tlock_gate_state *gate;
	struct delayed_work report;
	struct tlock_lost lost;

	struct tlock_record *records;
	unsigned int num_monitors;
	bool deleted;
	u64 seq;
	struct delayed_work wake_readers;
	wait_queue_head_t readers;

	u64 acquired;
	u64 contended;
	u64 timed_out;
	u64 interrupted;
	u64 abandoned;
	u64 revoked;
	u64 yielded;
	u64 waits[TLOCK_WAITS];
	u64 wait_ns_total;
	u64 wait_ns_max;
	u64 hold_ns_total;
	u64 hold_ns_max;
};

/**
 * struct tlock_identity - whose grant it is, in kernel objects
 * @token: token of the grant
 * @since_ns: when the lock was granted with that token
 * @pid: the process that asked last; NULL if none has asked yet
 * @uid: its effective user at that time
 * @comm: its command name at that time
 * @job: the job that it gave
 */
struct tlock_identity {
	u64 token;
	u64 since_ns;
	struct pid *pid;
	kuid_t uid;
	char comm[TLOCK_COMM_SIZE];
	char job[TLOCK_JOB_SIZE] __aligned(sizeof(long));
};

/**
 * struct tlock_contender - a party that competes for the lock
 * @pollers: those who poll the file. Outlives the contender, see above.
 * @lock: the lock
 * @node: entry in the lock's queue
 * @queued: whether it is in the queue
 * @async: whether the request is asynchronous; false if there is none
 * @flock: it asked by flock(2): closing the file is then no abandonment
 * @wait: the sleep of a thread for the request; NULL if no thread sleeps
 * @ticket: ticket of the request; 0 if there is none
 * @timeout_ns: timeout of the request, as in struct tlock_acquire
 * @asked_ns: when the request was made
 * @ended_ns: when the request last went away, or was decided; 0 if neither has
 *	happened
 * @lease_ns: lease of its grant or request, as in struct tlock_acquire
 * @renewed_ns: when the lease last began; 0 once it has ended. Also changed
 *	without the spinlock, see tlock_renew_fast().
 * @revoked: token of its grant if that was revoked, and no call has returned
 *	ESTALE yet; or 0
 * @timer: ends an asynchronous request at its deadline
 * @next_seq: number of the next event to read from a file that monitors the
 *	lock; 0 if the file does not
 * @id: of the process that asked last, and of its newest grant
 * @blocker: of the grant because of which an asynchronous request failed
 * @blocker_flags: of that grant, as in struct tlock_holder
 * @blocker_expires_ns: when that grant expires, as in struct tlock_holder
 *
 * A contender has a request, holds the lock, or is idle; see
 * enum tlock_state. A request is asynchronous, or a thread sleeps for it, or it
 * is away.
 */
struct tlock_contender {
	wait_queue_head_t pollers;
	struct tlock *lock;
	struct rb_node node;
	bool queued;
	bool async;
	bool flock;
	struct tlock_wait *wait;
	u64 ticket;
	s64 timeout_ns;
	u64 asked_ns;
	u64 ended_ns;
	u64 lease_ns;
	u64 renewed_ns;
	u64 revoked;
	struct hrtimer timer;
	u64 next_seq;
	struct tlock_identity id;
	struct tlock_identity blocker;
	u32 blocker_flags;
	u64 blocker_expires_ns;
};

/* What struct tlock.attention is if only @gated is set */
#define TLOCK_ONLY_GATED	((__force u64)cpu_to_le64(1ULL << 56))

/* In tlock_acquire.flags, but only inside the kernel: the caller is flock(2) */
#define TLOCK_FLOCK	0x80000000U

/**
 * enum tlock_state - what a contender is doing
 * @TLOCK_IDLE: it neither holds the lock nor has a request
 * @TLOCK_WAITING: it has a request, which is in the queue
 * @TLOCK_AWAY: it has a request, for which no thread sleeps
 * @TLOCK_DECIDED: it has a request that is decided, and nobody has fetched the
 *	outcome; it holds the lock if that was a grant
 * @TLOCK_HOLDING: it holds the lock
 * @TLOCK_STALE: its grant was revoked, and no call has returned ESTALE yet
 */
enum tlock_state {
	TLOCK_IDLE,
	TLOCK_WAITING,
	TLOCK_AWAY,
	TLOCK_DECIDED,
	TLOCK_HOLDING,
	TLOCK_STALE,
};

/**
 * struct tlock_deferred - work to do once the spinlock is released
 * @wake: a thread to wake, or NULL
 * @poll: a contender whose pollers to wake, or NULL
 * @put: a pid to put, or NULL
 */
struct tlock_deferred {
	struct task_struct *wake;
	struct tlock_contender *poll;
	struct pid *put;
};

/* gate.c */
u32 tlock_gate_flags(const struct tlock *lock);

/* The flags of the present grant, as in struct tlock_holder */
static inline u32 tlock_holder_flags(const struct tlock *lock)
{
	return (lock->unfetched ? TLOCK_UNFETCHED : 0) |
	       (lock->holder->lease_ns ? TLOCK_LEASED : 0) |
	       (lock->revoking ? TLOCK_REVOKING : 0) |
	       (unlikely(lock->gate) ? tlock_gate_flags(lock) : 0);
}

void tlock_init(struct tlock *lock, u64 token);
void tlock_exit(struct tlock *lock);
u64 tlock_newest_token(struct tlock *lock);
void tlock_get_status(struct tlock *lock, struct tlock_status *status);
void tlock_describe_holder(struct tlock *lock, struct tlock_holder *holder);
void tlock_get_waits(struct tlock *lock, u64 *waits);
int tlock_get_waiter(struct tlock *lock, struct tlock_waiter *waiter);

void tlock_contender_ctor(void *contender);
void tlock_contender_init(struct tlock_contender *c, struct tlock *lock);
bool tlock_contender_exit(struct tlock_contender *c);
enum tlock_state tlock_contender_state(struct tlock_contender *c, u64 *ticket,
				       u64 *token);

int tlock_acquire(struct tlock_contender *c, struct tlock_acquire *arg);
u64 tlock_reacquire_fast(struct tlock_contender *c);
bool tlock_renew_fast(struct tlock_contender *c, u64 token);
__poll_t tlock_poll_events(struct tlock_contender *c);
int tlock_reacquire(struct tlock_contender *c, struct tlock_acquire *arg);
int tlock_release(struct tlock_contender *c);
int tlock_revoke(struct tlock *lock, const struct tlock_revoke *arg, bool any);
void tlock_take_away(struct tlock *lock, u64 now, struct tlock_deferred *todo);
void tlock_gate_changed(struct tlock *lock, u64 now,
			struct tlock_deferred *todo);
void tlock_unlock(struct tlock *lock, struct tlock_deferred *todo)
	__releases(&lock->spinlock);
void tlock_suspend(bool suspended);
void tlock_describe_lost(const struct tlock_contender *c,
			 struct tlock_lost *lost);
void tlock_undo(struct tlock_contender *c, const struct tlock_acquire *arg);

#endif /* TLOCK_LOCK_H */
