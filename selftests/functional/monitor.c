// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 10: looking is free. Who waits, and what happens to the lock: the
 * events of monitors, tracepoints and uevents.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/netlink.h>

#include "tlock_test.h"

#define TRACING		"/sys/kernel/tracing"

/* The name is NULL for the first lock */
static int monitor_of(const char *name, int flags)
{
	int fd = name ? lock_open(name, O_RDONLY | flags) :
			open(DEVICE, O_RDONLY | O_CLOEXEC | flags);

	if (fd < 0 || start_monitor(fd))
		die("no monitor: %s", strerror(errno));
	return fd;
}

/* The next event; waits for it, but not longer than PATIENCE */
static struct tlock_event next_event(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	struct tlock_event event = {};

	if (poll(&poller, 1, PATIENCE / MSEC) == 1)
		read_events(fd, &event, sizeof(event));
	return event;
}

static bool is_empty(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	return poll(&poller, 1, 0) == 0;
}

FIXTURE(monitor)
{
	int fd;		/* monitors the lock */
	int a, b;	/* contenders */
	__u64 token;	/* of the next grant */
	__u64 seq;	/* of the next event */
};

FIXTURE_SETUP(monitor)
{
	self->a = contender();
	self->b = contender();
	self->token = take(self->a, "setup") + 1;
	ASSERT_EQ(0, release(self->a));
	self->fd = monitor_of(NULL, O_NONBLOCK);
	self->seq = 0;
}

FIXTURE_TEARDOWN(monitor)
{
	EXPECT_EQ(0, look(self->a).holder.token);
	EXPECT_EQ(0, look(self->a).waiters);
	close(self->fd);
	close(self->a);
	close(self->b);
}

/*
 * Expects that the next event is this one. A token or a ticket of ANY is not
 * compared. Evaluates to the event.
 */
#define ANY	(~0ULL)
#define EXPECT_EVENT(kind_, token_, ticket_, job_) ({			\
	struct tlock_event event_ = next_event(self->fd);		\
	__u64 want_token_ = (token_), want_ticket_ = (ticket_);		\
									\
	EXPECT_EQ(TLOCK_EVENT_##kind_, event_.kind);			\
	EXPECT_EQ(sizeof(event_), event_.size);				\
	if (self->seq) {						\
		EXPECT_EQ(self->seq, event_.seq);			\
	}								\
	self->seq = event_.seq + 1;					\
	EXPECT_LT(0, event_.time_ns);					\
	EXPECT_GE(now(), event_.time_ns);				\
	if (want_token_ != ANY) {					\
		EXPECT_EQ(want_token_, event_.token);			\
	}								\
	if (want_ticket_ != ANY) {					\
		EXPECT_EQ(want_ticket_, event_.ticket);			\
	}								\
	EXPECT_STREQ((job_), event_.job);				\
	EXPECT_TRUE(zeroed(event_.reserved, sizeof(event_.reserved)));	\
	EXPECT_EQ(0, event_.lost);					\
	event_;								\
})

TEST_F(monitor, one_conversation)
{
	struct tlock_event acquired, released;
	char comm[TLOCK_COMM_SIZE] = "";
	__s64 begun = now();

	EXPECT_TRUE(is_empty(self->fd));
	ASSERT_EQ(self->token, take(self->a, "set range"));
	ASSERT_EQ(0, release(self->a));
	acquired = EXPECT_EVENT(ACQUIRED, self->token, 0, "set range");
	released = EXPECT_EVENT(RELEASED, self->token, 0, "set range");
	EXPECT_TRUE(is_empty(self->fd));
	EXPECT_LE(begun, acquired.time_ns);
	EXPECT_LE(acquired.time_ns, released.time_ns);
	snprintf(comm, sizeof(comm), "%s", read_text("/proc/self/comm"));
	EXPECT_STREQ(comm, acquired.comm);
	EXPECT_EQ(getpid(), acquired.pid);
	EXPECT_EQ(geteuid(), acquired.uid);
	EXPECT_EQ(0, acquired.flags);
	EXPECT_EQ(getpid(), released.pid);
	EXPECT_EQ(look(self->a).hold_ns_max >= (__u64)(released.time_ns -
						       acquired.time_ns), true);
}

/* A hand-over, a reacquire that lets another in, and one that keeps the lock */
TEST_F(monitor, hand_over_and_yield)
{
	struct tlock_acquire arg = ask(FOREVER, "");
	struct call *waiter, *yielder;
	__u64 ticket, second;

	take(self->a, "acq");
	EXPECT_EVENT(ACQUIRED, self->token, 0, "acq");
	EXPECT_EQ(0, reacquire(self->a, &arg));
	EXPECT_TRUE(is_empty(self->fd));

	waiter = call(self->b, acquire, FOREVER, "set range");
	ticket = EXPECT_EVENT(WAITING, 0, ANY, "set range").ticket;
	EXPECT_NE(0, ticket);
	yielder = call(self->a, reacquire, FOREVER, "acq again");
	ASSERT_EQ(0, result(waiter));
	/* The grant that ends had the old job */
	EXPECT_EVENT(YIELDED, self->token, 0, "acq");
	second = EXPECT_EVENT(WAITING, 0, ANY, "acq again").ticket;
	EXPECT_LT(ticket, second);
	EXPECT_EVENT(ACQUIRED, self->token + 1, ticket, "set range");
	ASSERT_EQ(0, release(self->b));
	ASSERT_EQ(0, result(yielder));
	EXPECT_EVENT(RELEASED, self->token + 1, 0, "set range");
	EXPECT_EVENT(ACQUIRED, self->token + 2, second, "acq again");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EVENT(RELEASED, self->token + 2, 0, "acq again");
	EXPECT_TRUE(is_empty(self->fd));
}

