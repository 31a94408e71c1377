// SPDX-License-Identifier: GPL-2.0-only
/*
 * The judge of a history. It is sound: it rejects no history that a lock which
 * keeps its promises can have made, however the machine stalled (except for
 * OVERLONG, and a history that is stuck). What it knows of an instant inside a
 * call is an interval, and a promise is broken only if it is for any choice of
 * instants in their intervals. No interval is widened or narrowed by a guess.
 *
 * - A token orders the grants, and this lock numbers them without gaps. So the
 *   instants of grant 1, end 1, grant 2, end 2, ... only grow, and one walk tells
 *   whether they can, and narrows the intervals on the way. Each look at the lock
 *   (a status, what a timed-out call was told) lies between the grant and the end
 *   of the holder seen, and tells the instant of its grant.
 * - A request is made by one call, and those with its ticket go on with it. What
 *   is left of its timeout tells how long ago it was made, whatever happened in
 *   between. So its place in the queue is known to an interval.
 * - While its thread handles a signal, or its process is stopped, a request may be
 *   away and is passed over. So it is certainly in the queue only during a call in
 *   which nothing of that happened: from when it was made, if that call made it,
 *   or from when somebody saw it wait, if not; until its grant or its deadline.
 *   While it is there, nobody who asked later is granted the lock.
 * - A file that only one thread uses is in a known state after each of its calls.
 *   Of a file that several use, the i-th end by time comes after the i-th earliest
 *   beginning of the calls that can have been one, in whatever order they came.
 * - A thread that is killed in a call may have been granted the lock without
 *   telling; and one whose call fails with ECANCELED, too, as another thread may
 *   release before it runs. If others used the file of one that was killed at that
 *   time, then nothing is concluded of that file.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chaos.h"
#include "helpers.h"

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
	[TOLD_ABANDONED] = "abandoned",
	[ERRNO] = "errno",
	[TICKETS] = "tickets",
	[CANCELED] = "canceled",
	[WAITERS] = "waiters",
	[COUNTERS] = "counters",
	[STARVED] = "starved",
};

const char *const count_names[COUNTS] = {
	[ACQUIRED] = "acquired",
	[CONTENDED] = "contended",
	[TIMED_OUT] = "timed_out",
	[INTERRUPTED] = "interrupted",
	[ABANDONED] = "abandoned",
	[YIELDED] = "yielded",
};

#define NEVER	INT64_MAX

enum ending { RELEASED, CLOSED, EITHER };

/* From a grant to its end */
struct hold {
	__u32 granter;			/* the call; NOBODY told of it */
	__u32 file;			/* NOBODY: unknown */
	__u32 yielder;			/* the reacquire that ended it */
	enum ending ending;
	__s64 grant_lo, grant_hi;
	__s64 end_lo, end_hi;
	__s64 seen_lo, seen_hi;		/* last begin, first end of a look */
	__s64 free_lo, free_hi;		/* the same for none holding after it */
	__s64 since;			/* the grant, as seen; 0: never */
	__u32 lost_job;			/* whose it is, as seen */
	bool killed;			/* its call may have been killed */
};

/* What one or more calls have asked for */
struct request {
	__u32 first;			/* the call that made it */
	__s64 timeout;
	__u64 ticket;			/* 0: unknown */
	__s64 asked_lo, asked_hi;
	bool waited;			/* possibly */
	bool away, maybe_away;		/* was it ever? */
	__s64 at_least, at_most;	/* how long, as the lock counts it */
};

/* A call that waited, or the arrival of one that had no need to */
struct wait {
	__u32 record, request;
	bool waited;			/* possibly */
	/*
	 * When it came to the queue, and when it was gone. If it is sure, it was
	 * there all the time from begin_hi to end_lo.
	 */
	bool sure;
	__s64 begin_lo, begin_hi;
	__s64 end_lo, end_hi;
};

struct file {
	__u32 op, ops;			/* where in court.op, how many */
	__u32 hold, holds;		/* where in court.held, how many */
	__s64 close_lo, close_hi;	/* the last close */
	bool shared;			/* several threads use it */
	bool blurred;			/* nothing is known of it */
	bool canceled;			/* it may have had grants that nobody told */
	bool flocked;			/* flock() is used with it, */
	bool by_flock;			/* and made its last request */
};

struct court {
	struct history *h;
	struct record *record;
	__u32 records, files;
	__u64 grants;
	__s64 *death_lo, *death_hi;	/* of processes */
	struct file *file;
	__u32 *op;			/* records by file, then by begin */
	struct hold *hold;		/* by token - first */
	__u32 *held;			/* holds by file */
	bool *repeat;			/* records: goes on holding */
	struct request *request;
	__u32 requests;
	__u32 *request_of;		/* record -> request */
	__u32 *wait_of;			/* record -> wait */
	__u32 *ended;			/* record -> hold it certainly ended */
	struct wait *wait;
	__u32 waits;
	/* The waits that certainly last a while, by their latest begin */
	__u32 *sure;
	__u32 sures;
	__u32 *longest;			/* of those up to here, by their end */
	struct verdict verdict;
};

__attribute__((format(printf, 3, 4)))
static bool reject(struct court *c, enum rule rule, const char *format, ...)
{
	va_list args;

	c->verdict.rule = rule;
	va_start(args, format);
	vsnprintf(c->verdict.why, sizeof(c->verdict.why), format, args);
	va_end(args);
	return false;
}

static void *array(size_t n, size_t size)
{
	void *a = calloc(n + 1, size);

	if (!a)
		die("no memory to judge");
	return a;
}

static __s64 min64(__s64 a, __s64 b)
{
	return a < b ? a : b;
}

static __s64 max64(__s64 a, __s64 b)
{
	return a > b ? a : b;
}

static bool takes(const struct record *r)
{
	return r->kind == ACQUIRE || r->kind == REACQUIRE || r->kind == FLOCK;
}

static bool ends(const struct record *r)
{
	return r->kind == RELEASE || r->kind == UNLOCK;
}

