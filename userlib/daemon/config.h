/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_CONFIG_H
#define TLOCKD_CONFIG_H

#include <linux/tlock.h>

/**
 * struct config - what /etc/tlockd.conf says
 * @endpoints: URLs of etcd's members, separated by white space
 * @ca: file of the authorities to trust, or NULL
 * @cert: file of the client's certificate, or NULL
 * @key: file of its private key, or NULL
 * @prefix: what all keys begin with; ends with a slash
 * @host: name of this host, up to 63 bytes
 * @ttl: time to live of the lease, in seconds, 2 to 3600
 * @idle: how long an unwanted lock stays on this host, in seconds
 */
struct config {
	char *endpoints;
	char *ca;
	char *cert;
	char *key;
	char *prefix;
	char host[TLOCK_HOST_SIZE];
	unsigned int ttl;
	unsigned int idle;
};

/**
 * config_read - read a configuration file
 * @path: of the file
 * @config: filled in
 *
 * Returns 0. Otherwise it has reported the error on stderr, with the line's
 * number, and returns -1.
 */
int config_read(const char *path, struct config *config);

#endif
