/*
 * block.c - one columnar block. Numbers are little endian.
 *
 *     offset  bytes  block
 *          0      8  XXH3-64 of all that follows to the end of the block, seeded by
 *                    XXH3-64(part id, offset of the block in the part as u64)
 *          8      4  magic "SFB1"; the digit is the format
 *         12      4  codec: 0 stored as it is, 1 zstd
 *         16      4  stored length: bytes of the columns here
 *         20      4  raw length: bytes of the columns decoded (= stored length for codec 0)
 *         24      4  rows n, at least 1
 *         28      .  the columns
 *
 *     columns, decoded:
 *          n * 8  times
 *          n * 8  diffs, two's complement
 *          n * 4  key lengths; 2^32 - 1 is absent
 *          n * 4  val lengths; 2^32 - 1 is absent
 *              .  key bytes, one after the other
 *              .  val bytes
 *
 * 1. Nothing but the length of the read depends on bytes whose checksum was not
 *    verified yet, and that length is bounded by CORE_BLOCK_RAW_MAX.
 * 2. A decoded block's columns fill its raw bytes exactly, so core_block_next needs
 *    no checks; and CORE_BLOCK_RAW_MAX keeps every row within CORE_ROW_MAX.
 */
#include "core/block.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>
#include <zstd.h>

#include "core/part.h"

enum { CODEC_RAW, CODEC_ZSTD };
/* Of the levels that keep up with parsing, the one whose blocks are smallest for their time. */
enum { ZSTD_LEVEL = 1 };
/* A buffer that one oversize row made longer than this is given back at the next block. */
enum { RAW_KEEP_MAX = 1 << 20 };
enum { AT_MAGIC = 8, AT_CODEC = 12, AT_STORED = 16, AT_RAW = 20, AT_ROWS = 24 };

_Static_assert(CORE_BLOCK_RAW_MAX > CORE_BLOCK_TARGET, "the greatest block is one row");
_Static_assert(CORE_BLOCK_RAW_MAX + CORE_BLOCK_HEAD < UINT32_MAX, "lengths are u32");

void core_block_codec_fini(struct core_block_codec *codec)
{
	ZSTD_freeCCtx(codec->cctx);
	ZSTD_freeDCtx(codec->dctx);
	free(codec->raw);
	*codec = (struct core_block_codec){0};
}

size_t core_block_codec_held(const struct core_block_codec *codec)
{
	return codec->raw_cap + ZSTD_sizeof_CCtx(codec->cctx) + ZSTD_sizeof_DCtx(codec->dctx);
}

static bool reserve_raw(struct core_block_codec *codec, size_t len)
{
	if (len <= codec->raw_cap && (codec->raw_cap <= RAW_KEEP_MAX || len > RAW_KEEP_MAX))
		return true;
	free(codec->raw);
	codec->raw_cap = len > CORE_BLOCK_TARGET ? len : CORE_BLOCK_TARGET;
	codec->raw = malloc(codec->raw_cap);
	if (codec->raw == NULL)
		codec->raw_cap = 0;
	return codec->raw != NULL;
}

uint64_t core_block_checksum(struct core_part_id id, uint64_t offset, const void *bytes, size_t len)
{
	uint8_t place[sizeof(id.u.b) + sizeof(offset)];

	memcpy(place, id.u.b, sizeof(id.u.b));
	core_put_le64(place + sizeof(id.u.b), offset);
	return XXH3_64bits_withSeed(bytes, len, XXH3_64bits(place, sizeof(place)));
}

/* --- encoding --------------------------------------------------------------------------------------- */

size_t core_block_fit(const struct core_update *rows, size_t count, size_t *raw)
{
	size_t n = 1;

	assert(count > 0);
	*raw = CORE_BLOCK_ROW + core_update_bytes(&rows[0]);
	for (; n < count; n++) {
		size_t more = CORE_BLOCK_ROW + core_update_bytes(&rows[n]);

		if (more > CORE_BLOCK_TARGET || *raw + more > CORE_BLOCK_TARGET)
			break;
		*raw += more;
	}
	return n;
}

