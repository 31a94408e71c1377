// SPDX-License-Identifier: LGPL-2.1-or-later
/* tlock monitor: an event as a line for people, or in JSON */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "monitor.h"

/* When a time on CLOCK_MONOTONIC was, on the wall clock, in nanoseconds */
static int64_t wall_clock(int64_t time_ns)
{
	return time_ns + now_ns(CLOCK_REALTIME) - now_ns(CLOCK_MONOTONIC);
}

/* Prints text as a JSON string. */
static void print_string(const char *text)
{
	char *safe = escaped(text);
	const char *c;

	putchar('"');
	for (c = safe; *c; c++) {
		if (*c == '"' || *c == '\\')
			putchar('\\');
		putchar(*c);
	}
	putchar('"');
	free(safe);
}

static void print_json(const struct happening *h, const char *when,
		       const char *zone)
{
	const struct tlock_event *e = h->event;
	char *user = user_name(e->uid);

	printf("{\"time\":\"%s%.3s:%s\",\"monotonic\":%" PRId64 ".%09" PRId64
	       ",\"lock\":", when, zone, zone + 3, (int64_t)e->time_ns / NS_PER_S,
	       (int64_t)e->time_ns % NS_PER_S);
	print_string(h->lock);
	printf(",\"event\":\"%s\",\"job\":", h->kind);
	print_string(e->job);
	printf(",\"pid\":%d,\"uid\":%" PRIu32 ",\"user\":", e->pid, e->uid);
	print_string(user);
	fputs(",\"command\":", stdout);
	print_string(e->comm);
	printf(",\"token\":%" PRIu64 ",\"ticket\":%" PRIu64 ",\"lost\":%" PRIu64
	       "}\n", (uint64_t)e->token, (uint64_t)e->ticket, h->lost);
	free(user);
}

void print_event(const struct output *out, const struct happening *h)
{
	const struct tlock_event *e = h->event;
	int64_t wall_ns = wall_clock(e->time_ns);
	time_t seconds = wall_ns / NS_PER_S;
	char when[40], zone[8];
	char *job, *comm, *user;
	struct tm tm;

	localtime_r(&seconds, &tm);
	if (out->json) {
		size_t length = strftime(when, sizeof(when),
					 "%Y-%m-%dT%H:%M:%S", &tm);

		snprintf(when + length, sizeof(when) - length, ".%06" PRId64,
			 wall_ns % NS_PER_S / 1000);
		strftime(zone, sizeof(zone), "%z", &tm);
		print_json(h, when, zone);
		return;
	}
	strftime(when, sizeof(when), "%H:%M:%S", &tm);
	if (h->lost)
		printf("%s: %" PRIu64 " events were lost\n", h->lock, h->lost);
	printf("%s.%03" PRId64 " %-12s %-11s", when, wall_ns % NS_PER_S / 1000000,
	       h->lock, h->kind);
	if (*e->comm || e->pid) {
		job = escaped(e->job);
		comm = escaped(e->comm);
		user = user_name(e->uid);
		printf(" %-20s %d %s %s", *job ? job : "-", e->pid, user, comm);
		free(user);
		free(comm);
		free(job);
	}
	putchar('\n');
}
