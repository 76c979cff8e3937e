/*
 * rocks.c - one RocksDB database: opening, writing, and what a failed write means.
 *
 * How it works: consensus (rocks_consensus.c) and small blobs (rocks_blobs.c)
 * are views of one database without column families, so that one write batch
 * commits both. Writers of different keys hold different stripes and meet in
 * RocksDB, which syncs its log once for all who wait. What a power cut left of
 * that log is seen to before each opening: rocks_mend.c.
 *
 * Keys in the database (a key of the caller contains no 0x00):
 *
 *   bytes                                    value
 *   'b' blob key                             the bytes of the blob
 *   'c' key 0x00 seqno (8 bytes big-endian)  the bytes of that version
 *   'h' key                                  seqno of the head (8 bytes big-endian)
 *
 * Invariants:
 * 1. A key has a head record iff it has versions, and its head is the greatest
 *    of them: both are written and removed in the same batch.
 * 2. A head record changes only under the stripe of its key.
 * 3. After a write failed nothing is answered from the memory of that database:
 *    `suspect` stands until it was closed and opened again. Opening writes what
 *    the log holds into a synced table (avoid_flush_during_recovery stays off),
 *    so what is seen afterwards is on stable storage even where a failed fsync
 *    had left the pages of the log marked clean.
 * 4. The outcome of a failed write is read from the database opened again; it
 *    stays unknown only where that fails.
 */
#include "kv/rocks_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const size_t write_buffer = (size_t)8 << 20;
static const size_t cache_size = (size_t)8 << 20;
static const uint64_t wal_size = (uint64_t)64 << 20;
static const uint64_t reserve = (uint64_t)32 << 20;

/*
 * No info log. RocksDB 7.8 asserts, and Debian builds it so, that an info log is not written to again after a
 * write to it failed (facebook/rocksdb#11314): a full device would end the process. The C interface has no
 * switch for it, so the level is the highest that its options file can name, HEADER, which leaves the file
 * LOG empty. (One above it silences the log too, but then the options file cannot be written, and each start
 * leaves a temporary one and an empty write-ahead log behind.)
 */
static const int log_nothing = 5;

enum { READ_TRIES = 3 };

/* --- records -------------------------------------------------------------------------------------------- */

void rocks_put_seqno(uint64_t seqno, char bytes[8])
{
	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (char)(unsigned char)(seqno >> (56 - 8 * i));
}

uint64_t rocks_get_seqno(const char bytes[8])
{
	uint64_t seqno = 0;

	for (unsigned i = 0; i < 8; i++)
		seqno = seqno << 8 | (unsigned char)bytes[i];
	return seqno;
}

static struct rocks_record record(char kind, const char *key)
{
	struct rocks_record r;
	size_t len = strlen(key);

	assert(len <= KV_KEY_MAX);
	r.bytes[0] = kind;
	memcpy(r.bytes + 1, key, len);
	r.len = 1 + len;
	return r;
}

struct rocks_record rocks_head_record(const char *key)
{
	return record('h', key);
}

struct rocks_record rocks_blob_record(const char *key)
{
	return record('b', key);
}

struct rocks_record rocks_version_record(const char *key, uint64_t seqno)
{
	struct rocks_record r = record('c', key);

	r.bytes[r.len++] = 0x00;
	rocks_put_seqno(seqno, r.bytes + r.len);
	r.len += 8;
	return r;
}

struct rocks_record rocks_version_end(const char *key)
{
	struct rocks_record r = record('c', key);

	r.bytes[r.len++] = 0x01;
	return r;
}

/* FNV-1a. */
pthread_mutex_t *rocks_stripe(struct kv_rocks *r, const char *key)
{
	uint32_t hash = 2166136261u;

	for (; *key; key++)
		hash = (hash ^ (unsigned char)*key) * 16777619u;
	return &r->stripes[hash % ROCKS_STRIPES];
}

/* --- what RocksDB says ---------------------------------------------------------------------------------- */

/* The C interface gives the status as text only. */
static enum kv_rc rc_of_text(const char *text)
{
	if (strncmp(text, "Corruption", strlen("Corruption")) == 0)
		return KV_CORRUPT;
	if (strstr(text, "No space left on device"))
		return KV_NOSPACE;
	if (strstr(text, "Disk quota exceeded"))
		return KV_QUOTA;
	if (strstr(text, "Read-only file system"))
		return KV_READONLY;
	if (strstr(text, "lock hold by current process") || strstr(text, "While lock file"))
		return KV_BUSY;
	return KV_IO;
}

enum kv_rc rocks_fail_read(struct kv_err *err, char *text)
{
	enum kv_rc rc = rc_of_text(text) == KV_CORRUPT ? KV_CORRUPT : KV_IO;

