/*
 * import.h - taking in what export.h gave.
 *
 * A stream is read twice: core_import_check reads all of it, and touches no store; core_import makes the
 * shards. Each shard is made in one step, with all it has, after its bytes were read again and their checksum
 * was right; its parts are stored before, and if it comes to nothing they are deleted, or swept by the next
 * start.
 *
 * Threads: an import belongs to one thread at a time.
 */
#ifndef CORE_IMPORT_H
#define CORE_IMPORT_H

#include "core/shard.h"

struct core_import_source {
	/* Up to len bytes into buf; *got 0: the end. A code other than KV_OK ends the import with it. */
	enum kv_rc (*read)(void *arg, void *buf, size_t len, size_t *got, struct kv_err *err);
	void *arg;
};

struct core_import {
	const struct core_shard_id
		*ids; /* those that core_import_check gave: that none is there is seen first */
	size_t id_count;
	bool skip_existing;             /* leave shards alone that are there; else that is KV_SHARD_EXISTS */
	const struct core_shard_id *as; /* the only shard gets this id; names are left out. NULL: its own */
};

struct core_imported {
	uint64_t shards;
	uint64_t updates;
	uint64_t names;
	uint64_t skipped;     /* shards that were there */
	uint64_t names_taken; /* that were there, with another target: left as they are */
	uint64_t bytes;
	bool one_moment;
};

/*
 * Read it all, and say what is in it. *ids: its shards, given, free with free(); out->shards of them.
 * KV_BAD_SYNTAX  it is no whole export: the sentence says in which line, and what is wrong
 * KV_NEWER       a newer program wrote it
 */
enum kv_rc core_import_check(const struct core_import_source *source, struct core_imported *out,
			     struct core_shard_id **ids, struct kv_err *err) KV_MUST_CHECK;

/*
 * Make the shards, then the names that are not there yet. Nobody may have a shard of one of their ids open,
 * also not one that was removed.
 * KV_SHARD_EXISTS  a shard is there; nothing was done
 * KV_BAD_SYNTAX, KV_NEWER; and what making a shard can fail with
 */
enum kv_rc core_import(struct core_engine *e, const struct core_import *how,
		       const struct core_import_source *source, struct core_imported *out,
		       struct kv_err *err) KV_MUST_CHECK;

#endif
