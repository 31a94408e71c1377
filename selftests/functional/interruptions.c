// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 9: an interruption in which no handler of the program runs, or one
 * with SA_RESTART, costs a waiter neither its place nor its time. While it is
 * away, nobody waits for it.
 */
#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "tlock_test.h"

/*
 * Ways to interrupt a process that sleeps for the lock, for as long as the test
 * likes. When begin() returns, the process is away or about to be.
 */

static void stop_begin(pid_t pid)
{
	int wstatus;

	if (kill(pid, SIGSTOP) || waitpid(pid, &wstatus, WUNTRACED) != pid ||
	    !WIFSTOPPED(wstatus))
		die("cannot stop a process");
}

static void stop_end(pid_t pid)
{
	if (kill(pid, SIGCONT))
		die("cannot continue a process");
}

#define CGROUP	"tlock-interruptions"

static void freeze_begin(pid_t pid)
{
	cgroup_enter(CGROUP, pid);
	if (cgroup_write(CGROUP, "cgroup.freeze", "1") ||
	    !await_cgroup(CGROUP, "frozen 1"))
		die("cannot freeze a process");
}

static void freeze_end(pid_t pid)
{
	if (cgroup_write(CGROUP, "cgroup.freeze", "0"))
		die("cannot thaw a process");
}

/* As strace -p and newer debuggers do */
static void seize_begin(pid_t pid)
{
	int wstatus;

	if (ptrace(PTRACE_SEIZE, pid, 0, 0) ||
	    ptrace(PTRACE_INTERRUPT, pid, 0, 0) ||
	    waitpid(pid, &wstatus, 0) != pid || !WIFSTOPPED(wstatus))
		die("cannot trace a process");
}

static void attach_begin(pid_t pid)
{
	int wstatus;

	if (ptrace(PTRACE_ATTACH, pid, 0, 0) ||
	    waitpid(pid, &wstatus, 0) != pid || !WIFSTOPPED(wstatus))
		die("cannot trace a process");
}

static void detach(pid_t pid)
{
	if (ptrace(PTRACE_DETACH, pid, 0, 0))
		die("cannot detach from a process");
}

FIXTURE(absent)
{
	int fd;			/* the holder */
	struct agent *a;	/* the first waiter */
	struct tlock_status before;
	bool usable;
};

FIXTURE_VARIANT(absent)
{
	agent_fn *fn;
	void (*begin)(pid_t pid);
	void (*end)(pid_t pid);
};

FIXTURE_VARIANT_ADD(absent, stopped_in_acquire)
{
	.fn = acquire,
	.begin = stop_begin,
	.end = stop_end,
};

FIXTURE_VARIANT_ADD(absent, stopped_in_reacquire)
{
	.fn = reacquire,
	.begin = stop_begin,
	.end = stop_end,
};

FIXTURE_VARIANT_ADD(absent, frozen_in_acquire)
{
	.fn = acquire,
	.begin = freeze_begin,
	.end = freeze_end,
};

FIXTURE_VARIANT_ADD(absent, frozen_in_reacquire)
{
	.fn = reacquire,
	.begin = freeze_begin,
	.end = freeze_end,
};

FIXTURE_VARIANT_ADD(absent, seized_in_acquire)
{
	.fn = acquire,
	.begin = seize_begin,
	.end = detach,
};

FIXTURE_VARIANT_ADD(absent, seized_in_reacquire)
{
	.fn = reacquire,
	.begin = seize_begin,
	.end = detach,
};

FIXTURE_VARIANT_ADD(absent, attached_in_acquire)
{
	.fn = acquire,
	.begin = attach_begin,
	.end = detach,
};

FIXTURE_VARIANT_ADD(absent, attached_in_reacquire)
{
	.fn = reacquire,
	.begin = attach_begin,
	.end = detach,
};

FIXTURE_SETUP(absent)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->a = agent();
	self->usable = variant->begin != freeze_begin || cgroup_create(CGROUP);
}

FIXTURE_TEARDOWN(absent)
{
	agents_kill();
	if (variant->begin == freeze_begin && self->usable)
		cgroup_remove(CGROUP);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

#define NEED_FREEZER() do {						\
	if (!self->usable)						\
		SKIP(return, "this kernel has no cgroups of version 2");	\
} while (0)

