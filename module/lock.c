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

#include "lock.h"

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

/**
 * struct tlock_deferred - work to do once the spinlock is released
 * @wake: a thread to wake, or NULL
 * @put: a pid to put, or NULL
 */
struct tlock_deferred {
	struct task_struct *wake;
	struct pid *put;
};

static void tlock_unlock(struct tlock *lock, struct tlock_deferred *todo)
	__releases(&lock->spinlock)
{
	if (todo->wake) {
		/*
		 * A task that preempted us before the wake-up would delay the
		 * next holder, which may be more urgent. While preemption is
		 * off, RCU also keeps the thread from being freed if it exits
		 * without waiting for the wake-up.
		 */
		preempt_disable();
		raw_spin_unlock_irq(&lock->spinlock);
		wake_up_process(todo->wake);
		preempt_enable();
	} else {
		raw_spin_unlock_irq(&lock->spinlock);
	}
	if (todo->put)
		put_pid(todo->put);
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
	WRITE_ONCE(lock->waiters, lock->waiters + 1);
}

static void tlock_dequeue(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	rb_erase_cached(&c->node, &lock->queue);
	WRITE_ONCE(lock->waiters, lock->waiters - 1);
	c->wait = NULL;
}

/* Makes @c the holder. Its request, if it had one, has already ended. */
static void tlock_grant(struct tlock_contender *c, u64 now)
{
	struct tlock *lock = c->lock;

	lockdep_assert_held(&lock->spinlock);
	lock->acquired++;
	c->since_ns = now;
	WRITE_ONCE(c->token, ++lock->token);
	/*
	 * Pairs with the loads in tlock_reacquire_fast() and
	 * tlock_grant_stands(): a contender that sees itself as the holder also
	 * sees its token, and the waiters that were counted before the grant.
	 */
	smp_store_release(&lock->holder, c);
}

/* Ends the request of @c, which waited until @until. */
static void tlock_end_request(struct tlock_contender *c, u64 until)
{
	struct tlock *lock = c->lock;
	u64 waited = until - c->asked_ns;

	lockdep_assert_held(&lock->spinlock);
	lock->wait_ns_total += waited;
	lock->wait_ns_max = max(lock->wait_ns_max, waited);
	c->ticket = 0;
}

/*
 * Decides the request of a sleeping thread: grants it the lock if @err is 0, or
 * ends it with that error.
 */
static void tlock_decide(struct tlock_contender *c, int err, u64 now,
			 struct tlock_deferred *todo)
{
	struct tlock_wait *wait = c->wait;

