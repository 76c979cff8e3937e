/*
 * stream.h - an open `snapshot` or `as_of/<t>`: rows as text, in order.
 *
 * Reading goes forward; what was passed within the last WINDOW bytes can be read
 * again at once (shells seek back between lines), and anything before it by
 * starting over, which gives the same content.
 *
 * Threads: one at a time per open file.
 */
#ifndef FS_STREAM_H
#define FS_STREAM_H

#include "core/shard.h"

struct fs_stream;

/* snapshot is taken. NULL: out of memory, and it is closed. */
struct fs_stream *fs_stream_open(struct core_snapshot *snapshot);

/* Up to len bytes from offset; *got is less than len only at the end of the text. *data is borrowed until the
 * next call. */
enum kv_rc fs_stream_read(struct fs_stream *s, uint64_t offset, size_t len, const char **data, size_t *got,
			  struct kv_err *err) KV_MUST_CHECK;

void fs_stream_close(struct fs_stream *s); /* NULL is allowed */

#endif
