/*
 * upkeep.c - who does maintenance, and when; see upkeep.h.
 *
 *     a commit that leaves a merge due -----------------+
 *     a shard that rests (recent list, once a second) --+--> queue of shards --> two threads
 *     somebody asks (core_upkeep_begin) ----------------+
 *     the visit of all shards after the start ----------+
 *
 * A thread takes a shard from the queue for one pass: what was asked of it, one merge, a collection. If more
 * is due, the shard goes to the end of the queue: no shard keeps a thread from the others.
 *
 * 1. A shard is on the queue once at most, with a reference; so it is on the recent list.
 * 2. Large merges run one at a time in the whole engine, so that the other thread is free for small ones.
 * What has to wait for that is put on the queue again when it ends. Of one shard one small merge runs at a
 * time: or else two threads could merge its newest batches by turns for ever, and never the old ones.
 * 3. What failed, and what somebody still reads, is tried again after a while, which doubles; appends do not
 * wait for it.
 * 4. No thread waits for another one's merge: what cannot go on is put off, and whatever ends puts it on
 * again.
 *
 * Lock: core_upkeeper.mu, before core_engine.mu or core_shard.mu; never held across a store call.
 */
#include "core/upkeep.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/upkeep_impl.h"

enum { REST_MS = 5000, LOOK_MS = 1000 };
enum { RETRY_LEAST_US = 1000000, RETRY_MOST_US = 300 * 1000000 };

static uint64_t rest_us(const struct core_engine *e)
{
	return 1000 * (uint64_t)(e->config.rest_ms != 0 ? e->config.rest_ms : REST_MS);
}

bool core_upkeep_stops(const struct core_engine *e)
{
	return atomic_load_explicit(&e->stops, memory_order_relaxed);
}

/* --- the queue ------------------------------------------------------------------------------------- */

/* s with a reference, which is taken; it is not on the queue. Under mu. */
static void push_locked(struct core_upkeeper *k, struct core_shard *s)
{
	s->upkeep.queued = true;
	s->upkeep.next = NULL;
	*k->queue_end = s;
	k->queue_end = &s->upkeep.next;
	core_gauge_add(k->engine, CORE_G_UPKEEP_QUEUE, 1);
	pthread_cond_broadcast(&k->changed);
}

/* Under mu. */
void core_upkeep_enqueue_locked(struct core_upkeeper *k, struct core_shard *s)
{
	if (!s->upkeep.queued)
		push_locked(k, core_shard_ref(s));
}

void core_upkeep_queue(struct core_shard *s)
{
	struct core_upkeeper *k = s->engine->upkeeper;

	if (k == NULL || s->engine->config.no_upkeep)
		return;
	pthread_mutex_lock(&k->mu);
	core_upkeep_enqueue_locked(k, s);
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
	s->upkeep.begun++;
	core_gauge_add(k->engine, CORE_G_UPKEEP_QUEUE, -1);
	return s;
}

/* On the recent list, to be looked at when it was left alone for as long as shards rest, or at the time given
 * if that is not 0. */
static void note_recent(struct core_shard *s, uint64_t due_us)
{
	struct core_upkeeper *k = s->engine->upkeeper;

	atomic_store_explicit(&s->upkeep.due_us, due_us != 0 ? due_us : core_ticks_us() + rest_us(s->engine),
			      memory_order_relaxed);
	atomic_store_explicit(&s->upkeep.put_off, due_us != 0, memory_order_relaxed);
	if (atomic_exchange(&s->upkeep.recent, true))
		return;
	core_shard_ref(s);
	pthread_mutex_lock(&k->mu);
	s->upkeep.next_recent = k->recent;
	k->recent = s;
	k->untidy = true;
	pthread_mutex_unlock(&k->mu);
}

void core_upkeep_touch(struct core_shard *s)
{
	if (s->engine->upkeeper != NULL && !s->engine->config.no_upkeep)
		note_recent(s, 0);
}

