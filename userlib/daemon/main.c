// SPDX-License-Identifier: LGPL-2.1-or-later
/* tlockd: has the gated locks of this host shared with other hosts, by etcd. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "config.h"
#include "lock.h"
#include "log.h"
#include "report.h"
#include "session.h"

#define USEC_PER_SEC	1000000
/* How long to wait at the end for etcd */
#define DRAIN_USEC	(2 * USEC_PER_SEC)

static const char usage[] =
	"usage: tlockd [-c FILE]\n"
	"       tlockd --version\n"
	"\n"
	"Serves the gated locks of this host, which it shares with other hosts by etcd.\n"
	"\n"
	"  -c FILE  the configuration; by default /etc/tlockd.conf\n";

static void check(const char *what, int result)
{
	if (result < 0)
		die(what, -result);
}

static void exit_if_drained(sd_event *event)
{
	if (locks_drained())
		check("sd_event_exit", sd_event_exit(event, 0));
}

static int on_drain(sd_event_source *source, uint64_t usec, void *data)
{
	static int rounds;

	(void)data;
	exit_if_drained(sd_event_source_get_event(source));
	if (++rounds == 20)
		sd_event_exit(sd_event_source_get_event(source), 0);
	sd_event_source_set_time(source, usec + DRAIN_USEC / 20);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static int on_end(sd_event_source *source, const struct signalfd_siginfo *info,
		  void *data)
{
	sd_event *event = sd_event_source_get_event(source);

	(void)info;
	(void)data;
	sd_notify(0, "STOPPING=1");
	locks_drain();
	check("sd_event_add_time",
	      sd_event_add_time_relative(event, NULL, CLOCK_MONOTONIC, 0, 1,
					 on_drain, NULL));
	return 0;
}

static int on_second(sd_event_source *source, uint64_t usec, void *data)
{
	(void)data;
	locks_look();
	check("sd_event", sd_event_source_set_time(source, usec + USEC_PER_SEC));
	check("sd_event", sd_event_source_set_enabled(source, SD_EVENT_ONESHOT));
	return 0;
}

static const char *parse_arguments(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{}
	};
	const char *path = "/etc/tlockd.conf";
	int option;

	while ((option = getopt_long(argc, argv, "c:h", options, NULL)) >= 0) {
		switch (option) {
		case 'c':
			path = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(EXIT_SUCCESS);
		case 'V':
			puts("tlockd " TLOCK_VERSION);
			exit(EXIT_SUCCESS);
		default:
			fputs(usage, stderr);
			exit(EX_USAGE);
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		exit(EX_USAGE);
	}
	return path;
}

int main(int argc, char **argv)
{
	static struct session session;
	static struct config config;
	sd_event *event;
	sigset_t signals;

	if (config_read(parse_arguments(argc, argv), &config))
		return EX_CONFIG;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);

	check("sd_event_new", sd_event_new(&event));
	check("sd_event_add_signal",
	      sd_event_add_signal(event, NULL, SIGTERM, on_end, NULL));
	check("sd_event_add_signal",
	      sd_event_add_signal(event, NULL, SIGINT, on_end, NULL));
	check("sd_event_set_watchdog", sd_event_set_watchdog(event, true));
	session_open(&session, &config, event);
	locks_open(&session, event);
	locks_look();
	check("sd_event_add_time",
	      sd_event_add_time_relative(event, NULL, CLOCK_BOOTTIME,
					 USEC_PER_SEC, USEC_PER_SEC / 10,
					 on_second, NULL));
	report_open(&session, event);
	sd_notify(0, "READY=1");
	check("sd_event_loop", sd_event_loop(event));
	return EXIT_SUCCESS;
}
