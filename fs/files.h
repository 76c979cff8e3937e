/*
 * files.h - the operations on open files; each answers its request exactly once.
 */
#ifndef FS_FILES_H
#define FS_FILES_H

#include "fs/fs.h"

void fs_fill_file_ops(struct fuse_lowlevel_ops *ops);
void fs_fill_dir_ops(struct fuse_lowlevel_ops *ops); /* dir.c */

/* Open a node for process pid as fi->flags say, and fill fi for the reply; once that could not be sent,
 * close. */
enum kv_rc fs_handle_open(struct fs *fs, const struct fs_node *node, struct fuse_file_info *fi,
			  const struct fuse_ctx *ctx, struct kv_err *err) KV_MUST_CHECK;
void fs_handle_close(struct fuse_file_info *fi);

/* ftruncate(fd, size) on a writable file. Of `append`, 0 forgets what was begun on this open. */
enum kv_rc fs_handle_cut(struct fuse_file_info *fi, uint64_t size, struct kv_err *err) KV_MUST_CHECK;

#endif