/* Those whose time has come go on the queue; others stay on the list. all: also those that do not rest yet,
 * but not what was put off. Under mu. */
static void look_at_recent(struct core_upkeeper *k, bool all)
{
	uint64_t now = core_ticks_us();
	struct core_shard *s = k->recent;

	k->recent = NULL;
	k->looked_us = now;
	while (s != NULL) {
		struct core_shard *next = s->upkeep.next_recent;
		bool put_off = atomic_load(&s->upkeep.put_off), gone;

		pthread_mutex_lock(&s->mu);
		gone = s->gone; /* it is to be deleted, for which it must be let go of */
		pthread_mutex_unlock(&s->mu);
		if (!gone && now < atomic_load(&s->upkeep.due_us) && (!all || put_off)) {
			s->upkeep.next_recent = k->recent;
			k->recent = s;
		} else {
			/* Before it is looked at: a commit from here on puts it on the list again. */
			atomic_store(&s->upkeep.recent, false);
			s->upkeep.rests = true;
			core_upkeep_enqueue_locked(k, s);
			pthread_mutex_lock(&k->engine->mu);
			s->refs--; /* not the last: the queue has one */
			pthread_mutex_unlock(&k->engine->mu);
		}
		s = next;
	}
}

/* Again after a while, which doubles from one failure to the next. */
static void put_off(struct core_upkeeper *k, struct core_shard *s, bool failed)
{
	uint64_t wait;

	uint64_t now = core_ticks_us();

	pthread_mutex_lock(&k->mu);
	wait = s->upkeep.retry_us != 0 ? s->upkeep.retry_us : RETRY_LEAST_US / 2;
	if (now >= s->upkeep.retry_due_us) /* else it came to this pass for another reason */
		wait = 2 * wait < RETRY_MOST_US ? 2 * wait : RETRY_MOST_US;
	s->upkeep.retry_us = wait;
	s->upkeep.retry_due_us = now + wait;
	if (failed)
		s->upkeep.retry_at_us = now + wait;
	pthread_mutex_unlock(&k->mu);
	if (!k->engine->config.no_upkeep)
		note_recent(s, now + wait);
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

/* Those that waited for it go on the queue. */
static void large_ended(struct core_upkeeper *k)
{
	struct core_engine *e = k->engine;
	struct core_shard *s, *next;

	pthread_mutex_lock(&k->mu);
	k->large_runs = false;
	pthread_mutex_lock(&e->mu);
	HASH_ITER(hh, e->shards, s, next)
	{
		if (!s->upkeep.waits_large)
			continue;
		s->upkeep.waits_large = false;
		if (s->upkeep.queued)
			continue;
		core_shard_take_locked(s);
		push_locked(k, s);
	}
	pthread_mutex_unlock(&e->mu);
	pthread_mutex_unlock(&k->mu);
}

enum kv_rc core_upkeep_merge(struct core_upkeeper *k, struct core_shard *s, struct core_merge_run *run,
			     bool *ran, struct core_upkeep_result *result, struct kv_err *err)
{
	bool large = run->bytes > CORE_MERGE_LARGE, fits;
	enum kv_rc rc;

	*ran = may_run(k, s, run);
	if (!*ran) {
		core_compact_drop(s, run);
		return KV_OK;
	}
	core_gauge_add(k->engine, CORE_G_MERGES_RUNNING, 1);
	rc = core_compact_do(s, run, &fits, result, err);
	core_gauge_add(k->engine, CORE_G_MERGES_RUNNING, -1);
	if (large)
		large_ended(k);
	pthread_mutex_lock(&k->mu);
	if (s->upkeep.asked != NULL) /* it may have waited for this one */
		core_upkeep_enqueue_locked(k, s);
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->mu);
	return rc;
}

