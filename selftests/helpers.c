// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "helpers.h"

#ifndef __NR_close_range
#define __NR_close_range 436
#endif
#ifndef __NR_clone3
#define __NR_clone3 435
#endif

/* Agents get all that they need in one fixed message */
_Static_assert(sizeof(struct tlock_status) == sizeof(struct tlock_acquire),
	       "an agent's answer holds either");

static __attribute__((noreturn, format(printf, 1, 2)))
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

int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec;
}

/* Gives others the time to get on, in a loop that looks for a state. */
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

int status(int fd, struct tlock_status *st)
{
	return result_of(ioctl(fd, TLOCK_IOC_STATUS, st));
}

struct tlock_acquire ask(int64_t timeout_ns, const char *job)
{
	struct tlock_acquire arg;

	memset(&arg, POISON, sizeof(arg));
	arg.timeout_ns = timeout_ns;
	arg.flags = 0;
	if (strlen(job) >= sizeof(arg.job))
		die("too long a job: %s", job);
	memcpy(arg.job, job, strlen(job) + 1);
	return arg;
}

bool poisoned(const void *field, size_t size)
{
	const unsigned char *byte = field;

	while (size--)
		if (*byte++ != POISON)
			return false;
	return true;
}

uint64_t take(int fd, const char *job)
{
	struct tlock_acquire arg = ask(0, job);
	int ret = acquire(fd, &arg);

	if (ret)
		die("cannot take the lock for %s: %d", job, ret);
	return arg.token;
}

struct tlock_status look(int fd)
{
	struct tlock_status st;

	memset(&st, POISON, sizeof(st));
	if (status(fd, &st))
		die("cannot look at the lock");
	return st;
}

/* Waits until a field of the lock's status has a value. */
#define AWAIT_STATUS(fd, field, value) do {				\
	int64_t deadline = now() + PATIENCE;				\
									\
	while (look(fd).field != (value)) {				\
		if (now() > deadline) {					\
			fprintf(stderr, "# " #field ": %llu, not %llu\n",\
				(unsigned long long)look(fd).field,	\
				(unsigned long long)(value));		\
			return false;					\
		}							\
		pause_briefly();					\
	}								\
	return true;							\
} while (0)

bool await_waiters(int fd, unsigned int waiters)
{
	AWAIT_STATUS(fd, waiters, waiters);
}

bool await_contended(int fd, uint64_t contended)
{
	AWAIT_STATUS(fd, contended, contended);
}

bool await_token(int fd, uint64_t token)
{
	AWAIT_STATUS(fd, holder.token, token);
}

bool await_value(atomic_int *value, int at_least)
{
	int64_t deadline = now() + PATIENCE;

	while (atomic_load(value) < at_least) {
		if (now() > deadline)
			return false;
		pause_briefly();
	}
	return true;
}

/* The state of a thread, as in the third field of its stat file */
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
	int64_t deadline = now() + PATIENCE;

	while (thread_state(tid) != 'S') {
		if (now() > deadline)
			return false;
		pause_briefly();
	}
	return true;
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
		  int64_t timeout_ns, const char *job)
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
	/* The only clock that every C library joins on */
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

	/* One that has ended is not there to be joined yet, or not any more */
	if (err && err != ESRCH)
		die("cannot send a signal");
}

struct request {
	agent_fn *fn;
	struct tlock_acquire arg;
};

struct reply {
	int ret;
	struct tlock_acquire arg;
};

#define MAX_AGENTS	64
#define AGENT_FD	500	/* above all that a test has open */
static struct agent agents[MAX_AGENTS];
static int agent_count;
int agent_ctl = -1;

static __attribute__((noreturn)) void agent_main(int fd)
{
	struct request request;
	struct reply reply = { .ret = 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/*
	 * Another's contender that we held on to would never be closed: move
	 * what we keep out of the way, and close all below and above it.
	 */
	agent_ctl = fcntl(agent_ctl, F_DUPFD_CLOEXEC, AGENT_FD);
	if (fd >= 0)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, AGENT_FD);
	if (syscall(__NR_close_range, 3, AGENT_FD - 1, 0) ||
	    syscall(__NR_close_range, AGENT_FD + 1 + (fd >= 0), ~0U, 0))
		_exit(1);
	if (fd < 0)
		fd = contender();

	/* The first reply says that we are ready */
	do {
		if (write(agent_ctl, &reply, sizeof(reply)) != sizeof(reply) ||
		    read(agent_ctl, &request, sizeof(request)) !=
		    sizeof(request))
			_exit(1);
		reply.arg = request.arg;
		reply.ret = request.fn(fd, &reply.arg);
	} while (true);
}

static struct agent *agent_start(int fd, uint64_t namespaces)
{
	struct clone_args args = {
		.flags = namespaces,
		.exit_signal = SIGCHLD,
	};
	struct agent *a = &agents[agent_count];
	int ctl[2];

