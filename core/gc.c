/*
 * gc.c - deleting what a shard does not need any more: blobs of parts that were replaced, old versions, old
 * rollups.
 *
 * What has been replaced stands in the state (core_dead) and in memory, as the batches that left it
 * (core_shard.held). A collection goes through these steps:
 *
 *  1. the dead parts that no lease (core_lease.seqno) and nobody here reads
 *  2. delete their blobs
 *  3. forget the versions before the newest rollup
 *  4. delete the rollups before it
 *  5. a version that forgets those parts and rollups
 *
 * Wherever it breaks off, the state still names what may be left, and the next collection deletes it again,
 * which does no harm: parts have ids that are never used twice, and a dead one comes back into no state.
 *
 * 1. A version that replaces parts, and one that brings a rollup, is synced before it is seen (compaction.c,
 *    life.c): so no crash brings back a state that names what was deleted. Step 5 may ride.
 * 2. A batch that left the state is held while somebody has a reference besides; only those who have one can
 *    take another. Staged batches may name the same parts: those who read them are asked too.
 * 3. On a store that others write to, one rollup more is kept, with the versions from it on: who has an
 * unknown outcome looks for it there.
 */
#include <stdlib.h>
#include <string.h>

#include "core/stage_impl.h"
#include "core/upkeep_impl.h"

enum { COLLECT_MAX = 1024 }; /* parts in one go, and so in one version */

/* --- what is held here ----------------------------------------------------------------------------- */

static bool has_blobs(const struct core_batch *b)
{
	for (size_t i = 0; i < b->part_count; i++)
		if (b->parts[i].inline_data == NULL)
			return true;
	return false;
}

enum kv_rc core_held_reserve(struct core_shard *s, size_t count, struct kv_err *err)
{
	size_t cap = s->held_cap != 0 ? s->held_cap : 8;
	struct core_held *grown;

	if (s->held_count + count <= s->held_cap)
		return KV_OK;
	while (cap < s->held_count + count)
		cap *= 2;
	grown = reallocarray(s->held, cap, sizeof *grown);
	if (grown == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	s->held = grown;
	s->held_cap = cap;
	return KV_OK;
}

void core_held_add(struct core_shard *s, struct core_batch *b, uint64_t seqno)
{
	if (has_blobs(b))
		s->held[s->held_count++] = (struct core_held){.batch = core_batch_ref(b), .seqno = seqno};
}

/* Let go of those that nobody else holds. Under mu. */
static void prune_held(struct core_shard *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->held_count; i++) {
		if (core_batch_is_shared(s->held[i].batch))
			s->held[kept++] = s->held[i];
		else
			core_batch_unref(s->held[i].batch);
	}
	s->held_count = kept;
	if (kept == 0) {
		free(s->held);
		s->held = NULL;
		s->held_cap = 0;
	}
}

uint64_t core_held_seqno(struct core_shard *s)
{
	uint64_t least = core_staged_seqno(s);

	prune_held(s);
	for (size_t i = 0; i < s->held_count; i++)
		if (s->held[i].seqno - 1 < least)
			least = s->held[i].seqno - 1;
	return least;
}

void core_held_end(struct core_shard *s)
{
	for (size_t i = 0; i < s->held_count; i++)
		core_batch_unref(s->held[i].batch);
	free(s->held);
	s->held = NULL;
	s->held_count = 0;
	s->held_cap = 0;
}

/* --- what can go ----------------------------------------------------------------------------------- */

struct ids {
	struct core_part_id *v;
	size_t count;
	size_t cap;
};

static bool ids_add(struct ids *ids, const struct core_batch *b)
{
	for (size_t i = 0; i < b->part_count; i++) {
		if (ids->count == ids->cap) {
			size_t cap = ids->cap != 0 ? 2 * ids->cap : 64;
			struct core_part_id *grown = reallocarray(ids->v, cap, sizeof *grown);

			if (grown == NULL)
				return false;
			ids->v = grown;
			ids->cap = cap;
		}
		ids->v[ids->count++] = b->parts[i].id;
	}
	return true;
}

static int cmp_id(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct core_part_id));
}

static bool add_pinned(void *arg, const struct core_batch *b)
{
	return ids_add(arg, b);
}

