// SPDX-License-Identifier: GPL-2.0-only
/*
 * Chaos with a judge: dozens of processes and threads use several locks at
 * random, by calls that block and by asynchronous requests, and are killed at
 * random instants. Some hold two locks at once, some are event loops, some hang
 * while they hold a lock. Half of them use leases. An operator revokes grants, and
 * so do others sometimes. One process creates and deletes locks meanwhile, and one
 * monitors the permanent locks. All that they do and see is recorded and judged:
 * see judge-names.c and judge.c.
 *
 * usage: chaos [SECONDS [SEED]]
 *
 * The default is 30 seconds. It runs in epochs of a few seconds. At the end of
 * an epoch, all processes end, and the epoch is judged, so a longer run needs
 * no more memory. In a virtual machine, for ten minutes:
 *
 *	scripts/vm --timeout 900 -- build/selftests/chaos 600
 *
 * With the same seed, each thread makes the same decisions as long as it gets
 * the same answers. The order in which threads run is not repeated.
 *
 * Nothing else may use the locks meanwhile: it would not be recorded. If a
 * history is rejected, the calls on the files concerned are printed; and if
 * TLOCK_CHAOS_LOG names a file, the whole history of that lock is written there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "chaos.h"
#include "helpers.h"
#include "kselftest.h"

#define EPOCH		(5 * SEC)
/* If nothing happens for this long, the processes are stuck */
#define STILL		(30 * SEC)
/*
 * For how much longer it goes on if not all has happened yet, unless the caller
 * has chosen how long
 */
#define GO_ON		(600 * SEC)
/*
 * Whether the kernel interrupts every CPU for membarrier(), rather than wait
 * until each has a pause: among dozens of threads on a slow machine, that took
 * longer than an epoch.
 */
#define EXPEDITED	"/sys/kernel/rcu_expedited"
/* Records of an epoch, which ends early when they run out */
#define CAPACITY	120000

/* Threads of a process */
#define THREADS		3

/* The locks: the first ones are permanent */
static const char *const names[] = {
	"tlock", "tlock-chaos-1", "tlock-chaos-2",
	"tlock-chaos-3", "tlock-chaos-4",
};

#define NAMES		ARRAY_SIZE(names)
#define PERMANENT	3
#define TEMPORARY	(NAMES - PERMANENT)

static struct history *history;

/* Also in memory that all processes share */
static struct shared {
	atomic_int stop;
	/* Calls that have ended, and show that not everyone is stuck */
	atomic_ulong progress;
	/* The longest idle time between two calls in this epoch */
	__s64 idle;
	/* How often a thread held two locks at once */
	atomic_ulong held_both;
	/* All others have ended but for the operator and the reader */
	atomic_int alone;
	/* How often a request timed out, and a grant that nobody fetched */
	atomic_ulong timed_out, expired;
} *shared;

/* This thread */
static _Thread_local struct actor *me;
static _Thread_local __u64 random_state;
/* It goes on until all others have ended, so its calls are no progress */
static _Thread_local bool tireless;
/* And its process */
static __u32 my_process;
static unsigned long seed;
static unsigned int epoch;

static __u32 rnd(__u32 below)
{
	/* xorshift64* */
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 2685821657736338717ULL >> 32) % below;
}

static void new_actor(__u32 actor)
{
	me = &history->actor[actor];
	/* Mixes the seed, so that similar seeds make different states */
	random_state = seed * 1000003 + epoch;
	for (int i = 0; i < 4; i++) {
		random_state = (random_state ^ (actor + 1)) *
			       6364136223846793005ULL + 1442695040888963407ULL;
		random_state ^= random_state >> 29;
	}
	random_state |= 1;
}

static void nap(__s64 ns)
{
	struct timespec ts = { .tv_sec = ns / SEC, .tv_nsec = ns % SEC };

	nanosleep(&ts, NULL);
}

static void idle(__s64 at_most)
{
	if (at_most)
		nap(rnd(at_most));
	else
		sched_yield();
}

/* Numbers a process and its actors before they exist, so they cannot race */
static __u32 new_process(__u32 threads, __u32 *first_actor)
{
	__u32 process = atomic_fetch_add(&history->processes, 1);

	*first_actor = atomic_fetch_add(&history->actors, threads);
	if (process >= MAX_PROCESSES || *first_actor + threads > MAX_ACTORS)
		die("too many processes");
	for (__u32 i = 0; i < threads; i++)
		history->actor[*first_actor + i].process = process;
	return process;
}

/*** Records ***/

/*
 * A file: its descriptor in this process, its number in the history, its lock,
 * and the request that this thread has left there, as far as it knows
 */
struct file {
	int fd;
	__u32 number;
	__u32 minor;
	__u64 ticket;		/* 0: none */
	__s64 left_ns;
	bool flock_away;	/* it is flock()'s, which has no ticket */
	bool async;		/* some requests are asynchronous */
	bool leases;		/* some grants have a lease */
	bool pending;		/* that one is */
	__u32 job;		/* then: the record that made it */
	__s64 deadline;		/* and when its time is up at the earliest */
};

/* Of calls that are not on a file */
static const struct file no_file = { .fd = -1, .minor = NOBODY };

static struct record *begin(enum kind kind, const struct file *f)
{
	__u32 i = atomic_fetch_add(&history->records, 1);
	struct record *r;

	/* The last quarter is for calls that end the epoch */
	if (i >= CAPACITY - CAPACITY / 4)
		atomic_store(&shared->stop, 1);
	if (i >= CAPACITY)
		die("too many records");
	r = &history->record[i];
	r->kind = kind;
	r->file = f->number;
	r->minor = f->minor;
	r->actor = me - history->actor;
	for (int s = 0; s < SIGNALS; s++)
		r->before[s] = atomic_load(&me->signals[s]);
	r->stops_before = atomic_load(&history->process[me->process].stops);
	/* Last, and atomic: a thread that is killed before has not begun */
	atomic_store(&r->begin, now());
	return r;
}

static void end(struct record *r, __s64 at)
{
	for (int s = 0; s < SIGNALS; s++)
		r->after[s] = atomic_load(&me->signals[s]);
	r->stops_after = atomic_load(&history->process[me->process].stops);
	atomic_store(&r->end, at);
	/* And so do these */
	if (!tireless && r->kind != LOOK && r->kind != DELETE)
		atomic_fetch_add(&shared->progress, 1);
}

static void job_of(char *job, __u32 record)
{
	snprintf(job, TLOCK_JOB_SIZE, "chaos №%u", record);
}

static void name_of(char *name, __u32 process)
{
	snprintf(name, TLOCK_COMM_SIZE, "chaos %u", process);
}

static __u32 number_in(const char *text)
{
	while (*text && (*text < '0' || *text > '9'))
		text++;
	return *text ? strtoul(text, NULL, 10) : NOBODY;
}

static struct sight sight_of(const struct tlock_holder *h)
{
	struct sight s = {
		.token = h->token,
		.since_ns = h->since_ns,
		.pid = h->pid,
		.uid = h->uid,
		.comm = number_in(h->comm),
		.job = number_in(h->job),
		.unfetched = h->flags & TLOCK_UNFETCHED,
		.leased = h->flags & TLOCK_LEASED,
		.revoking = h->flags & TLOCK_REVOKING,
		.expires_ns = h->expires_ns,
	};
	char job[TLOCK_JOB_SIZE] = { 0 }, comm[TLOCK_COMM_SIZE] = { 0 };

	/* Every byte must be right, or it is not one of ours */
	if (h->token && zeroed(h->job, sizeof(h->job))) {
		s.job = EMPTY_JOB;
	} else {
		job_of(job, s.job);
		if (memcmp(job, h->job, sizeof(job)))
			s.job = NOBODY;
	}
	name_of(comm, s.comm);
	if (memcmp(comm, h->comm, sizeof(comm)) ||
	    h->flags & ~(TLOCK_UNFETCHED | TLOCK_LEASED | TLOCK_REVOKING))
		s.comm = NOBODY;
	return s;
}

/*** Calls ***/

struct thread {
	pthread_t thread;
	atomic_int tid;
	/* The file to look at: its number and its descriptor, or 0 */
	atomic_ullong file;
	_Atomic __u32 minor;
	struct actor *actor;
	void *(*fn)(void *data);
};

/* This thread, if others look at its files */
static _Thread_local struct thread *seen;

static void show(const struct file *f)
{
	atomic_store(&seen->minor, f->minor);
	atomic_store(&seen->file, (__u64)f->number << 32 | f->fd);
}

static char *path_of(char *path, __u8 name)
{
	sprintf(path, "/dev/%s", names[name]);
	return path;
}

/* How long a lease or a grace is, mostly so short that it ends */
static __u64 some_period(void)
{
	switch (rnd(6)) {
	case 0 ... 1:
		return 20 * USEC + rnd(300 * USEC);
	case 2 ... 3:
		return 1 + rnd(5 * MSEC);
	case 4:
		return 3600 * SEC;
	default:
		return ~0ULL >> rnd(2);
	}
}

