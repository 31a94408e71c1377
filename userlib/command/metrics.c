// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The tlock command: locks in the text format of OpenMetrics 1.0. Readers of
 * Prometheus's older format take UNIT and EOF for comments. They take the
 * counters for untyped samples, as they expect the "_total" in the declaration.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

enum value {
	HELD,
	HELD_NS,
	WAITERS,
	ACQUIRED,
	CONTENDED,
	TIMED_OUT,
	INTERRUPTED,
	ABANDONED,
	YIELDED,
	WAIT_NS_TOTAL,
	WAIT_NS_MAX,
	HOLD_NS_TOTAL,
	HOLD_NS_MAX,
	NUM_VALUES
};

static const struct {
	const char *name;
	bool counter;
	bool seconds;
	bool job;	/* has the label "job", beside "lock" */
	const char *help;
} families[NUM_VALUES] = {
	[HELD] = { "tlock_held", false, false, true,
		   "Whether the lock is held." },
	[HELD_NS] = { "tlock_held_seconds", false, true, true,
		      "For how long the holder has held the lock." },
	[WAITERS] = { "tlock_waiters", false, false, false,
		      "Contenders that wait for the lock." },
	[ACQUIRED] = { "tlock_acquired", true, false, false, "Grants." },
	[CONTENDED] = { "tlock_contended", true, false, false,
			"Acquires that found the lock held." },
	[TIMED_OUT] = { "tlock_timed_out", true, false, false,
			"Acquires and reacquires that timed out." },
	[INTERRUPTED] = { "tlock_interrupted", true, false, false,
			  "Acquires and reacquires whose wait was interrupted." },
	[ABANDONED] = { "tlock_abandoned", true, false, false,
			"Holders that ended without a release." },
	[YIELDED] = { "tlock_yielded", true, false, false,
		      "Reacquires that let a waiter in." },
	[WAIT_NS_TOTAL] = { "tlock_wait_seconds", true, true, false,
			    "Time that contenders spent waiting." },
	[WAIT_NS_MAX] = { "tlock_wait_max_seconds", false, true, false,
			  "The longest wait." },
	[HOLD_NS_TOTAL] = { "tlock_hold_seconds", true, true, false,
			    "Time that the lock was held." },
	[HOLD_NS_MAX] = { "tlock_hold_max_seconds", false, true, false,
			  "The longest time that the lock was held." },
};

static uint64_t value_of(const struct row *row, enum value value)
{
	const struct tlock_status *s = &row->status;

	switch (value) {
	case HELD:
		return !!s->holder.token;
	case HELD_NS:
		return row->held_ns;
	case WAITERS:
		return s->waiters;
	case ACQUIRED:
		return s->acquired;
	case CONTENDED:
		return s->contended;
	case TIMED_OUT:
		return s->timed_out;
	case INTERRUPTED:
		return s->interrupted;
	case ABANDONED:
		return s->abandoned;
	case YIELDED:
		return s->yielded;
	case WAIT_NS_TOTAL:
		return s->wait_ns_total;
	case WAIT_NS_MAX:
		return s->wait_ns_max;
	case HOLD_NS_TOTAL:
		return s->hold_ns_total;
	default:
		return s->hold_ns_max;
	}
}

/* Prints text as a label's value, without its quotes. */
static void print_label(const char *text, FILE *out)
{
	/* One byte that is not UTF-8 would cost the reader the whole file */
	char *safe = escaped(text);
	const char *c;

	/* A newline would need a backslash, too, but there is none */
	for (c = safe; *c; c++) {
		if (*c == '\\' || *c == '"')
			putc('\\', out);
		putc(*c, out);
	}
	free(safe);
}

/* A lock that is named twice, even by different paths, is printed once. */
static bool came_before(const struct row *rows, size_t i)
{
	size_t j;

	for (j = 0; j < i; j++)
		if (!strcmp(rows[j].status.name, rows[i].status.name))
			return true;
	return false;
}

void print_metrics(const struct row *rows, size_t num, FILE *out)
{
	enum value v;
	size_t i;

	for (v = 0; v < NUM_VALUES; v++) {
		const char *name = families[v].name;

		fprintf(out, "# TYPE %s %s\n", name,
			families[v].counter ? "counter" : "gauge");
		if (families[v].seconds)
			fprintf(out, "# UNIT %s seconds\n", name);
		fprintf(out, "# HELP %s %s\n", name, families[v].help);
		for (i = 0; i < num; i++) {
			uint64_t value = value_of(&rows[i], v);

			if (came_before(rows, i))
				continue;
			fprintf(out, "%s%s{lock=\"", name,
				families[v].counter ? "_total" : "");
			print_label(rows[i].status.name, out);
			if (families[v].job) {
				fputs("\",job=\"", out);
				print_label(rows[i].status.holder.job, out);
			}
			fputs("\"} ", out);
			if (families[v].seconds)
				fprintf(out, "%" PRIu64 ".%09" PRIu64 "\n",
					value / 1000000000, value % 1000000000);
			else
				fprintf(out, "%" PRIu64 "\n", value);
		}
	}
	fputs("# EOF\n", out);
}