/* Requests that end without the lock */
TEST_F(monitor, without_the_lock)
{
	struct tlock_acquire arg;
	struct call *waiter;
	__u64 ticket;

	take(self->a, "holder");
	EXPECT_EVENT(ACQUIRED, self->token, 0, "holder");
	arg = ask(0, "try");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->b, &arg));
	EXPECT_EVENT(TIMED_OUT, 0, 0, "try");
	EXPECT_EQ(-EWOULDBLOCK, flock_try(self->b, NULL));
	EXPECT_EVENT(TIMED_OUT, 0, 0, "");
	arg = ask(MSEC, "impatient");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->b, &arg));
	ticket = EXPECT_EVENT(WAITING, 0, ANY, "impatient").ticket;
	EXPECT_EVENT(TIMED_OUT, 0, ticket, "impatient");

	handle_usr1(0);
	waiter = call(self->b, acquire, FOREVER, "waiter");
	ticket = EXPECT_EVENT(WAITING, 0, ANY, "waiter").ticket;
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	EXPECT_EVENT(INTERRUPTED, 0, ticket, "waiter");
	arg = *waiter->arg;
	waiter = call_with(self->b, acquire, &arg);
	EXPECT_EVENT(WAITING, 0, ticket, "waiter");
	ASSERT_EQ(0, release(self->b));
	EXPECT_EQ(-ECANCELED, result(waiter));
	EXPECT_EVENT(WITHDRAWN, 0, ticket, "waiter");

	/* Away, and then replaced, withdrawn or closed */
	for (int i = 0; i < 3; i++) {
		waiter = call(self->b, acquire, FOREVER, "away");
		ticket = EXPECT_EVENT(WAITING, 0, ANY, "away").ticket;
		send_signal(waiter, SIGUSR1);
		ASSERT_EQ(-EINTR, result(waiter));
		EXPECT_EVENT(INTERRUPTED, 0, ticket, "away");
		arg = ask(0, "replaces");
		if (i == 0) {
			EXPECT_EQ(-ETIMEDOUT, acquire(self->b, &arg));
		} else if (i == 1) {
			EXPECT_EQ(0, release(self->b));
		} else {
			close(self->b);
			self->b = contender();
		}
		EXPECT_EVENT(WITHDRAWN, 0, ticket, "away");
		if (i == 0)
			EXPECT_EVENT(TIMED_OUT, 0, 0, "replaces");
	}
	/* A request that is back after its deadline has one try */
	waiter = call(self->b, acquire, 50 * MSEC, "late");
	ticket = EXPECT_EVENT(WAITING, 0, ANY, "late").ticket;
	send_signal(waiter, SIGUSR1);
	if (result(waiter) == -EINTR) {
		EXPECT_EVENT(INTERRUPTED, 0, ticket, "late");
		while (now() < waiter->begun + 60 * MSEC)
			usleep(1000);
		arg = *waiter->arg;
		EXPECT_EQ(-ETIMEDOUT, acquire(self->b, &arg));
	}
	EXPECT_EVENT(TIMED_OUT, 0, ticket, "late");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EVENT(RELEASED, self->token, 0, "holder");
	EXPECT_TRUE(is_empty(self->fd));
}

/* A request that was away while the lock became free */
TEST_F(monitor, away_and_back)
{
	struct tlock_acquire arg;
	struct call *waiter;
	__u64 ticket;

	take(self->a, "holder");
	EXPECT_EVENT(ACQUIRED, self->token, 0, "holder");
	handle_usr1(0);
	waiter = call(self->b, acquire, FOREVER, "waiter");
	ticket = EXPECT_EVENT(WAITING, 0, ANY, "waiter").ticket;
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	EXPECT_EVENT(INTERRUPTED, 0, ticket, "waiter");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EVENT(RELEASED, self->token, 0, "holder");
	arg = *waiter->arg;
	ASSERT_EQ(0, acquire(self->b, &arg));
	EXPECT_EVENT(ACQUIRED, self->token + 1, ticket, "waiter");
	ASSERT_EQ(0, release(self->b));
	EXPECT_EVENT(RELEASED, self->token + 1, 0, "waiter");
}

TEST_F(monitor, abandoned)
{
	struct tlock_event event;
	struct agent *a = agent();
	pid_t pid = a->pid;

	ASSERT_EQ(self->token, agent_take(a, "mortal"));
	EXPECT_EVENT(ACQUIRED, self->token, 0, "mortal");
	agent_kill(a);
	/* Its process has ended by now, and is still named */
	event = EXPECT_EVENT(ABANDONED, self->token, 0, "mortal");
	EXPECT_EQ(pid, event.pid);
	/* flock's users end by closing the file */
	ASSERT_EQ(0, flock_wait(self->b, NULL));
	EXPECT_EVENT(ACQUIRED, self->token + 1, 0, "");
	close(self->b);
	EXPECT_EVENT(RELEASED, self->token + 1, 0, "");
	self->b = contender();
	/* Learns that it was abandoned, so that no other test does */
	take(self->a, "last");
	ASSERT_EQ(0, release(self->a));
}

