/*
 * test_upkeep.c - what keeps a shard small and quick to load, folding and
 * rollups, and those who wait for its upper.
 */
#include <stdatomic.h>

#include "tests/core/suites.h"
#include "tests/core/world.h"

/* --- the cache -------------------------------------------------------------------------------------- */

/* Store calls that opening the shard takes. */
static unsigned calls_to_open(struct rig *rig, struct core_shard_id id)
{
	struct core_shard *s;
	struct kv_err err;

	kv_faults_arm(rig->disk->faults, 1, KV_FAULT_NONE, false); /* counts */
	ck_ok(core_shard_open(rig->engine, id, &s, &err), err);
	core_shard_close(s);
	return kv_faults_calls(rig->disk->faults);
}

START_TEST(of_more_shards_than_are_kept_those_used_last_are)
{
	enum { COUNT = 4200 }; /* CORE_CACHED_SHARDS and some */
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard_id first = {0}, last = {0};
	struct kv_err err;

	for (unsigned i = 0; i < COUNT; i++) {
		last.u = core_uuid_new();
		first = i == 0 ? last : first;
		ck_ok(core_shard_create(rig.engine, last, (struct core_owner){0}, &err), err);
		calls_to_open(&rig, last);
	}
	ck_assert_uint_eq(calls_to_open(&rig, last), 0);
	ck_assert_uint_gt(calls_to_open(&rig, first), 0); /* had to go */
	ck_assert_uint_eq(calls_to_open(&rig, first), 0); /* and is the one used last now */
	ck_assert_uint_eq(calls_to_open(&rig, last), 0);
	rig_free(&rig);
}
END_TEST

/* --- folding and rollups --------------------------------------------------------------------------- */

START_TEST(folding_keeps_the_content_at_every_readable_time)
{
	struct rng rng = rng_new(900 + (uint64_t)_i);
	struct rig rig = rig_new(DISK_MEM);
	char *before[40] = {0};
	uint64_t since = 0;
	struct kv_err err;

	for (uint64_t i = 0; i < 140; i++) {
		char options[60], rows[200];

		snprintf(options, sizeof(options), "expected_upper=%llu new_upper=%llu",
			 (unsigned long long)i, (unsigned long long)i + 1);
		snprintf(rows, sizeof(rows), "%llu %lld k%llu v;%llu %lld k%llu v;", (unsigned long long)i,
			 (long long)rng_below(&rng, 7) - 3, (unsigned long long)rng_below(&rng, 5),
			 (unsigned long long)i, (long long)rng_below(&rng, 7) - 3,
			 (unsigned long long)rng_below(&rng, 5));
		verdict(rig.shard, options, rows);
		if (rng_below(&rng, 20) == 0) {
			since = rng_below(&rng, i + 10);
			ck_ok(core_shard_move_hold(rig.shard, CORE_DEFAULT_HOLD, core_frontier_at(since), 0,
						   &err),
			      err);
		}
		for (uint64_t t = 0; t < 40; t++) {
			char *now = t * 4 <= i ? content(rig.shard, t * 4) : NULL;

			if (now != NULL && before[t] != NULL && strcmp(now, "CompactedAway") != 0)
				ck_assert_str_eq(now, before[t]);
			if (now != NULL && before[t] == NULL) {
				before[t] = now;
				continue;
			}
			free(now);
		}
	}
	for (size_t t = 0; t < 40; t++)
		free(before[t]);
	rig_free(&rig);
}
END_TEST

START_TEST(folding_bounds_what_small_appends_leave_in_the_state)
{
	struct rig rig = rig_new(DISK_MEM);
	size_t len = _i == 0 ? 10 : 3000;
	struct core_state state;
	struct kv_err err;

	for (uint64_t i = 0; i < 300; i += 10) {
		append_many(rig.shard, i, i + 10, len);
		ck_ok(core_shard_state(rig.shard, &state, &err), err);
		struct core_totals t = core_state_totals(&state);
		ck_assert_uint_le(t.inline_parts, CORE_FOLD_BATCHES + 1);
		ck_assert_uint_le(t.inline_bytes, CORE_INLINE_TOTAL + 8192);
		core_state_fini(&state);
	}
	check_appends(rig.shard, 300);
	rig_free(&rig);
}
END_TEST

