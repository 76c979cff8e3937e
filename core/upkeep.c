/*
 * upkeep.c - who does maintenance, and when; see upkeep.h.
 *
 *     a commit that leaves a merge due ------------------+
 *     a shard that rests (recent list, once a second) ---+--> queue of shards --> two threads
 *     somebody asks (core_upkeep_begin) -----------------+
 *     the visit of all shards after the start -----------+
 *
 * A thread takes a shard from the queue, does what was asked of it, merges until nothing is due, and collects.
 * What takes long of a merge runs at the lowest priority (compaction.c), so that commits go first.
 *
 * 1. A shard is on the queue once at most, with a reference; so it is on the recent list.
 * 2. Large merges run one at a time in the whole engine, so that the other thread is free for small ones; a
 *    shard that has to wait for that is put on the queue again when it ends. Of one shard one small merge runs
 *    at a time: or else two threads could merge its newest batches by turns for ever, and never the old ones.
 * 3. What failed is tried again when the shard comes on the queue the next time; appends do not wait for it.
 *
 * Locks: core_upkeeper.mu, then core_engine.mu or core_shard.mu; neither is held across a store call.
 */
#include "core/upkeep.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/upkeep_impl.h"

enum { THREADS = 2, REST_MS = 5000, LOOK_MS = 1000 };

struct core_upkeeper {
	pthread_mutex_t mu; /* all below, and the upkeep fields of every shard */
	pthread_cond_t changed;
	struct core_shard *queue;
	struct core_shard **queue_end;
	struct core_shard *recent;
	uint64_t looked_us; /* at the recent ones */
	unsigned working;
	uint64_t tickets;
	bool large_runs;
	bool visiting; /* the visit of all shards is not over */
	bool visit_runs;
	char visit_after[KV_KEY_MAX + 1];
	bool untidy; /* something was committed since the store was tidied up */

	struct core_engine *engine;
	pthread_t threads[THREADS];
	unsigned thread_count;
};

static uint64_t rest_us(const struct core_engine *e)
{
	return 1000 * (uint64_t)(e->config.rest_ms != 0 ? e->config.rest_ms : REST_MS);
}

bool core_upkeep_stops(const struct core_engine *e)
{
	return atomic_load(&e->stops);
}

/* --- the queue ------------------------------------------------------------------------------------- */

/* Under mu. */
static void enqueue_locked(struct core_upkeeper *k, struct core_shard *s)
{
	if (s->upkeep.queued)
		return;
	s->upkeep.queued = true;
	s->upkeep.next = NULL;
	core_shard_ref(s);
	*k->queue_end = s;
	k->queue_end = &s->upkeep.next;
	core_gauge_add(k->engine, CORE_G_UPKEEP_QUEUE, 1);
	pthread_cond_broadcast(&k->changed);
}

void core_upkeep_queue(struct core_shard *s)
{
	struct core_upkeeper *k = s->engine->upkeeper;

	if (k == NULL || s->engine->config.no_upkeep)
		return;
	pthread_mutex_lock(&k->mu);
	enqueue_locked(k, s);
	pthread_mutex_unlock(&k->mu);
}

/* With its reference, the caller's. Under mu. */
static struct core_shard *dequeue_locked(struct core_upkeeper *k)
{
	struct core_shard *s = k->queue;

	if (s == NULL)
		return NULL;
	k->queue = s->upkeep.next;
	if (k->queue == NULL)
		k->queue_end = &k->queue;
	s->upkeep.queued = false;
	core_gauge_add(k->engine, CORE_G_UPKEEP_QUEUE, -1);
	return s;
}

void core_upkeep_touch(struct core_shard *s)
{
	struct core_upkeeper *k = s->engine->upkeeper;

	if (k == NULL || s->engine->config.no_upkeep)
		return;
	atomic_store_explicit(&s->upkeep.touched_us, core_ticks_us(), memory_order_relaxed);
	if (atomic_exchange(&s->upkeep.recent, true))
		return;
	core_shard_ref(s);
	pthread_mutex_lock(&k->mu);
	s->upkeep.next_recent = k->recent;
	k->recent = s;
	k->untidy = true;
	pthread_mutex_unlock(&k->mu);
}

