// SPDX-License-Identifier: GPL-2.0-only
/*
 * libtlock acquires and releases the lock with one ioctl() each, and allocates
 * nothing. This is a program of its own because it traces itself, and is linked
 * so that it sees all allocations.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/ptrace.h>
#include <linux/ptrace.h>	/* must follow the one above */
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include <tlock.h>

static int allocations;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
	allocations++;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	allocations++;
	return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	allocations++;
	return __real_realloc(old, size);
}

/* The calls in question, succeeding and failing. Returns 1 if one is wrong. */
static int calls(struct tlock *t, struct tlock *other)
{
	tlock_set_lease(t, tlock_seconds(30));
	if (tlock_acquire(t, "job", TLOCK_FOREVER) ||
	    !tlock_acquire(t, "job", TLOCK_TRY) ||
	    tlock_reacquire(t, NULL, tlock_seconds(0.5)) ||
	    tlock_renew(t, NULL) || !tlock_token(t) || tlock_abandoned(t) ||
	    tlock_revoked(t) || tlock_lost(t) || tlock_time_left(t) < 0 ||
	    tlock_blocker(t)->token || tlock_fd(t) < 0 || tlock_ticket(t) ||
	    !tlock_resume(t) || !tlock_finish(t) || !tlock_cancel(t) ||
	    !tlock_start_acquire(other, "other", TLOCK_FOREVER) ||
	    !tlock_ticket(other) || !tlock_finish(other) ||
	    !tlock_resume(other) || tlock_cancel(other) ||
	    !tlock_finish(other) ||
	    tlock_start_reacquire(t, NULL, TLOCK_FOREVER) ||
	    tlock_release(t) || !tlock_release(t))
		return 1;
	tlock_scoped(t, "block", TLOCK_TRY) {
		if (tlock_release(t))
			return 1;
	}
	tlock_scoped(t, "block", TLOCK_TRY) {
		return 0;
	}
	return 1;
}

/* Ten outside the blocks, and two for each block */
#define CALLS	14

TEST(nothing_is_allocated)
{
	struct tlock *t = tlock_open(NULL, O_RDWR);
	struct tlock *other = tlock_open(NULL, O_RDWR);
	int before;

	ASSERT_NE(NULL, t);
	ASSERT_NE(NULL, other);
	/* The handles were allocated, so the counter works */
	EXPECT_EQ(2, allocations);
	before = allocations;
	EXPECT_EQ(0, calls(t, other));
	EXPECT_EQ(before, allocations);
	tlock_close(t);
	tlock_close(other);
}

/* Runs to the entry of the next system call; returns its number, or -1 */
static int64_t next_syscall(pid_t pid)
{
	struct ptrace_syscall_info info;
	int status;

	do {
		if (ptrace(PTRACE_SYSCALL, pid, 0, 0) ||
		    waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
			return -1;
		if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info),
			   &info) < 0)
			return -1;
	} while (info.op != PTRACE_SYSCALL_INFO_ENTRY);
	return info.entry.nr;
}

TEST(one_system_call_each)
{
	struct tlock *t = tlock_open(NULL, O_RDWR);
	struct tlock *other = tlock_open(NULL, O_RDWR);
	int status, ioctls = 0;
	int64_t nr;
	pid_t pid;

	ASSERT_NE(NULL, t);
	ASSERT_NE(NULL, other);
	pid = fork();
	if (!pid) {
		int ret;

		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		/* A getppid() marks the start and the end */
		syscall(SYS_getppid);
		ret = calls(t, other);
		syscall(SYS_getppid);
		_exit(ret);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, ptrace(PTRACE_SETOPTIONS, pid, 0,
			    PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
	do {
		nr = next_syscall(pid);
		ASSERT_LE(0, nr);
	} while (nr != SYS_getppid);
	while ((nr = next_syscall(pid)) == SYS_ioctl)
		ioctls++;
	EXPECT_EQ(SYS_getppid, nr);
	EXPECT_EQ(CALLS, ioctls);
	ASSERT_EQ(0, ptrace(PTRACE_CONT, pid, 0, 0));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	tlock_close(t);
	tlock_close(other);
}

TEST_HARNESS_MAIN
