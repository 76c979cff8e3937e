/*
 * test_lease.c - who reads holds since: on its own with a sole owner, by a lease
 * in the state where others commit as well. What goes wrong: test_lease_life.c.
 */
#include "tests/core/hosts.h"
#include "tests/core/suites.h"

/* --- on its own ------------------------------------------------------------------------------------ */

START_TEST(with_a_sole_owner_no_read_costs_a_version)
{
	struct hosts h;
	struct core_need needs[3];
	uint64_t seqno;

	hosts_begin(&h, _i == 0 ? DISK_MEM : DISK_SOLE);
	ck_assert_ptr_null(h.a.engine->keeper);
	seqno = info_of(&h.a).seqno;
	for (uint64_t i = 0; i < 3; i++)
		need_at(&h.a, &needs[i], 3 * i);
	check_content(h.a.shard, 6, "k v 1;");
	core_shard_move_need(h.a.shard, &needs[0], 4);
	core_leases_keep(h.a.engine);
	for (uint64_t i = 0; i < 3; i++)
		core_shard_release(h.a.shard, &needs[i]);
	core_leases_keep(h.a.engine);
	ck_assert_uint_eq(info_of(&h.a).seqno, seqno);
	step(&h.a, 0);
	ck_assert_uint_eq(info_of(&h.a).seqno, seqno + 1);
	ck_assert(!has_lease(&h.a, &h.a));
	hosts_end(&h);
}
END_TEST

START_TEST(a_need_holds_since_while_it_lives_and_lets_go_at_the_next_commit)
{
	struct hosts h;
	struct core_need first, second, pins = {.pins_only = true};
	struct kv_err err;

	hosts_begin(&h, _i == 0 ? DISK_SOLE : DISK_SHARED);
	need_at(&h.a, &first, 4);
	need_at(&h.a, &second, 6);
	ck_ok(core_shard_need(h.a.shard, &pins, 2, &err), err); /* needs no time */
	step(&h.a, 9);
	ck_assert_uint_eq(since_of(&h.a), 4);
	core_shard_move_need(h.a.shard, &first, 8);
	core_shard_move_need(h.a.shard, &first, 5); /* only forward */
	ck_assert_uint_eq(since_of(&h.a), 4);
	step(&h.a, 9);
	ck_assert_uint_eq(since_of(&h.a), 6);
	core_shard_release(h.a.shard, &second);
	ck_ok(core_shard_set_owner(h.a.shard, any_owner, &err), err); /* any commit will do */
	ck_assert_uint_eq(since_of(&h.a), 8);
	core_shard_release(h.a.shard, &first);
	core_shard_release(h.a.shard, &pins);
	step(&h.a, 0);
	ck_assert_uint_eq(since_of(&h.a), 9);
	hosts_end(&h);
}
END_TEST

START_TEST(a_need_below_since_holds_nothing)
{
	struct hosts h;
	struct core_need late, need;
	uint64_t seqno;

	hosts_begin(&h, _i == 0 ? DISK_SOLE : DISK_SHARED);
	step(&h.a, 5);
	seqno = info_of(&h.a).seqno;
	need_at(&h.a, &late, 4);
	check_content(h.a.shard, 4, "CompactedAway");
	ck_assert_uint_eq(info_of(&h.a).seqno, seqno);
	need_at(&h.a, &need, 7);
	step(&h.a, 9);
	ck_assert_uint_eq(since_of(&h.a), 7);
	core_shard_release(h.a.shard, &need);
	step(&h.a, 9);
	ck_assert_uint_eq(since_of(&h.a), 9);
	ck_assert(!has_lease(&h.a, &h.a)); /* the late one keeps none */
	core_shard_release(h.a.shard, &late);
	hosts_end(&h);
}
END_TEST

/* --- against others -------------------------------------------------------------------------------- */