/* One merge, if one is due. *ran: one ran. */
static enum kv_rc merge_due(struct core_upkeeper *k, struct core_shard *s, enum core_merge_aim aim, bool *ran,
			    struct kv_err *err)
{
	struct core_merge_ask ask = {.aim = aim};
	struct core_upkeep_result result = {0};
	struct core_merge_run run;
	enum kv_rc rc = KV_OK;
	bool busy;

	*ran = false;
	pthread_mutex_lock(&s->mu);
	busy = core_compact_is_small_running(s);
	pthread_mutex_unlock(&s->mu);
	if (busy || !core_compact_begin(s, &ask, core_frontier_empty(), &run))
		return KV_OK; /* who runs it looks again when it is done */
	rc = core_upkeep_merge(k, s, &run, ran, &result, err);
	if (rc != KV_OK || *ran)
		return rc;
	/* A large one has to wait; a small one need not. */
	pthread_mutex_lock(&k->mu);
	s->upkeep.rests = s->upkeep.rests || aim == CORE_AIM_REST;
	pthread_mutex_unlock(&k->mu);
	ask = (struct core_merge_ask){.aim = CORE_AIM_LEVELS, .bytes_max = CORE_MERGE_LARGE};
	if (core_compact_begin(s, &ask, core_frontier_empty(), &run))
		rc = core_upkeep_merge(k, s, &run, ran, &result, err);
	return rc;
}

/* --- appends that are too fast --------------------------------------------------------------------- */

bool core_shard_is_slow(const struct core_shard *s)
{
	return atomic_load_explicit(&s->runs, memory_order_relaxed) > CORE_RUNS_SLOW;
}

/* They wait for as long as merges are on their way: a pass that was begun after they came and did nothing,
 * while no merge of the shard runs or waits for its turn, lets them go. */
void core_upkeep_admit(struct core_shard *s)
{
	struct core_engine *e = s->engine;
	struct core_upkeeper *k = e->upkeeper;
	uint64_t pass;

	if (atomic_load_explicit(&s->runs, memory_order_relaxed) <= CORE_RUNS_MAX || k == NULL ||
	    e->config.no_upkeep)
		return;
	core_count(e, CORE_M_APPEND_STALLS, 1);
	core_gauge_add(e, CORE_G_STALLED, 1);
	pthread_mutex_lock(&k->mu);
	core_upkeep_enqueue_locked(k, s);
	pass = s->upkeep.begun + 1;
	while (atomic_load(&s->runs) > CORE_RUNS_MAX && s->upkeep.useless < pass && !core_upkeep_stops(e))
		pthread_cond_wait(&k->changed, &k->mu);
	pthread_mutex_unlock(&k->mu);
	core_gauge_add(e, CORE_G_STALLED, -1);
}

/* --- the threads ----------------------------------------------------------------------------------- */

static bool gc_is_due(struct core_shard *s)
{
	bool due;

	pthread_mutex_lock(&s->mu);
	due = core_gc_is_due(s);
	pthread_mutex_unlock(&s->mu);
	return due;
}

enum kv_rc core_upkeep_collect(struct core_shard *s, enum kv_rc rc, struct core_upkeep_result *result,
			       struct kv_err *err)
{
	struct kv_err own;
	enum kv_rc collected;

	if (rc != KV_OK && core_upkeep_stops(s->engine))
		return rc; /* that is why, and there is no time */
	collected = core_gc(s, result, rc == KV_OK ? err : &own);
	return rc == KV_OK ? collected : rc;
}

/* A failure of this kind is no failure of maintenance. */
static bool is_over(enum kv_rc rc)
{
	return rc == KV_NO_SHARD || rc == KV_SHARD_REPLACED || rc == KV_SHUTDOWN;
}

/* What is due of itself. *ran: a merge ran; *kept: something must stay for now. */
static enum kv_rc tend(struct core_upkeeper *k, struct core_shard *s, bool rests, bool *ran, bool *kept,
		       struct kv_err *err)
{
	struct core_upkeep_result result = {0};
	bool hollow, folded;
	enum kv_rc rc = merge_due(k, s, rests ? CORE_AIM_REST : CORE_AIM_LEVELS, ran, err);

