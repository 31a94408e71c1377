// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each call returns in each state of a contender, and what it leaves
 * behind: the file's state, the ticket in the argument, and what the call of a
 * sleeping thread returns.
 *
 * Guarantee 11: a wait can be withdrawn, and after that the contender neither
 * holds nor waits, whoever raced.
 *
 * Guarantee 12: whoever lost the lock learns so from its next call, once.
 */
#include <poll.h>
#include <signal.h>
#include <time.h>

#include "tlock_test.h"

typedef int call_fn(int fd, struct tlock_acquire *arg);

/* What the signal handler calls, and on which file */
static call_fn *in_handler;
static int handler_fd, handler_ret;

static void do_in_handler(void)
{
	struct tlock_acquire arg = ask(0, "handler");

	handler_ret = in_handler(handler_fd, &arg);
}

static int do_release(int fd, struct tlock_acquire *arg)
{
	return release(fd);
}

/* The columns of the table */
enum column {
	ACQUIRE, REACQUIRE,			/* with ticket 0 */
	ACQUIRE_OWN, REACQUIRE_OWN,		/* with the request's ticket */
	ACQUIRE_FOREIGN, REACQUIRE_FOREIGN,	/* with another one */
	RELEASE,
	FLOCK_EX, FLOCK_NB, FLOCK_UN,
	CLOSE,
	/* With TLOCK_ASYNC */
	START, RESTART,				/* with ticket 0 */
	FETCH, REFETCH,				/* with the request's ticket */
	FETCH_FOREIGN, REFETCH_FOREIGN,		/* with another one */
	RENEW,
	COLUMNS
};

static call_fn *const column_fns[COLUMNS] = {
	acquire, reacquire, acquire, reacquire, acquire, reacquire,
	do_release, flock_wait, flock_try, flock_end, NULL,
	acquire, reacquire, acquire, reacquire, acquire, reacquire,
	reacquire,
};

/* What a call does: a cell of the table. A cell left out is MISSING. */
struct cell {
	enum {
		MISSING,
		KEPT,		/* changes nothing, and returns @ret */
		ENDED,		/* leaves the file idle, and returns @ret */
		TAKEN,		/* a new grant */
		WAITS_ON,	/* with the same ticket */
		WAITS_ANEW,	/* with a larger ticket */
		STARTED,	/* the same without a thread: EINPROGRESS */
		FETCHED,	/* the grant, which stays */
		ABANDONED,	/* the lock passes on, as abandoned */
	} effect;
	int ret;
	bool cancels;		/* a sleeping thread gets ECANCELED */
};

#define LEAVES(ret)	{ KEPT, ret, false }
#define ENDS(ret)	{ ENDED, ret, false }
#define CANCELS		{ ENDED, 0, true }
#define TAKES		{ TAKEN, 0, false }
#define WAITS_OWN	{ WAITS_ON, 0, false }
#define WAITS_NEW	{ WAITS_ANEW, 0, false }
#define PASSES_ON	{ WAITS_ANEW, 0, true }
#define STARTS		{ STARTED, -EINPROGRESS, false }
#define STARTS_PASSING	{ STARTED, -EINPROGRESS, true }
#define FETCHES		{ FETCHED, 0, false }
#define FAILS		ENDS(-ETIMEDOUT)
#define ABANDONS	{ ABANDONED, 0, false }
/* Only the contender's own ticket ever has an effect */
#define FOREIGN		LEAVES(-ECANCELED), LEAVES(-ECANCELED)
#define SPENT		LEAVES(-ECANCELED), LEAVES(-ECANCELED)
/* A call with TLOCK_ASYNC cannot go on with a request without, nor vice versa */
#define NOT_ITS_KIND	LEAVES(-EINVAL), LEAVES(-EINVAL)
/* After a revocation, every call says so before it looks at the ticket */
#define LEARNS		ENDS(-ESTALE)

FIXTURE(state)
{
	int c;			/* the contender in that state */
	int other;
	struct call *sleeper;	/* sleeps for the contender's request */
	struct call *waiter;	/* another contender that waits */
	struct call *hogger;	/* keeps the sleeper from running */
	__u64 ticket;		/* of c's present or last request */
	__u64 number;		/* in c's fdinfo */
	const char *state;
	struct tlock_status before;
	__u64 newest;		/* the newest grant's token */
};

/* The rows of the table */
FIXTURE_VARIANT(state)
{
	enum {
		IDLE,
		SLEEPS,
		AWAY,
		GRANTED,	/* but its thread has not run yet */
		HOLDING,
		REVOKED,	/* and no call has said so yet */
		/* With an asynchronous request: */
		PENDING,
		UNFETCHED,	/* granted */
		FAILED,
		EXPIRED,	/* failed after it had been granted */
		LOST,		/* revoked after it had been granted */
	} state;
	call_fn *fn;		/* the call that led to the state */
	bool held;		/* the other contender holds */
	bool wanted;		/* another contender waits */
	struct cell cells[COLUMNS];
	int events;		/* what poll(2) says */
};

FIXTURE_VARIANT_ADD(state, idle_of_a_free_lock)
{
	.state = IDLE,
	.fn = acquire,
	.cells = {
		TAKES, LEAVES(-EPERM),
		SPENT, FOREIGN,
		LEAVES(-EPERM),
		TAKES, TAKES, LEAVES(0),
		LEAVES(0),
		TAKES, LEAVES(-EPERM),
		SPENT, FOREIGN,
		LEAVES(-EPERM),
	},
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, idle_of_a_held_lock)
{
	.state = IDLE,
	.fn = acquire,
	.held = true,
	.cells = {
		WAITS_NEW, LEAVES(-EPERM),
		SPENT, FOREIGN,
		LEAVES(-EPERM),
		WAITS_NEW, ENDS(-EWOULDBLOCK), LEAVES(0),
		LEAVES(0),
		STARTS, LEAVES(-EPERM),
		SPENT, FOREIGN,
		LEAVES(-EPERM),
	},
	.events = POLLOUT,
};

