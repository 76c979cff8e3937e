/*
 * view.c - see view.h.
 */
#include "fs/view.h"

#include <string.h>

void fs_view_close(struct fs_view *v, struct core_shard *shard)
{
	core_scan_close(v->scan);
	core_staged_close(shard, &v->staged);
	*v = (struct fs_view){0};
}

enum kv_rc fs_view_open(struct fs_view *v, struct core_shard *shard, struct core_uuid id, struct kv_err *err)
{
	const struct core_home *home = core_shard_home(shard);
	const struct core_staged *entry = &v->staged.entry;
	enum kv_rc rc;

	*v = (struct fs_view){0};
	rc = core_staged_open(shard, id, &v->staged, err);
	if (rc == KV_OK)
		rc = core_scan_size(home, v->staged.batch, &v->rows_len, err);
	if (rc == KV_OK)
		rc = core_scan_open(home, v->staged.batch, &v->scan, err);
	if (rc != KV_OK) {
		fs_view_close(v, shard);
		return rc;
	}
	v->open = true;
	v->bounds_len = strlen(core_staged_bounds_line(entry, v->bounds));
	return KV_OK;
}

uint64_t fs_view_size(const struct fs_view *v)
{
	return v->bounds_len + v->rows_len + v->staged.rest_len;
}

/* What of a piece of the text, which begins at `from`, lies at offset. */
static size_t copy_piece(const void *text, size_t text_len, uint64_t from, uint64_t offset, char *buf,
			 size_t len)
{
	uint64_t skip = offset - from;
	size_t n;

	if (skip >= text_len)
		return 0;
	n = text_len - skip < len ? (size_t)(text_len - skip) : len;
	memcpy(buf, (const char *)text + skip, n);
	return n;
}

enum kv_rc fs_view_read(struct fs_view *v, uint64_t offset, char *buf, size_t len, size_t *got,
			struct kv_err *err)
{
	uint64_t rows_end = v->bounds_len + v->rows_len;
	size_t n = copy_piece(v->bounds, v->bounds_len, 0, offset, buf, len), more = 0;
	enum kv_rc rc = KV_OK;

	*got = 0;
	if (offset + n < rows_end && n < len) {
		uint64_t left = rows_end - (offset + n);

		rc = core_scan_read(v->scan, offset + n - v->bounds_len, buf + n,
				    left < len - n ? (size_t)left : len - n, &more, err);
		n += more;
	}
	if (rc != KV_OK)
		return rc;
	if (offset + n >= rows_end && n < len)
		n += copy_piece(v->staged.rest, v->staged.rest_len, rows_end, offset + n, buf + n, len - n);
	*got = n;
	return KV_OK;
}
