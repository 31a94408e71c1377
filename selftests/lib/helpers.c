// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "helpers.h"

void die(const char *format, ...)
{
	int err = errno;
	va_list args;

	fputs("# ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " (errno: %s)\n", strerror(err));
	abort();
}

__s64 now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec;
}

__s64 boottime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec;
}

__u64 wall_clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / USEC;
}

/* For loops that poll for a state: lets others run meanwhile */
static void pause_briefly(void)
{
	struct timespec ts = { .tv_nsec = 200 * USEC };

	nanosleep(&ts, NULL);
}

static int result_of(int ret)
{
	return ret == -1 ? -errno : ret;
}

int acquire(int fd, struct tlock_acquire *arg)
{
	return result_of(ioctl(fd, TLOCK_IOC_ACQUIRE, arg));
}

int reacquire(int fd, struct tlock_acquire *arg)
{
	return result_of(ioctl(fd, TLOCK_IOC_REACQUIRE, arg));
}

int release(int fd)
{
	return result_of(ioctl(fd, TLOCK_IOC_RELEASE));
}

int next_waiter(int fd, struct tlock_waiter *waiter)
{
	return result_of(ioctl(fd, TLOCK_IOC_WAITER, waiter));
}

int revoke_with(int fd, const struct tlock_revoke *arg)
{
	return result_of(ioctl(fd, TLOCK_IOC_REVOKE, arg));
}

int revoke_grant(int fd, __u64 token, __u64 grace_ns)
{
	struct tlock_revoke arg = { .token = token, .grace_ns = grace_ns };

	return revoke_with(fd, &arg);
}

int renew(int fd, __u64 lease_ns)
{
	struct tlock_acquire arg = ask_lease(0, "", lease_ns);

	arg.flags = TLOCK_RENEW;
	return reacquire(fd, &arg);
}

int start_monitor(int fd)
{
	return result_of(ioctl(fd, TLOCK_IOC_MONITOR));
}

int gate(int fd, struct tlock_gate *arg)
{
	return result_of(ioctl(fd, TLOCK_IOC_GATE, arg));
}

ssize_t read_events(int fd, void *events, size_t size)
{
	ssize_t ret = read(fd, events, size);

	return ret < 0 ? -errno : ret;
}

int status(int fd, struct tlock_status *st)
{
	return result_of(ioctl(fd, TLOCK_IOC_STATUS, st));
}

int flock_wait(int fd, struct tlock_acquire *arg)
{
	return result_of(flock(fd, LOCK_EX));
}

int flock_try(int fd, struct tlock_acquire *arg)
{
	return result_of(flock(fd, LOCK_EX | LOCK_NB));
}

int flock_end(int fd, struct tlock_acquire *arg)
{
	return result_of(flock(fd, LOCK_UN));
}

struct tlock_acquire ask(__s64 timeout_ns, const char *job)
{
	struct tlock_acquire arg;

	memset(&arg, POISON, sizeof(arg));
	arg.timeout_ns = timeout_ns;
	arg.flags = 0;
	arg.ticket = 0;
	arg.lease_ns = 0;
	memset(arg.reserved, 0, sizeof(arg.reserved));
	if (strlen(job) >= sizeof(arg.job))
		die("the job is too long: %s", job);
	memcpy(arg.job, job, strlen(job) + 1);
	return arg;
}

struct tlock_acquire ask_async(__s64 timeout_ns, const char *job)
{
	struct tlock_acquire arg = ask(timeout_ns, job);

	arg.flags = TLOCK_ASYNC;
	return arg;
}

struct tlock_acquire ask_lease(__s64 timeout_ns, const char *job,
			       __u64 lease_ns)
{
	struct tlock_acquire arg = ask(timeout_ns, job);

	arg.lease_ns = lease_ns;
	return arg;
}

static bool filled_with(const void *field, size_t size, unsigned char value)
{
	const unsigned char *byte = field;

	while (size--)
		if (*byte++ != value)
			return false;
	return true;
}

bool poisoned(const void *field, size_t size)
{
	return filled_with(field, size, POISON);
}

bool zeroed(const void *field, size_t size)
{
	return filled_with(field, size, 0);
}

__u64 take(int fd, const char *job)
{
	return take_lease(fd, job, 0);
}

