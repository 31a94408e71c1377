// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The tlock command: the width of text on a terminal. libsmartcols can shorten
 * text, too, but does not mark what it has cut.
 */
#define _GNU_SOURCE
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "status.h"

/*
 * The first unit of @text that is printed as a whole: a character, or a byte as
 * \xHH. Returns its length in bytes, and its columns in *@width.
 */
static size_t next_unit(const char *text, size_t *width)
{
	mbstate_t state = { 0 };
	size_t length;
	wchar_t c;

	*width = 4;
	/* A backslash that could be taken for one of \xHH */
	if (!strncmp(text, "\\x", 2))
		return 1;
	length = mbrtowc(&c, text, strlen(text), &state);
	if (length > strlen(text))
		return 1;
	*width = iswprint(c) ? (size_t)wcwidth(c) : 4 * length;
	return length;
}

size_t text_width(const char *text)
{
	size_t width, sum = 0;

	while (*text) {
		text += next_unit(text, &width);
		sum += width;
	}
	return sum;
}

void cut_text(char **text, size_t width)
{
	const char *mark = strcmp(nl_langinfo(CODESET), "UTF-8") ? "..." : "…";
	size_t room = width - text_width(mark), used = 0, end = 0;

	if (text_width(*text) <= width)
		return;
	for (;;) {
		size_t length = next_unit(*text + end, &width);

		if (used + width > room)
			break;
		used += width;
		end += length;
	}
	*text = checked(realloc(*text, end + strlen(mark) + 1));
	memcpy(*text + end, mark, strlen(mark) + 1);
}