/* Those that rest go on the queue; others stay on the list. Under mu; *drop: a list of those whose reference is
 * to be given back. */
static void look_at_recent(struct core_upkeeper *k, bool all, struct core_shard **drop)
{
	uint64_t now = core_ticks_us(), rest = rest_us(k->engine);
	struct core_shard *s = k->recent;

	k->recent = NULL;
	k->looked_us = now;
	while (s != NULL) {
		struct core_shard *next = s->upkeep.next_recent;

		if (!all && now - atomic_load(&s->upkeep.touched_us) < rest) {
			s->upkeep.next_recent = k->recent;
			k->recent = s;
		} else {
			/* Before it is looked at: a commit from here on puts it on the list again. */
			atomic_store(&s->upkeep.recent, false);
			s->upkeep.rests = true;
			enqueue_locked(k, s);
			s->upkeep.next_recent = *drop;
			*drop = s;
		}
		s = next;
	}
}

static void drop_all(struct core_shard *s)
{
	while (s != NULL) {
		struct core_shard *next = s->upkeep.next_recent;

		core_shard_close(s);
		s = next;
	}
}

/* --- merging --------------------------------------------------------------------------------------- */

/* Whether this thread may run what it has picked, or has to leave it to another time. */
static bool may_run(struct core_upkeeper *k, struct core_shard *s, const struct core_merge_run *run)
{
	bool large = run->bytes > CORE_MERGE_LARGE, may;

	pthread_mutex_lock(&k->mu);
	may = !large || !k->large_runs;
	if (may && large)
		k->large_runs = true;
	if (!may)
		s->upkeep.waits_large = true;
	pthread_mutex_unlock(&k->mu);
	return may;
}

static void large_ended(struct core_upkeeper *k)
{
	struct core_engine *e = k->engine;
	struct core_shard *s, *next;

	pthread_mutex_lock(&k->mu);
	k->large_runs = false;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_lock(&e->mu);
	HASH_ITER(hh, e->shards, s, next)
	{
		if (!s->upkeep.waits_large || s->upkeep.queued)
			continue;
		s->upkeep.waits_large = false;
		s->upkeep.queued = true;
		s->upkeep.next = NULL;
		core_shard_take_locked(s);
		*k->queue_end = s;
		k->queue_end = &s->upkeep.next;
		core_gauge_add(e, CORE_G_UPKEEP_QUEUE, 1);
	}
	pthread_mutex_unlock(&e->mu);
	pthread_mutex_unlock(&k->mu);
}

/* Run a merge that was begun. *ran: it ran, whatever came of it. */
static enum kv_rc run_merge(struct core_upkeeper *k, struct core_shard *s, struct core_merge_run *run, bool *ran,
			    bool *fits, struct core_upkeep_result *result, struct kv_err *err)
{
	bool large = run->bytes > CORE_MERGE_LARGE;
	enum kv_rc rc;

	*fits = false;
	*ran = may_run(k, s, run);
	if (!*ran) {
		core_compact_drop(s, run);
		return KV_OK;
	}
	core_gauge_add(k->engine, CORE_G_MERGES_RUNNING, 1);
	rc = core_compact_do(s, run, fits, result, err);
	core_gauge_add(k->engine, CORE_G_MERGES_RUNNING, -1);
	if (large)
		large_ended(k);
	pthread_mutex_lock(&k->mu);
	s->upkeep.failed = rc != KV_OK;
	pthread_cond_broadcast(&k->changed); /* for appends and others that wait for it */
	pthread_mutex_unlock(&k->mu);
	return rc;
}

/* All merges that are due. */
static enum kv_rc merge_due(struct core_upkeeper *k, struct core_shard *s, enum core_merge_aim aim,
			    struct kv_err *err)
{
	struct core_upkeep_result result = {0};
	enum kv_rc rc = KV_OK;
	bool ran = true, fits, busy;

