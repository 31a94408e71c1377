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
	EXPECT_FIELD(tlock_holder, reserved, 28, 4);
	EXPECT_FIELD(tlock_holder, expires_ns, 32, 8);
	EXPECT_FIELD(tlock_holder, comm, 40, 16);
	EXPECT_FIELD(tlock_holder, job, 56, 64);
	EXPECT_UNSIGNED(tlock_holder, token);
	EXPECT_SIGNED(tlock_holder, since_ns);
	EXPECT_SIGNED(tlock_holder, pid);
	EXPECT_UNSIGNED(tlock_holder, uid);
	EXPECT_UNSIGNED(tlock_holder, flags);
	EXPECT_UNSIGNED(tlock_holder, reserved);
	EXPECT_SIGNED(tlock_holder, expires_ns);
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
	EXPECT_FIELD(tlock_status, revoked, 168, 8);
	EXPECT_FIELD(tlock_status, yielded, 176, 8);
	EXPECT_FIELD(tlock_status, wait_ns_total, 184, 8);
	EXPECT_FIELD(tlock_status, wait_ns_max, 192, 8);
	EXPECT_FIELD(tlock_status, hold_ns_total, 200, 8);
	EXPECT_FIELD(tlock_status, hold_ns_max, 208, 8);
	EXPECT_FIELD(tlock_status, reserved, 216, 40);
	EXPECT_FIELD(tlock_status, name, 256, 128);
	EXPECT_UNSIGNED(tlock_status, waiters);
	EXPECT_UNSIGNED(tlock_status, flags);
	EXPECT_UNSIGNED(tlock_status, acquired);
	EXPECT_UNSIGNED(tlock_status, revoked);
	EXPECT_UNSIGNED(tlock_status, wait_ns_total);
	EXPECT_UNSIGNED(tlock_status, hold_ns_total);
	EXPECT_UNSIGNED(tlock_status, reserved[0]);
}

TEST(abi_waiter)
{
	EXPECT_EQ(136, sizeof(struct tlock_waiter));
	EXPECT_FIELD(tlock_waiter, ticket, 0, 8);
	EXPECT_FIELD(tlock_waiter, since_ns, 8, 8);
	EXPECT_FIELD(tlock_waiter, timeout_ns, 16, 8);
	EXPECT_FIELD(tlock_waiter, pid, 24, 4);
	EXPECT_FIELD(tlock_waiter, uid, 28, 4);
	EXPECT_FIELD(tlock_waiter, flags, 32, 4);
	EXPECT_FIELD(tlock_waiter, reserved, 36, 20);
	EXPECT_FIELD(tlock_waiter, comm, 56, 16);
	EXPECT_FIELD(tlock_waiter, job, 72, 64);
	EXPECT_UNSIGNED(tlock_waiter, ticket);
	EXPECT_SIGNED(tlock_waiter, since_ns);
	EXPECT_SIGNED(tlock_waiter, timeout_ns);
	EXPECT_SIGNED(tlock_waiter, pid);
	EXPECT_UNSIGNED(tlock_waiter, uid);
	EXPECT_UNSIGNED(tlock_waiter, flags);
	EXPECT_UNSIGNED(tlock_waiter, reserved[0]);
}

TEST(abi_event)
{
	EXPECT_EQ(160, sizeof(struct tlock_event));
	EXPECT_FIELD(tlock_event, size, 0, 4);
	EXPECT_FIELD(tlock_event, kind, 4, 4);
	EXPECT_FIELD(tlock_event, seq, 8, 8);
	EXPECT_FIELD(tlock_event, time_ns, 16, 8);
	EXPECT_FIELD(tlock_event, token, 24, 8);
	EXPECT_FIELD(tlock_event, ticket, 32, 8);
	EXPECT_FIELD(tlock_event, pid, 40, 4);
	EXPECT_FIELD(tlock_event, uid, 44, 4);
	EXPECT_FIELD(tlock_event, flags, 48, 4);
	EXPECT_FIELD(tlock_event, lost, 52, 4);
	EXPECT_FIELD(tlock_event, reserved, 56, 24);
	EXPECT_FIELD(tlock_event, comm, 80, 16);
	EXPECT_FIELD(tlock_event, job, 96, 64);
	EXPECT_UNSIGNED(tlock_event, size);
	EXPECT_UNSIGNED(tlock_event, kind);
	EXPECT_UNSIGNED(tlock_event, seq);
	EXPECT_SIGNED(tlock_event, time_ns);
	EXPECT_UNSIGNED(tlock_event, token);
	EXPECT_UNSIGNED(tlock_event, ticket);
	EXPECT_SIGNED(tlock_event, pid);
	EXPECT_UNSIGNED(tlock_event, uid);
	EXPECT_UNSIGNED(tlock_event, flags);
	EXPECT_UNSIGNED(tlock_event, lost);
	EXPECT_UNSIGNED(tlock_event, reserved[0]);
}

