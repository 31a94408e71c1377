// SPDX-License-Identifier: GPL-2.0-only
/*
 * libtlock as its header describes it, once a lock is open. Runs as root with
 * the module loaded, and needs /dev/tlock for itself.
 */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>

#include "libtlock_test.h"
#include "table.h"

static bool await_interrupted(const struct tlock *t, uint64_t interrupted)
{
	return AWAIT(t, st.interrupted == interrupted);
}

static bool await_held(const struct tlock *t)
{
	return AWAIT(t, st.holder.token);
}

static int resume(struct tlock *t, const char *job, int64_t timeout_ns)
{
	(void)job;
	(void)timeout_ns;
	return tlock_resume(t);
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

/* Replaces escapes such as \\xHH, in place */
static void unescape(char *text)
{
	static const char letters[] = "tnr\\", bytes[] = "\t\n\r\\";
	char *to = text;
	int hex, len;

	while (*text) {
		const char *letter;

		if (*text != '\\') {
			*to++ = *text++;
			continue;
		}
		letter = strchr(letters, text[1]);
		if (letter) {
			*to++ = bytes[letter - letters];
			text += 2;
			continue;
		}
		if (sscanf(text, "\\x%2x%n", &hex, &len) != 1)
			abort();
		*to++ = (char)hex;
		text += len;
	}
	*to = '\0';
}

TEST_F(lock, job_of_any_text)
{
	FILE *jobs = open_table(TEST_DIR "jobs");
	char line[TABLE_LINE], job[TLOCK_JOB_SIZE + 1];
	char *expected;
	int count = 0;

	while (next_case(jobs, line, &expected)) {
		unescape(line);
		unescape(expected);
		memset(job, 'j', sizeof(job));
		EXPECT_TRUE(tlock_make_job(job, line) == job);
		EXPECT_STREQ(expected, job);
		EXPECT_EQ('j', job[TLOCK_JOB_SIZE]);
		/* The result is a valid job, and does not change again */
		EXPECT_EQ(0, tlock_acquire(self->a, job, TLOCK_TRY));
		EXPECT_STREQ(job, look(self->a).holder.job);
		EXPECT_EQ(0, tlock_release(self->a));
		EXPECT_STREQ(expected, tlock_make_job(line, job));
		count++;
	}
	EXPECT_LE(20, count);

	EXPECT_STREQ("", tlock_make_job(job, ""));
	EXPECT_STREQ("", tlock_make_job(job, NULL));
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

	/* The blocker stays, whoever holds the lock later */
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
	/* A call that gets no lock does not change it */
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

	/* Another process still has the contender */
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

	/* Then a block has nothing to release, which is no error */
	tlock_scoped(self->a, "j", TLOCK_TRY) {
		pid = fork();
		if (!pid)
			_exit(!!tlock_release(self->a));
		ASSERT_EQ(0, exit_status(pid));
		errno = ENOTUNIQ;
	}
	EXPECT_EQ(ENOTUNIQ, errno);
}

/*
 * A forked child leaves the block before its parent. Returns 3 if the lock was
 * still held then, and 4 if not.
 */
static int leave_block(struct tlock *t, bool adopt)
{
	tlock_scoped(t, "j", TLOCK_TRY) {
		pid_t pid = fork();

		if (pid)
			return exit_status(pid);
		if (!tlock_inherited(t) || (adopt && tlock_adopt(t)) ||
		    tlock_inherited(t) == adopt)
			_exit(2);
		break;
	} else {
		return -1;
	}
	_exit(look(t).holder.token ? 3 : 4);
}

TEST_F(lock, fork_and_scoped)
{
	/* By now the parent has left its block as well */
	ASSERT_EQ(3, leave_block(self->a, false));
	EXPECT_EQ(0, look(self->a).holder.token);
	EXPECT_FALSE(tlock_inherited(self->a));
	ASSERT_EQ(4, leave_block(self->a, true));
	EXPECT_EQ(0, look(self->a).holder.token);
	EXPECT_EQ(-1, tlock_adopt(self->a));
	EXPECT_EQ(EPERM, errno);
}

TEST_F(lock, g9_signal_interrupts_wait)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = LONG,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	EXPECT_EQ(0, tlock_ticket(self->b));
	interrupt(_metadata, &c);
	EXPECT_EQ(0, tlock_token(self->b));
	EXPECT_NE(0, tlock_ticket(self->b));
	EXPECT_LT(0, tlock_time_left(self->b));
	EXPECT_GT(LONG, tlock_time_left(self->b));

	/* The kernel withdraws the request, once */
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_EQ(-1, tlock_release(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, tlock_resume(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tlock_release(self->a));
}

/* A holder, a contender that asks first, and one that comes later */
FIXTURE(turn)
{
	struct tlock *holder, *first, *later;
};

FIXTURE_SETUP(turn)
{
	self->holder = tlock_open(NULL, O_RDWR);
	ASSERT_NE(NULL, self->holder);
	self->first = tlock_open(NULL, O_RDWR);
	ASSERT_NE(NULL, self->first);
	self->later = tlock_open(NULL, O_RDWR);
	ASSERT_NE(NULL, self->later);
	ASSERT_EQ(0, tlock_acquire(self->holder, "holder", TLOCK_TRY));
}

FIXTURE_TEARDOWN(turn)
{
	EXPECT_EQ(0, look(self->holder).holder.token);
	EXPECT_EQ(0, look(self->holder).waiters);
	tlock_close(self->holder);
	tlock_close(self->first);
	tlock_close(self->later);
}

TEST_F(turn, g9_resume_goes_on_in_place)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->first, .job = "first",
		.timeout_ns = LONG,
	};
	struct call d = {
		.fn = tlock_acquire, .t = self->later, .job = "later",
		.timeout_ns = LONG,
	};
	uint64_t ticket;

	interrupt(_metadata, &c);
	ticket = tlock_ticket(self->first);
	begin(&d);
	ASSERT_TRUE(await_waiters(self->holder, 1));

	/* Interrupted again, as in a loop around tlock_resume() */
	c.fn = resume;
	interrupt(_metadata, &c);
	EXPECT_EQ(ticket, tlock_ticket(self->first));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->holder, 2));
	EXPECT_EQ(0, tlock_release(self->holder));
	EXPECT_EQ(0, end(&c));
	EXPECT_STREQ("first", look(self->holder).holder.job);
	EXPECT_EQ(look(self->holder).holder.token, tlock_token(self->first));
	EXPECT_EQ(0, tlock_ticket(self->first));
	EXPECT_GT(LONG, tlock_time_left(self->first));
	EXPECT_EQ(1, look(self->holder).waiters);
	EXPECT_EQ(0, tlock_release(self->first));
	EXPECT_EQ(0, end(&d));
	EXPECT_EQ(0, tlock_release(self->later));
}

