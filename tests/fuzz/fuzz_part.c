/*
 * fuzz_part.c - the bytes of a part: whatever they are, rows or KV_CORRUPT.
 *
 * The input: a byte of flags, the part's id, the bytes. Since nothing gets past the checksums by chance, they
 * are set right first (FIX), and the description is taken from the footer: so the checks behind them are met.
 * Then the part is read in a row, from remembered places, as a batch's text, and as a snapshot's source.
 */
#include <stdlib.h>
#include <string.h>

#include "core/block.h"
#include "core/part.h"
#include "core/scan.h"
#include "tests/fuzz/fuzz.h"

enum { FIX = 1, BLOB = 2, SMALL_WINDOW = 4, REWRITE = 8, BOUNDS = 16, KEEP_TOTALS = 32 };
enum {
	FOOTER_MAGIC = 0x31464653,
	FOOTER_HEAD = 72,
	FOOTER_ENTRY = 24,
	TAIL = 8,
	ROWS_ENOUGH = 20000,
	PLACES = 8
};

/* Set the checksums of the blocks right, and the footer's with its list of them. */
static void fix(struct core_part *part, uint8_t *bytes, size_t size)
{
	size_t at = 0, block = 0, blocks_end, footer;
	const char *why;

	while (size - at >= CORE_BLOCK_HEAD && core_block_size(bytes + at, &block, &why) &&
	       block <= size - at) {
		core_put_le64(bytes + at, core_block_checksum(part->id, at, bytes + at + 8, block - 8));
		at += block;
	}
	blocks_end = at;
	footer = at;
	if (size - footer < FOOTER_HEAD + TAIL || core_le32(bytes + footer + 8) != FOOTER_MAGIC)
		return;
	for (at = 0; at < blocks_end; at += block, footer += FOOTER_ENTRY) {
		(void)core_block_size(bytes + at, &block, &why);
		if (size - footer < FOOTER_HEAD + FOOTER_ENTRY + TAIL)
			break;
		core_put_le64(bytes + footer + FOOTER_HEAD, at);
		core_put_le64(bytes + footer + FOOTER_HEAD + 8, core_le64(bytes + at));
		core_put_le32(bytes + footer + FOOTER_HEAD + 16, core_le32(bytes + at + 24));
		core_put_le32(bytes + footer + FOOTER_HEAD + 20, (uint32_t)block);
	}
	part->checksum =
		core_block_checksum(part->id, blocks_end, bytes + blocks_end + 8, size - blocks_end - 8);
	core_put_le64(bytes + blocks_end, part->checksum);
}

/* What a state says of a part stands in its footer too. */
static void describe(struct core_part *part, const uint8_t *bytes, size_t size)
{
	uint64_t *const totals[] = {&part->rows,     &part->stars,    &part->text_base, &part->time_digits,
				    &part->min_time, &part->max_time, &part->diffs_sum};
	size_t footer_len = size >= TAIL ? core_le32(bytes + size - TAIL) : 0;
	const uint8_t *footer = bytes + size - footer_len;

	if (footer_len < FOOTER_HEAD || footer_len > size)
		return;
	for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++)
		*totals[i] = core_le64(footer + 16 + 8 * i);
	part->checksum = core_le64(footer);
}

static enum kv_rc next(struct core_part_reader *r, struct core_update *u, bool *end)
{
	struct kv_err err;
	enum kv_rc rc = core_part_next(r, u, end, &err);

	must(rc == KV_OK || rc == KV_CORRUPT);
	(void)fuzz_said(rc, &err);
	return rc;
}

/* A row as a number, for comparing. */
static uint64_t digest(const struct core_update *u)
{
	uint64_t h = u->time * 31 + (uint64_t)u->diff;

	for (size_t i = 0; u->key.len != CORE_ABSENT && i < u->key.len; i++)
		h = h * 1099511628211u + u->key.data[i];
	for (size_t i = 0; u->val.len != CORE_ABSENT && i < u->val.len; i++)
		h = h * 1099511628211u + u->val.data[i];
	return h;
}