	while (rc == KV_OK && ran && !core_upkeep_stops(k->engine)) {
		struct core_merge_run run;

		pthread_mutex_lock(&s->mu);
		busy = core_compact_is_small_running(s);
		pthread_mutex_unlock(&s->mu);
		if (busy || !core_compact_begin(s, aim, core_frontier_empty(), &run))
			break; /* who runs it looks again when it is done */
		rc = run_merge(k, s, &run, &ran, &fits, &result, err);
	}
	return rc;
}

/* --- what is asked for ----------------------------------------------------------------------------- */

/* Wait a moment for something to change. */
static void wait_changed(struct core_upkeeper *k, unsigned ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&k->mu);
	if (!core_upkeep_stops(k->engine))
		pthread_cond_timedwait(&k->changed, &k->mu, &until);
	pthread_mutex_unlock(&k->mu);
}

/* Whether the tail has rows of batches that begin below upto; *hollow: there are batches before it. */
static bool tail_has_rows(struct core_shard *s, struct core_frontier upto, bool *hollow)
{
	size_t from, with_rows = 0;

	pthread_mutex_lock(&s->mu);
	from = core_merge_prefix(&s->state);
	*hollow = from != 0;
	for (size_t i = from; i < s->state.batch_count; i++)
		if (core_frontier_lt(s->state.batches[i]->lower, upto))
			with_rows += s->state.batches[i]->part_count != 0;
	pthread_mutex_unlock(&s->mu);
	return with_rows != 0;
}

/* All that is there below upto becomes one run. */
static enum kv_rc compact(struct core_upkeeper *k, struct core_shard *s, struct core_frontier upto,
			  struct core_upkeep_result *result, struct kv_err *err)
{
	bool hollow, changed, ran, fits;
	enum kv_rc rc = core_machine_load(s, true, err);

	/* With batches before it the tail must become one of them, or merges would run into those of appends.
	 */
	if (rc == KV_OK && tail_has_rows(s, upto, &hollow))
		rc = core_fold_now(s, hollow, &changed, err);
	while (rc == KV_OK) {
		struct core_merge_run run;
		bool busy;

		if (core_upkeep_stops(k->engine))
			return kv_fail_rc(err, KV_SHUTDOWN);
		pthread_mutex_lock(&s->mu);
		busy = s->merging != NULL;
		pthread_mutex_unlock(&s->mu);
		if (busy) {
			wait_changed(k, LOOK_MS);
			continue;
		}
		if (!core_compact_begin(s, CORE_AIM_ONE, upto, &run)) {
			pthread_mutex_lock(&s->mu);
			busy = s->merging != NULL;
			pthread_mutex_unlock(&s->mu);
			if (!busy)
				break;
			continue;
		}
		rc = run_merge(k, s, &run, &ran, &fits, result, err);
		if (rc == KV_OK && !ran)
			wait_changed(k, LOOK_MS);
	}
	return rc;
}

static enum kv_rc do_asked(struct core_upkeeper *k, struct core_shard *s, struct core_upkeep *u,
			   struct core_upkeep_result *result, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	switch (u->kind) {
	case CORE_COMPACT:
		rc = compact(k, s, u->upto, result, err);
		if (rc == KV_OK)
			rc = core_gc(s, result, err);
		break;
	case CORE_GC:
		rc = core_gc(s, result, err);
		if (rc == KV_OK)
			rc = core_sweep_shard(s, result, err);
		break;
	case CORE_ROLLUP:
		rc = core_write_rollup(s, err);
		break;
	}
	return rc;
}

/* Tell the one who asked, unless he has gone. */
static void answer(struct core_upkeeper *k, struct core_shard *s, struct core_upkeep *u, uint64_t ticket,
		   enum kv_rc rc, const struct kv_err *err, const struct core_upkeep_result *result)
{
	struct core_upkeep *gone = NULL;

	pthread_mutex_lock(&k->mu);
	for (struct core_upkeep **p = &s->upkeep.asked; *p != NULL; p = &(*p)->next) {
		if (*p == u && u->ticket == ticket) { /* else another one in its place in memory */
			*p = u->next;
			gone = u;
			break;
		}
	}
	if (gone != NULL)
		u->telling = true;
	pthread_mutex_unlock(&k->mu);
	if (gone == NULL)
		return;
	u->rc = rc;
	u->err = *err;
	u->result = *result;
	pthread_mutex_lock(&s->mu);
	u->result.seqno = s->state.seqno;
	pthread_mutex_unlock(&s->mu);
	u->done(u);
}

