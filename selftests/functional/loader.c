// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading and unloading the module, $TLOCK_KO. It is loaded at the start and at
 * the end.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "tlock_test.h"

FIXTURE(module)
{
	int unused;
};

FIXTURE_SETUP(module)
{
	ASSERT_NE(NULL, getenv("TLOCK_KO")) {
		TH_LOG("TLOCK_KO is not set: where is tlock.ko?");
	}
	ASSERT_EQ(0, access(getenv("TLOCK_KO"), R_OK));
	ASSERT_TRUE(exists(DEVICE));
}

FIXTURE_TEARDOWN(module)
{
	int ret = module_load();

	/* Leave it loaded for the tests after this one */
	EXPECT_TRUE(ret == 0 || ret == -EEXIST);
	EXPECT_TRUE(exists(DEVICE));
}

TEST_F(module, is_not_unloaded_while_a_file_is_open)
{
	static const int flags[] = { O_RDONLY, O_WRONLY, O_RDWR };
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		fd = open(DEVICE, flags[i] | O_CLOEXEC);
		ASSERT_LE(0, fd);
		EXPECT_LT(0, read_number("/sys/module/tlock/refcnt"));
		EXPECT_EQ(-EWOULDBLOCK, module_unload());
		EXPECT_TRUE(exists(DEVICE));
		/* The lock works as before */
		if (flags[i] != O_RDONLY) {
			take(fd, "holder");
			EXPECT_EQ(-EWOULDBLOCK, module_unload());
			EXPECT_STREQ("holder", sysfs_text("job"));
			EXPECT_EQ(0, release(fd));
		}
		close(fd);
		EXPECT_EQ(0, read_number("/sys/module/tlock/refcnt"));
	}
	EXPECT_EQ(0, module_unload());
}

/*
 * A descriptor may be closed while its call goes on: the file then stays open
 * until the call ends.
 */
TEST_F(module, is_unloaded_after_the_last_call)
{
	struct call *waiter;
	int fd = contender();

	take(fd, "holder");
	waiter = call(contender(), acquire, FOREVER, "waiter");
	ASSERT_TRUE(await_waiters(fd, 1));
	close(waiter->fd);
	/* This hands the lock to the waiter, whose file has no descriptor */
	close(fd);
	EXPECT_EQ(0, result(waiter));
	EXPECT_EQ(TLOCK_ABANDONED, waiter->arg->result);
	EXPECT_EQ(0, read_number("/sys/module/tlock/refcnt"));
	EXPECT_EQ(0, module_unload());
}

TEST_F(module, leaves_nothing_behind)
{
	EXPECT_TRUE(module_registered());
	EXPECT_TRUE(exists("/sys/class/tlock"));
	ASSERT_EQ(0, module_unload());
	EXPECT_FALSE(exists(DEVICE));
	EXPECT_FALSE(exists("/sys/class/tlock"));
	EXPECT_FALSE(exists("/sys/module/tlock"));
	EXPECT_FALSE(module_registered());
	EXPECT_EQ(-ENOENT, module_unload());
}

/* The slab cache shows what is leaked */
TEST_F(module, has_a_slab_cache)
{
	if (!exists("/proc/slabinfo"))
		SKIP(return, "this kernel has no /proc/slabinfo");
	EXPECT_TRUE(has_slab_cache());
	ASSERT_EQ(0, module_unload());
	EXPECT_FALSE(has_slab_cache());
}

TEST_F(module, begins_anew)
{
	static const struct tlock_status nothing = { .name = "tlock" };
	struct tlock_acquire arg = ask(0, "first");
	__u64 forgotten, before, after;
	struct tlock_status st;
	struct stat node;
	int fd;

	/* Something to forget: a grant, and an abandoned lock */
	fd = contender();
	forgotten = take(fd, "forgotten");
	close(fd);

	ASSERT_EQ(0, module_unload());
	before = wall_clock_us();
	ASSERT_EQ(0, module_load());
	after = wall_clock_us();
	EXPECT_EQ(-EEXIST, module_load());
	ASSERT_EQ(0, stat(DEVICE, &node));
	EXPECT_EQ(S_IFCHR, node.st_mode & S_IFMT);
	/* The host's own rules may set another group */
	EXPECT_EQ(0644, node.st_mode & 0645);

	fd = contender();
	st = look(fd);
	EXPECT_EQ(0, memcmp(&nothing, &st, sizeof(st)));
	ASSERT_EQ(0, acquire(fd, &arg));
	/* Tokens go on growing, as the clock does (guarantee 8) */
	EXPECT_LT(forgotten, arg.token);
	EXPECT_LE(before + 1, arg.token);
	EXPECT_GE(after + 1, arg.token);
	EXPECT_EQ(1, look(fd).acquired);
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(0, release(fd));
	close(fd);
}

