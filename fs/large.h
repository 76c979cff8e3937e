/*
 * large.h - writes that may last take turns, so that a crowd of them leaves threads to others.
 *
 *   large    more than 64 KiB in one piece, or of a transaction or batch of which so much is not finished:
 *            it parses, and waits for what it ships. A few at a time.
 *   medium   more than 8 KiB, which is committed as a blob, one after the other in a shard; and any to a
 *            shard whose appends are about to wait for merges. So many that they meet in one sync.
 *   small    the rest; these are committed together, and take no turns.
 *
 * What does not wait is worked on where it came. What waits is copied, and counts for its user as written and
 * not finished; it cannot be interrupted: a write that was begun is not taken back.
 *
 * Threads: any.
 */
#ifndef FS_LARGE_H
#define FS_LARGE_H

#include "fs/fs.h"

struct fs_write {
	struct fs_open *open; /* what is written to; whoever wrote keeps it open until the answer */
	pid_t pid;
	uid_t uid;
	bool append; /* the offset means nothing */
	bool slow;   /* its shard is about to have appends wait */
	off_t offset;
	const char *buf;
	size_t size;
	/* Do it, for what begins with open; *done: bytes written. Or note that it was refused: why
	 * (borrowed).
	 */
	enum kv_rc (*run)(const struct fs_write *w, struct kv_err *refused, size_t *done);
};

void fs_large_init(struct fs *fs);
void fs_large_fini(struct fs *fs);

/* Whether it takes no turn. */
bool fs_write_is_small(struct fs *fs, const struct fs_write *w);

/* Do it and answer, now or when its turn comes; since and holds too, which are small. w and its buf are
 * borrowed. */
void fs_write_in_turn(fuse_req_t req, const struct fs_write *w);

/* Large writes are worked on at a lower priority, where it can be given back. What others wait for, a commit,
 * is not: before that, on the thread of the write. */
void fs_large_raise(void);

#endif
