/*
 * leases.c - who reads here, and what the state has to say of it.
 *
 * The needs of this process stand on a list of their shard. Whoever commits looks at the least of them, and
 * since stays at it; with a sole owner that is all. Where others commit too, the state has a lease of this
 * process, with a since at or below the least need.
 *
 * 1. A need counts for every commit that looks at the list after it was put there. One that looked before
 *    says under mu what it lets go; a need that comes too late for it waits for its end, so that who checks
 *    since after that sees what it did.
 * 2. A need below since is lost: it holds nothing, and its reader will find out.
 * 3. Only a need that the lease does not cover costs a commit. What can wait (to renew the lease, to move it,
 *    to end it) goes with the next commit of anything; where none comes, the keeper makes one.
 */
#include <assert.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/engine_impl.h"
#include "core/state_staged.h"
#include "core/transition_impl.h"

/* --- transitions ----------------------------------------------------------------------------------- */

enum kv_rc core_do_lease(const struct core_state *s, const struct core_lease *now, struct core_diff *d,
			 struct kv_err *err)
{
	const struct core_lease *was = core_state_lease(s, now->id);

	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	d->seqno = s->seqno + 1;
	d->has_lease = true;
	d->lease = *now;
	d->lease.since = core_frontier_max(now->since, s->since);
	if (was != NULL && was->seqno > now->seqno)
		d->lease.seqno = was->seqno; /* what was let go may be deleted */
	core_settle_since(s, d);
	return KV_OK;
}

enum kv_rc core_do_end_lease(const struct core_state *s, struct core_uuid id, struct core_diff *d,
			     struct kv_err *err)
{
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (core_state_lease(s, id) == NULL)
		return kv_fail(err, KV_NOTFOUND, "no such lease");
	d->seqno = s->seqno + 1;
	d->ends_lease = true;
	d->ended_lease = id;
	core_settle_since(s, d);
	return KV_OK;
}

/* --- what is needed here --------------------------------------------------------------------------- */

/* Whether the state has to say what we need. */
static bool has_leases(const struct core_engine *e)
{
	return !e->traits.sole_owner && !e->traits.read_only;
}

static const struct core_lease *own_lease(const struct core_shard *s)
{
	return core_state_lease(&s->state, s->engine->instance.u);
}

struct wants {
	bool any;                   /* somebody reads, if only what is pinned */
	struct core_frontier since; /* the least time needed; empty: none is */
	uint64_t seqno;             /* all that is read stands in this version still */
};

static bool is_lost(const struct core_shard *s, uint64_t time)
{
	return s->loaded && !core_frontier_covers(s->state.since, time);
}

/* Under mu. */
static struct wants wants_locked(struct core_shard *s)
{
	struct wants w = {.since = core_frontier_empty(), .seqno = core_held_seqno(s)};

	for (const struct core_need *need = s->needs; need != NULL; need = need->next) {
		if (!need->pins_only && is_lost(s, need->time))
			continue;
		w.any = true;
		if (!need->pins_only)
			w.since = core_frontier_min(w.since, core_frontier_at(need->time));
	}
	return w;
}

static bool is_fresh(const struct core_lease *lease, uint64_t now_ms)
{
	return now_ms < lease->heartbeat_ms || now_ms - lease->heartbeat_ms < lease->lease_ms / 4;
}

enum due { NOTHING, A_LEASE, ITS_END };

/* What the next version has to say of our lease. Under mu, or commit_mu. */
static enum due what_is_due(const struct core_shard *s, struct wants w, uint64_t now_ms)
{
	const struct core_lease *lease = own_lease(s);

	if (!has_leases(s->engine) || s->state.tombstone)
		return NOTHING;
	if (lease == NULL)
		return w.any ? A_LEASE : NOTHING;
	if (!w.any)
		return ITS_END;
	return is_fresh(lease, now_ms) && core_frontier_eq(lease->since, w.since) ? NOTHING : A_LEASE;
}

