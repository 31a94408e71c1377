/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libtlock: take, release and watch a tlock from C or C++.
 *
 *	struct tlock *t = tlock_open(NULL, O_RDWR);
 *
 *	if (!t)
 *		...
 *	tlock_scoped(t, "calibrate", tlock_seconds(3)) {
 *		... the lock is held ...
 *	} else {
 *		... not held: see errno, and tlock_blocker() for the holder ...
 *	}
 *
 * A handle is one contender. It holds the lock at most once. It is for one
 * thread at a time, except for tlock_fd(), tlock_status(), tlock_gate(),
 * tlock_waiter(), tlock_revoke() and tlock_cancel(), which any thread may call:
 * threads that compete for a lock open it once each.
 * After a fork(), parent and child have the same contender: what one releases,
 * the other has lost too. The end of a tlock_scoped() block releases nothing in
 * the child, unless the child calls tlock_adopt(). Either may use an idle
 * handle; if both do at the same time, calls fail with EBUSY or EDEADLK.
 *
 * A lock is released by tlock_release(), or by the kernel when the last
 * descriptor of its contender is closed, for example when the process dies. In
 * the second case the next holder learns that the lock was abandoned, see
 * tlock_abandoned().
 *
 * A holder that hangs can lose the lock, too. With tlock_set_lease(), it
 * promises to come back in time, by tlock_reacquire() or tlock_renew(); or an
 * operator calls tlock_revoke(). A grant whose lease has ended is revoked as
 * soon as somebody else wants the lock. For the next holder, tlock_revoked() is
 * true; the old holder's next call fails with ESTALE, once, and tlock_lost() is
 * true. What the old holder sends to the instrument before that may come too
 * late: put tlock_token() into each command, and have the instrument's server
 * refuse old tokens, as examples/server.c does.
 *
 * A handle that asks for the lock makes a request: a place in the queue and a
 * deadline. The request outlives a call that a signal handler interrupts
 * (EINTR): tlock_resume() goes on with it in its place, tlock_release()
 * withdraws it, and tlock_acquire() replaces it by a new one.
 *
 * An event loop starts a request instead, by tlock_start_acquire(), and no
 * thread waits: poll(2) of tlock_fd() reports when the request is decided, and
 * tlock_finish() then returns the outcome. A handle whose tlock_ticket() is not
 * 0 has a request that was interrupted or started.
 *
 * Several hosts can share a lock that was created as gated. Nothing changes for
 * a contender: it waits until it is the turn of this host. But the holder that
 * it sees can be on another host, see tlock_gate(); and its grant is revoked if
 * this host loses touch with the others.
 *
 * A function that fails returns -1, or NULL, and sets errno. tlock_acquire(),
 * tlock_reacquire(), tlock_resume(), tlock_start_acquire(),
 * tlock_start_reacquire(), tlock_finish(), tlock_renew() and tlock_release()
 * make one system call each, which they do not repeat, and allocate nothing.
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
#define TLOCK_FOREVER	((int64_t)-1)	/* or any other negative value */

/* Room for every text of tlock_explain(), unless paths or names are long */
#define TLOCK_EXPLAIN_SIZE	512

/* Room for the path of a lock that is given by its name */
#define TLOCK_PATH_SIZE		(sizeof("/dev/") - 1 + TLOCK_NAME_SIZE)

/** struct tlock - a handle: one contender for one lock */
struct tlock;

