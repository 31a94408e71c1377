// SPDX-License-Identifier: GPL-2.0-only
/*
 * How libtlock opens a lock, and what it says if it can't. Runs as root with
 * the module loaded and nobody else at /dev/tlock.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include <tlock.h>

#define NOBODY	65534

/* With "tlock-" before it, a device's name of 127 bytes */
#define LONGEST								\
	"789.123456789.123456789.123456789.123456789.123456789.123456789." \
	"123456789.123456789.123456789.123456789.123456789.1234567"
_Static_assert(sizeof("tlock-" LONGEST) == TLOCK_NAME_SIZE, "the longest name");

/* Which descriptors are open, as far as a test gets */
static int open_descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static int exit_status(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/* A directory of the test's own */
FIXTURE(open)
{
	char dir[24];
};

FIXTURE_SETUP(open)
{
	strcpy(self->dir, "/tmp/libtlock-XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	ASSERT_EQ(0, chdir(self->dir));
}

FIXTURE_TEARDOWN(open)
{
	EXPECT_EQ(0, chdir("/"));
	EXPECT_EQ(0, rmdir(self->dir));
}

#define EXPECT_OPENS(lock) do {						\
	struct tlock *t_ = tlock_open(lock, O_RDWR);			\
									\
	EXPECT_NE(NULL, t_) {						\
		TH_LOG("%s: %s", lock, strerror(errno));		\
	}								\
	if (t_)								\
		EXPECT_EQ(0, tlock_acquire(t_, "opened", TLOCK_TRY));	\
	if (t_)								\
		EXPECT_EQ(0, tlock_release(t_));			\
	tlock_close(t_);						\
} while (0)

#define EXPECT_OPEN_FAILS(err, lock, mode) do {				\
	int before_ = open_descriptors();				\
									\
	errno = 0;							\
	EXPECT_EQ(NULL, tlock_open(lock, mode));			\
	EXPECT_EQ(err, errno);						\
	EXPECT_EQ(before_, open_descriptors());				\
} while (0)

TEST_F(open, by_name_and_path)
{
	char device[64];

	EXPECT_OPENS("tlock");
	EXPECT_OPENS("/dev/tlock");
	ASSERT_EQ(0, symlink("/dev/tlock", "here"));
	EXPECT_OPENS("./here");
	EXPECT_EQ(0, unlink("here"));

	/* What another lock's device is called; in a /dev of our own */
	ASSERT_EQ(0, unshare(CLONE_NEWNS));
	ASSERT_EQ(0, mount("", "/", "", MS_REC | MS_PRIVATE, NULL));
	ASSERT_EQ(0, mkdir("real", 0700));
	ASSERT_EQ(0, mount("/dev", "real", "", MS_BIND, NULL));
	ASSERT_EQ(0, mount("", "/dev", "tmpfs", 0, NULL));
	snprintf(device, sizeof(device), "%s/real/tlock", self->dir);
	ASSERT_EQ(0, symlink(device, "/dev/tlock-stage"));
	ASSERT_EQ(0, symlink(device, "/dev/tlock-tlock-x"));
	ASSERT_EQ(0, symlink(device, "/dev/tlock-" LONGEST));
	EXPECT_OPENS("stage");
	EXPECT_OPENS("tlock-stage");
	EXPECT_OPENS("tlock-tlock-x");
	EXPECT_OPENS(LONGEST);
	EXPECT_OPEN_FAILS(ENOENT, "tlock", O_RDWR);
	EXPECT_OPEN_FAILS(ENOENT, NULL, O_RDWR);
	EXPECT_OPEN_FAILS(ENOENT, "tlock-x", O_RDWR);
	ASSERT_EQ(0, umount("/dev"));
	ASSERT_EQ(0, umount("real"));
	ASSERT_EQ(0, rmdir("real"));
}

TEST_F(open, descriptor)
{
	struct tlock *t = tlock_open(NULL, O_RDWR);

	ASSERT_NE(NULL, t);
	EXPECT_EQ(FD_CLOEXEC, fcntl(tlock_fd(t), F_GETFD));
	EXPECT_EQ(O_RDWR, fcntl(tlock_fd(t), F_GETFL) &
			  (O_ACCMODE | O_NONBLOCK));
	tlock_close(t);
	tlock_close(NULL);
}

TEST_F(open, for_looking_only)
{
	struct tlock *t = tlock_open(NULL, O_RDONLY);
	struct tlock_status st;

	ASSERT_NE(NULL, t);
	EXPECT_EQ(0, tlock_status(t, &st));
	EXPECT_STREQ("tlock", st.name);
	EXPECT_EQ(0, st.flags);
	EXPECT_EQ(-1, tlock_acquire(t, "j", TLOCK_TRY));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, tlock_release(t));
	EXPECT_EQ(EPERM, errno);
	tlock_close(t);
}

