// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 12: a hung holder is not a deadlock either. TLOCK_IOC_REVOKE takes
 * the lock from its holder, at once or after a grace; the holder shown is the
 * one that loses it, and no later one. (For how a grace ends see lease.c.)
 */
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "tlock_test.h"

FIXTURE(revoke)
{
	int c;			/* holds the lock */
	int operator;
	int other;
	__u64 token;
	struct tlock_status before;
};

FIXTURE_SETUP(revoke)
{
	self->c = contender();
	self->operator = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
	self->token = take(self->c, "c");
	self->before = look(self->c);
}

FIXTURE_TEARDOWN(revoke)
{
	close(self->c);
	close(self->operator);
	close(self->other);
	EXPECT_LEFT_FREE();
}

TEST_F(revoke, g12_nobody_waits)
{
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, 0));
	EXPECT_EQ(0, look(self->c).holder.token);
	EXPECT_EQ(self->before.revoked + 1, look(self->c).revoked);
	EXPECT_STREQ("idle", state_of(self->operator, NULL));
	EXPECT_LOST(self->c);
	/* It is done, once and for all */
	EXPECT_EQ(-ESTALE, revoke_grant(self->operator, self->token, 0));
	EXPECT_EQ(self->before.revoked + 1, look(self->c).revoked);
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->other);
	EXPECT_NEXT_LEARNS(0, self->c);
	EXPECT_EQ(self->before.abandoned, look(self->c).abandoned);
}

/* The longest waiter gets the lock, before the call returns. */
TEST_F(revoke, g12_somebody_waits)
{
	struct tlock_acquire first, last;
	struct call *second, *third;
	int fd = contender(), last_fd = contender();

	first = start_acquire(self->other, FOREVER, "first");
	second = call(fd, acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->c, 2));
	third = call(contender(), flock_wait, FOREVER, "");
	ASSERT_TRUE(await_waiters(self->c, 3));
	last = start_acquire(last_fd, FOREVER, "last");

	/* A grant that no call has fetched, too */
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, 0));
	EXPECT_EQ(self->token + 1, look(self->c).holder.token);
	EXPECT_EQ(-ESTALE, revoke_grant(self->operator, self->token, 0));
	ASSERT_EQ(0, revoke_grant(self->operator, self->token + 1, 0));
	EXPECT_EQ(-ESTALE, acquire(self->other, &first));
	EXPECT_EQ(0, first.ticket);
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(TLOCK_REVOKED, second->arg->result);
	EXPECT_EQ(self->token + 2, second->arg->token);
	/* One of flock(2), which could not learn of the one before */
	ASSERT_EQ(0, revoke_grant(self->operator, self->token + 2, 0));
	ASSERT_EQ(0, result(third));
	ASSERT_EQ(0, revoke_grant(third->fd, self->token + 3, 0));
	ASSERT_EQ(POLLOUT, await_events(last_fd, POLLOUT));
	ASSERT_EQ(0, acquire(last_fd, &last));
	EXPECT_EQ(TLOCK_REVOKED, last.result);
	EXPECT_EQ(self->before.revoked + 4, look(self->c).revoked);
	EXPECT_LOST(self->c);
	EXPECT_LOST(fd);
	EXPECT_LOST(third->fd);
	EXPECT_EQ(0, release(last_fd));
	close(third->fd);
	close(last_fd);
	close(fd);
}

/* The holder's own file can do it, too, as can one that waits. */
TEST_F(revoke, g12_by_any_file)
{
	struct tlock_acquire arg;
	int fd = open(DEVICE, O_WRONLY | O_CLOEXEC);

	ASSERT_EQ(0, revoke_grant(self->c, self->token, 0));
	EXPECT_LOST(self->c);
	take(self->c, "c");
	arg = start_acquire(self->other, FOREVER, "other");
	ASSERT_EQ(0, revoke_grant(self->other, self->token + 1, 0));
	EXPECT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(TLOCK_REVOKED, arg.result);
	EXPECT_LOST(self->c);
	/* It can write, and that is all it needs */
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, revoke_grant(fd, self->token + 2, 0));
	EXPECT_LOST(self->other);
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, fd);
	close(fd);
}

