/*
 * nth_writes.c - see nth.h: appends, batches built ahead and staged ones.
 */
#include "core/scan.h"
#include "tests/core/nth.h"

/* --- appends ------------------------------------------------------------------------------------------ */

static enum kv_rc append_words(struct nth_world *w, const char *options, const char *rows, struct kv_err *err)
{
	struct core_appended r;
	enum kv_rc rc = append(w->rig.shard, options, rows, &r, err);

	if (rc == KV_OK)
		fprintf(w->heard, "%llu rows", (unsigned long long)r.updates);
	return rc;
}

enum kv_rc nth_append_inline(struct nth_world *w, struct kv_err *err)
{
	return append_words(w, "expected_upper=6 new_upper=8 token=77", "6 1 n 1;7 1 n 2;6 -1 n 3;", err);
}

static enum kv_rc append_idempotent(struct nth_world *w, struct kv_err *err)
{
	return append_words(w, "lower=3 upper=9", "3 1 k3 v;4 1 k4 v;8 1 new x;", err);
}

static enum kv_rc append_since(struct nth_world *w, struct kv_err *err)
{
	return append_words(w, "expected_upper=* new_upper=+1 since=2 token=78", "* 1 b x;", err);
}

static enum kv_rc append_large(struct nth_world *w, size_t len, struct kv_err *err)
{
	char *row = large_row("6", "large", len);
	enum kv_rc rc = append_words(w, "expected_upper=6 new_upper=7 token=79", row, err);

	free(row);
	return rc;
}

/* A blob that goes with the version; and one too large for that. */
static enum kv_rc append_loose(struct nth_world *w, struct kv_err *err)
{
	return append_large(w, 20000, err);
}

static enum kv_rc append_hollow(struct nth_world *w, struct kv_err *err)
{
	return append_large(w, 400000, err);
}

/* The last of so many that the batches at the end are folded. */
static void crowd(struct nth_world *w)
{
	for (uint64_t i = 6; i < 72; i++) {
		char options[80], row[80];

		sprintf(options, "expected_upper=%u new_upper=%u", (unsigned)i, (unsigned)i + 1);
		sprintf(row, "%u 1 c%u v;", (unsigned)i, (unsigned)i);
		ck_assert_int_eq(strncmp(verdict(w->rig.shard, options, row), "ok", 2), 0);
	}
}

static enum kv_rc append_folding(struct nth_world *w, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	for (unsigned i = 72; i < 76 && rc == KV_OK; i++) {
		char options[80], row[80];

		sprintf(options, "expected_upper=%u new_upper=%u token=%u", i, i + 1, i);
		sprintf(row, "%u 1 c%u v;", i, i);
		rc = append_words(w, options, row, err);
	}
	return rc;
}

/* Rows that come in pieces, shipped as several parts while they do. */
static enum kv_rc stream(struct nth_world *w, bool commits, struct kv_err *err)
{
	struct core_append ask = parse_ask("expected_upper=6 new_upper=9 token=80");
	_Atomic(unsigned) *large = &w->rig.engine->builders.large;
	struct model m = {0};
	struct core_appended r;
	struct core_txn *t;
	enum kv_rc rc;

	for (int i = 0; i < 3; i++) {
		char *row = large_row(i == 1 ? "6" : "8", i == 2 ? "s2" : "s0", 270000u + (unsigned)i);

		parse_rows(row, &m);
		free(row);
	}
	atomic_fetch_add(large, 1000); /* as if many shared the memory: parts are small */
	rc = core_txn_begin(w->rig.shard, &ask, &t, err);
	for (size_t i = 0; i < m.count && rc == KV_OK; i++)
		rc = core_txn_add(t, &(struct core_row){.update = m.u[i]}, err);
	if (rc == KV_OK && commits)
		rc = core_txn_commit(t, &r, err);
	core_txn_free(t);
	atomic_fetch_sub(large, 1000);
	model_free(&m);
	return rc;
}

static enum kv_rc append_streamed(struct nth_world *w, struct kv_err *err)
{
	return stream(w, true, err);
}

static enum kv_rc abandon(struct nth_world *w, struct kv_err *err)
{
	return stream(w, false, err);
}

static void tokened(struct nth_world *w)
{
	ck_assert_str_eq(
		verdict(w->rig.shard, "expected_upper=6 new_upper=8 token=77", "6 1 n 1;7 1 n 2;6 -1 n 3;"),
		"ok 6 8 updates=3");
	reopen_well(&w->rig);
}

