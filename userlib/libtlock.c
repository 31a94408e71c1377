// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libtlock: see tlock.h, which says what each function does.
 */
#include <dirent.h>
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Only what is declared there is visible to others */
#pragma GCC visibility push(default)
#include "tlock.h"
#pragma GCC visibility pop

#define DEV	"/dev/"
#define CLASS	"/sys/class/tlock"
#define RULES	"/etc/udev/rules.d/60-tlock.rules"

/* How many locks a text names */
#define MOST_LOCKS	8
/* Room for what the host knows of a user or a group, and its members */
#define NAMES_SIZE	65536
#define MOST_GROUPS		1024

#define likely(x)	__builtin_expect(!!(x), 1)

/**
 * enum state - what tlock_cancel() finds
 * @QUIET: no call runs and no request is away: the handle is idle or holds
 * @CALLING: a call runs, and whatever RELEASE ends is that call's
 * @REPLACING: a call runs, and RELEASE may end what the handle had before it
 * @AWAY: no call runs, and a request is away
 * @CANCELING: a thread is in tlock_cancel()
 * @RETURNED: so it is, and the handle's own thread waits for it
 * @CANCELED: it is done, and the call, or the next one, returns ECANCELED
 *
 * The handle's own thread makes all changes but those to CANCELING and CANCELED.
 */
enum state {
	QUIET,
	CALLING,
	REPLACING,
	AWAY,
	CANCELING,
	RETURNED,
	CANCELED,
};

/**
 * struct tlock - a contender, and what its calls returned
 * @fd: the contender's descriptor
 * @state: an enum state; a futex for RETURNED
 * @caller: the generation of the process that made the last call
 * @owner: that of the process which @token or @ticket is of
 * @abandoned: what the last grant said
 * @token: of the grant that is held, or 0
 * @ticket: of the request that is away, or 0
 * @time_left: of the last timeout
 * @arg: of the call that runs; its holder is that of the last ETIMEDOUT. It is
 *	here because one on the stack would have to be filled with zeros.
 *
 * All but @fd, @state and @caller is for the handle's own thread.
 */
struct tlock {
	int fd;
	atomic_uint state;
	atomic_uint caller;
	unsigned int owner;
	bool abandoned;
	uint64_t token;
	uint64_t ticket;
	int64_t time_left;
	struct tlock_acquire arg;
};

/*
 * How many forks this process is away from the one that loaded the library. So
 * what a handle says of another generation is of a process that this one was
 * forked from. A getpid() for each call would be a system call.
 */
static unsigned int generation;
static int fork_handler_error;

static void after_fork_in_child(void)
{
	generation++;
}

static __attribute__((__constructor__)) void install_fork_handler(void)
{
	fork_handler_error = pthread_atfork(NULL, NULL, after_fork_in_child);
}

/* Room for the path of a device that is known by its name */
#define PATH_SIZE	(sizeof(DEV) - 1 + TLOCK_NAME_SIZE)

/*
 * The path of the device that @lock stands for, in @buf if it isn't @lock
 * itself; or NULL and errno.
 */
static const char *device_path(const char *lock, char buf[PATH_SIZE])
{
	const char *prefix = "tlock-";
	int len;

	if (!lock)
		lock = "tlock";
	if (!*lock) {
		errno = EINVAL;
		return NULL;
	}
	if (strchr(lock, '/'))
		return lock;
	if (!strcmp(lock, "tlock") || !strncmp(lock, prefix, strlen(prefix)))
		prefix = "";

	len = snprintf(buf, PATH_SIZE, DEV "%s%s", prefix, lock);
	if (len < 0 || (size_t)len >= PATH_SIZE) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	return buf;
}

/*
 * The name that a device at @path has to go by: that of its lock. Or NULL: the
 * path is one at which somebody else put it, under a name of their choice.
 */
