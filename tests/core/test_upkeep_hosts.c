/*
 * test_upkeep_hosts.c - maintenance where several engines write to one store: what others read stays, as long
 * as their leases say so.
 */
#include "core/upkeep_impl.h"
#include "tests/core/chores.h"
#include "tests/core/hosts.h"
#include "tests/core/suites.h"

#include <unistd.h>

static struct core_snapshot *snapshot_of(struct host *host, uint64_t time)
{
	struct core_snapshot *n;
	struct kv_err err;

	ck_ok(core_snapshot_open(host->shard, (struct core_as_of){.time = time}, &n, &err), err);
	return n;
}

/* Batches with blobs up to time 10 + count, each larger than what a reader has in hand. */
static void fill(struct host *host, unsigned count, size_t pad)
{
	for (unsigned i = 0; i < count; i++)
		put_hollow(host->shard, "* 1 row v;", pad);
}

/* Everything that a host can do to make room. */
static void clean(struct host *host)
{
	chore(host->shard, CORE_COMPACT);
	for (int i = 0; i < 4; i++)
		chore(host->shard, CORE_ROLLUP);
	chore(host->shard, CORE_GC);
}

START_TEST(what_a_reader_elsewhere_has_open_stays_while_its_lease_does)
{
	struct core_snapshot *n;
	struct hosts h;
	char *before, *after;

	hosts_begin(&h, DISK_SHARED);
	fill(&h.a, 6, 400000);
	n = snapshot_of(&h.b, 15);
	before = snapshot_text(n);
	for (int i = 0; i < 20; i++) {
		fill(&h.a, 1, 5000);
		step(&h.a, 10 + (uint64_t)i);
		clean(&h.a);
		later(&h, 3 * MINUTE_MS);
		core_leases_keep(h.b.engine);
		core_leases_keep(h.a.engine);
	}
	ck_assert_uint_gt(dead_of(h.a.shard), 0);
	after = snapshot_text(n);
	ck_assert_msg(strcmp(before, after) == 0, "%.300s", after);
	core_snapshot_close(n);
	core_leases_keep(h.b.engine);
	clean(&h.a);
	ck_assert_uint_eq(dead_of(h.a.shard), 0);
	free(before);
	free(after);
	hosts_end(&h);
}
END_TEST

START_TEST(a_reader_whose_lease_has_run_out_gets_the_truth_or_an_error_that_says_so)
{
	struct core_snapshot *n;
	struct hosts h;
	char *before, *after;

	hosts_begin(&h, DISK_SHARED);
	fill(&h.a, 6, 400000);
	n = snapshot_of(&h.b, 15);
	before = snapshot_text(n);
	later(&h, 20 * MINUTE_MS);
	fill(&h.a, 1, 5000);
	step(&h.a, 16);
	clean(&h.a);
	ck_assert_uint_eq(dead_of(h.a.shard), 0);
	after = snapshot_text(n);
	ck_assert_msg(strstr(after, "Gone: ") != NULL || strstr(after, "CompactedAway: ") != NULL ||
			      strcmp(before, after) == 0,
		      "%.300s", after);
	core_snapshot_close(n);
	free(before);
	free(after);
	/* It can read again what there is now. */
	before = content(h.b.shard, 16);
	after = content(h.a.shard, 16);
	ck_assert_str_eq(before, after);
	free(before);
	free(after);
	hosts_end(&h);
}
END_TEST

START_TEST(a_listener_that_lives_long_does_not_keep_dead_parts_for_ever)
{
	struct core_listen *l;
	struct core_step at;
	struct kv_err err;
	struct hosts h;
	size_t most = 0;
	bool end;

	hosts_begin(&h, DISK_SHARED);
	ck_ok(core_listen_open(h.b.shard, core_frontier_at(1), &who, &l, &err), err);
	for (int i = 0; i < 40; i++) {
		enum kv_rc rc = KV_OK;

		fill(&h.a, 2, 5000);
		while (rc == KV_OK) {
			struct core_update u;
			bool done = false;

			rc = core_listen_step(l, &at, &end, &err);
			while (rc == KV_OK && !done)
				ck_ok(core_listen_next(l, &u, &done, &err), err);
		}
		ck_assert_int_eq(rc, KV_WOULD_BLOCK);
		later(&h, 4 * MINUTE_MS);
		core_leases_keep(h.b.engine);
		step(&h.a, 8 + 2 * (uint64_t)i);
		clean(&h.a);
		if (i > 4)
			most = dead_of(h.a.shard) > most ? dead_of(h.a.shard) : most;
	}
	ck_assert_msg(most <= 12, "%zu dead parts", most);
	ck_assert_uint_gt(since_of(&h.a), 80);
	core_listen_close(l);
	hosts_end(&h);
}
END_TEST

