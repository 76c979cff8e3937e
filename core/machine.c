/*
 * machine.c - how a shard's state is changed.
 *
 * One commit:
 *
 *     transition(state) -> diff -> encode -> store: blobs + compare-and-set -> apply -> wake
 *
 * What goes along with the diff, and how far since goes, is settled in leases.c.
 *
 * Invariants:
 *  1. The state in memory is that of a version that was stored, and only goes
 *     forward. It changes under commit_mu and mu, so the one who commits may
 *     read it with commit_mu alone.
 *  2. A state is applied only after its version is durable (or rides before the
 *     next one that is): what a reader sees is never taken back by a crash.
 *  3. A version carries the id of the attempt that made it. After an unknown
 *     outcome the versions tell whether it was ours; if there is none yet, the
 *     same attempt is made again, so that it can land once at most.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/compact.h"
#include "core/engine_impl.h"

/* --- committing ------------------------------------------------------------------------------------ */

#ifdef CORE_SLOW_CHECKS
/* The stored bytes, applied to a copy of the old state, must give the new one. Without memory nothing is
 * checked. */
struct shadow {
	struct core_state state;
	bool there;
};

static void shadow_begin(struct core_shard *s, const struct core_buf *version, struct shadow *shadow)
{
	struct core_buf bytes = {0};
	struct core_diff d = {0};
	struct kv_err err;
	enum kv_rc rc = core_state_encode(s->home.shard, &s->state, &bytes, &err);

	*shadow = (struct shadow){0};
	if (rc == KV_OK)
		rc = core_state_decode(s->home.shard, bytes.data, bytes.len, &shadow->state, &err);
	if (rc == KV_OK)
		rc = core_diff_decode(s->home.shard, version->data, version->len, &d, &err);
	if (rc == KV_OK)
		rc = core_state_apply(&shadow->state, &d, &err);
	assert(rc == KV_OK || rc == KV_NOMEM);
	shadow->there = rc == KV_OK;
	core_buf_fini(&bytes);
	core_diff_fini(&d);
}

static void shadow_end(struct core_shard *s, struct shadow *shadow)
{
	struct core_buf a = {0}, b = {0};
	struct kv_err err;
	enum kv_rc rc = core_state_check(&s->state, &err);

	if (rc == KV_OK)
		rc = core_state_encode(s->home.shard, &s->state, &a, &err);
	if (rc == KV_OK)
		rc = core_state_encode(s->home.shard, &shadow->state, &b, &err);
	assert(rc == KV_NOMEM || (rc == KV_OK && a.len == b.len && memcmp(a.data, b.data, a.len) == 0));
	core_buf_fini(&a);
	core_buf_fini(&b);
}
#endif

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

enum { PUTS_INSIDE = 4 }; /* blobs of all but a few commits */

struct attempt {
	const struct core_diff *d;
	struct core_buf version;
	struct kv_blob_put *blobs;
	size_t blob_count;
	enum kv_sync sync;
	struct core_buf fold_blob;
	char (*keys)[CORE_BLOB_KEY_LEN]; /* of the fold and of loose parts */
	size_t key_count;
	struct kv_blob_put blob_space[PUTS_INSIDE];
	char key_space[PUTS_INSIDE][CORE_BLOB_KEY_LEN];
};

static void attempt_fini(struct attempt *a)
{
	core_buf_fini(&a->version);
	core_buf_fini(&a->fold_blob);
	if (a->blobs != a->blob_space)
		free(a->blobs);
	if (a->keys != a->key_space)
		free(a->keys);
}

/* Room for count blobs. KV_NOMEM. */
static enum kv_rc attempt_reserve(struct attempt *a, size_t count, struct kv_err *err)
{
	a->blobs = a->blob_space;
	a->keys = a->key_space;
	if (count <= PUTS_INSIDE)
		return KV_OK;
	a->blobs = calloc(count, sizeof *a->blobs);
	a->keys = calloc(count, sizeof *a->keys);
	return a->blobs != NULL && a->keys != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

static enum kv_rc store_version(struct core_shard *s, const struct attempt *a, struct kv_err *err)
{
	char key[CORE_ID_LEN];