/* The next thing asked of the shard that nobody does yet, copied; NULL: none. */
static struct core_upkeep *next_asked(struct core_upkeeper *k, struct core_shard *s, struct core_upkeep *copy)
{
	struct core_upkeep *u;

	pthread_mutex_lock(&k->mu);
	u = s->upkeep.asked;
	while (u != NULL && u->running)
		u = u->next;
	if (u != NULL) {
		u->running = true;
		*copy = *u;
	}
	pthread_mutex_unlock(&k->mu);
	return u;
}

static void serve(struct core_upkeeper *k, struct core_shard *s)
{
	struct core_upkeep copy, *u;

	while ((u = next_asked(k, s, &copy)) != NULL) {
		struct core_upkeep_result result = {0};
		struct kv_err err = {0};
		enum kv_rc rc = core_upkeep_stops(k->engine) ? kv_fail_rc(&err, KV_SHUTDOWN)
							     : do_asked(k, s, &copy, &result, &err);

		answer(k, s, u, copy.ticket, rc, &err, &result);
	}
}

void core_upkeep_begin(struct core_shard *s, struct core_upkeep *u)
{
	struct core_upkeeper *k = s->engine->upkeeper;
	struct core_info info;
	enum kv_rc rc = core_shard_info(s, true, &info, &u->err);

	u->next = NULL;
	u->shard = s;
	u->running = false;
	u->telling = false;
	u->result = (struct core_upkeep_result){0};
	u->upto = info.upper;
	if (rc == KV_OK && s->engine->traits.read_only)
		rc = kv_fail_rc(&u->err, KV_READONLY);
	if (rc == KV_OK && (k == NULL || core_upkeep_stops(s->engine)))
		rc = kv_fail_rc(&u->err, KV_SHUTDOWN);
	if (rc != KV_OK) {
		u->telling = true;
		u->rc = rc;
		u->done(u);
		return;
	}
	pthread_mutex_lock(&k->mu);
	u->ticket = ++k->tickets;
	u->next = s->upkeep.asked;
	s->upkeep.asked = u;
	enqueue_locked(k, s);
	pthread_mutex_unlock(&k->mu);
}

bool core_upkeep_cancel(struct core_upkeep *u)
{
	struct core_upkeeper *k = u->shard->engine->upkeeper;
	bool cancelled = false;

	if (k == NULL)
		return false;
	pthread_mutex_lock(&k->mu);
	for (struct core_upkeep **p = &u->shard->upkeep.asked; *p != NULL && !u->telling; p = &(*p)->next) {
		if (*p == u) {
			*p = u->next;
			cancelled = true;
			break;
		}
	}
	pthread_mutex_unlock(&k->mu);
	return cancelled;
}

struct waiting {
	struct core_upkeep upkeep;
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool done;
};

static void wake(struct core_upkeep *u)
{
	struct waiting *w = (struct waiting *)u;

	pthread_mutex_lock(&w->mu);
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->mu);
}

enum kv_rc core_upkeep_run(struct core_shard *s, enum core_upkeep_kind kind, struct core_upkeep_result *out,
			   struct kv_err *err)
{
	struct waiting w = {.upkeep = {.kind = kind, .done = wake}};

	pthread_mutex_init(&w.mu, NULL);
	pthread_cond_init(&w.cond, NULL);
	core_upkeep_begin(s, &w.upkeep);
	pthread_mutex_lock(&w.mu);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.mu);
	pthread_mutex_unlock(&w.mu);
	pthread_cond_destroy(&w.cond);
	pthread_mutex_destroy(&w.mu);
	if (out != NULL)
		*out = w.upkeep.result;
	if (err != NULL)
		*err = w.upkeep.err;
	return w.upkeep.rc;
}

/* --- appends that are too fast --------------------------------------------------------------------- */

