// SPDX-License-Identifier: GPL-2.0-only
/*
 * The judge of a history. It is sound: it rejects no history that a lock which
 * keeps its promises can have made, however the machine stalled (except for
 * OVERLONG, and a history that is stuck). What it knows of an instant inside a
 * call is an interval, and a promise is broken only if it is for any choice of
 * instants in their intervals. No interval is widened or narrowed by a guess.
 *
 * - A token orders the grants. So the instants of grant 1, end 1, grant 2, end
 *   2, ... only grow, and one walk tells whether they can, and narrows the
 *   intervals on the way. Each look at the lock (a status, what a timed-out
 *   call was told) lies between the grant and the end of the holder seen, and
 *   tells the instant of its grant.
 * - What is left of a timeout tells how long the call waited, at least until
 *   its grant. Taken back from the end of the call, that is the latest time at
 *   which it can have begun to wait; the beginning of the call is the
 *   earliest. Who certainly waited before another is to be granted before.
 * - A call that handled a signal may have been made again: all that is known
 *   is that it began to wait, the last time, before its grant.
 * - A file that only one thread uses is held by it from its grant to the end
 *   that comes next. Of a file that several use, the i-th end by time lies
 *   between the i-th earliest beginning and the i-th earliest end of the calls
 *   that can have been one, in whatever order they came.
 * - Who is killed in a call may have been granted the lock without telling. If
 *   others used its file at that time, then nothing is concluded of that file.
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
};

/* A call that waited, or the arrival of one that had no need to */
struct wait {
	__u32 record;
	bool waited;			/* possibly */
	__s64 begin_lo, begin_hi;	/* of the (last) wait */
	__s64 end_lo, end_hi;
	__s64 at_least, at_most;	/* how long, as the lock counts it */
};

struct file {
	__u32 op, ops;			/* where in court.op, how many */
	__u32 hold, holds;		/* where in court.held, how many */
	__s64 close_lo, close_hi;	/* the last close */
	bool shared;			/* several threads use it */
	bool blurred;			/* nothing is known of it */
	bool lost;			/* killed in a call that takes the lock */
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
	return r->kind == ACQUIRE || r->kind == REACQUIRE;
}

static __u32 process_of(struct court *c, const struct record *r)
{
	return c->h->actor[r->actor].process;
}

static __s64 end_hi(struct court *c, const struct record *r)
{
	return r->end ? r->end : c->death_hi[process_of(c, r)];
}

static __u32 handled(struct court *c, const struct record *r, int signal)
{
	return (r->end ? r->after[signal] :
		c->h->actor[r->actor].signals[signal]) - r->before[signal];
}

