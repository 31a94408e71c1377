/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef TLOCK_SELFTESTS_AGENT_H
#define TLOCK_SELFTESTS_AGENT_H

#include <sys/types.h>

#include <linux/tlock.h>

/*
 * A process that makes calls for the test. An agent has no descriptor but its
 * own contender and the socket on which it is told what to do. It dies with
 * the test.
 */
struct agent {
	pid_t pid;
	int ctl;
};

/*
 * Its descriptors: the socket, and after it the file if it shares one. They are
 * above all that a test has open.
 */
#define AGENT_FD	500

/* What an agent can be made to call, with a copy of the argument */
typedef int agent_fn(int fd, struct tlock_acquire *arg);

/*
 * agent() has a file of its own; agent_sharing() has that of the caller;
 * agent_in() is in new namespaces (CLONE_NEW*), with a file of its own.
 */
struct agent *agent(void);
struct agent *agent_sharing(int fd);
struct agent *agent_in(__u64 namespaces);

/* Has it call @fn; @arg (may be NULL) is what it passes and gets back */
int agent_do(struct agent *a, agent_fn *fn, struct tlock_acquire *arg);
/* The same in two halves; the result may be STUCK */
void agent_begin(struct agent *a, agent_fn *fn,
		 const struct tlock_acquire *arg);
int agent_end(struct agent *a, struct tlock_acquire *arg);

__u64 agent_take(struct agent *a, const char *job);
int agent_release(struct agent *a);
struct tlock_status agent_look(struct agent *a);

/* Reads the file arg->job into arg->holder.job, for agent_do() */
int agent_read(int fd, struct tlock_acquire *arg);

/* Waits for its end, killing it first or not; returns wait()'s status */
int agent_reap(struct agent *a);
int agent_kill(struct agent *a);
void agents_kill(void);

/* In an agent: the socket to the test */
extern int agent_ctl;

/* A descriptor over a socket, or dies */
void send_fd(int sock, int fd);
int recv_fd(int sock);

#endif /* TLOCK_SELFTESTS_AGENT_H */
