/*
 * group.c - changes that meet are committed together, those of one shard and those of several.
 *
 * The queue is the engine's. Whoever finds nobody at work leads: it takes what has come, itself first, and
 * commits it in one step of the store, each shard's changes as one attempt; then what came meanwhile, until
 * nothing does. So as long as a synced step takes, so many changes share the next one, and a change that
 * comes alone waits for nobody.
 *
 * A change is waited for, or it was submitted: then its thread has gone on, and it is ended by a call. One
 * that waits for its own change leads no longer than that takes, and names the next leader: the first in the
 * queue, if somebody waits for it, or else the worker.
 *
 * A shard that somebody else is committing to is not waited for while there is other work.
 *
 * Invariants:
 *  1. led is set iff somebody leads or has been named to. Only the leader takes changes from the queue, and
 *     uses makings.
 *  2. A change is its caller's again when its turn is over: nobody touches it after that, nor its shard.
 */
#include <assert.h>
#include <stdlib.h>

#include "core/attempt.h"
#include "core/engine_impl.h"

enum { LOOK_MAX = 512 }; /* changes that are looked at for one step */

static void lead(struct core_group *g, const struct core_turn *own);

/* The worker was named. */
static void do_lead(struct core_job *job, bool stopping)
{
	(void)stopping; /* who submitted is to be told */
	lead((struct core_group *)(void *)((char *)job - offsetof(struct core_group, job)), NULL);
}

bool core_group_init(struct core_group *g)
{
	pthread_mutex_init(&g->mu, NULL);
	pthread_cond_init(&g->idle, NULL);
	g->last = &g->first;
	g->makings = calloc(CORE_GROUP_SHARDS, sizeof(struct core_making *));
	if (g->makings != NULL)
		g->makings[0] = malloc(sizeof **g->makings); /* so that there is always one */
	g->job.run = do_lead;
	g->worker = core_worker_start();
	return g->makings != NULL && g->makings[0] != NULL && g->worker != NULL;
}

void core_group_fini(struct core_group *g)
{
	pthread_mutex_lock(&g->mu);
	while (g->led)
		pthread_cond_wait(&g->idle, &g->mu);
	assert(g->first == NULL);
	pthread_mutex_unlock(&g->mu);
	core_worker_stop(g->worker);
	for (size_t i = 0; i < CORE_GROUP_SHARDS && g->makings != NULL; i++)
		free(g->makings[i]);
	free(g->makings);
	pthread_cond_destroy(&g->idle);
	pthread_mutex_destroy(&g->mu);
}

/* --- one step -------------------------------------------------------------------------------------- */

/* The making of s, whose commit_mu is held. NULL: there is no room for it. Under mu. */
static struct core_making *add_shard(struct core_group *g, struct core_shard *s)
{
	struct core_making *m;

	if (g->count == CORE_GROUP_SHARDS)
		return NULL;
	if (g->makings[g->count] == NULL)
		g->makings[g->count] = malloc(sizeof *m);
	m = g->makings[g->count];
	if (m == NULL)
		return NULL;
	m->shard = s;
	m->count = 0;
	m->from = 0;
	m->due = false;
	g->count++;
	return m;
}

static struct core_making *making_of(struct core_group *g, struct core_shard *s)
{
	struct core_making *m = NULL;

	for (size_t i = 0; i < g->count; i++)
		if (g->makings[i]->shard == s)
			return g->makings[i];
	if (g->count == CORE_GROUP_SHARDS || pthread_mutex_trylock(&s->commit_mu) != 0)
		return NULL;
	m = add_shard(g, s);
	if (m == NULL)
		pthread_mutex_unlock(&s->commit_mu);
	return m;
}

/* Take what has come, in order, for the shards that can be had without waiting. Under mu. */
static void collect(struct core_group *g)
{
	struct core_change **at = &g->first;

	for (size_t looked = 0; *at != NULL && looked < LOOK_MAX; looked++) {
		struct core_change *c = *at;
		struct core_making *m = making_of(g, c->turn.shard);

		if (m != NULL && m->count < CORE_GROUP_MAX) {
			m->members[m->count++] = c;
			*at = c->turn.next;
		} else {
			at = &c->turn.next;
		}
	}
	if (*at == NULL)
		g->last = at;
}

/* What is to be committed now, with commit_mu of each shard. */
static void take(struct core_group *g)
{
	pthread_mutex_lock(&g->mu);
	assert(g->first != NULL);
	g->count = 0;
	collect(g);
	if (g->count == 0) {
		struct core_shard *s = g->first->turn.shard; /* open for as long as its change is there */

		pthread_mutex_unlock(&g->mu);
		pthread_mutex_lock(&s->commit_mu);
		pthread_mutex_lock(&g->mu);
		(void)add_shard(g, s);
		collect(g);
	}
	pthread_mutex_unlock(&g->mu);
}

