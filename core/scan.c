/*
 * scan.c - one batch as text that can be read at any offset.
 *
 * The text goes part by part, row by row. A scan stands at one row boundary; the
 * row that a read cut in two is kept as text until it is used up. Going forward
 * passes whole parts by their descriptions where these tell their length; going
 * back begins at the nearest mark.
 *
 * 1. text_off is the offset of the text of the row that the reader gives next;
 *    the cut row, if any, ends there.
 * 2. marks ascend in text_off, and among equal ones in place. Each is a block
 *    that was begun, so at most one block is decoded to come from a mark to any
 *    offset between it and the next one.
 * 3. At most MARKS_MAX marks: when full every other one goes, which makes the way
 *    from a mark longer by so much in that region, and never wrong.
 */
#include "core/scan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"

enum { MARKS_MAX = 64 << 10 };

struct mark {
	uint64_t text_off;
	size_t part;
	struct core_part_pos pos;
};

struct core_scan {
	const struct core_home *home;
	const struct core_batch *batch;
	struct core_part_reader *reader; /* of part, or NULL: before its first row */
	size_t part;
	uint64_t text_off;

	char *cut; /* the row before text_off, as text */
	size_t cut_len;
	size_t cut_cap;

	struct mark *marks;
	size_t mark_count;
	size_t mark_cap;
};

enum kv_rc core_scan_open(const struct core_home *home, const struct core_batch *batch,
			  struct core_scan **out, struct kv_err *err)
{
	struct core_scan *s = calloc(1, sizeof(*s));

	*out = NULL;
	if (s == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	s->home = home;
	s->batch = batch;
	*out = s;
	return KV_OK;
}

void core_scan_close(struct core_scan *s)
{
	if (s == NULL)
		return;
	core_part_close(s->reader);
	free(s->cut);
	free(s->marks);
	free(s);
}

/* --- marks ------------------------------------------------------------------------------------------- */

/* <0, 0, >0 as a lies before, at or behind b in the parts. */
static int place_cmp(const struct mark *a, const struct mark *b)
{
	if (a->part != b->part)
		return a->part < b->part ? -1 : 1;
	return (a->pos.block > b->pos.block) - (a->pos.block < b->pos.block);
}

/* How many marks are at or before offset, or with m at or before the place of m. */
static size_t marks_until(const struct core_scan *s, uint64_t offset, const struct mark *m)
{
	size_t low = 0, high = s->mark_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct mark *at = &s->marks[mid];
		bool until = m == NULL ? at->text_off <= offset : place_cmp(at, m) <= 0;

		if (until)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void thin_marks(struct core_scan *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->mark_count; i += 2)
		s->marks[kept++] = s->marks[i];
	s->mark_count = kept;
}

/* Remember the block that begins with the next row. Without memory, going back only takes longer. */
static void mark_block(struct core_scan *s)
{
	struct mark m = {.text_off = s->text_off, .part = s->part, .pos = core_part_tell(s->reader)};

	if (m.pos.rows_past != 0)
		return;
	size_t at = marks_until(s, 0, &m);
	if (at > 0 && place_cmp(&s->marks[at - 1], &m) == 0)
		return;
	if (s->mark_count == MARKS_MAX) {
		thin_marks(s);
		at = marks_until(s, 0, &m);
	}
	if (s->mark_count == s->mark_cap) {
		size_t cap = s->mark_cap == 0 ? 16 : 2 * s->mark_cap;
		struct mark *marks = realloc(s->marks, cap * sizeof(*marks));

		if (marks == NULL)
			return;
		s->marks = marks;
		s->mark_cap = cap;
	}
	memmove(s->marks + at + 1, s->marks + at, (s->mark_count - at) * sizeof(*s->marks));
	s->marks[at] = m;
	s->mark_count++;
}

/* --- moving ------------------------------------------------------------------------------------------ */

static void leave_part(struct core_scan *s, size_t next)
{
	core_part_close(s->reader);
	s->reader = NULL;
	s->part = next;
}

/* The next visible row of the current part; *end: it has no more. */
static enum kv_rc next_row(struct core_scan *s, struct core_update *u, bool *end, struct kv_err *err)
{
	for (;;) {
		mark_block(s);
		enum kv_rc rc = core_part_next(s->reader, u, end, err);
		if (rc != KV_OK || *end)
			return rc;
		if (core_time_shown(&s->batch->parts[s->part], s->batch->lower, s->batch->upper, &u->time))
			return KV_OK;
	}
}

/*
 * Stand in a part that may have the byte at offset; false: the text ends before it. Parts whose text ends at
 * or before offset are passed unread where that is known.
 */
static enum kv_rc enter_part(struct core_scan *s, uint64_t offset, bool *there, struct kv_err *err)
{
	*there = s->reader != NULL;
	for (; s->reader == NULL && s->part < s->batch->part_count; s->part++) {
		const struct core_part *part = &s->batch->parts[s->part];
		uint64_t len;

		if (core_part_text_len(part, s->batch->lower, s->batch->upper, &len) &&
		    offset >= s->text_off && len <= offset - s->text_off) {
			s->text_off += len;
			continue;
		}
		enum kv_rc rc = core_part_open(s->home, part, &s->reader, err);
		*there = rc == KV_OK;
		return rc;
	}
	return KV_OK;
}

/* Forget where the scan stands, but not the marks. */
static void forget_place(struct core_scan *s)
{
	leave_part(s, 0);
	s->text_off = 0;
	s->cut_len = 0;
}

/* Stand at or before offset, as near as marks and the present place allow. */
static enum kv_rc go_near(struct core_scan *s, uint64_t offset, struct kv_err *err)
{
	size_t before = marks_until(s, offset, NULL);
	const struct mark *m = before == 0 ? NULL : &s->marks[before - 1];
	enum kv_rc rc = KV_OK;

