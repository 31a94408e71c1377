// SPDX-License-Identifier: GPL-2.0-only
/* Guarantee 10: looking is free and never in the way. */
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tlock_test.h"

static int opened(int flags)
{
	int fd = open(DEVICE, flags | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

TEST_F(tlock, g10_read_only_looks_and_cannot_take)
{
	struct tlock_acquire arg = ask(0, "reader");
	int fd = opened(O_RDONLY);
	struct tlock_status st;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, status(fd, &st));
	EXPECT_EQ(0, memcmp(&st, &self->before, sizeof(st)));

	/* It can take neither a free nor a held lock, whatever the timeout */
	EXPECT_EQ(-EBADF, acquire(fd, &arg));
	arg.timeout_ns = FOREVER;
	EXPECT_EQ(-EBADF, acquire(fd, &arg));
	EXPECT_EQ(-EPERM, release(fd));
	EXPECT_EQ(-EBADF, reacquire(fd, &arg));
	st = look(fd);
	EXPECT_EQ(0, memcmp(&st, &self->before, sizeof(st)));

	take(self->fd, "holder");
	self->before = look(self->fd);
	EXPECT_STREQ("holder", self->before.holder.job);
	EXPECT_EQ(-EBADF, acquire(fd, &arg));
	EXPECT_EQ(-EPERM, release(fd));
	EXPECT_EQ(-EBADF, reacquire(fd, &arg));
	EXPECT_EQ(-EBADF, revoke_grant(fd, self->before.holder.token, 0));
	EXPECT_EQ(-EBADF, revoke_with(fd, NULL));
	ASSERT_EQ(0, status(fd, &st));
	EXPECT_EQ(0, memcmp(&st, &self->before, sizeof(st)));
	EXPECT_EQ(0, release(self->fd));

	/* Closing it has no effect on the lock */
	self->before = look(self->fd);
	EXPECT_EQ(0, close(fd));
	st = look(self->fd);
	EXPECT_EQ(0, memcmp(&st, &self->before, sizeof(st)));
}

TEST_F(tlock, g10_write_only_takes)
{
	int fd = opened(O_WRONLY);

	ASSERT_LE(0, fd);
	take(fd, "writer");
	EXPECT_STREQ("writer", look(fd).holder.job);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/* In an agent: opens the device as an unprivileged user */
static int open_as_nobody(int fd, struct tlock_acquire *arg)
{
	/* The saved user ID stays 0, to become root again */
	if (setegid(65534) || seteuid(65534))
		return -errno;
	fd = opened(arg->timeout_ns);
	if (fd >= 0)
		arg->token = look(fd).acquired;
	if (seteuid(0) || setegid(0))
		return -errno;
	return fd;
}

TEST_F(tlock, g10_anybody_may_look)
{
	struct tlock_acquire arg = ask(O_RDONLY, "");
	struct agent *a = agent();

	/* Change a counter that the user should see */
	take(self->fd, "holder");
	ASSERT_EQ(0, release(self->fd));
	ASSERT_LE(0, agent_do(a, open_as_nobody, &arg));
	EXPECT_EQ(self->before.acquired + 1, arg.token);

	/* The host decides who may take the lock: by default not this user */
	arg = ask(O_RDWR, "");
	EXPECT_EQ(-EACCES, agent_do(a, open_as_nobody, &arg));
}

TEST_F(tlock, g10_free_lock_shows_nothing)
{
	static const struct tlock_holder nobody;
	struct tlock_status st;

	/* Not even traces of the last holder */
	take(self->fd, "gone");
	ASSERT_EQ(0, release(self->fd));
	memset(&st, POISON, sizeof(st));
	ASSERT_EQ(0, status(self->fd, &st));
	EXPECT_EQ(0, memcmp(&nobody, &st.holder, sizeof(nobody)));
	EXPECT_EQ(0, st.waiters);
	EXPECT_TRUE(zeroed(st.reserved, sizeof(st.reserved)));
}

static atomic_int stop;
static atomic_int looks;

static int gaze(int fd, struct tlock_acquire *arg)
{
	int ret = 0;

	while (!ret && !atomic_load(&stop)) {
		struct tlock_status st;

		ret = status(fd, &st);
		sysfs_text("job");
		atomic_fetch_add(&looks, 1);
	}
	return ret;
}

/* Hand-overs go on while others read the status all the time. */
TEST_F(tlock, g10_lookers_hold_nobody_up)
{
	struct call *lookers[4], *waiter;
	int before, fd = contender();

	for (size_t i = 0; i < ARRAY_SIZE(lookers); i++)
		lookers[i] = call(opened(O_RDONLY), gaze, 0, "");
	ASSERT_TRUE(await_value(&looks, 20));
	before = atomic_load(&looks);
	for (int i = 0; i < 20; i++) {
		take(self->fd, "holder");
		waiter = call(fd, acquire, LONG, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		ASSERT_EQ(0, release(self->fd));
		ASSERT_EQ(0, result(waiter));
		ASSERT_EQ(0, release(fd));
	}
	EXPECT_LT(before, atomic_load(&looks));
	atomic_store(&stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(lookers); i++) {
		EXPECT_EQ(0, result(lookers[i]));
		close(lookers[i]->fd);
	}
	close(fd);
}

/* Takes the lock again and again; each job is the grant's token. */
static int change(int fd, struct tlock_acquire *arg)
{
	__u64 token = arg->token;
	int ret = 0;

	while (!ret && !atomic_load(&stop)) {
		token++;
		snprintf(arg->job, sizeof(arg->job), "%llu", token);
		arg->timeout_ns = 0;
		ret = acquire(fd, arg);
		if (!ret && arg->token != token)
			ret = -EILSEQ;
		if (!ret)
			ret = release(fd);
	}
	return ret;
}

TEST_F(tlock, g10_status_is_of_one_instant)
{
	struct tlock_acquire arg = ask(0, "");
	struct call *changer;
	__u64 last = 0, offset;
	int held = 0;
	char job[24];

	arg.token = take(self->fd, "first");
	offset = arg.token - look(self->fd).acquired;
	ASSERT_EQ(0, release(self->fd));
	changer = call_with(contender(), change, &arg);
	for (__s64 end = now() + SEC; now() < end && held < 2000;) {
		struct tlock_status st = look(self->fd);

		ASSERT_LE(last, st.acquired);
		last = st.acquired;
		if (!st.holder.token)
			continue;
		held++;
		ASSERT_EQ(offset + st.acquired, st.holder.token);
		snprintf(job, sizeof(job), "%llu", st.holder.token);
		ASSERT_STREQ(job, st.holder.job);
		ASSERT_EQ(getpid(), st.holder.pid);
	}
	atomic_store(&stop, 1);
	EXPECT_EQ(0, result(changer));
	EXPECT_LT(0, held);
	close(changer->fd);
}

/* The lock's own lines in fdinfo */
static const char *lock_lines(pid_t pid, int fd)
{
	char path[60];
	const char *lines;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
	lines = strstr(read_text(path), "tlock-");
	return lines ? lines : "nothing";
}

/* fdinfo shows which of a process's files holds or waits. */
TEST_F(tlock, g10_fdinfo)
{
	int fd = contender(), reader = opened(O_RDONLY);
	struct agent *shares;
	struct call *waiter;
	char text[80];
	__u64 ticket;

	/* Each file shows its own state */
	snprintf(text, sizeof(text), "tlock-state:\tholding\ntlock-token:\t%llu",
		 take(self->fd, "holder"));
	EXPECT_STREQ(text, lock_lines(getpid(), self->fd));
	EXPECT_STREQ("tlock-state:\tidle", lock_lines(getpid(), fd));
	EXPECT_STREQ("tlock-state:\tidle", lock_lines(getpid(), reader));
	/* In each process that shares it */
	shares = agent_sharing(self->fd);
	EXPECT_STREQ(text, lock_lines(shares->pid, AGENT_FD + 1));
	agent_kill(shares);

	handle_usr1(0);
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	strcpy(text, lock_lines(getpid(), fd));
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	ticket = waiter->arg->ticket;
	ASSERT_NE(0, ticket);
	/* First as it was while waiting, then as it is now */
	EXPECT_NE(NULL, strstr(text, "tlock-state:\twaiting\n"));
	EXPECT_EQ(ticket, strtoull(strrchr(text, '\t') + 1, NULL, 10));
	snprintf(text, sizeof(text), "tlock-state:\taway\ntlock-ticket:\t%llu",
		 ticket);
	EXPECT_STREQ(text, lock_lines(getpid(), fd));

	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, revoke_grant(fd, look(fd).holder.token, 0));
	EXPECT_STREQ("tlock-state:\trevoked", lock_lines(getpid(), self->fd));
	ASSERT_EQ(-ESTALE, release(self->fd));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, fd);
	EXPECT_STREQ("tlock-state:\tidle", lock_lines(getpid(), fd));
	EXPECT_STREQ("tlock-state:\tidle", lock_lines(getpid(), self->fd));
	close(reader);
	close(fd);
}

TEST_HARNESS_MAIN
