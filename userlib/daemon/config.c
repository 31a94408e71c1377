// SPDX-License-Identifier: LGPL-2.1-or-later
/* The configuration file: lines of "key = value", and comments after a '#'. */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

static char *trim(char *text)
{
	size_t len;

	while (isspace((unsigned char)*text))
		text++;
	len = strlen(text);
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	text[len] = '\0';
	return text;
}

static const char *set_number(unsigned int *to, const char *value,
			      unsigned long min, unsigned long max)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(value, &end, 10);
	if (!isdigit((unsigned char)*value) || *end || errno || number < min ||
	    number > max)
		return "not a number of seconds in range";
	*to = number;
	return NULL;
}

static const char *set_text(char **to, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return "out of memory";
	free(*to);
	*to = copy;
	return NULL;
}

static bool has_control_characters(const char *text)
{
	while (*text && !iscntrl((unsigned char)*text))
		text++;
	return *text;
}

/* Returns what is wrong, or NULL */
static const char *set(struct config *config, const char *key,
		       const char *value)
{
	size_t len = strlen(value);

	if (!len)
		return "no value";
	if (!strcmp(key, "endpoints"))
		return set_text(&config->endpoints, value);
	if (!strcmp(key, "ca"))
		return set_text(&config->ca, value);
	if (!strcmp(key, "cert"))
		return set_text(&config->cert, value);
	if (!strcmp(key, "key"))
		return set_text(&config->key, value);
	if (!strcmp(key, "prefix"))
		return value[len - 1] == '/' ?
		       set_text(&config->prefix, value) :
		       "does not end with a slash";
	if (!strcmp(key, "ttl"))
		return set_number(&config->ttl, value, 2, 3600);
	if (!strcmp(key, "idle"))
		return set_number(&config->idle, value, 0, 1000000000);
	if (strcmp(key, "host"))
		return "unknown key";
	/* It becomes a part of a key's path in etcd */
	if (len >= sizeof(config->host) || strchr(value, '/') ||
	    has_control_characters(value))
		return "not a host's name";
	memcpy(config->host, value, len + 1);
	return NULL;
}

static const char *set_line(struct config *config, char *line)
{
	char *equals;

	line[strcspn(line, "#")] = '\0';
	line = trim(line);
	if (!*line)
		return NULL;
	equals = strchr(line, '=');
	if (!equals)
		return "not of the form key = value";
	*equals = '\0';
	return set(config, trim(line), trim(equals + 1));
}

int config_read(const char *path, struct config *config)
{
	const char *error = NULL;
	unsigned int number = 0;
	char *line = NULL;
	size_t size = 0;
	FILE *file;

	memset(config, 0, sizeof(*config));
	config->ttl = 10;
	config->idle = 300;
	/* A name that does not fit is cut off, and then has no NUL */
	gethostname(config->host, sizeof(config->host) - 1);

	file = fopen(path, "re");
	if (!file) {
		fprintf(stderr, "tlockd: %s: %s\n", path, strerror(errno));
		return -1;
	}
	error = set_text(&config->prefix, "/tlock/");
	while (!error && getline(&line, &size, file) >= 0) {
		number++;
		error = set_line(config, line);
	}
	if (!error && ferror(file))
		error = "cannot be read";
	if (!error && !config->endpoints)
		error = "no endpoints";
	if (!error && !config->cert != !config->key)
		error = "cert and key need each other";
	if (error)
		fprintf(stderr, "tlockd: %s:%u: %s\n", path, number, error);
	free(line);
	fclose(file);
	return error ? -1 : 0;
}