/* Opens a lock; a temporary one may not be there, and then fd is -1 */
static struct file do_open(int flags, __u8 name)
{
	struct file f = {
		.number = atomic_fetch_add(&history->files, 1),
		.minor = NOBODY,
	};
	struct record *r = begin(OPEN, &f);
	char path[40];
	struct stat st;
	__s64 at;

	r->name = name;
	r->reader = flags == O_RDONLY;
	f.fd = open(path_of(path, name), flags | O_CLOEXEC);
	at = now();
	if (f.fd < 0) {
		r->ret = -errno;
		if (name < PERMANENT)
			die("cannot open %s", path);
	} else {
		if (fstat(f.fd, &st))
			die("no status of %s", path);
		r->minor = f.minor = minor(st.st_rdev);
	}
	end(r, at);
	return f;
}

static void do_close(struct file *f)
{
	struct record *r;

	if (seen)
		atomic_store(&seen->file, 0);
	r = begin(CLOSE, f);
	r->ret = close(f->fd);
	end(r, now());
	*f = no_file;
}

/* To ask for a lock, perhaps by asynchronous requests, and perhaps with leases */
static struct file open_contender(__u8 name)
{
	struct file f = do_open(O_RDWR, name);

	f.async = rnd(2);
	f.leases = rnd(2);
	return f;
}

/* Acquires or reacquires, with the ticket of an earlier request or 0 */
static int do_ask(struct file *f, enum kind kind, __u64 ticket, __s64 timeout,
		  bool keep, __u32 flags)
{
	struct record *r = begin(kind, f);
	struct tlock_acquire arg = ask(timeout, "");
	bool async = flags & TLOCK_ASYNC;
	__s64 at;

	r->async = async;
	r->renews = flags & TLOCK_RENEW;
	arg.flags = flags;
	/* That of a request that is resumed or fetched is ignored */
	if (ticket ? rnd(2) : f->leases && rnd(4))
		arg.lease_ns = some_period();
	if (!ticket)
		r->lease_ns = arg.lease_ns;

	/* The job is the number of the record, which must exist before */
	r->timeout_ns = timeout;
	r->ticket = arg.ticket = ticket;
	r->keeps_job = keep;
	if (!keep)
		job_of(arg.job, r - history->record);
	r->ret = kind == ACQUIRE ? acquire(f->fd, &arg) :
				   reacquire(f->fd, &arg);
	at = now();
	r->left_ns = arg.timeout_ns;
	r->left_ticket = arg.ticket;
	if (!r->ret) {
		r->token = arg.token;
		r->result = arg.result;
	}
	if (r->ret == -ETIMEDOUT) {
		r->holder = sight_of(&arg.holder);
		/* Otherwise it may have had the lock, and lost it */
		if (async && ticket && ticket == f->ticket &&
		    r->holder.since_ns < f->deadline)
			atomic_fetch_add(&shared->timed_out, 1);
	}
	end(r, at);
	if (r->ret == -EINTR || r->ret == -EINPROGRESS) {
		f->ticket = arg.ticket;
		f->left_ns = arg.timeout_ns;
		f->pending = r->ret == -EINPROGRESS;
		if (f->pending && !ticket) {
			f->job = r - history->record;
			f->deadline = timeout < 0 ? FOREVER :
						    r->begin + timeout;
		}
	} else if (r->ret == -EBUSY || r->ret == -EINVAL) {
		/* What it has left there is still there */
	} else if (r->ret == -ESTALE) {
		f->ticket = 0;
		f->flock_away = false;
	} else if (ticket ? ticket == f->ticket : kind == ACQUIRE) {
		f->ticket = 0;
	}
	return r->ret;
}

static int do_take(struct file *f, enum kind kind, __s64 timeout, bool keep)
{
	if (kind == ACQUIRE)
		f->flock_away = false;
	return do_ask(f, kind, 0, timeout, keep,
		      f->async && rnd(2) ? TLOCK_ASYNC : 0);
}

/* Keeps the lock, even if somebody waits; only a holder can */
static int do_renew(struct file *f)
{
	return do_ask(f, REACQUIRE, 0, 3600 * SEC, rnd(2), TLOCK_RENEW);
}

/* Fetches the outcome of an asynchronous request, or tries to */
static int do_fetch(struct file *f)
{
	return do_ask(f, rnd(2) ? ACQUIRE : REACQUIRE, f->ticket, f->left_ns,
		      rnd(2), TLOCK_ASYNC);
}

/* Whether the lock is held by the request of the file, as seen by a status */
static bool seen_granted(const struct file *f, const struct record *status)
{
	return !status->ret && status->holder.unfetched &&
	       status->holder.job == f->job;
}

static int do_release(struct file *f)
{
	struct record *r = begin(RELEASE, f);
	__s64 at;

	r->ret = release(f->fd);
	at = now();
	end(r, at);
	f->ticket = 0;
	f->flock_away = false;
	return r->ret;
}

/*
 * Only for a file that no other thread uses: the token seen is then its own. If
 * there is none to see any more, the record is that of a flock() that returned
 * ESTALE.
 */
static int do_flock(struct file *f, bool wait)
{
	struct record *r = begin(FLOCK, f);
	__s64 at;

	r->timeout_ns = r->left_ns = wait ? FOREVER : 0;
	r->ret = flock(f->fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) ? -errno : 0;
	at = now();
	if (!r->ret && strcmp(state_of(f->fd, &r->token), "holding")) {
		r->ret = release(f->fd) ?: -EPERM;
		at = now();
	}
	end(r, at);
	if (r->ret == -EBUSY)
		return r->ret;
	f->flock_away = r->ret == -EINTR;
	f->ticket = 0;
	return r->ret;
}

static void do_unlock(struct file *f)
{
	struct record *r = begin(UNLOCK, f);
	__s64 at;

	r->ret = flock(f->fd, LOCK_UN) ? -errno : 0;
	at = now();
	end(r, at);
	f->ticket = 0;
	f->flock_away = false;
}

/* Revokes the grant with that token, by any file of its lock */
static void do_revoke(struct file *f, __u64 token, __u64 grace)
{
	struct record *r = begin(REVOKE, f);

	r->token = token;
	r->timeout_ns = grace;
	r->ret = revoke_grant(f->fd, token, grace);
	end(r, now());
}

#define HOLDER_EVENTS	(POLLIN | POLLPRI)

/* Polls a file for at most @ms; returns the events */
static int do_poll(struct file *f, short wanted, int ms)
{
	struct pollfd p = { .fd = f->fd, .events = wanted };
	/* The events have the same values */
	struct epoll_event e = { .events = wanted | (rnd(2) ? EPOLLET : 0) };
	bool by_epoll = rnd(2);
	int ep = -1, n;
	struct record *r;
	__s64 at;

	if (by_epoll) {
		ep = epoll_create1(EPOLL_CLOEXEC);
		if (ep < 0)
			die("no epoll");
	}
	r = begin(POLL, f);
	r->wanted = wanted;
	if (!by_epoll) {
		n = poll(&p, 1, ms);
	} else if (epoll_ctl(ep, EPOLL_CTL_ADD, f->fd, &e)) {
		n = -1;
	} else {
		n = epoll_wait(ep, &e, 1, ms);
		p.revents = n > 0 ? e.events : 0;
	}
	r->ret = n < 0 ? -errno : 0;
	at = now();
	r->events = n < 0 ? 0 : p.revents;
	end(r, at);
	if (by_epoll)
		close(ep);
	return r->events;
}

/* The number after a text, or 0 if there is none */
static __u64 number_after(const char *text, const char *before)
{
	const char *found = strstr(text, before);

	return found ? strtoull(found + strlen(before), NULL, 10) : 0;
}

static void do_look(struct thread *t)
{
	__u64 file = atomic_load(&t->file);
	__u32 minor = atomic_load(&t->minor);
	struct record *r;
	char path[40], text[400];
	ssize_t len = -1;
	int info;

	if (!file)
		return;
	r = begin(LOOK, &no_file);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", (int)file);
	info = open(path, O_RDONLY | O_CLOEXEC);
	/* The file may be closed by now */
	if (info >= 0) {
		len = read(info, text, sizeof(text) - 1);
		close(info);
	}
	text[len < 0 ? 0 : len] = 0;
	/* If it was closed, the descriptor may have been another lock's */
	if (atomic_load(&t->file) == file) {
		r->minor = minor;
		r->token = number_after(text, "\ntlock-token:\t");
		r->ticket = number_after(text,
				"\ntlock-state:\twaiting\ntlock-ticket:\t");
	}
	end(r, now());
}

static void counts_of(__u64 *count, const struct tlock_status *st)
{
	count[ACQUIRED] = st->acquired;
	count[CONTENDED] = st->contended;
	count[TIMED_OUT] = st->timed_out;
	count[INTERRUPTED] = st->interrupted;
	count[ABANDONED] = st->abandoned;
	count[REVOKED] = st->revoked;
	count[YIELDED] = st->yielded;
}

