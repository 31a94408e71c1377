// SPDX-License-Identifier: GPL-2.0-only
/*
 * A fuzzer: threads of two processes use locks in senseless ways, all at the
 * same time, and create and delete some of them. First it runs the cases of
 * fuzz/corpus, and checks the results that they list. Then it runs random cases,
 * and random changes to those of the corpus, until the time is over.
 *
 * usage: fuzz [SECONDS [SEED [CASES]]]
 *        fuzz --late
 *
 * Random cases run for SECONDS, by default for TLOCK_FUZZ_SECONDS or 10. The
 * same SEED makes the same random cases, but the order in which threads run is
 * not repeated. With CASES, a file like the corpus, only the cases in it are
 * run, repeatedly, and their results are not compared with those that they
 * list. A case that breaks a rule is printed in the format of such a file: see
 * fuzz.h.
 *
 *	scripts/vm --kernel debug --timeout 900 -- build/selftests/fuzz 600
 *
 * With --late, only the cases of the corpus are run, each of them once for each
 * of its operations, before which the thread sleeps for a while. A case that
 * breaks a rule then depends on how fast its threads are. This takes minutes.
 *
 *	scripts/vm --timeout 1200 -- build/selftests/fuzz --late
 *
 * Rules for each call: its errno is one that the ABI allows, as far as the
 * thread can know; it does not time out early; what it writes is consistent.
 * More is known of a file that only one thread uses: whether it holds the
 * lock, in which case no other thread may find that it holds it, or has a
 * request that can be resumed or fetched; and so what poll(2) and fdinfo say. If
 * it has a lease, or somebody calls TLOCK_IOC_REVOKE, it may have been revoked.
 * After each case the lock is free, and its
 * counters have grown by what the calls returned. And nothing hangs: after some
 * milliseconds all files are released, so all waits end without a signal.
 *
 * The locks that a case creates are named fuzz... After the case, all of them
 * can be deleted. What they counted is not compared, as it is gone with them.
 *
 * Nothing else may use the first lock meanwhile: it would be counted.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"
#include "helpers.h"
#include "kselftest.h"

/* All files are released when nothing has happened for this long, */
#define QUIET		(4 * MSEC)
/* or when the case has run for this long */
#define CASE_TIME	(100 * MSEC)
/* If nothing happens for this long, the case hangs */
#define STILL		(30 * SEC)
/* Limit of the descriptors that the processes of a case use */
#define MAX_FDS		128
/* The number of grants of a case that are remembered */
#define MAX_GRANTS	16384

/* The cases that are always run */
__asm__(".pushsection .rodata\n"
	"fuzz_corpus: .incbin \"fuzz/corpus\"\n"
	".byte 0\n"
	".popsection");
extern const char fuzz_corpus[];

/* In memory that all processes share */
static struct shared {
	/* Results must be as listed, and the case ends by itself */
	bool strict;
	atomic_int stop;
	/* Grows with each call that ends */
	atomic_int progress;
	atomic_int met;
	/* It is being killed, or ends with threads that hold the lock */
	atomic_int dying[PROCESSES];
	atomic_int pid[PROCESSES];
	struct seat {
		atomic_int tid, at, times;
		atomic_bool leased;	/* what it claims may be revoked */
	} seat[MAX_THREADS];
	/* The thread that certainly holds the lock, plus 1: see claim() */
	atomic_int claim[LOCKS];
	/* Creations without deletions; calls that create or delete */
	atomic_int created[LOCKS];
	atomic_int names_begun, names_ended;

	/* What calls returned, to compare with the lock's counters */
	__u64 first_token;
	atomic_uchar returned_token[MAX_GRANTS];	/* of enum mark */
	atomic_int begun, ended;	/* acquires and reacquires */
	atomic_int grants;		/* tokens that were returned */
	atomic_int unknown;		/* calls that may have been grants */
	atomic_int faults, canceled;	/* likewise */
	/* Asynchronous requests; outcomes fetched: grants and failures */
	atomic_int started, fetched, missed;
	atomic_int timed_out, interrupted, abandoned;
	atomic_int acquires_contended, yields, reacquires;
	/* Calls of REVOKE, on any lock, and that returned ESTALE; leases */
	atomic_int revokes, stale, leases;
	atomic_int revoked;		/* grants that reported a revocation */
	atomic_int signals;		/* sent, including kills */
	atomic_ullong ticket;		/* the last that a call returned */

	atomic_int broken;
	char why[400];

	/* Over the whole run */
	atomic_ulong results[VERBS][OUTCOMES];
} *shared;

/* What is known of a grant of the first lock */
enum mark {
	RETURNED = 1, RETURNED_AGAIN = 2,
	TAKEN = 4,			/* revoked, and REVOKE has returned */
};

static const struct fuzz_case *running;

/* The operation that comes late, if any, and by how much */
static int late_thread = -1, late_op;
#define LATE		(40 * MSEC)

/* Of this process, except common: opened before the processes start */
static int common[SLOTS];
static atomic_int slot[SLOTS];
static int eye = -1;		/* a file to look with */
static int comm_fd;
static int process = -1;
static atomic_int threads_left;

/*
 * What a thread knows of its own file: it holds, or its request is away, or it
 * has an asynchronous request
 */
enum held { NO, YES, AWAY, ASKED, UNKNOWN };

static struct thread {
	int number;
	int own;		/* its own file's descriptor */
	int own_flags;
	enum lock own_lock;
	enum held held;
	bool decided;		/* ASKED: so poll(2) said */
	bool leased;		/* its grant or request may have a lease */
	__u64 token;		/* of its grant of the first lock; 0: unknown */
	bool monitors;		/* its own file does */
	__u64 seq;		/* of the last event that it read there */
	/* Of its last request that was interrupted or is asynchronous */
	__u64 ticket;
	bool ticket_of_own;
	enum lock ticket_lock;
	__s64 timeout, since;
	volatile bool leaving;
	struct tlock_status before, own_before;
	__u64 newest[LOCKS];	/* token of its own grants */
} threads[MAX_THREADS];
static _Thread_local struct thread *me;

/* Below 4 GiB, so that 32-bit calls reach it */
static char *arena;
static long page;
#define READONLY_PAGE	(arena)
#define NONE_PAGE	(arena + page)
#define RACING_PAGE	(arena + 2 * page)
#define OWN_PAGE(t)	(arena + (4 + 2 * (t)) * page)
#define ARENA_PAGES	(4 + 2 * MAX_THREADS)
/* What the racing page can be filled with */
static int contents_fd;

static int attribute_fd[SYSFS_FILES];
static int new_fd, delete_fd;

static const char *const devices[LOCKS] = {
	DEVICE, DEVICE "-fuzz-a", DEVICE "-fuzz-b",
};

__attribute__((format(printf, 1, 2)))
static void broken(const char *format, ...)
{
	va_list args;

	/* Only the first is reported */
	if (atomic_fetch_add(&shared->broken, 1))
		return;
	va_start(args, format);
	vsnprintf(shared->why, sizeof(shared->why), format, args);
	va_end(args);
	atomic_store(&shared->stop, 1);
}

static void nap(__s64 ns)
{
	struct timespec ts = { .tv_sec = ns / SEC, .tv_nsec = ns % SEC };

	if (ns)
		nanosleep(&ts, NULL);
	else
		sched_yield();
}

/*** The thread that knows that it holds the lock ***/

/*
 * A thread that was granted the lock on its own file claims it, until just
 * before it may lose it. The claim of a dying thread passes on, and so does one
 * of a grant that may have been revoked.
 */
static void claim(void)
{
	int mine = me->number + 1, who = 0;
	atomic_int *claim = &shared->claim[me->own_lock];

	atomic_store(&shared->seat[me->number].leased, me->leased);
	if (atomic_compare_exchange_strong(claim, &who, mine))
		return;
	/* Revoked as soon as it was granted: this claim is the older one */
	if (me->leased)
		return;
	if (atomic_load(&shared->dying[running->thread[who - 1].process]) ||
	    atomic_load(&shared->revokes) ||
	    atomic_load(&shared->seat[who - 1].leased)) {
		atomic_store(claim, mine);
		return;
	}
	/* After a stop, holders are released without their knowledge */
	if (!atomic_load(&shared->stop))
		broken("threads %d and %d both hold the lock", who - 1,
		       me->number);
}

/* Whether its grant, or the one that it asks for, may be revoked */
static bool may_be_revoked(void)
{
	return me->leased || atomic_load(&shared->revokes);
}

/* Whether a grant of the first lock was certainly revoked before now */
static bool was_taken(__u64 token)
{
	__u64 index = token - shared->first_token;

	return token >= shared->first_token && index < MAX_GRANTS &&
	       atomic_load(&shared->returned_token[index]) & TAKEN;
}

/* Whether this thread is yet to learn that its grant was revoked */
static bool is_stale(void)
{
	return me->held == YES && was_taken(me->token);
}

static void unclaim(void)
{
	int mine = me->number + 1;

	atomic_compare_exchange_strong(&shared->claim[me->own_lock], &mine, 0);
}

/*** Results ***/

static __u32 can(int err)
{
	return 1U << outcome_of(-err);
}

/* Adds the result of a call on a file that may not be open */
static bool cannot_use(int file, __u32 *allowed)
{
	if (file != OWN) {
		/* Any thread may have closed it, or opened it in another way */
		*allowed |= can(EBADF);
		return false;
	}
	if (me->own >= 0 && !(me->own_flags & O_PATH))
		return false;
	*allowed = can(EBADF);
	return true;
}

static int fd_of(int file)
{
	return file == OWN ? me->own : atomic_load(&slot[file]);
}

static int result_of(long ret)
{
	return ret < 0 ? -errno : 0;
}

/*** Arguments ***/

/* Usable bytes of an argument there; 0: it cannot be used at all */
static size_t room(enum at at)
{
	switch (at) {
	case GOOD ... UNALIGNED:
	case RACING:
		return sizeof(struct tlock_acquire);
	case SHORT:
		return offsetof(struct tlock_acquire, job) + 8;
	case CUT:
		return 8;
	default:
		return 0;
	}
}

