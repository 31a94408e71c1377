// SPDX-License-Identifier: GPL-2.0-only
/*
 * Failed allocations and failed copies to and from user memory, at every point
 * of a call in turn. Each call works or fails cleanly, and the lock is as
 * usable afterwards. On a kernel with kmemleak, a leak shows once the module is
 * unloaded.
 *
 * This needs a kernel with fault injection, which can fail allocations and
 * copies of whole structures and strings. It cannot fail accesses to single
 * fields by unsafe_get_user() and its like: see pages.c for those.
 */
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

#include "tlock_test.h"

#define FAIL_NTH "/proc/thread-self/fail-nth"
#define DEBUGFS	 "/sys/kernel/debug"

static void put_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die("cannot write %s", path);
	close(fd);
}

/* Before main(): the harness runs a test even if its set-up skips it. */
static void __attribute__((constructor)) skip_all(void)
{
	if (!access(FAIL_NTH, F_OK))
		return;
	puts("TAP version 13\n1..0 # SKIP this kernel injects no faults");
	exit(0);
}

/* Opens the file that arms faults */
static int get_ready(void)
{
	int fail_nth = open(FAIL_NTH, O_RDWR | O_CLOEXEC);

	if (fail_nth < 0)
		die("cannot open " FAIL_NTH);
	/* Also fail allocations that may wait for memory, and log nothing */
	put_text(DEBUGFS "/failslab/ignore-gfp-wait", "N");
	put_text(DEBUGFS "/failslab/verbose", "0");
	put_text(DEBUGFS "/fail_usercopy/verbose", "0");
	return fail_nth;
}

/* Makes the nth point of this thread that can fail do so. */
static void arm(int fail_nth, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	if (pwrite(fail_nth, text, len, 0) != len)
		die("cannot write " FAIL_NTH);
}

/*
 * Stops injecting faults. Returns whether one was injected; reading that can
 * fail as well.
 */
static bool disarm(int fail_nth)
{
	char left = 0;
	bool fired;

	fired = pread(fail_nth, &left, 1, 0) == 1 && left == '0';
	/* If this write fails, the fault was injected here */
	if (pwrite(fail_nth, "0", 1, 0) != 1 && errno != EFAULT)
		die("cannot write " FAIL_NTH);
	return fired;
}

static bool clean(int ret)
{
	return ret == -ENOMEM || ret == -EFAULT;
}

FIXTURE(faults)
{
	int fail_nth;
	int fd;
	int other;
	bool fired;		/* the last fault was injected */
	int failures;		/* calls that failed due to a fault */
	struct tlock_status before;
};

FIXTURE_SETUP(faults)
{
	self->fail_nth = get_ready();
	self->fd = contender();
	self->other = contender();
	ASSERT_FREE(self->fd);
	self->before = look(self->fd);
}

FIXTURE_TEARDOWN(faults)
{
	close(self->fail_nth);
	close(self->fd);
	close(self->other);
	EXPECT_LEFT_FREE();
}

/* A loop with a fault at the first point, the second, ... while there is one */
#define EACH_FAULT							\
	unsigned int nth = (self->fired = true, self->failures = 0, 1);	\
	self->fired; nth++

#define WITH_FAULT(call) ({						\
	int __ret;							\
									\
	arm(self->fail_nth, nth);					\
	__ret = (call);							\
	self->fired = disarm(self->fail_nth);				\
	if (__ret < 0 && self->fired)					\
		self->failures++;					\
	__ret;								\
})

static int open_device(void)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

TEST_F(faults, open)
{
	__u64 users = read_number("/sys/module/tlock/refcnt");
	int fd;

	for (EACH_FAULT) {
		fd = WITH_FAULT(open_device());
		if (fd < 0) {
			ASSERT_TRUE(self->fired && clean(fd));
		} else {
			take(fd, "holder");
			EXPECT_EQ(0, release(fd));
			close(fd);
		}
		ASSERT_EQ(users, read_number("/sys/module/tlock/refcnt"));
	}
	EXPECT_LE(3, self->failures);
}

TEST_F(faults, status)
{
	struct tlock_status st;
	int ret;

	for (EACH_FAULT) {
		ret = WITH_FAULT(status(self->fd, &st));
		ASSERT_EQ(self->fired ? -EFAULT : 0, ret);
	}
	EXPECT_EQ(1, self->failures);
}

