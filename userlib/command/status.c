// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock status and tlock list: tables of locks. They are the same but for the
 * columns that they show by themselves.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "command.h"

#define CLASS	"/sys/class/tlock"

/* How often --watch looks: a reader notices no delay, the host no load */
#define WATCH_NS	200000000

enum {
	COL_LOCK,
	COL_PATH,
	COL_STATE,
	COL_JOB,
	COL_PID,
	COL_USER,
	COL_UID,
	COL_COMMAND,
	COL_HELD,
	COL_TOKEN,
	COL_WAITERS,
	COL_ACQUIRED,
	COL_CONTENDED,
	COL_TIMED_OUT,
	COL_INTERRUPTED,
	COL_ABANDONED,
	COL_YIELDED,
	COL_WAIT_TOTAL,
	COL_WAIT_MAX,
	COL_HOLD_TOTAL,
	COL_HOLD_MAX,
	NUM_COLS
};

/* What a column holds, which says how it is written */
enum kind { TEXT, NUMBER, TIME };

static const struct {
	const char *name;
	enum kind kind;
	const char *help;
} columns[NUM_COLS] = {
	[COL_LOCK] = { "LOCK", TEXT, "name of the lock's device" },
	[COL_PATH] = { "PATH", TEXT, "path of the lock's device" },
	[COL_STATE] = { "STATE", TEXT, "held or free" },
	[COL_JOB] = { "JOB", TEXT, "what the holder says that it is doing" },
	[COL_PID] = { "PID", NUMBER, "process of the holder" },
	[COL_USER] = { "USER", TEXT, "user of the holder" },
	[COL_UID] = { "UID", NUMBER, "user of the holder, as a number" },
	[COL_COMMAND] = { "COMMAND", TEXT, "command name of the holder" },
	[COL_HELD] = { "HELD", TIME, "for how long it has held the lock" },
	[COL_TOKEN] = { "TOKEN", NUMBER, "token of its grant" },
	[COL_WAITERS] = { "WAITERS", NUMBER, "contenders that wait" },
	[COL_ACQUIRED] = { "ACQUIRED", NUMBER, "grants" },
	[COL_CONTENDED] = { "CONTENDED", NUMBER,
			    "acquires that found the lock held" },
	[COL_TIMED_OUT] = { "TIMED-OUT", NUMBER,
			    "acquires and reacquires that timed out" },
	[COL_INTERRUPTED] = { "INTERRUPTED", NUMBER,
			      "those whose wait was interrupted" },
	[COL_ABANDONED] = { "ABANDONED", NUMBER,
			    "holders that went without a release" },
	[COL_YIELDED] = { "YIELDED", NUMBER,
			  "reacquires that let a waiter in" },
	[COL_WAIT_TOTAL] = { "WAIT-TOTAL", TIME, "time spent waiting" },
	[COL_WAIT_MAX] = { "WAIT-MAX", TIME, "the longest wait" },
	[COL_HOLD_TOTAL] = { "HOLD-TOTAL", TIME, "time the lock was held" },
	[COL_HOLD_MAX] = { "HOLD-MAX", TIME, "the longest of these" },
};

static const char usage_status[] =
"Usage:\n"
" tlock status [options] [LOCK...]\n"
"\n"
"Show who holds the locks of this host, or these, for what job and since when.\n";

static const char usage_list[] =
"Usage:\n"
" tlock list [options]\n"
"\n"
"List the locks of this host.\n";

static const char usage_options[] =
"\n"
"Options:\n"
" -J, --json           use JSON output format\n"
" -r, --raw            use raw output format\n"
" -n, --noheadings     don't print headings\n"
" -o, --output LIST    which columns to show; +LIST adds to the usual ones\n"
"     --output-all     show all columns\n"
"     --watch          show it again whenever it changes, until Ctrl-C\n"
" -h, --help           display this help\n"
" -V, --version        display version\n"
"\n"
"Columns:\n";

static const char default_status[] =
	"LOCK,JOB,PID,USER,COMMAND,HELD,TOKEN,WAITERS";
static const char default_list[] = "LOCK,PATH,STATE,WAITERS";

/* What was asked for */
struct view {
	bool json;
	bool raw;
	bool noheadings;
	bool watch;
	size_t num;
	int shown[2 * NUM_COLS];
};

/* What to show of one lock */
struct row {
	char *path;
	struct tlock_status status;
};

static volatile sig_atomic_t stopped;

static void stop(int signo)
{
	(void)signo;
	stopped = 1;
}