/*
 * Makes the agent the only waiter, by either call, with this timeout, and the
 * test's own contender the holder. Returns whether that worked.
 */
static bool begin_to_wait(struct agent *a, agent_fn *fn, int fd,
			  __s64 timeout_ns)
{
	struct tlock_acquire arg = ask(timeout_ns, "waiter");
	struct call *next;

	if (fn == acquire) {
		take(fd, "holder");
		agent_begin(a, acquire, &arg);
	} else {
		agent_take(a, "waiter");
		next = call(fd, acquire, FOREVER, "holder");
		if (!await_waiters(fd, 1))
			return false;
		agent_begin(a, reacquire, &arg);
		if (result(next))
			return false;
	}
	return await_waiters(fd, 1) && await_asleep(a->pid);
}

TEST_F(absent, g9_keeps_its_place)
{
	struct tlock_acquire arg;
	struct call *second;
	__u64 token;

	NEED_FREEZER();
	ASSERT_TRUE(begin_to_wait(self->a, variant->fn, self->fd, LONG));
	second = call(contender(), acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	self->before = look(self->fd);
	token = self->before.holder.token;

	/* Several interruptions of one request count once */
	for (int i = 0; i < 3; i++) {
		variant->begin(self->a->pid);
		ASSERT_TRUE(await_waiters(self->fd, 1));
		variant->end(self->a->pid);
		ASSERT_TRUE(await_waiters(self->fd, 2));
		ASSERT_TRUE(await_asleep(self->a->pid));
	}
	EXPECT_EQ(self->before.contended, look(self->fd).contended);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, agent_end(self->a, &arg));
	EXPECT_EQ(token + 1, arg.token);
	EXPECT_EQ(0, arg.ticket);
	EXPECT_LT(0, arg.timeout_ns);
	EXPECT_GT(LONG, arg.timeout_ns);
	ASSERT_EQ(0, agent_release(self->a));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(token + 2, second->arg->token);
	EXPECT_EQ(0, release(second->fd));
	close(second->fd);
}