TEST_F(monitor, asynchronous)
{
	struct tlock_acquire arg, late;
	struct tlock_event event;

	take(self->a, "holder");
	EXPECT_EVENT(ACQUIRED, self->token, 0, "holder");
	arg = start_acquire(self->b, FOREVER, "loop");
	EXPECT_EVENT(WAITING, 0, arg.ticket, "loop");
	ASSERT_EQ(0, release(self->b));
	EXPECT_EVENT(WITHDRAWN, 0, arg.ticket, "loop");
	arg = start_acquire(self->b, FOREVER, "loop");
	EXPECT_EVENT(WAITING, 0, arg.ticket, "loop");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EVENT(RELEASED, self->token, 0, "holder");
	event = EXPECT_EVENT(ACQUIRED, self->token + 1, arg.ticket, "loop");
	EXPECT_EQ(TLOCK_UNFETCHED, event.flags);
	/* To fetch the grant is no event */
	ASSERT_EQ(0, acquire(self->b, &arg));
	EXPECT_TRUE(is_empty(self->fd));
	late = start_acquire(self->a, MSEC, "late");
	EXPECT_EVENT(WAITING, 0, late.ticket, "late");
	EXPECT_EVENT(TIMED_OUT, 0, late.ticket, "late");
	/* Nothing is left to be withdrawn */
	ASSERT_EQ(0, release(self->a));
	EXPECT_TRUE(is_empty(self->fd));

	/* A grant that nobody fetches, and somebody wants */
	late = start_acquire(self->a, SEC / 5, "late");
	EXPECT_EVENT(WAITING, 0, late.ticket, "late");
	ASSERT_EQ(0, release(self->b));
	EXPECT_EVENT(RELEASED, self->token + 1, 0, "loop");
	EXPECT_EVENT(ACQUIRED, self->token + 2, late.ticket, "late");
	arg = ask(FOREVER, "next");
	ASSERT_EQ(0, acquire(self->b, &arg));
	EXPECT_EVENT(WAITING, 0, ANY, "next");
	event = EXPECT_EVENT(TIMED_OUT, self->token + 2, late.ticket, "late");
	EXPECT_EQ(TLOCK_UNFETCHED, event.flags);
	EXPECT_EVENT(ACQUIRED, self->token + 3, ANY, "next");
	ASSERT_EQ(0, release(self->a));
	EXPECT_TRUE(is_empty(self->fd));

	/* One that is closed before it is fetched is not abandoned */
	late = start_acquire(self->a, FOREVER, "closed");
	EXPECT_EVENT(WAITING, 0, late.ticket, "closed");
	ASSERT_EQ(0, release(self->b));
	EXPECT_EVENT(RELEASED, self->token + 3, 0, "next");
	EXPECT_EVENT(ACQUIRED, self->token + 4, late.ticket, "closed");
	close(self->a);
	EXPECT_EVENT(RELEASED, self->token + 4, late.ticket, "closed");
	self->a = contender();
}

/* Revocations, by whatever cause, and what the grant was */
TEST_F(monitor, revoked)
{
	struct tlock_acquire arg, late;
	struct tlock_event event;

	/* A lease that ends before somebody tries, and while somebody waits */
	take_lease(self->a, "leased", 1);
	event = EXPECT_EVENT(ACQUIRED, self->token, 0, "leased");
	EXPECT_EQ(TLOCK_LEASED, event.flags);
	take_lease(self->b, "second", MSEC);
	event = EXPECT_EVENT(REVOKED, self->token, 0, "leased");
	EXPECT_EQ(TLOCK_LEASED, event.flags);
	EXPECT_EQ(getpid(), event.pid);
	EXPECT_EVENT(ACQUIRED, self->token + 1, 0, "second");
	/* To learn it is no event */
	EXPECT_EQ(-ESTALE, release(self->a));
	arg = ask(FOREVER, "third");
	if (acquire(self->a, &arg))
		die("the lease does not end");
	event = next_event(self->fd);
	if (event.kind == TLOCK_EVENT_WAITING)
		event = next_event(self->fd);
	EXPECT_EQ(TLOCK_EVENT_REVOKED, event.kind);
	EXPECT_EQ(self->token + 1, event.token);
	EXPECT_EQ(TLOCK_LEASED, event.flags);
	self->seq = 0;
	EXPECT_EVENT(ACQUIRED, self->token + 2, ANY, "third");
	EXPECT_EQ(-ESTALE, release(self->b));

	/* An operator: at once, and after a grace, of a grant with a lease */
	ASSERT_EQ(0, revoke_grant(self->b, self->token + 2, 0));
	event = EXPECT_EVENT(REVOKED, self->token + 2, 0, "third");
	EXPECT_EQ(TLOCK_REVOKING, event.flags);
	EXPECT_EQ(-ESTALE, release(self->a));
	take_lease(self->a, "fourth", LONG);
	EXPECT_EVENT(ACQUIRED, self->token + 3, 0, "fourth");
	ASSERT_EQ(0, revoke_grant(self->b, self->token + 3, 1));
	/* It is not revoked yet */
	EXPECT_TRUE(is_empty(self->fd));
	take(self->b, "fifth");
	event = EXPECT_EVENT(REVOKED, self->token + 3, 0, "fourth");
	EXPECT_EQ(TLOCK_REVOKING | TLOCK_LEASED, event.flags);
	EXPECT_EVENT(ACQUIRED, self->token + 4, 0, "fifth");

	/* A grant that no call has fetched */
	EXPECT_EQ(-ESTALE, release(self->a));
	late = start_acquire(self->a, FOREVER, "late");
	EXPECT_EVENT(WAITING, 0, late.ticket, "late");
	ASSERT_EQ(0, release(self->b));
	EXPECT_EVENT(RELEASED, self->token + 4, 0, "fifth");
	EXPECT_EVENT(ACQUIRED, self->token + 5, late.ticket, "late");
	ASSERT_EQ(0, revoke_grant(self->b, self->token + 5, 0));
	event = EXPECT_EVENT(REVOKED, self->token + 5, late.ticket, "late");
	EXPECT_EQ(TLOCK_REVOKING | TLOCK_UNFETCHED, event.flags);
	EXPECT_EQ(-ESTALE, acquire(self->a, &late));
	/* The next grant is nobody's business but its own */
	take(self->a, "last");
	event = EXPECT_EVENT(ACQUIRED, self->token + 6, 0, "last");
	EXPECT_EQ(0, event.flags);
	/* A holder that ends in time is not revoked */
	ASSERT_EQ(0, revoke_grant(self->b, self->token + 6, LONG));
	ASSERT_EQ(0, release(self->a));
	event = EXPECT_EVENT(RELEASED, self->token + 6, 0, "last");
	EXPECT_EQ(TLOCK_REVOKING, event.flags);
	EXPECT_TRUE(is_empty(self->fd));
}