/* Commit in one step as many as that takes. Whether some are left. */
static bool commit(struct core_group *g)
{
	struct core_attempt *attempts[CORE_GROUP_SHARDS];
	struct core_making *made[CORE_GROUP_SHARDS];
	size_t count = 0;
	bool left = false;

	for (size_t i = 0; i < g->count; i++) {
		struct core_making *m = g->makings[i];

		if (m->from == m->count)
			continue;
		core_machine_make(m);
		if (m->attempt.count != 0) {
			attempts[count] = &m->attempt;
			made[count++] = m;
		}
	}
	if (count != 0)
		core_attempts_store(attempts, count, KV_SYNC);
	for (size_t i = 0; i < count; i++)
		core_machine_made(made[i]);
	for (size_t i = 0; i < g->count; i++) {
		struct core_making *m = g->makings[i];

		m->from = m->to;
		left = left || m->from < m->count;
	}
	return left;
}

/* The shards are let go, and what follows a commit is done: there others are called back, without a lock. */
static void leave(struct core_group *g)
{
	for (size_t i = 0; i < g->count; i++) {
		core_machine_after_locked(g->makings[i]->shard);
		pthread_mutex_unlock(&g->makings[i]->shard->commit_mu);
	}
	for (size_t i = 0; i < g->count; i++) {
		const struct core_making *m = g->makings[i];
		bool committed = false;

		for (size_t k = 0; k < m->count; k++)
			committed = committed || m->members[k]->turn.committed;
		core_machine_after(m->shard, committed, m->due);
	}
}

/* Those that are waited for go; left are those that were submitted. */
static void end_waited(struct core_group *g)
{
	pthread_mutex_lock(&g->mu);
	for (size_t i = 0; i < g->count; i++) {
		struct core_making *m = g->makings[i];
		size_t left = 0;

		for (size_t k = 0; k < m->count; k++) {
			struct core_turn *turn = &m->members[k]->turn;

			core_timed(m->shard->engine, CORE_T_COMMIT, turn->began_us);
			if (turn->over != NULL) {
				m->members[left++] = m->members[k];
				continue;
			}
			turn->is = CORE_TURN_OVER;
			pthread_cond_signal(&turn->changed);
		}
		m->count = left;
	}
	pthread_mutex_unlock(&g->mu);
}

static void step(struct core_group *g)
{
	take(g);
	while (commit(g))
		;
	leave(g);
	end_waited(g);
	for (size_t i = 0; i < g->count; i++) {
		const struct core_making *m = g->makings[i];

		for (size_t k = 0; k < m->count; k++)
			m->members[k]->turn.over(m->members[k]);
	}
}

/* --- whose turn it is ------------------------------------------------------------------------------ */

/* After a step: whether its leader goes on. */
static bool goes_on(struct core_group *g, const struct core_turn *own)
{
	bool on = false;

	pthread_mutex_lock(&g->mu);
	if (g->first == NULL) {
		g->led = false;
		pthread_cond_broadcast(&g->idle);
	} else if (own == NULL || own->is != CORE_TURN_OVER) {
		on = true;
	} else if (g->first->turn.over == NULL) {
		g->first->turn.is = CORE_TURN_LEADS;
		pthread_cond_signal(&g->first->turn.changed);
	} else {
		core_worker_queue(g->worker, &g->job);
	}
	pthread_mutex_unlock(&g->mu);
	return on;
}

static void lead(struct core_group *g, const struct core_turn *own)
{
	do
		step(g);
	while (goes_on(g, own));
}

/* c stands at the end of the queue. Whether its thread is to lead. Under mu. */
static bool enqueue(struct core_group *g, struct core_change *c)
{
	bool leads = !g->led;

	*g->last = c;
	g->last = &c->turn.next;
	g->led = true;
	return leads;
}

enum kv_rc core_group_commit(struct core_shard *s, struct core_change *c, struct kv_err *err)
{
	struct core_group *g = &s->engine->group;
	struct core_turn *turn = &c->turn;
	bool leads;

	*turn = (struct core_turn){
		.shard = s, .is = CORE_TURN_WAITS, .err = err, .began_us = core_ticks_us()};
	pthread_cond_init(&turn->changed, NULL);
	pthread_mutex_lock(&g->mu);
	if (enqueue(g, c))
		turn->is = CORE_TURN_LEADS;
	while (turn->is == CORE_TURN_WAITS)
		pthread_cond_wait(&turn->changed, &g->mu);
	leads = turn->is == CORE_TURN_LEADS;
	pthread_mutex_unlock(&g->mu);
	if (leads)
		lead(g, turn);
	pthread_cond_destroy(&turn->changed);
	return turn->rc;
}

void core_group_submit(struct core_shard *s, struct core_change *c, void (*over)(struct core_change *c),
		       struct kv_err *err)
{
	struct core_group *g = &s->engine->group;
	bool leads;

	c->turn = (struct core_turn){.shard = s, .over = over, .err = err, .began_us = core_ticks_us()};
	pthread_mutex_lock(&g->mu);
	leads = enqueue(g, c);
	pthread_mutex_unlock(&g->mu);
	if (leads)
		lead(g, NULL);
}