/* All rows; then some again from where they stand. Returns how it ended. */
static enum kv_rc read_rows(const struct core_home *home, const struct core_part *part, size_t window)
{
	struct core_part_pos places[PLACES];
	uint64_t digests[PLACES];
	size_t remembered = 0, rows = 0;
	struct core_part_reader *r;
	struct core_update u;
	bool end = false;
	enum kv_rc rc;

	must(core_part_open(home, part, &r, NULL) == KV_OK);
	core_part_set_window(r, window);
	while ((rc = next(r, &u, &end)) == KV_OK && !end && rows++ < ROWS_ENOUGH) {
		must(core_update_bytes(&u) <= CORE_ROW_MAX);
		if ((rows & (rows - 1)) == 0 && remembered < PLACES) { /* 1, 2, 4, 8 ... */
			places[remembered] = core_part_tell_last(r);
			digests[remembered++] = digest(&u);
		}
	}
	must(rc != KV_OK || !end || rows == part->rows);
	while (remembered-- != 0) {
		struct kv_err err;

		must(core_part_seek(r, places[remembered], &err) == KV_OK);
		must(next(r, &u, &end) == KV_OK && !end && digest(&u) == digests[remembered]);
	}
	core_part_close(r);
	return rc;
}

/* The part as the text of a batch, whose size its description tells, right or wrong. */
static void scan(const struct core_home *home, struct core_part *part, uint8_t flags)
{
	struct core_frontier lower = core_frontier_at((flags & BOUNDS) != 0 ? 3 : 0);
	struct core_batch *batch = core_batch_new(lower, core_frontier_empty());
	static const uint64_t offsets[] = {0, 100, 7, 1u << 20, UINT64_MAX};
	struct core_scan *s;
	struct kv_err err;
	char buf[1024];
	uint64_t size;
	size_t got;

	must(batch != NULL && core_batch_push(batch, part, true));
	(void)fuzz_said(core_scan_size(home, batch, &size, &err), &err);
	must(core_scan_open(home, batch, &s, &err) == KV_OK);
	for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
		enum kv_rc rc = core_scan_read(s, offsets[i], buf, sizeof buf, &got, &err);

		must(rc == KV_OK || rc == KV_CORRUPT);
		must(!fuzz_said(rc, &err) || got <= sizeof buf);
	}
	core_scan_close(s);
	core_batch_unref(batch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {.p = data, .left = size};
	struct core_home home = {.shard.u.b = {1}, .instance.u.b = {2}};
	uint8_t flags = fuzz_u8(&in);
	struct core_part part = {.instance.u.b = {2}, .rewrite_ts = (flags & REWRITE) != 0 ? 5 : 0};
	char key[CORE_BLOB_KEY_LEN];
	uint8_t *bytes;
	size_t len;

	for (size_t i = 0; i < sizeof part.id.u.b; i++)
		part.id.u.b[i] = fuzz_u8(&in);
	bytes = fuzz_copy(&in, in.left, &len);
	part.size = len;
	if ((flags & FIX) != 0)
		fix(&part, bytes, len);
	if ((flags & KEEP_TOTALS) == 0)
		describe(&part, bytes, len);
	if ((flags & BLOB) != 0) {
		home.blobs = kv_blob_mem_new();
		must(home.blobs != NULL);
		must(kv_blob_set(home.blobs, core_part_key(home.shard, &part, key), bytes, len, NULL) ==
		     KV_OK);
		free(bytes);
	} else {
		part.inline_data = bytes;
	}
	enum kv_rc rc = read_rows(&home, &part, (flags & SMALL_WINDOW) != 0 ? 64 : 1 << 16);
	must(rc == read_rows(&home, &part, 1 << 18));
	if (rc == KV_OK || part.rows < ROWS_ENOUGH)
		scan(&home, &part, flags);
	else
		core_part_fini(&part);
	kv_blobs_close(home.blobs);
	return 0;
}
