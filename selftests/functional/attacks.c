// SPDX-License-Identifier: GPL-2.0-only
/*
 * Attacks that the lock must survive: files kept alive where no process has
 * them open, CPUs that go offline, and thousands of waiters that all leave at
 * once.
 */
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tlock_test.h"

/*
 * A child acquires the lock, leaves its file somewhere, and exits. It is not an
 * agent, because an agent would have a socket of its own to close.
 */
FIXTURE(kept)
{
	int fd;
	struct call *waiter;
	struct tlock_status before;
};

FIXTURE_SETUP(kept)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
	self->waiter = NULL;
}

FIXTURE_TEARDOWN(kept)
{
	if (self->waiter)
		close(self->waiter->fd);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

/* In a child: opens a contender and acquires the lock */
static int held(void)
{
	int fd = contender();

	take(fd, "kept");
	return fd;
}

/*
 * Waits for the child to end; returns whether the lock is still held, by no
 * process
 */
static bool held_by_none(pid_t child, int fd)
{
	struct tlock_status st;
	int wstatus;

	if (waitpid(child, &wstatus, 0) != child || wstatus)
		return false;
	st = look(fd);
	return st.holder.token && !st.holder.pid &&
	       !strcmp(st.holder.job, "kept");
}

/* The last reference is gone: the waiter gets the lock, marked as abandoned. */
#define EXPECT_PASSED_ON() do {						\
	ASSERT_EQ(0, result(self->waiter));				\
	EXPECT_EQ(TLOCK_ABANDONED, self->waiter->arg->result);		\
	EXPECT_EQ(self->before.abandoned + 1,				\
		  look(self->fd).abandoned);				\
	EXPECT_EQ(0, release(self->waiter->fd));			\
} while (0)

#define BEGIN_TO_WAIT() do {						\
	self->waiter = call(contender(), acquire, FOREVER, "waiter");	\
	ASSERT_TRUE(await_waiters(self->fd, 1));			\
} while (0)

/* The same, for a lock that nobody releases: an operator can, or a lease. */
#define EXPECT_REVOKED() do {						\
	ASSERT_EQ(0, result(self->waiter));				\
	EXPECT_EQ(TLOCK_REVOKED, self->waiter->arg->result);		\
	EXPECT_EQ(self->before.revoked + 1, look(self->fd).revoked);	\
	EXPECT_EQ(0, release(self->waiter->fd));			\
} while (0)

/* Each of two sockets is in the other's queue, and one queue holds the file. */
TEST_F(kept, g6_in_a_cycle_of_sockets)
{
	int pair[2];
	pid_t child = fork();

	if (!child) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
			_exit(1);
		send_fd(pair[1], held());
		send_fd(pair[1], pair[0]);
		send_fd(pair[0], pair[1]);
		_exit(0);
	}
	ASSERT_TRUE(held_by_none(child, self->fd));
	BEGIN_TO_WAIT();
	/* The kernel looks for such cycles whenever a socket is closed */
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	close(pair[0]);
	close(pair[1]);
	EXPECT_PASSED_ON();
}

/*
 * Until then no process has it, and none can find it. What is closed in the end
 * holds nothing any more.
 */
TEST_F(kept, g12_in_a_cycle_of_sockets)
{
	__u64 files = read_number("/sys/module/tlock/refcnt");
	int pair[2];
	pid_t child;
	__s64 end;

	for (int by_lease = 0; by_lease < 2; by_lease++) {
		self->before = look(self->fd);
		child = fork();
		if (!child) {
			int fd = held();

			/* It ends as soon as somebody wants the lock */
			if (by_lease && renew(fd, 1))
				_exit(1);
			if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
				_exit(1);
			send_fd(pair[1], fd);
			send_fd(pair[1], pair[0]);
			send_fd(pair[0], pair[1]);
			_exit(0);
		}
		ASSERT_TRUE(held_by_none(child, self->fd));
		if (by_lease) {
			self->waiter = call(contender(), acquire, FOREVER,
					    "waiter");
		} else {
			BEGIN_TO_WAIT();
			ASSERT_EQ(0, revoke_grant(self->fd,
						  look(self->fd).holder.token,
						  0));
		}
		EXPECT_REVOKED();
		close(self->waiter->fd);
		self->waiter = NULL;
		/* Now the kernel finds the cycle */
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
		close(pair[0]);
		close(pair[1]);
		for (end = now() + PATIENCE; now() < end;)
			if (read_number("/sys/module/tlock/refcnt") == files)
				break;
		EXPECT_EQ(files, read_number("/sys/module/tlock/refcnt"));
		EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	}
}

