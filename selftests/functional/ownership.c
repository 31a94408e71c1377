// SPDX-License-Identifier: GPL-2.0-only
/*
 * A contender is an open file description. It is shared by fork() and by
 * passing the file, and its last close ends it.
 *
 * Guarantee 7: only the holder releases, and a contender holds or waits only
 * once at a time.
 */
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tlock_test.h"

TEST_F(tlock, g7_only_the_holder_releases)
{
	struct tlock_status before, after;
	struct call *waiter;
	int fd = contender();

	/* A free lock belongs to nobody */
	EXPECT_EQ(-EPERM, release(fd));
	take(self->fd, "holder");
	waiter = call(contender(), acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));

	before = look(self->fd);
	EXPECT_EQ(-EPERM, release(fd));
	after = look(self->fd);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));

	ASSERT_EQ(0, release(self->fd));
	EXPECT_EQ(-EPERM, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(-EPERM, release(self->fd));
	EXPECT_EQ(0, release(waiter->fd));
	EXPECT_EQ(-EPERM, release(waiter->fd));
	close(waiter->fd);
	close(fd);
}

TEST_F(tlock, g7_acquire_while_holding)
{
	static const __s64 timeouts[] = { 0, FOREVER, LONG };
	struct tlock_status before, after;
	struct tlock_acquire arg;

	take(self->fd, "holder");
	before = look(self->fd);
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		arg = ask(timeouts[i], "again");
		EXPECT_EQ(-EDEADLK, acquire(self->fd, &arg));
		EXPECT_EQ(timeouts[i], arg.timeout_ns);
	}
	/* It still holds, with the same job */
	after = look(self->fd);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(tlock, g7_two_threads_on_one_file)
{
	static const __s64 timeouts[] = { 0, FOREVER, LONG };
	struct tlock_status before, after;
	struct tlock_acquire arg;
	struct call *waiter;
	int fd = contender();

	take(self->fd, "holder");
	waiter = call(fd, acquire, FOREVER, "first thread");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	before = look(self->fd);
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		arg = ask(timeouts[i], "second thread");
		EXPECT_EQ(-EBUSY, acquire(fd, &arg));
		EXPECT_EQ(timeouts[i], arg.timeout_ns);
	}
	after = look(self->fd);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));

	/* The first thread still waits, with its own job, and gets the lock */
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_STREQ("first thread", look(fd).holder.job);
	arg = ask(0, "second thread");
	EXPECT_EQ(-EDEADLK, acquire(fd, &arg));
	/* Any thread may release a grant of the same file */
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/* The process that took the lock is the one that is shown, for each in turn. */
TEST_F(tlock, g5_one_process_after_the_other_on_one_file)
{
	for (int i = 0; i < 20; i++) {
		struct agent *a = agent_sharing(self->fd);

		agent_take(a, "turn");
		EXPECT_EQ(a->pid, look(self->fd).holder.pid);
		EXPECT_EQ(0, agent_release(a));
		agent_kill(a);
	}
}

/* Threads that compete open the device once each. */
TEST_F(tlock, g7_two_files_of_one_process)
{
	struct tlock_acquire arg = ask(0, "second");
	int fd = contender();

	take(self->fd, "first");
	EXPECT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	EXPECT_STREQ("first", arg.holder.job);
	EXPECT_EQ(getpid(), arg.holder.pid);
	EXPECT_EQ(-EPERM, release(fd));
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

/* A duplicate of a descriptor is the same contender. */
TEST_F(tlock, g7_dup_is_the_same_contender)
{
	struct tlock_acquire arg = ask(0, "again");
	__u64 token = take(self->fd, "holder");
	int fd = dup(self->fd);

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EDEADLK, acquire(fd, &arg));
	EXPECT_EQ(0, close(self->fd));
	EXPECT_EQ(token, look(fd).holder.token);
	EXPECT_EQ(0, release(fd));
	self->fd = fd;
}

TEST_F(tlock, g7_fork_shares_what_is_held)
{
	__u64 token = take(self->fd, "parent");
	struct tlock_acquire arg = ask(0, "child");
	struct agent *child = agent_sharing(self->fd);

	EXPECT_EQ(-EDEADLK, agent_do(child, acquire, &arg));
	/* The end of one process does not end the grant */
	agent_kill(child);
	EXPECT_EQ(token, look(self->fd).holder.token);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);

	child = agent_sharing(self->fd);
	EXPECT_EQ(0, agent_release(child));
	EXPECT_EQ(-EPERM, release(self->fd));
	EXPECT_EQ(0, look(self->fd).holder.token);
}

TEST_F(tlock, g7_fork_outlives_the_parent)
{
	__u64 token = take(self->fd, "parent");
	struct agent *child = agent_sharing(self->fd);
	struct tlock_acquire arg = ask(LONG, "next");
	int fd = contender();

	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(token, look(fd).holder.token);
	EXPECT_EQ(self->before.abandoned, look(fd).abandoned);
	/* That was the last reference */
	agent_kill(child);
	EXPECT_EQ(0, look(fd).holder.token);
	EXPECT_EQ(self->before.abandoned + 1, look(fd).abandoned);
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(fd));
	self->fd = fd;
}

