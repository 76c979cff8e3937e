/*
 * merge.c - runs of many batches as one sorted, consolidated stream.
 *
 * A binary heap of cursors, least row on top. Rows equal in (key, val, time) come
 * off one after the other and are summed in 128 bits.
 *
 * Above CORE_MERGE_WAYS runs, small inline ones are first sorted in memory into
 * one (a builder that may keep everything inline does that). If there are still
 * too many, the smallest are merged into temporary parts, which are one run then,
 * until CORE_MERGE_WAYS are left: the first time just as many as let every later
 * pass be full, which reads and writes least.
 *
 * 1. The heap holds the cursors that have a row; a parent's row is not above its
 *    children's.
 * 2. A run is `owned` if its batch is temporary. Temporary batches have one run,
 *    show everything (bounds 0 and empty), and are deleted as soon as a later
 *    pass has merged them, else at close.
 * 3. A pass already applies bounds, rewrites, mode and time. All are idempotent,
 *    and a temporary batch hides nothing, so applying the latter two again changes
 *    nothing. A pass never fails by overflow: what leaves i64 stays apart and is
 *    summed anew at the end, when what would bring it back has met it.
 * 4. A merge that rests has no readers; each cursor in the heap gives the row it stood on once more, so the
 * heap is in order when all have done that.
 * 5. What builders make of sorted rows without stars is one run, for each part
 *    then begins where the one before ended.
 */
#include "core/merge.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/builder.h"
#include "core/cursor.h"
#include "core/rows.h"

/* Windows of all cursors together, and how far that is stretched for one. */
enum { WINDOWS_TOTAL = 4 << 20, WINDOW_MIN = 32 << 10, WINDOW_MAX = 256 << 10 };
/* Inline bytes that are sorted in memory; parts of passes, three of which are in memory at a time. */
enum { GATHER_MAX = 4 << 20, PASS_TARGET = 4 << 20 };

struct run {
	const struct core_batch *batch;
	size_t first;
	size_t end;
	uint64_t rows;
	struct core_batch *owned; /* = batch if it is temporary, else NULL */
};

struct run_list {
	struct run *r;
	size_t count;
};

struct core_merge {
	const struct core_home *home;
	enum core_merge_mode mode;
	uint64_t time;
	bool apart; /* sums that leave i64 come as several rows */

	struct run_list runs; /* those of the cursors; of temporary ones, the batches */
	struct core_cursor *cursors;
	struct core_cursor **heap;
	size_t heap_count;
	bool rests;
	enum kv_rc failed;
	size_t had; /* bytes, when it began to rest */

	/* The row that was given last, copied, and what is still to be given of its sum. */
	struct core_update row;
	__int128 rest;
	uint8_t *copy;
	size_t copy_cap;
};

/* --- lists of runs ----------------------------------------------------------------------------------- */

/* Drop the first n runs, and temporary parts with them. */
static void runs_drop(const struct core_home *home, struct run_list *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (list->r[i].owned == NULL)
			continue;
		core_batch_delete_blobs(home, list->r[i].owned);
		core_batch_unref(list->r[i].owned);
	}
	list->count -= n;
	if (list->count != 0) /* else r may be NULL, which memmove must not be given */
		memmove(list->r, list->r + n, list->count * sizeof(*list->r));
}

static void runs_fini(const struct core_home *home, struct run_list *list)
{
	runs_drop(home, list, list->count);
	free(list->r);
	*list = (struct run_list){0};
}

static bool run_is_hidden(const struct core_batch *b, size_t first, size_t end)
{
	for (size_t i = first; i < end; i++) {
		if (!core_part_hidden(&b->parts[i], b->lower, b->upper))
			return false;
	}
	return true;
}

