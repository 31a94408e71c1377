// SPDX-License-Identifier: GPL-2.0-only
/* The judge of a history: who waited when, and whether any were overtaken */
#include <errno.h>
#include <stdlib.h>

#include "judge.h"

static int by_begin_hi(const void *a, const void *b)
{
	__s64 x = sorting->wait[*(__u32 *)a].begin_hi;
	__s64 y = sorting->wait[*(__u32 *)b].begin_hi;

	return x < y ? -1 : x > y;
}

/* Narrows when a request was made, by what one of its calls shows */
static void study_request(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);
	__s64 used = q->timeout - r->left_ns;
	/* When the request was granted, or ended */
	__s64 until_lo = r->begin, until_hi = end_hi(c, r);
	struct hold *hold;

	if (q->first == i) {
		q->asked_lo = r->begin;
		q->asked_hi = end_hi(c, r);
	}
	if (q->async) {
		/* It is never away, and was decided before it was fetched */
		if (r->ret == -ECANCELED || (r->end && r->ret == -ETIMEDOUT))
			until_lo = q->undecided;
	} else if (disturbed(c, r)) {
		q->maybe_away = true;
	}
	if (r->end && !r->ret) {
		hold = hold_of(c, r->token);
		until_lo = hold->grant_lo;
		until_hi = hold->grant_hi;
		/* It was granted the lock at once */
		if (q->first == i && (!q->timeout || r->async ||
				      (q->timeout > 0 && !used)))
			q->asked_lo = max64(q->asked_lo, until_lo);
	} else if (r->end && r->ret == -EINTR) {
		q->away = true;
	} else if (deprived(c, i)) {
		/* It may have ended before this call began */
		until_lo = c->record[q->first].begin;
	}
	q->asked_hi = min64(q->asked_hi, until_hi);
	/* What is left does not show when its request ended */
	if (q->async && (deprived(c, i) ||
			 (r->ret == -ETIMEDOUT && may_be_orphaned(c, i))))
		return;
	/* If nothing is left, more than the timeout may have passed */
	if (r->end && q->timeout > 0) {
		q->asked_hi = min64(q->asked_hi, until_hi - used);
		if (r->left_ns && !deprived(c, i))
			q->asked_lo = max64(q->asked_lo, until_lo - used);
	}
	if (c->ended[i] != NOBODY && r->kind == REACQUIRE && q->first == i) {
		/* It joined the queue when it ended its grant */
		hold = &c->hold[c->ended[i]];
		q->asked_lo = max64(q->asked_lo, hold->end_lo);
		q->asked_hi = min64(q->asked_hi, hold->end_hi);
	}
}

bool may_have_waited(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);

	if (!q->timeout)
		return false;
	if (r->async && !r->ticket && r->end)
		return r->ret;
	return !r->end || r->ret || r->ticket || q->timeout < 0 ||
	       r->left_ns != q->timeout;
}

/*
 * Finds when an asynchronous request was in the queue, whose outcome may be
 * unknown. The wait is that of the call that fetched it, or made it.
 */
static void study_async_wait(struct court *c, __u32 request)
{
	struct request *q = &c->request[request];
	struct record *first = &c->record[q->first], *fetch = NULL;
	struct wait w = {
		.request = request,
		.record = q->fetch != NOBODY ? q->fetch : q->first,
		.waited = true,
		.sure = first->end != 0,
		.begin_lo = q->asked_lo,
		.begin_hi = q->asked_hi,
		.end_lo = q->undecided,
		.end_hi = min64(q->decided, q->gone_hi),
		.shown = end_hi(c, first),
	};
	__s64 deadline = q->timeout < 0 ? NEVER : q->asked_lo + q->timeout;
	struct hold *hold;

	if (q->fetch != NOBODY)
		fetch = &c->record[q->fetch];
	if (fetch && !fetch->ret) {
		hold = hold_of(c, fetch->token);
		w.end_lo = hold->grant_lo;
		w.end_hi = hold->grant_hi;
	} else if (!q->lost) {
		/* It was there until it was gone, but not past its deadline */
		w.end_lo = max64(w.end_lo, fetch ? deadline :
						   min64(q->gone_lo, deadline));
	}
	w.end_lo = min64(w.end_lo, w.end_hi);
	c->wait_of[w.record] = c->waits;
	c->wait[c->waits++] = w;

	q->waited = true;
	q->at_most = w.end_hi - w.begin_lo;
	if (w.sure)
		q->at_least = max64(0, w.end_lo - w.begin_hi);
	if (!fetch || q->timeout <= 0 || (fetch->ret && q->lost))
		return;
	q->at_least = max64(q->at_least, q->timeout - fetch->left_ns);
	if (fetch->left_ns)
		q->at_most = min64(q->at_most, q->timeout - fetch->left_ns);
}

