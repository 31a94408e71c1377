/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of libtlock share. They run as root with the module loaded, and
 * need /dev/tlock for themselves.
 *
 * No test sleeps and hopes: it waits until the lock's status shows a state.
 */
#ifndef LIBTLOCK_TEST_H
#define LIBTLOCK_TEST_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include <tlock.h>

/* The time limit of a test in seconds: only one that hangs takes as long */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	80

#define MSEC		1000000LL
#define SEC		1000000000LL
/* Only a broken library waits this long */
#define PATIENCE	(10 * SEC)
#define LONG		(100 * SEC)

static inline int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec;
}

static inline struct tlock_status look(const struct tlock *t)
{
	struct tlock_status st;

	if (tlock_status(t, &st))
		abort();
	return st;
}

#define EXPECT_FAILS(error, call) do {					\
	EXPECT_EQ(-1, call);						\
	EXPECT_EQ(error, errno);					\
} while (0)

/* What poll(2) reports now */
static inline short events(const struct tlock *t)
{
	struct pollfd p = {
		.fd = tlock_fd(t), .events = POLLIN | POLLPRI | POLLOUT,
	};

	if (poll(&p, 1, 0) < 0)
		abort();
	return p.revents;
}

/* Waits until the lock's status meets a condition; false: it did not */
#define AWAIT(t, condition) ({						\
	struct timespec briefly_ = { .tv_nsec = MSEC };			\
	int64_t deadline_ = now() + PATIENCE;				\
	struct tlock_status st;						\
									\
	while (st = look(t), !(condition) && now() < deadline_)		\
		nanosleep(&briefly_, NULL);				\
	(condition);							\
})

static inline bool await_waiters(const struct tlock *t, unsigned int waiters)
{
	return AWAIT(t, st.waiters == waiters);
}

/* A call of tlock_acquire() or a similar function, in a thread of its own */
struct call {
	pthread_t thread;
	int (*fn)(struct tlock *t, const char *job, int64_t timeout_ns);
	struct tlock *t;
	const char *job;
	int64_t timeout_ns;
	int64_t took;
	int err;	/* errno or 0 */
	atomic_bool ended;
};

static inline void *call_thread(void *data)
{
	struct call *c = data;
	int64_t begun = now();

	c->err = c->fn(c->t, c->job, c->timeout_ns) ? errno : 0;
	c->took = now() - begun;
	c->ended = true;
	return NULL;
}

static inline void begin(struct call *c)
{
	c->ended = false;
	if (pthread_create(&c->thread, NULL, call_thread, c))
		abort();
}

static inline int end(struct call *c)
{
	if (pthread_join(c->thread, NULL))
		abort();
	return c->err;
}

static inline void ignore(int sig)
{
	(void)sig;
}

static inline void handle_sigusr1(int flags)
{
	struct sigaction sa = { .sa_handler = ignore, .sa_flags = flags };

	sigaction(SIGUSR1, &sa, NULL);
}

static inline int exit_status(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

#define EXAMPLE_PATH_SIZE	4096

/* Where an example in userlib/examples was built, next to this program */
static inline const char *example_path(char buf[EXAMPLE_PATH_SIZE],
				       const char *name)
{
	ssize_t len = readlink("/proc/self/exe", buf, EXAMPLE_PATH_SIZE - 64);
	char *slash;

	if (len < 0)
		abort();
	buf[len] = '\0';
	slash = strrchr(buf, '/');
	sprintf(slash, "/obj/%s", name);
	return buf;
}

/* Runs an example with these arguments, and reads what it prints. */
static inline FILE *run_example(const char *name, const char *arguments)
{
	char path[EXAMPLE_PATH_SIZE], command[sizeof(path) + 64];
	FILE *output;

	snprintf(command, sizeof(command), "exec '%s' %s",
		 example_path(path, name), arguments);
	output = popen(command, "r");
	if (!output)
		abort();
	return output;
}

/* Two contenders for a free lock, which the test leaves free */
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
	/* So that the test does not see a lock abandoned before it began */
	ASSERT_EQ(0, tlock_acquire(self->a, "setup", TLOCK_TRY));
	ASSERT_EQ(0, tlock_release(self->a));
}

FIXTURE_TEARDOWN(lock)
{
	struct tlock_status st = look(self->a);

	EXPECT_EQ(0, st.holder.token) {
		TH_LOG("the lock is still held for %s", st.holder.job);
	}
	EXPECT_EQ(0, st.waiters);
	tlock_close(self->a);
	tlock_close(self->b);
}

/*
 * Leaves a contender with an interrupted request: it waited for the lock, which
 * another one holds, until a handler without SA_RESTART ran.
 */
static inline void interrupt(struct __test_metadata *_metadata, struct call *c)
{
	unsigned int waiters = look(c->t).waiters;

	handle_sigusr1(0);
	begin(c);
	ASSERT_TRUE(await_waiters(c->t, waiters + 1));
	ASSERT_EQ(0, pthread_kill(c->thread, SIGUSR1));
	ASSERT_EQ(EINTR, end(c));
	ASSERT_EQ(waiters, look(c->t).waiters);
}

static inline void spin(int turns)
{
	for (volatile int i = 0; i < turns; i++)
		;
}

/* This many rounds at most, and only as many as fit into this time */
#define ROUNDS	3000
#define WHILE	(10 * SEC)

/*
 * Cancels a call of a contender that holds the lock already, which asks for it
 * once more, at about the time at which that begins.
 */
static inline void
cancel_what_holds(struct __test_metadata *_metadata, FIXTURE_DATA(lock) *self,
		  int (*acquire)(struct tlock *, const char *, int64_t),
		  int (*reacquire)(struct tlock *, const char *, int64_t))
{
	int64_t until = now() + WHILE;
	int canceled = 0, i;

	for (i = 0; i < ROUNDS && now() < until; i++) {
		struct call c = {
			.fn = i & 1 ? reacquire : acquire,
			.t = self->b, .job = "again",
			.timeout_ns = TLOCK_FOREVER,
		};
		int ret;

		ASSERT_EQ(0, tlock_acquire(self->b, "holder", TLOCK_TRY));
		begin(&c);
		do {
			ret = tlock_cancel(self->b);
			if (ret)
				ASSERT_EQ(EPERM, errno);
		} while (ret && !c.ended);
		if (!ret) {
			ASSERT_EQ(ECANCELED, end(&c));
			ASSERT_EQ(0, tlock_token(self->b));
			ASSERT_EQ(0, look(self->a).holder.token);
			canceled++;
		} else {
			ASSERT_EQ(i & 1 ? 0 : EDEADLK, end(&c));
			ASSERT_EQ(tlock_token(self->b),
				  look(self->a).holder.token);
			ASSERT_EQ(0, tlock_release(self->b));
		}
	}
	TH_LOG("%d of %d were canceled", canceled, i);
}

#endif /* LIBTLOCK_TEST_H */