	kv_fail(err, rc, "RocksDB: %s", text);
	rocksdb_free(text);
	return rc;
}

enum kv_rc rocks_not_begun(enum kv_rc rc, struct kv_err *err)
{
	return rc == KV_IO ? kv_wrap(err, KV_UNREACHABLE, "before the change") : rc;
}

/* --- opening -------------------------------------------------------------------------------------------- */

static bool make_options(struct kv_rocks *r)
{
	r->options = rocksdb_options_create();
	r->table = rocksdb_block_based_options_create();
	r->cache = rocksdb_cache_create_lru(cache_size);
	r->read = rocksdb_readoptions_create();
	r->write_sync = rocksdb_writeoptions_create();
	r->write_ride = rocksdb_writeoptions_create();
	if (!r->options || !r->table || !r->cache || !r->read || !r->write_sync || !r->write_ride)
		return false;

	rocksdb_block_based_options_set_block_cache(r->table, r->cache);
	/* Taken by the table options. Most reads of blobs ask for one that lies in a file. */
	rocksdb_block_based_options_set_filter_policy(r->table, rocksdb_filterpolicy_create_bloom_full(10));
	rocksdb_options_set_block_based_table_factory(r->options, r->table);
	rocksdb_options_set_create_if_missing(r->options, 1);
	rocksdb_options_set_paranoid_checks(r->options, 1);
	rocksdb_options_set_wal_recovery_mode(r->options, ROCKS_WAL_TOLERATE_CORRUPTED_TAIL);
	rocksdb_options_set_compression(r->options, rocksdb_no_compression);
	rocksdb_options_set_write_buffer_size(r->options, write_buffer);
	rocksdb_options_set_max_total_wal_size(r->options, wal_size);
	rocksdb_options_set_max_background_jobs(r->options, 2);
	rocksdb_options_set_keep_log_file_num(r->options, 2);
	rocksdb_options_set_info_log_level(r->options, log_nothing);
	rocksdb_options_set_stats_dump_period_sec(r->options, 0);
	/* Writers that wait for a sync sleep, and one inserts for all: spinning and waking each once more
	 * costs a tenth of the throughput of 16 writers on two processors. */
	rocksdb_options_set_enable_write_thread_adaptive_yield(r->options, 0);
	rocksdb_options_set_allow_concurrent_memtable_write(r->options, 0);
	rocksdb_options_set_max_open_files(r->options, 256);
	if (r->read_only) {
		/* All files are opened now: the owner may remove them later. */
		rocksdb_options_set_max_open_files(r->options, -1);
		rocksdb_options_set_db_log_dir(r->options, ROCKS_NO_LOGS);
	}
	rocksdb_writeoptions_set_sync(r->write_sync, 1);
	rocksdb_writeoptions_set_sync(r->write_ride, 0);
	return true;
}

static void free_options(struct kv_rocks *r)
{
	if (r->write_ride)
		rocksdb_writeoptions_destroy(r->write_ride);
	if (r->write_sync)
		rocksdb_writeoptions_destroy(r->write_sync);
	if (r->read)
		rocksdb_readoptions_destroy(r->read);
	if (r->options)
		rocksdb_options_destroy(r->options);
	if (r->table)
		rocksdb_block_based_options_destroy(r->table);
	if (r->cache)
		rocksdb_cache_destroy(r->cache);
}

enum kv_rc rocks_fail_open(struct kv_rocks *r, char *text, struct kv_err *err)
{
	enum kv_rc rc = kv_fail(err, rc_of_text(text), "the database %s cannot be opened: %s", r->dir, text);

	rocksdb_free(text);
	return rc;
}

/* Sets r->db. The caller holds `lock` exclusively, or is alone. */
static enum kv_rc open_db_locked(struct kv_rocks *r, struct kv_err *err)
{
	struct rocks_flaw flaw;
	char *text = NULL;
	bool torn;
	enum kv_rc rc;

	assert(!r->db);
	if (rocks_seal_flaw(r->dir, !r->read_only, &flaw) || rocks_manifest_flaw(r->dir, &flaw) ||
	    rocks_tail_flaw(r->dir, &flaw))
		return kv_fail(err, KV_CORRUPT, "the database %s cannot be opened: %s, byte %llu: %s", r->dir,
			       flaw.file, (unsigned long long)flaw.offset, flaw.what);
	rc = rocks_mend_logs(r, &torn, err);
	if (rc != KV_OK)
		return rc;
	r->opened++;
	if (getrandom(&r->nonce, sizeof(r->nonce), 0) != sizeof(r->nonce))
		return kv_fail_errno(err, errno, KV_IO, "no random number can be had");
	if (r->read_only) {
		r->db = rocks_open_beside(r, torn, &text);
	} else {
		rocks_unseal(r->dir);
		r->db = rocksdb_open(r->options, r->dir, &text);
		if (r->db)
			rocks_seal(r->dir, false);
	}
	if (!r->db)
		return rocks_fail_open(r, text, err);
	if (!r->read_only) {
		rocks_all_synced(r); /* invariant 3 */
		rocks_ahead_begin_locked(r);
	}
	return KV_OK;
}

