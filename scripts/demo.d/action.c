// SPDX-License-Identifier: GPL-2.0-only
/*
 * scripts/demo's short action, in C: acquires the lock, within 3 s, and sends a
 * command to the instrument on the serial line argv[1].
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tlock.h>
#include <unistd.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void say(const char *text)
{
	char who[32];

	snprintf(who, sizeof(who), "action (%d)", getpid());
	printf("%6.2f s  %-14s  %s\n", now() - atof(getenv("DEMO_START")), who,
	       text);
	fflush(stdout);
}

static void ask(int serial, const char *command)
{
	char reply[100];
	char text[200];
	ssize_t length;

	dprintf(serial, "%s\n", command);
	length = read(serial, reply, sizeof(reply) - 1);
	if (length < 0)
		err(1, "reading from the instrument");
	reply[length] = '\0';
	reply[strcspn(reply, "\n")] = '\0';
	snprintf(text, sizeof(text), "%s -> %s", command, reply);
	say(text);
}

int main(int argc, char **argv)
{
	int serial = open(argv[argc - 1], O_RDWR | O_NOCTTY);
	struct tlock *lock = tlock_open(NULL, O_RDWR);
	char text[200];
	double asked;

	if (serial < 0 || !lock)
		err(1, "opening the serial line or the lock");
	say("asks for the lock, for 3 s at most");
	asked = now();
	tlock_scoped(lock, "set range", tlock_seconds(3)) {
		snprintf(text, sizeof(text),
			 "has the lock after %.3f s (token %llu)",
			 now() - asked, (unsigned long long)tlock_token(lock));
		say(text);
		if (tlock_abandoned(lock)) {
			say("finds it abandoned: resets the instrument");
			ask(serial, "RESET");
		}
		ask(serial, "RANGE 2");
		usleep(300000);
	} else {
		err(1, "set range");
	}
	say("released it");
	tlock_close(lock);
	return 0;
}
