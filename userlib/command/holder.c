// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The tlock command: what /proc says about a lock's holder: whether its process
 * can go on, and if it has ended, which processes still have its file; and which
 * processes use a lock.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "status.h"

/* The inode of the initial pid namespace, on every kernel */
#define INITIAL_PID_NAMESPACE	0xeffffffcU

/* How many processes a sentence names */
#define MAX_NAMED	8

static const char *const names[] = {
	[STATE_FREE] = "free",
	[STATE_HELD] = "held",
	[STATE_GRANTED] = "granted",
	[STATE_REVOKING] = "revoking",
	[STATE_EXPIRED] = "expired",
	[STATE_STOPPED] = "stopped",
	[STATE_TRACED] = "traced",
	[STATE_FROZEN] = "frozen",
	[STATE_DUMPING] = "dumping",
	[STATE_ENDED] = "ended",
	[STATE_UNSEEN] = "held",
	[STATE_REMOTE] = "remote",
	[STATE_SHUT] = "shut",
};

const char *state_name(enum holder_state state)
{
	return names[state];
}

/*
 * Reads a file of /proc or /sys: a single read() gets all of it. Returns its
 * text, until the next call; NULL if it cannot be read.
 */
static const char *text_of(const char *path_format, ...)
	__attribute__((__format__(__printf__, 1, 2)));

static const char *text_of(const char *path_format, ...)
{
	static char text[65536];
	char path[PATH_MAX];
	ssize_t length;
	va_list args;
	int fd;

	va_start(args, path_format);
	vsnprintf(path, sizeof(path), path_format, args);
	va_end(args);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length < 0)
		return NULL;
	text[length] = '\0';
	return text;
}

/*
 * Finds the first line that begins with @word, as "State:" does in
 * "State:\tS (sleeping)". Returns the text behind it, without leading blanks;
 * an empty text if there is no such line.
 */
static const char *behind(const char *word, const char *text)
{
	size_t length = strlen(word);

	while (text && strncmp(text, word, length)) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text ? text + length + strspn(text + length, " \t") : "";
}

/* The control group of the process before: many are in the same one */
struct group {
	char path[PATH_MAX];
	bool frozen;
};

static bool is_frozen(pid_t pid, struct group *group)
{
	const char *path = behind("0::", text_of("/proc/%d/cgroup", pid));
	size_t length = strcspn(path, "\n");

	if (!length || length >= sizeof(group->path))
		return false;
	if (group->path[length] || memcmp(group->path, path, length)) {
		snprintf(group->path, sizeof(group->path), "%.*s", (int)length,
			 path);
		group->frozen = *behind("frozen",
					text_of("/sys/fs/cgroup%s/cgroup.events",
						group->path)) == '1';
	}
	return group->frozen;
}

static enum holder_state state_of(pid_t pid, struct group *group)
{
	const char *status = text_of("/proc/%d/status", pid);
	char state = *behind("State:", status);

	if (*behind("CoreDumping:", status) == '1')
		return STATE_DUMPING;
	if (state == 'T')
		return STATE_STOPPED;
	if (state == 't')
		return STATE_TRACED;
	return is_frozen(pid, group) ? STATE_FROZEN : STATE_HELD;
}

bool can_go_on(pid_t pid)
{
	struct group group = { "", false };

	return state_of(pid, &group) == STATE_HELD;
}

/* A process's open file of a lock */
struct lock_file {
	pid_t pid;
	dev_t device;
	bool for_writing;
	uint64_t token;		/* 0: does not hold the lock */
};

/*
 * Calls @visit for each open file of any lock in the process whose directory in
 * /proc has the name @pid. Asks fdinfo first, for each file, since stat() of a
 * file on a network filesystem can hang.
 */
