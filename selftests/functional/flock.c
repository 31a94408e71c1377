// SPDX-License-Identifier: GPL-2.0-only
/*
 * flock(2) on the device takes the same lock, so flock(1) and shells exclude
 * everybody else. All other kinds of file locks are refused.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "tlock_test.h"

static int errno_of(int ret)
{
	return ret < 0 ? -errno : ret;
}

TEST_F(tlock, flock_excludes_acquire)
{
	struct tlock_acquire arg = ask(0, "try");
	int fd = contender();
	__u64 token;

	ASSERT_EQ(0, flock_wait(fd, NULL));
	EXPECT_STREQ("holding", state_of(fd, &token));
	EXPECT_EQ(-ETIMEDOUT, acquire(self->fd, &arg));
	/* It shows who holds the lock, but no job */
	EXPECT_EQ(token, arg.holder.token);
	EXPECT_EQ(getpid(), arg.holder.pid);
	EXPECT_EQ(geteuid(), arg.holder.uid);
	EXPECT_STREQ("flock", arg.holder.comm);
	EXPECT_STREQ("", arg.holder.job);
	EXPECT_EQ(self->before.acquired + 1, look(self->fd).acquired);
	ASSERT_EQ(0, flock_end(fd, NULL));
	EXPECT_EQ(0, look(self->fd).holder.token);
	take(self->fd, "holder");
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_F(tlock, flock_is_excluded_by_acquire)
{
	struct call *waiter;
	int fd = contender();

	take(self->fd, "holder");
	EXPECT_EQ(-EWOULDBLOCK, flock_try(fd, NULL));
	EXPECT_EQ(self->before.timed_out + 1, look(fd).timed_out);
	EXPECT_EQ(self->before.contended + 1, look(fd).contended);
	EXPECT_EQ(0, look(fd).waiters);
	waiter = call(fd, flock_wait, 0, "");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_STREQ("", look(fd).holder.job);
	EXPECT_EQ(0, flock_end(fd, NULL));
	EXPECT_EQ(0, flock_try(fd, NULL));
	EXPECT_EQ(0, flock_end(fd, NULL));
	close(fd);
}

static atomic_int turns;

/*
 * Acquires the lock, notes its place in the order in timeout_ns, releases: by
 * either interface.
 */
static int turn_by_ioctl(int fd, struct tlock_acquire *arg)
{
	int ret = acquire(fd, arg);

	if (ret)
		return ret;
	arg->timeout_ns = atomic_fetch_add(&turns, 1);
	return release(fd);
}

static int turn_by_flock(int fd, struct tlock_acquire *arg)
{
	int ret = flock_wait(fd, NULL);

	if (ret)
		return ret;
	arg->timeout_ns = atomic_fetch_add(&turns, 1);
	return flock_end(fd, NULL);
}

TEST_F(tlock, g2_flock_and_acquire_in_one_queue)
{
	struct call *calls[20];

	take(self->fd, "first");
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		calls[i] = call(contender(),
				i % 3 ? turn_by_flock : turn_by_ioctl, FOREVER,
				"turn");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
	}
	ASSERT_EQ(0, release(self->fd));
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		ASSERT_EQ(0, result(calls[i]));
		EXPECT_EQ(i, calls[i]->arg->timeout_ns);
		close(calls[i]->fd);
	}
}

/* Either interface can release what the other acquired. */
TEST_F(tlock, flock_and_ioctl_of_one_file)
{
	struct tlock_acquire arg = ask(0, "job");

	ASSERT_EQ(0, flock_wait(self->fd, NULL));
	EXPECT_EQ(-EDEADLK, acquire(self->fd, &arg));
	ASSERT_EQ(0, reacquire(self->fd, &arg));
	EXPECT_STREQ("job", look(self->fd).holder.job);
	ASSERT_EQ(0, release(self->fd));
	/* While idle, LOCK_UN succeeds and RELEASE fails */
	EXPECT_EQ(0, flock_end(self->fd, NULL));
	EXPECT_EQ(-EPERM, release(self->fd));

	take(self->fd, "job");
	EXPECT_EQ(0, flock_wait(self->fd, NULL));
	EXPECT_EQ(0, flock_try(self->fd, NULL));
	EXPECT_STREQ("job", look(self->fd).holder.job);
	EXPECT_EQ(self->before.acquired + 2, look(self->fd).acquired);
	EXPECT_EQ(0, flock_end(self->fd, NULL));
	EXPECT_EQ(0, look(self->fd).holder.token);
}

