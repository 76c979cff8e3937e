/*
 * test_upkeep_faults.c - maintenance that is cut short, or that the store fails: nothing acknowledged is
 * lost, and what is left over is found again.
 */
#include "tests/core/chores.h"
#include "tests/core/suites.h"

static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
				      KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

enum job { COMPACT, COLLECT, ROLL_UP, JOBS };

/* Nine batches with blobs, one with runs, a staged one, something dead, rollups, an inline tail; the chore is
 * what is to be done next. Always the same. */
static struct rig busy_rig(enum disk_kind kind, enum job job)
{
	struct rig rig = rig_new(kind);
	char rows[200];

	for (int i = 0; i < 9; i++) {
		snprintf(rows, sizeof rows, "%d 1 k%d v;%d %d k0 w;", i, i, i, i % 2 == 0 ? 1 : -1);
		snprintf(rows + 100, 100, "expected_upper=%d new_upper=%d", i, i + 1);
		ck_assert_int_eq(strncmp(verdict(rig.shard, rows + 100, rows), "ok", 2), 0);
		fold_to_blob(rig.shard);
	}
	put_runs(rig.shard, 2);
	stage_whole(rig.shard, "kept", NULL, "99 1 s s;");
	hold_at(rig.shard, core_frontier_at(6));
	if (job == COLLECT) {
		struct core_snapshot *n; /* or else the merge would collect as well */
		struct kv_err err;

		ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.time = 8}, &n, &err), err);
		chore(rig.shard, CORE_COMPACT);
		core_snapshot_close(n);
		for (int i = 0; i < 3; i++)
			chore(rig.shard, CORE_ROLLUP);
		ck_assert_uint_gt(dead_of(rig.shard), 3);
	}
	verdict(rig.shard, "expected_upper=11 new_upper=12", "11 1 tail v;");
	return rig;
}

static enum core_upkeep_kind chore_of(enum job job)
{
	return job == COMPACT ? CORE_COMPACT : job == COLLECT ? CORE_GC : CORE_ROLLUP;
}

/* All that is read is there; of rollups the newest. (A collection that broke off may have deleted older
 * ones.) */
static void check_there(struct rig *rig, const char *want, const char *when)
{
	struct core_state state = state_of(rig->shard);

	ck_assert(has_blob(rig->disk, state.rollups[state.rollup_count - 1].key));
	core_state_fini(&state);
	check_picture(rig->shard, want, when);
	check_staged(rig->shard, "kept", "99 1 s s;");
}

/* Whatever is left over goes with the next collection, and then nothing is left over. */
static void check_recovers(struct rig *rig, const char *want, const char *when)
{
	check_sound(rig->shard);
	check_there(rig, want, when);
	if (rig->disk->kind == DISK_SHARED)
		core_leases_keep(rig->engine);
	chore(rig->shard, CORE_COMPACT);
	check_picture(rig->shard, want, when);
	if (rig->disk->kind == DISK_SHARED)
		core_leases_keep(rig->engine);
	for (int i = 0; i < 2; i++)
		chore(rig->shard, CORE_ROLLUP);
	chore(rig->shard, CORE_GC);
	check_picture(rig->shard, want, when);
	check_staged(rig->shard, "kept", "99 1 s s;");
}

START_TEST(a_crash_at_any_call_loses_nothing_and_leaves_nothing_for_good)
{
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = busy_rig(DISK_SOLE, (enum job)_i);
		char *want = picture(rig.shard), when[60];
		struct kv_err err;

		sprintf(when, "call %u", nth);
		kv_faults_arm(rig.disk->faults, nth, KV_FAULT_BEFORE, true);
		(void)!chore_rc(rig.shard, chore_of((enum job)_i), &err);
		fired = kv_faults_fired(rig.disk->faults);
		rig_crash_and_reopen(&rig);
		check_recovers(&rig, want, when);
		check_tidy(&rig);
		reopen_well(&rig);
		check_picture(rig.shard, want, when);
		chore(rig.shard, CORE_GC);
		check_tidy(&rig);
		free(want);
		rig_free(&rig);
	}
}
END_TEST

