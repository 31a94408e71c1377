// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests of libtlock that wait without a thread, alone and in event loops.
 * Runs as root with the module loaded, and needs /dev/tlock for itself.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include "libtlock_test.h"

static bool await_event(const struct tlock *t, short event)
{
	struct pollfd p = { .fd = tlock_fd(t), .events = event };

	return poll(&p, 1, PATIENCE / MSEC) == 1 && p.revents == event;
}

static bool undecided(const struct tlock *t)
{
	return !(events(t) & POLLOUT);
}

static bool decided(const struct tlock *t)
{
	return await_event(t, POLLOUT);
}

/* What a started request can be, before tlock_finish() */
enum request {
	WAITS,
	GRANTED,
	TIMED_OUT,
	REQUESTS,
};

static const int outcome[] = {
	[WAITS] = EINPROGRESS, [GRANTED] = 0, [TIMED_OUT] = ETIMEDOUT,
};

/* Has @b start a request. @a then holds the lock, unless it is granted to @b. */
static void start(struct __test_metadata *_metadata, struct tlock *a,
		  struct tlock *b, enum request request)
{
	if (!tlock_token(a))
		ASSERT_EQ(0, tlock_acquire(a, "holder", TLOCK_TRY));
	ASSERT_EQ(-1, tlock_start_acquire(b, "waiter", request == TIMED_OUT ?
					  MSEC : LONG));
	ASSERT_EQ(EINPROGRESS, errno);
	if (request == GRANTED)
		ASSERT_EQ(0, tlock_release(a));
	if (request != WAITS)
		ASSERT_TRUE(decided(b));
}

/* Ends what start() left. Returns whether nothing is left after that. */
static bool clear(struct tlock *a, struct tlock *b)
{
	struct tlock_status st;

	tlock_release(a);
	tlock_release(b);
	st = look(a);
	return !st.holder.token && !st.waiters;
}

TEST_F(lock, start_without_a_wait)
{
	EXPECT_EQ(POLLOUT, events(self->a));
	EXPECT_FAILS(EPERM, tlock_finish(self->a));
	ASSERT_EQ(0, tlock_start_acquire(self->a, "free", SEC));
	EXPECT_STREQ("free", look(self->b).holder.job);
	EXPECT_EQ(0, look(self->b).holder.flags);
	EXPECT_EQ(look(self->b).holder.token, tlock_token(self->a));
	EXPECT_EQ(0, tlock_ticket(self->a));
	EXPECT_EQ(SEC, tlock_time_left(self->a));
	EXPECT_EQ(POLLOUT, events(self->a));
	EXPECT_FAILS(EPERM, tlock_finish(self->a));
	EXPECT_FAILS(EPERM, tlock_cancel(self->a));
	EXPECT_FAILS(EDEADLK, tlock_start_acquire(self->a, "more", SEC));
	EXPECT_NE(0, tlock_token(self->a));

	EXPECT_FAILS(ETIMEDOUT, tlock_start_acquire(self->b, "b", TLOCK_TRY));
	EXPECT_STREQ("free", tlock_blocker(self->b)->job);
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_FAILS(EINVAL, tlock_start_acquire(self->b, "\n", SEC));
	EXPECT_EQ(0, look(self->a).waiters);
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, start_needs_a_writable_handle)
{
	struct tlock *t = tlock_open(NULL, O_RDONLY);

	ASSERT_NE(NULL, t);
	EXPECT_FAILS(EBADF, tlock_start_acquire(t, "j", SEC));
	EXPECT_FAILS(EBADF, tlock_start_reacquire(t, "j", SEC));
	EXPECT_FAILS(EPERM, tlock_finish(t));
	tlock_close(t);
}