/* By the clock that the next version would have. */
static uint64_t version_ms(const struct core_shard *s)
{
	uint64_t now_ms = core_now_us(s->engine) / 1000;

	return now_ms > s->state.walltime_ms ? now_ms : s->state.walltime_ms;
}

/* --- what each commit takes along ------------------------------------------------------------------ */

static void take_along(struct core_shard *s, struct wants w, struct core_diff *d)
{
	const struct core_writer_state *self = &s->engine->writer;
	struct core_lease lease = {.id = s->engine->instance.u,
				   .lease_ms = CORE_READER_LEASE_MS,
				   .since = w.since,
				   .seqno = w.seqno};
	enum kv_rc rc = KV_OK;

	if (d->tombstone || d->has_lease || d->ends_lease)
		return;
	memcpy(lease.host, self->host, sizeof lease.host);
	memcpy(lease.purpose, self->purpose, sizeof lease.purpose);
	switch (what_is_due(s, w, d->walltime_ms)) {
	case NOTHING:
		break;
	case A_LEASE:
		rc = core_do_lease(&s->state, &lease, d, NULL);
		break;
	case ITS_END:
		rc = core_do_end_lease(&s->state, lease.id, d, NULL);
		break;
	}
	assert(rc == KV_OK); /* the state is no tombstone, and has what ends */
}

/* The since that d leaves: what is over at its time holds nothing any more. */
static void settle(const struct core_state *s, struct core_diff *d)
{
	struct core_state without = *s;
	struct core_lease *left = NULL;
	size_t over = 0;

	for (size_t i = 0; i < s->lease_count; i++)
		over += core_lease_is_over(&s->leases[i], d->walltime_ms);
	if (over != 0) {
		left = calloc(s->lease_count, sizeof *left);
		without.leases = left;
		without.lease_count = 0;
	}
	for (size_t i = 0; left != NULL && i < s->lease_count; i++)
		if (!core_lease_is_over(&s->leases[i], d->walltime_ms))
			left[without.lease_count++] = s->leases[i];
	d->has_since = false;
	/* Without memory they hold it for one version more. */
	core_settle_since(over != 0 && left != NULL ? &without : s, d);
	free(left);
}

/* Needs below it come too late for d. */
static struct core_frontier lets_go(const struct core_shard *s, const struct core_diff *d)
{
	struct core_frontier f = core_frontier_at(0);

	if (d->ends_lease && core_uuid_eq(d->ended_lease, s->engine->instance.u))
		return core_frontier_empty();
	if (d->has_since)
		f = d->since;
	if (d->has_lease && core_uuid_eq(d->lease.id, s->engine->instance.u))
		f = core_frontier_max(f, d->lease.since);
	return f;
}

void core_hold_since(struct core_shard *s, const struct core_state *st, struct core_diff *d)
{
	struct core_frontier before;
	struct wants w;

	if (!has_leases(s->engine)) { /* most commits let nothing go, and need not look at those who read */
		settle(st, d);
		if (!d->has_since)
			return;
	}
	pthread_mutex_lock(&s->mu);
	w = wants_locked(s);
	before = s->letting_go;                /* by a diff that is committed with this one */
	s->letting_go = core_frontier_empty(); /* until it is known */
	pthread_mutex_unlock(&s->mu);
	take_along(s, w, d);
	settle(st, d);
	if (d->has_since) {
		d->since = core_frontier_min(d->since, w.since);
		d->has_since = core_frontier_lt(st->since, d->since);
	}
	pthread_mutex_lock(&s->mu);
	s->letting_go = core_frontier_max(before, lets_go(s, d));
	pthread_mutex_unlock(&s->mu);
}

void core_since_held(struct core_shard *s)
{
	pthread_mutex_lock(&s->mu);
	s->letting_go = core_frontier_at(0);
	pthread_mutex_unlock(&s->mu);
}

