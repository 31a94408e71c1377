// SPDX-License-Identifier: LGPL-2.1-or-later
/* tlock monitor: prints what happens to locks, as it happens */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <search.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sysexits.h>
#include <unistd.h>

#include "monitor.h"

/* How often to look again at a new lock that cannot be opened yet */
#define MAX_TRIES	50
#define AGAIN_NS	2000000

/* How many events of a lock are read at once */
#define MAX_EVENTS	64

static const char usage[] =
"Usage:\n"
" tlock monitor [options] [LOCK...]\n"
"\n"
"Print what happens to locks, a line for each event, until Ctrl-C.\n"
"Without LOCK, for all locks of this host, and for those that are created later.\n"
"\n"
"Options:\n"
" -J, --json           print each event as a JSON object, on a line of its own\n"
"     --journal        log the events into the systemd journal, for tlock log\n"
"     --timeline FILE  at the end, also write who waited and held when, in a file\n"
"                      for ui.perfetto.dev or chrome://tracing\n"
"     --svg FILE       at the end, also write the same as a picture\n"
" -h, --help           display this help\n"
" -V, --version        display version\n"
"\n"
"For more details see tlock(1).\n";

/* A request that waits, or is away */
struct request {
	uint64_t ticket;
	int64_t since_ns;
};

/* A lock that is monitored */
struct watched {
	char *name;		/* of its device */
	struct tlock *t;
	/* What was printed at the beginning is not printed again */
	uint64_t first_token;	/* of the holder then, or 0 */
	int64_t status_ns;	/* when the look at the holder began */
	int64_t queue_ns;	/* when the look at the waiters began */
	int64_t began_ns;	/* and when it ended */
	/* To know how long requests and the grant took */
	void *requests;		/* tree */
	uint64_t token;		/* of the present grant, if that is known */
	int64_t since_ns;
	/* Events that were read, but not handled yet */
	struct tlock_event *events;
	size_t next_event;	/* index */
	size_t num_events;
	bool may_have_events;	/* it has not yet been found to have no more */
	bool gone;
};

struct monitor {
	struct watched *locks;
	size_t num;
	int inotify;		/* or -1 */
	bool json;
	bool journal;
	bool recorded;
	struct lines lines;
	struct recording recording;
	int64_t wall_clock_ns;
	int error;		/* why it cannot go on */
};

static volatile sig_atomic_t stopped;

static void stop(int signo)
{
	(void)signo;
	stopped = 1;
}

static void begin_request(struct watched *w, uint64_t ticket, int64_t since_ns)
{
	struct request *request;

	/* It may go on waiting after it was away */
	if (find_ticket(w->requests, ticket))
		return;
	request = add_ticket(&w->requests, ticket, sizeof(*request));
	request->since_ns = since_ns;
}

static void end_request(struct watched *w, uint64_t ticket)
{
	struct request *request = find_ticket(w->requests, ticket);

	if (request)
		drop_ticket(&w->requests, request);
}

static void forget_all(struct watched *w)
{
	tdestroy(w->requests, free);
	w->requests = NULL;
	w->token = 0;
}

static void emit(struct monitor *m, const struct happening *h)
{
	/* What other hosts do has no end here */
	if (m->recorded && !*h->host)
		record(&m->recording, h);
	/* An error must not be forgotten if the next event is logged */
	if (m->journal)
		m->error = m->error ? m->error : log_event(h);
	else if (m->json)
		print_object(h, h->time_ns + m->wall_clock_ns);
	else
		print_line(&m->lines, h, h->time_ns + m->wall_clock_ns);
}

/* An event of the lock about which no more is known yet */
static struct happening happening_of(const struct watched *w, const char *kind,
				     int64_t time_ns)
{
	return (struct happening){
		.lock = w->name,
		.kind = kind,
		.time_ns = time_ns,
		.waited_ns = -1,
		.held_ns = -1,
		.comm = "",
		.job = "",
		.host = "",
	};
}

/* How much later @end_ns is; 0 if it is not */
static int64_t later(int64_t end_ns, int64_t begin_ns)
{
	return end_ns > begin_ns ? end_ns - begin_ns : 0;
}

