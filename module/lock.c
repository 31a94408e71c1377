// SPDX-License-Identifier: GPL-2.0-only
/*
 * A timed, fair lock named after the job that holds it.
 *
 * The lock's mutex guards all of its state and that of its contenders. It is
 * held for a few instructions at a time: nothing under it sleeps or touches
 * user memory.
 *
 * Contenders that have to wait stand in a wait queue, oldest first, each as an
 * exclusive entry with a wake function of ours. Whoever ends a grant, for
 * whatever reason, sends that queue one wake-up, under the mutex. It reaches
 * the oldest entry only, whose wake function takes it off the queue, makes the
 * grant to its contender and wakes the task: the lock is handed over directly,
 * a newcomer never finds it free while somebody waits, and the woken task has
 * nothing left to compete for.
 *
 * A waiter that gives up, for its timeout or a signal, must take itself off
 * the queue under the mutex. If it finds that it was granted the lock in the
 * meantime, then it has it: no grant is ever lost.
 */
#include <linux/cred.h>
#include <linux/hrtimer.h>
#include <linux/minmax.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "lock.h"

/**
 * struct tlock_wait - one wait of a contender, on the stack of who sleeps
 * @task: who sleeps; NULL: the lock was granted
 * @since_ns: when the wait began
 * @until_ns: when it ended
 * @token: the grant's token
 * @result: what the grant tells, TLOCK_ABANDONED or 0
 *
 * What a grant says is kept here and not in the contender: before the sleeper
 * has run, another thread may have released the same contender and even begun
 * another wait.
 */
struct tlock_wait {
	struct task_struct *task;
	u64 since_ns;
	u64 until_ns;
	u64 token;
	u32 result;
};

/*
 * The grant: makes @c the holder. Returns what it is to be told.
 */
static u32 tlock_grant(struct tlock_contender *c, u64 now)
{
	struct tlock *lock = c->lock;
	u32 result = lock->abandoned ? TLOCK_ABANDONED : 0;

	lockdep_assert_held(&lock->mutex);
	lock->abandoned = false;
	c->since_ns = now;
	WRITE_ONCE(c->token, ++lock->token);
	/* Pairs with the load in tlock_keep(): no holder with an older token */
	smp_store_release(&lock->holder, c);
	return result;
}

/* Accounts for the end of a wait, however it ended. */
static void tlock_end_wait(struct tlock_contender *c, u64 now)
{
	struct tlock *lock = c->lock;
	u64 waited = now - c->wait->since_ns;

	c->wait->until_ns = now;
	WRITE_ONCE(lock->waiters, lock->waiters - 1);
	lock->wait_ns_total += waited;
	lock->wait_ns_max = max(lock->wait_ns_max, waited);
	c->wait = NULL;
}

/*
 * Wake function of a waiting contender: grants it the lock, then wakes its
 * task. Runs in the task that ends a grant, under the lock's mutex.
 */
static int tlock_hand_over(wait_queue_entry_t *place, unsigned int mode,
			   int flags, void *key)
{
	struct tlock_contender *c =
		container_of(place, struct tlock_contender, place);
	struct tlock_wait *wait = c->wait;
	struct task_struct *task = wait->task;
	u64 now = *(u64 *)key;

	list_del_init(&place->entry);
	tlock_end_wait(c, now);
	wait->result = tlock_grant(c, now);
	wait->token = c->token;

	get_task_struct(task);
	/*
	 * Lets tlock_sleep() return, and @wait and the task go. Pairs with the
	 * load there: who sees NULL sees the grant.
	 */
	smp_store_release(&wait->task, NULL);
	wake_up_process(task);
	put_task_struct(task);

	/* An exclusive wake-up reached its one waiter */
	return 1;
}

/* Ends the holder's grant; the lock goes to who has waited longest, if any. */
static void tlock_pass_on(struct tlock *lock, u64 now)
{
	u64 held = now - lock->holder->since_ns;

	lockdep_assert_held(&lock->mutex);
	lock->hold_ns_total += held;
	lock->hold_ns_max = max(lock->hold_ns_max, held);
	WRITE_ONCE(lock->holder, NULL);
	if (lock->waiters)
		__wake_up(&lock->queue, TASK_NORMAL, 1, &now);
}

/*
 * Whether the process has ended. A zombie's number is not yet free for another
 * process, but the process is gone all the same.
 */
static bool tlock_pid_ended(struct pid *pid)
{
	struct task_struct *leader;
	bool ended;

	rcu_read_lock();
	leader = pid_task(pid, PIDTYPE_TGID);
	ended = !leader || (leader->exit_state && !delay_group_leader(leader));
	rcu_read_unlock();
	return ended;
}

/* Who holds the lock, as the caller's namespaces see it */
static void tlock_describe(struct tlock *lock, struct tlock_holder *holder)
{
	const struct tlock_contender *c = lock->holder;

	lockdep_assert_held(&lock->mutex);
	if (!c) {
		memset(holder, 0, sizeof(*holder));
		return;
	}

	holder->token = c->token;
	holder->since_ns = c->since_ns;
	holder->pid = tlock_pid_ended(c->pid) ? 0 : pid_vnr(c->pid);
	holder->uid = from_kuid_munged(current_user_ns(), c->uid);
	strscpy_pad(holder->comm, c->comm, sizeof(holder->comm));
	strscpy_pad(holder->job, c->job, sizeof(holder->job));
}

