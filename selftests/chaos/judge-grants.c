// SPDX-License-Identifier: GPL-2.0-only
/* The judge of a history: the grants, their order, and who saw them */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"

/* Narrows when the grant was made that this call fetched */
static void study_fetched(struct request *q, const struct record *r,
			  const struct record *first, struct hold *hold)
{
	__s64 used = q->timeout - r->left_ns;

	hold->grant_lo = q->undecided;
	hold->grant_hi = min64(r->end, q->decided);
	if (q->timeout <= 0)
		return;
	hold->grant_lo = max64(hold->grant_lo, first->begin + used);
	if (r->left_ns)
		hold->grant_hi = min64(hold->grant_hi, first->end + used);
}

static void set_lease(struct hold *hold, __u64 least, __u64 most)
{
	hold->least = least;
	hold->most = most;
	if (least)
		hold->leased_lo = 0;
}

/* Finds the call that made each grant, or that fetched it */
bool study_grants(struct court *c)
{
	__u32 unfinished = 0, lost = 0;
	bool either = false;
	__s64 lo = NEVER, hi = 0, close_lo = NEVER, close_hi = 0;

	for (__u64 i = 0; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];

		hold->granter = hold->file = NOBODY;
		hold->yielder = hold->lost_job = NOBODY;
		hold->seen_hi = hold->free_hi = NEVER;
		hold->leased_lo = hold->leased_hi = NEVER;
		hold->revoke_lo = hold->revoke_hi = NEVER;
		hold->grace_lo = hold->taken_hi = NEVER;
	}
	c->hold[0].end_hi = c->h->begin;

	/* By file and begin: without a timeout, the first call got the grant */
	for (__u32 i = 0; c->op[i] != NOBODY; i++) {
		struct record *r = &c->record[c->op[i]];
		struct request *q;
		struct hold *hold;

		if (!takes(r))
			continue;
		q = request_of(c, c->op[i]);
		/* Its grant, if any, was fetched by no call or not in time */
		if (q && q->async && q->first == c->op[i] &&
		    (q->fetch == NOBODY || c->record[q->fetch].ret)) {
			struct file *f = &c->file[r->file];

			unfinished++;
			lo = min64(lo, q->undecided);
			hi = max64(hi, q->gone_hi);
			either = true;
			close_lo = min64(close_lo, f->close_lo);
			close_hi = max64(close_hi, f->close_hi);
			continue;
		}
		if (q && q->async && (!r->end || r->ret == -ECANCELED))
			continue;
		if (!r->end || deprived(c, c->op[i])) {
			struct file *f = &c->file[r->file];

			/* With a ticket of no request, it asked for nothing */
			if (!q)
				continue;
			unfinished++;
			lo = min64(lo, r->begin);
			hi = max64(hi, end_hi(c, r));
			either |= r->end || f->blurred || f->flocked;
			close_lo = min64(close_lo, f->close_lo);
			close_hi = max64(close_hi, f->close_hi);
			continue;
		}
		if (r->ret)
			continue;
		hold = hold_of(c, r->token);
		if (r->kind == FLOCK ? hold->granter != NOBODY :
		    r->kind == REACQUIRE && !r->ticket &&
		    (r->async || r->renews ? true :
		     r->timeout_ns < 0 ? hold->granter != NOBODY :
		     r->left_ns == r->timeout_ns)) {
			c->repeat[c->op[i]] = true;
			if (r->result)
				return reject(c, REPORTED,
					"call %u goes on holding, result %#x",
					c->op[i], r->result);
			continue;
		}
		if (hold->granter != NOBODY)
			return reject(c, TOKENS,
				"calls %u and %u both have token %llu",
				hold->granter, c->op[i], r->token);
		hold->granter = c->op[i];
		hold->file = r->file;
		hold->grant_lo = r->begin;
		set_lease(hold, c->file[r->file].least, c->file[r->file].most);
		if (r->kind == ACQUIRE && !r->ticket && r->lease_ns)
			hold->leased_hi = 0;
		if (fetches(c, c->op[i])) {
			study_fetched(q, r, &c->record[q->first], hold);
			continue;
		}
		if (q->timeout > 0)
			hold->grant_lo = max64(hold->grant_lo,
					       c->record[q->first].begin +
					       q->timeout - r->left_ns);
		hold->grant_hi = r->end;
	}

	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];

		if (hold->granter != NOBODY)
			continue;
		if (++lost > unfinished)
			return reject(c, TOKENS,
				"token %llu was returned by no call: %u such grants, but %u calls were killed, canceled or not fetched",
				token_of(c, hold), lost, unfinished);
		hold->grant_lo = lo;
		hold->grant_hi = hi;
		hold->end_lo = either ? lo : close_lo;
		hold->end_hi = max64(close_hi, hi);
		hold->endings = (either ? BY_RELEASE : 0) | BY_CLOSE |
				BY_REVOCATION;
		set_lease(hold, c->least, c->most);
	}
	study_revokes(c);
	return true;
}

