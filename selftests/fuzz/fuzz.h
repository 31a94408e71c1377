/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The language of the fuzzer's cases. A case is a few programs, each for a
 * thread in one of two processes. A program is a list of operations.
 *
 * The corpus, and the output when a case fails, is text with a line for each
 * thread: the letter of its process, the number of times that it runs its
 * program if not once, and the operations. An operation is a verb, its
 * operands and, if it is known, its result:
 *
 *	a*3 open:x:rdwr acquire:x:try=0 await:2 release:x
 *
 * Operands that are left out are the first of their kind. A line that begins
 * with white space continues the thread of the line before.
 */
#ifndef TLOCK_SELFTESTS_FUZZ_H
#define TLOCK_SELFTESTS_FUZZ_H

#include <stdbool.h>
#include <stdio.h>

#include <linux/types.h>

#define PROCESSES	2
#define MAX_THREADS	6
#define MAX_OPS		24
#define MAX_OPERANDS	6
#define MAX_TIMES	9
/* No result is expected */
#define ANY		1

enum verb {
	OPEN, CLOSE, DUP, ACQUIRE, REACQUIRE, RENEW, RELEASE, FLOCK, STATUS,
	REVOKE, IOCTL, CALL,
	/* An acquire and a reacquire with TLOCK_ASYNC, and one that fetches */
	START, START_AGAIN, FETCH,
	/* Who waits; to monitor the lock, and to read what happened */
	WAITER, MONITOR, EVENTS,
	LOOK, CREATE, DELETE, COMM, MEMORY, SIGNAL, ALARM, FREEZE, FORK, END, NAP,
	AWAIT, MEET, WATCH, VERBS
};

/*
 * Meanings of operands that are not numbers of the kernel. Files: the first
 * three are shared by both processes; each process has the next three of its
 * own; each thread has the last of its own, and nobody else uses it.
 */
enum file { COMMON, SECOND, READER, X, Y, Z, SLOTS, OWN = SLOTS, FILES };

/*
 * Locks: besides the first one, two that a case may create and delete. Only a
 * thread's own file can be open on these, so it knows its lock.
 */
enum lock { FIRST, A, B, LOCKS };

/* Names to create and delete: those two; one of random bytes; others */
enum name {
	NAME_A = A, NAME_B = B, RANDOM, LONGEST_NAME, LAST_VALID_NAME = LONGEST_NAME,
	TOO_LONG, NO_NAME, NAME_OF_FIRST, NAME_OF_DEVICE, SLASH, DOTS, DASH, NEWLINES,
};

/* What a call asks for: a job, a lease, a flag, or a field that is not defined */
enum ask {
	PLAIN, EMPTY, LONGEST, NOT_UTF8, BRIEF, LEASE, ENDLESS,
	LAST_VALID = ENDLESS,
	UNTERMINATED, NEWLINE, DEL, C1, FLAG, FLAGS, RESERVED, LAST_RESERVED,
};

/* The grant to revoke: the present one, the one before it, or none */
enum whose { HOLDERS, FORMER, NOBODYS };

/* Fields that are not defined */
enum field { NO_FIELD, REVOKE_FLAG, REVOKE_RESERVED };

/*
 * The ticket passed: that of the last request of this thread that was
 * interrupted or is asynchronous, or of any thread, or one of no request
 */
enum ticket { NEW, THREADS_OWN, FOREIGN, GARBAGE };

enum how { EXCLUSIVE, TRY, UNLOCK, SHARED };

/* Where the argument is in memory */
enum at {
	GOOD, UNALIGNED,
	SHORT,		/* the page ends after a short job */
	RACING,		/* in the page that MEMORY changes */
	/* Arguments that cannot be used */
	CUT,		/* the page ends after the timeout */
	READONLY, NONE, NOWHERE, KERNEL, NONCANONICAL, TOP,
};

enum mangle { TYPE, NR, SIZE, DIRECTION, VFS };

enum other {
	READ, PREAD, WRITE, LSEEK, MMAP, POLL, SETLK, OFD_SETLK, NONBLOCK, ASYNC,
	DUPFD, FSYNC, FTRUNCATE, FSTAT, FDINFO, REOPEN,
};

enum memory {
	MAKE_NONE, MAKE_READABLE, MAKE_WRITABLE, MAKE_GONE, MAKE_FRESH,
	/* Change its contents to the entry with this number */
	MAKE_TRY, MAKE_BRIEF, MAKE_NEVER, MAKE_FLAG, MAKE_UNTERMINATED,
	MAKE_ASYNC, MAKE_RENEW, MAKE_LEASE,
};
#define CONTENTS	8

enum signals { FAIL, RESTART, QUIT };
enum child { LEAVE, LINGER, TAKE, RELEASES, CLOSES, KILLED, STARTS };
enum end { EXIT, EXEC, KILL, KILL_OTHER };
enum await { AWAIT_FREE = -2, AWAIT_HELD = -1 };

/*
 * poll(2) without waiting, or until the request is decided, somebody waits, or the
 * grant is revoked
 */
enum watch { GLANCE, DECIDED, WANTED, LOST };

struct op {
	__u8 verb;
	__u8 arg[MAX_OPERANDS];	/* indexes into their kinds */
	__s16 expect;		/* 0, a negative errno, or ANY */
};

struct program {
	__u8 process;
	__u8 times;
	__u8 ops;
	struct op op[MAX_OPS];
};

struct fuzz_case {
	char name[48];
	__u8 threads;
	struct program thread[MAX_THREADS];
};

extern const char *const verb_names[VERBS];

/* The value of an operand */
__s64 operand(const struct op *op, int i);

/* Names of results; the last is for all that no call of ours returns */
#define OUTCOMES	27
int outcome_of(int ret);
const char *outcome_name(int outcome);

/* Reads the next case from a text and advances it; dies of a syntax error */
bool read_case(const char **text, struct fuzz_case *c);
void print_op(FILE *to, const struct op *op);
/* Prints @prefix before each line */
void print_case(FILE *to, const char *prefix, const struct fuzz_case *c);

/* A random number below @below; the state must not be 0 */
__u32 rnd(__u64 *state, __u32 below);
/* Make a new case, or change one */
void make_case(__u64 *random, struct fuzz_case *c);
void change_case(__u64 *random, struct fuzz_case *c);

#endif /* TLOCK_SELFTESTS_FUZZ_H */
