/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The language of the fuzzer's cases. A case is a few programs, each of a
 * thread in one of two processes, and a program is a list of operations.
 *
 * As text, which is what the corpus is made of and what is printed when a case
 * fails, a line is a thread: the letter of its process, how often it runs its
 * program if not once, and the operations, each a verb, its operands and, if it
 * is known, its result:
 *
 *	a*3 open:x:rdwr acquire:x:try=0 await:2 release:x
 *
 * Operands that are left out are the first of their kind. A line that begins
 * with white space goes on with the thread before.
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
	OPEN, CLOSE, DUP, ACQUIRE, REACQUIRE, RELEASE, FLOCK, STATUS, IOCTL, CALL,
	LOOK, COMM, MEMORY, SIGNAL, ALARM, FREEZE, FORK, END, NAP, AWAIT, MEET,
	VERBS
};

/*
 * What the operands mean where it is no number of the kernel's. The files: the
 * first three are open in both processes, as the same file; the next three are
 * each process's; the last is each thread's, and nobody else uses it.
 */
enum file { COMMON, SECOND, READER, X, Y, Z, SLOTS, OWN = SLOTS, FILES };

/* What is asked for: a job, a flag, or what is not defined yet */
enum ask {
	PLAIN, EMPTY, LONGEST, NOT_UTF8, LAST_VALID = NOT_UTF8,
	UNTERMINATED, NEWLINE, DEL, C1, FLAG, FLAGS, LEASE, RESERVED,
	LAST_RESERVED,
};

/*
 * The request's ticket: of the thread's last call that was interrupted, or of any
 * thread's; or that of no request
 */
enum ticket { NEW, THREADS_OWN, FOREIGN, GARBAGE };

enum how { EXCLUSIVE, TRY, UNLOCK, SHARED };

/* Where the argument is */
enum at {
	GOOD, UNALIGNED,
	SHORT,		/* the page ends after a short job */
	RACING,		/* what MEMORY changes */
	/* Those that cannot be used */
	CUT,		/* the page ends after the timeout */
	READONLY, NONE, NOWHERE, KERNEL, NONCANONICAL, TOP,
};

enum mangle { TYPE, NR, SIZE, DIR, VFS };

enum other {
	READ, PREAD, WRITE, LSEEK, MMAP, POLL, SETLK, OFD_SETLK, NONBLOCK, ASYNC,
	DUPFD, FSYNC, FTRUNCATE, FSTAT, FDINFO,
};

enum memory {
	MAKE_NONE, MAKE_READABLE, MAKE_WRITABLE, MAKE_GONE, MAKE_FRESH,
	/* Change its contents to that of this number */
	MAKE_TRY, MAKE_BRIEF, MAKE_NEVER, MAKE_FLAG, MAKE_UNTERMINATED,
};
#define CONTENTS	5

enum signals { FAIL, RESTART, QUIT };
enum child { LEAVE, LINGER, TAKE, RELEASES, CLOSES, KILLED };
enum end { EXIT, EXEC, KILL, KILL_OTHER };
enum await { AWAIT_FREE = -2, AWAIT_HELD = -1 };

struct op {
	__u8 verb;
	__u8 arg[MAX_OPERANDS];	/* which of their kinds */
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

/* The meaning of an operand */
__s64 operand(const struct op *op, int i);

/* Names of results; all that no call of ours has are the last */
#define OUTCOMES	26
int outcome_of(int ret);
const char *outcome_name(int outcome);

/* Reads the next case of a text, and moves on; dies of mistakes in it */
bool read_case(const char **text, struct fuzz_case *c);
void print_op(FILE *to, const struct op *op);
/* Each line after @prefix */
void print_case(FILE *to, const char *prefix, const struct fuzz_case *c);

/* Random numbers below @below, from a state that is not 0 */
__u32 rnd(__u64 *state, __u32 below);
/* A new case, and one that is like another */
void make_case(__u64 *random, struct fuzz_case *c);
void change_case(__u64 *random, struct fuzz_case *c);

#endif /* TLOCK_SELFTESTS_FUZZ_H */
