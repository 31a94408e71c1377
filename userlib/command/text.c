// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The tlock command: text for people. Jobs and command names may contain any
 * bytes.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "command.h"

#define NOT_UTF8	UINT32_MAX

/*
 * Decodes the first character of @text into @code. Returns its length; or 1,
 * with NOT_UTF8, for a byte that does not begin a character. This does not
 * depend on the locale, as the functions of the C library would.
 */
static size_t next_character(const char *text, uint32_t *code)
{
	/* The smallest character of each length; smaller ones are overlong */
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *c = (const unsigned char *)text;
	uint32_t value = c[0];
	size_t length = 1;
	size_t i;

	*code = NOT_UTF8;
	if (c[0] >= 0x80) {
		if (c[0] < 0xc0 || c[0] >= 0xf8)
			return 1;
		length = c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
		value &= 0x7f >> length;
	}
	for (i = 1; i < length; i++) {
		if ((c[i] & 0xc0) != 0x80)
			return 1;
		value = value << 6 | (c[i] & 0x3f);
	}
	if (value < smallest[length] || value > 0x10ffff ||
	    (value >= 0xd800 && value <= 0xdfff))
		return 1;
	*code = value;
	return length;
}

static bool is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code <= 0x9f);
}

void clean(char *buf, size_t size, const char *text)
{
	while (*text) {
		uint32_t code;
		size_t length = next_character(text, &code);
		size_t put = is_control(code) ? 1 : length;

		if (put >= size)
			break;
		memcpy(buf, is_control(code) ? " " : text, put);
		buf += put;
		size -= put;
		text += length;
	}
	*buf = '\0';
}

char *escaped(const char *text)
{
	/* At worst, each byte becomes four */
	char *buf = checked(malloc(4 * strlen(text) + 1));
	char *out = buf;

	while (*text) {
		uint32_t code;
		size_t length = next_character(text, &code);
		const char *end = text + length;

		if (code != NOT_UTF8 && !is_control(code) &&
		    strncmp(text, "\\x", 2))
			out = mempcpy(out, text, length);
		else
			for (; text < end; text++)
				out += sprintf(out, "\\x%02x",
					       (unsigned char)*text);
		text = end;
	}
	*out = '\0';
	return buf;
}

static char *format(const char *format, ...)
	__attribute__((__format__(__printf__, 1, 2)));

static char *format(const char *format, ...)
{
	char *text;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	return checked(text);
}

