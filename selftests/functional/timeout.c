// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 3: a timeout is relative, never early, and never begins anew.
 *
 * Guarantee 5: a caller that fails learns who held the lock at that instant.
 */
#include <sys/prctl.h>

#include "tlock_test.h"

/* How long a call took, as its caller sees it */
static __s64 took(const struct call *c)
{
	return c->ended - c->begun;
}

FIXTURE(early)
{
	int fd;
};

FIXTURE_VARIANT(early)
{
	__s64 timeout_ns;
};

FIXTURE_VARIANT_ADD(early, 1ns)
{
	.timeout_ns = 1,
};

FIXTURE_VARIANT_ADD(early, 20us)
{
	.timeout_ns = 20 * USEC,
};

FIXTURE_VARIANT_ADD(early, 7ms)
{
	.timeout_ns = 7 * MSEC,
};

FIXTURE_VARIANT_ADD(early, 300ms)
{
	.timeout_ns = 300 * MSEC,
};

FIXTURE_SETUP(early)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	take(self->fd, "holder");
}

FIXTURE_TEARDOWN(early)
{
	EXPECT_EQ(0, release(self->fd));
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(early, g3_not_early)
{
	struct tlock_status before = look(self->fd), after;
	struct call *c = call(contender(), acquire, variant->timeout_ns, "c");

	ASSERT_EQ(-ETIMEDOUT, result(c));
	EXPECT_LE(variant->timeout_ns, took(c));
	EXPECT_GT(variant->timeout_ns + PATIENCE, took(c));
	EXPECT_EQ(0, c->arg->timeout_ns);
	EXPECT_EQ(0, c->arg->result);
	EXPECT_TRUE(poisoned(&c->arg->token, sizeof(c->arg->token)));

	/* The lock's own statistics agree */
	after = look(self->fd);
	EXPECT_EQ(before.timed_out + 1, after.timed_out);
	EXPECT_LE(before.wait_ns_total + variant->timeout_ns,
		  after.wait_ns_total);
	EXPECT_EQ(-EPERM, release(c->fd));
	close(c->fd);
}

TEST_F(tlock, g3_zero_tries)
{
	struct tlock_acquire arg = ask(0, "try");
	struct tlock_status before, after;
	int fd = contender();

	/* It takes a free lock */
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(0, arg.timeout_ns);
	ASSERT_EQ(0, release(fd));

	/* It does not wait for a held one */
	take(self->fd, "holder");
	before = look(self->fd);
	arg = ask(0, "try");
	EXPECT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	EXPECT_EQ(0, arg.timeout_ns);
	after = look(self->fd);
	EXPECT_EQ(before.timed_out + 1, after.timed_out);
	EXPECT_EQ(before.contended + 1, after.contended);
	EXPECT_EQ(before.wait_ns_total, after.wait_ns_total);
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_F(tlock, g3_zero_never_queues)
{
	struct call *waiter;
	struct tlock_acquire arg;
	int fd = contender();

	/* Not even while somebody else waits for the lock */
	take(self->fd, "holder");
	waiter = call(contender(), acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	for (int i = 0; i < 100; i++) {
		arg = ask(0, "try");
		ASSERT_EQ(-ETIMEDOUT, acquire(fd, &arg));
		ASSERT_EQ(1, look(fd).waiters);
	}
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(0, release(waiter->fd));
	close(waiter->fd);
	close(fd);
}

TEST_F(tlock, g3_negative_waits_for_ever)
{
	static const __s64 timeouts[] = { -1, -LONG, INT64_MIN };
	struct call *waiters[ARRAY_SIZE(timeouts)], *timed;

	take(self->fd, "holder");
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		waiters[i] = call(contender(), acquire, timeouts[i], "w");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	timed = call(contender(), acquire, 100 * MSEC, "timed");
	ASSERT_EQ(-ETIMEDOUT, result(timed));
	EXPECT_EQ(ARRAY_SIZE(timeouts), look(self->fd).waiters);

	ASSERT_EQ(0, release(self->fd));
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		ASSERT_EQ(0, result(waiters[i]));
		EXPECT_EQ(timeouts[i], waiters[i]->arg->timeout_ns);
		ASSERT_EQ(0, release(waiters[i]->fd));
		close(waiters[i]->fd);
	}
	close(timed->fd);
}

/* The longest timeout does not overflow into the past. */
TEST_F(tlock, g3_longest_timeout)
{
	struct call *waiter;

	take(self->fd, "holder");
	waiter = call(contender(), acquire, INT64_MAX, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_TRUE(await_asleep(waiter->tid));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_LE(INT64_MAX - took(waiter), waiter->arg->timeout_ns);
	EXPECT_GT(INT64_MAX, waiter->arg->timeout_ns);
	EXPECT_EQ(0, release(waiter->fd));
	close(waiter->fd);
}

TEST_F(tlock, g3_time_left_is_written_back)
{
	struct tlock_acquire arg;
	struct call *waiter;
	__s64 queued, until, used;

	take(self->fd, "holder");
	waiter = call(contender(), acquire, LONG, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	queued = now();
	usleep(30000);
	until = now();
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));

	used = LONG - waiter->arg->timeout_ns;
	EXPECT_LE(until - queued, used);
	EXPECT_GE(took(waiter), used);
	ASSERT_EQ(0, release(waiter->fd));
	close(waiter->fd);

	/* No time was used up, as the lock was free */
	arg = ask(LONG, "alone");
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(LONG, arg.timeout_ns);
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(look(self->fd).holder.token, arg.token);
	EXPECT_TRUE(poisoned(&arg.holder, sizeof(arg.holder)));
	/* Fields that are only read stay as they were, to the last byte */
	EXPECT_STREQ("alone", arg.job);
	EXPECT_TRUE(poisoned(arg.job + sizeof("alone"),
			     sizeof(arg.job) - sizeof("alone")));
	EXPECT_EQ(0, release(self->fd));
}

/*
 * On a busy machine, any one wait may take longer than it should; the shortest
 * of several shows how long the lock makes it.
 */
TEST_F(tlock, g3_not_twice_as_long)
{
	__s64 shortest = INT64_MAX;
	int fd = contender();

	take(self->fd, "holder");
	for (int i = 0; i < 10; i++) {
		struct call *c = call(fd, acquire, 50 * MSEC, "waiter");

		ASSERT_EQ(-ETIMEDOUT, result(c));
		EXPECT_LE(50 * MSEC, took(c));
		if (took(c) < shortest)
			shortest = took(c);
	}
	EXPECT_GT(2 * 50 * MSEC, shortest);
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

/*
 * However often the lock changes hands meanwhile, the timeout does not begin
 * anew: one of 300 ms ends before one of 2 s that began earlier.
 */
TEST_F(tlock, g3_no_second_timeout)
{
	struct call *others[4], *longer, *timed;

	take(self->fd, "holder");
	for (int i = 0; i < 4; i++) {
		others[i] = call(contender(), acquire, FOREVER, "other");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	longer = call(contender(), acquire, 2 * SEC, "longer");
	ASSERT_TRUE(await_waiters(self->fd, 5));
	timed = call(contender(), acquire, 300 * MSEC, "timed");
	ASSERT_TRUE(await_contended(self->fd, self->before.contended + 6));

	ASSERT_EQ(0, release(self->fd));
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, result(others[i]));
		usleep(50000);
		if (i < 3) {
			ASSERT_EQ(0, release(others[i]->fd));
		}
	}
	ASSERT_EQ(-ETIMEDOUT, result(timed));
	EXPECT_LE(300 * MSEC, took(timed));
	ASSERT_EQ(-ETIMEDOUT, result(longer));
	EXPECT_LE(2 * SEC, took(longer));
	EXPECT_LT(timed->ended, longer->ended);

	ASSERT_EQ(0, release(others[3]->fd));
	for (int i = 0; i < 4; i++)
		close(others[i]->fd);
	close(timed->fd);
	close(longer->fd);
}

/*
 * A timeout meets the hand-over: either the call returns with the lock, or it
 * fails and nobody holds the lock. Each grant makes the next release later, and
 * each failure earlier, to stay close to where the two meet.
 */
TEST_F(tlock, g3_timeout_meets_hand_over)
{
	const __s64 timeout = MSEC;
	__s64 delay = timeout, end = now() + 3 * SEC;
	int fd = contender(), rounds = 0, granted = 0;
	struct tlock_holder holder;
	__u64 token, contended = self->before.contended;
	struct call *waiter;

	while (rounds++ < 200 && now() < end) {
		token = take(self->fd, "holder");
		waiter = call(fd, acquire, timeout, "waiter");
		/* It waits, or did */
		ASSERT_TRUE(await_contended(fd, ++contended));
		while (now() < waiter->begun + delay)
			;
		ASSERT_EQ(0, release(self->fd));
		switch (result(waiter)) {
		case 0:
			granted++;
			delay += 10 * USEC;
			holder = look(fd).holder;
			ASSERT_EQ(waiter->arg->token, holder.token);
			ASSERT_EQ(token + 1, holder.token);
			ASSERT_LE(0, waiter->arg->timeout_ns);
			ASSERT_GE(timeout, waiter->arg->timeout_ns);
			ASSERT_EQ(0, release(fd));
			break;
		case -ETIMEDOUT:
			delay -= 10 * USEC;
			/* It gave up before the release: names that holder */
			ASSERT_EQ(token, waiter->arg->holder.token);
			ASSERT_LE(timeout, took(waiter));
			ASSERT_EQ(-EPERM, release(fd));
			break;
		default:
			ASSERT_EQ(0, waiter->ret);
		}
		ASSERT_EQ(0, look(fd).holder.token);
		ASSERT_EQ(0, look(fd).waiters);
	}
	TH_LOG("%d of %d waiters were granted the lock", granted, rounds - 1);
	close(fd);
}

/* In an agent: names its process arg->job */
static int be_named(int fd, struct tlock_acquire *arg)
{
	return prctl(PR_SET_NAME, arg->job);
}

static int become_user(int fd, struct tlock_acquire *arg)
{
	return seteuid(arg->timeout_ns);
}

FIXTURE(snapshot)
{
	int fd;
	struct agent *a;
	__s64 before, after;	/* around the grant */
	__u64 token;
};

FIXTURE_SETUP(snapshot)
{
	struct tlock_acquire name = ask(0, "instrument"), user = ask(4242, "");

	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->a = agent();
	ASSERT_EQ(0, agent_do(self->a, be_named, &name));
	ASSERT_EQ(0, agent_do(self->a, become_user, &user));
	self->before = now();
	self->token = agent_take(self->a, "scan of Tau A \xc2\xb5");
	self->after = now();
}

FIXTURE_TEARDOWN(snapshot)
{
	EXPECT_EQ(0, agent_release(self->a));
	close(self->fd);
	EXPECT_LEFT_FREE();
}

static bool padded(const char *string, size_t size)
{
	for (size_t i = strlen(string); i < size; i++)
		if (string[i])
			return false;
	return true;
}

/* The holder is the fixture's agent */
#define EXPECT_THE_AGENT(h) do {					\
	const struct tlock_holder *__h = (h);				\
									\
	EXPECT_EQ(self->token, __h->token);				\
	EXPECT_LE(self->before, __h->since_ns);			\
	EXPECT_GE(self->after, __h->since_ns);			\
	EXPECT_EQ(self->a->pid, __h->pid);				\
	EXPECT_EQ(4242, __h->uid);					\
	EXPECT_STREQ("instrument", __h->comm);				\
	EXPECT_STREQ("scan of Tau A \xc2\xb5", __h->job);		\
	EXPECT_EQ(0, __h->flags);					\
	EXPECT_EQ(0, __h->reserved);					\
	EXPECT_EQ(0, __h->expires_ns);					\
	/* And not a byte more */					\
	EXPECT_TRUE(padded(__h->comm, sizeof(__h->comm)));		\
	EXPECT_TRUE(padded(__h->job, sizeof(__h->job)));		\
} while (0)

TEST_F(snapshot, g5_of_the_holder_on_timeout)
{
	static const __s64 timeouts[] = { 0, 1, 50 * MSEC };

	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		struct tlock_acquire arg = ask(timeouts[i], "waiter");

		ASSERT_EQ(-ETIMEDOUT, acquire(self->fd, &arg));
		EXPECT_THE_AGENT(&arg.holder);
		EXPECT_EQ(0, arg.timeout_ns);
	}
}