/* All requests other than an exclusive flock(2) of the whole file */
FIXTURE(refused)
{
	int fd;
	int holder;
	struct tlock_status before;
};

FIXTURE_VARIANT(refused)
{
	bool held;
	bool by_other;
};

FIXTURE_VARIANT_ADD(refused, of_a_free_lock)
{
};

FIXTURE_VARIANT_ADD(refused, by_the_holder)
{
	.held = true,
};

FIXTURE_VARIANT_ADD(refused, of_a_held_lock)
{
	.held = true,
	.by_other = true,
};

FIXTURE_SETUP(refused)
{
	self->holder = contender();
	self->fd = variant->by_other ? contender() : self->holder;
	ASSERT_FREE(self->fd);
	if (variant->held) {
		ASSERT_EQ(0, flock_wait(self->holder, NULL));
	}
	self->before = look(self->fd);
}

FIXTURE_TEARDOWN(refused)
{
	struct tlock_status after = look(self->fd);

	EXPECT_EQ(0, memcmp(&self->before, &after, sizeof(after)));
	EXPECT_EQ(0, flock_end(self->holder, NULL));
	EXPECT_LEFT_FREE();
}

TEST_F(refused, shared_locks)
{
	EXPECT_EQ(-EOPNOTSUPP, errno_of(flock(self->fd, LOCK_SH)));
	EXPECT_EQ(-EOPNOTSUPP, errno_of(flock(self->fd, LOCK_SH | LOCK_NB)));
}

TEST_F(refused, locks_of_fcntl)
{
	static const int commands[] = {
		F_GETLK, F_SETLK, F_SETLKW,
		F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW,
	};
	static const short types[] = { F_RDLCK, F_WRLCK, F_UNLCK };

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		for (size_t type = 0; type < ARRAY_SIZE(types); type++) {
			struct flock lock = {
				.l_type = types[type],
				.l_whence = SEEK_SET,
			};

			/* F_GETLK with F_UNLCK makes no sense */
			if (lock.l_type == F_UNLCK && (commands[i] == F_GETLK ||
			    commands[i] == F_OFD_GETLK))
				continue;
			EXPECT_EQ(-EOPNOTSUPP,
				  errno_of(fcntl(self->fd, commands[i],
						 &lock))) {
				TH_LOG("command %d, type %d", commands[i],
				       lock.l_type);
			}
		}
	}
}

TEST_F(refused, locks_of_lockf)
{
	static const int commands[] = { F_LOCK, F_TLOCK, F_TEST, F_ULOCK };

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		EXPECT_EQ(-EOPNOTSUPP,
			  errno_of(lockf(self->fd, commands[i], 0))) {
			TH_LOG("command %d", commands[i]);
		}
	}
}

TEST_F(tlock, flock_needs_a_file_opened_for_writing)
{
	int reader = open(DEVICE, O_RDONLY | O_CLOEXEC);
	int writer = open(DEVICE, O_WRONLY | O_CLOEXEC);
	struct tlock_status after;

	ASSERT_LE(0, reader);
	ASSERT_LE(0, writer);
	EXPECT_EQ(-EBADF, flock_wait(reader, NULL));
	EXPECT_EQ(-EBADF, flock_try(reader, NULL));
	EXPECT_EQ(0, flock_end(reader, NULL));
	after = look(self->fd);
	EXPECT_EQ(0, memcmp(&self->before, &after, sizeof(after)));
	/* Nor of a held lock, and without waiting for it */
	ASSERT_EQ(0, flock_wait(writer, NULL));
	EXPECT_EQ(-EBADF, flock_wait(reader, NULL));
	EXPECT_EQ(-EBADF, flock_try(reader, NULL));
	EXPECT_EQ(0, flock_end(reader, NULL));
	EXPECT_STREQ("holding", state_of(writer, NULL));
	EXPECT_EQ(0, flock_end(writer, NULL));
	close(reader);
	close(writer);
}

/* Closing the file is the usual way to release a lock taken by flock(2). */
FIXTURE(closing)
{
	int fd;
	struct tlock_status before;
};

FIXTURE_VARIANT(closing)
{
	bool reacquired;
	bool acquired_anew;
	bool abandons;
};

FIXTURE_VARIANT_ADD(closing, flock)
{
};

