// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock status and tlock list: which locks to show, how and how often. The two
 * differ only in their default columns, and in the operands and options that
 * tlock status alone takes.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "status.h"

/* How often --watch looks: people see no delay, and the load is negligible */
#define WATCH_NS	200000000

/* How often to look again at locks that are there, but cannot be opened */
#define MAX_TRIES	50
#define AGAIN_NS	2000000

static const char usage_status[] =
"Usage:\n"
" tlock status [options] [LOCK...]\n"
"\n"
"Show who holds the locks of this host, or these, for what job and since when,\n"
"and who waits.\n";

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
"     --watch          show it again whenever it changes, until Ctrl-C\n";

static const char usage_status_options[] =
"     --cluster        show the hosts that queue for locks they share\n"
"     --metrics        print metrics in the OpenMetrics text format\n"
"     --held-longer TIME\n"
"                      show only locks held for longer than 90 (seconds), 90s,\n"
"                      10m, 2h or 1d; exit with 1 if there are any\n";

static const char usage_end[] =
" -h, --help           display this help\n"
" -V, --version        display version\n"
"\n"
"Columns:\n";

static const char default_status[] =
	"LOCK,STATE,JOB,PID,USER,COMMAND,HELD,SINCE,WAITERS";
/* Added for JSON, which has no sentences below the table, and much room */
static const char default_json_status[] = "EXPIRES,OPEN-IN,QUEUE,HOST,GATE";
static const char default_json_list[] = "PATH";
static const char default_list[] = "LOCK,STATE,WAITERS";

enum { OPT_ALL = 256, OPT_WATCH, OPT_METRICS, OPT_LONGER, OPT_CLUSTER };

#define COMMON_OPTIONS							\
	{ "json", no_argument, NULL, 'J' },				\
	{ "raw", no_argument, NULL, 'r' },				\
	{ "noheadings", no_argument, NULL, 'n' },			\
	{ "output", required_argument, NULL, 'o' },			\
	{ "output-all", no_argument, NULL, OPT_ALL },			\
	{ "watch", no_argument, NULL, OPT_WATCH },			\
	{ "help", no_argument, NULL, 'h' },				\
	{ "version", no_argument, NULL, 'V' }

static const struct option options_status[] = {
	COMMON_OPTIONS,
	{ "cluster", no_argument, NULL, OPT_CLUSTER },
	{ "metrics", no_argument, NULL, OPT_METRICS },
	{ "held-longer", required_argument, NULL, OPT_LONGER },
	{ NULL, 0, NULL, 0 }
};

static const struct option options_list[] = {
	COMMON_OPTIONS,
	{ NULL, 0, NULL, 0 }
};

/* The request of the command line */
struct request {
	struct view view;
	char **locks;		/* none: all */
	int64_t longer_ns;	/* only those held for longer; -1: all */
	bool metrics;
	bool watching;
	bool redraw;		/* a new table replaces the one before */
	bool usual;		/* the columns, for people */
	bool queues;		/* below the table, who waits */
	bool whole_queues;	/* for programs */
	unsigned int height;	/* of the terminal */
};

static volatile sig_atomic_t stopped;

static void stop(int signo)
{
	(void)signo;
	stopped = 1;
}

static void __attribute__((__noreturn__)) show_usage(const char *usage)
{
	printf("%s%s%s%s", usage, usage_options,
	       usage == usage_status ? usage_status_options : "", usage_end);
	print_columns();
	fputs("\nFor more details see tlock(1).\n", stdout);
	exit(EX_OK);
}

static void add_columns(struct view *view, const char *list,
			const char *subcommand)
{
	char *copy = checked(strdup(list));
	char *rest = copy;
	char *name;

	while ((name = strsep(&rest, ","))) {
		enum column col = find_column(name);

		if (col == NUM_COLS) {
			warnx("unknown column: '%s'", name);
			free(copy);
			try_help(subcommand);
		}
		if (view->num == sizeof(view->shown) / sizeof(*view->shown))
			errx(EX_USAGE, "too many columns");
		view->shown[view->num++] = col;
	}
	free(copy);
}

/* A time such as 90, 90s, 10m, 1.5h or 2d, in nanoseconds */
static int64_t parse_span(const char *text)
{
	size_t length = strspn(text, "0123456789.");
	char *end;
	/* strtod() knows signs, blanks, "nan", "inf" and hexadecimals, too */
	double seconds = strtod(text, &end);

	if (!strcmp(text + length, "m"))
		seconds *= 60;
	else if (!strcmp(text + length, "h"))
		seconds *= 3600;
	else if (!strcmp(text + length, "d"))
		seconds *= 86400;
	else if (text[length] && strcmp(text + length, "s"))
		length = 0;

	if (!length || end != text + length) {
		warnx("invalid time: '%s' (expected a number of seconds, or one with s, m, h or d)",
		      text);
		try_help("status");
	}
	return tlock_seconds(seconds);
}

