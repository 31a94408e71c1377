// SPDX-License-Identifier: LGPL-2.1-or-later
/* The tlock command: the gates of locks that several hosts share */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "command.h"

bool is_remote(const struct tlock_holder *holder)
{
	return holder->flags & TLOCK_REMOTE;
}

void read_host(const struct tlock *t, const struct tlock_holder *holder,
	       char host[TLOCK_HOST_SIZE])
{
	struct tlock_gate gate;

	*host = '\0';
	/* The lock may have passed on since the look at the holder */
	if (is_remote(holder) && !tlock_gate(t, &gate) &&
	    gate.holder.token == holder->token)
		memcpy(host, gate.host, TLOCK_HOST_SIZE);
}

const char *gate_name(const struct tlock_status *status)
{
	if (!(status->flags & TLOCK_GATED))
		return NULL;
	if (!(status->flags & TLOCK_SERVED))
		return "unserved";
	return status->flags & TLOCK_SHUT ? "shut" : "open";
}

void print_shut(const struct tlock_status *status, const char *host, FILE *out)
{
	char *safe = escaped(host);

	fputs("its gate is shut: ", out);
	if (!(status->flags & TLOCK_SERVED))
		fputs(NO_DAEMON, out);
	else if (*host)
		fprintf(out, "host %s has the lock", safe);
	else
		fputs("tlockd waits for the cluster; see 'systemctl status tlockd'",
		      out);
	free(safe);
}
