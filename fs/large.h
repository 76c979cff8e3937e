/*
 * large.h - writes of large transactions and batches take turns.
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
	off_t offset;
	const char *buf;
	size_t size;
	/* Do it, for what begins with open; *done: bytes written. Or note that it was refused: why
	 * (borrowed). */
	enum kv_rc (*run)(const struct fs_write *w, struct kv_err *refused, size_t *done);
};

/* Whether it is one of these: by its size, or because it goes on with what is large. */
bool fs_write_is_large(const struct fs_write *w);

/* Do it and answer, now or when its turn comes. w and its buf are borrowed. */
void fs_large_write(fuse_req_t req, const struct fs_write *w);

/* Do it and answer. */
void fs_write_now(fuse_req_t req, const struct fs_write *w);

#endif
