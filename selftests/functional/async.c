// SPDX-License-Identifier: GPL-2.0-only
/*
 * Asynchronous requests, which wait without a thread: all guarantees hold for
 * them, too, and for a mixture of them with blocking calls. (For what each call
 * returns see states.c, for poll(2) see poll.c.)
 */
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>

#include "tlock_test.h"

FIXTURE(async)
{
	int holder;		/* holds the lock at first */
	int c;			/* makes an asynchronous request */
	int other;
	__u64 token;		/* of the holder */
	struct tlock_status before;
};

FIXTURE_SETUP(async)
{
	self->holder = contender();
	self->c = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
	self->token = take(self->holder, "holder");
	self->before = look(self->c);
}

FIXTURE_TEARDOWN(async)
{
	close(self->holder);
	close(self->c);
	close(self->other);
	EXPECT_LEFT_FREE();
}

/* Waits until a request is decided, and fetches its outcome. */
static int finish(int fd, struct tlock_acquire *arg)
{
	if (await_events(fd, POLLOUT) != POLLOUT)
		return STUCK;
	return acquire(fd, arg);
}

TEST_F(async, nobody_to_wait_for)
{
	struct tlock_acquire arg = ask_async(FOREVER, "c");
	__u64 number;

	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, acquire(self->c, &arg));
	EXPECT_EQ(self->token + 1, arg.token);
	EXPECT_EQ(0, arg.ticket);
	EXPECT_EQ(0, arg.result);
	EXPECT_STREQ("holding", state_of(self->c, &number));
	EXPECT_EQ(arg.token, number);
	EXPECT_EQ(0, look(self->c).holder.flags);

	/* With the same job and with a new one */
	for (int i = 0; i < 2; i++) {
		arg = ask_async(FOREVER, i ? "new" : "c");
		ASSERT_EQ(0, reacquire(self->c, &arg));
		EXPECT_EQ(self->token + 1, arg.token);
		EXPECT_EQ(0, arg.ticket);
		EXPECT_STREQ(i ? "new" : "c", look(self->c).holder.job);
	}
	EXPECT_EQ(0, release(self->c));
}

/* Whoever looks sees the request, and that its grant was not fetched yet. */
TEST_F(async, g5_visible)
{
	struct tlock_acquire arg = start_acquire(self->c, FOREVER, "c"), try;
	struct tlock_holder holder;
	char path[40], line[60];
	__u64 number;

	EXPECT_NE(0, arg.ticket);
	EXPECT_TRUE(poisoned(&arg.holder, sizeof(arg.holder)));
	EXPECT_TRUE(poisoned(&arg.token, sizeof(arg.token)));
	EXPECT_STREQ("waiting", state_of(self->c, &number));
	EXPECT_EQ(arg.ticket, number);
	EXPECT_EQ(1, look(self->c).waiters);
	EXPECT_EQ(1, sysfs_number("waiters"));

	ASSERT_EQ(0, release(self->holder));
	EXPECT_STREQ("decided", state_of(self->c, &number));
	EXPECT_EQ(arg.ticket, number);
	/* So that one can find who has the file that holds the lock */
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", self->c);
	snprintf(line, sizeof(line), "\ntlock-token:\t%llu", self->token + 1);
	EXPECT_NE(NULL, strstr(read_text(path), line));
	EXPECT_EQ(0, look(self->c).waiters);
	EXPECT_STREQ("c", sysfs_text("job"));
	holder = look(self->c).holder;
	EXPECT_EQ(TLOCK_UNFETCHED, holder.flags);
	EXPECT_EQ(self->token + 1, holder.token);
	EXPECT_EQ(getpid(), holder.pid);
	EXPECT_STREQ("c", holder.job);
	try = ask(0, "try");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->other, &try));
	EXPECT_EQ(0, memcmp(&holder, &try.holder, sizeof(holder)));

	ASSERT_EQ(0, finish(self->c, &arg));
	EXPECT_EQ(holder.token, arg.token);
	EXPECT_EQ(0, arg.ticket);
	EXPECT_EQ(0, arg.result);
	EXPECT_TRUE(poisoned(&arg.holder, sizeof(arg.holder)));
	EXPECT_STREQ("holding", state_of(self->c, &number));
	EXPECT_EQ(arg.token, number);
	EXPECT_EQ(0, look(self->c).holder.flags);
	/* The grant began with the hand-over, not with the call */
	EXPECT_EQ(holder.since_ns, look(self->c).holder.since_ns);
	EXPECT_EQ(0, release(self->c));
}

TEST_F(async, g3_timeouts)
{
	const __s64 long_ones[] = {
		FOREVER, INT64_MIN, LONG, INT64_MAX, INT64_MAX - now(),
	};
	struct tlock_acquire arg = ask_async(0, "c"), again;

	/* A try needs no request */
	EXPECT_EQ(-ETIMEDOUT, acquire(self->c, &arg));
	EXPECT_EQ(0, arg.ticket);
	EXPECT_STREQ("holder", arg.holder.job);
	EXPECT_STREQ("idle", state_of(self->c, NULL));

	arg = start_acquire(self->c, 1, "c");
	EXPECT_EQ(-ETIMEDOUT, finish(self->c, &arg));
	EXPECT_EQ(0, arg.timeout_ns);
	EXPECT_EQ(0, arg.ticket);

	for (size_t i = 0; i < ARRAY_SIZE(long_ones); i++) {
		arg = start_acquire(self->c, long_ones[i], "c");
		again = arg;
		usleep(2000);
		EXPECT_EQ(-EINPROGRESS, acquire(self->c, &again));
		EXPECT_EQ(arg.ticket, again.ticket);
		if (long_ones[i] < 0) {
			EXPECT_EQ(long_ones[i], again.timeout_ns);
		} else {
			EXPECT_GE(long_ones[i] - 2 * MSEC, again.timeout_ns);
			EXPECT_LE(long_ones[i] - PATIENCE, again.timeout_ns);
		}
		EXPECT_EQ(0, release(self->c));
	}
	EXPECT_EQ(self->before.timed_out + 2, look(self->c).timed_out);
	EXPECT_EQ(0, release(self->holder));
}

/* Neither by the caller's clock nor by the lock's own account. */
TEST_F(async, g3_never_early)
{
	__s64 timeout, begun, worst = 0;
	struct tlock_acquire arg;
	__u64 waited;

	for (int i = 0; i < 200; i++) {
		timeout = 50 * USEC + i * 17 * USEC;
		waited = look(self->c).wait_ns_total;
		begun = now();
		arg = start_acquire(self->c, timeout, "c");
		ASSERT_EQ(-ETIMEDOUT, finish(self->c, &arg));
		ASSERT_LE(timeout, now() - begun);
		waited = look(self->c).wait_ns_total - waited;
		ASSERT_LE(timeout, waited);
		if (waited - timeout > worst)
			worst = waited - timeout;
		EXPECT_EQ(0, arg.timeout_ns);
		EXPECT_EQ(self->token, arg.holder.token);
	}
	TH_LOG("at most %lld us late", worst / USEC);
	EXPECT_GT(PATIENCE, worst);
	EXPECT_EQ(0, release(self->holder));
}

