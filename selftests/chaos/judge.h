/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the parts of the judge: see judge.c */
#ifndef JUDGE_H
#define JUDGE_H

#include <errno.h>
#include <stdint.h>

#include "chaos.h"
#include "helpers.h"

#define NEVER	INT64_MAX

/* How a grant may have ended: any of these. A yield is a release. */
enum ending { BY_RELEASE = 1, BY_CLOSE = 2, BY_REVOCATION = 4 };

/* What ESTALE of a call is about */
enum stale {
	FRESH,				/* it is not ESTALE */
	LEARNED,			/* the grant that its file had before */
	OWN,				/* one that the call waited for */
	UNSURE,				/* one of these */
};

/* From a grant to its end */
struct hold {
	__u32 granter;			/* the call; NOBODY: not reported */
	__u32 file;			/* NOBODY: unknown */
	__u32 yielder;			/* the reacquire that ended it */
	__u8 endings;			/* of enum ending */
	__s64 grant_lo, grant_hi;
	__s64 end_lo, end_hi;
	__s64 seen_lo, seen_hi;		/* last begin, first end of a look */
	__s64 free_lo, free_hi;		/* the same for a free lock after it */
	__s64 since;			/* the grant, as seen; 0: never seen */
	__u32 lost_job;			/* record with its job, as seen */
	bool killed;			/* its caller may have been killed */
	/*
	 * Its lease, by those who may have set it, or 0; when it certainly was
	 * renewed last, or 0; and from when on it had one: may and must have
	 */
	__u64 least, most;
	__s64 renewed;
	__s64 leased_lo, leased_hi;
	/*
	 * By calls of REVOKE, or NEVER: when the first one began, and the first
	 * one that succeeded had ended; when the grace ended at the earliest. And
	 * whether one of them may have taken the lock at once, or certainly did,
	 * and when.
	 */
	__s64 revoke_lo, revoke_hi, grace_lo;
	bool may_at_once, at_once;
	__s64 taken_lo, taken_hi;
};

/* A request, made by one call and perhaps resumed by others */
struct request {
	__u32 first;			/* the call that made it */
	__s64 timeout;
	__u64 ticket;			/* 0: unknown */
	__s64 asked_lo, asked_hi;
	bool waited;			/* may have waited */
	bool away, maybe_away;		/* was ever away, or may have been */
	__s64 at_least, at_most;	/* how long it waited, in all */
	/*
	 * Of a request that is asynchronous, and may have waited:
	 * When it certainly was not yet decided, and when it certainly was; when
	 * its outcome was fetched, or it was withdrawn
	 */
	bool async;
	__u32 fetch;			/* the call that fetched it, or NOBODY */
	bool killed;			/* in a call that may have fetched it */
	__s64 undecided, decided;
	__s64 gone_lo, gone_hi;
	bool lost;			/* may have had an unreported grant */
	bool revoked;			/* certainly had one, which was revoked */
	__s64 revoked_hi;		/* by then */
	__u64 lease;			/* if only one thread uses its file */
};

/* A call that waited, or the arrival of one that did not have to */
struct wait {
	__u32 record, request;
	bool waited;			/* may have waited */
	/*
	 * When it joined and left the queue. If it is sure, it was certainly in
	 * the queue all the time from begin_hi to end_lo.
	 */
	bool sure;
	__s64 begin_lo, begin_hi;
	__s64 end_lo, end_hi;
	/* By when a call had returned that shows that it had joined, or NEVER */
	__s64 shown;
};

/* Of calls or waits, in the order of @since */
struct moment {
	__s64 since;
	__s64 bound;
	__u32 wait;
};

struct file {
	__u32 op, ops;			/* first in court.op, and number */
	__u32 hold, holds;		/* first in court.held, and number */
	__s64 close_lo, close_hi;	/* the last close */
	bool shared;			/* several threads use it */
	bool blurred;			/* nothing is concluded of it */
	bool canceled;			/* may have had unreported grants */
	bool flocked;			/* flock() is used with it */
	bool by_flock;			/* flock() made its last request */
	bool async;			/* has had asynchronous requests */
	__u64 least, most;		/* of the leases passed, or 0 */
};

