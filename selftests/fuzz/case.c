// SPDX-License-Identifier: GPL-2.0-only
/*
 * The language of the fuzzer's cases: reads, prints, makes and changes them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "helpers.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/*** Operands ***/

struct value {
	const char *name;
	__s64 value;
};

/* A kind of operand: @values, or if NULL the numbers below @numbers */
struct kind {
	const struct value *values;
	__u32 numbers;
	/* Of 10 random operands, this many are the first value */
	__u32 first;
};

#define KIND(_values, _first) \
	{ .values = _values, .numbers = ARRAY_SIZE(_values), .first = _first }

static const struct value files[] = {
	{ "common", COMMON }, { "second", SECOND }, { "reader", READER },
	{ "x", X }, { "y", Y }, { "z", Z }, { "own", OWN },
};

static const struct value flags[] = {
	{ "rdwr", O_RDWR }, { "rdonly", O_RDONLY }, { "wronly", O_WRONLY },
	{ "nonblock", O_RDWR | O_NONBLOCK },
	{ "look", O_RDONLY | O_NONBLOCK },
	{ "path", O_PATH }, { "neither", O_ACCMODE },
	{ "cloexec", O_RDWR | O_CLOEXEC }, { "creat", O_RDWR | O_CREAT },
	{ "excl", O_RDWR | O_CREAT | O_EXCL }, { "trunc", O_RDWR | O_TRUNC },
	{ "direct", O_RDWR | O_DIRECT }, { "dir", O_RDONLY | O_DIRECTORY },
};

static const struct value locks[] = {
	{ "tlock", FIRST }, { "a", A }, { "b", B },
};

static const struct value names[] = {
	{ "a", NAME_A }, { "b", NAME_B }, { "random", RANDOM },
	{ "longest", LONGEST_NAME }, { "too_long", TOO_LONG },
	{ "none", NO_NAME }, { "tlock", NAME_OF_FIRST },
	{ "device", NAME_OF_DEVICE }, { "slash", SLASH }, { "dots", DOTS },
	{ "dash", DASH }, { "newlines", NEWLINES },
};

static const struct value timeouts[] = {
	{ "try", 0 }, { "1ns", 1 }, { "50us", 50 * USEC }, { "2ms", 2 * MSEC },
	{ "hour", 3600 * SEC }, { "never", FOREVER },
	{ "min", -0x7fffffffffffffffLL - 1 }, { "max", 0x7fffffffffffffffLL },
};

static const struct value asks[] = {
	{ "plain", PLAIN }, { "empty", EMPTY }, { "longest", LONGEST },
	{ "not_utf8", NOT_UTF8 }, { "brief", BRIEF }, { "lease", LEASE }, { "endless", ENDLESS },
	{ "unterminated", UNTERMINATED },
	{ "newline", NEWLINE }, { "del", DEL }, { "c1", C1 },
	{ "flag", FLAG }, { "flags", FLAGS },
	{ "reserved", RESERVED }, { "last_reserved", LAST_RESERVED },
};

static const struct value whoses[] = {
	{ "holders", HOLDERS }, { "former", FORMER }, { "nobodys", NOBODYS },
};

static const struct value graces[] = {
	{ "now", 0 }, { "1ns", 1 }, { "50us", 50 * USEC }, { "2ms", 2 * MSEC },
	{ "hour", 3600 * SEC }, { "max", -1 },
};

static const struct value fields[] = {
	{ "none", NO_FIELD }, { "flag", REVOKE_FLAG },
	{ "reserved", REVOKE_RESERVED },
};

static const struct value tickets[] = {
	{ "new", NEW }, { "own", THREADS_OWN }, { "foreign", FOREIGN },
	{ "garbage", GARBAGE },
};

/* To fetch by */
static const struct value fetches[] = {
	{ "own", THREADS_OWN }, { "foreign", FOREIGN }, { "garbage", GARBAGE },
	{ "new", NEW },
};

static const struct value hows[] = {
	{ "ex", EXCLUSIVE }, { "nb", TRY }, { "un", UNLOCK }, { "sh", SHARED },
};

static const struct value ats[] = {
	{ "good", GOOD }, { "unaligned", UNALIGNED }, { "short", SHORT },
	{ "racing", RACING }, { "cut", CUT }, { "readonly", READONLY },
	{ "none", NONE }, { "null", NOWHERE }, { "kernel", KERNEL },
	{ "noncanonical", NONCANONICAL }, { "top", TOP },
};

