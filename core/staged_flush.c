/*
 * staged_flush.c - how what is written to a staged batch is stored.
 *
 * The state has an entry for each: its name, and a manifest blob that lists the
 * parts. One who writes holds a stage: the parts that are made (base), a builder
 * for the rows since, and the beginning of a row. A flush makes the builder's
 * rows parts behind the others, stores a new manifest and commits the entry that
 * names it, in one step where they are small.
 *
 * The last part, if it is small, is not a blob but lies in the manifest: rows
 * that come after it are put together with its own. So one who syncs after each
 * row leaves few parts, and only small bytes are written again.
 *
 * Invariants:
 *  1. The first stored_parts parts of base are blobs that the stored manifest
 *     names; all others are ours alone. Only the last part is loose.
 *  2. dirty iff the entry lacks something of the stage.
 *  3. Once sealed or taken nothing is added. What is committed is what was
 *     flushed when it was sealed.
 *  4. Blobs are deleted only after a synced version that does not name them, when
 *     nobody here reads them (pins), and never after an unknown outcome.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/manifest.h"
#include "core/stage_impl.h"
#include "core/txn.h"

/* A last part of at most so many bytes is left in the manifest. */
enum { TAIL_MAX = 64 << 10, DESCRIBE_WAIT_NS = 20 * 1000 * 1000 };

/* --- stages ---------------------------------------------------------------------------------------- */

struct core_stage *core_stage_locked(struct core_shard *s, struct core_uuid id)
{
	struct core_stage *g = s->stages;

	while (g != NULL && !core_uuid_eq(g->id, id))
		g = g->next;
	return g;
}

void core_stage_delist_locked(struct core_stage *g)
{
	struct core_stage **p = &g->shard->stages;

	while (*p != NULL && *p != g)
		p = &(*p)->next;
	if (*p == g)
		*p = g->next;
}

/* The stage of a batch with a reference, or NULL. */
struct core_stage *core_stage_get(struct core_shard *s, struct core_uuid id)
{
	struct core_stage *g;

	pthread_mutex_lock(&s->mu);
	g = core_stage_locked(s, id);
	if (g != NULL)
		g->refs++;
	pthread_mutex_unlock(&s->mu);
	return g;
}

void core_stage_free(struct core_stage *g)
{
	core_builder_free(g->builder);
	core_batch_unref(g->base);
	core_batch_unref(g->cleared);
	free(g->rest);
	pthread_mutex_destroy(&g->mu);
	free(g);
}

void core_stage_put(struct core_stage *g)
{
	struct core_shard *s = g->shard;
	bool last;

	pthread_mutex_lock(&s->mu);
	last = --g->refs == 0;
	pthread_mutex_unlock(&s->mu);
	if (last)
		core_stage_free(g);
}

/* The parts of base that no stored manifest names, off it and deleted. */
void core_stage_drop_own_parts(struct core_stage *g)
{
	struct core_batch *own = core_batch_new(core_frontier_at(0), core_frontier_empty());

	while (g->base->part_count > g->stored_parts) {
		struct core_part copy = g->base->parts[g->base->part_count - 1];

		copy.inline_data = NULL;
		if (own != NULL && !g->base->parts[g->base->part_count - 1].loose &&
		    !core_batch_push(own, &copy, true))
			core_part_fini(&copy);
		core_batch_pop(g->base);
	}
	/* After an unknown outcome some of them may be named after all. */
	if (own != NULL && core_uuid_eq(g->maybe, (struct core_uuid){0}))
		core_batch_delete_blobs(&g->shard->home, own);
	core_batch_unref(own);
}

/* The entry is not ours any more: nothing of the stage is for anybody. */
static void give_up(struct core_stage *g)
{
	core_builder_free(g->builder);
	g->builder = NULL;
	core_stage_drop_own_parts(g);
	g->rest_len = 0;
	g->dirty = false;
	g->measured = false;
	g->taken = !atomic_load(&g->removed);
}

/* The last part's rows, if it is loose, go to the new builder, to be put together with those that come. A
 * part that was rewritten (one that was made transmittable) becomes one that says the same without. */
static enum kv_rc absorb_tail(struct core_stage *g, struct kv_err *err)
{
	size_t last = g->base->part_count - 1;
	struct core_part_reader *reader;
	struct core_update u;
	uint64_t text = 0;
	bool end = false;
	enum kv_rc rc;

