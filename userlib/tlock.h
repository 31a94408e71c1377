/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libtlock: take, give back and look at a tlock from C or C++.
 *
 *	struct tlock *t = tlock_open(NULL, O_RDWR);
 *
 *	if (!t)
 *		...
 *	tlock_scoped(t, "calibrate", tlock_seconds(3)) {
 *		... the lock is held ...
 *	} else {
 *		... it is not; errno says why, tlock_blocker() who has it ...
 *	}
 *
 * A handle is one contender. It holds the lock at most once. It is for one
 * thread at a time, except for tlock_fd() and tlock_status(), which any may
 * call: threads that compete for a lock open it once each. After a fork(),
 * parent and child have the same contender: what one releases, the other has
 * lost too.
 *
 * A lock is given back by tlock_release(), or by the kernel when the last
 * descriptor of its contender is closed, as by the death of the process. The
 * latter is told to the next holder, see tlock_abandoned().
 *
 * What fails returns -1, or NULL, and sets errno. tlock_acquire(),
 * tlock_reacquire() and tlock_release() make one system call each, which
 * they do not repeat, and allocate nothing.
 */
#ifndef TLOCK_H
#define TLOCK_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/tlock.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Timeouts. Others count nanoseconds, as tlock_seconds() returns them. */
#define TLOCK_TRY	((int64_t)0)	/* don't wait */
#define TLOCK_FOREVER	((int64_t)-1)	/* as is any negative one */

/* Room for all that tlock_explain() has to say, but for long paths */
#define TLOCK_EXPLAIN_SIZE	512

/** struct tlock - a handle: one contender for one lock */
struct tlock;

/**
 * tlock_open - become a contender for a lock
 * @lock: which one: NULL is the first lock, /dev/tlock; what has a '/' in it is
 *	a device's path; all else is a lock's name, NAME for /dev/tlock-NAME,
 *	or its device's name as sysfs lists it, "tlock" or "tlock-NAME"
 * @mode: O_RDWR, or O_RDONLY to look only: tlock_status() works, and
 *	tlock_acquire() fails with EBADF
 *
 * The descriptor is closed on exec. Never blocks, whatever @lock names.
 *
 * Return: an idle contender, for tlock_close() to end; or NULL and errno, which
 * tlock_explain() puts into words. ENOENT: no such device. ENXIO: nothing
 * behind it. EACCES, EPERM: no permission. ENOTTY: it is no tlock.
 * ENAMETOOLONG: no lock has so long a name. EINVAL: @mode, or an empty @lock.
 * Others as for open(2).
 */
struct tlock *tlock_open(const char *lock, int mode);

/**
 * tlock_explain - say why a lock could not be opened, and what to do about it
 * @lock: as tlock_open() was given it
 * @err: the errno it left
 * @buf: where to; TLOCK_EXPLAIN_SIZE is a good size
 * @size: of @buf. What does not fit is cut off; there always is a NUL unless
 *	it is 0.
 *
 * Looks at the system now, so call it soon. Leaves errno alone.
 *
 * Return: @buf: one line that begins with the device's path, without a newline
 */
char *tlock_explain(const char *lock, int err, char *buf, size_t size);

/**
 * tlock_close - end a contender
 * @t: the handle, or NULL; not to be used any more
 *
 * This does not release the lock. If it is held then, unless another process
 * still has this contender's descriptor, the kernel passes it on as abandoned.
 * Leaves errno alone.
 */
void tlock_close(struct tlock *t);

/**
 * tlock_fd - the descriptor of the device
 * @t: the handle
 *
 * Return: the descriptor; it remains the handle's. Never fails.
 */
int tlock_fd(const struct tlock *t);

/**
 * tlock_acquire - take the lock, waiting for it if need be
 * @t: the handle
 * @job: what the lock is taken for, for others to see: up to 63 bytes, no
 *	control characters; UTF-8 is fine. NULL is the same as "".
 * @timeout_ns: how long to wait at most, in nanoseconds; TLOCK_TRY or
 *	TLOCK_FOREVER
 *
 * Contenders get the lock in the order in which they began to wait.
 *
 * A signal handler that was installed with SA_RESTART lets the wait go on
 * afterwards, with the time that was left when the signal came.
 *
 * Return: 0: the lock is held, and tlock_token() and tlock_abandoned() tell
 * about this grant. Or -1 and errno, and this call took no lock. ETIMEDOUT:
 * somebody else has it, see tlock_blocker(). EINTR: a signal, see
 * tlock_time_left(). EINVAL: @job. EDEADLK: @t holds the lock already, and
 * still does. EBADF: @t is for looking only. EBUSY: @t waits already, in
 * another thread.
 */
int tlock_acquire(struct tlock *t, const char *job, int64_t timeout_ns);

/**
 * tlock_reacquire - let those in who wait, and take the lock again
 * @t: the handle, which holds the lock
 * @job: as for tlock_acquire(); NULL or "" keeps the job as it is
 * @timeout_ns: as for tlock_acquire()
 *
 * In one step: who has waited longest gets the lock, and @t waits behind all
 * who wait now and ahead of all who come later. If nobody waits, this returns
 * at once, still holding, with the token it had, having done next to nothing:
 * it may be called once per sample.
 *
 * Return: 0: the lock is held, and tlock_token() and tlock_abandoned() tell
 * how. Or -1 and errno. ETIMEDOUT, EINTR: as for tlock_acquire(), but for
 * SA_RESTART, which does nothing here; the lock is not held any more. EINVAL:
 * @job; the lock is still held. EPERM: @t did not hold it.
 */
