/*
 * stream.c - see stream.h.
 *
 * The buffer holds the text from `from` to `from + len`; the snapshot stands
 * behind its last byte. A read makes text until its end is in the buffer; what
 * lies more than WINDOW before that is dropped.
 */
#include "fs/stream.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW = 1 << 20 };

struct fs_stream {
	struct core_snapshot *snapshot;
	char *buf;
	size_t cap;
	size_t len;
	uint64_t from;
	bool ended;
	struct kv_err failed; /* rc != KV_OK: what came instead of the next row, and comes again */
};

struct fs_stream *fs_stream_open(struct core_snapshot *snapshot)
{
	struct fs_stream *s = calloc(1, sizeof *s);

	if (s == NULL) {
		core_snapshot_close(snapshot);
		return NULL;
	}
	s->snapshot = snapshot;
	return s;
}

/* Room for len more bytes. */
static bool make_room(struct fs_stream *s, size_t len)
{
	size_t cap = s->cap != 0 ? s->cap : 16 << 10;
	char *grown;

	if (s->len + len <= s->cap)
		return true;
	while (cap < s->len + len)
		cap *= 2;
	grown = realloc(s->buf, cap);
	if (grown == NULL)
		return false;
	s->buf = grown;
	s->cap = cap;
	return true;
}

/* Keep at most WINDOW bytes before `offset`, but only when that is worth a move. */
static void trim(struct fs_stream *s, uint64_t offset)
{
	size_t drop;

	if (offset < s->from + 2 * WINDOW)
		return;
	drop = (size_t)(offset - s->from - WINDOW);
	if (drop > s->len)
		drop = s->len;
	memmove(s->buf, s->buf + drop, s->len - drop);
	s->len -= drop;
	s->from += drop;
}

static enum kv_rc produce(struct fs_stream *s, struct kv_err *err)
{
	struct core_update u;
	enum kv_rc rc = core_snapshot_next(s->snapshot, &u, &s->ended, err);

	if (rc != KV_OK || s->ended)
		return rc;
	if (!make_room(s, core_row_text_len(&u)))
		return kv_fail_rc(err, KV_NOMEM);
	s->len += core_row_format(&u, s->buf + s->len);
	return KV_OK;
}

enum kv_rc fs_stream_read(struct fs_stream *s, uint64_t offset, size_t len, const char **data, size_t *got,
			  struct kv_err *err)
{
	uint64_t have;

	*data = NULL;
	*got = 0;
	if (offset < s->from) {
		core_snapshot_rewind(s->snapshot);
		s->from = 0;
		s->len = 0;
		s->ended = false;
		s->failed.rc = KV_OK;
	}
	while (s->failed.rc == KV_OK && !s->ended && s->from + s->len < offset + len) {
		trim(s, s->from + s->len < offset ? s->from + s->len : offset);
		if (produce(s, &s->failed) == KV_OK)
			s->failed.rc = KV_OK;
	}
	have = s->from + s->len;
	if (offset >= have) {
		/* What came before a failure is given first; then the failure, each time. */
		if (s->failed.rc != KV_OK)
			*err = s->failed;
		return s->failed.rc;
	}
	*data = s->buf + (offset - s->from);
	*got = have - offset < len ? (size_t)(have - offset) : len;
	return KV_OK;
}

void fs_stream_close(struct fs_stream *s)
{
	if (s == NULL)
		return;
	core_snapshot_close(s->snapshot);
	free(s->buf);
	free(s);
}
