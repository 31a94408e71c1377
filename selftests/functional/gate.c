// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 1 on several hosts: the gate of a lock. Contenders of this host can be
 * granted the lock only while its daemon is sure that the lock is with this host.
 * The test itself is the daemon.
 */
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/capability.h>

#include "tlock_test.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME	0x80
#endif

#define NAME		"gated"
/* Tokens of an opening begin at its number times this */
#define TOKENS		1000

/* What the gate is like; for the daemon's file, ends the news */
static struct tlock_gate look_at(int fd)
{
	struct tlock_gate arg;

	memset(&arg, POISON, sizeof(arg));
	arg.op = TLOCK_GATE_LOOK;
	arg.reserved0 = 0;
	memset(arg.reserved, 0, sizeof(arg.reserved));
	if (gate(fd, &arg))
		die("no look at the gate");
	return arg;
}

/* SET that opens the gate for so long, with all tokens of the opening */
static struct tlock_gate opening(__u64 number, __s64 ns)
{
	return (struct tlock_gate){
		.op = TLOCK_GATE_SET,
		.opening = number,
		.until_ns = boottime() + ns,
		.first_token = number ? number * TOKENS : 1,
		.last_token = number * TOKENS + TOKENS - 1,
	};
}

/* SET that shuts it */
static struct tlock_gate shutting(__u64 number)
{
	return (struct tlock_gate){
		.op = TLOCK_GATE_SET,
		.opening = number,
	};
}

static int open_gate(int fd, __u64 number, __s64 ns)
{
	struct tlock_gate arg = opening(number, ns);

	return gate(fd, &arg);
}

static int shut_gate(int fd, __u64 number)
{
	struct tlock_gate arg = shutting(number);

	return gate(fd, &arg);
}

static int attach(int fd)
{
	struct tlock_gate arg = { .op = TLOCK_GATE_ATTACH };

	return gate(fd, &arg);
}

/* Whether the daemon has something to look at, and has looked since */
static bool is_news(int fd)
{
	bool news = await_events(fd, POLLIN) == POLLIN;

	look_at(fd);
	return news;
}

static bool has_news(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	return poll(&poller, 1, 0);
}

static bool await_gate(int fd, __u32 mask, __u32 state)
{
	__s64 end = now() + PATIENCE;

	while ((look_at(fd).state & mask) != state) {
		if (now() > end)
			return false;
		usleep(1000);
	}
	return true;
}

/* A try fails, and this is the holder that it sees. */
#define EXPECT_REFUSED(fd, who) do {					\
	struct tlock_acquire __arg = ask(0, "refused");			\
									\
	EXPECT_EQ(-ETIMEDOUT, acquire(fd, &__arg));			\
	EXPECT_EQ(0, memcmp(&(who), &__arg.holder, sizeof(who)));	\
} while (0)

FIXTURE(gate)
{
	int daemon;
	int a, b;		/* contenders */
	struct tlock_holder nobody;
};

FIXTURE_SETUP(gate)
{
	ASSERT_EQ(0, lock_create_gated(NAME));
	self->daemon = daemon_of(NAME);
	self->a = contender_of(NAME);
	self->b = contender_of(NAME);
	self->nobody = (struct tlock_holder){ .flags = TLOCK_REMOTE };
}

FIXTURE_TEARDOWN(gate)
{
	agents_kill();
	close(self->a);
	close(self->b);
	close(self->daemon);
	locks_delete();
}

/* ### It fails closed */

TEST_F(gate, is_shut_from_birth)
{
	struct tlock_gate arg;
	struct tlock_status st;

	close(self->daemon);
	EXPECT_REFUSED(self->a, self->nobody);
	EXPECT_EQ(-EWOULDBLOCK, flock_try(self->a, NULL));
	st = look(self->a);
	EXPECT_EQ(TLOCK_GATED | TLOCK_SHUT, st.flags);
	EXPECT_EQ(0, memcmp(&self->nobody, &st.holder, sizeof(st.holder)));
	EXPECT_STREQ("unserved", read_text(lock_sysfs(NAME, "gate")));
	/* A daemon alone does not open it */
	self->daemon = daemon_of(NAME);
	EXPECT_REFUSED(self->a, self->nobody);
	EXPECT_EQ(TLOCK_GATED | TLOCK_SHUT | TLOCK_SERVED,
		  look(self->a).flags);
	EXPECT_STREQ("shut", read_text(lock_sysfs(NAME, "gate")));
	arg = look_at(self->a);
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT | TLOCK_GATE_WANTED,
		  arg.state);
	EXPECT_EQ(0, arg.opening);
	/* Nor does it prolong an opening that never was */
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 0, SEC));
	EXPECT_REFUSED(self->a, self->nobody);
	ASSERT_EQ(0, open_gate(self->daemon, 1, PATIENCE));
	EXPECT_EQ(TLOCK_GATED | TLOCK_SERVED, look(self->a).flags);
	EXPECT_STREQ("open", read_text(lock_sysfs(NAME, "gate")));
	EXPECT_EQ(TOKENS, take(self->a, "a"));
	EXPECT_EQ(0, look(self->a).holder.flags);
	EXPECT_EQ(0, release(self->a));
}

TEST_F(gate, is_shut_while_nobody_is_attached)
{
	struct tlock_acquire arg = ask(0, "b");

	ASSERT_EQ(0, open_gate(self->daemon, 1, PATIENCE));
	close(self->daemon);
	EXPECT_REFUSED(self->a, self->nobody);
	self->daemon = daemon_of(NAME);
	EXPECT_REFUSED(self->a, self->nobody);
	/* The same opening goes on, as it is not over */
	ASSERT_EQ(0, open_gate(self->daemon, 1, PATIENCE));
	EXPECT_EQ(TOKENS, take(self->a, "a"));
	/* A grant outlasts the daemon, but no other follows it */
	close(self->daemon);
	EXPECT_EQ(0, reacquire(self->a, &arg));
	EXPECT_EQ(TOKENS, arg.token);
	arg = ask(0, "b");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->b, &arg));
	EXPECT_EQ(TOKENS, arg.holder.token);
	EXPECT_EQ(0, release(self->a));
	EXPECT_REFUSED(self->b, self->nobody);
	EXPECT_EQ(TLOCK_GATED | TLOCK_SHUT, look(self->a).flags);
	self->daemon = daemon_of(NAME);
}

TEST_F(gate, grant_ends_with_the_opening_though_nobody_waits)
{
	__s64 until;

	ASSERT_EQ(0, open_gate(self->daemon, 1, SEC / 2));
	until = look_at(self->daemon).until_ns;
	take(self->a, "a");
	/* The daemon's death makes no difference */
	close(self->daemon);
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	EXPECT_LE(until, boottime());
	EXPECT_GE(until + SEC, boottime());
	EXPECT_LOST(self->a);
	EXPECT_EQ(1, look(self->a).revoked);
	EXPECT_REFUSED(self->b, self->nobody);
	/* It cannot be prolonged any more */
	self->daemon = daemon_of(NAME);
	EXPECT_EQ(TLOCK_REVOKED, look_at(self->daemon).result);
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 1, SEC));
	EXPECT_REFUSED(self->b, self->nobody);
	ASSERT_EQ(0, open_gate(self->daemon, 2, PATIENCE));
	EXPECT_EQ(2 * TOKENS, take(self->a, "a"));
}

TEST_F(gate, free_lock_is_shut_when_the_opening_is_over)
{
	__s64 until;

	ASSERT_EQ(0, open_gate(self->daemon, 1, SEC / 4));
	until = look_at(self->daemon).until_ns;
	take(self->a, "a");
	ASSERT_EQ(0, release(self->a));
	/* At that time, without anybody's doing */
	EXPECT_TRUE(is_news(self->daemon));
	EXPECT_LE(until, boottime());
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	EXPECT_REFUSED(self->a, self->nobody);
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 1, SEC));
}

/* In a child: opens the gate, says so, and does no more */
static int open_and_hang(int said)
{
	int fd = daemon_of(NAME);

	if (open_gate(fd, 1, LONG) || write(said, "", 1) != 1)
		return 1;
	while (true)
		pause();
}

