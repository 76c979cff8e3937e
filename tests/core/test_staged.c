/*
 * test_staged.c - staged batches: their names, what they hold and when it is
 * safe, who reads and who commits them. Stores that fail are in
 * test_staged_faults.c.
 */
#include "tests/core/batches.h"
#include "tests/core/suites.h"

enum { BIG = 300 << 10 }; /* more than a manifest keeps to itself: becomes a blob */

/* Rows "<key> <random>" of len bytes each at time t. */
static void stage_big(struct core_stage *g, const char *key, uint64_t t, size_t len)
{
	struct rng rng = rng_new(t);
	uint8_t *val = malloc(len);
	struct core_row row = {
		.update = {.key = bytes_of(key), .val = {val, (uint32_t)len}, .time = t, .diff = 1}};
	struct kv_err err;

	for (size_t i = 0; i < len; i++)
		val[i] = (uint8_t)rng_next(&rng);
	ck_ok(core_stage_add(g, &row, &err), err);
	free(val);
}

static void sync_stage(struct core_stage *g)
{
	struct kv_err err;

	ck_ok(core_stage_sync(g, &err), err);
}

static enum kv_rc add_one(struct core_stage *g)
{
	struct kv_err err;

	return stage_rows(g, "1 1 late x;", &err);
}

/* --- names ------------------------------------------------------------------------------------------- */

START_TEST(names_are_words_of_the_contract)
{
	static const char *const good[] = {"a", "Z", "_", "a.b-c_9", "_.", "a-"};
	static const char *const bad[] = {"",    ".",   "-",   "9a",       ".a", "-a",
					  "a/b", "a b", "a\n", "\xc3\xa9", "a+"};
	char long_name[130] = "";
	struct rig rig = rig_new(DISK_MEM);
	struct core_staged entry;
	struct kv_err err;

	memset(long_name, 'x', 129);
	ck_assert(!core_staged_name_ok(long_name));
	ck_assert_int_eq(core_staged_create(rig.shard, long_name, &entry, &err), KV_BAD_NAME);
	long_name[128] = '\0';
	ck_assert(core_staged_name_ok(long_name));
	stage_whole(rig.shard, long_name, NULL, "1 1 a x;");
	check_staged(rig.shard, long_name, "1 1 a x;");
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(core_staged_name_ok(good[i]), "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_msg(!core_staged_name_ok(bad[i]), "%s", bad[i]);
		ck_assert_int_eq(core_staged_create(rig.shard, bad[i], &entry, &err), KV_BAD_NAME);
		ck_assert_int_eq(core_staged_rename(rig.shard, long_name, bad[i], false, false, &err),
				 KV_BAD_NAME);
	}
	rig_free(&rig);
}
END_TEST

struct renaming {
	const char *from, *to;
	bool noreplace, exchange;
	enum kv_rc rc;
	const char *a, *b, *c; /* texts after it; NULL: gone */
};

/* "a" and "b" are there, "c" is not. */
static const struct renaming renamings[] = {
	{"a", "c", false, false, KV_OK, NULL, "2 1 b x;", "1 1 a x;"},
	{"a", "c", true, false, KV_OK, NULL, "2 1 b x;", "1 1 a x;"},
	{"a", "b", false, false, KV_OK, NULL, "1 1 a x;", NULL},
	{"a", "b", true, false, KV_EXISTS, "1 1 a x;", "2 1 b x;", NULL},
	{"a", "b", false, true, KV_OK, "2 1 b x;", "1 1 a x;", NULL},
	{"a", "c", false, true, KV_NO_BATCH, "1 1 a x;", "2 1 b x;", NULL},
	{"c", "a", false, false, KV_NO_BATCH, "1 1 a x;", "2 1 b x;", NULL},
	{"c", "c", false, false, KV_NO_BATCH, "1 1 a x;", "2 1 b x;", NULL},
	{"a", "a", false, false, KV_OK, "1 1 a x;", "2 1 b x;", NULL},
	{"a", "a", false, true, KV_OK, "1 1 a x;", "2 1 b x;", NULL},
};