static void *place(enum at at)
{
	char *own = OWN_PAGE(me->number);

	switch (at) {
	case GOOD:
		return own;
	case UNALIGNED:
		return own + 1021;
	case SHORT:
	case CUT:
		return own + page - room(at);
	case RACING:
		return RACING_PAGE + 64;
	case READONLY:
		return READONLY_PAGE;
	case NONE:
		return NONE_PAGE;
	case NOWHERE:
		return NULL;
	case KERNEL:
		return (void *)0xffffffff81000000UL;
	case NONCANONICAL:
		return (void *)0x0000800000000000UL;
	case TOP:
		break;
	}
	return (void *)-1UL;
}

static __u64 lease_of(enum ask what)
{
	return what == BRIEF ? 50 * USEC : what == LEASE ? 3600 * SEC :
	       what == ENDLESS ? ~0ULL : 0;
}

static void fill(struct tlock_acquire *arg, __s64 timeout, enum ask what)
{
	*arg = ask(timeout, "fuzz");
	switch (what) {
	case PLAIN:
		break;
	case EMPTY:
		*arg->job = 0;
		break;
	case LONGEST:
		memset(arg->job, 'x', sizeof(arg->job) - 1);
		arg->job[sizeof(arg->job) - 1] = 0;
		break;
	case NOT_UTF8:
		strcpy(arg->job, "\xff\x9b\xc3\xc2\xa0\xc2");
		break;
	case UNTERMINATED:
		memset(arg->job, 'x', sizeof(arg->job));
		break;
	case NEWLINE:
		arg->job[3] = '\n';
		break;
	case DEL:
		arg->job[0] = 0x7f;
		break;
	case C1:
		strcpy(arg->job + 2, "\xc2\x9b");
		break;
	case FLAG:
		arg->flags = TLOCK_RENEW << 1;
		break;
	case FLAGS:
		arg->flags = ~0U;
		break;
	case BRIEF ... ENDLESS:
		arg->lease_ns = lease_of(what);
		break;
	case RESERVED:
		arg->reserved[0] = 1ULL << 63;
		break;
	case LAST_RESERVED:
		arg->reserved[ARRAY_SIZE(arg->reserved) - 1] = 1;
		break;
	}
}

/* Without control characters, and padded with NULs */
static bool text_is_sane(const char *text, size_t size, bool any_byte)
{
	size_t len = strnlen(text, size);

	if (len == size)
		return false;
	for (size_t i = 0; i < size; i++) {
		unsigned char c = text[i], next = i < len ? text[i + 1] : 0;

		if (i >= len && c)
			return false;
		if (i < len && !any_byte &&
		    (c < 0x20 || c == 0x7f ||
		     (c == 0xc2 && next >= 0x80 && next <= 0x9f)))
			return false;
	}
	return true;
}

static void judge_holder(const struct tlock_holder *h)
{
	if (!text_is_sane(h->job, sizeof(h->job), false) ||
	    !text_is_sane(h->comm, sizeof(h->comm), true))
		broken("a holder's job or comm is malformed");
	if (h->pid < 0 || h->uid)
		broken("the holder is pid %d, uid %u", h->pid, h->uid);
	if ((__s64)h->since_ns > now())
		broken("the lock was granted in the future: %llu", h->since_ns);
	if (h->flags & ~(TLOCK_UNFETCHED | TLOCK_LEASED | TLOCK_REVOKING) ||
	    h->reserved)
		broken("the holder's flags are %#x", h->flags);
	if (h->flags & (TLOCK_LEASED | TLOCK_REVOKING) ?
	    h->expires_ns < h->since_ns : h->expires_ns)
		broken("a grant since %lld, with flags %#x, expires at %lld",
		       h->since_ns, h->flags, h->expires_ns);
	if (!h->token && (h->since_ns || h->pid || h->flags || *h->job ||
			  *h->comm))
		broken("the lock is free, but the holder is not all 0");
}

/*** Operations: each returns its result, and the results that are allowed ***/

static long ioctl_32(int fd, unsigned int cmd, unsigned long arg)
{
#ifdef __x86_64__
	long ret;

	/* Older kernels clear r8 to r11 */
	__asm__ volatile("int $0x80" : "=a" (ret)
			 : "a" (54), "b" ((long)fd), "c" ((long)cmd), "d" (arg)
			 : "memory", "r8", "r9", "r10", "r11");
	if (ret < 0)
		errno = -ret;
	return ret < 0 ? -1 : ret;
#else
	return ioctl(fd, cmd, arg);
#endif
}

static int call_ioctl(int file, unsigned int cmd, void *arg, bool compat)
{
	int fd = fd_of(file);

	return result_of(compat ? ioctl_32(fd, cmd, (unsigned long)arg) :
				  ioctl(fd, cmd, arg));
}

/* Notes a grant that was returned */
static void note_grant(const struct tlock_acquire *arg, bool again)
{
	__u64 index = arg->token - shared->first_token;
	unsigned char how = again ? RETURNED_AGAIN : RETURNED, before;

	if (arg->token < shared->first_token) {
		broken("token %llu is old", arg->token);
	} else if (index >= MAX_GRANTS) {
		atomic_fetch_add(&shared->unknown, 1);
	} else {
		before = atomic_fetch_or(&shared->returned_token[index], how);
		/* Another thread may have reacquired it before we got here */
		if (before & RETURNED && !again)
			broken("token %llu was returned twice", arg->token);
		if (!(before & ~TAKEN))
			atomic_fetch_add(&shared->grants, 1);
	}
	if (arg->result & ~(TLOCK_ABANDONED | TLOCK_REVOKED))
		broken("the result is %#x", arg->result);
	if (arg->result & TLOCK_ABANDONED)
		atomic_fetch_add(&shared->abandoned, 1);
	if (arg->result & TLOCK_REVOKED)
		atomic_fetch_add(&shared->revoked, 1);
}

/* A call that acquires or reacquires */
struct take {
	bool again, async, mine;
	bool renews;
	bool stale;		/* it must return ESTALE */
	bool uncounted;		/* on a lock that is not the first */
	enum at at;
	__s64 timeout;		/* that was passed */
	__u64 ticket;		/* that was passed */
	/* If it is known which request it is: its timeout and beginning */
	bool known;
	__s64 request_timeout, since;
};

/* Checks the time left, the holder and the ticket in the argument */
static void judge_take(const struct take *t, const struct tlock_acquire *arg,
		       int ret)
{
	__s64 left = arg->timeout_ns;
	__u64 ticket = arg->ticket;

	if (left != t->timeout && (left < 0 || (t->known &&
						left > t->request_timeout)))
		broken("%lld of %lld ns are left", left, t->timeout);
	if (ret == -ETIMEDOUT) {
		/* A request without a deadline leaves the timeout alone */
		if (left > 0 && !(t->ticket && left == t->timeout))
			broken("it timed out with %lld ns left", left);
		if (t->known && now() - t->since < t->request_timeout)
			broken("it timed out %lld ns early",
			       t->request_timeout - (now() - t->since));
		if (!arg->holder.token)
			broken("it timed out, and nobody had the lock");
		judge_holder(&arg->holder);
	} else if (!poisoned(&arg->holder, sizeof(arg->holder))) {
		broken("it wrote a holder, but did not time out");
	}
	/*
	 * A call that was interrupted and restarted, with its ticket, may not
	 * have found the file or its request any more.
	 */
	if (!t->mine && !t->ticket && (ret == -EBADF || ret == -EBUSY))
		return;
	if (!ret || ret == -ETIMEDOUT || ret == -ECANCELED || ret == -ESTALE ?
	    ticket :
	    ret == -EINTR || ret == -EINPROGRESS ?
	    !ticket || (t->ticket && ticket != t->ticket) :
	    ticket != t->ticket)
		broken("result %d, and ticket %llu became %llu", ret, t->ticket,
		       ticket);
}

static void note_take(const struct take *t, const struct tlock_acquire *arg,
		      int ret)
{
	/* Other threads may have put a ticket in the racing page */
	bool new = !t->ticket && t->at != RACING;

	if (t->uncounted)
		return;
	switch (ret) {
	case 0:
		if (t->at == RACING)
			atomic_fetch_add(&shared->unknown, 1);
		else
			note_grant(arg, t->again && new);
		if (t->async && t->ticket)
			atomic_fetch_add(&shared->fetched, 1);
		break;
	case -ETIMEDOUT:
		atomic_fetch_add(&shared->timed_out, 1);
		if (t->async && t->ticket)
			atomic_fetch_add(&shared->missed, 1);
		if (new)
			atomic_fetch_add(t->again ? &shared->yields :
					 &shared->acquires_contended, 1);
		break;
	case -EINPROGRESS:
		if (!t->ticket)
			atomic_fetch_add(&shared->started, 1);
		if (new)
			atomic_fetch_add(t->again ? &shared->yields :
					 &shared->acquires_contended, 1);
		break;
	case -EINTR:
		if (!new)
			break;
		atomic_fetch_add(&shared->interrupted, 1);
		if (t->again)
			atomic_fetch_add(&shared->yields, 1);
		break;
	case -ECANCELED:
		atomic_fetch_add(&shared->canceled, 1);
		break;
	case -ESTALE:
		atomic_fetch_add(&shared->stale, 1);
		break;
	case -EFAULT:
		/* If nothing can be read, nothing is granted */
		if (t->at < CUT)
			atomic_fetch_add(&shared->faults, 1);
		break;
	}
	atomic_fetch_add(&shared->ended, 1);
}

/* A lock's tokens grow, also if it was deleted and created again */
static void judge_newest(const struct take *t, __u64 token)
{
	__u64 *newest = &me->newest[me->own_lock];

	if (token < *newest || (token == *newest && (!t->again || t->ticket)))
		broken("token %llu after %llu", token, *newest);
	*newest = token;
}

/* Updates what a thread knows of its own file after a call */
static void know_after(const struct take *t, int ret, enum held before)
{
	switch (ret) {
	case 0:
		me->held = YES;
		claim();
		break;
	case -EDEADLK:
		me->held = YES;
		break;
	case -ETIMEDOUT:
		me->held = NO;
		break;
	case -EINTR:
		me->held = AWAY;
		break;
	case -EINPROGRESS:
		me->held = ASKED;
		if (before != ASKED)
			me->decided = false;
		break;
	case -EPERM:
		/* A request that is away stays away */
		if (before == YES)
			me->held = NO;
		break;
	case -ESTALE:
		me->held = NO;
		break;
	case -ECANCELED:
		/* The ticket was wrong, or all files are being released */
		if (atomic_load(&shared->stop))
			me->held = UNKNOWN;
		break;
	case -EFAULT:
		/*
		 * A grant that cannot be copied out is undone. What the file
		 * had before may have been lost by then, or not.
		 */
		if (t->at < CUT && before != NO)
			me->held = UNKNOWN;
		break;
	}
}