struct court {
	struct history *h;
	struct lock *lock;
	struct record *record;
	__u32 records, files;
	__u64 grants;
	__s64 deleted_lo, deleted_hi;	/* of the lock, or NEVER */
	__s64 *death_lo, *death_hi;	/* of processes */
	struct file *file;
	__u32 *op;			/* records by file, then by begin */
	struct hold *hold;		/* by token - first */
	__u32 *held;			/* holds by file */
	bool *repeat;			/* records: it kept the lock it had */
	enum stale *stale;		/* records */
	__u32 *revoke, revokes;		/* records of REVOKE that succeeded */
	__u64 least, most;		/* of all leases passed, or 0 */
	struct request *request;
	__u32 requests;
	__u32 *request_of;		/* record -> request */
	__u32 *wait_of;			/* record -> wait */
	__u32 *ended;			/* record -> hold it certainly ended */
	struct wait *wait;
	__u32 waits;
	/* The waits that certainly last some time, by begin_hi */
	__u32 *sure;
	__u32 sures;
	__u32 *longest;			/* of those up to here, by end_lo */
	/* The same for calls that do not take the spinlock: see settled() */
	struct moment *shown;
	__u32 shows;
	/*
	 * Calls that took it: by begin, with the first end of those from here
	 * on, and by end, with the last begin of those up to here
	 */
	struct moment *by_begin, *by_end;
	__u32 moments;
	struct verdict verdict;
};

static inline __s64 min64(__s64 a, __s64 b)
{
	return a < b ? a : b;
}

static inline __s64 max64(__s64 a, __s64 b)
{
	return a > b ? a : b;
}

static inline bool takes(const struct record *r)
{
	return r->kind == ACQUIRE || r->kind == REACQUIRE || r->kind == FLOCK;
}

static inline bool ends(const struct record *r)
{
	return r->kind == RELEASE || r->kind == UNLOCK;
}

/* A status that shows something: the lock has not been deleted */
static inline bool shows(const struct record *r)
{
	return r->kind == STATUS && r->end && !r->ret;
}

/* Refused at once, without having asked for anything */
static inline bool refused(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];

	return r->end && (r->ret == -EBUSY || r->ret == -EDEADLK ||
			  r->ret == -EPERM || r->ret == -EINVAL ||
			  c->stale[i] == LEARNED);
}

/* Whether it ends the grant of its file, if there is one */
static inline bool yields(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];

	return r->kind == REACQUIRE && !r->ticket && !r->renews &&
	       !refused(c, i);
}

/* Whether it may have had a grant that was over before it could return that */
static inline bool deprived(struct court *c, __u32 i)
{
	return c->record[i].end && (c->record[i].ret == -ECANCELED ||
				    c->stale[i] > LEARNED);
}

/*
 * A call that may not have taken the lock's spinlock. A reacquire takes it if
 * its job is another one.
 */
static inline bool lockless(const struct record *r)
{
	return r->kind == POLL || (r->kind == REACQUIRE && r->keeps_job &&
				   !r->ticket && !r->ret);
}

static inline __u32 process_of(struct court *c, const struct record *r)
{
	return c->h->actor[r->actor].process;
}

static inline __s64 end_hi(struct court *c, const struct record *r)
{
	return r->end ? r->end : c->death_hi[process_of(c, r)];
}

static inline __u32 was_handled(struct court *c, const struct record *r, int signal)
{
	return (r->end ? r->after[signal] :
		c->h->actor[r->actor].signals[signal]) - r->before[signal];
}

static inline __u32 all_handled(struct court *c, const struct record *r)
{
	return was_handled(c, r, RESTARTS) + was_handled(c, r, FAILS);
}

