// SPDX-License-Identifier: GPL-2.0-only
/*
 * libtlock as its header describes it, once a lock is open. Runs as root with
 * the module loaded and nobody else at /dev/tlock.
 *
 * No test sleeps and hopes: it waits for what the lock's status shows.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include <tlock.h>

#define MSEC		1000000LL
#define SEC		1000000000LL
/* Only a broken library gets to the end of these */
#define PATIENCE	(10 * SEC)
#define LONG		(100 * SEC)

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec;
}

static struct tlock_status look(const struct tlock *t)
{
	struct tlock_status st;

	if (tlock_status(t, &st))
		abort();
	return st;
}

static bool await_waiters(const struct tlock *t, unsigned int waiters)
{
	struct timespec briefly = { .tv_nsec = MSEC };
	int64_t deadline = now() + PATIENCE;

	while (look(t).waiters != waiters) {
		if (now() > deadline)
			return false;
		nanosleep(&briefly, NULL);
	}
	return true;
}

/* A call of tlock_acquire() or tlock_reacquire() in a thread of its own */
struct call {
	pthread_t thread;
	int (*fn)(struct tlock *t, const char *job, int64_t timeout_ns);
	struct tlock *t;
	const char *job;
	int64_t timeout_ns;
	int64_t took;
	int err;	/* errno or 0 */
};

static void *call_thread(void *data)
{
	struct call *c = data;
	int64_t begun = now();

	c->err = c->fn(c->t, c->job, c->timeout_ns) ? errno : 0;
	c->took = now() - begun;
	return NULL;
}

static void begin(struct call *c)
{
	if (pthread_create(&c->thread, NULL, call_thread, c))
		abort();
}

static int end(struct call *c)
{
	if (pthread_join(c->thread, NULL))
		abort();
	return c->err;
}

static void ignore(int sig)
{
	(void)sig;
}

static void handle_sigusr1(int flags)
{
	struct sigaction sa = { .sa_handler = ignore, .sa_flags = flags };

	sigaction(SIGUSR1, &sa, NULL);
}

static int exit_status(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/* Two contenders for a free lock, which the test gives back */
FIXTURE(lock)
{
	struct tlock *a, *b;
};

FIXTURE_SETUP(lock)
{
	char why[TLOCK_EXPLAIN_SIZE];

	self->a = tlock_open(NULL, O_RDWR);
	ASSERT_NE(NULL, self->a) {
		TH_LOG("%s", tlock_explain(NULL, errno, why, sizeof(why)));
	}
	self->b = tlock_open(NULL, O_RDWR);
	ASSERT_NE(NULL, self->b);
	ASSERT_EQ(0, look(self->a).holder.token);
	/* A holder that died before is not told to the test */
	ASSERT_EQ(0, tlock_acquire(self->a, "setup", TLOCK_TRY));
	ASSERT_EQ(0, tlock_release(self->a));
}

FIXTURE_TEARDOWN(lock)
{
	struct tlock_status st = look(self->a);

	EXPECT_EQ(0, st.holder.token) {
		TH_LOG("the test leaves the lock to %s", st.holder.job);
	}
	EXPECT_EQ(0, st.waiters);
	tlock_close(self->a);
	tlock_close(self->b);
}

TEST_F(lock, acquire_and_release)
{
	struct tlock_status st;

	EXPECT_EQ(0, tlock_token(self->a));
	ASSERT_EQ(0, tlock_acquire(self->a, "count stars \u2606", SEC));
	st = look(self->b);
	EXPECT_STREQ("count stars \u2606", st.holder.job);
	EXPECT_EQ(getpid(), st.holder.pid);
	EXPECT_NE(0, st.holder.token);
	EXPECT_EQ(st.holder.token, tlock_token(self->a));
	EXPECT_FALSE(tlock_abandoned(self->a));
	EXPECT_EQ(SEC, tlock_time_left(self->a));

	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_token(self->a));
	EXPECT_EQ(0, look(self->b).holder.token);

	EXPECT_EQ(-1, tlock_release(self->a));
	EXPECT_EQ(EPERM, errno);

	ASSERT_EQ(0, tlock_acquire(self->b, NULL, TLOCK_FOREVER));
	EXPECT_STREQ("", look(self->b).holder.job);
	EXPECT_LT(st.holder.token, tlock_token(self->b));
	EXPECT_EQ(TLOCK_FOREVER, tlock_time_left(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, job)
{
	char job[TLOCK_JOB_SIZE + 1] = "";

	memset(job, 'j', TLOCK_JOB_SIZE - 1);
	ASSERT_EQ(0, tlock_acquire(self->a, job, TLOCK_TRY));
	EXPECT_STREQ(job, look(self->a).holder.job);
	EXPECT_EQ(-1, tlock_reacquire(self->a, "two\nlines", TLOCK_TRY));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_NE(0, tlock_token(self->a));
	EXPECT_EQ(0, tlock_release(self->a));

	/* Not cut off */
	job[TLOCK_JOB_SIZE - 1] = 'j';
	EXPECT_EQ(-1, tlock_acquire(self->a, job, TLOCK_TRY));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, tlock_acquire(self->a, "\033[2J", TLOCK_TRY));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, tlock_token(self->a));
	EXPECT_EQ(0, look(self->a).holder.token);
}

