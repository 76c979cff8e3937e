/*
 * tree.h - the operations on names; each answers its request exactly once.
 */
#ifndef FS_TREE_H
#define FS_TREE_H

#include "fs/fs.h"

void fs_fill_tree_ops(struct fuse_lowlevel_ops *ops);

/* Fill the entry of e->ino, a nodeid that was just looked up or made. */
enum kv_rc fs_entry(struct fs *fs, struct fuse_entry_param *e, struct kv_err *err) KV_MUST_CHECK;

/* Answer with it. What cannot be told is forgotten. */
void fs_reply_entry(struct fs *fs, fuse_req_t req, uint64_t nodeid);

/* The same of what was made just now. It is there even if that cannot be told: then the outcome is unknown. */
void fs_reply_made(struct fs *fs, fuse_req_t req, uint64_t nodeid);

#endif
