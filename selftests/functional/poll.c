// SPDX-License-Identifier: GPL-2.0-only
/*
 * poll(2) and its kin on a contender: POLLOUT once its request is decided,
 * POLLIN and POLLPRI while it holds the lock and somebody waits, POLLERR once
 * its grant was revoked. No wake-up is lost, and none takes part in the race
 * for the lock. (For what poll(2) says in each state see states.c.)
 */
#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include "tlock_test.h"

/* All events of a contender. EPOLLIN and so on have the same values. */
#define WANTED	(POLLIN | POLLPRI)
#define ALL	(POLLOUT | WANTED)

/* The header of the oldest system that this is built on lacks it */
#ifndef IORING_POLL_ADD_MULTI
#define IORING_POLL_ADD_MULTI	(1U << 0)
#endif
#ifndef IORING_CQE_F_MORE
#define IORING_CQE_F_MORE	(1U << 1)
#endif

/* A minimal io_uring: one request at a time */
struct ring {
	int fd;
	char *sq, *cq;
	struct io_uring_sqe *sqes;
	struct io_uring_params params;
};

#define SQ(r, field) ((unsigned int *)((r)->sq + (r)->params.sq_off.field))
#define CQ(r, field) ((unsigned int *)((r)->cq + (r)->params.cq_off.field))

/* Returns false if this kernel has none, or does not allow it */
static bool ring_open(struct ring *r)
{
	const struct io_sqring_offsets *sq = &r->params.sq_off;
	const struct io_cqring_offsets *cq = &r->params.cq_off;

	memset(r, 0, sizeof(*r));
	r->fd = syscall(__NR_io_uring_setup, 8, &r->params);
	if (r->fd < 0)
		return false;
	r->sq = mmap(NULL, sq->array + r->params.sq_entries * 4,
		     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		     IORING_OFF_SQ_RING);
	r->cq = mmap(NULL, cq->cqes + r->params.cq_entries *
		     sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, r->params.sq_entries * sizeof(*r->sqes),
		       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		       IORING_OFF_SQES);
	if (r->sq == MAP_FAILED || r->cq == MAP_FAILED ||
	    r->sqes == MAP_FAILED)
		die("cannot map the ring");
	return true;
}

static void ring_close(struct ring *r)
{
	if (r->fd < 0)
		return;
	munmap(r->sq, r->params.sq_off.array + r->params.sq_entries * 4);
	munmap(r->cq, r->params.cq_off.cqes + r->params.cq_entries *
	       sizeof(struct io_uring_cqe));
	munmap(r->sqes, r->params.sq_entries * sizeof(*r->sqes));
	close(r->fd);
	r->fd = -1;
}

/* Polls a file: once, or until it is closed or removed */
static void ring_poll(struct ring *r, int fd, int events, bool multishot)
{
	unsigned int tail = *SQ(r, tail);
	unsigned int i = tail & *SQ(r, ring_mask);
	struct io_uring_sqe *sqe = &r->sqes[i];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_POLL_ADD;
	sqe->fd = fd;
	sqe->poll_events = events;
	sqe->len = multishot ? IORING_POLL_ADD_MULTI : 0;
	SQ(r, array)[i] = i;
	__atomic_store_n(SQ(r, tail), tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, r->fd, 1, 0, 0, NULL, 0) != 1)
		die("io_uring_enter");
}

/* The next completion: events or a negative errno; 0 if none came in time */
static int ring_next(struct ring *r, __s64 timeout_ns, unsigned int *flags)
{
	struct pollfd pollfd = { .fd = r->fd, .events = POLLIN };
	unsigned int head = *CQ(r, head);
	struct io_uring_cqe *cqe;
	int ret;

	/* Also runs what the kernel left to do for this thread */
	if (poll(&pollfd, 1, timeout_ns / MSEC) < 0)
		die("cannot poll the ring");
	if (head == __atomic_load_n(CQ(r, tail), __ATOMIC_ACQUIRE))
		return 0;
	cqe = (struct io_uring_cqe *)(r->cq + r->params.cq_off.cqes) +
	      (head & *CQ(r, ring_mask));
	ret = cqe->res;
	if (flags)
		*flags = cqe->flags;
	__atomic_store_n(CQ(r, head), head + 1, __ATOMIC_RELEASE);
	return ret;
}