static __u32 all_handled(struct court *c, const struct record *r)
{
	return handled(c, r, RESTARTS) + handled(c, r, FAILS);
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

/* What can be said of a call by itself */
static bool judge_call(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	__s64 took = r->end - r->begin;

	if (r->end < r->begin)
		die("record %u ends before it begins", i);
	switch (r->kind) {
	case STATUS:
		if (r->ret)
			return reject(c, ERRNO, "status %u: %d", i, r->ret);
		if (!r->holder.token && r->waiters)
			return reject(c, HAND_OVER,
				"status %u: free, and %u wait", i, r->waiters);
		if (r->holder.token &&
		    r->holder.token != r->count[ACQUIRED])
			return reject(c, HOLDER,
				"status %u: token %llu, but %llu grants", i,
				r->holder.token, r->count[ACQUIRED]);
		if (r->count[ACQUIRED] < c->h->first ||
		    r->count[ACQUIRED] > c->h->first + c->grants)
			return reject(c, COUNTERS, "status %u: %llu grants",
				      i, r->count[ACQUIRED]);
		return true;
	case RELEASE:
		if (r->ret && r->ret != -EPERM)
			return reject(c, ERRNO, "release %u: %d", i, r->ret);
		return true;
	case ACQUIRE:
	case REACQUIRE:
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
		if (r->timeout_ns < 0)
			return reject(c, ERRNO,
				"call %u: ETIMEDOUT, without a timeout", i);
		if (took < r->timeout_ns)
			return reject(c, EARLY,
				"call %u: timed out after %lld ns of %lld", i,
				took, r->timeout_ns);
		if (took - OVERLONG > r->timeout_ns)
			return reject(c, LATE,
				"call %u: timed out after %lld ns of %lld", i,
				took, r->timeout_ns);
		if (r->left_ns)
			return reject(c, LEFT,
				"call %u: timed out, %lld ns are left", i,
				r->left_ns);
		if (!hold_of(c, r->holder.token))
			return reject(c, HOLDER,
				"call %u: timed out for token %llu", i,
				r->holder.token);
		break;
	case -EINTR:
		if (!r->timeout_ns)
			return reject(c, ERRNO, "call %u: EINTR of a try", i);
		if (!handled(c, r, FAILS) &&
		    (r->kind == ACQUIRE || !handled(c, r, RESTARTS)))
			return reject(c, ERRNO, "call %u: EINTR without a "
				      "signal that can be why", i);
		break;
	case -EDEADLK:
	case -EBUSY:
		if (r->kind == ACQUIRE)
			break;
		return reject(c, ERRNO, "reacquire %u: %d", i, r->ret);
	case -EPERM:
		if (r->kind == REACQUIRE)
			break;
		return reject(c, ERRNO, "acquire %u: %d", i, r->ret);
	default:
		return reject(c, ERRNO, "call %u: %d", i, r->ret);
	}

	if (r->timeout_ns <= 0 ? r->left_ns != r->timeout_ns :
	    r->left_ns < 0 || r->left_ns > r->timeout_ns)
		return reject(c, LEFT, "call %u: %lld ns are left of %lld", i,
			      r->left_ns, r->timeout_ns);
	if (r->timeout_ns > 0 && r->ret != -ETIMEDOUT &&
	    r->timeout_ns - r->left_ns > took)
		return reject(c, LEFT,
			"call %u: %lld ns are left of %lld after %lld", i,
			r->left_ns, r->timeout_ns, took);
	return true;
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

/* When a process gave up its descriptor of a file */
static void drop(struct court *c, struct file *f, __u32 process)
{
	__s64 lo = c->death_lo[process], hi = c->death_hi[process];

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];

		if (r->kind == CLOSE && process_of(c, r) == process) {
			lo = r->begin;
			hi = end_hi(c, r);
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
		if (!takes(r) && r->kind != RELEASE)
			continue;
		if (user == NOBODY)
			user = r->actor;
		if (user != r->actor)
			f->shared = true;
		if (r->end || !takes(r))
			continue;
		f->lost = true;
		for (__u32 j = f->op; j < f->op + f->ops; j++) {
			struct record *s = &c->record[c->op[j]];

			if (s->actor != r->actor &&
			    (takes(s) || s->kind == RELEASE) &&
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

/* Which call made which grant */
static bool study_grants(struct court *c)
{
	__u32 unfinished = 0, lost = 0;
	bool blurred = false;
	__s64 lo = NEVER, hi = 0, close_lo = NEVER, close_hi = 0;

	for (__u64 i = 0; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];

		hold->granter = hold->file = NOBODY;
		hold->yielder = hold->lost_job = NOBODY;
		hold->seen_hi = hold->free_hi = NEVER;
	}
	c->hold[0].end_hi = c->h->begin;

	for (__u32 i = 0; i < c->records; i++)
		c->wait_of[i] = c->ended[i] = NOBODY;

	/* By file and begin: who has no timeout was granted first */
	for (__u32 i = 0; c->op[i] != NOBODY; i++) {
		struct record *r = &c->record[c->op[i]];
		struct hold *hold;

		if (!takes(r))
			continue;
		if (!r->end) {
			struct file *f = &c->file[r->file];

			unfinished++;
			lo = min64(lo, r->begin);
			hi = max64(hi, end_hi(c, r));
			blurred |= f->blurred;
			close_lo = min64(close_lo, f->close_lo);
			close_hi = max64(close_hi, f->close_hi);
			continue;
		}
		if (r->ret)
			continue;
		hold = hold_of(c, r->token);
		if (r->kind == REACQUIRE &&
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
		hold->grant_hi = r->end;
	}

	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];

		if (hold->granter != NOBODY)
			continue;
		if (++lost > unfinished)
			return reject(c, TOKENS,
				"token %llu is nobody's: %u grants were not told, but %u calls were killed",
				token_of(c, hold), lost, unfinished);
		hold->grant_lo = lo;
		hold->grant_hi = hi;
		hold->end_lo = blurred ? lo : close_lo;
		hold->end_hi = max64(close_hi, hi);
		hold->ending = blurred ? EITHER : CLOSED;
	}
	return true;
}

static int by_value(const void *a, const void *b)
{
	__s64 x = *(__s64 *)a, y = *(__s64 *)b;

	return x < y ? -1 : x > y;
}

/* How the holds of a file ended */
static bool study_ends(struct court *c, struct file *f)
{
	__s64 *begins, *ends;
	__u32 *enders, certain = 0, possible = 0;
	bool ok = true;

	begins = array(f->ops + 1, sizeof(*begins));
	ends = array(f->ops + 1, sizeof(*ends));
	enders = array(f->ops + 1, sizeof(*enders));
	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];
		__s64 hi = r->end;

		if (r->kind != RELEASE && r->kind != REACQUIRE)
			continue;
		if (!r->end) {
			begins[possible++] = r->begin;
			continue;
		}
		if (r->ret == -EPERM || c->repeat[c->op[i]])
			continue;
		/* A reacquire let go of it when it began to wait */
		if (r->kind == REACQUIRE && r->timeout_ns > 0)
			hi -= r->timeout_ns - r->left_ns;
		begins[possible++] = r->begin;
		enders[certain] = c->op[i];
		ends[certain++] = hi;
	}
	begins[possible] = f->close_lo;
	qsort(begins, possible + 1, sizeof(*begins), by_value);
	qsort(ends, certain, sizeof(*ends), by_value);

	for (__u32 i = 0; i < f->holds; i++) {
		struct hold *hold = &c->hold[c->held[f->hold + i]];

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
		if (i < certain) {
			struct record *ender = &c->record[enders[i]];

			hold->end_hi = ends[i];
			hold->ending = RELEASED;
			if (!f->shared && ender->kind == REACQUIRE)
				hold->yielder = enders[i];
			if (!f->shared)
				c->ended[enders[i]] = hold - c->hold;
		} else {
			hold->end_hi = f->close_hi;
			hold->ending = i < possible ? EITHER : CLOSED;
			if (i == possible)
				hold->end_lo = max64(hold->end_lo, f->close_lo);
		}
	}
	if (ok && !f->blurred && certain > f->holds)
		ok = reject(c, ERRNO,
			    "call %u ended a grant of a file that had only %u",
			    enders[f->holds], f->holds);
	free(begins);
	free(ends);
	free(enders);
	return ok;
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
		if (!study_ends(c, &c->file[i]))
			return false;
	return true;
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
		hold = &c->hold[r->count[ACQUIRED] - c->h->first];
		hold->free_lo = max64(hold->free_lo, begin);
		hold->free_hi = min64(hold->free_hi, r->end);
		return true;
	}
	hold = hold_of(c, s->token);
	if (!hold)
		return reject(c, HOLDER, "call %u saw token %llu", i, s->token);
	if (r->kind != STATUS)
		begin += r->timeout_ns;
	hold->seen_lo = max64(hold->seen_lo, begin);
	hold->seen_hi = min64(hold->seen_hi, r->end);

	if (hold->since && hold->since != (__s64)s->since_ns)
		return reject(c, HOLDER,
			"call %u saw token %llu since %lld, which was since %lld",
			i, s->token, (__s64)s->since_ns, hold->since);
	hold->since = s->since_ns;

	/* Nobody told of it, but here is whose it is */
	if (hold->granter != NOBODY || hold->lost_job != NOBODY)
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
			hold->ending = CLOSED;
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
	if (s->job == NOBODY || s->job >= c->records ||
	    !takes(&c->record[s->job]) || c->record[s->job].keeps_job)
		return reject(c, HOLDER, "call %u saw nobody's job", i);
	job = &c->record[s->job];
	if (hold->granter == NOBODY) {
		/* Killed: its own job, or one that its last reacquire kept */
		used = !job->end;
		f = &c->file[job->file];
		for (__u32 j = f->op; !used && j < f->op + f->ops; j++)
			used = takes(&c->record[c->op[j]]) &&
			       !c->record[c->op[j]].end;
		if (!used)
			return reject(c, HOLDER,
				"call %u saw token %llu with the job of call %u, none of the killed",
				i, token, s->job);
	} else {
		granter = &c->record[hold->granter];
		f = &c->file[granter->file];
		if (job->file != granter->file)
			return reject(c, HOLDER,
				"call %u saw token %llu with the job of call %u, of another file",
				i, token, s->job);
		/* Its own job, one changed since, or an earlier one, kept */
		if (!f->shared && s->job != hold->granter &&
		    !(c->repeat[s->job] && job->token == token) &&
		    !(!job->end && job->kind == REACQUIRE) &&
		    !(granter->keeps_job && job->begin < granter->begin))
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

static void study_wait(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	bool once = !all_handled(c, r);
	struct wait w = {
		.record = i,
		.waited = true,
		.begin_lo = r->begin,
		.begin_hi = end_hi(c, r),
		.end_lo = r->begin,
		.end_hi = end_hi(c, r),
	};
	struct hold *hold;

	if (c->repeat[i])
		return;
	if (!r->end) {
		if (!r->timeout_ns)
			return;
	} else if (!r->ret) {
		hold = hold_of(c, r->token);
		w.end_lo = hold->grant_lo;
		w.end_hi = w.begin_hi = hold->grant_hi;
		if (!r->timeout_ns ||
		    (r->timeout_ns > 0 && r->left_ns == r->timeout_ns)) {
			/* Came and had it */
			w.waited = false;
			w.begin_lo = hold->grant_lo;
		} else if (once && r->timeout_ns > 0) {
			w.begin_hi = min64(w.begin_hi, r->end -
					   (r->timeout_ns - r->left_ns));
		}
	} else if (r->ret == -ETIMEDOUT) {
		if (!r->timeout_ns)
			return;
		w.end_lo += r->timeout_ns;
		if (once) {
			w.begin_hi -= r->timeout_ns;
			w.at_least = r->timeout_ns;
		}
	} else if (r->ret == -EINTR) {
		;
	} else if (once) {
		/* Refused at once */
		return;
	}
	w.at_least = max64(w.at_least, w.end_lo - w.begin_hi);
	if (c->ended[i] != NOBODY && r->kind == REACQUIRE) {
		/*
		 * It took its place when it let go of the lock, or a little
		 * later by the clock, but nobody can have come between.
		 */
		hold = &c->hold[c->ended[i]];
		w.begin_lo = max64(w.begin_lo, hold->end_lo);
		w.begin_hi = min64(w.begin_hi, hold->end_hi);
	}
	w.at_most = w.end_hi - w.begin_lo;
	if (once && r->end && !r->ret && r->timeout_ns > 0)
		w.at_most = min64(w.at_most, r->timeout_ns - r->left_ns);

	if (w.waited && w.begin_hi < w.end_lo)
		c->sure[c->sures++] = c->waits;
	c->wait_of[i] = c->waits;
	c->wait[c->waits++] = w;
}

static void study_waits(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++)
		if (c->record[i].begin && takes(&c->record[i]))
			study_wait(c, i);
	sorting = c;
	qsort(c->sure, c->sures, sizeof(*c->sure), by_begin_hi);
	for (__u32 i = 0; i < c->sures; i++) {
		c->longest[i] = c->sure[i];
		if (i && c->wait[c->longest[i - 1]].end_lo >
			 c->wait[c->sure[i]].end_lo)
			c->longest[i] = c->longest[i - 1];
	}
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

static bool judge_queue(struct court *c)
{
	struct wait *last = NULL, *w, *other;

	for (__u64 i = c->grants; i; i--) {
		struct hold *hold = &c->hold[i], *before = hold - 1;

		if (hold->granter == NOBODY)
			continue;
		w = &c->wait[c->wait_of[hold->granter]];
		if (last && last->begin_hi < w->begin_lo)
			return reject(c, FIFO,
				"call %u waited since %lld at the latest, call %u came at %lld at the earliest and had token %llu before",
				last->record, last->begin_hi, w->record,
				w->begin_lo, token_of(c, hold));
		if (!last || w->begin_hi < last->begin_hi)
			last = w;
		other = waiter_during(c, w->begin_lo, hold->grant_hi);
		if (other)
			return reject(c, FIFO,
				"call %u waited from %lld to %lld at least, call %u came at %lld at the earliest and had token %llu by %lld",
				other->record, other->begin_hi, other->end_lo,
				w->record, w->begin_lo, token_of(c, hold),
				hold->grant_hi);
		if (i > 1 && w->waited && w->begin_hi < before->end_lo &&
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
		if (c->repeat[i] ||
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

/*
 * Whether the call was refused rightly, or rightly not. @waits are all those
 * on its file.
 */
static bool judge_errno(struct court *c, __u32 i, const __u32 *waits, __u32 n)
{
	struct record *r = &c->record[i];
	struct file *f = &c->file[r->file];
	bool once = !all_handled(c, r), other = false;

	switch (r->ret) {
	case -EDEADLK:
		if (!may_hold(c, f, r->begin, r->end))
			return reject(c, ERRNO,
				"call %u: EDEADLK, does not hold", i);
		return true;
	case -EPERM:
		if (must_hold(c, f, r->begin, r->end))
			return reject(c, ERRNO, "call %u: EPERM, holds", i);
		return true;
	}
	if (r->kind != ACQUIRE)
		return true;
	if (must_hold(c, f, r->begin, r->end))
		return reject(c, ERRNO, "call %u: %d instead of EDEADLK", i,
			      r->ret);
	for (__u32 j = 0; j < n; j++) {
		struct wait *w = &c->wait[waits[j]];
		struct record *s = &c->record[w->record];

		if (s->actor == r->actor)
			continue;
		if (s->begin <= r->end && end_hi(c, s) >= r->begin)
			other = true;
		if (r->ret != -EBUSY && once && w->begin_hi < r->begin &&
		    w->end_lo > r->end)
			return reject(c, ERRNO,
				"call %u: %d, while call %u waited on its file",
				i, r->ret, w->record);
	}
	if (r->ret == -EBUSY && !other)
		return reject(c, ERRNO,
			"call %u: EBUSY, but nobody waits on its file", i);
	return true;
}

static bool judge_file(struct court *c, struct file *f)
{
	__u32 *waits, n = 0;
	bool ok = true;

	if (f->blurred)
		return true;
	waits = array(f->ops, sizeof(*waits));
	/* One thread does not meet itself */
	for (__u32 i = f->op; f->shared && i < f->op + f->ops; i++) {
		__u32 w = c->wait_of[c->op[i]];

		if (w != NOBODY && c->wait[w].waited)
			waits[n++] = w;
	}
	for (__u32 i = f->op; ok && i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];

		if (r->end && (takes(r) || r->kind == RELEASE))
			ok = judge_errno(c, c->op[i], waits, n);
	}
	free(waits);
	return ok;
}

static bool judge_abandoned(struct court *c)
{
	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];
		enum ending ending = hold[-1].ending;
		bool told;

		if (hold->granter == NOBODY || ending == EITHER)
			continue;
		told = c->record[hold->granter].result & TLOCK_ABANDONED;
		if (told != (ending == CLOSED))
			return reject(c, TOLD_ABANDONED,
				"call %u, token %llu: told %d, but the one before (call %u) %s",
				hold->granter, token_of(c, hold), told,
				hold[-1].granter, ending == CLOSED ?
				"closed its file" : "let go of it");
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
		__u32 signals;

		if (!r->begin || !takes(r) || c->repeat[i])
			continue;
		signals = all_handled(c, r);
		if (!r->end) {
			hi[TIMED_OUT] += r->timeout_ns >= 0;
			hi[INTERRUPTED] += signals + 1;
			if (r->kind == REACQUIRE)
				hi[YIELDED]++;
			else
				hi[CONTENDED] += signals + 1;
			continue;
		}
		lo[INTERRUPTED] += r->ret == -EINTR;
		if (r->kind == REACQUIRE) {
			/* Never made again */
			hi[INTERRUPTED] += r->ret == -EINTR;
			lo[YIELDED] += r->ret != -EPERM;
			hi[YIELDED] += r->ret != -EPERM;
		} else {
			__u32 w = c->wait_of[i];
			bool found = r->ret == -ETIMEDOUT || r->ret == -EINTR;

			hi[INTERRUPTED] += signals;
			/* Each time that the call is made may find it held */
			if (!r->ret && r->timeout_ns > 0 &&
			    r->left_ns < r->timeout_ns)
				found = true;
			lo[CONTENDED] += found;
			hi[CONTENDED] += signals +
				(r->ret != -EINTR &&
				 (found ||
				  (w != NOBODY && c->wait[w].waited &&
				   r->ret != -EDEADLK && r->ret != -EBUSY)));
		}
		lo[TIMED_OUT] += r->ret == -ETIMEDOUT;
		hi[TIMED_OUT] += r->ret == -ETIMEDOUT;
	}
	for (__u64 i = 1; i <= c->grants; i++) {
		lo[ABANDONED] += c->hold[i].ending == CLOSED;
		hi[ABANDONED] += c->hold[i].ending != RELEASED;
	}
	for (int i = 0; i < COUNTS; i++)
		if (!judge_count(c, count_names[i], b->count[i], a->count[i],
				 lo[i], hi[i]))
			return false;

	for (__u32 i = 0; i < c->waits; i++) {
		struct wait *w = &c->wait[i];

		if (!w->waited)
			continue;
		lo_sum += w->at_least;
		hi_sum += w->at_most;
		lo_max = max64(lo_max, w->at_least);
		hi_max = max64(hi_max, w->at_most);
	}
	/* A call that was made again waited several times, each one shorter */
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
	for (__u32 i = 0; i < c->records; i++)
		if (c->record[i].end && !judge_call(c, i))
			return false;
	study_files(c);
	if (!study_grants(c) || !study_holds(c) || !study_sights(c) ||
	    !judge_order(c) || !judge_sights(c))
		return false;
	study_waits(c);
	if (!judge_queue(c))
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
		.grants = h->after.count[ACQUIRED] - h->first,
	}, *c = &court;

	if (h->after.count[ACQUIRED] < h->first ||
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
	c->wait_of = array(c->records, sizeof(*c->wait_of));
	c->ended = array(c->records, sizeof(*c->ended));
	c->wait = array(c->records, sizeof(*c->wait));
	c->sure = array(c->records, sizeof(*c->sure));
	c->longest = array(c->records, sizeof(*c->longest));
	study_deaths(c);

	judge_all(c);

	free(c->death_lo);
	free(c->death_hi);
	free(c->file);
	free(c->op);
	free(c->hold);
	free(c->held);
	free(c->repeat);
	free(c->wait_of);
	free(c->ended);
	free(c->wait);
	free(c->sure);
	free(c->longest);
	return c->verdict;
}
