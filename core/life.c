/*
 * life.c - rollups, and the first and the last version of a shard.
 *
 * A rollup is due after CORE_ROLLUP_VERSIONS versions, and when the versions
 * since the last one weigh as much as that did: the cost of rollups stays a
 * constant share of that of the versions, however large a state is. It is made
 * in the background and rides with the next commit.
 *
 * A shard begins with a rollup of its empty state and the version that names it,
 * in one step. It ends with a tombstone; when its last reader has closed it,
 * everything of it is deleted, its versions last, so that a crash anywhere leaves
 * a tombstone from which the deleting goes on. For the next start to find it, a key
 *     dying-<shard>      version 1, no bytes
 * stands in consensus from before the tombstone until after the deleting.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/builder.h"
#include "core/engine_impl.h"
#include "core/manifest.h"
#include "core/upkeep_impl.h"

enum { DELETE_PAGE = 256, ROLLUP_INSIDE_MAX = 128 << 10 };

struct rollup_change {
	struct core_change change;
	struct core_rollup rollup;
	bool unused; /* a newer one came first */
};

static enum kv_rc run_rollup(struct core_change *c, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	struct rollup_change *r = (struct rollup_change *)c;
	enum kv_rc rc = core_do_rollup(s, &r->rollup, d, err);

	*skip = rc == KV_EXISTS || rc == KV_NO_SHARD; /* nothing to do any more */
	r->unused =
		*skip && (s->rollup_count == 0 || s->rollups[s->rollup_count - 1].seqno != r->rollup.seqno);
	return *skip ? KV_OK : rc;
}

/* A key of its own for every try: two that make a shard at once may come to one seqno with different states,
 * and two lives of it where the clock went back. Where the blob is set before the version the loser would
 * overwrite the winner's. */
static void rollup_key(struct core_engine *e, struct core_shard_id id, struct core_rollup *rollup)
{
	char shard[CORE_ID_LEN], instance[CORE_ID_LEN];

	core_uuid_format('s', id.u, shard);
	core_uuid_format('n', e->instance.u, instance);
	snprintf(rollup->key, sizeof rollup->key, "%s/v%" PRIu64 "/%s-%" PRIu64, shard, rollup->seqno,
		 instance, atomic_fetch_add(&e->rollup_tries, 1));
}

enum kv_rc core_write_rollup(struct core_shard *s, struct kv_err *err)
{
	/* Synced: what it makes superfluous is deleted as soon as it is seen (gc.c), which gives space back. */
	struct rollup_change r = {.change = {.run = run_rollup, .sync = KV_RELEASE}};
	uint64_t began = core_ticks_us();
	struct kv_blob_put put;
	struct core_buf bytes = {0};
	struct core_state state;
	enum kv_rc rc = core_shard_state(s, &state, err);

	if (rc != KV_OK)
		return rc;
	rc = core_state_encode(s->home.shard, &state, &bytes, err);
	r.rollup.seqno = state.seqno;
	core_state_fini(&state);
	if (rc == KV_OK && bytes.len > KV_VALUE_MAX)
		rc = kv_fail(err, KV_QUOTA, "the state of %zu bytes is larger than a blob may be", bytes.len);
	if (rc != KV_OK)
		goto out;

	rollup_key(s->engine, s->home.shard, &r.rollup);
	put = (struct kv_blob_put){.key = r.rollup.key, .data = bytes.data, .len = bytes.len};
	if (bytes.len > ROLLUP_INSIDE_MAX) {
		rc = kv_blob_set(kv_store_blobs(s->engine->store), put.key, put.data, put.len, err);
	} else {
		r.change.blobs = &put;
		r.change.blob_count = 1;
	}
	if (rc == KV_OK)
		rc = core_machine_commit(s, &r.change, err);
	/* What fails to go is a blob that nobody names, which the sweep finds. */
	if (rc == KV_OK && r.unused && bytes.len > ROLLUP_INSIDE_MAX &&
	    kv_blob_delete(kv_store_blobs(s->engine->store), put.key, NULL, NULL, NULL) != KV_OK)
		r.unused = false;
	if (rc == KV_OK) {
		core_count(s->engine, CORE_M_ROLLUPS, 1);
		core_count(s->engine, CORE_M_ROLLUP_BYTES, bytes.len);
		core_timed(s->engine, CORE_T_ROLLUP, began);
	}
out:
	/* After a failure too: the next try is due when as many bytes of versions have come again. */
	pthread_mutex_lock(&s->commit_mu);
	if (bytes.len > s->rollup_bytes || rc == KV_OK)
		s->rollup_bytes = bytes.len;
	if (rc != KV_OK)
		s->rollup_weight = 0;
	pthread_mutex_unlock(&s->commit_mu);
	core_buf_fini(&bytes);
	return rc;
}

