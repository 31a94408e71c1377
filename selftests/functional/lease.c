// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 12: a hung holder is not a deadlock either. A grant that has
 * expired lasts until somebody else wants the lock, and is then revoked. Here
 * the expiry is the end of a lease, which the holder has not renewed. (For
 * revocations by an operator see revoke.c, for what each call returns
 * afterwards states.c, for poll(2) poll.c, for a suspend interruptions.c.)
 */
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "tlock_test.h"

FIXTURE(lease)
{
	int c;			/* has the lease */
	int wanter;
	int other;
	struct tlock_status before;
};

FIXTURE_SETUP(lease)
{
	self->c = contender();
	self->wanter = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
	self->before = look(self->c);
}

FIXTURE_TEARDOWN(lease)
{
	close(self->c);
	close(self->wanter);
	close(self->other);
	EXPECT_LEFT_FREE();
}

/* How the counters changed: only by grants and by so many revocations */
#define EXPECT_REVOKED(n) do {						\
	struct tlock_status __now = look(self->c);			\
									\
	EXPECT_EQ(self->before.revoked + (n), __now.revoked);		\
	EXPECT_EQ(self->before.abandoned, __now.abandoned);		\
	EXPECT_EQ(self->before.timed_out, __now.timed_out);		\
	EXPECT_EQ(self->before.yielded, __now.yielded);			\
} while (0)

/*
 * Whoever wants the lock revokes a grant that has expired, by whatever call, and
 * whenever he came.
 */
FIXTURE(end)
{
	int c;
	int wanter;
	int other;
	struct call *call;	/* of the wanter */
	struct tlock_acquire arg;
	__s64 end;		/* the grant does not expire before */
	struct tlock_status before;
};

#define TIME	(100 * MSEC)

FIXTURE_VARIANT(end)
{
	bool grace;		/* it is a revocation's that ends, not a lease */
	enum {
		AFTER,		/* the end */
		BEFORE,		/* it was known when the end would be */
		MEANWHILE,
	} comes;		/* the wanter */
	int (*fn)(int fd, struct tlock_acquire *arg);
	__s64 timeout_ns;
	bool async;
};

#define END(name, _fn, ...)						\
FIXTURE_VARIANT_ADD(end, of_a_lease_##name)				\
{									\
	.fn = _fn,							\
	__VA_ARGS__							\
};									\
FIXTURE_VARIANT_ADD(end, of_a_grace_##name)				\
{									\
	.grace = true,							\
	.fn = _fn,							\
	__VA_ARGS__							\
};

END(then_a_try, acquire)
END(then_an_asynchronous_try, acquire, .async = true)
END(then_flock_nb, flock_try)
END(then_an_acquire, acquire, .timeout_ns = FOREVER)
END(then_an_acquire_with_timeout, acquire, .timeout_ns = LONG)
END(then_flock, flock_wait, .timeout_ns = FOREVER)
END(then_an_asynchronous_acquire, acquire, .timeout_ns = FOREVER,
    .async = true)
END(after_an_acquire, acquire, .timeout_ns = FOREVER, .comes = BEFORE)
END(after_flock, flock_wait, .timeout_ns = FOREVER, .comes = BEFORE)
END(after_an_asynchronous_acquire, acquire, .timeout_ns = FOREVER,
    .async = true, .comes = BEFORE)
END(in_an_acquire, acquire, .timeout_ns = LONG, .comes = MEANWHILE)
END(in_flock, flock_wait, .timeout_ns = FOREVER, .comes = MEANWHILE)
END(in_an_asynchronous_acquire, acquire, .timeout_ns = LONG, .async = true,
    .comes = MEANWHILE)

/* The wanter asks; with an asynchronous request, it also fetches the outcome. */
static int want_in_thread(int fd, struct tlock_acquire *arg)
{
	int ret = acquire(fd, arg);

	if (ret == -EINPROGRESS && await_events(fd, POLLOUT) == POLLOUT)
		ret = acquire(fd, arg);
	return ret;
}

static void want(FIXTURE_DATA(end) *self, const FIXTURE_VARIANT(end) *variant)
{
	self->arg = ask(variant->timeout_ns, "wanter");
	if (variant->async)
		self->arg.flags = TLOCK_ASYNC;
	self->call = call_with(self->wanter, variant->fn == acquire ?
			       want_in_thread : variant->fn, &self->arg);
	if (!await_busy(self->wanter))
		die("nobody wants the lock");
}

FIXTURE_SETUP(end)
{
	struct tlock_acquire arg = ask_lease(FOREVER, "c",
					     variant->grace ? 0 : TIME);
	struct call *c;

	self->c = contender();
	self->wanter = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
	self->before = look(self->c);
	/* A lease can be known beforehand only where the lock is handed over */
	take(self->other, "other");
	c = call_with(self->c, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->c, 1));
	if (variant->comes == BEFORE)
		want(self, variant);
	self->end = now() + TIME;
	ASSERT_EQ(0, release(self->other));
	ASSERT_EQ(0, result(c));
	if (variant->grace) {
		self->end = now() + TIME;
		ASSERT_EQ(0, revoke_grant(self->other, arg.token, TIME));
	}
	if (variant->comes == MEANWHILE)
		want(self, variant);
}

FIXTURE_TEARDOWN(end)
{
	close(self->c);
	close(self->wanter);
	close(self->other);
	EXPECT_LEFT_FREE();
}

TEST_F(end, g12_revoked_when_somebody_wants_it)
{
	__s64 wanted = self->end, since;
	struct tlock_holder holder, later;

	if (variant->comes == AFTER) {
		/* Nobody wants the lock: the grant stays */
		holder = look(self->c).holder;
		EXPECT_LE(self->end, holder.expires_ns);
		sleep_until(holder.expires_ns + 10 * MSEC);
		later = look(self->c).holder;
		EXPECT_EQ(0, memcmp(&holder, &later, sizeof(holder)));
		EXPECT_EQ(variant->grace ? TLOCK_REVOKING : TLOCK_LEASED,
			  holder.flags);
		EXPECT_STREQ("holding", state_of(self->c, NULL));
		EXPECT_EQ(POLLOUT, events_of(self->c));
		EXPECT_EQ(self->before.revoked, look(self->c).revoked);
		wanted = now();
		want(self, variant);
	}
	ASSERT_EQ(0, result(self->call));
	holder = look(self->c).holder;
	since = holder.since_ns;
	EXPECT_STREQ(variant->fn == acquire ? "wanter" : "", holder.job);
	EXPECT_EQ(0, holder.flags);
	EXPECT_EQ(0, holder.expires_ns);
	/* Never early; and soon, though the machine may be busy */
	EXPECT_LE(wanted, since);
	EXPECT_GE(wanted + 700 * MSEC, since);
	if (variant->fn == acquire) {
		EXPECT_EQ(TLOCK_REVOKED, self->arg.result);
		EXPECT_EQ(holder.token, self->arg.token);
	}
	EXPECT_EQ(self->before.acquired + 3, look(self->c).acquired);
	EXPECT_EQ(self->before.revoked + 1, look(self->c).revoked);
	EXPECT_EQ(self->before.abandoned, look(self->c).abandoned);
	EXPECT_EQ(self->before.timed_out, look(self->c).timed_out);
	EXPECT_LOST(self->c);
	EXPECT_EQ(holder.token, look(self->c).holder.token);
	EXPECT_EQ(0, release(self->wanter));
	/* Only the next call reports it; flock(2) could not */
	EXPECT_NEXT_LEARNS(variant->fn == acquire ? 0 : TLOCK_REVOKED,
			   self->other);
	EXPECT_NEXT_LEARNS(0, self->c);
}

/* Who waits no longer does not want the lock any more. */
TEST_F(lease, g12_wanted_before)
{
	struct tlock_acquire arg;
	struct tlock_holder holder;

	for (int i = 0; i < 2; i++) {
		/* Long enough for any host */
		take_lease(self->c, "c", i ? LONG : SEC);
		holder = look(self->c).holder;
		if (i) {
			ASSERT_EQ(0, revoke_grant(self->c, holder.token, SEC));
			holder = look(self->c).holder;
		}
		/* A timeout, and a withdrawal */
		arg = ask(MSEC, "wanter");
		ASSERT_EQ(-ETIMEDOUT, acquire(self->wanter, &arg));
		EXPECT_EQ(0, memcmp(&holder, &arg.holder, sizeof(holder)));
		start_acquire(self->wanter, FOREVER, "wanter");
		ASSERT_EQ(0, release(self->wanter));
		sleep_until(holder.expires_ns + 20 * MSEC);
		EXPECT_EQ(holder.token, look(self->c).holder.token);
		/* And the holder can end it as usual */
		ASSERT_EQ(0, release(self->c));
		EXPECT_NEXT_LEARNS(0, self->other);
	}
	EXPECT_EQ(self->before.revoked, look(self->c).revoked);
}

/* Each reacquire that returns 0 renews the lease, and may change it. */
TEST_F(lease, g12_renewed)
{
	static const struct {
		__u32 flags;
		const char *job;
		__u64 lease_ns;
	} calls[] = {
		/* With and without anything to do, and again */
		{ 0, "", 0 }, { 0, "c", 0 }, { 0, "new", 0 }, { 0, "new", 0 },
		{ TLOCK_ASYNC, "", 0 }, { TLOCK_ASYNC, "newer", 0 },
		{ TLOCK_RENEW, "", 0 }, { TLOCK_RENEW, "newest", 0 },
		{ 0, "", 2 * LONG }, { 0, "", 2 * LONG }, { 0, "", 0 },
		{ 0, "c", 3 * LONG }, { 0, "c", 3 * LONG }, { 0, "c", 0 },
		{ TLOCK_ASYNC, "", LONG }, { TLOCK_RENEW, "", 2 * LONG },
		{ TLOCK_RENEW, "new", 3 * LONG }, { TLOCK_RENEW, "", LONG },
		{ 0, "", 0 },
	};
	__u64 lease_ns = LONG, token = take_lease(self->c, "c", LONG);
	struct tlock_holder holder = look(self->c).holder;
	const char *job = "c";
	struct tlock_acquire arg;
	__s64 begun;

	EXPECT_EQ(TLOCK_LEASED, holder.flags);
	EXPECT_EQ(holder.since_ns + LONG, holder.expires_ns);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		usleep(1000);
		arg = ask_lease(0, calls[i].job, calls[i].lease_ns);
		arg.flags = calls[i].flags;
		begun = now();
		ASSERT_EQ(0, reacquire(self->c, &arg));
		EXPECT_EQ(token, arg.token);
		EXPECT_EQ(0, arg.result);
		if (calls[i].lease_ns)
			lease_ns = calls[i].lease_ns;
		if (*calls[i].job)
			job = calls[i].job;
		holder = look(self->c).holder;
		EXPECT_EQ(TLOCK_LEASED, holder.flags);
		EXPECT_STREQ(job, holder.job);
		EXPECT_LE(begun + (__s64)lease_ns, holder.expires_ns) {
			TH_LOG("call %zu", i);
		}
		EXPECT_GE(now() + (__s64)lease_ns, holder.expires_ns);
	}
	/* Another process that has the file can do it, too */
	struct agent *a = agent_sharing(self->c);

	arg = ask(0, "");
	begun = now();
	ASSERT_EQ(0, agent_do(a, reacquire, &arg));
	EXPECT_LE(begun + (__s64)lease_ns, look(self->c).holder.expires_ns);
	agent_kill(a);
	EXPECT_EQ(0, release(self->c));
	EXPECT_REVOKED(0);
}

