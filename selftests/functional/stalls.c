// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 10: a reader never holds up a contender, however little CPU time
 * the reader gets. Nor does a task that releases the lock hold up the more
 * urgent one that gets it.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>

#include "tlock_test.h"

static void pin_to(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		die("cannot run on CPU %d", cpu);
}

/*
 * How long calls took. While the host does not run the guest's CPU, the CPU
 * time of the thread running there goes on. So a call was held up by others
 * only while its thread did not have the CPU.
 */
struct times {
	__s64 begun, cpu_begun;
	__s64 longest;		/* of all calls */
	__s64 held_up;		/* the longest time that one was */
	int count;
};

static __s64 cpu_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec;
}

static void begin(struct times *t)
{
	t->cpu_begun = cpu_time();
	t->begun = now();
}

static void end(struct times *t)
{
	__s64 took = now() - t->begun;
	__s64 held_up = took - (cpu_time() - t->cpu_begun);

	if (took > t->longest)
		t->longest = took;
	if (held_up > t->held_up)
		t->held_up = held_up;
	t->count++;
}

/* The readers' CPU, and the CPU of the contender that they must not disturb */
#define READERS_CPU	0
#define CONTENDER_CPU	1

#define NOBODY		65534
#define READERS		12

/* The number of reads, by all readers */
static atomic_int *rounds;

/* In an agent: becomes an unprivileged user, who may look */
static void become_nobody(void)
{
	pin_to(READERS_CPU);
	if (setgid(NOBODY) || setuid(NOBODY) ||
	    prctl(PR_SET_PDEATHSIG, SIGKILL))
		die("cannot become nobody");
}

/* In an agent: ways to look, which never return */

static int read_status(int fd, struct tlock_acquire *arg)
{
	become_nobody();
	fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
	for (;; atomic_fetch_add(rounds, 1))
		look(fd);
	return 0;
}

static int read_sysfs(int fd, struct tlock_acquire *arg)
{
	char text[80];

	become_nobody();
	fd = open(SYSFS "/job", O_RDONLY | O_CLOEXEC);
	for (;; atomic_fetch_add(rounds, 1))
		if (pread(fd, text, sizeof(text), 0) <= 0)
			die("cannot read the job");
	return 0;
}

static int read_nothing(int fd, struct tlock_acquire *arg)
{
	become_nobody();
	for (;; atomic_fetch_add(rounds, 1)) {
		fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			die("cannot open the device");
		close(fd);
	}
	return 0;
}

static int read_monitor(int fd, struct tlock_acquire *arg)
{
	struct tlock_event event;

	become_nobody();
	fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
	if (start_monitor(fd))
		die("cannot monitor the lock");
	for (;; atomic_fetch_add(rounds, 1))
		if (read_events(fd, &event, sizeof(event)) < 0)
			die("cannot read an event");
	return 0;
}

/*
 * In an agent: leaves the CPU to idle readers just long enough for some rounds,
 * and then takes it from them wherever they are.
 */
static int hog(int fd, struct tlock_acquire *arg)
{
	pin_to(READERS_CPU);
	for (;; usleep(1000))
		for (__s64 until = now() + 120 * MSEC; now() < until;)
			;
	return 0;
}

/*
 * Each throttled reader has a cgroup. It may run 1 ms every 50 ms. But the
 * kernel notices only at a tick how long it ran, and then throttles it for
 * several times as long.
 */
static const char *cgroup(int i)
{
	static char name[24];

	snprintf(name, sizeof(name), "tlock-stalls-%d", i);
	return name;
}

static void make_idle(struct agent *a)
{
	const struct sched_param param = { 0 };

	if (sched_setscheduler(a->pid, SCHED_IDLE, &param))
		die("cannot make a reader idle");
}

FIXTURE(readers)
{
	int fd;
	struct agent *readers[READERS];
	struct agent *hog;	/* runs beside idle readers */
	bool usable;
};

FIXTURE_VARIANT(readers)
{
	agent_fn *read;
	bool throttled;		/* else idle class, beside a busy task */
};

FIXTURE_VARIANT_ADD(readers, throttled_of_status)
{
	.read = read_status,
	.throttled = true,
};

FIXTURE_VARIANT_ADD(readers, throttled_of_sysfs)
{
	.read = read_sysfs,
	.throttled = true,
};

FIXTURE_VARIANT_ADD(readers, throttled_in_open)
{
	.read = read_nothing,
	.throttled = true,
};

