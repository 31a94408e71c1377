// SPDX-License-Identifier: LGPL-2.1-or-later
/* tlock monitor and tlock log: an event as a line for people, or in JSON */
#define _GNU_SOURCE
#include <inttypes.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "monitor.h"
#include "status.h"

/* The widest columns on a terminal of fewer than WIDE columns */
#define WIDE		100
#define MAX_LOCK	16
#define MAX_COMM	12

/* What is left for the job, at least */
#define MIN_JOB		8

bool is_loss(const char *kind)
{
	return !strcmp(kind, "abandoned") || !strcmp(kind, "revoked");
}

void begin_lines(struct lines *lines, bool dates)
{
	struct winsize size = { 0 };

	lines->dates = dates;
	lines->lock_width = strlen("tlock");
	lines->comm_width = strlen("COMMAND");
	if (!isatty(STDOUT_FILENO))
		return;
	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	/* Serial terminals don't know their size */
	lines->width = size.ws_col ? size.ws_col : 80;
}

/* Prints text in a column that is as wide as the widest text in it so far. */
static void put_column(const char *text, size_t *width)
{
	size_t own = text_width(text);

	if (own > *width)
		*width = own;
	printf("%s%*s ", text, (int)(*width - own), "");
}

/*
 * A name of up to @max columns. Names of serial adapters often differ only at
 * their ends.
 */
static char *end_of_name(const char *name, size_t max)
{
	const char *mark = strcmp(nl_langinfo(CODESET), "UTF-8") ? "..." : "…";
	size_t length = strlen(name);
	char *end;

	if (length <= max)
		return checked(strdup(name));
	if (asprintf(&end, "%s%s", mark,
		     name + length - (max - text_width(mark))) < 0)
		end = NULL;
	return checked(end);
}

static size_t time_width(const struct lines *lines)
{
	return strlen(lines->dates ? "Nov 26 14:02:17" : "14:02:17.123");
}

static void put_headings(const struct lines *lines)
{
	printf("%-*s %-*s %-11s %7s %7s %-*s JOB\n", (int)time_width(lines),
	       "TIME", (int)lines->lock_width, "LOCK", "EVENT", "AFTER", "PID",
	       (int)lines->comm_width, "COMMAND");
}

static void put_time(const struct lines *lines, int64_t wall_ns)
{
	time_t seconds = wall_ns / NS_PER_S;
	char when[40];
	struct tm tm;

	localtime_r(&seconds, &tm);
	if (lines->dates) {
		strftime(when, sizeof(when), "%b %e %H:%M:%S", &tm);
		printf("%s ", when);
	} else {
		strftime(when, sizeof(when), "%H:%M:%S", &tm);
		printf("%s.%03d ", when, (int)(wall_ns % NS_PER_S / 1000000));
	}
}

/* The command, and its host if that is another; the caller must free it */
static char *command_of(const struct happening *h)
{
	char *comm = escaped(h->comm), *host = escaped(h->host);
	char *both = NULL;

	if (*host && asprintf(&both, "%s%son %s", comm, *comm ? " " : "",
			      host) < 0)
		checked(NULL);
	free(host);
	if (!both)
		return comm;
	free(comm);
	return both;
}

void print_line(struct lines *lines, const struct happening *h,
		int64_t wall_ns)
{
	bool narrow = lines->width && lines->width < WIDE;
	int64_t span = h->held_ns >= 0 ? h->held_ns : h->waited_ns;
	char *lock = end_of_name(h->lock, narrow ? MAX_LOCK : SIZE_MAX);
	char *after = span >= 0 ? human_time(span) : NULL;
	char *comm, *job;
	size_t used;

	if (text_width(lock) > lines->lock_width)
		lines->lock_width = text_width(lock);
	/* Only people read headings */
	if (lines->width && !lines->begun)
		put_headings(lines);
	lines->begun = true;

	put_time(lines, wall_ns);
	put_column(lock, &lines->lock_width);
	if (h->lost) {
		printf("lost        %" PRIu64 " events\n", h->lost);
	} else if (!h->has_process) {
		puts(h->kind);
	} else {
		comm = command_of(h);
		job = escaped(h->job);
		if (narrow)
			cut_text(&comm, MAX_COMM);
		printf("%-11s %7s ", h->kind, after ? after : "");
		if (h->pid)
			printf("%7d ", h->pid);
		else
			printf("%7s ", "");
		if (*job) {
			put_column(comm, &lines->comm_width);
			used = time_width(lines) + lines->lock_width +
				lines->comm_width + 11 + 7 + 7 + 6;
			if (lines->width)
				cut_text(&job, lines->width > used + MIN_JOB ?
					 lines->width - used : MIN_JOB);
			puts(job);
		} else {
			puts(comm);
		}
		free(job);
		free(comm);
	}
	free(after);
	free(lock);
}

/* Prints a member of an object: a time span, or null if it is unknown. */
static void put_span(const char *name, int64_t ns)
{
	printf(",\"%s\":", name);
	if (ns < 0)
		fputs("null", stdout);
	else
		print_seconds(ns, stdout);
}

/* A number, or null if it is 0 */
static void put_number(const char *name, uint64_t number)
{
	printf(",\"%s\":", name);
	if (number)
		printf("%" PRIu64, number);
	else
		fputs("null", stdout);
}

void print_object(const struct happening *h, int64_t wall_ns)
{
	char fraction[16];
	char *when, *user;

	snprintf(fraction, sizeof(fraction), ".%06d",
		 (int)(wall_ns % NS_PER_S / 1000));
	when = iso_time(wall_ns / NS_PER_S, fraction);
	printf("{\"time\":\"%s\",\"monotonic\":", when);
	free(when);
	print_seconds(h->time_ns, stdout);
	print_json_member("lock", h->lock, stdout);
	print_json_member("event", h->kind, stdout);
	print_json_member("job", h->job, stdout);
	put_number("pid", h->pid);
	if (h->has_process && !*h->host) {
		user = user_name(h->uid);
		printf(",\"uid\":%" PRIu32 ",\"user\":", h->uid);
		print_json_text(user, stdout);
		free(user);
	} else {
		fputs(",\"uid\":null,\"user\":null", stdout);
	}
	print_json_member("command", h->comm, stdout);
	print_json_member("host", h->host, stdout);
	put_number("token", h->token);
	put_number("ticket", h->ticket);
	put_span("waited", h->waited_ns);
	put_span("held", h->held_ns);
	print_json_member("cause", h->cause ? h->cause : "", stdout);
	printf(",\"lost\":%" PRIu64 "}\n", h->lost);
}
