/*
 * part.c - parts as bytes. Numbers are little endian.
 *
 *     part    = block... footer
 *     block     see block.c; the first one stands at offset 0
 *
 *     offset  bytes  footer
 *          0      8  XXH3-64 of all that follows to the end of the part, seeded by
 *                    XXH3-64(part id, offset of the footer as u64); = core_part.checksum
 *          8      4  magic "SFF1"; the digit is the format
 *         12      4  blocks n
 *         16      8  rows
 *         24      8  rows whose time was *
 *         32      8  bytes of the text without the digits of times
 *         40      8  digits of the times that were not *
 *         48      8  least time that was not *
 *         56      8  greatest time
 *         64      8  sum of diffs modulo 2^64
 *         72      .  n times: u64 offset of a block, u64 its checksum, u32 its rows, u32 its bytes
 *          .      4  bytes of the footer, these included
 *          .      4  magic "SFT1": from the end of the part the footer is found here
 *
 * A reader goes from block to block and meets the footer at the end, where it
 * checks the whole. Blobs are read in ranges of the window's length; inline
 * bytes are read in place.
 *
 * 1. Every byte of the part is under the checksum of its block or of the footer,
 *    and the footer's is known from outside. So no byte can change unnoticed, and
 *    bytes of another part or place have another seed.
 * 2. A reader that began at the first row and reports the end has read exactly
 *    the blocks that the footer lists: it folds (offset, checksum, rows, bytes) of
 *    each into a hash, and the footer's list into another.
 * 3. next_off is where the block after the loaded one begins; with no block
 *    loaded (rows == 0) it is where the next read begins.
 */
#include "core/part.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

#include "core/block.h"
#include "core/pace.h"

enum {
	FOOTER_MAGIC = 0x31464653,
	TAIL_MAGIC = 0x31544653,
	FOOTER_HEAD = 72,
	FOOTER_ENTRY = 24,
	TAIL = 8,
	AT_MAGIC = 8,
	AT_BLOCKS = 12,
	AT_ROWS = 16,
	WINDOW = 256 << 10,
	AHEAD_MIN =
		CORE_BLOCK_TARGET + (8 << 10), /* behind a seek; twice as much each time, up to the window */
	CODEC_ABOUT = 160 << 10,
};

/* --- encoding --------------------------------------------------------------------------------------- */

/* Add to *part all that follows from the rows; min_time as yet without regard to stars. */
static void describe(const struct core_update *rows, const bool *star, size_t count, struct core_part *part)
{
	uint64_t least = part->min_time;

	part->rows += count;
	for (size_t i = 0; i < count; i++) {
		const struct core_update *u = &rows[i];

		part->text_base += core_row_text_len_timeless(u);
		part->diffs_sum += (uint64_t)u->diff;
		if (star != NULL && star[i]) {
			assert(u->time == 0);
			part->stars++;
			continue;
		}
		least = u->time < least ? u->time : least;
		part->max_time = u->time > part->max_time ? u->time : part->max_time;
		part->time_digits += core_u64_digits(u->time);
	}
	part->min_time = least;
}

static uint8_t *put_entry(uint8_t *p, uint64_t offset, uint64_t checksum, uint32_t rows, size_t bytes)
{
	p = core_put_le64(p, offset);
	p = core_put_le64(p, checksum);
	p = core_put_le32(p, rows);
	return core_put_le32(p, (uint32_t)bytes);
}

static size_t footer_size(size_t blocks)
{
	return FOOTER_HEAD + blocks * FOOTER_ENTRY + TAIL;
}

