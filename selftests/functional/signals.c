// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 9: interruption costs neither the place nor the time.
 *
 * After a handler with SA_RESTART, or where no handler runs, the wait goes on
 * by itself. Otherwise the caller receives a ticket to go on with. In both
 * cases the wait goes on in its place, to the same deadline.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "tlock_test.h"

#define READ_ONCE(x)	(*(volatile __typeof__(x) *)&(x))

typedef int call_fn(int fd, struct tlock_acquire *arg);

/* Makes a contender wait for the lock, which @holder holds. */
static struct call *begin_wait(int fd, call_fn *fn, __s64 timeout_ns,
			       int holder)
{
	struct call *next, *waiter;

	if (fn == acquire) {
		take(holder, "holder");
		waiter = call(fd, acquire, timeout_ns, "w");
	} else {
		take(fd, "w");
		next = call(holder, acquire, FOREVER, "holder");
		if (!await_waiters(holder, 1))
			die("nobody waits");
		waiter = call(fd, reacquire, timeout_ns, "");
		if (result(next))
			die("nobody was let in");
	}
	if (!await_waiters(holder, 1) || !await_asleep(waiter->tid))
		die("it does not wait");
	return waiter;
}

/* Adds a newcomer to the queue, which then has this length */
#define QUEUE_UP(length) ({						\
	struct call *__c = call(contender(), acquire, FOREVER, "other"); \
									\
	ASSERT_TRUE(await_waiters(self->fd, length));			\
	__c;								\
})

/* The waiter gets the lock in its turn, and releases it. */
#define EXPECT_TURN(c, expected_token) do {				\
	ASSERT_EQ(0, result(c));					\
	EXPECT_EQ(expected_token, (c)->arg->token);			\
	ASSERT_EQ(0, release((c)->fd));					\
} while (0)

/* Tests of a waiter, in either call. */
FIXTURE(waiter)
{
	int fd;			/* the holder's */
	int waiting;		/* the waiter's */
	struct call *waiter;
	__s64 queued;		/* it was waiting by then */
	__u64 token;		/* the holder's */
	__u64 ticket;		/* the waiter's */
	struct tlock_status before;
};

FIXTURE_VARIANT(waiter)
{
	call_fn *fn;
	__s64 timeout_ns;
	call_fn *go_on;		/* the call to go on with; either will do */
};

FIXTURE_VARIANT_ADD(waiter, acquire)
{
	.fn = acquire,
	.timeout_ns = LONG,
	.go_on = reacquire,
};

FIXTURE_VARIANT_ADD(waiter, acquire_for_ever)
{
	.fn = acquire,
	.timeout_ns = FOREVER,
	.go_on = acquire,
};

FIXTURE_VARIANT_ADD(waiter, reacquire)
{
	.fn = reacquire,
	.timeout_ns = LONG,
	.go_on = acquire,
};

FIXTURE_VARIANT_ADD(waiter, reacquire_for_ever)
{
	.fn = reacquire,
	.timeout_ns = FOREVER,
	.go_on = reacquire,
};

FIXTURE_SETUP(waiter)
{
	self->fd = contender();
	self->waiting = contender();
	ASSERT_FREE(self->fd);
	self->waiter = begin_wait(self->waiting, variant->fn,
				  variant->timeout_ns, self->fd);
	self->queued = now();
	self->before = look(self->fd);
	self->token = self->before.holder.token;
	ASSERT_STREQ("waiting", state_of(self->waiting, &self->ticket));
	ASSERT_NE(0, self->ticket);
}

FIXTURE_TEARDOWN(waiter)
{
	/* Tests end with the waiter out of the queue, and not holding */
	EXPECT_EQ(-EPERM, release(self->waiting));
	close(self->waiting);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

/* Interrupts the waiter without SA_RESTART: its request is then away. */
#define INTERRUPT() do {						\
	handle_usr1(0);							\
	send_signal(self->waiter, SIGUSR1);				\
	ASSERT_EQ(-EINTR, result(self->waiter));			\
	ASSERT_EQ(self->ticket, self->waiter->arg->ticket);		\
} while (0)

