/*
 * upkeep_ask.c - maintenance that is asked for; see upkeep.h.
 *
 * A request stands on its shard's list until it is answered or cancelled, and a pass over the shard (upkeep.c)
 * serves those that nobody serves. One that cannot go on, because a merge is in its way, is left on the list: the
 * end of that merge has the shard passed over again.
 *
 * A request belongs to the one who asked: once it is off the list it may be gone. So it is copied when it is
 * served, and found again by its ticket, for at the same place in memory there may be another one by then.
 */
#include <pthread.h>
#include <stdlib.h>

#include "core/upkeep_impl.h"

bool core_upkeep_tail_has_rows(struct core_shard *s, struct core_frontier upto, bool *hollow)
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

bool core_upkeep_is_merging(struct core_shard *s)
{
	bool merging;

	pthread_mutex_lock(&s->mu);
	merging = s->merging != NULL;
	pthread_mutex_unlock(&s->mu);
	return merging;
}

/* All that is there below upto becomes one run. *again: a merge is in the way; its end puts the shard on the queue. */
static enum kv_rc compact(struct core_upkeeper *k, struct core_shard *s, const struct core_upkeep *u,
			  bool *again, struct core_upkeep_result *result, struct kv_err *err)
{
	struct core_merge_ask ask = {.aim = CORE_AIM_ONE, .since = u->since};
	bool hollow, changed, ran = true;
	enum kv_rc rc = core_machine_load(s, true, err);

	/* With batches before it the tail must become one of them, or merges would run into those of appends. */
	if (rc == KV_OK && core_upkeep_tail_has_rows(s, u->upto, &hollow))
		rc = core_fold_now(s, hollow, true, &changed, err);
	while (rc == KV_OK && ran) {
		struct core_merge_run run;

		if (core_upkeep_stops(k->engine))
			return kv_fail_rc(err, KV_SHUTDOWN);
		*again = core_upkeep_is_merging(s);
		if (*again || !core_compact_begin(s, &ask, u->upto, &run))
			break;
		rc = core_upkeep_merge(k, s, &run, &ran, result, err);
		*again = !ran;
	}
	return *again ? rc : core_upkeep_collect(s, rc, result, err);
}

static enum kv_rc do_asked(struct core_upkeeper *k, struct core_shard *s, const struct core_upkeep *u,
			   bool *again, struct core_upkeep_result *result, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	*again = false;
	if (core_upkeep_stops(k->engine))
		return kv_fail_rc(err, KV_SHUTDOWN);
	switch (u->kind) {
	case CORE_COMPACT:
		rc = compact(k, s, u, again, result, err);
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

/* The request with that ticket, if it is there still: at the same place in memory there may be another. Under mu.
 */
static struct core_upkeep **find_asked(struct core_shard *s, uint64_t ticket)
{
	for (struct core_upkeep **p = &s->upkeep.asked; *p != NULL; p = &(*p)->next)
		if ((*p)->ticket == ticket)
			return p;
	return NULL;
}

/* Tell the one who asked, unless he has gone. */
static void answer(struct core_upkeeper *k, struct core_shard *s, uint64_t ticket, enum kv_rc rc,
		   const struct kv_err *err, const struct core_upkeep_result *result)
{
	struct core_upkeep **at, *u = NULL;

	pthread_mutex_lock(&k->mu);
	at = find_asked(s, ticket);
	if (at != NULL) {
		u = *at;
		*at = u->next;
		u->telling = true;
	}
	pthread_mutex_unlock(&k->mu);
	if (u == NULL)
		return;
	u->rc = rc;
	u->err = *err;
	u->result = *result;
	pthread_mutex_lock(&s->mu);
	u->result.seqno = s->state.seqno;
	pthread_mutex_unlock(&s->mu);
	u->done(u);
}

/* It waits for something that puts the shard on the queue; what it has done so far is remembered. If that has
 * ended meanwhile, the shard is put there now. */
static void leave_asked(struct core_upkeeper *k, struct core_shard *s, uint64_t ticket,
			const struct core_upkeep_result *result)
{
	struct core_upkeep **at;

	pthread_mutex_lock(&k->mu);
	at = find_asked(s, ticket);
	if (at != NULL) {
		(*at)->running = false;
		(*at)->result = *result;
	}
	/* Whose merge is on the list will look at what was asked under mu, after it was taken off. */
	if (at != NULL && !s->upkeep.waits_large && !core_upkeep_is_merging(s))
		core_upkeep_enqueue_locked(k, s);
	pthread_mutex_unlock(&k->mu);
}

/* The next thing asked of the shard that nobody does, and was not looked at in this pass; copied. False: none. */
static bool next_asked(struct core_upkeeper *k, struct core_shard *s, uint64_t pass, struct core_upkeep *copy)
{
	struct core_upkeep *u;

	pthread_mutex_lock(&k->mu);
	u = s->upkeep.asked;
	while (u != NULL && (u->running || u->pass == pass))
		u = u->next;
	if (u != NULL) {
		u->running = true;
		u->pass = pass;
		*copy = *u;
	}
	pthread_mutex_unlock(&k->mu);
	return u != NULL;
}

void core_upkeep_serve(struct core_upkeeper *k, struct core_shard *s, uint64_t pass)
{
	struct core_upkeep u;

	while (next_asked(k, s, pass, &u)) {
		struct core_upkeep_result result = u.result;
		struct kv_err err = {0};
		bool again;
		enum kv_rc rc = do_asked(k, s, &u, &again, &result, &err);

		if (rc == KV_OK && again)
			leave_asked(k, s, u.ticket, &result);
		else
			answer(k, s, u.ticket, rc, &err, &result);
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
	u->pass = 0;
	u->result = (struct core_upkeep_result){0};
	u->upto = info.upper;
	u->since = info.since;
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
	core_upkeep_enqueue_locked(k, s);
	pthread_mutex_unlock(&k->mu);
}

bool core_upkeep_cancel(struct core_upkeep *u)
{
	struct core_upkeeper *k = u->shard->engine->upkeeper;
	struct core_upkeep **at;

	if (k == NULL)
		return false;
	pthread_mutex_lock(&k->mu);
	at = u->telling ? NULL : find_asked(u->shard, u->ticket);
	if (at != NULL)
		*at = u->next;
	pthread_mutex_unlock(&k->mu);
	return at != NULL;
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
