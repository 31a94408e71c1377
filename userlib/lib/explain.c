// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Why a lock cannot be opened, and what to do about it. The same texts are in
 * python/tlock/_explain.py, and tests/errors has an example of each.
 */
#include <dirent.h>
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "libtlock.h"

#define CLASS	"/sys/class/tlock"
#define RULES	"/etc/udev/rules.d/60-tlock.rules"
#define PREFIX	"tlock-"
#define ALNUM	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* How many locks a text names */
#define MOST_LOCKS	8
/* Room for the host's entry of a user or of a group with its members */
#define NAMES_SIZE	65536
#define MOST_GROUPS	1024

/* A text that grows, and is cut off where its buffer ends */
struct text {
	char *buf;
	size_t size, len;
};

static __attribute__((__format__(__printf__, 2, 3)))
void say(struct text *text, const char *format, ...)
{
	size_t room = text->size > text->len ? text->size - text->len : 0;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(room ? text->buf + text->len : NULL, room, format,
			args);
	va_end(args);
	if (len > 0)
		text->len += len;
}

/* Reads the first line of a file below /sys; empty if it cannot be read. */
static void read_line(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? 0 : read(fd, buf, size - 1);

	buf[len > 0 ? len : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	if (fd >= 0)
		close(fd);
}

static bool module_loaded(void)
{
	char state[16];

	/* A module that is unloaded loses its device files first */
	read_line("/sys/module/tlock/initstate", state, sizeof(state));
	/* The first lock exists as long as the module is loaded */
	return strcmp(state, "going") && !access(CLASS "/tlock", F_OK);
}

/* Whether modprobe finds the module for this kernel release; "*": for any. */
static bool module_installed(const char *release)
{
	char pattern[sizeof("/lib/modules//modules.dep") + NAME_MAX];
	bool found = false;
	char *line = NULL;
	size_t size = 0;
	glob_t paths;

	snprintf(pattern, sizeof(pattern), "/lib/modules/%s/modules.dep",
		 release);
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): only its GLOB_TILDE is */
	if (glob(pattern, 0, NULL, &paths))
		return false;
	for (size_t i = 0; i < paths.gl_pathc && !found; i++) {
		FILE *file = fopen(paths.gl_pathv[i], "re");

		/* "updates/dkms/tlock.ko.xz:" and its dependencies */
		while (file && !found && getline(&line, &size, file) >= 0)
			found = strstr(line, "/tlock.ko");
		if (file)
			fclose(file);
	}
	free(line);
	globfree(&paths);
	return found;
}

/* Whether the kernel refuses a module without a trusted signature */
static bool signatures_enforced(void)
{
	char enforced[4], lockdown[64];

	read_line("/sys/module/module/parameters/sig_enforce", enforced,
		  sizeof(enforced));
	read_line("/sys/kernel/security/lockdown", lockdown, sizeof(lockdown));
	return !strcmp(enforced, "Y") ||
	       (*lockdown && !strstr(lockdown, "[none]"));
}

static void explain_module(struct text *text)
{
	struct utsname kernel;

	uname(&kernel);
	if (module_installed(kernel.release))
		say(text, "the tlock module is not loaded: as root, run 'modprobe tlock'");
	else if (module_installed("*") || !access("/var/lib/dkms/tlock", F_OK))
		say(text, "the tlock module is not built for this kernel: as root, install linux-headers-$(uname -r), build it again (with dkms: 'dkms autoinstall') and run 'modprobe tlock'");
	else
		say(text, "the tlock module is not loaded: as root, for a container on its host, run 'insmod tlock.ko' or, where it is installed, 'modprobe tlock'");
	if (signatures_enforced())
		say(text, "; if that says 'Key was rejected by service' or 'Operation not permitted', the kernel does not trust the module's signature (Secure Boot): enroll the key (of dkms: 'mokutil --import /var/lib/dkms/mok.pub' with a new password), reboot, and select 'Enroll MOK'");
}

/* The class has other files, too */
static int is_lock(const struct dirent *entry)
{
	return !strcmp(entry->d_name, "tlock") ||
	       !strncmp(entry->d_name, PREFIX, sizeof(PREFIX) - 1);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Lists the locks that exist, after @before if there are any */
static void say_locks(struct text *text, const char *before)
{
	struct dirent **entries;
	int num = scandir(CLASS, &entries, is_lock, by_name);

	for (int i = 0; i < num; i++) {
		if (i <= MOST_LOCKS)
			say(text, "%s%s%s", i ? "" : before,
			    i ? ", " : "the locks of this host are ",
			    i < MOST_LOCKS ? entries[i]->d_name : "...");
		free(entries[i]);
	}
	if (num >= 0)
		free(entries);
}

static const char *kind_of_file(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "a regular file";
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	default:
		return "a block device";
	}
}