/* All runs that show anything. False: out of memory. */
static bool runs_collect(struct core_batch *const *batches, size_t count, struct run_list *list)
{
	size_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += batches[i]->run_count;
	*list = (struct run_list){.r = calloc(total + 1, sizeof(*list->r))};
	if (list->r == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		const struct core_batch *b = batches[i];

		for (size_t run = 0; run < b->run_count; run++) {
			size_t end = run + 1 < b->run_count ? b->run_starts[run + 1] : b->part_count;
			struct run *r = &list->r[list->count];

			*r = (struct run){.batch = b, .first = b->run_starts[run], .end = end};
			if (run_is_hidden(b, r->first, end))
				continue;
			for (size_t p = r->first; p < end; p++)
				r->rows += b->parts[p].rows;
			list->count++;
		}
	}
	return true;
}

static int run_cmp(const void *a, const void *b)
{
	uint64_t x = ((const struct run *)a)->rows;
	uint64_t y = ((const struct run *)b)->rows;

	return (x > y) - (x < y);
}

/*
 * Insert a temporary batch, taken, as a run; the list has room and is sorted by rows.
 * KV_CORRUPT: it is not one run, so what was merged into it did not come in order
 */
static enum kv_rc runs_insert(const struct core_home *home, struct run_list *list, struct core_batch *batch,
			      struct kv_err *err)
{
	struct run run = {.batch = batch, .end = batch->part_count, .rows = batch->rows, .owned = batch};
	size_t at = 0;

	if (batch->run_count != 1) {
		bool empty = batch->run_count == 0;

		core_batch_delete_blobs(home, batch);
		core_batch_unref(batch);
		return empty ? KV_OK : kv_fail(err, KV_CORRUPT, "a stored run is not in order");
	}
	while (at < list->count && list->r[at].rows <= run.rows)
		at++;
	memmove(list->r + at + 1, list->r + at, (list->count - at) * sizeof(*list->r));
	list->r[at] = run;
	list->count++;
	return KV_OK;
}

/* --- the heap ---------------------------------------------------------------------------------------- */

static bool below(const struct core_cursor *a, const struct core_cursor *b)
{
	if (a->prefix != b->prefix)
		return a->prefix < b->prefix;
	return core_update_cmp(&a->row, &b->row) < 0;
}

static void sink(struct core_merge *m, size_t at)
{
	struct core_cursor *moving = m->heap[at];

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= m->heap_count)
			break;
		if (child + 1 < m->heap_count && below(m->heap[child + 1], m->heap[child]))
			child++;
		if (!below(m->heap[child], moving))
			break;
		m->heap[at] = m->heap[child];
		at = child;
	}
	m->heap[at] = moving;
}

/* Move the least cursor on. */
static enum kv_rc advance_top(struct core_merge *m, struct kv_err *err)
{
	bool end;

	enum kv_rc rc = core_cursor_next(m->heap[0], &end, err);
	if (rc != KV_OK)
		return rc;
	if (end) {
		core_cursor_fini(m->heap[0]);
		m->heap[0] = m->heap[--m->heap_count];
	}
	if (m->heap_count > 1)
		sink(m, 0);
	return KV_OK;
}

static void heap_fini(struct core_merge *m, size_t cursors)
{
	for (size_t i = 0; i < cursors; i++)
		core_cursor_fini(&m->cursors[i]);
	free(m->cursors);
	free(m->heap);
	free(m->copy);
}

/* For each of so many cursors. */
static size_t window_of(size_t count)
{
	size_t window = WINDOWS_TOTAL / (count + 1);

	return window < WINDOW_MIN ? WINDOW_MIN : window > WINDOW_MAX ? WINDOW_MAX : window;
}

/* Set up the heap over runs. On failure nothing is left of it. */
static enum kv_rc heap_init(struct core_merge *m, const struct run *runs, size_t count, struct kv_err *err)
{
	size_t window = window_of(count);
	enum kv_rc rc = KV_OK;

	m->cursors = calloc(count + 1, sizeof(*m->cursors));
	m->heap = calloc(count + 1, sizeof(struct core_cursor *));
	if (m->cursors == NULL || m->heap == NULL) {
		heap_fini(m, 0);
		return kv_fail_rc(err, KV_NOMEM);
	}
	for (size_t i = 0; i < count && rc == KV_OK; i++) {
		bool end;

		m->cursors[i] = core_cursor_at(m->home, runs[i].batch, runs[i].first, runs[i].end, m->mode,
					       m->time, window);
		rc = core_cursor_next(&m->cursors[i], &end, err);
		if (rc == KV_OK && !end)
			m->heap[m->heap_count++] = &m->cursors[i];
	}
	if (rc != KV_OK) {
		heap_fini(m, count);
		return rc;
	}
	for (size_t i = m->heap_count / 2; i-- > 0;)
		sink(m, i);
	return KV_OK;
}