static const struct value vias[] = {
	{ "native", 0 }, { "compat", 1 },
};

static const struct value commands[] = {
	{ "acquire", ACQUIRE }, { "release", RELEASE },
	{ "reacquire", REACQUIRE }, { "status", STATUS },
};

static const struct value mangles[] = {
	{ "type", TYPE }, { "nr", NR }, { "size", SIZE }, { "dir", DIRECTION },
	{ "vfs", VFS },
};

static const struct value calls[] = {
	{ "read", READ }, { "pread", PREAD }, { "write", WRITE },
	{ "lseek", LSEEK }, { "mmap", MMAP }, { "poll", POLL },
	{ "setlk", SETLK }, { "ofd_setlk", OFD_SETLK }, { "nonblock", NONBLOCK },
	{ "async", ASYNC }, { "dupfd", DUPFD }, { "fsync", FSYNC },
	{ "ftruncate", FTRUNCATE }, { "fstat", FSTAT }, { "fdinfo", FDINFO },
	{ "reopen", REOPEN },
};

static const struct value memories[] = {
	{ "none", MAKE_NONE }, { "readable", MAKE_READABLE },
	{ "writable", MAKE_WRITABLE }, { "gone", MAKE_GONE },
	{ "fresh", MAKE_FRESH }, { "try", MAKE_TRY }, { "brief", MAKE_BRIEF },
	{ "never", MAKE_NEVER }, { "flag", MAKE_FLAG },
	{ "unterminated", MAKE_UNTERMINATED }, { "async", MAKE_ASYNC },
	{ "renew", MAKE_RENEW }, { "lease", MAKE_LEASE },
};

static const struct value signals[] = {
	{ "fail", FAIL }, { "restart", RESTART }, { "quit", QUIT },
};

static const struct value children[] = {
	{ "leave", LEAVE }, { "linger", LINGER }, { "take", TAKE },
	{ "release", RELEASES }, { "close", CLOSES }, { "killed", KILLED },
	{ "start", STARTS },
};

static const struct value ends[] = {
	{ "exit", EXIT }, { "exec", EXEC }, { "kill", KILL },
	{ "kill_other", KILL_OTHER },
};

static const struct value times[] = {
	{ "yield", 0 }, { "30us", 30 * USEC }, { "300us", 300 * USEC },
	{ "2ms", 2 * MSEC },
};

static const struct value states[] = {
	{ "0", 0 }, { "1", 1 }, { "2", 2 }, { "3", 3 }, { "4", 4 }, { "5", 5 },
	{ "free", AWAIT_FREE }, { "held", AWAIT_HELD },
};

static const struct value watches[] = {
	{ "glance", GLANCE }, { "decided", DECIDED }, { "wanted", WANTED },
	{ "lost", LOST },
};

/* Numbers of threads that wait for each other */
static const struct value meetings[] = {
	{ "2", 2 }, { "3", 3 }, { "4", 4 }, { "5", 5 }, { "6", 6 },
};

static const struct kind
	a_file = KIND(files, 0),
	a_slot = { .values = files, .numbers = SLOTS },
	a_flag = KIND(flags, 7),
	a_lock = KIND(locks, 6),
	a_lock_name = KIND(names, 4),
	a_timeout = KIND(timeouts, 1),
	an_ask = KIND(asks, 7),
	a_whose = KIND(whoses, 7),
	a_grace = KIND(graces, 3),
	a_field = KIND(fields, 9),
	an_at = KIND(ats, 7),
	a_via = KIND(vias, 8),
	a_ticket = KIND(tickets, 6),
	a_fetch = KIND(fetches, 7),
	a_how = KIND(hows, 2),
	a_command = KIND(commands, 0),
	a_mangle = KIND(mangles, 0),
	a_number = { .numbers = 256 },
	a_call = KIND(calls, 0),
	an_attribute = { .numbers = SYSFS_FILES },
	a_name = { .numbers = 4 },
	a_memory = KIND(memories, 0),
	a_thread = { .numbers = MAX_THREADS },
	a_signal = KIND(signals, 4),
	a_child = KIND(children, 0),
	an_end = KIND(ends, 0),
	a_time = KIND(times, 0),
	a_state = KIND(states, 0),
	a_meeting = KIND(meetings, 5),
	a_watch = KIND(watches, 4);

/*** Verbs ***/