TEST_F(waiter, g9_interrupted_without_restart)
{
	struct tlock_acquire *arg = self->waiter->arg;
	__s64 until = now(), used;
	__u64 ticket;

	INTERRUPT();
	EXPECT_EQ(1, atomic_load(&handled));

	/* The call returned the time left and the ticket, and nothing else */
	if (variant->timeout_ns > 0) {
		used = variant->timeout_ns - arg->timeout_ns;
		EXPECT_LE(until - self->queued, used);
		EXPECT_GE(self->waiter->ended - self->waiter->begun, used);
	} else {
		EXPECT_EQ(variant->timeout_ns, arg->timeout_ns);
	}
	EXPECT_EQ(0, arg->result);
	EXPECT_TRUE(poisoned(&arg->token, sizeof(arg->token)));
	EXPECT_TRUE(poisoned(&arg->holder, sizeof(arg->holder)));
	EXPECT_STREQ("away", state_of(self->waiting, &ticket));
	EXPECT_EQ(self->ticket, ticket);
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(self->token, look(self->fd).holder.token);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	EXPECT_EQ(self->before.timed_out, look(self->fd).timed_out);
	/* It is in nobody's way: a release frees the lock */
	EXPECT_EQ(0, release(self->fd));
	EXPECT_EQ(0, look(self->fd).holder.token);
	EXPECT_EQ(0, release(self->waiting));
}

TEST_F(waiter, g9_interrupted_with_restart)
{
	struct tlock_acquire *arg = self->waiter->arg;
	struct call *behind = QUEUE_UP(2);
	__s64 left;
	__u64 ticket;

	handle_usr1(SA_RESTART);
	for (int i = 1; i <= 3; i++) {
		send_signal(self->waiter, SIGUSR1);
		ASSERT_TRUE(await_value(&handled, i));
		/* It waits again, with the time that is left */
		ASSERT_TRUE(await_waiters(self->fd, 2));
		ASSERT_TRUE(await_asleep(self->waiter->tid));
	}
	EXPECT_STREQ("waiting", state_of(self->waiting, &ticket));
	EXPECT_EQ(self->ticket, ticket);
	EXPECT_EQ(self->ticket, READ_ONCE(arg->ticket));
	left = READ_ONCE(arg->timeout_ns);
	if (variant->timeout_ns > 0) {
		EXPECT_GT(LONG, left);
	} else {
		EXPECT_EQ(variant->timeout_ns, left);
	}
	/* A request counts once as interrupted, and once as contended */
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	EXPECT_EQ(self->before.contended + 1, look(self->fd).contended);

	/* It gets the lock in its place */
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(self->waiter));
	EXPECT_EQ(0, arg->ticket);
	EXPECT_STREQ("w", look(self->fd).holder.job);
	if (variant->timeout_ns > 0) {
		EXPECT_GT(left, arg->timeout_ns);
		EXPECT_LE(LONG - (self->waiter->ended - self->waiter->begun),
			  arg->timeout_ns);
	}
	EXPECT_TURN(self->waiter, self->token + 1);
	EXPECT_TURN(behind, self->token + 2);
	close(behind->fd);
}

/* A ticket keeps its place ahead of all who come later, even while away. */
TEST_F(waiter, g9_goes_on_in_its_place)
{
	struct tlock_acquire *arg = self->waiter->arg;
	struct call *behind = QUEUE_UP(2), *later, *again;
	__s64 used;
	__u64 ticket;

	INTERRUPT();
	ASSERT_TRUE(await_waiters(self->fd, 1));
	later = QUEUE_UP(2);

	/* These are ignored */
	arg->timeout_ns = 0;
	strcpy(arg->job, "another job");
	again = call_with(self->waiting, variant->go_on, arg);
	ASSERT_TRUE(await_waiters(self->fd, 3));
	EXPECT_STREQ("waiting", state_of(self->waiting, &ticket));
	EXPECT_EQ(self->ticket, ticket);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(again));
	EXPECT_EQ(0, arg->ticket);
	EXPECT_STREQ("w", look(self->fd).holder.job);
	if (variant->timeout_ns > 0) {
		/* All time since the request was made counts */
		used = variant->timeout_ns - arg->timeout_ns;
		EXPECT_LE(again->begun - self->queued, used);
		EXPECT_GE(again->ended - self->waiter->begun, used);
	} else {
		EXPECT_EQ(0, arg->timeout_ns);
	}
	EXPECT_TURN(again, self->token + 1);
	EXPECT_TURN(behind, self->token + 2);
	EXPECT_TURN(later, self->token + 3);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	EXPECT_EQ(self->before.contended + 2, look(self->fd).contended);
	close(behind->fd);
	close(later->fd);
}