static struct record *do_status(struct file *f)
{
	struct record *r = begin(STATUS, f);
	struct tlock_status st;
	__s64 at;

	r->ret = status(f->fd, &st);
	at = now();
	if (!r->ret) {
		r->holder = sight_of(&st.holder);
		r->waiters = st.waiters;
		counts_of(r->count, &st);
	}
	end(r, at);
	return r;
}

/*** Threads ***/

static void on_restart(int signal)
{
	atomic_fetch_add(&me->signals[RESTARTS], 1);
}

static void on_fail(int signal)
{
	atomic_fetch_add(&me->signals[FAILS], 1);
}

static void handle_signals(void)
{
	struct sigaction restarts = {
		.sa_handler = on_restart,
		.sa_flags = SA_RESTART,
	}, fails = {
		.sa_handler = on_fail,
	};

	sigaction(SIGUSR1, &restarts, NULL);
	sigaction(SIGUSR2, &fails, NULL);
}

/* Who uses a file: one thread, threads of a process, or several processes */
enum use { ALONE, SHARED, FAMILY };

static __s64 some_timeout(enum use use)
{
	/* A family may hold the lock by another file: its waits are short */
	switch (rnd(use == FAMILY ? 5 : 8)) {
	case 0 ... 1:
		return 0;
	case 2 ... 3:
		return 20 * USEC + rnd(300 * USEC);
	case 4:
		return rnd(20 * MSEC) + 1;
	case 5:
		/* Not on a shared file: see study_grants() */
		return use == ALONE ? FOREVER : 3600 * SEC;
	default:
		/* Also for ever, but the time left shows how long it waited */
		return 3600 * SEC;
	}
}

/* Fetches the outcome of a request late; returns if it holds */
static bool dawdle(struct file *f, enum use use)
{
	__s64 left;
	bool granted;
	int ret;

	if (!(do_poll(f, POLLOUT, use == ALONE ? -1 : 1) & POLLOUT))
		return false;
	granted = seen_granted(f, do_status(f));
	left = f->deadline - now();
	nap((left > 0 && left < 20 * MSEC ? left : 0) + rnd(MSEC));
	ret = do_fetch(f);
	if (granted && ret == -ETIMEDOUT)
		atomic_fetch_add(&shared->expired, 1);
	return !ret;
}

/* Makes a call that fails while there is an asynchronous request */
static bool intrude(struct file *f, enum use use)
{
	switch (rnd(4)) {
	case 0:
		/* Another ticket */
		do_ask(f, rnd(2) ? ACQUIRE : REACQUIRE, f->ticket | 1ULL << 63,
		       some_timeout(use), false, rnd(2) ? TLOCK_ASYNC : 0);
		return false;
	case 1:
		/* Its own ticket, in the wrong way */
		do_ask(f, rnd(2) ? ACQUIRE : REACQUIRE, f->ticket,
		       f->left_ns, rnd(2), 0);
		return false;
	case 2:
		if (use == ALONE)
			return !do_flock(f, rnd(2));
		break;
	}
	/* If another thread has withdrawn the request, this may succeed */
	return !do_take(f, rnd(2) ? ACQUIRE : REACQUIRE, some_timeout(use),
			false);
}

/* Does something with an asynchronous request; returns if it holds */
static bool pend(struct file *f, enum use use)
{
	switch (rnd(12)) {
	case 0:
		do_release(f);
		return false;
	case 1:
		if (use != ALONE)
			break;
		if (rnd(2))
			do_close(f);
		else
			do_unlock(f);
		return false;
	case 2:
		return intrude(f, use);
	case 3:
		do_poll(f, HOLDER_EVENTS | POLLOUT, 0);
		return false;
	case 4 ... 5:
		return dawdle(f, use);
	case 6 ... 7:
		return !do_fetch(f);
	case 8:
		/* Leaves it alone, perhaps until it is killed */
		return false;
	}
	/* On a shared file, others may go on making requests */
	if (!(do_poll(f, POLLOUT, use == ALONE ? -1 : 2) & POLLOUT))
		return false;
	return !do_fetch(f);
}

/* Does something with a request that was interrupted; returns if it holds */
static bool go_on(struct file *f, enum use use)
{
	if (f->pending)
		return pend(f, use);
	switch (rnd(9)) {
	case 0:
		do_release(f);
		return false;
	case 1:
		return !do_take(f, ACQUIRE, some_timeout(use), false);
	case 2:
		return !do_take(f, REACQUIRE, some_timeout(use), rnd(2));
	case 3:
		/* A ticket that nobody ever had */
		do_ask(f, rnd(2) ? ACQUIRE : REACQUIRE, f->ticket | 1ULL << 63,
		       some_timeout(use), false,
		       f->async && rnd(2) ? TLOCK_ASYNC : 0);
		return false;
	case 4:
		if (use != ALONE)
			break;
		if (rnd(2))
			do_close(f);
		else
			do_unlock(f);
		return false;
	}
	return !do_ask(f, rnd(2) ? ACQUIRE : REACQUIRE, f->ticket, f->left_ns,
		       rnd(2), f->async && !rnd(8) ? TLOCK_ASYNC : 0);
}

/* Does something with a file; @held and the result: if it holds the lock */
static bool act(struct file *f, bool held, enum use use)
{
	struct record *st;

	if (f->ticket)
		return go_on(f, use);
	if (f->flock_away && rnd(2))
		return !do_flock(f, true);
	if (held && !rnd(8)) {
		/* As an event loop: goes on until it sees that others wait */
		if (!(do_poll(f, HOLDER_EVENTS, rnd(3)) & POLLPRI))
			return true;
		return !do_take(f, REACQUIRE, some_timeout(use), rnd(2));
	}
	switch (rnd(20)) {
	case 0:
		if (rnd(2)) {
			st = do_status(f);
			if (!rnd(4))
				do_revoke(f, st->holder.token,
					  rnd(4) ? some_period() : 0);
		} else {
			do_poll(f, HOLDER_EVENTS | POLLOUT, 0);
		}
		return held;
	case 1:
		/* A call that must fail, unless the grant was revoked */
		if (!held)
			do_release(f);
		else if (do_take(f, ACQUIRE, some_timeout(use), false) ==
			 -ESTALE)
			return false;
		return held;
	case 2:
		if (!held)
			return !do_take(f, REACQUIRE, some_timeout(use),
					rnd(2));
		break;
	case 3 ... 4:
		if (use != ALONE)
			break;
		return !do_flock(f, rnd(2));
	case 5:
		if (use != ALONE)
			break;
		do_unlock(f);
		return false;
	case 6 ... 9:
		/* Ends another thread's request or grant */
		if (use != SHARED || held)
			break;
		do_release(f);
		return false;
	}
	if (!held)
		return !do_take(f, ACQUIRE, some_timeout(use), false);
	if (!rnd(3))
		return !do_take(f, REACQUIRE, some_timeout(use), rnd(2));
	if (f->leases && !rnd(3))
		return !do_renew(f);
	do_release(f);
	return false;
}

/* A permanent lock, most often the first */
static __u8 some_name(void)
{
	return rnd(2) ? 0 : rnd(PERMANENT);
}

/* A thread that has its own file */
static void *lone(void *data)
{
	struct file f = no_file;
	bool held = false;

	while (!atomic_load(&shared->stop)) {
		if (f.fd < 0) {
			f = open_contender(some_name());
			show(&f);
			held = false;
		}
		held = act(&f, held, ALONE);
		idle(held ? rnd(4) * 30 * USEC : shared->idle);
		/* Closes it now and then, often while it holds the lock */
		if (f.fd >= 0 && !rnd(60))
			do_close(&f);
	}
	if (f.fd >= 0)
		do_close(&f);
	return NULL;
}

/* Uses a temporary lock for a moment, if it is there */
static void *visitor(void *data)
{
	struct file f;
	bool held;

	while (!atomic_load(&shared->stop)) {
		f = open_contender(PERMANENT + rnd(TEMPORARY));
		held = false;
		if (f.fd >= 0)
			show(&f);
		for (int i = rnd(6); f.fd >= 0 && i; i--)
			held = act(&f, held, ALONE);
		if (f.fd >= 0)
			do_close(&f);
		nap(rnd(6 * MSEC));
	}
	return NULL;
}

/* Acquires a lock, or goes on with it; returns whether it holds */
static bool hold(struct file *f, __u8 name, __s64 timeout)
{
	if (f->fd < 0) {
		*f = do_open(O_RDWR, name);
		f->leases = rnd(2);
		show(f);
	}
	return f->ticket ? go_on(f, ALONE) :
			   !do_take(f, ACQUIRE, timeout, false);
}

/*
 * Holds two locks at once, always acquired in the same order, so that everybody
 * gets both in the end
 */
