// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * epoll LOCK...: take ten samples from each of several instruments, in one
 * thread.
 *
 * Each instrument has a lock. A timer calls for samples; an instrument whose
 * lock is held takes one then. After a sample, the program lets others in as
 * soon as somebody waits for the lock. It gives up on an instrument if it does
 * not get the lock within three seconds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <tlock.h>

#define SAMPLES		10
#define PERIOD_NS	100000000
#define TIMEOUT_S	3

struct instrument {
	const char *name;
	struct tlock *lock;	/* NULL: finished with it */
	int samples;
};

static int epoll;

static void die(const char *why)
{
	perror(why);
	exit(1);
}

/* Replaces the events that the loop reports for an instrument's lock. */
static void watch(struct instrument *i, int op, unsigned int events)
{
	struct epoll_event event = { .events = events, .data.ptr = i };

	if (epoll_ctl(epoll, op, tlock_fd(i->lock), &event))
		die("epoll_ctl");
}

static void finish_with(struct instrument *i)
{
	/* Fails if the lock is not held, which does no harm */
	tlock_release(i->lock);
	tlock_close(i->lock);
	i->lock = NULL;
}

/* Goes on after a call that asked for the lock, and returned @ret. */
static void asked(struct instrument *i, int ret)
{
	if (!ret) {
		printf("%s: acquired%s%s\n", i->name, tlock_abandoned(i->lock) ?
		       ", and the previous holder crashed" : "",
		       tlock_revoked(i->lock) ? ", and one hung" : "");
		/*
		 * A sample comes first. Two programs that let each other in at
		 * once would do nothing else.
		 */
		watch(i, EPOLL_CTL_MOD, 0);
	} else if (errno == EINPROGRESS) {
		/* Report when the request is decided */
		watch(i, EPOLL_CTL_MOD, EPOLLOUT);
	} else {
		if (errno == ETIMEDOUT)
			printf("%s: held by %s, process %d\n", i->name,
			       tlock_blocker(i->lock)->job,
			       tlock_blocker(i->lock)->pid);
		else if (errno == ESTALE)
			/* The loop has reported EPOLLERR */
			printf("%s: revoked\n", i->name);
		else
			printf("%s: %s\n", i->name, strerror(errno));
		finish_with(i);
	}
}

static void start(struct instrument *i)
{
	char why[TLOCK_EXPLAIN_SIZE];

	i->lock = tlock_open(i->name, O_RDWR);
	if (!i->lock) {
		puts(tlock_explain(i->name, errno, why, sizeof(why)));
		return;
	}
	watch(i, EPOLL_CTL_ADD, 0);
	asked(i, tlock_start_acquire(i->lock, "acq", tlock_seconds(TIMEOUT_S)));
}

/* The loop reports an event for an instrument's lock. */
static void go_on(struct instrument *i)
{
	if (tlock_ticket(i->lock)) {
		asked(i, tlock_finish(i->lock));
		return;
	}
	printf("%s: lets others in\n", i->name);
	asked(i, tlock_start_reacquire(i->lock, NULL,
				       tlock_seconds(TIMEOUT_S)));
}

static void sample(struct instrument *i)
{
	if (!i->lock || !tlock_token(i->lock))
		return;
	/* Talk to the instrument here */
	i->samples++;
	printf("%s: sample %d\n", i->name, i->samples);
	if (i->samples == SAMPLES)
		finish_with(i);
	else
		/* Report when somebody waits */
		watch(i, EPOLL_CTL_MOD, EPOLLPRI);
}

int main(int argc, char *argv[])
{
	struct itimerspec period = {
		.it_value.tv_nsec = PERIOD_NS, .it_interval.tv_nsec = PERIOD_NS,
	};
	struct epoll_event event = { .events = EPOLLIN };
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	int count = argc - 1, busy;
	struct instrument *instruments;

	instruments = calloc(count + 1, sizeof(*instruments));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!instruments || timer < 0 || epoll < 0 ||
	    timerfd_settime(timer, 0, &period, NULL) ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event))
		die("epoll");
	/* Print each line at once, even into a pipe */
	setlinebuf(stdout);

	for (int n = 0; n < count; n++) {
		instruments[n].name = argv[n + 1];
		start(&instruments[n]);
	}
	for (;;) {
		busy = 0;
		for (int n = 0; n < count; n++)
			busy += !!instruments[n].lock;
		if (!busy)
			break;
		/* One at a time: handling one may make the next one stale */
		if (epoll_wait(epoll, &event, 1, -1) < 0) {
			if (errno != EINTR)
				die("epoll_wait");
		} else if (event.data.ptr) {
			go_on(event.data.ptr);
		} else {
			uint64_t periods;

			if (read(timer, &periods, sizeof(periods)) < 0)
				die("timerfd");
			for (int n = 0; n < count; n++)
				sample(&instruments[n]);
		}
	}
	free(instruments);
	return 0;
}