/* The locks looked at so far */
struct found {
	struct row *rows;
	size_t num;
	size_t looked_at;	/* including those that are not shown */
	int64_t wall_clock_ns;
};

/* Looks at a lock. Returns 0, or an errno: those of opening a lock */
static int look(const struct request *request, const char *lock,
		struct found *found)
{
	char path[TLOCK_PATH_SIZE];
	struct row row = { 0 };
	struct tlock *t;
	struct stat st;
	int error;

	/* A lock that stays open keeps the module from being unloaded */
	t = tlock_open(lock, O_RDONLY);
	if (!t)
		return errno;
	error = tlock_status(t, &row.status) || fstat(tlock_fd(t), &st) ?
		errno : 0;
	if (!error && row.status.waiters &&
	    (request->queues || request->whole_queues))
		read_queue(&row, t, request->whole_queues);
	if (!error)
		read_host(t, &row.status.holder, row.host);
	tlock_close(t);
	if (error)
		return error;

	found->looked_at++;
	if (row.status.holder.token) {
		int64_t since_ns = row.status.holder.since_ns;

		row.held_ns = ns_since(since_ns);
		row.since = (since_ns + found->wall_clock_ns) / NS_PER_S;
		row.left_ns = ns_left(&row.status.holder);
	}
	if (request->longer_ns >= 0 &&
	    (!row.status.holder.token ||
	     row.held_ns <= (uint64_t)request->longer_ns)) {
		free(row.queue);
		return 0;
	}
	row.path = checked(strdup(tlock_path(lock, path)));
	row.device = st.st_rdev;
	/* Doubles the room at each power of two */
	if (!(found->num & (found->num - 1)))
		found->rows = checked(reallocarray(found->rows,
						   2 * found->num + 1,
						   sizeof(row)));
	found->rows[found->num++] = row;
	return 0;
}

static bool exists(const char *lock)
{
	char path[sizeof(CLASS "/") + NAME_MAX];

	snprintf(path, sizeof(path), CLASS "/%s", lock);
	return !access(path, F_OK);
}

/* Looks at each lock of this host, the first one first. */
static void look_at_each(const struct request *request, struct found *found,
			 int *status)
{
	struct dirent **entries = NULL;
	static const struct timespec pause = { .tv_nsec = AGAIN_NS };
	int num = scandir(CLASS, &entries, is_lock, versionsort);
	int tries = MAX_TRIES;
	int i;

	for (i = 0; i < num; i++) {
		const char *lock = entries[i]->d_name;
		int error = look(request, lock, found);

		/*
		 * A container may see sysfs, but has only the device files that
		 * were passed in. And a lock may be about to vanish, or even
		 * have been made again by now.
		 */
		while (error && error != ENOENT && exists(lock)) {
			if (!tries--) {
				tries = 0;
				*status = cannot_open(lock, error);
				break;
			}
			nanosleep(&pause, NULL);
			error = look(request, lock, found);
		}
		free(entries[i]);
	}
	free(entries);
}

/* Looks at the locks that were asked for; says why if it cannot. */
static void look_at_all(const struct request *request, struct found *found,
			int *status)
{
	/* Says why there are none, or works without sysfs */
	static char first[] = "tlock";
	char *const only_first[] = { first, NULL };
	char *const *locks = request->locks;

	found->wall_clock_ns = wall_clock_ns();
	if (!*locks) {
		look_at_each(request, found, status);
		if (found->looked_at || *status)
			return;
		locks = only_first;
	}
	for (; *locks; locks++) {
		int error = look(request, *locks, found);

		if (error)
			*status = cannot_open(*locks, error);
	}
}

/* How many lines the first line of @text takes on the terminal; finds @next. */
static size_t height_of(const struct view *view, const char *text,
			const char **next)
{
	size_t length = strcspn(text, "\n");
	char *line = checked(strndup(text, length));
	size_t width = text_width(line);

	free(line);
	*next = text + length + (text[length] == '\n');
	return width > view->width ? (width - 1) / view->width + 1 : 1;
}

static size_t height_of_all(const struct view *view, const char *text)
{
	size_t height = 0;

	while (*text)
		height += height_of(view, text, &text);
	return height;
}

/* Prints the part of @text that fits into @room lines; returns its height. */
static size_t print_top(const struct view *view, const char *text, size_t room)
{
	size_t height = height_of_all(view, text), used = 0, more = 0;
	const char *next;

	if (height <= room) {
		fputs(text, stdout);
		return height;
	}
	for (; *text; text = next) {
		height = height_of(view, text, &next);
		if (more || used + height >= room) {
			more++;
			continue;
		}
		used += height;
		fwrite(text, 1, next - text, stdout);
	}
	printf("(%zu more lines)\n", more);
	return used + 1;
}