TEST_F(lock, finish_with_the_lock)
{
	uint64_t ticket;

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(self->b, "waiter", LONG));
	ticket = tlock_ticket(self->b);
	EXPECT_NE(0, ticket);
	EXPECT_EQ(0, tlock_token(self->b));
	EXPECT_EQ(LONG, tlock_time_left(self->b));
	EXPECT_EQ(1, look(self->a).waiters);
	EXPECT_TRUE(undecided(self->b));

	EXPECT_FAILS(EINPROGRESS, tlock_finish(self->b));
	EXPECT_EQ(ticket, tlock_ticket(self->b));
	EXPECT_GT(LONG, tlock_time_left(self->b));
	EXPECT_LT(0, tlock_time_left(self->b));

	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_TRUE(decided(self->b));
	EXPECT_STREQ("waiter", look(self->a).holder.job);
	EXPECT_EQ(TLOCK_UNFETCHED, look(self->a).holder.flags);
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_EQ(0, look(self->a).holder.flags);
	EXPECT_EQ(look(self->a).holder.token, tlock_token(self->b));
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_FALSE(tlock_abandoned(self->b));
	EXPECT_FAILS(EPERM, tlock_finish(self->b));
	EXPECT_NE(0, tlock_token(self->b));

	/* It holds the lock like any other */
	EXPECT_EQ(0, tlock_reacquire(self->b, "more", TLOCK_TRY));
	EXPECT_EQ(0, tlock_release(self->b));

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	EXPECT_FAILS(EINPROGRESS,
		     tlock_start_acquire(self->b, NULL, TLOCK_FOREVER));
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_EQ(TLOCK_FOREVER, tlock_time_left(self->b));
	EXPECT_STREQ("", look(self->a).holder.job);
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, g3_finish_with_a_timeout)
{
	int64_t timeout = 30 * MSEC, begun = now();

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	begun = now();
	EXPECT_FAILS(EINPROGRESS,
		     tlock_start_acquire(self->b, "waiter", timeout));
	EXPECT_TRUE(decided(self->b));
	EXPECT_LE(timeout, now() - begun);
	/* The blocker is that of the deadline */
	EXPECT_EQ(0, tlock_reacquire(self->a, "other job", TLOCK_TRY));
	EXPECT_FAILS(ETIMEDOUT, tlock_finish(self->b));
	EXPECT_STREQ("holder", tlock_blocker(self->b)->job);
	EXPECT_EQ(tlock_token(self->a), tlock_blocker(self->b)->token);
	EXPECT_EQ(0, tlock_time_left(self->b));
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_EQ(0, tlock_token(self->b));
	EXPECT_FAILS(EPERM, tlock_finish(self->b));
	EXPECT_FAILS(EPERM, tlock_release(self->b));
	EXPECT_EQ(0, tlock_release(self->a));
}

/* Threads and started requests get the lock in the order of their tickets. */
TEST_F(lock, g2_started_requests_wait_in_turn)
{
	struct tlock *last = tlock_open(NULL, O_RDWR);
	struct tlock *thread = tlock_open(NULL, O_RDWR);
	struct call c = {
		.fn = tlock_acquire, .t = thread, .job = "thread",
		.timeout_ns = LONG,
	};

	ASSERT_NE(NULL, last);
	ASSERT_NE(NULL, thread);
	start(_metadata, self->a, self->b, WAITS);
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 2));
	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(last, "last", LONG));
	EXPECT_LT(tlock_ticket(self->b), tlock_ticket(last));

	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_TRUE(decided(self->b));
	EXPECT_TRUE(undecided(last));
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_EQ(0, end(&c));
	EXPECT_TRUE(undecided(last));
	EXPECT_EQ(0, tlock_release(thread));
	EXPECT_TRUE(decided(last));
	EXPECT_EQ(0, tlock_finish(last));
	EXPECT_EQ(0, tlock_release(last));
	tlock_close(last);
	tlock_close(thread);
}

TEST_F(lock, start_reacquire)
{
	uint64_t token;

	EXPECT_FAILS(EPERM, tlock_start_reacquire(self->a, NULL, SEC));
	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	token = tlock_token(self->a);
	EXPECT_EQ(0, tlock_start_reacquire(self->a, NULL, SEC));
	EXPECT_STREQ("acq", look(self->a).holder.job);
	EXPECT_EQ(0, tlock_start_reacquire(self->a, "acq 2", TLOCK_FOREVER));
	EXPECT_STREQ("acq 2", look(self->a).holder.job);
	EXPECT_FAILS(EINVAL, tlock_start_reacquire(self->a, "\n", SEC));
	EXPECT_EQ(token, tlock_token(self->a));

	/* Lets the waiter in, and is behind it */
	start(_metadata, self->a, self->b, WAITS);
	EXPECT_FAILS(EINPROGRESS, tlock_start_reacquire(self->a, NULL, LONG));
	EXPECT_EQ(0, tlock_token(self->a));
	EXPECT_NE(0, tlock_ticket(self->a));
	EXPECT_TRUE(undecided(self->a));
	EXPECT_FAILS(EINPROGRESS, tlock_finish(self->a));
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_TRUE(decided(self->a));
	EXPECT_EQ(0, tlock_finish(self->a));
	EXPECT_LT(tlock_token(self->b), tlock_token(self->a));
	EXPECT_STREQ("acq 2", look(self->a).holder.job);

	/* In time, or not at all */
	start(_metadata, self->a, self->b, WAITS);
	EXPECT_FAILS(ETIMEDOUT,
		     tlock_start_reacquire(self->a, NULL, TLOCK_TRY));
	EXPECT_EQ(0, tlock_token(self->a));
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_EQ(tlock_token(self->b), tlock_blocker(self->a)->token);
	start(_metadata, self->b, self->a, WAITS);
	EXPECT_FAILS(EINPROGRESS, tlock_start_reacquire(self->b, NULL, MSEC));
	EXPECT_TRUE(decided(self->b));
	EXPECT_FAILS(ETIMEDOUT, tlock_finish(self->b));
	EXPECT_EQ(0, tlock_finish(self->a));
	EXPECT_EQ(0, tlock_release(self->a));
}