/* Nothing else does. */
TEST_F(lease, g12_not_renewed)
{
	struct tlock_acquire arg;
	struct tlock_holder before, after;

	take_lease(self->c, "c", LONG);
	before = look(self->c).holder;
	arg = ask_lease(0, "again", 2 * LONG);
	EXPECT_EQ(-EDEADLK, acquire(self->c, &arg));
	arg.ticket = 1;
	EXPECT_EQ(-ECANCELED, reacquire(self->c, &arg));
	for (int i = 0; i < 3; i++) {
		arg = ask_lease(0, i ? "" : "\n", 2 * LONG);
		if (i)
			arg.flags = TLOCK_RENEW;
		if (i == 2)
			arg.reserved[3] = 1;
		if (i == 1)
			arg.flags |= TLOCK_ASYNC;
		EXPECT_EQ(-EINVAL, reacquire(self->c, &arg));
	}
	EXPECT_EQ(-EFAULT, reacquire(self->c, NULL));
	EXPECT_EQ(-EPERM, renew(self->other, 2 * LONG));
	EXPECT_EQ(-ESTALE, revoke_grant(self->c, before.token - 1, 1));
	events_of(self->c);
	state_of(self->c, NULL);
	after = look(self->c).holder;
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(after)));
	EXPECT_EQ(0, release(self->c));
}

/* A request that fails by itself shows the holder's expiry, too. */
TEST_F(lease, g5_expiry_at_the_deadline)
{
	struct tlock_holder holder;
	struct tlock_acquire arg;

	take_lease(self->c, "c", LONG);
	for (int revoking = 0; revoking < 2; revoking++) {
		holder = look(self->c).holder;
		arg = start_acquire(self->wanter, 1, "wanter");
		ASSERT_TRUE(await_state(self->wanter, "decided"));
		EXPECT_EQ(-ETIMEDOUT, acquire(self->wanter, &arg));
		EXPECT_EQ(0, memcmp(&holder, &arg.holder, sizeof(holder)));
		ASSERT_EQ(0, revoke_grant(self->c, holder.token, LONG / 2));
	}
	EXPECT_EQ(TLOCK_LEASED | TLOCK_REVOKING, holder.flags);
	EXPECT_EQ(0, release(self->c));
}