/* What is shown, with an empty line between any two that are not empty */
enum part { PART_TABLE, PART_QUEUES, PART_NOTES, NUM_PARTS };

/*
 * Prints the parts up to @last into @room lines. A long part must not push those
 * below it off the screen. Returns the height.
 */
static size_t draw_parts(const struct view *view, char *const *parts, int last,
			 size_t room)
{
	size_t below = height_of_all(view, parts[last]);
	size_t used;

	if (!last)
		return print_top(view, parts[last], room);
	if (!below)
		return draw_parts(view, parts, last - 1, room);
	if (below > room / 2)
		below = room / 2;
	used = draw_parts(view, parts, last - 1, room - below - 1) + 1;
	putchar('\n');
	return used + print_top(view, parts[last], room - used);
}

/* Replaces the contents of the terminal, without scrolling the new ones. */
static void draw(const struct request *request, char *const *parts)
{
	/* The last two lines are for ^C, and for the shell's prompt */
	size_t room = request->height > 10 ? request->height - 2 : 8;

	fputs("\033[H\033[J", stdout);
	draw_parts(&request->view, parts, NUM_PARTS - 1, room);
}

/* Completes the text that open_memstream() began. */
static void complete(FILE *stream)
{
	if (fclose(stream))
		checked(NULL);
}

static void print(const struct request *request, const struct row *rows,
		  size_t num, bool first)
{
	const struct view *view = &request->view;
	char *parts[NUM_PARTS] = { NULL };
	FILE *stream;
	size_t size;
	int i;

	stream = checked(open_memstream(&parts[PART_TABLE], &size));
	if (request->metrics)
		print_metrics(rows, num, stream);
	else
		print_rows(view, rows, num, stream);
	complete(stream);

	stream = checked(open_memstream(&parts[PART_QUEUES], &size));
	if (request->queues)
		print_queues(view, rows, num, stream);
	complete(stream);

	/* Sentences are for people */
	stream = checked(open_memstream(&parts[PART_NOTES], &size));
	if (!request->metrics && !view->json && !view->raw && !view->noheadings)
		print_notes(rows, num, stream);
	complete(stream);

	if (request->redraw)
		draw(request, parts);
	for (i = 0; i < NUM_PARTS; i++) {
		if (!request->redraw && *parts[i])
			printf("%s%s", i || !first ? "\n" : "", parts[i]);
		free(parts[i]);
	}
	if (fflush(stdout))
		err(EX_IOERR, "write error");
}

/* Shows a column behind another one, unless it is shown anyway. */
static void insert_column(struct view *view, enum column col,
			  enum column behind)
{
	size_t i, at = view->num;

	if (view->num == sizeof(view->shown) / sizeof(*view->shown))
		return;
	for (i = 0; i < view->num; i++) {
		if (view->shown[i] == col)
			return;
		if (view->shown[i] == behind && at == view->num)
			at = i + 1;
	}
	memmove(&view->shown[at + 1], &view->shown[at],
		(view->num++ - at) * sizeof(*view->shown));
	view->shown[at] = col;
}

/*
 * A terminal has little room for more columns: these appear only if they have
 * something to show.
 */
static void add_rare_columns(struct view *view, const struct found *found)
{
	bool expiring = false, remote = false;
	size_t i;

	for (i = 0; i < found->num; i++) {
		expiring = expiring || expires(&found->rows[i].status.holder);
		remote = remote || *found->rows[i].host;
	}
	if (expiring)
		insert_column(view, COL_EXPIRES, COL_SINCE);
	if (remote)
		insert_column(view, COL_HOST, COL_COMMAND);
}

/*
 * Prints the locks, unless nothing has changed since *@last, which this frees
 * and replaces. Returns the exit status.
 */
static int show(const struct request *asked, char **last)
{
	struct request shown = *asked, *request = &shown;
	int status = EX_OK;
	struct found found = { 0 };
	char *key_text = NULL;
	size_t key_size, i;
	FILE *key = checked(open_memstream(&key_text, &key_size));

	look_at_all(request, &found, &status);
	/* Metrics have no states */
	if (!request->metrics)
		look_at_holders(found.rows, found.num);
	if (request->usual)
		add_rare_columns(&request->view, &found);
	if (request->watching) {
		print_key(&request->view, found.rows, found.num,
			  request->redraw, key);
		if (request->queues)
			for (i = 0; i < found.num; i++)
				print_queue_key(&found.rows[i],
						request->redraw, key);
		print_notes(found.rows, found.num, key);
	}
	complete(key);

	if (!*last || strcmp(*last, key_text))
		print(request, found.rows, found.num, !*last);
	free(*last);
	*last = key_text;

	if (!status && request->longer_ns >= 0 && found.num)
		status = 1;
	while (found.num) {
		free(found.rows[--found.num].path);
		free(found.rows[found.num].open_in.pid);
		free(found.rows[found.num].queue);
	}
	free(found.rows);
	return status;
}