/*
 * A reacquire that keeps the grant leaves it flock(2)'s, and LOCK_EX leaves an
 * ioctl's grant as it is
 */
FIXTURE_VARIANT_ADD(closing, flock_reacquired)
{
	.reacquired = true,
};

FIXTURE_VARIANT_ADD(closing, flock_and_later_acquire)
{
	.acquired_anew = true,
	.abandons = true,
};

FIXTURE_SETUP(closing)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
}

FIXTURE_TEARDOWN(closing)
{
	close(self->fd);
	EXPECT_LEFT_FREE();
}

/* In an agent: gets into the variant's state. */
static int get_there(int fd, struct tlock_acquire *arg)
{
	bool reacquired = arg->token & 1, acquired_anew = arg->token & 2;
	int ret = flock_wait(fd, NULL);

	if (!ret && reacquired)
		ret = reacquire(fd, arg);
	if (!ret && acquired_anew) {
		ret = flock_end(fd, NULL);
		if (!ret)
			ret = acquire(fd, arg);
		/* It holds already, so this changes nothing */
		if (!ret)
			ret = flock_wait(fd, NULL);
	}
	return ret;
}

#define CLOSE_BY(how) do {						\
	struct tlock_acquire __arg = ask(0, "");			\
	__u32 __flags = variant->abandons ? TLOCK_ABANDONED : 0;	\
	struct call *__waiter;						\
	struct agent *__a = agent();					\
									\
	__arg.token = variant->reacquired + 2 * variant->acquired_anew; \
	ASSERT_EQ(0, agent_do(__a, get_there, &__arg));			\
	__waiter = call(self->fd, acquire, FOREVER, "waiter");		\
	ASSERT_TRUE(await_waiters(self->fd, 1));			\
	how;								\
	ASSERT_EQ(0, result(__waiter));					\
	EXPECT_EQ(__flags, __waiter->arg->result);			\
	EXPECT_EQ(self->before.abandoned + variant->abandons,		\
		  look(self->fd).abandoned);				\
	EXPECT_EQ(0, release(self->fd));				\
} while (0)

static int do_close(int fd, struct tlock_acquire *arg)
{
	return close(fd);
}

static int do_exit(int fd, struct tlock_acquire *arg)
{
	_exit(0);
}

TEST_F(closing, g6_by_close)
{
	CLOSE_BY(ASSERT_EQ(0, agent_do(__a, do_close, NULL)));
}

TEST_F(closing, g6_by_exit)
{
	CLOSE_BY(agent_begin(__a, do_exit, NULL));
}

TEST_F(closing, g6_by_kill_9)
{
	CLOSE_BY(agent_kill(__a));
}

/* flock(2) cannot report that a holder died, so the next ioctl does. */
TEST_F(tlock, g6_abandoned_outlasts_flock)
{
	struct tlock_acquire arg = ask(0, "next");
	struct agent *a = agent();
	struct call *waiter;
	int fd = contender();

	/* By a hand-over, from a free lock, and once more by one that closes */
	agent_take(a, "mortal");
	waiter = call(fd, flock_wait, 0, "");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	agent_kill(a);
	ASSERT_EQ(0, result(waiter));
	ASSERT_EQ(0, flock_end(fd, NULL));
	ASSERT_EQ(0, flock_try(fd, NULL));
	ASSERT_EQ(0, flock_end(fd, NULL));
	ASSERT_EQ(0, flock_wait(fd, NULL));
	ASSERT_EQ(0, close(fd));

	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	ASSERT_EQ(0, release(self->fd));
	EXPECT_EQ(self->before.abandoned + 1, look(self->fd).abandoned);
	/* Only that grant reports it */
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(0, release(self->fd));
}