FIXTURE_VARIANT_ADD(readers, throttled_monitor)
{
	.read = read_monitor,
	.throttled = true,
};

FIXTURE_VARIANT_ADD(readers, idle_monitor)
{
	.read = read_monitor,
};

FIXTURE_VARIANT_ADD(readers, idle_of_status)
{
	.read = read_status,
};

FIXTURE_VARIANT_ADD(readers, idle_of_sysfs)
{
	.read = read_sysfs,
};

FIXTURE_VARIANT_ADD(readers, idle_in_open)
{
	.read = read_nothing,
};

FIXTURE_SETUP(readers)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
	rounds = mmap(NULL, sizeof(*rounds), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, rounds);
	self->usable = true;
	/*
	 * One quota stays: for the first, and when the last is gone, the kernel
	 * patches its scheduler. QEMU before 8.1 may then, very rarely, execute
	 * a breakpoint that is not there any more ("Oops: int3")
	 */
	for (int i = 0; i <= READERS && variant->throttled; i++)
		if (!cgroup_create(cgroup(i)) ||
		    cgroup_write(cgroup(i), "cpu.max", "1000 50000"))
			self->usable = false;
}

FIXTURE_TEARDOWN(readers)
{
	/* Unthrottled and without the hog, the readers end at once */
	if (self->hog)
		agent_kill(self->hog);
	if (variant->throttled && self->usable) {
		for (int i = 0; i < READERS && self->readers[i]; i++)
			cgroup_enter(".", self->readers[i]->pid);
		agents_kill();
		for (int i = 0; i < READERS; i++)
			cgroup_remove(cgroup(i));
	}
	close(self->fd);
	EXPECT_LEFT_FREE();
}

static void start_readers(int fd, struct agent **readers, agent_fn *read,
			  bool throttled)
{
	__s64 deadline = now() + PATIENCE;

	for (int i = 0; i < READERS; i++) {
		readers[i] = agent();
		agent_begin(readers[i], read, NULL);
	}
	while (atomic_load(rounds) < 1000) {
		if (now() > deadline)
			die("nobody reads");
		/* Monitors read only if something happens */
		take(fd, "event");
		if (release(fd))
			die("cannot release the lock");
		usleep(100);
	}
	for (int i = 0; i < READERS; i++) {
		if (throttled)
			cgroup_enter(cgroup(i), readers[i]->pid);
		else
			make_idle(readers[i]);
	}
}

/* Neither a person nor an instrument notices a call that takes less. */
#define BOUND		(100 * MSEC)

TEST_F(readers, g10_hold_no_contender_up)
{
	/*
	 * On PREEMPT_RT, everybody who opens any character device contends for
	 * a sleeping lock of the kernel
	 */
	bool realtime;
	struct times pairs = {}, opens = {};
	struct tlock_acquire arg;
	struct utsname kernel;
	int before;

	ASSERT_EQ(0, uname(&kernel));
	realtime = strstr(kernel.version, "PREEMPT_RT");
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "this needs two CPUs");
	if (!self->usable)
		SKIP(return, "this kernel has no cpu.max");
	pin_to(CONTENDER_CPU);
	start_readers(self->fd, self->readers, variant->read,
		      variant->throttled);
	if (!variant->throttled) {
		self->hog = agent();
		agent_begin(self->hog, hog, NULL);
	}
	before = atomic_load(rounds);
	for (__s64 until = now() + 3 * SEC; now() < until;) {
		arg = ask(0, "contender");
		begin(&pairs);
		ASSERT_EQ(0, acquire(self->fd, &arg));
		ASSERT_EQ(0, release(self->fd));
		end(&pairs);
		begin(&opens);
		close(contender());
		end(&opens);
		usleep(100);
	}
	EXPECT_LT(before, atomic_load(rounds));
	TH_LOG("%d calls, and %d by readers meanwhile", pairs.count,
	       atomic_load(rounds) - before);
	TH_LOG("to acquire: at most %lld us, held up for %lld us",
	       pairs.longest / USEC, pairs.held_up / USEC);
	TH_LOG("to open: at most %lld us, held up for %lld us",
	       opens.longest / USEC, opens.held_up / USEC);
	EXPECT_GT(BOUND, pairs.held_up);
	if (!realtime)
		EXPECT_GT(BOUND, opens.held_up);
}

/*
 * A task releases the lock to a more urgent one, which preempts it. A third
 * task, of a priority in between, then keeps the first from running. So the
 * urgent task's next calls must not wait for the first. All of them run on the
 * same CPU.
 */