TEST(abi_revoke)
{
	EXPECT_EQ(32, sizeof(struct tlock_revoke));
	EXPECT_FIELD(tlock_revoke, token, 0, 8);
	EXPECT_FIELD(tlock_revoke, grace_ns, 8, 8);
	EXPECT_FIELD(tlock_revoke, flags, 16, 4);
	EXPECT_FIELD(tlock_revoke, reserved, 20, 12);
	EXPECT_UNSIGNED(tlock_revoke, token);
	EXPECT_UNSIGNED(tlock_revoke, grace_ns);
	EXPECT_UNSIGNED(tlock_revoke, flags);
	EXPECT_UNSIGNED(tlock_revoke, reserved[0]);
}

TEST(abi_gate)
{
	EXPECT_EQ(288, sizeof(struct tlock_gate));
	EXPECT_FIELD(tlock_gate, op, 0, 4);
	EXPECT_FIELD(tlock_gate, flags, 4, 4);
	EXPECT_FIELD(tlock_gate, state, 8, 4);
	EXPECT_FIELD(tlock_gate, waiters, 12, 4);
	EXPECT_FIELD(tlock_gate, opening, 16, 8);
	EXPECT_FIELD(tlock_gate, until_ns, 24, 8);
	EXPECT_FIELD(tlock_gate, grace_ns, 32, 8);
	EXPECT_FIELD(tlock_gate, first_token, 40, 8);
	EXPECT_FIELD(tlock_gate, last_token, 48, 8);
	EXPECT_FIELD(tlock_gate, token, 56, 8);
	EXPECT_FIELD(tlock_gate, result, 64, 4);
	EXPECT_FIELD(tlock_gate, reserved0, 68, 4);
	EXPECT_FIELD(tlock_gate, holder, 72, 120);
	EXPECT_FIELD(tlock_gate, host, 192, 64);
	EXPECT_FIELD(tlock_gate, reserved, 256, 32);
	EXPECT_UNSIGNED(tlock_gate, op);
	EXPECT_UNSIGNED(tlock_gate, flags);
	EXPECT_UNSIGNED(tlock_gate, state);
	EXPECT_UNSIGNED(tlock_gate, waiters);
	EXPECT_UNSIGNED(tlock_gate, opening);
	EXPECT_SIGNED(tlock_gate, until_ns);
	EXPECT_UNSIGNED(tlock_gate, grace_ns);
	EXPECT_UNSIGNED(tlock_gate, first_token);
	EXPECT_UNSIGNED(tlock_gate, last_token);
	EXPECT_UNSIGNED(tlock_gate, token);
	EXPECT_UNSIGNED(tlock_gate, result);
	EXPECT_UNSIGNED(tlock_gate, reserved[0]);
}