/* A holder by flock(2) can be revoked, and learns so by flock(2). */
TEST_F(tlock, g12_flock_revoked)
{
	static int (*const calls[])(int fd, struct tlock_acquire *arg) = {
		flock_wait, flock_try, flock_end,
	};
	struct tlock_acquire arg;
	int fd = contender();

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		ASSERT_EQ(0, flock_wait(fd, NULL));
		ASSERT_EQ(0, revoke_grant(self->fd, look(fd).holder.token, 0));
		take(self->fd, "next");
		EXPECT_STREQ("revoked", state_of(fd, NULL));
		EXPECT_EQ(-ESTALE, calls[i](fd, NULL));
		EXPECT_STREQ("idle", state_of(fd, NULL));
		EXPECT_EQ(0, flock_end(fd, NULL));
		ASSERT_EQ(0, release(self->fd));
	}
	/* After a grace, and closed by someone who never learns it */
	ASSERT_EQ(0, flock_wait(fd, NULL));
	ASSERT_EQ(0, revoke_grant(self->fd, look(fd).holder.token, MSEC));
	arg = ask(FOREVER, "next");
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_REVOKED, arg.result);
	EXPECT_EQ(0, close(fd));
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	EXPECT_EQ(0, release(self->fd));
	EXPECT_NEXT_LEARNS(0, self->fd);
}

/* flock(2) asks for no lease, and renews none. */
TEST_F(tlock, g12_flock_and_leases)
{
	struct tlock_acquire arg;
	struct tlock_holder holder;

	take_lease(self->fd, "leased", LONG);
	holder = look(self->fd).holder;
	ASSERT_EQ(0, flock_wait(self->fd, NULL));
	ASSERT_EQ(0, flock_try(self->fd, NULL));
	EXPECT_EQ(holder.expires_ns, look(self->fd).holder.expires_ns);
	ASSERT_EQ(0, flock_end(self->fd, NULL));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, (i ? flock_try : flock_wait)(self->fd, NULL));
		EXPECT_EQ(0, look(self->fd).holder.flags);
		EXPECT_EQ(0, look(self->fd).holder.expires_ns);
		/* A reacquire can give it one */
		ASSERT_EQ(0, renew(self->fd, LONG));
		EXPECT_EQ(TLOCK_LEASED, look(self->fd).holder.flags);
		arg = ask_lease(0, "", 2 * LONG);
		ASSERT_EQ(0, reacquire(self->fd, &arg));
		EXPECT_LE(holder.expires_ns + LONG,
			  look(self->fd).holder.expires_ns);
		ASSERT_EQ(0, flock_end(self->fd, NULL));
	}
}

/*
 * flock(2) cannot report a revocation of somebody else, so the next ioctl does.
 */
TEST_F(tlock, g12_revoked_outlasts_flock)
{
	int fd = contender();
	struct call *waiter;

	/* By a hand-over, from a free lock, and once more by one that closes */
	take_lease(self->fd, "holder", MSEC);
	waiter = call(fd, flock_wait, 0, "");
	ASSERT_EQ(0, result(waiter));
	EXPECT_LOST(self->fd);
	ASSERT_EQ(0, flock_end(fd, NULL));
	ASSERT_EQ(0, flock_try(fd, NULL));
	ASSERT_EQ(0, flock_end(fd, NULL));
	ASSERT_EQ(0, flock_wait(fd, NULL));
	ASSERT_EQ(0, close(fd));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->fd);
	EXPECT_NEXT_LEARNS(0, self->fd);
	EXPECT_EQ(self->before.revoked + 1, look(self->fd).revoked);
}

/* flock(2) has no ticket to pass, and goes on in its place all the same. */
FIXTURE(interrupted)
{
	int fd;
	int waiting;
	struct call *waiter;
	struct call *behind;
	__u64 token;
	__u64 ticket;
	struct tlock_status before;
};

FIXTURE_SETUP(interrupted)
{
	self->fd = contender();
	self->waiting = contender();
	ASSERT_FREE(self->fd);
	self->token = take(self->fd, "holder");
	self->before = look(self->fd);
	self->waiter = call(self->waiting, flock_wait, 0, "");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	self->behind = call(contender(), acquire, FOREVER, "behind");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	ASSERT_TRUE(await_asleep(self->waiter->tid));
	ASSERT_STREQ("waiting", state_of(self->waiting, &self->ticket));
}

FIXTURE_TEARDOWN(interrupted)
{
	ASSERT_EQ(0, result(self->behind));
	EXPECT_EQ(0, release(self->behind->fd));
	close(self->behind->fd);
	close(self->waiting);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(interrupted, g9_flock_with_restart)
{
	__u64 ticket;

	handle_usr1(SA_RESTART);
	for (int i = 1; i <= 3; i++) {
		send_signal(self->waiter, SIGUSR1);
		ASSERT_TRUE(await_value(&handled, i));
		ASSERT_TRUE(await_waiters(self->fd, 2));
		ASSERT_TRUE(await_asleep(self->waiter->tid));
	}
	EXPECT_STREQ("waiting", state_of(self->waiting, &ticket));
	EXPECT_EQ(self->ticket, ticket);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(self->waiter));
	EXPECT_EQ(self->token + 1, look(self->fd).holder.token);
	EXPECT_EQ(1, look(self->fd).waiters);
	EXPECT_EQ(0, flock_end(self->waiting, NULL));
}