/* A waiter that was not the first does not become so. */
TEST_F(tlock, g9_goes_on_between_two)
{
	__u64 token = take(self->fd, "holder");
	struct call *first, *middle, *last;
	int fd = contender();

	first = call(contender(), acquire, FOREVER, "first");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	middle = call(fd, acquire, FOREVER, "middle");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	last = call(contender(), acquire, FOREVER, "last");
	ASSERT_TRUE(await_waiters(self->fd, 3));
	handle_usr1(0);
	send_signal(middle, SIGUSR1);
	ASSERT_EQ(-EINTR, result(middle));
	middle = call_with(fd, acquire, middle->arg);
	ASSERT_TRUE(await_waiters(self->fd, 3));

	ASSERT_EQ(0, release(self->fd));
	EXPECT_TURN(first, token + 1);
	EXPECT_TURN(middle, token + 2);
	EXPECT_TURN(last, token + 3);
	close(first->fd);
	close(fd);
	close(last->fd);
}

/* It learns that the lock was abandoned while it was away. */
TEST_F(waiter, g6_goes_on_where_the_holder_died)
{
	struct tlock_acquire *arg = self->waiter->arg;

	INTERRUPT();
	close(self->fd);
	self->fd = contender();
	ASSERT_EQ(0, look(self->fd).holder.token);
	ASSERT_EQ(0, variant->go_on(self->waiting, arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg->result);
	EXPECT_EQ(0, release(self->waiting));
}

/* Nobody waited behind it, and the lock became free in the meantime */
TEST_F(waiter, g9_goes_on_where_the_lock_is_free)
{
	struct tlock_acquire *arg = self->waiter->arg;

	INTERRUPT();
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, variant->go_on(self->waiting, arg));
	EXPECT_EQ(self->token + 1, arg->token);
	EXPECT_EQ(0, arg->result);
	EXPECT_EQ(0, arg->ticket);
	EXPECT_STREQ("w", look(self->fd).holder.job);
	EXPECT_EQ(0, release(self->waiting));
}

TEST_F(waiter, g9_ticket_0_asks_at_the_end)
{
	struct call *behind = QUEUE_UP(2), *anew;
	struct tlock_acquire *arg = self->waiter->arg;
	__u64 ticket;

	INTERRUPT();
	*arg = ask(FOREVER, "anew");
	anew = call_with(self->waiting, acquire, arg);
	ASSERT_TRUE(await_waiters(self->fd, 2));
	EXPECT_STREQ("waiting", state_of(self->waiting, &ticket));
	EXPECT_LT(self->ticket, ticket);
	/* The old ticket is no longer valid */
	arg = malloc(sizeof(*arg));
	*arg = ask(FOREVER, "");
	arg->ticket = self->ticket;
	EXPECT_EQ(-ECANCELED, variant->go_on(self->waiting, arg));

	ASSERT_EQ(0, release(self->fd));
	EXPECT_TURN(behind, self->token + 1);
	ASSERT_EQ(0, result(anew));
	EXPECT_STREQ("anew", look(self->fd).holder.job);
	EXPECT_TURN(anew, self->token + 2);
	close(behind->fd);
}

TEST_F(waiter, g9_release_withdraws)
{
	struct tlock_acquire *arg = self->waiter->arg;

	INTERRUPT();
	EXPECT_EQ(0, release(self->waiting));
	EXPECT_STREQ("idle", state_of(self->waiting, NULL));
	EXPECT_EQ(-EPERM, release(self->waiting));
	EXPECT_EQ(-ECANCELED, variant->go_on(self->waiting, arg));
	EXPECT_EQ(0, arg->ticket);
	EXPECT_EQ(self->token, look(self->fd).holder.token);
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(0, release(self->fd));
}

/* While a request is away, its deadline stays the same. */
FIXTURE(deadline)
{
	int fd;			/* the holder's */
	int waiting;
	struct call *waiter;
	__s64 queued;
	struct tlock_status before;
};

FIXTURE_VARIANT(deadline)
{
	call_fn *fn;
	bool restarts;
};

