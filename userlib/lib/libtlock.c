// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libtlock: see tlock.h, which says what each function does.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "libtlock.h"

#define likely(x)	__builtin_expect(!!(x), 1)

/* In tlock.result, with the kernel's flags: this handle's grant was revoked */
#define LOST		0x80000000U

/**
 * enum state - what tlock_cancel() finds
 * @QUIET: no call runs and there is no request: the handle is idle or holds
 * @CALLING: a call runs, and a grant or request that RELEASE ends is that
 *	call's
 * @REPLACING: a call runs, and RELEASE may end the grant or request that the
 *	handle had before that call
 * @AWAY: no call runs, and there is a request, which was interrupted or started
 * @CANCELING: a thread is in tlock_cancel()
 * @RETURNED: a thread is in tlock_cancel(), and the handle's own thread waits
 *	for it to finish
 * @CANCELED: tlock_cancel() is done, and the call that runs, or else the next
 *	one, returns ECANCELED
 *
 * Only the handle's own thread changes the state, except to CANCELING and
 * CANCELED.
 */
enum state {
	QUIET,
	CALLING,
	REPLACING,
	AWAY,
	CANCELING,
	RETURNED,
	CANCELED,
};

/**
 * struct tlock - a contender, and what its calls returned
 * @fd: the contender's descriptor
 * @state: an enum state; while RETURNED, the handle's thread sleeps on it as a
 *	futex
 * @caller: the generation of the process that made the last call
 * @owner: the generation of the process that @token or @ticket belongs to
 * @result: the flags of the last grant, and LOST
 * @started: whether the request that @ticket belongs to was started, and not
 *	interrupted
 * @token: the token of the grant that is held, or 0
 * @ticket: the ticket of the request that was interrupted or started, or 0
 * @time_left: what was left of the last timeout
 * @arg: the argument of the call that runs; its holder is that of the last
 *	ETIMEDOUT. It is kept here because an argument on the stack would have
 *	to be zeroed for each call. Its flags are 0 between calls, so that calls
 *	that wait need not set them, and its lease is that of all calls.
 *
 * Members other than @fd, @state, @caller and @owner are for the handle's own
 * thread.
 */
struct tlock {
	int fd;
	atomic_uint state;
	atomic_uint caller;
	atomic_uint owner;
	uint32_t result;
	bool started;
	uint64_t token;
	uint64_t ticket;
	int64_t time_left;
	struct tlock_acquire arg;
};

/*
 * The number of forks between the process that loaded the library and this one.
 * If a handle has another generation, then its grant or request belongs to a
 * process that this one was forked from. Comparing pids instead would cost a
 * system call, getpid(), in each call.
 */
static unsigned int generation;
static int fork_handler_error;

static void after_fork_in_child(void)
{
	generation++;
}

static __attribute__((__constructor__)) void install_fork_handler(void)
{
	fork_handler_error = pthread_atfork(NULL, NULL, after_fork_in_child);
}

const char *tlock_default(void)
{
	/* A program with more privileges than its caller chooses by itself */
	const char *lock = secure_getenv("TLOCK");

	return lock && *lock ? lock : "tlock";
}

const char *tlock_path(const char *lock, char buf[TLOCK_PATH_SIZE])
{
	const char *prefix = "tlock-";
	int len;

	if (!lock) {
		lock = tlock_default();
		/* A list, for a program with several locks; only Python's take one */
		if (strchr(lock, ','))
			lock = "";
	}
	if (!*lock) {
		errno = EINVAL;
		return NULL;
	}
	if (strchr(lock, '/'))
		return lock;
	if (!strcmp(lock, "tlock") || !strncmp(lock, prefix, strlen(prefix)))
		prefix = "";

	len = snprintf(buf, TLOCK_PATH_SIZE, DEV "%s%s", prefix, lock);
	if (len < 0 || (size_t)len >= TLOCK_PATH_SIZE) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	return buf;
}