TEST_F(faults, waiter)
{
	struct tlock_waiter waiter;
	int ret;

	take(self->fd, "holder");
	start_acquire(self->other, FOREVER, "waiter");
	for (EACH_FAULT) {
		memset(&waiter, 0, sizeof(waiter));
		ret = WITH_FAULT(next_waiter(self->fd, &waiter));
		ASSERT_EQ(self->fired ? -EFAULT : 0, ret);
	}
	EXPECT_EQ(2, self->failures);
	EXPECT_EQ(0, release(self->other));
	EXPECT_EQ(0, release(self->fd));
}

/* A monitor that fails to start can be started; no event is lost. */
TEST_F(faults, monitor)
{
	int ret, fd = -1;

	for (EACH_FAULT) {
		fd = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		ASSERT_LE(0, fd);
		ret = WITH_FAULT(start_monitor(fd));
		if (ret) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(0, start_monitor(fd));
		}
		if (self->fired)
			close(fd);
	}
	EXPECT_LE(1, self->failures);
	for (EACH_FAULT) {
		struct tlock_event events[2];

		take(self->fd, "watched");
		EXPECT_EQ(0, release(self->fd));
		ret = WITH_FAULT(read_events(fd, events, sizeof(events)));
		if (ret == -EFAULT)
			ret = 0;
		ASSERT_LE(0, ret);
		/* What is left */
		if (ret < (int)sizeof(events))
			ret += read_events(fd, (char *)events + ret,
					   sizeof(events) - ret);
		ASSERT_EQ(sizeof(events), ret);
		EXPECT_EQ(TLOCK_EVENT_ACQUIRED, events[0].kind);
		EXPECT_EQ(TLOCK_EVENT_RELEASED, events[1].kind);
		EXPECT_EQ(0, events[0].lost);
		EXPECT_EQ(events[0].seq + 1, events[1].seq);
	}
	EXPECT_LE(1, self->failures);
	close(fd);
}

TEST_F(faults, acquire_that_times_out)
{
	static const __s64 timeouts[] = { 0, MSEC };
	struct tlock_acquire arg;
	int ret;

	take(self->other, "holder");
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		for (EACH_FAULT) {
			arg = ask(timeouts[i], "victim");
			ret = WITH_FAULT(acquire(self->fd, &arg));
			/* The timer works even if it gets no memory */
			ASSERT_EQ(-ETIMEDOUT, ret);
			ASSERT_EQ(-EPERM, release(self->fd));
			ASSERT_EQ(0, look(self->fd).waiters);
			ASSERT_STREQ("holder", look(self->fd).holder.job);
			ASSERT_STREQ("holder", arg.holder.job);
		}
	}
	EXPECT_EQ(0, release(self->other));
}

TEST_F(faults, reacquire_that_times_out)
{
	struct tlock_acquire arg;
	struct call *waiter;
	int ret;

	for (EACH_FAULT) {
		take(self->fd, "victim");
		waiter = call(self->other, acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, 1));
		arg = ask(MSEC, "");
		ret = WITH_FAULT(reacquire(self->fd, &arg));
		ASSERT_EQ(-ETIMEDOUT, ret);
		ASSERT_EQ(-EPERM, release(self->fd));
		ASSERT_EQ(0, result(waiter));
		ASSERT_EQ(waiter->arg->token, look(self->fd).holder.token);
		ASSERT_EQ(0, release(self->other));
	}
}

/* Acquiring, reacquiring and releasing the lock need no memory. */
TEST_F(faults, what_needs_no_memory)
{
	struct tlock_acquire arg, again;
	int ret;

	for (EACH_FAULT) {
		arg = ask(LONG, "holder");
		ret = WITH_FAULT(acquire(self->fd, &arg));
		ASSERT_EQ(0, ret);
		ASSERT_EQ(0, release(self->fd));
	}
	take(self->fd, "holder");
	for (EACH_FAULT) {
		again = ask(LONG, nth % 2 ? "" : "again");
		ret = WITH_FAULT(reacquire(self->fd, &again));
		ASSERT_EQ(0, ret);
	}
	EXPECT_EQ(0, release(self->fd));
	for (EACH_FAULT) {
		take(self->fd, "holder");
		ret = WITH_FAULT(release(self->fd));
		ASSERT_EQ(0, ret);
	}
}

static int release_soon(int fd, struct tlock_acquire *arg)
{
	return await_waiters(fd, 1) ? release(fd) : STUCK;
}