static enum kv_rc refused(struct nth_world *w, struct kv_err *err)
{
	enum kv_rc rc = append_words(w, "expected_upper=0 new_upper=8", "6 1 n 1;", err);

	fprintf(w->heard, "%s", rc == KV_UPPER_MISMATCH ? err->detail : "");
	return rc == KV_UPPER_MISMATCH ? KV_OK : rc;
}

/* --- batches built ahead ------------------------------------------------------------------------------ */

static struct core_update row_of(uint64_t time, const char *key)
{
	return (struct core_update){.key = bytes_of(key), .val = bytes_of("v"), .time = time, .diff = 1};
}

static enum kv_rc write_built(struct nth_world *w, struct kv_err *err)
{
	struct core_update rows[] = {row_of(6, "x"), row_of(7, "y")};
	struct core_append ask = parse_ask("expected_upper=6 new_upper=9 token=81");
	struct core_writer *writer;
	struct core_built *built = NULL;
	enum kv_rc rc = core_writer_open(w->rig.shard, "nth", &writer, err);

	if (rc == KV_OK)
		rc = core_writer_batch(writer, rows, 2, core_frontier_at(6), core_frontier_at(9), &built,
				       err);
	if (rc == KV_OK)
		rc = core_writer_commit(writer, &ask, &built, 1, NULL, err);
	core_built_free(built);
	core_writer_close(writer);
	return rc;
}

static enum kv_rc transmit(struct nth_world *w, struct kv_err *err)
{
	struct core_update rows[] = {row_of(6, "x"), row_of(7, "y")};
	struct core_append ask = parse_ask("expected_upper=6 new_upper=9 token=82");
	struct core_buf bytes = {0};
	struct core_writer *writer;
	struct core_built *built = NULL, *there = NULL;
	enum kv_rc rc = core_writer_open(w->rig.shard, "nth", &writer, err);

	if (rc == KV_OK)
		rc = core_writer_batch(writer, rows, 2, core_frontier_at(6), core_frontier_at(9), &built,
				       err);
	if (rc == KV_OK)
		rc = core_built_transmit(built, &bytes, err);
	if (rc == KV_OK)
		rc = core_writer_receive(writer, bytes.data, bytes.len, &there, err);
	if (rc == KV_OK)
		rc = core_writer_commit(writer, &ask, &there, 1, NULL, err);
	core_buf_fini(&bytes);
	core_built_free(built);
	core_built_free(there);
	core_writer_close(writer);
	return rc;
}

/* --- staged batches ----------------------------------------------------------------------------------- */

static enum kv_rc stage_make(struct nth_world *w, struct kv_err *err)
{
	struct core_staged made;

	return core_staged_create(w->rig.shard, "new", &made, err);
}

static void stage_prepare(struct nth_world *w)
{
	struct kv_err err;

	ck_ok(stage_make(w, &err), err);
}

static enum kv_rc stage_write(struct nth_world *w, const char *rows, struct kv_err *err)
{
	struct core_staged entry;
	struct core_stage *g = NULL;
	enum kv_rc rc = core_staged_get(w->rig.shard, "new", &entry, err);

	if (rc == KV_OK)
		rc = core_stage_open(w->rig.shard, entry.id, &g, err);
	if (rc == KV_OK)
		rc = core_stage_clear(g, err);
	if (rc == KV_OK)
		rc = core_stage_bounds(g, core_frontier_at(2), core_frontier_at(9), err);
	if (rc == KV_OK)
		rc = stage_rows(g, rows, err);
	if (rc == KV_OK)
		rc = core_stage_keep(g, "7\t1\tha", 6, err);
	if (rc == KV_OK)
		rc = core_stage_sync(g, err);
	core_stage_close(g);
	return rc;
}

static enum kv_rc stage_small(struct nth_world *w, struct kv_err *err)
{
	return stage_write(w, "6 1 s 1;7 1 s 2;", err);
}

static enum kv_rc stage_large(struct nth_world *w, struct kv_err *err)
{
	char *row = large_row("6", "large", 300000);
	enum kv_rc rc = stage_write(w, row, err);

	free(row);
	return rc;
}

static enum kv_rc stage_commit(struct nth_world *w, struct kv_err *err)
{
	struct core_appended r;

