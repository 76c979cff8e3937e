/*
 * reply.h - answers to requests, counted.
 *
 * Every request that counts.c saw begin is answered by exactly one call from here, on any thread; with it
 * the request is gone. /metrics shows how many are not answered yet; in test builds (CORE_SLOW_CHECKS) one
 * that is answered twice, or was never begun, ends the program.
 *
 * Threads: any.
 */
#ifndef FS_REPLY_H
#define FS_REPLY_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <stdbool.h>

#include "kv/rc.h"

/* Answer with the errno of rc: of a write exactly, of anything else never ESTALE (the kernel would repeat an
 * operation by path), but ENOENT. The one place that reads the list's errno column for FUSE. */
void fs_reply_write_rc(fuse_req_t req, enum kv_rc rc);
/* Of read(2): ESTALE is KV_GONE, nothing else. What is damaged is told in a notice: where, says err alone. */
void fs_reply_read_rc(fuse_req_t req, enum kv_rc rc, const struct kv_err *err);
void fs_reply_rc(fuse_req_t req, enum kv_rc rc);

/* With an errno that comes from the system, or that no code stands for. */
void fs_reply_errno(fuse_req_t req, int errnum);

/* What was read; how much was written; the entries of a directory. */
void fs_reply_read(fuse_req_t req, const void *data, size_t len);
void fs_reply_written(fuse_req_t req, size_t len);
void fs_reply_listing(fuse_req_t req, const void *data, size_t len);

/* It was done, and there is nothing to say; forgotten, which nobody waits for. */
void fs_reply_done(fuse_req_t req);
void fs_reply_forgot(fuse_req_t req);

void fs_reply_attr(fuse_req_t req, const struct stat *st, double timeout);
void fs_reply_link(fuse_req_t req, const char *target);
void fs_reply_statfs(fuse_req_t req, const struct statvfs *st);
void fs_reply_poll(fuse_req_t req, unsigned events);

/* False: whoever asked has gone, and the kernel does not know what was opened or found. */
bool fs_reply_opened(fuse_req_t req, const struct fuse_file_info *fi) KV_MUST_CHECK;
bool fs_reply_found(fuse_req_t req, const struct fuse_entry_param *e) KV_MUST_CHECK;
bool fs_reply_created(fuse_req_t req, const struct fuse_entry_param *e,
		      const struct fuse_file_info *fi) KV_MUST_CHECK;

#endif