TEST_F(kept, g6_in_a_socket_that_nobody_reads)
{
	int pair[2];
	pid_t child;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	child = fork();
	if (!child) {
		send_fd(pair[1], held());
		_exit(0);
	}
	ASSERT_TRUE(held_by_none(child, self->fd));
	BEGIN_TO_WAIT();
	close(pair[1]);
	EXPECT_EQ(1, look(self->fd).waiters);
	close(pair[0]);
	EXPECT_PASSED_ON();
}

/* A process that receives the file can release the lock. */
TEST_F(kept, g7_in_a_socket_that_is_read_later)
{
	pid_t child;
	int pair[2], fd;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	child = fork();
	if (!child) {
		send_fd(pair[1], held());
		_exit(0);
	}
	ASSERT_TRUE(held_by_none(child, self->fd));
	fd = recv_fd(pair[0]);
	ASSERT_EQ(0, release(fd));
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	close(fd);
	close(pair[0]);
	close(pair[1]);
}

static int ring_with(int fd)
{
	struct io_uring_params params = {};
	int ring = syscall(SYS_io_uring_setup, 1, &params);

	if (ring >= 0 && syscall(SYS_io_uring_register, ring,
				 IORING_REGISTER_FILES, &fd, 1))
		die("cannot register a file");
	return ring;
}

#define NEED_RING() do {						\
	/* With io_uring, the call fails for its bad argument */	\
	if (syscall(SYS_io_uring_setup, 0, NULL) == -1 &&		\
	    errno != EFAULT && errno != EINVAL)				\
		SKIP(return, "this kernel has no io_uring, or it is disabled"); \
} while (0)

/* A ring keeps its files open, even if closed, until it is gone itself. */
TEST_F(kept, g6_registered_with_io_uring)
{
	int fd, ring;

	NEED_RING();
	fd = held();
	ring = ring_with(fd);
	ASSERT_LE(0, ring);
	ASSERT_EQ(0, close(fd));
	EXPECT_STREQ("kept", look(self->fd).holder.job);
	EXPECT_EQ(getpid(), look(self->fd).holder.pid);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	BEGIN_TO_WAIT();
	ASSERT_EQ(0, close(ring));
	EXPECT_PASSED_ON();
}

TEST_F(kept, g6_registered_by_a_process_that_exits)
{
	int alive[2];
	pid_t child;
	char byte;

	NEED_RING();
	/* The child exits once we close our end of the pipe */
	ASSERT_EQ(0, pipe(alive));
	child = fork();
	if (!child) {
		int fd = held();

		close(alive[1]);
		if (ring_with(fd) < 0)
			_exit(1);
		close(fd);
		_exit(read(alive[0], &byte, 1));
	}
	ASSERT_TRUE(await_acquired(self->fd, self->before.acquired + 1));
	BEGIN_TO_WAIT();
	EXPECT_EQ(child, look(self->fd).holder.pid);
	close(alive[1]);
	EXPECT_PASSED_ON();
	ASSERT_EQ(child, waitpid(child, NULL, 0));
	close(alive[0]);
}

