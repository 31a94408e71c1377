// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock monitor: prints what happens to locks, as it happens.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sysexits.h>
#include <unistd.h>

#include "monitor.h"

static const char usage[] =
"Usage:\n"
" tlock monitor [options] [LOCK...]\n"
"\n"
"Print what happens to locks, a line for each event, until it is interrupted.\n"
"Without LOCK, for all locks of this host, and for those that are created later.\n"
"\n"
"Options:\n"
" -J, --json     print a JSON object for each event, in a line of its own\n"
" -h, --help     display this help\n"
" -V, --version  display version\n"
"\n"
"For more details see tlock(1).\n";

/* A lock that is monitored */
struct watched {
	char *name;		/* of its device */
	struct tlock *t;
	uint64_t seq;		/* of the event before */
	uint64_t token;		/* of the holder when this began, or 0 */
	uint64_t ticket;	/* of the newest waiter then, or 0 */
};

struct all {
	struct watched *locks;
	size_t num;
	struct output out;
};

/* Tells an event that the kernel does not report. */
static void tell(struct all *all, const struct watched *w, const char *kind,
		 const struct tlock_event *event)
{
	const struct happening h = {
		.lock = w->name,
		.kind = kind,
		.event = event,
	};

	print_event(&all->out, &h);
}

/* Tells who holds the lock, and who waits, as if that happened now. */
static void tell_state(struct all *all, struct watched *w)
{
	struct tlock_event event = { .time_ns = now_ns(CLOCK_MONOTONIC) };
	struct tlock_waiter waiter = { 0 };
	struct tlock_status status;

	if (tlock_status(w->t, &status))
		return;
	w->token = status.holder.token;
	if (w->token) {
		event.time_ns = status.holder.since_ns;
		event.token = status.holder.token;
		event.pid = status.holder.pid;
		event.uid = status.holder.uid;
		memcpy(event.comm, status.holder.comm, sizeof(event.comm));
		memcpy(event.job, status.holder.job, sizeof(event.job));
		tell(all, w, "held", &event);
	}
	while (!tlock_waiter(w->t, &waiter)) {
		w->ticket = waiter.ticket;
		event.time_ns = waiter.since_ns;
		event.token = 0;
		event.ticket = waiter.ticket;
		event.pid = waiter.pid;
		event.uid = waiter.uid;
		memcpy(event.comm, waiter.comm, sizeof(event.comm));
		memcpy(event.job, waiter.job, sizeof(event.job));
		tell(all, w, "waiting", &event);
	}
}

/* Whether tell_state() has told it: the event came before that */
static bool is_told(const struct watched *w, const struct tlock_event *event)
{
	if (event->kind == TLOCK_EVENT_WAITING)
		return event->ticket <= w->ticket;
	if (event->kind == TLOCK_EVENT_ACQUIRED)
		return event->token <= w->token;
	return event->token && event->token < w->token;
}

/* Begins to monitor a lock. Returns 0 or an errno. */
static int add(struct all *all, const char *lock, bool is_new)
{
	struct tlock_event created = { .time_ns = now_ns(CLOCK_MONOTONIC) };
	struct watched w = { .t = tlock_open(lock, O_RDONLY) };
	struct tlock_status status;

	if (!w.t)
		return errno;
	if (tlock_monitor(w.t) || tlock_status(w.t, &status)) {
		int error = errno;

		tlock_close(w.t);
		return error;
	}
	w.name = checked(strdup(status.name));
	all->locks = checked(reallocarray(all->locks, all->num + 1,
					  sizeof(w)));
	all->locks[all->num++] = w;
	if (is_new)
		tell(all, &w, "created", &created);
	tell_state(all, &all->locks[all->num - 1]);
	return 0;
}

static void drop(struct all *all, size_t i)
{
	tlock_close(all->locks[i].t);
	free(all->locks[i].name);
	memmove(&all->locks[i], &all->locks[i + 1],
		(--all->num - i) * sizeof(*all->locks));
}

