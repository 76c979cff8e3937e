/*
 * snapshot.c - what a shard holds as of one time, as a sorted stream.
 *
 * Opening takes references on the batches that can hold times up to the as-of
 * one, in the same moment in which since and upper are checked; from then on the
 * content is fixed, whatever is appended, merged or removed.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "core/engine_impl.h"
#include "core/merge.h"

struct core_snapshot {
	struct core_shard *shard; /* a reference: its blobs stay while it lives */
	struct core_batch **batches;
	size_t count;
	uint64_t time;
	struct core_merge *merge;
	struct core_need need; /* where others may delete what is read here */
	bool needing;
};

/* The checks and the time, on the state. Under mu. */
static enum kv_rc resolve(const struct core_state *s, struct core_as_of as_of, uint64_t *time, bool *nothing,
			  struct kv_err *err)
{
	char since[CORE_FRONTIER_LEN];

	*nothing = false;
	*time = as_of.time;
	if (as_of.latest) {
		*nothing = !s->upper.empty && s->upper.t == 0;
		*time = s->upper.empty ? UINT64_MAX : s->upper.t - 1;
		if (*nothing)
			return KV_OK;
	}
	if (!core_frontier_covers(s->since, *time)) {
		core_frontier_format(s->since, since);
		kv_fail(err, KV_COMPACTED, "time %" PRIu64 " is below since, %s: its history was given up",
			*time, since);
		kv_detail(err, "time=%" PRIu64 " since=%s", *time, since);
		return KV_COMPACTED;
	}
	if (core_frontier_covers(s->upper, *time))
		return kv_fail(err, KV_WOULD_BLOCK, "time %" PRIu64 " is not complete yet", *time);
	return KV_OK;
}

/* References on the batches that begin at or below time. Under mu. */
static bool pin(struct core_snapshot *n, const struct core_state *s)
{
	n->batches = calloc(s->batch_count + 1, sizeof(struct core_batch *));
	if (n->batches == NULL)
		return false;
	for (size_t i = 0; i < s->batch_count; i++)
		if (core_frontier_covers(s->batches[i]->lower, n->time) && s->batches[i]->part_count != 0)
			n->batches[n->count++] = core_batch_ref(s->batches[i]);
	return true;
}

/* Check, and pin what is there; or check alone, before it is worth a lease. */
static enum kv_rc take(struct core_snapshot *n, struct core_as_of as_of, bool only_check, struct kv_err *err)
{
	struct core_shard *s = n->shard;
	bool nothing = false;
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&s->mu);
	if (s->gone || s->state.tombstone)
		rc = kv_fail(err, KV_NO_SHARD, "the shard was removed");
	if (rc == KV_OK)
		rc = resolve(&s->state, as_of, &n->time, &nothing, err);
	if (rc == KV_OK && !nothing && !only_check && !pin(n, &s->state))
		rc = kv_fail_rc(err, KV_NOMEM);
	pthread_mutex_unlock(&s->mu);
	return rc;
}

/* Whether parts stay for us only as long as a lease says so. */
static bool is_leased(const struct core_engine *e)
{
	return !e->traits.sole_owner && !e->traits.read_only;
}

/* Before anything is pinned: a lease says from which version on parts must stay. */
static enum kv_rc lease_parts(struct core_snapshot *n, struct kv_err *err)
{
	const struct core_engine *e = n->shard->engine;
	enum kv_rc rc;

	n->need.pins_only = true;
	n->need.reader.since_ms = core_now_us(e) / 1000;
	core_copy_text(n->need.reader.purpose, sizeof n->need.reader.purpose, "snapshot");
	rc = core_shard_need(n->shard, &n->need, 0, err);
	n->needing = rc == KV_OK;
	return rc;
}

enum kv_rc core_snapshot_open(struct core_shard *s, struct core_as_of as_of, struct core_snapshot **out,
			      struct kv_err *err)
{
	struct core_snapshot *n;
	enum kv_rc rc = core_machine_load(s, true, err);

	*out = NULL;
	if (rc != KV_OK)
		return rc;
	n = calloc(1, sizeof *n);
	if (n == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	n->shard = core_shard_ref(s);
	rc = take(n, as_of, is_leased(s->engine), err);
	if (rc == KV_OK && is_leased(s->engine)) {
		rc = lease_parts(n, err);
		if (rc == KV_OK)
			rc = take(n, as_of, false, err);
	}
	if (rc != KV_OK) {
		core_snapshot_close(n);
		return rc;
	}
	*out = n;
	return KV_OK;
}

enum kv_rc core_snapshot_next(struct core_snapshot *n, struct core_update *out, bool *end, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	*end = n->count == 0;
	if (*end)
		return KV_OK;
	if (n->merge == NULL)
		rc = core_merge_open(&n->shard->home, n->batches, n->count, CORE_MERGE_AS_OF, n->time,
				     &n->merge, err);
	return rc == KV_OK ? core_merge_next(n->merge, out, end, err) : rc;
}

void core_snapshot_rest(struct core_snapshot *n)
{
	if (n->merge != NULL)
		core_merge_rest(n->merge);
}

size_t core_snapshot_held(const struct core_snapshot *n)
{
	return n->merge != NULL ? core_merge_held(n->merge) : 0;
}

size_t core_snapshot_need(const struct core_snapshot *n)
{
	return n->merge != NULL ? core_merge_need(n->merge) : core_merge_need_of(n->batches, n->count);
}

void core_snapshot_rewind(struct core_snapshot *n)
{
	core_merge_close(n->merge);
	n->merge = NULL; /* the next row opens it anew */
}

void core_snapshot_close(struct core_snapshot *n)
{
	if (n == NULL)
		return;
	core_merge_close(n->merge);
	for (size_t i = 0; i < n->count; i++)
		core_batch_unref(n->batches[i]);
	free(n->batches);
	if (n->needing)
		core_shard_release(n->shard, &n->need);
	core_shard_close(n->shard);
	free(n);
}
