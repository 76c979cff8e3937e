/*
 * rocks_consensus.c - consensus in RocksDB, and the commit of both in one write.
 *
 * How it works: the records and their invariants are those of rocks.c. A change
 * of a key holds its stripe from reading the head until the write has an
 * outcome, so the head compared is the head replaced. The stripe is held across
 * the synced write on purpose: the next writer of the same key could only
 * compare with its result; writers of other keys are not in its way but for
 * one in ROCKS_STRIPES.
 *
 * Invariants: 1 and 2 of rocks.c.
 */
#include "kv/rocks_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* More versions than this are deleted as a range: one tombstone, but one that every read of the key's
 * neighbourhood must look at until it is compacted away. */
enum { POINT_DELETES_MAX = 512, VERSION_BYTES = 256 /* about */ };

static struct kv_rocks *of(struct kv_consensus *c)
{
	return ((struct rocks_consensus_view *)c)->rocks;
}

static enum kv_rc not_found(struct kv_err *err, const char *key)
{
	return kv_fail(err, KV_NOTFOUND, "%s has no version", key);
}

static enum kv_rc mismatch(struct kv_err *err, const char *key, uint64_t head, uint64_t expected)
{
	kv_fail(err, KV_MISMATCH, "the head of %s is %llu, not %llu", key, (unsigned long long)head,
		(unsigned long long)expected);
	kv_detail(err, "head=%llu", (unsigned long long)head);
	return KV_MISMATCH;
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* The head as `options` see it. *torn: the head record names a version that is not there. */
static enum kv_rc read_version(struct kv_rocks *r, const rocksdb_readoptions_t *options, const char *key,
			       struct kv_version *out, bool *torn, struct kv_err *err)
{
	const struct rocks_record head = rocks_head_record(key);
	char *text = NULL;
	uint64_t seqno;
	size_t len = 0;
	enum kv_rc rc = rocks_read_head(r, options, &head, &seqno, err);

	*torn = false;
	if (rc != KV_OK)
		return rc;
	if (seqno == KV_NO_VERSION)
		return not_found(err, key);

	const struct rocks_record record = rocks_version_record(key, seqno);
	char *value = rocksdb_get(r->db, options, record.bytes, record.len, &len, &text);

	if (text)
		return rocks_fail_read(err, text);
	if (!value) {
		*torn = true;
		return kv_fail(err, KV_CORRUPT, "version %llu of %s is missing", (unsigned long long)seqno,
			       key);
	}
	/* The C interface gives memory of malloc, so the caller may free it. */
	*out = (struct kv_version){.seqno = seqno, .data = (uint8_t *)value, .len = len};
	return KV_OK;
}

static enum kv_rc rocks_head(struct kv_consensus *c, const char *key, struct kv_version *out,
			     struct kv_err *err)
{
	struct kv_rocks *r = of(c);
	struct kv_err first = {0};
	bool torn;
	enum kv_rc rc;

	rocks_follow(r);
	rc = rocks_enter(r, err);
	if (rc != KV_OK)
		return rc;
	rc = read_version(r, r->read, key, out, &torn, &first);
	if (torn) {
		/* Between the two reads the key moved on and was truncated, or something is wrong. A snapshot
		 * tells which; it costs a lock in RocksDB, so it is not taken first. */
		const rocksdb_snapshot_t *snapshot = rocksdb_create_snapshot(r->db);
		rocksdb_readoptions_t *options = rocksdb_readoptions_create();

		rocksdb_readoptions_set_snapshot(options, snapshot);
		rc = read_version(r, options, key, out, &torn, &first);
		rocksdb_readoptions_destroy(options);
		rocksdb_release_snapshot(r->db, snapshot);
	}
	rocks_leave(r);
	if (rc != KV_OK && err)
		*err = first;
	return rc;
}

/* An iterator over [from, end). *options is given: destroy it after the iterator. end is borrowed by both. */
static rocksdb_iterator_t *iterate(struct kv_rocks *r, const struct rocks_record *from, const char *end,
				   size_t end_len, rocksdb_readoptions_t **options)
{
	*options = rocksdb_readoptions_create();
	rocksdb_readoptions_set_iterate_upper_bound(*options, end, end_len);

	rocksdb_iterator_t *it = rocksdb_create_iterator(r->db, *options);

	rocksdb_iter_seek(it, from->bytes, from->len);
	return it;
}

/* Ends an iteration; rc stays if it is a failure already. */
static enum kv_rc iterated(rocksdb_iterator_t *it, rocksdb_readoptions_t *options, enum kv_rc rc,
			   struct kv_err *err)
{
	char *text = NULL;

