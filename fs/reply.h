/*
 * reply.h - answers to requests, counted.
 *
 * Threads: any. A request is answered once, and gone then.
 */
#ifndef FS_REPLY_H
#define FS_REPLY_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "kv/rc.h"

/* Answer with the errno of rc: of a write exactly, of anything else never ESTALE (the kernel would repeat an
 * operation by path), but ENOENT. The one place that reads the list's errno column for FUSE. */
void fs_reply_write_rc(fuse_req_t req, enum kv_rc rc);
/* Of read(2): ESTALE is KV_GONE, nothing else. What is damaged is told in a notice: where, says err alone. */
void fs_reply_read_rc(fuse_req_t req, enum kv_rc rc, const struct kv_err *err);
void fs_reply_rc(fuse_req_t req, enum kv_rc rc);

/* With an errno that comes from the system, or that no code stands for. */
void fs_reply_errno(fuse_req_t req, int errnum);

/* What was read; how much was written. */
void fs_reply_read(fuse_req_t req, const void *data, size_t len);
void fs_reply_written(fuse_req_t req, size_t len);

#endif