static __u64 pick_ticket(enum ticket which)
{
	__u64 ticket = 0;

	switch (which) {
	case NEW:
		return 0;
	case THREADS_OWN:
		ticket = me->ticket;
		break;
	case FOREIGN:
		ticket = atomic_load(&shared->ticket);
		break;
	case GARBAGE:
		break;
	}
	return ticket ?: ~0ULL;
}

/* The results allowed for a request that is made, goes on, or is fetched */
static __u32 outcomes_of_request(const struct take *t)
{
	__u32 outcomes = can(0) | can(ETIMEDOUT);

	/* The racing page may have any flag, and a ticket */
	if (t->at == RACING)
		return outcomes | can(EINTR) | can(EINPROGRESS);
	if (t->renews)
		return can(0);
	if (!t->async)
		outcomes |= can(EINTR);
	else if (t->ticket)
		outcomes |= can(EINPROGRESS);
	else if (t->timeout)
		outcomes = can(0) | can(EINPROGRESS);
	if (t->known && t->request_timeout < 0)
		outcomes &= ~can(ETIMEDOUT);
	if (t->known && !t->request_timeout)
		outcomes &= ~can(EINTR);
	return outcomes;
}

/* The results allowed for a ticket on a thread's own file */
static __u32 outcomes_of_ticket(const struct take *t, enum held held)
{
	__u32 outcomes = outcomes_of_request(t);

	if ((held != AWAY && held != ASKED) || t->ticket == ~0ULL)
		return can(ECANCELED);
	/* The ticket may be the file's, though this thread does not know it */
	if (!t->known)
		return outcomes | can(ECANCELED) | can(EINVAL);
	if (!me->ticket_of_own)
		return can(ECANCELED);
	if (t->async != (held == ASKED))
		return can(EINVAL);
	if (me->decided)
		outcomes &= ~can(EINPROGRESS);
	return outcomes;
}

/* The results allowed if both the file and the argument can be used */
static __u32 outcomes_of(const struct take *t, enum held held)
{
	__u32 outcomes = outcomes_of_request(t), stale = 0;

	/* Anything is possible: others use it, or release it now */
	if (!t->mine || held == UNKNOWN || atomic_load(&shared->stop))
		return outcomes | can(EBUSY) | can(ECANCELED) | can(ESTALE) |
		       (t->ticket ? can(EINVAL) : 0) |
		       (t->again ? can(EPERM) : can(EDEADLK));
	if (t->stale)
		return can(ESTALE);
	/* A grant that it has, or one that it waits for, may be revoked */
	if (may_be_revoked() && (held != NO || t->at == RACING ||
				 (t->timeout && !t->async)))
		stale = can(ESTALE);
	if (t->ticket)
		return outcomes_of_ticket(t, held) | stale;
	if (t->at == RACING && (held == AWAY || held == ASKED))
		return outcomes | can(EBUSY) | can(EPERM) | can(ECANCELED) |
		       stale;
	if (held == ASKED)
		outcomes = can(EBUSY);
	else if (t->again && held != YES)
		outcomes = can(EPERM);
	else if (!t->again && held == YES)
		outcomes = can(EDEADLK);
	if (t->at == RACING)
		outcomes |= can(ECANCELED);
	return outcomes | stale;
}

static bool own_is_writable(void)
{
	return (me->own_flags & O_ACCMODE) == O_RDWR ||
	       (me->own_flags & O_ACCMODE) == O_WRONLY;
}

/* The result for a file that is not; it may outlive its lock */
static __u32 not_writable(void)
{
	return can(EBADF) | (me->own_lock ? can(ENODEV) : 0);
}

/* ACQUIRE, REACQUIRE, RENEW, START, START_AGAIN or FETCH */
static int do_take(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	bool fetch = op->verb == FETCH, again = op->verb == REACQUIRE ||
						op->verb == RENEW ||
						op->verb == START_AGAIN;
	enum ask what = fetch ? PLAIN : operand(op, 2);
	enum lock lock = file == OWN ? me->own_lock : FIRST;
	struct take t = {
		.again = again,
		.renews = op->verb == RENEW,
		.async = op->verb >= START,
		.mine = file == OWN,
		.uncounted = lock,
		.at = operand(op, fetch ? 1 : 3),
		.timeout = fetch ? 0 : operand(op, 1),
		.ticket = pick_ticket(operand(op, fetch ? 3 : 5)),
		.since = now(),
	};
	struct tlock_acquire arg, *uarg = place(t.at);
	enum held held = me->held;
	bool invalid = what > LAST_VALID;
	__u32 outcomes;
	int ret;

	/* Others change the racing page: the ticket there is unknown */
	if (t.at == RACING)
		t.ticket = 0;
	t.known = !t.ticket ||
		  (t.ticket == me->ticket && lock == me->ticket_lock);
	t.request_timeout = t.timeout;
	if (t.ticket && t.known) {
		t.request_timeout = me->timeout;
		t.since = me->since;
	}
	fill(&arg, t.timeout, what);
	arg.ticket = t.ticket;
	if (t.async)
		arg.flags |= TLOCK_ASYNC;
	if (t.renews) {
		arg.flags |= TLOCK_RENEW;
		invalid |= t.ticket;
	}
	if (t.at != RACING)
		memcpy(uarg, &arg, room(t.at));

	if (t.mine) {
		t.stale = is_stale();
		unclaim();
		/* Others may have put a lease there */
		if (!t.ticket)
			me->leased = (held != NO && me->leased) ||
				     lease_of(what) || t.at == RACING;
	}
	if (lease_of(what) || t.at == RACING)
		atomic_fetch_add(&shared->leases, 1);
	if (!t.uncounted)
		atomic_fetch_add(&shared->begun, 1);
	if (again)
		atomic_fetch_add(&shared->reacquires, 1);
	ret = call_ioctl(file, again ? TLOCK_IOC_REACQUIRE : TLOCK_IOC_ACQUIRE,
			 uarg, operand(op, fetch ? 2 : 4));
	if (t.at != RACING)
		memcpy(&arg, uarg, room(t.at));
	if (t.at == GOOD || t.at == UNALIGNED)
		judge_take(&t, &arg, ret);
	if (t.mine && t.at != RACING && !ret)
		judge_newest(&t, arg.token);
	note_take(&t, &arg, ret);

	outcomes = outcomes_of(&t, held);
	/* Errors of the argument come before those of the lock */
	if (t.at >= CUT)
		outcomes = can(EFAULT);
	else if (t.at == RACING)
		outcomes |= can(EFAULT) | can(EINVAL);
	else if (t.at == SHORT)
		outcomes |= can(EFAULT) | (invalid ? can(EINVAL) : 0);
	else if (invalid)
		outcomes = can(EINVAL);
	/* Errors of the file come first */
	if (!cannot_use(file, &outcomes) && t.mine && !own_is_writable())
		outcomes = not_writable();
	*allowed = outcomes;

	if (t.mine) {
		if (!ret)
			me->token = t.at == RACING || lock ? 0 : arg.token;
		know_after(&t, ret, held);
	}
	if (ret == -EINTR || ret == -EINPROGRESS) {
		/* If it does not know the deadline, it forgets the ticket */
		me->ticket = t.known && t.at != RACING ? arg.ticket : 0;
		me->ticket_of_own = t.mine;
		me->ticket_lock = lock;
		me->timeout = t.request_timeout;
		me->since = t.since;
		atomic_store(&shared->ticket, me->ticket);
	}
	return ret;
}

static int do_flock(const struct op *op, __u32 *allowed)
{
	static const int operations[] = {
		[EXCLUSIVE] = LOCK_EX, [TRY] = LOCK_EX | LOCK_NB,
		[UNLOCK] = LOCK_UN, [SHARED] = LOCK_SH,
	};
	enum file file = operand(op, 0);
	enum how how = operand(op, 1);
	bool mine = file == OWN, counted = !mine || !me->own_lock, sure;
	bool stale = mine && is_stale();
	int ret;

	if (mine && how != SHARED)
		unclaim();
	atomic_fetch_add(&shared->begun, counted);
	ret = result_of(flock(fd_of(file), operations[how]));
	atomic_fetch_add(&shared->ended, counted);

	sure = mine && me->held != UNKNOWN && !atomic_load(&shared->stop);
	*allowed = can(0);
	if (how == EXCLUSIVE)
		*allowed |= can(EINTR);
	else if (how == TRY)
		*allowed |= can(EAGAIN);
	else if (how == SHARED)
		*allowed = can(EOPNOTSUPP);
	if (how == EXCLUSIVE || how == TRY) {
		if (!sure)
			*allowed |= can(EBUSY) | can(ECANCELED);
		else if (me->held == YES)
			*allowed = can(0);
		else if (me->held == ASKED)
			*allowed = can(EBUSY);
		if (!ret)
			atomic_fetch_add(&shared->unknown, counted);
		if (ret == -EAGAIN) {
			atomic_fetch_add(&shared->timed_out, counted);
			atomic_fetch_add(&shared->acquires_contended, counted);
		}
		if (ret == -ECANCELED)
			atomic_fetch_add(&shared->canceled, counted);
	}
	if (how != SHARED) {
		if (!sure || (may_be_revoked() &&
			      (me->held != NO || how == EXCLUSIVE)))
			*allowed |= can(ESTALE);
		if (sure && stale)
			*allowed = can(ESTALE);
		if (ret == -ESTALE)
			atomic_fetch_add(&shared->stale, counted);
	}
	if (!cannot_use(file, allowed) && mine && how != UNLOCK &&
	    (how == SHARED ? (me->own_flags & O_ACCMODE) == O_ACCMODE :
			     !own_is_writable()))
		*allowed = how == SHARED ? can(EBADF) : not_writable();

	if (!mine)
		return ret;
	if (how == UNLOCK && !ret) {
		me->held = NO;
	} else if (how != SHARED && !ret) {
		/* Its token is not known, unless it held before */
		if (me->held != YES)
			me->token = me->leased = 0;
		me->held = YES;
		claim();
	} else if (ret == -EINTR) {
		/* It is not known which request is away now */
		me->held = AWAY;
		me->ticket = 0;
	} else if (ret == -EAGAIN || ret == -ESTALE) {
		me->held = NO;
	} else if (ret == -ECANCELED) {
		me->held = UNKNOWN;
	}
	return ret;
}

