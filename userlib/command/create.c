// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock create and tlock delete: which locks there are. The module creates and
 * deletes them; this says what to do where it refuses, and waits until udev has
 * given a new lock to those who may take it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sysexits.h>
#include <unistd.h>

#include "command.h"

/* How long to wait for udev, and how often to look: it takes milliseconds */
#define UDEV_NS		(10 * NS_PER_S)
#define LOOK_NS		2000000

static const char usage_create[] =
"Usage:\n"
" tlock create [--gated] NAME...\n"
"\n"
"Create locks, which exist until they are deleted or the module is unloaded. A\n"
"lock that exists already is left as it is. Only root may do this.\n"
"\n"
"A NAME has 1 to 121 of A-Z a-z 0-9 # + - . : = @ _, and begins with a letter or\n"
"digit, but not with tlock-. The lock's device is /dev/tlock-NAME.\n";

static const char usage_delete[] =
"Usage:\n"
" tlock delete NAME...\n"
"\n"
"Delete locks that no process has open to take them. Only root may do this.\n";

static const char usage_options[] =
"\n"
"Options:\n";

static const char usage_gated[] =
"     --gated    locks that several hosts share, through tlockd on each\n";

static const char usage_end[] =
" -h, --help     display this help\n"
" -V, --version  display version\n"
"\n"
"For more details see tlock(1).\n";

/* Which of the commands this is */
struct command {
	const char *name;
	const char *usage;
	const char *attribute;	/* of the class: takes names */
	bool creates;
	int (*refused)(const char *lock, const char *path, int error);
};

/*
 * The name of the lock that @lock means, in any form that tlock_open() takes,
 * with its path in @path; empty for the first lock. NULL if it is no name, or a
 * path elsewhere.
 */
static const char *name_of(const char *lock, char path[TLOCK_PATH_SIZE])
{
	static const char begin[] = "/dev/tlock-";
	const char *found = tlock_path(lock, path);

	if (!found || strlen(found) >= TLOCK_PATH_SIZE)
		return NULL;
	if (found != path)
		strcpy(path, found);
	if (!strcmp(path, "/dev/tlock"))
		return "";
	if (strncmp(path, begin, strlen(begin)) || !path[strlen(begin)] ||
	    strchr(path + strlen(begin), '/'))
		return NULL;
	return path + strlen(begin);
}

/* Says that @lock is no name. Returns the exit status. */
static int bad_name(const char *lock)
{
	char why[2 * TLOCK_EXPLAIN_SIZE];

	if (strchr(lock, '/'))
		warnx("%s: a lock is created and deleted by its name: NAME for /dev/tlock-NAME",
		      lock);
	else
		warnx("%s", tlock_explain(lock, EINVAL, why, sizeof(why)));
	return EX_USAGE;
}

/* Returns the exit status of the error, if the system is to blame. */
static int status_of(int error)
{
	return error == EACCES || error == EPERM ? EX_NOPERM : EX_OSERR;
}

/* Whether the lock at @path has a gate; an older module knows no gates. */
static bool is_gated(const char *path)
{
	char attribute[sizeof(CLASS "//gate") + TLOCK_NAME_SIZE];
	bool found;
	FILE *file;

	snprintf(attribute, sizeof(attribute), CLASS "/%s/gate",
		 basename(path));
	file = fopen(attribute, "re");
	if (!file)
		return false;
	found = getc(file) != '\n';
	fclose(file);
	return found;
}

static int create_refused(const char *lock, const char *path, int error)
{
	switch (error) {
	case EEXIST:
		/* What was asked for: scripts need not look first */
		warnx("%s exists already%s", path,
		      is_gated(path) ? ", and is gated" : "");
		return EX_OK;
	case EINVAL:
		return bad_name(lock);
	case ENOSPC:
		warnx("%s: there are as many locks as the module allows: see 'tlock list', and delete those that are not used",
		      path);
		return EX_OSERR;
	default:
		warnx("%s: cannot create it: %s", path, strerror(error));
		return status_of(error);
	}
}

static int create_gated_refused(const char *lock, const char *path, int error)
{
	if (error != EEXIST || is_gated(path))
		return create_refused(lock, path, error);
	if (!strcmp(path, "/dev/tlock"))
		warnx("%s is the first lock, which cannot be gated", path);
	else
		warnx("%s exists already, but is not gated: while nobody uses it, run 'tlock delete %s', and then this again",
		      path, lock);
	return EX_CANTCREAT;
}

/* Gets the number of a lock's device from sysfs. */
static bool device_of(const char *path, dev_t *device)
{
	char attribute[sizeof(CLASS "//dev") + TLOCK_NAME_SIZE];
	unsigned int maj, min;
	bool found;
	FILE *file;

	snprintf(attribute, sizeof(attribute), CLASS "/%s/dev", basename(path));
	file = fopen(attribute, "re");
	if (!file)
		return false;
	found = fscanf(file, "%u:%u", &maj, &min) == 2;
	fclose(file);
	*device = makedev(maj, min);
	return found;
}

static int delete_refused(const char *lock, const char *path, int error)
{
	char *users;
	dev_t device;

	switch (error) {
	case EBUSY:
		users = device_of(path, &device) ? users_of(device) : NULL;
		warnx("%s is in use by %s", path, users && *users ? users :
		      "a process that cannot be seen from here, or a file on its way through a socket");
		free(users);
		return EX_TEMPFAIL;
	case EEXIST:
		warnx("%s is the first lock, which exists as long as the module is loaded",
		      path);
		return EX_USAGE;
	case EINVAL:
		return bad_name(lock);
	case ENOENT:
		warnx("%s: no such lock: 'tlock list' shows those that there are",
		      path);
		return EX_NOINPUT;
	default:
		warnx("%s: cannot delete it: %s", path, strerror(error));
		return status_of(error);
	}
}

