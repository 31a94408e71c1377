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

TEST_F(module, works_as_soon_as_it_can_be_seen)
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

TEST_F(module, unload_meets_open)
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

/* Locks that are created with the module */
static bool opens(const char *name)
{
	int fd = lock_open(name, O_RDWR);

	if (fd < 0)
		return false;
	take(fd, "holder");
	release(fd);
	close(fd);
	return true;
}

TEST_F(module, creates_the_named_locks)
{
	/* Names can be repeated, and so can the parameter; none is fine, too */
	static const struct {
		const char *parameters;
		int locks;
		const char *some[3];
	} loads[] = {
		{ "names=", 1, {} },
		{ "names=psu", 2, { "psu" } },
		{ "names=psu,lakeshore,4.2K", 4, { "psu", "lakeshore", "4.2K" } },
		{ "names=psu,lakeshore,psu", 3, { "psu", "lakeshore" } },
		{ "names=a,b names= names=c,a", 4, { "a", "b", "c" } },
		{ "names=a=b", 2, { "a=b" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		ASSERT_EQ(0, module_unload());
		ASSERT_EQ(0, module_load_with(loads[i].parameters));
		EXPECT_EQ(loads[i].locks, locks_count()) {
			TH_LOG("%s", loads[i].parameters);
		}
		for (size_t n = 0; n < 3 && loads[i].some[n]; n++)
			EXPECT_TRUE(opens(loads[i].some[n]));
	}
	/* They are like all others */
	EXPECT_EQ(-EEXIST, lock_create("a=b"));
	EXPECT_EQ(0, lock_delete("a=b"));
	EXPECT_EQ(0, lock_create("a=b"));
	ASSERT_EQ(0, module_unload());
	ASSERT_EQ(0, module_load());
	EXPECT_EQ(1, locks_count());
}

/* Which is there, and is gated or not */
static bool is_gated(const char *name, bool gated)
{
	return !strcmp(read_text(lock_sysfs(name, "gate")),
		       gated ? "unserved" : "");
}

TEST_F(module, creates_the_gated_locks)
{
	static const struct {
		const char *parameters;
		int locks;
		const char *gated[2];
		const char *plain[2];
	} loads[] = {
		{ "gated=", 1, {}, {} },
		{ "gated=psu", 2, { "psu" }, {} },
		{ "gated=psu,pump,psu", 3, { "psu", "pump" }, {} },
		{ "gated=a gated= gated=b,a", 3, { "a", "b" }, {} },
		{ "names=a,b gated=c,d", 5, { "c", "d" }, { "a", "b" } },
		{ "gated=a names=b names=c gated=d", 5, { "a", "d" },
		  { "b", "c" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		ASSERT_EQ(0, module_unload());
		ASSERT_EQ(0, module_load_with(loads[i].parameters));
		EXPECT_EQ(loads[i].locks, locks_count()) {
			TH_LOG("%s", loads[i].parameters);
		}
		for (size_t n = 0; n < 2 && loads[i].gated[n]; n++)
			EXPECT_TRUE(is_gated(loads[i].gated[n], true));
		for (size_t n = 0; n < 2 && loads[i].plain[n]; n++) {
			EXPECT_TRUE(is_gated(loads[i].plain[n], false));
			EXPECT_TRUE(opens(loads[i].plain[n]));
		}
		EXPECT_STREQ("", sysfs_text("gate"));
	}
	ASSERT_EQ(0, module_unload());
}

/* Whether the kernel's log has this text after what was read of it before */
static bool logged(int kmsg, const char *text)
{
	char line[1024];
	bool found = false;
	ssize_t len;

	/* EPIPE: older lines were overwritten before they were read */
	while ((len = read(kmsg, line, sizeof(line) - 1)) > 0 ||
	       (len < 0 && errno == EPIPE)) {
		if (len < 0)
			continue;
		line[len] = 0;
		found |= !!strstr(line, text);
	}
	return found;
}

/* A lock has a gate or not: whoever names it must not be mistaken. */
TEST_F(module, load_with_a_name_of_both_kinds)
{
	static const char *const parameters[] = {
		"names=psu gated=psu", "gated=psu names=psu",
		"gated=a,psu names=b,psu", "names=psu gated=a gated=psu",
	};
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	ASSERT_LE(0, kmsg);
	ASSERT_EQ(0, module_unload());
	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++) {
		lseek(kmsg, 0, SEEK_END);
		EXPECT_EQ(-EINVAL, module_load_with(parameters[i])) {
			TH_LOG("%s", parameters[i]);
		}
		EXPECT_TRUE(logged(kmsg, "'psu': it can be in names= or in gated="));
		EXPECT_FALSE(exists(DEVICE));
		EXPECT_FALSE(exists(CLASS));
		EXPECT_FALSE(module_registered());
	}
	close(kmsg);
}

/* A parameter that names this many locks, other than the first one */
static const char *names_parameter(int locks)
{
	static char parameters[128 * 1024];
	size_t len = 0;

	for (int i = 0; i < locks; i++)
		len += snprintf(parameters + len, sizeof(parameters) - len,
				"%sinstrument-%d", i ? "," : "names=", i);
	return parameters;
}

/* The usual string parameters of modules are limited to 1,024 bytes. */
TEST_F_TIMEOUT(module, creates_as_many_locks_as_there_can_be, 1200)
{
	ASSERT_EQ(0, module_unload());
	ASSERT_EQ(0, module_load_with(names_parameter(4095)));
	EXPECT_EQ(4096, locks_count());
	EXPECT_TRUE(opens("instrument-0"));
	EXPECT_TRUE(opens("instrument-4094"));
	EXPECT_EQ(-ENOSPC, lock_create("psu"));
	ASSERT_EQ(0, module_unload());
	EXPECT_FALSE(exists("/sys/class/tlock"));

	EXPECT_EQ(-ENOSPC, module_load_with(names_parameter(4096)));
	EXPECT_FALSE(exists(DEVICE));
	EXPECT_FALSE(exists(lock_path("instrument-0")));
	EXPECT_FALSE(exists("/sys/class/tlock"));
	EXPECT_FALSE(exists("/sys/module/tlock"));
	EXPECT_FALSE(module_registered());
	EXPECT_FALSE(has_slab_cache());
}

/* Opens a lock if it can, and keeps it open until it has to stop. */
static int open_any(int none, struct tlock_acquire *arg)
{
	int fd = -1;

	while (fd < 0 && !atomic_load(&stop)) {
		fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			fd = lock_open("psu", O_RDONLY);
	}
	while (!atomic_load(&stop))
		usleep(1000);
	return fd < 0 ? 0 : -EEXIST;
}

/*
 * With a bad name, the module is not loaded. Nothing is there even for a
 * moment: if a lock were opened then, the load would wait for its last close.
 */
TEST_F(module, load_with_a_bad_name)
{
	static const char *const parameters[] = {
		"names", "names=,", "names=psu,", "names=,psu", "names=psu,,a",
		"names=tlock", "names=psu,tlock-x", "names=-psu,psu",
		"names=psu names=a/b", "names=psu,x!", "names=\"psu, pump\"",
		"names=psu,\xc3\xa9",
		"gated", "gated=,", "gated=tlock", "gated=psu,tlock-x",
		"names=psu gated=pump,", "gated=psu names=a/b",
	};
	char longest[7 + 123] = "names=";
	struct call *opener;

	ASSERT_EQ(0, module_unload());
	opener = call(-1, open_any, 0, "");
	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++) {
		EXPECT_EQ(-EINVAL, module_load_with(parameters[i])) {
			TH_LOG("%s", parameters[i]);
		}
		EXPECT_FALSE(exists(DEVICE));
		EXPECT_FALSE(exists("/sys/class/tlock"));
		EXPECT_FALSE(exists("/sys/module/tlock"));
		EXPECT_FALSE(module_registered());
		EXPECT_FALSE(has_slab_cache());
	}
	memset(longest + 6, 'x', 122);
	EXPECT_EQ(-EINVAL, module_load_with(longest));
	atomic_store(&stop, 1);
	EXPECT_EQ(0, result(opener));

	longest[6 + 121] = 0;
	ASSERT_EQ(0, module_load_with(longest));
	EXPECT_TRUE(opens(longest + 6));
	ASSERT_EQ(0, module_unload());
}

/* Files that outlive a deleted lock keep the module, like any other file. */
TEST_F(module, is_not_unloaded_while_a_deleted_lock_is_open)
{
	int fd;

	ASSERT_EQ(0, lock_create("psu"));
	fd = lock_open("psu", O_RDONLY);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, lock_delete("psu"));
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	close(fd);
	ASSERT_EQ(0, module_unload());
}

/* Nor while a daemon is attached */
TEST_F(module, is_not_unloaded_while_a_gate_is_served)
{
	int fd;

	ASSERT_EQ(0, lock_create_gated("psu"));
	fd = daemon_of("psu");
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	ASSERT_EQ(0, lock_delete("psu"));
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	close(fd);
	ASSERT_EQ(0, module_unload());
}

/* Creates and deletes locks, and looks at them, while the module comes and goes */
static atomic_int changes;

static int change_locks(int none, struct tlock_acquire *arg)
{
	static atomic_int threads;
	int number = atomic_fetch_add(&threads, 1);
	bool gated = number / 2 == 2;
	char name[16];
	int ret;

	/* Two threads for each name */
	snprintf(name, sizeof(name), "psu%d", number / 2);
	while (!atomic_load(&stop)) {
		ret = gated ? lock_create_gated(name) : lock_create(name);
		if (ret && ret != -EEXIST && ret != -ENOENT && ret != -ENODEV)
			return ret;
		if (!ret)
			atomic_fetch_add(&changes, 1);
		ret = lock_delete(name);
		if (ret && ret != -ENOENT && ret != -ENODEV)
			return ret;
	}
	return 0;
}

static int read_waiters(int none, struct tlock_acquire *arg)
{
	char text[80];
	int fd;

	while (!atomic_load(&stop)) {
		fd = open(lock_sysfs("psu0", "waiters"), O_RDONLY | O_CLOEXEC);
		if (fd < 0 && errno != ENOENT && errno != ENODEV)
			return -errno;
		if (fd >= 0 && read(fd, text, sizeof(text)) < 0 &&
		    errno != ENODEV)
			return -errno;
		if (fd >= 0)
			close(fd);
	}
	return 0;
}

TEST_F_TIMEOUT(module, unload_meets_changes, 300)
{
	struct call *calls[7];
	__s64 begun = now();
	int before;

	for (int i = 0; i < 6; i++)
		calls[i] = call(-1, change_locks, 0, "");
	calls[6] = call(-1, read_waiters, 0, "");
	for (int i = 0; !often_enough(i, 10, begun); i++) {
		before = atomic_load(&changes);
		ASSERT_TRUE(await_value(&changes, before + 1));
		/* Nobody has a lock open: the module is not in use */
		ASSERT_EQ(0, module_unload());
		EXPECT_FALSE(exists("/sys/class/tlock"));
		EXPECT_FALSE(exists(lock_path("psu0")));
		EXPECT_FALSE(exists(lock_path("psu1")));
		EXPECT_FALSE(exists(lock_path("psu2")));
		EXPECT_FALSE(module_registered());
		/* The threads may create one of these first */
		ASSERT_EQ(0, module_load_with("names=psu0,pump,psu1 gated=psu2"));
		EXPECT_TRUE(exists(lock_path("pump")));
	}
	atomic_store(&stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		EXPECT_EQ(0, result(calls[i]));
	ASSERT_EQ(0, module_unload());
}

TEST_HARNESS_MAIN
