// SPDX-License-Identifier: GPL-2.0-only
/*
 * The judge of a history: the states of a file, and what calls return in them.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "judge.h"

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
 * When the last look ended that overlaps @close and was in the same process,
 * or 0. Reading a file's fdinfo keeps the file open, and it is not known which
 * file was looked at.
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

/* Notes when a process closed its descriptor of a file */
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

/* Notes when a message with a descriptor of a file was gone */
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

/* Whether the grant or the request of its file may be revoked after the call */
static bool had_after(const struct record *r, bool had_before)
{
	if (takes(r) && (!r->ret || r->ret == -EINPROGRESS))
		return true;
	switch (r->ret) {
	case -EBUSY:
	case -EDEADLK:
	case -EPERM:
	case -EINVAL:
		return had_before;
	case -ECANCELED:
		return had_before && r->ticket;
	default:
		return false;
	}
}

/*
 * Finds what each ESTALE is about. A call that waited has used some of its time,
 * and one that did not has left it alone. A flock() may even have returned before
 * its grant was revoked: see struct record.
 */
static void study_stale(struct court *c, struct file *f)
{
	bool had = false, revoked = false;

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];
		enum stale *stale = &c->stale[c->op[i]];

		if (r->kind == POLL && r->end && r->events & POLLERR)
			revoked = true;

		if (!r->end || (!takes(r) && !ends(r)))
			continue;
		if (r->ret != -ESTALE)
			*stale = FRESH;
		else if (!takes(r))
			*stale = LEARNED;
		else if (r->kind == FLOCK)
			*stale = had ? LEARNED : OWN;
		else if (!r->timeout_ns && !r->ticket)
			*stale = LEARNED;
		else if (r->timeout_ns > 0 && r->left_ns != r->timeout_ns)
			*stale = OWN;
		else if (r->timeout_ns > 0)
			*stale = LEARNED;
		else if (f->shared)
			*stale = UNSURE;
		else if (!had)
			*stale = OWN;
		else
			*stale = yields(c, c->op[i]) && !r->async && !revoked ?
				 UNSURE : LEARNED;
		revoked = false;
		if (*stale > LEARNED)
			f->canceled = true;
		had = had_after(r, had);
	}
}

static void add_lease(__u64 lease, __u64 *least, __u64 *most)
{
	if (!lease)
		return;
	if (!*least || lease < *least)
		*least = lease;
	if (lease > *most)
		*most = lease;
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
		/* The file stays open at least until the call ends */
		f->close_lo = max64(f->close_lo, r->begin);
		f->close_hi = max64(f->close_hi, end_hi(c, r));
		if (!takes(r) && !ends(r) && r->kind != POLL)
			continue;
		f->flocked |= r->kind == FLOCK;
		add_lease(takes(r) ? r->lease_ns : 0, &f->least, &f->most);
		if (user == NOBODY)
			user = r->actor;
		if (user != r->actor)
			f->shared = true;
		if (takes(r) && r->async &&
		    (!r->end || r->ret == -EINPROGRESS))
			f->async = f->canceled = true;
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

void study_files(struct court *c)
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
	for (__u32 i = 0; i < c->files; i++) {
		struct file *f = &c->file[i];

		study_file(c, f);
		study_stale(c, f);
		add_lease(f->least, &c->least, &c->most);
		add_lease(f->most, &c->least, &c->most);
	}
}

/* Notes what a call that passes the ticket of an asynchronous request shows */
static void study_fetch(struct request *q, struct record *r, __u32 number,
			bool shared)
{
	if (r->ret == -EINPROGRESS) {
		q->undecided = max64(q->undecided, r->begin);
	} else if (!r->end) {
		q->killed = true;
		if (!shared)
			q->gone_lo = r->begin;
	} else if (q->fetch == NOBODY && (!r->ret || r->ret == -ETIMEDOUT)) {
		q->fetch = number;
		q->decided = min64(q->decided, r->end);
		q->gone_lo = r->begin;
		q->gone_hi = r->end;
	}
}

/*
 * Notes what another call shows of the asynchronous request of its file, which
 * is not shared. Returns whether it ended the request.
 */
