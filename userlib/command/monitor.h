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
	const char *kind;	/* tlock_event_name(), "held", "remote", "created" or "lost" */
	int64_t time_ns;	/* on CLOCK_MONOTONIC */
	int64_t waited_ns;	/* until then; -1 if unknown, or not at all */
	int64_t held_ns;	/* the same */
	const char *cause;	/* of a revocation: "lease", "operator" or "gate"; or NULL */
	uint64_t lost;		/* events that were lost just before */
	uint64_t token;		/* of the grant; 0: about none */
	uint64_t ticket;	/* of the request; 0: it never waited */
	bool has_process;	/* the rest is known */
	int pid;		/* 0: cannot be seen from here */
	uint32_t uid;
	const char *comm;
	const char *job;
	const char *host;	/* of a remote holder, whose pid and uid are unknown */
};

/* event.c */

/* Whether a holder lost the lock that has not released it */
bool is_loss(const char *kind);

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
 * Prints an event as a line on standard output.
 *
 * wall_ns: when it happened, on CLOCK_REALTIME
 */
void print_line(struct lines *lines, const struct happening *h,
		int64_t wall_ns);

/* The same in JSON */
void print_object(const struct happening *h, int64_t wall_ns);

/* ticket.c */

/* The structure in @tree that begins with this ticket, or NULL */
void *find_ticket(void *tree, uint64_t ticket);

/* Adds a structure of @size bytes, which are 0 but for the ticket. */
void *add_ticket(void **tree, uint64_t ticket, size_t size);

/* Takes a structure out of the tree, and frees it. */
void drop_ticket(void **tree, void *entry);

/* record.c: what happened, to be drawn when all is over */

#define NONE	SIZE_MAX	/* no index */

/* A row for a process and a lock, or one more if it waits for it twice */
struct track {
	size_t lock;		/* index */
	int pid;
	char comm[TLOCK_COMM_SIZE];
	unsigned int number;	/* of the rows with the same name, from 0 */
	bool busy;
	uint64_t ticket;	/* of the request that is not decided; or 0 */
	size_t next;		/* of these rows, or NONE */
};

/* A time for which a contender waited or held the lock */
struct span {
	size_t track;
	bool held;		/* otherwise it waited */
	int64_t begin_ns;
	int64_t end_ns;
	int64_t took_ns;	/* longer, if it began before the recording */
	const char *job;
	const char *end;	/* how it ended; NULL while it goes on */
	uint64_t token;
	uint64_t ticket;
	size_t from;		/* the span that this grant was passed on from */
};

/* A moment on the row of a contender, or of the lock */
struct mark {
	size_t lock;
	size_t track;		/* or NONE */
	int64_t time_ns;
	const char *kind;
	const char *job;
	uint64_t lost;
};

struct recorded_lock {
	char *name;
	void *requests;		/* tree of those that wait */
	size_t hold;		/* the present grant's span, or NONE */
	size_t before;		/* the span of the grant before; NONE after a gap */
};

struct recording {
	int64_t start_ns;
	int64_t wall_clock_ns;	/* see wall_clock_ns() */
	struct recorded_lock *locks;
	size_t num_locks;
	struct track *tracks;
	size_t num_tracks;
	struct span *spans;
	size_t num_spans;
	struct mark *marks;
	size_t num_marks;
	void *jobs;		/* tree of strings */
	void *names;		/* tree of the first tracks of each name */
};

void begin_recording(struct recording *r);
void record(struct recording *r, const struct happening *h);

/* Ends all that goes on. */
void end_recording(struct recording *r);

void free_recording(struct recording *r);

/* What to call the row, in any bytes; the caller must free it */
char *track_name(const struct track *track);

/* What to call the span: the job, or the command if it is not given */
const char *span_name(const struct recording *r, const struct span *span);

/* timeline.c: Trace Event Format, for Perfetto and chrome://tracing */
void write_timeline(const struct recording *r, FILE *out);

/* svg.c */
void write_svg(const struct recording *r, FILE *out);

/* The program's name in the journal */
#define IDENTIFIER	"tlock-monitor"

/* journal.c */

/* Opens the journal, or exits with a message. */
void open_journal(void);

/* Logs an event there. Returns 0 or an errno. */
int log_event(const struct happening *h);

#endif /* TLOCK_MONITOR_H */
