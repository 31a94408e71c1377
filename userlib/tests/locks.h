/* SPDX-License-Identifier: GPL-2.0-only */
/* Creates and deletes locks, for the tests in C and in C++ */
#ifndef LOCKS_H
#define LOCKS_H

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Each returns 0, or -1 and errno */
static inline int write_to_class(const char *file, const char *name)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -1;
	ret = write(fd, name, strlen(name)) < 0 ? -1 : 0;
	close(fd);
	return ret;
}

static inline int create_lock(const char *name)
{
	return write_to_class("/sys/class/tlock/new_lock", name);
}

static inline int create_gated_lock(const char *name)
{
	return write_to_class("/sys/class/tlock/new_gated_lock", name);
}

static inline int delete_lock(const char *name)
{
	return write_to_class("/sys/class/tlock/delete_lock", name);
}

#endif /* LOCKS_H */