TEST_F(absent, g9_is_passed_over_and_comes_back)
{
	struct call *second, *third;
	struct tlock_acquire arg;
	__u64 token;

	NEED_FREEZER();
	ASSERT_TRUE(begin_to_wait(self->a, variant->fn, self->fd, FOREVER));
	second = call(contender(), acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	token = look(self->fd).holder.token;

	variant->begin(self->a->pid);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(token + 1, second->arg->token);
	third = call(contender(), acquire, FOREVER, "third");
	ASSERT_TRUE(await_waiters(self->fd, 1));

	/* The third came later, so it waits behind it */
	variant->end(self->a->pid);
	ASSERT_TRUE(await_waiters(self->fd, 2));
	ASSERT_EQ(0, release(second->fd));
	ASSERT_EQ(0, agent_end(self->a, &arg));
	EXPECT_EQ(token + 2, arg.token);
	EXPECT_EQ(FOREVER, arg.timeout_ns);
	ASSERT_EQ(0, agent_release(self->a));
	ASSERT_EQ(0, result(third));
	EXPECT_EQ(token + 3, third->arg->token);
	EXPECT_EQ(0, release(third->fd));
	close(second->fd);
	close(third->fd);
}

/*
 * TIMEOUT is long enough to interrupt the process before it expires. SOON is
 * how quickly the call must then return. A wait whose time had stood still
 * would take almost all of TIMEOUT, however slow the machine.
 */
#define TIMEOUT	SEC
#define SOON	(9 * TIMEOUT / 10)

TEST_F(absent, g3_deadline_passes_while_the_lock_is_held)
{
	struct tlock_acquire arg;
	__s64 begun;

	NEED_FREEZER();
	ASSERT_TRUE(begin_to_wait(self->a, variant->fn, self->fd, TIMEOUT));
	self->before = look(self->fd);
	variant->begin(self->a->pid);
	ASSERT_TRUE(await_waiters(self->fd, 0));
	ASSERT_EQ(self->before.timed_out, look(self->fd).timed_out);
	sleep_until(now() + TIMEOUT);
	EXPECT_EQ(self->before.timed_out, look(self->fd).timed_out);

	begun = now();
	variant->end(self->a->pid);
	ASSERT_EQ(-ETIMEDOUT, agent_end(self->a, &arg));
	EXPECT_GT(SOON, now() - begun);
	EXPECT_EQ(0, arg.timeout_ns);
	EXPECT_EQ(0, arg.ticket);
	EXPECT_STREQ("holder", arg.holder.job);
	EXPECT_EQ(look(self->fd).holder.token, arg.holder.token);
	EXPECT_EQ(self->before.timed_out + 1, look(self->fd).timed_out);
	EXPECT_EQ(0, release(self->fd));
}

/* It tries once: a call that fails with ETIMEDOUT always names a holder */
TEST_F(absent, g3_deadline_passes_and_the_lock_is_free)
{
	struct tlock_acquire arg;

	NEED_FREEZER();
	ASSERT_TRUE(begin_to_wait(self->a, variant->fn, self->fd, TIMEOUT));
	self->before = look(self->fd);
	variant->begin(self->a->pid);
	ASSERT_TRUE(await_waiters(self->fd, 0));
	ASSERT_EQ(self->before.timed_out, look(self->fd).timed_out);
	ASSERT_EQ(0, release(self->fd));
	sleep_until(now() + TIMEOUT);
	ASSERT_EQ(0, look(self->fd).holder.token);

	variant->end(self->a->pid);
	ASSERT_EQ(0, agent_end(self->a, &arg));
	EXPECT_EQ(0, arg.timeout_ns);
	EXPECT_EQ(0, arg.ticket);
	EXPECT_EQ(self->before.holder.token + 1, arg.token);
	EXPECT_EQ(self->before.timed_out, look(self->fd).timed_out);
	EXPECT_EQ(0, agent_release(self->a));
}

/*
 * A request that is away does not want the lock: an expired grant lasts, and is
 * revoked when the request is back.
 */
TEST_F(absent, g12_does_not_want_while_away)
{
	struct tlock_acquire arg;
	struct tlock_holder holder;

	NEED_FREEZER();
	ASSERT_TRUE(begin_to_wait(self->a, variant->fn, self->fd, FOREVER));
	self->before = look(self->fd);
	variant->begin(self->a->pid);
	ASSERT_TRUE(await_waiters(self->fd, 0));
	ASSERT_EQ(0, renew(self->fd, MSEC));
	holder = look(self->fd).holder;
	sleep_until(holder.expires_ns + 50 * MSEC);
	ASSERT_EQ(holder.token, look(self->fd).holder.token);
	EXPECT_EQ(self->before.revoked, look(self->fd).revoked);
	/* It may even be renewed now */
	ASSERT_EQ(0, renew(self->fd, MSEC));

	variant->end(self->a->pid);
	ASSERT_EQ(0, agent_end(self->a, &arg));
	EXPECT_EQ(holder.token + 1, arg.token);
	EXPECT_EQ(TLOCK_REVOKED, arg.result);
	EXPECT_EQ(self->before.revoked + 1, look(self->fd).revoked);
	EXPECT_LOST(self->fd);
	EXPECT_EQ(0, agent_release(self->a));
}

/* If the process is killed meanwhile, its request goes with its file. */
TEST_F(absent, g6_killed_while_away)
{
	struct call *second;

	NEED_FREEZER();
	ASSERT_TRUE(begin_to_wait(self->a, variant->fn, self->fd, FOREVER));
	self->before = look(self->fd);
	second = call(contender(), acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	variant->begin(self->a->pid);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	agent_kill(self->a);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(self->before.holder.token + 1, second->arg->token);
	EXPECT_EQ(0, second->arg->result);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	EXPECT_EQ(0, release(second->fd));
	close(second->fd);
}

/*
 * A suspend freezes all processes, including the test. They are thawed in the
 * order in which they were started, while these waiters queue in the opposite
 * order.
 */
FIXTURE(suspend)
{
	int fd;
	struct agent *a[4];	/* the last one waits first */
	struct tlock_status before;
	bool usable;
};

FIXTURE_SETUP(suspend)
{
	self->usable = !write_text("/sys/power/pm_test", "freezer");
	self->fd = contender();
	ASSERT_FREE(self->fd);
	for (size_t i = 0; i < ARRAY_SIZE(self->a); i++)
		self->a[i] = agent();
}

FIXTURE_TEARDOWN(suspend)
{
	if (self->usable)
		write_text("/sys/power/pm_test", "none");
	close(self->fd);
	EXPECT_LEFT_FREE();
}

/* Freezes all processes for this time, and returns when they run again. */
static int suspend_for(const char *seconds)
{
	int err = write_text("/sys/module/suspend/parameters/pm_test_delay",
			     seconds);

	return err ? err : write_text("/sys/power/state", "freeze");
}

#define NEED_PM_TEST() do {						\
	if (!self->usable)						\
		SKIP(return, "this kernel has no /sys/power/pm_test");	\
} while (0)

TEST_F(suspend, g9_keeps_all_places)
{
	const int waiters = ARRAY_SIZE(self->a);
	struct tlock_acquire arg = ask(LONG, "waiter");
	__u64 token;

	NEED_PM_TEST();
	ASSERT_TRUE(begin_to_wait(self->a[waiters - 1], reacquire, self->fd,
				  LONG));
	for (int i = waiters - 2; i >= 0; i--) {
		agent_begin(self->a[i], acquire, &arg);
		ASSERT_TRUE(await_waiters(self->fd, waiters - i));
	}
	self->before = look(self->fd);
	ASSERT_EQ(0, suspend_for("1"));
	ASSERT_TRUE(await_waiters(self->fd, waiters));
	EXPECT_EQ(self->before.interrupted + waiters,
		  look(self->fd).interrupted);

	token = self->before.holder.token;
	ASSERT_EQ(0, release(self->fd));
	for (int i = waiters - 1; i >= 0; i--) {
		ASSERT_EQ(0, agent_end(self->a[i], &arg));
		EXPECT_EQ(++token, arg.token);
		ASSERT_EQ(0, agent_release(self->a[i]));
	}
}

/*
 * Long: a wait whose time had stood still takes what is left of it, and all
 * processes need time to freeze and to thaw
 */
#define LONG_TIMEOUT	(10 * SEC)

TEST_F(suspend, g3_deadline_passes)
{
	struct tlock_acquire arg = ask(LONG_TIMEOUT, "acquires");
	__s64 begun = now(), left;

	NEED_PM_TEST();
	ASSERT_TRUE(begin_to_wait(self->a[0], reacquire, self->fd,
				  LONG_TIMEOUT));
	agent_begin(self->a[1], acquire, &arg);
	ASSERT_TRUE(await_waiters(self->fd, 2));
	self->before = look(self->fd);
	left = begun + LONG_TIMEOUT - now();
	ASSERT_EQ(0, suspend_for("11"));
	begun = now();
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(-ETIMEDOUT, agent_end(self->a[i], &arg));
		EXPECT_STREQ("holder", arg.holder.job);
		EXPECT_EQ(0, arg.timeout_ns);
	}
	EXPECT_GT(left, now() - begun);
	EXPECT_EQ(self->before.interrupted + 2, look(self->fd).interrupted);
	EXPECT_EQ(self->before.timed_out + 2, look(self->fd).timed_out);
	EXPECT_EQ(0, release(self->fd));
}