START_TEST(a_lease_holds_since_against_another_engine)
{
	struct hosts h;
	struct core_need need;
	struct core_lease lease;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	lease = lease_of(&h.a);
	ck_assert_uint_eq(lease.since.t, 4);
	ck_assert_uint_eq(lease.lease_ms, CORE_READER_LEASE_MS);
	ck_assert_uint_eq(lease.heartbeat_ms, h.a.now_ms);
	ck_assert_uint_le(lease.seqno, info_of(&h.a).seqno);
	ck_assert_str_eq(lease.host, "a.example");
	ck_assert_str_eq(lease.purpose, "a test");
	step(&h.b, 9);
	ck_assert_uint_eq(since_of(&h.a), 4);
	ck_assert_uint_eq(since_of(&h.b), 4);
	check_content(h.a.shard, 4, "k v 1;");
	check_content(h.b.shard, 4, "k v 1;");
	core_shard_release(h.a.shard, &need);
	hosts_end(&h);
}
END_TEST

START_TEST(a_move_and_the_end_go_with_the_next_commit_of_their_engine)
{
	struct hosts h;
	struct core_need need;
	uint64_t seqno;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	step(&h.b, 9);
	seqno = info_of(&h.b).seqno;
	core_shard_move_need(h.a.shard, &need, 6);
	step(&h.b, 9);
	ck_assert_uint_eq(info_of(&h.b).seqno, seqno + 1);
	ck_assert_uint_eq(since_of(&h.b), 4);
	step(&h.a, 0);
	ck_assert_uint_eq(lease_of(&h.a).since.t, 6);
	ck_assert_uint_eq(since_of(&h.b), 6);

	core_shard_release(h.a.shard, &need);
	step(&h.b, 9);
	ck_assert_uint_eq(since_of(&h.b), 6);
	step(&h.a, 0);
	ck_assert(!has_lease(&h.b, &h.a));
	ck_assert_uint_eq(since_of(&h.b), 9);
	ck_assert_uint_eq(info_of(&h.b).seqno, seqno + 4);
	hosts_end(&h);
}
END_TEST

START_TEST(the_keeper_does_what_no_commit_has_taken_along)
{
	struct hosts h;
	struct core_need need;
	uint64_t seqno;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	step(&h.b, 9);
	seqno = info_of(&h.a).seqno;
	core_leases_keep(h.a.engine);
	ck_assert_uint_eq(info_of(&h.a).seqno, seqno);
	core_shard_move_need(h.a.shard, &need, 6);
	core_leases_keep(h.a.engine);
	core_leases_keep(h.a.engine);
	ck_assert_uint_eq(info_of(&h.a).seqno, seqno + 1);
	ck_assert_uint_eq(since_of(&h.b), 6);
	later(&h, CORE_READER_LEASE_MS / 4);
	core_leases_keep(h.a.engine);
	core_leases_keep(h.a.engine);
	ck_assert_uint_eq(info_of(&h.a).seqno, seqno + 2);
	ck_assert_uint_eq(lease_of(&h.a).heartbeat_ms, h.a.now_ms);
	core_shard_release(h.a.shard, &need);
	core_leases_keep(h.a.engine);
	core_leases_keep(h.a.engine);
	ck_assert_uint_eq(info_of(&h.a).seqno, seqno + 3);
	ck_assert(!has_lease(&h.b, &h.a));
	ck_assert_uint_eq(since_of(&h.b), 9);
	hosts_end(&h);
}
END_TEST

START_TEST(two_thousand_needs_cost_one_lease)
{
	struct hosts h;
	struct core_need *needs = calloc(2000, sizeof(*needs));
	uint64_t seqno;

	hosts_begin(&h, DISK_SHARED);
	seqno = info_of(&h.a).seqno;
	for (uint64_t i = 0; i < 2000; i++)
		need_at(&h.a, &needs[i], 2 + i / 100);
	for (size_t i = 1; i < 2000; i++)
		core_shard_release(h.a.shard, &needs[i]);
	ck_assert_uint_eq(info_of(&h.b).seqno, seqno + 1);
	for (size_t i = 1; i < 2000; i++)
		need_at(&h.a, &needs[i], 2 + i % 7);
	ck_assert_uint_eq(info_of(&h.b).seqno, seqno + 1);
	step(&h.b, 9);
	ck_assert_uint_eq(since_of(&h.b), 2);
	for (size_t i = 0; i < 2000; i++)
		core_shard_release(h.a.shard, &needs[i]);
	free(needs);
	hosts_end(&h);
}
END_TEST

