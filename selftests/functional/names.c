// SPDX-License-Identifier: GPL-2.0-only
/*
 * Named locks: which names are valid, how a lock is created and deleted, what
 * remains of a deleted lock, and that locks are independent of each other.
 * loader.c tests the locks that are created when the module is loaded, faults.c
 * failing allocations, and namespaces.c containers.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

#include "tlock_test.h"

#define LONGEST		121	/* bytes in a name */
#define LIMIT		4096	/* locks */

/* Tests begin and end with the first lock as the only one. */
FIXTURE(names)
{
	int fd;				/* the first lock */
	struct tlock_status before;
	__s64 clock_ahead;		/* of CLOCK_MONOTONIC */
};

static __s64 clock_ahead(void)
{
	return wall_clock_us() * USEC - now();
}

static void set_clock_ahead(__s64 ahead)
{
	__s64 then = now() + ahead;
	struct timespec ts = {
		.tv_sec = then / SEC,
		.tv_nsec = then % SEC,
	};

	if (clock_settime(CLOCK_REALTIME, &ts))
		die("cannot set the clock");
}

FIXTURE_SETUP(names)
{
	/* A test that failed may have left some */
	locks_delete();
	ASSERT_EQ(1, locks_count());
	self->fd = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
	self->clock_ahead = clock_ahead();
}

FIXTURE_TEARDOWN(names)
{
	/* Set by a test, and not just adjusted by the host */
	if (llabs(clock_ahead() - self->clock_ahead) > 60 * SEC)
		set_clock_ahead(self->clock_ahead);
	close(self->fd);
	EXPECT_LEFT_FREE();
	EXPECT_EQ(1, locks_count());
}

/* The lock exists, everywhere, and works. */
#define EXPECT_LOCK(lock) do {						\
	const char *__name = (lock);					\
	int __lock = contender_of(__name);				\
	struct stat __node;						\
	char __text[160];						\
									\
	snprintf(__text, sizeof(__text), "tlock-%s", __name);		\
	EXPECT_STREQ(__text, look(__lock).name);			\
	ASSERT_EQ(0, fstat(__lock, &__node));				\
	snprintf(__text, sizeof(__text), "%u:%u",			\
		 major(__node.st_rdev), minor(__node.st_rdev));		\
	EXPECT_STREQ(__text, read_text(lock_sysfs(__name, "dev")));	\
	take(__lock, "holder");						\
	EXPECT_STREQ("holder", read_text(lock_sysfs(__name, "job")));	\
	EXPECT_EQ(0, release(__lock));					\
	close(__lock);							\
} while (0)

#define EXPECT_NO_LOCK(lock)	EXPECT_FALSE(lock_exists(lock))

/* What may be in a name, and what it may begin with */
#define FIRST	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define OTHERS	FIRST "#+-.:=@_"

/* Every byte as the first one, and as a later one */
TEST_F_TIMEOUT(names, each_byte, 300)
{
	for (int byte = 0; byte < 256; byte++) {
		char first[3] = { byte, 'x' }, second[3] = { 'x', byte };
		bool newline = byte == '\n';

		if (byte && strchr(FIRST, byte)) {
			ASSERT_EQ(0, write_bytes(NEW_LOCK, first, 2));
			EXPECT_LOCK(first);
			ASSERT_EQ(0, write_bytes(DELETE_LOCK, first, 2));
			EXPECT_NO_LOCK(first);
		} else {
			EXPECT_EQ(-EINVAL, write_bytes(NEW_LOCK, first, 2)) {
				TH_LOG("first byte %#x", byte);
			}
			EXPECT_EQ(-EINVAL, write_bytes(DELETE_LOCK, first, 2));
		}
		/* A newline ends the name "x" */
		if (newline)
			second[1] = 0;
		if (newline || (byte && strchr(OTHERS, byte))) {
			ASSERT_EQ(0, write_bytes(NEW_LOCK, second,
						 newline ? 1 : 2));
			EXPECT_LOCK(second);
			ASSERT_EQ(0, write_bytes(DELETE_LOCK, second,
						 newline ? 1 : 2));
			EXPECT_NO_LOCK(second);
		} else {
			EXPECT_EQ(-EINVAL, write_bytes(NEW_LOCK, second, 2)) {
				TH_LOG("second byte %#x", byte);
			}
			EXPECT_EQ(-EINVAL, write_bytes(DELETE_LOCK, second, 2));
		}
		ASSERT_EQ(1, locks_count());
	}
}

TEST_F(names, good_ones)
{
	static const char *const names[] = {
		"x", "psu", "usb-FTDI_FT232R_USB_UART_A10K3ZQX-if00-port0",
		"a..", "4", "a-", "new_lock", "tloc", "tlocks", "tlock_x",
		"tlock.x", "Tlock", "TLOCK-x", "x-tlock-",
	};
	char name[LONGEST + 2] = "", device[TLOCK_NAME_SIZE];
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		ASSERT_EQ(0, lock_create(names[i])) {
			TH_LOG("%s", names[i]);
		}
		EXPECT_LOCK(names[i]);
		EXPECT_EQ(2, locks_count());
		ASSERT_EQ(0, lock_delete(names[i]));
		EXPECT_NO_LOCK(names[i]);
	}

	/* The longest name, with its newline */
	memset(name, 'x', LONGEST);
	name[LONGEST] = '\n';
	ASSERT_EQ(0, lock_create(name));
	name[LONGEST] = 0;
	EXPECT_LOCK(name);
	/* It fills the structure, up to the NUL */
	fd = contender_of(name);
	memcpy(device, look(fd).name, sizeof(device));
	EXPECT_EQ(sizeof(device) - 1, strnlen(device, sizeof(device)));
	close(fd);
	name[LONGEST] = '\n';
	ASSERT_EQ(0, lock_delete(name));
}