static bool study_pending(struct court *c, struct request *q,
			  const struct record *r)
{
	if (r->kind == POLL && r->end && !r->ret && r->events & POLLERR) {
		q->revoked = true;
		q->revoked_hi = min64(q->revoked_hi, r->end);
		q->decided = min64(q->decided, r->end);
	} else if (r->kind == POLL && r->end && !r->ret &&
		   r->wanted & POLLOUT) {
		if (r->events & POLLOUT)
			q->decided = min64(q->decided, r->end);
		else
			q->undecided = max64(q->undecided,
					     settled_before(c, r->begin));
	}
	/* REVOKE fails with ESTALE because of another grant */
	if (r->end && r->ret == -ESTALE && r->kind != REVOKE) {
		q->revoked = true;
		q->revoked_hi = min64(q->revoked_hi, r->end);
		q->decided = min64(q->decided, r->end);
	} else if (!ends(r)) {
		return false;
	}
	q->gone_lo = r->begin;
	if (r->end)
		q->gone_hi = r->end;
	return true;
}

/* Finds the request of each call; flock() resumes its own without a ticket. */
void study_requests(struct court *c, struct file *f)
{
	__u32 by_flock = NOBODY, pending = NOBODY;

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		__u32 number = c->op[i], request = NOBODY;
		struct record *r = &c->record[number];

		/* Calls that end or replace the request of flock() */
		if (ends(r) || r->kind == CLOSE ||
		    (takes(r) && !r->ticket && !refused(c, number) &&
		     !(r->kind == FLOCK && r->timeout_ns))) {
			by_flock = NOBODY;
		}
		if (pending != NOBODY &&
		    study_pending(c, &c->request[pending], r))
			pending = NOBODY;
		if (!takes(r))
			continue;
		if (r->kind == FLOCK) {
			request = by_flock;
		} else if (r->ticket) {
			for (__u32 j = i; j-- > f->op && request == NOBODY;)
				if (takes(&c->record[c->op[j]]) &&
				    (c->record[c->op[j]].ret == -EINTR ||
				     c->record[c->op[j]].ret == -EINPROGRESS) &&
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
				.async = r->async &&
					 (!r->end || r->ret == -EINPROGRESS),
				.fetch = NOBODY,
				.killed = !r->end,
				.undecided = r->begin,
				.decided = f->close_hi,
				.gone_lo = r->begin,
				.gone_hi = f->close_hi,
				.revoked_hi = f->close_hi,
			};
			if (c->request[request].async && !f->shared)
				pending = request;
		}
		c->request_of[number] = request;
		if (fetches(c, number)) {
			study_fetch(&c->request[request], r, number, f->shared);
			if (c->request[request].fetch != NOBODY)
				pending = NOBODY;
		}
		if (r->end && (r->ret == -EINTR || r->ret == -EINPROGRESS)) {
			c->request[request].ticket = r->left_ticket;
			if (r->kind == FLOCK)
				by_flock = request;
		} else if (r->end && r->ret == -ESTALE) {
			by_flock = NOBODY;
		}
	}
	/* It was there until the file was closed */
	if (pending != NOBODY)
		c->request[pending].gone_lo =
			max64(c->request[pending].gone_lo, f->close_lo);
}

/* Whether there may have been a request for a release to withdraw */
static bool may_withdraw(struct court *c, struct file *f, struct record *r)
{
	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *s = &c->record[c->op[i]];

		if (takes(s) && s->begin <= r->end && !refused(c, c->op[i]) &&
		    (s->ret == -EINTR || s->ret == -EINPROGRESS ||
		     (s->actor != r->actor && end_hi(c, s) >= r->begin)))
			return true;
	}
	return false;
}

/*
 * Finds how the holds of a file ended, if several threads use the file. Each end
 * has a reason of its own: a call, a revocation, or the last close.
 */
