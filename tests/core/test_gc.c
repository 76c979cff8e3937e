/*
 * test_gc.c - collection: what was replaced goes, in time and not before.
 */
#include "core/scan.h"
#include "tests/core/chores.h"
#include "tests/core/suites.h"

#include <unistd.h>

static struct core_snapshot *snapshot_at(struct core_shard *s, uint64_t time)
{
	struct core_snapshot *n;
	struct kv_err err;

	ck_ok(core_snapshot_open(s, (struct core_as_of){.time = time}, &n, &err), err);
	return n;
}

/* Appends that each replace the row of the one before, since following. */
static void overwrite(struct core_shard *s, unsigned times, size_t pad)
{
	char rows[120];

	for (unsigned i = 0; i < times; i++) {
		unsigned long long at = upper_of(s);

		snprintf(rows, sizeof rows, at == 0 ? "%llu 1 a %llu;" : "%llu 1 a %llu;%llu -1 a %llu;", at,
			 at, at, at - 1);
		put_hollow(s, rows, pad);
		hold_at(s, core_frontier_at(at));
	}
}

START_TEST(after_compaction_and_collection_only_what_is_named_is_there)
{
	struct rig rig = rig_new((enum disk_kind)_i);
	struct core_upkeep_result r;

	overwrite(rig.shard, 20, 5000);
	r = chore(rig.shard, CORE_COMPACT);
	ck_assert_uint_ge(r.merges, 1);
	ck_assert_uint_eq(runs_of(rig.shard), 1);
	ck_assert_uint_eq(rows_of(rig.shard), 21); /* one "a", and 20 different pads */
	ck_assert_uint_eq(dead_of(rig.shard), 0);
	r = chore(rig.shard, CORE_ROLLUP);
	ck_assert_uint_eq(chore(rig.shard, CORE_ROLLUP).seqno,
			  r.seqno + 1); /* of the version that names it */
	chore(rig.shard, CORE_ROLLUP);
	chore(rig.shard, CORE_GC);
	check_tidy(&rig);
	check_sound(rig.shard);
	reopen_well(&rig);
	ck_assert_uint_eq(rows_of(rig.shard), 21);
	chore(rig.shard, CORE_GC);
	check_tidy(&rig);
	rig_free(&rig);
}
END_TEST

START_TEST(a_collection_with_nothing_to_do_makes_no_version)
{
	struct rig rig = rig_new(DISK_SOLE);
	uint64_t seqno;

	overwrite(rig.shard, 5, 5000);
	chore(rig.shard, CORE_COMPACT);
	chore(rig.shard, CORE_GC);
	seqno = chore(rig.shard, CORE_GC).seqno;
	ck_assert_uint_eq(chore(rig.shard, CORE_GC).seqno, seqno);
	ck_assert_uint_eq(chore(rig.shard, CORE_COMPACT).seqno, seqno);
	rig_free(&rig);
}
END_TEST

START_TEST(a_snapshot_reads_on_across_compaction_and_collection_and_then_its_blobs_go)
{
	struct rig rig = rig_new((enum disk_kind)_i);
	struct core_snapshot *n;
	char *before, *after;

	overwrite(rig.shard, 8, 400000);
	n = snapshot_at(rig.shard, upper_of(rig.shard) - 1);
	before = snapshot_text(n);
	overwrite(rig.shard, 8, 5000);
	chore(rig.shard, CORE_COMPACT);
	chore(rig.shard, CORE_ROLLUP);
	ck_assert_uint_gt(chore(rig.shard, CORE_GC).kept_blobs, 0);
	chore(rig.shard, CORE_COMPACT);
	after = snapshot_text(n);
	ck_assert_msg(strcmp(before, after) == 0, "%.300s", after);
	core_snapshot_close(n);
	if (rig.disk->kind == DISK_SHARED)
		core_leases_keep(rig.engine);
	ck_assert_uint_gt(chore(rig.shard, CORE_GC).blobs, 0);
	chore(rig.shard, CORE_ROLLUP);
	chore(rig.shard, CORE_GC);
	check_tidy(&rig);
	free(before);
	free(after);
	rig_free(&rig);
}
END_TEST