/**
 * tlock_open - become a contender for a lock
 * @lock: which one: a string with a '/' in it is a device's path; any other is
 *	a lock's name, NAME for /dev/tlock-NAME, or its device's name as sysfs
 *	lists it, "tlock" or "tlock-NAME". NULL is the default lock: the value
 *	of TLOCK in the environment, which has one of these forms; or, if that
 *	is empty or not set, the first lock, /dev/tlock.
 * @mode: O_RDWR, or O_RDONLY to look only: tlock_status(), tlock_gate(),
 *	tlock_waiter() and tlock_monitor() work, and tlock_acquire() fails with EBADF
 *
 * The descriptor is closed on exec. Never blocks, no matter what @lock names.
 * Refuses a device file in /dev that has the name of one lock but leads to
 * another, as can happen in a container after the module was loaded again. A
 * symbolic link may lead to any lock. Ignores TLOCK in a program that runs with
 * more privileges than its caller, see secure_getenv(3).
 *
 * Return: an idle contender, to be closed by tlock_close(); or NULL and errno,
 * which tlock_explain() puts into words. ENOENT: no such device. ENXIO: the
 * device file has no driver, or leads to another lock. EACCES, EPERM:
 * permission denied, or a sandbox denies ioctl(2); sandboxes may use other
 * errors, too, such as ENOSYS. ENOTTY: not a tlock. ENAMETOOLONG: the name is
 * too long for a lock. EINVAL: @mode is not one of those above, or @lock is
 * empty; or @lock is NULL, and TLOCK lists several locks, separated by commas,
 * as only the Python package takes them. Others as for open(2).
 */
struct tlock *tlock_open(const char *lock, int mode);

/**
 * tlock_path - the path of the device that tlock_open() opens
 * @lock: which one, as for tlock_open()
 * @buf: room for it
 *
 * Return: @lock itself, or the value of TLOCK in its place, if it is a path;
 * otherwise @buf; or NULL and errno. ENAMETOOLONG: the name is too long for a
 * lock. EINVAL: @lock is empty, or TLOCK in its place lists several locks.
 */
const char *tlock_path(const char *lock, char buf[TLOCK_PATH_SIZE]);

/**
 * tlock_explain - say why a lock could not be opened, and what to do about it
 * @lock: the argument of tlock_open()
 * @err: the errno that tlock_open() set; or ENOTTY from another function, which
 *	means that the module is older than the library
 * @buf: where to write the text; TLOCK_EXPLAIN_SIZE is a good size
 * @size: of @buf. A text that does not fit is cut off; it always ends with a
 *	NUL, unless @size is 0.
 *
 * Looks at the system as it is now, so call it soon: whether the module is
 * loaded, installed and built for this kernel, which locks there are, and who
 * may take this one. May query the user database. Does not change errno.
 *
 * Return: @buf: one line without a newline. It begins with the device's path, or
 * with TLOCK and its value if that lists several locks.
 */
char *tlock_explain(const char *lock, int err, char *buf, size_t size);

/**
 * tlock_close - end a contender
 * @t: the handle, or NULL; not to be used any more
 *
 * This does not release the lock. If the handle still holds it, the kernel
 * passes it on as abandoned; if the handle has a request, the kernel withdraws
 * it. It does neither while another process, or an io_uring that polls it,
 * still has this contender's file. No other thread may be using the handle, or
 * about to use it. Does not change errno.
 */
void tlock_close(struct tlock *t);

/**
 * tlock_fd - the descriptor of the device
 * @t: the handle
 *
 * poll(2), select(2), epoll(7) and io_uring report, if @t is not for looking
 * only:
 *
 * POLLOUT (writable): @t has no request that is still undecided. After
 * tlock_start_acquire() or tlock_start_reacquire() has failed with EINPROGRESS,
 * this is the moment for tlock_finish(). Wait for it only then: it is also true
 * while @t is idle or holds the lock.
 *
 * POLLPRI, and POLLIN with it: @t holds the lock, and somebody waits for it.
 * This is the moment for tlock_reacquire() or tlock_start_reacquire(), if the
 * instrument can be left to others now.
 *
 * POLLERR, and POLLPRI with it: the grant of @t was revoked, and no call has
 * returned ESTALE yet. poll(2) reports POLLERR even if it was not asked for.
 *
 * Return: the descriptor, which still belongs to the handle. Never fails.
 */
int tlock_fd(const struct tlock *t);

