// SPDX-License-Identifier: GPL-2.0-only
/*
 * A timed, fair lock named after the job that holds it.
 *
 * A request that must wait is kept in a tree ordered by ticket, and a thread
 * sleeps for it. Code that ends a grant, for whatever reason, also decides the
 * leftmost request: still under the spinlock, it takes the request off the tree
 * and grants it the lock. Then it drops the spinlock and wakes the thread, with
 * preemption off in between. The hand-over is direct: a newcomer never finds the
 * lock free while somebody waits, and the woken thread has nothing left to
 * compete for.
 *
 * For an asynchronous request no thread sleeps. Its outcome stays in the
 * contender until a call fetches it, and its deadline is kept by a timer.
 *
 * A grant can have an expiry: it has a lease, it is being revoked, or no call
 * has fetched it yet. After that, it lasts until somebody else wants the lock.
 * While somebody waits, a timer ends it; a newcomer ends it by itself. So
 * nothing has to happen at an expiry that is in nobody's way, and renewing a
 * lease takes no lock.
 *
 * A thread that wakes for its deadline or a signal takes the spinlock and
 * checks its request. If the request was decided in the meantime, the decision
 * stands, so no grant is ever lost. Otherwise the thread takes the request off
 * the tree. After a signal the request is then away: it exists only in its
 * contender until a call resumes it, and delays nobody.
 */
#include <linux/cred.h>
#include <linux/hrtimer.h>
#include <linux/minmax.h>
#include <linux/pid_namespace.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "compat.h"
#include "gate.h"
#include "lock.h"
#include "monitor.h"

/*
 * The least time between two decisions of a lock's expiry timer, which runs as
 * a hard interrupt: other work needs the CPU, too.
 */
#define TLOCK_EXPIRY_STEP_NS	(20 * NSEC_PER_USEC)

/* How often to check whether the process behind an unfetched grant has ended */
#define TLOCK_EXPIRY_CHECK_NS	NSEC_PER_SEC

/**
 * struct tlock_wait - one sleep for a request, on the stack of its thread
 * @task: the sleeping thread; NULL once the request is decided
 * @err: 0 if the request was granted the lock, or how the wait ended
 * @until_ns: when the wait ended
 * @token: token of the grant
 * @result: result flags that were pending at the grant
 *
 * The outcome is kept here and not in the contender: before this thread runs,
 * another one may end that grant and even start the contender's next request.
 */
struct tlock_wait {
	struct task_struct *task;
	int err;
	u64 until_ns;
	u64 token;
	u32 result;
};

static __always_inline void tlock_unlock_and_wake(struct tlock *lock,
						  struct task_struct *task)
	__releases(&lock->spinlock)
{
	if (!task) {
		raw_spin_unlock_irq(&lock->spinlock);
		return;
	}
	/*
	 * A task that preempted us before the wake-up would delay the next
	 * holder, which may be more urgent. While preemption is off, RCU also
	 * keeps the thread from being freed if it exits without waiting for the
	 * wake-up.
	 */
	preempt_disable();
	raw_spin_unlock_irq(&lock->spinlock);
	wake_up_process(task);
	preempt_enable();
}

static noinline void tlock_unlock_and_poll(struct tlock *lock,
					   struct tlock_deferred *todo)
	__releases(&lock->spinlock)
{
	/* Exact: io_uring reports these without calling poll again */
	__poll_t events = tlock_poll_events(todo->poll);

	/* The contender may be gone from now on, but its queue stays one */
	rcu_read_lock();
	tlock_unlock_and_wake(lock, todo->wake);
	/* All, also with EPOLLEXCLUSIVE: it stays true until a call changes it */
	__wake_up(&todo->poll->pollers, TASK_NORMAL, 0, poll_to_key(events));
	rcu_read_unlock();
}

/**
 * tlock_unlock - release the spinlock, and then do what is left to do
 * @lock: the lock
 * @todo: what to do
 */
void tlock_unlock(struct tlock *lock, struct tlock_deferred *todo)
	__releases(&lock->spinlock)
{
	if (unlikely(todo->poll))
		tlock_unlock_and_poll(lock, todo);
	else
		tlock_unlock_and_wake(lock, todo->wake);
	if (todo->put)
		put_pid(todo->put);
}

/*
 * Wakes those who poll @c, once the spinlock is released. No step changes what
 * pollers see for more than one contender, except that it takes events away.
 */
static void tlock_notify(struct tlock_contender *c, struct tlock_deferred *todo)
{
	/* Pairs with the barrier in tlock_poll_events() */
	if (!wq_has_sleeper(&c->pollers))
		return;
	WARN_ON_ONCE(todo->poll && todo->poll != c);
	todo->poll = c;
}

static struct tlock_contender *tlock_of(struct rb_node *node)
{
	return rb_entry(node, struct tlock_contender, node);
}

static void tlock_enqueue(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;
	struct rb_node *parent = rb_last(&lock->queue.rb_root);
	struct rb_node **link = &lock->queue.rb_root.rb_node;
	bool leftmost = true;

	/* Usually at the right end: a new request has the newest ticket */
	if (parent && tlock_of(parent)->ticket < c->ticket) {
		link = &parent->rb_right;
		leftmost = false;
	}
	/* rb_add_cached() would do, but Linux 5.10 does not have it */
	while (*link) {
		parent = *link;
		if (c->ticket < tlock_of(parent)->ticket) {
			link = &parent->rb_left;
		} else {
			link = &parent->rb_right;
			leftmost = false;
		}
	}
	rb_link_node(&c->node, parent, link);
	rb_insert_color_cached(&c->node, &lock->queue, leftmost);
	WRITE_ONCE(c->queued, true);
	WRITE_ONCE(lock->waiters, lock->waiters + 1);
}

static void tlock_dequeue(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	rb_erase_cached(&c->node, &lock->queue);
	WRITE_ONCE(c->queued, false);
	WRITE_ONCE(lock->waiters, lock->waiters - 1);
	c->wait = NULL;
	if (tlock_is_shut(lock) && !lock->waiters)
		tlock_gate_news(lock);
}

/* Makes @c the holder. Its request, if it had one, has already ended. */
static void tlock_grant(struct tlock_contender *c, u64 now)
{
	struct tlock *lock = c->lock;

	lockdep_assert_held(&lock->spinlock);
	lock->acquired++;
	c->id.since_ns = now;
	WRITE_ONCE(c->renewed_ns, now);
	WRITE_ONCE(c->id.token, ++lock->token);
	/*
	 * Pairs with the loads in tlock_reacquire_fast() and
	 * tlock_grant_stands(): a contender that sees itself as the holder also
	 * sees its token, and the waiters that were counted before the grant.
	 */
	smp_store_release(&lock->holder, c);
}

