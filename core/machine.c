/*
 * machine.c - how a shard's state is changed.
 *
 * One commit:
 *
 *     transition(state) -> diff -> encode -> store: blobs + compare-and-set -> apply -> wake
 *
 * What goes along with the diff, and how far since goes, is settled in leases.c.
 *
 * Changes that group and meet are committed in one step (group.c), also those of several shards. Those of one
 * are run one on the other's result, on a copy of the state; then each is applied like a single one. What was
 * made of a state that then was not stored counts for nothing, a refusal as little as a version.
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
static void shadow_begin(struct core_attempt *a)
{
	struct core_shard *s = a->shard;
	struct core_buf bytes = {0};
	struct core_diff d = {0};
	struct kv_err err;
	enum kv_rc rc = core_state_encode(s->home.shard, &s->state, &bytes, &err);

	if (rc == KV_OK)
		rc = core_state_decode(s->home.shard, bytes.data, bytes.len, &a->shadow, &err);
	for (size_t i = 0; i < a->count && rc == KV_OK; i++) {
		rc = core_diff_decode(s->home.shard, a->versions[i].data, a->versions[i].len, &d, &err);
		if (rc == KV_OK)
			rc = core_state_apply(&a->shadow, &d, &err);
		core_diff_fini(&d);
	}
	assert(rc == KV_OK || rc == KV_NOMEM);
	a->shadowed = rc == KV_OK;
	core_buf_fini(&bytes);
}

static void shadow_end(const struct core_attempt *attempt)
{
	struct core_shard *s = attempt->shard;
	struct core_buf a = {0}, b = {0};
	struct kv_err err;
	enum kv_rc rc = core_state_check(&s->state, &err);

	if (rc == KV_OK)
		rc = core_state_encode(s->home.shard, &s->state, &a, &err);
	if (rc == KV_OK)
		rc = core_state_encode(s->home.shard, &attempt->shadow, &b, &err);
	assert(rc == KV_NOMEM || (rc == KV_OK && a.len == b.len && memcmp(a.data, b.data, a.len) == 0));
	core_buf_fini(&a);
	core_buf_fini(&b);
}
#endif

static void count_outcome(struct core_engine *e, const struct core_attempt *a)
{
	enum kv_rc rc = a->rc;

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

/* The attempt is about to be stored. */
static void before_store(struct core_attempt *a)
{
#ifdef CORE_SLOW_CHECKS
	shadow_begin(a);
#else
	(void)a;
#endif
}

