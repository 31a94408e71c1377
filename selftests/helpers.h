/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests share: the ioctls, contenders in threads and in processes,
 * and ways to wait for a state that can be seen.
 *
 * No test sleeps and hopes. It waits for what the lock or the kernel shows,
 * and fails if that does not come within PATIENCE. Where the test's own
 * machinery fails (no thread, no process), it aborts, which fails the test.
 */
#ifndef TLOCK_SELFTESTS_HELPERS_H
#define TLOCK_SELFTESTS_HELPERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/tlock.h>

#define DEVICE		"/dev/tlock"
#define SYSFS		"/sys/class/tlock/tlock"

#define USEC		1000LL
#define MSEC		1000000LL
#define SEC		1000000000LL

/* How long to wait for what must happen: only a broken lock gets there */
#define PATIENCE	(8 * SEC)

/* Timeouts that mean: not before the test has failed anyway; never */
#define LONG		(100 * SEC)
#define FOREVER		(-1LL)

/* Result of a call that does not end */
#define STUCK		(-100000)

/* Clock that the lock's times are on, in nanoseconds */
int64_t now(void);

/* The ioctls: what they return, or the negative errno */
int acquire(int fd, struct tlock_acquire *arg);
int reacquire(int fd, struct tlock_acquire *arg);
int release(int fd);
int status(int fd, struct tlock_status *st);

/*
 * An argument. What the kernel may write, and what follows the job's NUL, is
 * full of POISON: a test sees what was written, and that the rest is ignored.
 */
#define POISON		0xa5
struct tlock_acquire ask(int64_t timeout_ns, const char *job);
bool poisoned(const void *field, size_t size);

/* Takes the lock without waiting for it; returns the token, or dies */
uint64_t take(int fd, const char *job);

/* STATUS, or dies */
struct tlock_status look(int fd);

/* Whether this came to be seen in time */
bool await_waiters(int fd, unsigned int waiters);
bool await_contended(int fd, uint64_t contended);
bool await_token(int fd, uint64_t token);
bool await_value(atomic_int *value, int at_least);
bool await_asleep(pid_t tid);

/* A contender's own file, writable, or dies */
int contender(void);

/*
 * A call in a thread of its own. It is never freed: after a failed assertion
 * the thread may still be in the kernel.
 */
struct call {
	pthread_t thread;
	int (*fn)(int fd, struct tlock_acquire *arg);
	int fd;
	struct tlock_acquire *arg;
	struct tlock_acquire own_arg;
	int ret;
	bool joined;
	int64_t begun, ended;	/* around the call */
	atomic_int tid;		/* of the thread, once it runs */
};

struct call *call(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
		  int64_t timeout_ns, const char *job);
/* The same with the caller's own argument */
struct call *call_with(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
		       struct tlock_acquire *arg);
/* What it returned, or STUCK */
int result(struct call *call);
void send_signal(struct call *call, int signal);

/*
 * A process that makes calls for the test. An agent has no descriptor but its
 * own contender and the socket on which it is told what to do. It dies with
 * the test.
 */
struct agent {
	pid_t pid;
	int ctl;
};

/* What an agent can be made to call, with a copy of the argument */
typedef int agent_fn(int fd, struct tlock_acquire *arg);

/*
 * agent() has a file of its own; agent_sharing() has that of the caller;
 * agent_in() is in new namespaces (CLONE_NEW*), with a file of its own.
 */
struct agent *agent(void);
struct agent *agent_sharing(int fd);
struct agent *agent_in(uint64_t namespaces);

/* Has it call @fn; @arg (may be NULL) is what it passes and gets back */
int agent_do(struct agent *a, agent_fn *fn, struct tlock_acquire *arg);
/* The same in two halves; the result may be STUCK */
void agent_begin(struct agent *a, agent_fn *fn,
		 const struct tlock_acquire *arg);
int agent_end(struct agent *a, struct tlock_acquire *arg);

uint64_t agent_take(struct agent *a, const char *job);
int agent_release(struct agent *a);
struct tlock_status agent_look(struct agent *a);

/* Reads the file arg->job into arg->holder.job, for agent_do() */
int agent_read(int fd, struct tlock_acquire *arg);

/* Waits for its end, killing it first or not; returns wait()'s status */
int agent_reap(struct agent *a);
int agent_kill(struct agent *a);
void agents_kill(void);

/* In an agent: the socket to the test */
extern int agent_ctl;

/* A descriptor over a socket, or dies */
void send_fd(int sock, int fd);
int recv_fd(int sock);

/*
 * A file's text without the newline at its end, or dies. It is good until the
 * thread has read four more.
 */
const char *read_text(const char *path);
uint64_t read_number(const char *path);
/* The same of a file in the lock's sysfs folder */
const char *sysfs_text(const char *name);
uint64_t sysfs_number(const char *name);

#endif /* TLOCK_SELFTESTS_HELPERS_H */
