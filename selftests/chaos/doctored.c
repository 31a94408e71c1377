// SPDX-License-Identifier: GPL-2.0-only
/*
 * Small histories that test the judge. It must accept one in which everything
 * happens that can happen. It must reject every history that differs from that
 * one, or from an even smaller one, by a single lie, because of the rule
 * broken.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chaos.h"
#include "helpers.h"

#define CAPACITY	64
#define PID		100		/* of process 0 */
#define FIRST		10		/* newest token before the history */
#define GRANTS		3		/* number of grants before it */
/* The number of grants up to that of a token */
#define GRANTS_BY(token)	((token) - FIRST + GRANTS)

static struct history *h;
static struct lock *lock;

/* Threads 0 to 4, each in its own process and with its own file, 1 to 5 */
static void begin_history(void)
{
	free(h);
	h = calloc(1, sizeof(*h) + CAPACITY * sizeof(struct record));
	if (!h)
		die("no memory");
	h->capacity = CAPACITY;
	h->locks = 1;
	lock = h->lock;
	lock->first = FIRST;
	lock->before.count[ACQUIRED] = GRANTS;
	lock->after.count[ACQUIRED] = GRANTS;
	h->begin = 1;
	h->end = 10000;
	h->processes = h->actors = 5;
	h->files = 6;
	for (int i = 0; i < 5; i++) {
		h->process[i].pid = PID + i;
		h->actor[i].process = i;
	}
}

static struct record *add(enum kind kind, __u16 actor, __s64 begin, __s64 end,
			  int ret)
{
	struct record *r = &h->record[h->records++];

	r->kind = kind;
	r->actor = actor;
	r->file = actor + 1;
	r->begin = begin;
	r->end = end;
	r->ret = ret;
	r->count[ACQUIRED] = GRANTS;
	return r;
}

static struct record *take_it(enum kind kind, __u16 actor, __s64 begin,
			      __s64 end, __s64 timeout, __s64 left,
			      __u64 token)
{
	struct record *r = add(kind, actor, begin, end, 0);

	r->timeout_ns = timeout;
	r->left_ns = left;
	r->token = token;
	if (GRANTS_BY(token) > lock->after.count[ACQUIRED])
		lock->after.count[ACQUIRED] = GRANTS_BY(token);
	return r;
}

static void sees(struct record *r, __u64 token, __s64 since,
		 struct record *holder)
{
	r->holder = (struct sight) {
		.token = token,
		.since_ns = since,
		.pid = PID + holder->actor,
		.comm = holder->actor,
		.job = holder - h->record,
	};
}

static struct record *time_out(enum kind kind, __u16 actor, __s64 begin,
			       __s64 end, __s64 timeout)
{
	struct record *r = add(kind, actor, begin, end, -ETIMEDOUT);

	r->timeout_ns = timeout;
	return r;
}

/* Everything that can happen, by name */
static struct all {
	struct record *first, *waits, *timed_out, *forever, *refused, *look,
		      *interrupted, *yields, *goes_on, *deadlock, *not_held,
		      *look_free, *killed, *last;
} all;

static void tell_all(void)
{
	struct record *r;

	begin_history();
	for (int i = 0; i < 5; i++)
		add(OPEN, i, 10 + i, 20 + i, 0);

	all.first = take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	/* Waits 183, from 122 to 305 */
	all.waits = take_it(ACQUIRE, 1, 120, 330, 1000, 817, 12);
	all.timed_out = time_out(ACQUIRE, 2, 130, 240, 100);
	sees(all.timed_out, 11, 105, all.first);
	all.forever = take_it(ACQUIRE, 2, 250, 420, -1, -1, 13);
	/* By another thread on the same file */
	all.refused = add(ACQUIRE, 4, 260, 262, -EBUSY);
	all.refused->file = 3;
	add(RELEASE, 0, 300, 310, 0);
	all.look = add(STATUS, 3, 340, 350, 0);
	sees(all.look, 12, 305, all.waits);
	all.look->waiters = 1;
	all.look->count[ACQUIRED] = GRANTS_BY(12);
	all.look->count[CONTENDED] = 3;
	all.look->count[TIMED_OUT] = 1;
	all.interrupted = add(ACQUIRE, 3, 352, 398, -EINTR);
	all.interrupted->timeout_ns = all.interrupted->left_ns = -1;
	all.interrupted->after[FAILS] = 1;
	all.interrupted->left_ticket = 4;
	all.yields = take_it(REACQUIRE, 1, 400, 520, 1000, 900, 14);
	all.yields->keeps_job = true;
	all.yields->result = TLOCK_ABANDONED;
	add(CLOSE, 2, 500, 505, 0);
	all.goes_on = take_it(REACQUIRE, 1, 530, 540, 0, 0, 14);
	all.deadlock = add(ACQUIRE, 1, 541, 542, -EDEADLK);
	/* Withdraws the interrupted request */
	add(RELEASE, 3, 543, 544, 0);
	all.not_held = add(RELEASE, 3, 545, 546, -EPERM);
	add(RELEASE, 1, 550, 560, 0);
	all.look_free = add(STATUS, 3, 570, 580, 0);
	memcpy(all.look_free->count,
	       (__u64[COUNTS]){ GRANTS_BY(14), 4, 1, 1, 1, 0, 1 }, sizeof(r->count));
	/* Gets the lock, and is killed before it can report it */
	all.killed = add(ACQUIRE, 0, 582, 0, 0);
	all.killed->timeout_ns = -1;
	h->process[0].doomed = 600;
	h->process[0].reaped = 620;
	all.last = take_it(ACQUIRE, 1, 700, 710, 0, 0, 16);
	all.last->result = TLOCK_ABANDONED;
	add(RELEASE, 1, 720, 730, 0);

	memcpy(lock->after.count,
	       (__u64[COUNTS]){ GRANTS_BY(16), 4, 1, 1, 2, 0, 1 },
	       sizeof(lock->after.count));
	lock->after.wait_ns_total = 579;
	lock->after.wait_ns_max = 183;
	lock->after.hold_ns_total = 490;
	lock->after.hold_ns_max = 200;
}

static void accepts_all(void)
{
	tell_all();
}

static void accepts_nothing(void)
{
	begin_history();
}

/* Calls that overlap may have run in either order. */
static void accepts_overlapping_calls(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 400, 0, 0, 12);
	take_it(ACQUIRE, 1, 100, 400, 0, 0, 11);
	add(RELEASE, 1, 200, 400, 0);
	add(RELEASE, 0, 401, 402, 0);
	lock->after.hold_ns_max = lock->after.hold_ns_total = 50;
}

/* A thread that stalled before it was in the queue came later than it seems. */
static void accepts_stalled_comer(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	take_it(ACQUIRE, 1, 120, 900, -1, -1, 13);
	take_it(ACQUIRE, 2, 300, 400, -1, -1, 12);
	add(RELEASE, 0, 350, 360, 0);
	add(RELEASE, 2, 500, 510, 0);
	add(RELEASE, 1, 910, 920, 0);
	lock->after.count[CONTENDED] = 2;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 60;
	lock->after.hold_ns_total = 700;
	lock->after.hold_ns_max = 412;
}

/* A request is away, and passed over, while its thread handles a signal. */
static void accepts_passed_over(void)
{
	accepts_stalled_comer();
	h->record[1].timeout_ns = 5000;
	h->record[1].left_ns = 5000 - 380;
	h->record[1].after[RESTARTS] = 1;
	lock->after.wait_ns_total = 440;
	lock->after.wait_ns_max = 380;
	lock->after.count[INTERRUPTED] = 1;
}

/* The same while its process is stopped. */
static void accepts_passed_over_while_stopped(void)
{
	accepts_passed_over();
	h->record[1].after[RESTARTS] = 0;
	h->record[1].stops_after = 2;
}

/*
 * 0 holds the lock. 1 has waited since some time in 120 to 130, and is
 * interrupted. So 2, which came later, gets the lock before 1. Then 1 resumes
 * its request, and gets the lock before 3, which came while the request was
 * away.
 */
static struct back {
	struct record *interrupted, *goes_on, *look, *later;
} back;

static void tell_back(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	back.interrupted = add(ACQUIRE, 1, 120, 200, -EINTR);
	back.interrupted->timeout_ns = 1000;
	back.interrupted->left_ns = 930;
	back.interrupted->left_ticket = 7;
	back.interrupted->after[FAILS] = 1;
	take_it(ACQUIRE, 2, 150, 320, -1, -1, 12);
	back.later = take_it(ACQUIRE, 3, 250, 720, 1000, 550, 14);
	add(RELEASE, 0, 300, 310, 0);
	back.goes_on = take_it(REACQUIRE, 1, 330, 520, 930, 620, 13);
	back.goes_on->ticket = 7;
	back.look = add(LOOK, 4, 340, 350, 0);
	back.look->file = 0;
	back.look->ticket = 7;
	add(RELEASE, 2, 500, 510, 0);
	add(RELEASE, 1, 700, 710, 0);
	add(RELEASE, 3, 800, 810, 0);
	memcpy(lock->after.count,
	       (__u64[COUNTS]){ GRANTS_BY(14), 3, 0, 1, 0, 0, 0 },
	       sizeof(lock->after.count));
	lock->after.wait_ns_total = 380 + 450 + 150;
	lock->after.wait_ns_max = 450;
	lock->after.hold_ns_total = 690;
	lock->after.hold_ns_max = 200;
}

static void accepts_back(void)
{
	tell_back();
}

/* Nobody saw that 1 was back before 3 got the lock. */
static void accepts_late_back(void)
{
	tell_back();
	back.goes_on->token = 14;
	back.goes_on->end = 730;
	back.goes_on->left_ns = 1000 - 580;
	back.later->token = 13;
	back.later->end = 520;
	back.later->left_ns = 1000 - 250;
	h->record[8].actor = 3;
	h->record[8].file = 4;
	h->record[9].actor = 1;
	h->record[9].file = 2;
	back.look->ticket = 0;
	lock->after.wait_ns_total = 580 + 250 + 150;
	lock->after.wait_ns_max = 580;
}

/* 1 gives up: it withdraws its request by a release. */
static void accepts_giving_up(void)
{
	tell_back();
	h->record[5].kind = RELEASE;
	h->record[5].ticket = h->record[5].token = 0;
	h->record[5].timeout_ns = h->record[5].left_ns = 0;
	h->record[5].end = 340;
	back.look->ticket = 0;
	h->record[7].kind = STATUS;
	h->record[7].count[ACQUIRED] = GRANTS_BY(12);
	h->record[7].end = 502;
	sees(&h->record[7], 12, 305, &h->record[2]);
	h->record[7].waiters = 1;
	h->record[7].count[CONTENDED] = 3;
	h->record[7].count[INTERRUPTED] = 1;
	h->record[8].actor = 2;
	h->record[8].file = 3;
	back.later->token = 13;
	lock->after.count[ACQUIRED] = GRANTS_BY(13);
	lock->after.wait_ns_total = 70 + 450 + 150;
	lock->after.hold_ns_max = 400;
}

/* Another thread releases the file on which 1 waits. */
static struct canceled {
	struct record *waits, *release, *last;
} canceled;

static void tell_canceled(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	canceled.waits = add(ACQUIRE, 1, 120, 320, -ECANCELED);
	canceled.waits->timeout_ns = 1000;
	canceled.waits->left_ns = 1000 - 180;
	canceled.release = add(RELEASE, 2, 300, 310, 0);
	canceled.release->file = 2;
	add(RELEASE, 0, 400, 410, 0);
	canceled.last = take_it(ACQUIRE, 3, 420, 430, 0, 0, 12);
	add(RELEASE, 3, 440, 450, 0);
	lock->after.count[CONTENDED] = 1;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 180;
	lock->after.hold_ns_total = 320;
	lock->after.hold_ns_max = 300;
}

static void accepts_canceled(void)
{
	tell_canceled();
}

/*
 * 1 had been granted the lock just before, after an abandonment. So the next
 * grant reports the abandonment.
 */
static void accepts_grant_withdrawn(void)
{
	tell_canceled();
	h->record[3].kind = CLOSE;
	h->record[3].begin = 280;
	h->record[3].end = 290;
	canceled.waits->left_ns = 1000 - 160;
	canceled.last->token = 13;
	canceled.last->result = TLOCK_ABANDONED;
	lock->after.count[ACQUIRED] = GRANTS_BY(13);
	lock->after.count[ABANDONED] = 1;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 160;
	lock->after.hold_ns_total = 220;
	lock->after.hold_ns_max = 180;
}

