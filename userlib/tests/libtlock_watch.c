// SPDX-License-Identifier: GPL-2.0-only
/*
 * libtlock: who waits for a lock, and what happens to it. Runs as root with the
 * module loaded, and needs /dev/tlock for itself.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "libtlock_test.h"
#include "locks.h"

#define EXPECT_IN_PROGRESS(call) EXPECT_FAILS(EINPROGRESS, call)

/* A handle that looks only, or one that monitors. NULL is the first lock. */
static struct tlock *looker(const char *lock)
{
	struct tlock *t = tlock_open(lock ? lock : "tlock", O_RDONLY);

	if (!t)
		abort();
	return t;
}

static struct tlock *monitor(const char *lock)
{
	struct tlock *t = looker(lock);

	if (tlock_monitor(t))
		abort();
	return t;
}

/* The next event, which must be there already; kind 0 if it is not */
static struct tlock_event next(struct tlock *t)
{
	struct tlock_event event = {};

	if ((events(t) & POLLIN) && tlock_next_event(t, &event))
		event.kind = 0;
	return event;
}

static const char *own_comm(void)
{
	static char comm[TLOCK_COMM_SIZE];

	if (pthread_getname_np(pthread_self(), comm, sizeof(comm)))
		abort();
	return comm;
}

/* Expects that the next event is this one. Evaluates to it. */
#define EXPECT_EVENT(t, name, token_, ticket_, job_) ({			\
	struct tlock_event event_ = next(t);				\
									\
	EXPECT_STREQ(name, tlock_event_name(event_.kind));		\
	EXPECT_EQ(token_, event_.token);				\
	EXPECT_EQ(ticket_, event_.ticket);				\
	EXPECT_STREQ(job_, event_.job);					\
	EXPECT_EQ(sizeof(event_), event_.size);				\
	EXPECT_EQ(0, event_.lost);					\
	event_;								\
})

TEST_F(lock, waiters)
{
	static const char *const jobs[] = { "first", "second", "third" };
	struct tlock *t = looker(NULL), *third = tlock_open(NULL, O_RDWR);
	struct tlock *fourth = tlock_open(NULL, O_RDWR);
	struct tlock_waiter waiter = { 0 }, before;
	struct call c = {
		.fn = tlock_acquire, .t = third, .job = "second",
		.timeout_ns = TLOCK_FOREVER,
	};
	int64_t begun = now();
	int num = 0;

	ASSERT_NE(NULL, third);
	ASSERT_NE(NULL, fourth);
	EXPECT_FAILS(ENOENT, tlock_waiter(t, &waiter));
	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	/* The holder does not wait */
	EXPECT_FAILS(ENOENT, tlock_waiter(t, &waiter));
	EXPECT_IN_PROGRESS(tlock_start_acquire(self->b, "first", LONG));
	begin(&c);
	ASSERT_TRUE(await_waiters(t, 2));
	EXPECT_IN_PROGRESS(tlock_start_acquire(fourth, "third", LONG + 1));

	while (!tlock_waiter(t, &waiter)) {
		ASSERT_LT(num, 3);
		EXPECT_STREQ(jobs[num], waiter.job);
		EXPECT_STREQ(own_comm(), waiter.comm);
		EXPECT_EQ(getpid(), waiter.pid);
		EXPECT_EQ(geteuid(), waiter.uid);
		EXPECT_LE(begun, waiter.since_ns);
		begun = waiter.since_ns;
		EXPECT_GE(now(), waiter.since_ns);
		if (num == 1) {
			EXPECT_EQ(0, waiter.flags);
			EXPECT_GT(0, waiter.timeout_ns);
		} else {
			EXPECT_EQ(TLOCK_ASYNC, waiter.flags);
			EXPECT_EQ(num ? LONG + 1 : LONG, waiter.timeout_ns);
			EXPECT_EQ(tlock_ticket(num ? fourth : self->b),
				  waiter.ticket);
		}
		before = waiter;
		num++;
	}
	EXPECT_EQ(ENOENT, errno);
	EXPECT_EQ(3, num);
	EXPECT_EQ(0, memcmp(&before, &waiter, sizeof(waiter)));

	/* It is the same for a contender, and goes on behind one that has left */
	waiter.ticket = tlock_ticket(self->b);
	ASSERT_EQ(0, tlock_release(self->b));
	ASSERT_EQ(0, tlock_waiter(self->a, &waiter));
	EXPECT_STREQ("second", waiter.job);
	ASSERT_EQ(0, tlock_waiter(third, &waiter));
	EXPECT_STREQ("third", waiter.job);
	waiter.reserved[0] = 1;
	EXPECT_FAILS(EINVAL, tlock_waiter(t, &waiter));

	ASSERT_EQ(0, tlock_release(self->a));
	ASSERT_EQ(0, end(&c));
	ASSERT_EQ(0, tlock_release(third));
	ASSERT_EQ(0, tlock_release(fourth));
	tlock_close(third);
	tlock_close(fourth);
	tlock_close(t);
}

