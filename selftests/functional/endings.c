// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guarantees 11 and 6: any thread can end a wait, and after that the file
 * neither holds nor waits, whoever raced. The result flags that the ended call
 * could not return go to the next grant.
 */
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>

#include "tlock_test.h"

static bool idle(int fd)
{
	return !strcmp(state_of(fd, NULL), "idle");
}

/* A thread sleeps for the lock, which an agent holds */
FIXTURE(sleeper)
{
	int fd;			/* another contender */
	struct agent *holder;
	struct call *sleeper;
	struct tlock_acquire *arg;	/* the sleeper's, on a page of its own */
	struct tlock_status before;
};

FIXTURE_VARIANT(sleeper)
{
	int (*fn)(int fd, struct tlock_acquire *arg);
};

FIXTURE_VARIANT_ADD(sleeper, acquire)
{
	.fn = acquire,
};

FIXTURE_VARIANT_ADD(sleeper, reacquire)
{
	.fn = reacquire,
};

FIXTURE_SETUP(sleeper)
{
	struct tlock_acquire holders = ask(FOREVER, "holder");
	int fd = contender();

	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->arg = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->arg);
	*self->arg = ask(LONG, "sleeper");
	self->holder = agent();
	if (variant->fn == acquire) {
		agent_take(self->holder, "holder");
		self->sleeper = call_with(fd, acquire, self->arg);
	} else {
		take(fd, "sleeper");
		agent_begin(self->holder, acquire, &holders);
		ASSERT_TRUE(await_waiters(self->fd, 1));
		self->sleeper = call_with(fd, reacquire, self->arg);
		ASSERT_EQ(0, agent_end(self->holder, NULL));
	}
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_TRUE(await_asleep(self->sleeper->tid));
	self->before = look(self->fd);
	ASSERT_STREQ("holder", self->before.holder.job);
}

FIXTURE_TEARDOWN(sleeper)
{
	close(self->sleeper->fd);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(sleeper, g11_release_ends_the_wait)
{
	struct tlock_status after;
	struct call *second;

	second = call(contender(), acquire, FOREVER, "second");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	ASSERT_EQ(0, release(self->sleeper->fd));
	/* All this holds before the sleeper's thread runs */
	EXPECT_EQ(1, look(self->fd).waiters);
	EXPECT_TRUE(idle(self->sleeper->fd));
	EXPECT_EQ(-EPERM, release(self->sleeper->fd));
	ASSERT_EQ(-ECANCELED, result(self->sleeper));
	EXPECT_EQ(0, self->arg->ticket);
	EXPECT_LT(0, self->arg->timeout_ns);
	EXPECT_GT(LONG, self->arg->timeout_ns);
	EXPECT_TRUE(poisoned(&self->arg->token, sizeof(self->arg->token)));
	EXPECT_TRUE(poisoned(&self->arg->holder, sizeof(self->arg->holder)));

	after = look(self->fd);
	EXPECT_EQ(self->before.holder.token, after.holder.token);
	EXPECT_EQ(self->before.acquired, after.acquired);
	EXPECT_EQ(self->before.timed_out, after.timed_out);
	EXPECT_EQ(self->before.interrupted, after.interrupted);
	EXPECT_LT(self->before.wait_ns_total, after.wait_ns_total);

	ASSERT_EQ(0, agent_release(self->holder));
	ASSERT_EQ(0, result(second));
	EXPECT_EQ(self->before.holder.token + 1, second->arg->token);
	EXPECT_EQ(0, release(second->fd));
	close(second->fd);
	/* The file can be used again */
	EXPECT_EQ(self->before.holder.token + 2,
		  take(self->sleeper->fd, "again"));
	EXPECT_EQ(0, release(self->sleeper->fd));
}

/* close() alone ends nothing: the sleeping call keeps the file open. */
TEST_F(sleeper, g11_release_after_close)
{
	int copy = dup(self->sleeper->fd);

	ASSERT_LE(0, copy);
	ASSERT_EQ(0, close(self->sleeper->fd));
	EXPECT_EQ(1, look(self->fd).waiters);
	ASSERT_EQ(0, release(copy));
	ASSERT_EQ(-ECANCELED, result(self->sleeper));
	EXPECT_TRUE(idle(copy));
	close(copy);
	EXPECT_EQ(0, look(self->fd).waiters);
	ASSERT_EQ(0, agent_release(self->holder));
	EXPECT_EQ(0, look(self->fd).holder.token);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
}

TEST_F(sleeper, g11_release_before_close)
{
	ASSERT_EQ(0, release(self->sleeper->fd));
	ASSERT_EQ(0, close(self->sleeper->fd));
	ASSERT_EQ(-ECANCELED, result(self->sleeper));
	EXPECT_EQ(0, look(self->fd).waiters);
	ASSERT_EQ(0, agent_release(self->holder));
	EXPECT_EQ(0, look(self->fd).holder.token);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
}

#define NEED_CPUS() do {						\
	if (!can_hold_back())						\
		SKIP(return, "this needs two CPUs");			\
} while (0)

