/*
 * files.h - the operations on open files; each answers its request exactly once.
 */
#ifndef FS_FILES_H
#define FS_FILES_H

#include "fs/fs.h"

void fs_fill_file_ops(struct fuse_lowlevel_ops *ops);
void fs_fill_dir_ops(struct fuse_lowlevel_ops *ops); /* dir.c */

/* ftruncate(fd, 0) on a writable file: forget what was begun on this open. */
void fs_handle_reset(struct fuse_file_info *fi);

#endif
