// SPDX-License-Identifier: GPL-2.0-only
/*
 * The gate of a lock that several hosts share.
 *
 * While the gate is shut, it holds the lock, for whichever host has it:
 * contenders then wait, time out, and learn the holder as they do when one of
 * them holds the lock. Opening the gate ends this like a grant, and the longest
 * waiter gets the lock. When a grant ends while the gate may not be open any
 * more, the gate gets the lock, and nobody on this host does.
 *
 * It fails closed: it is open only while its daemon is attached, until a time
 * that the daemon has set, and as long as there are tokens. The time is on
 * CLOCK_BOOTTIME, as it passes for the other hosts even while this one is
 * suspended. A timer enforces it; but as a timer can be late, each grant checks
 * the clock, too.
 *
 * Each opening has a number. The daemon can prolong only the newest one, and
 * only until it is over. So a call that comes late cannot prolong the grant of
 * a later opening.
 */
#include <linux/hrtimer.h>
#include <linux/minmax.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "compat.h"
#include "gate.h"

/**
 * tlock_gate_flags - tell which flags of the present grant are due to the gate
 * @lock: the lock, which has a gate and a holder
 *
 * Return: TLOCK_REMOTE if the gate holds the lock, or is about to end the
 * grant; or 0.
 */
u32 tlock_gate_flags(const struct tlock *lock)
{
	return tlock_is_shut(lock) || !lock->gate->until_ns ? TLOCK_REMOTE : 0;
}

/**
 * tlock_gate_news - have the daemon look at the gate
 * @lock: the lock, which has a gate
 *
 * The caller may have the pollers of a contender to wake, too. Those of the
 * gate are woken by its own timer: see tlock_deadline_timer().
 */
void tlock_gate_news(struct tlock *lock)
{
	struct tlock_gate_state *gate = lock->gate;

	lockdep_assert_held(&lock->spinlock);
	WRITE_ONCE(gate->news, true);
	/* Pairs with the barrier in tlock_poll_events() */
	if (wq_has_sleeper(&gate->self.pollers))
		hrtimer_start(&gate->self.timer, 0, HRTIMER_MODE_ABS_SOFT);
}

/**
 * tlock_gate_note_try - note that somebody tried in vain to acquire the lock
 * @lock: the lock, which has a gate
 */
void tlock_gate_note_try(struct tlock *lock)
{
	if (!tlock_is_shut(lock))
		return;
	lock->gate->tried = true;
	tlock_gate_news(lock);
}

/* Gives a free lock to the gate. */
static void tlock_gate_take(struct tlock *lock)
{
	struct tlock_gate_state *gate = lock->gate;

	lockdep_assert_held(&lock->spinlock);
	WRITE_ONCE(lock->holder, &gate->self);
	if (gate->closing)
		WRITE_ONCE(gate->until_ns, 0);
	if (!gate->until_ns) {
		gate->last_token = 0;
		gate->closing = false;
		WRITE_ONCE(lock->recalled, false);
	}
}

/**
 * tlock_gate_passes - let the next contender have a lock that has become free
 * @lock: the lock, which has a gate
 * @now: the time
 *
 * Return: whether a contender may be granted the lock; if not, the gate holds
 * it now.
 */
bool tlock_gate_passes(struct tlock *lock, u64 now)
{
	bool open = tlock_gate_is_open(lock, now);

	if (!open || lock->recalled)
		tlock_gate_news(lock);
	if (!open)
		tlock_gate_take(lock);
	return open;
}

/**
 * tlock_gate_catch_up - have what must have happened to the gate by now
 * @lock: the lock, which has a gate
 * @now: the time
 *
 * Ends the opening if its time has passed, together with the present grant.
 * Then, or if the gate cannot be open for another reason, the gate gets the
 * lock unless a contender holds it.
 */
void tlock_gate_catch_up(struct tlock *lock, u64 now)
{
	struct tlock_gate_state *gate = lock->gate;
	struct tlock_deferred todo = {};

	lockdep_assert_held(&lock->spinlock);
	if (gate->until_ns && tlock_gate_is_over(lock, now)) {
		WRITE_ONCE(gate->until_ns, 0);
		tlock_gate_news(lock);
		if (lock->holder && !tlock_is_shut(lock))
			tlock_take_away(lock, now, &todo);
		else
			tlock_gate_take(lock);
	}
	if (!lock->holder && !tlock_gate_is_open(lock, now))
		tlock_gate_take(lock);
}