/* Accounts for the wait of a request that waited until @until. */
static void tlock_end_wait(struct tlock_contender *c, u64 until)
{
	struct tlock *lock = c->lock;
	u64 waited = until - c->asked_ns;
	u64 limit = NSEC_PER_MSEC;
	unsigned int i;

	lockdep_assert_held(&lock->spinlock);
	for (i = 0; i < TLOCK_WAITS - 1 && waited > limit; i++)
		limit *= 10;
	lock->waits[i]++;
	lock->wait_ns_total += waited;
	lock->wait_ns_max = max(lock->wait_ns_max, waited);
}

/* Ends the request of @c, which waited until @until. */
static void tlock_end_request(struct tlock_contender *c, u64 until)
{
	tlock_end_wait(c, until);
	c->ticket = 0;
}

/* Ends an asynchronous request, which is not in the queue, with its outcome. */
static void tlock_end_async(struct tlock_contender *c,
			    struct tlock_deferred *todo)
{
	todo->put = c->blocker.pid;
	c->blocker.pid = NULL;
	c->async = false;
	if (c->lock->holder == c)
		WRITE_ONCE(c->lock->unfetched, false);
	c->ticket = 0;
	/*
	 * If it fires nevertheless, it finds nothing to do. At time 0 it is yet
	 * to wake the pollers: see tlock_expiry_timer().
	 */
	if (hrtimer_is_queued(&c->timer) && hrtimer_get_expires(&c->timer))
		hrtimer_try_to_cancel(&c->timer);
}

/*
 * When the system last resumed, which renewed all leases. KTIME_MAX while it
 * suspends, so that no lease ends.
 */
static u64 tlock_resumed_ns;

/**
 * tlock_suspend - let no lease end while the system suspends
 * @suspended: whether it begins to suspend, or has resumed
 *
 * Resuming renews all leases: their holders may be the last processes to run
 * again.
 */
void tlock_suspend(bool suspended)
{
	WRITE_ONCE(tlock_resumed_ns, suspended ? KTIME_MAX : ktime_get_ns());
}

/*
 * When a lease ends that was renewed at @renewed, and before the system resumed
 * at @resumed; KTIME_MAX if it never does
 */
static u64 tlock_lease_end(const struct tlock_contender *c, u64 renewed,
			   u64 resumed)
{
	return ktime_add_safe(max(renewed, resumed),
			      min_t(u64, c->lease_ns, KTIME_MAX));
}

/*
 * When the holder's lease or the grace of its revocation ends, whichever is
 * earlier; KTIME_MAX if neither does.
 */
static u64 tlock_expires(const struct tlock *lock, u64 resumed)
{
	const struct tlock_contender *c = lock->holder;
	u64 at = lock->revoking ? lock->revoke_ns : KTIME_MAX;

	if (c->lease_ns)
		at = min(at, tlock_lease_end(c, READ_ONCE(c->renewed_ns),
					     resumed));
	return at;
}

/* The same, as in struct tlock_holder */
static noinline u64 tlock_holder_expires(const struct tlock *lock)
{
	return lock->revoking || lock->holder->lease_ns ?
	       tlock_expires(lock, READ_ONCE(tlock_resumed_ns)) : 0;
}

/*
 * Ends the lease of @c if its time is over. Returns whether it did; then the
 * grant must end, too. tlock_renew_fast() changes @renewed_ns without the
 * spinlock, but only one of the two can succeed.
 */
static bool tlock_end_lease(struct tlock_contender *c, u64 now)
{
	u64 renewed = READ_ONCE(c->renewed_ns);
	u64 resumed = READ_ONCE(tlock_resumed_ns);

	return c->lease_ns && now >= tlock_lease_end(c, renewed, resumed) &&
	       cmpxchg(&c->renewed_ns, renewed, 0) == renewed;
}

/*
 * Renews the lease of @c, unless tlock_renew_fast() has just done so: a renewal
 * must not shorten what another one has promised.
 */
static void tlock_renew(struct tlock_contender *c, u64 now)
{
	u64 renewed = READ_ONCE(c->renewed_ns), seen;

	while (renewed < now) {
		seen = cmpxchg(&c->renewed_ns, renewed, now);
		if (seen == renewed)
			break;
		renewed = seen;
	}
}

/* Notes who holds the lock, for the failed asynchronous request of @c. */
static void tlock_note_blocker(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	lockdep_assert_held(&lock->spinlock);
	c->blocker = lock->holder->id;
	get_pid(c->blocker.pid);
	c->blocker_flags = tlock_holder_flags(lock);
	c->blocker_expires_ns = tlock_holder_expires(lock);
}

/*
 * Whether the process has ended. A zombie counts as ended, although its pid is
 * not yet free for another process.
 */
static bool tlock_pid_ended(struct pid *pid)
{
	struct task_struct *leader;
	bool ended;

	rcu_read_lock();
	leader = pid_task(pid, PIDTYPE_TGID);
	ended = !leader || (READ_ONCE(leader->exit_state) &&
			    !delay_group_leader(leader));
	rcu_read_unlock();
	return ended;
}

/* The deadline of the request of @c; KTIME_MAX if it waits for ever */
static ktime_t tlock_deadline(const struct tlock_contender *c)
{
	if (c->timeout_ns < 0)
		return KTIME_MAX;
	return ktime_add_safe(c->asked_ns, c->timeout_ns);
}

/* Whether the present grant may end because somebody else wants the lock */
static bool tlock_can_expire(const struct tlock *lock)
{
	return lock->expiring | lock->holder->lease_ns;
}

/* Whether the time in which a call could fetch the grant is over */
static bool tlock_unfetched_expired(const struct tlock *lock, ktime_t now)
{
	return lock->unfetched &&
	       (!ktime_before(now, tlock_deadline(lock->holder)) ||
		tlock_pid_ended(lock->holder->id.pid));
}

/* Starts the timer that ends the grant, if it can expire and is wanted. */
static void tlock_arm_expiry(struct tlock *lock, ktime_t now)
{
	u64 resumed;
	ktime_t at;

	lockdep_assert_held(&lock->spinlock);
	if (!tlock_is_wanted(lock) || !tlock_can_expire(lock))
		return;
	/* Read once: no timer would be started if the suspend ended in between */
	resumed = READ_ONCE(tlock_resumed_ns);
	at = tlock_expires(lock, resumed);
	if (lock->unfetched)
		at = tlock_unfetched_expired(lock, now) ? now :
		     min(at, tlock_deadline(lock->holder));
	/* Neither the end of a process nor that of a suspend starts the timer */
	if (lock->unfetched || resumed == KTIME_MAX)
		at = min(at, ktime_add_ns(now, TLOCK_EXPIRY_CHECK_NS));
	if (at == KTIME_MAX)
		return;
	at = max(at, ktime_add_ns(now, TLOCK_EXPIRY_STEP_NS));
	if (!hrtimer_is_queued(&lock->expiry) ||
	    ktime_before(at, hrtimer_get_expires(&lock->expiry)))
		hrtimer_start(&lock->expiry, at, HRTIMER_MODE_ABS_HARD);
}

