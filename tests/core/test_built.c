/*
 * test_built.c - batches that are built ahead: how they are appended, cut,
 * rewritten and sent elsewhere, and that no blob of theirs is lost or left.
 */
#include "tests/core/batches.h"
#include "tests/core/suites.h"

enum { BIG = 400 << 10 }; /* of random bytes: more than goes with a commit, so a blob when it is built */

/* A batch [lower, upper) of one row "<key> <random>" at time t, whose part is a blob. */
static struct core_built *build_big(struct core_writer *w, const char *key, uint64_t t, uint64_t lower,
				    uint64_t upper)
{
	struct rng rng = rng_new(t);
	uint8_t *val = malloc(BIG);
	struct core_update u = {.key = bytes_of(key), .val = {val, BIG}, .time = t, .diff = 1};
	struct core_built *b;
	struct kv_err err;

	for (size_t i = 0; i < BIG; i++)
		val[i] = (uint8_t)rng_next(&rng);
	ck_ok(core_writer_batch(w, &u, 1, core_frontier_at(lower), core_frontier_at(upper), &b, &err), err);
	free(val);
	return b;
}

static size_t runs_of(struct core_shard *s, size_t batch)
{
	ck_assert_uint_lt(batch, s->state.batch_count);
	return s->state.batches[batch]->run_count;
}

static bool rewrite(struct core_built *b, uint64_t ts, const char *new_upper)
{
	struct core_frontier upper;
	struct kv_err err;
	enum kv_rc rc;

	ck_assert(core_frontier_parse(new_upper, strlen(new_upper), &upper));
	rc = core_built_rewrite_ts(b, ts, upper, &err);
	ck_assert(rc == KV_OK || rc == KV_BAD_REWRITE);
	return rc == KV_OK;
}

struct field {
	struct rig rig;
	struct core_writer *w;
};

static struct field field_new(enum disk_kind kind)
{
	struct field f = {.rig = rig_new(kind)};

	f.w = writer_on(f.rig.shard);
	return f;
}

static void field_free(struct field *f)
{
	core_writer_close(f->w);
	rig_free(&f->rig);
}

/* --- appending --------------------------------------------------------------------------------------- */

START_TEST(several_batches_are_one_with_their_runs_and_their_sums)
{
	struct field f = field_new(DISK_SOLE);
	struct core_built *b[2] = {build(f.w, "0", "5", "1 1 1 one;2 1 2 two;4 1 4 four;"),
				   build(f.w, "0", "4", "1 1 1 one;2 1 2 two;3 1 3 three;")};

	ck_assert_uint_eq(core_built_rows(b[0]), 3);
	ck_assert_uint_eq(core_built_upper(b[1]).t, 4);
	ck_assert_str_eq(commit_built(f.w, "expected_upper=0 new_upper=4", b, 2), "ok 0 4 updates=6");
	core_built_free(b[0]);
	core_built_free(b[1]);
	ck_assert_uint_eq(f.rig.shard->state.batch_count, 1);
	ck_assert_uint_eq(runs_of(f.rig.shard, 0), 2);
	check_content(f.rig.shard, 3, "1 one 2;2 two 2;3 three 1;");
	check_blobs(f.rig.disk, f.rig.shard, true);
	field_free(&f);
}
END_TEST

START_TEST(an_append_may_cut_a_batch_on_either_side)
{
	struct field f = field_new(DISK_MEM);
	struct core_built *b = build(f.w, "0", "10", "0 1 a x;2 1 b x;3 1 c x;5 1 d x;6 1 e x;9 1 f x;");

	ck_assert_str_eq(commit_one(f.w, "expected_upper=3 new_upper=6", b),
			 "UpperMismatch expected_upper=3 current_upper=0");
	verdict(f.rig.shard, "expected_upper=0 new_upper=3", "1 1 z x;");
	ck_assert_str_eq(commit_one(f.w, "expected_upper=3 new_upper=6", b), "ok 3 6 updates=6");
	core_built_free(b);
	check_content(f.rig.shard, 5, "c x 1;d x 1;z x 1;");
	verdict(f.rig.shard, "expected_upper=6 new_upper=-", "");
	check_content(f.rig.shard, 99, "c x 1;d x 1;z x 1;");
	field_free(&f);
}
END_TEST

