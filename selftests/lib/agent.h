/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef TLOCK_SELFTESTS_AGENT_H
#define TLOCK_SELFTESTS_AGENT_H

#include <sys/types.h>

#include <linux/tlock.h>

/*
 * A process that makes calls on behalf of a test. Its only descriptors are its
 * own contender and the socket on which it receives requests. It dies with the
 * test.
 */
struct agent {
	pid_t pid;
	int ctl;
};

/*
 * An agent's descriptors: the socket has this number, and a file that it shares
 * has the next one. Both are above any descriptor that a test has open.
 */
#define AGENT_FD	500

/* A function that an agent can run; it gets a copy of the argument */
typedef int agent_fn(int fd, struct tlock_acquire *arg);

/*
 * agent() starts an agent with a file of its own, agent_sharing() one that
 * shares the caller's file, and agent_in() one in new namespaces (CLONE_NEW*)
 * with a file of its own.
 */
struct agent *agent(void);
struct agent *agent_sharing(int fd);
struct agent *agent_in(__u64 namespaces);

/*
 * Makes the agent call @fn and returns its result. @arg (may be NULL) is passed
 * to @fn and receives what it wrote.
 */
int agent_do(struct agent *a, agent_fn *fn, struct tlock_acquire *arg);
/* The same in two steps; agent_end() may return STUCK */
void agent_begin(struct agent *a, agent_fn *fn,
		 const struct tlock_acquire *arg);
int agent_end(struct agent *a, struct tlock_acquire *arg);

__u64 agent_take(struct agent *a, const char *job);
int agent_release(struct agent *a);
struct tlock_status agent_look(struct agent *a);

int agent_revoke(struct agent *a, __u64 token, __u64 grace_ns);

/* For agent_do(): reads the file arg->job into arg->holder.job */
int agent_read(int fd, struct tlock_acquire *arg);

/*
 * Stop the agent's process by SIGSTOP or, if @cgroup is not NULL, by freezing
 * that cgroup, which it has entered; and let it go on.
 */
void agent_pause(const struct agent *a, const char *cgroup);
void agent_resume(const struct agent *a, const char *cgroup);

/*
 * Wait for the agent to end, agent_kill() after killing it; return its wait
 * status
 */
int agent_reap(struct agent *a);
int agent_kill(struct agent *a);
void agents_kill(void);

/* In an agent: its socket to the test */
extern int agent_ctl;

/* Pass a descriptor over a socket, or die */
void send_fd(int sock, int fd);
int recv_fd(int sock);

#endif /* TLOCK_SELFTESTS_AGENT_H */
