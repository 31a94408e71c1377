/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Declarations that the parts of tlock monitor and tlock log share */
#ifndef TLOCK_MONITOR_H
#define TLOCK_MONITOR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "command.h"

/* An event, and where it happened */
struct happening {
	const char *lock;	/* name of the device */
	const char *kind;	/* tlock_event_name(), "held", "created" or "lost" */
	int64_t time_ns;	/* on CLOCK_MONOTONIC */
	int64_t waited_ns;	/* until then; -1 if unknown, or not at all */
	int64_t held_ns;	/* the same */
	uint64_t lost;		/* events that were lost just before */
	uint64_t token;		/* of the grant; 0: about none */
	uint64_t ticket;	/* of the request; 0: it never waited */
	bool has_process;	/* the rest is known */
	int pid;		/* 0: cannot be seen from here */
	uint32_t uid;
	const char *comm;
	const char *job;
};

/* event.c */

/* How to print events for people */
struct lines {
	bool dates;		/* not only the time of day */
	unsigned int width;	/* of the terminal; 0: not on a terminal */
	size_t lock_width;	/* of the columns, so far */
	size_t comm_width;
	bool begun;		/* the headings were printed */
};

/* Prepares @lines for standard output. */
void begin_lines(struct lines *lines, bool dates);

/*
 * Prints an event on standard output as a line, which was at @wall_ns on
 * CLOCK_REALTIME.
 */
void print_line(struct lines *lines, const struct happening *h,
		int64_t wall_ns);

/* The same in JSON */
void print_object(const struct happening *h, int64_t wall_ns);

/* The program's name in the journal */
#define IDENTIFIER	"tlock-monitor"

/* journal.c */

/* Opens the journal, or exits with a message. */
void open_journal(void);

/* Logs an event there. Returns 0 or an errno. */
int log_event(const struct happening *h);

#endif /* TLOCK_MONITOR_H */
