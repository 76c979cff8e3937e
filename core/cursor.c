/*
 * cursor.c - one run as a stream of rows.
 *
 * 1. The stream is in order of (key, val, time). The run is, as stored. Lifting
 *    to rewrite_ts and advancing to `time` are both max(t, constant), which never
 *    turns the order of two times around, so rows of one (key, val) stay in order
 *    within a part; across parts see batch.h on rewrite_ts. What bounds or AS_OF
 *    take out leaves the rest in order.
 * 2. At most one part is open, and none whose rows are all hidden.
 */
#include "core/cursor.h"

struct core_cursor core_cursor_at(const struct core_home *home, const struct core_batch *batch, size_t first,
				  size_t end, enum core_merge_mode mode, uint64_t time, size_t window)
{
	return (struct core_cursor){.home = home,
				    .batch = batch,
				    .part = first,
				    .end = end,
				    .window = window,
				    .mode = mode,
				    .time = time};
}

void core_cursor_fini(struct core_cursor *c)
{
	core_part_close(c->reader);
	c->reader = NULL;
}

static void rest_at(struct core_cursor *c, struct core_part_pos pos)
{
	c->pos = pos;
	c->rests = true;
	c->row = (struct core_update){0};
	core_cursor_fini(c);
}

void core_cursor_rest(struct core_cursor *c)
{
	if (c->reader != NULL)
		rest_at(c, core_part_tell(c->reader));
}

void core_cursor_rest_on_row(struct core_cursor *c)
{
	if (c->reader != NULL)
		rest_at(c, core_part_tell_last(c->reader));
}

size_t core_cursor_held(const struct core_cursor *c)
{
	return c->reader != NULL ? core_part_held(c->reader) : 0;
}

size_t core_cursor_need(const struct core_cursor *c)
{
	if (c->reader != NULL || c->part == c->end)
		return core_cursor_held(c);
	return core_part_need(&c->batch->parts[c->part], c->window);
}

static uint64_t prefix(struct core_bytes key)
{
	uint64_t word = 0;

	if (key.len == CORE_ABSENT)
		return 0;
	for (uint32_t i = 0; i < sizeof(word) && i < key.len; i++)
		word |= (uint64_t)key.data[i] << (56 - 8 * i);
	return word;
}

/* Open the next part that shows anything. *end: there is none. */
static enum kv_rc open_part(struct core_cursor *c, bool *end, struct kv_err *err)
{
	for (; c->part < c->end; c->part++) {
		const struct core_part *part = &c->batch->parts[c->part];

		if (core_part_hidden(part, c->batch->lower, c->batch->upper))
			continue;
		enum kv_rc rc = core_part_open(c->home, part, &c->reader, err);
		if (rc == KV_OK)
			core_part_set_window(c->reader, c->window);
		if (rc == KV_OK && c->rests)
			rc = core_part_seek(c->reader, c->pos, err);
		c->rests = c->rests && rc != KV_OK;
		return rc;
	}
	*end = true;
	return KV_OK;
}

/* Whether the merge sees the row, and at what time. */
static bool seen(const struct core_cursor *c, struct core_update *row)
{
	if (!core_time_shown(&c->batch->parts[c->part], c->batch->lower, c->batch->upper, &row->time))
		return false;
	if (c->mode == CORE_MERGE_AS_OF && row->time > c->time)
		return false;
	if (row->time < c->time)
		row->time = c->time;
	return true;
}

enum kv_rc core_cursor_next(struct core_cursor *c, bool *end, struct kv_err *err)
{
	*end = false;
	for (;;) {
		bool part_end = false;

		if (c->reader == NULL) {
			enum kv_rc rc = open_part(c, end, err);
			if (rc != KV_OK || *end)
				return rc;
		}
		enum kv_rc rc = core_part_next(c->reader, &c->row, &part_end, err);
		if (rc != KV_OK)
			return rc;
		if (part_end) {
			core_part_close(c->reader);
			c->reader = NULL;
			c->part++;
			continue;
		}
		if (seen(c, &c->row)) {
			c->prefix = prefix(c->row.key);
			return KV_OK;
		}
	}
}