/* In an agent: replaces its file by one that it receives. */
static int receive_file(int fd, struct tlock_acquire *arg)
{
	int passed = recv_fd(agent_ctl);

	if (dup2(passed, fd) < 0)
		return -errno;
	return close(passed);
}

TEST_F(tlock, g7_passed_by_scm_rights)
{
	__u64 token = take(self->fd, "sender");
	struct agent *receiver = agent();
	int fd = contender();

	agent_begin(receiver, receive_file, NULL);
	send_fd(receiver->ctl, self->fd);
	ASSERT_EQ(0, agent_end(receiver, NULL));
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(token, look(fd).holder.token);
	/* The process that acquired it still runs */
	EXPECT_EQ(getpid(), look(fd).holder.pid);

	EXPECT_EQ(0, agent_release(receiver));
	EXPECT_EQ(0, look(fd).holder.token);
	EXPECT_EQ(self->before.abandoned, look(fd).abandoned);
	self->fd = fd;
}

/* A file in flight in a socket is still open. */
TEST_F(tlock, g7_passed_and_never_received)
{
	__u64 token = take(self->fd, "sender");
	struct tlock_acquire arg = ask(LONG, "next");
	int fd = contender(), ends[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
	send_fd(ends[0], self->fd);
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(token, look(fd).holder.token);
	close(ends[0]);
	close(ends[1]);
	/* The kernel may drop the file a little later */
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(fd));
	self->fd = fd;
}

/* The process that acquired the lock is shown until it ends. */
TEST_F(tlock, g5_pid_of_an_ended_process_is_not_shown)
{
	struct agent *child = agent_sharing(self->fd);
	struct tlock_acquire arg = ask(0, "try");
	__u64 token = agent_take(child, "child");
	struct tlock_holder before, after;
	int fd = contender();
	siginfo_t info;

	before = look(self->fd).holder;
	EXPECT_EQ(child->pid, before.pid);
	EXPECT_EQ(child->pid, sysfs_number("pid"));

	/* First a zombie, then reaped */
	ASSERT_EQ(0, kill(child->pid, SIGKILL));
	ASSERT_EQ(0, waitid(P_PID, child->pid, &info, WEXITED | WNOWAIT));
	before.pid = 0;
	for (int i = 0; i < 2; i++) {
		after = look(self->fd).holder;
		EXPECT_EQ(token, after.token);
		EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
		EXPECT_EQ(-ETIMEDOUT, acquire(fd, &arg));
		EXPECT_EQ(0, memcmp(&before, &arg.holder, sizeof(before)));
		EXPECT_STREQ("", sysfs_text("pid"));
		EXPECT_STREQ("child", sysfs_text("job"));
		if (!i)
			agent_reap(child);
	}
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

/* In an agent: its first thread ends, and the process goes on in another. */
static void *acquire_and_wait(void *data)
{
	int fd = *(int *)data;
	struct tlock_acquire arg = ask(FOREVER, "thread");

	if (acquire(fd, &arg))
		_exit(1);
	pause();
	return NULL;
}

static int leave_it_to_a_thread(int fd, struct tlock_acquire *arg)
{
	static int passed;
	pthread_t thread;

	passed = fd;
	if (pthread_create(&thread, NULL, acquire_and_wait, &passed))
		_exit(1);
	pthread_exit(NULL);
}

TEST_F(tlock, g5_pid_of_a_process_whose_first_thread_ended)
{
	struct agent *a = agent();
	struct tlock_acquire arg = ask(LONG, "next");
	char path[40];

	agent_begin(a, leave_it_to_a_thread, NULL);
	ASSERT_TRUE(await_acquired(self->fd, self->before.acquired + 1));
	/* The first thread is a zombie; the process is not */
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)a->pid);
	for (__s64 end = now() + PATIENCE; !strstr(read_text(path), ") Z ");) {
		ASSERT_GT(end, now());
		usleep(200);
	}
	EXPECT_EQ(a->pid, look(self->fd).holder.pid);
	EXPECT_EQ(a->pid, sysfs_number("pid"));

	agent_kill(a);
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(self->fd));
}

/* After a reacquire on a shared file, the process that made it is shown. */
TEST_F(tlock, g5_reacquire_by_another_process)
{
	struct tlock_acquire arg = ask(LONG, "");
	struct agent *child = agent_sharing(self->fd);
	__u64 token = take(self->fd, "parent");
	struct call *waiter;
	int fd = contender();

	EXPECT_EQ(getpid(), look(self->fd).holder.pid);
	ASSERT_EQ(0, agent_do(child, reacquire, &arg));
	EXPECT_EQ(token, look(self->fd).holder.token);
	EXPECT_EQ(child->pid, look(self->fd).holder.pid);
	EXPECT_STREQ("parent", look(self->fd).holder.job);

	/* Again, this time with another holder in between */
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	agent_begin(child, reacquire, &arg);
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(getpid(), look(self->fd).holder.pid);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, agent_end(child, &arg));
	EXPECT_EQ(token + 2, arg.token);
	EXPECT_EQ(child->pid, look(self->fd).holder.pid);

	ASSERT_EQ(0, reacquire(self->fd, &arg));
	EXPECT_EQ(getpid(), look(self->fd).holder.pid);
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_HARNESS_MAIN