/*
 * flock(): 0 abandons the lock. 1 acquires it by flock(), which cannot report
 * that, so 2 learns of it. 1 holds it already when it calls flock() again.
 * Later 1 closes its file while it holds the lock, which is no abandonment.
 */
static struct flocked {
	struct record *takes, *again, *next, *last;
} flocked;

static void tell_flocked(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	add(CLOSE, 0, 200, 210, 0);
	flocked.takes = take_it(FLOCK, 1, 220, 230, 0, 0, 12);
	flocked.again = take_it(FLOCK, 1, 235, 240, -1, -1, 12);
	add(UNLOCK, 1, 250, 260, 0);
	add(UNLOCK, 1, 261, 262, 0);
	flocked.next = take_it(ACQUIRE, 2, 270, 280, 0, 0, 13);
	flocked.next->result = TLOCK_ABANDONED;
	sees(add(STATUS, 3, 281, 282, 0), 13, 275, flocked.next);
	h->record[7].count[ACQUIRED] = GRANTS_BY(13);
	h->record[7].count[ABANDONED] = 1;
	add(RELEASE, 2, 290, 300, 0);
	take_it(FLOCK, 1, 310, 320, -1, -1, 14);
	add(CLOSE, 1, 330, 340, 0);
	flocked.last = take_it(ACQUIRE, 2, 350, 360, 0, 0, 15);
	add(RELEASE, 2, 370, 380, 0);
	lock->after.count[ABANDONED] = 1;
	lock->after.hold_ns_total = 190;
	lock->after.hold_ns_max = 100;
}

/* A look at a file keeps the file open until the look ends. */
static struct record *tell_closed_during_a_look(void)
{
	struct record *first, *look, *seen;

	begin_history();
	h->actor[1].process = 0;
	add(OPEN, 0, 10, 20, 0);
	first = take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	look = add(LOOK, 1, 150, 300, 0);
	look->file = 0;
	add(CLOSE, 0, 200, 210, 0);
	take_it(ACQUIRE, 2, 220, 310, -1, -1, 12)->result = TLOCK_ABANDONED;
	seen = add(STATUS, 3, 250, 260, 0);
	sees(seen, 11, 105, first);
	seen->waiters = 1;
	seen->count[ACQUIRED] = GRANTS_BY(11);
	seen->count[CONTENDED] = 1;
	add(RELEASE, 2, 320, 330, 0);
	lock->after.count[CONTENDED] = lock->after.count[ABANDONED] = 1;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 60;
	lock->after.hold_ns_total = 200;
	lock->after.hold_ns_max = 180;
	return look;
}

static void accepts_closed_during_a_look(void)
{
	tell_closed_during_a_look();
}

/* Nothing keeps the file open after the look. */
static void kept_open_by_nobody(void)
{
	tell_closed_during_a_look()->end = 190;
}

/*
 * 0 holds the lock and goes on holding it, and 1 has asked for it at 120. But the
 * lock may have stalled then, so that the waiter could not be seen yet.
 */
static struct stalled {
	struct record *asks, *goes_on, *poll;
} stalled;

static void tell_stalled(void)
{
	struct record *look;

	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	stalled.asks = take_it(ACQUIRE, 1, 112, 330, 1000, 1000 - 185, 12);
	stalled.goes_on = take_it(REACQUIRE, 0, 130, 140, -1, -1, 11);
	stalled.goes_on->keeps_job = true;
	stalled.poll = add(POLL, 0, 150, 160, 0);
	stalled.poll->wanted = POLLIN | POLLPRI;
	add(RELEASE, 0, 300, 310, 0);
	look = add(STATUS, 3, 312, 315, 0);
	sees(look, 12, 305, stalled.asks);
	look->count[ACQUIRED] = GRANTS_BY(12);
	look->count[CONTENDED] = 1;
	add(RELEASE, 1, 400, 410, 0);
	lock->after.count[CONTENDED] = 1;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 185;
	lock->after.hold_ns_total = 300;
	lock->after.hold_ns_max = 200;
}

static void accepts_waiter_not_seen_yet(void)
{
	tell_stalled();
}

/* The same when another thread releases that file, which looks held for longer. */
static void accepts_release_not_seen_yet(void)
{
	tell_stalled();
	stalled.goes_on->begin = 306;
	stalled.goes_on->end = 309;
	h->record[4].actor = 4;
	h->record[4].file = 1;
}

/* A call that took the spinlock in between shows that the waiter was there. */
static void holds_on_though_seen(void)
{
	struct record *look;

	tell_stalled();
	look = add(LOOK, 4, 122, 128, 0);
	look->file = 0;
	look->token = 11;
}

static void no_pollpri_though_seen(void)
{
	holds_on_though_seen();
	h->record[h->records - 1].begin = 142;
	h->record[h->records - 1].end = 145;
}

/* With another job, a reacquire takes the spinlock by itself. */
static void holds_on_with_a_new_job(void)
{
	tell_stalled();
	stalled.goes_on->keeps_job = false;
}

static void accepts_flocked(void)
{
	tell_flocked();
}

/*** Lies ***/

static void overlapping_holds(void)
{
	tell_all();
	/* Before the release of 0 */
	all.waits->end = 299;
	all.waits->left_ns = 1000 - 170;
	all.look->holder.since_ns = 298;
}

static void hold_of_the_dead(void)
{
	tell_all();
	/* Certainly before the killed process was gone */
	all.last->begin = 590;
	all.last->end = 595;
}

static void two_with_a_token(void)
{
	tell_all();
	all.forever->token = 12;
}

static void token_of_nobody(void)
{
	tell_all();
	lock->after.count[ACQUIRED] = GRANTS_BY(17);
}

static void token_of_the_past(void)
{
	tell_all();
	all.first->token = FIRST;
}

/* 0 holds the lock, then 1 waits, then 2; but 2 gets the lock first */
static void overtaken(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	/* In the queue since 200 at the latest */
	take_it(ACQUIRE, 1, 120, 900, 1000, 300, 13);
	take_it(ACQUIRE, 2, 300, 400, -1, -1, 12);
	add(RELEASE, 0, 350, 360, 0);
	add(RELEASE, 2, 820, 830, 0);
	add(RELEASE, 1, 910, 920, 0);
}

/* The request that was overtaken timed out later */
static void overtaken_and_timed_out(void)
{
	struct record *r;

	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	r = time_out(ACQUIRE, 1, 120, 900, 700);
	sees(r, 12, 355, take_it(ACQUIRE, 2, 300, 400, -1, -1, 12));
	add(RELEASE, 0, 350, 360, 0);
	add(RELEASE, 2, 910, 920, 0);
}

/* 2 got the lock by a try, and so never waited */
static void barging(void)
{
	overtaken();
	h->record[2].timeout_ns = h->record[2].left_ns = 0;
}

static void late_hand_over(void)
{
	struct record *r;

	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	take_it(ACQUIRE, 1, 120, 900, 1000, 300, 12);
	add(RELEASE, 0, 350, 360, 0);
	r = add(STATUS, 3, 860, 870, 0);
	sees(r, 12, 850, &h->record[1]);
	r->count[ACQUIRED] = GRANTS_BY(12);
	add(RELEASE, 1, 910, 920, 0);
}

static void free_with_waiters(void)
{
	tell_all();
	all.look_free->waiters = 1;
}

static void free_while_one_waits(void)
{
	late_hand_over();
	h->record[3].begin = 700;
	h->record[3].end = 710;
	memset(&h->record[3].holder, 0, sizeof(struct sight));
	h->record[3].count[ACQUIRED] = GRANTS_BY(11);
}

static void yields_to_nobody(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	/* Certainly waits during the whole reacquire */
	take_it(ACQUIRE, 1, 120, 900, 1000, 300, 12);
	take_it(REACQUIRE, 0, 300, 310, 0, 0, 11);
	add(RELEASE, 0, 850, 860, 0);
	add(RELEASE, 1, 910, 920, 0);
}

static void yields_to_itself(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	take_it(REACQUIRE, 0, 300, 310, 1000, 995, 12);
	add(RELEASE, 0, 850, 860, 0);
}

static void yields_to_who_came_later(void)
{
	struct record *r;

	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	r = time_out(REACQUIRE, 0, 300, 310, 0);
	/* It did not wait yet during the reacquire */
	sees(r, 12, 0, take_it(ACQUIRE, 1, 311, 320, -1, -1, 12));
	add(RELEASE, 1, 910, 920, 0);
}

static void sees_the_wrong_one(void)
{
	struct record *r;

	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	r = time_out(REACQUIRE, 0, 300, 400, 0);
	take_it(ACQUIRE, 1, 120, 320, -1, -1, 12);
	add(RELEASE, 1, 330, 340, 0);
	take_it(ACQUIRE, 2, 120, 360, -1, -1, 13);
	/* Not the contender that got the lock from this call */
	sees(r, 13, 340, &h->record[4]);
	add(RELEASE, 2, 910, 920, 0);
}

static void early(void)
{
	tell_all();
	all.timed_out->timeout_ns = 111;
}

static void late(void)
{
	begin_history();
	h->end = 100 * SEC;
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	sees(time_out(ACQUIRE, 1, 120, OVERLONG + 1121, 1000), 11, 105,
	     &h->record[0]);
	add(RELEASE, 0, OVERLONG + 1200, OVERLONG + 1210, 0);
}

static void too_little_left(void)
{
	tell_all();
	/* Waited longer than the call took */
	all.waits->left_ns = 1000 - 211;
}

static void left_of_a_timed_out(void)
{
	tell_all();
	all.timed_out->left_ns = 1;
}

static void left_of_forever(void)
{
	tell_all();
	all.forever->left_ns = 0;
}

static void seen_before_its_grant(void)
{
	tell_all();
	/* That token had not been granted yet */
	sees(all.timed_out, 12, 305, all.waits);
	all.timed_out->end = 242;
}

static void seen_after_its_end(void)
{
	tell_all();
	sees(all.look, 11, 105, all.first);
	all.look->count[ACQUIRED] = GRANTS_BY(11);
}

static void seen_since_another_time(void)
{
	tell_all();
	all.timed_out->holder.since_ns = 99;
}

static void seen_with_another_job(void)
{
	tell_all();
	all.timed_out->holder.job = all.waits - h->record;
}

static void seen_with_another_pid(void)
{
	tell_all();
	all.timed_out->holder.pid = PID + 1;
}

/* Pid 0 means that the process has ended */
static void seen_as_dead(void)
{
	tell_all();
	all.timed_out->holder.pid = 0;
}

static void seen_with_another_uid(void)
{
	tell_all();
	all.timed_out->holder.uid = 1;
}

static void status_of_an_older_one(void)
{
	tell_all();
	all.look->holder.token = 11;
}

static void timed_out_for_nobody(void)
{
	tell_all();
	all.timed_out->holder.token = 0;
}

static void abandoned_unreported(void)
{
	tell_all();
	all.yields->result = 0;
}

static void reported_for_nothing(void)
{
	tell_all();
	all.forever->result = TLOCK_ABANDONED;
}

static void reported_twice(void)
{
	tell_all();
	all.goes_on->result = TLOCK_ABANDONED;
}

static void edeadlk_of_nothing(void)
{
	tell_all();
	all.deadlock->actor = 3;
	all.deadlock->file = 4;
}

static void no_edeadlk(void)
{
	tell_all();
	all.deadlock->ret = -EBUSY;
}

static void eperm_of_the_holder(void)
{
	tell_all();
	all.not_held->actor = 1;
	all.not_held->file = 2;
}

static void release_of_nothing(void)
{
	tell_all();
	all.not_held->ret = 0;
}

static void ebusy_of_nothing(void)
{
	tell_all();
	all.refused->begin = 245;
	all.refused->end = 247;
}

static void no_ebusy(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	take_it(ACQUIRE, 1, 120, 900, 1000, 300, 12);
	/* On the file on which 1 waits */
	sees(time_out(ACQUIRE, 4, 300, 310, 0), 11, 105, &h->record[0]);
	h->record[2].file = 2;
	add(RELEASE, 0, 850, 860, 0);
	add(RELEASE, 1, 910, 920, 0);
}

static void eintr_without_a_signal(void)
{
	tell_all();
	all.interrupted->after[FAILS] = 0;
}

/* After this handler, the call is restarted */
static void eintr_of_a_restart(void)
{
	eintr_without_a_signal();
	all.interrupted->after[RESTARTS] = 1;
}

static void time_out_of_forever(void)
{
	tell_all();
	all.timed_out->timeout_ns = -1;
}