/* The time between the grant and the fetch does not count. */
TEST_F(async, g3_time_left_at_the_grant)
{
	__s64 before = now(), asked, released;
	struct tlock_acquire arg = start_acquire(self->c, LONG, "c");

	asked = now();
	usleep(2000);
	released = now();
	ASSERT_EQ(0, release(self->holder));
	before = now() - before;
	usleep(20000);
	ASSERT_EQ(0, finish(self->c, &arg));
	EXPECT_GE(LONG - (released - asked), arg.timeout_ns);
	EXPECT_LE(LONG - before, arg.timeout_ns);
	EXPECT_EQ(0, release(self->c));

	/* For a request that failed, nothing is left */
	take(self->holder, "holder");
	arg = start_acquire(self->c, MSEC, "c");
	ASSERT_TRUE(await_state(self->c, "decided"));
	ASSERT_EQ(0, release(self->holder));
	EXPECT_EQ(-ETIMEDOUT, finish(self->c, &arg));
	EXPECT_EQ(0, arg.timeout_ns);
}

/* A failed request names the holder of that instant, and not a later one. */
TEST_F(async, g5_holder_at_the_deadline)
{
	struct tlock_acquire arg = start_acquire(self->c, MSEC, "c");
	struct tlock_holder holder = look(self->c).holder;

	ASSERT_TRUE(await_state(self->c, "decided"));
	ASSERT_EQ(0, release(self->holder));
	take(self->other, "later");
	ASSERT_EQ(-ETIMEDOUT, finish(self->c, &arg));
	EXPECT_EQ(0, memcmp(&holder, &arg.holder, sizeof(holder)));
	EXPECT_EQ(0, release(self->other));
}

/* Its process may have ended by the time of the fetch. */
TEST_F(async, g5_holder_that_has_ended)
{
	struct agent *a = agent();
	struct tlock_acquire arg;
	__u64 token;

	ASSERT_EQ(0, release(self->holder));
	token = agent_take(a, "mortal");
	arg = start_acquire(self->c, MSEC, "c");
	ASSERT_TRUE(await_state(self->c, "decided"));
	agent_kill(a);
	ASSERT_EQ(-ETIMEDOUT, finish(self->c, &arg));
	EXPECT_EQ(token, arg.holder.token);
	EXPECT_STREQ("mortal", arg.holder.job);
	EXPECT_EQ(0, arg.holder.pid);
	arg = ask(0, "next");
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(self->other));
}

/* The fetch translates the pid for its caller, whoever decided the request. */
TEST_F(async, g5_holder_in_another_namespace)
{
	struct agent *inner = agent_in(CLONE_NEWPID);
	struct tlock_acquire arg = ask_async(MSEC, "inner");
	__u64 acquired = look(self->c).acquired;

	ASSERT_EQ(-EINPROGRESS, agent_do(inner, acquire, &arg));
	while (look(self->c).waiters)
		;
	ASSERT_EQ(-ETIMEDOUT, agent_do(inner, acquire, &arg));
	EXPECT_STREQ("holder", arg.holder.job);
	EXPECT_EQ(0, arg.holder.pid);

	/* The other way round, and the holder has it from a hand-over */
	arg = ask_async(FOREVER, "inner");
	ASSERT_EQ(-EINPROGRESS, agent_do(inner, acquire, &arg));
	ASSERT_EQ(0, release(self->holder));
	ASSERT_TRUE(await_acquired(self->c, acquired + 1));
	EXPECT_EQ(inner->pid, look(self->c).holder.pid);
	arg = start_acquire(self->c, MSEC, "c");
	ASSERT_EQ(-ETIMEDOUT, finish(self->c, &arg));
	EXPECT_EQ(inner->pid, arg.holder.pid);
	EXPECT_EQ(TLOCK_UNFETCHED, arg.holder.flags);
	EXPECT_EQ(0, agent_release(inner));
}

/*
 * A process that is stopped or frozen: the kernel keeps its deadlines, and
 * grants it the lock.
 */
#define CGROUP	"tlock-async"

FIXTURE(paused)
{
	int holder;
	struct agent *a;
	bool usable;
};

FIXTURE_VARIANT(paused)
{
	const char *cgroup;	/* to freeze; NULL: it is stopped */
};

FIXTURE_VARIANT_ADD(paused, stopped)
{
};

FIXTURE_VARIANT_ADD(paused, frozen)
{
	.cgroup = CGROUP,
};

FIXTURE_SETUP(paused)
{
	self->holder = contender();
	ASSERT_FREE(self->holder);
	take(self->holder, "holder");
	self->a = agent();
	self->usable = !variant->cgroup || cgroup_create(CGROUP);
	if (variant->cgroup && self->usable)
		cgroup_enter(CGROUP, self->a->pid);
}

FIXTURE_TEARDOWN(paused)
{
	agents_kill();
	if (variant->cgroup && self->usable)
		cgroup_remove(CGROUP);
	close(self->holder);
	EXPECT_LEFT_FREE();
}

TEST_F(paused, g3_deadline)
{
	struct tlock_acquire arg = ask_async(SEC / 2, "paused");
	struct tlock_status before;

	if (!self->usable)
		SKIP(return, "this kernel has no cgroups to freeze");
	ASSERT_EQ(-EINPROGRESS, agent_do(self->a, acquire, &arg));
	agent_pause(self->a, variant->cgroup);
	before = look(self->holder);
	ASSERT_EQ(1, before.waiters);
	ASSERT_TRUE(await_waiters(self->holder, 0));
	EXPECT_EQ(before.timed_out + 1, look(self->holder).timed_out);
	EXPECT_EQ(before.interrupted, look(self->holder).interrupted);
	agent_resume(self->a, variant->cgroup);
	EXPECT_EQ(-ETIMEDOUT, agent_do(self->a, acquire, &arg));
	EXPECT_STREQ("holder", arg.holder.job);
	EXPECT_EQ(0, release(self->holder));
}