/* To renew a lease is no event, nor is a call that does it. */
TEST_F(monitor, renewal)
{
	struct tlock_acquire arg = ask(FOREVER, "");
	struct tlock_event event;

	take_lease(self->a, "holder", LONG);
	EXPECT_EVENT(ACQUIRED, self->token, 0, "holder");
	ASSERT_EQ(0, reacquire(self->a, &arg));
	ASSERT_EQ(0, renew(self->a, 0));
	ASSERT_EQ(0, renew(self->a, 2 * LONG));
	EXPECT_TRUE(is_empty(self->fd));
	arg = start_acquire(self->b, FOREVER, "waiter");
	EXPECT_EVENT(WAITING, 0, arg.ticket, "waiter");
	ASSERT_EQ(0, renew(self->a, LONG));
	ASSERT_EQ(0, renew(self->a, 0));
	EXPECT_TRUE(is_empty(self->fd));
	ASSERT_EQ(0, release(self->b));
	EXPECT_EVENT(WITHDRAWN, 0, arg.ticket, "waiter");
	ASSERT_EQ(0, release(self->a));
	event = EXPECT_EVENT(RELEASED, self->token, 0, "holder");
	EXPECT_EQ(TLOCK_LEASED, event.flags);
}

/* Calls that are refused for their argument do nothing, so nothing happens. */
TEST_F(monitor, refused_calls)
{
	struct tlock_acquire arg = ask(0, "\x01");

	EXPECT_EQ(-EINVAL, acquire(self->a, &arg));
	EXPECT_EQ(-EFAULT, acquire(self->a, NULL));
	EXPECT_EQ(-EPERM, reacquire(self->a, &(struct tlock_acquire){}));
	EXPECT_EQ(-EPERM, release(self->a));
	EXPECT_TRUE(is_empty(self->fd));
}

/* Each monitor has all events from its beginning on, at its own pace. */
TEST_F(monitor, several)
{
	struct tlock_event events[8];
	int second;

	take(self->a, "first");
	second = monitor_of(NULL, O_NONBLOCK);
	ASSERT_EQ(0, release(self->a));
	take(self->b, "second");
	ASSERT_EQ(0, release(self->b));
	ASSERT_EQ(3 * sizeof(*events),
		  read_events(second, events, sizeof(events)));
	EXPECT_EQ(TLOCK_EVENT_RELEASED, events[0].kind);
	EXPECT_EQ(TLOCK_EVENT_ACQUIRED, events[1].kind);
	EXPECT_EQ(events[0].seq + 1, events[1].seq);
	EXPECT_EVENT(ACQUIRED, self->token, 0, "first");
	EXPECT_EQ(events[0].seq,
		  EXPECT_EVENT(RELEASED, self->token, 0, "first").seq);
	EXPECT_EVENT(ACQUIRED, self->token + 1, 0, "second");
	EXPECT_EVENT(RELEASED, self->token + 1, 0, "second");
	close(second);
	/* The other goes on */
	take(self->a, "third");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EVENT(ACQUIRED, self->token + 2, 0, "third");
	EXPECT_EVENT(RELEASED, self->token + 2, 0, "third");
	/* And a later one begins later, with a larger number */
	close(self->fd);
	take(self->a, "nobody monitors this");
	ASSERT_EQ(0, release(self->a));
	self->fd = monitor_of(NULL, O_NONBLOCK);
	EXPECT_TRUE(is_empty(self->fd));
	take(self->a, "fourth");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EVENT(ACQUIRED, self->token + 4, 0, "fourth");
	EXPECT_EVENT(RELEASED, self->token + 4, 0, "fourth");
}

/* A reader that is too slow loses the oldest events, and sees how many. */
TEST_F(monitor, slow_reader)
{
	struct tlock_event events[1200];
	__u64 last = self->token + 2999;
	ssize_t size;
	int num;

	for (int i = 0; i < 3000; i++) {
		take(self->a, "often");
		ASSERT_EQ(0, release(self->a));
	}
	size = read_events(self->fd, events, sizeof(events));
	ASSERT_LT(0, size);
	num = size / sizeof(*events);
	/* The ring's size */
	EXPECT_EQ(1024, num);
	/* Also of those that were lost before it read the first one */
	EXPECT_EQ(6000 - 1024, events[0].lost);
	EXPECT_LT(6000 - 1024, events[0].seq);
	for (int i = 1; i < num; i++) {
		ASSERT_EQ(events[i - 1].seq + 1, events[i].seq);
		ASSERT_EQ(0, events[i].lost);
	}
	EXPECT_EQ(TLOCK_EVENT_RELEASED, events[num - 1].kind);
	EXPECT_EQ(last, events[num - 1].token);
	EXPECT_EQ(TLOCK_EVENT_ACQUIRED, events[num - 2].kind);
	EXPECT_EQ(last, events[num - 2].token);
	EXPECT_TRUE(is_empty(self->fd));
	/* A read that fails does not lose what it would have said */
	for (int i = 0; i < 1000; i++) {
		take(self->a, "more");
		ASSERT_EQ(0, release(self->a));
	}
	ASSERT_EQ(-EFAULT, read_events(self->fd, NULL, sizeof(events)));
	ASSERT_EQ(sizeof(*events),
		  read_events(self->fd, events, sizeof(*events)));
	EXPECT_EQ(2000 - 1024, events[0].lost);
	EXPECT_EQ(events[num - 1].seq + 1 + 2000 - 1024, events[0].seq);
	self->seq = events[0].seq + 1;
	EXPECT_EVENT(RELEASED, last + 1 + (2000 - 1024) / 2, 0, "more");
}

static int read_one(int fd, struct tlock_acquire *arg)
{
	struct tlock_event event;
	ssize_t ret = read_events(fd, &event, sizeof(event));

	if (ret != sizeof(event))
		return ret < 0 ? ret : -EPROTO;
	strcpy(arg->job, event.job);
	return event.kind;
}