static void too_few_wait(void)
{
	late_hand_over();
	h->record[2].begin = 840;
	h->record[2].end = 850;
	h->record[3].begin = 300;
	h->record[3].end = 310;
	sees(&h->record[3], 11, 105, &h->record[0]);
	h->record[3].count[ACQUIRED] = GRANTS_BY(11);
	h->record[3].count[CONTENDED] = 1;
	/* Everything else is right */
	lock->after.count[CONTENDED] = 1;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 700;
	lock->after.hold_ns_total = 810;
	lock->after.hold_ns_max = 740;
}

static void too_many_wait(void)
{
	tell_all();
	all.look->waiters = 2;
}

static void count_goes_back(void)
{
	tell_all();
	all.look_free->count[TIMED_OUT] = 0;
}

static void miscounted(enum count count, int by)
{
	tell_all();
	lock->after.count[count] += by;
}

static void time_outs_miscounted(void)
{
	miscounted(TIMED_OUT, -1);
	all.look->count[TIMED_OUT] = all.look_free->count[TIMED_OUT] = 0;
}

static void contended_miscounted(void)
{
	/* An error of 1 could be the call that was killed */
	miscounted(CONTENDED, 2);
}

static void interrupted_miscounted(void)
{
	miscounted(INTERRUPTED, 2);
}

static void abandoned_miscounted(void)
{
	miscounted(ABANDONED, 1);
}

static void yielded_miscounted(void)
{
	miscounted(YIELDED, 1);
}

static void waited_less(void)
{
	tell_all();
	lock->after.wait_ns_total = 99;
}

static void held_longer(void)
{
	tell_all();
	lock->after.hold_ns_max = 300;
}

/* Requests, and how they end */

static void overtaken_when_back(void)
{
	accepts_late_back();
	back.look->ticket = 7;
}

static void interrupted_without_a_ticket(void)
{
	tell_back();
	back.interrupted->left_ticket = 0;
}

static void ticket_of_the_granted(void)
{
	tell_back();
	back.goes_on->left_ticket = 7;
}

static void ticket_of_the_canceled(void)
{
	tell_canceled();
	canceled.waits->left_ticket = 7;
}

/* A later request has a smaller ticket */
static void ticket_shrinks(void)
{
	struct record *r;

	tell_back();
	r = add(ACQUIRE, 4, 400, 450, -EINTR);
	r->timeout_ns = r->left_ns = -1;
	r->left_ticket = 6;
	r->after[FAILS] = 1;
}

static void ticket_given_twice(void)
{
	ticket_shrinks();
	h->record[h->records - 1].left_ticket = 7;
}

static void waits_when_nobody_is_there(void)
{
	tell_back();
	back.look->begin = 210;
	back.look->end = 220;
}

/* No request has that ticket */
static void goes_on_with_any_ticket(void)
{
	tell_back();
	back.goes_on->ticket = 8;
}

static void grants_a_ticket_given_up(void)
{
	struct record *r;

	tell_back();
	/* It made a new request in between, which failed */
	r = time_out(ACQUIRE, 1, 210, 220, 0);
	sees(r, 11, 105, &h->record[0]);
}

static void ticket_while_holding(void)
{
	struct record *r;

	tell_back();
	r = add(ACQUIRE, 1, 600, 610, -EDEADLK);
	r->ticket = r->left_ticket = 7;
}

static void time_away_is_not_counted(void)
{
	tell_back();
	back.goes_on->left_ns = 930 - 175;
}

static void deadline_before_it_is_back(void)
{
	struct record *r = (tell_back(), back.goes_on);

	r->ret = -ETIMEDOUT;
	r->token = r->left_ns = 0;
	sees(r, 12, 305, &h->record[2]);
}

static void contended_counted_again(void)
{
	tell_back();
	lock->after.count[CONTENDED]++;
}

static void interrupted_counted_again(void)
{
	tell_back();
	lock->after.count[INTERRUPTED]++;
}

static void waited_before_it_was_away_only(void)
{
	tell_back();
	lock->after.wait_ns_total -= 380 - 70;
}

static void eperm_of_one_that_is_away(void)
{
	accepts_giving_up();
	h->record[5].ret = -EPERM;
}

static void canceled_by_nobody(void)
{
	tell_canceled();
	canceled.release->ret = -EPERM;
}

static void canceled_alone(void)
{
	tell_canceled();
	canceled.release->file = 3;
	canceled.release->ret = -EPERM;
}

static void eperm_of_a_waiter(void)
{
	tell_canceled();
	canceled.waits->ret = 0;
	canceled.waits->token = 12;
	canceled.waits->left_ns = 1000 - 280;
	canceled.waits->end = 415;
	canceled.release->ret = -EPERM;
	canceled.last->token = 13;
	lock->after.count[ACQUIRED] = GRANTS_BY(13);
	add(RELEASE, 1, 416, 418, 0);
}

static void granted_after_its_release(void)
{
	eperm_of_a_waiter();
	canceled.release->ret = 0;
}

static void unreported_by_canceled(void)
{
	accepts_grant_withdrawn();
	canceled.last->result = 0;
}

static void unreported_after_flock(void)
{
	tell_flocked();
	flocked.next->result = 0;
}

static void closing_after_flock_is_reported(void)
{
	tell_flocked();
	flocked.last->result = TLOCK_ABANDONED;
}

static void closing_after_flock_is_counted(void)
{
	tell_flocked();
	lock->after.count[ABANDONED]++;
}

static void flock_grants_again(void)
{
	tell_flocked();
	flocked.again->token = 13;
	flocked.next->token = 14;
	sees(&h->record[7], 14, 275, flocked.next);
	h->record[7].count[ACQUIRED] = GRANTS_BY(14);
	h->record[9].token = 15;
	flocked.last->token = 16;
	lock->after.count[ACQUIRED]++;
}

static void unlock_of_nothing_fails(void)
{
	tell_flocked();
	h->record[5].ret = -EPERM;
}

static void looks_held_when_it_is_not(void)
{
	tell_back();
	back.look->ticket = 0;
	back.look->token = 11;
}

static void starved(void)
{
	tell_all();
	h->stuck = true;
}

/*
 * Several locks: while 0 holds the first one, it also holds another, which 4
 * creates and deletes. Then 4 creates that name again.
 */
static struct several {
	struct record *early, *first, *opened, *takes, *look, *busy, *closed,
		      *deleted, *gone, *missing, *again, *look_again;
} several;

static struct record *on(__u32 minor, __u32 file, struct record *r)
{
	r->minor = minor;
	r->file = file;
	r->name = minor != 0;
	return r;
}

static void tell_several(void)
{
	struct record *r;

	begin_history();
	h->files = 12;
	h->locks = 3;
	h->lock[1] = (struct lock){ .minor = 7, .temporary = true };
	h->lock[2] = (struct lock){ .minor = 8, .temporary = true };
	several.early = on(NOBODY, 11, add(OPEN, 2, 40, 45, -ENOENT));
	on(7, 0, add(CREATE, 4, 50, 60, 0));
	several.first = take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	several.opened = on(7, 6, add(OPEN, 0, 120, 125, 0));
	on(7, 7, add(OPEN, 3, 126, 128, 0))->reader = true;
	/* Not by take_it(), which counts for the first lock */
	several.takes = on(7, 6, add(ACQUIRE, 0, 130, 140, 0));
	several.takes->token = 101;
	several.look = on(7, 7, add(STATUS, 3, 150, 160, 0));
	sees(several.look, 101, 135, several.takes);
	several.look->count[ACQUIRED] = 1;
	several.busy = on(7, 0, add(DELETE, 4, 170, 180, -EBUSY));
	on(7, 6, add(RELEASE, 0, 190, 200, 0));
	several.closed = on(7, 6, add(CLOSE, 0, 210, 220, 0));
	several.deleted = on(7, 0, add(DELETE, 4, 215, 240, 0));
	several.gone = on(7, 7, add(STATUS, 3, 250, 260, -ENODEV));
	several.missing = on(NOBODY, 8, add(OPEN, 1, 262, 264, -ENOENT));

	on(8, 0, add(CREATE, 4, 300, 310, 0));
	on(8, 9, add(OPEN, 1, 320, 325, 0));
	on(8, 10, add(OPEN, 3, 326, 328, 0))->reader = true;
	several.again = on(8, 9, add(ACQUIRE, 1, 330, 340, 0));
	several.again->token = 205;
	several.look_again = on(8, 10, add(STATUS, 3, 342, 344, 0));
	sees(several.look_again, 205, 335, several.again);
	several.look_again->count[ACQUIRED] = 1;
	on(8, 9, add(RELEASE, 1, 350, 355, 0));
	on(8, 9, add(CLOSE, 1, 356, 358, 0));
	add(RELEASE, 0, 400, 410, 0);
	r = add(STATUS, 2, 420, 430, 0);
	r->count[ACQUIRED] = GRANTS_BY(11);
	lock->after.hold_ns_total = lock->after.hold_ns_max = 300;
}

static void accepts_several(void)
{
	tell_several();
}

/* The last close can have come just before the deletion. */
static void accepts_close_during_deletion(void)
{
	tell_several();
	several.closed->begin = 239;
	several.closed->end = 245;
}

/* It was killed in a call that began even before the lock was created. */
static void accepts_early_open(void)
{
	tell_several();
	several.early->end = 0;
	several.early->ret = 0;
	on(8, 0, add(DELETE, 4, 370, 380, -EBUSY));
}

static void token_of_another_lock(void)
{
	tell_several();
	several.takes->token = 12;
}

static void grant_of_another_lock(void)
{
	tell_several();
	/* The first lock counts the grant, too */
	lock->after.count[ACQUIRED]++;
}

static void seen_with_a_job_of_another_lock(void)
{
	tell_several();
	sees(several.look, 101, 135, several.first);
}

static void holder_of_another_lock(void)
{
	tell_several();
	sees(add(STATUS, 2, 150, 160, 0), 101, 135, several.takes);
}

static void lock_of_nobody(void)
{
	tell_several();
	several.takes->minor = 9;
}

static void name_of_another_lock(void)
{
	tell_several();
	several.opened->name = 0;
}

static void deleted_while_open(void)
{
	tell_several();
	several.closed->begin = 241;
	several.closed->end = 245;
}

static void busy_for_nobody(void)
{
	tell_several();
	/* A file that is open for reading is no reason */
	on(8, 0, add(DELETE, 4, 370, 380, -EBUSY));
}

static void deleted_twice(void)
{
	tell_several();
	several.missing->ret = 0;
	several.missing->actor = 4;
	several.missing->kind = DELETE;
}

static void deleted_another(void)
{
	tell_several();
	on(8, 0, several.deleted);
}

static void created_twice(void)
{
	tell_several();
	h->lock[h->locks++] = (struct lock){ .minor = 9, .temporary = true };
	/* In the order in which 4 makes its calls */
	on(9, 0, add(CREATE, 4, 370, 380, 0));
}

static void exists_after_deletion(void)
{
	tell_several();
	several.missing->ret = -EEXIST;
	several.missing->actor = 4;
	several.missing->kind = CREATE;
}

static void opened_after_deletion(void)
{
	tell_several();
	on(7, 8, several.missing)->reader = true;
	several.missing->ret = 0;
}

static void missing_though_there(void)
{
	tell_several();
	several.missing->begin = 345;
	several.missing->end = 347;
}

static void gone_before_deletion(void)
{
	tell_several();
	several.gone->begin = 205;
	several.gone->end = 208;
}

static void there_after_deletion(void)
{
	tell_several();
	several.gone->ret = 0;
	several.gone->count[ACQUIRED] = 1;
}

static void tokens_go_back(void)
{
	tell_several();
	several.again->token = several.look_again->holder.token = 101;
}

/*
 * Asynchronous requests. 1 asks for the lock, which 0 holds. 0 reacquires it, so
 * 1 gets it and fetches the grant. 0 gets the lock back, but withdraws its
 * request and never learns of the grant. 2 asks while 3 holds the lock, in vain.
 * Then it asks again and gets the lock, but fetches the grant too late, as 4 has
 * got it by then. 2 asks for the last time, and closes its file.
 */
static struct async {
	struct record *takes, *asks, *undecided, *waits, *cued, *yields,
		      *decided, *look, *fetch, *gives, *withdraws, *next,
		      *asks_again, *decided_again, *timed_out, *asks_late,
		      *expires, *expired, *canceled, *busy, *mismatched,
		      *last;
} async;

static struct record *with_ticket(__u64 ticket, __u64 left_ticket,
				  struct record *r)
{
	r->async = true;
	r->ticket = ticket;
	r->left_ticket = left_ticket;
	return r;
}

