/*
 * load.c - a shard's state from what is stored, and its way forward.
 *
 * In consensus, under the shard's id, lie its versions: each a diff, framed as
 * in state_codec.c. Each diff names the newest rollup as of its version: a blob
 *     <shard>/v<seqno>/<instance>
 * with the whole state at that version. Loading reads the head, the rollup it
 * names and the diffs after that.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "core/engine_impl.h"

enum { SCAN_PAGE = 256, BLOB_PAGE = 256 << 10 };

char *core_shard_key(const struct core_shard *s, char buf[CORE_ID_LEN])
{
	return core_uuid_format('s', s->home.shard.u, buf);
}

enum kv_rc core_blob_read(struct kv_blobs *blobs, const char *key, struct core_buf *out, struct kv_err *err)
{
	size_t want = BLOB_PAGE, got = BLOB_PAGE;
	enum kv_rc rc = KV_OK;

	*out = (struct core_buf){0};
	while (rc == KV_OK && got == want) {
		uint8_t *grown;

		if (out->len > KV_VALUE_MAX) {
			rc = kv_fail(err, KV_CORRUPT, "it is larger than a blob can be");
			break;
		}
		want = out->len > BLOB_PAGE ? out->len : BLOB_PAGE; /* as much again */
		if (want > KV_VALUE_MAX + 1 - out->len)
			want = KV_VALUE_MAX + 1 - out->len;
		grown = realloc(out->data, out->len + want);
		if (grown == NULL) {
			rc = kv_fail_rc(err, KV_NOMEM);
			break;
		}
		out->data = grown;
		rc = kv_blob_get(blobs, key, out->len, out->data + out->len, want, &got, err);
		if (rc == KV_OK)
			out->len += got;
	}
	if (rc != KV_OK)
		core_buf_fini(out);
	return rc;
}

enum kv_rc core_reserve_held(struct core_shard *s, const struct core_diff *d, struct kv_err *err)
{
	size_t first, end, count = 0;

	for (size_t i = 0; i < d->splice_count; i++)
		if (core_state_splice_range(&s->state, &d->splices[i], &first, &end))
			count += end - first;
	return count != 0 ? core_held_reserve(s, count, err) : KV_OK;
}

/* Keep what leaves the state with d, which may be read still. Under mu; there is room. */
static void hold_replaced(struct core_shard *s, const struct core_diff *d)
{
	size_t first, end;

	for (size_t i = 0; i < d->splice_count; i++)
		if (core_state_splice_range(&s->state, &d->splices[i], &first, &end))
			for (; first < end; first++)
				core_held_add(s, s->state.batches[first], d->seqno);
}

/* Apply a version under both locks. */
enum kv_rc core_apply_version(struct core_shard *s, const struct core_diff *d, size_t bytes,
			      struct kv_err *err)
{
	enum kv_rc rc;

	pthread_mutex_lock(&s->mu);
	rc = core_reserve_held(s, d, err);
	if (rc == KV_OK)
		rc = core_state_reserve(&s->state, d, err);
	if (rc == KV_OK) {
		hold_replaced(s, d); /* of a diff that does not fit, a reference too many, which is let go */
		rc = core_state_apply(&s->state, d, err);
	}
	pthread_mutex_unlock(&s->mu);
	if (rc != KV_OK)
		return rc;
	s->rollup_weight += bytes;
	if (d->newest_rollup.seqno > s->rollup.seqno) {
		s->rollup = d->newest_rollup;
		s->rollup_weight = 0;
	}
	return KV_OK;
}

/* The shard was removed by another process: nobody finds this structure any more. */
static void retire(struct core_shard *s)
{
	pthread_mutex_lock(&s->engine->mu);
	if (s->hashed)
		HASH_DEL(s->engine->shards, s);
	s->hashed = false;
	pthread_mutex_unlock(&s->engine->mu);
	pthread_mutex_lock(&s->mu);
	s->gone = true;
	pthread_mutex_unlock(&s->mu);
}

/* The newest version: its seqno, the rollup it names, whether it ends the shard. KV_NO_SHARD: there is none.
 */