START_TEST(an_earlier_need_takes_the_lease_back_as_far_as_since_allows)
{
	struct hosts h;
	struct core_need needs[3];

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &needs[0], 8);
	step(&h.b, 3);
	need_at(&h.a, &needs[1], 5);
	ck_assert_uint_eq(lease_of(&h.a).since.t, 5);
	need_at(&h.a, &needs[2], 1);
	step(&h.b, 9);
	check_content(h.a.shard, 1, "CompactedAway");
	check_content(h.a.shard, 5, "k v 1;");
	ck_assert_uint_eq(since_of(&h.b), 5);
	for (size_t i = 0; i < 3; i++)
		core_shard_release(h.a.shard, &needs[i]);
	hosts_end(&h);
}
END_TEST

START_TEST(a_need_beyond_the_upper_is_held_too)
{
	struct hosts h;
	struct core_need need;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 30);
	step(&h.b, 50);
	ck_assert_uint_eq(since_of(&h.a), 30);
	core_shard_release(h.a.shard, &need);
	step(&h.a, 50);
	ck_assert_uint_eq(since_of(&h.b), 50);
	hosts_end(&h);
}
END_TEST

START_TEST(who_only_has_what_it_reads_takes_a_lease_that_holds_no_time)
{
	struct hosts h;
	struct core_need need, pins = {.pins_only = true};
	struct kv_err err;
	uint64_t seqno;

	hosts_begin(&h, DISK_SHARED);
	seqno = info_of(&h.a).seqno;
	/* Or the others would delete the parts that it reads. */
	ck_ok(core_shard_need(h.a.shard, &pins, 0, &err), err);
	ck_assert(has_lease(&h.b, &h.a));
	ck_assert_uint_eq(info_of(&h.a).seqno, seqno + 1);
	step(&h.b, 2);
	ck_assert_uint_eq(since_of(&h.b), 2);
	need_at(&h.a, &need, 4);
	core_shard_release(h.a.shard, &need);
	step(&h.a, 9);
	ck_assert(lease_of(&h.a).since.empty);
	ck_assert_uint_eq(since_of(&h.b), 9);
	core_shard_release(h.a.shard, &pins);
	step(&h.a, 0);
	ck_assert(!has_lease(&h.a, &h.a));
	hosts_end(&h);
}
END_TEST

START_TEST(who_may_not_write_takes_no_lease)
{
	struct hosts h;
	struct core_need need;
	uint64_t seqno;

	hosts_begin(&h, DISK_SHARED);
	seqno = info_of(&h.a).seqno;
	h.a.engine->traits.read_only = true;
	need_at(&h.a, &need, 4);
	core_leases_keep(h.a.engine);
	core_shard_release(h.a.shard, &need);
	ck_assert_uint_eq(info_of(&h.b).seqno, seqno);
	hosts_end(&h);
}
END_TEST

/* --- time ------------------------------------------------------------------------------------------ */

START_TEST(the_lease_of_a_crashed_engine_runs_out)
{
	struct hosts h;
	struct core_need need;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	kv_faults_arm(h.disk->faults, 1, KV_FAULT_BEFORE, true);
	core_shard_release(h.a.shard, &need); /* of which nobody hears */
	host_leave(&h.a);
	disk_heal(h.disk);
	later(&h, CORE_READER_LEASE_MS);
	step(&h.b, 9);
	ck_assert_uint_eq(since_of(&h.b), 4);
	later(&h, 1);
	step(&h.b, 9); /* it goes, and lets since go, in one version */
	ck_assert_uint_eq(since_of(&h.b), 9);
	ck_assert_uint_eq(h.b.shard->state.lease_count, 0);
	hosts_end(&h);
}
END_TEST

