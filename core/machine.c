/*
 * machine.c - how a shard's state is changed.
 *
 * One commit:
 *
 *     transition(state) -> diff -> encode -> store: blobs + compare-and-set -> apply -> wake
 *
 * What goes along with the diff, and how far since goes, is settled in leases.c.
 *
 * Changes that group (group.c) and meet are run one on the other's result, on a copy of the state, and their
 * versions are stored in one step; then each is applied like a single one.
 *
 * Invariants:
 *  1. The state in memory is that of a version that was stored, and only goes
 *     forward. It changes under commit_mu and mu, so the one who commits may
 *     read it with commit_mu alone.
 *  2. A state is applied only after its version is durable (or rides before the
 *     next one that is): what a reader sees is never taken back by a crash.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/attempt.h"
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

static void shadow_begin(struct core_shard *s, const struct core_attempt *a, struct shadow *shadow)
{
	struct core_buf bytes = {0};
	struct core_diff d = {0};
	struct kv_err err;
	enum kv_rc rc = core_state_encode(s->home.shard, &s->state, &bytes, &err);

	*shadow = (struct shadow){0};
	if (rc == KV_OK)
		rc = core_state_decode(s->home.shard, bytes.data, bytes.len, &shadow->state, &err);
	for (size_t i = 0; i < a->count && rc == KV_OK; i++) {
		rc = core_diff_decode(s->home.shard, a->versions[i].data, a->versions[i].len, &d, &err);
		if (rc == KV_OK)
			rc = core_state_apply(&shadow->state, &d, &err);
		core_diff_fini(&d);
	}
	assert(rc == KV_OK || rc == KV_NOMEM);
	shadow->there = rc == KV_OK;
	core_buf_fini(&bytes);
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

static void count_outcome(struct core_engine *e, enum kv_rc rc, const struct core_attempt *a)
{
	core_count(e, CORE_M_UNKNOWN, rc == KV_UNKNOWN);
	core_count(e, CORE_M_CONFLICTS, rc == KV_MISMATCH);
	core_count(e, CORE_M_VERSIONS, rc == KV_OK ? a->count : 0);
	for (size_t i = 0; i < a->count && rc == KV_OK; i++)
		core_count(e, CORE_M_VERSION_BYTES, a->versions[i].len);
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

/* The version d has landed: apply it. KV_NOMEM. */
static enum kv_rc land(struct core_shard *s, const struct core_change *c, const struct core_diff *d,
		       size_t bytes, struct kv_err *err)
{
	size_t leases = s->state.lease_count, writers = s->state.writer_count;
	enum kv_rc rc;

	core_attempt_settle_loose(c, d);
	rc = core_apply_version(s, d, bytes, err);
	if (rc != KV_OK)
		return rc;
	count_leased(s, d, leases, writers);
	if (c->rearranges)
		core_fold_recount(s);
	else
		core_fold_count(s, d);
	return KV_OK;
}

/* The state lacks what was committed, or may: no answer from it until consensus was asked. */
static void doubt(struct core_shard *s)
{
	pthread_mutex_lock(&s->mu);
	s->doubtful = true;
	pthread_mutex_unlock(&s->mu);
}

/* Store the versions of the attempt, the diffs that the changes made, and apply them. */
static enum kv_rc commit_attempt(struct core_shard *s, struct core_attempt *a, struct core_change **changes,
				 const struct core_diff *diffs, struct kv_err *err)
{
	enum kv_rc rc, landed = KV_OK;

#ifdef CORE_SLOW_CHECKS
	struct shadow shadow;
	shadow_begin(s, a, &shadow);
#endif
	rc = core_attempt_store(a, err);
	count_outcome(s->engine, rc, a);
	for (size_t i = 0; i < a->count && rc == KV_OK && landed == KV_OK; i++)
		landed = land(s, changes[i], &diffs[i], a->versions[i].len, NULL);
	assert(landed == KV_OK || landed == KV_NOMEM); /* they follow the state */
	if (rc == KV_UNKNOWN || landed != KV_OK)
		doubt(s);
#ifdef CORE_SLOW_CHECKS
	if (rc == KV_OK && landed == KV_OK && shadow.there)
		shadow_end(s, &shadow);
	core_state_fini(&shadow.state);
#endif
	return rc;
}

/* What is stored must be seen: no failing for want of memory after it. */
static enum kv_rc reserve(struct core_shard *s, const struct core_diff *d, struct kv_err *err)
{
	enum kv_rc rc;

	pthread_mutex_lock(&s->mu);
	rc = core_state_reserve(&s->state, d, err);
	if (rc == KV_OK)
		rc = core_reserve_held(s, d, err);
	pthread_mutex_unlock(&s->mu);
	return rc;
}

/* Commit what the transition made, and what goes along. */
static enum kv_rc commit_next(struct core_shard *s, struct core_change *c, struct core_diff *d,
			      struct kv_err *err)
{
	struct core_attempt a;
	enum kv_rc rc;