void core_upkeep_admit(struct core_shard *s)
{
	struct core_engine *e = s->engine;
	struct core_upkeeper *k = e->upkeeper;

	if (atomic_load_explicit(&s->runs, memory_order_relaxed) <= CORE_RUNS_MAX || k == NULL ||
	    e->config.no_upkeep)
		return;
	core_count(e, CORE_M_APPEND_STALLS, 1);
	core_gauge_add(e, CORE_G_STALLED, 1);
	pthread_mutex_lock(&k->mu);
	s->upkeep.failed = false; /* one that failed before has another try, then we do not wait for it */
	enqueue_locked(k, s);
	while (atomic_load(&s->runs) > CORE_RUNS_MAX && !s->upkeep.failed && !core_upkeep_stops(e))
		pthread_cond_wait(&k->changed, &k->mu);
	pthread_mutex_unlock(&k->mu);
	core_gauge_add(e, CORE_G_STALLED, -1);
}

/* --- the threads ----------------------------------------------------------------------------------- */

/* At rest also what is small comes together. */
static enum kv_rc rest(struct core_upkeeper *k, struct core_shard *s, struct kv_err *err)
{
	bool hollow, folded = false;
	enum kv_rc rc = merge_due(k, s, CORE_AIM_REST, err);

	if (rc == KV_OK && tail_has_rows(s, core_frontier_empty(), &hollow))
		rc = core_fold_now(s, false, &folded, err);
	return rc;
}

static void work_on(struct core_upkeeper *k, struct core_shard *s)
{
	struct kv_err err;
	bool rests, due;
	enum kv_rc rc;

	serve(k, s);
	pthread_mutex_lock(&k->mu);
	rests = s->upkeep.rests;
	s->upkeep.rests = false;
	pthread_mutex_unlock(&k->mu);
	if (k->engine->config.no_upkeep || core_upkeep_stops(k->engine))
		return;
	rc = rests ? rest(k, s, &err) : merge_due(k, s, CORE_AIM_LEVELS, &err);
	pthread_mutex_lock(&s->mu);
	due = core_gc_is_due(s);
	pthread_mutex_unlock(&s->mu);
	if (rc == KV_OK && due) {
		struct core_upkeep_result result = {0};

		rc = core_gc(s, &result, &err);
	}
	if (rc != KV_OK && rc != KV_NO_SHARD && rc != KV_SHARD_REPLACED && rc != KV_SHUTDOWN) {
		pthread_mutex_lock(&k->mu);
		s->upkeep.failed = true;
		pthread_cond_broadcast(&k->changed);
		pthread_mutex_unlock(&k->mu);
		core_notice(k->engine, "maintenance of a shard failed, and will be tried again: %s", err.msg);
	}
}

/* Whether a shard at rest has something to be done. */
static bool is_due_at_rest(struct core_shard *s)
{
	struct core_merge_range range;
	bool due;

	pthread_mutex_lock(&s->mu);
	due = core_gc_is_due(s) || core_merge_pick(&s->state, 0, core_merge_prefix(&s->state), CORE_AIM_REST, &range) ||
	      s->state.batch_count - core_merge_prefix(&s->state) > 1;
	pthread_mutex_unlock(&s->mu);
	return due;
}

/* One shard of the visit of all. Under mu, which is let go meanwhile. */
static void visit_locked(struct core_upkeeper *k)
{
	char after[KV_KEY_MAX + 1];
	struct core_shard *s = NULL;
	struct kv_err err;
	enum kv_rc rc;

	memcpy(after, k->visit_after, sizeof after);
	k->visit_runs = true;
	pthread_mutex_unlock(&k->mu);
	rc = core_sweep_next(k->engine, after, &s, &err);
	if (rc != KV_OK && rc != KV_NO_SHARD && rc != KV_SHARD_REPLACED && rc != KV_NOTFOUND)
		core_notice(k->engine, "a shard was not swept: %s", err.msg);
	if (s != NULL && is_due_at_rest(s))
		core_upkeep_touch(s); /* what was due before the start is due now */
	core_shard_close(s);
	pthread_mutex_lock(&k->mu);
	memcpy(k->visit_after, after, sizeof after);
	k->visiting = after[0] != '\0' && !core_upkeep_stops(k->engine);
	k->visit_runs = false;
	pthread_cond_broadcast(&k->changed);
}