/*
 * A suspend costs nobody the lock: a lease begins anew when the system resumes.
 * That must be before anybody else can want the lock. An asynchronous request is
 * not away, and wants it all the time; one of a thread does as soon as it is
 * thawed. A grace goes on.
 */
static void expect_lease_of_suspended(struct __test_metadata *_metadata,
				      FIXTURE_DATA(suspend) *self, bool async)
{
	const __s64 lease = SEC;
	struct tlock_acquire arg = ask_lease(0, "holder", lease), wants;
	struct tlock_holder holder;
	int fd = contender();
	__s64 resumed;

	ASSERT_EQ(0, agent_do(self->a[3], acquire, &arg));
	self->before = look(self->fd);
	/* So that the thawed waiter comes while the system still resumes */
	if (can_hold_back()) {
		run_on(0, 0);
		run_on(self->a[0]->pid, 1);
	}
	if (async) {
		wants = start_acquire(fd, FOREVER, "waiter");
	} else {
		wants = ask(FOREVER, "waiter");
		agent_begin(self->a[0], acquire, &wants);
		ASSERT_TRUE(await_waiters(self->fd, 1));
	}
	/* Too late if this machine is very slow */
	ASSERT_EQ(self->before.holder.token, look(self->fd).holder.token);
	ASSERT_EQ(0, suspend_for("2"));
	resumed = now();
	holder = look(self->fd).holder;
	EXPECT_EQ(self->before.holder.token, holder.token);
	EXPECT_EQ(TLOCK_LEASED, holder.flags);
	EXPECT_LT(resumed, holder.expires_ns);
	EXPECT_GE(resumed + lease, holder.expires_ns);
	/* But then it ends as usual */
	if (async) {
		EXPECT_EQ(POLLOUT, await_events(fd, POLLOUT));
		ASSERT_EQ(0, acquire(fd, &wants));
		EXPECT_EQ(0, release(fd));
	} else {
		ASSERT_EQ(0, agent_end(self->a[0], &wants));
		EXPECT_EQ(0, agent_release(self->a[0]));
	}
	EXPECT_EQ(TLOCK_REVOKED, wants.result);
	EXPECT_LE(holder.expires_ns, now());
	EXPECT_EQ(-ESTALE, agent_release(self->a[3]));
	close(fd);
}