/*
 * Decides a request in the queue: grants it the lock if @err is 0, or ends it
 * with that error, which is ETIMEDOUT if it is asynchronous.
 */
static void tlock_decide(struct tlock_contender *c, int err, u64 now,
			 struct tlock_deferred *todo)
{
	struct tlock_wait *wait = c->wait;

	tlock_dequeue(c);
	tlock_end_wait(c, now);
	if (!err) {
		/* Before the grant: see tlock_reacquire_fast() */
		WRITE_ONCE(c->lock->unfetched, c->async);
		tlock_grant(c, now);
		tlock_note(c, TLOCK_EVENT_ACQUIRED, c->id.token, c->ticket, now);
		if (unlikely(tlock_can_expire(c->lock)))
			tlock_arm_expiry(c->lock, now);
	} else {
		tlock_note(c, err == -ETIMEDOUT ? TLOCK_EVENT_TIMED_OUT :
						  TLOCK_EVENT_WITHDRAWN,
			   0, c->ticket, now);
	}
	tlock_notify(c, todo);
	if (unlikely(c->async)) {
		c->ended_ns = now;
		if (err) {
			c->lock->timed_out++;
			tlock_note_blocker(c);
		}
		return;
	}
	c->ticket = 0;
	wait->err = err;
	wait->until_ns = now;
	if (!err) {
		wait->token = c->id.token;
		wait->result = c->lock->pending_result;
	}
	todo->wake = wait->task;
	/*
	 * Lets tlock_sleep() return, and @wait vanish. Pairs with the load
	 * there: a thread that sees NULL sees the outcome.
	 */
	smp_store_release(&wait->task, NULL);
}

/* Takes the lock from its holder and leaves it free. */
static void tlock_free(struct tlock *lock, u64 now)
{
	u64 held = now - lock->holder->id.since_ns;

	lockdep_assert_held(&lock->spinlock);
	lock->hold_ns_total += held;
	lock->hold_ns_max = max(lock->hold_ns_max, held);
	WRITE_ONCE(lock->holder, NULL);
}

/* Ends the holder's grant; the longest waiter, if any, gets the lock. */
static void tlock_end_grant(struct tlock *lock, u64 now,
			    struct tlock_deferred *todo)
{
	struct rb_node *first = rb_first_cached(&lock->queue);

	WRITE_ONCE(lock->revoking, false);
	tlock_free(lock, now);
	if (unlikely(lock->gate) && !tlock_gate_passes(lock, now))
		return;
	if (first)
		tlock_decide(tlock_of(first), 0, now, todo);
}

/**
 * tlock_describe_lost - describe the newest grant of a contender, to report it
 * @c: the contender
 * @lost: filled in
 */
void tlock_describe_lost(const struct tlock_contender *c,
			 struct tlock_lost *lost)
{
	/* Of a file that is closed, which may be granted the lock right now */
	lost->token = READ_ONCE(c->id.token);
	lost->pid = pid_nr(c->id.pid);
	memcpy(lost->job, c->id.job, sizeof(lost->job));
}

/**
 * tlock_take_away - revoke the holder's grant
 * @lock: the lock, which a contender holds
 * @now: the time
 * @todo: receives what to do once the spinlock is released: nothing, if the
 *	lock passes on to the gate
 */
void tlock_take_away(struct tlock *lock, u64 now, struct tlock_deferred *todo)
{
	struct tlock_contender *c = lock->holder;

	lockdep_assert_held(&lock->spinlock);
	tlock_note(c, TLOCK_EVENT_REVOKED, c->id.token, c->ticket, now);
	lock->revoked++;
	lock->pending_result |= TLOCK_REVOKED;
	tlock_describe_lost(c, &lock->lost);
	tlock_queue(&lock->report);
	if (c->async)
		tlock_end_async(c, todo);
	WRITE_ONCE(c->revoked, c->id.token);
	/*
	 * The next holder may have pollers to wake, too. Those of @c are woken by
	 * its own timer: see tlock_deadline_timer().
	 */
	if (wq_has_sleeper(&c->pollers))
		hrtimer_start(&c->timer, 0, HRTIMER_MODE_ABS_SOFT);
	tlock_end_grant(lock, now, todo);
}

/*
 * Ends the grant if it has expired, because somebody wants the lock. Returns
 * the contender if no call had fetched the grant in time and the lock is free
 * now: then the next holder is its blocker.
 */
static struct tlock_contender *tlock_expire(struct tlock *lock, u64 now,
					    struct tlock_deferred *todo)
{
	struct tlock_contender *c = lock->holder;

	lockdep_assert_held(&lock->spinlock);
	if (!tlock_unfetched_expired(lock, now)) {
		if ((lock->revoking && now >= lock->revoke_ns) ||
		    tlock_end_lease(c, now))
			tlock_take_away(lock, now, todo);
		return NULL;
	}
	tlock_note(c, TLOCK_EVENT_TIMED_OUT, c->id.token, c->ticket, now);
	lock->timed_out++;
	WRITE_ONCE(lock->unfetched, false);
	tlock_end_grant(lock, now, todo);
	if (!lock->holder)
		return c;
	tlock_note_blocker(c);
	return NULL;
}

/* Withdraws the request of @c, for which no thread sleeps */
static void tlock_withdraw(struct tlock_contender *c, u64 now)
{
	tlock_note(c, TLOCK_EVENT_WITHDRAWN, 0, c->ticket, now);
	tlock_end_request(c, c->ended_ns);
}

/*
 * Ends the grant or the request of @c. Returns whether it had either.
 *
 * how: how a grant ends: TLOCK_EVENT_RELEASED or _ABANDONED
 */
static bool tlock_end(struct tlock_contender *c, enum tlock_event_kind how,
		      u64 now, struct tlock_deferred *todo)
{
	if (c->lock->holder == c) {
		tlock_note(c, how, c->id.token, c->ticket, now);
		if (c->async)
			tlock_end_async(c, todo);
		tlock_end_grant(c->lock, now, todo);
	} else if (c->async) {
		if (c->queued) {
			tlock_note(c, TLOCK_EVENT_WITHDRAWN, 0, c->ticket, now);
			tlock_dequeue(c);
			tlock_end_wait(c, now);
			tlock_notify(c, todo);
		}
		tlock_end_async(c, todo);
	} else if (c->wait) {
		tlock_decide(c, -ECANCELED, now, todo);
	} else if (c->ticket) {
		tlock_withdraw(c, now);
	} else {
		return false;
	}
	return true;
}

/*
 * Ends an asynchronous request at its deadline. Also wakes the pollers for
 * tlock_expiry_timer() and tlock_take_away().
 */
static enum hrtimer_restart tlock_deadline_timer(struct hrtimer *timer)
{
	struct tlock_contender *c =
		container_of(timer, struct tlock_contender, timer);
	struct tlock_deferred todo = {};
	u64 now;

