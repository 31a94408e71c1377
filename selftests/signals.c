// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 9: a wait is interruptible. An acquire restarts by the usual
 * rules, with the time it had left; a reacquire never does.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "tlock_test.h"

#define READ_ONCE(x)	(*(volatile __typeof__(x) *)&(x))

static atomic_int handled;

static void on_signal(int signal)
{
	atomic_fetch_add(&handled, 1);
}

static void handle(int flags)
{
	struct sigaction action = {
		.sa_handler = on_signal,
		.sa_flags = flags,
	};

	sigaction(SIGUSR1, &action, NULL);
}

/* Each of these is about a waiter of one of the two calls. */
FIXTURE(waiter)
{
	int fd;			/* the holder's, at the end */
	struct call *waiter;
	__s64 queued;		/* it certainly waited then */
	struct tlock_status before;
};

FIXTURE_VARIANT(waiter)
{
	int (*fn)(int fd, struct tlock_acquire *arg);
	__s64 timeout_ns;
};

FIXTURE_VARIANT_ADD(waiter, acquire)
{
	.fn = acquire,
	.timeout_ns = LONG,
};

FIXTURE_VARIANT_ADD(waiter, acquire_for_ever)
{
	.fn = acquire,
	.timeout_ns = FOREVER,
};

FIXTURE_VARIANT_ADD(waiter, reacquire)
{
	.fn = reacquire,
	.timeout_ns = LONG,
};

FIXTURE_VARIANT_ADD(waiter, reacquire_for_ever)
{
	.fn = reacquire,
	.timeout_ns = FOREVER,
};

FIXTURE_SETUP(waiter)
{
	int fd = contender();
	struct call *next;

	self->fd = contender();
	ASSERT_FREE(self->fd);
	if (variant->fn == acquire) {
		take(self->fd, "holder");
		self->before = look(self->fd);
		self->waiter = call(fd, acquire, variant->timeout_ns, "w");
	} else {
		take(fd, "w");
		next = call(self->fd, acquire, FOREVER, "holder");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		self->before = look(self->fd);
		self->waiter = call(fd, reacquire, variant->timeout_ns, "");
		ASSERT_EQ(0, result(next));
	}
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_TRUE(await_asleep(self->waiter->tid));
	self->queued = now();
}

FIXTURE_TEARDOWN(waiter)
{
	/* Tests end with the waiter out of the queue, and not holding */
	EXPECT_EQ(-EPERM, release(self->waiter->fd));
	close(self->waiter->fd);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(waiter, g9_interrupted_without_restart)
{
	struct tlock_acquire *arg = self->waiter->arg;
	__s64 until, used;

	handle(0);
	until = now();
	send_signal(self->waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(self->waiter));
	EXPECT_EQ(1, atomic_load(&handled));

	/* It has the time that was left, and nothing else */
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
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_STREQ("holder", look(self->fd).holder.job);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	EXPECT_EQ(self->before.timed_out, look(self->fd).timed_out);
	EXPECT_EQ(-EPERM, release(self->waiter->fd));
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(waiter, g9_interrupted_with_restart)
{
	struct tlock_acquire *arg = self->waiter->arg;
	__s64 left;

	handle(SA_RESTART);
	send_signal(self->waiter, SIGUSR1);
	ASSERT_TRUE(await_value(&handled, 1));
	if (variant->fn == reacquire) {
		/* What it held may be in any state by now: it must know */
		ASSERT_EQ(-EINTR, result(self->waiter));
		EXPECT_TRUE(poisoned(&arg->token, sizeof(arg->token)));
		EXPECT_EQ(0, release(self->fd));
		return;
	}

	/* It waits again, with what is left of the time */
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_TRUE(await_asleep(self->waiter->tid));
	left = READ_ONCE(arg->timeout_ns);
	if (variant->timeout_ns > 0) {
		EXPECT_GT(LONG, left);
	} else {
		EXPECT_EQ(variant->timeout_ns, left);
	}
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(self->waiter));
	EXPECT_EQ(look(self->fd).holder.token, arg->token);
	if (variant->timeout_ns > 0) {
		EXPECT_GT(left, arg->timeout_ns);
		EXPECT_LE(LONG - (self->waiter->ended - self->waiter->begun),
			  arg->timeout_ns);
	}
	EXPECT_EQ(0, release(self->waiter->fd));
}

/* Stopped and continued, as by a shell's job control or a debugger */
TEST_F(tlock, g9_stopped_and_continued)
{
	struct agent *a = agent();
	struct tlock_acquire arg = ask(LONG, "stopped");
	int wstatus;

	/* An acquire goes on */
	take(self->fd, "holder");
	agent_begin(a, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, kill(a->pid, SIGSTOP));
	ASSERT_EQ(a->pid, waitpid(a->pid, &wstatus, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(wstatus));
	/* Stopped, it can't hold up those behind it */
	EXPECT_EQ(0, look(self->fd).waiters);
	ASSERT_EQ(0, kill(a->pid, SIGCONT));
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, agent_end(a, &arg));
	EXPECT_GT(LONG, arg.timeout_ns);

	/* A reacquire does not */
	struct call *waiter = call(self->fd, acquire, FOREVER, "waiter");

	ASSERT_TRUE(await_waiters(self->fd, 1));
	arg = ask(LONG, "");
	agent_begin(a, reacquire, &arg);
	ASSERT_EQ(0, result(waiter));
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, kill(a->pid, SIGSTOP));
	ASSERT_EQ(a->pid, waitpid(a->pid, &wstatus, WUNTRACED));
	ASSERT_EQ(0, kill(a->pid, SIGCONT));
	ASSERT_EQ(-EINTR, agent_end(a, &arg));
	EXPECT_GT(LONG, arg.timeout_ns);
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(0, release(self->fd));
}

