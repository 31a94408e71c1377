// SPDX-License-Identifier: GPL-2.0-only
/*
 * The gate under load. Its daemon opens, renews, recalls and shuts it, and goes
 * away, at random, while contenders come and go. Afterwards each grant is judged
 * by what the daemon had said by then.
 */
#include <stdint.h>

#include "tlock_test.h"

#define NAME	"openings"
/* Tokens of an opening begin at its number times this */
#define TOKENS	1000
#define RUN	(5 * SEC)

/*
 * What the daemon said in a call, which is in force from some time during the
 * call on. A call that changes nothing says the same as the one before.
 */
static struct statement {
	__s64 begun, ended;	/* before and after the call */
	__s64 until;		/* on CLOCK_MONOTONIC; 0 if it allows no grant */
	__u64 first, last;	/* tokens */
	bool over;		/* the call returned that the opening is over */
} said[20000];
static size_t num_said;

/* What a monitor saw: a grant, or as much of it as it did not lose */
static struct grant {
	__u64 token;
	__s64 begun;
	__s64 ended;		/* INT64_MAX if that was not seen */
} grants[20000];
static size_t num_grants;

static atomic_int stop;
static atomic_int lost;
/* The largest token that a contender has got */
static _Atomic __u64 newest;

/* How far CLOCK_BOOTTIME is ahead, or a little less */
static __s64 boottime_ahead(void)
{
	__s64 ahead = 0, difference;

	for (int i = 0; i < 100; i++) {
		difference = boottime();
		difference -= now();
		if (!i || difference > ahead)
			ahead = difference;
	}
	return ahead;
}

/* TLOCK_IOC_GATE, with a record of what the daemon says by it */
static int say(int fd, struct tlock_gate *arg)
{
	struct statement *s = &said[num_said];
	struct statement before = num_said ? s[-1] : (struct statement){};
	int ret;

	if (++num_said == ARRAY_SIZE(said))
		die("the daemon says too much");
	if (arg->op == TLOCK_GATE_SET && arg->until_ns > 0) {
		s->until = arg->until_ns - boottime_ahead();
		s->first = arg->first_token;
		s->last = arg->last_token;
	}
	s->begun = now();
	ret = gate(fd, arg);
	s->ended = now();
	if (ret || arg->op == TLOCK_GATE_LOOK) {
		s->until = before.until;
		s->first = before.first;
		s->last = before.last;
	}
	s->over = arg->state & TLOCK_GATE_OVER;
	return ret;
}

/* The daemon dies, and another one comes. */
static int change_daemon(int fd)
{
	struct tlock_gate arg = { .op = TLOCK_GATE_ATTACH };
	struct statement *s;
	int ret;

	/* The close shuts the gate before the call does anything */
	s = &said[num_said];
	*s = (struct statement){ .begun = now() };
	close(fd);
	s->ended = now();
	num_said++;
	fd = lock_open(NAME, O_RDONLY);
	ret = say(fd, &arg);
	if (ret)
		die("cannot attach: %d", ret);
	return fd;
}

static struct tlock_gate opening(__u64 number, __s64 ns)
{
	return (struct tlock_gate){
		.op = TLOCK_GATE_SET,
		.opening = number,
		.until_ns = boottime() + ns,
		.first_token = number * TOKENS,
		.last_token = number * TOKENS + TOKENS - 1,
	};
}

static struct tlock_gate shutting(__u64 number, __u64 grace_ns)
{
	return (struct tlock_gate){
		.op = TLOCK_GATE_SET,
		.opening = number,
		.grace_ns = grace_ns,
	};
}

/* A contender now believes that it holds the lock */
static void remember(__u64 token)
{
	__u64 before = atomic_load(&newest);

	while (before < token &&
	       !atomic_compare_exchange_weak(&newest, &before, token))
		;
}

/*
 * Takes the lock again and again. While it holds the lock, nobody else gets it,
 * unless this file then learns that it had lost the lock.
 */