__u64 take_lease(int fd, const char *job, __u64 lease_ns)
{
	struct tlock_acquire arg = ask_lease(0, job, lease_ns);
	int ret = acquire(fd, &arg);

	if (ret)
		die("cannot acquire the lock for %s: %d", job, ret);
	return arg.token;
}

static struct tlock_acquire
start_with(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
	   __s64 timeout_ns, const char *job)
{
	struct tlock_acquire arg = ask_async(timeout_ns, job);
	int ret = fn(fd, &arg);

	if (ret != -EINPROGRESS)
		die("a request for %s does not wait: %d", job, ret);
	return arg;
}

struct tlock_acquire start_acquire(int fd, __s64 timeout_ns, const char *job)
{
	return start_with(fd, acquire, timeout_ns, job);
}

struct tlock_acquire start_reacquire(int fd, __s64 timeout_ns, const char *job)
{
	return start_with(fd, reacquire, timeout_ns, job);
}

struct tlock_status look(int fd)
{
	struct tlock_status st;

	memset(&st, POISON, sizeof(st));
	if (status(fd, &st))
		die("cannot read the status");
	return st;
}

/* Waits until a field of the lock's status has the expected value */
#define AWAIT_STATUS(fd, field, is, value) do {				\
	__s64 deadline = now() + PATIENCE;				\
									\
	while (!(look(fd).field is (value))) {				\
		if (now() > deadline) {					\
			fprintf(stderr, "# " #field " is %llu, not %llu\n", \
				(__u64)look(fd).field, (__u64)(value));	\
			return false;					\
		}							\
		pause_briefly();					\
	}								\
	return true;							\
} while (0)

bool await_waiters(int fd, unsigned int waiters)
{
	AWAIT_STATUS(fd, waiters, ==, waiters);
}

bool await_contended(int fd, __u64 contended)
{
	AWAIT_STATUS(fd, contended, ==, contended);
}

bool await_token(int fd, __u64 token)
{
	AWAIT_STATUS(fd, holder.token, ==, token);
}

bool await_acquired(int fd, __u64 at_least)
{
	AWAIT_STATUS(fd, acquired, >=, at_least);
}

bool await_value(atomic_int *value, int at_least)
{
	__s64 deadline = now() + PATIENCE;

	while (atomic_load(value) < at_least) {
		if (now() > deadline)
			return false;
		pause_briefly();
	}
	return true;
}

/* A thread's state: the third field of its stat file */
static char thread_state(pid_t tid)
{
	char path[40], line[512], *comm_end;
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	len = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (len <= 0)
		return 0;
	line[len] = 0;
	comm_end = strrchr(line, ')');
	return comm_end ? comm_end[2] : 0;
}

bool await_asleep(pid_t tid)
{
	__s64 deadline = now() + PATIENCE;

	while (thread_state(tid) != 'S') {
		if (now() > deadline)
			return false;
		pause_briefly();
	}
	return true;
}

unsigned long sleeps(pid_t tid)
{
	char path[64], line[128];
	unsigned long switches = 0;
	FILE *file;

	/* Its latest sleep is counted only once it has left its CPU */
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)tid);
	while (!strcmp(read_text(path), "running"))
		pause_briefly();
	snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)tid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "voluntary_ctxt_switches: %lu", &switches) == 1)
			break;
	if (file)
		fclose(file);
	return switches;
}

const char *state_of(int fd, __u64 *number)
{
	static const char *const states[] = {
		"idle", "revoked", "waiting", "away", "decided", "holding",
	};
	static const char *const labels[] = {
		"", "", "tlock-ticket", "tlock-ticket", "tlock-ticket",
		"tlock-token",
	};
	unsigned long long value = 0;
	char path[40], expected[80] = "";
	const char *text;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	text = strstr(read_text(path), "tlock-state:");
	if (!text)
		die("%s does not show the lock", path);
	for (int i = 0; i < 6; i++) {
		bool numbered = *labels[i];

		snprintf(expected, sizeof(expected), "tlock-state:\t%s%s%s%s",
			 states[i], numbered ? "\n" : "", labels[i],
			 numbered ? ":\t" : "");
		if (strncmp(text, expected, strlen(expected)))
			continue;
		if (numbered &&
		    sscanf(text + strlen(expected), "%llu", &value) != 1)
			break;
		if (number)
			*number = value;
		return states[i];
	}
	die("%s is malformed: %s", path, text);
}