/* The ways to wait for a contender's events */
enum way {
	POLL, PPOLL, SELECT,
	EPOLL, EPOLL_EDGE, EPOLL_ONCE, EPOLL_ALONE,
	RING, RING_MULTI,
};

struct watch {
	enum way way;
	int fd;
	int events;
	int epoll;
	struct ring ring;
};

static void watch_begin(struct watch *w, enum way way, int fd, int events)
{
	struct epoll_event event = { .events = events };

	memset(w, 0, sizeof(*w));
	w->way = way;
	w->fd = fd;
	w->events = events;
	w->epoll = -1;
	w->ring.fd = -1;
	if (way >= RING) {
		if (!ring_open(&w->ring))
			die("no io_uring");
		ring_poll(&w->ring, fd, events, way == RING_MULTI);
	} else if (way >= EPOLL) {
		w->epoll = epoll_create1(EPOLL_CLOEXEC);
		if (way == EPOLL_EDGE)
			event.events |= EPOLLET;
		if (way == EPOLL_ONCE)
			event.events |= EPOLLONESHOT;
		/* Other events cannot be combined with it */
		if (way == EPOLL_ALONE)
			event.events = (events & ~EPOLLPRI) | EPOLLEXCLUSIVE;
		if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event))
			die("epoll_ctl");
	}
}

static void watch_end(struct watch *w)
{
	if (w->epoll >= 0)
		close(w->epoll);
	ring_close(&w->ring);
}

static int watch_once(struct watch *w, __s64 timeout_ns)
{
	struct timespec ts = { timeout_ns / SEC, timeout_ns % SEC };
	struct timeval tv = { ts.tv_sec, ts.tv_nsec / USEC };
	struct pollfd pollfd = { .fd = w->fd, .events = w->events };
	fd_set in, out, pri;
	struct epoll_event event;
	int ret;

	switch (w->way) {
	case POLL:
		ret = poll(&pollfd, 1, timeout_ns / MSEC);
		return ret > 0 ? pollfd.revents : ret;
	case PPOLL:
		ret = ppoll(&pollfd, 1, &ts, NULL);
		return ret > 0 ? pollfd.revents : ret;
	case SELECT:
		FD_ZERO(&in);
		FD_ZERO(&out);
		FD_ZERO(&pri);
		if (w->events & POLLIN)
			FD_SET(w->fd, &in);
		if (w->events & POLLOUT)
			FD_SET(w->fd, &out);
		if (w->events & POLLPRI)
			FD_SET(w->fd, &pri);
		ret = select(w->fd + 1, &in, &out, &pri, &tv);
		if (ret <= 0)
			return ret;
		return (FD_ISSET(w->fd, &in) ? POLLIN : 0) |
		       (FD_ISSET(w->fd, &out) ? POLLOUT : 0) |
		       (FD_ISSET(w->fd, &pri) ? POLLPRI : 0);
	case RING:
	case RING_MULTI:
		return ring_next(&w->ring, timeout_ns, NULL);
	default:
		ret = epoll_wait(w->epoll, &event, 1, timeout_ns / MSEC);
		return ret > 0 ? (int)event.events : ret;
	}
}

/* Returns the events, 0 if none came in time */
static int watch_next(struct watch *w, __s64 timeout_ns)
{
	__s64 end = now() + timeout_ns;
	int events = watch_once(w, timeout_ns);

	/*
	 * poll(2) looks once more when its time is over: then it sees what
	 * nobody woke it for
	 */
	return now() < end ? events : 0;
}

/* After an event, so that the next one comes */
static void watch_again(struct watch *w)
{
	struct epoll_event event = { .events = w->events | EPOLLONESHOT };

	if (w->way == EPOLL_ONCE &&
	    epoll_ctl(w->epoll, EPOLL_CTL_MOD, w->fd, &event))
		die("epoll_ctl");
	if (w->way == RING)
		ring_poll(&w->ring, w->fd, w->events, false);
}

/* Whether it tells of a state, and not only of a change */
static bool by_level(const struct watch *w)
{
	return w->way <= EPOLL || w->way == EPOLL_ALONE;
}

FIXTURE(poll)
{
	int holder;
	int c;			/* is polled */
	int other;
	bool usable;
};

FIXTURE_VARIANT(poll)
{
	enum way way;
};

