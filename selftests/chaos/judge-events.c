// SPDX-License-Identifier: GPL-2.0-only
/*
 * The judge of a history: the events that a monitor of the lock read.
 *
 * They are replayed, and must be what a lock can do: one step after the other,
 * one holder at a time, the longest waiter first. They must be what the callers
 * saw: each grant with its token, its job and its process, at an instant when it
 * can have been made, and ended in the same way; each request that was
 * interrupted or timed out. And the lock's counters, in which an event counts
 * once, must have grown by just as much, to the nanosecond.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"
#include "kselftest.h"

enum stage { UNKNOWN, WAITS, AWAY, DONE };

/* A request that waited, as its events tell */
struct story {
	enum stage stage;
	bool was_away;
	__s64 asked, left;	/* when it was made, and last went away */
	__u32 waiting;		/* the event by which it began to wait */
};

/* A grant, as its events tell */
struct reign {
	__u32 granted, ended;	/* the events, or NOBODY */
};

struct replay {
	struct court *c;
	struct story *story;	/* by ticket - first_ticket */
	__u64 first_ticket, newest_ticket, oldest_waiter;
	__u32 waiters;
	struct reign *reign;	/* by token - first */
	__u64 token;		/* of the newest grant */
	bool held;
	bool yielded;		/* the last event was YIELDED */
	bool let_in;		/* and here, that was followed by ACQUIRED */
	bool taken;		/* it was REVOKED, as somebody wanted it */
	struct counters grew;
};

static const char *const kind_names[] = {
	[TLOCK_EVENT_WAITING] = "waiting",
	[TLOCK_EVENT_ACQUIRED] = "acquired",
	[TLOCK_EVENT_RELEASED] = "released",
	[TLOCK_EVENT_YIELDED] = "yielded",
	[TLOCK_EVENT_TIMED_OUT] = "timed out",
	[TLOCK_EVENT_INTERRUPTED] = "interrupted",
	[TLOCK_EVENT_WITHDRAWN] = "withdrawn",
	[TLOCK_EVENT_ABANDONED] = "abandoned",
	[TLOCK_EVENT_REVOKED] = "revoked",
};

static bool wrong(struct court *c, __u32 i, const char *why)
{
	struct event *e = &c->lock->event[i];

	return reject(c, EVENTS,
		      "event %u (%s, token %llu, ticket %llu, job of call %u, at %lld): %s",
		      i, e->kind < ARRAY_SIZE(kind_names) && e->kind ?
		      kind_names[e->kind] : "unknown kind",
		      e->token, e->ticket, e->of.job, e->time_ns, why);
}

static struct story *story_of(struct replay *p, __u64 ticket)
{
	if (ticket < p->first_ticket || ticket > p->newest_ticket)
		return NULL;
	return &p->story[ticket - p->first_ticket];
}

static void leave_queue(struct replay *p, struct story *s, enum stage to)
{
	if (s->stage == WAITS)
		p->waiters--;
	s->stage = to;
	while (p->waiters &&
	       story_of(p, p->oldest_waiter)->stage != WAITS)
		p->oldest_waiter++;
}

static void end_story(struct replay *p, struct story *s, __s64 at)
{
	__u64 waited = at - s->asked;

	p->grew.wait_ns_total += waited;
	p->grew.wait_ns_max = max64(p->grew.wait_ns_max, waited);
	leave_queue(p, s, DONE);
}

static const char *replay_waiting(struct replay *p, __u32 i)
{
	struct event *e = &p->c->lock->event[i];
	struct story *s;

	if (!p->held && !p->yielded)
		return "nobody holds the lock";
	if (e->ticket == p->newest_ticket + 1) {
		p->newest_ticket++;
		s = story_of(p, e->ticket);
		s->asked = e->time_ns;
		s->waiting = i;
		p->grew.count[CONTENDED] += !p->yielded;
	} else {
		s = story_of(p, e->ticket);
		if (!s || s->stage != AWAY)
			return "its request is not away, nor new";
		if (p->yielded)
			return "a reacquire makes a new request";
	}
	s->stage = WAITS;
	if (!p->waiters++ || e->ticket < p->oldest_waiter)
		p->oldest_waiter = e->ticket;
	return NULL;
}

