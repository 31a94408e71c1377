// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much more kernel memory an open contender takes than any open file, and
 * a waiter than any sleeping thread; and how much a lock takes. Compares the sum
 * of all slab caches with many of the one and with as many of the other, or with
 * none.
 */
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "locks.h"

enum { FILES = 10000, WAITERS = 1000, LOCKS = 1000, STACK = 32768 };

/* Memory that is not in slab caches: it is counted for all of Linux */
static double percpu_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	double kib = 0;
	char line[128];

	if (!file)
		err(1, "/proc/meminfo");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "Percpu: %lf", &kib) == 1)
			break;
	fclose(file);
	return kib * 1024;
}

/*
 * The locks stay: freed memory could still be counted. Nobody has looked at
 * their directories yet; Linux would then keep some more, as long as there is
 * memory to spare.
 */
static double create_many(double *percpu)
{
	int file = check(open("/sys/class/tlock/new_lock", O_WRONLY),
			 "new_lock");
	double before = slab_bytes();
	char name[16];

	*percpu = percpu_bytes();
	for (int i = 0; i < LOCKS; i++) {
		int len = snprintf(name, sizeof(name), "bench-%d", i);

		check(pwrite(file, name, len, 0), name);
	}
	*percpu = (percpu_bytes() - *percpu) / LOCKS;
	return (slab_bytes() - before) / LOCKS;
}

/* The files stay open: freed memory could still be counted, or be reused */
static double open_many(const char *path)
{
	double before = slab_bytes();

	for (int i = 0; i < FILES; i++)
		check(open(path, O_RDWR), path);
	return (slab_bytes() - before) / FILES;
}

static int event;
static struct contender contenders[WAITERS];
static atomic_int waiting;

static void *wait_for_lock(void *c)
{
	waiting++;
	locks->acquire(c);
	return NULL;
}

static void *wait_for_event(void *c)
{
	uint64_t word;

	waiting++;
	check(read(event, &word, sizeof(word)), "read");
	return NULL;
}

static double wait_many(void *(*wait)(void *))
{
	pthread_attr_t attr;
	pthread_t thread;
	double before = slab_bytes();

	waiting = 0;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	for (int i = 0; i < WAITERS; i++)
		check(-pthread_create(&thread, &attr, wait, contenders + i),
		      "pthread_create");
	while (waiting < WAITERS)
		usleep(1000);
	usleep(100000);
	return (slab_bytes() - before) / WAITERS;
}

int main(void)
{
	struct rlimit files = { 4 * FILES, 4 * FILES };
	struct contender holder;
	double null_bytes, event_bytes, percpu;

	check(setrlimit(RLIMIT_NOFILE, &files), "RLIMIT_NOFILE");
	/* The file table grows here, not while memory is measured */
	check(dup2(0, 4 * FILES - 1), "dup2");
	null_bytes = open_many("/dev/null");
	figure(open_many(DEVICE) - null_bytes, "memory/contender-bytes");

	event = check(eventfd(0, 0), "eventfd");
	locks->enter(&holder);
	locks->acquire(&holder);
	for (int i = 0; i < WAITERS; i++)
		locks->enter(contenders + i);
	/* The first round uses up memory that was freed before */
	wait_many(wait_for_event);
	event_bytes = wait_many(wait_for_event);
	figure(wait_many(wait_for_lock) - event_bytes, "memory/waiter-bytes");
	figure(create_many(&percpu), "memory/lock-bytes");
	figure(percpu, "memory/lock-percpu-bytes");
	_exit(0);
}
