// SPDX-License-Identifier: GPL-2.0-only
/* Guarantee 8: every grant has a token, a number per lock that only grows. */
#include <stdio.h>

#include "tlock_test.h"

/* When the system booted, by the wall clock, in microseconds */
static __u64 boot_time(void)
{
	FILE *file = fopen("/proc/stat", "re");
	unsigned long long seconds = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "btime %llu", &seconds) == 1)
			break;
	if (file)
		fclose(file);
	return seconds * 1000000;
}

/*
 * Tokens begin at the microseconds since the epoch when the lock is made. For
 * the test that they exceed those of an earlier load see loader.c.
 */
TEST_F(tlock, g8_tokens_begin_at_the_wall_clock)
{
	__u64 token = take(self->fd, "holder");
	__u64 first = token - look(self->fd).acquired;

	ASSERT_LT(0, boot_time());
	EXPECT_LE(boot_time(), first);
	EXPECT_GE(wall_clock_us(), first);
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(tlock, g8_each_grant_has_the_next_token)
{
	__u64 acquired = self->before.acquired, token = 0;
	int fds[2] = { self->fd, contender() };
	struct tlock_acquire arg;

	for (int i = 0; i < 10; i++) {
		arg = ask(0, "holder");
		ASSERT_EQ(0, acquire(fds[i % 2], &arg));
		if (i) {
			EXPECT_EQ(token + 1, arg.token);
		}
		token = arg.token;
		EXPECT_EQ(token, look(self->fd).holder.token);
		EXPECT_EQ(++acquired, look(self->fd).acquired);
		/* These are not grants */
		EXPECT_EQ(-EDEADLK, acquire(fds[i % 2], &arg));
		EXPECT_EQ(-ETIMEDOUT, acquire(fds[(i + 1) % 2], &arg));
		EXPECT_EQ(0, reacquire(fds[i % 2], &arg));
		EXPECT_EQ(token, arg.token);
		ASSERT_EQ(0, release(fds[i % 2]));
		/* A free lock shows no token, but keeps the count of grants */
		EXPECT_EQ(0, look(self->fd).holder.token);
		EXPECT_EQ(acquired, look(self->fd).acquired);
	}
	close(fds[1]);
}

/* A hand-over, a reacquire that waited, and a death */
TEST_F(tlock, g8_token_of_each_kind_of_grant)
{
	__u64 token = take(self->fd, "first");
	struct tlock_acquire arg = ask(FOREVER, "mortal");
	struct agent *a = agent();
	struct call *waiter, *yielder;
	int fd = contender();

	waiter = call(fd, acquire, FOREVER, "by hand-over");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	yielder = call(self->fd, reacquire, FOREVER, "by reacquire");
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(token + 1, waiter->arg->token);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, result(yielder));
	EXPECT_EQ(token + 2, yielder->arg->token);

	agent_begin(a, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	waiter = call(fd, acquire, FOREVER, "by death");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, agent_end(a, &arg));
	EXPECT_EQ(token + 3, arg.token);
	agent_kill(a);
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(token + 4, waiter->arg->token);
	EXPECT_EQ(self->before.acquired + 5, look(self->fd).acquired);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/* Tokens belong to the lock, not the file: a new file does not restart them. */
TEST_F(tlock, g8_token_outlives_its_file)
{
	__u64 token = take(self->fd, "first"), next;
	int fd;

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, close(self->fd));
	fd = contender();
	next = take(fd, "second");
	EXPECT_EQ(token + 1, next);
	EXPECT_EQ(0, release(fd));
	self->fd = fd;
}

/* The token of the file's last ended grant, and whether that is all */
static _Atomic __u64 over;
static atomic_int all_over;

static int take_often(int fd, struct tlock_acquire *arg)
{
	int ret = 0;

	for (int i = 0; !ret && i < 500; i++) {
		arg->timeout_ns = LONG;
		ret = acquire(fd, arg);
		if (!ret)
			ret = release(fd);
		atomic_store(&over, arg->token);
	}
	atomic_store(&all_over, 1);
	return ret;
}

/*
 * While another thread's acquire is granted on the same file, a reacquire
 * returns that grant or fails. It never returns a grant that has ended.
 */
TEST_F(tlock, g8_reacquire_meets_grant_of_the_same_file)
{
	struct call *taker = call(self->fd, take_often, 0, "taker");
	struct tlock_acquire arg;
	__u64 then;
	int ret;

	do {
		then = atomic_load(&over);
		arg = ask(0, "");
		ret = reacquire(self->fd, &arg);
		if (ret) {
			ASSERT_EQ(-EPERM, ret);
		} else {
			ASSERT_LT(then, arg.token);
		}
	} while (!atomic_load(&all_over));
	EXPECT_EQ(0, result(taker));
}

/*
 * Another thread ends a grant before the granted thread has run. The granted
 * thread learns that, and is not given a later grant of the same file. The
 * result flags that it did not return go to the next grant.
 */
TEST_F(tlock, g8_late_waiter_is_not_given_another_grant)
{
	struct tlock_acquire arg = ask(0, "again");
	struct agent *mortal = agent();
	struct call *waiter, *hogger;
	int fd = contender();
	__s64 granted;
	__u64 token;

	if (!can_hold_back())
		SKIP(return, "this needs two CPUs");
	token = agent_take(mortal, "mortal");
	waiter = call(fd, acquire, LONG, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	run_on(mortal->pid, 0);
	hogger = hold_back(waiter);

	agent_kill(mortal);
	ASSERT_EQ(token + 1, look(fd).holder.token);
	granted = now();
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(token + 2, arg.token);
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);

	usleep(20000);
	let_run(hogger);
	ASSERT_EQ(-ECANCELED, result(waiter));
	EXPECT_TRUE(poisoned(&waiter->arg->token, sizeof(waiter->arg->token)));
	EXPECT_EQ(0, waiter->arg->result);
	/* Only the time until the grant counts */
	EXPECT_LE(LONG - (granted - waiter->begun), waiter->arg->timeout_ns);
	EXPECT_EQ(token + 2, look(fd).holder.token);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

TEST_HARNESS_MAIN
