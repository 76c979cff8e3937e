/*
 * waiters.c - those who wait for a shard's upper.
 *
 * They stand on a list, ascending by time, so that a commit looks only at those
 * it wakes. A few it wakes itself; many are handed to a thread that does nothing
 * else, so that the writer has its answer before thousands of readers have theirs.
 * Where others write to the store too, a thread (the follower) asks consensus for
 * those who wait.
 *
 * Invariant: a waiter is on the list iff its `at` is not NULL. Once it is off it
 * will be woken, by whoever took it off, unless that was core_shard_unwait.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "core/engine_impl.h"

/* So many the committing thread wakes itself. */
enum { WAKE_DIRECTLY = 8 };

/* Take those off whose time the upper has passed, all of them when the shard is gone; *count of them. Under
 * mu. */
static struct core_waiter *take_ripe(struct core_shard *s, size_t *count)
{
	struct core_waiter *first = s->waiters, **p = &s->waiters;

	for (; *p != NULL && (s->gone || !core_frontier_covers(s->state.upper, (*p)->time));
	     p = &(*p)->next) {
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

/* --- where others write too ------------------------------------------------------------------------ */

/* How often consensus is asked for those who wait. */
enum { FOLLOW_MS = 100 };

struct core_follower {
	pthread_mutex_t mu; /* stop */
	pthread_cond_t stopped;
	pthread_t thread;
	bool stop;
	struct core_engine *engine;
};

/* The shards somebody waits for, with references; *count of them. NULL: none, or no memory. */
static struct core_shard **awaited(struct core_engine *e, size_t *count)
{
	struct core_shard **list, *s, *next;

	*count = 0;
	pthread_mutex_lock(&e->mu);
	list = calloc(HASH_COUNT(e->shards) + 1, sizeof(struct core_shard *));
	HASH_ITER(hh, e->shards, s, next)
	{
		bool waits;

		if (list == NULL || s->refs == 0) /* who waits has it open */
			continue;
		pthread_mutex_lock(&s->mu);
		waits = s->waiters != NULL;
		pthread_mutex_unlock(&s->mu);
		if (!waits)
			continue;
		core_shard_take_locked(s);
		list[(*count)++] = s;
	}
	pthread_mutex_unlock(&e->mu);
	return list;
}

static void look_once(struct core_engine *e)
{
	size_t count;
	struct core_shard **list = awaited(e, &count);

	for (size_t i = 0; i < count; i++) {
		/* Loading wakes. What fails now is tried again. */
		enum kv_rc rc = core_machine_load(list[i], true, NULL);

		(void)rc;
		core_shard_close(list[i]);
	}
	free(list);
}

static void *follow(void *arg)
{
	struct core_follower *f = arg;
	struct timespec until;

	pthread_mutex_lock(&f->mu);
	while (!f->stop) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += FOLLOW_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (pthread_cond_timedwait(&f->stopped, &f->mu, &until) == 0)
			continue;
		pthread_mutex_unlock(&f->mu);
		look_once(f->engine);
		pthread_mutex_lock(&f->mu);
	}
	pthread_mutex_unlock(&f->mu);
	return NULL;
}

bool core_follower_start(struct core_engine *e)
{
	struct core_follower *f;
	sigset_t all, before;
	bool started;

	if (e->traits.sole_owner)
		return true;
	f = calloc(1, sizeof *f);
	if (f == NULL)
		return false;
	pthread_mutex_init(&f->mu, NULL);
	pthread_cond_init(&f->stopped, NULL);
	f->engine = e;
	sigfillset(&all); /* signals are for the threads of the program */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	started = pthread_create(&f->thread, NULL, follow, f) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (started)
		e->follower = f;
	else
		free(f);
	return started;
}

void core_follower_stop(struct core_engine *e)
{
	struct core_follower *f = e->follower;

	if (f == NULL)
		return;
	pthread_mutex_lock(&f->mu);
	f->stop = true;
	pthread_cond_signal(&f->stopped);
	pthread_mutex_unlock(&f->mu);
	pthread_join(f->thread, NULL);
	e->follower = NULL;
	pthread_cond_destroy(&f->stopped);
	pthread_mutex_destroy(&f->mu);
	free(f);
}