FIXTURE_VARIANT_ADD(deadline, acquire)
{
	.fn = acquire,
};

FIXTURE_VARIANT_ADD(deadline, acquire_restarted)
{
	.fn = acquire,
	.restarts = true,
};

FIXTURE_VARIANT_ADD(deadline, reacquire)
{
	.fn = reacquire,
};

FIXTURE_VARIANT_ADD(deadline, reacquire_restarted)
{
	.fn = reacquire,
	.restarts = true,
};

FIXTURE_SETUP(deadline)
{
	self->fd = contender();
	self->waiting = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
}

FIXTURE_TEARDOWN(deadline)
{
	close(self->waiting);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

/* Makes the request go away, by a handler that lingers or by EINTR */
#define GO_AWAY(timeout_ns) do {					\
	self->waiter = begin_wait(self->waiting, variant->fn,		\
				  timeout_ns, self->fd);		\
	self->queued = now();						\
	handle_usr1(variant->restarts ? SA_RESTART : 0);			\
	atomic_store(&linger, variant->restarts);			\
	send_signal(self->waiter, SIGUSR1);				\
	ASSERT_TRUE(await_value(&handled, 1));				\
	if (!variant->restarts)						\
		ASSERT_EQ(-EINTR, result(self->waiter));		\
	ASSERT_STREQ("away", state_of(self->waiting, NULL));		\
} while (0)

/* Lets it go on; returns the call that does so */
#define COME_BACK() ({							\
	atomic_store(&linger, 0);					\
	variant->restarts ? self->waiter :				\
			    call_with(self->waiting, variant->fn,	\
				      self->waiter->arg);		\
})

#define AWAIT_TIME(time) do {						\
	while (now() <= (time))						\
		usleep(1000);						\
} while (0)

/* Back in time, it ends at its deadline, and not a whole timeout later. */
TEST_F(deadline, g9_kept_by_one_that_was_away)
{
	const __s64 timeout = 2 * SEC;
	struct call *longer, *back;

	GO_AWAY(timeout);
	AWAIT_TIME(self->queued + timeout / 2);
	longer = call(contender(), acquire, timeout, "longer");
	back = COME_BACK();
	ASSERT_EQ(-ETIMEDOUT, result(back));
	EXPECT_LE(timeout, back->ended - self->waiter->begun);
	EXPECT_EQ(0, back->arg->timeout_ns);
	EXPECT_EQ(0, back->arg->ticket);
	EXPECT_STREQ("holder", back->arg->holder.job);
	ASSERT_EQ(-ETIMEDOUT, result(longer));
	EXPECT_LT(back->ended, longer->ended);
	EXPECT_EQ(-EPERM, release(self->waiting));
	EXPECT_EQ(0, release(self->fd));
	close(longer->fd);
}

/* Back too late, it tries once, and names the holder of that moment. */
TEST_F(deadline, g9_over_while_away_and_the_lock_is_held)
{
	const __s64 timeout = SEC / 2;
	int fd = contender();
	struct call *back;
	__u64 token;

	GO_AWAY(timeout);
	AWAIT_TIME(self->queued + timeout);
	/* A request does not time out while it is away */
	EXPECT_EQ(self->before.timed_out, look(fd).timed_out);
	ASSERT_EQ(0, release(self->fd));
	token = take(fd, "next holder");
	back = COME_BACK();
	ASSERT_EQ(-ETIMEDOUT, result(back));
	EXPECT_EQ(token, back->arg->holder.token);
	EXPECT_STREQ("next holder", back->arg->holder.job);
	EXPECT_EQ(0, back->arg->timeout_ns);
	EXPECT_EQ(0, back->arg->ticket);
	EXPECT_EQ(self->before.timed_out + 1, look(fd).timed_out);
	EXPECT_EQ(-EPERM, release(self->waiting));
	EXPECT_EQ(0, release(fd));
	close(fd);
}

TEST_F(deadline, g9_over_while_away_and_the_lock_is_free)
{
	const __s64 timeout = SEC / 2;
	struct call *back;
	__u64 token;

	GO_AWAY(timeout);
	token = look(self->fd).holder.token;
	AWAIT_TIME(self->queued + timeout);
	ASSERT_EQ(0, release(self->fd));
	back = COME_BACK();
	ASSERT_EQ(0, result(back));
	EXPECT_EQ(token + 1, back->arg->token);
	EXPECT_EQ(0, back->arg->timeout_ns);
	EXPECT_EQ(0, back->arg->ticket);
	EXPECT_EQ(self->before.timed_out, look(self->fd).timed_out);
	EXPECT_EQ(0, release(self->waiting));
}

