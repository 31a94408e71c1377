/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_LOCK_H
#define TLOCKD_LOCK_H

#include <stdio.h>

#include "session.h"

/**
 * locks_open - begin to serve this host's gated locks
 * @session: decides what may be done; stays in use
 * @event: the loop that serves them
 */
void locks_open(struct session *session, sd_event *event);

/**
 * locks_step - do what has become possible or necessary
 *
 * Each lock then is as @session and its gate say, or a request is on its way.
 */
void locks_step(void);

/**
 * locks_look - look for locks and at their gates, and refresh what others see
 *
 * To be called once a second.
 */
void locks_look(void);

/**
 * locks_lease - the lease of a key that an earlier process has left for a lock, or 0
 */
uint64_t locks_lease(void);

/**
 * locks_drain - give back what nobody holds, and ask for nothing more
 *
 * Locks that are held stay with this host, for the next process.
 */
void locks_drain(void);

/** locks_drained - whether nothing is left to give back */
bool locks_drained(void);

/**
 * locks_report - describe the locks and their queues, in lines of fields separated
 *	by tabs
 * @to: where to
 */
void locks_report(FILE *to);

#endif