/*
 * Opens the attribute that takes names. Returns the descriptor, or -1 and the
 * exit status.
 */
static int open_attribute(const struct command *command, int *status)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), CLASS "/%s", command->attribute);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	switch (errno) {
	case ENOENT:
		/* An older module has locks, but none that are gated */
		*status = access(CLASS "/new_lock", F_OK) ?
			cannot_open("tlock", ENOENT) :
			(cannot_open("tlock", ENOTTY), EX_OSERR);
		return -1;
	case EACCES:
	case EPERM:
		warnx("permission denied: only root may %s locks",
		      command->name);
		*status = EX_NOPERM;
		return -1;
	case EROFS:
		warnx("%s is read-only, as in a container: %s the lock on its host",
		      CLASS, command->name);
		*status = EX_NOPERM;
		return -1;
	default:
		warn("%s", path);
		*status = EX_OSERR;
		return -1;
	}
}

/* Returns 0, or an errno, which is EEXIST for the first lock. */
static int write_name(int fd, const char *name)
{
	char line[TLOCK_NAME_SIZE + 1];
	int len = snprintf(line, sizeof(line), "%s\n", name);

	if (!*name)
		return EEXIST;
	return write(fd, line, len) == len ? 0 : errno;
}

/* A lock that was just created, or existed already */
struct created {
	char path[TLOCK_PATH_SIZE];
	int64_t since_ns;	/* by the clock of files; 0: existed */
};

/*
 * Whether udev has applied its rules to a lock's device file. After that, it
 * writes an entry to its database, even if that is empty. An older entry is that
 * of another device, which had the same number.
 */
static bool udev_is_done(const struct created *lock)
{
	struct stat entry;
	char path[64];
	dev_t device;

	if (!device_of(lock->path, &device))
		return true;	/* deleted */
	snprintf(path, sizeof(path), "/run/udev/data/c%u:%u", major(device),
		 minor(device));
	if (stat(path, &entry))
		/* Where it began after the lock, it may not know the lock */
		return !lock->since_ns && access("/run/udev/queue", F_OK);
	return entry.st_mtim.tv_sec * NS_PER_S + entry.st_mtim.tv_nsec >=
		lock->since_ns;
}

/*
 * Waits until udev, if it runs, has applied its rules: whoever may take a lock
 * can take it once it has been created.
 */
static void wait_for_udev(const struct created *locks, size_t num)
{
	static const struct timespec pause = { .tv_nsec = LOOK_NS };
	int64_t began = now_ns(CLOCK_MONOTONIC);
	size_t i;

	for (i = 0; i < num; i++) {
		while (!access("/run/udev/control", F_OK) &&
		       !udev_is_done(&locks[i])) {
			if (ns_since(began) > UDEV_NS) {
				warnx("%s: udev has not applied its rules within %d seconds: only root may be able to take the lock",
				      locks[i].path,
				      (int)(UDEV_NS / NS_PER_S));
				return;
			}
			nanosleep(&pause, NULL);
		}
	}
}

/* Returns the names, and whether --gated is given. */
static char **parse(int argc, char **argv, const struct command *command,
		    bool *gated)
{
	enum { OPT_GATED = 256 };
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 }
	};
	static const struct option options_create[] = {
		{ "gated", no_argument, NULL, OPT_GATED },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 }
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "hV", command->creates ?
				  options_create : options, NULL)) != -1) {
		switch (opt) {
		case OPT_GATED:
			*gated = true;
			break;
		case 'h':
			printf("%s%s%s%s", command->usage, usage_options,
			       command->creates ? usage_gated : "", usage_end);
			exit(EX_OK);
		case 'V':
			print_version();
			exit(EX_OK);
		default:
			try_help(command->name);
		}
	}
	if (!argv[optind]) {
		warnx("no NAME given");
		try_help(command->name);
	}
	return argv + optind;
}

/* Does what @command says with each of the locks. Returns the exit status. */
static int change(const struct command *command, char **locks, int max)
{
	struct created *created = checked(calloc(max, sizeof(*created)));
	size_t num = 0;
	int status = EX_OK;
	int fd = open_attribute(command, &status);

	for (; fd >= 0 && *locks; locks++) {
		struct created *lock = &created[num];
		const char *name = name_of(*locks, lock->path);
		int failed = EX_OK, error;

		if (!name) {
			status = bad_name(*locks);
			continue;
		}
		lock->since_ns = now_ns(CLOCK_REALTIME_COARSE);
		error = write_name(fd, name);
		if (error) {
			failed = command->refused(*locks, lock->path, error);
			lock->since_ns = 0;
		}
		if (failed)
			status = failed;
		else
			num++;
	}
	if (fd >= 0)
		close(fd);
	if (command->creates)
		wait_for_udev(created, num);
	free(created);
	return status;
}

int create_main(int argc, char **argv)
{
	static const struct command create = {
		"create", usage_create, "new_lock", true, create_refused
	}, create_gated = {
		"create", usage_create, "new_gated_lock", true,
		create_gated_refused
	};
	bool gated = false;
	char **locks = parse(argc, argv, &create, &gated);

	return change(gated ? &create_gated : &create, locks, argc);
}

int delete_main(int argc, char **argv)
{
	static const struct command delete = {
		"delete", usage_delete, "delete_lock", false, delete_refused
	};
	bool gated = false;
	char **locks = parse(argc, argv, &delete, &gated);

	return change(&delete, locks, argc);
}
