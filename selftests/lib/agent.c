// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "helpers.h"

#ifndef __NR_close_range
#define __NR_close_range 436
#endif
#ifndef __NR_clone3
#define __NR_clone3 435
#endif

struct request {
	agent_fn *fn;
	struct tlock_acquire arg;
};

struct reply {
	int ret;
	struct tlock_acquire arg;
	struct tlock_status status;
};

#define MAX_AGENTS	64
static struct agent agents[MAX_AGENTS];
static int agent_count;
int agent_ctl = -1;
/* In an agent: the last status it read; its next reply contains it */
static struct tlock_status seen;

static __attribute__((noreturn)) void agent_main(int fd)
{
	struct request request;
	struct reply reply = { .ret = 0 };
	unsigned int above;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/*
	 * If this process kept another contender's file, that file would never
	 * be closed. Move the descriptors to keep out of the way, and close all
	 * below and above them.
	 */
	agent_ctl = fcntl(agent_ctl, F_DUPFD_CLOEXEC, AGENT_FD);
	if (fd >= 0)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, AGENT_FD);
	above = fd < 0 ? AGENT_FD + 1 : AGENT_FD + 2;
	if (syscall(__NR_close_range, 3, AGENT_FD - 1, 0) ||
	    syscall(__NR_close_range, above, ~0U, 0))
		_exit(1);
	if (fd < 0)
		fd = contender();

	/* The first reply says that the agent is ready */
	do {
		if (write(agent_ctl, &reply, sizeof(reply)) != sizeof(reply) ||
		    read(agent_ctl, &request, sizeof(request)) !=
		    sizeof(request))
			_exit(1);
		reply.arg = request.arg;
		reply.ret = request.fn(fd, &reply.arg);
		reply.status = seen;
	} while (true);
}

static struct agent *agent_start(int fd, __u64 namespaces)
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
	/*
	 * Only clone3() can start a process directly in any kind of namespace.
	 * Without namespaces, use fork() as libc does.
	 */
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

struct agent *agent_in(__u64 namespaces)
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
		die("cannot send to an agent");
}

static int agent_reply(struct agent *a, struct reply *reply)
{
	struct pollfd pollfd = { .fd = a->ctl, .events = POLLIN };

	if (poll(&pollfd, 1, PATIENCE / MSEC) != 1)
		return STUCK;
	if (read(a->ctl, reply, sizeof(*reply)) != sizeof(*reply))
		die("an agent is gone");
	return reply->ret;
}

int agent_end(struct agent *a, struct tlock_acquire *arg)
{
	struct reply reply;
	int ret = agent_reply(a, &reply);

	if (arg && ret != STUCK)
		*arg = reply.arg;
	return ret;
}

int agent_do(struct agent *a, agent_fn *fn, struct tlock_acquire *arg)
{
	agent_begin(a, fn, arg);
	return agent_end(a, arg);
}

__u64 agent_take(struct agent *a, const char *job)
{
	struct tlock_acquire arg = ask(0, job);
	int ret = agent_do(a, acquire, &arg);

	if (ret)
		die("an agent cannot acquire the lock for %s: %d", job, ret);
	return arg.token;
}

static int do_release(int fd, struct tlock_acquire *arg)
{
	return release(fd);
}

int agent_release(struct agent *a)
{
	return agent_do(a, do_release, NULL);
}

static int do_look(int fd, struct tlock_acquire *arg)
{
	seen = look(fd);
	return 0;
}

struct tlock_status agent_look(struct agent *a)
{
	struct reply reply;

	agent_begin(a, do_look, NULL);
	if (agent_reply(a, &reply))
		die("an agent cannot look");
	return reply.status;
}

static int do_revoke(int fd, struct tlock_acquire *arg)
{
	return revoke_grant(fd, arg->token, arg->lease_ns);
}

int agent_revoke(struct agent *a, __u64 token, __u64 grace_ns)
{
	struct tlock_acquire arg = ask_lease(0, "", grace_ns);

	arg.token = token;
	return agent_do(a, do_revoke, &arg);
}

int agent_read(int fd, struct tlock_acquire *arg)
{
	snprintf(arg->holder.job, sizeof(arg->holder.job), "%s",
		 read_text(arg->job));
	return 0;
}

void agent_pause(const struct agent *a, const char *cgroup)
{
	int wstatus;

	if (cgroup ? cgroup_write(cgroup, "cgroup.freeze", "1") ||
		     !await_cgroup(cgroup, "frozen 1") :
		     kill(a->pid, SIGSTOP) ||
		     waitpid(a->pid, &wstatus, WUNTRACED) != a->pid)
		die("a process does not stop");
}

void agent_resume(const struct agent *a, const char *cgroup)
{
	if (cgroup ? cgroup_write(cgroup, "cgroup.freeze", "0") :
		     kill(a->pid, SIGCONT))
		die("a process does not go on");
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

/* A message of one byte, with room for a descriptor */
struct fd_message {
	char byte;
	struct iovec iov;
	struct msghdr msg;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
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
