/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_QUEUE_H
#define TLOCKD_QUEUE_H

#include <linux/tlock.h>

#include "mirror.h"

/*
 * A lock's keys: NAME/queue/HOST/BOOT/OPENING for each host that has the lock or
 * wants it, in the order of their creation, each for one opening of that host's
 * gate; and NAME/state, which says who may have opened its gate last, and what the
 * next holder has to learn.
 */

/**
 * queue_place - what is special about a key's name
 * @key: any key
 * @lock: name of a lock
 *
 * Returns "HOST/BOOT/OPENING" if the key is of the lock's queue; NULL otherwise.
 */
const char *queue_place(const struct key *key, const char *lock);

/**
 * queue_next - the next key of a lock's queue
 * @mirror: all keys
 * @after: a key of the queue; NULL for the first of all
 * @lock: the lock's name
 */
const struct key *queue_next(const struct mirror *mirror,
			     const struct key *after, const char *lock);

/**
 * struct place - what a key of a queue says
 * @host: name of its host
 * @since_s: since when (CLOCK_REALTIME, in seconds) it has been in the queue
 * @waiters: contenders that wait on that host
 * @holder: who holds the lock there; all zero if no holder is known
 * @held_ns: since when (CLOCK_REALTIME); @holder.since_ns is 0
 */
struct place {
	char host[TLOCK_HOST_SIZE];
	long long since_s;
	unsigned int waiters;
	struct tlock_holder holder;
	long long held_ns;
};

/**
 * queue_read - read what a key of a lock's queue says
 * @key: the key; malformed parts of its value are treated as missing
 * @lock: the lock's name
 * @place: filled in; its strings have no control characters
 */
void queue_read(const struct key *key, const char *lock, struct place *place);

/**
 * queue_value - make the value of a key
 * @place: what it says; @place->host is not part of it
 */
json_t *queue_value(const struct place *place);

/**
 * struct state - what a lock's state says
 * @owner: the place that may have opened its gate, "" if none; valid until the
 *	mirror changes
 * @result: flags for the next grant
 * @mod_revision: when that was written; 0 if never
 */
struct state {
	const char *owner;
	unsigned int result;
	uint64_t mod_revision;
};

/** queue_state - read a lock's state */
void queue_state(const struct mirror *mirror, const char *lock,
		 struct state *state);

#endif
