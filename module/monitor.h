/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What happens to a lock, for those who watch: monitors and tracepoints.
 */
#ifndef TLOCK_MONITOR_H
#define TLOCK_MONITOR_H

#include <linux/jump_label.h>

#include "lock.h"

/* How many events a lock keeps for slow readers; a power of 2 */
#define TLOCK_RECORDS	1024

DECLARE_STATIC_KEY_FALSE(tlock_traced);

/* Whether somebody may want to learn what happens to the lock */
static __always_inline bool tlock_watched(const struct tlock *lock)
{
	return lock->records || static_branch_unlikely(&tlock_traced);
}

void tlock_record_acquired(struct tlock_contender *c, u64 ticket);
void tlock_record(struct tlock_contender *c, enum tlock_event_kind kind,
		  u64 token, u64 ticket, u64 now);

/*
 * Notes an event: something has happened, or is about to happen, to the grant
 * with @token or the request with @ticket of @c. Either may be 0.
 */
static __always_inline void tlock_note(struct tlock_contender *c,
				       enum tlock_event_kind kind, u64 token,
				       u64 ticket, u64 now)
{
	if (unlikely(tlock_watched(c->lock)))
		tlock_record(c, kind, token, ticket, now);
}

void tlock_queue(struct delayed_work *work);
int tlock_monitors_init(void);
void tlock_monitors_exit(void);
void tlock_monitor_init(struct tlock *lock);
void tlock_monitor_exit(struct tlock *lock);
void tlock_note_deleted(struct tlock *lock);
int tlock_monitor_start(struct tlock_contender *c);
void tlock_monitor_stop(struct tlock_contender *c);
int tlock_next_event(struct tlock_contender *c, struct tlock_event *event);
void tlock_unread_event(struct tlock_contender *c,
			const struct tlock_event *event);
bool tlock_has_event(const struct tlock_contender *c);

#endif /* TLOCK_MONITOR_H */