START_TEST(a_refused_batch_is_appended_again_with_other_frontiers)
{
	struct field f = field_new(DISK_SOLE);
	struct core_built *b = build_big(f.w, "k", 7, 0, 10);
	size_t blobs = disk_blob_count(f.rig.disk);

	verdict(f.rig.shard, "expected_upper=0 new_upper=3", "");
	ck_assert_str_eq(commit_one(f.w, "expected_upper=0 new_upper=10", b),
			 "UpperMismatch expected_upper=0 current_upper=3");
	ck_assert_uint_eq(core_writer_upper(f.w).t, 3);
	ck_assert_str_eq(commit_one(f.w, "expected_upper=0 new_upper=11", b),
			 "InvalidBatchBounds lower=0 upper=11 batch_lower=0 batch_upper=10");
	ck_assert_str_eq(commit_one(f.w, "expected_upper=3 new_upper=10", b), "ok 3 10 updates=1");
	ck_assert_uint_eq(disk_blob_count(f.rig.disk), blobs);
	core_built_free(b);
	check_blobs(f.rig.disk, f.rig.shard, true);
	field_free(&f);
}
END_TEST

START_TEST(append_batch_cuts_tells_a_gap_and_deletes_what_is_there_already)
{
	struct field f = field_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_built *b = build(f.w, "0", "8", "1 1 old x;5 1 new x;"), *big;

	verdict(f.rig.shard, "expected_upper=0 new_upper=3", "1 1 old x;");
	ck_assert_str_eq(commit_one(f.w, "lower=0 upper=8", b), "ok 3 8 updates=2");
	core_built_free(b);
	check_content(f.rig.shard, 7, "new x 1;old x 1;");
	b = build(f.w, "20", "30", "20 1 gap x;");
	ck_assert_str_eq(commit_one(f.w, "lower=20 upper=30", b), "UpperMismatch lower=20 current_upper=8");
	verdict(f.rig.shard, "expected_upper=8 new_upper=25", "");
	ck_assert_str_eq(commit_one(f.w, "lower=20 upper=30", b), "ok 25 30 updates=1");
	core_built_free(b);
	big = build_big(f.w, "k", 7, 0, 10);
	check_blobs(f.rig.disk, f.rig.shard, false);
	ck_assert_str_eq(commit_one(f.w, "lower=0 upper=10", big), "same 30 30 updates=0");
	ck_assert_uint_eq(core_writer_upper(f.w).t, 30);
	core_built_free(big);
	check_blobs(f.rig.disk, f.rig.shard, true);
	field_free(&f);
}
END_TEST

START_TEST(an_unused_batch_takes_its_own_blobs_with_it)
{
	struct field f = field_new(DISK_SOLE);
	struct core_built *used = build_big(f.w, "a", 1, 0, 5), *unused = build_big(f.w, "b", 2, 0, 5);
	struct core_built *small = build(f.w, "0", "5", "1 1 a x;"), *empty = build(f.w, "0", "5", "");
	struct core_batch_builder *half;
	struct kv_err err;

	commit_one(f.w, "expected_upper=0 new_upper=5", used);
	ck_ok(core_writer_builder(f.w, core_frontier_at(0), &half, &err), err);
	core_batch_builder_free(half);
	core_built_free(unused);
	core_built_free(small);
	core_built_free(empty);
	core_built_free(used);
	check_blobs(f.rig.disk, f.rig.shard, true);
	field_free(&f);
}
END_TEST

/* --- rewriting --------------------------------------------------------------------------------------- */