TEST_F(open, what_is_no_tlock)
{
	int watch = inotify_init1(IN_NONBLOCK);
	struct inotify_event event;

	/* Not even for a moment, for others may wait at it */
	ASSERT_EQ(0, mkfifo("fifo", 0600));
	ASSERT_LE(0, inotify_add_watch(watch, "fifo", IN_OPEN));
	EXPECT_OPEN_FAILS(ENOTTY, "./fifo", O_RDONLY);
	EXPECT_OPEN_FAILS(ENOTTY, "./fifo", O_RDWR);
	EXPECT_EQ(-1, read(watch, &event, sizeof(event)));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, close(watch));
	EXPECT_EQ(0, unlink("fifo"));
	ASSERT_EQ(0, mknod("file", S_IFREG | 0600, 0));
	EXPECT_OPEN_FAILS(ENOTTY, "./file", O_RDWR);
	EXPECT_EQ(0, unlink("file"));
	EXPECT_OPEN_FAILS(ENOTTY, "/tmp/", O_RDWR);
	EXPECT_OPEN_FAILS(ENOTTY, "/dev/null", O_RDWR);
	EXPECT_OPEN_FAILS(ENOTTY, "/dev/zero", O_RDONLY);
}

TEST_F(open, terminal_does_not_become_ours)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	char path[64];
	pid_t pid;

	ASSERT_LE(0, master);
	ASSERT_EQ(0, grantpt(master));
	ASSERT_EQ(0, unlockpt(master));
	ASSERT_EQ(0, ptsname_r(master, path, sizeof(path)));
	pid = fork();
	if (!pid) {
		if (setsid() < 0)
			_exit(1);
		if (tlock_open(path, O_RDWR) || errno != ENOTTY)
			_exit(2);
		_exit(open("/dev/tty", O_RDWR) >= 0 || errno != ENXIO);
	}
	EXPECT_EQ(0, exit_status(pid));
	EXPECT_EQ(0, close(master));
}

TEST_F(open, errors)
{
	pid_t pid;

	EXPECT_OPEN_FAILS(ENOENT, "nosuch", O_RDWR);
	EXPECT_OPEN_FAILS(ENOENT, "./nosuch", O_RDWR);
	EXPECT_OPEN_FAILS(EINVAL, "", O_RDWR);
	EXPECT_OPEN_FAILS(ENOENT, LONGEST, O_RDWR);
	EXPECT_OPEN_FAILS(ENAMETOOLONG, LONGEST "2", O_RDWR);
	EXPECT_OPEN_FAILS(EINVAL, NULL, O_WRONLY);
	EXPECT_OPEN_FAILS(EINVAL, NULL, O_RDWR | O_NONBLOCK);

	/* A number that no driver has */
	ASSERT_EQ(0, mknod("stale", S_IFCHR | 0600, makedev(4000, 0)));
	EXPECT_OPEN_FAILS(ENXIO, "./stale", O_RDWR);
	EXPECT_EQ(0, unlink("stale"));

	pid = fork();
	if (!pid) {
		struct tlock *t;

		if (setuid(NOBODY))
			_exit(1);
		if (tlock_open(NULL, O_RDWR) || errno != EACCES)
			_exit(2);
		t = tlock_open(NULL, O_RDONLY);
		if (!t)
			_exit(3);
		tlock_close(t);
		_exit(0);
	}
	EXPECT_EQ(0, exit_status(pid));
}

/* What is said of a failure, in a system where it has come about */
FIXTURE(explain)
{
	char why[TLOCK_EXPLAIN_SIZE];
};

FIXTURE_VARIANT(explain)
{
	const char *hidden[2];	/* directories that are empty */
	const char *made[6];	/* directories that are made then */
	const char *state;	/* the module's */
	uid_t uid;
	const char *lock;
	int err;
	const char *begins, *says;
};

FIXTURE_VARIANT_ADD(explain, not_loaded)
{
	.hidden = { "/sys", "/dev" },
	.made = { "/sys/class" },
	.err = ENOENT,
	.begins = "/dev/tlock: ",
	.says = "module is not loaded: as root, for a container on its host, run 'insmod tlock.ko'",
};

/* The device file goes before the rest */
FIXTURE_VARIANT_ADD(explain, unloading)
{
	.hidden = { "/sys", "/dev" },
	.made = { "/sys/class", "/sys/class/tlock", "/sys/class/tlock/tlock",
		  "/sys/module", "/sys/module/tlock" },
	.state = "going\n",
	.err = ENOENT,
	.begins = "/dev/tlock: ",
	.says = "module is not loaded",
};

