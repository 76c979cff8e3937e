/*
 * test_compaction.c - a merge changes nothing that can be read.
 */
#include "tests/core/chores.h"
#include "tests/core/suites.h"

START_TEST(every_readable_time_and_every_listener_sees_the_same_after_compaction)
{
	for (unsigned round = 0; round < 60; round++) {
		struct rng rng = rng_new(3000 + 100 * (uint64_t)_i + round);
		struct rig rig = rig_new(round % 2 == 0 ? DISK_SOLE : DISK_SHARED);
		char when[60], *before;

		sprintf(when, "round %u", round);
		fill_mixed(rig.shard, &rng);
		before = picture(rig.shard);
		chore(rig.shard, CORE_COMPACT);
		check_picture(rig.shard, before, when);
		chore(rig.shard, CORE_GC);
		if (rig.disk->kind == DISK_SHARED)
			reopen_well(&rig); /* a lease of one that crashed would hold since */
		else
			rig_crash_and_reopen(&rig);
		check_picture(rig.shard, before, when);
		free(before);
		/* Since further and further: each time as before. */
		for (int steps = 0; since_now(rig.shard).t + 1 < upper_of(rig.shard); steps++) {
			ck_assert_int_lt(steps, 200);
			hold_at(rig.shard, core_frontier_at(since_now(rig.shard).t + 1 + rng_below(&rng, 9)));
			before = picture(rig.shard);
			chore(rig.shard, rng_below(&rng, 3) == 0 ? CORE_GC : CORE_COMPACT);
			check_picture(rig.shard, before, when);
			free(before);
		}
		check_sound(rig.shard);
		rig_free(&rig);
	}
}
END_TEST

START_TEST(with_since_at_the_last_time_one_run_of_the_distinct_rows_is_left)
{
	for (unsigned round = 0; round < 40; round++) {
		struct rng rng = rng_new(4000 + round);
		struct rig rig = rig_new(DISK_SOLE);
		struct core_snapshot *n;
		struct core_update u;
		struct kv_err err;
		uint64_t rows = 0;
		bool end = false;
		enum kv_rc rc = KV_OK;

		fill_mixed(rig.shard, &rng);
		hold_at(rig.shard, core_frontier_at(upper_of(rig.shard) -
						    (since_now(rig.shard).t < upper_of(rig.shard))));
		chore(rig.shard, CORE_COMPACT);
		ck_assert_uint_le(runs_of(rig.shard), 1);
		ck_assert_uint_eq(dead_of(rig.shard), 0);
		if (core_snapshot_open(rig.shard, (struct core_as_of){.latest = true}, &n, &err) == KV_OK) {
			while (rc == KV_OK && !end) {
				rc = core_snapshot_next(n, &u, &end, &err);
				rows += rc == KV_OK && !end;
			}
			ck_assert(rc == KV_OK || rc == KV_OVERFLOW);
			if (rc == KV_OK)
				ck_assert_msg(rows == rows_of(rig.shard), "round %u: %u rows of %u", round,
					      (unsigned)rows_of(rig.shard), (unsigned)rows);
		}
		core_snapshot_close(n);
		rig_free(&rig);
	}
}
END_TEST

/* Small and inline, never in a blob: the same is asked for. */
START_TEST(inline_rows_are_advanced_to_since_too)
{
	struct rig rig = rig_new(DISK_SOLE);

	verdict(rig.shard, "expected_upper=0 new_upper=5", "0 1 a x;1 -1 a x;1 1 a y;2 -1 a y;3 1 a z;");
	hold_at(rig.shard, core_frontier_at(4));
	chore(rig.shard, CORE_COMPACT);
	check_content(rig.shard, 4, "a z 1;");
	ck_assert_uint_eq(rows_of(rig.shard), 1);
	rig_free(&rig);
}
END_TEST

START_TEST(inline_runs_become_one_too)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	struct core_built *b[3];

	for (int i = 0; i < 3; i++)
		b[i] = build(w, "0", "3", "0 1 a x;1 1 b x;");
	ck_assert_str_eq(commit_built(w, "expected_upper=0 new_upper=3", b, 3), "ok 0 3 updates=6");
	for (int i = 0; i < 3; i++)
		core_built_free(b[i]);
	core_writer_close(w);
	chore(rig.shard, CORE_COMPACT);
	ck_assert_uint_eq(runs_of(rig.shard), 1);
	ck_assert_uint_eq(rows_of(rig.shard), 2);
	rig_free(&rig);
}
END_TEST

START_TEST(of_a_shard_given_up_no_row_is_left)
{
	for (unsigned round = 0; round < 10; round++) {
		struct rng rng = rng_new(5000 + round);
		struct rig rig = rig_new(DISK_SOLE);
		char upper[60];

		fill_mixed(rig.shard, &rng);
		strcpy(upper, strchr(frontiers(rig.shard), ' '));
		hold_at(rig.shard, core_frontier_empty());
		chore(rig.shard, CORE_COMPACT);
		ck_assert_uint_eq(rows_of(rig.shard), 0);
		ck_assert_str_eq(strchr(frontiers(rig.shard), ' '), upper);
		chore(rig.shard, CORE_ROLLUP);
		chore(rig.shard, CORE_GC);
		check_tidy(&rig);
		ck_assert_uint_eq(disk_blob_count(rig.disk), 1); /* the rollup */
		put_hollow(rig.shard, "", 5000);                 /* it goes on */
		check_sound(rig.shard);
		rig_free(&rig);
	}
}
END_TEST