TEST_F(paused, g2_granted)
{
	struct tlock_acquire arg = ask_async(FOREVER, "paused");
	struct tlock_holder holder;

	if (!self->usable)
		SKIP(return, "this kernel has no cgroups to freeze");
	ASSERT_EQ(-EINPROGRESS, agent_do(self->a, acquire, &arg));
	agent_pause(self->a, variant->cgroup);
	EXPECT_EQ(1, look(self->holder).waiters);
	ASSERT_EQ(0, release(self->holder));
	holder = look(self->holder).holder;
	EXPECT_STREQ("paused", holder.job);
	EXPECT_EQ(TLOCK_UNFETCHED, holder.flags);
	agent_resume(self->a, variant->cgroup);
	EXPECT_EQ(0, agent_do(self->a, acquire, &arg));
	EXPECT_EQ(holder.token, arg.token);
	EXPECT_EQ(0, agent_release(self->a));
}

/* Tickets order blocking and asynchronous requests alike. */
TEST_F(async, g2_fifo_of_a_mixture)
{
	struct tlock_acquire args[12];
	struct call *calls[12];
	int fds[12], before = self->holder;
	char job[16];

	for (int i = 0; i < 12; i++) {
		snprintf(job, sizeof(job), "number %d", i);
		fds[i] = contender();
		if (i % 3)
			args[i] = start_acquire(fds[i], i % 2 ? LONG : FOREVER,
						job);
		else
			calls[i] = call(fds[i], acquire, FOREVER, job);
		ASSERT_TRUE(await_waiters(self->c, i + 1));
	}
	for (int i = 0; i < 12; i++) {
		snprintf(job, sizeof(job), "number %d", i);
		ASSERT_EQ(0, release(before));
		EXPECT_STREQ(job, look(self->c).holder.job);
		EXPECT_EQ(self->token + 1 + i, look(self->c).holder.token);
		/* Those behind see nothing of it */
		for (int j = i + 1; j < 12; j++) {
			EXPECT_STREQ("waiting", state_of(fds[j], NULL));
		}
		if (i % 3) {
			ASSERT_EQ(0, finish(fds[i], &args[i]));
			EXPECT_EQ(self->token + 1 + i, args[i].token);
		} else {
			ASSERT_EQ(0, result(calls[i]));
			EXPECT_EQ(self->token + 1 + i, calls[i]->arg->token);
		}
		before = fds[i];
	}
	ASSERT_EQ(0, release(before));
	for (int i = 0; i < 12; i++)
		close(fds[i]);
}

/* A grant that nobody has fetched is one: newcomers do not overtake. */
TEST_F(async, g2_unfetched_is_held)
{
	struct tlock_acquire arg = start_acquire(self->c, FOREVER, "c");
	struct tlock_acquire try = ask(0, "try"), second;

	ASSERT_EQ(0, release(self->holder));
	for (int i = 0; i < 100; i++) {
		ASSERT_EQ(-ETIMEDOUT, acquire(self->other, &try));
		ASSERT_EQ(-EWOULDBLOCK, flock_try(self->other, NULL));
	}
	second = start_acquire(self->other, FOREVER, "other");
	usleep(50000);
	EXPECT_STREQ("c", look(self->c).holder.job);
	ASSERT_EQ(0, finish(self->c, &arg));
	ASSERT_EQ(0, release(self->c));
	ASSERT_EQ(0, finish(self->other, &second));
	EXPECT_EQ(arg.token + 1, second.token);
	EXPECT_EQ(0, release(self->other));
}

/*
 * The first waiter has the lock before the call returns, and the caller waits
 * behind those who waited and ahead of those who come later.
 */
TEST_F(async, g4_reacquire)
{
	struct tlock_acquire first, yielder, later;
	struct call *second;
	int fd = contender();

	first = start_acquire(self->c, FOREVER, "first");
	second = call(self->other, acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->c, 2));
	yielder = start_reacquire(self->holder, FOREVER, "");
	EXPECT_LT(first.ticket, yielder.ticket);
	EXPECT_STREQ("first", look(self->c).holder.job);
	EXPECT_EQ(self->token + 1, look(self->c).holder.token);
	EXPECT_EQ(self->before.yielded + 1, look(self->c).yielded);
	EXPECT_STREQ("waiting", state_of(self->holder, NULL));
	later = start_acquire(fd, FOREVER, "later");

	ASSERT_EQ(0, finish(self->c, &first));
	ASSERT_EQ(0, release(self->c));
	ASSERT_EQ(0, result(second));
	ASSERT_EQ(0, release(self->other));
	EXPECT_EQ(0, events_of(fd));
	/* Either call goes on with it */
	EXPECT_EQ(0, reacquire(self->holder, &yielder));
	EXPECT_EQ(self->token + 3, yielder.token);
	EXPECT_STREQ("holder", look(self->c).holder.job);
	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, reacquire(fd, &later));
	EXPECT_EQ(self->token + 4, later.token);
	ASSERT_EQ(0, release(fd));
	close(fd);
}

TEST_F(async, g4_reacquire_with_a_timeout)
{
	struct tlock_acquire first, yielder;

	first = start_acquire(self->c, FOREVER, "first");
	yielder = start_reacquire(self->holder, MSEC, "new");
	EXPECT_EQ(-ETIMEDOUT, finish(self->holder, &yielder));
	EXPECT_STREQ("first", yielder.holder.job);
	EXPECT_STREQ("idle", state_of(self->holder, NULL));
	EXPECT_EQ(-EPERM, release(self->holder));

	/* With timeout 0 it lets in whoever waits, and does not wait itself */
	ASSERT_EQ(0, finish(self->c, &first));
	first = start_acquire(self->holder, FOREVER, "second");
	yielder = ask_async(0, "");
	EXPECT_EQ(-ETIMEDOUT, reacquire(self->c, &yielder));
	EXPECT_EQ(0, yielder.ticket);
	EXPECT_STREQ("second", yielder.holder.job);
	EXPECT_EQ(TLOCK_UNFETCHED, yielder.holder.flags);
	EXPECT_EQ(0, release(self->holder));
}

/* A request that was away returns to its place ahead of asynchronous ones. */
TEST_F(async, g9_away_among_asynchronous)
{
	struct tlock_acquire later;
	struct call *away;

	handle_usr1(0);
	away = call(self->other, acquire, FOREVER, "away");
	ASSERT_TRUE(await_waiters(self->c, 1));
	send_signal(away, SIGUSR1);
	ASSERT_EQ(-EINTR, result(away));
	later = start_acquire(self->c, FOREVER, "later");
	EXPECT_LT(away->arg->ticket, later.ticket);
	away = call_with(self->other, acquire, away->arg);
	ASSERT_TRUE(await_waiters(self->c, 2));
	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, result(away));
	EXPECT_STREQ("waiting", state_of(self->c, NULL));
	ASSERT_EQ(0, release(self->other));
	ASSERT_EQ(0, finish(self->c, &later));
	EXPECT_EQ(0, release(self->c));
}

