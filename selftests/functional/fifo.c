// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 2: contenders get the lock in the order in which they began to
 * wait, no newcomer overtakes them, and the lock is never free in between.
 */
#include <signal.h>
#include <stdio.h>

#include "tlock_test.h"

#define CONTENDERS	100

static atomic_int finished;

/* Acquires the lock, notes its place in the order in timeout_ns, releases. */
static int take_a_turn(int fd, struct tlock_acquire *arg)
{
	int ret = acquire(fd, arg);

	if (ret)
		return ret;
	arg->timeout_ns = atomic_fetch_add(&finished, 1);
	return release(fd);
}

TEST_F(tlock, g2_fifo_100_contenders)
{
	struct call *calls[CONTENDERS];
	__u64 token = take(self->fd, "first");

	for (int i = 0; i < CONTENDERS; i++) {
		calls[i] = call(contender(), take_a_turn, FOREVER, "turn");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	ASSERT_EQ(0, release(self->fd));
	for (int i = 0; i < CONTENDERS; i++) {
		ASSERT_EQ(0, result(calls[i]));
		ASSERT_EQ(i, calls[i]->arg->timeout_ns);
		ASSERT_EQ(token + 1 + i, calls[i]->arg->token);
		close(calls[i]->fd);
	}
	EXPECT_EQ(0, look(self->fd).waiters);
}

/* A waiter that gives up leaves no gap, at either end or in the middle. */
TEST_F(tlock, g2_fifo_when_some_give_up)
{
	static const __s64 timeouts[] = {
		50 * MSEC, FOREVER, 100 * MSEC, FOREVER, 20 * MSEC, FOREVER,
		150 * MSEC
	};
	struct call *calls[ARRAY_SIZE(timeouts)];
	__u64 token = take(self->fd, "first");

	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		calls[i] = call(contender(), acquire, timeouts[i], "waiter");
		/* Some may have given up already: count all that came */
		ASSERT_TRUE(await_contended(self->fd,
					    self->before.contended + i + 1));
	}
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		if (timeouts[i] > 0) {
			ASSERT_EQ(-ETIMEDOUT, result(calls[i]));
		}
	}
	ASSERT_TRUE(await_waiters(self->fd, 3));

	ASSERT_EQ(0, release(self->fd));
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		if (timeouts[i] < 0) {
			ASSERT_EQ(0, result(calls[i]));
			ASSERT_EQ(++token, calls[i]->arg->token);
			ASSERT_EQ(0, release(calls[i]->fd));
		}
		close(calls[i]->fd);
	}
}

