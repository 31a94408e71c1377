// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 4: release-then-reacquire is one step. (For the test that the lock
 * is never free meanwhile see fifo.c.)
 */
#include "tlock_test.h"

#define EXPECT_SAME(a, b) EXPECT_EQ(0, memcmp(&(a), &(b), sizeof(a)))

TEST_F(tlock, g4_nobody_waits)
{
	__u64 token = take(self->fd, "long job");
	static const __s64 timeouts[] = { 0, 1, LONG, FOREVER };
	struct tlock_status before = look(self->fd), after;

	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		struct tlock_acquire arg = ask(timeouts[i], "");

		ASSERT_EQ(0, reacquire(self->fd, &arg));
		EXPECT_EQ(timeouts[i], arg.timeout_ns);
		EXPECT_EQ(0, arg.result);
		EXPECT_EQ(token, arg.token);
		EXPECT_TRUE(poisoned(&arg.holder, sizeof(arg.holder)));
		/* It kept the lock: neither the holder nor a counter changed */
		after = look(self->fd);
		EXPECT_SAME(before, after);
	}
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(tlock, g4_new_job)
{
	struct tlock_acquire arg = ask(LONG, "second job");
	__u64 token = take(self->fd, "a first job with quite a long name");
	struct tlock_status before = look(self->fd), after;

	ASSERT_EQ(0, reacquire(self->fd, &arg));
	EXPECT_EQ(LONG, arg.timeout_ns);
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(token, arg.token);
	after = look(self->fd);
	EXPECT_STREQ("second job", after.holder.job);
	memcpy(before.holder.job, after.holder.job, sizeof(after.holder.job));
	EXPECT_SAME(before, after);
	EXPECT_EQ(0, release(self->fd));
}

/*
 * Where nobody waits, a reacquire with the same job costs nothing. The kernel
 * compares the jobs word by word, which must not change the result.
 */
FIXTURE(job)
{
	int fd;
	struct tlock_status before;
};

FIXTURE_VARIANT(job)
{
	const char *held;
	const char *said;
};

#define JOBS(name, _held, _said)					\
FIXTURE_VARIANT_ADD(job, name) { .held = _held, .said = _said }

#define BYTES_62 "12345678901234567890123456789012345678901234567890123456789012"

JOBS(same, "scan", "scan");
JOBS(same_7_bytes, "1234567", "1234567");
JOBS(same_8_bytes, "12345678", "12345678");
JOBS(same_9_bytes, "123456789", "123456789");
JOBS(same_63_bytes, BYTES_62 "3", BYTES_62 "3");
JOBS(shorter, "scan 12", "scan");
JOBS(shorter_by_a_word, "12345678 more", "12345678");
JOBS(shorter_by_all_but_a_byte, BYTES_62 "3", "1");
JOBS(longer, "scan", "scan 12");
JOBS(longer_by_a_word, "12345678", "12345678 more");
JOBS(longer_up_to_63_bytes, BYTES_62, BYTES_62 "3");
JOBS(other_first_byte, "scan of a source", "Scan of a source");
JOBS(other_last_byte, BYTES_62 "3", BYTES_62 "4");
JOBS(other_byte_at_a_words_end, "12345678 more", "1234567X more");
JOBS(other_byte_at_a_words_start, "12345678 more", "12345678_more");
JOBS(some_where_there_was_none, "", "scan");
JOBS(none_keeps_it, "scan", "");
JOBS(none_keeps_none, "", "");

FIXTURE_SETUP(job)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
}

FIXTURE_TEARDOWN(job)
{
	close(self->fd);
	EXPECT_LEFT_FREE();
}

/* With and without bytes after the NUL, which are not part of the job */
TEST_F(job, g4_is_compared_whole)
{
	const char *then = *variant->said ? variant->said : variant->held;
	static const char garbage[] = { 0, '\n', ' ', 'x', POISON };
	struct tlock_acquire arg;
	struct tlock_status after;
	size_t len = strlen(variant->said);
	__u64 token;

	for (size_t i = 0; i < ARRAY_SIZE(garbage); i++) {
		token = take(self->fd, variant->held);
		self->before = look(self->fd);
		arg = ask(LONG, variant->said);
		memset(arg.job + len + 1, garbage[i], sizeof(arg.job) - len - 1);
		ASSERT_EQ(0, reacquire(self->fd, &arg));
		EXPECT_EQ(token, arg.token);
		EXPECT_EQ(0, arg.result);
		EXPECT_EQ(LONG, arg.timeout_ns);
		EXPECT_EQ(0, arg.ticket);
		after = look(self->fd);
		/* Nothing but the job has changed */
		memset(self->before.holder.job, 0, TLOCK_JOB_SIZE);
		strcpy(self->before.holder.job, then);
		EXPECT_SAME(self->before, after);
		EXPECT_EQ(0, release(self->fd));
	}
}