#define CELLS_SLEEPS {							\
	LEAVES(-EBUSY), LEAVES(-EBUSY),					\
	LEAVES(-EBUSY), LEAVES(-EBUSY), FOREIGN,			\
	CANCELS,							\
	LEAVES(-EBUSY), LEAVES(-EBUSY), CANCELS,			\
	/* The call goes on and keeps the file open: see close */	\
	LEAVES(0),							\
	LEAVES(-EBUSY), LEAVES(-EBUSY),					\
	LEAVES(-EBUSY), LEAVES(-EBUSY), FOREIGN,			\
	LEAVES(-EBUSY),						\
}

FIXTURE_VARIANT_ADD(state, sleeps)
{
	.state = SLEEPS,
	.fn = acquire,
	.held = true,
	.cells = CELLS_SLEEPS,
};

FIXTURE_VARIANT_ADD(state, sleeps_in_reacquire)
{
	.state = SLEEPS,
	.fn = reacquire,
	.held = true,
	.cells = CELLS_SLEEPS,
};

FIXTURE_VARIANT_ADD(state, sleeps_in_flock)
{
	.state = SLEEPS,
	.fn = flock_wait,
	.held = true,
	.cells = CELLS_SLEEPS,
};

#define CELLS_AWAY_HELD {						\
	WAITS_NEW, LEAVES(-EPERM),					\
	WAITS_OWN, WAITS_OWN, FOREIGN,					\
	ENDS(0),							\
	WAITS_NEW, ENDS(-EWOULDBLOCK), ENDS(0),				\
	ENDS(0),							\
	STARTS, LEAVES(-EPERM),						\
	NOT_ITS_KIND, FOREIGN,						\
	LEAVES(-EPERM),						\
}

FIXTURE_VARIANT_ADD(state, away_of_a_held_lock)
{
	.state = AWAY,
	.fn = acquire,
	.held = true,
	.cells = CELLS_AWAY_HELD,
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, away_from_reacquire_of_a_held_lock)
{
	.state = AWAY,
	.fn = reacquire,
	.held = true,
	.cells = CELLS_AWAY_HELD,
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, away_from_flock_of_a_held_lock)
{
	.state = AWAY,
	.fn = flock_wait,
	.held = true,
	.cells = {
		WAITS_NEW, LEAVES(-EPERM),
		WAITS_OWN, WAITS_OWN, FOREIGN,
		ENDS(0),
		WAITS_OWN, ENDS(-EWOULDBLOCK), ENDS(0),
		ENDS(0),
		STARTS, LEAVES(-EPERM),
		NOT_ITS_KIND, FOREIGN,
		LEAVES(-EPERM),
	},
	.events = POLLOUT,
};

#define CELLS_AWAY_FREE {						\
	TAKES, LEAVES(-EPERM),						\
	TAKES, TAKES, FOREIGN,						\
	ENDS(0),							\
	TAKES, TAKES, ENDS(0),						\
	ENDS(0),							\
	TAKES, LEAVES(-EPERM),						\
	NOT_ITS_KIND, FOREIGN,						\
	LEAVES(-EPERM),						\
}

FIXTURE_VARIANT_ADD(state, away_of_a_free_lock)
{
	.state = AWAY,
	.fn = acquire,
	.cells = CELLS_AWAY_FREE,
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, away_from_reacquire_of_a_free_lock)
{
	.state = AWAY,
	.fn = reacquire,
	.cells = CELLS_AWAY_FREE,
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, away_from_flock_of_a_free_lock)
{
	.state = AWAY,
	.fn = flock_wait,
	.cells = CELLS_AWAY_FREE,
	.events = POLLOUT,
};

#define CELLS_GRANTED {							\
	LEAVES(-EDEADLK), LEAVES(0),					\
	SPENT, FOREIGN,							\
	CANCELS,							\
	LEAVES(0), LEAVES(0), CANCELS,					\
	/* The same as for a sleeper */					\
	LEAVES(0),							\
	LEAVES(-EDEADLK), LEAVES(0),					\
	SPENT, FOREIGN,							\
	LEAVES(0),						\
}

#define CELLS_GRANTED_WANTED {						\
	LEAVES(-EDEADLK), PASSES_ON,					\
	SPENT, FOREIGN,							\
	CANCELS,							\
	LEAVES(0), LEAVES(0), CANCELS,					\
	LEAVES(0),							\
	LEAVES(-EDEADLK), STARTS_PASSING,				\
	SPENT, FOREIGN,							\
	LEAVES(0),						\
}

FIXTURE_VARIANT_ADD(state, granted_before_its_thread_ran)
{
	.state = GRANTED,
	.fn = acquire,
	.cells = CELLS_GRANTED,
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, granted_before_its_thread_ran_and_wanted)
{
	.state = GRANTED,
	.fn = acquire,
	.wanted = true,
	.cells = CELLS_GRANTED_WANTED,
	.events = POLLOUT | POLLIN | POLLPRI,
};

FIXTURE_VARIANT_ADD(state, granted_to_reacquire_before_its_thread_ran)
{
	.state = GRANTED,
	.fn = reacquire,
	.cells = CELLS_GRANTED,
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, granted_to_flock_before_its_thread_ran)
{
	.state = GRANTED,
	.fn = flock_wait,
	.wanted = true,
	.cells = CELLS_GRANTED_WANTED,
	.events = POLLOUT | POLLIN | POLLPRI,
};

FIXTURE_VARIANT_ADD(state, holding)
{
	.state = HOLDING,
	.fn = acquire,
	.cells = {
		LEAVES(-EDEADLK), LEAVES(0),
		SPENT, FOREIGN,
		ENDS(0),
		LEAVES(0), LEAVES(0), ENDS(0),
		ABANDONS,
		LEAVES(-EDEADLK), LEAVES(0),
		SPENT, FOREIGN,
		LEAVES(0),
	},
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, holding_and_wanted)
{
	.state = HOLDING,
	.fn = acquire,
	.wanted = true,
	.cells = {
		LEAVES(-EDEADLK), WAITS_NEW,
		SPENT, FOREIGN,
		ENDS(0),
		LEAVES(0), LEAVES(0), ENDS(0),
		ABANDONS,
		LEAVES(-EDEADLK), STARTS,
		SPENT, FOREIGN,
		LEAVES(0),
	},
	.events = POLLOUT | POLLIN | POLLPRI,
};

