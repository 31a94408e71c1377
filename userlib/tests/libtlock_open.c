// SPDX-License-Identifier: GPL-2.0-only
/*
 * How libtlock opens a lock. Runs as root with the module loaded, and needs
 * /dev/tlock for itself.
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

#include "locks.h"
#include "table.h"

#define NOBODY	65534

/* With "tlock-" before it, a device's name of 127 bytes */
#define LONGEST								\
	"789.123456789.123456789.123456789.123456789.123456789.123456789." \
	"123456789.123456789.123456789.123456789.123456789.1234567"
_Static_assert(sizeof("tlock-" LONGEST) == TLOCK_NAME_SIZE, "the longest name");

/* Counts the open descriptors, up to a limit that no test reaches */
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

	/* The names of other locks' devices, in a /dev of the test's own */
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

	/* It is not opened even for a moment, as others may wait at it */
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

	/* A device number that no driver has */
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

/* The same table is for Python, whose test is in test_errors.py */
TEST(names)
{
	FILE *names = open_table(TEST_DIR "names");
	char line[TABLE_LINE], buf[TLOCK_PATH_SIZE];
	char *expected;
	int count = 0;

	while (next_case(names, line, &expected)) {
		/* The environment names a lock in the same ways */
		const char *const locks[] = { line, NULL };

		ASSERT_EQ(0, setenv("TLOCK", line, 1));
		for (int i = 0; i < 2; i++) {
			const char *path;

			errno = 0;
			path = tlock_path(locks[i], buf);
			if (!strcmp(expected, "ENAMETOOLONG")) {
				EXPECT_EQ(NULL, path);
				EXPECT_EQ(ENAMETOOLONG, errno);
				continue;
			}
			EXPECT_STREQ(expected, path);
			if (locks[i])
				EXPECT_TRUE(path == (strchr(line, '/') ? line :
									 buf));
		}
		ASSERT_EQ(0, unsetenv("TLOCK"));
		count++;
	}
	EXPECT_LE(15, count);

	EXPECT_STREQ("/dev/tlock", tlock_path(NULL, buf));
	errno = 0;
	EXPECT_EQ(NULL, tlock_path("", buf));
	EXPECT_EQ(EINVAL, errno);
}

TEST(default_lock)
{
	static const char *const lists[] = {
		"psu,stage", "psu,", ",", "/dev/tlock,/dev/tlock-stage",
	};
	char buf[TLOCK_PATH_SIZE];

	ASSERT_EQ(0, setenv("TLOCK", "", 1));
	EXPECT_STREQ("/dev/tlock", tlock_path(NULL, buf));
	ASSERT_EQ(0, setenv("TLOCK", "stage", 1));
	EXPECT_STREQ("/dev/tlock-stage", tlock_path(NULL, buf));
	/* An argument wins, and an empty one is no default */
	EXPECT_STREQ("/dev/tlock-psu", tlock_path("psu", buf));
	EXPECT_STREQ("/dev/tlock", tlock_path("tlock", buf));
	errno = 0;
	EXPECT_EQ(NULL, tlock_path("", buf));
	EXPECT_EQ(EINVAL, errno);

	/* A list is for Python */
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
		ASSERT_EQ(0, setenv("TLOCK", lists[i], 1));
		errno = 0;
		EXPECT_EQ(NULL, tlock_path(NULL, buf));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_OPEN_FAILS(EINVAL, NULL, O_RDWR);
		EXPECT_OPENS("tlock");
	}
}

/* With this variable, this program prints the path of the default lock. */
#define PRINT	"LIBTLOCK_OPEN_PRINT"

static __attribute__((__constructor__)) void print_default(void)
{
	char buf[TLOCK_PATH_SIZE];

	if (getenv(PRINT)) {
		puts(tlock_path(NULL, buf));
		exit(0);
	}
}

/* Runs @program as nobody. Returns what it prints, up to a newline. */
static void run_as_nobody(const char *program, char line[64])
{
	int fds[2];
	FILE *file;
	pid_t pid;

	line[0] = '\0';
	if (pipe2(fds, O_CLOEXEC))
		return;
	pid = fork();
	if (!pid) {
		dup2(fds[1], STDOUT_FILENO);
		if (!setgid(NOBODY) && !setuid(NOBODY))
			execl(program, program, NULL);
		_exit(127);
	}
	close(fds[1]);
	file = fdopen(fds[0], "r");
	if (fgets(line, 64, file))
		line[strcspn(line, "\n")] = '\0';
	fclose(file);
	if (exit_status(pid))
		line[0] = '\0';
}

/*
 * A program with more privileges than its caller does not let the caller choose
 * the lock.
 */
TEST_F(open, environment_of_a_set_user_id_program)
{
	char program[64], copy[128], line[64];

	/* A path of its own, which nobody may search */
	ASSERT_EQ(0, chmod(self->dir, 0755));
	snprintf(program, sizeof(program), "%s/program", self->dir);
	snprintf(copy, sizeof(copy), "cp /proc/%d/exe %s", getpid(), program);
	ASSERT_EQ(0, system(copy));
	ASSERT_EQ(0, setenv("TLOCK", "stage", 1));
	ASSERT_EQ(0, setenv(PRINT, "1", 1));
	ASSERT_EQ(0, chmod(program, 0755));
	run_as_nobody(program, line);
	EXPECT_STREQ("/dev/tlock-stage", line);
	ASSERT_EQ(0, chmod(program, 04755));
	run_as_nobody(program, line);
	EXPECT_STREQ("/dev/tlock", line);
	EXPECT_EQ(0, unlink(program));
}

TEST(named_locks)
{
	struct tlock *stage, *psu, *first, *other;
	struct tlock_status status;

	ASSERT_EQ(0, create_lock("stage"));
	ASSERT_EQ(0, create_lock(LONGEST));
	ASSERT_EQ(0, setenv("TLOCK", "stage", 1));
	stage = tlock_open(NULL, O_RDWR);
	other = tlock_open("stage", O_RDWR);
	psu = tlock_open(LONGEST, O_RDWR);
	first = tlock_open("tlock", O_RDWR);
	ASSERT_TRUE(stage && other && psu && first);

	/* Each is a lock of its own */
	EXPECT_EQ(0, tlock_acquire(stage, "a", TLOCK_TRY));
	EXPECT_EQ(0, tlock_acquire(psu, "b", TLOCK_TRY));
	EXPECT_EQ(0, tlock_acquire(first, "c", TLOCK_TRY));
	EXPECT_EQ(-1, tlock_acquire(other, "d", TLOCK_TRY));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_STREQ("a", tlock_blocker(other)->job);
	EXPECT_EQ(0, tlock_status(psu, &status));
	EXPECT_STREQ("tlock-" LONGEST, status.name);
	EXPECT_STREQ("b", status.holder.job);

	EXPECT_EQ(0, tlock_release(stage));
	EXPECT_EQ(0, tlock_release(psu));
	EXPECT_EQ(0, tlock_release(first));
	tlock_close(stage);
	tlock_close(other);
	tlock_close(psu);
	tlock_close(first);

	/* One for looking only sees that the lock is gone */
	stage = tlock_open(NULL, O_RDONLY);
	ASSERT_NE(NULL, stage);
	EXPECT_EQ(0, delete_lock("stage"));
	EXPECT_EQ(0, delete_lock(LONGEST));
	EXPECT_EQ(-1, tlock_status(stage, &status));
	EXPECT_EQ(ENODEV, errno);
	tlock_close(stage);
	EXPECT_OPEN_FAILS(ENOENT, NULL, O_RDWR);
}

TEST_HARNESS_MAIN