bool study_shared_ends(struct court *c, struct file *f)
{
	__s64 *begins, *ends_by;
	__u32 certain = 0, calls = 0, possible, learned = 0, revocable = 0;
	__u32 ender = NOBODY, taken = 0, informed = 0;
	bool ok = true;

	begins = array(f->ops + f->holds + 1, sizeof(*begins));
	ends_by = array(f->ops + 1, sizeof(*ends_by));
	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		struct record *r = &c->record[c->op[i]];
		__s64 hi = r->end;

		learned += c->stale[c->op[i]] == LEARNED;
		informed += c->stale[c->op[i]] != FRESH ||
			    (!r->end && (takes(r) || ends(r)));
		if ((r->kind != RELEASE && !yields(c, c->op[i])) ||
		    refused(c, c->op[i]) || c->repeat[c->op[i]])
			continue;
		begins[calls++] = r->begin;
		if (!r->end || c->stale[c->op[i]] == UNSURE ||
		    (r->kind == RELEASE && may_withdraw(c, f, r)))
			continue;
		/* A reacquire ended it when it began to wait */
		if (r->kind == REACQUIRE && r->timeout_ns > 0)
			hi -= r->timeout_ns - r->left_ns;
		ender = c->op[i];
		ends_by[certain++] = hi;
	}
	possible = calls;
	for (__u32 i = 0; i < f->holds; i++) {
		struct hold *hold = &c->hold[c->held[f->hold + i]];

		if (revocable_lo(hold) == NEVER)
			continue;
		begins[possible++] = revocable_lo(hold);
		revocable++;
		/* The last one may have been closed instead of learning it */
		taken += hold->at_once && i + 1 < f->holds;
	}
	begins[possible] = f->close_lo;
	qsort(begins, possible + 1, sizeof(*begins), by_value);
	qsort(ends_by, certain, sizeof(*ends_by), by_value);

	for (__u32 i = 0; i < f->holds; i++) {
		struct hold *hold = &c->hold[c->held[f->hold + i]];
		__u8 revoked = revocable_lo(hold) == NEVER ? 0 : BY_REVOCATION;
		bool last = i + 1 == f->holds;

		if (f->blurred) {
			hold->end_lo = hold->grant_lo;
			hold->end_hi = f->close_hi;
			hold->endings = BY_RELEASE | BY_CLOSE | revoked;
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
		/* The others may have been revoked, and left the calls to it */
		hold->endings = (!last || i < possible - !!revoked ?
				 BY_RELEASE : 0) |
				(last ? BY_CLOSE : 0) | revoked;
		if (i == possible)
			hold->end_lo = max64(hold->end_lo, f->close_lo);
		/* Some may have ended grants that were not reported */
		if (i < certain && !f->canceled) {
			hold->end_hi = ends_by[i];
			hold->endings = BY_RELEASE | revoked;
		}
	}
	if (ok && !f->blurred && !f->canceled && learned > revocable)
		ok = reject(c, STALE,
			    "%u calls on a file returned ESTALE, but only %u grants of it can have been revoked",
			    learned, revocable);
	if (ok && !f->blurred && !f->canceled && certain + learned > f->holds)
		ok = reject(c, ERRNO,
			    "%u calls ended grants of a file that had only %u, and %u learned that they were revoked; one is %u",
			    certain, f->holds, learned, ender);
	if (ok && !f->blurred && taken > informed)
		ok = reject(c, STALE,
			    "%u grants of a file were revoked, but only %u calls returned ESTALE",
			    taken, informed);
	free(begins);
	free(ends_by);
	return ok;
}

/* The state of a file that only one thread uses, after each of its calls */
struct state {
	struct hold *hold;	/* its grant, or NULL */
	__u32 away;		/* its request, or NOBODY */
	__u32 pending;		/* its asynchronous request, or NOBODY */
	bool decided;		/* that is certainly decided */
	bool by_flock;		/* flock() made its last request */
	bool revoked;		/* its grant certainly was, without an ESTALE */
	__u64 lease;		/* of its grant */
};

/* Whether the call may return what it returned, in this state of its file */
static bool judge_state(struct court *c, __u32 i, const struct state *s)
{
	struct record *r = &c->record[i];
	const char *is = s->hold ? "holds" : s->away != NOBODY ? "is away" :
			 s->pending != NOBODY ? "has a request" : "is idle";
	__u32 own = s->pending != NOBODY ? s->pending : s->away;
	bool right;

	if (s->revoked)
		right = r->ret == -ESTALE;
	else if (c->stale[i] == OWN)
		right = (request_of(c, i)->timeout || r->kind == FLOCK) &&
			s->pending == NOBODY &&
			yields(c, i) == (s->hold != NULL);
	else if (c->stale[i])
		right = s->hold || s->pending != NOBODY;
	else if (c->repeat[i])
		right = s->hold && s->hold == hold_of(c, r->token);
	else if (r->kind == RELEASE)
		right = (r->ret == 0) == (s->hold || own != NOBODY);
	else if (ends(r))
		right = true;
	else if (r->ticket && (own == NOBODY || c->request_of[i] != own))
		right = r->ret == -ECANCELED;
	else if (r->ticket && r->async != c->request[own].async)
		right = r->ret == -EINVAL;
	else if (r->ticket && r->async)
		right = r->ret == 0 || r->ret == -ETIMEDOUT ||
			(r->ret == -EINPROGRESS && !s->decided);
	else if (s->pending != NOBODY)
		right = r->ret == -EBUSY;
	else if (r->kind == REACQUIRE && !r->ticket)
		right = (r->ret == -EPERM) == !s->hold &&
			r->ret != -ECANCELED && r->ret != -EBUSY &&
			r->ret != -EINVAL;
	else if (r->kind == ACQUIRE && s->hold)
		right = r->ret == -EDEADLK;
	else if (r->kind == FLOCK && s->hold)
		right = false;
	else
		right = !refused(c, i) && r->ret != -ECANCELED;
	return right || reject(c, s->revoked || c->stale[i] ? STALE :
				  r->ticket ? CANCELED : ERRNO,
			       "call %u: %d, when its file %s%s", i, r->ret, is,
			       s->revoked ? " no more" : "");
}