/**
 * tlock_acquire - take the lock, waiting for it if necessary
 * @t: the handle
 * @job: what the lock is taken for, for others to see: up to 63 bytes, no
 *	control characters; UTF-8 is fine. NULL is the same as "".
 *	tlock_make_job() turns any other text into a job.
 * @timeout_ns: how long to wait at most, in nanoseconds; TLOCK_TRY or
 *	TLOCK_FOREVER
 *
 * Makes a new request. Contenders get the lock in the order in which they asked
 * for it.
 *
 * The wait goes on in its place, to the same deadline, when the process is
 * stopped and continued, frozen or traced, and after a signal handler that was
 * installed with SA_RESTART. Another handler ends the call with EINTR. An
 * interrupted request of @t is replaced, unless the error is EINVAL.
 *
 * Return: 0: the lock is held; tlock_token(), tlock_abandoned() and
 * tlock_revoked() describe the grant. Or -1 and errno, and this call took no
 * lock. ETIMEDOUT: another contender holds it, see tlock_blocker(). EINTR:
 * interrupted, see tlock_resume(). ESTALE: a grant of @t was revoked, this
 * call's or the one that @t had before; the next call asks again. ECANCELED:
 * see tlock_cancel(); or another process with this contender called
 * tlock_release(). EINVAL: @job is not valid, or @t has a lease and the
 * module is older than 0.2, which has none. EDEADLK: @t holds the lock
 * already, and still does. EBADF: @t is for looking only. EBUSY: @t has a
 * started request, which is left as it is; or such a call of @t is already
 * running, in another thread or process; or a signal handler left one by
 * longjmp(), after which tlock_release() must be called.
 */
int tlock_acquire(struct tlock *t, const char *job, int64_t timeout_ns);

/**
 * tlock_make_job - turn any text into a valid job
 * @job: where to write it
 * @text: of any length and any bytes; NULL is the same as ""
 *
 * A job is a label for people: its text must not keep a program from taking the
 * lock. Each control character, and each byte that is not UTF-8, becomes a "?".
 * If the result has more than 63 bytes, it is cut at a character boundary and
 * ends with an ellipsis, U+2026.
 *
 * Return: @job, which tlock_acquire() and tlock_reacquire() take. Never fails.
 */
char *tlock_make_job(char job[TLOCK_JOB_SIZE], const char *text);

/**
 * tlock_reacquire - let the waiters in, and take the lock again
 * @t: the handle, which holds the lock
 * @job: as for tlock_acquire(); NULL or "" keeps the job as it is
 * @timeout_ns: as for tlock_acquire()
 *
 * In one step: the longest waiter gets the lock, and @t waits behind everyone
 * who waits now and ahead of everyone who comes later. If nobody waits, this
 * returns at once, still holding, with the token it had, having done almost
 * nothing: call it once per sample.
 *
 * Interruptions are as for tlock_acquire().
 *
 * Return: 0: the lock is held; tlock_token(), tlock_abandoned() and
 * tlock_revoked() describe the grant. Or -1 and errno. ETIMEDOUT, EINTR,
 * ESTALE, ECANCELED: as for tlock_acquire(); the lock is not held any more.
 * EINVAL: @job is not valid; the lock is still held. EPERM: @t did not hold it;
 * an interrupted request is left as it is. EBUSY: as for tlock_acquire().
 */
int tlock_reacquire(struct tlock *t, const char *job, int64_t timeout_ns);

/**
 * tlock_resume - go on with a request that was interrupted
 * @t: the handle, after a call that failed with EINTR
 *
 * The request keeps its place in the queue, ahead of everyone who came after
 * it, its job and its deadline. The time since the interruption counts; if the
 * deadline has passed, this tries once. So a loop does not prolong a wait:
 *
 *	ret = tlock_acquire(t, "job", timeout);
 *	while (ret && errno == EINTR)
 *		ret = tlock_resume(t);
 *
 * While the request is interrupted, the lock passes over it. A request that is
 * not wanted any more costs nothing; tlock_release() withdraws it.
 *
 * Return: as tlock_acquire(), or tlock_reacquire() if that was interrupted; or
 * -1 and errno EPERM: @t has no such request. A started request is not one.
 */