static const char *own_name(const char *path)
{
	const char *name = path + sizeof(DEV) - 1;

	if (strncmp(path, DEV, sizeof(DEV) - 1) || strchr(name, '/') ||
	    (strcmp(name, "tlock") && strncmp(name, "tlock-", 6)))
		return NULL;
	return name;
}

/* Whether a device of this number is a lock; not if there is no sysfs. */
static bool is_lock(dev_t rdev)
{
	char link[64], target[PATH_MAX];
	ssize_t len;

	snprintf(link, sizeof(link), "/sys/dev/char/%u:%u", major(rdev),
		 minor(rdev));
	len = readlink(link, target, sizeof(target) - 1);
	if (len < 0)
		return false;
	target[len] = '\0';
	return strstr(target, "/tlock/");
}

/*
 * What is wrong with the device at @path, which is open as @fd and has the
 * number @rdev. Returns 0 or an errno.
 */
static int check_device(int fd, const char *path, dev_t rdev)
{
	struct tlock_status status;
	const char *name = own_name(path);
	struct stat st;

	/*
	 * Other drivers have all sorts of errors for commands they don't know.
	 * A lock has none: it is a sandbox that doesn't let the command through.
	 */
	if (ioctl(fd, TLOCK_IOC_STATUS, &status)) {
		int err = errno;

		return is_lock(rdev) ? err : ENOTTY;
	}

	/*
	 * A device file that was made for a lock that is gone, as there may be
	 * in a container, can lead to another one. A symbolic link is an alias.
	 */
	if (name && strcmp(name, status.name) && !lstat(path, &st) &&
	    !S_ISLNK(st.st_mode))
		return ENXIO;
	return 0;
}

/* Opens a lock's device. Returns the descriptor, or -1 and errno. */
static int open_device(const char *path, int mode)
{
	struct stat st;
	int fd, err;

	/*
	 * Opening something that is not a device may disturb somebody: it would
	 * let the other end of a FIFO go on.
	 */
	if (stat(path, &st))
		return -1;
	if (!S_ISCHR(st.st_mode)) {
		errno = ENOTTY;
		return -1;
	}

	/* A terminal can block here, and become ours */
	fd = open(path, mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -1;

	err = check_device(fd, path, st.st_rdev);
	if (!err && fcntl(fd, F_SETFL, 0))
		err = errno;
	if (!err)
		return fd;

	close(fd);
	errno = err;
	return -1;
}

struct tlock *tlock_open(const char *lock, int mode)
{
	char buf[PATH_SIZE];
	const char *path;
	struct tlock *t;

	if (mode != O_RDWR && mode != O_RDONLY) {
		errno = EINVAL;
		return NULL;
	}
	path = device_path(lock, buf);
	if (!path)
		return NULL;
	if (fork_handler_error) {
		errno = fork_handler_error;
		return NULL;
	}

	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->fd = open_device(path, mode);
	if (t->fd < 0) {
		int err = errno;

		free(t);
		errno = err;
		return NULL;
	}
	t->caller = generation;
	t->owner = generation;
	return t;
}

/*
 * Why a lock cannot be opened, and what to do about it. The same texts are in
 * python/tlock/_explain.py, and tests/errors has an example of each.
 */

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

/* The first line of a file of the kernel's; empty if it cannot be read. */
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

	/* Its device files are removed before the rest of it */
	read_line("/sys/module/tlock/initstate", state, sizeof(state));
	/* The first lock is there from loading to unloading */
	return strcmp(state, "going") && !access(CLASS "/tlock", F_OK);
}

/* Whether modprobe finds it, with this kernel's modules.dep or, for "*", any. */
static bool module_installed(const char *release)
{
	char pattern[sizeof("/lib/modules//modules.dep") + NAME_MAX];
	bool found = false;
	char *line = NULL;
	size_t size = 0;
	glob_t paths;

	snprintf(pattern, sizeof(pattern), "/lib/modules/%s/modules.dep",
		 release);
	if (glob(pattern, 0, NULL, &paths))
		return false;
	for (size_t i = 0; i < paths.gl_pathc && !found; i++) {
		FILE *file = fopen(paths.gl_pathv[i], "re");

		/* "updates/dkms/tlock.ko.xz:", with what it depends on */
		while (file && !found && getline(&line, &size, file) >= 0)
			found = strstr(line, "/tlock.ko");
		if (file)
			fclose(file);
	}
	free(line);
	globfree(&paths);
	return found;
}