/* Whether poll reported the right thing about the state of its file */
static bool judge_poll(struct court *c, __u32 i, struct state *s)
{
	struct record *r = &c->record[i];

	if (!r->end || r->ret)
		return true;
	if (r->events & POLLERR) {
		if (!s->hold && s->pending == NOBODY)
			return reject(c, POLLED,
				"poll %u: POLLERR of a file that had no grant",
				i);
		if (s->hold) {
			s->hold->endings = BY_REVOCATION;
			s->hold->end_lo = 0;
			s->hold->end_hi = min64(s->hold->end_hi, r->end);
		}
		s->revoked = true;
		return true;
	}
	if (s->revoked)
		return reject(c, POLLED, "poll %u: no POLLERR any more", i);
	if (s->hold)
		s->hold->seen_lo = max64(s->hold->seen_lo,
					 settled_before(c, r->begin));
	if (!(r->wanted & POLLOUT))
		return true;
	if (r->events & POLLOUT) {
		s->decided = true;
		return true;
	}
	return (s->pending != NOBODY && !s->decided) ||
	       reject(c, POLLED, "poll %u: no POLLOUT, when its file %s", i,
		      s->pending == NOBODY ? "has no request" :
		      "has a request that was decided before");
}

/* Notes the lease of the grant of a file that only one thread uses */
static void study_own_lease(struct court *c, struct state *s, __u32 i)
{
	struct record *r = &c->record[i];
	struct hold *hold = s->hold;

	if (c->repeat[i]) {
		if (r->kind != REACQUIRE)
			return;
		if (r->lease_ns) {
			hold->leased_lo = min64(hold->leased_lo, r->begin);
			hold->leased_hi = min64(hold->leased_hi, r->end);
			s->lease = r->lease_ns;
		}
		hold->renewed = r->begin;
	} else {
		s->lease = request_of(c, i)->lease;
		hold->renewed = fetches(c, i) ? r->begin : 0;
		hold->leased_lo = hold->leased_hi = s->lease ? 0 : NEVER;
	}
	hold->least = hold->most = s->lease;
}

bool study_own_ends(struct court *c, struct file *f)
{
	struct state s = { .away = NOBODY, .pending = NOBODY };

	for (__u32 i = f->op; i < f->op + f->ops; i++) {
		__u32 number = c->op[i];
		struct record *r = &c->record[number];
		bool lets_go;

		if (r->kind == POLL && !judge_poll(c, number, &s))
			return false;
		if (!takes(r) && !ends(r))
			continue;
		if (r->end && !judge_state(c, number, &s))
			return false;
		if (c->repeat[number])
			study_own_lease(c, &s, number);
		if (c->stale[number] == LEARNED) {
			if (s.hold) {
				s.hold->endings = BY_REVOCATION;
				s.hold->end_lo = 0;
				s.hold->end_hi = min64(s.hold->end_hi, r->end);
			}
			s = (struct state){ .away = NOBODY, .pending = NOBODY };
			continue;
		}
		if (refused(c, number) || c->repeat[number] ||
		    (r->ret == -ECANCELED && r->ticket))
			continue;
		lets_go = ends(r) || yields(c, number);
		if (takes(r) && !r->ticket)
			request_of(c, number)->lease = r->lease_ns ?:
				r->kind == REACQUIRE ? s.lease : 0;
		if (s.hold && !r->end && takes(r) && r->lease_ns) {
			/* It may have got that far */
			add_lease(r->lease_ns, &s.hold->least, &s.hold->most);
			s.hold->leased_lo = min64(s.hold->leased_lo, r->begin);
		}
		if (s.hold && lets_go &&
		    (!r->end || c->stale[number] == UNSURE)) {
			s.hold->end_lo = r->begin;
			s.hold->endings |= BY_RELEASE;
			if (r->end) {
				s.hold->endings &= ~BY_CLOSE;
				s.hold->end_hi = r->end;
			}
			s.hold = NULL;
		} else if (s.hold && lets_go) {
			s.hold->end_lo = r->begin;
			s.hold->end_hi = r->end;
			s.hold->endings = BY_RELEASE;
			if (r->kind == REACQUIRE) {
				if (r->timeout_ns > 0)
					s.hold->end_hi -= r->timeout_ns -
							  r->left_ns;
				s.hold->yielder = number;
			}
			c->ended[number] = s.hold - c->hold;
			s.hold = NULL;
		}
		s.away = r->ret == -EINTR ? c->request_of[number] : NOBODY;
		s.decided = false;
		s.pending = r->ret == -EINPROGRESS ? c->request_of[number] :
						     NOBODY;
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
		s.hold->endings = (s.by_flock ? BY_RELEASE : BY_CLOSE) |
				  BY_REVOCATION;
		study_own_lease(c, &s, number);
	}
	f->by_flock = s.by_flock;
	return true;
}