/* What is wrong with a call does not touch the request. */
TEST_F(async, errors_leave_a_request_alone)
{
	static const char *const states[] = { "waiting", "decided", "decided" };
	struct tlock_acquire arg = start_acquire(self->c, FOREVER, "c"), bad;
	struct tlock_status before, after;

	for (int i = 0; i < 3; i++) {
		if (i == 1) {
			ASSERT_EQ(0, release(self->holder));
		}
		if (i == 2) {
			ASSERT_EQ(0, release(self->c));
			take(self->holder, "holder");
			arg = start_acquire(self->c, 1, "c");
			ASSERT_TRUE(await_state(self->c, "decided"));
		}
		before = look(self->c);
		EXPECT_EQ(-EFAULT, acquire(self->c, NULL));
		EXPECT_EQ(-EFAULT, reacquire(self->c, NULL));
		bad = arg;
		bad.flags |= TLOCK_RENEW;
		EXPECT_EQ(-EINVAL, acquire(self->c, &bad));
		EXPECT_EQ(-EINVAL, reacquire(self->c, &bad));
		bad = arg;
		bad.reserved[0] = 1;
		EXPECT_EQ(-EINVAL, reacquire(self->c, &bad));
		bad = arg;
		bad.job[0] = '\n';
		EXPECT_EQ(-EINVAL, acquire(self->c, &bad));
		/* A wrong ticket comes before the wrong flag */
		bad = arg;
		bad.ticket--;
		bad.flags = 0;
		EXPECT_EQ(-ECANCELED, acquire(self->c, &bad));
		EXPECT_EQ(0, bad.ticket);
		bad = arg;
		bad.flags = 0;
		EXPECT_EQ(-EINVAL, acquire(self->c, &bad));
		EXPECT_EQ(arg.ticket, bad.ticket);
		EXPECT_STREQ(states[i], state_of(self->c, NULL));
		after = look(self->c);
		EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	}
	EXPECT_EQ(-ETIMEDOUT, acquire(self->c, &arg));
	EXPECT_EQ(0, release(self->holder));
}

/*
 * A grant that nobody has fetched lasts past its deadline, or its process, only
 * until somebody else wants the lock.
 */
FIXTURE(expiry)
{
	int holder;
	int c;			/* has the grant */
	int wanter;
	struct tlock_acquire arg;
	struct call *call;	/* of a wanter that waits already */
	struct tlock_acquire async;
	__s64 end;		/* of the grant */
};

FIXTURE_VARIANT(expiry)
{
	bool dies;		/* the process, before the deadline */
	bool waits;		/* the wanter came before the end */
	bool later;		/* but after the grant */
	int (*fn)(int fd, struct tlock_acquire *arg);
	__s64 timeout_ns;
	bool async;
};

#define EXPIRY(name, _fn, ...)						\
FIXTURE_VARIANT_ADD(expiry, deadline_##name)				\
{									\
	.fn = _fn,							\
	__VA_ARGS__							\
};									\
FIXTURE_VARIANT_ADD(expiry, death_##name)				\
{									\
	.dies = true,							\
	.fn = _fn,							\
	__VA_ARGS__							\
};

EXPIRY(then_a_try, acquire)
EXPIRY(then_an_asynchronous_try, acquire, .async = true)
EXPIRY(then_flock_nb, flock_try)
EXPIRY(then_an_acquire, acquire, .timeout_ns = FOREVER)
EXPIRY(then_flock, flock_wait, .timeout_ns = FOREVER)
EXPIRY(then_an_asynchronous_acquire, acquire, .timeout_ns = FOREVER,
       .async = true)
EXPIRY(before_it_an_acquire, acquire, .timeout_ns = FOREVER, .waits = true)
EXPIRY(before_it_flock, flock_wait, .timeout_ns = FOREVER, .waits = true)
EXPIRY(before_it_an_asynchronous_acquire, acquire, .timeout_ns = FOREVER,
       .async = true, .waits = true)
EXPIRY(before_it_a_later_acquire, acquire, .timeout_ns = FOREVER,
       .waits = true, .later = true)
EXPIRY(before_it_a_later_asynchronous_acquire, acquire, .timeout_ns = FOREVER,
       .async = true, .waits = true, .later = true)

/* Makes the wanter ask. */
static void want(FIXTURE_DATA(expiry) *self,
		 const FIXTURE_VARIANT(expiry) *variant)
{
	static struct tlock_acquire arg;

	if (variant->async && variant->waits) {
		self->async = start_acquire(self->wanter, FOREVER, "wanter");
		return;
	}
	arg = ask(variant->timeout_ns, "wanter");
	if (variant->async)
		arg.flags = TLOCK_ASYNC;
	self->call = call_with(self->wanter, variant->fn, &arg);
}

/* Makes an unfetched grant. False: the request failed before its grant */
static bool grant_unfetched(FIXTURE_DATA(expiry) *self,
			    const FIXTURE_VARIANT(expiry) *variant,
			    struct agent *a, __s64 timeout_ns)
{
	self->arg = ask_async(timeout_ns, "c");
	take(self->holder, "holder");
	self->end = now() + timeout_ns;
	if (a ? agent_do(a, acquire, &self->arg) != -EINPROGRESS :
		acquire(self->c, &self->arg) != -EINPROGRESS)
		die("a request does not wait");
	if (variant->waits && !variant->later) {
		/* c's own request may have ended by now */
		want(self, variant);
		if (!await_busy(self->wanter))
			die("nobody waits");
	}
	if (release(self->holder))
		die("the holder does not hold the lock");
	if (variant->later) {
		want(self, variant);
		if (!await_busy(self->wanter))
			die("nobody waits");
	}
	if (!strcmp(look(self->holder).holder.job, "c") &&
	    (a || now() < self->end))
		return true;
	/* Too slow: begin again */
	release(self->c);
	release(self->wanter);
	if (self->call)
		result(self->call);
	release(self->wanter);
	return false;
}

FIXTURE_SETUP(expiry)
{
	__s64 timeout_ns = 100 * MSEC;
	struct agent *a = NULL;

	self->holder = contender();
	self->c = contender();
	self->wanter = contender();
	ASSERT_FREE(self->c);
	if (variant->dies) {
		a = agent_sharing(self->c);
		ASSERT_TRUE(grant_unfetched(self, variant, a, FOREVER));
		self->end = now();
		agent_kill(a);
	} else {
		while (!grant_unfetched(self, variant, NULL, timeout_ns))
			timeout_ns *= 2;
	}
}

FIXTURE_TEARDOWN(expiry)
{
	close(self->holder);
	close(self->c);
	close(self->wanter);
	EXPECT_LEFT_FREE();
}

TEST_F(expiry, g2_ends_when_somebody_wants_it)
{
	struct tlock_status before;
	__s64 since, wanted = self->end;
	__u64 timed_out;
	int ret = 0;

	if (!variant->waits) {
		/* Nobody wants the lock: the grant stays */
		while (now() < self->end + 10 * MSEC)
			;
		before = look(self->holder);
		EXPECT_STREQ("c", before.holder.job);
		EXPECT_EQ(TLOCK_UNFETCHED, before.holder.flags);
		EXPECT_EQ(variant->dies ? 0 : getpid(), before.holder.pid);
		EXPECT_STREQ("decided", state_of(self->c, NULL));
		wanted = now();
		timed_out = before.timed_out;
		want(self, variant);
		ret = result(self->call);
		ASSERT_EQ(0, ret);
		EXPECT_EQ(before.acquired + 1, look(self->holder).acquired);
		EXPECT_EQ(timed_out + 1, look(self->holder).timed_out);
	} else if (variant->async) {
		ASSERT_EQ(0, finish(self->wanter, &self->async));
	} else {
		ASSERT_EQ(0, result(self->call));
	}

	/*
	 * Not early, and soon: noticing a death may take a second, and the
	 * machine may be busy
	 */
	before = look(self->holder);
	since = before.holder.since_ns;
	EXPECT_STREQ(variant->fn == acquire ? "wanter" : "", before.holder.job);
	EXPECT_EQ(0, before.holder.flags);
	EXPECT_LE(wanted, since);
	EXPECT_GE(wanted + (variant->dies ? 2 * SEC : 700 * MSEC), since);

	/* Who comes too late learns who has the lock */
	EXPECT_STREQ("decided", state_of(self->c, NULL));
	EXPECT_EQ(POLLOUT, events_of(self->c));
	ASSERT_EQ(-ETIMEDOUT, acquire(self->c, &self->arg));
	EXPECT_EQ(0, self->arg.ticket);
	EXPECT_EQ(before.holder.token, self->arg.holder.token);
	EXPECT_STREQ(before.holder.job, self->arg.holder.job);
	EXPECT_EQ(getpid(), self->arg.holder.pid);
	EXPECT_EQ(variant->waits && variant->async ? TLOCK_UNFETCHED : 0,
		  self->arg.holder.flags);
	if (!variant->dies) {
		EXPECT_EQ(0, self->arg.timeout_ns);
	}
	EXPECT_EQ(-EPERM, release(self->c));
	EXPECT_EQ(0, release(self->wanter));
}

/* Until then, it can be fetched as usual, and is then a grant like any other. */
TEST_F(expiry, g2_fetched_late)
{
	struct tlock_acquire arg;

	if (variant->waits) {
		/* Somebody waits: nobody could be sure to fetch it */
		release(self->c);
		if (!variant->async)
			result(self->call);
		release(self->wanter);
		return;
	}
	while (now() < self->end + MSEC)
		;
	ASSERT_EQ(0, acquire(self->c, &self->arg));
	EXPECT_EQ(look(self->c).holder.token, self->arg.token);
	EXPECT_EQ(0, look(self->c).holder.flags);
	arg = ask(0, "try");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->wanter, &arg));
	arg = ask(50 * MSEC, "waits");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->wanter, &arg));
	EXPECT_EQ(self->arg.token, arg.holder.token);
	EXPECT_EQ(0, release(self->c));
}