TEST_F(lock, held_already)
{
	uint64_t token;

	ASSERT_EQ(0, tlock_acquire(self->a, "j", TLOCK_TRY));
	token = tlock_token(self->a);
	EXPECT_EQ(-1, tlock_acquire(self->a, "k", TLOCK_FOREVER));
	EXPECT_EQ(EDEADLK, errno);
	EXPECT_EQ(token, tlock_token(self->a));
	EXPECT_EQ(token, look(self->a).holder.token);
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, timeout_and_blocker)
{
	const struct tlock_holder *blocker = tlock_blocker(self->b);
	int64_t timeout = tlock_milliseconds(50);
	int64_t begun;

	EXPECT_EQ(0, blocker->token);
	ASSERT_EQ(0, tlock_acquire(self->a, "first", TLOCK_TRY));
	EXPECT_EQ(-1, tlock_acquire(self->b, "second", TLOCK_TRY));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_EQ(0, tlock_token(self->b));
	EXPECT_EQ(tlock_token(self->a), blocker->token);
	EXPECT_STREQ("first", blocker->job);
	EXPECT_EQ(getpid(), blocker->pid);

	ASSERT_EQ(0, tlock_reacquire(self->a, "first again", TLOCK_TRY));
	begun = now();
	EXPECT_EQ(-1, tlock_acquire(self->b, "second", timeout));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_LE(timeout, now() - begun);
	EXPECT_EQ(0, tlock_time_left(self->b));
	EXPECT_STREQ("first again", blocker->job);

	/* Stays, whoever holds the lock later */
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_acquire(self->b, "second", TLOCK_TRY));
	EXPECT_STREQ("first again", blocker->job);
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, wait)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = LONG,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, end(&c));
	EXPECT_EQ(look(self->a).holder.token, tlock_token(self->b));
	EXPECT_GT(LONG, tlock_time_left(self->b));
	EXPECT_LT(0, tlock_time_left(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, waiting_already)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = LONG,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(-1, tlock_acquire(self->b, "another", TLOCK_TRY));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, end(&c));
	EXPECT_STREQ("waiter", look(self->a).holder.job);
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, reacquire_alone)
{
	uint64_t token;

	EXPECT_EQ(-1, tlock_reacquire(self->a, NULL, TLOCK_TRY));
	EXPECT_EQ(EPERM, errno);

	ASSERT_EQ(0, tlock_acquire(self->a, "sample", TLOCK_TRY));
	token = tlock_token(self->a);
	EXPECT_EQ(0, tlock_reacquire(self->a, NULL, TLOCK_TRY));
	EXPECT_STREQ("sample", look(self->a).holder.job);
	EXPECT_EQ(0, tlock_reacquire(self->a, "", TLOCK_FOREVER));
	EXPECT_STREQ("sample", look(self->a).holder.job);
	EXPECT_EQ(0, tlock_reacquire(self->a, "sample 2", SEC));
	EXPECT_STREQ("sample 2", look(self->a).holder.job);
	EXPECT_EQ(token, tlock_token(self->a));
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, reacquire_yields)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "task",
		.timeout_ns = LONG,
	};
	struct call d = {
		.fn = tlock_reacquire, .t = self->a, .timeout_ns = LONG,
	};
	uint64_t token;

	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	token = tlock_token(self->a);
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	begin(&d);
	EXPECT_EQ(0, end(&c));
	ASSERT_TRUE(await_waiters(self->b, 1));
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_EQ(0, end(&d));
	EXPECT_LT(tlock_token(self->b), tlock_token(self->a));
	EXPECT_LT(token, tlock_token(self->a));
	EXPECT_STREQ("acq", look(self->a).holder.job);
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, reacquire_that_times_out)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "task",
		.timeout_ns = LONG,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(-1, tlock_reacquire(self->a, NULL, tlock_milliseconds(20)));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_EQ(0, end(&c));
	EXPECT_EQ(0, tlock_token(self->a));
	EXPECT_STREQ("task", tlock_blocker(self->a)->job);
	EXPECT_EQ(tlock_token(self->b), tlock_blocker(self->a)->token);
	EXPECT_EQ(-1, tlock_release(self->a));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, abandoned)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct tlock *t = tlock_open(NULL, O_RDWR);

		if (!t || tlock_acquire(t, "die", TLOCK_TRY))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));

	ASSERT_EQ(0, tlock_acquire(self->a, "next", LONG));
	EXPECT_TRUE(tlock_abandoned(self->a));
	/* Not changed by what takes no lock */
	EXPECT_EQ(-1, tlock_acquire(self->a, "next", TLOCK_TRY));
	EXPECT_TRUE(tlock_abandoned(self->a));
	EXPECT_EQ(0, tlock_reacquire(self->a, NULL, TLOCK_TRY));
	EXPECT_FALSE(tlock_abandoned(self->a));
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, close_does_not_release)
{
	struct tlock *t = tlock_open(NULL, O_RDWR);
	pid_t pid;

	ASSERT_NE(NULL, t);
	ASSERT_EQ(0, tlock_acquire(t, "j", TLOCK_TRY));

	/* Another process has the contender still */
	pid = fork();
	if (!pid) {
		tlock_close(t);
		_exit(0);
	}
	ASSERT_EQ(0, exit_status(pid));
	EXPECT_EQ(tlock_token(t), look(self->a).holder.token);

	errno = ENOTUNIQ;
	tlock_close(t);
	EXPECT_EQ(ENOTUNIQ, errno);
	ASSERT_EQ(0, tlock_acquire(self->a, "next", TLOCK_TRY));
	EXPECT_TRUE(tlock_abandoned(self->a));
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, fork_shares_the_contender)
{
	pid_t pid;

	ASSERT_EQ(0, tlock_acquire(self->a, "j", TLOCK_TRY));
	pid = fork();
	if (!pid)
		_exit(!!tlock_release(self->a));
	ASSERT_EQ(0, exit_status(pid));
	EXPECT_EQ(-1, tlock_release(self->a));
	EXPECT_EQ(EPERM, errno);

	/* A block has nothing to give back then, which is no error */
	tlock_scoped(self->a, "j", TLOCK_TRY) {
		pid = fork();
		if (!pid)
			_exit(!!tlock_release(self->a));
		ASSERT_EQ(0, exit_status(pid));
		errno = ENOTUNIQ;
	}
	EXPECT_EQ(ENOTUNIQ, errno);
}