/* --- the stream -------------------------------------------------------------------------------------- */

static struct core_bytes put_bytes(uint8_t **p, struct core_bytes b)
{
	struct core_bytes copy = {.data = *p, .len = b.len};

	if (b.len == CORE_ABSENT || b.len == 0)
		return (struct core_bytes){.data = NULL, .len = b.len};
	memcpy(*p, b.data, b.len);
	*p += b.len;
	return copy;
}

/* m->row := the top row, copied: the cursor will move on while its equals are summed. */
static bool copy_top(struct core_merge *m)
{
	const struct core_update *top = &m->heap[0]->row;
	size_t len = core_update_bytes(top);

	if (len > m->copy_cap) {
		size_t cap = 2 * len;
		uint8_t *copy = malloc(cap);

		if (copy == NULL)
			return false;
		free(m->copy);
		m->copy = copy;
		m->copy_cap = cap;
	}
	uint8_t *p = m->copy;
	m->row.key = put_bytes(&p, top->key);
	m->row.val = put_bytes(&p, top->val);
	m->row.time = top->time;
	return true;
}

/* Sum the least row and its equals into m->row and m->rest. */
static enum kv_rc take_group(struct core_merge *m, struct kv_err *err)
{
	m->rest = 0;
	if (!copy_top(m))
		return kv_fail_rc(err, KV_NOMEM);
	do {
		m->rest += m->heap[0]->row.diff;
		enum kv_rc rc = advance_top(m, err);
		if (rc != KV_OK)
			return rc;
	} while (m->heap_count > 0 && m->heap[0]->row.time == m->row.time &&
		 core_update_cmp_row(&m->heap[0]->row, &m->row) == 0);
	if (m->apart || (m->rest >= INT64_MIN && m->rest <= INT64_MAX))
		return KV_OK;

	char quoted[CORE_QUOTE_LEN];
	struct core_bytes key = m->row.key;
	bool absent = key.len == CORE_ABSENT;
	m->rest = 0;
	return kv_fail(err, KV_OVERFLOW, "the sum of diffs of key %s leaves i64",
		       absent ? "\\N" : core_quote(key.data, key.len, quoted));
}

/* Stand where it stood before it rested. */
static enum kv_rc wake(struct core_merge *m, struct kv_err *err)
{
	for (size_t i = 0; i < m->heap_count; i++) {
		bool end;

		enum kv_rc rc = core_cursor_next(m->heap[i], &end, err);
		if (rc == KV_OK && end)
			rc = kv_fail(err, KV_CORRUPT, "a stored run is shorter than it was");
		if (rc != KV_OK)
			return rc;
	}
	m->rests = false;
	return KV_OK;
}

/* After a failure: of no use any more. */
static void fail(struct core_merge *m, enum kv_rc rc)
{
	for (size_t i = 0; i < m->heap_count; i++)
		core_cursor_fini(m->heap[i]);
	m->heap_count = 0;
	m->rest = 0;
	m->failed = rc;
}

enum kv_rc core_merge_next(struct core_merge *m, struct core_update *out, bool *end, struct kv_err *err)
{
	*end = false;
	while (m->rest == 0) {
		if (m->heap_count == 0) {
			if (m->failed != KV_OK)
				return kv_fail_rc(err, m->failed);
			*out = (struct core_update){0};
			*end = true;
			return KV_OK;
		}
		enum kv_rc rc = m->rests ? wake(m, err) : KV_OK;
		if (rc == KV_OK)
			rc = take_group(m, err);
		if (rc != KV_OK) {
			*out = (struct core_update){0};
			fail(m, rc);
			return rc;
		}
	}
	*out = m->row;
	out->diff = core_sum_take(&m->rest);
	return KV_OK;
}