	if (g->base->part_count == 0 || !g->base->parts[last].loose)
		return KV_OK;
	rc = core_part_open(&g->shard->home, &g->base->parts[last], &reader, err);
	if (rc != KV_OK)
		return rc;
	while (rc == KV_OK && !end) {
		rc = core_part_next(reader, &u, &end, err);
		if (rc != KV_OK || end)
			break;
		if (u.time < g->base->parts[last].rewrite_ts)
			u.time = g->base->parts[last].rewrite_ts;
		text += core_row_text_len(&u);
		rc = core_builder_add(g->builder, &u, false, err);
	}
	core_part_close(reader);
	if (rc != KV_OK)
		return rc;
	core_batch_pop(g->base);
	g->base_text -= text;
	return KV_OK;
}

enum kv_rc core_stage_start_builder(struct core_stage *g, struct kv_err *err)
{
	struct core_builder_config config = {.loose_max = TAIL_MAX, .loose_tail = true, .patient = true};
	enum kv_rc rc;

	if (g->builder != NULL)
		return KV_OK;
	rc = core_builder_new(&g->shard->home, config, &g->builder, err);
	if (rc == KV_OK)
		rc = absorb_tail(g, err);
	if (rc != KV_OK) {
		core_builder_free(g->builder);
		g->builder = NULL;
	}
	return rc;
}

/* The builder's rows become parts of base. After a failure they are lost, but not to a full store. */
static enum kv_rc gather(struct core_stage *g, struct kv_err *err)
{
	struct core_batch *made = NULL;
	size_t run = 0;
	enum kv_rc rc;

	if (g->builder == NULL)
		return KV_OK;
	rc = core_surely_not(
		core_builder_finish(g->builder, core_frontier_at(0), core_frontier_empty(), &made, err), err);
	if (core_builder_keeps(rc))
		return rc;
	for (size_t i = 0; rc == KV_OK && i < made->part_count; i++) {
		bool first = run < made->run_count && made->run_starts[run] == i;
		struct core_part part = made->parts[i];
		uint64_t text = 0;

		run += first;
		if (core_part_text_len(&part, core_frontier_at(0), core_frontier_empty(), &text))
			g->base_text += text;      /* always: a part that was just made is not rewritten */
		made->parts[i].inline_data = NULL; /* moved */
		if (!core_batch_push(g->base, &part, first)) {
			core_part_fini(&part);
			rc = kv_fail_rc(err, KV_NOMEM);
		}
	}
	core_batch_unref(made);
	core_builder_free(g->builder);
	g->builder = NULL;
	g->measured = false;
	g->lost = g->lost || rc != KV_OK;
	return rc;
}

uint64_t core_stage_size_locked(struct core_stage *g)
{
	struct core_staged entry = {.has_bounds = g->has_bounds, .lower = g->lower, .upper = g->upper};
	char line[CORE_BOUNDS_LINE_LEN];

	if (!g->measured)
		g->builder_text = g->builder != NULL ? core_builder_text_len(g->builder) : 0;
	g->measured = true;
	uint64_t size =
		strlen(core_staged_bounds_line(&entry, line)) + g->base_text + g->builder_text + g->rest_len;
	atomic_store(&g->seen_size, size);
	return size;
}

size_t core_stage_blobs(const struct core_stage *g)
{
	size_t count = g->base->part_count;

	return count != 0 && g->base->parts[count - 1].loose ? count - 1 : count;
}

/* --- flushing -------------------------------------------------------------------------------------- */

struct stage_change {
	struct core_change change;
	struct core_uuid *was;
	struct core_uuid maybe;
	const struct core_staged *now;
};

static enum kv_rc run_stage(struct core_change *c, const struct core_state *s, struct core_diff *d,
			    bool *skip, struct kv_err *err)
{
	struct stage_change *g = (struct stage_change *)c;
	const struct core_staged *there = core_state_staged_by_id(s, g->now->id);

	*skip = false;
	if (there != NULL && core_uuid_eq(there->manifest, g->maybe))
		*g->was = g->maybe; /* that one had landed */
	return core_do_stage(s, *g->was, g->now, d, err);
}

