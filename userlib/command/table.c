// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The tlock command: prints locks as a table, as JSON or raw, or as one block
 * for each lock if a table has no room.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>

#include "status.h"

/* The least width to which text is cut to make room */
#define MIN_WIDTH	8

/* A name that is longer has a line of its own if the table needs room */
#define LONG_NAME	20

/* The kind of a column's values, which determines how they are written */
enum kind { TEXT, NUMBER, LIST, TIME };

static const struct {
	const char *name;
	enum kind kind;
	bool may_cut;
	const char *help;
} columns[ALL_COLS] = {
	[COL_LOCK] = { "LOCK", TEXT, false, "name of the lock's device" },
	[COL_PATH] = { "PATH", TEXT, false, "path of the lock's device" },
	[COL_STATE] = { "STATE", TEXT, false, "free, held, remote, stopped, ..." },
	[COL_JOB] = { "JOB", TEXT, true, "what the holder says that it is doing" },
	[COL_PID] = { "PID", NUMBER, false, "process of the holder" },
	[COL_OPEN_IN] = { "OPEN-IN", LIST, false,
			  "processes that have its file, if it ended" },
	[COL_USER] = { "USER", TEXT, true, "user of the holder" },
	[COL_UID] = { "UID", NUMBER, false, "user of the holder, as a number" },
	[COL_COMMAND] = { "COMMAND", TEXT, true, "command name of the holder" },
	[COL_HOST] = { "HOST", TEXT, true, "host of the holder, if it is another" },
	[COL_HELD] = { "HELD", TIME, false, "for how long it has held the lock" },
	[COL_SINCE] = { "SINCE", TEXT, false, "when that began, in local time" },
	[COL_EXPIRES] = { "EXPIRES", TIME, false,
			  "what is left of its lease or grace" },
	[COL_TOKEN] = { "TOKEN", NUMBER, false, "token of its grant" },
	[COL_GATE] = { "GATE", TEXT, false, "open, shut or unserved" },
	[COL_WAITERS] = { "WAITERS", NUMBER, false, "contenders that wait" },
	[COL_QUEUE] = { "QUEUE", LIST, false,
			"their processes; in JSON, all about each" },
	[COL_ACQUIRED] = { "ACQUIRED", NUMBER, false, "grants" },
	[COL_CONTENDED] = { "CONTENDED", NUMBER, false,
			    "acquires that found the lock held" },
	[COL_TIMED_OUT] = { "TIMED-OUT", NUMBER, false,
			    "acquires and reacquires that timed out" },
	[COL_INTERRUPTED] = { "INTERRUPTED", NUMBER, false,
			      "those whose wait was interrupted" },
	[COL_ABANDONED] = { "ABANDONED", NUMBER, false,
			    "holders that ended without a release" },
	[COL_REVOKED] = { "REVOKED", NUMBER, false,
			  "holders that lost the lock to a revocation" },
	[COL_YIELDED] = { "YIELDED", NUMBER, false,
			  "reacquires that let a waiter in" },
	[COL_WAIT_TOTAL] = { "WAIT-TOTAL", TIME, false, "time spent waiting" },
	[COL_WAIT_MAX] = { "WAIT-MAX", TIME, false, "the longest wait" },
	[COL_HOLD_TOTAL] = { "HOLD-TOTAL", TIME, false,
			     "time the lock was held" },
	[COL_HOLD_MAX] = { "HOLD-MAX", TIME, false, "the longest of these" },
	[COL_WAITING] = { "WAITING", TIME, false, NULL },
	[COL_TIMEOUT] = { "TIMEOUT", TIME, false, NULL },
	[COL_QUEUED] = { "QUEUED", TIME, false, NULL },
};

enum column find_column(const char *name)
{
	enum column col;

	for (col = 0; col < NUM_COLS; col++)
		if (!strcasecmp(name, columns[col].name))
			break;
	return col;
}

void print_columns(void)
{
	size_t i;

	for (i = 0; i < NUM_COLS; i++)
		printf(" %12s  %s\n", columns[i].name, columns[i].help);
}