/* A job without a NUL is refused, however much of it is the same. */
TEST_F(job, g4_without_an_end_is_refused)
{
	struct tlock_acquire arg = ask(LONG, "");
	size_t len = strlen(variant->said);
	struct tlock_status after;

	take(self->fd, variant->held);
	self->before = look(self->fd);
	memset(arg.job, 'x', sizeof(arg.job));
	memcpy(arg.job, variant->said, len);
	EXPECT_EQ(-EINVAL, reacquire(self->fd, &arg));
	/* So is one with a control character added */
	arg = ask(LONG, variant->said);
	if (len > sizeof(arg.job) - 2)
		len = sizeof(arg.job) - 2;
	memcpy(arg.job + len, "\n", 2);
	EXPECT_EQ(-EINVAL, reacquire(self->fd, &arg));
	after = look(self->fd);
	EXPECT_SAME(self->before, after);
	EXPECT_EQ(0, release(self->fd));
}

/*
 * A and B wait, the holder yields, and C arrives. They get the lock in the
 * order A, B, holder, C. The holder keeps its job unless it passes a new one.
 */
FIXTURE(order)
{
	int fd;
};

FIXTURE_VARIANT(order)
{
	const char *job;
	const char *then;
};

FIXTURE_VARIANT_ADD(order, same_job)
{
	.job = "",
	.then = "yielder",
};

FIXTURE_VARIANT_ADD(order, new_job)
{
	.job = "next sample",
	.then = "next sample",
};

FIXTURE_SETUP(order)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
}

FIXTURE_TEARDOWN(order)
{
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(order, g4_behind_those_present_ahead_of_those_to_come)
{
	__u64 token = take(self->fd, "yielder");
	struct call *a, *b, *c, *yielder;
	struct tlock_status before, after;

	a = call(contender(), acquire, FOREVER, "a");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	b = call(contender(), acquire, FOREVER, "b");
	ASSERT_TRUE(await_waiters(self->fd, 2));

	before = look(self->fd);
	yielder = call(self->fd, reacquire, LONG, variant->job);
	/* The first waiter has the lock before the yielder sleeps */
	ASSERT_TRUE(await_token(self->fd, token + 1));
	after = look(self->fd);
	EXPECT_STREQ("a", after.holder.job);
	EXPECT_EQ(2, after.waiters);
	EXPECT_EQ(before.yielded + 1, after.yielded);
	EXPECT_EQ(before.contended, after.contended);
	ASSERT_EQ(0, result(a));
	EXPECT_EQ(token + 1, a->arg->token);
	EXPECT_EQ(0, a->arg->result);

	c = call(contender(), acquire, FOREVER, "c");
	ASSERT_TRUE(await_waiters(self->fd, 3));
	ASSERT_EQ(0, release(a->fd));
	ASSERT_EQ(0, result(b));
	EXPECT_EQ(token + 2, b->arg->token);
	EXPECT_STREQ("b", look(self->fd).holder.job);

	ASSERT_EQ(0, release(b->fd));
	ASSERT_EQ(0, result(yielder));
	EXPECT_EQ(token + 3, yielder->arg->token);
	EXPECT_EQ(0, yielder->arg->result);
	EXPECT_GT(LONG, yielder->arg->timeout_ns);
	EXPECT_LE(LONG - (yielder->ended - yielder->begun),
		  yielder->arg->timeout_ns);
	EXPECT_TRUE(poisoned(&yielder->arg->holder,
			     sizeof(yielder->arg->holder)));
	after = look(self->fd);
	EXPECT_EQ(token + 3, after.holder.token);
	EXPECT_STREQ(variant->then, after.holder.job);
	EXPECT_LE(yielder->begun, after.holder.since_ns);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(c));
	EXPECT_EQ(token + 4, c->arg->token);
	ASSERT_EQ(0, release(c->fd));
	close(a->fd);
	close(b->fd);
	close(c->fd);
}

/* Two contenders that share an instrument only by reacquiring take turns. */
#define SAMPLES	500

static int sample(int fd, struct tlock_acquire *arg)
{
	int ret = acquire(fd, arg);
	__u64 token;

	for (int i = 0; !ret && i < SAMPLES; i++) {
		token = arg->token;
		arg->timeout_ns = LONG;
		/* An empty job would take the fast path if nobody waited */
		arg->job[0] = '\0';
		ret = reacquire(fd, arg);
		if (!ret && arg->token != token + 2)
			ret = -EILSEQ;
	}
	return ret ? ret : release(fd);
}

