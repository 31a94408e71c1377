// SPDX-License-Identifier: GPL-2.0-only
/* The judge of a history: the lock's counters, at its end and in each status */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"

static bool judge_count(struct court *c, const char *name, __u64 before,
			__u64 after, __u64 lo, __u64 hi)
{
	if (after < before || after - before < lo || after - before > hi)
		return reject(c, COUNTERS,
			      "%s grew by %lld, not by %llu to %llu", name,
			      (__s64)(after - before), lo, hi);
	return true;
}

static bool judge_max(struct court *c, const char *name, __u64 before,
		      __u64 after, __u64 lo, __u64 hi)
{
	if (after < before || after < lo ||
	    after > (before > hi ? before : hi))
		return reject(c, COUNTERS,
			      "%s is %llu, was %llu, the longest is %llu to %llu",
			      name, after, before, lo, hi);
	return true;
}

/* Whether an asynchronous request may have failed, which no call fetched */
static bool may_have_timed_out(struct court *c, struct request *q)
{
	return (q->timeout >= 0 && q->asked_lo + q->timeout <= q->gone_hi) ||
	       (q->lost && !requester_lives(c, q));
}

bool judge_counters(struct court *c)
{
	struct counters *b = &c->lock->before, *a = &c->lock->after;
	__u64 lo[COUNTS] = { 0 }, hi[COUNTS] = { 0 };
	__u64 lo_sum = 0, hi_sum = 0, lo_max = 0, hi_max = 0;

	/* Nobody can read its counters at the end */
	if (c->lock->temporary)
		return true;
	lo[ACQUIRED] = hi[ACQUIRED] = c->grants;
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		struct request *q = request_of(c, i);
		bool found;

		if (!r->begin || !takes(r) || !q || c->repeat[i] ||
		    refused(c, i))
			continue;
		if (q->async && q->first == i && q->fetch == NOBODY) {
			/* If it was seen to be decided, and had no grant */
			lo[TIMED_OUT] += q->decided < q->gone_lo &&
					 !q->lost && !q->revoked;
			hi[TIMED_OUT] += !q->revoked && may_have_timed_out(c, q);
		} else if (!r->end) {
			hi[TIMED_OUT] += q->timeout >= 0 && !q->async;
		} else {
			lo[TIMED_OUT] += r->ret == -ETIMEDOUT ||
					 r->ret == -EAGAIN;
		}
		hi[TIMED_OUT] += r->end && (r->ret == -ETIMEDOUT ||
					    r->ret == -EAGAIN);
		/* The other counters count a request once */
		if (q->first != i)
			continue;
		lo[INTERRUPTED] += q->away;
		hi[INTERRUPTED] += q->away || (q->timeout && q->maybe_away);
		if (r->kind == REACQUIRE) {
			lo[YIELDED] += r->end && c->stale[i] != UNSURE;
			hi[YIELDED]++;
			continue;
		}
		/* It found the lock held if it failed or time was used */
		found = r->end && c->stale[i] != UNSURE &&
			!(c->stale[i] && r->kind == FLOCK) &&
			(r->ret || (r->timeout_ns > 0 &&
				    r->left_ns < r->timeout_ns));
		lo[CONTENDED] += found;
		hi[CONTENDED] += found || !r->end || may_have_waited(c, i);
	}
	for (__u64 i = 1; i <= c->grants; i++) {
		lo[ABANDONED] += c->hold[i].endings == BY_CLOSE;
		hi[ABANDONED] += !!(c->hold[i].endings & BY_CLOSE);
		lo[REVOKED] += c->hold[i].endings == BY_REVOCATION;
		hi[REVOKED] += !!(c->hold[i].endings & BY_REVOCATION);
	}
	for (int i = 0; i < COUNTS; i++)
		if (!judge_count(c, count_names[i], b->count[i], a->count[i],
				 lo[i], hi[i]))
			return false;

	for (__u32 i = 0; i < c->requests; i++) {
		struct request *q = &c->request[i];

		if (!q->waited)
			continue;
		lo_sum += q->at_least;
		hi_sum += q->at_most;
		lo_max = max64(lo_max, q->at_least);
		hi_max = max64(hi_max, q->at_most);
	}
	if (!judge_count(c, "wait_ns_total", b->wait_ns_total,
			 a->wait_ns_total, lo_sum, hi_sum) ||
	    !judge_max(c, "wait_ns_max", b->wait_ns_max, a->wait_ns_max,
		       lo_max, hi_max))
		return false;

	lo_sum = hi_sum = lo_max = hi_max = 0;
	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];
		__s64 at_least = max64(0, hold->end_lo - hold->grant_hi);
		__s64 at_most = hold->end_hi - hold->grant_lo;

		lo_sum += at_least;
		hi_sum += at_most;
		lo_max = max64(lo_max, at_least);
		hi_max = max64(hi_max, at_most);
	}
	return judge_count(c, "hold_ns_total", b->hold_ns_total,
			   a->hold_ns_total, lo_sum, hi_sum) &&
	       judge_max(c, "hold_ns_max", b->hold_ns_max, a->hold_ns_max,
			 lo_max, hi_max);
}