static void check_or_gone(struct core_shard *s, const char *name, const char *want)
{
	check_staged(s, name, want != NULL ? want : "UnknownBatch");
}

/* At rest, and while a writer has "a" open and a reader "b". */
START_TEST(a_batch_has_another_name_and_is_the_same)
{
	const struct renaming *r = &renamings[_i / 2];
	struct rig rig = rig_new(_i % 4 < 2 ? DISK_SOLE : DISK_SHARED);
	struct core_staged_view view = {0};
	struct core_stage *g = NULL;
	struct core_uuid a, b;
	struct kv_err err;
	char *got;

	stage_whole(rig.shard, "a", NULL, _i % 2 == 0 ? "1 1 a x;" : "");
	stage_whole(rig.shard, "b", NULL, "2 1 b x;");
	a = staged_entry(rig.shard, "a").id;
	b = staged_entry(rig.shard, "b").id;
	if (_i % 2 != 0) {
		g = stage_at(rig.shard, "a");
		stage_put(g, "1 1 a x;"); /* not stored yet */
		ck_ok(core_staged_open(rig.shard, b, &view, &err), err);
	}
	ck_assert_int_eq(core_staged_rename(rig.shard, r->from, r->to, r->noreplace, r->exchange, &err),
			 r->rc);
	check_or_gone(rig.shard, "a", r->a);
	check_or_gone(rig.shard, "b", r->b);
	check_or_gone(rig.shard, "c", r->c);
	const char *now = r->c != NULL ? "c" : r->b[0] == '1' ? "b" : "a";
	ck_assert(core_uuid_eq(staged_entry(rig.shard, now).id, a));
	if (g != NULL) {
		got = view_text(rig.shard, &view);
		ck_assert_str_eq(got, "2 1 b x;");
		free(got);
		stage_put(g, "1 1 more x;");
		core_stage_close(g);
		check_staged(rig.shard, now, "1 1 a x;1 1 more x;");
	}
	core_staged_close(rig.shard, &view);
	check_blobs(rig.disk, rig.shard, true);
	rig_crash_and_reopen(&rig);
	ck_assert(core_uuid_eq(staged_entry(rig.shard, now).id, a));
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

START_TEST(a_removed_batch_is_gone_and_its_writer_goes_on_in_vain)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a"), *again;
	struct core_staged entry;
	struct kv_err err;

	ck_assert_int_eq(core_staged_create(rig.shard, "a", &entry, &err), KV_EXISTS);
	ck_assert_int_eq(core_staged_remove(rig.shard, "b", &err), KV_NO_BATCH);
	stage_big(g, "k", 1, BIG);
	sync_stage(g);
	stage_put(g, "1 1 a x;");
	ck_ok(core_staged_remove(rig.shard, "a", &err), err);
	ck_assert_int_eq(core_staged_remove(rig.shard, "a", &err), KV_NO_BATCH);
	stage_big(g, "l", 2, BIG);
	sync_stage(g);
	stage_put(g, "1 1 b x;");
	again = stage_new(rig.shard, "a");
	stage_put(again, "2 1 new x;");
	core_stage_close(g);
	core_stage_close(again);
	check_staged(rig.shard, "a", "2 1 new x;");
	ck_ok(core_staged_remove(rig.shard, "a", &err), err);
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

/* --- writing ----------------------------------------------------------------------------------------- */

START_TEST(what_was_synced_survives_and_what_was_not_may_go)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a"), *never = stage_new(rig.shard, "never");
	struct core_stage *closed = stage_new(rig.shard, "closed");
	struct kv_err err;

	stage_put(closed, "3 1 c x;");
	core_stage_close(closed);
	ck_ok(core_stage_bounds(g, core_frontier_at(0), core_frontier_empty(), &err), err);
	stage_put(g, "1 1 a x;2 1 b y;");
	ck_ok(core_stage_keep(g, "7\t1", 3, &err), err);
	sync_stage(g);
	stage_put(g, "3 1 c x;");
	ck_ok(core_stage_keep(g, "8\t1\tx", 5, &err), err);
	stage_put(never, "1 1 a x;");
	kv_faults_arm(rig.disk->faults, 1, KV_FAULT_BEFORE, true); /* what a crash does */
	core_stage_close(g);
	core_stage_close(never);
	rig_crash_and_reopen(&rig);
	check_staged(rig.shard, "a", "bounds 0 -;1 1 a x;2 1 b y;7 1");
	check_staged(rig.shard, "closed", "3 1 c x;");
	check_staged(rig.shard, "never", "");
	g = stage_at(rig.shard, "a");
	size_t len;
	ck_assert(memcmp(core_stage_kept(g, &len), "7\t1", 3) == 0 && len == 3);
	ck_assert_int_eq(core_stage_bounds(g, core_frontier_at(0), core_frontier_at(1), &err), KV_BAD_SYNTAX);
	stage_put(g, "7 1 d x;");
	ck_ok(core_stage_keep(g, NULL, 0, &err), err);
	core_stage_close(g);
	check_staged(rig.shard, "a", "bounds 0 -;1 1 a x;2 1 b y;7 1 d x;");
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

START_TEST(one_writes_at_a_time_and_stars_and_rows_outside_are_refused)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a"), *other;
	struct kv_err err;

	ck_assert_int_eq(core_stage_open(rig.shard, staged_entry(rig.shard, "a").id, &other, &err),
			 KV_BATCH_BUSY);
	ck_assert_ptr_null(other);
	ck_assert_int_eq(core_stage_open(rig.shard, core_uuid_new(), &other, &err), KV_NO_BATCH);
	ck_assert_int_eq(core_stage_bounds(g, core_frontier_at(5), core_frontier_at(4), &err), KV_BAD_BOUNDS);
	ck_ok(core_stage_bounds(g, core_frontier_at(3), core_frontier_at(5), &err), err);
	ck_assert_int_eq(stage_rows(g, "2 1 a x;", &err), KV_NOT_BEYOND_LOWER);
	ck_assert_int_eq(stage_rows(g, "5 1 a x;", &err), KV_BEYOND_UPPER);
	ck_assert_int_eq(stage_rows(g, "* 1 a x;", &err), KV_BAD_SYNTAX);
	stage_put(g, "3 1 a x;4 1 a x;");
	ck_assert_uint_eq(staged_entry(rig.shard, "a").rows, 2);
	ck_assert_uint_eq(core_stage_size(g), strlen("bounds 3 5;3 1 a x;4 1 a x;"));
	ck_ok(core_stage_clear(g, &err), err);
	ck_assert_uint_eq(core_stage_size(g), 0);
	stage_put(g, "99 1 a x;");
	ck_assert_int_eq(core_stage_bounds(g, core_frontier_at(3), core_frontier_at(5), &err), KV_BAD_SYNTAX);
	core_stage_close(g);
	check_staged(rig.shard, "a", "99 1 a x;");
	core_stage_close(stage_at(rig.shard, "a"));
	rig_free(&rig);
}
END_TEST

