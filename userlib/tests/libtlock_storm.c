// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests that are canceled at any point, thousands of times: by one thread
 * that drives several handles as an event loop does, against a second process
 * with the blocking calls. Whoever holds the lock writes its token into shared
 * memory, which must then be empty and have no newer token. In the end nothing
 * may be left.
 *
 * TLOCK_CANCELLATIONS is how often to cancel, TLOCK_SEED repeats a run's
 * choices, though not its timing. Runs as root with the module loaded, and needs
 * /dev/tlock for itself.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "libtlock_test.h"

#define HANDLES	8

/* The holder's token, or 0, and the newest token */
struct word {
	_Atomic uint64_t now, newest;
	atomic_bool stop;
};

static bool enter(struct word *word, const struct tlock *t)
{
	uint64_t token = tlock_token(t);

	if (!token || word->now || token < word->newest)
		return false;
	word->now = token;
	word->newest = token;
	return true;
}

static bool leave(struct word *word, const struct tlock *t)
{
	if (word->now != tlock_token(t) || word->newest != tlock_token(t))
		return false;
	word->now = 0;
	return true;
}

static void work(int64_t ns)
{
	int64_t end = now() + ns;

	while (now() < end)
		;
}

/* The second process. Returns its exit status. */
static int compete(struct word *word, unsigned int seed)
{
	struct tlock *t = tlock_open(NULL, O_RDWR);
	int ret;

	while (!word->stop) {
		ret = tlock_acquire(t, "blocking", rand_r(&seed) % 2 ? MSEC :
				    LONG);
		while (!ret) {
			if (!enter(word, t))
				return 1;
			work(rand_r(&seed) % 20000);
			if (!leave(word, t))
				return 2;
			if (rand_r(&seed) % 2)
				break;
			ret = tlock_reacquire(t, NULL, rand_r(&seed) % 2 ?
					      MSEC : LONG);
		}
		if (!ret)
			ret = tlock_release(t);
		if (ret && errno != ETIMEDOUT)
			return 3;
		if (rand_r(&seed) % 4 == 0)
			work(rand_r(&seed) % 100000);
	}
	tlock_close(t);
	return 0;
}

static long setting(const char *name, long otherwise)
{
	const char *value = getenv(name);

	return value && *value ? atol(value) : otherwise;
}

static int files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

enum state {
	IDLE,
	WAITING,
	HOLDING,
};

struct handle {
	struct tlock *t;
	enum state state;
};

static bool decided(const struct tlock *t)
{
	struct pollfd p = { .fd = tlock_fd(t), .events = POLLOUT };

	return poll(&p, 1, 0) == 1;
}

static void watch(int epoll, struct handle *h)
{
	struct epoll_event e = {
		.events = EPOLLOUT | EPOLLET, .data.ptr = h,
	};

	h->t = tlock_open(NULL, O_RDWR);
	h->state = IDLE;
	if (!h->t || epoll_ctl(epoll, EPOLL_CTL_ADD, tlock_fd(h->t), &e))
		abort();
}

TEST_F_TIMEOUT(lock, g11_canceled_anywhere, 1000)
{
	/* The last is for the grants that were returned */
	long goal = setting("TLOCK_CANCELLATIONS", 5000), counts[4] = {};
	unsigned int seed = setting("TLOCK_SEED", now() % 1000000);
	struct handle handles[HANDLES], *h;
	int before = files(), epoll, ret, i;
	struct word *word;
	pid_t pid;

	TH_LOG("seed %u", seed);
	word = mmap(NULL, sizeof(*word), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, word);
	pid = fork();
	if (!pid)
		_exit(compete(word, seed));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < HANDLES; i++)
		watch(epoll, &handles[i]);

	while (counts[0] + counts[1] + counts[2] < goal) {
		int64_t timeouts[] = {
			TLOCK_TRY, rand_r(&seed) % 200000, MSEC, LONG, LONG,
		};
		int64_t timeout = timeouts[rand_r(&seed) % 5];
		int what = rand_r(&seed) % 100;
		struct epoll_event e;

		h = &handles[rand_r(&seed) % HANDLES];
		if (what < 20) {
			/* The loop looks for events, and may sleep for one */
			if (epoll_wait(epoll, &e, 1, what < 10) != 1)
				continue;
			h = e.data.ptr;
			what = 99;
		}
		switch (h->state) {
		case IDLE:
			ret = tlock_start_acquire(h->t, "loop", timeout);
			break;
		case HOLDING:
			/* The other handles go on meanwhile */
			if (what < 50)
				continue;
			ASSERT_TRUE(leave(word, h->t));
			if (what < 75) {
				ret = tlock_release(h->t);
				ASSERT_EQ(0, ret);
				h->state = IDLE;
				continue;
			}
			ret = tlock_start_reacquire(h->t, NULL, timeout);
			break;
		default:
			if (what < 40) {
				/* Canceled: while it waits; decided */
				counts[decided(h->t)]++;
				ASSERT_EQ(0, tlock_release(h->t));
				ASSERT_EQ(0, tlock_token(h->t));
				ASSERT_EQ(0, tlock_ticket(h->t));
				ASSERT_EQ(-1, tlock_finish(h->t));
				ASSERT_EQ(EPERM, errno);
				ASSERT_TRUE(decided(h->t));
				h->state = IDLE;
				continue;
			}
			if (what < 42) {
				/* Closed */
				counts[2]++;
				tlock_close(h->t);
				watch(epoll, h);
				continue;
			}
			ret = tlock_finish(h->t);
		}
		if (!ret) {
			ASSERT_TRUE(enter(word, h->t)) {
				TH_LOG("%llu is in as %llu enters",
				       (unsigned long long)word->now,
				       (unsigned long long)tlock_token(h->t));
			}
			counts[3]++;
			h->state = HOLDING;
		} else if (errno == EINPROGRESS) {
			h->state = WAITING;
		} else {
			ASSERT_EQ(ETIMEDOUT, errno);
			h->state = IDLE;
		}
	}

	for (h = handles; h < handles + HANDLES; h++) {
		if (h->state == HOLDING)
			ASSERT_TRUE(leave(word, h->t));
		ASSERT_EQ(h->state == IDLE ? -1 : 0, tlock_release(h->t));
	}
	word->stop = true;
	EXPECT_EQ(0, exit_status(pid));
	EXPECT_EQ(0, word->now);
	EXPECT_EQ(0, look(self->a).holder.token);
	EXPECT_EQ(0, look(self->a).waiters);
	for (h = handles; h < handles + HANDLES; h++)
		tlock_close(h->t);
	close(epoll);
	EXPECT_EQ(before, files());
	TH_LOG("canceled: %ld that waited, %ld that were decided, %ld by closing; %ld grants here, %llu in all",
	       counts[0], counts[1], counts[2], counts[3],
	       (unsigned long long)look(self->a).acquired);
	for (i = 0; i < 4; i++)
		EXPECT_LT(0, counts[i]);
}

TEST_HARNESS_MAIN