static struct record *start(enum kind kind, __u16 actor, __s64 begin, __s64 end,
			    __s64 timeout, __u64 ticket)
{
	struct record *r = add(kind, actor, begin, end, -EINPROGRESS);

	r->timeout_ns = r->left_ns = timeout;
	return with_ticket(0, ticket, r);
}

static struct record *poll_it(__u16 actor, __s64 begin, __s64 end,
			      __s16 wanted, __s16 events)
{
	struct record *r = add(POLL, actor, begin, end, 0);

	r->wanted = wanted;
	r->events = events;
	return r;
}

static void tell_async(void)
{
	begin_history();
	async.takes = take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	async.asks = start(ACQUIRE, 1, 120, 130, 1000, 5);
	async.undecided = with_ticket(5, 5, add(ACQUIRE, 1, 140, 150,
						-EINPROGRESS));
	async.undecided->timeout_ns = 1000;
	async.undecided->left_ns = 1000 - 20;
	async.waits = poll_it(1, 160, 170, POLLOUT, 0);
	async.cued = poll_it(0, 180, 190, POLLIN | POLLPRI, POLLIN | POLLPRI);
	async.yields = start(REACQUIRE, 0, 300, 310, -1, 6);
	async.decided = poll_it(1, 320, 330, POLLOUT, POLLOUT);
	async.look = add(STATUS, 3, 340, 350, 0);
	sees(async.look, 12, 305, async.asks);
	async.look->holder.unfetched = true;
	async.look->waiters = 1;
	async.look->count[ACQUIRED] = GRANTS_BY(12);
	async.look->count[CONTENDED] = async.look->count[YIELDED] = 1;
	async.fetch = with_ticket(5, 0, take_it(ACQUIRE, 1, 360, 370, 980,
						1000 - 180, 12));
	async.gives = add(RELEASE, 1, 400, 410, 0);
	async.withdraws = add(RELEASE, 0, 450, 460, 0);

	async.next = take_it(ACQUIRE, 3, 500, 510, 0, 0, 14);
	async.asks_again = start(ACQUIRE, 2, 520, 525, 100, 7);
	async.decided_again = poll_it(2, 640, 650, POLLOUT, POLLOUT);
	async.timed_out = with_ticket(7, 0, time_out(ACQUIRE, 2, 660, 670, 100));
	sees(async.timed_out, 14, 505, async.next);
	async.asks_late = start(ACQUIRE, 2, 700, 710, 50, 8);
	add(RELEASE, 3, 720, 730, 0);
	async.expires = take_it(ACQUIRE, 4, 800, 810, 0, 0, 16);
	async.expired = with_ticket(8, 0, time_out(REACQUIRE, 2, 820, 830, 50));
	sees(async.expired, 16, 805, async.expires);
	async.canceled = with_ticket(8, 0, add(ACQUIRE, 2, 832, 834,
					       -ECANCELED));
	start(ACQUIRE, 2, 840, 845, -1, 9);
	async.busy = add(ACQUIRE, 2, 846, 848, -EBUSY);
	async.mismatched = with_ticket(9, 9, add(ACQUIRE, 2, 850, 852,
						 -EINVAL));
	async.mismatched->async = false;
	add(CLOSE, 2, 860, 870, 0);
	async.last = add(RELEASE, 4, 880, 890, 0);

	memcpy(lock->after.count,
	       (__u64[COUNTS]){ GRANTS_BY(16), 4, 2, 0, 0, 0, 1 },
	       sizeof(lock->after.count));
	lock->after.wait_ns_total = 180 + 100 + 100 + 20 + 23;
	lock->after.wait_ns_max = 180;
	lock->after.hold_ns_total = 200 + 100 + 50 + 220 + 80 + 80;
	lock->after.hold_ns_max = 220;
}

static void accepts_async(void)
{
	tell_async();
}

/* 1 polls just when its request is decided. */
static void accepts_decision_not_seen_yet(void)
{
	tell_async();
	async.waits->begin = 306;
	async.waits->end = 308;
}

/* 0 closes its file instead, which is no abandonment. */
static void accepts_closed_unfetched(void)
{
	tell_async();
	async.withdraws->kind = CLOSE;
}

/* 1 abandons the lock, but 0 never fetches that. */
static void accepts_abandoned_to_unfetched(void)
{
	tell_async();
	async.gives->kind = CLOSE;
	async.next->result = TLOCK_ABANDONED;
	lock->after.count[ABANDONED] = 1;
}

/* 1 dies before it has the lock, and 4 has its file, too. */
static struct record *tell_orphaned(void)
{
	struct record *next, *r;

	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	start(ACQUIRE, 1, 120, 130, 5000, 5);
	h->process[1].doomed = 200;
	h->process[1].reaped = 210;
	add(RELEASE, 0, 300, 310, 0);
	next = take_it(ACQUIRE, 2, 400, 410, 0, 0, 13);
	r = with_ticket(5, 0, time_out(ACQUIRE, 4, 420, 430, 5000));
	r->file = 2;
	sees(r, 13, 405, next);
	add(RELEASE, 2, 440, 450, 0);
	lock->after.count[CONTENDED] = lock->after.count[TIMED_OUT] = 1;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 180;
	lock->after.hold_ns_total = 200 + 100 + 40;
	lock->after.hold_ns_max = 200;
	return r;
}

static void accepts_orphaned(void)
{
	tell_orphaned();
}

static void ends_before_its_process(void)
{
	tell_orphaned();
	h->process[1].doomed = 500;
	h->process[1].reaped = 510;
}

static void left_of_an_orphan(void)
{
	tell_orphaned()->left_ns = 5000 - 280;
}

/* There was no grant that could end */
static void orphaned_without_a_grant(void)
{
	struct record *r = tell_orphaned();

	h->record[3].token = 12;
	sees(r, 11, 105, &h->record[0]);
	lock->after.count[ACQUIRED]--;
}

static void early_of_a_request(void)
{
	tell_async();
	async.asks_again->timeout_ns = async.asks_again->left_ns = 200;
}

static void grant_ends_before_its_deadline(void)
{
	tell_async();
	async.expires->begin = 735;
	async.expires->end = 740;
	async.expired->begin = 742;
	async.expired->end = 745;
	async.expired->holder.since_ns = 738;
}

static void late_of_a_request(void)
{
	begin_history();
	h->end = 100 * SEC;
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	start(ACQUIRE, 1, 120, 130, 1000, 5);
	with_ticket(5, 5, add(ACQUIRE, 1, OVERLONG + 1140, OVERLONG + 1150,
			      -EINPROGRESS));
}

/* 0 comes after the expiry, so it must not see that grant */
static void grant_does_not_expire(void)
{
	struct record *r;

	tell_async();
	r = time_out(ACQUIRE, 0, 780, 790, 0);
	sees(r, 15, 725, async.asks_late);
	r->holder.unfetched = true;
}

static void keeps_what_it_yields(void)
{
	tell_async();
	async.look->holder.since_ns = 320;
	async.fetch->left_ns = 1000 - 195;
}

static void fetched_twice(void)
{
	tell_async();
	with_ticket(5, 0, take_it(ACQUIRE, 1, 380, 385, 980, 1000 - 180, 12));
}

static void fails_twice(void)
{
	tell_async();
	async.canceled->ret = -ETIMEDOUT;
	async.canceled->timeout_ns = 50;
	sees(async.canceled, 16, 805, async.expires);
}

static void undecided_after_pollout(void)
{
	struct record *r;

	tell_async();
	r = with_ticket(7, 7, add(ACQUIRE, 2, 652, 656, -EINPROGRESS));
	r->timeout_ns = 100;
}

static void no_pollout_of_the_decided(void)
{
	tell_async();
	poll_it(1, 332, 335, POLLOUT, 0);
}

static void no_pollout_of_the_idle(void)
{
	tell_async();
	poll_it(3, 60, 70, POLLOUT, 0);
}

/* Its call has returned, so it can be seen. */
static void holds_on_while_one_is_pending(void)
{
	tell_async();
	take_it(REACQUIRE, 0, 132, 136, -1, -1, 11)->keeps_job = true;
}

static void no_pollpri(void)
{
	tell_async();
	async.cued->events = 0;
}

static void pollpri_without_pollin(void)
{
	tell_async();
	async.cued->events = POLLPRI;
}

static void pollpri_for_nobody(void)
{
	tell_async();
	async.cued->begin = 112;
	async.cued->end = 115;
}

static void pollpri_of_a_waiter(void)
{
	tell_async();
	async.waits->wanted = async.waits->events = POLLPRI;
}

static void starved_in_poll(void)
{
	tell_async();
	poll_it(3, 900, 0, POLLOUT, 0);
	h->stuck = true;
}

static void no_ebusy_while_pending(void)
{
	tell_async();
	async.busy->ret = -EDEADLK;
}

static void no_einval(void)
{
	tell_async();
	async.mismatched->ret = -EBUSY;
}

static void einval_of_nothing(void)
{
	tell_async();
	async.busy->ret = -EINVAL;
}

static void pending_but_not_async(void)
{
	tell_async();
	async.asks->async = false;
}

static void eperm_of_the_pending(void)
{
	tell_async();
	async.withdraws->ret = -EPERM;
}

static void seen_fetched_too_early(void)
{
	tell_async();
	async.look->holder.unfetched = false;
}

static void seen_unfetched_too_late(void)
{
	tell_async();
	async.look->begin = 372;
	async.look->end = 375;
}

static void seen_unfetched_for_a_call(void)
{
	tell_async();
	async.timed_out->holder.unfetched = true;
}

/* It was withdrawn before */
static void granted_to_nobody(void)
{
	tell_async();
	async.withdraws->begin = 395;
	async.withdraws->end = 399;
}

/* Two grants come between those of 1 and of 3, and only 0 can have had one */
static void granted_twice(void)
{
	tell_async();
	for (__u32 i = 0; i < h->records; i++) {
		struct record *r = &h->record[i];

		r->token += r->token >= 14;
		r->holder.token += r->holder.token >= 14;
	}
	lock->after.count[ACQUIRED]++;
}

static void unreported_by_unfetched(void)
{
	accepts_abandoned_to_unfetched();
	async.next->result = 0;
}

static void closed_unfetched_is_reported(void)
{
	accepts_closed_unfetched();
	async.next->result = TLOCK_ABANDONED;
}

static void closed_unfetched_is_counted(void)
{
	accepts_closed_unfetched();
	lock->after.count[ABANDONED] = 1;
}

static void expired_uncounted(void)
{
	tell_async();
	lock->after.count[TIMED_OUT] = 1;
}

/* 2 gives up when it sees that its request is decided, which was no grant */
static void given_up_uncounted(void)
{
	tell_async();
	async.timed_out->kind = RELEASE;
	async.timed_out->ret = 0;
	async.timed_out->ticket = async.timed_out->timeout_ns = 0;
	async.timed_out->holder.token = 0;
	lock->after.count[TIMED_OUT] = 1;
}

static void closed_counted_as_timed_out(void)
{
	tell_async();
	lock->after.count[TIMED_OUT] = 3;
}

static void pending_is_not_counted(void)
{
	struct record *r;

	tell_async();
	r = add(STATUS, 3, 200, 210, 0);
	sees(r, 11, 105, async.takes);
	r->count[ACQUIRED] = GRANTS_BY(11);
	r->count[CONTENDED] = 1;
}

static void waited_until_it_was_fetched(void)
{
	tell_async();
	lock->after.wait_ns_max = 240;
}

/* What is left was not measured at the grant, but at the fetch */
static void left_at_the_fetch(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	start(ACQUIRE, 1, 120, 130, 1000, 5);
	add(RELEASE, 0, 300, 310, 0);
	poll_it(1, 320, 330, POLLOUT, POLLOUT);
	with_ticket(5, 0, take_it(ACQUIRE, 1, 420, 430, 1000, 1000 - 300, 12));
	add(RELEASE, 1, 440, 450, 0);
}

static void time_pending_is_not_counted(void)
{
	tell_async();
	async.undecided->left_ns = 1000 - 9;
}

static void ticket_of_the_fetched(void)
{
	tell_async();
	async.fetch->left_ticket = 5;
}

/* 1 has a request since 130 at the latest, but 2, which came later, is first */
static void overtaken_while_pending(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	start(ACQUIRE, 1, 120, 130, -1, 5);
	take_it(ACQUIRE, 2, 200, 360, -1, -1, 12);
	add(RELEASE, 0, 300, 310, 0);
	add(RELEASE, 2, 400, 410, 0);
	with_ticket(5, 0, take_it(ACQUIRE, 1, 420, 430, -1, -1, 13));
	add(RELEASE, 1, 440, 450, 0);
}

