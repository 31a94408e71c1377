/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Declarations that the parts of tlock status and tlock list share */
#ifndef TLOCK_STATUS_H
#define TLOCK_STATUS_H

#include <stdio.h>
#include <sys/types.h>
#include <time.h>

#include "command.h"

enum column {
	COL_LOCK,
	COL_PATH,
	COL_STATE,
	COL_JOB,
	COL_PID,
	COL_OPEN_IN,
	COL_USER,
	COL_UID,
	COL_COMMAND,
	COL_HOST,
	COL_HELD,
	COL_SINCE,
	COL_EXPIRES,
	COL_TOKEN,
	COL_GATE,
	COL_WAITERS,
	COL_QUEUE,
	COL_ACQUIRED,
	COL_CONTENDED,
	COL_TIMED_OUT,
	COL_INTERRUPTED,
	COL_ABANDONED,
	COL_REVOKED,
	COL_YIELDED,
	COL_WAIT_TOTAL,
	COL_WAIT_MAX,
	COL_HOLD_TOTAL,
	COL_HOLD_MAX,
	NUM_COLS,
	/* Only in the table of those who wait */
	COL_WAITING = NUM_COLS,
	COL_TIMEOUT,
	/* Only in the table of the hosts that share a lock */
	COL_QUEUED,
	ALL_COLS
};

/* The state of a lock's holder: all but STATE_FREE mean that it is held */
enum holder_state {
	STATE_FREE,
	STATE_HELD,
	STATE_GRANTED,	/* its process has not fetched the grant yet */
	STATE_REVOKING,	/* it has a grace */
	STATE_EXPIRED,	/* its lease or grace has ended */
	STATE_STOPPED,	/* by a signal */
	STATE_TRACED,	/* stopped by a debugger */
	STATE_FROZEN,	/* with its control group */
	STATE_DUMPING,	/* writes a core dump; its files close after that */
	STATE_ENDED,	/* but another process has its file */
	STATE_UNSEEN,	/* ended, or in another pid namespace */
	STATE_REMOTE,	/* on another host */
	STATE_SHUT,	/* not known: the gate is shut */
};

/* How to show locks */
struct view {
	bool json;
	bool raw;
	bool noheadings;
	unsigned int width;	/* of the terminal; 0: not on a terminal */
	size_t num;
	enum column shown[2 * NUM_COLS];
};

/* Processes, in the order of their pids */
struct pids {
	pid_t *pid;
	size_t num;
};

/* The state of one lock, to be shown as a row */
struct row {
	char *path;
	dev_t device;
	struct tlock_status status;
	char host[TLOCK_HOST_SIZE];	/* of a remote holder; or empty */
	uint64_t held_ns;
	int64_t left_ns;	/* until the lease or grace ends; if expires() */
	time_t since;		/* when it was granted, on the wall clock */
	enum holder_state state;
	struct pids open_in;	/* have the holder's file; if ENDED or UNSEEN */
	struct tlock_waiter *queue;	/* the longest waiter first */
	size_t queue_length;
};

/* holder.c */

/* Fills in the state and open_in of @num rows from /proc. */
void look_at_holders(struct row *rows, size_t num);

/* The word for the column STATE */
const char *state_name(enum holder_state state);

/* Prints a sentence on each holder that may need attention. */
void print_notes(const struct row *rows, size_t num, FILE *out);

/* table.c */

/*
 * The number to show in a column that has numbers or times, of which times are
 * in nanoseconds; for COL_STATE, whether the lock is held.
 */
uint64_t number_of(const struct row *row, enum column col);

/* Finds a column by its name, ignoring case; NUM_COLS if there is none. */
enum column find_column(const char *name);

/* Prints the list of columns, for --help. */
void print_columns(void);

/*
 * Prints @num lines of a table with the columns of @view, not wider than the
 * terminal. Frees the cells, which may be NULL, but not the array.
 */
void print_cells(const struct view *view, char **cells, size_t num, FILE *out);

/* Prints @rows as @view says. */
void print_rows(const struct view *view, const struct row *rows, size_t num,
		FILE *out);

/*
 * Prints a text that differs if @rows have changed. A longer time held counts
 * as a change only if @clock is set.
 */
void print_key(const struct view *view, const struct row *rows, size_t num,
	       bool clock, FILE *out);

/* queue.c */

/* Reads who waits: @all, or as many as print_queues() shows. */
void read_queue(struct row *row, const struct tlock *t, bool all);

/* Prints the cell of COL_QUEUE: pids, or in JSON an array with an object each. */
void print_queue(const struct view *view, const struct row *row, FILE *out);

/* Prints a text that differs if the queue has changed; see print_key(). */
void print_queue_key(const struct row *row, bool clock, FILE *out);

/* Prints a table of those who wait, for people; nothing if nobody does. */
void print_queues(const struct view *view, const struct row *rows, size_t num,
		  FILE *out);

/* cluster.c: locks that several hosts share, as tlockd knows them */

/* A host that queues for a lock; the first one has it */
struct cluster_host {
	const char *host;
	uint64_t since;		/* when it asked for it: seconds since 1970 */
	uint64_t waiters;
	uint64_t token;		/* of the grant there; 0: nobody holds it */
	uint64_t held_since;	/* seconds since 1970, with a token */
	const char *comm;	/* empty without a token, like job */
	const char *job;
};

struct cluster_lock {
	const char *name;	/* without "tlock-" */
	const char *gate;	/* of this host, as gate_name() */
	uint64_t openings;	/* how often it came to this host */
	uint64_t lost;		/* how often this host lost it by force */
	struct cluster_host *queue;
	size_t num;
};

struct cluster {
	char *text;		/* that all the strings are in */
	const char *version;
	const char *host;	/* this one */
	const char *endpoint;	/* the member of etcd in use */
	uint64_t lease_ms;	/* for how long it is proven */
	uint64_t requests;	/* to etcd */
	uint64_t failures;	/* of these */
	struct cluster_lock *locks;
	size_t num;
};

/*
 * read_cluster - ask the tlockd of this host
 *
 * Return: 0 or an errno: ENOENT or ECONNREFUSED if none runs, EAGAIN if it does
 * not answer in time, EPROTO if the answer is malformed. Needs free_cluster() in
 * either case.
 */
int read_cluster(struct cluster *cluster);
void free_cluster(struct cluster *cluster);

/* The lock of this device, such as "tlock-psu"; NULL if tlockd serves none */
const struct cluster_lock *find_in_cluster(const struct cluster *cluster,
					   const char *device);

/*
 * show_cluster - print the hosts that queue for locks
 * @names: of locks; none: all
 *
 * Return: exit status
 */
int show_cluster(const struct view *view, char **names);

/* metrics.c */

/* Prints @rows in the text format of OpenMetrics, each lock once. */
void print_metrics(const struct row *rows, size_t num, FILE *out);

/* width.c: text as libsmartcols prints it, with \xHH for unprintable bytes */

/* How many columns of the terminal @text takes */
size_t text_width(const char *text);

/*
 * Shortens *@text, which was allocated, to @width columns, at least 3. A text
 * that is cut ends in an ellipsis.
 */
void cut_text(char **text, size_t width);

#endif /* TLOCK_STATUS_H */