	rocksdb_iter_get_error(it, &text);
	if (text && rc == KV_OK)
		rc = rocks_fail_read(err, text);
	else
		rocksdb_free(text);
	rocksdb_iter_destroy(it);
	rocksdb_readoptions_destroy(options);
	return rc;
}

static enum kv_rc rocks_scan(struct kv_consensus *c, const char *key, uint64_t from, size_t limit,
			     struct kv_versions *out, struct kv_err *err)
{
	struct kv_rocks *r = of(c);
	const struct rocks_record start = rocks_version_record(key, from);
	const struct rocks_record end = rocks_version_end(key);
	enum kv_rc rc;

	rocks_follow(r);
	rc = rocks_enter(r, err);
	if (rc != KV_OK)
		return rc;

	rocksdb_readoptions_t *options;
	rocksdb_iterator_t *it = iterate(r, &start, end.bytes, end.len, &options);

	for (; rc == KV_OK && rocksdb_iter_valid(it) && out->count < limit; rocksdb_iter_next(it)) {
		size_t klen, vlen;
		const char *k = rocksdb_iter_key(it, &klen);
		const char *v = rocksdb_iter_value(it, &vlen);

		if (klen != start.len)
			rc = kv_fail(err, KV_CORRUPT, "a version record of %s has the wrong length", key);
		else if (!kv_versions_push(out, rocks_get_seqno(k + klen - 8), v, vlen))
			rc = kv_fail_rc(err, KV_NOMEM);
	}
	rc = iterated(it, options, rc, err);
	rocks_leave(r);
	if (rc != KV_OK)
		kv_versions_free(out);
	return rc;
}

static enum kv_rc rocks_list_keys(struct kv_consensus *c, const char *after, size_t limit,
				  struct kv_keys *out, struct kv_err *err)
{
	struct kv_rocks *r = of(c);
	enum kv_rc rc;

	rocks_follow(r);
	rc = rocks_enter(r, err);
	if (rc != KV_OK)
		return rc;

	const struct rocks_record start = rocks_head_record(after);
	rocksdb_readoptions_t *options;
	rocksdb_iterator_t *it = iterate(r, &start, "i", 1, &options);

	for (; rc == KV_OK && rocksdb_iter_valid(it) && out->count < limit; rocksdb_iter_next(it)) {
		size_t len;
		const char *k = rocksdb_iter_key(it, &len);

		if (len == start.len && memcmp(k, start.bytes, len) == 0)
			continue;
		if (!kv_keys_push(out, k + 1, len - 1))
			rc = kv_fail_rc(err, KV_NOMEM);
	}
	rc = iterated(it, options, rc, err);
	rocks_leave(r);
	if (rc != KV_OK)
		kv_keys_free(out);
	return rc;
}

/* --- changing ------------------------------------------------------------------------------------------- */

static size_t bytes_of(const struct kv_blob_put *blobs, size_t count)
{
	size_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += blobs[i].len;
	return sum;
}

static enum kv_rc commit_locked(struct kv_rocks *r, const char *key, uint64_t expected,
				const struct kv_version_put *versions, size_t version_count,
				const struct kv_blob_put *blobs, size_t count, enum kv_sync sync,
				struct kv_err *err)
{
	const struct rocks_record head = rocks_head_record(key);
	const uint64_t seqno = versions[version_count - 1].seqno;
	const struct rocks_probe probe = {.record = &head, .seqno = seqno};
	char seqno_bytes[8];
	uint64_t found;
	size_t len = 0;
	enum kv_rc rc = rocks_enter(r, err);

	if (rc != KV_OK)
		return rc;
	rc = rocks_read_head(r, r->read, &head, &found, err);
	if (rc == KV_OK && found != expected)
		rc = mismatch(err, key, found, expected);
	for (size_t i = 0; i < version_count; i++)
		len += versions[i].len;
	if (rc == KV_OK && sync != KV_RELEASE)
		rc = rocks_may_grow(r, len + bytes_of(blobs, count), err);
	if (rc != KV_OK) {
		rocks_leave(r);
		return rocks_not_begun(rc, err);
	}

