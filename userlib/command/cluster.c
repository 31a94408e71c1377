// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tlock status --cluster: the hosts that queue for the locks they share, as the
 * tlockd of this host knows them. It answers with lines of fields; tlockd(8)
 * describes them.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "status.h"

#define STATUS_SOCKET	"/run/tlockd/status"

/* How long a tlockd that answers at all may take, in seconds */
#define MAX_SECONDS	5

/* A table for people, or raw */
static const enum column cluster_columns[] = {
	COL_LOCK, COL_HOST, COL_STATE, COL_QUEUED, COL_JOB, COL_COMMAND,
	COL_HELD, COL_WAITERS,
};

#define NUM_CLUSTER_COLUMNS \
	(sizeof(cluster_columns) / sizeof(*cluster_columns))

static bool take_text(char **rest, const char **field)
{
	*field = strsep(rest, "\t");
	return *field;
}

static bool take_number(char **rest, uint64_t *number)
{
	const char *field = strsep(rest, "\t");
	char *end;

	errno = 0;
	/* strtoull() knows signs and blanks, too */
	if (!field || !isdigit((unsigned char)*field))
		return false;
	*number = strtoull(field, &end, 10);
	return !*end && !errno;
}

static bool parse_daemon(struct cluster *cluster, char *rest)
{
	return take_text(&rest, &cluster->version) &&
		take_text(&rest, &cluster->host) &&
		take_text(&rest, &cluster->endpoint) &&
		take_number(&rest, &cluster->lease_ms) &&
		take_number(&rest, &cluster->requests) &&
		take_number(&rest, &cluster->failures) && !rest;
}

static bool parse_lock(struct cluster_lock *lock, char *rest)
{
	return take_text(&rest, &lock->name) && take_text(&rest, &lock->gate) &&
		take_number(&rest, &lock->openings) &&
		take_number(&rest, &lock->lost) && !rest;
}

static bool parse_host(const struct cluster_lock *lock,
		       struct cluster_host *host, char *rest)
{
	const char *name;

	return take_text(&rest, &name) && !strcmp(name, lock->name) &&
		take_text(&rest, &host->host) &&
		take_number(&rest, &host->since) &&
		take_number(&rest, &host->waiters) &&
		take_number(&rest, &host->token) &&
		take_number(&rest, &host->held_since) &&
		take_text(&rest, &host->comm) && take_text(&rest, &host->job) &&
		!rest;
}

/* Returns a new element at the end of an array, all zero. */
static void *append(void *array, size_t *num, size_t size)
{
	void **elements = array;

	*elements = checked(reallocarray(*elements, *num + 1, size));
	return memset((char *)*elements + (*num)++ * size, 0, size);
}

/* The first line is the daemon's; those of a lock's queue follow the lock's. */
static bool parse_line(struct cluster *cluster, char *line)
{
	struct cluster_lock *lock;
	char *rest = line;

	strsep(&rest, "\t");
	if (!cluster->version)
		return !strcmp(line, "tlockd") && parse_daemon(cluster, rest);
	if (!strcmp(line, "lock"))
		return parse_lock(append(&cluster->locks, &cluster->num,
					 sizeof(*lock)), rest);
	if (strcmp(line, "queue") || !cluster->num)
		return false;
	lock = &cluster->locks[cluster->num - 1];
	return parse_host(lock, append(&lock->queue, &lock->num,
				       sizeof(*lock->queue)), rest);
}

/* Returns a socket that is connected to the daemon's, or -1 and sets errno. */
static int connect_to_daemon(void)
{
	static const struct sockaddr_un address = {
		.sun_family = AF_UNIX, .sun_path = STATUS_SOCKET
	};
	/* A daemon that is stopped would have us wait for ever */
	static const struct timeval limit = { .tv_sec = MAX_SECONDS };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -1;
	if (!setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) &&
	    !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) &&
	    !connect(fd, (const struct sockaddr *)&address, sizeof(address)))
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

int read_cluster(struct cluster *cluster)
{
	size_t size = 0;
	ssize_t length = 0;
	char *rest, *line;
	FILE *text;
	int fd;

	memset(cluster, 0, sizeof(*cluster));
	fd = connect_to_daemon();
	if (fd < 0)
		return errno;
	text = checked(fdopen(fd, "r"));
	errno = 0;
	/* No NUL, so this reads everything */
	length = getdelim(&cluster->text, &size, '\0', text);
	if (length < 0 && errno) {
		fclose(text);
		return errno;
	}
	fclose(text);

	/* A daemon that ends may leave the last line unfinished */
	rest = cluster->text;
	if (length <= 0 || rest[length - 1] != '\n')
		return EPROTO;
	rest[length - 1] = '\0';
	while ((line = strsep(&rest, "\n")))
		if (!parse_line(cluster, line))
			return EPROTO;
	return 0;
}