FIXTURE_VARIANT_ADD(poll, poll) { .way = POLL };
FIXTURE_VARIANT_ADD(poll, ppoll) { .way = PPOLL };
FIXTURE_VARIANT_ADD(poll, select) { .way = SELECT };
FIXTURE_VARIANT_ADD(poll, epoll) { .way = EPOLL };
FIXTURE_VARIANT_ADD(poll, epoll_edge) { .way = EPOLL_EDGE };
FIXTURE_VARIANT_ADD(poll, epoll_oneshot) { .way = EPOLL_ONCE };
FIXTURE_VARIANT_ADD(poll, epoll_exclusive) { .way = EPOLL_ALONE };
FIXTURE_VARIANT_ADD(poll, io_uring) { .way = RING };
FIXTURE_VARIANT_ADD(poll, io_uring_multishot) { .way = RING_MULTI };

/* Whether this kernel has it: Linux 5.10 has no multishot poll */
static bool has_way(enum way way)
{
	struct ring ring;
	int fds[2], ret;

	if (way < RING)
		return true;
	if (!ring_open(&ring))
		return false;
	if (pipe(fds))
		die("no pipe");
	ring_poll(&ring, fds[1], POLLOUT, way == RING_MULTI);
	ret = ring_next(&ring, PATIENCE, NULL);
	ring_close(&ring);
	close(fds[0]);
	close(fds[1]);
	return ret == POLLOUT;
}

FIXTURE_SETUP(poll)
{
	self->holder = contender();
	self->c = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
	self->usable = has_way(variant->way);
}

FIXTURE_TEARDOWN(poll)
{
	/* A ring that was closed may keep the files for a moment */
	release(self->holder);
	release(self->c);
	release(self->other);
	close(self->holder);
	close(self->c);
	close(self->other);
	EXPECT_LEFT_FREE();
}

#define NEED_WAY() do {							\
	if (!self->usable)						\
		SKIP(return, "this kernel lacks it");			\
} while (0)


/* Long enough for a wrong event to come */
#define MOMENT	(30 * MSEC)

/* The same state again is an event only for those who look at the level. */
#define EXPECT_STILL(expected, w)					\
	EXPECT_EQ(by_level(w) ? (expected) : 0,				\
		  watch_next(w, by_level(w) ? PATIENCE : MOMENT))

static int watch_in_thread(int fd, struct tlock_acquire *arg)
{
	struct watch *w = (void *)(uintptr_t)arg->token;

	return watch_next(w, PATIENCE);
}

/* A thread that waits for the next event, and returns it */
static struct call *watch_by_thread(struct watch *w)
{
	struct tlock_acquire *arg = malloc(sizeof(*arg));

	if (!arg)
		die("no memory");
	arg->token = (uintptr_t)w;
	return call_with(-1, watch_in_thread, arg);
}

/* The same, once it sleeps: nothing has come yet */
static struct call *begin_watching(struct watch *w)
{
	struct call *poller = watch_by_thread(w);

	if (!await_asleep(poller->tid))
		die("a poller does not sleep");
	return poller;
}

/* All ways in which an asynchronous request can be decided */
enum decision {
	GRANTED,		/* the holder releases the lock */
	LET_IN,			/* by a reacquire */
	INHERITED,		/* the holder closes its file */
	FAILED,			/* at its deadline */
	WITHDRAWN,
	AFTER_EXPIRY,		/* an unfetched grant ends */
	DECISIONS,
};

/* Where a grant shall expire: the holder's process ends before it fetches. */
static void hold_unfetched(FIXTURE_DATA(poll) *self, struct agent **a)
{
	struct tlock_acquire arg = ask_async(FOREVER, "unfetched");

	*a = agent_sharing(self->holder);
	take(self->other, "other");
	if (agent_do(*a, acquire, &arg) != -EINPROGRESS ||
	    release(self->other))
		die("no grant");
}

/* What a holder sees of its waiters */
#define SEEN(events) ((events) & (variant->way == EPOLL_ALONE ? ~POLLPRI : ~0))

