// SPDX-License-Identifier: GPL-2.0-only
/*
 * The judge of a lock's history. It is sound: it never rejects a history that a
 * correct lock can have produced, however the machine stalled (except for
 * OVERLONG, and a history that is stuck). An instant inside a call is known
 * only as an interval, and a rule counts as broken only if it is broken for
 * every choice of instants in those intervals. No interval is widened or
 * narrowed by a guess.
 *
 * - Tokens order the grants, and this lock numbers its grants without gaps. So
 *   the instants of grant 1, end 1, grant 2, end 2, ... must be in that order.
 *   One walk checks whether they can be, and narrows the intervals on the way.
 *   Each sight of the holder (by a status, or by a call that timed out) is
 *   between its grant and its end, and gives the exact instant of its grant.
 * - One call makes a request, and calls with its ticket resume it. What is
 *   left of its timeout tells how long ago it was made, whatever happened in
 *   between. So the instant that decides its place in the queue is known to an
 *   interval.
 * - While its thread handles a signal, or its process is stopped, a request
 *   may be away and is then passed over. So it is certainly in the queue only
 *   during a call in which none of that happened. It is there from when it was
 *   made, if that call made it, or else from when somebody saw it wait; and
 *   until its grant or its deadline. While it is there, no later request is
 *   granted the lock.
 * - poll, and a reacquire by which a holder goes on, may look at the lock while
 *   it is just being changed: see settled().
 * - If only one thread uses a file, the file's state is known after each call.
 *   If several threads do, the i-th end of a grant comes after the i-th
 *   earliest beginning among the calls that may have ended one, in whatever
 *   order they ran.
 * - An asynchronous request is never away. It is in the queue until it is
 *   decided, which is between the last call that shows that it is not yet, and
 *   the first that shows that it is. If no call fetched a grant, that grant was
 *   reported by no call, and each such grant must belong to another request that
 *   may have had it. The grant lasts until a release, the last close, or its
 *   expiry, which is the request's deadline: then a call can still fetch its
 *   end, and sees the very next grant.
 * - A grant has a set of ways in which it may have ended. One is revocation, if it
 *   had a lease or somebody called REVOKE: see judge-revoked.c. ESTALE then tells
 *   of an earlier grant of the file; or, if the call has waited, of its own, which
 *   no call reported.
 * - A thread that is killed in a call may have been granted the lock without
 *   reporting it. So may one whose call fails with ECANCELED, as another thread
 *   may release the lock before it runs. If other threads used the file while a
 *   thread was killed in a call on it, nothing is concluded of that file.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"

const char *const rule_names[RULES] = {
	[ACCEPTED] = "accepted",
	[EXCLUSION] = "exclusion",
	[TOKENS] = "tokens",
	[FIFO] = "fifo",
	[HAND_OVER] = "hand-over",
	[YIELD] = "yield",
	[EARLY] = "early",
	[LATE] = "late",
	[LEFT] = "left",
	[HOLDER] = "holder",
	[REPORTED] = "reported",
	[ERRNO] = "errno",
	[TICKETS] = "tickets",
	[CANCELED] = "canceled",
	[WAITERS] = "waiters",
	[COUNTERS] = "counters",
	[STARVED] = "starved",
	[NAMES] = "names",
	[POLLED] = "polled",
	[EXPIRY] = "expiry",
	[REVOCATION] = "revocation",
	[STALE] = "stale",
	[EVENTS] = "events",
};

const char *const count_names[COUNTS] = {
	[ACQUIRED] = "acquired",
	[CONTENDED] = "contended",
	[TIMED_OUT] = "timed_out",
	[INTERRUPTED] = "interrupted",
	[ABANDONED] = "abandoned",
	[REVOKED] = "revoked",
	[YIELDED] = "yielded",
};

bool reject(struct court *c, enum rule rule, const char *format, ...)
{
	va_list args;

	c->verdict.rule = rule;
	va_start(args, format);
	vsnprintf(c->verdict.why, sizeof(c->verdict.why), format, args);
	va_end(args);
	return false;
}

void *array(size_t n, size_t size)
{
	void *a = calloc(n + 1, size);

	if (!a)
		die("no memory to judge");
	return a;
}

/* For comparison functions: qsort() passes no context */
struct court *sorting;

int by_value(const void *a, const void *b)
{
	__s64 x = *(__s64 *)a, y = *(__s64 *)b;

	return x < y ? -1 : x > y;
}

int by_since(const void *a, const void *b)
{
	return by_value(&((struct moment *)a)->since,
			&((struct moment *)b)->since);
}

/* The number of moments before @at */
__u32 since_before(const struct moment *m, __u32 n, __s64 at)
{
	__u32 lo = 0;

	while (lo < n) {
		__u32 mid = (lo + n) / 2;

		if (m[mid].since < at)
			lo = mid + 1;
		else
			n = mid;
	}
	return lo;
}

/* Whether a call certainly took the lock's spinlock */
static bool took_spinlock(const struct record *r)
{
	return r->end && !lockless(r) &&
	       (takes(r) || ends(r) || shows(r) || r->kind == REVOKE ||
		(r->kind == LOOK && (r->token || r->ticket)));
}

