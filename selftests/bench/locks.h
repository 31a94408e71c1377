/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the benchmarks compare: tlock and the locks that are used in its place.
 */
#ifndef TLOCK_BENCH_LOCKS_H
#define TLOCK_BENCH_LOCKS_H

#include <linux/tlock.h>
#include <stdint.h>

#define DEVICE	"/dev/tlock"

/* What all that can time out is given: it is never reached */
#define TIMEOUT_S	100000

/**
 * struct contender - who competes for a lock; each thread has its own
 * @fd: file, for those locks that have one
 * @handle: libtlock's
 * @arg: argument of the ioctls
 */
struct contender {
	int fd;
	struct tlock *handle;
	struct tlock_acquire arg;
};

/**
 * struct lock - a lock to measure
 * @name: as it is printed
 * @make: makes the lock, once, before all else. Returns 0, or -1 with errno if
 *	this kernel has no such lock.
 * @enter: makes a contender
 * @acquire: takes the lock, waiting for it
 * @release: gives it back
 * @again: releases and takes again in one step; NULL: there is no such thing
 */
struct lock {
	const char *name;
	int (*make)(void);
	void (*enter)(struct contender *c);
	void (*acquire)(struct contender *c);
	void (*release)(struct contender *c);
	void (*again)(struct contender *c);
};

/* All of them, tlock first; ends with one that has no name */
extern const struct lock locks[];

const struct lock *lock_named(const char *name);

/* A system call that does nothing: an ioctl that tlock's driver does not know */
void null_ioctl(struct contender *c);

/* CLOCK_MONOTONIC in nanoseconds */
uint64_t now(void);

/* Ends the program if @ret is negative, with errno's message */
int check(int ret, const char *what);

/* Prints a figure for scripts/bench: its name, as printf() would, and value */
void figure(double value, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif /* TLOCK_BENCH_LOCKS_H */