static int contend(int seed, struct tlock_acquire *unused)
{
	int fd = contender_of(NAME), ret = 0;
	unsigned int random = seed;
	struct tlock_acquire arg;
	bool alone;

	while (!atomic_load(&stop)) {
		arg = ask(rand_r(&random) % 20 * MSEC, "contender");
		if (rand_r(&random) % 4 == 0)
			arg.lease_ns = 1 + rand_r(&random) % (2 * MSEC);
		ret = acquire(fd, &arg);
		/* It may have waited, and lost the lock before it returned */
		if (ret == -ETIMEDOUT || ret == -ESTALE)
			continue;
		if (ret)
			break;
		remember(arg.token);
		usleep(rand_r(&random) % 500);
		while (!ret && rand_r(&random) % 2) {
			__u64 token = arg.token;

			arg = ask(rand_r(&random) % 20 * MSEC,
				  rand_r(&random) % 2 ? "" : "contender");
			ret = reacquire(fd, &arg);
			if (!ret && arg.token < token)
				return -ERANGE;
			if (!ret)
				remember(arg.token);
		}
		if (ret == -ETIMEDOUT)
			continue;
		if (!ret && rand_r(&random) % 16 == 0) {
			close(fd);
			fd = contender_of(NAME);
			continue;
		}
		alone = atomic_load(&newest) == arg.token;
		if (!ret)
			ret = release(fd);
		if (!ret && !alone)
			return -EUCLEAN;
		if (ret == -ESTALE)
			atomic_fetch_add(&lost, 1);
		else if (ret)
			break;
	}
	close(fd);
	return atomic_load(&stop) ? 0 : ret;
}

static void note(const struct tlock_event *event)
{
	struct grant *last = num_grants ? &grants[num_grants - 1] : NULL;

	if (event->kind == TLOCK_EVENT_ACQUIRED) {
		if (num_grants == ARRAY_SIZE(grants))
			die("too many grants");
		grants[num_grants++] = (struct grant){
			.token = event->token,
			.begun = event->time_ns,
			.ended = INT64_MAX,
		};
	} else if (event->token && last && last->token == event->token) {
		last->ended = event->time_ns;
	}
}

static int watch(int fd, struct tlock_acquire *unused)
{
	struct tlock_event events[64];
	ssize_t len;

	/* Until there is no more after the stop */
	while (true) {
		bool stopped = atomic_load(&stop);

		len = read_events(fd, events, sizeof(events));
		if (len == -EAGAIN && stopped)
			return 0;
		if (len == -EAGAIN)
			usleep(1000);
		else if (len < 0)
			return len;
		for (size_t i = 0; len > 0 && i < len / sizeof(*events); i++)
			note(&events[i]);
	}
}

/* Whether one of the statements that can have been in force then allows it */
static bool allowed(const struct grant *g)
{
	for (size_t i = 0; i < num_said; i++) {
		const struct statement *s = &said[i];

		if (s->begun <= g->begun &&
		    (i + 1 == num_said || g->begun <= s[1].ended) &&
		    g->begun < s->until &&
		    s->first <= g->token && g->token <= s->last)
			return true;
	}
	return false;
}

/* Whether the daemon learned that the opening is over while the grant lasted */
static bool outlasted(const struct grant *g)
{
	for (size_t i = 0; i < num_said; i++)
		if (said[i].over && g->ended != INT64_MAX &&
		    g->begun < said[i].begun && said[i].ended < g->ended)
			return true;
	return false;
}

FIXTURE(openings)
{
	int daemon;
	int watcher;
};

FIXTURE_SETUP(openings)
{
	locks_delete();
	ASSERT_EQ(0, lock_create_gated(NAME));
	self->daemon = daemon_of(NAME);
	self->watcher = lock_open(NAME, O_RDONLY | O_NONBLOCK);
	ASSERT_EQ(0, start_monitor(self->watcher));
}