	raw_spin_lock_irq(&c->lock->spinlock);
	now = ktime_get_ns();
	/* The timer may be late, and @c have another request by now */
	if (!c->queued)
		tlock_notify(c, &todo);
	else if (c->async && !ktime_before(now, tlock_deadline(c)))
		tlock_decide(c, -ETIMEDOUT, now, &todo);
	tlock_unlock(c->lock, &todo);
	return HRTIMER_NORESTART;
}

/*
 * Ends a grant that has expired while somebody waits. Runs as a hard interrupt,
 * on PREEMPT_RT too, where a more urgent waiter must not depend on the softirq
 * thread's priority. Makes one decision at a time.
 */
static enum hrtimer_restart tlock_expiry_timer(struct hrtimer *timer)
{
	struct tlock *lock = container_of(timer, struct tlock, expiry);
	struct tlock_deferred todo = {};
	u64 now;

	raw_spin_lock(&lock->spinlock);
	now = ktime_get_ns();
	if (lock->holder && tlock_is_wanted(lock))
		tlock_expire(lock, now, &todo);
	if (lock->holder)
		tlock_arm_expiry(lock, now);
	/*
	 * The lock of the pollers' queue sleeps on PREEMPT_RT. The contender's
	 * own timer, which is no hard interrupt, wakes them.
	 */
	if (todo.poll)
		hrtimer_start(&todo.poll->timer, 0, HRTIMER_MODE_ABS_SOFT);
	raw_spin_unlock(&lock->spinlock);
	if (todo.wake)
		wake_up_process(todo.wake);
	return HRTIMER_NORESTART;
}

/* The process, as the caller's namespace sees it; 0 once it has ended */
static pid_t tlock_pid_of(const struct tlock_identity *id)
{
	return tlock_pid_ended(id->pid) ? 0 : pid_vnr(id->pid);
}

/*
 * Describes whose grant it is, as the caller's namespaces see it, but not when it
 * expires.
 */
static void tlock_describe(const struct tlock_identity *id,
			   struct tlock_holder *holder)
{
	holder->token = id->token;
	holder->since_ns = id->since_ns;
	/* 0 if it is a gate's, which has no process */
	holder->pid = tlock_pid_of(id);
	holder->uid = from_kuid_munged(current_user_ns(), id->uid);
	holder->flags = 0;
	holder->reserved = 0;
	holder->expires_ns = 0;
	strscpy_pad(holder->comm, id->comm, sizeof(holder->comm));
	/* Padded with NULs: see tlock_read_arg() */
	memcpy(holder->job, id->job, sizeof(holder->job));
}

/**
 * tlock_describe_holder - describe who holds the lock
 * @lock: the lock
 * @holder: filled in, as by tlock_get_status()
 */
void tlock_describe_holder(struct tlock *lock, struct tlock_holder *holder)
{
	const struct tlock_contender *c = lock->holder;

	lockdep_assert_held(&lock->spinlock);
	if (!c) {
		memset(holder, 0, sizeof(*holder));
		return;
	}
	tlock_describe(&c->id, holder);
	if (unlikely(tlock_can_expire(lock) || lock->gate)) {
		holder->flags = tlock_holder_flags(lock);
		holder->expires_ns = tlock_holder_expires(lock);
	}
}

/*
 * Records which process asks for the lock, and its job; if @job is NULL, the
 * old job stays. Returns a pid to put once the spinlock is released, or NULL.
 */
static struct pid *tlock_set_identity(struct tlock_contender *c,
				      const char *job)
{
	struct task_struct *leader = current->group_leader;
	struct pid *pid = task_tgid(current), *put = NULL;

	if (c->id.pid != pid) {
		put = c->id.pid;
		WRITE_ONCE(c->id.pid, get_pid(pid));
	} else if (!job) {
		/* Nothing to record; tlock_reacquire_fast() assumes that too */
		return NULL;
	}
	c->id.uid = current_euid();
	BUILD_BUG_ON(sizeof(c->id.comm) != sizeof(leader->comm));
	/*
	 * Read without the lock that guards changes to it: at worst, this is a
	 * mixture of an old and a new name. Its last byte is always NUL.
	 */
	data_race(memcpy(c->id.comm, leader->comm, sizeof(c->id.comm)));
	if (job) {
		/*
		 * tlock_ioctl_reacquire_fast() may be reading it at this
		 * moment: at worst, it compares with a mixture of two jobs.
		 */
		data_race(memcpy(c->id.job, job, sizeof(c->id.job)));
	}
	return put;
}

/* Sleeps until the request is decided, the deadline passes or a signal comes */
static int tlock_sleep(struct tlock_wait *wait, ktime_t deadline)
{
	/* No timer if it would never fire */
	ktime_t *expires = deadline == KTIME_MAX ? NULL : &deadline;
	int err = 0;

	do {
		set_current_state(TASK_INTERRUPTIBLE);
		/* Pairs with the store in tlock_decide() */
		if (!smp_load_acquire(&wait->task))
			break;
		if (signal_pending(current))
			err = -ERESTARTSYS;
		else if (!schedule_hrtimeout_range(expires, 0,
						   HRTIMER_MODE_ABS))
			err = -ETIMEDOUT;
	} while (!err);
	__set_current_state(TASK_RUNNING);
	return err;
}

/* What is left of a timeout that began @used ns ago */
static s64 tlock_time_left(s64 timeout, u64 used)
{
	return timeout - min_t(u64, used, timeout);
}

/* Reports the pending result flags, except to flock(2), which has no room. */
static void tlock_take_result(struct tlock *lock, struct tlock_acquire *arg)
{
	arg->result = 0;
	if (unlikely(lock->pending_result) && !(arg->flags & TLOCK_FLOCK)) {
		arg->result = lock->pending_result;
		lock->pending_result = 0;
	}
}

/* Whether that grant still stands: another thread may have ended it */
static bool tlock_grant_stands(struct tlock_contender *c, u64 token)
{
	/*
	 * Pairs with the store in tlock_grant(): if @c holds the lock by a later
	 * grant, the old token is not seen.
	 */
	return smp_load_acquire(&c->lock->holder) == c &&
	       READ_ONCE(c->id.token) == token;
}

/* Forgets that the grant of @c was revoked: the caller returns ESTALE. */
static void tlock_learn(struct tlock_contender *c)
{
	lockdep_assert_held(&c->lock->spinlock);
	WRITE_ONCE(c->revoked, 0);
}

/*
 * Takes a grant, once the thread that slept for it runs. If the grant still
 * stands, it reports the pending result flags; otherwise the next grant does.
 * Returns 0 if it stands, ESTALE if it was revoked, or ECANCELED.
 */