/* No unlisted member, and no padding between two members */
TEST(abi_sizes_add_up)
{
	EXPECT_EQ(sizeof(struct tlock_holder),
		  3 * 8 + 4 * 4 + TLOCK_COMM_SIZE + TLOCK_JOB_SIZE);
	EXPECT_EQ(sizeof(struct tlock_acquire),
		  8 + 2 * 4 + 7 * 8 + TLOCK_JOB_SIZE +
		  sizeof(struct tlock_holder));
	EXPECT_EQ(sizeof(struct tlock_status),
		  sizeof(struct tlock_holder) + 2 * 4 + 16 * 8 +
		  TLOCK_NAME_SIZE);
	EXPECT_EQ(sizeof(struct tlock_waiter),
		  3 * 8 + 8 * 4 + TLOCK_COMM_SIZE + TLOCK_JOB_SIZE);
	EXPECT_EQ(sizeof(struct tlock_event),
		  7 * 8 + 6 * 4 + TLOCK_COMM_SIZE + TLOCK_JOB_SIZE);
	EXPECT_EQ(sizeof(struct tlock_revoke), 2 * 8 + 4 * 4);
	EXPECT_EQ(sizeof(struct tlock_gate),
		  10 * 8 + 6 * 4 + sizeof(struct tlock_holder) +
		  TLOCK_HOST_SIZE);
}

TEST(abi_constants)
{
	EXPECT_EQ(64, TLOCK_JOB_SIZE);
	EXPECT_EQ(16, TLOCK_COMM_SIZE);
	EXPECT_EQ(128, TLOCK_NAME_SIZE);
	EXPECT_EQ(64, TLOCK_HOST_SIZE);
	EXPECT_EQ(1, TLOCK_UNFETCHED);
	EXPECT_EQ(2, TLOCK_LEASED);
	EXPECT_EQ(4, TLOCK_REVOKING);
	EXPECT_EQ(8, TLOCK_REMOTE);
	EXPECT_EQ(1, TLOCK_ABANDONED);
	EXPECT_EQ(2, TLOCK_REVOKED);
	EXPECT_EQ(1, TLOCK_ASYNC);
	EXPECT_EQ(2, TLOCK_RENEW);
	EXPECT_EQ(1, TLOCK_GATED);
	EXPECT_EQ(2, TLOCK_SHUT);
	EXPECT_EQ(4, TLOCK_SERVED);
	EXPECT_EQ(0, TLOCK_GATE_LOOK);
	EXPECT_EQ(1, TLOCK_GATE_ATTACH);
	EXPECT_EQ(2, TLOCK_GATE_SET);
	EXPECT_EQ(1, TLOCK_GATE_RECALL);
	EXPECT_EQ(1, TLOCK_GATE_OPEN);
	EXPECT_EQ(2, TLOCK_GATE_HELD);
	EXPECT_EQ(4, TLOCK_GATE_WANTED);
	EXPECT_EQ(8, TLOCK_GATE_SPENT);
	EXPECT_EQ(16, TLOCK_GATE_OVER);
	EXPECT_EQ(1, TLOCK_EVENT_WAITING);
	EXPECT_EQ(2, TLOCK_EVENT_ACQUIRED);
	EXPECT_EQ(3, TLOCK_EVENT_RELEASED);
	EXPECT_EQ(4, TLOCK_EVENT_YIELDED);
	EXPECT_EQ(5, TLOCK_EVENT_TIMED_OUT);
	EXPECT_EQ(6, TLOCK_EVENT_INTERRUPTED);
	EXPECT_EQ(7, TLOCK_EVENT_WITHDRAWN);
	EXPECT_EQ(8, TLOCK_EVENT_ABANDONED);
	EXPECT_EQ(9, TLOCK_EVENT_DELETED);
	EXPECT_EQ(10, TLOCK_EVENT_REVOKED);
}

TEST(abi_ioctl_numbers)
{
	EXPECT_EQ(0xc100bc00U, TLOCK_IOC_ACQUIRE);
	EXPECT_EQ(0x0000bc01U, TLOCK_IOC_RELEASE);
	EXPECT_EQ(0xc100bc02U, TLOCK_IOC_REACQUIRE);
	EXPECT_EQ(0x8180bc03U, TLOCK_IOC_STATUS);
	EXPECT_EQ(0xc088bc04U, TLOCK_IOC_WAITER);
	EXPECT_EQ(0x4020bc05U, TLOCK_IOC_REVOKE);
	EXPECT_EQ(0x0000bc06U, TLOCK_IOC_MONITOR);
	EXPECT_EQ(0xc120bc07U, TLOCK_IOC_GATE);
}

TEST_HARNESS_MAIN
