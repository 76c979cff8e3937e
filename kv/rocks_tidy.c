/*
 * rocks_tidy.c - giving back the space of what was deleted.
 *
 * RocksDB deletes by writing: the bytes go when the file that has them is merged with
 * that which has the deletion, and its log is as long as what it has not flushed. Left
 * alone a small database keeps some ten times what is in it. So it counts what
 * was deleted, and when that weighs a share of the whole, and the store rests, flushes
 * and merges itself.
 *
 * Nothing that is seen changes, and nothing depends on it. It needs room for a
 * second copy, and is not done without.
 */
#include "kv/rocks_impl.h"

enum { TIDY_MIN = 2 << 20, TIDY_SHARE = 4 };

void rocks_note_garbage(struct kv_rocks *r, uint64_t bytes)
{
	atomic_fetch_add_explicit(&r->garbage, bytes, memory_order_relaxed);
}

static uint64_t property(struct kv_rocks *r, const char *name)
{
	uint64_t value = 0;

	return rocksdb_property_int(r->db, name, &value) == 0 ? value : 0;
}

enum kv_rc kv_rocks_tidy(struct kv_rocks *r, struct kv_err *err)
{
	uint64_t garbage = atomic_load(&r->garbage), size;
	rocksdb_flushoptions_t *options;
	char *text = NULL;
	enum kv_rc rc;

	if (r->read_only || garbage < TIDY_MIN)
		return KV_OK;
	rc = rocks_enter(r, err);
	if (rc != KV_OK)
		return rc;
	size = property(r, "rocksdb.total-sst-files-size") + property(r, "rocksdb.cur-size-all-mem-tables");
	if (garbage >= size / TIDY_SHARE && kv_rocks_room(r, size)) {
		atomic_fetch_sub(&r->garbage, garbage);
		atomic_store(&r->tidying, true);
		options = rocksdb_flushoptions_create();
		rocksdb_flush(r->db, options, &text);
		rocksdb_flushoptions_destroy(options);
		if (!text)
			rocksdb_compact_range(r->db, NULL, 0, NULL, 0);
		atomic_store(&r->tidying, false);
	}
	rocks_leave(r);
	return text ? rocks_fail_read(err, text) : KV_OK;
}
