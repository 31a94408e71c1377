/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests share: wrappers of the ioctls, contenders in threads (for
 * contenders in processes see agent.h), and functions that wait for a visible
 * state.
 *
 * No test sleeps and hopes. It waits until the lock or the kernel shows a
 * state, and fails if that takes longer than PATIENCE. If the test's own
 * machinery fails (it cannot start a thread or a process), it aborts, which
 * fails the test.
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

/*
 * How long to wait for something that must happen: only a broken lock takes
 * longer
 */
#define PATIENCE	(8 * SEC)

/*
 * Timeouts: LONG does not expire before the test has failed anyway, and FOREVER
 * never does. The lower 32 bits of LONG alone would be a very short timeout.
 */
#define LONG		((20LL << 32) + 1)
#define FOREVER		(-1LL)

/* Result of a call that does not return */
#define STUCK		(-100000)

/* Aborts the test, because its own machinery does not work */
__attribute__((noreturn, format(printf, 1, 2)))
void die(const char *format, ...);

/* The clock that the lock uses for its times, in nanoseconds */
__s64 now(void);
/* The clock that a gate uses to end its openings */
__s64 boottime(void);
/* The wall clock, in microseconds since the epoch: tokens begin there */
__u64 wall_clock_us(void);

/* The ioctls; they return the result or the negative errno */
int acquire(int fd, struct tlock_acquire *arg);
int reacquire(int fd, struct tlock_acquire *arg);
int release(int fd);
int status(int fd, struct tlock_status *st);
int next_waiter(int fd, struct tlock_waiter *waiter);
int revoke_with(int fd, const struct tlock_revoke *arg);
int revoke_grant(int fd, __u64 token, __u64 grace_ns);
/* REACQUIRE with TLOCK_RENEW: without a new job, and with this lease */
int renew(int fd, __u64 lease_ns);
int start_monitor(int fd);
int gate(int fd, struct tlock_gate *arg);
/* read(2) of a file that monitors: the number of bytes, or the negative errno */
ssize_t read_events(int fd, void *events, size_t size);

/*
 * flock(2) with LOCK_EX, LOCK_EX | LOCK_NB and LOCK_UN; the argument is unused
 */
int flock_wait(int fd, struct tlock_acquire *arg);
int flock_try(int fd, struct tlock_acquire *arg);
int flock_end(int fd, struct tlock_acquire *arg);

/*
 * An argument for acquire or reacquire. All that the kernel may write, and all
 * that follows the job's NUL, is filled with POISON: so a test can see what was
 * written, and that the rest is ignored.
 */
#define POISON		0xa5
struct tlock_acquire ask(__s64 timeout_ns, const char *job);
bool poisoned(const void *field, size_t size);
bool zeroed(const void *field, size_t size);

/* The same with TLOCK_ASYNC */
struct tlock_acquire ask_async(__s64 timeout_ns, const char *job);

/* The same with a lease */
struct tlock_acquire ask_lease(__s64 timeout_ns, const char *job,
			       __u64 lease_ns);

/* Acquires the lock without waiting for it; returns the token, or dies */
__u64 take(int fd, const char *job);
/* The same with a lease */
__u64 take_lease(int fd, const char *job, __u64 lease_ns);

/*
 * Start an asynchronous request that must wait, or die. They return the
 * argument, with the ticket.
 */
struct tlock_acquire start_acquire(int fd, __s64 timeout_ns, const char *job);
struct tlock_acquire start_reacquire(int fd, __s64 timeout_ns, const char *job);

/* STATUS, or dies */
struct tlock_status look(int fd);

/* Wait for a state; return whether it came within PATIENCE */
bool await_waiters(int fd, unsigned int waiters);
bool await_contended(int fd, __u64 contended);
bool await_token(int fd, __u64 token);
bool await_acquired(int fd, __u64 at_least);
bool await_value(atomic_int *value, int at_least);
bool await_asleep(pid_t tid);
bool await_state(int fd, const char *state);
/* Waits until it has a request or the lock */
bool await_busy(int fd);

/* Sleeps until this time on CLOCK_MONOTONIC */
void sleep_until(__s64 when);

/*
 * A contender's state in /proc/self/fdinfo: "idle", "revoked", "waiting",
 * "away", "decided" or "holding". @number (may be NULL) receives the token of a
 * contender that holds, the ticket of one that has a request, and 0 of any
 * other.
 */
const char *state_of(int fd, __u64 *number);

/* What poll(2) reports of all events that the lock knows, without waiting */
int events_of(int fd);
/* Waits in poll(2) for one of these; returns those that came within PATIENCE */
int await_events(int fd, int events);