/* --- memory ------------------------------------------------------------------------------------------ */

size_t core_merge_held(const struct core_merge *m)
{
	size_t held = m->copy_cap;

	for (size_t i = 0; i < m->heap_count; i++)
		held += core_cursor_held(m->heap[i]);
	return held;
}

size_t core_merge_need(const struct core_merge *m)
{
	size_t need = m->copy_cap;

	for (size_t i = 0; i < m->heap_count; i++)
		need += core_cursor_need(m->heap[i]);
	return m->rests && m->had > need ? m->had : need;
}

size_t core_merge_need_of(struct core_batch *const *batches, size_t count)
{
	size_t runs = 0, need = 0;

	for (size_t i = 0; i < count; i++)
		runs += batches[i]->run_count;
	runs = runs < CORE_MERGE_WAYS ? runs : CORE_MERGE_WAYS;
	for (size_t i = 0, left = runs; i < count && left > 0; i++)
		for (size_t run = 0; run < batches[i]->run_count && left > 0; run++, left--)
			need += core_part_need(&batches[i]->parts[batches[i]->run_starts[run]],
					       window_of(runs));
	return need;
}

void core_merge_rest(struct core_merge *m)
{
	if (m->rests || m->failed != KV_OK)
		return;
	m->had = core_merge_held(m);
	for (size_t i = 0; i < m->heap_count; i++)
		core_cursor_rest_on_row(m->heap[i]);
	m->rests = true;
	if (m->rest != 0)
		return; /* the row will be given again */
	free(m->copy);
	m->copy = NULL;
	m->copy_cap = 0;
}

/* --- passes ------------------------------------------------------------------------------------------ */

/* Add all that the cursor or merge gives to the builder. */
static enum kv_rc feed_cursor(struct core_builder *builder, struct core_cursor *c, struct kv_err *err)
{
	for (;;) {
		bool end;

		enum kv_rc rc = core_cursor_next(c, &end, err);
		if (rc != KV_OK || end)
			return rc;
		rc = core_builder_add(builder, &c->row, false, err);
		if (rc != KV_OK)
			return rc;
	}
}

static enum kv_rc feed_merge(struct core_builder *builder, struct core_merge *m, struct kv_err *err)
{
	for (;;) {
		struct core_update u;
		bool end;

		if (m->home->stops != NULL && atomic_load_explicit(m->home->stops, memory_order_relaxed))
			return kv_fail_rc(err, KV_SHUTDOWN);

		enum kv_rc rc = core_merge_next(m, &u, &end, err);
		if (rc != KV_OK || end)
			return rc;
		rc = core_builder_add(builder, &u, false, err);
		if (rc != KV_OK)
			return rc;
	}
}

static bool run_inline_bytes(const struct run *run, uint64_t *bytes)
{
	*bytes = 0;
	for (size_t i = run->first; i < run->end; i++) {
		if (run->batch->parts[i].inline_data == NULL)
			return false;
		*bytes += run->batch->parts[i].size;
	}
	return true;
}

/* Sort small inline runs, as far as they fit in memory, into one. */
static enum kv_rc gather_inline(struct core_merge *m, struct run_list *list, struct kv_err *err)
{
	/* Rows take at most twice the memory of their inline bytes, so all stay in the builder to the end. */
	struct core_builder_config config = {.target_bytes = (size_t)4 * GATHER_MAX, .inline_max = SIZE_MAX};
	struct core_builder *builder = NULL;
	struct core_batch *batch = NULL;
	uint64_t total = 0;
	size_t kept = 0;