/* As above, but the last call before the crash was done, or may have been. */
START_TEST(a_crash_after_a_call_of_unknown_outcome_loses_nothing)
{
	enum job job = (enum job)(_i / 2);
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = busy_rig(DISK_SOLE, job);
		char *want = picture(rig.shard), when[60];
		struct kv_err err;

		sprintf(when, "call %u", nth);
		kv_faults_arm(rig.disk->faults, nth,
			      _i % 2 == 0 ? KV_FAULT_DONE_UNKNOWN : KV_FAULT_LOST_UNKNOWN, true);
		(void)!chore_rc(rig.shard, chore_of(job), &err);
		fired = kv_faults_fired(rig.disk->faults);
		rig_crash_and_reopen(&rig);
		check_recovers(&rig, want, when);
		check_tidy(&rig);
		free(want);
		rig_free(&rig);
	}
}
END_TEST

START_TEST(a_call_that_fails_in_any_way_does_no_harm)
{
	enum job job = (enum job)(_i / KINDS);
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = busy_rig(nth % 2 == 0 ? DISK_SOLE : DISK_SHARED, job);
		char *want = picture(rig.shard), when[60];
		struct kv_err err;
		enum kv_rc rc;

		sprintf(when, "job %d, call %u, kind %u", (int)job, nth, (unsigned)kinds[_i % KINDS]);
		disk_fail(rig.disk, nth, kinds[_i % KINDS]);
		rc = chore_rc(rig.shard, chore_of(job), &err);
		fired = kv_faults_fired(rig.disk->faults);
		ck_assert_msg(rc == KV_OK || fired, "%s: %s", when, err.msg);
		disk_heal(rig.disk);
		check_recovers(&rig, want, when);
		ck_assert_uint_eq(dead_of(rig.shard), 0);
		reopen_well(&rig); /* what this instance forgot is swept by the next one, where anybody may */
		check_picture(rig.shard, want, when);
		chore(rig.shard, CORE_GC);
		if (rig.disk->kind == DISK_SOLE)
			check_tidy(&rig);
		free(want);
		rig_free(&rig);
	}
}
END_TEST

/* The commit of a merge whose outcome nobody tells: its output may be named, so it stays. */
START_TEST(the_output_of_a_merge_that_may_have_landed_is_not_deleted)
{
	enum kv_fault kind = _i % 2 == 0 ? KV_FAULT_DONE_UNKNOWN : KV_FAULT_LOST_UNKNOWN;
	unsigned calls, unknown = 0;
	struct rig rig = busy_rig(DISK_SHARED, COMPACT);
	struct kv_err err;

	disk_heal(rig.disk);
	chore(rig.shard, CORE_COMPACT);
	calls = kv_faults_calls(rig.disk->faults);
	rig_free(&rig);
	for (unsigned nth = 1; nth <= calls; nth++) {
		rig = busy_rig(_i / 2 == 0 ? DISK_SOLE : DISK_SHARED, COMPACT);
		char *want = picture(rig.shard);

		/* From there on nothing is told; and then the store is back. */
		kv_faults_arm(rig.disk->faults, nth, kind, true);
		unknown += chore_rc(rig.shard, CORE_COMPACT, &err) == KV_UNKNOWN;
		disk_heal(rig.disk);
		check_there(&rig, want, "after an unknown outcome");
		free(want);
		rig_free(&rig);
	}
	ck_assert_uint_gt(unknown, 0);
}
END_TEST

/* Appends between a chore that failed and the next one. */
START_TEST(what_failed_is_done_the_next_time_though_the_shard_has_gone_on)
{
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = busy_rig(DISK_SOLE, (enum job)(_i % 2));
		char *want;
		struct kv_err err;

		disk_fail(rig.disk, nth, _i / 2 == 0 ? KV_FAULT_BEFORE : KV_FAULT_DONE_UNKNOWN);
		(void)!chore_rc(rig.shard, chore_of((enum job)(_i % 2)), &err);
		fired = kv_faults_fired(rig.disk->faults);
		disk_heal(rig.disk);
		put_hollow(rig.shard, "12 1 later v;", 5000);
		ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=13 new_upper=100", "kept", ""),
				 "ok 13 100 updates=1");
		stage_whole(rig.shard, "kept", NULL, "99 1 s s;");
		hold_at(rig.shard, core_frontier_at(12));
		want = picture(rig.shard);
		check_recovers(&rig, want, "the next time");
		ck_assert_uint_eq(dead_of(rig.shard), 0);
		ck_assert_uint_eq(runs_of(rig.shard), 1);
		free(want);
		rig_free(&rig);
	}
}
END_TEST

