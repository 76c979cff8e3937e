/*
 * stream.h - text that is made while it is read: `snapshot`, `as_of/<t>`,
 * `listen/<f>`, `subscribe/<t>`.
 *
 * Reading goes forward; what was passed a moment ago is kept and can be read again
 * (shells seek back between lines). What lies before that is made again, as far
 * back as the source can go: a snapshot to its beginning, a follower by a MiB at
 * least. The text is the same each time.
 *
 * All streams of a mount together keep about STREAMS_KEEP bytes of text: within that
 * each has its last MiB, beyond it little more than it needs. What their sources
 * keep is bounded too, by waiting if need be (budget.h).
 *
 * Threads: one at a time per open file.
 */
#ifndef FS_STREAM_H
#define FS_STREAM_H

#include "core/shard.h"
#include "fs/budget.h"

struct fs_stream;

/* Where text comes from. */
struct fs_source {
	const struct fs_source_ops *ops;
};

struct fs_source_ops {
	/* Add a piece of text with fs_stream_put, at least a byte of it, or say *ended.
	 * KV_WOULD_BLOCK: there is none yet; anything else: it failed for good. */
	enum kv_rc (*produce)(struct fs_source *source, struct fs_stream *to, bool *ended,
			      struct kv_err *err);
	/* Go back to a place at or before offset, which *from says; false: it cannot go so far. */
	bool (*rewind)(struct fs_source *source, uint64_t offset, uint64_t *from);
	/* Bytes kept to go on quickly; about how many it takes to go on, not below that; give them back. */
	size_t (*held)(const struct fs_source *source);
	size_t (*need)(const struct fs_source *source);
	void (*rest)(struct fs_source *source);
	void (*close)(struct fs_source *source);
};

/* source is taken (NULL is allowed); budget is that of all streams of the mount, borrowed. NULL: out of
 * memory, and it is closed. */
struct fs_stream *fs_stream_open(struct fs_source *source, struct fs_budget *budget);

/* The rows of a snapshot, which is taken. NULL: out of memory, and it is closed. */
struct fs_source *fs_source_snapshot(struct core_snapshot *snapshot);

/* For sources: what is made next takes more memory than what was made before. */
void fs_stream_grows(struct fs_stream *s);

/* For sources: room for len bytes of text, to be filled at once. NULL: out of memory. */
char *fs_stream_put(struct fs_stream *s, size_t len);
enum kv_rc fs_stream_put_row(struct fs_stream *s, const struct core_update *u, struct kv_err *err);

/*
 * Up to len bytes from offset; *data is borrowed until the next call. *got is less than len at the end of the
 * text, and where the rest is not there yet; 0 only at the end.
 * KV_WOULD_BLOCK  nothing is there at offset yet
 * KV_BAD_OFFSET   it lies before what can be read again
 */
enum kv_rc fs_stream_read(struct fs_stream *s, uint64_t offset, size_t len, const char **data, size_t *got,
			  struct kv_err *err) KV_MUST_CHECK;

/* Whether a read behind the last one would be answered at once. Makes text to find out. */
bool fs_stream_ready(struct fs_stream *s);

void fs_stream_close(struct fs_stream *s); /* NULL is allowed */

#endif