/* Prints which host has the lock, and who holds it there. */
static void emit_remote(struct monitor *m, const struct watched *w,
			const struct tlock_holder *holder, const char *host)
{
	struct happening h = happening_of(w, "remote", w->status_ns);

	if (holder->token)
		h.held_ns = later(h.time_ns, holder->since_ns);
	h.token = holder->token;
	h.has_process = true;
	h.comm = holder->comm;
	h.job = holder->job;
	h.host = host;
	emit(m, &h);
}

/* Prints who holds the lock, and who waits. */
static void emit_state(struct monitor *m, struct watched *w)
{
	char host[TLOCK_HOST_SIZE];
	struct tlock_waiter *waiters;
	struct tlock_status status;
	struct happening h;
	size_t num, i;

	/* First look, then print, as things go on meanwhile */
	w->status_ns = now_ns(CLOCK_MONOTONIC);
	if (tlock_status(w->t, &status))
		return;
	w->queue_ns = now_ns(CLOCK_MONOTONIC);
	waiters = read_waiters(w->t, SIZE_MAX, &num);
	w->began_ns = now_ns(CLOCK_MONOTONIC);
	read_host(w->t, &status.holder, host);

	if (is_remote(&status.holder)) {
		if (*host)
			emit_remote(m, w, &status.holder, host);
	} else if (status.holder.token) {
		w->first_token = w->token = status.holder.token;
		w->since_ns = status.holder.since_ns;
		h = happening_of(w, "held", w->status_ns);
		h.held_ns = later(h.time_ns, w->since_ns);
		h.token = w->token;
		h.has_process = true;
		h.pid = status.holder.pid;
		h.uid = status.holder.uid;
		h.comm = status.holder.comm;
		h.job = status.holder.job;
		emit(m, &h);
	}
	for (i = 0; i < num; i++) {
		begin_request(w, waiters[i].ticket, waiters[i].since_ns);
		h = happening_of(w, "waiting", w->status_ns);
		h.waited_ns = later(h.time_ns, waiters[i].since_ns);
		h.ticket = waiters[i].ticket;
		h.has_process = true;
		h.pid = waiters[i].pid;
		h.uid = waiters[i].uid;
		h.comm = waiters[i].comm;
		h.job = waiters[i].job;
		emit(m, &h);
	}
	free(waiters);
}

/* Whether what emit_state() has printed includes the event */
static bool is_known(const struct watched *w, const struct tlock_event *event)
{
	bool waits;

	if (event->time_ns > w->began_ns)
		return false;
	waits = find_ticket(w->requests, event->ticket);
	switch (event->kind) {
	case TLOCK_EVENT_WAITING:
		/* If the look did not find it, it had ended before that */
		return event->time_ns < w->queue_ns || waits;
	case TLOCK_EVENT_INTERRUPTED:
		return event->time_ns < w->queue_ns;
	case TLOCK_EVENT_ACQUIRED:
		return event->token <= w->first_token;
	default:
		return event->token ? event->token < w->first_token :
			event->time_ns < w->queue_ns && !waits;
	}
}

/* Begins to monitor a lock. Returns 0 or an errno. */
static int add(struct monitor *m, const char *lock, bool is_new)
{
	struct watched w = { .t = tlock_open(lock, O_RDONLY) };
	struct tlock_status status;
	struct happening h;
	size_t i;

	if (!w.t)
		return errno;
	if (fcntl(tlock_fd(w.t), F_SETFL, O_NONBLOCK) || tlock_monitor(w.t) ||
	    tlock_status(w.t, &status)) {
		int error = errno;

		tlock_close(w.t);
		return error;
	}
	/* The same lock may be named twice */
	for (i = 0; i < m->num; i++) {
		if (!m->locks[i].gone && !strcmp(m->locks[i].name, status.name)) {
			tlock_close(w.t);
			return 0;
		}
	}
	w.name = checked(strdup(status.name));
	m->locks = checked(reallocarray(m->locks, m->num + 1, sizeof(w)));
	m->locks[m->num++] = w;
	if (is_new) {
		h = happening_of(&w, "created", now_ns(CLOCK_MONOTONIC));
		emit(m, &h);
	}
	emit_state(m, &m->locks[m->num - 1]);
	return 0;
}

