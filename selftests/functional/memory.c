// SPDX-License-Identifier: GPL-2.0-only
/*
 * The argument can lie in any memory: in pages that another thread unmaps while
 * a call waits, or in pages served by a program (userfaultfd, FUSE) that takes
 * its time. Neither loses the lock or stalls anybody else.
 */
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "tlock_test.h"

/*
 * Two pages. The test serves the second one when it likes: until then,
 * everybody who touches it is stalled, including the kernel.
 */
struct trap {
	int uffd;
	long page;
	char *first, *second;
};

FIXTURE(memory)
{
	int fd;
	struct trap trap;
	struct tlock_status before;
};

FIXTURE_SETUP(memory)
{
	struct trap *t = &self->trap;
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);

	t->page = sysconf(_SC_PAGESIZE);
	t->first = mmap(NULL, 2 * t->page, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, t->first);
	t->second = t->first + t->page;
	t->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (t->uffd < 0 && errno == ENOSYS)
		return;
	ASSERT_LE(0, t->uffd) {
		TH_LOG("userfaultfd: %s", strerror(errno));
	}
	ASSERT_EQ(0, ioctl(t->uffd, UFFDIO_API, &api));
	range.range.start = (uintptr_t)t->second;
	range.range.len = t->page;
	ASSERT_EQ(0, ioctl(t->uffd, UFFDIO_REGISTER, &range));
}

FIXTURE_TEARDOWN(memory)
{
	close(self->trap.uffd);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

#define NEED_TRAP() do {						\
	if (self->trap.uffd < 0)					\
		SKIP(return, "this kernel has no userfaultfd");		\
} while (0)

/* Waits until somebody touches the second page; false: nobody did */
static bool trapped(struct trap *t)
{
	struct pollfd pollfd = { .fd = t->uffd, .events = POLLIN };
	struct uffd_msg msg;

	return poll(&pollfd, 1, PATIENCE / MSEC) == 1 &&
	       read(t->uffd, &msg, sizeof(msg)) == sizeof(msg) &&
	       msg.event == UFFD_EVENT_PAGEFAULT &&
	       msg.arg.pagefault.address / t->page ==
	       (uintptr_t)t->second / t->page;
}

/* Lets the stalled thread go on, with a page that begins with these bytes. */
static int serve(struct trap *t, const void *bytes, size_t size)
{
	char *page = calloc(1, t->page);
	struct uffdio_copy copy = {
		.dst = (uintptr_t)t->second,
		.src = (uintptr_t)page,
		.len = t->page,
	};
	int ret;

	memcpy(page, bytes, size);
	ret = ioctl(t->uffd, UFFDIO_COPY, &copy);
	free(page);
	return ret;
}

/* Takes the second page away again. */
static int spring(struct trap *t)
{
	return madvise(t->second, t->page, MADV_DONTNEED);
}

/* The lock is fully usable while somebody is stalled. */
#define EXPECT_NOBODY_ELSE_STALLS() do {				\
	struct tlock_acquire __arg = ask(LONG, "anybody");		\
									\
	EXPECT_EQ(0, acquire(self->fd, &__arg));			\
	EXPECT_STREQ("anybody", look(self->fd).holder.job);		\
	EXPECT_STREQ("anybody", sysfs_text("job"));			\
	EXPECT_EQ(0, reacquire(self->fd, &__arg));			\
	EXPECT_EQ(0, release(self->fd));				\
} while (0)

/*
 * A reacquire that has nothing to do is stalled, while its file loses the lock
 * and gets it again, with a lease or without. It must not say that it has renewed
 * the grant that was lost.
 */
static void expect_later_grant(struct __test_metadata *_metadata,
			       FIXTURE_DATA(memory) *self, __u64 lease_ns)
{
	struct tlock_acquire *arg = (void *)self->trap.second;
	struct tlock_acquire asked = ask(LONG, ""), next;
	struct call *stalled;
	int c = contender();

	take_lease(c, "c", MSEC);
	stalled = call_with(c, reacquire, arg);
	ASSERT_TRUE(trapped(&self->trap));
	next = ask(FOREVER, "next");
	ASSERT_EQ(0, acquire(self->fd, &next));
	EXPECT_EQ(TLOCK_REVOKED, next.result);
	EXPECT_LOST(c);
	ASSERT_EQ(0, release(self->fd));
	next.token = take_lease(c, "c", lease_ns);

	ASSERT_EQ(0, serve(&self->trap, &asked, sizeof(asked)));
	ASSERT_EQ(0, result(stalled));
	EXPECT_EQ(next.token, arg->token);
	EXPECT_EQ(next.token, look(self->fd).holder.token);
	EXPECT_EQ(0, release(c));
	close(c);
}

