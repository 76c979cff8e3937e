/*
 * test_lease_life.c - leases when calls fail, when engines and shards end, and when
 * all happens at the same time.
 */
#include <time.h>

#include "tests/core/hosts.h"
#include "tests/core/suites.h"

/* --- whichever call fails -------------------------------------------------------------------------- */

START_TEST(whichever_call_fails_a_need_is_held_or_taken_off)
{
	static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
					      KV_FAULT_LOST_UNKNOWN};
	bool fired = true, failed = false;

	for (unsigned nth = 1; fired; nth++) {
		struct core_need need = {0};
		struct hosts h;
		struct kv_err err;
		enum kv_rc rc;

		hosts_begin(&h, DISK_SHARED);
		kv_faults_arm(h.disk->faults, nth, kinds[_i % 4], _i >= 4);
		rc = core_shard_need(h.a.shard, &need, 4, &err);
		fired = kv_faults_fired(h.disk->faults);
		disk_heal(h.disk);
		if (!fired)
			ck_ok(rc, err);
		failed = failed || rc != KV_OK;
		ck_assert_uint_eq(need_count(h.a.shard), rc == KV_OK);
		ck_assert(rc == KV_OK ||
			  rc == (kinds[_i % 4] == KV_FAULT_NOSPACE ? KV_NOSPACE : KV_UNREACHABLE));
		if (rc == KV_OK) {
			step(&h.b, 9);
			ck_assert_uint_eq(since_of(&h.b), 4);
			core_shard_release(h.a.shard, &need);
		}
		/* Nothing stays behind for long. */
		core_leases_keep(h.a.engine);
		core_leases_keep(h.a.engine);
		ck_assert(!has_lease(&h.b, &h.a));
		hosts_end(&h);
	}
	ck_assert(failed || (_i != 0 && _i < 4));
}
END_TEST

/* --- ending ---------------------------------------------------------------------------------------- */

START_TEST(an_engine_that_closes_ends_its_lease)
{
	struct hosts h;
	struct core_need need;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.b, &need, 4); /* which has written nothing */
	need_at(&h.a, &(struct core_need){0}, 5);
	core_shard_release(h.a.shard, h.a.shard->needs);
	core_shard_release(h.b.shard, &need);
	step(&h.a, 9);
	ck_assert_uint_eq(since_of(&h.a), 4);
	host_leave(&h.b);
	ck_assert_uint_eq(since_of(&h.a), 9);
	ck_assert_uint_eq(h.a.shard->state.lease_count, 0);
	hosts_end(&h);
}
END_TEST

START_TEST(a_shard_that_leaves_the_cache_has_its_lease_ended)
{
	struct hosts h;
	struct core_need need;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.b, &need, 4);
	core_shard_release(h.b.shard, &need);
	step(&h.a, 9);
	ck_assert(has_lease(&h.b, &h.b));
	core_shard_close(h.b.shard);
	for (unsigned i = 0; i < CORE_CACHED_SHARDS + 2; i++) {
		struct core_shard_id id = {.u = core_uuid_new()};
		struct kv_err err;

		ck_ok(core_shard_create(h.b.engine, id, any_owner, &err), err);
		ck_ok(core_shard_open(h.b.engine, id, &h.b.shard, &err), err);
		core_shard_close(h.b.shard);
	}
	h.b.shard = NULL;
	rig_settle(&(struct rig){.engine = h.b.engine});
	ck_assert_uint_eq(since_of(&h.a), 9);
	hosts_end(&h);
}
END_TEST

START_TEST(leases_of_a_shard_that_others_remove_are_no_matter)
{
	struct hosts h;
	struct core_need need, after = {0};
	struct kv_err err;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &need, 4);
	ck_assert_str_eq(verdict(h.b.shard, "expected_upper=10 new_upper=- since=-", ""),
			 "ok 10 - updates=0");
	ck_ok(core_shard_remove(h.b.shard, &err), err);
	core_shard_close(h.b.shard);
	h.b.shard = NULL;
	later(&h, HOUR_MS);
	if (_i == 0)
		core_leases_keep(h.a.engine);
	else if (_i == 1)
		ck_assert_int_eq(core_shard_need(h.a.shard, &after, 3, &err), KV_NO_SHARD);
	ck_assert_uint_eq(need_count(h.a.shard), 1);
	core_shard_release(h.a.shard, &need);
	hosts_end(&h); /* which ends a lease that is not there */
}
END_TEST