static void drop(struct monitor *m, size_t i)
{
	forget_all(&m->locks[i]);
	free(m->locks[i].events);
	tlock_close(m->locks[i].t);
	free(m->locks[i].name);
	memmove(&m->locks[i], &m->locks[i + 1],
		(--m->num - i) * sizeof(*m->locks));
}

static bool has(const struct monitor *m, const char *name)
{
	size_t i;

	for (i = 0; i < m->num; i++)
		if (!strcmp(m->locks[i].name, name))
			return true;
	return false;
}

/* Adds the locks that there are, unless they are monitored already. */
static void add_all(struct monitor *m, bool are_new)
{
	struct dirent **entries = NULL;
	int num = scandir(CLASS, &entries, is_lock, versionsort);
	int i;

	for (i = 0; i < num; i++) {
		const char *name = entries[i]->d_name;
		int error = has(m, name) ? 0 : add(m, name, are_new);

		/*
		 * It may have just been deleted, or not be passed into this
		 * container
		 */
		if (error && error != ENOENT && error != ENODEV)
			cannot_open(name, error);
		free(entries[i]);
	}
	free(entries);
}

/* Adds a lock whose device file is new, or can be opened now. */
static void add_one(struct monitor *m, const char *name)
{
	static const struct timespec pause = { .tv_nsec = AGAIN_NS };
	char path[TLOCK_PATH_SIZE];
	int tries = MAX_TRIES;
	int error;

	if (has(m, name) || !tlock_path(name, path))
		return;
	/*
	 * The file is there a moment before the lock. If only permission is
	 * lacking, udev may give it later, which is an event, too.
	 */
	do {
		error = add(m, name, true);
	} while (error && error != EACCES && !access(path, F_OK) && tries-- &&
		 !nanosleep(&pause, NULL));
}

/* Adds the locks whose device files are new, or can be opened now. */
static void add_new(struct monitor *m)
{
	char buf[4096] __attribute__((__aligned__(8)));
	ssize_t size = read(m->inotify, buf, sizeof(buf));
	const struct inotify_event *event;
	ssize_t at;

	for (at = 0; at < size; at += sizeof(*event) + event->len) {
		event = (const void *)(buf + at);
		if (event->mask & IN_Q_OVERFLOW)
			add_all(m, true);
		else if (event->len && is_lock_name(event->name))
			add_one(m, event->name);
	}
}

/* How long a request or a grant took that ends with this event, or goes on */
static void measure(struct watched *w, struct happening *h, unsigned int kind)
{
	struct request *request = find_ticket(w->requests, h->ticket);

	if (request && kind != TLOCK_EVENT_WAITING)
		h->waited_ns = h->time_ns - request->since_ns;

	switch (kind) {
	case TLOCK_EVENT_WAITING:
		begin_request(w, h->ticket, h->time_ns);
		break;
	case TLOCK_EVENT_INTERRUPTED:
		break;
	case TLOCK_EVENT_ACQUIRED:
		end_request(w, h->ticket);
		w->token = h->token;
		w->since_ns = h->time_ns;
		break;
	default:
		end_request(w, h->ticket);
		if (h->token && h->token == w->token) {
			h->held_ns = h->time_ns - w->since_ns;
			w->token = 0;
		}
	}
}

static void handle_event(struct monitor *m, struct watched *w,
			 const struct tlock_event *e)
{
	struct happening h;

	/* Unless emit_state() came after those that were lost */
	if (e->lost && e->time_ns > w->status_ns) {
		forget_all(w);
		w->began_ns = INT64_MIN;
		h = happening_of(w, "lost", e->time_ns);
		h.lost = e->lost;
		emit(m, &h);
	}
	if (is_known(w, e))
		return;
	h = happening_of(w, tlock_event_name(e->kind), e->time_ns);
	if (e->kind == TLOCK_EVENT_REVOKED)
		h.cause = e->flags & TLOCK_REMOTE ? "gate" :
			e->flags & TLOCK_REVOKING ? "operator" : "lease";
	h.token = e->token;
	h.ticket = e->ticket;
	h.has_process = e->kind != TLOCK_EVENT_DELETED;
	h.pid = e->pid;
	h.uid = e->uid;
	h.comm = e->comm;
	h.job = e->job;
	measure(w, &h, e->kind);
	emit(m, &h);
}