static int by_end(const void *a, const void *b)
{
	__s64 x = sorting->record[*(__u32 *)a].end;
	__s64 y = sorting->record[*(__u32 *)b].end;

	return x < y ? -1 : x > y;
}

static int by_begin(const void *a, const void *b)
{
	__s64 x = sorting->record[*(__u32 *)a].begin;
	__s64 y = sorting->record[*(__u32 *)b].begin;

	return x < y ? -1 : x > y;
}

static __u32 up_to(const __s64 *sorted, __u32 n, __s64 at)
{
	__u32 lo = 0;

	while (lo < n) {
		__u32 mid = (lo + n) / 2;

		if (sorted[mid] <= at)
			lo = mid + 1;
		else
			n = mid;
	}
	return lo;
}

/* Checks what each status shows, and that later ones agree with earlier ones */
bool judge_statuses(struct court *c)
{
	__u32 *begun, *ended, n = 0, done = 0, waits = 0;
	__s64 *sure_ends, *begins, *ends;
	struct counters low = c->lock->before;
	bool ok = true;

	begun = array(c->records, sizeof(*begun));
	ended = array(c->records, sizeof(*ended));
	for (__u32 i = 0; i < c->records; i++)
		if (shows(&c->record[i]))
			begun[n++] = i;
	memcpy(ended, begun, n * sizeof(*begun));
	sorting = c;
	qsort(begun, n, sizeof(*begun), by_begin);
	qsort(ended, n, sizeof(*ended), by_end);

	sure_ends = array(c->sures, sizeof(*sure_ends));
	begins = array(c->waits, sizeof(*begins));
	ends = array(c->waits, sizeof(*ends));
	for (__u32 i = 0; i < c->sures; i++)
		sure_ends[i] = c->wait[c->sure[i]].end_lo;
	for (__u32 i = 0; i < c->waits; i++) {
		if (!c->wait[i].waited)
			continue;
		begins[waits] = c->wait[i].begin_lo;
		ends[waits++] = c->wait[i].end_hi;
	}
	qsort(sure_ends, c->sures, sizeof(*sure_ends), by_value);
	qsort(begins, waits, sizeof(*begins), by_value);
	qsort(ends, waits, sizeof(*ends), by_value);

	for (__u32 i = 0; i < n && ok; i++) {
		struct record *r = &c->record[begun[i]];
		__s64 lo, hi;

		for (; c->record[ended[done]].end < r->begin; done++)
			for (int k = 0; k < COUNTS; k++)
				low.count[k] = max64(low.count[k],
					c->record[ended[done]].count[k]);
		for (int k = 0; k < COUNTS && ok; k++)
			if (r->count[k] < low.count[k] ||
			    r->count[k] > c->lock->after.count[k])
				ok = reject(c, COUNTERS,
					"status %u: %s is %llu, was %llu before, %llu in the end",
					begun[i], count_names[k], r->count[k],
					low.count[k], c->lock->after.count[k]);

		lo = (__s64)sure_before(c, r->begin) -
		     up_to(sure_ends, c->sures, r->end);
		hi = (__s64)up_to(begins, waits, r->end) -
		     up_to(ends, waits, r->begin - 1);
		if (ok && (r->waiters < lo || r->waiters > hi))
			ok = reject(c, WAITERS,
				"status %u: %u wait, not %lld to %lld",
				begun[i], r->waiters, lo, hi);
	}
	free(begun);
	free(ended);
	free(sure_ends);
	free(begins);
	free(ends);
	return ok;
}