/* Refused at once: it changes nothing */
static bool refused(const struct record *r)
{
	return r->end && (r->ret == -EBUSY || r->ret == -EDEADLK ||
			  r->ret == -EPERM);
}

/* Whether it ends a grant of its file if there is one */
static bool yields(const struct record *r)
{
	return r->kind == REACQUIRE && !r->ticket && !refused(r);
}

static __u32 process_of(struct court *c, const struct record *r)
{
	return c->h->actor[r->actor].process;
}

static __s64 end_hi(struct court *c, const struct record *r)
{
	return r->end ? r->end : c->death_hi[process_of(c, r)];
}

static __u32 was_handled(struct court *c, const struct record *r, int signal)
{
	return (r->end ? r->after[signal] :
		c->h->actor[r->actor].signals[signal]) - r->before[signal];
}

static __u32 all_handled(struct court *c, const struct record *r)
{
	return was_handled(c, r, RESTARTS) + was_handled(c, r, FAILS);
}

/* Whether a request may have been away in it although it was waited for */
static bool disturbed(struct court *c, const struct record *r)
{
	return !r->end || r->stops_before % 2 ||
	       r->stops_after != r->stops_before || all_handled(c, r);
}

static struct request *request_of(struct court *c, __u32 i)
{
	return c->request_of[i] == NOBODY ? NULL :
					    &c->request[c->request_of[i]];
}

static struct hold *hold_of(struct court *c, __u64 token)
{
	if (token <= c->h->first || token > c->h->first + c->grants)
		return NULL;
	return &c->hold[token - c->h->first];
}

static __u64 token_of(struct court *c, const struct hold *hold)
{
	return c->h->first + (hold - c->hold);
}

/* How many grants there were at a status */
static __u64 grants_at(struct court *c, const struct record *r)
{
	return r->count[ACQUIRED] - c->h->before.count[ACQUIRED];
}

/* What it has of a ticket when it ends */
static bool judge_ticket(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	bool right;

	switch (r->ret) {
	case 0:
	case -ETIMEDOUT:
	case -ECANCELED:
		right = !r->left_ticket;
		break;
	case -EINTR:
		right = r->left_ticket &&
			(!r->ticket || r->left_ticket == r->ticket);
		break;
	default:
		right = r->left_ticket == r->ticket;
		break;
	}
	return right || reject(c, TICKETS, "call %u: %d, ticket %llu became %llu",
			       i, r->ret, r->ticket, r->left_ticket);
}

/* What is left of the time of the request that it made or went on with */
static bool judge_left(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);
	__s64 made, used;

	if (!q || q->timeout <= 0 || refused(r))
		return r->left_ns == r->timeout_ns ||
		       reject(c, LEFT, "call %u: %lld ns are left of %lld", i,
			      r->left_ns, r->timeout_ns);
	if (r->left_ns < 0 || r->left_ns > q->timeout)
		return reject(c, LEFT, "call %u: %lld ns are left of %lld", i,
			      r->left_ns, q->timeout);
	if (r->ret == -ETIMEDOUT)
		return !r->left_ns ||
		       reject(c, LEFT, "call %u: timed out, %lld ns are left", i,
			      r->left_ns);
	made = c->record[q->first].begin;
	used = q->timeout - r->left_ns;
	if (used > r->end - made && r->left_ns)
		return reject(c, LEFT, "call %u: %lld ns are left of %lld after %lld",
			      i, r->left_ns, q->timeout, r->end - made);
	/* Time away counts */
	made = c->record[q->first].end;
	if (r->ticket && r->ret != -ECANCELED && r->left_ns &&
	    used < r->begin - made)
		return reject(c, LEFT, "call %u: %lld ns are left of %lld after %lld at least",
			      i, r->left_ns, q->timeout, r->begin - made);
	return true;
}

/* What can be said of a call by itself, and of those that it goes on with */
static bool judge_call(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);
	__s64 deadline, last;

	switch (r->kind) {
	case STATUS:
		if (r->ret)
			return reject(c, ERRNO, "status %u: %d", i, r->ret);
		if (!r->holder.token && r->waiters)
			return reject(c, HAND_OVER,
				"status %u: free, and %u wait", i, r->waiters);
		if (grants_at(c, r) > c->grants)
			return reject(c, COUNTERS, "status %u: %llu grants",
				      i, r->count[ACQUIRED]);
		if (r->holder.token &&
		    r->holder.token != c->h->first + grants_at(c, r))
			return reject(c, HOLDER,
				"status %u: token %llu after %llu, but %llu grants",
				i, r->holder.token, c->h->first,
				grants_at(c, r));
		return true;
	case RELEASE:
		if (r->ret && r->ret != -EPERM)
			return reject(c, ERRNO, "release %u: %d", i, r->ret);
		return true;
	case UNLOCK:
		if (r->ret)
			return reject(c, ERRNO, "unlock %u: %d", i, r->ret);
		return true;
	case LOOK:
		if (r->token && !hold_of(c, r->token))
			return reject(c, TOKENS, "look %u: token %llu", i,
				      r->token);
		return true;
	case ACQUIRE:
	case REACQUIRE:
		if (!judge_ticket(c, i))
			return false;
		if (!q && r->ret != -ECANCELED)
			return reject(c, TICKETS,
				"call %u: %d with a ticket of no request", i,
				r->ret);
		break;
	case FLOCK:
		break;
	default:
		return true;
	}

	switch (r->ret) {
	case 0:
		if (!hold_of(c, r->token))
			return reject(c, TOKENS, "call %u: token %llu", i,
				      r->token);
		if (r->result & ~TLOCK_ABANDONED)
			return reject(c, TOLD_ABANDONED, "call %u: result %#x",
				      i, r->result);
		break;
	case -ETIMEDOUT:
		if (q->timeout < 0 || r->kind == FLOCK)
			return reject(c, ERRNO,
				"call %u: ETIMEDOUT, without a timeout", i);
		deadline = c->record[q->first].begin + q->timeout;
		if (r->end < deadline)
			return reject(c, EARLY,
				"call %u: timed out at %lld, not before %lld", i,
				(__s64)r->end, deadline);
		last = max64(r->begin, c->record[q->first].begin == r->begin ?
			     deadline : c->record[q->first].end + q->timeout);
		if (r->end - OVERLONG > last)
			return reject(c, LATE,
				"call %u: timed out at %lld, not by %lld", i,
				(__s64)r->end, last);
		if (!hold_of(c, r->holder.token))
			return reject(c, HOLDER,
				"call %u: timed out for token %llu", i,
				r->holder.token);
		break;
	case -EAGAIN:
		if (r->kind != FLOCK || r->timeout_ns)
			return reject(c, ERRNO, "call %u: EAGAIN", i);
		break;
	case -EINTR:
		if (!q->timeout)
			return reject(c, ERRNO, "call %u: EINTR of a try", i);
		if (!was_handled(c, r, FAILS))
			return reject(c, ERRNO, "call %u: EINTR without a "
				      "signal that can be why", i);
		break;
	case -EDEADLK:
		if (r->kind == ACQUIRE)
			break;
		return reject(c, ERRNO, "call %u: EDEADLK", i);
	case -EPERM:
		if (r->kind == REACQUIRE && !r->ticket)
			break;
		return reject(c, ERRNO, "call %u: EPERM", i);
	case -EBUSY:
	case -ECANCELED:
		if (r->kind != FLOCK)
			break;
		__attribute__((fallthrough));
	default:
		return reject(c, ERRNO, "call %u: %d", i, r->ret);
	}
	return judge_left(c, i);
}

