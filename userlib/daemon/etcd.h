/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TLOCKD_ETCD_H
#define TLOCKD_ETCD_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>
#include <systemd/sd-event.h>

#include "config.h"

/*
 * A client of etcd, by its JSON gateway. One endpoint is in use; a request that
 * fails there moves on to the next one, and so does a watch that ends.
 *
 * All answers must come from one cluster that never goes back: an answer from
 * another cluster, of an earlier term or, where the whole cluster has agreed on
 * it, of an earlier revision counts as a failure.
 */
struct etcd;

/**
 * etcd_answer - receives the answer to a request
 * @data: as passed with the request
 * @answer: what etcd answered, valid during this call; NULL if the request
 *	failed, and then nobody knows whether it was carried out, or still will be
 */
typedef void etcd_answer(void *data, const json_t *answer);

/**
 * etcd_new - make a client
 * @config: stays in use
 * @event: the loop that serves it
 */
struct etcd *etcd_new(const struct config *config, sd_event *event);

/**
 * etcd_ask - send a request
 * @etcd: the client
 * @path: of the method, as "kv/txn"
 * @request: its argument; the client takes this reference
 * @answer: called once, later
 * @data: passed to it
 */
void etcd_ask(struct etcd *etcd, const char *path, json_t *request,
	      etcd_answer *answer, void *data);

/**
 * etcd_watch - have changes reported
 * @etcd: the client, which has no watch
 * @request: argument of the method; the client takes this reference
 * @answer: called for each message; with NULL when the watch has ended
 * @data: passed to it
 */
void etcd_watch(struct etcd *etcd, json_t *request, etcd_answer *answer,
		void *data);

/**
 * etcd_watching - whether there is a watch
 */
bool etcd_watching(const struct etcd *etcd);

/**
 * struct etcd_figures - what a client has done
 * @endpoint: URL in use
 * @requests: requests sent, but for watches
 * @failures: requests that failed, and watches that ended
 */
struct etcd_figures {
	const char *endpoint;
	uint64_t requests;
	uint64_t failures;
};

void etcd_figures(const struct etcd *etcd, struct etcd_figures *figures);

/*
 * etcd's JSON: 64-bit numbers are strings, fields with the value 0 are missing,
 * and keys and values are in base64.
 */

/** etcd_number - a number in an answer; 0 if it is missing */
int64_t etcd_number(const json_t *object, const char *name);

/** etcd_text - make a string of a number */
json_t *etcd_text(uint64_t number);

/** etcd_bytes - make a key or a value */
json_t *etcd_bytes(const char *text);

/**
 * etcd_string - a key or a value in an answer
 *
 * Returns a string to free(3), or NULL if it is missing or malformed, or contains a
 * NUL.
 */
char *etcd_string(const json_t *object, const char *name);

/**
 * etcd_range - arguments that select all keys that begin with a prefix
 */
json_t *etcd_range(const char *prefix);

#endif
