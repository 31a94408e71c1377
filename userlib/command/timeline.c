// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock monitor --timeline: the Trace Event Format of Chrome, which Perfetto
 * reads, too. A lock is a "process", whose first "thread" shows who held it, and
 * each further one a contender. Times are microseconds on CLOCK_MONOTONIC, so
 * that other traces of the same kernel fit.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>

#include "monitor.h"

struct writer {
	const struct recording *r;
	FILE *out;
	bool begun;
};

/* Numbers of "threads", each of which is unique; the first is its "process" */
static size_t id_of_lock(size_t lock)
{
	return lock + 1;
}

static size_t id_of_track(const struct recording *r, size_t track)
{
	return r->num_locks + track + 1;
}

static void put_time(const struct writer *w, const char *name, int64_t ns)
{
	bool negative = ns < 0;

	ns = negative ? -ns : ns;
	fprintf(w->out, ",\"%s\":%s%" PRId64 ".%03d", name, negative ? "-" : "",
		ns / 1000, (int)(ns % 1000));
}

/* Begins an event of the lock on one of its rows. */
static void begin_event(struct writer *w, char phase, size_t lock, size_t id)
{
	fprintf(w->out, "%s\n{\"ph\":\"%c\",\"pid\":%zu,\"tid\":%zu",
		w->begun ? "," : "", phase, id_of_lock(lock), id);
	w->begun = true;
}

static void name_row(struct writer *w, size_t lock, size_t id, const char *what,
		     const char *name)
{
	begin_event(w, 'M', lock, id);
	fprintf(w->out, ",\"name\":\"%s\",\"args\":{\"name\":", what);
	print_json_text(name, w->out);
	fputs("}}", w->out);
}

static void sort_row(struct writer *w, size_t lock, size_t id, const char *what)
{
	begin_event(w, 'M', lock, id);
	fprintf(w->out, ",\"name\":\"%s\",\"args\":{\"sort_index\":%zu}}", what,
		id);
}

static void put_rows(struct writer *w)
{
	const struct recording *r = w->r;
	size_t i;

	for (i = 0; i < r->num_locks; i++) {
		name_row(w, i, id_of_lock(i), "process_name", r->locks[i].name);
		sort_row(w, i, id_of_lock(i), "process_sort_index");
		name_row(w, i, id_of_lock(i), "thread_name", "held for");
		sort_row(w, i, id_of_lock(i), "thread_sort_index");
	}
	for (i = 0; i < r->num_tracks; i++) {
		size_t lock = r->tracks[i].lock;
		char *name = track_name(&r->tracks[i]);

		name_row(w, lock, id_of_track(r, i), "thread_name", name);
		sort_row(w, lock, id_of_track(r, i), "thread_sort_index");
		free(name);
	}
}

static void put_span(struct writer *w, const struct span *span, size_t id)
{
	const struct recording *r = w->r;
	const struct track *track = &r->tracks[span->track];

	begin_event(w, 'X', track->lock, id);
	if (span->held) {
		print_json_member("name", span_name(r, span), w->out);
		print_json_member("cat", "held", w->out);
	} else {
		char *name;

		if (asprintf(&name, "waiting: %s", span_name(r, span)) < 0)
			name = NULL;
		print_json_member("name", checked(name), w->out);
		print_json_member("cat", "waiting", w->out);
		free(name);
	}
	put_time(w, "ts", span->begin_ns);
	put_time(w, "dur", span->end_ns - span->begin_ns);
	fputs(",\"args\":{\"seconds\":", w->out);
	print_seconds(span->took_ns, w->out);
	print_json_member("job", span->job, w->out);
	print_json_member("command", track->comm, w->out);
	fprintf(w->out, ",\"pid\":%d", track->pid);
	print_json_member("end", span->end, w->out);
	if (span->token)
		fprintf(w->out, ",\"token\":\"%" PRIu64 "\"", span->token);
	if (span->ticket)
		fprintf(w->out, ",\"ticket\":\"%" PRIu64 "\"", span->ticket);
	fputs("}}", w->out);
}

/* An arrow from a grant to the one that it was handed over to */
static void put_flow(struct writer *w, const struct span *to)
{
	const struct recording *r = w->r;
	const struct span *from = &r->spans[to->from];
	size_t lock = r->tracks[to->track].lock;
	size_t id = to - r->spans;
	/* The arrow must begin within the span that it leaves */
	int64_t left_ns = from->end_ns > from->begin_ns ? from->end_ns - 1 :
		from->end_ns;

	begin_event(w, 's', lock, id_of_track(r, from->track));
	fprintf(w->out, ",\"id\":%zu,\"name\":\"hand-over\",\"cat\":\"hand-over\"",
		id);
	put_time(w, "ts", left_ns);
	putc('}', w->out);
	begin_event(w, 'f', lock, id_of_track(r, to->track));
	fprintf(w->out,
		",\"bp\":\"e\",\"id\":%zu,\"name\":\"hand-over\",\"cat\":\"hand-over\"",
		id);
	put_time(w, "ts", to->begin_ns);
	putc('}', w->out);
}

static void put_mark(struct writer *w, const struct mark *mark)
{
	begin_event(w, 'i', mark->lock, mark->track == NONE ?
		    id_of_lock(mark->lock) : id_of_track(w->r, mark->track));
	print_json_member("name", mark->kind, w->out);
	fputs(",\"s\":\"t\"", w->out);
	put_time(w, "ts", mark->time_ns);
	fputs(",\"args\":{\"job\":", w->out);
	print_json_text(mark->job, w->out);
	if (mark->lost)
		fprintf(w->out, ",\"lost\":%" PRIu64, mark->lost);
	fputs("}}", w->out);
}

void write_timeline(const struct recording *r, FILE *out)
{
	struct writer w = { .r = r, .out = out };
	size_t i;

	fputs("{\"displayTimeUnit\":\"ms\",\"otherData\":{\"realtime - monotonic\":\"",
	      out);
	print_seconds(r->wall_clock_ns, out);
	fputs("\"},\"traceEvents\":[", out);
	put_rows(&w);
	for (i = 0; i < r->num_spans; i++) {
		const struct span *span = &r->spans[i];

		if (span->held)
			put_span(&w, span,
				 id_of_lock(r->tracks[span->track].lock));
		put_span(&w, span, id_of_track(r, span->track));
	}
	for (i = 0; i < r->num_spans; i++)
		if (r->spans[i].from != NONE)
			put_flow(&w, &r->spans[i]);
	for (i = 0; i < r->num_marks; i++)
		put_mark(&w, &r->marks[i]);
	fputs("\n]}\n", out);
}