	return kv_store_commit(s->engine->store, core_shard_key(s, key), a->d->seqno - 1, a->d->seqno,
			       a->version.data, a->version.len, a->blobs, a->blob_count, a->sync, err);
}

/* KV_OK: it landed. KV_MISMATCH: another version did. KV_UNKNOWN: the store does not tell. Invariant 3. */
static enum kv_rc settle_unknown(struct core_shard *s, const struct attempt *a, struct kv_err *err)
{
	for (unsigned tries = 0; tries < CORE_UNKNOWN_TRIES; tries++) {
		bool there, ours;
		enum kv_rc rc = look_for_attempt(s, a->d->seqno, a->d->attempt, &there, &ours, NULL);

		if (rc == KV_OK && there)
			return ours ? KV_OK : KV_MISMATCH;
		if (rc == KV_OK)
			rc = store_version(s, a, err);
		else
			rc = KV_UNKNOWN;
		if (rc == KV_OK)
			return KV_OK;
		/* It was not there, and now surely was not done: where nobody else can bring the first
		 * attempt late, that is the answer. */
		if (rc != KV_UNKNOWN && rc != KV_MISMATCH && s->engine->traits.sole_owner)
			return rc;
	}
	return kv_fail(err, KV_UNKNOWN,
		       "the store failed and does not tell whether the change was made; try again with the "
		       "same token");
}

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
static enum kv_rc put_loose(struct core_shard *s, struct core_batch *b, struct attempt *a, struct kv_err *err)
{
	uint64_t bytes = 0;
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; b != NULL && i < b->part_count && rc == KV_OK; i++) {
		const struct core_part *part = &b->parts[i];

		if (!is_loose(b, i))
			continue;
		char *key = core_part_key(s->home.shard, part, a->keys[a->key_count++]);
		bytes += part->size;
		if (bytes > CORE_LOOSE_TOTAL)
			rc = kv_blob_set(s->home.blobs, key, part->inline_data, (size_t)part->size, err);
		else
			a->blobs[a->blob_count++] = (struct kv_blob_put){
				.key = key, .data = part->inline_data, .len = (size_t)part->size};
	}
	/* Of the commit nothing was done. */
	return rc == KV_UNKNOWN ? kv_fail(err, KV_UNREACHABLE, "the store failed to take a part") : rc;
}

/* What was loose is blobs now, before anybody else sees the batch. */
static void settle_loose(struct core_batch *b)
{
	for (size_t i = 0; b != NULL && i < b->part_count; i++) {
		if (!is_loose(b, i))
			continue;
		free(b->parts[i].inline_data);
		b->parts[i].inline_data = NULL;
		b->parts[i].loose = false;
	}
}

/* Fill in what makes d a version of its own. */
static void stamp(struct core_shard *s, const struct core_change *c, struct core_diff *d)
{
	const struct core_uuid *writer = c->writer != NULL ? c->writer : &s->engine->instance.u;
	uint64_t attempts = atomic_fetch_add(&s->engine->attempts, 1);

	d->walltime_ms = core_now_us(s->engine) / 1000;
	if (d->walltime_ms < s->state.walltime_ms)
		d->walltime_ms = s->state.walltime_ms; /* a clock that went back */
	memcpy(d->attempt.b, writer->b, CORE_WRITER_TAG);
	memcpy(d->attempt.b + CORE_WRITER_TAG, &attempts, sizeof attempts);
	d->newest_rollup = d->has_rollup ? d->rollup : s->rollup;
}

/* All that is stored in the attempt: the version and its blobs. */
static enum kv_rc prepare(struct core_shard *s, struct core_change *c, struct core_diff *d, struct attempt *a,
			  struct kv_err *err)
{
	struct core_batch *b = appended(c, d);
	enum kv_rc rc = attempt_reserve(a, c->blob_count + 1 + count_loose(b), err);

	if (rc != KV_OK)
		return rc;
	for (size_t i = 0; i < c->blob_count; i++)
		a->blobs[a->blob_count++] = c->blobs[i];
	if (c->appends_rows || c->folds) {
		char *key = a->keys[a->key_count++];

		rc = c->folds ? core_fold_tail(s, c->hollow, d, &a->fold_blob, key, err)
			      : core_fold(s, d, &a->fold_blob, key, err);
		if (rc == KV_OK && a->fold_blob.len != 0)
			a->blobs[a->blob_count++] = (struct kv_blob_put){
				.key = key, .data = a->fold_blob.data, .len = a->fold_blob.len};
	}
	if (rc == KV_OK)
		rc = put_loose(s, b, a, err);
	if (rc == KV_OK)
		rc = core_diff_encode(s->home.shard, d, &a->version, err);
	if (rc == KV_OK) { /* what is stored must be seen: no failing for want of memory after it */
		pthread_mutex_lock(&s->mu);
		rc = core_state_reserve(&s->state, d, err);
		if (rc == KV_OK)
			rc = core_reserve_held(s, d, err);
		pthread_mutex_unlock(&s->mu);
	}
	return rc;
}

static void count_outcome(struct core_engine *e, enum kv_rc rc, size_t bytes)
{
	core_count(e, CORE_M_UNKNOWN, rc == KV_UNKNOWN);
	core_count(e, CORE_M_CONFLICTS, rc == KV_MISMATCH);
	core_count(e, CORE_M_VERSIONS, rc == KV_OK);
	core_count(e, CORE_M_VERSION_BYTES, rc == KV_OK ? bytes : 0);
}

/* Store the version d and apply it. */
static enum kv_rc commit_diff(struct core_shard *s, struct core_change *c, struct core_diff *d,
			      struct kv_err *err)
{
	struct attempt a = {.d = d, .sync = c->sync};
	enum kv_rc rc = prepare(s, c, d, &a, err);