TEST_F(names, bad_ones)
{
	static const struct {
		const char *bytes;
		size_t len;
	} names[] = {
#define BYTES(text) { text, sizeof(text) - 1 }
		BYTES("\n"), BYTES("\n\n"), BYTES("x\n\n"), BYTES("\nx"),
		BYTES("x\ny"), BYTES("x\r\n"), BYTES(" x"), BYTES("x "),
		BYTES("\0"), BYTES("x\0"), BYTES("x\0\n"), BYTES("x\0y"),
		BYTES("."), BYTES(".."), BYTES("../x"), BYTES("x/y"),
		BYTES("-x"), BYTES("_x"), BYTES("x,y"), BYTES("x!y"),
		BYTES("x%p"), BYTES("\xc3\xa9"), BYTES("x\xc3\xa9"),
		/* User space takes these for names of devices */
		BYTES("tlock"), BYTES("tlock\n"), BYTES("tlock-"),
		BYTES("tlock-x"), BYTES("tlock-x\n"),
#undef BYTES
	};
	static char many[3 * 4096];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		EXPECT_EQ(-EINVAL, write_bytes(NEW_LOCK, names[i].bytes,
					       names[i].len)) {
			TH_LOG("name %zu: %s", i, names[i].bytes);
		}
		EXPECT_EQ(-EINVAL, write_bytes(NEW_GATED_LOCK, names[i].bytes,
					       names[i].len));
		EXPECT_EQ(-EINVAL, write_bytes(DELETE_LOCK, names[i].bytes,
					       names[i].len));
	}
	/* Too long, by one byte or by more than the kernel looks at */
	memset(many, 'x', sizeof(many));
	for (size_t len = LONGEST + 1; len < sizeof(many); len += len / 2) {
		EXPECT_EQ(-EINVAL, write_bytes(NEW_LOCK, many, len));
		EXPECT_EQ(-EINVAL, write_bytes(NEW_GATED_LOCK, many, len));
		EXPECT_EQ(-EINVAL, write_bytes(DELETE_LOCK, many, len));
	}
	many[1] = '\n';
	EXPECT_EQ(-EINVAL, write_bytes(NEW_LOCK, many, sizeof(many)));
	/* Linux passes on no empty writes */
	EXPECT_EQ(0, write_bytes(NEW_LOCK, "", 0));
	EXPECT_EQ(1, locks_count());
}

TEST_F(names, existing_and_missing)
{
	struct tlock_status st;
	__u64 token;
	int fd;

	EXPECT_EQ(-ENOENT, lock_delete("psu"));
	ASSERT_EQ(0, lock_create("psu"));
	fd = contender_of("psu");
	token = take(fd, "holder");
	st = look(fd);

	/* The lock that exists is not affected */
	EXPECT_EQ(-EEXIST, lock_create("psu"));
	EXPECT_EQ(-EEXIST, lock_create("psu\n"));
	EXPECT_EQ(token, look(fd).holder.token);
	EXPECT_EQ(0, release(fd));
	EXPECT_EQ(st.acquired, look(fd).acquired);
	close(fd);
	/* Names are compared in full, and capitals count */
	EXPECT_EQ(-ENOENT, lock_delete("ps"));
	EXPECT_EQ(-ENOENT, lock_delete("psu2"));
	EXPECT_EQ(-ENOENT, lock_delete("PSU"));
	ASSERT_EQ(0, lock_create("ps"));
	ASSERT_EQ(0, lock_create("PSU"));
	EXPECT_EQ(4, locks_count());

	ASSERT_EQ(0, lock_delete("psu"));
	EXPECT_EQ(-ENOENT, lock_delete("psu"));
	EXPECT_LOCK("ps");
	EXPECT_LOCK("PSU");
	ASSERT_EQ(0, lock_delete("ps"));
	ASSERT_EQ(0, lock_delete("PSU"));
}

/* No name leads to the first lock, which lasts as long as the module. */
TEST_F(names, first_lock_stays)
{
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);

	close(self->fd);
	EXPECT_EQ(-EINVAL, lock_delete("tlock"));
	EXPECT_TRUE(exists(DEVICE));
	EXPECT_STREQ("tlock", look(fd).name);
	close(fd);
	self->fd = contender();
}

/* In an agent: the errors of an unprivileged user */
static int change_as_nobody(int fd, struct tlock_acquire *arg)
{
	if (setegid(65534) || seteuid(65534))
		return -errno;
	arg->timeout_ns = lock_create("forged");
	arg->lease_ns = lock_create_gated("forged");
	return lock_delete("psu");
}