/*
 * Ends the opening, and the grant. Runs as a hard interrupt, on PREEMPT_RT too:
 * no holder, however urgent, may keep it from that.
 */
static enum hrtimer_restart tlock_gate_timer(struct hrtimer *timer)
{
	struct tlock_gate_state *gate =
		container_of(timer, struct tlock_gate_state, timer);
	struct tlock *lock = gate->self.lock;

	raw_spin_lock(&lock->spinlock);
	tlock_gate_catch_up(lock, ktime_get_ns());
	/* Not if it ran early, or an opening has begun or been prolonged meanwhile */
	if (gate->until_ns)
		hrtimer_start(timer, gate->until_ns, HRTIMER_MODE_ABS_HARD);
	raw_spin_unlock(&lock->spinlock);
	return HRTIMER_NORESTART;
}

/**
 * tlock_gate_attach - make a file the daemon of its lock's gate
 * @c: the file's contender
 *
 * Return: 0, or -EBUSY if there is a daemon, or the file monitors the lock.
 */
int tlock_gate_attach(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;
	int err = 0;

	raw_spin_lock_irq(&lock->spinlock);
	if (lock->gate->daemon || c->next_seq)
		err = -EBUSY;
	else
		WRITE_ONCE(lock->gate->daemon, c);
	raw_spin_unlock_irq(&lock->spinlock);
	return err;
}

/**
 * tlock_gate_detach - shut the gate, as the daemon's file is closed
 * @c: the file's contender, which may be another than the daemon's
 *
 * The present grant can still last until the opening is over.
 */
void tlock_gate_detach(struct tlock_contender *c)
{
	struct tlock *lock = c->lock;

	raw_spin_lock_irq(&lock->spinlock);
	if (tlock_is_daemon(c)) {
		WRITE_ONCE(lock->gate->daemon, NULL);
		lock->gate->last_token = 0;
		tlock_gate_catch_up(lock, ktime_get_ns());
	}
	raw_spin_unlock_irq(&lock->spinlock);
}

/* Takes over what the daemon says of the holder on another host. */
static void tlock_gate_set_remote(struct tlock_gate_state *gate,
				  const struct tlock_gate *arg)
{
	struct tlock_identity *id = &gate->self.id;

	id->token = arg->holder.token;
	id->since_ns = arg->holder.since_ns;
	memcpy(id->comm, arg->holder.comm, sizeof(id->comm));
	memcpy(id->job, arg->holder.job, sizeof(id->job));
	memcpy(gate->host, arg->host, sizeof(gate->host));
}

/* Whether the daemon may say that of an opening: 0 or an error as in the ABI */
static int tlock_gate_check(const struct tlock_contender *c,
			    const struct tlock_gate *arg, bool shut)
{
	const struct tlock_gate_state *gate = c->lock->gate;

	if (!tlock_is_daemon(c))
		return -EPERM;
	if (!shut && (!arg->first_token || arg->last_token < arg->first_token))
		return -EINVAL;
	if (arg->opening == gate->opening)
		return gate->until_ns || shut ? 0 : -ESTALE;
	if (arg->opening != gate->opening + 1)
		return -ESTALE;
	return gate->until_ns ? -EBUSY : 0;
}

/* Describes the gate, for the caller of a file with contender @c. */
static void tlock_gate_describe(struct tlock_contender *c,
				struct tlock_gate *arg, u64 now)
{
	struct tlock *lock = c->lock;
	struct tlock_gate_state *gate = lock->gate;
	u32 op = arg->op;

	lockdep_assert_held(&lock->spinlock);
	memset(arg, 0, sizeof(*arg));
	arg->op = op;
	if (lock->recalled && !gate->closing)
		arg->flags = TLOCK_GATE_RECALL;
	if (tlock_gate_is_open(lock, now) && !tlock_is_shut(lock))
		arg->state |= TLOCK_GATE_OPEN;
	if (lock->holder && !tlock_is_shut(lock))
		arg->state |= TLOCK_GATE_HELD;
	if (lock->waiters || gate->tried)
		arg->state |= TLOCK_GATE_WANTED;
	if (lock->token >= gate->last_token)
		arg->state |= TLOCK_GATE_SPENT;
	if (!gate->until_ns)
		arg->state |= TLOCK_GATE_OVER;
	arg->waiters = lock->waiters;
	arg->opening = gate->opening;
	arg->until_ns = gate->until_ns;
	arg->last_token = gate->last_token;
	arg->token = lock->token;
	arg->result = lock->pending_result;
	tlock_describe_holder(lock, &arg->holder);
	if (tlock_is_shut(lock))
		memcpy(arg->host, gate->host, sizeof(arg->host));
	if (tlock_is_daemon(c)) {
		WRITE_ONCE(gate->news, false);
		gate->tried = false;
	}
}

