// SPDX-License-Identifier: LGPL-2.1-or-later
/* What the daemon has to say. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

void say(const char *level, const char *format, ...)
{
	va_list args;

	/* The journal reads the level; people need not see it */
	fputs(getenv("JOURNAL_STREAM") ? level : "tlockd: ", stderr);
	va_start(args, format);
	/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void die(const char *what, int err)
{
	say(SD_ERR, "%s: %s", what, strerror(err));
	exit(EXIT_FAILURE);
}

void *must(void *allocated)
{
	if (!allocated)
		die("tlockd", ENOMEM);
	return allocated;
}