	rocksdb_writebatch_t *batch = rocks_batch_new(r);

	for (size_t i = 0; i < count; i++) {
		const struct rocks_record blob = rocks_blob_record(blobs[i].key);

		rocks_batch_put(batch, &blob, blobs[i].data, blobs[i].len);
	}
	for (size_t i = 0; i < version_count; i++) {
		const struct rocks_record version = rocks_version_record(key, versions[i].seqno);

		rocks_batch_put(batch, &version, versions[i].data, versions[i].len);
	}
	rocks_put_seqno(seqno, seqno_bytes);
	rocks_batch_put(batch, &head, seqno_bytes, sizeof(seqno_bytes));
	rc = rocks_write_and_leave(r, batch, sync, &probe, err);
	rocksdb_writebatch_destroy(batch);
	return rc;
}

enum kv_rc kv_rocks_commit(struct kv_rocks *r, const char *key, uint64_t expected,
			   const struct kv_version_put *versions, size_t version_count,
			   const struct kv_blob_put *blobs, size_t count, enum kv_sync sync,
			   struct kv_err *err)
{
	pthread_mutex_t *stripe = rocks_stripe(r, key);

	if (r->read_only)
		return kv_fail_rc(err, KV_READONLY);
	pthread_mutex_lock(stripe);

	enum kv_rc rc = commit_locked(r, key, expected, versions, version_count, blobs, count, sync, err);

	pthread_mutex_unlock(stripe);
	return rc;
}

static enum kv_rc rocks_compare_and_set(struct kv_consensus *c, const char *key, uint64_t expected,
					uint64_t seqno, const void *data, size_t len, enum kv_sync sync,
					struct kv_err *err)
{
	const struct kv_version_put version = {.seqno = seqno, .data = data, .len = len};

	return kv_rocks_commit(of(c), key, expected, &version, 1, NULL, 0, sync, err);
}

/*
 * Put the deletion of the version records in [first, end) into batch; *count says how many there are and
 * *least is the first of them. Inside the database.
 */
static enum kv_rc delete_versions(struct kv_rocks *r, rocksdb_writebatch_t *batch,
				  const struct rocks_record *first, const struct rocks_record *end,
				  struct rocks_record *least, uint64_t *count, struct kv_err *err)
{
	rocksdb_readoptions_t *options;
	rocksdb_iterator_t *it = iterate(r, first, end->bytes, end->len, &options);

	*count = 0;
	for (; rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
		size_t len;
		const char *k = rocksdb_iter_key(it, &len);

		if (*count == 0) {
			assert(len <= sizeof(least->bytes));
			memcpy(least->bytes, k, len);
			least->len = len;
		}
		if (++*count <= POINT_DELETES_MAX)
			rocksdb_writebatch_delete(batch, k, len);
	}
	if (*count > POINT_DELETES_MAX) {
		rocks_batch_clear(r, batch);
		rocksdb_writebatch_delete_range(batch, first->bytes, first->len, end->bytes, end->len);
	}
	return iterated(it, options, KV_OK, err);
}

static struct rocks_floor *floor_of(struct kv_rocks *r, const char *key)
{
	return &r->floors[rocks_stripe(r, key) - r->stripes];
}

/*
 * The first seqno that key may have a version of. What was deleted lies on as a tombstone until RocksDB
 * merges its files, and passing thousands of them takes milliseconds, for which an append to the key would
 * wait. Entered, under the stripe.
 */
static uint64_t floor_locked(const struct kv_rocks *r, const struct rocks_floor *floor, const char *key)
{
	return floor->opened == r->opened && strcmp(floor->key, key) == 0 ? floor->seqno : 0;
}

static enum kv_rc truncate_locked(struct kv_rocks *r, const char *key, uint64_t seqno, uint64_t *removed,
				  struct kv_err *err)
{
	const struct rocks_record head = rocks_head_record(key);
	const struct rocks_record end = rocks_version_record(key, seqno);
	struct rocks_record least = end;
	const struct rocks_probe probe = {.record = &least, .absent = true};
	struct rocks_floor *floor = floor_of(r, key);
	uint64_t found, opened, count = 0;
	enum kv_rc rc = rocks_enter(r, err);

