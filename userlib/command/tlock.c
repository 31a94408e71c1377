// SPDX-License-Identifier: LGPL-2.1-or-later
/* The tlock command: take a tlock for a command, and look at tlocks */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "command.h"

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
} subcommands[] = {
	{ "run", run_main },
	{ "status", status_main },
	{ "list", list_main },
	{ "revoke", revoke_main },
	{ "monitor", monitor_main },
	{ "log", log_main },
	{ "create", create_main },
	{ "delete", delete_main },
};

static const char usage[] =
"Usage:\n"
" tlock run [options] [--] COMMAND [ARGUMENT...]\n"
" tlock status [options] [LOCK...]\n"
" tlock list [options]\n"
" tlock revoke [options] LOCK\n"
" tlock monitor [options] [LOCK...]\n"
" tlock log [options] [LOCK...]\n"
" tlock create [--gated] NAME...\n"
" tlock delete NAME...\n"
"\n"
"Locks for instruments: timed, fair, and named after the job that holds them.\n"
"\n"
"Commands:\n"
" run      run COMMAND while holding a lock\n"
" status   show who holds locks, for what job and since when, and who waits\n"
" list     list the locks of this host\n"
" revoke   take a lock from a holder that hangs\n"
" monitor  print what happens to locks, as it happens\n"
" log      show what has happened to locks, from the journal\n"
" create   create locks, until they are deleted or the module is unloaded\n"
" delete   delete locks that nobody uses\n"
"\n"
"Options:\n"
" -h, --help     display this help; after a command, that command's\n"
" -V, --version  display version\n"
"\n"
"For more details see tlock(1).\n";

void try_help(const char *subcommand)
{
	fprintf(stderr, "Try 'tlock%s%s --help' for more information.\n",
		*subcommand ? " " : "", subcommand);
	exit(EX_USAGE);
}

void print_version(void)
{
	puts("tlock " TLOCK_VERSION);
}

int64_t parse_seconds(const char *text, const char *what,
		      const char *subcommand)
{
	double seconds;
	char *end;

	/* strtod() knows signs, blanks, "nan", "inf" and hexadecimals, too */
	seconds = strtod(text, &end);
	if (!*text || *end || strspn(text, "0123456789.") != strlen(text)) {
		warnx("invalid %s value: '%s' (expected seconds, such as 180)",
		      what, text);
		try_help(subcommand);
	}
	return tlock_seconds(seconds);
}

void *checked(void *ptr)
{
	if (!ptr)
		err(EX_OSERR, "cannot allocate memory");
	return ptr;
}

int cannot_open(const char *lock, int error)
{
	char why[2 * TLOCK_EXPLAIN_SIZE];

	warnx("%s", tlock_explain(lock, error, why, sizeof(why)));
	return error == ENOMEM || error == EMFILE || error == ENFILE ?
		EX_OSERR : EX_NOINPUT;
}

bool is_lock_name(const char *name)
{
	return !strcmp(name, "tlock") || !strncmp(name, "tlock-", 6);
}

int is_lock(const struct dirent *entry)
{
	return is_lock_name(entry->d_name);
}

/* A full disk must not look like success */
static void close_stdout(void)
{
	if (fflush(stdout) || ferror(stdout)) {
		warn("write error");
		_exit(EX_IOERR);
	}
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	size_t i;

	/* Not LC_NUMERIC: seconds have a point everywhere */
	setlocale(LC_CTYPE, "");
	atexit(close_stdout);

	for (i = 0; i < sizeof(subcommands) / sizeof(*subcommands); i++) {
		if (strcmp(name, subcommands[i].name))
			continue;
		/* getopt() begins its messages with this */
		argv[1] = program_invocation_short_name;
		return subcommands[i].main(argc - 1, argv + 1);
	}

	if (!strcmp(name, "-h") || !strcmp(name, "--help")) {
		fputs(usage, stdout);
		return EX_OK;
	}
	if (!strcmp(name, "-V") || !strcmp(name, "--version")) {
		print_version();
		return EX_OK;
	}
	if (*name)
		warnx("unknown %s '%s'", *name == '-' ? "option" : "command", name);
	else
		warnx("no command given");
	try_help("");
}