/* The whole store rests. Under mu, which is let go meanwhile. */
static void tidy_locked(struct core_upkeeper *k)
{
	struct kv_err err;

	k->untidy = false;
	k->working++;
	pthread_mutex_unlock(&k->mu);
	if (kv_store_tidy(k->engine->store, &err) != KV_OK)
		core_notice(k->engine, "the store was not tidied up: %s", err.msg);
	pthread_mutex_lock(&k->mu);
	k->working--;
	pthread_cond_broadcast(&k->changed);
}

static void *work(void *arg)
{
	struct core_upkeeper *k = arg;

	pthread_mutex_lock(&k->mu);
	while (!core_upkeep_stops(k->engine) || k->queue != NULL) {
		struct core_shard *s = dequeue_locked(k), *drop = NULL;

		if (s != NULL) {
			k->working++;
			pthread_mutex_unlock(&k->mu);
			work_on(k, s);
			core_shard_close(s);
			pthread_mutex_lock(&k->mu);
			k->working--;
			pthread_cond_broadcast(&k->changed);
		} else if (k->visiting && !k->visit_runs) {
			visit_locked(k);
		} else if (k->untidy && k->recent == NULL && k->working == 0) {
			tidy_locked(k);
		} else {
			struct timespec until;

			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_sec += LOOK_MS / 1000;
			pthread_cond_timedwait(&k->changed, &k->mu, &until);
		}
		if (core_ticks_us() - k->looked_us >= (uint64_t)LOOK_MS * 1000)
			look_at_recent(k, false, &drop);
		if (drop != NULL) {
			pthread_mutex_unlock(&k->mu);
			drop_all(drop);
			pthread_mutex_lock(&k->mu);
		}
	}
	pthread_mutex_unlock(&k->mu);
	return NULL;
}

bool core_upkeeper_start(struct core_engine *e)
{
	struct core_upkeeper *k;
	sigset_t all, was;

	if (e->traits.read_only)
		return true;
	k = calloc(1, sizeof *k);
	if (k == NULL)
		return false;
	pthread_mutex_init(&k->mu, NULL);
	pthread_cond_init(&k->changed, NULL);
	k->engine = e;
	k->queue_end = &k->queue;
	k->visiting = e->traits.sole_owner && !e->config.no_upkeep;
	e->upkeeper = k;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	while (k->thread_count < THREADS && pthread_create(&k->threads[k->thread_count], NULL, work, k) == 0)
		k->thread_count++;
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return k->thread_count == THREADS;
}

void core_upkeeper_stop(struct core_engine *e)
{
	struct core_upkeeper *k = e->upkeeper;
	struct core_shard *drop = NULL, *s;

	if (k == NULL)
		return;
	pthread_mutex_lock(&k->mu);
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->mu);
	for (unsigned i = 0; i < k->thread_count; i++)
		pthread_join(k->threads[i], NULL);
	pthread_mutex_lock(&k->mu);
	look_at_recent(k, true, &drop);
	while ((s = dequeue_locked(k)) != NULL) {
		pthread_mutex_unlock(&k->mu);
		serve(k, s); /* that it is over */
		core_shard_close(s);
		pthread_mutex_lock(&k->mu);
	}
	pthread_mutex_unlock(&k->mu);
	drop_all(drop);
	e->upkeeper = NULL;
	pthread_cond_destroy(&k->changed);
	pthread_mutex_destroy(&k->mu);
	free(k);
}

void core_upkeep_settle(struct core_engine *e)
{
	struct core_upkeeper *k = e->upkeeper;
	struct core_shard *drop = NULL;

	if (k == NULL)
		return;
	pthread_mutex_lock(&k->mu);
	while (k->recent != NULL || k->queue != NULL || k->working != 0 || k->visiting || k->visit_runs) {
		look_at_recent(k, true, &drop);
		if (drop != NULL) {
			pthread_mutex_unlock(&k->mu);
			drop_all(drop);
			drop = NULL;
			pthread_mutex_lock(&k->mu);
			continue;
		}
		pthread_cond_wait(&k->changed, &k->mu);
	}
	pthread_mutex_unlock(&k->mu);
}
