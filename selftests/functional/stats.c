// SPDX-License-Identifier: GPL-2.0-only
/* The counters match what happened. */
#include <signal.h>
#include <stdio.h>

#include "tlock_test.h"

/* What a sequence of calls adds to the counters */
struct counts {
	__u64 acquired;
	__u64 contended;
	__u64 timed_out;
	__u64 interrupted;
	__u64 abandoned;
	__u64 revoked;
	__u64 yielded;
};

/* In the ioctl and in sysfs */
#define EXPECT_COUNTS(...) do {						\
	const struct counts __c = { __VA_ARGS__ };			\
	struct tlock_status __b = self->before, __a = look(self->fd);	\
									\
	EXPECT_EQ(__c.acquired, __a.acquired - __b.acquired);		\
	EXPECT_EQ(__c.contended, __a.contended - __b.contended);	\
	EXPECT_EQ(__c.timed_out, __a.timed_out - __b.timed_out);	\
	EXPECT_EQ(__c.interrupted, __a.interrupted - __b.interrupted);	\
	EXPECT_EQ(__c.abandoned, __a.abandoned - __b.abandoned);	\
	EXPECT_EQ(__c.revoked, __a.revoked - __b.revoked);		\
	EXPECT_EQ(__c.yielded, __a.yielded - __b.yielded);		\
	EXPECT_EQ(__a.acquired, sysfs_number("stats/acquired"));	\
	EXPECT_EQ(__a.contended, sysfs_number("stats/contended"));	\
	EXPECT_EQ(__a.timed_out, sysfs_number("stats/timed_out"));	\
	EXPECT_EQ(__a.interrupted, sysfs_number("stats/interrupted"));	\
	EXPECT_EQ(__a.abandoned, sysfs_number("stats/abandoned"));	\
	EXPECT_EQ(__a.revoked, sysfs_number("stats/revoked"));		\
	EXPECT_EQ(__a.yielded, sysfs_number("stats/yielded"));		\
	EXPECT_EQ(__a.wait_ns_total, sysfs_number("stats/wait_ns_total")); \
	EXPECT_EQ(__a.wait_ns_max, sysfs_number("stats/wait_ns_max"));	\
	EXPECT_EQ(__a.hold_ns_total, sysfs_number("stats/hold_ns_total")); \
	EXPECT_EQ(__a.hold_ns_max, sysfs_number("stats/hold_ns_max"));	\
	self->before = __a;						\
} while (0)