TEST_F(memory, g12_stalled_before_it_renews)
{
	NEED_TRAP();
	expect_later_grant(_metadata, self, LONG);
}

TEST_F(memory, g12_stalled_and_then_without_a_lease)
{
	NEED_TRAP();
	expect_later_grant(_metadata, self, 0);
}

/* The same, and the lock is lost for good. */
TEST_F(memory, g12_stalled_until_it_is_revoked)
{
	struct tlock_acquire *arg = (void *)self->trap.second;
	struct tlock_acquire asked = ask(LONG, ""), next;
	struct call *stalled;
	int c = contender();

	NEED_TRAP();
	take_lease(c, "c", MSEC);
	stalled = call_with(c, reacquire, arg);
	ASSERT_TRUE(trapped(&self->trap));
	next = ask(FOREVER, "next");
	ASSERT_EQ(0, acquire(self->fd, &next));
	ASSERT_EQ(0, serve(&self->trap, &asked, sizeof(asked)));
	ASSERT_EQ(-ESTALE, result(stalled));
	EXPECT_STREQ("idle", state_of(c, NULL));
	EXPECT_EQ(0, release(self->fd));
	close(c);
}

TEST_F(memory, g10_stalled_before_it_asks)
{
	struct tlock_acquire arg = ask(LONG, "stalled");
	struct call *stalled;

	NEED_TRAP();
	stalled = call_with(contender(), acquire, (void *)self->trap.second);
	ASSERT_TRUE(trapped(&self->trap));
	EXPECT_NOBODY_ELSE_STALLS();

	ASSERT_EQ(0, serve(&self->trap, &arg, sizeof(arg)));
	ASSERT_EQ(0, result(stalled));
	EXPECT_STREQ("stalled", look(self->fd).holder.job);
	EXPECT_EQ(0, release(stalled->fd));
	close(stalled->fd);
}

static int look_at(int fd, struct tlock_acquire *arg)
{
	return status(fd, (void *)arg);
}

TEST_F(memory, g10_stalled_looker)
{
	struct tlock_status st;
	struct call *stalled;

	NEED_TRAP();
	stalled = call_with(contender(), look_at, (void *)self->trap.second);
	ASSERT_TRUE(trapped(&self->trap));
	EXPECT_NOBODY_ELSE_STALLS();
	/* It sees the status from before */
	ASSERT_EQ(0, serve(&self->trap, "", 1));
	ASSERT_EQ(0, result(stalled));
	memcpy(&st, self->trap.second, sizeof(st));
	EXPECT_EQ(self->before.acquired, st.acquired);
	EXPECT_EQ(0, st.holder.token);
	close(stalled->fd);
}

/* Stalled between the grant and its return, it just holds the lock. */
TEST_F(memory, g10_stalled_when_granted)
{
	struct tlock_acquire arg = ask(LONG, "stalled"), try = ask(0, "try");
	struct call *stalled, *waiter;
	int fd = contender();

	NEED_TRAP();
	ASSERT_EQ(0, serve(&self->trap, &arg, sizeof(arg)));
	take(self->fd, "holder");
	stalled = call_with(contender(), acquire, (void *)self->trap.second);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, spring(&self->trap));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_TRUE(trapped(&self->trap));

	EXPECT_EQ(-ETIMEDOUT, acquire(fd, &try));
	EXPECT_STREQ("stalled", try.holder.job);
	EXPECT_STREQ("stalled", sysfs_text("job"));
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->fd, 1));

	ASSERT_EQ(0, serve(&self->trap, "", 1));
	ASSERT_EQ(0, result(stalled));
	EXPECT_EQ(look(self->fd).holder.token, stalled->arg->token);
	EXPECT_EQ(0, release(stalled->fd));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(0, release(fd));
	close(stalled->fd);
	close(fd);
}