/* One of many things; what the batch holds then is in the model. */
static void random_step(struct rng *rng, struct core_shard *s, struct core_stage **g, struct model *m)
{
	uint8_t buf[512];
	struct kv_err err;

	switch (rng_below(rng, 12)) {
	case 0:
		sync_stage(*g);
		break;
	case 1:
		core_stage_close(*g);
		*g = stage_at(s, "a");
		break;
	case 2:
		if (rng_below(rng, 4) != 0)
			break;
		ck_ok(core_stage_clear(*g, &err), err);
		model_free(m);
		break;
	case 3:
		ck_ok(core_stage_keep(*g, "123456789", rng_below(rng, 9), &err), err);
		break;
	default:
		for (uint64_t n = rng_below(rng, 60); n > 0; n--) {
			struct core_update u = random_update(rng, rng_below(rng, 3) == 0, buf);

			ck_ok(core_stage_add(*g, &(struct core_row){.update = u}, &err), err);
			model_add(m, &u, false);
		}
	}
}

START_TEST(the_size_is_that_of_the_text_whatever_is_written)
{
	struct rig rig = rig_new(_i % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct rng rng = rng_new((uint64_t)_i + 77);
	struct model want = {0}, got = {0};
	struct core_staged_view view;
	struct kv_err err;

	for (unsigned step = 0; step < 150; step++) {
		random_step(&rng, rig.shard, &g, &want);
		uint64_t size = core_stage_size(g);
		ck_assert_uint_eq(staged_entry(rig.shard, "a").size, size);
		if (rng_below(&rng, 3) != 0)
			continue;
		ck_ok(core_staged_open(rig.shard, staged_entry(rig.shard, "a").id, &view, &err), err);
		free(view_text(rig.shard, &view)); /* checks the entry's */
		ck_assert_uint_eq(view.entry.size, size);
		core_staged_close(rig.shard, &view);
	}
	ck_ok(core_staged_open(rig.shard, staged_entry(rig.shard, "a").id, &view, &err), err);
	batch_rows(&rig.shard->home, view.batch, &got);
	core_staged_close(rig.shard, &view);
	core_stage_close(g);
	model_settle(&want);
	model_settle(&got);
	model_same(&got, &want);
	model_free(&want);
	model_free(&got);
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

START_TEST(a_sync_after_each_row_leaves_few_parts_and_no_old_manifests)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct core_staged_view view;
	struct kv_err err;
	char row[400];

	for (unsigned i = 0; i < 2000; i++) {
		int len = snprintf(row, sizeof(row), "%u 1 k%u ", i, i);

		for (unsigned j = 0; j < 150; j++)
			row[len++] = (char)('a' + (i * 31 + j * j * (i + 7)) % 26);
		strcpy(row + len, ";");
		stage_put(g, row);
		sync_stage(g);
	}
	check_blobs(rig.disk, rig.shard, true);
	core_stage_close(g);
	ck_ok(core_staged_open(rig.shard, staged_entry(rig.shard, "a").id, &view, &err), err);
	ck_assert_uint_eq(view.batch->rows, 2000);
	ck_assert_uint_le(view.batch->part_count, 10);
	core_staged_close(rig.shard, &view);
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=2000", "a", ""),
			 "ok 0 2000 updates=2000");
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

/* --- reading ----------------------------------------------------------------------------------------- */

enum end { REMOVE, REPLACE, COMMIT, NO_OP, CLEAR, ENDS };

static void end_it(struct core_shard *s, enum end how, struct core_stage *g)
{
	struct kv_err err;

	switch (how) {
	case REMOVE:
		ck_ok(core_staged_remove(s, "a", &err), err);
		break;
	case REPLACE:
		stage_whole(s, "b", NULL, "1 1 a x;");
		ck_ok(core_staged_rename(s, "b", "a", false, false, &err), err);
		break;
	case COMMIT:
		ck_assert_str_eq(verdict_staged(s, "expected_upper=0 new_upper=9", "a", ""),
				 "ok 0 9 updates=2");
		break;
	case NO_OP:
		verdict(s, "expected_upper=0 new_upper=9", "");
		ck_assert_str_eq(verdict_staged(s, "lower=0 upper=9", "a", ""), "same 9 9 updates=0");
		break;
	case CLEAR:
	case ENDS:
		ck_ok(core_stage_clear(g, &err), err);
		stage_put(g, "5 1 new x;");
		sync_stage(g);
	}
}

START_TEST(a_reader_reads_to_its_end_and_then_all_of_it_goes)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct core_staged_view first, second;
	struct core_uuid id = staged_entry(rig.shard, "a").id;
	struct kv_err err;
	char *before, *after;

	stage_big(g, "k", 1, BIG);
	stage_put(g, "2 1 small x;");
	ck_ok(core_staged_open(rig.shard, id, &first, &err), err);
	ck_ok(core_staged_open(rig.shard, id, &second, &err), err);
	before = view_text(rig.shard, &first);
	end_it(rig.shard, (enum end)_i, g);
	core_staged_close(rig.shard, &first);
	after = view_text(rig.shard, &second);
	ck_assert_str_eq(before, after);
	core_staged_close(rig.shard, &second);
	core_stage_close(g);
	free(before);
	free(after);
	check_blobs(rig.disk, rig.shard, true);
	if (_i == CLEAR)
		check_staged(rig.shard, "a", "5 1 new x;");
	rig_free(&rig);
}
END_TEST

