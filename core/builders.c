/*
 * builders.c - what the builders of one engine share, and what becomes of what they built; see builder.h.
 */
#include "core/builder.h"

#include <stdatomic.h>
#include <stdlib.h>

/* ALONE a builder may fill its target; more share half of what that would have. */
enum { ALONE = 1 };

/* So many sort and encode at a time. */
enum { PLACING_MAX = 2 };

void core_builders_init(struct core_builders *s)
{
	*s = (struct core_builders){0};
	pthread_mutex_init(&s->mu, NULL);
	pthread_cond_init(&s->turn, NULL);
}

void core_builders_fini(struct core_builders *s)
{
	pthread_cond_destroy(&s->turn);
	pthread_mutex_destroy(&s->mu);
}

bool core_builders_enter(struct core_builders *s, const _Atomic(bool) *unwanted)
{
	bool wanted;

	if (s == NULL)
		return true;
	pthread_mutex_lock(&s->mu);
	while (s->placing == PLACING_MAX && !atomic_load(unwanted))
		pthread_cond_wait(&s->turn, &s->mu);
	wanted = !atomic_load(unwanted);
	s->placing += wanted;
	if (!wanted)
		pthread_cond_signal(&s->turn); /* it may have been another one's */
	pthread_mutex_unlock(&s->mu);
	return wanted;
}

void core_builders_leave(struct core_builders *s)
{
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->mu);
	s->placing--;
	pthread_cond_signal(&s->turn);
	pthread_mutex_unlock(&s->mu);
}

void core_builders_look_again(struct core_builders *s)
{
	pthread_mutex_lock(&s->mu);
	pthread_cond_broadcast(&s->turn);
	pthread_mutex_unlock(&s->mu);
}

bool core_builders_are_many(const struct core_builders *s)
{
	return s != NULL && atomic_load(&s->large) > ALONE;
}

size_t core_builders_share(struct core_builders *s, size_t target, size_t bytes, bool *is_large)
{
	size_t part;
	unsigned count;

	if (s == NULL || bytes < CORE_BUILDERS_LEAST)
		return target;
	count = *is_large ? atomic_load(&s->large) : atomic_fetch_add(&s->large, 1) + 1;
	*is_large = true;
	part = count > ALONE ? target / count * ALONE / 2 : target;
	return part > CORE_BUILDERS_LEAST ? part : CORE_BUILDERS_LEAST;
}

bool core_builder_keeps(enum kv_rc rc)
{
	return rc == KV_NOSPACE || rc == KV_QUOTA;
}

/* --- batches that were built -------------------------------------------------------------------------- */

void core_batch_delete_blobs(const struct core_home *home, const struct core_batch *batch)
{
	for (size_t i = 0; i < batch->part_count; i++) {
		char key[CORE_BLOB_KEY_LEN];

		if (batch->parts[i].inline_data != NULL && !batch->parts[i].loose)
			continue;
		core_part_key(home->shard, &batch->parts[i], key);
		/* What fails to go is a blob that nobody names, which the sweep finds. */
		enum kv_rc rc = kv_blob_delete(home->blobs, key, NULL, NULL, NULL);
		(void)rc;
	}
}

enum kv_rc core_batch_flush_inline(const struct core_home *home, struct core_batch *batch, struct kv_err *err)
{
	for (size_t i = 0; i < batch->part_count; i++) {
		struct core_part *part = &batch->parts[i];
		char key[CORE_BLOB_KEY_LEN];

		if (part->inline_data == NULL)
			continue;
		core_part_key(home->shard, part, key);
		enum kv_rc rc = kv_blob_set(home->blobs, key, part->inline_data, (size_t)part->size, err);
		if (rc != KV_OK)
			return rc;
		free(part->inline_data);
		part->inline_data = NULL;
	}
	return KV_OK;
}