const char *tlock_own_name(const char *path)
{
	const char *name = path + sizeof(DEV) - 1;

	if (strncmp(path, DEV, sizeof(DEV) - 1) || strchr(name, '/') ||
	    (strcmp(name, "tlock") && strncmp(name, "tlock-", 6)))
		return NULL;
	return name;
}

bool tlock_is_lock(dev_t rdev)
{
	char link[64], target[PATH_MAX];
	ssize_t len;

	snprintf(link, sizeof(link), "/sys/dev/char/%u:%u", major(rdev),
		 minor(rdev));
	len = readlink(link, target, sizeof(target) - 1);
	if (len < 0)
		return false;
	target[len] = '\0';
	return strstr(target, "/tlock/");
}

/*
 * Checks that the device at @path, which is open as @fd and has the number
 * @rdev, is a lock and the one that its name says. Returns 0 or an errno.
 */
static int check_device(int fd, const char *path, dev_t rdev)
{
	struct tlock_status status;
	const char *name = tlock_own_name(path);
	struct stat st;

	/*
	 * Other drivers return all sorts of errors for commands they don't
	 * know. If this is a lock, the error comes from a sandbox that denies
	 * the command, or from a module of another version.
	 */
	if (ioctl(fd, TLOCK_IOC_STATUS, &status)) {
		int err = errno;

		return tlock_is_lock(rdev) ? err : ENOTTY;
	}

	/*
	 * A stale device file of a deleted lock can lead to another lock; a
	 * container may have one. A symbolic link is an alias of any name.
	 */
	if (name && strcmp(name, status.name) && !lstat(path, &st) &&
	    !S_ISLNK(st.st_mode))
		return ENXIO;
	return 0;
}

