// SPDX-License-Identifier: LGPL-2.1-or-later
/* A copy of the keys in etcd, kept by reads and a watch. */
#include <stdlib.h>
#include <string.h>

#include "etcd.h"
#include "log.h"
#include "mirror.h"

static void free_key(struct key *key)
{
	json_decref(key->value);
	free(key->name);
	free(key);
}

static void drop(struct mirror *mirror, const char *name)
{
	struct key **at, *key;

	for (at = &mirror->first; (key = *at); at = &key->next) {
		if (!strcmp(key->name, name)) {
			*at = key->next;
			free_key(key);
			return;
		}
	}
}

/* The name of a key in an answer, to free(3); NULL if it is none of ours */
static char *name_of(const struct mirror *mirror, const json_t *kv)
{
	size_t length = strlen(mirror->prefix);
	char *name = etcd_string(kv, "key");

	if (name && strncmp(name, mirror->prefix, length)) {
		free(name);
		return NULL;
	}
	if (name)
		memmove(name, name + length, strlen(name + length) + 1);
	return name;
}

static void put(struct mirror *mirror, const json_t *kv)
{
	char *name = name_of(mirror, kv), *value;
	struct key *key, **at = &mirror->first;

	if (!name)
		return;
	drop(mirror, name);
	key = must(calloc(1, sizeof(*key)));
	value = etcd_string(kv, "value");
	key->name = name;
	key->value = json_loads(value ?: "", 0, NULL);
	free(value);
	key->create_revision = etcd_number(kv, "create_revision");
	key->mod_revision = etcd_number(kv, "mod_revision");
	key->lease = etcd_number(kv, "lease");
	while (*at && (*at)->create_revision < key->create_revision)
		at = &(*at)->next;
	key->next = *at;
	*at = key;
}

void mirror_read(struct mirror *mirror, const json_t *answer)
{
	uint64_t revision = etcd_number(json_object_get(answer, "header"),
					"revision");
	struct key *key;
	json_t *kv;
	size_t i;

	if (revision < mirror->revision)
		return;
	mirror->revision = revision;
	while ((key = mirror->first)) {
		mirror->first = key->next;
		free_key(key);
	}
	json_array_foreach(json_object_get(answer, "kvs"), i, kv)
		put(mirror, kv);
}

void mirror_change(struct mirror *mirror, const json_t *answer)
{
	uint64_t before = mirror->revision;
	json_t *event;
	size_t i;

	json_array_foreach(json_object_get(answer, "events"), i, event) {
		const json_t *kv = json_object_get(event, "kv");
		const char *type = json_string_value(
					json_object_get(event, "type"));
		uint64_t revision = etcd_number(kv, "mod_revision");
		char *name;

		if (revision <= before)
			continue;
		if (revision > mirror->revision)
			mirror->revision = revision;
		if (!type || strcmp(type, "DELETE")) {
			put(mirror, kv);
			continue;
		}
		name = name_of(mirror, kv);
		if (name)
			drop(mirror, name);
		free(name);
	}
}

const struct key *mirror_find(const struct mirror *mirror, const char *name)
{
	const struct key *key;

	for (key = mirror->first; key; key = key->next)
		if (!strcmp(key->name, name))
			return key;
	return NULL;
}
