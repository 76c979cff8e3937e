/*
 * world.h - for the tests of the engine: stores that outlive their engines, a
 * shard on one, and appends and snapshots as words.
 *
 * Threads: append() and content() any; the rest the main thread of a test.
 */
#ifndef TESTS_CORE_WORLD_H
#define TESTS_CORE_WORLD_H

#include "core/engine_impl.h"
#include "core/names.h"
#include "tests/core/model.h"

enum disk_kind {
	DISK_MEM,      /* in memory, without faults */
	DISK_SOLE,     /* in memory, behind faults */
	DISK_SHARED,   /* the same without the sole-owner trait: any number of engines */
	DISK_EMBEDDED, /* a directory */
};

/* What is left when an engine is gone. */
struct disk {
	enum disk_kind kind;
	struct kv_faults *faults;       /* NULL where there are none */
	struct kv_consensus *consensus; /* those behind the faults; NULL when embedded */
	struct kv_blobs *blobs;
	char *dir;
	_Atomic(uint64_t) now_us; /* a clock that ticks at every look; 0: the system's */
	const char *host;         /* of its engines' writers, or NULL; borrowed */
	const char *purpose;
	bool upkeep; /* its engines merge and collect by themselves; else only what is asked for is done */
};

struct disk *disk_new(enum disk_kind kind);
void disk_free(struct disk *d); /* every engine on it is closed */
struct core_engine *disk_open(struct disk *d);
enum kv_rc disk_try_open(struct disk *d, struct core_engine **out, struct kv_err *err);
void disk_fail(struct disk *d, unsigned nth, enum kv_fault kind);
void disk_heal(struct disk *d);
/* Blobs and keys of versions that are there; not when embedded. */
size_t disk_blob_count(struct disk *d);
size_t disk_key_count(struct disk *d);

/* A disk, an engine and a new shard. */
struct rig {
	struct disk *disk;
	struct core_engine *engine;
	struct core_shard_id id;
	struct core_shard *shard;
};
struct rig rig_new(enum disk_kind kind);
struct rig rig_on(struct disk *d); /* the disk is taken */
void rig_free(struct rig *r);
/* Nothing more reaches the disk; then all is opened again and without faults. */
void rig_crash(struct rig *r);
void rig_open(struct rig *r);
void rig_crash_and_reopen(struct rig *r);
/* What the worker has to do is done. */
void rig_settle(struct rig *r);

extern const struct core_owner any_owner;

/*
 * An append in words: "expected_upper=0 new_upper=3 token=7" or "lower=0 upper=3", as in the mount, tokens
 * as numbers; rows "time diff key val" each ended by ';'.
 */
enum kv_rc append(struct core_shard *s, const char *options, const char *rows, struct core_appended *r,
		  struct kv_err *err);
struct core_append parse_ask(const char *options);
void parse_rows(const char *rows, struct model *out);
struct core_token token_of(uint64_t n);

/* The same as one line: "ok 0 3 updates=2" or "same 0 3 updates=2" if nothing was committed, or the name of
 * the code and its detail. In a buffer that the next call uses again. */
const char *verdict(struct core_shard *s, const char *options, const char *rows);
const char *verdict_of(enum kv_rc rc, const struct core_appended *r, const struct kv_err *err);

/* "a x 1;b y 2;" as of time t, or the name of the code. Given. */
char *content(struct core_shard *s, uint64_t t);
char *content_latest(struct core_shard *s);
void check_content(struct core_shard *s, uint64_t t, const char *want);

/* "since upper" of the shard. In a buffer that the next call uses again. */
const char *frontiers(struct core_shard *s);

/* Fails the test if the shard's state is not sound. */
void check_sound(struct core_shard *s);

/* Append number i: [i, i + 1) with the row "k<i> <len bytes> 1", under token i; or all from .. to - 1. */
enum kv_rc append_nth(struct core_shard *s, uint64_t i, size_t len, struct core_appended *r,
		      struct kv_err *err);
void append_many(struct core_shard *s, uint64_t from, uint64_t to, size_t len);
uint64_t upper_of(struct core_shard *s);
/* The shard holds the appends 0 .. count - 1, and nothing else. */
void check_appends(struct core_shard *s, uint64_t count);

#endif
