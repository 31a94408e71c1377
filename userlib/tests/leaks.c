// SPDX-License-Identifier: GPL-2.0-only
/*
 * leaks: opens, uses and closes handles in every way, for valgrind.sh to watch.
 * Fails if a call does not do what this program expects.
 */
#include <stdio.h>
#include <string.h>

#include "tlock.h"

static int failed;

static void expect(int as_expected, const char *what)
{
	if (!as_expected) {
		fprintf(stderr, "leaks: %s: %s\n", what, strerror(errno));
		failed = 1;
	}
}

static void fail_to_open(const char *lock, int mode)
{
	char why[TLOCK_EXPLAIN_SIZE];
	struct tlock *t = tlock_open(lock, mode);

	expect(!t, "opened what is no lock");
	expect(strlen(tlock_explain(lock, errno, why, sizeof(why))) > 0,
	       "no explanation");
	tlock_close(t);
}

int main(void)
{
	char long_name[5000];
	struct tlock *holder = tlock_open(NULL, O_RDWR);
	struct tlock *other = tlock_open("tlock", O_RDWR);
	struct tlock *looker = tlock_open("/dev/tlock", O_RDONLY);
	struct tlock_waiter waiter = { 0 };
	struct tlock_status status;
	struct tlock_event event;
	int held = 0;

	expect(holder && other && looker, "tlock_open");
	if (failed)
		return 1;

	memset(long_name, 'x', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	fail_to_open("", O_RDWR);
	fail_to_open("missing", O_RDWR);
	fail_to_open(long_name, O_RDWR);
	fail_to_open("/", O_RDONLY);
	fail_to_open("/dev/null", O_RDWR);
	fail_to_open("/etc/passwd", O_RDONLY);
	fail_to_open(NULL, O_WRONLY);

	expect(!tlock_acquire(holder, "leaks", TLOCK_FOREVER), "acquire");
	expect(tlock_acquire(other, "other", tlock_milliseconds(10)) &&
	       errno == ETIMEDOUT, "acquire of what is held");
	expect(!tlock_status(looker, &status), "status");
	expect(tlock_waiter(looker, &waiter) && errno == ENOENT, "waiter");
	expect(!tlock_monitor(looker), "monitor");
	expect(!tlock_reacquire(holder, NULL, TLOCK_TRY), "reacquire");
	tlock_set_lease(holder, tlock_seconds(30));
	expect(!tlock_renew(holder, NULL), "renew");
	expect(!tlock_revoke(other, tlock_token(holder), TLOCK_TRY), "revoke");
	expect(tlock_renew(holder, NULL) && errno == ESTALE, "renew too late");
	expect(!tlock_acquire(holder, "leaks", TLOCK_TRY), "acquire again");
	expect(tlock_resume(other) && errno == EPERM, "resume of nothing");
	expect(tlock_cancel(other) && errno == EPERM, "cancel of nothing");
	expect(tlock_start_acquire(other, "other", TLOCK_FOREVER) &&
	       errno == EINPROGRESS, "start");
	expect(tlock_finish(other) && errno == EINPROGRESS, "finish early");
	expect(tlock_start_reacquire(holder, NULL, TLOCK_FOREVER) &&
	       errno == EINPROGRESS, "start of a reacquire");
	expect(!tlock_finish(other), "finish");
	expect(!tlock_cancel(holder), "cancel");
	expect(tlock_finish(holder) && errno == ECANCELED, "finish a cancel");
	expect(!tlock_release(other), "release");
	expect(!tlock_acquire(holder, "leaks", TLOCK_TRY), "acquire");
	/* Closed while its request waits */
	expect(tlock_start_acquire(other, "other", TLOCK_FOREVER) &&
	       errno == EINPROGRESS, "start");
	tlock_close(other);
	other = tlock_open(NULL, O_RDWR);
	expect(!tlock_release(holder), "release");
	tlock_scoped(holder, "scoped", TLOCK_TRY)
		held = 1;
	expect(held, "scoped");
	/* Closed while it holds: abandoned, as the next holder sees */
	expect(!tlock_acquire(holder, "leaks", TLOCK_TRY), "acquire");
	tlock_close(holder);
	expect(!tlock_acquire(other, "other", TLOCK_TRY) &&
	       tlock_abandoned(other) && !tlock_release(other), "abandoned");
	tlock_close(other);
	expect(!tlock_next_event(looker, &event), "next event");
	tlock_close(looker);
	tlock_close(NULL);
	return failed;
}