FIXTURE_VARIANT_ADD(state, holding_by_flock)
{
	.state = HOLDING,
	.fn = flock_wait,
	.cells = {
		LEAVES(-EDEADLK), LEAVES(0),
		SPENT, FOREIGN,
		ENDS(0),
		LEAVES(0), LEAVES(0), ENDS(0),
		ENDS(0),
		LEAVES(-EDEADLK), LEAVES(0),
		SPENT, FOREIGN,
		LEAVES(0),
	},
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, holding_by_flock_and_wanted)
{
	.state = HOLDING,
	.fn = flock_wait,
	.wanted = true,
	.cells = {
		LEAVES(-EDEADLK), WAITS_NEW,
		SPENT, FOREIGN,
		ENDS(0),
		LEAVES(0), LEAVES(0), ENDS(0),
		ENDS(0),
		LEAVES(-EDEADLK), STARTS,
		SPENT, FOREIGN,
		LEAVES(0),
	},
	.events = POLLOUT | POLLIN | POLLPRI,
};

/*
 * Those of an asynchronous request, in which only a call with its ticket
 * differs
 */
#define CELLS_ASYNC(fetch) {						\
	LEAVES(-EBUSY), LEAVES(-EBUSY),					\
	NOT_ITS_KIND, FOREIGN,						\
	ENDS(0),							\
	LEAVES(-EBUSY), LEAVES(-EBUSY), ENDS(0),			\
	ENDS(0),							\
	LEAVES(-EBUSY), LEAVES(-EBUSY),					\
	fetch, fetch, FOREIGN,						\
	LEAVES(-EBUSY),						\
}

FIXTURE_VARIANT_ADD(state, undecided)
{
	.state = PENDING,
	.fn = acquire,
	.held = true,
	.cells = CELLS_ASYNC(LEAVES(-EINPROGRESS)),
};

FIXTURE_VARIANT_ADD(state, undecided_reacquire)
{
	.state = PENDING,
	.fn = reacquire,
	.held = true,
	.cells = CELLS_ASYNC(LEAVES(-EINPROGRESS)),
};

FIXTURE_VARIANT_ADD(state, granted_not_fetched)
{
	.state = UNFETCHED,
	.fn = acquire,
	.cells = CELLS_ASYNC(FETCHES),
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, granted_not_fetched_and_wanted)
{
	.state = UNFETCHED,
	.fn = acquire,
	.wanted = true,
	.cells = CELLS_ASYNC(FETCHES),
	.events = POLLOUT | POLLIN | POLLPRI,
};

FIXTURE_VARIANT_ADD(state, granted_to_reacquire_not_fetched)
{
	.state = UNFETCHED,
	.fn = reacquire,
	.cells = CELLS_ASYNC(FETCHES),
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, failed_not_fetched)
{
	.state = FAILED,
	.fn = acquire,
	.held = true,
	.cells = CELLS_ASYNC(FAILS),
	.events = POLLOUT,
};

FIXTURE_VARIANT_ADD(state, failed_reacquire_not_fetched)
{
	.state = FAILED,
	.fn = reacquire,
	.held = true,
	.cells = CELLS_ASYNC(FAILS),
	.events = POLLOUT,
};

/* Neither an old request nor the free lock helps */
FIXTURE_VARIANT_ADD(state, failed_not_fetched_of_a_free_lock)
{
	.state = FAILED,
	.fn = acquire,
	.cells = CELLS_ASYNC(FAILS),
	.events = POLLOUT,
};

/* A grant that ended unfetched */
FIXTURE_VARIANT_ADD(state, expired_not_fetched)
{
	.state = EXPIRED,
	.fn = acquire,
	.held = true,
	.cells = CELLS_ASYNC(FAILS),
	.events = POLLOUT,
};

#define CELLS_REVOKED {							\
	LEARNS, LEARNS,							\
	LEARNS, LEARNS, LEARNS, LEARNS,					\
	LEARNS,								\
	LEARNS, LEARNS, LEARNS,						\
	/* That is no abandonment */					\
	ENDS(0),							\
	LEARNS, LEARNS,							\
	LEARNS, LEARNS, LEARNS, LEARNS,					\
	LEARNS,								\
}

#define EVENTS_REVOKED	(POLLOUT | POLLERR | POLLPRI)

FIXTURE_VARIANT_ADD(state, revoked_of_a_free_lock)
{
	.state = REVOKED,
	.fn = acquire,
	.cells = CELLS_REVOKED,
	.events = EVENTS_REVOKED,
};

FIXTURE_VARIANT_ADD(state, revoked_of_a_held_lock)
{
	.state = REVOKED,
	.fn = acquire,
	.held = true,
	.cells = CELLS_REVOKED,
	.events = EVENTS_REVOKED,
};

FIXTURE_VARIANT_ADD(state, revoked_after_reacquire)
{
	.state = REVOKED,
	.fn = reacquire,
	.held = true,
	.cells = CELLS_REVOKED,
	.events = EVENTS_REVOKED,
};

FIXTURE_VARIANT_ADD(state, revoked_after_flock)
{
	.state = REVOKED,
	.fn = flock_wait,
	.held = true,
	.cells = CELLS_REVOKED,
	.events = EVENTS_REVOKED,
};

FIXTURE_VARIANT_ADD(state, revoked_not_fetched)
{
	.state = LOST,
	.fn = acquire,
	.held = true,
	.cells = CELLS_REVOKED,
	.events = EVENTS_REVOKED,
};

FIXTURE_VARIANT_ADD(state, revoked_reacquire_not_fetched)
{
	.state = LOST,
	.fn = reacquire,
	.cells = CELLS_REVOKED,
	.events = EVENTS_REVOKED,
};

#define NEED_TWO_CPUS() do {						\
	if (!can_hold_back())						\
		SKIP(return, "this needs two CPUs");			\
} while (0)