/* --- committing -------------------------------------------------------------------------------------- */

START_TEST(several_names_and_rows_are_one_commit_and_the_names_vanish)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_stage *g;

	stage_whole(rig.shard, "a", NULL, "1 1 a x;2 1 b x;");
	stage_whole(rig.shard, "bound", "0 9", "2 1 b x;7 1 cut x;");
	stage_whole(rig.shard, "empty", NULL, "");
	stage_whole(rig.shard, "other", NULL, "1 1 o x;");
	g = stage_new(rig.shard, "big");
	stage_big(g, "k", 1, BIG);
	core_stage_close(g);
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=4 new_upper=5 token=1", "bound", ""),
			 "UpperMismatch expected_upper=4 current_upper=0");
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=3", "a nobody bound", ""),
			 "UnknownBatch batch=nobody");
	ck_assert_uint_eq(staged_count(rig.shard), 5);
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=3 token=1", "a bound empty",
					"0 1 r x;"),
			 "ok 0 3 updates=5");
	ck_assert_uint_eq(staged_count(rig.shard), 2);
	check_content(rig.shard, 2, "a x 1;b x 2;r x 1;");
	check_blobs(rig.disk, rig.shard, true);
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=3 token=1", "a bound empty",
					"0 1 r x;"),
			 "same 0 3 updates=5");
	ck_assert_int_eq(strncmp(verdict_staged(rig.shard, "expected_upper=3 new_upper=4", "a", ""),
				 "UnknownBatch", 12),
			 0);
	ck_assert_str_eq(verdict_staged(rig.shard, "lower=0 upper=3", "other big", ""), "same 3 3 updates=0");
	ck_assert_uint_eq(staged_count(rig.shard), 0);
	check_blobs(rig.disk, rig.shard, true);
	rig_crash_and_reopen(&rig);
	check_content(rig.shard, 2, "a x 1;b x 2;r x 1;");
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

