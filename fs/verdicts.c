/*
 * verdicts.c - see verdicts.h.
 *
 * Invariant: what is kept are whole lines but for the first, of which a short read
 * may have taken a piece.
 */
#include "fs/verdicts.h"

#include <stdlib.h>
#include <string.h>

/* Let the oldest lines go until len more bytes fit. */
static void forget_old(struct fs_verdicts *v, size_t len)
{
	while (v->len - v->from + len > FS_VERDICTS_MAX) {
		char *from = v->text + v->from;
		char *nl = memchr(from, '\n', v->len - v->from);

		v->from = (size_t)(nl + 1 - v->text);
	}
}

void fs_verdicts_add(struct fs_verdicts *v, const char *line)
{
	size_t len = strlen(line) + 1;

	forget_old(v, len);
	if (v->len + len > v->cap) {
		size_t kept = v->len - v->from;
		size_t cap = v->cap != 0 ? v->cap : 512;

		/* Room twice the limit: the kept ones move seldom. */
		if (v->from != 0)
			memmove(v->text, v->text + v->from, kept);
		v->from = 0;
		v->len = kept;
		while (cap < 2 * (kept + len))
			cap *= 2;
		if (cap > v->cap) {
			char *grown = realloc(v->text, cap);

			if (grown == NULL)
				return;
			v->text = grown;
			v->cap = cap;
		}
	}
	memcpy(v->text + v->len, line, len - 1);
	v->text[v->len + len - 1] = '\n';
	v->len += len;
}

size_t fs_verdicts_read(struct fs_verdicts *v, char *buf, size_t len)
{
	size_t have = v->len - v->from, n;
	char *from;

	if (have == 0)
		return 0;
	from = v->text + v->from;
	n = (size_t)((char *)memchr(from, '\n', have) + 1 - from);
	if (n > len)
		n = len;
	memcpy(buf, from, n);
	v->from += n;
	return n;
}

void fs_verdicts_clear(struct fs_verdicts *v)
{
	v->from = 0;
	v->len = 0;
}

void fs_verdicts_fini(struct fs_verdicts *v)
{
	free(v->text);
}
