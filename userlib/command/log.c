// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock log: what tlock monitor --journal has logged, as journalctl finds it
 */
#define _GNU_SOURCE
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "monitor.h"

static const char usage[] =
"Usage:\n"
" tlock log [options] [LOCK...]\n"
"\n"
"Show what has happened to all locks, or to these, from the systemd journal,\n"
"which knows it if tlock-monitor.service was running at the time.\n"
"\n"
"Options:\n"
" -J, --json        print the journal's entries as JSON\n"
" -S, --since TIME  begin at TIME: \"yesterday\", \"-2h\", ...; see journalctl(1)\n"
" -U, --until TIME  end at TIME\n"
" -n, --lines N     show only the N newest events\n"
" -f, --follow      also show the events that follow, until Ctrl-C\n"
" -h, --help        display this help\n"
" -V, --version     display version\n"
"\n"
"For more details see tlock(1).\n";

/* An entry of the journal, as far as it has been read */
struct entry {
	struct happening h;
	int64_t wall_ns;
	char *texts[5];		/* that h refers to */
};

static int64_t nanoseconds(const char *seconds)
{
	return (int64_t)(strtod(seconds, NULL) * NS_PER_S + 0.5);
}

/* Keeps a text that was allocated, until the next one of that index. */
static const char *keep(struct entry *entry, int i, char *text)
{
	free(entry->texts[i]);
	entry->texts[i] = text;
	return text;
}

static void set_field(struct entry *entry, const char *name, const char *value)
{
	struct happening *h = &entry->h;

	/*
	 * Any user can log what looks like an event. print_line() makes jobs and
	 * commands printable, but not these.
	 */
	if (!strcmp(name, "TLOCK_LOCK")) {
		h->lock = keep(entry, 0, escaped(value));
	} else if (!strcmp(name, "TLOCK_EVENT")) {
		h->kind = keep(entry, 1, escaped(value));
	} else if (!strcmp(name, "TLOCK_JOB")) {
		h->job = keep(entry, 2, checked(strdup(value)));
	} else if (!strcmp(name, "TLOCK_COMMAND")) {
		h->comm = keep(entry, 3, checked(strdup(value)));
		h->has_process = true;
	} else if (!strcmp(name, "TLOCK_HOST")) {
		h->host = keep(entry, 4, checked(strdup(value)));
	} else if (!strcmp(name, "TLOCK_PID")) {
		h->pid = atoi(value);
	} else if (!strcmp(name, "TLOCK_WAITED")) {
		h->waited_ns = nanoseconds(value);
	} else if (!strcmp(name, "TLOCK_HELD")) {
		h->held_ns = nanoseconds(value);
	} else if (!strcmp(name, "TLOCK_LOST")) {
		h->lost = strtoull(value, NULL, 10);
	} else if (!strcmp(name, "__REALTIME_TIMESTAMP")) {
		entry->wall_ns = strtoll(value, NULL, 10) * 1000;
	}
}

static void begin_entry(struct entry *entry)
{
	entry->h = (struct happening){
		.waited_ns = -1,
		.held_ns = -1,
		.comm = "",
		.job = "",
		.host = "",
	};
}

/* Reads the value of a field that may be any bytes. Returns whether it could. */
static bool read_value(FILE *in, char **value)
{
	uint64_t size;

	if (fread(&size, sizeof(size), 1, in) != 1)
		return false;
	size = le64toh(size);
	/* As large as the journal allows */
	if (size > 768 << 20)
		return false;
	*value = checked(malloc(size + 1));
	(*value)[size] = '\0';
	if (fread(*value, 1, size, in) == size && getc(in) == '\n')
		return true;
	free(*value);
	return false;
}