#define INTERRUPT() do {						\
	__u64 __ticket;							\
									\
	handle_usr1(0);							\
	send_signal(self->waiter, SIGUSR1);				\
	ASSERT_EQ(-EINTR, result(self->waiter));			\
	EXPECT_STREQ("away", state_of(self->waiting, &__ticket));	\
	EXPECT_EQ(self->ticket, __ticket);				\
	EXPECT_EQ(1, look(self->fd).waiters);				\
} while (0)

TEST_F(interrupted, g9_flock_without_restart)
{
	struct call *again;
	__u64 ticket;

	INTERRUPT();
	again = call(self->waiting, flock_wait, 0, "");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	EXPECT_STREQ("waiting", state_of(self->waiting, &ticket));
	EXPECT_EQ(self->ticket, ticket);
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(again));
	EXPECT_EQ(self->token + 1, look(self->fd).holder.token);
	EXPECT_EQ(1, look(self->fd).waiters);
	EXPECT_EQ(0, flock_end(self->waiting, NULL));
}

/* LOCK_NB does not go on with the request: it gives up the place. */
TEST_F(interrupted, g9_flock_tries_after_it)
{
	INTERRUPT();
	EXPECT_EQ(-EWOULDBLOCK, flock_try(self->waiting, NULL));
	EXPECT_STREQ("idle", state_of(self->waiting, NULL));
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(interrupted, g11_flock_ends_after_it)
{
	INTERRUPT();
	EXPECT_EQ(0, flock_end(self->waiting, NULL));
	EXPECT_STREQ("idle", state_of(self->waiting, NULL));
	EXPECT_EQ(0, release(self->fd));
}

/*
 * A reacquire of a grant by flock(2) makes a request of its own, with a
 * deadline. The next LOCK_EX replaces that request, and does not time out.
 */
TEST_F(tlock, g9_flock_replaces_a_reacquire)
{
	__u64 ticket, replaced;
	struct call *next, *again;
	struct call *yielder;
	int fd = contender();

	ASSERT_EQ(0, flock_wait(fd, NULL));
	next = call(self->fd, acquire, FOREVER, "next");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	handle_usr1(0);
	yielder = call(fd, reacquire, 100 * MSEC, "");
	ASSERT_EQ(0, result(next));
	send_signal(yielder, SIGUSR1);
	/* The signal may come too late */
	if (result(yielder) == -EINTR) {
		EXPECT_STREQ("away", state_of(fd, &replaced));
		EXPECT_EQ(yielder->arg->ticket, replaced);
	} else {
		EXPECT_EQ(-ETIMEDOUT, yielder->ret);
		replaced = 0;
	}

	again = call(fd, flock_wait, 0, "");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	EXPECT_STREQ("waiting", state_of(fd, &ticket));
	EXPECT_NE(replaced, ticket);
	/* Longer than that deadline */
	usleep(150000);
	EXPECT_EQ(1, look(self->fd).waiters);
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(again));
	close(fd);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
}

/* A new grant by reacquire is no longer flock(2)'s: closing abandons it. */
TEST_F(tlock, g6_reacquired_from_flock)
{
	struct tlock_acquire arg = ask(0, "after");
	struct call *next, *yielder;
	int fd = contender();

	ASSERT_EQ(0, flock_wait(fd, NULL));
	next = call(self->fd, acquire, FOREVER, "next");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	yielder = call(fd, reacquire, FOREVER, "");
	ASSERT_EQ(0, result(next));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(yielder));
	close(fd);
	EXPECT_EQ(self->before.abandoned + 1, look(self->fd).abandoned);
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(self->fd));
}

/*
 * O_NONBLOCK is ignored: all who share the file share the flag, and libraries
 * set it.
 */
