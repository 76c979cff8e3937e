/*
 * counts.h - what the mount counts of the requests it serves, for /metrics.
 *
 * Requests are counted and timed around the handlers, in one place (fs_count_ops);
 * errors and bytes where they are answered (reply.c).
 *
 * Threads: any; counting takes no lock.
 */
#ifndef FS_COUNTS_H
#define FS_COUNTS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/metrics.h"
#include "kv/rc.h"

/* Every request that the mount serves: X(name, parameters, arguments) of its handler. */
#define FS_OPS(X)                                                                                           \
	X(lookup, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))               \
	X(forget, (fuse_req_t req, fuse_ino_t ino, uint64_t lookups), (req, ino, lookups))                  \
	X(forget_multi, (fuse_req_t req, size_t count, struct fuse_forget_data * forgets),                  \
	  (req, count, forgets))                                                                            \
	X(getattr, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info * fi), (req, ino, fi))            \
	X(setattr,                                                                                          \
	  (fuse_req_t req, fuse_ino_t ino, struct stat * attr, int to_set, struct fuse_file_info *fi),      \
	  (req, ino, attr, to_set, fi))                                                                     \
	X(readlink, (fuse_req_t req, fuse_ino_t ino), (req, ino))                                           \
	X(mknod, (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev),            \
	  (req, parent, name, mode, rdev))                                                                  \
	X(mkdir, (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode),                        \
	  (req, parent, name, mode))                                                                        \
	X(unlink, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))               \
	X(rmdir, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))                \
	X(symlink, (fuse_req_t req, const char *target, fuse_ino_t parent, const char *name),               \
	  (req, target, parent, name))                                                                      \
	X(rename,                                                                                           \
	  (fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *to_name,         \
	   unsigned flags),                                                                                 \
	  (req, parent, name, to, to_name, flags))                                                          \
	X(link, (fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name),                      \
	  (req, ino, parent, name))                                                                         \
	X(open, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info * fi), (req, ino, fi))               \
	X(create,                                                                                           \
	  (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi),    \
	  (req, parent, name, mode, fi))                                                                    \
	X(read, (fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info * fi),    \
	  (req, ino, size, offset, fi))                                                                     \
	X(write,                                                                                            \
	  (fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,                      \
	   struct fuse_file_info *fi),                                                                      \
	  (req, ino, buf, size, offset, fi))                                                                \
	X(flush, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info * fi), (req, ino, fi))              \
	X(release, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info * fi), (req, ino, fi))            \
	X(fsync, (fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi),                 \
	  (req, ino, datasync, fi))                                                                         \
	X(poll, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info * fi, struct fuse_pollhandle * ph),  \
	  (req, ino, fi, ph))                                                                               \
	X(opendir, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info * fi), (req, ino, fi))            \
	X(readdir, (fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info * fi), \
	  (req, ino, size, offset, fi))                                                                     \
	X(releasedir, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info * fi), (req, ino, fi))         \
	X(fsyncdir, (fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi),              \
	  (req, ino, datasync, fi))                                                                         \
	X(statfs, (fuse_req_t req, fuse_ino_t ino), (req, ino))

#define FS_OP(name, parameters, arguments) FS_OP_##name,
enum fs_op { FS_OPS(FS_OP) FS_OP_COUNT };
#undef FS_OP

struct fs_counts {
	_Atomic(uint64_t) requests[FS_OP_COUNT];
	_Atomic(uint64_t) answered;
#ifdef CORE_SLOW_CHECKS
	pthread_mutex_t mu; /* of the next; held for moments */
	struct fs_count_flight *flights;
	uint64_t unchecked; /* for want of memory */
#endif
	struct core_histogram times[FS_OP_COUNT]; /* of those that were not parked */
	_Atomic(uint64_t) errors[KV_RC_COUNT];    /* [KV_OK]: an errno that is none of the list */
	_Atomic(uint64_t) read_bytes;
	_Atomic(uint64_t) written_bytes;
	struct fuse_lowlevel_ops handlers; /* that serve the requests */
};

void fs_counts_init(struct fs_counts *c);
/* When no more requests come, and those that were parked have been ended: all are answered (checked). */
void fs_counts_fini(struct fs_counts *c);

/* Put counting around the handlers in ops. */
void fs_count_ops(struct fs_counts *c, struct fuse_lowlevel_ops *ops);

/* The request that is served on this thread waits now: its time says nothing of the mount. */
void fs_count_parked(void);

/* A request that went on when its handler was back has been answered, and took its time. */
void fs_count_took(struct fs_counts *c, enum fs_op op, uint64_t began_us);

/* req is about to be answered, which happens once (checked in test builds). */
void fs_count_answered(struct fs_counts *c, fuse_req_t req);

/* Requests that were begun and not answered yet. */
uint64_t fs_counts_in_flight(const struct fs_counts *c);

static inline void fs_count(_Atomic(uint64_t) *counter, uint64_t by)
{
	atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

#endif
