/*
 * rocks_consensus.c - consensus in RocksDB, and the commit of both in one write.
 *
 * How it works: the records and their invariants are those of rocks.c. A change
 * of a key holds its stripe from reading the head until the write has an
 * outcome, so the head compared is the head replaced. The stripe is held across
 * the synced write on purpose: the next writer of the same key could only
 * compare with its result; writers of other keys are not in its way but for
 * one in ROCKS_STRIPES. A commit of several keys is one write of all whose
 * stripes can be had at once, then of those that are left.
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

enum share { SHARE_WAITS, SHARE_TAKEN, SHARE_OVER };

/* A commit of several keys, while it goes on. */
struct commit {
	struct kv_rocks *rocks;
	struct kv_run *runs;
	size_t count;
	size_t blob_max;
	enum kv_sync sync;
	enum share shares[KV_RUNS_MAX];        /* of the runs */
	pthread_mutex_t *stripes[KV_RUNS_MAX]; /* held: of those that are taken */
	size_t stripe_count;
	uint64_t opened; /* of the database, when it was written */
};

static bool holds_stripe(const struct commit *c, const pthread_mutex_t *stripe)
{
	for (size_t i = 0; i < c->stripe_count; i++)
		if (c->stripes[i] == stripe)
			return true;
	return false;
}

/* Take the first run that waits, and those whose stripes can be had without waiting: nobody waits for a
 * stripe while he holds another one. False: none waits any more. */
static bool take_runs(struct commit *c)
{
	c->stripe_count = 0;
	for (size_t i = 0; i < c->count; i++) {
		pthread_mutex_t *stripe = rocks_stripe(c->rocks, c->runs[i].key);
		bool held;

		if (c->shares[i] != SHARE_WAITS)
			continue;
		held = holds_stripe(c, stripe);
		if (!held && c->stripe_count == 0)
			pthread_mutex_lock(stripe);
		else if (!held && pthread_mutex_trylock(stripe) != 0)
			continue;
		if (!held)
			c->stripes[c->stripe_count++] = stripe;
		c->shares[i] = SHARE_TAKEN;
	}
	return c->stripe_count != 0;
}

static struct rocks_last *last_of(struct kv_rocks *r, const char *key)
{
	return &r->lasts[rocks_stripe(r, key) - r->stripes];
}

static void note_last(const struct commit *c, const struct kv_run *run, bool landed)
{
	struct rocks_last *last = last_of(c->rocks, run->key);

	last->key[0] = '\0';
	if (!landed)
		return;
	strcpy(last->key, run->key);
	last->head = run->versions[run->version_count - 1].seqno;
	last->opened = c->opened;
}

/* What became of those that are taken. */
static void tell_taken(struct commit *c, enum kv_rc rc, const struct kv_err *err)
{
	for (size_t i = 0; i < c->count; i++) {
		struct kv_run *run = &c->runs[i];

		if (c->shares[i] != SHARE_TAKEN)
			continue;
		note_last(c, run, rc == KV_OK);
		run->rc = rc;
		if (rc != KV_OK && run->err)
			*run->err = *err;
		c->shares[i] = SHARE_OVER;
	}
}

/* The head of key, which is looked for where the last commit of its stripe was another's. Inside, under it.
 */
static enum kv_rc find_head(struct kv_rocks *r, const char *key, uint64_t *found, struct kv_err *err)
{
	const struct rocks_last *last = last_of(r, key);

	if (last->opened == r->opened && strcmp(last->key, key) == 0) {
		*found = last->head;
		return KV_OK;
	}

	const struct rocks_record head = rocks_head_record(key);

	return rocks_read_head(r, r->read, &head, found, err);
}

/* Whether the head of run is the one expected. Inside the database. */
static bool check_head(struct kv_rocks *r, struct kv_run *run)
{
	uint64_t found;
	enum kv_rc rc = find_head(r, run->key, &found, run->err);

	if (rc == KV_OK && found != run->expected)
		rc = mismatch(run->err, run->key, found, run->expected);
	run->rc = rocks_not_begun(rc, run->err);
	return run->rc == KV_OK;
}

