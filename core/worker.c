/*
 * worker.c - see worker.h. A queue, a condition, a thread; signals are for others.
 */
#include "core/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct core_worker {
	pthread_mutex_t mu; /* all below */
	struct core_job *first;
	struct core_job **last;
	bool busy;
	bool stopping;
	pthread_cond_t changed;

	pthread_t thread;
};

static void *work(void *arg)
{
	struct core_worker *w = arg;

	pthread_mutex_lock(&w->mu);
	while (w->first != NULL || !w->stopping) {
		struct core_job *job = w->first;
		bool stopping = w->stopping;

		if (job == NULL) {
			pthread_cond_wait(&w->changed, &w->mu);
			continue;
		}
		w->first = job->next;
		if (w->first == NULL)
			w->last = &w->first;
		w->busy = true;
		pthread_mutex_unlock(&w->mu);
		job->run(job, stopping);
		pthread_mutex_lock(&w->mu);
		w->busy = false;
		pthread_cond_broadcast(&w->changed);
	}
	pthread_mutex_unlock(&w->mu);
	return NULL;
}

struct core_worker *core_worker_start(void)
{
	struct core_worker *w = calloc(1, sizeof *w);
	sigset_t all, was;
	int failed;

	if (w == NULL)
		return NULL;
	w->last = &w->first;
	pthread_mutex_init(&w->mu, NULL);
	pthread_cond_init(&w->changed, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	failed = pthread_create(&w->thread, NULL, work, w);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	if (failed == 0)
		return w;
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->mu);
	free(w);
	return NULL;
}

void core_worker_queue(struct core_worker *w, struct core_job *job)
{
	pthread_mutex_lock(&w->mu);
	job->next = NULL;
	*w->last = job;
	w->last = &job->next;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->mu);
}

void core_worker_drain(struct core_worker *w)
{
	pthread_mutex_lock(&w->mu);
	while (w->first != NULL || w->busy)
		pthread_cond_wait(&w->changed, &w->mu);
	pthread_mutex_unlock(&w->mu);
}

void core_worker_stop(struct core_worker *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->mu);
	w->stopping = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->mu);
	pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->mu);
	free(w);
}