/* But not one of another lock, whatever its tokens are. */
TEST_F(revoke, g12_of_another_lock)
{
	int fd, reader;

	ASSERT_EQ(0, lock_create("psu"));
	fd = contender_of("psu");
	EXPECT_EQ(-ESTALE, revoke_grant(fd, self->token, 0));
	EXPECT_EQ(-ESTALE, revoke_grant(self->c, take(fd, "psu"), 0));
	EXPECT_STREQ("holding", state_of(fd, NULL));
	ASSERT_EQ(0, release(fd));
	close(fd);
	/* Of a deleted lock, only those who read are left */
	reader = lock_open("psu", O_RDONLY);
	EXPECT_EQ(-EBADF, revoke_grant(reader, 1, 0));
	ASSERT_EQ(0, lock_delete("psu"));
	EXPECT_EQ(-ENODEV, revoke_grant(reader, 1, 0));
	EXPECT_EQ(-ENODEV, revoke_with(reader, NULL));
	close(reader);
	EXPECT_EQ(0, release(self->c));
}

/* Those who look, and an operator, do not learn it on the holder's behalf. */
TEST_F(revoke, g12_looking_learns_nothing)
{
	struct tlock_waiter waiter = {};
	struct tlock_acquire arg;
	__u64 number;

	ASSERT_EQ(0, revoke_grant(self->c, self->token, 0));
	take(self->other, "other");
	for (int i = 0; i < 3; i++) {
		look(self->c);
		waiter.ticket = 0;
		EXPECT_EQ(-ENOENT, next_waiter(self->c, &waiter));
		EXPECT_EQ(-ESTALE, revoke_grant(self->c, self->token, 0));
		EXPECT_EQ(-EBADF, start_monitor(self->c));
		EXPECT_EQ(-1, ioctl(self->c, _IO(TLOCK_IOC_MAGIC, 0x0f)));
		EXPECT_EQ(POLLOUT | POLLERR | POLLPRI, events_of(self->c));
		EXPECT_STREQ("revoked", state_of(self->c, &number));
		EXPECT_EQ(0, number);
	}
	/* Even if it revokes another one by the way */
	ASSERT_EQ(0, revoke_grant(self->c, self->token + 1, 0));
	EXPECT_LOST(self->other);
	/* Nor do calls that are refused for their argument */
	EXPECT_EQ(-EFAULT, acquire(self->c, NULL));
	arg = ask(0, "\n");
	EXPECT_EQ(-EINVAL, reacquire(self->c, &arg));
	EXPECT_EQ(-1, write(self->c, "", 1));
	EXPECT_LOST(self->c);
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->other);
}

/* A grace is visible to all, and can only become shorter. */
TEST_F(revoke, g12_grace)
{
	static const __u64 graces[] = {
		LONG, 2 * LONG, ~0ULL, LONG / 2, LONG, LONG / 4, 1ULL << 63,
	};
	struct tlock_acquire arg;
	struct tlock_holder holder;
	__s64 begun, before = 0;
	__u64 shortest = ~0ULL;

	for (size_t i = 0; i < ARRAY_SIZE(graces); i++) {
		begun = now();
		ASSERT_EQ(0, revoke_grant(self->operator, self->token,
					  graces[i]));
		holder = look(self->c).holder;
		EXPECT_EQ(TLOCK_REVOKING, holder.flags);
		if (graces[i] < shortest) {
			shortest = graces[i];
			EXPECT_LE(begun + (__s64)shortest, holder.expires_ns);
			EXPECT_GE(now() + (__s64)shortest, holder.expires_ns);
		} else {
			EXPECT_EQ(before, holder.expires_ns);
		}
		before = holder.expires_ns;
		arg = ask(0, "try");
		EXPECT_EQ(-ETIMEDOUT, acquire(self->other, &arg));
		EXPECT_EQ(0, memcmp(&holder, &arg.holder, sizeof(holder)));
	}
	/* The holder may go on as long as nobody waits */
	arg = ask(0, "new");
	ASSERT_EQ(0, reacquire(self->c, &arg));
	EXPECT_EQ(self->token, arg.token);
	ASSERT_EQ(0, renew(self->c, 0));
	EXPECT_EQ(TLOCK_REVOKING, look(self->c).holder.flags);
	EXPECT_EQ(before, look(self->c).holder.expires_ns);
	EXPECT_EQ(POLLOUT, events_of(self->c));
	/* And even past its end, unless it is taken at once */
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, 1));
	usleep(2000);
	ASSERT_EQ(0, reacquire(self->c, &arg));
	EXPECT_EQ(self->token, arg.token);
	EXPECT_EQ(TLOCK_REVOKING, look(self->c).holder.flags);
	EXPECT_GT(now(), look(self->c).holder.expires_ns);
	EXPECT_EQ(self->before.revoked, look(self->c).revoked);
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, 0));
	EXPECT_LOST(self->c);
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->other);
}