TEST_F(gate, is_shut_when_its_daemon_dies)
{
	int said[2];
	char byte;
	pid_t pid;

	close(self->daemon);
	ASSERT_EQ(0, pipe(said));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(open_and_hang(said[1]));
	ASSERT_EQ(1, read(said[0], &byte, 1));
	take(self->a, "a");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EQ(TLOCK_GATED | TLOCK_SERVED, look(self->a).flags);
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_EQ(TLOCK_GATED | TLOCK_SHUT, look(self->a).flags);
	EXPECT_REFUSED(self->a, self->nobody);
	self->daemon = daemon_of(NAME);
	EXPECT_EQ(0, look_at(self->daemon).state & TLOCK_GATE_OVER);
}

/* The open file is the daemon, like a contender, and not a process. */
TEST_F(gate, is_open_until_the_last_close)
{
	int copy = dup(self->daemon), reader;
	struct agent *child = agent_sharing(self->daemon);

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	close(self->daemon);
	EXPECT_EQ(TLOCK_GATED | TLOCK_SERVED, look(self->a).flags);
	ASSERT_EQ(0, open_gate(copy, 1, LONG));
	close(copy);
	reader = lock_open(NAME, O_RDONLY);
	EXPECT_EQ(-EBUSY, attach(reader));
	EXPECT_EQ(TOKENS, take(self->a, "a"));
	ASSERT_EQ(0, release(self->a));
	agent_kill(child);
	EXPECT_EQ(TLOCK_GATED | TLOCK_SHUT, look(self->a).flags);
	EXPECT_EQ(0, attach(reader));
	self->daemon = reader;
}

/* Waiters do not get in when the grant of an opening that is over ends. */
TEST_F(gate, nobody_follows_when_the_opening_is_over)
{
	struct tlock_gate arg = shutting(1);
	struct tlock_acquire b;

	/* After a grace */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	b = start_acquire(self->b, FOREVER, "b");
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	ASSERT_EQ(0, release(self->a));
	EXPECT_TRUE(has_news(self->daemon));
	EXPECT_STREQ("waiting", state_of(self->b, NULL));
	EXPECT_EQ(TLOCK_GATE_WANTED | TLOCK_GATE_OVER | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	ASSERT_EQ(0, acquire(self->b, &b));
	EXPECT_EQ(2 * TOKENS, b.token);
	ASSERT_EQ(0, release(self->b));

	/* After a revocation */
	take(self->a, "a");
	b = start_acquire(self->b, FOREVER, "b");
	ASSERT_EQ(0, open_gate(self->daemon, 2, SEC / 4));
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	EXPECT_STREQ("waiting", state_of(self->b, NULL));
	EXPECT_LOST(self->a);
	arg = opening(3, LONG);
	arg.result = look_at(self->daemon).result;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	ASSERT_EQ(0, acquire(self->b, &b));
	EXPECT_EQ(TLOCK_REVOKED, b.result);
	ASSERT_EQ(0, release(self->b));

	/* After the daemon's end */
	take(self->a, "a");
	b = start_acquire(self->b, FOREVER, "b");
	close(self->daemon);
	EXPECT_STREQ("holding", state_of(self->a, NULL));
	ASSERT_EQ(0, release(self->a));
	EXPECT_STREQ("waiting", state_of(self->b, NULL));
	EXPECT_EQ(TLOCK_REMOTE, look(self->a).holder.flags);
	/* The opening goes on with the next daemon, if it wants that */
	self->daemon = daemon_of(NAME);
	EXPECT_STREQ("waiting", state_of(self->b, NULL));
	ASSERT_EQ(0, open_gate(self->daemon, 3, LONG));
	ASSERT_EQ(0, acquire(self->b, &b));
	EXPECT_EQ(3 * TOKENS + 2, b.token);
}

/* What was being shut stays so, whoever the daemon is. */
TEST_F(gate, is_shut_though_its_daemon_changes)
{
	struct tlock_gate arg = shutting(1);

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	close(self->daemon);
	self->daemon = daemon_of(NAME);
	EXPECT_EQ(TLOCK_GATE_HELD | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	ASSERT_EQ(0, release(self->a));
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 1, LONG));
}

/* Each kind of holder learns that its grant ended. */
TEST_F(gate, each_holder_learns_that_the_opening_is_over)
{
	struct tlock_acquire arg;
	__u64 n = 0;

	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	take(self->a, "a");
	ASSERT_TRUE(await_gate(self->b, TLOCK_GATE_OVER, TLOCK_GATE_OVER));
	arg = ask(0, "a");
	EXPECT_EQ(-ESTALE, reacquire(self->a, &arg));

	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	take(self->a, "a");
	ASSERT_TRUE(await_gate(self->b, TLOCK_GATE_OVER, TLOCK_GATE_OVER));
	EXPECT_EQ(-ESTALE, renew(self->a, 0));

	/* With a lease that would last longer */
	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	take_lease(self->a, "a", LONG);
	ASSERT_TRUE(await_gate(self->b, TLOCK_GATE_OVER, TLOCK_GATE_OVER));
	arg = ask(0, "");
	EXPECT_EQ(-ESTALE, reacquire(self->a, &arg));

	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	ASSERT_EQ(0, flock_try(self->a, NULL));
	ASSERT_TRUE(await_gate(self->b, TLOCK_GATE_OVER, TLOCK_GATE_OVER));
	EXPECT_EQ(-ESTALE, flock_end(self->a, NULL));

	/* A grant that no call has fetched, to one that waited */
	arg = start_acquire(self->a, FOREVER, "a");
	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	EXPECT_EQ(POLLOUT, await_events(self->a, POLLOUT));
	ASSERT_TRUE(await_gate(self->b, TLOCK_GATE_OVER, TLOCK_GATE_OVER));
	EXPECT_EQ(-ESTALE, acquire(self->a, &arg));
	EXPECT_STREQ("idle", state_of(self->a, NULL));

	/* And the next holder on this host, if the daemon says so */
	EXPECT_EQ(n, look(self->a).revoked);
	EXPECT_EQ(TLOCK_REVOKED, look_at(self->daemon).result);
}

/* Returns as soon as the opening must be over */
static void await_boottime(__s64 until)
{
	while (boottime() < until)
		;
}

/* Keeps the lock with calls that begin before this time, and one after it. */
static int keep_until(int fd, __s64 until)
{
	struct tlock_acquire arg;
	__s64 begun;
	int ret;

	do {
		begun = boottime();
		arg = ask(0, "");
		ret = reacquire(fd, &arg);
	} while (!ret && begun < until);
	return ret;
}

/* A timer can be late: whatever the kernel is asked, it looks at the clock. */
TEST_F(gate, is_over_even_if_no_timer_has_run)
{
	struct tlock_acquire arg;
	__s64 until, begun;
	__u64 n = 0;
	int ret;

	/* Its holder keeps it, again and again */
	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	until = look_at(self->b).until_ns;
	take(self->a, "a");
	EXPECT_EQ(-ESTALE, keep_until(self->a, until));
	EXPECT_LE(until, boottime());

	/* With a lease, that is another way in the kernel */
	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	until = look_at(self->b).until_ns;
	take_lease(self->a, "a", LONG);
	EXPECT_EQ(-ESTALE, keep_until(self->a, until));

	/* Somebody takes it, again and again */
	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	until = look_at(self->b).until_ns;
	do {
		begun = boottime();
		arg = ask(0, "a");
		ret = acquire(self->a, &arg);
		release(self->a);
		/* The tokens must last */
		usleep(500);
	} while (!ret && begun < until);
	EXPECT_EQ(-ETIMEDOUT, ret);
	EXPECT_LE(until, boottime());

	/* Somebody waits, and its holder releases it at that time */
	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	until = look_at(self->b).until_ns;
	take(self->a, "a");
	arg = start_acquire(self->b, FOREVER, "b");
	await_boottime(until);
	release(self->a);
	EXPECT_STREQ("waiting", state_of(self->b, NULL));
	ASSERT_EQ(0, release(self->b));

	/* Once the daemon learns that it is over, nobody has the lock */
	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	until = look_at(self->b).until_ns;
	take(self->a, "a");
	await_boottime(until);
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	EXPECT_LOST(self->a);

	/* It cannot be prolonged */
	ASSERT_EQ(0, open_gate(self->daemon, ++n, SEC / 4));
	until = look_at(self->b).until_ns;
	take(self->a, "a");
	await_boottime(until);
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, n, LONG));
	EXPECT_LOST(self->a);
}