void study_moments(struct court *c)
{
	__u32 n = 0;

	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];

		if (!took_spinlock(r))
			continue;
		c->by_begin[n] = (struct moment){ r->begin, r->end, NOBODY };
		c->by_end[n++] = (struct moment){ r->end, r->begin, NOBODY };
	}
	c->moments = n;
	qsort(c->by_begin, n, sizeof(*c->by_begin), by_since);
	qsort(c->by_end, n, sizeof(*c->by_end), by_since);
	for (__u32 i = n; i-- > 1;)
		c->by_begin[i - 1].bound = min64(c->by_begin[i - 1].bound,
						 c->by_begin[i].bound);
	for (__u32 i = 1; i < n; i++)
		c->by_end[i].bound = max64(c->by_end[i].bound,
					   c->by_end[i - 1].bound);
}

/*
 * When what happened at @at could certainly be seen without the lock's spinlock.
 * The lock notes the time at the beginning of each step, with the spinlock
 * held; if it stalls just then, others see the old state for a while. A call
 * that took the spinlock later shows that the step has ended.
 */
__s64 settled(struct court *c, __s64 at)
{
	__u32 i = since_before(c->by_begin, c->moments, at + 1);

	return i < c->moments ? c->by_begin[i].bound : NEVER;
}

/* What happened before this instant could certainly be seen so at @at */
__s64 settled_before(struct court *c, __s64 at)
{
	__u32 i = since_before(c->by_end, c->moments, at);

	return i ? c->by_end[i - 1].bound : c->h->begin;
}

static bool judge_progress(struct court *c)
{
	__u32 calls = 0, last = NOBODY;

	if (!c->h->stuck)
		return true;
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];

		if (r->begin && !r->end && (takes(r) || r->kind == POLL)) {
			calls++;
			last = i;
		}
	}
	return reject(c, STARVED, "%u calls did not end, one is %u", calls,
		      last);
}

static bool judge_all(struct court *c)
{
	study_files(c);
	study_moments(c);
	if (!judge_deletions(c))
		return false;
	for (__u32 i = 0; i < c->files; i++)
		study_requests(c, &c->file[i]);
	for (__u32 i = 0; i < c->records; i++)
		if (c->record[i].end && !judge_call(c, i))
			return false;
	if (!study_grants(c) || !study_holds(c) || !study_sights(c) ||
	    !study_revocations(c) || !judge_order(c))
		return false;
	if (!study_lost(c) || !judge_revokes(c) || !judge_terms(c) || !judge_sights(c) || !judge_unfetched(c) ||
	    !study_waits(c) || !judge_queue(c) || !judge_polls(c))
		return false;
	for (__u32 i = 0; i < c->files; i++)
		if (!judge_file(c, &c->file[i]))
			return false;
	return judge_reports(c) && judge_counters(c) && judge_statuses(c) &&
	       judge_progress(c) && judge_events(c);
}

static void study_deaths(struct court *c)
{
	struct history *h = c->h;

	for (__u32 i = 0; i < h->processes; i++) {
		c->death_lo[i] = h->process[i].doomed;
		c->death_hi[i] = h->process[i].reaped ?: h->end;
	}
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		__u32 process = process_of(c, r);

		if (r->begin)
			c->death_lo[process] = max64(c->death_lo[process],
						     max64(r->begin, r->end));
	}
}

struct verdict judge(struct history *h)
{
	struct lock *lock = h->lock;
	struct court court = {
		.h = h,
		.lock = lock,
		.record = h->record,
		.records = min64(h->records, h->capacity),
		.files = h->files,
		.grants = lock->after.count[ACQUIRED] -
			  lock->before.count[ACQUIRED],
		.deleted_lo = NEVER,
		.deleted_hi = NEVER,
	}, *c = &court;

	if (lock->after.count[ACQUIRED] < lock->before.count[ACQUIRED] ||
	    c->grants > h->capacity) {
		reject(c, TOKENS, "%llu grants", c->grants);
		return c->verdict;
	}
	c->death_lo = array(h->processes, sizeof(*c->death_lo));
	c->death_hi = array(h->processes, sizeof(*c->death_hi));
	c->file = array(c->files, sizeof(*c->file));
	c->op = array(c->records, sizeof(*c->op));
	memset(c->op, 0xff, (c->records + 1) * sizeof(*c->op));
	c->hold = array(c->grants + 1, sizeof(*c->hold));
	c->held = array(c->grants, sizeof(*c->held));
	c->repeat = array(c->records, sizeof(*c->repeat));
	c->revoke = array(c->records, sizeof(*c->revoke));
	c->stale = array(c->records, sizeof(*c->stale));
	c->request = array(c->records, sizeof(*c->request));
	c->request_of = array(c->records, sizeof(*c->request_of));
	c->wait_of = array(c->records, sizeof(*c->wait_of));
	c->ended = array(c->records, sizeof(*c->ended));
	c->wait = array(c->records, sizeof(*c->wait));
	c->sure = array(c->records, sizeof(*c->sure));
	c->longest = array(c->records, sizeof(*c->longest));
	c->shown = array(c->records, sizeof(*c->shown));
	c->by_begin = array(c->records, sizeof(*c->by_begin));
	c->by_end = array(c->records, sizeof(*c->by_end));
	for (__u32 i = 0; i < c->records; i++)
		c->request_of[i] = c->wait_of[i] = c->ended[i] = NOBODY;
	study_deaths(c);

	judge_all(c);

	free(c->death_lo);
	free(c->death_hi);
	free(c->file);
	free(c->op);
	free(c->hold);
	free(c->held);
	free(c->repeat);
	free(c->revoke);
	free(c->stale);
	free(c->request);
	free(c->request_of);
	free(c->wait_of);
	free(c->ended);
	free(c->wait);
	free(c->sure);
	free(c->longest);
	free(c->shown);
	free(c->by_begin);
	free(c->by_end);
	return c->verdict;
}