TEST_F(lock, signal_ends_wait)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = LONG,
	};

	handle_sigusr1(0);
	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(0, pthread_kill(c.thread, SIGUSR1));
	EXPECT_EQ(EINTR, end(&c));
	EXPECT_EQ(0, look(self->a).waiters);
	EXPECT_EQ(0, tlock_token(self->b));
	EXPECT_LT(0, tlock_time_left(self->b));
	EXPECT_GT(LONG, tlock_time_left(self->b));
	EXPECT_EQ(0, tlock_release(self->a));
}

/* If each restart had the whole timeout again, this would not end. */
TEST_F(lock, signals_do_not_prolong_wait)
{
	struct timespec briefly = { .tv_nsec = 5 * MSEC };
	int64_t timeout = tlock_milliseconds(200);
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = timeout,
	};

	handle_sigusr1(SA_RESTART);
	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	do {
		EXPECT_EQ(0, pthread_kill(c.thread, SIGUSR1));
		nanosleep(&briefly, NULL);
	} while (pthread_tryjoin_np(c.thread, NULL));
	EXPECT_EQ(ETIMEDOUT, c.err);
	EXPECT_LE(timeout, c.took);
	EXPECT_LT(0, look(self->a).interrupted);
	EXPECT_EQ(0, tlock_time_left(self->b));
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, signal_ends_reacquire)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "task",
		.timeout_ns = LONG,
	};
	struct call d = {
		.fn = tlock_reacquire, .t = self->a, .timeout_ns = LONG,
	};

	handle_sigusr1(SA_RESTART);
	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	begin(&d);
	EXPECT_EQ(0, end(&c));
	ASSERT_TRUE(await_waiters(self->b, 1));
	EXPECT_EQ(0, pthread_kill(d.thread, SIGUSR1));
	EXPECT_EQ(EINTR, end(&d));
	EXPECT_EQ(0, tlock_token(self->a));
	EXPECT_LT(0, tlock_time_left(self->a));
	EXPECT_EQ(-1, tlock_release(self->a));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tlock_release(self->b));
}

