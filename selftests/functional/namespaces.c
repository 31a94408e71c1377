// SPDX-License-Identifier: GPL-2.0-only
/*
 * Contenders in containers: pids, uids and times are translated to the reader's
 * namespaces (guarantee 5), by the ioctls and in sysfs.
 */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>

#include "tlock_test.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

#define NEED_NAMESPACE(name) do {					\
	if (access("/proc/self/ns/" name, F_OK))			\
		SKIP(return, "this kernel has no " name " namespaces");	\
} while (0)

static __u64 agent_number(struct agent *a, const char *path)
{
	struct tlock_acquire arg = ask(0, path);

	if (agent_do(a, agent_read, &arg))
		return -1;
	return strtoull(arg.holder.job, NULL, 10);
}

static bool agent_sees_empty_line(struct agent *a, const char *path)
{
	struct tlock_acquire arg = ask(0, path);

	return !agent_do(a, agent_read, &arg) && !arg.holder.job[0];
}

/* The holder that an agent learns of when it cannot get the lock */
static struct tlock_holder agent_fail(struct agent *a, __s64 timeout_ns)
{
	struct tlock_acquire arg = ask(timeout_ns, "fails");

	if (agent_do(a, acquire, &arg) != -ETIMEDOUT)
		memset(&arg, POISON, sizeof(arg));
	return arg.holder;
}

TEST_F(tlock, g5_pid_of_a_holder_in_a_namespace)
{
	struct agent *inside;
	struct tlock_acquire arg = ask(0, "outside");

	NEED_NAMESPACE("pid");
	inside = agent_in(CLONE_NEWPID);
	ASSERT_LE(0, inside->pid);
	agent_take(inside, "inside");
	/* As the agent sees it, and as we do */
	EXPECT_EQ(1, agent_look(inside).holder.pid);
	EXPECT_EQ(1, agent_number(inside, SYSFS "/pid"));
	EXPECT_EQ(inside->pid, look(self->fd).holder.pid);
	EXPECT_EQ(inside->pid, sysfs_number("pid"));
	EXPECT_NE(1, inside->pid);
	EXPECT_EQ(-ETIMEDOUT, acquire(self->fd, &arg));
	EXPECT_EQ(inside->pid, arg.holder.pid);
	EXPECT_EQ(0, agent_release(inside));
}

TEST_F(tlock, g5_pid_of_a_holder_outside_the_namespace)
{
	struct agent *inside;

	NEED_NAMESPACE("pid");
	inside = agent_in(CLONE_NEWPID);
	take(self->fd, "outside");
	EXPECT_EQ(getpid(), look(self->fd).holder.pid);
	EXPECT_EQ(0, agent_look(inside).holder.pid);
	/* Not 0: to kill(1), that is the reader's own process group */
	EXPECT_TRUE(agent_sees_empty_line(inside, SYSFS "/pid"));
	EXPECT_EQ(0, agent_fail(inside, 0).pid);
	EXPECT_EQ(0, agent_fail(inside, 10 * MSEC).pid);
	/* It sees all other fields */
	EXPECT_STREQ("outside", agent_fail(inside, 0).job);
	EXPECT_EQ(look(self->fd).holder.token, agent_fail(inside, 0).token);
	EXPECT_EQ(0, release(self->fd));
}

/* In an agent: becomes a user of its namespace. */
static int become(int fd, struct tlock_acquire *arg)
{
	uid_t uid = arg->timeout_ns;

	return setresuid(uid, uid, uid) ? -errno : 0;
}

/* An agent in a user namespace, whose only user, 0, is the host's user 12345 */
#define HOST_UID	12345

static struct agent *agent_in_user_namespace(void)
{
	struct agent *a = agent_in(CLONE_NEWUSER);
	struct tlock_acquire root = ask(0, "");
	char path[40], map[40];
	int fd, len;

	snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)a->pid);
	len = snprintf(map, sizeof(map), "0 %d 1\n", HOST_UID);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, map, len) != len)
		return NULL;
	close(fd);
	return agent_do(a, become, &root) ? NULL : a;
}

