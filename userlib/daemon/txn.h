/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_TXN_H
#define TLOCKD_TXN_H

#include "session.h"

/*
 * Parts of a transaction: what it compares, and what it does. Names lack the prefix
 * of all keys.
 */

/** txn_created - the key was created at this revision; 0 if there is no such key */
json_t *txn_created(const struct session *session, const char *name,
		    uint64_t revision);

/** txn_modified - the key last changed at this revision; 0 if there is no such key */
json_t *txn_modified(const struct session *session, const char *name,
		     uint64_t revision);

/** txn_none - there is no key that begins so */
json_t *txn_none(const struct session *session, const char *name);

/**
 * txn_put - write a key
 * @session: has the prefix
 * @name: its name
 * @value: its value; takes this reference
 * @lease: the lease that it ends with, or 0
 */
json_t *txn_put(const struct session *session, const char *name, json_t *value,
		uint64_t lease);

/** txn_delete - delete a key */
json_t *txn_delete(const struct session *session, const char *name);

#endif
