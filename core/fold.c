/*
 * fold.c - many small batches at the end of a shard become one.
 *
 * Small appends keep their rows inline in the state. So that neither the state
 * nor a snapshot's work grows with every append, the tail, that is, the batches
 * at the end that have no blobs, is merged into one batch when it has
 * CORE_FOLD_BATCHES of them or CORE_INLINE_TOTAL bytes. The result stays inline,
 * and in the tail, while it is small, else it becomes a part in the blob store,
 * set in the same step as the version that names it.
 *
 * Invariant: only batches of the tail have inline parts, so inline bytes are
 * bounded. A batch with blobs that comes behind a tail has it folded into a blob
 * first.
 *
 * The merge advances times to since, where nothing tells them apart any more,
 * but never out of the batch's own bounds, which readers filter by. All of it is
 * in memory: what is inline is bounded by CORE_INLINE_TOTAL and a little.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"
#include "core/merge.h"
#include "core/rows.h"
#include "core/upkeep_impl.h"

static enum kv_rc read_rows(const struct core_home *home, struct core_batch *const *batches, size_t count,
			    uint64_t advance_to, struct core_rows *rows, struct kv_err *err)
{
	struct core_merge *merge;
	struct core_update u;
	bool end = false;
	enum kv_rc rc;

	rc = core_merge_open(home, batches, count, CORE_MERGE_ADVANCE, advance_to, &merge, err);
	if (rc != KV_OK)
		return rc;
	while (rc == KV_OK && !end) {
		rc = core_merge_next(merge, &u, &end, err);
		if (rc == KV_OK && !end && !core_rows_add(rows, &u, false))
			rc = kv_fail_rc(err, KV_NOMEM);
	}
	core_merge_close(merge);
	return rc;
}

/* The rows as the one part of b; hollow if they are many or have to be. */
static enum kv_rc add_part(const struct core_home *home, const struct core_rows *rows, bool hollow,
			   struct core_batch *b, struct core_buf *blob, char key[CORE_BLOB_KEY_LEN],
			   struct kv_err *err)
{
	struct core_part part;
	uint8_t *data;
	size_t len;
	enum kv_rc rc;

	hollow = hollow || rows->bytes > CORE_FOLD_MEMORY_MAX;
	rc = core_part_encode(home, rows->u, NULL, rows->count, hollow, &part, &data, &len, err);
	if (rc != KV_OK)
		return rc;
	if (hollow) {
		core_part_key(home->shard, &part, key);
		*blob = (struct core_buf){.data = data, .len = len};
	} else {
		part.inline_data = data;
	}
	if (core_batch_push(b, &part, true))
		return KV_OK;
	core_part_fini(&part);
	return kv_fail_rc(err, KV_NOMEM);
}

static bool has_blobs(const struct core_batch *b)
{
	return b->part_count != 0 && core_batch_inline_bytes(b) == 0;
}

/* The tail as one batch, a reference in *out. */
static enum kv_rc merge_tail(struct core_shard *s, bool hollow, struct core_batch **out,
			     struct core_buf *blob, char key[CORE_BLOB_KEY_LEN], struct kv_err *err)
{
	const struct core_state *st = &s->state;
	struct core_batch *const *batches = &st->batches[st->batch_count - s->tail];
	struct core_frontier upper = batches[s->tail - 1]->upper;
	uint64_t advance_to = st->since.empty ? 0 : st->since.t;
	struct core_rows rows = {0};
	struct core_batch *b = core_batch_new(batches[0]->lower, upper);
	enum kv_rc rc = KV_OK;