struct rollup_job {
	struct core_job job;
	struct core_shard *shard; /* a reference */
};

static void do_rollup_job(struct core_job *job, bool stopping)
{
	struct rollup_job *j = (struct rollup_job *)job;
	struct kv_err err;

	if (!stopping && core_write_rollup(j->shard, &err) != KV_OK && err.rc != KV_NO_SHARD)
		core_notice(j->shard->engine, "a rollup was not written: %s", err.msg);
	core_upkeep_queue(j->shard); /* the one before, and the versions behind it, can go */
	pthread_mutex_lock(&j->shard->commit_mu);
	j->shard->rollup_queued = false;
	pthread_mutex_unlock(&j->shard->commit_mu);
	core_gauge_add(j->shard->engine, CORE_G_JOBS, -1);
	core_shard_close(j->shard);
	free(j);
}

void core_queue_rollup(struct core_shard *s)
{
	struct rollup_job *j = s->engine->worker != NULL ? malloc(sizeof *j) : NULL;

	if (j == NULL)
		return; /* the next commit tries again */
	*j = (struct rollup_job){.job.run = do_rollup_job, .shard = core_shard_ref(s)};
	s->rollup_queued = true;
	core_gauge_add(s->engine, CORE_G_JOBS, 1);
	core_worker_queue(s->engine->worker, &j->job);
}

/* --- the first and the last version ---------------------------------------------------------------- */

/* After an unknown outcome: KV_OK: the first version d landed. KV_MISMATCH: another one is there. KV_UNKNOWN:
 * none is there yet, or the store does not tell. */
static enum kv_rc look_for_first(struct core_engine *e, struct core_shard_id id, uint64_t over,
				 const struct core_diff *d, struct kv_err *err)
{
	struct kv_version head;
	struct core_diff there;
	char key[CORE_ID_LEN];
	enum kv_rc rc = kv_consensus_head(kv_store_consensus(e->store), core_uuid_format('s', id.u, key),
					  &head, NULL);
	bool ours;

	if (rc != KV_OK || head.seqno == over) {
		free(rc == KV_OK ? head.data : NULL);
		return kv_fail_rc(err, KV_UNKNOWN);
	}
	rc = core_diff_decode(id, head.data, head.len, &there, NULL);
	ours = rc == KV_OK && core_uuid_eq(there.attempt, d->attempt);
	core_diff_fini(&there);
	free(head.data);
	if (rc != KV_OK)
		return kv_fail_rc(err, KV_UNKNOWN);
	return ours ? KV_OK : kv_fail_rc(err, KV_MISMATCH);
}

/* The state a shard begins with, and the version that names the rollup of it. */
static enum kv_rc first_version(struct core_engine *e, struct core_shard_id id, struct core_owner owner,
				const struct core_content *content, uint64_t over, struct core_state *state,
				struct core_diff *d, struct kv_err *err)
{
	uint64_t now_us = core_now_us(e);
	enum kv_rc rc;

	d->seqno = now_us > over ? now_us : over + 1;
	d->walltime_ms = now_us / 1000;
	d->attempt = core_uuid_new();
	d->has_rollup = true;
	d->rollup.seqno = d->seqno;
	rollup_key(e, id, &d->rollup);
	d->newest_rollup = d->rollup;
	/* Not needed to load the shard, but to rebuild its state where the rollup is damaged (chain.c). */
	d->has_owner = true;
	d->owner = owner;
	rc = core_state_init(state, d->seqno, d->walltime_ms, owner, err);
	if (rc == KV_OK && content != NULL) {
		d->has_upper = true;
		d->upper = content->upper;
		rc = core_content_fill(content, state, err);
	}
	if (rc != KV_OK)
		return rc;
	state->attempt = d->attempt;
	state->rollups = calloc(1, sizeof *state->rollups);
	if (state->rollups == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	state->rollups[state->rollup_count++] = d->rollup;
	return content != NULL ? core_state_check(state, err) : KV_OK;
}

/* The tombstone to make a shard over is deleted already where it was loaded while that happened. */
static enum kv_rc see_tombstone(struct core_engine *e, const char *key, uint64_t *over, struct kv_err *err)
{
	struct kv_version head;
	enum kv_rc rc = kv_consensus_head(kv_store_consensus(e->store), key, &head, err);