	return append_staged(w->rig.shard, "expected_upper=6 new_upper=90 token=83", "there also",
			     "9 1 own v;", &r, err);
}

/* What is written to it and not stored yet is taken too. */
static enum kv_rc stage_commit_open(struct nth_world *w, struct kv_err *err)
{
	struct core_stage *g = NULL;
	struct core_staged entry;
	struct core_appended r;
	enum kv_rc rc = core_staged_get(w->rig.shard, "new", &entry, err);

	if (rc == KV_OK)
		rc = core_stage_open(w->rig.shard, entry.id, &g, err);
	if (rc == KV_OK)
		rc = core_stage_clear(g, err); /* of an attempt before */
	if (rc == KV_OK)
		rc = stage_rows(g, "7 1 fresh v;", err);
	if (rc == KV_OK)
		rc = append_staged(w->rig.shard, "expected_upper=* new_upper=+9", "new", "", &r, err);
	core_stage_close(g);
	return rc;
}

static enum kv_rc stage_remove(struct nth_world *w, struct kv_err *err)
{
	return core_staged_remove(w->rig.shard, "there", err);
}

static enum kv_rc stage_rename(struct nth_world *w, struct kv_err *err)
{
	return core_staged_rename(w->rig.shard, "there", "also", false, false, err);
}

static enum kv_rc stage_read(struct nth_world *w, struct kv_err *err)
{
	struct core_staged_view view = {0};
	struct core_staged entry;
	struct core_scan *scan = NULL;
	char buf[400];
	size_t got = 0;
	enum kv_rc rc = core_staged_get(w->rig.shard, "there", &entry, err);

	if (rc == KV_OK)
		rc = core_staged_open(w->rig.shard, entry.id, &view, err);
	if (rc == KV_OK)
		rc = core_scan_open(core_shard_home(w->rig.shard), view.batch, &scan, err);
	if (rc == KV_OK)
		rc = core_scan_read(scan, 0, buf, sizeof buf, &got, err);
	if (rc == KV_OK)
		fprintf(w->heard, "%.*s", (int)got, buf);
	core_scan_close(scan);
	core_staged_close(w->rig.shard, &view);
	return rc;
}

static enum kv_rc stage_list(struct nth_world *w, struct kv_err *err)
{
	struct core_staged *list = NULL;
	size_t count;
	enum kv_rc rc = core_staged_list(w->rig.shard, &list, &count, err);

	if (rc == KV_OK)
		fprintf(w->heard, "%zu", count);
	free(list);
	return rc;
}

const struct nth_scene nth_writes[] = {
	{"append inline", NULL, nth_append_inline, KV_OK, false},
	{"append anew", nth_forget, nth_append_inline, KV_OK, false},
	{"append idempotently", NULL, append_idempotent, KV_OK, false},
	{"append and move since", NULL, append_since, KV_OK, false},
	{"append a loose blob", NULL, append_loose, KV_OK, false},
	{"append a blob", NULL, append_hollow, KV_OK, false},
	{"append and fold", crowd, append_folding, KV_OK, true},
	{"append in pieces", NULL, append_streamed, KV_OK, false},
	{"abandon pieces", NULL, abandon, KV_OK, false},
	{"append under a known token", tokened, nth_append_inline, KV_OK, false},
	{"be refused", nth_forget, refused, KV_OK, false},
	{"append a batch built ahead", NULL, write_built, KV_OK, false},
	{"transmit a batch", NULL, transmit, KV_OK, true},
	{"make a staged batch", NULL, stage_make, KV_EXISTS, false},
	{"write a staged batch", stage_prepare, stage_small, KV_OK, true},
	{"write a large staged batch", stage_prepare, stage_large, KV_OK, true},
	{"commit staged batches", NULL, stage_commit, KV_OK, false},
	{"commit one that is open", stage_prepare, stage_commit_open, KV_NO_BATCH, true},
	{"remove a staged batch", NULL, stage_remove, KV_NO_BATCH, false},
	{"rename a staged batch", NULL, stage_rename, KV_NO_BATCH, false},
	{"read a staged batch", nth_forget, stage_read, KV_OK, false},
	{"list staged batches", nth_forget, stage_list, KV_OK, false},
};
const size_t nth_write_count = sizeof nth_writes / sizeof nth_writes[0];
