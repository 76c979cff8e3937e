/*
 * batches.h - the names in batches/: committed batches `<lower>-<upper>`, and staged ones.
 *
 * Committed batches only stand there to be read; staged ones are made, renamed
 * and removed. dir is the node of a batches/.
 *
 * Threads: any.
 */
#ifndef FS_BATCHES_H
#define FS_BATCHES_H

#include "fs/fs.h"

/* create and mknod; everywhere else stray files of editors and tools are refused, and leave nothing. */
void fs_fill_batch_ops(struct fuse_lowlevel_ops *ops);

/* The nodeid of a name, counted as looked up. KV_NO_BATCH, KV_NOTFOUND */
enum kv_rc fs_batches_look(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid,
			   struct kv_err *err) KV_MUST_CHECK;

/* KV_NOT_HERE: it is committed */
enum kv_rc fs_batches_unlink(struct fs *fs, const struct fs_node *dir, const char *name,
			     struct kv_err *err) KV_MUST_CHECK;

/* flags as of renameat2(2). KV_NOT_HERE: name is of a committed batch; KV_BAD_NAME: to is not free to be
 * given; KV_EXISTS */
enum kv_rc fs_batches_rename(struct fs *fs, const struct fs_node *dir, const char *name, const char *to,
			     unsigned flags, struct kv_err *err) KV_MUST_CHECK;

#endif