TEST_F(turn, g9_acquire_asks_anew)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->first, .job = "first",
		.timeout_ns = LONG,
	};
	struct call d = {
		.fn = tlock_acquire, .t = self->later, .job = "later",
		.timeout_ns = LONG,
	};
	uint64_t ticket;

	interrupt(_metadata, &c);
	ticket = tlock_ticket(self->first);
	begin(&d);
	ASSERT_TRUE(await_waiters(self->holder, 1));

	/* These do not replace the request */
	EXPECT_EQ(-1, tlock_reacquire(self->first, NULL, LONG));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, tlock_acquire(self->first, "two\nlines", LONG));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(ticket, tlock_ticket(self->first));

	begin(&c);
	ASSERT_TRUE(await_waiters(self->holder, 2));
	EXPECT_EQ(0, tlock_release(self->holder));
	EXPECT_EQ(0, end(&d));
	EXPECT_EQ(0, tlock_release(self->later));
	EXPECT_EQ(0, end(&c));
	EXPECT_EQ(0, tlock_release(self->first));
}

TEST_F(turn, g9_resume_after_the_deadline_tries)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->first, .job = "first",
		.timeout_ns = tlock_milliseconds(2000),
	};
	struct timespec briefly = { .tv_nsec = 10 * MSEC };
	int64_t begun = now();

	/* On a busy machine the wait may end before the signal arrives */
	handle_sigusr1(0);
	begin(&c);
	while (!c.ended) {
		ASSERT_EQ(0, pthread_kill(c.thread, SIGUSR1));
		nanosleep(&briefly, NULL);
	}
	ASSERT_EQ(EINTR, end(&c));
	while (now() < begun + c.timeout_ns)
		nanosleep(&briefly, NULL);
	EXPECT_EQ(-1, tlock_resume(self->first));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_EQ(0, tlock_time_left(self->first));
	EXPECT_EQ(0, tlock_ticket(self->first));
	EXPECT_STREQ("holder", tlock_blocker(self->first)->job);
	EXPECT_EQ(-1, tlock_resume(self->first));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tlock_release(self->holder));
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