/* Those who want all events get those that there are. */
TEST_F(poll, g2_decided)
{
	struct tlock_acquire arg;
	struct agent *a = NULL;
	struct call *poller;
	struct watch w;
	int expected, ret;

	NEED_WAY();
	for (enum decision how = 0; how < DECISIONS; how++) {
		/* There the old holder waits */
		expected = how == LET_IN ? SEEN(ALL) : POLLOUT;
		if (how == AFTER_EXPIRY)
			hold_unfetched(self, &a);
		else
			take(self->holder, "holder");
		arg = start_acquire(self->c, how == FAILED ? 200 * MSEC :
				    FOREVER, "c");
		watch_begin(&w, variant->way, self->c, ALL);
		if (how == FAILED) {
			poller = watch_by_thread(&w);
		} else {
			EXPECT_EQ(0, watch_next(&w, MOMENT));
			poller = begin_watching(&w);
		}
		switch (how) {
		case GRANTED:
			ASSERT_EQ(0, release(self->holder));
			break;
		case LET_IN:
			start_reacquire(self->holder, FOREVER, "");
			break;
		case INHERITED:
			ASSERT_EQ(0, close(self->holder));
			self->holder = contender();
			break;
		case WITHDRAWN:
			ASSERT_EQ(0, release(self->c));
			break;
		case AFTER_EXPIRY:
			agent_kill(a);
			break;
		default:
			break;
		}
		ASSERT_EQ(expected, result(poller)) {
			TH_LOG("decision %d", how);
		}
		/* One change is one event */
		EXPECT_STILL(expected, &w);
		if (how != WITHDRAWN) {
			ret = acquire(self->c, &arg);
			EXPECT_EQ(how == FAILED ? -ETIMEDOUT : 0, ret);
			EXPECT_EQ(how == INHERITED ? TLOCK_ABANDONED : 0,
				  ret ? 0 : arg.result);
		}
		watch_end(&w);
		release(self->c);
		release(self->holder);
	}
}

/* The same file again and again, as an event loop does */
TEST_F(poll, g2_again)
{
	struct tlock_acquire arg;
	struct watch w;
	int events;

	NEED_WAY();
	watch_begin(&w, variant->way, self->c, POLLOUT);
	/* It is idle, and so has nothing undecided */
	EXPECT_EQ(POLLOUT, watch_next(&w, PATIENCE));
	for (int i = 0; i < 50; i++) {
		take(self->holder, "holder");
		arg = start_acquire(self->c, i % 3 ? FOREVER : USEC, "c");
		watch_again(&w);
		if (i % 3) {
			ASSERT_EQ(0, release(self->holder));
		}
		/* An event of before may still be there */
		do {
			events = watch_next(&w, PATIENCE);
			ASSERT_EQ(POLLOUT, events);
			if (acquire(self->c, &arg) != -EINPROGRESS)
				break;
			watch_again(&w);
		} while (true);
		EXPECT_EQ(0, arg.ticket);
		release(self->c);
		release(self->holder);
	}
	watch_end(&w);
}

TEST_F(poll, g4_somebody_waits)
{
	struct call *poller, *waiter = NULL;
	int second = contender();
	struct watch w;

	NEED_WAY();
	take(self->c, "c");
	watch_begin(&w, variant->way, self->c, WANTED);
	for (int blocking = 0; blocking < 2; blocking++) {
		EXPECT_EQ(0, watch_next(&w, MOMENT));
		poller = begin_watching(&w);
		if (blocking)
			waiter = call(self->other, acquire, FOREVER, "other");
		else
			start_acquire(self->other, FOREVER, "other");
		ASSERT_EQ(SEEN(WANTED), result(poller));
		EXPECT_STILL(SEEN(WANTED), &w);
		/* Only the first arrival wakes anybody */
		start_acquire(second, FOREVER, "second");
		EXPECT_STILL(SEEN(WANTED), &w);
		ASSERT_EQ(0, release(second));
		ASSERT_EQ(0, release(self->other));
		if (blocking) {
			ASSERT_EQ(-ECANCELED, result(waiter));
		}
		watch_again(&w);
	}
	/* It lets the waiter in */
	start_acquire(self->other, FOREVER, "other");
	EXPECT_EQ(SEEN(WANTED), watch_next(&w, PATIENCE));
	start_reacquire(self->c, FOREVER, "");
	watch_again(&w);
	EXPECT_EQ(0, watch_next(&w, MOMENT));
	watch_end(&w);
	close(second);
}