TEST_F(suspend, g12_lease_and_a_request_of_a_thread)
{
	NEED_PM_TEST();
	expect_lease_of_suspended(_metadata, self, false);
}

TEST_F(suspend, g12_lease_and_an_asynchronous_request)
{
	NEED_PM_TEST();
	expect_lease_of_suspended(_metadata, self, true);
}

/*
 * io_uring completes a request in the thread that made it; if that thread
 * sleeps, it is interrupted without a signal. So these waiters sleep in a
 * thread that made some requests, each of which waits until an eventfd is
 * readable.
 */
#define POLLS	4

static int events[POLLS];
static struct io_uring_params params;
static char *ring;

static __u32 *ring_number(__u32 offset)
{
	return (__u32 *)(ring + offset);
}

static bool await_completions(__u32 at_least)
{
	__s64 deadline = now() + PATIENCE;

	while (__atomic_load_n(ring_number(params.cq_off.tail),
			       __ATOMIC_ACQUIRE) < at_least) {
		if (now() > deadline)
			return false;
		usleep(200);
	}
	return true;
}

/* Called in the thread that will sleep */
static void ring_create(void)
{
	struct io_uring_sqe *sqe;
	int fd = syscall(SYS_io_uring_setup, POLLS, &params);
	__u32 *array;

	if (fd < 0)
		die("no io_uring");
	ring = mmap(NULL, params.cq_off.cqes +
		    params.cq_entries * sizeof(struct io_uring_cqe),
		    PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    IORING_OFF_SQ_RING);
	sqe = mmap(NULL, params.sq_entries * sizeof(*sqe),
		   PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
	if (ring == MAP_FAILED || sqe == MAP_FAILED ||
	    !(params.features & IORING_FEAT_SINGLE_MMAP))
		die("no rings");
	array = ring_number(params.sq_off.array);
	for (int i = 0; i < POLLS; i++) {
		sqe[i] = (struct io_uring_sqe) {
			.opcode = IORING_OP_POLL_ADD,
			.fd = events[i],
			.poll_events = POLLIN,
		};
		array[i] = i;
	}
	__atomic_store_n(ring_number(params.sq_off.tail), POLLS,
			 __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, fd, POLLS, 0, 0, NULL, 0) != POLLS)
		die("no requests");
}

static int acquire_with_ring(int fd, struct tlock_acquire *arg)
{
	ring_create();
	return acquire(fd, arg);
}

static int reacquire_with_ring(int fd, struct tlock_acquire *arg)
{
	ring_create();
	return reacquire(fd, arg);
}

static bool ring_possible(void)
{
	/* With io_uring, the call fails for its bad argument */
	return syscall(SYS_io_uring_setup, 0, NULL) == -1 &&
	       (errno == EFAULT || errno == EINVAL);
}

FIXTURE(ring)
{
	int fd;
	struct tlock_status before;
};

FIXTURE_VARIANT(ring)
{
	int (*fn)(int fd, struct tlock_acquire *arg);
};