uint64_t number_of(const struct row *row, enum column col)
{
	const struct tlock_status *s = &row->status;

	switch (col) {
	case COL_STATE:
		return !!s->holder.token;
	case COL_PID:
		return s->holder.pid;
	case COL_UID:
		return s->holder.uid;
	case COL_HELD:
		return row->held_ns;
	case COL_EXPIRES:
		return row->left_ns;
	case COL_TOKEN:
		return s->holder.token;
	case COL_WAITERS:
		return s->waiters;
	case COL_ACQUIRED:
		return s->acquired;
	case COL_CONTENDED:
		return s->contended;
	case COL_TIMED_OUT:
		return s->timed_out;
	case COL_INTERRUPTED:
		return s->interrupted;
	case COL_ABANDONED:
		return s->abandoned;
	case COL_REVOKED:
		return s->revoked;
	case COL_YIELDED:
		return s->yielded;
	case COL_WAIT_TOTAL:
		return s->wait_ns_total;
	case COL_WAIT_MAX:
		return s->wait_ns_max;
	case COL_HOLD_TOTAL:
		return s->hold_ns_total;
	default:
		return s->hold_ns_max;
	}
}

/* When @row was granted: as short as possible, or ISO 8601 for programs */
static char *since_of(const struct view *view, const struct row *row)
{
	time_t now = time(NULL);
	struct tm then, today;
	char text[32];

	if (view->json || view->raw)
		return iso_time(row->since, "");
	localtime_r(&row->since, &then);
	localtime_r(&now, &today);
	if (then.tm_year == today.tm_year && then.tm_yday == today.tm_yday)
		strftime(text, sizeof(text), "%H:%M:%S", &then);
	else if (then.tm_year == today.tm_year)
		strftime(text, sizeof(text), "%b %e %H:%M", &then);
	else
		strftime(text, sizeof(text), "%Y-%m-%d", &then);
	return strdup(text);
}

static char *text_of(const struct view *view, const struct row *row,
		     enum column col)
{
	const struct tlock_holder *holder = &row->status.holder;

	switch (col) {
	case COL_LOCK:
		return strdup(basename(row->path));
	case COL_PATH:
		return strdup(row->path);
	case COL_STATE:
		return strdup(state_name(row->state));
	case COL_JOB:
		return strdup(holder->job);
	case COL_USER:
		return user_name(holder->uid);
	case COL_HOST:
		return strdup(row->host);
	case COL_GATE:
		return strdup(gate_name(&row->status));
	case COL_SINCE:
		return since_of(view, row);
	default:
		return strdup(holder->comm);
	}
}

/* Whether a cell has no value, such as the holder of a free lock */
static bool is_unknown(const struct row *row, enum column col)
{
	const struct tlock_holder *holder = &row->status.holder;

	switch (col) {
	case COL_PID:
		return !holder->pid;
	case COL_OPEN_IN:
		return row->state != STATE_ENDED && row->state != STATE_UNSEEN;
	case COL_USER:
	case COL_UID:
		return !holder->token || is_remote(holder);
	case COL_HELD:
	case COL_SINCE:
	case COL_TOKEN:
		return !holder->token;
	case COL_HOST:
		return !*row->host;
	case COL_GATE:
		return !gate_name(&row->status);
	case COL_EXPIRES:
		return !expires(holder);
	default:
		return false;
	}
}

/* A list separated by commas; an array in JSON */
static char *list_of(const struct view *view, const struct row *row,
		     enum column col)
{
	char *text = NULL;
	size_t size, i;
	FILE *file = checked(open_memstream(&text, &size));

	if (col == COL_QUEUE) {
		print_queue(view, row, file);
	} else {
		if (view->json)
			putc('[', file);
		for (i = 0; i < row->open_in.num; i++)
			fprintf(file, "%s%d", i ? "," : "",
				row->open_in.pid[i]);
		if (view->json)
			putc(']', file);
	}
	if (fclose(file))
		checked(NULL);
	return text;
}

/* The text of a cell, which the caller must free; NULL if it is empty */
static char *cell_of(const struct view *view, const struct row *row,
		     enum column col)
{
	uint64_t number;
	char *text, *safe;

	if (is_unknown(row, col))
		return NULL;

	if (columns[col].kind == LIST)
		return list_of(view, row, col);
	if (columns[col].kind == TEXT) {
		text = checked(text_of(view, row, col));
		/* In the other formats, libsmartcols escapes it the same way */
		if (!view->json)
			return text;
		safe = escaped(text);
		free(text);
		return safe;
	}