/* A restart is a new place in the queue, at its end. */
TEST_F(tlock, g9_restart_queues_at_the_end)
{
	struct call *first, *second;
	__u64 token = take(self->fd, "holder");

	handle(SA_RESTART);
	first = call(contender(), acquire, FOREVER, "first");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	second = call(contender(), acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->fd, 2));

	send_signal(first, SIGUSR1);
	ASSERT_TRUE(await_value(&handled, 1));
	ASSERT_TRUE(await_waiters(self->fd, 2));
	EXPECT_EQ(self->before.contended + 3, look(self->fd).contended);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(token + 1, second->arg->token);
	ASSERT_EQ(0, release(second->fd));
	ASSERT_EQ(0, result(first));
	EXPECT_EQ(token + 2, first->arg->token);
	ASSERT_EQ(0, release(first->fd));
	close(first->fd);
	close(second->fd);
}

/*
 * However many signals come, the time is over when it is over: neither early
 * nor, as if each restart began the timeout anew, never.
 */
TEST_F(tlock, g9_signals_do_not_stretch_the_timeout)
{
	const __s64 timeout = 400 * MSEC;
	__s64 end = now() + PATIENCE;
	struct call *waiter;
	int signals = 0;

	handle(SA_RESTART);
	take(self->fd, "holder");
	waiter = call(contender(), acquire, timeout, "waiter");
	/* One after the other is handled, till it gives up */
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
	EXPECT_EQ(0, release(self->fd));
	close(waiter->fd);
}

/* A signal that has no handler and does nothing is not noticed. */
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

/* An acquire that a signal ends after a millisecond, as precisely as a timer */
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
 * A signal that meets the grant: either the waiter has the lock and says so,
 * or it fails and the lock is free. The release comes later after each grant,
 * and earlier after each failure: close to where the two meet.
 */
TEST_F(tlock, g9_signal_meets_hand_over)
{
	__s64 delay = MSEC, end = now() + 4 * SEC;
	__u64 token, contended = self->before.contended;
	int fd = contender(), rounds = 0, granted = 0;
	struct call *waiter;

	handle(0);
	while (rounds++ < 1000 && now() < end) {
		take(self->fd, "holder");
		waiter = call(fd, acquire_interrupted, FOREVER, "waiter");
		/* It is there, or has been */
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
			ASSERT_EQ(-EPERM, release(fd));
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

	handle(0);
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