static int do_release(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	bool stale = file == OWN && is_stale();
	int ret;

	if (file == OWN)
		unclaim();
	ret = call_ioctl(file, TLOCK_IOC_RELEASE, NULL, operand(op, 1));
	*allowed = can(0) | can(EPERM) | can(ESTALE);
	if (file == OWN && !atomic_load(&shared->stop)) {
		if (me->held == YES || me->held == AWAY || me->held == ASKED)
			*allowed = can(0) |
				   (may_be_revoked() ? can(ESTALE) : 0);
		if (me->held == NO)
			*allowed = can(EPERM);
		if (stale)
			*allowed = can(ESTALE);
	}
	if (ret == -ESTALE && (file != OWN || !me->own_lock))
		atomic_fetch_add(&shared->stale, 1);
	if (file == OWN && (!ret || ret == -EPERM || ret == -ESTALE))
		me->held = NO;
	cannot_use(file, allowed);
	return ret;
}

static void judge_status(const struct tlock_status *st,
			 struct tlock_status *before, enum lock lock)
{
	if (strcmp(st->name, devices[lock] + strlen("/dev/")))
		broken("lock %d is named %s", lock, st->name);
	judge_holder(&st->holder);
	if (st->waiters && !st->holder.token)
		broken("%u wait for a free lock", st->waiters);
	if (!zeroed(st->reserved, sizeof(st->reserved)))
		broken("a reserved word is not 0");
	if (st->holder.token && before->holder.token &&
	    (st->holder.token > before->holder.token) !=
	    (st->acquired > before->acquired))
		broken("token %llu, then %llu, after %llu and %llu grants",
		       before->holder.token, st->holder.token, before->acquired,
		       st->acquired);
	if (st->wait_ns_max > st->wait_ns_total ||
	    st->hold_ns_max > st->hold_ns_total)
		broken("the longest wait or hold is longer than the total");
	if (before->acquired > st->acquired ||
	    before->contended > st->contended ||
	    before->timed_out > st->timed_out ||
	    before->interrupted > st->interrupted ||
	    before->abandoned > st->abandoned ||
	    before->revoked > st->revoked ||
	    before->yielded > st->yielded ||
	    before->wait_ns_total > st->wait_ns_total ||
	    before->wait_ns_max > st->wait_ns_max ||
	    before->hold_ns_total > st->hold_ns_total ||
	    before->hold_ns_max > st->hold_ns_max)
		broken("a counter counts down");
	*before = *st;
}

static int do_status(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	enum at at = operand(op, 1);
	struct tlock_status *ust = place(at), st;
	int ret;

	if (at == GOOD || at == UNALIGNED)
		memset(ust, POISON, sizeof(*ust));
	ret = call_ioctl(file, TLOCK_IOC_STATUS, ust, operand(op, 2));
	if (!ret && (at == GOOD || at == UNALIGNED)) {
		memcpy(&st, ust, sizeof(st));
		if (file == OWN)
			judge_status(&st, &me->own_before, me->own_lock);
		else
			judge_status(&st, &me->before, FIRST);
	}
	*allowed = at == SHORT || at >= CUT ? can(EFAULT) : can(0);
	if (at == RACING)
		*allowed |= can(EFAULT);
	if (file == OWN && me->own_lock && !own_is_writable())
		*allowed |= can(ENODEV);
	cannot_use(file, allowed);
	return ret;
}

static int do_revoke(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	enum whose whose = operand(op, 1);
	enum field field = operand(op, 3);
	enum at at = operand(op, 4);
	struct tlock_revoke arg = { .grace_ns = operand(op, 2) };
	void *uarg = place(at);
	struct tlock_status st;
	__u64 index;
	int ret;

	/* Only a thread's own file can be another lock's */
	if (file != OWN || !me->own_lock || status(me->own, &st))
		st = look(eye);
	if (whose != NOBODYS)
		arg.token = st.holder.token - (whose == FORMER);
	if (field == REVOKE_FLAG)
		arg.flags = 1;
	else if (field == REVOKE_RESERVED)
		arg.reserved[ARRAY_SIZE(arg.reserved) - 1] = 1;
	if (at == GOOD || at == UNALIGNED || at == SHORT)
		memcpy(uarg, &arg, sizeof(arg));

	atomic_fetch_add(&shared->revokes, 1);
	ret = call_ioctl(file, TLOCK_IOC_REVOKE, uarg, operand(op, 5));
	*allowed = can(ESTALE) | (whose == HOLDERS && arg.token ? can(0) : 0);
	if (field)
		*allowed = can(EINVAL);
	/* What there is to read there is another argument: it has no such token */
	if (at == RACING || at == READONLY)
		*allowed = can(ESTALE) | can(EINVAL) |
			   (at == RACING ? can(EFAULT) : 0);
	else if (at >= CUT)
		*allowed = can(EFAULT);
	if (!cannot_use(file, allowed) && file == OWN && !own_is_writable())
		*allowed = not_writable();

	index = arg.token - shared->first_token;
	if (!ret && !arg.grace_ns && (file != OWN || !me->own_lock) &&
	    arg.token >= shared->first_token && index < MAX_GRANTS)
		atomic_fetch_or(&shared->returned_token[index], TAKEN);
	return ret;
}

/* Asks who waits, one after the other, but not for ever */
static int do_waiter(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	enum at at = operand(op, 1);
	bool usable = at == GOOD || at == UNALIGNED;
	struct tlock_waiter *uwaiter = place(at), w = {};
	int ret, first = 1;
	__u64 before;

	for (int i = 0; i < 10; i++) {
		if (usable)
			memcpy(uwaiter, &w, sizeof(w));
		ret = call_ioctl(file, TLOCK_IOC_WAITER, uwaiter,
				 operand(op, 2));
		if (first > 0)
			first = ret;
		if (ret || !usable)
			break;
		before = w.ticket;
		memcpy(&w, uwaiter, sizeof(w));
		if (w.ticket <= before)
			broken("ticket %llu after %llu", w.ticket, before);
		if (w.flags & ~TLOCK_ASYNC ||
		    !zeroed(w.reserved, sizeof(w.reserved)) ||
		    w.comm[sizeof(w.comm) - 1] || w.job[sizeof(w.job) - 1])
			broken("waiter with flags %#x, %.64s", w.flags, w.job);
	}
	*allowed = can(0) | can(ENOENT);
	if (!usable)
		*allowed |= can(EINVAL) | can(EFAULT);
	if (at == SHORT || (at >= CUT && at != READONLY))
		*allowed = can(EFAULT);
	if (file == OWN && me->own_lock && !own_is_writable())
		*allowed |= can(ENODEV);
	cannot_use(file, allowed);
	return first;
}

static int do_monitor(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	int ret = call_ioctl(file, TLOCK_IOC_MONITOR, NULL, operand(op, 1));

	*allowed = can(0) | can(EBUSY) | can(EBADF);
	if (file == OWN && own_is_writable())
		*allowed = can(EBADF);
	else if (file == OWN)
		*allowed = can(me->monitors ? EBUSY : 0) |
			   (me->own_lock ? can(ENODEV) : 0);
	if (!cannot_use(file, allowed) && file == OWN && !ret) {
		me->monitors = true;
		me->seq = 0;
	}
	return ret;
}

/*
 * Checks an event, and that it comes after the one with the number @seq, or 0.
 * If the file is not @mine, other threads may have read those in between.
 */
static void judge_event(const struct tlock_event *e, __u64 seq, bool mine)
{
	bool token = e->token, ticket = e->ticket, deleted;

	deleted = e->kind == TLOCK_EVENT_DELETED;
	if (e->size != sizeof(*e) || !e->kind || e->kind > TLOCK_EVENT_REVOKED)
		broken("event %llu has size %u and kind %u", e->seq, e->size,
		       e->kind);
	if (seq && (e->seq < seq + 1 + e->lost ||
		    (mine && e->seq > seq + 1 + e->lost)))
		broken("event %llu after %llu, and %u were lost", e->seq, seq,
		       e->lost);
	if (e->flags & ~(TLOCK_UNFETCHED | TLOCK_LEASED | TLOCK_REVOKING) ||
	    (e->flags && !token) || (e->flags & TLOCK_UNFETCHED && !ticket) ||
	    e->comm[sizeof(e->comm) - 1] || e->job[sizeof(e->job) - 1] ||
	    (deleted ? e->pid || *e->comm || *e->job : !*e->comm))
		broken("event %llu: flags %#x, pid %d, %.16s, %.64s", e->seq,
		       e->flags, e->pid, e->comm, e->job);
	switch (e->kind) {
	case TLOCK_EVENT_WAITING:
	case TLOCK_EVENT_INTERRUPTED:
	case TLOCK_EVENT_WITHDRAWN:
		if (token || !ticket)
			break;
		return;
	case TLOCK_EVENT_ACQUIRED:
	case TLOCK_EVENT_RELEASED:
	case TLOCK_EVENT_YIELDED:
	case TLOCK_EVENT_ABANDONED:
	case TLOCK_EVENT_REVOKED:
		if (!token)
			break;
		return;
	case TLOCK_EVENT_DELETED:
		if (token || ticket)
			break;
		return;
	default:
		return;
	}
	broken("event %llu of kind %u: token %llu, ticket %llu", e->seq, e->kind,
	       e->token, e->ticket);
}

