// SPDX-License-Identifier: GPL-2.0-only
/*
 * The locks that the benchmarks compare.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <time.h>
#include <tlock.h>
#include <unistd.h>

#include "locks.h"

uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

int check(int ret, const char *what)
{
	if (ret < 0)
		err(1, "%s", what);
	return ret;
}

void figure(double value, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(" %.15g\n", value);
	fflush(stdout);
}

double slab_bytes(void)
{
	FILE *file = fopen("/proc/slabinfo", "r");
	double sum = 0;
	double objects, size;
	char line[512];

	if (!file)
		err(1, "/proc/slabinfo");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%*s %*u %lf %lf", &objects, &size) == 2)
			sum += objects * size;
	fclose(file);
	return sum;
}

#define TIMEOUT_NS	(TIMEOUT_S * 1000000000LL)

/* Pages that are shared as they would be between processes */
static void *shared(size_t size)
{
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		err(1, "mmap");
	return page;
}

/* The absolute time at which a wait that begins now times out */
static struct timespec deadline(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += TIMEOUT_S;
	return ts;
}

/* tlock through the raw ioctl */

static void tlock_raw_enter(struct contender *c)
{
	c->fd = check(open(DEVICE, O_RDWR | O_CLOEXEC), DEVICE);
	memset(&c->arg, 0, sizeof(c->arg));
	strcpy(c->arg.job, "acq");
}

static void tlock_raw_acquire(struct contender *c)
{
	c->arg.job[0] = 'a';
	c->arg.timeout_ns = TIMEOUT_NS;
	check(ioctl(c->fd, TLOCK_IOC_ACQUIRE, &c->arg), "acquire");
}

static void tlock_raw_release(struct contender *c)
{
	check(ioctl(c->fd, TLOCK_IOC_RELEASE), "release");
}

static void tlock_raw_again(struct contender *c)
{
	c->arg.job[0] = 0;	/* Keeps the job */
	c->arg.timeout_ns = TIMEOUT_NS;
	check(ioctl(c->fd, TLOCK_IOC_REACQUIRE, &c->arg), "reacquire");
}

/* tlock whose gate is open */

#define GATED	"/dev/tlock-gated"