/* It is never too late, if only nobody else wants the lock. */
TEST_F(lease, g12_renewed_late)
{
	struct tlock_acquire arg;
	struct tlock_holder holder;
	__u64 token;

	for (int i = 0; i < 4; i++) {
		token = take_lease(self->c, "c", 1);
		usleep(2000);
		/* Without anything to do, and with */
		arg = ask_lease(0, i & 1 ? "new" : "", i & 2 ? LONG : 0);
		ASSERT_EQ(0, reacquire(self->c, &arg));
		EXPECT_EQ(token, arg.token);
		if (!(i & 2)) {
			/* Still a lease of 1 ns */
			take(self->other, "other");
			EXPECT_LOST(self->c);
			EXPECT_EQ(0, release(self->other));
			continue;
		}
		arg = ask(0, "try");
		EXPECT_EQ(-ETIMEDOUT, acquire(self->other, &arg));
		holder = look(self->c).holder;
		EXPECT_EQ(token, holder.token);
		EXPECT_EQ(0, memcmp(&holder, &arg.holder, sizeof(holder)));
		EXPECT_EQ(0, release(self->c));
	}
	EXPECT_EQ(self->before.revoked + 2, look(self->c).revoked);
}

/* A lease is of one grant, or of those that a reacquire makes of it. */
TEST_F(lease, g12_lease_of_a_grant)
{
	struct call *waiter, *yielder;
	struct tlock_holder holder;
	struct tlock_acquire arg;

	/* Not one of before, from a free lock, by a try, or after a wait */
	take_lease(self->c, "c", LONG);
	ASSERT_EQ(0, release(self->c));
	take(self->c, "c");
	EXPECT_EQ(0, look(self->c).holder.flags);
	EXPECT_EQ(0, look(self->c).holder.expires_ns);
	/* A renewal without a lease is none */
	ASSERT_EQ(0, renew(self->c, 0));
	EXPECT_EQ(0, look(self->c).holder.flags);
	arg = ask_lease(0, "try", LONG);
	EXPECT_EQ(-ETIMEDOUT, acquire(self->other, &arg));
	EXPECT_EQ(0, arg.holder.expires_ns);
	arg = start_acquire(self->other, FOREVER, "other");
	ASSERT_EQ(0, release(self->c));
	EXPECT_EQ(TLOCK_UNFETCHED, look(self->c).holder.flags);
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(0, look(self->c).holder.flags);
	ASSERT_EQ(0, release(self->other));

	/* It begins with the grant, not with the request */
	take(self->other, "other");
	arg = ask_lease(FOREVER, "c", SEC / 10);
	waiter = call_with(self->c, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->c, 1));
	usleep(150000);
	ASSERT_EQ(0, release(self->other));
	ASSERT_EQ(0, result(waiter));
	holder = look(self->c).holder;
	EXPECT_EQ(TLOCK_LEASED, holder.flags);
	EXPECT_EQ(holder.since_ns + SEC / 10, holder.expires_ns);

	/* A reacquire that lets others in keeps it, and begins it anew */
	ASSERT_EQ(0, renew(self->c, LONG));
	for (int i = 0; i < 3; i++) {
		__s64 lease_ns = i == 1 ? 2 * LONG : 0;

		waiter = call(self->other, acquire, FOREVER, "other");
		ASSERT_TRUE(await_waiters(self->c, 1));
		arg = ask_lease(FOREVER, "", lease_ns);
		yielder = call_with(self->c, reacquire, &arg);
		ASSERT_EQ(0, result(waiter));
		EXPECT_EQ(0, look(self->c).holder.flags);
		ASSERT_EQ(0, release(self->other));
		ASSERT_EQ(0, result(yielder));
		holder = look(self->c).holder;
		EXPECT_EQ(TLOCK_LEASED, holder.flags);
		EXPECT_EQ(holder.since_ns + LONG * (i ? 2 : 1),
			  holder.expires_ns);
	}
	EXPECT_EQ(0, release(self->c));
	EXPECT_EQ(self->before.revoked, look(self->c).revoked);
}

/* Whoever goes on with a request cannot change its lease. */
TEST_F(lease, g12_lease_of_a_request)
{
	struct tlock_acquire arg;
	struct tlock_holder holder;
	struct call *waiter;

	handle_usr1(0);
	for (int async = 0; async < 2; async++) {
		take(self->other, "other");
		arg = ask_lease(FOREVER, "c", LONG);
		if (async) {
			arg.flags = TLOCK_ASYNC;
			ASSERT_EQ(-EINPROGRESS, acquire(self->c, &arg));
		} else {
			waiter = call_with(self->c, acquire, &arg);
			ASSERT_TRUE(await_waiters(self->c, 1));
			send_signal(waiter, SIGUSR1);
			ASSERT_EQ(-EINTR, result(waiter));
		}
		ASSERT_EQ(0, release(self->other));
		arg.lease_ns = 1;
		ASSERT_EQ(0, acquire(self->c, &arg));
		holder = look(self->c).holder;
		EXPECT_EQ(TLOCK_LEASED, holder.flags);
		EXPECT_LE(holder.since_ns + LONG, holder.expires_ns);
		EXPECT_GE(now() + LONG, holder.expires_ns);
		EXPECT_EQ(0, release(self->c));
	}
}

/* However long: it neither wraps around nor ends. */
TEST_F(lease, g12_huge_leases)
{
	const __u64 leases[] = {
		~0ULL, ~0ULL - 1, 1ULL << 63, INT64_MAX, INT64_MAX - 1,
		INT64_MAX - now() + PATIENCE, ~0ULL - now(),
		(1ULL << 63) - now(), (1ULL << 63) + 1, INT64_MAX / 4 * 3,
	};
	struct tlock_acquire arg;
	struct tlock_holder holder;
	struct call *waiter;

	for (size_t i = 0; i < ARRAY_SIZE(leases); i++) {
		take_lease(self->c, "c", leases[i]);
		holder = look(self->c).holder;
		EXPECT_EQ(TLOCK_LEASED, holder.flags);
		EXPECT_LE(INT64_MAX / 2, holder.expires_ns) {
			TH_LOG("a lease of %llu ns", leases[i]);
		}
		arg = ask(0, "try");
		EXPECT_EQ(-ETIMEDOUT, acquire(self->wanter, &arg));
		EXPECT_EQ(holder.expires_ns, arg.holder.expires_ns);
		waiter = call(self->wanter, acquire, 2 * MSEC, "waiter");
		EXPECT_EQ(-ETIMEDOUT, result(waiter));
		EXPECT_EQ(holder.token, look(self->c).holder.token);
		EXPECT_EQ(0, release(self->c));
	}
	/* 9223372036854775807 stands for never; a shorter one has an end */
	take_lease(self->c, "c", ~0ULL);
	EXPECT_EQ(INT64_MAX, look(self->c).holder.expires_ns);
	ASSERT_EQ(0, renew(self->c, INT64_MAX / 4));
	EXPECT_GE(now() + INT64_MAX / 4, look(self->c).holder.expires_ns);
	EXPECT_EQ(0, release(self->c));
}