START_TEST(a_commit_takes_what_was_written_and_then_the_writer_is_told)
{
	bool fails = _i == 1;
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct kv_err err;

	stage_put(g, "1 1 a x;");
	sync_stage(g);
	stage_put(g, "2 1 b x;");
	ck_assert_str_eq(
		verdict_staged(rig.shard,
			       fails ? "expected_upper=1 new_upper=5" : "expected_upper=0 new_upper=5", "a",
			       ""),
		fails ? "UpperMismatch expected_upper=1 current_upper=0" : "ok 0 5 updates=2");
	ck_assert_int_eq(add_one(g), KV_BATCH_TAKEN);
	ck_assert_int_eq(core_stage_keep(g, "x", 1, &err), KV_BATCH_TAKEN);
	ck_assert_int_eq(core_stage_clear(g, &err), KV_BATCH_TAKEN);
	ck_assert_int_eq(core_stage_bounds(g, core_frontier_at(0), core_frontier_at(9), &err),
			 KV_BATCH_TAKEN);
	core_stage_close(g);
	if (fails) {
		check_staged(rig.shard, "a", "1 1 a x;2 1 b x;");
		ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=5", "a", ""),
				 "ok 0 5 updates=2");
	}
	check_content(rig.shard, 4, "a x 1;b x 1;");
	ck_assert(!staged_there(rig.shard, "a"));
	check_blobs(rig.disk, rig.shard, true);
	g = stage_new(rig.shard, "a"); /* the name is free */
	stage_put(g, "5 1 c x;");
	core_stage_close(g);
	rig_free(&rig);
}
END_TEST

/* What has the name now is for another append. */
START_TEST(a_token_seen_before_touches_no_batch_and_no_writer)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g;
	struct kv_err err;

	stage_whole(rig.shard, "a", NULL, "1 1 a x;");
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=5 token=1", "a", ""),
			 "ok 0 5 updates=1");
	g = stage_new(rig.shard, "a");
	stage_put(g, "6 1 b x;");
	ck_ok(core_stage_keep(g, "7\t", 2, &err), err);
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=5 token=1", "a", ""),
			 "same 0 5 updates=1");
	stage_put(g, "7 1 c x;");
	ck_ok(core_stage_keep(g, NULL, 0, &err), err);
	core_stage_close(g);
	check_staged(rig.shard, "a", "6 1 b x;7 1 c x;");
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