TEST_F(names, permissions)
{
	static const char *const files[] = {
		NEW_LOCK, NEW_GATED_LOCK, DELETE_LOCK,
	};
	struct tlock_acquire arg = ask(0, "");
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		ASSERT_EQ(0, stat(files[i], &st));
		EXPECT_EQ(S_IFREG | 0200, st.st_mode);
		EXPECT_EQ(0, st.st_uid);
		EXPECT_EQ(0, st.st_gid);
	}
	ASSERT_EQ(0, lock_create("psu"));
	EXPECT_EQ(-EACCES, agent_do(agent(), change_as_nobody, &arg));
	EXPECT_EQ(-EACCES, arg.timeout_ns);
	EXPECT_EQ(-EACCES, (__s64)arg.lease_ns);
	EXPECT_EQ(2, locks_count());

	/* The host's own rules may set another group */
	ASSERT_EQ(0, stat(lock_path("psu"), &st));
	EXPECT_EQ(S_IFCHR | 0644, st.st_mode & ~0020);
	ASSERT_EQ(0, stat(lock_sysfs("psu", "job"), &st));
	EXPECT_EQ(S_IFREG | 0444, st.st_mode);
	ASSERT_EQ(0, stat(lock_sysfs("psu", "stats/acquired"), &st));
	EXPECT_EQ(S_IFREG | 0444, st.st_mode);
	ASSERT_EQ(0, lock_delete("psu"));
}

/* A file that is open for writing is in the way of a deletion. */
#define EXPECT_IN_USE(lock) do {					\
	EXPECT_EQ(-EBUSY, lock_delete(lock));				\
	/* Others can still open it */					\
	EXPECT_LOCK(lock);						\
} while (0)

TEST_F(names, deletion_meets_writers)
{
	static const int flags[] = { O_RDWR, O_WRONLY };
	int fd, copy, pair[2];
	struct agent *child;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		ASSERT_EQ(0, lock_create("psu"));
		fd = lock_open("psu", flags[i]);
		ASSERT_LE(0, fd);
		EXPECT_IN_USE("psu");
		/* It makes no difference whether the file is idle */
		take(fd, "holder");
		EXPECT_EQ(-EBUSY, lock_delete("psu"));
		EXPECT_STREQ("holder", look(fd).holder.job);
		copy = dup(fd);
		close(fd);
		EXPECT_EQ(-EBUSY, lock_delete("psu"));
		EXPECT_STREQ("holder", look(copy).holder.job);
		EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ, MAP_SHARED,
					   copy, 0));
		close(copy);
		ASSERT_EQ(0, lock_delete("psu"));
	}

	/* A child that inherited the file */
	ASSERT_EQ(0, lock_create("psu"));
	fd = contender_of("psu");
	child = agent_sharing(fd);
	close(fd);
	EXPECT_IN_USE("psu");
	agent_kill(child);
	ASSERT_EQ(0, lock_delete("psu"));

	/* A file on its way to another process */
	ASSERT_EQ(0, lock_create("psu"));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fd = contender_of("psu");
	send_fd(pair[0], fd);
	close(fd);
	EXPECT_IN_USE("psu");
	fd = recv_fd(pair[1]);
	EXPECT_IN_USE("psu");
	close(fd);
	ASSERT_EQ(0, lock_delete("psu"));
	close(pair[0]);
	close(pair[1]);
}

/* A call keeps its file open, even if it has no descriptor any more. */
TEST_F(names, deletion_meets_call)
{
	struct call *waiter, *hogger;
	int fd;

	if (!can_hold_back())
		SKIP(return, "this needs two CPUs");
	ASSERT_EQ(0, lock_create("psu"));
	fd = contender_of("psu");
	take(fd, "holder");
	waiter = call(contender_of("psu"), acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(fd, 1));
	close(waiter->fd);
	hogger = hold_back(waiter);
	/* This hands the lock to the waiter, whose call cannot return yet */
	close(fd);
	EXPECT_EQ(-EBUSY, lock_delete("psu"));
	EXPECT_STREQ("waiter", read_text(lock_sysfs("psu", "job")));
	let_run(hogger);
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(TLOCK_ABANDONED, waiter->arg->result);
	EXPECT_EQ(0, lock_delete("psu"));
}

/* These open no file for writing. */
TEST_F(names, deletion_meets_readers)
{
	static const int flags[] = { O_RDONLY, O_PATH, O_ACCMODE };
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		ASSERT_EQ(0, lock_create("psu"));
		fd = lock_open("psu", flags[i]);
		ASSERT_LE(0, fd);
		EXPECT_EQ(0, lock_delete("psu"));
		EXPECT_NO_LOCK("psu");
		close(fd);
	}
	/* This open fails after the module's part of it */
	ASSERT_EQ(0, lock_create("psu"));
	EXPECT_EQ(-EINVAL, lock_open("psu", O_RDWR | O_DIRECT));
	EXPECT_EQ(0, lock_delete("psu"));
}

static int flock_shared(int fd)
{
	return flock(fd, LOCK_SH) ? -errno : 0;
}