	/* At rest also what is small comes together. */
	if (rc == KV_OK && rests && !*ran && core_upkeep_tail_has_rows(s, core_frontier_empty(), &hollow))
		rc = core_fold_now(s, false, false, &folded, err);
	if (!is_over(rc) && gc_is_due(s))
		rc = core_upkeep_collect(s, rc, &result, err);
	*kept = result.kept_blobs != 0;
	return rc;
}

static void work_on(struct core_upkeeper *k, struct core_shard *s)
{
	struct kv_err err;
	bool rests, ran = false, kept = false, early, failed, gone;
	uint64_t pass, retry_at;
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&k->mu);
	pass = s->upkeep.begun;
	retry_at = s->upkeep.retry_at_us;
	rests = s->upkeep.rests;
	s->upkeep.rests = false;
	early = core_ticks_us() < s->upkeep.retry_at_us;
	pthread_mutex_unlock(&k->mu);
	core_upkeep_serve(k, s, pass);
	if (!k->engine->config.no_upkeep && !core_upkeep_stops(k->engine) && !early)
		rc = tend(k, s, rests, &ran, &kept, &err);
	failed = rc != KV_OK && !is_over(rc);
	if (failed)
		core_notice(k->engine, "maintenance of a shard failed, and will be tried again: %s", err.msg);
	if (failed || kept)
		put_off(k, s, failed);
	else if (early && !k->engine->config.no_upkeep && !core_upkeep_stops(k->engine))
		note_recent(s, retry_at); /* a commit has taken the place of the time it was put off to */
	pthread_mutex_lock(&s->mu);
	gone = s->gone;
	pthread_mutex_unlock(&s->mu);
	pthread_mutex_lock(&k->mu);
	if (!failed && !kept && !early)
		s->upkeep.retry_us = 0;
	if (rc == KV_OK && ran) {
		s->upkeep.rests = s->upkeep.rests || rests;
		core_upkeep_enqueue_locked(k, s); /* behind the others */
	} else if ((gone /* nobody would look for it when the large one ends */ || !s->upkeep.waits_large) &&
		   !core_upkeep_is_merging(s)) {
		/* Passes begun meanwhile found this one's merge running, and left it to it. */
		s->upkeep.useless = failed ? s->upkeep.begun : pass;
	}
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->mu);
}

/* After a failure the visit goes on later. */
static void wait_to_visit(struct core_visit *v, bool failed)
{
	v->wait_us = !failed ? 0 : v->wait_us == 0 ? RETRY_LEAST_US : 2 * v->wait_us;
	if (v->wait_us > RETRY_MOST_US)
		v->wait_us = RETRY_MOST_US;
	v->not_before_us = core_ticks_us() + v->wait_us;
}

/* One shard of the visit of all. Under mu, which is let go meanwhile. */
static void visit_locked(struct core_upkeeper *k)
{
	struct core_shard *s = NULL;
	struct kv_err err;
	enum kv_rc rc;

	k->visit.runs = true;
	pthread_mutex_unlock(&k->mu);
	rc = core_sweep_next(k->engine, &k->visit, &s, &err);
	if (rc != KV_OK && !is_over(rc))
		core_notice(k->engine, "a shard was not swept: %s", err.msg);
	wait_to_visit(&k->visit, rc != KV_OK && !is_over(rc));
	if (s != NULL && core_is_due_at_rest(s))
		core_upkeep_touch(s); /* what was due before the start is due now */
	core_shard_close(s);
	pthread_mutex_lock(&k->mu);
	k->visit.runs = false;
	if (core_upkeep_stops(k->engine))
		k->visit.done = true;
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

static void wait_locked(struct core_upkeeper *k)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LOOK_MS / 1000;
	pthread_cond_timedwait(&k->changed, &k->mu, &until);
}

