// SPDX-License-Identifier: LGPL-2.1-or-later
/* What a lease allows. */
#include "lease.h"

int64_t lease_until(int64_t asked_ns, int64_t ttl_s)
{
	int64_t ttl_ns, margin_ns;

	if (ttl_s <= 0)
		return 0;
	ttl_ns = ttl_s * NSEC_PER_SEC;
	margin_ns = ttl_ns / 10;
	if (margin_ns > NSEC_PER_SEC)
		margin_ns = NSEC_PER_SEC;
	return asked_ns + ttl_ns - margin_ns;
}