	enum kv_rc rc = core_builder_new(m->home, config, &builder, err);
	for (size_t i = 0; i < list->count && rc == KV_OK; i++) {
		struct run *run = &list->r[i];
		uint64_t bytes;

		if (!run_inline_bytes(run, &bytes) || bytes > GATHER_MAX - total) {
			list->r[kept++] = *run;
			continue;
		}
		total += bytes;
		struct core_cursor c = core_cursor_at(m->home, run->batch, run->first, run->end, m->mode,
						      m->time, WINDOW_MIN);
		rc = feed_cursor(builder, &c, err);
		core_cursor_fini(&c);
	}
	if (rc == KV_OK)
		rc = core_builder_finish(builder, core_frontier_at(0), core_frontier_empty(), &batch, err);
	if (rc == KV_OK) {
		if (kept < list->count) {
			list->count = kept;
			rc = runs_insert(m->home, list, batch, err);
		} else {
			core_batch_unref(batch);
		}
	}
	core_builder_free(builder);
	return rc;
}

/* Merge the first n runs into a temporary one. On failure to write, the list is as before. */
static enum kv_rc merge_first(struct core_merge *m, struct run_list *list, size_t n, struct kv_err *err)
{
	struct core_builder_config config = {.target_bytes = PASS_TARGET, .never_inline = true};
	struct core_merge pass = {.home = m->home, .mode = m->mode, .time = m->time, .apart = true};
	struct core_builder *builder = NULL;
	struct core_batch *batch = NULL;

	enum kv_rc rc = heap_init(&pass, list->r, n, err);
	if (rc != KV_OK)
		return rc;
	rc = core_builder_new(m->home, config, &builder, err);
	if (rc == KV_OK)
		rc = feed_merge(builder, &pass, err);
	if (rc == KV_OK)
		rc = core_builder_finish(builder, core_frontier_at(0), core_frontier_empty(), &batch, err);
	heap_fini(&pass, n);
	core_builder_free(builder);
	if (rc != KV_OK)
		return rc;
	runs_drop(m->home, list, n);
	return runs_insert(m->home, list, batch, err);
}

/* Whether the store cannot take temporary parts now, while reading it still works. */
static bool no_room_to_write(enum kv_rc rc)
{
	return rc == KV_READONLY || rc == KV_NOSPACE || rc == KV_QUOTA;
}

/* Bring the runs down to CORE_MERGE_WAYS. */
static enum kv_rc reduce(struct core_merge *m, struct run_list *list, struct kv_err *err)
{
	if (list->count <= CORE_MERGE_WAYS)
		return KV_OK;
	enum kv_rc rc = gather_inline(m, list, err);
	if (rc != KV_OK)
		return rc;
	qsort(list->r, list->count, sizeof(*list->r), run_cmp);
	while (list->count > CORE_MERGE_WAYS) {
		struct kv_err own = {0};
		/* A pass of n takes n - 1 away; the first takes what full ones would leave over. */
		size_t n = (list->count - CORE_MERGE_WAYS) % (CORE_MERGE_WAYS - 1) + 1;

		rc = merge_first(m, list, n == 1 ? CORE_MERGE_WAYS : n, &own);
		/* Reading must not need room to write: then all runs at once, and more memory. */
		if (no_room_to_write(rc))
			return KV_OK;
		if (rc != KV_OK) {
			if (err != NULL)
				*err = own;
			return rc;
		}
	}
	return KV_OK;
}

enum kv_rc core_merge_open(const struct core_home *home, struct core_batch *const *batches, size_t count,
			   enum core_merge_mode mode, uint64_t time, struct core_merge **out,
			   struct kv_err *err)
{
	struct core_merge *m = calloc(1, sizeof(*m));

	*out = NULL;
	if (m == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	m->home = home;
	m->mode = mode;
	m->time = time;
	m->apart = mode == CORE_MERGE_ADVANCE;
	enum kv_rc rc = runs_collect(batches, count, &m->runs) ? KV_OK : kv_fail_rc(err, KV_NOMEM);
	if (rc == KV_OK)
		rc = reduce(m, &m->runs, err);
	if (rc == KV_OK)
		rc = heap_init(m, m->runs.r, m->runs.count, err);
	if (rc != KV_OK) {
		runs_fini(home, &m->runs);
		free(m);
		return rc;
	}
	*out = m;
	return KV_OK;
}

void core_merge_close(struct core_merge *m)
{
	if (m == NULL)
		return;
	heap_fini(m, m->runs.count);
	runs_fini(m->home, &m->runs);
	free(m);
}