	if (agent_count++ == MAX_AGENTS)
		die("too many agents");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ctl))
		die("cannot make a socket");
	fflush(stdout);
	fflush(stderr);
	/* Into new namespaces by no other way at once; else as libc does it */
	a->pid = namespaces ? syscall(__NR_clone3, &args, sizeof(args)) :
			      fork();
	if (a->pid < 0)
		die("cannot start a process");
	if (!a->pid) {
		agent_ctl = ctl[1];
		agent_main(fd);
	}
	a->ctl = ctl[0];
	close(ctl[1]);
	if (agent_end(a, NULL))
		die("a process does not start");
	return a;
}

struct agent *agent(void)
{
	return agent_start(-1, 0);
}

struct agent *agent_sharing(int fd)
{
	return agent_start(fd, 0);
}

struct agent *agent_in(uint64_t namespaces)
{
	return agent_start(-1, namespaces);
}

void agent_begin(struct agent *a, agent_fn *fn,
		 const struct tlock_acquire *arg)
{
	struct request request = { .fn = fn };

	if (arg)
		request.arg = *arg;
	if (write(a->ctl, &request, sizeof(request)) != sizeof(request))
		die("an agent does not listen");
}

int agent_end(struct agent *a, struct tlock_acquire *arg)
{
	struct pollfd pollfd = { .fd = a->ctl, .events = POLLIN };
	struct reply reply;

	if (poll(&pollfd, 1, PATIENCE / MSEC) != 1)
		return STUCK;
	if (read(a->ctl, &reply, sizeof(reply)) != sizeof(reply))
		die("an agent is gone");
	if (arg)
		*arg = reply.arg;
	return reply.ret;
}

int agent_do(struct agent *a, agent_fn *fn, struct tlock_acquire *arg)
{
	agent_begin(a, fn, arg);
	return agent_end(a, arg);
}

uint64_t agent_take(struct agent *a, const char *job)
{
	struct tlock_acquire arg = ask(0, job);
	int ret = agent_do(a, acquire, &arg);

	if (ret)
		die("an agent cannot take the lock for %s: %d", job, ret);
	return arg.token;
}

static int do_release(int fd, struct tlock_acquire *unused)
{
	(void)unused;
	return release(fd);
}

int agent_release(struct agent *a)
{
	return agent_do(a, do_release, NULL);
}

static int do_look(int fd, struct tlock_acquire *arg)
{
	struct tlock_status st = look(fd);

	memcpy(arg, &st, sizeof(st));
	return 0;
}

struct tlock_status agent_look(struct agent *a)
{
	struct tlock_acquire arg = ask(0, "");
	struct tlock_status st;

	if (agent_do(a, do_look, &arg))
		die("an agent cannot look");
	memcpy(&st, &arg, sizeof(st));
	return st;
}

int agent_read(int fd, struct tlock_acquire *arg)
{
	(void)fd;
	snprintf(arg->holder.job, sizeof(arg->holder.job), "%s",
		 read_text(arg->job));
	return 0;
}

int agent_reap(struct agent *a)
{
	int wstatus;

	if (waitpid(a->pid, &wstatus, 0) != a->pid)
		die("cannot wait for an agent");
	a->pid = 0;
	close(a->ctl);
	return wstatus;
}

int agent_kill(struct agent *a)
{
	if (kill(a->pid, SIGKILL))
		die("cannot kill an agent");
	return agent_reap(a);
}

void agents_kill(void)
{
	for (int i = 0; i < agent_count; i++)
		if (agents[i].pid)
			agent_kill(&agents[i]);
	agent_count = 0;
}

/* A message of one byte with room for a descriptor */
struct fd_message {
	char byte;
	struct iovec iov;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg;
};

static void fd_message(struct fd_message *m)
{
	memset(m, 0, sizeof(*m));
	m->iov.iov_base = &m->byte;
	m->iov.iov_len = 1;
	m->msg.msg_iov = &m->iov;
	m->msg.msg_iovlen = 1;
	m->msg.msg_control = &m->control;
	m->msg.msg_controllen = sizeof(m->control);
}

void send_fd(int sock, int fd)
{
	struct fd_message m;

	fd_message(&m);
	m.control.header.cmsg_level = SOL_SOCKET;
	m.control.header.cmsg_type = SCM_RIGHTS;
	m.control.header.cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(&m.control.header), &fd, sizeof(fd));
	if (sendmsg(sock, &m.msg, 0) != 1)
		die("cannot send a descriptor");
}

int recv_fd(int sock)
{
	struct fd_message m;
	int fd;

	fd_message(&m);
	if (recvmsg(sock, &m.msg, MSG_CMSG_CLOEXEC) != 1 ||
	    m.control.header.cmsg_type != SCM_RIGHTS)
		die("cannot receive a descriptor");
	memcpy(&fd, CMSG_DATA(&m.control.header), sizeof(fd));
	return fd;
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

uint64_t read_number(const char *path)
{
	const char *text = read_text(path);
	unsigned long long number;
	char *end;

	number = strtoull(text, &end, 10);
	if (end == text || *end)
		die("%s is no number: %s", path, text);
	return number;
}

const char *sysfs_text(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), SYSFS "/%s", name);
	return read_text(path);
}

uint64_t sysfs_number(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), SYSFS "/%s", name);
	return read_number(path);
}