/* --- at the same time ------------------------------------------------------------------------------ */

static void *step_to_8(void *arg)
{
	struct core_appended r;
	struct kv_err err;

	ck_ok(append(arg, "expected_upper=* new_upper=+1 since=8", "", &r, &err), err);
	return NULL;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

START_TEST(a_need_that_comes_while_since_moves_sees_where_to)
{
	struct hosts h;
	struct core_need need, keeps;
	bool moving = false;
	pthread_t thread;

	hosts_begin(&h, _i == 0 ? DISK_SOLE : DISK_SHARED);
	if (_i == 2) /* with a lease, which moves as well */
		need_at(&h.a, &keeps, 3);
	if (_i == 2)
		core_shard_move_need(h.a.shard, &keeps, 6);
	kv_faults_set_delay_us(h.disk->faults, 300000);
	kv_faults_arm(h.disk->faults, 1, KV_FAULT_SLOW, false);
	ck_assert_int_eq(pthread_create(&thread, NULL, step_to_8, h.a.shard), 0);
	while (!moving) {
		nap();
		pthread_mutex_lock(&h.a.shard->mu);
		moving = core_frontier_eq(h.a.shard->letting_go, core_frontier_at(_i == 2 ? 6 : 8));
		pthread_mutex_unlock(&h.a.shard->mu);
	}
	need_at(&h.a, &need, 4);
	uint64_t since = since_of(&h.a); /* the check of one who reads */
	pthread_join(thread, NULL);
	ck_assert_uint_eq(since_of(&h.a), since);
	ck_assert_uint_eq(since, _i == 2 ? 6 : 8);
	core_shard_release(h.a.shard, &need);
	if (_i == 2)
		core_shard_release(h.a.shard, &keeps);
	hosts_end(&h);
}
END_TEST

static void *change_owner(void *arg)
{
	struct kv_err err;

	ck_ok(core_shard_set_owner(arg, any_owner, &err), err);
	return NULL;
}

START_TEST(a_need_that_comes_while_the_lease_moves_or_ends_is_held)
{
	struct hosts h;
	struct core_need need, before;
	struct core_frontier letting_go = core_frontier_at(0);
	pthread_t thread;

	hosts_begin(&h, DISK_SHARED);
	need_at(&h.a, &before, 3);
	if (_i == 0)
		core_shard_move_need(h.a.shard, &before, 6);
	else
		core_shard_release(h.a.shard, &before);
	kv_faults_set_delay_us(h.disk->faults, 300000);
	kv_faults_arm(h.disk->faults, 1, KV_FAULT_SLOW, false);
	ck_assert_int_eq(pthread_create(&thread, NULL, change_owner, h.a.shard), 0);
	while (core_frontier_eq(letting_go, core_frontier_at(0))) {
		nap();
		pthread_mutex_lock(&h.a.shard->mu);
		letting_go = h.a.shard->letting_go;
		pthread_mutex_unlock(&h.a.shard->mu);
	}
	need_at(&h.a, &need, 4);
	ck_assert_uint_eq(since_of(&h.a), 0);
	pthread_join(thread, NULL);
	step(&h.b, 9);
	ck_assert_uint_eq(since_of(&h.a), 4);
	if (_i == 0)
		core_shard_release(h.a.shard, &before);
	core_shard_release(h.a.shard, &need);
	hosts_end(&h);
}
END_TEST

enum { TAKERS = 4 };

struct takers {
	struct host *host;
	struct host *other;
	_Atomic(bool) over;
	_Atomic(unsigned) held; /* that were checked and stayed */
};

/* Take a need at since or a little above, check, and see that it holds until it is released. */
static void *take_and_release(void *arg)
{
	struct takers *t = arg;
	struct core_shard *s = t->host->shard;
	struct core_info info;
	struct kv_err err;

	for (unsigned round = 0; !atomic_load(&t->over) || round < 20; round++) {
		struct core_need need = {.pins_only = round % 16 == 15};
		uint64_t time;

		ck_ok(core_shard_info(s, false, &info, &err), err);
		time = info.since.t + round % 3;
		ck_ok(core_shard_need(s, &need, time, &err), err);
		ck_ok(core_shard_info(s, true, &info, &err), err);
		if (core_frontier_covers(info.since, time) && !need.pins_only) {
			for (unsigned look = 0; look < 3; look++) {
				sched_yield();
				ck_ok(core_shard_info(s, true, &info, &err), err);
				ck_assert_msg(core_frontier_covers(info.since, time), "since %llu, held %llu",
					      (unsigned long long)info.since.t, (unsigned long long)time);
			}
			core_shard_move_need(s, &need, time + 1);
			ck_ok(core_shard_info(s, true, &info, &err), err);
			ck_assert(core_frontier_covers(info.since, time + 1));
			atomic_fetch_add(&t->held, 1);
		}
		core_shard_release(s, &need);
	}
	return NULL;
}

static void *keep_and_look(void *arg)
{
	struct takers *t = arg;
	struct core_reading *list;
	size_t count;
	struct kv_err err;

	while (!atomic_load(&t->over)) {
		atomic_fetch_add(&t->host->now_ms, MINUTE_MS);
		atomic_fetch_add(&t->other->now_ms, MINUTE_MS);
		core_leases_keep(t->host->engine);
		ck_ok(core_shard_readers(t->host->shard, &list, &count, &err), err);
		free(list);
		nap();
	}
	return NULL;
}

START_TEST(what_was_checked_holds_while_others_append)
{
	struct hosts h;
	struct takers t;
	pthread_t threads[TAKERS + 1];
	struct core_appended r;
	struct kv_err err;

	hosts_begin(&h, _i == 0 ? DISK_SOLE : DISK_SHARED);
	t = (struct takers){.host = &h.a, .other = &h.b};
	for (size_t i = 0; i <= TAKERS; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, i < TAKERS ? take_and_release : keep_and_look, &t),
			0);
	for (unsigned i = 0; i < 300; i++) {
		struct host *who = _i == 1 && i % 2 == 0 ? &h.b : &h.a;
		char options[80];

		snprintf(options, sizeof(options), "expected_upper=* new_upper=+1 since=%u", i);
		ck_ok(append(who->shard, options, "* 1 k v;", &r, &err), err);
	}
	atomic_store(&t.over, true);
	for (size_t i = 0; i <= TAKERS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_gt(t.held, 0);
	step(&h.a, 300);
	ck_assert_uint_eq(since_of(&h.a), 300);
	ck_assert(!has_lease(&h.a, &h.a));
	check_sound(h.a.shard);
	hosts_end(&h);
}
END_TEST

START_TEST(the_keepers_thread_looks_after_leases_by_itself)
{
	struct kv_store *store = kv_store_pair(kv_consensus_mem_new(), kv_blob_mem_new(),
					       (struct kv_store_traits){.sole_owner = false});
	struct host host = {.now_ms = 1700000000000};
	struct core_engine_config config = {.now_us = host_clock, .now_arg = &host, .keeper_ms = 1};
	struct core_shard_id id = {.u = core_uuid_new()};
	struct core_need need;
	struct kv_err err;

	ck_ok(core_engine_open(store, &config, &host.engine, &err), err);
	ck_ok(core_shard_create(host.engine, id, any_owner, &err), err);
	ck_ok(core_shard_open(host.engine, id, &host.shard, &err), err);
	need_at(&host, &need, 4);
	atomic_fetch_add(&host.now_ms, HOUR_MS);
	while (lease_of(&host).heartbeat_ms != host.now_ms) /* the test's time limit is the deadline */
		nap();
	core_shard_release(host.shard, &need);
	while (has_lease(&host, &host))
		nap();
	host_leave(&host);
}
END_TEST

Suite *lease_life_suite(void)
{
	Suite *s = suite_create("lease_life");
	TCase *t = tcase_create("lease_life");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, whichever_call_fails_a_need_is_held_or_taken_off, 0, 8);
	tcase_add_test(t, an_engine_that_closes_ends_its_lease);
	tcase_add_test(t, a_shard_that_leaves_the_cache_has_its_lease_ended);
	tcase_add_loop_test(t, leases_of_a_shard_that_others_remove_are_no_matter, 0, 3);
	suite_add_tcase(s, t);
	t = tcase_create("threads");
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, a_need_that_comes_while_since_moves_sees_where_to, 0, 3);
	tcase_add_loop_test(t, a_need_that_comes_while_the_lease_moves_or_ends_is_held, 0, 2);
	tcase_add_loop_test(t, what_was_checked_holds_while_others_append, 0, 2);
	tcase_add_test(t, the_keepers_thread_looks_after_leases_by_itself);
	suite_add_tcase(s, t);
	return s;
}