/* A contender that gets the lock may be wanted already. */
TEST_F(poll, g4_somebody_waits_behind)
{
	struct call *poller, *waiter = NULL;
	struct tlock_acquire arg;
	struct watch w;

	NEED_WAY();
	for (int blocking = 0; blocking < 2; blocking++) {
		take(self->holder, "holder");
		if (blocking)
			waiter = call(self->c, acquire, FOREVER, "c");
		else
			arg = start_acquire(self->c, FOREVER, "c");
		ASSERT_TRUE(await_waiters(self->c, 1));
		start_acquire(self->other, FOREVER, "other");
		watch_begin(&w, variant->way, self->c, ALL);
		EXPECT_EQ(0, watch_next(&w, MOMENT));
		poller = begin_watching(&w);
		ASSERT_EQ(0, release(self->holder));
		ASSERT_EQ(SEEN(ALL), result(poller));
		if (blocking) {
			ASSERT_EQ(0, result(waiter));
		} else {
			ASSERT_EQ(0, acquire(self->c, &arg));
		}
		ASSERT_EQ(0, release(self->c));
		ASSERT_EQ(0, release(self->other));
		watch_end(&w);
	}
}

/* All ways in which a grant can be revoked */
enum revocation {
	AT_ONCE,		/* by REVOKE, while nobody waits */
	AT_ONCE_WANTED,		/* while somebody waits */
	AFTER_GRACE,		/* by a timer, as somebody waits */
	AFTER_LEASE,
	BY_TRY,			/* by another contender */
	BY_FLOCK,
	REVOCATIONS,
};

/*
 * Those who poll the file that lost the lock learn of it, and so do those who
 * poll the file that gets it.
 */
TEST_F(poll, g12_revoked)
{
	/* select(2) calls an error readable; the others report it in any case */
	const int events = variant->way == SELECT ? POLLIN : 0;
	const int expected = variant->way == SELECT ? POLLIN : POLLERR;
	struct call *poller, *next = NULL;
	struct tlock_acquire arg;
	struct watch w, w_next;
	bool wanted;

	NEED_WAY();
	for (enum revocation how = 0; how < REVOCATIONS; how++) {
		wanted = how >= AT_ONCE_WANTED && how <= AFTER_LEASE;
		/* Where somebody waits, the file is readable before */
		if (wanted && variant->way == SELECT)
			continue;
		arg.token = take_lease(self->c, "c", LONG);
		if (wanted) {
			arg = start_acquire(self->other, FOREVER, "other");
			arg.token = look(self->c).holder.token;
			watch_begin(&w_next, variant->way, self->other,
				    POLLOUT);
		} else if (how >= BY_TRY) {
			ASSERT_EQ(0, renew(self->c, 1));
		}
		watch_begin(&w, variant->way, self->c, events);
		EXPECT_EQ(0, watch_next(&w, MOMENT));
		poller = begin_watching(&w);
		if (wanted)
			next = begin_watching(&w_next);
		switch (how) {
		case AT_ONCE:
		case AT_ONCE_WANTED:
			ASSERT_EQ(0, revoke_grant(self->holder, arg.token, 0));
			break;
		case AFTER_GRACE:
			ASSERT_EQ(0, revoke_grant(self->holder, arg.token,
						  MSEC));
			break;
		case AFTER_LEASE:
			ASSERT_EQ(0, renew(self->c, MSEC));
			break;
		case BY_TRY:
			take(self->other, "other");
			break;
		default:
			ASSERT_EQ(0, flock_try(self->other, NULL));
			break;
		}
		ASSERT_EQ(expected, result(poller)) {
			TH_LOG("revocation %d", how);
		}
		EXPECT_STILL(expected, &w);
		if (wanted) {
			ASSERT_EQ(POLLOUT, result(next));
			ASSERT_EQ(0, acquire(self->other, &arg));
			EXPECT_EQ(TLOCK_REVOKED, arg.result);
			watch_end(&w_next);
		}
		EXPECT_LOST(self->c);
		watch_again(&w);
		EXPECT_EQ(0, watch_next(&w, MOMENT));
		watch_end(&w);
		release(self->other);
		if (how == AT_ONCE || how == BY_FLOCK)
			EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->other);
	}
}

/* Whoever begins to poll later sees it, too; with all other events. */
TEST_F(poll, g12_revoked_before)
{
	const int expected = variant->way == SELECT ? ALL :
			     POLLOUT | POLLPRI | POLLERR;
	struct watch w;

	NEED_WAY();
	ASSERT_EQ(0, revoke_grant(self->other, take(self->c, "c"), 0));
	watch_begin(&w, variant->way, self->c, ALL);
	EXPECT_EQ(SEEN(expected), watch_next(&w, PATIENCE));
	EXPECT_STILL(SEEN(expected), &w);
	watch_end(&w);
	EXPECT_LOST(self->c);
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->other);
}