bool await_state(int fd, const char *state)
{
	__s64 deadline = now() + PATIENCE;

	while (strcmp(state_of(fd, NULL), state)) {
		if (now() > deadline) {
			fprintf(stderr, "# %s, not %s\n", state_of(fd, NULL),
				state);
			return false;
		}
		pause_briefly();
	}
	return true;
}

bool await_busy(int fd)
{
	__s64 deadline = now() + PATIENCE;

	while (!strcmp(state_of(fd, NULL), "idle")) {
		if (now() > deadline)
			return false;
		pause_briefly();
	}
	return true;
}

void sleep_until(__s64 when)
{
	struct timespec ts = {
		.tv_sec = when / SEC,
		.tv_nsec = when % SEC,
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL))
		;
}

static int poll_events(int fd, int events, int timeout_ms)
{
	struct pollfd pollfd = { .fd = fd, .events = events };
	__s64 end = now() + timeout_ms * MSEC;

	if (poll(&pollfd, 1, timeout_ms) < 0)
		die("cannot poll");
	/* At the end it looks once more: what it sees then woke nobody */
	return timeout_ms && now() > end ? 0 : pollfd.revents;
}

int events_of(int fd)
{
	return poll_events(fd, POLLIN | POLLOUT | POLLPRI, 0);
}

int await_events(int fd, int events)
{
	return poll_events(fd, events, PATIENCE / MSEC);
}

void allow_files(int files)
{
	const struct rlimit limit = { files, files };

	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("cannot open many files");
}

int contender(void)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die("cannot open %s", DEVICE);
	return fd;
}

static void *call_thread(void *data)
{
	struct call *c = data;

	atomic_store(&c->tid, syscall(SYS_gettid));
	c->begun = now();
	c->ret = c->fn(c->fd, c->arg);
	c->ended = now();
	return NULL;
}

struct call *call_with(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
		       struct tlock_acquire *arg)
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c)
		die("no memory");
	c->fn = fn;
	c->fd = fd;
	c->arg = arg ? arg : &c->own_arg;
	errno = pthread_create(&c->thread, NULL, call_thread, c);
	if (errno)
		die("cannot start a thread");
	if (!await_value(&c->tid, 1))
		die("a thread does not start");
	return c;
}

struct call *call(int fd, int (*fn)(int fd, struct tlock_acquire *arg),
		  __s64 timeout_ns, const char *job)
{
	struct tlock_acquire *arg = malloc(sizeof(*arg));

	if (!arg)
		die("no memory");
	*arg = ask(timeout_ns, job);
	return call_with(fd, fn, arg);
}

int result(struct call *c)
{
	struct timespec deadline;

	if (c->joined)
		return c->ret;
	/* Every C library can wait with a timeout on this clock only */
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += PATIENCE / SEC;
	if (pthread_timedjoin_np(c->thread, NULL, &deadline))
		return STUCK;
	c->joined = true;
	return c->ret;
}

void send_signal(struct call *c, int signal)
{
	int err = pthread_kill(c->thread, signal);

	/* The thread may have ended, whether or not it has been joined */
	if (err && err != ESRCH)
		die("cannot send a signal");
}

void run_on(pid_t tid, int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(tid, sizeof(cpus), &cpus))
		die("no CPU %d", cpu);
}

static void set_priority(pid_t tid, int priority)
{
	struct sched_param param = { .sched_priority = priority };

	if (sched_setscheduler(tid, SCHED_FIFO, &param))
		die("no real-time priority");
}

bool can_hold_back(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) >= 2;
}

static atomic_int hogging;

static int hog(int fd, struct tlock_acquire *arg)
{
	run_on(0, 1);
	set_priority(0, 2);
	atomic_store(&hogging, 1);
	while (atomic_load(&hogging))
		;
	return 0;
}

struct call *hold_back(struct call *sleeper)
{
	struct call *hogger;