static bool has_events(const struct watched *w)
{
	return w->next_event < w->num_events;
}

/* The next event of a lock, or NULL if there is none yet */
static const struct tlock_event *next_event(struct watched *w)
{
	struct tlock_event events[MAX_EVENTS];
	ssize_t size;

	if (has_events(w))
		return &w->events[w->next_event];
	if (!w->may_have_events)
		return NULL;
	/* tlock_next_event() reads only one, which takes longer for each */
	size = read(tlock_fd(w->t), events, sizeof(events));
	if (size <= 0) {
		w->may_have_events = false;
		w->gone = !size || errno != EAGAIN;
		return NULL;
	}
	w->events = checked(realloc(w->events, size));
	memcpy(w->events, events, size);
	w->num_events = size / sizeof(*events);
	w->next_event = 0;
	return w->events;
}

/*
 * Handles the events until now, of all locks in the order of time. Drops the
 * locks that were deleted.
 */
static void handle_events(struct monitor *m)
{
	/*
	 * A later event must wait: another lock may still have an earlier one
	 * to read. Besides, this ends even if there are new events all the time.
	 */
	int64_t until_ns = now_ns(CLOCK_MONOTONIC);
	struct watched *first;
	size_t i;

	m->wall_clock_ns = wall_clock_ns();
	for (i = 0; i < m->num; i++)
		m->locks[i].may_have_events = true;
	do {
		first = NULL;
		for (i = 0; i < m->num; i++) {
			struct watched *w = &m->locks[i];
			const struct tlock_event *event = next_event(w);

			if (event && event->time_ns <= until_ns &&
			    (!first ||
			     event->time_ns < next_event(first)->time_ns))
				first = w;
		}
		if (first)
			handle_event(m, first,
				     &first->events[first->next_event++]);
	} while (first && !m->error);
	for (i = m->num; i-- > 0;)
		if (m->locks[i].gone && !has_events(&m->locks[i]))
			drop(m, i);
}

/* Flushes what was printed. Returns whether this and all else has worked. */
static bool is_printed(struct monitor *m)
{
	if (!m->error && fflush(stdout))
		m->error = errno;
	return !m->error;
}

/* Waits until there is something to do. */
static void wait_for_events(struct monitor *m, const sigset_t *mask)
{
	struct pollfd *pollers = checked(calloc(m->num + 2, sizeof(*pollers)));
	struct pollfd *output = &pollers[1];
	bool busy = false;
	sigset_t blocked;
	size_t i;

	/*
	 * The look at /dev comes first: once a new lock is there, the old one
	 * of the same name is found to be deleted
	 */
	pollers[0].fd = m->inotify;
	pollers[0].events = POLLIN;
	/* Reports only that nobody reads it any more */
	output->fd = m->journal ? -1 : STDOUT_FILENO;
	for (i = 0; i < m->num; i++) {
		pollers[i + 2].fd = tlock_fd(m->locks[i].t);
		pollers[i + 2].events = POLLIN;
		busy = busy || has_events(&m->locks[i]);
	}
	if (ppoll(pollers, m->num + 2, busy ? &(struct timespec){ 0 } : NULL,
		  mask) > 0 || busy) {
		if (output->revents & (POLLERR | POLLHUP))
			m->error = EPIPE;
		handle_events(m);
		if (pollers[0].revents)
			add_new(m);
	}
	free(pollers);
	/* ppoll() lets signals in only if it waits */
	sigprocmask(SIG_SETMASK, mask, &blocked);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
}

static void catch_signals(sigset_t *mask)
{
	static const int signals[] = { SIGHUP, SIGINT, SIGTERM };
	struct sigaction action = { .sa_handler = stop }, old;
	sigset_t blocked;
	size_t i;

	sigemptyset(&blocked);
	for (i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		sigaction(signals[i], NULL, &old);
		/* nohup, or the background of a script */
		if (old.sa_handler == SIG_IGN)
			continue;
		sigaction(signals[i], &action, NULL);
		sigaddset(&blocked, signals[i]);
	}
	/* They can come only in wait_for_events() */
	sigprocmask(SIG_BLOCK, &blocked, mask);
}