/* An event loop that holds the lock learns when somebody waits. */
TEST_F(lock, somebody_waits)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "thread",
		.timeout_ns = LONG,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	EXPECT_EQ(POLLOUT, events(self->a));
	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(self->b, "waiter", LONG));
	EXPECT_EQ(POLLOUT | POLLPRI | POLLIN, events(self->a));
	EXPECT_EQ(0, events(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_EQ(POLLOUT, events(self->a));

	begin(&c);
	EXPECT_TRUE(await_event(self->a, POLLPRI));
	EXPECT_FAILS(EINPROGRESS, tlock_start_reacquire(self->a, NULL, LONG));
	EXPECT_EQ(0, end(&c));
	EXPECT_EQ(POLLPRI, events(self->b) & POLLPRI);
	EXPECT_EQ(0, events(self->a));
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_TRUE(decided(self->a));
	EXPECT_EQ(0, tlock_finish(self->a));
	EXPECT_EQ(0, tlock_release(self->a));
}

/* What the other calls do while a request is started */
TEST_F(lock, calls_while_started)
{
	for (enum request request = WAITS; request < REQUESTS; request++) {
		uint64_t ticket;
		bool other = false;

		start(_metadata, self->a, self->b, request);
		ticket = tlock_ticket(self->b);
		EXPECT_FAILS(EBUSY, tlock_acquire(self->b, "j", TLOCK_FOREVER));
		EXPECT_FAILS(EBUSY, tlock_acquire(self->b, "j", TLOCK_TRY));
		EXPECT_FAILS(EBUSY, tlock_reacquire(self->b, NULL, LONG));
		EXPECT_FAILS(EBUSY, tlock_start_acquire(self->b, "j", LONG));
		EXPECT_FAILS(EBUSY, tlock_start_reacquire(self->b, "j", LONG));
		EXPECT_FAILS(EINVAL, tlock_start_acquire(self->b, "\n", LONG));
		EXPECT_FAILS(EPERM, tlock_resume(self->b));
		EXPECT_FAILS(EPERM, tlock_adopt(self->b));
		EXPECT_FALSE(tlock_inherited(self->b));
		EXPECT_EQ(0, tlock_token(self->b));
		tlock_scoped(self->b, "block", LONG) {
			EXPECT_TRUE(false);
		} else {
			other = errno == EBUSY;
		}
		EXPECT_TRUE(other);

		EXPECT_EQ(ticket, tlock_ticket(self->b));
		EXPECT_EQ(outcome[request] ? -1 : 0, tlock_finish(self->b)) {
			TH_LOG("request %d", request);
		}
		if (outcome[request])
			EXPECT_EQ(outcome[request], errno);
		EXPECT_TRUE(clear(self->a, self->b));
	}
}

TEST_F(lock, g11_release_withdraws_a_started_request)
{
	for (enum request request = WAITS; request < REQUESTS; request++) {
		start(_metadata, self->a, self->b, request);
		EXPECT_EQ(0, tlock_release(self->b));
		EXPECT_EQ(0, tlock_ticket(self->b));
		EXPECT_EQ(POLLOUT, events(self->b));
		EXPECT_FAILS(EPERM, tlock_release(self->b));
		EXPECT_FAILS(EPERM, tlock_finish(self->b));
		EXPECT_FAILS(EPERM, tlock_cancel(self->b));
		EXPECT_EQ(0, look(self->a).waiters);
		EXPECT_EQ(request != GRANTED, !!look(self->a).holder.token);
		EXPECT_TRUE(clear(self->a, self->b));
		ASSERT_EQ(0, tlock_acquire(self->b, "next", TLOCK_TRY));
		EXPECT_FALSE(tlock_abandoned(self->b));
		EXPECT_EQ(0, tlock_release(self->b));
	}
}

TEST_F(lock, close_withdraws_a_started_request)
{
	for (enum request request = WAITS; request < REQUESTS; request++) {
		struct tlock *t = tlock_open(NULL, O_RDWR);

		ASSERT_NE(NULL, t);
		start(_metadata, self->a, t, request);
		tlock_close(t);
		EXPECT_EQ(0, look(self->a).waiters);
		EXPECT_EQ(request != GRANTED, !!look(self->a).holder.token);
		EXPECT_TRUE(clear(self->a, self->b));
		ASSERT_EQ(0, tlock_acquire(self->b, "next", TLOCK_TRY));
		EXPECT_FALSE(tlock_abandoned(self->b));
		EXPECT_EQ(0, tlock_release(self->b));
	}
}

TEST_F(lock, g11_scope_withdraws_a_started_request)
{
	bool held = false;

	tlock_scoped(self->b, "acq", TLOCK_TRY) {
		held = true;
		EXPECT_FAILS(EINPROGRESS,
			     tlock_start_acquire(self->a, "waiter", LONG));
		EXPECT_FAILS(EINPROGRESS,
			     tlock_start_reacquire(self->b, NULL, LONG));
	}
	EXPECT_TRUE(held);
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_EQ(0, look(self->a).waiters);
	EXPECT_EQ(0, tlock_finish(self->a));
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, look(self->a).holder.token);
}