/* The versions that a host has not seen are gone: it begins anew from a rollup, with other batches in memory.
 */
START_TEST(a_host_that_was_left_behind_reads_on_what_it_had_open)
{
	struct core_snapshot *n, *second;
	struct hosts h;
	char *before, *after, *now;

	hosts_begin(&h, DISK_SHARED);
	fill(&h.a, 6, 400000);
	n = snapshot_of(&h.b, 15);
	before = snapshot_text(n);
	for (int i = 0; i < 6; i++) {
		fill(&h.a, 1, 400000);
		chore(h.a.shard, CORE_ROLLUP);
		chore(h.a.shard, CORE_GC);
	}
	chore(h.b.shard, CORE_GC); /* it sees what there is */
	step(&h.b, 15);
	step(&h.a, 15);
	second = snapshot_of(&h.b, 20);
	now = snapshot_text(second);
	later(&h, 5 * MINUTE_MS);
	core_leases_keep(h.b.engine);
	clean(&h.a);
	clean(&h.b);
	clean(&h.a);
	later(&h, 5 * MINUTE_MS);
	core_leases_keep(h.b.engine);
	clean(&h.a);
	after = snapshot_text(n);
	ck_assert_msg(strcmp(before, after) == 0, "%.300s", after);
	free(after);
	after = snapshot_text(second);
	ck_assert_msg(strcmp(now, after) == 0, "%.300s", after);
	core_snapshot_close(n);
	core_snapshot_close(second);
	core_leases_keep(h.b.engine);
	clean(&h.a);
	ck_assert_uint_eq(dead_of(h.a.shard), 0);
	free(before);
	free(after);
	free(now);
	hosts_end(&h);
}
END_TEST

START_TEST(a_staged_batch_open_elsewhere_is_read_on_when_it_was_committed_and_merged)
{
	char *row = large_row("25", "s", 400000), *before, *after;
	struct core_staged_view view;
	struct kv_err err;
	struct hosts h;

	hosts_begin(&h, DISK_SHARED);
	stage_whole(h.a.shard, "one", NULL, row);
	frontiers(h.b.shard);
	ck_ok(core_staged_open(h.b.shard, staged_entry(h.a.shard, "one").id, &view, &err), err);
	before = view_text(h.b.shard, &view);
	ck_assert_str_eq(verdict_staged(h.a.shard, "expected_upper=10 new_upper=30", "one", ""),
			 "ok 10 30 updates=1");
	fill(&h.a, 1, 5000);
	step(&h.a, 30);
	clean(&h.a);
	clean(&h.a);
	after = view_text(h.b.shard, &view);
	ck_assert_msg(strcmp(before, after) == 0, "%.300s", after);
	core_staged_close(h.b.shard, &view);
	core_leases_keep(h.b.engine);
	clean(&h.a);
	ck_assert_uint_eq(dead_of(h.a.shard), 0);
	free(row);
	free(before);
	free(after);
	hosts_end(&h);
}
END_TEST

/* --- at once ------------------------------------------------------------------------------------------ */

struct busy {
	struct rig *rig;
	struct core_engine *engine;
	unsigned seed;
	_Atomic(bool) *stop;
	_Atomic(unsigned) rounds;
};

static bool all_ran(const struct busy *b, int count)
{
	for (int k = 0; k < count; k++)
		if (b[k].rounds == 0)
			return false;
	return true;
}

static void *keep_cleaning(void *arg)
{
	struct busy *b = arg;
	struct rng rng = rng_new(b->seed);
	struct core_shard *s;
	struct kv_err err;

	ck_ok(core_shard_open(b->engine, b->rig->id, &s, &err), err);
	while (!*b->stop) {
		enum core_upkeep_kind kind = (enum core_upkeep_kind)rng_below(&rng, 3);
		enum kv_rc rc = chore_rc(s, kind, &err);

		ck_assert_msg(rc == KV_OK, "kind %d: %s", (int)kind, err.msg);
		b->rounds++;
	}
	core_shard_close(s);
	return NULL;
}

static void *keep_reading(void *arg)
{
	struct busy *b = arg;
	struct core_shard *s;
	struct kv_err err;

	while (!*b->stop) {
		struct core_snapshot *n;
		bool end = false;
		struct core_update u;
		enum kv_rc rc;

		ck_ok(core_shard_open(b->engine, b->rig->id, &s, &err), err);
		ck_ok(core_snapshot_open(s, (struct core_as_of){.latest = true}, &n, &err), err);
		do {
			rc = core_snapshot_next(n, &u, &end, &err);
			ck_assert_msg(rc == KV_OK, "reading: %s", err.msg);
		} while (!end);
		core_snapshot_close(n);
		core_shard_close(s);
		b->rounds++;
		usleep(100);
	}
	return NULL;
}