/* Complete the footer at offset of data, whose entries are there already; sets part->checksum. */
static void put_footer(uint8_t *data, size_t offset, size_t blocks, struct core_part *part)
{
	size_t size = footer_size(blocks);
	uint8_t *footer = data + offset;
	uint8_t *p = footer + AT_MAGIC;

	p = core_put_le32(p, FOOTER_MAGIC);
	p = core_put_le32(p, (uint32_t)blocks);
	p = core_put_le64(p, part->rows);
	p = core_put_le64(p, part->stars);
	p = core_put_le64(p, part->text_base);
	p = core_put_le64(p, part->time_digits);
	p = core_put_le64(p, part->min_time);
	p = core_put_le64(p, part->max_time);
	p = core_put_le64(p, part->diffs_sum);
	assert(p == footer + FOOTER_HEAD);
	p += blocks * FOOTER_ENTRY;
	p = core_put_le32(p, (uint32_t)size);
	core_put_le32(p, TAIL_MAGIC);
	part->checksum = core_block_checksum(part->id, offset, footer + AT_MAGIC, size - AT_MAGIC);
	core_put_le64(footer, part->checksum);
}

/* Blocks that the rows make, and the bytes of their columns. */
static size_t count_blocks(const struct core_home *home, const struct core_update *rows, size_t count,
			   size_t *raw)
{
	size_t blocks = 0;

	*raw = 0;
	for (size_t at = 0; at < count; blocks++) {
		size_t block_raw;

		core_give_way(home->pace);
		at += core_block_fit(rows + at, count - at, &block_raw);
		*raw += block_raw;
	}
	return blocks;
}

#ifdef CORE_SLOW_CHECKS
static void check_sorted(const struct core_update *rows, size_t count)
{
	for (size_t i = 1; i < count; i++)
		assert(core_update_cmp(&rows[i - 1], &rows[i]) <= 0);
}
#else
static void check_sorted(const struct core_update *rows, size_t count)
{
	(void)rows;
	(void)count;
}
#endif

enum kv_rc core_part_encode(const struct core_home *home, const struct core_update *rows, const bool *star,
			    size_t count, bool compress, struct core_part *part, uint8_t **data, size_t *len,
			    struct kv_err *err)
{
	struct core_block_codec codec = {0};
	size_t offset = 0;
	size_t raw;

	*part = (struct core_part){0};
	*data = NULL;
	*len = 0;
	assert(count > 0);
	check_sorted(rows, count);

	/* Blocks never outgrow their raw columns, so this is room enough; what compression leaves over is
	 * given back, and its pages were never touched. The entries of the footer are collected at the very
	 * end of that room, behind anything that a block can reach. */
	size_t blocks = count_blocks(home, rows, count, &raw);
	size_t room = raw + blocks * CORE_BLOCK_HEAD + footer_size(blocks);
	uint8_t *bytes = malloc(room);
	if (bytes == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	uint8_t *entries = bytes + room - TAIL - blocks * FOOTER_ENTRY;
	uint8_t *entry = entries;

	struct core_part made = {.id.u = core_uuid_new(), .instance = home->instance, .min_time = UINT64_MAX};
	for (size_t at = 0; at < count;) {
		core_give_way(home->pace);

		size_t n = core_block_fit(rows + at, count - at, &raw);
		size_t size = core_block_encode(&codec, rows + at, n, raw, made.id, offset, compress,
						bytes + offset);

		if (size == 0) {
			free(bytes);
			core_block_codec_fini(&codec);
			return kv_fail_rc(err, KV_NOMEM);
		}
		describe(rows + at, star != NULL ? star + at : NULL, n, &made);
		entry = put_entry(entry, offset, core_le64(bytes + offset), (uint32_t)n, size);
		offset += size;
		at += n;
	}
	core_block_codec_fini(&codec);
	if (made.stars == count)
		made.min_time = 0;
	memmove(bytes + offset + FOOTER_HEAD, entries, blocks * FOOTER_ENTRY);
	put_footer(bytes, offset, blocks, &made);

	made.size = offset + footer_size(blocks);
	uint8_t *fitted = realloc(bytes, made.size);
	*data = fitted == NULL ? bytes : fitted;
	*len = made.size;
	*part = made;
	return KV_OK;
}

/* --- reading ---------------------------------------------------------------------------------------- */

struct core_part_reader {
	const struct core_home *home;
	const struct core_part *part;
	struct core_block_codec codec;
	struct core_block block;
	uint64_t block_off;
	uint64_t next_off;
	bool ended;