static void *both(void *data)
{
	__u8 name = rnd(PERMANENT - 1);
	__u8 second = name + 1 + rnd(PERMANENT - 1 - name);
	struct file a = no_file, b = no_file;
	__s64 timeout;

	while (!atomic_load(&shared->stop)) {
		if (hold(&a, name, some_timeout(ALONE)) && a.fd >= 0) {
			/* Mostly short, so that it does not slow everybody */
			timeout = rnd(6) ? rnd(MSEC) : FOREVER;
			if (hold(&b, second, timeout) && b.fd >= 0) {
				atomic_fetch_add(&shared->held_both, 1);
				idle(30 * USEC);
				if (rnd(10))
					do_release(&b);
				else
					do_close(&b);
			}
			/* Not while it holds the second one */
			if (rnd(2) ||
			    !do_take(&a, REACQUIRE, some_timeout(ALONE), rnd(2)))
				do_release(&a);
		}
		idle(shared->idle);
		if (a.fd >= 0 && !rnd(30))
			do_close(&a);
	}
	if (b.fd >= 0)
		do_close(&b);
	if (a.fd >= 0)
		do_close(&a);
	return NULL;
}

/* How a file of an event loop is registered */
enum mode { LEVEL, ONESHOT, EDGE, MODES };

/* The files of an event loop */
#define FILES		4

static const struct party {
	struct file file;
	bool held, decided, granted;
	__s16 watched;		/* POLLERR is always reported */
} no_party = { .file = { .fd = -1, .minor = NOBODY } };

/* Watches what can happen next, or all of it, if only edges are reported */
static void watch(int ep, struct party *p, enum mode mode, int op, __u32 i)
{
	struct epoll_event e = { .data.u64 = (__u64)p->file.number << 32 | i };

	if (mode == EDGE && op == EPOLL_CTL_MOD)
		return;
	p->watched = mode == EDGE ? HOLDER_EVENTS | POLLOUT :
		     p->file.ticket && !p->decided ? POLLOUT :
		     p->held ? HOLDER_EVENTS : 0;
	e.events = p->watched | (mode == EDGE ? EPOLLET :
				 mode == ONESHOT ? EPOLLONESHOT : 0);
	if (epoll_ctl(ep, op, p->file.fd, &e))
		die("no epoll_ctl");
}

/*
 * A request that is rarely granted, as this thread holds the lock: its deadline
 * ends it
 */
static void wait_for_deadline(__u8 name)
{
	struct file f = do_open(O_RDWR, name);

	if (do_ask(&f, ACQUIRE, 0, 20 * USEC + rnd(MSEC), false,
		   TLOCK_ASYNC) == -EINPROGRESS) {
		while (!(do_poll(&f, POLLOUT, -1) & POLLOUT))
			;
		do_fetch(&f);
	}
	do_close(&f);
}

/* Waits for events of all files, and records them; nothing else blocks */
static void wait_for_events(int ep, struct party *parties, int ms)
{
	struct epoll_event e[FILES];
	struct record *waits = NULL, *r;
	__s64 since = now(), at;
	__u32 first;
	int n, err;

	/* If it blocks for ever, this record has no end */
	for (first = 0; first < FILES && !waits; first++)
		if (parties[first].file.ticket)
			waits = begin(POLL, &parties[first].file);
	n = epoll_wait(ep, e, FILES, ms);
	err = n < 0 ? errno : 0;
	if (err && err != EINTR)
		die("no epoll_wait");
	at = now();
	for (int i = 0; i < n; i++) {
		__u32 number = e[i].data.u64 >> 32, which = e[i].data.u64;
		struct party *p = &parties[which];

		/* A look has kept open what was closed: see do_look() */
		if (number != p->file.number)
			continue;
		if (waits && which == first - 1) {
			r = waits;
			waits = NULL;
		} else {
			r = begin(POLL, &p->file);
			atomic_store(&r->begin, since);
		}
		r->wanted = p->watched;
		r->events = e[i].events;
		end(r, at);
		if (p->file.ticket && !p->decided && r->events & POLLOUT) {
			p->decided = true;
			p->granted = seen_granted(&p->file,
						  do_status(&p->file));
		}
	}
	/* Nothing is known of that file */
	if (waits) {
		waits->ret = -EINTR;
		end(waits, at);
	}
}

/* Does something with a file of an event loop, without blocking */
static void serve(struct party *p, __u8 name)
{
	struct file *f = &p->file;
	__s64 left = f->deadline - now();
	int ret;

	if (f->ticket) {
		/* Often leaves a grant unfetched, until it is too late */
		if (!p->decided ? rnd(12) != 0 :
		    left > 0 && left < 5 * MSEC ? rnd(8) != 0 : rnd(3) == 0)
			return;
		switch (rnd(p->decided ? 8 : 3)) {
		case 0:
			do_release(f);
			break;
		case 1:
			do_close(f);
			break;
		default:
			ret = do_fetch(f);
			p->held = !ret;
			if (p->granted && ret == -ETIMEDOUT)
				atomic_fetch_add(&shared->expired, 1);
		}
		if (!f->ticket)
			p->decided = p->granted = false;
	} else if (p->held) {
		if (!rnd(16))
			wait_for_deadline(name);
		switch (rnd(6)) {
		case 0:
			do_release(f);
			break;
		case 1:
			if (!rnd(4))
				do_close(f);
			return;
		case 2:
			return;
		default:
			p->held = !do_ask(f, REACQUIRE, 0, some_timeout(ALONE),
					  rnd(2), f->leases && !rnd(3) ?
					  TLOCK_RENEW : TLOCK_ASYNC);
			return;
		}
		p->held = false;
	} else {
		/* Half of them long enough to get the lock */
		p->held = !do_ask(f, ACQUIRE, 0,
				  rnd(2) ? some_timeout(ALONE) : rnd(80 * MSEC),
				  false, TLOCK_ASYNC);
	}
}

/* An event loop: a thread with several files, which never waits for one */
static void *looper(void *data)
{
	struct party parties[FILES];
	__u8 names_of[FILES];
	enum mode mode = rnd(MODES);
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (ep < 0)
		die("no epoll");
	for (__u32 i = 0; i < FILES; i++)
		parties[i] = no_party;
	while (!atomic_load(&shared->stop)) {
		bool busy = false;

		for (__u32 i = 0; i < FILES; i++) {
			struct party *p = &parties[i];

			if (p->file.fd < 0) {
				*p = no_party;
				names_of[i] = some_name();
				p->file = open_contender(names_of[i]);
				p->file.async = true;
				show(&p->file);
				watch(ep, p, mode, EPOLL_CTL_ADD, i);
			}
			serve(p, names_of[i]);
			if (p->file.fd < 0 || !p->file.ticket || p->decided)
				busy = true;
			if (p->file.fd >= 0 && (mode != ONESHOT || !p->decided))
				watch(ep, p, mode, EPOLL_CTL_MOD, i);
		}
		/* For ever only if it holds nothing and all files wait */
		wait_for_events(ep, parties, busy ? (int)rnd(3) : -1);
	}
	for (__u32 i = 0; i < FILES; i++)
		if (parties[i].file.fd >= 0)
			do_close(&parties[i].file);
	close(ep);
	return NULL;
}

/* The file of threads that share one */
static struct file common;

static void *sharer(void *data)
{
	struct file f = common;
	bool held = false;

	show(&f);
	while (!atomic_load(&shared->stop)) {
		held = act(&f, held, SHARED);
		/* It would only spin while it is refused at once */
		idle(held ? rnd(4) * 30 * USEC : shared->idle + 2 * MSEC);
	}
	/* Others may wait for ever, even on this file, until it is released */
	do_release(&f);
	return NULL;
}

static struct thread threads[THREADS];
static atomic_int running;

static void *thread_main(void *data)
{
	struct thread *t = data;

	new_actor(t->actor - history->actor);
	seen = t;
	atomic_store(&t->tid, syscall(SYS_gettid));
	t->fn(t);
	atomic_fetch_sub(&running, 1);
	/* Its thread id must not be reused: a signal may be on its way */
	for (;;)
		pause();
	return NULL;
}

/* Runs threads, sends them signals and looks at their files */
static void run_threads(__u32 first_actor, void *(*fn)(void *data))
{
	/* Its own random sequence */
	new_actor(first_actor + THREADS);
	atomic_store(&running, THREADS);
	for (int i = 0; i < THREADS; i++) {
		threads[i].actor = &history->actor[first_actor + i];
		threads[i].fn = fn;
		errno = pthread_create(&threads[i].thread, NULL, thread_main,
				       &threads[i]);
		if (errno)
			die("cannot start a thread");
	}
	while (atomic_load(&running)) {
		struct thread *t = &threads[rnd(THREADS)];
		int tid = atomic_load(&t->tid);

		nap(rnd(30 * MSEC) + MSEC);
		if (tid && !atomic_load(&shared->stop))
			syscall(SYS_tgkill, getpid(), tid,
				rnd(3) ? SIGUSR1 : SIGUSR2);
		do_look(t);
	}
}

/*** Processes ***/

static void doom(__u32 process)
{
	__s64 never = 0;

	/* The first reason to end counts */
	atomic_compare_exchange_strong(&history->process[process].doomed,
				       &never, now());
}