/* qsort() has no argument for it */
static struct court *sorting;

static int by_file_and_begin(const void *a, const void *b)
{
	__u32 i = *(__u32 *)a, j = *(__u32 *)b;
	struct record *r = &sorting->record[i], *s = &sorting->record[j];

	if (r->file != s->file)
		return r->file < s->file ? -1 : 1;
	if (r->begin != s->begin)
		return r->begin < s->begin ? -1 : 1;
	return i < j ? -1 : i > j;
}

/*
 * When the last look at a file of a process ended that was there while it closed
 * one, or 0: which file that was is not known. Who looks at a file in fdinfo keeps
 * it open.
 */
static __s64 look_during(struct court *c, const struct record *close,
			 __u32 process)
{
	const struct file *none = &c->file[0];
	__s64 by = 0;

	for (__u32 i = none->op; i < none->op + none->ops; i++) {
		struct record *r = &c->record[c->op[i]];

		if (r->kind == LOOK && process_of(c, r) == process &&
		    r->begin <= end_hi(c, close) && end_hi(c, r) >= close->begin)
			by = max64(by, end_hi(c, r));
	}
	return by;
}

/* When a process gave up its descriptor of a file */
static void drop(struct court *c, struct file *f, __u32 process)
{
	__s64 lo = c->death_lo[process], hi = c->death_hi[process];

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];

		if (r->kind == CLOSE && process_of(c, r) == process) {
			lo = r->begin;
			hi = max64(end_hi(c, r), look_during(c, r, process));
			break;
		}
	}
	f->close_lo = max64(f->close_lo, lo);
	f->close_hi = max64(f->close_hi, hi);
}

/* When a message with a descriptor of a file was gone */
static void drop_message(struct court *c, struct file *f, struct record *sent)
{
	__s64 hi = max64(c->death_hi[process_of(c, sent)],
			 c->death_hi[sent->peer]);

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];

		if (r->kind == RECEIVE) {
			drop(c, f, process_of(c, r));
			hi = end_hi(c, r);
		}
	}
	f->close_lo = max64(f->close_lo, sent->begin);
	f->close_hi = max64(f->close_hi, hi);
}

static void study_file(struct court *c, struct file *f)
{
	__u32 user = NOBODY;

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];

		if (r->kind == OPEN)
			drop(c, f, process_of(c, r));
		else if (r->kind == FORK)
			drop(c, f, r->peer);
		else if (r->kind == SEND)
			drop_message(c, f, r);
		/* It is open for a call, and at least until that ends */
		f->close_lo = max64(f->close_lo, r->begin);
		f->close_hi = max64(f->close_hi, end_hi(c, r));
		if (!takes(r) && !ends(r))
			continue;
		f->flocked |= r->kind == FLOCK;
		if (user == NOBODY)
			user = r->actor;
		if (user != r->actor)
			f->shared = true;
		if (takes(r) && r->end && r->ret == -ECANCELED)
			f->canceled = true;
		if (r->end || !takes(r))
			continue;
		for (__u32 j = f->op; j < f->op + f->ops; j++) {
			struct record *s = &c->record[c->op[j]];

			if (s->actor != r->actor &&
			    (takes(s) || ends(s)) &&
			    (!s->end || s->end > r->begin))
				f->blurred = true;
		}
	}
}

static void study_files(struct court *c)
{
	__u32 n = 0;

	for (__u32 i = 0; i < c->records; i++)
		if (c->record[i].begin)
			c->op[n++] = i;
	sorting = c;
	qsort(c->op, n, sizeof(*c->op), by_file_and_begin);
	for (__u32 i = 0; i < n; i++) {
		struct file *f = &c->file[c->record[c->op[i]].file];

		if (!f->ops++)
			f->op = i;
	}
	for (__u32 i = 0; i < c->files; i++)
		study_file(c, &c->file[i]);
}

/* Which calls belong to one request. Of flock(), which has no ticket, too. */
static void study_requests(struct court *c, struct file *f)
{
	__u32 by_flock = NOBODY;

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		__u32 number = c->op[i], request = NOBODY;
		struct record *r = &c->record[number];

		/* What ends or replaces flock()'s request */
		if (ends(r) || r->kind == CLOSE ||
		    (takes(r) && !r->ticket && !refused(r) &&
		     !(r->kind == FLOCK && r->timeout_ns))) {
			by_flock = NOBODY;
		}
		if (!takes(r))
			continue;
		if (r->kind == FLOCK) {
			request = by_flock;
		} else if (r->ticket) {
			for (__u32 j = i; j-- > f->op && request == NOBODY;)
				if (takes(&c->record[c->op[j]]) &&
				    c->record[c->op[j]].ret == -EINTR &&
				    c->record[c->op[j]].left_ticket == r->ticket)
					request = c->request_of[c->op[j]];
			if (request == NOBODY)
				continue;
		}
		if (request == NOBODY) {
			request = c->requests++;
			c->request[request] = (struct request){
				.first = number,
				.timeout = r->timeout_ns,
			};
		}
		c->request_of[number] = request;
		if (r->end && r->ret == -EINTR) {
			c->request[request].ticket = r->left_ticket;
			if (r->kind == FLOCK)
				by_flock = request;
		}
	}
}