START_TEST(a_rewrite_is_refused_outside_its_bounds_and_never_goes_back)
{
	struct field f = field_new(DISK_MEM);
	struct core_built *b = build(f.w, "3", "8", "3 1 a x;7 1 b x;");

	ck_assert(!rewrite(b, 8, "8")); /* at the new upper */
	ck_assert(!rewrite(b, 9, "8")); /* above it */
	ck_assert(!rewrite(b, 2, "8")); /* below the lower */
	ck_assert(!rewrite(b, 5, "7")); /* the upper goes back */
	ck_assert_uint_eq(core_built_upper(b).t, 8);
	ck_assert(rewrite(b, 3, "8"));
	ck_assert(rewrite(b, 6, "10"));
	ck_assert_uint_eq(core_built_upper(b).t, 10);
	ck_assert(!rewrite(b, 5, "10")); /* the times go back */
	ck_assert(!rewrite(b, 6, "9"));
	ck_assert(rewrite(b, 6, "10"));
	ck_assert(rewrite(b, 9, "12"));
	verdict(f.rig.shard, "expected_upper=0 new_upper=4", "");
	ck_assert_str_eq(commit_one(f.w, "expected_upper=4 new_upper=12", b), "ok 4 12 updates=2");
	core_built_free(b);
	check_content(f.rig.shard, 8, "");
	check_content(f.rig.shard, 9, "a x 1;b x 1;");
	field_free(&f);
}
END_TEST

START_TEST(a_rewritten_batch_is_read_later_and_stored_no_second_time)
{
	struct field f = field_new(DISK_SOLE);
	struct core_built *b = build_big(f.w, "k", 2, 0, 5);
	size_t blobs = disk_blob_count(f.rig.disk);
	char *got;

	verdict(f.rig.shard, "expected_upper=0 new_upper=6", "");
	ck_assert(rewrite(b, 7, "9"));
	kv_faults_arm(f.rig.disk->faults, 2, KV_FAULT_BEFORE, true); /* one call: the version */
	ck_assert_str_eq(commit_one(f.w, "expected_upper=6 new_upper=9", b), "ok 6 9 updates=1");
	disk_heal(f.rig.disk);
	ck_assert_uint_eq(disk_blob_count(f.rig.disk), blobs);
	core_built_free(b);
	check_content(f.rig.shard, 6, "");
	got = content(f.rig.shard, 7);
	ck_assert_int_eq(strncmp(got, "k ", 2), 0);
	free(got);
	check_blobs(f.rig.disk, f.rig.shard, true);
	field_free(&f);
}
END_TEST

START_TEST(the_append_s_rewrite_lifts_batches_beside_rows_and_lowers_nothing)
{
	struct field f = field_new(DISK_MEM);
	struct core_built *b[2] = {build(f.w, "0", "5", "1 1 a x;4 1 b x;"),
				   build(f.w, "0", "5", "2 1 c x;")};

	ck_assert(rewrite(b[1], 4, "5"));
	ck_assert_str_eq(commit_built(f.w, "expected_upper=0 new_upper=5 rewrite_ts=3", b, 2),
			 "ok 0 5 updates=3");
	core_built_free(b[0]);
	core_built_free(b[1]);
	check_content(f.rig.shard, 2, "");
	check_content(f.rig.shard, 3, "a x 1;");
	check_content(f.rig.shard, 4, "a x 1;b x 1;c x 1;");
	field_free(&f);
}
END_TEST

/* Any number of batches with any bounds that cover the append's, lifted or not: what shows is the model. */
START_TEST(random_batches_show_what_the_model_says)
{
	struct field f = field_new(DISK_MEM);
	struct rng rng = rng_new((uint64_t)_i + 1);
	struct model want = {0}, got = {0};
	uint64_t upper = 0;
	uint8_t buf[512];
	struct kv_err err;

	for (unsigned step = 0; step < 40; step++) {
		uint64_t to = upper + 1 + rng_below(&rng, 6), lift = upper + rng_below(&rng, to - upper);
		bool lifts = rng_below(&rng, 3) == 0;
		size_t count = 1 + rng_below(&rng, 3);
		struct core_built *b[3];

		for (size_t i = 0; i < count; i++) {
			uint64_t lower = rng_below(&rng, upper + 1),
				 end = lifts ? to : to + rng_below(&rng, 4);
			struct core_batch_builder *builder;

			ck_ok(core_writer_builder(f.w, core_frontier_at(lower), &builder, &err), err);
			for (uint64_t n = rng_below(&rng, 30); n > 0; n--) {
				struct core_update u = random_update(&rng, false, buf);

				u.time = lower + rng_below(&rng, end - lower);
				ck_ok(core_batch_builder_add(builder, &u, &err), err);
				u.time = lifts && u.time < lift ? lift : u.time;
				if (u.time >= upper && u.time < to) {
					u.time = 0;
					model_add(&want, &u, false);
				}
			}
			ck_ok(core_batch_builder_finish(builder, core_frontier_at(end), &b[i], &err), err);
			core_batch_builder_free(builder);
			ck_assert(!lifts ||
				  core_built_rewrite_ts(b[i], lift, core_frontier_at(to), &err) == KV_OK);
		}
		ck_ok(core_writer_compare_and_append_batch(f.w, b, count, core_frontier_at(upper),
							   core_frontier_at(to), NULL, &err),
		      err);
		for (size_t i = 0; i < count; i++)
			core_built_free(b[i]);
		upper = to;
	}
	struct core_snapshot *n;
	struct core_update u;
	bool end = false;
	ck_ok(core_snapshot_open(f.rig.shard, (struct core_as_of){.latest = true}, &n, &err), err);
	while (!end) {
		ck_ok(core_snapshot_next(n, &u, &end, &err), err);
		u.time = 0;
		if (!end)
			model_add(&got, &u, false);
	}
	core_snapshot_close(n);
	model_settle(&want);
	model_same(&got, &want);
	model_free(&got);
	model_free(&want);
	field_free(&f);
}
END_TEST

