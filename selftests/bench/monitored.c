// SPDX-License-Identifier: GPL-2.0-only
/*
 * monitored: what it costs a contender that its lock is monitored: a pair of
 * acquire and release that nobody else wants, with no monitor, one that reads
 * everything, 100 such, 100 that read too slowly, and 100 that never read.
 *
 * The result is the contender's CPU time, which does not include the readers'.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "locks.h"

enum { PAIRS = 50000, MANY = 100, BUFFER = 256 };

static void read_all(int fd)
{
	struct tlock_event events[BUFFER];

	for (;;)
		check(read(fd, events, sizeof(events)), "read");
}

static void read_slowly(int fd)
{
	struct tlock_event event;

	for (;;) {
		check(read(fd, &event, sizeof(event)), "read");
		usleep(100000);
	}
}

static void read_never(int fd)
{
	pause();
}

static pid_t start_monitor(void (*fn)(int fd))
{
	pid_t pid;
	int fd = check(open(DEVICE, O_RDONLY | O_CLOEXEC), DEVICE);

	check(ioctl(fd, TLOCK_IOC_MONITOR), "monitor");
	pid = check(fork(), "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn(fd);
	}
	close(fd);
	return pid;
}

static void stop_monitor(pid_t pid)
{
	check(kill(pid, SIGKILL), "kill");
	check(waitpid(pid, NULL, 0), "waitpid");
}

static uint64_t cpu_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static double cost(struct contender *c)
{
	uint64_t start = cpu_time();

	for (int i = 0; i < PAIRS; i++) {
		locks->acquire(c);
		locks->release(c);
	}
	return (double)(cpu_time() - start) / PAIRS;
}

static void measure(struct contender *c, int monitors, void (*fn)(int fd),
		    double none, const char *name)
{
	pid_t pids[MANY];

	for (int i = 0; i < monitors; i++)
		pids[i] = start_monitor(fn);
	figure(cost(c) / none, "monitored/%s", name);
	for (int i = 0; i < monitors; i++)
		stop_monitor(pids[i]);
}

int main(void)
{
	struct contender c;
	double none;

	locks->enter(&c);
	none = cost(&c);
	figure(none, "monitored/by-nobody");
	measure(&c, 1, read_all, none, "by-one");
	measure(&c, MANY, read_all, none, "by-100");
	measure(&c, MANY, read_slowly, none, "by-100-slow");
	measure(&c, MANY, read_never, none, "by-100-stuck");
	return 0;
}
