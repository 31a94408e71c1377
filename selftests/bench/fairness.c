// SPDX-License-Identifier: GPL-2.0-only
/*
 * fairness LOCK CONTENDERS SECONDS: how often each of several contenders gets a
 * lock that all of them want all the time.
 */
#include <err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "locks.h"

struct agent {
	struct contender c;
	long grants;
	uint64_t longest;
};

static const struct lock *lock;
static atomic_int waiting;
static uint64_t end;

static void *hammer(void *arg)
{
	struct agent *agent = arg;
	uint64_t asked, got;

	/* All begin when main() releases the lock */
	waiting++;
	lock->acquire(&agent->c);
	lock->release(&agent->c);
	asked = now();
	while (asked < end) {
		lock->acquire(&agent->c);
		got = now();
		if (got < end)
			agent->grants++;
		if (got - asked > agent->longest)
			agent->longest = got - asked;
		lock->release(&agent->c);
		asked = now();
	}
	return NULL;
}

int main(int argc, char **argv)
{
	double sum = 0, squares = 0, min = 1e18, max = 0, longest = 0;
	pthread_t *threads;
	struct contender first;
	struct agent *agents;
	int count;

	if (argc != 4)
		errx(2, "usage: fairness LOCK CONTENDERS SECONDS");
	lock = lock_named(argv[1]);
	if (lock->make())
		return 0;
	count = atoi(argv[2]);
	agents = calloc(count, sizeof(*agents));
	threads = calloc(count, sizeof(*threads));
	lock->enter(&first);
	lock->acquire(&first);
	for (int i = 0; i < count; i++) {
		lock->enter(&agents[i].c);
		check(-pthread_create(threads + i, NULL, hammer, agents + i),
		      "pthread_create");
	}
	while (waiting < count)
		usleep(1000);
	usleep(10000);
	end = now() + atof(argv[3]) * 1e9;
	lock->release(&first);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);

	for (int i = 0; i < count; i++) {
		double n = agents[i].grants;

		sum += n;
		squares += n * n;
		min = n < min ? n : min;
		max = n > max ? n : max;
		if (agents[i].longest > longest)
			longest = agents[i].longest;
	}
	/* Jain's index: 1 if all got equally many, 1 / count if one got all */
	figure(sum * sum / (count * squares), "fairness/%s/jain", argv[1]);
	figure(min, "fairness/%s/fewest", argv[1]);
	figure(max, "fairness/%s/most", argv[1]);
	figure(longest / 1e6, "fairness/%s/longest-ms", argv[1]);
	return 0;
}