static void close_file(FILE *file, const char *path, int *status)
{
	bool failed = ferror(file);

	if (!fclose(file) && !failed)
		return;
	warn("%s", path);
	*status = EX_IOERR;
}

static FILE *open_file(const char *path)
{
	FILE *file = fopen(path, "we");

	if (!file)
		err(EX_CANTCREAT, "%s", path);
	return file;
}

int monitor_main(int argc, char **argv)
{
	enum { OPT_JOURNAL = 256, OPT_TIMELINE, OPT_SVG };
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'J' },
		{ "journal", no_argument, NULL, OPT_JOURNAL },
		{ "timeline", required_argument, NULL, OPT_TIMELINE },
		{ "svg", required_argument, NULL, OPT_SVG },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	const char *timeline = NULL, *svg = NULL;
	FILE *timeline_file = NULL, *svg_file = NULL;
	struct monitor m = { .inotify = -1 };
	struct sigaction pipe_action;
	int status = EX_OK;
	sigset_t mask;
	int c;

	while ((c = getopt_long(argc, argv, "JhV", options, NULL)) != -1) {
		switch (c) {
		case 'J':
			m.json = true;
			break;
		case OPT_JOURNAL:
			m.journal = true;
			break;
		case OPT_TIMELINE:
			timeline = optarg;
			break;
		case OPT_SVG:
			svg = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return EX_OK;
		case 'V':
			print_version();
			return EX_OK;
		default:
			try_help("monitor");
		}
	}
	if (m.json && m.journal)
		errx(EX_USAGE, "mutually exclusive: --json --journal");

	m.recorded = timeline || svg;
	if (m.journal)
		open_journal();
	begin_lines(&m.lines, false);
	begin_recording(&m.recording);
	m.wall_clock_ns = wall_clock_ns();
	if (optind == argc) {
		/* Before the look at the locks, so that none is missed */
		m.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (m.inotify < 0 ||
		    inotify_add_watch(m.inotify, "/dev", IN_CREATE | IN_ATTRIB |
				      IN_MOVED_TO) < 0)
			err(EX_OSERR, "cannot watch /dev for new locks");
		add_all(&m, false);
		/* Says what to do if the module is not loaded */
		if (!m.num) {
			c = add(&m, "tlock", false);
			if (c)
				exit(cannot_open("tlock", c));
		}
	}
	for (; optind < argc; optind++) {
		c = add(&m, argv[optind], false);
		if (c)
			exit(cannot_open(argv[optind], c));
	}
	if (timeline)
		timeline_file = open_file(timeline);
	if (svg)
		svg_file = open_file(svg);

	/* The files must be written even if nobody reads the output any more */
	sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN },
		  &pipe_action);
	catch_signals(&mask);
	/* What has happened since add() looked at these locks */
	handle_events(&m);
	while (!stopped && (m.num || m.inotify >= 0) && is_printed(&m))
		wait_for_events(&m, &mask);
	/* The kernel wakes readers a little later */
	if (stopped && !m.error)
		handle_events(&m);
	is_printed(&m);

	end_recording(&m.recording);
	if (timeline_file) {
		write_timeline(&m.recording, timeline_file);
		close_file(timeline_file, timeline, &status);
	}
	if (svg_file) {
		write_svg(&m.recording, svg_file);
		close_file(svg_file, svg, &status);
	}
	free_recording(&m.recording);
	while (m.num)
		drop(&m, m.num - 1);
	free(m.locks);
	if (!m.error)
		return status;

	errno = m.error;
	if (m.journal)
		err(EX_IOERR, "cannot log into the journal");
	/* End as other programs do whose output nobody reads any more */
	if (m.error == EPIPE && pipe_action.sa_handler == SIG_DFL) {
		sigaction(SIGPIPE, &pipe_action, NULL);
		raise(SIGPIPE);
	}
	warn("write error");
	_exit(EX_IOERR);
}