/* Lets this process have that many files open, or dies */
void allow_files(int files);
/* Opens a new contender, for writing, or dies */
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
	__s64 begun, ended;	/* before and after the call */
	atomic_int tid;		/* the thread's ID, once it runs */
};

struct call *call(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
		  __s64 timeout_ns, const char *job);
/* The same with the caller's argument */
struct call *call_with(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
		       struct tlock_acquire *arg);
/* What the call returned, or STUCK */
int result(struct call *call);
void send_signal(struct call *call, int signal);
/*
 * Installs a handler for SIGUSR1 with these flags of sigaction(2). The handler
 * increments @handled, waits while @linger is set, and then calls @fn, if any.
 */
extern atomic_int handled;
extern atomic_int linger;
void handle_usr1(int flags);
void handle_usr1_with(int flags, void (*fn)(void));

/* How often a thread of this process gave up the CPU to sleep */
unsigned long sleeps(pid_t tid);

void run_on(pid_t tid, int cpu);
/*
 * Keeps the thread of a sleeping call from running after its wake-up: a thread
 * with a higher real-time priority spins on its CPU until let_run(). The
 * caller, and what it starts, run on another CPU, so this needs two.
 */
struct call *hold_back(struct call *sleeper);
void let_run(struct call *hogger);
bool can_hold_back(void);

/*
 * Returns a file's text without the newline at its end, or dies. The text stays
 * valid until the thread has read four more files.
 */
const char *read_text(const char *path);
__u64 read_number(const char *path);
/* The same for a file in the lock's sysfs directory */
#define sysfs_text(name)	read_text(SYSFS "/" name)
#define sysfs_number(name)	read_number(SYSFS "/" name)
/*
 * Paths of all files in that directory. The first are those that are not always
 * a number: pid and uid are empty while the lock is free, and while its holder
 * is on another host.
 */
#define SYSFS_FILES	21
#define SYSFS_TEXTS	6
extern const char *const sysfs_files[SYSFS_FILES];

bool exists(const char *path);
/* Return 0 or the negative errno; both make a single write(2) */
int write_text(const char *path, const char *text);
int write_bytes(const char *path, const void *bytes, size_t len);

/*
 * Locks by name, as users write it: NAME is /dev/tlock-NAME. lock_create(),
 * lock_create_gated(), lock_delete() and lock_open() return the negative errno if
 * they fail.
 */
#define CLASS		"/sys/class/tlock"
#define NEW_LOCK	CLASS "/new_lock"
#define NEW_GATED_LOCK	CLASS "/new_gated_lock"
#define DELETE_LOCK	CLASS "/delete_lock"
int lock_create(const char *name);
int lock_create_gated(const char *name);
int lock_delete(const char *name);
int lock_open(const char *name, int flags);
/* Whether there is anything of it: its device file, or its sysfs directory */
bool lock_exists(const char *name);
/* Opens a contender for one, or dies */
int contender_of(const char *name);
/* Opens a file that is the daemon of a gated lock, or dies */
int daemon_of(const char *name);
/*
 * Paths of its device and of a file in its sysfs directory; valid until the
 * thread has asked for four more
 */
const char *lock_path(const char *name);
const char *lock_sysfs(const char *name, const char *file);
/* How many locks there are, with the first one; and delete all others */
int locks_count(void);
void locks_delete(void);

/*
 * Creates a cgroup (version 2), and mounts the hierarchy if it is not mounted.
 * Returns false if this kernel has no such cgroups. A cgroup can be removed
 * only once it is empty; cgroup_remove() waits for that.
 */
bool cgroup_create(const char *name);
int cgroup_write(const char *name, const char *file, const char *text);
__u64 cgroup_number(const char *name, const char *file);
void cgroup_enter(const char *name, pid_t pid);
/*
 * Waits for a line of cgroup.events, such as "frozen 1"; returns whether it
 * came within PATIENCE
 */
bool await_cgroup(const char *name, const char *event);
void cgroup_remove(const char *name);

/*
 * Load $TLOCK_KO, with these parameters; unload it; return whether a driver of
 * that name is registered. Like rmmod, module_unload() fails if the module is in
 * use: it does not wait for the last user.
 */
int module_load(void);
int module_load_with(const char *parameters);
int module_unload(void);
bool module_registered(void);
/*
 * Whether /proc/slabinfo, if the kernel has it, lists a slab cache of
 * contenders
 */
bool has_slab_cache(void);

#endif /* TLOCK_SELFTESTS_HELPERS_H */