static const char *replay_acquired(struct replay *p, __u32 i)
{
	struct event *e = &p->c->lock->event[i];
	struct story *s = story_of(p, e->ticket);

	if (p->held)
		return "another grant has not ended";
	if (e->token != p->token + 1)
		return "its token is not the next one";
	if (!hold_of(p->c, e->token))
		return "there was no such grant";
	if (p->waiters ? e->ticket != p->oldest_waiter :
			 e->ticket && (!s || s->stage != AWAY))
		return "it was not its turn";
	p->grew.count[ACQUIRED]++;
	if (s)
		end_story(p, s, e->time_ns);
	p->held = true;
	p->token = e->token;
	p->reign[e->token - p->c->lock->first].granted = i;
	return NULL;
}

/* The end of a grant */
static const char *replay_end(struct replay *p, __u32 i)
{
	struct event *e = &p->c->lock->event[i], *granted;
	struct reign *r;
	__u64 held;

	if (!p->held || e->token != p->token)
		return "that token does not hold the lock";
	r = &p->reign[e->token - p->c->lock->first];
	r->ended = i;
	p->held = false;
	granted = &p->c->lock->event[r->granted];
	held = e->time_ns - granted->time_ns;
	p->grew.hold_ns_total += held;
	p->grew.hold_ns_max = max64(p->grew.hold_ns_max, held);
	p->grew.count[ABANDONED] += e->kind == TLOCK_EVENT_ABANDONED;
	p->grew.count[REVOKED] += e->kind == TLOCK_EVENT_REVOKED;
	p->taken = e->kind == TLOCK_EVENT_REVOKED &&
		   !hold_of(p->c, e->token)->may_at_once;
	if (e->of.unfetched ? !granted->of.unfetched ||
			      e->ticket != granted->ticket : e->ticket)
		return "its ticket is not that of an unfetched grant";
	if (e->of.unfetched && (e->kind == TLOCK_EVENT_ABANDONED ||
				e->kind == TLOCK_EVENT_YIELDED))
		return "nobody has fetched that grant";
	if (e->kind == TLOCK_EVENT_TIMED_OUT) {
		p->grew.count[TIMED_OUT]++;
		if (!e->of.unfetched)
			return "it was fetched before";
	}
	if (e->kind == TLOCK_EVENT_YIELDED) {
		p->grew.count[YIELDED]++;
		if (!p->waiters)
			return "nobody waits";
	}
	return NULL;
}

/* The end of a request, but for a grant; or that it goes away */
static const char *replay_leaving(struct replay *p, __u32 i)
{
	struct event *e = &p->c->lock->event[i];
	struct story *s = story_of(p, e->ticket);

	if (e->token)
		return "it is about a request";
	if (e->kind == TLOCK_EVENT_TIMED_OUT) {
		p->grew.count[TIMED_OUT]++;
		if (!p->held)
			return "nobody holds the lock";
		if (!e->ticket) {
			/* One try; that of a reacquire is no acquire */
			p->grew.count[CONTENDED] += !p->let_in;
			return NULL;
		}
	}
	if (!s || (s->stage != WAITS && s->stage != AWAY))
		return "there is no such request";
	if (e->kind == TLOCK_EVENT_INTERRUPTED) {
		if (s->stage == AWAY)
			return "it is away already";
		p->grew.count[INTERRUPTED] += !s->was_away;
		s->was_away = true;
		s->left = e->time_ns;
		leave_queue(p, s, AWAY);
	} else {
		end_story(p, s, s->stage == AWAY &&
			  e->kind == TLOCK_EVENT_WITHDRAWN ? s->left :
							     e->time_ns);
	}
	return NULL;
}

static bool replay(struct replay *p, __u32 i)
{
	struct event *e = &p->c->lock->event[i], *last = i ? e - 1 : NULL;
	bool handing_over = !p->held && p->waiters;
	const char *why = NULL;

	if (last && e->seq != last->seq + 1)
		return wrong(p->c, i, "its number is not the next one");
	if (last && e->time_ns < last->time_ns)
		return wrong(p->c, i, "it is earlier than the event before");
	if (handing_over && e->kind != TLOCK_EVENT_ACQUIRED &&
	    !(p->yielded && e->kind == TLOCK_EVENT_WAITING))
		return wrong(p->c, i, "somebody waits, and nobody holds the lock");
	/* Who wants it then may replace its request that is away */
	if (p->taken && e->kind != TLOCK_EVENT_ACQUIRED &&
	    e->kind != TLOCK_EVENT_WITHDRAWN)
		return wrong(p->c, i, "the lock was revoked for nobody");
	p->taken &= e->kind != TLOCK_EVENT_ACQUIRED;
	switch (e->kind) {
	case TLOCK_EVENT_WAITING:
		why = e->token ? "nothing was granted" : replay_waiting(p, i);
		break;
	case TLOCK_EVENT_ACQUIRED:
		why = replay_acquired(p, i);
		break;
	case TLOCK_EVENT_TIMED_OUT:
		if (!e->token) {
			why = replay_leaving(p, i);
			break;
		}
		__attribute__((fallthrough));
	case TLOCK_EVENT_RELEASED:
	case TLOCK_EVENT_YIELDED:
	case TLOCK_EVENT_ABANDONED:
	case TLOCK_EVENT_REVOKED:
		why = replay_end(p, i);
		break;
	case TLOCK_EVENT_INTERRUPTED:
	case TLOCK_EVENT_WITHDRAWN:
		why = replay_leaving(p, i);
		break;
	default:
		why = "nobody knows that kind";
	}
	/* A reacquire that does not wait fails at once */
	if (!why && p->let_in &&
	    (e->kind != TLOCK_EVENT_TIMED_OUT || e->token || e->ticket))
		why = "a reacquire has let somebody in, but asked for nothing";
	p->let_in = p->yielded && e->kind == TLOCK_EVENT_ACQUIRED;
	p->yielded = e->kind == TLOCK_EVENT_YIELDED;
	return !why || wrong(p->c, i, why);
}