/* Reads a few events, without waiting */
static int do_events(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	enum at at = operand(op, 1);
	struct tlock_event *uevents = place(at), e[3];
	bool mine = file == OWN, usable = at == GOOD || at == UNALIGNED;
	int fd = fd_of(file);
	__u64 seq = 0;
	ssize_t size;

	*allowed = can(0) | can(EAGAIN) | can(EINVAL);
	if (mine)
		*allowed = me->monitors ? can(0) | can(EAGAIN) : can(EINVAL);
	/* It cannot be read */
	if (mine && (me->own_flags & O_ACCMODE) != O_RDONLY &&
	    (me->own_flags & O_ACCMODE) != O_RDWR)
		*allowed = can(EBADF);
	else if (!usable)
		*allowed |= can(EFAULT);
	cannot_use(file, allowed);
	/* Nobody makes it wait again */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	size = read(fd, uevents, sizeof(e));
	if (size < 0)
		return -errno;
	if (size % sizeof(*e))
		broken("%zd bytes of events", size);
	if (!usable) {
		/* Others may have changed what it read */
		if (mine)
			me->seq = 0;
		return 0;
	}
	memcpy(e, uevents, size);
	for (int i = 0; i < size / sizeof(*e); i++) {
		judge_event(&e[i], seq ?: mine ? me->seq : 0, mine);
		seq = e[i].seq;
	}
	if (mine && size)
		me->seq = seq;
	return 0;
}

static int do_ioctl(const struct op *op, __u32 *allowed)
{
	/* FIONBIO, FIOASYNC, FIONCLEX, FIOCLEX, FIOQSIZE, FIGETBSZ, FIBMAP */
	static const unsigned int vfs[] = {
		0x5421, 0x5452, 0x5450, 0x5451, 0x5460, 2, 1, 0, 0xffffffff,
	};
	enum file file = operand(op, 0);
	enum verb base = operand(op, 1);
	unsigned int n = operand(op, 3), cmd;

	cmd = base == ACQUIRE ? TLOCK_IOC_ACQUIRE :
	      base == RELEASE ? TLOCK_IOC_RELEASE :
	      base == REACQUIRE ? TLOCK_IOC_REACQUIRE : TLOCK_IOC_STATUS;
	*allowed = can(ENOTTY);
	switch ((enum mangle)operand(op, 2)) {
	case TYPE:
		cmd ^= n << _IOC_TYPESHIFT;
		break;
	case NR:
		cmd ^= n << _IOC_NRSHIFT;
		break;
	case SIZE:
		cmd ^= n << _IOC_SIZESHIFT;
		break;
	case DIRECTION:
		cmd ^= n % 4 << _IOC_DIRSHIFT;
		break;
	case VFS:
		cmd = vfs[n % ARRAY_SIZE(vfs)];
		/* What the VFS returns is not for us to check */
		*allowed |= can(0) | can(EINVAL) | can(EFAULT);
		break;
	}
	/* The result may be one of our own commands */
	if (cmd == TLOCK_IOC_ACQUIRE || cmd == TLOCK_IOC_RELEASE ||
	    cmd == TLOCK_IOC_REACQUIRE || cmd == TLOCK_IOC_STATUS ||
	    cmd == TLOCK_IOC_WAITER || cmd == TLOCK_IOC_REVOKE ||
	    cmd == TLOCK_IOC_MONITOR || cmd == TLOCK_IOC_GATE)
		return -ENOTTY;
	cannot_use(file, allowed);
	return call_ioctl(file, cmd, place(GOOD), operand(op, 4));
}

static int look_at_fdinfo(int fd, bool mine)
{
	static const char state[] = "\ntlock-state:\t";
	static const char *const states[] = {
		"idle\n", "holding\ntlock-token:\t",
		"waiting\ntlock-ticket:\t", "away\ntlock-ticket:\t",
		"decided\ntlock-ticket:\t", "revoked\n",
	};
	/* Indexes of the states that the thread's own file may be in */
	static const unsigned int of_own[] = {
		[NO] = 1 << 0, [YES] = 1 << 1, [AWAY] = 1 << 3,
		[ASKED] = 1 << 2 | 1 << 4, [UNKNOWN] = ~0U,
	};
	unsigned int allowed = of_own[mine ? me->held : UNKNOWN];
	char path[40], text[400];
	const char *found;
	ssize_t len;
	int info;

	bool stale = mine && is_stale();

	if (mine && me->held == ASKED && me->decided)
		allowed = 1 << 4;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return -1;
	len = read(info, text, sizeof(text) - 1);
	close(info);
	if (len < 0)
		return -1;
	text[len] = 0;
	found = strstr(text, state);
	if (!found)
		return 0;
	found += strlen(state);
	if (mine && may_be_revoked() && (me->held == YES || me->held == ASKED))
		allowed |= 1 << 5;
	if (stale)
		allowed = 1 << 5;
	if (atomic_load(&shared->stop))
		allowed = ~0U;
	for (int i = 0; i < ARRAY_SIZE(states); i++)
		if (allowed >> i & 1 &&
		    !strncmp(found, states[i], strlen(states[i])))
			return 0;
	broken("fdinfo says %s", found);
	return 0;
}

/* Opens the same device file again, even if it has no name any more */
static int reopen(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, O_RDWR);
	if (fd >= 0)
		close(fd);
	return fd;
}

static int do_call(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	struct flock lock = { .l_type = F_WRLCK };
	struct pollfd pfd = { .events = POLLIN | POLLOUT };
	int fd = fd_of(file), ret = -1;
	struct stat st;
	char byte = 0;
	void *m;

	*allowed = can(0) | can(EBADF);
	switch ((enum other)operand(op, 1)) {
	case READ:
		*allowed = can(EINVAL) | can(EBADF);
		ret = read(fd, &byte, 1);
		break;
	case PREAD:
		*allowed = can(ESPIPE) | can(EBADF);
		ret = pread(fd, &byte, 1, 0);
		break;
	case WRITE:
		*allowed = can(EINVAL) | can(EBADF);
		ret = write(fd, &byte, 1);
		break;
	case LSEEK:
		*allowed = can(ESPIPE) | can(EBADF);
		ret = lseek(fd, 1, SEEK_SET);
		break;
	case MMAP:
		*allowed = can(ENODEV) | can(EACCES) | can(EBADF);
		m = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
		ret = m == MAP_FAILED ? -1 : 0;
		break;
	case POLL:
		*allowed = can(0) | can(EINTR);
		pfd.fd = fd;
		ret = poll(&pfd, 1, 0);
		break;
	case SETLK:
		*allowed = can(EOPNOTSUPP) | can(EBADF);
		ret = fcntl(fd, F_SETLK, &lock);
		break;
	case OFD_SETLK:
		*allowed = can(EOPNOTSUPP) | can(EBADF);
		ret = fcntl(fd, F_OFD_SETLK, &lock);
		break;
	case NONBLOCK:
		ret = fcntl(fd, F_SETFL, O_NONBLOCK);
		break;
	case ASYNC:
		/* As others may be about to read: see do_events() */
		ret = fcntl(fd, F_SETFL, O_ASYNC | O_APPEND | O_NONBLOCK);
		break;
	case DUPFD:
		ret = fcntl(fd, F_DUPFD, 100);
		if (ret >= 0)
			close(ret);
		break;
	case FSYNC:
		*allowed = can(EINVAL) | can(EBADF);
		ret = fsync(fd);
		break;
	case FTRUNCATE:
		*allowed = can(EINVAL) | can(EBADF);
		ret = ftruncate(fd, 1);
		break;
	case FSTAT:
		ret = fstat(fd, &st);
		break;
	case FDINFO:
		/* It was closed meanwhile, or opened with O_PATH */
		*allowed |= can(ENOENT);
		ret = look_at_fdinfo(fd, file == OWN);
		break;
	case REOPEN:
		/* It was closed, or its lock was deleted */
		*allowed = can(0) | can(ENOENT) | can(ENXIO);
		ret = reopen(fd);
		break;
	}
	return result_of(ret);
}

/*
 * Checks what poll(2) said of a thread's own file; @stale: its grant was revoked
 * before
 */
static void judge_events(short events, bool stale)
{
	const short wanted = POLLIN | POLLPRI;
	bool out = events & POLLOUT;

	if (me->own_flags & O_PATH) {
		if (events != POLLNVAL)
			broken("poll says %#x of a path", events);
		return;
	}
	if (!own_is_writable()) {
		if (events & ~((me->own_lock ? POLLHUP : 0) |
			       (me->monitors ? POLLIN : 0)))
			broken("poll says %#x of a reader", events);
		return;
	}
	if (events & ~(POLLOUT | POLLERR | wanted) ||
	    (events & POLLERR ? !(events & POLLPRI) :
	     events & wanted && (events & wanted) != wanted))
		broken("poll says %#x", events);
	if (me->held == UNKNOWN || atomic_load(&shared->stop))
		return;
	if (events & POLLERR && (!may_be_revoked() ||
				 (me->held != YES && me->held != ASKED)))
		broken("poll says %#x, but it lost nothing", events);
	if (stale && !(events & POLLERR))
		broken("poll says %#x, but its grant was revoked", events);
	/* It may be decided and revoked at this very moment */
	if (!out && (me->held != ASKED || me->decided ||
		     (events && !(events & POLLERR))))
		broken("poll says %#x, but nothing is undecided", events);
	if (events & wanted && me->held != YES && me->held != ASKED)
		broken("poll says %#x, but it does not hold the lock", events);
	if (me->held == ASKED && out)
		me->decided = true;
}

static int do_watch(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	enum watch what = operand(op, 1);
	struct pollfd pfd = { .fd = fd_of(file) };
	bool stale = file == OWN && is_stale();
	int limit = shared->strict ? STILL / MSEC : 1, ret;

	pfd.events = what == DECIDED ? POLLOUT :
		     what == WANTED ? POLLIN | POLLPRI :
		     what == LOST ? 0 : POLLOUT | POLLIN | POLLPRI;
	/* Its decision, or its release at the end, must wake the thread */
	if (what == DECIDED && file == OWN && me->held == ASKED)
		limit = -1;
	if (what == GLANCE)
		limit = 0;
	*allowed = can(0) | can(EINTR);
	/* poll(2) ignores a negative descriptor */
	if (pfd.fd < 0) {
		*allowed = can(EBADF);
		return -EBADF;
	}
	ret = poll(&pfd, 1, limit);
	if (ret < 0)
		return -errno;
	/* If it asks for one event, it does not learn of the others */
	if (file == OWN && what == GLANCE)
		judge_events(pfd.revents, stale);
	else if (file == OWN && what == DECIDED && me->held == ASKED &&
		 pfd.revents & POLLOUT)
		me->decided = true;
	return what != GLANCE && shared->strict && !ret ? -ETIMEDOUT : 0;
}