START_TEST(the_own_sign_of_life_counts_before_expiry)
{
	struct hosts h;
	struct core_need need;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	later(&h, 10 * HOUR_MS);
	step(&h.a, 9); /* before anybody else has committed */
	ck_assert_uint_eq(since_of(&h.b), 4);
	ck_assert_uint_eq(lease_of(&h.a).heartbeat_ms, h.a.now_ms);
	step(&h.b, 9);
	ck_assert_uint_eq(since_of(&h.b), 4);
	core_shard_release(h.a.shard, &need);
	hosts_end(&h);
}
END_TEST

START_TEST(who_slept_too_long_is_told_and_starts_anew)
{
	struct hosts h;
	struct core_need old, need;
	struct core_snapshot *n;
	struct core_update u;
	struct kv_err err;
	bool end;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &old, 4);
	ck_ok(core_snapshot_open(h.a.shard, (struct core_as_of){.time = 4}, &n, &err), err);
	atomic_fetch_add(&h.b.now_ms, CORE_READER_LEASE_MS + 1); /* a sleeps */
	step(&h.b, 8);
	ck_assert_uint_eq(since_of(&h.b), 8);
	atomic_store(&h.a.now_ms, atomic_load(&h.b.now_ms));

	if (_i == 0)
		step(&h.a, 0);
	else if (_i == 1)
		core_leases_keep(h.a.engine);
	check_content(h.a.shard, 4, "CompactedAway");
	/* What was pinned stays, what was lost holds nothing. */
	ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert(!end && u.time == 4);
	core_snapshot_close(n);
	step(&h.a, 9);
	ck_assert_uint_eq(since_of(&h.a), 9);
	ck_assert(!has_lease(&h.a, &h.a));

	need_at(&h.a, &need, 9);
	step(&h.b, 11);
	ck_assert_uint_eq(since_of(&h.b), 9);
	check_content(h.a.shard, 9, "k v 1;l v 1;");
	core_shard_release(h.a.shard, &old);
	core_shard_release(h.a.shard, &need);
	hosts_end(&h);
}
END_TEST

START_TEST(a_lease_lost_before_others_went_on_is_taken_again)
{
	struct hosts h;
	struct core_need need;
	struct kv_err err;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	atomic_fetch_add(&h.b.now_ms, CORE_READER_LEASE_MS + 1);
	ck_ok(core_shard_set_owner(h.b.shard, any_owner, &err), err);
	ck_assert(!has_lease(&h.b, &h.a));
	atomic_store(&h.a.now_ms, atomic_load(&h.b.now_ms));
	core_leases_keep(h.a.engine);
	ck_assert(has_lease(&h.b, &h.a));
	step(&h.b, 9);
	ck_assert_uint_eq(since_of(&h.b), 4);
	core_shard_release(h.a.shard, &need);
	hosts_end(&h);
}
END_TEST

START_TEST(appending_renews_the_lease_without_a_version_more)
{
	struct hosts h;
	struct core_need need;
	uint64_t seqno, most = 0;
	unsigned renewed = 0;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	seqno = info_of(&h.a).seqno;
	for (unsigned second = 0; second < 3600; second++) {
		uint64_t before = h.a.shard->state.leases[0].heartbeat_ms, after;

		later(&h, 1000);
		step(&h.a, 0);
		after = h.a.shard->state.leases[0].heartbeat_ms;
		renewed += after != before;
		if (h.a.now_ms - after > most)
			most = h.a.now_ms - after;
	}
	rig_settle(&(struct rig){.engine = h.a.engine});
	ck_assert_uint_eq(renewed, 16);
	ck_assert_uint_lt(most, CORE_READER_LEASE_MS / 4);
	ck_assert_uint_le(info_of(&h.a).seqno - seqno, 3600 + 3600 / CORE_ROLLUP_VERSIONS);
	core_shard_release(h.a.shard, &need);
	hosts_end(&h);
}
END_TEST