/* A request that is interrupted does not wait. */
TEST_F(lock, waiter_away)
{
	struct tlock_waiter waiter = { 0 };
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "away",
		.timeout_ns = TLOCK_FOREVER,
	};

	ASSERT_EQ(0, tlock_acquire(self->a, "holder", TLOCK_TRY));
	interrupt(_metadata, &c);
	EXPECT_FAILS(ENOENT, tlock_waiter(self->a, &waiter));
	ASSERT_EQ(0, tlock_release(self->b));
	ASSERT_EQ(0, tlock_release(self->a));
}

/* One event of each kind that a lock has while it exists */
TEST_F(lock, monitor)
{
	struct tlock *t, *third = tlock_open(NULL, O_RDWR);
	struct tlock_event event, first;
	struct call c = {
		.fn = tlock_acquire, .t = self->b, .job = "interrupted",
		.timeout_ns = TLOCK_FOREVER,
	};
	int64_t begun = now();
	uint64_t token, ticket;

	ASSERT_NE(NULL, third);
	/* Nobody learns of this */
	ASSERT_EQ(0, tlock_acquire(self->a, "before", TLOCK_TRY));
	ASSERT_EQ(0, tlock_release(self->a));
	t = monitor(NULL);
	EXPECT_EQ(0, events(t));

	ASSERT_EQ(0, tlock_acquire(self->a, "first", TLOCK_TRY));
	token = tlock_token(self->a);
	first = EXPECT_EVENT(t, "acquired", token, 0, "first");
	EXPECT_EQ(getpid(), first.pid);
	EXPECT_EQ(geteuid(), first.uid);
	EXPECT_STREQ(own_comm(), first.comm);
	EXPECT_EQ(0, first.flags);
	EXPECT_LE(begun, first.time_ns);
	EXPECT_GE(now(), first.time_ns);
	EXPECT_EQ(0, events(t));

	EXPECT_FAILS(ETIMEDOUT, tlock_acquire(self->b, "hasty", TLOCK_TRY));
	event = EXPECT_EVENT(t, "timed-out", 0, 0, "hasty");
	EXPECT_EQ(first.seq + 1, event.seq);
	EXPECT_LE(first.time_ns, event.time_ns);

	EXPECT_IN_PROGRESS(tlock_start_acquire(self->b, "second", LONG));
	ticket = tlock_ticket(self->b);
	event = EXPECT_EVENT(t, "waiting", 0, ticket, "second");
	EXPECT_EQ(first.seq + 2, event.seq);
	ASSERT_EQ(0, tlock_release(self->b));
	EXPECT_EVENT(t, "withdrawn", 0, ticket, "second");

	EXPECT_IN_PROGRESS(tlock_start_acquire(third, "third", LONG));
	ticket = tlock_ticket(third);
	EXPECT_EVENT(t, "waiting", 0, ticket, "third");
	EXPECT_IN_PROGRESS(tlock_start_reacquire(self->a, "again", LONG));
	EXPECT_EVENT(t, "yielded", token, 0, "first");
	EXPECT_EVENT(t, "waiting", 0, tlock_ticket(self->a), "again");
	event = EXPECT_EVENT(t, "acquired", token + 1, ticket, "third");
	EXPECT_EQ(TLOCK_UNFETCHED, event.flags);
	ASSERT_EQ(0, tlock_finish(third));

	/* Its file is closed without a release */
	ticket = tlock_ticket(self->a);
	tlock_close(third);
	EXPECT_EVENT(t, "abandoned", token + 1, 0, "third");
	EXPECT_EVENT(t, "acquired", token + 2, ticket, "again");
	ASSERT_EQ(0, tlock_finish(self->a));

	interrupt(_metadata, &c);
	ticket = tlock_ticket(self->b);
	EXPECT_EVENT(t, "waiting", 0, ticket, "interrupted");
	EXPECT_EVENT(t, "interrupted", 0, ticket, "interrupted");
	ASSERT_EQ(0, tlock_release(self->b));
	EXPECT_EVENT(t, "withdrawn", 0, ticket, "interrupted");
	ASSERT_EQ(0, tlock_release(self->a));
	event = EXPECT_EVENT(t, "released", token + 2, 0, "again");
	EXPECT_LE(first.time_ns, event.time_ns);
	EXPECT_EQ(first.seq + 13, event.seq);
	EXPECT_EQ(0, events(t));
	tlock_close(t);
}