TEST_F(faults, waiting_needs_no_memory)
{
	struct tlock_acquire arg;
	struct call *holder;
	int ret;

	for (EACH_FAULT) {
		take(self->other, "holder");
		holder = call_with(self->other, release_soon, NULL);
		arg = ask(LONG, "waiter");
		ret = WITH_FAULT(acquire(self->fd, &arg));
		ASSERT_EQ(0, ret);
		ASSERT_EQ(0, result(holder));
		ASSERT_EQ(arg.token, look(self->fd).holder.token);
		ASSERT_EQ(0, release(self->fd));
	}
}

static int read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = read(fd, text, size - 1);
	if (ret < 0)
		ret = -errno;
	else
		text[ret] = 0;
	close(fd);
	return ret;
}

TEST_F(faults, sysfs)
{
	char text[80], expected[80];
	const char *path;
	int ret;

	take(self->fd, "holder");
	for (size_t i = 0; i < SYSFS_FILES; i++) {
		path = sysfs_files[i];
		ret = read_file(path, expected, sizeof(expected));
		ASSERT_LE(1, ret);
		/* The first lock has no gate, and no holder on another host */
		EXPECT_EQ(!strcmp(path, SYSFS "/gate") ||
			  !strcmp(path, SYSFS "/host"), ret == 1);
		for (EACH_FAULT) {
			ret = WITH_FAULT(read_file(path, text, sizeof(text)));
			if (ret < 0) {
				ASSERT_TRUE(self->fired && clean(ret));
			} else if (strcmp(path, SYSFS "/held_ns")) {
				ASSERT_STREQ(expected, text);
			}
		}
		EXPECT_LE(3, self->failures) {
			TH_LOG("%s", path);
		}
	}
	EXPECT_EQ(0, release(self->fd));
}

/* A write to one of the files of the class, which is open */
static int write_name(int fd, const char *name)
{
	return pwrite(fd, name, strlen(name), 0) < 0 ? -errno : 0;
}

/* A gated lock can be made, or nothing is left of the attempt. */
TEST_F_TIMEOUT(faults, create_gated_lock, 300)
{
	int file = open(NEW_GATED_LOCK, O_WRONLY | O_CLOEXEC), ret;

	ASSERT_LE(0, file);
	for (EACH_FAULT) {
		ret = WITH_FAULT(write_name(file, "victim"));
		if (ret) {
			ASSERT_TRUE(self->fired && clean(ret)) {
				TH_LOG("fault %u: %s", nth, strerror(-ret));
			}
			ASSERT_FALSE(lock_exists("victim"));
			ASSERT_EQ(0, write_name(file, "victim"));
		}
		ASSERT_STREQ("unserved",
			     read_text(lock_sysfs("victim", "gate")));
		close(daemon_of("victim"));
		ASSERT_EQ(0, lock_delete("victim"));
	}
	close(file);
	EXPECT_LE(20, self->failures);
}

/* A lock can be made, or nothing is left of the attempt. */
TEST_F_TIMEOUT(faults, create_lock, 300)
{
	int file = open(NEW_LOCK, O_WRONLY | O_CLOEXEC), fd, ret;

	ASSERT_LE(0, file);
	for (EACH_FAULT) {
		ret = WITH_FAULT(write_name(file, "victim"));
		if (ret) {
			ASSERT_TRUE(self->fired && clean(ret)) {
				TH_LOG("fault %u: %s", nth, strerror(-ret));
			}
			ASSERT_FALSE(lock_exists("victim"));
			ASSERT_EQ(1, locks_count());
			/* It can be made all the same */
			ASSERT_EQ(0, write_name(file, "victim"));
		}
		ASSERT_EQ(2, locks_count());
		fd = contender_of("victim");
		take(fd, "holder");
		ASSERT_STREQ("holder", read_text(lock_sysfs("victim", "job")));
		EXPECT_EQ(0, release(fd));
		close(fd);
		ASSERT_EQ(0, lock_delete("victim"));
	}
	close(file);
	/* About 54 with Linux 6.1, most of them its own for a device */
	EXPECT_LE(20, self->failures);
}