TEST_F(tlock, g2_exactly_one_waiter_wakes)
{
	struct call *calls[10];
	unsigned long slept[10];
	int n = ARRAY_SIZE(calls);

	take(self->fd, "first");
	for (int i = 0; i < n; i++) {
		calls[i] = call(contender(), acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	for (int i = 0; i < n; i++) {
		ASSERT_TRUE(await_asleep(calls[i]->tid));
		slept[i] = sleeps(calls[i]->tid);
		ASSERT_LT(0, slept[i]);
	}

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(calls[0]));
	/*
	 * A waiter that was woken for nothing is not asleep, or has gone to
	 * sleep once more.
	 */
	for (int i = 1; i < n; i++) {
		EXPECT_TRUE(await_asleep(calls[i]->tid));
		EXPECT_EQ(slept[i], sleeps(calls[i]->tid));
	}
	EXPECT_EQ(n - 1, look(self->fd).waiters);

	for (int i = 0; i < n; i++) {
		ASSERT_EQ(0, result(calls[i]));
		ASSERT_EQ(0, release(calls[i]->fd));
		close(calls[i]->fd);
	}
}

/* A newcomer that tries again and again */
static struct {
	atomic_int stop;
	atomic_int tries;
	atomic_int open;	/* nobody else holds or waits */
	atomic_int got_in;
	atomic_int barged;
} spinner;

static int spin(int fd, struct tlock_acquire *arg)
{
	static const __s64 timeouts[] = { 0, 0, 0, 1, 1000 };
	int ret;

	for (int i = 0; !atomic_load(&spinner.stop); i++) {
		*arg = ask(timeouts[i % ARRAY_SIZE(timeouts)], "newcomer");
		ret = acquire(fd, arg);
		if (!ret) {
			if (!atomic_load(&spinner.open))
				atomic_fetch_add(&spinner.barged, 1);
			atomic_fetch_add(&spinner.got_in, 1);
			ret = release(fd);
			if (ret)
				return ret;
		} else if (ret != -ETIMEDOUT) {
			return ret;
		}
		atomic_fetch_add(&spinner.tries, 1);
	}
	return 0;
}

TEST_F(tlock, g2_no_barging_by_a_spinning_newcomer)
{
	struct call *newcomer, *waiter;
	struct tlock_acquire arg;
	int seen, fd = contender();

	take(self->fd, "holder");
	newcomer = call(contender(), spin, 0, "");
	for (int round = 0; round < 30; round++) {
		waiter = call(fd, acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_asleep(waiter->tid));
		/* The newcomer may have queued before the waiter */
		seen = atomic_load(&spinner.tries);
		ASSERT_TRUE(await_value(&spinner.tries, seen + 2));

		ASSERT_EQ(0, release(self->fd));
		ASSERT_EQ(0, result(waiter));
		/* The newcomer keeps trying while the waiter holds the lock */
		seen = atomic_load(&spinner.tries);
		ASSERT_TRUE(await_value(&spinner.tries, seen + 3));
		ASSERT_EQ(0, atomic_load(&spinner.barged));

		/* Only now may the newcomer get the lock */
		seen = atomic_load(&spinner.got_in);
		atomic_store(&spinner.open, 1);
		ASSERT_EQ(0, release(fd));
		ASSERT_TRUE(await_value(&spinner.got_in, seen + 1));
		arg = ask(LONG, "holder");
		ASSERT_EQ(0, acquire(self->fd, &arg));
		atomic_store(&spinner.open, 0);
	}
	atomic_store(&spinner.stop, 1);
	EXPECT_EQ(0, result(newcomer));
	EXPECT_EQ(0, atomic_load(&spinner.barged));
	EXPECT_EQ(0, release(self->fd));
	close(newcomer->fd);
	close(fd);
}

#define HAND_OVERS	100

/*
 * One of two players that hand the lock to each other: each lets go as soon as
 * the other waits. Counts the hand-overs in which the token shows that a third
 * one came between.
 */
static atomic_int come_between;

static int play(int fd, struct tlock_acquire *arg)
{
	bool by_reacquire = arg->flags;
	__u64 token = 0;
	int ret;

	arg->flags = 0;
	arg->timeout_ns = FOREVER;
	ret = acquire(fd, arg);
	for (int i = 0; !ret && i < HAND_OVERS; i++) {
		if (token && arg->token != token + 2)
			atomic_fetch_add(&come_between, 1);
		token = arg->token;
		/* The observer has looked again, and the other player waits */
		if (!await_value(&spinner.tries,
				 atomic_load(&spinner.tries) + 1) ||
		    !await_waiters(fd, 1))
			return -ETIME;
		if (by_reacquire) {
			ret = reacquire(fd, arg);
		} else {
			ret = release(fd);
			if (!ret)
				ret = acquire(fd, arg);
		}
	}
	return ret;
}

/* Tries to acquire the lock without a pause, and counts how often it got it. */
static int hammer(int fd, struct tlock_acquire *arg)
{
	int ret;

	while (!atomic_load(&spinner.stop)) {
		*arg = ask(0, "hammer");
		ret = acquire(fd, arg);
		if (!ret) {
			atomic_fetch_add(&spinner.got_in, 1);
			release(fd);
		} else if (ret != -ETIMEDOUT) {
			return ret;
		}
		atomic_fetch_add(&spinner.tries, 1);
	}
	return 0;
}

/* Reads the status without a pause, and counts how often the lock was free. */
static int watch(int fd, struct tlock_acquire *arg)
{
	while (!atomic_load(&spinner.stop)) {
		if (!look(fd).holder.token)
			atomic_fetch_add(&spinner.open, 1);
		atomic_fetch_add(&spinner.tries, 1);
	}
	return 0;
}

/*
 * Two players hand the lock to each other. In play(), each lets go only once
 * the other waits; the test itself lets the last one in.
 */
FIXTURE(hand_over)
{
	int fd;
};

FIXTURE_VARIANT(hand_over)
{
	bool by_reacquire;
	int (*fn)(int fd, struct tlock_acquire *arg);
};

FIXTURE_VARIANT_ADD(hand_over, release_seen_by_trylock)
{
	.by_reacquire = false,
	.fn = hammer,
};

FIXTURE_VARIANT_ADD(hand_over, release_seen_by_status)
{
	.by_reacquire = false,
	.fn = watch,
};

FIXTURE_VARIANT_ADD(hand_over, reacquire_seen_by_trylock)
{
	.by_reacquire = true,
	.fn = hammer,
};

FIXTURE_VARIANT_ADD(hand_over, reacquire_seen_by_status)
{
	.by_reacquire = true,
	.fn = watch,
};

FIXTURE_SETUP(hand_over)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
}

FIXTURE_TEARDOWN(hand_over)
{
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(hand_over, g2_lock_is_never_free)
{
	struct call *players[2], *observer;
	struct tlock_acquire args[2];
	__u64 acquired;

	take(self->fd, "first");
	acquired = look(self->fd).acquired;
	for (int i = 0; i < 2; i++) {
		args[i] = ask(FOREVER, "player");
		args[i].flags = variant->by_reacquire;
		players[i] = call_with(contender(), play, &args[i]);
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	observer = call(contender(), variant->fn, 0, "");
	ASSERT_TRUE(await_value(&spinner.tries, 1));

	/* The test hands over to the first player, and that to the second */
	ASSERT_EQ(0, release(self->fd));
	for (int i = 1; i <= 2 * HAND_OVERS + 1; i++) {
		ASSERT_TRUE(await_acquired(self->fd, acquired + i));
	}
	ASSERT_EQ(0, result(players[0]));
	atomic_store(&spinner.stop, 1);
	ASSERT_EQ(0, result(observer));

	EXPECT_EQ(0, atomic_load(&come_between));
	EXPECT_EQ(0, atomic_load(&spinner.open));
	EXPECT_EQ(0, atomic_load(&spinner.got_in));
	EXPECT_LE(2 * HAND_OVERS, atomic_load(&spinner.tries));

	EXPECT_EQ(0, release(players[0]->fd));
	EXPECT_EQ(0, result(players[1]));
	EXPECT_EQ(0, release(players[1]->fd));
	close(players[0]->fd);
	close(players[1]->fd);
	close(observer->fd);
}

TEST_HARNESS_MAIN