TEST_F(lock, g9_reacquire_goes_on)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "task",
		.timeout_ns = LONG,
	};
	struct call d = {
		.fn = tlock_reacquire, .t = self->a, .timeout_ns = LONG,
	};
	uint64_t interrupted = look(self->a).interrupted;

	handle_sigusr1(SA_RESTART);
	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	begin(&d);
	EXPECT_EQ(0, end(&c));
	ASSERT_TRUE(await_waiters(self->b, 1));
	EXPECT_EQ(0, pthread_kill(d.thread, SIGUSR1));
	ASSERT_TRUE(await_interrupted(self->a, interrupted + 1));
	ASSERT_TRUE(await_waiters(self->b, 1));

	/* Without SA_RESTART it returns; tlock_resume() goes on with it */
	handle_sigusr1(0);
	EXPECT_EQ(0, pthread_kill(d.thread, SIGUSR1));
	EXPECT_EQ(EINTR, end(&d));
	EXPECT_EQ(0, tlock_token(self->a));
	EXPECT_NE(0, tlock_ticket(self->a));
	EXPECT_LT(0, tlock_time_left(self->a));
	d.fn = resume;
	begin(&d);
	ASSERT_TRUE(await_waiters(self->b, 1));
	EXPECT_EQ(0, tlock_release(self->b));
	EXPECT_EQ(0, end(&d));
	EXPECT_STREQ("acq", look(self->a).holder.job);
	EXPECT_EQ(interrupted + 1, look(self->a).interrupted);
	EXPECT_EQ(0, tlock_release(self->a));
}

static sigjmp_buf jump;

static void jump_out(int sig)
{
	(void)sig;
	siglongjmp(jump, 1);
}

static int acquire_and_jump(struct tlock *t, const char *job, int64_t timeout_ns)
{
	if (!sigsetjmp(jump, 1))
		return tlock_acquire(t, job, timeout_ns);
	/* As far as the library knows, the call goes on */
	if (!tlock_acquire(t, job, TLOCK_TRY) || errno != EBUSY)
		abort();
	if (tlock_release(t))
		abort();
	errno = EINTR;
	return -1;
}

/* A release ends a call that a handler jumped out of. */
TEST_F(lock, g11_release_after_a_jump)
{
	struct sigaction sa = { .sa_handler = jump_out };
	struct call c = {
		.fn = acquire_and_jump, .t = self->b, .job = "waiter",
		.timeout_ns = LONG,
	};

	sigaction(SIGUSR1, &sa, NULL);
	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(0, pthread_kill(c.thread, SIGUSR1));
	EXPECT_EQ(EINTR, end(&c));
	EXPECT_EQ(0, look(self->a).waiters);
	EXPECT_EQ(-1, tlock_cancel(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_acquire(self->b, "waiter", TLOCK_TRY));
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, g11_cancel_ends_wait)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = TLOCK_FOREVER,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(0, tlock_cancel(self->b));
	EXPECT_EQ(0, look(self->a).waiters);
	EXPECT_EQ(ECANCELED, end(&c));
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_EQ(-1, tlock_release(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(tlock_token(self->a), look(self->a).holder.token);

	/* The cancel applied to that call, and to no later one */
	EXPECT_EQ(-1, tlock_acquire(self->b, "waiter", TLOCK_TRY));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, tlock_acquire(self->b, "waiter", TLOCK_TRY));
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, g11_cancel_ends_reacquire)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "task",
		.timeout_ns = LONG,
	};
	struct call d = {
		.fn = tlock_reacquire, .t = self->a,
		.timeout_ns = TLOCK_FOREVER,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "acq", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	begin(&d);
	EXPECT_EQ(0, end(&c));
	ASSERT_TRUE(await_waiters(self->b, 1));
	EXPECT_EQ(0, tlock_cancel(self->a));
	EXPECT_EQ(ECANCELED, end(&d));
	EXPECT_EQ(0, tlock_token(self->a));
	EXPECT_EQ(tlock_token(self->b), look(self->a).holder.token);
	EXPECT_EQ(0, tlock_release(self->b));
}

