// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 6: when a holder's file is closed without a release, the lock
 * passes on at once, and the next holder learns that it was abandoned.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tlock_test.h"

/* In an agent: ways to end */

static int go_by_exit(int fd, struct tlock_acquire *arg)
{
	_exit(0);
}

static int go_by_crash(int fd, struct tlock_acquire *arg)
{
	/* Without a core dump */
	prctl(PR_SET_DUMPABLE, 0);
	return raise(SIGSEGV);
}

static int go_by_kill(int fd, struct tlock_acquire *arg)
{
	return raise(SIGKILL);
}

/* exec closes its descriptors */
static int go_by_exec(int fd, struct tlock_acquire *arg)
{
	execl("/bin/true", "true", NULL);
	return -errno;
}

static int go_by_close(int fd, struct tlock_acquire *arg)
{
	return close(fd);
}

FIXTURE(death)
{
	int fd;
	struct agent *a;
	struct tlock_status before;
};

FIXTURE_VARIANT(death)
{
	agent_fn *go;
};

FIXTURE_VARIANT_ADD(death, by_kill_9)
{
	.go = go_by_kill,
};

FIXTURE_VARIANT_ADD(death, by_exit)
{
	.go = go_by_exit,
};

FIXTURE_VARIANT_ADD(death, by_crash)
{
	.go = go_by_crash,
};

FIXTURE_VARIANT_ADD(death, by_exec)
{
	.go = go_by_exec,
};

FIXTURE_VARIANT_ADD(death, by_close)
{
	.go = go_by_close,
};

FIXTURE_SETUP(death)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
	self->a = agent();
	agent_take(self->a, "mortal");
}

FIXTURE_TEARDOWN(death)
{
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(death, g6_of_the_holder_wakes_the_first_waiter)
{
	__u64 token = look(self->fd).holder.token;
	struct call *first, *second;

	first = call(contender(), acquire, FOREVER, "first");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	second = call(contender(), acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->fd, 2));

	agent_begin(self->a, variant->go, NULL);
	ASSERT_EQ(0, result(first));
	EXPECT_EQ(TLOCK_ABANDONED, first->arg->result);
	EXPECT_EQ(token + 1, first->arg->token);
	EXPECT_EQ(self->before.abandoned + 1, look(self->fd).abandoned);

	/* Only that grant reports it, and none after it */
	ASSERT_EQ(0, release(first->fd));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(0, second->arg->result);
	ASSERT_EQ(0, release(second->fd));
	EXPECT_EQ(self->before.abandoned + 1, look(self->fd).abandoned);
	close(first->fd);
	close(second->fd);
}

TEST_F(death, g6_of_the_holder_is_told_to_who_comes_next)
{
	struct tlock_acquire arg;

	agent_begin(self->a, variant->go, NULL);
	ASSERT_TRUE(await_token(self->fd, 0));
	EXPECT_EQ(self->before.abandoned + 1, look(self->fd).abandoned);
	for (int i = 0; i < 2; i++) {
		arg = ask(0, "next");
		ASSERT_EQ(0, acquire(self->fd, &arg));
		EXPECT_EQ(i ? 0 : TLOCK_ABANDONED, arg.result);
		ASSERT_EQ(0, release(self->fd));
	}
	EXPECT_EQ(self->before.abandoned + 1, look(self->fd).abandoned);
}

/* Two deaths in a row, with no other holder between: both are reported. */
TEST_F(tlock, g6_each_death_is_told)
{
	struct agent *first = agent(), *second = agent();
	struct tlock_acquire arg = ask(0, "second");

	agent_take(first, "first");
	agent_kill(first);
	ASSERT_EQ(0, agent_do(second, acquire, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	agent_kill(second);
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(self->fd));
	EXPECT_EQ(self->before.abandoned + 2, look(self->fd).abandoned);
}

/* A reacquire that kept the lock does not report the death once more. */
TEST_F(tlock, g6_told_once_to_the_same_holder)
{
	struct tlock_acquire arg = ask(0, "next");
	struct agent *a = agent();

	agent_take(a, "mortal");
	agent_kill(a);
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	ASSERT_EQ(0, reacquire(self->fd, &arg));
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(0, release(self->fd));
}

/* An acquire that fails does not learn of the death; the next grant does. */
TEST_F(tlock, g6_not_told_to_who_fails)
{
	struct agent *a = agent();
	struct call *timed, *waiter;

	agent_take(a, "mortal");
	timed = call(contender(), acquire, 20 * MSEC, "timed");
	ASSERT_EQ(-ETIMEDOUT, result(timed));
	waiter = call(contender(), acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	agent_kill(a);
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(TLOCK_ABANDONED, waiter->arg->result);
	EXPECT_EQ(0, timed->arg->result);
	EXPECT_EQ(0, release(waiter->fd));
	close(timed->fd);
	close(waiter->fd);
}

TEST_F(tlock, g6_kill_9_of_a_waiter)
{
	struct agent *killed = agent();
	struct tlock_acquire arg = ask(FOREVER, "killed");
	struct call *first, *last;
	__u64 token = take(self->fd, "holder");

	first = call(contender(), acquire, FOREVER, "first");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	agent_begin(killed, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->fd, 2));
	last = call(contender(), acquire, FOREVER, "last");
	ASSERT_TRUE(await_waiters(self->fd, 3));

	EXPECT_EQ(SIGKILL, WTERMSIG(agent_kill(killed)));
	EXPECT_EQ(2, look(self->fd).waiters);
	EXPECT_EQ(token, look(self->fd).holder.token);

	/* The others are served as if it had never been there */
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(first));
	EXPECT_EQ(token + 1, first->arg->token);
	EXPECT_EQ(0, first->arg->result);
	ASSERT_EQ(0, release(first->fd));
	ASSERT_EQ(0, result(last));
	EXPECT_EQ(token + 2, last->arg->token);
	EXPECT_EQ(0, last->arg->result);
	ASSERT_EQ(0, release(last->fd));
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	close(first->fd);
	close(last->fd);
}