START_TEST(a_merge_whose_inputs_another_host_has_merged_and_deleted_is_dropped)
{
	struct core_merge_ask ask = {.aim = CORE_AIM_ONE};
	struct core_upkeep_result result = {0};
	struct core_merge_run run;
	struct kv_err err;
	struct hosts h;
	bool fits = true;

	hosts_begin(&h, DISK_SHARED);
	fill(&h.a, 6, 400000);
	chore(h.b.shard, CORE_GC); /* it sees what there is */
	ck_assert(core_compact_begin(h.b.shard, &ask, core_frontier_empty(), &run));
	clean(&h.a);
	ck_assert_uint_eq(dead_of(h.a.shard), 0);
	ck_ok(core_compact_do(h.b.shard, &run, &fits, &result, &err), err);
	ck_assert(!fits);
	ck_assert_uint_eq(result.merges, 0);
	hosts_end(&h);
}
END_TEST

START_TEST(hosts_that_append_merge_collect_and_read_at_once_agree)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig), third = second_open(&rig);
	_Atomic(bool) stop = false;
	struct busy busy[4] = {{&rig, rig.engine, 1, &stop, 0},
			       {&rig, other.engine, 2, &stop, 0},
			       {&rig, other.engine, 3, &stop, 0},
			       {&rig, third.engine, 4, &stop, 0}};
	pthread_t threads[4];
	uint64_t began = core_ticks_us(), i = 0;
	struct core_appended r;
	struct kv_err err;

	for (int k = 0; k < 4; k++)
		pthread_create(&threads[k], NULL, k < 2 ? keep_cleaning : keep_reading, &busy[k]);
	for (; core_ticks_us() - began < 1500000 || !all_ran(busy, 4); i++)
		ck_ok(append_nth(i % 2 == 0 ? rig.shard : other.shard, i, i % 3 == 0 ? 5000 : 50, &r, &err),
		      err);
	stop = true;
	for (int k = 0; k < 4; k++)
		pthread_join(threads[k], NULL);
	check_appends(rig.shard, i);
	check_appends(other.shard, i);
	second_close(&other);
	second_close(&third);
	chore(rig.shard, CORE_COMPACT);
	ck_assert_uint_le(runs_of(rig.shard), 2);
	ck_assert_uint_eq(dead_of(rig.shard), 0);
	check_appends(rig.shard, i);
	rig_free(&rig);
}
END_TEST

/* A host that starts while another one forgets versions and rollups. */
START_TEST(a_shard_can_be_opened_at_any_moment_of_a_collection_elsewhere)
{
	struct rig rig = rig_new(DISK_SHARED);
	_Atomic(bool) stop = false;
	struct busy busy = {&rig, rig.engine, 1, &stop, 0};
	pthread_t thread;
	uint64_t began = core_ticks_us(), count = 0;
	struct kv_err err;

	append_many(rig.shard, 0, 10, 50);
	pthread_create(&thread, NULL, keep_cleaning, &busy);
	while (core_ticks_us() - began < 1000000 || count <= 10) {
		struct core_engine *e = disk_open(rig.disk);
		struct core_shard *s;

		ck_ok(core_shard_open(e, rig.id, &s, &err), err);
		check_appends(s, 10);
		core_shard_close(s);
		core_engine_close(e);
		count++;
	}
	stop = true;
	pthread_join(thread, NULL);
	rig_free(&rig);
}
END_TEST

Suite *upkeep_hosts_suite(void)
{
	Suite *s = suite_create("upkeep_hosts");
	TCase *t = tcase_create("upkeep_hosts");

	tcase_set_timeout(t, 40);
	tcase_add_test(t, what_a_reader_elsewhere_has_open_stays_while_its_lease_does);
	tcase_add_test(t, a_reader_whose_lease_has_run_out_gets_the_truth_or_an_error_that_says_so);
	tcase_add_test(t, a_listener_that_lives_long_does_not_keep_dead_parts_for_ever);
	tcase_add_test(t, a_host_that_was_left_behind_reads_on_what_it_had_open);
	tcase_add_test(t, a_staged_batch_open_elsewhere_is_read_on_when_it_was_committed_and_merged);
	tcase_add_test(t, a_merge_whose_inputs_another_host_has_merged_and_deleted_is_dropped);
	tcase_add_test(t, hosts_that_append_merge_collect_and_read_at_once_agree);
	tcase_add_test(t, a_shard_can_be_opened_at_any_moment_of_a_collection_elsewhere);
	suite_add_tcase(s, t);
	return s;
}
