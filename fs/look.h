/*
 * look.h - what a name in a directory stands for.
 *
 * Threads: any.
 */
#ifndef FS_LOOK_H
#define FS_LOOK_H

#include "fs/fs.h"

/* The nodeid of a name in dir; where the kind has entries in the table, counted as looked up. KV_NOTFOUND,
 * KV_NO_SHARD, KV_NO_BATCH, KV_NOMEM and what the engine fails with; err is not always filled. */
enum kv_rc fs_look(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid,
		   struct kv_err *err) KV_MUST_CHECK;

/* The same of a shard by its id. */
enum kv_rc fs_look_shard(struct fs *fs, const char *name, uint64_t *nodeid, struct kv_err *err) KV_MUST_CHECK;

bool fs_parse_shard_id(const char *name, struct core_shard_id *id);

#endif
