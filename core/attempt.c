/*
 * attempt.c - one try to store the next versions of a shard.
 *
 * Invariant: a version carries the id of the attempt that made it. After an unknown outcome the versions tell
 * whether it was ours; if there is none yet, the same attempt is made again, so that it can land once at
 * most. Of several versions the last one tells: they land together.
 */
#include "core/attempt.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/shard.h"

void core_attempt_init(struct core_attempt *a, struct core_shard *s)
{
	a->shard = s;
	a->count = 0;
	a->blobs = a->blob_space;
	a->blob_count = 0;
	a->fold_blob = (struct core_buf){0};
	a->keys = a->key_space;
	a->key_count = 0;
	a->rc = KV_OK;
#ifdef CORE_SLOW_CHECKS
	a->shadow = (struct core_state){0};
	a->shadowed = false;
#endif
}

void core_attempt_fini(struct core_attempt *a)
{
	for (size_t i = 0; i < a->count; i++)
		core_buf_fini(&a->bytes[i]);
	core_buf_fini(&a->fold_blob);
#ifdef CORE_SLOW_CHECKS
	core_state_fini(&a->shadow);
#endif
	if (a->blobs != a->blob_space)
		free(a->blobs);
	if (a->keys != a->key_space)
		free(a->keys);
}

/* Room for count blobs. KV_NOMEM. */
static enum kv_rc reserve(struct core_attempt *a, size_t count, struct kv_err *err)
{
	if (count <= CORE_PUTS_INSIDE)
		return KV_OK;
	a->blobs = calloc(count, sizeof *a->blobs);
	a->keys = calloc(count, sizeof *a->keys);
	return a->blobs != NULL && a->keys != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

/* --- storing --------------------------------------------------------------------------------------- */

/* Whether version seqno is there, and is that of our attempt. */
static enum kv_rc look_for_attempt(struct core_shard *s, uint64_t seqno, struct core_uuid attempt,
				   bool *there, bool *ours, struct kv_err *err)
{
	struct kv_versions versions;
	struct core_diff d;
	char key[CORE_ID_LEN];
	enum kv_rc rc = kv_consensus_scan(kv_store_consensus(s->engine->store), core_shard_key(s, key), seqno,
					  1, &versions, err);

	*there = rc == KV_OK && versions.count == 1;
	*ours = false;
	if (*there && versions.v[0].seqno != seqno)
		rc = kv_fail(err, KV_UNKNOWN, "version %" PRIu64 " is forgotten already", seqno);
	if (rc == KV_OK && *there) {
		rc = core_diff_decode(s->home.shard, versions.v[0].data, versions.v[0].len, &d, err);
		*ours = rc == KV_OK && core_uuid_eq(d.attempt, attempt);
		core_diff_fini(&d);
	}
	kv_versions_free(&versions);
	return rc;
}

static void store(struct core_attempt *const *attempts, size_t count, enum kv_sync sync)
{
	char keys[CORE_GROUP_SHARDS][CORE_ID_LEN];
	struct kv_run runs[CORE_GROUP_SHARDS];

	assert(count != 0 && count <= CORE_GROUP_SHARDS);
	for (size_t i = 0; i < count; i++) {
		struct core_attempt *a = attempts[i];

		runs[i] = (struct kv_run){
			.key = core_shard_key(a->shard, keys[i]),
			.expected = a->versions[0].seqno - 1,
			.versions = a->versions,
			.version_count = a->count,
			.blobs = a->blobs,
			.blob_count = a->blob_count,
			.err = &a->err,
		};
	}
	kv_store_commit_runs(attempts[0]->shard->engine->store, runs, count, sync);
	for (size_t i = 0; i < count; i++)
		attempts[i]->rc = runs[i].rc;
}

/* KV_OK: it landed. KV_MISMATCH: another version did. KV_UNKNOWN: the store does not tell. */
static enum kv_rc settle_unknown(struct core_attempt *a, enum kv_sync sync)
{
	const struct core_diff *last = a->diffs[a->count - 1];