START_TEST(a_listener_that_goes_back_gets_the_same_after_compaction_and_collection)
{
	struct feed d = feed_new(DISK_SOLE);
	struct core_place *places[8];
	struct model firsts[8] = {0};
	struct ear e;

	for (int i = 0; i < 8; i++) {
		char *row = large_row("*", "k", 300000);
		put(&d, "expected_upper=* new_upper=+1", row);
		free(row);
	}
	e = ear_at(d.rig.shard, core_frontier_at(0));
	for (int i = 0; i < 8; i++) {
		ck_assert_int_eq(ear_step(&e), KV_OK);
		places[i] = core_listen_place(e.l);
	}
	hold_at(d.rig.shard, core_frontier_at(7));
	put(&d, "expected_upper=* new_upper=+1", "* 1 k v;");
	chore(d.rig.shard, CORE_COMPACT);
	chore(d.rig.shard, CORE_GC);
	ck_assert_uint_gt(dead_of(d.rig.shard), 0);
	for (int i = 7; i >= 0; i--) {
		struct core_update u;
		struct kv_err err;
		bool end;

		core_listen_go(e.l, places[i]);
		ck_ok(core_listen_next(e.l, &u, &end, &err), err);
		ck_assert(!end && u.time == (uint64_t)i && u.val.len == 300000);
		ck_ok(core_listen_next(e.l, &u, &end, &err), err);
		ck_assert(end);
		model_free(&firsts[i]);
		core_place_free(places[i]);
	}
	ear_free(&e);
	chore(d.rig.shard, CORE_GC);
	ck_assert_uint_eq(dead_of(d.rig.shard), 0);
	check_blobs(d.rig.disk, d.rig.shard, true);
	feed_free(&d);
}
END_TEST

START_TEST(a_batch_that_is_read_as_a_file_stays_whole)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_state state;
	struct core_batch *b;
	struct core_scan *scan;
	struct kv_err err;
	char *text = malloc(1 << 20), *again = malloc(1 << 20);
	size_t len, got;

	put_hollow(rig.shard, "0 1 a x;", 600000);
	put_hollow(rig.shard, "1 1 a x;", 5000);
	state = state_of(rig.shard);
	b = core_batch_ref(state.batches[0]);
	core_state_fini(&state);
	ck_ok(core_scan_open(core_shard_home(rig.shard), b, &scan, &err), err);
	ck_ok(core_scan_read(scan, 0, text, 1 << 20, &len, &err), err);
	core_scan_close(scan);
	ck_ok(core_scan_open(core_shard_home(rig.shard), b, &scan, &err), err);
	chore(rig.shard, CORE_COMPACT);
	chore(rig.shard, CORE_GC);
	ck_ok(core_scan_read(scan, 0, again, 1 << 20, &got, &err), err);
	ck_assert(got == len && memcmp(text, again, len) == 0);
	core_scan_close(scan);
	core_batch_unref(b);
	chore(rig.shard, CORE_GC);
	check_blobs(rig.disk, rig.shard, true);
	free(text);
	free(again);
	rig_free(&rig);
}
END_TEST

/* A staged batch that was committed, merged and collected is read on by those who had it open before. */
START_TEST(an_open_staged_batch_that_was_committed_is_read_on)
{
	struct rig rig = rig_new((enum disk_kind)_i);
	struct core_staged_view view;
	struct kv_err err;
	char *row = large_row("5", "s", 400000), *before, *after;

	stage_whole(rig.shard, "one", NULL, row);
	ck_ok(core_staged_open(rig.shard, staged_entry(rig.shard, "one").id, &view, &err), err);
	before = view_text(rig.shard, &view);
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=9", "one", ""),
			 "ok 0 9 updates=1");
	put_hollow(rig.shard, "9 1 a x;", 5000);
	chore(rig.shard, CORE_COMPACT);
	chore(rig.shard, CORE_GC);
	after = view_text(rig.shard, &view);
	ck_assert_msg(strcmp(before, after) == 0, "%.300s", after);
	core_staged_close(rig.shard, &view);
	rig_settle(&rig);
	if (rig.disk->kind == DISK_SHARED)
		core_leases_keep(rig.engine);
	chore(rig.shard, CORE_GC);
	ck_assert_uint_eq(dead_of(rig.shard), 0);
	check_blobs(rig.disk, rig.shard, true);
	free(row);
	free(before);
	free(after);
	rig_free(&rig);
}
END_TEST

/* --- bounds of what is kept ------------------------------------------------------------------------ */

START_TEST(a_shard_overwritten_a_thousand_times_does_not_grow)
{
	struct disk *d = disk_new(DISK_SOLE);
	struct rig rig;
	char rows[120];

	d->upkeep = true;
	rig = rig_on(d);
	for (unsigned long long at = 0; at < 1000; at++) {
		char *row = large_row("*", "a", 5000);
		char *next = malloc(2 * strlen(row) + sizeof rows);
		if (at == 0)
			strcpy(next, row);
		else /* retracted, and put again */
			sprintf(next, "* -1 %s%s", row + 4, row);
		struct core_appended r;
		struct kv_err err;
		snprintf(rows, sizeof rows, "expected_upper=* new_upper=+1 since=%llu", at);
		ck_ok(append(rig.shard, rows, next, &r, &err), err);
		free(row);
		free(next);
	}
	core_upkeep_settle(rig.engine);
	rig_settle(&rig);
	core_upkeep_settle(rig.engine);
	struct core_state state = state_of(rig.shard);
	ck_assert_uint_le(state.rollup_count, 2);
	ck_assert_uint_eq(state.dead_count, 0);
	ck_assert_uint_le(state.batch_count, 8);
	core_state_fini(&state);
	ck_assert_uint_le(disk_blob_count(d), 12);
	uint64_t least;
	ck_assert_uint_le(version_count(&rig, &least), 400);
	rig_free(&rig);
}
END_TEST