TEST_F(sleeper, g11_release_between_the_grant_and_its_return)
{
	struct call *blocker;

	NEED_CPUS();
	blocker = hold_back(self->sleeper);
	ASSERT_EQ(0, agent_release(self->holder));
	ASSERT_EQ(self->before.holder.token + 1, look(self->fd).holder.token);
	ASSERT_EQ(0, release(self->sleeper->fd));
	EXPECT_EQ(0, look(self->fd).holder.token);
	EXPECT_TRUE(idle(self->sleeper->fd));
	let_run(blocker);
	ASSERT_EQ(-ECANCELED, result(self->sleeper));
	EXPECT_EQ(0, self->arg->ticket);
	EXPECT_EQ(0, look(self->fd).holder.token);
	EXPECT_EQ(self->before.acquired + 1, look(self->fd).acquired);
}

/* The sleeper would have returned TLOCK_ABANDONED: the next grant does. */
TEST_F(sleeper, g6_death_before_a_grant_that_does_not_return)
{
	struct tlock_acquire arg = ask(0, "next");
	struct call *blocker;

	NEED_CPUS();
	blocker = hold_back(self->sleeper);
	agent_kill(self->holder);
	ASSERT_TRUE(await_token(self->fd, self->before.holder.token + 1));
	ASSERT_EQ(0, release(self->sleeper->fd));
	let_run(blocker);
	ASSERT_EQ(-ECANCELED, result(self->sleeper));
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(self->before.holder.token + 2, arg.token);
	EXPECT_EQ(0, release(self->fd));
	EXPECT_EQ(self->before.abandoned + 1, look(self->fd).abandoned);
}

/* The same where the next contender waits already */
TEST_F(sleeper, g6_death_and_release_before_the_sleeper_runs)
{
	struct call *blocker, *next;

	NEED_CPUS();
	next = call(contender(), acquire, FOREVER, "next");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	blocker = hold_back(self->sleeper);
	agent_kill(self->holder);
	ASSERT_TRUE(await_token(self->fd, self->before.holder.token + 1));
	ASSERT_EQ(0, release(self->sleeper->fd));
	ASSERT_EQ(0, result(next));
	EXPECT_EQ(TLOCK_ABANDONED, next->arg->result);
	let_run(blocker);
	ASSERT_EQ(-ECANCELED, result(self->sleeper));
	EXPECT_EQ(self->before.holder.token + 2, look(self->fd).holder.token);
	EXPECT_EQ(0, release(next->fd));
	close(next->fd);
}

/* Before the sleeper runs, its file acquires the lock again: another grant. */
TEST_F(sleeper, g11_later_grant_is_not_its_own)
{
	struct call *blocker;
	__u64 token;

	NEED_CPUS();
	blocker = hold_back(self->sleeper);
	ASSERT_EQ(0, agent_release(self->holder));
	ASSERT_EQ(0, release(self->sleeper->fd));
	token = take(self->sleeper->fd, "later");
	let_run(blocker);
	ASSERT_EQ(-ECANCELED, result(self->sleeper));
	EXPECT_EQ(token, look(self->fd).holder.token);
	EXPECT_STREQ("later", look(self->fd).holder.job);
	EXPECT_EQ(0, release(self->sleeper->fd));
}

