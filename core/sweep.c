/*
 * sweep.c - blobs that nobody names: what crashes, failed commits and forgotten deletions have left.
 *
 * A blob's key carries the instance that wrote it. One of ours may be about to be named; one of an instance
 * that is over is named now or never again, except that parts move from a staged batch to a committed one,
 * which is why both are looked at in one copy of the state; those that are loose in a manifest become blobs
 * as they move, and count as named before. With a sole owner every other instance is over. Elsewhere nobody
 * knows, and nothing is swept.
 *
 * Keys: <shard>/<instance>/<part>, <shard>/<instance>/<manifest>, <shard>/v<seqno>/<instance>-<try>.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/manifest.h"
#include "core/stage_impl.h"
#include "core/upkeep_impl.h"

enum { PAGE = 256, VISIT_PAGE = 4096, TRIES = 5 };

/* --- what is named --------------------------------------------------------------------------------- */

struct names {
	char (*v)[CORE_BLOB_KEY_LEN];
	size_t count;
	size_t cap;
};

/* A place for one more; NULL: out of memory. */
static char *names_add(struct names *n)
{
	if (n->count == n->cap) {
		size_t cap = n->cap != 0 ? 2 * n->cap : 64;
		char(*grown)[CORE_BLOB_KEY_LEN] = reallocarray(n->v, cap, sizeof *grown);

		if (grown == NULL)
			return NULL;
		n->v = grown;
		n->cap = cap;
	}
	return n->v[n->count++];
}

/* Loose parts too: a commit makes blobs of them at any moment, under the instance that staged them. */
static bool name_parts(struct core_shard_id shard, const struct core_batch *b, struct names *n)
{
	for (size_t i = 0; i < b->part_count; i++) {
		bool is_blob = b->parts[i].inline_data == NULL || b->parts[i].loose;
		char *key = is_blob ? names_add(n) : NULL;

		if (key != NULL)
			core_part_key(shard, &b->parts[i], key);
		else if (is_blob)
			return false;
	}
	return true;
}

/* A staged batch names its manifest and what that names. KV_NOTFOUND: it was committed or removed meanwhile.
 */
static enum kv_rc name_staged(struct core_shard *s, const struct core_staged *entry, struct names *n,
			      struct kv_err *err)
{
	struct core_manifest manifest;
	char *key = names_add(n);
	enum kv_rc rc = key != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);

	if (rc == KV_OK) {
		core_manifest_key(s->home.shard, entry, key);
		rc = core_manifest_read(&s->home, entry, &manifest, err);
	}
	if (rc != KV_OK)
		return rc;
	if (!name_parts(s->home.shard, manifest.batch, n))
		rc = kv_fail_rc(err, KV_NOMEM);
	core_manifest_fini(&manifest);
	return rc;
}

static enum kv_rc name_state(struct core_shard *s, const struct core_state *state, struct names *n,
			     struct kv_err *err)
{
	bool ok = true;
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < state->batch_count && ok; i++)
		ok = name_parts(s->home.shard, state->batches[i], n);
	for (size_t i = 0; i < state->dead_count && ok; i++) {
		struct core_part part = {.id = state->dead[i].id, .instance = state->dead[i].instance};
		char *key = names_add(n);

		ok = key != NULL;
		if (ok)
			core_part_key(s->home.shard, &part, key);
	}
	for (size_t i = 0; i < state->rollup_count && ok; i++) {
		char *key = names_add(n);

		ok = key != NULL;
		if (ok)
			memcpy(key, state->rollups[i].key, CORE_BLOB_KEY_LEN);
	}
	if (!ok)
		return kv_fail_rc(err, KV_NOMEM);
	for (size_t i = 0; i < state->staged_count && rc == KV_OK; i++)
		rc = name_staged(s, &state->staged[i], n, err);
	return rc;
}

struct naming {
	struct core_shard_id shard;
	struct names *names;
};

static bool add_pinned(void *arg, const struct core_batch *b)
{
	const struct naming *naming = arg;

	return name_parts(naming->shard, b, naming->names);
}

