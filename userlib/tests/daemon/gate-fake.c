// SPDX-License-Identifier: GPL-2.0-only
/*
 * A replacement for tlockd's gate.c that needs no module: the test plays the
 * kernel. The directory $TLOCKD_FAKE has a socket NAME.sock for each gated lock
 * NAME of this host. A packet to it is a struct tlock_gate, a call; the answer is a
 * struct answer. A packet of one byte in between means that there is news, up to
 * the next call. The end of the connection means that the lock was deleted.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../daemon/gate.h"

#define SUFFIX	".sock"

struct answer {
	__u64 error;	/* an errno, or 0 */
	struct tlock_gate gate;
};

static const char *directory(void)
{
	const char *dir = getenv("TLOCKD_FAKE");

	return dir ? dir : "/nonexistent";
}

int gate_call(int fd, __u32 op, struct tlock_gate *gate)
{
	struct answer answer;
	ssize_t len;

	gate->op = op;
	if (send(fd, gate, sizeof(*gate), MSG_NOSIGNAL) < 0)
		return -ENODEV;
	do {
		len = recv(fd, &answer, sizeof(answer), 0);
	} while (len == 1 || (len < 0 && errno == EINTR));
	if (len != sizeof(answer))
		return -ENODEV;
	*gate = answer.gate;
	return -(int)answer.error;
}

int gate_open(const char *name)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, err;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s" SUFFIX,
		 directory(), name);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		err = errno == ENOENT ? -ENOENT : -ENODEV;
		close(fd);
		return err;
	}
	return fd;
}

int gate_list(void (*found)(const char *name, void *data), void *data)
{
	DIR *dir = opendir(directory());
	struct dirent *entry;
	char *end;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		end = strstr(entry->d_name, SUFFIX);
		if (!end || end[strlen(SUFFIX)])
			continue;
		*end = '\0';
		found(entry->d_name, data);
	}
	closedir(dir);
	return 0;
}