	number = number_of(row, col);
	if (columns[col].kind == NUMBER) {
		if (asprintf(&text, "%" PRIu64, number) < 0)
			text = NULL;
	} else if (view->json || view->raw) {
		text = seconds_of(number);
	} else if (col == COL_EXPIRES && row->left_ns <= 0) {
		text = strdup("ended");
	} else {
		text = human_time(number);
	}
	return checked(text);
}

static void print_table(struct libscols_table *table, FILE *out)
{
	/* libsmartcols must not fold any line, even if it does not fit */
	scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
	scols_table_set_stream(table, out);
	if (scols_print_table(table))
		err(EX_OSERR, "cannot print");
	scols_unref_table(table);
}

/* Hands a cell over to the table. */
static void put_cell(struct libscols_line *line, size_t i, char *cell)
{
	if (cell && scols_line_refer_data(line, i, cell))
		checked(NULL);
}

static struct libscols_table *new_table(const struct view *view)
{
	struct libscols_table *table = checked(scols_new_table());
	size_t i;

	if (scols_table_set_name(table, "locks") ||
	    scols_table_enable_json(table, view->json) ||
	    scols_table_enable_raw(table, view->raw) ||
	    scols_table_enable_noheadings(table, view->noheadings))
		checked(NULL);

	for (i = 0; i < view->num; i++) {
		enum column col = view->shown[i];
		bool text = columns[col].kind == TEXT;
		struct libscols_column *column;
		char name[16];
		char *dash;

		/* JSON readers want member names that need no quotes */
		snprintf(name, sizeof(name), "%s", columns[col].name);
		dash = strchr(name, '-');
		if (view->json && dash)
			*dash = '_';
		column = checked(scols_table_new_column(table, name, 0,
				 text ? 0 : SCOLS_FL_RIGHT));
		if (scols_column_set_json_type(column, text ?
					       SCOLS_JSON_STRING :
					       SCOLS_JSON_NUMBER))
			checked(NULL);
	}
	return table;
}

static void print_blocks(const struct view *view, char **cells, size_t num,
			 FILE *out)
{
	size_t r, i;

	for (r = 0; r < num; r++) {
		struct libscols_table *table = checked(scols_new_table());

		scols_table_enable_noheadings(table, 1);
		checked(scols_table_new_column(table, "name", 0, 0));
		checked(scols_table_new_column(table, "value", 0, 0));
		for (i = 0; i < view->num; i++) {
			struct libscols_line *line =
				checked(scols_table_new_line(table, NULL));
			char *name;

			if (asprintf(&name, "%s:",
				     columns[view->shown[i]].name) < 0)
				name = NULL;
			put_cell(line, 0, checked(name));
			put_cell(line, 1, *cells++);
		}
		if (r)
			putc('\n', out);
		print_table(table, out);
	}
}

/*
 * Measures the width of the columns, and returns that of the table with a blank
 * between them.
 */
static size_t measure(const struct view *view, char **cells, size_t num,
		      size_t width[2 * NUM_COLS])
{
	size_t sum = view->num - 1;
	size_t i, r;

	for (i = 0; i < view->num; i++) {
		/* libsmartcols leaves room for headings that it does not print */
		width[i] = strlen(columns[view->shown[i]].name);
		for (r = 0; r < num; r++) {
			const char *cell = cells[r * view->num + i];
			size_t own = cell ? text_width(cell) : 0;

			if (own > width[i])
				width[i] = own;
		}
		sum += width[i];
	}
	return sum;
}

/*
 * Takes long names out of the first column, if that is LOCK, and the table is
 * too wide otherwise. They are not cut: names of serial adapters often differ
 * only in the middle. Returns the names, one for each row or NULL, which the
 * caller must free.
 */
static char **take_names(const struct view *view, char **cells, size_t num)
{
	char **names = checked(calloc(num + 1, sizeof(*names)));
	size_t width[2 * NUM_COLS];
	size_t r;

	if (view->shown[0] != COL_LOCK ||
	    measure(view, cells, num, width) <= view->width)
		return names;
	for (r = 0; r < num; r++) {
		char **cell = &cells[r * view->num];

		if (text_width(*cell) <= LONG_NAME)
			continue;
		names[r] = *cell;
		*cell = NULL;
	}
	return names;
}