	/* Invariant 2. */
	bool from_start;
	uint64_t rows_seen;
	uint64_t blocks_seen;
	uint64_t entries_hash;

	/* Bytes [win_off, win_off + win_len) of a blob. */
	uint8_t *win;
	size_t win_cap;
	size_t win_len;
	uint64_t win_off;
	size_t window;
	size_t ahead; /* how much of it is used */
	char key[CORE_BLOB_KEY_LEN];
};

static enum kv_rc fail_corrupt(const struct core_part_reader *r, uint64_t offset, const char *why,
			       struct kv_err *err)
{
	char shard[CORE_ID_LEN];
	char part[CORE_ID_LEN];

	core_uuid_format('s', r->home->shard.u, shard);
	core_uuid_format('p', r->part->id.u, part);
	kv_fail(err, KV_CORRUPT, "shard %s, part %s, byte %" PRIu64 " of %" PRIu64 ": %s", shard, part,
		offset, r->part->size, why);
	kv_detail(err, "shard=%s part=%s offset=%" PRIu64, shard, part, offset);
	return KV_CORRUPT;
}

static void restart(struct core_part_reader *r, bool from_start)
{
	r->block = (struct core_block){0};
	r->block_off = 0;
	r->next_off = 0;
	r->ended = false;
	r->from_start = from_start;
	r->rows_seen = 0;
	r->blocks_seen = 0;
	r->entries_hash = 0;
}

enum kv_rc core_part_open(const struct core_home *home, const struct core_part *part,
			  struct core_part_reader **out, struct kv_err *err)
{
	struct core_part_reader *r = calloc(1, sizeof(*r));

	*out = NULL;
	if (r == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	r->home = home;
	r->part = part;
	core_part_set_window(r, WINDOW);
	core_part_key(home->shard, part, r->key);
	restart(r, true);
	*out = r;
	return KV_OK;
}

void core_part_set_window(struct core_part_reader *r, size_t bytes)
{
	r->window = bytes < CORE_BLOCK_HEAD ? CORE_BLOCK_HEAD : bytes;
	r->ahead = r->window;
}

void core_part_close(struct core_part_reader *r)
{
	if (r == NULL)
		return;
	core_block_codec_fini(&r->codec);
	free(r->win);
	free(r);
}

/* Have the window begin at offset, with room for len bytes; keeps what it has of them. */
static bool slide_window(struct core_part_reader *r, uint64_t offset, size_t len)
{
	size_t kept = 0;

	if (offset >= r->win_off && offset < r->win_off + r->win_len) {
		kept = r->win_len - (size_t)(offset - r->win_off);
		memmove(r->win, r->win + (r->win_len - kept), kept);
	}
	r->win_off = offset;
	r->win_len = kept;
	/* One oversize block does not leave an oversize window behind. */
	if (len <= r->win_cap && (r->win_cap <= 2 * r->window || len > r->window))
		return true;
	uint8_t *win = realloc(r->win, len);
	if (win == NULL)
		return len <= r->win_cap;
	r->win = win;
	r->win_cap = len;
	return true;
}

static enum kv_rc read_blob(struct core_part_reader *r, uint64_t offset, size_t len, struct kv_err *err)
{
	uint64_t left = r->part->size - offset;
	size_t want = len > r->ahead ? len : left < r->ahead ? (size_t)left : r->ahead;
	size_t got;