/* A reader that is too slow loses the oldest events, and sees how many. */
TEST_F(lock, monitor_lost)
{
	enum { PAIRS = 1000 };
	struct tlock *t = monitor(NULL);
	struct tlock_event event;
	uint64_t last = 0, seq = 0;
	int num = 0, lost = 0;

	for (int i = 0; i < PAIRS; i++) {
		ASSERT_EQ(0, tlock_acquire(self->a, "often", TLOCK_TRY));
		last = tlock_token(self->a);
		ASSERT_EQ(0, tlock_release(self->a));
	}
	while (events(t)) {
		ASSERT_EQ(0, tlock_next_event(t, &event));
		if (!num)
			lost = event.lost;
		EXPECT_EQ(num ? 0 : lost, event.lost);
		EXPECT_EQ(num ? seq + 1 : event.seq, event.seq);
		seq = event.seq;
		num++;
	}
	EXPECT_LT(0, lost);
	EXPECT_LT(0, num);
	EXPECT_EQ(2 * PAIRS, lost + num);
	EXPECT_EQ(TLOCK_EVENT_RELEASED, event.kind);
	EXPECT_EQ(last, event.token);
	tlock_close(t);
}

/* tlock_next_event() in a thread, in the form that struct call has */
static struct tlock_event seen;
static atomic_int reader;

static int read_event(struct tlock *t, const char *job, int64_t timeout_ns)
{
	(void)job;
	(void)timeout_ns;
	reader = syscall(SYS_gettid);
	return tlock_next_event(t, &seen);
}

/* Begins a read, and waits until it sleeps in read(2). */
static void begin_read(struct call *c, struct tlock *t)
{
	struct timespec briefly = { .tv_nsec = MSEC };
	char path[64], text[16], wanted[16];

	*c = (struct call) { .fn = read_event, .t = t };
	reader = 0;
	begin(c);
	snprintf(wanted, sizeof(wanted), "%d 0x%x ", SYS_read, tlock_fd(t));
	for (;;) {
		int fd;

		snprintf(path, sizeof(path), "/proc/self/task/%d/syscall",
			 reader);
		memset(text, 0, sizeof(text));
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			if (read(fd, text, sizeof(text) - 1) < 0)
				text[0] = '\0';
			close(fd);
		}
		if (!strncmp(text, wanted, strlen(wanted)))
			return;
		nanosleep(&briefly, NULL);
	}
}

TEST_F(lock, monitor_waits)
{
	struct tlock *t = monitor(NULL);
	struct call c;

	begin_read(&c, t);
	ASSERT_EQ(0, tlock_acquire(self->a, "wakes", TLOCK_TRY));
	ASSERT_EQ(0, end(&c));
	EXPECT_STREQ("acquired", tlock_event_name(seen.kind));
	EXPECT_STREQ("wakes", seen.job);
	EXPECT_EQ(tlock_token(self->a), seen.token);

	/* A handler with SA_RESTART does not end the wait */
	handle_sigusr1(SA_RESTART);
	begin_read(&c, t);
	ASSERT_EQ(0, pthread_kill(c.thread, SIGUSR1));
	ASSERT_EQ(0, tlock_release(self->a));
	ASSERT_EQ(0, end(&c));
	EXPECT_STREQ("released", tlock_event_name(seen.kind));

	/* Another one does, and no event is lost */
	handle_sigusr1(0);
	begin_read(&c, t);
	ASSERT_EQ(0, pthread_kill(c.thread, SIGUSR1));
	ASSERT_EQ(EINTR, end(&c));
	ASSERT_EQ(0, tlock_acquire(self->a, "next", TLOCK_TRY));
	EXPECT_EVENT(t, "acquired", tlock_token(self->a), 0, "next");
	ASSERT_EQ(0, tlock_release(self->a));
	tlock_close(t);
}