FIXTURE_VARIANT_ADD(explain, no_sysfs)
{
	.hidden = { "/sys", "/dev" },
	.lock = "stage",
	.err = ENOENT,
	.begins = "/dev/tlock-stage: ",
	.says = "load the tlock module",
};

FIXTURE_VARIANT_ADD(explain, no_device_file)
{
	.hidden = { "/dev" },
	.err = ENOENT,
	.begins = "/dev/tlock: ",
	.says = "pass the device in",
};

FIXTURE_VARIANT_ADD(explain, no_such_lock)
{
	.lock = "nosuch",
	.err = ENOENT,
	.begins = "/dev/tlock-nosuch: ",
	.says = "no such lock: 'ls /sys/class/tlock' lists",
};

FIXTURE_VARIANT_ADD(explain, no_such_path)
{
	.lock = "/nosuch/",
	.err = ENOENT,
	.begins = "/nosuch/: ",
	.says = "no such lock",
};

FIXTURE_VARIANT_ADD(explain, no_permission)
{
	.uid = NOBODY,
	.err = EACCES,
	.begins = "/dev/tlock: permission denied",
	.says = "setfacl -m u:65534:rw /dev/tlock",
};

FIXTURE_VARIANT_ADD(explain, no_tlock)
{
	.lock = "/dev/null",
	.err = ENOTTY,
	.begins = "/dev/null: not a tlock",
	.says = "/sys/class/tlock",
};

FIXTURE_VARIANT_ADD(explain, empty)
{
	.lock = "",
	.err = EINVAL,
	.begins = "(an empty name): ",
	.says = "Invalid argument",
};

FIXTURE_VARIANT_ADD(explain, too_long)
{
	.lock = LONGEST "2",
	.err = ENAMETOOLONG,
	.begins = LONGEST "2: ",
	.says = "at most 127 bytes",
};

FIXTURE_SETUP(explain)
{
	ASSERT_EQ(0, unshare(CLONE_NEWNS));
	ASSERT_EQ(0, mount("", "/", "", MS_REC | MS_PRIVATE, NULL));
	for (int i = 0; i < 2; i++)
		if (variant->hidden[i])
			ASSERT_EQ(0, mount("", variant->hidden[i], "tmpfs", 0,
					   NULL));
	for (int i = 0; variant->made[i]; i++)
		ASSERT_EQ(0, mkdir(variant->made[i], 0755));
	if (variant->state) {
		int fd = creat("/sys/module/tlock/initstate", 0444);
		ssize_t len = strlen(variant->state);

		ASSERT_EQ(len, write(fd, variant->state, len));
		ASSERT_EQ(0, close(fd));
	}
	if (variant->uid)
		ASSERT_EQ(0, setuid(variant->uid));
}

FIXTURE_TEARDOWN(explain)
{
}

TEST_F(explain, says_what_to_do)
{
	char path[PATH_MAX];
	int err;

	EXPECT_EQ(NULL, tlock_open(variant->lock, O_RDWR));
	err = errno;
	EXPECT_EQ(variant->err, err);
	errno = ENOTUNIQ;
	EXPECT_TRUE(self->why == tlock_explain(variant->lock, err, self->why,
					       sizeof(self->why)));
	EXPECT_EQ(ENOTUNIQ, errno);
	EXPECT_EQ(0, strncmp(variant->begins, self->why,
			     strlen(variant->begins))) {
		TH_LOG("%s", self->why);
	}
	EXPECT_NE(NULL, strstr(self->why, variant->says)) {
		TH_LOG("%s", self->why);
	}
	EXPECT_EQ(NULL, strchr(self->why, '\n'));
	EXPECT_GT(sizeof(self->why) - 64, strlen(self->why));

	/* What does not fit */
	memset(path, 'p', sizeof(path));
	tlock_explain(variant->lock, err, path, 8);
	EXPECT_EQ(7, strnlen(path, 8));
	EXPECT_EQ('p', path[8]);
	tlock_explain(variant->lock, err, path + 9, 0);
	EXPECT_EQ('p', path[9]);
}

TEST(explain_other_errors)
{
	char why[TLOCK_EXPLAIN_SIZE], path[PATH_MAX];

	tlock_explain(NULL, EPERM, why, sizeof(why));
	EXPECT_NE(NULL, strstr(why, "DeviceAllow="));
	tlock_explain("stage", EMFILE, why, sizeof(why));
	EXPECT_STREQ("/dev/tlock-stage: Too many open files", why);

	/* A path that fills it */
	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = 0;
	for (int err = 1; err < 130; err++) {
		tlock_explain(path, err, why, sizeof(why));
		EXPECT_EQ(sizeof(why) - 1, strlen(why));
	}
}

TEST_HARNESS_MAIN