START_TEST(the_keeper_renews_the_lease_of_an_idle_reader)
{
	struct hosts h;
	struct core_need need;
	uint64_t seqno;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	seqno = info_of(&h.a).seqno;
	for (unsigned minute = 1; minute <= 600; minute++) {
		later(&h, MINUTE_MS);
		core_leases_keep(h.a.engine);
		core_leases_keep(h.b.engine);
		if (minute == 60)
			ck_assert_uint_eq(info_of(&h.b).seqno, seqno + 15); /* every fourth minute */
		if (minute % 60 == 0)
			step(&h.b, 9);
	}
	ck_assert_uint_eq(since_of(&h.b), 4);
	core_shard_release(h.a.shard, &need);
	hosts_end(&h);
}
END_TEST

START_TEST(a_clock_that_goes_back_or_jumps_harms_no_lease_of_its_own)
{
	struct hosts h;
	struct core_need need, again;
	uint64_t first;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	first = lease_of(&h.a).heartbeat_ms;
	atomic_fetch_sub(&h.a.now_ms, 2 * HOUR_MS);
	need_at(&h.a, &again, 5);
	step(&h.a, 9);
	core_leases_keep(h.a.engine);
	ck_assert_uint_eq(lease_of(&h.a).heartbeat_ms, first);
	atomic_fetch_add(&h.a.now_ms, 9 * HOUR_MS);
	step(&h.a, 9);
	ck_assert_uint_eq(lease_of(&h.a).heartbeat_ms, first + 7 * HOUR_MS);
	step(&h.b, 9); /* by a clock that is behind */
	ck_assert_uint_eq(since_of(&h.b), 4);
	core_shard_release(h.a.shard, &need);
	core_shard_release(h.a.shard, &again);
	hosts_end(&h);
}
END_TEST

/* --- those who look -------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
	const struct core_reading *x = a, *y = b;

	return x->time < y->time ? -1 : x->time > y->time;
}

static uint64_t counted(const struct host *r, enum core_counter which)
{
	return atomic_load(&core_engine_metrics(r->engine)->counters[which]);
}

START_TEST(leases_and_writers_that_come_and_go_are_counted)
{
	struct hosts h;
	struct core_need need;

	hosts_begin(&h, DISK_SHARED);
	uint64_t leases = counted(&h.a, CORE_M_LEASES);
	uint64_t ended = counted(&h.a, CORE_M_LEASES_ENDED), struck = counted(&h.b, CORE_M_WRITERS_ENDED);

	need_at(&h.a, &need, 4);
	ck_assert_uint_eq(counted(&h.a, CORE_M_LEASES), leases + 1);
	core_shard_release(h.a.shard, &need);
	step(&h.a, 0);
	ck_assert_uint_eq(counted(&h.a, CORE_M_LEASES_ENDED), ended + 1);
	step(&h.b, 0);
	ck_assert_uint_eq(counted(&h.b, CORE_M_WRITERS), 1);
	later(&h, 2 * HOUR_MS); /* a's writer is over */
	step(&h.b, 0);
	ck_assert_uint_gt(counted(&h.b, CORE_M_WRITERS_ENDED), struck);
	hosts_end(&h);
}
END_TEST

