// SPDX-License-Identifier: GPL-2.0-only
/*
 * The files in /sys/class/tlock/tlock: who holds the lock, one value per file.
 * (For stats/ see stats.c; for what containers see, namespaces.c.)
 */
#include <dirent.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "tlock_test.h"

TEST_F(tlock, sysfs_files_are_world_readable)
{
	struct stat st;

	for (size_t i = 0; i < SYSFS_FILES; i++) {
		EXPECT_EQ(0, stat(sysfs_files[i], &st)) {
			TH_LOG("%s", sysfs_files[i]);
		}
		EXPECT_EQ(S_IFREG | 0444, st.st_mode) {
			TH_LOG("%s", sysfs_files[i]);
		}
	}
	ASSERT_EQ(0, stat(SYSFS "/stats", &st));
	EXPECT_EQ(S_IFDIR | 0755, st.st_mode);
}

/* In an agent: reads each file as an unprivileged user. */
static int read_as_nobody(int fd, struct tlock_acquire *arg)
{
	if (setegid(65534) || seteuid(65534))
		return -errno;
	for (arg->token = 0; arg->token < SYSFS_FILES; arg->token++)
		read_text(sysfs_files[arg->token]);
	return 0;
}

TEST_F(tlock, sysfs_files_can_be_read_by_anybody)
{
	struct tlock_acquire arg = ask(0, "");
	struct agent *a = agent();

	take(self->fd, "holder");
	ASSERT_EQ(0, agent_do(a, read_as_nobody, &arg));
	EXPECT_EQ(SYSFS_FILES, arg.token);
	EXPECT_EQ(0, release(self->fd));
}

TEST_F(tlock, sysfs_documented_files_and_no_others)
{
	/* Every device has these; one with hardware would also have power/ */
	static const char *const others[] = {
		".", "..", "dev", "subsystem", "uevent", "stats",
	};
	static const char *const dirs[] = { SYSFS, SYSFS "/stats" };
	struct dirent *entry;
	char path[300];
	size_t n = 0, i;
	DIR *dir;

	for (int d = 0; d < 2; d++) {
		dir = opendir(dirs[d]);
		ASSERT_NE(NULL, dir);
		while ((entry = readdir(dir))) {
			for (i = 0; i < ARRAY_SIZE(others); i++)
				if (!strcmp(entry->d_name, others[i]))
					break;
			if (i < ARRAY_SIZE(others))
				continue;
			snprintf(path, sizeof(path), "%s/%s",
				 dirs[d], entry->d_name);
			for (i = 0; i < SYSFS_FILES; i++)
				if (!strcmp(path, sysfs_files[i]))
					break;
			EXPECT_GT(SYSFS_FILES, i) {
				TH_LOG("%s is not documented", path);
			}
			n++;
		}
		closedir(dir);
	}
	EXPECT_EQ(SYSFS_FILES, n);
}

TEST_F(tlock, sysfs_device_number)
{
	char number[40];
	struct stat st;

	ASSERT_EQ(0, stat(DEVICE, &st));
	ASSERT_TRUE(S_ISCHR(st.st_mode));
	snprintf(number, sizeof(number), "%u:%u", major(st.st_rdev),
		 minor(st.st_rdev));
	EXPECT_STREQ(number, sysfs_text("dev"));
}

#define EXPECT_FREE() do {						\
	EXPECT_STREQ("", sysfs_text("job"));				\
	/* Not 0: a user, and to kill(1) its own process group */	\
	EXPECT_STREQ("", sysfs_text("pid"));				\
	EXPECT_STREQ("", sysfs_text("uid"));				\
	EXPECT_STREQ("", sysfs_text("comm"));				\
	EXPECT_STREQ("0", sysfs_text("token"));				\
	EXPECT_STREQ("0", sysfs_text("held_ns"));			\
	EXPECT_STREQ("0", sysfs_text("waiters"));			\
} while (0)

/* In an agent: sets the name and user to be shown */
static int be_known(int fd, struct tlock_acquire *arg)
{
	if (prctl(PR_SET_NAME, arg->job) || seteuid(arg->timeout_ns))
		return -errno;
	return 0;
}

TEST_F(tlock, sysfs_holder)
{
	struct tlock_acquire known = ask(1234567, "scanner");
	__s64 before, begun, look_before, held;
	struct agent *a = agent();
	struct call *waiters[3];
	char text[40];
	__u64 token;

	EXPECT_FREE();
	ASSERT_EQ(0, agent_do(a, be_known, &known));
	before = now();
	token = agent_take(a, "az scan, el 45\xc2\xb0");
	begun = now();
	EXPECT_STREQ("az scan, el 45\xc2\xb0", sysfs_text("job"));
	snprintf(text, sizeof(text), "%d", (int)a->pid);
	EXPECT_STREQ(text, sysfs_text("pid"));
	EXPECT_STREQ("1234567", sysfs_text("uid"));
	EXPECT_STREQ("scanner", sysfs_text("comm"));
	snprintf(text, sizeof(text), "%llu", token);
	EXPECT_STREQ(text, sysfs_text("token"));
	EXPECT_STREQ("0", sysfs_text("waiters"));

	for (int i = 0; i < 3; i++) {
		usleep(5000);
		look_before = now();
		held = sysfs_number("held_ns");
		EXPECT_LE(look_before - begun, held);
		EXPECT_GE(now() - before, held);
	}

	for (int i = 0; i < 3; i++) {
		waiters[i] = call(contender(), acquire, FOREVER, "waiter");
		ASSERT_TRUE(await_waiters(self->fd, i + 1));
		EXPECT_EQ(i + 1, sysfs_number("waiters"));
	}
	EXPECT_STREQ("scanner", sysfs_text("comm"));

	ASSERT_EQ(0, agent_release(a));
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, result(waiters[i]));
		EXPECT_EQ(2 - i, sysfs_number("waiters"));
		EXPECT_EQ(token + 1 + i, sysfs_number("token"));
		EXPECT_STREQ("waiter", sysfs_text("job"));
		EXPECT_EQ(getpid(), sysfs_number("pid"));
		EXPECT_EQ(0, sysfs_number("uid"));
		ASSERT_EQ(0, release(waiters[i]->fd));
		close(waiters[i]->fd);
	}
	EXPECT_FREE();
}