START_TEST(a_row_without_its_end_cannot_be_committed)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct kv_err err;

	stage_put(g, "1 1 a x;");
	ck_ok(core_stage_keep(g, "2\t1", 3, &err), err);
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=5", "a", ""),
			 "BadSyntax batch=a");
	core_stage_close(g);
	check_staged(rig.shard, "a", "1 1 a x;2 1");
	g = stage_at(rig.shard, "a");
	ck_ok(core_stage_keep(g, NULL, 0, &err), err);
	stage_put(g, "2 1 b x;");
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=5", "a", ""),
			 "ok 0 5 updates=2");
	core_stage_close(g);
	rig_free(&rig);
}
END_TEST

/* --- two engines ------------------------------------------------------------------------------------- */

START_TEST(another_engine_sees_what_was_staged_last)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig);
	struct core_stage *g = stage_new(rig.shard, "a"), *theirs;
	struct kv_err err;

	ck_assert_uint_eq(staged_count(other.shard), 1);
	ck_assert(staged_there(other.shard, "a"));
	stage_put(g, "1 1 a x;");
	sync_stage(g);
	ck_assert_uint_eq(upper_of(other.shard), 0);
	check_staged(other.shard, "a", "1 1 a x;");
	stage_put(g, "2 1 b x;");
	sync_stage(g); /* the manifest the other one knows is gone */
	check_staged(other.shard, "a", "1 1 a x;2 1 b x;");
	stage_put(g, "3 1 c x;");
	sync_stage(g);
	theirs = stage_at(other.shard, "a"); /* by what it knows, which is old again */
	stage_put(theirs, "4 1 d x;");
	sync_stage(theirs);
	stage_put(g, "5 1 lost x;");
	ck_assert_int_eq(core_stage_sync(g, &err), KV_BATCH_TAKEN);
	ck_assert_int_eq(add_one(g), KV_BATCH_TAKEN);
	core_stage_close(g);
	core_stage_close(theirs);
	check_staged(rig.shard, "a", "1 1 a x;2 1 b x;3 1 c x;4 1 d x;");
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=9", "a", ""),
			 "ok 0 9 updates=4");
	ck_assert(!staged_there(rig.shard, "a"));
	check_staged(other.shard, "a", "UnknownBatch");
	check_blobs(rig.disk, rig.shard, true);
	second_close(&other);
	rig_free(&rig);
}
END_TEST

Suite *staged_suite(void)
{
	Suite *s = suite_create("staged");
	TCase *t = tcase_create("staged");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, names_are_words_of_the_contract);
	tcase_add_loop_test(t, a_batch_has_another_name_and_is_the_same, 0,
			    2 * sizeof(renamings) / sizeof(renamings[0]));
	tcase_add_test(t, a_removed_batch_is_gone_and_its_writer_goes_on_in_vain);
	tcase_add_test(t, what_was_synced_survives_and_what_was_not_may_go);
	tcase_add_test(t, one_writes_at_a_time_and_stars_and_rows_outside_are_refused);
	tcase_add_loop_test(t, the_size_is_that_of_the_text_whatever_is_written, 0, 6);
	tcase_add_test(t, a_sync_after_each_row_leaves_few_parts_and_no_old_manifests);
	tcase_add_loop_test(t, a_reader_reads_to_its_end_and_then_all_of_it_goes, 0, ENDS);
	tcase_add_loop_test(t, several_names_and_rows_are_one_commit_and_the_names_vanish, 0, 2);
	tcase_add_loop_test(t, a_commit_takes_what_was_written_and_then_the_writer_is_told, 0, 2);
	tcase_add_test(t, a_token_seen_before_touches_no_batch_and_no_writer);
	tcase_add_test(t, a_row_without_its_end_cannot_be_committed);
	tcase_add_test(t, another_engine_sees_what_was_staged_last);
	suite_add_tcase(s, t);
	return s;
}