bool study_holds(struct court *c)
{
	__u32 at = 0;

	for (__u64 i = 1; i <= c->grants; i++)
		if (c->hold[i].file != NOBODY)
			c->file[c->hold[i].file].holds++;
	for (__u32 i = 0; i < c->files; i++) {
		c->file[i].hold = at;
		at += c->file[i].holds;
		c->file[i].holds = 0;
	}
	for (__u64 i = 1; i <= c->grants; i++) {
		struct file *f;

		if (c->hold[i].file == NOBODY)
			continue;
		f = &c->file[c->hold[i].file];
		c->held[f->hold + f->holds++] = i;
	}
	for (__u32 i = 0; i < c->files; i++)
		if (c->file[i].shared ? !study_shared_ends(c, &c->file[i]) :
					!study_own_ends(c, &c->file[i]))
			return false;
	return true;
}

/* The earliest instant at which the request of this call can have timed out */
__s64 deadline_lo(struct court *c, __u32 i)
{
	struct request *q = request_of(c, i);

	if (fetches(c, i)) {
		if (may_be_orphaned(c, i))
			return q->undecided;
		return max64(q->undecided,
			     c->record[q->first].begin + q->timeout);
	}
	return max64(c->record[i].begin,
		     c->record[q->first].begin + q->timeout);
}

/* Whether the process that made a request certainly lived until it was gone */
bool requester_lives(struct court *c, const struct request *q)
{
	struct record *r = &c->record[q->first];

	return c->death_lo[process_of(c, r)] >= q->gone_hi;
}

/* The earliest instant at which an unfetched grant can have ended by itself */
static __s64 expiry_lo(struct court *c, const struct request *q)
{
	return q->timeout < 0 ? NEVER : c->record[q->first].begin + q->timeout;
}

/*
 * The asynchronous request that certainly had the unreported grant, whose job
 * was seen, or NULL. If a call that may have fetched it was killed, a reacquire
 * may have kept the job.
 */
struct request *lost_request(struct court *c, const struct hold *hold)
{
	struct record *job;
	struct request *q;

	if (hold->lost_job == NOBODY)
		return NULL;
	job = &c->record[hold->lost_job];
	q = request_of(c, hold->lost_job);
	if (!takes(job) || job->keeps_job || !q || !q->async || q->killed ||
	    q->first != hold->lost_job ||
	    (q->fetch != NOBODY && !c->record[q->fetch].ret))
		return NULL;
	return q;
}