/* --- needs ----------------------------------------------------------------------------------------- */

/* A version that is made for what it takes along. */
struct lease_change {
	struct core_change change;
	struct core_shard *shard;
	bool for_need; /* only if this time is not covered yet; else if anything is due */
	bool pins_only;
	uint64_t time;
};

/* Whether the state holds since for a need at that time, or nothing can; and what is pinned in any case.
 * Under mu, or commit_mu. */
static bool is_covered(const struct core_shard *s, bool pins_only, uint64_t time, uint64_t now_ms)
{
	const struct core_lease *lease = own_lease(s);

	if (pins_only)
		return lease != NULL && is_fresh(lease, now_ms);
	return is_lost(s, time) ||
	       (lease != NULL && core_frontier_covers(lease->since, time) && is_fresh(lease, now_ms));
}

static enum kv_rc run_lease(struct core_change *change, const struct core_state *s, struct core_diff *d,
			    bool *skip, struct kv_err *err)
{
	const struct lease_change *c = (const struct lease_change *)change;
	uint64_t now_ms = version_ms(c->shard);
	struct wants w;

	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	pthread_mutex_lock(&c->shard->mu);
	w = wants_locked(c->shard);
	pthread_mutex_unlock(&c->shard->mu);
	*skip = c->for_need ? is_covered(c->shard, c->pins_only, c->time, now_ms)
			    : what_is_due(c->shard, w, now_ms) == NOTHING;
	d->seqno = s->seqno + 1;
	return KV_OK;
}

/* Commit what is due of our lease. KV_OK also if nothing is, or the shard is gone. */
static enum kv_rc keep_lease(struct core_shard *s, enum kv_sync sync, struct kv_err *err)
{
	struct lease_change c = {.change = {.run = run_lease, .sync = sync}, .shard = s};
	enum kv_rc rc = core_machine_commit(s, &c.change, err);

	return rc == KV_NO_SHARD || rc == KV_SHARD_REPLACED ? KV_OK : rc;
}

/* Have the state hold since for a need that is on the list. */
static enum kv_rc take_lease(struct core_shard *s, bool pins_only, uint64_t time, struct kv_err *err)
{
	struct lease_change c = {.change = {.run = run_lease, .sync = KV_SYNC},
				 .shard = s,
				 .for_need = true,
				 .pins_only = pins_only,
				 .time = time};
	enum kv_rc rc = core_machine_commit(s, &c.change, err);

	/* Who wants to read has changed nothing; a lease that may be there runs out. */
	if (rc == KV_UNKNOWN)
		return kv_fail(err, KV_UNREACHABLE,
			       "the store did not tell whether it took a reader's lease");
	return rc;
}

enum kv_rc core_shard_need(struct core_shard *s, struct core_need *need, uint64_t time, struct kv_err *err)
{
	bool leases = has_leases(s->engine), done;
	enum kv_rc rc = KV_OK;

	need->id = core_uuid_new();
	pthread_mutex_lock(&s->mu);
	need->time = time;
	need->next = s->needs;
	need->at = &s->needs;
	if (need->next != NULL)
		need->next->at = &need->next;
	s->needs = need;
	/* What is pinned needs no time, but the lease, which a commit under way may be ending. */
	done = need->pins_only ? !s->letting_go.empty : core_frontier_covers(s->letting_go, time);
	if (leases)
		done = done && s->loaded && !s->gone && !s->doubtful &&
		       is_covered(s, need->pins_only, time, version_ms(s));
	pthread_mutex_unlock(&s->mu);
	if (done || (need->pins_only && !leases))
		return KV_OK;
	if (leases) {
		rc = take_lease(s, need->pins_only, time, err);
	} else {
		pthread_mutex_lock(&s->commit_mu); /* the commit that has not seen it ends */
		pthread_mutex_unlock(&s->commit_mu);
	}
	if (rc != KV_OK)
		core_shard_release(s, need);
	return rc;
}