int tlock_resume(struct tlock *t);

/**
 * tlock_start_acquire - ask for the lock, and do not wait
 * @t: the handle
 * @job: as for tlock_acquire()
 * @timeout_ns: as for tlock_acquire(); the kernel keeps the deadline by itself
 *
 * Never sleeps. If another contender has the lock, the request waits in the
 * queue by itself, like a thread in tlock_acquire(). poll(2) reports POLLOUT for
 * tlock_fd() once the request is decided; then call tlock_finish().
 * tlock_release() withdraws the request.
 *
 * A request that was interrupted is replaced, as by tlock_acquire().
 *
 * Return: 0: the lock is held, and there is nothing to finish. Or -1 and errno.
 * EINPROGRESS: the request waits, and tlock_ticket() is its ticket. Other
 * errors are as for tlock_acquire(), except EINTR; ETIMEDOUT only if
 * @timeout_ns is TLOCK_TRY.
 */
int tlock_start_acquire(struct tlock *t, const char *job, int64_t timeout_ns);

/**
 * tlock_start_reacquire - let the waiters in, ask for the lock again, and do not
 *	wait
 * @t: the handle, which holds the lock
 * @job: as for tlock_reacquire()
 * @timeout_ns: as for tlock_start_acquire()
 *
 * As tlock_reacquire(), in one step. If nobody waits, this returns at once,
 * still holding. Otherwise the longest waiter has the lock, and the request of
 * @t waits by itself, as after tlock_start_acquire().
 *
 * Return: 0: the lock is held, and there is nothing to finish. Or -1 and errno.
 * EINPROGRESS: the lock is not held any more, and the request waits. Other
 * errors are as for tlock_reacquire(), except EINTR; ETIMEDOUT only if
 * @timeout_ns is TLOCK_TRY.
 */
int tlock_start_reacquire(struct tlock *t, const char *job, int64_t timeout_ns);

/**
 * tlock_finish - take the outcome of a started request
 * @t: the handle, once poll(2) has reported POLLOUT for it
 *
 * Never sleeps. Call it soon: once the request has got the lock, nobody else
 * has it. If somebody else wants it, a grant that is not taken ends at the
 * request's deadline, or within a second of the end of its process, and this
 * then returns ETIMEDOUT. A grant that ends so, or by tlock_close(), does not
 * count as abandoned.
 *
 * Return: 0: the lock is held; tlock_token(), tlock_abandoned() and
 * tlock_revoked() describe the grant, and its lease begins anew. Or -1 and
 * errno. ETIMEDOUT: not in time; tlock_blocker() had the lock at that moment.
 * EINPROGRESS: the request still waits. ESTALE: it had the lock, but its lease
 * ended, or tlock_revoke() took the lock from it. ECANCELED: see
 * tlock_cancel(); or another process with this contender called
 * tlock_release(). EPERM: @t has no started request, or this process is a
 * forked child and its parent started it.
 */
int tlock_finish(struct tlock *t);

/**
 * tlock_set_lease - promise to come back to the lock in time
 * @t: the handle
 * @lease_ns: how long a grant lasts if it is not renewed, in nanoseconds, as
 *	tlock_seconds() returns them; 0, or a negative value: no lease
 *
 * All later calls with @t that ask for the lock ask for it with this lease,
 * which begins with the grant. tlock_reacquire(), tlock_start_reacquire(),
 * tlock_renew() and tlock_finish() renew it: it begins anew each time that one
 * of them returns 0. If @t already holds the lock, the next tlock_renew() or
 * tlock_reacquire() gives it the new lease. But 0 does not remove a lease: a
 * grant that has one keeps it.
 *
 * When its lease has ended, a grant is not lost yet: it can be renewed until
 * somebody else wants the lock. So choose a lease longer than the longest pause
 * of a program that works, and as long as others can wait for one that hangs.
 * When the system resumes from a suspend, the lease begins anew.
 *
 * Makes no system call.
 */