int tlock_reacquire(struct tlock *t, const char *job, int64_t timeout_ns);

/**
 * tlock_release - give the lock to who has waited longest
 * @t: the handle, which holds the lock
 *
 * Return: 0; or -1 and errno EPERM: @t did not hold it. Afterwards it does not
 * hold it, either way.
 */
int tlock_release(struct tlock *t);

/**
 * tlock_status - look at the lock
 * @t: the handle; O_RDONLY will do
 * @status: where to; all of it is from one instant
 *
 * Never waits for the lock, nor delays those who do.
 *
 * Return: 0; or -1 and errno
 */
int tlock_status(const struct tlock *t, struct tlock_status *status);

/**
 * tlock_token - the token of the grant that is held
 * @t: the handle
 *
 * Each grant of a lock has a larger token than the one before, so that a
 * device or a log can tell a late message of an earlier holder. Makes no system
 * call: it is what this handle's calls were told.
 *
 * Return: the token, or 0: @t does not hold the lock
 */
uint64_t tlock_token(const struct tlock *t);

/**
 * tlock_abandoned - whether the holder before went without a release
 * @t: the handle
 *
 * If so, the instrument may be in the middle of a command.
 *
 * Return: as the last tlock_acquire() or tlock_reacquire() of @t that
 * succeeded was told; false if there was none. A tlock_reacquire() that let
 * nobody in is told false.
 */
bool tlock_abandoned(const struct tlock *t);

/**
 * tlock_blocker - who had the lock when this contender gave up
 * @t: the handle
 *
 * Return: the holder at the instant the last tlock_acquire() or
 * tlock_reacquire() of @t that failed with ETIMEDOUT did so; all 0 (token 0)
 * if none has. It is the handle's, and changes with the next such failure.
 */
const struct tlock_holder *tlock_blocker(const struct tlock *t);

/**
 * tlock_time_left - what was left of the timeout
 * @t: the handle
 *
 * To go on after EINTR, give this to the next tlock_acquire(), which so never
 * waits longer than was meant at first. It waits behind those who wait already.
 *
 * Return: nanoseconds that were left when the last tlock_acquire() or
 * tlock_reacquire() of @t succeeded, timed out (0) or was interrupted; its
 * timeout_ns if that was TLOCK_TRY or negative
 */
int64_t tlock_time_left(const struct tlock *t);

/**
 * tlock_seconds - a timeout from seconds
 * @s: how long to wait; negative: for ever
 *
 * Beware of differences: a deadline that is past is negative too.
 *
 * Return: nanoseconds, rounded up, so that only 0 becomes TLOCK_TRY; 292 years
 * for whatever is longer, infinity too; TLOCK_FOREVER if @s is negative;
 * TLOCK_TRY if it is not a number
 */
int64_t tlock_seconds(double s);

/**
 * tlock_milliseconds - a timeout from milliseconds
 * @ms: how long to wait; negative: for ever
 *
 * Return: as tlock_seconds()
 */
int64_t tlock_milliseconds(int64_t ms);

#ifdef __GNUC__

/* What tlock_scoped() is made of; not for direct use */
struct tlock_scope {
	struct tlock *lock;	/* NULL: not acquired */
	bool left;
};

static inline struct tlock_scope
tlock_scope_enter(struct tlock *t, const char *job, int64_t timeout_ns)
{
	struct tlock_scope scope = { NULL, false };

	if (!tlock_acquire(t, job, timeout_ns))
		scope.lock = t;
	return scope;
}

static inline void tlock_scope_leave(struct tlock_scope *scope)
{
	if (scope->lock && tlock_token(scope->lock)) {
		int err = errno;

		tlock_release(scope->lock);
		errno = err;
	}
}

#define TLOCK_SCOPE_PASTE(name, line)	name ## line
#define TLOCK_SCOPE_NAME(line)		TLOCK_SCOPE_PASTE(tlock_scope_, line)

/**
 * tlock_scoped - a block that holds the lock
 * @t: the handle
 * @job: as for tlock_acquire()
 * @timeout_ns: as for tlock_acquire()
 *
 *	tlock_scoped(t, "move stage", tlock_seconds(3)) {
 *		...
 *	} else {
 *		...
 *	}
 *
 * The first block runs if tlock_acquire() succeeds, and gives the lock back
 * however it is left: at its end, by return, goto, break or continue (which
 * both leave this block only, not a loop around it). It releases only what it
 * still holds: not after a tlock_reacquire() that failed or a tlock_release()
 * in it. The second block, which may be left out, runs if tlock_acquire()
 * fails, with its errno. Leaving the first keeps errno.
 *
 * As all that is built upon the cleanup attribute, it is not left by exit() or
 * longjmp(), and by a C++ exception in C++ only; there, std::unique_lock and
 * tlock.hpp are at home.
 */
#define tlock_scoped(t, job, timeout_ns)				\
	for (struct tlock_scope TLOCK_SCOPE_NAME(__LINE__)		\
	     __attribute__((__cleanup__(tlock_scope_leave))) =		\
		tlock_scope_enter((t), (job), (timeout_ns));		\
	     !TLOCK_SCOPE_NAME(__LINE__).left;				\
	     TLOCK_SCOPE_NAME(__LINE__).left = true)			\
		if (TLOCK_SCOPE_NAME(__LINE__).lock)

#endif /* __GNUC__ */

#ifdef __cplusplus
}
#endif

#endif /* TLOCK_H */
