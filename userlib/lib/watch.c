// SPDX-License-Identifier: LGPL-2.1-or-later
/* libtlock: who waits for a lock, and what happens to it */
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "libtlock.h"

int tlock_waiter(const struct tlock *t, struct tlock_waiter *waiter)
{
	return ioctl(tlock_fd(t), TLOCK_IOC_WAITER, waiter);
}

int tlock_monitor(struct tlock *t)
{
	return ioctl(tlock_fd(t), TLOCK_IOC_MONITOR);
}

int tlock_next_event(struct tlock *t, struct tlock_event *event)
{
	ssize_t size = read(tlock_fd(t), event, sizeof(*event));

	if (size > 0)
		return 0;
	/* The end of the file */
	if (!size)
		errno = ENODEV;
	return -1;
}

const char *tlock_event_name(unsigned int kind)
{
	static const char *const names[] = {
		[TLOCK_EVENT_WAITING] = "waiting",
		[TLOCK_EVENT_ACQUIRED] = "acquired",
		[TLOCK_EVENT_RELEASED] = "released",
		[TLOCK_EVENT_YIELDED] = "yielded",
		[TLOCK_EVENT_TIMED_OUT] = "timed-out",
		[TLOCK_EVENT_INTERRUPTED] = "interrupted",
		[TLOCK_EVENT_WITHDRAWN] = "withdrawn",
		[TLOCK_EVENT_ABANDONED] = "abandoned",
		[TLOCK_EVENT_DELETED] = "deleted",
		[TLOCK_EVENT_REVOKED] = "revoked",
	};

	if (kind >= sizeof(names) / sizeof(*names) || !names[kind])
		return "unknown";
	return names[kind];
}
