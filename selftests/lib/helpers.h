/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests share: the ioctls, contenders in threads (those in processes
 * are in agent.h), and ways to wait for a state that can be seen.
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
#include <sys/types.h>

#include <linux/tlock.h>

#define DEVICE		"/dev/tlock"
#define SYSFS		"/sys/class/tlock/tlock"

#define USEC		1000LL
#define MSEC		1000000LL
#define SEC		1000000000LL

/* How long to wait for what must happen: only a broken lock gets there */
#define PATIENCE	(8 * SEC)

/*
 * Timeouts that mean: not before the test has failed anyway; never. Of the
 * first, 32 bits alone would be next to nothing.
 */
#define LONG		((20LL << 32) + 1)
#define FOREVER		(-1LL)

/* Result of a call that does not end */
#define STUCK		(-100000)

/* Ends the test: what it is made of does not work. */
__attribute__((noreturn, format(printf, 1, 2)))
void die(const char *format, ...);

/* Clock that the lock's times are on, in nanoseconds */
__s64 now(void);
/* The wall clock, in microseconds since the epoch: its tokens begin there */
__u64 wall_clock_us(void);

/* The ioctls: what they return, or the negative errno */
int acquire(int fd, struct tlock_acquire *arg);
int reacquire(int fd, struct tlock_acquire *arg);
int release(int fd);
int status(int fd, struct tlock_status *st);

/* flock(2) with LOCK_EX, LOCK_EX | LOCK_NB and LOCK_UN; the argument is unused */
int flock_wait(int fd, struct tlock_acquire *arg);
int flock_try(int fd, struct tlock_acquire *arg);
int flock_end(int fd, struct tlock_acquire *arg);

/*
 * An argument. What the kernel may write, and what follows the job's NUL, is
 * full of POISON: a test sees what was written, and that the rest is ignored.
 */
#define POISON		0xa5
struct tlock_acquire ask(__s64 timeout_ns, const char *job);
bool poisoned(const void *field, size_t size);
bool zeroed(const void *field, size_t size);

/* Takes the lock without waiting for it; returns the token, or dies */
__u64 take(int fd, const char *job);

/* STATUS, or dies */
struct tlock_status look(int fd);

/* Whether this came to be seen in time */
bool await_waiters(int fd, unsigned int waiters);
bool await_contended(int fd, __u64 contended);
bool await_token(int fd, __u64 token);
bool await_acquired(int fd, __u64 at_least);
bool await_value(atomic_int *value, int at_least);
bool await_asleep(pid_t tid);
bool await_state(int fd, const char *state);

/*
 * What /proc/self/fdinfo says of a contender: "idle", "waiting", "away" or
 * "holding". @number (may be NULL) gets the token of one that holds, the ticket
 * of one that waits or is away, and 0 of one that is idle.
 */
const char *state_of(int fd, __u64 *number);

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
	__s64 begun, ended;	/* around the call */
	atomic_int tid;		/* of the thread, once it runs */
};

struct call *call(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
		  __s64 timeout_ns, const char *job);
/* The same with the caller's own argument */
struct call *call_with(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
		       struct tlock_acquire *arg);
/* What it returned, or STUCK */
int result(struct call *call);
void send_signal(struct call *call, int signal);
/*
 * Has SIGUSR1 handled, with these flags of sigaction(2). The handler counts,
 * does not go on while it must linger, and then does what there is to do, if
 * anything.
 */
extern atomic_int handled;
extern atomic_int linger;
void handle_usr1(int flags);
void handle_usr1_with(int flags, void (*fn)(void));

void run_on(pid_t tid, int cpu);
/*
 * Keeps a call that sleeps from running when it is woken: a thread of a higher
 * real-time priority spins on its CPU until let_run(). The caller and what it
 * starts run on another CPU. This takes two.
 */
struct call *hold_back(struct call *sleeper);
void let_run(struct call *hogger);
bool can_hold_back(void);

/*
 * A file's text without the newline at its end, or dies. It is good until the
 * thread has read four more.
 */
const char *read_text(const char *path);
__u64 read_number(const char *path);
/* The same of a file in the lock's sysfs directory */
#define sysfs_text(name)	read_text(SYSFS "/" name)
#define sysfs_number(name)	read_number(SYSFS "/" name)
/*
 * Paths of all files there, first those that are not always numbers: pid and uid
 * are empty if nobody holds the lock
 */
#define SYSFS_FILES	17
#define SYSFS_TEXTS	4
extern const char *const sysfs_files[SYSFS_FILES];

bool exists(const char *path);
/* Returns 0 or the negative errno */
int write_text(const char *path, const char *text);

/*
 * A cgroup (version 2), whose hierarchy is mounted if need be; false: this
 * kernel has none. It must be empty, or become so, to be removed.
 */
bool cgroup_create(const char *name);
int cgroup_write(const char *name, const char *file, const char *text);
void cgroup_enter(const char *name, pid_t pid);
/* Whether a line of cgroup.events, like "frozen 1", came to be seen in time */
bool await_cgroup(const char *name, const char *event);
void cgroup_remove(const char *name);

/*
 * Loads $TLOCK_KO, unloads it, and whether there is a driver of that name.
 * Unloading fails where rmmod fails: it does not wait for the last user.
 */
int module_load(void);
int module_unload(void);
bool module_registered(void);
/* Where the kernel has /proc/slabinfo: whether it lists contenders by themselves */
bool has_slab_cache(void);

#endif /* TLOCK_SELFTESTS_HELPERS_H */