/* Many hand-overs between files on one epoll, in one thread */
TEST_F(poll, g2_no_event_is_lost)
{
	struct tlock_acquire args[5];
	struct watch ws[5];
	__s64 end = now() + 2 * SEC;
	int fds[5], rounds = 0, next, ret;

	NEED_WAY();
	take(self->holder, "holder");
	for (int i = 0; i < 5; i++) {
		fds[i] = contender();
		args[i] = start_acquire(fds[i], i % 2 ? LONG : FOREVER, "c");
		watch_begin(&ws[i], variant->way, fds[i], POLLOUT);
	}
	ASSERT_EQ(0, release(self->holder));
	for (; now() < end; rounds++) {
		next = rounds % 5;
		do {
			ASSERT_EQ(POLLOUT, watch_next(&ws[next], PATIENCE)) {
				TH_LOG("after %d hand-overs", rounds);
			}
			ret = acquire(fds[next], &args[next]);
			if (ret)
				watch_again(&ws[next]);
		} while (ret == -EINPROGRESS);
		ASSERT_EQ(0, ret);
		args[next] = start_reacquire(fds[next],
					     next % 2 ? LONG : FOREVER, "");
		watch_again(&ws[next]);
	}
	TH_LOG("%d hand-overs", rounds);
	for (int i = 0; i < 5; i++) {
		watch_end(&ws[i]);
		/* The ring's own file is closed a little later */
		ASSERT_EQ(0, release(fds[i]));
		close(fds[i]);
	}
}

/*
 * Several threads poll one file, while others decide its requests. Each poll
 * begins at about the time of the decision.
 */
#define POLLERS	3

static atomic_int race_round, race_done, race_over;
static int race_fd;

static int poll_each_round(int fd, struct tlock_acquire *arg)
{
	enum way way = arg->timeout_ns;
	int round = 0;
	struct watch w;

	do {
		while (atomic_load(&race_round) == round)
			if (atomic_load(&race_over))
				return 0;
			else
				sched_yield();
		round++;
		watch_begin(&w, way, race_fd, POLLOUT);
		if (watch_next(&w, PATIENCE) != POLLOUT)
			return round;
		watch_end(&w);
		atomic_fetch_add(&race_done, 1);
	} while (true);
}

TEST_F(poll, g2_no_wake_up_is_lost)
{
	struct call *pollers[POLLERS];
	unsigned int seed = 1;
	__s64 end, at;
	int rounds = 0;

	NEED_WAY();
	atomic_store(&race_round, 0);
	atomic_store(&race_done, 0);
	atomic_store(&race_over, 0);
	race_fd = self->c;
	for (int i = 0; i < POLLERS; i++)
		pollers[i] = call(-1, poll_each_round, variant->way, "");
	for (end = now() + 2 * SEC; now() < end;) {
		take(self->holder, "holder");
		start_acquire(self->c, rounds % 3 ? FOREVER :
			      100 * USEC + rand_r(&seed) % MSEC, "c");
		atomic_fetch_add(&race_round, 1);
		at = now() + rand_r(&seed) % MSEC;
		while (now() < at)
			sched_yield();
		if (rounds % 3 == 1) {
			ASSERT_EQ(0, release(self->c));
		} else if (rounds % 3 == 2) {
			ASSERT_EQ(0, release(self->holder));
		}
		rounds++;
		if (!await_value(&race_done, POLLERS * rounds)) {
			for (int i = 0; i < POLLERS; i++) {
				ASSERT_EQ(STUCK, result(pollers[i]));
			}
		}
		release(self->c);
		release(self->holder);
	}
	TH_LOG("%d rounds", rounds);
	atomic_store(&race_over, 1);
	for (int i = 0; i < POLLERS; i++) {
		EXPECT_EQ(0, result(pollers[i]));
	}
}

/* A file is closed while it is polled. */