void free_cluster(struct cluster *cluster)
{
	while (cluster->num)
		free(cluster->locks[--cluster->num].queue);
	free(cluster->locks);
	free(cluster->text);
}

const struct cluster_lock *find_in_cluster(const struct cluster *cluster,
					   const char *device)
{
	size_t i;

	for (i = 0; i < cluster->num; i++)
		if (!strncmp(device, "tlock-", 6) &&
		    !strcmp(device + 6, cluster->locks[i].name))
			return &cluster->locks[i];
	return NULL;
}

/* Says why the daemon's answer cannot be had. Returns the exit status. */
static int cannot_read(int error)
{
	switch (error) {
	case ENOENT:
	case ECONNREFUSED:
		warnx(NO_DAEMON);
		return EX_UNAVAILABLE;
	case EACCES:
	case EPERM:
		warnx(STATUS_SOCKET ": permission denied: run this as root");
		return EX_NOPERM;
	case EAGAIN:
	case ECONNRESET:
		warnx("tlockd does not answer; see 'systemctl status tlockd'");
		return EX_UNAVAILABLE;
	case EPROTO:
		warnx("tlockd's answer is not as expected; if another version of it was installed, run 'systemctl restart tlockd'");
		return EX_PROTOCOL;
	default:
		errno = error;
		warn(STATUS_SOCKET);
		return EX_OSERR;
	}
}

/* Says why the daemon does not know a lock. Returns the exit status. */
static int not_shared(const char *name)
{
	struct tlock *t = tlock_open(name, O_RDONLY);
	char path[TLOCK_PATH_SIZE];
	struct tlock_status status;

	if (!t)
		return cannot_open(name, errno);
	if (!tlock_status(t, &status) && status.flags & TLOCK_GATED)
		warnx("%s: tlockd does not serve it yet; see 'systemctl status tlockd'",
		      tlock_path(name, path));
	else
		warnx("%s is this host's own: 'tlock create --gated' makes locks that hosts share",
		      tlock_path(name, path));
	tlock_close(t);
	return EX_NOINPUT;
}

static int by_name(const void *a, const void *b)
{
	return strverscmp((*(const struct cluster_lock *const *)a)->name,
			  (*(const struct cluster_lock *const *)b)->name);
}

/*
 * The locks that were asked for, which the caller must free; says which there
 * are not.
 */
static const struct cluster_lock **choose(const struct cluster *cluster,
					  char **names, size_t *num,
					  int *status)
{
	const struct cluster_lock **locks, *lock;
	char path[TLOCK_PATH_SIZE];
	size_t i;

	*num = 0;
	for (i = 0; names[i]; i++)
		;
	locks = checked(calloc(cluster->num + i + 1, sizeof(*locks)));
	if (!*names) {
		for (; *num < cluster->num; ++*num)
			locks[*num] = &cluster->locks[*num];
		qsort(locks, *num, sizeof(*locks), by_name);
	}
	for (; *names; names++) {
		lock = find_in_cluster(cluster,
				       basename(tlock_path(*names, path)));
		if (lock)
			locks[(*num)++] = lock;
		else
			*status = not_shared(*names);
	}
	return locks;
}

/* For how long, on the wall clocks of two hosts, which may differ */
static int64_t ago_ns(uint64_t since)
{
	time_t now = time(NULL);

	return now > (time_t)since ? (now - (time_t)since) * NS_PER_S : 0;
}

static char *time_of(const struct view *view, uint64_t since)
{
	return view->raw ? seconds_of(ago_ns(since)) :
		human_time(ago_ns(since));
}

/* Writes the cells of a host; host: NULL if none has asked for the lock. */
static void cells_of(const struct view *view, const struct cluster_lock *lock,
		     const struct cluster_host *host, char **cells)
{
	if (asprintf(&cells[0], "tlock-%s", lock->name) < 0)
		checked(NULL);
	if (!host) {
		cells[2] = checked(strdup("free"));
		return;
	}
	cells[1] = checked(strdup(host->host));
	/* Only the first host has the lock */
	cells[2] = checked(strdup(host != lock->queue ? "waiting" :
				  host->token ? "held" : "free"));
	cells[3] = time_of(view, host->since);
	cells[4] = checked(strdup(host->job));
	cells[5] = checked(strdup(host->comm));
	if (host->token)
		cells[6] = time_of(view, host->held_since);
	if (asprintf(&cells[7], "%" PRIu64, host->waiters) < 0)
		checked(NULL);
}

