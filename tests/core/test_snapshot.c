/*
 * test_snapshot.c - what is read as of each time, and that it stays so.
 */
#include "tests/core/suites.h"
#include "tests/core/world.h"

static void ok(struct core_shard *s, const char *options, const char *rows)
{
	const char *got = verdict(s, options, rows);

	ck_assert_msg(strncmp(got, "ok", 2) == 0, "%s: %s", options, got);
}

START_TEST(each_time_from_since_to_below_the_upper_is_readable)
{
	struct rig rig = rig_new(DISK_MEM);
	struct kv_err err;

	check_content(rig.shard, 0, "WouldBlock");
	ok(rig.shard, "expected_upper=0 new_upper=4", "0 1 a x;1 2 a x;2 -3 a x;2 1 b y;3 1 c z;");
	check_content(rig.shard, 0, "a x 1;");
	check_content(rig.shard, 1, "a x 3;");
	check_content(rig.shard, 2, "b y 1;");
	check_content(rig.shard, 3, "b y 1;c z 1;");
	check_content(rig.shard, 4, "WouldBlock");
	ck_ok(core_shard_move_hold(rig.shard, CORE_DEFAULT_HOLD, core_frontier_at(2), 0, &err), err);
	check_content(rig.shard, 1, "CompactedAway");
	check_content(rig.shard, 2, "b y 1;");
	ck_ok(core_shard_move_hold(rig.shard, CORE_DEFAULT_HOLD, core_frontier_at(6), 0, &err), err);
	check_content(rig.shard, 3, "CompactedAway");
	check_content(rig.shard, 6, "WouldBlock");
	ok(rig.shard, "expected_upper=4 new_upper=8", "7 1 d q;");
	check_content(rig.shard, 6, "b y 1;c z 1;");
	rig_free(&rig);
}
END_TEST

START_TEST(the_words_of_a_time_below_since_are_exact)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_snapshot *n;
	struct kv_err err;

	ok(rig.shard, "expected_upper=0 new_upper=9 since=5", "");
	ck_assert_int_eq(core_snapshot_open(rig.shard, (struct core_as_of){.time = 4}, &n, &err),
			 KV_COMPACTED);
	ck_assert_ptr_null(n);
	ck_assert_str_eq(err.detail, "time=4 since=5");
	rig_free(&rig);
}
END_TEST

START_TEST(the_latest_is_nothing_when_empty_and_the_last_time_when_finished)
{
	struct rig rig = rig_new(DISK_MEM);
	struct kv_err err;
	char *got;

	got = content_latest(rig.shard);
	ck_assert_str_eq(got, "");
	free(got);
	ok(rig.shard, "expected_upper=0 new_upper=5", "1 1 a x;4 1 b y;");
	got = content_latest(rig.shard);
	ck_assert_str_eq(got, "a x 1;b y 1;");
	free(got);
	ok(rig.shard, "expected_upper=5 new_upper=-", "18446744073709551615 1 c z;");
	got = content_latest(rig.shard);
	ck_assert_str_eq(got, "a x 1;b y 1;c z 1;");
	free(got);
	check_content(rig.shard, UINT64_MAX, "a x 1;b y 1;c z 1;");
	check_content(rig.shard, UINT64_MAX - 1, "a x 1;b y 1;");
	ck_ok(core_shard_move_hold(rig.shard, CORE_DEFAULT_HOLD, core_frontier_empty(), 0, &err), err);
	got = content_latest(rig.shard);
	ck_assert_str_eq(got, "CompactedAway");
	free(got);
	rig_free(&rig);
}
END_TEST

START_TEST(rows_come_sorted_absent_first)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_snapshot *n;
	struct core_update u;
	struct kv_err err;
	bool end;

	ok(rig.shard, "expected_upper=0 new_upper=1", "0 1 b x;0 1 \\N y;0 1  x;0 1 b \\N;0 1 a z;");
	ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.latest = true}, &n, &err), err);
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert_uint_eq(u.key.len, CORE_ABSENT);
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert_uint_eq(u.key.len, 0);
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert_mem_eq(u.key.data, "a", 1);
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert_uint_eq(u.val.len, CORE_ABSENT);
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert_mem_eq(u.val.data, "x", 1);
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert(end);
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert(end);
	core_snapshot_close(n);
	rig_free(&rig);
}
END_TEST