/* Put the records of run into batch; head: that of its head. */
static void put_run(const struct commit *c, rocksdb_writebatch_t *batch, const struct kv_run *run,
		    const struct rocks_record *head)
{
	char seqno_bytes[8];

	for (size_t i = 0; i < run->blob_count; i++) {
		const struct kv_blob_put *blob = &run->blobs[i];
		const struct rocks_record record = rocks_blob_record(blob->key);

		if (blob->len <= c->blob_max)
			rocks_batch_put(batch, &record, blob->data, blob->len);
	}
	for (size_t i = 0; i < run->version_count; i++) {
		const struct kv_version_put *version = &run->versions[i];
		const struct rocks_record record = rocks_version_record(run->key, version->seqno);

		rocks_batch_put(batch, &record, version->data, version->len);
	}
	rocks_put_seqno(run->versions[run->version_count - 1].seqno, seqno_bytes);
	rocks_batch_put(batch, head, seqno_bytes, sizeof(seqno_bytes));
}

static size_t bytes_of(const struct commit *c, const struct kv_run *run)
{
	size_t sum = 0;

	for (size_t i = 0; i < run->blob_count; i++)
		sum += run->blobs[i].len <= c->blob_max ? run->blobs[i].len : 0;
	for (size_t i = 0; i < run->version_count; i++)
		sum += run->versions[i].len;
	return sum;
}

/* Write those that are taken, inside the database, and leave it. The batch lands whole or not at all, so the
 * head of one of them tells of all. */
static enum kv_rc write_taken(struct commit *c, struct kv_err *err)
{
	struct rocks_record head;
	struct rocks_probe probe = {.record = NULL};
	size_t len = 0;
	enum kv_rc rc = KV_OK;

	c->opened = c->rocks->opened;
	for (size_t i = 0; i < c->count; i++) {
		if (c->shares[i] == SHARE_TAKEN && !check_head(c->rocks, &c->runs[i]))
			c->shares[i] = SHARE_OVER;
		if (c->shares[i] == SHARE_TAKEN)
			len += bytes_of(c, &c->runs[i]);
	}
	if (c->sync != KV_RELEASE)
		rc = rocks_may_grow(c->rocks, len, err);
	if (rc != KV_OK) {
		rocks_leave(c->rocks);
		return rc;
	}

	rocksdb_writebatch_t *batch = rocks_batch_new(c->rocks);

	for (size_t i = 0; i < c->count; i++) {
		const struct kv_run *run = &c->runs[i];

		if (c->shares[i] != SHARE_TAKEN)
			continue;
		head = rocks_head_record(run->key);
		put_run(c, batch, run, &head);
		probe = (struct rocks_probe){.record = &head,
					     .seqno = run->versions[run->version_count - 1].seqno};
	}
	if (probe.record)
		rc = rocks_write_and_leave(c->rocks, batch, c->sync, &probe, err);
	else
		rocks_leave(c->rocks);
	rocksdb_writebatch_destroy(batch);
	return rc;
}

void kv_rocks_commit(struct kv_rocks *r, struct kv_run *runs, size_t count, size_t blob_max,
		     enum kv_sync sync)
{
	struct commit c = {.rocks = r, .runs = runs, .count = count, .blob_max = blob_max, .sync = sync};

	for (size_t i = 0; i < count; i++) {
		if (runs[i].rc == KV_OK && r->read_only)
			runs[i].rc = kv_fail_rc(runs[i].err, KV_READONLY);
		c.shares[i] = runs[i].rc == KV_OK ? SHARE_WAITS : SHARE_OVER;
	}
	while (take_runs(&c)) {
		struct kv_err err = {0};
		enum kv_rc rc = rocks_enter(r, &err);

		rc = rc == KV_OK ? write_taken(&c, &err) : rocks_not_begun(rc, &err);
		tell_taken(&c, rc, &err);
		for (size_t i = 0; i < c.stripe_count; i++)
			pthread_mutex_unlock(c.stripes[i]);
	}
}

static enum kv_rc rocks_compare_and_set(struct kv_consensus *c, const char *key, uint64_t expected,
					uint64_t seqno, const void *data, size_t len, enum kv_sync sync,
					struct kv_err *err)
{
	const struct kv_version_put version = {.seqno = seqno, .data = data, .len = len};
	struct kv_run run = {
		.key = key, .expected = expected, .versions = &version, .version_count = 1, .err = err};

	kv_rocks_commit(of(c), &run, 1, 0, sync);
	return run.rc;
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
	last_of(r, key)->key[0] = '\0';
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