	r->ahead = 2 * r->ahead < r->window ? 2 * r->ahead : r->window;
	if (!slide_window(r, offset, want))
		return kv_fail_rc(err, KV_NOMEM);
	enum kv_rc rc = kv_blob_get(r->home->blobs, r->key, offset + r->win_len, r->win + r->win_len,
				    want - r->win_len, &got, err);
	if (rc == KV_NOTFOUND && r->home->may_vanish)
		return kv_fail(err, KV_GONE, "part %s was deleted by the owner of the store", r->key);
	if (rc == KV_NOTFOUND)
		return fail_corrupt(r, offset, "the blob is missing", err);
	if (rc != KV_OK)
		return kv_wrap(err, rc, "part %s", r->key);
	r->win_len += got;
	if (r->win_len < len)
		return fail_corrupt(r, offset + r->win_len, "the blob ends here", err);
	return KV_OK;
}

/* len bytes from offset, borrowed until the next call. */
static enum kv_rc fetch(struct core_part_reader *r, uint64_t offset, size_t len, const uint8_t **bytes,
			struct kv_err *err)
{
	*bytes = NULL;
	if (offset > r->part->size || len > r->part->size - offset)
		return fail_corrupt(r, offset, "what begins here would exceed the part", err);
	if (r->part->inline_data != NULL) {
		*bytes = r->part->inline_data + offset;
		return KV_OK;
	}
	bool there = offset >= r->win_off && offset - r->win_off <= r->win_len &&
		     len <= r->win_len - (size_t)(offset - r->win_off);
	if (!there) {
		enum kv_rc rc = read_blob(r, offset, len, err);
		if (rc != KV_OK)
			return rc;
	}
	*bytes = r->win + (offset - r->win_off);
	return KV_OK;
}

/* Whether the footer says of the part what the part's description says. */
static bool totals_agree(const uint8_t *footer, const struct core_part *part)
{
	const uint64_t totals[] = {part->rows,     part->stars,    part->text_base, part->time_digits,
				   part->min_time, part->max_time, part->diffs_sum};
	const size_t count = sizeof(totals) / sizeof(totals[0]);

	_Static_assert(AT_ROWS + sizeof(totals) == FOOTER_HEAD, "the totals fill the head of the footer");
	for (size_t i = 0; i < count; i++) {
		if (core_le64(footer + AT_ROWS + 8 * i) != totals[i])
			return false;
	}
	return true;
}

/* The footer, which must be all that is left from offset on. */
static enum kv_rc check_footer(struct core_part_reader *r, uint64_t offset, struct kv_err *err)
{
	uint64_t left = r->part->size - offset;
	const uint8_t *footer;

	if (left < footer_size(1) || (left - footer_size(0)) % FOOTER_ENTRY != 0)
		return fail_corrupt(r, offset, "the footer has not the length of one", err);
	enum kv_rc rc = fetch(r, offset, (size_t)left, &footer, err);
	if (rc != KV_OK)
		return rc;
	size_t size = (size_t)left;
	uint64_t checksum = core_block_checksum(r->part->id, offset, footer + AT_MAGIC, size - AT_MAGIC);
	if (checksum != core_le64(footer) || checksum != r->part->checksum)
		return fail_corrupt(r, offset, "the footer's checksum is wrong", err);
	size_t blocks = (size - footer_size(0)) / FOOTER_ENTRY;
	if (core_le32(footer + AT_BLOCKS) != blocks || core_le32(footer + size - TAIL) != size ||
	    core_le32(footer + size - 4) != TAIL_MAGIC || !totals_agree(footer, r->part))
		return fail_corrupt(r, offset, "the footer contradicts the part's description", err);
	if (!r->from_start)
		return KV_OK;
	uint64_t hash = 0;
	for (size_t i = 0; i < blocks; i++)
		hash = XXH3_64bits_withSeed(footer + FOOTER_HEAD + i * FOOTER_ENTRY, FOOTER_ENTRY, hash);
	if (r->rows_seen != r->part->rows || r->blocks_seen != blocks || hash != r->entries_hash)
		return fail_corrupt(r, offset, "the footer lists other blocks than there are", err);
	return KV_OK;
}

static void note_block(struct core_part_reader *r)
{
	uint8_t entry[FOOTER_ENTRY];

	put_entry(entry, r->block_off, r->block.checksum, r->block.rows, r->block.size);
	r->entries_hash = XXH3_64bits_withSeed(entry, sizeof(entry), r->entries_hash);
	r->rows_seen += r->block.rows;
	r->blocks_seen++;
}

/* Load the block at next_off, or find the end there. */
static enum kv_rc load_next(struct core_part_reader *r, struct kv_err *err)
{
	uint64_t offset = r->next_off;
	const uint8_t *bytes;
	const char *why = NULL;
	size_t size;

