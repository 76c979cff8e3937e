/*
 * chores.h - for the tests of maintenance: having it done, and looking at what it leaves.
 *
 * Threads: the main thread of a test, but for put_hollow() and chore_rc().
 */
#ifndef TESTS_CORE_CHORES_H
#define TESTS_CORE_CHORES_H

#include "core/upkeep_impl.h"
#include "tests/core/ears.h"

/* It has to succeed. */
struct core_upkeep_result chore(struct core_shard *s, enum core_upkeep_kind kind);
enum kv_rc chore_rc(struct core_shard *s, enum core_upkeep_kind kind, struct kv_err *err);

/* What is small and inline at the end becomes a batch with a blob. */
void fold_to_blob(struct core_shard *s);

/* An append of [upper, upper + 1): `rows` as in world.h, and a row "pad" of so many bytes that makes it a
 * blob. */
void put_hollow(struct core_shard *s, const char *rows, size_t pad);

/* Several runs in one batch [lower, lower + runs), a row "r<i> ..." at each time, each run with a blob of
 * 5000 bytes before compression, or of len. */
void put_runs(struct core_shard *s, unsigned runs);
void put_large_runs(struct core_shard *s, unsigned runs, size_t len);
/* The same, with run i's row from row(arg, i, time, key), given. */
void put_runs_of(struct core_shard *s, unsigned runs,
		 char *(*row)(void *arg, unsigned i, const char *time, const char *key), void *arg);

struct core_state state_of(struct core_shard *s); /* to be ended with core_state_fini */
size_t batches_of(struct core_shard *s);
uint64_t rows_of(struct core_shard *s);
uint64_t runs_of(struct core_shard *s);
size_t dead_of(struct core_shard *s);

void hold_at(struct core_shard *s, struct core_frontier to);

/* Versions that are there of the shard; the least one. Not when embedded. */
size_t version_count(struct rig *r, uint64_t *least);

/* Nothing is in the store but what the state of its only shard names; nothing is dead; versions and rollups
 * are as few as they can be. */
void check_tidy(struct rig *r);

/* Other instances have written what is there now: the same engine again, closed well. */
void reopen_well(struct rig *r);

/* A blob of that key, for sweeps. */
void plant(struct disk *d, const char *key);
bool has_blob(struct disk *d, const char *key);
/* A key of shard id as a part of an instance that is over. */
char *stray_key(struct core_shard_id id, char key[CORE_BLOB_KEY_LEN]);

/* A snapshot as text, as content() has it; it stays open. Given. */
char *snapshot_text(struct core_snapshot *n);

/*
 * All that can be read: frontiers, the content as of each readable time, and what a listener gets from since
 * + 1 on, summed. Given.
 */
char *picture(struct core_shard *s);
void check_picture(struct core_shard *s, const char *want, const char *when);

/* Times, keys, retractions, runs, bounds and stars of all kinds in some twenty small batches with blobs, an
 * inline tail, and since somewhere among them. No staged ones. */
void fill_mixed(struct core_shard *s, struct rng *rng);

#endif