TEST_F(tlock, g4_two_take_turns)
{
	struct call *samplers[2];

	take(self->fd, "start");
	for (int i = 0; i < 2; i++) {
		samplers[i] = call(contender(), sample, LONG, "sampler");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	ASSERT_EQ(0, release(self->fd));
	for (int i = 0; i < 2; i++) {
		EXPECT_EQ(0, result(samplers[i]));
		close(samplers[i]->fd);
	}
	EXPECT_EQ(self->before.acquired + 1 + 2 * (1 + SAMPLES),
		  look(self->fd).acquired);
	EXPECT_EQ(self->before.yielded + 2 * SAMPLES, look(self->fd).yielded);
}

/*
 * After a failed reacquire the caller does not hold the lock. Many programs
 * release it on their way out, whatever happened: that must not take the lock
 * from its present holder.
 */
TEST_F(tlock, g4_times_out_not_holding)
{
	__u64 token = take(self->fd, "yielder");
	int fd = contender();
	struct call *waiter = call(fd, acquire, FOREVER, "waiter"), *yielder;
	struct tlock_holder holder;

	ASSERT_TRUE(await_waiters(self->fd, 1));
	yielder = call(self->fd, reacquire, 100 * MSEC, "");
	ASSERT_EQ(0, result(waiter));
	ASSERT_EQ(-ETIMEDOUT, result(yielder));
	EXPECT_LE(100 * MSEC, yielder->ended - yielder->begun);
	EXPECT_EQ(0, yielder->arg->timeout_ns);
	EXPECT_TRUE(poisoned(&yielder->arg->token, 8));
	holder = look(self->fd).holder;
	EXPECT_EQ(token + 1, holder.token);
	EXPECT_SAME(holder, yielder->arg->holder);

	EXPECT_EQ(-EPERM, release(self->fd));
	EXPECT_EQ(-EPERM, reacquire(self->fd, yielder->arg));
	EXPECT_EQ(token + 1, look(self->fd).holder.token);
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(0, release(fd));
	/* It is idle, and can acquire again */
	take(self->fd, "again");
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_F(tlock, g4_zero_lets_go_and_does_not_wait)
{
	__u64 token = take(self->fd, "yielder");
	struct tlock_acquire arg = ask(0, "");
	int fd = contender();
	struct call *waiter = call(fd, acquire, FOREVER, "waiter");
	struct tlock_status before, after;

	ASSERT_TRUE(await_waiters(self->fd, 1));
	before = look(self->fd);
	ASSERT_EQ(-ETIMEDOUT, reacquire(self->fd, &arg));
	/* It names the waiter that it just let in */
	EXPECT_EQ(token + 1, arg.holder.token);
	EXPECT_STREQ("waiter", arg.holder.job);
	EXPECT_EQ(0, arg.timeout_ns);
	after = look(self->fd);
	EXPECT_SAME(arg.holder, after.holder);
	EXPECT_EQ(0, after.waiters);
	EXPECT_EQ(before.yielded + 1, after.yielded);
	EXPECT_EQ(before.timed_out + 1, after.timed_out);
	EXPECT_EQ(before.acquired + 1, after.acquired);

	EXPECT_EQ(-EPERM, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(0, release(fd));
	close(fd);
}

TEST_F(tlock, g4_not_the_holder)
{
	struct tlock_acquire arg = ask(FOREVER, "");
	struct tlock_status before, after;
	int fd = contender();

	/* A free lock cannot be acquired by a reacquire */
	EXPECT_EQ(-EPERM, reacquire(fd, &arg));
	EXPECT_EQ(0, look(fd).holder.token);

	take(self->fd, "holder");
	before = look(fd);
	EXPECT_EQ(-EPERM, reacquire(fd, &arg));
	after = look(fd);
	EXPECT_SAME(before, after);
	EXPECT_EQ(0, release(self->fd));
	/* A contender that has released is like one that never held */
	EXPECT_EQ(-EPERM, reacquire(self->fd, &arg));
	close(fd);
}

/* While a reacquire waits, other threads find its file waiting. */
TEST_F(tlock, g4_waiting_meanwhile)
{
	struct tlock_acquire arg = ask(0, "other thread");
	struct call *waiter, *yielder;
	int fd = contender();

	take(self->fd, "yielder");
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	yielder = call(self->fd, reacquire, FOREVER, "");
	ASSERT_EQ(0, result(waiter));
	ASSERT_TRUE(await_waiters(self->fd, 1));

	EXPECT_EQ(-EBUSY, acquire(self->fd, &arg));
	EXPECT_EQ(-EBUSY, reacquire(self->fd, &arg));
	EXPECT_EQ(1, look(self->fd).waiters);

	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, result(yielder));
	EXPECT_STREQ("yielder", look(self->fd).holder.job);
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_HARNESS_MAIN