/* A grace so long that it never ends */
TEST_F(revoke, g12_huge_grace)
{
	const __u64 graces[] = {
		~0ULL, 1ULL << 63, INT64_MAX, INT64_MAX - now() + PATIENCE,
		(1ULL << 63) - now(), INT64_MAX / 4 * 3,
	};
	struct tlock_acquire arg;
	__u64 token;

	ASSERT_EQ(0, release(self->c));
	for (size_t i = 0; i < ARRAY_SIZE(graces); i++) {
		token = take(self->c, "c");
		ASSERT_EQ(0, revoke_grant(self->operator, token, graces[i]));
		EXPECT_EQ(TLOCK_REVOKING, look(self->c).holder.flags);
		EXPECT_LE(INT64_MAX / 2, look(self->c).holder.expires_ns);
		arg = ask(MSEC, "waits");
		EXPECT_EQ(-ETIMEDOUT, acquire(self->other, &arg));
		EXPECT_EQ(token, look(self->c).holder.token);
		EXPECT_EQ(0, release(self->c));
	}
}

/* A holder that ends in time, in whatever way, was not revoked. */
TEST_F(revoke, g12_ends_in_time)
{
	struct tlock_acquire arg, waiting;
	__u64 token = self->token;

	/* By RELEASE, while nobody waits and while somebody does */
	ASSERT_EQ(0, revoke_grant(self->operator, token, LONG));
	ASSERT_EQ(0, release(self->c));
	EXPECT_NEXT_LEARNS(0, self->other);
	token = take(self->c, "c");
	EXPECT_EQ(0, look(self->c).holder.flags);
	EXPECT_EQ(0, look(self->c).holder.expires_ns);
	ASSERT_EQ(0, revoke_grant(self->operator, token, LONG));
	waiting = start_acquire(self->other, FOREVER, "other");
	ASSERT_EQ(0, release(self->c));
	EXPECT_EQ(TLOCK_UNFETCHED, look(self->c).holder.flags);
	ASSERT_EQ(0, acquire(self->other, &waiting));
	EXPECT_EQ(0, waiting.result);

	/* By a reacquire, whose next grant is another one */
	ASSERT_EQ(0, revoke_grant(self->operator, token + 1, LONG));
	waiting = start_acquire(self->c, FOREVER, "c");
	arg = start_reacquire(self->other, FOREVER, "");
	EXPECT_EQ(TLOCK_UNFETCHED, look(self->c).holder.flags);
	ASSERT_EQ(0, acquire(self->c, &waiting));
	EXPECT_EQ(0, waiting.result);
	ASSERT_EQ(0, release(self->c));
	EXPECT_EQ(TLOCK_UNFETCHED, look(self->c).holder.flags);
	EXPECT_EQ(0, look(self->c).holder.expires_ns);
	ASSERT_EQ(0, reacquire(self->other, &arg));
	EXPECT_EQ(-ESTALE, revoke_grant(self->operator, token + 1, 0));

	/* By closing its file: that is an abandonment */
	ASSERT_EQ(0, revoke_grant(self->operator, token + 3, LONG));
	ASSERT_EQ(0, close(self->other));
	self->other = contender();
	EXPECT_EQ(self->before.abandoned + 1, look(self->c).abandoned);
	EXPECT_NEXT_LEARNS(TLOCK_ABANDONED, self->other);
	EXPECT_EQ(self->before.revoked, look(self->c).revoked);
}