enum kv_rc core_staged_store(struct core_shard *s, struct core_uuid *was, struct core_uuid maybe,
			     const struct core_staged *now, const struct core_buf *manifest,
			     struct kv_err *err)
{
	/* Without a manifest it gives space back, or says that rows were lost: both must work on a full disk.
	 */
	enum kv_sync sync = manifest->len != 0 ? KV_SYNC : KV_RELEASE;
	struct stage_change c = {
		.change = {.run = run_stage, .sync = sync}, .was = was, .maybe = maybe, .now = now};
	char key[CORE_BLOB_KEY_LEN];
	struct kv_blob_put put = {
		.key = core_manifest_key(s->home.shard, now, key),
		.data = manifest->data,
		.len = manifest->len,
	};
	enum kv_rc rc = KV_OK;

	if (manifest->len > CORE_LOOSE_MAX) {
		rc = kv_blob_set(s->home.blobs, put.key, put.data, put.len, err);
		if (rc == KV_UNKNOWN)
			rc = kv_fail(err, KV_UNREACHABLE, "the store failed to take a manifest");
	} else if (manifest->len != 0) {
		c.change.blobs = &put;
		c.change.blob_count = 1;
	}
	if (rc == KV_OK)
		rc = core_machine_commit(s, &c.change, err);
	if (rc != KV_OK && rc != KV_UNKNOWN && manifest->len != 0)
		core_staged_delete_manifest(s, now);
	return rc;
}

/* The entry as it is to be, with its manifest's bytes. */
static enum kv_rc describe(struct core_stage *g, struct core_staged *now, struct core_buf *manifest,
			   struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	*manifest = (struct core_buf){0};
	*now = (struct core_staged){
		.id = g->id,
		.manifest = core_uuid_new(),
		.instance = g->shard->home.instance,
		.rows = g->rows,
		.size = core_stage_size_locked(g),
		.has_bounds = g->has_bounds,
		.lower = g->lower,
		.upper = g->upper,
		.unfinished = g->rest_len != 0,
		.changed_ms = core_now_us(g->shard->engine) / 1000,
	};
	if (g->base->part_count != 0 || g->rest_len != 0)
		rc = core_manifest_encode(g->shard->home.shard, now->manifest, g->base, g->rest, g->rest_len,
					  manifest, err);
	now->manifest_bytes = manifest->len;
	return rc;
}

/* Say in the entry that rows were lost. */
enum kv_rc core_stage_mark_lost(struct core_stage *g, struct kv_err *err)
{
	struct core_staged now = g->entry;
	struct core_buf none = {0};
	enum kv_rc rc = KV_OK;

	now.lost = true;
	if (!g->entry.lost)
		rc = core_staged_store(g->shard, &g->entry.manifest, g->maybe, &now, &none, err);
	if (rc == KV_OK)
		g->entry.lost = true;
	return rc == KV_NO_BATCH || rc == KV_NO_SHARD || rc == KV_SHARD_REPLACED || rc == KV_BATCH_TAKEN
		       ? KV_OK
		       : rc;
}

enum kv_rc core_stage_check(const struct core_stage *g, struct kv_err *err)
{
	if (atomic_load(&g->sealed) || g->taken)
		return kv_fail_rc(err, KV_BATCH_TAKEN);
	return g->lost ? kv_fail_rc(err, KV_BATCH_LOST) : KV_OK;
}

static void stored(struct core_stage *g, const struct core_staged *now)
{
	bool sure = core_uuid_eq(g->maybe, (struct core_uuid){0});

	if (sure)
		core_staged_delete_manifest(g->shard, &g->entry);
	if (sure && g->cleared != NULL)
		core_staged_doom(g->shard, g->id, g->cleared);
	core_batch_unref(g->cleared);
	g->cleared = NULL;
	g->entry = *now;
	g->maybe = (struct core_uuid){0};
	g->stored_parts = core_stage_blobs(g);
	g->dirty = false;
}

/* Have the entry say all that the stage has. */
enum kv_rc core_stage_flush_locked(struct core_stage *g, struct kv_err *err)
{
	struct core_buf manifest;
	struct core_staged now;
	enum kv_rc rc;