/* --- the inline limit -------------------------------------------------------------------------------- */

static uint64_t inline_bytes(struct core_shard *s)
{
	return core_state_totals(&s->state).inline_bytes;
}

START_TEST(hundreds_of_small_batches_in_one_call_stay_within_the_inline_limit)
{
	enum { COUNT = 300 };
	struct field f = field_new(DISK_SOLE);
	struct core_built *b[COUNT];
	char row[4000], *got;

	for (unsigned round = 0; round < 3; round++) {
		char options[60];

		for (unsigned i = 0; i < COUNT; i++) {
			int len = snprintf(row, sizeof(row), "%u 1 k%u-%03u ", round, round, i);

			if (round != 0) /* else they are small together too */
				memset(row + len, 'a' + (int)i % 26, 700), strcpy(row + len + 700, ";");
			else
				strcpy(row + len, "x;");
			b[i] = build(f.w, "0", "9", row);
		}
		snprintf(options, sizeof(options), "expected_upper=%u new_upper=%u", round, round + 1);
		ck_assert_int_eq(strncmp(commit_built(f.w, options, b, COUNT), "ok", 2), 0);
		for (unsigned i = 0; i < COUNT; i++)
			core_built_free(b[i]);
		ck_assert_uint_le(inline_bytes(f.rig.shard), CORE_INLINE_TOTAL);
		check_blobs(f.rig.disk, f.rig.shard, true);
	}
	got = content(f.rig.shard, 2);
	unsigned rows = 0;
	for (const char *p = got; *p != '\0'; p++)
		rows += *p == ';';
	ck_assert_uint_eq(rows, 3 * COUNT);
	free(got);
	field_free(&f);
}
END_TEST

START_TEST(appends_at_the_limit_keep_the_state_small_and_are_all_there)
{
	static const size_t lens[] = {3700, 4200, 10, 2000};
	struct field f = field_new(DISK_SOLE);

	for (uint64_t i = 0; i < 250; i++) {
		append_many(f.rig.shard, i, i + 1, lens[i / 60 % 4]);
		ck_assert_uint_le(inline_bytes(f.rig.shard), CORE_INLINE_TOTAL);
	}
	check_appends(f.rig.shard, 250);
	check_blobs(f.rig.disk, f.rig.shard, false);
	field_free(&f);
}
END_TEST

/* --- outcomes ---------------------------------------------------------------------------------------- */

/* The store fails for good in the middle, having done it or not; then the same is asked again. */
static struct core_built *doubtful(struct field *f, const char *options, bool done)
{
	struct core_built *b = build_big(f->w, "k", 2, 0, 10);

	kv_faults_arm(f->rig.disk->faults, 1, done ? KV_FAULT_DONE_UNKNOWN : KV_FAULT_LOST_UNKNOWN, true);
	ck_assert_str_eq(commit_one(f->w, options, b), "OutcomeUnknown");
	disk_heal(f->rig.disk);
	return b;
}