	if (rc != KV_OK)
		return rc;

	const struct rocks_record first = rocks_version_record(key, floor_locked(r, floor, key));
	rocksdb_writebatch_t *batch = rocks_batch_new(r);

	opened = r->opened;

	rc = rocks_read_head(r, r->read, &head, &found, err);
	if (rc == KV_OK && found == KV_NO_VERSION)
		rc = not_found(err, key);
	if (rc == KV_OK && seqno > found)
		rc = kv_fail(err, KV_RANGE, "the head of %s is %llu, below %llu", key,
			     (unsigned long long)found, (unsigned long long)seqno);
	if (rc == KV_OK)
		rc = delete_versions(r, batch, &first, &end, &least, &count, err);
	if (rc == KV_OK && count)
		rc = rocks_write_and_leave(r, batch, KV_RIDE, &probe, err);
	else
		rocks_leave(r);
	rocksdb_writebatch_destroy(batch);
	if (rc == KV_OK) {
		*floor = (struct rocks_floor){.seqno = seqno, .opened = opened};
		strcpy(floor->key, key);
		*removed = count;
		rocks_note_garbage(r, count * VERSION_BYTES);
	}
	return rocks_not_begun(rc, err);
}

static enum kv_rc rocks_truncate(struct kv_consensus *c, const char *key, uint64_t seqno, uint64_t *removed,
				 struct kv_err *err)
{
	struct kv_rocks *r = of(c);
	pthread_mutex_t *stripe = rocks_stripe(r, key);

	if (r->read_only)
		return kv_fail_rc(err, KV_READONLY);
	pthread_mutex_lock(stripe);

	enum kv_rc rc = truncate_locked(r, key, seqno, removed, err);

	pthread_mutex_unlock(stripe);
	return rc;
}

static enum kv_rc remove_locked(struct kv_rocks *r, const char *key, uint64_t expected, struct kv_err *err)
{
	const struct rocks_record head = rocks_head_record(key);
	const struct rocks_record first = rocks_version_record(key, 0);
	const struct rocks_record end = rocks_version_end(key);
	const struct rocks_probe probe = {.record = &head, .absent = true};
	struct rocks_record least;
	uint64_t found, count;
	enum kv_rc rc = rocks_enter(r, err);

	if (rc != KV_OK)
		return rc;

	rocksdb_writebatch_t *batch = rocks_batch_new(r);

	floor_of(r, key)->key[0] = '\0'; /* its next life may begin lower */
	rc = rocks_read_head(r, r->read, &head, &found, err);
	if (rc == KV_OK && found == KV_NO_VERSION)
		rc = not_found(err, key);
	if (rc == KV_OK && found != expected)
		rc = mismatch(err, key, found, expected);
	if (rc == KV_OK)
		rc = delete_versions(r, batch, &first, &end, &least, &count, err);
	if (rc == KV_OK) {
		rocks_batch_delete(batch, &head);
		rc = rocks_write_and_leave(r, batch, KV_SYNC, &probe, err);
	} else {
		rocks_leave(r);
	}
	rocksdb_writebatch_destroy(batch);
	return rocks_not_begun(rc, err);
}

static enum kv_rc rocks_remove(struct kv_consensus *c, const char *key, uint64_t expected, struct kv_err *err)
{
	struct kv_rocks *r = of(c);
	pthread_mutex_t *stripe = rocks_stripe(r, key);

	if (r->read_only)
		return kv_fail_rc(err, KV_READONLY);
	pthread_mutex_lock(stripe);

	enum kv_rc rc = remove_locked(r, key, expected, err);

	pthread_mutex_unlock(stripe);
	return rc;
}

/* The view belongs to its kv_rocks. */
static void rocks_close(struct kv_consensus *c)
{
	(void)c;
}

const struct kv_consensus_ops rocks_consensus_ops = {
	.name = "rocks",
	.head = rocks_head,
	.compare_and_set = rocks_compare_and_set,
	.scan = rocks_scan,
	.truncate = rocks_truncate,
	.remove = rocks_remove,
	.list_keys = rocks_list_keys,
	.close = rocks_close,
};
