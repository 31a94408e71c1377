// SPDX-License-Identifier: GPL-2.0-only
/*
 * libtlock: locks that several hosts share. The test itself is the daemon of the
 * gate. Runs as root with the module loaded.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>

#include "libtlock_test.h"
#include "locks.h"

#define TOKENS	1000

static int64_t boottime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec;
}

FIXTURE(gate)
{
	struct tlock *daemon;	/* looks only */
	struct tlock *a;
};

FIXTURE_SETUP(gate)
{
	struct tlock_gate attach = { .op = TLOCK_GATE_ATTACH };

	ASSERT_EQ(0, create_gated_lock("shared"));
	self->daemon = tlock_open("shared", O_RDONLY);
	self->a = tlock_open("shared", O_RDWR);
	ASSERT_NE(NULL, self->daemon);
	ASSERT_NE(NULL, self->a);
	ASSERT_EQ(0, ioctl(tlock_fd(self->daemon), TLOCK_IOC_GATE, &attach));
}

FIXTURE_TEARDOWN(gate)
{
	tlock_close(self->daemon);
	tlock_close(self->a);
	EXPECT_EQ(0, delete_lock("shared"));
}

static int open_gate(const struct tlock *daemon, uint64_t opening, int64_t ns)
{
	struct tlock_gate set = {
		.op = TLOCK_GATE_SET, .opening = opening,
		.until_ns = boottime() + ns, .first_token = opening * TOKENS,
		.last_token = opening * TOKENS + TOKENS - 1,
	};

	return ioctl(tlock_fd(daemon), TLOCK_IOC_GATE, &set);
}

static int shut_gate(const struct tlock *daemon, uint64_t opening,
		     const char *host, uint64_t token)
{
	struct tlock_gate set = {
		.op = TLOCK_GATE_SET, .opening = opening,
		.holder.token = token,
	};

	strcpy(set.host, host);
	if (token) {
		strcpy(set.holder.job, "acq");
		strcpy(set.holder.comm, "python3");
		set.holder.since_ns = now() - SEC;
	}
	return ioctl(tlock_fd(daemon), TLOCK_IOC_GATE, &set);
}

TEST_F(lock, has_no_gate)
{
	struct tlock_gate gate;

	EXPECT_FAILS(EOPNOTSUPP, tlock_gate(self->a, &gate));
	EXPECT_EQ(0, look(self->a).flags);
}

TEST_F(gate, shut)
{
	struct tlock_gate gate;

	EXPECT_FAILS(ETIMEDOUT, tlock_acquire(self->a, "a", TLOCK_TRY));
	EXPECT_EQ(TLOCK_REMOTE, tlock_blocker(self->a)->flags);
	EXPECT_EQ(0, tlock_blocker(self->a)->token);
	EXPECT_EQ(TLOCK_GATED | TLOCK_SHUT | TLOCK_SERVED,
		  look(self->a).flags);
	ASSERT_EQ(0, tlock_gate(self->a, &gate));
	EXPECT_EQ(TLOCK_REMOTE, gate.holder.flags);
	EXPECT_STREQ("", gate.host);
}

TEST_F(gate, holder_on_another_host)
{
	const struct tlock_holder *holder = tlock_blocker(self->a);
	struct tlock_gate gate;

	ASSERT_EQ(0, shut_gate(self->daemon, 0, "lab2", 7));
	EXPECT_FAILS(ETIMEDOUT, tlock_acquire(self->a, "a", MSEC));
	EXPECT_EQ(TLOCK_REMOTE, holder->flags);
	EXPECT_EQ(7, holder->token);
	EXPECT_EQ(0, holder->pid);
	EXPECT_STREQ("acq", holder->job);
	EXPECT_STREQ("python3", holder->comm);
	EXPECT_GE(now() - SEC, holder->since_ns);
	/* Also for a handle that looks only */
	ASSERT_EQ(0, tlock_gate(self->daemon, &gate));
	EXPECT_STREQ("lab2", gate.host);
	EXPECT_EQ(0, memcmp(holder, &gate.holder, sizeof(*holder)));

	EXPECT_FAILS(EREMOTE, tlock_revoke(self->a, 7, 0));
	EXPECT_FAILS(ESTALE, tlock_revoke(self->a, 8, 0));
}

TEST_F(gate, open)
{
	struct tlock_gate gate;

	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, tlock_acquire(self->a, "a", TLOCK_TRY));
	EXPECT_EQ(TOKENS, tlock_token(self->a));
	ASSERT_EQ(0, tlock_gate(self->a, &gate));
	EXPECT_EQ(TLOCK_GATE_OPEN | TLOCK_GATE_HELD, gate.state);
	EXPECT_EQ(1, gate.opening);
	EXPECT_EQ(TOKENS, gate.holder.token);
	EXPECT_EQ(0, gate.holder.flags);
	EXPECT_STREQ("", gate.host);
	ASSERT_EQ(0, tlock_release(self->a));
}

/* As if this host had lost touch with the others */
TEST_F(gate, ends_the_grant)
{
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, tlock_acquire(self->a, "a", TLOCK_TRY));
	ASSERT_EQ(0, shut_gate(self->daemon, 1, "lab2", 0));
	EXPECT_EQ(POLLERR, events(self->a) & POLLERR);
	EXPECT_FAILS(ESTALE, tlock_reacquire(self->a, NULL, TLOCK_FOREVER));
	EXPECT_TRUE(tlock_lost(self->a));
	/* The next opening says what has become of the lock meanwhile */
	ASSERT_EQ(0, open_gate(self->daemon, 2, LONG));
	ASSERT_EQ(0, tlock_acquire(self->a, "a", TLOCK_TRY));
	EXPECT_FALSE(tlock_lost(self->a));
	EXPECT_EQ(2 * TOKENS, tlock_token(self->a));
	ASSERT_EQ(0, tlock_release(self->a));
}

/* A waiter gets the lock when the gate opens */
TEST_F(gate, waits)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->a, .job = "a",
		.timeout_ns = LONG,
	};

	begin(&c);
	ASSERT_TRUE(await_waiters(self->daemon, 1));
	ASSERT_EQ(0, open_gate(self->daemon, 1, LONG));
	ASSERT_EQ(0, end(&c));
	ASSERT_EQ(0, tlock_release(self->a));
}

TEST_F(gate, of_a_deleted_lock)
{
	struct tlock_gate gate;

	tlock_close(self->a);
	ASSERT_EQ(0, delete_lock("shared"));
	EXPECT_FAILS(ENODEV, tlock_gate(self->daemon, &gate));
	/* For the end of the test */
	ASSERT_EQ(0, create_lock("shared"));
	self->a = NULL;
}

TEST_HARNESS_MAIN