/*
 * A call is stalled when it has found that it can write its argument, and reads
 * the job, which is on the second page. Then the first page turns bad.
 */
static int stall_at_job(struct trap *t, int fd, const struct tlock_acquire *arg)
{
	const size_t first = offsetof(struct tlock_acquire, job);
	struct tlock_acquire *at = (void *)(t->second - first);
	struct call *stalled;
	int ret;

	if (spring(t))
		die("the second page stays");
	memcpy(at, arg, first);
	stalled = call_with(fd, acquire, at);
	if (!trapped(t) || mprotect(t->first, t->page, PROT_READ) ||
	    serve(t, arg->job, sizeof(arg->job)))
		die("no trap");
	ret = result(stalled);
	if (mprotect(t->first, t->page, PROT_READ | PROT_WRITE))
		die("mprotect");
	return ret;
}

/* Whoever does not get the ticket of a new request has no request. */
TEST_F(memory, g11_ticket_that_cannot_be_written)
{
	struct tlock_acquire arg = ask_async(FOREVER, "victim");
	int c = contender();

	NEED_TRAP();
	take(self->fd, "holder");
	EXPECT_EQ(-EFAULT, stall_at_job(&self->trap, c, &arg));
	EXPECT_STREQ("idle", state_of(c, NULL));
	EXPECT_EQ(0, look(c).waiters);
	EXPECT_EQ(-EPERM, release(c));
	EXPECT_EQ(0, release(self->fd));
	close(c);
}

/* But whoever has the ticket keeps the request, and can ask again. */
TEST_F(memory, g11_undecided_stays)
{
	struct tlock_acquire arg;
	int c = contender();
	__u64 ticket;

	NEED_TRAP();
	take(self->fd, "holder");
	arg = start_acquire(c, FOREVER, "victim");
	EXPECT_EQ(-EFAULT, stall_at_job(&self->trap, c, &arg));
	EXPECT_STREQ("waiting", state_of(c, &ticket));
	EXPECT_EQ(arg.ticket, ticket);
	EXPECT_EQ(-EINPROGRESS, acquire(c, &arg));
	EXPECT_EQ(0, release(c));
	EXPECT_EQ(0, release(self->fd));
	close(c);
}

/* A grant that a fetch could not return passes on, with what it had to say. */
TEST_F(memory, g11_grant_that_cannot_be_fetched)
{
	int c = contender(), dying = contender();
	struct tlock_acquire arg, next;

	NEED_TRAP();
	take(dying, "dying");
	arg = start_acquire(c, FOREVER, "victim");
	close(dying);
	EXPECT_EQ(-EFAULT, stall_at_job(&self->trap, c, &arg));
	EXPECT_STREQ("idle", state_of(c, NULL));
	EXPECT_EQ(-EPERM, release(c));
	next = ask(0, "next");
	ASSERT_EQ(0, acquire(self->fd, &next));
	EXPECT_EQ(TLOCK_ABANDONED, next.result);
	EXPECT_EQ(self->before.abandoned + 1, look(self->fd).abandoned);
	EXPECT_EQ(0, release(self->fd));
	close(c);
}

/* A failure that could not be returned is gone. */
TEST_F(memory, g11_failure_that_cannot_be_fetched)
{
	struct tlock_acquire arg;
	int c = contender();

	NEED_TRAP();
	take(self->fd, "holder");
	arg = start_acquire(c, 1, "victim");
	ASSERT_TRUE(await_state(c, "decided"));
	EXPECT_EQ(-EFAULT, stall_at_job(&self->trap, c, &arg));
	EXPECT_STREQ("idle", state_of(c, NULL));
	EXPECT_EQ(0, release(self->fd));
	close(c);
}

/*
 * A thread is stalled between the grant and its return, and meanwhile another
 * thread ends that grant through the same file. The next holder, even if it is
 * the same file again, keeps the lock when the stalled thread finds that it
 * cannot return its own grant.
 */
