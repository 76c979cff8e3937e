/*
 * rocks_blobs.c - small blobs in RocksDB.
 *
 * How it works: one record per blob, see rocks.c. Blobs are write-once, so
 * only deleting reads before it writes, and takes the stripe of its key: of
 * two who delete at once, one removed it.
 *
 * Invariant: a record of a blob is whole. It is put by one batch and never
 * changed.
 */
#include "kv/rocks_impl.h"

#include <stdlib.h>
#include <string.h>

static struct kv_rocks *of(struct kv_blobs *b)
{
	return ((struct rocks_blobs_view *)b)->rocks;
}

/* The value of a record, NULL if there is none. Given: rocksdb_pinnableslice_destroy, inside the database. */
static enum kv_rc pin(struct kv_rocks *r, const struct rocks_record *record, rocksdb_pinnableslice_t **value,
		      struct kv_err *err)
{
	char *text = NULL;

	*value = rocksdb_get_pinned(r->db, r->read, record->bytes, record->len, &text);
	return text ? rocks_fail_read(err, text) : KV_OK;
}

static enum kv_rc rocks_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			    size_t *got, struct kv_err *err)
{
	struct kv_rocks *r = of(b);
	const struct rocks_record record = rocks_blob_record(key);
	rocksdb_pinnableslice_t *value;
	enum kv_rc rc = rocks_enter(r, err);

	if (rc != KV_OK)
		return rc;
	rc = pin(r, &record, &value, err);
	if (rc == KV_OK && !value)
		rc = kv_fail(err, KV_NOTFOUND, "no blob %s", key);
	if (rc == KV_OK) {
		size_t size;
		const char *bytes = rocksdb_pinnableslice_value(value, &size);

		if (offset < size) {
			size_t rest = size - (size_t)offset;

			*got = len < rest ? len : rest;
			if (*got)
				memcpy(buf, bytes + offset, *got);
		}
		rocksdb_pinnableslice_destroy(value);
	}
	rocks_leave(r);
	return rc;
}

static enum kv_rc rocks_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
			    struct kv_err *err)
{
	struct kv_rocks *r = of(b);
	const struct rocks_record record = rocks_blob_record(key);
	const struct rocks_probe probe = {.record = &record};
	enum kv_rc rc = rocks_may_grow(r, len, err);

	if (rc == KV_OK)
		rc = rocks_enter(r, err);
	if (rc != KV_OK)
		return rc;

	rocksdb_writebatch_t *batch = rocks_batch_new(r);

	rocks_batch_put(batch, &record, data, len);
	rc = rocks_write_and_leave(r, batch, KV_SYNC, &probe, err);
	rocksdb_writebatch_destroy(batch);
	return rc;
}

static enum kv_rc delete_locked(struct kv_rocks *r, const char *key, bool *existed, uint64_t *size,
				struct kv_err *err)
{
	const struct rocks_record record = rocks_blob_record(key);
	const struct rocks_probe probe = {.record = &record, .absent = true};
	rocksdb_pinnableslice_t *value;
	size_t len = 0;
	enum kv_rc rc = rocks_enter(r, err);

	if (rc != KV_OK)
		return rc;
	rc = pin(r, &record, &value, err);
	if (rc != KV_OK || !value) {
		rocks_leave(r);
		return rocks_not_begun(rc, err);
	}
	(void)rocksdb_pinnableslice_value(value, &len);
	rocksdb_pinnableslice_destroy(value);

	rocksdb_writebatch_t *batch = rocks_batch_new(r);

	rocks_batch_delete(batch, &record);
	rc = rocks_write_and_leave(r, batch, KV_RIDE, &probe, err);
	rocksdb_writebatch_destroy(batch);
	if (rc == KV_OK) {
		*existed = true;
		*size = len;
		rocks_note_garbage(r, len);
	}
	return rc;
}

static enum kv_rc rocks_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			       struct kv_err *err)
{
	struct kv_rocks *r = of(b);
	pthread_mutex_t *stripe = rocks_stripe(r, key);

	if (r->read_only)
		return kv_fail_rc(err, KV_READONLY);
	pthread_mutex_lock(stripe);

	enum kv_rc rc = delete_locked(r, key, existed, size, err);

	pthread_mutex_unlock(stripe);
	return rc;
}

/* Fill out from it, which stands on the first record that may belong. */
static enum kv_rc take_list(rocksdb_iterator_t *it, const char *prefix, const char *after, size_t limit,
			    struct kv_blob_list *out, struct kv_err *err)
{
	const struct rocks_record begin = rocks_blob_record(prefix);

	for (; rocksdb_iter_valid(it) && out->count < limit; rocksdb_iter_next(it)) {
		char key[KV_KEY_MAX + 1];
		size_t len, size;
		const char *record = rocksdb_iter_key(it, &len);

		if (len < begin.len || memcmp(record, begin.bytes, begin.len) != 0)
			break;
		if (len - 1 > KV_KEY_MAX)
			return kv_fail(err, KV_CORRUPT, "a blob record has a key of %zu bytes", len - 1);
		memcpy(key, record + 1, len - 1);
		key[len - 1] = '\0';
		if (strcmp(key, after) == 0)
			continue;
		(void)rocksdb_iter_value(it, &size);
		if (!kv_blob_list_push(out, key, size))
			return kv_fail_rc(err, KV_NOMEM);
	}
	return KV_OK;
}

static enum kv_rc rocks_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			     struct kv_blob_list *out, struct kv_err *err)
{
	struct kv_rocks *r = of(b);
	const struct rocks_record start = rocks_blob_record(strcmp(after, prefix) > 0 ? after : prefix);
	char *text = NULL;
	enum kv_rc rc = rocks_enter(r, err);

	if (rc != KV_OK)
		return rc;

	rocksdb_readoptions_t *options = rocksdb_readoptions_create();

	rocksdb_readoptions_set_iterate_upper_bound(options, "c", 1);

	rocksdb_iterator_t *it = rocksdb_create_iterator(r->db, options);

	rocksdb_iter_seek(it, start.bytes, start.len);
	rc = take_list(it, prefix, after, limit, out, err);
	rocksdb_iter_get_error(it, &text);
	if (text && rc == KV_OK)
		rc = rocks_fail_read(err, text);
	else
		rocksdb_free(text);
	rocksdb_iter_destroy(it);
	rocksdb_readoptions_destroy(options);
	rocks_leave(r);
	if (rc != KV_OK)
		kv_blob_list_free(out);
	return rc;
}

/* The view belongs to its kv_rocks. */
static void rocks_close(struct kv_blobs *b)
{
	(void)b;
}

const struct kv_blob_ops rocks_blob_ops = {
	.name = "rocks",
	.get = rocks_get,
	.set = rocks_set,
	.delete = rocks_delete,
	.list = rocks_list,
	.close = rocks_close,
};