/* The parts that somebody here may read and the state does not name any more, sorted. Under mu. */
static bool pinned_ids(struct core_shard *s, struct ids *ids)
{
	bool ok = true;

	prune_held(s);
	for (size_t i = 0; i < s->held_count && ok; i++)
		ok = ids_add(ids, s->held[i].batch);
	ok = ok && core_staged_each_pinned(s, add_pinned, ids);
	if (ids->count != 0)
		qsort(ids->v, ids->count, sizeof *ids->v, cmp_id);
	return ok;
}

/* Versions up to it are needed by nobody elsewhere. Under mu. */
static uint64_t seqno_since(const struct core_shard *s)
{
	uint64_t least = s->state.seqno;

	for (size_t i = 0; i < s->state.lease_count; i++)
		if (s->state.leases[i].seqno < least)
			least = s->state.leases[i].seqno;
	return least;
}

struct collection {
	struct core_dead *dead; /* sorted by id */
	size_t dead_count;
	size_t kept;             /* dead parts that must stay for now */
	uint64_t versions_from;  /* those before are not needed; 0: all stay */
	struct core_rollup *old; /* before it */
	size_t old_count;
};

static void collection_fini(struct collection *c)
{
	free(c->dead);
	free(c->old);
}

/* The rollup before which nothing is needed. Under mu. */
static uint64_t oldest_needed(const struct core_shard *s)
{
	size_t keep = s->engine->traits.sole_owner ? 1 : 2;

	return s->state.rollup_count < keep ? 0 : s->state.rollups[s->state.rollup_count - keep].seqno;
}

static bool fill_dead(struct core_shard *s, struct collection *c)
{
	const struct core_state *st = &s->state;
	uint64_t since = seqno_since(s);
	struct ids pinned = {0};
	bool ok = pinned_ids(s, &pinned), opening = core_staged_is_opening(s);

	for (size_t i = 0; i < st->dead_count && ok; i++) {
		bool needed = opening || st->dead[i].seqno > since ||
			      (pinned.count != 0 && bsearch(&st->dead[i].id, pinned.v, pinned.count,
							    sizeof *pinned.v, cmp_id) != NULL);

		if (needed)
			c->kept++;
		else if (c->dead_count < COLLECT_MAX)
			c->dead[c->dead_count++] = st->dead[i];
	}
	free(pinned.v);
	return ok;
}

/* Step 1. Under mu. */
static bool collect_locked(struct core_shard *s, struct collection *c)
{
	const struct core_state *st = &s->state;

	*c = (struct collection){.versions_from = oldest_needed(s)};
	c->dead = calloc(st->dead_count + 1, sizeof *c->dead);
	c->old = calloc(st->rollup_count + 1, sizeof *c->old);
	if (c->dead == NULL || c->old == NULL)
		return false;
	for (size_t i = 0; i < st->rollup_count && st->rollups[i].seqno < c->versions_from; i++)
		c->old[c->old_count++] = st->rollups[i];
	return fill_dead(s, c);
}

bool core_gc_is_due(const struct core_shard *s)
{
	return s->loaded && !s->gone && !s->state.tombstone &&
	       (s->state.dead_count != 0 || s->state.rollup_count > (s->engine->traits.sole_owner ? 1 : 2));
}

/* --- deleting -------------------------------------------------------------------------------------- */

/* Step 2. */
static enum kv_rc delete_dead(struct core_shard *s, const struct collection *c,
			      struct core_upkeep_result *result, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < c->dead_count && rc == KV_OK; i++) {
		struct core_part part = {.id = c->dead[i].id, .instance = c->dead[i].instance};
		char key[CORE_BLOB_KEY_LEN];
		uint64_t size = 0;
		bool existed = false;

		rc = kv_blob_delete(s->home.blobs, core_part_key(s->home.shard, &part, key), &existed, &size,
				    err);
		if (rc == KV_OK && existed) {
			result->blobs++;
			result->blob_bytes += size;
			core_count(s->engine, CORE_M_GC_BLOBS, 1);
			core_count(s->engine, CORE_M_GC_BYTES, size);
		}
	}
	return rc;
}

/* Steps 3 and 4. */
static enum kv_rc delete_versions(struct core_shard *s, const struct collection *c,
				  struct core_upkeep_result *result, struct kv_err *err)
{
	char key[CORE_ID_LEN];
	uint64_t removed = 0;
	enum kv_rc rc = KV_OK;