/* A lease and a grace: the earlier one counts. */
TEST_F(revoke, g12_grace_and_lease)
{
	const __u32 both = TLOCK_LEASED | TLOCK_REVOKING;
	struct tlock_acquire arg;
	struct tlock_holder holder;
	__s64 grace_end, begun;

	ASSERT_EQ(0, renew(self->c, LONG));
	/* The lease ends first, and can be renewed up to the grace's end */
	begun = now();
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, 2 * LONG));
	grace_end = begun + 2 * LONG;
	holder = look(self->c).holder;
	EXPECT_EQ(both, holder.flags);
	EXPECT_GE(begun + LONG, holder.expires_ns);
	begun = now();
	ASSERT_EQ(0, renew(self->c, 0));
	EXPECT_LE(begun + LONG, look(self->c).holder.expires_ns);
	ASSERT_EQ(0, renew(self->c, 3 * LONG));
	EXPECT_LE(grace_end, look(self->c).holder.expires_ns);
	EXPECT_GE(begun + 2 * LONG, look(self->c).holder.expires_ns);
	/* But no renewal prolongs the grace */
	begun = now();
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, LONG / 2));
	holder = look(self->c).holder;
	EXPECT_LE(begun + LONG / 2, holder.expires_ns);
	for (int i = 0; i < 3; i++) {
		arg = ask_lease(0, i == 1 ? "new" : "", LONG);
		arg.flags = i ? TLOCK_RENEW : 0;
		ASSERT_EQ(0, reacquire(self->c, &arg));
		EXPECT_EQ(both, look(self->c).holder.flags);
		EXPECT_EQ(holder.expires_ns, look(self->c).holder.expires_ns);
	}
	/* A shorter lease counts again */
	ASSERT_EQ(0, renew(self->c, LONG / 4));
	EXPECT_GT(holder.expires_ns, look(self->c).holder.expires_ns);
	ASSERT_EQ(0, renew(self->c, LONG));

	/* And a holder that renews all the time is revoked at the grace's end */
	begun = now();
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, 50 * MSEC));
	start_acquire(self->other, FOREVER, "other");
	while (!renew(self->c, LONG))
		ASSERT_GT(begun + PATIENCE, now());
	EXPECT_LE(begun + 50 * MSEC, look(self->c).holder.since_ns);
	EXPECT_STREQ("other", look(self->c).holder.job);
	/* That call has learned it */
	EXPECT_STREQ("idle", state_of(self->c, NULL));
	EXPECT_EQ(0, release(self->other));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->c);
	/* The next grant has neither */
	take(self->c, "c");
	EXPECT_EQ(0, look(self->c).holder.flags);
	EXPECT_EQ(0, release(self->c));
}

/* A shorter grace, while somebody waits for the end of a longer one */
TEST_F(revoke, g12_shorter_grace_while_others_wait)
{
	struct call *waiter;
	__s64 begun;

	ASSERT_EQ(0, revoke_grant(self->operator, self->token, LONG));
	waiter = call(self->other, acquire, FOREVER, "other");
	ASSERT_TRUE(await_waiters(self->c, 1));
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, 2 * LONG));
	begun = now();
	ASSERT_EQ(0, revoke_grant(self->operator, self->token, 20 * MSEC));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(TLOCK_REVOKED, waiter->arg->result);
	EXPECT_LE(begun + 20 * MSEC, look(self->c).holder.since_ns);
	EXPECT_LOST(self->c);
	EXPECT_EQ(0, release(self->other));
}

/* Who may do it */

/*
 * In an agent: becomes this user, with CAP_KILL only, or with all capabilities
 * but that one
 */
static int become(int fd, struct tlock_acquire *arg)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	const __u32 cap_kill = 1U << CAP_KILL;
	struct __user_cap_data_struct caps[2];
	uid_t euid = arg->timeout_ns;

	if (prctl(PR_SET_KEEPCAPS, 1) || setresuid(arg->lease_ns, euid, euid) ||
	    syscall(SYS_capget, &header, caps))
		return -errno;
	for (int i = 0; i < 2; i++) {
		caps[i].permitted &= arg->flags ? (i ? 0 : cap_kill) :
						  (i ? ~0U : ~cap_kill);
		caps[i].effective = caps[i].permitted;
		caps[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, caps) ? -errno : 0;
}

static struct agent *agent_as(uid_t ruid, uid_t euid, bool cap_kill)
{
	struct tlock_acquire arg = ask_lease(euid, "", ruid);
	struct agent *a = agent();