/* Which call made which grant */
static bool study_grants(struct court *c)
{
	__u32 unfinished = 0, lost = 0;
	bool either = false;
	__s64 lo = NEVER, hi = 0, close_lo = NEVER, close_hi = 0;

	for (__u64 i = 0; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];

		hold->granter = hold->file = NOBODY;
		hold->yielder = hold->lost_job = NOBODY;
		hold->seen_hi = hold->free_hi = NEVER;
	}
	c->hold[0].end_hi = c->h->begin;

	/* By file and begin: who has no timeout was granted first */
	for (__u32 i = 0; c->op[i] != NOBODY; i++) {
		struct record *r = &c->record[c->op[i]];
		struct request *q;
		struct hold *hold;

		if (!takes(r))
			continue;
		if (!r->end || r->ret == -ECANCELED) {
			struct file *f = &c->file[r->file];

			/* With another's ticket, it asked for nothing */
			if (c->request_of[c->op[i]] == NOBODY)
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
		    (r->timeout_ns < 0 ? hold->granter != NOBODY :
		     r->left_ns == r->timeout_ns)) {
			c->repeat[c->op[i]] = true;
			if (r->result)
				return reject(c, TOLD_ABANDONED,
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
		q = request_of(c, c->op[i]);
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
				"token %llu is nobody's: %u grants were not told, but %u calls were killed or canceled",
				token_of(c, hold), lost, unfinished);
		hold->grant_lo = lo;
		hold->grant_hi = hi;
		hold->end_lo = either ? lo : close_lo;
		hold->end_hi = max64(close_hi, hi);
		hold->ending = either ? EITHER : CLOSED;
	}
	return true;
}

static int by_value(const void *a, const void *b)
{
	__s64 x = *(__s64 *)a, y = *(__s64 *)b;

	return x < y ? -1 : x > y;
}

/* Whether another's request may be there for a release to withdraw */
static bool may_withdraw(struct court *c, struct file *f, struct record *r)
{
	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *s = &c->record[c->op[i]];

		if (takes(s) && s->begin <= r->end && !refused(s) &&
		    (s->ret == -EINTR ||
		     (s->actor != r->actor && end_hi(c, s) >= r->begin)))
			return true;
	}
	return false;
}

/* How the holds of a file ended that several threads use */
static bool study_shared_ends(struct court *c, struct file *f)
{
	__s64 *begins, *ends_by;
	__u32 *enders, certain = 0, possible = 0;
	bool ok = true;

	begins = array(f->ops + 1, sizeof(*begins));
	ends_by = array(f->ops + 1, sizeof(*ends_by));
	enders = array(f->ops + 1, sizeof(*enders));
	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];
		__s64 hi = r->end;

		if ((r->kind != RELEASE && !yields(r)) || refused(r) ||
		    c->repeat[c->op[i]])
			continue;
		begins[possible++] = r->begin;
		if (!r->end || (r->kind == RELEASE && may_withdraw(c, f, r)))
			continue;
		/* A reacquire let go of it when it began to wait */
		if (r->kind == REACQUIRE && r->timeout_ns > 0)
			hi -= r->timeout_ns - r->left_ns;
		enders[certain] = c->op[i];
		ends_by[certain++] = hi;
	}
	begins[possible] = f->close_lo;
	qsort(begins, possible + 1, sizeof(*begins), by_value);
	qsort(ends_by, certain, sizeof(*ends_by), by_value);

	for (__u32 i = 0; i < f->holds; i++) {
		struct hold *hold = &c->hold[c->held[f->hold + i]];
		bool last = i + 1 == f->holds;

		if (f->blurred) {
			hold->end_lo = hold->grant_lo;
			hold->end_hi = f->close_hi;
			hold->ending = EITHER;
			continue;
		}
		if (i > possible) {
			ok = reject(c, ERRNO,
				"file %u was granted token %llu while it held the lock",
				c->record[hold->granter].file,
				token_of(c, hold));
			break;
		}
		hold->end_lo = begins[i];
		hold->end_hi = f->close_hi;
		hold->ending = !last ? RELEASED :
			       i < possible ? EITHER : CLOSED;
		if (i == possible)
			hold->end_lo = max64(hold->end_lo, f->close_lo);
		/* Grants that nobody told may have been what some of them ended */
		if (i < certain && !f->canceled) {
			hold->end_hi = ends_by[i];
			hold->ending = RELEASED;
		}
	}
	if (ok && !f->blurred && !f->canceled && certain > f->holds)
		ok = reject(c, ERRNO,
			    "call %u ended a grant of a file that had only %u",
			    enders[f->holds], f->holds);
	free(begins);
	free(ends_by);
	free(enders);
	return ok;
}

/* What a file is in that one thread uses, after each of its calls */
struct state {
	struct hold *hold;	/* that it has, or */
	__u32 away;		/* the request that it has, or NOBODY */
	bool by_flock;		/* whose last request was made by flock() */
};