/* Whether the event tells truly who asked for the lock */
static bool judge_person(struct court *c, __u32 i)
{
	struct event *e = &c->lock->event[i];
	struct process *him;
	struct record *job;

	if (e->of.comm == NOBODY || e->of.comm >= c->h->processes)
		return wrong(c, i, "of a stranger");
	him = &c->h->process[e->of.comm];
	if (e->of.pid != him->pid)
		return wrong(c, i, "the process has another number");
	if (e->of.uid != him->uid)
		return wrong(c, i, "the process is another user's");
	if (e->of.job == EMPTY_JOB)
		return true;
	if (e->of.job >= c->records)
		return wrong(c, i, "nobody's job");
	job = &c->record[e->of.job];
	if (!takes(job) || job->kind == FLOCK || job->keeps_job ||
	    !job->begin || job->begin > e->time_ns)
		return wrong(c, i, "nobody's job by then");
	return true;
}

/* Whether the event is about what this call asked for */
static bool is_of_call(struct court *c, const struct event *e, __u32 i)
{
	struct record *r = &c->record[i];
	struct record *job = e->of.job == EMPTY_JOB ? NULL :
						      &c->record[e->of.job];

	if (e->of.comm != process_of(c, r))
		return false;
	if (r->kind == FLOCK)
		return !job;
	if (r->keeps_job)
		return !job ? c->file[r->file].flocked : job->file == r->file;
	return job == r;
}

/* Whether a holder may have changed its job to this one while it held on */
static bool may_change_job(struct court *c, const struct event *e)
{
	struct record *job = &c->record[e->of.job];

	if (e->of.job == EMPTY_JOB)
		return false;
	return (c->repeat[e->of.job] && job->token == e->token) ||
	       (!job->end && job->kind == REACQUIRE);
}

/* Whether the grant ended as the callers say; @granted is the event before */
static bool judge_reign_end(struct court *c, struct hold *hold, __u32 i,
			    const struct event *granted,
			    const struct record *ender)
{
	struct event *e = &c->lock->event[i];
	enum ending ending = e->kind == TLOCK_EVENT_ABANDONED ? BY_CLOSE :
			     e->kind == TLOCK_EVENT_REVOKED ? BY_REVOCATION :
							      BY_RELEASE;
	const char *why = NULL;

	if (!judge_flags(hold, &e->of, e->time_ns, e->time_ns, &why))
		return wrong(c, i, why);
	if (e->of.job != granted->of.job && !may_change_job(c, e))
		return wrong(c, i, "its holder had another job");
	if (hold->file != NOBODY && !c->file[hold->file].shared &&
	    e->of.comm != granted->of.comm)
		return wrong(c, i, "another process held it");
	if (e->time_ns < hold->end_lo || e->time_ns > hold->end_hi)
		return reject(c, EVENTS,
			"event %u: token %llu ended at %lld, not from %lld to %lld",
			i, e->token, e->time_ns, hold->end_lo, hold->end_hi);
	if (!(hold->endings & ending))
		return wrong(c, i, hold->endings == BY_CLOSE ?
			     "it was abandoned" :
			     hold->endings == BY_REVOCATION ? "it was revoked" :
			     ending == BY_REVOCATION ? "it cannot be revoked" :
						       "nobody abandoned it");
	if (ending == BY_REVOCATION &&
	    e->time_ns < (e->of.revoking ? revocable_lo(hold) : lease_lo(hold)))
		return wrong(c, i, e->of.revoking ? "it had not expired" :
						    "its lease had not ended");
	if (ender && e->kind != (ender->kind == REACQUIRE ?
				 TLOCK_EVENT_YIELDED : TLOCK_EVENT_RELEASED))
		return wrong(c, i, "its caller ended it in another way");
	if (hold->granter != NOBODY && e->of.unfetched)
		return wrong(c, i, "a call has fetched it");
	return true;
}