START_TEST(a_sum_that_leaves_i64_is_an_overflow_and_harms_nothing_else)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_snapshot *n;
	struct core_update u;
	struct kv_err err;
	bool end;

	ok(rig.shard, "expected_upper=0 new_upper=1", "0 9223372036854775807 b x;0 1 a x;0 1 c x;");
	ok(rig.shard, "expected_upper=1 new_upper=2", "1 1 b x;");
	ok(rig.shard, "expected_upper=2 new_upper=3", "2 -5 b x;");
	check_content(rig.shard, 0, "a x 1;b x 9223372036854775807;c x 1;");
	check_content(rig.shard, 1, "a x 1;DiffOverflow");
	check_content(rig.shard, 2, "a x 1;b x 9223372036854775803;c x 1;");
	ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.time = 1}, &n, &err), err);
	for (int round = 0; round < 2; round++) {
		ck_ok(core_snapshot_next(n, &u, &end, &err), err);
		ck_assert_int_eq(core_snapshot_next(n, &u, &end, &err), KV_OVERFLOW);
		core_snapshot_rewind(n);
	}
	core_snapshot_close(n);
	ok(rig.shard, "expected_upper=3 new_upper=4", "");
	for (int i = 0; i < 80; i++) /* folded over */
		ok(rig.shard, "expected_upper=* new_upper=+1", "* 1 d x;");
	check_content(rig.shard, 1, "a x 1;DiffOverflow");
	check_content(rig.shard, 3, "a x 1;b x 9223372036854775803;c x 1;");
	rig_free(&rig);
}
END_TEST

START_TEST(an_open_snapshot_stays_whatever_happens_to_the_shard)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_snapshot *n;
	struct core_update u;
	struct kv_err err;
	bool end = false;
	size_t rows = 0;

	for (int i = 0; i < 50; i++)
		ok(rig.shard, "expected_upper=* new_upper=+1", "* 1 a x;* 1 b y;");
	ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.latest = true}, &n, &err), err);
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert_int_eq(u.diff, 50);
	for (int i = 0; i < 100; i++)
		ok(rig.shard, "expected_upper=* new_upper=+1 since=90", "* -1 a x;* 1 c z;");
	ok(rig.shard, "expected_upper=* new_upper=- since=-", "");
	ck_ok(core_shard_remove(rig.shard, &err), err);
	for (int round = 0; round < 2; round++) {
		core_snapshot_rewind(n);
		for (rows = 0, end = false; !end; rows++) {
			ck_ok(core_snapshot_next(n, &u, &end, &err), err);
			ck_assert(end || (u.diff == 50 && u.time == 49));
		}
		ck_assert_uint_eq(rows, 3);
	}
	core_snapshot_close(n);
	rig_free(&rig);
}
END_TEST

START_TEST(a_failed_read_can_be_made_again_from_the_start)
{
	struct rig rig = rig_new(DISK_SOLE);
	char *big = malloc(9000);
	int at = sprintf(big, "* 1 big ");
	struct rng rng = rng_new(1);

	while (at < 8900)
		big[at++] = (char)('a' + rng_below(&rng, 26));
	strcpy(big + at, ";");
	for (int i = 0; i < 3; i++)
		ok(rig.shard, "expected_upper=* new_upper=+1", big);
	free(big);
	for (int torn = 0; torn < 2; torn++) {
		bool fired = true;

		for (unsigned nth = 1; fired; nth++) {
			struct core_snapshot *n;
			struct core_update u;
			struct kv_err err;
			bool end;
			enum kv_rc rc;

			disk_fail(rig.disk, nth, torn ? KV_FAULT_TORN : KV_FAULT_BEFORE);
			ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.time = 2}, &n, &err), err);
			rc = core_snapshot_next(n, &u, &end, &err);
			fired = kv_faults_fired(rig.disk->faults);
			ck_assert_int_eq(rc, !fired ? KV_OK : torn ? KV_CORRUPT : KV_UNREACHABLE);
			disk_heal(rig.disk);
			core_snapshot_rewind(n);
			ck_ok(core_snapshot_next(n, &u, &end, &err), err);
			ck_assert(!end && u.diff == 3);
			core_snapshot_close(n);
		}
	}
	rig_free(&rig);
}
END_TEST

Suite *snapshot_suite(void)
{
	Suite *s = suite_create("snapshot");
	TCase *t = tcase_create("snapshot");

	tcase_add_test(t, each_time_from_since_to_below_the_upper_is_readable);
	tcase_add_test(t, the_words_of_a_time_below_since_are_exact);
	tcase_add_test(t, the_latest_is_nothing_when_empty_and_the_last_time_when_finished);
	tcase_add_test(t, rows_come_sorted_absent_first);
	tcase_add_test(t, a_sum_that_leaves_i64_is_an_overflow_and_harms_nothing_else);
	tcase_add_test(t, an_open_snapshot_stays_whatever_happens_to_the_shard);
	tcase_add_test(t, a_failed_read_can_be_made_again_from_the_start);
	suite_add_tcase(s, t);
	return s;
}