/* A file that was opened for reading outlives the lock, and knows it. */
TEST_F(names, deleted_lock)
{
	struct tlock_acquire arg = ask(0, "late"), before = arg;
	struct tlock_status st;
	char link[40], text[80];
	int fd, job, stats, again;
	__u64 number;

	ASSERT_EQ(0, lock_create("psu"));
	fd = lock_open("psu", O_RDONLY);
	ASSERT_LE(0, fd);
	job = open(lock_sysfs("psu", "job"), O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, job);
	stats = open(lock_sysfs("psu", "stats/acquired"),
		     O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, stats);
	EXPECT_EQ(-EBADF, acquire(fd, &arg));
	ASSERT_EQ(0, lock_delete("psu"));
	EXPECT_NO_LOCK("psu");
	EXPECT_EQ(-ENOENT, lock_open("psu", O_RDONLY));
	EXPECT_EQ(-ENOENT, lock_open("psu", O_RDWR));

	for (int i = 0; i < 2; i++) {
		EXPECT_EQ(-ENODEV, status(fd, &st));
		EXPECT_EQ(-ENODEV, status(fd, NULL));
		EXPECT_EQ(-ENODEV, acquire(fd, &arg));
		EXPECT_EQ(-ENODEV, reacquire(fd, &arg));
		EXPECT_EQ(-ENODEV, acquire(fd, NULL));
		EXPECT_EQ(-ENODEV, reacquire(fd, NULL));
		EXPECT_EQ(0, memcmp(&before, &arg, sizeof(arg)));
		EXPECT_EQ(-ENODEV, flock_wait(fd, NULL));
		EXPECT_EQ(-ENODEV, flock_try(fd, NULL));
		/* It neither holds nor waits, as ever */
		EXPECT_EQ(-EPERM, release(fd));
		EXPECT_EQ(0, flock_end(fd, NULL));
		EXPECT_EQ(-EOPNOTSUPP, flock_shared(fd));
		EXPECT_STREQ("idle", state_of(fd, &number));
		EXPECT_EQ(-1, pread(job, text, sizeof(text), 0));
		EXPECT_EQ(ENODEV, errno);
		EXPECT_EQ(-1, pread(stats, text, sizeof(text), 0));
		EXPECT_EQ(ENODEV, errno);
		/* Its device cannot be opened again */
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		EXPECT_EQ(-1, open(link, O_RDONLY | O_CLOEXEC));
		EXPECT_EQ(ENXIO, errno);
		EXPECT_EQ(-1, open(link, O_RDWR | O_CLOEXEC));
		EXPECT_EQ(ENXIO, errno);
		/* And once more while a lock of that name exists */
		if (!i)
			ASSERT_EQ(0, lock_create("psu"));
	}
	EXPECT_LOCK("psu");
	again = contender_of("psu");
	take(again, "holder");
	EXPECT_EQ(-ENODEV, status(fd, &st));
	close(fd);
	EXPECT_STREQ("holder", look(again).holder.job);
	close(again);
	close(job);
	close(stats);
	ASSERT_EQ(0, lock_delete("psu"));
}

/* A lock that is created again has forgotten everything but the tokens. */
TEST_F(names, created_again)
{
	struct tlock_status nothing = { .name = "tlock-psu" }, st;
	struct tlock_acquire arg = ask(0, "first");
	__u64 token, before;
	int fd;

	ASSERT_EQ(0, lock_create("psu"));
	fd = contender_of("psu");
	st = look(fd);
	EXPECT_EQ(0, memcmp(&nothing, &st, sizeof(st)));
	token = take(fd, "forgotten");
	/* It is abandoned, too */
	close(fd);
	ASSERT_EQ(0, lock_delete("psu"));

	before = wall_clock_us();
	ASSERT_EQ(0, lock_create("psu"));
	fd = contender_of("psu");
	st = look(fd);
	EXPECT_EQ(0, memcmp(&nothing, &st, sizeof(st)));
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(0, arg.result);
	EXPECT_LT(token, arg.token);
	EXPECT_LE(before + 1, arg.token);
	EXPECT_GE(wall_clock_us(), arg.token);
	EXPECT_EQ(0, release(fd));
	close(fd);
	ASSERT_EQ(0, lock_delete("psu"));
}

/* In a new or the only contender of a lock */
static __u64 token_of(const char *name)
{
	int fd = contender_of(name);
	__u64 token = take(fd, "holder");

	release(fd);
	close(fd);
	return token;
}

#define DAY	(86400 * SEC)

