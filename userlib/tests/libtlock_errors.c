// SPDX-License-Identifier: GPL-2.0-only
/*
 * What tlock_explain() says when a lock cannot be opened: the cases of the file
 * "errors", which explains its own format. Runs as root with the module loaded.
 */
#define _GNU_SOURCE
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include <tlock.h>

#include "locks.h"

static const struct {
	const char *name;
	int err;
} errnos[] = {
	{ "EACCES", EACCES },
	{ "EMFILE", EMFILE },
	{ "ENAMETOOLONG", ENAMETOOLONG },
	{ "ENOENT", ENOENT },
	{ "ENOSYS", ENOSYS },
	{ "ENOTTY", ENOTTY },
	{ "ENXIO", ENXIO },
	{ "EPERM", EPERM },
};

/* What a case has set so far; each case runs in a process of its own. */
static struct {
	char name[64];
	char lock[512];
	int err;
} this_case = { .lock = "/dev/tlock" };

/* A case's process prints what is wrong and exits. */
#define require(condition) do {						\
	if (!(condition)) {						\
		fprintf(stderr, "# %s: line %d: %s: %s\n",		\
			this_case.name, __LINE__, #condition,		\
			strerror(errno));				\
		_exit(1);						\
	}								\
} while (0)

static int to_errno(const char *name)
{
	for (size_t i = 0; i < sizeof(errnos) / sizeof(*errnos); i++)
		if (!strcmp(errnos[i].name, name))
			return errnos[i].err;
	require(!"an errno that is not in the list");
	return 0;
}

static void hide(const char *dir)
{
	require(!mkdir(dir, 0755) || errno == EEXIST);
	require(!mount("", dir, "tmpfs", 0, "mode=755"));
}

static void shell(const char *commands)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		execl("/bin/bash", "bash", "-ec", commands, NULL);
		_exit(127);
	}
	require(waitpid(pid, &status, 0) == pid && !status);
}