static void visit_files(const char *pid,
			void (*visit)(const struct lock_file *file, void *data),
			void *data)
{
	struct dirent *entry;
	char *path;
	DIR *dir;

	path = checked(asprintf(&path, "/proc/%s/fd", pid) < 0 ? NULL : path);
	dir = opendir(path);
	free(path);
	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		struct lock_file file = { .pid = (pid_t)strtol(pid, NULL, 10) };
		const char *info;
		struct stat st;

		if (!isdigit((unsigned char)*entry->d_name))
			continue;
		info = text_of("/proc/%s/fdinfo/%s", pid, entry->d_name);
		if (!*behind("tlock-state:", info) ||
		    fstatat(dirfd(dir), entry->d_name, &st, 0))
			continue;
		file.device = st.st_rdev;
		file.for_writing = strtoul(behind("flags:", info), NULL, 8) &
			O_ACCMODE;
		file.token = strtoull(behind("tlock-token:", info), NULL, 10);
		visit(&file, data);
	}
	closedir(dir);
}

/*
 * The same for all processes that we may see, in the order of their pids,
 * except for this one, which may have the file from a shell.
 */
static void visit_all_files(void (*visit)(const struct lock_file *file,
					  void *data), void *data)
{
	struct dirent **entries = NULL;
	int num = scandir("/proc", &entries, NULL, versionsort);
	int i;

	for (i = 0; i < num; i++) {
		pid_t pid = (pid_t)strtol(entries[i]->d_name, NULL, 10);

		if (pid > 0 && pid != getpid())
			visit_files(entries[i]->d_name, visit, data);
		free(entries[i]);
	}
	free(entries);
}

static void add_pid(struct pids *pids, pid_t pid)
{
	/* The files of a process come together */
	if (pids->num && pids->pid[pids->num - 1] == pid)
		return;
	pids->pid = checked(reallocarray(pids->pid, pids->num + 1,
					 sizeof(*pids->pid)));
	pids->pid[pids->num++] = pid;
}

static void print_pids(const struct pids *pids, FILE *out)
{
	size_t i;

	for (i = 0; i < pids->num && i < MAX_NAMED; i++) {
		const char *comm = text_of("/proc/%d/comm", pids->pid[i]);
		char *name = comm ? strndup(comm, strcspn(comm, "\n")) :
			strdup("ended");
		char *safe = escaped(checked(name));

		fprintf(out, "%s%d (%s)", i ? ", " : "PID ", pids->pid[i],
			safe);
		free(name);
		free(safe);
	}
	if (i < pids->num)
		fprintf(out, " and %zu more", pids->num - i);
}

struct users {
	dev_t device;
	struct pids pids;
};

static void visit_user(const struct lock_file *file, void *data)
{
	struct users *users = data;

	if (file->device == users->device && file->for_writing)
		add_pid(&users->pids, file->pid);
}

char *users_of(dev_t device)
{
	struct users users = { .device = device };
	char *text = NULL;
	size_t size;
	FILE *out = checked(open_memstream(&text, &size));

	visit_all_files(visit_user, &users);
	print_pids(&users.pids, out);
	free(users.pids.pid);
	if (fclose(out))
		checked(NULL);
	return text;
}

/* Whether every process has a pid in our pid namespace */
static bool sees_all(void)
{
	struct stat st;

	return !stat("/proc/self/ns/pid", &st) &&
		st.st_ino == INITIAL_PID_NAMESPACE;
}

struct rows {
	struct row *row;
	size_t num;
};

static bool is_missing(const struct row *row)
{
	return row->state == STATE_ENDED || row->state == STATE_UNSEEN;
}

/* Another lock may have the same token */
static void visit_holder(const struct lock_file *file, void *data)
{
	const struct rows *rows = data;
	size_t i;

	for (i = 0; file->token && i < rows->num; i++) {
		struct row *row = &rows->row[i];

		if (is_missing(row) && row->device == file->device &&
		    row->status.holder.token == file->token)
			add_pid(&row->open_in, file->pid);
	}
}

/*
 * The holder may have ended in the meantime, and its pid been reused: whether
 * it is still the same
 */
static bool still_holds(const struct row *row)
{
	const struct tlock_holder *holder = &row->status.holder;
	struct tlock *t = tlock_open(row->path, O_RDONLY);
	struct tlock_status now;
	bool same;

	same = t && !tlock_status(t, &now) &&
		now.holder.token == holder->token &&
		now.holder.pid == holder->pid;
	tlock_close(t);
	return same;
}