/* The name of the lock whose device is called @name */
static const char *lock_name(const char *name)
{
	return strncmp(name, PREFIX, sizeof(PREFIX) - 1) ? name :
		name + sizeof(PREFIX) - 1;
}

/* Whether the module creates a lock whose device is called @name */
static bool may_exist(const char *name)
{
	const char *lock = lock_name(name);

	return lock == name ||
	       (strspn(lock, ALNUM) && strcmp(lock, "tlock") &&
		strncmp(lock, PREFIX, sizeof(PREFIX) - 1) &&
		strspn(lock, ALNUM "#+-.:=@_") == strlen(lock));
}

static void say_names(struct text *text)
{
	say(text, "no lock can have this name: names have 1 to %zu of A-Z a-z 0-9 # + - . : = @ _, and begin with a letter or digit, but not with tlock-",
	    TLOCK_NAME_SIZE - sizeof(PREFIX));
}

/* Says how to make a lock. @name: of its device, or NULL: not one in /dev */
static void explain_no_lock(struct text *text, const char *name)
{
	if (!name)
		say(text, "no such lock");
	else if (!may_exist(name))
		say_names(text);
	else
		say(text, "no such lock: as root, for a container on its host, run 'tlock create %s'; to have it after each boot, put 'options tlock names=%s' into a file in /etc/modprobe.d",
		    lock_name(name), lock_name(name));
	say_locks(text, name ? "; " : ": ");
}

/* Gets the status of the lock at @path. Returns 0; -1: no file; 1: no status */
static int look(const char *path, struct tlock_status *status)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int ret = -1;

	if (fd >= 0) {
		ret = !!ioctl(fd, TLOCK_IOC_STATUS, status);
		close(fd);
	}
	return ret;
}

/* Says why @path does not lead to the lock */
static void explain_missing(struct text *text, const char *path, int err)
{
	const char *name = strrchr(path, '/') + 1;
	char entry[sizeof(CLASS "//dev") + NAME_MAX];
	char is[24], should_be[24];
	struct tlock_status status;
	struct stat st;
	bool exists = !stat(path, &st);

	if (exists && !S_ISCHR(st.st_mode) && tlock_own_name(path)) {
		say(text, "%s is in the place of the device (docker's -v makes one if the device is missing): as root, for a container on its host, remove it and load the tlock module again",
		    kind_of_file(st.st_mode));
		return;
	}
	if (exists && err == ENOTTY && S_ISCHR(st.st_mode) &&
	    tlock_is_lock(st.st_rdev)) {
		read_line("/sys/module/tlock/version", is, sizeof(is));
		say(text, "the tlock module, version %s, does not know this program's ioctls: install the module and the library or package of the same version, and load it: reboot, or run 'rmmod tlock && modprobe tlock' as root",
		    is);
		return;
	}
	if (exists && err == ENOTTY && !tlock_own_name(path)) {
		say(text, "not a tlock");
		say_locks(text, ": ");
		return;
	}
	if (exists && err == ENXIO && tlock_own_name(path) &&
	    !look(path, &status) && strcmp(status.name, name)) {
		const char *lock = lock_name(status.name);

		say(text, "the device file leads to another lock, %s: pass a lock into a container under its own name (docker: --device /dev/%s) and choose it there by TLOCK=%s (tlock run: -d %s); if the file is stale, start the container again or, elsewhere, remove it and load the tlock module again",
		    status.name, status.name, lock, lock);
		return;
	}
	if (access("/sys/class", F_OK)) {
		say(text, "no such device: load the tlock module (as root, for a container on its host: 'insmod tlock.ko' or, where it is installed, 'modprobe tlock'); in a container, pass the device in (docker: --device)");
		return;
	}
	if (!module_loaded()) {
		explain_module(text);
		return;
	}
	snprintf(entry, sizeof(entry), CLASS "/%s/dev", name);
	read_line(entry, should_be, sizeof(should_be));
	if (!*should_be) {
		explain_no_lock(text, tlock_own_name(path));
		return;
	}
	if (!exists) {
		say(text, "the lock is there, but its device file is missing: in a container, pass the device in (docker: --device); elsewhere, load the tlock module again");
		return;
	}
	snprintf(is, sizeof(is), "%u:%u", major(st.st_rdev),
		 minor(st.st_rdev));
	if (strcmp(is, should_be))
		say(text, "the device file is stale: it leads to device %s, but the lock is device %s: in a container, pass that in and start it again; elsewhere, remove the file and load the tlock module again",
		    is, should_be);
	else
		say(text, "the lock was not there, but is now: try again");
}