	if (g->lost)
		return kv_fail_rc(err, KV_BATCH_LOST);
	if (!g->dirty)
		return KV_OK;
	if (atomic_load(&g->removed)) {
		give_up(g);
		return KV_OK;
	}
	rc = gather(g, err);
	if (rc != KV_OK)
		return rc;
	rc = describe(g, &now, &manifest, err);
	if (rc == KV_OK)
		rc = core_staged_store(g->shard, &g->entry.manifest, g->maybe, &now, &manifest, err);
	core_buf_fini(&manifest);
	if (rc == KV_OK)
		stored(g, &now);
	else if (rc == KV_UNKNOWN)
		g->maybe = now.manifest;
	else if (rc == KV_NO_BATCH || rc == KV_BATCH_TAKEN || rc == KV_NO_SHARD || rc == KV_SHARD_REPLACED)
		give_up(g);
	return atomic_load(&g->removed) && rc == KV_NO_BATCH ? KV_OK : rc;
}

enum kv_rc core_stage_seal(struct core_shard *s, const char *name, struct kv_err *err)
{
	const struct core_staged *entry;
	struct core_stage *g = NULL;
	enum kv_rc rc;

	pthread_mutex_lock(&s->mu);
	entry = core_state_staged(&s->state, name);
	if (entry != NULL)
		g = core_stage_locked(s, entry->id);
	if (g != NULL)
		g->refs++;
	pthread_mutex_unlock(&s->mu);
	if (g == NULL)
		return KV_OK;
	pthread_mutex_lock(&g->mu);
	rc = core_stage_flush_locked(g, err);
	if (rc == KV_OK)
		atomic_store(&g->sealed, true);
	pthread_mutex_unlock(&g->mu);
	core_stage_put(g);
	return rc;
}

bool core_stage_is_writing(struct core_shard *s, struct core_uuid id)
{
	struct core_stage *g;
	bool writing;

	pthread_mutex_lock(&s->mu);
	g = core_stage_locked(s, id);
	writing = g != NULL && !atomic_load(&g->sealed);
	pthread_mutex_unlock(&s->mu);
	return writing;
}

void core_stage_removed(struct core_shard *s, struct core_uuid id)
{
	struct core_stage *g = core_stage_get(s, id);
	bool kept;

	if (g == NULL)
		return;
	atomic_store(&g->removed, true);
	pthread_mutex_lock(&s->mu);
	kept = !g->is_open; /* for its loss, which is nobody's any more */
	if (kept) {
		core_stage_delist_locked(g);
		g->refs--;
	}
	pthread_mutex_unlock(&s->mu);
	core_stage_put(g);
	if (kept)
		core_shard_close(s);
}

void core_stages_let_go(struct core_shard *s)
{
	struct core_stage *g;
	struct core_uuid id;

	do {
		pthread_mutex_lock(&s->mu);
		for (g = s->stages; g != NULL && g->is_open; g = g->next)
			;
		if (g != NULL)
			id = g->id;
		pthread_mutex_unlock(&s->mu);
		if (g != NULL)
			core_stage_removed(s, id);
	} while (g != NULL);
}

/* The lock, but not for long: who only asks must not hang for a writer that waits for the store. */
static bool lock_soon(struct core_stage *g)
{
	struct timespec until;

	/* Not by the monotonic clock: pthread_mutex_clocklock is a lock that the thread sanitizer does not
	 * see. */
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += DESCRIBE_WAIT_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	return pthread_mutex_timedlock(&g->mu, &until) == 0;
}

void core_stage_describe(struct core_shard *s, struct core_staged *entry)
{
	struct core_stage *g = core_stage_get(s, entry->id);
	uint64_t seen;

	if (g == NULL)
		return;
	if (!lock_soon(g)) { /* a write is under way; what was counted before it is as good an answer */
		seen = atomic_load(&g->seen_size);
		entry->size = seen > entry->size ? seen : entry->size;
		core_stage_put(g);
		return;
	}
	if (g->base != NULL && !g->taken) {
		entry->size = core_stage_size_locked(g);
		entry->rows = g->rows;
		entry->has_bounds = g->has_bounds;
		entry->lower = g->lower;
		entry->upper = g->upper;
		entry->unfinished = g->rest_len != 0;
		entry->lost = g->lost;
		if (g->dirty)
			entry->changed_ms = core_now_us(s->engine) / 1000;
	}
	pthread_mutex_unlock(&g->mu);
	core_stage_put(g);
}
