/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The locks that the benchmarks compare: tlock, and those used in its place.
 */
#ifndef TLOCK_BENCH_LOCKS_H
#define TLOCK_BENCH_LOCKS_H

#include <linux/tlock.h>
#include <stdint.h>

#define DEVICE	"/dev/tlock"

/* Timeout of all calls that take one; it never passes */
#define TIMEOUT_S	100000

/**
 * struct contender - a party that competes for a lock; each thread has its own
 * @fd: file, for locks that have one
 * @handle: handle of libtlock
 * @arg: argument of the ioctls
 */
struct contender {
	int fd;
	struct tlock *handle;
	struct tlock_acquire arg;
};

/**
 * struct lock - a lock to measure
 * @name: name for the output
 * @make: creates the lock; called once, before all else. Returns 0, or -1 with
 *	errno if this kernel has no such lock.
 * @enter: creates a contender
 * @acquire: acquires the lock, waiting for it
 * @release: releases the lock
 * @again: releases and acquires the lock in one step; NULL if it cannot do that
 */
struct lock {
	const char *name;
	int (*make)(void);
	void (*enter)(struct contender *c);
	void (*acquire)(struct contender *c);
	void (*release)(struct contender *c);
	void (*again)(struct contender *c);
};

/* All locks, tlock first; the last entry has no name */
extern const struct lock locks[];

const struct lock *lock_named(const char *name);

/* A system call that does nothing: an ioctl that tlock's driver does not know */
void null_ioctl(struct contender *c);

/* CLOCK_MONOTONIC in nanoseconds */
uint64_t now(void);

/* Ends the program if @ret is negative, with errno's message */
int check(int ret, const char *what);

/* Memory in all slab caches, in bytes */
double slab_bytes(void);

/* Prints a figure for scripts/bench: its name, formatted, and its value */
void figure(double value, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif /* TLOCK_BENCH_LOCKS_H */
