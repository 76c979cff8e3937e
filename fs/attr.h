/*
 * attr.h - what the tree consists of, and what stat says of it.
 *
 * Threads: any.
 */
#ifndef FS_ATTR_H
#define FS_ATTR_H

#include <sys/stat.h>

#include "fs/fs.h"

/* A fixed entry of a directory. */
struct fs_fixed {
	const char *name;
	enum fs_kind kind;
	mode_t mode; /* type, and for files of a shard which of its permission bits apply */
};

/* The fixed entries of a directory of this kind; *count of them (0: none, or it is no directory). */
const struct fs_fixed *fs_fixed_of(enum fs_kind dir, size_t *count);

/* Whether nodes of this kind can be opened for writing. */
bool fs_kind_writable(enum fs_kind kind);

/* The shard a node is of, open; KV_NO_SHARD also if the shard was made anew since. */
enum kv_rc fs_node_shard(struct fs *fs, const struct fs_node *node, struct core_shard **out,
			 struct core_info *info, struct kv_err *err) KV_MUST_CHECK;

/* The text of a file of writers/ or readers/ (FS_WRITER, FS_READER), given; and the time of its last change.
 * KV_NOTFOUND: none of that id. */
enum kv_rc fs_listed_text(struct core_shard *shard, enum fs_kind kind, struct core_uuid id, char **text,
			  uint64_t *ms, struct kv_err *err) KV_MUST_CHECK;

/* stat of a node, and how long the kernel may keep it. */
enum kv_rc fs_attr(struct fs *fs, const struct fs_node *node, struct stat *st, double *timeout,
		   struct kv_err *err) KV_MUST_CHECK;

/* The same for a file that is gone, or whose shard is, which only those see who have it open. */
bool fs_attr_is_gone(const struct fs_node *node, enum kv_rc rc); /* rc: of fs_attr */
void fs_attr_removed(const struct fs_node *node, struct stat *st);

#endif
