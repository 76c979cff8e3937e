/*
 * storer.c - see storer.h.
 *
 * 1. data is set by who gives and cleared by the thread, once it is stored.
 * 2. After a failure data is only freed; rc is never cleared.
 */
#include "core/storer.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

void core_storer_init(struct core_storer *s, struct kv_blobs *blobs)
{
	*s = (struct core_storer){.blobs = blobs};
	pthread_mutex_init(&s->mu, NULL);
	pthread_cond_init(&s->changed, NULL);
}

static void *work(void *arg)
{
	struct core_storer *s = arg;

	pthread_mutex_lock(&s->mu);
	for (;;) {
		while (s->data == NULL && !s->stop)
			pthread_cond_wait(&s->changed, &s->mu);
		if (s->data == NULL)
			break;
		struct kv_err err = {0};
		enum kv_rc rc = s->rc;

		pthread_mutex_unlock(&s->mu);
		if (rc == KV_OK) /* nobody else changes what it has */
			rc = kv_blob_set(s->blobs, s->key, s->data, s->len, &err);
		pthread_mutex_lock(&s->mu);
		if (s->rc == KV_OK) {
			s->rc = rc;
			s->err = err;
		}
		free(s->data);
		s->data = NULL;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->mu);
	return NULL;
}

static bool start(struct core_storer *s)
{
	sigset_t all, before;

	if (s->runs)
		return true;
	/* Signals are for the threads of the program. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	s->runs = pthread_create(&s->thread, NULL, work, s) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return s->runs;
}

static void join(struct core_storer *s)
{
	if (!s->runs)
		return;
	pthread_mutex_lock(&s->mu);
	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->mu);
	pthread_join(s->thread, NULL);
	s->runs = false;
	s->stop = false;
}

void core_storer_fini(struct core_storer *s)
{
	pthread_mutex_lock(&s->mu);
	if (s->rc == KV_OK)
		s->rc = KV_INTERRUPTED;
	pthread_mutex_unlock(&s->mu);
	join(s);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->mu);
}

static enum kv_rc failure(const struct core_storer *s, struct kv_err *err)
{
	if (s->rc != KV_OK && err != NULL)
		*err = s->err;
	return s->rc;
}

enum kv_rc core_storer_give(struct core_storer *s, const char *key, uint8_t *data, size_t len,
			    struct kv_err *err)
{
	bool runs = start(s);
	enum kv_rc rc;

	assert(strlen(key) < sizeof s->key);
	pthread_mutex_lock(&s->mu);
	while (s->data != NULL)
		pthread_cond_wait(&s->changed, &s->mu);
	rc = failure(s, err);
	if (rc == KV_OK && runs) {
		memcpy(s->key, key, strlen(key) + 1);
		s->data = data;
		s->len = len;
		data = NULL;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->mu);
	if (rc == KV_OK && !runs) /* no thread is to be had */
		rc = kv_blob_set(s->blobs, key, data, len, err);
	free(data);
	return rc;
}

enum kv_rc core_storer_end(struct core_storer *s, struct kv_err *err)
{
	join(s);
	return failure(s, err);
}
