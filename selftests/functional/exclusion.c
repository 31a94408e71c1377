// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantee 1: at most one contender holds a lock, always, whatever dies when.
 */
#include <signal.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tlock_test.h"

#define THREADS	8
#define ROUNDS	60

/* The data that the lock guards. Only the holder may change it. */
static struct {
	atomic_int inside;
	atomic_int violations;
	unsigned int entries;	/* not atomic: the lock must protect it */
} guarded;

static void enter(void)
{
	unsigned int entries;

	if (atomic_fetch_add(&guarded.inside, 1))
		atomic_fetch_add(&guarded.violations, 1);
	entries = guarded.entries;
	/*
	 * Give a contender that is wrongly let in time to interfere. On a busy
	 * machine, a thread that only yields may run on alone, so it sleeps now
	 * and then to let others in.
	 */
	if (entries % 8)
		sched_yield();
	else
		usleep(100);
	guarded.entries = entries + 1;
}

static void leave(void)
{
	atomic_fetch_sub(&guarded.inside, 1);
}

static atomic_int ready;
static atomic_int go;

/*
 * A contender's life, with every kind of wait. Returns how many times it held
 * the lock, or a negative errno.
 */
static int contend(int fd, struct tlock_acquire *arg)
{
	static const __s64 timeouts[] = { FOREVER, 0, 100 * USEC, LONG };
	static atomic_int seeds;
	unsigned int seed = atomic_fetch_add(&seeds, 1);
	int entered = 0, ret;

	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&go))
		sched_yield();
	for (int round = 0; round < ROUNDS; round++) {
		*arg = ask(timeouts[rand_r(&seed) % ARRAY_SIZE(timeouts)],
			   "contend");
		ret = acquire(fd, arg);
		if (ret == -ETIMEDOUT)
			continue;
		if (ret)
			return ret;
		enter();
		entered++;
		leave();

		*arg = ask((round & 1) ? FOREVER : 100 * USEC, "");
		ret = reacquire(fd, arg);
		if (ret == -ETIMEDOUT)
			continue;
		if (ret)
			return ret;
		enter();
		entered++;
		leave();

		ret = release(fd);
		if (ret)
			return ret;
	}
	return entered;
}

TEST_F(tlock, g1_exclusion_among_threads)
{
	struct call *calls[THREADS];
	unsigned int entries = 0;
	int ret;

	/* Start all of them first, or they would not meet */
	for (int i = 0; i < THREADS; i++)
		calls[i] = call(contender(), contend, 0, "");
	ASSERT_TRUE(await_value(&ready, THREADS));
	atomic_store(&go, 1);
	for (int i = 0; i < THREADS; i++) {
		ret = result(calls[i]);
		ASSERT_LT(0, ret);
		entries += ret;
		close(calls[i]->fd);
	}
	EXPECT_EQ(0, atomic_load(&guarded.violations));
	EXPECT_EQ(entries, guarded.entries);
	/* They did contend, and did not just run one after another */
	EXPECT_LT(THREADS, look(self->fd).contended - self->before.contended);
}

#define PROCESSES	6
#define KILLS		30

/* In memory shared with processes that may be killed at any instant */
struct arena {
	atomic_int owner;	/* pid inside; it remains if killed there */
	atomic_int entries;
	atomic_int violations;
	atomic_int untold;	/* found an owner but no TLOCK_ABANDONED */
};

static void be_mortal(struct arena *arena)
{
	int me = getpid(), fd = contender(), other;
	struct tlock_acquire arg;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0;; i++) {
		/* Two out of three grants come from a reacquire */
		arg = ask(FOREVER, "mortal");
		if (i % 3 ? reacquire(fd, &arg) : acquire(fd, &arg))
			_exit(1);
		other = atomic_exchange(&arena->owner, me);
		if (other && !(arg.result & TLOCK_ABANDONED))
			atomic_fetch_add(&arena->untold, 1);
		atomic_fetch_add(&arena->entries, 1);
		sched_yield();
		other = me;
		if (!atomic_compare_exchange_strong(&arena->owner, &other, 0))
			atomic_fetch_add(&arena->violations, 1);
		if (i % 3 == 2 && release(fd))
			_exit(1);
	}
}

static pid_t mortal(struct arena *arena)
{
	pid_t pid = fork();

	if (!pid)
		be_mortal(arena);
	return pid;
}

TEST_F(tlock, g1_exclusion_while_processes_are_killed)
{
	struct tlock_acquire arg = ask(LONG, "survivor");
	struct arena *arena;
	pid_t pids[PROCESSES];
	int wstatus, entries;

	/* The children must not share this contender */
	close(self->fd);
	arena = mmap(NULL, sizeof(*arena), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, arena);
	for (int i = 0; i < PROCESSES; i++) {
		pids[i] = mortal(arena);
		ASSERT_LT(0, pids[i]);
	}

	for (int i = 0; i < KILLS; i++) {
		/* The lock still changes hands after each death */
		entries = atomic_load(&arena->entries);
		ASSERT_TRUE(await_value(&arena->entries,
					entries + 1 + i % PROCESSES));
		ASSERT_EQ(0, kill(pids[i % PROCESSES], SIGKILL));
		ASSERT_EQ(pids[i % PROCESSES],
			  waitpid(pids[i % PROCESSES], &wstatus, 0));
		ASSERT_TRUE(WIFSIGNALED(wstatus)) {
			TH_LOG("a call failed before the kill");
		}
		pids[i % PROCESSES] = mortal(arena);
	}
	for (int i = 0; i < PROCESSES; i++) {
		kill(pids[i], SIGKILL);
		ASSERT_EQ(pids[i], waitpid(pids[i], &wstatus, 0));
		EXPECT_TRUE(WIFSIGNALED(wstatus));
	}
	EXPECT_EQ(0, atomic_load(&arena->violations));
	EXPECT_EQ(0, atomic_load(&arena->untold));

	/* Nobody is left; this grant may report the last death */
	self->fd = contender();
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(0, release(self->fd));
}

TEST_HARNESS_MAIN