/* Whether a module without a signature that the kernel trusts is refused */
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
		say(text, "; if that says 'Key was rejected by service' or 'Operation not permitted', the kernel does not trust the module's signature (Secure Boot): enroll the key (of dkms: 'mokutil --import /var/lib/dkms/mok.pub') and reboot");
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Which locks there are instead */
static void say_locks(struct text *text)
{
	struct dirent **entries;
	int num = scandir(CLASS, &entries, is_visible, by_name);

	for (int i = 0; i < num; i++) {
		if (i <= MOST_LOCKS)
			say(text, "%s%s",
			    i ? ", " : ": the locks of this host are ",
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

/* Why the lock is not behind @path */
static void explain_missing(struct text *text, const char *path, int err)
{
	const char *name = strrchr(path, '/') + 1;
	char entry[sizeof(CLASS "//dev") + NAME_MAX];
	char is[24], should_be[24];
	struct stat st;
	bool exists = !stat(path, &st);

	if (exists && !S_ISCHR(st.st_mode) && own_name(path)) {
		say(text, "%s is in the place of the device (docker's -v makes one if the device is missing): as root, for a container on its host, remove it and load the tlock module again",
		    kind_of_file(st.st_mode));
		return;
	}
	if (exists && err == ENOTTY && S_ISCHR(st.st_mode) &&
	    is_lock(st.st_rdev)) {
		read_line("/sys/module/tlock/version", is, sizeof(is));
		say(text, "the tlock module, version %s, does not know this program's ioctls: install the module and the library or package of the same version",
		    is);
		return;
	}
	if (exists && err == ENOTTY && !own_name(path)) {
		say(text, "not a tlock");
		say_locks(text);
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
		say(text, "no such lock");
		say_locks(text);
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

/* Whether a sandbox lets us open the lock, and denies us its ioctls */
static bool ioctl_denied(const char *path)
{
	struct tlock_status status;
	bool denied = false;
	struct stat st;
	int fd;

	if (stat(path, &st) || !S_ISCHR(st.st_mode) || !is_lock(st.st_rdev))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0) {
		denied = ioctl(fd, TLOCK_IOC_STATUS, &status);
		close(fd);
	}
	return denied;
}

/* How this host calls our user, who has yet to log in as a member of @gid */
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
	char path_buf[PATH_SIZE];
	const char *path;
	int saved = errno;

	path = device_path(lock, path_buf);
	if (!path) {
		path = *lock ? lock : "(an empty name)";
		err = errno;
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
	default:
		errno = err;
		say(&text, "%m");
	}
	errno = saved;
	return buf;
}

void tlock_close(struct tlock *t)
{
	int err = errno;

	if (!t)
		return;
	close(t->fd);
	free(t);
	errno = err;
}

int tlock_fd(const struct tlock *t)
{
	return t->fd;
}

static void futex(atomic_uint *word, int op, unsigned int value,
		  const long timeout[2])
{
	syscall(SYS_futex, word, op, value, timeout);
}

/*
 * Waits for a tlock_cancel() that is at work: what its RELEASE ends must not be
 * what this thread asks for next. Returns whether there was one.
 */
static bool was_canceled(struct tlock *t)
{
	unsigned int state = CANCELING;

	if (atomic_compare_exchange_strong(&t->state, &state, RETURNED)) {
		do {
			futex(&t->state, FUTEX_WAIT_PRIVATE, RETURNED, NULL);
			state = t->state;
		} while (state == RETURNED);
	}
	if (state != CANCELED)
		return false;
	t->state = QUIET;
	t->token = 0;
	t->ticket = 0;
	return true;
}

static __attribute__((__noinline__))
bool advance_slow(struct tlock *t, unsigned int next)
{
	if (was_canceled(t))
		return false;
	/* A signal handler left the call, or released the handle during it */
	t->state = next;
	return true;
}

/* From one state to the next; returns false if a tlock_cancel() came first. */
static inline bool advance(struct tlock *t, unsigned int state,
			   unsigned int next)
{
	return likely(atomic_compare_exchange_strong(&t->state, &state,
						     next)) ||
		advance_slow(t, next);
}

/* Begins a call. Returns 0, or the errno with which it must not be made. */
static inline int begin(struct tlock *t, unsigned int call)
{
	unsigned int state = atomic_load_explicit(&t->state,
						  memory_order_relaxed);

	if (likely(state == QUIET)) {
		/* Nobody else leaves it */
		atomic_store_explicit(&t->state, call, memory_order_relaxed);
		return 0;
	}
	/* A second thread, which is a mistake, must spoil nothing */
	if (state == CALLING || state == REPLACING)
		return EBUSY;
	return advance(t, AWAY, call) ? 0 : ECANCELED;
}

/* Ends a call that failed. Returns the errno. */
static __attribute__((__noinline__))
int fail(struct tlock *t, unsigned int call, int err)
{
	switch (err) {
	case EINTR:
	case ETIMEDOUT:
		t->time_left = t->arg.timeout_ns;
		/* fall through */
	case ECANCELED:
		t->ticket = err == EINTR ? t->arg.ticket : 0;
		t->owner = generation;
		/* fall through */
	case EPERM:
		t->token = 0;
	}
	return advance(t, call, t->ticket ? AWAY : QUIET) ? err : ECANCELED;
}

static inline int take(struct tlock *t, unsigned long cmd, const char *job,
		       int64_t timeout_ns, uint64_t ticket, unsigned int call)
{
	size_t size = job ? strnlen(job, TLOCK_JOB_SIZE) + 1 : 0;
	int err = EINVAL;

	if (size > TLOCK_JOB_SIZE)
		goto failed;
	err = begin(t, call);
	if (err)
		goto failed;
	atomic_store_explicit(&t->caller, generation, memory_order_relaxed);

	t->arg.timeout_ns = timeout_ns;
	t->arg.ticket = ticket;
	if (job)
		memcpy(t->arg.job, job, size);
	else
		t->arg.job[0] = '\0';
	if (ioctl(t->fd, cmd, &t->arg)) {
		err = fail(t, call, errno);
		goto failed;
	}
	t->token = t->arg.token;
	t->ticket = 0;
	t->owner = generation;
	t->abandoned = t->arg.result & TLOCK_ABANDONED;
	t->time_left = t->arg.timeout_ns;
	if (advance(t, call, QUIET))
		return 0;
	err = ECANCELED;

failed:
	errno = err;
	return -1;
}

int tlock_acquire(struct tlock *t, const char *job, int64_t timeout_ns)
{
	return take(t, TLOCK_IOC_ACQUIRE, job, timeout_ns, 0,
		    t->token || t->ticket ? REPLACING : CALLING);
}

int tlock_reacquire(struct tlock *t, const char *job, int64_t timeout_ns)
{
	/* Once RELEASE has ended the grant, this asks for nothing */
	return take(t, TLOCK_IOC_REACQUIRE, job, timeout_ns, 0, CALLING);
}

int tlock_resume(struct tlock *t)
{
	if (!t->ticket) {
		errno = EPERM;
		return -1;
	}
	return take(t, TLOCK_IOC_ACQUIRE, NULL, t->time_left, t->ticket,
		    CALLING);
}

int tlock_release(struct tlock *t)
{
	if (atomic_load_explicit(&t->state, memory_order_relaxed) != QUIET)
		advance(t, AWAY, QUIET);
	t->token = 0;
	t->ticket = 0;
	return ioctl(t->fd, TLOCK_IOC_RELEASE);
}

int tlock_cancel(struct tlock *t)
{
	static const long ms[2] = { 0, 1000000 };
	unsigned int state = t->state;
	bool returned, ended;

	do {
		/* In a child, its parent's state is of no thread here */
		if (state == QUIET || t->caller != generation) {
			errno = EPERM;
			return -1;
		}
		/* Another thread cancels it */
		if (state >= CANCELING)
			return 0;
	} while (!atomic_compare_exchange_weak(&t->state, &state, CANCELING));

	for (;;) {
		returned = t->state == RETURNED;
		ended = !ioctl(t->fd, TLOCK_IOC_RELEASE);
		if (returned || state == AWAY || (ended && state == CALLING))
			break;
		/* The call is on its way into the kernel, or back */
		futex(&t->state, FUTEX_WAIT_PRIVATE, CANCELING, ms);
	}
	if (atomic_exchange(&t->state, CANCELED) == RETURNED)
		futex(&t->state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
	return 0;
}

bool tlock_inherited(const struct tlock *t)
{
	return t->owner != generation;
}

int tlock_adopt(struct tlock *t)
{
	struct tlock_status status;

	if (tlock_status(t, &status))
		return -1;
	if (!t->token || status.holder.token != t->token) {
		errno = EPERM;
		return -1;
	}
	t->owner = generation;
	return 0;
}

int tlock_status(const struct tlock *t, struct tlock_status *status)
{
	return ioctl(t->fd, TLOCK_IOC_STATUS, status);
}

uint64_t tlock_token(const struct tlock *t)
{
	return t->token;
}

uint64_t tlock_ticket(const struct tlock *t)
{
	return t->ticket;
}

bool tlock_abandoned(const struct tlock *t)
{
	return t->abandoned;
}

const struct tlock_holder *tlock_blocker(const struct tlock *t)
{
	return &t->arg.holder;
}

int64_t tlock_time_left(const struct tlock *t)
{
	return t->time_left;
}

/* The length of the character that @c begins with, or 0 if it is not UTF-8 */
static size_t character(const unsigned char *c)
{
	size_t length = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 :
			c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < length; i++)
		if ((c[i] & 0xc0) != 0x80)
			return 0;
	/* Longer than need be, a surrogate, or beyond the last one */
	if ((c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) ||
	    (c[0] == 0xf0 && c[1] < 0x90) || (c[0] == 0xf4 && c[1] > 0x8f))
		return 0;
	return length;
}

static bool is_control(const unsigned char *c)
{
	return c[0] < 0x20 || c[0] == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0);
}

char *tlock_make_job(char job[TLOCK_JOB_SIZE], const char *text)
{
	static const char cut[] = "\u2026";
	const unsigned char *c = (const unsigned char *)(text ? text : "");
	size_t len = 0, whole = 0;

	while (*c) {
		size_t length = character(c);
		bool as_it_is = length && !is_control(c);
		size_t put = as_it_is ? length : 1;

		if (len + put >= TLOCK_JOB_SIZE) {
			memcpy(job + whole, cut, sizeof(cut));
			return job;
		}
		memcpy(job + len, as_it_is ? (const void *)c : "?", put);
		len += put;
		/* As much as leaves room for the mark */
		if (len + sizeof(cut) <= TLOCK_JOB_SIZE)
			whole = len;
		c += length ? length : 1;
	}
	job[len] = '\0';
	return job;
}

int64_t tlock_seconds(double s)
{
	double ns = s * 1e9;

	if (isnan(s))
		return TLOCK_TRY;
	if (s < 0)
		return TLOCK_FOREVER;
	/* The first double that is too large */
	if (ns >= 0x1p63)
		return INT64_MAX;
	return (int64_t)ns + ((double)(int64_t)ns < ns);
}

int64_t tlock_milliseconds(int64_t ms)
{
	if (ms < 0)
		return TLOCK_FOREVER;
	if (ms > INT64_MAX / 1000000)
		return INT64_MAX;
	return ms * 1000000;
}