static int tlock_take_grant(struct tlock_contender *c,
			    struct tlock_acquire *arg,
			    const struct tlock_wait *wait)
{
	struct tlock *lock = c->lock;
	int err = 0;

	arg->token = wait->token;
	arg->result = 0;
	if (likely(!wait->result && tlock_grant_stands(c, wait->token)))
		return 0;
	raw_spin_lock_irq(&lock->spinlock);
	if (tlock_grant_stands(c, wait->token)) {
		tlock_take_result(lock, arg);
	} else if (c->revoked == wait->token) {
		tlock_learn(c);
		err = -ESTALE;
	} else {
		err = -ECANCELED;
	}
	raw_spin_unlock_irq(&lock->spinlock);
	return err;
}

/*
 * Puts the request of @c, which has a ticket, into the queue, and sleeps for it
 * unless it is asynchronous. If @c @holds the lock, that passes on. Called with
 * the spinlock held; releases it.
 */
static int tlock_wait(struct tlock_contender *c, struct tlock_acquire *arg,
		      bool holds, u64 now, struct tlock_deferred *todo)
	__releases(&c->lock->spinlock)
{
	struct tlock *lock = c->lock;
	/* Copies: once this request is decided, @c may have another one */
	s64 timeout = c->timeout_ns;
	u64 asked = c->asked_ns;
	ktime_t deadline = tlock_deadline(c);
	struct tlock_wait wait = {};
	int err;

	lockdep_assert_held(&lock->spinlock);
	c->async = arg->flags & TLOCK_ASYNC;
	if (!c->async) {
		wait.task = current;
		c->wait = &wait;
	}
	/*
	 * tlock_reacquire_fast() looks for waiters without the spinlock, so we
	 * must be counted before there is a next holder: see tlock_grant().
	 */
	tlock_enqueue(c);
	tlock_note(c, TLOCK_EVENT_WAITING, 0, c->ticket, now);
	if (holds) {
		tlock_end_grant(lock, now, todo);
	} else if (lock->waiters == 1) {
		if (tlock_is_shut(lock))
			tlock_gate_news(lock);
		else
			tlock_notify(lock->holder, todo);
		if (unlikely(tlock_can_expire(lock)))
			tlock_arm_expiry(lock, now);
	}
	if (c->async) {
		if (deadline != KTIME_MAX)
			hrtimer_start(&c->timer, deadline,
				      HRTIMER_MODE_ABS_SOFT);
		arg->ticket = c->ticket;
		tlock_unlock(lock, todo);
		return -EINPROGRESS;
	}

	tlock_unlock(lock, todo);
	err = tlock_sleep(&wait, deadline);
	if (err) {
		*todo = (struct tlock_deferred){};
		raw_spin_lock_irq(&lock->spinlock);
		if (wait.task) {
			/* Not decided: the request is still ours */
			wait.err = err;
			wait.until_ns = ktime_get_ns();
			tlock_dequeue(c);
			tlock_note(c, err == -ETIMEDOUT ?
				   TLOCK_EVENT_TIMED_OUT :
				   TLOCK_EVENT_INTERRUPTED,
				   0, c->ticket, wait.until_ns);
			if (err == -ETIMEDOUT) {
				tlock_end_request(c, wait.until_ns);
				lock->timed_out++;
				tlock_describe_holder(lock, &arg->holder);
			} else {
				if (!c->ended_ns)
					lock->interrupted++;
				c->ended_ns = wait.until_ns;
				arg->ticket = c->ticket;
			}
			tlock_notify(c, todo);
		}
		tlock_unlock(lock, todo);
	}

	if (timeout > 0)
		arg->timeout_ns = tlock_time_left(timeout,
						  wait.until_ns - asked);
	return wait.err ? : tlock_take_grant(c, arg, &wait);
}

/* Writes back what was left of the timeout of the request of @c at @until. */
static void tlock_put_time_left(const struct tlock_contender *c,
				struct tlock_acquire *arg, u64 until)
{
	if (c->timeout_ns > 0)
		arg->timeout_ns = tlock_time_left(c->timeout_ns,
						  until - c->asked_ns);
}

/* Fetches the outcome of an asynchronous request, if it is decided. */
static int tlock_fetch(struct tlock_contender *c, struct tlock_acquire *arg,
		       struct tlock_deferred *todo)
{
	struct tlock *lock = c->lock;
	int err = 0;

	if (c->queued) {
		arg->ticket = c->ticket;
		tlock_put_time_left(c, arg, ktime_get_ns());
		return -EINPROGRESS;
	}
	if (lock->holder == c) {
		tlock_put_time_left(c, arg, c->ended_ns);
		if (c->lease_ns)
			WRITE_ONCE(c->renewed_ns, ktime_get_ns());
		arg->token = c->id.token;
		tlock_take_result(lock, arg);
	} else {
		tlock_describe(&c->blocker, &arg->holder);
		arg->holder.flags = c->blocker_flags;
		arg->holder.expires_ns = c->blocker_expires_ns;
		if (c->timeout_ns > 0)
			arg->timeout_ns = 0;
		err = -ETIMEDOUT;
	}
	tlock_end_async(c, todo);
	return err;
}

/*
 * Every reacquire (@again), and every acquire except that of a free lock by an
 * idle contender. Called with the spinlock held; releases it.
 */
