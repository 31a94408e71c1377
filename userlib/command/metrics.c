// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The tlock command: locks in the text format of OpenMetrics 1.0. Readers of
 * Prometheus's older format take UNIT and EOF for comments. They take the
 * counters for untyped samples, as they expect the "_total" in the declaration.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

static const struct {
	enum column column;
	const char *name;
	bool counter;
	bool seconds;
	bool job;	/* has the labels "job" and "host", beside "lock" */
	const char *help;
} families[] = {
	{ COL_STATE, "tlock_held", false, false, true,
	  "Whether the lock is held." },
	{ COL_HELD, "tlock_held_seconds", false, true, true,
	  "For how long the holder has held the lock." },
	{ COL_WAITERS, "tlock_waiters", false, false, false,
	  "Contenders that wait for the lock." },
	{ COL_ACQUIRED, "tlock_acquired", true, false, false, "Grants." },
	{ COL_CONTENDED, "tlock_contended", true, false, false,
	  "Acquires that found the lock held." },
	{ COL_TIMED_OUT, "tlock_timed_out", true, false, false,
	  "Acquires and reacquires that timed out." },
	{ COL_INTERRUPTED, "tlock_interrupted", true, false, false,
	  "Acquires and reacquires whose wait was interrupted." },
	{ COL_ABANDONED, "tlock_abandoned", true, false, false,
	  "Holders that ended without a release." },
	{ COL_REVOKED, "tlock_revoked", true, false, false,
	  "Holders that lost the lock to a revocation." },
	{ COL_YIELDED, "tlock_yielded", true, false, false,
	  "Reacquires that let a waiter in." },
	{ COL_WAIT_TOTAL, "tlock_wait_seconds", true, true, false,
	  "Time that contenders spent waiting." },
	{ COL_WAIT_MAX, "tlock_wait_max_seconds", false, true, false,
	  "The longest wait." },
	{ COL_HOLD_TOTAL, "tlock_hold_seconds", true, true, false,
	  "Time that the lock was held." },
	{ COL_HOLD_MAX, "tlock_hold_max_seconds", false, true, false,
	  "The longest time that the lock was held." },
};

/* Prints text as a label's value, without its quotes. */
static void print_label(const char *text, FILE *out)
{
	/* One byte that is not UTF-8 would cost the reader the whole file */
	char *safe = escaped(text);
	const char *c;

	/* A newline would need a backslash, too, but there is none */
	for (c = safe; *c; c++) {
		if (*c == '\\' || *c == '"')
			putc('\\', out);
		putc(*c, out);
	}
	free(safe);
}

static void print_family(const char *name, bool counter, bool seconds,
			 const char *help, FILE *out)
{
	fprintf(out, "# TYPE %s %s\n", name, counter ? "counter" : "gauge");
	if (seconds)
		fprintf(out, "# UNIT %s seconds\n", name);
	fprintf(out, "# HELP %s %s\n", name, help);
}

/* Those of one lock in the order in which they stand */
static int by_name(const void *a, const void *b)
{
	const struct row *row_a = *(const struct row *const *)a;
	const struct row *row_b = *(const struct row *const *)b;
	int order = strcmp(row_a->status.name, row_b->status.name);

	return order ? order : (row_a > row_b) - (row_a < row_b);
}

/*
 * A lock that is named twice, even by different paths, is printed once. Returns
 * the first row of each lock, and their number in *@num; the caller must free
 * it.
 */
static const struct row **each_lock(const struct row *rows, size_t *num)
{
	const struct row **locks = checked(calloc(*num + 1, sizeof(*locks)));
	bool *again = checked(calloc(*num + 1, sizeof(*again)));
	size_t i, kept = 0;

	for (i = 0; i < *num; i++)
		locks[i] = &rows[i];
	qsort(locks, *num, sizeof(*locks), by_name);
	for (i = 1; i < *num; i++)
		again[locks[i] - rows] = !strcmp(locks[i]->status.name,
						 locks[i - 1]->status.name);
	for (i = 0; i < *num; i++)
		if (!again[i])
			locks[kept++] = &rows[i];
	free(again);
	*num = kept;
	return locks;
}

/* The upper limits of the numbers in stats/waits, but for the last */
static const char *const wait_limits[] = {
	"0.001", "0.01", "0.1", "1.0", "10.0", "100.0", "+Inf"
};

#define NUM_WAITS	(sizeof(wait_limits) / sizeof(*wait_limits))

/* Returns whether this system says how long the waits for the lock were. */
static bool read_waits(const struct row *row, uint64_t *waits)
{
	char path[40 + TLOCK_NAME_SIZE];
	size_t i = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/tlock/%s/stats/waits",
		 row->status.name);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (i < NUM_WAITS && fscanf(file, "%" SCNu64, &waits[i]) == 1)
		i++;
	fclose(file);
	return i == NUM_WAITS;
}

static void print_sample(const struct row *row, const char *suffix, FILE *out)
{
	fprintf(out, "tlock_wait_duration_seconds_%s{lock=\"", suffix);
	print_label(row->status.name, out);
	fputs("\"", out);
}

