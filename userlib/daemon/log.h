/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_LOG_H
#define TLOCKD_LOG_H

#include <systemd/sd-daemon.h>

/**
 * say - write a line to the journal, or to stderr
 * @level: SD_ERR, SD_WARNING, SD_NOTICE or SD_INFO
 * @format: as for printf(3), without a newline at the end
 */
void say(const char *level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/**
 * die - report an error that leaves the process in an unknown state, and end it
 * @what: what failed
 * @err: its error number
 *
 * The kernel then ends this host's grants in time, and the service manager starts
 * another process.
 */
void die(const char *what, int err) __attribute__((noreturn));

/** format - print to a string, to free(3); without memory, end the process */
char *format(const char *template, ...) __attribute__((format(printf, 1, 2)));

/** must - pass on memory that was allocated; without memory, end the process */
void *must(void *allocated);

#endif