	if (c->old_count == 0)
		return KV_OK;
	rc = kv_consensus_truncate(kv_store_consensus(s->engine->store), core_shard_key(s, key),
				   c->versions_from, &removed, err);
	if (rc == KV_NOTFOUND || rc == KV_RANGE) /* the shard is gone, or made anew */
		return kv_fail_rc(err, KV_NO_SHARD);
	for (size_t i = 0; i < c->old_count && rc == KV_OK; i++) {
		bool existed = false;

		rc = kv_blob_delete(s->home.blobs, c->old[i].key, &existed, NULL, err);
		result->rollups += existed;
		core_count(s->engine, CORE_M_GC_ROLLUPS, existed);
	}
	result->versions += removed;
	core_count(s->engine, CORE_M_GC_VERSIONS, removed);
	return rc;
}

struct collect_change {
	struct core_change change;
	const struct core_part_id *gone;
	size_t count;
	uint64_t rollups_from;
};

static enum kv_rc run_collect(struct core_change *change, const struct core_state *s, struct core_diff *d,
			      bool *skip, struct kv_err *err)
{
	struct collect_change *c = (struct collect_change *)change;
	bool changed;
	enum kv_rc rc = core_do_collect(s, c->gone, c->count, c->rollups_from, d, &changed, err);

	*skip = rc == KV_OK && !changed;
	return rc;
}

/* Step 5. */
static enum kv_rc forget(struct core_shard *s, const struct collection *c, struct kv_err *err)
{
	struct collect_change change = {
		.change = {.run = run_collect, .sync = KV_RIDE},
		.count = c->dead_count,
		.rollups_from = c->versions_from,
	};
	struct core_part_id *gone = calloc(c->dead_count + 1, sizeof *gone);
	enum kv_rc rc;

	if (gone == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	for (size_t i = 0; i < c->dead_count; i++)
		gone[i] = c->dead[i].id;
	change.gone = gone;
	rc = core_machine_commit(s, &change.change, err);
	if (rc == KV_NOSPACE) { /* what gives space back may use the store's reserve, and is synced then */
		change.change.sync = KV_RELEASE;
		rc = core_machine_commit(s, &change.change, err);
	}
	free(gone);
	return rc;
}

/* One go. *more: parts were left for another. */
static enum kv_rc collect(struct core_shard *s, struct core_upkeep_result *result, bool *more,
			  struct kv_err *err)
{
	struct collection c = {0};
	enum kv_rc rc = core_machine_load(s, true, err);

	*more = false;
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	if (s->gone || s->state.tombstone)
		rc = kv_fail(err, KV_NO_SHARD, "the shard was removed");
	else if (!collect_locked(s, &c))
		rc = kv_fail_rc(err, KV_NOMEM);
	pthread_mutex_unlock(&s->mu);
	if (rc == KV_OK && c.dead_count != 0)                        /* for the version that forgets them */
		qsort(c.dead, c.dead_count, sizeof *c.dead, cmp_id); /* an id is what each begins with */
	if (rc == KV_OK)
		rc = delete_dead(s, &c, result, err);
	if (rc == KV_OK)
		rc = delete_versions(s, &c, result, err);
	if (rc == KV_OK && (c.dead_count != 0 || c.old_count != 0))
		rc = forget(s, &c, err);
	result->kept_blobs = c.kept;
	*more = rc == KV_OK && c.dead_count == COLLECT_MAX;
	collection_fini(&c);
	return rc;
}

enum kv_rc core_gc(struct core_shard *s, struct core_upkeep_result *result, struct kv_err *err)
{
	uint64_t began = core_ticks_us();
	enum kv_rc rc = KV_OK;
	bool more = true;

	while (rc == KV_OK && more) {
		rc = collect(s, result, &more, err);
		if (rc == KV_OK && more && core_upkeep_stops(s->engine))
			rc = kv_fail_rc(err, KV_SHUTDOWN);
	}
	core_count(s->engine, rc == KV_OK ? CORE_M_GC_RUNS : CORE_M_GC_FAILED, 1);
	core_timed(s->engine, CORE_T_GC, began);
	return rc;
}