TEST_F(monitor, blocking)
{
	struct pollfd poller = { .events = POLLIN };
	struct call *reader;
	int fd = monitor_of(NULL, 0);

	reader = call(fd, read_one, 0, "");
	ASSERT_TRUE(await_asleep(reader->tid));
	take(self->a, "wakes");
	ASSERT_EQ(TLOCK_EVENT_ACQUIRED, result(reader));
	EXPECT_STREQ("wakes", reader->arg->job);
	/* A signal ends a wait, and no event is lost */
	handle_usr1(0);
	reader = call(fd, read_one, 0, "");
	ASSERT_TRUE(await_asleep(reader->tid));
	send_signal(reader, SIGUSR1);
	EXPECT_EQ(-EINTR, result(reader));
	ASSERT_EQ(0, release(self->a));
	EXPECT_EQ(TLOCK_EVENT_RELEASED, result(call(fd, read_one, 0, "")));
	/* poll(2) sleeps, too */
	poller.fd = fd;
	EXPECT_EQ(0, poll(&poller, 1, 0));
	take(self->b, "");
	EXPECT_EQ(1, poll(&poller, 1, PATIENCE / MSEC));
	EXPECT_EQ(POLLIN, poller.revents);
	ASSERT_EQ(0, release(self->b));
	close(fd);
	EXPECT_EVENT(ACQUIRED, self->token, 0, "wakes");
	EXPECT_EVENT(RELEASED, self->token, 0, "wakes");
	EXPECT_EVENT(ACQUIRED, self->token + 1, 0, "");
	EXPECT_EVENT(RELEASED, self->token + 1, 0, "");
}

/* Waits in epoll_wait(2); returns how many files are ready */
static int await_exclusive(int fd, struct tlock_acquire *arg)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int ret = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);

	if (!ret)
		ret = epoll_wait(epoll, &event, 1, PATIENCE / MSEC / 2);
	close(epoll);
	return ret;
}

/*
 * With EPOLLEXCLUSIVE, an event wakes one of those who wait for the same file,
 * but not only one of all files.
 */
TEST_F(monitor, exclusive)
{
	struct call *readers[2];
	int fds[2];

	ASSERT_EQ(0, lock_create("watched"));
	/* An event, and then the deletion */
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 2; i++) {
			fds[i] = round ? lock_open("watched", O_RDONLY) :
					 monitor_of(NULL, O_NONBLOCK);
			ASSERT_LE(0, fds[i]);
			readers[i] = call(fds[i], await_exclusive, 0, "");
			ASSERT_TRUE(await_asleep(readers[i]->tid));
		}
		if (round) {
			ASSERT_EQ(0, lock_delete("watched"));
		} else {
			take(self->a, "wakes both");
		}
		for (int i = 0; i < 2; i++) {
			EXPECT_EQ(1, result(readers[i]));
			close(fds[i]);
		}
	}
	ASSERT_EQ(0, release(self->a));
}

TEST_F(monitor, errors)
{
	/* The compiler would warn of it */
	void *volatile none = (void *)8;
	struct tlock_event event;
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EINVAL, read_events(fd, &event, sizeof(event)));
	EXPECT_EQ(0, events_of(fd));
	close(fd);
	/* A contender does not monitor */
	EXPECT_EQ(-EBADF, start_monitor(self->a));
	EXPECT_EQ(-EINVAL, read_events(self->a, &event, sizeof(event)));
	EXPECT_EQ(-EBUSY, start_monitor(self->fd));
	EXPECT_EQ(-EAGAIN, read_events(self->fd, &event, sizeof(event)));
	EXPECT_EQ(-EINVAL, read_events(self->fd, &event, sizeof(event) - 1));
	take(self->a, "stays");
	EXPECT_EQ(-EINVAL, read_events(self->fd, &event, sizeof(event) - 1));
	/* What could not be written can be read again */
	EXPECT_EQ(-EFAULT, read_events(self->fd, none, sizeof(event)));
	EXPECT_EVENT(ACQUIRED, self->token, 0, "stays");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EVENT(RELEASED, self->token, 0, "stays");

}

/* Names of locks, until it is called again */
static const char *numbered(int i)
{
	static char name[20];

	snprintf(name, sizeof(name), "watched-%d", i);
	return name;
}

/*
 * A memory cgroup that has no room for another lock's events refuses, and nobody
 * is killed for it.
 */
#define CGROUP "tlock-monitor"

enum { WATCHED = 16 };

/* Returns the error of the first one that fails */
static int start_monitors(int fd, struct tlock_acquire *arg)
{
	int fds[WATCHED], ret = 0;

	/* Opened first: this, too, needs memory */
	for (int i = 0; i < WATCHED; i++)
		fds[i] = open(lock_path(numbered(i)), O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < WATCHED && !ret; i++)
		ret = start_monitor(fds[i]);
	for (int i = 0; i < WATCHED; i++)
		close(fds[i]);
	return ret;
}

TEST_F(monitor, memory_limit)
{
	struct agent *a = agent();
	char limit[40];

	if (!cgroup_create(CGROUP) ||
	    cgroup_write(CGROUP, "memory.max", "64M"))
		SKIP(return, "this kernel has no memory cgroups");
	for (int i = 0; i < WATCHED; i++)
		ASSERT_EQ(0, lock_create(numbered(i)));
	cgroup_enter(CGROUP, a->pid);
	/* Once it works, and all that it needs besides is there */
	EXPECT_EQ(0, agent_do(a, start_monitors, NULL));
	snprintf(limit, sizeof(limit), "%llu",
		 cgroup_number(CGROUP, "memory.current") + 128 * 1024);
	ASSERT_EQ(0, cgroup_write(CGROUP, "memory.max", limit));
	EXPECT_EQ(-ENOMEM, agent_do(a, start_monitors, NULL));
	ASSERT_EQ(0, cgroup_write(CGROUP, "memory.max", "max"));
	EXPECT_EQ(0, agent_do(a, start_monitors, NULL));
	agent_kill(a);
	cgroup_remove(CGROUP);
	locks_delete();
}

/* Whole events only, as many as there are and fit */
TEST_F(monitor, buffer)
{
	struct tlock_event events[4];

	for (int i = 0; i < 2; i++) {
		take(self->a, "job");
		ASSERT_EQ(0, release(self->a));
	}
	memset(events, 0xa5, sizeof(events));
	ASSERT_EQ(2 * sizeof(*events),
		  read_events(self->fd, events, 3 * sizeof(*events) - 1));
	EXPECT_TRUE(poisoned(&events[2], sizeof(*events)));
	ASSERT_EQ(2 * sizeof(*events),
		  read_events(self->fd, events, sizeof(events)));
	EXPECT_EQ(TLOCK_EVENT_RELEASED, events[1].kind);
}