TEST_F(lock, g11_cancel_of_nothing)
{
	EXPECT_EQ(-1, tlock_cancel(self->a));
	EXPECT_EQ(EPERM, errno);
	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	EXPECT_EQ(-1, tlock_cancel(self->a));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(tlock_token(self->a), look(self->a).holder.token);
	EXPECT_EQ(-1, tlock_acquire(self->b, "waiter", MSEC));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_EQ(-1, tlock_cancel(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, g11_cancel_of_an_interrupted_request)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = LONG,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	interrupt(_metadata, &c);
	EXPECT_EQ(0, tlock_cancel(self->b));
	/* It is remembered until a call has returned it */
	EXPECT_EQ(0, tlock_cancel(self->b));
	EXPECT_EQ(-1, tlock_resume(self->b));
	EXPECT_EQ(ECANCELED, errno);
	EXPECT_EQ(-1, tlock_resume(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, tlock_cancel(self->b));
	EXPECT_EQ(EPERM, errno);

	/* Calls that make a new request return it, too */
	interrupt(_metadata, &c);
	EXPECT_EQ(0, tlock_cancel(self->b));
	EXPECT_EQ(-1, tlock_acquire(self->b, "waiter", TLOCK_TRY));
	EXPECT_EQ(ECANCELED, errno);
	EXPECT_EQ(-1, tlock_acquire(self->b, "waiter", TLOCK_TRY));
	EXPECT_EQ(ETIMEDOUT, errno);

	/* The kernel has nothing left to release */
	interrupt(_metadata, &c);
	EXPECT_EQ(0, tlock_cancel(self->b));
	EXPECT_EQ(-1, tlock_release(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, tlock_acquire(self->b, "waiter", TLOCK_TRY));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_EQ(0, tlock_release(self->a));
}

/* Another process withdraws the request of a call that sleeps here. */
TEST_F(lock, g11_release_by_another_process)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = LONG,
	};
	pid_t pid;

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	begin(&c);
	ASSERT_TRUE(await_waiters(self->a, 1));
	pid = fork();
	if (!pid)
		_exit(!!tlock_release(self->b));
	ASSERT_EQ(0, exit_status(pid));
	EXPECT_EQ(ECANCELED, end(&c));
	EXPECT_EQ(0, tlock_ticket(self->b));

	/* So it does with a request that is away */
	interrupt(_metadata, &c);
	pid = fork();
	if (!pid)
		_exit(!!tlock_release(self->b));
	ASSERT_EQ(0, exit_status(pid));
	EXPECT_EQ(-1, tlock_resume(self->b));
	EXPECT_EQ(ECANCELED, errno);
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_EQ(0, tlock_release(self->a));
}

/*
 * The lock is handed over and the call canceled at the same time. The cancel
 * and the call cannot both succeed.
 */
TEST_F(lock, g11_cancel_meets_the_grant)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = LONG,
	};
	int64_t until = now() + WHILE;
	int delay = 0, canceled = 0, i;

	for (i = 0; i < ROUNDS && now() < until; i++) {
		bool cancels;

		ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
		begin(&c);
		ASSERT_TRUE(await_waiters(self->a, 1));
		ASSERT_EQ(0, tlock_release(self->a));
		spin(delay);
		cancels = !tlock_cancel(self->b);
		if (!cancels)
			ASSERT_EQ(EPERM, errno);
		ASSERT_EQ(cancels ? ECANCELED : 0, end(&c)) {
			TH_LOG("round %d, delay %d", i, delay);
		}
		ASSERT_EQ(!cancels, look(self->a).holder.token != 0);
		ASSERT_EQ(!cancels, tlock_token(self->b) != 0);
		ASSERT_EQ(cancels ? -1 : 0, tlock_release(self->b));
		canceled += cancels;
		/* Stay close to where they meet */
		if (cancels)
			delay += delay / 8 + 8;
		else
			delay -= delay / 8;
	}
	TH_LOG("%d of %d were canceled, delay %d", canceled, i, delay);
	EXPECT_LT(0, canceled);
	EXPECT_GT(i, canceled);
}