/* What comes before @fn by a contender makes the other one hold the lock. */
static struct call *begin(int c, call_fn *fn, int other)
{
	struct call *next = NULL;

	if (fn == reacquire) {
		take(c, "c");
		next = call(other, acquire, FOREVER, "other");
		if (!await_waiters(c, 1))
			die("nobody waits");
	} else {
		take(other, "other");
	}
	return next;
}

/* Makes a contender sleep for its request; the other one holds the lock. */
static struct call *begin_sleep(int c, call_fn *fn, int other)
{
	struct call *next = begin(c, fn, other);
	struct call *sleeper = call(c, fn, FOREVER, "c");

	if (next && result(next))
		die("nobody was let in");
	if (!await_state(c, "waiting") || !await_asleep(sleeper->tid))
		die("it does not wait");
	return sleeper;
}

/* The same with an asynchronous request, made by @a if it is not NULL */
static void begin_async(int c, call_fn *fn, int other, __s64 timeout_ns,
			struct agent *a)
{
	struct call *next = begin(c, fn, other);
	struct tlock_acquire arg = ask_async(timeout_ns, "c");
	int ret = a ? agent_do(a, fn, &arg) : fn(c, &arg);

	if (ret != -EINPROGRESS)
		die("a request does not wait: %d", ret);
	if (next && result(next))
		die("nobody was let in");
}

/* Takes the lock from the contender in that state. */
static void lose_lock(FIXTURE_DATA(state) *self, bool held)
{
	if (revoke_grant(self->other, look(self->other).holder.token, 0))
		die("the grant is not revoked");
	if (held)
		take(self->other, "other");
}

static void set_up_async(FIXTURE_DATA(state) *self,
			 const FIXTURE_VARIANT(state) *variant)
{
	bool fails = variant->state == FAILED;
	struct agent *a = NULL;

	if (variant->state == EXPIRED)
		a = agent_sharing(self->c);
	begin_async(self->c, variant->fn, self->other, fails ? MSEC : FOREVER,
		    a);
	state_of(self->c, &self->ticket);
	if (a)
		agent_kill(a);
	if (fails && !await_state(self->c, "decided"))
		die("it does not fail");
	if (!fails || !variant->held || variant->state == LOST) {
		if (variant->wanted) {
			self->waiter = call(contender(), acquire, FOREVER,
					    "waiter");
			if (!await_waiters(self->c, 2))
				die("nobody waits");
		}
		if (variant->state != PENDING && release(self->other))
			die("the other does not hold the lock");
	}
	/* The end of its process was the end of its grant */
	if (a)
		take(self->other, "other");
	if (variant->state == LOST)
		lose_lock(self, variant->held);
}

FIXTURE_SETUP(state)
{
	self->c = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
	if (variant->state == GRANTED && !can_hold_back())
		return;

	self->newest = take(self->other, "other") - look(self->c).acquired;
	ASSERT_EQ(0, release(self->other));
	if (variant->state >= PENDING) {
		set_up_async(self, variant);
		self->state = state_of(self->c, &self->number);
		self->before = look(self->c);
		self->newest += self->before.acquired;
		return;
	}
	self->sleeper = begin_sleep(self->c, variant->fn, self->other);
	state_of(self->c, &self->ticket);
	if (variant->wanted) {
		self->waiter = call(contender(), acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->c, 2));
	}
	if (variant->state == AWAY) {
		handle_usr1(0);
		send_signal(self->sleeper, SIGUSR1);
		ASSERT_EQ(-EINTR, result(self->sleeper));
	}
	if (variant->state == GRANTED)
		self->hogger = hold_back(self->sleeper);
	if (variant->state != SLEEPS && !(variant->state == AWAY &&
					  variant->held)) {
		ASSERT_EQ(0, release(self->other));
	}
	if (variant->state == IDLE || variant->state == HOLDING ||
	    variant->state == REVOKED) {
		ASSERT_EQ(0, result(self->sleeper));
	}
	if (variant->state == REVOKED)
		lose_lock(self, variant->held);
	if (variant->state == IDLE) {
		ASSERT_EQ(0, release(self->c));
		if (variant->held)
			take(self->other, "other");
	}

	self->state = state_of(self->c, &self->number);
	self->before = look(self->c);
	self->newest += self->before.acquired;
}

FIXTURE_TEARDOWN(state)
{
	close(self->c);
	close(self->other);
	EXPECT_LEFT_FREE();
}

/* Lets the sleeper run, now that the contender's state has been seen. */
#define LET_RUN() do {							\
	if (self->hogger)						\
		let_run(self->hogger);					\
} while (0)

/* The sleeper's call returns what it should. */
#define EXPECT_SLEEPER(cancels) do {					\
	if (variant->state != SLEEPS && variant->state != GRANTED)	\
		break;							\
	ASSERT_EQ(cancels ? -ECANCELED : 0, result(self->sleeper));	\
	EXPECT_EQ(0, self->sleeper->arg->ticket);			\
	if (cancels || variant->fn == flock_wait) {			\
		EXPECT_TRUE(poisoned(&self->sleeper->arg->token, 8));	\
	} else {							\
		EXPECT_EQ(self->newest + (variant->state == SLEEPS),	\
			  self->sleeper->arg->token);			\
	}								\
} while (0)

/* The next grant after a revocation says so. */
#define EXPECT_REVOCATION_SEEN() do {					\
	if (!variant->held && (variant->state == REVOKED ||		\
			       variant->state == LOST))			\
		EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->other);		\
} while (0)

/* The lock's status did not change. */
#define EXPECT_UNCHANGED() do {						\
	struct tlock_status __now = look(self->other);			\
									\
	EXPECT_EQ(0, memcmp(&self->before, &__now, sizeof(__now)));	\
} while (0)