/* Whether the call may return what it did */
static bool judge_state(struct court *c, __u32 i, const struct state *s)
{
	struct record *r = &c->record[i];
	const char *is = s->hold ? "holds" : s->away != NOBODY ? "is away" :
			 "is idle";
	bool right;

	if (c->repeat[i])
		right = s->hold && s->hold == hold_of(c, r->token);
	else if (r->kind == RELEASE)
		right = (r->ret == 0) == (s->hold || s->away != NOBODY);
	else if (ends(r))
		right = true;
	else if (r->ticket && (s->away == NOBODY ||
			       c->request_of[i] != s->away))
		right = r->ret == -ECANCELED;
	else if (r->kind == REACQUIRE && !r->ticket)
		right = (r->ret == -EPERM) == !s->hold &&
			r->ret != -ECANCELED && r->ret != -EBUSY;
	else if (r->kind == ACQUIRE && s->hold)
		right = r->ret == -EDEADLK;
	else if (r->kind == FLOCK && s->hold)
		right = false;
	else
		right = !refused(r) && r->ret != -ECANCELED;
	return right || reject(c, r->ticket ? CANCELED : ERRNO,
			       "call %u: %d, when its file %s", i, r->ret, is);
}

static bool study_own_ends(struct court *c, struct file *f)
{
	struct state s = { .away = NOBODY };

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		__u32 number = c->op[i];
		struct record *r = &c->record[number];
		bool lets_go;

		if (!takes(r) && !ends(r))
			continue;
		if (r->end && !judge_state(c, number, &s))
			return false;
		if (refused(r) || c->repeat[number] ||
		    (r->ret == -ECANCELED && r->ticket))
			continue;
		lets_go = ends(r) || yields(r);
		if (s.hold && lets_go) {
			s.hold->end_lo = r->begin;
			s.hold->end_hi = r->end ? r->end : f->close_hi;
			s.hold->ending = r->end ? RELEASED :
					 s.by_flock ? RELEASED : EITHER;
			if (r->end && r->kind == REACQUIRE) {
				if (r->timeout_ns > 0)
					s.hold->end_hi -= r->timeout_ns -
							  r->left_ns;
				s.hold->yielder = number;
			}
			if (r->end)
				c->ended[number] = s.hold - c->hold;
			s.hold = NULL;
		}
		s.away = r->ret == -EINTR ? c->request_of[number] : NOBODY;
		if (takes(r) && !r->ticket && !s.hold)
			s.by_flock = r->kind == FLOCK;
		if (!takes(r) || r->ret || !r->end)
			continue;
		if (s.hold)
			return reject(c, ERRNO,
				"file %u was granted token %llu while it held the lock",
				r->file, r->token);
		s.hold = hold_of(c, r->token);
		s.hold->end_lo = f->close_lo;
		s.hold->end_hi = f->close_hi;
		s.hold->ending = s.by_flock ? RELEASED : CLOSED;
	}
	f->by_flock = s.by_flock;
	return true;
}

static bool study_holds(struct court *c)
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

/* When a request that timed out in this call did so, at the earliest */
static __s64 deadline_lo(struct court *c, __u32 i)
{
	struct request *q = request_of(c, i);

	return max64(c->record[i].begin,
		     c->record[q->first].begin + q->timeout);
}

/* What a look at the lock says of when its holder held it */
static bool study_sight(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct sight *s = &r->holder;
	struct record *job;
	struct hold *hold;
	__s64 begin = r->begin;

	if (r->kind == STATUS && !s->token) {
		hold = &c->hold[grants_at(c, r)];
		hold->free_lo = max64(hold->free_lo, begin);
		hold->free_hi = min64(hold->free_hi, r->end);
		return true;
	}
	hold = hold_of(c, s->token);
	if (!hold)
		return reject(c, HOLDER, "call %u saw token %llu", i, s->token);
	if (r->kind != STATUS)
		begin = deadline_lo(c, i);
	hold->seen_lo = max64(hold->seen_lo, begin);
	hold->seen_hi = min64(hold->seen_hi, r->end);

	if (hold->since && hold->since != (__s64)s->since_ns)
		return reject(c, HOLDER,
			"call %u saw token %llu since %lld, which was since %lld",
			i, s->token, (__s64)s->since_ns, hold->since);
	hold->since = s->since_ns;

	/* Nobody told of it, but here is whose it is */
	if (hold->granter != NOBODY || hold->lost_job != NOBODY ||
	    s->job == EMPTY_JOB)
		return true;
	if (s->job == NOBODY || s->job >= c->records)
		return reject(c, HOLDER,
			"call %u saw token %llu with nobody's job", i,
			s->token);
	hold->lost_job = s->job;
	job = &c->record[s->job];
	/* Else the job is an earlier one, kept by a reacquire */
	if (!job->end) {
		struct file *f = &c->file[job->file];

		if (f->blurred) {
			hold->ending = EITHER;
		} else {
			/* Which is no abandonment after flock() */
			hold->ending = f->by_flock ? RELEASED : CLOSED;
			hold->end_lo = max64(hold->end_lo, f->close_lo);
		}
		hold->grant_lo = max64(hold->grant_lo, job->begin);
		hold->grant_hi = min64(hold->grant_hi, end_hi(c, job));
		hold->end_hi = min64(hold->end_hi, f->close_hi);
	}
	return true;
}

static bool study_sights(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		struct hold *hold;

		if (!r->end)
			continue;
		if (c->repeat[i]) {
			hold = hold_of(c, r->token);
			hold->seen_lo = max64(hold->seen_lo, r->begin);
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
		if (r->kind == STATUS || (takes(r) && r->ret == -ETIMEDOUT))
			if (!study_sight(c, i))
				return false;
	}
	return true;
}

/* Whether the holds can have come one after the other, and when */
static bool judge_order(struct court *c)
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
		if (hold->yielder != NOBODY) {
			if (i == c->grants)
				return reject(c, YIELD,
					"call %u let nobody in",
					hold->yielder);
			/* One step */
			hold->end_lo = max64(hold->end_lo, next->grant_lo);
			hold->end_hi = min64(hold->end_hi, next->grant_hi);
			if (hold->end_hi < hold->end_lo)
				return reject(c, YIELD,
					"call %u was not the one that let token %llu in",
					hold->yielder, token + 1);
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

/* What can have become of those that nobody told, after all */
static void study_lost(struct court *c)
{
	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];
		bool quiet = false, abandoned = false;

		if (hold->granter != NOBODY)
			continue;
		for (__u32 j = 0; j < c->records; j++) {
			struct record *r = &c->record[j];
			struct file *f = &c->file[r->file];

			if (!r->begin || !takes(r) || !request_of(c, j) ||
			    (r->end && r->ret != -ECANCELED) ||
			    r->begin > hold->grant_hi ||
			    end_hi(c, r) < hold->grant_lo)
				continue;
			hold->killed |= !r->end;
			quiet |= r->end || f->blurred || f->by_flock;
			abandoned |= !r->end && (f->blurred || !f->by_flock);
		}
		if (hold->ending == EITHER && quiet != abandoned)
			hold->ending = abandoned ? CLOSED : RELEASED;
	}
}

