/*
 * wait.h - reads and polls that wait for a shard's upper, without a thread.
 *
 * A read that must wait is parked with its request (park.h) until the upper passes
 * the time or the shard goes; then it is run again.
 *
 * Threads: any.
 */
#ifndef FS_WAIT_H
#define FS_WAIT_H

#include "core/shard.h"
#include "fs/park.h"

/* A read to run again. */
struct fs_read {
	size_t size;
	off_t offset;
	struct fuse_file_info fi; /* a copy */
	void (*run)(fuse_req_t req, const struct fs_read *read);
};

/* Park req until shard's upper has passed time. Answers it at once if there is no memory. The shard must stay
 * open until the request is answered, which an open file's does. */
void fs_wait_read(struct fs_waits *w, fuse_req_t req, struct core_shard *shard, uint64_t time,
		  const struct fs_read *read);

/* The one poll that an open file may have going. {0} to begin with. */
struct fs_poll {
	struct fs_poll_wait *wait;
};

/* Whether shard's upper has passed time; if not, ph (taken; may be NULL) is told when it has, in place of the
 * one before. */
bool fs_poll_until(struct fs_poll *p, struct core_shard *shard, uint64_t time, struct fuse_pollhandle *ph);
/* Whether shard's upper is another one than was seen (NULL: nothing was), or the last one. Either way ph (as
 * above) is told of the next change after this: an edge-triggered epoll asks only when it was told. */
bool fs_poll_change(struct fs_poll *p, struct core_shard *shard, const struct core_frontier *seen,
		    struct fuse_pollhandle *ph);
/* For what is read on and on: ph (as above) is told when the upper has passed `time`, or of the next change
 * if it has. Whether it is ready now is for the caller to look at after that. */
void fs_poll_more(struct fs_poll *p, struct core_shard *shard, uint64_t time, struct fuse_pollhandle *ph);
void fs_poll_fini(struct fs_poll *p, struct core_shard *shard);

#endif
