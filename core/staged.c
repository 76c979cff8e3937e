/*
 * staged.c - the calls of one who writes a staged batch; see staged.h. How it is
 * stored is in staged_flush.c.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/manifest.h"
#include "core/stage_impl.h"
#include "core/transition_impl.h"
#include "core/txn.h"

/* A stage on the shard's list, of which nothing is read yet; or one whose loss is not marked yet. */
static enum kv_rc enlist(struct core_shard *s, struct core_uuid id, struct core_stage **out, bool *again,
			 struct kv_err *err)
{
	struct core_stage *g = calloc(1, sizeof *g), *there;

	if (g == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	pthread_mutex_init(&g->mu, NULL);
	g->shard = s;
	g->id = id;
	g->refs = 1;
	g->is_open = true;
	/* A commit that has looked for writers is over before there is another one: what is read next is not
	 * what it takes. */
	pthread_mutex_lock(&s->commit_mu);
	pthread_mutex_lock(&s->mu);
	there = core_stage_locked(s, id);
	*again = there != NULL && !there->is_open;
	*out = there == NULL ? g : *again ? there : NULL;
	if (there == NULL) {
		g->next = s->stages;
		s->stages = g;
	} else if (*again) {
		there->is_open = true; /* with the reference it kept */
	}
	pthread_mutex_unlock(&s->mu);
	pthread_mutex_unlock(&s->commit_mu);
	if (there != NULL)
		core_stage_free(g);
	if (*again)
		core_shard_close(s);
	return *out != NULL ? KV_OK : kv_fail(err, KV_BATCH_BUSY, "the batch is open for writing");
}

/* From here on another one may write. */
static void delist(struct core_stage *g)
{
	struct core_shard *s = g->shard;

	pthread_mutex_lock(&s->mu);
	core_stage_delist_locked(g);
	pthread_mutex_unlock(&s->mu);
}

static enum kv_rc load_stage(struct core_stage *g, struct kv_err *err)
{
	struct core_manifest manifest;
	char line[CORE_BOUNDS_LINE_LEN];
	enum kv_rc rc = core_staged_read(g->shard, g->id, &g->entry, &manifest, err);

	if (rc != KV_OK)
		return rc;
	g->base = manifest.batch;
	g->stored_parts = core_stage_blobs(g);
	g->rest = (char *)manifest.rest.data;
	g->rest_len = manifest.rest.len;
	g->base_text = g->entry.size - strlen(core_staged_bounds_line(&g->entry, line)) - g->rest_len;
	g->rows = g->entry.rows;
	g->has_bounds = g->entry.has_bounds;
	g->lower = g->entry.lower;
	g->upper = g->entry.upper;
	g->lost = g->entry.lost;
	/* One that was just made may not be on stable storage yet. */
	g->dirty = g->entry.size == 0;
	return KV_OK;
}

enum kv_rc core_stage_open(struct core_shard *s, struct core_uuid id, struct core_stage **out,
			   struct kv_err *err)
{
	struct core_stage *g = NULL;
	bool again = false;
	enum kv_rc rc;

	*out = NULL;
	if (s->engine->traits.read_only)
		return kv_fail_rc(err, KV_READONLY);
	rc = enlist(s, id, &g, &again, err);
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&g->mu);
	if (!again)
		rc = load_stage(g, err);
	pthread_mutex_unlock(&g->mu);
	if (rc == KV_OK) {
		*out = g;
	} else {
		delist(g);
		core_stage_put(g);
	}
	return rc;
}

enum kv_rc core_stage_bounds(struct core_stage *g, struct core_frontier lower, struct core_frontier upper,
			     struct kv_err *err)
{
	enum kv_rc rc;

	pthread_mutex_lock(&g->mu);
	rc = core_stage_check(g, err);
	if (rc == KV_OK && (g->rows != 0 || g->has_bounds))
		rc = kv_fail(err, KV_BAD_SYNTAX, "bounds must come before the first row");
	if (rc == KV_OK && core_frontier_lt(upper, lower))
		rc = kv_fail(err, KV_BAD_BOUNDS, "the upper lies below the lower");
	if (rc == KV_OK) {
		g->has_bounds = true;
		g->lower = lower;
		g->upper = upper;
		g->rest_len = 0;
		g->dirty = true;
	}
	pthread_mutex_unlock(&g->mu);
	return rc;
}

enum kv_rc core_stage_add(struct core_stage *g, const struct core_row *row, struct kv_err *err)
{
	enum kv_rc rc;

	pthread_mutex_lock(&g->mu);
	rc = core_stage_check(g, err);
	if (rc == KV_OK && row->star)
		rc = kv_fail(err, KV_BAD_SYNTAX, "a staged batch cannot have a time of *");
	if (rc == KV_OK && g->has_bounds)
		rc = core_check_time(row->update.time, g->lower, g->upper, err);
	if (rc == KV_OK && core_update_bytes(&row->update) > CORE_ROW_MAX)
		rc = kv_fail_rc(err, KV_ROW_TOO_LARGE);
	if (rc == KV_OK)
		rc = core_stage_start_builder(g, err);
	if (rc == KV_OK) {
		g->dirty = true;
		g->measured = false;
		rc = core_surely_not(core_builder_add(g->builder, &row->update, false, err), err);
		g->lost = rc != KV_OK && !core_builder_keeps(rc);
		g->rows += rc == KV_OK;
		if (rc == KV_OK || g->lost)
			g->rest_len = 0; /* in the same moment: a commit must not meet the row and its
					    beginning */
	}
	pthread_mutex_unlock(&g->mu);
	return rc;
}

