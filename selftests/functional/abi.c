// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ABI's numbers. Programs built with another copy of the header, or without
 * one, rely on each of them. So do 32-bit programs on a 64-bit kernel, for
 * which this file is compiled a second time.
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
	EXPECT_EQ(120, sizeof(struct tlock_holder));
	EXPECT_FIELD(tlock_holder, token, 0, 8);
	EXPECT_FIELD(tlock_holder, since_ns, 8, 8);
	EXPECT_FIELD(tlock_holder, pid, 16, 4);
	EXPECT_FIELD(tlock_holder, uid, 20, 4);
	EXPECT_FIELD(tlock_holder, flags, 24, 4);
	EXPECT_FIELD(tlock_holder, reserved, 28, 12);
	EXPECT_FIELD(tlock_holder, comm, 40, 16);
	EXPECT_FIELD(tlock_holder, job, 56, 64);
	EXPECT_UNSIGNED(tlock_holder, token);
	EXPECT_SIGNED(tlock_holder, since_ns);
	EXPECT_SIGNED(tlock_holder, pid);
	EXPECT_UNSIGNED(tlock_holder, uid);
	EXPECT_UNSIGNED(tlock_holder, flags);
	EXPECT_UNSIGNED(tlock_holder, reserved[0]);
}

TEST(abi_acquire)
{
	EXPECT_EQ(256, sizeof(struct tlock_acquire));
	EXPECT_FIELD(tlock_acquire, timeout_ns, 0, 8);
	EXPECT_FIELD(tlock_acquire, flags, 8, 4);
	EXPECT_FIELD(tlock_acquire, result, 12, 4);
	EXPECT_FIELD(tlock_acquire, token, 16, 8);
	EXPECT_FIELD(tlock_acquire, ticket, 24, 8);
	EXPECT_FIELD(tlock_acquire, lease_ns, 32, 8);
	EXPECT_FIELD(tlock_acquire, reserved, 40, 32);
	EXPECT_FIELD(tlock_acquire, job, 72, 64);
	EXPECT_FIELD(tlock_acquire, holder, 136, 120);
	EXPECT_SIGNED(tlock_acquire, timeout_ns);
	EXPECT_UNSIGNED(tlock_acquire, flags);
	EXPECT_UNSIGNED(tlock_acquire, result);
	EXPECT_UNSIGNED(tlock_acquire, token);
	EXPECT_UNSIGNED(tlock_acquire, ticket);
	EXPECT_UNSIGNED(tlock_acquire, lease_ns);
	EXPECT_UNSIGNED(tlock_acquire, reserved[0]);
}

TEST(abi_status)
{
	EXPECT_EQ(384, sizeof(struct tlock_status));
	EXPECT_FIELD(tlock_status, holder, 0, 120);
	EXPECT_FIELD(tlock_status, waiters, 120, 4);
	EXPECT_FIELD(tlock_status, flags, 124, 4);
	EXPECT_FIELD(tlock_status, acquired, 128, 8);
	EXPECT_FIELD(tlock_status, contended, 136, 8);
	EXPECT_FIELD(tlock_status, timed_out, 144, 8);
	EXPECT_FIELD(tlock_status, interrupted, 152, 8);
	EXPECT_FIELD(tlock_status, abandoned, 160, 8);
	EXPECT_FIELD(tlock_status, yielded, 168, 8);
	EXPECT_FIELD(tlock_status, wait_ns_total, 176, 8);
	EXPECT_FIELD(tlock_status, wait_ns_max, 184, 8);
	EXPECT_FIELD(tlock_status, hold_ns_total, 192, 8);
	EXPECT_FIELD(tlock_status, hold_ns_max, 200, 8);
	EXPECT_FIELD(tlock_status, reserved, 208, 48);
	EXPECT_FIELD(tlock_status, name, 256, 128);
	EXPECT_UNSIGNED(tlock_status, waiters);
	EXPECT_UNSIGNED(tlock_status, flags);
	EXPECT_UNSIGNED(tlock_status, acquired);
	EXPECT_UNSIGNED(tlock_status, wait_ns_total);
	EXPECT_UNSIGNED(tlock_status, hold_ns_total);
	EXPECT_UNSIGNED(tlock_status, reserved[0]);
}

/* No unlisted member, and no padding between two members */
TEST(abi_sizes_add_up)
{
	EXPECT_EQ(sizeof(struct tlock_holder),
		  2 * 8 + 6 * 4 + TLOCK_COMM_SIZE + TLOCK_JOB_SIZE);
	EXPECT_EQ(sizeof(struct tlock_acquire),
		  8 + 2 * 4 + 7 * 8 + TLOCK_JOB_SIZE +
		  sizeof(struct tlock_holder));
	EXPECT_EQ(sizeof(struct tlock_status),
		  sizeof(struct tlock_holder) + 2 * 4 + 16 * 8 +
		  TLOCK_NAME_SIZE);
}

TEST(abi_constants)
{
	EXPECT_EQ(64, TLOCK_JOB_SIZE);
	EXPECT_EQ(16, TLOCK_COMM_SIZE);
	EXPECT_EQ(128, TLOCK_NAME_SIZE);
	EXPECT_EQ(1, TLOCK_ABANDONED);
}

TEST(abi_ioctl_numbers)
{
	EXPECT_EQ(0xc100bc00U, TLOCK_IOC_ACQUIRE);
	EXPECT_EQ(0x0000bc01U, TLOCK_IOC_RELEASE);
	EXPECT_EQ(0xc100bc02U, TLOCK_IOC_REACQUIRE);
	EXPECT_EQ(0x8180bc03U, TLOCK_IOC_STATUS);
}

TEST_HARNESS_MAIN