START_TEST(the_same_token_and_batch_tell_what_was_done_and_delete_nothing)
{
	static const char options[] = "expected_upper=0 new_upper=5 token=7";
	bool done = _i % 2 == 0;
	struct field f = field_new(_i < 2 ? DISK_SOLE : DISK_SHARED);
	struct core_built *b = doubtful(&f, options, done);

	ck_assert_str_eq(commit_one(f.w, options, b), done ? "same 0 5 updates=1" : "ok 0 5 updates=1");
	core_built_free(b);
	check_blobs(f.rig.disk, f.rig.shard, true);
	core_writer_close(f.w);
	rig_crash_and_reopen(&f.rig);
	f.w = writer_on(f.rig.shard);
	check_blobs(f.rig.disk, f.rig.shard, true);
	b = build(f.w, "0", "5", "2 1 k other;");
	ck_assert_str_eq(commit_one(f.w, options, b), "same 0 5 updates=1");
	core_built_free(b);
	check_blobs(f.rig.disk, f.rig.shard, true);
	field_free(&f);
}
END_TEST

START_TEST(after_an_unknown_outcome_no_part_is_named_twice)
{
	static const struct {
		const char *first, *then, *want[2]; /* not done, done */
	} cases[] = {
		{"expected_upper=0 new_upper=5",
		 "expected_upper=5 new_upper=10",
		 {"OutcomeUnknown", "OutcomeUnknown"}},
		{"expected_upper=0 new_upper=5",
		 "expected_upper=* new_upper=10",
		 {"OutcomeUnknown", "OutcomeUnknown"}},
		{"expected_upper=0 new_upper=5",
		 "expected_upper=0 new_upper=5",
		 {"ok 0 5 updates=1", "UpperMismatch expected_upper=0 current_upper=5"}},
		{"lower=0 upper=5", "lower=0 upper=5", {"ok 0 5 updates=1", "same 5 5 updates=0"}},
		{"expected_upper=* new_upper=+5",
		 "expected_upper=* new_upper=+5",
		 {"OutcomeUnknown", "OutcomeUnknown"}},
		{"expected_upper=* new_upper=+5 token=1",
		 "expected_upper=* new_upper=+5 token=1",
		 {"ok 0 5 updates=1", "same 0 5 updates=1"}},
		{"expected_upper=0 new_upper=5 token=1",
		 "expected_upper=0 new_upper=5 token=2",
		 {"OutcomeUnknown", "OutcomeUnknown"}},
		{"expected_upper=0 new_upper=5 token=1",
		 "expected_upper=5 new_upper=10",
		 {"OutcomeUnknown", "OutcomeUnknown"}},
	};
	bool done = _i % 2 != 0;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct field f = field_new(_i < 2 ? DISK_SOLE : DISK_SHARED);
		struct core_built *b = doubtful(&f, cases[i].first, done);
		struct core_buf bytes;
		struct kv_err err;

		ck_assert_int_eq(core_built_transmit(b, &bytes, &err), KV_UNKNOWN);
		ck_assert_str_eq(commit_one(f.w, cases[i].then, b), cases[i].want[done]);
		core_built_free(b);
		check_sound(f.rig.shard);
		check_blobs(f.rig.disk, f.rig.shard, false);
		field_free(&f);
	}
}
END_TEST

START_TEST(a_mismatch_under_the_same_token_ends_the_doubt)
{
	struct field f = field_new(DISK_SOLE);
	struct core_built *b = doubtful(&f, "expected_upper=0 new_upper=5 token=1", false);

	verdict(f.rig.shard, "expected_upper=0 new_upper=2", "");
	ck_assert_str_eq(commit_one(f.w, "expected_upper=0 new_upper=5 token=1", b),
			 "UpperMismatch expected_upper=0 current_upper=2");
	ck_assert_str_eq(commit_one(f.w, "expected_upper=2 new_upper=5 token=1", b), "ok 2 5 updates=1");
	core_built_free(b);
	field_free(&f);
}
END_TEST