/* A renewal keeps the lock and its token, whoever waits. */
TEST_F(lease, g12_renew_while_others_wait)
{
	struct tlock_acquire arg, waiting, behind;
	__u64 token = take_lease(self->c, "c", LONG);
	struct tlock_status before, after;
	struct call *blocked;
	__s64 begun;

	waiting = start_acquire(self->wanter, FOREVER, "wanter");
	blocked = call(self->other, acquire, FOREVER, "other");
	ASSERT_TRUE(await_waiters(self->c, 2));
	before = look(self->c);
	for (int i = 0; i < 10; i++) {
		/* Whatever the timeout says */
		arg = ask_lease(i % 3 - 1, i % 2 ? "new" : "", LONG + i);
		arg.flags = TLOCK_RENEW;
		begun = now();
		ASSERT_EQ(0, reacquire(self->c, &arg));
		EXPECT_EQ(token, arg.token);
		EXPECT_EQ(0, arg.result);
		EXPECT_EQ(i % 3 - 1, arg.timeout_ns);
		after = look(self->c);
		EXPECT_LE(begun + LONG + i, after.holder.expires_ns);
		EXPECT_GE(now() + LONG + i, after.holder.expires_ns);
		EXPECT_STREQ(i ? "new" : "c", after.holder.job);
		/* Nothing else changes */
		after.holder = before.holder;
		EXPECT_EQ(0, memcmp(&before, &after, sizeof(after)));
	}
	EXPECT_EQ(0, events_of(self->wanter));
	/* With a shorter lease, it ends sooner, although they wait already */
	ASSERT_EQ(0, renew(self->c, 20 * MSEC));
	EXPECT_EQ(POLLOUT, await_events(self->wanter, POLLOUT) & POLLOUT);
	ASSERT_EQ(0, acquire(self->wanter, &waiting));
	EXPECT_EQ(TLOCK_REVOKED, waiting.result);
	EXPECT_EQ(-ESTALE, renew(self->c, LONG));
	EXPECT_EQ(-EPERM, renew(self->c, LONG));
	/* Nor can a waiter do it, or one that has not fetched its grant */
	behind = start_acquire(self->c, FOREVER, "behind");
	EXPECT_EQ(-EBUSY, renew(self->other, LONG));
	EXPECT_EQ(-EBUSY, renew(self->c, LONG));
	ASSERT_EQ(0, release(self->wanter));
	ASSERT_EQ(0, result(blocked));
	ASSERT_EQ(0, release(self->other));
	EXPECT_EQ(-EBUSY, renew(self->c, LONG));
	ASSERT_EQ(0, acquire(self->c, &behind));
	/* A lock without a lease can get one */
	ASSERT_EQ(0, renew(self->c, 0));
	EXPECT_EQ(0, look(self->c).holder.flags);
	ASSERT_EQ(0, renew(self->c, LONG));
	EXPECT_EQ(TLOCK_LEASED, look(self->c).holder.flags);
	EXPECT_EQ(0, release(self->c));
}

/*
 * A grant that no call has fetched: its lease begins with the grant and again
 * with the fetch.
 */
static struct tlock_acquire grant_unfetched(int c, int other,
					    __s64 timeout_ns, __u64 lease_ns)
{
	struct tlock_acquire arg = ask_lease(timeout_ns, "c", lease_ns);

	arg.flags = TLOCK_ASYNC;
	take(other, "other");
	if (acquire(c, &arg) != -EINPROGRESS)
		die("a request does not wait");
	if (release(other))
		die("the other does not hold the lock");
	return arg;
}

TEST_F(lease, g12_unfetched)
{
	struct tlock_acquire arg;
	struct tlock_holder holder;
	__s64 begun;

	arg = grant_unfetched(self->c, self->other, LONG, LONG / 2);
	holder = look(self->c).holder;
	EXPECT_EQ(TLOCK_LEASED | TLOCK_UNFETCHED, holder.flags);
	EXPECT_EQ(holder.since_ns + LONG / 2, holder.expires_ns);
	usleep(5000);
	begun = now();
	ASSERT_EQ(0, acquire(self->c, &arg));
	holder = look(self->c).holder;
	EXPECT_EQ(TLOCK_LEASED, holder.flags);
	EXPECT_LE(begun + LONG / 2, holder.expires_ns);
	EXPECT_GE(now() + LONG / 2, holder.expires_ns);
	EXPECT_EQ(0, release(self->c));
	EXPECT_REVOKED(0);
}

/* Its lease ends before its deadline: that is a revocation. */
TEST_F(lease, g12_unfetched_and_revoked)
{
	struct tlock_acquire arg;

	for (int i = 0; i < 6; i++) {
		arg = grant_unfetched(self->c, self->other,
				      i % 2 ? FOREVER : LONG, MSEC);
		if (i < 2) {
			struct tlock_acquire waits = ask(FOREVER, "wanter");

			ASSERT_EQ(0, acquire(self->wanter, &waits));
			EXPECT_EQ(TLOCK_REVOKED, waits.result);
		} else {
			usleep(2000);
			EXPECT_STREQ("decided", state_of(self->c, NULL));
			take(self->wanter, "wanter");
		}
		EXPECT_STREQ("revoked", state_of(self->c, NULL));
		EXPECT_EQ(POLLOUT | POLLERR | POLLPRI, events_of(self->c));
		if (i < 4) {
			EXPECT_EQ(-ESTALE, acquire(self->c, &arg));
			EXPECT_EQ(0, arg.ticket);
			EXPECT_TRUE(poisoned(&arg.token, sizeof(arg.token)));
		} else {
			EXPECT_EQ(-ESTALE, release(self->c));
			EXPECT_EQ(-ECANCELED, acquire(self->c, &arg));
		}
		EXPECT_EQ(-EPERM, release(self->c));
		EXPECT_EQ(0, release(self->wanter));
	}
	EXPECT_REVOKED(6);
}

/* Its deadline passes first: then the request has failed, and lost nothing. */
TEST_F(lease, g12_unfetched_and_timed_out)
{
	struct tlock_acquire arg;
	struct call *waiter;

	for (int i = 0; i < 3; i++) {
		/* Nobody wants the lock until both have passed, or LONG */
		arg = grant_unfetched(self->c, self->other, SEC / 10,
				      i ? 1 : LONG);
		if (i == 1)
			usleep(120000);
		if (i < 2) {
			waiter = call(self->wanter, acquire, FOREVER, "wanter");
			ASSERT_EQ(0, result(waiter));
			EXPECT_EQ(0, waiter->arg->result);
			EXPECT_EQ(-ETIMEDOUT, acquire(self->c, &arg));
			EXPECT_STREQ("wanter", arg.holder.job);
			EXPECT_EQ(0, release(self->wanter));
		} else {
			/* But it can still be fetched: nobody wants it */
			usleep(120000);
			ASSERT_EQ(0, acquire(self->c, &arg));
			EXPECT_EQ(0, release(self->c));
		}
	}
	EXPECT_EQ(self->before.revoked, look(self->c).revoked);
	EXPECT_EQ(self->before.timed_out + 2, look(self->c).timed_out);
}