/* In an agent: creates one lock, and deletes another */
static int change_locks(int fd, struct tlock_acquire *arg)
{
	arg->timeout_ns = lock_create("forged");
	return lock_delete("psu");
}

/*
 * Root of a user namespace sees the host's locks, but may not change which there
 * are.
 */
TEST_F(tlock, locks_are_the_hosts)
{
	struct tlock_acquire arg = ask(0, "");
	struct agent *inside;

	NEED_NAMESPACE("user");
	inside = agent_in_user_namespace();
	ASSERT_NE(NULL, inside);
	ASSERT_EQ(0, lock_create("psu"));
	EXPECT_EQ(0, agent_number(inside, lock_sysfs("psu", "waiters")));
	EXPECT_EQ(-EACCES, agent_do(inside, change_locks, &arg));
	EXPECT_EQ(-EACCES, arg.timeout_ns);
	EXPECT_FALSE(exists(lock_path("forged")));
	EXPECT_EQ(0, lock_delete("psu"));
}

TEST_F(tlock, g5_uid_of_a_holder_in_a_namespace)
{
	struct agent *inside;
	struct tlock_acquire arg = ask(0, "outside");

	NEED_NAMESPACE("user");
	inside = agent_in_user_namespace();
	ASSERT_NE(NULL, inside);
	agent_take(inside, "inside");
	EXPECT_EQ(0, agent_look(inside).holder.uid);
	EXPECT_EQ(0, agent_number(inside, SYSFS "/uid"));
	EXPECT_EQ(HOST_UID, look(self->fd).holder.uid);
	EXPECT_EQ(HOST_UID, sysfs_number("uid"));
	EXPECT_EQ(-ETIMEDOUT, acquire(self->fd, &arg));
	EXPECT_EQ(HOST_UID, arg.holder.uid);
	/* The pid namespace is the same */
	EXPECT_EQ(inside->pid, arg.holder.pid);
	EXPECT_EQ(inside->pid, agent_look(inside).holder.pid);
	EXPECT_EQ(0, agent_release(inside));
}

TEST_F(tlock, g5_uid_of_a_holder_outside_the_namespace)
{
	__u64 overflow = read_number("/proc/sys/kernel/overflowuid");
	struct agent *inside;

	NEED_NAMESPACE("user");
	inside = agent_in_user_namespace();
	ASSERT_NE(NULL, inside);
	ASSERT_NE(0, overflow);
	take(self->fd, "outside");
	EXPECT_EQ(0, look(self->fd).holder.uid);
	EXPECT_EQ(overflow, agent_look(inside).holder.uid);
	EXPECT_EQ(overflow, agent_number(inside, SYSFS "/uid"));
	EXPECT_EQ(overflow, agent_fail(inside, 0).uid);
	EXPECT_EQ(overflow, agent_fail(inside, 10 * MSEC).uid);
	EXPECT_EQ(0, release(self->fd));
	/* There, too, a free lock belongs to nobody */
	EXPECT_EQ(0, agent_look(inside).holder.uid);
	EXPECT_TRUE(agent_sees_empty_line(inside, SYSFS "/uid"));
}

