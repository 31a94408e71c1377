// SPDX-License-Identifier: GPL-2.0-only
/*
 * overshoot idle|load WAITS: how late a timeout of 10 ms ends an acquire, and a
 * sleep. With load, every CPU has something else to do.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "locks.h"

enum { TIMEOUT_NS = 10000000 };

static struct contender holder, c;

static void time_out(void)
{
	c.arg.timeout_ns = TIMEOUT_NS;
	if (!ioctl(c.fd, TLOCK_IOC_ACQUIRE, &c.arg) || errno != ETIMEDOUT)
		errx(1, "a lock that is held was not refused");
}

static void sleep_instead(void)
{
	struct timespec ts = { .tv_nsec = TIMEOUT_NS };

	clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(void (*wait)(void), const char *name, const char *how,
		    int count)
{
	double *late = calloc(count, sizeof(*late));

	for (int i = 0; i < count; i++) {
		uint64_t began = now();

		wait();
		/* Negative: too early */
		late[i] = ((double)(now() - began) - TIMEOUT_NS) / 1000;
	}
	qsort(late, count, sizeof(*late), compare);
	figure(late[0], "overshoot-us/%s/%s/min", how, name);
	figure(late[count / 2], "overshoot-us/%s/%s/p50", how, name);
	figure(late[count * 99 / 100], "overshoot-us/%s/%s/p99", how, name);
	free(late);
}

int main(int argc, char **argv)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (argc != 3)
		errx(2, "usage: overshoot idle|load WAITS");
	for (int i = 0; *argv[1] == 'l' && i < cpus; i++) {
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				;
		}
	}
	locks->enter(&holder);
	locks->enter(&c);
	locks->acquire(&holder);
	measure(time_out, "tlock", argv[1], atoi(argv[2]));
	measure(sleep_instead, "clock_nanosleep", argv[1], atoi(argv[2]));
	return 0;
}
