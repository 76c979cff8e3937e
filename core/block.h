/*
 * block.h - private to part.c: one columnar block of rows, and its checks.
 *
 * The bytes stand at the top of block.c. A block knows neither blobs nor parts:
 * it is encoded to memory and decoded from memory, bound to the id of its part
 * and to its offset there.
 *
 * Pure functions over what they are given; nothing is shared.
 */
#ifndef CORE_BLOCK_H
#define CORE_BLOCK_H

#include <string.h>

#include "core/id.h"
#include "core/row.h"

enum {
	CORE_BLOCK_HEAD = 28,
	CORE_BLOCK_ROW = 24, /* bytes of columns that a row takes besides its key and val */
	CORE_BLOCK_MAGIC = 0x31424653,
};

/* The greatest block: one row that is as large as rows get (it exceeds CORE_BLOCK_TARGET). */
#define CORE_BLOCK_RAW_MAX (CORE_ROW_MAX + CORE_BLOCK_ROW)

/* What compressing and decompressing need, made at first use; {0} to begin with. */
struct core_block_codec {
	void *cctx;
	void *dctx;
	uint8_t *raw;
	size_t raw_cap;
};
void core_block_codec_fini(struct core_block_codec *codec);
size_t core_block_codec_held(const struct core_block_codec *codec); /* bytes of memory */

/* How many of the first rows the next block takes (>= 1), and the bytes of their columns. */
size_t core_block_fit(const struct core_update *rows, size_t count, size_t *raw);

/*
 * Encode rows whose columns take raw bytes to dst, which has room for CORE_BLOCK_HEAD + raw; returns the
 * bytes written, or 0: out of memory.
 */
size_t core_block_encode(struct core_block_codec *codec, const struct core_update *rows, size_t count,
			 size_t raw, struct core_part_id id, uint64_t offset, bool compress, uint8_t *dst);

/* A decoded block, and the place in it. All pointers are borrowed from the bytes or the codec. */
struct core_block {
	const uint8_t *times;
	const uint8_t *diffs;
	const uint8_t *key_lens;
	const uint8_t *val_lens;
	const uint8_t *keys;
	const uint8_t *vals;
	uint32_t rows; /* 0: no block */
	uint32_t row;  /* the next row */
	size_t key_at; /* of the next row, in keys */
	size_t val_at;
	uint64_t checksum;
	size_t size; /* bytes as stored */
};

/*
 * Bytes of the block whose CORE_BLOCK_HEAD first bytes are given, not yet checked. False, and *why (a
 * constant sentence): they are not the head of a block.
 */
bool core_block_size(const uint8_t *head, size_t *size, const char **why);

/*
 * Check and decode a block of which all `size` bytes are given; borrowed as long as *out is used.
 * KV_CORRUPT (with *why), KV_NOMEM. err is not filled.
 */
enum kv_rc core_block_decode(struct core_block_codec *codec, const uint8_t *bytes, size_t size,
			     struct core_part_id id, uint64_t offset, struct core_block *out,
			     const char **why) KV_MUST_CHECK;

/* The next row, which there must be. */
void core_block_next(struct core_block *block, struct core_update *out);
/* Make `row` (<= rows) the next row. */
void core_block_seek(struct core_block *block, uint32_t row);

/* XXH3 of bytes that stand at offset of part id. */
uint64_t core_block_checksum(struct core_part_id id, uint64_t offset, const void *bytes, size_t len);

/* Numbers in stored bytes are little endian, at any alignment. */
static inline uint32_t core_le32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap32(v);
}

static inline uint64_t core_le64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap64(v);
}

static inline uint8_t *core_put_le32(uint8_t *p, uint32_t v)
{
	v = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap32(v);
	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static inline uint8_t *core_put_le64(uint8_t *p, uint64_t v)
{
	v = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap64(v);
	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

#endif