static uint8_t *put_bytes(uint8_t *p, struct core_bytes b)
{
	if (b.len == CORE_ABSENT || b.len == 0)
		return p;
	memcpy(p, b.data, b.len);
	return p + b.len;
}

static void put_columns(const struct core_update *rows, size_t count, uint8_t *p)
{
	for (size_t i = 0; i < count; i++)
		p = core_put_le64(p, rows[i].time);
	for (size_t i = 0; i < count; i++)
		p = core_put_le64(p, (uint64_t)rows[i].diff);
	for (size_t i = 0; i < count; i++) {
		__builtin_prefetch(rows[i].key.data); /* it lies anywhere */
		p = core_put_le32(p, rows[i].key.len);
	}
	for (size_t i = 0; i < count; i++) {
		__builtin_prefetch(rows[i].val.data);
		p = core_put_le32(p, rows[i].val.len);
	}
	for (size_t i = 0; i < count; i++)
		p = put_bytes(p, rows[i].key);
	for (size_t i = 0; i < count; i++)
		p = put_bytes(p, rows[i].val);
}

/* Compress the columns to dst; 0: they do not shrink. False: out of memory. */
static bool compress_columns(struct core_block_codec *codec, const struct core_update *rows, size_t count,
			     size_t raw, uint8_t *dst, size_t *stored)
{
	if (codec->cctx == NULL)
		codec->cctx = ZSTD_createCCtx();
	if (codec->cctx == NULL || !reserve_raw(codec, raw))
		return false;
	put_columns(rows, count, codec->raw);
	*stored = ZSTD_compressCCtx(codec->cctx, dst, raw - 1, codec->raw, raw, ZSTD_LEVEL);
	if (ZSTD_isError(*stored)) {
		/* What does not fit in raw - 1 bytes does not shrink; zstd's other failures are of memory,
		 * and storing the columns as they are is right then too. */
		*stored = 0;
	}
	return true;
}

size_t core_block_encode(struct core_block_codec *codec, const struct core_update *rows, size_t count,
			 size_t raw, struct core_part_id id, uint64_t offset, bool compress, uint8_t *dst)
{
	size_t stored = 0;

	assert(count > 0 && raw <= CORE_BLOCK_RAW_MAX);
	if (compress && !compress_columns(codec, rows, count, raw, dst + CORE_BLOCK_HEAD, &stored))
		return 0;
	bool shrunk = stored > 0;
	if (!shrunk) {
		put_columns(rows, count, dst + CORE_BLOCK_HEAD);
		stored = raw;
	}
	core_put_le32(dst + AT_MAGIC, CORE_BLOCK_MAGIC);
	core_put_le32(dst + AT_CODEC, shrunk ? CODEC_ZSTD : CODEC_RAW);
	core_put_le32(dst + AT_STORED, (uint32_t)stored);
	core_put_le32(dst + AT_RAW, (uint32_t)raw);
	core_put_le32(dst + AT_ROWS, (uint32_t)count);
	size_t size = CORE_BLOCK_HEAD + stored;
	core_put_le64(dst, core_block_checksum(id, offset, dst + AT_MAGIC, size - AT_MAGIC));
	return size;
}

/* --- decoding --------------------------------------------------------------------------------------- */

bool core_block_size(const uint8_t *head, size_t *size, const char **why)
{
	uint32_t stored = core_le32(head + AT_STORED);

	if (core_le32(head + AT_MAGIC) != CORE_BLOCK_MAGIC) {
		*why = "neither a block nor the footer begins here";
		return false;
	}
	if (stored > CORE_BLOCK_RAW_MAX) {
		*why = "the block's length is beyond any block's";
		return false;
	}
	*size = CORE_BLOCK_HEAD + (size_t)stored;
	return true;
}