static void *work(void *arg)
{
	struct core_upkeeper *k = arg;

	pthread_mutex_lock(&k->mu);
	while (!core_upkeep_stops(k->engine) || k->queue != NULL) {
		struct core_shard *s = dequeue_locked(k);

		if (s != NULL) {
			k->working++;
			pthread_mutex_unlock(&k->mu);
			work_on(k, s);
			core_shard_close(s);
			pthread_mutex_lock(&k->mu);
			k->working--;
			pthread_cond_broadcast(&k->changed);
		} else if (!k->visit.runs && !k->visit.done && core_ticks_us() >= k->visit.not_before_us) {
			visit_locked(k);
		} else if (k->untidy && k->recent == NULL && k->working == 0) {
			tidy_locked(k);
		} else {
			wait_locked(k);
		}
		if (core_ticks_us() - k->looked_us >= (uint64_t)LOOK_MS * 1000)
			look_at_recent(k, false);
	}
	pthread_mutex_unlock(&k->mu);
	return NULL;
}

bool core_upkeeper_start(struct core_engine *e)
{
	struct core_upkeeper *k;
	pthread_condattr_t attr;
	sigset_t all, was;

	if (e->traits.read_only)
		return true;
	k = calloc(1, sizeof *k);
	if (k == NULL)
		return false;
	pthread_mutex_init(&k->mu, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* the clock of the wall may go back */
	pthread_cond_init(&k->changed, &attr);
	pthread_condattr_destroy(&attr);
	k->engine = e;
	k->queue_end = &k->queue;
	k->visit.done = !e->traits.sole_owner || e->config.no_upkeep;
	e->upkeeper = k;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	while (k->thread_count < CORE_UPKEEP_THREADS &&
	       pthread_create(&k->threads[k->thread_count], NULL, work, k) == 0)
		k->thread_count++;
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return k->thread_count == CORE_UPKEEP_THREADS;
}

void core_upkeeper_stop(struct core_engine *e)
{
	struct core_upkeeper *k = e->upkeeper;

	if (k == NULL)
		return;
	pthread_mutex_lock(&k->mu);
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->mu);
	for (unsigned i = 0; i < k->thread_count; i++)
		pthread_join(k->threads[i], NULL);
	k->thread_count = 0;
}

void core_upkeeper_free(struct core_engine *e)
{
	struct core_upkeeper *k = e->upkeeper;
	struct core_shard *s;

	if (k == NULL)
		return;
	pthread_mutex_lock(&k->mu);
	for (s = k->recent; s != NULL; s = s->upkeep.next_recent)
		atomic_store(&s->upkeep.due_us, 0);
	look_at_recent(k, true);
	while ((s = dequeue_locked(k)) != NULL) {
		pthread_mutex_unlock(&k->mu);
		core_upkeep_serve(k, s, s->upkeep.begun); /* that it is over */
		core_shard_close(s);
		pthread_mutex_lock(&k->mu);
	}
	pthread_mutex_unlock(&k->mu);
	e->upkeeper = NULL;
	core_visit_fini(&k->visit);
	pthread_cond_destroy(&k->changed);
	pthread_mutex_destroy(&k->mu);
	free(k);
}

/* Whether nothing is to be done but what was put off. Under mu. */
static bool is_settled(const struct core_upkeeper *k)
{
	if (k->queue != NULL || k->working != 0 || k->visit.runs || !k->visit.done)
		return false;
	for (const struct core_shard *s = k->recent; s != NULL; s = s->upkeep.next_recent)
		if (!atomic_load(&s->upkeep.put_off))
			return false;
	return true;
}

void core_upkeep_settle(struct core_engine *e)
{
	struct core_upkeeper *k = e->upkeeper;

	if (k == NULL)
		return;
	pthread_mutex_lock(&k->mu);
	while (!is_settled(k)) {
		look_at_recent(k, true);
		if (!is_settled(k))
			wait_locked(k);
	}
	pthread_mutex_unlock(&k->mu);
}