FIXTURE_VARIANT_ADD(ring, acquire)
{
	.fn = acquire_with_ring,
};

FIXTURE_VARIANT_ADD(ring, reacquire)
{
	.fn = reacquire_with_ring,
};

FIXTURE_SETUP(ring)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	for (int i = 0; i < POLLS; i++) {
		events[i] = eventfd(0, EFD_CLOEXEC);
		ASSERT_LE(0, events[i]);
	}
}

FIXTURE_TEARDOWN(ring)
{
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(ring, g9_task_work_interrupts_no_wait)
{
	struct call *waiter, *second, *next;
	const __u64 one = 1;
	int fd = contender();
	__u64 token;

	if (!ring_possible())
		SKIP(return, "this kernel has no io_uring, or it is disabled");
	if (variant->fn == acquire_with_ring) {
		take(self->fd, "holder");
		waiter = call(fd, variant->fn, LONG, "waiter");
	} else {
		take(fd, "waiter");
		next = call(self->fd, acquire, FOREVER, "holder");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		waiter = call(fd, variant->fn, LONG, "");
		ASSERT_EQ(0, result(next));
	}
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_TRUE(await_asleep(waiter->tid));
	second = call(contender(), acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	self->before = look(self->fd);
	token = self->before.holder.token;

	for (int i = 0; i < POLLS; i++) {
		ASSERT_EQ(sizeof(one), write(events[i], &one, sizeof(one)));
		ASSERT_TRUE(await_completions(i + 1));
		ASSERT_TRUE(await_waiters(self->fd, 2));
		ASSERT_TRUE(await_asleep(waiter->tid));
	}
	/* The completions did interrupt the wait */
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);

	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(token + 1, waiter->arg->token);
	EXPECT_EQ(0, waiter->arg->ticket);
	EXPECT_LT(0, waiter->arg->timeout_ns);
	EXPECT_GT(LONG, waiter->arg->timeout_ns);
	ASSERT_EQ(0, release(fd));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(token + 2, second->arg->token);
	EXPECT_EQ(0, release(second->fd));
	close(second->fd);
	close(fd);
}

/*
 * Four others take turns of 50 ms, and queue at once for the next one. A waiter
 * behind them gets the fifth turn, however often it is interrupted for a
 * moment. At worst it is passed over once or twice, when a turn ends at just
 * such a moment.
 */
#define OTHERS	4
#define TURN	(50 * MSEC)
#define PERIOD	(20 * MSEC)
#define ROUNDS	5

static atomic_int over;
static atomic_int turns;
static __s64 turn_begun[1000];	/* of each turn */

static int take_turns(int fd, struct tlock_acquire *arg)
{
	int ret, turn;

	do {
		ret = acquire(fd, arg);
		if (ret)
			return ret;
		turn = atomic_fetch_add(&turns, 1);
		if (turn < ARRAY_SIZE(turn_begun))
			turn_begun[turn] = look(fd).holder.since_ns;
		usleep(TURN / USEC);
		ret = release(fd);
	} while (!ret && !atomic_load(&over));
	return ret;
}

static void on_timer(int signal)
{
}

/* In an agent: calls @fn while a profiler's timer fires. */
static int profiled(int fd, struct tlock_acquire *arg,
		    int (*fn)(int fd, struct tlock_acquire *arg))
{
	const struct sigaction action = {
		.sa_handler = on_timer,
		.sa_flags = SA_RESTART,
	};
	struct itimerval timer = {
		.it_interval.tv_usec = PERIOD / USEC,
		.it_value.tv_usec = PERIOD / USEC,
	};
	int ret;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	ret = fn(fd, arg);
	memset(&timer, 0, sizeof(timer));
	setitimer(ITIMER_REAL, &timer, NULL);
	return ret;
}

static int acquire_profiled(int fd, struct tlock_acquire *arg)
{
	return profiled(fd, arg, acquire);
}

static int reacquire_profiled(int fd, struct tlock_acquire *arg)
{
	return profiled(fd, arg, reacquire);
}

/* Counts the turns that began in this time */
static int turns_begun(__s64 from, __s64 to)
{
	int count = 0;

	for (int i = 0; i < ARRAY_SIZE(turn_begun); i++)
		if (i < atomic_load(&turns))
			count += turn_begun[i] >= from && turn_begun[i] <= to;
	return count;
}

static bool agent_done(struct agent *a)
{
	struct pollfd pollfd = { .fd = a->ctl, .events = POLLIN };

	return poll(&pollfd, 1, 0) == 1;
}

/*
 * Stops the agent for less than 1 ms every 20 ms until its call has ended. On a
 * busy host, the agent sometimes takes longer to sleep for the lock again:
 * returns how many turns of others began in such gaps.
 */
static int sample(struct agent *a)
{
	__s64 next = now(), begun;
	int missed = 0;

	while (!agent_done(a)) {
		sleep_until(next);
		begun = now();
		next = begun + PERIOD;
		stop_begin(a->pid);
		stop_end(a->pid);
		if (!await_asleep(a->pid))
			die("a process does not go on");
		if (now() - begun > 2 * MSEC)
			missed += turns_begun(begun, now());
	}
	return missed;
}

FIXTURE(turns)
{
	int fd;
	struct agent *a;
	int fds[OTHERS];
	struct call *others[OTHERS];
};

FIXTURE_VARIANT(turns)
{
	agent_fn *fn;
	bool again;		/* the call is a reacquire */
	bool sampled;
	int more;		/* turns allowed besides the four before it */
};

FIXTURE_VARIANT_ADD(turns, acquire)
{
	.fn = acquire,
};

FIXTURE_VARIANT_ADD(turns, reacquire)
{
	.fn = reacquire,
	.again = true,
};

FIXTURE_VARIANT_ADD(turns, acquire_with_profiler)
{
	.fn = acquire_profiled,
	.more = 2,
};

FIXTURE_VARIANT_ADD(turns, reacquire_with_profiler)
{
	.fn = reacquire_profiled,
	.again = true,
	.more = 2,
};

FIXTURE_VARIANT_ADD(turns, acquire_with_sampler)
{
	.fn = acquire,
	.sampled = true,
	.more = 2,
};

FIXTURE_VARIANT_ADD(turns, reacquire_with_sampler)
{
	.fn = reacquire,
	.again = true,
	.sampled = true,
	.more = 2,
};

FIXTURE_SETUP(turns)
{
	const struct sched_param urgent = { .sched_priority = 10 };

	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->a = agent();
	for (int i = 0; i < OTHERS; i++)
		self->fds[i] = contender();
	/* Real-time priority, so that sampling is on time */
	ASSERT_EQ(0, sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK,
					&urgent));
}