/* ### What the daemon says */

TEST_F(gate, openings_have_numbers)
{
	ASSERT_EQ(0, look_at(self->daemon).opening);
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 2, PATIENCE));
	ASSERT_EQ(0, open_gate(self->daemon, 1, PATIENCE));
	EXPECT_EQ(1, look_at(self->daemon).opening);
	/* Said again, it is the same opening */
	ASSERT_EQ(0, open_gate(self->daemon, 1, PATIENCE));
	EXPECT_EQ(-EBUSY, open_gate(self->daemon, 2, PATIENCE));
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 0, PATIENCE));
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 3, PATIENCE));
	EXPECT_EQ(TLOCK_GATE_OPEN, look_at(self->daemon).state);
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 1, PATIENCE));
	EXPECT_REFUSED(self->a, self->nobody);
	/* A number can be used up: a call that comes late cannot begin it */
	ASSERT_EQ(0, shut_gate(self->daemon, 2));
	EXPECT_EQ(2, look_at(self->daemon).opening);
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 2, PATIENCE));
	EXPECT_REFUSED(self->a, self->nobody);
	ASSERT_EQ(0, open_gate(self->daemon, 3, PATIENCE));
	EXPECT_EQ(3 * TOKENS, take(self->a, "a"));
	/* A renewal of an earlier opening does not prolong this grant */
	ASSERT_EQ(0, open_gate(self->daemon, 3, SEC / 4));
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 1, LONG));
	EXPECT_EQ(-ESTALE, open_gate(self->daemon, 2, LONG));
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
}

/* With the errors, the daemon learns what holds. */
TEST_F(gate, set_describes_the_gate)
{
	struct tlock_gate arg = opening(1, PATIENCE), busy, stale;

	arg.flags = TLOCK_GATE_RECALL;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_RECALL, arg.flags);
	EXPECT_EQ(0, arg.first_token);
	EXPECT_EQ(TOKENS - 1, arg.token);
	EXPECT_EQ(2 * TOKENS - 1, arg.last_token);
	arg = opening(1, PATIENCE);
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(0, arg.flags);
	EXPECT_EQ(TLOCK_GATE_OPEN, arg.state);
	EXPECT_TRUE(zeroed(&arg.holder, sizeof(arg.holder)));
	take(self->a, "a");
	busy = opening(2, PATIENCE);
	EXPECT_EQ(-EBUSY, gate(self->daemon, &busy));
	EXPECT_EQ(1, busy.opening);
	EXPECT_EQ(arg.until_ns, busy.until_ns);
	EXPECT_EQ(TLOCK_GATE_OPEN | TLOCK_GATE_HELD, busy.state);
	EXPECT_STREQ("a", busy.holder.job);
	EXPECT_EQ(TOKENS, busy.holder.token);
	EXPECT_EQ(TOKENS, busy.token);
	EXPECT_EQ(getpid(), busy.holder.pid);
	stale = shutting(7);
	stale.grace_ns = SEC;
	EXPECT_EQ(-ESTALE, gate(self->daemon, &stale));
	EXPECT_EQ(0, stale.grace_ns);
	EXPECT_EQ(1, stale.opening);
	EXPECT_STREQ("a", stale.holder.job);
}

TEST_F(gate, time_can_be_changed)
{
	__s64 begun = now();

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	/* Sooner */
	ASSERT_EQ(0, open_gate(self->daemon, 1, SEC / 4));
	/* Later */
	ASSERT_EQ(0, open_gate(self->daemon, 1, SEC));
	sleep_until(begun + SEC / 2);
	EXPECT_EQ(POLLOUT, events_of(self->a));
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	EXPECT_LE(begun + SEC, now());
	EXPECT_GE(begun + SEC * 3 / 2, now());
}

TEST_F(gate, grace)
{
	struct tlock_gate arg = shutting(1);
	struct tlock_acquire try = ask(0, "b");
	__s64 begun, until;

	/* None: at once */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT, arg.state);
	EXPECT_EQ(0, arg.until_ns);
	EXPECT_LOST(self->a);

	/* The grant goes on, but there is no other */
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	take(self->a, "a");
	arg = shutting(2);
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_HELD | TLOCK_GATE_SPENT, arg.state);
	EXPECT_EQ(0, arg.last_token);
	EXPECT_EQ(-EBUSY, open_gate(self->daemon, 3, LONG));
	EXPECT_EQ(-ETIMEDOUT, acquire(self->b, &try));
	EXPECT_STREQ("a", try.holder.job);
	EXPECT_FALSE(has_news(self->daemon));
	/* It is wanted back, so a reacquire gives it up */
	EXPECT_EQ(POLLIN | POLLOUT | POLLPRI, events_of(self->a));
	ASSERT_EQ(0, release(self->a));
	EXPECT_TRUE(has_news(self->daemon));
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);

	/* It ends */
	ASSERT_EQ(0, open_gate(self->daemon, 3, LONG));
	take(self->a, "a");
	begun = now();
	arg = shutting(3);
	arg.grace_ns = SEC / 4;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	/* It can be shortened, but not prolonged */
	arg = shutting(3);
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	EXPECT_LE(begun + SEC / 4, now());
	EXPECT_GE(begun + SEC, now());
	EXPECT_LOST(self->a);

	/* And not later than the opening would have */
	ASSERT_EQ(0, open_gate(self->daemon, 4, SEC / 4));
	take(self->a, "a");
	until = look_at(self->daemon).until_ns;
	arg = shutting(4);
	arg.grace_ns = UINT64_MAX;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(until, arg.until_ns);
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	EXPECT_LOST(self->a);

	/* It is for a grant: without one, the opening is over at once */
	ASSERT_EQ(0, open_gate(self->daemon, 5, LONG));
	arg = shutting(5);
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT, arg.state);
	/* Also if no token was left */
	arg = opening(6, LONG);
	arg.last_token = arg.first_token;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	take(self->a, "a");
	ASSERT_EQ(0, release(self->a));
	EXPECT_REFUSED(self->a, self->nobody);
	arg = shutting(6);
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT | TLOCK_GATE_WANTED,
		  arg.state);
}

/* A daemon may change its mind, as long as the grant lasts. */
TEST_F(gate, opens_again_during_the_grace)
{
	struct tlock_gate arg = shutting(1);

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, release(self->a));
	EXPECT_EQ(TOKENS + 1, take(self->b, "b"));
	EXPECT_EQ(TLOCK_GATE_OPEN | TLOCK_GATE_HELD,
		  look_at(self->daemon).state);
	/* Nothing is left of that grace: out of tokens, it is not over */
	arg = opening(1, LONG);
	arg.last_token = TOKENS + 1;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	ASSERT_EQ(0, release(self->b));
	EXPECT_REFUSED(self->b, self->nobody);
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	EXPECT_EQ(TOKENS + 2, take(self->b, "b"));
}

TEST_F(gate, tokens)
{
	struct tlock_acquire waiter;
	struct tlock_gate arg = opening(1, LONG);

	arg.last_token = arg.first_token + 1;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TOKENS, take(self->a, "a"));
	ASSERT_EQ(0, release(self->a));
	EXPECT_EQ(TOKENS + 1, take(self->a, "a"));
	EXPECT_EQ(TLOCK_GATE_HELD | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	ASSERT_EQ(0, release(self->a));
	EXPECT_EQ(TLOCK_REMOTE, look(self->b).holder.flags);
	EXPECT_REFUSED(self->a, self->nobody);
	EXPECT_TRUE(has_news(self->daemon));
	waiter = start_acquire(self->a, FOREVER, "a");
	EXPECT_EQ(TLOCK_GATE_WANTED | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	/* More of them let the waiter in */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, acquire(self->a, &waiter));
	EXPECT_EQ(TOKENS + 2, waiter.token);
	/* A smaller first one changes nothing; a larger one does, from now on */
	arg = opening(1, LONG);
	arg.first_token = 1;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TOKENS + 2, arg.token);
	arg = opening(1, LONG);
	arg.first_token = TOKENS + 10;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TOKENS + 2, look(self->a).holder.token);
	ASSERT_EQ(0, release(self->a));
	EXPECT_EQ(TOKENS + 10, take(self->b, "b"));
	ASSERT_EQ(0, release(self->b));
	/* A range that is below what was given has none */
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	arg = opening(2, LONG);
	arg.first_token = 1;
	arg.last_token = TOKENS + 10;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_SPENT, arg.state);
	EXPECT_REFUSED(self->a, self->nobody);
}