/* Stopped and continued, as by a shell's job control */
FIXTURE(stopped)
{
	int fd;
	struct agent *a;
	struct tlock_acquire arg;
	__u64 token;
	struct tlock_status before;
};

FIXTURE_VARIANT(stopped)
{
	call_fn *fn;
};

FIXTURE_VARIANT_ADD(stopped, acquire)
{
	.fn = acquire,
};

FIXTURE_VARIANT_ADD(stopped, reacquire)
{
	.fn = reacquire,
};

FIXTURE_SETUP(stopped)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->a = agent();
}

FIXTURE_TEARDOWN(stopped)
{
	close(self->fd);
	EXPECT_LEFT_FREE();
}

/* Makes the agent wait, and stops it */
#define STOP(timeout_ns) do {						\
	struct call *__next = NULL;					\
	int __wstatus;							\
									\
	if (variant->fn == reacquire) {					\
		agent_take(self->a, "agent");				\
		__next = call(self->fd, acquire, FOREVER, "holder");	\
		ASSERT_TRUE(await_waiters(self->fd, 1));		\
	} else {							\
		take(self->fd, "holder");				\
	}								\
	self->before = look(self->fd);					\
	self->arg = ask(timeout_ns, "agent");				\
	agent_begin(self->a, variant->fn, &self->arg);			\
	if (variant->fn == reacquire) {					\
		ASSERT_EQ(0, result(__next));				\
	}								\
	ASSERT_TRUE(await_waiters(self->fd, 1));			\
	self->token = look(self->fd).holder.token;			\
	ASSERT_EQ(0, kill(self->a->pid, SIGSTOP));			\
	ASSERT_EQ(self->a->pid,						\
		  waitpid(self->a->pid, &__wstatus, WUNTRACED));	\
	ASSERT_TRUE(WIFSTOPPED(__wstatus));				\
} while (0)

TEST_F(stopped, g9_goes_on_in_its_place)
{
	struct call *behind, *later;

	STOP(LONG);
	/* While it is stopped, it holds up nobody */
	EXPECT_EQ(0, look(self->fd).waiters);
	behind = QUEUE_UP(1);
	later = QUEUE_UP(2);
	ASSERT_EQ(0, release(self->fd));
	EXPECT_TURN(behind, self->token + 1);
	ASSERT_EQ(0, result(later));

	/* Once back, it is ahead of a waiter that came while it was stopped */
	behind = QUEUE_UP(1);
	ASSERT_EQ(0, kill(self->a->pid, SIGCONT));
	ASSERT_TRUE(await_waiters(self->fd, 2));
	EXPECT_TURN(later, self->token + 2);
	ASSERT_EQ(0, agent_end(self->a, &self->arg));
	EXPECT_EQ(self->token + 3, self->arg.token);
	EXPECT_EQ(0, self->arg.ticket);
	EXPECT_GT(LONG, self->arg.timeout_ns);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	ASSERT_EQ(0, agent_release(self->a));
	EXPECT_TURN(behind, self->token + 4);
}

TEST_F(stopped, g9_its_time_goes_on)
{
	const __s64 timeout = SEC;
	__s64 stopped;

	STOP(timeout);
	stopped = now();
	AWAIT_TIME(stopped + timeout);
	ASSERT_EQ(0, kill(self->a->pid, SIGCONT));
	ASSERT_EQ(-ETIMEDOUT, agent_end(self->a, &self->arg));
	EXPECT_EQ(self->token, self->arg.holder.token);
	EXPECT_EQ(0, self->arg.timeout_ns);
	EXPECT_EQ(-EPERM, agent_release(self->a));
	EXPECT_EQ(0, release(self->fd));
}

/*
 * Signals do not move the deadline, however many come. The wait does not end
 * early. And it does end, which it would not if each restart began the timeout
 * anew.
 */