/* In all these namespaces at once, as in a container, it competes as usual. */
TEST_F(tlock, g2_contender_in_a_container)
{
	struct agent *inside;
	struct tlock_acquire arg = ask(FOREVER, "inside");
	__u64 token = take(self->fd, "outside");

	NEED_NAMESPACE("pid");
	NEED_NAMESPACE("user");
	NEED_NAMESPACE("mnt");
	NEED_NAMESPACE("ipc");
	NEED_NAMESPACE("net");
	NEED_NAMESPACE("uts");
	inside = agent_in(CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWNS |
			  CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS);
	agent_begin(inside, acquire, &arg);
	ASSERT_TRUE(await_waiters(self->fd, 1));
	ASSERT_EQ(0, release(self->fd));
	ASSERT_EQ(0, agent_end(inside, &arg));
	EXPECT_EQ(token + 1, arg.token);
	EXPECT_EQ(inside->pid, look(self->fd).holder.pid);
	EXPECT_EQ(1, agent_look(inside).holder.pid);

	agent_kill(inside);
	arg = ask(LONG, "outside");
	ASSERT_EQ(0, acquire(self->fd, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(self->fd));
}

/* In an agent: reads its clock */
static int read_clock(int fd, struct tlock_acquire *arg)
{
	arg->timeout_ns = now();
	return 0;
}

static __s64 agent_now(struct agent *a)
{
	struct tlock_acquire arg = ask(0, "");

	agent_do(a, read_clock, &arg);
	return arg.timeout_ns;
}

/* In an agent: acquires, and measures how long that takes by its own clock. */
static int acquire_timed(int fd, struct tlock_acquire *arg)
{
	__s64 begun = now();
	int ret = acquire(fd, arg);

	arg->timeout_ns = now() - begun;
	return ret;
}

/*
 * Puts the future children of this process, but not itself, into a new time
 * namespace.
 */
static int offset_clock_of_children(__s64 offset_ns)
{
	__s64 seconds = offset_ns / SEC, ns = offset_ns % SEC;
	char offset[60];
	int fd, len;

	/* The nanoseconds of an offset cannot be negative */
	if (ns < 0) {
		seconds--;
		ns += SEC;
	}
	len = snprintf(offset, sizeof(offset), "monotonic %lld %lld\n", seconds,
		       ns);
	if (unshare(CLONE_NEWTIME))
		return -errno;
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, offset, len) != len)
		return -errno;
	return close(fd);
}

#define DAY	(24 * 3600 * SEC)

TEST_F(tlock, g5_since_ns_in_a_time_namespace)
{
	struct tlock_acquire arg = ask(50 * MSEC, "inside");
	__s64 before, after, their_before, their_after;
	struct tlock_holder ours, theirs;
	struct agent *inside;

	NEED_NAMESPACE("time");
	ASSERT_EQ(0, offset_clock_of_children(DAY));
	inside = agent();

	before = now();
	their_before = agent_now(inside);
	ASSERT_LE(before + DAY, their_before);
	take(self->fd, "outside");
	their_after = agent_now(inside);
	after = now();

	ours = look(self->fd).holder;
	EXPECT_LE(before, ours.since_ns);
	EXPECT_GE(after, ours.since_ns);
	theirs = agent_look(inside).holder;
	EXPECT_LE(their_before, theirs.since_ns);
	EXPECT_GE(their_after, theirs.since_ns);
	EXPECT_EQ(DAY, theirs.since_ns - ours.since_ns);
	EXPECT_EQ(theirs.since_ns, agent_fail(inside, 0).since_ns);
	EXPECT_EQ(theirs.since_ns, agent_fail(inside, MSEC).since_ns);
	/* A duration is the same everywhere */
	EXPECT_GT(DAY, agent_number(inside, SYSFS "/held_ns"));
	ASSERT_EQ(-ETIMEDOUT, agent_do(inside, acquire_timed, &arg));
	EXPECT_LE(50 * MSEC, arg.timeout_ns);
	EXPECT_GT(DAY, arg.timeout_ns);

	EXPECT_EQ(0, release(self->fd));
	EXPECT_EQ(0, agent_look(inside).holder.since_ns);
	agent_take(inside, "inside");
	EXPECT_GE(now(), look(self->fd).holder.since_ns);
	EXPECT_LE(their_after, agent_look(inside).holder.since_ns);
	EXPECT_EQ(0, agent_release(inside));
}

/* A grant from before a namespace's clock started */
static int agent_waiter(int fd, struct tlock_acquire *arg)
{
	struct tlock_waiter waiter = {};
	int ret = next_waiter(fd, &waiter);

	arg->timeout_ns = waiter.since_ns;
	return ret;
}

/* Takes the lock and watches itself */
static int agent_event(int fd, struct tlock_acquire *arg)
{
	int monitor = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct tlock_event event = {};
	__s64 begun = now();
	ssize_t ret;

	if (monitor < 0 || start_monitor(monitor) || acquire(fd, arg) ||
	    release(fd))
		return -EPROTO;
	ret = read_events(monitor, &event, sizeof(event));
	close(monitor);
	if (ret != sizeof(event))
		return -EPROTO;
	return event.time_ns < begun || event.time_ns > now() ? -ERANGE : 0;
}