	for (unsigned tries = 0; tries < CORE_UNKNOWN_TRIES; tries++) {
		bool there, ours;
		enum kv_rc rc = look_for_attempt(a->shard, last->seqno, last->attempt, &there, &ours, NULL);

		if (rc == KV_OK && there)
			return ours ? KV_OK : KV_MISMATCH;
		if (rc == KV_OK) {
			store(&a, 1, sync);
			rc = a->rc;
		} else {
			rc = KV_UNKNOWN;
		}
		if (rc == KV_OK)
			return KV_OK;
		/* It was not there, and now surely was not done: where nobody else can bring the first
		 * attempt late, that is the answer. */
		if (rc != KV_UNKNOWN && rc != KV_MISMATCH && a->shard->engine->traits.sole_owner)
			return rc;
	}
	return kv_fail(&a->err, KV_UNKNOWN,
		       "the store failed and does not tell whether the change was made; try again with the "
		       "same token");
}

void core_attempts_store(struct core_attempt *const *attempts, size_t count, enum kv_sync sync)
{
	store(attempts, count, sync);
	for (size_t i = 0; i < count; i++)
		if (attempts[i]->rc == KV_UNKNOWN)
			attempts[i]->rc = settle_unknown(attempts[i], sync);
}

/* --- what is stored -------------------------------------------------------------------------------- */

/* The batch with rows that the append brings, or NULL. */
static struct core_batch *appended(const struct core_change *c, const struct core_diff *d)
{
	return c->appends_rows ? d->splices[d->splice_count - 1].batches[0] : NULL;
}

static bool is_loose(const struct core_batch *b, size_t i)
{
	return b->parts[i].inline_data != NULL && b->parts[i].loose;
}

static size_t count_loose(const struct core_batch *b)
{
	size_t count = 0;

	for (size_t i = 0; b != NULL && i < b->part_count; i++)
		count += is_loose(b, i);
	return count;
}

/* The loose parts of b as blobs of the commit; those beyond CORE_LOOSE_TOTAL are stored at once. */
static enum kv_rc put_loose(struct core_attempt *a, struct core_batch *b, struct kv_err *err)
{
	uint64_t bytes = 0;
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; b != NULL && i < b->part_count && rc == KV_OK; i++) {
		const struct core_part *part = &b->parts[i];

		if (!is_loose(b, i))
			continue;
		char *key = core_part_key(a->shard->home.shard, part, a->keys[a->key_count++]);
		bytes += part->size;
		if (bytes > CORE_LOOSE_TOTAL)
			rc = kv_blob_set(a->shard->home.blobs, key, part->inline_data, (size_t)part->size,
					 err);
		else
			a->blobs[a->blob_count++] = (struct kv_blob_put){
				.key = key, .data = part->inline_data, .len = (size_t)part->size};
	}
	/* Of the commit nothing was done. */
	return rc == KV_UNKNOWN ? kv_fail(err, KV_UNREACHABLE, "the store failed to take a part") : rc;
}

void core_attempt_settle_loose(const struct core_change *c, const struct core_diff *d)
{
	struct core_batch *b = appended(c, d);

	for (size_t i = 0; b != NULL && i < b->part_count; i++) {
		if (!is_loose(b, i))
			continue;
		free(b->parts[i].inline_data);
		b->parts[i].inline_data = NULL;
		b->parts[i].loose = false;
	}
}

void core_attempt_stamp(struct core_shard *s, const struct core_state *st, const struct core_change *c,
			struct core_diff *d)
{
	const struct core_uuid *writer = c->writer != NULL ? c->writer : &s->engine->instance.u;
	uint64_t attempts = atomic_fetch_add(&s->engine->attempts, 1);

	d->walltime_ms = core_now_us(s->engine) / 1000;
	if (d->walltime_ms < st->walltime_ms)
		d->walltime_ms = st->walltime_ms; /* a clock that went back */
	memcpy(d->attempt.b, writer->b, CORE_WRITER_TAG);
	memcpy(d->attempt.b + CORE_WRITER_TAG, &attempts, sizeof attempts);
	d->newest_rollup = d->has_rollup ? d->rollup : s->rollup;
}

/* The blobs of c, of the fold, and of loose parts. */
static enum kv_rc add_blobs(struct core_attempt *a, struct core_change *c, struct core_diff *d,
			    struct kv_err *err)
{
	struct core_batch *b = appended(c, d);
	enum kv_rc rc = reserve(a, c->blob_count + 1 + count_loose(b), err);

	if (rc != KV_OK)
		return rc;
	for (size_t i = 0; i < c->blob_count; i++)
		a->blobs[a->blob_count++] = c->blobs[i];
	if (c->appends_rows || c->folds) {
		char *key = a->keys[a->key_count++];

		rc = c->folds ? core_fold_tail(a->shard, c->hollow, d, &a->fold_blob, key, err)
			      : core_fold(a->shard, d, &a->fold_blob, key, err);
		if (rc == KV_OK && a->fold_blob.len != 0)
			a->blobs[a->blob_count++] = (struct kv_blob_put){
				.key = key, .data = a->fold_blob.data, .len = a->fold_blob.len};
	}
	return rc == KV_OK ? put_loose(a, b, err) : rc;
}

bool core_attempt_takes(const struct core_attempt *a, const struct core_change *c, const struct core_diff *d)
{
	return a->count == 0 || (c->blob_count == 0 && !c->folds && count_loose(appended(c, d)) == 0);
}

enum kv_rc core_attempt_add(struct core_attempt *a, struct core_change *c, struct core_diff *d,
			    struct kv_err *err)
{
	struct core_buf *bytes = &a->bytes[a->count];
	enum kv_rc rc = KV_OK;

	assert(a->count < CORE_GROUP_MAX && core_attempt_takes(a, c, d));
	if (a->count == 0)
		rc = add_blobs(a, c, d, err);
	if (rc == KV_OK)
		rc = core_diff_encode(a->shard->home.shard, d, bytes, err);
	if (rc != KV_OK)
		return rc;
	a->diffs[a->count] = d;
	a->versions[a->count++] =
		(struct kv_version_put){.seqno = d->seqno, .data = bytes->data, .len = bytes->len};
	return KV_OK;
}

void core_attempt_drop(struct core_attempt *a)
{
	assert(a->count != 0);
	core_buf_fini(&a->bytes[--a->count]);
}