/* A request that was interrupted is no started one, nor the other way round. */
TEST_F(lock, g9_start_replaces_an_interrupted_request)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "thread",
		.timeout_ns = LONG,
	};
	uint64_t ticket;

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	interrupt(_metadata, &c);
	ticket = tlock_ticket(self->b);
	EXPECT_FAILS(EPERM, tlock_finish(self->b));
	EXPECT_FAILS(EPERM, tlock_start_reacquire(self->b, NULL, LONG));
	EXPECT_EQ(ticket, tlock_ticket(self->b));
	EXPECT_EQ(0, look(self->a).waiters);

	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(self->b, "waiter", LONG));
	EXPECT_LT(ticket, tlock_ticket(self->b));
	EXPECT_EQ(1, look(self->a).waiters);
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_STREQ("waiter", look(self->a).holder.job);
	EXPECT_EQ(0, tlock_release(self->b));

	/* Afterwards, a call can be interrupted again */
	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	interrupt(_metadata, &c);
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_resume(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, g6_abandoned)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct tlock *t = tlock_open(NULL, O_RDWR);

		if (!t || tlock_acquire(t, "dies", TLOCK_TRY))
			_exit(1);
		pause();
	}
	ASSERT_TRUE(AWAIT(self->a, st.holder.token));
	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(self->b, "next", LONG));
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(decided(self->b));
	EXPECT_FALSE(tlock_abandoned(self->b));
	EXPECT_EQ(0, tlock_finish(self->b));
	EXPECT_TRUE(tlock_abandoned(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
}

/* A grant that nobody takes lasts until its deadline, and no longer. */
TEST_F(lock, grant_that_is_not_finished)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->a, .job = "next",
		.timeout_ns = LONG,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	EXPECT_FAILS(EINPROGRESS,
		     tlock_start_acquire(self->b, "late", 2 * SEC));
	EXPECT_EQ(0, tlock_release(self->a));
	ASSERT_STREQ("late", look(self->a).holder.job);
	begin(&c);
	EXPECT_EQ(0, end(&c));
	EXPECT_FALSE(tlock_abandoned(self->a));
	EXPECT_EQ(POLLOUT, events(self->b));
	EXPECT_FAILS(ETIMEDOUT, tlock_finish(self->b));
	EXPECT_STREQ("next", tlock_blocker(self->b)->job);
	EXPECT_EQ(tlock_token(self->a), tlock_blocker(self->b)->token);
	EXPECT_EQ(0, tlock_release(self->a));
}

static sigjmp_buf jump;

static void jump_out(int sig)
{
	(void)sig;
	siglongjmp(jump, 1);
}