TEST_F(poll, g11_released_before_it_is_closed)
{
	bool kept = variant->way < EPOLL || variant->way >= RING;
	struct call *poller = NULL;
	struct watch w;

	NEED_WAY();
	take(self->holder, "holder");
	start_acquire(self->c, FOREVER, "c");
	watch_begin(&w, variant->way, self->c, POLLOUT);
	/* An epoll forgets the file, perhaps before its thread has looked */
	if (kept)
		poller = begin_watching(&w);
	ASSERT_EQ(0, release(self->c));
	ASSERT_EQ(0, close(self->c));
	if (kept) {
		/* It may find that the descriptor is gone */
		EXPECT_NE(0, result(poller));
		EXPECT_NE(STUCK, result(poller));
	}
	self->c = contender();
	EXPECT_EQ(0, look(self->c).waiters);
	ASSERT_EQ(0, release(self->holder));
	EXPECT_EQ(0, look(self->c).holder.token);
	watch_end(&w);
}

/*
 * Whoever waits in poll(2), or a poll of io_uring, keeps the file open. Then the
 * request goes on, and ends with them. An epoll does not.
 */
TEST_F(poll, g11_closed)
{
	bool kept = variant->way < EPOLL || variant->way >= RING;
	struct call *poller = NULL;
	struct tlock_status before;
	struct tlock_acquire arg;
	struct watch w;

	NEED_WAY();
	take(self->holder, "holder");
	before = look(self->c);
	start_acquire(self->c, FOREVER, "c");
	watch_begin(&w, variant->way, self->c, POLLOUT);
	if (kept)
		poller = begin_watching(&w);
	ASSERT_EQ(0, close(self->c));
	self->c = contender();
	EXPECT_EQ(kept, look(self->c).waiters);
	ASSERT_EQ(0, release(self->holder));
	if (kept) {
		/* The new file has the old one's number, and is idle */
		EXPECT_EQ(POLLOUT, result(poller));
	} else {
		EXPECT_EQ(0, watch_next(&w, MOMENT));
	}
	watch_end(&w);
	/* As above */
	ASSERT_TRUE(await_token(self->c, 0));
	EXPECT_EQ(before.abandoned, look(self->c).abandoned);
	arg = ask(0, "next");
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(0, release(self->other));
}

/* Somebody polls a file for which a thread sleeps. */
TEST_F(tlock, g2_blocking_calls)
{
	enum { TIMES_OUT, IS_INTERRUPTED, IS_WITHDRAWN, IS_GRANTED, WAYS };
	const int rets[WAYS] = { -ETIMEDOUT, -EINTR, -ECANCELED, 0 };
	struct call *sleeper, *poller;
	int c = contender();
	struct watch w;

	handle_usr1(0);
	for (int how = 0; how < WAYS; how++) {
		take(self->fd, "holder");
		sleeper = call(c, acquire, how == TIMES_OUT ? SEC / 2 : FOREVER,
			       "c");
		ASSERT_TRUE(await_waiters(c, 1));
		EXPECT_EQ(0, events_of(c));
		watch_begin(&w, POLL, c, POLLOUT);
		poller = begin_watching(&w);
		if (how == IS_INTERRUPTED)
			send_signal(sleeper, SIGUSR1);
		if (how == IS_WITHDRAWN) {
			ASSERT_EQ(0, release(c));
		}
		if (how == IS_GRANTED) {
			ASSERT_EQ(0, release(self->fd));
		}
		ASSERT_EQ(rets[how], result(sleeper));
		EXPECT_EQ(POLLOUT, result(poller)) {
			TH_LOG("way %d", how);
		}
		release(c);
		release(self->fd);
		watch_end(&w);
	}
	close(c);
}

static int release_soon(int fd, struct tlock_acquire *arg)
{
	while (now() < arg->timeout_ns)
		;
	return release(fd);
}

/*
 * A file is closed as soon as its grant is seen, perhaps before the pollers of
 * that contender have been woken.
 */
TEST_F(tlock, g11_closed_at_its_grant)
{
	struct tlock_acquire when;
	__s64 end = now() + 2 * SEC;
	struct call *releaser;
	int c, rounds = 0;
	struct watch w;

	for (; now() < end; rounds++) {
		c = contender();
		take(self->fd, "holder");
		start_acquire(c, FOREVER, "c");
		watch_begin(&w, EPOLL, c, POLLOUT);
		when = ask(now() + MSEC / 2, "");
		releaser = call_with(self->fd, release_soon, &when);
		while (look(self->fd).holder.job[0] != 'c')
			;
		close(c);
		ASSERT_EQ(0, result(releaser));
		ASSERT_EQ(0, look(self->fd).holder.token);
		watch_end(&w);
	}
	TH_LOG("%d rounds", rounds);
}

