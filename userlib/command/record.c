// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock monitor: records who waited and held when, for --timeline and --svg.
 * Events do not say which file a contender has, only its process. So each
 * process has a row for each lock, and another one while it waits for the lock
 * once more, as an event loop or the threads of a program may.
 */
#define _GNU_SOURCE
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "monitor.h"

/* A request that waits, or is away */
struct request {
	uint64_t ticket;
	size_t track;
	size_t span;		/* NONE while it is away */
};

/* The first row of a process */
struct name {
	size_t lock;
	int pid;
	char comm[TLOCK_COMM_SIZE];
	size_t track;
};

static int compare_names(const void *a, const void *b)
{
	const struct name *left = a, *right = b;

	if (left->lock != right->lock)
		return left->lock < right->lock ? -1 : 1;
	if (left->pid != right->pid)
		return left->pid < right->pid ? -1 : 1;
	return strncmp(left->comm, right->comm, sizeof(left->comm));
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Makes room for one more element. Returns its index. */
static size_t grow(void *array, size_t *num, size_t size)
{
	void **elements = array;

	/* Doubles the room at each power of two */
	if (!(*num & (*num - 1)))
		*elements = checked(reallocarray(*elements, 2 * *num + 1, size));
	return (*num)++;
}

/* The one copy of a job that is kept */
static const char *keep(struct recording *r, const char *job)
{
	char **found = tfind(job, &r->jobs, compare_texts);

	if (!found)
		found = checked(tsearch(checked(strdup(job)), &r->jobs,
					compare_texts));
	return *found;
}

static size_t lock_of(struct recording *r, const char *name)
{
	size_t i;

	for (i = 0; i < r->num_locks; i++)
		if (!strcmp(r->locks[i].name, name))
			return i;
	grow(&r->locks, &r->num_locks, sizeof(*r->locks));
	r->locks[i] = (struct recorded_lock){
		.name = checked(strdup(name)),
		.hold = NONE,
		.before = NONE,
	};
	return i;
}

static size_t add_track(struct recording *r, const struct name *name,
			unsigned int number)
{
	size_t i = grow(&r->tracks, &r->num_tracks, sizeof(*r->tracks));
	struct track *track = &r->tracks[i];

	*track = (struct track){
		.lock = name->lock,
		.pid = name->pid,
		.number = number,
		.next = NONE,
	};
	memcpy(track->comm, name->comm, sizeof(track->comm));
	return i;
}

/* A row of the event's process that is not busy */
static size_t track_of(struct recording *r, size_t lock,
		       const struct happening *h)
{
	struct name key = { .lock = lock, .pid = h->pid };
	struct name **found, *name;
	unsigned int number = 0;
	size_t i, next;

	strncpy(key.comm, h->comm, sizeof(key.comm) - 1);
	found = tfind(&key, &r->names, compare_names);
	if (!found) {
		name = checked(malloc(sizeof(*name)));
		*name = key;
		name->track = add_track(r, &key, 0);
		checked(tsearch(name, &r->names, compare_names));
		return name->track;
	}
	for (i = (*found)->track; r->tracks[i].busy; i = r->tracks[i].next) {
		number++;
		if (r->tracks[i].next != NONE)
			continue;
		next = add_track(r, &key, number);
		r->tracks[i].next = next;
		return next;
	}
	return i;
}

static size_t begin_span(struct recording *r, size_t track, bool held,
			 const struct happening *h)
{
	size_t i = grow(&r->spans, &r->num_spans, sizeof(*r->spans));
	struct span *span = &r->spans[i];
	int64_t before = held ? h->held_ns : h->waited_ns;

	*span = (struct span){
		.track = track,
		.held = held,
		.begin_ns = h->time_ns,
		.job = keep(r, h->job),
		.token = h->token,
		.ticket = h->ticket,
		.from = NONE,
	};
	/* What began before the recording counts in full */
	if (before > 0)
		span->took_ns = before;
	r->tracks[track].busy = true;
	return i;
}

static void end_span(struct recording *r, size_t i, int64_t time_ns,
		     const char *how)
{
	struct span *span = &r->spans[i];

	span->end_ns = time_ns > span->begin_ns ? time_ns : span->begin_ns;
	span->took_ns += span->end_ns - span->begin_ns;
	span->end = how;
}

static void begin_request(struct recording *r, struct recorded_lock *lock,
			  const struct happening *h)
{
	struct request *request = find_ticket(lock->requests, h->ticket);

	if (!request) {
		request = add_ticket(&lock->requests, h->ticket,
				     sizeof(*request));
		request->track = track_of(r, lock - r->locks, h);
		request->span = NONE;
	}
	r->tracks[request->track].ticket = h->ticket;
	if (request->span == NONE)
		request->span = begin_span(r, request->track, false, h);
}

/* Ends a request. Returns its row, or NONE. */
static size_t end_request(struct recording *r, struct recorded_lock *lock,
			  const struct happening *h)
{
	struct request *request = find_ticket(lock->requests, h->ticket);
	size_t track;

	if (!request)
		return NONE;
	track = request->track;
	if (request->span != NONE)
		end_span(r, request->span, h->time_ns, h->kind);
	r->tracks[track].busy = false;
	r->tracks[track].ticket = 0;
	drop_ticket(&lock->requests, request);
	return track;
}

static void begin_hold(struct recording *r, struct recorded_lock *lock,
		       const struct happening *h)
{
	size_t track = end_request(r, lock, h);

	if (track == NONE)
		track = track_of(r, lock - r->locks, h);
	lock->hold = begin_span(r, track, true, h);
	/* Handed over, not free in between */
	if (h->ticket && lock->before != NONE &&
	    r->spans[lock->before].end_ns == h->time_ns)
		r->spans[lock->hold].from = lock->before;
	lock->before = NONE;
}

static void end_hold(struct recording *r, struct recorded_lock *lock,
		     int64_t time_ns, const char *how)
{
	if (lock->hold == NONE)
		return;
	end_span(r, lock->hold, time_ns, how);
	r->tracks[r->spans[lock->hold].track].busy = false;
	lock->before = lock->hold;
	lock->hold = NONE;
}

/* Ends all that goes on at a lock. */
static void end_all(struct recording *r, struct recorded_lock *lock,
		    int64_t time_ns, const char *how)
{
	size_t i;

	end_hold(r, lock, time_ns, how);
	lock->before = NONE;
	for (i = 0; i < r->num_tracks; i++) {
		const struct happening h = {
			.ticket = r->tracks[i].ticket,
			.time_ns = time_ns,
			.kind = how,
		};

		if (&r->locks[r->tracks[i].lock] == lock)
			end_request(r, lock, &h);
	}
}

static void add_mark(struct recording *r, size_t lock, size_t track,
		     const struct happening *h)
{
	size_t i = grow(&r->marks, &r->num_marks, sizeof(*r->marks));

	r->marks[i] = (struct mark){
		.lock = lock,
		.track = track,
		.time_ns = h->time_ns,
		.kind = h->kind,
		.job = keep(r, h->job),
		.lost = h->lost,
	};
}

void record(struct recording *r, const struct happening *h)
{
	size_t i = lock_of(r, h->lock);
	struct recorded_lock *lock = &r->locks[i];
	struct request *request;
	size_t track;

	if (!h->has_process) {
		/* created, lost or deleted */
		end_all(r, lock, h->time_ns, h->kind);
		add_mark(r, i, NONE, h);
	} else if (!strcmp(h->kind, "waiting")) {
		begin_request(r, lock, h);
	} else if (!strcmp(h->kind, "acquired") || !strcmp(h->kind, "held")) {
		end_hold(r, lock, h->time_ns, "unknown");
		begin_hold(r, lock, h);
	} else if (h->token) {
		if (lock->hold != NONE &&
		    r->spans[lock->hold].token == h->token)
			end_hold(r, lock, h->time_ns, h->kind);
		if (is_loss(h->kind))
			add_mark(r, i, NONE, h);
	} else if (!strcmp(h->kind, "interrupted")) {
		request = find_ticket(lock->requests, h->ticket);
		if (request && request->span != NONE) {
			end_span(r, request->span, h->time_ns, h->kind);
			request->span = NONE;
		}
	} else {
		/* timed-out, withdrawn */
		track = end_request(r, lock, h);
		if (track == NONE)
			track = track_of(r, i, h);
		add_mark(r, i, track, h);
	}
}

char *track_name(const struct track *track)
{
	char pid[16] = "", number[16] = "";
	char *name;

	if (track->pid)
		snprintf(pid, sizeof(pid), " %d", track->pid);
	if (track->number)
		snprintf(number, sizeof(number), " (%u)", track->number + 1);
	if (asprintf(&name, "%s%s%s", track->comm, pid, number) < 0)
		name = NULL;
	return checked(name);
}

const char *span_name(const struct recording *r, const struct span *span)
{
	return *span->job ? span->job : r->tracks[span->track].comm;
}

void begin_recording(struct recording *r)
{
	*r = (struct recording){
		.start_ns = now_ns(CLOCK_MONOTONIC),
		.wall_clock_ns = wall_clock_ns(),
	};
}

void end_recording(struct recording *r)
{
	int64_t now = now_ns(CLOCK_MONOTONIC);
	size_t i;

	for (i = 0; i < r->num_locks; i++)
		end_all(r, &r->locks[i], now, "going on");
}

void free_recording(struct recording *r)
{
	while (r->num_locks)
		free(r->locks[--r->num_locks].name);
	tdestroy(r->jobs, free);
	tdestroy(r->names, free);
	free(r->locks);
	free(r->tracks);
	free(r->spans);
	free(r->marks);
}