static int do_open(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	enum lock lock = file == OWN ? operand(op, 2) : FIRST;
	int flags = operand(op, 1), fd;

	/* It would create a regular file there */
	if (lock)
		flags &= ~(O_CREAT | O_EXCL);
	*allowed = can(0);
	if (flags & O_EXCL)
		*allowed = can(EEXIST);
	else if ((flags & O_DIRECTORY) == O_DIRECTORY)
		*allowed = can(ENOTDIR);
	else if (flags & O_DIRECT)
		*allowed = can(EINVAL);
	if (lock)
		*allowed |= can(ENOENT) | can(ENXIO);
	if (file == OWN && me->own >= 0) {
		unclaim();
		close(me->own);
		me->own = -1;
	}
	fd = open(devices[lock], flags, 0600);
	if (file == OWN) {
		me->own = fd;
		me->monitors = false;
		me->own_flags = flags;
		me->own_lock = lock;
		memset(&me->own_before, 0, sizeof(me->own_before));
		me->held = NO;
		me->leased = false;
	} else if (fd >= 0) {
		int old = atomic_exchange(&slot[file], fd);

		if (old >= 0)
			close(old);
	}
	return result_of(fd);
}

static int do_close(const struct op *op, __u32 *allowed)
{
	enum file file = operand(op, 0);
	int fd;

	*allowed = can(0);
	if (file == OWN) {
		unclaim();
		fd = me->own;
		me->own = -1;
		me->held = NO;
	} else {
		fd = atomic_exchange(&slot[file], -1);
	}
	if (fd < 0)
		*allowed = can(EBADF);
	return result_of(close(fd));
}

static int do_dup(const struct op *op, __u32 *allowed)
{
	int fd = dup(fd_of(operand(op, 0)));

	*allowed = can(0) | can(EBADF);
	if (fd >= 0) {
		int old = atomic_exchange(&slot[operand(op, 1)], fd);

		if (old >= 0)
			close(old);
	}
	return result_of(fd);
}

static void look_at_attribute(int i)
{
	char text[4096];
	ssize_t len;

	/* Reading at offset 0 shows the present value */
	len = pread(attribute_fd[i], text, sizeof(text) - 1, 0);
	if (len < 1 || text[len - 1] != '\n') {
		broken("%s reads as %zd bytes", sysfs_files[i], len);
		return;
	}
	text[len - 1] = 0;
	if (strlen(text) != len - 1 || !text_is_sane(text, len, false))
		broken("%s is malformed", sysfs_files[i]);
	/* stats/waits has several numbers */
	if (i >= SYSFS_TEXTS && strspn(text, "0123456789 ") != len - 1)
		broken("%s is %s", sysfs_files[i], text);
	if (i >= SYSFS_TEXTS && !*text)
		broken("%s is empty", sysfs_files[i]);
}

/* Makes a name; returns its length */
static size_t make_name(enum name which, unsigned int number, char *name)
{
	static const char bytes[] = "aZ09#+.:=@_-aZ09-.~/ \n\x80%\\";
	__u64 random = number + 1;
	size_t len = 0;

	switch (which) {
	case NAME_A:
	case NAME_B:
		return sprintf(name, "%s", devices[which] + sizeof(DEVICE));
	case RANDOM:
		len = sprintf(name, "fuzz");
		for (int i = rnd(&random, 5); i >= 0; i--)
			name[len++] = bytes[rnd(&random, sizeof(bytes))];
		return len;
	case LONGEST_NAME:
		return sprintf(name, "fuzz%0117d", 0);
	case TOO_LONG:
		return sprintf(name, "fuzz%0118d", 0);
	case NO_NAME:
		return sprintf(name, "\n");
	case NAME_OF_FIRST:
		return sprintf(name, "tlock");
	case NAME_OF_DEVICE:
		return sprintf(name, "tlock-fuzz");
	case SLASH:
		return sprintf(name, "fuzz/../fuzz");
	case DOTS:
		return sprintf(name, "..");
	case DASH:
		return sprintf(name, "-fuzz");
	case NEWLINES:
		return sprintf(name, "fuzz\n\n");
	}
	return 0;
}

static bool is_name(enum name which, const char *name, size_t len)
{
	/* One newline at the end is not part of it */
	if (which == RANDOM && name[len - 1] == '\n')
		len--;
	for (size_t i = 0; which == RANDOM && i < len; i++)
		if (!isascii(name[i]) || (!isalnum(name[i]) &&
					  !strchr("#+-.:=@_", name[i])) ||
		    !name[i])
			return false;
	return which <= LAST_VALID_NAME;
}

/* CREATE or DELETE */
static int do_name(const struct op *op, __u32 *allowed)
{
	int which = operand(op, 0);
	bool creates = op->verb == CREATE;
	char name[140];
	size_t len = make_name(which, operand(op, 1), name);
	int ret;

	atomic_fetch_add(&shared->names_begun, 1);
	ret = result_of(pwrite(creates ? new_fd : delete_fd, name, len, 0));
	if (!ret && which < LOCKS)
		atomic_fetch_add(&shared->created[which], creates ? 1 : -1);
	atomic_fetch_add(&shared->names_ended, 1);

	if (!is_name(which, name, len))
		*allowed = can(EINVAL);
	else if (me->own >= 0 && which < LOCKS && me->own_lock == which &&
		 own_is_writable() && !(me->own_flags & O_PATH))
		*allowed = creates ? can(EEXIST) : can(EBUSY);
	else
		*allowed = can(0) | (creates ? can(EEXIST) :
				     can(ENOENT) | can(EBUSY));
	return ret;
}

/* Deletes what is left of a case: nobody has it open any more */
static void delete_all(void)
{
	static const char prefix[] = "tlock-fuzz";
	DIR *dir = opendir(CLASS);
	struct dirent *entry;
	int left[LOCKS] = { 0 };

	if (!dir)
		die("no " CLASS);
	while ((entry = readdir(dir))) {
		const char *name = entry->d_name + strlen("tlock-");

		if (strncmp(entry->d_name, prefix, strlen(prefix)))
			continue;
		for (int i = A; i < LOCKS; i++)
			left[i] += !strcmp(name, devices[i] + sizeof(DEVICE));
		if (pwrite(delete_fd, name, strlen(name), 0) < 0)
			broken("all is closed, but %s cannot be deleted: %s",
			       name, outcome_name(outcome_of(-errno)));
	}
	closedir(dir);
	for (int i = A; i < LOCKS; i++)
		if (shared->names_begun == shared->names_ended &&
		    left[i] != shared->created[i])
			broken("lock %d was created %d times more than deleted, and there are %d",
			       i, shared->created[i], left[i]);
}