/* So is a grant whose process has ended, though it has a lease. */
TEST_F(lease, g12_unfetched_of_an_ended_process)
{
	struct tlock_acquire arg = ask_lease(FOREVER, "mortal", LONG);
	struct agent *a = agent_sharing(self->c);

	arg.flags = TLOCK_ASYNC;
	take(self->other, "other");
	ASSERT_EQ(-EINPROGRESS, agent_do(a, acquire, &arg));
	ASSERT_EQ(0, release(self->other));
	agent_kill(a);
	EXPECT_NEXT_LEARNS(0, self->wanter);
	EXPECT_EQ(-ETIMEDOUT, acquire(self->c, &arg));
	EXPECT_EQ(self->before.revoked, look(self->c).revoked);
}

/* The next holder does not come to learn of it. Then the one after that does. */
TEST_F(lease, g12_next_learns)
{
	struct tlock_acquire arg;
	struct agent *a;

	/* It is revoked itself, or dies */
	for (int dies = 0; dies < 2; dies++) {
		a = agent();
		take_lease(self->c, "c", LONG);
		arg = ask_async(FOREVER, "unfetched");
		ASSERT_EQ(-EINPROGRESS, agent_do(a, acquire, &arg));
		ASSERT_EQ(0, renew(self->c, 1));
		EXPECT_TRUE(await_state(self->c, "revoked"));
		EXPECT_EQ(-ESTALE, release(self->c));
		if (dies) {
			agent_kill(a);
		} else {
			arg.token = look(self->c).holder.token;
			ASSERT_EQ(0, revoke_grant(self->c, arg.token, 0));
			EXPECT_EQ(-ESTALE, agent_release(a));
		}
		EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->wanter);
	}
	EXPECT_NEXT_LEARNS(0, self->wanter);
}

/* Both things that can have happened */
TEST_F(lease, g6_g12_abandoned_and_revoked)
{
	int mortal = contender();

	take(mortal, "mortal");
	close(mortal);
	/* flock(2) cannot learn that */
	ASSERT_EQ(0, flock_wait(self->c, NULL));
	ASSERT_EQ(0, renew(self->c, 1));
	EXPECT_NEXT_LEARNS(TLOCK_ABANDONED | TLOCK_REVOKED, self->wanter);
	EXPECT_LOST(self->c);
	EXPECT_NEXT_LEARNS(0, self->wanter);
	/* The other way round */
	take_lease(self->c, "c", 1);
	mortal = contender();
	ASSERT_EQ(0, flock_try(mortal, NULL));
	ASSERT_EQ(0, release(mortal));
	ASSERT_EQ(0, close(self->c));
	self->c = contender();
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->wanter);
}

/* A file that was revoked is closed without a call: nothing was abandoned. */
TEST_F(lease, g12_closed)
{
	struct tlock_status before;
	struct agent *a = agent();
	struct tlock_acquire arg = ask_lease(0, "a", 1);

	ASSERT_EQ(0, agent_do(a, acquire, &arg));
	take(self->c, "c");
	before = look(self->c);
	agent_kill(a);
	EXPECT_EQ(before.abandoned, look(self->c).abandoned);
	EXPECT_EQ(before.holder.token, look(self->c).holder.token);
	EXPECT_EQ(0, release(self->c));
	EXPECT_NEXT_LEARNS(0, self->c);
	/* But one that has only expired holds it until then */
	a = agent();
	ASSERT_EQ(0, agent_do(a, acquire, &arg));
	agent_kill(a);
	EXPECT_EQ(before.abandoned + 1, look(self->c).abandoned);
	EXPECT_EQ(before.revoked, look(self->c).revoked);
	EXPECT_NEXT_LEARNS(TLOCK_ABANDONED, self->c);
}

/* Of all threads of the old holder, one learns. */
#define THREADS	8

static atomic_int go;

static int release_on_go(int fd, struct tlock_acquire *arg)
{
	while (!atomic_load(&go))
		sched_yield();
	return arg->lease_ns ? reacquire(fd, arg) : release(fd);
}

TEST_F(lease, g12_one_call_learns)
{
	struct tlock_acquire args[THREADS];
	struct call *calls[THREADS];
	int stale, ret;

	for (int round = 0; round < 30; round++) {
		take_lease(self->c, "c", 1);
		take(self->other, "other");
		atomic_store(&go, 0);
		for (int i = 0; i < THREADS; i++) {
			args[i] = ask_lease(0, "", i % 2);
			calls[i] = call_with(self->c, release_on_go, &args[i]);
		}
		atomic_store(&go, 1);
		stale = 0;
		for (int i = 0; i < THREADS; i++) {
			ret = result(calls[i]);
			if (ret == -ESTALE)
				stale++;
			else
				ASSERT_EQ(-EPERM, ret);
		}
		EXPECT_EQ(1, stale);
		ASSERT_EQ(0, release(self->other));
	}
}

/*
 * The thread that was granted the lock has not run when its grant is revoked: it
 * learns that it does not hold.
 */
FIXTURE(unseen)
{
	int c;
	int other;
	struct call *sleeper;
	struct call *hogger;
	struct tlock_acquire *arg;	/* in a page of its own */
	__u64 token;
};

FIXTURE_VARIANT(unseen)
{
	int (*fn)(int fd, struct tlock_acquire *arg);
	bool operator;		/* not the end of a lease */
	bool mortal;		/* the holder before died */
};

FIXTURE_VARIANT_ADD(unseen, acquire)
{
	.fn = acquire,
};

FIXTURE_VARIANT_ADD(unseen, acquire_after_a_death)
{
	.fn = acquire,
	.mortal = true,
};

FIXTURE_VARIANT_ADD(unseen, reacquire)
{
	.fn = reacquire,
};

FIXTURE_VARIANT_ADD(unseen, acquire_by_an_operator)
{
	.fn = acquire,
	.operator = true,
};

FIXTURE_VARIANT_ADD(unseen, flock_by_an_operator)
{
	.fn = flock_wait,
	.operator = true,
};

FIXTURE_VARIANT_ADD(unseen, flock_by_an_operator_after_a_death)
{
	.fn = flock_wait,
	.operator = true,
	.mortal = true,
};

