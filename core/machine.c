/*
 * machine.c - how a shard's state is loaded, changed and kept.
 *
 * In consensus, under the shard's id, lie its versions: each a diff, framed as
 * in state_codec.c. Each diff names the newest rollup as of its version: a blob
 *     <shard>/v<seqno>/<instance>
 * with the whole state at that version. Loading reads the head, the rollup it
 * names and the diffs after that.
 *
 * One commit:
 *
 *     transition(state) -> diff -> encode -> store: blobs + compare-and-set -> apply -> wake
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
 *
 * A rollup is due after CORE_ROLLUP_VERSIONS versions, and when the versions
 * since the last one weigh as much as that did: the cost of rollups stays a
 * constant share of that of the versions, however large a state is.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"

enum { SCAN_PAGE = 256, ROLLUP_READ = 256 << 10, ROLLUP_INSIDE_MAX = 128 << 10 };

static char *shard_key(const struct core_shard *s, char buf[CORE_ID_LEN])
{
	return core_uuid_format('s', s->home.shard.u, buf);
}

/* --- loading --------------------------------------------------------------------------------------- */

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

/* Count what the commits keep an eye on, from the whole state; later kept up to date by each commit. */
static void recount(struct core_shard *s)
{
	const struct core_state *st = &s->state;
	struct core_totals totals = core_state_totals(st);

	s->inline_bytes = totals.inline_bytes;
	s->tail = 0;
	while (s->tail < st->batch_count) {
		const struct core_batch *b = st->batches[st->batch_count - s->tail - 1];

		if (b->part_count != 0 && core_batch_inline_bytes(b) == 0)
			break;
		s->tail++;
	}
}

