// SPDX-License-Identifier: GPL-2.0-only
/*
 * The judge of a history of several locks: which locks there were, under which
 * names, and the history of each.
 *
 * Permanent locks are there all the time. One thread creates and deletes the
 * temporary ones, so the order of these calls is known.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"

/* The time and the tokens of a lock */
struct life {
	const struct record *create, *delete;	/* NULL: neither */
	__u64 least, most;			/* of the tokens seen */
};

static __u32 lock_of(const struct history *h, __u32 minor)
{
	__u32 i;

	for (i = 0; i < h->locks; i++)
		if (h->lock[i].minor == minor)
			return i;
	return NOBODY;
}

/* The token that a call shows to exist, or 0 */
static __u64 token_in(const struct record *r)
{
	if (!r->end)
		return 0;
	if ((takes(r) && !r->ret) || r->kind == LOOK)
		return r->token;
	return r->holder.token;
}

static bool refuse(struct verdict *v, enum rule rule, const char *format,
		   __u32 i, __s64 ret)
{
	v->rule = rule;
	snprintf(v->why, sizeof(v->why), format, i, ret);
	return false;
}

/* Finds the life of each lock; checks the calls that create and delete them */
static bool judge_lives(const struct history *h, struct life *lives,
			struct verdict *v)
{
	__u32 there[256], lock;

	memset(there, 0xff, sizeof(there));
	for (__u32 i = 0; i < h->records; i++) {
		const struct record *r = &h->record[i];
		struct life *life;
		__u64 token = token_in(r);

		lock = lock_of(h, r->minor);
		if (r->minor != NOBODY && lock == NOBODY)
			return refuse(v, NAMES, "call %u: on lock %lld, which nobody created",
				      i, r->minor);
		life = &lives[lock == NOBODY ? 0 : lock];
		if (token && lock != NOBODY) {
			life->most = max64(life->most, token);
			if (!life->least || token < life->least)
				life->least = token;
		}
		if (!r->end)
			continue;
		if (r->kind == CREATE) {
			if (r->ret != (there[r->name] == NOBODY ? 0 : -EEXIST) ||
			    (!r->ret && life->create))
				return refuse(v, NAMES, "create %u: %lld", i,
					      r->ret);
			if (r->ret)
				continue;
			there[r->name] = lock;
			life->create = r;
		} else if (r->kind == DELETE) {
			if (there[r->name] == NOBODY ? r->ret != -ENOENT :
			    r->ret != -EBUSY &&
			    (r->ret || lock != there[r->name]))
				return refuse(v, NAMES, "delete %u: %lld", i,
					      r->ret);
			if (r->ret)
				continue;
			there[r->name] = NOBODY;
			life->delete = r;
		}
	}
	return true;
}

/* Whether a lock was certainly there during all of the call */
static bool there(const struct life *life, const struct record *r)
{
	return life->create && life->create->end < r->begin &&
	       (!life->delete || life->delete->begin > r->end);
}

/* Whether the open may return what it returned */
static bool judge_open(const struct history *h, const struct life *lives,
		       __u32 i, struct verdict *v)
{
	const struct record *r = &h->record[i];
	const struct life *life;

	if (!r->ret && r->minor == NOBODY)
		return refuse(v, NAMES, "open %u: lock %lld", i, -1);
	if (!r->ret) {
		life = &lives[lock_of(h, r->minor)];
		if (life->create ? life->create->name != r->name ||
				   life->create->begin > r->end ||
				   (life->delete &&
				    life->delete->end < r->begin) :
				   r->minor != h->lock[r->name].minor)
			return refuse(v, NAMES, "open %u: lock %lld", i,
				      r->minor);
		return true;
	}
	if (r->ret != -ENOENT && r->ret != -ENXIO)
		return refuse(v, NAMES, "open %u: %lld", i, r->ret);
	for (__u32 j = 0; j < h->locks; j++)
		if (h->lock[j].temporary ?
		    there(&lives[j], r) && lives[j].create->name == r->name :
		    r->name == j)
			return refuse(v, NAMES, "open %u: %lld, but it is there",
				      i, r->ret);
	return true;
}

/* Whether the tokens of a lock are above those of all that were deleted */
static bool judge_tokens(const struct history *h, const struct life *lives,
			 struct verdict *v)
{
	for (__u32 i = 0; i < h->locks; i++)
		for (__u32 j = 0; j < h->locks; j++) {
			const struct life *was = &lives[i], *is = &lives[j];

			if (!was->delete || !is->create || !is->least ||
			    was->delete->end > is->create->begin ||
			    was->most < is->least)
				continue;
			return refuse(v, TOKENS,
				      "lock %u had token %lld, and a later one does not have a larger one",
				      h->lock[i].minor, was->most);
		}
	return true;
}

