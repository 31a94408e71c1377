// SPDX-License-Identifier: LGPL-2.1-or-later
/* The kernel's side of a gated lock: TLOCK_IOC_GATE, and nothing else. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "gate.h"

/* What the names of devices begin with; one lock, which is not gated, lacks it */
#define PREFIX	"tlock-"

static bool is_gated(const char *device)
{
	char path[sizeof("/sys/class/tlock//gate") + NAME_MAX], text[16];
	FILE *file;
	bool gated;

	snprintf(path, sizeof(path), "/sys/class/tlock/%s/gate", device);
	file = fopen(path, "re");
	if (!file)
		return false;
	gated = fgets(text, sizeof(text), file) && *text != '\n';
	fclose(file);
	return gated;
}

int gate_list(void (*found)(const char *name, void *data), void *data)
{
	struct dirent *entry;
	int err = 0;
	DIR *dir;

	dir = opendir("/sys/class/tlock");
	if (!dir)
		return errno == ENOENT ? 0 : -1;
	while ((errno = 0, entry = readdir(dir)))
		if (!strncmp(entry->d_name, PREFIX, strlen(PREFIX)) &&
		    is_gated(entry->d_name))
			found(entry->d_name + strlen(PREFIX), data);
	err = errno;
	closedir(dir);
	errno = err;
	return err ? -1 : 0;
}

int gate_open(const char *name)
{
	char path[sizeof("/dev/") + TLOCK_NAME_SIZE];
	int fd;

	snprintf(path, sizeof(path), "/dev/" PREFIX "%s", name);
	/* Read-only, so that the lock can still be deleted */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int gate_call(int fd, __u32 op, struct tlock_gate *gate)
{
	gate->op = op;
	return ioctl(fd, TLOCK_IOC_GATE, gate) ? -errno : 0;
}