/* A process that shares the descriptor table keeps the file open. */
TEST_F(kept, g6_shared_by_clone_files)
{
	const struct clone_args args = {
		.flags = CLONE_FILES,
		.exit_signal = SIGCHLD,
	};
	pid_t *sibling, child;
	int wstatus;

	/* The sibling becomes our child when its parent ends */
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	sibling = mmap(NULL, sizeof(*sibling), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, sibling);
	child = fork();
	if (!child) {
		held();
		child = syscall(SYS_clone3, &args, sizeof(args));
		if (!child)
			while (true)
				pause();
		*sibling = child;
		_exit(child < 0);
	}
	ASSERT_TRUE(held_by_none(child, self->fd));
	BEGIN_TO_WAIT();
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	ASSERT_EQ(0, kill(*sibling, SIGKILL));
	EXPECT_PASSED_ON();
	ASSERT_EQ(*sibling, waitpid(*sibling, &wstatus, 0));
}

/*
 * A CPU goes offline, with the timers of the threads that slept there, and
 * comes back.
 */
#define CPU_ONLINE	"/sys/devices/system/cpu/cpu1/online"
#define TIMEOUT		(3 * SEC)

FIXTURE(cpu)
{
	int fd;
	struct tlock_status before;
};

FIXTURE_SETUP(cpu)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
}

FIXTURE_TEARDOWN(cpu)
{
	if (exists(CPU_ONLINE))
		write_text(CPU_ONLINE, "1");
	close(self->fd);
	EXPECT_LEFT_FREE();
}

static int acquire_on_cpu1(int fd, struct tlock_acquire *arg)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(1, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		die("cannot run on CPU 1");
	return acquire(fd, arg);
}

TEST_F(cpu, g3_goes_offline_under_waiters)
{
	struct call *timed, *first, *second;
	__u64 token;

	if (!exists(CPU_ONLINE) || read_number(CPU_ONLINE) != 1)
		SKIP(return, "there is no second CPU that can go offline");
	token = take(self->fd, "holder");
	first = call(contender(), acquire_on_cpu1, FOREVER, "first");
	ASSERT_TRUE(await_waiters(self->fd, 1));
	timed = call(contender(), acquire_on_cpu1, TIMEOUT, "timed");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	second = call(contender(), acquire_on_cpu1, LONG, "second");
	ASSERT_TRUE(await_waiters(self->fd, 3));
	ASSERT_TRUE(await_asleep(first->tid));
	ASSERT_TRUE(await_asleep(timed->tid));
	ASSERT_TRUE(await_asleep(second->tid));

	ASSERT_EQ(0, write_text(CPU_ONLINE, "0"));
	/* This must neither end nor interrupt a wait */
	ASSERT_EQ(3, look(self->fd).waiters) {
		TH_LOG("after %lld ms", (now() - timed->begun) / MSEC);
	}
	ASSERT_EQ(-ETIMEDOUT, result(timed));
	EXPECT_LE(TIMEOUT, timed->ended - timed->begun);
	EXPECT_STREQ("holder", timed->arg->holder.job);
	EXPECT_EQ(self->before.interrupted, look(self->fd).interrupted);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(first));
	EXPECT_EQ(token + 1, first->arg->token);
	ASSERT_EQ(0, write_text(CPU_ONLINE, "1"));
	ASSERT_EQ(0, release(first->fd));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(token + 2, second->arg->token);
	EXPECT_EQ(0, release(second->fd));
	close(timed->fd);
	close(first->fd);
	close(second->fd);
}

/*
 * Thousands of waiters: the threads, each with a file, of several processes in
 * one process group.
 */
#define PROCESSES	10
#define THREADS		200
#define WAITERS		(PROCESSES * THREADS)

/* How long an acquire and its release may take meanwhile */
#define BOUND		SEC

/* Shared by all of these processes */
struct crowd {
	atomic_int there;
	pthread_barrier_t barrier;	/* then they all acquire */
	__s64 deadline;			/* 0: none */
	atomic_int granted, timed_out, failed;
};

FIXTURE(crowd)
{
	int fd, other;		/* the holder, and another contender */
	struct crowd *crowd;
	pid_t group;
	struct tlock_status before;
};

