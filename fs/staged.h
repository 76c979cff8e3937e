/*
 * staged.h - one open staged batch: rows in, text out.
 *
 * Text arrives in any pieces, at the end only. A line that is whole is checked
 * and given to the engine; the beginning of a line waits here for its end. What
 * is refused changes nothing: the same bytes written again meet the same error.
 *
 * Threads: any.
 */
#ifndef FS_STAGED_H
#define FS_STAGED_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/shard.h"
#include "fs/stages.h"

struct fs;
struct fs_node;
struct fs_staged;
struct fs_open;

/*
 * Open as open(2) with flags: for reading, its content is that of now. shard is borrowed until close.
 * KV_NO_BATCH, KV_BATCH_BUSY
 */
enum kv_rc fs_staged_open(struct fs *fs, struct core_shard *shard, const struct fs_node *node, int flags,
			  struct fs_open *open, struct fs_staged **out, struct kv_err *err) KV_MUST_CHECK;

/* Bytes of a line without its end, which each open file has a copy of. For the one who opened it. */
size_t fs_staged_kept(const struct fs_staged *s);

/*
 * Take in len bytes at offset from process pid of user uid; append: the offset means nothing. *done: how many
 * were taken: all, or less (KV_OK then too) where a line is refused after others. KV_BAD_SYNTAX: the offset
 * is not the end, or the first line is refused; KV_ROW_TOO_LARGE, KV_NOT_BEYOND_LOWER ... and what the engine
 * fails with.
 */
enum kv_rc fs_staged_write(struct fs_staged *s, pid_t pid, uid_t uid, bool append, uint64_t offset,
			   const char *buf, size_t len, size_t *done);

/* A write that failed before it came here; nothing changed, and why is the answer. */
enum kv_rc fs_staged_refuse(struct fs_staged *s, pid_t pid, uid_t uid, struct kv_err *why);

/* Up to len bytes from offset; *got is less than len only at the end. What was opened for writing too shows
 * at 0, and at the first read, what is in it then. */
enum kv_rc fs_staged_read(struct fs_staged *s, uint64_t offset, char *buf, size_t len, size_t *got,
			  struct kv_err *err) KV_MUST_CHECK;

/* Have all of the batch on stable storage, whoever wrote it. */
enum kv_rc fs_staged_sync(struct fs_staged *s, struct kv_err *err) KV_MUST_CHECK;

/* Cut to size: 0, or what it is now; else KV_BAD_SYNTAX. By path: KV_BATCH_BUSY while somebody writes. */
enum kv_rc fs_staged_cut(struct fs_staged *s, uint64_t size, struct kv_err *err) KV_MUST_CHECK;
enum kv_rc fs_staged_cut_path(struct fs *fs, struct core_shard *shard, struct core_uuid id, uint64_t size,
			      struct kv_err *err) KV_MUST_CHECK;

/* A descriptor of it was closed, perhaps the last one. KV_NOSPACE: what was written waits in memory, and would
 * be lost now. */
enum kv_rc fs_staged_flushed(struct fs_staged *s, struct kv_err *err) KV_MUST_CHECK;
void fs_staged_close(struct fs_staged *s); /* NULL is allowed */

/* Before somebody else looks at its content or size: whoever writes the batch hands over what the engine does
 * not have, unless he is in a write just now. */
void fs_staged_settle(struct fs *fs, struct core_uuid id);

#endif