	if (!await_asleep(sleeper->tid))
		die("a call does not sleep");
	/*
	 * Make the sleeper real-time as well: where real-time tasks are
	 * throttled, an ordinary task would get the rest of the CPU's time and
	 * run.
	 */
	set_priority(sleeper->tid, 1);
	run_on(sleeper->tid, 1);
	run_on(0, 0);
	hogger = call(-1, hog, 0, "");
	if (!await_value(&hogging, 1))
		die("the spinning thread does not start");
	return hogger;
}

void let_run(struct call *hogger)
{
	atomic_store(&hogging, 0);
	if (result(hogger))
		die("the spinning thread does not stop");
}

atomic_int handled;
atomic_int linger;
static void (*in_handler)(void);

static void on_signal(int signal)
{
	atomic_fetch_add(&handled, 1);
	while (atomic_load(&linger))
		pause_briefly();
	if (in_handler)
		in_handler();
}

void handle_usr1_with(int flags, void (*fn)(void))
{
	struct sigaction action = {
		.sa_handler = on_signal,
		.sa_flags = flags,
	};

	in_handler = fn;
	if (sigaction(SIGUSR1, &action, NULL))
		die("cannot handle a signal");
}

void handle_usr1(int flags)
{
	handle_usr1_with(flags, NULL);
}

const char *read_text(const char *path)
{
	static _Thread_local char texts[4][4096];
	static _Thread_local unsigned int next;
	char *text = texts[next++ % 4];
	ssize_t len;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("cannot open %s", path);
	len = read(fd, text, sizeof(texts[0]) - 1);
	if (len < 0)
		die("cannot read %s", path);
	close(fd);
	if (!len || text[len - 1] != '\n')
		die("%s does not end with a newline", path);
	text[len - 1] = 0;
	return text;
}

__u64 read_number(const char *path)
{
	const char *text = read_text(path);
	unsigned long long number;
	char *end;

	number = strtoull(text, &end, 10);
	if (end == text || *end)
		die("%s is not a number: %s", path, text);
	return number;
}

const char *const sysfs_files[SYSFS_FILES] = {
	SYSFS "/job", SYSFS "/comm", SYSFS "/gate", SYSFS "/host",
	SYSFS "/pid", SYSFS "/uid", SYSFS "/token", SYSFS "/held_ns",
	SYSFS "/waiters",
	SYSFS "/stats/acquired", SYSFS "/stats/contended",
	SYSFS "/stats/timed_out", SYSFS "/stats/interrupted",
	SYSFS "/stats/abandoned", SYSFS "/stats/revoked",
	SYSFS "/stats/yielded",
	SYSFS "/stats/waits", SYSFS "/stats/wait_ns_total",
	SYSFS "/stats/wait_ns_max",
	SYSFS "/stats/hold_ns_total", SYSFS "/stats/hold_ns_max",
};

int module_load_with(const char *parameters)
{
	int fd = open(getenv("TLOCK_KO"), O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = syscall(SYS_finit_module, fd, parameters, 0) ? -errno : 0;
	close(fd);
	return ret;
}

int module_load(void)
{
	return module_load_with("");
}

int module_unload(void)
{
	return syscall(SYS_delete_module, "tlock", O_NONBLOCK) ? -errno : 0;
}

bool exists(const char *path)
{
	struct stat st;

	return !lstat(path, &st);
}

bool module_registered(void)
{
	char line[80], name[80] = "";
	FILE *file = fopen("/proc/devices", "re");
	bool found = false;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%*u %79s", name) == 1 &&
		    !strcmp(name, "tlock"))
			found = true;
	if (file)
		fclose(file);
	return found;
}

bool has_slab_cache(void)
{
	char line[256];
	FILE *file = fopen("/proc/slabinfo", "re");
	bool found = false;

	while (file && fgets(line, sizeof(line), file))
		found |= !strncmp(line, "tlock_contender ", 16);
	if (file)
		fclose(file);
	return found;
}

int write_bytes(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, bytes, len) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

int write_text(const char *path, const char *text)
{
	return write_bytes(path, text, strlen(text));
}

int lock_create(const char *name)
{
	return write_text(NEW_LOCK, name);
}

int lock_create_gated(const char *name)
{
	return write_text(NEW_GATED_LOCK, name);
}

int lock_delete(const char *name)
{
	return write_text(DELETE_LOCK, name);
}

