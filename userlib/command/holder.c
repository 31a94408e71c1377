// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The tlock command: what /proc says about a lock's holder: whether its process
 * can go on, and if it has ended, which processes still have its file.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
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
	[STATE_STOPPED] = "stopped",
	[STATE_TRACED] = "traced",
	[STATE_FROZEN] = "frozen",
	[STATE_DUMPING] = "dumping",
	[STATE_ENDED] = "ended",
	[STATE_UNSEEN] = "held",
};

const char *state_name(enum holder_state state)
{
	return names[state];
}

/*
 * Finds the line of a file that begins with @begin. Return: the rest of the
 * line, without leading blanks, which the caller must free; NULL if there is no
 * such line
 */
static char *line_of(const char *begin, const char *path_format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

static char *line_of(const char *begin, const char *path_format, ...)
{
	char *line = NULL, *path;
	size_t size = 0;
	va_list args;
	FILE *file;

	va_start(args, path_format);
	if (vasprintf(&path, path_format, args) < 0)
		path = NULL;
	va_end(args);
	file = fopen(checked(path), "re");
	free(path);
	if (!file)
		return NULL;

	while (getline(&line, &size, file) > 0) {
		char *rest = line + strlen(begin);

		if (strncmp(line, begin, strlen(begin)))
			continue;
		fclose(file);
		rest += strspn(rest, " \t");
		rest[strcspn(rest, "\n")] = '\0';
		memmove(line, rest, strlen(rest) + 1);
		return line;
	}
	fclose(file);
	free(line);
	return NULL;
}

static bool is_frozen(pid_t pid)
{
	char *group = line_of("0::", "/proc/%d/cgroup", pid);
	char *frozen = NULL;
	bool answer;

	if (group)
		frozen = line_of("frozen", "/sys/fs/cgroup%s/cgroup.events",
				 group);
	answer = frozen && *frozen == '1';
	free(frozen);
	free(group);
	return answer;
}

static enum holder_state state_of(pid_t pid)
{
	char *state = line_of("State:", "/proc/%d/status", pid);
	char *dumping = line_of("CoreDumping:", "/proc/%d/status", pid);
	enum holder_state answer = STATE_HELD;

	if (dumping && *dumping == '1')
		answer = STATE_DUMPING;
	else if (state && *state == 'T')
		answer = STATE_STOPPED;
	else if (state && *state == 't')
		answer = STATE_TRACED;
	else if (is_frozen(pid))
		answer = STATE_FROZEN;
	free(dumping);
	free(state);
	return answer;
}

/*
 * Whether the process @pid has the file of @device that holds the lock with
 * @token. Asks fdinfo first, for each file, since stat() of a file on a network
 * filesystem can hang.
 */
static bool has_file(const char *pid, dev_t device, const char *token)
{
	char *path, *found;
	struct dirent *entry;
	bool has = false;
	DIR *dir;

	path = checked(asprintf(&path, "/proc/%s/fd", pid) < 0 ? NULL : path);
	dir = opendir(path);
	free(path);
	if (!dir)
		return false;
	while (!has && (entry = readdir(dir))) {
		struct stat st;

		if (!isdigit((unsigned char)*entry->d_name))
			continue;
		found = line_of("tlock-token:", "/proc/%s/fdinfo/%s", pid,
				entry->d_name);
		/* Another lock may have the same token */
		has = found && !strcmp(found, token) &&
			!fstatat(dirfd(dir), entry->d_name, &st, 0) &&
			st.st_rdev == device;
		free(found);
	}
	closedir(dir);
	return has;
}

/* Finds the processes that have the holder's file, as far as we may see. */
static void find_file(struct row *row, dev_t device)
{
	struct dirent **entries = NULL;
	char token[24];
	int i, num;

	snprintf(token, sizeof(token), "%llu", row->status.holder.token);
	num = scandir("/proc", &entries, NULL, versionsort);
	for (i = 0; i < num; i++) {
		const char *name = entries[i]->d_name;
		pid_t pid = (pid_t)strtol(name, NULL, 10);

		/* Skip this process, which may have the file from a shell */
		if (pid > 0 && pid != getpid() &&
		    has_file(name, device, token)) {
			row->open_in = checked(reallocarray(row->open_in,
						row->num_open_in + 1,
						sizeof(*row->open_in)));
			row->open_in[row->num_open_in++] = pid;
		}
		free(entries[i]);
	}
	free(entries);
}

/* Whether every process has a pid in our pid namespace */
static bool sees_all(void)
{
	struct stat st;

	return !stat("/proc/self/ns/pid", &st) &&
		st.st_ino == INITIAL_PID_NAMESPACE;
}

void look_at_holder(struct row *row, struct tlock *t)
{
	const struct tlock_holder *holder = &row->status.holder;
	struct tlock_status again;
	struct stat st;

	row->state = STATE_FREE;
	if (!holder->token)
		return;
	if (holder->pid) {
		row->state = state_of(holder->pid);
	} else {
		row->state = sees_all() ? STATE_ENDED : STATE_UNSEEN;
		if (!fstat(tlock_fd(t), &st))
			find_file(row, st.st_rdev);
	}
	/* The holder may have ended in the meantime, and its pid been reused */
	if (row->state != STATE_HELD && !tlock_status(t, &again) &&
	    (again.holder.token != holder->token ||
	     again.holder.pid != holder->pid)) {
		row->state = STATE_HELD;
		row->num_open_in = 0;
	}
}

static void print_processes(const struct row *row, FILE *out)
{
	size_t i;

	for (i = 0; i < row->num_open_in && i < MAX_NAMED; i++) {
		char *comm = line_of("", "/proc/%d/comm", row->open_in[i]);
		char *safe = escaped(comm ? comm : "ended");

		fprintf(out, "%s%d (%s)", i ? ", " : " in PID ",
			row->open_in[i], safe);
		free(safe);
		free(comm);
	}
	if (i < row->num_open_in)
		fprintf(out, " and %zu more", row->num_open_in - i);
}

void print_notes(const struct row *rows, size_t num, FILE *out)
{
	size_t i;

	for (i = 0; i < num; i++) {
		const struct row *row = &rows[i];
		pid_t pid = row->status.holder.pid;

		if (row->state == STATE_FREE || row->state == STATE_HELD)
			continue;
		fprintf(out, "%s: holder ", basename(row->path));
		switch (row->state) {
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
			if (row->num_open_in)
				fputs(", file still open", out);
			else
				fputs(geteuid() ? "; root may see who has its file" :
				      "; no process here has its file", out);
			print_processes(row, out);
		}
		putc('\n', out);
	}
}