static const struct {
	const struct kind *operand[MAX_OPERANDS];
	__u32 weight;	/* relative frequency in random programs */
} verbs[VERBS] = {
	[OPEN] = { { &a_file, &a_flag, &a_lock }, 8 },
	[CLOSE] = { { &a_file }, 4 },
	[DUP] = { { &a_slot, &a_slot }, 3 },
	[ACQUIRE] = { { &a_file, &a_timeout, &an_ask, &an_at, &a_via,
			&a_ticket }, 40 },
	[REACQUIRE] = { { &a_file, &a_timeout, &an_ask, &an_at, &a_via,
			  &a_ticket }, 25 },
	[RENEW] = { { &a_file, &a_timeout, &an_ask, &an_at, &a_via,
		      &a_ticket }, 8 },
	[RELEASE] = { { &a_file, &a_via }, 25 },
	[FLOCK] = { { &a_file, &a_how }, 10 },
	[STATUS] = { { &a_file, &an_at, &a_via }, 8 },
	[REVOKE] = { { &a_file, &a_whose, &a_grace, &a_field, &an_at, &a_via },
		     4 },
	[IOCTL] = { { &a_file, &a_command, &a_mangle, &a_number, &a_via }, 6 },
	[CALL] = { { &a_file, &a_call }, 5 },
	[START] = { { &a_file, &a_timeout, &an_ask, &an_at, &a_via,
		      &a_ticket }, 25 },
	[START_AGAIN] = { { &a_file, &a_timeout, &an_ask, &an_at, &a_via,
			&a_ticket }, 12 },
	[FETCH] = { { &a_file, &an_at, &a_via, &a_fetch }, 25 },
	[WAITER] = { { &a_file, &an_at, &a_via }, 5 },
	[MONITOR] = { { &a_file, &a_via }, 5 },
	[EVENTS] = { { &a_file, &an_at }, 8 },
	[LOOK] = { { &an_attribute }, 4 },
	[CREATE] = { { &a_lock_name, &a_number }, 6 },
	[DELETE] = { { &a_lock_name, &a_number }, 6 },
	[COMM] = { { &a_name }, 2 },
	[MEMORY] = { { &a_memory }, 14 },
	[SIGNAL] = { { &a_thread, &a_signal }, 10 },
	[ALARM] = { { &a_time }, 2 },
	[FREEZE] = { { }, 1 },
	[FORK] = { { &a_slot, &a_child }, 3 },
	[END] = { { &an_end }, 1 },
	[NAP] = { { &a_time }, 8 },
	[AWAIT] = { { &a_state }, 5 },
	[MEET] = { { &a_meeting }, 3 },
	[WATCH] = { { &a_file, &a_watch }, 10 },
};

const char *const verb_names[VERBS] = {
	[OPEN] = "open", [CLOSE] = "close", [DUP] = "dup",
	[ACQUIRE] = "acquire", [REACQUIRE] = "reacquire",
	[RENEW] = "renew", [RELEASE] = "release", [FLOCK] = "flock",
	[STATUS] = "status", [REVOKE] = "revoke", [IOCTL] = "ioctl",
	[CALL] = "call", [START] = "start", [START_AGAIN] = "restart",
	[FETCH] = "fetch", [WAITER] = "waiter", [MONITOR] = "monitor",
	[EVENTS] = "events", [LOOK] = "sysfs", [CREATE] = "create",
	[DELETE] = "delete", [COMM] = "comm",
	[MEMORY] = "memory", [SIGNAL] = "signal", [ALARM] = "alarm",
	[FREEZE] = "freeze", [FORK] = "fork", [END] = "end", [NAP] = "nap",
	[AWAIT] = "await", [MEET] = "meet", [WATCH] = "watch",
};

__s64 operand(const struct op *op, int i)
{
	const struct kind *kind = verbs[op->verb].operand[i];

	return kind->values ? kind->values[op->arg[i]].value : op->arg[i];
}

/*** Results ***/