TEST_F(lock, monitor_poll)
{
	struct tlock *t = monitor(NULL), *other = looker(NULL);
	struct pollfd p = { .fd = tlock_fd(t), .events = POLLIN };
	struct tlock_event event;

	EXPECT_EQ(0, poll(&p, 1, 0));
	ASSERT_EQ(0, tlock_acquire(self->a, "polled", TLOCK_TRY));
	EXPECT_EQ(1, poll(&p, 1, PATIENCE / MSEC));
	EXPECT_EQ(POLLIN, p.revents);
	/* A handle that does not monitor has nothing to read */
	EXPECT_EQ(0, events(other));
	EXPECT_EQ(0, tlock_next_event(t, &event));
	EXPECT_EQ(0, poll(&p, 1, 0));

	ASSERT_EQ(0, fcntl(tlock_fd(t), F_SETFL, O_NONBLOCK));
	EXPECT_FAILS(EAGAIN, tlock_next_event(t, &event));
	ASSERT_EQ(0, tlock_release(self->a));
	EXPECT_EVENT(t, "released", event.token, 0, "polled");
	EXPECT_FAILS(EAGAIN, tlock_next_event(t, &event));
	tlock_close(other);
	tlock_close(t);
}

TEST_F(lock, monitor_errors)
{
	struct tlock *t = looker(NULL);
	struct tlock_event event;

	EXPECT_FAILS(EINVAL, tlock_next_event(t, &event));
	EXPECT_EQ(0, tlock_monitor(t));
	EXPECT_FAILS(EBUSY, tlock_monitor(t));
	/* It still looks only */
	EXPECT_FAILS(EBADF, tlock_acquire(t, "", TLOCK_TRY));
	/* A contender cannot monitor, not even if it is idle */
	EXPECT_FAILS(EBADF, tlock_monitor(self->a));
	EXPECT_FAILS(EINVAL, tlock_next_event(self->a, &event));
	tlock_close(t);
}

/* Each event goes to one of those who share the handle. */
TEST_F(lock, monitor_fork)
{
	struct tlock *t = monitor(NULL);
	pid_t pid;

	ASSERT_EQ(0, tlock_acquire(self->a, "shared", TLOCK_TRY));
	ASSERT_EQ(0, tlock_release(self->a));
	pid = fork();
	if (!pid) {
		struct tlock_event event;

		_exit(tlock_next_event(t, &event) ? 0 : event.kind);
	}
	EXPECT_EQ(TLOCK_EVENT_ACQUIRED, exit_status(pid));
	EXPECT_EQ(TLOCK_EVENT_RELEASED, next(t).kind);
	EXPECT_EQ(0, events(t));
	tlock_close(t);
}

/* The library itself fills only what a program of this version has room for. */
TEST_F(lock, monitor_size)
{
	struct tlock *t = monitor(NULL);
	struct {
		struct tlock_event event;
		char after[sizeof(struct tlock_event)];
	} guarded;

	memset(&guarded, 0xa5, sizeof(guarded));
	ASSERT_EQ(0, tlock_acquire(self->a, "size", TLOCK_TRY));
	ASSERT_EQ(0, tlock_release(self->a));
	ASSERT_EQ(0, tlock_next_event(t, &guarded.event));
	EXPECT_EQ(160, guarded.event.size);
	EXPECT_EQ(TLOCK_EVENT_ACQUIRED, guarded.event.kind);
	for (size_t i = 0; i < sizeof(guarded.after); i++)
		ASSERT_EQ((char)0xa5, guarded.after[i]);
	/* The second event is still there */
	EXPECT_EQ(TLOCK_EVENT_RELEASED, next(t).kind);
	tlock_close(t);
}

/* What happens to one lock is no event of another one. */
TEST_F(lock, monitor_deleted)
{
	struct tlock *t, *idle, *writer;
	struct tlock_waiter waiter = { 0 };
	struct tlock_event event;
	struct call c;

	ASSERT_EQ(0, create_lock("libwatch"));
	t = monitor("libwatch");
	idle = looker("libwatch");
	ASSERT_EQ(0, tlock_acquire(self->a, "elsewhere", TLOCK_TRY));
	ASSERT_EQ(0, tlock_release(self->a));
	EXPECT_EQ(0, events(t));
	writer = tlock_open("libwatch", O_RDWR);
	ASSERT_NE(NULL, writer);
	ASSERT_EQ(0, tlock_acquire(writer, "last", TLOCK_TRY));
	EXPECT_EVENT(t, "acquired", tlock_token(writer), 0, "last");
	ASSERT_EQ(0, tlock_release(writer));
	tlock_close(writer);
	EXPECT_EQ(TLOCK_EVENT_RELEASED, next(t).kind);

	begin_read(&c, t);
	ASSERT_EQ(0, delete_lock("libwatch"));
	ASSERT_EQ(0, end(&c));
	EXPECT_STREQ("deleted", tlock_event_name(seen.kind));
	EXPECT_EQ(0, seen.token);
	EXPECT_EQ(0, seen.pid);
	EXPECT_STREQ("", seen.job);
	for (int i = 0; i < 2; i++) {
		EXPECT_EQ(POLLHUP, events(t));
		EXPECT_FAILS(ENODEV, tlock_next_event(t, &event));
		EXPECT_FAILS(ENODEV, tlock_waiter(t, &waiter));
		EXPECT_EQ(POLLHUP, events(idle));
		EXPECT_FAILS(ENODEV, tlock_monitor(idle));
		EXPECT_FAILS(EINVAL, tlock_next_event(idle, &event));
		/* A new lock of this name is another one */
		if (!i)
			ASSERT_EQ(0, create_lock("libwatch"));
	}
	tlock_close(t);
	t = monitor("libwatch");
	EXPECT_EQ(0, events(t));
	ASSERT_EQ(0, delete_lock("libwatch"));
	EXPECT_EVENT(t, "deleted", 0, 0, "");
	tlock_close(t);
	tlock_close(idle);
}