TEST_F(names, g8_tokens_grow_while_the_clock_does_not)
{
	__u64 psu, psu2, pump;

	ASSERT_EQ(0, lock_create("psu"));
	token_of("psu");
	psu = token_of("psu");
	set_clock_ahead(self->clock_ahead - DAY);
	/* This name is new, so its tokens may be smaller */
	ASSERT_EQ(0, lock_create("pump"));
	pump = token_of("pump");
	EXPECT_GT(psu, pump);

	/* The deletion of another lock since does not matter */
	ASSERT_EQ(0, lock_delete("psu"));
	ASSERT_EQ(0, lock_delete("pump"));
	ASSERT_EQ(0, lock_create("psu"));
	psu2 = token_of("psu");
	EXPECT_LT(psu, psu2);

	/* Nor does it if no token of a lock was given */
	ASSERT_EQ(0, lock_delete("psu"));
	ASSERT_EQ(0, lock_create("psu"));
	ASSERT_EQ(0, lock_delete("psu"));
	ASSERT_EQ(0, lock_create("psu"));
	EXPECT_LT(psu2, token_of("psu"));
	ASSERT_EQ(0, lock_create("pump"));
	EXPECT_LT(pump, token_of("pump"));
	ASSERT_EQ(0, lock_delete("psu"));
	ASSERT_EQ(0, lock_delete("pump"));
	/* The first lock is as before */
	EXPECT_STREQ("tlock", look(self->fd).name);
}

static dev_t number_of(const char *name)
{
	struct stat node;

	if (stat(lock_path(name), &node))
		die("there is no %s", lock_path(name));
	return node.st_rdev;
}

/* Shuts or opens the gate of a lock, with tokens from @first on */
static void set_gate(int daemon, __u64 opening, __s64 ns, __u64 first)
{
	struct tlock_gate arg = {
		.op = TLOCK_GATE_SET,
		.opening = opening,
		.until_ns = boottime() + ns,
		.first_token = first,
		.last_token = UINT64_MAX,
	};

	if (gate(daemon, &arg))
		die("cannot set the gate");
}

/* A name is free for a lock of either kind, and what it had been is forgotten. */
TEST_F(names, gated_and_not)
{
	int fd, daemon;
	__u64 token;

	ASSERT_EQ(0, lock_create("psu"));
	EXPECT_EQ(-EEXIST, lock_create_gated("psu"));
	EXPECT_EQ(-EEXIST, lock_create_gated("psu\n"));
	EXPECT_STREQ("", read_text(lock_sysfs("psu", "gate")));
	EXPECT_LOCK("psu");
	fd = contender_of("psu");
	EXPECT_EQ(0, look(fd).flags);
	close(fd);
	ASSERT_EQ(0, lock_delete("psu"));

	/* Their tokens come from the daemon: small ones, and then large ones */
	ASSERT_EQ(0, lock_create_gated("psu"));
	EXPECT_EQ(-EEXIST, lock_create("psu"));
	EXPECT_EQ(-EEXIST, lock_create_gated("psu"));
	EXPECT_EQ(2, locks_count());
	daemon = daemon_of("psu");
	set_gate(daemon, 1, LONG, 5);
	fd = contender_of("psu");
	EXPECT_EQ(5, take(fd, "holder"));
	EXPECT_EQ(-EBUSY, lock_delete("psu"));
	EXPECT_EQ(0, release(fd));
	token = wall_clock_us() + 5 * SEC / USEC;
	set_gate(daemon, 1, LONG, token);
	EXPECT_EQ(token, take(fd, "holder"));
	EXPECT_EQ(0, release(fd));
	close(fd);
	ASSERT_EQ(0, lock_delete("psu"));
	close(daemon);

	/* Without a gate, they grow beyond that, as the daemon is not asked */
	ASSERT_EQ(0, lock_create("psu"));
	EXPECT_LT(token, token_of("psu"));
	ASSERT_EQ(0, lock_delete("psu"));
	ASSERT_EQ(0, lock_create_gated("psu"));
	daemon = daemon_of("psu");
	set_gate(daemon, 1, LONG, 6);
	EXPECT_EQ(6, token_of("psu"));
	close(daemon);
	ASSERT_EQ(0, lock_delete("psu"));
	EXPECT_NO_LOCK("psu");
	/* Other tests expect tokens that are not ahead of the clock */
	while (wall_clock_us() <= token)
		usleep(10000);
}