/* The sum of a column of lengths, absent ones being 0. */
static uint64_t sum_lens(const uint8_t *lens, uint32_t rows)
{
	uint64_t sum = 0; /* 2^32 lengths below 2^32: no overflow */

	for (uint32_t i = 0; i < rows; i++) {
		uint32_t len = core_le32(lens + 4 * (size_t)i);

		sum += len == CORE_ABSENT ? 0 : len;
	}
	return sum;
}

static bool set_columns(const uint8_t *raw, size_t len, uint32_t rows, struct core_block *out)
{
	size_t n = rows;

	if (n == 0 || n > len / CORE_BLOCK_ROW)
		return false;
	out->times = raw;
	out->diffs = out->times + 8 * n;
	out->key_lens = out->diffs + 8 * n;
	out->val_lens = out->key_lens + 4 * n;
	out->keys = out->val_lens + 4 * n;
	uint64_t left = len - CORE_BLOCK_ROW * n;
	uint64_t keys = sum_lens(out->key_lens, rows);
	if (keys > left || sum_lens(out->val_lens, rows) != left - keys)
		return false;
	out->vals = out->keys + keys;
	out->rows = rows;
	return true;
}

enum kv_rc core_block_decode(struct core_block_codec *codec, const uint8_t *bytes, size_t size,
			     struct core_part_id id, uint64_t offset, struct core_block *out,
			     const char **why)
{
	const uint8_t *columns = bytes + CORE_BLOCK_HEAD;

	*out = (struct core_block){0};
	assert(size >= CORE_BLOCK_HEAD && size == CORE_BLOCK_HEAD + (size_t)core_le32(bytes + AT_STORED));
	out->checksum = core_le64(bytes);
	out->size = size;
	if (out->checksum != core_block_checksum(id, offset, bytes + AT_MAGIC, size - AT_MAGIC)) {
		*why = "the block's checksum is wrong";
		return KV_CORRUPT;
	}
	uint32_t codec_id = core_le32(bytes + AT_CODEC);
	size_t stored = size - CORE_BLOCK_HEAD;
	size_t raw = core_le32(bytes + AT_RAW);
	if (raw > CORE_BLOCK_RAW_MAX || codec_id > CODEC_ZSTD || (codec_id == CODEC_RAW && raw != stored)) {
		*why = "the block's head contradicts itself";
		return KV_CORRUPT;
	}
	if (codec_id == CODEC_ZSTD) {
		if (codec->dctx == NULL)
			codec->dctx = ZSTD_createDCtx();
		if (codec->dctx == NULL || !reserve_raw(codec, raw))
			return KV_NOMEM;
		if (ZSTD_decompressDCtx(codec->dctx, codec->raw, raw, columns, stored) != raw) {
			*why = "the block does not decompress to its length";
			return KV_CORRUPT;
		}
		columns = codec->raw;
	}
	if (!set_columns(columns, raw, core_le32(bytes + AT_ROWS), out)) {
		out->rows = 0;
		*why = "the block's columns do not fill it";
		return KV_CORRUPT;
	}
	return KV_OK;
}

static struct core_bytes take_bytes(const uint8_t *column, uint32_t len, size_t *at)
{
	struct core_bytes b = {.data = column + *at, .len = len};

	if (len == CORE_ABSENT)
		b.data = NULL;
	else
		*at += len;
	return b;
}

void core_block_next(struct core_block *block, struct core_update *out)
{
	size_t i = block->row++;

	out->time = core_le64(block->times + 8 * i);
	out->diff = (int64_t)core_le64(block->diffs + 8 * i);
	out->key = take_bytes(block->keys, core_le32(block->key_lens + 4 * i), &block->key_at);
	out->val = take_bytes(block->vals, core_le32(block->val_lens + 4 * i), &block->val_at);
}

void core_block_seek(struct core_block *block, uint32_t row)
{
	assert(row <= block->rows);
	block->row = row;
	block->key_at = (size_t)sum_lens(block->key_lens, row);
	block->val_at = (size_t)sum_lens(block->val_lens, row);
}