/* The state of a holder whose process runs */
static enum holder_state state_of_grant(const struct row *row)
{
	uint32_t flags = row->status.holder.flags;

	if (expires(&row->status.holder) && row->left_ns <= 0)
		return STATE_EXPIRED;
	if (flags & TLOCK_REVOKING)
		return STATE_REVOKING;
	return flags & TLOCK_UNFETCHED ? STATE_GRANTED : STATE_HELD;
}

/* Whether the lock itself reports this state: then it needs no second look */
static bool is_reported(enum holder_state state)
{
	return state == STATE_FREE || state == STATE_HELD ||
		state == STATE_GRANTED || state == STATE_REVOKING ||
		state == STATE_EXPIRED || state == STATE_REMOTE ||
		state == STATE_SHUT;
}

void look_at_holders(struct row *row, size_t num)
{
	struct rows rows = { .row = row, .num = num };
	struct group group = { "", false };
	bool missing = false;
	size_t i;

	for (i = 0; i < num; i++) {
		const struct tlock_holder *holder = &row[i].status.holder;

		if (is_remote(holder))
			row[i].state = holder->token ? STATE_REMOTE : STATE_SHUT;
		else if (!holder->token)
			row[i].state = STATE_FREE;
		else if (holder->pid)
			row[i].state = state_of(holder->pid, &group);
		else
			row[i].state = sees_all() ? STATE_ENDED : STATE_UNSEEN;
		if (row[i].state == STATE_HELD)
			row[i].state = state_of_grant(&row[i]);
		missing = missing || is_missing(&row[i]);
	}
	/* Once for all locks, as there may be many processes */
	if (missing)
		visit_all_files(visit_holder, &rows);
	for (i = 0; i < num; i++) {
		if (is_reported(row[i].state) || still_holds(&row[i]))
			continue;
		row[i].state = STATE_HELD;
		row[i].open_in.num = 0;
	}
}

/* Prints a sentence if the gate keeps this host from having the lock. */
static void print_gate_note(const struct row *row, FILE *out)
{
	const struct tlock_status *status = &row->status;
	bool unserved = status->flags & TLOCK_GATED &&
		!(status->flags & TLOCK_SERVED);

	if (!unserved && row->state != STATE_SHUT)
		return;
	fprintf(out, "%s: ", basename(row->path));
	print_shut(status, row->host, out);
	putc('\n', out);
}

void print_notes(const struct row *rows, size_t num, FILE *out)
{
	size_t i;

	for (i = 0; i < num; i++) {
		const struct row *row = &rows[i];
		pid_t pid = row->status.holder.pid;

		print_gate_note(row, out);
		if (row->state == STATE_FREE || row->state == STATE_HELD ||
		    row->state == STATE_REMOTE || row->state == STATE_SHUT)
			continue;
		fprintf(out, "%s: holder ", basename(row->path));
		switch (row->state) {
		case STATE_GRANTED:
			fprintf(out, "(PID %d) has not fetched its grant yet: its event loop is busy",
				pid);
			break;
		case STATE_REVOKING:
			fprintf(out, "(PID %d) is being revoked; it keeps the lock until its grace has ended and somebody wants it",
				pid);
			break;
		case STATE_EXPIRED:
			fprintf(out, "(PID %d) has let its lease or grace expire; the lock passes on as soon as somebody wants it",
				pid);
			break;
		case STATE_STOPPED:
			fprintf(out, "is stopped; 'kill -CONT %d' continues it",
				pid);
			break;
		case STATE_TRACED:
			fprintf(out, "(PID %d) is stopped by a debugger", pid);
			break;
		case STATE_FROZEN:
			fprintf(out, "(PID %d) is frozen, with its container or control group",
				pid);
			break;
		case STATE_DUMPING:
			fprintf(out, "(PID %d) is writing a core dump, and ends after that",
				pid);
			break;
		default:
			fputs(row->state == STATE_ENDED ? "ended" :
			      "ended or is in another container", out);
			if (row->open_in.num)
				fputs(", file still open in ", out);
			else
				fputs(geteuid() ? "; root may see who has its file" :
				      "; no process here has its file", out);
			print_pids(&row->open_in, out);
		}
		putc('\n', out);
	}
}