#define URGENT	50
#define MIDDLE	10

static void run_fifo(int priority)
{
	const struct sched_param param = { .sched_priority = priority };

	if (sched_setscheduler(0, SCHED_FIFO, &param))
		die("cannot become urgent");
}

static int wake_middle[2];
static atomic_int urgent_done;

static int run_middle(int fd, struct tlock_acquire *arg)
{
	__s64 until;
	char byte;

	pin_to(READERS_CPU);
	run_fifo(MIDDLE);
	if (read(wake_middle[0], &byte, 1) != 1)
		die("nobody wakes the middle one");
	for (until = now() + SEC / 2;
	     now() < until && !atomic_load(&urgent_done);)
		;
	return 0;
}

static struct times urgent;

static int run_urgent(int fd, struct tlock_acquire *arg)
{
	int ret;

	pin_to(READERS_CPU);
	run_fifo(URGENT);
	ret = acquire(fd, arg);
	if (write(wake_middle[1], "", 1) != 1)
		die("cannot wake the middle one");
	if (!ret) {
		begin(&urgent);
		ret = release(fd);
		end(&urgent);
		begin(&urgent);
		look(fd);
		end(&urgent);
	}
	atomic_store(&urgent_done, 1);
	return ret;
}

TEST_F(tlock, g10_release_is_no_priority_inversion)
{
	struct call *middle, *first;
	int fd = contender();

	ASSERT_EQ(0, pipe(wake_middle));
	pin_to(READERS_CPU);
	for (int round = 0; round < 10; round++) {
		atomic_store(&urgent_done, 0);
		take(self->fd, "low");
		middle = call(self->fd, run_middle, 0, "");
		ASSERT_TRUE(await_asleep(middle->tid));
		first = call(fd, run_urgent, FOREVER, "urgent");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		ASSERT_TRUE(await_asleep(first->tid));
		ASSERT_EQ(0, release(self->fd));
		ASSERT_EQ(0, result(first));
		ASSERT_EQ(0, result(middle));
	}
	TH_LOG("the worst call took %lld us (held up: %lld us)",
	       urgent.longest / USEC, urgent.held_up / USEC);
	EXPECT_GT(5 * MSEC, urgent.held_up);
	close(fd);
}

/*
 * The same, but an interrupt wakes the task in between, possibly while the lock
 * is being handed over. Even then the urgent task, which holds the lock, must
 * run first. The task in between polls the status. Once it sees the urgent task
 * hold the lock, it spins until that task runs, and counts a failure if it does
 * not.
 */
static atomic_int urgent_runs, came_between;

static int come_between(int fd, struct tlock_acquire *arg)
{
	struct tlock_status st;
	__s64 until;

	pin_to(READERS_CPU);
	run_fifo(MIDDLE);
	while (!atomic_load(&urgent_runs)) {
		usleep(200);
		st = look(fd);
		if (strcmp(st.holder.job, "urgent"))
			continue;
		for (until = now() + SEC / 5; now() < until;)
			if (atomic_load(&urgent_runs))
				return 0;
		atomic_fetch_add(&came_between, 1);
		return 0;
	}
	return 0;
}

static int take_and_go(int fd, struct tlock_acquire *arg)
{
	int ret;

	pin_to(READERS_CPU);
	run_fifo(URGENT);
	ret = acquire(fd, arg);
	atomic_store(&urgent_runs, 1);
	return ret ?: release(fd);
}

TEST_F(tlock, g10_nobody_comes_between_release_and_grant)
{
	struct call *middle, *first;
	int fd = contender();

	pin_to(READERS_CPU);
	for (int round = 0; round < 10; round++) {
		atomic_store(&urgent_runs, 0);
		take(self->fd, "low");
		first = call(fd, take_and_go, FOREVER, "urgent");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		middle = call(self->fd, come_between, 0, "");
		/* Let it start to poll */
		usleep(5000);
		ASSERT_EQ(0, release(self->fd));
		ASSERT_EQ(0, result(first));
		ASSERT_EQ(0, result(middle));
	}
	EXPECT_EQ(0, atomic_load(&came_between));
	close(fd);
}

/*
 * A grant that was not fetched in time ends for an urgent waiter, although a
 * task of middle priority keeps the CPU busy. On PREEMPT_RT, that task also
 * keeps the thread from running that most timers run in.
 */
static int keep_busy(int fd, struct tlock_acquire *arg)
{
	__s64 until;

	pin_to(READERS_CPU);
	run_fifo(MIDDLE);
	for (until = now() + SEC; now() < until && !atomic_load(&urgent_runs);)
		;
	return 0;
}