/* Whether a call can have ended the request, or the grant, of call @i */
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
		/* Or one of its own calls had its outcome already */
		if (r->ticket && takes(s) && s->ticket == r->ticket &&
		    (!s->ret || s->ret == -ETIMEDOUT))
			return true;
		if (!s->end ? takes(s) || ends(s) :
		    s->kind == RELEASE ? !s->ret || s->ret == -ESTALE :
		    c->stale[c->op[j]] || yields(c, c->op[j]) ||
		    (s->kind == ACQUIRE && !s->ticket &&
		     !refused(c, c->op[j]) && (r->ticket || disturbed(c, r))))
			return true;
	}
	return false;
}

/*
 * Whether the call may return what it returned, if several threads use its
 * file. @waits are all waits on that file.
 */
static bool judge_errno(struct court *c, struct file *f, __u32 i,
			const __u32 *waits, __u32 n)
{
	struct record *r = &c->record[i];
	bool there = false, other = false, canceled = false;

	for (__u32 j = 0; j < n; j++) {
		struct wait *w = &c->wait[waits[j]];
		struct record *s = &c->record[w->record];
		struct request *q = &c->request[w->request];

		if (q->async) {
			/* No call need be under way */
			if (q == request_of(c, i) || q->asked_lo > r->end ||
			    q->gone_hi < r->begin)
				continue;
			other = true;
			if (w->sure && w->begin_hi < r->begin &&
			    w->end_lo > r->end)
				there = true;
			continue;
		}
		if (s->actor == r->actor || s->begin > r->end ||
		    end_hi(c, s) < r->begin)
			continue;
		other = true;
		if (deprived(c, w->record))
			canceled = true;
		if (w->sure && w->begin_hi < r->begin && w->end_lo > r->end)
			there = true;
	}
	if (r->kind == RELEASE) {
		if (r->ret && there)
			return reject(c, CANCELED,
				"release %u: %d, while its file waited", i,
				r->ret);
		if (r->ret && must_hold(c, f, r->begin, r->end))
			return reject(c, ERRNO, "release %u: %d, holds", i,
				      r->ret);
		return true;
	}
	switch (r->ret) {
	case -EDEADLK:
		if (!canceled && !may_hold(c, f, r->begin, r->end))
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
	case -EINVAL:
	case -ESTALE:
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

/* Whether the release ended the request of its file, as it must */
static bool judge_withdrawn(struct court *c, struct file *f, __u32 i)
{
	struct record *r = &c->record[i];

	for (__u32 j = f->op; !r->ret && j < f->op + f->ops; j++) {
		struct record *s = &c->record[c->op[j]];
		__u32 w = c->wait_of[c->op[j]];

		/* Its request was there before the release */
		if (s->end && fetches(c, c->op[j]) && s->begin > r->end &&
		    request_of(c, c->op[j])->asked_hi < r->begin &&
		    (!s->ret || s->ret == -ETIMEDOUT ||
		     s->ret == -EINPROGRESS))
			return reject(c, CANCELED,
				"call %u: %d, but release %u withdrew its request",
				c->op[j], s->ret, i);
		if (w == NOBODY || !s->end || s->ret == -ECANCELED)
			continue;
		/* It was there before the release, and still after it */
		if (c->request[c->wait[w].request].asked_hi < r->begin &&
		    c->wait[w].end_lo > r->end &&
		    (!s->ret || s->ret == -ETIMEDOUT))
			return reject(c, CANCELED,
				"call %u: %d, but release %u withdrew what it waited for",
				c->op[j], s->ret, i);
	}
	return true;
}

bool judge_file(struct court *c, struct file *f)
{
	__u32 *waits, n = 0;
	bool ok = true;

	/* A file that is not shared was judged call by call: judge_state() */
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