static noinline int tlock_request(struct tlock_contender *c,
				  struct tlock_acquire *arg, bool again)
	__releases(&c->lock->spinlock)
{
	struct tlock *lock = c->lock;
	bool async = arg->flags & TLOCK_ASYNC;
	struct tlock_contender *expired = NULL;
	struct tlock_deferred todo = {};
	u64 now, ticket;
	bool holds, resumed, keeps;
	int err = 0;

	lockdep_assert_held(&lock->spinlock);
	now = ktime_get_ns();
	if (unlikely(lock->gate))
		tlock_gate_catch_up(lock, now);
	holds = lock->holder == c;
	/* flock(2) passes no ticket: LOCK_EX resumes flock's own request */
	if (arg->flags & TLOCK_FLOCK && arg->timeout_ns && c->flock && !c->wait)
		arg->ticket = c->ticket;
	resumed = arg->ticket;
	if (unlikely(c->revoked)) {
		tlock_learn(c);
		err = -ESTALE;
	} else if (resumed && arg->ticket != c->ticket) {
		err = -ECANCELED;
	} else if (c->wait || (c->async && !resumed)) {
		err = -EBUSY;
	} else if (resumed && async != c->async) {
		err = -EINVAL;
	} else if (!resumed && holds != again) {
		err = again ? -EPERM : -EDEADLK;
	}
	/* ESTALE and ECANCELED write this back; the other errors write nothing */
	arg->ticket = 0;
	if (!err && resumed && async)
		err = tlock_fetch(c, arg, &todo);
	if (err || (resumed && async))
		goto unlock;

	if (!holds && lock->holder && unlikely(tlock_can_expire(lock)))
		expired = tlock_expire(lock, now, &todo);
	if (!resumed) {
		/* A request that is away is replaced */
		if (c->ticket)
			tlock_withdraw(c, now);
		keeps = holds && (!tlock_is_wanted(lock) ||
				  arg->flags & TLOCK_RENEW);
		if (holds && !keeps) {
			lock->yielded++;
			/* Before the job can change */
			tlock_note(c, TLOCK_EVENT_YIELDED, c->id.token, 0, now);
		}
		todo.put = tlock_set_identity(c, again && !*arg->job ? NULL :
								       arg->job);
		if (!again || arg->lease_ns)
			WRITE_ONCE(c->lease_ns, arg->lease_ns);
		if (keeps) {
			tlock_renew(c, now);
			/* The lease may be shorter than before */
			tlock_arm_expiry(lock, now);
			arg->result = 0;
			arg->token = c->id.token;
			goto unlock;
		}
		if (!holds && lock->holder)
			lock->contended++;
		c->flock = arg->flags & TLOCK_FLOCK;
	}

	if (lock->holder &&
	    (resumed ? ktime_before(now, tlock_deadline(c)) :
		       arg->timeout_ns)) {
		if (!resumed) {
			c->ticket = ++lock->ticket;
			c->timeout_ns = arg->timeout_ns;
			c->asked_ns = now;
			c->ended_ns = 0;
		}
		return tlock_wait(c, arg, holds, now, &todo);
	}

	/* No wait: one try, which ends the request */
	ticket = c->ticket;
	if (resumed) {
		tlock_end_request(c, now);
		tlock_put_time_left(c, arg, now);
	}
	if (holds)
		tlock_end_grant(lock, now, &todo);
	if (lock->holder) {
		tlock_note(c, TLOCK_EVENT_TIMED_OUT, 0, ticket, now);
		lock->timed_out++;
		tlock_describe_holder(lock, &arg->holder);
		if (unlikely(lock->gate))
			tlock_gate_note_try(lock);
		err = -ETIMEDOUT;
	} else {
		tlock_grant(c, now);
		if (unlikely(tlock_watched(lock)))
			tlock_record_acquired(c, ticket);
		if (expired)
			tlock_note_blocker(expired);
		arg->token = c->id.token;
		tlock_take_result(lock, arg);
	}
unlock:
	tlock_unlock(lock, &todo);
	return err;
}

/*
 * Grants a free lock to an idle contender, at @now if that is not 0. Releases the
 * spinlock.
 */
static __always_inline void tlock_acquire_free(struct tlock_contender *c,
					       struct tlock_acquire *arg,
					       u64 now)
	__releases(&c->lock->spinlock)
{
	struct tlock *lock = c->lock;
	struct pid *put = tlock_set_identity(c, arg->job);

	c->flock = arg->flags & TLOCK_FLOCK;
	WRITE_ONCE(c->lease_ns, arg->lease_ns);
	tlock_grant(c, now ? : ktime_get_ns());
	if (unlikely(tlock_watched(lock)))
		tlock_record_acquired(c, 0);
	arg->token = c->id.token;
	tlock_take_result(lock, arg);
	raw_spin_unlock_irq(&lock->spinlock);
	if (unlikely(put))
		put_pid(put);
}

/* The end of tlock_acquire() if the lock has a gate */
static noinline int tlock_acquire_gated(struct tlock_contender *c,
					struct tlock_acquire *arg)
	__releases(&c->lock->spinlock)
{
	u64 now = ktime_get_ns();

	/* Only what can have changed since the lock became free, for speed */
	if (c->lock->token >= c->lock->gate->last_token ||
	    tlock_gate_is_over(c->lock, now))
		return tlock_request(c, arg, false);
	tlock_acquire_free(c, arg, now);
	return 0;
}

/**
 * tlock_acquire - acquire the lock, waiting for it if necessary
 * @c: the contender
 * @arg: as in the ABI; its flags may also be TLOCK_FLOCK
 *
 * Context: Process context; may sleep.
 * Return: as in the ABI, or -ERESTARTSYS: the request is away and @arg has its
 * ticket.
 */
int tlock_acquire(struct tlock_contender *c, struct tlock_acquire *arg)
{
	struct tlock *lock = c->lock;

	raw_spin_lock_irq(&lock->spinlock);
	if (unlikely(lock->holder || (c->ticket | arg->ticket | c->revoked)))
		return tlock_request(c, arg, false);
	if (unlikely(lock->gate))
		return tlock_acquire_gated(c, arg);
	tlock_acquire_free(c, arg, 0);
	return 0;
}

/* The end of tlock_reacquire_fast() if the lock has a gate */
static noinline u64 tlock_reacquire_gated(struct tlock_contender *c)
{
	u64 token = READ_ONCE(c->id.token);

	/* The timer that revokes the grant when the opening is over can be late */
	return tlock_gate_is_over(c->lock, ktime_get_ns()) ? 0 : token;
}

/**
 * tlock_reacquire_fast - check if a reacquire with the same job has work to do
 * @c: the contender
 *
 * Lockless fast path: meant to be called often. It sees every waiter that the
 * caller could know of. One that begins to wait at this very moment may as well
 * have come after the call. The process that asked last is shown to others, so
 * a reacquire by a different process always has work to do.
 *
 * Return: the token of the grant if @c holds the lock and nobody wants it; 0 if
 * tlock_reacquire() must be called.
 */
u64 tlock_reacquire_fast(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;
	u64 attention;

	/* Pairs with the store in tlock_grant() */
	if (smp_load_acquire(&lock->holder) != c)
		return 0;
	attention = READ_ONCE(lock->attention);
	if (unlikely(attention) && attention != TLOCK_ONLY_GATED)
		return 0;
	if (READ_ONCE(c->id.pid) != task_tgid(current))
		return 0;
	if (unlikely(attention))
		return tlock_reacquire_gated(c);
	return READ_ONCE(c->id.token);
}

/**
 * tlock_renew_fast - renew the lease of a holder without the spinlock
 * @c: the contender, which has a lease
 * @token: what tlock_reacquire_fast() has just returned for it
 *
 * If somebody finds at this moment that the lease has ended, only one of the
 * two succeeds: see tlock_end_lease(). So no lease ends early.
 *
 * Return: whether the lease was renewed; if not, tlock_reacquire() must be
 * called.
 */
bool tlock_renew_fast(struct tlock_contender *c, u64 token)
{
	/*
	 * Read before the grant is checked: a later grant has another value, and
	 * the cmpxchg() fails.
	 */
	u64 renewed = smp_load_acquire(&c->renewed_ns);

	return renewed && tlock_grant_stands(c, token) &&
	       cmpxchg(&c->renewed_ns, renewed, ktime_get_ns()) == renewed;
}

/**
 * tlock_poll_events - tell what poll(2) reports
 * @c: the contender, whose pollers are waiting already
 *
 * Return: EPOLLOUT unless @c has a request that is not decided; EPOLLIN and
 * EPOLLPRI if it holds the lock and somebody wants it; EPOLLERR and EPOLLPRI if
 * its grant was revoked and no call has returned ESTALE yet. If @c is a gate,
 * EPOLLIN if there is news for its daemon.
 */
