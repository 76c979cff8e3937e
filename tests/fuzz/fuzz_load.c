/*
 * fuzz_load.c - a store whose documents hold anything: the engine says KV_CORRUPT, or works on what it read.
 *
 * The input is a list of documents: a byte for the kind (and whether to frame it), two for the length, the
 * payload. The names' document, rollups and manifests, and versions that name them. Checksums are right, or
 * most would end there. Then everything that is asked of a shard and of names is asked.
 */
#include <stdlib.h>
#include <string.h>

#include "core/codec_impl.h"
#include "core/listen.h"
#include "core/manifest.h"
#include "core/names.h"
#include "core/scan.h"
#include "core/staged.h"
#include "core/upkeep.h"
#include "tests/fuzz/fuzz.h"

enum { NAMES, ROLLUP, VERSION, MANIFEST };
enum { NAMES_SEED = 0x6e616d65, DOCUMENTS_MAX = 32, MANIFESTS_MAX = 8, ROWS_ENOUGH = 2000, RAW = 8 };

static const struct core_shard_id shard_id = {.u.b = {7}};

static uint64_t fixed_time(void *arg)
{
	(void)arg;
	return 1000000;
}

/* --- filling the store ----------------------------------------------------------------------------- */

struct filling {
	struct kv_store *store;
	uint64_t seqno; /* of the last version */
	struct core_buf rollup;
	struct core_buf manifests[MANIFESTS_MAX];
	size_t manifest_count;
};

/* A blob is never written again with other bytes. */
static void put_blob(struct filling *f, const char *key, const struct core_buf *bytes)
{
	struct kv_blobs *blobs = kv_store_blobs(f->store);
	char byte;
	size_t got;

	if (key[0] != '\0' && bytes->data != NULL &&
	    kv_blob_get(blobs, key, 0, &byte, 1, &got, NULL) == KV_NOTFOUND)
		(void)!kv_blob_set(blobs, key, bytes->data, bytes->len, NULL);
}

/* The manifest that names the entry, or else the last one. */
static void put_manifest(struct filling *f, const struct core_staged *entry)
{
	char key[CORE_BLOB_KEY_LEN];

	for (size_t i = 0; i < f->manifest_count; i++) {
		struct core_manifest m;
		enum kv_rc rc = core_manifest_decode(shard_id, entry->manifest, f->manifests[i].data,
						     f->manifests[i].len, &m, NULL);

		if (rc == KV_OK)
			core_manifest_fini(&m);
		if (rc == KV_OK || i + 1 == f->manifest_count) {
			put_blob(f, core_manifest_key(shard_id, entry, key), &f->manifests[i]);
			return;
		}
	}
}

/* A version, under the seqno it says if that can be, with what it names beside it. */
static void put_version(struct filling *f, const void *bytes, size_t len)
{
	struct kv_consensus *c = kv_store_consensus(f->store);
	uint64_t seqno = f->seqno + 1;
	struct core_diff d;
	char key[CORE_ID_LEN];

	if (core_diff_decode(shard_id, bytes, len, &d, NULL) == KV_OK) {
		seqno = d.seqno > seqno ? d.seqno : seqno;
		put_blob(f, d.newest_rollup.key, &f->rollup);
		for (size_t i = 0; i < d.staged_count; i++)
			if (d.staged[i].manifest_bytes != 0)
				put_manifest(f, &d.staged[i]);
	}
	core_diff_fini(&d);
	if (kv_consensus_compare_and_set(c, core_uuid_format('s', shard_id.u, key), f->seqno, seqno, bytes,
					 len, KV_SYNC, NULL) == KV_OK)
		f->seqno = seqno;
}

/* bytes are taken. */
static void put(struct filling *f, uint8_t kind, struct core_buf bytes)
{
	if (kind == ROLLUP) {
		core_buf_fini(&f->rollup);
		f->rollup = bytes;
		return;
	}
	if (kind == MANIFEST && f->manifest_count < MANIFESTS_MAX) {
		f->manifests[f->manifest_count++] = bytes;
		return;
	}
	if (kind == NAMES)
		(void)!kv_consensus_compare_and_set(kv_store_consensus(f->store), "names", KV_NO_VERSION, 1,
						    bytes.data, bytes.len, KV_SYNC, NULL);
	else if (kind == VERSION)
		put_version(f, bytes.data, bytes.len);
	core_buf_fini(&bytes);
}