	arg.flags = cap_kill;
	if (agent_do(a, become, &arg))
		die("cannot become user %d", (int)euid);
	return a;
}

TEST_F(revoke, g12_permission)
{
	static const struct {
		uid_t holder;		/* effective */
		uid_t ruid, euid;	/* of the operator */
		bool cap_kill;
		int ret;
	} cases[] = {
		{ 1000, 1000, 1000, false, 0 },
		{ 1000, 1000, 1001, false, -EPERM },
		{ 1000, 1001, 1000, false, 0 },
		{ 1000, 1001, 1001, false, -EPERM },
		{ 1000, 1001, 1001, true, 0 },
		{ 1000, 0, 0, true, 0 },
		{ 1000, 0, 0, false, -EPERM },
		{ 0, 0, 0, false, 0 },
		{ 0, 1000, 1000, false, -EPERM },
		{ 0, 0, 1000, false, -EPERM },
		{ 0, 1000, 1000, true, 0 },
	};
	struct agent *holder, *operator;
	int ret;
	__u64 token;

	ASSERT_EQ(0, release(self->c));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		holder = agent_as(1234, cases[i].holder, false);
		operator = agent_as(cases[i].ruid, cases[i].euid,
				    cases[i].cap_kill);
		token = agent_take(holder, "holder");
		/* An old token is an old token, whoever asks */
		EXPECT_EQ(-ESTALE, agent_revoke(operator, token - 1, 0));
		EXPECT_EQ(cases[i].ret, agent_revoke(operator, token, LONG));
		EXPECT_EQ(cases[i].ret ? 0 : TLOCK_REVOKING,
			  look(self->c).holder.flags);
		ret = agent_revoke(operator, token, 0);
		EXPECT_EQ(cases[i].ret, ret) {
			TH_LOG("case %zu", i);
		}
		EXPECT_EQ(ret ? token : 0, look(self->c).holder.token);
		EXPECT_EQ(ret ? 0 : -ESTALE, agent_release(holder));
		EXPECT_NEXT_LEARNS(ret ? 0 : TLOCK_REVOKED, self->c);
		agent_kill(holder);
		agent_kill(operator);
	}
}

/* The holder is the user that it was when it asked. */
static int be_root_again(int fd, struct tlock_acquire *arg)
{
	return setresuid(0, 0, 0) ? -errno : 0;
}

static int take_as_1000(int fd, struct tlock_acquire *arg)
{
	return seteuid(1000) || acquire(fd, arg) || seteuid(0) ? -errno : 0;
}

TEST_F(revoke, g12_permission_is_of_the_grant)
{
	struct agent *holder = agent(), *operator = agent_as(1000, 1000, false);
	struct tlock_acquire arg = ask(FOREVER, "holder");

	ASSERT_EQ(0, release(self->c));
	ASSERT_EQ(0, agent_do(holder, take_as_1000, &arg));
	ASSERT_EQ(0, agent_do(holder, be_root_again, NULL));
	EXPECT_EQ(0, agent_revoke(operator, arg.token, 0));
	EXPECT_EQ(-ESTALE, agent_release(holder));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->c);
	/* It asks anew, as root */
	arg.token = agent_take(holder, "holder");
	EXPECT_EQ(-EPERM, agent_revoke(operator, arg.token, 0));
	EXPECT_EQ(0, agent_release(holder));
}

/* Races: of two who end one grant, one does, and the other learns so. */
FIXTURE(race)
{
	int c;
	int operator;
	int other;
};

FIXTURE_VARIANT(race)
{
	bool wanted;		/* somebody waits */
	bool leased;		/* the holder renews its lease by the way */
};

FIXTURE_VARIANT_ADD(race, alone)
{
};

FIXTURE_VARIANT_ADD(race, wanted)
{
	.wanted = true,
};

FIXTURE_VARIANT_ADD(race, leased)
{
	.leased = true,
};

FIXTURE_SETUP(race)
{
	self->c = contender();
	self->operator = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
}

FIXTURE_TEARDOWN(race)
{
	close(self->c);
	close(self->operator);
	close(self->other);
	EXPECT_LEFT_FREE();
}

#define RACE_TIME	(2 * SEC)

static int release_at(int fd, struct tlock_acquire *arg)
{
	while (now() < arg->timeout_ns)
		;
	return release(fd);
}