static const struct {
	const char *name;
	int err;
} outcomes[OUTCOMES] = {
	{ "0", 0 }, { "EPERM", EPERM }, { "EINTR", EINTR }, { "EBADF", EBADF },
	{ "EAGAIN", EAGAIN }, { "EACCES", EACCES }, { "EFAULT", EFAULT },
	{ "EBUSY", EBUSY }, { "EEXIST", EEXIST }, { "ENODEV", ENODEV },
	{ "ENOTDIR", ENOTDIR }, { "EINVAL", EINVAL }, { "ENOTTY", ENOTTY },
	{ "ESPIPE", ESPIPE }, { "EDEADLK", EDEADLK }, { "ETIMEDOUT", ETIMEDOUT },
	{ "ENOMEM", ENOMEM }, { "ENXIO", ENXIO }, { "ENOSYS", ENOSYS },
	{ "EOPNOTSUPP", EOPNOTSUPP }, { "EMFILE", EMFILE }, { "EIO", EIO },
	{ "EINPROGRESS", EINPROGRESS }, { "ECANCELED", ECANCELED },
	{ "ENOENT", ENOENT }, { "ESTALE", ESTALE },
	{ "another", -1 },
};

int outcome_of(int ret)
{
	int i;

	for (i = 0; i < OUTCOMES - 1; i++)
		if (outcomes[i].err == -ret)
			break;
	return i;
}

const char *outcome_name(int outcome)
{
	return outcomes[outcome].name;
}

/*** Text ***/

static bool same(const char *name, const char *word, size_t len)
{
	return strlen(name) == len && !memcmp(name, word, len);
}

static __u8 read_operand(const struct kind *kind, const char *word, size_t len)
{
	__u32 i;

	if (!kind)
		die("too many operands at %s", word);
	if (!kind->values) {
		i = strtoul(word, NULL, 10);
		if (i >= kind->numbers)
			die("too big a number at %s", word);
		return i;
	}
	for (i = 0; i < kind->numbers; i++)
		if (same(kind->values[i].name, word, len))
			return i;
	die("what operand is %s", word);
}

static void read_op(const char *word, size_t len, struct op *op)
{
	const char *end = word + len, *next;
	size_t part = strcspn(word, ":= \t\n");
	int i;

	memset(op, 0, sizeof(*op));
	op->expect = ANY;
	for (i = 0; i < VERBS; i++)
		if (same(verb_names[i], word, part))
			break;
	if (i == VERBS)
		die("what verb is %s", word);
	op->verb = i;
	i = 0;
	for (next = word + part; next < end && *next == ':'; next += part) {
		part = strcspn(++next, ":= \t\n");
		if (i == MAX_OPERANDS)
			die("too many operands at %s", word);
		op->arg[i] = read_operand(verbs[op->verb].operand[i], next,
					  part);
		i++;
	}
	if (*next != '=')
		return;
	next++;
	for (i = 0; i < OUTCOMES - 1; i++)
		if (same(outcomes[i].name, next, end - next))
			op->expect = -outcomes[i].err;
	if (op->expect == ANY)
		die("what result is %s", next);
}

static void read_ops(const char *line, size_t len, struct program *p)
{
	const char *end = line + len;
	size_t word;

	for (;; line += word) {
		line += strspn(line, " \t");
		if (line >= end)
			return;
		word = strcspn(line, " \t\n");
		if (p->ops == MAX_OPS)
			die("too many operations at %s", line);
		read_op(line, word, &p->op[p->ops++]);
	}
}

bool read_case(const char **text, struct fuzz_case *c)
{
	struct program *p = NULL;
	const char *line;
	size_t len;

	memset(c, 0, sizeof(*c));
	for (; *(line = *text); *text = line + len + (line[len] == '\n')) {
		len = strcspn(line, "\n");
		if (*line == '#' || (!len && !*c->name))
			continue;
		if (!len)
			break;
		if (!strncmp(line, "case ", 5)) {
			if (*c->name)
				break;
			snprintf(c->name, sizeof(c->name), "%.*s",
				 (int)len - 5, line + 5);
			continue;
		}
		if (!*c->name)
			die("no case begins at %s", line);
		if (*line != ' ' && *line != '\t') {
			if (c->threads == MAX_THREADS)
				die("too many threads at %s", line);
			p = &c->thread[c->threads++];
			p->process = *line - 'a';
			if (p->process >= PROCESSES)
				die("what process is %s", line);
			p->times = 1;
			line++, len--;
			if (*line == '*') {
				p->times = line[1] - '0';
				if (p->times < 1 || p->times > MAX_TIMES)
					die("how often is %s", line);
				line += 2, len -= 2;
			}
		}
		if (!p)
			die("whose is %s", line);
		read_ops(line, len, p);
	}
	if (*c->name && !c->threads)
		die("%s has no threads", c->name);
	return *c->name;
}