static void fill(struct kv_store *store, struct fuzz_in *in)
{
	struct filling f = {.store = store};

	for (int i = 0; i < DOCUMENTS_MAX && in->left != 0; i++) {
		uint8_t flags = fuzz_u8(in), kind = flags % 4;
		uint16_t want = fuzz_u16(in);
		struct core_buf bytes, framed;

		bytes.data = fuzz_copy(in, want, &bytes.len);
		if ((flags & RAW) == 0) {
			must(core_frame("NRDM"[kind], kind == NAMES ? NAMES_SEED : core_shard_seed(shard_id),
					bytes.data, bytes.len, &framed, NULL) == KV_OK);
			core_buf_fini(&bytes);
			bytes = framed;
		}
		put(&f, kind, bytes);
	}
	core_buf_fini(&f.rollup);
	for (size_t i = 0; i < f.manifest_count; i++)
		core_buf_fini(&f.manifests[i]);
}

/* --- asking ---------------------------------------------------------------------------------------- */

static void names(struct core_engine *e)
{
	struct core_name *list, name = {.name = "new"}, found;
	struct kv_err err;
	size_t count;

	if (!fuzz_said(core_name_list(e, &list, &count, &err), &err))
		return;
	for (size_t i = 0; i < count; i++) {
		must(strlen(list[i].name) < CORE_NAME_LEN);
		(void)fuzz_said(core_name_get(e, list[i].name, &found, &err), &err);
		(void)fuzz_said(core_name_get_by_id(e, list[i].id, &found, &err), &err);
	}
	(void)fuzz_said(core_name_add(e, &name, &err), &err);
	if (count != 0) {
		(void)fuzz_said(core_name_rename(e, list[0].name, "other", false, false, &err), &err);
		(void)fuzz_said(core_name_rename(e, "other", "new", false, true, &err), &err);
		(void)fuzz_said(core_name_remove(e, list[count - 1].name, &err), &err);
	}
	free(list);
}

static void snapshot(struct core_shard *s, struct core_as_of as_of)
{
	struct core_snapshot *n;
	struct core_update u;
	struct kv_err err;
	bool end = false;

	if (!fuzz_said(core_snapshot_open(s, as_of, &n, &err), &err))
		return;
	for (int i = 0; i < ROWS_ENOUGH && !end; i++)
		if (!fuzz_said(core_snapshot_next(n, &u, &end, &err), &err))
			break;
	core_snapshot_close(n);
}

/* What comes at times from 1 on, to where there is no more for now. */
static void listen(struct core_shard *s)
{
	const struct core_reader reader = {.purpose = "listen"};
	struct core_listen *l;
	struct core_step step;
	struct core_update u;
	struct kv_err err;
	bool end = false;

	if (!fuzz_said(core_listen_open(s, core_frontier_at(1), &reader, &l, &err), &err))
		return;
	for (int steps = 0; steps < 100 && !end; steps++) {
		bool done = false;

		if (!fuzz_said(core_listen_step(l, &step, &end, &err), &err))
			break;
		for (int i = 0; i < ROWS_ENOUGH && !done && !end; i++)
			if (!fuzz_said(core_listen_next(l, &u, &done, &err), &err))
				break;
	}
	core_listen_close(l);
}

static void staged(struct core_shard *s)
{
	struct core_staged *list;
	struct kv_err err;
	size_t count;

	if (!fuzz_said(core_staged_list(s, &list, &count, &err), &err))
		return;
	for (size_t i = 0; i < count; i++) {
		struct core_staged_view view;
		struct core_stage *stage;

		if (fuzz_said(core_staged_open(s, list[i].id, &view, &err), &err))
			core_staged_close(s, &view);
		if (fuzz_said(core_stage_open(s, list[i].id, &stage, &err), &err))
			core_stage_close(stage);
	}
	if (count != 0)
		(void)fuzz_said(core_staged_remove(s, list[0].name, &err), &err);
	free(list);
}