/* Whether its request may have been away for some time during the call */
static inline bool disturbed(struct court *c, const struct record *r)
{
	return !r->end || r->stops_before % 2 ||
	       r->stops_after != r->stops_before || all_handled(c, r);
}

static inline struct request *request_of(struct court *c, __u32 i)
{
	return c->request_of[i] == NOBODY ? NULL :
					    &c->request[c->request_of[i]];
}

static inline struct hold *hold_of(struct court *c, __u64 token)
{
	if (token <= c->lock->first || token > c->lock->first + c->grants)
		return NULL;
	return &c->hold[token - c->lock->first];
}

static inline __u64 token_of(struct court *c, const struct hold *hold)
{
	return c->lock->first + (hold - c->hold);
}

/* A call that fetches the outcome of an asynchronous request, or tries to */
static inline bool fetches(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);

	return r->async && r->ticket && q && q->async;
}

/* A time that is so much later; times that are too large stand for NEVER */
static inline __s64 later(__s64 at, __u64 by)
{
	return by > (__u64)(NEVER - at) ? NEVER : at + (__s64)by;
}

/* The number of grants at the time of a status */
static inline __u64 grants_at(struct court *c, const struct record *r)
{
	return r->count[ACQUIRED] - c->lock->before.count[ACQUIRED];
}

/* judge.c */
/* For comparison functions: qsort() passes no context */
extern struct court *sorting;

__attribute__((format(printf, 3, 4)))
bool reject(struct court *c, enum rule rule, const char *format, ...);
void *array(size_t n, size_t size);
int by_value(const void *a, const void *b);
int by_since(const void *a, const void *b);
__u32 since_before(const struct moment *m, __u32 n, __s64 at);
void study_moments(struct court *c);
__s64 settled(struct court *c, __s64 at);
__s64 settled_before(struct court *c, __s64 at);

/* judge-calls.c */
bool may_be_orphaned(struct court *c, __u32 i);
bool judge_call(struct court *c, __u32 i);

/* judge-files.c */
void study_files(struct court *c);
void study_requests(struct court *c, struct file *f);
bool study_shared_ends(struct court *c, struct file *f);
bool study_own_ends(struct court *c, struct file *f);
bool judge_file(struct court *c, struct file *f);

/* judge-grants.c */
bool study_grants(struct court *c);
bool study_holds(struct court *c);
bool study_sights(struct court *c);
bool judge_order(struct court *c);
__s64 deadline_lo(struct court *c, __u32 i);
bool requester_lives(struct court *c, const struct request *q);
struct request *lost_request(struct court *c, const struct hold *hold);
bool study_lost(struct court *c);
bool may_hold(struct court *c, struct file *f, __s64 begin, __s64 end);
bool must_hold(struct court *c, struct file *f, __s64 begin, __s64 end);
bool flocked(struct court *c, struct file *f, __s64 by);
bool judge_sights(struct court *c);
bool judge_reports(struct court *c);

/* judge-queue.c */
bool may_have_waited(struct court *c, __u32 i);
bool study_waits(struct court *c);
__u32 sure_before(struct court *c, __s64 at);
struct wait *waiter_during(struct court *c, __s64 begin, __s64 end);
struct wait *waiter_shown(struct court *c, const struct record *r);
bool judge_queue(struct court *c);

/* judge-async.c */
bool judge_unfetched(struct court *c);
bool judge_polls(struct court *c);

/* judge-revoked.c */
__s64 lease_lo(const struct hold *hold);
__s64 revocable_lo(const struct hold *hold);
void study_revokes(struct court *c);
bool study_revocations(struct court *c);
bool judge_revokes(struct court *c);
bool judge_flags(const struct hold *hold, const struct sight *s, __s64 begin,
		 __s64 end, const char **why);
bool judge_terms(struct court *c);

/* judge-events.c */
bool judge_events(struct court *c);

/* judge-names.c */
bool judge_deletions(struct court *c);

/* judge-counters.c */
bool judge_counters(struct court *c);
bool judge_statuses(struct court *c);

#endif /* JUDGE_H */