FIXTURE_SETUP(crowd)
{
	pthread_barrierattr_t attr;

	self->fd = contender();
	self->other = contender();
	ASSERT_FREE(self->fd);
	self->crowd = mmap(NULL, sizeof(*self->crowd), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->crowd);
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	ASSERT_EQ(0, pthread_barrier_init(&self->crowd->barrier, &attr,
					  WAITERS + 1));
}

FIXTURE_TEARDOWN(crowd)
{
	/* The group exists only once its first process runs */
	if (self->group)
		kill(-self->group, SIGKILL);
	while (wait(NULL) > 0)
		;
	close(self->fd);
	close(self->other);
	EXPECT_LEFT_FREE();
}

static struct crowd *crowd;

static void *crowd_thread(void *unused)
{
	struct tlock_acquire arg = ask(FOREVER, "one of many");
	int fd = contender(), ret;

	atomic_fetch_add(&crowd->there, 1);
	pthread_barrier_wait(&crowd->barrier);
	if (crowd->deadline)
		arg.timeout_ns = crowd->deadline - now();
	if (crowd->deadline && arg.timeout_ns <= 0)
		die("this machine is too slow");
	ret = acquire(fd, &arg);
	if (ret == -ETIMEDOUT)
		atomic_fetch_add(&crowd->timed_out, 1);
	else if (!ret && !release(fd))
		atomic_fetch_add(&crowd->granted, 1);
	else
		atomic_fetch_add(&crowd->failed, 1);
	close(fd);
	return NULL;
}

static __attribute__((noreturn)) void crowd_process(void)
{
	pthread_t threads[THREADS];
	pthread_attr_t attr;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 * 1024);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], &attr, crowd_thread, NULL))
			die("cannot start a thread");
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

/*
 * Starts all waiters, which wait for ever or until a common deadline a few
 * seconds from now. Returns their process group.
 */
static pid_t gather(int fd, struct crowd *shared, bool timed)
{
	__s64 begun = now();
	pid_t group = 0, pid;

	crowd = shared;
	for (int i = 0; i < PROCESSES; i++) {
		pid = fork();
		if (pid < 0)
			die("cannot start a process");
		if (!pid) {
			setpgid(0, group);
			crowd_process();
		}
		if (!group)
			group = pid;
		/* Parent or child may come first */
		setpgid(pid, group);
	}
	while (atomic_load(&crowd->there) < WAITERS)
		usleep(10000);
	/* On a slow machine this took long, and so will all the acquires */
	if (timed)
		crowd->deadline = now() + 3 * SEC + (now() - begun);
	pthread_barrier_wait(&crowd->barrier);
	while (look(fd).waiters < WAITERS &&
	       (!timed || now() < crowd->deadline))
		usleep(10000);
	return group;
}

/*
 * Acquires and releases a lock that is free or held by others, until it has
 * this number of waiters. Returns the longest time that took. This task is the
 * most urgent one, so it always gets a CPU.
 */
static __s64 contend_until(int fd, int waiters)
{
	struct sched_param param = { .sched_priority = 10 };
	__s64 longest = 0, begun, took;
	struct tlock_acquire arg;

	if (sched_setscheduler(0, SCHED_FIFO, &param))
		die("cannot become urgent");
	do {
		arg = ask(0, "other");
		begun = now();
		if (!acquire(fd, &arg))
			release(fd);
		took = now() - begun;
		longest = took > longest ? took : longest;
		usleep(1000);
	} while (look(fd).waiters != waiters);
	param.sched_priority = 0;
	if (sched_setscheduler(0, SCHED_OTHER, &param))
		die("cannot become normal");
	return longest;
}