FIXTURE_TEARDOWN(openings)
{
	close(self->daemon);
	close(self->watcher);
	EXPECT_EQ(0, lock_delete(NAME));
}

TEST_F(openings, bound_all_grants)
{
	struct call *contenders[4], *watcher;
	unsigned int random = 1, over = 0;
	struct tlock_gate arg;
	__u64 number = 1;
	__s64 end;
	int ret;

	arg = opening(number, MSEC);
	ASSERT_EQ(0, say(self->daemon, &arg));
	watcher = call(self->watcher, watch, 0, "");
	for (size_t i = 0; i < ARRAY_SIZE(contenders); i++)
		contenders[i] = call(i, contend, 0, "");

	for (end = now() + RUN; now() < end;) {
		switch (rand_r(&random) % 10) {
		case 0:
		case 1:
		case 2:
			/* If there can be a next one */
			arg = opening(number + 1,
				      rand_r(&random) % 20 * MSEC);
			ret = say(self->daemon, &arg);
			EXPECT_TRUE(!ret || ret == -EBUSY);
			number += !ret;
			break;
		case 3:
			arg = shutting(number, rand_r(&random) % (2 * MSEC));
			EXPECT_EQ(0, say(self->daemon, &arg));
			break;
		case 4:
			/* A call that comes too late, or too early */
			arg = opening(rand_r(&random) % 2 ? number + 2 :
				      number - 1, LONG);
			EXPECT_EQ(-ESTALE, say(self->daemon, &arg));
			break;
		case 5:
			/* Few more tokens */
			arg = (struct tlock_gate){ .op = TLOCK_GATE_LOOK };
			ASSERT_EQ(0, say(self->daemon, &arg));
			ret = arg.token + rand_r(&random) % 3 -
			      number * TOKENS;
			arg = opening(number, 20 * MSEC);
			arg.flags = rand_r(&random) % 2;
			if (ret < 0 || ret >= TOKENS)
				break;
			arg.last_token = arg.first_token + ret;
			ret = say(self->daemon, &arg);
			EXPECT_TRUE(!ret || ret == -ESTALE);
			break;
		case 6:
		case 7:
			arg = opening(number, rand_r(&random) % 20 * MSEC);
			ret = say(self->daemon, &arg);
			EXPECT_TRUE(!ret || ret == -ESTALE);
			break;
		case 8:
			if (rand_r(&random) % 4 == 0)
				self->daemon = change_daemon(self->daemon);
			break;
		case 9:
			usleep(rand_r(&random) % 10000);
			break;
		}
	}
	arg = opening(number, LONG);
	if (say(self->daemon, &arg)) {
		arg = opening(number + 1, LONG);
		EXPECT_EQ(0, say(self->daemon, &arg));
	}
	atomic_store(&stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(contenders); i++)
		EXPECT_EQ(0, result(contenders[i]));
	ASSERT_EQ(0, result(watcher));

	for (size_t i = 0; i < num_grants; i++) {
		EXPECT_TRUE(allowed(&grants[i])) {
			TH_LOG("token %llu, granted at %lld", grants[i].token,
			       grants[i].begun);
		}
		EXPECT_FALSE(outlasted(&grants[i])) {
			TH_LOG("token %llu, ended at %lld", grants[i].token,
			       grants[i].ended);
		}
		if (!i)
			continue;
		EXPECT_LT(grants[i - 1].token, grants[i].token);
		EXPECT_TRUE(grants[i - 1].ended == INT64_MAX ||
			    grants[i - 1].ended <= grants[i].begun);
	}
	for (size_t i = 0; i < num_said; i++)
		over += said[i].over;
	TH_LOG("%llu openings, %zu calls, %zu grants, %d lost", number,
	       num_said, num_grants, atomic_load(&lost));
	EXPECT_LT(20, number);
	EXPECT_LT(20, over);
	EXPECT_LT(100, num_grants);
	EXPECT_LT(0, atomic_load(&lost));
}

TEST_HARNESS_MAIN
