// SPDX-License-Identifier: GPL-2.0-only
/*
 * The judge of a history: leases, and grants that were revoked.
 *
 * A grant can be revoked from its expiry on, which is the end of its lease or of
 * a grace given by REVOKE, whichever is first. Only somebody who wants the lock
 * makes that happen, except for a REVOKE without a grace. The instant of an expiry
 * is known as an interval, too: a lease begins in the call that is granted the
 * lock, or renews it, and a grace in the call of REVOKE.
 */
#include <errno.h>

#include "judge.h"

/* Finds what each REVOKE may have done to a grant, and what it certainly did. */
void study_revokes(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		struct hold *hold = r->kind == REVOKE ? hold_of(c, r->token) :
							NULL;
		bool sure = r->end && !r->ret;

		if (!hold || !r->begin || (r->end && r->ret))
			continue;
		c->revoke[c->revokes++] = i;
		hold->revoke_lo = min64(hold->revoke_lo, r->begin);
		hold->grace_lo = min64(hold->grace_lo,
				       later(r->begin, r->timeout_ns));
		if (sure)
			hold->revoke_hi = min64(hold->revoke_hi, r->end);
		if (r->timeout_ns)
			continue;
		hold->may_at_once = true;
		if (!sure)
			continue;
		hold->at_once = true;
		hold->taken_lo = max64(hold->taken_lo, r->begin);
		hold->taken_hi = min64(hold->taken_hi, r->end);
	}
}

/* The earliest end of its last lease; NEVER if it has none */
__s64 lease_lo(const struct hold *hold)
{
	__s64 since = max64(hold->since ?: hold->grant_lo, hold->renewed);

	return hold->least ? later(since, hold->least) : NEVER;
}

/* The earliest instant at which it can have been revoked, or NEVER */
__s64 revocable_lo(const struct hold *hold)
{
	return min64(lease_lo(hold), hold->grace_lo);
}

/* Narrows when each grant ended that may have been revoked */
bool study_revocations(struct court *c)
{
	for (__u64 i = 1; i <= c->grants; i++) {
		struct hold *hold = &c->hold[i];
		__s64 expiry = revocable_lo(hold);
		bool shared = hold->file != NOBODY &&
			      c->file[hold->file].shared;

		if (hold->at_once) {
			if (!(hold->endings & BY_REVOCATION))
				return reject(c, STALE,
					"token %llu (call %u) was revoked by %lld, but its holder ended it by %lld",
					token_of(c, hold), hold->granter,
					hold->taken_hi, hold->end_hi);
			hold->endings = BY_REVOCATION;
			hold->end_hi = min64(hold->end_hi, hold->taken_hi);
			expiry = max64(expiry, hold->taken_lo);
		}
		if (!(hold->endings & BY_REVOCATION))
			continue;
		if (expiry > hold->end_hi || expiry == NEVER)
			hold->endings &= ~BY_REVOCATION;
		if (!hold->endings)
			return reject(c, REVOCATION,
				"token %llu (call %u) was revoked by %lld at the latest, but it expired at %lld at the earliest",
				token_of(c, hold), hold->granter, hold->end_hi,
				expiry);
		if (hold->endings == BY_REVOCATION)
			hold->end_lo = hold->at_once || !shared ? expiry :
				       max64(hold->end_lo, expiry);
		else if (hold->endings & BY_REVOCATION && !shared)
			hold->end_lo = min64(hold->end_lo, expiry);
	}
	return true;
}

/* The process that asked for a grant, or NOBODY */
static __u32 asker(struct court *c, const struct hold *hold)
{
	if (hold->granter == NOBODY)
		return NOBODY;
	return process_of(c, &c->record[request_of(c, hold->granter)->first]);
}