/* A sysfs file opened before the unload fails with ENODEV from then on. */
TEST_F(module, sysfs_file_that_is_still_open)
{
	int fd = open(SYSFS "/job", O_RDONLY | O_CLOEXEC);
	char text[80];

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, module_unload());
	EXPECT_EQ(-1, read(fd, text, sizeof(text)));
	EXPECT_EQ(ENODEV, errno);
	ASSERT_EQ(0, module_load());
	EXPECT_EQ(-1, read(fd, text, sizeof(text)));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_STREQ("", sysfs_text("job"));
	close(fd);
}

/* A hand-made node leads to the module, and to nothing once it is unloaded. */
TEST_F(module, node_that_is_still_there)
{
	static const char path[] = DEVICE "-selftest";
	struct stat node;
	int fd;

	ASSERT_EQ(0, stat(DEVICE, &node));
	ASSERT_EQ(0, mknod(path, S_IFCHR | 0600, node.st_rdev));
	fd = open(path, O_RDWR | O_CLOEXEC);
	EXPECT_LE(0, fd);
	close(fd);
	EXPECT_EQ(0, module_unload());
	EXPECT_EQ(-1, open(path, O_RDWR | O_CLOEXEC));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(0, unlink(path));
}

/* Opens the device as soon as its node exists. */
static int open_at_once(int none, struct tlock_acquire *arg)
{
	__s64 end = now() + PATIENCE;
	int fd;

	do
		fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	while (fd < 0 && errno == ENOENT && now() < end);
	return fd < 0 ? -errno : close(fd);
}

/*
 * Whether a test has loaded the module often enough. A kernel that delays the
 * release of objects (DEBUG_KOBJECT_RELEASE) takes seconds for each unload.
 */
static bool often_enough(int loads, int wanted, __s64 begun)
{
	return loads >= wanted || (loads >= 2 && now() - begun > PATIENCE);
}

TEST_F_TIMEOUT(module, works_as_soon_as_it_can_be_seen, 60)
{
	__s64 begun = now();
	struct call *c;

	for (int i = 0; !often_enough(i, 20, begun); i++) {
		ASSERT_EQ(0, module_unload());
		c = call(-1, open_at_once, 0, "");
		ASSERT_EQ(0, module_load());
		ASSERT_EQ(0, result(c)) {
			TH_LOG("load %d: %s", i, strerror(-c->ret));
		}
	}
}

static atomic_int stop;
static atomic_int opened;

static int open_and_close(int none, struct tlock_acquire *arg)
{
	struct tlock_status st;
	int fd, ret = 0;

	while (!ret && !atomic_load(&stop)) {
		fd = open(DEVICE, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		/* An open device works for as long as it is open */
		ret = status(fd, &st);
		atomic_fetch_add(&opened, 1);
		close(fd);
		/* Keep it closed for roughly half of the time */
		usleep(50);
	}
	return ret;
}

TEST_F_TIMEOUT(module, unload_meets_open, 60)
{
	struct call *c = call(-1, open_and_close, 0, "");
	int unloaded = 0, before, ret;
	__s64 begun = now();

	while (!often_enough(unloaded, 5, begun)) {
		ASSERT_GT(6 * PATIENCE, now() - begun);
		ret = module_unload();
		if (ret == -EWOULDBLOCK)
			continue;
		ASSERT_EQ(0, ret);
		unloaded++;
		before = atomic_load(&opened);
		ASSERT_EQ(0, module_load());
		ASSERT_TRUE(await_value(&opened, before + 1));
	}
	atomic_store(&stop, 1);
	EXPECT_EQ(0, result(c));
}

TEST_HARNESS_MAIN