TEST_F_TIMEOUT(crowd, g3_times_out_at_once, 300)
{
	struct tlock_status after;
	__s64 longest;

	take(self->fd, "holder");
	self->before = look(self->fd);
	self->group = gather(self->fd, self->crowd, true);
	ASSERT_EQ(WAITERS, look(self->fd).waiters);
	after = look(self->fd);
	longest = contend_until(self->other, 0);
	EXPECT_GT(BOUND, longest);
	TH_LOG("%lld us at most to acquire", longest / USEC);
	for (int i = 0; i < PROCESSES; i++)
		ASSERT_LT(0, wait(NULL));
	EXPECT_EQ(WAITERS, atomic_load(&self->crowd->timed_out));

	/* The waiters' own, and our tries as well */
	__u64 tries = look(self->fd).contended - after.contended;

	after = look(self->fd);
	EXPECT_EQ(self->before.timed_out + WAITERS + tries, after.timed_out);
	EXPECT_EQ(self->before.contended + WAITERS + tries, after.contended);
	EXPECT_EQ(self->before.acquired, after.acquired);
	EXPECT_EQ(self->before.interrupted, after.interrupted);
	EXPECT_EQ(0, release(self->fd));
}

TEST_F_TIMEOUT(crowd, g9_stops_and_goes_on_at_once, 300)
{
	struct tlock_status after;
	__s64 longest, took;
	__u64 token;

	take(self->fd, "holder");
	self->before = look(self->fd);
	self->group = gather(self->fd, self->crowd, false);
	ASSERT_EQ(WAITERS, look(self->fd).waiters);
	ASSERT_EQ(0, kill(-self->group, SIGSTOP));
	longest = contend_until(self->other, 0);
	EXPECT_EQ(self->before.interrupted + WAITERS,
		  look(self->fd).interrupted);

	/* Nobody waits, so the release makes the lock free */
	ASSERT_EQ(0, release(self->fd));
	EXPECT_EQ(self->before.acquired, look(self->fd).acquired);
	token = take(self->other, "other");
	ASSERT_EQ(self->before.holder.token + 1, token);
	ASSERT_EQ(0, release(self->other));
	token = take(self->fd, "holder");

	ASSERT_EQ(0, kill(-self->group, SIGCONT));
	took = contend_until(self->other, WAITERS);
	longest = took > longest ? took : longest;
	EXPECT_EQ(self->before.interrupted + WAITERS,
		  look(self->fd).interrupted);
	EXPECT_GT(BOUND, longest);
	TH_LOG("%lld us at most to acquire", longest / USEC);

	/* Each waiter gets the lock once */
	ASSERT_EQ(0, release(self->fd));
	for (int i = 0; i < PROCESSES; i++)
		ASSERT_LT(0, wait(NULL));
	EXPECT_EQ(WAITERS, atomic_load(&self->crowd->granted));
	after = look(self->fd);
	EXPECT_EQ(token + WAITERS + 1, take(self->fd, "last"));
	EXPECT_EQ(0, release(self->fd));
	EXPECT_EQ(0, after.waiters);
	EXPECT_EQ(self->before.acquired + 2 + WAITERS, after.acquired);
	EXPECT_EQ(self->before.abandoned, after.abandoned);
}

TEST_F_TIMEOUT(crowd, g6_is_killed_at_once, 300)
{
	struct tlock_status after;
	__s64 longest;

	take(self->fd, "holder");
	self->before = look(self->fd);
	self->group = gather(self->fd, self->crowd, false);
	ASSERT_EQ(WAITERS, look(self->fd).waiters);
	ASSERT_EQ(0, kill(-self->group, SIGKILL));
	longest = contend_until(self->other, 0);
	EXPECT_GT(BOUND, longest);
	TH_LOG("%lld us at most to acquire", longest / USEC);
	for (int i = 0; i < PROCESSES; i++)
		ASSERT_LT(0, wait(NULL));
	after = look(self->fd);
	EXPECT_EQ(0, after.waiters);
	EXPECT_EQ(self->before.acquired, after.acquired);
	EXPECT_EQ(self->before.abandoned, after.abandoned);
	EXPECT_EQ(self->before.interrupted + WAITERS, after.interrupted);
	EXPECT_EQ(0, release(self->fd));
	take(self->other, "other");
	EXPECT_EQ(0, release(self->other));
}

TEST_HARNESS_MAIN