void tlock_set_lease(struct tlock *t, int64_t lease_ns);

/**
 * tlock_renew - go on holding the lock, and let nobody in
 * @t: the handle, which holds the lock
 * @job: as for tlock_reacquire()
 *
 * Renews the lease, see tlock_set_lease(), and sets the job. Unlike
 * tlock_reacquire(), it keeps the lock and its token even if somebody waits. It
 * never sleeps. Without a lease, it is a way to change the job, or to learn
 * whether the lock is still held.
 *
 * Call it where the program talks to the instrument. A thread or timer that
 * does nothing else would keep renewing the lease while the rest of the program
 * hangs.
 *
 * Return: 0: the lock is held. Or -1 and errno. ESTALE: the grant was revoked.
 * EPERM: @t did not hold the lock. EINVAL: @job is not valid, or the module is
 * older than 0.2; the lock is still held, and the lease not renewed. EBUSY: as
 * for tlock_acquire(). ECANCELED: see tlock_cancel().
 */
int tlock_renew(struct tlock *t, const char *job);

/**
 * tlock_revoke - take the lock from a holder that hangs
 * @t: any handle for this lock that was opened with O_RDWR
 * @token: of the grant to revoke, from tlock_status() or tlock_blocker()
 * @grace_ns: how long the holder may still keep the lock, in nanoseconds, as
 *	tlock_seconds() returns them; 0 takes it at once, even if nobody wants
 *	it
 *
 *	if (tlock_acquire(t, "job", tlock_seconds(3)) && errno == ETIMEDOUT)
 *		tlock_revoke(t, tlock_blocker(t)->token, tlock_seconds(1));
 *
 * After the grace, the grant is revoked as soon as somebody else wants the
 * lock. Renewing the lease does not prolong the grace; another call can shorten
 * it. Until then, the holder can see TLOCK_REVOKING in tlock_status().
 *
 * A grant newer than that of @token is never revoked.
 *
 * Return: 0; or -1 and errno. ESTALE: @token is not that of the present grant;
 * the lock is free, or somebody else holds it by now. EPERM: the holder is
 * another user's, and the caller does not have the capability CAP_KILL. EBADF:
 * @t is for looking only. EINVAL: @grace_ns is negative. ENODEV: the lock was
 * deleted. EREMOTE: the holder is on another host, where alone its grant can be
 * revoked. ENOTTY: the module is older than 0.2.
 */
int tlock_revoke(const struct tlock *t, uint64_t token, int64_t grace_ns);

/**
 * tlock_release - end what the handle has: a grant or a request
 * @t: the handle
 *
 * If it holds the lock, the longest waiter gets it. A request that was
 * interrupted or started is withdrawn, even if it has got the lock by now. To
 * end a call that another thread is in, use tlock_cancel().
 *
 * Return: 0; or -1 and errno. EPERM: @t had neither, or was canceled. ESTALE:
 * the grant was revoked, so that others may have used the instrument since. In
 * all cases @t has neither afterwards.
 */
int tlock_release(struct tlock *t);