TEST_F(tlock, nonblocking_files_wait)
{
	int fd = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct call *waiter;

	ASSERT_LE(0, fd);
	for (int i = 0; i < 2; i++) {
		take(self->fd, "holder");
		waiter = call(fd, i ? acquire : flock_wait, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		ASSERT_TRUE(await_asleep(waiter->tid));
		ASSERT_EQ(0, release(self->fd));
		ASSERT_EQ(0, result(waiter));
		ASSERT_EQ(0, flock_end(fd, NULL));
	}
	close(fd);
}

/* A shell command whose standard input is a pipe; it ends with the test. */
struct command {
	pid_t pid;
	int input;
};

static struct command begin_command(const char *text)
{
	struct command c;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		die("no pipe");
	fflush(stdout);
	fflush(stderr);
	c.pid = fork();
	if (c.pid < 0)
		die("cannot start a process");
	if (!c.pid) {
		dup2(ends[0], STDIN_FILENO);
		execl("/bin/sh", "sh", "-c", text, NULL);
		_exit(127);
	}
	close(ends[0]);
	c.input = ends[1];
	return c;
}

/* Closes the command's input, and returns its exit status */
static int end_command(struct command *c)
{
	int wstatus;

	close(c->input);
	if (waitpid(c->pid, &wstatus, 0) != c->pid)
		die("cannot wait for a command");
	return WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : STUCK;
}

static int run_command(const char *text)
{
	struct command c = begin_command(text);

	return end_command(&c);
}

#define NEED_FLOCK() do {						\
	if (run_command("command -v flock >/dev/null"))			\
		SKIP(return, "there is no flock(1) here");		\
} while (0)

TEST_F(tlock, flock_1_excludes_others)
{
	struct tlock_acquire arg = ask(0, "try");
	struct command c;
	char path[60];

	NEED_FLOCK();
	c = begin_command("exec flock -w 3 " DEVICE " cat");
	ASSERT_TRUE(await_acquired(self->fd, self->before.acquired + 1));
	EXPECT_EQ(-ETIMEDOUT, acquire(self->fd, &arg));
	EXPECT_STREQ("flock", arg.holder.comm);
	EXPECT_STREQ("", arg.holder.job);
	EXPECT_EQ(c.pid, arg.holder.pid);
	EXPECT_EQ(1, run_command("flock -n " DEVICE " true"));
	EXPECT_EQ(1, run_command("flock -w 0.1 " DEVICE " true"));
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(0, end_command(&c));
	EXPECT_EQ(0, look(self->fd).holder.token);

	/* By a descriptor, after flock(1) itself has ended */
	c = begin_command("exec 9<>" DEVICE "; flock 9; cat");
	ASSERT_TRUE(await_acquired(self->fd, self->before.acquired + 2));
	EXPECT_EQ(-EWOULDBLOCK, flock_try(self->fd, NULL));
	for (__s64 end = now() + PATIENCE; look(self->fd).holder.pid;) {
		ASSERT_GT(end, now());
		usleep(1000);
	}
	EXPECT_STREQ("", sysfs_text("pid"));
	EXPECT_STREQ("flock", sysfs_text("comm"));
	/* But fdinfo shows which file holds the lock */
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/9", (int)c.pid);
	EXPECT_NE(NULL, strstr(read_text(path), "tlock-state:\tholding\n"));
	EXPECT_EQ(0, end_command(&c));
	EXPECT_EQ(0, look(self->fd).holder.token);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
}

TEST_F(tlock, flock_1_is_excluded_by_others)
{
	struct command c;
	__u64 token;

	NEED_FLOCK();
	token = take(self->fd, "holder");
	EXPECT_EQ(1, run_command("flock -n " DEVICE " true"));
	EXPECT_EQ(1, run_command("flock -w 0.1 " DEVICE " true"));
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(1, run_command("exec 9<>" DEVICE "; flock -n 9"));
	EXPECT_EQ(token, look(self->fd).holder.token);

	/* It gets the lock in its turn */
	c = begin_command("flock -w 100 " DEVICE " true");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(self->fd));
	EXPECT_EQ(0, end_command(&c));
	EXPECT_EQ(self->before.acquired + 2, look(self->fd).acquired);
	EXPECT_EQ(0, look(self->fd).holder.token);

	/* By a descriptor, flock(1) can also release it */
	EXPECT_EQ(0, run_command("exec 9<>" DEVICE " 8<>" DEVICE
				 "; flock 9 && ! flock -n 8 && flock -u 9 &&"
				 " flock -n 8"));
	EXPECT_EQ(0, look(self->fd).holder.token);
}

TEST_HARNESS_MAIN
