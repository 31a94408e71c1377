// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ABI's numbers. Programs that are built with another copy of the header,
 * or with none, rely on each of them; so does a 32-bit program, for which
 * this file is compiled a second time, on a 64-bit kernel.
 */
#include <stddef.h>
#include <sys/ioctl.h>

#include <linux/tlock.h>

#include "kselftest_harness.h"

#define EXPECT_FIELD(type, field, offset, size) do {			\
	EXPECT_EQ(offset, offsetof(struct type, field));		\
	EXPECT_EQ(size, sizeof(((struct type *)0)->field));		\
} while (0)

#define EXPECT_SIGNED(type, field)					\
	EXPECT_GT(0, (__typeof__(((struct type *)0)->field)) -1)
#define EXPECT_UNSIGNED(type, field)					\
	EXPECT_LT(0, (__typeof__(((struct type *)0)->field)) -1)

TEST(abi_holder)
{
	EXPECT_EQ(104, sizeof(struct tlock_holder));
	EXPECT_FIELD(tlock_holder, token, 0, 8);
	EXPECT_FIELD(tlock_holder, since_ns, 8, 8);
	EXPECT_FIELD(tlock_holder, pid, 16, 4);
	EXPECT_FIELD(tlock_holder, uid, 20, 4);
	EXPECT_FIELD(tlock_holder, comm, 24, 16);
	EXPECT_FIELD(tlock_holder, job, 40, 64);
	EXPECT_UNSIGNED(tlock_holder, token);
	EXPECT_UNSIGNED(tlock_holder, since_ns);
	EXPECT_SIGNED(tlock_holder, pid);
	EXPECT_UNSIGNED(tlock_holder, uid);
}

TEST(abi_acquire)
{
	EXPECT_EQ(192, sizeof(struct tlock_acquire));
	EXPECT_FIELD(tlock_acquire, timeout_ns, 0, 8);
	EXPECT_FIELD(tlock_acquire, flags, 8, 4);
	EXPECT_FIELD(tlock_acquire, result, 12, 4);
	EXPECT_FIELD(tlock_acquire, token, 16, 8);
	EXPECT_FIELD(tlock_acquire, job, 24, 64);
	EXPECT_FIELD(tlock_acquire, holder, 88, 104);
	EXPECT_SIGNED(tlock_acquire, timeout_ns);
	EXPECT_UNSIGNED(tlock_acquire, flags);
	EXPECT_UNSIGNED(tlock_acquire, result);
	EXPECT_UNSIGNED(tlock_acquire, token);
}

TEST(abi_status)
{
	EXPECT_EQ(192, sizeof(struct tlock_status));
	EXPECT_FIELD(tlock_status, holder, 0, 104);
	EXPECT_FIELD(tlock_status, waiters, 104, 4);
	EXPECT_FIELD(tlock_status, reserved, 108, 4);
	EXPECT_FIELD(tlock_status, acquired, 112, 8);
	EXPECT_FIELD(tlock_status, contended, 120, 8);
	EXPECT_FIELD(tlock_status, timed_out, 128, 8);
	EXPECT_FIELD(tlock_status, interrupted, 136, 8);
	EXPECT_FIELD(tlock_status, abandoned, 144, 8);
	EXPECT_FIELD(tlock_status, yielded, 152, 8);
	EXPECT_FIELD(tlock_status, wait_ns_total, 160, 8);
	EXPECT_FIELD(tlock_status, wait_ns_max, 168, 8);
	EXPECT_FIELD(tlock_status, hold_ns_total, 176, 8);
	EXPECT_FIELD(tlock_status, hold_ns_max, 184, 8);
	EXPECT_UNSIGNED(tlock_status, waiters);
	EXPECT_UNSIGNED(tlock_status, acquired);
	EXPECT_UNSIGNED(tlock_status, wait_ns_total);
	EXPECT_UNSIGNED(tlock_status, hold_ns_total);
}

/* No member before and no padding between two members */
TEST(abi_sizes_add_up)
{
	EXPECT_EQ(sizeof(struct tlock_holder),
		  2 * 8 + 2 * 4 + TLOCK_COMM_SIZE + TLOCK_JOB_SIZE);
	EXPECT_EQ(sizeof(struct tlock_acquire),
		  8 + 2 * 4 + 8 + TLOCK_JOB_SIZE + sizeof(struct tlock_holder));
	EXPECT_EQ(sizeof(struct tlock_status),
		  sizeof(struct tlock_holder) + 2 * 4 + 10 * 8);
}

TEST(abi_constants)
{
	EXPECT_EQ(64, TLOCK_JOB_SIZE);
	EXPECT_EQ(16, TLOCK_COMM_SIZE);
	EXPECT_EQ(32, TLOCK_NAME_SIZE);
	EXPECT_EQ(1, TLOCK_ABANDONED);
}

TEST(abi_ioctl_numbers)
{
	EXPECT_EQ(0xc0c0bc00U, TLOCK_IOC_ACQUIRE);
	EXPECT_EQ(0x0000bc01U, TLOCK_IOC_RELEASE);
	EXPECT_EQ(0xc0c0bc02U, TLOCK_IOC_REACQUIRE);
	EXPECT_EQ(0x80c0bc03U, TLOCK_IOC_STATUS);
}

TEST_HARNESS_MAIN