/* A process may have its grant for a while, and end only then. */
TEST_F(async, g2_ends_later)
{
	struct tlock_acquire arg = ask_async(FOREVER, "mortal");
	struct agent *a = agent_sharing(self->other);
	__s64 ended;

	ASSERT_EQ(-EINPROGRESS, agent_do(a, acquire, &arg));
	arg = start_acquire(self->c, FOREVER, "c");
	ASSERT_EQ(0, release(self->holder));
	usleep(1300000);
	EXPECT_STREQ("mortal", look(self->c).holder.job);
	ended = now();
	agent_kill(a);
	ASSERT_EQ(0, finish(self->c, &arg));
	EXPECT_GE(ended + 2 * SEC, look(self->c).holder.since_ns);
	EXPECT_EQ(0, release(self->other));
	EXPECT_EQ(0, release(self->c));
}

/*
 * A chain of requests of a process that has ended, all on files that live on:
 * each gets the lock and loses it again.
 */
#define MANY	1000

TEST_F(async, g2_many_of_an_ended_process)
{
	static int fds[MANY];
	struct tlock_acquire live, arg;
	__s64 released;
	pid_t child;
	int ended = 0;

	allow_files(3 * MANY);
	for (int i = 0; i < MANY; i++)
		fds[i] = contender();
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		for (int i = 0; i < MANY; i++)
			start_acquire(fds[i], FOREVER, "ended");
		_exit(0);
	}
	ASSERT_EQ(child, waitpid(child, NULL, 0));
	live = start_acquire(self->c, FOREVER, "live");
	EXPECT_EQ(MANY + 1, look(self->c).waiters);
	released = now();
	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, finish(self->c, &live));
	TH_LOG("%d grants ended within %lld us", MANY,
	       (look(self->c).holder.since_ns - released) / USEC);
	EXPECT_GE(released + PATIENCE, look(self->c).holder.since_ns);
	EXPECT_EQ(self->token + MANY + 1, live.token);
	EXPECT_EQ(self->before.abandoned, look(self->c).abandoned);
	EXPECT_EQ(self->before.timed_out + MANY, look(self->c).timed_out);
	for (int i = 0; i < MANY; i++) {
		/* All have failed: the token is that of the one behind */
		if (i == MANY / 2) {
			__u64 ticket;

			ASSERT_STREQ("decided", state_of(fds[i], &ticket));
			arg = ask_async(0, "");
			arg.ticket = ticket;
			EXPECT_EQ(-ETIMEDOUT, acquire(fds[i], &arg));
			EXPECT_EQ(self->token + i + 2, arg.holder.token);
			ended++;
		} else {
			ended += !release(fds[i]);
		}
		close(fds[i]);
	}
	EXPECT_EQ(MANY, ended);
	EXPECT_EQ(0, release(self->c));
}

/* In an agent */
static int start_many(int fd, struct tlock_acquire *arg)
{
	allow_files(3 * MANY);
	for (int i = 0; i < MANY; i++)
		start_acquire(contender(), FOREVER, "mortal");
	return 0;
}