/* Each sample of a histogram counts all waits up to its limit. */
static void print_waits(const struct row *const *locks, size_t num, FILE *out)
{
	uint64_t waits[NUM_WAITS], sum;
	size_t i, w;

	fputs("# TYPE tlock_wait_duration_seconds histogram\n"
	      "# UNIT tlock_wait_duration_seconds seconds\n"
	      "# HELP tlock_wait_duration_seconds Waits by their length.\n",
	      out);
	for (i = 0; i < num; i++) {
		if (!read_waits(locks[i], waits))
			continue;
		for (w = 0, sum = 0; w < NUM_WAITS; w++) {
			sum += waits[w];
			print_sample(locks[i], "bucket", out);
			fprintf(out, ",le=\"%s\"} %" PRIu64 "\n",
				wait_limits[w], sum);
		}
		print_sample(locks[i], "count", out);
		fprintf(out, "} %" PRIu64 "\n", sum);
		print_sample(locks[i], "sum", out);
		fputs("} ", out);
		print_seconds(number_of(locks[i], COL_WAIT_TOTAL), out);
		putc('\n', out);
	}
}

static const struct {
	const char *name;
	uint32_t flag;
	bool value;	/* of the metric, if the status has the flag */
	const char *help;
} gate_families[] = {
	{ "tlock_gate_open", TLOCK_SHUT, false,
	  "Whether contenders of this host can be granted the lock." },
	{ "tlock_gate_served", TLOCK_SERVED, true,
	  "Whether a daemon is attached to the gate." },
};

/* Prints the gates of the locks that have one. */
static void print_gates(const struct row *const *locks, size_t num, FILE *out)
{
	size_t f, i;

	for (f = 0; f < sizeof(gate_families) / sizeof(*gate_families); f++) {
		const char *name = gate_families[f].name;

		print_family(name, false, false, gate_families[f].help, out);
		for (i = 0; i < num; i++) {
			uint32_t flags = locks[i]->status.flags;
			bool is_set = flags & gate_families[f].flag;

			if (!(flags & TLOCK_GATED))
				continue;
			fprintf(out, "%s{lock=\"", name);
			print_label(locks[i]->status.name, out);
			fprintf(out, "\"} %d\n",
				is_set == gate_families[f].value);
		}
	}
}

static const struct {
	const char *name;
	bool counter;
	const char *help;
} cluster_families[] = {
	{ "tlockd_openings", true, "How often the lock came to this host." },
	{ "tlockd_lost", true, "How often this host lost the lock by force." },
	{ "tlockd_hosts", false, "Hosts in the lock's queue." },
};

#define NUM_CLUSTER (sizeof(cluster_families) / sizeof(*cluster_families))

/* Prints what tlockd knows of each of the locks. */
static void print_shared(const struct cluster *cluster,
			 const struct row *const *locks, size_t num, FILE *out)
{
	size_t f, i;

	for (f = 0; f < NUM_CLUSTER; f++) {
		const char *name = cluster_families[f].name;
		bool counter = cluster_families[f].counter;

		print_family(name, counter, false, cluster_families[f].help,
			     out);
		for (i = 0; i < num; i++) {
			const char *device = locks[i]->status.name;
			const struct cluster_lock *lock =
				find_in_cluster(cluster, device);

			if (!lock)
				continue;
			fprintf(out, "%s%s{lock=\"", name,
				counter ? "_total" : "");
			print_label(device, out);
			fprintf(out, "\"} %" PRIu64 "\n",
				(uint64_t[NUM_CLUSTER]){
					lock->openings, lock->lost, lock->num
				}[f]);
		}
	}
}

/* Prints how the daemon does, on a host with locks that need it. */
static void print_daemon(const struct row *const *locks, size_t num, FILE *out)
{
	struct cluster cluster;
	bool up = !read_cluster(&cluster);

	print_family("tlockd_up", false, false, "Whether tlockd answers.", out);
	fprintf(out, "tlockd_up %d\n", up);
	if (up) {
		print_family("tlockd_lease_seconds", false, true,
			     "For how long the lease is proven.", out);
		fputs("tlockd_lease_seconds ", out);
		print_seconds(cluster.lease_ms * (NS_PER_S / 1000), out);
		putc('\n', out);
		print_family("tlockd_requests", true, false,
			     "Requests to etcd.", out);
		fprintf(out, "tlockd_requests_total %" PRIu64 "\n",
			cluster.requests);
		print_family("tlockd_failures", true, false,
			     "Requests to etcd that failed.", out);
		fprintf(out, "tlockd_failures_total %" PRIu64 "\n",
			cluster.failures);
		print_shared(&cluster, locks, num, out);
	}
	free_cluster(&cluster);
}

void print_metrics(const struct row *rows, size_t num, FILE *out)
{
	const struct row **locks = each_lock(rows, &num);
	bool any_gated = false;
	size_t f, i;

	for (i = 0; i < num; i++)
		any_gated = any_gated || locks[i]->status.flags & TLOCK_GATED;

	for (f = 0; f < sizeof(families) / sizeof(*families); f++) {
		const char *name = families[f].name;

		print_family(name, families[f].counter, families[f].seconds,
			     families[f].help, out);
		for (i = 0; i < num; i++) {
			uint64_t value = number_of(locks[i],
						   families[f].column);

			fprintf(out, "%s%s{lock=\"", name,
				families[f].counter ? "_total" : "");
			print_label(locks[i]->status.name, out);
			if (families[f].job) {
				fputs("\",job=\"", out);
				print_label(locks[i]->status.holder.job, out);
			}
			if (families[f].job && *locks[i]->host) {
				fputs("\",host=\"", out);
				print_label(locks[i]->host, out);
			}
			fputs("\"} ", out);
			if (families[f].seconds)
				print_seconds(value, out);
			else
				fprintf(out, "%" PRIu64, value);
			putc('\n', out);
		}
	}
	print_waits(locks, num, out);
	if (any_gated) {
		print_gates(locks, num, out);
		print_daemon(locks, num, out);
	}
	free(locks);
	fputs("# EOF\n", out);
}
