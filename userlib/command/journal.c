// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock monitor --journal: logs events into the systemd journal, by its native
 * protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), which is simple enough
 * not to need a library.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>

#include "monitor.h"

/* The priorities of syslog(3) */
#define PRIORITY_WARNING	4
#define PRIORITY_INFO		6

/* How often to try again while the journal restarts */
#define MAX_TRIES	100
#define AGAIN_NS	100000000

static const struct sockaddr_un address = {
	.sun_family = AF_UNIX,
	.sun_path = "/run/systemd/journal/socket",
};

static int journal = -1;

void open_journal(void)
{
	/* If nobody listens there, say so now */
	journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (journal < 0 || connect(journal, (const struct sockaddr *)&address,
				   sizeof(address)))
		err(EX_UNAVAILABLE, "cannot log into the journal: %s",
		    address.sun_path);
}

static void put_field(FILE *out, const char *name, const char *value)
{
	uint64_t size = htole64(strlen(value));

	/* A command's name may have a newline in it */
	if (!strchr(value, '\n')) {
		fprintf(out, "%s=%s\n", name, value);
		return;
	}
	fprintf(out, "%s\n", name);
	fwrite(&size, sizeof(size), 1, out);
	fprintf(out, "%s\n", value);
}

static void put_number(FILE *out, const char *name, uint64_t number)
{
	fprintf(out, "%s=%" PRIu64 "\n", name, number);
}

static void put_span(FILE *out, const char *name, int64_t ns)
{
	if (ns < 0)
		return;
	fprintf(out, "%s=", name);
	print_seconds(ns, out);
	putc('\n', out);
}

/* A sentence for people who read the whole journal */
static void put_message(FILE *out, const struct happening *h)
{
	int64_t span = h->held_ns >= 0 ? h->held_ns : h->waited_ns;
	char *took = span >= 0 ? human_time(span) : NULL;
	char *comm = escaped(h->comm), *job = escaped(h->job);
	char *user = user_name(h->uid), *host = escaped(h->host);

	fprintf(out, "MESSAGE=%s: ", h->lock);
	if (h->lost)
		fprintf(out, "%" PRIu64 " events ", h->lost);
	fputs(h->kind, out);
	if (*host)
		fprintf(out, ": %s (on host %s)", comm, host);
	else if (h->has_process)
		fprintf(out, ": %s (pid %d, user %s)", comm, h->pid, user);
	if (*job)
		fprintf(out, ", job '%s'", job);
	if (took)
		fprintf(out, ", %s %s", h->held_ns >= 0 ? "held" : "waited",
			took);
	putc('\n', out);
	free(host);
	free(user);
	free(job);
	free(comm);
	free(took);
}

static int send_text(const char *text, size_t size)
{
	static const struct timespec pause = { .tv_nsec = AGAIN_NS };
	int tries = MAX_TRIES;

	/* send() waits while the journal has no room */
	while (send(journal, text, size, MSG_NOSIGNAL) < 0) {
		if (errno == EINTR)
			continue;
		/* It may be restarting */
		if ((errno != ECONNREFUSED && errno != ENOTCONN &&
		     errno != ECONNRESET && errno != ENOENT) || !tries--)
			return errno;
		nanosleep(&pause, NULL);
		connect(journal, (const struct sockaddr *)&address,
			sizeof(address));
	}
	return 0;
}

int log_event(const struct happening *h)
{
	char *text = NULL;
	size_t size;
	FILE *out = checked(open_memstream(&text, &size));
	bool warning = h->lost || is_loss(h->kind);
	int error;

	put_message(out, h);
	put_number(out, "PRIORITY", warning ? PRIORITY_WARNING : PRIORITY_INFO);
	put_field(out, "SYSLOG_IDENTIFIER", IDENTIFIER);
	put_field(out, "TLOCK_LOCK", h->lock);
	put_field(out, "TLOCK_EVENT", h->kind);
	if (h->has_process) {
		put_field(out, "TLOCK_JOB", h->job);
		if (*h->host) {
			put_field(out, "TLOCK_HOST", h->host);
		} else {
			put_number(out, "TLOCK_PID", h->pid);
			put_number(out, "TLOCK_UID", h->uid);
		}
		put_field(out, "TLOCK_COMMAND", h->comm);
	}
	if (h->cause)
		put_field(out, "TLOCK_CAUSE", h->cause);
	if (h->token)
		put_number(out, "TLOCK_TOKEN", h->token);
	if (h->ticket)
		put_number(out, "TLOCK_TICKET", h->ticket);
	put_span(out, "TLOCK_WAITED", h->waited_ns);
	put_span(out, "TLOCK_HELD", h->held_ns);
	if (h->lost)
		put_number(out, "TLOCK_LOST", h->lost);
	if (fclose(out))
		checked(NULL);
	error = send_text(text, size);
	free(text);
	return error;
}
