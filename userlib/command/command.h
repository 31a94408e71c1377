/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of the tlock command share */
#ifndef TLOCK_COMMAND_H
#define TLOCK_COMMAND_H

#include <stdint.h>

#include "tlock.h"

/* run.c, status.c. Return: exit status */
int run_main(int argc, char **argv);
int status_main(int argc, char **argv);
int list_main(int argc, char **argv);

/* tlock.c */

/* After a message on bad usage: where there is more to read. Doesn't return. */
void try_help(const char *subcommand) __attribute__((__noreturn__));

void print_version(void);

/* Ends with a message if @ptr is NULL, for want of memory. Return: @ptr */
void *checked(void *ptr);

/*
 * open_lock - tlock_open(), which on failure says why, and what to do
 *
 * Return: the handle; or NULL with *@status set to what to exit with
 */
struct tlock *open_lock(const char *lock, int mode, int *status);

/* text.c */

/*
 * clean - copy text without control characters
 * @buf: where to, @size bytes; what does not fit is left out, by whole
 *	characters
 *
 * Each control character becomes a space.
 */
void clean(char *buf, size_t size, const char *text);

/*
 * escaped - text of any bytes, made fit to print
 *
 * Bytes that are not UTF-8 and control characters are written \xHH, as is a
 * backslash ahead of an 'x', so that the result is unambiguous.
 *
 * Return: UTF-8 without control characters, to be freed
 */
char *escaped(const char *text);

/* A time span to read, such as "2.3s" or "1h 5m". Return: to be freed */
char *human_time(uint64_t ns);

/* A user's name, or number if it has none. Return: to be freed */
char *user_name(uint32_t uid);

/* How long ago on CLOCK_MONOTONIC @since_ns was, in nanoseconds */
uint64_t ns_since(int64_t since_ns);

#endif /* TLOCK_COMMAND_H */