/* From now on, TLOCK_IOC_REACQUIRE raises SIGSYS. Returns whether it does. */
static bool trap_reacquire(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TLOCK_IOC_REACQUIRE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {
		.len = sizeof(code) / sizeof(*code), .filter = code,
	};
	struct sigaction sa = { .sa_handler = jump_out };

	return !sigaction(SIGSYS, &sa, NULL) &&
	       !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

/* After a release, calls wait again. */
TEST_F(lock, release_after_a_jump)
{
	pid_t pid;

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	pid = fork();
	if (!pid) {
		if (!trap_reacquire())
			_exit(1);
		if (!sigsetjmp(jump, 1)) {
			tlock_start_reacquire(self->b, NULL, LONG);
			_exit(2);
		}
		/* As far as the library knows, the call goes on */
		if (!tlock_start_acquire(self->b, "j", LONG) || errno != EBUSY)
			_exit(3);
		if (!tlock_release(self->b) || errno != EPERM)
			_exit(4);
		if (!tlock_acquire(self->b, "j", MSEC) || errno != ETIMEDOUT)
			_exit(5);
		_exit(0);
	}
	EXPECT_EQ(0, exit_status(pid));
	EXPECT_EQ(0, tlock_release(self->a));
}

static int cancel(struct tlock *t, const char *job, int64_t timeout_ns)
{
	(void)job;
	(void)timeout_ns;
	return tlock_cancel(t);
}

TEST_F(lock, g11_cancel_of_a_started_request)
{
	struct call c = { .fn = cancel, .t = self->b };

	for (enum request request = WAITS; request < REQUESTS; request++) {
		start(_metadata, self->a, self->b, request);
		begin(&c);
		/* The loop wakes, and learns why */
		EXPECT_TRUE(decided(self->b));
		EXPECT_EQ(0, end(&c));
		EXPECT_EQ(0, look(self->a).waiters);
		EXPECT_EQ(request != GRANTED, !!look(self->a).holder.token);
		/* It is remembered until a call has returned it */
		EXPECT_EQ(0, tlock_cancel(self->b));
		EXPECT_FAILS(ECANCELED, tlock_finish(self->b));
		EXPECT_EQ(0, tlock_ticket(self->b));
		EXPECT_EQ(0, tlock_token(self->b));
		EXPECT_FAILS(EPERM, tlock_finish(self->b));
		EXPECT_FAILS(EPERM, tlock_cancel(self->b));

		/* Calls that make a new request return it, too */
		start(_metadata, self->a, self->b, request);
		EXPECT_EQ(0, tlock_cancel(self->b));
		EXPECT_FAILS(ECANCELED,
			     tlock_start_acquire(self->b, "j", TLOCK_TRY));
		EXPECT_EQ(0, tlock_ticket(self->b));
		start(_metadata, self->a, self->b, request);
		EXPECT_EQ(0, tlock_cancel(self->b));
		EXPECT_FAILS(ECANCELED, tlock_acquire(self->b, "j", LONG));
		EXPECT_FAILS(EPERM, tlock_finish(self->b));

		/* The kernel has nothing left to release */
		start(_metadata, self->a, self->b, request);
		EXPECT_EQ(0, tlock_cancel(self->b));
		EXPECT_FAILS(EPERM, tlock_release(self->b));
		EXPECT_FAILS(EPERM, tlock_finish(self->b));
		EXPECT_TRUE(clear(self->a, self->b));
	}
}

TEST_F(lock, g11_cancel_of_a_started_reacquire)
{
	ASSERT_EQ(0, tlock_acquire(self->b, "acq", TLOCK_TRY));
	EXPECT_FAILS(EINPROGRESS, tlock_start_acquire(self->a, "task", LONG));
	EXPECT_FAILS(EINPROGRESS, tlock_start_reacquire(self->b, NULL, LONG));
	EXPECT_EQ(0, tlock_cancel(self->b));
	EXPECT_EQ(POLLOUT, events(self->b));
	EXPECT_FAILS(ECANCELED, tlock_finish(self->b));
	EXPECT_EQ(0, tlock_finish(self->a));
	EXPECT_EQ(0, look(self->a).waiters);
	EXPECT_EQ(0, tlock_release(self->a));
}

/* A thread that cancels a handle when it is asked to, again and again */
struct canceler {
	pthread_t thread;
	struct tlock *t;
	atomic_int asked, done;
	int delay;
	bool succeeded;
};

static void *cancel_repeatedly(void *data)
{
	struct canceler *c = data;
	int round = 0;

	for (;;) {
		while (c->asked == round)
			sched_yield();
		round = c->asked;
		if (round < 0)
			return NULL;
		spin(c->delay);
		c->succeeded = !tlock_cancel(c->t);
		c->done = round;
	}
}

/*
 * A request is canceled while it is granted, or its deadline passes, and while
 * the outcome is taken. The cancel and tlock_finish() cannot both succeed.
 */
TEST_F(lock, g11_cancel_meets_the_decision)
{
	struct canceler c = { .t = self->b };
	/* canceled, timed out, granted */
	int counts[3] = {}, delays[3] = {}, i;
	int64_t until = now() + WHILE;

	ASSERT_EQ(0, pthread_create(&c.thread, NULL, cancel_repeatedly, &c));
	/* On a busy machine, the first rounds may all end alike */
	for (i = 1; i <= 3 * ROUNDS && (now() < until || !counts[0] ||
					!counts[1] || !counts[2]); i++) {
		/* Granted before it is canceled, at that time, or not in time */
		int kind = i % 3, err;

		ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
		ASSERT_EQ(-1, tlock_start_acquire(self->b, "waiter", kind == 2 ?
						  MSEC / 5 : LONG));
		ASSERT_EQ(EINPROGRESS, errno);
		if (kind == 0)
			ASSERT_EQ(0, tlock_release(self->a));
		c.delay = delays[kind];
		c.asked = i;
		if (kind == 1)
			ASSERT_EQ(0, tlock_release(self->a));
		ASSERT_TRUE(decided(self->b)) {
			TH_LOG("round %d, delay %d", i, c.delay);
		}
		err = tlock_finish(self->b) ? errno : 0;
		while (c.done != i)
			sched_yield();

		ASSERT_EQ(c.succeeded, err == ECANCELED) {
			TH_LOG("round %d, delay %d: %s", i, c.delay,
			       strerror(err));
		}
		if (err != ECANCELED)
			ASSERT_EQ(kind == 2 ? ETIMEDOUT : 0, err);
		ASSERT_EQ(!err, tlock_token(self->b) != 0);
		if (kind == 2)
			ASSERT_EQ(0, tlock_release(self->a));
		ASSERT_EQ(tlock_token(self->b), look(self->a).holder.token);
		ASSERT_EQ(0, look(self->a).waiters);
		ASSERT_EQ(err ? -1 : 0, tlock_release(self->b));
		counts[err == ECANCELED ? 0 : err ? 1 : 2]++;
		/* Stay close to where they meet */
		if (c.succeeded)
			delays[kind] += c.delay / 8 + 8;
		else
			delays[kind] -= c.delay / 8;
	}
	c.asked = -1;
	pthread_join(c.thread, NULL);
	TH_LOG("%d canceled, %d timed out, %d granted, delays %d %d %d",
	       counts[0], counts[1], counts[2], delays[0], delays[1],
	       delays[2]);
	for (i = 0; i < 3; i++)
		EXPECT_LT(0, counts[i]);
}

/* What a loop does for a request */
static int start_and_finish(struct tlock *t, const char *job,
			    int64_t timeout_ns)
{
	int ret = tlock_start_acquire(t, job, timeout_ns);

	while (ret && errno == EINPROGRESS) {
		if (!decided(t))
			abort();
		ret = tlock_finish(t);
	}
	return ret;
}

/* A cancel that comes while the request is being made counts, too. */
TEST_F(lock, g11_cancel_meets_the_start)
{
	struct call c = {
		.fn = start_and_finish, .t = self->b, .job = "waiter",
		.timeout_ns = TLOCK_FOREVER,
	};
	int64_t until = now() + WHILE;

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	for (int i = 0; i < ROUNDS && now() < until; i++) {
		begin(&c);
		/* The request cannot end in any other way */
		while (tlock_cancel(self->b))
			ASSERT_EQ(EPERM, errno);
		ASSERT_EQ(ECANCELED, end(&c));
		ASSERT_EQ(0, tlock_ticket(self->b));
		ASSERT_EQ(0, look(self->a).waiters);
	}
	ASSERT_EQ(0, tlock_release(self->a));
}

/*
 * So does the cancel of a start by a contender that has something already.
 * There, RELEASE may end that before the call asks for more.
 */
TEST_F(lock, g11_cancel_meets_a_start_that_holds)
{
	cancel_what_holds(_metadata, self, tlock_start_acquire,
			  tlock_start_reacquire);
}

/* In a forked child. Returns the number of the first call that is wrong. */
static int use_of_the_parents_request(struct tlock *t)
{
	if (!tlock_inherited(t))
		return 1;
	if (!tlock_finish(t) || errno != EPERM)
		return 2;
	if (!tlock_cancel(t) || errno != EPERM)
		return 3;
	if (!tlock_adopt(t) || errno != EPERM)
		return 4;
	tlock_scope_end(t);
	/* These leave the request the parent's */
	if (!tlock_start_acquire(t, "child", LONG) || errno != EBUSY)
		return 5;
	if (!tlock_acquire(t, "child", LONG) || errno != EBUSY)
		return 6;
	if (!tlock_finish(t) || errno != EPERM)
		return 7;
	if (!tlock_cancel(t) || errno != EPERM)
		return 8;
	if (!tlock_inherited(t) || !tlock_ticket(t))
		return 9;
	return 0;
}

TEST_F(lock, fork_with_a_started_request)
{
	for (enum request request = WAITS; request < REQUESTS; request++) {
		pid_t pid;

		start(_metadata, self->a, self->b, request);
		pid = fork();
		if (!pid)
			_exit(use_of_the_parents_request(self->b));
		EXPECT_EQ(0, exit_status(pid));
		EXPECT_EQ(request == WAITS, undecided(self->b));
		EXPECT_EQ(outcome[request] ? -1 : 0, tlock_finish(self->b));
		if (outcome[request])
			EXPECT_EQ(outcome[request], errno);
		EXPECT_TRUE(clear(self->a, self->b));

		/* A release by the child ends it for both */
		start(_metadata, self->a, self->b, request);
		pid = fork();
		if (!pid)
			_exit(tlock_release(self->b) || !tlock_release(self->b));
		EXPECT_TRUE(decided(self->b));
		EXPECT_EQ(0, exit_status(pid));
		EXPECT_FAILS(ECANCELED, tlock_finish(self->b));
		EXPECT_EQ(0, tlock_ticket(self->b));
		EXPECT_TRUE(clear(self->a, self->b));
	}
}

/* So do the calls of a child that leave a request interrupted. */
TEST_F(lock, fork_with_an_interrupted_request)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "thread",
		.timeout_ns = LONG,
	};
	pid_t pid;

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	interrupt(_metadata, &c);
	pid = fork();
	if (!pid)
		_exit(!tlock_reacquire(self->b, NULL, LONG) ||
		      errno != EPERM || !tlock_cancel(self->b) ||
		      errno != EPERM);
	EXPECT_EQ(0, exit_status(pid));
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_resume(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
}