#define STALL_UNTIL_GRANTED_TO(next_fd) do {				\
	struct tlock_acquire __arg = ask(LONG, "stalled");		\
	struct uffdio_range __range = {					\
		.start = (uintptr_t)self->trap.second,			\
		.len = self->trap.page,					\
	};								\
	__u64 __token;							\
									\
	ASSERT_EQ(0, serve(&self->trap, &__arg, sizeof(__arg)));	\
	take(self->fd, "holder");					\
	stalled = call_with(fd, acquire, (void *)self->trap.second);	\
	ASSERT_TRUE(await_waiters(self->fd, 1));			\
	ASSERT_EQ(0, spring(&self->trap));				\
	ASSERT_EQ(0, release(self->fd));				\
	ASSERT_TRUE(trapped(&self->trap));				\
									\
	ASSERT_EQ(0, release(fd));					\
	__token = take(next_fd, "next");				\
	ASSERT_EQ(0, munmap(self->trap.second, self->trap.page));	\
	ASSERT_EQ(0, ioctl(self->trap.uffd, UFFDIO_WAKE, &__range));	\
	ASSERT_EQ(-EFAULT, result(stalled));				\
	EXPECT_EQ(__token, look(self->fd).holder.token);		\
	EXPECT_EQ(0, release(next_fd));					\
} while (0)

TEST_F(memory, g7_declines_no_later_grant_of_its_file)
{
	struct call *stalled;
	int fd = contender();

	NEED_TRAP();
	STALL_UNTIL_GRANTED_TO(fd);
	close(fd);
}

TEST_F(memory, g7_declines_no_grant_of_another)
{
	struct call *stalled;
	int fd = contender();

	NEED_TRAP();
	STALL_UNTIL_GRANTED_TO(self->fd);
	close(fd);
}

/*
 * Between the failure and its return, the lock passes on to others. The caller
 * still learns who held the lock when it gave up.
 */
TEST_F(memory, g5_snapshot_is_of_the_instant_of_giving_up)
{
	/* Only the holder, which is written then, lies in the trap */
	struct tlock_acquire *arg = (void *)(self->trap.second -
				    offsetof(struct tlock_acquire, holder));
	struct tlock_acquire asked = ask(20 * MSEC, "stalled");
	struct tlock_holder then;
	struct call *stalled;
	int fd = contender();

	NEED_TRAP();
	take(self->fd, "in the way");
	then = look(self->fd).holder;
	memcpy(arg, &asked, offsetof(struct tlock_acquire, holder));
	stalled = call_with(contender(), acquire, arg);
	ASSERT_TRUE(trapped(&self->trap));
	ASSERT_EQ(self->before.timed_out + 1, look(self->fd).timed_out);
	EXPECT_EQ(0, look(self->fd).waiters);

	ASSERT_EQ(0, release(self->fd));
	take(fd, "somebody else");
	ASSERT_EQ(0, serve(&self->trap, "", 1));
	ASSERT_EQ(-ETIMEDOUT, result(stalled));
	EXPECT_EQ(0, memcmp(&then, &arg->holder, sizeof(then)));
	EXPECT_STREQ("in the way", arg->holder.job);
	EXPECT_EQ(0, release(fd));
	close(stalled->fd);
	close(fd);
}

/* A grant that cannot be returned: nobody would release it, so it passes on. */
FIXTURE(unmapped)
{
	int fd;
	struct tlock_acquire *arg;	/* on a page of its own */
	long page;
	struct call *victim;		/* waits with that argument */
	struct agent *holder;
	struct tlock_status before;
};

FIXTURE_VARIANT(unmapped)
{
	bool by_reacquire;
	bool abandoned;		/* the grant must report a death */
};

FIXTURE_VARIANT_ADD(unmapped, acquire)
{
};

FIXTURE_VARIANT_ADD(unmapped, acquire_of_an_abandoned_lock)
{
	.abandoned = true,
};

FIXTURE_VARIANT_ADD(unmapped, reacquire)
{
	.by_reacquire = true,
};

FIXTURE_VARIANT_ADD(unmapped, reacquire_of_an_abandoned_lock)
{
	.by_reacquire = true,
	.abandoned = true,
};

