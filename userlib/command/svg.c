// SPDX-License-Identifier: LGPL-2.1-or-later
/* tlock monitor --svg: a picture of who waited and held when */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "monitor.h"

/* Sizes in pixels */
#define CHART		800	/* width of the time */
#define MARGIN		10
#define INDENT		12	/* of the contenders' names */
#define HEAD		68	/* above the rows */
#define GAP		8	/* above each lock */
#define ROW		24
#define BAR		18	/* height of a bar within its row */
#define BASE		13	/* from its top to the base line of text */
#define PAD		4	/* left of the text */
#define CHARACTER	7	/* width of one, on average */
#define BOLD		8

/*
 * White text on them is readable, also in gray print, and for those who cannot
 * tell some colors apart
 */
static const char *const colors[] = {
	"#0067a8", "#a65200", "#007a58", "#a8487c", "#4d62b8", "#8a6a00",
	"#3c7d8c", "#666666",
};

#define NUM_COLORS	(sizeof(colors) / sizeof(*colors))

static const char head[] =
"<title>tlock: who waited and held when</title>\n"
"<style>\n"
"text { font: 12px sans-serif; fill: #222 }\n"
".lock { font-weight: bold }\n"
".hold + svg text { fill: #fff }\n"
"svg svg { pointer-events: none }\n"
".time { text-anchor: middle; fill: #666 }\n"
".grid { stroke: #ddd }\n"
".wait { fill-opacity: 0.2 }\n"
".pass { fill: none; stroke: #222; stroke-width: 1.2; marker-start: url(#dot); marker-end: url(#arrow) }\n"
".bad { fill: none; stroke: #d00; stroke-width: 2.5 }\n"
".event { stroke: #888; stroke-width: 2 }\n"
"</style>\n"
"<defs>\n"
"<marker id=\"dot\" viewBox=\"0 0 4 4\" refX=\"2\" refY=\"2\" markerWidth=\"3\" markerHeight=\"3\"><circle cx=\"2\" cy=\"2\" r=\"2\" fill=\"#222\"/></marker>\n"
"<marker id=\"arrow\" viewBox=\"0 0 6 6\" refX=\"6\" refY=\"3\" markerWidth=\"6\" markerHeight=\"6\" orient=\"auto\"><path d=\"M0 0L6 3L0 6z\" fill=\"#222\"/></marker>\n"
"</defs>\n"
"<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
/* What the signs mean */
"<rect class=\"hold\" x=\"10\" y=\"28\" width=\"24\" height=\"14\" fill=\"#0067a8\"/><text x=\"39\" y=\"39\">holds</text>\n"
"<rect class=\"wait\" x=\"90\" y=\"28\" width=\"24\" height=\"14\" fill=\"#0067a8\" stroke=\"#0067a8\"/><text x=\"119\" y=\"39\">waits</text>\n"
"<path class=\"pass\" d=\"M172 28v14\"/><text x=\"182\" y=\"39\">handed over</text>\n"
"<path class=\"bad\" d=\"M273 31l8 8m0 -8l-8 8\"/><text x=\"288\" y=\"39\">timed out, abandoned, revoked, or events lost</text>\n";

struct drawing {
	const struct recording *r;
	FILE *out;
	int64_t begin_ns;
	int64_t end_ns;
	size_t *lock_ys;	/* the upper ends of the rows */
	size_t *track_ys;
	size_t labels;		/* width of their names */
	size_t bottom;
};

/* Writes text of any bytes as XML, at most @max characters of it. */
static void put_text(const struct drawing *d, const char *text, size_t max)
{
	char *safe = escaped(text);
	size_t length = 0;
	const char *c;

	for (c = safe; *c; c++) {
		/* Count characters, not the bytes that continue them */
		if ((*c & 0xc0) != 0x80 && length++ == max) {
			fputs("…", d->out);
			break;
		}
		if (*c == '&') {
			fputs("&amp;", d->out);
		} else if (*c == '<') {
			fputs("&lt;", d->out);
		} else if (*c == '>') {
			fputs("&gt;", d->out);
		} else if (!strncmp(c, "\xef\xbf\xbe", 3) ||
			   !strncmp(c, "\xef\xbf\xbf", 3)) {
			/* These two are no characters, and XML forbids them */
			putc('?', d->out);
			c += 2;
		} else {
			putc(*c, d->out);
		}
	}
	free(safe);
}

static double x_of(const struct drawing *d, int64_t time_ns)
{
	return MARGIN + d->labels + (double)(time_ns - d->begin_ns) * CHART /
		(d->end_ns - d->begin_ns);
}