/* Many handles of one lock in one loop */
#define HANDLES	20
#define TURNS	3

FIXTURE(loop)
{
	struct tlock *holder;
	struct tlock *t[HANDLES];
	int epoll;
};

FIXTURE_SETUP(loop)
{
	self->holder = tlock_open(NULL, O_RDWR);
	ASSERT_NE(NULL, self->holder);
	for (int i = 0; i < HANDLES; i++) {
		self->t[i] = tlock_open(NULL, O_RDWR);
		ASSERT_NE(NULL, self->t[i]);
	}
	self->epoll = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_LE(0, self->epoll);
}

FIXTURE_TEARDOWN(loop)
{
	EXPECT_EQ(0, look(self->holder).holder.token);
	EXPECT_EQ(0, look(self->holder).waiters);
	tlock_close(self->holder);
	for (int i = 0; i < HANDLES; i++)
		tlock_close(self->t[i]);
	close(self->epoll);
}

static void start_all(struct __test_metadata *_metadata,
		      FIXTURE_DATA(loop) *self)
{
	ASSERT_EQ(0, tlock_acquire(self->holder, "holder", TLOCK_TRY));
	for (int i = 0; i < HANDLES; i++) {
		ASSERT_EQ(-1, tlock_start_acquire(self->t[i], "waiter", LONG));
		ASSERT_EQ(EINPROGRESS, errno);
	}
}