/* Narrows the times of a hold by a sight of its holder, or of a free lock */
static bool study_sight(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct sight *s = &r->holder;
	struct record *job;
	struct hold *hold;
	__s64 begin = r->begin;

	if (shows(r) && !s->token) {
		hold = &c->hold[grants_at(c, r)];
		hold->free_lo = max64(hold->free_lo, begin);
		hold->free_hi = min64(hold->free_hi, r->end);
		return true;
	}
	hold = hold_of(c, s->token);
	if (!hold)
		return reject(c, HOLDER, "call %u saw token %llu", i, s->token);
	if (!shows(r))
		begin = deadline_lo(c, i);
	hold->seen_lo = max64(hold->seen_lo, begin);
	hold->seen_hi = min64(hold->seen_hi, r->end);

	if (hold->since && hold->since != (__s64)s->since_ns)
		return reject(c, HOLDER,
			"call %u saw token %llu since %lld, which was since %lld",
			i, s->token, (__s64)s->since_ns, hold->since);
	hold->since = s->since_ns;

	/* No call reported the grant, but the job tells whose it is */
	if (hold->granter != NOBODY || hold->lost_job != NOBODY ||
	    s->job == EMPTY_JOB)
		return true;
	if (s->job == NOBODY || s->job >= c->records)
		return reject(c, HOLDER,
			"call %u saw token %llu with nobody's job", i,
			s->token);
	hold->lost_job = s->job;
	job = &c->record[s->job];
	if (lost_request(c, hold)) {
		struct request *q = lost_request(c, hold);

		hold->endings = q->revoked ? BY_REVOCATION :
					     BY_RELEASE | BY_REVOCATION;
		hold->grant_lo = max64(hold->grant_lo, q->undecided);
		hold->grant_hi = min64(hold->grant_hi, q->gone_hi);
		hold->end_hi = min64(hold->end_hi,
				     min64(q->gone_hi, q->revoked_hi));
		/* Past its expiry, it may have ended by itself */
		if (requester_lives(c, q))
			hold->end_lo = max64(hold->end_lo,
					     min64(q->gone_lo, expiry_lo(c, q)));
		return true;
	}
	/* Otherwise the job is an earlier one, kept by a reacquire */
	if (!job->end && !job->async) {
		struct file *f = &c->file[job->file];

		if (f->blurred) {
			hold->endings = BY_RELEASE | BY_CLOSE | BY_REVOCATION;
		} else {
			/* After flock(), closing is no abandonment */
			hold->endings = (f->by_flock ? BY_RELEASE : BY_CLOSE) |
					BY_REVOCATION;
			hold->end_lo = max64(hold->end_lo, f->close_lo);
		}
		hold->grant_lo = max64(hold->grant_lo, job->begin);
		hold->grant_hi = min64(hold->grant_hi, end_hi(c, job));
		hold->end_hi = min64(hold->end_hi, f->close_hi);
	}
	return true;
}

bool study_sights(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		struct hold *hold;

		if (!r->end)
			continue;
		if (c->repeat[i]) {
			hold = hold_of(c, r->token);
			hold->seen_lo = max64(hold->seen_lo, lockless(r) ?
					      settled_before(c, r->begin) :
					      r->begin);
			hold->seen_hi = min64(hold->seen_hi, r->end);
			if (hold->file != NOBODY && hold->file != r->file)
				return reject(c, TOKENS,
					"call %u goes on with token %llu of another file",
					i, r->token);
		}
		if (r->kind == LOOK && r->token) {
			hold = hold_of(c, r->token);
			hold->seen_lo = max64(hold->seen_lo, r->begin);
			hold->seen_hi = min64(hold->seen_hi, r->end);
		}
		if (shows(r) || (takes(r) && r->ret == -ETIMEDOUT))
			if (!study_sight(c, i))
				return false;
	}
	return true;
}

/* Whether it was certainly revoked because somebody wanted the lock */
static bool revoked_for(const struct hold *hold)
{
	return hold->endings == BY_REVOCATION && !hold->may_at_once;
}

