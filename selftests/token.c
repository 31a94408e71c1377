// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 8: every grant has a token, a number per lock that only grows.
 */
#include <sched.h>

#include "tlock_test.h"

TEST_F(tlock, g8_each_grant_has_the_next_token)
{
	__u64 token = self->before.acquired;
	int fds[2] = { self->fd, contender() };
	struct tlock_acquire arg;

	for (int i = 0; i < 10; i++) {
		arg = ask(0, "holder");
		ASSERT_EQ(0, acquire(fds[i % 2], &arg));
		EXPECT_EQ(++token, arg.token);
		EXPECT_EQ(token, look(self->fd).holder.token);
		EXPECT_EQ(token, look(self->fd).acquired);
		/* Not a grant */
		EXPECT_EQ(-EDEADLK, acquire(fds[i % 2], &arg));
		EXPECT_EQ(-ETIMEDOUT, acquire(fds[(i + 1) % 2], &arg));
		EXPECT_EQ(0, reacquire(fds[i % 2], &arg));
		EXPECT_EQ(token, arg.token);
		ASSERT_EQ(0, release(fds[i % 2]));
		/* It counts on while nobody holds */
		EXPECT_EQ(0, look(self->fd).holder.token);
		EXPECT_EQ(token, look(self->fd).acquired);
	}
	close(fds[1]);
}

/* By a hand-over, a reacquire that waited, and a death as well */
TEST_F(tlock, g8_token_of_each_kind_of_grant)
{
	__u64 token = take(self->fd, "first");
	struct tlock_acquire arg = ask(FOREVER, "mortal");
	struct agent *a = agent();
	struct call *waiter, *yielder;
	int fd = contender();

	waiter = call(fd, acquire, FOREVER, "by hand-over");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	yielder = call(self->fd, reacquire, FOREVER, "by reacquire");
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(token + 1, waiter->arg->token);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, result(yielder));
	EXPECT_EQ(token + 2, yielder->arg->token);

	agent_begin(a, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	waiter = call(fd, acquire, FOREVER, "by death");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, agent_end(a, &arg));
	EXPECT_EQ(token + 3, arg.token);
	agent_kill(a);
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(token + 4, waiter->arg->token);
	EXPECT_EQ(token + 4, look(self->fd).acquired);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/* It is the lock's, not the file's: opening anew does not begin anew. */
TEST_F(tlock, g8_token_outlives_its_file)
{
	__u64 token = take(self->fd, "first"), next;
	int fd;

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, close(self->fd));
	fd = contender();
	next = take(fd, "second");
	EXPECT_EQ(token + 1, next);
	EXPECT_EQ(0, release(fd));
	self->fd = fd;
}

/* The newest grant of a file that is over, and whether there are no more */
static _Atomic __u64 over;
static atomic_int all_over;

static int take_often(int fd, struct tlock_acquire *arg)
{
	int ret = 0;

	for (int i = 0; !ret && i < 500; i++) {
		arg->timeout_ns = LONG;
		ret = acquire(fd, arg);
		if (!ret)
			ret = release(fd);
		atomic_store(&over, arg->token);
	}
	atomic_store(&all_over, 1);
	return ret;
}

/*
 * Who reacquires while another thread's acquire is being granted on the same
 * file has that grant, or none; never one that is over.
 */
TEST_F(tlock, g8_reacquire_meets_grant_of_the_same_file)
{
	struct call *taker = call(self->fd, take_often, 0, "taker");
	struct tlock_acquire arg;
	__u64 then;
	int ret;

	do {
		then = atomic_load(&over);
		arg = ask(0, "");
		ret = reacquire(self->fd, &arg);
		if (ret) {
			ASSERT_EQ(-EPERM, ret);
		} else {
			ASSERT_LT(then, arg.token);
		}
	} while (!atomic_load(&all_over));
	EXPECT_EQ(0, result(taker));
}

static void run_on(pid_t tid, int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(tid, sizeof(cpus), &cpus))
		die("no CPU %d", cpu);
}

/* Keeps CPU 1 from everybody else. */
static atomic_int hogging;

static int hog(int fd, struct tlock_acquire *arg)
{
	struct sched_param priority = { .sched_priority = 1 };

	run_on(0, 1);
	if (sched_setscheduler(0, SCHED_FIFO, &priority))
		die("no real-time priority");
	atomic_store(&hogging, 1);
	while (atomic_load(&hogging))
		;
	return 0;
}

/*
 * A waiter is told of its own grant, even if another thread has released the
 * lock and taken it again by the same file before the waiter has run.
 */
TEST_F(tlock, g8_late_waiter_is_told_its_own_token)
{
	struct tlock_acquire arg = ask(0, "again");
	struct agent *mortal = agent();
	struct call *waiter, *hogger;
	int fd = contender();
	__s64 granted;
	__u64 token;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "this takes two CPUs");
	token = agent_take(mortal, "mortal");
	waiter = call(fd, acquire, LONG, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_TRUE(await_asleep(waiter->tid));
	run_on(waiter->tid, 1);
	run_on(mortal->pid, 0);
	hogger = call(-1, hog, 0, "");
	run_on(0, 0);
	ASSERT_TRUE(await_value(&hogging, 1));

	agent_kill(mortal);
	ASSERT_EQ(token + 1, look(fd).holder.token);
	granted = now();
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(token + 2, arg.token);
	EXPECT_EQ(0, arg.result);

	usleep(20000);
	atomic_store(&hogging, 0);
	ASSERT_EQ(0, result(hogger));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(token + 1, waiter->arg->token);
	EXPECT_EQ(TLOCK_ABANDONED, waiter->arg->result);
	/* Its time ran until the grant, and no longer */
	EXPECT_LE(LONG - (granted - waiter->begun), waiter->arg->timeout_ns);
	EXPECT_EQ(token + 2, look(fd).holder.token);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

TEST_HARNESS_MAIN