TEST_F(tlock, counters)
{
	struct tlock_acquire arg;
	struct agent *a = agent();
	struct call *waiter, *yielder;
	int fd = contender();

	EXPECT_COUNTS(0);

	/* Nobody else holds the lock */
	for (int i = 0; i < 3; i++) {
		take(self->fd, "holder");
		ASSERT_EQ(0, release(self->fd));
	}
	EXPECT_COUNTS(.acquired = 3);

	/* Somebody else holds it: two tries, and one that waits */
	take(self->fd, "holder");
	for (int i = 0; i < 3; i++) {
		arg = ask(i < 2 ? 0 : MSEC, "fails");
		ASSERT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	}
	EXPECT_COUNTS(.acquired = 1, .contended = 3, .timed_out = 3);

	/* Calls that fail at once are not counted */
	arg = ask(0, "fails");
	EXPECT_EQ(-EDEADLK, acquire(self->fd, &arg));
	EXPECT_EQ(-EPERM, reacquire(fd, &arg));
	EXPECT_EQ(-EPERM, release(fd));
	arg = ask(0, "\n");
	EXPECT_EQ(-EINVAL, acquire(fd, &arg));
	EXPECT_COUNTS(0);

	/* Two signals for the same request, which goes on in between */
	handle_usr1(0);
	waiter = call(fd, acquire, FOREVER, "interrupted");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	EXPECT_COUNTS(.contended = 1);
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	EXPECT_COUNTS(.interrupted = 1);
	waiter = call_with(fd, acquire, waiter->arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	EXPECT_COUNTS(0);
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	EXPECT_COUNTS(0);

	/* Withdrawn while it is away */
	ASSERT_EQ(0, release(fd));
	EXPECT_COUNTS(0);
	/*
	 * Another request of the same file, replaced while it is away; the one
	 * after that is withdrawn while a thread sleeps for it
	 */
	waiter = call(fd, acquire, FOREVER, "replaced");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	EXPECT_COUNTS(.contended = 1, .interrupted = 1);
	arg = ask(0, "try");
	EXPECT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	EXPECT_COUNTS(.contended = 1, .timed_out = 1);
	waiter = call(fd, acquire, FOREVER, "withdrawn");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(-ECANCELED, result(waiter));
	EXPECT_COUNTS(.contended = 1);
	/* A request that is gone cannot be continued */
	arg = ask(0, "fails");
	arg.ticket = 1;
	EXPECT_EQ(-ECANCELED, acquire(fd, &arg));
	EXPECT_COUNTS(0);

	/* A hand-over */
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_COUNTS(.contended = 1, .acquired = 1);

	/* A reacquire that lets nobody in, and one that does */
	arg = ask(FOREVER, "");
	ASSERT_EQ(0, reacquire(fd, &arg));
	EXPECT_COUNTS(0);
	waiter = call(self->fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	yielder = call(fd, reacquire, FOREVER, "");
	ASSERT_EQ(0, result(waiter));
	EXPECT_COUNTS(.contended = 1, .acquired = 1, .yielded = 1);
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(yielder));
	EXPECT_COUNTS(.acquired = 1);

	/* A reacquire that times out or is interrupted also let somebody in */
	waiter = call(self->fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	arg = ask(MSEC, "");
	ASSERT_EQ(-ETIMEDOUT, reacquire(fd, &arg));
	ASSERT_EQ(0, result(waiter));
	EXPECT_COUNTS(.contended = 1, .acquired = 1, .yielded = 1,
		      .timed_out = 1);
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	yielder = call(self->fd, reacquire, FOREVER, "");
	ASSERT_EQ(0, result(waiter));
	ASSERT_TRUE(await_waiters(self->fd, 1));
	send_signal(yielder, SIGUSR1);
	ASSERT_EQ(-EINTR, result(yielder));
	EXPECT_COUNTS(.contended = 1, .acquired = 1, .yielded = 1,
		      .interrupted = 1);
	ASSERT_EQ(0, release(fd));
	/* It goes on and gets the free lock: a grant, but not contended */
	ASSERT_EQ(0, reacquire(self->fd, yielder->arg));
	EXPECT_COUNTS(.acquired = 1);
	ASSERT_EQ(0, release(self->fd));

	/* The death of a holder, and of a waiter */
	agent_take(a, "mortal");
	agent_kill(a);
	EXPECT_COUNTS(.acquired = 1, .abandoned = 1);
	take(self->fd, "holder");
	a = agent();
	arg = ask(FOREVER, "mortal");
	agent_begin(a, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	agent_kill(a);
	EXPECT_COUNTS(.acquired = 1, .contended = 1, .interrupted = 1);
	ASSERT_EQ(0, release(self->fd));
	EXPECT_COUNTS(0);

	/* A revocation at once, and at the end of a lease, by each wanter */
	ASSERT_EQ(0, revoke_grant(fd, take(self->fd, "holder"), 0));
	EXPECT_COUNTS(.acquired = 1, .revoked = 1);
	ASSERT_EQ(-ESTALE, release(self->fd));
	EXPECT_COUNTS(0);
	take_lease(self->fd, "holder", 1);
	EXPECT_COUNTS(.acquired = 1);
	arg = ask(0, "try");
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_COUNTS(.acquired = 1, .revoked = 1);
	ASSERT_EQ(-ESTALE, release(self->fd));
	ASSERT_EQ(0, renew(fd, 50 * MSEC));
	arg = ask(FOREVER, "waiter");
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_COUNTS(.acquired = 1, .contended = 1, .revoked = 1);
	/* The file that lost it is closed: no abandonment */
	close(fd);
	EXPECT_COUNTS(0);
	/* A grace that was long enough */
	ASSERT_EQ(0, revoke_grant(self->fd, look(self->fd).holder.token, LONG));
	ASSERT_EQ(0, release(self->fd));
	EXPECT_COUNTS(0);
}

/*
 * Checks that a time between two bounds was added to the total, and that the
 * maximum is the longest so far.
 */
#define EXPECT_TIME(kind, low, high) do {				\
	__s64 __low = (low), __high = (high);				\
	struct tlock_status __b = self->before, __a = look(self->fd);	\
	__s64 __time = __a.kind##_ns_total - __b.kind##_ns_total;	\
									\
	EXPECT_LE(__low, __time);					\
	EXPECT_GE(__high, __time);					\
	if (__time > (__s64)__b.kind##_ns_max) {			\
		EXPECT_EQ(__time, (__s64)__a.kind##_ns_max);		\
	} else {							\
		EXPECT_EQ(__b.kind##_ns_max, __a.kind##_ns_max);	\
	}								\
} while (0)

/* Holds that end by release, and by death */
TEST_F(tlock, hold_times)
{
	__s64 begin, begun, end, ended;
	struct tlock_acquire arg = ask(0, "next");
	struct agent *a;

	for (int i = 0; i < 4; i++) {
		self->before = look(self->fd);
		begin = now();
		take(self->fd, "holder");
		begun = now();
		/* A hold that goes on does not count yet */
		EXPECT_TIME(hold, 0, 0);
		usleep(1000 << i);
		ASSERT_EQ(0, reacquire(self->fd, &arg));
		EXPECT_TIME(hold, 0, 0);
		end = now();
		ASSERT_EQ(0, release(self->fd));
		ended = now();
		EXPECT_TIME(hold, end - begun, ended - begin);
	}

	a = agent();
	self->before = look(self->fd);
	begin = now();
	agent_take(a, "mortal");
	begun = now();
	usleep(20000);
	end = now();
	agent_kill(a);
	ended = now();
	EXPECT_TIME(hold, end - begun, ended - begin);
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(0, release(self->fd));
}

/* A hold that ends by a revocation ends then, and not before. */
TEST_F(tlock, hold_time_of_a_revoked_holder)
{
	struct tlock_acquire arg = ask(0, "next");
	__s64 begin, begun, end, ended;
	int fd = contender();

	begin = now();
	take_lease(self->fd, "holder", MSEC);
	begun = now();
	usleep(20000);
	EXPECT_TIME(hold, 0, 0);
	end = now();
	ASSERT_EQ(0, acquire(fd, &arg));
	ended = now();
	EXPECT_TIME(hold, end - begun, ended - begin);
	usleep(2000);
	ASSERT_EQ(-ESTALE, release(self->fd));
	EXPECT_TIME(hold, end - begun, ended - begin);
	ASSERT_EQ(0, release(fd));

	self->before = look(self->fd);
	begin = now();
	arg.token = take(self->fd, "holder");
	begun = now();
	usleep(5000);
	end = now();
	ASSERT_EQ(0, revoke_grant(fd, arg.token, 0));
	ended = now();
	EXPECT_TIME(hold, end - begun, ended - begin);
	ASSERT_EQ(0, acquire(fd, &arg));
	ASSERT_EQ(-ESTALE, release(self->fd));
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/* A yield ends one hold; the next grant begins another. */
TEST_F(tlock, hold_time_of_a_yielder)
{
	__s64 begin, begun, yield, yielded;
	struct call *waiter, *yielder;
	int fd = contender();

	begin = now();
	take(self->fd, "yielder");
	begun = now();
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	usleep(20000);
	yield = now();
	yielder = call(self->fd, reacquire, FOREVER, "");
	ASSERT_EQ(0, result(waiter));
	yielded = now();
	EXPECT_TIME(hold, yield - begun, yielded - begin);

	self->before = look(self->fd);
	begun = now();
	usleep(5000);
	yield = now();
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, result(yielder));
	EXPECT_TIME(hold, yield - begun, now() - begin);
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

/* How long a request waited, whatever ended it */
TEST_F(tlock, wait_times)
{
	__s64 begun, queued, end, ended;
	struct tlock_acquire arg;
	int fd = contender();
	struct call *waiter;

	/* A contender that does not wait adds nothing */
	take(self->fd, "holder");
	ASSERT_EQ(0, release(self->fd));
	take(self->fd, "holder");
	EXPECT_TIME(wait, 0, 0);

	/* A request that timed out */
	waiter = call(fd, acquire, 30 * MSEC, "waiter");
	ASSERT_EQ(-ETIMEDOUT, result(waiter));
	EXPECT_TIME(wait, 30 * MSEC, waiter->ended - waiter->begun);

	/* A request that was withdrawn while away: until it went away */
	handle_usr1(0);
	self->before = look(self->fd);
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	queued = now();
	/* A wait that goes on does not count yet */
	EXPECT_TIME(wait, 0, 0);
	usleep(10000);
	end = now();
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	/* Nor does one that may still go on */
	EXPECT_TIME(wait, 0, 0);
	usleep(20000);
	ASSERT_EQ(0, release(fd));
	EXPECT_TIME(wait, end - queued, waiter->ended - waiter->begun);

	/* A request that was replaced while away: the same */
	self->before = look(self->fd);
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	queued = now();
	usleep(10000);
	end = now();
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	usleep(20000);
	arg = ask(0, "try");
	ASSERT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	EXPECT_TIME(wait, end - queued, waiter->ended - waiter->begun);

	/* A request that went on and found the lock free: all of the time */
	self->before = look(self->fd);
	waiter = call(fd, acquire, FOREVER, "waiter");
	begun = waiter->begun;
	ASSERT_TRUE(await_waiters(self->fd, 1));
	queued = now();
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	ASSERT_EQ(0, release(self->fd));
	usleep(20000);
	end = now();
	ASSERT_EQ(0, acquire(fd, waiter->arg));
	EXPECT_TIME(wait, end - queued, now() - begun);
	ASSERT_EQ(0, release(fd));
	take(self->fd, "holder");

	/* A request that went on and was granted later: all of the time */
	self->before = look(self->fd);
	waiter = call(fd, acquire, FOREVER, "waiter");
	begun = waiter->begun;
	ASSERT_TRUE(await_waiters(self->fd, 1));
	queued = now();
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	usleep(20000);
	waiter = call_with(fd, acquire, waiter->arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	end = now();
	ASSERT_EQ(0, release(self->fd));
	ended = now();
	ASSERT_EQ(0, result(waiter));
	EXPECT_TIME(wait, end - queued, ended - begun);
	ASSERT_EQ(0, release(fd));
	take(self->fd, "holder");

	/* A request that another thread withdrew while its own slept */
	self->before = look(self->fd);
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	queued = now();
	usleep(10000);
	end = now();
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(-ECANCELED, result(waiter));
	EXPECT_TIME(wait, end - queued, waiter->ended - waiter->begun);

	/* A request that was granted */
	self->before = look(self->fd);
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	queued = now();
	usleep(40000);
	end = now();
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_TIME(wait, end - queued, waiter->ended - waiter->begun);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

#define WAITS	7

static void read_waits(__u64 *waits)
{
	unsigned long long n[WAITS];
	int end = 0;

	if (sscanf(sysfs_text("stats/waits"),
		   "%llu %llu %llu %llu %llu %llu %llu%n", &n[0], &n[1], &n[2],
		   &n[3], &n[4], &n[5], &n[6], &end) != WAITS ||
	    sysfs_text("stats/waits")[end])
		die("not seven numbers: %s", sysfs_text("stats/waits"));
	for (int i = 0; i < WAITS; i++)
		waits[i] = n[i];
}

/* Each wait counts by its length, and a call that does not wait not at all. */
TEST_F(tlock, waits_by_length)
{
	static const __s64 timeouts[] = {
		USEC, USEC, 5 * MSEC, 50 * MSEC, SEC / 2, 2 * SEC
	};
	__u64 before[WAITS], after[WAITS], waited, limit;
	struct tlock_acquire arg;
	int fd = contender(), expected;

	read_waits(before);
	take(self->fd, "holder");
	for (int i = 0; i < 10; i++) {
		arg = ask(0, "try");
		ASSERT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	}
	read_waits(after);
	EXPECT_EQ(0, memcmp(before, after, sizeof(after)));
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		waited = look(fd).wait_ns_total;
		arg = ask(timeouts[i], "waiter");
		ASSERT_EQ(-ETIMEDOUT, acquire(fd, &arg));
		waited = look(fd).wait_ns_total - waited;
		limit = MSEC;
		for (expected = 0; waited > limit; expected++)
			limit *= 10;
		ASSERT_GT(WAITS, expected);
		before[expected]++;
		read_waits(after);
		EXPECT_EQ(0, memcmp(before, after, sizeof(after))) {
			TH_LOG("%llu ns counted as %s", waited,
			       sysfs_text("stats/waits"));
		}
	}
	/* The long ones came where they belong, however slow this machine is */
	EXPECT_LT(0, after[4]);
	/* A grant ends a wait, too */
	arg = start_acquire(fd, FOREVER, "waiter");
	ASSERT_EQ(0, release(self->fd));
	read_waits(before);
	EXPECT_NE(0, memcmp(before, after, sizeof(after)));
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/* No counter changes without a reason. */
TEST_F(tlock, looking_counts_nothing)
{
	struct tlock_status after;
	int fd;

	for (int i = 0; i < 10; i++) {
		fd = contender();
		look(fd);
		sysfs_text("job");
		sysfs_number("stats/acquired");
		close(fd);
	}
	after = look(self->fd);
	EXPECT_EQ(0, memcmp(&self->before, &after, sizeof(after)));
}

TEST_HARNESS_MAIN