static void study_wait(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);
	struct wait w = {
		.record = i,
		.request = c->request_of[i],
		.begin_lo = r->begin,
		.begin_hi = end_hi(c, r),
		.end_lo = r->begin,
		.end_hi = end_hi(c, r),
		.shown = NEVER,
	};
	__s64 at_least, at_most;
	struct hold *hold;

	w.waited = may_have_waited(c, i);
	if (r->end && !r->ret) {
		hold = hold_of(c, r->token);
		w.end_lo = hold->grant_lo;
		w.end_hi = w.begin_hi = hold->grant_hi;
	} else if (!q->timeout) {
		return;
	} else if (r->end && r->ret == -ETIMEDOUT) {
		w.end_lo = max64(w.end_lo, q->asked_lo + q->timeout);
	}
	/* It stays until its grant, or at least until its deadline */
	w.sure = w.waited && (!r->ret || r->ret == -ETIMEDOUT) &&
		 !disturbed(c, r);
	if (q->first == i) {
		w.begin_lo = max64(w.begin_lo, q->asked_lo);
		if (w.sure)
			w.begin_hi = min64(w.begin_hi, q->asked_hi);
	}
	c->wait_of[i] = c->waits;
	c->wait[c->waits++] = w;
	if (!w.waited)
		return;

	q->waited = true;
	at_least = max64(0, w.end_lo - q->asked_hi);
	at_most = w.end_hi - q->asked_lo;
	if (r->end && q->timeout > 0) {
		at_least = max64(at_least, q->timeout - r->left_ns);
		if (r->left_ns)
			at_most = min64(at_most, q->timeout - r->left_ns);
	}
	/* If killed or canceled, it may have ended before that call */
	if (r->end && (!deprived(c, i) || r->timeout_ns != r->left_ns))
		q->at_least = at_least;
	q->at_most = at_most;
}

/* Narrows a wait by a look that saw its ticket in the queue */
static bool study_look(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct wait *in = NULL;
	__u32 calls = 0;

	for (__u32 j = 0; j < c->waits; j++) {
		struct wait *w = &c->wait[j];
		struct record *s = &c->record[w->record];

		if (c->request[w->request].ticket == r->ticket &&
		    (c->request[w->request].async ?
		     w->begin_lo <= r->end && w->end_hi >= r->begin :
		     s->begin <= r->end && end_hi(c, s) >= r->begin)) {
			calls++;
			in = w;
		}
	}
	if (!calls) {
		for (__u32 j = 0; j < c->requests; j++)
			if (c->request[j].ticket == r->ticket)
				return reject(c, TICKETS,
					"look %u: ticket %llu waits, in no call",
					i, r->ticket);
		return true;
	}
	if (calls == 1 && in->sure) {
		in->begin_hi = min64(in->begin_hi, r->end);
		in->shown = min64(in->shown, r->end);
		in->end_lo = max64(in->end_lo, r->begin);
	}
	return true;
}

static int by_ticket(const void *a, const void *b)
{
	__u64 x = sorting->request[*(__u32 *)a].ticket;
	__u64 y = sorting->request[*(__u32 *)b].ticket;

	return x < y ? -1 : x > y;
}