static int gated_make(void)
{
	struct tlock_gate gate = {
		.op = TLOCK_GATE_SET,
		.opening = 1,
		.until_ns = INT64_MAX,
		.first_token = 1,
		.last_token = INT64_MAX,
	};
	struct tlock_gate attach = { .op = TLOCK_GATE_ATTACH };
	int fd = open("/sys/class/tlock/new_gated_lock", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	check(write(fd, "gated", strlen("gated")), "new_gated_lock");
	close(fd);
	/* The gate is open as long as this file is */
	fd = check(open(GATED, O_RDONLY | O_CLOEXEC), GATED);
	check(ioctl(fd, TLOCK_IOC_GATE, &attach), "attach");
	check(ioctl(fd, TLOCK_IOC_GATE, &gate), "open the gate");
	return 0;
}

static void gated_enter(struct contender *c)
{
	tlock_raw_enter(c);
	close(c->fd);
	c->fd = check(open(GATED, O_RDWR | O_CLOEXEC), GATED);
}

/* tlock without a timeout, and so without a timer */

static void untimed_acquire(struct contender *c)
{
	c->arg.job[0] = 'a';
	c->arg.timeout_ns = -1;
	check(ioctl(c->fd, TLOCK_IOC_ACQUIRE, &c->arg), "acquire");
}

static void untimed_again(struct contender *c)
{
	c->arg.job[0] = 0;
	c->arg.timeout_ns = -1;
	check(ioctl(c->fd, TLOCK_IOC_REACQUIRE, &c->arg), "reacquire");
}

void null_ioctl(struct contender *c)
{
	ioctl(c->fd, _IO(TLOCK_IOC_MAGIC, 0x0f));
}

/* tlock with a lease, which a reacquire renews */

static void leased_acquire(struct contender *c)
{
	c->arg.lease_ns = TIMEOUT_NS;
	tlock_raw_acquire(c);
}

/* tlock through its library */

static void libtlock_enter(struct contender *c)
{
	c->handle = tlock_open(NULL, O_RDWR);
	if (!c->handle)
		err(1, "tlock_open");
}

static void libtlock_acquire(struct contender *c)
{
	check(tlock_acquire(c->handle, "acq", TIMEOUT_NS),
	      "tlock_acquire");
}

static void libtlock_release(struct contender *c)
{
	check(tlock_release(c->handle), "tlock_release");
}

static void libtlock_again(struct contender *c)
{
	check(tlock_reacquire(c->handle, NULL, TIMEOUT_NS),
	      "tlock_reacquire");
}

/* A lock file: flock(2), and OFD locks of fcntl(2) */

static char lock_file[] = "/tmp/tlock-bench.XXXXXX";

static int file_make(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = check(mkstemp(lock_file), lock_file);
	return 0;
}

static void file_enter(struct contender *c)
{
	c->fd = check(open(lock_file, O_RDWR | O_CLOEXEC), lock_file);
}

static void flock_acquire(struct contender *c)
{
	check(flock(c->fd, LOCK_EX), "flock");
}

static void flock_release(struct contender *c)
{
	check(flock(c->fd, LOCK_UN), "flock");
}

static void ofd_acquire(struct contender *c)
{
	struct flock arg = { .l_type = F_WRLCK };

	check(fcntl(c->fd, F_OFD_SETLKW, &arg), "F_OFD_SETLKW");
}

static void ofd_release(struct contender *c)
{
	struct flock arg = { .l_type = F_UNLCK };

	check(fcntl(c->fd, F_OFD_SETLK, &arg), "F_OFD_SETLK");
}

/* A System V semaphore that the kernel releases on exit: SEM_UNDO */

static int sysv;

static void sysv_end(void)
{
	semctl(sysv, 0, IPC_RMID);
}

static int sysv_make(void)
{
	sysv = check(semget(IPC_PRIVATE, 1, 0600), "semget");
	atexit(sysv_end);
	check(semctl(sysv, 0, SETVAL, 1), "semctl");
	return 0;
}

static void nothing(struct contender *c)
{
}

static void sysv_op(int by)
{
	struct sembuf op = { .sem_op = by, .sem_flg = SEM_UNDO };
	struct timespec timeout = { .tv_sec = TIMEOUT_S };

	check(semtimedop(sysv, &op, 1, &timeout), "semtimedop");
}

static void sysv_acquire(struct contender *c)
{
	sysv_op(-1);
}

static void sysv_release(struct contender *c)
{
	sysv_op(1);
}

/* A robust mutex in shared memory */

static pthread_mutex_t *mutex;

static int robust_make(void)
{
	pthread_mutexattr_t attr;

	mutex = shared(sizeof(*mutex));
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attr);
	return 0;
}

static void robust_acquire(struct contender *c)
{
	struct timespec until = deadline();

	check(-pthread_mutex_timedlock(mutex, &until), "timedlock");
}

static void robust_release(struct contender *c)
{
	check(-pthread_mutex_unlock(mutex), "unlock");
}

/* A POSIX semaphore in shared memory */

static sem_t *sem;

static int posix_make(void)
{
	sem = shared(sizeof(*sem));
	return sem_init(sem, 1, 1);
}

static void posix_acquire(struct contender *c)
{
	struct timespec until = deadline();

	check(sem_timedwait(sem, &until), "sem_timedwait");
}

static void posix_release(struct contender *c)
{
	check(sem_post(sem), "sem_post");
}

/* A mutex of ntsync, by its documentation (userspace-api/ntsync) */

struct ntsync_mutex {
	uint32_t owner;
	uint32_t count;
};