/* Whether each REVOKE found the grant that was there, and had the permission */
bool judge_revokes(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		struct process *me = &c->h->process[process_of(c, r)];
		struct hold *hold;
		__u32 by;

		if (r->kind != REVOKE || !r->end)
			continue;
		hold = hold_of(c, r->token);
		if (r->ret == -ESTALE) {
			if (hold && hold->grant_hi < r->begin &&
			    hold->end_lo > r->end)
				return reject(c, REVOCATION,
					"revoke %u: ESTALE, but token %llu was the present grant",
					i, r->token);
			continue;
		}
		if (hold->grant_lo > r->end || hold->end_hi < r->begin)
			return reject(c, REVOCATION,
				"revoke %u: %d, but token %llu was not the present grant",
				i, r->ret, r->token);
		/* Another thread or process may ask again on a shared file */
		by = asker(c, hold);
		if (r->ret ? !me->own_uids : me->own_uids && by != NOBODY &&
		    !c->file[hold->file].shared &&
		    c->h->process[by].uid != me->uid)
			return reject(c, REVOCATION,
				"revoke %u: %d, of token %llu of process %u", i,
				r->ret, r->token, by);
		if (r->ret && by != NOBODY && !c->file[hold->file].shared &&
		    c->h->process[by].uid == me->uid)
			return reject(c, REVOCATION,
				"revoke %u: %d, of token %llu of its own user",
				i, r->ret, r->token);
	}
	return true;
}

/* Whether the flags are right of a grant that was seen from @begin to @end */
bool judge_flags(const struct hold *hold, const struct sight *s, __s64 begin,
		 __s64 end, const char **why)
{
	if (s->leased ? hold->leased_lo > end : hold->leased_hi < begin)
		*why = s->leased ? "has a lease that nobody asked for" :
				   "has no lease";
	if (s->revoking ? hold->revoke_lo > end : hold->revoke_hi < begin)
		*why = s->revoking ? "is being revoked by nobody" :
				     "is not being revoked";
	return !*why;
}

/* The latest end of the grace of a grant, by calls that had ended at @at */
static __s64 grace_hi(struct court *c, __u64 token, __s64 at)
{
	__s64 hi = NEVER;

	for (__u32 i = 0; i < c->revokes; i++) {
		struct record *r = &c->record[c->revoke[i]];

		if (r->token == token && r->end && r->end < at)
			hi = min64(hi, later(r->end, r->timeout_ns));
	}
	return hi;
}

/* Whether the expiry is right of a holder that a call saw */
static void judge_expires(struct court *c, __u32 i, const char **why)
{
	struct record *r = &c->record[i];
	struct sight *s = &r->holder;
	struct hold *hold = hold_of(c, s->token);
	__s64 begin = shows(r) ? r->begin : deadline_lo(c, i);
	__u64 least = c->least, most = c->most;
	__s64 lo = NEVER, hi = NEVER;

	if (hold->file != NOBODY) {
		least = c->file[hold->file].least;
		most = c->file[hold->file].most;
	}
	if (s->leased) {
		lo = later(hold->grant_lo, least);
		hi = later(r->end, most);
	}
	if (s->revoking) {
		lo = min64(lo, hold->grace_lo);
		hi = min64(hi, grace_hi(c, s->token, begin));
	}
	if (!s->leased && !s->revoking ? s->expires_ns :
	    s->expires_ns < lo || s->expires_ns > hi)
		*why = "expires at another time";
	/* One that expired before the call: see judge_expiry() */
	if (r->kind == ACQUIRE && !r->ticket && !r->timeout_ns &&
	    (s->leased || s->revoking) && s->expires_ns < r->begin &&
	    (__s64)s->since_ns < r->begin)
		*why = "expired before, and is still there";
}

/* Whether the leases and revocations that calls saw are right */
bool judge_terms(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		const char *why = NULL;

		if (!r->end || !(shows(r) || (takes(r) && r->ret == -ETIMEDOUT)))
			continue;
		if (!r->holder.token) {
			if (r->holder.leased || r->holder.revoking ||
			    r->holder.expires_ns)
				return reject(c, HOLDER,
					"call %u saw an expiry of a free lock",
					i);
			continue;
		}
		if (judge_flags(hold_of(c, r->holder.token), &r->holder,
				shows(r) ? r->begin : deadline_lo(c, i), r->end,
				&why))
			judge_expires(c, i, &why);
		if (why)
			return reject(c, EXPIRY,
				"call %u saw that token %llu %s (expires at %lld)",
				i, r->holder.token, why, r->holder.expires_ns);
	}
	return true;
}