static void close_db_locked(struct kv_rocks *r)
{
	rocks_ahead_end_locked(r);
	if (r->db)
		rocksdb_close(r->db);
	r->db = NULL;
}

/* A database is there when its CURRENT is. Without a directory to hold it none can be made. */
static enum kv_rc check_place(const char *dir, bool read_only, struct kv_err *err)
{
	char *current = NULL;
	struct stat st;
	enum kv_rc rc = KV_OK;

	if (!read_only) {
		if (mkdir(dir, 0700) != 0 && errno != EEXIST)
			return kv_fail_errno(err, errno, KV_IO, "the directory %s cannot be made", dir);
		return KV_OK;
	}
	if (asprintf(&current, "%s/CURRENT", dir) < 0)
		return kv_fail_rc(err, KV_NOMEM);
	if (stat(current, &st) != 0)
		rc = kv_fail_errno(err, errno, KV_IO, "there is no database in %s", dir);
	free(current);
	return rc;
}

static void init_locks(struct kv_rocks *r)
{
	pthread_rwlockattr_t attr;

	for (size_t i = 0; i < ROCKS_STRIPES; i++)
		pthread_mutex_init(&r->stripes[i], NULL);
	pthread_mutex_init(&r->beside.mu, NULL);
	/* Opening again must not wait for a stream of readers; nobody takes it shared twice. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&r->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
}

enum kv_rc kv_rocks_open(const char *dir, bool read_only, struct kv_rocks **out, struct kv_err *err)
{
	*out = NULL;

	enum kv_rc rc = check_place(dir, read_only, err);

	if (rc != KV_OK)
		return rc;

	struct kv_rocks *r = calloc(1, sizeof(*r));

	if (!r)
		return kv_fail_rc(err, KV_NOMEM);
	init_locks(r);
	r->read_only = read_only;
	r->ahead.fd = -1;
	r->consensus = (struct rocks_consensus_view){.base.ops = &rocks_consensus_ops, .rocks = r};
	r->blobs = (struct rocks_blobs_view){.base.ops = &rocks_blob_ops, .rocks = r};
	r->dir = realpath(dir, NULL); /* opening again must not depend on the working directory */
	if (!r->dir)
		rc = kv_fail_errno(err, errno, KV_IO, "the directory %s cannot be found", dir);
	else if (!make_options(r))
		rc = kv_fail_rc(err, KV_NOMEM);
	else
		rc = open_db_locked(r, err);
	/* A record that the owner is writing looks like a damaged one. */
	for (int i = 0; i < READ_TRIES && read_only && rc == KV_CORRUPT; i++)
		rc = open_db_locked(r, err);
	if (rc != KV_OK) {
		kv_rocks_close(r);
		return rc;
	}
	*out = r;
	return KV_OK;
}

void kv_rocks_close(struct kv_rocks *r)
{
	if (!r)
		return;
	bool synced = false;

	if (r->db && !r->read_only && !atomic_load(&r->suspect))
		synced = rocks_vouch_for_all(r);
	close_db_locked(r);
	if (synced)
		rocks_seal(r->dir, true);
	free_options(r);
	pthread_rwlock_destroy(&r->lock);
	pthread_mutex_destroy(&r->beside.mu);
	for (size_t i = 0; i < ROCKS_STRIPES; i++)
		pthread_mutex_destroy(&r->stripes[i]);
	free(r->dir);
	free(r);
}

struct kv_consensus *kv_rocks_consensus(struct kv_rocks *r)
{
	return &r->consensus.base;
}

struct kv_blobs *kv_rocks_blobs(struct kv_rocks *r)
{
	return &r->blobs.base;
}

/* --- being inside --------------------------------------------------------------------------------------- */

static enum kv_rc reopen(struct kv_rocks *r, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	pthread_rwlock_wrlock(&r->lock);
	if (atomic_load(&r->suspect))
		close_db_locked(r);
	if (!r->db)
		rc = open_db_locked(r, err);
	if (rc == KV_OK)
		atomic_store(&r->suspect, false);
	pthread_rwlock_unlock(&r->lock);
	if (rc == KV_OK || rc == KV_CORRUPT)
		return rc;
	return kv_wrap(err, KV_UNREACHABLE, "after a failed write");
}