static void __attribute__((__noreturn__)) show_usage(const char *usage)
{
	size_t i;

	printf("%s%s", usage, usage_options);
	for (i = 0; i < NUM_COLS; i++)
		printf(" %12s  %s\n", columns[i].name, columns[i].help);
	fputs("\nFor more details see tlock(1).\n", stdout);
	exit(EX_OK);
}

static void add_column(struct view *view, int col)
{
	if (view->num == sizeof(view->shown) / sizeof(*view->shown))
		errx(EX_USAGE, "too many columns");
	view->shown[view->num++] = col;
}

static void add_columns(struct view *view, const char *list,
			const char *subcommand)
{
	char *copy = checked(strdup(list));
	char *rest = copy;
	char *name;
	int col;

	while ((name = strsep(&rest, ","))) {
		for (col = 0; col < NUM_COLS; col++)
			if (!strcasecmp(name, columns[col].name))
				break;
		if (col == NUM_COLS) {
			warnx("unknown column: '%s'", name);
			free(copy);
			try_help(subcommand);
		}
		add_column(view, col);
	}
	free(copy);
}

/* The number to show, of any kind */
static uint64_t number_of(const struct tlock_status *s, int col)
{
	switch (col) {
	case COL_PID:
		return s->holder.pid;
	case COL_UID:
		return s->holder.uid;
	case COL_HELD:
		return ns_since(s->holder.since_ns);
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

static char *text_of(const struct row *row, int col)
{
	const struct tlock_holder *holder = &row->status.holder;

	switch (col) {
	case COL_LOCK:
		return strdup(basename(row->path));
	case COL_PATH:
		return strdup(row->path);
	case COL_STATE:
		return strdup(holder->token ? "held" : "free");
	case COL_JOB:
		return strdup(holder->job);
	case COL_USER:
		return user_name(holder->uid);
	default:
		return strdup(holder->comm);
	}
}

/* What there is nothing to say about: the holder of a free lock, say */
static bool is_unknown(const struct row *row, int col)
{
	const struct tlock_holder *holder = &row->status.holder;

	switch (col) {
	case COL_PID:
		return !holder->pid;
	case COL_USER:
	case COL_UID:
	case COL_HELD:
	case COL_TOKEN:
		return !holder->token;
	default:
		return false;
	}
}

/* What stands in a cell, to be freed; NULL: nothing */
static char *cell_of(const struct view *view, const struct row *row, int col)
{
	uint64_t number;
	char *text, *safe;

	if (is_unknown(row, col))
		return NULL;

	if (columns[col].kind == TEXT) {
		text = checked(text_of(row, col));
		/* The other formats have an escape of their own, the same */
		if (!view->json)
			return text;
		safe = escaped(text);
		free(text);
		return safe;
	}

	number = number_of(&row->status, col);
	if (columns[col].kind == NUMBER) {
		if (asprintf(&text, "%" PRIu64, number) < 0)
			text = NULL;
	} else if (view->json || view->raw) {
		if (asprintf(&text, "%" PRIu64 ".%09" PRIu64,
			     number / 1000000000, number % 1000000000) < 0)
			text = NULL;
	} else {
		text = human_time(number);
	}
	return checked(text);
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
		int col = view->shown[i];
		bool text = columns[col].kind == TEXT;
		struct libscols_column *column;
		char name[16];
		char *dash;

		/* Programs want names that need no quotes */
		snprintf(name, sizeof(name), "%s", columns[col].name);
		dash = strchr(name, '-');
		if (view->json && dash)
			*dash = '_';
		column = checked(scols_table_new_column(table, name, 0,
				 col == COL_JOB ? SCOLS_FL_TRUNC :
				 text ? 0 : SCOLS_FL_RIGHT));
		if (scols_column_set_json_type(column, text ?
					       SCOLS_JSON_STRING :
					       SCOLS_JSON_NUMBER))
			checked(NULL);
	}
	return table;
}

/* Adds a row to the table, and what counts as a change of it to @key. */
static void add_row(const struct view *view, struct libscols_table *table,
		    const struct row *row, bool clock, FILE *key)
{
	struct libscols_line *line = checked(scols_table_new_line(table, NULL));
	size_t i;

	for (i = 0; i < view->num; i++) {
		char *cell = cell_of(view, row, view->shown[i]);

		if (cell && (clock || view->shown[i] != COL_HELD))
			fputs(cell, key);
		/* No cell has one in it */
		putc('\n', key);
		if (cell && scols_line_refer_data(line, i, cell))
			checked(NULL);
	}
}

/* Looks at a lock. If that fails, says why and sets the exit status. */
static bool look(const char *lock, struct row *row, int *status)
{
	struct tlock *t;

	/* A lock that stays open keeps the module from being unloaded */
	t = open_lock(lock, O_RDONLY, status);
	if (!t)
		return false;
	row->path = lock_path(lock);
	if (tlock_status(t, &row->status))
		err(EX_OSERR, "%s", row->path);
	tlock_close(t);
	return true;
}

static int is_lock(const struct dirent *entry)
{
	return *entry->d_name != '.';
}

/*
 * Prints what there is to see of these locks, or of all if there are none;
 * unless it is what *@last says, which is freed and replaced.
 */
static int show(const struct view *view, char **locks, bool redraw,
		char **last)
{
	struct libscols_table *table = new_table(view);
	struct dirent **entries = NULL;
	int num = 0, status = EX_OK;
	char *key_text = NULL;
	size_t key_size, i;
	FILE *key = checked(open_memstream(&key_text, &key_size));

	if (!*locks)
		num = scandir(CLASS, &entries, is_lock, versionsort);
	for (i = 0; ; i++) {
		struct row row;
		const char *lock;

		if (*locks)
			lock = locks[i];
		else if (num > 0)
			lock = i < (size_t)num ? entries[i]->d_name : NULL;
		else
			/* That fails and says why; or there is no sysfs */
			lock = i ? NULL : "tlock";
		if (!lock)
			break;
		if (!look(lock, &row, &status))
			continue;
		add_row(view, table, &row, redraw, key);
		free(row.path);
	}
	while (num > 0)
		free(entries[--num]);
	free(entries);

	if (fclose(key))
		checked(NULL);
	if (!*last || strcmp(*last, key_text)) {
		if (redraw)
			fputs("\033[H\033[J", stdout);
		else if (*last)
			putchar('\n');
		if (scols_print_table(table))
			err(EX_OSERR, "cannot print");
		if (fflush(stdout))
			err(EX_IOERR, "write error");
	}
	free(*last);
	*last = key_text;
	scols_unref_table(table);
	return status;
}

static int watch(const struct view *view, char **locks)
{
	static const struct timespec pause = { .tv_nsec = WATCH_NS };
	struct sigaction action = { .sa_handler = stop };
	const char *terminal = getenv("TERM");
	bool redraw = isatty(STDOUT_FILENO) && !view->json && !view->raw &&
		terminal && strcmp(terminal, "dumb");
	char *last = NULL;
	int status;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	do {
		status = show(view, locks, redraw, &last);
		if (!status)
			nanosleep(&pause, NULL);
	} while (!status && !stopped);
	free(last);
	return status;
}

static int tables_main(int argc, char **argv, const char *subcommand,
		       const char *usage, const char *defaults)
{
	enum { OPT_ALL = 256, OPT_WATCH };
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'J' },
		{ "raw", no_argument, NULL, 'r' },
		{ "noheadings", no_argument, NULL, 'n' },
		{ "output", required_argument, NULL, 'o' },
		{ "output-all", no_argument, NULL, OPT_ALL },
		{ "watch", no_argument, NULL, OPT_WATCH },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 }
	};
	const char *list = defaults;
	struct view view = { 0 };
	char *last = NULL;
	int opt, status;

	while ((opt = getopt_long(argc, argv, "Jrno:hV", options, NULL)) != -1) {
		switch (opt) {
		case 'J':
			view.json = true;
			break;
		case 'r':
			view.raw = true;
			break;
		case 'n':
			view.noheadings = true;
			break;
		case 'o':
			list = optarg;
			break;
		case OPT_ALL:
			list = NULL;
			break;
		case OPT_WATCH:
			view.watch = true;
			break;
		case 'h':
			show_usage(usage);
		case 'V':
			print_version();
			return EX_OK;
		default:
			try_help(subcommand);
		}
	}
	if (view.json && view.raw)
		errx(EX_USAGE, "mutually exclusive: --json --raw");
	if (!list) {
		for (opt = 0; opt < NUM_COLS; opt++)
			add_column(&view, opt);
	} else {
		if (*list == '+') {
			add_columns(&view, defaults, subcommand);
			list++;
		}
		add_columns(&view, list, subcommand);
	}
	if (usage == usage_list && argv[optind])
		errx(EX_USAGE, "list takes no LOCK: see 'tlock status'");

	if (view.watch)
		return watch(&view, argv + optind);
	status = show(&view, argv + optind, false, &last);
	free(last);
	return status;
}

int status_main(int argc, char **argv)
{
	return tables_main(argc, argv, "status", usage_status,
			   default_status);
}

int list_main(int argc, char **argv)
{
	return tables_main(argc, argv, "list", usage_list, default_list);
}