/* On a disk that is full, say, or because of a damaged part: then that is all that gives room back. */
START_TEST(what_is_dead_goes_though_the_merge_before_it_fails)
{
	struct rig rig = busy_rig(DISK_SOLE, COLLECT);
	char *want = picture(rig.shard);
	struct kv_err err;

	disk_fail(rig.disk, 1, _i == 0 ? KV_FAULT_NOSPACE : KV_FAULT_BEFORE);
	ck_assert_int_ne(chore_rc(rig.shard, CORE_COMPACT, &err), KV_OK);
	ck_assert_uint_eq(dead_of(rig.shard), 0);
	disk_heal(rig.disk);
	check_recovers(&rig, want, "after it");
	free(want);
	rig_free(&rig);
}
END_TEST

/* A collection that is stale: another one has done more by then. */
START_TEST(a_collection_that_comes_late_is_silent_and_harmless)
{
	struct rig rig = busy_rig(DISK_SHARED, COLLECT);
	struct second other = second_open(&rig);
	char *want = picture(rig.shard);

	core_leases_keep(rig.engine);
	core_leases_keep(other.engine);
	chore(rig.shard, CORE_GC);
	for (int i = 0; i < 3; i++)
		chore(rig.shard, CORE_ROLLUP);
	chore(rig.shard, CORE_GC);
	chore(other.shard, CORE_GC); /* its state was old */
	chore(other.shard, CORE_COMPACT);
	chore(rig.shard, CORE_GC);
	check_picture(other.shard, want, "the other");
	check_picture(rig.shard, want, "the first");
	check_blobs(rig.disk, rig.shard, false);
	free(want);
	second_close(&other);
	rig_free(&rig);
}
END_TEST

/* --- unknown outcomes and versions that were forgotten ------------------------------------------------- */

START_TEST(an_append_of_unknown_outcome_is_settled_though_versions_are_collected)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_appended r;
	struct kv_err err;
	char options[120];

	for (int i = 0; i < 60; i++) {
		enum kv_rc rc;

		snprintf(options, sizeof options, "expected_upper=%d new_upper=%d token=%d", i, i + 1, i + 1);
		disk_fail(rig.disk, 1 + (unsigned)i % 3,
			  i % 2 == 0 ? KV_FAULT_DONE_UNKNOWN : KV_FAULT_LOST_UNKNOWN);
		rc = append(rig.shard, options, "* 1 a x;", &r, &err);
		disk_heal(rig.disk);
		if (rc == KV_BAD_SYNTAX)
			rc = append(rig.shard, "expected_upper=* new_upper=+1", "* 1 a x;", &r, &err);
		ck_assert_msg(rc == KV_OK, "%d: %s", i, err.msg);
		chore(rig.shard, CORE_ROLLUP);
		chore(rig.shard, CORE_GC);
	}
	ck_assert_uint_eq(upper_of(rig.shard), 60);
	rig_free(&rig);
}
END_TEST

Suite *upkeep_faults_suite(void)
{
	Suite *s = suite_create("upkeep_faults");
	TCase *t = tcase_create("upkeep_faults");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, a_crash_at_any_call_loses_nothing_and_leaves_nothing_for_good, 0, JOBS);
	tcase_add_loop_test(t, a_crash_after_a_call_of_unknown_outcome_loses_nothing, 0, 2 * JOBS);
	tcase_add_loop_test(t, a_call_that_fails_in_any_way_does_no_harm, 0, JOBS * KINDS);
	tcase_add_loop_test(t, the_output_of_a_merge_that_may_have_landed_is_not_deleted, 0, 4);
	tcase_add_loop_test(t, what_failed_is_done_the_next_time_though_the_shard_has_gone_on, 0, 4);
	tcase_add_loop_test(t, what_is_dead_goes_though_the_merge_before_it_fails, 0, 2);
	tcase_add_test(t, a_collection_that_comes_late_is_silent_and_harmless);
	tcase_add_loop_test(t, an_append_of_unknown_outcome_is_settled_though_versions_are_collected, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
