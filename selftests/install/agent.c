// SPDX-License-Identifier: GPL-2.0-only
/*
 * agent TEST [COMMAND]: what an agent does with libtlock, for versions.sh, which
 * builds it against the library of one version and runs it with that of another,
 * on the module of a third. It uses only what all of these libraries have.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <tlock.h>
#include <unistd.h>

#define EXPECT(condition) do {						\
	if (!(condition)) {						\
		printf("line %d: %s; %s\n", __LINE__, #condition,	\
		       strerror(errno));				\
		exit(1);						\
	}								\
} while (0)
/* The call fails with this error */
#define FAILS(error, call)						\
	EXPECT((errno = 0, (call)) == -1 && errno == (error))

#define LONG	tlock_seconds(60)

static struct tlock *lock, *other;

static struct tlock_status look(void)
{
	struct tlock_status status;

	EXPECT(!tlock_status(other, &status));
	return status;
}

static bool reports(struct tlock *t, short events)
{
	struct pollfd poller = { .fd = tlock_fd(t), .events = events };

	return poll(&poller, 1, 60000) == 1 && poller.revents == events;
}

/* Whether the text for the error names the module's version and a remedy */
static bool explains_version(int err)
{
	char text[TLOCK_EXPLAIN_SIZE], version[64];
	FILE *file = fopen("/sys/module/tlock/version", "r");

	EXPECT(file && fscanf(file, "%60s", version) == 1);
	fclose(file);
	strcat(version, ",");
	puts(tlock_explain(NULL, err, text, sizeof(text)));
	return strstr(text, version) && strstr(text, ": install");
}

/* Acquire, timeout, job, release-and-reacquire, status, abandonment */
static void test_waits(void)
{
	const struct tlock_holder *blocker;
	struct tlock_status before = look(), status;
	uint64_t token;
	pid_t pid;
	int left;

	EXPECT(!before.holder.token && !strcmp(before.name, "tlock"));
	EXPECT(!tlock_acquire(lock, "held", TLOCK_TRY));
	token = tlock_token(lock);
	EXPECT(token && !tlock_abandoned(lock));
	status = look();
	EXPECT(status.holder.token == token && status.holder.pid == getpid());
	EXPECT(!strcmp(status.holder.job, "held"));
	EXPECT(!strcmp(status.holder.comm, "agent"));
	EXPECT(status.acquired == before.acquired + 1);

	FAILS(ETIMEDOUT, tlock_acquire(other, "late", tlock_seconds(0.05)));
	blocker = tlock_blocker(other);
	EXPECT(blocker->token == token && !strcmp(blocker->job, "held"));
	EXPECT(!tlock_time_left(other));
	FAILS(EINVAL, tlock_acquire(other, "no\njob", LONG));
	FAILS(EPERM, tlock_release(other));

	/* Nobody waits; then another process does */
	EXPECT(!tlock_reacquire(lock, "sample", LONG));
	EXPECT(tlock_token(lock) == token);
	EXPECT(!strcmp(look().holder.job, "sample"));
	pid = fork();
	if (!pid) {
		struct tlock *child = tlock_open(NULL, O_RDWR);

		/* Ends without a release */
		_exit(!child || tlock_acquire(child, "child", LONG));
	}
	while (!look().waiters)
		usleep(1000);
	EXPECT(!tlock_reacquire(lock, NULL, LONG));
	EXPECT(tlock_abandoned(lock) && tlock_token(lock) == token + 2);
	EXPECT(!strcmp(look().holder.job, "sample"));
	EXPECT(waitpid(pid, &left, 0) == pid && !left);
	EXPECT(!tlock_release(lock));
	FAILS(EPERM, tlock_release(lock));
	status = look();
	EXPECT(!status.holder.token && !status.waiters);
	EXPECT(status.abandoned == before.abandoned + 1);
}