TEST_F(tlock, g9_signals_do_not_stretch_the_timeout)
{
	const __s64 timeout = 400 * MSEC;
	__s64 end = now() + PATIENCE;
	struct call *waiter;
	int signals = 0;

	handle_usr1(SA_RESTART);
	take(self->fd, "holder");
	waiter = call(contender(), acquire, timeout, "waiter");
	/* Send one signal after another until the waiter gives up */
	while (look(self->fd).timed_out == self->before.timed_out) {
		ASSERT_GT(end, now());
		if (atomic_load(&handled) == signals) {
			send_signal(waiter, SIGUSR1);
			signals++;
		}
		usleep(10000);
	}
	ASSERT_EQ(-ETIMEDOUT, result(waiter));
	EXPECT_LE(timeout, waiter->ended - waiter->begun);
	EXPECT_EQ(0, waiter->arg->timeout_ns);
	EXPECT_STREQ("holder", waiter->arg->holder.job);
	EXPECT_LT(0, signals);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	EXPECT_EQ(self->before.contended + 1, look(self->fd).contended);
	EXPECT_EQ(0, release(self->fd));
	close(waiter->fd);
}

/* A signal ignored explicitly or by default does not interrupt a wait. */
TEST_F(tlock, g9_ignored_signal)
{
	struct call *waiter;

	signal(SIGUSR1, SIG_IGN);
	take(self->fd, "holder");
	waiter = call(contender(), acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	send_signal(waiter, SIGUSR1);
	send_signal(waiter, SIGCHLD);
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(self->before.interrupted, look(self->fd).interrupted);
	EXPECT_EQ(0, release(waiter->fd));
	close(waiter->fd);
}

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* An acquire that a timer's signal interrupts, quite precisely, after 1 ms */
static int acquire_interrupted(int fd, struct tlock_acquire *arg)
{
	struct itimerspec in = { .it_value.tv_nsec = MSEC };
	struct sigevent event = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = SIGUSR1,
		.sigev_notify_thread_id = syscall(SYS_gettid),
	};
	timer_t timer;
	int ret;

	if (timer_create(CLOCK_MONOTONIC, &event, &timer) ||
	    timer_settime(timer, 0, &in, NULL))
		die("no timer");
	ret = acquire(fd, arg);
	timer_delete(timer);
	return ret;
}

/*
 * A signal meets the grant: either the call returns with the lock, or the
 * request is away and the lock is free. Each grant makes the next release
 * later, and each failure earlier, to stay close to where the two meet.
 */
TEST_F(tlock, g9_signal_meets_hand_over)
{
	__s64 delay = MSEC, end = now() + 4 * SEC;
	__u64 token, contended = self->before.contended;
	int fd = contender(), rounds = 0, granted = 0;
	struct call *waiter;

	handle_usr1(0);
	while (rounds++ < 1000 && now() < end) {
		take(self->fd, "holder");
		waiter = call(fd, acquire_interrupted, FOREVER, "waiter");
		/* It waits, or did */
		ASSERT_TRUE(await_contended(fd, ++contended));
		while (now() < waiter->begun + delay)
			;
		ASSERT_EQ(0, release(self->fd));
		token = look(fd).holder.token;
		switch (result(waiter)) {
		case 0:
			granted++;
			delay += 3 * USEC;
			ASSERT_EQ(token, waiter->arg->token);
			ASSERT_EQ(0, release(fd));
			break;
		case -EINTR:
			delay -= 3 * USEC;
			ASSERT_EQ(0, token);
			/* Its request is away, in nobody's way */
			ASSERT_EQ(0, release(fd));
			break;
		default:
			ASSERT_EQ(0, waiter->ret);
		}
		ASSERT_EQ(0, look(fd).holder.token);
	}
	TH_LOG("%d of %d waiters were granted the lock", granted, rounds - 1);
	close(fd);
}

/* A signal after the grant comes too late to take it back. */
TEST_F(tlock, g9_signal_after_hand_over)
{
	struct call *waiter;
	int fd = contender();

	handle_usr1(0);
	for (int round = 0; round < 30; round++) {
		take(self->fd, "holder");
		waiter = call(fd, acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		ASSERT_EQ(0, release(self->fd));
		send_signal(waiter, SIGUSR1);
		ASSERT_EQ(0, result(waiter));
		ASSERT_EQ(0, release(fd));
	}
	close(fd);
}

TEST_HARNESS_MAIN