static enum kv_rc read_head(struct core_shard *s, uint64_t *seqno, struct core_rollup *rollup,
			    bool *tombstone, struct kv_err *err)
{
	struct kv_version head;
	struct core_diff d;
	char key[CORE_ID_LEN];
	enum kv_rc rc =
		kv_consensus_head(kv_store_consensus(s->engine->store), core_shard_key(s, key), &head, err);

	if (rc == KV_NOTFOUND)
		return kv_fail(err, KV_NO_SHARD, "no shard %s", key);
	if (rc != KV_OK)
		return kv_wrap(err, rc, "shard %s", key);
	rc = core_diff_decode(s->home.shard, head.data, head.len, &d, err);
	*seqno = head.seqno;
	*rollup = d.newest_rollup;
	*tombstone = d.tombstone;
	core_diff_fini(&d);
	free(head.data);
	return rc == KV_OK ? KV_OK : kv_wrap(err, rc, "shard %s: version %" PRIu64, key, *seqno);
}

static enum kv_rc read_rollup(struct core_shard *s, const struct core_rollup *rollup, struct core_state *out,
			      size_t *len, struct kv_err *err)
{
	struct core_buf bytes;
	char key[CORE_ID_LEN];
	enum kv_rc rc = core_blob_read(s->home.blobs, rollup->key, &bytes, err);

	if (rc == KV_NOTFOUND)
		rc = kv_fail(err, s->home.may_vanish ? KV_GONE : KV_CORRUPT, "the newest rollup is missing");
	if (rc == KV_OK)
		rc = core_state_decode(s->home.shard, bytes.data, bytes.len, out, err);
	*len = bytes.len;
	core_buf_fini(&bytes);
	return rc == KV_OK ? KV_OK
			   : kv_wrap(err, rc, "shard %s: rollup %s", core_shard_key(s, key), rollup->key);
}

/* Take the state from the newest rollup: at first, and when the versions after ours are not there any more.
 */
static enum kv_rc start_over(struct core_shard *s, struct kv_err *err)
{
	struct core_state state = {0};
	struct core_rollup rollup = {0};
	uint64_t seqno = 0, before;
	size_t bytes = 0;
	bool tombstone = false;
	enum kv_rc rc;

	do { /* a rollup that is gone was followed by another: then the head names that */
		before = rollup.seqno;
		rc = read_head(s, &seqno, &rollup, &tombstone, err);
		if (rc == KV_NO_SHARD && s->loaded)
			retire(s);
		if (rc != KV_OK)
			return rc;
		rc = read_rollup(s, &rollup, &state, &bytes, err);
	} while ((rc == KV_CORRUPT || rc == KV_GONE) && rollup.seqno != before);
	if ((rc == KV_CORRUPT || rc == KV_GONE) && tombstone) {
		/* A removal that was cut short deletes its rollups before its versions. */
		state = (struct core_state){.seqno = seqno, .tombstone = true};
		rc = KV_OK;
	}
	if (rc != KV_OK)
		return rc;
	if (s->loaded && state.first_seqno != s->state.first_seqno) {
		core_state_fini(&state);
		retire(s);
		return kv_fail(err, KV_SHARD_REPLACED, "the shard was removed and made anew");
	}
	pthread_mutex_lock(&s->mu);
	rc = core_held_reserve(s, s->state.batch_count, err);
	for (size_t i = 0; i < s->state.batch_count && rc == KV_OK; i++)
		core_held_add(s, s->state.batches[i], s->state.seqno + 1); /* later at the earliest */
	if (rc == KV_OK) {
		core_state_fini(&s->state);
		s->state = state;
	}
	pthread_mutex_unlock(&s->mu);
	if (rc != KV_OK) {
		core_state_fini(&state);
		return rc;
	}
	s->rollup = rollup;
	s->rollup_bytes = bytes;
	s->rollup_weight = 0;
	return KV_OK;
}

/* Apply a page of versions, of which the first is the one we have. */
static enum kv_rc apply_page(struct core_shard *s, const struct kv_versions *versions, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;
	char key[CORE_ID_LEN];

	/* What comes behind a tombstone is another shard, under the same id. */
	for (size_t i = 1; i < versions->count && rc == KV_OK && !s->state.tombstone; i++) {
		const struct kv_version *v = &versions->v[i];
		struct core_diff d;

		rc = core_diff_decode(s->home.shard, v->data, v->len, &d, err);
		if (rc == KV_OK)
			rc = core_apply_version(s, &d, v->len, err);
		if (rc != KV_OK)
			kv_wrap(err, rc, "shard %s: version %" PRIu64, core_shard_key(s, key), v->seqno);
		core_diff_fini(&d);
	}
	return rc;
}