/* In an agent: poll(2) of the file that it shares */
static int poll_in_agent(int fd, struct tlock_acquire *arg)
{
	return await_events(fd, POLLOUT);
}

TEST_F(tlock, g2_two_processes_poll)
{
	struct agent *child;
	struct tlock_acquire arg;
	int c = contender();

	child = agent_sharing(c);
	take(self->fd, "holder");
	arg = start_acquire(c, FOREVER, "c");
	agent_begin(child, poll_in_agent, NULL);
	ASSERT_TRUE(await_asleep(child->pid));
	ASSERT_EQ(0, release(self->fd));
	EXPECT_EQ(POLLOUT, await_events(c, POLLOUT));
	EXPECT_EQ(POLLOUT, agent_end(child, NULL));
	EXPECT_EQ(0, acquire(c, &arg));
	EXPECT_EQ(0, release(c));
	agent_kill(child);
	close(c);
}

/* A file that cannot contend has no events of a contender. */
TEST_F(tlock, g10_read_only)
{
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
	struct epoll_event event = { .events = ALL };
	int epoll = epoll_create1(EPOLL_CLOEXEC), c = contender();

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, events_of(fd));
	take(self->fd, "holder");
	start_acquire(c, FOREVER, "c");
	EXPECT_EQ(0, events_of(fd));
	ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	EXPECT_EQ(0, epoll_wait(epoll, &event, 1, 0));
	EXPECT_EQ(0, release(c));
	EXPECT_EQ(0, release(self->fd));
	close(epoll);
	close(fd);
	close(c);
}

TEST_F(tlock, deleted)
{
	const char *new_lock = "/sys/class/tlock/new_lock";
	const char *delete_lock = "/sys/class/tlock/delete_lock";
	int fd;

	ASSERT_EQ(0, write_text(new_lock, "polled"));
	fd = open("/dev/tlock-polled", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, events_of(fd));
	ASSERT_EQ(0, write_text(delete_lock, "polled"));
	EXPECT_EQ(POLLHUP, events_of(fd));
	close(fd);
}

/*
 * An interrupt ends an unfetched grant and decides the next request, whose
 * pollers it leaves to the contender's timer. Where timers run in a thread, a
 * call can fetch that outcome first; the pollers learn of it all the same.
 */
#define BUSY	30

static atomic_int busy;

static int keep_busy(int fd, struct tlock_acquire *arg)
{
	const struct sched_param param = { .sched_priority = BUSY };

	run_on(0, 0);
	if (sched_setscheduler(0, SCHED_FIFO, &param))
		die("no real-time priority");
	atomic_store(&busy, 1);
	while (atomic_load(&busy))
		;
	return 0;
}

TEST_F(tlock, g2_fetched_before_the_pollers_wake)
{
	struct tlock_acquire arg;
	struct call *poller, *hog;
	int first = contender(), c = contender();
	struct watch w;
	__s64 end;

	if (!can_hold_back())
		SKIP(return, "this needs two CPUs");
	for (int round = 0; round < 3; round++) {
		/* The timer of the lock is CPU 0's */
		run_on(0, 0);
		take(self->fd, "holder");
		end = now() + 200 * MSEC;
		start_acquire(first, 200 * MSEC, "first");
		arg = start_acquire(c, FOREVER, "c");
		watch_begin(&w, POLL, c, POLLOUT);
		poller = begin_watching(&w);
		run_on(poller->tid, 1);
		ASSERT_EQ(0, release(self->fd));
		run_on(0, 1);
		hog = call(-1, keep_busy, 0, "");
		ASSERT_TRUE(await_value(&busy, 1));
		while (strcmp(look(c).holder.job, "c") &&
		       now() < end + PATIENCE)
			;
		ASSERT_EQ(0, acquire(c, &arg));
		usleep(10000);
		atomic_store(&busy, 0);
		ASSERT_EQ(0, result(hog));
		EXPECT_EQ(POLLOUT, result(poller));
		ASSERT_EQ(0, release(c));
		ASSERT_EQ(0, release(first));
		watch_end(&w);
	}
	close(first);
	close(c);
}

TEST_HARNESS_MAIN