/* Requests for event loops, those who wait, and what happens */
static void test_events(void)
{
	struct tlock *monitor = tlock_open(NULL, O_RDONLY);
	struct tlock_waiter waiter = { 0 };
	static const char *const kinds[] = {
		"acquired", "waiting", "yielded", "waiting", "acquired",
		"released", "acquired", "released",
	};
	struct tlock_event event;
	uint64_t token;

	EXPECT(monitor && !tlock_monitor(monitor));
	EXPECT(!tlock_acquire(lock, "first", TLOCK_TRY));
	token = tlock_token(lock);
	FAILS(EINPROGRESS, tlock_start_acquire(other, "second", LONG));
	EXPECT(!tlock_waiter(lock, &waiter));
	EXPECT(waiter.pid == getpid() && !strcmp(waiter.job, "second"));
	EXPECT(waiter.ticket == tlock_ticket(other));
	FAILS(ENOENT, tlock_waiter(lock, &waiter));
	FAILS(EINPROGRESS, tlock_finish(other));
	EXPECT(reports(lock, POLLIN));
	FAILS(EINPROGRESS, tlock_start_reacquire(lock, NULL, LONG));
	EXPECT(reports(other, POLLOUT));
	EXPECT(!tlock_finish(other) && tlock_token(other) == token + 1);
	EXPECT(!tlock_release(other));
	EXPECT(reports(lock, POLLOUT));
	EXPECT(!tlock_finish(lock) && tlock_token(lock) == token + 2);
	EXPECT(!tlock_release(lock));

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		EXPECT(!tlock_next_event(monitor, &event));
		printf("%s\n", tlock_event_name(event.kind));
		EXPECT(!strcmp(tlock_event_name(event.kind), kinds[i]));
		EXPECT(event.pid == getpid() && !event.lost);
	}
	EXPECT(!strcmp(event.job, "first") && event.token == token + 2);
	tlock_close(monitor);

	/* A wait that is canceled */
	EXPECT(!tlock_acquire(lock, "first", TLOCK_TRY));
	FAILS(EINPROGRESS, tlock_start_acquire(other, "second", LONG));
	EXPECT(!tlock_cancel(other));
	FAILS(ECANCELED, tlock_finish(other));
	EXPECT(!look().waiters);
	EXPECT(!tlock_release(lock));
}

/* Loses the lock by COMMAND. The library need not know what that is. */
static void test_loses(const char *command)
{
	EXPECT(!tlock_acquire(lock, "hung", TLOCK_TRY));
	EXPECT(!system(command));
	EXPECT(!look().holder.token);
	EXPECT(!tlock_acquire(other, "next", TLOCK_TRY));
	EXPECT(!tlock_abandoned(other));
	FAILS(ESTALE, tlock_reacquire(lock, NULL, LONG));
	FAILS(ETIMEDOUT, tlock_acquire(lock, "hung", TLOCK_TRY));
	EXPECT(!tlock_release(other));
	EXPECT(!tlock_acquire(lock, "again", TLOCK_TRY));
	EXPECT(!tlock_release(lock));
}

#ifdef TLOCK_IOC_REVOKE
/* The module knows neither leases nor revocation */
static void test_without_leases(void)
{
	uint64_t token;

	tlock_set_lease(lock, LONG);
	FAILS(EINVAL, tlock_acquire(lock, "leased", TLOCK_TRY));
	FAILS(EINVAL, tlock_start_acquire(lock, "leased", LONG));
	EXPECT(!look().holder.token && !look().waiters);
	FAILS(EPERM, tlock_release(lock));

	/* What a holder asks for in vain changes nothing */
	tlock_set_lease(lock, 0);
	EXPECT(!tlock_acquire(lock, "held", TLOCK_TRY));
	token = tlock_token(lock);
	FAILS(EINVAL, tlock_renew(lock, "renewed"));
	tlock_set_lease(lock, LONG);
	FAILS(EINVAL, tlock_reacquire(lock, "leased", LONG));
	FAILS(ENOTTY, tlock_revoke(other, token, 0));
	EXPECT(explains_version(ENOTTY));
	EXPECT(look().holder.token == token);
	EXPECT(!strcmp(look().holder.job, "held"));
	tlock_set_lease(lock, 0);
	EXPECT(!tlock_reacquire(lock, "held", LONG));
	EXPECT(tlock_token(lock) == token);
	EXPECT(!tlock_release(lock));
}
#endif

/* The module knows neither requests for event loops nor watching */
static void test_without_events(void)
{
	struct tlock *monitor = tlock_open(NULL, O_RDONLY);
	struct tlock_waiter waiter = { 0 };

	FAILS(EINVAL, tlock_start_acquire(lock, "started", LONG));
	EXPECT(!look().holder.token && !look().waiters);
	FAILS(EPERM, tlock_finish(lock));
	FAILS(EPERM, tlock_release(lock));
	FAILS(ENOTTY, tlock_waiter(lock, &waiter));
	FAILS(ENOTTY, tlock_monitor(monitor));
	EXPECT(explains_version(ENOTTY));
	tlock_close(monitor);
}

int main(int argc, char **argv)
{
	const char *test = argc > 1 ? argv[1] : "";

	lock = tlock_open(NULL, O_RDWR);
	other = tlock_open(NULL, O_RDWR);
	EXPECT(lock && other);
	if (!strcmp(test, "waits"))
		test_waits();
	else if (!strcmp(test, "events"))
		test_events();
	else if (!strcmp(test, "loses") && argc > 2)
		test_loses(argv[2]);
#ifdef TLOCK_IOC_REVOKE
	else if (!strcmp(test, "without_leases"))
		test_without_leases();
#endif
	else if (!strcmp(test, "without_events"))
		test_without_events();
	else
		return 2;
	/* Nothing is held afterwards */
	EXPECT(!look().holder.token);
	tlock_close(lock);
	tlock_close(other);
	return 0;
}
