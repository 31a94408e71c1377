// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libtlock: see tlock.h, which says what each function does.
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is declared there is what others see; all else is hidden */
#pragma GCC visibility push(default)
#include "tlock.h"
#pragma GCC visibility pop

#define DEV	"/dev/"
#define CLASS	"/sys/class/tlock"

/**
 * struct tlock - a contender, and what its calls were told
 * @fd: the contender's descriptor
 * @abandoned: what the last success said
 * @token: of the grant that is held, or 0
 * @time_left: of the last timeout
 * @blocker: who had the lock at the last ETIMEDOUT
 */
struct tlock {
	int fd;
	bool abandoned;
	uint64_t token;
	int64_t time_left;
	struct tlock_holder blocker;
};

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

/* Opens a lock's device. Returns the descriptor, or -1 and errno. */
static int open_device(const char *path, int mode)
{
	struct tlock_status status;
	struct stat st;
	int fd, err;

	/*
	 * To open what is no device may disturb somebody: it would let the
	 * other end of a FIFO go on.
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

	/* Other drivers have all sorts of errors for what they don't know */
	if (ioctl(fd, TLOCK_IOC_STATUS, &status))
		err = ENOTTY;
	else if (fcntl(fd, F_SETFL, 0))
		err = errno;
	else
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
	return t;
}

/* Its device files go before the rest of it */
static bool module_unloading(void)
{
	int fd = open("/sys/module/tlock/initstate", O_RDONLY | O_CLOEXEC);
	bool going;
	char state;

	if (fd < 0)
		return false;
	going = read(fd, &state, 1) == 1 && state == 'g';
	close(fd);
	return going;
}

/* Why there is no device, or nothing behind it */
static void explain_missing(const char *path, char *buf, size_t size)
{
	const char *name = strrchr(path, '/') + 1;
	char entry[sizeof(CLASS) + 1 + NAME_MAX];

	if (access("/sys/class", F_OK)) {
		snprintf(buf, size,
			 "%s: not there: load the tlock module (as root: 'insmod tlock.ko' or, where it is installed, 'modprobe tlock'); in a container, pass the device in",
			 path);
		return;
	}
	/* The first lock, which is there from loading to unloading */
	if (access(CLASS "/tlock", F_OK) || module_unloading()) {
		snprintf(buf, size,
			 "%s: the tlock module is not loaded: as root, for a container on its host, run 'insmod tlock.ko' or, where it is installed, 'modprobe tlock'",
			 path);
		return;
	}
	snprintf(entry, sizeof(entry), CLASS "/%s", name);
	if (*name && !access(entry, F_OK))
		snprintf(buf, size,
			 "%s: the lock is there, but its device file is missing or stale: in a container, pass the device in (as docker's --device does); elsewhere, see to udev",
			 path);
	else
		snprintf(buf, size,
			 "%s: no such lock: 'ls " CLASS "' lists those there are",
			 path);
}

char *tlock_explain(const char *lock, int err, char *buf, size_t size)
{
	char path_buf[PATH_SIZE];
	const char *path;
	int saved = errno;

	path = device_path(lock, path_buf);
	if (!path) {
		path = *lock ? lock : "(an empty name)";
		err = errno;
	}

	switch (err) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
		explain_missing(path, buf, size);
		break;
	case EACCES:
		snprintf(buf, size,
			 "%s: no permission: to look takes read permission, to take the lock write permission, too: as root, run 'setfacl -m u:%u:rw %s', or have a udev rule do so for good",
			 path, (unsigned int)geteuid(), path);
		break;
	case EPERM:
		snprintf(buf, size,
			 "%s: devices are restricted here: allow this one for the container (docker: --device) or the service (systemd: DeviceAllow=)",
			 path);
		break;
	case ENOTTY:
		snprintf(buf, size,
			 "%s: not a tlock: 'ls " CLASS "' lists those there are",
			 path);
		break;
	case ENAMETOOLONG:
		snprintf(buf, size,
			 "%s: no lock has so long a name: its device's name has at most %d bytes",
			 path, TLOCK_NAME_SIZE - 1);
		break;
	default:
		errno = err;
		snprintf(buf, size, "%s: %m", path);
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

/*
 * The argument is not the handle's but this call's: a second thread on a
 * handle that waits, a mistake, shall get its EBUSY and spoil nothing.
 */
static int take(struct tlock *t, unsigned long cmd, const char *job,
		int64_t timeout_ns)
{
	struct tlock_acquire arg = { .timeout_ns = timeout_ns };

	if (job) {
		size_t len = strnlen(job, sizeof(arg.job));

		if (len == sizeof(arg.job)) {
			errno = EINVAL;
			return -1;
		}
		memcpy(arg.job, job, len);
	}

	if (!ioctl(t->fd, cmd, &arg)) {
		t->token = arg.token;
		t->abandoned = arg.result & TLOCK_ABANDONED;
		t->time_left = arg.timeout_ns;
		return 0;
	}
	if (errno == ETIMEDOUT || errno == EINTR)
		t->time_left = arg.timeout_ns;
	if (errno == ETIMEDOUT)
		t->blocker = arg.holder;
	return -1;
}

int tlock_acquire(struct tlock *t, const char *job, int64_t timeout_ns)
{
	return take(t, TLOCK_IOC_ACQUIRE, job, timeout_ns);
}

int tlock_reacquire(struct tlock *t, const char *job, int64_t timeout_ns)
{
	int ret = take(t, TLOCK_IOC_REACQUIRE, job, timeout_ns);

	/* A bad job changes nothing; all others mean that it is not held */
	if (ret && errno != EINVAL)
		t->token = 0;
	return ret;
}

int tlock_release(struct tlock *t)
{
	t->token = 0;
	return ioctl(t->fd, TLOCK_IOC_RELEASE);
}

int tlock_status(const struct tlock *t, struct tlock_status *status)
{
	return ioctl(t->fd, TLOCK_IOC_STATUS, status);
}

uint64_t tlock_token(const struct tlock *t)
{
	return t->token;
}

bool tlock_abandoned(const struct tlock *t)
{
	return t->abandoned;
}

const struct tlock_holder *tlock_blocker(const struct tlock *t)
{
	return &t->blocker;
}

int64_t tlock_time_left(const struct tlock *t)
{
	return t->time_left;
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
