// SPDX-License-Identifier: GPL-2.0-only
/* The judge of a history: rules for a single call and for its request */
#include <errno.h>

#include "judge.h"

/* Whether the ticket in the argument after the call is right */
static bool judge_ticket(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	bool right;

	switch (r->ret) {
	case 0:
	case -ETIMEDOUT:
	case -ECANCELED:
	case -ESTALE:
		right = !r->left_ticket;
		break;
	case -EINTR:
	case -EINPROGRESS:
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

/*
 * Whether the call fetched the outcome of a request whose process may have
 * ended: its grant then ends before its deadline, if somebody wants the lock
 */
bool may_be_orphaned(struct court *c, __u32 i)
{
	__u32 by = process_of(c, &c->record[i]), process;

	if (!fetches(c, i))
		return false;
	process = process_of(c, &c->record[request_of(c, i)->first]);
	return process != by && c->death_lo[process] <= c->record[i].end;
}

/* Whether the time left of its request is right */
static bool judge_left(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);
	__s64 made, used;

	if (!q || q->timeout <= 0 || refused(c, i))
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
	/* The time that a request is away counts as used */
	made = c->record[q->first].end;
	if (r->ticket && r->ret != -ECANCELED && r->left_ns &&
	    (!q->async || r->ret == -EINPROGRESS) &&
	    used < r->begin - made)
		return reject(c, LEFT, "call %u: %lld ns are left of %lld after %lld at least",
			      i, r->left_ns, q->timeout, r->begin - made);
	return true;
}

/* Checks a call by itself, and against the call that made its request */
bool judge_call(struct court *c, __u32 i)
{
	struct record *r = &c->record[i];
	struct request *q = request_of(c, i);
	__s64 deadline, last;

	switch (r->kind) {
	case STATUS:
		if (r->ret == -ENODEV ? r->end < c->deleted_lo :
					r->begin > c->deleted_hi)
			return reject(c, NAMES,
				"status %u: %d, and it was deleted from %lld to %lld",
				i, r->ret, c->deleted_lo, c->deleted_hi);
		if (r->ret == -ENODEV)
			return true;
		if (r->ret)
			return reject(c, ERRNO, "status %u: %d", i, r->ret);
		if (!r->holder.token && r->waiters)
			return reject(c, HAND_OVER,
				"status %u: free, and %u wait", i, r->waiters);
		if (grants_at(c, r) > c->grants)
			return reject(c, COUNTERS, "status %u: %llu grants",
				      i, r->count[ACQUIRED]);
		if (r->holder.token &&
		    r->holder.token != c->lock->first + grants_at(c, r))
			return reject(c, HOLDER,
				"status %u: token %llu after %llu, but %llu grants",
				i, r->holder.token, c->lock->first,
				grants_at(c, r));
		return true;
	case RELEASE:
		if (r->ret && r->ret != -EPERM && r->ret != -ESTALE)
			return reject(c, ERRNO, "release %u: %d", i, r->ret);
		return true;
	case UNLOCK:
		if (r->ret && r->ret != -ESTALE)
			return reject(c, ERRNO, "unlock %u: %d", i, r->ret);
		return true;
	case REVOKE:
		if (r->ret && r->ret != -ESTALE && r->ret != -EPERM)
			return reject(c, ERRNO, "revoke %u: %d", i, r->ret);
		if (r->ret != -ESTALE && !hold_of(c, r->token))
			return reject(c, TOKENS, "revoke %u: %d, token %llu", i,
				      r->ret, r->token);
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
		if (!q && r->ret != -ECANCELED && r->ret != -ESTALE)
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
		if (r->result & ~(TLOCK_ABANDONED | TLOCK_REVOKED))
			return reject(c, REPORTED, "call %u: result %#x",
				      i, r->result);
		break;
	case -ETIMEDOUT:
		if (may_be_orphaned(c, i))
			break;
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
	case -EINPROGRESS:
		if (!r->async || !q->timeout)
			return reject(c, ERRNO, "call %u: EINPROGRESS", i);
		last = c->record[q->first].end + q->timeout;
		if (q->timeout > 0 && r->begin - OVERLONG > last)
			return reject(c, LATE,
				"call %u: not decided at %lld, but it had time until %lld",
				i, (__s64)r->begin, last);
		break;
	case -EINVAL:
		if (r->ticket && q && q->async != r->async)
			break;
		return reject(c, ERRNO, "call %u: EINVAL", i);
	case -EBUSY:
	case -ESTALE:
		/* See judge_state() and judge_errno() */
		break;
	case -ECANCELED:
		if (r->kind != FLOCK)
			break;
		__attribute__((fallthrough));
	default:
		return reject(c, ERRNO, "call %u: %d", i, r->ret);
	}
	return judge_left(c, i);
}