/* Whether the events of each grant are what the callers saw */
static bool judge_reigns(struct court *c, const struct replay *p)
{
	const struct record **ender = array(c->grants + 1, sizeof(*ender));
	bool ok = true;

	for (__u32 i = 0; i < c->records; i++)
		if (c->ended[i] != NOBODY)
			ender[c->ended[i]] = &c->record[i];
	for (__u64 i = 1; i <= c->grants && ok; i++) {
		struct hold *hold = &c->hold[i];
		struct reign *r = &p->reign[i];
		struct record *granter;
		const char *why = NULL;
		struct request *q;
		struct event *e;

		if (r->granted == NOBODY)
			continue;
		e = &c->lock->event[r->granted];
		if (!judge_flags(hold, &e->of, e->time_ns, e->time_ns, &why))
			ok = wrong(c, r->granted, why);
		else if (e->time_ns < hold->grant_lo || e->time_ns > hold->grant_hi)
			ok = reject(c, EVENTS,
				"event %u: token %llu was granted at %lld, not from %lld to %lld",
				r->granted, e->token, e->time_ns,
				hold->grant_lo, hold->grant_hi);
		if (ok && r->ended != NOBODY)
			ok = judge_reign_end(c, hold, r->ended, e, ender[i]);
		if (!ok || hold->granter == NOBODY)
			continue;
		granter = &c->record[hold->granter];
		q = request_of(c, hold->granter);
		if (!is_of_call(c, e, q->first))
			ok = reject(c, EVENTS,
				"event %u: token %llu was granted to process %u and the job of call %u, not to call %u",
				r->granted, e->token, e->of.comm, e->of.job,
				q->first);
		else if (q->ticket ? e->ticket != q->ticket :
			 !may_have_waited(c, hold->granter) && e->ticket)
			ok = wrong(c, r->granted, "it has another ticket");
		else if (e->of.unfetched != (q->async && granter->ticket))
			ok = wrong(c, r->granted, "whether it was asynchronous");
	}
	free(ender);
	return ok;
}

/* Whether each request that a caller has a ticket of began to wait */
static bool judge_stories(struct court *c, struct replay *p)
{
	for (__u32 i = 0; i < c->requests; i++) {
		struct request *q = &c->request[i];
		struct story *s = story_of(p, q->ticket);
		struct event *e;

		if (!q->ticket || q->ticket < p->first_ticket)
			continue;
		if (!s)
			return reject(c, EVENTS,
				"call %u has ticket %llu, of which there is no event",
				q->first, q->ticket);
		e = &c->lock->event[s->waiting];
		if (e->time_ns < q->asked_lo || e->time_ns > q->asked_hi)
			return reject(c, EVENTS,
				"event %u: ticket %llu waits since %lld, not from %lld to %lld",
				s->waiting, q->ticket, e->time_ns, q->asked_lo,
				q->asked_hi);
		if (!is_of_call(c, e, q->first))
			return reject(c, EVENTS,
				"event %u: ticket %llu is that of call %u",
				s->waiting, q->ticket, q->first);
	}
	return true;
}