/* A lock is deleted entirely or not at all. */
TEST_F_TIMEOUT(faults, delete_lock, 300)
{
	int file = open(DELETE_LOCK, O_WRONLY | O_CLOEXEC), fd, ret;

	ASSERT_LE(0, file);
	for (EACH_FAULT) {
		ASSERT_EQ(0, lock_create("victim"));
		ret = WITH_FAULT(write_name(file, "victim"));
		if (ret) {
			ASSERT_TRUE(self->fired && clean(ret));
			fd = contender_of("victim");
			take(fd, "holder");
			EXPECT_EQ(0, release(fd));
			close(fd);
			ASSERT_EQ(0, write_name(file, "victim"));
		}
		ASSERT_FALSE(lock_exists("victim"));
		ASSERT_EQ(1, locks_count());
	}
	close(file);
	EXPECT_LE(1, self->failures);
}

/* Loading and unloading. The module is loaded at the start and at the end. */
FIXTURE(loading)
{
	int fail_nth;
	int ko;
	bool fired;
	int failures;
};

/*
 * A copy of the module in memory (/tmp): other file systems have faults of
 * their own.
 */
static int open_copy(void)
{
	char path[] = "/tmp/tlock-XXXXXX";
	int from = open(getenv("TLOCK_KO"), O_RDONLY | O_CLOEXEC);
	int to = mkstemp(path), copy = open(path, O_RDONLY | O_CLOEXEC);

	if (from < 0 || to < 0 || copy < 0)
		die("cannot copy the module");
	while (sendfile(to, from, NULL, 1 << 20) > 0)
		;
	unlink(path);
	close(from);
	/* A file that is being loaded must not be open for writing */
	close(to);
	return copy;
}

/* Loads it with three more locks: a list of names, and one that is gated */
static int load(int ko)
{
	return syscall(SYS_finit_module, ko, "names=a,b gated=c", 0) ?
	       -errno : 0;
}

/* Counts the traces of a loaded module */
static int traces(void)
{
	return exists(DEVICE) + exists(lock_path("a")) +
	       exists(lock_path("b")) + exists(lock_path("c")) +
	       exists("/sys/class/tlock") +
	       exists("/sys/devices/virtual/tlock") +
	       exists("/sys/module/tlock") + module_registered() +
	       has_slab_cache();
}

#define ALL_TRACES	9

FIXTURE_SETUP(loading)
{
	self->fail_nth = get_ready();
	ASSERT_NE(NULL, getenv("TLOCK_KO")) {
		TH_LOG("TLOCK_KO is not set: where is tlock.ko?");
	}
	self->ko = open_copy();
	ASSERT_EQ(0, module_unload());
	ASSERT_EQ(0, load(self->ko));
	ASSERT_EQ(ALL_TRACES, traces());
}

FIXTURE_TEARDOWN(loading)
{
	/* Leave it loaded, without named locks, for the tests after this one */
	module_unload();
	EXPECT_EQ(0, module_load());
	EXPECT_EQ(1, locks_count());
	EXPECT_LEFT_FREE();
}

/* The loaded module works. */
#define EXPECT_WORKS() do {						\
	int __fd = contender();						\
									\
	ASSERT_EQ(ALL_TRACES, traces());				\
	take(__fd, "holder");						\
	EXPECT_STREQ("holder", sysfs_text("job"));			\
	EXPECT_EQ(0, release(__fd));					\
	close(__fd);							\
	EXPECT_EQ(4, locks_count());					\
} while (0)

TEST_F_TIMEOUT(loading, load, 900)
{
	int ret;

	ASSERT_EQ(0, module_unload());
	for (EACH_FAULT) {
		ASSERT_EQ(0, traces());
		ret = WITH_FAULT(load(self->ko));
		if (ret) {
			ASSERT_TRUE(self->fired && clean(ret)) {
				TH_LOG("fault %u: %s", nth, strerror(-ret));
			}
		} else {
			EXPECT_WORKS();
			ASSERT_EQ(0, module_unload());
		}
	}
	/*
	 * About 220 with Linux 6.1. The number of allocations before the
	 * module's own varies by one from load to load, as vmalloc keeps some
	 * memory ready. So a run may leave out a few of the module's.
	 */
	EXPECT_LE(100, self->failures);
}

TEST_F_TIMEOUT(loading, unload, 300)
{
	int ret;

	for (EACH_FAULT) {
		ret = WITH_FAULT(module_unload());
		if (ret) {
			ASSERT_TRUE(self->fired && clean(ret));
			ASSERT_EQ(ALL_TRACES, traces());
		} else {
			ASSERT_EQ(0, traces());
			ASSERT_EQ(0, load(self->ko));
		}
		EXPECT_WORKS();
	}
	EXPECT_LE(1, self->failures);
}

TEST_HARNESS_MAIN