	core_attempt_init(&a, s, c->sync);
	core_attempt_stamp(s, &s->state, c, d);
	core_hold_since(s, &s->state, d);
	rc = core_attempt_add(&a, c, d, err);
	if (rc == KV_OK)
		rc = reserve(s, d, err);
	if (rc == KV_OK)
		rc = commit_attempt(s, &a, &c, d, err);
	core_since_held(s);
	core_attempt_fini(&a);
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

void core_machine_after_locked(struct core_shard *s)
{
	if (!s->loaded || s->state.tombstone || s->rollup_queued ||
	    s->state.seqno - s->rollup.seqno < CORE_ROLLUP_VERSIONS)
		return;
	/* A large state is rolled up when the versions weigh as much: the cost stays a share of theirs. */
	if (s->rollup_bytes <= CORE_ROLLUP_SMALL || s->rollup_weight >= s->rollup_bytes)
		core_queue_rollup(s);
}

void core_machine_after(struct core_shard *s, bool synced, bool due)
{
	core_machine_wake(s);
	/* What rides is housekeeping, after which there is no more to be done than before. */
	if (synced)
		core_upkeep_touch(s);
	if (due)
		core_upkeep_queue(s);
}

/* Under commit_mu. */
static enum kv_rc commit_locked(struct core_shard *s, struct core_change *c, bool *committed, bool *due,
				struct kv_err *err)
{
	bool fresh = false;
	enum kv_rc rc = core_refresh_locked(s, false, err);

	*committed = false;
	while (rc == KV_OK) {
		struct core_diff d;
		bool skip = false;
		enum kv_rc ran;

		core_diff_init(&d);
		ran = c->run(c, &s->state, &d, &skip, err);
		if (ran == KV_OK && !skip)
			rc = commit_next(s, c, &d, err);
		*committed = ran == KV_OK && !skip && rc == KV_OK;
		*due = *due || (*committed && makes_due(s, &d));
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
	return rc;
}

/* --- several at once ------------------------------------------------------------------------------- */

/* What a group of changes is making: the state that each one is to see, and what is stored. */
struct making {
	struct core_state ahead;
	struct core_attempt attempt;
	struct core_change *changes[CORE_GROUP_MAX]; /* of the versions */
	struct core_diff diffs[CORE_GROUP_MAX];
};

/* Run c on what those before it leave, and add the version that it makes, if it makes one. */
static enum kv_rc add_member(struct core_shard *s, struct making *m, struct core_change *c,
			     struct kv_err *err)
{
	struct core_attempt *a = &m->attempt;
	struct core_diff *d = &m->diffs[a->count];
	bool skip = false;
	enum kv_rc rc;

	core_diff_init(d);
	rc = c->run(c, &m->ahead, d, &skip, err);
	if (rc != KV_OK || skip)
		goto out;
	core_attempt_stamp(s, &m->ahead, c, d);
	core_hold_since(s, &m->ahead, d);
	rc = core_attempt_add(a, c, d, err);
	if (rc == KV_OK) {
		rc = core_state_reserve(&m->ahead, d, err);
		if (rc != KV_OK)
			core_attempt_drop(a);
	}
	if (rc != KV_OK && a->count == 0) { /* what it brought along was to go with it */
		core_attempt_fini(a);
		core_attempt_init(a, s, c->sync);
	}
	if (rc != KV_OK)
		goto out;
	rc = core_state_apply(&m->ahead, d, err);
	assert(rc == KV_OK); /* it follows the state, and there is room */
	c->turn.committed = true;
	m->changes[a->count - 1] = c;
	return KV_OK;
out:
	core_diff_fini(d);
	return rc;
}

/* False: nothing was done, and each has to be committed alone. */
static bool commit_together(struct core_shard *s, struct making *m, struct core_change **changes,
			    size_t count, bool *due)
{
	struct core_attempt *a = &m->attempt;
	struct kv_err err = {0};
	enum kv_rc rc = KV_OK;

	if (core_refresh_locked(s, false, &err) != KV_OK || !core_state_copy(&s->state, &m->ahead))
		return false;
	core_attempt_init(a, s, KV_SYNC);
	for (size_t i = 0; i < count; i++)
		changes[i]->turn.rc = add_member(s, m, changes[i], changes[i]->turn.err);
	if (a->count != 0)
		rc = commit_attempt(s, a, m->changes, m->diffs, &err);
	core_since_held(s);
	for (size_t i = 0; i < a->count; i++) {
		struct core_turn *turn = &m->changes[i]->turn;

		turn->committed = rc == KV_OK;
		turn->rc = rc;
		if (rc != KV_OK && turn->err != NULL)
			*turn->err = err;
		*due = *due || (rc == KV_OK && makes_due(s, &m->diffs[i]));
		core_diff_fini(&m->diffs[i]);
	}
	core_attempt_fini(a);
	core_state_fini(&m->ahead);
	return rc != KV_MISMATCH;
}

void core_machine_commit_group(struct core_shard *s, struct core_change **changes, size_t count, bool *due)
{
	struct making *m = count > 1 ? malloc(sizeof *m) : NULL;
	bool done = m != NULL && commit_together(s, m, changes, count, due);

	for (size_t i = 0; i < count && !done; i++) {
		struct core_turn *turn = &changes[i]->turn;

		turn->rc = commit_locked(s, changes[i], &turn->committed, due, turn->err);
	}
	free(m);
}

/* --- one --------------------------------------------------------------------------------------------- */

enum kv_rc core_machine_commit(struct core_shard *s, struct core_change *c, struct kv_err *err)
{
	bool due = false, committed = false;
	uint64_t began = core_ticks_us();
	enum kv_rc rc;

	if (s->engine->traits.read_only)
		return kv_fail_rc(err, KV_READONLY);
	if (c->groups && s->engine->traits.sole_owner && s->engine->traits.commits_runs) {
		rc = core_group_commit(s, c, err);
	} else {
		pthread_mutex_lock(&s->commit_mu);
		rc = commit_locked(s, c, &committed, &due, err);
		core_machine_after_locked(s);
		pthread_mutex_unlock(&s->commit_mu);
		core_machine_after(s, committed && c->sync != KV_RIDE, due);
	}
	core_timed(s->engine, CORE_T_COMMIT, began);
	return rc;
}