/* Whether later requests have larger tickets */
static bool judge_tickets(struct court *c)
{
	__u32 *known = array(c->requests, sizeof(*known)), n = 0;
	struct request *q, *latest = NULL;
	bool ok = true;

	for (__u32 i = 0; i < c->requests; i++)
		if (c->request[i].ticket)
			known[n++] = i;
	sorting = c;
	qsort(known, n, sizeof(*known), by_ticket);
	for (__u32 i = 0; i < n && ok; i++) {
		q = &c->request[known[i]];
		if (i && q->ticket == c->request[known[i - 1]].ticket)
			ok = reject(c, TICKETS,
				    "calls %u and %u both have ticket %llu",
				    c->request[known[i - 1]].first, q->first,
				    q->ticket);
		else if (latest && latest->asked_lo > q->asked_hi)
			ok = reject(c, TICKETS,
				    "call %u has ticket %llu, call %u came later and has %llu",
				    q->first, q->ticket, latest->first,
				    latest->ticket);
		if (!latest || q->asked_lo > latest->asked_lo)
			latest = q;
	}
	free(known);
	return ok;
}

/* Finds from when on calls that do not take the spinlock see each waiter */
static void study_shown(struct court *c)
{
	struct wait *w, *longest = NULL;

	for (__u32 i = 0; i < c->sures; i++) {
		struct moment *m = &c->shown[c->shows];

		w = &c->wait[c->sure[i]];
		m->since = min64(w->shown, settled(c, w->begin_hi));
		m->wait = c->sure[i];
		c->shows += m->since < w->end_lo;
	}
	qsort(c->shown, c->shows, sizeof(*c->shown), by_since);
	for (__u32 i = 0; i < c->shows; i++) {
		w = &c->wait[c->shown[i].wait];
		if (!longest || w->end_lo > longest->end_lo)
			longest = w;
		c->shown[i].wait = longest - c->wait;
	}
}

bool study_waits(struct court *c)
{
	/* In order of file and begin, so a request's calls are in order */
	for (__u32 i = 0; c->op[i] != NOBODY; i++)
		if (c->request_of[c->op[i]] != NOBODY && !c->repeat[c->op[i]] &&
		    !refused(c, c->op[i]))
			study_request(c, c->op[i]);
	for (__u32 i = 0; i < c->requests; i++) {
		struct request *q = &c->request[i];

		if (q->asked_lo > q->asked_hi)
			return reject(c, LEFT,
				"call %u was made by %lld, but not before %lld, as what is left of its time tells",
				q->first, q->asked_hi, q->asked_lo);
	}
	for (__u32 i = 0; c->op[i] != NOBODY; i++)
		if (c->request_of[c->op[i]] != NOBODY && !c->repeat[c->op[i]] &&
		    !refused(c, c->op[i]) &&
		    !request_of(c, c->op[i])->async)
			study_wait(c, c->op[i]);
	for (__u32 i = 0; i < c->requests; i++)
		if (c->request[i].async)
			study_async_wait(c, i);
	for (__u32 i = 0; i < c->records; i++)
		if (c->record[i].end && c->record[i].kind == LOOK &&
		    c->record[i].ticket && !study_look(c, i))
			return false;
	for (__u32 i = 0; i < c->waits; i++)
		if (c->wait[i].sure && c->wait[i].begin_hi < c->wait[i].end_lo)
			c->sure[c->sures++] = i;
	sorting = c;
	qsort(c->sure, c->sures, sizeof(*c->sure), by_begin_hi);
	for (__u32 i = 0; i < c->sures; i++) {
		c->longest[i] = c->sure[i];
		if (i && c->wait[c->longest[i - 1]].end_lo >
			 c->wait[c->sure[i]].end_lo)
			c->longest[i] = c->longest[i - 1];
	}
	study_shown(c);
	return judge_tickets(c);
}