TEST_F(gate, results_come_and_go)
{
	struct tlock_gate arg = opening(1, LONG);
	struct tlock_acquire next;
	int c = contender_of(NAME);

	arg.result = TLOCK_ABANDONED;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	/* Only the beginning of an opening sets them */
	arg = opening(1, LONG);
	arg.result = TLOCK_REVOKED;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	ASSERT_EQ(0, flock_try(self->a, NULL));
	ASSERT_EQ(0, flock_end(self->a, NULL));
	EXPECT_EQ(TLOCK_ABANDONED, look_at(self->daemon).result);
	/* Who is refused learns nothing */
	ASSERT_EQ(0, flock_try(self->a, NULL));
	next = ask(MSEC, "next");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->b, &next));
	ASSERT_EQ(0, flock_end(self->a, NULL));
	EXPECT_EQ(TLOCK_ABANDONED, look_at(self->daemon).result);
	EXPECT_NEXT_LEARNS(TLOCK_ABANDONED, self->a);
	EXPECT_EQ(0, look_at(self->daemon).result);

	take(c, "c");
	close(c);
	EXPECT_EQ(TLOCK_ABANDONED, look_at(self->daemon).result);
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	EXPECT_EQ(TLOCK_ABANDONED, look_at(self->daemon).result);
	/* Not lost by a number that is used up */
	ASSERT_EQ(0, shut_gate(self->daemon, 2));
	EXPECT_EQ(TLOCK_ABANDONED, look_at(self->daemon).result);
	/* Another host's holder has learned that */
	ASSERT_EQ(0, open_gate(self->daemon, 3, LONG));
	EXPECT_NEXT_LEARNS(0, self->a);
	ASSERT_EQ(0, shut_gate(self->daemon, 3));
	arg = opening(4, LONG);
	arg.result = TLOCK_ABANDONED | TLOCK_REVOKED;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	next = ask(0, "next");
	ASSERT_EQ(0, acquire(self->a, &next));
	EXPECT_EQ(TLOCK_ABANDONED | TLOCK_REVOKED, next.result);
}

/* ### The holder on another host */

static struct tlock_gate remote(__u64 number)
{
	struct tlock_gate arg = shutting(number);

	arg.holder.token = 77;
	arg.holder.since_ns = now() - 5 * SEC;
	strcpy(arg.holder.comm, "fts");
	strcpy(arg.holder.job, "scan");
	strcpy(arg.host, "far");
	/* Whatever follows the NUL is nobody's business */
	arg.holder.job[5] = 'x';
	arg.holder.comm[4] = 'y';
	arg.host[4] = 'z';
	return arg;
}

TEST_F(gate, shows_the_holder_on_another_host)
{
	struct tlock_gate arg = remote(0), seen;
	struct tlock_holder holder = {
		.token = 77,
		.since_ns = arg.holder.since_ns,
		.flags = TLOCK_REMOTE,
		.comm = "fts",
		.job = "scan",
	};
	struct tlock_acquire waiter;
	struct tlock_status status;

	EXPECT_STREQ("", read_text(lock_sysfs(NAME, "host")));
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_REFUSED(self->a, holder);
	status = look(self->a);
	EXPECT_EQ(0, memcmp(&holder, &status.holder, sizeof(holder)));
	seen = look_at(self->a);
	EXPECT_EQ(0, memcmp(&holder, &seen.holder, sizeof(holder)));
	EXPECT_STREQ("far", seen.host);
	EXPECT_TRUE(zeroed(seen.host + 3, sizeof(seen.host) - 3));
	EXPECT_STREQ("far", read_text(lock_sysfs(NAME, "host")));
	EXPECT_STREQ("scan", read_text(lock_sysfs(NAME, "job")));
	EXPECT_STREQ("fts", read_text(lock_sysfs(NAME, "comm")));
	EXPECT_STREQ("", read_text(lock_sysfs(NAME, "pid")));
	EXPECT_STREQ("", read_text(lock_sysfs(NAME, "uid")));
	EXPECT_EQ(77, read_number(lock_sysfs(NAME, "token")));
	EXPECT_LE(5 * SEC, read_number(lock_sysfs(NAME, "held_ns")));

	/* Also to those who wait, at the time when the wait ends */
	waiter = start_acquire(self->a, SEC / 4, "a");
	arg = remote(0);
	strcpy(arg.holder.job, "next scan");
	strcpy(holder.job, "next scan");
	holder.since_ns = arg.holder.since_ns;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(POLLOUT, await_events(self->a, POLLOUT));
	EXPECT_EQ(-ETIMEDOUT, acquire(self->a, &waiter));
	EXPECT_EQ(0, memcmp(&holder, &waiter.holder, sizeof(holder)));

	/* Nobody is known to hold it */
	arg = remote(0);
	arg.holder.token = 0;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_REFUSED(self->a, self->nobody);

	/* Not shown while it is open */
	arg = remote(1);
	arg.until_ns = boottime() + LONG;
	arg.first_token = TOKENS;
	arg.last_token = 2 * TOKENS;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_STREQ("", arg.host);
	EXPECT_STREQ("", read_text(lock_sysfs(NAME, "host")));
	EXPECT_EQ(0, look(self->a).holder.token);
	take(self->a, "a");
	EXPECT_EQ(TOKENS, look(self->a).holder.token);
	EXPECT_EQ(0, look(self->a).holder.flags);

	/* Each SET says all of it anew */
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	EXPECT_REFUSED(self->b, self->nobody);
	EXPECT_STREQ("", read_text(lock_sysfs(NAME, "host")));
}

TEST_F(gate, revoke_of_another_hosts_grant)
{
	struct tlock_gate arg = remote(0);

	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(-ESTALE, revoke_grant(self->a, 76, 0));
	EXPECT_EQ(-EREMOTE, revoke_grant(self->a, 77, 0));
	EXPECT_EQ(-EREMOTE, revoke_grant(self->a, 77, SEC));
	EXPECT_EQ(0, look(self->a).revoked);
	EXPECT_EQ(TLOCK_REMOTE, look(self->a).holder.flags);
	/* One of this host can be revoked as always */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	ASSERT_EQ(0, revoke_grant(self->b, TOKENS, 0));
	EXPECT_LOST(self->a);
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->b);
}

/* ### Those who wait */

TEST_F(gate, waiters_keep_their_order)
{
	struct tlock_acquire first, third;
	struct call *second;
	int c = contender_of(NAME);

	first = start_acquire(self->a, FOREVER, "first");
	second = call(self->b, acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->a, 2));
	third = start_acquire(c, FOREVER, "third");
	EXPECT_EQ(3, look_at(self->daemon).waiters);
	EXPECT_EQ(TLOCK_GATE_WANTED | TLOCK_GATE_OVER | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	/* The longest waiter has it before the call returns */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	EXPECT_STREQ("first", look(self->a).holder.job);
	ASSERT_EQ(0, acquire(self->a, &first));
	EXPECT_EQ(TOKENS, first.token);
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	EXPECT_LOST(self->a);
	EXPECT_EQ(2, look(self->a).waiters);
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(2 * TOKENS, second->arg->token);
	ASSERT_EQ(0, release(self->b));
	ASSERT_EQ(0, acquire(c, &third));
	EXPECT_EQ(2 * TOKENS + 1, third.token);
	ASSERT_EQ(0, release(c));
	EXPECT_EQ(3, look(self->a).contended);
	close(c);
}

TEST_F(gate, flock_waits_for_the_gate)
{
	struct call *c = call(self->a, flock_wait, 0, "");

	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(-EWOULDBLOCK, flock_try(self->b, NULL));
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, result(c));
	EXPECT_EQ(TOKENS, look(self->a).holder.token);
	EXPECT_EQ(0, flock_end(self->a, NULL));
}