/* Notes who it is that asks for the lock, and what for; NULL: as before. */
static void tlock_introduce(struct tlock_contender *c, const char *job)
{
	struct task_struct *leader = current->group_leader;
	struct pid *pid = task_tgid(current);

	if (c->pid != pid) {
		put_pid(c->pid);
		WRITE_ONCE(c->pid, get_pid(pid));
	} else if (!job) {
		/* It is known, and tlock_keep() would not look again either */
		return;
	}
	c->uid = current_euid();
	BUILD_BUG_ON(sizeof(c->comm) != sizeof(leader->comm));
	/*
	 * Without the lock that guards its changes: at worst, this is a mixture
	 * of an old and a new name. Its last byte is always NUL.
	 */
	data_race(memcpy(c->comm, leader->comm, sizeof(c->comm)));
	if (job)
		memcpy(c->job, job, sizeof(c->job));
}

/*
 * Sleeps until the grant, the deadline (NULL: none) or a signal. Who gets
 * another answer than 0 may have been granted the lock all the same since.
 */
static int tlock_sleep(struct tlock_wait *wait, ktime_t *deadline)
{
	int err = 0;

	do {
		set_current_state(TASK_INTERRUPTIBLE);
		/* Pairs with the store in tlock_hand_over() */
		if (!smp_load_acquire(&wait->task))
			break;
		if (signal_pending(current))
			err = -EINTR;
		else if (!schedule_hrtimeout_range(deadline, 0,
						   HRTIMER_MODE_ABS))
			err = -ETIMEDOUT;
	} while (!err);
	__set_current_state(TASK_RUNNING);
	return err;
}

/*
 * Waits at the queue's end for the grant, if the caller will wait; if @again,
 * ends its own grant first. Writes the time that is left to @arg. Is called
 * with the mutex held, and drops it.
 */
static int tlock_wait(struct tlock_contender *c, struct tlock_acquire *arg,
		      bool again)
{
	struct tlock *lock = c->lock;
	struct tlock_wait wait;
	ktime_t deadline;
	u64 waited;
	int err;

	lockdep_assert_held(&lock->mutex);
	/*
	 * tlock_keep() looks at @waiters without the mutex: we are counted before
	 * the next holder can look, and before the wait begins by the clock.
	 */
	if (arg->timeout_ns) {
		wait.task = current;
		c->wait = &wait;
		/* Without the queue's own lock: the mutex guards it */
		__add_wait_queue_entry_tail_exclusive(&lock->queue, &c->place);
		WRITE_ONCE(lock->waiters, lock->waiters + 1);
	}
	wait.since_ns = ktime_get_ns();
	if (again)
		tlock_pass_on(lock, wait.since_ns);
	if (!arg->timeout_ns) {
		lock->timed_out++;
		tlock_describe(lock, &arg->holder);
		mutex_unlock(&lock->mutex);
		return -ETIMEDOUT;
	}
	mutex_unlock(&lock->mutex);

	deadline = ktime_add_safe(ns_to_ktime(wait.since_ns),
				  ns_to_ktime(arg->timeout_ns));
	err = tlock_sleep(&wait, arg->timeout_ns < 0 ? NULL : &deadline);
	if (err) {
		mutex_lock(&lock->mutex);
		if (!wait.task) {
			/* Granted in the meantime */
			err = 0;
		} else {
			__remove_wait_queue(&lock->queue, &c->place);
			tlock_end_wait(c, ktime_get_ns());
			if (err == -ETIMEDOUT) {
				lock->timed_out++;
				tlock_describe(lock, &arg->holder);
			} else {
				lock->interrupted++;
			}
		}
		mutex_unlock(&lock->mutex);
	}

	if (arg->timeout_ns > 0) {
		waited = wait.until_ns - wait.since_ns;
		arg->timeout_ns -= min_t(u64, waited, arg->timeout_ns);
	}
	if (!err) {
		arg->token = wait.token;
		arg->result = wait.result;
	}
	return err;
}

/**
 * tlock_acquire - take the lock, waiting for it if need be
 * @c: the contender
 * @arg: as in the ABI, all but its flags
 *
 * Context: Process context; sleeps.
 * Return: 0: @c holds the lock; -EDEADLK: it did already; -EBUSY: it is waiting
 * in another thread; -ETIMEDOUT or -EINTR: it does not hold the lock.
 */
int tlock_acquire(struct tlock_contender *c, struct tlock_acquire *arg)
{
	struct tlock *lock = c->lock;
	int err = 0;

	mutex_lock(&lock->mutex);
	if (lock->holder == c) {
		err = -EDEADLK;
	} else if (c->wait) {
		err = -EBUSY;
	} else {
		tlock_introduce(c, arg->job);
		if (lock->holder) {
			lock->contended++;
			return tlock_wait(c, arg, false);
		}
		arg->result = tlock_grant(c, ktime_get_ns());
		arg->token = c->token;
	}
	mutex_unlock(&lock->mutex);
	return err;
}