/* A process that dies with many requests, one of which was perhaps granted */
TEST_F(async, g6_death_with_many_requests)
{
	struct tlock_acquire arg;
	struct agent *a;

	for (int granted = 0; granted < 2; granted++) {
		a = agent();
		ASSERT_EQ(0, agent_do(a, start_many, NULL));
		arg = start_acquire(self->c, FOREVER, "survivor");
		EXPECT_EQ(MANY + 1, look(self->c).waiters);
		if (granted) {
			ASSERT_EQ(0, release(self->holder));
			EXPECT_STREQ("mortal", look(self->c).holder.job);
		}
		agent_kill(a);
		if (!granted) {
			EXPECT_EQ(1, look(self->c).waiters);
			EXPECT_STREQ("waiting", state_of(self->c, NULL));
			ASSERT_EQ(0, release(self->holder));
		}
		ASSERT_EQ(0, finish(self->c, &arg));
		EXPECT_EQ(0, arg.result);
		EXPECT_EQ(0, look(self->c).waiters);
		ASSERT_EQ(0, release(self->c));
		EXPECT_EQ(self->before.abandoned, look(self->c).abandoned);
		take(self->holder, "holder");
	}
	EXPECT_EQ(0, release(self->holder));
}

/*
 * The holder died, and its successor's grant is not fetched yet. Whatever
 * becomes of that grant, exactly one call returns TLOCK_ABANDONED.
 */
FIXTURE(inherited)
{
	int c;
	int next;
	struct tlock_acquire arg;
	__u64 abandoned;
};

FIXTURE_VARIANT(inherited)
{
	bool waits;		/* the next contender */
};

FIXTURE_VARIANT_ADD(inherited, by_a_newcomer)
{
};

FIXTURE_VARIANT_ADD(inherited, by_a_waiter)
{
	.waits = true,
};

FIXTURE_SETUP(inherited)
{
	int mortal = contender();

	self->c = contender();
	self->next = contender();
	ASSERT_FREE(self->c);
	take(mortal, "mortal");
	self->arg = start_acquire(self->c, FOREVER, "c");
	close(mortal);
	ASSERT_STREQ("decided", state_of(self->c, NULL));
	self->abandoned = look(self->c).abandoned;
}

FIXTURE_TEARDOWN(inherited)
{
	close(self->c);
	close(self->next);
	EXPECT_LEFT_FREE();
}

/* The statement ends c's grant; the next one learns of the death. */
#define EXPECT_INHERITED(by, statement) do {				\
	struct tlock_acquire __arg = ask_async(FOREVER, "next");	\
									\
	if (variant->waits)						\
		__arg = start_acquire(self->next, FOREVER, "next");	\
	statement;							\
	ASSERT_EQ(0, variant->waits ? finish(self->next, &__arg) :	\
				      acquire(self->next, &__arg));	\
	EXPECT_EQ(by, __arg.result);					\
	EXPECT_EQ(0, release(self->next));				\
	/* It is reported only once, and nobody else died */		\
	take(self->next, "last");					\
	EXPECT_EQ(self->abandoned, look(self->next).abandoned);		\
	EXPECT_EQ(0, release(self->next));				\
} while (0)

TEST_F(inherited, g6_fetched)
{
	EXPECT_INHERITED(0, {
		ASSERT_EQ(0, acquire(self->c, &self->arg));
		EXPECT_EQ(TLOCK_ABANDONED, self->arg.result);
		ASSERT_EQ(0, release(self->c));
	});
}

TEST_F(inherited, g11_withdrawn)
{
	EXPECT_INHERITED(TLOCK_ABANDONED, ASSERT_EQ(0, release(self->c)));
}

TEST_F(inherited, g11_closed)
{
	EXPECT_INHERITED(TLOCK_ABANDONED, ASSERT_EQ(0, close(self->c)));
}

/* The grant passes on to a process that then ends, too. */
TEST_F(inherited, g11_expired)
{
	struct tlock_acquire arg = ask_async(FOREVER, "mortal");
	struct agent *a = agent_sharing(self->next);

	ASSERT_EQ(-EINPROGRESS, agent_do(a, acquire, &arg));
	ASSERT_EQ(0, release(self->c));
	ASSERT_STREQ("mortal", look(self->c).holder.job);
	if (variant->waits) {
		arg = start_acquire(self->c, FOREVER, "c");
		agent_kill(a);
		ASSERT_EQ(0, finish(self->c, &arg));
	} else {
		agent_kill(a);
		arg = ask_async(FOREVER, "c");
		ASSERT_EQ(0, acquire(self->c, &arg));
	}
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(self->abandoned, look(self->c).abandoned);
	EXPECT_EQ(0, release(self->next));
	EXPECT_EQ(0, release(self->c));
}

TEST_F(async, g6_closed_unfetched_is_no_abandonment)
{
	struct tlock_acquire arg;

	start_acquire(self->c, FOREVER, "c");
	ASSERT_EQ(0, release(self->holder));
	ASSERT_STREQ("decided", state_of(self->c, NULL));
	close(self->c);
	arg = ask(0, "next");
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(self->before.abandoned, look(self->other).abandoned);
	ASSERT_EQ(0, release(self->other));

	/* But once it was fetched, it is one */
	self->c = contender();
	take(self->holder, "holder");
	arg = start_acquire(self->c, FOREVER, "c");
	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, finish(self->c, &arg));
	close(self->c);
	self->c = contender();
	arg = ask(0, "next");
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(self->before.abandoned + 1, look(self->other).abandoned);
	EXPECT_EQ(0, release(self->other));
}

/* Nor does an earlier use with flock(2) make closing harmless. */
TEST_F(async, g6_flock_before)
{
	struct tlock_acquire arg;

	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, flock_try(self->c, NULL));
	ASSERT_EQ(0, flock_end(self->c, NULL));
	take(self->holder, "holder");
	arg = start_acquire(self->c, FOREVER, "c");
	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, finish(self->c, &arg));
	close(self->c);
	self->c = contender();
	arg = ask(0, "next");
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(self->other));
}

/* A lock is deleted soon after somebody waited for an unfetched grant to end. */
TEST_F(async, deleted)
{
	const char *name = "expiring";
	int fds[3];

	for (int round = 0; round < 3; round++) {
		ASSERT_EQ(0, write_text("/sys/class/tlock/new_lock", name));
		for (int i = 0; i < 3; i++) {
			fds[i] = open("/dev/tlock-expiring", O_RDWR | O_CLOEXEC);
			ASSERT_LE(0, fds[i]);
		}
		take(fds[0], "holder");
		start_acquire(fds[1], FOREVER, "unfetched");
		start_acquire(fds[2], FOREVER, "waiter");
		ASSERT_EQ(0, release(fds[0]));
		for (int i = 2; i >= 0; i--)
			close(fds[i]);
		ASSERT_EQ(0, write_text("/sys/class/tlock/delete_lock", name));
	}
	EXPECT_EQ(0, release(self->holder));
}

/* Two threads, or two processes, on one file */