START_TEST(readers_are_listed_those_here_and_the_leases_of_others)
{
	struct hosts h;
	struct core_need first, second, there, pins = {.pins_only = true, .reader.purpose = "snapshot"};
	struct core_reading *list;
	size_t count;
	struct kv_err err;

	hosts_begin(&h, DISK_SHARED);
	ck_ok(core_shard_readers(h.a.shard, &list, &count, &err), err);
	ck_assert_uint_eq(count, 0);
	free(list);
	need_at(&h.a, &first, 4);
	second = (struct core_need){.reader = {.purpose = "listen/8", .pid = 42, .since_ms = 77}};
	ck_ok(core_shard_need(h.a.shard, &second, 7, &err), err);
	need_at(&h.b, &there, 5);
	ck_ok(core_shard_need(h.b.shard, &pins, 9, &err), err);

	ck_ok(core_shard_readers(h.a.shard, &list, &count, &err), err);
	ck_assert_uint_eq(count, 3);
	qsort(list, count, sizeof(*list), by_time);
	ck_assert_str_eq(list[0].host, "a.example");
	ck_assert_str_eq(list[0].reader.purpose, "a reader");
	ck_assert(list[0].time == 4 && list[0].heartbeat_ms == 0 && !list[0].pins_only);
	ck_assert(core_uuid_eq(list[0].id, first.id) && !core_uuid_eq(first.id, second.id));
	ck_assert(core_uuid_eq(list[1].id, h.b.engine->instance.u));
	ck_assert(list[1].time == 5 && list[1].heartbeat_ms == h.b.now_ms);
	ck_assert_str_eq(list[2].reader.purpose, "listen/8");
	ck_assert(list[2].time == 7 && list[2].reader.pid == 42 && list[2].reader.since_ms == 77);
	free(list);

	core_shard_release(h.b.shard, &there);
	step(&h.b, 0);
	ck_ok(core_shard_readers(h.a.shard, &list, &count, &err), err);
	qsort(list, count, sizeof(*list), by_time);
	ck_assert_uint_eq(count, 3);
	ck_assert_uint_eq(list[2].time, UINT64_MAX); /* b needs no time any more */
	free(list);
	ck_ok(core_shard_readers(h.b.shard, &list, &count, &err), err);
	ck_assert_uint_eq(count, 2);
	ck_assert(list[0].pins_only && list[0].heartbeat_ms == 0);
	ck_assert_str_eq(list[1].host, "a.example");
	ck_assert_str_eq(list[1].reader.purpose, "a test");
	free(list);
	core_shard_release(h.a.shard, &first);
	core_shard_release(h.a.shard, &second);
	core_shard_release(h.b.shard, &pins);
	hosts_end(&h);
}
END_TEST

Suite *lease_suite(void)
{
	Suite *s = suite_create("lease");
	TCase *t = tcase_create("lease");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, with_a_sole_owner_no_read_costs_a_version, 0, 2);
	tcase_add_loop_test(t, a_need_holds_since_while_it_lives_and_lets_go_at_the_next_commit, 0, 2);
	tcase_add_loop_test(t, a_need_below_since_holds_nothing, 0, 2);
	tcase_add_test(t, a_lease_holds_since_against_another_engine);
	tcase_add_test(t, a_move_and_the_end_go_with_the_next_commit_of_their_engine);
	tcase_add_test(t, the_keeper_does_what_no_commit_has_taken_along);
	tcase_add_test(t, two_thousand_needs_cost_one_lease);
	tcase_add_test(t, an_earlier_need_takes_the_lease_back_as_far_as_since_allows);
	tcase_add_test(t, a_need_beyond_the_upper_is_held_too);
	tcase_add_test(t, who_only_has_what_it_reads_takes_a_lease_that_holds_no_time);
	tcase_add_test(t, who_may_not_write_takes_no_lease);
	tcase_add_test(t, the_lease_of_a_crashed_engine_runs_out);
	tcase_add_test(t, the_own_sign_of_life_counts_before_expiry);
	tcase_add_loop_test(t, who_slept_too_long_is_told_and_starts_anew, 0, 3);
	tcase_add_test(t, a_lease_lost_before_others_went_on_is_taken_again);
	tcase_add_test(t, appending_renews_the_lease_without_a_version_more);
	tcase_add_test(t, the_keeper_renews_the_lease_of_an_idle_reader);
	tcase_add_test(t, a_clock_that_goes_back_or_jumps_harms_no_lease_of_its_own);
	tcase_add_test(t, leases_and_writers_that_come_and_go_are_counted);
	tcase_add_test(t, readers_are_listed_those_here_and_the_leases_of_others);
	suite_add_tcase(s, t);
	return s;
}
