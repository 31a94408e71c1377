// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock run: run a command while holding a lock, with the options and exit
 * codes of flock(1).
 *
 * The lock is released when the command has ended by itself. If the command or
 * this process is killed, the instrument may be in the middle of something:
 * then the lock is not released here. The kernel passes it on, and the next
 * holder learns that it was abandoned.
 *
 * With a lease, this process renews it as long as the command can run. If the
 * lock is revoked all the same, the command must not go on.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <paths.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "command.h"

static const char usage[] =
"Usage:\n"
" tlock run [options] [--] COMMAND [ARGUMENT...]\n"
" tlock run [options] -c STRING\n"
" tlock run [options] /dev/tlock[-NAME] COMMAND...|-c STRING\n"
"\n"
"Run COMMAND while holding a lock.\n"
"\n"
"Options:\n"
" -d, --device LOCK        the lock: a name or a path (default: $TLOCK or\n"
"                          /dev/tlock)\n"
" -w, --timeout SECONDS    wait for the lock no longer than this\n"
" -n, --nonblock           fail rather than wait\n"
"     --lease SECONDS      pass the lock on if COMMAND is stopped for this long\n"
" -q, --quiet              say nothing if the lock could not be acquired\n"
" -j, --job JOB            what the lock is held for (default: COMMAND's name);\n"
"                          cut off if longer than 63 bytes\n"
" -E, --conflict-exit-code CODE\n"
"                          exit status if the lock could not be acquired\n"
"                          (default: 1)\n"
" -o, --close              do not pass the lock's descriptor to COMMAND\n"
" -F, --no-fork            execute COMMAND without forking\n"
" -c, --command STRING     run STRING through the shell\n"
" -x, --exclusive          ignored, for flock compatibility\n"
"     --verbose            say how long it took to get the lock\n"
" -h, --help               display this help\n"
" -V, --version            display version\n"
"\n"
"For more details see tlock(1).\n";

/**
 * struct run - the command line
 * @lock: the lock, as tlock_open() takes it
 * @path: path of the lock once it is open, for messages
 * @path_buf: room for @path
 * @job: what to hold the lock for
 * @timeout_ns: how long to wait
 * @lease_ns: how long to hold the lock without a renewal; 0: as long as need be
 * @conflict: exit status if the lock could not be acquired
 * @close: whether to keep the lock's descriptor from the command
 * @no_fork: whether to execute the command without forking
 * @quiet: whether to say nothing if the lock could not be acquired
 * @verbose: whether to report how long it took, and the command
 * @command: what to run
 * @shell: room for @command if it is the shell's
 */
struct run {
	const char *lock;
	const char *path;
	char path_buf[TLOCK_PATH_SIZE];
	char job[TLOCK_JOB_SIZE];
	int64_t timeout_ns;
	int64_t lease_ns;
	int conflict;
	bool close;
	bool no_fork;
	bool quiet;
	bool verbose;
	char **command;
	char *shell[4];
};

static int parse_status(const char *text)
{
	unsigned long status;
	char *end;

	status = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || status > 255) {
		warnx("invalid exit code: '%s' (expected 0 to 255)", text);
		try_help("run");
	}
	return (int)status;
}

static void run_string(struct run *run, char *string)
{
	char *shell = getenv("SHELL");

	run->shell[0] = shell && *shell ? shell : _PATH_BSHELL;
	run->shell[1] = "-c";
	run->shell[2] = string;
	run->command = run->shell;
}

/*
 * Says that the command cannot be executed, for the reason in errno. If the
 * word in its place may name a lock, says how to give the lock. Returns the
 * exit status.
 */
static int not_executed(const struct run *run)
{
	int status = errno == ENOMEM ? EX_OSERR : EX_UNAVAILABLE;
	bool maybe_lock = !run->lock && run->command != run->shell &&
			  (run->command[1] || errno == EACCES);

	warn("failed to execute %s", run->command[0]);
	if (maybe_lock)
		warnx("if %s is a lock file for flock, leave it out; if it is a lock, name it with -d",
		      run->command[0]);
	return status;
}

/*
 * In a script that used flock(1), the first word may still be its lock file,
 * and the command the second. Exits with a message if this is recognizable: the
 * words after it must not become the arguments of another command, and nobody
 * should have to wait for the lock to learn of the mistake.
 */
