// SPDX-License-Identifier: LGPL-2.1-or-later
/* Parts of transactions. */
#include <errno.h>
#include <stdlib.h>

#include "log.h"
#include "txn.h"

static char *full_name(const struct session *session, const char *name)
{
	return format("%s%s", session->config->prefix, name);
}

static json_t *name_bytes(const struct session *session, const char *name)
{
	char *full = full_name(session, name);
	json_t *bytes = etcd_bytes(full);

	free(full);
	return bytes;
}

json_t *txn_created(const struct session *session, const char *name,
		    uint64_t revision)
{
	return json_pack("{so ss so}", "key", name_bytes(session, name),
			 "target", "CREATE", "create_revision",
			 etcd_text(revision));
}

json_t *txn_modified(const struct session *session, const char *name,
		     uint64_t revision)
{
	return json_pack("{so ss so}", "key", name_bytes(session, name),
			 "target", "MOD", "mod_revision", etcd_text(revision));
}

json_t *txn_none(const struct session *session, const char *name)
{
	char *full = full_name(session, name);
	json_t *none = etcd_range(full);

	free(full);
	json_object_set_new(none, "target", json_string("CREATE"));
	json_object_set_new(none, "create_revision", etcd_text(0));
	return none;
}

json_t *txn_put(const struct session *session, const char *name, json_t *value,
		uint64_t lease)
{
	char *text = json_dumps(value, JSON_COMPACT);
	json_t *put;

	if (!text)
		die("tlockd", ENOMEM);
	put = json_pack("{s{so so so}}", "request_put", "key",
			name_bytes(session, name), "value", etcd_bytes(text),
			"lease", etcd_text(lease));
	free(text);
	json_decref(value);
	return put;
}

json_t *txn_delete(const struct session *session, const char *name)
{
	return json_pack("{s{so}}", "request_delete_range", "key",
			 name_bytes(session, name));
}
