// SPDX-License-Identifier: GPL-2.0-only
/* The judge of a history: grants that no call has fetched yet, and poll */
#include <errno.h>
#include <poll.h>

#include "judge.h"

/* The asynchronous request that had a grant, if that is certain, or NULL */
static struct request *requester(struct court *c, const struct hold *hold)
{
	if (hold->granter == NOBODY)
		return lost_request(c, hold);
	return fetches(c, hold->granter) ? request_of(c, hold->granter) : NULL;
}

/* Whether a call may have seen the grant as it did: fetched by then, or not */
static bool judge_flag(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct sight *s = &r->holder;
	struct hold *hold = hold_of(c, s->token);
	struct request *q = requester(c, hold);
	__s64 begin = shows(r) ? r->begin : deadline_lo(c, i);
	struct record *granter = NULL;
	const char *why = NULL;

	if (hold->granter != NOBODY)
		granter = &c->record[hold->granter];
	if (s->unfetched && granter && !q)
		why = "is unfetched, though it was granted by a call";
	else if (s->unfetched && granter && begin > granter->end)
		why = "is unfetched after its fetch";
	else if (!s->unfetched && q && (!granter || r->end < granter->begin))
		why = "is fetched before any fetch";
	return !why || reject(c, HOLDER, "call %u saw that token %llu %s", i,
			      s->token, why);
}

/*
 * Whether an acquire, which tried to get the lock, should have ended a grant
 * that nobody had fetched in time. The one after it may be such a grant, too,
 * but no call ends more than one.
 */
static bool judge_expiry(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct sight *s = &r->holder;
	struct request *q = requester(c, hold_of(c, s->token));
	__s64 expiry;

	if (r->kind != ACQUIRE || r->ticket || r->timeout_ns || !s->unfetched ||
	    !q || q->timeout < 0 || (__s64)s->since_ns >= r->begin)
		return true;
	expiry = c->record[q->first].end + q->timeout;
	return r->begin <= expiry ||
	       reject(c, EXPIRY,
		      "call %u failed because of token %llu, which expired at %lld unfetched",
		      i, s->token, expiry);
}

bool judge_unfetched(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		struct request *q = request_of(c, i);

		if (!r->end || !r->holder.token)
			continue;
		/* See may_be_orphaned(): it must have had a grant */
		if (takes(r) && r->ret == -ETIMEDOUT && fetches(c, i) &&
		    !q->lost && (q->timeout < 0 ||
				 r->end < c->record[q->first].begin + q->timeout))
			return reject(c, EARLY,
				"call %u: timed out early, without a grant", i);
		if (shows(r) ? !judge_flag(c, i) :
		    takes(r) && r->ret == -ETIMEDOUT &&
		    (!judge_flag(c, i) || !judge_expiry(c, i)))
			return false;
	}
	return true;
}

/* Whether the file may have held the lock by a grant that no call reported */
static bool may_have_lost(struct court *c, __u32 file, const struct record *r)
{
	for (__u32 i = 0; i < c->requests; i++) {
		struct request *q = &c->request[i];

		if (q->lost && c->record[q->first].file == file &&
		    q->undecided <= r->end && q->gone_hi >= r->begin)
			return true;
	}
	return false;
}

static bool may_wait(struct court *c, const struct record *r)
{
	__s64 begin = settled_before(c, r->begin);

	for (__u32 i = 0; i < c->waits; i++) {
		struct wait *w = &c->wait[i];

		if (w->waited && w->begin_lo <= r->end && w->end_hi >= begin)
			return true;
	}
	return false;
}

/* Whether the file may have had a grant that was revoked by then */
static bool may_be_revoked(struct court *c, const struct record *r)
{
	struct file *f = &c->file[r->file];

	for (__u32 i = 0; i < f->holds; i++) {
		struct hold *hold = &c->hold[c->held[f->hold + i]];

		if (hold->endings & BY_REVOCATION && revocable_lo(hold) <= r->end)
			return true;
	}
	return f->blurred || f->canceled;
}

/*
 * Whether poll reported waiters to the holder, and to nobody else, and revocations
 */
bool judge_polls(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		struct file *f = &c->file[r->file];
		struct wait *w;

		if (r->kind != POLL || !r->end)
			continue;
		if (r->ret && r->ret != -EINTR)
			return reject(c, ERRNO, "poll %u: %d", i, r->ret);
		if (r->ret)
			continue;
		if (r->events & ~(r->wanted | POLLERR))
			return reject(c, POLLED, "poll %u: %#x, wanted %#x", i,
				      r->events, r->wanted);
		if (r->events & POLLERR) {
			if ((r->wanted & POLLPRI) && !(r->events & POLLPRI))
				return reject(c, POLLED, "poll %u: events %#x",
					      i, r->events);
			if (!may_be_revoked(c, r))
				return reject(c, POLLED,
					"poll %u: POLLERR of a file that can have lost nothing",
					i);
			continue;
		}
		if ((r->wanted & POLLIN) && (r->wanted & POLLPRI) &&
		    !(r->events & POLLIN) != !(r->events & POLLPRI))
			return reject(c, POLLED, "poll %u: events %#x", i,
				      r->events);
		if ((r->wanted & POLLPRI) && !(r->events & POLLPRI)) {
			w = must_hold(c, f, settled_before(c, r->begin),
				      r->end) ? waiter_shown(c, r) : NULL;
			if (w)
				return reject(c, POLLED,
					"poll %u: no POLLPRI, while call %u waited",
					i, w->record);
		}
		if (!(r->events & POLLPRI))
			continue;
		if (!may_wait(c, r))
			return reject(c, POLLED,
				"poll %u: POLLPRI, and nobody waited", i);
		if (!f->shared &&
		    !may_hold(c, f, settled_before(c, r->begin), r->end) &&
		    !may_have_lost(c, r->file, r))
			return reject(c, POLLED,
				"poll %u: POLLPRI of a file that did not hold",
				i);
	}
	return true;
}