static void overtaken_and_withdrawn(void)
{
	overtaken_while_pending();
	h->record[5] = h->record[6];
	h->records--;
	h->record[5].begin = 380;
	h->record[5].end = 390;
	lock->after.count[ACQUIRED]--;
}

static void free_while_one_is_pending(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	start(ACQUIRE, 1, 120, 130, -1, 5);
	add(RELEASE, 0, 300, 310, 0);
	add(STATUS, 3, 320, 330, 0)->count[ACQUIRED] = GRANTS_BY(11);
	poll_it(1, 340, 345, POLLOUT, 0);
	with_ticket(5, 0, take_it(ACQUIRE, 1, 420, 430, -1, -1, 12));
	add(RELEASE, 1, 440, 450, 0);
}

/* 4 withdraws the request of 1, on the same file. */
static void fetched_after_its_withdrawal(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	start(ACQUIRE, 1, 120, 130, -1, 5);
	add(RELEASE, 4, 200, 210, 0)->file = 2;
	add(RELEASE, 0, 300, 310, 0);
	with_ticket(5, 0, take_it(ACQUIRE, 1, 420, 430, -1, -1, 12));
	add(RELEASE, 1, 440, 450, 0);
	lock->after.count[CONTENDED] = 1;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 180;
	lock->after.hold_ns_total = 340;
	lock->after.hold_ns_max = 200;
}

/*
 * Leases and revocations. The lease of 0 ends while 1 waits, so 1 gets the lock,
 * and 0 learns it. 2 revokes the grant of 1 after a grace, which 1 does not escape
 * by renewing it, as 0 waits; and then that of 0, at once. 0 closes its file
 * without having learned it. 4, another user, may not revoke the grant of 3. The
 * lease of 1 ends before 1 has fetched its grant, as 2 wants the lock. In the end
 * the grant of 1 is revoked before its call can return it.
 */
static struct revoked {
	struct record *leased, *look, *waits, *pollerr, *learns, *idle, *grace,
		      *look_again, *renews, *waits_again, *asks, *at_once,
		      *too_late, *closes, *next, *forbidden, *plain, *asks_async,
		      *expires, *fetch, *deprived, *last;
} revoked;

static struct record *revoke(__u16 actor, __s64 begin, __s64 end, int ret,
			     __u64 token, __u64 grace)
{
	struct record *r = add(REVOKE, actor, begin, end, ret);

	r->token = token;
	r->timeout_ns = grace;
	return r;
}

static struct record *with_lease(__u64 lease, struct record *r)
{
	r->lease_ns = lease;
	return r;
}

static void sees_expiry(struct record *r, bool leased, bool revoking, __s64 at)
{
	r->holder.leased = leased;
	r->holder.revoking = revoking;
	r->holder.expires_ns = at;
}

static void tell_revoked(void)
{
	begin_history();
	h->process[4].own_uids = true;
	h->process[4].uid = 500;
	revoked.leased = with_lease(100, take_it(ACQUIRE, 0, 100, 110, 0, 0,
						 11));
	revoked.waits = take_it(ACQUIRE, 1, 120, 212, 1000, 1000 - 81, 12);
	revoked.waits->result = TLOCK_REVOKED;
	revoked.look = add(STATUS, 3, 150, 160, 0);
	sees(revoked.look, 11, 105, revoked.leased);
	sees_expiry(revoked.look, true, false, 205);
	revoked.look->waiters = 1;
	revoked.look->count[ACQUIRED] = GRANTS_BY(11);
	revoked.look->count[CONTENDED] = 1;
	revoked.pollerr = poll_it(0, 215, 220, POLLIN | POLLPRI,
				  POLLPRI | POLLERR);
	revoked.learns = add(RELEASE, 0, 222, 225, -ESTALE);
	revoked.idle = add(RELEASE, 0, 226, 228, -EPERM);

	revoked.grace = revoke(2, 230, 240, 0, 12, 100);
	revoked.waits_again = take_it(ACQUIRE, 0, 242, 350, -1, -1, 13);
	revoked.waits_again->result = TLOCK_REVOKED;
	revoked.look_again = add(STATUS, 3, 250, 260, 0);
	sees(revoked.look_again, 12, 206, revoked.waits);
	sees_expiry(revoked.look_again, false, true, 335);
	revoked.look_again->waiters = 1;
	revoked.look_again->count[ACQUIRED] = GRANTS_BY(12);
	revoked.look_again->count[CONTENDED] = 2;
	revoked.look_again->count[REVOKED] = 1;
	revoked.renews = take_it(REACQUIRE, 1, 270, 280, 50, 50, 12);
	revoked.renews->renews = revoked.renews->keeps_job = true;
	revoked.asks = add(ACQUIRE, 1, 360, 370, -ESTALE);
	revoked.asks->timeout_ns = revoked.asks->left_ns = 50;
	revoked.at_once = revoke(2, 400, 410, 0, 13, 0);
	revoked.too_late = revoke(2, 415, 420, -ESTALE, 13, 0);
	revoked.closes = add(CLOSE, 0, 425, 430, 0);
	revoked.next = take_it(ACQUIRE, 3, 440, 450, 0, 0, 14);
	revoked.next->result = TLOCK_REVOKED;
	revoked.forbidden = revoke(4, 452, 455, -EPERM, 14, 0);
	add(RELEASE, 3, 470, 480, 0);

	revoked.plain = take_it(ACQUIRE, 3, 500, 510, 0, 0, 15);
	revoked.asks_async = with_lease(50, start(ACQUIRE, 1, 515, 520, -1, 5));
	add(RELEASE, 3, 530, 540, 0);
	revoked.expires = take_it(ACQUIRE, 2, 600, 610, 0, 0, 17);
	revoked.expires->result = TLOCK_REVOKED;
	revoked.fetch = with_ticket(5, 0, add(ACQUIRE, 1, 620, 630, -ESTALE));
	revoked.fetch->timeout_ns = revoked.fetch->left_ns = -1;
	add(RELEASE, 2, 640, 650, 0);

	take_it(ACQUIRE, 3, 700, 710, 0, 0, 18);
	revoked.deprived = add(ACQUIRE, 1, 715, 760, -ESTALE);
	revoked.deprived->timeout_ns = 1000;
	revoked.deprived->left_ns = 1000 - 7;
	add(RELEASE, 3, 720, 730, 0);
	revoke(2, 740, 745, 0, 19, 0);
	revoked.last = take_it(ACQUIRE, 3, 770, 780, 0, 0, 20);
	revoked.last->result = TLOCK_REVOKED;
	add(RELEASE, 3, 790, 800, 0);

	memcpy(lock->after.count,
	       (__u64[COUNTS]){ GRANTS_BY(20), 4, 0, 0, 0, 5, 0 },
	       sizeof(lock->after.count));
	lock->after.wait_ns_total = 81 + 91 + 17 + 7;
	lock->after.wait_ns_max = 91;
	lock->after.hold_ns_total = 101 + 130 + 69 + 30 + 30 + 70 + 40 + 20 +
				    17 + 20;
	lock->after.hold_ns_max = 130;
}

static void accepts_revoked(void)
{
	tell_revoked();
}

/* Past its expiry, it can go on until somebody wants the lock. */
static void accepts_late_renewal(void)
{
	begin_history();
	with_lease(100, take_it(ACQUIRE, 0, 100, 110, 0, 0, 11));
	revoke(2, 120, 130, 0, 11, 50);
	take_it(REACQUIRE, 0, 300, 310, -1, -1, 11)->keeps_job = true;
	add(RELEASE, 0, 400, 410, 0);
	lock->after.hold_ns_total = lock->after.hold_ns_max = 300;
}

/* Two threads, 0 and 4, use the same file: one of them learns it. */
static struct record *tell_revoked_shared(void)
{
	struct record *other;

	begin_history();
	with_lease(100, take_it(ACQUIRE, 0, 100, 110, 0, 0, 11));
	take_it(ACQUIRE, 1, 300, 310, 0, 0, 12)->result = TLOCK_REVOKED;
	add(RELEASE, 4, 320, 330, -ESTALE)->file = 1;
	other = add(RELEASE, 0, 340, 350, -EPERM);
	add(RELEASE, 1, 360, 370, 0);
	lock->after.count[REVOKED] = 1;
	lock->after.hold_ns_total = 200 + 60;
	lock->after.hold_ns_max = 200;
	return other;
}

static void accepts_revoked_shared(void)
{
	tell_revoked_shared();
}

/* ESTALE of REVOKE is about the grant that it names, not about its own file. */
static void accepts_late_revoke_of_a_waiter(void)
{
	tell_async();
	revoke(1, 132, 138, -ESTALE, FIRST, 0);
}

static void canceled_by_a_late_revoke(void)
{
	tell_canceled();
	canceled.release->kind = REVOKE;
	canceled.release->token = FIRST;
	canceled.release->ret = -ESTALE;
	/* Another thread does use the file, but later */
	add(RELEASE, 2, 330, 340, -EPERM)->file = 2;
}

static void both_learn_it(void)
{
	tell_revoked_shared()->ret = -ESTALE;
}

static void neither_learns_it(void)
{
	begin_history();
	take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	revoke(2, 200, 210, 0, 11, 0);
	take_it(ACQUIRE, 0, 220, 230, 0, 0, 12)->result = TLOCK_REVOKED;
	add(RELEASE, 4, 240, 250, 0)->file = 1;
}

static void revoked_before_its_lease_ended(void)
{
	tell_revoked();
	revoked.waits->end = 200;
	revoked.waits->left_ns = 1000 - 70;
	revoked.look_again->holder.since_ns = 195;
}

static void revoked_before_its_grace_ended(void)
{
	tell_revoked();
	revoked.waits_again->end = 328;
}

static void revoked_by_nobody(void)
{
	tell_revoked();
	revoked.leased->lease_ns = 0;
	sees_expiry(revoked.look, false, false, 0);
}

static void revoked_though_renewed(void)
{
	struct record *r;

	tell_revoked();
	r = take_it(REACQUIRE, 0, 112, 116, -1, -1, 11);
	r->keeps_job = true;
	/* The same, or a longer one that replaces it */
	with_lease(200, r);
	sees_expiry(revoked.look, true, false, 315);
}

static void revoked_for_nobody(void)
{
	tell_revoked();
	revoked.pollerr->begin = 206;
	revoked.pollerr->end = 208;
	revoked.waits->begin = 210;
	revoked.waits->timeout_ns = revoked.waits->left_ns = 0;
	revoked.look_again->holder.since_ns = 211;
	revoked.look->waiters = 0;
}

static void holds_after_its_revocation(void)
{
	tell_revoked();
	revoked.pollerr->events = 0;
	revoked.learns->ret = 0;
}

static void never_learns_it(void)
{
	tell_revoked();
	revoked.closes->kind = RELEASE;
}

static void learns_it_twice(void)
{
	tell_revoked();
	revoked.idle->ret = -ESTALE;
}

static void eperm_after_pollerr(void)
{
	tell_revoked();
	revoked.learns->ret = -EPERM;
}

static void estale_of_a_try(void)
{
	tell_revoked();
	add(ACQUIRE, 4, 850, 860, -ESTALE);
}

static void estale_of_a_release(void)
{
	tell_revoked();
	add(RELEASE, 4, 850, 860, -ESTALE);
}

static void estale_without_a_grant(void)
{
	struct record *r;

	tell_revoked();
	r = add(ACQUIRE, 4, 810, 860, -ESTALE);
	r->timeout_ns = 1000;
	r->left_ns = 970;
}

static void estale_with_a_ticket(void)
{
	tell_revoked();
	revoked.fetch->left_ticket = 5;
}

static void estale_uses_time(void)
{
	tell_revoked();
	revoked.asks->left_ns = 40;
}

static void pollerr_of_the_idle(void)
{
	tell_revoked();
	poll_it(3, 850, 860, POLLOUT, POLLOUT | POLLERR);
}

static void pollerr_without_pollpri(void)
{
	tell_revoked();
	revoked.pollerr->events = POLLERR;
}

static void pollerr_is_taken_back(void)
{
	tell_revoked();
	poll_it(0, 220, 221, POLLIN | POLLPRI, 0);
}

/* The lock was taken in between, so it must have been seen. */
static void no_pollerr(void)
{
	struct record *r;

	tell_revoked();
	r = add(STATUS, 3, 213, 214, 0);
	sees(r, 12, 206, revoked.waits);
	r->count[ACQUIRED] = GRANTS_BY(12);
	r->count[CONTENDED] = r->count[REVOKED] = 1;
	revoked.pollerr->events = 0;
}

