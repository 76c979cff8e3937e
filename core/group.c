/*
 * group.c - changes that meet at one shard are committed together.
 *
 * Whoever finds nobody at work leads: it takes what has come, itself first, commits it in one step, and names
 * the next leader, the first of those who came meanwhile. So as long as a synced step takes, so many changes
 * share the next one, and a change that comes alone waits for nobody.
 *
 * Invariants:
 *  1. led is set iff a change leads or has been named to. Only the leader takes changes from the queue; the
 *     next one named stands first in it.
 *  2. A change is its caller's again when its turn is over: nobody touches it after that.
 */
#include <assert.h>

#include "core/attempt.h"
#include "core/engine_impl.h"

void core_group_init(struct core_group *g)
{
	pthread_mutex_init(&g->mu, NULL);
}

void core_group_fini(struct core_group *g)
{
	assert(g->first == NULL && !g->led);
	pthread_mutex_destroy(&g->mu);
}

/* The changes that have come, in order; c is the first. */
static size_t take(struct core_group *g, struct core_change *c, struct core_change *members[CORE_GROUP_MAX])
{
	size_t count = 0;

	pthread_mutex_lock(&g->mu);
	assert(g->first == c);
	while (g->first != NULL && count < CORE_GROUP_MAX) {
		members[count++] = g->first;
		g->first = g->first->turn.next;
	}
	pthread_mutex_unlock(&g->mu);
	return count;
}

/* What was taken is over, and the next one leads. */
static void hand_over(struct core_group *g, struct core_change **members, size_t count)
{
	pthread_mutex_lock(&g->mu);
	for (size_t i = 0; i < count; i++) {
		members[i]->turn.is = CORE_TURN_OVER;
		if (i != 0)
			pthread_cond_signal(&members[i]->turn.changed);
	}
	g->led = g->first != NULL;
	if (g->led) {
		g->first->turn.is = CORE_TURN_LEADS;
		pthread_cond_signal(&g->first->turn.changed);
	}
	pthread_mutex_unlock(&g->mu);
}

static void lead(struct core_shard *s, struct core_change *c)
{
	struct core_change *members[CORE_GROUP_MAX];
	bool due = false, committed = false;
	size_t count;

	pthread_mutex_lock(&s->commit_mu);
	count = take(&s->group, c, members);
	core_machine_commit_group(s, members, count, &due);
	core_machine_after_locked(s);
	pthread_mutex_unlock(&s->commit_mu);
	for (size_t i = 0; i < count; i++)
		committed = committed || members[i]->turn.committed;
	hand_over(&s->group, members, count);
	core_machine_after(s, committed, due);
}

enum kv_rc core_group_commit(struct core_shard *s, struct core_change *c, struct kv_err *err)
{
	struct core_group *g = &s->group;
	struct core_turn *turn = &c->turn;

	*turn = (struct core_turn){.is = CORE_TURN_WAITS, .err = err};
	pthread_cond_init(&turn->changed, NULL);
	pthread_mutex_lock(&g->mu);
	if (g->first == NULL)
		g->first = c;
	else
		g->last->turn.next = c;
	g->last = c;
	if (!g->led) {
		g->led = true;
		turn->is = CORE_TURN_LEADS;
	}
	while (turn->is == CORE_TURN_WAITS)
		pthread_cond_wait(&turn->changed, &g->mu);
	pthread_mutex_unlock(&g->mu);
	if (turn->is == CORE_TURN_LEADS)
		lead(s, c);
	pthread_cond_destroy(&turn->changed);
	return turn->rc;
}