/**
 * tlock_cancel - end another thread's call or request
 * @t: the handle
 *
 * Ends a tlock_acquire(), tlock_reacquire(), tlock_resume(),
 * tlock_start_acquire(), tlock_start_reacquire(), tlock_finish() or
 * tlock_renew() of @t that runs in another thread. If this returns 0, that call
 * returns ECANCELED, even if it was just about to return 0, and @t neither
 * holds the lock nor waits: a grant that came in the meantime passes on. If no
 * call runs, but @t has a request that was interrupted or started, that request
 * is withdrawn, and the next of these calls returns ECANCELED without asking
 * for the lock, unless tlock_release() is called first. Once a started request
 * is withdrawn, poll(2) reports POLLOUT, so that an event loop calls
 * tlock_finish() and learns of it.
 *
 * If there is nothing to cancel, nothing happens: a lock that is held stays
 * held, and a call that begins later is not affected. So a thread that must be
 * able to stop needs a flag that it checks before each call, and the canceling
 * thread repeats this call until the flag has been seen:
 *
 *	stop = true;
 *	while (!stopped) {
 *		tlock_cancel(t);
 *		usleep(1000);
 *	}
 *
 * It does not wait for the lock, nor for the other thread, except while that
 * thread is on its way between this library and the kernel; so a signal handler
 * must not call it. pthread_cancel() does not end a wait: these calls are not
 * cancellation points.
 *
 * A forked child cannot cancel its parent's calls or requests. If the grant of
 * @t has been revoked, a call that is canceled returns ECANCELED and not
 * ESTALE.
 *
 * Return: 0; or -1 and errno EPERM: no call runs, or it has its outcome, and
 * there is no request that was interrupted or started
 */
int tlock_cancel(struct tlock *t);

/**
 * tlock_inherited - whether the handle's grant or request is another process's
 * @t: the handle
 *
 * It is if this process is a forked child (or a child's child), @t has acquired
 * nothing in it yet, and tlock_adopt() has not been called. Makes no system
 * call. Does not recognize a child made by clone(2) or _Fork(3).
 *
 * A started request stays the parent's: in the child, tlock_finish() fails with
 * EPERM, and until the parent has finished it, calls that ask for the lock fail
 * with EBUSY. Only tlock_release() ends it, for both.
 */
bool tlock_inherited(const struct tlock *t);

/**
 * tlock_adopt - take over, in a forked child, what the parent holds
 * @t: the handle
 *
 * For a program that forks to become a daemon: the child goes on in its
 * parent's place. The parent must not use @t any more, nor leave a
 * tlock_scoped() block of it; it ends by _exit(), as in daemon(3).
 *
 * Return: 0: this process holds the lock, as if it had acquired it. Or -1 and
 * errno EPERM: @t held nothing at the fork, or the parent has released it
 * since. A request that waits cannot be taken over: the child must make its own.
 */
int tlock_adopt(struct tlock *t);

/**
 * tlock_status - look at the lock
 * @t: the handle; O_RDONLY is enough
 * @status: where to write the answer; all of it is from one instant
 *
 * Never waits for the lock, nor delays its contenders.
 *
 * Return: 0; or -1 and errno
 */
int tlock_status(const struct tlock *t, struct tlock_status *status);

/**
 * tlock_gate - look at the gate of a lock that several hosts share
 * @t: the handle; O_RDONLY is enough
 * @gate: where to write the answer; all of it is from one instant. While the
 *	gate is shut, its holder has TLOCK_REMOTE in its flags, and host is the
 *	name of the host that has the lock. The name is empty if that is not
 *	known, and while the gate is open.
 *
 * Says on which host a holder with TLOCK_REMOTE is, unless the lock has passed
 * on since:
 *
 *	const struct tlock_holder *holder = tlock_blocker(t);
 *	struct tlock_gate gate;
 *
 *	if (holder->flags & TLOCK_REMOTE && !tlock_gate(t, &gate) &&
 *	    gate.holder.token == holder->token)
 *		puts(gate.host);
 *
 * If the holder's token is 0 with TLOCK_REMOTE, nobody is known to hold the
 * lock: tlock_status() says whether a daemon serves the gate (TLOCK_SERVED).
 *
 * Never waits for the lock, nor delays its contenders.
 *
 * Return: 0; or -1 and errno. EOPNOTSUPP: the lock has no gate. ENODEV: the lock
 * was deleted. ENOTTY: the module is older than 0.3.
 */
int tlock_gate(const struct tlock *t, struct tlock_gate *gate);