static bool has(const struct all *all, const char *name)
{
	size_t i;

	for (i = 0; i < all->num; i++)
		if (!strcmp(all->locks[i].name, name))
			return true;
	return false;
}

/* Adds the locks that there are. */
static void add_all(struct all *all)
{
	struct dirent **entries = NULL;
	int num = scandir(CLASS, &entries, is_lock, versionsort);
	int i;

	for (i = 0; i < num; i++) {
		int error = add(all, entries[i]->d_name, false);

		/* It may have just been deleted */
		if (error && error != ENOENT && error != ENODEV)
			cannot_open(entries[i]->d_name, error);
		free(entries[i]);
	}
	free(entries);
}

/* Adds the locks whose device files are new, or can be opened now. */
static void add_new(struct all *all, int inotify)
{
	char buf[4096] __attribute__((__aligned__(8)));
	ssize_t size = read(inotify, buf, sizeof(buf));
	const struct inotify_event *event;
	ssize_t at;

	for (at = 0; at < size; at += sizeof(*event) + event->len) {
		event = (const void *)(buf + at);
		/* udev may give permission only after a while */
		if (event->len && is_lock_name(event->name) &&
		    !has(all, event->name))
			add(all, event->name, true);
	}
}

/* Prints all events of a lock. Returns whether more can come. */
static bool print_events(struct all *all, struct watched *w)
{
	struct pollfd poller = { .fd = tlock_fd(w->t), .events = POLLIN };
	struct tlock_event event;

	while (poll(&poller, 1, 0) == 1) {
		struct happening h = { .lock = w->name, .event = &event };

		if (tlock_next_event(w->t, &event))
			return errno == EINTR;
		if (w->seq)
			h.lost = event.seq - w->seq - 1;
		w->seq = event.seq;
		h.kind = tlock_event_name(event.kind);
		if (!is_told(w, &event))
			print_event(&all->out, &h);
	}
	return true;
}

static int monitor(struct all *all, int inotify)
{
	struct pollfd *pollers = NULL;
	size_t i, num;

	for (;;) {
		num = all->num;
		pollers = checked(reallocarray(pollers, num + 1,
					       sizeof(*pollers)));
		for (i = 0; i < num; i++)
			pollers[i] = (struct pollfd){
				.fd = tlock_fd(all->locks[i].t),
				.events = POLLIN,
			};
		pollers[num] = (struct pollfd){
			.fd = inotify,
			.events = POLLIN,
		};
		if (!num && inotify < 0)
			break;
		if (fflush(stdout))
			err(EX_IOERR, "write error");
		if (poll(pollers, num + 1, -1) < 0)
			continue;
		/* Backwards, as some may go */
		for (i = num; i-- > 0;)
			if (pollers[i].revents &&
			    !print_events(all, &all->locks[i]))
				drop(all, i);
		if (pollers[num].revents)
			add_new(all, inotify);
	}
	free(pollers);
	free(all->locks);
	return EX_OK;
}

int monitor_main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'J' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	struct all all = { 0 };
	int inotify = -1;
	int c;

	while ((c = getopt_long(argc, argv, "JhV", options, NULL)) != -1) {
		switch (c) {
		case 'J':
			all.out.json = true;
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
	if (optind == argc) {
		/* Before the look at the locks, so that none is missed */
		inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (inotify < 0 || inotify_add_watch(inotify, "/dev", IN_CREATE |
						     IN_ATTRIB | IN_MOVED_TO) < 0)
			err(EX_OSERR, "cannot watch /dev for new locks");
		add_all(&all);
		/* Says what to do if the module is not loaded */
		if (!all.num) {
			c = add(&all, "tlock", false);
			if (c)
				return cannot_open("tlock", c);
		}
	}
	for (; optind < argc; optind++) {
		c = add(&all, argv[optind], false);
		if (c)
			return cannot_open(argv[optind], c);
	}
	return monitor(&all, inotify);
}