START_TEST(sums_beyond_i64_stay_apart_and_a_later_retraction_makes_them_right)
{
	struct rig rig = rig_new(DISK_SOLE);

	verdict(rig.shard, "expected_upper=0 new_upper=1", "0 9223372036854775807 a x;0 1 b x;");
	fold_to_blob(rig.shard);
	verdict(rig.shard, "expected_upper=1 new_upper=2", "1 9223372036854775807 a x;");
	fold_to_blob(rig.shard);
	verdict(rig.shard, "expected_upper=2 new_upper=3", "2 5 a x;");
	fold_to_blob(rig.shard);
	hold_at(rig.shard, core_frontier_at(2));
	for (int i = 0; i < 3; i++) { /* again and again, as what is left looks unfinished */
		uint64_t seqno = chore(rig.shard, CORE_COMPACT).seqno;
		check_content(rig.shard, 2, "DiffOverflow");
		ck_assert_uint_eq(runs_of(rig.shard), 1);
		ck_assert_uint_eq(chore(rig.shard, CORE_COMPACT).seqno, seqno);
	}
	verdict(rig.shard, "expected_upper=3 new_upper=4", "3 -9223372036854775807 a x;");
	hold_at(rig.shard, core_frontier_at(3));
	chore(rig.shard, CORE_COMPACT);
	check_content(rig.shard, 3, "DiffOverflow");
	verdict(rig.shard, "expected_upper=4 new_upper=5", "4 -9223372036854775807 a x;");
	hold_at(rig.shard, core_frontier_at(4));
	chore(rig.shard, CORE_COMPACT);
	check_content(rig.shard, 4, "a x 5;b x 1;");
	ck_assert_uint_eq(rows_of(rig.shard), 2);
	rig_free(&rig);
}
END_TEST

/* Thousands of empty batches in state is what others have had. */
START_TEST(empty_appends_leave_few_batches)
{
	struct rig rig = rig_new(DISK_SOLE);

	for (int i = 0; i < 600; i++) {
		verdict(rig.shard, "expected_upper=* new_upper=+1", "");
		if (i % 50 == 0)
			put_hollow(rig.shard, "", 5000);
	}
	ck_assert_uint_le(batches_of(rig.shard), 30);
	chore(rig.shard, CORE_COMPACT);
	ck_assert_uint_le(batches_of(rig.shard), 2);
	rig_free(&rig);
}
END_TEST

START_TEST(only_what_is_there_when_it_is_asked_for_is_waited_for)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_upkeep_result r;
	uint64_t seqno;

	put_hollow(rig.shard, "", 5000);
	r = chore(rig.shard, CORE_COMPACT);
	ck_assert_uint_eq(r.merges, 0); /* one run already */
	put_hollow(rig.shard, "", 5000);
	r = chore(rig.shard, CORE_COMPACT);
	ck_assert_uint_eq(r.merges, 1);
	ck_assert_uint_eq(r.in_updates, 2);
	ck_assert_uint_eq(r.out_updates, 2);
	seqno = r.seqno;
	ck_assert_uint_eq(chore(rig.shard, CORE_COMPACT).seqno, seqno);
	rig_free(&rig);
}
END_TEST

/* A manifest says more than the text of a batch: a reader of the batch's file gets it as it is merged. */
START_TEST(staged_batches_are_compacted_as_they_were_committed)
{
	for (int i = 0; i < 4; i++) {
		struct rig rig = rig_new(DISK_SOLE);
		char *row = large_row("7", "big", 6000), *before;

		put_hollow(rig.shard, "0 1 a x;", 5000);
		stage_whole(rig.shard, "one", "0 20", "3 1 s x;9 1 s x;15 1 s x;");
		stage_whole(rig.shard, "two", NULL, row);
		stage_whole(rig.shard, "three", NULL, "4 1 star v;4 1 star v;5 -1 star v;");
		ck_assert_str_eq(
			verdict_staged(rig.shard, "expected_upper=1 new_upper=12", "one two three", ""),
			"ok 1 12 updates=7");
		put_hollow(rig.shard, "12 1 a x;", 5000);
		hold_at(rig.shard, core_frontier_at((uint64_t)(4 * i)));
		before = picture(rig.shard);
		chore(rig.shard, CORE_COMPACT);
		check_picture(rig.shard, before, "staged");
		chore(rig.shard, CORE_GC);
		check_blobs(rig.disk, rig.shard, true);
		free(before);
		free(row);
		rig_free(&rig);
	}
}
END_TEST

Suite *compaction_suite(void)
{
	Suite *s = suite_create("compaction");
	TCase *t = tcase_create("compaction");

	tcase_set_timeout(t, 30);
	tcase_add_loop_test(t, every_readable_time_and_every_listener_sees_the_same_after_compaction, 0, 4);
	tcase_add_test(t, with_since_at_the_last_time_one_run_of_the_distinct_rows_is_left);
	tcase_add_test(t, inline_rows_are_advanced_to_since_too);
	tcase_add_test(t, inline_runs_become_one_too);
	tcase_add_test(t, of_a_shard_given_up_no_row_is_left);
	tcase_add_test(t, sums_beyond_i64_stay_apart_and_a_later_retraction_makes_them_right);
	tcase_add_test(t, empty_appends_leave_few_batches);
	tcase_add_test(t, only_what_is_there_when_it_is_asked_for_is_waited_for);
	tcase_add_test(t, staged_batches_are_compacted_as_they_were_committed);
	suite_add_tcase(s, t);
	return s;
}