TEST_F(gate, waiters_time_out_and_are_interrupted)
{
	struct call *c;
	struct tlock_acquire arg = ask(SEC / 10, "a");

	EXPECT_EQ(-ETIMEDOUT, acquire(self->a, &arg));
	EXPECT_EQ(0, memcmp(&self->nobody, &arg.holder, sizeof(arg.holder)));
	EXPECT_EQ(1, look(self->a).timed_out);
	handle_usr1(0);
	c = call(self->a, acquire, FOREVER, "a");
	ASSERT_TRUE(await_waiters(self->a, 1));
	send_signal(c, SIGUSR1);
	EXPECT_EQ(-EINTR, result(c));
	EXPECT_STREQ("away", state_of(self->a, NULL));
	/* Who is away delays nobody, and is not granted the lock */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	EXPECT_EQ(TOKENS, take(self->b, "b"));
	ASSERT_EQ(0, release(self->b));
	ASSERT_EQ(0, acquire(self->a, c->arg));
	EXPECT_EQ(TOKENS + 1, c->arg->token);
}

/* The gate holds the lock, but that is no grant. */
TEST_F(gate, counters)
{
	struct tlock_acquire b;
	struct tlock_status st;
	__s64 begun;

	EXPECT_REFUSED(self->a, self->nobody);
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	st = look(self->a);
	EXPECT_EQ(0, st.acquired);
	EXPECT_EQ(1, st.contended);
	EXPECT_EQ(1, st.timed_out);
	EXPECT_EQ(0, st.hold_ns_total);
	EXPECT_EQ(0, st.hold_ns_max);
	EXPECT_EQ(0, st.revoked);
	EXPECT_EQ(0, st.abandoned);
	close(self->daemon);
	EXPECT_EQ(0, look(self->a).abandoned);
	self->daemon = daemon_of(NAME);

	/* One that the gate ends is, for as long as it lasted */
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	begun = now();
	take(self->a, "a");
	usleep(10000);
	ASSERT_EQ(0, shut_gate(self->daemon, 2));
	st = look(self->a);
	EXPECT_EQ(1, st.acquired);
	EXPECT_EQ(1, st.revoked);
	EXPECT_LE(10 * MSEC, st.hold_ns_total);
	EXPECT_GE(now() - begun, st.hold_ns_total);
	EXPECT_EQ(st.hold_ns_total, st.hold_ns_max);
	/* A wait for the gate is one */
	st = look(self->b);
	b = start_acquire(self->b, FOREVER, "b");
	usleep(10000);
	ASSERT_EQ(0, open_gate(self->daemon, 3, LONG));
	ASSERT_EQ(0, acquire(self->b, &b));
	EXPECT_EQ(st.contended + 1, look(self->b).contended);
	EXPECT_LE(st.wait_ns_total + 10 * MSEC, look(self->b).wait_ns_total);
	EXPECT_EQ(st.hold_ns_total, look(self->b).hold_ns_total);
}

/* ### Other hosts want it */

static int recall(int fd, __u64 number, __u64 last_token)
{
	struct tlock_gate arg = opening(number, LONG);

	arg.flags = TLOCK_GATE_RECALL;
	arg.last_token = last_token;
	return gate(fd, &arg);
}

TEST_F(gate, recall_lets_nobody_keep_the_lock)
{
	struct tlock_acquire arg = ask(FOREVER, "");

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	EXPECT_EQ(POLLOUT, events_of(self->a));
	ASSERT_EQ(0, reacquire(self->a, &arg));
	EXPECT_EQ(TOKENS, arg.token);
	ASSERT_EQ(0, recall(self->daemon, 1, TOKENS));
	EXPECT_EQ(TLOCK_GATE_HELD | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	EXPECT_EQ(POLLIN | POLLOUT | POLLPRI, events_of(self->a));
	/* A renewal does */
	EXPECT_EQ(0, renew(self->a, 0));
	EXPECT_STREQ("holding", state_of(self->a, NULL));
	EXPECT_FALSE(has_news(self->daemon));
	arg = start_reacquire(self->a, FOREVER, "again");
	EXPECT_TRUE(is_news(self->daemon));
	EXPECT_EQ(TLOCK_GATE_WANTED | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	EXPECT_EQ(1, look(self->a).yielded);
	EXPECT_REFUSED(self->b, self->nobody);
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	EXPECT_EQ(0, look_at(self->daemon).flags);
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	ASSERT_EQ(0, acquire(self->a, &arg));
	EXPECT_EQ(2 * TOKENS, arg.token);
	/* It is as before */
	arg = ask(FOREVER, "");
	ASSERT_EQ(0, reacquire(self->a, &arg));
	EXPECT_EQ(2 * TOKENS, arg.token);
	/* Also if the other host does not want it any more */
	ASSERT_EQ(0, recall(self->daemon, 2, 2 * TOKENS));
	EXPECT_EQ(POLLIN | POLLOUT | POLLPRI, events_of(self->a));
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	EXPECT_EQ(POLLOUT, events_of(self->a));
	ASSERT_EQ(0, reacquire(self->a, &arg));
	EXPECT_EQ(2 * TOKENS, arg.token);
}

/* With the same job, a reacquire takes a shorter way in the kernel. */
TEST_F(gate, recall_meets_a_fast_reacquire)
{
	struct tlock_gate arg = remote(1);
	struct tlock_acquire again = ask(0, "a");

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	ASSERT_EQ(0, reacquire(self->a, &again));
	EXPECT_EQ(TOKENS, again.token);
	arg.flags = TLOCK_GATE_RECALL;
	arg.until_ns = boottime() + LONG;
	arg.first_token = TOKENS;
	arg.last_token = TOKENS;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	/* Those who already have the lock are shown first */
	EXPECT_STREQ("a", look(self->b).holder.job);
	again = ask(0, "a");
	ASSERT_EQ(-ETIMEDOUT, reacquire(self->a, &again));
	EXPECT_EQ(77, again.holder.token);
	EXPECT_EQ(TLOCK_REMOTE, again.holder.flags);
	EXPECT_STREQ("scan", again.holder.job);
	EXPECT_STREQ("idle", state_of(self->a, NULL));
	EXPECT_EQ(1, look(self->a).yielded);
	EXPECT_STREQ("far", read_text(lock_sysfs(NAME, "host")));
	/* And if it waits for a while */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	arg = remote(1);
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	again = ask(10 * MSEC, "a");
	ASSERT_EQ(-ETIMEDOUT, reacquire(self->a, &again));
	EXPECT_EQ(77, again.holder.token);
	EXPECT_EQ(0, again.timeout_ns);
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT | TLOCK_GATE_WANTED,
		  look_at(self->daemon).state | TLOCK_GATE_WANTED);
}

/* Pollers of the holder learn it at once. */
TEST_F(gate, recall_wakes_the_holders_pollers)
{
	struct tlock_gate arg = opening(1, LONG);
	int status;
	pid_t pid;

	ASSERT_EQ(0, gate(self->daemon, &arg));
	take(self->a, "a");
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(await_events(self->a, POLLIN) != POLLIN);
	ASSERT_TRUE(await_asleep(pid));
	ASSERT_EQ(0, recall(self->daemon, 1, TOKENS));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* Those who wait pass, as many as there are tokens; newcomers do not. */
TEST_F(gate, recall_lets_waiters_in)
{
	struct tlock_acquire b, c, d;
	int c_fd = contender_of(NAME), d_fd = contender_of(NAME);

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	b = start_acquire(self->b, FOREVER, "b");
	c = start_acquire(c_fd, FOREVER, "c");
	ASSERT_EQ(0, recall(self->daemon, 1, TOKENS + 1));
	ASSERT_EQ(0, release(self->a));
	ASSERT_EQ(0, acquire(self->b, &b));
	ASSERT_EQ(0, release(self->b));
	EXPECT_EQ(-EINPROGRESS, acquire(c_fd, &c));
	EXPECT_EQ(TLOCK_GATE_WANTED | TLOCK_GATE_SPENT,
		  look_at(self->daemon).state);
	EXPECT_EQ(0, release(c_fd));

	/* A token that is left is for those who wait, and nobody does */
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	take(self->a, "a");
	ASSERT_EQ(0, recall(self->daemon, 2, 2 * TOKENS + 5));
	look_at(self->daemon);
	ASSERT_EQ(0, release(self->a));
	EXPECT_TRUE(has_news(self->daemon));
	EXPECT_REFUSED(self->b, self->nobody);
	d = start_acquire(d_fd, FOREVER, "d");
	EXPECT_EQ(-EINPROGRESS, acquire(d_fd, &d));
	/* Unless the daemon lets them */
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	ASSERT_EQ(0, acquire(d_fd, &d));
	close(c_fd);
	close(d_fd);
}

/* A free lock, too, is not for newcomers any more. */
TEST_F(gate, recall_of_a_free_lock)
{
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, recall(self->daemon, 1, 2 * TOKENS));
	EXPECT_REFUSED(self->a, self->nobody);
	EXPECT_EQ(TLOCK_GATE_WANTED, look_at(self->daemon).state);
	EXPECT_EQ(0, look_at(self->daemon).state);
}

TEST_F(gate, recall_applies_a_lease)
{
	__s64 begun = now();

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take_lease(self->a, "a", SEC / 2);
	sleep_until(begun + SEC);
	EXPECT_EQ(POLLOUT, events_of(self->a));
	ASSERT_EQ(0, recall(self->daemon, 1, TOKENS));
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	EXPECT_LOST(self->a);
	EXPECT_EQ(TLOCK_REVOKED, look_at(self->daemon).result);
	ASSERT_EQ(0, shut_gate(self->daemon, 1));

	/* And one that ends later */
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	begun = now();
	take_lease(self->a, "a", SEC / 2);
	ASSERT_EQ(0, recall(self->daemon, 2, 2 * TOKENS));
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	EXPECT_LE(begun + SEC / 2, now());
}

/* So does one that nobody has fetched in time. */
TEST_F(gate, recall_ends_an_unfetched_grant)
{
	struct tlock_acquire arg = start_acquire(self->a, SEC / 4, "a");

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	EXPECT_EQ(TLOCK_UNFETCHED, look(self->a).holder.flags);
	ASSERT_EQ(0, recall(self->daemon, 1, TOKENS));
	ASSERT_TRUE(await_gate(self->daemon, TLOCK_GATE_HELD, 0));
	EXPECT_EQ(-ETIMEDOUT, acquire(self->a, &arg));
	EXPECT_EQ(TLOCK_REMOTE, arg.holder.flags);
	EXPECT_EQ(0, look_at(self->daemon).result);
	EXPECT_EQ(0, look(self->a).revoked);
}

/* ### News for the daemon */

TEST_F(gate, news)
{
	int reader = lock_open(NAME, O_RDONLY);
	struct tlock_acquire a, b;

	EXPECT_FALSE(has_news(self->daemon));
	/* Somebody waits, and then nobody does */
	a = start_acquire(self->a, FOREVER, "a");
	EXPECT_TRUE(is_news(self->daemon));
	EXPECT_FALSE(has_news(self->daemon));
	b = start_acquire(self->b, FOREVER, "b");
	EXPECT_EQ(0, release(self->b));
	EXPECT_FALSE(has_news(self->daemon));
	EXPECT_EQ(0, release(self->a));
	EXPECT_TRUE(is_news(self->daemon));
	EXPECT_EQ(0, look_at(self->daemon).state & TLOCK_GATE_WANTED);
	/* The end of a wait by timeout */
	a = start_acquire(self->a, SEC / 10, "a");
	EXPECT_TRUE(is_news(self->daemon));
	EXPECT_TRUE(is_news(self->daemon));
	EXPECT_EQ(-ETIMEDOUT, acquire(self->a, &a));

	/* A try is remembered until the daemon has seen it, and nobody else */
	EXPECT_REFUSED(self->a, self->nobody);
	look_at(self->a);
	EXPECT_TRUE(has_news(self->daemon));
	EXPECT_FALSE(has_news(reader));
	EXPECT_EQ(TLOCK_GATE_WANTED,
		  look_at(self->daemon).state & TLOCK_GATE_WANTED);
	EXPECT_EQ(0, look_at(self->daemon).state & TLOCK_GATE_WANTED);
	EXPECT_FALSE(has_news(self->daemon));

	/* None while it is open, whatever happens */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	b = start_acquire(self->b, FOREVER, "b");
	ASSERT_EQ(0, release(self->a));
	ASSERT_EQ(0, acquire(self->b, &b));
	a = ask(0, "a");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->a, &a));
	ASSERT_EQ(0, release(self->b));
	EXPECT_FALSE(has_news(self->daemon));
	EXPECT_EQ(TLOCK_GATE_OPEN, look_at(self->daemon).state);

	/* A SET ends it, too */
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	EXPECT_REFUSED(self->a, self->nobody);
	EXPECT_TRUE(has_news(self->daemon));
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	EXPECT_FALSE(has_news(self->daemon));
	close(reader);
}

