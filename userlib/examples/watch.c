// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * watch LOCK...: print who waits for several locks, and what happens to them.
 *
 * Ends once all of them were deleted.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tlock.h>

static struct tlock *watch(const char *name)
{
	struct tlock *t = tlock_open(name, O_RDONLY);
	struct tlock_waiter waiter = { 0 };
	char why[TLOCK_EXPLAIN_SIZE];

	if (!t) {
		puts(tlock_explain(name, errno, why, sizeof(why)));
		return NULL;
	}
	/* In this order, nobody who begins to wait in between is missed */
	if (tlock_monitor(t)) {
		printf("%s: %s\n", name, strerror(errno));
		tlock_close(t);
		return NULL;
	}
	printf("%s: watched\n", name);
	while (!tlock_waiter(t, &waiter))
		printf("%s: process %d waits for %s\n", name, waiter.pid,
		       waiter.job);
	return t;
}

/* Returns false if there will be no more events. */
static bool print_event(const char *name, struct tlock *t)
{
	struct tlock_event event;

	if (tlock_next_event(t, &event)) {
		/* The last event has said that the lock was deleted */
		if (errno != ENODEV)
			printf("%s: %s\n", name, strerror(errno));
		return errno == EINTR;
	}
	if (event.lost)
		printf("%s: %" PRIu32 " events were lost\n", name, event.lost);
	printf("%s: %s", name, tlock_event_name(event.kind));
	if (event.kind != TLOCK_EVENT_DELETED)
		printf(" by process %d for %s", event.pid, event.job);
	puts("");
	return true;
}

int main(int argc, char *argv[])
{
	int count = argc - 1, busy = 0;
	struct tlock **locks = calloc(argc, sizeof(*locks));
	struct pollfd *fds = calloc(argc, sizeof(*fds));

	if (!locks || !fds) {
		perror("watch");
		return 1;
	}
	/* Print each line at once, even into a pipe */
	setlinebuf(stdout);
	for (int i = 0; i < count; i++) {
		locks[i] = watch(argv[i + 1]);
		/* poll() skips a negative descriptor */
		fds[i].fd = locks[i] ? tlock_fd(locks[i]) : -1;
		fds[i].events = POLLIN;
		busy += !!locks[i];
	}
	while (busy) {
		if (poll(fds, count, -1) < 0)
			continue;
		for (int i = 0; i < count; i++) {
			if (!fds[i].revents ||
			    print_event(argv[i + 1], locks[i]))
				continue;
			tlock_close(locks[i]);
			fds[i].fd = -1;
			fds[i].revents = 0;
			busy--;
		}
	}
	free(locks);
	free(fds);
	return 0;
}