	if (rc != KV_OK)
		goto out;
#ifdef CORE_SLOW_CHECKS
	struct shadow shadow;
	shadow_begin(s, &a.version, &shadow);
#endif
	rc = store_version(s, &a, err);
	if (rc == KV_UNKNOWN)
		rc = settle_unknown(s, &a, err);
	count_outcome(s->engine, rc, a.version.len);
	if (rc == KV_UNKNOWN) { /* the state may lack it: no answer from it until consensus was asked */
		pthread_mutex_lock(&s->mu);
		s->doubtful = true;
		pthread_mutex_unlock(&s->mu);
	}
	if (rc == KV_OK) {
		settle_loose(appended(c, d));
		rc = core_apply_version(s, d, a.version.len, err);
		assert(rc == KV_OK); /* it follows the state, and there is room */
	}
#ifdef CORE_SLOW_CHECKS
	if (rc == KV_OK && shadow.there)
		shadow_end(s, &shadow);
	core_state_fini(&shadow.state);
#endif
out:
	attempt_fini(&a);
	return rc;
}

/* Who came and who went with the version d; those before it were so many. */
static void count_leased(struct core_shard *s, const struct core_diff *d, size_t leases, size_t writers)
{
	struct core_engine *e = s->engine;

	core_count(e, CORE_M_LEASES, d->has_lease);
	core_count(e, CORE_M_WRITERS, d->has_writer);
	if (s->state.lease_count < leases) /* a new one at the same time hides an end, which is rare */
		core_count(e, CORE_M_LEASES_ENDED, leases - s->state.lease_count);
	if (s->state.writer_count < writers)
		core_count(e, CORE_M_WRITERS_ENDED, writers - s->state.writer_count);
}

/* Commit what the transition made, and what goes along. */
static enum kv_rc commit_next(struct core_shard *s, struct core_change *c, struct core_diff *d,
			      struct kv_err *err)
{
	size_t leases = s->state.lease_count, writers = s->state.writer_count;
	enum kv_rc rc;

	stamp(s, c, d);
	core_hold_since(s, d);
	rc = commit_diff(s, c, d, err);
	core_since_held(s);
	if (rc == KV_OK)
		count_leased(s, d, leases, writers);
	if (rc == KV_OK && c->rearranges)
		core_fold_recount(s);
	else if (rc == KV_OK)
		core_fold_count(s, d);
	return rc;
}

/* Whether a merge has become due by the version d: only a batch with blobs, or since, can have made one so.
 */
static bool makes_due(const struct core_shard *s, const struct core_diff *d)
{
	if (s->engine->config.no_upkeep || ((d->splice_count == 0 || s->tail > 1) && !d->has_since))
		return false;
	return core_merge_is_due(&s->state);
}

/* Background work that is due now. Under commit_mu. */
static void see_to_upkeep(struct core_shard *s)
{
	if (!s->loaded || s->state.tombstone || s->rollup_queued ||
	    s->state.seqno - s->rollup.seqno < CORE_ROLLUP_VERSIONS)
		return;
	/* A large state is rolled up when the versions weigh as much: the cost stays a share of theirs. */
	if (s->rollup_bytes <= CORE_ROLLUP_SMALL || s->rollup_weight >= s->rollup_bytes)
		core_queue_rollup(s);
}

enum kv_rc core_machine_commit(struct core_shard *s, struct core_change *c, struct kv_err *err)
{
	bool fresh = false, due = false, committed = false;
	uint64_t began = core_ticks_us();
	enum kv_rc rc;

	if (s->engine->traits.read_only)
		return kv_fail_rc(err, KV_READONLY);
	pthread_mutex_lock(&s->commit_mu);
	rc = core_refresh_locked(s, false, err);
	while (rc == KV_OK) {
		struct core_diff d;
		bool skip = false;
		enum kv_rc ran;

		core_diff_init(&d);
		ran = c->run(c, &s->state, &d, &skip, err);
		if (ran == KV_OK && !skip)
			rc = commit_next(s, c, &d, err);
		committed = ran == KV_OK && !skip && rc == KV_OK;
		due = committed && makes_due(s, &d);
		core_diff_fini(&d);
		/* Neither a refusal nor "nothing to do" may come from a stale state: look at consensus first.
		 */
		if (((ran != KV_OK || skip) && !fresh && !s->engine->traits.sole_owner) ||
		    rc == KV_MISMATCH) {
			uint64_t before = s->state.seqno;
			bool lost = rc == KV_MISMATCH;

			fresh = true;
			rc = lost ? core_catch_up(s, err) : core_refresh_locked(s, true, err);
			if (rc == KV_OK && lost && s->state.seqno == before)
				rc = kv_fail(err, KV_CORRUPT,
					     "the store refuses version %" PRIu64 " and has no newer one",
					     before + 1);
			core_fold_recount(s);
			continue;
		}
		if (ran != KV_OK)
			rc = ran;
		break;
	}
	see_to_upkeep(s);
	pthread_mutex_unlock(&s->commit_mu);
	core_machine_wake(s);
	core_timed(s->engine, CORE_T_COMMIT, began);
	/* What rides is housekeeping, after which there is no more to be done than before. */
	if (committed && c->sync != KV_RIDE)
		core_upkeep_touch(s);
	if (due)
		core_upkeep_queue(s);
	return rc;
}
