/*
 * consensus_mem.c - consensus in memory, for tests and for stores that need not last.
 *
 * How it works: an array of keys in byte order, each with an array of versions
 * in ascending seqno; one mutex around every call.
 *
 * Invariants (whenever the lock is free):
 * 1. Keys strictly ascend; every key has at least one version.
 * 2. Seqnos of a key strictly ascend; the last one is its head.
 */
#include "kv/consensus_impl.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct mem_key {
	char *name;
	struct kv_versions log;
};

struct mem {
	struct kv_consensus base;
	pthread_mutex_t lock; /* all below */
	struct mem_key *keys;
	size_t count;
};

static struct mem *of(struct kv_consensus *c)
{
	return (struct mem *)c;
}

/* The index of the first key not below name; *found tells whether it is name itself. */
static size_t locate_locked(const struct mem *m, const char *name, bool *found)
{
	size_t lo = 0, hi = m->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(m->keys[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*found = lo < m->count && strcmp(m->keys[lo].name, name) == 0;
	return lo;
}

static struct mem_key *find_locked(const struct mem *m, const char *name)
{
	bool found;
	size_t i = locate_locked(m, name, &found);

	return found ? &m->keys[i] : NULL;
}

static const struct kv_version *head_of(const struct mem_key *k)
{
	return &k->log.v[k->log.count - 1];
}

static enum kv_rc mem_head(struct kv_consensus *c, const char *key, struct kv_version *out,
			   struct kv_err *err)
{
	struct mem *m = of(c);
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&m->lock);

	const struct mem_key *k = find_locked(m, key);

	if (!k) {
		rc = kv_fail(err, KV_NOTFOUND, "%s has no version", key);
	} else {
		const struct kv_version *v = head_of(k);
		uint8_t *copy = malloc(v->len ? v->len : 1);

		if (copy) {
			memcpy(copy, v->data, v->len);
			*out = (struct kv_version){.seqno = v->seqno, .data = copy, .len = v->len};
		} else {
			rc = kv_fail_rc(err, KV_NOMEM);
		}
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

/* A new key at index i with its first version. */
static enum kv_rc insert_locked(struct mem *m, size_t i, const char *name, uint64_t seqno, const void *data,
				size_t len, struct kv_err *err)
{
	struct mem_key k = {.name = strdup(name)};
	struct mem_key *keys = NULL;

	if (k.name && kv_versions_push(&k.log, seqno, data, len))
		keys = reallocarray(m->keys, m->count + 1, sizeof(*keys));
	if (!keys) {
		kv_versions_free(&k.log);
		free(k.name);
		return kv_fail_rc(err, KV_NOMEM);
	}
	memmove(keys + i + 1, keys + i, (m->count - i) * sizeof(*keys));
	keys[i] = k;
	m->keys = keys;
	m->count++;
	return KV_OK;
}

static enum kv_rc mem_compare_and_set(struct kv_consensus *c, const char *key, uint64_t expected,
				      uint64_t seqno, const void *data, size_t len, enum kv_sync sync,
				      struct kv_err *err)
{
	struct mem *m = of(c);
	enum kv_rc rc = KV_OK;
	bool found;

	(void)sync;
	pthread_mutex_lock(&m->lock);

	size_t i = locate_locked(m, key, &found);
	uint64_t head = found ? head_of(&m->keys[i])->seqno : KV_NO_VERSION;

	if (head != expected) {
		rc = kv_fail(err, KV_MISMATCH, "the head of %s is %llu, not %llu", key,
			     (unsigned long long)head, (unsigned long long)expected);
		kv_detail(err, "head=%llu", (unsigned long long)head);
	} else if (!found) {
		rc = insert_locked(m, i, key, seqno, data, len, err);
	} else if (!kv_versions_push(&m->keys[i].log, seqno, data, len)) {
		rc = kv_fail_rc(err, KV_NOMEM);
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

/* The index of the first version at or above seqno. */
static size_t first_at(const struct kv_versions *log, uint64_t seqno)
{
	size_t lo = 0, hi = log->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (log->v[mid].seqno < seqno)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static enum kv_rc mem_scan(struct kv_consensus *c, const char *key, uint64_t from, size_t limit,
			   struct kv_versions *out, struct kv_err *err)
{
	struct mem *m = of(c);
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&m->lock);

	const struct mem_key *k = find_locked(m, key);

	for (size_t i = k ? first_at(&k->log, from) : 0; k && i < k->log.count && out->count < limit; i++) {
		const struct kv_version *v = &k->log.v[i];

		if (!kv_versions_push(out, v->seqno, v->data, v->len)) {
			kv_versions_free(out);
			rc = kv_fail_rc(err, KV_NOMEM);
			break;
		}
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

/* The array keeps its size, which kv_versions_push allows: it never has less than the count asks for. */
static void cut(struct kv_versions *log, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(log->v[i].data);
	memmove(log->v, log->v + n, (log->count - n) * sizeof(*log->v));
	log->count -= n;
}

static enum kv_rc mem_truncate(struct kv_consensus *c, const char *key, uint64_t seqno, uint64_t *removed,
			       struct kv_err *err)
{
	struct mem *m = of(c);
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&m->lock);

	struct mem_key *k = find_locked(m, key);

	if (!k) {
		rc = kv_fail(err, KV_NOTFOUND, "%s has no version", key);
	} else if (seqno > head_of(k)->seqno) {
		rc = kv_fail(err, KV_RANGE, "the head of %s is %llu, below %llu", key,
			     (unsigned long long)head_of(k)->seqno, (unsigned long long)seqno);
	} else {
		size_t n = first_at(&k->log, seqno);

		cut(&k->log, n);
		*removed = n;
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static enum kv_rc mem_remove(struct kv_consensus *c, const char *key, uint64_t expected, struct kv_err *err)
{
	struct mem *m = of(c);
	enum kv_rc rc = KV_OK;
	bool found;

	pthread_mutex_lock(&m->lock);

	size_t i = locate_locked(m, key, &found);

	if (!found) {
		rc = kv_fail(err, KV_NOTFOUND, "%s has no version", key);
	} else if (head_of(&m->keys[i])->seqno != expected) {
		rc = kv_fail(err, KV_MISMATCH, "the head of %s is %llu, not %llu", key,
			     (unsigned long long)head_of(&m->keys[i])->seqno, (unsigned long long)expected);
	} else {
		free(m->keys[i].name);
		kv_versions_free(&m->keys[i].log);
		memmove(m->keys + i, m->keys + i + 1, (m->count - i - 1) * sizeof(*m->keys));
		m->count--;
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static enum kv_rc mem_list_keys(struct kv_consensus *c, const char *after, size_t limit, struct kv_keys *out,
				struct kv_err *err)
{
	struct mem *m = of(c);
	enum kv_rc rc = KV_OK;
	bool found;

	pthread_mutex_lock(&m->lock);

	size_t i = locate_locked(m, after, &found);

	for (i += found; i < m->count && out->count < limit; i++) {
		if (!kv_keys_push(out, m->keys[i].name, strlen(m->keys[i].name))) {
			kv_keys_free(out);
			rc = kv_fail_rc(err, KV_NOMEM);
			break;
		}
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static void mem_close(struct kv_consensus *c)
{
	struct mem *m = of(c);

	for (size_t i = 0; i < m->count; i++) {
		free(m->keys[i].name);
		kv_versions_free(&m->keys[i].log);
	}
	free(m->keys);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static const struct kv_consensus_ops mem_ops = {
	.name = "mem",
	.head = mem_head,
	.compare_and_set = mem_compare_and_set,
	.scan = mem_scan,
	.truncate = mem_truncate,
	.remove = mem_remove,
	.list_keys = mem_list_keys,
	.close = mem_close,
};

struct kv_consensus *kv_consensus_mem_new(void)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->base.ops = &mem_ops;
	pthread_mutex_init(&m->lock, NULL);
	return &m->base;
}