FIXTURE_TEARDOWN(turns)
{
	for (int i = 0; i < OTHERS; i++)
		close(self->fds[i]);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(turns, g9_interruptions_starve_no_waiter)
{
	struct tlock_acquire arg = ask(LONG, "waiter");
	int missed = 0, most = 0;
	__u64 token;

	for (int round = 0; round < ROUNDS; round++) {
		atomic_store(&over, 0);
		atomic_store(&turns, 0);
		token = variant->again ? agent_take(self->a, "waiter") :
					 take(self->fd, "holder");
		for (int i = 0; i < OTHERS; i++) {
			self->others[i] = call(self->fds[i], take_turns,
					       FOREVER, "other");
			ASSERT_TRUE(await_waiters(self->fd, i + 1));
		}
		arg = ask(LONG, variant->again ? "" : "waiter");
		agent_begin(self->a, variant->fn, &arg);
		if (!variant->again) {
			ASSERT_TRUE(await_waiters(self->fd, OTHERS + 1));
			ASSERT_EQ(0, release(self->fd));
		}
		if (variant->sampled)
			missed = sample(self->a);
		ASSERT_EQ(0, agent_end(self->a, &arg));
		atomic_store(&over, 1);
		ASSERT_EQ(0, agent_release(self->a));
		for (int i = 0; i < OTHERS; i++)
			ASSERT_EQ(0, result(self->others[i]));

		/* The others' turns before the agent's */
		int before = arg.token - token - 1;

		EXPECT_LE(OTHERS, before);
		EXPECT_GE(OTHERS + variant->more + missed, before);
		most = before > most ? before : most;
	}
	TH_LOG("at most %d turns of others before its own", most);
}

TEST_HARNESS_MAIN
