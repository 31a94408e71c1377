// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * This host's lease, and the copy of the keys.
 *
 * A round proves that the lease lives: keep it alive, then read all keys, as the
 * majority of the cluster has them. If both answers are of one term, the leader
 * that prolonged the lease was still the leader when the keys were read, and not
 * one that had been deposed without knowing. The lease then lives for its TTL from
 * a time before it was asked for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lease.h"
#include "lock.h"
#include "log.h"
#include "session.h"

#define NSEC_PER_USEC	1000
/* How soon to try again with the next endpoint */
#define RETRY_NS	(NSEC_PER_SEC / 10)

static void round_begin(struct session *session);

int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

static void next_round(struct session *session, int64_t at_ns)
{
	int err;

	session->busy = false;
	err = sd_event_source_set_time(session->timer, at_ns / NSEC_PER_USEC);
	if (err >= 0)
		err = sd_event_source_set_enabled(session->timer,
						  SD_EVENT_ONESHOT);
	if (err < 0)
		die("sd_event", -err);
}

static void round_failed(struct session *session)
{
	next_round(session, clock_ns(CLOCK_BOOTTIME) + RETRY_NS);
}

static uint64_t term_of(const json_t *answer)
{
	return etcd_number(json_object_get(answer, "header"), "raft_term");
}

static void on_change(void *data, const json_t *answer)
{
	struct session *session = data;

	/* Without a watch: as soon as possible, another round begins one */
	if (!answer) {
		if (!session->busy)
			round_failed(session);
		return;
	}
	mirror_change(&session->mirror, answer);
	locks_step();
}

static void watch(struct session *session)
{
	json_t *range = etcd_range(session->mirror.prefix);

	json_object_set_new(range, "start_revision",
			    etcd_text(session->mirror.revision + 1));
	etcd_watch(session->etcd, json_pack("{so}", "create_request", range),
		   on_change, session);
}

static void on_read(void *data, const json_t *answer)
{
	struct session *session = data;
	bool first = !session->mirror.revision;
	int64_t until_ns;

	if (!answer) {
		round_failed(session);
		return;
	}
	mirror_read(&session->mirror, answer);
	/* An earlier process may have left keys, whose lease is worth keeping */
	if (first) {
		session->lease = locks_lease();
		session->since_ns = session->asked_ns;
	}
	if (!etcd_watching(session->etcd))
		watch(session);

	if (!first && session->term == term_of(answer)) {
		until_ns = lease_until(session->asked_ns, session->ttl_s);
		if (until_ns > session->until_ns)
			session->until_ns = until_ns;
		next_round(session, session->asked_ns +
			   session->config->ttl * NSEC_PER_SEC / 5);
	} else {
		/* The first read of all; or there is a new leader */
		session->busy = false;
		round_begin(session);
	}
	locks_step();
}

static void read_keys(struct session *session)
{
	etcd_ask(session->etcd, "kv/range", etcd_range(session->mirror.prefix),
		 on_read, session);
}

/* Stops keeping the lease, and with it this host's keys */
static void drop_lease(struct session *session)
{
	session->lease = 0;
	session->until_ns = 0;
	locks_step();
}

static void on_lease(void *data, const json_t *answer)
{
	struct session *session = data;
	uint64_t lease = etcd_number(answer, "ID");

	if (!answer) {
		round_failed(session);
		return;
	}
	session->term = term_of(answer);
	session->ttl_s = etcd_number(answer, "TTL");
	if (session->ttl_s > 0 && lease) {
		if (lease != session->lease)
			session->since_ns = session->asked_ns;
		session->lease = lease;
		read_keys(session);
		return;
	}
	say(SD_WARNING, "the lease has ended");
	drop_lease(session);
	round_failed(session);
}

static void round_begin(struct session *session)
{
	session->busy = true;
	session->asked_ns = clock_ns(CLOCK_BOOTTIME);
	/*
	 * If only the answers are lost, our requests would keep the lease for
	 * ever, and this host could not use it nor any other get the locks.
	 */
	if (session->lease && session->asked_ns >= session->until_ns &&
	    session->asked_ns >= session->since_ns +
				 session->config->ttl * NSEC_PER_SEC)
		drop_lease(session);
	if (!session->mirror.revision)
		read_keys(session);
	else if (session->lease)
		etcd_ask(session->etcd, "lease/keepalive",
			 json_pack("{so}", "ID", etcd_text(session->lease)),
			 on_lease, session);
	else
		etcd_ask(session->etcd, "lease/grant",
			 json_pack("{si}", "TTL", (int)session->config->ttl),
			 on_lease, session);
}

static int on_round(sd_event_source *source, uint64_t usec, void *data)
{
	(void)source;
	(void)usec;
	round_begin(data);
	return 0;
}

/* Names this host and its present boot */
static char *make_id(const char *host)
{
	char boot[9] = "";
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (!file || !fgets(boot, sizeof(boot), file))
		die("/proc/sys/kernel/random/boot_id", errno);
	fclose(file);
	return format("%s/%s/", host, boot);
}

void session_open(struct session *session, const struct config *config,
		  sd_event *event)
{
	int err;

	session->config = config;
	session->mirror.prefix = config->prefix;
	session->id = make_id(config->host);
	session->etcd = etcd_new(config, event);
	err = sd_event_add_time(event, &session->timer, CLOCK_BOOTTIME, 0,
				NSEC_PER_USEC, on_round, session);
	if (err < 0)
		die("sd_event_add_time", -err);
}