TEST_F(tlock, g10_watching_in_a_time_namespace)
{
	struct tlock_acquire arg = ask(0, "inside");
	struct tlock_waiter waiter = {};
	struct agent *inside;
	int fd = contender();

	NEED_NAMESPACE("time");
	ASSERT_EQ(0, offset_clock_of_children(DAY));
	inside = agent();
	EXPECT_EQ(0, agent_do(inside, agent_event, &arg));
	take(self->fd, "outside");
	start_acquire(fd, FOREVER, "waiter");
	ASSERT_EQ(0, next_waiter(self->fd, &waiter));
	ASSERT_EQ(0, agent_do(inside, agent_waiter, &arg));
	EXPECT_EQ(waiter.since_ns + DAY, arg.timeout_ns);
	close(fd);
	ASSERT_EQ(0, release(self->fd));
}

TEST_F(tlock, g12_expires_ns_in_a_time_namespace)
{
	struct tlock_acquire arg = ask_lease(0, "outside", LONG);
	struct tlock_holder ours, theirs;
	struct agent *inside;
	__u64 token;

	NEED_NAMESPACE("time");
	ASSERT_EQ(0, offset_clock_of_children(DAY));
	inside = agent();
	/* A lease, the grace of a revocation, and neither */
	ASSERT_EQ(0, acquire(self->fd, &arg));
	token = arg.token;
	for (int i = 0; i < 2; i++) {
		ours = look(self->fd).holder;
		theirs = agent_look(inside).holder;
		EXPECT_EQ(DAY, theirs.expires_ns - ours.expires_ns);
		EXPECT_EQ(DAY, theirs.since_ns - ours.since_ns);
		theirs = agent_fail(inside, 0);
		EXPECT_EQ(DAY, theirs.expires_ns - ours.expires_ns);
		theirs = agent_fail(inside, 1);
		EXPECT_EQ(DAY, theirs.expires_ns - ours.expires_ns);
		ASSERT_EQ(0, agent_revoke(inside, token, LONG / 2));
	}
	EXPECT_EQ(TLOCK_LEASED | TLOCK_REVOKING, ours.flags);
	ASSERT_EQ(0, release(self->fd));
	take(self->fd, "outside");
	EXPECT_EQ(0, agent_look(inside).holder.expires_ns);
	EXPECT_EQ(0, agent_fail(inside, 0).expires_ns);
	EXPECT_EQ(0, agent_fail(inside, 1).expires_ns);
	/* Never is never */
	ASSERT_EQ(0, renew(self->fd, ~0ULL));
	EXPECT_EQ(INT64_MAX, agent_look(inside).holder.expires_ns);
	EXPECT_EQ(INT64_MAX, agent_fail(inside, 0).expires_ns);
	ASSERT_EQ(0, release(self->fd));
	EXPECT_EQ(0, agent_look(inside).holder.expires_ns);

	/* Its own lease lasts as long as anybody's */
	arg = ask_lease(0, "inside", LONG);
	ASSERT_EQ(0, agent_do(inside, acquire, &arg));
	ours = look(self->fd).holder;
	EXPECT_EQ(ours.since_ns + LONG, ours.expires_ns);
	EXPECT_EQ(ours.expires_ns + DAY, agent_look(inside).holder.expires_ns);
	ASSERT_EQ(0, agent_release(inside));
}

/*
 * Where a clock runs far behind, or has not even started, the end of a lease is
 * a time like any other; where it runs ahead, the end may be past all times.
 */
