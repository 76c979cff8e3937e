/*
 * ctl.h - one open `ctl` file: maintenance verbs in, verdicts out.
 *
 * A write is one whole line, and its result is the verdict. It is answered when
 * the work is done, which may take minutes, and holds no thread meanwhile; an
 * interrupted one is answered at once, and the work goes on. A line that failed
 * says nothing about the next one.
 *
 * Threads: any.
 */
#ifndef FS_CTL_H
#define FS_CTL_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "core/shard.h"

struct fs;
struct fs_ctl;

/* shard is borrowed until close. NULL: out of memory. */
struct fs_ctl *fs_ctl_open(struct fs *fs, struct core_shard *shard);
void fs_ctl_close(struct fs_ctl *c); /* NULL is allowed */

/* Do what the line says, and answer req, perhaps later. The file must stay open until then. */
void fs_ctl_write(struct fs_ctl *c, fuse_req_t req, const char *line, size_t len);

/* One verdict line, or what fits of it, to buf; 0: there is none. */
size_t fs_ctl_read(struct fs_ctl *c, char *buf, size_t len);

#endif