static void watch(struct __test_metadata *_metadata, int epoll, int op,
		  struct tlock *t, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = t };

	ASSERT_EQ(0, epoll_ctl(epoll, op, tlock_fd(t), &event));
}

/* Each request is decided in turn, and reported once. */
static void test_epoll(struct __test_metadata *_metadata,
		       FIXTURE_DATA(loop) *self, uint32_t mode)
{
	struct epoll_event event;

	for (int turn = 0; turn < TURNS; turn++) {
		start_all(_metadata, self);
		for (int i = 0; i < HANDLES; i++)
			if (!turn || mode != EPOLLET)
				watch(_metadata, self->epoll, turn ?
				      EPOLL_CTL_MOD : EPOLL_CTL_ADD,
				      self->t[i], EPOLLOUT | mode);
		EXPECT_EQ(0, epoll_wait(self->epoll, &event, 1, 0));
		ASSERT_EQ(0, tlock_release(self->holder));
		for (int i = 0; i < HANDLES; i++) {
			ASSERT_EQ(1, epoll_wait(self->epoll, &event, 1,
						PATIENCE / MSEC));
			ASSERT_TRUE(event.data.ptr == self->t[i]);
			ASSERT_EQ(EPOLLOUT, event.events);
			if (!mode)
				watch(_metadata, self->epoll, EPOLL_CTL_MOD,
				      self->t[i], 0);
			/* Undecided requests and this one are quiet */
			ASSERT_EQ(0, epoll_wait(self->epoll, &event, 1, 0));
			ASSERT_EQ(0, tlock_finish(self->t[i]));
			ASSERT_EQ(0, epoll_wait(self->epoll, &event, 1, 0));
			ASSERT_EQ(0, tlock_release(self->t[i]));
		}
	}
}

TEST_F(loop, epoll)
{
	test_epoll(_metadata, self, 0);
}

TEST_F(loop, epoll_edge_triggered)
{
	test_epoll(_metadata, self, EPOLLET);
}

TEST_F(loop, epoll_oneshot)
{
	test_epoll(_metadata, self, EPOLLONESHOT);
}

/* A handle in two loops: both wake, and the outcome is taken once. */
TEST_F(loop, epoll_twice)
{
	int second = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;

	ASSERT_LE(0, second);
	start(_metadata, self->holder, self->t[0], WAITS);
	watch(_metadata, self->epoll, EPOLL_CTL_ADD, self->t[0],
	      EPOLLOUT | EPOLLET);
	watch(_metadata, second, EPOLL_CTL_ADD, self->t[0],
	      EPOLLOUT | EPOLLET);
	EXPECT_EQ(0, tlock_release(self->holder));
	EXPECT_EQ(1, epoll_wait(self->epoll, &event, 1, PATIENCE / MSEC));
	EXPECT_EQ(0, tlock_finish(self->t[0]));
	EXPECT_EQ(1, epoll_wait(second, &event, 1, PATIENCE / MSEC));
	EXPECT_FAILS(EPERM, tlock_finish(self->t[0]));
	EXPECT_EQ(0, tlock_release(self->t[0]));
	close(second);
}

/* An event that is still reported when the next request waits is no outcome. */
TEST_F(loop, event_of_an_earlier_request)
{
	struct epoll_event events[2];

	start(_metadata, self->holder, self->t[0], WAITS);
	watch(_metadata, self->epoll, EPOLL_CTL_ADD, self->t[0], EPOLLOUT);
	EXPECT_EQ(0, tlock_release(self->holder));
	EXPECT_EQ(1, epoll_wait(self->epoll, events, 2, PATIENCE / MSEC));
	/* Before the loop comes to this event */
	EXPECT_EQ(0, tlock_release(self->t[0]));
	start(_metadata, self->holder, self->t[0], WAITS);
	EXPECT_FAILS(EINPROGRESS, tlock_finish(self->t[0]));
	EXPECT_EQ(0, epoll_wait(self->epoll, events, 2, 0));
	EXPECT_EQ(0, tlock_release(self->holder));
	EXPECT_EQ(0, tlock_finish(self->t[0]));
	EXPECT_EQ(0, tlock_release(self->t[0]));
}