/* Opens a lock's device. Returns the descriptor, or -1 and errno. */
static int open_device(const char *path, int mode)
{
	struct stat st;
	int fd, err;

	/*
	 * Opening something that is not a device may have side effects: opening
	 * a FIFO would let the process at its other end go on.
	 */
	if (stat(path, &st))
		return -1;
	if (!S_ISCHR(st.st_mode)) {
		errno = ENOTTY;
		return -1;
	}

	/* Opening a terminal can block, and make it our controlling terminal */
	fd = open(path, mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -1;

	err = check_device(fd, path, st.st_rdev);
	if (!err && fcntl(fd, F_SETFL, 0))
		err = errno;
	if (!err)
		return fd;

	close(fd);
	errno = err;
	return -1;
}

struct tlock *tlock_open(const char *lock, int mode)
{
	char buf[TLOCK_PATH_SIZE];
	const char *path;
	struct tlock *t;

	if (mode != O_RDWR && mode != O_RDONLY) {
		errno = EINVAL;
		return NULL;
	}
	path = tlock_path(lock, buf);
	if (!path)
		return NULL;
	if (fork_handler_error) {
		errno = fork_handler_error;
		return NULL;
	}

	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->fd = open_device(path, mode);
	if (t->fd < 0) {
		int err = errno;

		free(t);
		errno = err;
		return NULL;
	}
	t->caller = generation;
	t->owner = generation;
	return t;
}

void tlock_close(struct tlock *t)
{
	int err = errno;

	if (!t)
		return;
	close(t->fd);
	free(t);
	errno = err;
}

int tlock_fd(const struct tlock *t)
{
	return t->fd;
}

static void futex(atomic_uint *word, int op, unsigned int value,
		  const long timeout[2])
{
	syscall(SYS_futex, word, op, value, timeout);
}

/*
 * Waits for a tlock_cancel() that is under way to finish: its RELEASE must not
 * end the next request of this thread. Returns whether the handle was canceled.
 */
static bool was_canceled(struct tlock *t)
{
	unsigned int state = CANCELING;

	if (atomic_compare_exchange_strong(&t->state, &state, RETURNED)) {
		do {
			futex(&t->state, FUTEX_WAIT_PRIVATE, RETURNED, NULL);
			state = t->state;
		} while (state == RETURNED);
	}
	if (state != CANCELED)
		return false;
	t->state = QUIET;
	t->token = 0;
	t->ticket = 0;
	return true;
}

static __attribute__((__noinline__))
bool advance_slow(struct tlock *t, unsigned int next)
{
	if (was_canceled(t))
		return false;
	/*
	 * A signal handler left a call by longjmp(), or released the handle
	 * during the call
	 */
	t->state = next;
	return true;
}

/* Changes the state; returns false if a tlock_cancel() came first. */
static inline bool advance(struct tlock *t, unsigned int state,
			   unsigned int next)
{
	return likely(atomic_compare_exchange_strong(&t->state, &state,
						     next)) ||
		advance_slow(t, next);
}

/* Begins a call. Returns 0, or the errno with which it fails at once. */
static inline int begin(struct tlock *t, unsigned int call)
{
	unsigned int state = atomic_load_explicit(&t->state,
						  memory_order_relaxed);

	if (likely(state == QUIET)) {
		/* No other thread changes this state */
		atomic_store_explicit(&t->state, call, memory_order_relaxed);
		return 0;
	}
	/* A second thread is the caller's mistake, but must do no damage */
	if (state == CALLING || state == REPLACING)
		return EBUSY;
	return advance(t, AWAY, call) ? 0 : ECANCELED;
}

static inline void set_owner(struct tlock *t)
{
	atomic_store_explicit(&t->owner, generation, memory_order_relaxed);
}

/* Ends a call that failed. Returns the errno. */
static __attribute__((__noinline__))
int fail(struct tlock *t, unsigned int call, int err)
{
	switch (err) {
	case EINTR:
	case EINPROGRESS:
	case ETIMEDOUT:
		t->time_left = t->arg.timeout_ns;
		/* fall through */
	case ESTALE:
	case ECANCELED:
		t->started = err == EINPROGRESS;
		t->ticket = t->started || err == EINTR ? t->arg.ticket : 0;
		set_owner(t);
		/* fall through */
	case EPERM:
		t->token = 0;
	}
	if (err == ESTALE)
		t->result |= LOST;
	return advance(t, call, t->ticket ? AWAY : QUIET) ? err : ECANCELED;
}

/* A copy for each kind of call: what a call does not need costs nothing */
static inline __attribute__((__always_inline__))
int take(struct tlock *t, unsigned long cmd, uint32_t flags, const char *job,
	 int64_t timeout_ns, uint64_t ticket, unsigned int call)
{
	size_t size = job ? strnlen(job, TLOCK_JOB_SIZE) + 1 : 0;
	int err = EINVAL;

	if (size > TLOCK_JOB_SIZE)
		goto failed;
	err = begin(t, call);
	if (err)
		goto failed;
	atomic_store_explicit(&t->caller, generation, memory_order_relaxed);

	t->arg.timeout_ns = timeout_ns;
	t->arg.ticket = ticket;
	if (job)
		memcpy(t->arg.job, job, size);
	else
		t->arg.job[0] = '\0';
	if (flags)
		t->arg.flags = flags;
	err = ioctl(t->fd, cmd, &t->arg) ? errno : 0;
	if (flags)
		t->arg.flags = 0;
	if (err) {
		err = fail(t, call, err);
		goto failed;
	}
	t->token = t->arg.token;
	t->ticket = 0;
	/* A renewal is no new grant, not even in a child of the holder */
	if (flags != TLOCK_RENEW) {
		set_owner(t);
		t->result = t->arg.result;
		t->time_left = t->arg.timeout_ns;
	}
	if (advance(t, call, QUIET))
		return 0;
	err = ECANCELED;

failed:
	errno = err;
	return -1;
}

/* How tlock_cancel() finds a call that may replace what the handle has */
static inline unsigned int replacing(const struct tlock *t)
{
	return t->token || t->ticket ? REPLACING : CALLING;
}

int tlock_acquire(struct tlock *t, const char *job, int64_t timeout_ns)
{
	return take(t, TLOCK_IOC_ACQUIRE, 0, job, timeout_ns, 0, replacing(t));
}

int tlock_reacquire(struct tlock *t, const char *job, int64_t timeout_ns)
{
	/* Not REPLACING: once RELEASE has ended the grant, this gets EPERM */
	return take(t, TLOCK_IOC_REACQUIRE, 0, job, timeout_ns, 0, CALLING);
}

int tlock_resume(struct tlock *t)
{
	if (!t->ticket || t->started) {
		errno = EPERM;
		return -1;
	}
	return take(t, TLOCK_IOC_ACQUIRE, 0, NULL, t->time_left, t->ticket,
		    CALLING);
}

/* A call that does not wait */
static __attribute__((__noinline__))
int take_async(struct tlock *t, unsigned long cmd, const char *job,
	       int64_t timeout_ns, uint64_t ticket, unsigned int call)
{
	return take(t, cmd, TLOCK_ASYNC, job, timeout_ns, ticket, call);
}

int tlock_start_acquire(struct tlock *t, const char *job, int64_t timeout_ns)
{
	return take_async(t, TLOCK_IOC_ACQUIRE, job, timeout_ns, 0,
			  replacing(t));
}

int tlock_start_reacquire(struct tlock *t, const char *job, int64_t timeout_ns)
{
	return take_async(t, TLOCK_IOC_REACQUIRE, job, timeout_ns, 0, CALLING);
}

int tlock_finish(struct tlock *t)
{
	/* The kernel would show the parent as the holder, not the child */
	if (!t->ticket || !t->started || tlock_inherited(t)) {
		errno = EPERM;
		return -1;
	}
	return take_async(t, TLOCK_IOC_ACQUIRE, NULL, t->time_left, t->ticket,
			  CALLING);
}

int tlock_renew(struct tlock *t, const char *job)
{
	return take(t, TLOCK_IOC_REACQUIRE, TLOCK_RENEW, job, TLOCK_TRY, 0,
		    CALLING);
}

void tlock_set_lease(struct tlock *t, int64_t lease_ns)
{
	t->arg.lease_ns = lease_ns > 0 ? (uint64_t)lease_ns : 0;
}

static __attribute__((__noinline__)) int fail_to_release(struct tlock *t)
{
	if (errno == ESTALE)
		t->result |= LOST;
	return -1;
}

int tlock_release(struct tlock *t)
{
	if (atomic_load_explicit(&t->state, memory_order_relaxed) != QUIET) {
		advance(t, AWAY, QUIET);
		/* A signal handler may have left a call by longjmp() */
		t->arg.flags = 0;
	}
	t->token = 0;
	t->ticket = 0;
	if (likely(!ioctl(t->fd, TLOCK_IOC_RELEASE)))
		return 0;
	return fail_to_release(t);
}

int tlock_cancel(struct tlock *t)
{
	static const long ms[2] = { 0, 1000000 };
	unsigned int state = t->state;
	bool returned, ended;

	do {
		/* What a child inherits is not of its own threads */
		if (state == QUIET || generation !=
		    (state == AWAY ? t->owner : t->caller)) {
			errno = EPERM;
			return -1;
		}
		/* Another tlock_cancel() is under way, or done */
		if (state >= CANCELING)
			return 0;
	} while (!atomic_compare_exchange_weak(&t->state, &state, CANCELING));

	for (;;) {
		returned = t->state == RETURNED;
		ended = !ioctl(t->fd, TLOCK_IOC_RELEASE);
		if (returned || state == AWAY || (ended && state == CALLING))
			break;
		/* The call is on its way into the kernel, or back */
		futex(&t->state, FUTEX_WAIT_PRIVATE, CANCELING, ms);
	}
	if (atomic_exchange(&t->state, CANCELED) == RETURNED)
		futex(&t->state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
	return 0;
}

bool tlock_inherited(const struct tlock *t)
{
	return t->owner != generation;
}

int tlock_adopt(struct tlock *t)
{
	struct tlock_status status;

	if (tlock_status(t, &status))
		return -1;
	if (!t->token || status.holder.token != t->token) {
		errno = EPERM;
		return -1;
	}
	t->owner = generation;
	return 0;
}

int tlock_status(const struct tlock *t, struct tlock_status *status)
{
	return ioctl(t->fd, TLOCK_IOC_STATUS, status);
}

int tlock_gate(const struct tlock *t, struct tlock_gate *gate)
{
	*gate = (struct tlock_gate){ .op = TLOCK_GATE_LOOK };
	return ioctl(t->fd, TLOCK_IOC_GATE, gate);
}

int tlock_revoke(const struct tlock *t, uint64_t token, int64_t grace_ns)
{
	struct tlock_revoke revoke = {
		.token = token, .grace_ns = (uint64_t)grace_ns,
	};

	if (grace_ns < 0) {
		errno = EINVAL;
		return -1;
	}
	return ioctl(t->fd, TLOCK_IOC_REVOKE, &revoke);
}

uint64_t tlock_token(const struct tlock *t)
{
	return t->token;
}

uint64_t tlock_ticket(const struct tlock *t)
{
	return t->ticket;
}

bool tlock_abandoned(const struct tlock *t)
{
	return t->result & TLOCK_ABANDONED;
}

bool tlock_revoked(const struct tlock *t)
{
	return t->result & TLOCK_REVOKED;
}

bool tlock_lost(const struct tlock *t)
{
	return t->result & LOST;
}

const struct tlock_holder *tlock_blocker(const struct tlock *t)
{
	return &t->arg.holder;
}

int64_t tlock_time_left(const struct tlock *t)
{
	return t->time_left;
}

/* The length of the character that @c begins with, or 0 if it is not UTF-8 */
static size_t character(const unsigned char *c)
{
	size_t length = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 :
			c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < length; i++)
		if ((c[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong, a surrogate, or above U+10FFFF */
	if ((c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) ||
	    (c[0] == 0xf0 && c[1] < 0x90) || (c[0] == 0xf4 && c[1] > 0x8f))
		return 0;
	return length;
}

static bool is_control(const unsigned char *c)
{
	return c[0] < 0x20 || c[0] == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0);
}

char *tlock_make_job(char job[TLOCK_JOB_SIZE], const char *text)
{
	static const char cut[] = "\u2026";
	const unsigned char *c = (const unsigned char *)(text ? text : "");
	size_t len = 0, whole = 0;

	while (*c) {
		size_t length = character(c);
		bool as_it_is = length && !is_control(c);
		size_t put = as_it_is ? length : 1;

		if (len + put >= TLOCK_JOB_SIZE) {
			memcpy(job + whole, cut, sizeof(cut));
			return job;
		}
		memcpy(job + len, as_it_is ? (const void *)c : "?", put);
		len += put;
		/* The longest part that leaves room for the ellipsis */
		if (len + sizeof(cut) <= TLOCK_JOB_SIZE)
			whole = len;
		c += length ? length : 1;
	}
	job[len] = '\0';
	return job;
}

int64_t tlock_seconds(double s)
{
	double ns = s * 1e9;

	if (isnan(s))
		return TLOCK_TRY;
	if (s < 0)
		return TLOCK_FOREVER;
	/* The first double that is too large */
	if (ns >= 0x1p63)
		return INT64_MAX;
	return (int64_t)ns + ((double)(int64_t)ns < ns);
}

int64_t tlock_milliseconds(int64_t ms)
{
	if (ms < 0)
		return TLOCK_FOREVER;
	if (ms > INT64_MAX / 1000000)
		return INT64_MAX;
	return ms * 1000000;
}
