/*
 * part.h - the bytes of parts: columnar blocks, compressed and checked.
 *
 * The table of the bytes is at the top of part.c. Each block can be read and
 * checked by itself, with one ranged get; every byte that is read back is under
 * a checksum that is bound to the part's id and the block's position, so that
 * bytes of another part or place fail too.
 *
 * Threads: a writer or reader belongs to one thread at a time.
 */
#ifndef CORE_PART_H
#define CORE_PART_H

#include "core/batch.h"
#include "kv/blob.h"

enum { CORE_BLOCK_TARGET = 64 << 10 }; /* bytes of columns after which a block is closed */

struct core_builders;
struct core_pace;

/* Where parts of one shard live and who writes them; blobs are borrowed. */
struct core_home {
	struct kv_blobs *blobs;
	struct core_shard_id shard;
	struct core_instance_id instance;
	bool may_vanish;                /* another process owns the store, and may delete what is read here */
	struct core_builders *builders; /* what builders share (builder.h); NULL: with nobody */
	const _Atomic(bool) *stops;     /* what takes long is to end, by KV_SHUTDOWN; NULL: never */
	struct core_pace *pace;         /* of background work: it gives way (pace.h); NULL: it does not */
};

/*
 * Encode count (>= 1) rows, sorted by core_update_cmp, to the bytes of one part.
 * star (may be NULL: none) marks rows whose time was `*`.
 * *part gets everything but inline_data and rewrite_ts, with a new id; *data (given, free) *len bytes: what
 * to store as the blob, or to keep inline. Inline bytes are not compressed: their state is small already.
 * KV_NOMEM
 */
enum kv_rc core_part_encode(const struct core_home *home, const struct core_update *rows, const bool *star,
			    size_t count, bool compress, struct core_part *part, uint8_t **data, size_t *len,
			    struct kv_err *err) KV_MUST_CHECK;

/* A reader of one part, block by block; the part and home are borrowed until close. */
struct core_part_reader;

enum kv_rc core_part_open(const struct core_home *home, const struct core_part *part,
			  struct core_part_reader **out, struct kv_err *err) KV_MUST_CHECK;

/* Read blobs in ranges of about that many bytes (else 256 KiB), behind a seek at first in smaller ones; for
 * those who open many parts at once. */
void core_part_set_window(struct core_part_reader *r, size_t bytes);

/*
 * The next row as stored (before rewrite and bounds); *end instead when there is none. Key and val are
 * borrowed until the next call.
 * KV_CORRUPT  the bytes fail their check; the sentence names shard, part and offset
 * KV_NOTFOUND becomes KV_CORRUPT: a named part must be there; or KV_GONE where it may vanish
 */
enum kv_rc core_part_next(struct core_part_reader *r, struct core_update *out, bool *end,
			  struct kv_err *err) KV_MUST_CHECK;

/* Where the block of the row that core_part_next gives next begins, and how many of its rows are past. */
struct core_part_pos {
	uint64_t block;
	uint64_t rows_past;
};
struct core_part_pos core_part_tell(const struct core_part_reader *r);
enum kv_rc core_part_seek(struct core_part_reader *r, struct core_part_pos pos,
			  struct kv_err *err) KV_MUST_CHECK;

/* The same of the row that core_part_next gave last, to be given again. */
struct core_part_pos core_part_tell_last(const struct core_part_reader *r);

/* Bytes of memory that the reader keeps; and about how many one of the part will, reading with that window.
 */
size_t core_part_held(const struct core_part_reader *r);
size_t core_part_need(const struct core_part *part, size_t window);

void core_part_close(struct core_part_reader *r); /* NULL is allowed */

#endif