static int revoke_at(int fd, struct tlock_acquire *arg)
{
	while (now() < arg->timeout_ns)
		;
	return revoke_grant(fd, arg->token, 0);
}

TEST_F(race, g12_revoke_meets_release)
{
	__s64 end = now() + RACE_TIME, delay = 0, step = 128 * USEC, at;
	struct tlock_acquire when, waits;
	bool first, was_first = false;
	int rounds = 0, revoked = 0, ret;
	struct call *releaser;
	__u64 token;

	while (now() < end) {
		rounds++;
		token = take_lease(self->c, "c", variant->leased ? LONG : 0);
		if (variant->wanted)
			waits = start_acquire(self->other, FOREVER, "other");
		at = now() + MSEC;
		when = ask(at, "");
		releaser = call_with(self->c, release_at, &when);
		while (now() < at + delay)
			;
		ret = revoke_grant(self->operator, token, 0);
		first = !ret;
		ASSERT_EQ(first ? -ESTALE : 0, result(releaser));
		ASSERT_EQ(first ? 0 : -ESTALE, ret);
		ASSERT_STREQ("idle", state_of(self->c, NULL));
		revoked += first;
		if (variant->wanted) {
			ASSERT_EQ(token + 1, look(self->c).holder.token);
			ASSERT_EQ(0, acquire(self->other, &waits));
			ASSERT_EQ(first ? TLOCK_REVOKED : 0, waits.result);
			ASSERT_EQ(0, release(self->other));
		} else {
			ASSERT_EQ(0, look(self->c).holder.token);
			EXPECT_NEXT_LEARNS(first ? TLOCK_REVOKED : 0,
					   self->other);
		}
		/* Later if it was first, to stay close to where they meet */
		if (first != was_first && step > 4 * USEC)
			step /= 2;
		was_first = first;
		delay += first ? step : -step;
	}
	TH_LOG("%d of %d grants were revoked", revoked, rounds);
}

TEST_F(race, g12_revoke_meets_revoke)
{
	__s64 end = now() + RACE_TIME / 4;
	struct tlock_acquire when;
	struct call *revoker;
	int ret;

	while (now() < end) {
		when = ask(0, "");
		when.token = take_lease(self->c, "c",
					variant->leased ? LONG : 0);
		if (variant->wanted)
			start_acquire(self->other, FOREVER, "other");
		when.timeout_ns = now() + MSEC / 2;
		revoker = call_with(self->operator, revoke_at, &when);
		ret = revoke_at(self->c, &when);
		ASSERT_EQ(-ESTALE, ret + result(revoker));
		ASSERT_EQ(-ESTALE, release(self->c));
		ASSERT_EQ(variant->wanted ? 0 : -EPERM, release(self->other));
		EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->c);
	}
}

/* When the latest reacquire that returned 0 began */
static __s64 last_success;
static atomic_int ended;

static int reacquire_often(int fd, struct tlock_acquire *arg)
{
	__s64 begun;
	int ret;

	do {
		*arg = ask(LONG, "");
		begun = now();
		ret = reacquire(fd, arg);
		if (!ret)
			last_success = begun;
		atomic_store(&ended, 1);
	} while (!ret);
	return ret;
}

/* Once REVOKE has returned, no call of the old holder begins and succeeds. */
TEST_F(race, g12_revoke_meets_reacquire)
{
	__s64 end = now() + RACE_TIME, revoked;
	struct tlock_acquire arg;
	struct call *holder;
	unsigned int seed = 5;
	__u64 token;

	while (now() < end) {
		token = take_lease(self->c, "c", variant->leased ? LONG : 0);
		atomic_store(&ended, 0);
		last_success = 0;
		holder = call_with(self->c, reacquire_often, &arg);
		ASSERT_TRUE(await_value(&ended, 1));
		if (rand_r(&seed) % 2)
			usleep(rand_r(&seed) % 500);
		/* Those who wait make it yield: only one who tries does not */
		ASSERT_EQ(0, revoke_grant(self->operator, token, 0));
		revoked = now();
		take(self->other, "other");
		ASSERT_EQ(-ESTALE, result(holder));
		ASSERT_GE(revoked, last_success);
		ASSERT_EQ(0, release(self->other));
	}
}

TEST_HARNESS_MAIN
