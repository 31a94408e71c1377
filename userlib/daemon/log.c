// SPDX-License-Identifier: LGPL-2.1-or-later
/* What the daemon has to say. */
#define _GNU_SOURCE
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

char *format(const char *template, ...)
{
	va_list args;
	char *text;

	va_start(args, template);
	if (vasprintf(&text, template, args) < 0)
		die("tlockd", ENOMEM);
	va_end(args);
	return text;
}

void *must(void *allocated)
{
	if (!allocated)
		die("tlockd", ENOMEM);
	return allocated;
}
