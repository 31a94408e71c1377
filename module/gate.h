/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The gate of a lock that several hosts share.
 */
#ifndef TLOCK_GATE_H
#define TLOCK_GATE_H

#include <linux/timekeeping.h>

#include "lock.h"

/**
 * struct tlock_gate_state - the gate of a lock
 * @self: holds the lock while the gate is shut. Its identity is that of the
 *	holder on another host, and its token is 0 if nobody is known to hold
 *	the lock there. Its pollers are those of the daemon's file.
 * @timer: ends the opening
 * @daemon: the contender of the daemon's file; NULL if no daemon is attached
 * @opening: number of the newest opening
 * @until_ns: when it ends, on CLOCK_BOOTTIME; 0 once it is over
 * @last_token: the largest token that a grant may have; 0 if the daemon wants
 *	no grants, or is gone
 * @closing: whether the opening ends with the present grant
 * @tried: whether somebody has tried to acquire the lock while the gate was
 *	shut, and the daemon has not seen it
 * @news: whether there is anything that the daemon has not seen
 * @host: where the holder on another host is
 */
struct tlock_gate_state {
	struct tlock_contender self;
	struct hrtimer timer;
	struct tlock_contender *daemon;
	u64 opening;
	u64 until_ns;
	u64 last_token;
	bool closing;
	bool tried;
	bool news;
	char host[TLOCK_HOST_SIZE];
};

/* Whether this is not a contender, but what holds a lock whose gate is shut */
static inline bool tlock_is_gate(const struct tlock_contender *c)
{
	return c && c->lock->gate && c == &c->lock->gate->self;
}

/* Whether the gate holds the lock, as other hosts may have it */
static inline bool tlock_is_shut(const struct tlock *lock)
{
	return unlikely(lock->gate) && lock->holder == &lock->gate->self;
}

/* Whether a contender, or another host, wants the lock from its holder */
static inline bool tlock_is_wanted(const struct tlock *lock)
{
	return READ_ONCE(lock->waiters) || READ_ONCE(lock->recalled);
}

/* Whether it is the contender of the file of its gate's daemon */
static inline bool tlock_is_daemon(const struct tlock_contender *c)
{
	return c->lock->gate && READ_ONCE(c->lock->gate->daemon) == c;
}

int tlock_gate_create(struct tlock *lock);
void tlock_gate_destroy(struct tlock *lock);
int tlock_gate_attach(struct tlock_contender *c);
void tlock_gate_detach(struct tlock_contender *c);
int tlock_gate_set(struct tlock_contender *c, struct tlock_gate *arg);
void tlock_gate_look(struct tlock_contender *c, struct tlock_gate *arg);

void tlock_gate_catch_up(struct tlock *lock, u64 now);
bool tlock_gate_passes(struct tlock *lock, u64 now);
void tlock_gate_news(struct tlock *lock);
void tlock_gate_note_try(struct tlock *lock);

/* CLOCK_BOOTTIME at the time @now, which as elsewhere is on CLOCK_MONOTONIC */
static inline u64 tlock_boottime(u64 now)
{
	return ktime_mono_to_any(now, TK_OFFS_BOOT);
}

/* Whether the newest opening is over; its holder needs no spinlock to call it */
static inline bool tlock_gate_is_over(const struct tlock *lock, u64 now)
{
	return tlock_boottime(now) >= READ_ONCE(lock->gate->until_ns);
}

/* Whether the gate lets a contender be granted the lock */
static inline bool tlock_gate_is_open(const struct tlock *lock, u64 now)
{
	return lock->token < lock->gate->last_token &&
	       (lock->waiters || !lock->recalled) &&
	       !tlock_gate_is_over(lock, now);
}

#endif /* TLOCK_GATE_H */
