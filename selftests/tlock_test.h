/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of most tests: they begin with a lock that is free, and leave
 * it as they found it.
 */
#ifndef TLOCK_SELFTESTS_TLOCK_TEST_H
#define TLOCK_SELFTESTS_TLOCK_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "agent.h"
#include "helpers.h"

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
	self->before = look(self->fd);
	ASSERT_EQ(0, self->before.holder.token);
	ASSERT_EQ(0, self->before.waiters);
}

FIXTURE_TEARDOWN(tlock)
{
	struct tlock_acquire arg = ask(0, "teardown");
	int fd = contender();

	/* A test leaves no holder, no waiter, and no death to be told of */
	agents_kill();
	close(self->fd);
	EXPECT_EQ(0, look(fd).waiters);
	EXPECT_EQ(0, acquire(fd, &arg)) {
		TH_LOG("the test leaves the lock to %s", arg.holder.job);
	}
	EXPECT_EQ(0, arg.result);
	release(fd);
	close(fd);
}

#endif /* TLOCK_SELFTESTS_TLOCK_TEST_H */