static void refuse_lock_file(const struct run *run)
{
	const char *word = run->command[0];
	struct stat st;

	if (run->lock || !run->command[1] || !strchr(word, '/'))
		return;
	if (!strcmp(word, run->command[1]))
		errx(EX_USAGE,
		     "%s is given twice: there is no lock file as for flock, so leave out the first one: 'tlock run -n -- \"$0\" \"$@\"' (if both are meant, name the lock with -d)",
		     word);
	if (!faccessat(AT_FDCWD, word, X_OK, AT_EACCESS) && !stat(word, &st)) {
		if (S_ISDIR(st.st_mode))
			errno = EISDIR;
		/* execvp() would have the shell run it, and do nothing */
		else if (S_ISREG(st.st_mode) && !st.st_size)
			errno = ENOEXEC;
		else
			return;
	}
	exit(not_executed(run));
}

/* The words after the options: the command, in flock's order after the lock */
static void parse_command(struct run *run, char **words, char *string)
{
	/* No command has such a path */
	if (!run->lock && *words && !strncmp(*words, "/dev/tlock", 10)) {
		run->lock = *words++;
		if (!string && *words && (!strcmp(*words, "-c") ||
					  !strcmp(*words, "--command"))) {
			string = *++words;
			if (!string)
				errx(EX_USAGE, "-c requires a STRING");
			words++;
		}
	}

	if (string) {
		if (*words)
			errx(EX_USAGE,
			     "-c requires exactly one STRING: quote it, or leave out -c");
		run_string(run, string);
		return;
	}
	if (!*words) {
		warnx("no COMMAND given");
		try_help("run");
	}
	if (!words[1] && **words &&
	    strspn(*words, "0123456789") == strlen(*words))
		errx(EX_USAGE,
		     "'%s' is not a command: use 'exec %s<>/dev/tlock; flock %s' for a shell's descriptor, or put the commands that need the lock into -c STRING or a script",
		     *words, *words, *words);
	run->command = words;
	refuse_lock_file(run);
}

static void parse(struct run *run, int argc, char **argv)
{
	enum { OPT_VERBOSE = 256, OPT_LEASE, OPT_FD, OPT_FCNTL };
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "timeout", required_argument, NULL, 'w' },
		{ "wait", required_argument, NULL, 'w' },
		{ "nonblock", no_argument, NULL, 'n' },
		{ "nonblocking", no_argument, NULL, 'n' },
		{ "nb", no_argument, NULL, 'n' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "lease", required_argument, NULL, OPT_LEASE },
		{ "job", required_argument, NULL, 'j' },
		{ "conflict-exit-code", required_argument, NULL, 'E' },
		{ "close", no_argument, NULL, 'o' },
		{ "no-fork", no_argument, NULL, 'F' },
		{ "command", required_argument, NULL, 'c' },
		{ "exclusive", no_argument, NULL, 'x' },
		{ "shared", no_argument, NULL, 's' },
		{ "unlock", no_argument, NULL, 'u' },
		{ "fd", optional_argument, NULL, OPT_FD },
		{ "fcntl", no_argument, NULL, OPT_FCNTL },
		{ "start", optional_argument, NULL, OPT_FCNTL },
		{ "length", optional_argument, NULL, OPT_FCNTL },
		{ "verbose", no_argument, NULL, OPT_VERBOSE },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 }
	};
	const char *job = NULL;
	char *string = NULL;
	bool nonblock = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "+d:w:nqj:E:oFc:xesuhV", options,
				  NULL)) != -1) {
		switch (opt) {
		case 'd':
			run->lock = optarg;
			break;
		case 'w':
			run->timeout_ns = parse_seconds(optarg, "timeout", "run");
			break;
		case OPT_LEASE:
			run->lease_ns = parse_seconds(optarg, "lease", "run");
			if (!run->lease_ns)
				errx(EX_USAGE,
				     "a lease must be longer than 0 seconds");
			break;
		case 'n':
			nonblock = true;
			break;
		case 'q':
			run->quiet = true;
			break;
		case 'j':
			job = optarg;
			break;
		case 'E':
			run->conflict = parse_status(optarg);
			break;
		case 'o':
			run->close = true;
			break;
		case 'F':
			run->no_fork = true;
			break;
		case 'c':
			string = optarg;
			break;
		case 'x':
		case 'e':
			break;
		case 's':
			errx(EX_USAGE,
			     "a lock cannot be shared: leave out -s to take it exclusively");
		case 'u':
			errx(EX_USAGE,
			     "a lock cannot be released for its holder: leave out -u, the lock is released when COMMAND ends; 'tlock status' shows who holds it");
		case OPT_FD:
			errx(EX_USAGE,
			     "a shell's descriptor cannot be locked: use 'exec 9<>/dev/tlock; flock 9', or put the commands that need the lock into -c STRING or a script");
		case OPT_FCNTL:
			errx(EX_USAGE,
			     "a lock has no byte ranges, and is not taken by fcntl(2): leave out --fcntl, --start and --length");
		case OPT_VERBOSE:
			run->verbose = true;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(EX_OK);
		case 'V':
			print_version();
			exit(EX_OK);
		default:
			try_help("run");
		}
	}
	/* As in flock, -n overrides -w in either order */
	if (nonblock)
		run->timeout_ns = TLOCK_TRY;
	if (run->no_fork && run->close)
		errx(EX_USAGE,
		     "mutually exclusive: -F -o (nobody would hold the lock)");
	if (run->no_fork && run->lease_ns)
		errx(EX_USAGE,
		     "mutually exclusive: -F --lease (nobody would renew it)");

	parse_command(run, argv + optind, string);
	if (!job)
		job = run->command == run->shell ? run->shell[2] :
						   basename(run->command[0]);
	tlock_make_job(run->job, job);
}