static int return_from_scope(struct tlock *t)
{
	tlock_scoped(t, "return", TLOCK_TRY) {
		return tlock_token(t) ? 1 : -1;
	} else {
		return -1;
	}
	return 0;
}

TEST_F(lock, scope_gives_back_however_left)
{
	int turns = 0, blocks = 0;

	tlock_scoped(self->a, "end", TLOCK_TRY) {
		EXPECT_STREQ("end", look(self->b).holder.job);
		blocks++;
	} else {
		EXPECT_TRUE(false);
	}
	EXPECT_EQ(0, look(self->a).holder.token);

	EXPECT_EQ(1, return_from_scope(self->a));
	EXPECT_EQ(0, look(self->a).holder.token);

	tlock_scoped(self->a, "goto", TLOCK_TRY) {
		blocks++;
		goto out;
	}
out:
	EXPECT_EQ(0, look(self->a).holder.token);

	/* break and continue leave the block, and not the loop around it */
	for (turns = 0; turns < 2; turns++) {
		tlock_scoped(self->a, "break", TLOCK_TRY) {
			blocks++;
			if (blocks)
				break;
			blocks = 100;
		}
		EXPECT_EQ(0, look(self->a).holder.token);
		tlock_scoped(self->a, "continue", TLOCK_TRY) {
			blocks++;
			if (blocks)
				continue;
			blocks = 100;
		}
		EXPECT_EQ(0, look(self->a).holder.token);
	}
	EXPECT_EQ(2, turns);
	EXPECT_EQ(6, blocks);
	/* None went without a release */
	EXPECT_EQ(0, tlock_acquire(self->b, "next", TLOCK_TRY));
	EXPECT_FALSE(tlock_abandoned(self->b));
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, scope_not_entered)
{
	bool other = false;

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	tlock_scoped(self->b, "late", tlock_milliseconds(1)) {
		EXPECT_TRUE(false);
	} else {
		EXPECT_EQ(ETIMEDOUT, errno);
		EXPECT_STREQ("holder", tlock_blocker(self->b)->job);
		other = true;
	}
	EXPECT_TRUE(other);

	/* The contender itself holds the lock, by an outer block's doing */
	tlock_scoped(self->a, "again", TLOCK_TRY)
		EXPECT_TRUE(false);
	EXPECT_EQ(tlock_token(self->a), look(self->a).holder.token);
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, scope_releases_what_it_holds_only)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "task",
		.timeout_ns = LONG,
	};

	/* What is lost by a reacquire is the waiter's */
	tlock_scoped(self->a, "acq", TLOCK_TRY) {
		begin(&c);
		ASSERT_TRUE(await_waiters(self->a, 1));
		EXPECT_EQ(-1, tlock_reacquire(self->a, NULL, MSEC));
		EXPECT_EQ(ETIMEDOUT, errno);
	}
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_EQ(0, end(&c));
	EXPECT_EQ(tlock_token(self->b), look(self->b).holder.token);
	EXPECT_EQ(0, tlock_release(self->b));

	/* Released before the end, and held by somebody else at it */
	tlock_scoped(self->a, "short", TLOCK_TRY) {
		EXPECT_EQ(0, tlock_release(self->a));
		EXPECT_EQ(0, tlock_acquire(self->b, "task", TLOCK_TRY));
		errno = ENOTUNIQ;
	}
	EXPECT_EQ(ENOTUNIQ, errno);
	EXPECT_EQ(tlock_token(self->b), look(self->b).holder.token);
	EXPECT_EQ(0, tlock_release(self->b));

	/* Reacquired: the grant is another, but the block's all the same */
	tlock_scoped(self->a, "acq", TLOCK_TRY)
		EXPECT_EQ(0, tlock_reacquire(self->a, "more", TLOCK_TRY));
	EXPECT_EQ(0, look(self->a).holder.token);
}

