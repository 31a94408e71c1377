/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of most tests, and the rule for all of them: they begin with a
 * free lock and leave it free.
 */
#ifndef TLOCK_SELFTESTS_TLOCK_TEST_H
#define TLOCK_SELFTESTS_TLOCK_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "agent.h"
#include "helpers.h"

/* The time limit of a test in seconds: only one that hangs takes as long */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	80

/* At the start of each test */
#define ASSERT_FREE(fd) do {						\
	struct tlock_status __st = look(fd);				\
									\
	ASSERT_EQ(0, __st.holder.token);				\
	ASSERT_EQ(0, __st.waiters);					\
} while (0)

/*
 * At the end of each test: no holder, no waiter, and no result flag left for the
 * next holder
 */
#define EXPECT_LEFT_FREE() do {						\
	struct tlock_acquire __arg = ask(0, "teardown");		\
	int __fd = contender();						\
									\
	agents_kill();							\
	EXPECT_EQ(0, look(__fd).waiters);				\
	EXPECT_EQ(0, acquire(__fd, &__arg)) {				\
		TH_LOG("still held for '%s'", __arg.holder.job);	\
	}								\
	EXPECT_EQ(0, __arg.result);					\
	release(__fd);							\
	close(__fd);							\
} while (0)

/*
 * The file's grant was revoked: its next call says so, and only that one. Then
 * it is idle.
 */
#define EXPECT_LOST(fd) do {						\
	EXPECT_STREQ("revoked", state_of(fd, NULL));			\
	EXPECT_EQ(POLLOUT | POLLERR | POLLPRI, events_of(fd));		\
	EXPECT_EQ(-ESTALE, release(fd));				\
	EXPECT_STREQ("idle", state_of(fd, NULL));			\
	EXPECT_EQ(POLLOUT, events_of(fd));				\
	EXPECT_EQ(-EPERM, release(fd));					\
} while (0)

/* A contender gets the lock, which nobody holds, and learns of this. */
#define EXPECT_NEXT_LEARNS(flags, fd) do {				\
	struct tlock_acquire __arg = ask(0, "next");			\
									\
	ASSERT_EQ(0, acquire(fd, &__arg));				\
	EXPECT_EQ(flags, __arg.result);					\
	ASSERT_EQ(0, release(fd));					\
} while (0)

FIXTURE(tlock)
{
	int fd;				/* the test's own contender */
	struct tlock_status before;
};

FIXTURE_SETUP(tlock)
{
	self->fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd) {
		TH_LOG(DEVICE ": %s", strerror(errno));
	}
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
}

FIXTURE_TEARDOWN(tlock)
{
	close(self->fd);
	EXPECT_LEFT_FREE();
}

#endif /* TLOCK_SELFTESTS_TLOCK_TEST_H */