/* Says who holds the lock, for what, and for how long */
static void tell_conflict(const struct tlock *t, const struct run *run)
{
	char *waited = human_time(run->timeout_ns);

	fprintf(stderr, "%s: %s: ", program_invocation_short_name, run->path);
	if (run->timeout_ns)
		fprintf(stderr, "timed out after %s: ", waited);
	print_holder(t, tlock_blocker(t), stderr);
	putc('\n', stderr);
	free(waited);
}

/* Returns whether the lock is held; if not, says why and sets the status. */
static bool acquire(struct tlock *t, const struct run *run, int *status)
{
	int64_t start = now_ns(CLOCK_MONOTONIC);
	uint64_t took;

	tlock_set_lease(t, run->lease_ns);
	if (tlock_acquire(t, run->job, run->timeout_ns)) {
		if (errno == ETIMEDOUT) {
			if (!run->quiet)
				tell_conflict(t, run);
			*status = run->conflict;
		} else if (errno == ESTALE) {
			warnx("%s was revoked before %s began", run->path,
			      run->command[0]);
			*status = EX_TEMPFAIL;
		} else if (errno == EINVAL && run->lease_ns) {
			/* The job is valid: an older module knows no leases */
			cannot_open(run->lock, ENOTTY);
			*status = EX_OSERR;
		} else {
			warn("%s", run->path);
			*status = EX_OSERR;
		}
		return false;
	}
	took = ns_since(start);

	if (run->verbose) {
		warnx("getting lock took %" PRIu64 ".%06" PRIu64 " seconds",
		      took / 1000000000, took / 1000 % 1000000);
		warnx("executing %s", run->command[0]);
	}
	if (tlock_abandoned(t))
		warnx("%s was abandoned: its holder ended without releasing it; the instrument may be in the middle of a command",
		      run->path);
	if (tlock_revoked(t))
		warnx("%s was revoked from an earlier holder, which may still be talking to the instrument",
		      run->path);
	return true;
}

/* Describes the grant to the command */
static void set_environment(const struct tlock *t)
{
	char token[24];

	snprintf(token, sizeof(token), "%" PRIu64, tlock_token(t));
	if (setenv("TLOCK_TOKEN", token, 1) ||
	    setenv("TLOCK_ABANDONED", tlock_abandoned(t) ? "1" : "0", 1) ||
	    setenv("TLOCK_REVOKED", tlock_revoked(t) ? "1" : "0", 1))
		checked(NULL);
}

/* Returns only if it fails, with the exit status. */
static int execute(const struct tlock *t, const struct run *run)
{
	if (!run->close)
		fcntl(tlock_fd(t), F_SETFD, 0);
	execvp(run->command[0], run->command);
	return not_executed(run);
}

/* What goes on while the command runs */
struct running {
	const struct run *run;
	struct tlock *t;
	pid_t pid;
	int signals;		/* descriptor */
	int64_t renew_ns;	/* when to renew the lease */
	bool lost;		/* the lock was revoked */
};

/* Passes a signal on. Returns whether the command has ended, and its status. */
static bool handle_signal(struct running *r, int *status)
{
	struct signalfd_siginfo info;
	int signo;

	if (read(r->signals, &info, sizeof(info)) != sizeof(info))
		return false;
	signo = (int)info.ssi_signo;
	if (signo == SIGCHLD) {
		/* Or it was continued, and needs its lease at once */
		r->renew_ns = 0;
		return waitpid(r->pid, status, WNOHANG) == r->pid;
	}
	/* Ctrl-C and Ctrl-\ have reached the command already */
	if (info.ssi_code != SI_KERNEL || (signo != SIGINT && signo != SIGQUIT))
		kill(r->pid, signo);
	return false;
}