static int await_news(int fd, struct tlock_acquire *arg)
{
	return await_events(fd, POLLIN);
}

/* The daemon sleeps until this happens. */
#define EXPECT_WOKEN_BY(cause) do {					\
	struct call *__sleeper = call(self->daemon, await_news, 0, "");	\
									\
	ASSERT_TRUE(await_value(&__sleeper->tid, 1));			\
	ASSERT_TRUE(await_asleep(__sleeper->tid));			\
	cause;								\
	EXPECT_EQ(POLLIN, result(__sleeper)) {				\
		TH_LOG("%s", #cause);					\
	}								\
	look_at(self->daemon);						\
	EXPECT_FALSE(has_news(self->daemon)) {				\
		TH_LOG("%s", #cause);					\
	}								\
} while (0)

TEST_F(gate, news_of_contenders_wake_the_daemon)
{
	struct tlock_acquire arg;
	struct call *c;

	handle_usr1(0);
	EXPECT_WOKEN_BY(start_acquire(self->a, FOREVER, "a"));
	EXPECT_WOKEN_BY(release(self->a));
	EXPECT_WOKEN_BY(c = call(self->a, acquire, FOREVER, "a"));
	ASSERT_TRUE(await_waiters(self->b, 1));
	EXPECT_WOKEN_BY(send_signal(c, SIGUSR1));
	ASSERT_EQ(-EINTR, result(c));
	/* It comes back to its place */
	EXPECT_WOKEN_BY(c = call_with(self->a, acquire, c->arg));
	EXPECT_WOKEN_BY(release(self->a));
	EXPECT_EQ(-ECANCELED, result(c));
	EXPECT_WOKEN_BY(start_acquire(self->a, FOREVER, "a"));
	EXPECT_WOKEN_BY(close(self->a));
	self->a = contender_of(NAME);
	EXPECT_WOKEN_BY(flock_try(self->a, NULL));
	arg = ask_async(0, "a");
	EXPECT_WOKEN_BY(acquire(self->a, &arg));
	EXPECT_WOKEN_BY(c = call(self->a, flock_wait, 0, ""));
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, result(c));
}

/* What ends a grant ends it for the daemon, too. */
TEST_F(gate, news_of_the_end_wake_the_daemon)
{
	struct tlock_gate arg;
	__u64 n = 0;
	int c;

#define REOPEN() do {						\
	shut_gate(self->daemon, n++);					\
	ASSERT_EQ(0, open_gate(self->daemon, n, LONG));			\
	take(self->a, "a");						\
	ASSERT_EQ(0, recall(self->daemon, n, n * TOKENS));		\
} while (0)
	REOPEN();
	EXPECT_WOKEN_BY(release(self->a));
	REOPEN();
	EXPECT_WOKEN_BY(start_reacquire(self->a, FOREVER, ""));
	ASSERT_EQ(0, release(self->a));
	REOPEN();
	EXPECT_WOKEN_BY(revoke_grant(self->b, n * TOKENS, 0));
	EXPECT_LOST(self->a);
	REOPEN();
	EXPECT_WOKEN_BY(revoke_grant(self->b, n * TOKENS, SEC / 10));
	EXPECT_LOST(self->a);
	REOPEN();
	EXPECT_WOKEN_BY(close(self->a));
	self->a = contender_of(NAME);
	REOPEN();
	EXPECT_WOKEN_BY(renew(self->a, SEC / 10));
	EXPECT_LOST(self->a);
	shut_gate(self->daemon, n++);
	ASSERT_EQ(0, open_gate(self->daemon, n, LONG));
	ASSERT_EQ(0, flock_try(self->a, NULL));
	ASSERT_EQ(0, recall(self->daemon, n, n * TOKENS));
	EXPECT_WOKEN_BY(flock_end(self->a, NULL));

	/* Without a recall: shut, out of tokens, and out of time */
	shut_gate(self->daemon, n++);
	ASSERT_EQ(0, open_gate(self->daemon, n, LONG));
	take(self->a, "a");
	arg = shutting(n);
	arg.grace_ns = LONG;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_WOKEN_BY(release(self->a));
	arg = opening(++n, LONG);
	arg.last_token = arg.first_token;
	ASSERT_EQ(0, gate(self->daemon, &arg));
	take(self->a, "a");
	EXPECT_FALSE(has_news(self->daemon));
	c = contender_of(NAME);
	start_acquire(c, FOREVER, "c");
	EXPECT_WOKEN_BY(release(self->a));
	EXPECT_WOKEN_BY(release(c));
	EXPECT_WOKEN_BY(open_gate(self->daemon, n, SEC / 4));
	ASSERT_EQ(0, open_gate(self->daemon, ++n, LONG));
	take(self->a, "a");
	EXPECT_WOKEN_BY(open_gate(self->daemon, n, SEC / 4));
	EXPECT_LOST(self->a);
	close(c);
}

