/*
 * tree.h - the operations on names; each answers its request exactly once.
 */
#ifndef FS_TREE_H
#define FS_TREE_H

#include "fs/fs.h"

void fs_fill_tree_ops(struct fuse_lowlevel_ops *ops);

#endif