static void change_memory(enum memory how)
{
	switch (how) {
	case MAKE_NONE:
		mprotect(RACING_PAGE, page, PROT_NONE);
		break;
	case MAKE_READABLE:
		mprotect(RACING_PAGE, page, PROT_READ);
		break;
	case MAKE_WRITABLE:
		mprotect(RACING_PAGE, page, PROT_READ | PROT_WRITE);
		break;
	case MAKE_GONE:
		munmap(RACING_PAGE, page);
		break;
	case MAKE_FRESH:
		/* All zeros: an acquire that only tries */
		mmap(RACING_PAGE, page, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	default:
		/* Written by the kernel: a fault is only an error */
		if (pread(contents_fd, RACING_PAGE + 64,
			  sizeof(struct tlock_acquire),
			  (how - MAKE_TRY) * sizeof(struct tlock_acquire)) < 0)
			errno = 0;
	}
}

static void send_to(int target, enum signals how)
{
	static const int signals[] = {
		[FAIL] = SIGUSR1, [RESTART] = SIGUSR2, [QUIT] = SIGHUP,
	};
	int tid, pid;

	if (target >= running->threads)
		return;
	tid = atomic_load(&shared->seat[target].tid);
	pid = atomic_load(&shared->pid[running->thread[target].process]);
	if (!tid || !pid)
		return;
	atomic_fetch_add(&shared->signals, 1);
	syscall(SYS_tgkill, pid, tid, signals[how]);
}

static void freeze_other(void)
{
	int pid = atomic_load(&shared->pid[!process]);

	if (!pid)
		return;
	atomic_fetch_add(&shared->signals, 1);
	kill(pid, SIGSTOP);
	nap(300 * USEC);
	kill(pid, SIGCONT);
}

static int take_once(enum file file, __s64 timeout, bool async)
{
	struct tlock_acquire arg = ask(timeout, "child");
	struct take t = { .at = GOOD, .timeout = timeout, .async = async };
	int ret;

	arg.flags = async ? TLOCK_ASYNC : 0;
	atomic_fetch_add(&shared->begun, 1);
	ret = acquire(fd_of(file), &arg);
	note_take(&t, &arg, ret);
	if (ret == -EINPROGRESS)
		atomic_store(&shared->ticket, arg.ticket);
	return ret;
}

/*
 * Not the C library's fork(): a thread that quits could hold one of its locks.
 * The child's end sends no SIGCHLD: if one came while the parent blocks all
 * signals, as a thread that exits does, it would not be ignored, and would
 * interrupt the wait of another thread.
 */
static pid_t fork_child(void)
{
	return syscall(SYS_clone, 0, 0, 0, 0, 0);
}

static void have_child(enum file file, enum child what)
{
	pid_t pid = fork_child();

	if (pid < 0)
		die("no child");
	if (pid) {
		if (what == KILLED) {
			nap(300 * USEC);
			atomic_fetch_add(&shared->signals, 1);
			kill(pid, SIGKILL);
		}
		return;
	}
	switch (what) {
	case LEAVE:
		break;
	case LINGER:
		nap(MSEC);
		break;
	case TAKE:
		take_once(file, 50 * USEC, false);
		break;
	case STARTS:
		/* Its process ends, and the file stays open in its parent */
		take_once(file, 3600 * SEC, true);
		break;
	case RELEASES:
		release(fd_of(file));
		break;
	case CLOSES:
		close(fd_of(file));
		nap(MSEC);
		break;
	case KILLED:
		take_once(file, 3 * MSEC, false);
		nap(3 * MSEC);
		break;
	}
	_exit(0);
}

static void end(enum end how)
{
	int other = atomic_load(&shared->pid[!process]);

	/* A signal will end the calls that wait */
	atomic_fetch_add(&shared->signals, 1);
	if (how == KILL_OTHER) {
		atomic_store(&shared->dying[!process], 1);
		if (other)
			kill(other, SIGKILL);
		return;
	}
	atomic_store(&shared->dying[process], 1);
	if (how == EXEC) {
		/* These may still come from a timer or the other process */
		signal(SIGALRM, SIG_IGN);
		signal(SIGUSR1, SIG_IGN);
		signal(SIGUSR2, SIG_IGN);
		signal(SIGHUP, SIG_IGN);
		execl("/proc/self/exe", "fuzz", "--gone", NULL);
	} else if (how == KILL) {
		kill(getpid(), SIGKILL);
	}
	_exit(0);
}

/* Waits for other threads: in strict cases as long as it takes */
static int await(bool (*fn)(__s64), __s64 value)
{
	__s64 until = now() + (shared->strict ? STILL : MSEC);

	while (!fn(value)) {
		if (atomic_load(&shared->stop) || now() > until)
			return shared->strict ? -ETIMEDOUT : 0;
		nap(50 * USEC);
	}
	return 0;
}

static bool in_state(__s64 state)
{
	struct tlock_status st = look(eye);

	judge_status(&st, &me->before, FIRST);
	if (state == AWAIT_FREE)
		return !st.holder.token;
	if (state == AWAIT_HELD)
		return st.holder.token;
	return st.waiters == state;
}

static bool all_met(__s64 arrived)
{
	return atomic_load(&shared->met) >= arrived;
}

static int run_op(const struct op *op, __u32 *allowed)
{
	static const char *const names[] = {
		"fuzz", "\n\x1b[2J", "\xc2\x9b\x7f", "\xff\xfe\xc2",
	};
	struct itimerval timer = { 0 };
	int n;

	*allowed = can(0);
	switch ((enum verb)op->verb) {
	case OPEN:
		return do_open(op, allowed);
	case CLOSE:
		return do_close(op, allowed);
	case DUP:
		return do_dup(op, allowed);
	case ACQUIRE:
	case REACQUIRE:
	case RENEW:
	case START:
	case START_AGAIN:
	case FETCH:
		return do_take(op, allowed);
	case RELEASE:
		return do_release(op, allowed);
	case FLOCK:
		return do_flock(op, allowed);
	case STATUS:
		return do_status(op, allowed);
	case REVOKE:
		return do_revoke(op, allowed);
	case IOCTL:
		return do_ioctl(op, allowed);
	case CALL:
		return do_call(op, allowed);
	case WAITER:
		return do_waiter(op, allowed);
	case MONITOR:
		return do_monitor(op, allowed);
	case EVENTS:
		return do_events(op, allowed);
	case LOOK:
		look_at_attribute(operand(op, 0));
		break;
	case CREATE:
	case DELETE:
		return do_name(op, allowed);
	case COMM:
		if (write(comm_fd, names[op->arg[0]],
			  strlen(names[op->arg[0]])) < 0)
			die("cannot write comm");
		break;
	case MEMORY:
		change_memory(operand(op, 0));
		break;
	case SIGNAL:
		send_to(operand(op, 0), operand(op, 1));
		break;
	case ALARM:
		atomic_fetch_add(&shared->signals, 1);
		timer.it_value.tv_usec = operand(op, 0) / USEC + 1;
		setitimer(ITIMER_REAL, &timer, NULL);
		break;
	case FREEZE:
		freeze_other();
		break;
	case FORK:
		have_child(operand(op, 0), operand(op, 1));
		break;
	case END:
		end(operand(op, 0));
		break;
	case NAP:
		nap(operand(op, 0));
		break;
	case AWAIT:
		return await(in_state, operand(op, 0));
	case MEET:
		n = operand(op, 0);
		return await(all_met,
			     (atomic_fetch_add(&shared->met, 1) / n + 1) * n);
	case WATCH:
		return do_watch(op, allowed);
	case VERBS:
		break;
	}
	return 0;
}

/*** Threads and processes ***/

static void finish(void)
{
	me->leaving = true;
	if (me->own >= 0) {
		unclaim();
		close(me->own);
	}
	atomic_store(&shared->seat[me->number].tid, 0);
	atomic_fetch_add(&shared->progress, 1);
	atomic_fetch_sub(&threads_left, 1);
}

static void *run_program(void *data)
{
	const struct program *p;
	struct seat *seat;
	int ret;

	me = data;
	atomic_fetch_add(&shared->progress, 1);
	p = &running->thread[me->number];
	seat = &shared->seat[me->number];
	atomic_store(&seat->tid, syscall(SYS_gettid));
	for (int times = 0; times < p->times; times++) {
		for (int i = 0; i < p->ops; i++) {
			__u32 allowed;

			if (atomic_load(&shared->stop))
				goto stop;
			atomic_store(&seat->times, times);
			atomic_store(&seat->at, i);
			if (me->number == late_thread && i == late_op)
				nap(LATE);
			ret = run_op(&p->op[i], &allowed);
			atomic_fetch_add(&shared->progress, 1);
			atomic_fetch_add(&shared->results[p->op[i].verb]
							 [outcome_of(ret)], 1);
			if (!(allowed & can(-ret)) ||
			    (shared->strict && p->op[i].expect != ANY &&
			     p->op[i].expect != ret) ||
			    (shared->strict && p->op[i].verb >= AWAIT &&
			     ret == -ETIMEDOUT))
				broken("thread %d, operation %d (%s), time %d: %s is wrong",
				       me->number, i,
				       verb_names[p->op[i].verb], times,
				       outcome_name(outcome_of(ret)));
		}
	}
stop:
	finish();
	return NULL;
}

static void on_signal(int signal)
{
}

/* Ends a thread in the middle of what it is doing; its file stays open */
static void on_quit(int signal)
{
	if (!me || me->leaving)
		return;
	me->leaving = true;
	atomic_store(&shared->seat[me->number].tid, 0);
	atomic_fetch_add(&shared->progress, 1);
	atomic_fetch_sub(&threads_left, 1);
	syscall(SYS_exit, 0);
}

static void handle(int signal, void (*fn)(int), int flags)
{
	struct sigaction action = { .sa_handler = fn, .sa_flags = flags };

	sigaction(signal, &action, NULL);
}

/* Every descriptor: a thread that quit may have one that is in no slot */
static void release_all(void)
{
	for (int fd = 0; fd < MAX_FDS; fd++)
		release(fd);
}

static void run_process(int number)
{
	pthread_t thread;

	process = number;
	/* The parent does this too, but it may not have run yet */
	atomic_store(&shared->pid[number], getpid());
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	handle(SIGUSR1, on_signal, 0);
	handle(SIGUSR2, on_signal, SA_RESTART);
	handle(SIGALRM, on_signal, 0);
	handle(SIGHUP, on_quit, 0);
	comm_fd = open("/proc/self/comm", O_WRONLY | O_CLOEXEC);
	if (comm_fd < 0)
		die("no /proc/self/comm");
	for (int i = 0; i < SLOTS; i++)
		atomic_store(&slot[i], i < X ? common[i] : i < Z ? contender() :
			     -1);
	for (int t = 0; t < running->threads; t++) {
		if (running->thread[t].process != process)
			continue;
		threads[t] = (struct thread){
			.number = t,
			.own = open(DEVICE, O_RDWR),
			.own_flags = O_RDWR,
		};
		atomic_fetch_add(&threads_left, 1);
	}
	for (int t = 0; t < running->threads; t++) {
		if (running->thread[t].process != process)
			continue;
		errno = pthread_create(&thread, NULL, run_program, &threads[t]);
		/* No thread can be created while another one calls execve() */
		while (errno == EAGAIN && atomic_load(&shared->dying[process]))
			pause();
		if (errno)
			die("cannot start a thread");
	}
	while (atomic_load(&threads_left)) {
		nap(300 * USEC);
		/* Withdraws all requests, which ends all waits */
		if (atomic_load(&shared->stop))
			release_all();
	}
	while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
		;
	/* The exit also closes the files of threads that quit */
	atomic_store(&shared->dying[process], 1);
	_exit(0);
}

/*** Cases ***/

static void start(int number)
{
	pid_t pid = fork();

	if (pid < 0)
		die("no process");
	if (!pid)
		run_process(number);
	atomic_store(&shared->pid[number], pid);
}

/* Reaps children; returns whether processes are left */
static bool reap(void)
{
	int wstatus;
	pid_t pid;

	while ((pid = waitpid(-1, &wstatus, WNOHANG)) > 0) {
		for (int i = 0; i < PROCESSES; i++) {
			if (atomic_load(&shared->pid[i]) != pid)
				continue;
			atomic_store(&shared->pid[i], 0);
			if (wstatus && !(WIFSIGNALED(wstatus) &&
					 WTERMSIG(wstatus) == SIGKILL &&
					 atomic_load(&shared->dying[i])))
				broken("process %d ended with status %#x", i,
				       wstatus);
		}
	}
	return !pid;
}

static void signal_all(int signal)
{
	for (int i = 0; i < PROCESSES; i++) {
		pid_t pid = atomic_load(&shared->pid[i]);

		if (pid)
			kill(pid, signal);
	}
}

static void say_where(void)
{
	for (int t = 0; t < running->threads; t++)
		printf("# thread %d: tid %d, operation %d, time %d\n", t,
		       atomic_load(&shared->seat[t].tid),
		       atomic_load(&shared->seat[t].at),
		       atomic_load(&shared->seat[t].times));
}

static void wait_for_end(void)
{
	__s64 begun = now(), moved = begun;
	int progress = 0;

	while (reap()) {
		nap(200 * USEC);
		if (atomic_load(&shared->progress) != progress) {
			progress = atomic_load(&shared->progress);
			moved = now();
		}
		if (!shared->strict && (now() - begun > CASE_TIME ||
					(progress && now() - moved > QUIET)))
			atomic_store(&shared->stop, 1);
		/*
		 * For two processes that froze each other, and only if signals
		 * were sent: it would interrupt the waits of a process that is
		 * just starting a thread, which blocks all signals and so does
		 * not ignore this one.
		 */
		if (atomic_load(&shared->stop) && atomic_load(&shared->signals))
			signal_all(SIGCONT);
		if (now() - moved < STILL)
			continue;
		broken("the case hangs: %u wait for token %llu",
		       look(eye).waiters, look(eye).holder.token);
		say_where();
		for (int i = 0; i < PROCESSES; i++)
			atomic_store(&shared->dying[i], 1);
		signal_all(SIGKILL);
		moved = now();
	}
}

/* Checks that a counter has grown by @least to @most */
static void judge_growth(const char *name, __u64 grown, __s64 least,
			 __s64 most)
{
	if ((__s64)grown < least || (__s64)grown > most)
		broken("%s grew by %llu, not by %lld to %lld", name, grown,
		       least, most);
}

static void judge_end(const struct tlock_status *before, __s64 took)
{
	struct tlock_acquire arg = ask(0, "end");
	struct tlock_status st = look(eye);
	/* Calls whose results are not known */
	int lost = shared->begun - shared->ended;
	int maybe = lost + shared->faults + shared->canceled +
		    shared->unknown + shared->stale;
	/* Requests of which no grant was fetched, or no outcome at all */
	int ungranted = shared->started - shared->fetched;
	int unfetched = ungranted - shared->missed;
	const int many = 1 << 30;
	int fd = contender();

	if (st.holder.token || st.waiters)
		broken("all is closed, but token %llu holds the lock and %u wait",
		       st.holder.token, st.waiters);
#define GREW(_field, _least, _most) \
	judge_growth(#_field, st._field - before->_field, _least, _most)
	GREW(acquired, shared->grants, shared->grants + maybe + ungranted);
	GREW(timed_out, shared->timed_out,
	     shared->timed_out + shared->faults + lost + unfetched);
	GREW(contended, shared->acquires_contended, many);
	GREW(interrupted, shared->interrupted,
	     shared->signals || lost ? many : 0);
	GREW(yielded, shared->yields, shared->reacquires);
	/* Holds do not overlap */
	GREW(hold_ns_total, 0, took);
	GREW(hold_ns_max, 0, took);
	GREW(wait_ns_max, 0, took);

	if (acquire(fd, &arg)) {
		broken("all is closed, but the lock is not free");
	} else {
		if (arg.token < shared->first_token + shared->grants)
			broken("token %llu after %llu and %d grants", arg.token,
			       shared->first_token, shared->grants);
		/* Each abandonment is reported once, and each revocation */
		shared->abandoned += arg.result & TLOCK_ABANDONED;
		shared->revoked += !!(arg.result & TLOCK_REVOKED);
		GREW(abandoned, shared->abandoned,
		     shared->abandoned + lost + shared->unknown);
		/* If a holder that did not report one is revoked, two become one */
		GREW(revoked, shared->revoked,
		     shared->revokes || shared->leases ? many : 0);
	}
	if (release(fd))
		broken("a release fails");
	close(fd);
}

/* Returns whether all rules were kept */
static bool run_case(const struct fuzz_case *c, bool strict)
{
	struct tlock_status before;
	__s64 begun;
	int fd;

	memset(shared, 0, offsetof(struct shared, results));
	shared->strict = strict;
	running = c;
	fd = contender();
	shared->first_token = take(fd, "begin") + 1;
	release(fd);
	close(fd);
	before = look(eye);
	for (int i = 0; i < X; i++) {
		common[i] = open(DEVICE, i == READER ? O_RDONLY : O_RDWR);
		if (common[i] < 0)
			die("cannot open " DEVICE);
	}
	begun = now();
	for (int i = 0; i < PROCESSES; i++)
		for (int t = 0; t < c->threads; t++)
			if (c->thread[t].process == i) {
				start(i);
				break;
			}
	for (int i = 0; i < X; i++)
		close(common[i]);
	wait_for_end();
	judge_end(&before, now() - begun);
	if (shared->names_begun)
		delete_all();
	if (shared->broken) {
		printf("# %s\n", shared->why);
		print_case(stdout, "# ", c);
	}
	return !shared->broken;
}

/*** The whole run ***/

static void prepare(void)
{
	struct tlock_acquire contents[CONTENTS];
	int fd;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	page = sysconf(_SC_PAGESIZE);
#ifndef MAP_32BIT
#define MAP_32BIT 0
#endif
	arena = mmap(NULL, ARENA_PAGES * page, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	contents_fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (shared == MAP_FAILED || arena == MAP_FAILED || contents_fd < 0)
		die("no memory");

	fill(&contents[0], 0, PLAIN);
	fill(&contents[1], MSEC, NOT_UTF8);
	fill(&contents[2], FOREVER, EMPTY);
	fill(&contents[3], FOREVER, FLAG);
	fill(&contents[4], MSEC, UNTERMINATED);
	fill(&contents[5], MSEC, PLAIN);
	contents[5].flags = TLOCK_ASYNC;
	fill(&contents[6], MSEC, BRIEF);
	contents[6].flags = TLOCK_RENEW;
	fill(&contents[7], MSEC, BRIEF);
	if (write(contents_fd, contents, sizeof(contents)) != sizeof(contents))
		die("no memory");
	mprotect(READONLY_PAGE, page, PROT_READ | PROT_WRITE);
	fill((struct tlock_acquire *)READONLY_PAGE, FOREVER, PLAIN);
	mprotect(READONLY_PAGE, page, PROT_READ);
	mprotect(RACING_PAGE, page, PROT_READ | PROT_WRITE);
	change_memory(MAKE_TRY);
	for (int t = 0; t < MAX_THREADS; t++)
		mprotect(OWN_PAGE(t), page, PROT_READ | PROT_WRITE);

	for (size_t i = 0; i < SYSFS_FILES; i++) {
		attribute_fd[i] = open(sysfs_files[i], O_RDONLY | O_CLOEXEC);
		if (attribute_fd[i] < 0)
			die("cannot open %s", sysfs_files[i]);
	}
	new_fd = open(NEW_LOCK, O_WRONLY | O_CLOEXEC);
	delete_fd = open(DELETE_LOCK, O_WRONLY | O_CLOEXEC);
	if (new_fd < 0 || delete_fd < 0)
		die("cannot create locks");
	eye = open(DEVICE, O_RDONLY | O_CLOEXEC);
	if (eye < 0)
		die("cannot open %s", DEVICE);
	/* Orphans of killed processes become our children */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* This call reports an abandonment from before the test */
	fd = contender();
	take(fd, "fuzz");
	release(fd);
	close(fd);
}

static unsigned int read_cases(const char *text, struct fuzz_case **cases)
{
	unsigned int n = 0;

	*cases = NULL;
	do {
		*cases = realloc(*cases, (n + 1) * sizeof(**cases));
		if (!*cases)
			die("no memory");
	} while (read_case(&text, &(*cases)[n++]));
	return n - 1;
}

static char *read_all(const char *path)
{
	static char text[1 << 20];
	FILE *file = fopen(path, "r");

	if (!file)
		die("cannot open %s", path);
	text[fread(text, 1, sizeof(text) - 1, file)] = 0;
	fclose(file);
	return text;
}

static void next_case(__u64 *random, struct fuzz_case *c,
		      const struct fuzz_case *cases, unsigned int n,
		      unsigned long seed, unsigned int number)
{
	/* A case depends only on the seed and its number */
	*random = (seed * 1000003 + number + 1) * 6364136223846793005ULL | 1;
	rnd(random, 2);
	if (rnd(random, 2)) {
		make_case(random, c);
	} else {
		*c = cases[rnd(random, n)];
		change_case(random, c);
	}
	snprintf(c->name, sizeof(c->name), "seed_%lu_number_%u", seed, number);
}

static bool run_random(const struct fuzz_case *cases, unsigned int n,
		       __s64 duration, unsigned long seed, bool as_it_is)
{
	__s64 until = now() + duration;
	unsigned int number = 0;
	struct fuzz_case c;
	__u64 random;
	bool ok;

	do {
		if (as_it_is)
			c = cases[number % n];
		else
			next_case(&random, &c, cases, n, seed, number);
		number++;
		ok = run_case(&c, false);
	} while (ok && now() < until);
	printf("# seed %lu: %u cases\n", seed, number);
	return ok;
}

static bool run_late(const struct fuzz_case *c)
{
	for (late_thread = 0; late_thread < c->threads; late_thread++)
		for (late_op = 0; late_op < c->thread[late_thread].ops; late_op++)
			if (!run_case(c, true)) {
				printf("# thread %d, operation %d was late\n",
				       late_thread, late_op);
				return false;
			}
	return true;
}

static void print_counts(void)
{
	unsigned long total = 0;

	for (int verb = 0; verb < VERBS; verb++) {
		printf("# %s:", verb_names[verb]);
		for (int i = 0; i < OUTCOMES; i++) {
			unsigned long n = shared->results[verb][i];

			total += n;
			if (n)
				printf(" %s %lu", outcome_name(i), n);
		}
		printf("\n");
	}
	printf("# %lu operations\n", total);
}

int main(int argc, char **argv)
{
	const char *seconds = getenv("TLOCK_FUZZ_SECONDS");
	struct fuzz_case *cases;
	unsigned long seed;
	struct timespec ts;
	unsigned int n;
	bool given = argc > 3, late = argc == 2 && !strcmp(argv[1], "--late");

	/* This is what END executes */
	if (argc == 2 && !strcmp(argv[1], "--gone"))
		return 0;
	clock_gettime(CLOCK_REALTIME, &ts);
	if (argc > 1)
		seconds = argv[1];
	seed = argc > 2 ? strtoul(argv[2], NULL, 0) :
			  (ts.tv_nsec ^ ts.tv_sec) % 1000000;
	setlinebuf(stdout);
	n = read_cases(given ? read_all(argv[3]) : fuzz_corpus, &cases);
	if (!n)
		die("no cases");
	prepare();
	ksft_print_header();
	ksft_set_plan(given ? 1 : late ? n : n + 1);
	for (unsigned int i = 0; !given && i < n; i++)
		ksft_test_result(late ? run_late(&cases[i]) :
					run_case(&cases[i], true),
				 "%s\n", cases[i].name);
	if (late)
		ksft_finished();
	ksft_test_result(run_random(cases, n, atoll(seconds ?: "10") * SEC,
				    seed, given), "%s\n",
			 given ? "cases" : "random");
	print_counts();
	ksft_finished();
}