__attribute__((noreturn))
static void leave(void)
{
	doom(my_process);
	_exit(0);
}

static void run_lone(__u32 actor)
{
	run_threads(actor, lone);
}

static void run_visitors(__u32 actor)
{
	run_threads(actor, visitor);
}

static void run_both(__u32 actor)
{
	run_threads(actor, both);
}

static void run_loopers(__u32 actor)
{
	run_threads(actor, looper);
}

static void run_sharers(__u32 actor)
{
	/* As the first thread, which does not exist yet */
	new_actor(actor);
	common = open_contender(some_name());
	run_threads(actor, sharer);
	/* Closed by exit, also if one of them still holds the lock */
}

static void run_watcher(__u32 actor)
{
	struct file f = no_file;

	new_actor(actor);
	while (!atomic_load(&shared->stop)) {
		if (f.fd < 0)
			f = do_open(O_RDONLY, rnd(NAMES));
		/* A file that is open for reading outlives its lock */
		if (f.fd >= 0 && (do_status(&f)->ret || !rnd(20)))
			do_close(&f);
		nap(rnd(10 * MSEC));
	}
	if (f.fd >= 0)
		do_close(&f);
}

/*
 * In a user namespace: opens the device as root, asks as another user, who may not
 * revoke what is not its own
 */
static void run_stranger(__u32 actor)
{
	struct file f = no_file;
	bool held = false;

	new_actor(actor);
	while (!atomic_load(&shared->stop)) {
		if (f.fd < 0) {
			syscall(SYS_setresuid, -1, 0, -1);
			f = open_contender(some_name());
			held = false;
			if (syscall(SYS_setresuid, -1, 1, -1))
				die("cannot become another user");
		}
		if (!rnd(10))
			do_revoke(&f, do_status(&f)->holder.token,
				  some_period());
		held = act(&f, held, ALONE);
		idle(held ? 100 * USEC : shared->idle);
		if (f.fd >= 0 && !rnd(40))
			do_close(&f);
	}
	if (f.fd >= 0)
		do_close(&f);
}

/*
 * Hangs while it holds a lock, until that is revoked: for ever if nobody else
 * does it, so a revocation that does not come, or is not seen, stops the test.
 */
static void run_hanger(__u32 actor)
{
	struct file f = no_file;

	new_actor(actor);
	while (!atomic_load(&shared->stop)) {
		if (f.fd < 0) {
			f = do_open(O_RDWR, some_name());
			f.leases = rnd(4);
		}
		if (!do_take(&f, ACQUIRE, some_timeout(ALONE), false)) {
			/* Reported though nobody asks for it */
			do_poll(&f, rnd(2) ? 0 : POLLPRI, -1);
			if (rnd(2))
				do_release(&f);
		}
		if (rnd(4))
			do_close(&f);
		/* Others get most of the time */
		nap(rnd(40 * MSEC));
	}
	if (f.fd >= 0)
		do_close(&f);
}

/* Revokes grants until all others have ended, who may hang. It is not killed. */
static void run_operator(__u32 actor)
{
	struct file f[PERMANENT];
	__u64 token, seen[PERMANENT] = { 0 };

	new_actor(actor);
	tireless = true;
	for (__u8 i = 0; i < PERMANENT; i++)
		f[i] = do_open(O_RDWR, i);
	while (!atomic_load(&shared->alone)) {
		__u8 name = some_name();

		token = do_status(&f[name])->holder.token;
		/* Often one that hangs; sometimes a grant that is over, or none */
		if (token == seen[name] || !rnd(16))
			do_revoke(&f[name], rnd(8) ? token : rnd(2) ? 0 :
				  token - 1 - rnd(4),
				  rnd(3) ? some_period() : 0);
		seen[name] = token;
		/* If the others are stuck, records must last until that is noticed */
		nap(rnd(atomic_load(&shared->stop) ? 40 * MSEC : 4 * MSEC));
	}
	for (__u8 i = 0; i < PERMANENT; i++)
		do_close(&f[i]);
}

static bool act_in_family(struct file *f, bool held)
{
	held = act(f, held, FAMILY);
	idle(held ? 50 * USEC : shared->idle / 2);
	return held;
}

/* Sends a file in a message, and what the history calls it */
static void do_send(int sock, struct file *f, __u32 peer)
{
	struct iovec iov = { f, sizeof(*f) };
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	struct record *r;

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &f->fd, sizeof(int));
	r = begin(SEND, f);
	r->peer = peer;
	r->ret = sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
	end(r, now());
}

static struct file do_receive(int sock)
{
	struct file f = no_file, sent;
	struct iovec iov = { &sent, sizeof(sent) };
	char control[CMSG_SPACE(sizeof(int))];
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct record *r = begin(RECEIVE, &no_file);
	struct cmsghdr *cmsg;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) > 0) {
		cmsg = CMSG_FIRSTHDR(&msg);
		if (!cmsg)
			die("a message without a file");
		/* And goes on with the request that the other has left */
		f = sent;
		memcpy(&f.fd, CMSG_DATA(cmsg), sizeof(int));
		r->file = f.number;
		r->minor = f.minor;
	}
	end(r, now());
	return f;
}

static void be_child(struct file *f, int sock, __u32 actor, pid_t parent)
{
	struct file sent;
	bool held = false;
	char name[TLOCK_COMM_SIZE];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	new_actor(actor);
	my_process = me->process;
	name_of(name, my_process);
	prctl(PR_SET_NAME, name);
	history->process[my_process].pid = getpid();

	/* Uses the file it inherited, at the same time as its parent */
	for (int i = rnd(8); i && !atomic_load(&shared->stop); i--)
		held = act_in_family(f, held);
	if (held && rnd(2))
		do_release(f);
	if (rnd(4))
		do_close(f);

	/* Uses the file that it is sent */
	sent = do_receive(sock);
	if (sent.fd < 0)
		leave();
	held = false;
	for (int i = rnd(8); i && !atomic_load(&shared->stop); i--)
		held = act_in_family(&sent, held);
	if (held && rnd(2))
		do_release(&sent);
	if (rnd(4))
		do_close(&sent);
	leave();
}

/* A process that shares files with its child, by fork() and by message */
static void run_family(__u32 actor)
{
	struct file f, sent;
	int socks[2];
	__u32 child_actor, child;
	struct record *r;
	pid_t pid;
	bool held;

	new_actor(actor);
	while (!atomic_load(&shared->stop) &&
	       history->processes < MAX_PROCESSES - 100) {
		f = open_contender(some_name());
		held = rnd(2) && !do_take(&f, ACQUIRE, some_timeout(FAMILY),
					  false);
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
			       socks))
			die("no sockets");
		child = new_process(1, &child_actor);
		r = begin(FORK, &f);
		r->peer = child;
		pid = fork();
		if (!pid) {
			close(socks[0]);
			be_child(&f, socks[1], child_actor,
				 history->process[my_process].pid);
		}
		end(r, now());
		if (pid < 0)
			die("no child");
		close(socks[1]);

		for (int i = rnd(8); i && !atomic_load(&shared->stop); i--)
			held = act_in_family(&f, held);
		if (rnd(2)) {
			do_close(&f);
			f.fd = -1;
		}

		sent = open_contender(some_name());
		if (rnd(2))
			do_take(&sent, ACQUIRE, rnd(3 * MSEC), false);
		do_send(socks[0], &sent, child);
		held = false;
		for (int i = rnd(3); i && !atomic_load(&shared->stop); i--)
			held = act_in_family(&sent, held);
		do_close(&sent);
		if (f.fd >= 0)
			do_close(&f);
		close(socks[0]);

		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		atomic_store(&history->process[child].reaped, now());
	}
}

/*** Creating and deleting locks ***/

/* The name of a lock, without what is before it in that of its device */
static const char *own_name(__u8 name)
{
	return names[name] + strlen("tlock-");
}

static __u32 minor_of(__u8 name)
{
	char path[40];
	struct stat st;

	if (stat(path_of(path, name), &st))
		die("no status of %s", path);
	return minor(st.st_rdev);
}

/* The minor numbers of the temporary locks that are there, or NOBODY */
static __u32 kept[NAMES];

static bool do_create(__u8 name)
{
	struct record *r = begin(CREATE, &no_file);
	__s64 at;

	r->name = name;
	r->ret = lock_create(own_name(name));
	at = now();
	if (!r->ret) {
		kept[name] = r->minor = minor_of(name);
		history->lock[history->locks++] = (struct lock){
			.minor = r->minor,
			.temporary = true,
		};
	}
	end(r, at);
	return !r->ret;
}

static void do_delete(__u8 name)
{
	struct record *r = begin(DELETE, &no_file);
	__s64 at;

	r->name = name;
	r->minor = kept[name];
	r->ret = lock_delete(own_name(name));
	at = now();
	if (!r->ret)
		kept[name] = NOBODY;
	end(r, at);
}

/*
 * Uses a new lock until it has seen how many grants there were by then, which
 * shows where the lock's tokens begin. It can't be deleted meanwhile.
 */