/* Whether a file has a hold that lasts at some time of [begin, end] */
static bool may_hold(struct court *c, struct file *f, __s64 begin, __s64 end)
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

/* Whether it has one that certainly lasts all of that time */
static bool must_hold(struct court *c, struct file *f, __s64 begin, __s64 end)
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

/* Whether flock() can have given a file the empty job by then */
static bool flocked(struct court *c, struct file *f, __s64 by)
{
	for (__u32 i = f->op; i < f->op + f->ops; i++)
		if (c->record[c->op[i]].kind == FLOCK &&
		    c->record[c->op[i]].begin <= by)
			return true;
	return false;
}

/* A file of a process that was killed in a call after it used flock(), or NULL */
static struct file *lost_flock(struct court *c, __u32 process)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];

		if (r->begin && !r->end && takes(r) &&
		    process_of(c, r) == process &&
		    flocked(c, &c->file[r->file], r->begin))
			return &c->file[r->file];
	}
	return NULL;
}

/* Whether what was seen of a holder is what it said of itself */
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
		/* Nobody told: its own job, or one that its last reacquire kept */
		f = job ? &c->file[job->file] : lost_flock(c, s->comm);
		for (__u32 j = f ? f->op : 0; f && !used && j < f->op + f->ops;
		     j++)
			used = takes(&c->record[c->op[j]]) &&
			       (!c->record[c->op[j]].end ||
				c->record[c->op[j]].ret == -ECANCELED);
		if (!used)
			return reject(c, HOLDER,
				"call %u saw token %llu with the job of call %u, none of those that told nothing",
				i, token, s->job);
	} else {
		granter = &c->record[hold->granter];
		f = &c->file[granter->file];
		if (job ? job->file != granter->file : !flocked(c, f, r->end))
			return reject(c, HOLDER,
				"call %u saw token %llu with the job of call %u, of another file",
				i, token, s->job);
		/* Its request's, one changed since, or an earlier one, kept */
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

static bool judge_sights(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];

		if (r->end && r->holder.token &&
		    (r->kind == STATUS || (takes(r) && r->ret == -ETIMEDOUT)))
			if (!judge_sight(c, i))
				return false;
	}
	return true;
}

static int by_begin_hi(const void *a, const void *b)
{
	__s64 x = sorting->wait[*(__u32 *)a].begin_hi;
	__s64 y = sorting->wait[*(__u32 *)b].begin_hi;

	return x < y ? -1 : x > y;
}

/* When a request was made, and how long it waited, as one of its calls tells it */
static void study_request(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);
	__s64 used = q->timeout - r->left_ns;
	/* When it was granted, or gone */
	__s64 until_lo = r->begin, until_hi = end_hi(c, r);
	struct hold *hold;

	if (q->first == i) {
		q->asked_lo = r->begin;
		q->asked_hi = end_hi(c, r);
	}
	if (disturbed(c, r))
		q->maybe_away = true;
	if (r->end && !r->ret) {
		hold = hold_of(c, r->token);
		until_lo = hold->grant_lo;
		until_hi = hold->grant_hi;
		/* Came and had it */
		if (q->first == i && (!q->timeout ||
				      (q->timeout > 0 && !used)))
			q->asked_lo = max64(q->asked_lo, until_lo);
	} else if (r->end && r->ret == -EINTR) {
		q->away = true;
	} else if (r->end && r->ret == -ECANCELED) {
		/* Perhaps it was so already when the call began */
		until_lo = c->record[q->first].begin;
	}
	q->asked_hi = min64(q->asked_hi, until_hi);
	/* If nothing is left, more than that may be used */
	if (r->end && q->timeout > 0) {
		q->asked_hi = min64(q->asked_hi, until_hi - used);
		if (r->left_ns && r->ret != -ECANCELED)
			q->asked_lo = max64(q->asked_lo, until_lo - used);
	}
	if (c->ended[i] != NOBODY && r->kind == REACQUIRE && q->first == i) {
		/* It took its place when it let go of the lock */
		hold = &c->hold[c->ended[i]];
		q->asked_lo = max64(q->asked_lo, hold->end_lo);
		q->asked_hi = min64(q->asked_hi, hold->end_hi);
	}
}

static bool may_have_waited(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);

	if (!q->timeout)
		return false;
	return !r->end || r->ret || r->ticket || q->timeout < 0 ||
	       r->left_ns != q->timeout;
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
	/* Until it was granted, or a deadline before which it does not go */
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
	/* If killed or canceled, it may have been over before that call */
	if (r->end && (r->ret != -ECANCELED || r->timeout_ns != r->left_ns))
		q->at_least = at_least;
	q->at_most = at_most;
}