FIXTURE_SETUP(unseen)
{
	struct tlock_acquire first = ask(FOREVER, "first");
	struct agent *a;

	self->c = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
	if (!can_hold_back())
		return;
	a = agent();
	run_on(a->pid, 0);
	self->arg = mmap(NULL, sizeof(*self->arg), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->arg);
	*self->arg = ask_lease(FOREVER, "c", variant->operator ? 0 : MSEC);
	if (variant->fn == reacquire) {
		take(self->c, "c");
		agent_begin(a, acquire, &first);
		ASSERT_TRUE(await_waiters(self->c, 1));
		self->sleeper = call_with(self->c, reacquire, self->arg);
		ASSERT_EQ(0, agent_end(a, NULL));
	} else {
		agent_take(a, "first");
		self->sleeper = call_with(self->c, variant->fn, self->arg);
	}
	ASSERT_TRUE(await_state(self->c, "waiting"));
	self->hogger = hold_back(self->sleeper);
	if (variant->mortal)
		agent_kill(a);
	else
		ASSERT_EQ(0, agent_release(a));
	ASSERT_STREQ("holding", state_of(self->c, &self->token));
	if (variant->operator)
		ASSERT_EQ(0, revoke_grant(self->other, self->token, 0));
}

FIXTURE_TEARDOWN(unseen)
{
	close(self->c);
	close(self->other);
	EXPECT_LEFT_FREE();
}

#define NEED_TWO_CPUS() do {						\
	if (!can_hold_back())						\
		SKIP(return, "this needs two CPUs");			\
} while (0)

/* What the next holder learns */
#define UNSEEN_FLAGS	(TLOCK_REVOKED | (variant->mortal ? TLOCK_ABANDONED : 0))

/* Neither learns of a grant that it had */
#define EXPECT_SLEEPER(err) do {					\
	let_run(self->hogger);						\
	ASSERT_EQ(err, result(self->sleeper));				\
	if (variant->fn != flock_wait) {				\
		EXPECT_EQ(0, self->arg->ticket);				\
		EXPECT_EQ(0, self->arg->result);				\
		EXPECT_TRUE(poisoned(&self->arg->token, 8));		\
	}								\
	EXPECT_STREQ("idle", state_of(self->c, NULL));			\
	EXPECT_EQ(-EPERM, release(self->c));				\
} while (0)

TEST_F(unseen, g12_sleeper_learns)
{
	struct tlock_acquire arg = ask(FOREVER, "next");

	NEED_TWO_CPUS();
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(UNSEEN_FLAGS, arg.result);
	EXPECT_EQ(self->token + 1, arg.token);
	EXPECT_STREQ("revoked", state_of(self->c, NULL));
	EXPECT_EQ(POLLOUT | POLLERR | POLLPRI, events_of(self->c));
	EXPECT_SLEEPER(-ESTALE);
	EXPECT_EQ(0, release(self->other));
}

/*
 * And so it does if its argument cannot be written: no other call would say it.
 */
TEST_F(unseen, g12_sleeper_learns_without_its_argument)
{
	struct tlock_acquire arg = ask(FOREVER, "next");

	NEED_TWO_CPUS();
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(UNSEEN_FLAGS, arg.result);
	ASSERT_EQ(0, mprotect(self->arg, sizeof(*self->arg), PROT_NONE));
	let_run(self->hogger);
	ASSERT_EQ(-ESTALE, result(self->sleeper));
	EXPECT_EQ(-EPERM, release(self->c));
	EXPECT_EQ(0, release(self->other));
}

/* Another call on the file was faster to learn; the sleeper just lost. */
TEST_F(unseen, g12_another_call_learns)
{
	struct tlock_acquire arg = ask(FOREVER, "next");

	NEED_TWO_CPUS();
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(UNSEEN_FLAGS, arg.result);
	ASSERT_EQ(0, release(self->other));
	EXPECT_EQ(-ESTALE, release(self->c));
	EXPECT_SLEEPER(-ECANCELED);
}

/* And even acquires anew: each of the two has its own outcome. */
TEST_F(unseen, g12_asked_anew)
{
	struct tlock_acquire arg = ask(FOREVER, "next");
	__u64 number;

	NEED_TWO_CPUS();
	ASSERT_EQ(0, acquire(self->other, &arg));
	ASSERT_EQ(0, release(self->other));
	EXPECT_EQ(-ESTALE, renew(self->c, LONG));
	arg = ask(0, "anew");
	ASSERT_EQ(0, acquire(self->c, &arg));
	let_run(self->hogger);
	ASSERT_EQ(-ECANCELED, result(self->sleeper));
	EXPECT_STREQ("holding", state_of(self->c, &number));
	EXPECT_EQ(arg.token, number);
	EXPECT_EQ(0, release(self->c));
}

/* Ways in which a holder can hang */
FIXTURE(hung)
{
	int c;
	struct agent *a;
	bool usable;
	struct tlock_status before;
};

FIXTURE_VARIANT(hung)
{
	const char *cgroup;	/* in which it is frozen */
	bool traced;
};

#define CGROUP	"tlock-lease"

FIXTURE_VARIANT_ADD(hung, stopped)
{
};

FIXTURE_VARIANT_ADD(hung, frozen)
{
	.cgroup = CGROUP,
};

FIXTURE_VARIANT_ADD(hung, traced)
{
	.traced = true,
};

FIXTURE_SETUP(hung)
{
	self->c = contender();
	ASSERT_FREE(self->c);
	self->before = look(self->c);
	self->a = agent();
	self->usable = !variant->cgroup || cgroup_create(CGROUP);
	if (variant->cgroup && self->usable)
		cgroup_enter(CGROUP, self->a->pid);
}

FIXTURE_TEARDOWN(hung)
{
	agents_kill();
	if (variant->cgroup && self->usable)
		cgroup_remove(CGROUP);
	close(self->c);
	EXPECT_LEFT_FREE();
}

static void hang(struct agent *a, const FIXTURE_VARIANT(hung) *variant)
{
	if (!variant->traced)
		agent_pause(a, variant->cgroup);
	else if (ptrace(PTRACE_ATTACH, a->pid, 0, 0) ||
		 waitpid(a->pid, NULL, 0) != a->pid)
		die("cannot trace a process");
}

static void unhang(struct agent *a, const FIXTURE_VARIANT(hung) *variant)
{
	if (!variant->traced)
		agent_resume(a, variant->cgroup);
	else if (ptrace(PTRACE_DETACH, a->pid, 0, 0))
		die("cannot detach from a process");
}

TEST_F(hung, g12_lease)
{
	struct tlock_acquire arg = ask_lease(0, "hung", TIME);
	struct tlock_acquire next = ask(FOREVER, "next");
	struct tlock_holder holder;

	if (!self->usable)
		SKIP(return, "this kernel has no cgroups to freeze");
	ASSERT_EQ(0, agent_do(self->a, acquire, &arg));
	holder = look(self->c).holder;
	EXPECT_EQ(self->a->pid, holder.pid);
	hang(self->a, variant);
	ASSERT_EQ(0, acquire(self->c, &next));
	EXPECT_EQ(TLOCK_REVOKED, next.result);
	EXPECT_EQ(arg.token + 1, next.token);
	EXPECT_LE(holder.expires_ns, look(self->c).holder.since_ns);
	unhang(self->a, variant);
	/* It goes on as if it still held, and learns better */
	arg = ask(0, "hung");
	EXPECT_EQ(-ESTALE, agent_do(self->a, reacquire, &arg));
	EXPECT_EQ(-EPERM, agent_do(self->a, reacquire, &arg));
	EXPECT_EQ(next.token, look(self->c).holder.token);
	EXPECT_EQ(0, release(self->c));
	EXPECT_EQ(self->before.revoked + 1, look(self->c).revoked);
	EXPECT_EQ(self->before.abandoned, look(self->c).abandoned);
}