/* ### Who may do what */

TEST_F(gate, attach)
{
	int reader = lock_open(NAME, O_RDONLY);
	int plain = open(DEVICE, O_RDONLY | O_CLOEXEC);
	struct tlock_gate arg = {};

	EXPECT_EQ(-EBADF, attach(self->a));
	EXPECT_EQ(-EBUSY, attach(reader));
	EXPECT_EQ(-EBUSY, attach(self->daemon));
	EXPECT_EQ(-EPERM, open_gate(reader, 1, LONG));
	EXPECT_EQ(-EPERM, open_gate(self->a, 1, LONG));
	EXPECT_EQ(-EPERM, shut_gate(reader, 0));
	EXPECT_EQ(-EOPNOTSUPP, attach(plain));
	EXPECT_EQ(-EOPNOTSUPP, gate(plain, &arg));
	/* A file does one thing */
	EXPECT_EQ(-EBUSY, start_monitor(self->daemon));
	close(self->daemon);
	ASSERT_EQ(0, start_monitor(reader));
	EXPECT_EQ(-EBUSY, attach(reader));
	close(reader);
	close(plain);
	/* It says who waits: that is not news */
	start_acquire(self->b, FOREVER, "b");
	self->daemon = lock_open(NAME, O_RDONLY);
	arg = (struct tlock_gate){ .op = TLOCK_GATE_ATTACH };
	ASSERT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_ATTACH, arg.op);
	EXPECT_EQ(TLOCK_GATE_WANTED | TLOCK_GATE_SPENT | TLOCK_GATE_OVER,
		  arg.state);
	EXPECT_EQ(1, arg.waiters);
	EXPECT_EQ(TLOCK_REMOTE, arg.holder.flags);
	EXPECT_FALSE(has_news(self->daemon));
}

static int without_privileges(const char *name)
{
	int fd = lock_open(name, O_RDONLY);
	struct tlock_gate arg = { .op = TLOCK_GATE_LOOK };

	if (setresgid(1, 1, 1) || setresuid(1, 1, 1))
		return 1;
	if (gate(fd, &arg) || arg.holder.flags != TLOCK_REMOTE)
		return 2;
	return attach(fd) != -EPERM ? 3 : 0;
}

static int with_all_but_one(const char *name)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3
	};
	struct __user_cap_data_struct caps[2] = {};
	int fd = lock_open(name, O_RDONLY);

	if (syscall(SYS_capget, &header, caps))
		return 1;
	caps[0].effective &= ~(1U << CAP_SYS_ADMIN);
	if (syscall(SYS_capset, &header, caps))
		return 1;
	return attach(fd) != -EPERM ? 3 : 0;
}

static int as_root_of_a_namespace(const char *name)
{
	int fd = lock_open(name, O_RDONLY);

	if (unshare(CLONE_NEWUSER))
		return errno == EINVAL ? 0 : 1;
	return attach(fd) != -EPERM ? 3 : 0;
}

static int in_child(int (*fn)(const char *name))
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(fn(NAME));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("no child");
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(gate, needs_sys_admin)
{
	close(self->daemon);
	EXPECT_EQ(0, in_child(without_privileges));
	EXPECT_EQ(0, in_child(with_all_but_one));
	EXPECT_EQ(0, in_child(as_root_of_a_namespace));
	self->daemon = daemon_of(NAME);
}

TEST_F(gate, invalid)
{
	struct tlock_gate arg;
	size_t i;

#define EXPECT_INVALID(change) do {					\
	arg = opening(1, LONG);						\
	change;								\
	EXPECT_EQ(-EINVAL, gate(self->daemon, &arg)) {			\
		TH_LOG("%s", #change);					\
	}								\
} while (0)
	EXPECT_INVALID(arg.op = 3);
	EXPECT_INVALID(arg.op = UINT32_MAX);
	EXPECT_INVALID(arg.flags = 2);
	EXPECT_INVALID(arg.flags = 0x80000001);
	EXPECT_INVALID(arg.reserved0 = 1);
	for (i = 0; i < 4; i++)
		EXPECT_INVALID(arg.reserved[i] = 1);
	EXPECT_INVALID(arg.op = TLOCK_GATE_LOOK; arg.reserved[3] = 1);
	EXPECT_INVALID(arg.op = TLOCK_GATE_ATTACH; arg.reserved0 = 1);
	EXPECT_INVALID(arg.result = 4);
	EXPECT_INVALID(arg.first_token = 0);
	EXPECT_INVALID(arg.last_token = arg.first_token - 1);
	EXPECT_INVALID(arg.holder.pid = 1);
	EXPECT_INVALID(arg.holder.uid = 1);
	EXPECT_INVALID(arg.holder.flags = TLOCK_REMOTE);
	EXPECT_INVALID(arg.holder.reserved = 1);
	EXPECT_INVALID(arg.holder.expires_ns = 1);
	EXPECT_INVALID(memset(arg.holder.comm, 'x', sizeof(arg.holder.comm)));
	EXPECT_INVALID(memset(arg.holder.job, 'x', sizeof(arg.holder.job)));
	EXPECT_INVALID(strcpy(arg.holder.job, "a\nb"));
	EXPECT_INVALID(memset(arg.host, 'x', sizeof(arg.host)));
	EXPECT_INVALID(strcpy(arg.holder.job, "a\xc2\x9b"));
	EXPECT_INVALID(strcpy(arg.host, "a\033b"));
	EXPECT_INVALID(strcpy(arg.host, "a\xc2\x80"));
	/* This is found first */
	EXPECT_INVALID(arg.opening = 7; arg.flags = 2);
	EXPECT_INVALID(arg.until_ns = 0; arg.host[0] = '\n');
	EXPECT_EQ(-EFAULT, gate(self->daemon, NULL));
	EXPECT_EQ(0, look_at(self->daemon).opening);
	/* One token is a range, and what does not matter is ignored */
	arg = shutting(0);
	arg.first_token = 2;
	arg.last_token = 1;
	EXPECT_EQ(0, gate(self->daemon, &arg));
	arg = opening(1, LONG);
	arg.last_token = arg.first_token;
	memset(arg.holder.job, 'x', sizeof(arg.holder.job) - 1);
	memset(arg.host, 'x', sizeof(arg.host) - 1);
	arg.holder.token = 1;
	strcpy(arg.holder.comm, "a\nb");
	arg.state = UINT32_MAX;
	arg.waiters = UINT32_MAX;
	arg.token = UINT64_MAX;
	arg.grace_ns = UINT64_MAX;
	EXPECT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_OPEN, arg.state);
	EXPECT_EQ(0, arg.waiters);
	EXPECT_EQ(TOKENS - 1, arg.token);
	/* A command name can be anything, but forges no line */
	close(self->daemon);
	EXPECT_STREQ("a?b", read_text(lock_sysfs(NAME, "comm")));
	EXPECT_STREQ("a\nb", look(self->a).holder.comm);
	self->daemon = daemon_of(NAME);
	/* All of time */
	arg = opening(1, LONG);
	arg.until_ns = INT64_MAX;
	EXPECT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_OPEN, arg.state);
	arg = opening(1, LONG);
	arg.until_ns = INT64_MIN;
	EXPECT_EQ(0, gate(self->daemon, &arg));
	EXPECT_EQ(TLOCK_GATE_OVER | TLOCK_GATE_SPENT, arg.state);
}