/* Whether a sandbox lets us open the lock, but denies its ioctls */
static bool ioctl_denied(const char *path)
{
	struct tlock_status status;
	struct stat st;

	return !stat(path, &st) && S_ISCHR(st.st_mode) &&
	       tlock_is_lock(st.st_rdev) && look(path, &status) > 0;
}

/* Says how our user can become a member of @gid, with the names of this host */
static void say_user_and_group(struct text *text, gid_t gid)
{
	struct passwd passwd, *user = NULL;
	struct group entry, *group = NULL;
	gid_t groups[MOST_GROUPS];
	int num = MOST_GROUPS;
	char *buf = calloc(2, NAMES_SIZE);

	if (buf) {
		getpwuid_r(geteuid(), &passwd, buf, NAMES_SIZE, &user);
		getgrgid_r(gid, &entry, buf + NAMES_SIZE, NAMES_SIZE, &group);
	}
	if (!user || !group) {
		say(text, "permission denied: the group %u may take this lock: run the container with it (docker: --group-add %u)",
		    gid, gid);
		free(buf);
		return;
	}

	if (getgrouplist(user->pw_name, user->pw_gid, groups, &num) < 0)
		num = 0;
	while (num && groups[num - 1] != gid)
		num--;
	if (num)
		say(text, "permission denied: %s is in the group %s, which may take this lock, but was not when this session began: log in again, or restart the service",
		    user->pw_name, group->gr_name);
	else
		say(text, "permission denied: the group %s may take this lock: as root, run 'adduser %s %s'; then log in again, or restart the service",
		    group->gr_name, user->pw_name, group->gr_name);
	free(buf);
}

static void explain_permission(struct text *text, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		say(text, "permission denied: a directory on the way to it may not be searched");
	else if (!faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS))
		say(text, "permission denied, though the file's mode permits it: look for a mount with the option nodev, or a security module (AppArmor, SELinux) that denies it");
	else if (st.st_gid && (st.st_mode & 0060) == 0060)
		say_user_and_group(text, st.st_gid);
	else if (!access(RULES, F_OK))
		say(text, "permission denied: only root may take this lock, but " RULES " is there: have it give the lock to a group and, as root, run 'udevadm control --reload; udevadm trigger -s tlock'");
	else
		say(text, "permission denied: only root may take this lock: as root, put SUBSYSTEM==\"tlock\", GROUP=\"dialout\", MODE=\"0664\" into " RULES " and run 'udevadm control --reload; udevadm trigger -s tlock'");
}

char *tlock_explain(const char *lock, int err, char *buf, size_t size)
{
	struct text text = { .buf = buf, .size = size };
	char path_buf[TLOCK_PATH_SIZE];
	const char *path, *name;
	int saved = errno;

	path = tlock_path(lock, path_buf);
	if (!path) {
		err = errno;
		path = lock ? lock : tlock_default();
		if (!lock && err == EINVAL) {
			say(&text, "TLOCK=%s: this lists several locks, but only Python takes a list: name one of them",
			    path);
			errno = saved;
			return buf;
		}
		if (!*path)
			path = "(an empty name)";
	}
	say(&text, "%s: ", path);

	if ((err == EPERM || err == EACCES) && ioctl_denied(path))
		err = ENOSYS;
	switch (err) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
	case ENOTTY:
		explain_missing(&text, path, err);
		break;
	case EACCES:
		explain_permission(&text, path);
		break;
	case EPERM:
		say(&text, "devices are restricted here: allow this one for the container (docker: --device) or the service (systemd: DeviceAllow=)");
		break;
	case ENOSYS:
		say(&text, "a sandbox (seccomp, Landlock) denies ioctl(2) on the lock: allow it there (systemd: SystemCallFilter=, docker: --security-opt seccomp=)");
		break;
	case ENAMETOOLONG:
		say(&text, "the name is too long: a device's name has at most %d bytes",
		    TLOCK_NAME_SIZE - 1);
		break;
	case EINVAL:
		name = tlock_own_name(path);
		if (name && !may_exist(name)) {
			say_names(&text);
			break;
		}
		/* fallthrough */
	default:
		errno = err;
		say(&text, "%m");
	}
	errno = saved;
	return buf;
}