static int cmp_key(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* What is read here and stands in no state any more: its last reader deletes it, or a collection.
 * KV_NOTFOUND: somebody is about to read, and has not said what. Under mu. */
static enum kv_rc name_pinned(struct core_shard *s, struct names *n, struct kv_err *err)
{
	struct naming naming = {.shard = s->home.shard, .names = n};
	bool ok = true;

	if (core_staged_is_opening(s))
		return kv_fail_rc(err, KV_NOTFOUND);
	for (size_t i = 0; i < s->held_count && ok; i++)
		ok = name_parts(s->home.shard, s->held[i].batch, n);
	return ok && core_staged_each_pinned(s, add_pinned, &naming) ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

/* All keys that the shard names, or that are read here, sorted. The state first: what leaves it after that is
 * among what is read, or is deleted by its last reader. */
static enum kv_rc name_all(struct core_shard *s, struct names *n, struct kv_err *err)
{
	enum kv_rc rc = KV_NOTFOUND;

	for (unsigned tries = 0; rc == KV_NOTFOUND && tries < TRIES; tries++) {
		struct core_state state;

		n->count = 0;
		rc = core_shard_state(s, &state, err);
		if (rc != KV_OK)
			return rc;
		rc = state.tombstone ? kv_fail_rc(err, KV_NO_SHARD) : name_state(s, &state, n, err);
		core_state_fini(&state);
		if (rc != KV_OK)
			continue;
		pthread_mutex_lock(&s->mu);
		rc = name_pinned(s, n, err);
		pthread_mutex_unlock(&s->mu);
	}
	if (rc == KV_NOTFOUND)
		rc = kv_fail(err, KV_CORRUPT, "staged batches cannot be read, so nothing is swept");
	if (rc == KV_OK && n->count != 0)
		qsort(n->v, n->count, sizeof *n->v, cmp_key);
	return rc;
}

/* --- sweeping -------------------------------------------------------------------------------------- */

/* Whether the blob was written by an instance that is over. What has another form is none of ours to delete.
 */
static bool is_orphan(const struct core_engine *e, const char *key)
{
	const char *second = strchr(key, '/');
	const char *third = second != NULL ? strchr(second + 1, '/') : NULL;
	struct core_uuid id;
	const char *from;
	size_t len;

	if (third == NULL)
		return false;
	from = second[1] == 'v' ? third + 1 : second + 1;
	len = second[1] == 'v' ? strnlen(from, CORE_ID_LEN - 1) : (size_t)(third - from);
	return core_uuid_parse('n', from, len, &id) && !core_uuid_eq(id, e->instance.u);
}

/* Delete the blobs under prefix that nobody names; n NULL: whatever is there. */
static enum kv_rc sweep(struct core_engine *e, const char *prefix, const struct names *n,
			struct core_upkeep_result *result, struct kv_err *err)
{
	struct kv_blobs *blobs = kv_store_blobs(e->store);
	char after[KV_KEY_MAX + 1] = "";
	size_t count = PAGE;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count == PAGE) {
		struct kv_blob_list list;

		if (core_upkeep_stops(e))
			return kv_fail_rc(err, KV_SHUTDOWN);
		rc = kv_blob_list(blobs, prefix, after, PAGE, &list, err);
		count = list.count;
		for (size_t i = 0; i < list.count && rc == KV_OK; i++) {
			const char *key = list.e[i].key;
			bool existed = false;

			snprintf(after, sizeof after, "%s", key);
			if (!is_orphan(e, key) ||
			    (n != NULL && n->count != 0 &&
			     bsearch(key, n->v, n->count, sizeof *n->v, cmp_key) != NULL))
				continue;
			rc = kv_blob_delete(blobs, key, &existed, NULL, err);
			result->blobs += existed;
			result->blob_bytes += existed ? list.e[i].size : 0;
			core_count(e, CORE_M_SWEPT_BLOBS, existed);
			core_count(e, CORE_M_SWEPT_BYTES, existed ? list.e[i].size : 0);
		}
		kv_blob_list_free(&list);
	}
	return rc;
}

enum kv_rc core_sweep_shard(struct core_shard *s, struct core_upkeep_result *result, struct kv_err *err)
{
	char key[CORE_ID_LEN], prefix[CORE_ID_LEN + 1];
	struct names names = {0};
	enum kv_rc rc;

	if (!s->engine->traits.sole_owner || core_is_dying(s->engine, s->home.shard))
		return KV_OK; /* an earlier shard under this id is still read; its end takes what it has */
	rc = name_all(s, &names, err);
	snprintf(prefix, sizeof prefix, "%s/", core_shard_key(s, key));
	if (rc == KV_OK)
		rc = sweep(s->engine, prefix, &names, result, err);
	free(names.v);
	core_count(s->engine, CORE_M_SWEEPS, 1);
	return rc;
}

/* Blobs under an id that has no shard: those of a making that was cut short. */
static enum kv_rc sweep_nobody(struct core_engine *e, struct core_shard_id id, struct kv_err *err)
{
	struct core_upkeep_result result = {0};
	char key[CORE_ID_LEN], prefix[CORE_ID_LEN + 1];
	struct kv_version head;
	enum kv_rc rc;

	snprintf(prefix, sizeof prefix, "%s/", core_uuid_format('s', id.u, key));
	/* Under the lock that makes shards: blobs of the new one would be ours, and stay, but its removal may
	 * be under way. */
	pthread_mutex_lock(&e->make_mu);
	rc = kv_consensus_head(kv_store_consensus(e->store), key, &head, err);
	if (rc == KV_OK)
		free(head.data);
	else if (rc == KV_NOTFOUND)
		rc = sweep(e, prefix, NULL, &result, err);
	pthread_mutex_unlock(&e->make_mu);
	return rc;
}

void core_visit_fini(struct core_visit *v)
{
	free(v->ids);
	*v = (struct core_visit){.done = true};
}

/* The ids that the next page of blobs begins with. */
static enum kv_rc next_page(struct core_engine *e, struct core_visit *v, struct kv_err *err)
{
	struct kv_blob_list list;
	enum kv_rc rc = kv_blob_list(kv_store_blobs(e->store), "", v->after, VISIT_PAGE, &list, err);

	v->at = 0;
	v->count = 0;
	if (rc != KV_OK)
		return rc;
	v->done = list.count == 0;
	free(v->ids);
	v->ids = calloc(list.count + 1, sizeof *v->ids);
	if (v->ids == NULL)
		rc = kv_fail_rc(err, KV_NOMEM);
	for (size_t i = 0; i < list.count && rc == KV_OK; i++) {
		const char *slash = strchr(list.e[i].key, '/');
		size_t len = slash != NULL ? (size_t)(slash - list.e[i].key) : strlen(list.e[i].key);
		struct core_uuid id;

		/* '0' comes right behind '/': the next page begins behind all of this one. */
		snprintf(v->after, sizeof v->after, "%.*s0", (int)len, list.e[i].key);
		if (core_uuid_parse('s', list.e[i].key, len, &id) &&
		    (v->count == 0 || !core_uuid_eq(v->ids[v->count - 1].u, id)))
			v->ids[v->count++].u = id;
	}
	kv_blob_list_free(&list);
	return rc;
}

enum kv_rc core_sweep_next(struct core_engine *e, struct core_visit *v, struct core_shard **visited,
			   struct kv_err *err)
{
	struct core_upkeep_result result = {0};
	struct core_shard_id id;
	enum kv_rc rc = KV_OK;

	*visited = NULL;
	if (v->at == v->count)
		return next_page(e, v, err);
	id = v->ids[v->at];
	rc = core_shard_visit(e, id, visited, err);
	if (rc == KV_OK)
		rc = core_sweep_shard(*visited, &result, err);
	else if (rc == KV_NO_SHARD)
		rc = sweep_nobody(e, id, err);
	v->tries++;
	if (rc == KV_OK || rc == KV_NO_SHARD || rc == KV_SHARD_REPLACED || v->tries == TRIES) {
		v->at++;
		v->tries = 0;
	}
	return rc;
}