TEST_F(tlock, g12_expires_ns_is_never_wrapped)
{
	const __u64 long_leases[] = {
		INT64_MAX - now() - SEC, INT64_MAX - DAY, INT64_MAX / 2,
		INT64_MAX / 4 * 3, 1ULL << 63, ~0ULL,
	};
	struct agent *inside;
	__s64 expires;

	NEED_NAMESPACE("time");
	ASSERT_EQ(0, offset_clock_of_children(365 * DAY));
	inside = agent();
	take(self->fd, "outside");
	for (size_t i = 0; i < ARRAY_SIZE(long_leases); i++) {
		ASSERT_EQ(0, renew(self->fd, long_leases[i]));
		expires = agent_look(inside).holder.expires_ns;
		EXPECT_LE(INT64_MAX / 2, expires) {
			TH_LOG("a lease of %llu ns", long_leases[i]);
		}
	}
	ASSERT_EQ(0, release(self->fd));
}

/*
 * The root user of a user namespace may revoke the grants of the users that he
 * is to the host, and nobody else's.
 */
TEST_F(tlock, g12_revoke_in_a_user_namespace)
{
	struct tlock_acquire host_user = ask(HOST_UID, "");
	struct agent *inside, *outside = agent();
	__u64 token;

	NEED_NAMESPACE("user");
	inside = agent_in_user_namespace();
	ASSERT_NE(NULL, inside);
	/* The host's root user: the same number inside is another user */
	token = take(self->fd, "outside");
	EXPECT_EQ(-EPERM, agent_revoke(inside, token, 0));
	EXPECT_EQ(-EPERM, agent_revoke(inside, token, LONG));
	EXPECT_EQ(0, look(self->fd).holder.flags);
	EXPECT_EQ(-ESTALE, agent_revoke(inside, token - 1, 0));
	EXPECT_EQ(0, release(self->fd));

	/* The same user, by another name, in both directions */
	ASSERT_EQ(0, agent_do(outside, become, &host_user));
	token = agent_take(outside, "outside");
	EXPECT_EQ(0, agent_revoke(inside, token, 0));
	EXPECT_EQ(-ESTALE, agent_release(outside));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->fd);
	token = agent_take(inside, "inside");
	EXPECT_EQ(0, agent_revoke(outside, token, 0));
	EXPECT_EQ(-ESTALE, agent_release(inside));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->fd);
	/* And the host's root user may anyway */
	token = agent_take(inside, "inside");
	EXPECT_EQ(0, revoke_grant(self->fd, token, 0));
	EXPECT_EQ(-ESTALE, agent_release(inside));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->fd);
}

/* A pid namespace hides the holder, and does not protect it. */
TEST_F(tlock, g12_revoke_across_pid_namespaces)
{
	struct agent *inside;
	__u64 token;

	NEED_NAMESPACE("pid");
	inside = agent_in(CLONE_NEWPID);
	token = take(self->fd, "outside");
	EXPECT_EQ(0, agent_look(inside).holder.pid);
	EXPECT_EQ(0, agent_revoke(inside, token, 0));
	EXPECT_EQ(-ESTALE, release(self->fd));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->fd);
	token = agent_take(inside, "inside");
	EXPECT_EQ(0, revoke_grant(self->fd, token, 0));
	EXPECT_EQ(-ESTALE, agent_release(inside));
	EXPECT_NEXT_LEARNS(TLOCK_REVOKED, self->fd);
}

TEST_F(tlock, g5_since_ns_is_negative_before_the_clock_started)
{
	struct tlock_holder ours, theirs;
	struct agent *inside;
	__s64 started;

	NEED_NAMESPACE("time");
	take(self->fd, "outside");
	ours = look(self->fd).holder;
	started = ours.since_ns + 5 * MSEC;
	while (now() <= started)
		usleep(1000);
	ASSERT_EQ(0, offset_clock_of_children(-started));
	inside = agent();

	ASSERT_LE(0, agent_now(inside));
	theirs = agent_look(inside).holder;
	EXPECT_EQ(-5 * MSEC, theirs.since_ns);
	EXPECT_EQ(-5 * MSEC, agent_fail(inside, 0).since_ns);
	EXPECT_LT(5 * MSEC, agent_number(inside, SYSFS "/held_ns"));
	/* All other fields are the same for everybody */
	theirs.since_ns = ours.since_ns;
	EXPECT_EQ(0, memcmp(&ours, &theirs, sizeof(ours)));
	EXPECT_EQ(0, release(self->fd));
}

TEST_HARNESS_MAIN