/* If the answer cannot be written, the gate stays as it is. */
TEST_F(gate, set_that_cannot_answer)
{
	size_t page = getpagesize();
	struct tlock_gate *arg = mmap(NULL, page, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, arg);
	*arg = opening(1, LONG);
	ASSERT_EQ(0, mprotect(arg, page, PROT_READ));
	EXPECT_EQ(-EFAULT, gate(self->daemon, arg));
	EXPECT_EQ(0, look_at(self->daemon).opening);
	EXPECT_REFUSED(self->a, self->nobody);
	/* With a page that can be written, it would have opened */
	ASSERT_EQ(0, mprotect(arg, page, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, gate(self->daemon, arg));
	EXPECT_EQ(TLOCK_GATE_OPEN | TLOCK_GATE_WANTED, arg->state);
	munmap(arg, page);
}

/* What a look writes: everything */
TEST_F(gate, look_fills_all)
{
	struct tlock_gate arg = look_at(self->b);

	EXPECT_EQ(TLOCK_GATE_LOOK, arg.op);
	EXPECT_EQ(0, arg.flags);
	EXPECT_EQ(0, arg.waiters);
	EXPECT_EQ(0, arg.until_ns);
	EXPECT_EQ(0, arg.grace_ns);
	EXPECT_EQ(0, arg.first_token);
	EXPECT_EQ(0, arg.last_token);
	EXPECT_EQ(0, arg.token);
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(0, memcmp(&self->nobody, &arg.holder, sizeof(arg.holder)));
	EXPECT_TRUE(zeroed(arg.host, sizeof(arg.host)));
	EXPECT_TRUE(zeroed(arg.reserved, sizeof(arg.reserved)));
}

/* In a time namespace, the daemon's clocks are other ones. */
static int in_time_namespace(const char *name)
{
	int fd, daemon, status;
	struct tlock_gate arg;
	pid_t pid;

	if (unshare(CLONE_NEWTIME))
		return errno == EINVAL ? 0 : 1;
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || dprintf(fd, "monotonic 1000 0\nboottime 5000 0\n") < 0)
		return 2;
	pid = fork();
	if (pid)
		return waitpid(pid, &status, 0) == pid ?
		       WEXITSTATUS(status) : 3;
	daemon = daemon_of(name);
	arg = opening(1, LONG);
	arg.holder.token = 5;
	arg.holder.since_ns = now();
	if (gate(daemon, &arg) || arg.state != TLOCK_GATE_OPEN ||
	    llabs(arg.until_ns - boottime() - LONG) > SEC)
		_exit(4);
	/* It has passed here, but not for those outside, nor the other way */
	arg = opening(1, LONG);
	arg.until_ns = boottime() - SEC;
	if (gate(daemon, &arg) || !(arg.state & TLOCK_GATE_OVER))
		_exit(5);
	arg = remote(1);
	if (gate(daemon, &arg) ||
	    llabs(arg.holder.since_ns - (now() - 5 * SEC)) > SEC)
		_exit(6);
	_exit(0);
}

TEST_F(gate, time_namespaces)
{
	close(self->daemon);
	EXPECT_EQ(0, in_child(in_time_namespace));
	EXPECT_GE(SEC, llabs(look(self->a).holder.since_ns -
			     (now() - 5 * SEC)));
	self->daemon = daemon_of(NAME);
}

/* ### Its lock */

TEST_F(gate, creation)
{
	EXPECT_EQ(-EEXIST, lock_create_gated(NAME));
	EXPECT_EQ(-EEXIST, lock_create(NAME));
	ASSERT_EQ(0, lock_create("plain"));
	EXPECT_EQ(-EEXIST, lock_create_gated("plain"));
	EXPECT_STREQ("", read_text(lock_sysfs("plain", "gate")));
	EXPECT_STREQ("", read_text(lock_sysfs("plain", "host")));
	ASSERT_EQ(0, lock_create_gated("other\n"));
	EXPECT_STREQ("unserved", read_text(lock_sysfs("other", "gate")));
	/* Each has a gate of its own */
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	EXPECT_STREQ("unserved", read_text(lock_sysfs("other", "gate")));
	EXPECT_STREQ("open", read_text(lock_sysfs(NAME, "gate")));
}

TEST_F(gate, deletion)
{
	struct tlock_gate arg = {};
	int daemon;

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	EXPECT_EQ(-EBUSY, lock_delete(NAME));
	close(self->a);
	close(self->b);
	/* A daemon is not in the way, and learns of it */
	ASSERT_EQ(0, lock_delete(NAME));
	EXPECT_EQ(POLLHUP, await_events(self->daemon, POLLIN));
	EXPECT_EQ(-ENODEV, gate(self->daemon, &arg));
	EXPECT_EQ(-ENODEV, open_gate(self->daemon, 1, LONG));
	/* Another lock of that name is another lock */
	ASSERT_EQ(0, lock_create_gated(NAME));
	self->a = contender_of(NAME);
	self->b = contender_of(NAME);
	EXPECT_EQ(-ENODEV, open_gate(self->daemon, 1, LONG));
	EXPECT_REFUSED(self->a, self->nobody);
	daemon = daemon_of(NAME);
	EXPECT_EQ(0, look_at(daemon).opening);
	ASSERT_EQ(0, open_gate(daemon, 1, LONG));
	/* The end of the old one changes nothing */
	close(self->daemon);
	self->daemon = daemon;
	EXPECT_EQ(TOKENS, take(self->a, "a"));
}

/* Watchers learn by what a grant ended. */
TEST_F(gate, events)
{
	struct tlock_event event[4];
	int fd = lock_open(NAME, O_RDONLY | O_NONBLOCK);

	ASSERT_EQ(0, start_monitor(fd));
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	take(self->a, "a");
	ASSERT_EQ(0, shut_gate(self->daemon, 1));
	ASSERT_EQ(2 * sizeof(*event), read_events(fd, event, sizeof(event)));
	EXPECT_EQ(TLOCK_EVENT_ACQUIRED, event[0].kind);
	EXPECT_EQ(0, event[0].flags);
	EXPECT_EQ(TLOCK_EVENT_REVOKED, event[1].kind);
	EXPECT_EQ(TLOCK_REMOTE, event[1].flags);
	EXPECT_EQ(TOKENS, event[1].token);
	EXPECT_STREQ("a", event[1].job);
	ASSERT_EQ(-ESTALE, release(self->a));

	/* At its end, too */
	ASSERT_EQ(0, open_gate(self->daemon, 2, SEC / 4));
	take(self->a, "a");
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	ASSERT_EQ(2 * sizeof(*event), read_events(fd, event, sizeof(event)));
	EXPECT_EQ(TLOCK_EVENT_REVOKED, event[1].kind);
	EXPECT_EQ(TLOCK_REMOTE, event[1].flags);
	ASSERT_EQ(-ESTALE, release(self->a));

	/* But not if others ended it */
	ASSERT_EQ(0, open_gate(self->daemon, 3, LONG));
	ASSERT_EQ(0, recall(self->daemon, 3, 3 * TOKENS));
	ASSERT_EQ(0, open_gate(self->daemon, 3, LONG));
	take_lease(self->a, "a", SEC / 10);
	ASSERT_EQ(0, recall(self->daemon, 3, 3 * TOKENS));
	EXPECT_EQ(POLLERR, await_events(self->a, POLLERR));
	ASSERT_EQ(2 * sizeof(*event), read_events(fd, event, sizeof(event)));
	EXPECT_EQ(TLOCK_EVENT_REVOKED, event[1].kind);
	EXPECT_EQ(TLOCK_LEASED, event[1].flags);
	ASSERT_EQ(-ESTALE, release(self->a));
	ASSERT_EQ(0, open_gate(self->daemon, 3, LONG));
	take(self->a, "a");
	ASSERT_EQ(0, revoke_grant(self->b, 3 * TOKENS + 1, 0));
	ASSERT_EQ(2 * sizeof(*event), read_events(fd, event, sizeof(event)));
	EXPECT_EQ(TLOCK_EVENT_REVOKED, event[1].kind);
	EXPECT_EQ(TLOCK_REVOKING, event[1].flags);
	/* The gate itself has no grants */
	ASSERT_EQ(0, shut_gate(self->daemon, 3));
	ASSERT_EQ(0, open_gate(self->daemon, 4, LONG));
	EXPECT_EQ(-EAGAIN, read_events(fd, event, sizeof(event)));
	close(fd);
}

TEST_HARNESS_MAIN