void core_shard_move_need(struct core_shard *s, struct core_need *need, uint64_t time)
{
	pthread_mutex_lock(&s->mu);
	if (need->time < time)
		need->time = time;
	pthread_mutex_unlock(&s->mu);
}

void core_shard_release(struct core_shard *s, struct core_need *need)
{
	pthread_mutex_lock(&s->mu);
	*need->at = need->next;
	if (need->next != NULL)
		need->next->at = need->at;
	pthread_mutex_unlock(&s->mu);
}

/* --- who reads ------------------------------------------------------------------------------------- */

static struct core_reading reading_here(const struct core_shard *s, const struct core_need *need)
{
	struct core_reading r = {
		.id = need->id, .reader = need->reader, .pins_only = need->pins_only, .time = need->time};

	memcpy(r.host, s->engine->writer.host, sizeof r.host);
	return r;
}

static struct core_reading reading_there(const struct core_lease *lease)
{
	struct core_reading r = {.id = lease->id,
				 .time = lease->since.empty ? UINT64_MAX : lease->since.t,
				 .heartbeat_ms = lease->heartbeat_ms};

	memcpy(r.host, lease->host, sizeof r.host);
	memcpy(r.reader.purpose, lease->purpose, sizeof r.reader.purpose);
	return r;
}

/* Under mu. KV_NOMEM. */
static enum kv_rc list_readings(const struct core_shard *s, struct core_reading **out, size_t *count,
				struct kv_err *err)
{
	size_t room = s->state.lease_count + 1;

	for (const struct core_need *need = s->needs; need != NULL; need = need->next)
		room++;
	*out = calloc(room, sizeof **out);
	if (*out == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	for (const struct core_need *need = s->needs; need != NULL; need = need->next)
		(*out)[(*count)++] = reading_here(s, need);
	for (size_t i = 0; i < s->state.lease_count; i++)
		if (!core_uuid_eq(s->state.leases[i].id, s->engine->instance.u))
			(*out)[(*count)++] = reading_there(&s->state.leases[i]);
	return KV_OK;
}

enum kv_rc core_shard_readers(struct core_shard *s, struct core_reading **out, size_t *count,
			      struct kv_err *err)
{
	enum kv_rc rc = core_machine_load(s, true, err);

	*out = NULL;
	*count = 0;
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	rc = s->gone || s->state.tombstone ? kv_fail(err, KV_NO_SHARD, "the shard was removed")
					   : list_readings(s, out, count, err);
	pthread_mutex_unlock(&s->mu);
	return rc;
}

/* --- ending ---------------------------------------------------------------------------------------- */

bool core_own_lease_stands(const struct core_shard *s)
{
	return s->loaded && !s->gone && !s->state.tombstone && own_lease(s) != NULL;
}

void core_end_lease(struct core_shard *s)
{
	if (core_own_lease_stands(s) && keep_lease(s, KV_RIDE, NULL) != KV_OK)
		core_notice(s->engine, "a reader's lease was not ended; it will run out");
}

struct end_job {
	struct core_job job;
	struct core_shard *shard; /* a reference */
};

static void do_end_job(struct core_job *job, bool stopping)
{
	struct core_shard *s = ((struct end_job *)job)->shard;

	if (!stopping && keep_lease(s, KV_RIDE, NULL) != KV_OK)
		core_notice(s->engine, "a reader's lease was not ended; it will run out");
	free(job);
	core_shard_close(s);
}

bool core_queue_end_lease(struct core_shard *s)
{
	struct end_job *j = s->engine->worker != NULL ? malloc(sizeof *j) : NULL;

	if (j == NULL)
		return false;
	*j = (struct end_job){.job.run = do_end_job, .shard = s};
	core_worker_queue(s->engine->worker, &j->job);
	return true;
}

/* --- the keeper ------------------------------------------------------------------------------------ */

struct core_keeper {
	pthread_mutex_t mu; /* for the condition */
	_Atomic(bool) stopping;
	pthread_cond_t stop;

