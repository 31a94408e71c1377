// SPDX-License-Identifier: LGPL-2.1-or-later
/* A client of etcd, by its JSON gateway. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <curl/curl.h>

#include "etcd.h"
#include "log.h"

#define USEC_PER_MSEC	1000

struct request {
	struct etcd *etcd;
	CURL *curl;
	char *body;
	char *received;
	size_t length;
	unsigned int endpoint;
	/* Each message in a line of its own, for as long as it lasts */
	bool watch;
	/* The whole cluster has agreed on the answer */
	bool agreed;
	/* The newest known when it was sent; answers may overtake each other */
	uint64_t revision;
	uint64_t term;
	etcd_answer *answer;
	void *data;
	char error[CURL_ERROR_SIZE];
};

struct endpoint {
	char *url;
	/* How it failed, which was reported, since it last answered; or NULL */
	char *complaint;
};

struct etcd {
	const struct config *config;
	sd_event *event;
	CURLM *multi;
	sd_event_source *timer;
	struct curl_slist *headers;
	struct request *watch;
	struct endpoint *endpoints;
	unsigned int count;
	unsigned int endpoint;
	uint64_t cluster;
	uint64_t revision;
	uint64_t term;
	uint64_t requests;
	uint64_t failures;
};

int64_t etcd_number(const json_t *object, const char *name)
{
	const json_t *number = json_object_get(object, name);

	if (json_is_integer(number))
		return json_integer_value(number);
	if (json_is_string(number))
		return strtoll(json_string_value(number), NULL, 10);
	return 0;
}

json_t *etcd_text(uint64_t number)
{
	return json_sprintf("%" PRIu64, number);
}

static const char digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

json_t *etcd_bytes(const char *from)
{
	const unsigned char *bytes = (const unsigned char *)from;
	size_t i, length = strlen(from), size = (length + 2) / 3 * 4;
	char *text = must(malloc(size + 1)), *to = text;
	json_t *json;

	memset(text, '=', size);
	text[size] = '\0';
	for (i = 0; i < length; i += 3) {
		size_t left = length - i;
		unsigned int bits = bytes[i] << 16 |
				    (left > 1 ? bytes[i + 1] << 8 : 0) |
				    (left > 2 ? bytes[i + 2] : 0);

		to[0] = digits[bits >> 18];
		to[1] = digits[bits >> 12 & 63];
		if (left > 1)
			to[2] = digits[bits >> 6 & 63];
		if (left > 2)
			to[3] = digits[bits & 63];
		to += 4;
	}
	json = json_stringn(text, size);
	free(text);
	return json;
}

char *etcd_string(const json_t *object, const char *name)
{
	const char *from = json_string_value(json_object_get(object, name));
	unsigned int bits = 0, count = 0;
	char *text, *to;

	if (!from)
		return NULL;
	text = to = must(malloc(strlen(from) + 1));
	for (; *from && *from != '='; from++) {
		const char *digit = strchr(digits, *from);

		if (!digit)
			goto malformed;
		bits = bits << 6 | (digit - digits);
		count += 6;
		if (count >= 8) {
			count -= 8;
			*to = (char)(bits >> count);
			if (!*to++)
				goto malformed;
		}
	}
	*to = '\0';
	return text;
malformed:
	free(text);
	return NULL;
}

json_t *etcd_range(const char *prefix)
{
	size_t length = strlen(prefix);
	char *end = must(strdup(prefix));
	json_t *range;

	/* The first key that does not begin with it; no byte of it is 0xff */
	end[length - 1]++;
	range = json_pack("{so so}", "key", etcd_bytes(prefix), "range_end",
			  etcd_bytes(end));
	free(end);
	return must(range);
}

bool etcd_watching(const struct etcd *etcd)
{
	return etcd->watch;
}

void etcd_figures(const struct etcd *etcd, struct etcd_figures *figures)
{
	figures->endpoint = etcd->endpoints[etcd->endpoint].url;
	figures->requests = etcd->requests;
	figures->failures = etcd->failures;
}