/* A stopped process has no thread that sleeps; its request ends as well. */
TEST_F(tlock, g11_release_of_a_stopped_waiter)
{
	int fd = contender();
	struct agent *a = agent_sharing(fd);
	struct tlock_acquire arg = ask(FOREVER, "stopped");
	__u64 token;

	for (int again = 0; again < 2; again++) {
		take(self->fd, "holder");
		arg = ask(FOREVER, "stopped");
		agent_begin(a, acquire, &arg);
		ASSERT_TRUE(await_waiters(self->fd, 1));
		ASSERT_EQ(0, kill(a->pid, SIGSTOP));
		ASSERT_TRUE(await_waiters(self->fd, 0));
		ASSERT_EQ(0, release(fd));
		EXPECT_TRUE(idle(fd));
		EXPECT_EQ(-EPERM, release(fd));
		ASSERT_EQ(0, release(self->fd));
		/* A later grant of the same file is not its own */
		token = again ? take(fd, "later") : 0;
		ASSERT_EQ(0, kill(a->pid, SIGCONT));
		ASSERT_EQ(-ECANCELED, agent_end(a, &arg));
		EXPECT_EQ(0, arg.ticket);
		EXPECT_EQ(token, look(self->fd).holder.token);
	}
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/*
 * The holder's release, which grants a sleeper the lock, races with a release
 * of the sleeper's own file.
 */
struct race {
	int fd;
	bool over;
	sem_t asked, slept;	/* start the sleeper's call; it has ended */
	sem_t ready, released;	/* start the releaser; it has released */
	atomic_int spinning, go;	/* round: releaser ready; both begin */
	__s64 delay;		/* of the releaser; negative: of the holder */
	int sleeper_ret, release_ret;
	bool idle;
	struct tlock_acquire arg;
};

static struct race race;

static bool await_post(sem_t *sem)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += PATIENCE / SEC;
	return !sem_timedwait(sem, &deadline);
}

static void delay(__s64 ns)
{
	for (__s64 until = now() + ns; now() < until;)
		;
}

static int race_sleeper(int fd, struct tlock_acquire *arg)
{
	while (await_post(&race.asked) && !race.over) {
		race.arg = ask(FOREVER, "sleeper");
		race.sleeper_ret = acquire(fd, &race.arg);
		sem_post(&race.slept);
	}
	return 0;
}

static int race_releaser(int fd, struct tlock_acquire *arg)
{
	run_on(0, 1);
	for (int round = 1; await_post(&race.ready) && !race.over; round++) {
		atomic_store(&race.spinning, round);
		while (atomic_load(&race.go) != round)
			;
		delay(race.delay);
		race.release_ret = release(fd);
		race.idle = idle(fd);
		sem_post(&race.released);
	}
	return 0;
}

