/*
 * rocks_impl.h - what the files of the RocksDB store share: the open database,
 * its record keys, and the one way to write. Private to kv/rocks*.c.
 *
 * Order of locks: a stripe, or mu of struct rocks_beside; then `lock` of struct kv_rocks.
 */
#ifndef KV_ROCKS_IMPL_H
#define KV_ROCKS_IMPL_H

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "kv/blob_impl.h"
#include "kv/consensus_impl.h"
#include "kv/rocks.h"

enum { ROCKS_STRIPES = 256, ROCKS_RECORD_MAX = 1 + KV_KEY_MAX + 1 + 8 };

/* A key inside RocksDB; the table is in rocks.c. */
struct rocks_record {
	char bytes[ROCKS_RECORD_MAX];
	size_t len;
};

/* How to tell, after a write failed and the database was opened again, whether that write is in it. */
struct rocks_probe {
	const struct rocks_record *record;
	bool absent;    /* landed iff the record is gone */
	uint64_t seqno; /* else: landed iff the record holds this seqno; 0: iff it is there */
};

struct rocks_consensus_view {
	struct kv_consensus base;
	struct kv_rocks *rocks;
};

struct rocks_blobs_view {
	struct kv_blobs base;
	struct kv_rocks *rocks;
};

/* Below seqno the key has no version, nor will it have one until it is removed. */
struct rocks_floor {
	char key[KV_KEY_MAX + 1];
	uint64_t seqno;
	uint64_t opened; /* kv_rocks.opened at that time: what rode may have been lost since */
};

/* The head that the last commit to a key of a stripe left. */
struct rocks_last {
	char key[KV_KEY_MAX + 1];
	uint64_t head;
	uint64_t opened; /* as above */
};

/* The zeros ahead of the log; see rocks_ahead.c. Changed with `lock` exclusive. */
struct rocks_ahead {
	int fd;                    /* the newest log; -1: none */
	_Atomic(uint64_t) number;  /* of that */
	uint64_t end;              /* its length, zeros and all */
	uint64_t start;            /* the log's place when `written` began */
	_Atomic(uint64_t) written; /* bytes since, or fewer; changed with `lock` shared */
	_Atomic(uint64_t) looked;  /* what `written` was when the log was looked at last */
};

/* What a reader beside an owner knows its log by. */
struct rocks_seen {
	uint64_t number; /* of the newest */
	int64_t size, mtime_ns;
	bool settled; /* it was not changed a moment before */
};

/* See rocks_beside.c. */
struct rocks_beside {
	pthread_mutex_t mu;     /* whoever brings the database forward */
	uint64_t next_ms;       /* not looked at before; under mu */
	struct rocks_seen seen; /* before the database was opened; under mu */
};

struct kv_rocks {
	pthread_mutex_t stripes[ROCKS_STRIPES];   /* the head of each key hashed to it, read to write */
	struct rocks_floor floors[ROCKS_STRIPES]; /* of the key of the stripe truncated last; under it */
	struct rocks_last lasts[ROCKS_STRIPES];   /* under its stripe */
	pthread_rwlock_t lock;                    /* shared: use of db; exclusive: changing db */
	rocksdb_t *db;                            /* NULL: the last opening failed */
	atomic_bool
		suspect; /* a write failed since db was opened; set with `lock` shared, cleared exclusive */

	uint64_t opened;           /* how often; changed with `lock` exclusive */
	_Atomic(uint64_t) synced;  /* RocksDB's sequence numbers up to this one are on stable storage */
	_Atomic(uint64_t) garbage; /* bytes deleted since rocks_tidy.c merged the files */
	atomic_bool tidying; /* it merges them, with `lock` shared: nobody is to wait for it exclusive */

	uint64_t nonce; /* of the marks in its logs, for an opening; changed with `lock` exclusive */

	struct rocks_ahead ahead;
	struct rocks_beside beside;

	/* constant while open */
	char *dir;
	bool read_only;
	atomic_bool still; /* read_only: the owner's writes are not looked for any more */
	rocksdb_options_t *options;
	rocksdb_block_based_table_options_t *table;
	rocksdb_cache_t *cache;
	rocksdb_readoptions_t *read;
	rocksdb_writeoptions_t *write_sync;
	rocksdb_writeoptions_t *write_ride;
	struct rocks_consensus_view consensus;
	struct rocks_blobs_view blobs;
};

extern const struct kv_consensus_ops rocks_consensus_ops;
extern const struct kv_blob_ops rocks_blob_ops;

/* A place in a log or a manifest that cannot be right. */
struct rocks_flaw {
	char file[64];
	uint64_t offset;
	const char *what;
};

/* The manifest that CURRENT names in the database's directory; false: none. */
enum { ROCKS_NAME_LEN = 64 };
bool rocks_current_manifest(int dir, char manifest[ROCKS_NAME_LEN]);

/* rocks_flaw.c: look for one in the manifest of the database in dir. One that is not the current one may be
 * what a crash left of the next. */
bool rocks_manifest_flaw(const char *dir, struct rocks_flaw *flaw);
/* Whether the record, which says that it is longer than the len bytes that are there of its block, was whole
 * once: a shorter length makes its checksum right and ends where a record may begin. */
bool rocks_record_was_whole(const uint8_t *record, size_t len);

/* rocks_table.c: whether a table of the database ends in what RocksDB would misread in silence. */
bool rocks_tail_flaw(const char *dir, struct rocks_flaw *flaw);
/* What RocksDB says against opening the database as it is; NULL: nothing. Free with rocksdb_free. */
char *rocks_open_flaw(const char *dir);

/* rocks_seal.c: note the lengths of the files, on stable storage: of the manifest, or, closed, of all. Forget
 * that, durably. Look whether a file is shorter than it was noted: the manifest, or all. */