TEST_F(monitor, deleted)
{
	int fd, other, blocked;
	struct tlock_event event;
	struct call *reader;

	ASSERT_EQ(0, lock_create("watched"));
	fd = monitor_of("watched", O_NONBLOCK);
	blocked = monitor_of("watched", 0);
	/* Looks only */
	other = lock_open("watched", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, other);
	reader = call(blocked, read_one, 0, "");
	ASSERT_TRUE(await_asleep(reader->tid));
	EXPECT_EQ(0, events_of(fd));
	ASSERT_EQ(0, lock_delete("watched"));
	EXPECT_EQ(TLOCK_EVENT_DELETED, result(reader));
	EXPECT_EQ(POLLIN | POLLRDNORM | POLLHUP, events_of(fd) |
		  (events_of(fd) & POLLIN ? POLLRDNORM : 0));
	event = next_event(fd);
	EXPECT_EQ(TLOCK_EVENT_DELETED, event.kind);
	EXPECT_EQ(0, event.pid);
	EXPECT_EQ(0, event.token);
	EXPECT_STREQ("", event.job);
	/* No event, and none will come */
	EXPECT_EQ(0, read_events(fd, &event, sizeof(event)));
	EXPECT_EQ(0, read_events(blocked, &event, sizeof(event)));
	EXPECT_EQ(POLLHUP, events_of(other));
	EXPECT_EQ(-ENODEV, start_monitor(other));
	EXPECT_EQ(-ENODEV, next_waiter(other, &(struct tlock_waiter){}));
	close(other);
	close(blocked);
	close(fd);
}

/*
 * Monitors until the lock is deleted. Runs when nobody else wants the CPU, so
 * that the deletion meets it anywhere.
 */
static int watch_deletion(int fd, struct tlock_acquire *arg)
{
	const struct sched_param param = { 0 };
	int ret;

	if (sched_setscheduler(0, SCHED_IDLE, &param))
		die("cannot be idle");
	ret = start_monitor(fd);
	if (ret)
		return ret;
	if (!(await_events(fd, POLLIN | POLLHUP) & POLLIN))
		return -EPROTO;
	return read_one(fd, arg);
}

/* Whoever monitors a lock learns that it is deleted, or that it was. */
TEST_F(monitor, deletion_meets_start)
{
	int started = 0, missed = 0;
	struct call *reader;
	int ret;

	run_on(0, 0);
	for (int i = 0; i < 100; i++) {
		ASSERT_EQ(0, lock_create("watched"));
		reader = call(lock_open("watched", O_RDONLY), watch_deletion,
			      0, "");
		usleep(10 * i);
		ASSERT_EQ(0, lock_delete("watched"));
		ret = result(reader);
		close(reader->fd);
		if (ret == TLOCK_EVENT_DELETED)
			started++;
		else if (ret != -ENODEV)
			missed++;
	}
	EXPECT_EQ(0, missed);
	TH_LOG("%d of 100 had started", started);
}

/* Who waits, the longest waiter first */
TEST_F(monitor, waiters)
{
	static const char *const jobs[] = { "first", "second", "third" };
	struct tlock_waiter waiter = {}, before = {};
	struct tlock_acquire asked[3];
	int fds[3], num = 0;
	__s64 begun = now();

	EXPECT_EQ(-ENOENT, next_waiter(self->fd, &waiter));
	take(self->a, "holder");
	EXPECT_EQ(-ENOENT, next_waiter(self->fd, &waiter));
	for (int i = 0; i < 3; i++) {
		fds[i] = contender();
		asked[i] = start_acquire(fds[i], i == 1 ? LONG : FOREVER,
					 jobs[i]);
	}
	while (!next_waiter(self->fd, &waiter)) {
		ASSERT_LT(num, 3);
		EXPECT_EQ(asked[num].ticket, waiter.ticket);
		EXPECT_LE(before.since_ns, waiter.since_ns);
		EXPECT_LE(begun, waiter.since_ns);
		EXPECT_GE(now(), waiter.since_ns);
		EXPECT_EQ(num == 1 ? LONG : FOREVER, waiter.timeout_ns);
		EXPECT_EQ(getpid(), waiter.pid);
		EXPECT_EQ(geteuid(), waiter.uid);
		EXPECT_EQ(TLOCK_ASYNC, waiter.flags);
		EXPECT_STREQ(read_text("/proc/self/comm"), waiter.comm);
		EXPECT_STREQ(jobs[num], waiter.job);
		EXPECT_TRUE(zeroed(waiter.reserved, sizeof(waiter.reserved)));
		before = waiter;
		num++;
	}
	EXPECT_EQ(3, num);
	/* The others are found after one has left */
	ASSERT_EQ(0, release(fds[1]));
	waiter = (struct tlock_waiter){ .ticket = asked[0].ticket };
	ASSERT_EQ(0, next_waiter(self->fd, &waiter));
	EXPECT_EQ(asked[2].ticket, waiter.ticket);
	waiter = (struct tlock_waiter){ .ticket = asked[1].ticket };
	ASSERT_EQ(0, next_waiter(self->fd, &waiter));
	EXPECT_EQ(asked[2].ticket, waiter.ticket);
	/* A contender may look, too */
	waiter.ticket = 0;
	ASSERT_EQ(0, next_waiter(self->a, &waiter));
	EXPECT_STREQ("first", waiter.job);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	ASSERT_EQ(0, release(self->a));
}

/* Who is away does not wait */
TEST_F(monitor, waiters_away)
{
	/* What is passed beside the ticket does not count */
	struct tlock_waiter waiter = { .flags = ~0U };
	struct call *sleeper;

	take(self->a, "holder");
	handle_usr1(0);
	sleeper = call(self->b, acquire, FOREVER, "sleeper");
	ASSERT_TRUE(await_waiters(self->a, 1));
	ASSERT_EQ(0, next_waiter(self->fd, &waiter));
	EXPECT_EQ(0, waiter.flags);
	EXPECT_STREQ("sleeper", waiter.job);
	send_signal(sleeper, SIGUSR1);
	ASSERT_EQ(-EINTR, result(sleeper));
	waiter.ticket = 0;
	EXPECT_EQ(-ENOENT, next_waiter(self->fd, &waiter));
	ASSERT_EQ(0, release(self->b));
	ASSERT_EQ(0, release(self->a));
}