TEST_F(tlock, g11_release_meets_the_grant)
{
	int withdrawn = 0, ended = 0, returned = 0;
	__s64 until = now() + 8 * SEC;
	struct call *sleeper, *releaser;
	struct tlock_status st;
	__u64 token, acquired;

	NEED_CPUS();
	sem_init(&race.asked, 0, 0);
	sem_init(&race.slept, 0, 0);
	sem_init(&race.ready, 0, 0);
	sem_init(&race.released, 0, 0);
	race.fd = contender();
	sleeper = call(race.fd, race_sleeper, 0, "");
	releaser = call(race.fd, race_releaser, 0, "");
	/* The two racers run on two CPUs, at the same time */
	run_on(0, 0);
	for (int round = 1; round <= 3000 && now() < until; round++) {
		token = take(self->fd, "holder");
		acquired = look(self->fd).acquired;
		sem_post(&race.asked);
		ASSERT_TRUE(await_waiters(self->fd, 1));
		sem_post(&race.ready);
		ASSERT_TRUE(await_value(&race.spinning, round));
		atomic_store(&race.go, round);
		delay(-race.delay);
		ASSERT_EQ(0, release(self->fd));
		ASSERT_TRUE(await_post(&race.released));
		ASSERT_TRUE(await_post(&race.slept));

		ASSERT_EQ(0, race.release_ret);
		ASSERT_TRUE(race.idle);
		ASSERT_EQ(0, race.arg.ticket);
		st = look(self->fd);
		ASSERT_EQ(0, st.holder.token);
		ASSERT_EQ(0, st.waiters);
		ASSERT_EQ(-EPERM, release(race.fd));
		/* The later the grant, the more likely it is withdrawn */
		if (st.acquired == acquired) {
			ASSERT_EQ(-ECANCELED, race.sleeper_ret);
			withdrawn++;
			race.delay += 4 * USEC;
			continue;
		}
		ASSERT_EQ(acquired + 1, st.acquired);
		if (race.sleeper_ret) {
			ASSERT_EQ(-ECANCELED, race.sleeper_ret);
			ended++;
		} else {
			ASSERT_EQ(token + 1, race.arg.token);
			returned++;
		}
		race.delay -= 4 * USEC;
	}
	race.over = true;
	sem_post(&race.asked);
	sem_post(&race.ready);
	EXPECT_EQ(0, result(sleeper));
	EXPECT_EQ(0, result(releaser));
	TH_LOG("%d withdrawn; of those granted, %d ended before the call returned, %d later",
	       withdrawn, ended, returned);
	EXPECT_LT(0, withdrawn);
	EXPECT_LT(0, ended + returned);
	EXPECT_EQ(self->before.abandoned, look(self->fd).abandoned);
	close(race.fd);
}

/*
 * When a signal interrupts a request and its ticket cannot be written back,
 * nobody could go on with it, so it is dropped.
 */
#define DROPPED_WHEN_INTERRUPTED(flags, spoil) do {			\
	struct call *second;						\
									\
	second = call(contender(), acquire, FOREVER, "second");		\
	ASSERT_TRUE(await_waiters(self->fd, 2));			\
	handle_usr1(flags);							\
	ASSERT_EQ(0, spoil);						\
	send_signal(self->sleeper, SIGUSR1);				\
	ASSERT_EQ(-EFAULT, result(self->sleeper));			\
	EXPECT_EQ(1, look(self->fd).waiters);				\
	EXPECT_TRUE(idle(self->sleeper->fd));				\
	EXPECT_EQ(-EPERM, release(self->sleeper->fd));			\
	EXPECT_EQ(self->before.interrupted + 1,				\
		  look(self->fd).interrupted);				\
	agent_kill(self->holder);					\
	ASSERT_EQ(0, result(second));					\
	EXPECT_EQ(TLOCK_ABANDONED, second->arg->result);		\
	EXPECT_EQ(self->before.holder.token + 1, second->arg->token);	\
	EXPECT_EQ(0, release(second->fd));				\
	close(second->fd);						\
} while (0)

TEST_F(sleeper, g11_unmapped_when_interrupted)
{
	DROPPED_WHEN_INTERRUPTED(0, munmap(self->arg, getpagesize()));
}

TEST_F(sleeper, g11_unmapped_when_restarted)
{
	DROPPED_WHEN_INTERRUPTED(SA_RESTART,
				 munmap(self->arg, getpagesize()));
}

TEST_F(sleeper, g11_read_only_when_interrupted)
{
	DROPPED_WHEN_INTERRUPTED(0, mprotect(self->arg, getpagesize(),
					     PROT_READ));
	EXPECT_NE(0, self->arg->timeout_ns);
}

TEST_F(sleeper, g11_read_only_when_restarted)
{
	DROPPED_WHEN_INTERRUPTED(SA_RESTART,
				 mprotect(self->arg, getpagesize(),
					  PROT_READ));
}

/*
 * The same when RELEASE ends the request: it stays ended, whatever the call
 * returns.
 */
TEST_F(sleeper, g11_unmapped_when_released)
{
	ASSERT_EQ(0, munmap(self->arg, getpagesize()));
	ASSERT_EQ(0, release(self->sleeper->fd));
	ASSERT_EQ(-EFAULT, result(self->sleeper));
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(-EPERM, release(self->sleeper->fd));
	EXPECT_EQ(self->before.holder.token, look(self->fd).holder.token);
	EXPECT_EQ(0, agent_release(self->holder));
}

TEST_HARNESS_MAIN