/* Whether each call that failed has the event that tells why */
static bool judge_failures(struct court *c, struct replay *p)
{
	/* Of each job, the first event of a failure, and of each the next one */
	__u32 *first = array(c->records, sizeof(*first));
	__u32 *next = array(c->lock->events, sizeof(*next));
	struct event *events = c->lock->event, *e;
	bool ok = true;

	memset(first, 0xff, c->records * sizeof(*first));
	for (__u32 i = c->lock->events; i--;) {
		e = &events[i];
		if (e->of.job >= c->records ||
		    (e->kind != TLOCK_EVENT_TIMED_OUT &&
		     e->kind != TLOCK_EVENT_INTERRUPTED))
			continue;
		next[i] = first[e->of.job];
		first[e->of.job] = i;
	}
	for (__u32 i = 0; i < c->records && ok; i++) {
		struct record *r = &c->record[i];
		struct request *q = request_of(c, i);
		enum tlock_event_kind kind = r->ret == -EINTR ?
			TLOCK_EVENT_INTERRUPTED : TLOCK_EVENT_TIMED_OUT;
		struct story *s;
		__s64 begin;
		__u32 job;

		if (!r->end || !takes(r) || !q || r->kind == FLOCK ||
		    (r->ret != -EINTR && r->ret != -ETIMEDOUT))
			continue;
		begin = fetches(c, i) ? c->record[q->first].begin : r->begin;
		job = q->first;
		if (c->record[job].keeps_job) {
			s = q->ticket ? story_of(p, q->ticket) : NULL;
			if (!s)
				continue;
			job = events[s->waiting].of.job;
			if (job == EMPTY_JOB)
				continue;
		}
		for (job = first[job]; job != NOBODY; job = next[job]) {
			e = &events[job];
			if (e->kind == kind && e->time_ns >= begin &&
			    e->time_ns <= r->end &&
			    (!q->ticket || e->ticket == q->ticket))
				break;
		}
		if (job == NOBODY)
			ok = reject(c, EVENTS,
				"call %u: %d, and there was no such event from %lld to %lld",
				i, r->ret, begin, (__s64)r->end);
	}
	free(first);
	free(next);
	return ok;
}

/* Whether the counters have grown by what the events tell */
static bool judge_sums(struct court *c, const struct replay *p)
{
	const struct counters *b = &c->lock->before, *a = &c->lock->after;
	const struct counters *g = &p->grew;

	for (int i = 0; i < COUNTS; i++)
		if (a->count[i] - b->count[i] != g->count[i])
			return reject(c, EVENTS,
				"%s grew by %llu, but by %llu events",
				count_names[i], a->count[i] - b->count[i],
				g->count[i]);
	if (a->wait_ns_total - b->wait_ns_total != g->wait_ns_total ||
	    a->hold_ns_total - b->hold_ns_total != g->hold_ns_total)
		return reject(c, EVENTS,
			"waited %llu ns and held %llu ns, but events tell %llu and %llu",
			a->wait_ns_total - b->wait_ns_total,
			a->hold_ns_total - b->hold_ns_total,
			g->wait_ns_total, g->hold_ns_total);
	if (a->wait_ns_max != max64(b->wait_ns_max, g->wait_ns_max) ||
	    a->hold_ns_max != max64(b->hold_ns_max, g->hold_ns_max))
		return reject(c, EVENTS,
			"at most waited %llu ns and held %llu ns, but events tell %llu and %llu",
			a->wait_ns_max, a->hold_ns_max, g->wait_ns_max,
			g->hold_ns_max);
	return true;
}

/* If events were lost, nothing is concluded: that must be rare */
bool judge_events(struct court *c)
{
	struct lock *lock = c->lock;
	struct replay replayed = {
		.c = c,
		.token = lock->first,
	}, *p = &replayed;
	__u64 tickets = 0;
	bool ok = true;

	if (!lock->event || c->h->stuck)
		return true;
	for (__u32 i = 0; i < lock->events; i++) {
		if (lock->event[i].lost)
			return true;
		tickets = max64(tickets, lock->event[i].ticket);
	}
	/* Nobody waited before the history, so the first ticket is a new one */
	p->first_ticket = 1;
	for (__u32 i = 0; i < lock->events; i++)
		if (lock->event[i].ticket) {
			p->first_ticket = lock->event[i].ticket;
			break;
		}
	p->newest_ticket = p->first_ticket - 1;
	if (tickets >= p->first_ticket + lock->events)
		return reject(c, EVENTS, "ticket %llu, after only %u events",
			      tickets, lock->events);
	p->story = array(lock->events, sizeof(*p->story));
	p->reign = array(c->grants + 1, sizeof(*p->reign));
	for (__u64 i = 0; i <= c->grants; i++)
		p->reign[i].granted = p->reign[i].ended = NOBODY;

	for (__u32 i = 0; i < lock->events && ok; i++)
		ok = judge_person(c, i) && replay(p, i);
	if (ok && (p->held || p->waiters || p->taken))
		ok = reject(c, EVENTS,
			    "token %llu holds the lock in the end, and %u wait",
			    p->held ? p->token : 0, p->waiters);
	for (__u64 i = p->first_ticket; i <= p->newest_ticket && ok; i++)
		if (story_of(p, i)->stage != DONE)
			ok = reject(c, EVENTS,
				    "ticket %llu is away in the end", i);
	ok = ok && judge_sums(c, p) && judge_reigns(c, p) &&
	     judge_stories(c, p) && judge_failures(c, p);
	free(p->story);
	free(p->reign);
	return ok;
}
