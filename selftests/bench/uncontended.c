// SPDX-License-Identifier: GPL-2.0-only
/*
 * uncontended [LOCK...]: the cost of a lock that nobody else wants: of a pair
 * of acquire and release, of a reacquire, and of a try to acquire a held lock.
 * Measures the given locks, by default all.
 *
 * The result is the minimum of many batches, in which no interrupt came. The
 * cost of the loop and of the call through a pointer is measured with an empty
 * function and subtracted. The cost of the C library's system call wrapper is
 * not, because programs pay it too.
 */
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "locks.h"

enum { BATCHES = 30, OPS = 200 };

static void nothing(struct contender *c)
{
}

/* noipa: not specialized for its arguments, so the loop is always the same */
__attribute__((noipa))
static double cost_with_loop(void (*first)(struct contender *c),
			     void (*second)(struct contender *c),
			     struct contender *c)
{
	uint64_t least = UINT64_MAX;
	uint64_t start, took;

	for (int batch = 0; batch < BATCHES; batch++) {
		start = now();
		for (int op = 0; op < OPS; op++) {
			first(c);
			second(c);
		}
		took = now() - start;
		if (took < least)
			least = took;
	}
	return (double)least / OPS;
}

static double cost(void (*first)(struct contender *c),
		   void (*second)(struct contender *c), struct contender *c)
{
	return cost_with_loop(first, second, c) -
	       cost_with_loop(nothing, nothing, c);
}

/* The caller passes its job again, as it would in each call of a loop */
static void again_with_its_job(struct contender *c)
{
	c->arg.job[0] = 'a';
	if (ioctl(c->fd, TLOCK_IOC_REACQUIRE, &c->arg))
		err(1, "reacquire");
}

static void try(struct contender *c)
{
	c->arg.timeout_ns = 0;
	if (!ioctl(c->fd, TLOCK_IOC_ACQUIRE, &c->arg) || errno != ETIMEDOUT)
		errx(1, "a lock that is held was not refused");
}

int main(int argc, char **argv)
{
	struct contender holder, c;
	const struct lock *lock;

	locks->enter(&holder);
	figure(cost(null_ioctl, nothing, &holder), "null-ioctl");
	figure(cost(null_ioctl, null_ioctl, &holder), "null-ioctl/two");

	for (lock = locks; lock->name; lock++) {
		bool wanted = argc == 1;

		for (int i = 1; i < argc; i++)
			wanted |= !strcmp(lock->name, argv[i]);
		if (!wanted || lock->make())
			continue;
		lock->enter(&c);
		figure(cost(lock->acquire, lock->release, &c), "pair/%s",
		       lock->name);
		if (lock->again) {
			lock->acquire(&c);
			figure(cost(lock->again, nothing, &c), "reacquire/%s",
			       lock->name);
			lock->release(&c);
		}
	}

	locks->acquire(&holder);
	figure(cost(again_with_its_job, nothing, &holder),
	       "reacquire-same-job/tlock");
	locks->enter(&c);
	figure(cost(try, nothing, &c), "try-held/tlock");
	return 0;
}
