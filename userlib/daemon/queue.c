// SPDX-License-Identifier: LGPL-2.1-or-later
/* What the keys of a lock say. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "queue.h"

const char *queue_place(const struct key *key, const char *lock)
{
	static const char queue[] = "/queue/";
	size_t length = strlen(lock);

	if (strncmp(key->name, lock, length) ||
	    strncmp(key->name + length, queue, sizeof(queue) - 1))
		return NULL;
	return key->name + length + sizeof(queue) - 1;
}

const struct key *queue_next(const struct mirror *mirror,
			     const struct key *after, const char *lock)
{
	const struct key *key;

	for (key = after ? after->next : mirror->first; key; key = key->next)
		if (queue_place(key, lock))
			return key;
	return NULL;
}

/* Copies text for people, without control characters; cuts it off to fit */
static void copy(char *to, size_t size, const char *from)
{
	size_t i;

	memset(to, 0, size);
	for (i = 0; from[i] && i < size - 1; i++) {
		unsigned char c = from[i];

		to[i] = from[i];
		if (c < ' ' || c == 0x7f)
			to[i] = '?';
		/* U+0080 to U+009F */
		if (c >= 0x80 && c < 0xa0 && i && from[i - 1] == '\xc2')
			to[i - 1] = to[i] = '?';
	}
}

/* Makes a string of text that may be anything */
static json_t *text(const char *from)
{
	char clean[TLOCK_JOB_SIZE];
	json_t *string;
	size_t i;

	copy(clean, sizeof(clean), from);
	string = json_string(clean);
	if (string)
		return string;
	/* It is not UTF-8 */
	for (i = 0; clean[i]; i++)
		if (clean[i] & 0x80)
			clean[i] = '?';
	return json_string(clean);
}

void queue_read(const struct key *key, const char *lock, struct place *place)
{
	const char *host = queue_place(key, lock) ?: "", *comm = "", *job = "";
	char name[TLOCK_HOST_SIZE];
	json_int_t since = 0, waiters = 0, token = 0, held = 0;
	json_t *holder = NULL;

	memset(place, 0, sizeof(*place));
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(host, "/"), host);
	copy(place->host, sizeof(place->host), name);
	/* Whatever is malformed keeps its initial value */
	json_unpack(key->value, "{s:I, s:I, s?o}", "since", &since, "waiters",
		    &waiters, "holder", &holder);
	json_unpack(holder, "{s:I, s:I, s:s, s:s}", "token", &token, "since",
		    &held, "comm", &comm, "job", &job);
	/* No host writes a negative number */
	place->since_s = since > 0 ? since : 0;
	place->waiters = waiters > 0 ? waiters : 0;
	if (token <= 0)
		return;
	place->holder.token = token;
	place->held_ns = held > 0 ? held : 0;
	copy(place->holder.comm, sizeof(place->holder.comm), comm);
	copy(place->holder.job, sizeof(place->holder.job), job);
}

json_t *queue_value(const struct place *place)
{
	json_t *value = json_pack("{s:I, s:I}", "since",
				  (json_int_t)place->since_s, "waiters",
				  (json_int_t)place->waiters);

	if (place->holder.token)
		json_object_set_new(value, "holder", json_pack(
			"{s:I, s:I, s:o, s:o}", "token",
			(json_int_t)place->holder.token, "since",
			(json_int_t)place->held_ns, "comm",
			text(place->holder.comm), "job",
			text(place->holder.job)));
	return value;
}

void queue_state(const struct mirror *mirror, const char *lock,
		 struct state *state)
{
	const struct key *key;
	json_int_t result = 0;
	char *name;

	memset(state, 0, sizeof(*state));
	state->owner = "";
	name = format("%s/state", lock);
	key = mirror_find(mirror, name);
	free(name);
	if (!key)
		return;
	state->mod_revision = key->mod_revision;
	/* A state that cannot be understood may hide anything */
	if (json_unpack(key->value, "{s:s, s:I}", "owner", &state->owner,
			"result", &result)) {
		state->owner = "?";
		result = TLOCK_REVOKED;
	}
	state->result = result & (TLOCK_ABANDONED | TLOCK_REVOKED);
}