/* Gets the size of the terminal, which may change at any time. */
static void measure(struct request *request)
{
	struct winsize size = { 0 };

	if (!isatty(STDOUT_FILENO))
		return;
	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	/* Serial terminals don't know their size */
	request->view.width = size.ws_col ? size.ws_col : 80;
	request->height = size.ws_row ? size.ws_row : 24;
}

static int watch(struct request *request)
{
	struct sigaction action = { .sa_handler = stop };
	const char *terminal = getenv("TERM");
	char *last = NULL;
	int status;

	request->redraw = request->view.width && !request->view.json &&
		!request->view.raw && terminal && strcmp(terminal, "dumb");
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	do {
		int64_t began = now_ns(CLOCK_MONOTONIC), took;
		struct timespec pause;

		measure(request);
		status = show(request, &last);
		/* Searching /proc may take long: do so a tenth of the time */
		took = 9 * (now_ns(CLOCK_MONOTONIC) - began);
		if (took < WATCH_NS)
			took = WATCH_NS;
		pause.tv_sec = took / NS_PER_S;
		pause.tv_nsec = took % NS_PER_S;
		if (!status && !stopped)
			nanosleep(&pause, NULL);
	} while (!status && !stopped);
	free(last);
	/* Keep the shell's prompt off the line where the terminal shows ^C */
	if (stopped && request->view.width)
		putchar('\n');
	return status;
}

static int tables_main(int argc, char **argv, const char *subcommand,
		       const char *usage, const struct option *options,
		       const char *defaults)
{
	struct request request = { .longer_ns = -1 };
	struct view *view = &request.view;
	const char *list = defaults;
	const char *other;
	bool adds = false, cluster = false;
	char *last = NULL;
	int opt, status;

	while ((opt = getopt_long(argc, argv, "Jrno:hV", options, NULL)) != -1) {
		switch (opt) {
		case 'J':
			view->json = true;
			break;
		case 'r':
			view->raw = true;
			break;
		case 'n':
			view->noheadings = true;
			break;
		case 'o':
			list = optarg;
			break;
		case OPT_ALL:
			list = NULL;
			break;
		case OPT_WATCH:
			request.watching = true;
			break;
		case OPT_METRICS:
			request.metrics = true;
			break;
		case OPT_CLUSTER:
			cluster = true;
			break;
		case OPT_LONGER:
			request.longer_ns = parse_span(optarg);
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
	if (view->json && view->raw)
		errx(EX_USAGE, "mutually exclusive: --json --raw");
	if (request.watching && request.longer_ns >= 0)
		errx(EX_USAGE, "mutually exclusive: --watch --held-longer");
	other = request.watching ? "--watch" : !list ? "--output-all" :
		list != defaults ? "--output" :
		request.longer_ns >= 0 ? "--held-longer" : NULL;
	if (cluster && (other || request.metrics))
		errx(EX_USAGE, "mutually exclusive: --cluster %s",
		     other ? other : "--metrics");
	other = view->json ? "--json" : view->raw ? "--raw" :
		view->noheadings ? "--noheadings" : other;
	if (request.metrics && other)
		errx(EX_USAGE, "mutually exclusive: --metrics %s", other);
	if (options == options_list && argv[optind])
		errx(EX_USAGE, "list takes no LOCK: see 'tlock status'");

	if (!list) {
		for (opt = 0; opt < NUM_COLS; opt++)
			view->shown[view->num++] = opt;
	} else {
		adds = *list == '+';
		if (adds)
			add_columns(view, defaults, subcommand);
		add_columns(view, list + adds, subcommand);
		if (list == defaults && view->json)
			add_columns(view, list == default_status ?
				    default_json_status : default_json_list,
				    subcommand);
	}

	request.queues = options == options_status && !request.metrics &&
		!view->json && !view->raw && !view->noheadings;
	for (opt = 0; opt < (int)view->num; opt++)
		if (view->shown[opt] == COL_QUEUE)
			request.whole_queues = true;
	request.usual = request.queues && (list == defaults || adds);
	request.locks = argv + optind;
	measure(&request);
	if (cluster)
		return show_cluster(view, request.locks);
	if (request.watching)
		return watch(&request);
	status = show(&request, &last);
	free(last);
	return status;
}

int status_main(int argc, char **argv)
{
	return tables_main(argc, argv, "status", usage_status, options_status,
			   default_status);
}

int list_main(int argc, char **argv)
{
	return tables_main(argc, argv, "list", usage_list, options_list,
			   default_list);
}
