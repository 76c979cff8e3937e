/*
 * blob_mem.c - blobs in memory, for tests and for stores that need not last.
 *
 * How it works: an array of blobs in byte order of key; one mutex around every
 * call.
 *
 * Invariants (whenever the lock is free):
 * 1. Keys strictly ascend.
 * 2. The bytes under a key never change: setting it again must bring the same
 *    ones, which is asserted.
 */
#include "kv/blob_impl.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct mem_blob {
	char *key;
	uint8_t *data;
	size_t len;
};

struct mem {
	struct kv_blobs base;
	pthread_mutex_t lock; /* all below */
	struct mem_blob *blobs;
	size_t count;
};

static struct mem *of(struct kv_blobs *b)
{
	return (struct mem *)b;
}

/* The index of the first blob not below key; *found tells whether it is key itself. */
static size_t locate_locked(const struct mem *m, const char *key, bool *found)
{
	size_t lo = 0, hi = m->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(m->blobs[mid].key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*found = lo < m->count && strcmp(m->blobs[lo].key, key) == 0;
	return lo;
}

static enum kv_rc mem_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			  size_t *got, struct kv_err *err)
{
	struct mem *m = of(b);
	enum kv_rc rc = KV_OK;
	bool found;

	pthread_mutex_lock(&m->lock);

	size_t i = locate_locked(m, key, &found);

	if (!found) {
		rc = kv_fail(err, KV_NOTFOUND, "no blob %s", key);
	} else if (offset < m->blobs[i].len) {
		size_t rest = m->blobs[i].len - (size_t)offset;

		*got = len < rest ? len : rest;
		if (*got)
			memcpy(buf, m->blobs[i].data + offset, *got);
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static enum kv_rc insert_locked(struct mem *m, size_t i, const char *key, const void *data, size_t len,
				struct kv_err *err)
{
	struct mem_blob n = {.key = strdup(key), .data = malloc(len ? len : 1), .len = len};
	struct mem_blob *blobs = NULL;

	if (n.key && n.data)
		blobs = reallocarray(m->blobs, m->count + 1, sizeof(*blobs));
	if (!blobs) {
		free(n.key);
		free(n.data);
		return kv_fail_rc(err, KV_NOMEM);
	}
	if (len)
		memcpy(n.data, data, len);
	memmove(blobs + i + 1, blobs + i, (m->count - i) * sizeof(*blobs));
	blobs[i] = n;
	m->blobs = blobs;
	m->count++;
	return KV_OK;
}

static enum kv_rc mem_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
			  struct kv_err *err)
{
	struct mem *m = of(b);
	enum kv_rc rc = KV_OK;
	bool found;

	pthread_mutex_lock(&m->lock);

	size_t i = locate_locked(m, key, &found);

	if (found)
		assert(m->blobs[i].len == len && (!len || memcmp(m->blobs[i].data, data, len) == 0));
	else
		rc = insert_locked(m, i, key, data, len, err);
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static enum kv_rc mem_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			     struct kv_err *err)
{
	struct mem *m = of(b);

	(void)err;
	pthread_mutex_lock(&m->lock);

	size_t i = locate_locked(m, key, existed);

	if (*existed) {
		*size = m->blobs[i].len;
		free(m->blobs[i].key);
		free(m->blobs[i].data);
		memmove(m->blobs + i, m->blobs + i + 1, (m->count - i - 1) * sizeof(*m->blobs));
		m->count--;
	}
	pthread_mutex_unlock(&m->lock);
	return KV_OK;
}

static enum kv_rc mem_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			   struct kv_blob_list *out, struct kv_err *err)
{
	struct mem *m = of(b);
	size_t prefix_len = strlen(prefix);
	enum kv_rc rc = KV_OK;
	bool found = false;

	pthread_mutex_lock(&m->lock);

	bool resume = strcmp(after, prefix) >= 0;
	size_t i = locate_locked(m, resume ? after : prefix, &found);

	for (i += resume && found; i < m->count && out->count < limit; i++) {
		const struct mem_blob *e = &m->blobs[i];

		if (strncmp(e->key, prefix, prefix_len) != 0)
			break;
		if (!kv_blob_list_push(out, e->key, e->len)) {
			kv_blob_list_free(out);
			rc = kv_fail_rc(err, KV_NOMEM);
			break;
		}
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static void mem_close(struct kv_blobs *b)
{
	struct mem *m = of(b);

	for (size_t i = 0; i < m->count; i++) {
		free(m->blobs[i].key);
		free(m->blobs[i].data);
	}
	free(m->blobs);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static const struct kv_blob_ops mem_ops = {
	.name = "mem",
	.get = mem_get,
	.set = mem_set,
	.delete = mem_delete,
	.list = mem_list,
	.close = mem_close,
};

struct kv_blobs *kv_blob_mem_new(void)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->base.ops = &mem_ops;
	pthread_mutex_init(&m->lock, NULL);
	return &m->base;
}
