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

enum { SCAN_PAGE = 256, ROLLUP_READ = 256 << 10 };

char *core_shard_key(const struct core_shard *s, char buf[CORE_ID_LEN])
{
	return core_uuid_format('s', s->home.shard.u, buf);
}

static enum kv_rc read_blob(struct core_engine *e, const char *key, struct core_buf *out, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;
	size_t got = ROLLUP_READ;

	*out = (struct core_buf){0};
	while (rc == KV_OK && got == ROLLUP_READ) {
		uint8_t *grown = realloc(out->data, out->len + ROLLUP_READ);

		if (grown == NULL) {
			rc = kv_fail_rc(err, KV_NOMEM);
			break;
		}
		out->data = grown;
		rc = kv_blob_get(kv_store_blobs(e->store), key, out->len, out->data + out->len, ROLLUP_READ, &got, err);
		if (rc == KV_OK)
			out->len += got;
	}
	if (rc != KV_OK)
		core_buf_fini(out);
	return rc;
}

/* Apply a version under both locks. */
enum kv_rc core_apply_version(struct core_shard *s, const struct core_diff *d, size_t bytes, struct kv_err *err)
{
	enum kv_rc rc;

	pthread_mutex_lock(&s->mu);
	rc = core_state_apply(&s->state, d, err);
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

/* Bring a loaded state forward by the versions consensus has after it. */
enum kv_rc core_catch_up(struct core_shard *s, struct kv_err *err)
{
	char key[CORE_ID_LEN];
	size_t count = SCAN_PAGE;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count == SCAN_PAGE) {
		struct kv_versions versions;

		rc = kv_consensus_scan(kv_store_consensus(s->engine->store), core_shard_key(s, key), s->state.seqno + 1,
				       SCAN_PAGE, &versions, err);
		count = versions.count;
		for (size_t i = 0; i < versions.count && rc == KV_OK; i++) {
			struct core_diff d;

			rc = core_diff_decode(s->home.shard, versions.v[i].data, versions.v[i].len, &d, err);
			if (rc == KV_OK)
				rc = core_apply_version(s, &d, versions.v[i].len, err);
			if (rc != KV_OK)
				kv_wrap(err, rc, "shard %s: version %" PRIu64, key, versions.v[i].seqno);
			core_diff_fini(&d);
		}
		kv_versions_free(&versions);
	}
	return rc;
}

/* The rollup the head names, in memory as the state. */
static enum kv_rc load_rollup(struct core_shard *s, const struct core_rollup *rollup, struct kv_err *err)
{
	struct core_state state;
	struct core_buf bytes;
	char key[CORE_ID_LEN];
	enum kv_rc rc = read_blob(s->engine, rollup->key, &bytes, err);

	if (rc == KV_NOTFOUND)
		rc = kv_fail(err, KV_CORRUPT, "the newest rollup is missing");
	if (rc == KV_OK)
		rc = core_state_decode(s->home.shard, bytes.data, bytes.len, &state, err);
	if (rc != KV_OK) {
		core_buf_fini(&bytes);
		return kv_wrap(err, rc, "shard %s: rollup %s", core_shard_key(s, key), rollup->key);
	}
	pthread_mutex_lock(&s->mu);
	s->state = state;
	pthread_mutex_unlock(&s->mu);
	s->rollup = *rollup;
	s->rollup_bytes = bytes.len;
	s->rollup_weight = 0;
	core_buf_fini(&bytes);
	return KV_OK;
}

static enum kv_rc load_locked(struct core_shard *s, struct kv_err *err)
{
	struct kv_version head;
	struct core_diff d;
	struct core_rollup rollup;
	char key[CORE_ID_LEN];
	bool tombstone;
	enum kv_rc rc;

	rc = kv_consensus_head(kv_store_consensus(s->engine->store), core_shard_key(s, key), &head, err);
	if (rc == KV_NOTFOUND)
		return kv_fail(err, KV_NO_SHARD, "no shard %s", key);
	if (rc != KV_OK)
		return kv_wrap(err, rc, "shard %s", key);
	rc = core_diff_decode(s->home.shard, head.data, head.len, &d, err);
	rollup = d.newest_rollup;
	tombstone = rc == KV_OK && d.tombstone;
	core_diff_fini(&d);
	free(head.data);
	if (rc != KV_OK)
		return kv_wrap(err, rc, "shard %s: version %" PRIu64, key, head.seqno);
	rc = load_rollup(s, &rollup, err);
	if (rc == KV_CORRUPT && tombstone) {
		/* A removal that was cut short deletes its rollups before its versions. */
		pthread_mutex_lock(&s->mu);
		s->state = (struct core_state){.seqno = head.seqno, .tombstone = true};
		s->loaded = true;
		pthread_mutex_unlock(&s->mu);
		return KV_OK;
	}
	if (rc == KV_OK)
		rc = core_catch_up(s, err);
	if (rc == KV_OK)
		rc = core_state_check(&s->state, err);
	if (rc != KV_OK) {
		pthread_mutex_lock(&s->mu);
		core_state_fini(&s->state);
		pthread_mutex_unlock(&s->mu);
		return rc;
	}
	core_fold_recount(s);
	pthread_mutex_lock(&s->mu);
	s->loaded = true;
	pthread_mutex_unlock(&s->mu);
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

		rc = kv_consensus_head(kv_store_consensus(s->engine->store), core_shard_key(s, key), &head, NULL);
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