/* It was, or not: apply the versions, the diffs that the changes made. */
static void after_store(struct core_attempt *a, struct core_change **changes, const struct core_diff *diffs)
{
	struct core_shard *s = a->shard;
	enum kv_rc landed = KV_OK;

	count_outcome(s->engine, a);
	for (size_t i = 0; i < a->count && a->rc == KV_OK && landed == KV_OK; i++)
		landed = land(s, changes[i], &diffs[i], a->versions[i].len, NULL);
	assert(landed == KV_OK || landed == KV_NOMEM); /* they follow the state */
	if (a->rc == KV_UNKNOWN || landed != KV_OK)
		doubt(s);
#ifdef CORE_SLOW_CHECKS
	if (a->rc == KV_OK && landed == KV_OK && a->shadowed)
		shadow_end(a);
#endif
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
	struct core_attempt a, *const attempts = &a;
	enum kv_rc rc;

	core_attempt_init(&a, s);
	core_attempt_stamp(s, &s->state, c, d);
	core_hold_since(s, &s->state, d);
	rc = core_attempt_add(&a, c, d, err);
	if (rc == KV_OK)
		rc = reserve(s, d, err);
	if (rc == KV_OK) {
		before_store(&a);
		core_attempts_store(&attempts, 1, c->sync);
		after_store(&a, &c, d);
		rc = a.rc;
		if (rc != KV_OK && err != NULL)
			*err = a.err;
	}
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

/* Add the version d that c has made. */
static enum kv_rc add_version(struct core_making *m, struct core_change *c, struct core_diff *d,
			      struct kv_err *err)
{
	struct core_shard *s = m->shard;
	struct core_attempt *a = &m->attempt;
	bool several = m->diffs != &m->one;
	enum kv_rc rc;

	core_attempt_stamp(s, several ? &m->ahead : &s->state, c, d);
	core_hold_since(s, several ? &m->ahead : &s->state, d);
	rc = core_attempt_add(a, c, d, err);
	if (rc == KV_OK) {
		rc = several ? core_state_reserve(&m->ahead, d, err) : reserve(s, d, err);
		if (rc != KV_OK)
			core_attempt_drop(a);
	}
	if (rc != KV_OK && a->count == 0) { /* what it brought along was to go with it */
		core_attempt_fini(a);
		core_attempt_init(a, s);
	}
	if (rc != KV_OK)
		return rc;
	if (several)
		rc = core_state_apply(&m->ahead, d, err);
	assert(rc == KV_OK); /* it follows the state, and there is room */
	m->changes[a->count - 1] = c;
	return KV_OK;
}

/* Run c on what those before it leave, and add the version that it makes, if it makes one. False: it cannot
 * be in one attempt with them. */
static bool add_member(struct core_making *m, struct core_change *c)
{
	struct core_turn *turn = &c->turn;
	struct core_diff *d = &m->diffs[m->attempt.count];
	bool skip = false, taken = true, added = false;

	core_diff_init(d);
	turn->rc = c->run(c, m->diffs != &m->one ? &m->ahead : &m->shard->state, d, &skip, turn->err);
	if (turn->rc == KV_OK && !skip) {
		taken = core_attempt_takes(&m->attempt, c, d);
		if (taken)
			turn->rc = add_version(m, c, d, turn->err);
		added = taken && turn->rc == KV_OK;
	}
	if (!added)
		core_diff_fini(d);
	return taken;
}

/* Whether m->ahead and m->diffs could be had for the members from m->from on. */
static bool made_begin(struct core_making *m)
{
	bool several = m->count - m->from > 1;

	core_attempt_init(&m->attempt, m->shard);
	m->ahead = (struct core_state){0};
	m->diffs = &m->one;
	if (core_refresh_locked(m->shard, false, NULL) != KV_OK)
		return false;
	if (!several)
		return true;
	m->diffs = malloc((m->count - m->from) * sizeof *m->diffs);
	if (m->diffs != NULL && core_state_copy(&m->shard->state, &m->ahead))
		return true;
	free(m->diffs);
	return false;
}

/* Nothing is left of what was being made. */
static void made_end(struct core_making *m)
{
	core_since_held(m->shard);
	for (size_t i = 0; i < m->attempt.count; i++)
		core_diff_fini(&m->diffs[i]);
	core_attempt_fini(&m->attempt);
	core_state_fini(&m->ahead);
	if (m->diffs != &m->one)
		free(m->diffs);
}

static void commit_alone(struct core_making *m, struct core_change *c)
{
	c->turn.rc = commit_locked(m->shard, c, &c->turn.committed, &m->due, c->turn.err);
}

void core_machine_make(struct core_making *m)
{
	assert(m->from < m->count);
	if (!made_begin(m)) { /* each is to find out for itself */
		for (m->to = m->from; m->to < m->count; m->to++)
			commit_alone(m, m->members[m->to]);
		return;
	}
	m->to = m->from;
	while (m->to < m->count && add_member(m, m->members[m->to]))
		m->to++;
	assert(m->to > m->from);
	if (m->attempt.count == 0)
		made_end(m);
	else
		before_store(&m->attempt);
}

/* The versions were not stored, or nobody knows: those that were judged by them are judged anew, and all of
 * them if another version came in between. */
static void judge_anew(struct core_making *m)
{
	bool all = m->attempt.rc == KV_MISMATCH;
	size_t made = 0;

	for (size_t i = m->from; i < m->to; i++) {
		struct core_change *c = m->members[i];
		bool its_own = made < m->attempt.count && m->changes[made] == c;

		if (all || (made != 0 && !its_own))
			commit_alone(m, c);
		made += its_own;
	}
}

void core_machine_made(struct core_making *m)
{
	struct core_attempt *a = &m->attempt;
	enum kv_rc rc = a->rc;

	after_store(a, m->changes, m->diffs);
	for (size_t i = 0; i < a->count; i++) {
		struct core_turn *turn = &m->changes[i]->turn;

		turn->committed = rc == KV_OK;
		turn->rc = rc;
		if (rc != KV_OK && turn->err != NULL)
			*turn->err = a->err;
		m->due = m->due || (rc == KV_OK && makes_due(m->shard, &m->diffs[i]));
	}
	made_end(m);
	if (rc != KV_OK)
		judge_anew(m);
}

/* --- one --------------------------------------------------------------------------------------------- */

static bool groups(const struct core_shard *s, const struct core_change *c)
{
	const struct kv_store_traits *traits = &s->engine->traits;

	return c->groups && traits->sole_owner && traits->commits_runs && !traits->read_only;
}

enum kv_rc core_machine_commit(struct core_shard *s, struct core_change *c, struct kv_err *err)
{
	bool due = false, committed = false;
	uint64_t began = core_ticks_us();
	enum kv_rc rc;

	if (s->engine->traits.read_only)
		return kv_fail_rc(err, KV_READONLY);
	if (groups(s, c))
		return core_group_commit(s, c, err);
	pthread_mutex_lock(&s->commit_mu);
	rc = commit_locked(s, c, &committed, &due, err);
	core_machine_after_locked(s);
	pthread_mutex_unlock(&s->commit_mu);
	core_machine_after(s, committed && c->sync != KV_RIDE, due);
	core_timed(s->engine, CORE_T_COMMIT, began);
	return rc;
}

void core_machine_submit(struct core_shard *s, struct core_change *c, void (*over)(struct core_change *c),
			 struct kv_err *err)
{
	if (groups(s, c)) {
		core_group_submit(s, c, over, err);
		return;
	}
	c->turn.rc = core_machine_commit(s, c, err);
	over(c);
}