FIXTURE_SETUP(unmapped)
{
	struct tlock_acquire arg = ask(FOREVER, "holder");
	int fd = contender();

	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->page = sysconf(_SC_PAGESIZE);
	self->arg = mmap(NULL, self->page, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->arg);
	*self->arg = ask(LONG, "victim");

	self->holder = agent();
	if (variant->by_reacquire) {
		take(fd, "victim");
		agent_begin(self->holder, acquire, &arg);
		ASSERT_TRUE(await_waiters(self->fd, 1));
		self->victim = call_with(fd, reacquire, self->arg);
		ASSERT_EQ(0, agent_end(self->holder, NULL));
	} else {
		agent_take(self->holder, "holder");
		self->victim = call_with(fd, acquire, self->arg);
	}
	ASSERT_TRUE(await_waiters(self->fd, 1));
	self->before = look(self->fd);
	ASSERT_EQ(0, munmap(self->arg, self->page));
}

FIXTURE_TEARDOWN(unmapped)
{
	close(self->victim->fd);
	close(self->fd);
	EXPECT_LEFT_FREE();
}

/* The holder ends its grant, one way or the other. */
#define GO_ON() do {							\
	if (variant->abandoned) {					\
		agent_kill(self->holder);				\
	} else {							\
		ASSERT_EQ(0, agent_release(self->holder));		\
	}								\
	ASSERT_EQ(-EFAULT, result(self->victim));			\
	EXPECT_EQ(-EPERM, release(self->victim->fd));			\
} while (0)

TEST_F(unmapped, g6_lock_passes_on_to_the_next_waiter)
{
	struct call *next;

	next = call(contender(), acquire, FOREVER, "next");
	ASSERT_TRUE(await_waiters(self->fd, 2));
	GO_ON();
	ASSERT_EQ(0, result(next));
	EXPECT_EQ(variant->abandoned ? TLOCK_ABANDONED : 0, next->arg->result);
	EXPECT_LT(self->before.holder.token, next->arg->token);
	/* Only the death of a holder counts as abandoned */
	EXPECT_EQ(self->before.abandoned + variant->abandoned,
		  look(self->fd).abandoned);
	EXPECT_EQ(0, release(next->fd));
	close(next->fd);
}

TEST_F(unmapped, g6_lock_becomes_free)
{
	struct tlock_acquire arg = ask(0, "next");

	GO_ON();
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(variant->abandoned ? TLOCK_ABANDONED : 0, arg.result);
	EXPECT_EQ(self->before.abandoned + variant->abandoned,
		  look(self->fd).abandoned);
	EXPECT_EQ(0, release(self->fd));
}

/* The same for a timeout that cannot be returned */
TEST_F(tlock, g6_unmapped_when_it_times_out)
{
	struct tlock_acquire asked = ask(20 * MSEC, "victim");
	long page = sysconf(_SC_PAGESIZE);
	int fd = contender();
	char *pages;

	pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, pages);
	ASSERT_EQ(0, munmap(pages + page, page));
	/* No byte of the holder can be written */
	pages += page - offsetof(struct tlock_acquire, holder);
	memcpy(pages, &asked, offsetof(struct tlock_acquire, holder));

	take(self->fd, "holder");
	EXPECT_EQ(-EFAULT, acquire(fd, (void *)pages));
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_STREQ("holder", look(self->fd).holder.job);
	EXPECT_EQ(self->before.timed_out + 1, look(self->fd).timed_out);
	EXPECT_EQ(-EPERM, release(fd));
	EXPECT_EQ(0, release(self->fd));
	close(fd);
}

TEST_F(tlock, g9_unmapped_when_interrupted)
{
	long page = sysconf(_SC_PAGESIZE);
	struct tlock_acquire *arg;
	struct call *victim;

	handle_usr1(0);
	arg = mmap(NULL, page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, arg);
	*arg = ask(LONG, "victim");
	take(self->fd, "holder");
	victim = call_with(contender(), acquire, arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, munmap(arg, page));
	send_signal(victim, SIGUSR1);
	EXPECT_EQ(-EFAULT, result(victim));
	EXPECT_EQ(0, look(self->fd).waiters);
	EXPECT_EQ(self->before.interrupted + 1, look(self->fd).interrupted);
	EXPECT_EQ(-EPERM, release(victim->fd));
	EXPECT_EQ(0, release(self->fd));
	close(victim->fd);
}

TEST_HARNESS_MAIN