/* Releases the lock at a certain time */
static int release_late(int fd, struct tlock_acquire *arg)
{
	struct timespec at = {
		arg->timeout_ns / SEC, arg->timeout_ns % SEC
	};

	pin_to(READERS_CPU);
	run_fifo(URGENT + 1);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
		;
	return release(fd);
}

FIXTURE(unfetched)
{
	int holder;
	int c;
	int urgent;
};

FIXTURE_VARIANT(unfetched)
{
	bool late;		/* the grant comes after the deadline */
};

FIXTURE_VARIANT_ADD(unfetched, granted_in_time)
{
};

/* Where the busy task delayed even the end of the request */
FIXTURE_VARIANT_ADD(unfetched, granted_late)
{
	.late = true,
};

FIXTURE_SETUP(unfetched)
{
	self->holder = contender();
	self->c = contender();
	self->urgent = contender();
	ASSERT_FREE(self->c);
}

FIXTURE_TEARDOWN(unfetched)
{
	close(self->holder);
	close(self->c);
	close(self->urgent);
	EXPECT_LEFT_FREE();
}

TEST_F(unfetched, g2_ends_beneath_a_busy_task)
{
	struct call *first, *busy, *releaser = NULL;
	struct tlock_acquire arg;
	__s64 deadline, begins, worst = 0;

	pin_to(READERS_CPU);
	for (int round = 0; round < 3; round++) {
		atomic_store(&urgent_runs, 0);
		take(self->holder, "holder");
		deadline = now() + 100 * MSEC;
		begins = deadline;
		start_acquire(self->c, 100 * MSEC, "c");
		first = call(self->urgent, take_and_go, FOREVER, "urgent");
		ASSERT_TRUE(await_asleep(first->tid));
		if (variant->late) {
			begins += 50 * MSEC;
			arg = ask(begins, "");
			releaser = call_with(self->holder, release_late, &arg);
			ASSERT_TRUE(await_asleep(releaser->tid));
		} else {
			ASSERT_EQ(0, release(self->holder));
		}
		busy = call(-1, keep_busy, 0, "");
		ASSERT_EQ(0, result(busy));
		ASSERT_EQ(0, result(first));
		if (releaser) {
			ASSERT_EQ(0, result(releaser));
		}
		EXPECT_LE(begins, first->ended);
		if (first->ended - begins > worst)
			worst = first->ended - begins;
		ASSERT_EQ(0, release(self->c));
	}
	TH_LOG("the urgent task ran at most %lld us late", worst / USEC);
	/* The busy task is so for twice as long */
	EXPECT_GT(SEC / 2, worst);
}

/*
 * Many requests with the same deadline: their ends take one call of the kernel
 * each, one after the other. For so long, other tasks do not get that CPU where
 * timers are not threads.
 */
#define MANY		10000
#define BOUND_OF_MANY	SEC

static int watch_the_clock(int fd, struct tlock_acquire *arg)
{
	__s64 last, time, worst = 0;

	pin_to(READERS_CPU);
	run_fifo(URGENT);
	for (last = now(); last < arg->timeout_ns; last = time) {
		time = now();
		if (time - last > worst)
			worst = time - last;
	}
	arg->timeout_ns = worst;
	return 0;
}

TEST_F(tlock, g10_many_deadlines_at_once)
{
	const struct rlimit limit = { MANY + 100, MANY + 100 };
	static int fds[MANY];
	struct tlock_acquire arg;
	struct call *watcher;
	__s64 deadline;

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	pin_to(READERS_CPU);
	take(self->fd, "holder");
	for (int i = 0; i < MANY; i++)
		fds[i] = contender();
	deadline = now() + 2 * SEC;
	for (int i = 0; i < MANY && now() < deadline - MSEC; i++)
		start_acquire(fds[i], deadline - now(), "c");
	TH_LOG("%u of %d requests wait", look(self->fd).waiters, MANY);
	arg = ask(deadline + SEC / 2, "");
	watcher = call_with(-1, watch_the_clock, &arg);
	ASSERT_EQ(0, result(watcher));
	TH_LOG("the CPU was taken for at most %lld us", arg.timeout_ns / USEC);
	EXPECT_GT(BOUND_OF_MANY, arg.timeout_ns);
	ASSERT_TRUE(await_waiters(self->fd, 0));
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	EXPECT_EQ(0, release(self->fd));
}

TEST_HARNESS_MAIN
