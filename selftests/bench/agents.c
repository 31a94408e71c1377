// SPDX-License-Identifier: GPL-2.0-only
/*
 * agents SAMPLES SECONDS: how long short tasks wait for a lock that a long
 * acquisition holds. The acquisition takes a sample every 10 ms, and reacquires
 * after every SAMPLES samples. Tasks come at random, ten a second. Each of them
 * needs the lock for 2 ms and waits at most 3 s for it.
 *
 * Tasks come at the same times in each run. Each has its own thread, so none
 * has to finish before the next one can come.
 */
#include <err.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "locks.h"

enum { SAMPLE_NS = 10000000, TASK_NS = 2000000, PATIENCE_S = 3 };
#define TASKS_A_SECOND	10.0

struct task {
	uint64_t comes;
	double wait_ms;	/* infinite: it timed out */
};

static atomic_bool over;

static void sleep_until(uint64_t ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL))
		;
}

static void *do_task(void *arg)
{
	struct task *task = arg;
	struct contender c;
	uint64_t asked;

	locks->enter(&c);
	sleep_until(task->comes);
	asked = now();
	c.arg.timeout_ns = PATIENCE_S * 1000000000LL;
	if (!ioctl(c.fd, TLOCK_IOC_ACQUIRE, &c.arg)) {
		task->wait_ms = (now() - asked) / 1e6;
		sleep_until(now() + TASK_NS);
		locks->release(&c);
	} else if (errno == ETIMEDOUT) {
		task->wait_ms = INFINITY;
	} else {
		err(1, "acquire");
	}
	close(c.fd);
	return NULL;
}

static void *acquisition(void *samples)
{
	struct contender c;
	uint64_t next;

	locks->enter(&c);
	locks->acquire(&c);
	for (int sample = 1; !over; sample++) {
		next = now() + SAMPLE_NS;
		sleep_until(next);
		if (sample % *(int *)samples == 0)
			locks->again(&c);
	}
	locks->release(&c);
	return NULL;
}

static int compare(const void *a, const void *b)
{
	double x = ((const struct task *)a)->wait_ms;
	double y = ((const struct task *)b)->wait_ms;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	pthread_t acquiring, *threads;
	struct task *tasks;
	uint64_t comes;
	int samples, count, lost = 0;

	if (argc != 3)
		errx(2, "usage: agents SAMPLES SECONDS");
	samples = atoi(argv[1]);
	count = atof(argv[2]) * TASKS_A_SECOND;
	tasks = calloc(count, sizeof(*tasks));
	threads = calloc(count, sizeof(*threads));
	srand48(1);
	comes = now() + 200000000;
	check(-pthread_create(&acquiring, NULL, acquisition, &samples),
	      "pthread_create");
	for (int i = 0; i < count; i++) {
		comes += -log(1 - drand48()) / TASKS_A_SECOND * 1e9;
		tasks[i].comes = comes;
		check(-pthread_create(threads + i, NULL, do_task, tasks + i),
		      "pthread_create");
	}
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	over = true;
	pthread_join(acquiring, NULL);

	qsort(tasks, count, sizeof(*tasks), compare);
	for (int i = 0; i < count; i++)
		lost += isinf(tasks[i].wait_ms);
	figure((double)lost / count, "agents/%d/lost", samples);
	/* Tasks that timed out have waited for all of that time */
	for (int percent = 0; percent <= 100; percent++) {
		int i = (count - 1) * percent / 100;

		figure(isinf(tasks[i].wait_ms) ? PATIENCE_S * 1000 :
		       tasks[i].wait_ms, "agents/%d/wait-ms/%d", samples,
		       percent);
	}
	return 0;
}