void print_op(FILE *to, const struct op *op)
{
	const struct kind *kind;
	int last = MAX_OPERANDS - 1;

	fputs(verb_names[op->verb], to);
	while (last >= 0 && !op->arg[last])
		last--;
	for (int i = 0; i <= last; i++) {
		kind = verbs[op->verb].operand[i];
		if (kind->values)
			fprintf(to, ":%s", kind->values[op->arg[i]].name);
		else
			fprintf(to, ":%u", op->arg[i]);
	}
	if (op->expect != ANY)
		fprintf(to, "=%s", outcome_name(outcome_of(op->expect)));
}

void print_case(FILE *to, const char *prefix, const struct fuzz_case *c)
{
	fprintf(to, "%scase %s\n", prefix, c->name);
	for (int t = 0; t < c->threads; t++) {
		const struct program *p = &c->thread[t];

		fprintf(to, "%s%c", prefix, 'a' + p->process);
		if (p->times > 1)
			fprintf(to, "*%u", p->times);
		for (int i = 0; i < p->ops; i++) {
			fputc(' ', to);
			print_op(to, &p->op[i]);
		}
		fputc('\n', to);
	}
}

/*** Chance ***/

__u32 rnd(__u64 *state, __u32 below)
{
	/* xorshift64* */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * 2685821657736338717ULL >> 32) % below;
}

static void make_operand(__u64 *random, struct op *op, int i)
{
	const struct kind *kind = verbs[op->verb].operand[i];

	if (!kind)
		op->arg[i] = 0;
	else if (rnd(random, 10) < kind->first)
		op->arg[i] = 0;
	else
		op->arg[i] = rnd(random, kind->numbers);
}

static void make_op(__u64 *random, struct op *op)
{
	__u32 weight = 0, i;

	for (i = 0; i < VERBS; i++)
		weight += verbs[i].weight;
	weight = rnd(random, weight);
	for (i = 0; weight >= verbs[i].weight; i++)
		weight -= verbs[i].weight;
	op->verb = i;
	op->expect = ANY;
	for (i = 0; i < MAX_OPERANDS; i++)
		make_operand(random, op, i);
}

static void make_program(__u64 *random, struct program *p)
{
	__u8 file = rnd(random, FILES);

	p->process = rnd(random, PROCESSES);
	p->times = 1 + rnd(random, MAX_TIMES);
	p->ops = 2 + rnd(random, 10);
	for (int i = 0; i < p->ops; i++) {
		make_op(random, &p->op[i]);
		/* Mostly the same file, so that acquired locks get released */
		if (verbs[p->op[i].verb].operand[0] == &a_file &&
		    rnd(random, 10) < 7)
			p->op[i].arg[0] = file;
	}
}

void make_case(__u64 *random, struct fuzz_case *c)
{
	c->threads = 2 + rnd(random, MAX_THREADS - 1);
	for (int t = 0; t < c->threads; t++)
		make_program(random, &c->thread[t]);
}

static void change_program(__u64 *random, struct program *p)
{
	__u32 i = rnd(random, p->ops + 1);
	struct op *op = &p->op[i];

	switch (rnd(random, 5)) {
	case 0:
		p->times = 1 + rnd(random, MAX_TIMES);
		break;
	case 1:
		if (p->ops == MAX_OPS)
			break;
		memmove(op + 1, op, (p->ops++ - i) * sizeof(*op));
		make_op(random, op);
		break;
	case 2:
		if (i == p->ops)
			break;
		memmove(op, op + 1, (--p->ops - i) * sizeof(*op));
		break;
	default:
		if (i < p->ops)
			make_operand(random, op, rnd(random, MAX_OPERANDS));
		break;
	}
}

void change_case(__u64 *random, struct fuzz_case *c)
{
	__u32 t;

	for (t = 0; t < c->threads; t++)
		for (int i = 0; i < c->thread[t].ops; i++)
			c->thread[t].op[i].expect = ANY;
	for (int changes = 1 + rnd(random, 6); changes; changes--) {
		t = rnd(random, c->threads + 1);
		if (t < c->threads) {
			change_program(random, &c->thread[t]);
		} else if (c->threads < MAX_THREADS) {
			/* Another thread, perhaps with a copied program */
			if (rnd(random, 2))
				c->thread[t] = c->thread[rnd(random, t)];
			else
				make_program(random, &c->thread[t]);
			c->threads++;
		}
	}
}