TEST_F(async, g7_another_thread)
{
	struct tlock_acquire arg = start_acquire(self->c, FOREVER, "c"), copy;
	struct call *thread;

	thread = call(self->c, acquire, FOREVER, "thread");
	EXPECT_EQ(-EBUSY, result(thread));
	ASSERT_EQ(0, release(self->holder));
	copy = arg;
	thread = call_with(self->c, acquire, &copy);
	EXPECT_EQ(0, result(thread));
	EXPECT_EQ(-ECANCELED, acquire(self->c, &arg));
	EXPECT_EQ(0, release(self->c));
}

TEST_F(async, g7_fork)
{
	struct tlock_acquire arg = start_acquire(self->c, FOREVER, "parent");
	struct agent *child = agent_sharing(self->c);
	struct tlock_acquire copy = arg;

	/* It is the file's request: the child can do all that its parent can */
	EXPECT_EQ(-EINPROGRESS, agent_do(child, acquire, &copy));
	/* And its end ends nothing */
	agent_kill(child);
	EXPECT_STREQ("waiting", state_of(self->c, NULL));
	child = agent_sharing(self->c);
	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, agent_do(child, acquire, &copy));
	EXPECT_EQ(-ECANCELED, acquire(self->c, &arg));
	/* The one who asked is shown */
	EXPECT_EQ(getpid(), look(self->c).holder.pid);
	EXPECT_EQ(0, agent_release(child));

	/* A parent that closes its own descriptor only */
	take(self->holder, "holder");
	arg = start_acquire(self->c, FOREVER, "parent");
	close(self->c);
	self->c = contender();
	EXPECT_EQ(1, look(self->c).waiters);
	EXPECT_EQ(0, agent_release(child));
	EXPECT_EQ(0, look(self->c).waiters);
	EXPECT_EQ(0, release(self->holder));
}

TEST_F(async, g11_closed_while_it_waits)
{
	struct tlock_acquire arg;

	start_acquire(self->c, FOREVER, "c");
	arg = start_acquire(self->other, FOREVER, "other");
	close(self->c);
	self->c = contender();
	EXPECT_EQ(1, look(self->c).waiters);
	ASSERT_EQ(0, release(self->holder));
	ASSERT_EQ(0, finish(self->other, &arg));
	EXPECT_EQ(self->token + 1, arg.token);
	EXPECT_EQ(0, release(self->other));
}

TEST_F(async, counters)
{
	struct tlock_status before = self->before, after;
	struct tlock_acquire arg;

	/* A grant after a wait */
	arg = start_acquire(self->c, FOREVER, "c");
	after = look(self->c);
	EXPECT_EQ(before.contended + 1, after.contended);
	EXPECT_EQ(before.wait_ns_total, after.wait_ns_total);
	usleep(3000);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(-EINPROGRESS, acquire(self->c, &arg));
	}
	ASSERT_EQ(0, release(self->holder));
	after = look(self->c);
	EXPECT_EQ(before.contended + 1, after.contended);
	EXPECT_EQ(before.acquired + 1, after.acquired);
	EXPECT_LE(before.wait_ns_total + 3 * MSEC, after.wait_ns_total);
	EXPECT_LE(3 * MSEC, after.wait_ns_max);
	/* The wait has ended: the fetch does not count */
	before = after;
	usleep(2000);
	ASSERT_EQ(0, finish(self->c, &arg));
	after = look(self->c);
	EXPECT_EQ(before.wait_ns_total, after.wait_ns_total);
	EXPECT_EQ(before.acquired, after.acquired);
	/* But the lock is held all the time */
	ASSERT_EQ(0, release(self->c));
	after = look(self->c);
	EXPECT_LE(before.hold_ns_total + 2 * MSEC, after.hold_ns_total);

	/* A deadline, and its fetch */
	take(self->holder, "holder");
	before = look(self->c);
	arg = start_acquire(self->c, 2 * MSEC, "c");
	ASSERT_TRUE(await_state(self->c, "decided"));
	after = look(self->c);
	EXPECT_EQ(before.timed_out + 1, after.timed_out);
	EXPECT_EQ(before.contended + 1, after.contended);
	EXPECT_EQ(before.acquired, after.acquired);
	EXPECT_LE(before.wait_ns_total + 2 * MSEC, after.wait_ns_total);
	EXPECT_EQ(-ETIMEDOUT, acquire(self->c, &arg));
	EXPECT_EQ(after.timed_out, look(self->c).timed_out);
	EXPECT_EQ(after.wait_ns_total, look(self->c).wait_ns_total);

	/* A withdrawal */
	before = look(self->c);
	start_acquire(self->c, FOREVER, "c");
	usleep(2000);
	ASSERT_EQ(0, release(self->c));
	after = look(self->c);
	EXPECT_LE(before.wait_ns_total + 2 * MSEC, after.wait_ns_total);
	EXPECT_EQ(before.timed_out, after.timed_out);

	/* A close */
	before = after;
	start_acquire(self->c, FOREVER, "c");
	usleep(2000);
	close(self->c);
	self->c = contender();
	after = look(self->c);
	EXPECT_LE(before.wait_ns_total + 2 * MSEC, after.wait_ns_total);

	/* A reacquire is not contended */
	before = after;
	start_acquire(self->c, FOREVER, "c");
	start_reacquire(self->holder, FOREVER, "");
	after = look(self->c);
	EXPECT_EQ(before.contended + 1, after.contended);
	EXPECT_EQ(before.yielded + 1, after.yielded);
	EXPECT_EQ(0, release(self->holder));
	EXPECT_EQ(0, release(self->c));
	EXPECT_EQ(self->before.interrupted, look(self->c).interrupted);
	EXPECT_EQ(self->before.abandoned, look(self->c).abandoned);
}

/* Races, one by one. Each thread spins until its time has come. */

static int release_at(int fd, struct tlock_acquire *arg)
{
	while (now() < arg->timeout_ns)
		;
	return release(fd);
}

static int acquire_at(int fd, struct tlock_acquire *arg)
{
	__s64 at = (__s64)arg->holder.token;

	while (now() < at)
		;
	return acquire(fd, arg);
}

/*
 * The deadline, a grant and perhaps a withdrawal, at about the same time: each
 * request has one outcome, and poll(2) tells of it.
 */
FIXTURE_VARIANT(race)
{
	bool withdraws;
	bool wanted;		/* another contender waits behind */
};

FIXTURE(race)
{
	int holder;
	int c;
	int other;
};

FIXTURE_VARIANT_ADD(race, of_deadline_and_grant)
{
};

FIXTURE_VARIANT_ADD(race, of_deadline_grant_and_withdrawal)
{
	.withdraws = true,
};

FIXTURE_VARIANT_ADD(race, of_deadline_grant_and_waiter)
{
	.wanted = true,
};