	if (rc == KV_OK)
		free(head.data);
	if (rc != KV_NOTFOUND)
		return rc;
	*over = KV_NO_VERSION;
	return KV_OK;
}

enum kv_rc core_machine_init(struct core_engine *e, struct core_shard_id id, struct core_owner owner,
			     const struct core_content *content, uint64_t over, struct kv_err *err)
{
	struct core_state state = {0};
	struct core_diff d;
	struct core_buf rollup = {0}, version = {0};
	struct kv_blob_put put;
	char key[CORE_ID_LEN];
	enum kv_rc rc = KV_OK;

	core_diff_init(&d);
	core_uuid_format('s', id.u, key);
	if (over != KV_NO_VERSION)
		rc = see_tombstone(e, key, &over, err);
	if (rc != KV_OK)
		goto out;
	rc = first_version(e, id, owner, content, over, &state, &d, err);
	if (rc == KV_OK)
		rc = core_state_encode(id, &state, &rollup, err);
	if (rc == KV_OK)
		rc = core_diff_encode(id, &d, &version, err);
	if (rc == KV_OK && rollup.len > KV_VALUE_MAX)
		rc = kv_fail(err, KV_QUOTA, "the state of %zu bytes is larger than a blob may be",
			     rollup.len);
	if (rc != KV_OK)
		goto out;
	put = (struct kv_blob_put){.key = d.rollup.key, .data = rollup.data, .len = rollup.len};
	rc = kv_store_commit(e->store, key, over, d.seqno, version.data, version.len, &put, 1, KV_SYNC, err);
	for (unsigned tries = 0; rc == KV_UNKNOWN && tries < CORE_UNKNOWN_TRIES; tries++) {
		rc = look_for_first(e, id, over, &d, err);
		/* It can land once at most; what a failure now means, the next look tells. */
		if (rc == KV_UNKNOWN && kv_store_commit(e->store, key, over, d.seqno, version.data,
							version.len, &put, 1, KV_SYNC, NULL) == KV_OK)
			rc = KV_OK;
	}
out:
	core_state_fini(&state);
	core_diff_fini(&d);
	core_buf_fini(&rollup);
	core_buf_fini(&version);
	return rc;
}

#define DYING "dying-"
enum { DYING_KEY_LEN = sizeof DYING + CORE_ID_LEN };

static char *dying_key(struct core_shard_id id, char key[DYING_KEY_LEN])
{
	char text[CORE_ID_LEN];

	snprintf(key, DYING_KEY_LEN, DYING "%s", core_uuid_format('s', id.u, text));
	return key;
}

enum kv_rc core_dying_mark(struct core_engine *e, struct core_shard_id id, struct kv_err *err)
{
	char key[DYING_KEY_LEN];
	enum kv_rc rc = kv_consensus_compare_and_set(kv_store_consensus(e->store), dying_key(id, key),
						     KV_NO_VERSION, 1, "", 0, KV_RELEASE, err);

	if (rc == KV_MISMATCH)
		return KV_OK;
	return rc == KV_UNKNOWN ? kv_fail(err, KV_UNREACHABLE, "the store failed; the shard was not removed")
				: rc;
}

enum kv_rc core_dying_unmark(struct core_engine *e, struct core_shard_id id, struct kv_err *err)
{
	char key[DYING_KEY_LEN];
	enum kv_rc rc = kv_consensus_remove(kv_store_consensus(e->store), dying_key(id, key), 1, err);

	return rc == KV_NOTFOUND ? KV_OK : rc;
}

/* Looking at a tombstone has it deleted, in the background. A mark without one was made for a removal that
 * never came to it, or is done. */
static enum kv_rc resume_one(struct core_engine *e, struct core_shard_id id, struct kv_err *err)
{
	struct core_shard *s;
	struct kv_version head;
	char key[CORE_ID_LEN];
	enum kv_rc rc = core_shard_open(e, id, &s, err);

	core_shard_close(s);
	if (rc == KV_NO_SHARD) {
		rc = kv_consensus_head(kv_store_consensus(e->store), core_uuid_format('s', id.u, key), &head,
				       err);
		if (rc == KV_OK) {
			free(head.data);
			return KV_OK;
		}
	}
	return rc == KV_OK || rc == KV_NOTFOUND ? core_dying_unmark(e, id, err) : rc;
}

enum kv_rc core_dying_resume(struct core_engine *e, struct kv_err *err)
{
	char after[DYING_KEY_LEN] = DYING;
	struct kv_err why = {0};
	bool more = true;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && more) {
		struct kv_keys keys;

		rc = kv_consensus_list_keys(kv_store_consensus(e->store), after, DELETE_PAGE, &keys, err);
		more = keys.count == DELETE_PAGE;
		for (size_t i = 0; i < keys.count && rc == KV_OK; i++) {
			const char *text = keys.keys[i] + strlen(DYING);
			struct core_shard_id id;

			more = more && strncmp(keys.keys[i], DYING, strlen(DYING)) == 0;
			if (strncmp(keys.keys[i], DYING, strlen(DYING)) != 0)
				break;
			snprintf(after, sizeof after, "%s", keys.keys[i]);
			/* One that cannot be finished now must not keep the others from being used. */
			if (core_uuid_parse('s', text, strlen(text), &id.u) &&
			    resume_one(e, id, &why) != KV_OK)
				core_notice(e, "a removed shard was not deleted yet: %s", why.msg);
		}
		kv_keys_free(&keys);
	}
	return rc;
}