	s->cut_len = 0;
	if (s->text_off <= offset && (m == NULL || m->text_off <= s->text_off))
		return KV_OK;
	if (m == NULL) {
		forget_place(s);
		return KV_OK;
	}
	if (s->reader == NULL || s->part != m->part) {
		leave_part(s, m->part);
		rc = core_part_open(s->home, &s->batch->parts[m->part], &s->reader, err);
	}
	if (rc == KV_OK)
		rc = core_part_seek(s->reader, m->pos, err);
	s->text_off = m->text_off;
	return rc;
}

/* --- reading ----------------------------------------------------------------------------------------- */

/* Enough for the text of u, without looking at its bytes. */
static size_t text_bound(const struct core_update *u)
{
	return 2 * core_update_bytes(u) + 64;
}

static enum kv_rc cut_row(struct core_scan *s, const struct core_update *u, struct kv_err *err)
{
	size_t bound = text_bound(u);

	if (bound > s->cut_cap) {
		char *cut = malloc(bound);

		if (cut == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		free(s->cut);
		s->cut = cut;
		s->cut_cap = bound;
	}
	s->cut_len = core_row_format(u, s->cut);
	s->text_off += s->cut_len;
	return KV_OK;
}

/* Copy from the cut row what it has of the text at offset; 0: nothing. */
static size_t take_cut(const struct core_scan *s, uint64_t offset, char *buf, size_t len)
{
	if (offset >= s->text_off || s->text_off - offset > s->cut_len)
		return 0;
	size_t left = (size_t)(s->text_off - offset);
	size_t n = left < len ? left : len;
	memcpy(buf, s->cut + (s->cut_len - left), n);
	return n;
}

/* One step towards filling buf with the text at offset: *n bytes of it, possibly none. *end: there are none.
 */
static enum kv_rc step(struct core_scan *s, uint64_t offset, char *buf, size_t len, size_t *n, bool *end,
		       struct kv_err *err)
{
	struct core_update u;
	bool there, part_end;

	*n = take_cut(s, offset, buf, len);
	if (*n > 0)
		return KV_OK;
	s->cut_len = 0;
	assert(s->text_off <= offset);
	enum kv_rc rc = enter_part(s, offset, &there, err);
	*end = rc == KV_OK && !there;
	if (rc != KV_OK || *end)
		return rc;
	rc = next_row(s, &u, &part_end, err);
	if (rc != KV_OK)
		return rc;
	if (part_end) {
		leave_part(s, s->part + 1);
		return KV_OK;
	}
	if (s->text_off == offset && text_bound(&u) <= len) {
		*n = core_row_format(&u, buf);
		s->text_off += *n;
		return KV_OK;
	}
	uint64_t row_len = core_row_text_len(&u);
	if (row_len <= offset - s->text_off) {
		s->text_off += row_len;
		return KV_OK;
	}
	return cut_row(s, &u, err);
}

enum kv_rc core_scan_read(struct core_scan *s, uint64_t offset, char *buf, size_t len, size_t *got,
			  struct kv_err *err)
{
	size_t done = 0;
	bool end = false;
	bool in_cut = s->cut_len > 0 && offset < s->text_off && s->text_off - offset <= s->cut_len;
	enum kv_rc rc = in_cut ? KV_OK : go_near(s, offset, err);

	*got = 0;
	while (rc == KV_OK && done < len && !end) {
		size_t n = 0;

		rc = step(s, offset + done, buf + done, len - done, &n, &end, err);
		done += n;
	}
	if (rc != KV_OK) {
		forget_place(s);
		return rc;
	}
	*got = done;
	return KV_OK;
}

/* --- size -------------------------------------------------------------------------------------------- */

static enum kv_rc read_part_size(const struct core_home *home, const struct core_batch *batch,
				 const struct core_part *part, uint64_t *size, struct kv_err *err)
{
	struct core_part_reader *reader;
	struct core_update u;
	bool end = false;

	*size = 0;
	enum kv_rc rc = core_part_open(home, part, &reader, err);
	while (rc == KV_OK) {
		rc = core_part_next(reader, &u, &end, err);
		if (rc != KV_OK || end)
			break;
		if (core_time_shown(part, batch->lower, batch->upper, &u.time))
			*size += core_row_text_len(&u);
	}
	core_part_close(reader);
	return rc;
}

enum kv_rc core_scan_size(const struct core_home *home, const struct core_batch *batch, uint64_t *size,
			  struct kv_err *err)
{
	uint64_t total = 0;

	*size = 0;
	for (size_t i = 0; i < batch->part_count; i++) {
		const struct core_part *part = &batch->parts[i];
		uint64_t len;

		if (!core_part_text_len(part, batch->lower, batch->upper, &len)) {
			enum kv_rc rc = read_part_size(home, batch, part, &len, err);
			if (rc != KV_OK)
				return rc;
		}
		total += len;
	}
	*size = total;
	return KV_OK;
}