TEST_F(hung, g12_operator)
{
	struct tlock_holder holder;
	__u64 token;

	if (!self->usable)
		SKIP(return, "this kernel has no cgroups to freeze");
	token = agent_take(self->a, "hung");
	hang(self->a, variant);
	holder = look(self->c).holder;
	ASSERT_EQ(0, revoke_grant(self->c, holder.token, 0));
	EXPECT_EQ(0, look(self->c).holder.token);
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->c);
	unhang(self->a, variant);
	EXPECT_EQ(token, holder.token);
	EXPECT_EQ(-ESTALE, agent_release(self->a));
	EXPECT_EQ(self->before.abandoned, look(self->c).abandoned);
}

/*
 * A request of a hung process that waits: its lease begins when the lock is
 * granted, also if it cannot notice.
 */
TEST_F(hung, g12_granted_while_hung)
{
	struct tlock_acquire arg = ask_lease(FOREVER, "hung", TIME);
	struct tlock_acquire next = ask(FOREVER, "next");
	int holder = contender();

	if (!self->usable)
		SKIP(return, "this kernel has no cgroups to freeze");
	take(holder, "holder");
	arg.flags = TLOCK_ASYNC;
	ASSERT_EQ(-EINPROGRESS, agent_do(self->a, acquire, &arg));
	hang(self->a, variant);
	ASSERT_EQ(0, release(holder));
	ASSERT_EQ(0, acquire(self->c, &next));
	EXPECT_EQ(TLOCK_REVOKED, next.result);
	unhang(self->a, variant);
	EXPECT_EQ(-ESTALE, agent_do(self->a, acquire, &arg));
	EXPECT_EQ(0, release(self->c));
	close(holder);
}

/*
 * A chain of contenders that all hang: each gets the lock and loses it at the
 * end of its lease.
 */
#define MANY	1000

TEST_F(lease, g12_chain)
{
	const __s64 lease = 200 * USEC;
	static struct tlock_acquire args[MANY];
	static int fds[MANY];
	struct tlock_acquire live;
	__s64 released;
	int stale = 0;
	__u64 token;

	allow_files(2 * MANY);
	token = take(self->other, "other");
	for (int i = 0; i < MANY; i++) {
		fds[i] = contender();
		args[i] = ask_lease(FOREVER, "hung", lease);
		args[i].flags = TLOCK_ASYNC;
		ASSERT_EQ(-EINPROGRESS, acquire(fds[i], &args[i]));
	}
	live = start_acquire(self->c, FOREVER, "live");
	released = now();
	ASSERT_EQ(0, release(self->other));
	ASSERT_EQ(POLLOUT, await_events(self->c, POLLOUT));
	ASSERT_EQ(0, acquire(self->c, &live));
	EXPECT_EQ(token + MANY + 1, live.token);
	EXPECT_EQ(TLOCK_REVOKED, live.result);
	EXPECT_LE(released + MANY * lease, look(self->c).holder.since_ns);
	TH_LOG("%d leases of %lld us ended within %lld us", MANY, lease / USEC,
	       (look(self->c).holder.since_ns - released) / USEC);
	EXPECT_REVOKED(MANY);
	for (int i = 0; i < MANY; i++) {
		stale += acquire(fds[i], &args[i]) == -ESTALE;
		close(fds[i]);
	}
	EXPECT_EQ(MANY, stale);
	EXPECT_EQ(0, release(self->c));
}

static int compare(const void *a, const void *b)
{
	const __s64 *first = a, *second = b;

	return *first < *second ? -1 : *first > *second;
}

/* Not early, and late by less than 1 ms as a rule; the bound is for any host. */
TEST_F(lease, g12_on_time)
{
	enum { ROUNDS = 201 };
	static __s64 late[ROUNDS], awake[ROUNDS];
	struct tlock_acquire arg;
	__s64 expires;
	int rounds = 0;

	for (int tries = 0; rounds < ROUNDS && tries < 3 * ROUNDS; tries++) {
		take_lease(self->c, "c", 2 * MSEC + tries * USEC);
		expires = look(self->c).holder.expires_ns;
		arg = ask(LONG, "wanter");
		if (now() > expires - MSEC / 2) {
			/* Too slow: it must be waiting by then */
			release(self->c);
			continue;
		}
		ASSERT_EQ(0, acquire(self->wanter, &arg));
		awake[rounds] = now() - expires;
		late[rounds] = look(self->c).holder.since_ns - expires;
		ASSERT_LE(0, late[rounds]);
		ASSERT_EQ(TLOCK_REVOKED, arg.result);
		rounds++;
		ASSERT_EQ(-ESTALE, release(self->c));
		ASSERT_EQ(0, release(self->wanter));
	}
	ASSERT_LT(ROUNDS / 4, rounds);
	qsort(late, rounds, sizeof(*late), compare);
	qsort(awake, rounds, sizeof(*awake), compare);
	TH_LOG("%d leases: granted to the next one %lld us late (median), %lld us at most; it runs %lld us late, %lld us at most",
	       rounds, late[rounds / 2] / USEC, late[rounds - 1] / USEC,
	       awake[rounds / 2] / USEC, awake[rounds - 1] / USEC);
	EXPECT_GT(20 * MSEC, late[rounds / 2]);
}

/*
 * Renewals race with the expiry, from several threads and processes on one
 * file, while others want the lock by different calls. A reacquire that began
 * at a time and returned 0 keeps the grant for a lease from then on.
 */
#define RACES		20000
#define RACE_LEASE	MSEC

struct race {
	__u64 first;			/* token of the first grant */
	_Atomic __s64 renewed[RACES];	/* by token: the latest renewal */
	_Atomic __s64 revoked[RACES];	/* when it was; 0 if it was not */
	atomic_int over;
	atomic_int renewals;
};

/* Shared by all processes */
static struct race *race;

static bool race_over(void)
{
	return atomic_load(&race->over);
}

static void note_latest(_Atomic __s64 *times, __u64 token, __s64 time)
{
	__s64 before;

	if (token - race->first >= RACES) {
		atomic_store(&race->over, 1);
		return;
	}
	times += token - race->first;
	before = atomic_load(times);
	while (before < time &&
	       !atomic_compare_exchange_weak(times, &before, time))
		;
}

static void pause_up_to(__s64 most, unsigned int *seed)
{
	struct timespec ts = { .tv_nsec = rand_r(seed) % most };

	nanosleep(&ts, NULL);
}