/* A staged batch's parts, then the manifest that names them. */
static enum kv_rc delete_staged(struct core_shard *s, const struct core_staged *entry, struct kv_err *err)
{
	struct core_manifest manifest;
	char key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc = core_manifest_read(&s->home, entry, &manifest, err);

	if (rc == KV_NOTFOUND || rc == KV_CORRUPT) /* deleted before, or past telling */
		return KV_OK;
	if (rc != KV_OK)
		return rc;
	core_batch_delete_blobs(&s->home, manifest.batch);
	core_manifest_fini(&manifest);
	return entry->manifest_bytes == 0
		       ? KV_OK
		       : kv_blob_delete(s->home.blobs, core_manifest_key(s->home.shard, entry, key), NULL,
					NULL, err);
}

static enum kv_rc delete_named(struct core_shard *s, struct kv_err *err)
{
	struct kv_blobs *blobs = kv_store_blobs(s->engine->store);
	char key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < s->state.staged_count && rc == KV_OK; i++)
		rc = delete_staged(s, &s->state.staged[i], err);
	for (size_t i = 0; i < s->state.batch_count; i++) {
		const struct core_batch *b = s->state.batches[i];

		for (size_t j = 0; j < b->part_count && rc == KV_OK; j++)
			if (b->parts[j].inline_data == NULL)
				rc = kv_blob_delete(blobs, core_part_key(s->home.shard, &b->parts[j], key),
						    NULL, NULL, err);
	}
	for (size_t i = 0; i < s->state.dead_count && rc == KV_OK; i++) {
		struct core_part part = {.id = s->state.dead[i].id, .instance = s->state.dead[i].instance};

		rc = kv_blob_delete(blobs, core_part_key(s->home.shard, &part, key), NULL, NULL, err);
	}
	for (size_t i = 0; i < s->state.rollup_count && rc == KV_OK; i++)
		rc = kv_blob_delete(blobs, s->state.rollups[i].key, NULL, NULL, err);
	return rc;
}

static enum kv_rc delete_all(struct core_shard *s, struct kv_err *err)
{
	struct kv_blobs *blobs = kv_store_blobs(s->engine->store);
	char key[CORE_ID_LEN], prefix[CORE_ID_LEN + 1];
	enum kv_rc rc = KV_OK;
	size_t count = DELETE_PAGE;

	snprintf(prefix, sizeof prefix, "%s/", core_shard_key(s, key));
	while (rc == KV_OK && count == DELETE_PAGE) {
		struct kv_blob_list list;

		rc = kv_blob_list(blobs, prefix, "", DELETE_PAGE, &list, err);
		count = list.count;
		for (size_t i = 0; i < list.count && rc == KV_OK; i++)
			rc = kv_blob_delete(blobs, list.e[i].key, NULL, NULL, err);
		kv_blob_list_free(&list);
	}
	return rc;
}

/* The newest version under the shard's id, and whether it ends a shard. KV_NOTFOUND: there is none. */
static enum kv_rc look_at_head(struct core_shard *s, uint64_t *seqno, bool *tombstone, struct kv_err *err)
{
	struct kv_version head;
	struct core_diff d;
	char key[CORE_ID_LEN];
	enum kv_rc rc =
		kv_consensus_head(kv_store_consensus(s->engine->store), core_shard_key(s, key), &head, err);

	if (rc != KV_OK)
		return rc;
	*seqno = head.seqno;
	rc = core_diff_decode(s->home.shard, head.data, head.len, &d, err);
	*tombstone = rc == KV_OK && d.tombstone;
	core_diff_fini(&d);
	free(head.data);
	return rc;
}

enum kv_rc core_machine_bury(struct core_shard *s, enum core_burial burial, struct kv_err *err)
{
	char key[CORE_ID_LEN];
	uint64_t seqno = 0;
	bool tombstone = false;
	enum kv_rc rc;

	if (burial == CORE_BURY_NOTHING)
		return KV_OK;
	rc = look_at_head(s, &seqno, &tombstone, err);
	if (rc == KV_NOTFOUND)
		return KV_OK;
	if (rc != KV_OK)
		return rc;
	if (burial == CORE_BURY_NAMED || !tombstone)
		return delete_named(s, err);
	rc = delete_all(s, err);
	if (rc == KV_OK)
		rc = kv_consensus_remove(kv_store_consensus(s->engine->store), core_shard_key(s, key), seqno,
					 err);
	if (rc == KV_OK || rc == KV_NOTFOUND || rc == KV_MISMATCH)
		rc = core_dying_unmark(s->engine, s->home.shard, err);
	return rc;
}