static void complain(struct endpoint *endpoint, const char *what)
{
	if (endpoint->complaint && !strcmp(endpoint->complaint, what))
		return;
	say(SD_WARNING, "%s: %s", endpoint->url, what);
	free(endpoint->complaint);
	endpoint->complaint = must(strdup(what));
}

/* Whether an answer may be used; if not, request->error says why */
static bool check_header(struct request *request, const json_t *header)
{
	struct etcd *etcd = request->etcd;
	uint64_t cluster = strtoull(
		json_string_value(json_object_get(header, "cluster_id")) ?: "",
		NULL, 10);
	uint64_t revision = etcd_number(header, "revision");
	uint64_t term = etcd_number(header, "raft_term");

	if (!cluster) {
		snprintf(request->error, sizeof(request->error),
			 "this is not etcd's answer");
		return false;
	}
	if (etcd->cluster && cluster != etcd->cluster) {
		snprintf(request->error, sizeof(request->error),
			 "another cluster, %" PRIx64 ", not %" PRIx64 ": if that is right, restart tlockd on all hosts",
			 cluster, etcd->cluster);
		return false;
	}
	if (term < request->term ||
	    (request->agreed && revision < request->revision)) {
		snprintf(request->error, sizeof(request->error),
			 "etcd has gone back from revision %" PRIu64 " (term %" PRIu64 ") to %" PRIu64 " (term %" PRIu64 ")",
			 request->revision, request->term, revision, term);
		return false;
	}
	etcd->cluster = cluster;
	if (etcd->term < term)
		etcd->term = term;
	if (request->agreed && etcd->revision < revision)
		etcd->revision = revision;
	return true;
}

/* The answer that a request or a message of a watch brought, or NULL */
static json_t *parse(struct request *request, const char *text, size_t length)
{
	json_t *whole = json_loadb(text, length, 0, NULL);
	json_t *result = json_object_get(whole, "result");
	json_t *error = json_object_get(whole, "error");
	const char *message;

	if (error) {
		message = json_string_value(json_is_object(error) ?
				json_object_get(error, "message") : error);
		snprintf(request->error, sizeof(request->error), "%s",
			 message ?: "an error");
		json_decref(whole);
		return NULL;
	}
	/* Answers of streams are wrapped */
	if (result) {
		json_incref(result);
		json_decref(whole);
		whole = result;
	}
	if (!check_header(request, json_object_get(whole, "header"))) {
		json_decref(whole);
		return NULL;
	}
	return whole;
}

static void free_request(struct request *request)
{
	curl_easy_cleanup(request->curl);
	free(request->body);
	free(request->received);
	free(request);
}

/* Ends a watch, which may hang */
static void end_watch(struct etcd *etcd)
{
	struct request *watch = etcd->watch;

	etcd->watch = NULL;
	curl_multi_remove_handle(etcd->multi, watch->curl);
	watch->answer(watch->data, NULL);
	free_request(watch);
}

/* Uses another endpoint, if the one that failed is still in use */
static void move_on(struct etcd *etcd, unsigned int failed)
{
	if (etcd->endpoint != failed)
		return;
	etcd->endpoint = (failed + 1) % etcd->count;
	if (etcd->watch)
		end_watch(etcd);
}

static void fail(struct request *request)
{
	struct etcd *etcd = request->etcd;

	etcd->failures++;
	complain(&etcd->endpoints[request->endpoint], request->error);
	move_on(etcd, request->endpoint);
}

/* Hands the whole lines that a watch has received to its owner */
static void read_lines(struct request *request)
{
	char *line = request->received, *end;

	if (!line)
		return;
	while ((end = memchr(line, '\n',
			     request->received + request->length - line))) {
		json_t *message = parse(request, line, end - line);

		if (json_is_true(json_object_get(message, "canceled"))) {
			snprintf(request->error, sizeof(request->error),
				 "the watch was canceled");
			json_decref(message);
			message = NULL;
		}
		if (!message) {
			fail(request);
			return;
		}
		request->answer(request->data, message);
		json_decref(message);
		line = end + 1;
	}
	request->length -= line - request->received;
	memmove(request->received, line, request->length);
}