/* A device file that outlived its lock never leads to another one. */
TEST_F(names, stale_device_file)
{
	static const char opened[] = DEVICE "-selftest-opened";
	static const char closed[] = DEVICE "-selftest";
	char name[16];
	dev_t stale;
	int fd;

	ASSERT_EQ(0, lock_create("psu"));
	stale = number_of("psu");
	ASSERT_EQ(0, mknod(opened, S_IFCHR | 0600, stale));
	ASSERT_EQ(0, mknod(closed, S_IFCHR | 0600, stale));
	/* It leads to the lock, which says its own name */
	fd = open(opened, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_STREQ("tlock-psu", look(fd).name);
	EXPECT_EQ(-EBUSY, lock_delete("psu"));
	close(fd);
	/* A file that is open for reading keeps the inode's link to the lock */
	fd = open(opened, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, lock_delete("psu"));

	for (int i = 0; i < 100; i++) {
		/* In turn: the same lock, and others that stay */
		snprintf(name, sizeof(name), i % 2 ? "psu%d" : "psu", i);
		ASSERT_EQ(0, lock_create(name));
		EXPECT_NE(stale, number_of(name));
		EXPECT_EQ(-1, open(opened, O_RDWR | O_CLOEXEC));
		EXPECT_EQ(ENXIO, errno);
		EXPECT_EQ(-1, open(opened, O_RDONLY | O_CLOEXEC));
		EXPECT_EQ(ENXIO, errno);
		if (i % 2 == 0)
			ASSERT_EQ(0, lock_delete(name));
	}
	close(fd);
	/* Linux forgets the link, and looks for a driver with that number */
	EXPECT_EQ(-1, open(opened, O_RDWR | O_CLOEXEC));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(-1, open(closed, O_RDWR | O_CLOEXEC));
	EXPECT_EQ(ENXIO, errno);
	locks_delete();
	EXPECT_EQ(0, unlink(opened));
	EXPECT_EQ(0, unlink(closed));
}

/* Two locks: each contender and each counter belongs to one. */
FIXTURE(two)
{
	int first, a, b;
	struct tlock_status first_before, b_before;
};

FIXTURE_SETUP(two)
{
	locks_delete();
	ASSERT_EQ(0, lock_create("a"));
	ASSERT_EQ(0, lock_create("b"));
	self->first = contender();
	self->a = contender_of("a");
	self->b = contender_of("b");
	self->first_before = look(self->first);
	self->b_before = look(self->b);
}

FIXTURE_TEARDOWN(two)
{
	close(self->first);
	close(self->a);
	close(self->b);
	EXPECT_LEFT_FREE();
	EXPECT_EQ(0, lock_delete("a"));
	EXPECT_EQ(0, lock_delete("b"));
	EXPECT_EQ(1, locks_count());
}

TEST_F(two, have_a_holder_each)
{
	struct tlock_acquire arg = ask(0, "holder of b");
	struct tlock_status st;
	__u64 token;

	token = take(self->a, "holder of a");
	/* It waits for nobody, so it would not matter how long */
	ASSERT_EQ(0, acquire(self->b, &arg));
	take(self->first, "holder of the first");
	st = look(self->a);
	EXPECT_STREQ("holder of a", st.holder.job);
	EXPECT_EQ(token, st.holder.token);
	EXPECT_STREQ("holder of b", look(self->b).holder.job);
	EXPECT_STREQ("holder of the first", look(self->first).holder.job);
	EXPECT_STREQ("holder of a", read_text(lock_sysfs("a", "job")));
	EXPECT_STREQ("holder of b", read_text(lock_sysfs("b", "job")));
	EXPECT_STREQ("holder of the first", sysfs_text("job"));
	/* Nobody waits: the reacquire keeps the lock */
	EXPECT_EQ(0, reacquire(self->a, &arg));
	EXPECT_EQ(token, arg.token);
	EXPECT_EQ(0, release(self->first));
	EXPECT_EQ(0, release(self->b));
	EXPECT_STREQ("holder of b", look(self->a).holder.job);
	EXPECT_EQ(0, release(self->a));
}

TEST_F(two, wake_their_own_waiters)
{
	struct call *waiter, *other;
	int fd = contender_of("b");
	unsigned long slept;

	take(self->a, "holder");
	waiter = call(contender_of("a"), acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->a, 1));
	ASSERT_TRUE(await_asleep(waiter->tid));
	slept = sleeps(waiter->tid);

	for (int i = 0; i < 10; i++) {
		/* A hand-over on the other lock, and on the first */
		take(self->b, "holder");
		other = call(fd, acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->b, 1));
		EXPECT_EQ(1, look(self->a).waiters);
		ASSERT_EQ(0, release(self->b));
		ASSERT_EQ(0, result(other));
		ASSERT_EQ(0, release(fd));
		take(self->first, "holder");
		ASSERT_EQ(0, release(self->first));
	}
	EXPECT_EQ(1, look(self->a).waiters);
	EXPECT_STREQ("holder", look(self->a).holder.job);
	EXPECT_EQ(slept, sleeps(waiter->tid));
	ASSERT_EQ(0, release(self->a));
	ASSERT_EQ(0, result(waiter));
	EXPECT_EQ(0, release(waiter->fd));
	close(waiter->fd);
	close(fd);
}

TEST_F(two, have_counters_of_their_own)
{
	struct tlock_acquire arg;
	struct tlock_status st;
	struct call *waiter;
	int fd = contender_of("a");

	/* All that the counters count */
	take(self->a, "holder");
	arg = ask(MSEC, "times out");
	EXPECT_EQ(-ETIMEDOUT, acquire(fd, &arg));
	handle_usr1(0);
	waiter = call(fd, acquire, FOREVER, "is interrupted");
	ASSERT_TRUE(await_waiters(self->a, 1));
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	ASSERT_EQ(0, release(fd));
	waiter = call(fd, acquire, FOREVER, "waits");
	ASSERT_TRUE(await_waiters(self->a, 1));
	arg = ask(MSEC, "");
	EXPECT_EQ(-ETIMEDOUT, reacquire(self->a, &arg));
	ASSERT_EQ(0, result(waiter));
	close(fd);

	st = look(self->a);
	EXPECT_EQ(2, st.acquired);
	EXPECT_EQ(3, st.contended);
	EXPECT_EQ(2, st.timed_out);
	EXPECT_EQ(1, st.interrupted);
	EXPECT_EQ(1, st.abandoned);
	EXPECT_EQ(1, st.yielded);
	EXPECT_LT(0, st.wait_ns_total);
	EXPECT_LT(0, st.hold_ns_total);
	EXPECT_EQ(2, read_number(lock_sysfs("a", "stats/acquired")));
	EXPECT_EQ(0, read_number(lock_sysfs("b", "stats/acquired")));
	st = look(self->b);
	EXPECT_EQ(0, memcmp(&self->b_before, &st, sizeof(st)));
	st = look(self->first);
	EXPECT_EQ(0, memcmp(&self->first_before, &st, sizeof(st)));
	/* What b's next holder learns is b's own, too */
	arg = ask(0, "holder");
	ASSERT_EQ(0, acquire(self->b, &arg));
	EXPECT_EQ(0, arg.result);
	arg = ask(0, "holder");
	ASSERT_EQ(0, acquire(self->a, &arg));
	EXPECT_EQ(TLOCK_ABANDONED, arg.result);
	EXPECT_EQ(0, release(self->a));
	EXPECT_EQ(0, release(self->b));
}