static void use_new(__u8 name)
{
	struct file f = do_open(O_RDWR, name);

	if (f.fd < 0)
		die("cannot open %s", names[name]);
	/* Others may revoke its own grant */
	do {
		do_take(&f, ACQUIRE, 0, false);
	} while (!do_status(&f)->holder.token);
	if (rnd(2))
		do_delete(name);
	if (rnd(2))
		do_release(&f);
	do_close(&f);
}

/*
 * Creates and deletes the temporary locks. There is one such process, and it is
 * neither killed nor stopped: so it knows which locks there are.
 */
static void run_keeper(__u32 actor)
{
	bool stop = false;

	new_actor(actor);
	memset(kept, 0xff, sizeof(kept));
	for (__u32 left = 0; left || !stop;) {
		__u8 name = PERMANENT + rnd(TEMPORARY);
		bool there = kept[name] != NOBODY;

		/* Some of these calls must fail */
		if (!stop && rnd(10) < (there ? 1 : 9) &&
		    history->locks < MAX_LOCKS) {
			if (do_create(name))
				use_new(name);
		} else {
			do_delete(name);
		}
		nap(rnd(4 * MSEC));
		stop = atomic_load(&shared->stop);
		left = 0;
		for (__u8 i = PERMANENT; i < NAMES; i++)
			left += kept[i] != NOBODY;
	}
}

/*** Monitors ***/

/* At most: a call has no more than three events, and one when it is closed */
#define EVENTS_CAPACITY	(4 * CAPACITY)

/* The monitors of the permanent locks, which nobody else reads meanwhile */
static int monitors[PERMANENT];
static struct event *events[PERMANENT];

static void start_monitors(void)
{
	char path[40];

	for (__u8 i = 0; i < PERMANENT; i++) {
		monitors[i] = open(path_of(path, i),
				   O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (monitors[i] < 0 || start_monitor(monitors[i]))
			die("no monitor of %s", path);
	}
}

static struct event event_of(const struct tlock_event *e)
{
	struct tlock_holder holder = {
		.token = 1,
		.pid = e->pid,
		.uid = e->uid,
		.flags = e->flags,
	};

	memcpy(holder.comm, e->comm, sizeof(holder.comm));
	memcpy(holder.job, e->job, sizeof(holder.job));
	return (struct event){
		.kind = e->kind,
		.lost = e->lost,
		.seq = e->seq,
		.time_ns = e->time_ns,
		.token = e->token,
		.ticket = e->ticket,
		.of = sight_of(&holder),
	};
}

/* Records what a lock's monitor has to report. */
static void record_events(__u8 name)
{
	static struct tlock_event buffer[256];
	struct lock *lock = &history->lock[name];
	ssize_t size;

	do {
		size = read_events(monitors[name], buffer, sizeof(buffer));
		if (size < 0 && size != -EAGAIN)
			die("cannot read events");
		for (ssize_t i = 0; i < size / (ssize_t)sizeof(*buffer); i++) {
			if (lock->events == EVENTS_CAPACITY)
				die("too many events");
			if (buffer[i].size != sizeof(*buffer))
				die("an event of %u bytes", buffer[i].size);
			lock->event[lock->events++] = event_of(&buffer[i]);
		}
	} while (size > 0);
}

/* Reads all locks' events. It is as urgent as can be, so that none are lost */
static void run_reader(__u32 actor)
{
	struct sched_param urgent = { .sched_priority = 1 };
	struct pollfd polled[PERMANENT];

	if (syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &urgent))
		die("not urgent");
	for (__u8 i = 0; i < PERMANENT; i++)
		polled[i] = (struct pollfd){ .fd = monitors[i], .events = POLLIN };
	while (!atomic_load(&shared->alone)) {
		if (poll(polled, PERMANENT, 20) < 0)
			die("cannot poll monitors");
		for (__u8 i = 0; i < PERMANENT; i++)
			if (polled[i].revents)
				record_events(i);
	}
}

/* Events; histories of a lock from which none are lost, and others */
static unsigned long total_events, lossless, lossy;

/* Reads the rest, and counts */
static void stop_monitors(void)
{
	for (__u8 i = 0; i < PERMANENT; i++) {
		struct lock *lock = &history->lock[i];
		bool lost = false;

		record_events(i);
		close(monitors[i]);
		for (__u32 j = 0; j < lock->events; j++)
			lost |= lock->event[j].lost != 0;
		total_events += lock->events;
		lossless += !lost;
		lossy += lost;
	}
}

/*** The main process ***/

/* The kinds of processes; each may run several times */
static const struct trade {
	void (*run)(__u32 actor);
	int flags;	/* of clone */
	int threads;
} trades[] = {
	{ run_lone, 0, THREADS },
	{ run_sharers, 0, THREADS },
	{ run_family, 0, 1 },
	{ run_lone, CLONE_NEWPID, THREADS },
	{ run_stranger, CLONE_NEWUSER, 1 },
	{ run_both, 0, THREADS },
	{ run_watcher, 0, 1 },
	{ run_family, 0, 1 },
	{ run_stranger, CLONE_NEWUSER | CLONE_NEWPID, 1 },
	{ run_watcher, CLONE_NEWPID, 1 },
	{ run_visitors, 0, THREADS },
	{ run_sharers, 0, THREADS },
	{ run_visitors, 0, THREADS },
	{ run_loopers, 0, THREADS },
	{ run_loopers, CLONE_NEWPID, THREADS },
	{ run_hanger, 0, 1 },
}, keeper = { run_keeper, 0, 1 }, operator = { run_operator, 0, 1 },
   reader = { run_reader, 0, 1 };

#define TRADES		ARRAY_SIZE(trades)
#define STRANGERS	20000
#define CGROUP		"tlock-chaos"

/* Those that hang are frozen now and then */
static bool can_be_frozen(const struct trade *trade)
{
	return trade->run == run_hanger;
}

static struct worker {
	pid_t pid;
	__u32 process;
} workers[2 * TRADES + 1];

/* The last one is the keeper */
#define KEEPER		(&workers[2 * TRADES])

static void write_map(pid_t pid, const char *name, const char *text)
{
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die("cannot write %s", path);
	close(fd);
}