/* Whether the holds can have followed each other; narrows their times */
bool judge_order(struct court *c)
{
	__s64 at = max64(c->h->begin, c->hold[0].free_lo);

	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];

		if (!hold->since)
			continue;
		if (hold->since < hold->grant_lo ||
		    hold->since > hold->grant_hi)
			return reject(c, HOLDER,
				"token %llu was seen to be granted at %lld, outside its call (%lld to %lld)",
				token_of(c, hold), hold->since, hold->grant_lo,
				hold->grant_hi);
		hold->grant_lo = hold->grant_hi = hold->since;
	}

	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i], *next = hold + 1;
		__u64 token = token_of(c, hold);

		if (hold->grant_hi < at)
			return reject(c, EXCLUSION,
				"token %llu was granted (call %u, at %lld at the latest) while the one before was held (till %lld at least)",
				token, hold->granter, hold->grant_hi, at);
		hold->grant_lo = max64(hold->grant_lo, at);
		if (hold->seen_hi < hold->grant_lo)
			return reject(c, HOLDER,
				"token %llu was seen at %lld, before it was granted at %lld",
				token, hold->seen_hi, hold->grant_lo);
		hold->end_lo = max64(hold->end_lo, hold->grant_lo);
		if (hold->end_hi < hold->end_lo)
			return reject(c, EXCLUSION,
				"token %llu (call %u) ended at %lld at the latest, but was granted at %lld at the earliest",
				token, hold->granter, hold->end_hi,
				hold->end_lo);
		if (hold->end_hi < hold->seen_lo)
			return reject(c, HOLDER,
				"token %llu was seen at %lld, after it ended at %lld",
				token, hold->seen_lo, hold->end_hi);
		hold->end_lo = max64(hold->end_lo, hold->seen_lo);
		if ((hold->yielder != NOBODY || revoked_for(hold)) &&
		    !(i == c->grants && c->lock->temporary)) {
			enum rule rule = hold->yielder != NOBODY ? YIELD :
								   REVOCATION;

			if (i == c->grants)
				return reject(c, rule,
					"token %llu (call %u) passed to nobody",
					token, hold->yielder);
			/* Its end and the next grant are one step */
			hold->end_lo = max64(hold->end_lo, next->grant_lo);
			hold->end_hi = min64(hold->end_hi, next->grant_hi);
			if (hold->end_hi < hold->end_lo)
				return reject(c, rule,
					"token %llu (call %u) did not pass to token %llu when it ended",
					token, hold->yielder, token + 1);
		}
		if (hold->free_hi < hold->end_lo)
			return reject(c, HOLDER,
				"free at %lld, when token %llu was held till %lld",
				hold->free_hi, token, hold->end_lo);
		at = max64(hold->end_lo, hold->free_lo);
	}

	at = c->h->end;
	for (__u64 i = c->grants; i; i--) {
		struct hold *hold = &c->hold[i];

		hold->end_hi = min64(hold->end_hi, min64(at, hold->free_hi));
		hold->grant_hi = min64(hold->grant_hi,
				       min64(hold->end_hi, hold->seen_hi));
		at = hold->grant_hi;
	}
	return true;
}

/* A call or a request that may have had one of the unreported grants */
struct loser {
	struct request *q;		/* if it is asynchronous, or NULL */
	__u32 record;
	bool killed;
	__u8 endings;			/* how that one may have ended */
	bool must;			/* it certainly had one */
	bool found;			/* it has had one, supposedly */
	__s64 lo, hi;			/* when that was granted */
	__u64 only;			/* its token; 0: any */
	__u32 last;			/* the last one that it may have had */
};

/* Makes a call, or its asynchronous request, one of the losers */
static bool may_lose(struct court *c, __u32 i, struct loser *l)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);
	struct file *f = &c->file[r->file];

	memset(l, 0, sizeof(*l));
	l->record = i;
	if (!r->begin || !takes(r) || !q)
		return false;
	if (q->async) {
		if (q->first != i)
			return false;
		l->q = q;
		l->lo = q->undecided;
		l->hi = min64(q->gone_hi, q->revoked_hi);
		l->killed = q->killed;
		l->endings = BY_RELEASE | BY_REVOCATION |
			     (q->killed ? BY_CLOSE : 0);
		l->must = q->revoked;
		if (q->revoked)
			l->endings = BY_REVOCATION;
		if (q->fetch == NOBODY)
			return true;
		/* The lock passed from it to the one that it saw */
		l->only = c->record[q->fetch].holder.token - 1;
		return c->record[q->fetch].ret;
	}
	if (r->end && !deprived(c, i))
		return false;
	l->lo = r->begin;
	l->hi = end_hi(c, r);
	l->killed = !r->end;
	l->must = c->stale[i] == OWN;
	l->endings = BY_REVOCATION;
	if (r->end ? r->ret == -ECANCELED : f->blurred || f->by_flock)
		l->endings |= BY_RELEASE;
	if (!r->end && (f->blurred || !f->by_flock))
		l->endings |= BY_CLOSE;
	return true;
}

/* Whether it may have had this unreported grant */
static bool may_have_had(struct court *c, const struct loser *l,
			 const struct hold *hold)
{
	return l->lo <= hold->grant_hi && l->hi >= hold->grant_lo &&
	       (!l->only || l->only == token_of(c, hold));
}

/*
 * Gives each unreported grant to one of the losers, each of whom has had at most
 * one; or, with @must, gives one to each of those who certainly had one. In the
 * order of their tokens, these grants are also in the order of their earliest and
 * of their latest instants. So everyone may have had any of a row of them; and if
 * each grant goes to the one whose row ends first, one is left over only if there
 * is no other way. If there is a way to do each, there is one to do both.
 */