/* The yielder no longer held the lock, so its death does not abandon it. */
TEST_F(tlock, g6_kill_9_of_a_yielder_in_mid_reacquire)
{
	struct agent *yielder = agent();
	struct tlock_acquire arg = ask(FOREVER, "");
	struct call *first, *last;

	agent_take(yielder, "yielder");
	first = call(contender(), acquire, FOREVER, "first");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	agent_begin(yielder, reacquire, &arg);
	ASSERT_EQ(0, result(first));
	EXPECT_EQ(1, look(self->fd).waiters);
	last = call(contender(), acquire, FOREVER, "last");
	ASSERT_TRUE(await_waiters(self->fd, 2));

	EXPECT_EQ(SIGKILL, WTERMSIG(agent_kill(yielder)));
	EXPECT_EQ(1, look(self->fd).waiters);
	EXPECT_STREQ("first", look(self->fd).holder.job);

	ASSERT_EQ(0, release(first->fd));
	ASSERT_EQ(0, result(last));
	EXPECT_EQ(0, last->arg->result);
	ASSERT_EQ(0, release(last->fd));
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	close(first->fd);
	close(last->fd);
}

/* A waiter gets the lock from a yielder and dies: the yielder gets it back. */
TEST_F(tlock, g6_kill_9_of_who_was_let_in)
{
	struct tlock_acquire arg = ask(FOREVER, "mortal");
	struct agent *mortal = agent();
	struct call *yielder;

	take(self->fd, "yielder");
	agent_begin(mortal, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	yielder = call(self->fd, reacquire, LONG, "");
	ASSERT_EQ(0, agent_end(mortal, &arg));
	agent_kill(mortal);
	ASSERT_EQ(0, result(yielder));
	EXPECT_EQ(TLOCK_ABANDONED, yielder->arg->result);
	EXPECT_EQ(0, release(self->fd));
}

/*
 * A waiter is killed while it is granted the lock. Either it held the lock and
 * the next holder sees it abandoned, or it never held it. It never keeps it.
 */
TEST_F(tlock, g6_kill_9_meets_the_grant)
{
	struct tlock_acquire arg;
	int fd = contender(), had = 0;

	for (int round = 0; round < 30; round++) {
		__u64 abandoned = look(self->fd).abandoned;
		struct agent *mortal = agent();
		struct call *next;

		take(self->fd, "holder");
		arg = ask(FOREVER, "mortal");
		agent_begin(mortal, acquire, &arg);
		ASSERT_TRUE(await_waiters(self->fd, 1));
		next = call(fd, acquire, FOREVER, "next");
		ASSERT_TRUE(await_waiters(self->fd, 2));

		/* Let either come first, by a little */
		if (round & 1) {
			ASSERT_EQ(0, kill(mortal->pid, SIGKILL));
		}
		for (__s64 until = now() + round / 2 * 10 * USEC;
		     now() < until;)
			;
		ASSERT_EQ(0, release(self->fd));
		if (!(round & 1)) {
			ASSERT_EQ(0, kill(mortal->pid, SIGKILL));
		}
		ASSERT_EQ(0, result(next));
		agent_reap(mortal);
		abandoned = look(self->fd).abandoned - abandoned;
		ASSERT_GE(1, abandoned);
		ASSERT_EQ(abandoned ? TLOCK_ABANDONED : 0, next->arg->result);
		had += abandoned;
		ASSERT_EQ(0, release(fd));
		ASSERT_EQ(0, look(self->fd).holder.token);
	}
	TH_LOG("%d of 30 had the lock when they died", had);
	close(fd);
}

/* Only the last close counts: a call that goes on keeps the file open. */
TEST_F(tlock, g6_closed_while_it_waits)
{
	struct tlock_acquire arg = ask(LONG, "next");
	struct call *waiter;

	take(self->fd, "holder");
	waiter = call(contender(), acquire, FOREVER, "closed");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, close(waiter->fd));
	EXPECT_EQ(1, look(self->fd).waiters);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	/* The waiter got the lock and had no descriptor to release it */
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(waiter->arg->token + 1, arg.token);
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(tlock, g6_release_is_no_death)
{
	struct tlock_acquire arg = ask(0, "next");
	struct agent *a = agent();

	agent_take(a, "orderly");
	ASSERT_EQ(0, agent_release(a));
	agent_kill(a);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(0, release(self->fd));
}

TEST_HARNESS_MAIN