/* Times and processes are as the caller's namespaces see them. */
static int look_from_inside(int fd, struct tlock_acquire *arg)
{
	struct tlock_waiter waiter = {};
	struct tlock_event event;
	int monitor = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	__s64 begun = now();

	if (monitor < 0 || start_monitor(monitor))
		return -errno;
	/* Of the outer process, which is not visible here */
	if (next_waiter(monitor, &waiter) || waiter.pid)
		return -ESRCH;
	if (release(fd))
		return -EPERM;
	event = next_event(monitor);
	if (event.kind != TLOCK_EVENT_RELEASED || event.pid != getpid() ||
	    event.time_ns < begun || event.time_ns > now())
		return -EPROTO;
	event = next_event(monitor);
	if (event.kind != TLOCK_EVENT_ACQUIRED || event.pid)
		return -ECHILD;
	close(monitor);
	return 0;
}

TEST_F(monitor, namespaces)
{
	struct agent *a = agent_in(CLONE_NEWPID);
	struct tlock_acquire arg;

	agent_take(a, "inside");
	EXPECT_EQ(a->pid, EXPECT_EVENT(ACQUIRED, self->token, 0, "inside").pid);
	arg = start_acquire(self->a, FOREVER, "outside");
	EXPECT_EVENT(WAITING, 0, arg.ticket, "outside");
	EXPECT_EQ(0, agent_do(a, look_from_inside, NULL));
	EXPECT_EQ(a->pid, EXPECT_EVENT(RELEASED, self->token, 0, "inside").pid);
	EXPECT_EVENT(ACQUIRED, self->token + 1, arg.ticket, "outside");
	ASSERT_EQ(0, release(self->a));
	EXPECT_EVENT(RELEASED, self->token + 1, arg.ticket, "outside");
	agent_kill(a);
}

/* Hundreds of contenders and readers at once: the readers see one history. */
static atomic_int stop;

static int take_often(int fd, struct tlock_acquire *arg)
{
	struct tlock_acquire own;
	int ret = 0;

	while (!ret && !atomic_load(&stop)) {
		own = ask(FOREVER, "busy");
		ret = acquire(fd, &own);
		if (!ret)
			ret = release(fd);
		/* So that the ring is not overrun while a reader sleeps */
		usleep(1000);
	}
	return ret;
}

TEST_F(monitor, one_history)
{
	enum { CONTENDERS = 4, READERS = 8, EVENTS = 2000 };
	static struct tlock_event seen[READERS][EVENTS];
	struct call *contenders[CONTENDERS];
	int readers[READERS], counts[READERS] = {};
	__u64 holder = 0, token = self->token;

	for (int i = 0; i < READERS; i++)
		readers[i] = monitor_of(NULL, O_NONBLOCK);
	for (int i = 0; i < CONTENDERS; i++)
		contenders[i] = call(contender(), take_often, 0, "");
	for (__s64 end = now() + 5 * SEC; now() < end &&
	     counts[0] < EVENTS;) {
		for (int i = 0; i < READERS; i++) {
			ssize_t size = read_events(readers[i],
				&seen[i][counts[i]],
				(EVENTS - counts[i]) * sizeof(*seen[i]));

			if (size > 0)
				counts[i] += size / sizeof(*seen[i]);
		}
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < CONTENDERS; i++) {
		EXPECT_EQ(0, result(contenders[i]));
		close(contenders[i]->fd);
	}
	EXPECT_LT(100, counts[0]);
	for (int i = 1; i < READERS; i++) {
		int num = counts[i] < counts[0] ? counts[i] : counts[0];

		close(readers[i]);
		EXPECT_LT(50, num);
		EXPECT_EQ(0, memcmp(seen[0], seen[i], num * sizeof(*seen[i])));
	}
	/* One holder at a time, in the order of tokens */
	for (int i = 0; i < counts[0]; i++) {
		const struct tlock_event *event = &seen[0][i];

		if (i) {
			ASSERT_EQ(event[-1].seq + 1, event->seq);
			ASSERT_LE(event[-1].time_ns, event->time_ns);
		}
		switch (event->kind) {
		case TLOCK_EVENT_ACQUIRED:
			ASSERT_EQ(0, holder);
			ASSERT_EQ(token++, event->token);
			holder = event->token;
			break;
		case TLOCK_EVENT_RELEASED:
			ASSERT_EQ(holder, event->token);
			holder = 0;
			break;
		default:
			ASSERT_EQ(TLOCK_EVENT_WAITING, event->kind);
		}
	}
	close(readers[0]);
	close(self->fd);
	self->fd = monitor_of(NULL, O_NONBLOCK);
}