static void examine(struct __test_metadata *_metadata,
		    FIXTURE_DATA(state) *self,
		    const FIXTURE_VARIANT(state) *variant, enum column column)
{
	const struct cell *cell = &variant->cells[column];
	bool waits = cell->effect == WAITS_ON || cell->effect == WAITS_ANEW;
	bool yields = variant->wanted &&
		      (waits || cell->effect == STARTED);
	bool has_arg = column <= REACQUIRE_FOREIGN || column >= START;
	struct tlock_acquire arg;
	const char *state;
	struct call *call;
	__u64 ticket = 0, number;

	ASSERT_NE(MISSING, cell->effect);
	if (column == ACQUIRE_OWN || column == REACQUIRE_OWN ||
	    column == FETCH || column == REFETCH)
		ticket = self->ticket;
	/* If another contender waits, its ticket is the one after ours */
	if (column == ACQUIRE_FOREIGN || column == REACQUIRE_FOREIGN ||
	    column == FETCH_FOREIGN || column == REFETCH_FOREIGN)
		ticket = self->ticket + 1;

	arg = ask(FOREVER, column == ACQUIRE ? "anew" : "");
	arg.ticket = ticket;
	if (column >= START)
		arg.flags = column == RENEW ? TLOCK_RENEW : TLOCK_ASYNC;
	call = call_with(self->c, column_fns[column], &arg);
	if (waits) {
		ASSERT_TRUE(await_state(self->c, "waiting"));
	} else {
		ASSERT_EQ(cell->ret, result(call));
		/* Only an outcome clears the ticket, not another error */
		if (cell->effect == STARTED)
			state_of(self->c, &ticket);
		if (has_arg) {
			EXPECT_EQ(cell->ret && cell->ret != -ECANCELED &&
				  cell->ret != -ETIMEDOUT &&
				  cell->ret != -ESTALE ? ticket : 0,
				  arg.ticket);
		}
		if (has_arg && cell->ret) {
			EXPECT_TRUE(poisoned(&arg.token, sizeof(arg.token)));
		}
		if (cell->ret == -ETIMEDOUT) {
			EXPECT_STREQ("other", arg.holder.job);
			EXPECT_EQ(self->newest, arg.holder.token);
		}
	}

	state = state_of(self->c, &number);
	switch (cell->effect) {
	case KEPT:
		EXPECT_STREQ(self->state, state);
		EXPECT_EQ(self->number, number);
		EXPECT_UNCHANGED();
		if (has_arg && !cell->ret) {
			EXPECT_EQ(number, arg.token);
		}
		break;
	case ENDED:
		EXPECT_STREQ("idle", state);
		/* Nothing is left to release */
		EXPECT_EQ(-EPERM, release(self->c));
		break;
	case TAKEN:
		EXPECT_STREQ("holding", state);
		EXPECT_EQ(self->newest + 1, number);
		if (has_arg) {
			EXPECT_EQ(number, arg.token);
		}
		break;
	case WAITS_ON:
		EXPECT_EQ(self->ticket, number);
		break;
	case WAITS_ANEW:
		EXPECT_LT(self->ticket, number);
		break;
	case STARTED:
		EXPECT_STREQ("waiting", state);
		EXPECT_LT(self->ticket, number);
		EXPECT_EQ(0, events_of(self->c));
		break;
	case FETCHED:
		EXPECT_STREQ("holding", state);
		EXPECT_EQ(self->newest, number);
		EXPECT_EQ(number, arg.token);
		/* Only once */
		arg.ticket = ticket;
		EXPECT_EQ(-ECANCELED, column_fns[column](self->c, &arg));
		break;
	default:
		ASSERT_TRUE(false);
	}

	LET_RUN();
	if (waits || cell->effect == STARTED) {
		EXPECT_SLEEPER(cell->cancels);
		if (yields) {
			ASSERT_EQ(0, result(self->waiter));
			ASSERT_EQ(0, release(self->waiter->fd));
		} else {
			ASSERT_EQ(0, release(self->other));
		}
		if (waits) {
			ASSERT_EQ(0, result(call));
		} else {
			EXPECT_EQ(POLLOUT, await_events(self->c, POLLOUT));
			ASSERT_EQ(0, column_fns[column](self->c, &arg));
		}
		EXPECT_STREQ("holding", state_of(self->c, &number));
		if (has_arg) {
			EXPECT_EQ(number, arg.token);
			EXPECT_EQ(0, arg.ticket);
		}
		ASSERT_EQ(0, release(self->c));
		return;
	}

	/* Those who still wait get the lock */
	if (variant->held) {
		ASSERT_EQ(0, release(self->other));
	}
	EXPECT_SLEEPER(cell->cancels);
	if (cell->effect == TAKEN || cell->effect == FETCHED ||
	    (cell->effect == KEPT && variant->state != IDLE)) {
		ASSERT_EQ(0, release(self->c));
	}
	if (variant->wanted) {
		ASSERT_EQ(0, result(self->waiter));
		EXPECT_EQ(self->newest + 1, self->waiter->arg->token);
		EXPECT_EQ(0, self->waiter->arg->result);
		ASSERT_EQ(0, release(self->waiter->fd));
	}
	EXPECT_REVOCATION_SEEN();
}

#define TEST_COLUMN(name, column)					\
TEST_F(state, name)							\
{									\
	if (variant->state == GRANTED)					\
		NEED_TWO_CPUS();					\
	examine(_metadata, self, variant, column);			\
}

TEST_COLUMN(acquire, ACQUIRE)
TEST_COLUMN(reacquire, REACQUIRE)
TEST_COLUMN(acquire_with_own_ticket, ACQUIRE_OWN)
TEST_COLUMN(reacquire_with_own_ticket, REACQUIRE_OWN)
TEST_COLUMN(acquire_with_foreign_ticket, ACQUIRE_FOREIGN)
TEST_COLUMN(reacquire_with_foreign_ticket, REACQUIRE_FOREIGN)
TEST_COLUMN(release, RELEASE)
TEST_COLUMN(flock_ex, FLOCK_EX)
TEST_COLUMN(flock_nb, FLOCK_NB)
TEST_COLUMN(flock_un, FLOCK_UN)
TEST_COLUMN(start, START)
TEST_COLUMN(restart, RESTART)
TEST_COLUMN(fetch, FETCH)
TEST_COLUMN(refetch, REFETCH)
TEST_COLUMN(fetch_with_foreign_ticket, FETCH_FOREIGN)
TEST_COLUMN(refetch_with_foreign_ticket, REFETCH_FOREIGN)
TEST_COLUMN(renew, RENEW)