/* A cancel that comes while the call is on its way into the kernel counts. */
TEST_F(lock, g11_cancel_meets_the_call)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "waiter",
		.timeout_ns = TLOCK_FOREVER,
	};

	int64_t until = now() + WHILE;

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	for (int i = 0; i < ROUNDS && now() < until; i++) {
		begin(&c);
		/* The call cannot end in any other way */
		while (tlock_cancel(self->b))
			ASSERT_EQ(EPERM, errno);
		ASSERT_EQ(ECANCELED, end(&c));
		ASSERT_EQ(0, look(self->a).waiters);
	}
	ASSERT_EQ(0, tlock_release(self->a));
}

/*
 * So does the cancel of a call by a contender that holds the lock already.
 * There, RELEASE may end that grant before the call asks for another one.
 */
TEST_F(lock, g11_cancel_meets_a_call_that_holds)
{
	cancel_what_holds(_metadata, self, tlock_acquire, tlock_reacquire);
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
	/* Each block released the lock */
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

	/* The contender itself holds the lock, as in an outer block */
	tlock_scoped(self->a, "again", TLOCK_TRY)
		EXPECT_TRUE(false);
	EXPECT_EQ(tlock_token(self->a), look(self->a).holder.token);
	EXPECT_EQ(0, tlock_release(self->a));
}

static void *scope_thread(void *data)
{
	struct call *c = data;

	tlock_scoped(c->t, c->job, c->timeout_ns)
		c->err = 0;
	else
		c->err = errno;
	return NULL;
}

static void *scope_around_reacquire(void *data)
{
	struct call *c = data;

	tlock_scoped(c->t, c->job, TLOCK_TRY) {
		if (!await_waiters(c->t, 1))
			abort();
		c->err = tlock_reacquire(c->t, NULL, c->timeout_ns) ? errno : 0;
	}
	return NULL;
}

/* A request that nobody goes on with is withdrawn. */
TEST_F(lock, g11_scope_withdraws)
{
	struct call c = {
		.t = self->b, .job = "scope", .timeout_ns = TLOCK_FOREVER,
	};

	handle_sigusr1(0);
	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	ASSERT_EQ(0, pthread_create(&c.thread, NULL, scope_thread, &c));
	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(0, pthread_kill(c.thread, SIGUSR1));
	EXPECT_EQ(EINTR, end(&c));
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_EQ(-1, tlock_release(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tlock_release(self->a));

	/* In a block at whose end the contender does not hold the lock */
	ASSERT_EQ(0, pthread_create(&c.thread, NULL, scope_around_reacquire,
				    &c));
	ASSERT_TRUE(await_held(self->a));
	ASSERT_EQ(0, tlock_acquire(self->a, "task", LONG));
	ASSERT_TRUE(await_waiters(self->a, 1));
	EXPECT_EQ(0, pthread_kill(c.thread, SIGUSR1));
	EXPECT_EQ(EINTR, end(&c));
	EXPECT_EQ(0, tlock_ticket(self->b));
	EXPECT_EQ(-1, tlock_release(self->b));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tlock_release(self->a));
}

TEST_F(lock, scope_releases_what_it_holds_only)
{
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "task",
		.timeout_ns = LONG,
	};

	/* The waiter holds what a reacquire has lost */
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

	/* Released before the end of the block, when somebody else holds it */
	tlock_scoped(self->a, "short", TLOCK_TRY) {
		EXPECT_EQ(0, tlock_release(self->a));
		EXPECT_EQ(0, tlock_acquire(self->b, "task", TLOCK_TRY));
		errno = ENOTUNIQ;
	}
	EXPECT_EQ(ENOTUNIQ, errno);
	EXPECT_EQ(tlock_token(self->b), look(self->b).holder.token);
	EXPECT_EQ(0, tlock_release(self->b));

	/* A reacquired lock belongs to the block, too */
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
