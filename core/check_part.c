/*
 * check_part.c - every row of a part, against what the part says of itself.
 *
 * The reader has checked checksums, and footer against description, already. Here both are held against the
 * rows: what was encoded wrong, or was kept wrong in memory before it was stored, has right checksums.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/check_impl.h"

struct core_last_row {
	bool there;
	struct core_bytes key;
	struct core_bytes val;
	uint8_t *bytes;
	size_t cap;
};

struct core_last_row *core_last_row_new(void)
{
	return calloc(1, sizeof(struct core_last_row));
}

void core_last_row_forget(struct core_last_row *last)
{
	last->there = false;
}

void core_last_row_free(struct core_last_row *last)
{
	if (last != NULL)
		free(last->bytes);
	free(last);
}

static size_t len_of(struct core_bytes b)
{
	return b.len == CORE_ABSENT ? 0 : b.len;
}

static bool keep(struct core_last_row *last, const struct core_update *u)
{
	size_t key = len_of(u->key), val = len_of(u->val);

	if (key + val > last->cap) {
		uint8_t *grown = realloc(last->bytes, key + val);

		if (grown == NULL)
			return false;
		last->bytes = grown;
		last->cap = key + val;
	}
	if (key != 0)
		memcpy(last->bytes, u->key.data, key);
	if (val != 0)
		memcpy(last->bytes + key, u->val.data, val);
	last->key = (struct core_bytes){.data = last->bytes, .len = u->key.len};
	last->val = (struct core_bytes){.data = last->bytes + key, .len = u->val.len};
	last->there = true;
	return true;
}

struct sums {
	uint64_t rows;
	uint64_t diffs;
	uint64_t text;
	uint64_t digits;
	uint64_t least;
	uint64_t greatest;
};

static void add(struct sums *s, const struct core_update *u)
{
	s->rows++;
	s->diffs += (uint64_t)u->diff;
	s->text += core_row_text_len_timeless(u);
	s->digits += core_u64_digits(u->time);
	s->least = u->time < s->least ? u->time : s->least;
	s->greatest = u->time > s->greatest ? u->time : s->greatest;
}

/* Rows whose time was `*` are stored at time 0 and count no digits; which ones they were is not stored. */
static const char *disagree(const struct sums *s, const struct core_part *part)
{
	if (s->rows != part->rows)
		return "its number of rows";
	if (s->diffs != part->diffs_sum)
		return "the sum of its diffs";
	if (s->text != part->text_base || s->digits - part->stars != part->time_digits)
		return "the length of its text";
	if (s->greatest != part->max_time || (part->stars == 0 && s->least != part->min_time))
		return "its times";
	return NULL;
}

static enum kv_rc wrong(const struct core_home *home, const struct core_part *part, const char *what,
			struct kv_err *err)
{
	char shard[CORE_ID_LEN], id[CORE_ID_LEN];

	core_uuid_format('s', home->shard.u, shard);
	core_uuid_format('p', part->id.u, id);
	kv_fail(err, KV_CORRUPT, "shard %s, part %s: %s", shard, id, what);
	kv_detail(err, "shard=%s part=%s", shard, id);
	return KV_CORRUPT;
}

/* In a run rows ascend, within a part by time as well. */
static bool is_in_order(const struct core_last_row *last, uint64_t last_time, bool first,
			const struct core_update *u)
{
	const struct core_update before = {.key = last->key, .val = last->val, .time = last_time};
	int order = last->there ? core_update_cmp_row(&before, u) : -1;

	return order < 0 || (order == 0 && (first || last_time <= u->time));
}

enum kv_rc core_check_part(const struct core_home *home, const struct core_part *part,
			   struct core_last_row *last, struct kv_err *err)
{
	struct sums sums = {.least = UINT64_MAX};
	struct core_part_reader *reader;
	struct core_update u;
	uint64_t time = 0;
	bool end = false;
	enum kv_rc rc = core_part_open(home, part, &reader, err);

	if (rc != KV_OK)
		return rc;
	while (rc == KV_OK && !end) {
		rc = core_part_next(reader, &u, &end, err);
		if (rc != KV_OK || end)
			break;
		if (!is_in_order(last, time, sums.rows == 0, &u))
			rc = wrong(home, part, "rows are not in order", err);
		else if (!keep(last, &u))
			rc = kv_fail_rc(err, KV_NOMEM);
		time = u.time;
		add(&sums, &u);
	}
	core_part_close(reader);
	if (rc == KV_OK && disagree(&sums, part) != NULL) {
		char text[96];

		snprintf(text, sizeof text, "%s is another one than its shard says", disagree(&sums, part));
		rc = wrong(home, part, text, err);
	}
	return rc;
}
