// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock revoke: take a lock from a holder that hangs. It revokes the grant that
 * it has shown, and never a newer one.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sysexits.h>

#include "command.h"

static const char usage[] =
"Usage:\n"
" tlock revoke [options] LOCK\n"
"\n"
"Take a lock from a holder that hangs. The next holder learns of that; so does\n"
"the old one, if it goes on. Only root and the holder's user may do this.\n"
"\n"
"Options:\n"
"     --grace SECONDS  give the holder this long to finish; after that, take the\n"
"                      lock as soon as somebody wants it\n"
"     --token N        only if the holder's grant has this token\n"
" -h, --help           display this help\n"
" -V, --version        display version\n"
"\n"
"For more details see tlock(1).\n";

/* The command line */
struct request {
	const char *lock;
	uint64_t token;		/* 0: any */
	int64_t grace_ns;
};

static uint64_t parse_token(const char *text)
{
	uint64_t token;
	char *end;

	errno = 0;
	token = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || !token) {
		warnx("invalid token: '%s' (expected a number, as in 'tlock status -o +TOKEN')",
		      text);
		try_help("revoke");
	}
	return token;
}

static void parse(struct request *request, int argc, char **argv)
{
	enum { OPT_GRACE = 256, OPT_TOKEN };
	static const struct option options[] = {
		{ "grace", required_argument, NULL, OPT_GRACE },
		{ "token", required_argument, NULL, OPT_TOKEN },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 }
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
		switch (opt) {
		case OPT_GRACE:
			request->grace_ns = parse_seconds(optarg, "grace",
							  "revoke");
			break;
		case OPT_TOKEN:
			request->token = parse_token(optarg);
			break;
		case 'h':
			fputs(usage, stdout);
			exit(EX_OK);
		case 'V':
			print_version();
			exit(EX_OK);
		default:
			try_help("revoke");
		}
	}
	/* Never the default lock: this must not hit another one by mistake */
	if (argc - optind != 1) {
		warnx("revoke takes one LOCK");
		try_help("revoke");
	}
	request->lock = argv[optind];
}

/* Says that another host has the lock. Returns the exit status. */
static int refused_remote(const struct tlock *t, const char *path,
			  const struct tlock_holder *holder)
{
	char host[TLOCK_HOST_SIZE];
	char *name;

	read_host(t, holder, host);
	name = escaped(host);
	if (!holder->token)
		warnx("%s: nobody on this host holds it: nothing was revoked",
		      path);
	else if (*name)
		warnx("%s: only host %s can revoke it: run 'tlock revoke' there",
		      path, name);
	else
		warnx("%s: only the holder's host can revoke it", path);
	free(name);
	return EX_UNAVAILABLE;
}

/* Says why the grant was not revoked. Returns the exit status. */
static int refused(const struct tlock *t, const char *path,
		   const struct tlock_holder *holder)
{
	char *user;

	switch (errno) {
	case EREMOTE:
		return refused_remote(t, path, holder);
	case ESTALE:
		warnx("%s: this grant has just ended: nothing was revoked",
		      path);
		return 1;
	case EPERM:
		user = user_name(holder->uid);
		warnx("%s: permission denied: only root%s%s may revoke it",
		      path, holder->uid ? " and user " : "",
		      holder->uid ? user : "");
		free(user);
		return EX_NOPERM;
	case ENOTTY:
		/* The lock was opened: its module is older than this program */
		cannot_open(path, ENOTTY);
		return EX_OSERR;
	default:
		warn("%s", path);
		return EX_OSERR;
	}
}

/* Says what has become of the lock. */
static void print_outcome(const struct tlock *t, const char *path,
			  uint64_t token)
{
	struct tlock_status status;
	int64_t left_ns;
	char *left;

	if (tlock_status(t, &status))
		return;
	/* An earlier revocation or its lease may leave it less than the grace */
	left_ns = ns_left(&status.holder);
	if (status.holder.token == token && left_ns <= 0) {
		printf("%s: will be revoked as soon as somebody wants it\n",
		       path);
	} else if (status.holder.token == token) {
		left = human_time(left_ns);
		printf("%s: will be revoked in %s%s\n", path, left,
		       status.waiters ? "" :
		       ", or as soon as somebody wants it after that");
		free(left);
	} else if (status.holder.token || is_remote(&status.holder)) {
		printf("%s: revoked, and now ", path);
		print_holder(t, &status.holder, stdout);
		putchar('\n');
	} else {
		printf("%s: revoked, and now free\n", path);
	}
}

static int revoke(struct tlock *t, const struct request *request,
		  const char *path)
{
	struct tlock_status status;
	const struct tlock_holder *holder = &status.holder;

	if (tlock_status(t, &status)) {
		warn("%s", path);
		return EX_OSERR;
	}
	if (!holder->token && !is_remote(holder)) {
		warnx("%s is free: nothing was revoked", path);
		return 1;
	}
	printf("%s: ", path);
	print_holder(t, holder, stdout);
	if (holder->token)
		printf(", token %" PRIu64, (uint64_t)holder->token);
	putchar('\n');
	/* The end of the program says why */
	if (fflush(stdout))
		return EX_IOERR;
	if (is_remote(holder))
		return refused_remote(t, path, holder);
	if (request->token && holder->token != request->token) {
		warnx("%s: this grant has another token: nothing was revoked",
		      path);
		return 1;
	}
	if (tlock_revoke(t, holder->token, request->grace_ns))
		return refused(t, path, holder);
	print_outcome(t, path, holder->token);
	return EX_OK;
}

int revoke_main(int argc, char **argv)
{
	struct request request = { 0 };
	char path[TLOCK_PATH_SIZE];
	struct tlock *t;
	int status;

	parse(&request, argc, argv);
	t = tlock_open(request.lock, O_RDWR);
	if (!t)
		return cannot_open(request.lock, errno);
	status = revoke(t, &request, tlock_path(request.lock, path));
	tlock_close(t);
	return status;
}