/* A ticket is of one lock's queue. */
TEST_F(two, have_tickets_of_their_own)
{
	struct tlock_acquire arg;
	struct call *waiter;
	int fd = contender_of("a");

	take(self->a, "holder");
	handle_usr1(0);
	waiter = call(fd, acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(self->a, 1));
	send_signal(waiter, SIGUSR1);
	ASSERT_EQ(-EINTR, result(waiter));
	arg = *waiter->arg;
	EXPECT_EQ(-ECANCELED, acquire(self->b, &arg));
	EXPECT_STREQ("away", state_of(fd, NULL));
	ASSERT_EQ(0, release(self->a));
	arg = *waiter->arg;
	ASSERT_EQ(0, acquire(fd, &arg));
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/* A process is a holder of several locks, in a child, and as it dies. */
TEST_F(two, are_shared_and_abandoned_by_one_process)
{
	struct tlock_acquire arg;
	struct agent *child;
	int fds[3] = { contender(), contender_of("a"), contender_of("b") };
	int own[3] = { self->first, self->a, self->b };
	pid_t pid;

	child = agent_sharing(fds[1]);
	take(fds[1], "holder");
	/* Either may release it */
	EXPECT_EQ(0, agent_release(child));
	agent_take(child, "child");
	EXPECT_EQ(0, release(fds[1]));
	agent_kill(child);
	for (int i = 0; i < 3; i++)
		close(fds[i]);

	pid = fork();
	if (!pid) {
		take(contender(), "mortal");
		take(contender_of("a"), "mortal");
		take(contender_of("b"), "mortal");
		while (true)
			pause();
	}
	ASSERT_TRUE(await_acquired(self->b, self->b_before.acquired + 1));
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(pid, look(own[i]).holder.pid);
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	for (int i = 0; i < 3; i++) {
		arg = ask(0, "heir");
		ASSERT_EQ(0, acquire(own[i], &arg));
		EXPECT_EQ(TLOCK_ABANDONED, arg.result);
		EXPECT_EQ(0, release(own[i]));
	}
}

#define MANY	100

TEST_F(names, many_at_once)
{
	char name[16], job[16];
	int fds[MANY];

	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "psu%d", i);
		ASSERT_EQ(0, lock_create(name));
		fds[i] = contender_of(name);
		snprintf(job, sizeof(job), "job %d", i);
		take(fds[i], job);
	}
	EXPECT_EQ(MANY + 1, locks_count());
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "psu%d", i);
		snprintf(job, sizeof(job), "job %d", i);
		EXPECT_STREQ(job, look(fds[i]).holder.job);
		EXPECT_STREQ(job, read_text(lock_sysfs(name, "job")));
		EXPECT_EQ(1, look(fds[i]).acquired);
	}
	for (int i = 0; i < MANY; i++) {
		EXPECT_EQ(0, release(fds[i]));
		close(fds[i]);
	}
	locks_delete();
}

TEST_F_TIMEOUT(names, limit, 400)
{
	char name[16];

	/* The first lock counts, too */
	for (int i = 1; i < LIMIT; i++) {
		snprintf(name, sizeof(name), "psu%d", i);
		ASSERT_EQ(0, lock_create(name)) {
			TH_LOG("%s", name);
		}
	}
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(-ENOSPC, lock_create("one-more"));
		EXPECT_EQ(-ENOSPC, lock_create_gated("one-more"));
		EXPECT_EQ(-EEXIST, lock_create("psu1"));
		EXPECT_EQ(-EINVAL, lock_create("one more"));
		EXPECT_NO_LOCK("one-more");
		EXPECT_EQ(LIMIT, locks_count());
		EXPECT_LOCK("psu1");
		EXPECT_LOCK(name);
		/* One goes, one comes */
		ASSERT_EQ(0, lock_delete(name));
		ASSERT_EQ(0, lock_create(name));
	}
	locks_delete();
	EXPECT_EQ(1, locks_count());
	EXPECT_STREQ("tlock", look(self->fd).name);
}

/*
 * Threads that create, delete, open, take and look at a lock of one name. What
 * each of them sees is consistent: above all, there are never two such locks.
 */