TEST_F(state, poll)
{
	if (variant->state == GRANTED)
		NEED_TWO_CPUS();
	EXPECT_EQ(variant->events, events_of(self->c));
	/* It changes nothing */
	EXPECT_STREQ(self->state, state_of(self->c, NULL));
	EXPECT_UNCHANGED();

	LET_RUN();
	release(self->c);
	release(self->other);
	if (self->sleeper)
		result(self->sleeper);
	release(self->c);
	if (self->waiter) {
		ASSERT_EQ(0, result(self->waiter));
		ASSERT_EQ(0, release(self->waiter->fd));
	}
	EXPECT_REVOCATION_SEEN();
}

TEST_F(state, close)
{
	const struct cell *cell = &variant->cells[CLOSE];
	struct tlock_acquire arg = ask(LONG, "next");
	__u64 result_flags = 0;

	if (variant->state == GRANTED)
		NEED_TWO_CPUS();
	ASSERT_NE(MISSING, cell->effect);
	ASSERT_EQ(0, close(self->c));
	if (cell->effect == ABANDONED) {
		result_flags = TLOCK_ABANDONED;
	} else if (variant->state == SLEEPS || variant->state == GRANTED) {
		/* The call keeps the file open, and then it holds the lock */
		ASSERT_EQ(KEPT, cell->effect);
		EXPECT_UNCHANGED();
		LET_RUN();
		if (variant->held) {
			ASSERT_EQ(0, release(self->other));
		}
		EXPECT_SLEEPER(false);
		result_flags = variant->fn == flock_wait ? 0 : TLOCK_ABANDONED;
	} else if (variant->state != HOLDING && variant->state != UNFETCHED) {
		/* The close affected neither the holder nor the grants */
		EXPECT_EQ(self->before.holder.token,
			  look(self->other).holder.token);
		EXPECT_EQ(self->before.acquired, look(self->other).acquired);
	}
	EXPECT_EQ(self->before.abandoned + !!result_flags,
		  look(self->other).abandoned);

	/* The next grant reports it */
	if (variant->wanted) {
		ASSERT_EQ(0, result(self->waiter));
		EXPECT_EQ(result_flags, self->waiter->arg->result);
		ASSERT_EQ(0, release(self->waiter->fd));
		result_flags = 0;
	}
	EXPECT_REVOCATION_SEEN();
	if (!variant->held || variant->state == SLEEPS) {
		ASSERT_EQ(0, acquire(self->other, &arg));
		EXPECT_EQ(result_flags, arg.result);
	}
	EXPECT_EQ(0, release(self->other));
}

/* Which error is returned where several apply; each leaves the ticket alone. */
#define EXPECT_REFUSED(err, fd, arg) do {				\
	EXPECT_EQ(err, acquire(fd, arg));				\
	EXPECT_EQ(err, reacquire(fd, arg));				\
} while (0)

/* Takes the lock from its holder. */
static int lose(int fd)
{
	return revoke_grant(fd, look(fd).holder.token, 0);
}

TEST_F(tlock, order_of_errors)
{
	long page = sysconf(_SC_PAGESIZE);
	struct tlock_acquire arg, *cut;
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
	char *pages;

	ASSERT_LE(0, fd);
	pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, pages);
	ASSERT_EQ(0, munmap(pages + page, page));
	/* All of it is mapped but the job and what follows */
	cut = (void *)(pages + page - offsetof(struct tlock_acquire, job));

	/*
	 * On an idle file, then on one that holds the lock, then on one that
	 * lost it
	 */
	for (int state = 0; state < 3; state++) {
		if (state == 1)
			take(self->fd, "holder");
		if (state == 2) {
			ASSERT_EQ(0, lose(self->fd));
		}
		/* EBADF */
		EXPECT_REFUSED(-EBADF, fd, NULL);
		arg = ask(0, "\n");
		arg.ticket = 1234;
		EXPECT_REFUSED(-EBADF, fd, &arg);
		EXPECT_EQ(1234, arg.ticket);
		/* EFAULT */
		memcpy(cut, &arg, offsetof(struct tlock_acquire, job));
		cut->flags = 4;
		EXPECT_REFUSED(-EFAULT, self->fd, cut);
		EXPECT_EQ(1234, cut->ticket);
		/* EINVAL: the job, a flag, a field */
		EXPECT_REFUSED(-EINVAL, self->fd, &arg);
		arg.job[0] = 0;
		arg.flags = 4;
		EXPECT_REFUSED(-EINVAL, self->fd, &arg);
		/* A renewal resumes nothing */
		arg.flags = TLOCK_RENEW;
		EXPECT_REFUSED(-EINVAL, self->fd, &arg);
		arg.flags = 0;
		arg.reserved[0] = 1;
		EXPECT_REFUSED(-EINVAL, self->fd, &arg);
		EXPECT_EQ(1234, arg.ticket);
		arg.reserved[0] = 0;
		/* ESTALE */
		if (state == 2) {
			EXPECT_STREQ("revoked", state_of(self->fd, NULL));
			EXPECT_EQ(-ESTALE, acquire(self->fd, &arg));
			EXPECT_EQ(0, arg.ticket);
			take(self->fd, "holder");
			ASSERT_EQ(0, lose(self->fd));
			arg.ticket = 1234;
			EXPECT_EQ(-ESTALE, reacquire(self->fd, &arg));
			EXPECT_EQ(0, arg.ticket);
			arg.ticket = 1234;
		}
		/* ECANCELED */
		EXPECT_EQ(-ECANCELED, acquire(self->fd, &arg));
		EXPECT_EQ(0, arg.ticket);
		arg.ticket = 1234;
		EXPECT_EQ(-ECANCELED, reacquire(self->fd, &arg));
		EXPECT_EQ(0, arg.ticket);
	}
	/* No call has reported the revocation to a holder yet */
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->fd);
	close(fd);
}

