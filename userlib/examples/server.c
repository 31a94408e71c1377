// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * server SOCKET: the only program that talks to an instrument. Its clients take
 * the instrument's lock first, and send one command a line, each after the
 * token of their grant, as tlock_token() returns it:
 *
 *	24 move 7.5
 *
 * The answer is "ok", or "refused: " and why. The server refuses tokens older
 * than the newest it has seen. So once the next holder has sent its first
 * command, no late command of an earlier holder gets through: of one, say, that
 * hung, was revoked, and then goes on where it was. A new holder begins with a
 * command that does no harm, such as a query.
 *
 * The server does not use tlock, so this works just as well on another host, or
 * in the firmware of the instrument. After a restart, it accepts any token until
 * it has seen one. A server that must not do so keeps the newest in a file.
 *
 * If several hosts share the lock, see tlockd(8), the clients of all of them
 * need one such server, with a socket of the network. Tokens grow across hosts;
 * and nothing else stops a late command from a host that was frozen and goes on.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST_CLIENTS	64
#define MOST_LINE	256

struct client {
	size_t len;
	char line[MOST_LINE];
};

/* The socket, and its clients, which have the same index in both */
static struct pollfd fds[1 + MOST_CLIENTS];
static struct client clients[1 + MOST_CLIENTS];

static uint64_t newest;

static void die(const char *why)
{
	perror(why);
	exit(1);
}

/* Does what a line says, and writes the answer. */
static void obey(const char *line, char *answer, size_t size)
{
	uint64_t token;
	char *command;

	errno = 0;
	token = isdigit((unsigned char)*line) ? strtoull(line, &command, 10) :
						0;
	/* 0 is the token of a program that does not hold the lock */
	if (!token || errno || *command != ' ') {
		snprintf(answer, size, "refused: no token and command\n");
		return;
	}
	if (token < newest) {
		snprintf(answer, size,
			 "refused: the newest token is %" PRIu64 "\n", newest);
		return;
	}
	newest = token;
	/* Talk to the instrument here, and nowhere else */
	printf("%s\n", command + 1);
	snprintf(answer, size, "ok\n");
}

/* Reads from a client. Returns false if that ends the connection. */
static bool serve(int fd, struct client *c)
{
	ssize_t len = read(fd, c->line + c->len, sizeof(c->line) - c->len);
	char answer[64], *line = c->line, *end;

	if (len <= 0)
		return len && (errno == EAGAIN || errno == EINTR);
	c->len += len;
	while ((end = memchr(line, '\n', c->len))) {
		*end++ = '\0';
		obey(line, answer, sizeof(answer));
		/* Drop a client that does not read its answers */
		if (send(fd, answer, strlen(answer), MSG_NOSIGNAL) !=
		    (ssize_t)strlen(answer))
			return false;
		c->len -= end - line;
		line = end;
	}
	memmove(c->line, line, c->len);
	/* Otherwise the line is too long */
	return c->len < sizeof(c->line);
}

static void accept_client(void)
{
	int fd = accept4(fds[0].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	for (int i = 1; fd >= 0 && i <= MOST_CLIENTS; i++) {
		if (fds[i].fd < 0) {
			fds[i].fd = fd;
			clients[i].len = 0;
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

int main(int argc, char *argv[])
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path)) {
		fputs("usage: server SOCKET\n", stderr);
		return 2;
	}
	strcpy(address.sun_path, argv[1]);
	/* poll() skips a negative descriptor */
	for (int i = 0; i <= MOST_CLIENTS; i++)
		fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	fds[0].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			   0);
	if (fds[0].fd < 0 ||
	    bind(fds[0].fd, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(fds[0].fd, MOST_CLIENTS))
		die(argv[1]);
	/* Print each line at once, even into a pipe */
	setlinebuf(stdout);
	printf("ready\n");

	for (;;) {
		if (poll(fds, 1 + MOST_CLIENTS, -1) < 0)
			continue;
		for (int i = 1; i <= MOST_CLIENTS; i++) {
			if (fds[i].revents && !serve(fds[i].fd, &clients[i])) {
				close(fds[i].fd);
				fds[i].fd = -1;
			}
		}
		if (fds[0].revents)
			accept_client();
	}
}
