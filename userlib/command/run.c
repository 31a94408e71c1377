// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock run: run a command while holding a lock, with the options and exit
 * codes of flock(1).
 *
 * The lock is released when the command has ended by itself. If the command or
 * this process is killed, the instrument may be in the middle of something:
 * then the lock is not released here. The kernel passes it on, and the next
 * holder learns that it was abandoned.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <paths.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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
	int conflict;
	bool close;
	bool no_fork;
	bool quiet;
	bool verbose;
	char **command;
	char *shell[4];
};

static int64_t parse_seconds(const char *text)
{
	double seconds;
	char *end;

	/* strtod() knows signs, blanks, "nan", "inf" and hexadecimals, too */
	seconds = strtod(text, &end);
	if (!*text || *end || strspn(text, "0123456789.") != strlen(text)) {
		warnx("invalid timeout value: '%s' (expected seconds, such as 180)",
		      text);
		try_help("run");
	}
	return tlock_seconds(seconds);
}

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
	enum { OPT_VERBOSE = 256, OPT_FD, OPT_FCNTL };
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "timeout", required_argument, NULL, 'w' },
		{ "wait", required_argument, NULL, 'w' },
		{ "nonblock", no_argument, NULL, 'n' },
		{ "nonblocking", no_argument, NULL, 'n' },
		{ "nb", no_argument, NULL, 'n' },
		{ "quiet", no_argument, NULL, 'q' },
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
			run->timeout_ns = parse_seconds(optarg);
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

	parse_command(run, argv + optind, string);
	if (!job)
		job = run->command == run->shell ? run->shell[2] :
						   basename(run->command[0]);
	tlock_make_job(run->job, job);
}

/* Says who holds the lock, for what, and for how long */
static void tell_conflict(const struct tlock_holder *holder,
			  const struct run *run)
{
	char *held = human_time(ns_since(holder->since_ns));
	char *waited = human_time(run->timeout_ns);
	char *comm = escaped(holder->comm);
	char *job = escaped(holder->job);
	char *user = user_name(holder->uid);
	/* pid 0: it ended, but its file is open; or it is in a container */
	char pid[40] = "ended or not visible from here";

	if (holder->pid)
		snprintf(pid, sizeof(pid), "pid %" PRId32, holder->pid);
	fprintf(stderr, "%s: %s: ", program_invocation_short_name, run->path);
	if (run->timeout_ns)
		fprintf(stderr, "timed out after %s: ", waited);
	fprintf(stderr, "held by ");
	if (*job)
		fprintf(stderr, "job '%s' (%s, ", job, comm);
	else
		fprintf(stderr, "%s (", comm);
	fprintf(stderr, "%s, user %s) for %s\n", pid, user, held);

	free(held);
	free(waited);
	free(comm);
	free(job);
	free(user);
}

/* Returns whether the lock is held; if not, says why and sets the status. */
static bool acquire(struct tlock *t, const struct run *run, int *status)
{
	int64_t start = now_ns(CLOCK_MONOTONIC);
	uint64_t took;

	if (tlock_acquire(t, run->job, run->timeout_ns)) {
		if (errno == ETIMEDOUT) {
			if (!run->quiet)
				tell_conflict(tlock_blocker(t), run);
			*status = run->conflict;
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
	return true;
}

/* Describes the grant to the command */
static void set_environment(const struct tlock *t)
{
	char token[24];

	snprintf(token, sizeof(token), "%" PRIu64, tlock_token(t));
	if (setenv("TLOCK_TOKEN", token, 1) ||
	    setenv("TLOCK_ABANDONED", tlock_abandoned(t) ? "1" : "0", 1))
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

/* Passes signals on to the command until it ends. Returns its wait status. */
static int wait_for(pid_t pid, const sigset_t *signals)
{
	siginfo_t info;
	int status;

	for (;;) {
		if (sigwaitinfo(signals, &info) < 0)
			continue;
		if (info.si_signo == SIGCHLD) {
			if (waitpid(pid, &status, WNOHANG) == pid)
				return status;
			continue;
		}
		/* Ctrl-C and Ctrl-\ have reached the command already */
		if (info.si_code == SI_KERNEL && (info.si_signo == SIGINT ||
						  info.si_signo == SIGQUIT))
			continue;
		kill(pid, info.si_signo);
	}
}

/* Runs the command and releases the lock. Returns the exit status. */
static int fork_and_wait(struct tlock *t, const struct run *run)
{
	static const int passed_on[] = {
		SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2
	};
	sigset_t signals, old;
	size_t i;
	pid_t pid;
	int status;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	for (i = 0; i < sizeof(passed_on) / sizeof(*passed_on); i++)
		sigaddset(&signals, passed_on[i]);
	sigprocmask(SIG_BLOCK, &signals, &old);
	/* If it is ignored, as a parent may have set it, there is no status */
	signal(SIGCHLD, SIG_DFL);

	pid = fork();
	if (pid < 0) {
		warn("fork failed");
		tlock_release(t);
		return EX_OSERR;
	}
	if (!pid) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		_exit(execute(t, run));
	}

	status = wait_for(pid, &signals);
	if (WIFSIGNALED(status)) {
		warnx("%s was killed by signal %d (%s): %s passes on as abandoned",
		      run->command[0], WTERMSIG(status),
		      strsignal(WTERMSIG(status)), run->path);
		return 128 + WTERMSIG(status);
	}
	if (tlock_release(t))
		warn("%s was released before %s ended", run->path,
		     run->command[0]);
	return WEXITSTATUS(status);
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