TEST_F(tlock, sysfs_holder_without_a_job)
{
	take(self->fd, "");
	EXPECT_STREQ("", sysfs_text("job"));
	EXPECT_EQ(getpid(), sysfs_number("pid"));
	EXPECT_NE(0, sysfs_number("token"));
	EXPECT_EQ(0, release(self->fd));
	EXPECT_FREE();
}

/* A process can give itself any name, but cannot forge a line by that. */
FIXTURE(comm)
{
	int fd;
};

FIXTURE_VARIANT(comm)
{
	const char *name;
	const char *shown;
};

FIXTURE_VARIANT_ADD(comm, plain)
{
	.name = "a name (x) 'y'",
	.shown = "a name (x) 'y'",
};

FIXTURE_VARIANT_ADD(comm, with_newline)
{
	.name = "a\nb\n",
	.shown = "a?b?",
};

FIXTURE_VARIANT_ADD(comm, with_escape)
{
	.name = "\x1b[31m\x07\x7f",
	.shown = "?[31m??",
};

/* One question mark per byte */
FIXTURE_VARIANT_ADD(comm, with_c1)
{
	.name = "a\xc2\x9bm\xc2\x80",
	.shown = "a??m??",
};

FIXTURE_VARIANT_ADD(comm, in_utf8)
{
	.name = "\xc3\xa9t\xc3\xa9\xc2\xa0\xc2\xb5",
	.shown = "\xc3\xa9t\xc3\xa9\xc2\xa0\xc2\xb5",
};

/* The name is cut off within a control character, after its first byte */
FIXTURE_VARIANT_ADD(comm, cut_off)
{
	.name = "12345678901234\xc2\x9b",
	.shown = "12345678901234\xc2",
};

FIXTURE_SETUP(comm)
{
	self->fd = contender();
	ASSERT_FREE(self->fd);
}

FIXTURE_TEARDOWN(comm)
{
	EXPECT_EQ(0, release(self->fd));
	close(self->fd);
	EXPECT_LEFT_FREE();
}

TEST_F(comm, sysfs_comm)
{
	char padded[TLOCK_COMM_SIZE] = "";
	struct tlock_holder holder;

	ASSERT_EQ(0, prctl(PR_SET_NAME, variant->name));
	take(self->fd, "holder");
	EXPECT_STREQ(variant->shown, sysfs_text("comm"));
	/* The ioctl returns the name unchanged, filled up with NULs */
	memcpy(padded, variant->name,
	       strnlen(variant->name, sizeof(padded) - 1));
	holder = look(self->fd).holder;
	EXPECT_EQ(0, memcmp(padded, holder.comm, sizeof(padded)));
}

/* The name is that of the process, not of a thread, at the time of the grant */
static int take_as_thread(int fd, struct tlock_acquire *arg)
{
	prctl(PR_SET_NAME, "thread");
	return acquire(fd, arg);
}

TEST_F(tlock, sysfs_comm_is_of_the_process)
{
	struct call *c;

	ASSERT_EQ(0, prctl(PR_SET_NAME, "process"));
	c = call(self->fd, take_as_thread, 0, "job");
	ASSERT_EQ(0, result(c));
	EXPECT_STREQ("process", sysfs_text("comm"));
	EXPECT_EQ(getpid(), sysfs_number("pid"));
	ASSERT_EQ(0, prctl(PR_SET_NAME, "later"));
	EXPECT_STREQ("process", sysfs_text("comm"));
	EXPECT_EQ(0, release(self->fd));
}

/* The user is the effective one at the time of the request */
static int take_as_user(int fd, struct tlock_acquire *arg)
{
	uid_t euid = arg->timeout_ns;
	int ret;

	if (setresuid(1111, euid, 0))
		return -errno;
	arg->timeout_ns = 0;
	ret = acquire(fd, arg);
	if (setresuid(-1, 0, 0) || setresuid(2222, 0, 0))
		return -errno;
	return ret;
}

TEST_F(tlock, sysfs_uid_is_the_effective_one)
{
	struct tlock_acquire arg = ask(3333, "job");
	struct agent *a = agent();

	ASSERT_EQ(0, agent_do(a, take_as_user, &arg));
	EXPECT_STREQ("3333", sysfs_text("uid"));
	EXPECT_EQ(3333, look(self->fd).holder.uid);
	EXPECT_EQ(0, agent_release(a));
}

TEST_HARNESS_MAIN