/* Puts the names back. */
static void put_names(const struct view *view, char **cells, char **names,
		      size_t num)
{
	size_t r;

	for (r = 0; r < num; r++)
		if (names[r])
			cells[r * view->num] = names[r];
}

/*
 * Prints a table's text, and ahead of each row its name, if that was taken and
 * is another one than that of the row before.
 */
static void print_with_names(const struct view *view, char **names, size_t num,
			     char *table, FILE *out)
{
	size_t r;

	if (!view->noheadings)
		fprintf(out, "%s\n", strsep(&table, "\n"));
	for (r = 0; r < num; r++) {
		if (names[r] && (!r || !names[r - 1] ||
				 strcmp(names[r], names[r - 1])))
			fprintf(out, "%s\n", names[r]);
		fprintf(out, "%s\n", strsep(&table, "\n"));
	}
	for (r = 0; r < num; r++)
		free(names[r]);
}

/*
 * Cuts the cells that may be cut, the widest first, until the table fits.
 * Returns whether it fits.
 */
static bool fit(const struct view *view, char **cells, size_t num)
{
	size_t width[2 * NUM_COLS];
	size_t sum = measure(view, cells, num, width);
	size_t i, r;

	for (; sum > view->width; sum--) {
		size_t widest = view->num;

		for (i = 0; i < view->num; i++)
			if (columns[view->shown[i]].may_cut &&
			    width[i] > MIN_WIDTH &&
			    (widest == view->num || width[i] > width[widest]))
				widest = i;
		if (widest == view->num)
			return false;
		width[widest]--;
	}

	for (i = 0; i < view->num; i++)
		for (r = 0; r < num; r++)
			if (cells[r * view->num + i])
				cut_text(&cells[r * view->num + i], width[i]);
	return true;
}

static struct libscols_table *fill_table(const struct view *view, char **cells,
					 size_t num)
{
	struct libscols_table *table = new_table(view);
	size_t r, i;

	for (r = 0; r < num; r++) {
		struct libscols_line *line =
			checked(scols_table_new_line(table, NULL));

		for (i = 0; i < view->num; i++)
			put_cell(line, i, *cells++);
	}
	return table;
}

/* Prints a table that is no wider than the terminal, or blocks. */
static void print_limited(const struct view *view, char **cells, size_t num,
			  FILE *out)
{
	char **names = take_names(view, cells, num);
	char *text = NULL;
	size_t size;
	FILE *table;

	/* Blocks need the headings */
	if (!fit(view, cells, num) && !view->noheadings) {
		put_names(view, cells, names, num);
		print_blocks(view, cells, num, out);
	} else {
		table = checked(open_memstream(&text, &size));
		print_table(fill_table(view, cells, num), table);
		if (fclose(table))
			checked(NULL);
		print_with_names(view, names, num, text, out);
		free(text);
	}
	free(names);
}

void print_cells(const struct view *view, char **cells, size_t num, FILE *out)
{
	if (view->width && num && !view->json && !view->raw)
		print_limited(view, cells, num, out);
	else
		print_table(fill_table(view, cells, num), out);
}

void print_rows(const struct view *view, const struct row *rows, size_t num,
		FILE *out)
{
	char **cells = checked(calloc(num * view->num + 1, sizeof(*cells)));
	size_t r, i;

	for (r = 0; r < num; r++)
		for (i = 0; i < view->num; i++)
			cells[r * view->num + i] =
				cell_of(view, &rows[r], view->shown[i]);
	print_cells(view, cells, num, out);
	free(cells);
}

void print_key(const struct view *view, const struct row *rows, size_t num,
	       bool clock, FILE *out)
{
	size_t r, i;

	for (r = 0; r < num; r++) {
		for (i = 0; i < view->num; i++) {
			enum column col = view->shown[i];
			char *cell;

			if (col == COL_QUEUE) {
				print_queue_key(&rows[r], clock, out);
				continue;
			}
			/* The token changes with these, but not with time */
			if (col == COL_SINCE || (col == COL_HELD && !clock))
				col = COL_TOKEN;
			cell = cell_of(view, &rows[r], col);
			/* What is left is less each time */
			if (cell && col == COL_EXPIRES && !clock)
				strcpy(cell, rows[r].left_ns > 0 ? "+" : "-");
			/* No cell has a newline in it */
			fprintf(out, "%s\n", cell ? cell : "");
			free(cell);
		}
	}
}