static bool judge_losers(struct court *c, struct loser *losers, __u32 n,
			 bool must)
{
	for (__u32 j = 0; j < n; j++)
		losers[j].found = false;
	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];
		struct loser *first = NULL;

		if (hold->granter != NOBODY)
			continue;
		for (__u32 j = 0; j < n; j++) {
			struct loser *l = &losers[j];

			if (l->found || (must && !l->must) ||
			    !may_have_had(c, l, hold))
				continue;
			if (!first || l->last < first->last)
				first = l;
		}
		if (first)
			first->found = true;
		else if (!must)
			return reject(c, TOKENS,
				"token %llu, granted from %lld to %lld, was granted to nobody",
				token_of(c, hold), hold->grant_lo,
				hold->grant_hi);
	}
	for (__u32 j = 0; j < n && must; j++)
		if (losers[j].must && !losers[j].found)
			return reject(c, STALE,
				"call %u, or its request, was revoked, but can have had no grant",
				losers[j].record);
	return true;
}

/* Finds who may have had each unreported grant, and how it can have ended. */
bool study_lost(struct court *c)
{
	struct loser *losers = array(c->records, sizeof(*losers));
	__u32 n = 0, number = 0;
	bool ok;

	for (__u32 i = 0; i < c->records; i++)
		n += may_lose(c, i, &losers[n]);
	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];
		__u8 endings = 0;

		if (hold->granter != NOBODY)
			continue;
		number++;
		for (__u32 j = 0; j < n; j++) {
			struct loser *l = &losers[j];

			if (!may_have_had(c, l, hold))
				continue;
			hold->killed |= l->killed;
			endings |= l->endings;
			if (l->q)
				l->q->lost = true;
			l->last = number;
		}
		/* If nobody can have had it, that is found below */
		if (hold->endings & endings)
			hold->endings &= endings;
	}
	ok = judge_losers(c, losers, n, false) &&
	     judge_losers(c, losers, n, true);
	free(losers);
	return ok;
}

/* Whether a file may have held the lock at some time in [begin, end] */
bool may_hold(struct court *c, struct file *f, __s64 begin, __s64 end)
{
	__u32 lo = 0, hi = f->holds;

	while (lo < hi) {
		__u32 mid = (lo + hi) / 2;

		if (c->hold[c->held[f->hold + mid]].grant_lo <= end)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && c->hold[c->held[f->hold + lo - 1]].end_hi >= begin;
}

/* Whether a file certainly held the lock during all of [begin, end] */
bool must_hold(struct court *c, struct file *f, __s64 begin, __s64 end)
{
	__u32 lo = 0, hi = f->holds;

	while (lo < hi) {
		__u32 mid = (lo + hi) / 2;

		if (c->hold[c->held[f->hold + mid]].grant_hi < begin)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && c->hold[c->held[f->hold + lo - 1]].end_lo > end;
}

/* Whether flock() may have given a file the empty job by then */
bool flocked(struct court *c, struct file *f, __s64 by)
{
	for (__u32 i = f->op; i < f->op + f->ops; i++)
		if (c->record[c->op[i]].kind == FLOCK &&
		    c->record[c->op[i]].begin <= by)
			return true;
	return false;
}

/* Whether a call may have had a grant that no call reported */
static bool is_unknown(const struct record *r)
{
	return takes(r) && (!r->end || r->ret == -EINPROGRESS ||
			    r->ret == -ECANCELED || r->ret == -ESTALE);
}

/*
 * A file on which flock() was used before a call of this process, which may have
 * had an unreported grant, perhaps with the job that a reacquire kept
 */
static struct file *lost_flock(struct court *c, __u32 process)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];

		if (r->begin && is_unknown(r) && process_of(c, r) == process &&
		    flocked(c, &c->file[r->file], r->begin))
			return &c->file[r->file];
	}
	return NULL;
}