enum kv_rc core_stage_keep(struct core_stage *g, const void *rest, size_t len, struct kv_err *err)
{
	enum kv_rc rc;

	pthread_mutex_lock(&g->mu);
	rc = len == g->rest_len && (len == 0 || memcmp(rest, g->rest, len) == 0) ? KV_OK
										 : core_stage_check(g, err);
	if (rc == KV_OK && (len != g->rest_len || (len != 0 && memcmp(rest, g->rest, len) != 0))) {
		char *grown = realloc(g->rest, len + 1);

		if (grown == NULL) {
			rc = kv_fail_rc(err, KV_NOMEM);
		} else {
			g->rest = grown;
			if (len != 0)
				memcpy(g->rest, rest, len);
			g->rest_len = len;
			g->dirty = true;
		}
	}
	pthread_mutex_unlock(&g->mu);
	return rc;
}

const void *core_stage_kept(struct core_stage *g, size_t *len)
{
	const void *kept;

	pthread_mutex_lock(&g->mu); /* who commits or reads may find out that it is not for us any more */
	*len = g->rest_len;
	kept = g->rest;
	pthread_mutex_unlock(&g->mu);
	return kept;
}

enum kv_rc core_stage_clear(struct core_stage *g, struct kv_err *err)
{
	struct core_batch *empty = core_batch_new(core_frontier_at(0), core_frontier_empty());
	enum kv_rc rc = KV_OK;

	if (empty == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	pthread_mutex_lock(&g->mu);
	if (atomic_load(&g->sealed) || g->taken)
		rc = kv_fail_rc(err, KV_BATCH_TAKEN);
	if (rc != KV_OK) {
		core_batch_unref(empty);
		goto out;
	}
	core_builder_free(g->builder);
	g->builder = NULL;
	g->measured = false;
	core_stage_drop_own_parts(g);
	if (g->stored_parts != 0) {
		assert(g->cleared == NULL); /* that was stored no more */
		g->cleared = g->base;
	} else {
		core_batch_unref(g->base);
	}
	g->base = empty;
	g->base_text = 0;
	g->stored_parts = 0;
	g->rows = 0;
	g->has_bounds = false;
	g->rest_len = 0;
	g->lost = false;
	g->dirty = true;
out:
	pthread_mutex_unlock(&g->mu);
	return rc;
}

enum kv_rc core_stage_sync(struct core_stage *g, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&g->mu);
	if (g->taken)
		rc = kv_fail_rc(err, KV_BATCH_TAKEN);
	else
		rc = core_stage_flush_locked(g, err);
	pthread_mutex_unlock(&g->mu);
	return rc == KV_NO_BATCH ? kv_fail_rc(err, KV_BATCH_TAKEN) : rc; /* it was there at the open */
}

enum kv_rc core_stage_room(struct core_stage *g, size_t len, struct kv_err *err)
{
	struct kv_usage usage;
	size_t want = len;

	pthread_mutex_lock(&g->mu);
	if (g->builder != NULL)
		want += core_builder_waiting(g->builder);
	pthread_mutex_unlock(&g->mu);
	/* What cannot be told is left to the write itself. */
	if (want == 0 || kv_store_usage(g->shard->engine->store, &usage, err) != KV_OK ||
	    usage.total_bytes == 0 || usage.avail_bytes >= want)
		return KV_OK;
	return kv_fail(err, KV_NOSPACE,
		       "the store has room for %" PRIu64 " bytes: the batch's next %zu do not fit",
		       usage.avail_bytes, want);
}

uint64_t core_stage_size(struct core_stage *g)
{
	uint64_t size;

	pthread_mutex_lock(&g->mu);
	size = core_stage_size_locked(g);
	pthread_mutex_unlock(&g->mu);
	return size;
}

void core_stage_close(struct core_stage *g)
{
	struct core_shard *s;
	enum kv_rc rc = KV_OK;

	if (g == NULL)
		return;
	s = g->shard;
	pthread_mutex_lock(&g->mu);
	if (!g->taken) {
		rc = core_stage_flush_locked(g, NULL);
		if (rc != KV_OK && !g->taken && !atomic_load(&g->removed)) {
			g->lost = true;
			rc = core_stage_mark_lost(g, NULL);
		} else {
			rc = KV_OK;
		}
	}
	core_builder_free(g->builder);
	g->builder = NULL;
	pthread_mutex_unlock(&g->mu);
	if (rc == KV_OK) {
		delist(g);
		core_stage_put(g);
		return;
	}
	/* Its loss must be known as long as this process lives, also to a commit. */
	core_shard_ref(s);
	pthread_mutex_lock(&s->mu);
	g->is_open = false;
	pthread_mutex_unlock(&s->mu);
}

void core_staged_end(struct core_shard *s)
{
	while (s->stages != NULL) {
		struct core_stage *next = s->stages->next;

		core_stage_free(s->stages);
		s->stages = next;
	}
}
