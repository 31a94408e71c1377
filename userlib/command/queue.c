// SPDX-License-Identifier: LGPL-2.1-or-later
/* tlock status and tlock monitor: who waits for a lock */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

/* How many waiters of each lock a table for people shows */
#define MAX_SHOWN	10

/* A table for people, with the columns of print_queues() */
static const enum column queue_columns[] = {
	COL_LOCK, COL_JOB, COL_PID, COL_USER, COL_COMMAND, COL_WAITING,
	COL_TIMEOUT,
};

#define NUM_QUEUE_COLUMNS (sizeof(queue_columns) / sizeof(*queue_columns))

struct tlock_waiter *read_waiters(const struct tlock *t, size_t max,
				  size_t *num)
{
	struct tlock_waiter waiter = { 0 }, *waiters = NULL;
	size_t room = 0;

	for (*num = 0; *num < max && !tlock_waiter(t, &waiter); (*num)++) {
		if (*num == room) {
			room = room ? 2 * room : MAX_SHOWN;
			waiters = checked(reallocarray(waiters, room,
						       sizeof(waiter)));
		}
		waiters[*num] = waiter;
	}
	return waiters;
}

void read_queue(struct row *row, const struct tlock *t, bool all)
{
	row->queue = read_waiters(t, all ? SIZE_MAX : MAX_SHOWN,
				  &row->queue_length);
}

static void print_waiter(const struct tlock_waiter *waiter, FILE *out)
{
	char *user = user_name(waiter->uid);

	fprintf(out, "{\"ticket\":%" PRIu64 ",\"job\":",
		(uint64_t)waiter->ticket);
	print_json_text(waiter->job, out);
	fputs(",\"pid\":", out);
	if (waiter->pid)
		fprintf(out, "%d", waiter->pid);
	else
		fputs("null", out);
	fprintf(out, ",\"uid\":%" PRIu32 ",\"user\":", waiter->uid);
	print_json_text(user, out);
	print_json_member("command", waiter->comm, out);
	fputs(",\"waiting\":", out);
	print_seconds(ns_since(waiter->since_ns), out);
	fputs(",\"timeout\":", out);
	if (waiter->timeout_ns < 0)
		fputs("null", out);
	else
		print_seconds(waiter->timeout_ns, out);
	putc('}', out);
	free(user);
}

void print_queue(const struct view *view, const struct row *row, FILE *out)
{
	size_t i;

	if (view->json)
		putc('[', out);
	for (i = 0; i < row->queue_length; i++) {
		if (i)
			putc(',', out);
		if (view->json)
			print_waiter(&row->queue[i], out);
		else if (row->queue[i].pid)
			fprintf(out, "%d", row->queue[i].pid);
		else
			putc('?', out);
	}
	if (view->json)
		putc(']', out);
}

void print_queue_key(const struct row *row, bool clock, FILE *out)
{
	size_t i;

	/* The same ticket means that all else is the same, but for the time */
	for (i = 0; i < row->queue_length; i++) {
		char *waiting = human_time(ns_since(row->queue[i].since_ns));

		fprintf(out, "%" PRIu64 " %s\n", (uint64_t)row->queue[i].ticket,
			clock ? waiting : "");
		free(waiting);
	}
}

static char *copy(const char *text)
{
	return checked(strdup(text));
}

/* Writes the cells of a waiter. */
static void cells_of(const struct row *row, const struct tlock_waiter *waiter,
		     char *cells[NUM_QUEUE_COLUMNS])
{
	char pid[16] = "";

	if (waiter->pid)
		snprintf(pid, sizeof(pid), "%d", waiter->pid);
	cells[0] = copy(basename(row->path));
	cells[1] = copy(waiter->job);
	cells[2] = copy(pid);
	cells[3] = user_name(waiter->uid);
	cells[4] = copy(waiter->comm);
	cells[5] = human_time(ns_since(waiter->since_ns));
	cells[6] = waiter->timeout_ns < 0 ? copy("never") :
		human_time(waiter->timeout_ns);
}

void print_queues(const struct view *view, const struct row *rows, size_t num,
		  FILE *out)
{
	struct view queue_view = { .width = view->width };
	char **cells = NULL, **next;
	size_t r, i, lines = 0;

	for (i = 0; i < NUM_QUEUE_COLUMNS; i++)
		queue_view.shown[queue_view.num++] = queue_columns[i];
	for (r = 0; r < num; r++) {
		const struct row *row = &rows[r];
		size_t shown = row->queue_length < MAX_SHOWN ?
			row->queue_length : MAX_SHOWN;

		if (!shown)
			continue;
		cells = checked(reallocarray(cells, lines + shown + 1,
					     NUM_QUEUE_COLUMNS * sizeof(*cells)));
		next = cells + lines * NUM_QUEUE_COLUMNS;
		for (i = 0; i < shown; i++, next += NUM_QUEUE_COLUMNS)
			cells_of(row, &row->queue[i], next);
		lines += shown;
		/* The status is a moment older than the queue */
		if (shown < MAX_SHOWN || row->status.waiters <= shown)
			continue;
		memset(next, 0, NUM_QUEUE_COLUMNS * sizeof(*next));
		next[0] = copy(basename(row->path));
		if (asprintf(&next[1], "and %" PRIu64 " more",
			     (uint64_t)row->status.waiters - shown) < 0)
			checked(NULL);
		lines++;
	}
	if (lines)
		print_cells(&queue_view, cells, lines, out);
	free(cells);
}