static void revocation_unreported(void)
{
	tell_revoked();
	revoked.waits->result = 0;
}

static void revocation_at_once_unreported(void)
{
	tell_revoked();
	revoked.next->result = 0;
}

static void revocation_of_the_unfetched_unreported(void)
{
	tell_revoked();
	revoked.expires->result = 0;
}

static void revocation_reported_twice(void)
{
	tell_revoked();
	revoked.plain->result = TLOCK_REVOKED;
}

static void revocation_reported_to_who_goes_on(void)
{
	tell_revoked();
	revoked.renews->result = TLOCK_REVOKED;
}

static void revocation_reported_as_abandonment(void)
{
	tell_revoked();
	revoked.next->result |= TLOCK_ABANDONED;
}

static void revocation_uncounted(void)
{
	tell_revoked();
	lock->after.count[REVOKED]--;
}

static void revocation_counted_twice(void)
{
	tell_revoked();
	lock->after.count[REVOKED]++;
}

static void revocation_counted_as_abandonment(void)
{
	tell_revoked();
	lock->after.count[ABANDONED]++;
}

static void lease_of_nobody(void)
{
	tell_revoked();
	sees_expiry(revoked.look_again, true, true, 335);
}

static void lease_unseen(void)
{
	tell_revoked();
	sees_expiry(revoked.look, false, false, 0);
}

static void lease_too_short(void)
{
	tell_revoked();
	revoked.look->holder.expires_ns = 199;
}

static void lease_too_long(void)
{
	tell_revoked();
	revoked.look->holder.expires_ns = 261;
}

static void grace_of_nobody(void)
{
	tell_revoked();
	revoked.look->holder.revoking = true;
}

static void grace_unseen(void)
{
	tell_revoked();
	sees_expiry(revoked.look_again, false, false, 0);
}

/* A grace can be shortened, and not prolonged. */
static void grace_prolonged(void)
{
	tell_revoked();
	revoke(2, 242, 244, 0, 12, 1000);
	revoked.look_again->holder.expires_ns = 1243;
}

static void expiry_of_nothing(void)
{
	struct record *r;

	tell_revoked();
	r = add(STATUS, 2, 810, 820, 0);
	memcpy(r->count, lock->after.count, sizeof(r->count));
	r->holder.expires_ns = 1;
}

static void lease_does_not_end(void)
{
	struct record *first, *r;

	begin_history();
	first = with_lease(100, take_it(ACQUIRE, 0, 100, 110, 0, 0, 11));
	r = time_out(ACQUIRE, 1, 210, 220, 0);
	sees(r, 11, 105, first);
	sees_expiry(r, true, false, 205);
	add(RELEASE, 0, 300, 310, 0);
}

static void revokes_what_is_over(void)
{
	tell_revoked();
	revoked.too_late->ret = 0;
	revoked.too_late->timeout_ns = 100;
}

static void estale_of_the_present(void)
{
	tell_revoked();
	revoked.forbidden->ret = -ESTALE;
}

static void revokes_anybodys(void)
{
	tell_revoked();
	revoked.forbidden->ret = 0;
	revoked.forbidden->timeout_ns = 1000;
}

static void root_may_not_revoke(void)
{
	tell_revoked();
	revoke(2, 456, 458, -EPERM, 14, 0);
}

static void may_not_revoke_its_own(void)
{
	tell_revoked();
	take_it(ACQUIRE, 4, 810, 820, 0, 0, 21);
	revoke(4, 830, 840, -EPERM, 21, 0);
	add(RELEASE, 4, 850, 860, 0);
}

static void renewal_yields(void)
{
	tell_revoked();
	revoked.renews->token = 13;
}

/*** Events ***/

static struct event reported[32];

static struct event *happens(enum tlock_event_kind kind, __s64 at, __u64 token,
			     __u64 ticket, const struct record *job,
			     bool unfetched)
{
	struct event *e = &reported[lock->events++];

	*e = (struct event){
		.kind = kind,
		.seq = 100 + lock->events,
		.time_ns = at,
		.token = token,
		.ticket = ticket,
		.of = {
			.pid = PID + job->actor,
			.comm = job->actor,
			.job = job - h->record,
			.unfetched = unfetched,
		},
	};
	lock->event = reported;
	return e;
}

#define HAPPENS(kind, ...)	happens(TLOCK_EVENT_##kind, __VA_ARGS__)

/* As what happens in tell_async() */
static struct events {
	struct event *waits, *yielded, *waits_again, *granted, *released,
		     *next, *given_up, *timed_out, *expired, *last_waits,
		     *withdrawn, *last;
} events;

static void tell_events(void)
{
	struct record *closed;

	tell_async();
	closed = async.canceled + 1;
	HAPPENS(ACQUIRED, 105, 11, 0, async.takes, false);
	events.waits = HAPPENS(WAITING, 125, 0, 5, async.asks, false);
	events.yielded = HAPPENS(YIELDED, 305, 11, 0, async.takes, false);
	events.waits_again = HAPPENS(WAITING, 305, 0, 6, async.yields, false);
	events.granted = HAPPENS(ACQUIRED, 305, 12, 5, async.asks, true);
	events.released = HAPPENS(RELEASED, 405, 12, 0, async.asks, false);
	events.next = HAPPENS(ACQUIRED, 405, 13, 6, async.yields, true);
	events.given_up = HAPPENS(RELEASED, 455, 13, 6, async.yields, true);
	HAPPENS(ACQUIRED, 505, 14, 0, async.next, false);
	HAPPENS(WAITING, 522, 0, 7, async.asks_again, false);
	events.timed_out = HAPPENS(TIMED_OUT, 622, 0, 7, async.asks_again, false);
	HAPPENS(WAITING, 705, 0, 8, async.asks_late, false);
	HAPPENS(RELEASED, 725, 14, 0, async.next, false);
	HAPPENS(ACQUIRED, 725, 15, 8, async.asks_late, true);
	events.expired = HAPPENS(TIMED_OUT, 805, 15, 8, async.asks_late, true);
	HAPPENS(ACQUIRED, 805, 16, 0, async.expires, false);
	events.last_waits = HAPPENS(WAITING, 842, 0, 9, closed, false);
	events.withdrawn = HAPPENS(WITHDRAWN, 865, 0, 9, closed, false);
	events.last = HAPPENS(RELEASED, 885, 16, 0, async.expires, false);
}

static void accepts_events(void)
{
	tell_events();
}

/* Nothing is concluded if some were lost. */
static void accepts_lost_events(void)
{
	tell_events();
	events.granted->seq += 3;
	events.granted->lost = 3;
}

/* The events of tell_back(), in which a request is away for some time */
static struct event *tell_events_back(void)
{
	struct event *away;
	struct record *second;

	tell_back();
	second = h->record + 2;
	lock->after.hold_ns_total = 700;
	HAPPENS(ACQUIRED, 105, 11, 0, h->record, false);
	HAPPENS(WAITING, 125, 0, 7, back.interrupted, false);
	HAPPENS(WAITING, 155, 0, 8, second, false);
	away = HAPPENS(INTERRUPTED, 195, 0, 7, back.interrupted, false);
	HAPPENS(WAITING, 255, 0, 9, back.later, false);
	HAPPENS(RELEASED, 305, 11, 0, h->record, false);
	HAPPENS(ACQUIRED, 305, 12, 8, second, false);
	HAPPENS(WAITING, 335, 0, 7, back.interrupted, false);
	HAPPENS(RELEASED, 505, 12, 0, second, false);
	HAPPENS(ACQUIRED, 505, 13, 7, back.interrupted, false);
	HAPPENS(RELEASED, 705, 13, 0, back.interrupted, false);
	HAPPENS(ACQUIRED, 705, 14, 9, back.later, false);
	HAPPENS(RELEASED, 805, 14, 0, back.later, false);
	return away;
}

static void accepts_events_of_one_away(void)
{
	tell_events_back();
}

/* 1 goes on with its request when the lock is free. */
static struct event *tell_events_free(void)
{
	struct record *first, *asks, *goes_on;
	struct event *granted;

	begin_history();
	first = take_it(ACQUIRE, 0, 100, 110, 0, 0, 11);
	asks = add(ACQUIRE, 1, 120, 200, -EINTR);
	asks->timeout_ns = 1000;
	asks->left_ns = 930;
	asks->left_ticket = 7;
	asks->after[FAILS] = 1;
	add(RELEASE, 0, 300, 310, 0);
	goes_on = take_it(ACQUIRE, 1, 400, 410, 930, 1000 - 280, 12);
	goes_on->ticket = 7;
	add(RELEASE, 1, 500, 510, 0);
	lock->after.count[CONTENDED] = lock->after.count[INTERRUPTED] = 1;
	lock->after.wait_ns_total = lock->after.wait_ns_max = 280;
	lock->after.hold_ns_total = 300;
	lock->after.hold_ns_max = 200;
	HAPPENS(ACQUIRED, 105, 11, 0, first, false);
	HAPPENS(WAITING, 125, 0, 7, asks, false);
	HAPPENS(INTERRUPTED, 195, 0, 7, asks, false);
	HAPPENS(RELEASED, 305, 11, 0, first, false);
	granted = HAPPENS(ACQUIRED, 405, 12, 7, asks, false);
	HAPPENS(RELEASED, 505, 12, 0, asks, false);
	return granted;
}

static void accepts_events_of_a_free_lock(void)
{
	tell_events_free();
}

static void event_grants_to_no_request(void)
{
	tell_events_free()->ticket = 0;
}

/* The lock did not note it, so the ones after it have its number and so on. */
static void miss(struct event *e)
{
	struct event *end = &reported[--lock->events];

	for (; e < end; e++) {
		__u64 seq = e->seq;

		*e = e[1];
		e->seq = seq;
	}
}

/* They were noted in the wrong order. */
static void swap(struct event *e)
{
	struct event other = e[1];
	__u64 seq = e->seq;

	e[1] = *e;
	e[1].seq = other.seq;
	*e = other;
	e->seq = seq;
}

/* One that did not happen, before @e */
static struct event *invent(struct event *e)
{
	struct event *i = &reported[lock->events++];

	for (i->seq = i[-1].seq + 1; i > e; i--) {
		__u64 seq = i->seq;

		*i = i[-1];
		i->seq = seq;
		i[-1].seq = seq - 1;
	}
	return e;
}

static void event_skipped(void)
{
	tell_events();
	events.granted->seq++;
}

static void event_goes_back_in_time(void)
{
	tell_events();
	events.timed_out->time_ns = 520;
}

static void missing_event_waits(void)
{
	tell_events();
	miss(events.waits);
}

static void missing_event_yielded(void)
{
	tell_events();
	miss(events.yielded);
}

static void missing_event_waits_again(void)
{
	tell_events();
	miss(events.waits_again);
}

static void missing_event_granted(void)
{
	tell_events();
	miss(events.granted);
}

static void missing_event_released(void)
{
	tell_events();
	miss(events.released);
}

static void missing_event_next(void)
{
	tell_events();
	miss(events.next);
}

static void missing_event_given_up(void)
{
	tell_events();
	miss(events.given_up);
}

static void missing_event_timed_out(void)
{
	tell_events();
	miss(events.timed_out);
}

static void missing_event_expired(void)
{
	tell_events();
	miss(events.expired);
}

static void missing_event_last_waits(void)
{
	tell_events();
	miss(events.last_waits);
}

static void missing_event_withdrawn(void)
{
	tell_events();
	miss(events.withdrawn);
}

static void missing_event_last(void)
{
	tell_events();
	miss(events.last);
}

static void missing_event_interrupted(void)
{
	miss(tell_events_back());
}

static void missing_event_back(void)
{
	miss(tell_events_back() + 4);
}

static void swapped_yield_and_wait(void)
{
	tell_events();
	swap(events.yielded);
}

/* Its own request is then too late: it is not a waiter that it lets in */
static void swapped_wait_and_grant(void)
{
	tell_events();
	swap(events.waits_again);
}

static void swapped_release_and_grant(void)
{
	tell_events();
	swap(events.released);
}

static void swapped_wait_and_withdrawal(void)
{
	tell_events();
	swap(events.last_waits);
}

static void event_of_another_token(void)
{
	tell_events();
	events.released->token = 11;
}

static void event_grants_another_token(void)
{
	tell_events();
	events.granted->token = 13;
}

static void event_with_another_job(void)
{
	tell_events();
	events.granted->of.job = async.takes - h->record;
}

static void event_of_another_request(void)
{
	tell_events();
	events.timed_out->of.job = async.asks - h->record;
}