static int renew_often(int fd, struct tlock_acquire *arg)
{
	unsigned int seed = arg->timeout_ns;
	struct tlock_acquire own;
	__s64 begun;
	int ret;

	while (!race_over()) {
		/* Sometimes in quick succession, sometimes too late */
		if (rand_r(&seed) % 4)
			pause_up_to(RACE_LEASE * 5 / 4, &seed);
		own = ask_lease(LONG, rand_r(&seed) % 8 ? "" : "new",
				rand_r(&seed) % 2 ? RACE_LEASE : 0);
		own.flags = rand_r(&seed) % 3 ? TLOCK_RENEW : 0;
		begun = now();
		ret = reacquire(fd, &own);
		if (!ret) {
			note_latest(race->renewed, own.token, begun);
			atomic_fetch_add(&race->renewals, 1);
		} else if (ret == -EPERM || ret == -EBUSY) {
			pause_up_to(RACE_LEASE / 4, &seed);
		} else if (ret != -ESTALE && ret != -ECANCELED) {
			return ret;
		}
	}
	return 0;
}

static int hold_often(int fd, struct tlock_acquire *arg)
{
	unsigned int seed = arg->timeout_ns;
	struct tlock_acquire own;
	__s64 begun;
	int ret;

	while (!race_over()) {
		own = ask_lease(LONG, "c", RACE_LEASE);
		begun = now();
		ret = acquire(fd, &own);
		if (!ret)
			note_latest(race->renewed, own.token, begun);
		else if (ret != -ESTALE && ret != -EDEADLK && ret != -EBUSY &&
			 ret != -ECANCELED)
			return ret;
		pause_up_to(RACE_LEASE / 2, &seed);
	}
	release(fd);
	return 0;
}

static int want_often(int fd, struct tlock_acquire *arg)
{
	unsigned int seed = arg->timeout_ns;
	struct tlock_acquire own;
	int ret;

	while (!race_over()) {
		pause_up_to(RACE_LEASE, &seed);
		own = ask(rand_r(&seed) % 3 ? rand_r(&seed) % (2 * RACE_LEASE) :
			  0, "wanter");
		if (rand_r(&seed) % 2)
			own.flags = TLOCK_ASYNC;
		ret = want_in_thread(fd, &own);
		if (ret == -ETIMEDOUT)
			continue;
		if (ret)
			return ret;
		ret = release(fd);
		if (ret)
			return ret;
	}
	return 0;
}

/* Notes when grants were revoked. Some events may be lost, as there are many. */
static void note_revocations(int monitor)
{
	struct tlock_event event;

	while (read_events(monitor, &event, sizeof(event)) == sizeof(event))
		if (event.kind == TLOCK_EVENT_REVOKED)
			note_latest(race->revoked, event.token, event.time_ns);
}

static int reacquire_at(int fd, struct tlock_acquire *arg)
{
	__s64 at = arg->timeout_ns;

	while (now() < at)
		;
	arg->timeout_ns = LONG;
	/* When it began, if it succeeds */
	arg->holder.since_ns = now();
	return reacquire(fd, arg);
}

/*
 * A renewal meets somebody who tries, just after the lease has ended: one of the
 * two fails. It is made later if it was first, and earlier if not, to stay close
 * to where they meet.
 */
TEST_F(lease, g12_try_meets_renewal)
{
	__s64 delay = 0, step = 128 * USEC, end = now() + 3 * SEC, at;
	int rounds = 0, renewed = 0, both = 0, ret, renewal;
	struct tlock_acquire arg, try;
	struct call *renewer;
	bool was_first = false;

	for (; now() < end; rounds++) {
		take_lease(self->c, "c", RACE_LEASE);
		at = look(self->c).holder.expires_ns;
		arg = ask(at + delay, "");
		renewer = call_with(self->c, reacquire_at, &arg);
		while (now() < at)
			;
		try = ask(0, "try");
		ret = acquire(self->wanter, &try);
		renewal = result(renewer);
		if (ret) {
			ASSERT_EQ(-ETIMEDOUT, ret);
			ASSERT_EQ(0, renewal);
			renewed++;
			ASSERT_EQ(0, release(self->c));
		} else {
			/* The renewal came too late, or in time and long ago */
			both += !renewal && look(self->c).holder.since_ns <
				arg.holder.since_ns + RACE_LEASE;
			ASSERT_EQ(renewal ? -EPERM : -ESTALE, release(self->c));
			ASSERT_EQ(0, release(self->wanter));
		}
		if (!renewal != was_first && step > USEC)
			step /= 2;
		was_first = !renewal;
		delay += was_first ? step : -step;
	}
	TH_LOG("%d of %d leases were renewed", renewed, rounds);
	EXPECT_EQ(0, both);
}

TEST_F(lease, g12_never_early)
{
	enum { RENEWERS = 2, WANTERS = 2 };
	struct call *renewers[RENEWERS], *wanters[WANTERS], *holder;
	struct agent *processes[RENEWERS];
	struct tlock_acquire arg;
	int monitor, revoked = 0, early = 0;
	__s64 end, slack, least = INT64_MAX;

	monitor = open(DEVICE, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, monitor);
	ASSERT_EQ(0, start_monitor(monitor));
	race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, race);
	race->first = take(self->c, "first");
	ASSERT_EQ(0, release(self->c));
	for (int i = 0; i < RENEWERS; i++) {
		processes[i] = agent_sharing(self->c);
		arg = ask(100 + i, "");
		agent_begin(processes[i], renew_often, &arg);
		renewers[i] = call(self->c, renew_often, 200 + i, "");
	}
	for (int i = 0; i < WANTERS; i++)
		wanters[i] = call(contender(), want_often, 300 + i, "");
	holder = call(self->c, hold_often, 400, "");
	for (end = now() + 6 * SEC; now() < end && !race_over();) {
		note_revocations(monitor);
		usleep(1000);
	}
	atomic_store(&race->over, 1);
	for (int i = 0; i < WANTERS; i++) {
		EXPECT_EQ(0, result(wanters[i]));
		close(wanters[i]->fd);
	}
	EXPECT_EQ(0, result(holder));
	for (int i = 0; i < RENEWERS; i++) {
		EXPECT_EQ(0, result(renewers[i]));
		EXPECT_EQ(0, agent_end(processes[i], NULL));
		agent_kill(processes[i]);
	}
	/* Nobody wants it any more, so at most one is left */
	release(self->c);
	note_revocations(monitor);
	close(monitor);
	for (int i = 0; i < RACES; i++) {
		if (!race->revoked[i])
			continue;
		revoked++;
		slack = race->revoked[i] - race->renewed[i] - RACE_LEASE;
		if (slack < least)
			least = slack;
		early += slack < 0;
	}
	TH_LOG("%d renewals, %d revocations, the earliest after %lld us",
	       atomic_load(&race->renewals), revoked, least / USEC);
	EXPECT_EQ(0, early);
	EXPECT_LT(10, revoked);
	EXPECT_LT(10, atomic_load(&race->renewals));
}

TEST_HARNESS_MAIN