TEST_F(snapshot, g5_says_the_same_as_status)
{
	struct tlock_status st = look(self->fd);

	EXPECT_THE_AGENT(&st.holder);
	EXPECT_EQ(0, st.waiters);
	EXPECT_EQ(0, st.flags);
	EXPECT_TRUE(zeroed(st.reserved, sizeof(st.reserved)));
	EXPECT_STREQ("tlock", st.name);
	EXPECT_TRUE(padded(st.name, sizeof(st.name)));
}

/*
 * One contender acquires and releases the lock all the time, and the other one
 * tries. A failed try must name the very grant that was in the way. A snapshot
 * taken later would sooner or later show a free lock, or a newer grant.
 */
static atomic_int stop;

static int occupy(int fd, struct tlock_acquire *arg)
{
	int ret = 0;

	while (!ret && !atomic_load(&stop)) {
		*arg = ask(FOREVER, "occupier");
		ret = acquire(fd, arg);
		if (!ret)
			ret = release(fd);
	}
	return ret;
}

TEST_F(tlock, g5_a_failed_try_never_names_nobody)
{
	struct call *occupier;
	int failures = 0, ret;
	/* Tokens grow with the count of grants, so they identify a grant */
	__u64 newest, offset;

	offset = take(self->fd, "first") - look(self->fd).acquired;
	ASSERT_EQ(0, release(self->fd));
	occupier = call(contender(), occupy, 0, "");
	for (__s64 end = now() + SEC; now() < end && failures < 2000;) {
		struct tlock_acquire arg = ask(0, "try");

		newest = offset + look(self->fd).acquired;
		ret = acquire(self->fd, &arg);
		if (!ret) {
			ASSERT_EQ(0, release(self->fd));
			continue;
		}
		ASSERT_EQ(-ETIMEDOUT, ret);
		failures++;
		/* Neither a grant that had already ended nor a later one */
		ASSERT_LE(newest, arg.holder.token);
		ASSERT_GE(offset + look(self->fd).acquired, arg.holder.token);
		ASSERT_STREQ("occupier", arg.holder.job);
		ASSERT_EQ(getpid(), arg.holder.pid);
	}
	atomic_store(&stop, 1);
	EXPECT_EQ(0, result(occupier));
	EXPECT_LT(0, failures);
	close(occupier->fd);
}

TEST_HARNESS_MAIN