/* Finds where the time begins and ends. */
static void find_times(struct drawing *d)
{
	const struct recording *r = d->r;
	size_t i;

	d->begin_ns = INT64_MAX;
	d->end_ns = INT64_MIN;
	for (i = 0; i < r->num_spans; i++) {
		if (r->spans[i].begin_ns < d->begin_ns)
			d->begin_ns = r->spans[i].begin_ns;
		if (r->spans[i].end_ns > d->end_ns)
			d->end_ns = r->spans[i].end_ns;
	}
	for (i = 0; i < r->num_marks; i++) {
		if (r->marks[i].time_ns < d->begin_ns)
			d->begin_ns = r->marks[i].time_ns;
		if (r->marks[i].time_ns > d->end_ns)
			d->end_ns = r->marks[i].time_ns;
	}
	if (d->begin_ns > d->end_ns)
		d->begin_ns = d->end_ns = r->start_ns;
	if (d->begin_ns == d->end_ns)
		d->end_ns++;
}

/* Gives each lock a row, and below it one to each of its contenders. */
static void find_rows(struct drawing *d)
{
	const struct recording *r = d->r;
	size_t lock, i, width;
	size_t y = HEAD - GAP;
	char *name, *safe;

	d->lock_ys = checked(calloc(r->num_locks + 1, sizeof(size_t)));
	d->track_ys = checked(calloc(r->num_tracks + 1, sizeof(size_t)));
	for (lock = 0; lock < r->num_locks; lock++) {
		y += GAP;
		d->lock_ys[lock] = y;
		y += ROW;
		width = strlen(r->locks[lock].name) * BOLD + INDENT;
		if (width > d->labels)
			d->labels = width;
		for (i = 0; i < r->num_tracks; i++) {
			if (r->tracks[i].lock != lock)
				continue;
			d->track_ys[i] = y;
			y += ROW;
			name = track_name(&r->tracks[i]);
			safe = escaped(name);
			width = strlen(safe) * CHARACTER + 2 * INDENT;
			if (width > d->labels)
				d->labels = width;
			free(safe);
			free(name);
		}
	}
	d->bottom = y;
}

/* The least 1, 2 or 5 times a power of ten that makes at most ten steps */
static int64_t step_of(int64_t range_ns)
{
	int64_t power = 1;

	for (;;) {
		if (range_ns / power <= 10)
			return power;
		if (range_ns / (2 * power) <= 10)
			return 2 * power;
		if (range_ns / (5 * power) <= 10)
			return 5 * power;
		power *= 10;
	}
}