enum kv_rc rocks_enter(struct kv_rocks *r, struct kv_err *err)
{
	for (;;) {
		pthread_rwlock_rdlock(&r->lock);
		if (r->db && !atomic_load(&r->suspect))
			return KV_OK;
		pthread_rwlock_unlock(&r->lock);

		enum kv_rc rc = reopen(r, err);

		if (rc != KV_OK)
			return rc;
	}
}

void rocks_leave(struct kv_rocks *r)
{
	pthread_rwlock_unlock(&r->lock);
}

enum kv_rc rocks_read_head(struct kv_rocks *r, const rocksdb_readoptions_t *options,
			   const struct rocks_record *record, uint64_t *seqno, struct kv_err *err)
{
	char *text = NULL;
	size_t len = 0;
	enum kv_rc rc = KV_OK;

	*seqno = KV_NO_VERSION;

	char *value = rocksdb_get(r->db, options, record->bytes, record->len, &len, &text);

	if (text)
		return rocks_fail_read(err, text);
	if (!value)
		return KV_OK;
	if (len == 8)
		*seqno = rocks_get_seqno(value);
	if (*seqno == KV_NO_VERSION)
		rc = kv_fail(err, KV_CORRUPT, "the head record of %.*s is not a seqno", (int)record->len - 1,
			     record->bytes + 1);
	rocksdb_free(value);
	return rc;
}

/* --- writing -------------------------------------------------------------------------------------------- */

uint64_t kv_rocks_avail(const struct statvfs *vfs)
{
	uint64_t total = (uint64_t)vfs->f_blocks * vfs->f_frsize;
	uint64_t avail = (uint64_t)vfs->f_bavail * vfs->f_frsize;
	uint64_t keep = total / 8 < reserve ? total / 8 : reserve;

	return avail > keep ? avail - keep : 0;
}

bool kv_rocks_room(struct kv_rocks *r, size_t len)
{
	struct statvfs vfs;

	/* What cannot be told is left to the write itself. */
	return statvfs(r->dir, &vfs) != 0 || !vfs.f_blocks || kv_rocks_avail(&vfs) >= len;
}

enum kv_rc rocks_may_grow(struct kv_rocks *r, size_t len, struct kv_err *err)
{
	if (r->read_only)
		return kv_fail_rc(err, KV_READONLY);
	if (!kv_rocks_room(r, len))
		return kv_fail(err, KV_NOSPACE, "%zu bytes do not fit on the device of %s", len, r->dir);
	return KV_OK;
}

/* Invariant 4. Enters and leaves. */
static enum kv_rc look(struct kv_rocks *r, const struct rocks_probe *probe, bool *landed, struct kv_err *err)
{
	enum kv_rc rc = rocks_enter(r, err);
	const struct rocks_record *record = probe->record;
	char *text = NULL;

	if (rc != KV_OK)
		return rc;
	if (probe->seqno) {
		uint64_t seqno;

		rc = rocks_read_head(r, r->read, record, &seqno, err);
		*landed = seqno == probe->seqno;
	} else {
		rocksdb_pinnableslice_t *value =
			rocksdb_get_pinned(r->db, r->read, record->bytes, record->len, &text);

		if (text)
			rc = rocks_fail_read(err, text);
		*landed = probe->absent ? !value : !!value;
		rocksdb_pinnableslice_destroy(value);
	}
	rocks_leave(r);
	return rc;
}

/* text: what the failed write said. */
static enum kv_rc settle(struct kv_rocks *r, const struct rocks_probe *probe, const char *text,
			 struct kv_err *err)
{
	struct kv_err why = {0};
	bool landed = false;

	if (look(r, probe, &landed, &why) != KV_OK)
		return kv_fail(err, KV_UNKNOWN, "a write failed (%s), and then: %s", text, why.msg);
	if (landed)
		return KV_OK;

	enum kv_rc rc = rc_of_text(text);

	if (rc != KV_NOSPACE && rc != KV_QUOTA && rc != KV_READONLY)
		rc = KV_UNREACHABLE;
	return kv_fail(err, rc, "the write failed and was surely not done: %s", text);
}

enum kv_rc rocks_write_and_leave(struct kv_rocks *r, rocksdb_writebatch_t *batch, enum kv_sync sync,
				 const struct rocks_probe *probe, struct kv_err *err)
{
	char *text = NULL;

	assert(!r->read_only);
	rocksdb_write(r->db, sync == KV_RIDE ? r->write_ride : r->write_sync, batch, &text);
	if (text)
		atomic_store(&r->suspect, true); /* before anyone else can enter: invariant 3 */
	else if (sync != KV_RIDE)
		rocks_batch_synced(r, batch);

	bool due = rocks_ahead_is_due(r, batch);

	rocks_leave(r);
	if (!text && due)
		rocks_ahead_extend(r);
	if (!text)
		return KV_OK;

	enum kv_rc rc = settle(r, probe, text, err);

	rocksdb_free(text);
	return rc;
}