/* Whether the holder that a call saw is the true one */
static bool judge_sight(struct court *c, __u32 i)
{
	struct record *r = &c->record[i], *granter, *job;
	struct process *me = &c->h->process[process_of(c, r)], *him;
	struct sight *s = &r->holder;
	struct hold *hold = hold_of(c, s->token);
	__u64 token = s->token;
	struct file *f;
	__u32 want_uid;
	bool used = false, ended;

	if (s->comm == NOBODY || s->comm >= c->h->processes)
		return reject(c, HOLDER, "call %u saw a stranger", i);
	if (s->job != EMPTY_JOB &&
	    (s->job == NOBODY || s->job >= c->records ||
	     !takes(&c->record[s->job]) || c->record[s->job].kind == FLOCK ||
	     c->record[s->job].keeps_job))
		return reject(c, HOLDER, "call %u saw nobody's job", i);
	job = s->job == EMPTY_JOB ? NULL : &c->record[s->job];
	if (hold->granter == NOBODY) {
		/* Not reported: its own job, or one kept by its reacquire */
		f = job ? &c->file[job->file] : lost_flock(c, s->comm);
		for (__u32 j = f ? f->op : 0; f && !used && j < f->op + f->ops;
		     j++)
			used = is_unknown(&c->record[c->op[j]]);
		if (!used)
			return reject(c, HOLDER,
				"call %u saw token %llu with the job of call %u, whose file has no call of unknown outcome",
				i, token, s->job);
	} else {
		granter = &c->record[hold->granter];
		f = &c->file[granter->file];
		if (job ? job->file != granter->file : !flocked(c, f, r->end))
			return reject(c, HOLDER,
				"call %u saw token %llu with the job of call %u, of another file",
				i, token, s->job);
		/* That of its request, a later one, or a kept earlier one */
		if (job && !f->shared &&
		    s->job != request_of(c, hold->granter)->first &&
		    !(c->repeat[s->job] && job->token == token) &&
		    !(!job->end && job->kind == REACQUIRE) &&
		    !(c->record[request_of(c, hold->granter)->first].keeps_job &&
		      job->begin < granter->begin))
			return reject(c, HOLDER,
				"call %u saw token %llu, of call %u, with the job of call %u",
				i, token, hold->granter, s->job);
		if (r->file == granter->file && r->ret == -ETIMEDOUT &&
		    !f->shared)
			return reject(c, HOLDER,
				"call %u timed out because of its own token %llu",
				i, token);
	}

	used = false;
	for (__u32 j = f->op; !used && j < f->op + f->ops; j++)
		used = takes(&c->record[c->op[j]]) &&
		       process_of(c, &c->record[c->op[j]]) == s->comm;
	if (!used)
		return reject(c, HOLDER,
			"call %u saw token %llu held by process %u, which does not use that file",
			i, token, s->comm);

	him = &c->h->process[s->comm];
	ended = c->death_lo[s->comm] <= r->end;
	if (me->own_pids ? s->pid != (me == him) && !(!s->pid && ended) :
	    s->pid != him->pid && !(!s->pid && ended))
		return reject(c, HOLDER,
			"call %u saw pid %d, of process %u with pid %d", i,
			s->pid, s->comm, him->pid);
	want_uid = !me->own_uids || !him->uid ? him->uid :
		   me == him ? 1 : 65534;
	if (s->uid != want_uid)
		return reject(c, HOLDER, "call %u saw uid %u instead of %u", i,
			      s->uid, want_uid);
	return true;
}

bool judge_sights(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];

		if (r->end && r->holder.token &&
		    (shows(r) || (takes(r) && r->ret == -ETIMEDOUT)))
			if (!judge_sight(c, i))
				return false;
	}
	return true;
}

/*
 * Each abandonment is reported once, and so is each revocation: by the first call
 * after it that returns a grant, but not by flock(), which has no room for it.
 */
static bool judge_report(struct court *c, __u32 flag, enum ending ending)
{
	bool must = false, may = false, reported;

	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];
		struct record *r = NULL;

		if (hold->granter != NOBODY)
			r = &c->record[hold->granter];
		if (r && r->kind != FLOCK) {
			reported = r->result & flag;
			if (reported ? !may : must)
				return reject(c, REPORTED,
					"call %u, token %llu: result %#x, but %s of flag %#x",
					hold->granter, token_of(c, hold),
					r->result, reported ?
					"nothing can be the reason" :
					"there was a reason", flag);
			must = may = false;
		} else if (hold->killed) {
			/* A call that was killed may have reported it */
			must = false;
		}
		must |= hold->endings == ending;
		may |= hold->endings & ending;
	}
	return true;
}

bool judge_reports(struct court *c)
{
	return judge_report(c, TLOCK_ABANDONED, BY_CLOSE) &&
	       judge_report(c, TLOCK_REVOKED, BY_REVOCATION);
}