/**
 * tlock_keep - whether a reacquire without a new job has nothing to do
 * @c: the contender
 *
 * Is for calling often, and so looks without the mutex: who began to wait
 * before the caller could know of it is seen, who does so in this moment may
 * as well have come after it. The one that asks is shown to others, so another
 * process than before does have something to do.
 *
 * Return: the grant's token if @c holds the lock and nobody waits, or 0: call
 * tlock_reacquire().
 */
u64 tlock_keep(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	/* Pairs with the store in tlock_grant() */
	if (smp_load_acquire(&lock->holder) != c || READ_ONCE(lock->waiters) ||
	    READ_ONCE(c->pid) != task_tgid(current))
		return 0;
	return READ_ONCE(c->token);
}

/**
 * tlock_reacquire - let those in who wait, and take the lock again
 * @c: the contender
 * @arg: as in the ABI, all but its flags
 *
 * The mutex makes one step of it: nobody can begin to wait between the release
 * and our place at the queue's end.
 *
 * Context: Process context; sleeps if somebody waits.
 * Return: 0: @c holds the lock; -EPERM: it did not; -ETIMEDOUT or -EINTR: it
 * does not any more.
 */
int tlock_reacquire(struct tlock_contender *c, struct tlock_acquire *arg)
{
	struct tlock *lock = c->lock;
	int err = 0;

	mutex_lock(&lock->mutex);
	if (lock->holder != c) {
		err = -EPERM;
	} else {
		tlock_introduce(c, *arg->job ? arg->job : NULL);
		if (lock->waiters) {
			lock->yielded++;
			return tlock_wait(c, arg, true);
		}
		arg->result = 0;
		arg->token = c->token;
	}
	mutex_unlock(&lock->mutex);
	return err;
}

/**
 * tlock_release - give the lock to who has waited longest
 * @c: the contender
 *
 * Return: 0, or -EPERM if @c does not hold the lock
 */
int tlock_release(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;
	int err = 0;

	mutex_lock(&lock->mutex);
	if (lock->holder == c)
		tlock_pass_on(lock, ktime_get_ns());
	else
		err = -EPERM;
	mutex_unlock(&lock->mutex);
	return err;
}

/**
 * tlock_decline - give back a grant that could not be told to its owner
 * @c: the contender
 * @arg: what the grant said
 *
 * What it had to say of an abandoned lock is left for the next one to hear.
 */
void tlock_decline(struct tlock_contender *c, const struct tlock_acquire *arg)
{
	struct tlock *lock = c->lock;

	mutex_lock(&lock->mutex);
	/* Unless another thread has ended that grant in the meantime */
	if (lock->holder == c && c->token == arg->token) {
		lock->abandoned = arg->result & TLOCK_ABANDONED;
		tlock_pass_on(lock, ktime_get_ns());
	}
	mutex_unlock(&lock->mutex);
}

/**
 * tlock_look - what there is to know about a lock, from one instant
 * @lock: the lock
 * @status: where to; all of it is written. Its since_ns is on the kernel's own
 *	CLOCK_MONOTONIC; pid and uid are as the caller's namespaces see them.
 */
void tlock_look(struct tlock *lock, struct tlock_status *status)
{
	mutex_lock(&lock->mutex);
	tlock_describe(lock, &status->holder);
	status->waiters = lock->waiters;
	status->reserved = 0;
	status->acquired = lock->token;
	status->contended = lock->contended;
	status->timed_out = lock->timed_out;
	status->interrupted = lock->interrupted;
	status->abandoned = lock->abandonments;
	status->yielded = lock->yielded;
	status->wait_ns_total = lock->wait_ns_total;
	status->wait_ns_max = lock->wait_ns_max;
	status->hold_ns_total = lock->hold_ns_total;
	status->hold_ns_max = lock->hold_ns_max;
	mutex_unlock(&lock->mutex);
}

/**
 * tlock_init - make a lock: free, with its counters at 0
 * @lock: memory full of 0
 */
void tlock_init(struct tlock *lock)
{
	mutex_init(&lock->mutex);
	init_waitqueue_head(&lock->queue);
}

/**
 * tlock_enter - make an idle contender for a lock
 * @c: memory full of 0
 * @lock: the lock
 */
void tlock_enter(struct tlock_contender *c, struct tlock *lock)
{
	c->lock = lock;
	init_waitqueue_func_entry(&c->place, tlock_hand_over);
}

/**
 * tlock_leave - end a contender
 * @c: the contender; does not wait
 *
 * If it holds the lock, that counts as abandoned, and passes on.
 */
void tlock_leave(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	mutex_lock(&lock->mutex);
	if (lock->holder == c) {
		lock->abandoned = true;
		lock->abandonments++;
		tlock_pass_on(lock, ktime_get_ns());
	}
	mutex_unlock(&lock->mutex);
	put_pid(c->pid);
}