/* The kernel's own tools see the same events. */
TEST_F(monitor, tracepoints)
{
	char wanted[200];
	struct tlock_acquire arg;

	if (!exists(TRACING "/events") &&
	    mount("tracefs", TRACING, "tracefs", 0, NULL))
		die("no tracefs: %s", strerror(errno));
	ASSERT_EQ(0, write_text(TRACING "/trace", ""));
	ASSERT_EQ(0, write_text(TRACING "/events/tlock/enable", "1"));
	take(self->a, "traced");
	arg = ask(0, "refused");
	EXPECT_EQ(-ETIMEDOUT, acquire(self->b, &arg));
	ASSERT_EQ(0, release(self->a));
	take_lease(self->a, "hung", 1);
	take(self->b, "next");
	EXPECT_EQ(-ESTALE, release(self->a));
	ASSERT_EQ(0, release(self->b));
	ASSERT_EQ(0, write_text(TRACING "/events/tlock/enable", "0"));
	take(self->a, "not traced");
	ASSERT_EQ(0, release(self->a));

	snprintf(wanted, sizeof(wanted),
		 "tlock_acquired: tlock job='traced' token=%llu ticket=0 pid=%d uid=%u comm=%s",
		 self->token, getpid(), geteuid(), read_text("/proc/self/comm"));
	EXPECT_NE(NULL, strstr(read_text(TRACING "/trace"), wanted));
	EXPECT_NE(NULL, strstr(read_text(TRACING "/trace"),
			       "tlock_timed_out: tlock job='refused' token=0"));
	EXPECT_NE(NULL, strstr(read_text(TRACING "/trace"),
			       "tlock_released: tlock job='traced'"));
	snprintf(wanted, sizeof(wanted),
		 "tlock_revoked: tlock job='hung' token=%llu ticket=0 pid=%d",
		 self->token + 1, getpid());
	EXPECT_NE(NULL, strstr(read_text(TRACING "/trace"), wanted));
	EXPECT_EQ(NULL, strstr(read_text(TRACING "/trace"), "not traced"));
	/* Both kinds of watching at once, which do not depend on each other */
	EXPECT_EVENT(ACQUIRED, self->token, 0, "traced");
	EXPECT_EVENT(TIMED_OUT, 0, 0, "refused");
	EXPECT_EVENT(RELEASED, self->token, 0, "traced");
	EXPECT_EVENT(ACQUIRED, self->token + 1, 0, "hung");
	EXPECT_EVENT(REVOKED, self->token + 1, 0, "hung");
	EXPECT_EVENT(ACQUIRED, self->token + 2, 0, "next");
	EXPECT_EVENT(RELEASED, self->token + 2, 0, "next");
	EXPECT_EVENT(ACQUIRED, self->token + 3, 0, "not traced");
	EXPECT_EVENT(RELEASED, self->token + 3, 0, "not traced");
}

/* Listens for the kernel's uevents */
static int listen_for_uevents(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	struct timeval patience = { .tv_sec = PATIENCE / SEC };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC,
			NETLINK_KOBJECT_UEVENT);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		die("no uevents: %s", strerror(errno));
	return fd;
}

/* Whether the next uevent has all of these lines; NULL ends them */
static bool uevent_has(int fd, const char *const *lines)
{
	char text[4096];
	ssize_t size = recv(fd, text, sizeof(text) - 1, 0);

	if (size < 0)
		die("no more uevents: %s", strerror(errno));
	text[size] = '\0';
	for (; *lines; lines++) {
		const char *s = text;

		while (s < text + size && strcmp(s, *lines))
			s += strlen(s) + 1;
		if (s >= text + size)
			return false;
	}
	return true;
}

/* In an agent: takes a new lock, whose uevents have no limit to keep yet. */
static int take_new_lock(int fd, struct tlock_acquire *arg)
{
	arg->token = take(contender_of("psu"), arg->job);
	return 0;
}

/* udev and systemd learn that a lock was abandoned. */
TEST_F(monitor, uevent)
{
	static const char *const created[] = {
		"ACTION=add", "DEVNAME=tlock-after", NULL
	};
	struct agent *a = agent();
	char token[40], pid[40];
	const char *const lines[] = {
		"ACTION=change", "SUBSYSTEM=tlock", "DEVNAME=tlock-psu",
		"TLOCK_EVENT=abandoned", "TLOCK_JOB=mortal", token, pid, NULL
	};
	struct tlock_acquire arg = ask(0, "mortal");
	int fd = listen_for_uevents();
	int other, num = 0;

	ASSERT_EQ(0, lock_create("psu"));
	ASSERT_EQ(0, agent_do(a, take_new_lock, &arg));
	snprintf(token, sizeof(token), "TLOCK_TOKEN=%llu", arg.token);
	snprintf(pid, sizeof(pid), "TLOCK_PID=%d", a->pid);
	agent_kill(a);
	while (!uevent_has(fd, lines))
		;
	/* But many of them do not keep udev from its other work */
	for (int i = 0; i < 1000; i++) {
		other = contender_of("psu");
		take(other, "careless");
		close(other);
	}
	ASSERT_EQ(0, lock_create("after"));
	while (!uevent_has(fd, created))
		num++;
	EXPECT_GT(50, num);
	ASSERT_EQ(0, lock_delete("after"));
	ASSERT_EQ(0, lock_delete("psu"));
	close(fd);
}

/* They also learn that a grant was revoked, by a call or by an interrupt. */
TEST_F(monitor, uevent_revoked)
{
	char token[40], pid[40];
	const char *const lines[] = {
		"ACTION=change", "SUBSYSTEM=tlock", "DEVNAME=tlock-psu",
		"TLOCK_EVENT=revoked", "TLOCK_JOB=hung", token, pid, NULL
	};
	static const char *const created[] = {
		"ACTION=add", "DEVNAME=tlock-after", NULL
	};
	int fd = listen_for_uevents(), hung, next, num = 0;
	struct tlock_acquire arg;

	ASSERT_EQ(0, lock_create("psu"));
	hung = contender_of("psu");
	next = contender_of("psu");
	snprintf(pid, sizeof(pid), "TLOCK_PID=%d", getpid());
	for (int by_timer = 0; by_timer < 2; by_timer++) {
		arg.token = take_lease(hung, "hung", LONG);
		snprintf(token, sizeof(token), "TLOCK_TOKEN=%llu", arg.token);
		if (by_timer) {
			start_acquire(next, FOREVER, "next");
			ASSERT_EQ(0, renew(hung, 1));
			EXPECT_EQ(POLLOUT, await_events(next, POLLOUT));
			ASSERT_EQ(0, release(next));
		} else {
			ASSERT_EQ(0, revoke_grant(next, arg.token, 0));
		}
		ASSERT_EQ(-ESTALE, release(hung));
		while (!uevent_has(fd, lines))
			;
	}
	/* As many as anybody likes to cause would keep udev from its work */
	for (int i = 0; i < 1000; i++) {
		ASSERT_EQ(0, revoke_grant(next, take(hung, "often"), 0));
		ASSERT_EQ(-ESTALE, release(hung));
	}
	ASSERT_EQ(0, lock_create("after"));
	while (!uevent_has(fd, created))
		num++;
	EXPECT_GT(50, num);
	ASSERT_EQ(0, lock_delete("after"));
	close(hung);
	close(next);
	ASSERT_EQ(0, lock_delete("psu"));
	close(fd);
}

TEST_HARNESS_MAIN