static void event_of_the_end_with_another_job(void)
{
	tell_events();
	events.yielded->of.job = async.yields - h->record;
}

static void event_of_the_end_of_another_process(void)
{
	tell_events();
	events.last->of.comm = 3;
	events.last->of.pid = PID + 3;
}

static void event_of_another_process(void)
{
	tell_events();
	events.granted->of.comm = 3;
	events.granted->of.pid = PID + 3;
}

static void event_of_another_pid(void)
{
	tell_events();
	events.granted->of.pid++;
}

static void event_of_another_user(void)
{
	tell_events();
	events.granted->of.uid = 1;
}

static void event_of_a_stranger(void)
{
	tell_events();
	events.granted->of.comm = NOBODY;
}

static void event_with_nobodys_job(void)
{
	tell_events();
	events.granted->of.job = NOBODY;
}

static void event_with_another_ticket(void)
{
	tell_events();
	events.granted->ticket = 6;
}

static void event_of_a_fetched_grant(void)
{
	tell_events();
	events.granted->of.unfetched = false;
}

static void event_of_an_unfetched_grant(void)
{
	tell_events();
	events.released->of.unfetched = true;
	events.released->ticket = 5;
}

static void event_grants_too_early(void)
{
	tell_events();
	/* Before its call */
	reported[0].time_ns = 99;
	lock->after.hold_ns_total += 6;
}

static void event_ends_too_late(void)
{
	tell_events();
	events.last->time_ns = 891;
	lock->after.hold_ns_total += 6;
}

static void event_waits_too_early(void)
{
	tell_events();
	events.last_waits->time_ns = 839;
	lock->after.wait_ns_total += 3;
}

static void event_abandoned_as_released(void)
{
	tell_events();
	accepts_abandoned_to_unfetched();
	lock->event = reported;
	lock->events = 19;
}

static void event_released_as_abandoned(void)
{
	tell_events();
	events.last->kind = TLOCK_EVENT_ABANDONED;
}

static void event_released_as_yielded(void)
{
	tell_events();
	events.last->kind = TLOCK_EVENT_YIELDED;
}

static void event_yielded_as_released(void)
{
	tell_events();
	events.yielded->kind = TLOCK_EVENT_RELEASED;
}

static void event_timed_out_as_withdrawn(void)
{
	tell_events();
	events.timed_out->kind = TLOCK_EVENT_WITHDRAWN;
}

static void event_withdrawn_as_timed_out(void)
{
	tell_events();
	events.withdrawn->kind = TLOCK_EVENT_TIMED_OUT;
}

static void event_expired_as_released(void)
{
	tell_events();
	events.expired->kind = TLOCK_EVENT_RELEASED;
}

static void event_of_unknown_kind(void)
{
	tell_events();
	events.withdrawn->kind = 77;
}

static void event_withdraws_an_interrupted_one(void)
{
	tell_events_back()->kind = TLOCK_EVENT_WITHDRAWN;
}

static void invented_wait(void)
{
	tell_events();
	invent(events.granted)->kind = TLOCK_EVENT_WAITING;
}

static void invented_release(void)
{
	struct event *e = (tell_events(), invent(events.timed_out));

	e->kind = TLOCK_EVENT_RELEASED;
	e->token = 14;
}

static void invented_grant(void)
{
	struct event *e = (tell_events(), invent(events.last + 1));

	*e = (struct event){ .kind = TLOCK_EVENT_ACQUIRED, .seq = e->seq,
			     .time_ns = 890, .token = 17, .of = reported[15].of };
}

static void invented_time_out(void)
{
	struct event *e = (tell_events(), invent(events.timed_out));

	*e = (struct event){ .kind = TLOCK_EVENT_TIMED_OUT, .seq = e->seq,
			     .time_ns = 600, .of = reported[8].of };
}

static void event_waits_less(void)
{
	tell_events();
	lock->after.wait_ns_total -= 4;
}

static void event_held_at_most(void)
{
	tell_events();
	lock->after.hold_ns_max--;
}

/* As what happens in tell_revoked() */
static struct revoked_events {
	struct event *leased, *lease_ends, *passed, *grace_ends, *taken, *next,
		     *released, *unfetched, *expired, *takes, *last;
} revoked_events;

static struct event *flags(struct event *e, bool leased, bool revoking)
{
	e->of.leased = leased;
	e->of.revoking = revoking;
	return e;
}

static void tell_events_revoked(void)
{
	struct revoked_events *e = &revoked_events;
	struct record *again, *third;

	tell_revoked();
	third = revoked.deprived - 1;
	again = revoked.waits_again;
	e->leased = flags(HAPPENS(ACQUIRED, 105, 11, 0, revoked.leased, false),
			  true, false);
	HAPPENS(WAITING, 125, 0, 3, revoked.waits, false);
	e->lease_ends = flags(HAPPENS(REVOKED, 206, 11, 0, revoked.leased,
				      false), true, false);
	e->passed = HAPPENS(ACQUIRED, 206, 12, 3, revoked.waits, false);
	HAPPENS(WAITING, 245, 0, 4, again, false);
	e->grace_ends = flags(HAPPENS(REVOKED, 336, 12, 0, revoked.waits, false),
			      false, true);
	HAPPENS(ACQUIRED, 336, 13, 4, again, false);
	e->taken = flags(HAPPENS(REVOKED, 405, 13, 0, again, false), false, true);
	e->next = HAPPENS(ACQUIRED, 445, 14, 0, revoked.next, false);
	e->released = HAPPENS(RELEASED, 475, 14, 0, revoked.next, false);
	HAPPENS(ACQUIRED, 505, 15, 0, revoked.plain, false);
	HAPPENS(WAITING, 518, 0, 5, revoked.asks_async, false);
	HAPPENS(RELEASED, 535, 15, 0, revoked.plain, false);
	e->unfetched = flags(HAPPENS(ACQUIRED, 535, 16, 5, revoked.asks_async,
				     true), true, false);
	e->expired = flags(HAPPENS(REVOKED, 605, 16, 5, revoked.asks_async, true),
			   true, false);
	e->takes = HAPPENS(ACQUIRED, 605, 17, 0, revoked.expires, false);
	HAPPENS(RELEASED, 645, 17, 0, revoked.expires, false);
	HAPPENS(ACQUIRED, 705, 18, 0, third, false);
	HAPPENS(WAITING, 718, 0, 6, revoked.deprived, false);
	HAPPENS(RELEASED, 725, 18, 0, third, false);
	HAPPENS(ACQUIRED, 725, 19, 6, revoked.deprived, false);
	flags(HAPPENS(REVOKED, 742, 19, 0, revoked.deprived, false), false, true);
	HAPPENS(ACQUIRED, 775, 20, 0, revoked.last, false);
	e->last = HAPPENS(RELEASED, 795, 20, 0, revoked.last, false);
}

static void accepts_events_revoked(void)
{
	tell_events_revoked();
}

static void event_revoked_too_early(void)
{
	tell_events_revoked();
	revoked_events.lease_ends->time_ns = 204;
	lock->after.hold_ns_total -= 2;
}

static void event_revoked_for_nobody(void)
{
	tell_events_revoked();
	/* The grant that follows is noted, but only after something else */
	*invent(revoked_events.takes) = (struct event){
		.kind = TLOCK_EVENT_WAITING, .seq = revoked_events.takes->seq,
		.time_ns = 605, .ticket = 6, .of = revoked_events.last->of,
	};
}

static void missing_event_revoked(void)
{
	tell_events_revoked();
	miss(revoked_events.expired);
}

static void event_revoked_as_released(void)
{
	tell_events_revoked();
	revoked_events.taken->kind = TLOCK_EVENT_RELEASED;
}

static void event_revoked_as_abandoned(void)
{
	tell_events_revoked();
	revoked_events.lease_ends->kind = TLOCK_EVENT_ABANDONED;
}

static void event_revoked_as_timed_out(void)
{
	tell_events_revoked();
	revoked_events.expired->kind = TLOCK_EVENT_TIMED_OUT;
}

static void event_released_as_revoked(void)
{
	tell_events_revoked();
	revoked_events.released->kind = TLOCK_EVENT_REVOKED;
}

static void event_without_its_lease(void)
{
	tell_events_revoked();
	revoked_events.leased->of.leased = false;
}

static void event_with_anothers_lease(void)
{
	tell_events_revoked();
	revoked_events.next->of.leased = true;
}

static void event_at_the_end_of_a_grace_without_revoking(void)
{
	tell_events_revoked();
	revoked_events.grace_ends->of.revoking = false;
}

static void event_at_once_without_revoking(void)
{
	tell_events_revoked();
	revoked_events.taken->of.revoking = false;
}

static void event_at_the_end_of_a_lease_with_revoking(void)
{
	tell_events_revoked();
	revoked_events.lease_ends->of.revoking = true;
}

static void event_granted_with_revoking(void)
{
	tell_events_revoked();
	revoked_events.passed->of.revoking = true;
}