	struct core_engine *engine;
	pthread_t thread;
};

static bool is_due(struct core_shard *s)
{
	bool due;

	pthread_mutex_lock(&s->mu);
	due = s->loaded && !s->gone &&
	      (s->doubtful || what_is_due(s, wants_locked(s), version_ms(s)) != NOTHING);
	pthread_mutex_unlock(&s->mu);
	return due;
}

/* The shards of which something is due, with a reference each; given. Out of memory: those that fit. */
static struct core_shard **list_due(struct core_engine *e, size_t *count)
{
	struct core_shard **list = NULL, *s, *next;
	size_t cap = 0;

	*count = 0;
	pthread_mutex_lock(&e->mu);
	HASH_ITER(hh, e->shards, s, next)
	{
		if (!is_due(s))
			continue;
		if (*count == cap) {
			size_t grown_cap = cap != 0 ? 2 * cap : 16;
			struct core_shard **grown =
				reallocarray(list, grown_cap, sizeof(struct core_shard *));

			if (grown == NULL)
				break;
			list = grown;
			cap = grown_cap;
		}
		core_shard_take_locked(s);
		list[(*count)++] = s;
	}
	pthread_mutex_unlock(&e->mu);
	return list;
}

void core_leases_keep(struct core_engine *e)
{
	size_t count;
	struct core_shard **list = list_due(e, &count);

	for (size_t i = 0; i < count; i++) {
		bool stopping = e->keeper != NULL && atomic_load(&e->keeper->stopping);
		struct kv_err err;

		if (!stopping && keep_lease(list[i], KV_SYNC, &err) != KV_OK)
			core_notice(e, "a reader's lease was not renewed: %s", err.msg);
		core_shard_close(list[i]);
	}
	free(list);
}

/* Until ms are over. False: it is to stop. */
static bool sleep_ms(struct core_keeper *k, uint64_t ms)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&k->mu);
	while (!atomic_load(&k->stopping) && rc == 0)
		rc = pthread_cond_timedwait(&k->stop, &k->mu, &until);
	pthread_mutex_unlock(&k->mu);
	return !atomic_load(&k->stopping);
}

static void *keep(void *arg)
{
	struct core_keeper *k = arg;
	uint64_t ms = k->engine->config.keeper_ms;

	while (sleep_ms(k, ms != 0 ? ms : CORE_KEEPER_MS))
		core_leases_keep(k->engine);
	return NULL;
}

static void keeper_free(struct core_keeper *k)
{
	pthread_cond_destroy(&k->stop);
	pthread_mutex_destroy(&k->mu);
	free(k);
}

bool core_keeper_start(struct core_engine *e)
{
	struct core_keeper *k;
	pthread_condattr_t attr;
	sigset_t all, was;
	int failed;

	if (!has_leases(e))
		return true;
	k = calloc(1, sizeof *k);
	if (k == NULL)
		return false;
	k->engine = e;
	pthread_mutex_init(&k->mu, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->stop, &attr);
	pthread_condattr_destroy(&attr);
	e->keeper = k; /* before its thread looks at it */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	failed = pthread_create(&k->thread, NULL, keep, k);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	if (failed == 0)
		return true;
	e->keeper = NULL;
	keeper_free(k);
	return false;
}

void core_keeper_stop(struct core_engine *e)
{
	struct core_keeper *k = e->keeper;

	if (k == NULL)
		return;
	pthread_mutex_lock(&k->mu);
	atomic_store(&k->stopping, true);
	pthread_cond_signal(&k->stop);
	pthread_mutex_unlock(&k->mu);
	pthread_join(k->thread, NULL);
	e->keeper = NULL;
	keeper_free(k);
}
