/* SPDX-License-Identifier: GPL-2.0-only */
/* Reads the tables of cases, "names" and "jobs", that C shares with Python */
#ifndef TABLE_H
#define TABLE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_LINE	2048

/* Ends the test program if there is no such table. */
static inline FILE *open_table(const char *path)
{
	FILE *table = fopen(path, "r");

	if (!table) {
		perror(path);
		abort();
	}
	return table;
}

/*
 * Reads the next case, which is two texts with a tab between them. Puts the
 * first into @line, and a pointer to the other, in @line as well, into
 * *@expected. Returns false, having closed the table, if there is none left.
 */
static inline bool next_case(FILE *table, char line[TABLE_LINE],
			     char **expected)
{
	while (fgets(line, TABLE_LINE, table)) {
		line[strcspn(line, "\n")] = '\0';
		if (!*line || *line == '#')
			continue;
		*expected = strchr(line, '\t');
		if (!*expected) {
			fprintf(stderr, "no tab in: %s\n", line);
			abort();
		}
		*(*expected)++ = '\0';
		return true;
	}
	fclose(table);
	return false;
}

#endif /* TABLE_H */