/* Apply a version under both locks. */
static enum kv_rc apply(struct core_shard *s, const struct core_diff *d, size_t bytes, struct kv_err *err)
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
static enum kv_rc catch_up(struct core_shard *s, struct kv_err *err)
{
	char key[CORE_ID_LEN];
	size_t count = SCAN_PAGE;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count == SCAN_PAGE) {
		struct kv_versions versions;

		rc = kv_consensus_scan(kv_store_consensus(s->engine->store), shard_key(s, key), s->state.seqno + 1,
				       SCAN_PAGE, &versions, err);
		count = versions.count;
		for (size_t i = 0; i < versions.count && rc == KV_OK; i++) {
			struct core_diff d;

			rc = core_diff_decode(s->home.shard, versions.v[i].data, versions.v[i].len, &d, err);
			if (rc == KV_OK)
				rc = apply(s, &d, versions.v[i].len, err);
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
		return kv_wrap(err, rc, "shard %s: rollup %s", shard_key(s, key), rollup->key);
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
	enum kv_rc rc;

	rc = kv_consensus_head(kv_store_consensus(s->engine->store), shard_key(s, key), &head, err);
	if (rc == KV_NOTFOUND)
		return kv_fail(err, KV_NO_SHARD, "no shard %s", key);
	if (rc != KV_OK)
		return kv_wrap(err, rc, "shard %s", key);
	rc = core_diff_decode(s->home.shard, head.data, head.len, &d, err);
	rollup = d.newest_rollup;
	core_diff_fini(&d);
	free(head.data);
	if (rc != KV_OK)
		return kv_wrap(err, rc, "shard %s: version %" PRIu64, key, head.seqno);
	rc = load_rollup(s, &rollup, err);
	if (rc == KV_OK)
		rc = catch_up(s, err);
	if (rc == KV_OK)
		rc = core_state_check(&s->state, err);
	if (rc != KV_OK) {
		pthread_mutex_lock(&s->mu);
		core_state_fini(&s->state);
		pthread_mutex_unlock(&s->mu);
		return rc;
	}
	recount(s);
	pthread_mutex_lock(&s->mu);
	s->loaded = true;
	pthread_mutex_unlock(&s->mu);
	return KV_OK;
}

static enum kv_rc refresh_locked(struct core_shard *s, bool recent, struct kv_err *err)
{
	enum kv_rc rc;

	if (s->gone) {
		struct kv_version head;
		char key[CORE_ID_LEN];

		rc = kv_consensus_head(kv_store_consensus(s->engine->store), shard_key(s, key), &head, NULL);
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
	if (!recent || s->engine->traits.sole_owner)
		return KV_OK;
	rc = catch_up(s, err);
	if (rc == KV_OK)
		recount(s);
	return rc;
}

enum kv_rc core_machine_load(struct core_shard *s, bool recent, struct kv_err *err)
{
	enum kv_rc rc;
	bool enough;

	pthread_mutex_lock(&s->mu);
	enough = s->loaded && !s->gone && (!recent || s->engine->traits.sole_owner);
	pthread_mutex_unlock(&s->mu);
	if (enough)
		return KV_OK;
	pthread_mutex_lock(&s->commit_mu);
	rc = refresh_locked(s, recent, err);
	pthread_mutex_unlock(&s->commit_mu);
	return rc;
}

/* --- those who wait -------------------------------------------------------------------------------- */

/* Detach the waiters whose time the upper has passed; all of them when the shard is gone. Under mu. */
static struct core_waiter *ripe_waiters(struct core_shard *s)
{
	struct core_waiter *first = s->waiters, **p = &s->waiters;

	while (*p != NULL && (s->gone || !core_frontier_covers(s->state.upper, (*p)->time)))
		p = &(*p)->next;
	if (p == &s->waiters)
		return NULL;
	s->waiters = *p;
	*p = NULL;
	return first;
}

static void wake(struct core_waiter *w)
{
	while (w != NULL) {
		struct core_waiter *next = w->next;

		w->wake(w); /* may free it */
		w = next;
	}
}

bool core_shard_wait(struct core_shard *s, struct core_waiter *w)
{
	struct core_waiter **p = &s->waiters;
	bool waits;

	pthread_mutex_lock(&s->mu);
	waits = s->loaded && !s->gone && core_frontier_covers(s->state.upper, w->time);
	if (waits) {
		while (*p != NULL && (*p)->time <= w->time)
			p = &(*p)->next;
		w->next = *p;
		*p = w;
	}
	pthread_mutex_unlock(&s->mu);
	return waits;
}

bool core_shard_unwait(struct core_shard *s, struct core_waiter *w)
{
	struct core_waiter **p = &s->waiters;
	bool found;

	pthread_mutex_lock(&s->mu);
	while (*p != NULL && *p != w)
		p = &(*p)->next;
	found = *p == w;
	if (found)
		*p = w->next;
	pthread_mutex_unlock(&s->mu);
	return found;
}

void core_machine_end(struct core_shard *s)
{
	struct core_waiter *woken;

	pthread_mutex_lock(&s->mu);
	s->gone = true;
	woken = ripe_waiters(s);
	pthread_mutex_unlock(&s->mu);
	wake(woken);
}

/* --- committing ------------------------------------------------------------------------------------ */

#ifdef CORE_SLOW_CHECKS
/* The stored bytes, applied to a copy of the old state, must give the new one. */
struct shadow {
	struct core_state state;
};

static void shadow_begin(struct core_shard *s, const struct core_buf *version, struct shadow *shadow)
{
	struct core_buf bytes;
	struct core_diff d;
	struct kv_err err;
	enum kv_rc rc = core_state_encode(s->home.shard, &s->state, &bytes, &err);

	if (rc == KV_OK)
		rc = core_state_decode(s->home.shard, bytes.data, bytes.len, &shadow->state, &err);
	assert(rc == KV_OK);
	core_buf_fini(&bytes);
	rc = core_diff_decode(s->home.shard, version->data, version->len, &d, &err);
	if (rc == KV_OK)
		rc = core_state_apply(&shadow->state, &d, &err);
	assert(rc == KV_OK);
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
	assert(rc == KV_OK && a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
	core_buf_fini(&a);
	core_buf_fini(&b);
	core_state_fini(&shadow->state);
}
#endif

/* Whether version seqno is there, and is that of our attempt. */
static enum kv_rc look_for_attempt(struct core_shard *s, uint64_t seqno, struct core_uuid attempt, bool *there,
				   bool *ours, struct kv_err *err)
{
	struct kv_versions versions;
	struct core_diff d;
	char key[CORE_ID_LEN];
	enum kv_rc rc = kv_consensus_scan(kv_store_consensus(s->engine->store), shard_key(s, key), seqno, 1,
					  &versions, err);

	*there = rc == KV_OK && versions.count == 1;
	*ours = false;
	if (*there) {
		rc = core_diff_decode(s->home.shard, versions.v[0].data, versions.v[0].len, &d, err);
		*ours = rc == KV_OK && core_uuid_eq(d.attempt, attempt);
		core_diff_fini(&d);
	}
	kv_versions_free(&versions);
	return rc;
}

struct attempt {
	const struct core_diff *d;
	struct core_buf version;
	struct kv_blob_put blobs[4];
	size_t blob_count;
	enum kv_sync sync;
};

static enum kv_rc store_version(struct core_shard *s, const struct attempt *a, struct kv_err *err)
{
	char key[CORE_ID_LEN];

	return kv_store_commit(s->engine->store, shard_key(s, key), a->d->seqno - 1, a->d->seqno, a->version.data,
			       a->version.len, a->blobs, a->blob_count, a->sync, err);
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
			rc = store_version(s, a, NULL);
		if (rc == KV_OK)
			return KV_OK;
	}
	return kv_fail(err, KV_UNKNOWN,
		       "the store failed and does not tell whether the change was made; try again with the same token");
}

/* Store the version d and apply it. */
static enum kv_rc commit_diff(struct core_shard *s, struct core_change *c, struct core_diff *d,
			      struct kv_err *err)
{
	struct attempt a = {.d = d, .sync = c->sync, .blob_count = c->blob_count};
	struct core_buf fold_blob = {0};
	char fold_key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc = KV_OK;

	assert(c->blob_count <= 3);
	if (c->blob_count != 0)
		memcpy(a.blobs, c->blobs, c->blob_count * sizeof a.blobs[0]);
	d->walltime_ms = core_now_us(s->engine) / 1000;
	if (d->walltime_ms < s->state.walltime_ms)
		d->walltime_ms = s->state.walltime_ms; /* a clock that went back */
	s->attempts++;
	memcpy(d->attempt.b, s->engine->instance.u.b, 8);
	memcpy(d->attempt.b + 8, &s->attempts, 8);
	d->newest_rollup = d->has_rollup ? d->rollup : s->rollup;
	if (c->may_fold && (s->tail >= CORE_FOLD_BATCHES || s->inline_bytes >= CORE_INLINE_TOTAL)) {
		rc = core_fold(s, s->tail, d, &fold_blob, fold_key, err);
		if (rc == KV_OK && fold_blob.len != 0)
			a.blobs[a.blob_count++] =
				(struct kv_blob_put){.key = fold_key, .data = fold_blob.data, .len = fold_blob.len};
	}
	if (rc == KV_OK)
		rc = core_diff_encode(s->home.shard, d, &a.version, err);
	if (rc != KV_OK)
		goto out;
#ifdef CORE_SLOW_CHECKS
	struct shadow shadow;
	shadow_begin(s, &a.version, &shadow);
#endif
	rc = store_version(s, &a, err);
	if (rc == KV_UNKNOWN)
		rc = settle_unknown(s, &a, err);
	if (rc == KV_OK) {
		rc = apply(s, d, a.version.len, err);
		assert(rc == KV_OK || rc == KV_NOMEM);
		if (rc == KV_NOMEM) { /* it is stored; load it again when there is memory */
			pthread_mutex_lock(&s->mu);
			core_state_fini(&s->state);
			s->loaded = false;
			pthread_mutex_unlock(&s->mu);
			rc = KV_OK;
		}
	}
#ifdef CORE_SLOW_CHECKS
	if (rc == KV_OK && s->loaded)
		shadow_end(s, &shadow);
	else
		core_state_fini(&shadow.state);
#endif
out:
	core_buf_fini(&a.version);
	core_buf_fini(&fold_blob);
	return rc;
}

/* What a commit changes in the counts that recount() makes. */
static void count_diff(struct core_shard *s, const struct core_diff *d)
{
	for (size_t i = 0; i < d->splice_count; i++) {
		const struct core_splice *splice = &d->splices[i];

		if (!core_frontier_eq(splice->lower, splice->upper)) {
			recount(s);
			return;
		}
		for (size_t j = 0; j < splice->count; j++) {
			uint64_t bytes = core_batch_inline_bytes(splice->batches[j]);

			s->inline_bytes += bytes;
			s->tail = bytes != 0 || splice->batches[j]->part_count == 0 ? s->tail + 1 : 0;
		}
	}
}

static void queue_rollup(struct core_shard *s);

enum kv_rc core_machine_commit(struct core_shard *s, struct core_change *c, struct kv_err *err)
{
	struct core_waiter *woken = NULL;
	bool fresh = false;
	enum kv_rc rc;

	if (s->engine->traits.read_only)
		return kv_fail_rc(err, KV_READONLY);
	pthread_mutex_lock(&s->commit_mu);
	rc = refresh_locked(s, false, err);
	while (rc == KV_OK) {
		struct core_diff d;
		bool skip = false;
		enum kv_rc ran;

		core_diff_init(&d);
		ran = c->run(c, &s->state, &d, &skip, err);
		if (ran == KV_OK && !skip)
			rc = commit_diff(s, c, &d, err);
		if (ran == KV_OK && !skip && rc == KV_OK)
			count_diff(s, &d);
		core_diff_fini(&d);
		/* A refusal must not come from a stale state: look at consensus before it is given. */
		if ((ran != KV_OK && !fresh && !s->engine->traits.sole_owner) || rc == KV_MISMATCH) {
			uint64_t before = s->state.seqno;
			bool lost = rc == KV_MISMATCH;

			fresh = true;
			rc = lost ? catch_up(s, err) : refresh_locked(s, true, err);
			if (rc == KV_OK && lost && s->state.seqno == before)
				rc = kv_fail(err, KV_CORRUPT, "the store refuses version %" PRIu64 " and has no newer one",
					     before + 1);
			recount(s);
			continue;
		}
		if (ran != KV_OK)
			rc = ran;
		break;
	}
	pthread_mutex_lock(&s->mu);
	if (s->loaded)
		woken = ripe_waiters(s);
	pthread_mutex_unlock(&s->mu);
	if (s->loaded && !s->rollup_queued && s->state.seqno - s->rollup.seqno >= CORE_ROLLUP_VERSIONS &&
	    s->rollup_weight >= s->rollup_bytes && !s->state.tombstone)
		queue_rollup(s);
	pthread_mutex_unlock(&s->commit_mu);
	wake(woken);
	return rc;
}

/* --- rollups --------------------------------------------------------------------------------------- */

struct rollup_change {
	struct core_change change;
	struct core_rollup rollup;
};

static enum kv_rc run_rollup(struct core_change *c, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	struct rollup_change *r = (struct rollup_change *)c;
	enum kv_rc rc = core_do_rollup(s, &r->rollup, d, err);

	*skip = rc == KV_EXISTS || rc == KV_NO_SHARD; /* nothing to do any more */
	return *skip ? KV_OK : rc;
}

static void rollup_key(struct core_engine *e, struct core_shard_id id, struct core_rollup *rollup)
{
	char shard[CORE_ID_LEN], instance[CORE_ID_LEN];

	core_uuid_format('s', id.u, shard);
	core_uuid_format('n', e->instance.u, instance);
	snprintf(rollup->key, sizeof rollup->key, "%s/v%" PRIu64 "/%s", shard, rollup->seqno, instance);
}

static enum kv_rc write_rollup(struct core_shard *s, struct kv_err *err)
{
	struct rollup_change r = {.change = {.run = run_rollup, .sync = KV_RIDE}};
	struct kv_blob_put put;
	struct core_buf bytes = {0};
	enum kv_rc rc;

	/* Writers wait while the state is turned into bytes, not while they are stored. */
	pthread_mutex_lock(&s->commit_mu);
	rc = refresh_locked(s, false, err);
	if (rc == KV_OK)
		rc = core_state_encode(s->home.shard, &s->state, &bytes, err);
	r.rollup.seqno = rc == KV_OK ? s->state.seqno : 0;
	pthread_mutex_unlock(&s->commit_mu);
	if (rc != KV_OK)
		return rc;

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
	pthread_mutex_lock(&s->commit_mu);
	if (rc == KV_OK)
		s->rollup_bytes = bytes.len;
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

	if (!stopping && write_rollup(j->shard, &err) != KV_OK && err.rc != KV_NO_SHARD)
		core_notice(j->shard->engine, "a rollup was not written: %s", err.msg);
	pthread_mutex_lock(&j->shard->commit_mu);
	j->shard->rollup_queued = false;
	pthread_mutex_unlock(&j->shard->commit_mu);
	core_shard_close(j->shard);
	free(j);
}

static void queue_rollup(struct core_shard *s)
{
	struct rollup_job *j = malloc(sizeof *j);

	if (j == NULL)
		return; /* the next commit tries again */
	*j = (struct rollup_job){.job.run = do_rollup_job, .shard = core_shard_ref(s)};
	s->rollup_queued = true;
	core_worker_queue(s->engine->worker, &j->job);
}

/* --- the first and the last version ---------------------------------------------------------------- */

enum kv_rc core_machine_init(struct core_engine *e, struct core_shard_id id, struct core_owner owner,
			     uint64_t over, struct kv_err *err)
{
	uint64_t now_us = core_now_us(e);
	struct core_state state = {0};
	struct core_diff d;
	struct core_buf rollup = {0}, version = {0};
	struct kv_blob_put put;
	char key[CORE_ID_LEN];
	enum kv_rc rc;

	core_diff_init(&d);
	d.seqno = now_us > over ? now_us : over + 1;
	d.walltime_ms = now_us / 1000;
	d.attempt = core_uuid_new();
	d.has_rollup = true;
	d.rollup.seqno = d.seqno;
	rollup_key(e, id, &d.rollup);
	d.newest_rollup = d.rollup;
	rc = core_state_init(&state, d.seqno, d.walltime_ms, owner, err);
	if (rc != KV_OK)
		return rc;
	state.attempt = d.attempt;
	state.rollups = calloc(1, sizeof *state.rollups);
	if (state.rollups == NULL) {
		rc = kv_fail_rc(err, KV_NOMEM);
		goto out;
	}
	state.rollups[state.rollup_count++] = d.rollup;
	rc = core_state_encode(id, &state, &rollup, err);
	if (rc == KV_OK)
		rc = core_diff_encode(id, &d, &version, err);
	if (rc != KV_OK)
		goto out;
	put = (struct kv_blob_put){.key = d.rollup.key, .data = rollup.data, .len = rollup.len};
	rc = kv_store_commit(e->store, core_uuid_format('s', id.u, key), over, d.seqno, version.data, version.len,
			     &put, 1, KV_SYNC, err);
out:
	core_state_fini(&state);
	core_diff_fini(&d);
	core_buf_fini(&rollup);
	core_buf_fini(&version);
	return rc;
}

static enum kv_rc delete_named(struct core_shard *s, struct kv_err *err)
{
	struct kv_blobs *blobs = kv_store_blobs(s->engine->store);
	char key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < s->state.batch_count; i++) {
		const struct core_batch *b = s->state.batches[i];

		for (size_t j = 0; j < b->part_count && rc == KV_OK; j++)
			if (b->parts[j].inline_data == NULL)
				rc = kv_blob_delete(blobs, core_part_key(s->home.shard, &b->parts[j], key), NULL, NULL, err);
	}
	for (size_t i = 0; i < s->state.rollup_count && rc == KV_OK; i++)
		rc = kv_blob_delete(blobs, s->state.rollups[i].key, NULL, NULL, err);
	return rc;
}

static enum kv_rc delete_all(struct core_shard *s, struct kv_err *err)
{
	struct kv_blobs *blobs = kv_store_blobs(s->engine->store);
	char prefix[CORE_ID_LEN + 1];
	enum kv_rc rc = KV_OK;
	size_t count = SCAN_PAGE;

	shard_key(s, prefix);
	strcat(prefix, "/"); /* room for it by the array's size */
	while (rc == KV_OK && count == SCAN_PAGE) {
		struct kv_blob_list list;

		rc = kv_blob_list(blobs, prefix, "", SCAN_PAGE, &list, err);
		count = list.count;
		for (size_t i = 0; i < list.count && rc == KV_OK; i++)
			rc = kv_blob_delete(blobs, list.e[i].key, NULL, NULL, err);
		kv_blob_list_free(&list);
	}
	return rc;
}

enum kv_rc core_machine_bury(struct core_shard *s, struct kv_err *err)
{
	struct kv_consensus *consensus = kv_store_consensus(s->engine->store);
	struct kv_version head;
	char key[CORE_ID_LEN];
	enum kv_rc rc = kv_consensus_head(consensus, shard_key(s, key), &head, err);
	bool replaced = rc == KV_OK && head.seqno != s->state.seqno;

	if (rc == KV_OK)
		free(head.data);
	if (rc == KV_NOTFOUND)
		return KV_OK;
	if (rc != KV_OK)
		return rc;
	if (replaced) /* another shard lives under the id: only what was ours */
		return delete_named(s, err);
	rc = delete_all(s, err);
	if (rc == KV_OK)
		rc = kv_consensus_remove(consensus, key, s->state.seqno, err);
	return rc == KV_NOTFOUND || rc == KV_MISMATCH ? KV_OK : rc;
}