struct ntsync_wait {
	uint64_t timeout;
	uint64_t objs;
	uint32_t count;
	uint32_t index;
	uint32_t flags;
	uint32_t owner;
	uint32_t alert;
	uint32_t pad;
};

#define NTSYNC_CREATE_MUTEX	_IOW('N', 0x84, struct ntsync_mutex)
#define NTSYNC_WAIT_ANY		_IOWR('N', 0x82, struct ntsync_wait)
#define NTSYNC_MUTEX_UNLOCK	_IOWR('N', 0x85, struct ntsync_mutex)

static int ntsync;
static int ntsync_mutex;

static int ntsync_make(void)
{
	struct ntsync_mutex arg = {};

	ntsync = open("/dev/ntsync", O_RDWR | O_CLOEXEC);
	if (ntsync < 0)
		return -1;
	ntsync_mutex = check(ioctl(ntsync, NTSYNC_CREATE_MUTEX, &arg), "ntsync");
	return 0;
}

static void ntsync_enter(struct contender *c)
{
	static int contenders;

	/* A number identifies the owner; 0 means none */
	c->fd = ++contenders;
}

static void ntsync_acquire(struct contender *c)
{
	struct ntsync_wait arg = {
		.timeout = now() + TIMEOUT_NS,
		.objs = (uintptr_t)&ntsync_mutex,
		.count = 1,
		.owner = c->fd,
	};

	check(ioctl(ntsync, NTSYNC_WAIT_ANY, &arg), "NTSYNC_IOC_WAIT_ANY");
}

static void ntsync_release(struct contender *c)
{
	struct ntsync_mutex arg = { .owner = c->fd };

	check(ioctl(ntsync_mutex, NTSYNC_MUTEX_UNLOCK, &arg),
	      "NTSYNC_IOC_MUTEX_UNLOCK");
}

/* An eventfd as a semaphore: no owner, and not released on death */

static int event;

static int eventfd_make(void)
{
	event = check(eventfd(1, EFD_CLOEXEC | EFD_SEMAPHORE), "eventfd");
	return 0;
}

static void eventfd_acquire(struct contender *c)
{
	uint64_t value;

	check(read(event, &value, sizeof(value)), "reading an eventfd");
}

static void eventfd_release(struct contender *c)
{
	uint64_t value = 1;

	check(write(event, &value, sizeof(value)), "writing an eventfd");
}

static int always(void)
{
	return 0;
}

const struct lock locks[] = {
	{ "tlock", always, tlock_raw_enter, tlock_raw_acquire,
	  tlock_raw_release, tlock_raw_again },
	{ "libtlock", always, libtlock_enter, libtlock_acquire,
	  libtlock_release, libtlock_again },
	{ "tlock-leased", always, tlock_raw_enter, leased_acquire,
	  tlock_raw_release, tlock_raw_again },
	{ "tlock-gated", gated_make, gated_enter, tlock_raw_acquire,
	  tlock_raw_release, tlock_raw_again },
	{ "tlock-untimed", always, tlock_raw_enter, untimed_acquire,
	  tlock_raw_release, untimed_again },
	{ "flock", file_make, file_enter, flock_acquire, flock_release },
	{ "fcntl-ofd", file_make, file_enter, ofd_acquire, ofd_release },
	{ "sysv-undo", sysv_make, nothing, sysv_acquire, sysv_release },
	{ "ntsync", ntsync_make, ntsync_enter, ntsync_acquire,
	  ntsync_release },
	{ "eventfd", eventfd_make, nothing, eventfd_acquire, eventfd_release },
	{ "robust-mutex", robust_make, nothing, robust_acquire,
	  robust_release },
	{ "posix-sem", posix_make, nothing, posix_acquire, posix_release },
	{ }
};

const struct lock *lock_named(const char *name)
{
	const struct lock *lock;

	for (lock = locks; lock->name; lock++)
		if (!strcmp(lock->name, name))
			return lock;
	errx(2, "there is no lock '%s'", name);
}
