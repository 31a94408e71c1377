/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_LEASE_H
#define TLOCKD_LEASE_H

#include <stdint.h>

#define NSEC_PER_SEC	INT64_C(1000000000)

/**
 * lease_until - when a gate must be shut if the lease is not proven again
 * @asked_ns: CLOCK_BOOTTIME, read before the request that proved the lease was
 *	sent. A clock read later would not do: the lease may have begun before it.
 * @ttl_s: the lease's time to live in etcd's answer, in seconds
 *
 * Returns a time on CLOCK_BOOTTIME, earlier than the lease's end by a margin for
 * clocks that run at different rates; 0 if the lease is gone (@ttl_s <= 0).
 */
int64_t lease_until(int64_t asked_ns, int64_t ttl_s);

/*
 * The tokens of an owner derive from the revision at which its key was created,
 * so that they grow from host to host.
 */
#define TOKENS_PER_REVISION	(UINT64_C(1) << 20)

static inline uint64_t first_token(uint64_t create_revision)
{
	return create_revision * TOKENS_PER_REVISION;
}

static inline uint64_t last_token(uint64_t create_revision)
{
	return first_token(create_revision) + TOKENS_PER_REVISION - 1;
}

#endif
