// SPDX-License-Identifier: LGPL-2.1-or-later
/* The socket that tells the state of the locks. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lock.h"
#include "log.h"
#include "report.h"

static void write_report(const struct session *session, FILE *to)
{
	int64_t left_ns = session->until_ns - clock_ns(CLOCK_BOOTTIME);
	struct etcd_figures figures;

	etcd_figures(session->etcd, &figures);
	fprintf(to, "tlockd\t%s\t%s\t%s\t%" PRId64 "\t%" PRIu64 "\t%" PRIu64 "\n",
		TLOCK_VERSION, session->config->host, figures.endpoint,
		left_ns > 0 ? left_ns / 1000000 : 0, figures.requests,
		figures.failures);
	locks_report(to);
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents,
			 void *data)
{
	int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	char *text = NULL;
	size_t size = 0;
	FILE *to;

	(void)source;
	(void)revents;
	if (peer < 0)
		return 0;
	to = open_memstream(&text, &size);
	if (!to)
		die("tlockd", errno);
	write_report(data, to);
	if (fclose(to))
		die("tlockd", errno);
	/* Whoever does not read must not hold us up, and loses the rest */
	setsockopt(peer, SOL_SOCKET, SO_SNDBUF, &(int){ (int)size * 2 },
		   sizeof(int));
	send(peer, text, size, MSG_NOSIGNAL);
	free(text);
	close(peer);
	return 0;
}

void report_open(struct session *session, sd_event *event)
{
	const char *directory = getenv("RUNTIME_DIRECTORY");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, err;

	if (!directory) {
		directory = "/run/tlockd";
		if (mkdir(directory, 0755) && errno != EEXIST)
			die(directory, errno);
	}
	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/status",
		     directory) >= (int)sizeof(address.sun_path))
		die(directory, ENAMETOOLONG);
	unlink(address.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    chmod(address.sun_path, 0666) || listen(fd, SOMAXCONN))
		die(address.sun_path, errno);
	err = sd_event_add_io(event, NULL, fd, EPOLLIN, on_connection, session);
	if (err < 0)
		die("sd_event_add_io", -err);
}