/* Finds what a temporary lock had given in the beginning and in the end */
static void study_temporary(struct history *h)
{
	struct lock *lock = h->lock;
	__u64 grants = 0;

	for (__u32 i = 0; i < h->records && !lock->first; i++) {
		struct record *r = &h->record[i];

		if (shows(r) && r->holder.token)
			lock->first = r->holder.token - r->count[ACQUIRED];
	}
	for (__u32 i = 0; i < h->records; i++) {
		struct record *r = &h->record[i];
		__u64 token = token_in(r);

		/* Smaller tokens are rejected by themselves */
		if (token > lock->first && token - lock->first > grants)
			grants = token - lock->first;
		if (shows(r) && r->count[ACQUIRED] > grants)
			grants = r->count[ACQUIRED];
	}
	memset(&lock->after, 0xff, sizeof(lock->after));
	lock->after.count[ACQUIRED] = grants;
}

struct history *history_of(const struct history *h, __u32 lock)
{
	const __u32 minor = h->lock[lock].minor;
	__u32 *number = array(h->records, sizeof(*number)), n = 0;
	__u32 name = h->lock[lock].temporary ? NOBODY : lock;
	struct history *one;

	for (__u32 i = 0; i < h->records; i++)
		if (h->record[i].kind == CREATE && h->record[i].minor == minor)
			name = h->record[i].name;
	/* The records that belong to it, and the new number of each */
	for (__u32 i = 0; i < h->records; i++) {
		const struct record *r = &h->record[i];

		/* A look keeps files open: whose is not known */
		number[i] = r->minor == minor || r->kind == LOOK ||
			    (r->kind == OPEN && !r->end && r->name == name) ?
			    n++ : NOBODY;
	}
	one = calloc(1, sizeof(*one) + (n + 1) * sizeof(struct record) +
			h->lock[lock].events * sizeof(struct event));
	if (!one)
		die("no memory to judge");
	memcpy(one, h, sizeof(*one));
	one->records = one->capacity = n;
	one->locks = 1;
	one->lock[0] = h->lock[lock];
	for (__u32 i = 0; i < h->records; i++) {
		struct record *r;

		if (number[i] == NOBODY)
			continue;
		r = &one->record[number[i]];
		memcpy(r, &h->record[i], sizeof(*r));
		if (r->minor != minor)
			r->token = r->ticket = 0;
		if (r->holder.job < h->records)
			r->holder.job = number[r->holder.job];
	}
	if (one->lock->event) {
		one->lock->event = (struct event *)&one->record[n + 1];
		memcpy(one->lock->event, h->lock[lock].event,
		       one->lock->events * sizeof(struct event));
	}
	for (__u32 i = 0; i < one->lock->events; i++) {
		struct sight *of = &one->lock->event[i].of;

		if (of->job < h->records)
			of->job = number[of->job];
	}
	free(number);
	if (one->lock->temporary)
		study_temporary(one);
	return one;
}

/* Checks the deletion of the lock, and those that were refused */
bool judge_deletions(struct court *c)
{
	for (__u32 i = 0; i < c->records; i++) {
		struct record *r = &c->record[i];
		bool open = false;

		if (r->kind != DELETE || !r->end)
			continue;
		if (!r->ret) {
			c->deleted_lo = r->begin;
			c->deleted_hi = r->end;
		}
		for (__u32 j = 0; j < c->records; j++) {
			struct record *o = &c->record[j];
			struct file *f = &c->file[o->file];

			if (o->kind != OPEN || !o->begin || o->reader)
				continue;
			open |= o->begin <= r->end && f->close_hi >= r->begin;
			if (!r->ret && o->end && f->close_lo > r->end)
				return reject(c, NAMES,
					"delete %u ended at %lld, but file %u was open for writing until %lld",
					i, (__s64)r->end, o->file, f->close_lo);
		}
		if (r->ret == -EBUSY && !open)
			return reject(c, NAMES,
				"delete %u: EBUSY, but no file was open for writing",
				i);
	}
	return true;
}

struct verdict judge_locks(const struct history *h)
{
	struct life *lives = array(h->locks, sizeof(*lives));
	struct verdict v = { .rule = ACCEPTED };
	bool right = judge_lives(h, lives, &v);
	struct history *one;

	for (__u32 i = 0; right && i < h->records; i++)
		if (h->record[i].kind == OPEN && h->record[i].end)
			right = judge_open(h, lives, i, &v);
	right = right && judge_tokens(h, lives, &v);
	for (__u32 i = 0; !v.rule && i < h->locks; i++) {
		one = history_of(h, i);
		v = judge(one);
		v.lock = i;
		free(one);
	}
	free(lives);
	return v;
}