enum kv_rc core_catch_up(struct core_shard *s, struct kv_err *err)
{
	char key[CORE_ID_LEN];
	size_t count = SCAN_PAGE;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count == SCAN_PAGE && !s->state.tombstone) {
		struct kv_versions versions;

		/* From our own version on: if it is gone, what comes after may not follow it. */
		rc = kv_consensus_scan(kv_store_consensus(s->engine->store), core_shard_key(s, key),
				       s->state.seqno, SCAN_PAGE, &versions, err);
		count = versions.count;
		if (rc == KV_OK && (count == 0 || versions.v[0].seqno != s->state.seqno)) {
			uint64_t before = s->state.seqno;

			rc = start_over(s, err);
			/* That of the newest rollup stays, until there is a newer one. */
			if (rc == KV_OK && s->state.seqno == before)
				rc = kv_fail(err, KV_CORRUPT, "shard %s: version %" PRIu64 " is missing", key,
					     before);
			count = SCAN_PAGE;
		} else if (rc == KV_OK) {
			rc = apply_page(s, &versions, err);
		}
		kv_versions_free(&versions);
	}
	return rc;
}

static enum kv_rc load_locked(struct core_shard *s, struct kv_err *err)
{
	uint64_t began = core_ticks_us();
	enum kv_rc rc = start_over(s, err);

	if (rc == KV_OK && s->state.first_seqno != 0) { /* else a bare tombstone */
		rc = core_catch_up(s, err);
		if (rc == KV_OK)
			rc = core_state_check(&s->state, err);
	}
	if (rc != KV_OK) {
		if (rc == KV_CORRUPT &&
		    err != NULL) /* those who look it up get an errno, and no word of where */
			core_notice(s->engine, "%s", err->msg);
		pthread_mutex_lock(&s->mu);
		core_state_fini(&s->state);
		pthread_mutex_unlock(&s->mu);
		return rc;
	}
	core_fold_recount(s);
	pthread_mutex_lock(&s->mu);
	s->loaded = true;
	pthread_mutex_unlock(&s->mu);
	core_count(s->engine, CORE_M_LOADS, 1);
	core_timed(s->engine, CORE_T_LOAD, began);
	return KV_OK;
}

enum kv_rc core_refresh_locked(struct core_shard *s, bool recent, struct kv_err *err)
{
	enum kv_rc rc;
	bool gone;

	pthread_mutex_lock(&s->mu);
	gone = s->gone;
	pthread_mutex_unlock(&s->mu);
	if (gone) {
		struct kv_version head;
		char key[CORE_ID_LEN];

		rc = kv_consensus_head(kv_store_consensus(s->engine->store), core_shard_key(s, key), &head,
				       NULL);
		if (rc != KV_OK || head.seqno == s->state.seqno) {
			free(rc == KV_OK ? head.data : NULL);
			return kv_fail(err, KV_NO_SHARD, "shard %s was removed", key);
		}
		free(head.data);
		return kv_fail(err, KV_SHARD_REPLACED, "shard %s was removed and made anew", key);
	}
	if (!s->loaded)
		return load_locked(s, err);
	/* Nobody else can have written where we are the sole owner. */
	if (!s->doubtful && (!recent || s->engine->traits.sole_owner))
		return KV_OK;
	rc = core_catch_up(s, err);
	core_fold_recount(s); /* also when it broke off half-way */
	if (rc == KV_OK) {
		pthread_mutex_lock(&s->mu);
		s->doubtful = false;
		pthread_mutex_unlock(&s->mu);
	}
	return rc;
}

enum kv_rc core_machine_load(struct core_shard *s, bool recent, struct kv_err *err)
{
	enum kv_rc rc;
	bool enough;

	pthread_mutex_lock(&s->mu);
	enough = s->loaded && !s->gone && !s->doubtful && (!recent || s->engine->traits.sole_owner);
	pthread_mutex_unlock(&s->mu);
	if (enough)
		return KV_OK;
	pthread_mutex_lock(&s->commit_mu);
	rc = core_refresh_locked(s, recent, err);
	pthread_mutex_unlock(&s->commit_mu);
	core_machine_wake(s); /* others' versions may have moved the upper */
	return rc;
}