/* What was seen of a ticket: that its request is in the queue */
static bool study_look(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct wait *in = NULL;
	__u32 calls = 0;

	for (__u32 j = 0; j < c->waits; j++) {
		struct wait *w = &c->wait[j];
		struct record *s = &c->record[w->record];

		if (c->request[w->request].ticket == r->ticket &&
		    s->begin <= r->end && end_hi(c, s) >= r->begin) {
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

/* Tickets only grow */
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

static bool study_waits(struct court *c)
{
	/* By file, and so the calls of each request in their order */
	for (__u32 i = 0; c->op[i] != NOBODY; i++)
		if (c->request_of[c->op[i]] != NOBODY && !c->repeat[c->op[i]] &&
		    !refused(&c->record[c->op[i]]))
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
		    !refused(&c->record[c->op[i]]))
			study_wait(c, c->op[i]);
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
	return judge_tickets(c);
}

/* How many of the sure waits certainly began before */
static __u32 sure_before(struct court *c, __s64 at)
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

/* One that certainly waits all the time, or NULL */
static struct wait *waiter_during(struct court *c, __s64 begin, __s64 end)
{
	__u32 n = sure_before(c, begin);
	struct wait *w = n ? &c->wait[c->longest[n - 1]] : NULL;

	return w && w->end_lo > end ? w : NULL;
}

/* Whether one that was interrupted and is back was overtaken since then */
static bool judge_returned(struct court *c, const struct wait *w)
{
	struct request *q = &c->request[w->request], *other;
	struct record *r = &c->record[w->record];
	__u32 lo = 1, hi = c->grants + 1;

	if (q->first == w->record)
		return true;
	/* The first grant that certainly came after it was seen */
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

static bool judge_queue(struct court *c)
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
		struct hold *hold;

		if (!r->end)
			continue;
		other = NULL;
		if ((c->repeat[i] && r->kind == REACQUIRE) ||
		    (r->kind == STATUS && !r->holder.token))
			other = waiter_during(c, r->begin, r->end);
		if (other)
			return reject(c, c->repeat[i] ? YIELD : HAND_OVER,
				"call %u %s while call %u waited", i,
				c->repeat[i] ? "went on holding" : "saw it free",
				other->record);
		if (r->kind != REACQUIRE || c->ended[i] == NOBODY)
			continue;
		hold = &c->hold[c->ended[i]];
		if (!r->ret && r->token <= token_of(c, hold) + 1)
			return reject(c, YIELD,
				"call %u, which had token %llu, has token %llu: let nobody in",
				i, token_of(c, hold), r->token);
		if (r->ret == -ETIMEDOUT &&
		    (r->timeout_ns ?
		     r->holder.token <= token_of(c, hold) :
		     r->holder.token != token_of(c, hold) + 1))
			return reject(c, YIELD,
				"call %u, which had token %llu, was told of token %llu",
				i, token_of(c, hold), r->holder.token);
	}
	return true;
}

/* Whether somebody can have ended the request, or the grant, of that call */
static bool may_be_canceled(struct court *c, struct file *f, __u32 i)
{
	struct record *r = &c->record[i];
	__s64 since = r->begin;

	if (r->ticket && request_of(c, i))
		since = c->record[request_of(c, i)->first].begin;
	for (__u32 j = f->op; j < f->op + f->ops; j++) {
		struct record *s = &c->record[c->op[j]];

		if (c->op[j] == i || s->begin > r->end || end_hi(c, s) < since ||
		    (s->actor == r->actor && !r->ticket))
			continue;
		if (!s->end ? takes(s) || ends(s) :
		    s->kind == RELEASE ? !s->ret :
		    yields(s) || (s->kind == ACQUIRE && !s->ticket &&
				  !refused(s) && (r->ticket || disturbed(c, r))))
			return true;
	}
	return false;
}

/*
 * Whether the call on a file that several threads use was refused rightly, or
 * rightly not. @waits are all those on that file.
 */
static bool judge_errno(struct court *c, struct file *f, __u32 i,
			const __u32 *waits, __u32 n)
{
	struct record *r = &c->record[i];
	bool there = false, other = false, untold = false;

	for (__u32 j = 0; j < n; j++) {
		struct wait *w = &c->wait[waits[j]];
		struct record *s = &c->record[w->record];

		if (s->actor == r->actor || s->begin > r->end ||
		    end_hi(c, s) < r->begin)
			continue;
		other = true;
		if (s->ret == -ECANCELED)
			untold = true;
		if (w->sure && w->begin_hi < r->begin && w->end_lo > r->end)
			there = true;
	}
	if (r->kind == RELEASE) {
		if (r->ret && there)
			return reject(c, CANCELED,
				"release %u: EPERM, while its file waited", i);
		if (r->ret && must_hold(c, f, r->begin, r->end))
			return reject(c, ERRNO, "release %u: EPERM, holds", i);
		return true;
	}
	switch (r->ret) {
	case -EDEADLK:
		if (!untold && !may_hold(c, f, r->begin, r->end))
			return reject(c, ERRNO,
				"call %u: EDEADLK, does not hold", i);
		return true;
	case -EPERM:
		if (must_hold(c, f, r->begin, r->end))
			return reject(c, ERRNO, "call %u: EPERM, holds", i);
		break;
	case -EBUSY:
		if (!other)
			return reject(c, ERRNO,
				"call %u: EBUSY, but nobody waits on its file",
				i);
		return true;
	case -ECANCELED:
		if (r->ticket && !request_of(c, i))
			return true;
		if (!may_be_canceled(c, f, i))
			return reject(c, CANCELED,
				"call %u: ECANCELED, but nobody released its file",
				i);
		return true;
	}
	if (there)
		return reject(c, ERRNO,
			"call %u: %d instead of EBUSY, while another waited on its file",
			i, r->ret);
	if (r->kind == ACQUIRE && !r->ticket &&
	    must_hold(c, f, r->begin, r->end))
		return reject(c, ERRNO, "call %u: %d instead of EDEADLK", i,
			      r->ret);
	return true;
}

/* Whether a release ended the request that was there, as it must */
static bool judge_withdrawn(struct court *c, struct file *f, __u32 i)
{
	struct record *r = &c->record[i];

	for (__u32 j = f->op; !r->ret && j < f->op + f->ops; j++) {
		struct record *s = &c->record[c->op[j]];
		__u32 w = c->wait_of[c->op[j]];

		if (w == NOBODY || !s->end || s->ret == -ECANCELED)
			continue;
		/* It was there before the release, and is after it */
		if (c->request[c->wait[w].request].asked_hi < r->begin &&
		    c->wait[w].end_lo > r->end &&
		    (!s->ret || s->ret == -ETIMEDOUT))
			return reject(c, CANCELED,
				"call %u: %d, but release %u withdrew what it waited for",
				c->op[j], s->ret, i);
	}
	return true;
}

static bool judge_file(struct court *c, struct file *f)
{
	__u32 *waits, n = 0;
	bool ok = true;

	/* One that is not shared was judged call by call */
	if (f->blurred || !f->shared)
		return true;
	waits = array(f->ops, sizeof(*waits));
	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		__u32 w = c->wait_of[c->op[i]];

		if (w != NOBODY && c->wait[w].waited)
			waits[n++] = w;
	}
	for (__u32 i = f->op; ok && i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];

		if (!r->end || c->repeat[c->op[i]])
			continue;
		if (takes(r) || r->kind == RELEASE)
			ok = judge_errno(c, f, c->op[i], waits, n);
		if (ok && r->kind == RELEASE)
			ok = judge_withdrawn(c, f, c->op[i]);
	}
	free(waits);
	return ok;
}