/**
 * tlock_waiter - look at those who wait, the longest waiter first
 * @t: the handle; O_RDONLY is enough
 * @waiter: in: its ticket is 0 for the longest waiter, or the ticket of a waiter
 *	for the next one; its reserved words are 0. Out: the waiter.
 *
 *	struct tlock_waiter waiter = { 0 };
 *
 *	while (!tlock_waiter(t, &waiter))
 *		puts(waiter.job);
 *
 * Never waits for the lock, nor delays its contenders. Each call looks anew: a
 * waiter that joins or leaves the queue between two calls may be seen or not. A
 * contender whose wait is interrupted is not listed.
 *
 * Return: 0; or -1 and errno, and @waiter is unchanged. ENOENT: there is no
 * such waiter, or that was the last one. EINVAL: a reserved word is not 0.
 * ENODEV: the lock was deleted.
 */
int tlock_waiter(const struct tlock *t, struct tlock_waiter *waiter);

/**
 * tlock_monitor - begin to record what happens to the lock
 * @t: the handle, which was opened with O_RDONLY
 *
 * From now on, tlock_next_event() returns the events, until tlock_close(). No
 * contender ever waits for a reader: a reader that is too slow loses the oldest
 * events.
 *
 * To know the whole queue, call this first, and then tlock_waiter(): in this
 * order nobody is missed, but a waiter may also have an event.
 *
 * Return: 0; or -1 and errno. EBADF: @t was opened with O_RDWR. EBUSY: @t
 * monitors already. ENODEV: the lock was deleted. ENOMEM: not enough memory.
 */
int tlock_monitor(struct tlock *t);

/**
 * tlock_next_event - wait for the next event
 * @t: the handle; see tlock_monitor()
 * @event: where to write it. Its field lost says how many events just before it
 *	were lost, because they were not read in time. Its kind may be one that
 *	the program does not know; skip such an event.
 *
 * poll(2) reports POLLIN for tlock_fd() if there is an event, and POLLHUP once
 * the lock has been deleted; in both cases this does not wait. After a fork(),
 * parent and child share the events: each goes to only one of them. read(2) of
 * tlock_fd() returns several events at once; see tlock(4).
 *
 * Return: 0; or -1 and errno. ENODEV: the lock was deleted, and all events were
 * read. EINTR: a signal handler without SA_RESTART ran; no event is lost.
 * EAGAIN: there is no event, and the program has set O_NONBLOCK for tlock_fd().
 * EINVAL: @t does not monitor.
 */
int tlock_next_event(struct tlock *t, struct tlock_event *event);

/**
 * tlock_event_name - the name of a kind of event
 * @kind: the event's kind
 *
 * Return: a word such as "acquired" or "timed-out"; "unknown" for a kind that
 * this version does not know
 */
const char *tlock_event_name(unsigned int kind);

/**
 * tlock_token - the token of the grant that is held
 * @t: the handle
 *
 * Each grant of a lock has a larger token than the one before, so that a
 * device or a log can recognize a late message from an earlier holder. Makes no
 * system call: the token comes from this handle's earlier calls.
 *
 * Return: the token, or 0: @t does not hold the lock
 */
uint64_t tlock_token(const struct tlock *t);

/**
 * tlock_ticket - the ticket of the request that was interrupted or started
 * @t: the handle
 *
 * Makes no system call.
 *
 * Return: the ticket, or 0: there is nothing for tlock_resume() to go on with,
 * nor for tlock_finish() to finish
 */
uint64_t tlock_ticket(const struct tlock *t);

/**
 * tlock_abandoned - whether the previous holder ended without a release
 * @t: the handle
 *
 * If so, the instrument may be in the middle of a command.
 *
 * Return: whether it is so for the last grant of @t; false if there was none,
 * and after a tlock_reacquire() that let nobody in. A grant that tlock_cancel()
 * ended as its call returned counts, too: check this after ECANCELED as well.
 */
bool tlock_abandoned(const struct tlock *t);

