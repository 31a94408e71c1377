// SPDX-License-Identifier: GPL-2.0-only
/*
 * handover HOW LOCK WAITERS: the cost of a hand-over.
 *
 * One thread holds the lock and WAITERS threads wait for it. All of them
 * acquire and release it in a loop. The results are the time from one grant to
 * the next, with everything that all threads do in it, and how often a task
 * went to sleep. HOW is
 *   loop   release, then acquire
 *   again  reacquire
 *   turns  for locks that the releaser would get back before a waiter runs: it
 *          yields the CPU until another thread has had the lock, and releases
 *          only when all others wait
 *
 * All threads run under SCHED_FIFO, where a task that was woken runs when the
 * one that woke it goes to sleep. Other policies consider the history of each
 * task, which would hide the cost of the locks.
 *
 * "ring" is not a lock: each thread wakes the next one by an eventfd and waits
 * for its own. With one waiter that is ping-pong.
 */
#include <err.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "locks.h"

enum { BATCH = 100, BATCHES = 10, STACK = 32768 };

static const char *how;
static const char *name;
static const struct lock *lock;
static int contenders;

static atomic_int waiting;
static void *_Atomic last;	/* who had the lock */

/* Used only by the holder */
static long grants;
static long slept_first;
static uint64_t began;
static uint64_t least = UINT64_MAX;

static int *ring;	/* eventfds, one for each thread */

static long slept(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_nvcsw;
}

/* Returns to the first holder when all others wait. */
static void first_wait(void *c)
{
	waiting++;
	lock->acquire(c);
	while (waiting < contenders)
		usleep(1000);
}

static void granted(void *to)
{
	/* By then each thread waits or has waited */
	long warm = BATCH + (ring ? contenders : 0);
	uint64_t time;

	/* With several CPUs, the releaser may be the only one that wants it */
	if (to == last)
		return;
	last = to;
	grants++;
	if (grants < warm || (grants - warm) % BATCH)
		return;

	time = now();
	if (grants == warm)
		slept_first = slept();
	else if (time - began < least)
		least = time - began;
	if (grants == warm + BATCH * BATCHES) {
		figure((double)least / BATCH, "handover/%s/%s/%d", how, name,
		       contenders - 1);
		figure((double)(slept() - slept_first) / (BATCH * BATCHES),
		       "sleeps/%s/%s/%d", how, name, contenders - 1);
		_exit(0);
	}
	began = now();
}

static void *loop(void *c)
{
	first_wait(c);
	for (;;) {
		granted(c);
		lock->release(c);
		lock->acquire(c);
	}
	return NULL;
}

static void *again(void *c)
{
	first_wait(c);
	for (;;) {
		granted(c);
		lock->again(c);
	}
	return NULL;
}

static void *turns(void *c)
{
	for (;;) {
		waiting++;
		lock->acquire(c);
		waiting--;
		/* At first, the other threads do not exist yet */
		while (!grants && waiting < contenders - 1)
			usleep(1000);
		granted(c);
		while (waiting < contenders - 1)
			sched_yield();
		lock->release(c);
		while (last == c)
			sched_yield();
	}
	return NULL;
}

static void *pass_word(void *own)
{
	int *mine = own;
	int *next = ring + (mine - ring + 1) % contenders;
	uint64_t word = 1;

	for (;;) {
		check(read(*mine, &word, sizeof(word)), "read");
		granted(mine);
		check(write(*next, &word, sizeof(word)), "write");
	}
	return NULL;
}

static void start(void *(*what)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	check(-pthread_create(&thread, &attr, what, arg), "pthread_create");
}

int main(int argc, char **argv)
{
	struct rlimit files = { 20000, 20000 };
	struct sched_param priority = { .sched_priority = 1 };
	struct contender *c;

	if (argc != 4)
		errx(2, "usage: handover loop|again|turns LOCK WAITERS");
	how = argv[1];
	name = argv[2];
	contenders = atoi(argv[3]) + 1;
	check(setrlimit(RLIMIT_NOFILE, &files), "RLIMIT_NOFILE");
	check(sched_setscheduler(0, SCHED_FIFO, &priority), "SCHED_FIFO");

	if (!strcmp(name, "ring")) {
		ring = calloc(contenders, sizeof(*ring));
		for (int i = 0; i < contenders; i++)
			ring[i] = check(eventfd(0, EFD_CLOEXEC), "eventfd");
		for (int i = 0; i < contenders; i++)
			start(pass_word, ring + i);
		check(eventfd_write(*ring, 1), "write");
		pause();
	}

	lock = lock_named(name);
	if (lock->make())
		return 0;
	c = calloc(contenders, sizeof(*c));
	for (int i = 0; i < contenders; i++)
		lock->enter(c + i);
	for (int i = 0; i < contenders; i++)
		start(*how == 'l' ? loop : *how == 'a' ? again : turns, c + i);
	pause();
}
