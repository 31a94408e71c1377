/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_MIRROR_H
#define TLOCKD_MIRROR_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

/**
 * struct key - a key in etcd
 * @name: its name, without the prefix of all keys
 * @value: its value, JSON; NULL if it is malformed
 * @create_revision: when it was created; it is a new key after it was deleted
 * @mod_revision: when it last changed
 * @lease: the lease that it belongs to, or 0
 * @next: the key that was created next, or NULL
 */
struct key {
	char *name;
	json_t *value;
	uint64_t create_revision;
	uint64_t mod_revision;
	uint64_t lease;
	struct key *next;
};

/**
 * struct mirror - a copy of all keys, as they were at one revision
 * @prefix: what all keys begin with
 * @revision: of the copy; 0 if there is none yet
 * @first: the oldest key
 */
struct mirror {
	const char *prefix;
	uint64_t revision;
	struct key *first;
};

/**
 * mirror_read - take over what a read of all keys has returned
 * @mirror: the copy; stays as it is if it is newer
 * @answer: of kv/range
 */
void mirror_read(struct mirror *mirror, const json_t *answer);

/**
 * mirror_change - apply what a watch reports
 * @mirror: the copy; stays as it is if it is newer
 * @answer: a message of watch, with all changes of its revisions
 */
void mirror_change(struct mirror *mirror, const json_t *answer);

/** mirror_find - the key with a name, or NULL */
const struct key *mirror_find(const struct mirror *mirror, const char *name);

#endif