/* Now and then a larger append, which stands behind a fold and keeps it from being folded again. */
START_TEST(folding_bounds_inline_bytes_between_large_appends)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_totals most = {0};
	struct core_state state;
	struct kv_err err;
	uint64_t at = 0;

	for (int round = 0; round < 100; round++) {
		append_many(rig.shard, at, at + 2, 1500);
		append_many(rig.shard, at + 2, at + 3, 6000);
		at += 3;
		ck_ok(core_shard_state(rig.shard, &state, &err), err);
		struct core_totals t = core_state_totals(&state);
		if (t.inline_bytes > most.inline_bytes)
			most = t;
		core_state_fini(&state);
	}
	ck_assert_msg(most.inline_bytes <= CORE_INLINE_TOTAL + 8192, "%llu inline bytes in %llu parts",
		      (unsigned long long)most.inline_bytes, (unsigned long long)most.inline_parts);
	rig_free(&rig);
}
END_TEST

START_TEST(loading_reads_few_versions_however_many_there_were)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_state state;
	struct kv_err err;
	uint64_t at = 0;

	while (at < 1300) {
		append_many(rig.shard, at, at + 50, 3);
		at += 50;
		rig_settle(&rig);
	}
	ck_ok(core_shard_state(rig.shard, &state, &err), err);
	ck_assert_uint_ge(state.rollup_count, 3);
	struct core_rollup newest = state.rollups[state.rollup_count - 1];
	uint64_t behind = state.seqno - newest.seqno;
	ck_assert_uint_le(behind, 8 * CORE_ROLLUP_VERSIONS);
	core_state_fini(&state);
	rig_crash(&rig);
	kv_faults_arm(rig.disk->faults, 1, KV_FAULT_NONE, false);
	rig_open(&rig);
	ck_assert_uint_le(kv_faults_calls(rig.disk->faults), 4 + behind / 256 + 1);
	check_appends(rig.shard, at);
	rig_free(&rig);
}
END_TEST

START_TEST(the_last_1024_tokens_are_remembered_across_reopening)
{
	struct rig rig = rig_new(DISK_SOLE);
	char options[80];

	for (unsigned i = 0; i < CORE_TOKENS_MAX + 6; i++) {
		snprintf(options, sizeof(options), "expected_upper=0 new_upper=0 token=%u", i);
		ck_assert_str_eq(verdict(rig.shard, options, ""), "ok 0 0 updates=0");
	}
	rig_crash_and_reopen(&rig);
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=0 new_upper=0 token=6", ""),
			 "same 0 0 updates=0");
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=0 new_upper=0 token=1029", ""),
			 "same 0 0 updates=0");
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=0 new_upper=0 token=5", ""), "ok 0 0 updates=0");
	rig_free(&rig);
}
END_TEST

/* --- waiting --------------------------------------------------------------------------------------- */

struct sleeper {
	struct core_waiter w;
	_Atomic(unsigned) woken;
};

static void woken(struct core_waiter *w)
{
	atomic_fetch_add(&((struct sleeper *)w)->woken, 1);
}

static void wait_for(struct core_shard *s, struct sleeper *sleeper, uint64_t time, bool waits)
{
	*sleeper = (struct sleeper){.w = {.time = time, .wake = woken}};
	ck_assert_int_eq(core_shard_wait(s, &sleeper->w), waits);
}