/*
 * The same for a file with a request: a thread sleeps, or the request is away.
 * The request stays as it was.
 */
TEST_F(tlock, errors_leave_a_request_alone)
{
	struct call *sleeper;
	struct tlock_acquire arg;
	int c = contender();
	__u64 ticket, number;

	sleeper = begin_sleep(c, acquire, self->fd);
	state_of(c, &ticket);
	handle_usr1(0);
	for (int away = 0; away < 2; away++) {
		if (away) {
			send_signal(sleeper, SIGUSR1);
			ASSERT_EQ(-EINTR, result(sleeper));
		}
		EXPECT_REFUSED(-EFAULT, c, NULL);
		arg = ask(0, "\n");
		EXPECT_REFUSED(-EINVAL, c, &arg);
		/* Even the right ticket does not help; they leave it alone */
		arg.ticket = ticket;
		EXPECT_REFUSED(-EINVAL, c, &arg);
		EXPECT_EQ(ticket, arg.ticket);
		EXPECT_STREQ(away ? "away" : "waiting", state_of(c, &number));
		EXPECT_EQ(ticket, number);
	}
	EXPECT_EQ(0, release(c));
	EXPECT_EQ(0, release(self->fd));
	close(c);
}

/* On a restart, the handler has made calls on the same file. */
FIXTURE(handler)
{
	int c;
	int other;
};

FIXTURE_VARIANT(handler)
{
	call_fn *fn;
	call_fn *in_handler;
	int ret;
	const char *state;
};

FIXTURE_VARIANT_ADD(handler, of_acquire_acquires)
{
	.fn = acquire,
	.in_handler = acquire,
	.ret = -ECANCELED,
	.state = "holding",
};

FIXTURE_VARIANT_ADD(handler, of_reacquire_acquires)
{
	.fn = reacquire,
	.in_handler = acquire,
	.ret = -ECANCELED,
	.state = "holding",
};

/* flock(2) has no ticket that could be an old one */
FIXTURE_VARIANT_ADD(handler, of_flock_acquires)
{
	.fn = flock_wait,
	.in_handler = acquire,
	.ret = 0,
	.state = "holding",
};

FIXTURE_VARIANT_ADD(handler, of_acquire_releases)
{
	.fn = acquire,
	.in_handler = do_release,
	.ret = -ECANCELED,
	.state = "idle",
};

FIXTURE_VARIANT_ADD(handler, of_reacquire_releases)
{
	.fn = reacquire,
	.in_handler = do_release,
	.ret = -ECANCELED,
	.state = "idle",
};

FIXTURE_SETUP(handler)
{
	self->c = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
}

FIXTURE_TEARDOWN(handler)
{
	close(self->c);
	close(self->other);
	EXPECT_LEFT_FREE();
}

TEST_F(handler, g9_restart_after_its_handlers_call)
{
	struct call *sleeper = begin_sleep(self->c, variant->fn, self->other);
	__u64 number;

	in_handler = variant->in_handler;
	handler_fd = self->c;
	handler_ret = STUCK;
	atomic_store(&linger, 1);
	handle_usr1_with(SA_RESTART, do_in_handler);
	send_signal(sleeper, SIGUSR1);
	ASSERT_TRUE(await_value(&handled, 1));
	ASSERT_EQ(0, release(self->other));
	atomic_store(&linger, 0);
	ASSERT_EQ(variant->ret, result(sleeper));
	EXPECT_EQ(0, handler_ret);
	EXPECT_EQ(0, sleeper->arg->ticket);
	EXPECT_STREQ(variant->state, state_of(self->c, &number));
	EXPECT_EQ(look(self->other).holder.token, number);
	if (number) {
		EXPECT_STREQ("handler", look(self->other).holder.job);
		EXPECT_EQ(0, release(self->c));
	}
}

/*
 * A holder died, and the thread that was granted the lock next has not run yet.
 * If its grant ends first, TLOCK_ABANDONED goes to the next grant.
 */
FIXTURE(unseen)
{
	int c;
	int other;
	struct call *sleeper;
	struct call *hogger;
	__u64 token;
};

FIXTURE_VARIANT(unseen)
{
	call_fn *fn;
};

FIXTURE_VARIANT_ADD(unseen, acquire)
{
	.fn = acquire,
};

/* flock(2) cannot return it in any case */
FIXTURE_VARIANT_ADD(unseen, flock)
{
	.fn = flock_wait,
};

FIXTURE_SETUP(unseen)
{
	struct agent *mortal;

	self->c = contender();
	self->other = contender();
	ASSERT_FREE(self->c);
	if (!can_hold_back())
		return;
	mortal = agent();
	run_on(mortal->pid, 0);
	agent_take(mortal, "mortal");
	self->sleeper = call(self->c, variant->fn, FOREVER, "c");
	ASSERT_TRUE(await_state(self->c, "waiting"));
	self->hogger = hold_back(self->sleeper);
	agent_kill(mortal);
	ASSERT_STREQ("holding", state_of(self->c, &self->token));
}

FIXTURE_TEARDOWN(unseen)
{
	close(self->c);
	close(self->other);
	EXPECT_LEFT_FREE();
}

#define EXPECT_CANCELED() do {						\
	LET_RUN();							\
	ASSERT_EQ(-ECANCELED, result(self->sleeper));			\
	if (variant->fn == acquire) {					\
		EXPECT_EQ(0, self->sleeper->arg->result);		\
	}								\
} while (0)

TEST_F(unseen, g11_released_the_next_newcomer_learns)
{
	struct tlock_acquire arg = ask(0, "next");

	NEED_TWO_CPUS();
	ASSERT_EQ(0, release(self->c));
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_CANCELED();
	EXPECT_EQ(0, release(self->other));
}