/**
 * tlock_gate_look - describe the gate of a lock
 * @c: a contender of the lock, which has a gate
 * @arg: filled in, except for op; until_ns and since_ns are on the kernel's own
 *	clocks
 */
void tlock_gate_look(struct tlock_contender *c, struct tlock_gate *arg)
{
	struct tlock *lock = c->lock;
	u64 now;

	raw_spin_lock_irq(&lock->spinlock);
	now = ktime_get_ns();
	tlock_gate_catch_up(lock, now);
	tlock_gate_describe(c, arg, now);
	raw_spin_unlock_irq(&lock->spinlock);
}

/**
 * tlock_gate_set - open or shut the gate, or change its opening
 * @c: the contender of the file that says so
 * @arg: as in the ABI, but until_ns and since_ns are on the kernel's own
 *	clocks; filled in with 0, -ESTALE and -EBUSY
 *
 * Return: 0, -EPERM if @c is not the daemon's, or -EINVAL, -ESTALE or -EBUSY as
 * in the ABI.
 */
int tlock_gate_set(struct tlock_contender *c, struct tlock_gate *arg)
{
	struct tlock *lock = c->lock;
	struct tlock_gate_state *gate = lock->gate;
	struct tlock_deferred todo = {};
	u64 now, boottime;
	bool shut;
	int err;

	raw_spin_lock_irq(&lock->spinlock);
	now = ktime_get_ns();
	boottime = tlock_boottime(now);
	tlock_gate_catch_up(lock, now);
	shut = arg->until_ns <= (s64)boottime;
	err = tlock_gate_check(c, arg, shut);
	if (err)
		goto unlock;
	if (arg->opening != gate->opening && !shut)
		lock->pending_result = arg->result;
	gate->opening = arg->opening;
	tlock_gate_set_remote(gate, arg);
	if (!shut) {
		WRITE_ONCE(gate->until_ns, arg->until_ns);
		WRITE_ONCE(lock->recalled, arg->flags & TLOCK_GATE_RECALL);
		lock->token = max(lock->token, arg->first_token - 1);
	} else if (gate->until_ns) {
		WRITE_ONCE(gate->until_ns,
			   min_t(u64, gate->until_ns,
				 ktime_add_safe(boottime,
						min_t(u64, arg->grace_ns,
						      KTIME_MAX))));
		WRITE_ONCE(lock->recalled, true);
	}
	gate->last_token = shut ? 0 : arg->last_token;
	gate->closing = shut && gate->until_ns;
	if (gate->until_ns)
		hrtimer_start(&gate->timer, gate->until_ns,
			      HRTIMER_MODE_ABS_HARD);
	if (tlock_is_shut(lock))
		tlock_gate_take(lock);
	tlock_gate_catch_up(lock, now);
	tlock_gate_changed(lock, now, &todo);
unlock:
	if (err != -EPERM && err != -EINVAL)
		tlock_gate_describe(c, arg, now);
	tlock_unlock(lock, &todo);
	return err;
}

/**
 * tlock_gate_create - give a new lock a gate, which is shut
 * @lock: the lock
 *
 * Return: 0 or -ENOMEM.
 */
int tlock_gate_create(struct tlock *lock)
{
	struct tlock_gate_state *gate = kzalloc(sizeof(*gate), GFP_KERNEL);

	if (!gate)
		return -ENOMEM;
	tlock_contender_ctor(&gate->self);
	tlock_contender_init(&gate->self, lock);
	tlock_timer_setup(&gate->timer, tlock_gate_timer, CLOCK_BOOTTIME,
			  HRTIMER_MODE_ABS_HARD);
	lock->gate = gate;
	lock->gated = true;
	lock->holder = &gate->self;
	return 0;
}

/**
 * tlock_gate_destroy - undo tlock_gate_create(), if that was called
 * @lock: the lock, which has no contenders any more
 */
void tlock_gate_destroy(struct tlock *lock)
{
	struct tlock_gate_state *gate = lock->gate;

	if (!gate)
		return;
	hrtimer_cancel(&gate->timer);
	hrtimer_cancel(&gate->self.timer);
	kfree(gate);
}