bool lock_exists(const char *name)
{
	return exists(lock_path(name)) || exists(lock_sysfs(name, ""));
}

static __attribute__((format(printf, 1, 2)))
const char *format_path(const char *format, ...)
{
	static _Thread_local char paths[4][256];
	static _Thread_local unsigned int next;
	char *path = paths[next++ % 4];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(paths[0]), format, args);
	va_end(args);
	return path;
}

const char *lock_path(const char *name)
{
	return format_path(DEVICE "-%s", name);
}

const char *lock_sysfs(const char *name, const char *file)
{
	return format_path(SYSFS "-%s/%s", name, file);
}

int lock_open(const char *name, int flags)
{
	int fd = open(lock_path(name), flags | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int contender_of(const char *name)
{
	int fd = lock_open(name, O_RDWR);

	if (fd < 0)
		die("cannot open %s", lock_path(name));
	return fd;
}

int daemon_of(const char *name)
{
	struct tlock_gate arg = { .op = TLOCK_GATE_ATTACH };
	int fd = lock_open(name, O_RDONLY);

	if (fd < 0 || gate(fd, &arg))
		die("cannot attach to %s", lock_path(name));
	return fd;
}

/* Counts the locks and, if asked, deletes those with names */
static int each_lock(bool delete)
{
	DIR *dir = opendir(CLASS);
	struct dirent *entry;
	int count = 0;

	if (!dir)
		die("cannot open " CLASS);
	while ((entry = readdir(dir))) {
		/* The others are attributes of the class */
		if (entry->d_type != DT_LNK)
			continue;
		count++;
		if (delete && !strncmp(entry->d_name, "tlock-", 6))
			lock_delete(entry->d_name + 6);
	}
	closedir(dir);
	return count;
}

int locks_count(void)
{
	return each_lock(false);
}

void locks_delete(void)
{
	each_lock(true);
}

/* Where the hierarchy is mounted; NULL if it is not known yet */
static const char *cgroups;

static bool cgroups_mounted(const char *at)
{
	struct statfs fs;

	return !statfs(at, &fs) && fs.f_type == CGROUP2_SUPER_MAGIC;
}

static const char *cgroup_path(const char *name, const char *file)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s/%s", cgroups, name, file);
	return path;
}

bool cgroup_create(const char *name)
{
	static char own[32];

	if (!cgroups && cgroups_mounted("/sys/fs/cgroup"))
		cgroups = "/sys/fs/cgroup";
	if (!cgroups) {
		strcpy(own, "/tmp/tlock-cgroup.XXXXXX");
		if (!mkdtemp(own))
			die("no directory to mount cgroups on");
		if (mount("cgroup2", own, "cgroup2", 0, NULL)) {
			rmdir(own);
			return false;
		}
		cgroups = own;
	}
	/* Controllers are not enabled by default, and not in every kernel */
	write_text(cgroup_path(".", "cgroup.subtree_control"), "+cpu");
	write_text(cgroup_path(".", "cgroup.subtree_control"), "+memory");
	if (mkdir(cgroup_path(name, ""), 0755) && errno != EEXIST)
		die("no cgroup %s", name);
	return true;
}

int cgroup_write(const char *name, const char *file, const char *text)
{
	return write_text(cgroup_path(name, file), text);
}

__u64 cgroup_number(const char *name, const char *file)
{
	return read_number(cgroup_path(name, file));
}

void cgroup_enter(const char *name, pid_t pid)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", (int)pid);
	if (cgroup_write(name, "cgroup.procs", number))
		die("cannot enter cgroup %s", name);
}

bool await_cgroup(const char *name, const char *event)
{
	__s64 deadline = now() + PATIENCE;

	while (!strstr(read_text(cgroup_path(name, "cgroup.events")), event)) {
		if (now() > deadline)
			return false;
		pause_briefly();
	}
	return true;
}

void cgroup_remove(const char *name)
{
	if (!await_cgroup(name, "populated 0") ||
	    rmdir(cgroup_path(name, "")))
		die("cannot remove cgroup %s", name);
	if (!strcmp(cgroups, "/sys/fs/cgroup"))
		return;
	umount(cgroups);
	rmdir(cgroups);
	cgroups = NULL;
}
