/*
 * waiters.c - those who wait for a shard's upper.
 *
 * They stand on a list, ascending by time, so that a commit looks only at those
 * it wakes. A few it wakes itself; many are handed to a thread that does nothing
 * else, so that the writer has its answer before thousands of readers have theirs.
 *
 * Invariant: a waiter is on the list iff its `at` is not NULL. Once it is off it
 * will be woken, by whoever took it off, unless that was core_shard_unwait.
 */
#include <stdlib.h>

#include "core/engine_impl.h"

/* So many the committing thread wakes itself. */
enum { WAKE_DIRECTLY = 8 };

/* Take those off whose time the upper has passed, all of them when the shard is gone; *count of them. Under mu. */
static struct core_waiter *take_ripe(struct core_shard *s, size_t *count)
{
	struct core_waiter *first = s->waiters, **p = &s->waiters;

	for (; *p != NULL && (s->gone || !core_frontier_covers(s->state.upper, (*p)->time)); p = &(*p)->next) {
		(*p)->at = NULL;
		(*count)++;
	}
	if (*count == 0)
		return NULL;
	s->waiters = *p;
	if (s->waiters != NULL)
		s->waiters->at = &s->waiters;
	*p = NULL;
	return first;
}

static void wake_all(struct core_waiter *w)
{
	while (w != NULL) {
		struct core_waiter *next = w->next;

		w->wake(w); /* may free it */
		w = next;
	}
}

struct wake_job {
	struct core_job job;
	struct core_waiter *first;
};

static void do_wake_job(struct core_job *job, bool stopping)
{
	(void)stopping; /* whoever was taken off must be woken */
	wake_all(((struct wake_job *)job)->first);
	free(job);
}

void core_machine_wake(struct core_shard *s)
{
	struct core_waiter *first = NULL;
	struct wake_job *job = NULL;
	size_t count = 0;

	pthread_mutex_lock(&s->mu);
	if (s->loaded || s->gone)
		first = take_ripe(s, &count);
	pthread_mutex_unlock(&s->mu);
	if (count > WAKE_DIRECTLY && s->engine->waker != NULL)
		job = malloc(sizeof *job);
	if (job == NULL) {
		wake_all(first);
		return;
	}
	*job = (struct wake_job){.job.run = do_wake_job, .first = first};
	core_worker_queue(s->engine->waker, &job->job);
}

void core_machine_end(struct core_shard *s)
{
	pthread_mutex_lock(&s->mu);
	s->gone = true;
	pthread_mutex_unlock(&s->mu);
	core_machine_wake(s);
}

bool core_shard_wait(struct core_shard *s, struct core_waiter *w)
{
	struct core_waiter **p = &s->waiters;
	bool waits;

	pthread_mutex_lock(&s->mu);
	waits = s->loaded && !s->gone && core_frontier_covers(s->state.upper, w->time);
	if (waits) {
		/* Before its equals: most wait for the same time, the upper. */
		while (*p != NULL && (*p)->time < w->time)
			p = &(*p)->next;
		w->next = *p;
		w->at = p;
		if (w->next != NULL)
			w->next->at = &w->next;
		*p = w;
	}
	pthread_mutex_unlock(&s->mu);
	return waits;
}

bool core_shard_unwait(struct core_shard *s, struct core_waiter *w)
{
	bool waits;

	pthread_mutex_lock(&s->mu);
	waits = w->at != NULL;
	if (waits) {
		*w->at = w->next;
		if (w->next != NULL)
			w->next->at = w->at;
		w->at = NULL;
	}
	pthread_mutex_unlock(&s->mu);
	return waits;
}