static void draw_head(const struct drawing *d)
{
	int64_t wall_ns = d->begin_ns + d->r->wall_clock_ns;
	int64_t range_ns = d->end_ns - d->begin_ns, at;
	time_t seconds = wall_ns / NS_PER_S;
	char when[40], zone[8];
	struct tm tm;

	localtime_r(&seconds, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	strftime(zone, sizeof(zone), "%z", &tm);
	fprintf(d->out, "<text x=\"%d\" y=\"18\">from %s.%03d %s</text>\n", MARGIN,
		when, (int)(wall_ns % NS_PER_S / 1000000), zone);
	for (at = 0; at <= range_ns; at += step_of(range_ns)) {
		double x = x_of(d, d->begin_ns + at);

		fprintf(d->out,
			"<path class=\"grid\" d=\"M%.2f %d V%zu\"/><text class=\"time\" x=\"%.2f\" y=\"%d\">%g %s</text>\n",
			x, HEAD - 6, d->bottom, x, HEAD - 10,
			range_ns < NS_PER_S ? at / 1e6 : at / 1e9,
			range_ns < NS_PER_S ? "ms" : "s");
	}
}

/* Where a bar in a row begins, and where text does */
static size_t bar_y(size_t row_y)
{
	return row_y + (ROW - BAR) / 2;
}

static size_t text_y(size_t row_y)
{
	return bar_y(row_y) + BASE;
}

static void draw_labels(const struct drawing *d)
{
	const struct recording *r = d->r;
	size_t i;

	for (i = 0; i < r->num_locks; i++) {
		fprintf(d->out, "<text class=\"lock\" x=\"%d\" y=\"%zu\">", MARGIN,
			text_y(d->lock_ys[i]));
		put_text(d, r->locks[i].name, SIZE_MAX);
		fputs("</text>\n", d->out);
	}
	for (i = 0; i < r->num_tracks; i++) {
		char *name = track_name(&r->tracks[i]);

		fprintf(d->out, "<text x=\"%d\" y=\"%zu\">", MARGIN + INDENT,
			text_y(d->track_ys[i]));
		put_text(d, name, SIZE_MAX);
		fputs("</text>\n", d->out);
		free(name);
	}
}

static void draw_span(const struct drawing *d, const struct span *span,
		      size_t row_y)
{
	const struct track *track = &d->r->tracks[span->track];
	const char *color = colors[span->track % NUM_COLORS];
	double x = x_of(d, span->begin_ns);
	double width = x_of(d, span->end_ns) - x;
	char *took = human_time(span->took_ns);
	char *name = track_name(track);
	size_t room = width > PAD ? (width - PAD) / CHARACTER : 0;
	size_t y = bar_y(row_y);

	/* Even the shortest one must be visible */
	fprintf(d->out, "<rect class=\"%s\" x=\"%.2f\" y=\"%zu\" width=\"%.2f\" height=\"%d\" fill=\"%s\" stroke=\"%s\"><title>",
		span->held ? "hold" : "wait", x, y, width < 0.5 ? 0.5 : width,
		BAR, color, span->held ? "none" : color);
	put_text(d, d->r->locks[track->lock].name, SIZE_MAX);
	fputs(": ", d->out);
	put_text(d, name, SIZE_MAX);
	if (*span->job) {
		fputs(", ", d->out);
		put_text(d, span->job, SIZE_MAX);
	}
	fprintf(d->out, ": %s %s, %s</title></rect>\n",
		span->held ? "held" : "waited", took, span->end);
	if (room >= 3) {
		/* Cuts off what is wider than an average text */
		fprintf(d->out, "<svg x=\"%.2f\" y=\"%zu\" width=\"%.2f\" height=\"%d\"><text x=\"%d\" y=\"%d\">",
			x, y, width, BAR, PAD, BASE);
		put_text(d, span_name(d->r, span), room - 1);
		fputs("</text></svg>\n", d->out);
	}
	free(name);
	free(took);
}

/* An arrow from the end of a bar to the beginning of the next holder's */
static void draw_pass(const struct drawing *d, const struct span *to)
{
	size_t from_y = d->track_ys[d->r->spans[to->from].track];
	size_t to_y = d->track_ys[to->track];

	if (from_y != to_y)
		fprintf(d->out, "<path class=\"pass\" d=\"M%.2f %dV%zu\"/>\n",
			x_of(d, to->begin_ns), (int)from_y + ROW / 2,
			bar_y(to_y) + (from_y < to_y ? 0 : BAR));
}

static void draw_mark(const struct drawing *d, const struct mark *mark)
{
	size_t y = mark->track == NONE ? d->lock_ys[mark->lock] :
		d->track_ys[mark->track];
	double x = x_of(d, mark->time_ns);
	bool bad = is_loss(mark->kind) || !strcmp(mark->kind, "timed-out") ||
		mark->lost;

	if (bad)
		fprintf(d->out, "<path class=\"bad\" d=\"M%.2f %zul8 8m0 -8l-8 8\"><title>",
			x - 4, y + ROW / 2 - 4);
	else
		fprintf(d->out, "<path class=\"event\" d=\"M%.2f %zuv%d\"><title>",
			x, y, ROW);
	if (mark->lost)
		fprintf(d->out, "%" PRIu64 " events lost", mark->lost);
	else
		put_text(d, mark->kind, SIZE_MAX);
	if (*mark->job) {
		fputs(": ", d->out);
		put_text(d, mark->job, SIZE_MAX);
	}
	fputs("</title></path>\n", d->out);
}

void write_svg(const struct recording *r, FILE *out)
{
	struct drawing d = { .r = r, .out = out };
	size_t width, height, i;

	find_times(&d);
	find_rows(&d);
	/* The last time at the top may be wider than the margin */
	width = MARGIN + d.labels + CHART + 3 * MARGIN;
	height = d.bottom + MARGIN;
	fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%zu\" height=\"%zu\" viewBox=\"0 0 %zu %zu\">\n",
		width, height, width, height);
	fputs(head, out);
	draw_head(&d);
	draw_labels(&d);
	for (i = 0; i < r->num_spans; i++) {
		const struct span *span = &r->spans[i];

		if (span->held)
			draw_span(&d, span,
				  d.lock_ys[r->tracks[span->track].lock]);
		draw_span(&d, span, d.track_ys[span->track]);
	}
	for (i = 0; i < r->num_spans; i++)
		if (r->spans[i].from != NONE)
			draw_pass(&d, &r->spans[i]);
	for (i = 0; i < r->num_marks; i++)
		draw_mark(&d, &r->marks[i]);
	fputs("</svg>\n", out);
	free(d.track_ys);
	free(d.lock_ys);
}