/* Leaves curl's explanation, unless that says how many milliseconds it took */
static void explain(struct request *request, CURLcode code)
{
	if (!*request->error || code == CURLE_OPERATION_TIMEDOUT ||
	    code == CURLE_COULDNT_CONNECT)
		snprintf(request->error, sizeof(request->error), "%s",
			 curl_easy_strerror(code));
}

static void finish(struct request *request, CURLcode code)
{
	struct etcd *etcd = request->etcd;
	struct endpoint *endpoint = &etcd->endpoints[request->endpoint];
	json_t *answer = NULL;
	long status = 0;

	if (code)
		explain(request, code);
	else if (request->watch)
		snprintf(request->error, sizeof(request->error),
			 "the watch has ended");
	else
		answer = parse(request, request->received ?: "",
			       request->length);
	curl_easy_getinfo(request->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_multi_remove_handle(etcd->multi, request->curl);
	if (request->watch)
		etcd->watch = NULL;

	if (answer) {
		if (endpoint->complaint)
			say(SD_NOTICE, "%s: answers", endpoint->url);
		free(endpoint->complaint);
		endpoint->complaint = NULL;
	} else if (status != 404) {
		/* A lease that is gone would not be the member's fault */
		fail(request);
	}
	request->answer(request->data, answer);
	json_decref(answer);
	free_request(request);
}

static void read_finished(struct etcd *etcd)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(etcd->multi, &left))) {
		struct request *request;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
				  &request);
		finish(request, message->data.result);
	}
}