	r->block = (struct core_block){0};
	if (r->part->size > KV_VALUE_MAX)
		return fail_corrupt(r, offset, "the part is described as larger than a blob can be", err);
	enum kv_rc rc = fetch(r, offset, CORE_BLOCK_HEAD, &bytes, err);
	if (rc != KV_OK)
		return rc;
	if (core_le32(bytes + AT_MAGIC) == FOOTER_MAGIC) {
		rc = check_footer(r, offset, err);
		r->ended = rc == KV_OK;
		return rc;
	}
	if (!core_block_size(bytes, &size, &why))
		return fail_corrupt(r, offset, why, err);
	rc = fetch(r, offset, size, &bytes, err);
	if (rc != KV_OK)
		return rc;
	rc = core_block_decode(&r->codec, bytes, size, r->part->id, offset, &r->block, &why);
	if (rc == KV_NOMEM)
		return kv_fail_rc(err, KV_NOMEM);
	if (rc != KV_OK)
		return fail_corrupt(r, offset, why, err);
	r->block_off = offset;
	r->next_off = offset + size;
	note_block(r);
	return KV_OK;
}

enum kv_rc core_part_next(struct core_part_reader *r, struct core_update *out, bool *end, struct kv_err *err)
{
	*end = false;
	if (r->block.row == r->block.rows) {
		*out = (struct core_update){0};
		if (!r->ended) {
			enum kv_rc rc = load_next(r, err);
			if (rc != KV_OK)
				return rc;
		}
		if (r->ended) {
			*end = true;
			return KV_OK;
		}
	}
	core_block_next(&r->block, out);
	return KV_OK;
}

struct core_part_pos core_part_tell(const struct core_part_reader *r)
{
	if (r->block.row == r->block.rows)
		return (struct core_part_pos){.block = r->next_off, .rows_past = 0};
	return (struct core_part_pos){.block = r->block_off, .rows_past = r->block.row};
}

struct core_part_pos core_part_tell_last(const struct core_part_reader *r)
{
	assert(r->block.row > 0);
	return (struct core_part_pos){.block = r->block_off, .rows_past = r->block.row - 1};
}

size_t core_part_held(const struct core_part_reader *r)
{
	return sizeof *r + r->win_cap + core_block_codec_held(&r->codec);
}

size_t core_part_need(const struct core_part *part, size_t window)
{
	uint64_t row = part->text_base / (part->rows != 0 ? part->rows : 1);
	uint64_t block = row > CORE_BLOCK_TARGET ? row : CORE_BLOCK_TARGET;
	uint64_t range = block > window ? block : window;

	range = part->size < range ? part->size : range;
	if (part->inline_data != NULL)
		return sizeof(struct core_part_reader);
	return sizeof(struct core_part_reader) + CODEC_ABOUT + (size_t)block + (size_t)range;
}

enum kv_rc core_part_seek(struct core_part_reader *r, struct core_part_pos pos, struct kv_err *err)
{
	bool loaded = r->block.rows > 0 && r->block_off == pos.block;

	if (!loaded) {
		restart(r, pos.block == 0);
		r->next_off = pos.block;
		r->ahead = AHEAD_MIN < r->window ? AHEAD_MIN : r->window;
		enum kv_rc rc = load_next(r, err);
		if (rc != KV_OK)
			return rc;
	}
	if (pos.rows_past > r->block.rows)
		return fail_corrupt(r, pos.block, "the block has fewer rows than were read from it", err);
	r->ended = r->ended && !loaded;
	core_block_seek(&r->block, (uint32_t)pos.rows_past);
	return KV_OK;
}