static const struct test {
	const char *name;
	void (*tell)(void);
	enum rule rule;
} tests[] = {
#define TEST(tell, rule) { #tell, tell, rule }
	TEST(accepts_all, ACCEPTED),
	TEST(accepts_nothing, ACCEPTED),
	TEST(accepts_overlapping_calls, ACCEPTED),
	TEST(accepts_stalled_comer, ACCEPTED),
	TEST(accepts_passed_over, ACCEPTED),
	TEST(accepts_passed_over_while_stopped, ACCEPTED),
	TEST(accepts_back, ACCEPTED),
	TEST(accepts_late_back, ACCEPTED),
	TEST(accepts_giving_up, ACCEPTED),
	TEST(accepts_canceled, ACCEPTED),
	TEST(accepts_grant_withdrawn, ACCEPTED),
	TEST(accepts_flocked, ACCEPTED),
	TEST(accepts_closed_during_a_look, ACCEPTED),
	TEST(accepts_waiter_not_seen_yet, ACCEPTED),
	TEST(accepts_release_not_seen_yet, ACCEPTED),
	TEST(overlapping_holds, EXCLUSION),
	TEST(hold_of_the_dead, EXCLUSION),
	TEST(two_with_a_token, TOKENS),
	TEST(token_of_nobody, TOKENS),
	TEST(token_of_the_past, TOKENS),
	TEST(overtaken, FIFO),
	TEST(overtaken_and_timed_out, FIFO),
	TEST(barging, FIFO),
	TEST(late_hand_over, HAND_OVER),
	TEST(free_with_waiters, HAND_OVER),
	TEST(free_while_one_waits, HAND_OVER),
	TEST(yields_to_nobody, YIELD),
	TEST(yields_to_itself, YIELD),
	TEST(yields_to_who_came_later, YIELD),
	TEST(sees_the_wrong_one, YIELD),
	TEST(holds_on_though_seen, YIELD),
	TEST(holds_on_with_a_new_job, YIELD),
	TEST(no_pollpri_though_seen, POLLED),
	TEST(early, EARLY),
	TEST(late, LATE),
	TEST(too_little_left, LEFT),
	TEST(left_of_a_timed_out, LEFT),
	TEST(left_of_forever, LEFT),
	TEST(seen_before_its_grant, HOLDER),
	TEST(seen_after_its_end, HOLDER),
	TEST(seen_since_another_time, HOLDER),
	TEST(seen_with_another_job, HOLDER),
	TEST(seen_with_another_pid, HOLDER),
	TEST(seen_as_dead, HOLDER),
	TEST(seen_with_another_uid, HOLDER),
	TEST(status_of_an_older_one, HOLDER),
	TEST(timed_out_for_nobody, HOLDER),
	TEST(abandoned_unreported, REPORTED),
	TEST(reported_for_nothing, REPORTED),
	TEST(reported_twice, REPORTED),
	TEST(edeadlk_of_nothing, ERRNO),
	TEST(no_edeadlk, ERRNO),
	TEST(eperm_of_the_holder, ERRNO),
	TEST(release_of_nothing, ERRNO),
	TEST(ebusy_of_nothing, ERRNO),
	TEST(no_ebusy, ERRNO),
	TEST(eintr_without_a_signal, ERRNO),
	TEST(eintr_of_a_restart, ERRNO),
	TEST(time_out_of_forever, ERRNO),
	TEST(too_few_wait, WAITERS),
	TEST(too_many_wait, WAITERS),
	TEST(count_goes_back, COUNTERS),
	TEST(time_outs_miscounted, COUNTERS),
	TEST(contended_miscounted, COUNTERS),
	TEST(interrupted_miscounted, COUNTERS),
	TEST(abandoned_miscounted, COUNTERS),
	TEST(yielded_miscounted, COUNTERS),
	TEST(waited_less, COUNTERS),
	TEST(held_longer, COUNTERS),
	TEST(overtaken_when_back, FIFO),
	TEST(interrupted_without_a_ticket, TICKETS),
	TEST(ticket_of_the_granted, TICKETS),
	TEST(ticket_of_the_canceled, TICKETS),
	TEST(ticket_shrinks, TICKETS),
	TEST(ticket_given_twice, TICKETS),
	TEST(waits_when_nobody_is_there, TICKETS),
	TEST(goes_on_with_any_ticket, TICKETS),
	TEST(grants_a_ticket_given_up, CANCELED),
	TEST(ticket_while_holding, CANCELED),
	TEST(time_away_is_not_counted, LEFT),
	TEST(deadline_before_it_is_back, EARLY),
	TEST(contended_counted_again, COUNTERS),
	TEST(interrupted_counted_again, COUNTERS),
	TEST(waited_before_it_was_away_only, COUNTERS),
	TEST(eperm_of_one_that_is_away, ERRNO),
	TEST(canceled_by_nobody, CANCELED),
	TEST(canceled_alone, ERRNO),
	TEST(eperm_of_a_waiter, CANCELED),
	TEST(granted_after_its_release, CANCELED),
	TEST(unreported_by_canceled, REPORTED),
	TEST(unreported_after_flock, REPORTED),
	TEST(closing_after_flock_is_reported, REPORTED),
	TEST(closing_after_flock_is_counted, COUNTERS),
	TEST(flock_grants_again, ERRNO),
	TEST(unlock_of_nothing_fails, ERRNO),
	TEST(looks_held_when_it_is_not, HOLDER),
	TEST(kept_open_by_nobody, HOLDER),
	TEST(starved, STARVED),
	TEST(accepts_several, ACCEPTED),
	TEST(accepts_close_during_deletion, ACCEPTED),
	TEST(accepts_early_open, ACCEPTED),
	TEST(token_of_another_lock, TOKENS),
	TEST(grant_of_another_lock, TOKENS),
	TEST(seen_with_a_job_of_another_lock, HOLDER),
	TEST(holder_of_another_lock, HOLDER),
	TEST(lock_of_nobody, NAMES),
	TEST(name_of_another_lock, NAMES),
	TEST(deleted_while_open, NAMES),
	TEST(busy_for_nobody, NAMES),
	TEST(deleted_twice, NAMES),
	TEST(deleted_another, NAMES),
	TEST(created_twice, NAMES),
	TEST(exists_after_deletion, NAMES),
	TEST(opened_after_deletion, NAMES),
	TEST(missing_though_there, NAMES),
	TEST(gone_before_deletion, NAMES),
	TEST(there_after_deletion, NAMES),
	TEST(tokens_go_back, TOKENS),
	TEST(accepts_async, ACCEPTED),
	TEST(accepts_decision_not_seen_yet, ACCEPTED),
	TEST(accepts_closed_unfetched, ACCEPTED),
	TEST(accepts_abandoned_to_unfetched, ACCEPTED),
	TEST(accepts_orphaned, ACCEPTED),
	TEST(ends_before_its_process, EARLY),
	TEST(orphaned_without_a_grant, EARLY),
	TEST(left_of_an_orphan, LEFT),
	TEST(early_of_a_request, EARLY),
	TEST(grant_ends_before_its_deadline, EARLY),
	TEST(late_of_a_request, LATE),
	TEST(grant_does_not_expire, EXPIRY),
	TEST(keeps_what_it_yields, YIELD),
	TEST(holds_on_while_one_is_pending, YIELD),
	TEST(fetched_twice, TOKENS),
	TEST(fails_twice, CANCELED),
	TEST(undecided_after_pollout, CANCELED),
	TEST(no_pollout_of_the_decided, POLLED),
	TEST(no_pollout_of_the_idle, POLLED),
	TEST(no_pollpri, POLLED),
	TEST(pollpri_without_pollin, POLLED),
	TEST(pollpri_for_nobody, POLLED),
	TEST(pollpri_of_a_waiter, POLLED),
	TEST(starved_in_poll, STARVED),
	TEST(no_ebusy_while_pending, ERRNO),
	TEST(no_einval, CANCELED),
	TEST(einval_of_nothing, ERRNO),
	TEST(pending_but_not_async, ERRNO),
	TEST(eperm_of_the_pending, ERRNO),
	TEST(seen_fetched_too_early, HOLDER),
	TEST(seen_unfetched_too_late, HOLDER),
	TEST(seen_unfetched_for_a_call, HOLDER),
	TEST(granted_to_nobody, TOKENS),
	TEST(granted_twice, TOKENS),
	TEST(unreported_by_unfetched, REPORTED),
	TEST(closed_unfetched_is_reported, REPORTED),
	TEST(closed_unfetched_is_counted, COUNTERS),
	TEST(expired_uncounted, COUNTERS),
	TEST(given_up_uncounted, COUNTERS),
	TEST(closed_counted_as_timed_out, COUNTERS),
	TEST(pending_is_not_counted, WAITERS),
	TEST(waited_until_it_was_fetched, COUNTERS),
	TEST(left_at_the_fetch, LEFT),
	TEST(time_pending_is_not_counted, LEFT),
	TEST(ticket_of_the_fetched, TICKETS),
	TEST(overtaken_while_pending, FIFO),
	TEST(overtaken_and_withdrawn, FIFO),
	TEST(free_while_one_is_pending, HAND_OVER),
	TEST(fetched_after_its_withdrawal, CANCELED),
	TEST(accepts_events, ACCEPTED),
	TEST(accepts_lost_events, ACCEPTED),
	TEST(accepts_events_of_one_away, ACCEPTED),
	TEST(accepts_events_of_a_free_lock, ACCEPTED),
	TEST(event_grants_to_no_request, EVENTS),
	TEST(event_skipped, EVENTS),
	TEST(event_goes_back_in_time, EVENTS),
	TEST(missing_event_waits, EVENTS),
	TEST(missing_event_yielded, EVENTS),
	TEST(missing_event_waits_again, EVENTS),
	TEST(missing_event_granted, EVENTS),
	TEST(missing_event_released, EVENTS),
	TEST(missing_event_next, EVENTS),
	TEST(missing_event_given_up, EVENTS),
	TEST(missing_event_timed_out, EVENTS),
	TEST(missing_event_expired, EVENTS),
	TEST(missing_event_last_waits, EVENTS),
	TEST(missing_event_withdrawn, EVENTS),
	TEST(missing_event_last, EVENTS),
	TEST(missing_event_interrupted, EVENTS),
	TEST(missing_event_back, EVENTS),
	TEST(swapped_yield_and_wait, EVENTS),
	TEST(swapped_wait_and_grant, EVENTS),
	TEST(swapped_release_and_grant, EVENTS),
	TEST(swapped_wait_and_withdrawal, EVENTS),
	TEST(event_of_another_token, EVENTS),
	TEST(event_grants_another_token, EVENTS),
	TEST(event_with_another_job, EVENTS),
	TEST(event_of_another_request, EVENTS),
	TEST(event_of_another_process, EVENTS),
	TEST(event_of_the_end_with_another_job, EVENTS),
	TEST(event_of_the_end_of_another_process, EVENTS),
	TEST(event_of_another_pid, EVENTS),
	TEST(event_of_another_user, EVENTS),
	TEST(event_of_a_stranger, EVENTS),
	TEST(event_with_nobodys_job, EVENTS),
	TEST(event_with_another_ticket, EVENTS),
	TEST(event_of_a_fetched_grant, EVENTS),
	TEST(event_of_an_unfetched_grant, EVENTS),
	TEST(event_grants_too_early, EVENTS),
	TEST(event_ends_too_late, EVENTS),
	TEST(event_waits_too_early, EVENTS),
	TEST(event_abandoned_as_released, EVENTS),
	TEST(event_released_as_abandoned, EVENTS),
	TEST(event_released_as_yielded, EVENTS),
	TEST(event_yielded_as_released, EVENTS),
	TEST(event_timed_out_as_withdrawn, EVENTS),
	TEST(event_withdrawn_as_timed_out, EVENTS),
	TEST(event_expired_as_released, EVENTS),
	TEST(event_of_unknown_kind, EVENTS),
	TEST(event_withdraws_an_interrupted_one, EVENTS),
	TEST(invented_wait, EVENTS),
	TEST(invented_release, EVENTS),
	TEST(invented_grant, EVENTS),
	TEST(invented_time_out, EVENTS),
	TEST(event_waits_less, EVENTS),
	TEST(event_held_at_most, EVENTS),
	TEST(accepts_revoked, ACCEPTED),
	TEST(accepts_late_renewal, ACCEPTED),
	TEST(accepts_revoked_shared, ACCEPTED),
	TEST(accepts_late_revoke_of_a_waiter, ACCEPTED),
	TEST(canceled_by_a_late_revoke, CANCELED),
	TEST(both_learn_it, STALE),
	TEST(neither_learns_it, STALE),
	TEST(revoked_before_its_lease_ended, REVOCATION),
	TEST(revoked_before_its_grace_ended, REVOCATION),
	TEST(revoked_by_nobody, REVOCATION),
	TEST(revoked_though_renewed, REVOCATION),
	TEST(revoked_for_nobody, REVOCATION),
	TEST(holds_after_its_revocation, EXCLUSION),
	TEST(never_learns_it, STALE),
	TEST(learns_it_twice, STALE),
	TEST(eperm_after_pollerr, STALE),
	TEST(estale_of_a_try, STALE),
	TEST(estale_of_a_release, STALE),
	TEST(estale_without_a_grant, STALE),
	TEST(estale_with_a_ticket, TICKETS),
	TEST(estale_uses_time, STALE),
	TEST(pollerr_of_the_idle, POLLED),
	TEST(pollerr_without_pollpri, POLLED),
	TEST(pollerr_is_taken_back, POLLED),
	TEST(no_pollerr, REVOCATION),
	TEST(revocation_unreported, REPORTED),
	TEST(revocation_at_once_unreported, REPORTED),
	TEST(revocation_of_the_unfetched_unreported, REPORTED),
	TEST(revocation_reported_twice, REPORTED),
	TEST(revocation_reported_to_who_goes_on, REPORTED),
	TEST(revocation_reported_as_abandonment, REPORTED),
	TEST(revocation_uncounted, COUNTERS),
	TEST(revocation_counted_twice, COUNTERS),
	TEST(revocation_counted_as_abandonment, COUNTERS),
	TEST(lease_of_nobody, EXPIRY),
	TEST(lease_unseen, EXPIRY),
	TEST(lease_too_short, EXPIRY),
	TEST(lease_too_long, EXPIRY),
	TEST(lease_does_not_end, EXPIRY),
	TEST(grace_of_nobody, EXPIRY),
	TEST(grace_unseen, EXPIRY),
	TEST(grace_prolonged, EXPIRY),
	TEST(expiry_of_nothing, HOLDER),
	TEST(revokes_what_is_over, REVOCATION),
	TEST(estale_of_the_present, REVOCATION),
	TEST(revokes_anybodys, REVOCATION),
	TEST(root_may_not_revoke, REVOCATION),
	TEST(may_not_revoke_its_own, REVOCATION),
	TEST(renewal_yields, ERRNO),
	TEST(accepts_events_revoked, ACCEPTED),
	TEST(event_revoked_too_early, EVENTS),
	TEST(event_revoked_for_nobody, EVENTS),
	TEST(missing_event_revoked, EVENTS),
	TEST(event_revoked_as_released, EVENTS),
	TEST(event_revoked_as_abandoned, EVENTS),
	TEST(event_revoked_as_timed_out, EVENTS),
	TEST(event_released_as_revoked, EVENTS),
	TEST(event_without_its_lease, EVENTS),
	TEST(event_with_anothers_lease, EVENTS),
	TEST(event_at_the_end_of_a_grace_without_revoking, EVENTS),
	TEST(event_at_once_without_revoking, EVENTS),
	TEST(event_at_the_end_of_a_lease_with_revoking, EVENTS),
	TEST(event_granted_with_revoking, EVENTS),
};

const unsigned int doctored_tests = sizeof(tests) / sizeof(*tests);

bool test_judge(unsigned int i, char *name, size_t size)
{
	const struct test *t = &tests[i];
	struct verdict v;

	snprintf(name, size, "judge_%s%s", t->rule ? "rejects_" : "", t->name);
	t->tell();
	v = judge_locks(h);
	if (v.rule != t->rule)
		printf("# %s, not %s: %s\n", rule_names[v.rule],
		       rule_names[t->rule], v.why);
	return v.rule == t->rule;
}