static void act(struct etcd *etcd, curl_socket_t fd, int events)
{
	int running;

	if (curl_multi_socket_action(etcd->multi, fd, events, &running))
		die("curl_multi_socket_action", EIO);
	if (etcd->watch)
		read_lines(etcd->watch);
	read_finished(etcd);
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents,
		     void *data)
{
	int events = (revents & EPOLLIN ? CURL_CSELECT_IN : 0) |
		     (revents & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		     (revents & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

	(void)source;
	act(data, fd, events);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *data)
{
	(void)source;
	(void)usec;
	act(data, CURL_SOCKET_TIMEOUT, 0);
	return 0;
}

static int want_timer(CURLM *multi, long timeout_ms, void *data)
{
	struct etcd *etcd = data;
	int err;

	(void)multi;
	if (timeout_ms < 0) {
		err = sd_event_source_set_enabled(etcd->timer, SD_EVENT_OFF);
	} else {
		err = sd_event_source_set_time_relative(
			etcd->timer, timeout_ms * USEC_PER_MSEC);
		if (err >= 0)
			err = sd_event_source_set_enabled(etcd->timer,
							  SD_EVENT_ONESHOT);
	}
	if (err < 0)
		die("sd_event", -err);
	return 0;
}

static int want_socket(CURL *curl, curl_socket_t fd, int what, void *data,
		       void *known)
{
	struct etcd *etcd = data;
	sd_event_source *source = known;
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) |
			  (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	int err;

	(void)curl;
	/* The descriptor may have been reused for another socket: add it again */
	sd_event_source_disable_unref(source);
	source = NULL;
	if (what != CURL_POLL_REMOVE) {
		err = sd_event_add_io(etcd->event, &source, fd, events,
				      on_socket, etcd);
		if (err < 0)
			die("sd_event_add_io", -err);
	}
	curl_multi_assign(etcd->multi, fd, source);
	return 0;
}

static size_t on_received(char *bytes, size_t one, size_t count, void *data)
{
	struct request *request = data;

	(void)one;
	request->received = must(realloc(request->received,
					 request->length + count));
	memcpy(request->received + request->length, bytes, count);
	request->length += count;
	return count;
}

static void option(struct request *request, CURLoption option,
		   const void *value)
{
	if (value && curl_easy_setopt(request->curl, option, value))
		die("curl_easy_setopt", EINVAL);
}

static void number(struct request *request, CURLoption option, long value)
{
	if (curl_easy_setopt(request->curl, option, value))
		die("curl_easy_setopt", EINVAL);
}

static struct request *start(struct etcd *etcd, const char *path, json_t *json,
			     bool watch, etcd_answer *answer, void *data)
{
	struct request *request = must(calloc(1, sizeof(*request)));
	const struct config *config = etcd->config;
	char *url;

	request->etcd = etcd;
	request->endpoint = etcd->endpoint;
	request->watch = watch;
	request->agreed = !strncmp(path, "kv/", 3);
	request->revision = etcd->revision;
	request->term = etcd->term;
	request->answer = answer;
	request->data = data;
	request->curl = must(curl_easy_init());
	request->body = must(json_dumps(must(json), JSON_COMPACT));
	json_decref(json);

	url = format("%s/v3/%s", etcd->endpoints[etcd->endpoint].url, path);
	option(request, CURLOPT_URL, url);
	free(url);
	option(request, CURLOPT_PRIVATE, request);
	option(request, CURLOPT_ERRORBUFFER, request->error);
	option(request, CURLOPT_WRITEFUNCTION, on_received);
	option(request, CURLOPT_WRITEDATA, request);
	option(request, CURLOPT_POSTFIELDS, request->body);
	option(request, CURLOPT_HTTPHEADER, etcd->headers);
	option(request, CURLOPT_CAINFO, config->ca);
	option(request, CURLOPT_SSLCERT, config->cert);
	option(request, CURLOPT_SSLKEY, config->key);
	/* Proxies of the environment have no business between us and etcd */
	option(request, CURLOPT_NOPROXY, "*");
	/* So that a watch that hangs does not hold up other requests */
	number(request, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	number(request, CURLOPT_NOSIGNAL, 1);
	number(request, CURLOPT_TCP_KEEPALIVE, 1);
	number(request, watch ? CURLOPT_CONNECTTIMEOUT_MS : CURLOPT_TIMEOUT_MS,
	       config->ttl * 1000L / 6);
	if (curl_multi_add_handle(etcd->multi, request->curl))
		die("curl_multi_add_handle", EIO);
	return request;
}

void etcd_ask(struct etcd *etcd, const char *path, json_t *request,
	      etcd_answer *answer, void *data)
{
	etcd->requests++;
	start(etcd, path, request, false, answer, data);
}

void etcd_watch(struct etcd *etcd, json_t *request, etcd_answer *answer,
		void *data)
{
	etcd->watch = start(etcd, "watch", request, true, answer, data);
}

static void split_endpoints(struct etcd *etcd)
{
	char *list = must(strdup(etcd->config->endpoints)), *rest = list, *word;

	while ((word = strsep(&rest, " \t"))) {
		size_t length = strlen(word);

		if (!length)
			continue;
		if (word[length - 1] == '/')
			word[length - 1] = '\0';
		etcd->endpoints = must(realloc(etcd->endpoints,
					       (etcd->count + 1) *
					       sizeof(*etcd->endpoints)));
		etcd->endpoints[etcd->count++] = (struct endpoint){
			.url = must(strdup(word)),
		};
	}
	free(list);
}

struct etcd *etcd_new(const struct config *config, sd_event *event)
{
	struct etcd *etcd = must(calloc(1, sizeof(*etcd)));
	int err;

	etcd->config = config;
	etcd->event = event;
	split_endpoints(etcd);
	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		die("curl_global_init", EIO);
	etcd->headers = must(curl_slist_append(NULL,
					"Content-Type: application/json"));
	etcd->multi = must(curl_multi_init());
	err = sd_event_add_time_relative(event, &etcd->timer, CLOCK_MONOTONIC,
					 0, USEC_PER_MSEC, on_timer, etcd);
	if (err < 0)
		die("sd_event_add_time", -err);
	sd_event_source_set_enabled(etcd->timer, SD_EVENT_OFF);
	if (curl_multi_setopt(etcd->multi, CURLMOPT_SOCKETFUNCTION, want_socket) ||
	    curl_multi_setopt(etcd->multi, CURLMOPT_SOCKETDATA, etcd) ||
	    curl_multi_setopt(etcd->multi, CURLMOPT_TIMERFUNCTION, want_timer) ||
	    curl_multi_setopt(etcd->multi, CURLMOPT_TIMERDATA, etcd))
		die("curl_multi_setopt", EINVAL);
	return etcd;
}