/* Some are withdrawn, closed or canceled while others are granted. */
TEST_F(loop, g11_withdrawals_among_others)
{
	start_all(_metadata, self);
	for (int i = 0; i < HANDLES; i += 4) {
		EXPECT_EQ(0, tlock_release(self->t[i + 1]));
		EXPECT_EQ(0, tlock_cancel(self->t[i + 2]));
		tlock_close(self->t[i + 3]);
		self->t[i + 3] = NULL;
	}
	EXPECT_EQ(HANDLES / 4, look(self->holder).waiters);
	EXPECT_EQ(0, tlock_release(self->holder));
	for (int i = 0; i < HANDLES; i += 4) {
		EXPECT_TRUE(decided(self->t[i]));
		EXPECT_EQ(0, tlock_finish(self->t[i]));
		EXPECT_FALSE(tlock_abandoned(self->t[i]));
		EXPECT_FAILS(ECANCELED, tlock_finish(self->t[i + 2]));
		EXPECT_EQ(0, tlock_release(self->t[i]));
	}
}

TEST_F(loop, select)
{
	fd_set writable, urgent;
	int most = 0;

	start_all(_metadata, self);
	ASSERT_EQ(0, tlock_release(self->holder));
	for (int i = 0; i < HANDLES; i++) {
		struct timeval patience = { .tv_sec = PATIENCE / SEC };
		int fd = tlock_fd(self->t[i]);

		FD_ZERO(&writable);
		FD_ZERO(&urgent);
		for (int n = 0; n < HANDLES; n++) {
			int other = tlock_fd(self->t[n]);

			if (n >= i)
				FD_SET(other, &writable);
			FD_SET(other, &urgent);
			most = other > most ? other : most;
		}
		/* The holder is writable, and urgent if others wait */
		EXPECT_EQ(i < HANDLES - 1 ? 2 : 1,
			  select(most + 1, NULL, &writable, &urgent,
				 &patience));
		EXPECT_TRUE(FD_ISSET(fd, &writable));
		EXPECT_EQ(i < HANDLES - 1, !!FD_ISSET(fd, &urgent));
		EXPECT_EQ(0, tlock_finish(self->t[i]));
		EXPECT_EQ(0, tlock_release(self->t[i]));
	}
}

/* Whether the example printed a line; reads up to it */
static bool prints(FILE *output, const char *line)
{
	char buf[256];

	while (fgets(buf, sizeof(buf), output)) {
		buf[strcspn(buf, "\n")] = '\0';
		if (!strcmp(buf, line))
			return true;
	}
	return false;
}

TEST_F(lock, example)
{
	FILE *output = run_example("epoll", "tlock");
	char line[64];

	EXPECT_TRUE(prints(output, "tlock: acquired"));
	EXPECT_TRUE(prints(output, "tlock: sample 1"));
	/* It lets this one in, and goes on */
	EXPECT_EQ(0, tlock_acquire(self->a, "visitor", LONG));
	EXPECT_TRUE(prints(output, "tlock: lets others in"));
	EXPECT_EQ(1, look(self->a).waiters);
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_TRUE(prints(output, "tlock: acquired"));
	EXPECT_TRUE(prints(output, "tlock: sample 10"));
	EXPECT_FALSE(prints(output, ""));
	EXPECT_EQ(0, pclose(output));

	/* Somebody else does not */
	ASSERT_EQ(0, tlock_acquire(self->a, "long job", TLOCK_TRY));
	output = run_example("epoll", "tlock nosuchlock");
	snprintf(line, sizeof(line), "tlock: held by long job, process %d",
		 getpid());
	EXPECT_TRUE(prints(output, line));
	EXPECT_FALSE(prints(output, ""));
	EXPECT_EQ(0, pclose(output));
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_acquire(self->a, "next", TLOCK_TRY));
	EXPECT_FALSE(tlock_abandoned(self->a));
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, g12_example_is_revoked)
{
	FILE *output = run_example("epoll", "tlock");

	EXPECT_TRUE(prints(output, "tlock: sample 1"));
	EXPECT_EQ(0, tlock_revoke(self->a, look(self->a).holder.token, 0));
	/* It learns of it at once, and not from its tenth sample */
	EXPECT_TRUE(prints(output, "tlock: revoked"));
	EXPECT_FALSE(prints(output, ""));
	EXPECT_EQ(0, pclose(output));
	output = run_example("epoll", "tlock");
	EXPECT_TRUE(prints(output, "tlock: acquired, and one hung"));
	EXPECT_TRUE(prints(output, "tlock: sample 10"));
	EXPECT_EQ(0, pclose(output));
}

/* Two handles for one lock in one thread take turns, a sample each. */
TEST_F(lock, example_with_itself)
{
	FILE *output = run_example("epoll", "tlock tlock");
	char line[64];
	int acquired = 0, let_in = 0, samples = 0;

	while (fgets(line, sizeof(line), output)) {
		acquired += !strcmp(line, "tlock: acquired\n");
		let_in += !strcmp(line, "tlock: lets others in\n");
		samples += !strncmp(line, "tlock: sample ", 14);
	}
	EXPECT_EQ(0, pclose(output));
	EXPECT_EQ(20, samples);
	EXPECT_LT(5, let_in);
	EXPECT_EQ(let_in + 2, acquired);
}

TEST_HARNESS_MAIN
