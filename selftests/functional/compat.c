// SPDX-License-Identifier: GPL-2.0-only
/*
 * A short test of each guarantee for a 32-bit program on a 64-bit kernel: every
 * field of each argument arrives, in both directions.
 */
#include <poll.h>
#include <signal.h>

#include "tlock_test.h"

TEST(this_is_a_32_bit_program)
{
	EXPECT_EQ(4, sizeof(long));
	EXPECT_EQ(4, sizeof(void *));
}

TEST_F(tlock, g3_timeout_of_more_than_32_bits)
{
	struct call *waiter;

	take(self->fd, "holder");
	waiter = call(contender(), acquire, LONG, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_GT(LONG, waiter->arg->timeout_ns);
	EXPECT_LE(LONG - (waiter->ended - waiter->begun),
		  waiter->arg->timeout_ns);
	EXPECT_EQ(0, release(waiter->fd));
	close(waiter->fd);
}

TEST_F(tlock, g3_not_early_g5_told_why)
{
	struct tlock_holder holder;
	struct call *waiter;
	__u64 token;
	__s64 before = now();

	token = take(self->fd, "holder's job");
	waiter = call(contender(), acquire, 100 * MSEC, "waiter");
	ASSERT_EQ(-ETIMEDOUT, result(waiter));
	EXPECT_LE(100 * MSEC, waiter->ended - waiter->begun);
	EXPECT_EQ(0, waiter->arg->timeout_ns);

	holder = waiter->arg->holder;
	EXPECT_EQ(token, holder.token);
	EXPECT_LE(before, holder.since_ns);
	EXPECT_GE(now(), holder.since_ns);
	EXPECT_EQ(getpid(), holder.pid);
	EXPECT_EQ(geteuid(), holder.uid);
	EXPECT_STREQ("compat_32", holder.comm);
	EXPECT_STREQ("holder's job", holder.job);
	EXPECT_STREQ("holder's job", sysfs_text("job"));
	EXPECT_EQ(0, release(self->fd));
	close(waiter->fd);
}

TEST_F(tlock, g2_fifo_g4_reacquire)
{
	__u64 token = take(self->fd, "yielder");
	struct call *waiters[3], *yielder;

	for (int i = 0; i < 2; i++) {
		waiters[i] = call(contender(), acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	yielder = call(self->fd, reacquire, LONG, "");
	ASSERT_EQ(0, result(waiters[0]));
	ASSERT_TRUE(await_waiters(self->fd, 2));
	waiters[2] = call(contender(), acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 3));
	for (int i = 0; i < 3; i++) {
		if (i == 2) {
			ASSERT_EQ(0, result(yielder));
			EXPECT_EQ(token + 3, yielder->arg->token);
			EXPECT_GT(LONG, yielder->arg->timeout_ns);
			EXPECT_STREQ("yielder", look(self->fd).holder.job);
			ASSERT_EQ(0, release(self->fd));
		}
		ASSERT_EQ(0, result(waiters[i]));
		EXPECT_EQ(token + 1 + i + (i == 2), waiters[i]->arg->token);
		ASSERT_EQ(0, release(waiters[i]->fd));
		close(waiters[i]->fd);
	}
	/* Where nobody waits, a reacquire changes nothing */
	struct tlock_acquire arg = ask(0, "");

	token = take(self->fd, "holder");
	ASSERT_EQ(0, reacquire(self->fd, &arg));
	EXPECT_EQ(token, arg.token);
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(tlock, g6_death_of_the_holder)
{
	struct agent *a = agent();
	struct call *waiter;

	agent_take(a, "mortal");
	waiter = call(self->fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	agent_kill(a);
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(TLOCK_ABANDONED, waiter->arg->result);
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(tlock, g7_only_the_holder_releases)
{
	struct tlock_acquire arg = ask(FOREVER, "again");
	int fd = contender();

	take(self->fd, "holder");
	EXPECT_EQ(-EPERM, release(fd));
	EXPECT_EQ(-EPERM, reacquire(fd, &arg));
	EXPECT_EQ(-EDEADLK, acquire(self->fd, &arg));
	EXPECT_EQ(0, release(self->fd));
	EXPECT_EQ(-EPERM, release(self->fd));
	close(fd);
}

TEST_F(tlock, g9_signals)
{
	int fd = contender();
	struct call *waiter;
	__s64 begun;
	__u64 ticket;

	/* Without SA_RESTART */
	take(self->fd, "holder");
	handle_usr1(0);
	waiter = call(fd, acquire, LONG, "waiter");
	begun = waiter->begun;
	ASSERT_TRUE(await_waiters(self->fd, 1));
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	EXPECT_GT(LONG, waiter->arg->timeout_ns);
	EXPECT_LE(LONG - (waiter->ended - begun), waiter->arg->timeout_ns);
	EXPECT_STREQ("away", state_of(fd, &ticket));
	EXPECT_EQ(ticket, waiter->arg->ticket);

	/* The wait goes on; with SA_RESTART it does so by itself */
	handle_usr1(SA_RESTART);
	waiter = call_with(fd, reacquire, waiter->arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	send_signal(waiter, SIGUSR1);
	ASSERT_TRUE(await_value(&handled, 2));
	ASSERT_TRUE(await_waiters(self->fd, 1));
	EXPECT_STREQ("waiting", state_of(fd, &ticket));
	EXPECT_EQ(ticket, waiter->arg->ticket);
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(0, waiter->arg->ticket);
	EXPECT_LE(LONG - (waiter->ended - begun), waiter->arg->timeout_ns);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

TEST_F(tlock, g11_release_withdraws)
{
	struct call *waiter;
	int fd = contender();

	take(self->fd, "holder");
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	EXPECT_EQ(0, release(fd));
	EXPECT_EQ(-ECANCELED, result(waiter));
	EXPECT_EQ(0, waiter->arg->ticket);
	EXPECT_EQ(-EPERM, release(fd));
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_F(tlock, asynchronous)
{
	int c = contender(), other = contender();
	struct tlock_acquire arg, second;
	__u64 ticket, token;

	token = take(self->fd, "holder's job");
	/* A deadline, with the holder at that instant */
	arg = start_acquire(c, MSEC, "c");
	ASSERT_EQ(POLLOUT, await_events(c, POLLOUT));
	ASSERT_EQ(-ETIMEDOUT, acquire(c, &arg));
	EXPECT_EQ(0, arg.timeout_ns);
	EXPECT_EQ(0, arg.ticket);
	EXPECT_EQ(token, arg.holder.token);
	EXPECT_EQ(getpid(), arg.holder.pid);
	EXPECT_STREQ("holder's job", arg.holder.job);

	/* Grants, and the ticket and the time left until then */
	arg = start_acquire(c, LONG, "c");
	EXPECT_STREQ("waiting", state_of(c, &ticket));
	EXPECT_EQ(ticket, arg.ticket);
	EXPECT_EQ(0, events_of(c));
	EXPECT_EQ(POLLIN | POLLPRI | POLLOUT, events_of(self->fd));
	EXPECT_EQ(-EINPROGRESS, acquire(c, &arg));
	EXPECT_GT(LONG, arg.timeout_ns);
	EXPECT_LE(LONG - PATIENCE, arg.timeout_ns);
	second = start_reacquire(self->fd, LONG, "");
	EXPECT_STREQ("c", look(c).holder.job);
	EXPECT_EQ(TLOCK_UNFETCHED, look(c).holder.flags);
	ASSERT_EQ(0, acquire(c, &arg));
	EXPECT_EQ(token + 1, arg.token);
	ASSERT_EQ(0, release(c));
	ASSERT_EQ(0, reacquire(self->fd, &second));
	EXPECT_EQ(token + 2, second.token);

	/* A withdrawal */
	arg = start_acquire(other, FOREVER, "other");
	EXPECT_EQ(0, release(other));
	EXPECT_EQ(-ECANCELED, acquire(other, &arg));
	EXPECT_EQ(0, release(self->fd));
	close(c);
	close(other);
}

TEST_F(tlock, g12_lease_of_more_than_32_bits)
{
	struct tlock_acquire arg = ask_lease(0, "holder", LONG);
	struct tlock_holder holder;
	int fd = contender();
	__s64 begun;

	ASSERT_EQ(0, acquire(self->fd, &arg));
	holder = look(self->fd).holder;
	EXPECT_EQ(TLOCK_LEASED, holder.flags);
	EXPECT_EQ(holder.since_ns + LONG, holder.expires_ns);
	arg = ask(0, "try");
	ASSERT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	EXPECT_EQ(holder.expires_ns, arg.holder.expires_ns);
	begun = now();
	ASSERT_EQ(0, renew(self->fd, 2 * LONG));
	EXPECT_LE(begun + 2 * LONG, look(self->fd).holder.expires_ns);
	EXPECT_GE(now() + 2 * LONG, look(self->fd).holder.expires_ns);
	EXPECT_EQ(0, release(self->fd));

	/* One that ends */
	take_lease(self->fd, "holder", MSEC);
	holder = look(self->fd).holder;
	arg = ask(FOREVER, "next");
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(TLOCK_REVOKED, arg.result);
	EXPECT_EQ(holder.token + 1, arg.token);
	EXPECT_LE(holder.expires_ns, look(fd).holder.since_ns);
	EXPECT_EQ(POLLOUT | POLLERR | POLLPRI, events_of(self->fd));
	EXPECT_EQ(-ESTALE, release(self->fd));
	EXPECT_EQ(self->before.revoked + 1, look(fd).revoked);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

TEST_F(tlock, g12_revoke)
{
	__u64 token = take(self->fd, "holder");
	struct tlock_acquire arg = ask(0, "next");
	int fd = contender();
	__s64 begun = now();

	ASSERT_EQ(0, revoke_grant(fd, token, LONG));
	EXPECT_EQ(TLOCK_REVOKING, look(fd).holder.flags);
	EXPECT_LE(begun + LONG, look(fd).holder.expires_ns);
	EXPECT_GE(now() + LONG, look(fd).holder.expires_ns);
	/* Each of the token's bits counts */
	for (int bit = 0; bit < 64; bit++) {
		EXPECT_EQ(-ESTALE, revoke_grant(fd, token ^ 1ULL << bit, 0));
	}
	EXPECT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	EXPECT_EQ(0, revoke_grant(fd, token, 0));
	EXPECT_EQ(0, look(fd).holder.token);
	arg = ask(0, "next");
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(TLOCK_REVOKED, arg.result);
	EXPECT_EQ(-ESTALE, flock_try(self->fd, NULL));
	EXPECT_EQ(0, release(fd));
	close(fd);
}

TEST_F(tlock, unknown_fields)
{
	struct tlock_acquire arg;

	for (size_t i = 0; i < ARRAY_SIZE(arg.reserved); i++) {
		arg = ask(0, "");
		arg.reserved[i] = 1ULL << 32;
		EXPECT_EQ(-EINVAL, acquire(self->fd, &arg));
		take(self->fd, "holder");
		EXPECT_EQ(-EINVAL, reacquire(self->fd, &arg));
		EXPECT_EQ(0, release(self->fd));
	}
}

TEST_F(tlock, g10_status)
{
	struct tlock_status st;
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
	struct tlock_acquire arg = ask(0, "reader");

	ASSERT_LE(0, fd);
	take(self->fd, "holder");
	EXPECT_EQ(-EBADF, acquire(fd, &arg));
	st = look(fd);
	EXPECT_EQ(self->before.acquired + 1, st.acquired);
	EXPECT_EQ(self->before.contended, st.contended);
	EXPECT_EQ(self->before.timed_out, st.timed_out);
	EXPECT_EQ(self->before.interrupted, st.interrupted);
	EXPECT_EQ(self->before.abandoned, st.abandoned);
	EXPECT_EQ(self->before.revoked, st.revoked);
	EXPECT_EQ(self->before.yielded, st.yielded);
	EXPECT_EQ(self->before.wait_ns_total, st.wait_ns_total);
	EXPECT_EQ(self->before.wait_ns_max, st.wait_ns_max);
	EXPECT_EQ(self->before.hold_ns_total, st.hold_ns_total);
	EXPECT_EQ(self->before.hold_ns_max, st.hold_ns_max);
	EXPECT_EQ(0, st.waiters);
	EXPECT_EQ(0, st.flags);
	EXPECT_TRUE(zeroed(st.reserved, sizeof(st.reserved)));
	EXPECT_STREQ("tlock", st.name);
	EXPECT_EQ(st.hold_ns_total, sysfs_number("stats/hold_ns_total"));
	EXPECT_EQ(st.wait_ns_max, sysfs_number("stats/wait_ns_max"));
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_F(tlock, g10_waiter)
{
	struct tlock_waiter waiter = {};
	struct tlock_acquire asked;
	int fd = contender();

	take(self->fd, "holder");
	asked = start_acquire(fd, LONG, "waiter");
	ASSERT_EQ(0, next_waiter(self->fd, &waiter));
	EXPECT_EQ(asked.ticket, waiter.ticket);
	EXPECT_EQ(LONG, waiter.timeout_ns);
	EXPECT_EQ(TLOCK_ASYNC, waiter.flags);
	EXPECT_EQ(getpid(), waiter.pid);
	EXPECT_STREQ("waiter", waiter.job);
	EXPECT_EQ(-ENOENT, next_waiter(self->fd, &waiter));
	EXPECT_EQ(0, release(fd));
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_F(tlock, g10_events)
{
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct tlock_event events[3];
	__u64 token;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, start_monitor(fd));
	EXPECT_EQ(-EBUSY, start_monitor(fd));
	EXPECT_EQ(-EBADF, start_monitor(self->fd));
	token = take(self->fd, "holder");
	EXPECT_EQ(0, release(self->fd));
	ASSERT_EQ(2 * sizeof(*events), read_events(fd, events, sizeof(events)));
	EXPECT_EQ(TLOCK_EVENT_ACQUIRED, events[0].kind);
	EXPECT_EQ(TLOCK_EVENT_RELEASED, events[1].kind);
	EXPECT_EQ(token, events[1].token);
	EXPECT_EQ(getpid(), events[1].pid);
	EXPECT_STREQ("holder", events[1].job);
	EXPECT_EQ(events[0].seq + 1, events[1].seq);
	close(fd);
}

TEST_F(tlock, gate)
{
	struct tlock_acquire arg = ask(0, "try");
	struct tlock_gate set = {
		.op = TLOCK_GATE_SET,
		.holder.token = 3ULL << 32,
		.holder.job = "far away",
		.host = "far",
	};
	int daemon, fd;

	ASSERT_EQ(0, lock_create_gated("compat"));
	daemon = daemon_of("compat");
	fd = contender_of("compat");
	ASSERT_EQ(0, gate(daemon, &set));
	EXPECT_EQ(TLOCK_GATE_SPENT | TLOCK_GATE_OVER, set.state);
	EXPECT_STREQ("far", set.host);
	EXPECT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	EXPECT_EQ(TLOCK_REMOTE, arg.holder.flags);
	EXPECT_EQ(3ULL << 32, arg.holder.token);
	EXPECT_STREQ("far away", arg.holder.job);
	EXPECT_EQ(-EREMOTE, revoke_grant(fd, 3ULL << 32, 0));
	set = (struct tlock_gate){
		.op = TLOCK_GATE_SET,
		.opening = 1,
		.until_ns = boottime() + LONG,
		.first_token = 5ULL << 32,
		.last_token = 6ULL << 32,
		.result = TLOCK_ABANDONED,
	};
	ASSERT_EQ(0, gate(daemon, &set));
	/* With what had happened since the call before */
	EXPECT_EQ(TLOCK_GATE_OPEN | TLOCK_GATE_WANTED, set.state);
	EXPECT_LT(boottime() + LONG - PATIENCE, set.until_ns);
	EXPECT_EQ(6ULL << 32, set.last_token);
	arg = ask(0, "holder");
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(5ULL << 32, arg.token);
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	/* A grace of 0 in its lower half */
	set = (struct tlock_gate){
		.op = TLOCK_GATE_SET,
		.opening = 1,
		.grace_ns = 1ULL << 32,
	};
	ASSERT_EQ(0, gate(daemon, &set));
	EXPECT_EQ(TLOCK_GATE_HELD | TLOCK_GATE_SPENT, set.state);
	EXPECT_EQ(5ULL << 32, set.token);
	EXPECT_EQ(0, release(fd));
	close(fd);
	close(daemon);
	EXPECT_EQ(0, lock_delete("compat"));
}

/* Bad pointers that a 32-bit program can pass */
TEST_F(tlock, bad_pointers)
{
	struct tlock_acquire *const bad[] = {
		NULL, (void *)1, (void *)-1L, (void *)0x80000000UL,
		(void *)(~0UL - sizeof(struct tlock_acquire)),
	};
	struct tlock_acquire arg = ask(0, "job");
	struct tlock_status after;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EFAULT, acquire(self->fd, bad[i]));
		EXPECT_EQ(-EFAULT, reacquire(self->fd, bad[i]));
		EXPECT_EQ(-EFAULT, status(self->fd, (void *)bad[i]));
		EXPECT_EQ(-EFAULT, next_waiter(self->fd, (void *)bad[i]));
		EXPECT_EQ(-EFAULT, revoke_with(self->fd, (void *)bad[i]));
		EXPECT_EQ(-EFAULT, gate(self->fd, (void *)bad[i]));
	}
	arg.flags = 1U << 31;
	EXPECT_EQ(-EINVAL, acquire(self->fd, &arg));
	after = look(self->fd);
	EXPECT_EQ(0, memcmp(&self->before, &after, sizeof(after)));
}

TEST_HARNESS_MAIN
