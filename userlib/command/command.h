/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Declarations that the parts of the tlock command share */
#ifndef TLOCK_COMMAND_H
#define TLOCK_COMMAND_H

#include <stdint.h>

#include "tlock.h"

/* run.c, status.c. Return: exit status */
int run_main(int argc, char **argv);
int status_main(int argc, char **argv);
int list_main(int argc, char **argv);

/* tlock.c */

/* Says, after a message on bad usage, how to get help. Doesn't return. */
void try_help(const char *subcommand) __attribute__((__noreturn__));

void print_version(void);

/* Exits with a message on lack of memory if @ptr is NULL. Return: @ptr */
void *checked(void *ptr);

/*
 * open_lock - tlock_open() that prints, on failure, why and what to do
 *
 * Return: the handle; or NULL, with the exit status in *@status
 */
struct tlock *open_lock(const char *lock, int mode, int *status);

/* text.c */

/*
 * clean - copy text without control characters
 * @buf: where to write it, @size bytes; characters that do not fit as a whole
 *	are left out
 *
 * Each control character becomes a space.
 */
void clean(char *buf, size_t size, const char *text);

/*
 * escaped - make text of any bytes printable
 *
 * Bytes that are not UTF-8 and control characters are written as \xHH, and so
 * is a backslash ahead of an 'x', so that the result is unambiguous.
 *
 * Return: UTF-8 without control characters; the caller must free it
 */
char *escaped(const char *text);

/* A time span for people, such as "2.3s" or "1h 5m"; the caller must free it */
char *human_time(uint64_t ns);

/* A user's name, or number if it has none; the caller must free it */
char *user_name(uint32_t uid);

/* How long ago on CLOCK_MONOTONIC @since_ns was, in nanoseconds */
uint64_t ns_since(int64_t since_ns);

#endif /* TLOCK_COMMAND_H */
