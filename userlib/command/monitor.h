/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Declarations that the parts of tlock monitor share */
#ifndef TLOCK_MONITOR_H
#define TLOCK_MONITOR_H

#include <stdbool.h>

#include "command.h"

/* How to print events */
struct output {
	bool json;
};

/* An event, and where it happened */
struct happening {
	const char *lock;	/* name of the device */
	const char *kind;	/* as tlock_event_name(), "held" or "created" */
	uint64_t lost;		/* events that were lost just before */
	const struct tlock_event *event;
};

/* event.c */

/* Prints an event on standard output. */
void print_event(const struct output *out, const struct happening *h);

#endif /* TLOCK_MONITOR_H */
