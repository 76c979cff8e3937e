/*
 * holds.h - holds/<name>: durable holds of named consumers, as files of one line.
 *
 * A hold is made by its first valid write: a file that was opened with O_CREAT
 * and never written leaves nothing. dir is the node of a holds/.
 *
 * Threads: any.
 */
#ifndef FS_HOLDS_H
#define FS_HOLDS_H

#include "fs/fs.h"

/* The nodeid of a name, counted as looked up. KV_NOTFOUND */
enum kv_rc fs_holds_look(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid,
			 struct kv_err *err) KV_MUST_CHECK;

/* The same for one that may be made. KV_EXISTS: exclusive, and it is there */
enum kv_rc fs_holds_make(struct fs *fs, const struct fs_node *dir, const char *name, bool exclusive,
			 uint64_t *nodeid, struct kv_err *err) KV_MUST_CHECK;

/* One write is one line; its result is the verdict. KV_BAD_SYNTAX and codes of core_hold_set */
enum kv_rc fs_hold_write(struct fs *fs, struct core_shard *shard, const char *name, const char *text,
			 size_t len, struct kv_err *err) KV_MUST_CHECK;

/* Codes of core_hold_drop. */
enum kv_rc fs_holds_unlink(struct fs *fs, const struct fs_node *dir, const char *name,
			   struct kv_err *err) KV_MUST_CHECK;

#endif