START_TEST(there_are_few_rollups_and_few_versions_however_many_there_were)
{
	struct disk *d = disk_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct rig rig;
	uint64_t least;

	d->upkeep = true;
	rig = rig_on(d);
	for (int i = 0; i < 3000; i++) {
		struct core_state state;

		verdict(rig.shard, "expected_upper=* new_upper=+1", "* 1 a x;");
		if (i % 500 != 499)
			continue;
		rig_settle(&rig);
		core_upkeep_settle(rig.engine);
		state = state_of(rig.shard);
		ck_assert_uint_le(state.rollup_count, 3);
		core_state_fini(&state);
		ck_assert_uint_le(version_count(&rig, &least), 520 + 260);
	}
	rig_free(&rig);
}
END_TEST

START_TEST(loading_takes_as_many_calls_after_20000_versions_as_after_1000)
{
	struct disk *d = disk_new(DISK_SOLE);
	unsigned calls[2];
	struct rig rig;
	int done = 0;

	d->upkeep = true;
	rig = rig_on(d);
	for (int round = 0; round < 2; round++) {
		for (; done < (round == 0 ? 1000 : 20000); done++)
			ck_assert_int_eq(verdict(rig.shard, "expected_upper=* new_upper=+1", "")[0], 'o');
		rig_settle(&rig);
		core_upkeep_settle(rig.engine);
		d->upkeep = false;
		core_shard_close(rig.shard);
		core_engine_close(rig.engine);
		disk_heal(d); /* counts anew */
		rig_open(&rig);
		calls[round] = kv_faults_calls(d->faults);
		d->upkeep = true;
		reopen_well(&rig);
	}
	ck_assert_msg(calls[1] <= calls[0] + 2, "%u calls, then %u", calls[0], calls[1]);
	rig_free(&rig);
}
END_TEST

START_TEST(more_than_a_thousand_dead_parts_go_in_several_versions)
{
	struct rig rig = rig_new(DISK_SOLE);

	for (int i = 0; i < 3; i++)
		put_runs(rig.shard, 500);
	hold_at(rig.shard, core_frontier_at(1499));
	ck_assert_uint_eq(chore(rig.shard, CORE_COMPACT).blobs, 1500);
	ck_assert_uint_eq(dead_of(rig.shard), 0);
	chore(rig.shard, CORE_GC);
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

/* --- by itself ------------------------------------------------------------------------------------- */

START_TEST(what_the_last_reader_let_go_of_is_deleted_without_another_commit)
{
	struct disk *d = disk_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_snapshot *n;
	struct rig rig;
	size_t dead;

	d->upkeep = true;
	rig = rig_on(d);
	overwrite(rig.shard, 3, 5000);
	n = snapshot_at(rig.shard, upper_of(rig.shard) - 1);
	chore(rig.shard, CORE_COMPACT);
	core_upkeep_settle(rig.engine);
	ck_assert_uint_gt(dead_of(rig.shard), 0);
	core_snapshot_close(n);
	for (int tries = 0; tries < 200 && dead_of(rig.shard) != 0; tries++) {
		if (_i == 1)
			core_leases_keep(rig.engine);
		core_upkeep_settle(rig.engine);
		usleep(100000);
	}
	dead = dead_of(rig.shard);
	ck_assert_msg(dead == 0, "%zu dead parts stay for ever", dead);
	rig_free(&rig);
}
END_TEST

Suite *gc_suite(void)
{
	Suite *s = suite_create("gc");
	TCase *t = tcase_create("gc");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, after_compaction_and_collection_only_what_is_named_is_there, DISK_MEM,
			    DISK_EMBEDDED + 1);
	tcase_add_test(t, a_collection_with_nothing_to_do_makes_no_version);
	tcase_add_loop_test(t, a_snapshot_reads_on_across_compaction_and_collection_and_then_its_blobs_go,
			    DISK_MEM, DISK_EMBEDDED + 1);
	tcase_add_test(t, a_listener_that_goes_back_gets_the_same_after_compaction_and_collection);
	tcase_add_test(t, a_batch_that_is_read_as_a_file_stays_whole);
	tcase_add_loop_test(t, an_open_staged_batch_that_was_committed_is_read_on, DISK_SOLE,
			    DISK_SHARED + 1);
	tcase_add_test(t, a_shard_overwritten_a_thousand_times_does_not_grow);
	tcase_add_loop_test(t, there_are_few_rollups_and_few_versions_however_many_there_were, 0, 2);
	tcase_add_test(t, loading_takes_as_many_calls_after_20000_versions_as_after_1000);
	tcase_add_test(t, more_than_a_thousand_dead_parts_go_in_several_versions);
	tcase_add_loop_test(t, what_the_last_reader_let_go_of_is_deleted_without_another_commit, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