__poll_t tlock_poll_events(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;
	__poll_t events = 0;

	/*
	 * Pairs with the barrier in wq_has_sleeper(): whoever changes what is
	 * read here either sees that we wait, or we see the change.
	 */
	smp_mb();
	if (tlock_is_gate(c))
		return READ_ONCE(lock->gate->news) ? EPOLLIN | EPOLLRDNORM : 0;
	/* The holder first: whoever became it has left the queue before that */
	if (smp_load_acquire(&lock->holder) == c && tlock_is_wanted(lock))
		events |= EPOLLIN | EPOLLRDNORM | EPOLLPRI;
	if (!READ_ONCE(c->queued))
		events |= EPOLLOUT | EPOLLWRNORM;
	if (READ_ONCE(c->revoked))
		events |= EPOLLERR | EPOLLPRI;
	return events;
}

/**
 * tlock_reacquire - let the waiters in, and acquire the lock again
 * @c: the contender
 * @arg: as in the ABI
 *
 * The spinlock makes this one step: nobody can get into the queue between the
 * hand-over and the caller's request.
 *
 * Context: Process context; may sleep if somebody waits.
 * Return: as in the ABI, or -ERESTARTSYS: the request is away and @arg has its
 * ticket.
 */
int tlock_reacquire(struct tlock_contender *c, struct tlock_acquire *arg)
{
	raw_spin_lock_irq(&c->lock->spinlock);
	return tlock_request(c, arg, true);
}

static noinline int tlock_release_slow(struct tlock_contender *c)
	__releases(&c->lock->spinlock)
{
	struct tlock_deferred todo = {};
	int err = 0;

	if (c->revoked) {
		tlock_learn(c);
		err = -ESTALE;
	} else if (!tlock_end(c, TLOCK_EVENT_RELEASED, ktime_get_ns(), &todo)) {
		err = -EPERM;
	}
	tlock_unlock(c->lock, &todo);
	return err;
}

/**
 * tlock_release - end the grant or the request of a contender
 * @c: the contender
 *
 * If @c holds the lock, the longest waiter gets it. If a thread sleeps for the
 * request of @c, its call returns -ECANCELED.
 *
 * Return: 0, -ESTALE if the grant of @c was revoked, or -EPERM if @c had neither.
 */
int tlock_release(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	raw_spin_lock_irq(&lock->spinlock);
	/* The gate takes a free lock only if it must: see tlock_gate_catch_up() */
	if (unlikely(lock->holder != c || tlock_watched(lock) ||
		     (lock->attention && lock->attention != TLOCK_ONLY_GATED)))
		return tlock_release_slow(c);
	tlock_free(lock, ktime_get_ns());
	raw_spin_unlock_irq(&lock->spinlock);
	return 0;
}

/**
 * tlock_undo - end a grant or request that the caller could not be given
 * @c: the contender
 * @arg: as filled in by tlock_acquire() or tlock_reacquire(), which returned 0
 *	or -ERESTARTSYS, or -EINPROGRESS for a new request
 *
 * For an outcome that could not be copied to user space. The next grant reports
 * its result flags.
 */
void tlock_undo(struct tlock_contender *c, const struct tlock_acquire *arg)
{
	struct tlock *lock = c->lock;
	struct tlock_deferred todo = {};

	raw_spin_lock_irq(&lock->spinlock);
	lock->pending_result |= arg->result;
	/* Unless another thread has ended it, and perhaps started another */
	if (arg->ticket ? c->ticket == arg->ticket && !c->wait :
			  tlock_grant_stands(c, arg->token))
		tlock_end(c, TLOCK_EVENT_RELEASED, ktime_get_ns(), &todo);
	else if (!arg->ticket && c->revoked == arg->token)
		tlock_learn(c);
	tlock_unlock(lock, &todo);
}

/**
 * tlock_revoke - take the lock from its holder, now or after a grace
 * @lock: the lock
 * @arg: as in the ABI
 * @any: whether the caller may revoke the grants of all users
 *
 * Return: 0, -ESTALE if the token is not that of the present grant, -EPERM if
 * the holder is another user's and @any is false, or -EREMOTE if it is on
 * another host.
 */
int tlock_revoke(struct tlock *lock, const struct tlock_revoke *arg, bool any)
{
	const struct tlock_contender *c;
	struct tlock_deferred todo = {};
	u64 now, end;
	int err = 0;

	raw_spin_lock_irq(&lock->spinlock);
	now = ktime_get_ns();
	c = lock->holder;
	if (!c || c->id.token != arg->token) {
		err = -ESTALE;
	} else if (tlock_is_gate(c)) {
		err = -EREMOTE;
	} else if (!any && !uid_eq(c->id.uid, current_euid())) {
		err = -EPERM;
	} else if (!arg->grace_ns) {
		/* The event's flags tell this from the end of a lease */
		WRITE_ONCE(lock->revoking, true);
		tlock_take_away(lock, now, &todo);
	} else {
		end = ktime_add_safe(now, min_t(u64, arg->grace_ns, KTIME_MAX));
		lock->revoke_ns = lock->revoking ? min(lock->revoke_ns, end) :
						   end;
		WRITE_ONCE(lock->revoking, true);
		tlock_arm_expiry(lock, now);
	}
	tlock_unlock(lock, &todo);
	return err;
}

/**
 * tlock_gate_changed - apply what a lock's gate says by now
 * @lock: the lock, which has a gate
 * @now: the time
 * @todo: receives what to do once the spinlock is released
 *
 * If the gate holds the lock but is open, the longest waiter gets the lock. If
 * another host wants it, the holder learns so, and its grant can expire.
 */
void tlock_gate_changed(struct tlock *lock, u64 now,
			struct tlock_deferred *todo)
{
	struct rb_node *first = rb_first_cached(&lock->queue);

	lockdep_assert_held(&lock->spinlock);
	if (tlock_is_shut(lock)) {
		if (!tlock_gate_is_open(lock, now))
			return;
		WRITE_ONCE(lock->holder, NULL);
		if (first)
			tlock_decide(tlock_of(first), 0, now, todo);
	} else if (lock->holder && lock->recalled) {
		tlock_notify(lock->holder, todo);
		tlock_arm_expiry(lock, now);
	}
}

/**
 * tlock_get_status - describe a lock at one instant
 * @lock: the lock
 * @status: filled in completely, except for the name, which is left empty.
 *	since_ns is on the kernel's own CLOCK_MONOTONIC; pid and uid are as the
 *	caller's namespaces see them.
 */
