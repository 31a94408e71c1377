/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_SESSION_H
#define TLOCKD_SESSION_H

#include <time.h>

#include "config.h"
#include "etcd.h"
#include "mirror.h"

/**
 * struct session - this host's standing with etcd
 * @config: what the configuration says
 * @etcd: the client
 * @mirror: the copy of all keys
 * @id: what the names of this host's keys have after "NAME/queue/": host and boot,
 *	each with a slash behind it
 * @lease: the lease of this host's keys; 0 if there is none now
 * @until_ns: until when (CLOCK_BOOTTIME) the lease is sure to live; 0 if that is
 *	not known. It goes for all keys of the lease in @mirror.
 *
 * The rest is the session's own.
 */
struct session {
	const struct config *config;
	struct etcd *etcd;
	struct mirror mirror;
	char *id;
	uint64_t lease;
	int64_t until_ns;

	sd_event_source *timer;
	bool busy;
	int64_t since_ns;
	int64_t asked_ns;
	int64_t ttl_s;
	uint64_t term;
};

/**
 * session_open - begin to keep a lease and a copy of the keys
 * @session: zeroed
 * @config: stays in use
 * @event: the loop that serves it
 *
 * From now on, locks_step() is called whenever the session has changed.
 */
void session_open(struct session *session, const struct config *config,
		  sd_event *event);

/** clock_ns - a clock's time */
int64_t clock_ns(clockid_t clock);

#endif
