/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Declarations that the parts of the tlock command share */
#ifndef TLOCK_COMMAND_H
#define TLOCK_COMMAND_H

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <time.h>

#include "tlock.h"

/* The locks of this host; the directory also has new_lock and the like */
#define CLASS	"/sys/class/tlock"

/* run.c, revoke.c, status.c, monitor.c, log.c, create.c. Return: exit status */
int run_main(int argc, char **argv);
int revoke_main(int argc, char **argv);
int status_main(int argc, char **argv);
int list_main(int argc, char **argv);
int monitor_main(int argc, char **argv);
int log_main(int argc, char **argv);
int create_main(int argc, char **argv);
int delete_main(int argc, char **argv);

/* tlock.c */

/* Says, after a message on bad usage, how to get help. Doesn't return. */
void try_help(const char *subcommand) __attribute__((__noreturn__));

void print_version(void);

/*
 * parse_seconds - a time of the command line
 * @what: its name, for the message if it is invalid
 * @subcommand: for try_help()
 *
 * Return: nanoseconds, as tlock_seconds() does
 */
int64_t parse_seconds(const char *text, const char *what,
		      const char *subcommand);

/* Exits with a message on lack of memory if @ptr is NULL. Return: @ptr */
void *checked(void *ptr);

/*
 * cannot_open - say why a lock cannot be opened, and what to do
 * @error: the errno of tlock_open()
 *
 * Return: exit status
 */
int cannot_open(const char *lock, int error);

/* Whether this is the name of a lock's device */
bool is_lock_name(const char *name);

/* The same for scandir(3) of CLASS */
int is_lock(const struct dirent *entry);

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

/*
 * Local time in ISO 8601, with @fraction, such as ".5" or "", after the seconds;
 * the caller must free it
 */
char *iso_time(time_t seconds, const char *fraction);

/* Seconds with nine decimals, for programs; the caller must free it */
char *seconds_of(int64_t ns);

/* Prints the same. */
void print_seconds(int64_t ns, FILE *out);

/*
 * print_json_text - print a string in JSON, or null if it is empty
 * @text: any bytes; see escaped()
 */
void print_json_text(const char *text, FILE *out);

/* Prints a string as a member of an object, behind the members before it. */
void print_json_member(const char *name, const char *text, FILE *out);

/*
 * Prints who holds the lock of @t, on which host, for what, how long, and when
 * that expires; or that its gate is shut. Without a newline.
 */
void print_holder(const struct tlock *t, const struct tlock_holder *holder,
		  FILE *out);

/* A user's name, or number if it has none; the caller must free it */
char *user_name(uint32_t uid);

#define NS_PER_S	INT64_C(1000000000)

/* The time of @clock, in nanoseconds */
int64_t now_ns(clockid_t clock);

/*
 * How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, which does not change
 * unless the clock is set, in nanoseconds
 */
int64_t wall_clock_ns(void);

/* Whether the grant has an expiry, past or to come */
bool expires(const struct tlock_holder *holder);

/* How much time is left until that expiry: negative if it has passed */
int64_t ns_left(const struct tlock_holder *holder);

/* How long ago on CLOCK_MONOTONIC @since_ns was, in nanoseconds */
uint64_t ns_since(int64_t since_ns);

/* gate.c: locks that several hosts share */

#define NO_DAEMON \
	"no tlockd runs on this host; as root, run 'systemctl start tlockd'"

/* Whether the lock is another host's: nobody on this one can have it now */
bool is_remote(const struct tlock_holder *holder);

/*
 * Gets the host of a holder that is_remote(), which the lock of @t has or had;
 * empty if that is not known any more, and for any other holder.
 */
void read_host(const struct tlock *t, const struct tlock_holder *holder,
	       char host[TLOCK_HOST_SIZE]);

/* "open", "shut" or, without a daemon, "unserved"; NULL if it has no gate */
const char *gate_name(const struct tlock_status *status);

/*
 * Prints that the gate is shut, and what to do about it, without a newline.
 *
 * host: the one that has the lock; empty if that is not known
 */
void print_shut(const struct tlock_status *status, const char *host, FILE *out);

/* queue.c */

/*
 * read_waiters - read who waits for a lock, the longest waiter first
 * @max: read at most so many
 * @num: receives how many there are
 *
 * Return: an array, which the caller must free; NULL if nobody waits
 */
struct tlock_waiter *read_waiters(const struct tlock *t, size_t max,
				  size_t *num);

/* holder.c */

/*
 * users_of - which processes have a lock open for writing, as far as we may see
 * @device: the lock's
 *
 * Return: a text such as "PID 812 (python3), 813 (tlock)", which the caller must
 * free; empty if there are none
 */
char *users_of(dev_t device);

/*
 * Whether a process can go on: it is neither stopped, traced nor frozen, nor
 * does it write a core dump
 */
bool can_go_on(pid_t pid);

#endif /* TLOCK_COMMAND_H */