char *human_time(uint64_t ns)
{
	uint64_t s = ns / 1000000000;

	if (ns < 1000000)
		return format("%" PRIu64 "us", ns / 1000);
	if (s < 1)
		return format("%" PRIu64 "ms", ns / 1000000);
	if (s < 60)
		return format("%" PRIu64 ".%" PRIu64 "s", s,
			      ns / 100000000 % 10);
	if (s < 3600)
		return format("%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
	if (s < 86400)
		return format("%" PRIu64 "h %" PRIu64 "m", s / 3600,
			      s / 60 % 60);
	return format("%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
}

char *iso_time(time_t seconds, const char *fraction)
{
	char text[32], zone[8];
	struct tm tm;

	localtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	strftime(zone, sizeof(zone), "%z", &tm);
	return format("%s%s%.3s:%s", text, fraction, zone, zone + 3);
}

char *seconds_of(int64_t ns)
{
	return format("%s%" PRId64 ".%09" PRId64, ns < 0 ? "-" : "",
		      ns / NS_PER_S * (ns < 0 ? -1 : 1),
		      ns % NS_PER_S * (ns < 0 ? -1 : 1));
}

void print_seconds(int64_t ns, FILE *out)
{
	char *seconds = seconds_of(ns);

	fputs(seconds, out);
	free(seconds);
}

void print_json_text(const char *text, FILE *out)
{
	char *safe = escaped(text);
	const char *c;

	if (!*text)
		fputs("null", out);
	else
		putc('"', out);
	for (c = safe; *c; c++) {
		if (*c == '"' || *c == '\\')
			putc('\\', out);
		putc(*c, out);
	}
	if (*text)
		putc('"', out);
	free(safe);
}

void print_json_member(const char *name, const char *text, FILE *out)
{
	fprintf(out, ",\"%s\":", name);
	print_json_text(text, out);
}

/* Prints which process and user the holder is, or on which other host. */
static void print_place(const struct tlock *t,
			const struct tlock_holder *holder, FILE *out)
{
	char host[TLOCK_HOST_SIZE];
	char *name;

	if (is_remote(holder)) {
		read_host(t, holder, host);
		name = escaped(host);
		fprintf(out, "on %s%s", *name ? "host " : "another host", name);
		free(name);
		return;
	}
	/* pid 0: it ended, but its file is open; or it is in a container */
	if (holder->pid)
		fprintf(out, "pid %" PRId32, holder->pid);
	else
		fputs("ended or not visible from here", out);
	name = user_name(holder->uid);
	fprintf(out, ", user %s", name);
	free(name);
}

/* Prints that nobody is known to hold the lock, as its gate is shut. */
static void print_unknown(const struct tlock *t,
			  const struct tlock_holder *holder, FILE *out)
{
	struct tlock_status status = { 0 };
	char host[TLOCK_HOST_SIZE];

	read_host(t, holder, host);
	tlock_status(t, &status);
	print_shut(&status, host, out);
}

void print_holder(const struct tlock *t, const struct tlock_holder *holder,
		  FILE *out)
{
	char *held = human_time(ns_since(holder->since_ns));
	int64_t left = ns_left(holder);
	char *ends = human_time(left > 0 ? left : 0);
	char *comm = escaped(holder->comm);
	char *job = escaped(holder->job);

	if (holder->token) {
		fputs("held by ", out);
		if (*job)
			fprintf(out, "job '%s' (%s, ", job, comm);
		else
			fprintf(out, "%s (", comm);
		print_place(t, holder, out);
		fprintf(out, ") for %s", held);
		if (expires(holder))
			fprintf(out, left > 0 ? ", expires in %s" : ", expired",
				ends);
	} else {
		print_unknown(t, holder, out);
	}

	free(held);
	free(ends);
	free(comm);
	free(job);
}

char *user_name(uint32_t uid)
{
	/* Asking for a name may take long, and neighbors often have the same */
	static char name[256];
	static uint32_t whose;

	if (!*name || uid != whose) {
		struct passwd *user = getpwuid(uid);

		whose = uid;
		if (user)
			snprintf(name, sizeof(name), "%s", user->pw_name);
		else
			snprintf(name, sizeof(name), "%" PRIu32, uid);
	}
	return checked(strdup(name));
}

int64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* Takes the fastest of three tries, as any of them may be interrupted */
int64_t wall_clock_ns(void)
{
	int64_t best = INT64_MAX, ahead = 0;
	int i;

	for (i = 0; i < 3; i++) {
		int64_t before = now_ns(CLOCK_MONOTONIC);
		int64_t wall = now_ns(CLOCK_REALTIME);
		int64_t took = now_ns(CLOCK_MONOTONIC) - before;

		if (took < best) {
			best = took;
			ahead = wall - before - took / 2;
		}
	}
	return ahead;
}

bool expires(const struct tlock_holder *holder)
{
	return holder->flags & (TLOCK_LEASED | TLOCK_REVOKING) &&
		holder->expires_ns != INT64_MAX;
}

int64_t ns_left(const struct tlock_holder *holder)
{
	return holder->expires_ns - now_ns(CLOCK_MONOTONIC);
}

uint64_t ns_since(int64_t since_ns)
{
	int64_t now = now_ns(CLOCK_MONOTONIC);

	return now > since_ns ? now - since_ns : 0;
}