static void print_cluster(const struct view *asked,
			  const struct cluster_lock *const *locks, size_t num)
{
	struct view view = *asked;
	size_t i, h, lines = 0;
	char **cells;

	view.num = 0;
	for (i = 0; i < NUM_CLUSTER_COLUMNS; i++)
		view.shown[view.num++] = cluster_columns[i];
	for (i = 0; i < num; i++)
		lines += locks[i]->num + !locks[i]->num;
	cells = checked(calloc(lines + 1, view.num * sizeof(*cells)));
	for (i = 0, lines = 0; i < num; i++) {
		h = 0;
		do {
			cells_of(&view, locks[i], locks[i]->num ?
				 &locks[i]->queue[h] : NULL,
				 &cells[lines++ * view.num]);
		} while (++h < locks[i]->num);
	}
	print_cells(&view, cells, lines, stdout);
	free(cells);
}

/* Says what may be wrong with the table. */
static void print_cluster_notes(const struct cluster *cluster)
{
	char *left = human_time(cluster->lease_ms * (NS_PER_S / 1000));
	char *host = escaped(cluster->host);
	char *endpoint = escaped(cluster->endpoint);

	if (!cluster->num)
		puts("No lock of this host is shared; as root, run 'tlock create --gated NAME'");
	if (cluster->lease_ms)
		printf("%s: the lease lasts for another %s, at %s\n", host, left,
		       endpoint);
	else
		printf("%s: no lease, and this may be out of date: tlockd waits for the cluster; see 'systemctl status tlockd'\n",
		       host);
	free(left);
	free(host);
	free(endpoint);
}

static void print_json_time(const char *name, uint64_t since)
{
	char *date = iso_time(since, "");

	printf(",\"%s\":\"%s\"", name, date);
	free(date);
}

static void print_json_host(const struct cluster_host *host)
{
	fputs("{\"host\":", stdout);
	print_json_text(host->host, stdout);
	fputs(",\"queued\":", stdout);
	print_seconds(ago_ns(host->since), stdout);
	print_json_member("job", host->job, stdout);
	print_json_member("command", host->comm, stdout);
	if (host->token) {
		fputs(",\"held\":", stdout);
		print_seconds(ago_ns(host->held_since), stdout);
		print_json_time("since", host->held_since);
		printf(",\"token\":%" PRIu64, host->token);
	} else {
		fputs(",\"held\":null,\"since\":null,\"token\":null", stdout);
	}
	printf(",\"waiters\":%" PRIu64 "}", host->waiters);
}

static void print_json(const struct cluster *cluster,
		       const struct cluster_lock *const *locks, size_t num)
{
	size_t i, h;

	fputs("{\"tlockd\":{\"version\":", stdout);
	print_json_text(cluster->version, stdout);
	print_json_member("host", cluster->host, stdout);
	print_json_member("endpoint", cluster->endpoint, stdout);
	fputs(",\"lease\":", stdout);
	print_seconds(cluster->lease_ms * (NS_PER_S / 1000), stdout);
	printf(",\"requests\":%" PRIu64 ",\"failures\":%" PRIu64 "},\n\"locks\":[",
	       cluster->requests, cluster->failures);
	for (i = 0; i < num; i++) {
		printf("%s\n{\"lock\":\"tlock-%s\",\"gate\":\"%s\",\"openings\":%" PRIu64
		       ",\"lost\":%" PRIu64 ",\"queue\":[", i ? "," : "",
		       locks[i]->name, locks[i]->gate, locks[i]->openings,
		       locks[i]->lost);
		for (h = 0; h < locks[i]->num; h++) {
			fputs(h ? ",\n " : "\n ", stdout);
			print_json_host(&locks[i]->queue[h]);
		}
		fputs("]}", stdout);
	}
	fputs("]}\n", stdout);
}

int show_cluster(const struct view *view, char **names)
{
	const struct cluster_lock **locks;
	struct cluster cluster;
	int status = EX_OK;
	int error = read_cluster(&cluster);
	size_t num;

	if (error) {
		free_cluster(&cluster);
		return cannot_read(error);
	}
	locks = choose(&cluster, names, &num, &status);
	if (view->json)
		print_json(&cluster, locks, num);
	else
		print_cluster(view, locks, num);
	if (!view->json && !view->raw && !view->noheadings &&
	    (num || !*names)) {
		if (num)
			putchar('\n');
		print_cluster_notes(&cluster);
	}
	free(locks);
	free_cluster(&cluster);
	return status;
}