	if (b == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	if (core_frontier_covers(upper, advance_to))
		advance_to = upper.t - 1;
	b->since = core_frontier_at(advance_to);
	if (!st->since.empty) /* else nothing of it is readable ever again */
		rc = read_rows(&s->home, batches, s->tail, advance_to, &rows, err);
	if (rc == KV_OK && rows.count != 0)
		rc = add_part(&s->home, &rows, hollow, b, blob, key, err);
	core_rows_fini(&rows);
	if (rc != KV_OK)
		core_batch_unref(b);
	else
		*out = b;
	return rc;
}

static void count_fold(struct core_shard *s, const struct core_batch *b)
{
	core_count(s->engine, CORE_M_FOLDS, 1);
	core_count(s->engine, CORE_M_FOLD_BYTES, b->bytes);
}

enum kv_rc core_fold(struct core_shard *s, struct core_diff *d, struct core_buf *blob,
		     char key[CORE_BLOB_KEY_LEN], struct kv_err *err)
{
	struct core_splice append = d->splices[0];
	bool hollow = s->inline_bytes != 0 && has_blobs(append.batches[0]);
	struct core_batch *b;
	enum kv_rc rc;

	if (!hollow && s->tail < CORE_FOLD_BATCHES && (s->inline_bytes < CORE_INLINE_TOTAL || s->tail < 2))
		return KV_OK;
	assert(s->tail != 0); /* by the invariant */
	rc = merge_tail(s, hollow, &b, blob, key, err);
	if (rc != KV_OK)
		return rc;
	/* The fold goes first: the append's splice lies behind what it replaces. */
	d->splice_count = 0;
	rc = core_diff_splice(d, b->lower, b->upper, &b, 1, err);
	if (rc != KV_OK)
		core_batch_unref(b);
	d->splices[d->splice_count++] = append;
	if (rc == KV_OK)
		count_fold(s, b);
	return rc;
}

enum kv_rc core_fold_tail(struct core_shard *s, bool hollow, struct core_diff *d, struct core_buf *blob,
			  char key[CORE_BLOB_KEY_LEN], struct kv_err *err)
{
	struct core_batch *b;
	enum kv_rc rc = merge_tail(s, hollow, &b, blob, key, err);

	if (rc != KV_OK)
		return rc;
	rc = core_diff_splice(d, b->lower, b->upper, &b, 1, err);
	if (rc != KV_OK)
		core_batch_unref(b);
	else
		count_fold(s, b);
	return rc;
}

struct fold_change {
	struct core_change change;
	struct core_shard *shard;
	bool thorough;
	bool folded;
};

static enum kv_rc run_fold(struct core_change *change, const struct core_state *s, struct core_diff *d,
			   bool *skip, struct kv_err *err)
{
	struct fold_change *c = (struct fold_change *)change;

	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	/* A batch alone changes only where it is kept, or loses what nobody can read any more. */
	c->folded = c->shard->tail > 1 ||
		    (c->shard->inline_bytes != 0 && (change->hollow || s->since.empty)) ||
		    (c->shard->tail == 1 && c->thorough &&
		     core_merge_would_change(s, s->batches[s->batch_count - 1]));
	*skip = !c->folded;
	d->seqno = s->seqno + 1;
	return KV_OK;
}

enum kv_rc core_fold_now(struct core_shard *s, bool hollow, bool thorough, bool *folded, struct kv_err *err)
{
	struct fold_change c = {
		.change = {.run = run_fold,
			   .sync = KV_RIDE,
			   .folds = true,
			   .hollow = hollow,
			   .rearranges = true},
		.shard = s,
		.thorough = thorough,
	};
	enum kv_rc rc = core_machine_commit(s, &c.change, err);

	*folded = rc == KV_OK && c.folded;
	return rc;
}

/* --- counting ------------------------------------------------------------------------------------------ */

static void count_batch(struct core_shard *s, const struct core_batch *b)
{
	if (has_blobs(b)) {
		atomic_fetch_add_explicit(&s->runs, b->run_count, memory_order_relaxed);
		s->tail = 0;
		s->inline_bytes = 0;
		return;
	}
	s->tail++;
	s->inline_bytes += core_batch_inline_bytes(b);
}

void core_fold_recount(struct core_shard *s)
{
	s->tail = 0;
	s->inline_bytes = 0;
	atomic_store(&s->runs, 0);
	for (size_t i = 0; i < s->state.batch_count; i++)
		count_batch(s, s->state.batches[i]);
}

void core_fold_count(struct core_shard *s, const struct core_diff *d)
{
	for (size_t i = 0; i < d->splice_count; i++) {
		const struct core_splice *splice = &d->splices[i];
		const struct core_batch *first = splice->batches[0];

		/* What replaces something is the fold of the whole tail, or an empty batch in place of an
		 * empty one at the very end. */
		if (!core_frontier_eq(splice->lower, splice->upper)) {
			if (d->splice_count == 1 && first->part_count == 0) {
				s->tail--;
			} else {
				s->tail = 0;
				s->inline_bytes = 0;
			}
		}
		for (size_t j = 0; j < splice->count; j++)
			count_batch(s, splice->batches[j]);
	}
}