/* Prints what journalctl exports. Returns how many events there were. */
static size_t show(FILE *in)
{
	struct entry entry = { 0 };
	struct lines lines = { 0 };
	char *line = NULL, *value;
	size_t size = 0, num = 0;
	ssize_t length;
	int i;

	begin_lines(&lines, true);
	begin_entry(&entry);
	for (;;) {
		length = getline(&line, &size, in);
		if (length > 0 && line[length - 1] == '\n')
			line[--length] = '\0';
		if (length <= 0) {
			/* The end of an entry, or of all */
			if (entry.h.lock && entry.h.kind) {
				print_line(&lines, &entry.h, entry.wall_ns);
				num++;
				if (fflush(stdout))
					err(EX_IOERR, "write error");
			}
			begin_entry(&entry);
			if (length < 0)
				break;
			continue;
		}
		/* Such as "-- No entries --", or "-- Boot ... --" */
		if (*line == '-')
			continue;
		value = strchr(line, '=');
		if (value) {
			*value++ = '\0';
			set_field(&entry, line, value);
		} else if (read_value(in, &value)) {
			set_field(&entry, line, value);
			free(value);
		} else {
			break;
		}
	}
	free(line);
	for (i = 0; i < 5; i++)
		free(entry.texts[i]);
	return num;
}

static void __attribute__((__noreturn__)) execute(char **words)
{
	execvp(*words, words);
	err(EX_UNAVAILABLE, "failed to execute %s", *words);
}

/* Runs journalctl, and shows what it exports. Returns its exit status. */
static int run(char **words)
{
	int pipe_fds[2], status;
	size_t num;
	pid_t pid;
	FILE *in;

	if (pipe2(pipe_fds, O_CLOEXEC))
		err(EX_OSERR, "cannot create a pipe");
	pid = fork();
	if (pid < 0)
		err(EX_OSERR, "cannot fork");
	if (!pid) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		execute(words);
	}
	close(pipe_fds[1]);
	in = checked(fdopen(pipe_fds[0], "r"));
	num = show(in);
	fclose(in);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			err(EX_OSERR, "cannot wait for %s", *words);
	if (WIFSIGNALED(status))
		return 128 + WTERMSIG(status);
	if (!WEXITSTATUS(status) && !num)
		warnx("no events in the journal: see 'systemctl status tlock-monitor'");
	return WEXITSTATUS(status);
}

/* The name of the lock's device, for matching */
static const char *device_name(const char *lock)
{
	static char path[TLOCK_PATH_SIZE];
	const char *found = tlock_path(lock, path);

	if (!found)
		err(EX_USAGE, "%s", lock);
	return basename(found);
}

/* Appends a word of two parts to a command line. */
static void add(char **words, size_t *num, const char *begin, const char *end)
{
	if (asprintf(&words[(*num)++], "%s%s", begin, end) < 0)
		checked(NULL);
}

int log_main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'J' },
		{ "since", required_argument, NULL, 'S' },
		{ "until", required_argument, NULL, 'U' },
		{ "lines", required_argument, NULL, 'n' },
		{ "follow", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	/* Each option with a value and each operand becomes one word */
	char **words = checked(calloc(argc + 8, sizeof(*words)));
	size_t num = 0, i;
	bool json = false, follow = false;
	int c, status;

	add(words, &num, "journalctl", "");
	add(words, &num, "--no-pager", "");
	while ((c = getopt_long(argc, argv, "JS:U:n:fhV", options, NULL)) != -1) {
		switch (c) {
		case 'J':
			json = true;
			break;
		case 'S':
			add(words, &num, "--since=", optarg);
			break;
		case 'U':
			add(words, &num, "--until=", optarg);
			break;
		case 'n':
			add(words, &num, "--lines=", optarg);
			break;
		case 'f':
			follow = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return EX_OK;
		case 'V':
			print_version();
			return EX_OK;
		default:
			try_help("log");
		}
	}
	if (follow)
		add(words, &num, "--follow", "");
	add(words, &num, "--output=", json ? "json" : "export");
	add(words, &num, "SYSLOG_IDENTIFIER=", IDENTIFIER);
	/* Any of these */
	for (; optind < argc; optind++)
		add(words, &num, "TLOCK_LOCK=", device_name(argv[optind]));
	if (json)
		execute(words);
	status = run(words);
	for (i = 0; i < num; i++)
		free(words[i]);
	free(words);
	return status;
}
