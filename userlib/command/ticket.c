// SPDX-License-Identifier: LGPL-2.1-or-later
/* tlock monitor: trees of structures that begin with a request's ticket */
#define _GNU_SOURCE
#include <search.h>
#include <stdlib.h>

#include "monitor.h"

static int compare(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

void *find_ticket(void *tree, uint64_t ticket)
{
	void **found = tfind(&ticket, &tree, compare);

	return found ? *found : NULL;
}

void *add_ticket(void **tree, uint64_t ticket, size_t size)
{
	uint64_t *entry = checked(calloc(1, size));

	*entry = ticket;
	checked(tsearch(entry, tree, compare));
	return entry;
}

void drop_ticket(void **tree, void *entry)
{
	tdelete(entry, tree, compare);
	free(entry);
}