static void deny(const char *what)
{
	char call[16], name[16];
	bool open;

	require(sscanf(what, "%15s %15s", call, name) == 2);
	open = !strcmp(call, "open");
	require(open || !strcmp(call, "ioctl"));

	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
			 open ? SYS_openat : SYS_ioctl, 0, 4),
		/*
		 * Compares the lower half of open's flags, and nothing for an
		 * ioctl
		 */
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, args[2])),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, open ? O_ACCMODE : 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, open ? O_RDWR : 0, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | to_errno(name)),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {
		.len = sizeof(filter) / sizeof(*filter),
		.filter = filter,
	};

	require(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	require(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void become(const char *ids)
{
	unsigned int uid, gid;

	require(sscanf(ids, "%u %u", &uid, &gid) == 2);
	require(!setgroups(0, NULL) && !setgid(gid) && !setuid(uid));
}

/* Replaces $NAME by the value of that environment variable. */
static void expand(char *text, size_t size, const char *name)
{
	char *at = strstr(text, name);
	char *rest;

	if (!at)
		return;
	rest = strdup(at + strlen(name));
	snprintf(at, size - (at - text), "%s%s", getenv(name + 1), rest);
	free(rest);
}

static void check_text(const char *text)
{
	char expected[2048], why[TLOCK_EXPLAIN_SIZE], small[16];
	const char *dev = strchr(this_case.lock, '/') ? "" : "/dev/tlock-";

	snprintf(expected, sizeof(expected), "%s%s: %s", dev, this_case.lock,
		 text);
	expand(expected, sizeof(expected), "$DEV");
	expand(expected, sizeof(expected), "$VERSION");

	require(!tlock_open(this_case.lock, O_RDWR));
	require(errno == this_case.err);
	errno = ENOTUNIQ;
	require(tlock_explain(this_case.lock, this_case.err, why,
			      sizeof(why)) == why);
	require(errno == ENOTUNIQ);
	if (strcmp(why, expected)) {
		fprintf(stderr, "# %s: %s\n#   instead of: %s\n",
			this_case.name, why, expected);
		_exit(1);
	}
	/* There is room for a longer path, unless the path is long already */
	require(strlen(this_case.lock) > 200 ||
		strlen(why) < sizeof(why) - 64);

	/* A text that does not fit is cut off */
	memset(small, 's', sizeof(small));
	tlock_explain(this_case.lock, this_case.err, small, 8);
	require(strnlen(small, 8) == 7 && small[8] == 's');
	tlock_explain(this_case.lock, this_case.err, small + 9, 0);
	require(small[9] == 's');
	_exit(0);
}

static void obey(const char *word, const char *rest)
{
	if (!strcmp(word, "hide"))
		hide(rest);
	else if (!strcmp(word, "sh"))
		shell(rest);
	else if (!strcmp(word, "deny"))
		deny(rest);
	else if (!strcmp(word, "make"))
		require(!create_lock(rest));
	else if (!strcmp(word, "as"))
		become(rest);
	else if (!strcmp(word, "lock"))
		strcpy(this_case.lock, rest);
	else if (!strcmp(word, "errno"))
		this_case.err = to_errno(rest);
	else if (!strcmp(word, "text"))
		check_text(rest);
	else
		require(!"a word that is not known");
}

/* Puts the first line of a file into an environment variable. */
static void to_environment(const char *name, const char *path)
{
	char line[64] = "";
	FILE *file = fopen(path, "r");

	require(file && fgets(line, sizeof(line), file));
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
	require(!setenv(name, line, 1));
}

/* Exits with 0: as expected; 1: not as expected; 2: no such case. */
static void run_case(int number)
{
	char line[1024];
	FILE *file = fopen(TEST_DIR "errors", "r");
	int current = -1;

	require(file);
	to_environment("DEV", "/sys/class/tlock/tlock/dev");
	to_environment("VERSION", "/sys/module/tlock/version");
	require(!unshare(CLONE_NEWNS));
	require(!mount("", "/", "", MS_REC | MS_PRIVATE, NULL));
	while (fgets(line, sizeof(line), file)) {
		char *rest = line + strcspn(line, " \n");

		require(strchr(line, '\n'));
		line[strcspn(line, "\n")] = '\0';
		if (*rest == ' ')
			*rest++ = '\0';
		if (!*line || *line == '#')
			continue;
		if (!strcmp(line, "case")) {
			current++;
			strncpy(this_case.name, rest,
				sizeof(this_case.name) - 1);
		} else if (current < 0 || current == number) {
			obey(line, rest);
		}
	}
	/* The text line of this case would have exited */
	require(current < number);
	_exit(2);
}

/* Deletes the locks that a case has made. */
static void delete_locks(void)
{
	const char prefix[] = "/sys/class/tlock/tlock-";
	glob_t made;

	if (glob("/sys/class/tlock/tlock-*", 0, NULL, &made))
		return;
	for (size_t i = 0; i < made.gl_pathc; i++)
		delete_lock(made.gl_pathv[i] + strlen(prefix));
	globfree(&made);
}

FIXTURE(errors)
{
};

FIXTURE_SETUP(errors)
{
}

FIXTURE_TEARDOWN(errors)
{
}

/* Each case starts some programs, which takes time on a slow machine */
TEST_F_TIMEOUT(errors, as_in_the_table, 300)
{
	int number = 0;

	for (;; number++) {
		pid_t pid = fork();
		int status;

		ASSERT_LE(0, pid);
		if (!pid)
			run_case(number);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_TRUE(WIFEXITED(status));
		delete_locks();
		if (WEXITSTATUS(status) == 2)
			break;
		EXPECT_EQ(0, WEXITSTATUS(status));
	}
	EXPECT_LE(40, number);
}

#define EXPECT_EXPLAINS(lock, err, text) do {				\
	char why_[TLOCK_EXPLAIN_SIZE];					\
									\
	EXPECT_STREQ(text, tlock_explain(lock, err, why_,		\
					 sizeof(why_)));		\
} while (0)

/* Texts that only C has: in Python, these are no OSError */
TEST(bad_names)
{
	char name[TLOCK_NAME_SIZE], text[TLOCK_EXPLAIN_SIZE];

	EXPECT_EXPLAINS("", EINVAL, "(an empty name): Invalid argument");
	EXPECT_EXPLAINS("a b", EINVAL,
			"/dev/tlock-a b: no lock can have this name: names have 1 to 121 of A-Z a-z 0-9 # + - . : = @ _, and begin with a letter or digit, but not with tlock-");
	EXPECT_EXPLAINS("stage", EINVAL, "/dev/tlock-stage: Invalid argument");
	EXPECT_EXPLAINS("", 0, "(an empty name): Invalid argument");
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	snprintf(text, sizeof(text),
		 "%s: the name is too long: a device's name has at most 127 bytes",
		 name);
	EXPECT_EXPLAINS(name, ENAMETOOLONG, text);
	EXPECT_EXPLAINS(NULL, EBADF, "/dev/tlock: Bad file descriptor");
	EXPECT_EXPLAINS("stage", EMFILE,
			"/dev/tlock-stage: Too many open files");
}

TEST(default_lock)
{
	ASSERT_EQ(0, setenv("TLOCK", "stage", 1));
	EXPECT_EXPLAINS(NULL, EMFILE,
			"/dev/tlock-stage: Too many open files");
	ASSERT_EQ(0, setenv("TLOCK", "./stage", 1));
	EXPECT_EXPLAINS(NULL, EMFILE, "./stage: Too many open files");
	ASSERT_EQ(0, setenv("TLOCK", "psu,stage", 1));
	EXPECT_EXPLAINS(NULL, EINVAL,
			"TLOCK=psu,stage: this lists several locks, but only Python takes a list: name one of them");
	EXPECT_EXPLAINS("psu", EMFILE, "/dev/tlock-psu: Too many open files");
}

TEST(path_that_fills_it)
{
	char why[TLOCK_EXPLAIN_SIZE], path[PATH_MAX];

	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = 0;
	for (int err = 1; err < 130; err++) {
		tlock_explain(path, err, why, sizeof(why));
		EXPECT_EQ(sizeof(why) - 1, strlen(why));
	}
}

TEST_HARNESS_MAIN