TEST(event_names)
{
	static const char *const names[] = {
		"unknown", "waiting", "acquired", "released", "yielded",
		"timed-out", "interrupted", "withdrawn", "abandoned", "deleted",
		"revoked", "unknown",
	};

	for (unsigned int i = 0; i < sizeof(names) / sizeof(*names); i++)
		EXPECT_STREQ(names[i], tlock_event_name(i));
	EXPECT_STREQ("unknown", tlock_event_name(-1));
}

/* The next line that the example prints is this one. */
static bool prints(struct __test_metadata *_metadata, FILE *output,
		   const char *line)
{
	char buf[TLOCK_EXPLAIN_SIZE] = "";

	if (!fgets(buf, sizeof(buf), output))
		buf[0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	if (strcmp(buf, line))
		TH_LOG("the line is: %s", buf);
	return !strcmp(buf, line);
}

#define EXPECT_PRINTS(output, ...) do {					\
	char wanted_[TLOCK_EXPLAIN_SIZE];				\
									\
	snprintf(wanted_, sizeof(wanted_), __VA_ARGS__);		\
	EXPECT_TRUE(prints(_metadata, output, wanted_));				\
} while (0)

/* Runs userlib/examples/watch.c. */
TEST_F(lock, example)
{
	int pid = getpid();
	char why[TLOCK_EXPLAIN_SIZE];
	struct tlock *t, *waiter;
	FILE *output;

	ASSERT_EQ(0, create_lock("libwatch"));
	ASSERT_EQ(0, create_lock("libother"));
	t = tlock_open("libwatch", O_RDWR);
	waiter = tlock_open("libwatch", O_RDWR);
	ASSERT_NE(NULL, t);
	ASSERT_NE(NULL, waiter);
	ASSERT_EQ(0, tlock_acquire(t, "visit", TLOCK_TRY));
	EXPECT_IN_PROGRESS(tlock_start_acquire(waiter, "look", LONG));
	output = run_example("watch", "nosuchlock libwatch libother");
	EXPECT_PRINTS(output, "%s",
		      tlock_explain("nosuchlock", ENOENT, why, sizeof(why)));
	EXPECT_PRINTS(output, "libwatch: watched");
	EXPECT_PRINTS(output, "libwatch: process %d waits for look", pid);
	EXPECT_PRINTS(output, "libother: watched");
	tlock_close(t);
	EXPECT_PRINTS(output, "libwatch: abandoned by process %d for visit", pid);
	EXPECT_PRINTS(output, "libwatch: acquired by process %d for look", pid);
	ASSERT_EQ(0, tlock_finish(waiter));
	ASSERT_EQ(0, tlock_release(waiter));
	EXPECT_PRINTS(output, "libwatch: released by process %d for look", pid);
	tlock_close(waiter);
	ASSERT_EQ(0, delete_lock("libwatch"));
	EXPECT_PRINTS(output, "libwatch: deleted");
	t = tlock_open("libother", O_RDWR);
	ASSERT_NE(NULL, t);
	ASSERT_EQ(0, tlock_acquire(t, "goes on", TLOCK_TRY));
	EXPECT_PRINTS(output, "libother: acquired by process %d for goes on",
		      pid);
	ASSERT_EQ(0, tlock_release(t));
	tlock_close(t);
	EXPECT_PRINTS(output, "libother: released by process %d for goes on",
		      pid);
	ASSERT_EQ(0, delete_lock("libother"));
	EXPECT_PRINTS(output, "libother: deleted");
	EXPECT_PRINTS(output, "%s", "");
	EXPECT_EQ(0, pclose(output));
}

TEST_HARNESS_MAIN
