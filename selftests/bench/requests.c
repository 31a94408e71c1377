// SPDX-License-Identifier: GPL-2.0-only
/*
 * requests WAITERS [timed]: measure asynchronous requests, all in one thread.
 *
 * WAITERS requests wait, and one contender holds the lock; an epoll watches all
 * of their files. A loop waits for the next event, fetches the grant, and lets
 * the next one in by an asynchronous reacquire. The results are the time from
 * one grant to the next, with all that the thread does for it, and the kernel
 * memory that a request takes: its file, its contender and its place in the
 * epoll. With "timed", each request has a deadline, which never passes.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "locks.h"

enum { BATCH = 100, BATCHES = 10 };

static void start(struct contender *c, unsigned long command)
{
	if (!ioctl(c->fd, command, &c->arg) || errno != EINPROGRESS)
		err(1, "a request does not wait");
}

int main(int argc, char **argv)
{
	int contenders = argc < 2 ? 0 : atoi(argv[1]) + 1, epoll;
	const char *kind = argc > 2 ? "timed" : "untimed";
	struct rlimit files = { 4 * contenders, 4 * contenders };
	uint64_t began, took, least = UINT64_MAX;
	struct epoll_event event;
	struct contender *c;
	double before;

	if (contenders < 2)
		errx(2, "usage: requests WAITERS [timed]");
	if (files.rlim_cur < 1000)
		files.rlim_cur = files.rlim_max = 1000;
	check(setrlimit(RLIMIT_NOFILE, &files), "RLIMIT_NOFILE");
	/* The file table grows here, not while memory is measured */
	check(dup2(0, files.rlim_cur - 1), "dup2");
	epoll = check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	c = calloc(contenders, sizeof(*c));

	before = slab_bytes();
	for (int i = 0; i < contenders; i++) {
		c[i].fd = check(open(DEVICE, O_RDWR | O_CLOEXEC), DEVICE);
		c[i].arg.timeout_ns = argc > 2 ? TIMEOUT_S * 1000000000LL : -1;
		c[i].arg.flags = TLOCK_ASYNC;
		strcpy(c[i].arg.job, "acq");
		event = (struct epoll_event) {
			.events = EPOLLOUT | EPOLLET,
			.data.u32 = i,
		};
		if (!i)
			check(ioctl(c->fd, TLOCK_IOC_ACQUIRE, &c->arg),
			      "acquire");
		else
			start(c + i, TLOCK_IOC_ACQUIRE);
		check(epoll_ctl(epoll, EPOLL_CTL_ADD, c[i].fd, &event),
		      "epoll_ctl");
	}
	if (contenders > 1000)
		figure((slab_bytes() - before) / contenders,
		       "memory/request-bytes/%s", kind);

	/* The first holder is writable at once */
	check(epoll_wait(epoll, &event, 1, -1), "epoll_wait");
	start(c, TLOCK_IOC_REACQUIRE);
	/* By the second round each contender has held the lock */
	for (int batch = -contenders / BATCH - 1; batch < BATCHES; batch++) {
		began = now();
		for (int op = 0; op < BATCH; op++) {
			check(epoll_wait(epoll, &event, 1, -1), "epoll_wait");
			check(ioctl(c[event.data.u32].fd, TLOCK_IOC_ACQUIRE,
				    &c[event.data.u32].arg), "fetch");
			start(c + event.data.u32, TLOCK_IOC_REACQUIRE);
		}
		took = now() - began;
		if (batch >= 0 && took < least)
			least = took;
	}
	figure((double)least / BATCH, "handover/async-%s/%d", kind,
	       contenders - 1);
	_exit(0);
}