#define RACED	"raced"

static atomic_int stop;
static atomic_int created, deleted, taken, looked, shown;
static atomic_int inside;
static _Atomic __u64 newest;

static int race_create(int none, struct tlock_acquire *arg)
{
	int ret;

	while (!atomic_load(&stop)) {
		ret = lock_create(RACED);
		if (!ret)
			atomic_fetch_add(&created, 1);
		else if (ret != -EEXIST)
			return ret;
		usleep(100);
	}
	return 0;
}

static int race_delete(int none, struct tlock_acquire *arg)
{
	int ret;

	while (!atomic_load(&stop)) {
		ret = lock_delete(RACED);
		if (!ret)
			atomic_fetch_add(&deleted, 1);
		else if (ret != -ENOENT && ret != -EBUSY)
			return ret;
		usleep(100);
	}
	return 0;
}

/* A lock that can be opened is there, whole, until it is closed. */
static int race_take(int none, struct tlock_acquire *unused)
{
	struct tlock_acquire arg;
	struct tlock_status st;
	int fd, ret;

	while (!atomic_load(&stop)) {
		usleep(100);
		fd = lock_open(RACED, atomic_load(&taken) % 2 ? O_RDWR :
			       O_WRONLY);
		if (fd == -ENOENT || fd == -ENXIO)
			continue;
		if (fd < 0)
			return fd;
		ret = status(fd, &st);
		if (ret)
			return ret;
		if (strcmp(st.name, "tlock-" RACED))
			return -EUCLEAN;
		arg = ask(10 * MSEC, "racer");
		ret = acquire(fd, &arg);
		if (!ret) {
			if (atomic_fetch_add(&inside, 1))
				return -EDEADLK;
			/* Guarantee 8 */
			if (arg.token <= atomic_load(&newest))
				return -ERANGE;
			atomic_store(&newest, arg.token);
			atomic_fetch_add(&taken, 1);
			atomic_fetch_sub(&inside, 1);
			/* Abandon it now and then */
			if (atomic_load(&taken) % 3)
				release(fd);
		} else if (ret != -ETIMEDOUT) {
			return ret;
		}
		close(fd);
	}
	return 0;
}

static int race_look(int none, struct tlock_acquire *arg)
{
	struct tlock_status st;
	int fd, ret;

	while (!atomic_load(&stop)) {
		fd = lock_open(RACED, O_RDONLY);
		if (fd == -ENOENT || fd == -ENXIO)
			continue;
		if (fd < 0)
			return fd;
		ret = status(fd, &st);
		if (!ret)
			atomic_fetch_add(&looked, 1);
		else if (ret != -ENODEV)
			return ret;
		close(fd);
	}
	return 0;
}

static int race_show(int none, struct tlock_acquire *arg)
{
	static const char *const files[] = { "job", "token", "stats/acquired" };
	char text[80];
	int fd, ret;

	for (unsigned int i = 0; !atomic_load(&stop); i++) {
		fd = open(lock_sysfs(RACED, files[i % ARRAY_SIZE(files)]),
			  O_RDONLY | O_CLOEXEC);
		if (fd < 0 && (errno == ENOENT || errno == ENODEV))
			continue;
		if (fd < 0)
			return -errno;
		ret = read(fd, text, sizeof(text));
		if (ret > 0)
			atomic_fetch_add(&shown, 1);
		else if (!ret || errno != ENODEV)
			return ret ? -errno : -ENODATA;
		close(fd);
	}
	return 0;
}

#define DELETIONS	100

TEST_F_TIMEOUT(names, races, 300)
{
	static int (*const racers[])(int fd, struct tlock_acquire *arg) = {
		race_create, race_create, race_delete, race_delete, race_take,
		race_take, race_take, race_look, race_show,
	};
	struct call *calls[ARRAY_SIZE(racers)];
	__s64 begun = now();

	atomic_store(&newest, 0);
	for (size_t i = 0; i < ARRAY_SIZE(racers); i++)
		calls[i] = call(-1, racers[i], 0, "");
	while (now() - begun < 10 * PATIENCE &&
	       (atomic_load(&deleted) < DELETIONS ||
		atomic_load(&taken) < DELETIONS ||
		!atomic_load(&looked) || !atomic_load(&shown)))
		usleep(1000);
	atomic_store(&stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(racers); i++) {
		EXPECT_EQ(0, result(calls[i])) {
			TH_LOG("racer %zu", i);
		}
	}
	TH_LOG("%d created, %d taken, %d looked, %d shown, %lld ms",
	       atomic_load(&created), atomic_load(&taken),
	       atomic_load(&looked), atomic_load(&shown),
	       (now() - begun) / MSEC);
	EXPECT_LE(DELETIONS, atomic_load(&deleted));
	EXPECT_LE(DELETIONS, atomic_load(&taken));
	EXPECT_LT(0, atomic_load(&looked));
	EXPECT_LT(0, atomic_load(&shown));
	EXPECT_LE(atomic_load(&created) - 1, atomic_load(&deleted));
	EXPECT_GE(atomic_load(&created), atomic_load(&deleted));
	locks_delete();
}

TEST_HARNESS_MAIN