void rocks_seal(const char *dir, bool closed);
void rocks_unseal(const char *dir);
bool rocks_seal_flaw(const char *dir, bool all, struct rocks_flaw *flaw);
uint32_t rocks_crc(const void *bytes, size_t len); /* CRC-32C */
bool rocks_has_log(const char *dir);               /* any; each start leaves one */

/* Something was deleted that took so many bytes. */
void rocks_note_garbage(struct kv_rocks *r, uint64_t bytes);

/* Where RocksDB can write no log, and finds none. */
#define ROCKS_NO_LOGS "/proc/self/ns"

/* --- records --- */

struct rocks_record rocks_head_record(const char *key);
struct rocks_record rocks_version_record(const char *key, uint64_t seqno);
struct rocks_record rocks_version_end(const char *key); /* above every version record of key */
struct rocks_record rocks_blob_record(const char *key);

void rocks_put_seqno(uint64_t seqno, char bytes[8]);
uint64_t rocks_get_seqno(const char bytes[8]);

/* --- the database --- */

/*
 * Enter the database for a call: on KV_OK r->db may be used until rocks_leave. Opens it again first if a
 * write has failed. KV_UNREACHABLE, KV_CORRUPT: it could not be opened, nothing is held.
 */
enum kv_rc rocks_enter(struct kv_rocks *r, struct kv_err *err) KV_MUST_CHECK;
void rocks_leave(struct kv_rocks *r);

/* A failed read as a code (KV_IO, KV_CORRUPT) and sentence; text is taken. */
enum kv_rc rocks_fail_read(struct kv_err *err, char *text);

/* The code of a change that ended with rc: a read that failed before the write is one more "not done". */
enum kv_rc rocks_not_begun(enum kv_rc rc, struct kv_err *err);

/* The head seqno of a head record, KV_NO_VERSION if it has none. Inside the database. */
enum kv_rc rocks_read_head(struct kv_rocks *r, const rocksdb_readoptions_t *options,
			   const struct rocks_record *record, uint64_t *seqno,
			   struct kv_err *err) KV_MUST_CHECK;

/*
 * Write batch and leave the database, in every case. The record of probe must be guarded by a stripe the
 * caller holds, or be write-once.
 * KV_NOSPACE, KV_QUOTA, KV_UNREACHABLE: surely not done. KV_UNKNOWN: the database could not be opened again.
 */
enum kv_rc rocks_write_and_leave(struct kv_rocks *r, rocksdb_writebatch_t *batch, enum kv_sync sync,
				 const struct rocks_probe *probe, struct kv_err *err) KV_MUST_CHECK;

/* KV_READONLY, or KV_NOSPACE if len more bytes would go into the reserve (see kv_rocks_room). */
enum kv_rc rocks_may_grow(struct kv_rocks *r, size_t len, struct kv_err *err) KV_MUST_CHECK;

/* The code and sentence of an opening that failed; text is taken. */
enum kv_rc rocks_fail_open(struct kv_rocks *r, char *text, struct kv_err *err);

/* --- beside an owner (rocks_beside.c) --- */

/* Open the database for reading. torn: its log ends in what is to be given up. NULL: *text says why. */
rocksdb_t *rocks_open_beside(struct kv_rocks *r, bool torn, char **text);

/* Before a read, outside: take in what the owner has written since, if that was not done a moment ago. What
 * cannot be taken in leaves the past state. */
void rocks_follow(struct kv_rocks *r);

/* --- zeros ahead of the log (rocks_ahead.c) --- */

/* After the database was opened, and before it is closed. Nothing depends on it. */
void rocks_ahead_begin_locked(struct kv_rocks *r);
void rocks_ahead_end_locked(struct kv_rocks *r);

/* Inside, once batch was written: whether rocks_ahead_extend is to be called, outside. */
bool rocks_ahead_is_due(struct kv_rocks *r, rocksdb_writebatch_t *batch);
void rocks_ahead_extend(struct kv_rocks *r);

/* The number of the newest log in dir; 0: none. */
uint64_t rocks_newest_log(const char *dir);

/* --- logs (rocks_mend.c) --- */

enum { ROCKS_WAL_TOLERATE_CORRUPTED_TAIL = 0, ROCKS_WAL_POINT_IN_TIME = 2 };

/*
 * Before the database is opened: give up what was never synced of its logs if they do not hold together, so
 * that RocksDB finds them whole. read_only nothing is changed; *torn says that something is to be given up.
 * KV_CORRUPT  what was synced is damaged
 */
enum kv_rc rocks_mend_logs(struct kv_rocks *r, bool *torn, struct kv_err *err) KV_MUST_CHECK;

/* A batch to be written; it begins with the mark that says what is synced now. */
rocksdb_writebatch_t *rocks_batch_new(struct kv_rocks *r);
void rocks_batch_clear(struct kv_rocks *r, rocksdb_writebatch_t *batch);

/* The batch was written, and synced; or all that is in the database is. */
void rocks_batch_synced(struct kv_rocks *r, rocksdb_writebatch_t *batch);
void rocks_all_synced(struct kv_rocks *r);
/* Sync all that was written, and leave a mark behind it that says so. */
bool rocks_vouch_for_all(struct kv_rocks *r);

pthread_mutex_t *rocks_stripe(struct kv_rocks *r, const char *key);

static inline void rocks_batch_put(rocksdb_writebatch_t *batch, const struct rocks_record *record,
				   const void *data, size_t len)
{
	rocksdb_writebatch_put(batch, record->bytes, record->len, data, len);
}

static inline void rocks_batch_delete(rocksdb_writebatch_t *batch, const struct rocks_record *record)
{
	rocksdb_writebatch_delete(batch, record->bytes, record->len);
}

#endif