TEST_F(unseen, g11_released_the_next_waiter_learns)
{
	struct call *waiter;

	NEED_TWO_CPUS();
	waiter = call(self->other, acquire, FOREVER, "next");
	ASSERT_TRUE(await_waiters(self->c, 1));
	ASSERT_EQ(0, release(self->c));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(TLOCK_ABANDONED, waiter->arg->result);
	EXPECT_CANCELED();
	EXPECT_EQ(0, release(self->other));
}

TEST_F(unseen, g11_passed_on_by_reacquire)
{
	struct call *waiter, *yielder;

	NEED_TWO_CPUS();
	waiter = call(self->other, acquire, FOREVER, "next");
	ASSERT_TRUE(await_waiters(self->c, 1));
	yielder = call(self->c, reacquire, FOREVER, "");
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(TLOCK_ABANDONED, waiter->arg->result);
	EXPECT_CANCELED();
	ASSERT_EQ(0, release(self->other));
	ASSERT_EQ(0, result(yielder));
	EXPECT_EQ(0, yielder->arg->result);
	EXPECT_EQ(0, release(self->c));
}

/* The grant is kept, so its own thread learns. */
TEST_F(unseen, g11_kept_by_reacquire)
{
	static const char *const jobs[] = { "", "new" };
	struct tlock_acquire arg;

	NEED_TWO_CPUS();
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
		arg = ask(0, jobs[i]);
		ASSERT_EQ(0, reacquire(self->c, &arg));
		EXPECT_EQ(self->token, arg.token);
		EXPECT_EQ(0, arg.result);
	}
	LET_RUN();
	ASSERT_EQ(0, result(self->sleeper));
	if (variant->fn == acquire) {
		EXPECT_EQ(TLOCK_ABANDONED, self->sleeper->arg->result);
		EXPECT_EQ(self->token, self->sleeper->arg->token);
	}
	EXPECT_EQ(0, release(self->c));
	/* flock(2) cannot report it, so the next call does */
	arg = ask(0, "next");
	ASSERT_EQ(0, acquire(self->other, &arg));
	EXPECT_EQ(variant->fn == acquire ? 0 : TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(self->other));
}

/*
 * A request is withdrawn, and a new one made before the sleeper has run: each
 * of the two has its own outcome.
 */
TEST_F(tlock, g11_asked_anew_before_the_sleeper_ran)
{
	struct call *sleeper, *hogger, *anew;
	int c = contender();
	__u64 ticket, number;

	NEED_TWO_CPUS();
	sleeper = begin_sleep(c, acquire, self->fd);
	state_of(c, &ticket);
	hogger = hold_back(sleeper);
	ASSERT_EQ(0, release(c));
	EXPECT_STREQ("idle", state_of(c, NULL));
	anew = call(c, acquire, FOREVER, "anew");
	ASSERT_TRUE(await_state(c, "waiting"));
	state_of(c, &number);
	EXPECT_LT(ticket, number);

	let_run(hogger);
	ASSERT_EQ(-ECANCELED, result(sleeper));
	EXPECT_STREQ("waiting", state_of(c, &ticket));
	EXPECT_EQ(number, ticket);
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(anew));
	EXPECT_STREQ("anew", look(c).holder.job);
	EXPECT_EQ(0, release(c));
	close(c);
}

/* A withdrawn request leaves no gap in the queue. */
TEST_F(tlock, g11_others_keep_their_order)
{
	struct call *calls[7];
	__u64 token = take(self->fd, "holder");
	int left = 0;

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		calls[i] = call(contender(), acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	/* At either end, and in between */
	for (size_t i = 0; i < ARRAY_SIZE(calls); i += 2) {
		ASSERT_EQ(0, release(calls[i]->fd));
		ASSERT_EQ(-ECANCELED, result(calls[i]));
		EXPECT_EQ(-EPERM, release(calls[i]->fd));
	}
	EXPECT_EQ(3, look(self->fd).waiters);
	ASSERT_EQ(0, release(self->fd));
	for (size_t i = 1; i < ARRAY_SIZE(calls); i += 2) {
		ASSERT_EQ(0, result(calls[i]));
		EXPECT_EQ(token + ++left, calls[i]->arg->token);
		ASSERT_EQ(0, release(calls[i]->fd));
	}
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		close(calls[i]->fd);
}

static int release_at(int fd, struct tlock_acquire *arg)
{
	while (now() < arg->timeout_ns)
		;
	return release(fd);
}

/*
 * RELEASE of a waiter meets the hand-over to it. Whichever comes first,
 * afterwards the file is idle and the lock free. The hand-over is made later if
 * it was first, and earlier if not, to stay close to where the two meet.
 */
TEST_F(tlock, g11_release_meets_hand_over)
{
	__s64 delay = 0, step = 128 * USEC, end = now() + 4 * SEC, at;
	int c = contender(), rounds = 0, granted = 0;
	bool first, was_first = false;
	struct tlock_acquire arg;
	struct call *waiter, *releaser;
	__u64 acquired;

	while (rounds++ < 1000 && now() < end) {
		waiter = begin_sleep(c, acquire, self->fd);
		acquired = look(c).acquired;
		at = now() + MSEC;
		arg = ask(at, "");
		releaser = call_with(c, release_at, &arg);
		while (now() < at + delay)
			;
		ASSERT_EQ(0, release(self->fd));
		ASSERT_EQ(0, result(releaser));
		/* True after both releases, even before the waiter runs */
		ASSERT_STREQ("idle", state_of(c, NULL));
		ASSERT_EQ(0, look(c).holder.token);
		if (result(waiter)) {
			ASSERT_EQ(-ECANCELED, result(waiter));
		} else {
			/* It had returned before RELEASE, or nearly */
			ASSERT_EQ(acquired + 1, look(c).acquired);
		}
		ASSERT_EQ(0, waiter->arg->ticket);
		ASSERT_STREQ("idle", state_of(c, NULL));
		first = look(c).acquired > acquired;
		granted += first;
		if (first != was_first && step > 4 * USEC)
			step /= 2;
		was_first = first;
		delay += first ? step : -step;
	}
	TH_LOG("%d of %d waiters were granted the lock", granted, rounds - 1);
	close(c);
}

TEST_HARNESS_MAIN