/* The number of sure waits that certainly began before @at */
__u32 sure_before(struct court *c, __s64 at)
{
	__u32 lo = 0, hi = c->sures;

	while (lo < hi) {
		__u32 mid = (lo + hi) / 2;

		if (c->wait[c->sure[mid]].begin_hi < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* A wait that certainly lasts from @begin to @end, or NULL */
struct wait *waiter_during(struct court *c, __s64 begin, __s64 end)
{
	__u32 n = sure_before(c, begin);
	struct wait *w = n ? &c->wait[c->longest[n - 1]] : NULL;

	return w && w->end_lo > end ? w : NULL;
}

/* A waiter that a call certainly saw, if it looked for one, or NULL */
struct wait *waiter_shown(struct court *c, const struct record *r)
{
	__u32 n = since_before(c->shown, c->shows, r->begin);
	struct wait *w = n ? &c->wait[c->shown[n - 1].wait] : NULL;

	if (!lockless(r))
		return waiter_during(c, r->begin, r->end);
	return w && w->end_lo > r->end ? w : NULL;
}

/* Whether a request that was resumed has not been overtaken since then */
static bool judge_returned(struct court *c, const struct wait *w)
{
	struct request *q = &c->request[w->request], *other;
	struct record *r = &c->record[w->record];
	__u32 lo = 1, hi = c->grants + 1;

	if (q->first == w->record)
		return true;
	/* The first grant that certainly came after it was seen to wait */
	while (lo < hi) {
		__u32 mid = (lo + hi) / 2;

		if (c->hold[mid].grant_lo > w->begin_hi)
			hi = mid;
		else
			lo = mid + 1;
	}
	for (; lo <= c->grants; lo++) {
		struct hold *hold = &c->hold[lo];

		if (r->ret ? hold->grant_hi >= w->end_lo :
			     token_of(c, hold) >= r->token)
			break;
		if (hold->granter == NOBODY)
			continue;
		other = request_of(c, hold->granter);
		if (q->asked_hi < other->asked_lo)
			return reject(c, FIFO,
				"call %u went on with ticket %llu, of call %u, and was seen to wait by %lld, but call %u came later and had token %llu before",
				w->record, q->ticket, q->first, w->begin_hi,
				hold->granter, token_of(c, hold));
	}
	return true;
}

bool judge_queue(struct court *c)
{
	struct wait *last = NULL, *w, *other;

	for (__u32 i = 0; i < c->sures; i++)
		if (!judge_returned(c, &c->wait[c->sure[i]]))
			return false;
	for (__u64 i = c->grants; i; i--) {
		struct hold *hold = &c->hold[i], *before = hold - 1;
		__s64 came;

		if (hold->granter == NOBODY)
			continue;
		w = &c->wait[c->wait_of[hold->granter]];
		came = c->request[w->request].asked_lo;
		if (last && last->begin_hi < came)
			return reject(c, FIFO,
				"call %u waited since %lld at the latest, call %u came at %lld at the earliest and had token %llu before",
				last->record, last->begin_hi, w->record, came,
				token_of(c, hold));
		if (w->sure && (!last || w->begin_hi < last->begin_hi))
			last = w;
		other = waiter_during(c, came, hold->grant_hi);
		if (other)
			return reject(c, FIFO,
				"call %u waited from %lld to %lld at least, call %u came at %lld at the earliest and had token %llu by %lld",
				other->record, other->begin_hi, other->end_lo,
				w->record, came, token_of(c, hold),
				hold->grant_hi);
		if (i > 1 && w->sure && w->begin_hi < before->end_lo &&
		    hold->grant_lo > before->end_hi)
			return reject(c, HAND_OVER,
				"call %u waited since %lld at the latest, token %llu ended by %lld, but the next was granted at %lld",
				w->record, w->begin_hi, token_of(c, before),
				before->end_hi, hold->grant_lo);
	}

	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		__u32 by = i;
		struct hold *hold;

		if (!r->end)
			continue;
		other = NULL;
		if ((c->repeat[i] && r->kind == REACQUIRE && !r->renews) ||
		    (shows(r) && !r->holder.token))
			other = waiter_shown(c, r);
		if (other)
			return reject(c, c->repeat[i] ? YIELD : HAND_OVER,
				"call %u %s while call %u waited", i,
				c->repeat[i] ? "went on holding" : "saw it free",
				other->record);
		/* An asynchronous one ended it when it was made */
		if (takes(r) && fetches(c, i))
			by = request_of(c, i)->first;
		if (c->record[by].kind != REACQUIRE || c->ended[by] == NOBODY)
			continue;
		hold = &c->hold[c->ended[by]];
		if (!r->ret && r->token <= token_of(c, hold) + 1)
			return reject(c, YIELD,
				"call %u, which had token %llu, has token %llu: let nobody in",
				i, token_of(c, hold), r->token);
		if (r->ret == -ETIMEDOUT &&
		    (c->record[by].timeout_ns ?
		     r->holder.token <= token_of(c, hold) :
		     r->holder.token != token_of(c, hold) + 1))
			return reject(c, YIELD,
				"call %u, which had token %llu, learned of token %llu",
				i, token_of(c, hold), r->holder.token);
	}
	return true;
}