void tlock_get_status(struct tlock *lock, struct tlock_status *status)
{
	u64 now;

	memset(status, 0, sizeof(*status));
	raw_spin_lock_irq(&lock->spinlock);
	if (unlikely(lock->gate)) {
		now = ktime_get_ns();
		tlock_gate_catch_up(lock, now);
		status->flags = TLOCK_GATED |
			(tlock_gate_is_open(lock, now) && !tlock_is_shut(lock) ?
			 0 : TLOCK_SHUT) |
			(lock->gate->daemon ? TLOCK_SERVED : 0);
	}
	tlock_describe_holder(lock, &status->holder);
	status->waiters = lock->waiters;
	status->acquired = lock->acquired;
	status->contended = lock->contended;
	status->timed_out = lock->timed_out;
	status->interrupted = lock->interrupted;
	status->abandoned = lock->abandoned;
	status->revoked = lock->revoked;
	status->yielded = lock->yielded;
	status->wait_ns_total = lock->wait_ns_total;
	status->wait_ns_max = lock->wait_ns_max;
	status->hold_ns_total = lock->hold_ns_total;
	status->hold_ns_max = lock->hold_ns_max;
	raw_spin_unlock_irq(&lock->spinlock);
}

/**
 * tlock_get_waits - tell how long waits were
 * @lock: the lock
 * @waits: receives TLOCK_WAITS numbers
 */
void tlock_get_waits(struct tlock *lock, u64 *waits)
{
	raw_spin_lock_irq(&lock->spinlock);
	memcpy(waits, lock->waits, sizeof(lock->waits));
	raw_spin_unlock_irq(&lock->spinlock);
}

/**
 * tlock_get_waiter - describe the next waiter
 * @lock: the lock
 * @waiter: its ticket is that of the waiter before, or 0; filled in. since_ns,
 *	pid and uid are as in tlock_get_status().
 *
 * Return: 0, or -ENOENT if there is none.
 */
int tlock_get_waiter(struct tlock *lock, struct tlock_waiter *waiter)
{
	const struct tlock_contender *c, *found = NULL;
	struct rb_node *node;

	raw_spin_lock_irq(&lock->spinlock);
	node = lock->queue.rb_root.rb_node;
	while (node) {
		c = tlock_of(node);
		if (c->ticket > waiter->ticket) {
			found = c;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}
	if (found) {
		waiter->ticket = found->ticket;
		waiter->since_ns = found->asked_ns;
		waiter->timeout_ns = found->timeout_ns;
		waiter->pid = tlock_pid_of(&found->id);
		waiter->uid = from_kuid_munged(current_user_ns(),
					       found->id.uid);
		waiter->flags = found->async ? TLOCK_ASYNC : 0;
		strscpy_pad(waiter->comm, found->id.comm, sizeof(waiter->comm));
		memcpy(waiter->job, found->id.job, sizeof(waiter->job));
	}
	raw_spin_unlock_irq(&lock->spinlock);
	return found ? 0 : -ENOENT;
}

/**
 * tlock_contender_state - tell what a contender is doing
 * @c: the contender
 * @ticket: out: the ticket of its request, or 0
 * @token: out: the token of the grant if it holds the lock, or 0
 *
 * Return: the state of @c.
 */
enum tlock_state tlock_contender_state(struct tlock_contender *c, u64 *ticket,
				       u64 *token)
{
	struct tlock *lock = c->lock;
	enum tlock_state state = TLOCK_IDLE;

	raw_spin_lock_irq(&lock->spinlock);
	*ticket = c->ticket;
	*token = lock->holder == c ? c->id.token : 0;
	if (c->async)
		state = c->queued ? TLOCK_WAITING : TLOCK_DECIDED;
	else if (lock->holder == c)
		state = TLOCK_HOLDING;
	else if (c->ticket)
		state = c->wait ? TLOCK_WAITING : TLOCK_AWAY;
	else if (c->revoked)
		state = TLOCK_STALE;
	raw_spin_unlock_irq(&lock->spinlock);
	return state;
}

/**
 * tlock_init - initialize a free lock, with its counters at 0
 * @lock: zeroed memory
 * @token: every grant gets a larger token than this
 */
void tlock_init(struct tlock *lock, u64 token)
{
	raw_spin_lock_init(&lock->spinlock);
	lock->queue = RB_ROOT_CACHED;
	lock->token = token;
	tlock_timer_setup(&lock->expiry, tlock_expiry_timer, CLOCK_MONOTONIC,
			  HRTIMER_MODE_ABS_HARD);
	tlock_monitor_init(lock);
}

/**
 * tlock_exit - end what a lock has, before it is freed
 * @lock: the lock, which has no contenders any more
 */
void tlock_exit(struct tlock *lock)
{
	hrtimer_cancel(&lock->expiry);
	tlock_gate_destroy(lock);
	tlock_monitor_exit(lock);
}

/**
 * tlock_contender_ctor - prepare memory that will only be used for contenders
 * @contender: the memory
 *
 * The memory belongs to a slab cache with SLAB_TYPESAFE_BY_RCU: within an RCU
 * read-side section its wait queue can be woken, even if the contender is freed
 * or is another one by now, whose pollers then just look once more.
 */
void tlock_contender_ctor(void *contender)
{
	struct tlock_contender *c = contender;

	init_waitqueue_head(&c->pollers);
}

/**
 * tlock_newest_token - tell the token of the newest grant
 * @lock: the lock
 *
 * Return: that token, or the one given to tlock_init() if there was no grant.
 */
u64 tlock_newest_token(struct tlock *lock)
{
	u64 token;

	raw_spin_lock_irq(&lock->spinlock);
	token = lock->token;
	raw_spin_unlock_irq(&lock->spinlock);
	return token;
}

/**
 * tlock_contender_init - initialize an idle contender
 * @c: memory, prepared by tlock_contender_ctor(), which need not be zeroed
 * @lock: the lock that it competes for
 */
void tlock_contender_init(struct tlock_contender *c, struct tlock *lock)
{
	const size_t begin = offsetofend(struct tlock_contender, pollers);

	memset((void *)c + begin, 0, sizeof(*c) - begin);
	c->lock = lock;
	tlock_timer_setup(&c->timer, tlock_deadline_timer, CLOCK_MONOTONIC,
			  HRTIMER_MODE_ABS_SOFT);
}

/**
 * tlock_contender_exit - end what a contender has, before it is freed
 * @c: the contender; no thread sleeps for it
 *
 * If @c holds the lock, the longest waiter gets it, and the lock counts as
 * abandoned unless it was acquired by flock(2), or no call has fetched the grant.
 *
 * Return: whether the lock counts as abandoned.
 */
bool tlock_contender_exit(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;
	struct tlock_deferred todo = {};
	bool abandoned;

	raw_spin_lock_irq(&lock->spinlock);
	abandoned = lock->holder == c && !c->flock && !c->async;
	if (abandoned) {
		lock->pending_result |= TLOCK_ABANDONED;
		lock->abandoned++;
	}
	tlock_end(c, abandoned ? TLOCK_EVENT_ABANDONED : TLOCK_EVENT_RELEASED,
		  ktime_get_ns(), &todo);
	tlock_unlock(lock, &todo);
	/* Nobody starts it any more */
	hrtimer_cancel(&c->timer);
	put_pid(c->id.pid);
	return abandoned;
}