static void renew(struct running *r)
{
	/*
	 * If the command was frozen with its control group, so was this process,
	 * unless it is in another group
	 */
	if (can_go_on(r->pid))
		tlock_renew(r->t, NULL);
	r->renew_ns = now_ns(CLOCK_MONOTONIC) + r->run->lease_ns / 3;
}

/* Waits until the command ends. Returns its status. */
static int wait_for(struct running *r)
{
	struct pollfd pollers[] = {
		{ .fd = r->signals, .events = POLLIN },
		/* Reports the revocation, unasked */
		{ .fd = tlock_fd(r->t) },
	};
	bool leased = r->run->lease_ns;
	int status;

	for (;;) {
		int64_t left = r->renew_ns - now_ns(CLOCK_MONOTONIC);
		struct timespec timeout = { 0 };

		if (left > 0) {
			timeout.tv_sec = left / NS_PER_S;
			timeout.tv_nsec = left % NS_PER_S;
		}
		if (!ppoll(pollers, 2, leased ? &timeout : NULL, NULL))
			renew(r);
		if (pollers[0].revents && handle_signal(r, &status))
			return status;
		if (r->lost || (!tlock_lost(r->t) &&
				!(pollers[1].revents & POLLERR)))
			continue;
		warnx("%s was revoked: ending %s", r->run->path,
		      r->run->command[0]);
		kill(r->pid, SIGTERM);
		kill(r->pid, SIGCONT);
		r->lost = true;
		pollers[1].fd = -1;
		leased = false;
	}
}

/* Ends the grant once the command has ended. Returns the exit status. */
static int finish(struct running *r, int status)
{
	const char *path = r->run->path, *command = r->run->command[0];
	struct pollfd poller = { .fd = tlock_fd(r->t) };

	if (r->lost)
		return EX_TEMPFAIL;
	if (WIFSIGNALED(status) && !(poll(&poller, 1, 0) > 0 &&
				     poller.revents & POLLERR)) {
		warnx("%s was killed by signal %d (%s): %s passes on as abandoned",
		      command, WTERMSIG(status), strsignal(WTERMSIG(status)),
		      path);
		return 128 + WTERMSIG(status);
	}
	if (!tlock_release(r->t))
		return WEXITSTATUS(status);
	if (tlock_lost(r->t)) {
		warnx("%s was revoked before %s ended", path, command);
		return EX_TEMPFAIL;
	}
	warn("%s was released before %s ended", path, command);
	return WEXITSTATUS(status);
}

/* Runs the command and releases the lock. Returns the exit status. */
static int fork_and_wait(struct tlock *t, const struct run *run)
{
	static const int passed_on[] = {
		SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCONT
	};
	struct running running = { .run = run, .t = t };
	sigset_t signals, old;
	size_t i;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	for (i = 0; i < sizeof(passed_on) / sizeof(*passed_on); i++)
		sigaddset(&signals, passed_on[i]);
	sigprocmask(SIG_BLOCK, &signals, &old);
	/* If it is ignored, as a parent may have set it, there is no status */
	signal(SIGCHLD, SIG_DFL);
	running.signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);

	running.pid = running.signals < 0 ? -1 : fork();
	if (running.pid < 0) {
		warn("fork failed");
		tlock_release(t);
		return EX_OSERR;
	}
	if (!running.pid) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		_exit(execute(t, run));
	}
	return finish(&running, wait_for(&running));
}

int run_main(int argc, char **argv)
{
	struct run run = { .timeout_ns = TLOCK_FOREVER, .conflict = 1 };
	char comm[TLOCK_COMM_SIZE];
	struct tlock *t;
	int status;

	parse(&run, argc, argv);
	t = tlock_open(run.lock, O_RDWR);
	if (!t)
		return cannot_open(run.lock, errno);
	run.path = tlock_path(run.lock, run.path_buf);
	/* So that others who look at the lock see the command's name */
	clean(comm, sizeof(comm), basename(run.command[0]));
	prctl(PR_SET_NAME, comm);
	if (acquire(t, &run, &status)) {
		set_environment(t);
		if (run.no_fork) {
			status = execute(t, &run);
			tlock_release(t);
		} else {
			status = fork_and_wait(t, &run);
		}
	}
	tlock_close(t);
	return status;
}