static void start(struct worker *w, const struct trade *trade)
{
	__u32 actor, process;
	struct process *p;
	char name[TLOCK_COMM_SIZE], map[80], ready = 0;
	int gate[2];

	/* One more actor, for the thread that sends signals */
	process = new_process(trade->threads + 1, &actor);
	p = &history->process[process];
	p->own_pids = trade->flags & CLONE_NEWPID;
	p->own_uids = trade->flags & CLONE_NEWUSER;
	p->uid = p->own_uids ? STRANGERS + process : 0;
	if (pipe2(gate, O_CLOEXEC))
		die("no pipe");
	w->process = process;
	w->pid = syscall(SYS_clone, trade->flags | SIGCHLD, 0, 0, 0, 0);
	if (w->pid < 0)
		die("no process");
	if (!w->pid) {
		close(gate[1]);
		if (read(gate[0], &ready, 1) != 1)
			_exit(1);
		close(gate[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		my_process = process;
		name_of(name, process);
		prctl(PR_SET_NAME, name);
		handle_signals();
		trade->run(actor);
		leave();
	}
	p->pid = w->pid;
	if (can_be_frozen(trade))
		cgroup_enter(CGROUP, w->pid);
	if (p->own_uids) {
		snprintf(map, sizeof(map), "0 0 1\n1 %u 1\n", p->uid);
		write_map(w->pid, "uid_map", map);
	}
	if (write(gate[1], &ready, 1) != 1)
		die("a process does not start");
	close(gate[0]);
	close(gate[1]);
}

/* Reaps all children that have ended; returns the number of workers left */
static int reap(void)
{
	int left = 0, wstatus;
	pid_t pid;

	while ((pid = waitpid(-1, &wstatus, WNOHANG)) > 0) {
		__u32 i;

		for (i = 0; i < ARRAY_SIZE(workers); i++)
			if (workers[i].pid == pid)
				break;
		if (i == ARRAY_SIZE(workers))
			continue;	/* an orphan */
		atomic_store(&history->process[workers[i].process].reaped,
			     now());
		workers[i].pid = 0;
		if (!WIFSIGNALED(wstatus) ? WEXITSTATUS(wstatus) :
		    WTERMSIG(wstatus) != SIGKILL)
			die("process %u ended with status %#x",
			    workers[i].process, wstatus);
	}
	for (__u32 i = 0; i < ARRAY_SIZE(workers); i++)
		left += workers[i].pid != 0;
	return left;
}

static void slay(struct worker *w)
{
	doom(w->process);
	kill(w->pid, SIGKILL);
}

/*
 * A thread may still go away after its process was stopped or frozen, until it
 * has noticed that there is nothing left to do about that. membarrier() waits
 * until every CPU has been at a point where its thread notices it; see EXPEDITED.
 */
static void settle(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		die("no membarrier");
}

/* Stops a process for a while. */
static void stop_briefly(struct worker *w)
{
	struct process *p = &history->process[w->process];

	atomic_fetch_add(&p->stops, 1);
	kill(w->pid, SIGSTOP);
	nap(rnd(4 * MSEC));
	kill(w->pid, SIGCONT);
	settle();
	atomic_fetch_add(&p->stops, 1);
}

/* Notes that those that can be frozen are going to be, or were */
static void note_freeze(void)
{
	for (__u32 i = 0; i < 2 * TRADES; i++)
		if (workers[i].pid && can_be_frozen(&trades[i % TRADES]))
			atomic_fetch_add(&history->process[workers[i].process].stops,
					 1);
}

/* Freezes all that can be frozen for a while; returns whether they were frozen */
static bool freeze_briefly(void)
{
	bool frozen;

	note_freeze();
	cgroup_write(CGROUP, "cgroup.freeze", "1");
	frozen = await_cgroup(CGROUP, "frozen 1");
	nap(rnd(10 * MSEC));
	cgroup_write(CGROUP, "cgroup.freeze", "0");
	settle();
	note_freeze();
	return frozen;
}

/* From the ioctl; a counter that sysfs disagrees with is -1, and rejected */
static struct counters counters_now(int fd, __u8 name)
{
	struct counters c;
	struct tlock_status st = look(fd);
	char path[80];

	counts_of(c.count, &st);
	c.wait_ns_total = st.wait_ns_total;
	c.wait_ns_max = st.wait_ns_max;
	c.hold_ns_total = st.hold_ns_total;
	c.hold_ns_max = st.hold_ns_max;
	for (int i = 0; i < COUNTS; i++) {
		snprintf(path, sizeof(path), CLASS "/%s/stats/%s",
			 names[name], count_names[i]);
		if (read_number(path) != c.count[i])
			c.count[i] = -1;
	}
	return c;
}

static void take_turn(struct file *f)
{
	if (!do_take(f, ACQUIRE, 0, false))
		do_release(f);
}

/* A lock numbers its grants without gaps */
static __u64 newest_token[PERMANENT];

/* Events that must happen, or the test is worth nothing */
enum move {
	WENT_ON, WAS_CANCELED, FLOCKED, STOPPED, SEEN_WAITING, HELD_BOTH,
	CREATED, DELETED, WAS_BUSY, MISSED, GONE,
	PENDED, FETCHED, TOO_EARLY, FAILED, EXPIRED, DECIDED, CUED,
	RENEWED, LEASE_ENDED, TAKEN, GRACED, TOO_LATE, FORBIDDEN, LEARNED_ESTALE,
	SAW_POLLERR, AFTER_REVOCATION, FROZEN, MOVES
};

static const char *const move_names[MOVES] = {
	"went on", "canceled", "flocked", "stopped", "seen to wait",
	"held two locks", "created", "deleted", "too busy to delete",
	"missing", "gone",
	"pending", "fetched", "not decided yet", "timed out by itself",
	"expired unfetched", "seen to be decided", "saw that others wait",
	"renewed", "leases ended", "revoked at once", "some after a grace",
	"revoked too late", "may not revoke", "learned it", "POLLERR",
	"after a revocation", "frozen",
};

static unsigned long moves[MOVES];

static void count_moves(const struct record *r)
{
	bool takes = r->kind == ACQUIRE || r->kind == REACQUIRE;
	bool fetches = takes && r->async && r->ticket;

	moves[PENDED] += takes && !r->ticket && r->ret == -EINPROGRESS;
	moves[FETCHED] += fetches && !r->ret;
	moves[TOO_EARLY] += fetches && r->ret == -EINPROGRESS;
	moves[DECIDED] += r->kind == POLL && r->wanted == POLLOUT && r->events;
	moves[CUED] += r->kind == POLL && r->events & POLLPRI;
	moves[WENT_ON] += takes && !r->async && r->ticket && !r->ret;
	moves[WAS_CANCELED] += takes && !r->ticket && r->ret == -ECANCELED;
	moves[FLOCKED] += r->kind == FLOCK && !r->ret;
	moves[STOPPED] += takes && !r->ret && r->stops_after != r->stops_before;
	moves[SEEN_WAITING] += r->kind == LOOK && r->ticket;
	moves[CREATED] += r->kind == CREATE && !r->ret;
	moves[DELETED] += r->kind == DELETE && !r->ret;
	moves[WAS_BUSY] += r->kind == DELETE && r->ret == -EBUSY;
	moves[MISSED] += r->kind == OPEN && r->ret;
	moves[GONE] += r->kind == STATUS && r->ret == -ENODEV;
	moves[RENEWED] += r->renews && !r->ret;
	moves[TAKEN] += r->kind == REVOKE && !r->ret && !r->timeout_ns;
	moves[TOO_LATE] += r->kind == REVOKE && r->ret == -ESTALE;
	moves[FORBIDDEN] += r->kind == REVOKE && r->ret == -EPERM;
	moves[LEARNED_ESTALE] += r->kind != REVOKE && r->ret == -ESTALE;
	moves[SAW_POLLERR] += r->kind == POLL && r->events & POLLERR;
	moves[AFTER_REVOCATION] += takes && r->result & TLOCK_REVOKED;
}

/* Whether somebody took the lock from that grant without a grace, or tried */
static bool taken_at_once(const struct lock *lock, __u64 token)
{
	for (__u32 i = 0; i < history->records; i++) {
		const struct record *r = &history->record[i];

		if (r->kind == REVOKE && r->minor == lock->minor &&
		    r->token == token && !r->timeout_ns)
			return true;
	}
	return false;
}

/* Those that only a monitor sees */
static void count_events(const struct lock *lock)
{
	for (__u32 i = 0; i < lock->events; i++) {
		const struct event *e = &lock->event[i];

		if (e->kind != TLOCK_EVENT_REVOKED)
			continue;
		if (!e->of.revoking)
			moves[LEASE_ENDED]++;
		/* One is enough, and looking for it takes time */
		else if (!moves[GRACED])
			moves[GRACED] = !taken_at_once(lock, e->token);
	}
}

/* Of the first lock, and of the other permanent ones */
static unsigned long totals[2][COUNTS];
static unsigned long total_records, total_kills, total_lost;
static unsigned long total_processes;

static void run_epoch(void)
{
	size_t size = sizeof(*history) + CAPACITY * sizeof(struct record);
	unsigned int workers_now, kills = 0, frozen = 0;
	unsigned long progress;
	__u32 actor;
	char name[TLOCK_COMM_SIZE];
	struct worker reading, operating;
	struct file f[PERMANENT];
	__s64 until, since;
	int fd[PERMANENT];
	char path[40];

	for (__u8 i = 0; i < PERMANENT; i++) {
		fd[i] = open(path_of(path, i), O_RDONLY | O_CLOEXEC);
		if (fd[i] < 0)
			die("cannot open %s", path);
	}
	/* Makes it all 0 again */
	if (madvise(history, size, MADV_REMOVE))
		die("cannot empty the history");
	for (__u8 i = 0; i < PERMANENT; i++)
		if (madvise(events[i], EVENTS_CAPACITY * sizeof(struct event),
			    MADV_REMOVE))
			die("cannot empty the events");
	history->capacity = CAPACITY;
	history->files = 1;	/* 0 is none */
	shared->stop = shared->alone = 0;
	my_process = new_process(1, &actor);
	new_actor(actor);
	history->process[my_process].pid = getpid();
	name_of(name, my_process);
	prctl(PR_SET_NAME, name);

	/* The number of processes and their idle time vary by epoch */
	shared->idle = (const __s64[]){ 0, 300 * USEC, 3 * MSEC,
					20 * MSEC }[rnd(4)];
	workers_now = TRADES + rnd(TRADES + 1);

	history->begin = now();
	history->locks = PERMANENT;
	start_monitors();
	for (__u8 i = 0; i < PERMANENT; i++) {
		history->lock[i].minor = minor_of(i);
		history->lock[i].before = counters_now(fd[i], i);
		history->lock[i].first = newest_token[i];
		history->lock[i].event = events[i];
	}
	start(&reading, &reader);
	/* Now the locks are free, and nothing is left to report */
	for (__u8 i = 0; i < PERMANENT; i++) {
		f[i] = do_open(O_RDWR, i);
		take_turn(&f[i]);
	}

	start(&operating, &operator);
	start(KEEPER, &keeper);
	for (__u32 i = 0; i < workers_now; i++)
		start(&workers[i], &trades[i % TRADES]);
	until = now() + EPOCH;
	while (now() < until && !atomic_load(&shared->stop)) {
		struct worker *w = &workers[rnd(workers_now)];

		nap(rnd(100 * MSEC));
		reap();
		if (!w->pid) {
			if (history->processes < MAX_PROCESSES - 150 &&
			    history->actors < MAX_ACTORS - 600)
				start(w, &trades[(w - workers) % TRADES]);
		} else if (!rnd(4)) {
			frozen += freeze_briefly();
		} else if (rnd(2)) {
			stop_briefly(w);
		} else if (rnd(2)) {
			slay(w);
			kills++;
		}
	}
	atomic_store(&shared->stop, 1);

	/* No more kills: every waiter gets its turn, and all end */
	progress = 0;
	since = now();
	while (reap() && !history->stuck) {
		if (shared->progress != progress) {
			progress = shared->progress;
			since = now();
		}
		if (now() - since > STILL) {
			history->stuck = true;
			for (__u32 i = 0; i < ARRAY_SIZE(workers); i++)
				if (workers[i].pid)
					slay(&workers[i]);
		}
		nap(5 * MSEC);
	}
	atomic_store(&shared->alone, 1);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	memset(workers, 0, sizeof(workers));

	/* Reports the last abandonment and revocation, if there was one */
	for (__u8 i = 0; i < PERMANENT; i++) {
		struct lock *lock = &history->lock[i];

		take_turn(&f[i]);
		do_close(&f[i]);
		if (look(fd[i]).holder.token || look(fd[i]).waiters)
			history->stuck = true;
		lock->after = counters_now(fd[i], i);
		newest_token[i] += lock->after.count[ACQUIRED] -
				   lock->before.count[ACQUIRED];
		close(fd[i]);
		for (int k = 0; k < COUNTS; k++)
			totals[i > 0][k] += lock->after.count[k] -
					    lock->before.count[k];
	}
	stop_monitors();
	for (__u8 i = 0; i < PERMANENT; i++)
		count_events(&history->lock[i]);
	history->end = now();
	moves[FROZEN] += frozen;
	moves[HELD_BOTH] += atomic_exchange(&shared->held_both, 0);
	moves[FAILED] += atomic_exchange(&shared->timed_out, 0);
	moves[EXPIRED] += atomic_exchange(&shared->expired, 0);

	total_records += history->records;
	total_processes += history->processes;
	total_kills += kills;
	for (__u32 i = 0; i < history->records; i++) {
		total_lost += history->record[i].begin &&
			      !history->record[i].end;
		if (history->record[i].end)
			count_moves(&history->record[i]);
	}
}

static void print_record(FILE *to, const struct history *h, __u32 i)
{
	static const char *const kinds[] = {
		[OPEN] = "open", [CLOSE] = "close", [FORK] = "fork",
		[SEND] = "send", [RECEIVE] = "receive", [ACQUIRE] = "acquire",
		[REACQUIRE] = "reacquire", [FLOCK] = "flock",
		[RELEASE] = "release", [UNLOCK] = "unlock",
		[REVOKE] = "revoke",
		[STATUS] = "status", [LOOK] = "look", [POLL] = "poll",
		[CREATE] = "create", [DELETE] = "delete",
	};
	const struct record *r = &h->record[i];

	fprintf(to, "%u p%u a%u f%u %s%s%s%s %lld..%lld ret %d timeout %lld left %lld ticket %llu left %llu lease %llu token %llu result %u; signals %u %u, stops %u to %u; saw %llu since %lld job %u%s%s%s expires %lld; %u wait; events %#x of %#x\n",
		i, h->actor[r->actor].process, r->actor, r->file,
		kinds[r->kind], r->async ? " (async)" : "",
		r->renews ? " (renews)" : "",
		r->keeps_job ? " (keeps)" : "", (__s64)r->begin,
		(__s64)r->end, r->ret, r->timeout_ns, r->left_ns, r->ticket,
		r->left_ticket, r->lease_ns, r->token, r->result,
		r->after[RESTARTS] - r->before[RESTARTS],
		r->after[FAILS] - r->before[FAILS], r->stops_before,
		r->stops_after, r->holder.token, (__s64)r->holder.since_ns,
		r->holder.job, r->holder.unfetched ? " unfetched" : "",
		r->holder.leased ? " leased" : "",
		r->holder.revoking ? " revoking" : "", r->holder.expires_ns,
		r->waiters, r->events, r->wanted);
}

/* Prints the calls that a verdict names, and all others on their files */
static void print_named(const struct history *h, const char *why)
{
	bool *named = calloc(h->files, sizeof(*named));
	unsigned long i;
	char *after;

	if (!named)
		die("no memory");
	while (*why) {
		i = strtoul(why, &after, 10);
		if (after == why) {
			why++;
			continue;
		}
		/* Other numbers are larger, as a rule */
		if (i < h->records && h->record[i].file)
			named[h->record[i].file] = true;
		why = after;
	}
	for (i = 0; i < h->records; i++) {
		if (!named[h->record[i].file])
			continue;
		printf("# ");
		print_record(stdout, h, i);
	}
	free(named);
}

/* Prints what the verdict is about, and writes all calls on that lock to a file */
static void print_history(const struct verdict *v)
{
	struct history *h = history_of(history, v->lock);
	const char *path = getenv("TLOCK_CHAOS_LOG");
	FILE *log = path ? fopen(path, "w") : NULL;

	print_named(h, v->why);
	for (__u32 i = 0; log && i < h->records; i++)
		print_record(log, h, i);
	if (log)
		fclose(log);
	free(h);
}

static void *share(size_t size)
{
	void *m = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (m == MAP_FAILED)
		die("no shared memory");
	return m;
}

/* Whether enough happened: none of it is rare, except in a single epoch */
static bool fought(void)
{
	/* Events that were lost are not judged, and a lock can be too busy */
	bool all = total_lost && total_kills && lossless > 3 * lossy;

	for (int i = 0; i < COUNTS; i++)
		all = all && totals[0][i] && totals[1][i];
	for (int i = 0; i < MOVES; i++)
		all = all && moves[i];
	return all;
}

static bool test_history(__s64 duration, __s64 more)
{
	__s64 until = now() + duration, latest = until + more;
	__s64 judged = 0, at;
	bool expedited = read_number(EXPEDITED);
	struct verdict v;
	char path[40];
	int fd;

	history = share(sizeof(*history) +
			CAPACITY * sizeof(struct record));
	shared = share(sizeof(*shared));
	for (__u8 i = 0; i < PERMANENT; i++)
		events[i] = share(EVENTS_CAPACITY * sizeof(struct event));
	/* Orphans of killed processes become our children */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (__u8 i = 0; i < PERMANENT; i++) {
		if (i && lock_create(own_name(i)))
			die("cannot create %s", names[i]);
		fd = open(path_of(path, i), O_RDWR | O_CLOEXEC);
		if (fd < 0)
			die("cannot open %s", path);
		/* This call reports an abandonment from before the test */
		newest_token[i] = take(fd, "chaos");
		release(fd);
		close(fd);
	}
	if (!cgroup_create(CGROUP))
		die("no cgroups");
	if (write_text(EXPEDITED, "1"))
		die("cannot write to %s", EXPEDITED);

	do {
		epoch++;
		run_epoch();
		at = now();
		v = judge_locks(history);
		judged += now() - at;
		if (v.rule) {
			printf("# epoch %u, lock %u broke the rule \"%s\": %s\n",
			       epoch, v.lock, rule_names[v.rule], v.why);
			print_history(&v);
			break;
		}
		/* On a slow machine, little happens in an epoch */
	} while (now() < until || (now() < latest && !fought()));
	write_text(EXPEDITED, expedited ? "1" : "0");
	cgroup_remove(CGROUP);
	for (__u8 i = 1; i < PERMANENT; i++)
		if (lock_delete(own_name(i)))
			die("cannot delete %s", names[i]);
	printf("# seed %lu: %u epochs, %lu calls (%lu without an end), %lu processes, %lu kills, judged in %lld ms\n",
	       seed, epoch, total_records, total_lost, total_processes,
	       total_kills, judged / MSEC);
	for (int k = 0; k < 2; k++) {
		printf("#%s", k ? " other locks:" : "");
		for (int i = 0; i < COUNTS; i++)
			printf(" %s %lu", count_names[i], totals[k][i]);
		printf("\n");
	}
	printf("# %lu events; without a loss: %lu times, with one: %lu\n",
	       total_events, lossless, lossy);
	printf("#");
	for (int i = 0; i < MOVES; i++)
		printf("%s %s %lu", i ? "," : "", move_names[i], moves[i]);
	printf("\n");
	return !v.rule;
}

int main(int argc, char **argv)
{
	struct timespec ts;
	__s64 duration = 30 * SEC, more = GO_ON;
	char name[80];
	bool ok;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (argc > 1) {
		duration = atoll(argv[1]) * SEC;
		more = 0;
	}
	seed = argc > 2 ? strtoul(argv[2], NULL, 0) :
			  (ts.tv_nsec ^ ts.tv_sec) % 1000000;
	setlinebuf(stdout);
	ksft_print_header();
	ksft_set_plan(doctored_tests + 2);
	for (unsigned int i = 0; i < doctored_tests; i++) {
		ok = test_judge(i, name, sizeof(name));
		ksft_test_result(ok, "%s\n", name);
	}
	ok = test_history(duration, more);
	ksft_test_result(ok, "history\n");
	ksft_test_result(fought(), "fight\n");
	ksft_finished();
}