static bool fail_commit(enum kv_fault kind, unsigned nth)
{
	static const char options[] = "expected_upper=0 new_upper=5 token=1";
	struct field f = field_new(nth % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	char row[6000] = "1 1 loose ";
	struct core_built *b[3];
	const char *got;
	bool fired;

	for (size_t i = 0; i < 5000; i++)
		row[10 + i] = (char)('a' + (i * i + 7 * i * nth) % 26);
	strcpy(row + 5010, ";");
	b[0] = build(f.w, "0", "5", "1 1 a x;");
	b[1] = build(f.w, "0", "9", row);
	b[2] = build_big(f.w, "big", 3, 0, 5);
	disk_fail(f.rig.disk, nth, kind);
	got = commit_built(f.w, options, b, 3);
	fired = kv_faults_fired(f.rig.disk->faults);
	disk_heal(f.rig.disk);
	if (strncmp(got, "ok", 2) != 0) {
		ck_assert(fired);
		check_blobs(f.rig.disk, f.rig.shard, false);
		got = commit_built(f.w, options, b, 3);
	}
	ck_assert_msg(strcmp(got, "ok 0 5 updates=3") == 0 || strcmp(got, "same 0 5 updates=3") == 0, "%s",
		      got);
	for (size_t i = 0; i < 3; i++)
		core_built_free(b[i]);
	check_blobs(f.rig.disk, f.rig.shard, true);
	core_writer_close(f.w);
	rig_crash_and_reopen(&f.rig);
	check_blobs(f.rig.disk, f.rig.shard, true);
	rig_free(&f.rig);
	return fired;
}

START_TEST(whichever_call_fails_the_batches_can_be_committed_after_it)
{
	static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
					      KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};

	for (unsigned nth = 1; fail_commit(kinds[_i], nth); nth++)
		;
}
END_TEST

/* Parts of batches that go together become blobs of the commit, and stay when it is refused. */
START_TEST(a_refused_commit_of_several_batches_leaves_no_blob)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	struct core_built *b[2];
	char row[6000] = "1 1 loose ";

	for (size_t i = 0; i < 5000; i++)
		row[10 + i] = (char)('a' + (i * i + 7 * i) % 26);
	strcpy(row + 5010, ";");
	b[0] = build(w, "0", "5", "1 1 a x;");
	b[1] = build(w, "0", "5", row);
	disk_fail(rig.disk, 3, KV_FAULT_BEFORE); /* two blobs, then the version */
	ck_assert_str_eq(commit_built(w, "expected_upper=0 new_upper=5", b, 2), "StoreUnreachable");
	disk_heal(rig.disk);
	core_built_free(b[0]);
	core_built_free(b[1]);
	check_blobs(rig.disk, rig.shard, true);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

Suite *built_suite(void)
{
	Suite *s = suite_create("built");
	TCase *t = tcase_create("built");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, several_batches_are_one_with_their_runs_and_their_sums);
	tcase_add_test(t, an_append_may_cut_a_batch_on_either_side);
	tcase_add_test(t, a_refused_batch_is_appended_again_with_other_frontiers);
	tcase_add_loop_test(t, append_batch_cuts_tells_a_gap_and_deletes_what_is_there_already, 0, 2);
	tcase_add_test(t, an_unused_batch_takes_its_own_blobs_with_it);
	tcase_add_test(t, a_rewrite_is_refused_outside_its_bounds_and_never_goes_back);
	tcase_add_test(t, a_rewritten_batch_is_read_later_and_stored_no_second_time);
	tcase_add_test(t, the_append_s_rewrite_lifts_batches_beside_rows_and_lowers_nothing);
	tcase_add_loop_test(t, random_batches_show_what_the_model_says, 0, 4);
	tcase_add_test(t, hundreds_of_small_batches_in_one_call_stay_within_the_inline_limit);
	tcase_add_test(t, appends_at_the_limit_keep_the_state_small_and_are_all_there);
	tcase_add_loop_test(t, the_same_token_and_batch_tell_what_was_done_and_delete_nothing, 0, 4);
	tcase_add_loop_test(t, after_an_unknown_outcome_no_part_is_named_twice, 0, 4);
	tcase_add_test(t, a_mismatch_under_the_same_token_ends_the_doubt);
	tcase_add_loop_test(t, whichever_call_fails_the_batches_can_be_committed_after_it, 0, 5);
	tcase_add_test(t, a_refused_commit_of_several_batches_leaves_no_blob);
	suite_add_tcase(s, t);
	return s;
}