START_TEST(waiters_are_woken_once_when_the_upper_has_passed_them)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct sleeper five, seven, five_too, gone;

	wait_for(rig.shard, &seven, 7, true);
	wait_for(rig.shard, &five, 5, true);
	wait_for(rig.shard, &five_too, 5, true);
	wait_for(rig.shard, &gone, 5, true);
	ck_assert(core_shard_unwait(rig.shard, &gone.w));
	ck_assert(!core_shard_unwait(rig.shard, &gone.w));
	verdict(rig.shard, "expected_upper=0 new_upper=5", "");
	ck_assert_uint_eq(five.woken, 0);
	verdict(rig.shard, "expected_upper=5 new_upper=6", "");
	ck_assert_uint_eq(five.woken, 1);
	ck_assert_uint_eq(five_too.woken, 1);
	ck_assert_uint_eq(seven.woken, 0);
	ck_assert(!core_shard_unwait(rig.shard, &five.w));
	wait_for(rig.shard, &five, 5, false);
	verdict(rig.shard, "expected_upper=6 new_upper=-", "");
	ck_assert_uint_eq(seven.woken, 1);
	ck_assert_uint_eq(gone.woken, 0);
	wait_for(rig.shard, &five, UINT64_MAX, false);
	rig_free(&rig);
}
END_TEST

/* The upper of a removed shard is empty, so who waits then came between; nobody may be left behind. */
START_TEST(removal_wakes_whoever_waits)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct sleeper early;
	struct kv_err err;

	wait_for(rig.shard, &early, UINT64_MAX, true);
	verdict(rig.shard, "expected_upper=0 new_upper=- since=-", "");
	ck_assert_uint_eq(early.woken, 1);
	ck_ok(core_shard_remove(rig.shard, &err), err);
	wait_for(rig.shard, &early, 3, false);
	rig_free(&rig);
}
END_TEST

static atomic_bool stop_appending;

static void *append_until_told(void *arg)
{
	struct core_appended r;
	struct kv_err err;

	while (!atomic_load(&stop_appending))
		ck_ok(append(arg, "expected_upper=* new_upper=+1", "", &r, &err), err);
	return NULL;
}

START_TEST(waiting_and_unwaiting_race_with_appends_and_each_is_told_once)
{
	enum { SLEEPERS = 3000 };
	static struct sleeper sleepers[SLEEPERS];
	struct rig rig = rig_new(DISK_MEM);
	pthread_t thread;
	unsigned left = 0;
	struct core_info info;
	struct kv_err err;

	pthread_create(&thread, NULL, append_until_told, rig.shard);
	for (unsigned i = 0; i < SLEEPERS; i++) {
		bool waits;

		ck_ok(core_shard_info(rig.shard, false, &info, &err), err);
		sleepers[i] = (struct sleeper){.w = {.time = info.upper.t + i % 3, .wake = woken}};
		waits = core_shard_wait(rig.shard, &sleepers[i].w);
		if (!waits || (i % 4 == 0 && core_shard_unwait(rig.shard, &sleepers[i].w)))
			sleepers[i].w.time = UINT64_MAX; /* not to be told */
		else
			left++;
	}
	atomic_store(&stop_appending, true);
	pthread_join(thread, NULL);
	verdict(rig.shard, "expected_upper=* new_upper=-", "");
	core_engine_drain(rig.engine);
	for (unsigned i = 0; i < SLEEPERS; i++)
		ck_assert_uint_eq(sleepers[i].woken, sleepers[i].w.time != UINT64_MAX);
	ck_assert_uint_gt(left, 0);
	rig_free(&rig);
}
END_TEST

Suite *upkeep_suite(void)
{
	Suite *s = suite_create("upkeep");
	TCase *t = tcase_create("upkeep");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, of_more_shards_than_are_kept_those_used_last_are);
	tcase_add_loop_test(t, folding_keeps_the_content_at_every_readable_time, 0, 4);
	tcase_add_loop_test(t, folding_bounds_what_small_appends_leave_in_the_state, 0, 2);
	tcase_add_test(t, folding_bounds_inline_bytes_between_large_appends);
	tcase_add_test(t, loading_reads_few_versions_however_many_there_were);
	tcase_add_test(t, the_last_1024_tokens_are_remembered_across_reopening);
	tcase_add_test(t, waiters_are_woken_once_when_the_upper_has_passed_them);
	tcase_add_test(t, removal_wakes_whoever_waits);
	suite_add_tcase(s, t);
	t = tcase_create("threads");
	tcase_set_timeout(t, 120);
	tcase_add_test(t, waiting_and_unwaiting_race_with_appends_and_each_is_told_once);
	suite_add_tcase(s, t);
	return s;
}