	tlock_dequeue(c);
	tlock_end_request(c, now);
	wait->err = err;
	wait->until_ns = now;
	if (!err) {
		tlock_grant(c, now);
		wait->token = c->token;
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
	u64 held = now - lock->holder->since_ns;

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

	tlock_free(lock, now);
	if (first)
		tlock_decide(tlock_of(first), 0, now, todo);
}

/* Ends the grant or the request of @c. Returns whether it had either. */
static bool tlock_end(struct tlock_contender *c, u64 now,
		      struct tlock_deferred *todo)
{
	if (c->lock->holder == c)
		tlock_end_grant(c->lock, now, todo);
	else if (c->wait)
		tlock_decide(c, -ECANCELED, now, todo);
	else if (c->ticket)
		tlock_end_request(c, c->away_ns);
	else
		return false;
	return true;
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

/* Describes the holder, as the caller's namespaces see it. */
static void tlock_describe(struct tlock *lock, struct tlock_holder *holder)
{
	const struct tlock_contender *c = lock->holder;

	lockdep_assert_held(&lock->spinlock);
	if (!c) {
		memset(holder, 0, sizeof(*holder));
		return;
	}
	holder->token = c->token;
	holder->since_ns = c->since_ns;
	holder->pid = tlock_pid_ended(c->pid) ? 0 : pid_vnr(c->pid);
	holder->uid = from_kuid_munged(current_user_ns(), c->uid);
	holder->flags = 0;
	memset(holder->reserved, 0, sizeof(holder->reserved));
	strscpy_pad(holder->comm, c->comm, sizeof(holder->comm));
	/* Padded with NULs: see tlock_read_arg() */
	memcpy(holder->job, c->job, sizeof(holder->job));
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

	if (c->pid != pid) {
		put = c->pid;
		WRITE_ONCE(c->pid, get_pid(pid));
	} else if (!job) {
		/* Nothing to record; tlock_reacquire_fast() assumes that too */
		return NULL;
	}
	c->uid = current_euid();
	BUILD_BUG_ON(sizeof(c->comm) != sizeof(leader->comm));
	/*
	 * Read without the lock that guards changes to it: at worst, this is a
	 * mixture of an old and a new name. Its last byte is always NUL.
	 */
	data_race(memcpy(c->comm, leader->comm, sizeof(c->comm)));
	if (job) {
		/*
		 * tlock_ioctl_reacquire_fast() may be reading it at this
		 * moment: at worst, it compares with a mixture of two jobs.
		 */
		data_race(memcpy(c->job, job, sizeof(c->job)));
	}
	return put;
}

/* The deadline of the request of @c; KTIME_MAX if it waits for ever */
static ktime_t tlock_deadline(const struct tlock_contender *c)
{
	if (c->timeout_ns < 0)
		return KTIME_MAX;
	return ktime_add_safe(c->asked_ns, c->timeout_ns);
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
	       READ_ONCE(c->token) == token;
}

/*
 * Takes a grant, once the thread that slept for it runs. If the grant still
 * stands, it reports the pending result flags; otherwise the next grant does.
 * Returns whether it stands.
 */
static bool tlock_take_grant(struct tlock_contender *c,
			     struct tlock_acquire *arg,
			     const struct tlock_wait *wait)
{
	struct tlock *lock = c->lock;
	bool stands;

	arg->token = wait->token;
	arg->result = 0;
	if (likely(!wait->result))
		return tlock_grant_stands(c, wait->token);
	raw_spin_lock_irq(&lock->spinlock);
	stands = tlock_grant_stands(c, wait->token);
	if (stands)
		tlock_take_result(lock, arg);
	raw_spin_unlock_irq(&lock->spinlock);
	return stands;
}

/*
 * Sleeps for the request of @c, which is in the queue. Called with the spinlock
 * held; releases it.
 */
static int tlock_wait(struct tlock_contender *c, struct tlock_acquire *arg,
		      struct tlock_wait *wait, struct tlock_deferred *todo)
	__releases(&c->lock->spinlock)
{
	struct tlock *lock = c->lock;
	/* Copies: once this request is decided, @c may have another one */
	s64 timeout = c->timeout_ns;
	u64 asked = c->asked_ns;
	ktime_t deadline = tlock_deadline(c);
	int err;

	lockdep_assert_held(&lock->spinlock);
	tlock_unlock(lock, todo);
	err = tlock_sleep(wait, deadline);
	if (err) {
		raw_spin_lock_irq(&lock->spinlock);
		if (wait->task) {
			/* Not decided: the request is still ours */
			wait->err = err;
			wait->until_ns = ktime_get_ns();
			tlock_dequeue(c);
			if (err == -ETIMEDOUT) {
				tlock_end_request(c, wait->until_ns);
				lock->timed_out++;
				tlock_describe(lock, &arg->holder);
			} else {
				if (!c->away_ns)
					lock->interrupted++;
				c->away_ns = wait->until_ns;
				arg->ticket = c->ticket;
			}
		}
		raw_spin_unlock_irq(&lock->spinlock);
	}

	if (timeout > 0)
		arg->timeout_ns = tlock_time_left(timeout,
						  wait->until_ns - asked);
	if (!wait->err && !tlock_take_grant(c, arg, wait))
		return -ECANCELED;
	return wait->err;
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
	bool holds = lock->holder == c;
	struct tlock_deferred todo = {};
	struct tlock_wait wait;
	bool resumed;
	int err = 0;
	u64 now;

	lockdep_assert_held(&lock->spinlock);
	/* flock(2) passes no ticket: LOCK_EX resumes flock's own request */
	if (arg->flags & TLOCK_FLOCK && arg->timeout_ns && c->flock && !c->wait)
		arg->ticket = c->ticket;
	resumed = arg->ticket;
	if (resumed && arg->ticket != c->ticket)
		err = -ECANCELED;
	else if (c->wait)
		err = -EBUSY;
	else if (!resumed && holds != again)
		err = again ? -EPERM : -EDEADLK;
	/* ECANCELED writes this back; the other errors here write nothing */
	arg->ticket = 0;
	if (err)
		goto unlock;

	now = ktime_get_ns();
	if (!resumed) {
		/* A request that is away is replaced */
		if (c->ticket)
			tlock_end_request(c, c->away_ns);
		todo.put = tlock_set_identity(c, again && !*arg->job ? NULL :
								       arg->job);
		if (holds && !lock->waiters) {
			arg->result = 0;
			arg->token = c->token;
			goto unlock;
		}
		if (holds)
			lock->yielded++;
		else if (lock->holder)
			lock->contended++;
		c->timeout_ns = arg->timeout_ns;
		c->asked_ns = now;
		c->away_ns = 0;
		c->flock = arg->flags & TLOCK_FLOCK;
	}

	if (lock->holder &&
	    (resumed ? ktime_before(now, tlock_deadline(c)) : c->timeout_ns)) {
		if (!resumed)
			c->ticket = ++lock->ticket;
		wait.task = current;
		c->wait = &wait;
		/*
		 * tlock_reacquire_fast() looks for waiters without the
		 * spinlock, so we must be counted before there is a next
		 * holder: see tlock_grant().
		 */
		tlock_enqueue(c);
		if (holds)
			tlock_end_grant(lock, now, &todo);
		return tlock_wait(c, arg, &wait, &todo);
	}

	/* No wait: one try, which ends the request */
	if (resumed) {
		tlock_end_request(c, now);
		if (c->timeout_ns > 0)
			arg->timeout_ns = tlock_time_left(c->timeout_ns,
							  now - c->asked_ns);
	}
	if (holds)
		tlock_end_grant(lock, now, &todo);
	if (lock->holder) {
		lock->timed_out++;
		tlock_describe(lock, &arg->holder);
		err = -ETIMEDOUT;
	} else {
		tlock_grant(c, now);
		arg->token = c->token;
		tlock_take_result(lock, arg);
	}
unlock:
	tlock_unlock(lock, &todo);
	return err;
}

/**
 * tlock_acquire - acquire the lock, waiting for it if necessary
 * @c: the contender
 * @arg: as in the ABI; its flags are 0 or TLOCK_FLOCK
 *
 * Context: Process context; may sleep.
 * Return: as in the ABI, or -ERESTARTSYS: the request is away and @arg has its
 * ticket.
 */
int tlock_acquire(struct tlock_contender *c, struct tlock_acquire *arg)
{
	struct tlock *lock = c->lock;
	struct pid *put;

	raw_spin_lock_irq(&lock->spinlock);
	if (unlikely(lock->holder || c->ticket || arg->ticket))
		return tlock_request(c, arg, false);
	put = tlock_set_identity(c, arg->job);
	c->flock = arg->flags & TLOCK_FLOCK;
	tlock_grant(c, ktime_get_ns());
	arg->token = c->token;
	tlock_take_result(lock, arg);
	raw_spin_unlock_irq(&lock->spinlock);
	if (unlikely(put))
		put_pid(put);
	return 0;
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
 * Return: the token of the grant if @c holds the lock and nobody waits; 0 if
 * tlock_reacquire() must be called.
 */
u64 tlock_reacquire_fast(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	/* Pairs with the store in tlock_grant() */
	if (smp_load_acquire(&lock->holder) != c || READ_ONCE(lock->waiters) ||
	    READ_ONCE(c->pid) != task_tgid(current))
		return 0;
	return READ_ONCE(c->token);
}

/**
 * tlock_reacquire - let the waiters in, and acquire the lock again
 * @c: the contender
 * @arg: as in the ABI; its flags are 0
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
	bool ended = tlock_end(c, ktime_get_ns(), &todo);

	tlock_unlock(c->lock, &todo);
	return ended ? 0 : -EPERM;
}

/**
 * tlock_release - end the grant or the request of a contender
 * @c: the contender
 *
 * If @c holds the lock, the longest waiter gets it. If a thread sleeps for the
 * request of @c, its call returns -ECANCELED.
 *
 * Return: 0, or -EPERM if @c had neither.
 */
int tlock_release(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	raw_spin_lock_irq(&lock->spinlock);
	if (unlikely(lock->holder != c || lock->waiters))
		return tlock_release_slow(c);
	tlock_free(lock, ktime_get_ns());
	raw_spin_unlock_irq(&lock->spinlock);
	return 0;
}

/**
 * tlock_undo - end a grant or request that the caller could not be given
 * @c: the contender
 * @arg: as filled in by tlock_acquire() or tlock_reacquire(), which returned 0
 *	or -ERESTARTSYS
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
		tlock_end(c, ktime_get_ns(), &todo);
	tlock_unlock(lock, &todo);
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
	memset(status, 0, sizeof(*status));
	raw_spin_lock_irq(&lock->spinlock);
	tlock_describe(lock, &status->holder);
	status->waiters = lock->waiters;
	status->acquired = lock->acquired;
	status->contended = lock->contended;
	status->timed_out = lock->timed_out;
	status->interrupted = lock->interrupted;
	status->abandoned = lock->abandoned;
	status->yielded = lock->yielded;
	status->wait_ns_total = lock->wait_ns_total;
	status->wait_ns_max = lock->wait_ns_max;
	status->hold_ns_total = lock->hold_ns_total;
	status->hold_ns_max = lock->hold_ns_max;
	raw_spin_unlock_irq(&lock->spinlock);
}

/**
 * tlock_contender_state - tell what a contender is doing
 * @c: the contender
 * @number: out: the token of a holder, the ticket of a contender that has a
 *	request, or 0
 *
 * Return: the state of @c.
 */
enum tlock_state tlock_contender_state(struct tlock_contender *c, u64 *number)
{
	struct tlock *lock = c->lock;
	enum tlock_state state = TLOCK_IDLE;

	raw_spin_lock_irq(&lock->spinlock);
	*number = c->ticket;
	if (lock->holder == c) {
		state = TLOCK_HOLDING;
		*number = c->token;
	} else if (c->ticket) {
		state = c->wait ? TLOCK_WAITING : TLOCK_AWAY;
	}
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
 * @c: memory, which need not be zeroed
 * @lock: the lock that it competes for
 */
void tlock_contender_init(struct tlock_contender *c, struct tlock *lock)
{
	memset(c, 0, sizeof(*c));
	c->lock = lock;
}

/**
 * tlock_contender_exit - end what a contender has, before it is freed
 * @c: the contender; no thread sleeps for it
 *
 * If @c holds the lock, the longest waiter gets it, and the lock counts as
 * abandoned unless it was acquired by flock(2).
 */
void tlock_contender_exit(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;
	struct tlock_deferred todo = {};

	raw_spin_lock_irq(&lock->spinlock);
	if (lock->holder == c && !c->flock) {
		lock->pending_result |= TLOCK_ABANDONED;
		lock->abandoned++;
	}
	tlock_end(c, ktime_get_ns(), &todo);
	tlock_unlock(lock, &todo);
	put_pid(c->pid);
}