FIXTURE_VARIANT_ADD(race, of_all)
{
	.withdraws = true,
	.wanted = true,
};

FIXTURE_SETUP(race)
{
	self->holder = contender();
	self->c = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
}

FIXTURE_TEARDOWN(race)
{
	close(self->holder);
	close(self->c);
	close(self->other);
	EXPECT_LEFT_FREE();
}

#define RACE_TIME	(3 * SEC)
#define MARGIN		(300 * USEC)

TEST_F(race, g11_one_outcome)
{
	int rounds = 0, granted = 0, expired = 0, failed = 0, withdrawn = 0;
	__s64 end = now() + RACE_TIME, begun, timeout, at;
	struct tlock_acquire arg, copy, when, behind;
	struct call *releaser;
	unsigned int seed = 1;
	__u64 acquired;
	int ret;

	while (now() < end) {
		rounds++;
		take(self->holder, "holder");
		timeout = 2 * MSEC;
		acquired = look(self->c).acquired;
		begun = now();
		arg = start_acquire(self->c, timeout, "c");
		if (variant->wanted)
			behind = start_acquire(self->other, FOREVER, "other");
		at = begun + timeout;
		when = ask(at - MARGIN + rand_r(&seed) % (2 * MARGIN), "");
		releaser = call_with(self->holder, release_at, &when);
		if (variant->withdraws && rand_r(&seed) % 2) {
			at += -MARGIN + rand_r(&seed) % (2 * MARGIN);
			while (now() < at)
				;
			copy = arg;
			ASSERT_EQ(0, release(self->c));
			ASSERT_STREQ("idle", state_of(self->c, NULL));
			ASSERT_EQ(-EPERM, release(self->c));
			ASSERT_EQ(-ECANCELED, acquire(self->c, &copy));
			ASSERT_EQ(0, copy.ticket);
			withdrawn++;
		} else {
			ret = finish(self->c, &arg);
			ASSERT_EQ(0, arg.ticket);
			if (!ret) {
				ASSERT_EQ(look(self->c).holder.token, arg.token);
				ASSERT_EQ(0, look(self->c).holder.flags);
				ASSERT_EQ(0, release(self->c));
				granted++;
			} else {
				ASSERT_EQ(-ETIMEDOUT, ret);
				ASSERT_LE(timeout, now() - begun);
				ASSERT_NE(0, arg.holder.token);
				if (!strcmp(arg.holder.job, "other"))
					expired++;
				else
					failed++;
			}
		}
		ASSERT_EQ(0, result(releaser));
		if (variant->wanted) {
			ASSERT_EQ(0, finish(self->other, &behind));
			ASSERT_EQ(0, release(self->other));
		}
		ASSERT_EQ(0, look(self->c).holder.token);
		ASSERT_EQ(0, look(self->c).waiters);
		ASSERT_GE(acquired + 2, look(self->c).acquired);
	}
	TH_LOG("%d requests: %d granted, %d expired, %d failed, %d withdrawn",
	       rounds, granted, expired, failed, withdrawn);
}

/* Two calls fetch the same grant: one of them gets it. */
TEST_F(race, g11_two_fetch)
{
	struct tlock_acquire arg, first, second;
	__s64 end = now() + RACE_TIME / 4;
	struct call *thread;
	int ret;

	while (now() < end) {
		take(self->holder, "holder");
		arg = start_acquire(self->c, FOREVER, "c");
		ASSERT_EQ(0, release(self->holder));
		first = arg;
		second = arg;
		first.holder.token = now() + MSEC / 2;
		second.holder.token = first.holder.token;
		thread = call_with(self->c, acquire_at, &first);
		ret = acquire_at(self->c, &second);
		ASSERT_EQ(-ECANCELED, ret + result(thread));
		ASSERT_EQ(0, release(self->c));
	}
}

/*
 * A timer runs on the CPU on which it was started. To meet it, go to another
 * one.
 */
static void go_to_cpu(int cpu)
{
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		run_on(0, cpu);
}

/* The file is closed when the deadline comes, or the grant. */
TEST_F(race, g11_closed)
{
	__s64 end = now() + RACE_TIME / 2, at;
	struct tlock_acquire when;
	struct call *releaser;
	unsigned int seed = 2;

	while (now() < end) {
		take(self->holder, "holder");
		go_to_cpu(0);
		at = now() + MSEC;
		start_acquire(self->c, MSEC, "c");
		go_to_cpu(1);
		when = ask(at + rand_r(&seed) % MARGIN, "");
		releaser = call_with(self->holder, release_at, &when);
		at += rand_r(&seed) % MARGIN;
		while (now() < at)
			;
		ASSERT_EQ(0, close(self->c));
		ASSERT_EQ(0, result(releaser));
		self->c = contender();
		ASSERT_EQ(0, look(self->c).holder.token);
		ASSERT_EQ(0, look(self->c).waiters);
	}
}

/* The file is closed, and then the lock is deleted, when the deadline comes. */
TEST_F(race, deleted)
{
	static const char name[] = "closing";
	unsigned int seed = 4;
	int holder, fd;
	__s64 at;

	for (int round = 0; round < 30; round++) {
		ASSERT_EQ(0, lock_create(name));
		holder = contender_of(name);
		fd = contender_of(name);
		take(holder, "holder");
		go_to_cpu(0);
		at = now() + MSEC + rand_r(&seed) % MARGIN;
		start_acquire(fd, MSEC, "c");
		go_to_cpu(1);
		while (now() < at)
			;
		ASSERT_EQ(0, close(fd));
		ASSERT_EQ(0, close(holder));
		ASSERT_EQ(0, lock_delete(name));
	}
}

/*
 * A timer may come late, when its contender has another request already: that
 * one has its own deadline.
 */
TEST_F(race, g3_another_request_at_the_deadline)
{
	__s64 end = now() + RACE_TIME / 2, at;
	struct tlock_acquire arg;
	unsigned int seed = 3;

	take(self->holder, "holder");
	while (now() < end) {
		go_to_cpu(0);
		at = now() + MSEC;
		start_acquire(self->c, MSEC, "first");
		go_to_cpu(1);
		at += -MARGIN / 2 + rand_r(&seed) % MARGIN;
		while (now() < at)
			;
		ASSERT_EQ(0, release(self->c));
		arg = start_acquire(self->c, rand_r(&seed) % 2 ? LONG : FOREVER,
				    "second");
		usleep(200);
		ASSERT_EQ(-EINPROGRESS, acquire(self->c, &arg));
		ASSERT_EQ(0, events_of(self->c));
		ASSERT_EQ(0, release(self->c));
	}
	EXPECT_EQ(0, release(self->holder));
}

TEST_HARNESS_MAIN
