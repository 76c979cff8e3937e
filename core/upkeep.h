/*
 * upkeep.h - what is done to a shard in the background, and can be asked for.
 *
 * Compaction merges batches so that reads meet few runs and space follows the
 * distinct updates in [since, upper); collection (GC) deletes the blobs of replaced
 * parts, old versions and old rollups; a sweep deletes blobs that nobody names.
 * All of it is done by itself where it is due (core_engine_config.no_upkeep turns
 * that off); a user asks for it to have it now, and to be told when it is done.
 *
 * Nothing here is needed for what shards promise: a failure leaves the shard as it
 * was, and is tried again.
 *
 * Threads: any.
 */
#ifndef CORE_UPKEEP_H
#define CORE_UPKEEP_H

#include "core/shard.h"

enum core_upkeep_kind {
	CORE_COMPACT, /* all that is committed when it is asked for becomes one run, as far as since allows */
	CORE_GC,      /* delete what nobody needs, and sweep the shard */
	CORE_ROLLUP,  /* write a rollup of the newest version */
};

struct core_upkeep_result {
	uint64_t seqno; /* the shard's at the end */
	/* CORE_COMPACT: what was read and written */
	uint64_t merges;
	uint64_t in_updates;
	uint64_t in_bytes;
	uint64_t out_updates;
	uint64_t out_bytes;
	/* CORE_GC: what was deleted */
	uint64_t blobs;
	uint64_t blob_bytes;
	uint64_t versions;
	uint64_t rollups;
	uint64_t kept_blobs; /* that must stay for now: open files or leases read them */
};

/* Something asked for. It stays where it is until done was called, or core_upkeep_cancel said true. */
struct core_upkeep {
	enum core_upkeep_kind kind;          /* set before, as done is */
	void (*done)(struct core_upkeep *u); /* once, on any thread, without locks; it must not block */

	enum kv_rc rc; /* these are set when done is called */
	struct kv_err err;
	struct core_upkeep_result result;

	struct core_upkeep *next;  /* the engine's */
	struct core_shard *shard;  /* borrowed: it stays open until the end */
	struct core_frontier upto; /* the upper and since when it was asked for */
	struct core_frontier since;
	uint64_t ticket;
	uint64_t pass;
	bool running;
	bool telling;
};

/*
 * Begin. rc may become KV_READONLY, KV_NO_SHARD, KV_SHUTDOWN (the engine closes before it is done), and what
 * reading and writing the store can fail with. A CORE_COMPACT goes on however many appends come meanwhile.
 */
void core_upkeep_begin(struct core_shard *s, struct core_upkeep *u);

/* True: done will not be called; what runs already goes on. False: it was called, or is being called. */
bool core_upkeep_cancel(struct core_upkeep *u);

/* Begin, and wait for the end. */
enum kv_rc core_upkeep_run(struct core_shard *s, enum core_upkeep_kind kind, struct core_upkeep_result *out,
			   struct kv_err *err) KV_MUST_CHECK;

/* Until no upkeep is due or runs in any shard of the engine that is in memory, idle ones included. */
void core_upkeep_settle(struct core_engine *e);

/*
 * Strike a writer ('w'), or take the hold of a reader ('r', core_reading.id): a lease of another process
 * ends; a reader of this process finds its time gone when since has passed it. KV_NOTFOUND: there is none of
 * that id. KV_NO_SHARD
 */
enum kv_rc core_shard_expire(struct core_shard *s, char kind, struct core_uuid id,
			     struct kv_err *err) KV_MUST_CHECK;

/* A merge of the batches that tile [lower, upper). */
struct core_merging {
	struct core_frontier lower;
	struct core_frontier upper;
	uint64_t batches;
	uint64_t runs;
	uint64_t updates;
	uint64_t bytes;
	bool running; /* else it is due, and waits for its turn */
	uint64_t begun_ms;
	uint64_t updates_done; /* written so far */
};

/* The merges of a shard that run here, then the one that is due next, if one is. Given, free with free().
 * KV_NO_SHARD */
enum kv_rc core_shard_merging(struct core_shard *s, struct core_merging **out, size_t *count,
			      struct kv_err *err) KV_MUST_CHECK;

#endif