static void batches(struct core_shard *s)
{
	struct core_state state;
	struct kv_err err;
	uint64_t size;

	if (!fuzz_said(core_shard_state(s, &state, &err), &err))
		return;
	must(core_state_check(&state, &err) == KV_OK);
	(void)fuzz_said(core_state_size(shard_id, &state, &size, &err), &err);
	for (size_t i = 0; i < state.batch_count && i < 16; i++) {
		struct core_scan *scan;
		char buf[4096];
		size_t got;

		(void)fuzz_said(core_scan_size(core_shard_home(s), state.batches[i], &size, &err), &err);
		if (!fuzz_said(core_scan_open(core_shard_home(s), state.batches[i], &scan, &err), &err))
			continue;
		(void)fuzz_said(core_scan_read(scan, 0, buf, sizeof buf, &got, &err), &err);
		core_scan_close(scan);
	}
	core_state_fini(&state);
}

/* A row; with the first staged batch there is, too. */
static void append(struct core_shard *s, bool with_staged)
{
	struct core_staged *list = NULL;
	size_t count = 0;
	struct core_append ask = {.lower_star = true, .upper_plus = true, .plus = 1, .has_token = true};
	const struct core_row row = {.star = true,
				     .update = {.key = {.data = (const uint8_t *)"k", .len = 1},
						.val = {.len = CORE_ABSENT},
						.diff = 1}};
	struct core_appended appended;
	struct core_txn *t;
	struct kv_err err;

	if (!fuzz_said(core_txn_begin(s, &ask, &t, &err), &err))
		return;
	must(core_txn_add(t, &row, &err) == KV_OK);
	if (with_staged && fuzz_said(core_staged_list(s, &list, &count, &err), &err) && count != 0)
		(void)fuzz_said(core_txn_add_staged(t, list[0].name, &err), &err);
	free(list);
	(void)fuzz_said(core_txn_commit(t, &appended, &err), &err);
	core_txn_free(t);
}

static void upkeep(struct core_shard *s, enum core_upkeep_kind kind)
{
	struct core_upkeep_result result;
	struct kv_err err;

	(void)fuzz_said(core_upkeep_run(s, kind, &result, &err), &err);
}

static void holds(struct core_shard *s)
{
	const struct core_hold_ask ask = {.since = core_frontier_at(1)};
	struct core_hold *list;
	struct core_reading *readers;
	struct core_writer_state *writers;
	struct kv_err err;
	size_t count;

	if (fuzz_said(core_hold_list(s, &list, &count, &err), &err)) {
		if (count != 0)
			(void)fuzz_said(core_hold_drop(s, list[count - 1].name, &err), &err);
		free(list);
	}
	(void)fuzz_said(core_hold_set(s, "mine", &ask, NULL, &err), &err);
	(void)fuzz_said(core_shard_move_hold(s, CORE_DEFAULT_HOLD, ask.since, 0, &err), &err);
	if (fuzz_said(core_shard_readers(s, &readers, &count, &err), &err))
		free(readers);
	if (fuzz_said(core_shard_writers(s, &writers, &count, &err), &err))
		free(writers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum core_upkeep_kind kinds[] = {CORE_COMPACT, CORE_ROLLUP, CORE_GC};
	const struct core_engine_config config = {.no_upkeep = true, .now_us = fixed_time};
	struct fuzz_in in = {.p = data, .left = size};
	struct kv_store *store = kv_store_mem_new();
	struct core_engine *e;
	struct core_shard *s;
	struct kv_err err;
	enum kv_rc rc;

	must(store != NULL);
	fill(store, &in);
	must(core_engine_open(store, &config, &e, &err) == KV_OK);
	names(e);
	rc = core_shard_open(e, shard_id, &s, &err);
	must(rc == KV_OK || rc == KV_CORRUPT || rc == KV_NEWER || rc == KV_NO_SHARD);
	if (fuzz_said(rc, &err)) {
		batches(s);
		snapshot(s, (struct core_as_of){.latest = true});
		snapshot(s, (struct core_as_of){.time = 1});
		listen(s);
		append(s, true);
		staged(s);
		append(s, false);
		holds(s);
		for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
			upkeep(s, kinds[i]);
		batches(s);
		snapshot(s, (struct core_as_of){.latest = true});
		(void)fuzz_said(core_shard_remove(s, &err), &err);
		core_shard_close(s);
	}
	core_engine_close(e);
	return 0;
}