TEST(seconds)
{
	EXPECT_EQ(TLOCK_TRY, tlock_seconds(0));
	EXPECT_EQ(TLOCK_TRY, tlock_seconds(-0.0));
	EXPECT_EQ(3 * SEC, tlock_seconds(3));
	EXPECT_EQ(100 * MSEC, tlock_seconds(0.1));
	EXPECT_EQ(1500 * MSEC, tlock_seconds(1.5));
	/* Never early, so never TLOCK_TRY */
	EXPECT_EQ(1, tlock_seconds(1e-9));
	EXPECT_EQ(2, tlock_seconds(1.5e-9));
	EXPECT_EQ(1, tlock_seconds(1e-30));
	EXPECT_EQ(1, tlock_seconds(5e-324));
	EXPECT_EQ(9223372036 * SEC, tlock_seconds(9223372036.));
	EXPECT_EQ(INT64_MAX, tlock_seconds(9223372037.));
	EXPECT_EQ(INT64_MAX, tlock_seconds(1e300));
	EXPECT_EQ(INT64_MAX, tlock_seconds(INFINITY));
	EXPECT_EQ(TLOCK_FOREVER, tlock_seconds(-1));
	EXPECT_EQ(TLOCK_FOREVER, tlock_seconds(-5e-324));
	EXPECT_EQ(TLOCK_FOREVER, tlock_seconds(-1e300));
	EXPECT_EQ(TLOCK_FOREVER, tlock_seconds(-INFINITY));
	EXPECT_EQ(TLOCK_TRY, tlock_seconds(NAN));
	EXPECT_EQ(TLOCK_TRY, tlock_seconds(-NAN));
}

TEST(milliseconds)
{
	EXPECT_EQ(TLOCK_TRY, tlock_milliseconds(0));
	EXPECT_EQ(MSEC, tlock_milliseconds(1));
	EXPECT_EQ(9223372036854 * MSEC, tlock_milliseconds(9223372036854));
	EXPECT_EQ(INT64_MAX, tlock_milliseconds(9223372036855));
	EXPECT_EQ(INT64_MAX, tlock_milliseconds(INT64_MAX));
	EXPECT_EQ(TLOCK_FOREVER, tlock_milliseconds(-1));
	EXPECT_EQ(TLOCK_FOREVER, tlock_milliseconds(INT64_MIN));
}

TEST_HARNESS_MAIN
