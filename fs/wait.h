/*
 * wait.h - reads and polls that wait for a shard's upper, without a thread.
 *
 * A read that must wait is parked with its request. It ends in exactly one of
 * these ways: the upper passes the time or the shard goes, and the read is run
 * again on the thread of fs_waits; the kernel interrupts it: EINTR; the mount
 * stops: ESHUTDOWN.
 *
 * Threads: any.
 */
#ifndef FS_WAIT_H
#define FS_WAIT_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>

#include "core/shard.h"
#include "core/worker.h"

struct fs_parked;

struct fs_waits {
	pthread_mutex_t mu; /* parked, closed */
	struct fs_parked *parked;
	bool closed;
	bool stopped; /* the worker has ended; who is woken now is answered where that happens */
	struct core_worker *worker;
};

/* A read to run again. */
struct fs_read {
	size_t size;
	off_t offset;
	struct fuse_file_info fi; /* a copy */
	void (*run)(fuse_req_t req, const struct fs_read *read);
};

bool fs_waits_init(struct fs_waits *w); /* false: no memory or no thread */

/* Park req until shard's upper has passed time. Answers it at once if there is no memory. The shard must stay
 * open until the request is answered, which an open file's does. */
void fs_wait_read(struct fs_waits *w, fuse_req_t req, struct core_shard *shard, uint64_t time,
		  const struct fs_read *read);

/* Answer all that wait, and those who come: ESHUTDOWN. */
void fs_waits_close(struct fs_waits *w);

/* Then, when no commit is in flight that could wake anybody: answer those who were woken too, ESHUTDOWN. */
void fs_waits_stop(struct fs_waits *w);
void fs_waits_fini(struct fs_waits *w);

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