/**
 * tlock_revoked - whether the lock was revoked from an earlier holder
 * @t: the handle
 *
 * If so, the instrument may be in the middle of a command, and the earlier
 * holder may even still be talking to it: only a server that refuses old tokens
 * keeps it out. See tlock_lost() for whether @t itself has lost the lock.
 *
 * Return: whether this is so for the last grant of @t, as for
 * tlock_abandoned(). Both can be true.
 */
bool tlock_revoked(const struct tlock *t);

/**
 * tlock_lost - whether this contender's grant was revoked
 * @t: the handle
 *
 * Makes no system call: it is true once a call of @t has failed with ESTALE,
 * until @t gets the lock again. Before such a call, for example tlock_renew(),
 * it is false even if the grant was revoked.
 *
 * Return: whether the last grant of @t was revoked
 */
bool tlock_lost(const struct tlock *t);

/**
 * tlock_blocker - who had the lock when this contender gave up
 * @t: the handle
 *
 * Return: the holder at the instant when the last call of @t that failed with
 * ETIMEDOUT did so; all 0 (token 0) if no call has. The structure belongs to
 * the handle, and changes with the next such failure.
 */
const struct tlock_holder *tlock_blocker(const struct tlock *t);

/**
 * tlock_time_left - what was left of the timeout
 * @t: the handle
 *
 * Return: nanoseconds that were left when the last request of @t got the lock,
 * timed out (0) or was interrupted, or when a call last failed with
 * EINPROGRESS; the request's timeout_ns if that was TLOCK_TRY or negative
 */
int64_t tlock_time_left(const struct tlock *t);

/**
 * tlock_seconds - a timeout from seconds
 * @s: how long to wait; negative: for ever
 *
 * Beware of differences: the time to a deadline that has passed is negative,
 * too.
 *
 * Return: nanoseconds, rounded up, so that only 0 becomes TLOCK_TRY; 292 years
 * for anything longer, even infinity; TLOCK_FOREVER if @s is negative;
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

/* The parts of tlock_scoped(); not for direct use */
struct tlock_scope {
	struct tlock *lock;	/* NULL: not acquired */
	bool left;
};

/*
 * Ends this process's grant or request, if there is one, and keeps errno,
 * unless the grant was revoked
 */
static inline void tlock_scope_end(struct tlock *t)
{
	if ((tlock_token(t) || tlock_ticket(t)) && !tlock_inherited(t)) {
		int err = errno;

		if (!tlock_release(t) || errno != ESTALE)
			errno = err;
	}
}

static inline struct tlock_scope
tlock_scope_enter(struct tlock *t, const char *job, int64_t timeout_ns)
{
	struct tlock_scope scope = { NULL, false };

	if (!tlock_acquire(t, job, timeout_ns))
		scope.lock = t;
	else if (errno == EINTR)
		tlock_scope_end(t);
	return scope;
}

static inline void tlock_scope_leave(struct tlock_scope *scope)
{
	if (scope->lock)
		tlock_scope_end(scope->lock);
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
 * The first block runs if tlock_acquire() succeeds, and the lock is released
 * however the block is left: at its end, or by return, goto, break or continue.
 * The latter two leave only this block, not a loop around it. If the block has
 * lost the lock by then, by a tlock_release() or a tlock_reacquire() that
 * failed, leaving it releases nothing; but it withdraws a request that was
 * interrupted or started. In a forked child it leaves the parent's grant and
 * request alone: see tlock_adopt(). Leaving the block keeps errno. But if the
 * grant was revoked, and no call in the block has failed with ESTALE, errno is
 * ESTALE then, and tlock_lost() is true.
 *
 * The second block, which may be left out, runs if tlock_acquire() fails, with
 * its errno; after EINTR the request has been withdrawn.
 *
 * As with everything built upon the cleanup attribute, exit() and longjmp() out
 * of the block do not release the lock, and an exception does in C++ only. In
 * C++, better use std::unique_lock with tlock.hpp.
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