/*
 * Each abandonment is told once: by the first call after it that returns a grant,
 * except for flock(), which has no room for it
 */
static bool judge_abandoned(struct court *c)
{
	bool must = false, may = false, told;

	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];
		struct record *r = NULL;

		if (hold->granter != NOBODY)
			r = &c->record[hold->granter];
		if (r && r->kind != FLOCK) {
			told = r->result & TLOCK_ABANDONED;
			if (told ? !may : must)
				return reject(c, TOLD_ABANDONED,
					"call %u, token %llu: told %d, but %s",
					hold->granter, token_of(c, hold), told,
					told ? "nobody abandoned it" :
					"it was abandoned");
			must = may = false;
		} else if (hold->killed) {
			/* It may have been told to one that was killed then */
			must = false;
		}
		must |= hold->ending == CLOSED;
		may |= hold->ending != RELEASED;
	}
	return true;
}

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

static bool judge_counters(struct court *c)
{
	struct counters *b = &c->h->before, *a = &c->h->after;
	__u64 lo[COUNTS] = { 0 }, hi[COUNTS] = { 0 };
	__u64 lo_sum = 0, hi_sum = 0, lo_max = 0, hi_max = 0;

	lo[ACQUIRED] = hi[ACQUIRED] = c->grants;
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		struct request *q = request_of(c, i);
		bool found;

		if (!r->begin || !takes(r) || !q || c->repeat[i] || refused(r))
			continue;
		if (!r->end)
			hi[TIMED_OUT] += q->timeout >= 0;
		else
			lo[TIMED_OUT] += r->ret == -ETIMEDOUT ||
					 r->ret == -EAGAIN;
		hi[TIMED_OUT] += r->end && (r->ret == -ETIMEDOUT ||
					    r->ret == -EAGAIN);
		/* The rest counts a request once */
		if (q->first != i)
			continue;
		lo[INTERRUPTED] += q->away;
		hi[INTERRUPTED] += q->away || (q->timeout && q->maybe_away);
		if (r->kind == REACQUIRE) {
			lo[YIELDED] += r->end != 0;
			hi[YIELDED]++;
			continue;
		}
		/* That it has waited may be known by what is left */
		found = r->end && (r->ret || (r->timeout_ns > 0 &&
					      r->left_ns < r->timeout_ns));
		lo[CONTENDED] += found;
		hi[CONTENDED] += found || !r->end || may_have_waited(c, i);
	}
	for (__u64 i = 1; i <= c->grants; i++) {
		lo[ABANDONED] += c->hold[i].ending == CLOSED;
		hi[ABANDONED] += c->hold[i].ending != RELEASED;
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

/* What the statuses say, of one instant each and one after the other */
static bool judge_statuses(struct court *c)
{
	__u32 *begun, *ended, n = 0, done = 0, waits = 0;
	__s64 *sure_ends, *begins, *ends;
	struct counters low = c->h->before;
	bool ok = true;

	begun = array(c->records, sizeof(*begun));
	ended = array(c->records, sizeof(*ended));
	for (__u32 i = 0; i < c->records; i++)
		if (c->record[i].end && c->record[i].kind == STATUS)
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
			    r->count[k] > c->h->after.count[k])
				ok = reject(c, COUNTERS,
					"status %u: %s is %llu, was %llu before, %llu in the end",
					begun[i], count_names[k], r->count[k],
					low.count[k], c->h->after.count[k]);

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

static bool judge_progress(struct court *c)
{
	__u32 calls = 0, last = NOBODY;

	if (!c->h->stuck)
		return true;
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];

		if (r->begin && !r->end && takes(r)) {
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
	for (__u32 i = 0; i < c->files; i++)
		study_requests(c, &c->file[i]);
	for (__u32 i = 0; i < c->records; i++)
		if (c->record[i].end && !judge_call(c, i))
			return false;
	if (!study_grants(c) || !study_holds(c) || !study_sights(c) ||
	    !judge_order(c))
		return false;
	study_lost(c);
	if (!judge_sights(c) || !study_waits(c) || !judge_queue(c))
		return false;
	for (__u32 i = 0; i < c->files; i++)
		if (!judge_file(c, &c->file[i]))
			return false;
	return judge_abandoned(c) && judge_counters(c) && judge_statuses(c) &&
	       judge_progress(c);
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
	struct court court = {
		.h = h,
		.record = h->record,
		.records = min64(h->records, h->capacity),
		.files = h->files,
		.grants = h->after.count[ACQUIRED] - h->before.count[ACQUIRED],
	}, *c = &court;

	if (h->after.count[ACQUIRED] < h->before.count[ACQUIRED] ||
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
	c->request = array(c->records, sizeof(*c->request));
	c->request_of = array(c->records, sizeof(*c->request_of));
	c->wait_of = array(c->records, sizeof(*c->wait_of));
	c->ended = array(c->records, sizeof(*c->ended));
	c->wait = array(c->records, sizeof(*c->wait));
	c->sure = array(c->records, sizeof(*c->sure));
	c->longest = array(c->records, sizeof(*c->longest));
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
	free(c->request);
	free(c->request_of);
	free(c->wait_of);
	free(c->ended);
	free(c->wait);
	free(c->sure);
	free(c->longest);
	return c->verdict;
}
